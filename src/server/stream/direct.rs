//! Status streams over HTTP/1.1 without hyper, which keeps some ten kilobytes for each connection. This module reads a
//! connection's first request. If it opens a stream, the same routes as ever answer it, and its socket moves into a
//! [`Writer`], which holds a few hundred bytes. Every other connection goes to hyper with the bytes already read.
//! Framing: RFC 9112, 7.1 "Chunked Transfer Coding". Called by the accept loop in `accept`.

use super::{Outgoing, StatusStream, socket};
use crate::server::{address::PeerAddress, connections::ConnectionPermit};
use axum::{
    Router,
    body::Body,
    http::{HeaderName, HeaderValue, Method, Request, Response, Uri, header},
};
use bytes::{Buf, Bytes, BytesMut};
use std::{
    collections::VecDeque,
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::{Duration, SystemTime},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::TcpStream,
    time,
};
use tower::ServiceExt;

/// Requests with more headers are left to hyper.
const MAX_HEADERS: usize = 64;
/// The first bytes of an HTTP/2 connection: RFC 9113, 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The answer to a head that didn't arrive in time.
const TIMEOUT_RESPONSE: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
/// The most events written at once.
const BATCH: usize = 8;
/// The size in bytes from which on no event is added to a batch.
const BATCH_BYTES: usize = 16 * 1024;

/// Put into a request by [`dispatch`]: its stream may be handed over with [`Handover`].
#[derive(Clone, Copy, Debug)]
pub struct Direct;

/// Put into a response by a route that opens a stream: the stream itself, in place of a body.
#[derive(Clone)]
pub struct Handover(Arc<Mutex<Option<StatusStream>>>);

impl Handover {
    /// Hands `stream` over.
    #[must_use]
    pub fn new(stream: StatusStream) -> Self {
        Self(Arc::new(Mutex::new(Some(stream))))
    }

    fn take(&self) -> Option<StatusStream> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Who serves a new connection.
#[expect(clippy::large_enum_variant, reason = "it is moved once, into the task that the stream becomes")]
pub(crate) enum Dispatch {
    /// A stream: run the writer to its end.
    Stream(Writer),
    /// Anything else, HTTP/1 or malformed: for hyper, with the bytes already read.
    Http1(TcpStream, Bytes),
    Http2(TcpStream, Bytes),
    /// Nobody: nothing came in time, or the client has gone.
    Closed,
}

/// Limits of the first head of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadLimits {
    pub(crate) bytes: usize,
    /// From accepting the connection to the end of the head.
    pub(crate) time: Duration,
}

/// Reads the head of a connection's first request. If it opens a stream and there are `routes` for it, answers it.
pub(crate) async fn dispatch(
    mut stream: TcpStream,
    from: PeerAddress,
    limits: HeadLimits,
    routes: Option<&Router>,
) -> Dispatch {
    let mut read = BytesMut::with_capacity(1024);
    let head = match time::timeout(limits.time, read_head(&mut stream, &mut read, limits.bytes)).await {
        Ok(Ok(head)) => head,
        Ok(Err(_)) => return Dispatch::Closed,
        Err(_) => {
            // A client that has sent nothing expects no answer.
            if !read.is_empty() {
                let _ = stream.try_write(TIMEOUT_RESPONSE);
            }
            return Dispatch::Closed;
        }
    };
    let mut request = match (head, routes) {
        (Head::Stream(request), Some(_)) => *request,
        (Head::Http2, _) => return Dispatch::Http2(stream, read.freeze()),
        _ => return Dispatch::Http1(stream, read.freeze()),
    };
    let Some(router) = routes else { return Dispatch::Http1(stream, read.freeze()) };
    request.extensions_mut().insert(from);
    let Ok(response) = router.clone().oneshot(request).await;
    let Some(status_stream) = response.extensions().get::<Handover>().and_then(Handover::take) else {
        // Refused or not found: hyper answers it, because the writer knows streams only.
        return Dispatch::Http1(stream, read.freeze());
    };
    socket::prepare_stream(&stream);
    Dispatch::Stream(Writer::new(stream, status_stream, response_head(&response)))
}

