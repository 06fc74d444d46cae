//! Messages of alerts by e-mail, with the crate lettre. Called by `deliver`.

use super::message::Message;
use crate::server::config::AlertConfig;
use lettre::{
    AsyncSmtpTransport, AsyncTransport, Tokio1Executor,
    message::{Mailbox, Message as Email, header::ContentType},
};
use std::{fmt::Write, time::Duration};

/// How long the server may take for each step.
const TIMEOUT: Duration = Duration::from_secs(20);

pub(super) struct Mailer {
    server: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    to: Vec<Mailbox>,
}

impl Mailer {
    /// None if no e-mail is to be sent.
    ///
    /// # Errors
    /// If the server's address can't be used.
    pub(super) fn new(config: &AlertConfig) -> Result<Option<Self>, String> {
        let (Some(url), Some(from)) = (&config.alert_smtp_url, &config.alert_email_from) else { return Ok(None) };
        if config.alert_email_to.is_empty() {
            return Ok(None);
        }
        let server = AsyncSmtpTransport::<Tokio1Executor>::from_url(url.as_str())
            .map_err(|e| format!("HARK_ALERT_SMTP_URL can't be used: {}", causes(&e)))?
            .timeout(Some(TIMEOUT))
            .build();
        Ok(Some(Self { server, from: from.clone(), to: config.alert_email_to.clone() }))
    }

    /// # Errors
    /// If the server refuses it or can't be reached.
    pub(super) async fn send(&self, message: &Message) -> Result<(), String> {
        let domain = self.from.email.domain();
        let mut email = Email::builder()
            .from(self.from.clone())
            .subject(format!("[Hark] {}", message.line()))
            // The same whenever this message is sent, so that programs see that they have it already.
            .message_id(Some(format!("<{}@{domain}>", message.id)))
            .header(ContentType::TEXT_PLAIN);
        for to in &self.to {
            email = email.to(to.clone());
        }
        let email = email.body(message.text()).map_err(|e| causes(&e))?;
        self.server.send(email).await.map(drop).map_err(|e| causes(&e))
    }
}

/// An error with what caused it, as far as it doesn't say so itself.
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            let _ = write!(text, ": {more}");
        }
        cause = error.source();
    }
    text
}
