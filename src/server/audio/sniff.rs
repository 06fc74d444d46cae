//! Recognition of files by their content, because the names of uploads may be wrong. Also finds what headers declare
//! and the file doesn't hold, where a few reads show it (WAV, AIFF, CAF, MP4, Ogg), and makes the one repair that is
//! needed: the lengths in files that were cut, or of recorders that stream. Used by `decode` before any decoder sees the
//! file.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;

use symphonia::core::io::MediaSource;

use super::bytes::{be32, be64, le32, read_at, read_up_to};

/// What the first bytes of a file show.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// A container that the built-in decoders read.
    Native(&'static str),
    /// Media, but not for the built-in decoders, which could mistake its content for something they know.
    ForFfmpeg(&'static str),
    /// Not media.
    NotMedia(&'static str),
    /// A recording in a format that no free program can read.
    Closed(&'static str),
    /// No known signature.
    Unknown,
}

/// Bytes read from the start: enough for every signature, and to tell text from binary data.
const HEAD: usize = 4_096;

/// Chunks or boxes that are skipped in search of one. No recording has as many before the one that matters, and a file
/// of nothing else would take unlimited time.
const MAX_CHUNKS: usize = 4_096;

/// Recognises a file by its first bytes.
pub(super) fn kind(file: &File) -> io::Result<Kind> {
    Ok(recognise(&read_up_to(file, 0, HEAD)?))
}

/// Recognises a file by its first bytes.
#[must_use]
pub fn recognise(head: &[u8]) -> Kind {
    use Kind::{Closed, ForFfmpeg, Native, NotMedia};
    let at = |offset: usize, mark: &[u8]| head.get(offset..).is_some_and(|rest| rest.starts_with(mark));
    let first = |mark: &[u8]| at(0, mark);
    if first(b"RIFF") || first(b"RF64") || first(b"BW64") {
        return if at(8, b"WAVE") {
            Native("WAV audio")
        } else if at(8, b"AVI ") {
            ForFfmpeg("an AVI video")
        } else if at(8, b"WEBP") {
            NotMedia("a WebP image")
        } else {
            ForFfmpeg("a RIFF file")
        };
    }
    let native: &[(&[u8], &str)] = &[
        (b"fLaC", "FLAC audio"),
        (b"OggS", "an Ogg recording"),
        (b"ID3", "MP3 audio"),
        (b"caff", "Core Audio"),
        (b"\x1a\x45\xdf\xa3", "a WebM or Matroska recording"),
    ];
    let foreign: &[(&[u8], &str)] = &[
        (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "Windows Media"),
        (b"#!AMR", "AMR audio"),
        (b"\x0b\x77", "Dolby Digital (AC-3) audio"),
        (b"\x7f\xfe\x80\x01", "DTS audio"),
        (b"FLV\x01", "Flash video"),
        (b".RMF", "RealMedia"),
        (b"MAC ", "Monkey's Audio"),
        (b"wvpk", "WavPack audio"),
        (b"TTA1", "True Audio"),
        (b"MPCK", "Musepack audio"),
        (b"MP+", "Musepack audio"),
        (b".snd", "Sun audio"),
        (b"riff\x2e\x91\xcf\x11", "Wave64 audio"),
        (b"tBaK", "TAK audio"),
        (b"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02\x01\x01\x02", "an MXF recording"),
        (b"\x02dss", "a DSS dictation"),
        (b"\x03dss", "a DSS dictation"),
        (b"Creative Voice File", "Creative Voice audio"),
        (b"\x00\x00\x01\xba", "an MPEG video"),
        (b"\x00\x00\x01\xb3", "an MPEG video"),
    ];
    let other: &[(&[u8], &str)] = &[
        (b"\x89PNG\r\n", "a PNG image"),
        (b"\xff\xd8\xff", "a JPEG image"),
        (b"GIF8", "a GIF image"),
        (b"II*\0", "a TIFF image"),
        (b"MM\0*", "a TIFF image"),
        (b"%PDF-", "a PDF document"),
        (b"PK\x03\x04", "a ZIP archive or an office document"),
        (b"\x1f\x8b", "a gzip archive"),
        (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
        (b"Rar!", "a RAR archive"),
        (b"BZh", "a bzip2 archive"),
        (b"\xfd7zXZ", "an XZ archive"),
        (b"\x7fELF", "a program"),
        (b"MThd", "a MIDI file (notes, not sound)"),
        (b"SQLite format 3", "a database"),
        (b"\xd0\xcf\x11\xe0", "an office document"),
    ];
    let find = |table: &[(&[u8], &'static str)]| table.iter().find(|(mark, _)| first(mark)).map(|&(_, name)| name);
    if let Some(name) = find(native) {
        return Native(name);
    }
    if first(b"FORM") && at(8, b"8SVX") {
        return ForFfmpeg("8SVX audio");
    }
    // The maker's newer dictation format, and its encrypted form.
    if at(1, b"ds2") || at(1, b"enc") && head.first().is_some_and(|blocks| *blocks < 16) {
        return Closed("a DS2 dictation");
    }
    if first(b"FORM") && (at(8, b"AIFF") || at(8, b"AIFC")) {
        return Native("AIFF audio");
    }
    if [&b"ftyp"[..], b"moov", b"mdat", b"wide", b"free", b"skip"].iter().any(|name| at(4, name)) {
        return if at(8, b"heic") || at(8, b"mif1") || at(8, b"avif") {
            NotMedia("a HEIC or AVIF image")
        } else {
            Native("an MP4 or M4A recording")
        };
    }
    if let Some(name) = find(foreign) {
        return ForFfmpeg(name);
    }
    if let Some(name) = find(other) {
        return NotMedia(name);
    }
    if [0, 188, 376].iter().all(|&offset| at(offset, b"G")) {
        return ForFfmpeg("an MPEG transport stream");
    }
    if let [0xff, second, ..] = *head {
        // The layer bits: 0 is AAC's framing (ADTS), 3 is MPEG layer I, which nobody uses any more.
        match second & 0xf6 {
            0xf0 => return Native("AAC audio"),
            0xf2 | 0xf4 | 0xe2 | 0xe4 => return Native("MP3 audio"),
            _ => {}
        }
    }
    if is_text(head) { NotMedia("a text file") } else { Kind::Unknown }
}

/// Whether the bytes are text in a common encoding: without control characters other than white space, or UTF-16 with a
/// byte order mark.
fn is_text(head: &[u8]) -> bool {
    let control = |byte: &u8| *byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r' | 0x0c | 0x1b);
    let utf16 = matches!(head, [0xff, 0xfe, _, 0, ..] | [0xfe, 0xff, 0, _, ..]);
    utf16
        || (!head.is_empty() && !head.iter().any(|byte| control(byte) || *byte == 0x7f) && {
            // The head may end within a character.
            match std::str::from_utf8(head) {
                Ok(_) => true,
                Err(error) => {
                    error.error_len().is_none() || head.iter().filter(|byte| **byte >= 0x80).count() < head.len() / 8
                }
            }
        })
}

/// What the header of a WAV, AIFF or Core Audio file declares, and what the file holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Lengths {
    /// Seconds that the file holds.
    pub(super) found: f64,
    /// Seconds that the header declares; `found` where the header was written before the length was known.
    pub(super) declared: f64,
    /// What makes the header say so.
    pub(super) edits: Edits,
}

/// What decoders read instead of what a file holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Edits {
    /// Where the file ends for them.
    pub(super) end: u64,
    /// Positions in the file, and what they read there, so that they know the real lengths.
    pub(super) patches: Vec<(u64, [u8; 4])>,
    /// What they read after the end.
    pub(super) tail: Vec<u8>,
}

/// Reads a WAV file's header. Returns none if it isn't one, or if it has no usable format or samples.
pub(super) fn wav(file: &File) -> io::Result<Option<Lengths>> {
    let size = file.metadata()?.len();
    let mut head = [0; 12];
    if !read_at(file, 0, &mut head)? || !matches!(&head[..4], b"RIFF" | b"RF64" | b"BW64") || &head[8..] != b"WAVE" {
        return Ok(None);
    }
    let (mut at, mut format, mut long) = (12, None, None);
    let mut chunk = [0; 8];
    for _ in 0..MAX_CHUNKS {
        if !read_at(file, at, &mut chunk)? {
            break;
        }
        let declared = u64::from(le32(&chunk[4..]));
        at += 8;
        match &chunk[..4] {
            b"fmt " => {
                let mut body = [0; 20];
                let length = if declared < 20 { 16 } else { 20 };
                if !read_at(file, at, &mut body[..length])? {
                    return Ok(None);
                }
                format = Some(body);
            }
            b"ds64" => {
                let mut body = [0; 16];
                if read_at(file, at, &mut body)? {
                    long = Some(u64::from(le32(&body[8..])) | u64::from(le32(&body[12..])) << 32);
                }
            }
            b"data" => {
                let Some(format) = format else {
                    return Ok(None);
                };
                let tag = u16::from_le_bytes([format[0], format[1]]);
                let frame = u64::from(u16::from_le_bytes([format[12], format[13]]));
                let rate = le32(&format[4..]);
                let in_block = f64::from(u16::from_le_bytes([format[18], format[19]]));
                let per_second = match tag {
                    // Linear, float, A-law, µ-law, extensible: a frame is a sample of each channel.
                    1 | 3 | 6 | 7 | 0xfffe => frame as f64 * f64::from(rate),
                    // ADPCM: blocks of so many samples.
                    2 | 0x11 if in_block > 0.0 => frame as f64 * f64::from(rate) / in_block,
                    _ => f64::from(le32(&format[8..])),
                };
                if per_second == 0.0 || frame == 0 {
                    return Ok(None);
                }
                let available = size.saturating_sub(at);
                let declared = match (declared, long) {
                    (0xffff_ffff, Some(long)) => long,
                    (declared, _) if is_placeholder(file, at, declared, available)? => available,
                    (declared, _) => declared,
                };
                let length = declared.min(available) / frame * frame;
                let seconds = |bytes: u64| bytes as f64 / per_second;
                // The longest possible length for the whole file, which also means "unknown", so that only the length of
                // the samples counts.
                let size = u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
                let patches = vec![(0, *b"RIFF"), (4, [0xff; 4]), (at - 4, size)];
                let (found, declared) = (seconds(length), seconds(declared));
                let edits = Edits { end: at + length, patches, tail: Vec::new() };
                return Ok(Some(Lengths { found, declared, edits }));
            }
            _ => {}
        }
        at = at.saturating_add(declared + declared % 2);
    }
    Ok(None)
}

/// Whether a RIFF, AIFF or MP4 file has more small chunks before its samples than any recording has. Every parser would
/// read all of them.
pub(super) fn has_too_many_chunks(file: &File) -> io::Result<bool> {
    let mut head = [0; 16];
    if !read_at(file, 0, &mut head[..8])? {
        return Ok(false);
    }
    let (little, big) = (matches!(&head[..4], b"RIFF" | b"RF64" | b"BW64"), &head[..4] == b"FORM");
    let mut at: u64 = if little || big { 12 } else { 0 };
    for _ in 0..MAX_CHUNKS {
        if !read_at(file, at, &mut head[..8])? {
            return Ok(false);
        }
        let length = if little || big {
            if matches!(&head[..4], b"data" | b"SSND") {
                return Ok(false);
            }
            let length = u64::from(if little { le32(&head[4..]) } else { be32(&head[4..]) });
            8 + length + length % 2
        } else {
            match be32(&head) {
                0 => return Ok(false),
                _ if matches!(&head[4..8], b"moov" | b"moof") => return Ok(false),
                1 if read_at(file, at, &mut head)? => u64::from(be32(&head[8..])) << 32 | u64::from(be32(&head[12..])),
                length => u64::from(length),
            }
        };
        if length < 8 {
            return Ok(false);
        }
        at = at.saturating_add(length);
    }
    Ok(true)
}

/// Whether the declared length of the samples is the placeholder of a writer that could not seek back: zero with
/// samples following, or just below one of the limits that writers use for "unknown".
fn is_placeholder(file: &File, start: u64, declared: u64, available: u64) -> io::Result<bool> {
    if declared == 0 {
        return Ok(available > 0 && !chunks_to_end(file, start)?);
    }
    Ok(declared > available && matches!(declared, 0x7fff_0000..=0x8000_0000 | 0xffff_0000..=0xffff_ffff))
}

/// Whether valid chunks follow up to the end of the file, as in a file that really has no samples.
fn chunks_to_end(file: &File, mut at: u64) -> io::Result<bool> {
    let size = file.metadata()?.len();
    let mut chunk = [0; 8];
    for _ in 0..MAX_CHUNKS {
        if at >= size {
            break;
        }
        if !read_at(file, at, &mut chunk)? || !chunk[..4].iter().all(|byte| (0x20..0x7f).contains(byte)) {
            return Ok(false);
        }
        let length = u64::from(le32(&chunk[4..]));
        at += 8 + length + length % 2;
    }
    Ok(at <= size + 1)
}

/// Reads an AIFF file's header. Returns none if it isn't one, or doesn't declare its length.
pub(super) fn aiff(file: &File) -> io::Result<Option<Lengths>> {
    let size = file.metadata()?.len();
    let mut head = [0; 12];
    if !read_at(file, 0, &mut head)? || &head[..4] != b"FORM" || !matches!(&head[8..], b"AIFF" | b"AIFC") {
        return Ok(None);
    }
    let (mut at, mut declared, mut frames, mut chunk) = (12, 0.0, (0, 0), [0; 8]);
    for _ in 0..MAX_CHUNKS {
        if !read_at(file, at, &mut chunk)? {
            break;
        }
        let length = u64::from(be32(&chunk[4..]));
        at += 8;
        match &chunk[..4] {
            b"COMM" => {
                let mut body = [0; 18];
                if !read_at(file, at, &mut body)? {
                    return Ok(None);
                }
                // An 80-bit float: the exponent, then a mantissa of which the upper half is enough.
                let exponent = i32::from(u16::from_be_bytes([body[8], body[9]]) & 0x7fff) - 16_383 - 31;
                let rate = f64::from(be32(&body[10..])) * 2_f64.powi(exponent);
                frames = (at + 2, be32(&body[2..]));
                declared = f64::from(frames.1) / rate;
            }
            b"SSND" if declared.is_normal() && length > 8 => {
                let available = size.saturating_sub(at).min(length);
                // The samples follow two numbers.
                let share = available.saturating_sub(8) as f64 / (length - 8) as f64;
                let mut patches = Vec::new();
                if available < length {
                    let cut = |n: u64| u32::try_from(n).unwrap_or(u32::MAX).to_be_bytes();
                    patches.push((4, cut(size - 8)));
                    patches.push((frames.0, ((f64::from(frames.1) * share) as u32).to_be_bytes()));
                    patches.push((at - 4, cut(available)));
                }
                let edits = Edits { end: size, patches, tail: Vec::new() };
                return Ok(Some(Lengths { found: declared * share, declared, edits }));
            }
            _ => {}
        }
        at = at.saturating_add(length + length % 2);
    }
    Ok(None)
}

/// Reads a Core Audio file's header. Returns none if it isn't one, or doesn't declare its length.
pub(super) fn caf(file: &File) -> io::Result<Option<Lengths>> {
    let size = file.metadata()?.len();
    let mut head = [0; 8];
    if !read_at(file, 0, &mut head)? || &head[..4] != b"caff" {
        return Ok(None);
    }
    // The rate, the bytes and frames of a packet, which are 0 where packets differ, and the frames of all.
    let (mut format, mut frames, mut data, mut at, mut chunk) = (None, None, None, 8, [0; 12]);
    for _ in 0..MAX_CHUNKS {
        if !read_at(file, at, &mut chunk)? {
            break;
        }
        // A negative length is that of samples up to the end of the file.
        let length = u64::try_from(be64(&chunk[4..]).cast_signed()).ok();
        at += 12;
        match &chunk[..4] {
            b"desc" => {
                let mut body = [0; 24];
                if !read_at(file, at, &mut body)? {
                    return Ok(None);
                }
                format = Some((f64::from_bits(be64(&body)), be32(&body[16..]), be32(&body[20..])));
            }
            b"pakt" => {
                let mut body = [0; 16];
                if read_at(file, at, &mut body)? {
                    frames = Some(be64(&body[8..]));
                }
            }
            b"data" => data = Some((at, length)),
            _ => {}
        }
        let Some(length) = length else { break };
        at = at.saturating_add(length);
    }
    let (Some((rate, packet, in_packet)), Some((at, length))) = (format, data) else { return Ok(None) };
    let is_fixed = packet > 0 && in_packet > 0;
    // The samples follow a number.
    let packets = |bytes: u64| bytes.saturating_sub(4) / u64::from(packet.max(1));
    let available = size.saturating_sub(at);
    let length = length.unwrap_or(available);
    let share = available.min(length).saturating_sub(4) as f64 / length.saturating_sub(4).max(1) as f64;
    let frames = if is_fixed { Some(packets(length).saturating_mul(in_packet.into())) } else { frames };
    let declared = frames.map_or(0.0, |frames| frames as f64) / rate;
    if !declared.is_normal() || declared < 0.0 || length <= 4 {
        return Ok(None);
    }
    let mut edits = Edits { end: size, patches: Vec::new(), tail: Vec::new() };
    if at.saturating_add(length) >= size {
        let held = 4 + packets(available) * u64::from(packet.max(1));
        let [a, b, c, d, e, f, g, h] = held.to_be_bytes();
        edits.end = at + held;
        edits.patches = vec![(at - 8, [a, b, c, d]), (at - 4, [e, f, g, h])];
    }
    Ok(Some(Lengths { found: declared * share, declared, edits }))
}

/// Reads the header of a WAV, AIFF or Core Audio file. Returns none if it is another one, or declares no usable length.
pub(super) fn lengths(file: &File) -> io::Result<Option<Lengths>> {
    for read in [wav, aiff, caf] {
        if let Some(lengths) = read(file)? {
            return Ok(Some(lengths));
        }
    }
    Ok(None)
}

/// Whether an MP4 file has media and no index (the `moov` box), as when a copy broke off and the index comes last. An index
/// that is cut is none: what can be made of it is tried before.
pub(super) fn mp4_without_index(file: &File) -> io::Result<bool> {
    let size = file.metadata()?.len();
    let (mut at, mut media, mut head) = (0, false, [0; 16]);
    for _ in 0..MAX_CHUNKS {
        if at >= size || !read_at(file, at, &mut head[..8])? {
            break;
        }
        let mut length = u64::from(u32::from_be_bytes([head[0], head[1], head[2], head[3]]));
        match &head[4..8] {
            b"moov" if at.saturating_add(length) > size => return Ok(true),
            b"moov" => return Ok(false),
            b"mdat" | b"moof" => media = true,
            _ => {}
        }
        match length {
            0 => break,
            1 => {
                if !read_at(file, at, &mut head)? {
                    break;
                }
                length =
                    u64::from_be_bytes([head[8], head[9], head[10], head[11], head[12], head[13], head[14], head[15]]);
            }
            _ => {}
        }
        if length < 8 {
            return Ok(false);
        }
        at = at.saturating_add(length);
    }
    Ok(media)
}

/// Whether an Ogg file ends within a page, or long after its last page. Ogg declares no length, so only this shows that
/// a copy broke off.
pub(super) fn ogg_is_cut(file: &File) -> io::Result<bool> {
    /// A page is at most a header of 27, 255 lengths, and 255 segments of 255 bytes.
    const LARGEST_PAGE: u64 = 27 + 255 + 255 * 255;
    /// Bytes after the last page that may be a tag.
    const TAG: usize = 4_096;
    let size = file.metadata()?.len();
    let from = size.saturating_sub(2 * LARGEST_PAGE);
    let tail = read_up_to(file, from, 2 * LARGEST_PAGE as usize)?;
    let Some(page) = tail.windows(5).rposition(|window| window == b"OggS\0") else {
        return Ok(true);
    };
    let page = &tail[page..];
    let Some(segments) = page.get(26) else {
        return Ok(true);
    };
    let Some(lengths) = page.get(27..27 + usize::from(*segments)) else {
        return Ok(true);
    };
    let length = 27 + lengths.len() + lengths.iter().map(|length| usize::from(*length)).sum::<usize>();
    Ok(page.len() < length || page.len() > length + TAG)
}

/// Whether an MP3 stream that begins here has a table (Xing, Info, VBRI) that counts its frames. Without one its length can only
/// be estimated from the first frames.
pub(super) fn mp3_counts_frames(file: &File, mut at: u64) -> io::Result<bool> {
    let mut head = [0; 10];
    for _ in 0..MAX_CHUNKS {
        if !read_at(file, at, &mut head)? || &head[..3] != b"ID3" {
            break;
        }
        let length = head[6..].iter().fold(0, |sum, byte| sum << 7 | u64::from(byte & 0x7f));
        at += 10 + length + if head[5] & 0x10 == 0 { 0 } else { 10 };
    }
    // The first frame may follow padding. The table is in its first bytes.
    let frame = read_up_to(file, at, HEAD)?;
    let Some(sync) = frame.windows(2).position(|pair| pair[0] == 0xff && pair[1] & 0xe0 == 0xe0) else {
        return Ok(false);
    };
    let frame = &frame[sync..frame.len().min(sync + 64)];
    let mark = |name: &[u8]| frame.windows(4).position(|window| window == name);
    let counted = |at: usize| frame.get(at + 7).is_some_and(|flags| flags & 1 == 1);
    Ok(mark(b"VBRI").is_some() || mark(b"Xing").or_else(|| mark(b"Info")).is_some_and(counted))
}

/// Whether a Matroska file declares itself as WebM.
pub(super) fn is_webm(file: &File) -> io::Result<bool> {
    let mut head = [0; 64];
    Ok(read_at(file, 0, &mut head)? && head.windows(4).any(|window| window == b"webm"))
}

/// A part of a file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Part {
    /// A head that stands elsewhere in the file and that a decoder needs before this part.
    pub(super) head: Range<u64>,
    pub(super) body: Range<u64>,
}

impl Part {
    pub(super) fn of(body: Range<u64>) -> Self {
        Self { head: 0..0, body }
    }
}

/// A part of a file for the decoders, whose length is read once. Lengths that are wrong, and an index that was cut, are
/// replaced.
pub(super) struct Source {
    file: File,
    at: u64,
    length: u64,
    /// Bytes that stand elsewhere in the file and come first.
    head: Vec<u8>,
    /// The position in the file of what follows them.
    body: u64,
    patches: Vec<(u64, [u8; 4])>,
    /// Bytes that the file doesn't hold and that come last.
    tail: Vec<u8>,
}

impl Source {
    /// The longest head, in bytes. Real ones have a few dozen.
    const MAX_HEAD: u64 = 4_096;

    pub(super) fn new(file: File, part: &Part, edits: Option<&Edits>) -> io::Result<Self> {
        let head = part.head.start..part.head.end.min(part.head.start + Self::MAX_HEAD);
        let head = read_up_to(&file, head.start, usize::try_from(head.end - head.start).unwrap_or(0))?;
        let mut length = head.len() as u64 + part.body.end.saturating_sub(part.body.start);
        let Edits { end, patches, tail } = edits.cloned().unwrap_or_default();
        if edits.is_some() {
            length = end + tail.len() as u64;
        }
        Ok(Self { file, at: 0, length, head, body: part.body.start, patches, tail })
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let remaining = usize::try_from(self.length.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let count = buffer.len().min(remaining);
        // A position beyond the end comes from the file's content, and isn't an error of the storage.
        if count == 0 {
            return Ok(0);
        }
        let head = usize::try_from(self.at).ok().and_then(|at| self.head.get(at..)).unwrap_or_default();
        let end = self.length - self.tail.len() as u64;
        let tail = self.at.checked_sub(end).and_then(|at| self.tail.get(usize::try_from(at).ok()?..));
        let given = if head.is_empty() { tail.unwrap_or_default() } else { head };
        let got = if given.is_empty() {
            let count = count.min(usize::try_from(end - self.at).unwrap_or(usize::MAX));
            self.file.read_at(&mut buffer[..count], self.body + self.at - self.head.len() as u64)?
        } else {
            let got = given.len().min(count);
            buffer[..got].copy_from_slice(&given[..got]);
            got
        };
        for (start, bytes) in &self.patches {
            for (at, byte) in (*start..).zip(bytes) {
                if let Some(index) =
                    at.checked_sub(self.at).and_then(|at| usize::try_from(at).ok()).filter(|at| *at < got)
                {
                    buffer[index] = *byte;
                }
            }
        }
        self.at += got as u64;
        Ok(got)
    }
}

impl Seek for Source {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.length.checked_add_signed(by),
        };
        let to = to.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        self.at = to;
        Ok(to)
    }
}

impl MediaSource for Source {
    fn is_seekable(&self) -> bool {
        true
    }

    fn byte_len(&self) -> Option<u64> {
        Some(self.length)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(bytes).expect("written");
        file
    }

    #[test]
    fn files_of_too_many_chunks_are_recognised() {
        let whole = |start: &[u8], part: &[u8], end: &[u8]| {
            has_too_many_chunks(&file(&[start, &part.repeat(2 * MAX_CHUNKS), end].concat())).expect("readable")
        };
        assert!(whole(b"RIFF\0\0\0\0WAVE", b"junk\0\0\0\0", b""));
        assert!(whole(b"FORM\0\0\0\0AIFF", b"junk\0\0\0\0", b""));
        assert!(whole(b"", b"\0\0\0\x08free", b""));
        assert!(!whole(b"RIFF\0\0\0\0WAVEdata\xff\xff\xff\0", b"junk\0\0\0\0", b""));
        assert!(!whole(b"\0\0\0\x08moov", b"\0\0\0\x08free", b""));
        assert!(!has_too_many_chunks(&file(b"RIFF")).expect("readable"));
    }

    fn header(data: u32) -> Vec<u8> {
        let mut bytes = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data".to_vec();
        bytes.extend(data.to_le_bytes());
        bytes
    }

    #[test]
    fn files_are_recognised_by_their_first_bytes() {
        assert_eq!(recognise(b"RIFF\x00\x00\x00\x00WAVEfmt "), Kind::Native("WAV audio"));
        assert_eq!(recognise(b"#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n"), Kind::NotMedia("a text file"));
        assert_eq!(recognise(b"ffconcat version 1.0\nfile '/etc/passwd'\n"), Kind::NotMedia("a text file"));
        assert_eq!(recognise("Grüße\n".as_bytes()), Kind::NotMedia("a text file"));
        assert_eq!(recognise(b"\xff\xfeH\0i\0"), Kind::NotMedia("a text file"));
        assert_eq!(recognise(b"\xff\xfb\x90\x64"), Kind::Native("MP3 audio"));
        assert_eq!(recognise(b"\xff\xf1\x50\x80"), Kind::Native("AAC audio"));
        assert_eq!(recognise(b"\xff\xd8\xff\xe0"), Kind::NotMedia("a JPEG image"));
        assert_eq!(recognise(b"\x01\x02\x03\x04\x90\xff"), Kind::Unknown);
        assert_eq!(recognise(b""), Kind::Unknown);
    }

    #[test]
    fn wav_lengths_are_read_and_placeholders_recognised() {
        let read = |data: u32, bytes: usize| {
            let mut all = header(data);
            all.extend(std::iter::repeat_n(1, bytes));
            wav(&file(&all)).expect("readable").map(|wav| (wav.declared, wav.found))
        };
        assert_eq!(read(16_000, 16_000), Some((1.0, 1.0)));
        assert_eq!(read(16_000, 8_001), Some((1.0, 0.5)), "cut, and within a frame");
        for placeholder in [0, u32::MAX, 0xffff_ffda, 0x7fff_ffff, 0x7fff_f000, 0x8000_0000] {
            assert_eq!(read(placeholder, 32_000), Some((2.0, 2.0)), "{placeholder:#x}");
        }
        assert_eq!(read(0, 0), Some((0.0, 0.0)));
        let mut none = header(0);
        none.extend(b"LIST\x04\0\0\0INFO");
        assert_eq!(wav(&file(&none)).expect("readable").map(|wav| wav.found), Some(0.0));
    }

    #[test]
    fn core_audio_lengths_are_read() {
        let chunk = |name: &[u8; 4], length: i64, body: &[u8]| [name, &length.to_be_bytes()[..], body].concat();
        let whole = |packet: u32, in_packet: u32, data: i64, bytes: usize| {
            let words = [0, 0, packet, in_packet, 1, 16].map(u32::to_be_bytes).concat();
            let format = chunk(b"desc", 32, &[&8_000_f64.to_be_bytes()[..], &words].concat());
            let table = chunk(b"pakt", 24, &[1_i64, 16_000, 0].map(i64::to_be_bytes).concat());
            let data = chunk(b"data", data, &vec![0; bytes]);
            let all = [b"caff\0\x01\0\0".to_vec(), format, table, data].concat();
            let end = all.len() as u64;
            let lengths = caf(&file(&all)).expect("readable").expect("a length");
            (lengths.declared, lengths.found, end - lengths.edits.end, lengths.edits.patches)
        };
        assert_eq!(whole(2, 1, 4 + 32_000, 4 + 32_000 + 12), (2.0, 2.0, 0, Vec::new()));
        // Cut, and within a frame.
        let (declared, found, beyond, patches) = whole(2, 1, 4 + 32_000, 4 + 16_001);
        assert_eq!((declared, beyond, &patches[1].1), (2.0, 1, &16_004_u32.to_be_bytes()));
        assert!((found - 1.0).abs() < 0.001, "{found}");
        // Up to the end of the file.
        assert_eq!(whole(2, 1, -1, 4 + 16_000).0, 1.0);
        // Packets of different lengths.
        let (declared, found, ..) = whole(0, 1_024, 4 + 1_000, 4 + 500);
        assert_eq!((declared, found), (2.0, 1.0));
    }

    #[test]
    fn a_source_goes_on_after_the_end_of_its_file() {
        let edits = Edits { end: 4, patches: vec![(0, *b"wxyz")], tail: b"tail".to_vec() };
        let mut source = Source::new(file(b"abcdef"), &Part::of(0..6), Some(&edits)).expect("opened");
        let mut whole = Vec::new();
        source.read_to_end(&mut whole).expect("read");
        assert_eq!(whole, b"wxyztail".to_vec());
        source.seek(SeekFrom::End(-3)).expect("within");
        let mut last = [0; 3];
        source.read_exact(&mut last).expect("within");
        assert_eq!(&last, b"ail");
    }

    #[test]
    fn a_source_has_the_real_lengths_at_any_offset() {
        let mut all = header(0);
        all.extend([7; 100]);
        let stored = file(&all);
        let header = wav(&stored).expect("readable").expect("a WAV file");
        let mut source = Source::new(stored, &Part::of(0..0), Some(&header.edits)).expect("opened");
        let mut whole = Vec::new();
        source.read_to_end(&mut whole).expect("read");
        assert_eq!(&whole[4..8], [0xff; 4]);
        assert_eq!(&whole[40..44], 100_u32.to_le_bytes());
        for (at, expected) in whole.iter().enumerate() {
            let mut byte = [0];
            source.seek(SeekFrom::Start(at as u64)).expect("within");
            source.read_exact(&mut byte).expect("within");
            assert_eq!(byte[0], *expected, "{at}");
        }
    }
}
