//! `/api/v1/transcripts.zip`: the transcripts of several sessions as one file, written while it is sent, so that no more than
//! one of them is in memory.

use super::{
    Query,
    disposition::disposition,
    export::{ExportQuery, deflated, write},
};
use crate::{
    model::{
        ErrorBody, SessionId, bytes,
        transcript::{ExportOptions, Format, stem},
    },
    server::{error::Error, owner::Owner, sessions::Sessions, state::AppState},
};
use axum::{
    Extension,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures::stream;
use std::{
    collections::HashSet,
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
};
use zip::{ZipWriter, write::StreamWriter};

/// The longest name of a file without its extension, in characters: file systems take 255 bytes.
const MAX_NAME: usize = 60;

/// What is asked for: the sessions, and the formats in which each is wanted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Selection {
    ids: Vec<SessionId>,
    formats: Vec<Format>,
}

impl Selection {
    /// Reads the parameters of the query. Each may be there several times, as a form sends it, or as a list with commas.
    fn read(parameters: &[(String, String)], max_sessions: u32) -> Result<Self, Error> {
        let mut selection = Self::default();
        for (name, value) in parameters {
            let values = value.split(',').map(str::trim).filter(|value| !value.is_empty());
            match name.as_str() {
                // A form's checkboxes have the second name, as server functions want it.
                "ids" | "ids[]" => {
                    for id in values {
                        let id = id.parse::<SessionId>().map_err(|_| Error::NotFound)?;
                        if !selection.ids.contains(&id) {
                            selection.ids.push(id);
                        }
                        if selection.ids.len() > max_sessions as usize {
                            return Err(Error::BadRequest(format!(
                                "At most {max_sessions} sessions can be exported at once. Choose fewer."
                            )));
                        }
                    }
                }
                "format" => {
                    for format in values {
                        let format =
                            format.parse::<Format>().map_err(|e| Error::BadRequest(format!("No such format: {e}.")))?;
                        if !selection.formats.contains(&format) {
                            selection.formats.push(format);
                        }
                    }
                }
                _ => {}
            }
        }
        if selection.ids.is_empty() {
            return Err(Error::BadRequest("Name the sessions, as ids=… with commas between.".to_owned()));
        }
        if selection.formats.is_empty() {
            selection.formats.push(Format::Docx);
        }
        Ok(selection)
    }
}

/// The transcripts of several sessions as a ZIP file.
#[utoipa::path(get, path = "/api/v1/transcripts.zip",
    params(("ids" = String, Query, description = "The ids of the sessions, with commas between; may be repeated"),
        ("format" = Option<String>, Query, description = "docx, md, txt, srt, vtt, csv or json, or several with commas \
            between; docx if left out"), ExportQuery),
    responses((status = 200, description = "The transcripts"),
        (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(super) async fn transcripts(
    State(state): State<AppState>,
    Extension(owner): Extension<Owner>,
    Query(parameters): Query<Vec<(String, String)>>,
    Query(query): Query<ExportQuery>,
) -> Result<Response, Error> {
    let config = &state.settings.exports;
    let Selection { ids, formats } = Selection::read(&parameters, config.max_export_sessions)?;
    let options = query.options()?;
    let (found, size) = state.sessions.store.transcript_bytes(&owner, &ids).await?;
    if found < ids.len() as u64 {
        return Err(Error::NotFound);
    }
    let (size, limit) = (size.saturating_mul(formats.len() as u64), config.max_export_bytes);
    if size > limit {
        return Err(Error::BadRequest(format!(
            "These transcripts have {} together, and {} can be exported at once. Choose fewer.",
            bytes(size),
            bytes(limit)
        )));
    }
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/zip"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    headers.insert(header::CONTENT_DISPOSITION, disposition("attachment", "Transcripts.zip"));
    let archive = Archive::new(Arc::clone(&state.sessions), owner, ids, formats, options);
    let body = Body::from_stream(stream::try_unfold(archive, Archive::next));
    Ok((headers, body).into_response())
}

/// What the writer of the file has written and nobody has sent yet.
#[derive(Clone, Default)]
struct Pending(Arc<Mutex<Vec<u8>>>);

impl Pending {
    fn take(&self) -> Bytes {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)).into()
    }
}

impl Write for Pending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file that is being written.
struct Archive {
    sessions: Arc<Sessions>,
    owner: Owner,
    ids: std::vec::IntoIter<SessionId>,
    formats: Vec<Format>,
    options: ExportOptions,
    names: Names,
    /// None once the end is written.
    zip: Option<ZipWriter<StreamWriter<Pending>>>,
    pending: Pending,
    /// How many sessions were deleted meanwhile.
    gone: usize,
}

impl Archive {
    fn new(
        sessions: Arc<Sessions>,
        owner: Owner,
        ids: Vec<SessionId>,
        formats: Vec<Format>,
        options: ExportOptions,
    ) -> Self {
        let pending = Pending::default();
        let zip = Some(ZipWriter::new_stream(pending.clone()));
        Self { sessions, owner, ids: ids.into_iter(), formats, options, names: Names::default(), zip, pending, gone: 0 }
    }

