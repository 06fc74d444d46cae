//! `hark engine NAME`: the child process of a built-in engine. It reads samples from standard input and writes lines to
//! standard output. Called by `main`.

use super::{
    command,
    openai::{self, OpenaiArgs},
    pipe::{ChildError, say},
    pocketsphinx,
    protocol::Line,
    whisper,
};
use crate::server::print;
use clap::Subcommand;
use std::{ffi::OsString, path::PathBuf, process::ExitCode};

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
        /// Names and terms that may be spoken, with commas between.
        #[arg(long, env = "HARK_VOCABULARY")]
        vocabulary: Option<String>,
        /// The number of threads.
        #[arg(long, default_value_t = 1)]
        threads: u16,
        /// By how much the temperature rises each time that Whisper guesses anew, because its text is a loop or unlikely; 0
        /// if it never does.
        #[arg(long, default_value_t = 0.4)]
        temperature_step: f32,
    },
    /// A program of the operator's that speaks the engine protocol.
    Command {
        /// The program and its arguments.
        #[arg(required = true, last = true)]
        words: Vec<OsString>,
    },
    /// A server with the OpenAI transcription API.
    Openai(OpenaiArgs),
}

/// Runs an engine on standard input until its end.
pub async fn run_child(args: EngineArgs) -> ExitCode {
    if let EngineArgs::Command { words } = &args {
        return command::supervise(words).await.unwrap_or_else(|error| fail(&error));
    }
    // If Hark is killed, the kernel ends this process too.
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)) {
        print::error(format_args!("the engine won't end when Hark is killed: {error}"));
    }
    let result = match args {
        EngineArgs::Command { .. } => unreachable!("supervised above"),
        EngineArgs::Pocketsphinx => blocking(pocketsphinx::child).await,
        EngineArgs::Whisper { model, language, vocabulary, threads, temperature_step } => {
            let run = move || {
                let (language, vocabulary) = (language.as_deref(), vocabulary.as_deref());
                whisper::run_child(&whisper::Task { model: &model, language, vocabulary, threads, temperature_step })
            };
            blocking(run).await
        }
        EngineArgs::Openai(args) => openai::child(&args).await,
    };
    match result {
        Ok(()) => say(&Line::Done).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS),
        Err(error) => fail(&error),
    }
}

fn fail(error: &ChildError) -> ExitCode {
    print::error(error);
    let _ = say(&Line::Error { code: error.code.to_owned(), message: error.message.clone() });
    ExitCode::FAILURE
}

async fn blocking(work: impl FnOnce() -> Result<(), ChildError> + Send + 'static) -> Result<(), ChildError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(ChildError::new("crashed", e.to_string())))
}
