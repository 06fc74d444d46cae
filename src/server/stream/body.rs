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
        Poll::Ready(out.map(|out| {
            // hyper writes it at once unless the socket is blocked, which the connection itself watches.
            self.0.sent(&out);
            Ok(Frame::data(out.frame.text().clone()))
        }))
    }
}
