//! The `whisper` engine: OpenAI's Whisper by whisper.cpp. Its model is a file in ggml format.

mod child;
mod detector;
mod invented;
mod languages;
mod windows;

use super::{Availability, Engine, Request, SpeechError, own_child};
use crate::{model::EngineId, server::config::EngineConfig};
use std::{
    path::{Path, PathBuf},
    thread,
};
use tokio::process::Command;

pub(super) use child::{Task, run as run_child};

/// The maximal number of threads unless a setting says otherwise: more make whisper.cpp slower.
const MAX_THREADS: usize = 8;

pub(super) struct Whisper {
    program: Option<PathBuf>,
    model: PathBuf,
    threads: u16,
}

impl Whisper {
    /// `workers` is how many sessions are transcribed at once: they share the processors.
    pub(super) fn new(config: &EngineConfig, data_dir: &Path, workers: u32) -> Self {
        let model = config.whisper_model.clone().unwrap_or_else(|| data_dir.join("models").join("ggml-base.en.bin"));
        let threads = config.whisper_threads.unwrap_or_else(|| threads(workers));
        Self { program: config.engine_program.clone(), model, threads }
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

    fn availability(&self) -> Availability {
        if let Some(reason) = missing_instructions() {
            let install = "a build for any processor, see docs/operations.md".to_owned();
            return Availability::Missing { reason, install };
        }
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
        command.arg(&self.model).args(["--threads", &self.threads.to_string()]);
        if let Some(language) = &request.language {
            command.args(["--language", language]);
        }
        if let Some(vocabulary) = &request.vocabulary {
            command.args(["--vocabulary", vocabulary]);
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
