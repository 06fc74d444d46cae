//! The built-in decoders: from a file to samples at 16 kHz, by Symphonia. They tolerate damage as players do: bad
//! packets become silence, so that times stay right, and only a file that is mostly bad is refused. Run in a process of
//! its own (`child`), because strangers' files can crash parsers; also in the fuzz targets.

mod codecs;
mod output;

use codecs::{
    CONTAINERS, MAX_LEADING_BYTES, PANICKED, Traits, catch_panic, decode_mono, decoder, format_name, seconds,
    seconds_signed,
};
use output::{Block, Output};
use std::fs::File;
use std::io;
use std::ops::ControlFlow;

use symphonia::core::codecs::audio::AudioDecoder;
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::well_known::{
    FORMAT_ID_ADTS, FORMAT_ID_FLAC, FORMAT_ID_MKV, FORMAT_ID_MP2, FORMAT_ID_MP3, FORMAT_ID_OGG,
};
use symphonia::core::formats::{FormatOptions, FormatReader, TrackType};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::meta::MetadataOptions;
use symphonia::core::packet::Packet;
use symphonia::core::units::TimeBase;

use super::resample::RATES;
use super::sniff::{self, Kind, Source};
use super::{AudioError, AudioInfo, Limits, Problem, is_cut};

/// Consecutive failures after which a file counts as ended. Each failure advances the reader, but one that has lost its
/// position may report thousands.
const MAX_FAILURES: u32 = 1_024;

/// Packets that are tried until one can be decoded.
const FIRST_TRIES: u32 = 64;

/// Packets of a format without a container that must be consistent before the format is believed.
const FIRST_PACKETS: usize = 8;

/// Jumps of timestamps by less than this many seconds are rounding, not a gap.
const MIN_GAP: f64 = 0.5;

/// The longest gap that is filled with silence, in seconds. Longer jumps are damaged or restarted clocks.
const MAX_GAP: f64 = 30.0;

/// Frames beyond the count in an MP3's table that may be padding. If there are more, another recording was appended,
/// and they are kept.
const MAX_PADDING: usize = 4 * 1_152;

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
            Kind::Native(name) | Kind::ForFfmpeg(name) | Kind::NotMedia(name) => Some(name),
            Kind::Unknown => None,
        }
    }

    /// Reads the recording's format from its header and first packets. Reads little of the file.
    ///
    /// # Errors
    /// Every [`AudioError`] that shows this early: a declared length over the limit, a WAV file shorter than its header
    /// says, an MP4 file without its index.
    pub fn probe(self, limits: &Limits) -> Result<AudioInfo, DecodeFailure> {
        let info = self.open()?.info;
        check_duration(info.duration, limits)?;
        Ok(info)
    }

    /// Decodes the whole recording to 16 kHz mono, passes it to `sink` in pieces of half a second, and returns its
    /// format. Calls `opened` with the format before the first piece. Memory doesn't grow with the length. Stops when
    /// the sink breaks.
    ///
    /// # Errors
    /// Every [`AudioError`]. What the sink received before must be discarded. An error of the sink is returned as
    /// [`AudioError::Io`].
    pub fn decode(
        self,
        limits: &Limits,
        opened: &mut dyn FnMut(&AudioInfo) -> io::Result<()>,
        sink: &mut dyn FnMut(&[i16]) -> io::Result<ControlFlow<()>>,
    ) -> Result<AudioInfo, DecodeFailure> {
        let mut native = self.open()?;
        check_duration(native.info.duration, limits)?;
        opened(&native.info)?;
        let mut output = Output::new(limits, sink);
        native.run(&mut output)?;
        let (duration, stopped) = output.finish()?;
        if !stopped {
            native.check_result(duration)?;
        }
        Ok(native.info)
    }

    fn open(self) -> Result<Native, DecodeFailure> {
        if matches!(self.kind, Kind::ForFfmpeg(_)) {
            return Err(DecodeFailure::TryFfmpeg(Problem::Unsupported));
        }
        Native::open(self.file, self.kind).map_err(|failure| match failure {
            // Without known first bytes, "damaged" would be a guess.
            DecodeFailure::TryFfmpeg(_) if self.kind == Kind::Unknown => DecodeFailure::TryFfmpeg(Problem::Unsupported),
            other => other,
        })
    }
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
    traits: Traits,
    /// The file itself, for what Symphonia doesn't report.
    raw_file: File,
    size: u64,
    /// Packets decoded while opening.
    first: Vec<Block>,
    /// Interleaved samples of the last packet; a field to reuse its memory.
    interleaved: Vec<f32>,
    /// The timestamp in seconds that corresponds to `origin_emitted`.
    origin: Option<f64>,
    /// Seconds emitted so far, before resampling.
    emitted: f64,
    origin_emitted: f64,
    /// Where the last packet of any track ended, in seconds from the first.
    reached: f64,
    good: Tally,
    bad: Tally,
    bytes: u64,
    spec: Option<(u32, u16)>,
    spec_changes: u64,
    failures: u32,
    /// Whether nothing more can be read.
    at_end: bool,
    held_padding: Vec<f32>,
    keep_padding: bool,
}

