//! Speech engines behind one trait. Each runs as a child process that speaks the protocol of `docs/engine-protocol.md`:
//! a crash stays in it, cancelling is a kill, and its memory is given back. Called by `jobs`, `sessions` and `doctor`.

mod child;
mod command;
mod model_get;
mod openai;
mod pieces;
mod pipe;
mod pocketsphinx;
mod process;
mod protocol;
mod whisper;

pub use child::{EngineArgs, run_child};
pub use model_get::{ModelArgs, run_model};
pub use process::{Input, Output, spawn};
pub use protocol::{EngineEvent, EngineSegment};

use crate::{
    model::{EngineId, EngineInfo},
    server::config::EngineConfig,
};
use std::{ffi::OsStr, path::Path};
use tokio::process::Command;

/// Whether an engine can be used now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Availability {
    Ready,
    /// Why not, and the command that changes it.
    Missing {
        reason: String,
        install: String,
    },
}

/// What an engine is asked to do.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// A BCP 47 tag; the engine's own choice if none.
    pub language: Option<String>,
}

/// A way to turn speech into text.
pub trait Engine: Send + Sync {
    /// Its name.
    fn id(&self) -> EngineId;
    /// The model it would use.
    fn model(&self) -> String;
    /// Whether it can be used now. Cheap: looks for files, starts nothing.
    fn availability(&self) -> Availability;
    /// The child process that does the work.
    ///
    /// # Errors
    /// If the settings name no program that could be run.
    fn command(&self, request: &Request) -> Result<Command, SpeechError>;
}

/// What can go wrong with an engine, in words for people.
#[derive(Debug, thiserror::Error)]
pub enum SpeechError {
    #[error("The speech engine is not available: {reason} {install}")]
    Unavailable { reason: String, install: String },
    #[error("The speech engine could not be started: {0}")]
    Spawn(std::io::Error),
    /// What it wrote to its standard error may name files and addresses, so only the log has it.
    #[error("The speech engine crashed ({status}). The server's log says more.")]
    Crashed { status: String, stderr_tail: String },
    #[error("The speech engine broke the protocol: {reason}")]
    Protocol { line: String, reason: String },
    #[error("{message}")]
    Engine { code: String, message: String },
    #[error("The speech engine can't be reached: {0}")]
    Io(#[from] std::io::Error),
}

impl SpeechError {
    /// The stable code of a failure.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "engine_unavailable",
            Self::Spawn(_) | Self::Io(_) => "engine_failed",
            Self::Crashed { .. } => "engine_crashed",
            Self::Protocol { .. } => "engine_protocol",
            Self::Engine { .. } => "engine_error",
        }
    }
}

/// The engines of this node.
pub struct Engines {
    engines: Vec<Box<dyn Engine>>,
    default: EngineId,
}

impl Engines {
    /// The engines that the settings describe, available or not.
    #[must_use]
    pub fn from_config(config: &EngineConfig, data_dir: &Path) -> Self {
        let program = config.engine_program.clone();
        let engines: Vec<Box<dyn Engine>> = vec![
            Box::new(pocketsphinx::Pocketsphinx::new(program.clone())),
            Box::new(whisper::Whisper::new(program.clone(), config.whisper_model.clone(), data_dir)),
            Box::new(openai::Openai::new(program.clone(), config.openai_url.clone(), config.openai_model.clone())),
            Box::new(command::CommandEngine::new(program, config.engine_command.clone(), config.engine_env.clone())),
        ];
        Self { engines, default: config.engine }
    }

    /// An engine by name.
    #[must_use]
    pub fn get(&self, id: EngineId) -> Option<&dyn Engine> {
        self.engines.iter().find(|e| e.id() == id).map(|e| &**e)
    }

    /// The engine of sessions that name none.
    #[must_use]
    pub fn default_engine(&self) -> EngineId {
        self.default
    }

    /// Every engine with its availability, as the upload page shows them.
    #[must_use]
    pub fn list(&self) -> Vec<EngineInfo> {
        let info = |engine: &dyn Engine| {
            let (reason, install) = match engine.availability() {
                Availability::Ready => (None, None),
                Availability::Missing { reason, install } => (Some(reason), Some(install).filter(|i| !i.is_empty())),
            };
            EngineInfo {
                id: engine.id(),
                name: engine.id().label().to_owned(),
                model: engine.model(),
                available: reason.is_none(),
                reason,
                install,
                is_default: engine.id() == self.default,
            }
        };
        self.engines.iter().map(|e| info(&**e)).collect()
    }
}

/// The variables that every engine gets: where programs, libraries and files are, the language, and how to reach other
/// servers. What an engine need not know, it can't leak, such as the keys of cookies and databases.
const ENGINE_ENVIRONMENT: [&str; 24] = [
    "PATH",
    "LD_LIBRARY_PATH",
    "HOME",
    "USER",
    "TMPDIR",
    "XDG_CACHE_HOME",
    "LANG",
    "LANGUAGE",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "RUST_BACKTRACE",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "OMP_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
];

/// The command of an engine: Hark itself, as `hark engine NAME …`, with nothing in its environment but what engines need.
fn own_child(program: Option<&Path>, arguments: &[&str]) -> Result<Command, SpeechError> {
    let program = match program {
        Some(path) => path.to_owned(),
        None => std::env::current_exe().map_err(SpeechError::Spawn)?,
    };
    let mut command = Command::new(program);
    command.env_clear().arg("engine").args(arguments);
    pass_on(&mut command, ENGINE_ENVIRONMENT);
    Ok(command)
}

/// Gives a command the variables of these names, as far as they are set here.
fn pass_on(command: &mut Command, names: impl IntoIterator<Item = impl AsRef<OsStr>>) {
    for name in names {
        if let Some(value) = std::env::var_os(&name) {
            command.env(name, value);
        }
    }
}
