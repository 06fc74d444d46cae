//! What the index of an MP4 or MOV file says that Symphonia doesn't report: which tracks have sound and in which coding,
//! whether they are protected, and their clock, which edit lists and fragments set. Also makes a file readable whose end
//! is missing. Used by `decode`. Reads only the headers of boxes and small boxes, whatever sizes they declare, except for
//! an index that was cut.

use super::{
    bytes::{be32, read_at},
    sniff::Edits,
};
use std::{fs::File, io, ops::Range};

/// Boxes that are read in all. A recording in fragments has a few for each second.
const MAX_BOXES: u32 = 2_000_000;

/// Tracks of a film.
const MAX_TRACKS: usize = 1_000;

/// Entries of an edit list that are read. Editing programs write one for each cut, and some one for each of the pieces
/// that a recording was copied in. ffmpeg follows longer lists.
const MAX_EDITS: u32 = 100_000;

/// Runs of samples in a fragment, and samples in a run, whose lengths are added up.
const MAX_SAMPLES: u32 = 100_000;

/// Changes of the clock between fragments.
const MAX_JUMPS: usize = 100_000;

/// The largest part of an index that is copied, in bytes: that of a recording of days.
const MAX_INDEX: u64 = 32 << 20;

/// By how much the sizes of samples may differ from the bytes of a file whose chunks are unknown, if they are all of its
/// sound: padding, and what a cut table leaves out.
const MAX_UNKNOWN_SHARE: f64 = 0.1;

/// Rounding of edit lists, in seconds.
const ROUNDING: f64 = 0.002;

/// A track, as the index declares it.
#[derive(Clone, Debug, Default)]
pub(super) struct Track {
    pub(super) id: u32,
    pub(super) is_audio: bool,
    /// Whether players play it without being asked to.
    pub(super) is_enabled: bool,
    /// The coding by its code of four letters.
    pub(super) codec: [u8; 4],
    pub(super) clock: Clock,
    timescale: u32,
    /// Ticks that a sample of a fragment lasts by default.
    default_ticks: u32,
    /// Ticks of all samples so far.
    ticks: u64,
}

impl Track {
    /// Whether the sound is encrypted, so that only its seller's programs can play it.
    pub(super) fn is_protected(&self) -> bool {
        self.is_audio && matches!(&self.codec, b"enca" | b"drms" | b"aavd")
    }
}

/// When the samples of a track are heard.
#[derive(Clone, Debug, Default)]
pub(super) struct Clock {
    /// Times as Symphonia counts them, from which on they are later by so many seconds.
    jumps: Vec<(f64, f64)>,
    edits: Vec<Edit>,
    /// Whether only ffmpeg can follow the edit list: it plays parts in another order than they are stored, or is longer
    /// than what is read of it.
    pub(super) needs_ffmpeg: bool,
}

/// A part of a track, and when it is heard. All in seconds.
#[derive(Clone, Debug)]
struct Edit {
    from: f64,
    to: f64,
    at: f64,
}

impl Edit {
    /// Whether a part of the track that begins here, and is heard at this time, goes on where this one ends.
    fn is_followed_by(&self, from: f64, at: f64) -> bool {
        (from - self.to).abs() <= ROUNDING && (at - self.at - (self.to - self.from)).abs() <= ROUNDING
    }
}

/// When a packet is heard, in seconds, and how much of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Placed {
    pub(super) at: f64,
    /// Seconds that are cut off at its start.
    pub(super) skip: f64,
    /// Seconds that are heard.
    pub(super) keep: f64,
}

impl Clock {
    /// Returns when a packet is heard, or none if the edit list leaves it out.
    pub(super) fn place(&self, pts: f64, dur: f64) -> Option<Placed> {
        let later = self.jumps.partition_point(|(from, _)| *from <= pts + ROUNDING);
        let pts = pts + later.checked_sub(1).map_or(0.0, |jump| self.jumps[jump].1);
        if self.edits.is_empty() {
            return Some(Placed { at: pts, skip: 0.0, keep: f64::INFINITY });
        }
        let edit = self.edits.get(self.edits.partition_point(|edit| edit.to - ROUNDING <= pts))?;
        if pts + dur <= edit.from + ROUNDING {
            return None;
        }
        let skip = (edit.from - pts).max(0.0);
        let keep = if pts + dur > edit.to + ROUNDING { edit.to - pts - skip } else { f64::INFINITY };
        Some(Placed { at: edit.at + pts + skip - edit.from, skip, keep })
    }

