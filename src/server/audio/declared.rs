//! What a file that goes to ffmpeg declares and ffmpeg doesn't report: ffprobe tells the length of many files by their
//! size, as if none of them could have been cut. Used by `decode`.

use super::bytes::{be32, le32, le64, read_at, read_up_to};
use super::mp4::{self, End};
use super::wire::Declares;
use super::{is_cut, parts, sniff};
use std::{fs::File, io};

/// Chunks that are skipped in search of one.
const MAX_CHUNKS: usize = 4_096;

/// Lengths from here on stand for an unknown one, in files whose lengths have 64 bits.
const UNKNOWN: u64 = 1 << 60;

/// Reads what a file declares. Of one in another format, nothing is known.
pub(super) fn read(file: &File) -> io::Result<Declares> {
    Ok(Declares { is_joined: parts::files(file)?.len() > 1, ..first(file)? })
}

/// Reads what the first file declares of those that were joined.
fn first(file: &File) -> io::Result<Declares> {
    if let Some(lengths) = sniff::lengths(file)? {
        let is_cut = is_cut(lengths.declared, true, lengths.found);
        return Ok(Declares { is_cut, ..Declares::default() });
    }
    for read in [asf, wave64, avi, flv, ogg] {
        if let Some(found) = read(file)? {
            return Ok(found);
        }
    }
    let is_cut = matches!(mp4::end(file)?, End::Cut { of_sound: true, .. });
    Ok(Declares { is_cut, ..Declares::default() })
}

/// Reads the head of a Windows Media (ASF) file; none if it isn't one, or was written before the length was known.
fn asf(file: &File) -> io::Result<Option<Declares>> {
    const HEADER: &[u8] = b"\x30\x26\xb2\x75\x8e\x66\xcf\x11";
    const PROPERTIES: &[u8] = b"\xa1\xdc\xab\x8c\x47\xa9\xcf\x11\x8e\xe4\0\xc0\x0c\x20\x53\x65";
    let mut head = [0; 92];
    if !read_at(file, 0, &mut head[..30])? || !head.starts_with(HEADER) {
        return Ok(None);
    }
    let mut at = 30;
    for _ in 0..MAX_CHUNKS {
        if !read_at(file, at, &mut head[..24])? {
            break;
        }
        let length = le64(&head[16..]);
        if head.starts_with(PROPERTIES) {
            // The first flag says that it is sent while it is recorded.
            if !read_at(file, at, &mut head)? || head[88] & 1 == 1 {
                break;
            }
            // In units of 100 ns, from which the milliseconds before the first picture are to be taken.
            let duration = le64(&head[64..]) as f64 * 1e-7 - le64(&head[80..]) as f64 * 1e-3;
            let duration = Some(duration).filter(|duration| *duration > 0.0);
            let is_cut = file.metadata()?.len() < le64(&head[40..]);
            return Ok(Some(Declares { duration, is_cut, ..Declares::default() }));
        }
        if length < 24 {
            break;
        }
        at = at.saturating_add(length);
    }
    Ok(None)
}

/// Reads the head of a Wave64 file; none if it isn't one, or was written before the length was known.
fn wave64(file: &File) -> io::Result<Option<Declares>> {
    /// What follows the name of four letters in the identifiers of chunks.
    const REST: &[u8] = b"\xf3\xac\xd3\x11\x8c\xd1\0\xc0\x4f\x8e\xdb\x8a";
    let size = file.metadata()?.len();
    let mut head = [0; 40];
    if !read_at(file, 0, &mut head)? || !head.starts_with(b"riff") || &head[24..28] != b"wave" || &head[28..] != REST {
        return Ok(None);
    }
    let (mut at, mut per_second) = (40, 0);
    for _ in 0..MAX_CHUNKS {
        let head = read_up_to(file, at, 40)?;
        if head.len() < 24 || &head[4..16] != REST {
            break;
        }
        // With the 24 bytes before the content.
        let length = le64(&head[16..]);
        match &head[..4] {
            b"fmt " if head.len() == 40 => per_second = le32(&head[32..]),
            b"data" if per_second > 0 && (25..UNKNOWN).contains(&length) => {
                let duration = Some((length - 24) as f64 / f64::from(per_second));
                return Ok(Some(Declares { duration, is_cut: at + length > size, ..Declares::default() }));
            }
            _ => {}
        }
        if length < 24 {
            break;
        }
        at = at.saturating_add(length).saturating_add(7) / 8 * 8;
    }
    Ok(None)
}

/// Finds out whether an AVI file ends within its sound and pictures; none if it isn't one.
fn avi(file: &File) -> io::Result<Option<Declares>> {
    let size = file.metadata()?.len();
    let mut head = [0; 12];
    if !read_at(file, 0, &mut head)? || !head.starts_with(b"RIFF") || &head[8..] != b"AVI " {
        return Ok(None);
    }
    let mut at: u64 = 0;
    for _ in 0..MAX_CHUNKS {
        if !read_at(file, at, &mut head)? {
            break;
        }
        let length = le32(&head[4..]);
        // Long films are several such files.
        if head.starts_with(b"RIFF") {
            at += 12;
            continue;
        }
        let end = at.saturating_add(8 + u64::from(length) + u64::from(length % 2));
        if head.starts_with(b"LIST") && &head[8..] == b"movi" {
            let is_known = length > 0 && length < 0x7fff_0000;
            if is_known && at + 8 + u64::from(length) > size {
                return Ok(Some(Declares { is_cut: true, ..Declares::default() }));
            }
        }
        at = end;
    }
    Ok(Some(Declares::default()))
}

