//! Transcripts as the bytes of files, by the options of a query. Used by `transcript` for one and by `archive` for several.

use crate::{
    model::{
        Transcript,
        transcript::{Content, Export, ExportOptions, Format, LineLimits},
    },
    server::{error::Error, speech::languages},
};
use serde::Deserialize;
use std::{
    io::{self, Cursor, Write},
    ops::RangeInclusive,
};
use utoipa::IntoParams;
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

/// How transcripts are written.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ExportQuery {
    /// txt, md and docx: whether each line or paragraph begins with its time.
    times: Option<bool>,
    /// srt and vtt: how many lines a cue may have, 1 to 4; 2 if only `chars` is given. Without both, a cue is a segment in one
    /// line.
    lines: Option<u32>,
    /// srt and vtt: how many characters a line may have, 16 to 100, where wide ones count twice; 42 if only `lines` is given.
    chars: Option<u32>,
    /// csv: `segments` or `words`, of which each has a row; `segments` if left out.
    rows: Option<String>,
}

impl ExportQuery {
    /// Checks the values.
    pub(super) fn options(&self) -> Result<ExportOptions, Error> {
        let limits = LineLimits::default();
        let limits = match (self.lines, self.chars) {
            (None, None) => None,
            (lines, chars) => Some(LineLimits {
                lines: within("lines", lines, LineLimits::LINES, limits.lines)?,
                chars: within("chars", chars, LineLimits::CHARS, limits.chars)?,
            }),
        };
        let by_word = match self.rows.as_deref() {
            None | Some("segments") => false,
            Some("words") => true,
            Some(_) => return Err(Error::BadRequest("'rows' must be segments or words.".to_owned())),
        };
        Ok(ExportOptions { times: self.times.unwrap_or(false), limits, by_word })
    }
}

fn within(name: &str, given: Option<u32>, range: RangeInclusive<u8>, default: u8) -> Result<u8, Error> {
    let Some(given) = given else { return Ok(default) };
    u8::try_from(given).ok().filter(|given| range.contains(given)).ok_or_else(|| {
        Error::BadRequest(format!("'{name}' must be a number from {} to {}.", range.start(), range.end()))
    })
}

/// Writes a transcript in a format.
pub(super) fn write(format: Format, transcript: &Transcript, options: ExportOptions) -> io::Result<Vec<u8>> {
    let language_name = transcript.session.language.as_deref().and_then(languages::name);
    match format.write(&Export { transcript, language_name, options }) {
        Content::Text(text) => Ok(text.into_bytes()),
        Content::Package(parts) => pack(&parts),
    }
}

/// Packs these parts, without times, so that the same parts make the same file.
fn pack(parts: &[(&str, String)]) -> io::Result<Vec<u8>> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, text) in parts {
        zip.start_file(*name, deflated())?;
        zip.write_all(text.as_bytes())?;
    }
    Ok(zip.finish()?.into_inner())
}

/// How files are packed.
pub(super) fn deflated() -> SimpleFileOptions {
    SimpleFileOptions::default().compression_method(CompressionMethod::Deflated)
}
