//! The built-in decoders: from a file to samples at 16 kHz, by Symphonia. They tolerate damage as players do: bad
//! packets become silence, so that times stay right, and what is missing becomes a remark. Run in a process of its own
//! (`child`), because strangers' files can crash parsers; also in the fuzz targets.

mod codecs;
mod output;

use codecs::{CONTAINERS, PANICKED, Traits, catch_panic, decode_packet, decoder, format_name, seconds, seconds_signed};
use output::{Block, Output};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;

use symphonia::core::codecs::CodecParameters;
use symphonia::core::codecs::audio::AudioDecoder;
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::well_known::{
    FORMAT_ID_ADTS, FORMAT_ID_FLAC, FORMAT_ID_ISOMP4, FORMAT_ID_MKV, FORMAT_ID_MP2, FORMAT_ID_MP3, FORMAT_ID_OGG,
};
use symphonia::core::formats::{FormatOptions, FormatReader, TrackType};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::meta::MetadataOptions;
use symphonia::core::packet::Packet;
use symphonia::core::units::TimeBase;

use super::crosstalk::Crosstalk;
use super::level::{Choice, Level, Meter, Mix, tracks_remark};
use super::mp4::{self, End};
use super::parts::{self, Framing};
use super::resample::RATES;
use super::sniff::{self, Edits, Kind, Part, Source};
use super::timeline::{Item, Timeline};
use super::wire::Declares;
use super::{AudioError, AudioInfo, ChannelSelection, Limits, Problem, Selection, declared, matroska, remarks};
use crate::model::{Remark, Track};

/// Consecutive failures after which a file counts as ended. Each failure advances the reader, but one that has lost its
/// position may report thousands.
const MAX_FAILURES: u32 = 1_024;

/// Packets that are tried until one can be decoded.
const FIRST_TRIES: u32 = 64;

/// Packets of a format without a container that must be consistent before the format is believed.
const FIRST_PACKETS: usize = 8;

/// The longest packet that can't be decoded and becomes silence, in seconds.
const MAX_BAD_PACKET: f64 = 0.5;

/// Seconds of audio after which a decoder that only measures shows that it is alive.
const ALIVE_SECS: f64 = 60.0;

/// Blocks of a twentieth of a second after which a measurement is looked at.
const CHECKED_BLOCKS: u32 = 40;

/// Frames beyond the count in an MP3's table that may be padding. If there are more, another recording was appended,
/// and they are kept.
const MAX_PADDING: usize = 4 * 1_152;

/// Bytes of a file without a container that a probe looks through.
const PROBED_BYTES: u64 = 4 << 20;

/// A file that may be a recording, recognised by its first bytes.
pub struct Recording {
    file: File,
    kind: Kind,
}

/// Why the built-in decoders can't decode a recording.
#[derive(Debug)]
pub enum DecodeFailure {
    /// ffmpeg may be able to.
    TryFfmpeg(Problem),
    Final(AudioError),
}

impl From<io::Error> for DecodeFailure {
    fn from(error: io::Error) -> Self {
        Self::Final(error.into())
    }
}

impl From<AudioError> for DecodeFailure {
    fn from(error: AudioError) -> Self {
        Self::Final(error)
    }
}

