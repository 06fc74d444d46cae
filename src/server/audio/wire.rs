//! The format of a decoder's standard output: frames of a tag, a length and a body, which are messages (JSON) or
//! samples. `child` writes them and `process` reads them. A decoder that a recording has taken over may write anything,
//! so every length is limited, and every text is cut to what a name may contain.

use std::io::{self, ErrorKind, Write};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::{AudioError, AudioInfo, Problem};
use crate::model::Remark;

/// The longest message, in bytes. Real ones have a few hundred.
const MAX_MESSAGE: u32 = 16 * 1024;

/// The maximal number of samples in a frame: half a second, as the built-in decoders write them.
pub(super) const MAX_SAMPLES: usize = super::SAMPLE_RATE as usize / 2;

/// The longest name of a format or codec, in characters.
const MAX_NAME: usize = 60;

const MESSAGE: u8 = b'm';
const SAMPLES: u8 = b's';

/// What a decoder reports besides samples.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Message {
    /// What the file is by its first bytes, with an article. Sent before a decoder reads the file.
    Recognised(String),
    /// What a file for ffmpeg declares that ffmpeg doesn't report. Sent before [`Message::TryFfmpeg`].
    Declares(Declares),
    /// The recording can be decoded, and has this format. Samples follow if they were asked for.
    Opened(AudioInfo),
    /// Two speakers on two channels were to be found, and were. Sent before the samples.
    Apart,
    /// The recording has been decoded to its end, and has this format. The remarks are for whoever reads the transcript.
    Ended { info: AudioInfo, remarks: Vec<Remark> },
    /// The built-in decoders can't read it; ffmpeg may.
    #[serde(rename = "not_here")]
    TryFfmpeg(Problem),
    /// The recording is refused.
    Refused(AudioErrorOnWire),
}

/// What a file declares.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Declares {
    /// The length of its longest track in seconds.
    pub duration: Option<f64>,
    /// Whether the file has fewer bytes than it declares.
    pub is_cut: bool,
    /// Whether another file was joined to it, which ffmpeg doesn't hear.
    pub is_joined: bool,
}

/// An [`AudioError`] that can be serialised: an error of the storage is reduced to its number.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum AudioErrorOnWire {
    Empty,
    Unreadable { recognised: Option<String>, problem: Problem },
    NoAudioTrack { format: String },
    NoSuchTrack { wanted: u16, tracks: u16 },
    Protected { format: String },
    ClosedFormat { what: String },
    Truncated,
    TooLong { duration: f64, at_least: bool },
    NoSamples { format: String },
    Storage { errno: Option<i32> },
}

impl From<AudioError> for AudioErrorOnWire {
    fn from(error: AudioError) -> Self {
        match error {
            AudioError::EmptyFile => Self::Empty,
            AudioError::Unreadable { recognised, problem, ffmpeg: _ } => Self::Unreadable { recognised, problem },
            AudioError::NoAudioTrack { format } => Self::NoAudioTrack { format },
            AudioError::NoSuchTrack { wanted, tracks } => Self::NoSuchTrack { wanted, tracks },
            AudioError::Protected { format } => Self::Protected { format },
            AudioError::ClosedFormat { what } => Self::ClosedFormat { what },
            AudioError::Truncated => Self::Truncated,
            AudioError::TooLong { duration, at_least, limit: _ } => Self::TooLong { duration, at_least },
            AudioError::NoSamples { format } => Self::NoSamples { format },
            AudioError::Io(error) => Self::Storage { errno: error.raw_os_error() },
            // Only the parent creates this error.
            AudioError::Ffmpeg => Self::Unreadable { recognised: None, problem: Problem::Unsupported },
        }
    }
}

