//! The calls into Symphonia, and how far its results are trusted: which containers and codecs it may use, panics as
//! errors, and one packet as mono samples.

use super::{
    super::{Problem, sniff},
    DecodeFailure,
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

/// Bytes of a file in which a container must begin. Symphonia's default of 1 MiB finds something like MP3 in any noise.
const MAX_LEADING_BYTES: u32 = 64 * 1024;

/// The message of the error that stands for a panic of a parser.
pub(super) const PANICKED: &str = "the decoder gave up";

pub(super) static CONTAINERS: LazyLock<Probe> = LazyLock::new(|| {
    let mut probe =
        Probe::new_with_options(&ProbeOptions { max_probe_depth: MAX_LEADING_BYTES, ..ProbeOptions::default() });
    symphonia::default::register_enabled_formats(&mut probe);
    probe
});

static CODECS: LazyLock<CodecRegistry> = LazyLock::new(|| {
    let mut codecs = CodecRegistry::new();
    symphonia::default::register_enabled_codecs(&mut codecs);
    codecs.register_audio_decoder::<symphonia_adapter_libopus::OpusDecoder>();
    codecs
});

/// What a format's declarations can be trusted for.
#[derive(Clone, Copy)]
pub(super) struct Traits {
    /// A stream of frames without a container (MP3, ADTS): its timestamps only count frames, and noise can look like
    /// it.
    pub(super) no_container: bool,
    /// The padding at the end follows from a count of frames that may be wrong, so it is cut here and not by the
    /// decoder.
    pub(super) counts_frames: bool,
    /// Damaged parts are skipped before they become packets, so only timestamps show how much is missing.
    pub(super) skips_damage: bool,
    /// Ogg, where an incomplete last page shows that the file was cut off.
    pub(super) is_ogg: bool,
    /// Timestamps are those of a player, which may begin later than with 0.
    pub(super) has_clock: bool,
    /// The declared length is that of all tracks together.
    pub(super) duration_spans_tracks: bool,
}

/// Calls Symphonia and turns a panic into an error. Symphonia isn't meant to panic on any file; if it does, that file
/// is refused and nothing else is affected.
pub(super) fn catch_panic<T>(call: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or(Err(Error::LimitError(PANICKED)))
}

pub(super) fn decoder(track: &Track, traits: Traits) -> Result<Box<dyn AudioDecoder>, DecodeFailure> {
    let Some(CodecParameters::Audio(params)) = &track.codec_params else {
        return Err(DecodeFailure::TryFfmpeg(Problem::Unsupported));
    };
    // Symphonia also trims MP3 by lengths that it only estimates, so MP3 is trimmed here.
    let options = AudioDecoderOptions::default().gapless(!traits.no_container);
    catch_panic(|| CODECS.make_audio_decoder(params, &options))
        .map_err(|_| DecodeFailure::TryFfmpeg(Problem::Unsupported))
}

/// Decodes one packet into interleaved samples. Returns their rate and the number of channels.
pub(super) fn decode_packet(
    decoder: &mut dyn AudioDecoder,
    packet: &Packet,
    interleaved: &mut Vec<f32>,
) -> Result<(u32, u16), Error> {
    let buffer = decoder.decode(packet)?;
    let (rate, channels) = (buffer.spec().rate(), buffer.num_planes());
    if channels == 0 {
        return Err(Error::DecodeError("no channels"));
    }
    buffer.copy_to_vec_interleaved(interleaved);
    Ok((rate, u16::try_from(channels).unwrap_or(u16::MAX)))
}

/// Returns the container's common short name.
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
