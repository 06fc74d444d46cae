//! The `command` engine: any program that speaks the engine protocol, given as a command line that no shell interprets.
//! It runs under `hark engine command`, which ends the program and all that it started when Hark dies, even if Hark is
//! killed.

use super::{Availability, Engine, Request, SpeechError, own_child, pass_on, pipe::ChildError};
use crate::{model::EngineId, server::programs};
use rustix::process::{
    Signal as KernelSignal, getpid, kill_process, kill_process_group, set_parent_process_death_signal,
};
use std::{
    ffi::OsString,
    io,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::ExitCode,
};
use tokio::{
    process::Command,
    signal::unix::{SignalKind, signal},
};

pub(super) struct CommandEngine {
    /// The `hark` program; the running one if none.
    program: Option<PathBuf>,
    line: Option<String>,
    /// Environment variables that the engine gets besides the usual ones.
    variables: Vec<String>,
}

impl CommandEngine {
    pub(super) fn new(program: Option<PathBuf>, line: Option<String>, variables: Vec<String>) -> Self {
        Self { program, line: line.filter(|l| !l.trim().is_empty()), variables }
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
            Some(words) if !words[0].contains('/') && programs::find(&words[0]).is_none() => {
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
        let there =
            if words[0].contains('/') { Path::new(&words[0]).is_file() } else { programs::find(&words[0]).is_some() };
        if !there {
            return Err(SpeechError::Spawn(io::ErrorKind::NotFound.into()));
        }
        let mut command = own_child(self.program.as_deref(), &["command", "--"])?;
        command.args(&words);
        pass_on(&mut command, &self.variables);
        if let Some(language) = &request.language {
            command.env("HARK_LANGUAGE", language);
        }
        if let Some(vocabulary) = &request.vocabulary {
            command.env("HARK_VOCABULARY", vocabulary);
        }
        Ok(command)
    }
}

/// Runs the program with the pipes of this process until either ends. If Hark dies, the kernel signals this process,
/// which then kills its whole process group: a program that doesn't know of Hark wouldn't notice.
pub(super) async fn supervise(words: &[OsString]) -> Result<ExitCode, ChildError> {
    let failed = |error: io::Error| ChildError::new("spawn", format!("The engine's program can't be started: {error}"));
    let mut orphaned = signal(SignalKind::terminate()).map_err(failed)?;
    set_parent_process_death_signal(Some(KernelSignal::TERM)).map_err(|e| failed(e.into()))?;
    let Some((program, arguments)) = words.split_first() else {
        return Err(ChildError::new("usage", "No program was given."));
    };
    let mut child = Command::new(program).args(arguments).kill_on_drop(true).spawn().map_err(failed)?;
    tokio::select! {
        ended = child.wait() => {
            let status = ended.map_err(failed)?;
            // Ends the same way as the program, so that Hark reports the program's exit code or signal.
            if let Some(signal) = status.signal().and_then(KernelSignal::from_named_raw) {
                // Sent twice, because Rust's handler for SIGSEGV catches the first one and then removes itself.
                let _ = kill_process(getpid(), signal).and_then(|()| kill_process(getpid(), signal));
            }
            Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
        }
        _ = orphaned.recv() => {
            // Also kills this process, which is in the group.
            let _ = kill_process_group(getpid(), KernelSignal::KILL);
            Ok(ExitCode::FAILURE)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn availability_names_what_is_missing() {
        let reason = |line: &str| match CommandEngine::new(None, Some(line.to_owned()), Vec::new()).availability() {
            Availability::Missing { reason, .. } => reason,
            Availability::Ready => "ready".to_owned(),
            Availability::Soon(how) => how,
        };
        assert_eq!(reason(" "), "No program is set.");
        assert_eq!(reason("sh 'x"), "The command's quotes don't match.");
        assert_eq!(reason("/no/such x"), "The program /no/such does not exist.");
        assert_eq!(reason("no-such-program x"), "The program no-such-program is not on PATH.");
        assert_eq!(reason("sh -c 'exit 0'"), "ready");
    }
}
