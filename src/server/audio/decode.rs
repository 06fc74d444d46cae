//! The built-in decoders: from a file to samples at 16 kHz, by Symphonia. Damage is survived as players do: bad packets
//! become silence, so that times stay right, and only a file that is mostly bad is refused. Runs in a process of its own
//! (`child`), because files of strangers take parsers down; and in the fuzz targets.

mod codecs;
mod output;

use codecs::{CONTAINERS, JUNK, PANICKED, Traits, decode_mono, decoder, format_name, guard, seconds, seconds_signed};
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

/// Failures in a row after which a file counts as ended: each takes a step forward, but a container that lost its
/// place may offer thousands.
const MOST_FAILURES: u32 = 1_024;

/// Packets tried before the first that decodes.
const FIRST_TRIES: u32 = 64;

/// Packets of a format without a header of its own that must fit together before it is believed.
const FIRST_PACKETS: usize = 8;

/// Timestamps that jump by less than this many seconds are rounding, not a gap.
const GAP: f64 = 0.5;

/// The longest gap that is filled with silence, in seconds. Longer jumps are damaged or rebased clocks.
const LONGEST_GAP: f64 = 30.0;

/// Frames beyond what an MP3's table counts that may be padding. More than that was appended, and is kept.
const MOST_PADDING: usize = 4 * 1_152;

/// A file that may be a recording, known by its first bytes.
pub struct Recording {
    file: File,
    kind: Kind,
}

/// Why the built-in decoders won't.
#[derive(Debug)]
pub enum DecodeFailure {
    /// ffmpeg may know better.
    NotHere(Problem),
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
    /// Looks at the first bytes only.
    ///
    /// # Errors
    /// If it is empty, can't be read, or is known to be something else.
    pub fn recognise(file: File) -> Result<Self, AudioError> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("not a regular file").into());
        }
        if metadata.len() == 0 {
            return Err(AudioError::EmptyFile);
        }
        let kind = sniff::kind(&file)?;
        if let Kind::Other(what) = kind {
            return Err(AudioError::Unreadable {
                recognised: Some(what.to_owned()),
                problem: Problem::NotAudio,
                ffmpeg: false,
            });
        }
        Ok(Self { file, kind })
    }

    /// What it looks like, with an article; none without a known mark.
    #[must_use]
    pub fn looks_like(&self) -> Option<&'static str> {
        match self.kind {
            Kind::Native(name) | Kind::Foreign(name) | Kind::Other(name) => Some(name),
            Kind::Unknown => None,
        }
    }

    /// Tells what the recording is from its header and its first packets. Reads little.
    ///
    /// # Errors
    /// Every [`AudioError`] that can be told this early: a declared length over the limit, a WAV file shorter than its
    /// header says, an MP4 file without its index.
    pub fn probe(self, limits: &Limits) -> Result<AudioInfo, DecodeFailure> {
        let info = self.open()?.info;
        within(info.duration, limits)?;
        Ok(info)
    }

    /// Decodes the whole recording to 16 kHz mono, given to `sink` in pieces of half a second, and returns what the
    /// recording is. `opened` is told that before the first of them. Memory does not grow with the length. Stops when
    /// the sink says so.
    ///
    /// # Errors
    /// Every [`AudioError`]. What the sink was given until then is to be thrown away. An error of the sink comes back as
    /// [`AudioError::Io`].
    pub fn decode(
        self,
        limits: &Limits,
        opened: &mut dyn FnMut(&AudioInfo) -> io::Result<()>,
        sink: &mut dyn FnMut(&[i16]) -> io::Result<ControlFlow<()>>,
    ) -> Result<AudioInfo, DecodeFailure> {
        let mut native = self.open()?;
        within(native.info.duration, limits)?;
        opened(&native.info)?;
        let mut output = Output::new(limits, sink);
        native.run(&mut output)?;
        let (duration, stopped) = output.finish()?;
        if !stopped {
            native.judge(duration)?;
        }
        Ok(native.info)
    }

    fn open(self) -> Result<Native, DecodeFailure> {
        if matches!(self.kind, Kind::Foreign(_)) {
            return Err(DecodeFailure::NotHere(Problem::Unsupported));
        }
        Native::open(self.file, self.kind).map_err(|failure| match failure {
            // Without a mark, "damaged" would be a guess.
            DecodeFailure::NotHere(_) if self.kind == Kind::Unknown => DecodeFailure::NotHere(Problem::Unsupported),
            other => other,
        })
    }
}

fn within(declared: Option<f64>, limits: &Limits) -> Result<(), AudioError> {
    match declared {
        Some(duration) if duration > limits.max_duration => {
            Err(AudioError::TooLong { duration, at_least: false, limit: limits.max_duration })
        }
        _ => Ok(()),
    }
}

