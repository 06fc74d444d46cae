//! The samples of a session on their way from the decoder to the engine. The decoder is at most a minute ahead and waits
//! for the engine, so a recording takes no room on the disk and next to none in memory, however long it is. A second run
//! of the decoder, which keeps nothing, hurries ahead and finds the exact length and the waveform. Called by `job`.

use crate::server::audio::{self, AudioError, Decoded, Limits, SAMPLE_RATE};
use std::{ops::ControlFlow, path::PathBuf, sync::Arc};
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

/// Decodes `recording` only to find out how long it is, what it looks like and whether it is sound, on a thread of its
/// own, until done or `stop`.
pub(super) fn survey(recording: PathBuf, max_duration: f64, stop: CancellationToken) -> watch::Receiver<Survey> {
    let (told, watching) = watch::channel(Survey::default());
    tokio::task::spawn_blocking(move || {
        let result = audio::decode(&recording, &Limits { max_duration }, &mut |_| {
            told.send_if_modified(|survey| !std::mem::replace(&mut survey.begun, true));
            Ok(if stop.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        });
        told.send_modify(|survey| survey.end = Some(Arc::new(result)));
    });
    watching
}

/// Decodes `recording` from sample `from` on a thread of its own, which waits while the samples aren't fetched, and ends
/// with the receiver. They end with the recording, or where it can't be decoded any further: why, the survey knows.
pub(super) fn samples(recording: PathBuf, max_duration: f64, from: u64) -> mpsc::Receiver<Vec<i16>> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::task::spawn_blocking(move || {
        let mut pieces = Pieces { sender, skip: from, next: Vec::with_capacity(PIECE) };
        let decoded = audio::decode(&recording, &Limits { max_duration }, &mut |samples| Ok(pieces.take(samples)));
        if let Err(error) = decoded {
            tracing::debug!(%error, "a recording ends early");
        }
        let _ = pieces.send();
    });
    receiver
}

/// Cuts what a decoder hands out into pieces of one size, so that their number bounds the memory.
struct Pieces {
    sender: mpsc::Sender<Vec<i16>>,
    /// Samples still to be left out.
    skip: u64,
    next: Vec<i16>,
}

impl Pieces {
    /// Takes what comes next. Waits while the receiver is busy, and breaks off when it is gone.
    fn take(&mut self, mut samples: &[i16]) -> ControlFlow<()> {
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
                self.send()?;
            }
        }
        ControlFlow::Continue(())
    }

    /// Sends what has gathered.
    fn send(&mut self) -> ControlFlow<()> {
        if self.next.is_empty() {
            return ControlFlow::Continue(());
        }
        let piece = std::mem::replace(&mut self.next, Vec::with_capacity(PIECE));
        match self.sender.blocking_send(piece) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_arrive_in_order_and_the_decoder_waits() {
        let (sender, mut receiver) = mpsc::channel(2);
        let mut pieces = Pieces { sender, skip: 3, next: Vec::new() };
        let decoder = std::thread::spawn(move || {
            // In pieces of every size, as decoders have them.
            let samples: Vec<i16> = (0..20 * PIECE).map(|n| n as i16).collect();
            let mut rest = &samples[..];
            for size in (1..).map(|n| n * 77) {
                let (now, later) = rest.split_at(size.min(rest.len()));
                if now.is_empty() || pieces.take(now).is_break() {
                    break;
                }
                rest = later;
            }
            pieces.send()
        });
        while receiver.len() < 2 {
            std::thread::yield_now();
        }
        let mut heard: Vec<i16> = Vec::new();
        while let Some(piece) = receiver.blocking_recv() {
            assert!(receiver.len() <= 2 && piece.len() <= PIECE);
            heard.extend(piece);
        }
        assert!(decoder.join().unwrap().is_continue());
        assert!(heard.iter().copied().eq((3..20 * PIECE).map(|n| n as i16)));
    }

    #[test]
    fn a_decoder_ends_with_its_receiver() {
        let (sender, receiver) = mpsc::channel(1);
        let mut pieces = Pieces { sender, skip: 0, next: Vec::new() };
        assert!(pieces.take(&[0; PIECE]).is_continue());
        drop(receiver);
        assert!(pieces.take(&[0; 1]).is_break());
    }
}