/// Reads until the head is complete, longer than `max`, or invalid.
async fn read_head(stream: &mut TcpStream, read: &mut BytesMut, max: usize) -> io::Result<Head> {
    loop {
        let before = read.len();
        if stream.read_buf(read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // A head ends with a line break, so a head that comes byte by byte is parsed once for each line.
        if before > 0 && !read[before..].contains(&b'\n') && read.len() < max {
            continue;
        }
        match head(read) {
            Head::Partial if read.len() < max => {}
            // Left to hyper, which answers with the error.
            Head::Partial => return Ok(Head::Other),
            head => return Ok(head),
        }
    }
}

enum Head {
    Partial,
    Other,
    Http2,
    Stream(Box<Request<Body>>),
}

/// Parses a request's head as far as it was received. Anything unusual is left to hyper.
fn head(bytes: &[u8]) -> Head {
    if bytes.starts_with(PREFACE) {
        return Head::Http2;
    }
    if PREFACE.starts_with(bytes) {
        return Head::Partial;
    }
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    match parsed.parse(bytes) {
        Ok(httparse::Status::Partial) => return Head::Partial,
        Err(_) => return Head::Other,
        Ok(httparse::Status::Complete(_)) => {}
    }
    if parsed.method != Some("GET") || !parsed.path.is_some_and(is_stream) {
        return Head::Other;
    }
    request(&parsed).map_or(Head::Other, |request| Head::Stream(Box::new(request)))
}

/// Whether a request's target is one of the routes of streams.
fn is_stream(target: &str) -> bool {
    let path = target.split('?').next().unwrap_or(target);
    path == "/api/v1/status/stream"
        || path == "/api/v1/models/stream"
        || path == "/api/v1/admin/stream"
        || (path.starts_with("/api/v1/sessions/") && path.ends_with("/status/stream"))
}

/// The request, if it is HTTP/1.1, has no body and asks for no other protocol.
fn request(parsed: &httparse::Request<'_, '_>) -> Option<Request<Body>> {
    if parsed.version != Some(1) {
        return None;
    }
    let mut request = Request::new(Body::empty());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = parsed.path?.parse::<Uri>().ok()?;
    let headers = request.headers_mut();
    for header in parsed.headers.iter() {
        let name = HeaderName::from_bytes(header.name.as_bytes()).ok()?;
        if [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::UPGRADE, header::EXPECT].contains(&name) {
            return None;
        }
        headers.append(name, HeaderValue::from_bytes(header.value).ok()?);
    }
    // RFC 9112, 3.2: a request without exactly one Host is refused, which hyper and the routes do.
    if headers.get_all(header::HOST).iter().count() != 1 {
        return None;
    }
    request.extensions_mut().insert(Direct);
    Some(request)
}

/// The head of a chunked response that is the last of its connection.
fn response_head(response: &Response<Body>) -> Bytes {
    let date = httpdate::fmt_http_date(SystemTime::now());
    let head = format!("HTTP/1.1 {}\r\ndate: {date}\r\n", response.status());
    let mut headers = response.headers().clone();
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    let mut bytes = head.into_bytes();
    for (name, value) in &headers {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.into()
}

/// Writes one stream to its socket until it ends or the client goes.
pub(crate) struct Writer {
    socket: TcpStream,
    stream: StatusStream,
    /// What the socket hasn't accepted yet; empty unless it is blocked.
    unsent: VecDeque<Bytes>,
    /// Whether the last chunk was written or is in `unsent`.
    finished: bool,
    /// Keeps the connection counted as open.
    permit: Option<ConnectionPermit>,
}

impl Writer {
    fn new(socket: TcpStream, stream: StatusStream, head: Bytes) -> Self {
        Self { socket, stream, unsent: VecDeque::from([head]), finished: false, permit: None }
    }

    /// Keeps the connection's permit until it ends.
    pub(crate) fn with_permit(mut self, permit: ConnectionPermit) -> Self {
        self.permit = Some(permit);
        self
    }

    /// Ready when the client has closed its side or the connection broke. What the client sends is thrown away: the
    /// connection of a stream carries no second request.
    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut bytes = [std::mem::MaybeUninit::uninit(); 256];
        loop {
            let mut buf = ReadBuf::uninit(&mut bytes);
            match Pin::new(&mut self.socket).poll_read(cx, &mut buf) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(()),
            }
        }
    }

    /// Writes what the socket didn't accept before. Ready with an error when the connection is broken.
    fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(bytes) = self.unsent.front_mut() {
            match Pin::new(&mut self.socket).poll_write(cx, bytes) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => {
                    bytes.advance(n);
                    if bytes.is_empty() {
                        self.unsent.pop_front();
                    }
                    self.stream.record_write(true);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.stream.record_write(false);
                    self.stream.register(cx);
                    return Poll::Pending;
                }
            }
        }
        if self.unsent.capacity() > 0 {
            self.unsent = VecDeque::new();
        }
        Poll::Ready(Ok(()))
    }

    /// Takes the events that the stream has now, up to a batch, and whether there are more.
    fn take_batch(&mut self, cx: &mut Context<'_>) -> (Batch, More) {
        let mut batch = Batch::default();
        while batch.len < BATCH && batch.bytes < BATCH_BYTES {
            match self.stream.poll_next(cx) {
                Poll::Ready(Some(out)) => batch.push(out),
                Poll::Ready(None) => return (batch, More::Never),
                Poll::Pending => return (batch, More::Later),
            }
        }
        (batch, More::Now)
    }

    /// Writes a batch as one chunk, without a copy unless it is compressed. What the socket doesn't accept goes to
    /// `unsent`.
    fn poll_batch(&mut self, cx: &mut Context<'_>, batch: &Batch, last: bool) -> io::Result<()> {
        let compressed = self.stream.compress(batch.texts(), last);
        let plain = compressed.is_none().then(|| batch.texts());
        let pieces = || compressed.iter().chain(plain.clone().into_iter().flatten());
        let bytes = compressed.as_ref().map_or(batch.bytes, Bytes::len);
        let mut size = [0; 18];
        let size = match bytes {
            0 => &[],
            bytes => chunk_size(&mut size, bytes),
        };
        let end: &'static [u8] = match (bytes, last) {
            (0, _) => b"0\r\n\r\n",
            (_, false) => b"\r\n",
            (_, true) => b"\r\n0\r\n\r\n",
        };
        let mut parts = [IoSlice::new(&[]); BATCH + 2];
        parts[0] = IoSlice::new(size);
        let mut len = 1;
        for piece in pieces() {
            parts[len] = IoSlice::new(piece);
            len += 1;
        }
        parts[len] = IoSlice::new(end);
        let parts = &parts[..=len];
        let written = match Pin::new(&mut self.socket).poll_write_vectored(cx, parts) {
            Poll::Ready(result) => result?,
            Poll::Pending => 0,
        };
        self.stream.record_events(batch.iter(), bytes);
        if written < parts.iter().map(|part| part.len()).sum() {
            self.unsent.push_back(Bytes::copy_from_slice(size));
            self.unsent.extend(pieces().cloned());
            self.unsent.push_back(Bytes::from_static(end));
            self.skip_written(written);
        }
        self.finished |= last;
        Ok(())
    }

    /// Removes the first `written` bytes of `unsent`.
    fn skip_written(&mut self, mut written: usize) {
        while let Some(bytes) = self.unsent.front_mut() {
            if bytes.len() > written {
                return bytes.advance(written);
            }
            written -= bytes.len();
            self.unsent.pop_front();
        }
    }
}

