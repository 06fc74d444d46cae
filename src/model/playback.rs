//! Which recordings browsers can play, and the copies that Hark makes of the others. Decided by container and codec; a browser
//! that then can't play one after all gets a copy, too.

use super::Media;
use serde::{Deserialize, Serialize};

/// A form in which Hark makes a copy for browsers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CopyForm {
    /// Opus in Ogg, which needs ffmpeg.
    Opus,
    /// WAV, which every browser plays, four times as large.
    Wav,
}

impl CopyForm {
    /// All of them, the preferred one first.
    pub const ALL: [Self; 2] = [Self::Opus, Self::Wav];

    /// The ending of its file's name.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::Opus => "ogg",
            Self::Wav => "wav",
        }
    }

    /// Its media type.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Opus => "audio/ogg; codecs=opus",
            Self::Wav => "audio/wav",
        }
    }
}

/// How far a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CopyState {
    /// It is there.
    Ready,
    /// It is being made; how much of it in percent, if the recording's length is known.
    Making(Option<f64>),
}

/// The containers that browsers play, and the codecs that they play in each.
const PLAYABLE: [(&str, &[&str]); 9] = [
    ("wav", &["pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_alaw", "pcm_mulaw"]),
    ("mp3", &["mp3"]),
    ("m4a", &["aac", "mp3", "opus", "flac"]),
    ("mp4", &["aac", "mp3", "opus", "flac"]),
    ("aac", &["aac"]),
    ("flac", &["flac"]),
    ("ogg", &["opus", "vorbis", "flac"]),
    ("webm", &["opus", "vorbis"]),
    ("mkv", &["aac", "mp3", "opus", "vorbis", "flac"]),
];

/// Whether browsers play a recording as it is.
#[must_use]
pub fn plays(media: &Media) -> bool {
    PLAYABLE.iter().any(|(format, codecs)| *format == media.format && codecs.contains(&&*media.codec))
}

/// What a recording is, in the words that people know: its codec where that is what browsers can't play.
#[must_use]
pub fn kind(media: &Media) -> String {
    let Media { format, codec, .. } = media;
    let name = match &**codec {
        "ac3" => "AC-3",
        "eac3" => "E-AC-3",
        "alac" if format != "caf" => "ALAC",
        codec if codec.starts_with("wma") => "WMA",
        codec if codec.starts_with("amr") => "AMR",
        codec if codec.starts_with("adpcm") => "ADPCM",
        codec if PLAYABLE.iter().any(|(known, _)| known == format) && !plays(media) => codec,
        _ => format,
    };
    name.to_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn media(format: &str, codec: &str) -> Media {
        Media { format: format.to_owned(), codec: codec.to_owned(), ..Media::default() }
    }

    #[test]
    fn what_browsers_play_is_known_by_container_and_codec() {
        for (format, codec) in
            [("wav", "pcm_s16le"), ("mp3", "mp3"), ("m4a", "aac"), ("mp4", "aac"), ("ogg", "opus"), ("webm", "vorbis")]
        {
            assert!(plays(&media(format, codec)), "{format} {codec}");
        }
        for (format, codec, name) in [
            ("m4a", "alac", "ALAC"),
            ("caf", "alac", "CAF"),
            ("caf", "pcm_s16le", "CAF"),
            ("wma", "wmav2", "WMA"),
            ("mp4", "ac3", "AC-3"),
            ("ac3", "ac3", "AC-3"),
            ("amr", "amr_nb", "AMR"),
            ("aiff", "pcm_s16be", "AIFF"),
            ("wav", "adpcm_ms", "ADPCM"),
            ("ogg", "speex", "SPEEX"),
            ("avi", "mp3", "AVI"),
        ] {
            let media = media(format, codec);
            assert!(!plays(&media), "{format} {codec}");
            assert_eq!(kind(&media), name);
        }
        assert_eq!(kind(&media("mp4", "aac")), "MP4");
    }
}
