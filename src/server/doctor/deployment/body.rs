//! The bodies of uploads that make no session: one that says it is large and stops after its first lines, and one that
//! comes slowly. Sent by `probe`.

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep_until};

const BOUNDARY: &str = "hark-doctor";
/// The `Content-Type` of these bodies.
pub(super) const CONTENT_TYPE: &str = "multipart/form-data; boundary=hark-doctor";
/// A field with an engine that Hark doesn't have, so that it refuses the form and keeps nothing.
const REFUSED: &str = "--hark-doctor\r\nContent-Disposition: form-data; name=\"engine\"\r\n\r\ndoctor\r\n";
/// What Hark answers for that field.
pub(super) const REFUSAL: &str = "unknown_engine";
const FILE: &str = "--hark-doctor\r\nContent-Disposition: form-data; name=\"file\"; filename=\"doctor\"\r\n\r\n";

/// A body that comes piece by piece, and never ends if fewer pieces come than it says.
pub(super) struct Pieces {
    /// Bytes that the request says are still to come.
    left: u64,
    pieces: std::vec::IntoIter<Bytes>,
    /// The time between two pieces.
    pause: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Pieces {
    /// A form of `bytes` that stops after its first lines. Hark refuses it by these, if it gets them.
    pub(super) fn declared(bytes: u64) -> Self {
        let first = Bytes::from(format!("{REFUSED}{FILE}{}", "0".repeat(64)));
        Self {
            left: bytes.max(first.len() as u64 + 1),
            pieces: vec![first].into_iter(),
            pause: Duration::ZERO,
            waiting: None,
        }
    }

    /// A whole form that comes over `secs` seconds, a piece of `piece` bytes in each. Hark refuses it by its last field.
    pub(super) fn slow(secs: u32, piece: usize) -> Self {
        let mut pieces = vec![Bytes::from_static(FILE.as_bytes())];
        pieces.extend((0..secs).map(|_| Bytes::from(vec![b'0'; piece])));
        pieces.push(format!("\r\n{REFUSED}--{BOUNDARY}--\r\n").into());
        let left = pieces.iter().map(|piece| piece.len() as u64).sum();
        Self { left, pieces: pieces.into_iter(), pause: Duration::from_secs(1), waiting: None }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(waiting) = &mut self.waiting {
            if waiting.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.waiting = None;
        }
        match self.pieces.next() {
            Some(piece) => {
                self.left = self.left.saturating_sub(piece.len() as u64);
                if !self.pause.is_zero() && self.pieces.len() > 1 {
                    self.waiting = Some(Box::pin(sleep_until(Instant::now() + self.pause)));
                }
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            None if self.left == 0 => Poll::Ready(None),
            // Whoever sends this drops it.
            None => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn a_slow_form_is_as_long_as_it_says_and_takes_its_time() {
        let (mut body, begun) = (Pieces::slow(5, 100), Instant::now());
        body.pause = Duration::from_millis(10);
        let said = body.size_hint().exact().unwrap();
        let form = body.collect().await.unwrap().to_bytes();
        assert_eq!(form.len() as u64, said);
        assert!(begun.elapsed() >= Duration::from_millis(50));
        let text = String::from_utf8(form.to_vec()).unwrap();
        assert!(text.ends_with("doctor\r\n--hark-doctor--\r\n") && text.contains(&"0".repeat(500)));
    }

    #[tokio::test]
    async fn a_declared_form_says_how_long_it_is_and_stops() {
        let mut body = Pieces::declared(2_000_000_000);
        assert_eq!(body.size_hint().exact(), Some(2_000_000_000));
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(first.starts_with(REFUSED.as_bytes()));
        let next = tokio::time::timeout(Duration::from_millis(10), body.frame()).await;
        assert!(next.is_err() && !body.is_end_stream());
    }
}