/// A recording that the built-in decoders read.
struct Native {
    info: AudioInfo,
    name: Option<&'static str>,
    reader: Box<dyn FormatReader>,
    decoder: Box<dyn AudioDecoder>,
    track: u32,
    traits: Traits,
    /// The file beside the reader, for what Symphonia doesn't tell.
    side: File,
    size: u64,
    /// Packets decoded while opening.
    first: Vec<Block>,
    /// Interleaved samples of the last packet; kept for its memory.
    interleaved: Vec<f32>,
    /// Timestamp in seconds that stands for `origin_emitted`.
    origin: Option<f64>,
    /// Seconds emitted, before resampling.
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
    /// Nothing more can be read.
    over: bool,
    held: Vec<f32>,
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
    /// Seconds of silence before what comes next.
    Silence(f64),
    /// Nothing from this packet.
    Nothing,
    End,
}

impl Native {
    fn open(file: File, kind: Kind) -> Result<Self, DecodeFailure> {
        if let Kind::Native(name) = kind
            && sniff::is_crumbs(&file)?
        {
            let recognised = Some(name.to_owned());
            return Err(AudioError::Unreadable { recognised, problem: Problem::Damaged, ffmpeg: false }.into());
        }
        let wav = sniff::wav(&file)?;
        let told = match &wav {
            Some(wav) => Some((wav.declared, wav.found)),
            None => sniff::aiff(&file)?,
        };
        if let Some((declared, found)) = told
            && is_cut(declared, found)
        {
            return Err(DecodeFailure::Final(AudioError::Truncated { declared: Some(declared), found: Some(found) }));
        }
        let size = file.metadata()?.len();
        let side = file.try_clone()?;
        let source = Source::new(file, wav.as_ref())?;
        let stream = MediaSourceStream::new(Box::new(source), Default::default());
        let (format, metadata) = (FormatOptions::default(), MetadataOptions::default());
        let opened = guard(|| CONTAINERS.probe(&Hint::new(), stream, format, metadata));
        let reader = match opened {
            Ok(reader) => reader,
            Err(error) => {
                if sniff::mp4_without_index(&side)? {
                    return Err(DecodeFailure::Final(AudioError::Truncated { declared: None, found: None }));
                }
                return Err(match error {
                    Error::IoError(error) if error.raw_os_error().is_some() => DecodeFailure::Final(error.into()),
                    Error::Unsupported(_) => DecodeFailure::NotHere(Problem::Unsupported),
                    _ => DecodeFailure::NotHere(Problem::Damaged),
                });
            }
        };
        let format = format_name(&*reader, &side)?;
        let id = reader.format_info().format;
        let counted = (id == FORMAT_ID_MP3 || id == FORMAT_ID_MP2) && sniff::mp3_counts_frames(&side)?;
        let traits = Traits {
            bare: id == FORMAT_ID_MP3 || id == FORMAT_ID_MP2 || id == FORMAT_ID_ADTS,
            counted,
            loses: id == FORMAT_ID_FLAC || id == FORMAT_ID_OGG,
            pages: id == FORMAT_ID_OGG,
            shared: id == FORMAT_ID_MKV && reader.tracks().len() > 1,
        };
        let Some(track) = reader.default_track(TrackType::Audio) else {
            // A track of an unknown kind may be sound.
            let unknown = reader.tracks().iter().any(|track| track.codec_params.is_none());
            return Err(if unknown {
                DecodeFailure::NotHere(Problem::Unsupported)
            } else {
                DecodeFailure::Final(AudioError::NoAudioTrack { format: format.to_owned() })
            });
        };
        let duration = match told {
            Some((declared, _)) => Some(declared),
            None if traits.bare && !counted => None,
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
            side,
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
            over: false,
            held: Vec::new(),
            keep_padding: false,
        };
        native.begin()?;
        Ok(native)
    }

