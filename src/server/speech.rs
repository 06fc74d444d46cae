//! Speech engines behind one trait. Each runs as a child process that speaks the protocol of `docs/engine-protocol.md`:
//! a crash stays in the child, a kill cancels it, and its memory is freed with it. Called by `jobs`, `sessions` and
//! `doctor`.

mod child;
mod command;
pub mod languages;
pub mod models;
mod openai;
mod pieces;
mod pipe;
mod pocketsphinx;
mod process;
mod protocol;
mod whisper;

pub use child::{EngineArgs, run_child};
pub use models::{ModelArgs, run_model};
pub use process::{Input, Output, spawn};
pub use protocol::{EngineEvent, EngineSegment};

use crate::{
    model::{Channels, EngineId, EngineInfo, ModelInfo, page::ModelsInfo},
    server::config::{EngineConfig, ModelConfig},
};
use languages::Languages;
use models::{FetchState, ModelChangeError};
use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::{process::Command, sync::watch};

/// Whether an engine can be used now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Availability {
    Ready,
    /// Not yet: its model is on its way, and recordings may wait for it. How far that is, for people.
    Soon(String),
    /// Why it isn't available, and the command that makes it so.
    Missing {
        reason: String,
        install: String,
    },
}

/// What an engine is asked to do, besides the recording.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The spoken language as a BCP 47 tag; if none, the engine decides.
    pub language: Option<String>,
    /// Names and terms that may be spoken, with commas between, for engines that take a prompt.
    pub vocabulary: Option<String>,
    /// Where in the recording the samples begin, in seconds. An engine that mentions times in a remark adds it.
    pub offset: f64,
    /// How many engines work on the recording at once, one for each channel; they share the processors. 0 counts as 1.
    pub engines: u16,
}

/// A speech engine.
pub trait Engine: Send + Sync {
    fn id(&self) -> EngineId;
    /// The name of the model that it uses.
    fn model(&self) -> String;
    /// The languages that it knows with its model.
    fn languages(&self) -> Languages {
        Languages::Any
    }
    /// Whether it was made for recordings of telephones too, at 8 kHz.
    fn hears_narrow_band(&self) -> bool {
        true
    }
    /// Whether it can be used now. Only looks for files and starts nothing.
    fn availability(&self) -> Availability;
    /// The command of its child process.
    ///
    /// # Errors
    /// If the settings name no program that can be run.
    fn command(&self, request: &Request) -> Result<Command, SpeechError>;
}

/// An error of an engine. `Display` is written for people.
#[derive(Debug, thiserror::Error)]
pub enum SpeechError {
    #[error("The speech engine is not available: {reason} {install}")]
    Unavailable { reason: String, install: String },
    #[error("The speech engine could not be started: {0}")]
    Spawn(std::io::Error),
    /// Its standard error may contain names of files and addresses, so it goes only to the log.
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
    /// The stable error code for programs.
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
    library: models::Library,
    /// The model file that Whisper uses.
    whisper_model: PathBuf,
    /// The fetch of that model, and where it comes from if this node may fetch it.
    fetch: Arc<models::Fetch>,
    sources: Option<ModelConfig>,
    /// The downloads that visitors ask for, if they may.
    downloads: Option<models::Downloads>,
    /// Told of every change of what [`Engines::models`] returns, except by other processes.
    model_changes: watch::Sender<()>,
    vocabulary: Option<String>,
    channels: Channels,
}

