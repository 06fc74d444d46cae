//! Whisper's models: which there are, where they come from, and the folder that has them. Called by `hark model …`, by the
//! `whisper` engine, which asks for its file, and by nodes, which fetch a model that is missing.

mod catalogue;
mod command;
mod convert;
mod ctranslate2;
mod download;
mod downloads;
mod fetch;
mod ggml;
mod library;
mod packages;

pub use catalogue::{CATALOGUE, Coverage, DEFAULT, Known, find};
pub use command::{ModelArgs, run_model};
pub use convert::convert;
pub use ctranslate2::ConvertError;
pub(in crate::server::speech) use downloads::Downloads;
pub(in crate::server::speech) use fetch::Fetch;
pub use fetch::FetchState;
pub use ggml::{BadModel, Header, check, check_reader};
pub(in crate::server::speech) use library::CheckedModel;
pub use library::{Got, Installed, Library, model_name};

use crate::server::config::ModelSource;
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

/// Why a visitor can't add or remove a model. `Display` is written for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelChangeError {
    #[error(
        "Only whoever runs this server may add and remove speech models. To let every visitor do so, set \
         HARK_MODEL_CHANGES_BY_VISITORS=true."
    )]
    Off,
    #[error("Hark knows no speech model '{0}'. The page of models lists those that it knows.")]
    Unknown(String),
    #[error("The speech model '{0}' is being downloaded. Wait until that has ended.")]
    Busy(String),
    #[error("The speech model '{0}' is in use. Before it can be removed, HARK_WHISPER_MODEL must name another one.")]
    InUse(String),
    #[error("The speech model can't be removed: {0}.")]
    NotRemoved(String),
}

impl ModelChangeError {
    /// The stable error code for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Off => "models_fixed",
            Self::Unknown(_) => "unknown_model",
            Self::Busy(_) => "model_busy",
            Self::InUse(_) => "model_in_use",
            Self::NotRemoved(_) => "model_not_removed",
        }
    }
}

/// What happens while a model is fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A source is asked; the text names it for people.
    Source(ModelSource, String),
    /// So many bytes have arrived, of so many if that is known.
    Received { bytes: u64, total: Option<u64> },
    /// What has arrived is checked.
    Checking,
    /// What has arrived is converted to whisper.cpp's format.
    Converting,
    /// A source was given up, for this reason.
    Failed(ModelSource, String),
}

/// Who is told of the steps.
pub type Report<'a> = &'a (dyn Fn(Step) + Send + Sync);

/// Returns the SHA-256 of a file, in hexadecimal digits.
fn digest_of(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(HEXLOWER.encode(&hasher.finalize())),
            n => hasher.update(&buffer[..n]),
        }
    }
}
