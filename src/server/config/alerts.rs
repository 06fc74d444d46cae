//! The settings of alerts: where their messages go, and the thresholds of their rules. Flattened into `ServeConfig`; also the
//! arguments of `hark alerts test`.

use super::read_secret;
use clap::{Args, ValueEnum};
use lettre::message::Mailbox;
use reqwest::Url;
use std::{net::IpAddr, path::PathBuf};

/// The least number of characters of the secret that signs messages.
const LEAST_SECRET: usize = 16;

/// Where the messages of alerts go.
#[derive(Args, Clone, Debug)]
pub struct AlertConfig {
    /// The address under which people reach Hark, such as `https://hark.example.org`. Messages of alerts name it, and this
    /// node looks every hour how long its certificate is valid.
    #[arg(long, env = "HARK_PUBLIC_URL", value_name = "URL", value_parser = web_address)]
    pub public_url: Option<Url>,
    /// The file with the address to which messages of alerts are posted. Or set HARK_ALERT_WEBHOOK. Without it and without
    /// HARK_ALERT_EMAIL_TO Hark looks after no alerts itself.
    #[arg(long, env = "HARK_ALERT_WEBHOOK_FILE", value_name = "FILE")]
    pub alert_webhook_file: Option<PathBuf>,
    /// What that file or HARK_ALERT_WEBHOOK holds.
    #[arg(skip)]
    pub alert_webhook: Option<Url>,
    /// What is posted there: JSON with all that is known of the alert, or a text as Slack, Mattermost and others take it.
    #[arg(long, env = "HARK_ALERT_WEBHOOK_FORM", default_value = "json")]
    pub alert_webhook_form: WebhookForm,
    /// The file with the secret that signs what is posted, at least 16 characters; make one with `openssl rand -hex 32`. Or set
    /// HARK_ALERT_SECRET. Without either nothing is signed.
    #[arg(long, env = "HARK_ALERT_SECRET_FILE", value_name = "FILE")]
    pub alert_secret_file: Option<PathBuf>,
    /// What that file or HARK_ALERT_SECRET holds.
    #[arg(skip)]
    pub alert_secret: Option<String>,
    /// The e-mail addresses to which messages of alerts are sent.
    #[arg(long, env = "HARK_ALERT_EMAIL_TO", value_name = "ADDRESS,…", value_delimiter = ',')]
    pub alert_email_to: Vec<Mailbox>,
    /// The sender of these e-mails, such as `Hark <hark@example.org>`.
    #[arg(long, env = "HARK_ALERT_EMAIL_FROM", value_name = "ADDRESS")]
    pub alert_email_from: Option<Mailbox>,
    /// The file with the address of the server that sends these e-mails: `smtps://user:password@host` (TLS from the start,
    /// port 465), `smtp://user:password@host?tls=required` (STARTTLS, port 587) or `smtp://host` (without TLS, port 25, for a
    /// server of one's own). Or set HARK_ALERT_SMTP_URL.
    #[arg(long, env = "HARK_ALERT_SMTP_URL_FILE", value_name = "FILE")]
    pub alert_smtp_url_file: Option<PathBuf>,
    /// What that file or HARK_ALERT_SMTP_URL holds.
    #[arg(skip)]
    pub alert_smtp_url: Option<Url>,
    /// How many times faster than the clock the time of alerts runs. For tests.
    #[arg(long, env = "HARK_ALERT_PACE", default_value_t = 1.0, hide = true, value_name = "FACTOR", value_parser = pace)]
    pub alert_pace: f64,
}

/// See [`AlertConfig::alert_webhook_form`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WebhookForm {
    Json,
    Slack,
}

impl AlertConfig {
    /// Whether there is anybody to tell.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.alert_webhook.is_some() || !self.alert_email_to.is_empty()
    }

    /// Reads the secret settings.
    ///
    /// # Errors
    /// If one can't be read or isn't valid, or one is missing that another needs.
    pub(in crate::server) fn read_secrets(&mut self) -> Result<(), String> {
        let webhook = read_secret("HARK_ALERT_WEBHOOK", self.alert_webhook_file.as_deref())?;
        self.alert_webhook =
            webhook.map(|url| web_address(&url)).transpose().map_err(|e| format!("HARK_ALERT_WEBHOOK {e}"))?;
        self.alert_secret = read_secret("HARK_ALERT_SECRET", self.alert_secret_file.as_deref())?;
        if self.alert_secret.as_ref().is_some_and(|secret| secret.chars().count() < LEAST_SECRET) {
            return Err(format!(
                "HARK_ALERT_SECRET must have at least {LEAST_SECRET} characters; make one with: openssl rand -hex 32"
            ));
        }
        let server = read_secret("HARK_ALERT_SMTP_URL", self.alert_smtp_url_file.as_deref())?;
        self.alert_smtp_url =
            server.map(|url| mail_server(&url)).transpose().map_err(|e| format!("HARK_ALERT_SMTP_URL {e}"))?;
        if !self.alert_email_to.is_empty() && (self.alert_smtp_url.is_none() || self.alert_email_from.is_none()) {
            return Err("HARK_ALERT_EMAIL_TO needs HARK_ALERT_SMTP_URL, the server that sends the e-mails, and \
                        HARK_ALERT_EMAIL_FROM, their sender"
                .to_owned());
        }
        Ok(())
    }
}