impl Recording {
    /// Recognises a file. Reads only its first bytes.
    ///
    /// # Errors
    /// If the file is empty, can't be read, or is recognised as something else.
    pub fn recognise(file: File) -> Result<Self, AudioError> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("not a regular file").into());
        }
        if metadata.len() == 0 {
            return Err(AudioError::EmptyFile);
        }
        let kind = sniff::kind(&file)?;
        if let Kind::Closed(what) = kind {
            return Err(AudioError::ClosedFormat { what: what.to_owned() });
        }
        if let Kind::NotMedia(what) = kind {
            return Err(AudioError::Unreadable {
                recognised: Some(what.to_owned()),
                problem: Problem::NotAudio,
                ffmpeg: false,
            });
        }
        Ok(Self { file, kind })
    }

    /// What the file looks like, with an article; none if its first bytes are unknown.
    #[must_use]
    pub fn looks_like(&self) -> Option<&'static str> {
        match self.kind {
            Kind::Native(name) | Kind::ForFfmpeg(name) | Kind::NotMedia(name) | Kind::Closed(name) => Some(name),
            Kind::Unknown => None,
        }
    }

    /// What a file for ffmpeg declares that ffmpeg doesn't report.
    ///
    /// # Errors
    /// If the file can't be read.
    pub fn declares(&self) -> io::Result<Declares> {
        declared::read(&self.file)
    }

    /// Reads the recording's format from its header and first packets. Reads little of the file.
    ///
    /// # Errors
    /// Every [`AudioError`] that shows this early: a declared length over the limit, an MP4 file without its index.
    pub fn probe(&self, limits: &Limits) -> Result<AudioInfo, DecodeFailure> {
        let info = self.open(limits, Selection::default(), None, Mix::default(), false)?.info;
        check_duration(info.duration, limits)?;
        Ok(info)
    }

    /// Decodes what was selected of the recording to 16 kHz mono, passes it to `sink` in pieces of half a second, and
    /// returns its format and what to say about it. Calls `opened` with the format before it measures the level, during
    /// which the sink receives empty pieces, and `apart` afterwards if two speakers on two channels were to be found and
    /// were. Memory doesn't grow with the length. Stops when the sink breaks.
    ///
    /// # Errors
    /// Every [`AudioError`]. What the sink received before must be discarded. An error of the sink is returned as
    /// [`AudioError::Io`].
    pub fn decode(
        &self,
        limits: &Limits,
        selection: Selection,
        opened: &mut dyn FnMut(&AudioInfo) -> io::Result<()>,
        apart: &mut dyn FnMut() -> io::Result<()>,
        sink: &mut dyn FnMut(&[i16]) -> io::Result<ControlFlow<()>>,
    ) -> Result<(AudioInfo, Vec<Remark>), DecodeFailure> {
        let mut native = self.open(limits, selection, None, Mix::default(), true)?;
        let (tracks, mut first) = (native.audio_tracks.clone(), native.track);
        let chosen = match selection.track {
            Some(Track::Number(wanted)) => {
                let track = tracks.get(usize::from(wanted) - 1);
                let Some(track) = track.copied() else {
                    return Err(AudioError::NoSuchTrack { wanted, tracks: native.info.tracks }.into());
                };
                Some(track)
            }
            // The server mixes what a decoder for each track gives.
            Some(Track::Mix) | None => None,
        };
        if let Some(track) = chosen.filter(|track| *track != first) {
            native = self.open(limits, selection, Some(track), Mix::default(), true)?;
            first = track;
        }
        check_duration(native.info.duration, limits)?;
        opened(&native.info)?;
        let mut alive = || sink(&[]);
        let Some(mut level) = native.measure(&mut alive)? else { return Ok(stopped()) };
        let mut track = first;
        if level.is_silent() && chosen.is_none() {
            for other in tracks.iter().copied().filter(|other| *other != first) {
                // A track in an unknown coding can't be chosen.
                let Ok(native) = self.open(limits, selection, Some(other), Mix::default(), true) else { continue };
                let Some(found) = native.measure(&mut alive)? else { return Ok(stopped()) };
                if found.is_louder_than(&level) {
                    (track, level) = (other, found);
                }
            }
        }
        let mut native = self.open(limits, selection, Some(track), level.mix, true)?;
        if level.is_apart {
            apart()?;
        }
        let number = |track: u32| tracks.iter().position(|known| *known == track).map_or(1, |index| index + 1);
        let choice = match chosen {
            Some(_) => Choice::Chosen,
            None if track != first => Choice::InsteadOf(number(first)),
            None => Choice::Default,
        };
        native.remarks.extend(tracks_remark(tracks.len(), number(track), &choice));
        native.remarks.extend(level.remarks);
        let mut output = Output::new(limits, sink);
        native.run(&mut output)?;
        let (duration, stopped) = output.finish()?;
        if !stopped {
            native.check_result(duration)?;
        }
        Ok((native.info, native.remarks))
    }

    /// Opens the recording with the track of this id, or the default one. With `whole`, the whole file is looked
    /// through for its parts.
    fn open(
        &self,
        limits: &Limits,
        selection: Selection,
        track: Option<u32>,
        mix: Mix,
        whole: bool,
    ) -> Result<Native, DecodeFailure> {
        if matches!(self.kind, Kind::ForFfmpeg(_)) {
            return Err(DecodeFailure::TryFfmpeg(Problem::Unsupported));
        }
        let opened = Native::open(self.file.try_clone()?, self.kind, limits, selection, track, mix, whole);
        opened.map_err(|failure| match failure {
            // Without known first bytes, "damaged" would be a guess.
            DecodeFailure::TryFfmpeg(_) if self.kind == Kind::Unknown => DecodeFailure::TryFfmpeg(Problem::Unsupported),
            other => other,
        })
    }
}

