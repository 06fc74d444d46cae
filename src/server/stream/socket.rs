//! A connection as hyper sees it. It returns the bytes that were already read first, and notices writes that block, so
//! that a client which reads nothing can be disconnected.

use super::ticks::{Clock, PER_SECOND, Ticks};
use bytes::{Buf, Bytes};
use futures::task::AtomicWaker;
use rustix::net::sockopt;
use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};

/// The kernel's send buffer for a stream, in bytes (it doubles the figure for its own needs). A status is half a
/// kilobyte, and what waits here is stale when the client reads on.
const SEND_BUFFER: usize = 16 * 1024;
/// A peer that acknowledges nothing for this long counts as gone.
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// A client that is answered while it still sends may read the answer only once it has sent all, and loses it if the
/// connection is closed while it sends. So up to this many bytes are read and thrown away, for at most this long.
const LINGER_BYTES: u64 = 64 * 1024 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(10);
/// The same for an upload that was refused, all of which is read: some proxies send a whole request before they read its
/// answer, and tell their client "502 Bad Gateway" if the connection is closed meanwhile.
const UPLOAD_LINGER_TIME: Duration = Duration::from_secs(60);
/// A client that sends nothing for this long has nothing more to send.
const LINGER_IDLE: Duration = Duration::from_secs(1);

/// The state that streams share with their connection.
#[derive(Debug)]
pub struct Peer {
    clock: Clock,
    blocked_since: AtomicU32,
    /// Whether it carries a status stream. Other answers, such as a recording that is played, may be paused for as long
    /// as the client likes.
    has_stream: AtomicBool,
    cut: AtomicBool,
    waker: AtomicWaker,
    /// The number of requests in flight; each counts up to the end of its answer.
    requests: AtomicU32,
    /// The number of those that are being answered.
    answers: AtomicU32,
    /// When the client last read something of an answer.
    last_progress: AtomicU32,
    /// Since when no request is in flight.
    idle: AtomicU32,
    /// Since when the head of a request is being received while no other is in flight; 0 if none is.
    head: AtomicU32,
    /// How many bytes of an upload its client may still send after the answer; 0 if the last request is no upload.
    upload_bytes: AtomicU64,
}

/// The timeouts of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionTimeouts {
    /// Without a request in flight.
    pub(crate) idle: Duration,
    /// Between the first and the last byte of a request's head.
    pub(crate) head: Option<Duration>,
    /// With nothing in flight but answers of which the client reads nothing.
    pub(crate) answer: Duration,
}

impl ConnectionTimeouts {
    /// After how long to check a new connection.
    pub(crate) fn first_check(self) -> Duration {
        self.head.map_or(self.idle, |head| head.min(self.idle)).min(self.answer)
    }
}

/// A request on a connection, until its answer was sent or abandoned.
#[derive(Debug)]
pub(crate) struct InFlightRequest(Arc<Peer>);

/// The answer to a request, until it was sent or abandoned.
#[derive(Debug)]
pub(crate) struct InFlightResponse(InFlightRequest);

impl InFlightResponse {
    pub(crate) fn new(request: InFlightRequest) -> Self {
        request.0.answers.fetch_add(1, Relaxed);
        let answer = Self(request);
        answer.mark_progress();
        answer
    }

    /// Notes that the client has read something and more is asked for.
    pub(crate) fn mark_progress(&self) {
        let Peer { clock, last_progress, .. } = &*self.0.0;
        last_progress.store(clock.load(Relaxed), Relaxed);
    }
}

impl Drop for InFlightResponse {
    fn drop(&mut self) {
        self.0.0.answers.fetch_sub(1, Relaxed);
    }
}

impl InFlightRequest {
    pub(crate) fn new(peer: &Arc<Peer>) -> Self {
        peer.requests.fetch_add(1, Relaxed);
        peer.head.store(0, Relaxed);
        peer.upload_bytes.store(0, Relaxed);
        Self(Arc::clone(peer))
    }
}

impl Drop for InFlightRequest {
    fn drop(&mut self) {
        self.0.idle.store(self.0.clock.load(Relaxed), Relaxed);
        self.0.requests.fetch_sub(1, Relaxed);
    }
}

/// How long ago `since` was.
fn elapsed(now: Ticks, since: Ticks) -> Duration {
    Duration::from_millis(u64::from(now.saturating_sub(since)) * u64::from(1000 / PER_SECOND))
}

impl Peer {
    pub(super) fn new(clock: Clock) -> Self {
        let now = clock.load(Relaxed);
        Self {
            requests: AtomicU32::new(0),
            answers: AtomicU32::new(0),
            last_progress: AtomicU32::new(now),
            idle: AtomicU32::new(now),
            head: AtomicU32::new(0),
            upload_bytes: AtomicU64::new(0),
            clock,
            blocked_since: AtomicU32::new(0),
            has_stream: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }
    }

    /// Says that the request which has arrived is an upload of so many bytes, within the limit of uploads.
    pub(crate) fn expect_upload(&self, bytes: u64) {
        self.upload_bytes.store(bytes, Relaxed);
    }

