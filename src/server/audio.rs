//! Decoding of recordings into what speech engines read: 16 kHz, mono, 16 bit, streamed with constant memory. Symphonia
//! decodes the common formats; ffmpeg, where installed, the rest. Recordings come from strangers, so both run in
//! processes of their own with limits: `Decoders` starts them, and `run_child` is what they run. Nothing else in the
//! server parses media.

mod bytes;
mod child;
mod confine;
mod crosstalk;
mod declared;
mod decode;
mod endings;
mod ffmpeg;
mod level;
mod matroska;
mod mp4;
mod parts;
mod process;
mod remarks;
mod resample;
mod sniff;
mod timed;
mod timeline;
mod waveform;
mod wire;

use std::fmt::Write as _;

use crate::model::{Remark, Track, no_such_track};
use serde::{Deserialize, Serialize};

pub use child::{DecoderArgs, run_child};
pub use decode::{DecodeFailure, Recording};
pub use endings::accepted;
pub use ffmpeg::available as ffmpeg_available;
pub use process::{CopyError, Copying, Decoders, Decoding, ProbeError, wav_head};
pub use sniff::{Kind, recognise};
pub use waveform::{MAX_PEAKS, Waveform};
pub use wire::Declares;

/// The sample rate of decoded samples, in Hz: that on which every speech engine is trained.
pub const SAMPLE_RATE: u32 = 16_000;

/// Limits set by the operator.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// The longest recording, in seconds. Infinity means no limit.
    pub max_duration: f64,
}

/// What of a recording is to be heard.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Selection {
    /// The audio track. If none is chosen, the one that the file prefers, or another one if that is silent.
    pub track: Option<Track>,
    pub channels: ChannelSelection,
}

/// Which channels are to be heard.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum ChannelSelection {
    /// Their mix.
    #[default]
    Mix,
    /// Their mix; whether there is a speaker on each of two channels is to be found out.
    FindSpeakers,
    /// The channel of this number, from 0, as a speaker's own.
    Only(u16),
}

/// The format of a recording, according to its headers and its first packet.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct AudioInfo {
    /// The container by its common short name: `wav`, `mp3`, `m4a`, `mp4`, `flac`, `ogg`, `webm`, …
    pub format: String,
    /// The codec of the track that is read: `pcm_s16le`, `aac`, `opus`, …
    pub codec: String,
    /// Sample rate of the recording itself, in Hz.
    pub sample_rate: u32,
    /// Channels of the recording itself.
    pub channels: u16,
    /// How many audio tracks the recording has.
    pub tracks: u16,
    /// Length in seconds, as the container declares it. `None` where it declares none, or where it could only be
    /// estimated.
    pub duration: Option<f64>,
}

/// The result of decoding a whole recording.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// The format of the recording.
    pub info: AudioInfo,
    /// The exact length of the decoded samples, in seconds.
    pub duration: f64,
    /// The waveform of the decoded samples.
    pub waveform: Waveform,
    /// What a reader of its transcript should know of the recording.
    pub remarks: Vec<Remark>,
}

/// Why a recording can't be used. `Display` is written for the person who brought the file.
#[derive(Debug, thiserror::Error)]
pub enum AudioError {
    /// The file has no bytes.
    #[error("The file is empty. Choose a file that holds a recording.")]
    EmptyFile,
    /// The file isn't a recording, is in no format that can be read, or is damaged throughout.
    #[error("{}", unreadable(recognised.as_deref(), *problem, *ffmpeg))]
    Unreadable {
        /// What the file was recognised as, with an article: "a PNG image".
        recognised: Option<String>,
        /// Why it can't be read.
        problem: Problem,
        /// Whether ffmpeg is installed.
        ffmpeg: bool,
    },
    /// A container without an audio track.
    #[error(
        "This {format} file has no sound in it, so there is nothing to transcribe. Choose a file with an audio track."
    )]
    NoAudioTrack {
        /// The container's short name.
        format: String,
    },
    /// The audio track that was chosen isn't there.
    #[error("{}", no_such_track(*wanted, *tracks))]
    NoSuchTrack {
        /// Its number, from 1.
        wanted: u16,
        /// How many there are.
        tracks: u16,
    },
    /// All sound is encrypted.
    #[error(
        "The sound in this {format} file is protected (encrypted), so only its seller's programs can play it. Choose an \
         unprotected recording."
    )]
    Protected {
        /// The container's short name.
        format: String,
    },
    /// A format that only its maker's programs can read.
    #[error("This is {what}, which only its maker's programs can read. Export it there as WAV or MP3, then send that.")]
    ClosedFormat {
        /// What it is, with an article.
        what: String,
    },
    /// The index of an MP4 file, without which nothing of it can be heard, is missing.
    #[error(
        "The file's index (moov) is missing: the recording was cut off before it was finished, and nothing else says where \
         its sound is. Finish the recording on the device that made it, or copy the file again in full. Failing that, a \
         repair program such as untrunc can make a new index with an intact recording from the same device."
    )]
    Truncated,
    /// Longer than [`Limits::max_duration`].
    #[error("{}", too_long(*duration, *at_least, *limit))]
    TooLong {
        /// Seconds, declared or measured so far.
        duration: f64,
        /// Whether `duration` is what had been decoded when the limit was reached, so that the whole is longer.
        at_least: bool,
        /// The limit in seconds.
        limit: f64,
    },
    /// There is an audio track, but without a single sample. Silence is not this.
    #[error(
        "This {format} file holds an audio track with nothing recorded in it. Check the recording and send it again."
    )]
    NoSamples {
        /// The container's short name.
        format: String,
    },
    /// Reading the file failed, writing decoded samples failed, or no decoder could be started.
    #[error("The recording could not be read from storage: {0}. Try again in a moment.")]
    Io(#[from] std::io::Error),
    /// ffmpeg failed. Its messages are in the log.
    #[error("ffmpeg could not decode this recording. Try converting it to MP3 or WAV first.")]
    Ffmpeg,
}