/// The result of a decoder whose reader is gone, which nobody reads.
fn stopped() -> (AudioInfo, Vec<Remark>) {
    let (format, codec) = (String::new(), String::new());
    let info = AudioInfo { format, codec, sample_rate: 0, channels: 0, tracks: 0, duration: None };
    (info, Vec::new())
}

fn check_duration(declared: Option<f64>, limits: &Limits) -> Result<(), AudioError> {
    match declared {
        Some(duration) if duration > limits.max_duration => {
            Err(AudioError::TooLong { duration, at_least: false, limit: limits.max_duration })
        }
        _ => Ok(()),
    }
}

/// An open recording that the built-in decoders can read.
struct Native {
    info: AudioInfo,
    name: Option<&'static str>,
    reader: Box<dyn FormatReader>,
    decoder: Box<dyn AudioDecoder>,
    track: u32,
    /// The audio tracks in the order of the file, by their ids.
    audio_tracks: Vec<u32>,
    traits: Traits,
    /// The file itself, for what Symphonia doesn't report, and for its other parts.
    raw_file: File,
    /// The parts that follow the one that is read.
    later_parts: VecDeque<Part>,
    /// Whether each part is a file, so that it is missed if it can't be read.
    parts_are_files: bool,
    /// What the parts declare so far, in seconds; none once one of them declares nothing.
    declared: Option<f64>,
    /// Decoded samples and gaps that were not passed on yet.
    items: VecDeque<Item<Block>>,
    /// When samples are heard.
    timeline: Timeline<Block>,
    /// Interleaved samples of the last packet; a field to reuse its memory.
    interleaved: Vec<f32>,
    selection: ChannelSelection,
    /// What removes the other speaker from a single channel, and the rate that it is made for.
    crosstalk: Option<(u32, Crosstalk)>,
    mix: Mix,
    /// Measures the samples until they are passed on.
    meter: Option<Meter>,
    is_measured: bool,
    /// When the samples of an MP4 track are heard.
    clock: mp4::Clock,
    /// The longest recording allowed, in seconds.
    limit: f64,
    /// Where the last packet of any track ended, in seconds of the recording.
    reached: f64,
    good: Tally,
    bad: Tally,
    /// The share of the bytes of a stream without a container that are no frames.
    junk_share: f64,
    spec: Option<(u32, u16)>,
    spec_changes: u64,
    failures: u32,
    /// Whether nothing more can be read.
    at_end: bool,
    held_padding: Vec<f32>,
    keep_padding: bool,
    /// Whether the file ends within its sound.
    breaks_off: bool,
    remarks: Vec<Remark>,
}

#[derive(Clone, Copy, Default)]
struct Tally {
    packets: u64,
    seconds: f64,
}

/// A part of a file that was opened.
struct Opened {
    reader: Box<dyn FormatReader>,
    decoder: Box<dyn AudioDecoder>,
    track: u32,
    audio_tracks: Vec<u32>,
    traits: Traits,
    clock: mp4::Clock,
    duration: Option<f64>,
    format: &'static str,
}

fn read_part(file: &File, part: &Part, edits: Option<&Edits>) -> Result<Box<dyn FormatReader>, DecodeFailure> {
    let stream = MediaSourceStream::new(Box::new(Source::new(file.try_clone()?, part, edits)?), Default::default());
    let (format, metadata) = (FormatOptions::default(), MetadataOptions::default());
    let opened = catch_panic(|| CONTAINERS.probe(&Hint::new(), stream, format, metadata));
    opened.map_err(|error| match error {
        Error::IoError(error) if error.raw_os_error().is_some() => DecodeFailure::Final(error.into()),
        Error::Unsupported(_) => DecodeFailure::TryFfmpeg(Problem::Unsupported),
        _ => DecodeFailure::TryFfmpeg(Problem::Damaged),
    })
}