impl Future for Writer {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if this.poll_closed(cx).is_ready() {
            return Poll::Ready(());
        }
        loop {
            if this.stream.is_cut() {
                return Poll::Ready(());
            }
            match ready!(this.poll_unsent(cx)) {
                Ok(()) if !this.finished => {}
                Ok(()) => {
                    let _ = Pin::new(&mut this.socket).poll_shutdown(cx);
                    return Poll::Ready(());
                }
                Err(_) => return Poll::Ready(()),
            }
            let (batch, more) = this.take_batch(cx);
            let last = more == More::Never;
            if (batch.len > 0 || last) && this.poll_batch(cx, &batch, last).is_err() {
                return Poll::Ready(());
            }
            if more == More::Later && this.unsent.is_empty() {
                return Poll::Pending;
            }
        }
    }
}

/// When a stream has more to send than what was just taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum More {
    Now,
    /// Later; the task is woken then.
    Later,
    Never,
}

/// Events that are written together. It lives on the stack during one poll.
#[derive(Default)]
struct Batch {
    events: [Option<Outgoing>; BATCH],
    len: usize,
    bytes: usize,
}

impl Batch {
    fn push(&mut self, out: Outgoing) {
        self.bytes += out.frame.text().len();
        self.events[self.len] = Some(out);
        self.len += 1;
    }

