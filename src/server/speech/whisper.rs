//! The `whisper` engine: OpenAI's Whisper by whisper.cpp. Its model is a file in ggml format.

mod child;

use super::{
    Availability, Engine, Request, SpeechError,
    languages::{self, Languages},
    own_child,
};
use crate::model::EngineId;
use std::path::{Path, PathBuf};
use tokio::process::Command;

pub(super) use child::run as child;

pub(super) struct Whisper {
    program: Option<PathBuf>,
    model: PathBuf,
}

impl Whisper {
    pub(super) fn new(program: Option<PathBuf>, model: Option<PathBuf>, data_dir: &Path) -> Self {
        let model = model.unwrap_or_else(|| data_dir.join("models").join("ggml-base.en.bin"));
        Self { program, model }
    }
}

impl Engine for Whisper {
    fn id(&self) -> EngineId {
        EngineId::Whisper
    }

    fn model(&self) -> String {
        let stem = self.model.file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned());
        stem.strip_prefix("ggml-").map_or(stem.clone(), str::to_owned)
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
        if !self.model.is_file() {
            return Availability::Missing {
                reason: format!("Its model file {} does not exist.", self.model.display()),
                install: "hark model get base.en".to_owned(),
            };
        }
        Availability::Ready
    }

    fn command(&self, request: &Request) -> Result<Command, SpeechError> {
        let mut command = own_child(self.program.as_deref(), &["whisper", "--model"])?;
        command.arg(&self.model);
        if let Some(language) = &request.language {
            command.args(["--language", &languages::code(language)]);
        }
        Ok(command)
    }
}
