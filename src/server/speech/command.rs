//! The `command` engine: any program that speaks the engine protocol, given as a command line without a shell.

use super::{Availability, Engine, Request, SpeechError, which};
use crate::model::EngineId;
use std::path::Path;
use tokio::process::Command;

pub(super) struct CommandEngine {
    line: Option<String>,
}

impl CommandEngine {
    pub(super) fn new(line: Option<String>) -> Self {
        Self { line: line.filter(|l| !l.trim().is_empty()) }
    }

    fn words(&self) -> Option<Vec<String>> {
        shlex::split(self.line.as_deref()?).filter(|words| !words.is_empty())
    }
}

impl Engine for CommandEngine {
    fn id(&self) -> EngineId {
        EngineId::Command
    }

    fn model(&self) -> String {
        let words = self.words().unwrap_or_default();
        words
            .first()
            .and_then(|p| Path::new(p).file_name())
            .map_or_else(String::new, |n| n.to_string_lossy().into_owned())
    }

    fn availability(&self) -> Availability {
        let missing = |reason: String| Availability::Missing {
            reason,
            install: "HARK_ENGINE_COMMAND=\"program arguments…\" (see docs/engine-protocol.md)".to_owned(),
        };
        if self.line.is_none() {
            return missing("No program is set.".to_owned());
        }
        match self.words() {
            None => missing("The command's quotes don't match.".to_owned()),
            Some(words) if words[0].contains('/') && !Path::new(&words[0]).is_file() => {
                missing(format!("The program {} does not exist.", words[0]))
            }
            Some(words) if !words[0].contains('/') && which(&words[0]).is_none() => {
                missing(format!("The program {} is not on PATH.", words[0]))
            }
            Some(_) => Availability::Ready,
        }
    }

    fn command(&self, request: &Request) -> Result<Command, SpeechError> {
        let words = self.words().ok_or_else(|| SpeechError::Unavailable {
            reason: "No program is set.".to_owned(),
            install: String::new(),
        })?;
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        if let Some(language) = &request.language {
            command.env("HARK_LANGUAGE", language);
        }
        Ok(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_is_missing() {
        let reason = |line: &str| match CommandEngine::new(Some(line.to_owned())).availability() {
            Availability::Missing { reason, .. } => reason,
            Availability::Ready => "ready".to_owned(),
        };
        assert_eq!(reason(" "), "No program is set.");
        assert_eq!(reason("sh 'x"), "The command's quotes don't match.");
        assert_eq!(reason("/no/such x"), "The program /no/such does not exist.");
        assert_eq!(reason("no-such-program x"), "The program no-such-program is not on PATH.");
        assert_eq!(reason("sh -c 'exit 0'"), "ready");
    }
}