    fn iter(&self) -> impl Iterator<Item = &Outgoing> + Clone {
        self.events.iter().flatten()
    }

    fn texts(&self) -> impl Iterator<Item = &Bytes> + Clone {
        self.iter().map(|out| out.frame.text())
    }
}

/// A chunk's first line: its size in hexadecimal digits.
fn chunk_size(line: &mut [u8; 18], bytes: usize) -> &[u8] {
    let mut rest = io::Cursor::new(&mut line[..]);
    let _ = io::Write::write_fmt(&mut rest, format_args!("{bytes:x}\r\n"));
    let len = rest.position() as usize;
    &line[..len]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_stream_request(text: &str) -> bool {
        matches!(head(text.as_bytes()), Head::Stream(_))
    }

    #[test]
    fn only_plain_requests_for_a_stream_are_answered_here() {
        let request = |line: &str, more: &str| format!("{line} HTTP/1.1\r\nHost: a\r\n{more}\r\n");
        assert!(is_stream_request(&request("GET /api/v1/status/stream", "")));
        assert!(is_stream_request(&request(
            "GET /api/v1/sessions/x/status/stream?last_event_id=1.2",
            "Last-Event-ID: 3.4\r\n"
        )));
        for line in [
            "GET /",
            "GET /api/v1/status",
            "HEAD /api/v1/status/stream",
            "POST /api/v1/status/stream",
            "GET /api/v1/status/streams",
        ] {
            assert!(!is_stream_request(&request(line, "")), "{line}");
        }
        for more in ["Content-Length: 3\r\n", "Upgrade: h2c\r\n", "Host: b\r\n", "Transfer-Encoding: chunked\r\n"] {
            assert!(!is_stream_request(&request("GET /api/v1/status/stream", more)), "{more}");
        }
        assert!(!is_stream_request("GET /api/v1/status/stream HTTP/1.0\r\nHost: a\r\n\r\n"));
        assert!(!is_stream_request("GET /api/v1/status/stream HTTP/1.1\r\n\r\n"));
        assert!(matches!(head(PREFACE), Head::Http2));
        assert!(matches!(head(b"\x16\x03\x01\x02"), Head::Other));
    }

    #[test]
    fn a_head_may_come_in_any_pieces() {
        let text = "GET /api/v1/status/stream HTTP/1.1\r\nHost: a\r\nCookie: b=c\r\n\r\n";
        let post = b"POST /api/v1/status HTTP/1.1\r\nHost: a\r\n\r\n";
        for whole in [text.as_bytes(), post, PREFACE] {
            for cut in 0..whole.len() {
                assert!(matches!(head(&whole[..cut]), Head::Partial), "{cut}");
            }
        }
        assert!(is_stream_request(text));
    }

    #[test]
    fn chunk_sizes_are_hexadecimal() {
        let mut line = [0; 18];
        assert_eq!(chunk_size(&mut line, 255), b"ff\r\n");
        assert_eq!(chunk_size(&mut line, usize::MAX), b"ffffffffffffffff\r\n");
    }
}
