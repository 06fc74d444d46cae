//! An engine's child process: writes samples to it, reads events from it, and ends it. Used by `jobs`.

use super::{
    Engine, Request, SpeechError,
    protocol::{EngineEvent, MAX_LINE, Parser},
};
use crate::server::stderr_tail::StderrTail;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, getpriority_process, kill_process_group, setpriority_process, waitid,
};
use std::{process::Stdio, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, ChildStdout},
    time,
};

/// How long an engine may take to exit after it has closed its output.
const EXIT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often its exit is checked for.
const EXIT_POLL_INTERVAL: Duration = Duration::from_millis(10);
/// How much higher the niceness of engines is than that of Hark itself. They use all the processor time they can get,
/// and streams and pages come first.
const NICENESS: i32 = 10;

/// The writing end: samples go to the engine's standard input.
pub struct Input {
    stdin: ChildStdin,
}

/// The reading end: events come from the engine's standard output. Dropping it ends the engine and everything it
/// started.
pub struct Output {
    child: Child,
    lines: BufReader<ChildStdout>,
    line: Vec<u8>,
    parser: Parser,
    stderr: StderrTail,
    ended: bool,
}

/// Starts an engine.
///
/// # Errors
/// If its program can't be started.
pub fn spawn(engine: &dyn Engine, request: &Request) -> Result<(Input, Output), SpeechError> {
    let mut command = engine.command(request)?;
    // A process group of its own, so that a kill also reaches what the engine started.
    command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(SpeechError::Spawn)?;
    // Child processes of the engine inherit the priority.
    let renice = |pid| setpriority_process(Some(pid), getpriority_process(None)? + NICENESS);
    if let Some(Err(error)) = pid(&child).map(renice) {
        tracing::debug!(%error, "the speech engine's priority could not be lowered");
    }
    let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(SpeechError::Spawn(std::io::Error::other("its pipes are missing")));
    };
    let output = Output {
        child,
        lines: BufReader::new(stdout),
        line: Vec::new(),
        parser: Parser::default(),
        stderr: StderrTail::read(stderr, "the speech engine"),
        ended: false,
    };
    Ok((Input { stdin }, output))
}

fn pid(child: &Child) -> Option<Pid> {
    child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw)
}

impl Input {
    /// Writes samples: 16 kHz, mono. Waits while the engine is busy.
    ///
    /// # Errors
    /// If the engine is gone.
    pub async fn write(&mut self, samples: &[i16]) -> Result<(), SpeechError> {
        let bytes: Vec<u8> = samples.iter().flat_map(|s| s.to_le_bytes()).collect();
        self.stdin.write_all(&bytes).await.map_err(SpeechError::Io)
    }

    /// Closes the engine's input, which ends the recording.
    ///
    /// # Errors
    /// If the engine is gone.
    pub async fn finish(mut self) -> Result<(), SpeechError> {
        self.stdin.shutdown().await.map_err(SpeechError::Io)
    }
}

impl Output {
    /// Returns the next event; none after [`EngineEvent::Done`]. The future may be dropped at any time without losing
    /// anything.
    ///
    /// # Errors
    /// If the engine reports an error, violates the protocol, or exits without a `done` line.
    pub async fn next(&mut self) -> Result<Option<EngineEvent>, SpeechError> {
        while !self.ended {
            // `line` keeps what was read if this future is dropped early.
            let room = (MAX_LINE + 1).saturating_sub(self.line.len()) as u64;
            let read = (&mut self.lines).take(room).read_until(b'\n', &mut self.line).await?;
            if self.line.len() > MAX_LINE {
                let line = String::from_utf8_lossy(&self.line[..200]).into_owned();
                return Err(SpeechError::Protocol { line, reason: format!("a line is longer than {MAX_LINE} bytes") });
            }
            if read == 0 {
                let error = self.crashed().await;
                self.ended = true;
                return Err(error);
            }
            let line = std::mem::take(&mut self.line);
            if let Some(event) = self.parser.line(&String::from_utf8_lossy(&line))? {
                self.ended = event == EngineEvent::Done;
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// Waits for the exit and returns why the output ended. May be dropped and called again, like [`Self::next`].
    async fn crashed(&mut self) -> SpeechError {
        let exit = async {
            while self.is_running() {
                time::sleep(EXIT_POLL_INTERVAL).await;
            }
        };
        let exited = time::timeout(EXIT_TIMEOUT, exit).await.is_ok();
        // Kills the group before the exit status is collected, because afterwards the process id may be another
        // process's. Processes that the engine started would live on and might keep standard error open.
        self.kill_group();
        let status = match self.child.wait().await {
            Ok(status) if exited => status.to_string(),
            Ok(_) => "it closed its output".to_owned(),
            Err(error) => error.to_string(),
        };
        let stderr_tail = self.stderr.last_lines().await;
        tracing::warn!(status, stderr_tail, "a speech engine crashed");
        SpeechError::Crashed { status, stderr_tail }
    }

    /// Whether the engine itself runs. Leaves its exit status to be collected.
    fn is_running(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        self.leader().is_some_and(|pid| matches!(waitid(WaitId::Pid(pid), options), Ok(None)))
    }

    fn leader(&self) -> Option<Pid> {
        pid(&self.child)
    }

    /// The process id, while the engine runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Kills the engine and everything it started, and waits for its exit.
    pub async fn kill(&mut self) {
        self.kill_group();
        let _ = self.child.wait().await;
    }

    fn kill_group(&self) {
        if let Some(pid) = self.leader() {
            let _ = kill_process_group(pid, Signal::KILL); // fails if it has ended by itself
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.kill_group();
    }
}
