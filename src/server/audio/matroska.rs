//! What the head of a Matroska or WebM file says that Symphonia doesn't report: which audio track is the default one,
//! and whether a track is packed. Used by `decode`, and by `parts` for the elements. Reads only their headers.

use super::bytes::Window;
use std::{fs::File, io};

/// Elements that are read before the tracks must have come.
const MAX_ELEMENTS: u32 = 100_000;

pub(super) const EBML: u32 = 0x1a45_dfa3;
pub(super) const SEGMENT: u32 = 0x1853_8067;
pub(super) const CLUSTER: u32 = 0x1f43_b675;
const TRACKS: u32 = 0x1654_ae6b;
const TRACK_ENTRY: u32 = 0xae;
const TRACK_NUMBER: u32 = 0xd7;
const TRACK_TYPE: u32 = 0x83;
const FLAG_DEFAULT: u32 = 0x88;
const CONTENT_ENCODINGS: u32 = 0x6d80;

/// The type of an audio track.
const AUDIO: u64 = 2;

/// A track, as the head declares it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Track {
    pub(super) number: u32,
    pub(super) is_audio: bool,
    pub(super) is_default: bool,
    /// Whether its packets are compressed once more, or encrypted.
    pub(super) is_packed: bool,
}

/// The header of an element.
#[derive(Clone, Copy, Debug)]
pub(super) struct Element {
    pub(super) id: u32,
    /// The position of its content.
    pub(super) start: u64,
    /// None where the writer didn't know the length.
    pub(super) length: Option<u64>,
}

impl Element {
    pub(super) fn end(&self) -> Option<u64> {
        self.length.map(|length| self.start.saturating_add(length))
    }
}

/// Reads the header of an element; none where there isn't a valid one.
pub(super) fn element(window: &mut Window<'_>, at: u64) -> io::Result<Option<Element>> {
    let bytes = window.get(at, 12)?;
    let Some(first) = bytes.first() else { return Ok(None) };
    let width = first.leading_zeros() as usize + 1;
    if width > 4 || bytes.len() <= width {
        return Ok(None);
    }
    let id = bytes[..width].iter().fold(0, |id, byte| id << 8 | u32::from(*byte));
    let bytes = &bytes[width..];
    let size_width = bytes[0].leading_zeros() as usize + 1;
    if size_width > 8 || bytes.len() < size_width {
        return Ok(None);
    }
    let mask = 0xff_u64 >> size_width;
    let value = bytes[1..size_width].iter().fold(u64::from(bytes[0]) & mask, |size, byte| size << 8 | u64::from(*byte));
    let unknown = (1_u64 << (7 * size_width)) - 1;
    Ok(Some(Element {
        id,
        start: at + (width + size_width) as u64,
        length: Some(value).filter(|value| *value != unknown),
    }))
}

/// Reads the tracks of the first segment. Empty where they don't come before its sound.
pub(super) fn tracks(file: &File) -> io::Result<Vec<Track>> {
    let mut window = Window::new(file)?;
    let (mut at, mut tracks, mut track) = (0, Vec::new(), None);
    for _ in 0..MAX_ELEMENTS {
        let Some(element) = element(&mut window, at)? else { break };
        let value = |window: &mut Window<'_>| -> io::Result<u64> {
            let bytes = window.get(element.start, usize::try_from(element.length.unwrap_or(0)).unwrap_or(8).min(8))?;
            Ok(bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
        };
        let into = match element.id {
            SEGMENT | TRACKS => true,
            TRACK_ENTRY => {
                tracks.extend(track.take());
                track = Some(Track { number: 0, is_audio: false, is_default: true, is_packed: false });
                true
            }
            CLUSTER => break,
            _ => false,
        };
        if let Some(track) = &mut track {
            match element.id {
                TRACK_NUMBER => track.number = u32::try_from(value(&mut window)?).unwrap_or(0),
                TRACK_TYPE => track.is_audio = value(&mut window)? == AUDIO,
                FLAG_DEFAULT => track.is_default = value(&mut window)? != 0,
                CONTENT_ENCODINGS => track.is_packed = true,
                _ => {}
            }
        }
        at = match element.end() {
            _ if into => element.start,
            Some(end) => end,
            None => break,
        };
    }
    tracks.extend(track);
    Ok(tracks)
}
