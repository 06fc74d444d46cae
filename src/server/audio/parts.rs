//! Finds the parts of which a recording was joined, each of which needs a decoder of its own: files one after the other,
//! several segments of Matroska, WebM and MP4 files of an interrupted recorder. Also tells MP3 and AAC from bytes that
//! merely look like them. Used by `decode`, and by `declared` for files that go to ffmpeg, which hears the first only.

use super::{
    bytes::{WINDOW, Window, be32, be64, le32, le64, read_up_to},
    matroska,
    sniff::Part,
};
use std::{fs::File, io};

/// Frames in a row without which a file isn't MP3 or AAC. By chance, not even two follow each other.
const FRAMES_IN_A_ROW: u32 = 4;

/// Parts that are told apart. What follows is left to the decoder of the last one.
const MAX_PARTS: usize = 10_000;

/// The marks of the table that many encoders put into their first frame, and where they can be: after the header, a
/// checksum and the side information, whose length depends on the version and the channels.
const TABLES: [&[u8]; 3] = [b"Xing", b"Info", b"VBRI"];
const TABLE_OFFSETS: [usize; 6] = [13, 15, 21, 23, 36, 38];

/// Bytes of a frame or a chunk that are looked at.
const HEAD: usize = 64;

/// Chunks that are skipped in search of another file. A recording in fragments has a few for each second.
const MAX_CHUNKS: usize = 2_000_000;

/// What a stream of frames without a container consists of.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// Where each part begins.
    pub(super) starts: Vec<u64>,
    /// Whether so many frames follow each other that it isn't chance.
    pub(super) is_sound: bool,
    /// Bytes of frames, and of what is neither a frame nor a tag.
    pub(super) frames: u64,
    pub(super) junk: u64,
}

/// The framing of a stream without a container.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Framing {
    Mpeg,
    Adts,
}

/// The first bytes of a frame that don't change within a part, and its length.
fn frame(framing: Framing, head: &[u8]) -> Option<(u32, u64)> {
    match framing {
        Framing::Mpeg => mpeg_frame(head),
        Framing::Adts => adts_frame(head),
    }
}

fn mpeg_frame(head: &[u8]) -> Option<(u32, u64)> {
    const RATES: [u32; 3] = [44_100, 48_000, 32_000];
    const LAYER3: [u32; 15] = [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320];
    const LAYER2: [u32; 15] = [0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384];
    const LAYER1: [u32; 15] = [0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448];
    const LOW_LAYER1: [u32; 15] = [0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256];
    const LOW: [u32; 15] = [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160];
    let word = be32(head.get(..4)?);
    let (version, layer) = (word >> 19 & 3, word >> 17 & 3);
    let (bitrate, rate) = ((word >> 12 & 15) as usize, (word >> 10 & 3) as usize);
    // An unknown version, layer, rate or bit rate. A bit rate of 0 means that the length isn't declared.
    if word >> 21 != 0x7ff || version == 1 || layer == 0 || bitrate == 0 || bitrate == 15 || rate == 3 {
        return None;
    }
    let low = version != 3;
    let rate_hz = RATES[rate]
        >> if version == 3 {
            0
        } else if version == 2 {
            1
        } else {
            2
        };
    let table = match (layer, low) {
        (3, false) => LAYER1,
        (3, true) => LOW_LAYER1,
        (2, false) => LAYER2,
        (1, false) => LAYER3,
        _ => LOW,
    };
    let (bits, padding) = (table[bitrate] * 1_000, word >> 9 & 1);
    let length = match layer {
        3 => (12 * bits / rate_hz + padding) * 4,
        1 if low => 72 * bits / rate_hz + padding,
        _ => 144 * bits / rate_hz + padding,
    };
    let mono = u32::from(word >> 6 & 3 == 3);
    Some((version << 8 | layer << 6 | (rate as u32) << 4 | mono, length.into()))
}