#[derive(Clone, Copy, Default)]
struct Tally {
    packets: u64,
    seconds: f64,
}

enum Step {
    /// Samples are in the block.
    Samples,
    /// So many seconds of silence come next.
    Silence(f64),
    /// This packet has no samples.
    Nothing,
    End,
}

impl Native {
    fn open(file: File, kind: Kind) -> Result<Self, DecodeFailure> {
        if let Kind::Native(name) = kind
            && sniff::has_too_many_chunks(&file)?
        {
            let recognised = Some(name.to_owned());
            return Err(AudioError::Unreadable { recognised, problem: Problem::Damaged, ffmpeg: false }.into());
        }
        let wav = sniff::wav(&file)?;
        let lengths = match &wav {
            Some(wav) => Some((wav.declared, wav.found)),
            None => sniff::aiff(&file)?,
        };
        if let Some((declared, found)) = lengths
            && is_cut(declared, found)
        {
            return Err(DecodeFailure::Final(AudioError::Truncated { declared: Some(declared), found: Some(found) }));
        }
        let size = file.metadata()?.len();
        let raw_file = file.try_clone()?;
        let source = Source::new(file, wav.as_ref())?;
        let stream = MediaSourceStream::new(Box::new(source), Default::default());
        let (format, metadata) = (FormatOptions::default(), MetadataOptions::default());
        let opened = catch_panic(|| CONTAINERS.probe(&Hint::new(), stream, format, metadata));
        let reader = match opened {
            Ok(reader) => reader,
            Err(error) => {
                if sniff::mp4_without_index(&raw_file)? {
                    return Err(DecodeFailure::Final(AudioError::Truncated { declared: None, found: None }));
                }
                return Err(match error {
                    Error::IoError(error) if error.raw_os_error().is_some() => DecodeFailure::Final(error.into()),
                    Error::Unsupported(_) => DecodeFailure::TryFfmpeg(Problem::Unsupported),
                    _ => DecodeFailure::TryFfmpeg(Problem::Damaged),
                });
            }
        };
        let format = format_name(&*reader, &raw_file)?;
        let id = reader.format_info().format;
        let counts_frames = (id == FORMAT_ID_MP3 || id == FORMAT_ID_MP2) && sniff::mp3_counts_frames(&raw_file)?;
        let traits = Traits {
            no_container: id == FORMAT_ID_MP3 || id == FORMAT_ID_MP2 || id == FORMAT_ID_ADTS,
            counts_frames,
            skips_damage: id == FORMAT_ID_FLAC || id == FORMAT_ID_OGG,
            is_ogg: id == FORMAT_ID_OGG,
            duration_spans_tracks: id == FORMAT_ID_MKV && reader.tracks().len() > 1,
        };
        let Some(track) = reader.default_track(TrackType::Audio) else {
            // A track of an unknown kind may be audio.
            let unknown = reader.tracks().iter().any(|track| track.codec_params.is_none());
            return Err(if unknown {
                DecodeFailure::TryFfmpeg(Problem::Unsupported)
            } else {
                DecodeFailure::Final(AudioError::NoAudioTrack { format: format.to_owned() })
            });
        };
        let duration = match lengths {
            Some((declared, _)) => Some(declared),
            None if traits.no_container && !counts_frames => None,
            None if id == FORMAT_ID_MKV => {
                let media = reader.media_info();
                seconds(media.time_base, media.duration.map(|duration| duration.get()))
            }
            None => seconds(track.time_base, track.duration.map(|duration| duration.get())),
        };
        let decoder = decoder(track, traits)?;
        let codec = decoder.codec_info().short_name.to_owned();
        let track = track.id;
        let name = if let Kind::Native(name) = kind { Some(name) } else { None };
        let mut native = Self {
            info: AudioInfo {
                format: format.to_owned(),
                codec,
                sample_rate: 0,
                channels: 0,
                duration: duration.filter(|duration| *duration > 0.0),
            },
            name,
            reader,
            decoder,
            track,
            traits,
            raw_file,
            size,
            first: Vec::new(),
            interleaved: Vec::new(),
            origin: None,
            emitted: 0.0,
            origin_emitted: 0.0,
            reached: 0.0,
            good: Tally::default(),
            bad: Tally::default(),
            bytes: 0,
            spec: None,
            spec_changes: 0,
            failures: 0,
            at_end: false,
            held_padding: Vec::new(),
            keep_padding: false,
        };
        native.begin()?;
        Ok(native)
    }

