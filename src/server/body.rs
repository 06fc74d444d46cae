//! Limits on bodies of requests, in bytes and in time: [`LimitedBody`] for small ones, [`UploadBody`] for uploads; and
//! [`WholeBody`], which isn't mistaken for complete when its client goes. A fault is also noted outside the body, because what reads a body may hide or reword its errors. Called by `guard`,
//! `http::to_end` and `http::upload`.

use super::{config::UploadConfig, error::Error};
use axum::body::Body;
use bytes::Bytes;
use futures::Stream;
use http_body::{Frame, SizeHint};
use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep_until};

/// Why a body was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is larger than allowed.
    TooLarge,
    /// It didn't arrive in time.
    TooSlow,
    /// The client sent nothing for too long.
    Silent,
    /// Too much came between the parts of a form.
    LongPartHead,
    /// The client sent it in a broken way, or has gone.
    BrokenOff,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "the body is larger than allowed",
            Self::TooSlow => "the body didn't come in time",
            Self::Silent => "nothing came of the body",
            Self::LongPartHead => "too much came between the parts of the form",
            Self::BrokenOff => "the body broke off",
        })
    }
}

impl std::error::Error for Fault {}

/// The first fault of a body, shared with whoever passed the body on.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<Option<Fault>>>);

impl Faults {
    fn note(&self, fault: Fault) -> Fault {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(fault)
    }

