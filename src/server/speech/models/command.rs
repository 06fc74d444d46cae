//! `hark model list|get|import|remove`: the models of a data folder, for people at a terminal and for programs. Called by
//! `main`.

use super::{
    Library, Report, Step, catalogue,
    library::{Installed, model_name},
};
use crate::{
    model::{ModelInfo, bytes, duration},
    server::{config::ModelConfig, folders, print},
};
use clap::{Args, Subcommand};
use serde_json::json;
use std::{
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Mutex,
    time::{Duration, Instant},
};

/// What can be done with models.
#[derive(Debug, Subcommand)]
pub enum ModelArgs {
    /// Show the models that Hark knows and those that are here.
    List {
        #[command(flatten)]
        settings: ModelSettings,
        /// As JSON, for programs.
        #[arg(long)]
        json: bool,
    },
    /// Fetch a model, such as tiny.en, base, small or large-v3-turbo.
    Get {
        /// Its name. Without it, the model that HARK_WHISPER_MODEL names.
        name: Option<String>,
        /// The file's SHA-256, for a model that isn't in the catalogue or a file that differs from the official one.
        #[arg(long)]
        sha256: Option<String>,
        #[command(flatten)]
        settings: ModelSettings,
        #[command(flatten)]
        sources: ModelConfig,
    },
    /// Add a model from a file in whisper.cpp's format, or from a folder in CTranslate2's, such as faster-whisper's.
    Import {
        /// The file or the folder.
        path: PathBuf,
        /// The name that the model gets; by default that of the file or the folder.
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        settings: ModelSettings,
    },
    /// Remove a model.
    Remove {
        /// Its name.
        name: String,
        #[command(flatten)]
        settings: ModelSettings,
    },
}

/// Where the models are, and which is used.
#[derive(Args, Debug)]
pub struct ModelSettings {
    /// The data folder; models are in `models` below it.
    #[arg(long, env = "HARK_DATA_DIR", default_value = "data", value_name = "DIR")]
    data_dir: PathBuf,
    /// The model that is used: its name, or a file in whisper.cpp's format.
    #[arg(long, env = "HARK_WHISPER_MODEL", default_value = catalogue::DEFAULT, value_name = "NAME|FILE")]
    whisper_model: PathBuf,
}

/// Runs `hark model …`.
pub async fn run_model(args: ModelArgs) -> ExitCode {
    let result = match args {
        ModelArgs::List { settings, json } => list(&settings, json),
        ModelArgs::Get { name, sha256, settings, sources } => get(name, sha256.as_deref(), &settings, &sources).await,
        ModelArgs::Import { path, name, settings } => import(&path, name.as_deref(), &settings).await,
        ModelArgs::Remove { name, settings } => Library::new(&settings.data_dir)
            .remove(&name)
            .map(|()| print::line(format_args!("The model '{name}' was removed."))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            print::error(format_args!("hark: {message}"));
            ExitCode::FAILURE
        }
    }
}

async fn get(
    name: Option<String>,
    sha256: Option<&str>,
    settings: &ModelSettings,
    sources: &ModelConfig,
) -> Result<(), String> {
    let library = Library::new(&settings.data_dir);
    let name = match name {
        Some(name) => name,
        None => {
            let path = library.resolve(Some(&settings.whisper_model));
            let name = model_name(&path);
            if path != library.path(&name) {
                // The operator's own file, which nothing here could replace.
                super::check(&path).map_err(|why| format!("HARK_WHISPER_MODEL: {}: {why}", path.display()))?;
                print::line(format_args!("The model is at {}", path.display()));
                return Ok(());
            }
            name
        }
    };
    folders::check_user(&settings.data_dir, &format!("hark model get {name}"))?;
    let bar = Mutex::new(Bar::default());
    let report: Report<'_> = &|step| bar.lock().unwrap_or_else(std::sync::PoisonError::into_inner).show(step);
    let got = library.get(&name, sha256, sources, report).await;
    bar.lock().unwrap_or_else(std::sync::PoisonError::into_inner).end();
    let got = got?;
    if let Some(digest) = got.unchecked {
        print::error(format_args!(
            "The server publishes no checksum, so the file could not be checked. Its SHA-256 is {digest}"
        ));
    }
    print::line(format_args!("The model is at {}", got.path.display()));
    Ok(())
}

async fn import(path: &Path, name: Option<&str>, settings: &ModelSettings) -> Result<(), String> {
    folders::check_user(&settings.data_dir, "hark model import FILE")?;
    let Installed { name, path, bytes: size } = Library::new(&settings.data_dir).import(path, name).await?;
    print::line(format_args!("The model '{name}' ({}) is at {}", bytes(size), path.display()));
    print::line(format_args!("To use it: HARK_WHISPER_MODEL={name}"));
    Ok(())
}