    /// How much is read and thrown away after the last answer, in bytes, and for how long.
    fn linger_limits(&self) -> (u64, Duration) {
        match self.upload_bytes.load(Relaxed) {
            bytes if bytes > LINGER_BYTES => (bytes, UPLOAD_LINGER_TIME),
            _ => (LINGER_BYTES, LINGER_TIME),
        }
    }

    pub(super) fn mark_stream(&self) {
        self.has_stream.store(true, Relaxed);
    }

    pub(super) fn blocked_since(&self) -> Option<Ticks> {
        Some(self.blocked_since.load(Relaxed)).filter(|since| *since != 0)
    }

    pub(super) fn cut(&self) {
        self.cut.store(true, Relaxed);
        self.waker.wake();
    }

    /// After how long to check the connection again; none if a timeout has passed.
    pub(crate) fn next_check(&self, timeouts: ConnectionTimeouts) -> Option<Duration> {
        let now = self.clock.load(Relaxed);
        let requests = self.requests.load(Relaxed);
        if requests > 0 {
            let stuck = self.answers.load(Relaxed) == requests
                && elapsed(now, self.last_progress.load(Relaxed)) >= timeouts.answer;
            return (!stuck).then(|| timeouts.first_check());
        }
        let idle = timeouts.idle.checked_sub(elapsed(now, self.idle.load(Relaxed))).filter(|left| !left.is_zero())?;
        let head = match (timeouts.head, self.head.load(Relaxed)) {
            (None, _) => return Some(idle),
            (Some(head), 0) => head,
            (Some(head), since) => head.checked_sub(elapsed(now, since)).filter(|left| !left.is_zero())?,
        };
        Some(idle.min(head))
    }

    /// Notes that something was read.
    fn mark_read(&self) {
        if self.requests.load(Relaxed) == 0 && self.head.load(Relaxed) == 0 {
            self.head.store(self.clock.load(Relaxed).max(1), Relaxed);
        }
    }

    /// Ready once the connection must be dropped.
    pub(crate) fn poll_cut(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker());
        if self.cut.load(Relaxed) { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Sets the options of every connection. A socket that refuses one still works.
pub(crate) fn prepare(socket: &TcpStream) {
    let _ = socket.set_nodelay(true);
    let _ = sockopt::set_tcp_user_timeout(socket, USER_TIMEOUT.as_millis() as u32);
}

/// Limits how much the kernel buffers of a status stream that its client doesn't read.
pub(super) fn prepare_stream(socket: &TcpStream) {
    let _ = sockopt::set_socket_send_buffer_size(socket, SEND_BUFFER);
}

/// A TCP connection under hyper.
pub(crate) struct Socket {
    inner: TcpStream,
    already_read: Bytes,
    peer: Arc<Peer>,
    prepared: bool,
    /// Set once the last answer was sent.
    linger: Option<Linger>,
}

/// The rest of a connection to which nothing more will be written: what the client still sends is thrown away.
struct Linger {
    bytes: u64,
    end: Instant,
    idle_timer: Pin<Box<Sleep>>,
}

impl Socket {
    pub(crate) fn new(inner: TcpStream, already_read: Bytes, peer: Arc<Peer>) -> Self {
        Self { inner, already_read, peer, prepared: false, linger: None }
    }

    fn track_blocking<T>(&mut self, result: Poll<T>) -> Poll<T> {
        let blocked_since = &self.peer.blocked_since;
        match &result {
            Poll::Ready(_) => blocked_since.store(0, Relaxed),
            Poll::Pending if blocked_since.load(Relaxed) == 0 => {
                blocked_since.store(self.peer.clock.load(Relaxed).max(1), Relaxed);
            }
            Poll::Pending => {}
        }
        if !self.prepared && self.peer.has_stream.load(Relaxed) {
            self.prepared = true;
            prepare_stream(&self.inner);
        }
        result
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.already_read.is_empty() {
            let before = buf.filled().len();
            let read = Pin::new(&mut self.inner).poll_read(cx, buf);
            if buf.filled().len() > before {
                self.peer.mark_read();
            }
            return read;
        }
        let n = self.already_read.len().min(buf.remaining());
        buf.put_slice(&self.already_read[..n]);
        self.already_read.advance(n);
        if self.already_read.is_empty() {
            self.already_read = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.track_blocking(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.track_blocking(result)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.linger.is_none() {
            std::task::ready!(Pin::new(&mut this.inner).poll_shutdown(cx))?;
        }
        let now = Instant::now();
        let peer = &this.peer;
        let linger = this.linger.get_or_insert_with(|| {
            let (bytes, time) = peer.linger_limits();
            Linger { bytes, end: now + time, idle_timer: Box::pin(sleep_until(now + LINGER_IDLE)) }
        });
        let mut bytes = [std::mem::MaybeUninit::uninit(); 16 * 1024];
        loop {
            if linger.idle_timer.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut buf = ReadBuf::uninit(&mut bytes);
            match Pin::new(&mut this.inner).poll_read(cx, &mut buf) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) if !buf.filled().is_empty() && linger.bytes > buf.filled().len() as u64 => {
                    linger.bytes -= buf.filled().len() as u64;
                    linger.idle_timer.as_mut().reset(linger.end.min(now + LINGER_IDLE));
                }
                Poll::Ready(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}
