//! Bodies of requests with limits in bytes and in time, for all routes: small ones by [`Limited`], uploads by
//! [`Uploaded`]. What went wrong is noted beside the body, since what reads it tells errors in its own words or not at
//! all. Called by `guard` and `http::upload`.

use super::{config::UploadConfig, error::Error};
use axum::body::Body;
use bytes::Bytes;
use futures::Stream;
use http_body::{Frame, SizeHint};
use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep_until};

/// What is wrong with a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is larger than allowed.
    TooLarge,
    /// It wasn't there in time.
    TooSlow,
    /// Nothing came of it for too long.
    Silent,
    /// Too much came between the parts of a form.
    LongPartHead,
    /// The client sent it badly, or has gone.
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

/// The first fault of a body, known to those who gave the body away.
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

/// A body that tells whether it was read to its end.
pub struct Tracked {
    inner: Body,
    ended: Arc<AtomicBool>,
}

impl Tracked {
    /// The body, and what becomes true with its end.
    #[must_use]
    pub fn new(inner: Body) -> (Self, Arc<AtomicBool>) {
        let ended = Arc::new(AtomicBool::new(http_body::Body::is_end_stream(&inner)));
        (Self { inner, ended: Arc::clone(&ended) }, ended)
    }
}

impl http_body::Body for Tracked {
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

/// A timer that is made when it is first needed: most bodies are there when they are asked for.
#[derive(Default)]
struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    fn poll(&mut self, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if sleep.deadline() != at {
            sleep.as_mut().reset(at);
        }
        sleep.as_mut().poll(cx)
    }
}

/// A body of at most so many bytes that comes within a time, counted from when it is first asked for.
pub struct Limited {
    inner: Body,
    left: u64,
    time: Duration,
    deadline: Option<Instant>,
    alarm: Alarm,
    faults: Faults,
}

impl Limited {
    /// The body with its limits, and where a fault will be noted.
    #[must_use]
    pub fn new(inner: Body, bytes: u64, time: Duration) -> (Self, Faults) {
        let faults = Faults::default();
        let body = Self { inner, left: bytes, time, deadline: None, alarm: Alarm::default(), faults: faults.clone() };
        (body, faults)
    }
}

impl http_body::Body for Limited {
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
                // Also a client that always has another byte ready must come to an end.
                if bytes > this.left {
                    Fault::TooLarge
                } else if Instant::now() >= deadline {
                    Fault::TooSlow
                } else {
                    this.left -= bytes;
                    return Poll::Ready(Some(Ok(frame)));
                }
            }
            Poll::Ready(Some(Err(_))) => Fault::BrokenOff,
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => match this.alarm.poll(deadline, cx) {
                Poll::Ready(()) => Fault::TooSlow,
                Poll::Pending => return Poll::Pending,
            },
        };
        // What it still sends is dropped with its connection.
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

/// What an upload must keep to.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The whole request, in bytes.
    pub bytes: u64,
    pub silence: Duration,
    /// Bytes a second.
    pub rate: u32,
    /// What the rate is measured over: time spent waiting for the client, since a disk that is slow here is no fault of
    /// its.
    pub window: Duration,
}

impl Pace {
    /// As configured, for a request of at most so many bytes.
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

/// How much may come between the data of two parts of a form, and before the first. The parser holds it all, and looks
/// for its end anew with every piece.
const MAX_PART_HEAD: u32 = 8 * 1024;
/// The parser is in the data of a part, which it passes on as it comes.
const IN_DATA: u32 = u32::MAX;

/// Where the parser of an upload's form is, which only its caller can know.
#[derive(Clone, Debug)]
pub struct Parsing(Arc<AtomicU32>);

impl Parsing {
    /// The parser looks for the next part.
    pub fn looks_for_part(&self) {
        self.0.store(MAX_PART_HEAD, Relaxed);
    }

    /// The parser reads a part's data.
    pub fn reads_data(&self) {
        self.0.store(IN_DATA, Relaxed);
    }
}

/// The body of an upload, as pieces for the form's parser.
pub struct Uploaded {
    inner: Body,
    pace: Pace,
    left: u64,
    parsing: Parsing,
    /// Since when nothing has come, while something is waited for.
    silent: Option<Instant>,
    /// Since when that counts into this window.
    waiting: Option<Instant>,
    /// Waited before in this window, and received.
    waited: Duration,
    received: u64,
    alarm: Alarm,
    /// A piece was passed on just now.
    passed_on: bool,
    faults: Faults,
}

impl Uploaded {
    /// The body with its limits, where a fault will be noted, and where its reader says what it reads.
    #[must_use]
    pub fn new(inner: Body, pace: Pace) -> (Self, Faults, Parsing) {
        let (faults, parsing) = (Faults::default(), Parsing(Arc::new(AtomicU32::new(MAX_PART_HEAD))));
        let body = Self {
            inner,
            pace,
            left: pace.bytes,
            parsing: parsing.clone(),
            silent: None,
            waiting: None,
            waited: Duration::ZERO,
            received: 0,
            alarm: Alarm::default(),
            passed_on: false,
            faults: faults.clone(),
        };
        (body, faults, parsing)
    }

    fn fails(&mut self, fault: Fault) -> Poll<Option<Result<Bytes, Fault>>> {
        self.inner = Body::empty();
        Poll::Ready(Some(Err(self.faults.note(fault))))
    }

    /// Whether a window has passed in which too little came. Begins the next one.
    fn is_slow(&mut self) -> bool {
        if self.waited < self.pace.window {
            return false;
        }
        let wanted = f64::from(self.pace.rate) * self.waited.as_secs_f64();
        let slow = (self.received as f64) < wanted;
        (self.waited, self.received) = (Duration::ZERO, 0);
        slow
    }