fn list(settings: &ModelSettings, as_json: bool) -> Result<(), String> {
    let library = Library::new(&settings.data_dir);
    let used = library.resolve(Some(&settings.whisper_model));
    let models = library.overview(&used);
    if as_json {
        let models: Vec<_> = models.iter().map(|model| as_value(model, &library)).collect();
        print::line(json!({ "models": models, "in_use": used, "in_use_exists": used.is_file() }));
        return Ok(());
    }
    print::line(format_args!("{:<22}{:<11}{:>9}{:>10}  {:<11}SPEED", "NAME", "STATE", "SIZE", "MEMORY", "LANGUAGES"));
    for model in &models {
        print::line(line(model));
    }
    if !models.iter().any(|model| model.in_use) {
        print::line(format_args!(
            "In use: {}{}",
            used.display(),
            if used.is_file() { "" } else { ", which does not exist" }
        ));
    }
    print::line("Speed: seconds of speech in a second of one processor, where it was measured.");
    Ok(())
}

fn line(model: &ModelInfo) -> String {
    let state = match (model.installed, model.in_use) {
        (true, true) => "in use",
        (true, false) => "installed",
        (false, true) => "missing",
        (false, false) => "-",
    };
    let or_unknown = |text: Option<String>| text.unwrap_or_else(|| "?".to_owned());
    let [size, memory] = [model.bytes, model.memory_bytes].map(|n| or_unknown(n.map(bytes)));
    let languages = or_unknown(model.languages.map(|n| if n == 1 { "English".to_owned() } else { n.to_string() }));
    let speed = or_unknown(model.speed.map(|speed| speed.to_string()));
    format!("{:<22}{state:<11}{size:>9}{memory:>10}  {languages:<11}{speed}", model.name)
}

fn as_value(model: &ModelInfo, library: &Library) -> serde_json::Value {
    let mut value = json!(model);
    value["path"] = json!(model.installed.then(|| library.path(&model.name)));
    value["english_only"] = json!(model.languages.map(|count| count == 1));
    value["sha256"] = json!(catalogue::find(&model.name).map(|known| known.sha256));
    value
}

/// What is shown while a model is fetched: lines, and on a terminal a bar.
#[derive(Default)]
struct Bar {
    /// When the source was asked, and the bytes that were there first.
    start: Option<(Instant, u64)>,
    shown: Option<Instant>,
    received: u64,
    total: Option<u64>,
}

impl Bar {
    fn show(&mut self, step: Step) {
        match step {
            Step::Source(_, label) => {
                print::error(format_args!("Asking {label}"));
                *self = Self::default();
            }
            Step::Received { bytes, total } => {
                self.start.get_or_insert((Instant::now(), bytes));
                (self.received, self.total) = (bytes, total);
                let due = self.shown.is_none_or(|at| at.elapsed() > Duration::from_millis(200));
                if due && std::io::stderr().is_terminal() {
                    self.shown = Some(Instant::now());
                    self.draw();
                }
            }
            Step::Checking => self.say("Checking the file"),
            Step::Converting => self.say("Converting it to whisper.cpp's format"),
            Step::Failed(_, why) => self.say(&format!("  failed: {why}")),
        }
    }

    fn say(&mut self, line: &str) {
        self.end();
        print::error(line);
    }

    fn draw(&self) {
        let (start, first) = self.start.unwrap_or((Instant::now(), 0));
        let speed = self.received.saturating_sub(first) as f64 / start.elapsed().as_secs_f64().max(0.001);
        let rest = self.total.map(|total| {
            let share = self.received as f64 / total.max(1) as f64;
            let filled = ((share * 30.0) as usize).min(30);
            let time_left = duration((total - self.received.min(total)) as f64 / speed.max(1.0));
            format!(
                " of {} [{}{}] {:.0}%, {time_left} left",
                bytes(total),
                "#".repeat(filled),
                ".".repeat(30 - filled),
                share * 100.0
            )
        });
        print::error_text(format_args!(
            "\r\x1b[K{}{} at {}/s",
            bytes(self.received),
            rest.unwrap_or_default(),
            bytes(speed as u64)
        ));
        let _ = std::io::stderr().flush();
    }

    /// Ends the line of the bar, if there is one.
    fn end(&mut self) {
        if self.shown.take().is_some() {
            self.draw();
            print::error("");
        }
    }
}
