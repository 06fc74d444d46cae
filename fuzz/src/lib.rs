//! What the fuzz targets share: bytes as a file, through the built-in decoders as `hark decoder` calls them, but inside this
//! process, so that a sanitiser sees them.

use hark::server::audio::{AudioError, DecodeFailure, Limits, Recording, Selection};
use std::{fs::File, io::Write, ops::ControlFlow};

/// Seconds that are decoded: enough for every state of a decoder.
const LIMITS: Limits = Limits { max_duration: 20.0 };

fn recording(bytes: &[u8]) -> Option<Recording> {
    let mut file: File = tempfile::tempfile().expect("a temporary file");
    file.write_all(bytes).expect("written");
    allowed(Recording::recognise(file))
}

/// Whatever is in a file is the file's fault, never the storage's.
fn allowed<T>(result: Result<T, AudioError>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(AudioError::Io(error)) => panic!("taken for an error of the storage: {error}"),
        Err(_) => None,
    }
}

fn done<T>(result: Result<T, DecodeFailure>) {
    if let Err(DecodeFailure::Final(error)) = result {
        allowed::<()>(Err(error));
    }
}

/// Looks at what an upload is.
pub fn probe(bytes: &[u8]) {
    if let Some(recording) = recording(bytes) {
        if let Err(error) = recording.declares() {
            panic!("taken for an error of the storage: {error}");
        }
        done(recording.probe(&LIMITS));
    }
}

/// Decodes all of it. `marks` keep it with one parser.
pub fn decode(bytes: &[u8], marks: &[(usize, &[u8])]) {
    let mut bytes = bytes.to_owned();
    for (at, mark) in marks {
        let end = at + mark.len();
        if bytes.len() < end {
            return;
        }
        bytes[*at..end].copy_from_slice(mark);
    }
    if let Some(recording) = recording(&bytes) {
        done(recording.decode(&LIMITS, Selection::default(), &mut |_| Ok(()), &mut || Ok(()), &mut |_| Ok(ControlFlow::Continue(()))));
    }
}