/// Why a file is unreadable.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Problem {
    /// The file is something else: text, a picture, a document.
    NotAudio,
    /// No installed decoder supports the format.
    Unsupported,
    /// The format is supported, but most of the content can't be decoded.
    Damaged,
    /// Its decoder reached a limit of memory or time.
    TooCostly,
    /// Its decoder crashed.
    Crashed,
}

impl AudioError {
    /// The stable error code for programs, in snake case.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::EmptyFile => "empty_file",
            Self::Unreadable { .. } => "unreadable",
            Self::NoAudioTrack { .. } => "no_audio_track",
            Self::NoSuchTrack { .. } => "no_such_track",
            Self::Protected { .. } => "protected",
            Self::ClosedFormat { .. } => "closed_format",
            Self::Truncated => "truncated",
            Self::TooLong { .. } => "too_long",
            Self::NoSamples { .. } => "no_samples",
            Self::Io(_) => "io",
            Self::Ffmpeg => "ffmpeg",
        }
    }
}

fn unreadable(recognised: Option<&str>, problem: Problem, ffmpeg: bool) -> String {
    let mut text = match (recognised, problem) {
        (Some(what), Problem::NotAudio) => {
            return format!("This is {what}, not a recording. Choose an audio or video file.");
        }
        (None, Problem::NotAudio) => "This is not a recording.".to_owned(),
        (Some(what), Problem::Unsupported) => {
            format!("This looks like {what}, in a form that can't be read here.")
        }
        (None, Problem::Unsupported) => "This is not a recording in any format that can be read here.".to_owned(),
        (what, Problem::Damaged | Problem::TooCostly | Problem::Crashed) => {
            let mut text = String::from("This ");
            if let Some(what) = what {
                let _ = write!(text, "looks like {what}, but it ");
            }
            text.push_str(match problem {
                Problem::TooCostly => "takes more memory or time to decode than a recording may.",
                Problem::Crashed => "can't be decoded: the decoder broke down over it.",
                _ => "is damaged: most of it can't be decoded. Try again with the original file.",
            });
            if problem != Problem::Damaged {
                text.push_str(" Try again with the original file, or convert it to WAV or MP3 first.");
            }
            return text;
        }
    };
    text.push_str(if ffmpeg {
        " Try converting it to WAV, MP3, M4A, FLAC, Ogg or WebM."
    } else {
        " WAV, MP3, M4A, FLAC, Ogg and WebM always work; installing ffmpeg on the server adds other formats."
    });
    text
}

fn too_long(duration: f64, at_least: bool, limit: f64) -> String {
    let limit_clock = clock(limit);
    let mut duration_clock = clock(duration.round());
    if duration_clock == limit_clock {
        duration_clock = clock(limit + 1.0);
    }
    let (duration, limit) = (duration_clock, limit_clock);
    let lasts = if at_least { format!("at least {duration}") } else { duration };
    format!("This recording lasts {lasts}; the limit is {limit}. Cut it into shorter parts and send them one by one.")
}

/// Formats seconds as h:mm:ss, rounded down.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates, which is what is wanted")]
fn clock(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// Whether a recording that should last `declared` seconds and lasts `found` was cut off and not merely rounded. The
/// rounding of players and encoders stays below a second; a length that isn't exact, which somebody estimated or which is
/// that of other tracks too, may be wrong by two percent.
fn is_cut(declared: f64, is_exact: bool, found: f64) -> bool {
    declared - found > if is_exact { 1.0 } else { (declared * 0.02).max(1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_rounds_down_and_never_fails() {
        assert_eq!(clock(0.9), "0:00:00");
        assert_eq!(clock(3_725.0), "1:02:05");
        assert_eq!(clock(-1.0), "0:00:00");
        assert_eq!(clock(f64::NAN), "0:00:00");
    }

    #[test]
    fn messages_name_both_numbers() {
        let text = AudioError::TooLong { duration: 10_800.2, at_least: false, limit: 10_800.0 }.to_string();
        assert!(text.contains("3:00:01") && text.contains("3:00:00"), "{text}");
        let without = AudioError::Unreadable {
            recognised: Some("Windows Media".into()),
            problem: Problem::Unsupported,
            ffmpeg: false,
        };
        assert!(without.to_string().contains("installing ffmpeg"), "{without}");
    }

    #[test]
    fn small_differences_do_not_count_as_cut_off() {
        for is_exact in [true, false] {
            assert!(!is_cut(10.0, is_exact, 9.1));
            assert!(is_cut(10.0, is_exact, 8.9));
            assert!(is_cut(1_000.0, is_exact, 979.0));
            assert!(!is_cut(10.0, is_exact, 11.0));
        }
        assert!(is_cut(14_400.0, true, 14_398.9) && !is_cut(14_400.0, true, 14_399.1));
        assert!(!is_cut(1_000.0, false, 981.0));
    }
}