    /// Writes the next session, or the end. None after that.
    async fn next(mut self) -> io::Result<Option<(Bytes, Self)>> {
        while self.zip.is_some() {
            let Some(id) = self.ids.next() else {
                self.finish()?;
                return Ok(Some((self.pending.take(), self)));
            };
            let transcript = match self.sessions.transcript(&self.owner, id).await {
                Ok(transcript) => transcript,
                Err(Error::NotFound) => {
                    self.gone += 1;
                    continue;
                }
                Err(error) => {
                    tracing::warn!(session_id = %id, %error, "an export broke off: session {id} could not be read");
                    return Err(io::Error::other("a session could not be read"));
                }
            };
            let written = tokio::task::spawn_blocking(move || {
                let title = stem(transcript.session.title.as_str());
                for n in 0..self.formats.len() {
                    let format = self.formats[n];
                    let name = self.names.unique(title, format.extension());
                    self.add(&name, &write(format, &transcript, self.options)?)?;
                }
                io::Result::Ok(self)
            });
            self = written.await.map_err(io::Error::other)??;
            let bytes = self.pending.take();
            if !bytes.is_empty() {
                return Ok(Some((bytes, self)));
            }
        }
        Ok(None)
    }

    fn add(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let Some(zip) = &mut self.zip else { return Ok(()) };
        zip.start_file(name, deflated())?;
        zip.write_all(content)
    }

    fn finish(&mut self) -> io::Result<()> {
        if self.gone > 0 {
            let name = self.names.unique("Not included", "txt");
            let text = format!("Deleted while this file was being made, so not in it: {}.\n", self.gone);
            self.add(&name, text.as_bytes())?;
        }
        if let Some(zip) = self.zip.take() {
            zip.finish()?;
        }
        Ok(())
    }
}

/// The names of the files so far, in lower case, because some file systems make no difference.
#[derive(Default)]
struct Names(HashSet<String>);

impl Names {
    /// A name that every file system takes and that is there only once.
    fn unique(&mut self, title: &str, extension: &str) -> String {
        let stem = portable(title);
        let mut name = format!("{stem}.{extension}");
        let mut n = 1;
        while !self.0.insert(name.to_lowercase()) {
            n += 1;
            name = format!("{stem} ({n}).{extension}");
        }
        name
    }
}

/// A title as the name of a file that Windows, macOS and Linux take.
fn portable(title: &str) -> String {
    const RESERVED: [&str; 4] = ["con", "prn", "aux", "nul"];
    let is_unsafe = |c: char| {
        c.is_control()
            || matches!(c, '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|')
            // They change the direction of what follows, and so where a name seems to end.
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let name: String = title.chars().take(MAX_NAME).map(|c| if is_unsafe(c) { '_' } else { c }).collect();
    let name = name.trim().trim_end_matches(['.', ' ']);
    let base = name.split('.').next().unwrap_or_default().to_lowercase();
    let numbered = base.strip_prefix("com").or(base.strip_prefix("lpt"));
    let is_device = RESERVED.contains(&base.as_str()) || numbered.is_some_and(|n| n.len() == 1 && n != "0");
    match name {
        "" => "Transcript".to_owned(),
        name if is_device || name.starts_with('.') => format!("_{name}"),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_taken_by_every_file_system() {
        let mut names = Names::default();
        for (title, expected) in [
            ("Talk", "Talk.txt"),
            ("talk", "talk (2).txt"),
            ("Talk (2)", "Talk (2) (2).txt"),
            ("../../etc/passwd", "_.._.._etc_passwd.txt"),
            ("a:b*c?", "a_b_c_.txt"),
            ("CON", "_CON.txt"),
            ("com1.x", "_com1.x.txt"),
            ("computer", "computer.txt"),
            ("so... ", "so.txt"),
            ("...", "Transcript.txt"),
            ("\u{202e}fdp", "_fdp.txt"),
            ("naïve 日本", "naïve 日本.txt"),
        ] {
            assert_eq!(names.unique(title, "txt"), expected);
        }
        assert_eq!(names.unique(&"é".repeat(200), "md").chars().count(), MAX_NAME + 3);
    }

    #[test]
    fn a_selection_is_a_list_or_repeated() {
        let read = |query: &str, max| {
            let parameters: Vec<_> = query
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect();
            Selection::read(&parameters, max)
        };
        let [a, b] = ["019ab1c2-7d3e-7f00-8a4b-1c2d3e4f5a6b", "019ab1c2-7d3e-7f00-8a4b-1c2d3e4f5a6c"];
        let both = read(&format!("ids={a},{b}&format=srt,md&times=true"), 2).unwrap();
        assert_eq!(both, read(&format!("ids={a}&ids={b},{a}&format=srt&format=md"), 2).unwrap());
        assert_eq!(both, read(&format!("ids[]={a}&ids[]={b}&format=srt,md"), 2).unwrap());
        assert_eq!((both.ids.len(), both.formats), (2, vec![Format::Srt, Format::Md]));
        assert_eq!(read(&format!("ids={a}"), 2).unwrap().formats, [Format::Docx]);
        assert!(matches!(read("ids=x", 2), Err(Error::NotFound)));
        for query in ["", "ids=", "format=md", &format!("ids={a}&format=pdf"), &format!("ids={a},{b}")] {
            assert!(matches!(read(query, 1), Err(Error::BadRequest(_))), "{query}");
        }
    }
}