impl AudioErrorOnWire {
    /// Completes the error with what only the parent knows: whether ffmpeg is installed, and the limit in seconds.
    pub(super) fn with(self, ffmpeg: bool, limit: f64) -> AudioError {
        match self {
            Self::Empty => AudioError::EmptyFile,
            Self::Unreadable { recognised, problem } => {
                AudioError::Unreadable { recognised: recognised.map(name), problem, ffmpeg }
            }
            Self::NoAudioTrack { format } => AudioError::NoAudioTrack { format: name(format) },
            Self::NoSuchTrack { wanted, tracks } => AudioError::NoSuchTrack { wanted, tracks },
            Self::Protected { format } => AudioError::Protected { format: name(format) },
            Self::ClosedFormat { what } => AudioError::ClosedFormat { what: name(what) },
            Self::Truncated => AudioError::Truncated,
            Self::TooLong { duration, at_least } => AudioError::TooLong { duration, at_least, limit },
            Self::NoSamples { format } => AudioError::NoSamples { format: name(format) },
            Self::Storage { errno } => AudioError::Io(
                errno.map_or_else(|| io::Error::other("the decoder could not read it"), io::Error::from_raw_os_error),
            ),
        }
    }
}

/// One frame.
#[derive(Debug, PartialEq)]
pub(super) enum Frame {
    Message(Message),
    Samples(Vec<i16>),
}

/// Writes a message and flushes it.
pub(super) fn write_message(out: &mut impl Write, message: &Message) -> io::Result<()> {
    write(out, MESSAGE, &serde_json::to_vec(message).map_err(io::Error::other)?)
}

/// Writes at most [`MAX_SAMPLES`] samples and flushes them.
pub(super) fn write_samples(out: &mut impl Write, samples: &[i16]) -> io::Result<()> {
    let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    write(out, SAMPLES, &bytes)
}

fn write(out: &mut impl Write, tag: u8, body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    let mut frame = Vec::with_capacity(5 + body.len());
    frame.push(tag);
    frame.extend(length.to_le_bytes());
    frame.extend(body);
    out.write_all(&frame)?;
    out.flush()
}

/// Reads the next frame; none at the end. The future must not be dropped before it is done.
///
/// # Errors
/// `InvalidData` if it isn't a valid frame, `UnexpectedEof` if it is incomplete.
pub(super) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Frame>> {
    let mut head = [0; 5];
    if from.read(&mut head[..1]).await? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut head[1..]).await?;
    let [tag, length @ ..] = head;
    let length = u32::from_le_bytes(length);
    let longest = if tag == SAMPLES { MAX_SAMPLES as u32 * 2 } else { MAX_MESSAGE };
    if !matches!(tag, MESSAGE | SAMPLES) || length > longest || (tag == SAMPLES && length % 2 != 0) {
        return Err(ErrorKind::InvalidData.into());
    }
    let mut body = vec![0; length as usize];
    from.read_exact(&mut body).await?;
    if tag == SAMPLES {
        return Ok(Some(Frame::Samples(samples(&body))));
    }
    let message = serde_json::from_slice(&body).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
    Ok(Some(Frame::Message(sanitise(message)?)))
}

/// Decodes samples of 16 bits, low byte first.
pub(super) fn samples(bytes: &[u8]) -> Vec<i16> {
    bytes.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect()
}

fn sanitise(message: Message) -> io::Result<Message> {
    Ok(match message {
        Message::Recognised(what) => Message::Recognised(name(what)),
        Message::Declares(Declares { duration: Some(seconds), .. }) if !seconds.is_finite() || seconds <= 0.0 => {
            return Err(ErrorKind::InvalidData.into());
        }
        Message::Opened(info) => Message::Opened(sanitise_info(info)?),
        Message::Ended { info, remarks } => Message::Ended {
            info: sanitise_info(info)?,
            remarks: remarks.iter().fold(Vec::new(), |mut kept, remark| {
                Remark::new(&remark.code, &remark.message).add_to(&mut kept);
                kept
            }),
        },
        other => other,
    })
}

/// Checks the length and removes from the names what no name contains.
pub(super) fn sanitise_info(info: AudioInfo) -> io::Result<AudioInfo> {
    if info.duration.is_some_and(|seconds| !seconds.is_finite() || seconds < 0.0) {
        return Err(ErrorKind::InvalidData.into());
    }
    Ok(AudioInfo { format: name(info.format), codec: name(info.codec), ..info })
}