    /// The fault, if there was one.
    #[must_use]
    pub fn get(&self) -> Option<Fault> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A body that records whether it was read to its end.
pub struct TrackedBody {
    inner: Body,
    ended: Arc<AtomicBool>,
}

impl TrackedBody {
    /// The body, and a flag that becomes true at its end.
    #[must_use]
    pub fn new(inner: Body) -> (Self, Arc<AtomicBool>) {
        let ended = Arc::new(AtomicBool::new(http_body::Body::is_end_stream(&inner)));
        (Self { inner, ended: Arc::clone(&ended) }, ended)
    }
}

impl http_body::Body for TrackedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(cx);
        if matches!(frame, Poll::Ready(None)) || self.inner.is_end_stream() {
            self.ended.store(true, Relaxed);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A body that breaks off unless all of it has come. hyper ends a body when it drops the connection, which nobody notices who
/// reads it in a task of its own: half of a message would be taken for all of it.
pub struct WholeBody {
    inner: Body,
    /// How many bytes are to come, if the client has said so.
    remaining: Option<u64>,
    client: Weak<Client>,
}

/// Stands for the client of a [`WholeBody`], until it is dropped.
#[derive(Debug)]
pub struct Client;

impl WholeBody {
    /// The body, and its client, to be kept for as long as there is a connection.
    #[must_use]
    pub fn new(inner: Body) -> (Self, Arc<Client>) {
        let remaining = http_body::Body::size_hint(&inner).exact();
        let client = Arc::new(Client);
        (Self { inner, remaining, client: Arc::downgrade(&client) }, client)
    }

    fn is_whole(&self) -> bool {
        self.remaining.map_or(self.client.strong_count() > 0, |bytes| bytes == 0)
    }
}

impl http_body::Body for WholeBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                self.remaining = self.remaining.map(|remaining| remaining.saturating_sub(bytes));
            }
            None if !self.is_whole() => return Poll::Ready(Some(Err(axum::Error::new(Fault::BrokenOff)))),
            _ => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream() && self.is_whole()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A timer that is created when it is first needed: most bodies are complete when they are read.
#[derive(Default)]
struct LazyTimer(Option<Pin<Box<Sleep>>>);

impl LazyTimer {
    fn poll(&mut self, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if sleep.deadline() != at {
            sleep.as_mut().reset(at);
        }
        sleep.as_mut().poll(cx)
    }
}

/// A body with a limit in bytes and a deadline, which starts when the body is first read.
pub struct LimitedBody {
    inner: Body,
    remaining: u64,
    time: Duration,
    deadline: Option<Instant>,
    timer: LazyTimer,
    faults: Faults,
}

impl LimitedBody {
    /// The body with its limits, and where its fault is noted.
    #[must_use]
    pub fn new(inner: Body, bytes: u64, time: Duration) -> (Self, Faults) {
        let faults = Faults::default();
        let body =
            Self { inner, remaining: bytes, time, deadline: None, timer: LazyTimer::default(), faults: faults.clone() };
        (body, faults)
    }
}

impl http_body::Body for LimitedBody {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let this = &mut *self;
        if let Some(fault) = this.faults.get() {
            return Poll::Ready(Some(Err(fault)));
        }
        let now_or = |deadline: Option<Instant>, time| deadline.unwrap_or_else(|| Instant::now() + time);
        let deadline = *this.deadline.insert(now_or(this.deadline, this.time));
        let fault = match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                // The deadline also holds for a client that always has another byte ready.
                if bytes > this.remaining {
                    Fault::TooLarge
                } else if Instant::now() >= deadline {
                    Fault::TooSlow
                } else {
                    this.remaining -= bytes;
                    return Poll::Ready(Some(Ok(frame)));
                }
            }
            Poll::Ready(Some(Err(_))) => Fault::BrokenOff,
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => match this.timer.poll(deadline, cx) {
                Poll::Ready(()) => Fault::TooSlow,
                Poll::Pending => return Poll::Pending,
            },
        };
        // What the client still sends is dropped with its connection.
        this.inner = Body::empty();
        Poll::Ready(Some(Err(this.faults.note(fault))))
    }

    fn is_end_stream(&self) -> bool {
        self.faults.get().is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The limits of an upload.
#[derive(Clone, Copy, Debug)]
pub struct UploadLimits {
    /// The size of the whole request, in bytes.
    pub bytes: u64,
    pub silence: Duration,
    /// The lowest rate, in bytes a second.
    pub rate: u32,
    /// How long the rate is averaged over. Only time spent waiting for the client counts, because a slow disk of the
    /// server isn't its fault.
    pub window: Duration,
}

impl UploadLimits {
    /// The limits as configured, for a request of at most so many bytes.
    #[must_use]
    pub fn new(config: &UploadConfig, bytes: u64) -> Self {
        Self {
            bytes,
            silence: Duration::from_secs(config.upload_silence_secs.into()),
            rate: config.min_upload_rate,
            window: Duration::from_secs(config.upload_window_secs.into()),
        }
    }
}

/// How many bytes may come between the data of two parts of a form, and before the first part. The parser holds all of
/// them, and searches them from the start with every piece.
const MAX_PART_HEAD: u32 = 8 * 1024;
/// Says that the parser is in the data of a part, which it passes on as it comes.
const IN_DATA: u32 = u32::MAX;

/// How many bytes the parser of an upload's form may still hold. The parser's caller sets it, because only it knows
/// where the parser is.
#[derive(Clone, Debug)]
pub struct ParserState(Arc<AtomicU32>);

impl ParserState {
    /// Says that the parser searches for the next part.
    pub fn searches_part(&self) {
        self.0.store(MAX_PART_HEAD, Relaxed);
    }

    /// Says that the parser reads a part's data.
    pub fn reads_data(&self) {
        self.0.store(IN_DATA, Relaxed);
    }
}

/// The body of an upload, as a stream of pieces for the form's parser.
pub struct UploadBody {
    inner: Body,
    limits: UploadLimits,
    remaining: u64,
    parser_state: ParserState,
    /// Since when the client has sent nothing while more is expected.
    silent_since: Option<Instant>,
    /// Since when that time counts into the current window.
    waiting_since: Option<Instant>,
    /// The earlier time spent waiting in this window, and the bytes received in it.
    waited: Duration,
    received: u64,
    timer: LazyTimer,
    /// Whether the last poll passed a piece on.
    just_yielded: bool,
    faults: Faults,
}

impl UploadBody {
    /// The body with its limits, where its fault is noted, and where the parser's caller says what the parser reads.
    #[must_use]
    pub fn new(inner: Body, limits: UploadLimits) -> (Self, Faults, ParserState) {
        let (faults, parser_state) = (Faults::default(), ParserState(Arc::new(AtomicU32::new(MAX_PART_HEAD))));
        let body = Self {
            inner,
            limits,
            remaining: limits.bytes,
            parser_state: parser_state.clone(),
            silent_since: None,
            waiting_since: None,
            waited: Duration::ZERO,
            received: 0,
            timer: LazyTimer::default(),
            just_yielded: false,
            faults: faults.clone(),
        };
        (body, faults, parser_state)
    }

    fn fail(&mut self, fault: Fault) -> Poll<Option<Result<Bytes, Fault>>> {
        self.inner = Body::empty();
        Poll::Ready(Some(Err(self.faults.note(fault))))
    }

    /// Whether a window has passed in which too little came. If a window has passed, starts the next one.
    fn is_slow(&mut self) -> bool {
        if self.waited < self.limits.window {
            return false;
        }
        let required = f64::from(self.limits.rate) * self.waited.as_secs_f64();
        let slow = (self.received as f64) < required;
        (self.waited, self.received) = (Duration::ZERO, 0);
        slow
    }

    /// Counts a received piece, and checks whether it may be passed on.
    fn take(&mut self, piece: &Bytes) -> Result<(), Fault> {
        let bytes = piece.len() as u64;
        self.silent_since = None;
        if let Some(since) = self.waiting_since.take() {
            self.waited += since.elapsed();
        }
        self.remaining = self.remaining.checked_sub(bytes).ok_or(Fault::TooLarge)?;
        self.received += bytes;
        if self.is_slow() {
            return Err(Fault::TooSlow);
        }
        match self.parser_state.0.load(Relaxed) {
            IN_DATA => {}
            0 => return Err(Fault::LongPartHead),
            left => {
                let left = left.saturating_sub(u32::try_from(bytes).unwrap_or(u32::MAX));
                self.parser_state.0.store(left, Relaxed);
            }
        }
        Ok(())
    }
}

impl Stream for UploadBody {
    type Item = Result<Bytes, Fault>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Some(fault) = this.faults.get() {
            return Poll::Ready(Some(Err(fault)));
        }
        if std::mem::take(&mut this.just_yielded) {
            // Returns pending between two pieces, because the parser reads all that is ready before it parses any of
            // it.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        loop {
            match http_body::Body::poll_frame(Pin::new(&mut this.inner), cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let Ok(piece) = frame.into_data() else { continue };
                    this.just_yielded = true;
                    return match this.take(&piece) {
                        Ok(()) => Poll::Ready(Some(Ok(piece))),
                        Err(fault) => this.fail(fault),
                    };
                }
                Poll::Ready(Some(Err(_))) => return this.fail(Fault::BrokenOff),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => {}
            }
            let now = Instant::now();
            let silent = *this.silent_since.get_or_insert(now) + this.limits.silence;
            let measured = *this.waiting_since.get_or_insert(now) + this.limits.window.saturating_sub(this.waited);
            if this.timer.poll(silent.min(measured), cx).is_pending() {
                return Poll::Pending;
            }
            if silent <= measured {
                return this.fail(Fault::Silent);
            }
            this.waited = this.limits.window;
            this.waiting_since = Some(measured);
            if this.is_slow() {
                return this.fail(Fault::TooSlow);
            }
        }
    }
}