    /// Decodes the first packets, which is what tells whether this file is for these decoders.
    fn begin(&mut self) -> Result<(), DecodeFailure> {
        let wanted = if self.traits.bare { FIRST_PACKETS } else { 1 };
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
            return Err(DecodeFailure::NotHere(Problem::Damaged));
        };
        let noise = self.bad.packets > self.good.packets || self.spec_changes > self.good.packets / 4;
        if self.traits.bare && noise {
            return Err(DecodeFailure::NotHere(Problem::Damaged));
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

    /// One packet further.
    fn step(&mut self, block: &mut Block) -> Result<Step, AudioError> {
        block.samples.clear();
        if self.over {
            return Ok(Step::End);
        }
        let packet = match guard(|| self.reader.next_packet()) {
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
                return Ok(if self.failures > MOST_FAILURES { self.end() } else { Step::Nothing });
            }
        };
        let ends = packet.pts.saturating_add(packet.dur).get();
        let time_base = self.time_base(packet.track_id);
        let pts = seconds_signed(time_base, packet.pts.get());
        if let (Some(ends), Some(origin)) = (seconds_signed(time_base, ends), self.origin)
            && (packet.track_id == self.track || self.traits.shared)
        {
            self.reached = self.reached.max(ends - origin + self.origin_emitted);
        }
        if packet.track_id != self.track {
            return Ok(Step::Nothing);
        }
        self.bytes += packet.data.len() as u64;
        match guard(|| decode_mono(&mut *self.decoder, &packet, &mut self.interleaved, block)) {
            Ok(channels) if RATES.contains(&block.rate) => {
                // Empty packets may repeat for ever.
                self.failures = if block.samples.is_empty() { self.failures + 1 } else { 0 };
                if self.failures > MOST_FAILURES {
                    return Ok(self.end());
                }
                let spec = (block.rate, channels);
                self.spec_changes += u64::from(self.spec.is_some_and(|before| before != spec));
                self.spec = Some(spec);
                self.good.packets += 1;
                self.good.seconds += block.samples.len() as f64 / f64::from(block.rate);
                if self.traits.counted {
                    self.trim(&packet, block);
                }
            }
            result => {
                self.bad.packets += 1;
                self.failures += 1;
                if self.failures > MOST_FAILURES || matches!(result, Err(Error::LimitError(PANICKED))) {
                    return Ok(self.end());
                }
                let lasts = seconds_signed(time_base, i64::try_from(packet.dur.get()).unwrap_or(0)).unwrap_or(0.0);
                let lasts = lasts.clamp(0.0, GAP);
                self.bad.seconds += lasts;
                // Before the first sound there is nothing to keep in step with.
                if self.spec.is_none() {
                    return Ok(Step::Nothing);
                }
                self.emitted += lasts;
                return Ok(Step::Silence(lasts));
            }
        }
        let lasts = block.samples.len() as f64 / f64::from(block.rate);
        let Some(pts) = pts.filter(|_| !self.traits.bare) else {
            self.emitted += lasts;
            return Ok(Step::Samples);
        };
        if self.origin.is_none() {
            (self.origin, self.origin_emitted) = (Some(pts), self.emitted);
        }
        let gap = pts - self.origin.unwrap_or(pts) + self.origin_emitted - self.emitted;
        if (GAP..=LONGEST_GAP).contains(&gap) {
            // The silence goes first, by being put before this packet's samples.
            let frames = (gap * f64::from(block.rate)) as usize;
            block.samples.splice(0..0, std::iter::repeat_n(0.0, frames));
            self.emitted += gap;
        } else if gap.abs() > GAP {
            (self.origin, self.origin_emitted) = (Some(pts), self.emitted);
        }
        self.emitted += lasts;
        Ok(Step::Samples)
    }

    fn end(&mut self) -> Step {
        self.over = true;
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
                // The declared length was the first stream's.
                self.info.duration = None;
                Step::Nothing
            }
            _ => self.end(),
        }
    }

    /// Takes off an MP3's encoder delay and padding. What lies beyond the counted frames is held back, and dropped if
    /// the file ends there; if it goes on, two recordings were joined, and all of it counts.
    fn trim(&mut self, packet: &Packet, block: &mut Block) {
        let frames = block.samples.len();
        let ticks = |ticks: u64| usize::try_from(ticks).unwrap_or(usize::MAX);
        let start = ticks(packet.trim_start.get()).min(frames);
        let end = ticks(packet.trim_end.get()).min(frames - start);
        if end > 0 && !self.keep_padding {
            self.held.extend(block.samples.drain(frames - end..));
            if self.held.len() > MOST_PADDING {
                self.keep_padding = true;
                block.samples.append(&mut self.held);
                self.info.duration = None;
            }
        }
        block.samples.drain(..start.min(block.samples.len()));
    }

    /// Whether what was decoded is what the file promised.
    fn judge(&mut self, found: f64) -> Result<(), AudioError> {
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
            || (self.traits.bare && self.spec_changes > self.good.packets / 2)
            || (self.traits.bare && self.bytes < self.size / 2 && self.bytes + u64::from(JUNK) < self.size)
            || (self.traits.loses && self.good.seconds < self.reached / 2.0);
        if mostly_bad {
            return Err(damaged());
        }
        let reached = self.reached.max(found);
        match self.info.duration {
            Some(declared) if is_cut(declared, reached) => {
                Err(AudioError::Truncated { declared: Some(declared), found: Some(found) })
            }
            _ if self.traits.pages && sniff::ogg_is_cut(&self.side)? => {
                Err(AudioError::Truncated { declared: None, found: Some(found) })
            }
            _ => Ok(()),
        }
    }
}