impl Engines {
    /// Creates the engines that the settings describe, available or not. `workers` is how many sessions are transcribed
    /// at once.
    #[must_use]
    pub fn from_config(config: &EngineConfig, data_dir: &Path, workers: u32) -> Self {
        let program = config.engine_program.clone();
        let model_changes = watch::Sender::new(());
        let fetch = Arc::new(models::Fetch::new(model_changes.clone()));
        let whisper = whisper::Whisper::new(config, data_dir, workers, Arc::clone(&fetch));
        let engines: Vec<Box<dyn Engine>> = vec![
            Box::new(whisper),
            Box::new(pocketsphinx::Pocketsphinx::new(program.clone())),
            Box::new(openai::Openai::new(
                program.clone(),
                config.openai_url.clone(),
                config.openai_model.clone(),
                config.openai.clone(),
            )),
            Box::new(command::CommandEngine::new(program, config.engine_command.clone(), config.engine_env.clone())),
        ];
        let library = models::Library::new(data_dir);
        let whisper_model = library.resolve(config.whisper_model.as_deref());
        let (default, vocabulary) = (config.engine, config.vocabulary.clone());
        let channels = config.channels;
        Self {
            engines,
            default,
            vocabulary,
            channels,
            library,
            whisper_model,
            fetch,
            sources: None,
            downloads: None,
            model_changes,
        }
    }

    /// Lets visitors download models from these sources, and remove them.
    #[must_use]
    pub fn with_downloads(self, sources: ModelConfig) -> Self {
        let downloads = models::Downloads::new(self.library.clone(), sources, self.model_changes.clone());
        Self { downloads: Some(downloads), ..self }
    }

    /// Lets [`Engines::fetch_missing`] fetch models from these sources.
    #[must_use]
    pub fn with_sources(self, sources: ModelConfig) -> Self {
        let engines = Self { sources: Some(sources), ..self };
        // Before the fetch begins, or whoever asks until then would take the engine for missing.
        if engines.model_to_fetch().is_some() {
            engines.fetch.announce();
        }
        engines
    }

    /// Fetches the model of the default engine if it has one that isn't here, and returns when it is here.
    pub async fn fetch_missing(&self) {
        if let Some((name, sources)) = self.model_to_fetch() {
            self.fetch.run(&self.library, &name, sources).await;
        }
    }

    /// The model of the default engine that isn't here, with its sources. None if there is nothing to fetch, or a file of the
    /// operator's own is missing, which can't be fetched.
    fn model_to_fetch(&self) -> Option<(String, &ModelConfig)> {
        let (name, sources) = (self.used_model()?, self.sources.as_ref()?);
        (self.default == EngineId::Whisper && !self.whisper_model.exists()).then_some((name, sources))
    }

    /// The engine whose sessions wait because its model isn't here yet, and the sentence that tells them.
    #[must_use]
    pub fn waiting(&self) -> Option<(EngineId, String)> {
        let (FetchState::Fetching(how) | FetchState::Failed(how)) = self.fetch.state()?;
        // It may also have been brought by hand.
        let name = models::model_name(&self.whisper_model);
        (!self.whisper_model.exists())
            .then(|| (EngineId::Whisper, format!("Waiting for the speech model '{name}', which {how}")))
    }

    /// Returns an engine by its id.
    #[must_use]
    pub fn get(&self, id: EngineId) -> Option<&dyn Engine> {
        self.engines.iter().find(|e| e.id() == id).map(|e| &**e)
    }

    /// The engine of sessions that don't choose one.
    #[must_use]
    pub fn default_engine(&self) -> EngineId {
        self.default
    }

    /// The names and terms for sessions that bring none.
    #[must_use]
    pub fn default_vocabulary(&self) -> Option<&str> {
        self.vocabulary.as_deref().map(str::trim).filter(|text| !text.is_empty())
    }

    /// How channels are heard in sessions that don't say it.
    #[must_use]
    pub fn default_channels(&self) -> Channels {
        self.channels
    }

    /// The name of the model that Whisper uses, if it isn't a file of the operator's own.
    fn used_model(&self) -> Option<String> {
        let name = models::model_name(&self.whisper_model);
        (self.library.path(&name) == self.whisper_model).then_some(name)
    }

