//! `hark engine NAME`: the child's side of the built-in engines. Samples come on standard input, lines go to standard
//! output. Called by `main`.

use super::{
    command, openai, pocketsphinx,
    protocol::{EngineSegment, Line},
    whisper,
};
use clap::Subcommand;
use std::{
    ffi::OsString,
    io::{self, ErrorKind, Read, Write},
    path::PathBuf,
    process::ExitCode,
};

/// The built-in engines as children.
#[derive(Debug, Subcommand)]
pub enum EngineArgs {
    /// Debian's PocketSphinx.
    Pocketsphinx,
    /// Whisper by whisper.cpp.
    Whisper {
        /// The model file.
        #[arg(long)]
        model: PathBuf,
        /// The language spoken.
        #[arg(long)]
        language: Option<String>,
    },
    /// A program of the operator's that speaks the engine protocol.
    Command {
        /// The program and its arguments.
        #[arg(required = true, last = true)]
        words: Vec<OsString>,
    },
    /// A server with the OpenAI transcription API.
    Openai {
        /// Its address, up to and with `/v1`.
        #[arg(long)]
        url: String,
        /// The model asked of it.
        #[arg(long)]
        model: String,
        /// The language spoken.
        #[arg(long)]
        language: Option<String>,
    },
}

/// Why a child gives up; becomes an `error` line.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct ChildError {
    pub(super) code: &'static str,
    pub(super) message: String,
}

impl ChildError {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl From<io::Error> for ChildError {
    fn from(error: io::Error) -> Self {
        Self::new("io", format!("The speech engine could not read or write: {error}"))
    }
}

/// Runs an engine on standard input until its end.
pub async fn run_child(args: EngineArgs) -> ExitCode {
    if let EngineArgs::Command { words } = &args {
        return command::supervise(words).await.unwrap_or_else(|error| fail(&error));
    }
    // If Hark is killed, nobody listens any more.
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)) {
        eprintln!("the engine won't notice the end of its parent: {error}");
    }
    let result = match args {
        EngineArgs::Command { .. } => unreachable!("supervised above"),
        EngineArgs::Pocketsphinx => blocking(pocketsphinx::child).await,
        EngineArgs::Whisper { model, language } => blocking(move || whisper::child(&model, language.as_deref())).await,
        EngineArgs::Openai { url, model, language } => openai::child(&url, &model, language.as_deref()).await,
    };
    match result {
        Ok(()) => say(&Line::Done).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS),
        Err(error) => fail(&error),
    }
}

fn fail(error: &ChildError) -> ExitCode {
    eprintln!("{error}");
    let _ = say(&Line::Error { code: error.code.to_owned(), message: error.message.clone() });
    ExitCode::FAILURE
}

async fn blocking(work: impl FnOnce() -> Result<(), ChildError> + Send + 'static) -> Result<(), ChildError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(ChildError::new("crashed", e.to_string())))
}

/// Writes a line at once.
pub(super) fn say(line: &Line) -> io::Result<()> {
    let mut text = serde_json::to_string(line).map_err(io::Error::other)?;
    text.push('\n');
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Writes a `ready` line.
pub(super) fn say_ready(model: &str) -> io::Result<()> {
    say(&Line::Ready { protocol: Some(1), model: model.to_owned() })
}

/// Writes a segment, and how much is done with it.
pub(super) fn say_segment(segment: EngineSegment) -> io::Result<()> {
    say(&Line::Segment(segment))
}

/// The next samples from standard input; none at the end.
pub(super) fn read_samples() -> io::Result<Option<Vec<i16>>> {
    let mut bytes = vec![0; 8000];
    let mut filled = 0;
    let mut stdin = io::stdin().lock();
    while filled < bytes.len() {
        match stdin.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let samples: Vec<i16> =
        bytes[..filled].chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect();
    Ok((!samples.is_empty()).then_some(samples))
}

/// Samples as seconds.
pub(super) fn seconds(samples: usize) -> f64 {
    samples as f64 / f64::from(crate::server::audio::SAMPLE_RATE)
}
