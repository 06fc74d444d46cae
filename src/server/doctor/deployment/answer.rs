//! What came back for a request to a deployment, with its body unpacked. Made by `probe`, judged by `findings`.

use axum::http::{HeaderMap, Version};
use flate2::read::GzDecoder;
use serde_json::Value;
use std::{error::Error, io::Read};

/// Why a request failed, without the library's own words.
pub(super) fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it took too long".to_owned();
    }
    let mut deepest: &dyn Error = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

/// The longest body that is unpacked, in bytes: pages and the API's description have some hundred kB.
const MAX_BODY: u64 = 4 * 1024 * 1024;

/// An answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// The version of HTTP between this program and whatever answers.
    pub(super) version: Version,
    pub(super) headers: HeaderMap,
    /// Unpacked, if it came as gzip.
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// An answer whose body is as it came.
    pub(super) fn new(status: u16, version: Version, headers: HeaderMap, body: &[u8]) -> Self {
        let packed = headers.get("content-encoding").is_some_and(|coding| coding == "gzip");
        let mut unpacked = Vec::new();
        let body = match packed {
            // What can't be unpacked is shown as it came.
            true => match GzDecoder::new(body).take(MAX_BODY).read_to_end(&mut unpacked) {
                Ok(_) => unpacked,
                Err(_) => body.to_vec(),
            },
            false => body.to_vec(),
        };
        Self { status, version, headers, body }
    }

    /// The first value of a header.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// All values of a header.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers.get_all(name).iter().filter_map(|value| value.to_str().ok())
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(super) fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// The code of an error of Hark's own; none if something on the way has answered.
    pub(super) fn error_code(&self) -> Option<String> {
        Some(self.json()?.get("error")?.get("code")?.as_str()?.to_owned())
    }

    /// The first words of the body, for people.
    pub(super) fn beginning(&self) -> String {
        let text = self.text();
        let words: Vec<&str> = text.split_whitespace().collect();
        words.join(" ").chars().take(80).collect()
    }
}
