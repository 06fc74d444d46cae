//! Whisper's models: which there are, where they come from, and the folder that has them. Called by `hark model …`, by the
//! `whisper` engine, which asks for its file, and by nodes, which fetch a model that is missing.

mod catalogue;
mod command;
mod convert;
mod ctranslate2;
mod download;
mod fetch;
mod ggml;
mod library;
mod packages;

pub use catalogue::{CATALOGUE, Coverage, DEFAULT, Known, find};
pub use command::{ModelArgs, run_model};
pub use convert::convert;
pub use ctranslate2::ConvertError;
pub(in crate::server::speech) use fetch::Fetch;
pub use fetch::FetchState;
pub use ggml::{BadModel, Header, check, check_reader};
pub(in crate::server::speech) use library::CheckedModel;
pub use library::{Got, Installed, Library, model_name};

use crate::server::config::ModelSource;
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

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
            0 => return Ok(hex(hasher)),
            n => hasher.update(&buffer[..n]),
        }
    }
}

fn hex(hasher: Sha256) -> String {
    hasher.finalize().iter().map(|b| format!("{b:02x}")).collect()
}