    /// When the last edit ends, in seconds; none if it isn't declared.
    pub(super) fn end(&self) -> Option<f64> {
        let last = self.edits.last()?;
        Some(last.at + last.to - last.from).filter(|end| end.is_finite())
    }
}

/// Reads the tracks of a file that has an index, which is `whole` of what was stored or a part of it. With `fragments`, all of
/// it is read for their clocks.
pub(super) fn tracks(file: &File, whole: Range<u64>, fragments: bool) -> io::Result<Vec<Track>> {
    let mut reader = Reader { file, boxes: 0 };
    let mut tracks = Vec::new();
    reader.each(whole.clone(), &mut |reader, name, body| {
        if name == *b"moov" && tracks.is_empty() {
            tracks = reader.movie(body)?;
        }
        Ok(())
    })?;
    if fragments {
        reader.each(whole, &mut |reader, name, body| {
            if name == *b"moof" { reader.fragment(body, &mut tracks) } else { Ok(()) }
        })?;
    }
    Ok(tracks)
}

/// What is known of a file's end.
#[derive(Debug)]
pub(super) enum End {
    /// It is there.
    Whole,
    /// It is missing; what decoders must read instead to hear what comes before. `of_sound`, if it is sound that is missing.
    Cut { edits: Edits, of_sound: bool },
    /// It is missing, and with it what says how the sound is stored.
    IndexLost,
}

/// Looks for the end of a file, and makes it readable if that is missing. Of any other file, the end is there.
pub(super) fn end(file: &File) -> io::Result<End> {
    let mut reader = Reader { file, boxes: 0 };
    let size = file.metadata()?.len();
    let (mut at, mut media, mut has_index) = (0, Vec::new(), false);
    while let Some(found) = reader.head(at, size)? {
        if at == 0 && !matches!(&found.name, b"ftyp" | b"moov" | b"mdat" | b"wide" | b"free" | b"skip") {
            break;
        }
        if found.end <= size {
            has_index |= found.name == *b"moov";
            if found.name == *b"mdat" && media.len() < 2 {
                media.push(found.start..found.end);
            }
            at = found.end;
            continue;
        }
        let cut = |end, patches, tail| Edits { end, patches, tail };
        return Ok(match &found.name {
            // There is nothing to read it by.
            b"mdat" if !has_index => End::Whole,
            b"mdat" => End::Cut { edits: cut(size, found.ending_at(at, size), Vec::new()), of_sound: true },
            b"moov" if !has_index => match &media[..] {
                [] => End::IndexLost,
                media => match reader.index(at..size, media)? {
                    Some(index) => End::Cut { edits: cut(at, Vec::new(), index), of_sound: false },
                    None => End::IndexLost,
                },
            },
            // Also bytes after the last box that only look like another one.
            name => End::Cut { edits: cut(at, Vec::new(), Vec::new()), of_sound: name == b"moof" },
        });
    }
    Ok(End::Whole)
}

/// The head of a box.
struct Head {
    name: [u8; 4],
    /// Where its body begins, and where it ends as it declares.
    start: u64,
    end: u64,
}

impl Head {
    /// The patches that make a box end where its file does. `at` is where it begins.
    fn ending_at(&self, at: u64, size: u64) -> Vec<(u64, [u8; 4])> {
        let length = (size - at).to_be_bytes();
        let [a, b, c, d, e, f, g, h] = length;
        if self.start - at == 16 {
            vec![(at + 8, [a, b, c, d]), (at + 12, [e, f, g, h])]
        } else {
            vec![(at, [e, f, g, h])]
        }
    }
}

/// The tables of a track that say where its samples are.
#[derive(Default)]
struct Tables {
    has_codec: bool,
    has_times: bool,
    has_chunks: bool,
    /// Where the table is that groups the samples in chunks.
    groups: Option<Range<usize>>,
    /// The number of samples that the table of sizes declares, how many it holds, and the bytes of these.
    declared: u64,
    samples: u64,
    bytes: u64,
}

struct Reader<'a> {
    file: &'a File,
    boxes: u32,
}

