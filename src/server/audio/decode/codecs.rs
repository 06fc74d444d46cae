//! What is asked of Symphonia, and how much of its answers is believed: which containers and codecs, panics as errors, and
//! one packet as mono samples.

use super::{
    super::{Problem, sniff},
    DecodeFailure,
    output::Block,
};
use std::{
    fs::File,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::LazyLock,
};
use symphonia::core::{
    codecs::{
        CodecParameters,
        audio::{AudioDecoder, AudioDecoderOptions},
        registry::CodecRegistry,
    },
    errors::Error,
    formats::{
        FormatReader, Track, TrackType,
        probe::{Probe, ProbeOptions},
        well_known::{
            FORMAT_ID_ADTS, FORMAT_ID_AIFF, FORMAT_ID_CAF, FORMAT_ID_FLAC, FORMAT_ID_ISOMP4, FORMAT_ID_MKV,
            FORMAT_ID_MP2, FORMAT_ID_MP3, FORMAT_ID_OGG, FORMAT_ID_WAVE,
        },
    },
    packet::Packet,
    units::TimeBase,
};

/// How far into a file a container may begin. Symphonia's own 1 MiB finds something MP3-like in any noise.
pub(super) const JUNK: u32 = 64 * 1024;

/// What a panic of a parser is told as.
pub(super) const PANICKED: &str = "the decoder gave up";

pub(super) static CONTAINERS: LazyLock<Probe> = LazyLock::new(|| {
    let mut probe = Probe::new_with_options(&ProbeOptions { max_probe_depth: JUNK, ..ProbeOptions::default() });
    symphonia::default::register_enabled_formats(&mut probe);
    probe
});

static CODECS: LazyLock<CodecRegistry> = LazyLock::new(|| {
    let mut codecs = CodecRegistry::new();
    symphonia::default::register_enabled_codecs(&mut codecs);
    codecs.register_audio_decoder::<symphonia_adapter_libopus::OpusDecoder>();
    codecs
});

/// How far a format's word is to be trusted.
#[derive(Clone, Copy)]
pub(super) struct Traits {
    /// A stream of frames without a container (MP3, ADTS): timestamps only count frames, and noise can look like it.
    pub(super) bare: bool,
    /// Padding at the end is told by a count of frames that may be wrong, so it is cut here rather than by the decoder.
    pub(super) counted: bool,
    /// Damaged parts go missing before packets are made of them, so timestamps tell how much.
    pub(super) loses: bool,
    /// Ogg, where an unfinished last page is the sign of a cut.
    pub(super) pages: bool,
    /// The declared length is that of all tracks together.
    pub(super) shared: bool,
}

/// What a call into Symphonia came to. It is meant not to panic whatever the file holds; where it does, that file is
/// refused and nothing else suffers.
pub(super) fn guard<T>(call: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or(Err(Error::LimitError(PANICKED)))
}

pub(super) fn decoder(track: &Track, traits: Traits) -> Result<Box<dyn AudioDecoder>, DecodeFailure> {
    let Some(CodecParameters::Audio(params)) = &track.codec_params else {
        return Err(DecodeFailure::NotHere(Problem::Unsupported));
    };
    // Symphonia also trims MP3 by lengths that it only estimated, so MP3 is trimmed here.
    let options = AudioDecoderOptions::default().gapless(!traits.bare);
    guard(|| CODECS.make_audio_decoder(params, &options)).map_err(|_| DecodeFailure::NotHere(Problem::Unsupported))
}

/// Decodes one packet into a block, channels averaged. Returns how many there were.
pub(super) fn decode_mono(
    decoder: &mut dyn AudioDecoder,
    packet: &Packet,
    interleaved: &mut Vec<f32>,
    block: &mut Block,
) -> Result<u16, Error> {
    let buffer = decoder.decode(packet)?;
    block.rate = buffer.spec().rate();
    let channels = buffer.num_planes();
    if channels == 0 {
        return Err(Error::DecodeError("no channels"));
    }
    buffer.copy_to_vec_interleaved(interleaved);
    // Anything else in a float recording would spread over a whole block when it is resampled.
    let clean = |sample: f32| {
        if sample.is_finite() { sample.clamp(-1.0, 1.0) } else { 0.0 }
    };
    block.samples.clear();
    if channels == 1 {
        block.samples.extend(interleaved.iter().copied().map(clean));
    } else {
        let share = 1.0 / channels as f32;
        block.samples.extend(interleaved.chunks_exact(channels).map(|frame| clean(frame.iter().sum::<f32>() * share)));
    }
    Ok(u16::try_from(channels).unwrap_or(u16::MAX))
}

/// The container's common short name.
pub(super) fn format_name(reader: &dyn FormatReader, file: &File) -> io::Result<&'static str> {
    let info = reader.format_info();
    Ok(match info.format {
        FORMAT_ID_WAVE => "wav",
        FORMAT_ID_AIFF => "aiff",
        FORMAT_ID_CAF => "caf",
        FORMAT_ID_MP2 => "mp2",
        FORMAT_ID_MP3 => "mp3",
        FORMAT_ID_ADTS => "aac",
        FORMAT_ID_OGG => "ogg",
        FORMAT_ID_FLAC => "flac",
        FORMAT_ID_ISOMP4 if reader.first_track(TrackType::Video).is_some() => "mp4",
        FORMAT_ID_ISOMP4 => "m4a",
        FORMAT_ID_MKV if sniff::is_webm(file)? => "webm",
        FORMAT_ID_MKV => "mkv",
        _ => info.short_name,
    })
}

pub(super) fn seconds(time_base: Option<TimeBase>, ticks: Option<u64>) -> Option<f64> {
    seconds_signed(time_base, i64::try_from(ticks?).ok()?)
}

pub(super) fn seconds_signed(time_base: Option<TimeBase>, ticks: i64) -> Option<f64> {
    let time_base = time_base?;
    Some(ticks as f64 * f64::from(time_base.numer.get()) / f64::from(time_base.denom.get()))
}