    /// Decodes the first packets, to find out whether these decoders can read the file.
    fn begin(&mut self) -> Result<(), DecodeFailure> {
        let wanted = if self.traits.no_container { FIRST_PACKETS } else { 1 };
        while self.first.len() < wanted && self.good.packets + self.bad.packets < u64::from(FIRST_TRIES) {
            let mut block = Block { rate: 0, samples: Vec::new() };
            match self.step(&mut block).map_err(DecodeFailure::Final)? {
                Step::Samples => self.first.push(block),
                Step::Silence(_) | Step::Nothing => {}
                Step::End => break,
            }
        }
        let Some((rate, channels)) = self.spec else {
            if self.bad.packets == 0 && self.failures == 0 {
                return Err(DecodeFailure::Final(AudioError::NoSamples { format: self.info.format.clone() }));
            }
            return Err(DecodeFailure::TryFfmpeg(Problem::Damaged));
        };
        let noise = self.bad.packets > self.good.packets || self.spec_changes > self.good.packets / 4;
        if self.traits.no_container && noise {
            return Err(DecodeFailure::TryFfmpeg(Problem::Damaged));
        }
        (self.info.sample_rate, self.info.channels) = (rate, channels);
        Ok(())
    }

    fn run(&mut self, output: &mut Output<'_>) -> Result<(), AudioError> {
        for block in std::mem::take(&mut self.first) {
            if output.push(&block)?.is_break() {
                return Ok(());
            }
        }
        let mut block = Block { rate: 0, samples: Vec::new() };
        loop {
            let flow = match self.step(&mut block)? {
                Step::Samples => output.push(&block)?,
                Step::Silence(seconds) => output.silence(seconds)?,
                Step::Nothing => ControlFlow::Continue(()),
                Step::End => return Ok(()),
            };
            if flow.is_break() {
                return Ok(());
            }
        }
    }