fn web_address(text: &str) -> Result<Url, String> {
    match text.parse::<Url>() {
        Ok(url) if ["http", "https"].contains(&url.scheme()) && url.has_host() => Ok(url),
        _ => Err("must be an address that begins with http:// or https://".to_owned()),
    }
}

/// Checks the address of a mail server. A password isn't sent without TLS, unless to this machine.
fn mail_server(text: &str) -> Result<Url, String> {
    let example = "such as smtps://user:password@host or smtp://user:password@host?tls=required";
    let url = text.parse::<Url>().map_err(|_| format!("must be the address of a mail server, {example}"))?;
    let tls = url.query_pairs().find(|(name, _)| name == "tls").map(|(_, value)| value.into_owned());
    let encrypted = match (url.scheme(), tls.as_deref()) {
        ("smtps", None) | ("smtp", Some("required")) => true,
        ("smtp", None | Some("opportunistic")) => false,
        _ => {
            return Err(format!(
                "must begin with smtp:// or smtps:// and know no other TLS than required and opportunistic, {example}"
            ));
        }
    };
    let Some(host) = url.host_str() else { return Err(format!("has no host; give one {example}")) };
    let is_here =
        host == "localhost" || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if url.password().is_some() && !encrypted && !is_here {
        return Err(format!("would send a password without TLS; use smtps:// or ?tls=required, {example}"));
    }
    Ok(url)
}

fn pace(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(n) if (0.001..=100_000.0).contains(&n) => Ok(n),
        _ => Err("must be a number from 0.001 to 100000".to_owned()),
    }
}

