//! The `whisper` engine: OpenAI's Whisper by whisper.cpp. Its model is a file in ggml format, which is checked before the
//! engine gets it.

mod child;
mod detector;
mod invented;
mod languages;
mod windows;

use super::{
    Availability, Engine, Request, SpeechError,
    languages::Languages,
    models::{CheckedModel, Fetch, FetchState, Library, find, model_name},
    own_child,
};
use crate::{model::EngineId, server::config::EngineConfig};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};
use tokio::process::Command;

pub(super) use child::{Task, run as run_child};

/// The maximal number of threads unless a setting says otherwise: more make whisper.cpp slower.
const MAX_THREADS: usize = 8;

pub(super) struct Whisper {
    program: Option<PathBuf>,
    model: PathBuf,
    /// Whether the model is one of the data folder, which `hark model get` can fetch.
    managed: bool,
    checked: CheckedModel,
    /// The fetch of the model by this node.
    fetch: Arc<Fetch>,
    threads: u16,
}

impl Whisper {
    /// `workers` is how many sessions are transcribed at once: they share the processors.
    pub(super) fn new(config: &EngineConfig, data_dir: &Path, workers: u32, fetch: Arc<Fetch>) -> Self {
        let library = Library::new(data_dir);
        let model = library.resolve(config.whisper_model.as_deref());
        let managed = library.path(&model_name(&model)) == model;
        let threads = config.whisper_threads.unwrap_or_else(|| threads(workers));
        Self {
            program: config.engine_program.clone(),
            model,
            managed,
            checked: CheckedModel::default(),
            fetch,
            threads,
        }
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
        if let Some(reason) = missing_instructions() {
            let install = "a build for any processor, see docs/operations.md".to_owned();
            return Availability::Missing { reason, install };
        }
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
        let threads = (self.threads / request.engines.max(1)).max(1);
        command.arg(&self.model).args(["--threads", &threads.to_string()]);
        if let Some(language) = &request.language {
            command.args(["--language", language]);
        }
        if let Some(vocabulary) = &request.vocabulary {
            // Not an argument, which everybody on this machine could read.
            command.env("HARK_VOCABULARY", vocabulary);
        }
        // Threads that wait for each other sleep. By default they spin, and on a busy machine they spin for as long as the
        // one that they wait for isn't scheduled: that takes many times the processor time of one thread.
        if std::env::var_os("OMP_WAIT_POLICY").is_none() {
            command.env("OMP_WAIT_POLICY", "passive");
        }
        Ok(command)
    }
}

/// The threads of one engine: its share of the processors that this process may use.
fn threads(workers: u32) -> u16 {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let share = processors / usize::try_from(workers.max(1)).unwrap_or(1);
    u16::try_from(share.clamp(1, MAX_THREADS)).unwrap_or(1)
}

/// Returns what this processor lacks of what whisper.cpp was built for, for people: its calculations use instructions
/// that make them five times as fast, and that processors before 2013 don't have.
fn missing_instructions() -> Option<String> {
    #[cfg(target_arch = "x86_64")]
    {
        let built = whisper_rs::SystemInfo::default();
        let needed = [
            ("AVX", built.avx, is_x86_feature_detected!("avx")),
            ("AVX2", built.avx2, is_x86_feature_detected!("avx2")),
            ("BMI2", built.avx2, is_x86_feature_detected!("bmi2")),
            ("FMA", built.fma, is_x86_feature_detected!("fma")),
            ("F16C", built.f16c, is_x86_feature_detected!("f16c")),
        ];
        let missing: Vec<&str> =
            needed.iter().filter(|(_, built, has)| *built && !has).map(|(name, ..)| *name).collect();
        if !missing.is_empty() {
            let missing = missing.join(", ");
            return Some(format!(
                "This build of Whisper needs a processor with {missing}, which this one doesn't have."
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_share_the_processors() {
        let all = threads(1);
        assert!(all >= 1 && usize::from(all) <= MAX_THREADS);
        assert_eq!(threads(10_000), 1);
        assert_eq!(threads(0), all);
        let processors = thread::available_parallelism().unwrap().get();
        assert!(usize::from(threads(2)) <= (processors / 2).max(1));
    }
}