type Visit<'v> = &'v mut dyn FnMut(&mut Reader<'_>, [u8; 4], Range<u64>) -> io::Result<()>;

impl Reader<'_> {
    /// Calls `visit` with each box in a range: its name, and where its body is.
    fn each(&mut self, range: Range<u64>, visit: Visit<'_>) -> io::Result<()> {
        let mut at = range.start;
        while let Some(Head { name, start, end }) = self.head(at, range.end)? {
            let end = end.min(range.end);
            visit(self, name, start.min(end)..end)?;
            at = end;
        }
        Ok(())
    }

    /// Reads the head of a box within a range that ends at `end`; none if there is none.
    fn head(&mut self, at: u64, end: u64) -> io::Result<Option<Head>> {
        let mut head = [0; 16];
        if at.saturating_add(8) > end || self.boxes >= MAX_BOXES || !read_at(self.file, at, &mut head[..8])? {
            return Ok(None);
        }
        self.boxes += 1;
        let (length, start) = match be32(&head) {
            0 => (end - at, 8),
            1 if read_at(self.file, at, &mut head)? => {
                (u64::from(be32(&head[8..])) << 32 | u64::from(be32(&head[12..])), 16)
            }
            length => (u64::from(length), 8),
        };
        let name = [head[4], head[5], head[6], head[7]];
        Ok((length >= start).then(|| Head { name, start: at + start, end: at.saturating_add(length) }))
    }

    /// Makes an index of one that was cut: with all tracks that are complete, and of the last one what its tables hold.
    /// Returns none if no sound can be found with it. `media` is where the sound is.
    fn index(&mut self, range: Range<u64>, media: &[Range<u64>]) -> io::Result<Option<Vec<u8>>> {
        let mut index = Vec::new();
        if range.end - range.start > MAX_INDEX {
            return Ok(None);
        }
        self.salvage(range, *b"    ", media, &mut 0, &mut index)?;
        // The kind of a track is in a box of its own.
        let has_sound = index.windows(16).any(|bytes| &bytes[..4] == b"hdlr" && &bytes[12..] == b"soun");
        Ok(has_sound.then_some(index))
    }

    /// Copies the boxes of a parent up to where the file ends. Returns whether the one without which the parent is of no use
    /// is among them.
    fn salvage(
        &mut self,
        range: Range<u64>,
        parent: [u8; 4],
        media: &[Range<u64>],
        tracks: &mut u32,
        out: &mut Vec<u8>,
    ) -> io::Result<bool> {
        let needed = match &parent {
            b"trak" => b"mdia",
            b"mdia" => b"minf",
            b"minf" => b"stbl",
            _ => &parent,
        };
        let (mut at, mut usable) = (range.start, *needed == parent);
        while let Some(found) = self.head(at, range.end)? {
            let (name, begin) = (found.name, out.len());
            *tracks += u32::from(name == *b"trak");
            let is_usable = if found.end <= range.end {
                self.copy(at..found.end, out)?;
                true
            } else {
                out.extend([[0; 4], name].concat());
                let body = found.start..range.end;
                let is_usable = match &name {
                    b"moov" | b"trak" | b"mdia" | b"minf" => self.salvage(body, name, media, tracks, out)?,
                    b"stbl" => {
                        self.salvage(body, name, media, tracks, out)?;
                        complete(out, begin + 8, media, *tracks)
                    }
                    b"stts" | b"ctts" | b"co64" => self.table(body, 8, 8, out)?,
                    b"stsc" => self.table(body, 8, 12, out)?,
                    b"stsz" => self.table(body, 12, 4, out)?,
                    b"stco" => self.table(body, 8, 4, out)?,
                    _ => false,
                };
                if is_usable {
                    let length = u32::try_from(out.len() - begin).unwrap_or(u32::MAX);
                    out[begin..begin + 4].copy_from_slice(&length.to_be_bytes());
                } else {
                    out.truncate(begin);
                }
                is_usable
            };
            usable |= is_usable && name == *needed;
            at = found.end;
        }
        Ok(usable)
    }

    fn copy(&self, range: Range<u64>, out: &mut Vec<u8>) -> io::Result<()> {
        let begin = out.len();
        out.resize(begin + usize::try_from(range.end - range.start).unwrap_or(0), 0);
        read_at(self.file, range.start, &mut out[begin..]).map(drop)
    }

    /// Copies the entries of a table that are there, and counts them. Returns whether there are any.
    fn table(&self, body: Range<u64>, head: u64, entry: u64, out: &mut Vec<u8>) -> io::Result<bool> {
        let Some(entries) = (body.end - body.start).checked_sub(head).map(|bytes| bytes / entry) else {
            return Ok(false);
        };
        let begin = out.len();
        self.copy(body.start..body.start + head + entries * entry, out)?;
        let count = u32::try_from(entries).unwrap_or(u32::MAX);
        // The count is the last number of the head. That of sizes stays, to be compared with what is there.
        if head == 8 {
            out[begin + 4..begin + 8].copy_from_slice(&count.to_be_bytes());
        }
        Ok(entries > 0)
    }

    /// Reads bytes from within a box; zeros where it is shorter.
    fn bytes<const N: usize>(&self, body: &Range<u64>, from: u64) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        let at = body.start + from;
        let length = usize::try_from(body.end.saturating_sub(at)).unwrap_or(N).min(N);
        if !read_at(self.file, at, &mut bytes[..length])? {
            bytes = [0; N];
        }
        Ok(bytes)
    }

    fn word(&self, body: &Range<u64>, from: u64) -> io::Result<u32> {
        Ok(be32(&self.bytes::<4>(body, from)?))
    }

    fn long(&self, body: &Range<u64>, from: u64) -> io::Result<u64> {
        Ok(u64::from_be_bytes(self.bytes(body, from)?))
    }

    fn version(&self, body: &Range<u64>) -> io::Result<u8> {
        Ok(self.bytes::<1>(body, 0)?[0])
    }

    fn movie(&mut self, body: Range<u64>) -> io::Result<Vec<Track>> {
        let (mut timescale, mut tracks, mut defaults) = (0, Vec::new(), Vec::new());
        self.each(body, &mut |reader, name, body| {
            match &name {
                b"mvhd" => timescale = reader.word(&body, if reader.version(&body)? == 1 { 20 } else { 12 })?,
                b"trak" if tracks.len() < MAX_TRACKS => tracks.push(reader.track(body)?),
                b"mvex" => reader.each(body, &mut |reader, name, body| {
                    if name == *b"trex" {
                        defaults.push((reader.word(&body, 4)?, reader.word(&body, 12)?));
                    }
                    Ok(())
                })?,
                _ => {}
            }
            Ok(())
        })?;
        let finished = tracks.into_iter().map(|(mut track, edits)| {
            track.default_ticks = defaults.iter().find(|(id, _)| *id == track.id).map_or(0, |(_, ticks)| *ticks);
            track.clock.set_edits(&edits, timescale, track.timescale);
            track
        });
        Ok(finished.collect())
    }

    /// Reads a track, and the entries of its edit list: the length in the movie's ticks, and the start in its own.
    fn track(&mut self, body: Range<u64>) -> io::Result<(Track, Vec<(u64, i64)>)> {
        let (mut track, mut edits) = (Track::default(), Vec::new());
        // Boxes within boxes, without a function for each level.
        let mut pending = vec![body];
        while let Some(body) = pending.pop() {
            self.each(body, &mut |reader, name, body| {
                let long = |reader: &Reader<'_>| Ok::<_, io::Error>(reader.version(&body)? == 1);
                match &name {
                    b"mdia" | b"minf" | b"stbl" | b"edts" => pending.push(body),
                    b"tkhd" => {
                        track.is_enabled = reader.word(&body, 0)? & 1 == 1;
                        track.id = reader.word(&body, if long(reader)? { 20 } else { 12 })?;
                    }
                    b"mdhd" => track.timescale = reader.word(&body, if long(reader)? { 20 } else { 12 })?,
                    b"hdlr" => track.is_audio |= reader.bytes::<4>(&body, 8)? == *b"soun",
                    b"stsd" => track.codec = reader.bytes(&body, 12)?,
                    b"elst" => {
                        let (long, count) = (long(reader)?, reader.word(&body, 4)?);
                        track.clock.needs_ffmpeg |= count > MAX_EDITS;
                        for entry in (0..u64::from(count.min(MAX_EDITS))).map(|i| 8 + i * if long { 20 } else { 12 }) {
                            edits.push(if long {
                                (reader.long(&body, entry)?, reader.long(&body, entry + 8)?.cast_signed())
                            } else {
                                let start = reader.word(&body, entry + 4)?.cast_signed();
                                (reader.word(&body, entry)?.into(), start.into())
                            });
                        }
                    }
                    _ => {}
                }
                Ok(())
            })?;
        }
        Ok((track, edits))
    }

    /// Compares the clock of a fragment with the samples before it.
    fn fragment(&mut self, body: Range<u64>, tracks: &mut [Track]) -> io::Result<()> {
        self.each(body, &mut |reader, name, body| {
            if name != *b"traf" {
                return Ok(());
            }
            let (mut id, mut each, mut starts, mut runs) = (0, None, None, Vec::new());
            reader.each(body, &mut |reader, name, body| {
                let flags = reader.word(&body, 0)? & 0x00ff_ffff;
                match &name {
                    b"tfhd" => {
                        id = reader.word(&body, 4)?;
                        let before = u64::from(flags & 1 != 0) * 8 + u64::from(flags & 2 != 0) * 4;
                        if flags & 8 != 0 {
                            each = Some(reader.word(&body, 8 + before)?);
                        }
                    }
                    b"tfdt" if reader.version(&body)? == 1 => starts = Some(reader.long(&body, 4)?),
                    b"tfdt" => starts = Some(reader.word(&body, 4)?.into()),
                    b"trun" => runs.push((flags, body)),
                    _ => {}
                }
                Ok(())
            })?;
            let Some(track) = tracks.iter_mut().find(|track| track.id == id) else { return Ok(()) };
            if let Some(starts) = starts {
                let seconds = |ticks: f64| ticks / f64::from(track.timescale.max(1));
                let later = seconds(starts as f64 - track.ticks as f64);
                let before = track.clock.jumps.last().map_or(0.0, |(_, later)| *later);
                if (later - before).abs() > ROUNDING && track.clock.jumps.len() < MAX_JUMPS {
                    track.clock.jumps.push((seconds(track.ticks as f64), later));
                }
            }
            for (flags, body) in runs {
                let count = reader.word(&body, 4)?;
                if flags & 0x100 == 0 {
                    track.ticks += u64::from(count) * u64::from(each.unwrap_or(track.default_ticks));
                    continue;
                }
                let size = 4 * u64::from((flags >> 8 & 0xf).count_ones());
                let first = 8 + u64::from(flags & 1 != 0) * 4 + u64::from(flags & 4 != 0) * 4;
                for sample in 0..u64::from(count.min(MAX_SAMPLES)) {
                    track.ticks += u64::from(reader.word(&body, first + sample * size)?);
                }
            }
            Ok(())
        })
    }
}