fn adts_frame(head: &[u8]) -> Option<(u32, u64)> {
    let head = head.get(..7)?;
    if head[0] != 0xff || head[1] & 0xf6 != 0xf0 || head[2] >> 2 & 15 > 12 {
        return None;
    }
    let length = u64::from(head[3] & 3) << 11 | u64::from(head[4]) << 3 | u64::from(head[5]) >> 5;
    // Profile, rate and channels.
    let spec = u32::from(head[2] & 0xfd) << 2 | u32::from(head[3] >> 6);
    (length >= 7).then_some((spec, length))
}

/// The length of a tag that begins here.
fn tag(head: &[u8], remaining: u64) -> Option<u64> {
    if head.starts_with(b"ID3") && head.len() >= 10 && head[6..10].iter().all(|byte| *byte < 0x80) {
        let length = head[6..10].iter().fold(0, |sum, byte| sum << 7 | u64::from(*byte));
        return Some(10 + length + if head[5] & 0x10 == 0 { 0 } else { 10 });
    }
    if head.starts_with(b"APETAGEX") && head.len() >= 16 {
        return Some(32 + u64::from(u32::from_le_bytes([head[12], head[13], head[14], head[15]])));
    }
    (head.starts_with(b"TAG") && remaining <= 128).then_some(128)
}

/// Reads the frames of a stream without a container, of the whole file or of its first bytes after the tags.
pub(super) fn frames(file: &File, framing: Framing, mut most: u64) -> io::Result<Frames> {
    let mut window = Window::new(file)?;
    let size = window.size;
    let (mut found, mut spec, mut in_a_row, mut at) = (Frames::default(), None, 0, 0);
    while at < size && at < most {
        let head = window.get(at, HEAD)?;
        if let Some(length) = tag(head, size - at) {
            (at, most) = (at.saturating_add(length), most.saturating_add(length));
            continue;
        }
        let has_table = framing == Framing::Mpeg
            && TABLE_OFFSETS.iter().any(|at| head.get(*at..at + 4).is_some_and(|mark| TABLES.contains(&mark)));
        let Some((now, length)) = frame(framing, head) else {
            (in_a_row, found.junk) = (0, found.junk + 1);
            let next = window.find(at + 1, 0xff)?;
            // A tag may begin before the next frame.
            at = if window.get(at + 1, 3)?.starts_with(b"ID3") || window.get(at + 1, 8)? == b"APETAGEX" {
                at + 1
            } else {
                let tag = tag_before(&mut window, at + 1, next)?;
                found.junk += tag - at - 1;
                tag
            };
            continue;
        };
        let next = at + length;
        let confirmed = next >= size || {
            let head = window.get(next, 16)?;
            frame(framing, head).is_some_and(|(spec, _)| spec == now) || tag(head, size - next).is_some()
        };
        // What comes first after another kind of frame, or after junk, may be chance.
        if !confirmed && (spec != Some(now) || in_a_row == 0) {
            (in_a_row, found.junk, at) = (0, found.junk + 1, at + 1);
            continue;
        }
        in_a_row += 1;
        found.is_sound |= in_a_row >= FRAMES_IN_A_ROW || (next >= size && found.junk == 0);
        if (spec != Some(now) || has_table) && found.starts.len() < MAX_PARTS {
            found.starts.push(at);
        }
        spec = Some(now);
        found.frames += length.min(size - at);
        at = next;
    }
    Ok(found)
}

/// Where a tag begins in a range without frames, or the end of the range.
fn tag_before(window: &mut Window<'_>, from: u64, to: u64) -> io::Result<u64> {
    let mut at = from;
    while at < to {
        let length = usize::try_from(to - at).unwrap_or(WINDOW).min(WINDOW / 2);
        let bytes = window.get(at, length + 16)?;
        let marks = [&b"ID3"[..], b"APETAGEX"];
        let found = marks.iter().filter_map(|mark| {
            bytes.windows(mark.len()).position(|bytes| bytes == *mark).filter(|found| *found < length)
        });
        if let Some(found) = found.min() {
            return Ok(at + found as u64);
        }
        if bytes.is_empty() {
            break;
        }
        at += length as u64;
    }
    Ok(to)
}

