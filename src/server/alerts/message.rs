//! The message about an alert that begins or ends, and its forms: JSON, Slack's, and an e-mail's text. Called by `alerts` and
//! `deliver`.

use super::rules::{Change, Severity};
use crate::model::{Timestamp, duration};
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use uuid::Uuid;

/// Where it stands what to do about an alert.
const RUNBOOK: &str = "docs/operations.md";

/// What a message says of its alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Phase {
    Firing,
    Resolved,
    Test,
}

/// A message, as it is stored and as JSON is posted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Message {
    /// The same whenever this message is sent.
    pub(super) id: Uuid,
    pub(super) status: Phase,
    /// The rule's name.
    pub(super) alert: String,
    pub(super) severity: Severity,
    /// The node that it concerns; none if it concerns all.
    pub(super) node: Option<String>,
    /// Which of several: the error's code, the folder or the node.
    pub(super) detail: Option<String>,
    /// The value that the rule looked at.
    pub(super) value: f64,
    /// A sentence without its full stop.
    pub(super) summary: String,
    /// Where it stands what to do.
    pub(super) runbook: String,
    /// Where people reach this Hark.
    pub(super) url: Option<String>,
    pub(super) started_at: Timestamp,
    pub(super) ended_at: Option<Timestamp>,
}

impl Message {
    /// The message about an alert that began at `started`, and at `now` begins or ends.
    pub(super) fn of(
        change: &Change,
        node: Option<&str>,
        url: Option<&str>,
        started: Timestamp,
        now: Timestamp,
    ) -> Self {
        let rule = change.rule;
        Self {
            id: Uuid::now_v7(),
            status: if change.begins { Phase::Firing } else { Phase::Resolved },
            alert: rule.name.to_owned(),
            severity: rule.severity,
            node: node.map(str::to_owned),
            detail: Some(change.detail.clone()).filter(|detail| !detail.is_empty()),
            value: change.value,
            summary: if change.begins {
                rule.summary(change.value, &change.detail)
            } else {
                format!("it is over after {}", duration(now.seconds_since(started).max(0.0)))
            },
            runbook: format!("{RUNBOOK}#{}", rule.name.to_lowercase()),
            url: url.map(str::to_owned),
            started_at: started,
            ended_at: (!change.begins).then_some(now),
        }
    }

    /// The message about an alert of a node that isn't heard of any more.
    pub(super) fn of_gone(
        name: &str,
        severity: Severity,
        node: &str,
        detail: &str,
        started: Timestamp,
        now: Timestamp,
    ) -> Self {
        Self {
            id: Uuid::now_v7(),
            status: Phase::Resolved,
            alert: name.to_owned(),
            severity,
            node: Some(node.to_owned()),
            detail: Some(detail.to_owned()).filter(|detail| !detail.is_empty()),
            value: 0.0,
            summary: "it isn't looked after any more, because the node is gone".to_owned(),
            runbook: format!("{RUNBOOK}#{}", name.to_lowercase()),
            url: None,
            started_at: started,
            ended_at: Some(now),
        }
    }

    /// A message that only shows that messages arrive.
    pub(super) fn test(url: Option<&str>) -> Self {
        Self {
            id: Uuid::now_v7(),
            status: Phase::Test,
            alert: "HarkTest".to_owned(),
            severity: Severity::Warning,
            node: None,
            detail: None,
            value: 0.0,
            summary: "this is a test; messages about alerts come this way".to_owned(),
            runbook: format!("{RUNBOOK}#alerts"),
            url: url.map(str::to_owned),
            started_at: Timestamp::now(),
            ended_at: None,
        }
    }

    /// One line, which also is an e-mail's subject.
    pub(super) fn line(&self) -> String {
        let Self { alert, severity, .. } = self;
        let mut text = match self.status {
            Phase::Firing => format!("{}: {alert}", severity.as_str()),
            Phase::Resolved => format!("over: {alert}"),
            Phase::Test => format!("test: {alert}"),
        };
        let more: Vec<&str> = [&self.node, &self.detail].into_iter().flatten().map(String::as_str).collect();
        if !more.is_empty() {
            let _ = write!(text, " ({})", more.join(", "));
        }
        text
    }

    /// The text of an e-mail.
    pub(super) fn text(&self) -> String {
        let mut text = format!("{}\n\n", capitalised(&self.summary));
        let mut row = |name: &str, value: &str| {
            let _ = writeln!(text, "{name}: {value}");
        };
        row("Alert", &self.alert);
        row("Severity", self.severity.as_str());
        if let Some(node) = &self.node {
            row("Node", node);
        }
        if let Some(detail) = &self.detail {
            row("Of", detail);
        }
        row("Since", &self.started_at.to_string());
        if let Some(ended) = self.ended_at {
            row("Until", &ended.to_string());
        }
        if let Some(url) = &self.url {
            row("Hark", url);
        }
        row("What to do", &self.runbook);
        text
    }

    /// The message in Slack's form.
    pub(super) fn slack(&self) -> serde_json::Value {
        let sign = match (self.status, self.severity) {
            (Phase::Firing, Severity::Critical) => "\u{1f534}",
            (Phase::Firing, Severity::Warning) => "\u{1f7e0}",
            (Phase::Resolved, _) => "\u{1f7e2}",
            (Phase::Test, _) => "\u{26aa}",
        };
        let mut text = format!("{sign} *{}*: {}.", escaped(&self.line()), escaped(&self.summary));
        if let Some(url) = &self.url {
            let _ = write!(text, " {}", escaped(url));
        }
        let _ = write!(text, " What to do: {}", escaped(&self.runbook));
        serde_json::json!({ "text": text })
    }
}

/// Makes text that Slack shows as it is. Source: Slack's "Formatting text for app surfaces", "Escaping text".
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| format!("{}{}.", first.to_uppercase(), chars.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::alerts::rules::Rule;

    #[test]
    fn a_message_says_what_and_where() {
        let rule = Rule::named("HarkDiskFull").unwrap();
        let change = Change { rule, detail: "<data> & more".to_owned(), value: 0.05, begins: true };
        let message = Message::of(&change, Some("web1"), Some("https://hark.example.org/"), Timestamp(0), Timestamp(0));
        assert_eq!(message.line(), "critical: HarkDiskFull (web1, <data> & more)");
        let slack = message.slack()["text"].as_str().unwrap().to_owned();
        assert!(slack.contains("only 5.0% of the disk of &lt;data&gt; &amp; more is free."), "{slack}");
        assert!(message.text().starts_with("Only 5.0% of the disk of <data> & more is free.\n"), "{}", message.text());
        let over = Change { begins: false, ..change };
        let message = Message::of(&over, Some("web1"), None, Timestamp(0), Timestamp(300_000));
        assert!(message.text().contains("It is over after 5 min."), "{}", message.text());
        assert!(message.text().contains("What to do: docs/operations.md#harkdiskfull"), "{}", message.text());
    }
}