/// Adds what the tables of a track lack, which begin at a position of `out`: where its samples are, if they are all that the
/// file holds. Returns whether the samples can be found.
fn complete(out: &mut Vec<u8>, begin: usize, media: &[Range<u64>], tracks: u32) -> bool {
    let (mut tables, mut at) = (Tables::default(), begin);
    while let Some(head) = out.get(at..at + 8) {
        let length = usize::try_from(be32(head)).unwrap_or(usize::MAX).min(out.len() - at);
        let name = [head[4], head[5], head[6], head[7]];
        if length < 8 {
            return false;
        }
        match &name {
            b"stsd" => tables.has_codec = true,
            b"stts" => tables.has_times = true,
            b"stsc" => tables.groups = Some(at..at + length),
            b"stco" | b"co64" => tables.has_chunks = true,
            b"stsz" if length >= 20 => {
                let (each, declared) = (u64::from(be32(&out[at + 12..])), u64::from(be32(&out[at + 16..])));
                let entries = out[at + 20..at + length].chunks_exact(4);
                tables.declared = declared;
                if each > 0 {
                    (tables.samples, tables.bytes) = (declared, declared * each);
                } else {
                    tables.samples = declared.min(entries.len() as u64);
                    tables.bytes =
                        entries.take(usize::try_from(declared).unwrap_or(0)).map(|size| u64::from(be32(size))).sum();
                    let samples = u32::try_from(tables.samples).unwrap_or(u32::MAX);
                    out[at + 16..at + 20].copy_from_slice(&samples.to_be_bytes());
                }
            }
            _ => {}
        }
        at += length;
    }
    if !tables.has_codec || !tables.has_times || tables.samples == 0 {
        return false;
    }
    if tables.groups.is_some() && tables.has_chunks {
        return true;
    }
    // One chunk of all samples. If the file had other tracks, their bytes would be among them.
    let ([media], 0..=1, false) = (media, tracks, tables.has_chunks) else { return false };
    let all = tables.bytes as f64 * tables.declared as f64 / tables.samples as f64;
    let size = (media.end - media.start) as f64;
    let (Ok(samples), Ok(start)) = (u32::try_from(tables.samples), u32::try_from(media.start)) else { return false };
    if (all - size).abs() > size * MAX_UNKNOWN_SHARE {
        return false;
    }
    if let Some(groups) = tables.groups {
        out.drain(groups);
    }
    let number = |number: u32| number.to_be_bytes();
    out.extend([number(28), *b"stsc", number(0), number(1), number(1), number(samples), number(1)].concat());
    out.extend([number(20), *b"stco", number(0), number(1), number(start)].concat());
    true
}

