//! An engine's child process: samples in, events out, and its end. Used by `jobs`.

use super::{
    Engine, Request, SpeechError,
    protocol::{EngineEvent, MAX_LINE, Parser},
};
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, getpriority_process, kill_process_group, setpriority_process, waitid,
};
use std::{
    collections::VecDeque,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, ChildStdout},
    task::JoinHandle,
    time,
};

/// Lines of standard error kept for what the log says of a crash.
const TAIL_LINES: usize = 5;
/// How long an engine has to exit after its last word.
const EXIT: Duration = Duration::from_secs(5);
/// How often its end is looked for, and how long its last words on standard error are awaited.
const LOOK: Duration = Duration::from_millis(10);
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How much nicer engines are than Hark itself: they take all the processor time they can get, and streams and pages come
/// first.
const NICER: i32 = 10;

/// Where the samples go.
pub struct Input {
    stdin: ChildStdin,
}

/// Where the events come from. Dropping it ends the engine and everything it started.
pub struct Output {
    child: Child,
    lines: BufReader<ChildStdout>,
    line: Vec<u8>,
    parser: Parser,
    tail: Arc<Mutex<VecDeque<String>>>,
    /// Ends when standard error does; none once that has been awaited.
    tail_reader: Option<JoinHandle<()>>,
    ended: bool,
}

/// Starts an engine.
///
/// # Errors
/// If its program can't be started.
pub fn spawn(engine: &dyn Engine, request: &Request) -> Result<(Input, Output), SpeechError> {
    let mut command = engine.command(request)?;
    // A group of its own, so that a kill reaches what the engine itself started.
    command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(SpeechError::Spawn)?;
    // What it starts inherits it.
    let nicer = |pid| setpriority_process(Some(pid), getpriority_process(None)? + NICER);
    if let Some(Err(error)) = pid(&child).map(nicer) {
        tracing::debug!(%error, "the speech engine runs at the server's own priority");
    }
    let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(SpeechError::Spawn(std::io::Error::other("its pipes are missing")));
    };
    let tail = Arc::new(Mutex::new(VecDeque::new()));
    let kept = Arc::clone(&tail);
    let tail_reader = tokio::spawn(async move {
        let mut lines = BufReader::new(stderr).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            tracing::debug!(line, "the speech engine says");
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() == TAIL_LINES {
                kept.pop_front();
            }
            kept.push_back(line.chars().take(300).collect());
        }
    });
    let output = Output {
        child,
        lines: BufReader::new(stdout),
        line: Vec::new(),
        parser: Parser::default(),
        tail,
        tail_reader: Some(tail_reader),
        ended: false,
    };
    Ok((Input { stdin }, output))
}

fn pid(child: &Child) -> Option<Pid> {
    child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw)
}

impl Input {
    /// Gives the engine samples: 16 kHz, mono. Waits while it is busy.
    ///
    /// # Errors
    /// If the engine is gone.
    pub async fn write(&mut self, samples: &[i16]) -> Result<(), SpeechError> {
        let bytes: Vec<u8> = samples.iter().flat_map(|s| s.to_le_bytes()).collect();
        self.stdin.write_all(&bytes).await.map_err(SpeechError::Io)
    }

    /// Says that the audio is over.
    ///
    /// # Errors
    /// If the engine is gone.
    pub async fn finish(mut self) -> Result<(), SpeechError> {
        self.stdin.shutdown().await.map_err(SpeechError::Io)
    }
}

impl Output {
    /// The next event; none after [`EngineEvent::Done`]. May be dropped and called again without losing anything.
    ///
    /// # Errors
    /// If the engine reports an error, breaks the protocol, or exits without having said `done`.
    pub async fn next(&mut self) -> Result<Option<EngineEvent>, SpeechError> {
        while !self.ended {
            // `line` keeps what was read if this future is dropped half way.
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

    /// Why the output ended. May be dropped and called again, as [`Self::next`] may.
    async fn crashed(&mut self) -> SpeechError {
        let exit = async {
            while self.running() {
                time::sleep(LOOK).await;
            }
        };
        let exited = time::timeout(EXIT, exit).await.is_ok();
        // Before its exit status is collected, because its number may be another process's afterwards. What it started
        // would live on, and might hold standard error open.
        self.kill_group();
        let status = match self.child.wait().await {
            Ok(status) if exited => status.to_string(),
            Ok(_) => "it closed its output".to_owned(),
            Err(error) => error.to_string(),
        };
        if let Some(reader) = &mut self.tail_reader {
            let _ = time::timeout(LAST_WORDS, reader).await;
            self.tail_reader = None;
        }
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let stderr_tail = Vec::from(tail.clone()).join(" / ");
        tracing::warn!(status, stderr_tail, "a speech engine crashed");
        SpeechError::Crashed { status, stderr_tail }
    }

    /// Whether the engine itself runs; leaves its exit status to be collected.
    fn running(&self) -> bool {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        self.leader().is_some_and(|pid| matches!(waitid(WaitId::Pid(pid), look), Ok(None)))
    }

    fn leader(&self) -> Option<Pid> {
        pid(&self.child)
    }

    /// The process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Ends the engine and everything it started, and waits for its end.
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
