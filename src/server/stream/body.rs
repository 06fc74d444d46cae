//! A status stream as the body of a response, for connections that hyper serves.

use super::StatusStream;
use bytes::Bytes;
use http_body::{Body, Frame};
use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
};

/// A status stream as a response body.
pub struct StatusBody(pub StatusStream);

impl Body for StatusBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let out = ready!(self.0.poll_next(cx));
        let text = out.as_ref().map(|out| out.frame.text().clone());
        let bytes = match self.0.compress(text.iter(), text.is_none()) {
            Some(compressed) => Some(compressed).filter(|compressed| !compressed.is_empty()),
            None => text,
        };
        Poll::Ready(bytes.map(|bytes| {
            // hyper writes it at once unless the socket is blocked, which `Socket` notices.
            self.0.record_events(&out, bytes.len());
            Ok(Frame::data(bytes))
        }))
    }
}