impl Clock {
    fn set_edits(&mut self, entries: &[(u64, i64)], movie_scale: u32, track_scale: u32) {
        let (movie_scale, track_scale) = (f64::from(movie_scale.max(1)), f64::from(track_scale.max(1)));
        let mut at = 0.0;
        for (length, start) in entries {
            let length = *length as f64 / movie_scale;
            // A negative start means that nothing is heard for so long.
            if *start >= 0 {
                let from = *start as f64 / track_scale;
                // Without a length, the rest is heard.
                let to = if length > 0.0 { from + length } else { f64::INFINITY };
                match self.edits.last_mut() {
                    // Nothing is left out between the two, so that a packet which belongs to both is heard whole.
                    Some(before) if before.is_followed_by(from, at) => before.to = to,
                    before => {
                        self.needs_ffmpeg |= before.is_some_and(|before| from < before.to - ROUNDING);
                        self.edits.push(Edit { from, to, at });
                    }
                }
            }
            at += length;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edit_lists_and_fragments_set_the_time_of_a_packet() {
        let mut clock = Clock::default();
        assert_eq!(clock.place(1.5, 0.02), Some(Placed { at: 1.5, skip: 0.0, keep: f64::INFINITY }));
        // Ten seconds of nothing, then the track from 0.5 s on, for two seconds.
        clock.set_edits(&[(10_000, -1), (2_000, 24_000)], 1_000, 48_000);
        assert_eq!(clock.place(0.2, 0.2), None);
        let first = clock.place(0.4, 0.2).expect("heard in part");
        assert!((first.at - 10.0).abs() < 1e-9 && (first.skip - 0.1).abs() < 1e-9 && first.keep.is_infinite());
        let last = clock.place(2.4, 0.2).expect("heard in part");
        assert!((last.at - 11.9).abs() < 1e-9 && (last.keep - 0.1).abs() < 1e-9);
        assert_eq!(clock.place(2.5, 0.2), None);
        assert!(!clock.needs_ffmpeg && clock.end() == Some(12.0));
        clock.jumps = vec![(0.0, 0.5), (1.0, 1.0)];
        assert!((clock.place(0.5, 0.2).expect("heard").at - 10.5).abs() < 1e-9);
        assert!((clock.place(1.0, 0.2).expect("heard").at - 11.5).abs() < 1e-9);
        let mut clock = Clock::default();
        clock.set_edits(&[(1_000, 48_000), (1_000, 0)], 1_000, 48_000);
        assert!(clock.needs_ffmpeg);
    }

    #[test]
    fn an_edit_list_of_any_length_is_followed() {
        // Pieces of 320 ms, one after the other.
        let mut clock = Clock::default();
        let pieces: Vec<(u64, i64)> = (0..5_000).map(|i| (320, i * 15_360)).collect();
        clock.set_edits(&pieces, 1_000, 48_000);
        assert!(!clock.needs_ffmpeg && clock.edits.len() == 1, "{}", clock.edits.len());
        assert!((clock.end().expect("declared") - 1_600.0).abs() < 0.01);
        let whole = clock.place(1_599.9, 0.02).expect("heard");
        assert!((whole.at - 1_599.9).abs() < 0.01 && whole.keep.is_infinite());
        // Half of each is left out.
        let mut clock = Clock::default();
        let pieces: Vec<(u64, i64)> = (0..5_000).map(|i| (160, i * 15_360)).collect();
        clock.set_edits(&pieces, 1_000, 48_000);
        assert!(!clock.needs_ffmpeg && clock.edits.len() == 5_000);
        assert!((clock.place(1_599.7, 0.02).expect("heard").at - 799.86).abs() < 0.01);
        assert_eq!(clock.place(1_599.9, 0.02), None);
    }

    #[test]
    fn an_edit_list_that_is_too_long_is_left_to_ffmpeg() {
        use std::io::Write as _;
        for (entries, needs_ffmpeg) in [(1_200, false), (MAX_EDITS + 1, true)] {
            let list = (0..entries).flat_map(|i| [320, i * 15_360, 0x1_0000]);
            let list: Vec<u8> = [0, entries].into_iter().chain(list).flat_map(u32::to_be_bytes).collect();
            let track = boxed(b"trak", &boxed(b"edts", &boxed(b"elst", &list)));
            let mut file = tempfile::tempfile().expect("a temporary file");
            file.write_all(&boxed(b"moov", &track)).expect("written");
            assert_eq!(tracks(&file, 0..u64::MAX, false).expect("readable")[0].clock.needs_ffmpeg, needs_ffmpeg);
        }
    }

    /// A box of these bytes.
    fn boxed(name: &[u8; 4], body: &[u8]) -> Vec<u8> {
        [&(body.len() as u32 + 8).to_be_bytes()[..], name, body].concat()
    }

    #[test]
    fn an_index_is_as_good_as_what_was_left_of_it() {
        use std::io::Write as _;
        let table = |name: &[u8; 4], numbers: &[u32]| {
            boxed(name, &numbers.iter().flat_map(|number| number.to_be_bytes()).collect::<Vec<u8>>())
        };
        let sizes = table(b"stsz", &[0, 0, 4, 25, 25, 25, 25]);
        let before = [table(b"stsd", &[0, 1]), table(b"stts", &[0, 1, 4, 1024])].concat();
        let tables = [before, sizes, table(b"stsc", &[0, 1, 1, 2, 1]), table(b"stco", &[0, 2, 36, 86])].concat();
        let kind = boxed(b"hdlr", b"\0\0\0\0\0\0\0\0soun\0\0\0\0");
        let media = [kind, boxed(b"minf", &boxed(b"stbl", &tables))].concat();
        let index = boxed(b"moov", &boxed(b"trak", &boxed(b"mdia", &media)));
        let whole = [boxed(b"ftyp", b"M4A \0\0\0\0xxxxyyyy"), boxed(b"mdat", &[7; 100]), index.clone()].concat();
        let cut = |missing: usize| {
            let mut file = tempfile::tempfile().expect("a temporary file");
            file.write_all(&whole[..whole.len() - missing]).expect("written");
            end(&file).expect("readable")
        };
        assert!(matches!(cut(0), End::Whole));
        let rebuilt = |missing: usize| match cut(missing) {
            End::Cut { edits, of_sound: false } if edits.end == 132 => edits.tail,
            other => panic!("{missing}: {other:?}"),
        };
        let holds = |index: &[u8], part: &[u8]| index.windows(part.len()).any(|found| found == part);
        let one_chunk = |samples| [table(b"stsc", &[0, 1, 1, samples, 1]), table(b"stco", &[0, 1, 32])].concat();
        // Within the second position, within the first one, and within the groups.
        assert!(holds(&rebuilt(2), &table(b"stco", &[0, 1, 36])));
        for missing in [6, 20, 30, 42, 48] {
            let index = rebuilt(missing);
            assert!(holds(&index, &one_chunk(4)) && be32(&index) as usize == index.len(), "{missing}: {index:?}");
        }
        // Within the sizes.
        let index = rebuilt(58);
        assert!(holds(&index, &one_chunk(2)) && holds(&index, &table(b"stsz", &[0, 0, 2, 25, 25])), "{index:?}");
        for missing in [70, 80, 120, index.len()] {
            assert!(matches!(cut(missing), End::IndexLost), "{missing}");
        }
        assert!(matches!(cut(whole.len() - 60), End::Whole), "there is nothing to read it by");
    }

    #[test]
    fn boxes_with_any_sizes_end() {
        use std::io::Write as _;
        for bytes in
            [&b"\0\0\0\0moov\0\0\0\0trak"[..], b"\0\0\0\x01moov\xff\xff\xff\xff\xff\xff\xff\xff", b"\0\0\0\x07moov"]
        {
            let mut file = tempfile::tempfile().expect("a temporary file");
            file.write_all(bytes).expect("written");
            assert!(tracks(&file, 0..bytes.len() as u64, true).expect("readable").len() <= 1);
        }
    }
}