    /// Starts the download of a model for a visitor.
    ///
    /// # Errors
    /// If visitors may not, Hark doesn't know the model, or another one is being downloaded.
    pub fn download_model(&self, name: &str) -> Result<(), ModelChangeError> {
        let downloads = self.downloads.as_ref().ok_or(ModelChangeError::Off)?;
        if models::find(name).is_none() && self.used_model().is_none_or(|used| used != name) {
            return Err(ModelChangeError::Unknown(name.chars().take(40).collect()));
        }
        downloads.start(name)
    }

    /// Removes a model for a visitor.
    ///
    /// # Errors
    /// If visitors may not, there is no such model, it is in use or being downloaded, or it can't be removed.
    pub fn remove_model(&self, name: &str) -> Result<(), ModelChangeError> {
        let downloads = self.downloads.as_ref().ok_or(ModelChangeError::Off)?;
        if !self.library.installed().iter().any(|model| model.name == name) {
            return Err(ModelChangeError::Unknown(name.chars().take(40).collect()));
        }
        if self.used_model().is_some_and(|used| used == name) {
            return Err(ModelChangeError::InUse(name.to_owned()));
        }
        downloads.remove(name)
    }

    /// Receives every change of what [`Engines::models`] returns, except by other processes.
    #[must_use]
    pub fn model_changes(&self) -> watch::Receiver<()> {
        self.model_changes.subscribe()
    }

    /// Lists Whisper's models, for their page.
    #[must_use]
    pub fn models(&self) -> ModelsInfo {
        let mut models = self.library.overview(&self.whisper_model);
        if let Some(name) = self.used_model().filter(|_| !models.iter().any(|model| model.in_use)) {
            let (installed, in_use) = (false, true);
            let (bytes, memory_bytes, languages, speed, download) = (None, None, None, None, None);
            models.push(ModelInfo { name, installed, in_use, bytes, memory_bytes, languages, speed, download });
        }
        if let Some(downloads) = &self.downloads {
            let mut states = downloads.states();
            for model in models.iter_mut().filter(|model| !model.installed) {
                model.download = states.remove(&model.name);
            }
        }
        // Only the name, because where files are concerns nobody else.
        let own_file = (!models.iter().any(|model| model.in_use)).then(|| {
            self.whisper_model.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
        });
        let fetching = self.waiting().map(|(_, sentence)| sentence);
        ModelsInfo { models, own_file, fetching, may_change: self.downloads.is_some() }
    }

    /// Lists all engines with their availability, for the upload page.
    #[must_use]
    pub fn list(&self) -> Vec<EngineInfo> {
        let info = |engine: &dyn Engine| {
            let mut model = engine.model();
            let (reason, install) = match engine.availability() {
                Availability::Ready => (None, None),
                Availability::Soon(_) => {
                    model.push_str(", being fetched");
                    (None, None)
                }
                Availability::Missing { reason, install } => (Some(reason), Some(install).filter(|i| !i.is_empty())),
            };
            EngineInfo {
                id: engine.id(),
                name: engine.id().label().to_owned(),
                model,
                available: reason.is_none(),
                reason,
                install,
                is_default: engine.id() == self.default,
                languages: match engine.languages() {
                    Languages::Any => None,
                    Languages::Only(tags) => Some(tags.into_iter().map(str::to_owned).collect()),
                },
            }
        };
        self.engines.iter().map(|e| info(&**e)).collect()
    }
}

/// The environment variables that every engine gets: where programs, libraries and files are, the language, and how to
/// reach other servers. An engine can't leak what it doesn't know, such as the keys of cookies and databases.
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

/// Returns the command that runs an engine's child, which is Hark itself as `hark engine NAME …`, with only the
/// variables in its environment that engines need.
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

/// Passes these variables to a command, as far as they are set.
fn pass_on(command: &mut Command, names: impl IntoIterator<Item = impl AsRef<OsStr>>) {
    for name in names {
        if let Some(value) = std::env::var_os(&name) {
            command.env(name, value);
        }
    }
}