/// The parts from these positions on to the end of the file. What comes before the first belongs to it.
pub(super) fn from_starts(starts: &[u64], size: u64) -> Vec<Part> {
    let begins = std::iter::once(0).chain(starts.iter().skip(1).copied());
    let ends = starts.iter().skip(1).copied().chain([size]);
    begins.zip(ends).map(|(begin, end)| Part::of(begin..end)).collect()
}

/// Containers of chunks that declare their lengths, so that the end of a file is known. Only those are here of which decoders
/// hear the first file and not what was joined to it.
#[derive(Clone, Copy, Debug)]
enum Container {
    Wave,
    Aiff,
    CoreAudio,
    Mp4,
    WindowsMedia,
    Wave64,
    WavPack,
    Flash,
}

impl Container {
    const ALL: [Self; 8] = [
        Self::Wave,
        Self::Aiff,
        Self::CoreAudio,
        Self::Mp4,
        Self::WindowsMedia,
        Self::Wave64,
        Self::WavPack,
        Self::Flash,
    ];

    /// The length of a file's head, up to its first chunk, or with it, if a file begins here.
    fn head(self, bytes: &[u8]) -> Option<u64> {
        let at = |offset: usize, mark: &[u8]| bytes.get(offset..).is_some_and(|rest| rest.starts_with(mark));
        let (begins, length) = match self {
            Self::Wave => ((at(0, b"RIFF") || at(0, b"RF64") || at(0, b"BW64")) && at(8, b"WAVE"), Some(12)),
            Self::Aiff => (at(0, b"FORM") && (at(8, b"AIFF") || at(8, b"AIFC")), Some(12)),
            Self::CoreAudio => (at(0, b"caff\0\x01\0\0"), Some(8)),
            Self::Mp4 => (at(4, b"ftyp"), self.chunk(bytes, 0)),
            Self::WindowsMedia => (at(0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"), self.chunk(bytes, 0)),
            Self::Wave64 => (at(0, b"riff\x2e\x91\xcf\x11") && at(24, b"wave\xf3\xac\xd3\x11"), Some(40)),
            // The first block of a recording: its samples are counted from 0, with so many of them, and other channels follow.
            Self::WavPack => {
                let is_first = bytes.len() >= 32 && bytes[10] == 0 && le32(&bytes[16..]) == 0;
                let begins = is_first && le32(&bytes[20..]) > 0 && le32(&bytes[24..]) & 0x800 != 0;
                (at(0, b"wvpk") && begins, self.chunk(bytes, 0))
            }
            Self::Flash => (at(0, b"FLV\x01") && bytes.len() >= 9, Some(4 + u64::from(be32(bytes.get(5..)?)))),
        };
        length.filter(|_| begins)
    }

    /// The length of a chunk that begins here, `remaining` bytes before the end; none if it can't be one, or goes on to the end.
    fn chunk(self, bytes: &[u8], remaining: u64) -> Option<u64> {
        let has_name =
            |name: Option<&[u8]>| name.is_some_and(|name| name.iter().all(|byte| (0x20..0x7f).contains(byte)));
        let word = |at: usize| bytes.get(at..at + 4).map(|word| u64::from(be32(word)));
        let long = |at: usize| bytes.get(at..at + 8);
        match self {
            Self::Wave | Self::Aiff if has_name(bytes.get(..4)) => {
                let word = bytes.get(4..8)?;
                let length = if let Self::Wave = self { le32(word) } else { be32(word) };
                Some(8 + u64::from(length) + u64::from(length % 2))
            }
            Self::CoreAudio if has_name(bytes.get(..4)) => {
                Some(u64::try_from(be64(long(4)?).cast_signed()).ok()?.saturating_add(12))
            }
            Self::Mp4 => match word(0)? {
                1 => Some(be64(long(8)?)).filter(|length| *length >= 16),
                length => Some(length).filter(|length| *length >= 8),
            },
            Self::WindowsMedia => Some(le64(long(16)?)).filter(|length| *length >= 24),
            Self::Wave64 => Some(le64(long(16)?).checked_add(7)? / 8 * 8).filter(|length| *length >= 24),
            Self::WavPack if bytes.starts_with(b"wvpk") => Some(8 + u64::from(le32(bytes.get(4..8)?))),
            Self::WavPack => tag(bytes, remaining),
            // A type, a length of three bytes, seven more, and the length again.
            Self::Flash if matches!(bytes.first()? & 0x1f, 8 | 9 | 18) => Some((word(0)? & 0x00ff_ffff) + 15),
            Self::Wave | Self::Aiff | Self::CoreAudio | Self::Flash => None,
        }
    }
}

/// Where each file begins of those that were joined, by the lengths that their chunks declare. Of other containers than the
/// above, that is only the start.
pub(super) fn files(file: &File) -> io::Result<Vec<u64>> {
    let size = file.metadata()?.len();
    let first = read_up_to(file, 0, HEAD)?;
    let Some(container) = Container::ALL.into_iter().find(|container| container.head(&first).is_some()) else {
        return Ok(vec![0]);
    };
    let (mut starts, mut at, mut long_data) = (Vec::new(), 0, None);
    for _ in 0..MAX_CHUNKS {
        if at >= size || starts.len() == MAX_PARTS {
            break;
        }
        let bytes = read_up_to(file, at, HEAD)?;
        let length = if let Some(length) = container.head(&bytes) {
            starts.push(at);
            Some(length)
        } else if let Container::Wave = container {
            // A file of more than 4 GB declares the length of its samples in a chunk of its own.
            if bytes.starts_with(b"ds64") {
                long_data = bytes.get(16..24).map(le64);
            }
            let is_long = bytes.starts_with(b"data\xff\xff\xff\xff");
            let long = long_data.filter(|_| is_long).map(|length| length.saturating_add(8 + length % 2));
            long.or_else(|| container.chunk(&bytes, size - at))
        } else {
            container.chunk(&bytes, size - at)
        };
        let Some(length) = length else { break };
        at = at.saturating_add(length);
    }
    Ok(starts)
}

/// The parts of joined FLAC files, each of which begins with the mark and a block of 34 bytes.
pub(super) fn flac(file: &File) -> io::Result<Vec<Part>> {
    let mut window = Window::new(file)?;
    let (mut starts, mut at) = (Vec::new(), 0);
    loop {
        at = window.find(at, b'f')?;
        if at >= window.size || starts.len() == MAX_PARTS {
            break;
        }
        if matches!(window.get(at, 8)?, [b'f', b'L', b'a', b'C', 0 | 0x80, 0, 0, 0x22]) {
            starts.push(at);
        }
        at += 1;
    }
    Ok(if starts.is_empty() { vec![Part::of(0..window.size)] } else { from_starts(&starts, window.size) })
}

/// The segments of a Matroska file, each with the head that belongs to it.
pub(super) fn matroska(file: &File) -> io::Result<Vec<Part>> {
    let mut window = Window::new(file)?;
    let size = window.size;
    let (mut parts, mut head, mut begin, mut at) = (Vec::<Part>::new(), 0..0, None, 0);
    while at < size && parts.len() < MAX_PARTS {
        let element = matroska::element(&mut window, at)?.filter(is_plausible);
        let Some(element) = element else {
            // Damage. Another file may begin after it.
            at = next_head(&mut window, at + 1)?;
            continue;
        };
        match (element.id, element.end()) {
            (matroska::EBML, Some(end)) => {
                close(&mut parts, &mut begin, at);
                head = at..end.min(size);
                at = end;
            }
            (matroska::SEGMENT, end) => {
                close(&mut parts, &mut begin, at);
                begin = Some(Part { head: head.clone(), body: at..size });
                // The segment's children are read too, because a recorder that broke off leaves a length that is too
                // long.
                at = match end.filter(|end| *end <= size) {
                    Some(end) => end,
                    None => element.start,
                };
            }
            // A cluster of unknown length ends where another element of its level begins.
            (_, None) => at = element.start,
            (_, Some(end)) => at = end,
        }
    }
    close(&mut parts, &mut begin, size);
    Ok(parts)
}

fn close(parts: &mut Vec<Part>, begun: &mut Option<Part>, end: u64) {
    if let Some(mut part) = begun.take() {
        part.body.end = end;
        parts.push(part);
    }
}

/// Whether this can be an element of a segment or a cluster.
fn is_plausible(element: &matroska::Element) -> bool {
    const TOP: [u32; 12] = [
        matroska::EBML,
        matroska::SEGMENT,
        matroska::CLUSTER,
        0x114d_9b74,
        0x1549_a966,
        0x1654_ae6b,
        0x1c53_bb6b,
        0x1254_c367,
        0x1941_a469,
        0x1043_a770,
        0xec,
        0xbf,
    ];
    const IN_CLUSTER: [u32; 6] = [0xe7, 0xa3, 0xa0, 0xab, 0xa7, 0x5854];
    let may_be_open = matches!(element.id, matroska::SEGMENT | matroska::CLUSTER);
    (TOP.contains(&element.id) || IN_CLUSTER.contains(&element.id)) && (element.length.is_some() || may_be_open)
}

/// Where the next file begins after a position, or the end.
fn next_head(window: &mut Window<'_>, mut at: u64) -> io::Result<u64> {
    loop {
        at = window.find(at, 0x1a)?;
        // The mark, a length of one or eight bytes, and an element of the head.
        if at >= window.size {
            return Ok(window.size);
        }
        let bytes = window.get(at, 13)?;
        let short = bytes.len() >= 6 && bytes[4] >= 0x80 && bytes[5] == 0x42;
        let long = bytes.len() >= 13 && bytes[4] == 0x01 && bytes[12] == 0x42;
        if bytes.starts_with(&matroska::EBML.to_be_bytes()) && (short || long) {
            return Ok(at);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(bytes).expect("written");
        file
    }

    /// A frame of MPEG 1, layer III, 128 kbit/s, 44.1 kHz: 417 bytes.
    fn mpeg(mono: bool) -> Vec<u8> {
        let mut bytes = vec![0xff, 0xfb, 0x90, if mono { 0xc0 } else { 0x40 }];
        bytes.resize(417, 0);
        bytes
    }

    #[test]
    fn frames_are_counted_and_tags_are_not() {
        let tag = [&b"ID3\x03\0\0\0\0\x7f\x7f"[..], &[0xff; 127 * 129]].concat();
        let end = [&b"TAG"[..], &[0; 125]].concat();
        let all = [tag.clone(), mpeg(true).repeat(6), tag.clone(), mpeg(false).repeat(5), end].concat();
        let found = frames(&file(&all), Framing::Mpeg, u64::MAX).expect("readable");
        let second = (2 * tag.len() + 6 * 417) as u64;
        assert_eq!(found.starts, [tag.len() as u64, second]);
        assert_eq!((found.frames, found.junk, found.is_sound), (11 * 417, 0, true));
        let parts = from_starts(&found.starts, all.len() as u64);
        assert_eq!(parts, [Part::of(0..second), Part::of(second..all.len() as u64)]);
    }

    #[test]
    fn noise_and_damage_are_junk() {
        let mut random = 1_u64;
        let mut noise = |length: usize| -> Vec<u8> {
            let step = |_| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (random >> 33) as u8
            };
            (0..length).map(step).collect()
        };
        let fake = [mpeg(true)[..4].to_vec(), noise(500_000)].concat();
        let found = frames(&file(&fake), Framing::Mpeg, u64::MAX).expect("readable");
        assert!(!found.is_sound, "{found:?}");
        let broken = [mpeg(true).repeat(9), noise(3_000), mpeg(true).repeat(9)].concat();
        let found = frames(&file(&broken), Framing::Mpeg, u64::MAX).expect("readable");
        assert!(found.is_sound && found.starts.len() == 1, "{found:?}");
        assert!(found.junk > 2_000 && found.frames > 17 * 417, "{found:?}");
    }

    #[test]
    fn segments_of_any_length_are_told_apart() {
        let head = b"\x1a\x45\xdf\xa3\x84\x42\x82\x81w";
        let cluster = b"\x1f\x43\xb6\x75\xff\xe7\x81\0\xa3\x81x";
        let open = [&head[..], b"\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xff", cluster].concat();
        let known = [&b"\x18\x53\x80\x67\x8b"[..], cluster].concat();
        let all = [open.clone(), known.clone(), b"damage".to_vec(), open.clone()].concat();
        let found = matroska(&file(&all)).expect("readable");
        let (first, second) = (open.len() as u64, (open.len() + known.len()) as u64);
        let third = second + 6;
        assert_eq!(
            found,
            [
                Part { head: 0..9, body: 9..first },
                Part { head: 0..9, body: first..third },
                Part { head: third..third + 9, body: third + 9..all.len() as u64 },
            ]
        );
    }

    #[test]
    fn joined_files_begin_where_the_ones_before_declare_their_ends() {
        let wav = b"RIFF\x20\0\0\0WAVEfmt \x02\0\0\0xxdata\x03\0\0\0abc\0LIST\x02\0\0\0xx";
        let rf64 =
            [&b"RF64\xff\xff\xff\xffWAVEds64\x10\0\0\0xxxxxxxx\x03\0\0\0\0\0\0\0"[..], b"data\xff\xff\xff\xffabc\0"];
        let aiff = b"FORM\0\0\0\x10AIFFSSND\0\0\0\x03abc\0";
        let caf = b"caff\0\x01\0\0data\0\0\0\0\0\0\0\x03abc";
        let mp4 = b"\0\0\0\x0cftypM4A \0\0\0\x01mdat\0\0\0\0\0\0\0\x13abc\0\0\0\x08moov";
        let guid = |mark: &[u8], length: u64| [mark, &vec![0; 16 - mark.len()], &length.to_le_bytes()].concat();
        let asf = [guid(b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", 26), b"xx".to_vec(), guid(b"data", 24)].concat();
        let wave64 = [guid(b"riff\x2e\x91\xcf\x11", 99), guid(b"wave\xf3\xac\xd3\x11", 0)[..16].to_vec()].concat();
        let wave64 = [wave64, guid(b"data", 26), vec![0; 8]].concat();
        let block = |index: u32, flags: u32| {
            let numbers = [26, 0, 99, index, 9, flags, 0].map(u32::to_le_bytes).concat();
            [&b"wvpk"[..], &numbers, b"xx"].concat()
        };
        let wavpack =
            [block(0, 0x800), block(0, 0x1000), block(9, 0x800), b"APETAGEX\0\0\0\0\x02\0\0\0".to_vec()].concat();
        let wavpack = [wavpack, vec![0; 18]].concat();
        let flash = b"FLV\x01\x04\0\0\0\x09\0\0\0\0\x08\0\0\x02\0\0\0\0\0\0\0xx\0\0\0\x0d";
        for whole in [&wav[..], &rf64.concat(), aiff, caf, mp4, &asf, &wave64, &wavpack, flash] {
            let length = whole.len() as u64;
            assert_eq!(files(&file(whole)).expect("readable"), [0], "{whole:?}");
            assert_eq!(files(&file(&whole.repeat(3))).expect("readable"), [0, length, 2 * length], "{whole:?}");
            for cut in 0..whole.len() {
                assert!(files(&file(&whole[..cut])).expect("readable").len() < 2, "{cut} of {whole:?}");
            }
        }
    }

    #[test]
    fn joined_flac_is_told_apart() {
        let one = b"fLaC\0\0\0\x22fLaC and so on";
        let found = flac(&file(&one.repeat(2))).expect("readable");
        let (half, all) = (one.len() as u64, 2 * one.len() as u64);
        assert_eq!(found, [Part::of(0..half), Part::of(half..all)]);
    }
}