/// The audio tracks that these decoders may read, and the one of them that the file prefers.
fn choose_track(
    file: &File,
    part: &Part,
    reader: &dyn FormatReader,
    format: &str,
    whole: bool,
) -> Result<(Vec<u32>, u32, mp4::Clock), DecodeFailure> {
    let id = reader.format_info().format;
    let is_audio = |params: &Option<CodecParameters>| matches!(params, Some(CodecParameters::Audio(_)));
    let known: Vec<u32> =
        reader.tracks().iter().filter(|track| is_audio(&track.codec_params)).map(|track| track.id).collect();
    let none = || DecodeFailure::Final(AudioError::NoAudioTrack { format: format.to_owned() });
    let unsupported = || DecodeFailure::TryFfmpeg(Problem::Unsupported);
    if id == FORMAT_ID_ISOMP4 {
        let declared = mp4::tracks(file, part.body.clone(), whole)?;
        let (protected, audio): (Vec<_>, Vec<_>) =
            declared.iter().filter(|track| track.is_audio).partition(|track| track.is_protected());
        let Some(chosen) = audio.iter().find(|track| track.is_enabled).or(audio.first()) else {
            return Err(if !protected.is_empty() {
                AudioError::Protected { format: format.to_owned() }.into()
            } else if declared.is_empty() {
                unsupported()
            } else {
                none()
            });
        };
        // ffmpeg knows more codings than Symphonia, and can play parts in another order.
        if chosen.clock.needs_ffmpeg || !known.contains(&chosen.id) {
            return Err(unsupported());
        }
        return Ok((audio.iter().map(|track| track.id).collect(), chosen.id, chosen.clock.clone()));
    }
    if id == FORMAT_ID_MKV {
        let declared = matroska::tracks(file)?;
        let audio: Vec<&matroska::Track> = declared.iter().filter(|track| track.is_audio).collect();
        if !declared.is_empty() {
            let chosen = audio.iter().find(|track| track.is_default).or(audio.first()).ok_or_else(none)?;
            if chosen.is_packed || !known.contains(&chosen.number) {
                return Err(unsupported());
            }
            let numbers = audio.iter().filter(|track| !track.is_packed).map(|track| track.number).collect();
            return Ok((numbers, chosen.number, mp4::Clock::default()));
        }
    }
    match reader.default_track(TrackType::Audio) {
        Some(track) => Ok((known, track.id, mp4::Clock::default())),
        // A track of an unknown kind may be audio.
        None if reader.tracks().iter().any(|track| track.codec_params.is_none()) => Err(unsupported()),
        None => Err(none()),
    }
}

impl Opened {
    fn new(
        file: &File,
        part: &Part,
        reader: Box<dyn FormatReader>,
        lengths: Option<f64>,
        track: Option<u32>,
        whole: bool,
    ) -> Result<Self, DecodeFailure> {
        let format = format_name(&*reader, file)?;
        let id = reader.format_info().format;
        let counts_frames =
            (id == FORMAT_ID_MP3 || id == FORMAT_ID_MP2) && sniff::mp3_counts_frames(file, part.body.start)?;
        let traits = Traits {
            no_container: id == FORMAT_ID_MP3 || id == FORMAT_ID_MP2 || id == FORMAT_ID_ADTS,
            counts_frames,
            skips_damage: id == FORMAT_ID_FLAC || id == FORMAT_ID_OGG,
            is_ogg: id == FORMAT_ID_OGG,
            has_clock: id == FORMAT_ID_MKV || id == FORMAT_ID_ISOMP4,
            duration_spans_tracks: id == FORMAT_ID_MKV && reader.tracks().len() > 1,
        };
        let (audio_tracks, default, mut clock) = choose_track(file, part, &*reader, format, whole)?;
        let chosen = track.filter(|track| audio_tracks.contains(track)).unwrap_or(default);
        if chosen != default && id == FORMAT_ID_ISOMP4 {
            let other = mp4::tracks(file, part.body.clone(), whole)?.into_iter().find(|track| track.id == chosen);
            clock = other.map(|track| track.clock).unwrap_or_default();
            if clock.needs_ffmpeg {
                return Err(DecodeFailure::TryFfmpeg(Problem::Unsupported));
            }
        }
        let Some(track) = reader.tracks().iter().find(|track| track.id == chosen) else {
            return Err(DecodeFailure::TryFfmpeg(Problem::Unsupported));
        };
        let duration = match lengths {
            Some(declared) => Some(declared),
            None if traits.no_container && !counts_frames => None,
            None if id == FORMAT_ID_MKV => {
                let media = reader.media_info();
                seconds(media.time_base, media.duration.map(|duration| duration.get()))
            }
            None => clock.end().or(seconds(track.time_base, track.duration.map(|duration| duration.get()))),
        };
        let decoder = decoder(track, traits)?;
        let duration = duration.filter(|duration| *duration > 0.0);
        Ok(Self { decoder, track: chosen, audio_tracks, traits, clock, duration, format, reader })
    }
}

