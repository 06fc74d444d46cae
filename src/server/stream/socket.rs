//! A connection as hyper sees it: what was already read comes first, and a write that gets stuck is noticed, so that
//! a client which reads nothing can be cut off.

use super::slot::Ticks;
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
};

/// What the kernel may hold of a stream that its client doesn't read, in bytes (it doubles the figure for its own
/// needs). A status is half a kilobyte; what waits here is stale when the client reads on.
const SEND_BUFFER: usize = 16 * 1024;
/// A peer that acknowledges nothing for this long is gone.
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// The hub's clock, shared with connections.
pub(super) type Clock = Arc<AtomicU32>;

/// What streams and their connection tell each other.
#[derive(Debug)]
pub struct Peer {
    clock: Clock,
    blocked: AtomicU32,
    /// Whether a status stream runs on it; a recording may be paused for as long as its listener likes.
    streams: AtomicBool,
    cut: AtomicBool,
    waker: AtomicWaker,
}

impl Peer {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
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
}

impl Socket {
    pub(crate) fn new(inner: TcpStream, before: Bytes, peer: Arc<Peer>) -> Self {
        Self { inner, before, peer, prepared: false }
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
            return Pin::new(&mut self.inner).poll_read(cx, buf);
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
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