    /// A piece was received; whether it may be passed on.
    fn take(&mut self, piece: &Bytes) -> Result<(), Fault> {
        let bytes = piece.len() as u64;
        self.silent = None;
        if let Some(since) = self.waiting.take() {
            self.waited += since.elapsed();
        }
        self.left = self.left.checked_sub(bytes).ok_or(Fault::TooLarge)?;
        self.received += bytes;
        if self.is_slow() {
            return Err(Fault::TooSlow);
        }
        match self.parsing.0.load(Relaxed) {
            IN_DATA => {}
            0 => return Err(Fault::LongPartHead),
            left => {
                let left = left.saturating_sub(u32::try_from(bytes).unwrap_or(u32::MAX));
                self.parsing.0.store(left, Relaxed);
            }
        }
        Ok(())
    }
}

impl Stream for Uploaded {
    type Item = Result<Bytes, Fault>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Some(fault) = this.faults.get() {
            return Poll::Ready(Some(Err(fault)));
        }
        if std::mem::take(&mut this.passed_on) {
            // The parser takes all that is ready before it looks at any of it.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        loop {
            match http_body::Body::poll_frame(Pin::new(&mut this.inner), cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let Ok(piece) = frame.into_data() else { continue };
                    this.passed_on = true;
                    return match this.take(&piece) {
                        Ok(()) => Poll::Ready(Some(Ok(piece))),
                        Err(fault) => this.fails(fault),
                    };
                }
                Poll::Ready(Some(Err(_))) => return this.fails(Fault::BrokenOff),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => {}
            }
            let now = Instant::now();
            let silent = *this.silent.get_or_insert(now) + this.pace.silence;
            let measured = *this.waiting.get_or_insert(now) + this.pace.window.saturating_sub(this.waited);
            if this.alarm.poll(silent.min(measured), cx).is_pending() {
                return Poll::Pending;
            }
            if silent <= measured {
                return this.fails(Fault::Silent);
            }
            this.waited = this.pace.window;
            this.waiting = Some(measured);
            if this.is_slow() {
                return this.fails(Fault::TooSlow);
            }
        }
    }
}

/// What a form's reader is told instead of its parser's own words.
#[must_use]
pub fn upload_error(fault: Fault, pace: &Pace, limit: u64) -> Error {
    match fault {
        Fault::TooLarge => Error::TooLarge { size: None, limit },
        Fault::TooSlow => Error::UploadTooSlow { rate: pace.rate },
        Fault::Silent => Error::UploadSilent { secs: pace.silence.as_secs() },
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

    const PACE: Pace =
        Pace { bytes: 100_000, silence: Duration::from_secs(60), rate: 100, window: Duration::from_millis(200) };

    /// A body that is sent piece by piece.
    fn body() -> (mpsc::UnboundedSender<Bytes>, Body) {
        let (send, receive) = mpsc::unbounded_channel::<Bytes>();
        let pieces = futures::stream::unfold(receive, |mut receive| async {
            let piece = receive.recv().await?;
            Some((Ok::<_, Infallible>(piece), receive))
        });
        (send, Body::from_stream(pieces))
    }

    /// Receives all of an upload that sends `pieces` of `piece` bytes with pauses between.
    async fn upload(pace: Pace, piece: usize, pieces: usize) -> (u64, Option<Fault>) {
        let (send, inner) = body();
        let (mut uploaded, faults, parsing) = Uploaded::new(inner, pace);
        parsing.reads_data();
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
    async fn an_upload_is_as_fast_as_it_must_be_or_ends() {
        assert_eq!(upload(PACE, 1000, 30).await, (30_000, None));
        let (bytes, fault) = upload(Pace { rate: 1_000_000, ..PACE }, 191, 100_000).await;
        assert_eq!(fault, Some(Fault::TooSlow));
        assert!(bytes < 1_000_000, "{bytes}");
        let silent = Pace { silence: Duration::from_millis(100), window: Duration::from_secs(60), ..PACE };
        assert_eq!(upload(silent, 1, 0).await, (0, Some(Fault::Silent)));
        assert_eq!(upload(PACE, 0, 100_000).await.1, Some(Fault::TooSlow));
        assert_eq!(upload(PACE, 50_001, 3).await, (50_001, Some(Fault::TooLarge)));
    }

    #[tokio::test]
    async fn what_is_slow_here_is_no_fault_of_the_client() {
        let (send, inner) = body();
        let pace = Pace { rate: 1_000_000, silence: Duration::from_millis(100), ..PACE };
        let (mut uploaded, faults, parsing) = Uploaded::new(inner, pace);
        parsing.reads_data();
        for _ in 0..4 {
            send.send(Bytes::from_static(b"x")).unwrap();
            time::sleep(Duration::from_millis(150)).await;
            assert!(uploaded.next().await.unwrap().is_ok());
        }
        assert_eq!(faults.get(), None);
    }

    #[tokio::test]
    async fn little_may_come_between_parts() {
        let (send, inner) = body();
        let (mut uploaded, faults, parsing) = Uploaded::new(inner, PACE);
        let piece = || Bytes::from(vec![0; 5000]);
        parsing.reads_data();
        for _ in 0..3 {
            send.send(piece()).unwrap();
            assert!(uploaded.next().await.unwrap().is_ok());
        }
        parsing.looks_for_part();
        for n in 0..3 {
            send.send(piece()).unwrap();
            assert_eq!(uploaded.next().await.unwrap().is_ok(), n < 2);
        }
        assert_eq!(faults.get(), Some(Fault::LongPartHead));
    }

    #[tokio::test]
    async fn a_small_body_has_a_size_and_a_deadline() {
        let read = async |sizes: &[usize], time, pause| {
            let (send, inner) = body();
            let (limited, faults) = Limited::new(inner, 10, time);
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
