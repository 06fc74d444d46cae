//! The decoded samples of a session, in a scratch file between the decoder, which runs ahead, and the engine.
//! So a slow engine never holds the decoder up, the exact length is known early, and memory stays flat.

use crate::server::audio::{self, AudioError, Decoded, Limits};
use std::{
    fs::OpenOptions,
    io::{self, BufWriter, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::{
    io::{AsyncReadExt, AsyncSeekExt},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

/// How far the decoder has come.
#[derive(Clone, Debug, Default)]
pub(super) struct Decoding {
    /// Samples in the file.
    pub(super) samples: u64,
    /// The end, once reached.
    pub(super) end: Option<Arc<Result<Decoded, AudioError>>>,
}

/// Decodes `recording` into `spool`, an empty file, on a thread of its own, until done or `stop`.
pub(super) fn decode(
    recording: PathBuf,
    spool: PathBuf,
    max_duration: f64,
    stop: CancellationToken,
) -> watch::Receiver<Decoding> {
    let (told, watching) = watch::channel(Decoding::default());
    tokio::task::spawn_blocking(move || {
        let result = write(&recording, &spool, max_duration, &stop, &told);
        told.send_modify(|decoding| decoding.end = Some(Arc::new(result)));
    });
    watching
}

fn write(
    recording: &Path,
    spool: &Path,
    max_duration: f64,
    stop: &CancellationToken,
    told: &watch::Sender<Decoding>,
) -> Result<Decoded, AudioError> {
    // Not made here: the session may be over by now, and the file gone.
    let mut file = BufWriter::with_capacity(256 * 1024, OpenOptions::new().write(true).open(spool)?);
    let mut samples = 0;
    let decoded = audio::decode(recording, &Limits { max_duration }, &mut |piece| {
        let bytes: Vec<u8> = piece.iter().flat_map(|s| s.to_le_bytes()).collect();
        file.write_all(&bytes)?;
        // Only what has left the buffer can be read by others.
        file.flush()?;
        samples += piece.len() as u64;
        told.send_modify(|decoding| decoding.samples = samples);
        Ok(if stop.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    Ok(decoded)
}

/// Reads the samples behind the decoder.
pub(super) struct Reader {
    file: tokio::fs::File,
    next: u64,
    decoding: watch::Receiver<Decoding>,
}

impl Reader {
    /// Starts at sample `from`. The decoder must have begun.
    ///
    /// # Errors
    /// If the scratch file can't be opened.
    pub(super) async fn open(spool: &Path, from: u64, decoding: watch::Receiver<Decoding>) -> io::Result<Self> {
        let mut file = tokio::fs::File::open(spool).await?;
        file.seek(io::SeekFrom::Start(from * 2)).await?;
        Ok(Self { file, next: from, decoding })
    }

    /// The next samples, at most half a second; none at the end. Waits for the decoder.
    ///
    /// # Errors
    /// If the scratch file can't be read.
    pub(super) async fn read(&mut self) -> io::Result<Vec<i16>> {
        let next = self.next;
        let available = match self.decoding.wait_for(|d| d.samples > next || d.end.is_some()).await {
            Ok(decoding) => decoding.samples.saturating_sub(next),
            Err(_) => return Err(io::Error::other("the decoder panicked")),
        };
        let count = available.min(u64::from(audio::SAMPLE_RATE / 2)) as usize;
        let mut bytes = vec![0; count * 2];
        self.file.read_exact(&mut bytes).await?;
        self.next += count as u64;
        Ok(bytes.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect())
    }
}
