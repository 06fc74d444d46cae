//! A connection as hyper sees it: what was already read comes first, and a write that gets stuck is noticed, so that
//! a client which reads nothing can be cut off.

use super::ticks::{Clock, PER_SECOND, Ticks};
use bytes::{Buf, Bytes};
use futures::task::AtomicWaker;
use rustix::net::sockopt;
use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};

/// What the kernel may hold of a stream that its client doesn't read, in bytes (it doubles the figure for its own
/// needs). A status is half a kilobyte; what waits here is stale when the client reads on.
const SEND_BUFFER: usize = 16 * 1024;
/// A peer that acknowledges nothing for this long is gone.
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// A client that is answered while it still sends can only read the answer once it has sent all, and loses it if the
/// connection is closed on what it sent. So up to this much is read and thrown away, for at most this long.
const LINGER_BYTES: usize = 64 * 1024 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(10);
/// A client of which nothing comes for this long has nothing more to send.
const LINGER_SILENCE: Duration = Duration::from_secs(1);

/// What streams and their connection tell each other.
#[derive(Debug)]
pub struct Peer {
    clock: Clock,
    blocked: AtomicU32,
    /// Whether a status stream runs on it; a recording may be paused for as long as its listener likes.
    streams: AtomicBool,
    cut: AtomicBool,
    waker: AtomicWaker,
    /// Requests under way, up to the end of their answers.
    requests: AtomicU32,
    /// Those of them that are being answered.
    answers: AtomicU32,
    /// When something was last taken of an answer.
    taken: AtomicU32,
    /// Since when there is none.
    idle: AtomicU32,
    /// Since when the head of a request comes in, while no other is under way; 0 if none does.
    head: AtomicU32,
}

/// How long a connection may be silent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Silence {
    /// Without a request under way.
    pub(crate) idle: Duration,
    /// Between the first and the last byte of a request's head.
    pub(crate) head: Option<Duration>,
    /// With nothing under way but answers of which the client takes nothing.
    pub(crate) answer: Duration,
}

impl Silence {
    /// When to look at a new connection.
    pub(crate) fn first_look(self) -> Duration {
        self.head.map_or(self.idle, |head| head.min(self.idle)).min(self.answer)
    }
}

/// A request that came over a connection, until its answer has been sent or given up.
#[derive(Debug)]
pub(crate) struct RequestUnderWay(Arc<Peer>);

/// The answer to one, until it has been sent or given up.
#[derive(Debug)]
pub(crate) struct AnswerUnderWay(RequestUnderWay);

impl AnswerUnderWay {
    pub(crate) fn new(request: RequestUnderWay) -> Self {
        request.0.answers.fetch_add(1, Relaxed);
        let answer = Self(request);
        answer.goes_on();
        answer
    }

    /// The client has taken something, and more is asked for.
    pub(crate) fn goes_on(&self) {
        let Peer { clock, taken, .. } = &*self.0.0;
        taken.store(clock.load(Relaxed), Relaxed);
    }
}

impl Drop for AnswerUnderWay {
    fn drop(&mut self) {
        self.0.0.answers.fetch_sub(1, Relaxed);
    }
}

impl RequestUnderWay {
    pub(crate) fn new(peer: &Arc<Peer>) -> Self {
        peer.requests.fetch_add(1, Relaxed);
        peer.head.store(0, Relaxed);
        Self(Arc::clone(peer))
    }
}

