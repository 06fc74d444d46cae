//! What the index of an MP4 or MOV file says that Symphonia doesn't report: which tracks have sound and in which coding,
//! whether they are protected, and their clock, which edit lists and fragments set. Used by `decode`. Reads only the
//! headers of boxes and small boxes, whatever sizes they declare.

use super::bytes::{be32, read_at};
use std::{fs::File, io, ops::Range};

/// Boxes that are read in all. A recording in fragments has a few for each second.
const MAX_BOXES: u32 = 2_000_000;

/// Tracks of a film.
const MAX_TRACKS: usize = 1_000;

/// Entries of an edit list. Editing programs write one for each cut.
const MAX_EDITS: u32 = 1_000;

/// Runs of samples in a fragment, and samples in a run, whose lengths are added up.
const MAX_SAMPLES: u32 = 100_000;

/// Changes of the clock between fragments.
const MAX_JUMPS: usize = 100_000;

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
    /// Whether the edit list plays parts in another order than they are stored.
    pub(super) reorders: bool,
}

/// A part of a track, and when it is heard. All in seconds.
#[derive(Clone, Debug)]
struct Edit {
    from: f64,
    to: f64,
    at: f64,
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
        let edit = self.edits.iter().find(|edit| pts + dur > edit.from + ROUNDING && pts < edit.to - ROUNDING)?;
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

/// Reads the tracks of a file that has an index. With `fragments`, the whole file is read for their clocks.
pub(super) fn tracks(file: &File, fragments: bool) -> io::Result<Vec<Track>> {
    let mut reader = Reader { file, boxes: 0 };
    let whole = 0..file.metadata()?.len();
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

struct Reader<'a> {
    file: &'a File,
    boxes: u32,
}

type Visit<'v> = &'v mut dyn FnMut(&mut Reader<'_>, [u8; 4], Range<u64>) -> io::Result<()>;

impl Reader<'_> {
    /// Calls `visit` with each box in a range: its name, and where its body is.
    fn each(&mut self, range: Range<u64>, visit: Visit<'_>) -> io::Result<()> {
        let (mut at, mut head) = (range.start, [0; 16]);
        while at.saturating_add(8) <= range.end && self.boxes < MAX_BOXES {
            self.boxes += 1;
            if !read_at(self.file, at, &mut head[..8])? {
                break;
            }
            let (length, start) = match be32(&head) {
                0 => (range.end - at, 8),
                1 if read_at(self.file, at, &mut head)? => {
                    (u64::from(be32(&head[8..])) << 32 | u64::from(be32(&head[12..])), 16)
                }
                length => (u64::from(length), 8),
            };
            if length < start {
                break;
            }
            let end = at.saturating_add(length).min(range.end);
            let name = [head[4], head[5], head[6], head[7]];
            visit(self, name, (at + start).min(end)..end)?;
            at = end;
        }
        Ok(())
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
                        let (long, count) = (long(reader)?, reader.word(&body, 4)?.min(MAX_EDITS));
                        for entry in (0..u64::from(count)).map(|i| 8 + i * if long { 20 } else { 12 }) {
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
                self.reorders |= self.edits.last().is_some_and(|before: &Edit| from < before.to - ROUNDING);
                self.edits.push(Edit { from, to, at });
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
        assert!(!clock.reorders && clock.end() == Some(12.0));
        clock.jumps = vec![(0.0, 0.5), (1.0, 1.0)];
        assert!((clock.place(0.5, 0.2).expect("heard").at - 10.5).abs() < 1e-9);
        assert!((clock.place(1.0, 0.2).expect("heard").at - 11.5).abs() < 1e-9);
        let mut clock = Clock::default();
        clock.set_edits(&[(1_000, 48_000), (1_000, 0)], 1_000, 48_000);
        assert!(clock.reorders);
    }

    #[test]
    fn boxes_with_any_sizes_end() {
        use std::io::Write as _;
        for bytes in
            [&b"\0\0\0\0moov\0\0\0\0trak"[..], b"\0\0\0\x01moov\xff\xff\xff\xff\xff\xff\xff\xff", b"\0\0\0\x07moov"]
        {
            let mut file = tempfile::tempfile().expect("a temporary file");
            file.write_all(bytes).expect("written");
            assert!(tracks(&file, true).expect("readable").len() <= 1);
        }
    }
}
