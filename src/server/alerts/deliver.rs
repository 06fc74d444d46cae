//! Sends messages to where the operator wants them: posts them to a webhook, signed, or hands them to `email`. Called by
//! `alerts`.

use super::{
    email::{Mailer, causes},
    message::Message,
};
use crate::server::{
    config::{AlertConfig, WebhookForm},
    outgoing,
};
use data_encoding::HEXLOWER;
use hmac::{Hmac, Mac};
use reqwest::{Client, Url, header::CONTENT_TYPE, redirect::Policy};
use sha2::Sha256;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long a webhook may take for its answer. Its text isn't read.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The pause after the first failure, in seconds; each further one is twice as long, up to the longest.
const FIRST_PAUSE_SECS: f64 = 5.0;
const LONGEST_PAUSE_SECS: f64 = 600.0;
/// After this many seconds a message that could not be sent is given up.
pub(super) const GIVE_UP_SECS: f64 = 86_400.0;

/// The headers with the time and the signature of what is posted.
const TIMESTAMP_HEADER: &str = "x-hark-timestamp";
const SIGNATURE_HEADER: &str = "x-hark-signature";

/// A way to people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Channel {
    Webhook,
    Email,
}

impl Channel {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Email => "email",
        }
    }
}

/// How long to wait after so many failures, in seconds.
pub(super) fn pause_secs(failures: u32) -> f64 {
    (FIRST_PAUSE_SECS * 2f64.powi(failures.saturating_sub(1).min(20) as i32)).min(LONGEST_PAUSE_SECS)
}

/// Sends to what is set.
pub(super) struct Sender {
    webhook: Option<Webhook>,
    mailer: Option<Mailer>,
}

impl Sender {
    /// # Errors
    /// If a setting can't be used, as a message for the operator.
    pub(super) fn new(config: &AlertConfig) -> Result<Self, String> {
        let webhook = config.alert_webhook.clone().map(|url| Webhook::new(url, config)).transpose()?;
        Ok(Self { webhook, mailer: Mailer::new(config)? })
    }

    /// The ways that are set.
    pub(super) fn channels(&self) -> Vec<Channel> {
        let webhook = self.webhook.as_ref().map(|_| Channel::Webhook);
        webhook.into_iter().chain(self.mailer.as_ref().map(|_| Channel::Email)).collect()
    }

    /// # Errors
    /// If it fails, with the cause. It is worth trying again.
    pub(super) async fn send(&self, channel: Channel, message: &Message) -> Result<(), String> {
        match (channel, &self.webhook, &self.mailer) {
            (Channel::Webhook, Some(webhook), _) => webhook.post(message).await,
            (Channel::Email, _, Some(mailer)) => mailer.send(message).await,
            _ => Err("it isn't set on this node".to_owned()),
        }
    }
}

struct Webhook {
    client: Client,
    url: Url,
    form: WebhookForm,
    secret: Option<String>,
}

impl Webhook {
    fn new(url: Url, config: &AlertConfig) -> Result<Self, String> {
        let client = outgoing::client()
            .timeout(TIMEOUT)
            // What is posted is meant for this address and no other.
            .redirect(Policy::none())
            .user_agent(concat!("hark/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| format!("alerts can't be posted: {e}"))?;
        Ok(Self { client, url, form: config.alert_webhook_form, secret: config.alert_secret.clone() })
    }

    async fn post(&self, message: &Message) -> Result<(), String> {
        let body = match self.form {
            WebhookForm::Json => serde_json::to_string(message),
            WebhookForm::Slack => serde_json::to_string(&message.slack()),
        };
        let body = body.map_err(|e| e.to_string())?;
        let mut request = self.client.post(self.url.clone()).header(CONTENT_TYPE, "application/json");
        if let Some(secret) = &self.secret {
            let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            request = request.header(TIMESTAMP_HEADER, time).header(SIGNATURE_HEADER, signature(secret, time, &body));
        }
        // The address may be a secret.
        let answer = request.body(body).send().await.map_err(|e| causes(&e.without_url()))?;
        let status = answer.status();
        if status.is_redirection() {
            return Err(format!(
                "it answered {status}; redirects aren't followed, so set the address to which it leads"
            ));
        }
        if !status.is_success() {
            return Err(format!("it answered {status}"));
        }
        Ok(())
    }
}

/// The signature of a body: HMAC-SHA256, in hexadecimal digits, over the time, a full stop and the body.
fn signature(secret: &str, time: u64, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(format!("{time}.{body}").as_bytes());
    format!("v1={}", HEXLOWER.encode(&mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_ten_minutes() {
        let pauses = [1, 2, 3, 4, 8, 20, u32::MAX].map(pause_secs);
        assert_eq!(pauses, [5.0, 10.0, 20.0, 40.0, 600.0, 600.0, 600.0]);
    }
}