/// The thresholds of alerts. How long a value must be beyond one is said in docs/operations.md.
#[derive(Args, Clone, Debug)]
pub struct AlertThresholds {
    /// Too many streams fail: more than this share of those that pages opened, in percent.
    #[arg(long, env = "HARK_ALERT_STREAM_FAILURES_PERCENT", default_value_t = 1.0, value_name = "PERCENT", value_parser = percent)]
    pub alert_stream_failures_percent: f64,
    /// Updates are slow: one in twenty reaches its page later than this, in milliseconds.
    #[arg(long, env = "HARK_ALERT_DELIVERY_MS", default_value_t = 500, value_name = "MS", value_parser = clap::value_parser!(u32).range(1..))]
    pub alert_delivery_ms: u32,
    /// Streams begin slowly: one in twenty takes longer than this to its first event, in milliseconds.
    #[arg(long, env = "HARK_ALERT_CONNECT_MS", default_value_t = 500, value_name = "MS", value_parser = clap::value_parser!(u32).range(1..))]
    pub alert_connect_ms: u32,
    /// Streams can't be opened: less than this share of those that pages opened got a first event, in percent.
    #[arg(long, env = "HARK_ALERT_SUCCESS_PERCENT", default_value_t = 95.0, value_name = "PERCENT", value_parser = percent)]
    pub alert_success_percent: f64,
    /// The same for the critical alert.
    #[arg(long, env = "HARK_ALERT_SUCCESS_CRITICAL_PERCENT", default_value_t = 90.0, value_name = "PERCENT", value_parser = percent)]
    pub alert_success_critical_percent: f64,
    /// Too many visits fall back to polling: more than this share, in percent.
    #[arg(long, env = "HARK_ALERT_FALLBACKS_PERCENT", default_value_t = 20.0, value_name = "PERCENT", value_parser = percent)]
    pub alert_fallbacks_percent: f64,
    /// Too many long-running sessions: more than this.
    #[arg(long, env = "HARK_ALERT_LONG_RUNNING", default_value_t = 3, value_name = "N")]
    pub alert_long_running: u32,
    /// The queue is slow: a session waits for longer than this, in seconds.
    #[arg(long, env = "HARK_ALERT_QUEUE_SECS", default_value_t = 900, value_name = "SECONDS")]
    pub alert_queue_secs: u32,
    /// Redis is slow: one answer in twenty takes longer than this, in milliseconds.
    #[arg(long, env = "HARK_ALERT_REDIS_MS", default_value_t = 100, value_name = "MS", value_parser = clap::value_parser!(u32).range(1..))]
    pub alert_redis_ms: u32,
    /// The database is slow: one query in twenty takes longer than this, in milliseconds.
    #[arg(long, env = "HARK_ALERT_DATABASE_MS", default_value_t = 200, value_name = "MS", value_parser = clap::value_parser!(u32).range(1..))]
    pub alert_database_ms: u32,
    /// Hark uses more than this share of the memory that it may have, in percent.
    #[arg(long, env = "HARK_ALERT_MEMORY_PERCENT", default_value_t = 80.0, value_name = "PERCENT", value_parser = percent)]
    pub alert_memory_percent: f64,
    /// Its memory grows by more than this in an hour, for hours, in bytes.
    #[arg(long, env = "HARK_ALERT_MEMORY_GROWTH_BYTES", default_value_t = 10_000_000, value_name = "BYTES")]
    pub alert_memory_growth_bytes: u64,
    /// Hark uses more than this share of the processors though it has nothing to do, in percent.
    #[arg(long, env = "HARK_ALERT_CPU_PERCENT", default_value_t = 50.0, value_name = "PERCENT", value_parser = percent)]
    pub alert_cpu_percent: f64,
    /// The database is asked more than so many times as often for each stream as the day before.
    #[arg(long, env = "HARK_ALERT_QUERIES_FACTOR", default_value_t = 2.0, value_name = "FACTOR", value_parser = queries_factor)]
    pub alert_queries_factor: f64,
    /// Less than this share of a disk is free, in percent.
    #[arg(long, env = "HARK_ALERT_DISK_PERCENT", default_value_t = 10.0, value_name = "PERCENT", value_parser = percent)]
    pub alert_disk_percent: f64,
    /// The certificate of HARK_PUBLIC_URL is valid for less than so many days.
    #[arg(long, env = "HARK_ALERT_CERTIFICATE_DAYS", default_value_t = 14, value_name = "DAYS")]
    pub alert_certificate_days: u32,
}

impl Default for AlertThresholds {
    fn default() -> Self {
        Self {
            alert_stream_failures_percent: 1.0,
            alert_delivery_ms: 500,
            alert_connect_ms: 500,
            alert_success_percent: 95.0,
            alert_success_critical_percent: 90.0,
            alert_fallbacks_percent: 20.0,
            alert_long_running: 3,
            alert_queue_secs: 900,
            alert_redis_ms: 100,
            alert_database_ms: 200,
            alert_memory_percent: 80.0,
            alert_memory_growth_bytes: 10_000_000,
            alert_cpu_percent: 50.0,
            alert_queries_factor: 2.0,
            alert_disk_percent: 10.0,
            alert_certificate_days: 14,
        }
    }
}

fn percent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(n) if (0.0..=100.0).contains(&n) => Ok(n),
        _ => Err("must be a number from 0 to 100".to_owned()),
    }
}

fn queries_factor(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(n) if (1.0..=1000.0).contains(&n) => Ok(n),
        _ => Err("must be a number from 1 to 1000".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_goes_to_another_machine_only_behind_tls() {
        for good in [
            "smtps://user:secret@mail.example.org",
            "smtp://user:secret@mail.example.org:587?tls=required",
            "smtp://user:secret@127.0.0.1:2525",
            "smtp://user:secret@[::1]",
            "smtp://mail.example.org",
        ] {
            assert!(mail_server(good).is_ok(), "{good}");
        }
        for bad in [
            "smtp://user:secret@mail.example.org",
            "smtp://user:secret@mail.example.org?tls=opportunistic",
            "smtp://mail.example.org?tls=maybe",
            "https://mail.example.org",
            "mail.example.org",
        ] {
            assert!(mail_server(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_defaults_are_those_of_the_flags() {
        #[derive(clap::Parser)]
        struct Flags {
            #[command(flatten)]
            thresholds: AlertThresholds,
        }
        let flags = <Flags as clap::Parser>::parse_from(["hark"]).thresholds;
        assert_eq!(format!("{flags:?}"), format!("{:?}", AlertThresholds::default()));
    }
}