impl Native {
    fn open(
        file: File,
        kind: Kind,
        limits: &Limits,
        selection: Selection,
        track: Option<u32>,
        mix: Mix,
        whole: bool,
    ) -> Result<Self, DecodeFailure> {
        let name = if let Kind::Native(name) = kind { Some(name) } else { None };
        let damaged =
            || AudioError::Unreadable { recognised: name.map(str::to_owned), problem: Problem::Damaged, ffmpeg: false };
        if name.is_some() && sniff::has_too_many_chunks(&file)? {
            return Err(damaged().into());
        }
        let size = file.metadata()?.len();
        let mut later_parts = VecDeque::from(parts::from_starts(&parts::files(&file)?, size));
        let mut part = later_parts.pop_front().unwrap_or_else(|| Part::of(0..size));
        let parts_are_files = !later_parts.is_empty();
        let lengths = sniff::lengths(&file)?;
        let (edits, breaks_off) = match (&lengths, mp4::end(&file)?) {
            (Some(lengths), _) => {
                let end = lengths.edits.end.min(part.body.end);
                (Some(Edits { end, ..lengths.edits.clone() }), false)
            }
            (None, End::Whole) => (None, false),
            // It is the last of several files that was cut.
            (None, End::Cut { edits, of_sound }) => (Some(edits).filter(|_| !parts_are_files), of_sound),
            (None, End::IndexLost) => return Err(AudioError::Truncated.into()),
        };
        let mut reader = match read_part(&file, &part, edits.as_ref()) {
            Err(_) if sniff::mp4_without_index(&file)? => return Err(AudioError::Truncated.into()),
            opened => opened?,
        };
        let id = reader.format_info().format;
        let mut junk_share = 0.0;
        let framing = match id {
            FORMAT_ID_MP3 | FORMAT_ID_MP2 => Some(Framing::Mpeg),
            FORMAT_ID_ADTS => Some(Framing::Adts),
            _ => None,
        };
        let mut found_parts = Vec::new();
        if let Some(framing) = framing {
            let frames = parts::frames(&file, framing, if whole { u64::MAX } else { PROBED_BYTES })?;
            if !frames.is_sound {
                return Err(DecodeFailure::TryFfmpeg(Problem::Damaged));
            }
            junk_share = frames.junk as f64 / (frames.junk + frames.frames).max(1) as f64;
            found_parts = parts::from_starts(&frames.starts, size);
        } else if whole && id == FORMAT_ID_FLAC {
            found_parts = parts::flac(&file)?;
        } else if whole && id == FORMAT_ID_MKV {
            found_parts = parts::matroska(&file)?;
        }
        if found_parts.len() > 1 {
            later_parts = VecDeque::from(found_parts);
            if let Some(first) = later_parts.pop_front() {
                reader = read_part(&file, &first, None)?;
                part = first;
            }
        }
        let opened = Opened::new(&file, &part, reader, lengths.as_ref().map(|lengths| lengths.declared), track, whole)?;
        let found = lengths.map(|lengths| lengths.found);
        let mut native = Self {
            info: AudioInfo {
                format: opened.format.to_owned(),
                codec: opened.decoder.codec_info().short_name.to_owned(),
                sample_rate: 0,
                channels: 0,
                tracks: u16::try_from(opened.audio_tracks.len()).unwrap_or(u16::MAX),
                // What a WAV, AIFF or Core Audio file holds is known at once. Of several parts, only the first is open.
                duration: if later_parts.is_empty() { found.or(opened.duration) } else { None },
            },
            name,
            reader: opened.reader,
            decoder: opened.decoder,
            track: opened.track,
            audio_tracks: opened.audio_tracks,
            traits: opened.traits,
            raw_file: file,
            later_parts,
            parts_are_files,
            declared: opened.duration,
            items: VecDeque::new(),
            timeline: Timeline::new(),
            interleaved: Vec::new(),
            selection: selection.channels,
            crosstalk: None,
            mix,
            meter: None,
            is_measured: whole,
            clock: opened.clock,
            limit: limits.max_duration,
            reached: 0.0,
            good: Tally::default(),
            bad: Tally::default(),
            junk_share,
            spec: None,
            spec_changes: 0,
            failures: 0,
            at_end: false,
            held_padding: Vec::new(),
            keep_padding: false,
            breaks_off,
            remarks: Vec::new(),
        };
        native.begin()?;
        Ok(native)
    }