/// Reduces the name of a format or codec, which people are shown, to harmless characters and a limited length.
fn name(text: String) -> String {
    let of_names = |c: char| c.is_ascii_alphanumeric() || " -_.'()/+,".contains(c);
    text.chars().filter(|c| of_names(*c)).take(MAX_NAME).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn now<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    fn all(mut bytes: &[u8]) -> io::Result<Vec<Frame>> {
        now(async {
            let mut frames = Vec::new();
            while let Some(frame) = read(&mut bytes).await? {
                frames.push(frame);
            }
            Ok(frames)
        })
    }

    #[test]
    fn frames_that_are_written_can_be_read() {
        let info = AudioInfo {
            format: "wav".to_owned(),
            codec: "pcm_s16le".to_owned(),
            sample_rate: 8_000,
            channels: 2,
            tracks: 1,
            duration: Some(1.5),
        };
        let refused = AudioErrorOnWire::TooLong { duration: 3.0, at_least: true };
        let remarks = vec![Remark::new("other_length", "The file says 0:48; it ends at 0:46.")];
        let messages = [Message::Opened(info.clone()), Message::Ended { info, remarks }, Message::Refused(refused)];
        let mut bytes = Vec::new();
        for message in &messages {
            write_message(&mut bytes, message).unwrap();
            write_samples(&mut bytes, &[1, -2, i16::MIN]).unwrap();
        }
        let frames = all(&bytes).unwrap();
        assert_eq!(frames.len(), 6);
        for (i, message) in messages.into_iter().enumerate() {
            assert_eq!(frames[2 * i], Frame::Message(message));
            assert_eq!(frames[2 * i + 1], Frame::Samples(vec![1, -2, i16::MIN]));
        }
    }

    #[test]
    fn errors_keep_their_messages() {
        for error in [
            AudioError::EmptyFile,
            AudioError::Unreadable { recognised: Some("a PNG image".into()), problem: Problem::NotAudio, ffmpeg: true },
            AudioError::NoAudioTrack { format: "mp4".into() },
            AudioError::NoSuchTrack { wanted: 3, tracks: 2 },
            AudioError::Protected { format: "m4a".into() },
            AudioError::ClosedFormat { what: "a DS2 dictation".into() },
            AudioError::Truncated,
            AudioError::TooLong { duration: 20.0, at_least: true, limit: 10.0 },
            AudioError::NoSamples { format: "wav".into() },
        ] {
            let said = error.to_string();
            assert_eq!(AudioErrorOnWire::from(error).with(true, 10.0).to_string(), said);
        }
        let full = AudioErrorOnWire::from(AudioError::Io(io::Error::from_raw_os_error(5))).with(true, 1.0);
        assert!(matches!(full, AudioError::Io(error) if error.raw_os_error() == Some(5)));
    }

    #[test]
    fn frames_that_are_too_long_or_invalid_are_refused() {
        let frame = |tag: u8, length: u32| [&[tag][..], &length.to_le_bytes()].concat();
        for bytes in [
            frame(b'x', 0),
            frame(SAMPLES, 16_002),
            frame(SAMPLES, 3),
            frame(MESSAGE, u32::MAX),
            [frame(MESSAGE, 2), b"{}".to_vec()].concat(),
        ] {
            assert_eq!(all(&bytes).unwrap_err().kind(), ErrorKind::InvalidData, "{bytes:?}");
        }
        assert_eq!(all(&frame(SAMPLES, 2)).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn names_contain_only_harmless_characters() {
        let cleaned = name("a <b>file</b>\u{202e}\n\0".to_owned());
        assert_eq!(cleaned, "a bfile/b");
        assert_eq!(name("x".repeat(1_000)).len(), MAX_NAME);
        assert_eq!(name("Monkey's Audio (AC-3)".to_owned()), "Monkey's Audio (AC-3)");
    }

    proptest! {
        #[test]
        fn any_bytes_are_frames_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = all(&bytes);
        }
    }
}
