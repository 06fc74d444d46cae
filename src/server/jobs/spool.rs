//! The samples of a session on their way from the decoder to the engine. The decoder is at most a minute ahead and waits
//! for the engine, so a recording takes no room on the disk and next to none in memory, however long it is. A second run
//! of the decoder, which keeps nothing, hurries ahead and finds the exact length and the waveform. Called by `job`.

use crate::server::audio::{AudioError, Decoded, Decoders, Limits, SAMPLE_RATE};
use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Samples in a piece: half a second.
const PIECE: usize = SAMPLE_RATE as usize / 2;
/// Pieces that the decoder may be ahead of the engine: a minute, 2 MB. Engines take in half a minute at once at most.
const AHEAD: usize = 120;

/// How far the survey of a recording has come.
#[derive(Clone, Debug, Default)]
pub(super) struct Survey {
    /// Whether there is anything to hear.
    pub(super) begun: bool,
    /// What it found, once it is through.
    pub(super) end: Option<Arc<Result<Decoded, AudioError>>>,
}

/// Decodes `recording` only to find out how long it is, what it looks like and whether it is sound, in a task of its own,
/// until done or `stop`.
pub(super) fn survey(
    decoders: Decoders,
    recording: PathBuf,
    max_duration: f64,
    stop: CancellationToken,
) -> watch::Receiver<Survey> {
    let (told, watching) = watch::channel(Survey::default());
    tokio::spawn(async move {
        let whole = async {
            let mut decoding = decoders.decode(&recording, Limits { max_duration }).await?;
            while decoding.next().await?.is_some() {
                told.send_if_modified(|survey| !std::mem::replace(&mut survey.begun, true));
            }
            Ok(decoding.finish())
        };
        // Nobody waits for the end of one that is stopped; dropping it ends the decoder.
        if let Some(result) = stop.run_until_cancelled(whole).await {
            told.send_modify(|survey| survey.end = Some(Arc::new(result)));
        }
    });
    watching
}

/// Decodes `recording` from sample `from` in a task of its own, which waits while the samples aren't fetched, and ends
/// with the receiver. They end with the recording, or with the reason why it can't be decoded any further.
pub(super) fn samples(
    decoders: Decoders,
    recording: PathBuf,
    max_duration: f64,
    from: u64,
) -> mpsc::Receiver<Result<Vec<i16>, AudioError>> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        let gone = sender.clone();
        let mut pieces = Pieces { sender, skip: from, next: Vec::with_capacity(PIECE) };
        let all = async {
            let end = hand_out(&decoders, &recording, max_duration, &mut pieces).await;
            if pieces.send().await.is_continue()
                && let Err(error) = end
            {
                // If nobody listens any more, nobody wants to know.
                let _ = pieces.sender.send(Err(error)).await;
            }
        };
        tokio::select! { () = all => {} () = gone.closed() => {} }
    });
    receiver
}

async fn hand_out(
    decoders: &Decoders,
    recording: &Path,
    max_duration: f64,
    pieces: &mut Pieces,
) -> Result<(), AudioError> {
    let mut decoding = decoders.decode_slowly(recording, Limits { max_duration }).await?;
    while let Some(samples) = decoding.next().await? {
        if pieces.take(&samples).await.is_break() {
            break;
        }
    }
    Ok(())
}

/// Cuts what a decoder hands out into pieces of one size, so that their number bounds the memory.
struct Pieces {
    sender: mpsc::Sender<Result<Vec<i16>, AudioError>>,
    /// Samples still to be left out.
    skip: u64,
    next: Vec<i16>,
}

impl Pieces {
    /// Takes what comes next. Waits while the receiver is busy, and breaks off when it is gone.
    async fn take(&mut self, mut samples: &[i16]) -> ControlFlow<()> {
        let skipped = samples.len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
        self.skip -= skipped as u64;
        samples = &samples[skipped..];
        if self.sender.is_closed() {
            return ControlFlow::Break(());
        }
        while !samples.is_empty() {
            let (now, later) = samples.split_at(samples.len().min(PIECE - self.next.len()));
            self.next.extend_from_slice(now);
            samples = later;
            if self.next.len() == PIECE {
                self.send().await?;
            }
        }
        ControlFlow::Continue(())
    }

    /// Sends what has gathered.
    async fn send(&mut self) -> ControlFlow<()> {
        if self.next.is_empty() {
            return ControlFlow::Continue(());
        }
        let piece = std::mem::replace(&mut self.next, Vec::with_capacity(PIECE));
        match self.sender.send(Ok(piece)).await {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn samples_arrive_in_order_and_the_decoder_waits() {
        let (sender, mut receiver) = mpsc::channel(2);
        let mut pieces = Pieces { sender, skip: 3, next: Vec::new() };
        let decoder = tokio::spawn(async move {
            // In pieces of every size, as decoders have them.
            let samples: Vec<i16> = (0..20 * PIECE).map(|n| n as i16).collect();
            let mut rest = &samples[..];
            for size in (1..).map(|n| n * 77) {
                let (now, later) = rest.split_at(size.min(rest.len()));
                if now.is_empty() || pieces.take(now).await.is_break() {
                    break;
                }
                rest = later;
            }
            pieces.send().await
        });
        while receiver.len() < 2 {
            tokio::task::yield_now().await;
        }
        let mut heard: Vec<i16> = Vec::new();
        while let Some(piece) = receiver.recv().await {
            let piece = piece.unwrap();
            assert!(receiver.len() <= 2 && piece.len() <= PIECE);
            heard.extend(piece);
        }
        assert!(decoder.await.unwrap().is_continue());
        assert!(heard.iter().copied().eq((3..20 * PIECE).map(|n| n as i16)));
    }

    #[tokio::test]
    async fn a_decoder_ends_with_its_receiver() {
        let (sender, receiver) = mpsc::channel(1);
        let mut pieces = Pieces { sender, skip: 0, next: Vec::new() };
        assert!(pieces.take(&[0; PIECE]).await.is_continue());
        drop(receiver);
        assert!(pieces.take(&[0; 1]).await.is_break());
    }
}