    /// Decodes the first packets, to find out whether these decoders can read the file.
    fn begin(&mut self) -> Result<(), DecodeFailure> {
        let wanted = if self.traits.no_container { FIRST_PACKETS } else { 1 };
        let first_parts = self.later_parts.len();
        while self.good.packets < wanted as u64
            && self.good.packets + self.bad.packets < u64::from(FIRST_TRIES)
            && !self.at_end
        {
            self.step().map_err(DecodeFailure::Final)?;
            // A first part that can't be decoded is left out.
            if self.good.packets > 0 && self.later_parts.len() < first_parts {
                break;
            }
        }
        let Some((rate, channels)) = self.spec else {
            if self.bad.packets == 0 && self.failures == 0 {
                return Err(DecodeFailure::Final(AudioError::NoSamples { format: self.info.format.clone() }));
            }
            return Err(DecodeFailure::TryFfmpeg(Problem::Damaged));
        };
        let noise = self.bad.packets > self.good.packets || self.spec_changes > self.good.packets / 4;
        if self.traits.no_container && noise && self.later_parts.len() == first_parts {
            return Err(DecodeFailure::TryFfmpeg(Problem::Damaged));
        }
        (self.info.sample_rate, self.info.channels) = (rate, channels);
        Ok(())
    }

    /// Measures the level of the track, in as much of it as is needed. Returns none if `alive`, which is called now and
    /// then, breaks.
    fn measure(mut self, alive: &mut dyn FnMut() -> io::Result<ControlFlow<()>>) -> Result<Option<Level>, AudioError> {
        let (mut next_alive, mut next_check) = (ALIVE_SECS, 0);
        let find_speakers = self.selection == ChannelSelection::FindSpeakers;
        while !self.at_end && self.timeline.emitted() <= self.limit {
            if let Some(meter) = self.meter.as_ref().filter(|meter| meter.blocks() >= next_check) {
                if meter.is_enough(find_speakers) {
                    break;
                }
                next_check = meter.blocks() + CHECKED_BLOCKS;
            }
            if self.timeline.emitted() >= next_alive {
                next_alive = self.timeline.emitted() + ALIVE_SECS;
                if alive()?.is_break() {
                    return Ok(None);
                }
            }
            self.step()?;
            self.items.clear();
        }
        let none = || Meter::new(&self.info.codec, self.info.sample_rate, self.info.channels);
        Ok(Some(self.meter.unwrap_or_else(none).decide(find_speakers)))
    }

    fn run(&mut self, output: &mut Output<'_>) -> Result<(), AudioError> {
        self.is_measured = false;
        loop {
            while let Some(item) = self.items.pop_front() {
                let flow = match item {
                    Item::Block(block) if block.samples.is_empty() => continue,
                    Item::Block(block) => output.push(&block)?,
                    Item::Silence(seconds) => output.silence(seconds)?,
                };
                if flow.is_break() {
                    return Ok(());
                }
            }
            if self.at_end {
                return Ok(());
            }
            self.step()?;
        }
    }

