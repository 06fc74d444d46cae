//! The engine's end of the pipes: samples from standard input, lines to standard output. For engines that run as
//! children of Hark.

use super::protocol::{EngineSegment, Line};
use std::io::{self, ErrorKind, Read, Write};

/// Why a child fails; written as an `error` line.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct ChildError {
    pub(super) code: &'static str,
    pub(super) message: String,
}

impl ChildError {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl From<io::Error> for ChildError {
    fn from(error: io::Error) -> Self {
        Self::new("io", format!("The speech engine could not read or write: {error}"))
    }
}

/// Writes a line and flushes it.
pub(super) fn say(line: &Line) -> io::Result<()> {
    let mut text = serde_json::to_string(line).map_err(io::Error::other)?;
    text.push('\n');
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Writes a `ready` line.
pub(super) fn say_ready(model: &str) -> io::Result<()> {
    say(&Line::Ready { protocol: Some(1), model: model.to_owned() })
}

/// Writes a `segment` line.
pub(super) fn say_segment(segment: EngineSegment) -> io::Result<()> {
    say(&Line::Segment(segment))
}

/// Reads the next samples from standard input; none at the end.
pub(super) fn read_samples() -> io::Result<Option<Vec<i16>>> {
    let mut bytes = vec![0; 8000];
    let mut filled = 0;
    let mut stdin = io::stdin().lock();
    while filled < bytes.len() {
        match stdin.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let samples: Vec<i16> =
        bytes[..filled].chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect();
    Ok((!samples.is_empty()).then_some(samples))
}

/// Converts a number of samples to seconds.
pub(super) fn seconds(samples: usize) -> f64 {
    samples as f64 / f64::from(crate::server::audio::SAMPLE_RATE)
}