/// Reads the head of a Flash video; none if it isn't one.
fn flv(file: &File) -> io::Result<Option<Declares>> {
    /// Bytes in which the list of its properties is.
    const PROPERTIES: usize = 4_096;
    let size = file.metadata()?.len();
    let head = read_up_to(file, 0, PROPERTIES)?;
    if !head.starts_with(b"FLV\x01") {
        return Ok(None);
    }
    // The length of the name, the name, the type, which is 0 for a number, and the number.
    let number = |name: &[u8]| {
        let name = [&[0, u8::try_from(name.len()).unwrap_or(0)], name, &[0]].concat();
        let at = head.windows(name.len()).position(|bytes| bytes == name)? + name.len();
        let value = f64::from_be_bytes(head.get(at..at + 8)?.try_into().ok()?);
        Some(value).filter(|value| value.is_finite() && *value > 0.0)
    };
    // Each tag is followed by its length.
    let mut word = [0; 4];
    let mut ends_with_tag = size >= 4 && read_at(file, size - 4, &mut word)?;
    if ends_with_tag {
        let length = be32(&word);
        let begins = (size - 4).checked_sub(length.into());
        ends_with_tag = match begins {
            Some(begins) => read_at(file, begins, &mut word)? && (be32(&word) & 0x00ff_ffff) + 11 == length,
            None => false,
        };
    }
    let is_cut = !ends_with_tag && number(b"filesize").is_none_or(|declared| (size as f64) < declared);
    Ok(Some(Declares { duration: number(b"duration"), is_cut, ..Declares::default() }))
}

/// Finds out whether an Ogg file ends within a page; none if it isn't one.
fn ogg(file: &File) -> io::Result<Option<Declares>> {
    if read_up_to(file, 0, 4)? != b"OggS" {
        return Ok(None);
    }
    Ok(Some(Declares { is_cut: sniff::ogg_is_cut(file)?, ..Declares::default() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn of(bytes: &[u8]) -> (Option<f64>, bool) {
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(bytes).expect("written");
        let found = read(&file).expect("readable");
        (found.duration, found.is_cut)
    }

    #[test]
    fn wave64_has_the_length_of_its_samples() {
        let chunk = |name: &[u8], length: u64, body: &[u8]| {
            [name, b"\xf3\xac\xd3\x11\x8c\xd1\0\xc0\x4f\x8e\xdb\x8a", &length.to_le_bytes(), body].concat()
        };
        let whole = |data: u64, bytes: usize| {
            let format = chunk(b"fmt ", 40, b"\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0");
            let head = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\0\0\0\0\0\0\0\0\0\0";
            let wave = b"wave\xf3\xac\xd3\x11\x8c\xd1\0\xc0\x4f\x8e\xdb\x8a";
            of(&[head.to_vec(), wave.to_vec(), format, chunk(b"data", data, &vec![0; bytes])].concat())
        };
        assert_eq!(whole(24 + 32_000, 32_000), (Some(2.0), false));
        assert_eq!(whole(24 + 32_000, 31_999), (Some(2.0), true));
        // Written to a pipe.
        assert_eq!(whole(u64::MAX >> 1, 32_000), (None, false));
    }

    #[test]
    fn avi_is_cut_within_its_film_and_not_after_it() {
        let list = |kind: &[u8], length: u32, body: &[u8]| [b"LIST", &length.to_le_bytes()[..], kind, body].concat();
        let riff = |kind: &[u8], body: &[u8]| [b"RIFF", &[0; 4][..], kind, body].concat();
        let one = |length: u32| riff(b"AVI ", &[list(b"hdrl", 4, b""), list(b"movi", length, &[7; 10])].concat());
        assert_eq!(of(&one(14)), (None, false));
        assert_eq!(of(&one(16)), (None, true));
        assert_eq!(of(&one(0)), (None, false));
        let index = [one(14), b"idx1\x20\0\0\0abc".to_vec()].concat();
        assert_eq!(of(&index), (None, false));
        let long = |length: u32| [one(14), riff(b"AVIX", &list(b"movi", length, &[7; 10]))].concat();
        assert_eq!((of(&long(14)), of(&long(16))), ((None, false), (None, true)));
    }

    #[test]
    fn flash_ends_with_a_whole_tag() {
        let property =
            |name: &str, value: f64| [&[0, name.len() as u8], name.as_bytes(), &[0], &value.to_be_bytes()].concat();
        let head = [b"FLV\x01\x04\0\0\0\x09\0\0\0\0".to_vec(), property("duration", 21.9)].concat();
        let tag = [b"\x08\0\0\x05\0\0\0\0\0\0\0sound".to_vec(), 16_u32.to_be_bytes().to_vec()].concat();
        let whole = [head.clone(), tag.clone(), tag.clone()].concat();
        assert_eq!(of(&whole), (Some(21.9), false));
        assert_eq!(of(&whole[..whole.len() - 6]), (Some(21.9), true));
        let filled = [head, property("filesize", 90.0), tag, vec![0; 100]].concat();
        assert_eq!(of(&filled), (Some(21.9), false));
    }
}
