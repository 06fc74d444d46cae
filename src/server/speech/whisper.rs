//! The `whisper` engine: OpenAI's Whisper by whisper.cpp. Its model is a file in ggml format, which is checked before the
//! engine gets it.

mod child;

use super::{
    Availability, Engine, Request, SpeechError,
    languages::{self, Languages},
    models::{CheckedModel, Fetch, FetchState, Library, find, model_name},
    own_child,
};
use crate::model::EngineId;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::process::Command;

pub(super) use child::run as child;

pub(super) struct Whisper {
    program: Option<PathBuf>,
    model: PathBuf,
    /// Whether the model is one of the data folder, which `hark model get` can fetch.
    managed: bool,
    checked: CheckedModel,
    /// The fetch of the model by this node.
    fetch: Arc<Fetch>,
}

impl Whisper {
    pub(super) fn new(program: Option<PathBuf>, model: Option<&Path>, data_dir: &Path, fetch: Arc<Fetch>) -> Self {
        let library = Library::new(data_dir);
        let model = library.resolve(model);
        let managed = library.path(&model_name(&model)) == model;
        Self { program, model, managed, checked: CheckedModel::default(), fetch }
    }
}

impl Engine for Whisper {
    fn id(&self) -> EngineId {
        EngineId::Whisper
    }

    fn model(&self) -> String {
        model_name(&self.model)
    }

    fn languages(&self) -> Languages {
        let model = self.model();
        // Quantised models have more after it, such as `tiny.en-q5_1`.
        if model.split('-').any(|part| part.ends_with(".en")) {
            return Languages::english();
        }
        // Cantonese came with large-v3, of which the turbo models are made.
        Languages::whisper(model.contains("large-v3") || model.contains("turbo"))
    }

    fn availability(&self) -> Availability {
        let (name, file) = (self.model(), self.model.display());
        let list = || "hark model list".to_owned();
        if !self.model.is_file() {
            if !self.managed {
                let reason = format!(
                    "Its model file {file} does not exist. HARK_WHISPER_MODEL takes the name of a model, such as base, or \
                     the path of a file."
                );
                return Availability::Missing { reason, install: list() };
            }
            let state = self.fetch.state();
            if let Some(FetchState::Fetching(how)) = state {
                return Availability::Soon(format!("Its model '{name}' {how}."));
            }
            let install = if find(&name).is_some() { format!("hark model get {name}") } else { list() };
            let reason = match state {
                Some(FetchState::Failed(how)) => format!("Its model '{name}' {how}."),
                _ => format!("Its model '{name}' has not been fetched yet."),
            };
            return Availability::Missing { reason, install };
        }
        match self.checked.check(&self.model) {
            Ok(_) => Availability::Ready,
            Err(why) => {
                let again = format!("hark model remove {name} && hark model get {name}");
                Availability::Missing {
                    reason: format!("Its model file {file} can't be used: {why}."),
                    install: if self.managed { again } else { list() },
                }
            }
        }
    }

    fn command(&self, request: &Request) -> Result<Command, SpeechError> {
        // The library that reads the file would crash, or worse, on one that is damaged.
        match self.availability() {
            Availability::Ready => {}
            Availability::Soon(reason) => return Err(SpeechError::Unavailable { reason, install: String::new() }),
            Availability::Missing { reason, install } => return Err(SpeechError::Unavailable { reason, install }),
        }
        let mut command = own_child(self.program.as_deref(), &["whisper", "--model"])?;
        command.arg(&self.model);
        if let Some(language) = &request.language {
            command.args(["--language", &languages::code(language)]);
        }
        Ok(command)
    }
}