impl Drop for RequestUnderWay {
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
            taken: AtomicU32::new(now),
            idle: AtomicU32::new(now),
            head: AtomicU32::new(0),
            clock,
            blocked: AtomicU32::new(0),
            streams: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }
    }

    pub(super) fn streams(&self) {
        self.streams.store(true, Relaxed);
    }

    pub(super) fn blocked_since(&self) -> Option<Ticks> {
        Some(self.blocked.load(Relaxed)).filter(|since| *since != 0)
    }

    pub(super) fn cut(&self) {
        self.cut.store(true, Relaxed);
        self.waker.wake();
    }

    /// After how long to look at the connection again; none if it has been silent for too long.
    pub(crate) fn next_look(&self, silence: Silence) -> Option<Duration> {
        let now = self.clock.load(Relaxed);
        let requests = self.requests.load(Relaxed);
        if requests > 0 {
            let stuck =
                self.answers.load(Relaxed) == requests && elapsed(now, self.taken.load(Relaxed)) >= silence.answer;
            return (!stuck).then(|| silence.first_look());
        }
        let idle = silence.idle.checked_sub(elapsed(now, self.idle.load(Relaxed))).filter(|left| !left.is_zero())?;
        let head = match (silence.head, self.head.load(Relaxed)) {
            (None, _) => return Some(idle),
            (Some(head), 0) => head,
            (Some(head), since) => head.checked_sub(elapsed(now, since)).filter(|left| !left.is_zero())?,
        };
        Some(idle.min(head))
    }

    /// Something was read.
    fn noted_read(&self) {
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

/// Sets what every connection needs. A socket that refuses still works.
pub(crate) fn prepare(socket: &TcpStream) {
    let _ = socket.set_nodelay(true);
    let _ = sockopt::set_tcp_user_timeout(socket, USER_TIMEOUT.as_millis() as u32);
}

/// Keeps the kernel from hoarding what a status stream's client doesn't read.
pub(super) fn prepare_stream(socket: &TcpStream) {
    let _ = sockopt::set_socket_send_buffer_size(socket, SEND_BUFFER);
}

/// A TCP connection under hyper.
pub(crate) struct Socket {
    inner: TcpStream,
    before: Bytes,
    peer: Arc<Peer>,
    prepared: bool,
    /// Once the last of the answers has been sent.
    linger: Option<Linger>,
}

/// What is left of a connection to which nothing more will be written.
struct Linger {
    bytes: usize,
    end: Instant,
    silence: Pin<Box<Sleep>>,
}

impl Socket {
    pub(crate) fn new(inner: TcpStream, before: Bytes, peer: Arc<Peer>) -> Self {
        Self { inner, before, peer, prepared: false, linger: None }
    }

    fn noted<T>(&mut self, result: Poll<T>) -> Poll<T> {
        let blocked = &self.peer.blocked;
        match &result {
            Poll::Ready(_) => blocked.store(0, Relaxed),
            Poll::Pending if blocked.load(Relaxed) == 0 => {
                blocked.store(self.peer.clock.load(Relaxed).max(1), Relaxed);
            }
            Poll::Pending => {}
        }
        if !self.prepared && self.peer.streams.load(Relaxed) {
            self.prepared = true;
            prepare_stream(&self.inner);
        }
        result
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.before.is_empty() {
            let before = buf.filled().len();
            let read = Pin::new(&mut self.inner).poll_read(cx, buf);
            if buf.filled().len() > before {
                self.peer.noted_read();
            }
            return read;
        }
        let n = self.before.len().min(buf.remaining());
        buf.put_slice(&self.before[..n]);
        self.before.advance(n);
        if self.before.is_empty() {
            self.before = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.noted(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.noted(result)
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
        let linger = this.linger.get_or_insert_with(|| Linger {
            bytes: LINGER_BYTES,
            end: now + LINGER_TIME,
            silence: Box::pin(sleep_until(now + LINGER_SILENCE)),
        });
        let mut bytes = [std::mem::MaybeUninit::uninit(); 16 * 1024];
        loop {
            if linger.silence.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut buf = ReadBuf::uninit(&mut bytes);
            match Pin::new(&mut this.inner).poll_read(cx, &mut buf) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) if !buf.filled().is_empty() && linger.bytes > buf.filled().len() => {
                    linger.bytes -= buf.filled().len();
                    linger.silence.as_mut().reset(linger.end.min(now + LINGER_SILENCE));
                }
                Poll::Ready(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}