    /// Reads and decodes the next packet.
    fn step(&mut self) -> Result<(), AudioError> {
        let packet = match catch_panic(|| self.reader.next_packet()) {
            Ok(Some(packet)) => packet,
            Ok(None) => return self.next_part(),
            // Chained Ogg: another stream begins.
            Err(Error::ResetRequired) => return self.next_stream(),
            Err(Error::IoError(error)) if error.raw_os_error().is_some() => {
                return Err(error.into());
            }
            Err(Error::IoError(_) | Error::LimitError(PANICKED)) => return self.next_part(),
            Err(_) => {
                self.failures += 1;
                return if self.failures > MAX_FAILURES { self.next_part() } else { Ok(()) };
            }
        };
        let time_base = self.time_base(packet.track_id);
        let dur = seconds_signed(time_base, i64::try_from(packet.dur.get()).unwrap_or(0)).unwrap_or(0.0);
        let pts = seconds_signed(time_base, packet.pts.get());
        if packet.track_id != self.track {
            if self.traits.duration_spans_tracks {
                self.reach(pts, dur);
            }
            return Ok(());
        }
        let decoded = catch_panic(|| decode_packet(&mut *self.decoder, &packet, &mut self.interleaved));
        match decoded {
            Ok((rate, channels)) if RATES.contains(&rate) => {
                // A damaged file may yield empty packets for ever.
                self.failures = if self.interleaved.is_empty() { self.failures + 1 } else { 0 };
                if self.failures > MAX_FAILURES {
                    return self.next_part();
                }
                let spec = (rate, channels);
                self.spec_changes += u64::from(self.spec.is_some_and(|before| before != spec));
                self.spec = Some(spec);
                let mut block = Block { rate, samples: Vec::new() };
                let (mut channels, mut heard) = (usize::from(channels), channels);
                if let ChannelSelection::Only(channel) = self.selection {
                    let crosstalk = self.crosstalk.take().filter(|(before, _)| *before == rate);
                    let mut crosstalk = crosstalk.unwrap_or_else(|| (rate, Crosstalk::new(channel, rate)));
                    self.interleaved = crosstalk.1.remove(&self.interleaved, channels);
                    self.crosstalk = Some(crosstalk);
                    (channels, heard) = (1, 1);
                }
                self.mix.apply(&self.interleaved, channels, &mut block.samples);
                self.good.packets += 1;
                self.good.seconds += block.seconds();
                if self.is_measured {
                    let meter = self.meter.get_or_insert_with(|| Meter::new(&self.info.codec, rate, heard));
                    meter.add(&self.interleaved, channels);
                }
                if self.traits.counts_frames {
                    self.trim(&packet, &mut block);
                }
                self.place(block, pts, dur);
                Ok(())
            }
            result => {
                self.bad.packets += 1;
                self.failures += 1;
                if self.failures > MAX_FAILURES || matches!(result, Err(Error::LimitError(PANICKED))) {
                    return self.next_part();
                }
                let lost = dur.clamp(0.0, MAX_BAD_PACKET);
                self.bad.seconds += lost;
                // Before the first samples there is nothing to keep in time.
                if self.spec.is_some() && lost > 0.0 {
                    self.items.push_back(self.timeline.add(Item::Silence(lost), lost));
                }
                Ok(())
            }
        }
    }

    /// Takes note of where a packet ends.
    fn reach(&mut self, start: Option<f64>, dur: f64) {
        if let Some(position) = start.and_then(|start| self.timeline.position(start)) {
            self.reached = self.reached.max(position + dur);
        }
    }

    /// Puts samples where the container's clock has them.
    fn place(&mut self, mut block: Block, pts: Option<f64>, dur: f64) {
        let Some(pts) = pts.filter(|_| !self.traits.no_container) else {
            return self.emit(block);
        };
        let Some(placed) = self.clock.place(pts, dur.max(block.seconds())) else {
            // What an edit list leaves out.
            return;
        };
        block.cut(placed.skip, placed.keep);
        let at = placed.at;
        if self.timeline.is_new() {
            // A recording may begin later than its clock. Players show the time of the clock.
            let is_late = self.traits.has_clock && self.timeline.emitted() == 0.0 && at > 0.0;
            let begins = if is_late { self.begin_late(at) } else { at };
            self.timeline.begin(begins);
        }
        self.reach(Some(at), block.seconds());
        let length = block.seconds();
        self.items.extend(self.timeline.place(at, block, length));
    }

    /// Decides whether the time before the first sound is silence, or whether the clock is too far on for that. Returns when
    /// the recording begins by the clock.
    fn begin_late(&mut self, at: f64) -> f64 {
        let ends = self.declared.unwrap_or(at).max(at + 1.0);
        if ends <= self.limit {
            return 0.0;
        }
        self.declared = self.declared.map(|declared| declared - at).filter(|declared| *declared > 0.0);
        self.info.duration = self.info.duration.and(self.declared);
        self.remarks.push(remarks::late_clock(at));
        at
    }

    fn emit(&mut self, block: Block) {
        let length = block.seconds();
        self.items.push_back(self.timeline.add(Item::Block(block), length));
    }

    fn time_base(&self, track: u32) -> Option<TimeBase> {
        self.reader.tracks().iter().find(|known| known.id == track)?.time_base
    }