    /// Reads and decodes the next packet.
    fn step(&mut self, block: &mut Block) -> Result<Step, AudioError> {
        block.samples.clear();
        if self.at_end {
            return Ok(Step::End);
        }
        let packet = match catch_panic(|| self.reader.next_packet()) {
            Ok(Some(packet)) => packet,
            Ok(None) => return Ok(self.end()),
            // Chained Ogg: another stream begins.
            Err(Error::ResetRequired) => return Ok(self.next_stream()),
            Err(Error::IoError(error)) if error.raw_os_error().is_some() => {
                return Err(error.into());
            }
            Err(Error::IoError(_) | Error::LimitError(PANICKED)) => return Ok(self.end()),
            Err(_) => {
                self.failures += 1;
                return Ok(if self.failures > MAX_FAILURES { self.end() } else { Step::Nothing });
            }
        };
        let ends = packet.pts.saturating_add(packet.dur).get();
        let time_base = self.time_base(packet.track_id);
        let pts = seconds_signed(time_base, packet.pts.get());
        if let (Some(ends), Some(origin)) = (seconds_signed(time_base, ends), self.origin)
            && (packet.track_id == self.track || self.traits.duration_spans_tracks)
        {
            self.reached = self.reached.max(ends - origin + self.origin_emitted);
        }
        if packet.track_id != self.track {
            return Ok(Step::Nothing);
        }
        self.bytes += packet.data.len() as u64;
        match catch_panic(|| decode_mono(&mut *self.decoder, &packet, &mut self.interleaved, block)) {
            Ok(channels) if RATES.contains(&block.rate) => {
                // A damaged file may yield empty packets for ever.
                self.failures = if block.samples.is_empty() { self.failures + 1 } else { 0 };
                if self.failures > MAX_FAILURES {
                    return Ok(self.end());
                }
                let spec = (block.rate, channels);
                self.spec_changes += u64::from(self.spec.is_some_and(|before| before != spec));
                self.spec = Some(spec);
                self.good.packets += 1;
                self.good.seconds += block.samples.len() as f64 / f64::from(block.rate);
                if self.traits.counts_frames {
                    self.trim(&packet, block);
                }
            }
            result => {
                self.bad.packets += 1;
                self.failures += 1;
                if self.failures > MAX_FAILURES || matches!(result, Err(Error::LimitError(PANICKED))) {
                    return Ok(self.end());
                }
                let packet_secs =
                    seconds_signed(time_base, i64::try_from(packet.dur.get()).unwrap_or(0)).unwrap_or(0.0);
                let packet_secs = packet_secs.clamp(0.0, MIN_GAP);
                self.bad.seconds += packet_secs;
                // Before the first samples there is nothing to keep in time.
                if self.spec.is_none() {
                    return Ok(Step::Nothing);
                }
                self.emitted += packet_secs;
                return Ok(Step::Silence(packet_secs));
            }
        }
        let packet_secs = block.samples.len() as f64 / f64::from(block.rate);
        let Some(pts) = pts.filter(|_| !self.traits.no_container) else {
            self.emitted += packet_secs;
            return Ok(Step::Samples);
        };
        if self.origin.is_none() {
            (self.origin, self.origin_emitted) = (Some(pts), self.emitted);
        }
        let gap = pts - self.origin.unwrap_or(pts) + self.origin_emitted - self.emitted;
        if (MIN_GAP..=MAX_GAP).contains(&gap) {
            // The gap is filled with silence before this packet's samples.
            let frames = (gap * f64::from(block.rate)) as usize;
            block.samples.splice(0..0, std::iter::repeat_n(0.0, frames));
            self.emitted += gap;
        } else if gap.abs() > MIN_GAP {
            (self.origin, self.origin_emitted) = (Some(pts), self.emitted);
        }
        self.emitted += packet_secs;
        Ok(Step::Samples)
    }

    fn end(&mut self) -> Step {
        self.at_end = true;
        Step::End
    }

    fn time_base(&self, track: u32) -> Option<TimeBase> {
        self.reader.tracks().iter().find(|known| known.id == track)?.time_base
    }

    fn next_stream(&mut self) -> Step {
        let next = self.reader.default_track(TrackType::Audio);
        match next.map(|track| (track.id, decoder(track, self.traits))) {
            Some((track, Ok(decoder))) => {
                (self.track, self.decoder, self.origin) = (track, decoder, None);
                // The declared length was that of the first stream.
                self.info.duration = None;
                Step::Nothing
            }
            _ => self.end(),
        }
    }

    /// Removes an MP3's encoder delay and padding. Samples beyond the counted frames are held back, and dropped if the
    /// file ends there. If it continues, two recordings were joined, and all samples are kept.
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

    /// Checks that the decoded length is what the file declares, and that most of it could be decoded.
    fn check_result(&mut self, found: f64) -> Result<(), AudioError> {
        let damaged = || AudioError::Unreadable {
            recognised: self.name.map(str::to_owned),
            problem: Problem::Damaged,
            ffmpeg: false,
        };
        if found == 0.0 {
            let empty = self.bad.packets == 0 && self.failures == 0;
            return Err(if empty { AudioError::NoSamples { format: self.info.format.clone() } } else { damaged() });
        }
        let mostly_bad = self.bad.packets > self.good.packets
            || (self.traits.no_container && self.spec_changes > self.good.packets / 2)
            || (self.traits.no_container
                && self.bytes < self.size / 2
                && self.bytes + u64::from(MAX_LEADING_BYTES) < self.size)
            || (self.traits.skips_damage && self.good.seconds < self.reached / 2.0);
        if mostly_bad {
            return Err(damaged());
        }
        let reached = self.reached.max(found);
        match self.info.duration {
            Some(declared) if is_cut(declared, reached) => {
                Err(AudioError::Truncated { declared: Some(declared), found: Some(found) })
            }
            _ if self.traits.is_ogg && sniff::ogg_is_cut(&self.raw_file)? => {
                Err(AudioError::Truncated { declared: None, found: Some(found) })
            }
            _ => Ok(()),
        }
    }
}
