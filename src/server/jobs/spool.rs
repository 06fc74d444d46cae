//! Samples of a session from the decoder to the engine. The decoder is at most a minute ahead and waits for the engine,
//! so a recording of any length takes no room on the disk and very little memory. A second run of the decoder, the
//! survey, discards the samples and finds the exact length and the waveform early. Called by `job`.

use crate::server::audio::{AudioError, Decoded, Decoders, Limits, SAMPLE_RATE, Selection};
use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Samples in a piece: half a second.
const PIECE_SAMPLES: usize = SAMPLE_RATE as usize / 2;
/// Pieces that the decoder may be ahead of the engine: a minute of audio, 2 MB. Engines read at most half a minute at
/// once.
const MAX_PIECES_AHEAD: usize = 120;

/// The state of a survey.
#[derive(Clone, Debug, Default)]
pub(super) struct Survey {
    /// Whether any samples were decoded.
    pub(super) has_samples: bool,
    /// Whether there is a speaker on each of two channels, if that was to be found out. Known with the first samples.
    pub(super) is_apart: bool,
    /// What was found, once the whole recording has been decoded.
    pub(super) end: Option<Arc<Result<Decoded, AudioError>>>,
}

/// Decodes `recording` only to find its length and waveform, and whether it is damaged, in a task of its own, until
/// done or `stop`.
pub(super) fn survey(
    decoders: Decoders,
    recording: PathBuf,
    max_duration: f64,
    selection: Selection,
    stop: CancellationToken,
) -> watch::Receiver<Survey> {
    let (sender, receiver) = watch::channel(Survey::default());
    tokio::spawn(async move {
        let whole = async {
            let mut decoding = decoders.decode(&recording, Limits { max_duration }, selection).await?;
            while decoding.next().await?.is_some() {
                let is_apart = decoding.is_apart();
                sender.send_if_modified(|survey| {
                    survey.is_apart = is_apart;
                    !std::mem::replace(&mut survey.has_samples, true)
                });
            }
            Ok(decoding.finish())
        };
        // Nobody waits for a survey that was stopped. Dropping it ends the decoder.
        if let Some(result) = stop.run_until_cancelled(whole).await {
            sender.send_modify(|survey| survey.end = Some(Arc::new(result)));
        }
    });
    receiver
}

/// Decodes what is selected of `recording` from sample `from` in a task of its own, which waits while the samples aren't received, and ends
/// when the receiver is dropped. The samples end with the recording, or with the error that ended the decoding.
pub(super) fn samples(
    decoders: Decoders,
    recording: PathBuf,
    max_duration: f64,
    selection: Selection,
    from: u64,
) -> mpsc::Receiver<Result<Vec<i16>, AudioError>> {
    let (sender, receiver) = mpsc::channel(MAX_PIECES_AHEAD);
    tokio::spawn(async move {
        let receiver_gone = sender.clone();
        let mut pieces = Pieces { sender, skip: from, next: Vec::with_capacity(PIECE_SAMPLES) };
        let all = async {
            let end = hand_out(&decoders, &recording, max_duration, selection, &mut pieces).await;
            if pieces.send().await.is_continue()
                && let Err(error) = end
            {
                // An error has no meaning for a receiver that is gone.
                let _ = pieces.sender.send(Err(error)).await;
            }
        };
        tokio::select! { () = all => {} () = receiver_gone.closed() => {} }
    });
    receiver
}

async fn hand_out(
    decoders: &Decoders,
    recording: &Path,
    max_duration: f64,
    selection: Selection,
    pieces: &mut Pieces,
) -> Result<(), AudioError> {
    let mut decoding = decoders.decode_slowly(recording, Limits { max_duration }, selection).await?;
    while let Some(samples) = decoding.next().await? {
        if pieces.push(&samples).await.is_break() {
            break;
        }
    }
    Ok(())
}

/// Divides a decoder's samples into pieces of one size, so that the number of pieces limits the memory.
struct Pieces {
    sender: mpsc::Sender<Result<Vec<i16>, AudioError>>,
    /// Samples still to be skipped.
    skip: u64,
    next: Vec<i16>,
}

impl Pieces {
    /// Adds samples. Waits while the channel is full, and breaks when the receiver is gone.
    async fn push(&mut self, mut samples: &[i16]) -> ControlFlow<()> {
        let skipped = samples.len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
        self.skip -= skipped as u64;
        samples = &samples[skipped..];
        if self.sender.is_closed() {
            return ControlFlow::Break(());
        }
        while !samples.is_empty() {
            let (now, later) = samples.split_at(samples.len().min(PIECE_SAMPLES - self.next.len()));
            self.next.extend_from_slice(now);
            samples = later;
            if self.next.len() == PIECE_SAMPLES {
                self.send().await?;
            }
        }
        ControlFlow::Continue(())
    }

    /// Sends the samples collected so far.
    async fn send(&mut self) -> ControlFlow<()> {
        if self.next.is_empty() {
            return ControlFlow::Continue(());
        }
        let piece = std::mem::replace(&mut self.next, Vec::with_capacity(PIECE_SAMPLES));
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
            // In pieces of varying size, as decoders write them.
            let samples: Vec<i16> = (0..20 * PIECE_SAMPLES).map(|n| n as i16).collect();
            let mut rest = &samples[..];
            for size in (1..).map(|n| n * 77) {
                let (now, later) = rest.split_at(size.min(rest.len()));
                if now.is_empty() || pieces.push(now).await.is_break() {
                    break;
                }
                rest = later;
            }
            pieces.send().await
        });
        while receiver.len() < 2 {
            tokio::task::yield_now().await;
        }
        let mut received: Vec<i16> = Vec::new();
        while let Some(piece) = receiver.recv().await {
            let piece = piece.unwrap();
            assert!(receiver.len() <= 2 && piece.len() <= PIECE_SAMPLES);
            received.extend(piece);
        }
        assert!(decoder.await.unwrap().is_continue());
        assert!(received.iter().copied().eq((3..20 * PIECE_SAMPLES).map(|n| n as i16)));
    }

    #[tokio::test]
    async fn a_decoder_ends_with_its_receiver() {
        let (sender, receiver) = mpsc::channel(1);
        let mut pieces = Pieces { sender, skip: 0, next: Vec::new() };
        assert!(pieces.push(&[0; PIECE_SAMPLES]).await.is_continue());
        drop(receiver);
        assert!(pieces.push(&[0; 1]).await.is_break());
    }
}