    /// Continues with the next part of the file, if there is one.
    fn next_part(&mut self) -> Result<(), AudioError> {
        self.items.extend(self.timeline.end());
        self.held_padding.clear();
        self.keep_padding = false;
        let number = self.audio_tracks.iter().position(|track| *track == self.track);
        while let Some(part) = self.later_parts.pop_front() {
            let opened = read_part(&self.raw_file, &part, None).and_then(|reader| {
                let tracks = reader.tracks().iter();
                let mut audio = tracks.filter(|track| matches!(track.codec_params, Some(CodecParameters::Audio(_))));
                let track = number.and_then(|number| audio.nth(number)).map(|track| track.id);
                Opened::new(&self.raw_file, &part, reader, None, track, true)
            });
            let opened = match opened {
                Ok(opened) => opened,
                Err(DecodeFailure::Final(AudioError::Io(error))) => return Err(error.into()),
                // A part that can't be read is left out.
                Err(_) => {
                    if self.parts_are_files {
                        remarks::left_out(self.timeline.emitted()).add_to(&mut self.remarks);
                    }
                    continue;
                }
            };
            self.declared = self.declared.zip(opened.duration).map(|(before, more)| before + more);
            (self.reader, self.decoder, self.track) = (opened.reader, opened.decoder, opened.track);
            (self.audio_tracks, self.clock, self.traits) = (opened.audio_tracks, opened.clock, opened.traits);
            self.failures = 0;
            return Ok(());
        }
        self.at_end = true;
        Ok(())
    }

    fn next_stream(&mut self) -> Result<(), AudioError> {
        self.items.extend(self.timeline.end());
        let next = self.reader.default_track(TrackType::Audio);
        match next.map(|track| (track.id, decoder(track, self.traits))) {
            Some((track, Ok(decoder))) => {
                (self.track, self.decoder) = (track, decoder);
                // The declared length was that of the first stream.
                (self.info.duration, self.declared) = (None, None);
                Ok(())
            }
            _ => self.next_part(),
        }
    }

    /// Removes an MP3's encoder delay and padding. Samples beyond the counted frames are held back, and dropped if the
    /// file ends there. If it continues, the count is old or two recordings were joined, and all samples are kept.
    fn trim(&mut self, packet: &Packet, block: &mut Block) {
        let frames = block.samples.len();
        let ticks = |ticks: u64| usize::try_from(ticks).unwrap_or(usize::MAX);
        let start = ticks(packet.trim_start.get()).min(frames);
        let end = ticks(packet.trim_end.get()).min(frames - start);
        if end > 0 && !self.keep_padding {
            self.held_padding.extend(block.samples.drain(frames - end..));
            if self.held_padding.len() > MAX_PADDING {
                self.keep_padding = true;
                block.samples.append(&mut self.held_padding);
                self.info.duration = None;
            }
        }
        block.samples.drain(..start.min(block.samples.len()));
    }

    /// Compares what was decoded with what the file declares, and takes note of what is missing.
    fn check_result(&mut self, found: f64) -> Result<(), AudioError> {
        if found == 0.0 {
            let empty = self.bad.packets == 0 && self.failures == 0;
            return Err(if empty {
                AudioError::NoSamples { format: self.info.format.clone() }
            } else {
                AudioError::Unreadable {
                    recognised: self.name.map(str::to_owned),
                    problem: Problem::Damaged,
                    ffmpeg: false,
                }
            });
        }
        let reached = self.reached.max(found);
        let is_exact = !self.traits.duration_spans_tracks;
        let missing = self.declared.and_then(|declared| remarks::other_length(declared, is_exact, reached, found));
        let breaks_off =
            (self.breaks_off && self.declared.is_none()) || (self.traits.is_ogg && sniff::ogg_is_cut(&self.raw_file)?);
        if missing.is_none() && breaks_off {
            self.remarks.push(remarks::breaks_off(found));
        }
        self.remarks.extend(missing);
        let lost = if self.traits.skips_damage {
            (reached - self.good.seconds).max(self.bad.seconds)
        } else if self.traits.no_container {
            self.bad.seconds + found * self.junk_share / (1.0 - self.junk_share).max(0.01)
        } else {
            self.bad.seconds
        };
        self.remarks.extend(remarks::damaged(lost));
        Ok(())
    }
}