/// The error for a fault of an upload, used instead of the form parser's own message.
#[must_use]
pub fn upload_error(fault: Fault, limits: &UploadLimits, limit: u64) -> Error {
    match fault {
        Fault::TooLarge => Error::TooLarge { size: None, limit },
        Fault::TooSlow => Error::UploadTooSlow { rate: limits.rate },
        Fault::Silent => Error::UploadSilent { secs: limits.silence.as_secs() },
        Fault::LongPartHead => Error::BadRequest(format!(
            "What stands before a part of the form is longer than {MAX_PART_HEAD} bytes. Send the recording as a \
             browser or curl does."
        )),
        Fault::BrokenOff => Error::BrokenUpload,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt;
    use http_body_util::BodyExt;
    use std::convert::Infallible;
    use tokio::{sync::mpsc, time};

    const LIMITS: UploadLimits =
        UploadLimits { bytes: 100_000, silence: Duration::from_secs(60), rate: 100, window: Duration::from_secs(1) };

    /// A body whose pieces are sent by the test.
    fn body() -> (mpsc::UnboundedSender<Bytes>, Body) {
        let (send, receive) = mpsc::unbounded_channel::<Bytes>();
        let pieces = futures::stream::unfold(receive, |mut receive| async {
            let piece = receive.recv().await?;
            Some((Ok::<_, Infallible>(piece), receive))
        });
        (send, Body::from_stream(pieces))
    }

    /// Receives an upload of `pieces` pieces of `piece` bytes, with pauses between.
    async fn upload(limits: UploadLimits, piece: usize, pieces: usize) -> (u64, Option<Fault>) {
        let (send, inner) = body();
        let (mut uploaded, faults, parser_state) = UploadBody::new(inner, limits);
        parser_state.reads_data();
        tokio::spawn(async move {
            for _ in 0..pieces {
                time::sleep(Duration::from_millis(20)).await;
                let _ = send.send(Bytes::from(vec![0; piece]));
            }
            send.closed().await;
        });
        let mut bytes = 0;
        while let Some(Ok(piece)) = uploaded.next().await {
            bytes += piece.len() as u64;
            if !piece.is_empty() && bytes == (piece.len() * pieces) as u64 {
                break;
            }
        }
        (bytes, faults.get())
    }

    #[tokio::test]
    async fn an_upload_that_is_too_slow_silent_or_large_ends() {
        assert_eq!(upload(LIMITS, 1000, 30).await, (30_000, None));
        let (bytes, fault) = upload(UploadLimits { rate: 1_000_000, ..LIMITS }, 191, 100_000).await;
        assert_eq!(fault, Some(Fault::TooSlow));
        assert!(bytes < 1_000_000, "{bytes}");
        let silent = UploadLimits { silence: Duration::from_millis(100), window: Duration::from_secs(60), ..LIMITS };
        assert_eq!(upload(silent, 1, 0).await, (0, Some(Fault::Silent)));
        assert_eq!(upload(LIMITS, 0, 100_000).await.1, Some(Fault::TooSlow));
        assert_eq!(upload(LIMITS, 50_001, 3).await, (50_001, Some(Fault::TooLarge)));
    }

    #[tokio::test]
    async fn a_slow_server_does_not_count_against_the_client() {
        let (send, inner) = body();
        let limits = UploadLimits { rate: 1_000_000, silence: Duration::from_millis(100), ..LIMITS };
        let (mut uploaded, faults, parser_state) = UploadBody::new(inner, limits);
        parser_state.reads_data();
        for _ in 0..4 {
            send.send(Bytes::from_static(b"x")).unwrap();
            time::sleep(Duration::from_millis(150)).await;
            assert!(uploaded.next().await.unwrap().is_ok());
        }
        assert_eq!(faults.get(), None);
    }

    #[tokio::test]
    async fn the_bytes_between_parts_are_limited() {
        let (send, inner) = body();
        let (mut uploaded, faults, parser_state) = UploadBody::new(inner, LIMITS);
        let piece = || Bytes::from(vec![0; 5000]);
        parser_state.reads_data();
        for _ in 0..3 {
            send.send(piece()).unwrap();
            assert!(uploaded.next().await.unwrap().is_ok());
        }
        parser_state.searches_part();
        for n in 0..3 {
            send.send(piece()).unwrap();
            assert_eq!(uploaded.next().await.unwrap().is_ok(), n < 2);
        }
        assert_eq!(faults.get(), Some(Fault::LongPartHead));
    }

    /// A body that says how long it is, and ends sooner.
    struct Cut(Option<Bytes>);

    impl http_body::Body for Cut {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(10)
        }
    }

    #[tokio::test]
    async fn a_body_of_known_length_is_whole_or_breaks_off() {
        for (bytes, whole) in [(&b"0123456789"[..], true), (b"0123", false)] {
            let (body, client) = WholeBody::new(Body::new(Cut(Some(Bytes::from_static(bytes)))));
            assert_eq!(http_body::Body::size_hint(&body).exact(), Some(10));
            drop(client);
            assert_eq!(body.collect().await.is_ok(), whole);
        }
    }

    #[tokio::test]
    async fn a_small_body_has_a_size_and_a_deadline() {
        let read = async |sizes: &[usize], time, pause| {
            let (send, inner) = body();
            let (limited, faults) = LimitedBody::new(inner, 10, time);
            let sizes = sizes.to_owned();
            tokio::spawn(async move {
                for size in sizes {
                    time::sleep(pause).await;
                    let _ = send.send(Bytes::from(vec![0; size]));
                }
            });
            (limited.collect().await.map(|all| all.to_bytes().len()).ok(), faults.get())
        };
        let (long, short) = (Duration::from_secs(60), Duration::from_millis(200));
        assert_eq!(read(&[4, 6], long, Duration::ZERO).await, (Some(10), None));
        assert_eq!(read(&[4, 7], long, Duration::ZERO).await, (None, Some(Fault::TooLarge)));
        assert_eq!(read(&[1; 10], short, Duration::from_millis(50)).await, (None, Some(Fault::TooSlow)));
    }
}
