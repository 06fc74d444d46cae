//! Copies of recordings for browsers. They are made of the samples that an engine hears, so that their clock is that of the
//! transcript; an encoder, which is a process with limits as well, reads only those and nothing of the stranger's file.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio_util::task::AbortOnDropHandle;

use super::super::{AudioError, Limits, SAMPLE_RATE, Selection, ffmpeg};
use super::{Decoders, Decoding, Running, TimeLimit, into_audio_error};
use crate::model::playback::CopyForm;

/// Bytes that are read at once of an encoder's output.
const PIECE: usize = 32 * 1024;

/// The bytes of the head of a WAV file.
const WAV_HEAD: usize = 44;

/// Why a copy can't be made.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error("{0}")]
    Audio(#[from] AudioError),
    /// ffmpeg isn't here, or doesn't encode; with what it says.
    #[error("the encoder failed: {0}")]
    Encoder(String),
}

impl From<io::Error> for CopyError {
    fn from(error: io::Error) -> Self {
        Self::Audio(error.into())
    }
}

/// A copy that is being made. Dropping it ends the processes that make it.
pub struct Copying {
    source: Source,
    /// The samples that were decoded so far.
    samples: Arc<AtomicU64>,
}

enum Source {
    /// The head comes first.
    Wav {
        decoding: Box<Decoding>,
        head: bool,
    },
    Opus {
        encoder: Box<Running>,
        feeding: AbortOnDropHandle<Result<(), AudioError>>,
    },
    Ended,
}

impl Decoders {
    /// Begins to make a copy of what is selected of a recording.
    ///
    /// # Errors
    /// If the recording can't be decoded, or the encoder can't be started.
    pub async fn copy(
        &self,
        recording: &Path,
        limits: Limits,
        selection: Selection,
        form: CopyForm,
    ) -> Result<Copying, CopyError> {
        let samples = Arc::new(AtomicU64::new(0));
        let programs = match form {
            CopyForm::Wav => None,
            CopyForm::Opus => {
                Some(ffmpeg::find().ok_or_else(|| CopyError::Encoder("ffmpeg isn't installed".to_owned()))?)
            }
        };
        let mut decoding = self.begin(recording, limits, selection).await?;
        let Some(programs) = programs else {
            return Ok(Copying { source: Source::Wav { decoding: Box::new(decoding), head: true }, samples });
        };
        let time_limit = TimeLimit::stall(Duration::from_secs(u64::from(self.config.decode_stall_secs)));
        let cpu_secs = self.config.cpu_secs(limits.max_duration);
        let task: [&OsStr; 2] = ["encode".as_ref(), programs.ffmpeg.as_os_str()];
        let mut encoder = self.spawn_on(Stdio::piped(), recording, &task, cpu_secs, time_limit)?;
        let mut input = encoder.child.stdin.take().ok_or_else(|| io::Error::other("an encoder's pipe is missing"))?;
        let counted = Arc::clone(&samples);
        let feeding = tokio::spawn(async move {
            while let Some(piece) = decoding.next().await? {
                counted.fetch_add(piece.len() as u64, Ordering::Relaxed);
                // An encoder that reads no more tells why with its exit.
                if input.write_all(&bytes(&piece)).await.is_err() {
                    break;
                }
            }
            Ok(())
        });
        let feeding = AbortOnDropHandle::new(feeding);
        Ok(Copying { source: Source::Opus { encoder: Box::new(encoder), feeding }, samples })
    }
}

impl Copying {
    /// Returns the next bytes of the copy; none at the end. The future must not be dropped before it is done.
    ///
    /// # Errors
    /// If the recording can't be decoded, or the encoder fails. What was returned before must be discarded.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, CopyError> {
        match &mut self.source {
            Source::Ended => Ok(None),
            Source::Wav { head: head @ true, .. } => {
                *head = false;
                // Until the length is known; see `wav_head`.
                Ok(Some(vec![0; WAV_HEAD]))
            }
            Source::Wav { decoding, .. } => match decoding.next().await? {
                Some(piece) => {
                    self.samples.fetch_add(piece.len() as u64, Ordering::Relaxed);
                    Ok(Some(bytes(&piece)))
                }
                None => {
                    self.source = Source::Ended;
                    Ok(None)
                }
            },
            Source::Opus { encoder, feeding } => {
                let mut piece = vec![0; PIECE];
                let filled = encoder.fill(&mut piece).await.map_err(into_audio_error)?;
                if filled > 0 {
                    piece.truncate(filled);
                    return Ok(Some(piece));
                }
                // First what the decoder says: without samples the encoder ends as after a recording.
                feeding.await.map_err(io::Error::other)??;
                let (status, stderr_tail) = encoder.exit_status().await;
                if !status.is_some_and(|status| status.success()) {
                    let status = status.map_or_else(|| "it was ended".to_owned(), |status| status.to_string());
                    return Err(CopyError::Encoder(format!("{status} {stderr_tail}").trim_end().to_owned()));
                }
                self.source = Source::Ended;
                Ok(None)
            }
        }
    }

    /// How much was decoded so far, in seconds.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.samples.load(Ordering::Relaxed) as f64 / f64::from(SAMPLE_RATE)
    }
}

fn bytes(samples: &[i16]) -> Vec<u8> {
    samples.iter().flat_map(|sample| sample.to_le_bytes()).collect()
}

/// The head of a WAV file that has so many bytes in all.
#[must_use]
pub fn wav_head(total: u64) -> [u8; WAV_HEAD] {
    // A file beyond 4 GB can't say how long it is; players then read to its end.
    let short = |n: u64| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes();
    let mut head = [0; WAV_HEAD];
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        head[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    put(b"RIFF");
    put(&short(total.saturating_sub(8)));
    put(b"WAVEfmt ");
    put(&16_u32.to_le_bytes());
    // PCM, mono.
    put(&1_u16.to_le_bytes());
    put(&1_u16.to_le_bytes());
    put(&SAMPLE_RATE.to_le_bytes());
    put(&(2 * SAMPLE_RATE).to_le_bytes());
    // Bytes and bits of a sample.
    put(&2_u16.to_le_bytes());
    put(&16_u16.to_le_bytes());
    put(b"data");
    put(&short(total.saturating_sub(WAV_HEAD as u64)));
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_of_a_wav_file_has_its_length() {
        let head = wav_head(44 + 32_000);
        assert_eq!((&head[..4], &head[8..16], &head[36..40]), (&b"RIFF"[..], &b"WAVEfmt "[..], &b"data"[..]));
        assert_eq!(u32::from_le_bytes(head[4..8].try_into().unwrap()), 36 + 32_000);
        assert_eq!(u32::from_le_bytes(head[24..28].try_into().unwrap()), 16_000);
        assert_eq!(u32::from_le_bytes(head[40..44].try_into().unwrap()), 32_000);
        assert_eq!(wav_head(u64::MAX)[40..44], [0xff; 4]);
    }
}
