//! One attempt at one session, from the claim to its end.

use super::{
    NodeSpeed, Running, Workers, lease,
    order::{LineOrder, resume_at},
    spool,
};
use crate::{
    model::{
        Channels, DetectedLanguage, Failure, Meter, Remark, Segment, SessionId, Stage, Status, Timestamp, clock,
        duration, percent, speaker_label, stall_timeout,
        text::{count, length},
        unsure_words,
    },
    server::{
        audio::{AudioError, ChannelSelection, SAMPLE_RATE, Selection},
        bus::Signal,
        config::JobConfig,
        event::Event,
        media::{MediaError, Scratch},
        sessions::Sessions,
        space::Reservation,
        speech::{self, EngineEvent, EngineSegment, Request, SpeechError},
        store::{self, Claim, Ending},
        telemetry::traces::{self, Step},
    },
};
use futures::future::select_all;
use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    sync::{broadcast::error::RecvError, mpsc},
    time,
};
use tokio_util::sync::CancellationToken;

/// The interval at which progress is stored and published at most. A faster progress bar shows people nothing more, and
/// each status costs every watcher half a kilobyte. Changes of the stage, ends and segments aren't delayed.
const TICK: Duration = Duration::from_secs(1);
/// The sample rate of telephones, in Hz.
const NARROW_BAND: u32 = 8000;
/// Pause between attempts to fetch a recording while its storage doesn't answer.
const FETCH_PAUSE: Duration = Duration::from_secs(2);

/// Pause between attempts to write while the database can't be reached.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// A write to the store that is retried while the database can't be reached, until the lease must have run out, so that
/// a restart of the database doesn't discard what has been transcribed. While the database's disk is full it is retried
/// until there is room or the node stops. `$again` tells whether an earlier attempt may have succeeded without an
/// answer.
macro_rules! retry_write {
    ($job:expr, |$again:pat_param| $write:expr) => {{
        let mut retry = Retry::of($job);
        loop {
            let $again = retry.tried;
            match $write.await {
                Err(error) if retry.may_go_on(&error) => time::sleep(RETRY_PAUSE).await,
                done => break done,
            }
            $job.waited_for_store.store(true, Relaxed);
        }
    }};
}

/// Decides how long a write is retried.
struct Retry {
    id: SessionId,
    until: time::Instant,
    stop: CancellationToken,
    tried: bool,
}

impl Retry {
    fn of(job: &Job<'_>) -> Self {
        let until = time::Instant::now() + job.lease_length();
        Self { id: job.claim.session.id, until, stop: job.stop.clone(), tried: false }
    }

    /// Whether to retry after this error. Logs the first one.
    fn may_go_on(&mut self, error: &sqlx::Error) -> bool {
        let may_go_on = if store::is_full(error) {
            !self.stop.is_cancelled()
        } else {
            store::is_transient(error) && time::Instant::now() < self.until
        };
        if !may_go_on {
            return false;
        }
        if !self.tried {
            tracing::warn!(session_id = %self.id, %error, "the database can't be written; session {} waits for it", self.id);
        }
        self.tried = true;
        true
    }
}

/// Why an attempt ended early.
#[derive(Debug, thiserror::Error)]
enum AttemptError {
    #[error("the claim is no longer valid")]
    LostClaim,
    #[error("the session was cancelled")]
    Cancelled,
    #[error("the worker is shutting down")]
    Shutdown,
    #[error("{0}")]
    Audio(String, &'static str),
    #[error("{0}")]
    Speech(#[from] SpeechError),
    #[error("the {who} said nothing for {silence} seconds with {left:?} seconds of audio left")]
    Stalled { who: &'static str, silence: f64, left: Option<f64> },
    #[error("the store failed: {0}")]
    Store(#[from] sqlx::Error),
    #[error("the recording can't be read: {0}")]
    Media(#[from] MediaError),
    #[error("the scratch file failed: {0}")]
    Io(#[from] std::io::Error),
}

/// What an attempt tells about its worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AttemptEnd {
    /// It can claim the next session.
    Ready,
    /// Something around it failed, and the next session would fare no better. What it was, for operators.
    Unfit(String),
}

/// Works on a claimed session until it has ended, was taken away, or `shutdown`. `room` is reserved for its recording,
/// if there was enough.
pub(super) async fn run(
    workers: Workers,
    claim: Claim,
    room: Option<Reservation>,
    shutdown: CancellationToken,
    speed: Arc<NodeSpeed>,
) -> AttemptEnd {
    let id = claim.session.id;
    let attempt = claim.session.status.attempt;
    tracing::info!(session_id = %id, attempt, engine = %claim.session.engine, "session {id} is being transcribed");
    let started = time::Instant::now();
    if traces::are_on() {
        trace_queue(&workers.sessions, &claim).await;
    }
    let mut job = Job::new(&workers, &claim, &shutdown);
    let result = job.work(room, &shutdown, &speed).await;
    match &result {
        Ok(()) => {}
        Err(stop @ (AttemptError::LostClaim | AttemptError::Cancelled | AttemptError::Shutdown)) => {
            job.trace.text("hark.stopped", &stop.to_string());
        }
        Err(error) => job.trace.fail(error),
    }
    let problem = match &result {
        Ok(()) => None,
        Err(stop) => stop.problem(&workers.sessions).await,
    };
    let mut step = job.trace.part("store");
    let ended = job.finish(result, problem.as_deref()).await;
    step.end();
    let end = problem.map_or(AttemptEnd::Ready, AttemptEnd::Unfit);
    match ended {
        Ok(Some(event)) => {
            if let Some(status) = event.new_status() {
                let seconds = started.elapsed().as_secs_f64();
                match &status.error {
                    Some(Failure { code, message }) => tracing::warn!(
                        session_id = %id, status = %status.state, segments = status.segments, seconds, code,
                        "session {id} failed: {message}"
                    ),
                    None => tracing::info!(
                        session_id = %id, status = %status.state, segments = status.segments, seconds,
                        "session {id} is {}", status.state
                    ),
                }
            }
            let _step = job.trace.part("publish");
            workers.sessions.bus.publish(&event);
        }
        Ok(None) => tracing::info!(session_id = %id, attempt, "this worker lost its claim on session {id}"),
        // Another attempt begins when the lease has run out.
        Err(error) => {
            tracing::error!(session_id = %id, %error, "the end of session {id} could not be stored; another attempt begins when its lease runs out")
        }
    }
    end
}

/// Traces how long a claimed session has waited. Until the claim the newest entry of its log of stages was that it waits.
async fn trace_queue(sessions: &Sessions, claim: &Claim) {
    let id = claim.session.id;
    let queued = match sessions.store.stages(id).await {
        Ok(log) => log.0.iter().rev().find(|(_, stage)| stage.is_none()).map(|(at, _)| *at),
        Err(error) => {
            tracing::debug!(session_id = %id, %error, "the stages of session {id} could not be read");
            None
        }
    };
    Step::begun_at(id, "queue", queued.unwrap_or(claim.session.created_at)).end();
}

impl AttemptError {
    /// What failed around this worker, if the session isn't to blame; for operators. Another worker may do better.
    async fn problem(&self, sessions: &Sessions) -> Option<String> {
        match self {
            error if error.is_full_disk() => Some("this node's disk is full".to_owned()),
            // A recording that alone is missing is that session's own fault.
            Self::Io(_) | Self::Media(MediaError::Missing | MediaError::Storage(_)) => {
                sessions.cluster.check_now(&sessions.media).await
            }
            Self::Media(error @ MediaError::Scratch { .. }) => {
                Some(format!("this node's scratch files failed: {error}"))
            }
            Self::Speech(error @ (SpeechError::Unavailable { .. } | SpeechError::Spawn(_))) => Some(error.to_string()),
            _ => None,
        }
    }

    fn is_full_disk(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        match self {
            Self::Io(error) => matches!(error.kind(), StorageFull | QuotaExceeded),
            Self::Media(error) => matches!(error, MediaError::Full { .. }),
            _ => false,
        }
    }
}

struct Job<'a> {
    sessions: &'a Sessions,
    running: &'a Running,
    config: &'a JobConfig,
    claim: &'a Claim,
    status: Status,
    meter: Meter,
    /// The start of the meter's clock.
    started: time::Instant,
    /// Seconds of audio that earlier attempts have transcribed.
    offset: f64,
    /// The language that the engine has found.
    language: Option<DetectedLanguage>,
    /// When progress was published last.
    published: time::Instant,
    /// Whether there is progress that hasn't been published.
    unpublished: bool,
    /// Whether a write has waited for the database since this was last read. Such time doesn't count as silence of the
    /// engine or the decoder.
    waited_for_store: AtomicBool,
    /// Cancelled when the node stops.
    stop: CancellationToken,
    /// This attempt in the session's trace.
    trace: Step,
}

impl<'a> Job<'a> {
    fn new(workers: &'a Workers, claim: &'a Claim, stop: &CancellationToken) -> Self {
        let now = time::Instant::now();
        let mut trace = Step::begin(claim.session.id, "attempt");
        trace.number("hark.attempt", claim.session.status.attempt.into());
        trace.text("hark.engine", claim.session.engine.as_str());
        Self {
            sessions: &workers.sessions,
            running: &workers.running,
            config: &workers.config,
            claim,
            status: claim.session.status.clone(),
            meter: Meter::new(0.0, 0.0),
            started: now,
            offset: 0.0,
            language: None,
            published: now,
            unpublished: false,
            waited_for_store: AtomicBool::default(),
            stop: stop.clone(),
            trace,
        }
    }

    async fn work(
        &mut self,
        room: Option<Reservation>,
        shutdown: &CancellationToken,
        speed: &NodeSpeed,
    ) -> Result<(), AttemptError> {
        let id = self.claim.session.id;
        let last = match self.status.segments.checked_sub(1) {
            Some(done) => self.sessions.store.segments(id, done, 1).await?.pop(),
            None => None,
        };
        self.offset = last.as_ref().map_or(0.0, |last| last.end);
        self.status.duration_processed = self.offset;
        if self.status.lines() == 0 {
            // An earlier attempt left nothing that its remarks could be about.
            self.status.remarks.clear();
        }
        let (recording, _fetched) = self.recording(room, shutdown).await?;
        let max_duration = self.sessions.limits.max_duration;
        let stop_survey = CancellationToken::new();
        let _stop_on_return = stop_survey.clone().drop_guard();
        let split = self.claim.session.channels == Channels::Split;
        let channels = if split { ChannelSelection::FindSpeakers } else { ChannelSelection::Mix };
        let track = self.claim.session.track;
        let survey = Selection { track, channels };
        let decoders = || self.sessions.decoders.clone();
        let mut decode = self.trace.part("decode");
        let mut decoding = spool::survey(decoders(), recording.clone(), max_duration, survey, stop_survey);
        // A file that can't be decoded at all fails here, before an engine is started for it.
        let begun = async { decoding.wait_for(|d| d.has_samples || d.end.is_some()).await.map(|d| d.clone()) };
        // If the decoder's task panicked, there is no survey, and no samples either.
        let first = self.wait_for_work(begun, Some("decoder"), shutdown).await?.unwrap_or_default();
        check_survey(&first)?;
        self.stage(Stage::LoadingModel, "Loading the speech model").await?;
        let Some(engine) = self.sessions.engines.get(self.claim.session.engine) else {
            let reason = format!("The engine {} is not part of this build.", self.claim.session.engine);
            return Err(SpeechError::Unavailable { reason, install: String::new() }.into());
        };
        let rate = self.claim.session.media.sample_rate;
        if (1..=NARROW_BAND).contains(&rate) && !engine.hears_narrow_band() {
            let name = engine.id().label();
            let message = format!(
                "This is a telephone recording (8 kHz), which {name} was not made for; Whisper hears it better."
            );
            self.remark(Remark::new("narrow_band", &message)).await?;
        }
        let parts = self.parts(first.is_apart, last.as_ref()).await?;
        let starts: Vec<f64> = parts.iter().map(|part| part.offset).collect();
        self.offset = starts.iter().copied().fold(f64::INFINITY, f64::min);
        self.status.duration_processed = self.status.duration_processed.min(self.offset);
        let mut order = LineOrder::new(&starts, last.map_or(0.0, |last| last.start));
        let mut engine_step = self.trace.part("engine");
        let mut load = engine_step.part("load model");
        let (mut feeds, mut outputs) = (Vec::new(), Vec::new());
        for part in &parts {
            let request = Request {
                language: self.claim.session.language.clone(),
                vocabulary: self.claim.session.vocabulary.clone(),
                offset: part.offset,
                engines: parts.len() as u16,
            };
            let (input, output) = speech::spawn(engine, &request)?;
            let from = (part.offset * f64::from(SAMPLE_RATE)).round() as u64;
            let selection = Selection { track, channels: part.channels };
            let samples = spool::samples(decoders(), recording.clone(), max_duration, selection, from);
            feeds.push(Feed { input, samples, position: from });
            outputs.push(Some(output));
        }
        // Feeds and reads at the same time, because an engine that is busy writing doesn't read, and the other way
        // round.
        let feed = feed_all(feeds);
        tokio::pin!(feed);
        let mut fed = false;
        let mut signals = self.sessions.bus.signals();
        let mut renewals = self.renewals();
        let mut last_event = time::Instant::now();
        // The survey of a short recording may be complete already.
        decoding.mark_changed();
        let mut decoded = false;
        // The last remark of each engine and code.
        let mut said: Vec<(usize, Remark)> = Vec::new();
        loop {
            if self.waited_for_store.swap(false, Relaxed) {
                last_event = time::Instant::now();
            }
            tokio::select! {
                (engine, event) = next_event(&mut outputs) => {
                    last_event = time::Instant::now();
                    let Part { offset, speaker, .. } = parts[engine];
                    match event? {
                        // The second engine loads the same model.
                        Some(EngineEvent::Ready { .. }) if self.status.stage == Some(Stage::Transcribing) => {}
                        Some(EngineEvent::Ready { model }) => {
                            load.end();
                            still_claimed(retry_write!(self, |_| self.sessions.store.save_model(self.claim, &model))?)?;
                            self.meter = Meter::new(self.elapsed(), self.offset);
                            self.status.progress = self.progress();
                            self.stage(Stage::Transcribing, "Transcribing").await?;
                        }
                        Some(EngineEvent::Progress { processed, settled }) => {
                            order.progress(engine, offset + processed, offset + settled);
                            self.lines(&mut order, &parts, speed).await?;
                            self.tick().await?;
                        }
                        // One speaker may have said more than the other.
                        Some(EngineEvent::Language(found)) if speaker.is_some() && !self.is_surer(&found) => {}
                        Some(EngineEvent::Language(found)) => {
                            let store = &self.sessions.store;
                            still_claimed(retry_write!(self, |_| store.save_detected_language(self.claim, &found))?)?;
                            self.language = Some(found);
                        }
                        Some(EngineEvent::Remark { remark, replaces }) => {
                            let of_speaker = |speaker| {
                                Remark::new(&remark.code, &format!("{}: {}", speaker_label(speaker), remark.message))
                            };
                            let remark = speaker.map_or_else(|| remark.clone(), of_speaker);
                            let earlier = said.iter().position(|(by, old)| *by == engine && old.code == remark.code);
                            let earlier = earlier.map(|at| said.swap_remove(at).1).filter(|_| replaces);
                            if remark.clone().replace_in(earlier.as_ref(), &mut self.status.remarks) {
                                self.tick().await?;
                            }
                            // One that isn't shown can't be replaced.
                            if self.status.remarks.contains(&remark) {
                                said.push((engine, remark));
                            }
                        }
                        Some(EngineEvent::Partial { .. }) => {}
                        Some(EngineEvent::Segment(segment)) => {
                            order.line(engine, later(segment, offset));
                            self.lines(&mut order, &parts, speed).await?;
                        }
                        Some(EngineEvent::Done) => {
                            if let Some(mut output) = outputs[engine].take() {
                                output.kill().await;
                            }
                            order.done(engine);
                            self.lines(&mut order, &parts, speed).await?;
                            if outputs.iter().all(Option::is_none) {
                                break;
                            }
                        }
                        None => return Err(SpeechError::Crashed { status: "it ended without a 'done' line".to_owned(), stderr_tail: String::new() }.into()),
                    }
                }
                result = &mut feed, if !fed => {
                    fed = true;
                    // A broken pipe only says that the engine is gone; its output says why.
                    match result { Err(AttemptError::Speech(_)) | Ok(()) => {} Err(other) => return Err(other) }
                }
                Ok(()) = decoding.changed(), if !decoded => {
                    let now = decoding.borrow_and_update().clone();
                    decoded = self.decoded(&now).await?;
                    if decoded {
                        decode.end();
                    }
                }
                _ = renewals.tick() => self.renew().await?,
                signal = signals.recv() => self.check_signal(signal)?,
                () = shutdown.cancelled() => return Err(AttemptError::Shutdown),
                () = time::sleep_until(self.published + TICK), if self.unpublished => self.save().await?,
                () = time::sleep_until(last_event + self.stall_timeout()) => return Err(self.stalled("speech engine")),
            }
        }
        engine_step.end();
        if !decoded {
            // The engine finished before the survey, or didn't read all samples.
            let ended = async { decoding.wait_for(|d| d.end.is_some()).await.map(|d| d.clone()) };
            let end = self.wait_for_work(ended, Some("decoder"), shutdown).await?.unwrap_or_default();
            self.decoded(&end).await?;
        }
        decode.end();
        self.stage(Stage::Saving, "Saving the transcript").await
    }

    /// What is transcribed by an engine each: the mix, or two speakers on two channels; and where each continues. `last` is
    /// the last line of earlier attempts.
    async fn parts(&self, is_apart: bool, last: Option<&Segment>) -> Result<Vec<Part>, AttemptError> {
        if !is_apart {
            return Ok(vec![Part { channels: ChannelSelection::Mix, speaker: None, offset: self.offset }]);
        }
        let mut parts = Vec::new();
        for channel in 0..2 {
            let speaker = channel + 1;
            let own_end = self.sessions.store.speaker_end(self.claim.session.id, speaker).await?;
            let offset = resume_at(own_end, last.map_or(0.0, |last| last.start));
            parts.push(Part { channels: ChannelSelection::Only(channel), speaker: Some(speaker), offset });
        }
        Ok(parts)
    }

    /// Stores the lines whose turn it is, and how far all engines have come.
    async fn lines(&mut self, order: &mut LineOrder, parts: &[Part], speed: &NodeSpeed) -> Result<(), AttemptError> {
        if order.processed().is_finite() {
            self.processed(order.processed(), speed);
        }
        while let Some((engine, line)) = order.next() {
            self.segment(line, parts[engine].speaker).await?;
        }
        Ok(())
    }

    /// Whether the engine is surer of this language than of the one that it found before.
    fn is_surer(&self, found: &DetectedLanguage) -> bool {
        self.language.as_ref().is_none_or(|known| found.probability > known.probability)
    }

    /// Handles what the survey has found, and returns whether it is complete. Fails if the recording is damaged.
    async fn decoded(&mut self, decoding: &spool::Survey) -> Result<bool, AttemptError> {
        check_survey(decoding)?;
        let Some(Ok(whole)) = decoding.end.as_deref() else { return Ok(false) };
        self.status.duration_total = Some(whole.duration);
        for remark in &whole.remarks {
            remark.clone().add_to(&mut self.status.remarks);
        }
        let peaks = &whole.waveform.peaks;
        still_claimed(retry_write!(self, |_| self.sessions.store.save_waveform(self.claim, peaks))?)?;
        self.status.progress = self.progress();
        self.save().await?;
        Ok(true)
    }

    /// Returns the recording as a file of this machine, with its scratch file if it had to be fetched. Retries a failed
    /// fetch for as long as an engine may be silent, because the session isn't to blame.
    async fn recording(
        &mut self,
        room: Option<Reservation>,
        shutdown: &CancellationToken,
    ) -> Result<(PathBuf, Option<Scratch>), AttemptError> {
        let id = self.claim.session.id;
        let media = &self.sessions.media;
        if let Some(file) = media.file(id) {
            return if tokio::fs::try_exists(&file).await? {
                Ok((file, None))
            } else {
                Err(MediaError::Missing.into())
            };
        }
        let mut room = match room {
            Some(room) => room,
            None => media.reserve_copy(self.claim.session.media.bytes)?,
        };
        let copy = media.scratch(id, self.status.attempt, "recording")?;
        let _step = self.trace.part("fetch");
        self.stage(Stage::Decoding, "Fetching the recording").await?;
        let stall_timeout = self.stall_timeout();
        let (mut fetched, mut since) = (0, time::Instant::now());
        loop {
            let fetching = media.fetch(id, &copy, &mut room);
            let Err(error) = self.wait_for_work(fetching, None, shutdown).await? else {
                return Ok((copy.path().to_owned(), Some(copy)));
            };
            let now = copy.size()?;
            if now > fetched {
                (fetched, since) = (now, time::Instant::now());
            }
            if matches!(error, MediaError::Missing | MediaError::Full { .. }) || since.elapsed() > stall_timeout {
                return Err(error.into());
            }
            tracing::warn!(session_id = %id, %error, "the recording of session {id} can't be fetched; trying again");
            self.stage(Stage::Decoding, "The recording can't be fetched at the moment; trying again").await?;
            self.wait_for_work(time::sleep(FETCH_PAUSE), None, shutdown).await?;
        }
    }

    /// Waits for `work` and renews the lease meanwhile. Drops the work when the session is taken away, at `shutdown`,
    /// or when `who` does it has been silent for the stall timeout.
    async fn wait_for_work<T>(
        &self,
        work: impl Future<Output = T>,
        who: Option<&'static str>,
        shutdown: &CancellationToken,
    ) -> Result<T, AttemptError> {
        tokio::pin!(work);
        let mut signals = self.sessions.bus.signals();
        let mut renewals = self.renewals();
        let mut deadline = time::Instant::now() + self.stall_timeout();
        loop {
            if self.waited_for_store.swap(false, Relaxed) {
                deadline = time::Instant::now() + self.stall_timeout();
            }
            tokio::select! {
                done = &mut work => return Ok(done),
                _ = renewals.tick() => self.renew().await?,
                signal = signals.recv() => self.check_signal(signal)?,
                () = shutdown.cancelled() => return Err(AttemptError::Shutdown),
                () = time::sleep_until(deadline), if who.is_some() => {
                    return Err(self.stalled(who.unwrap_or_default()));
                }
            }
        }
    }

    fn renewals(&self) -> time::Interval {
        // Two heartbeats may fail before the lease runs out.
        let heartbeat = Duration::from_secs(u64::from(self.config.heartbeat_secs));
        let mut renewals = time::interval(heartbeat.min(self.lease_length() / 3));
        renewals.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        renewals
    }

    async fn renew(&self) -> Result<(), AttemptError> {
        let store = &self.sessions.store;
        let renewed = retry_write!(self, |_| async { store.renew(self.claim, lease(store, self.config).await?).await });
        still_claimed(renewed?)
    }

    fn check_signal(&self, signal: Result<Signal, RecvError>) -> Result<(), AttemptError> {
        match signal {
            Ok(Signal::Stop(id)) if id == self.claim.session.id => Err(AttemptError::Cancelled),
            Ok(_) | Err(RecvError::Lagged(_)) => Ok(()),
            Err(RecvError::Closed) => Err(AttemptError::Shutdown),
        }
    }

    /// How long an engine or decoder may be silent: longer, the more audio remains.
    fn stall_timeout(&self) -> Duration {
        let (jobs, longest) = (self.config, self.sessions.limits.max_duration);
        let (done, total) = (self.status.duration_processed, self.status.duration_total);
        Duration::from_secs_f64(stall_timeout(f64::from(jobs.stall_secs), jobs.stall_factor, done, total, longest))
    }

    fn stalled(&self, who: &'static str) -> AttemptError {
        let left = self.status.duration_total.map(|total| (total - self.status.duration_processed).max(0.0));
        AttemptError::Stalled { who, silence: self.stall_timeout().as_secs_f64(), left }
    }

    fn processed(&mut self, seconds: f64, speed: &NodeSpeed) {
        let seconds = self.status.duration_total.map_or(seconds, |total| seconds.min(total));
        if seconds <= self.status.duration_processed {
            return;
        }
        self.status.duration_processed = seconds;
        self.meter.update(self.elapsed(), seconds);
        self.status.progress = self.progress();
        self.status.processing_speed = self.meter.published_speed();
        let remaining = self.meter.remaining(self.status.duration_total);
        self.status.estimated_completion = remaining.map(|seconds| Timestamp::now().plus_seconds(seconds));
        if let Some(measured) = self.meter.speed() {
            speed.set(measured);
        }
        self.status.message = match self.status.duration_total {
            Some(total) => format!("Transcribing {} of {}", clock(seconds), length(total)),
            None => format!("Transcribing, {} done", clock(seconds)),
        };
        if let Some(found) = &self.language {
            self.status.message.push_str(&format!(", heard as {}", found.label()));
        }
    }

    /// Progress doesn't fall within an attempt, though a container may declare less than it holds.
    fn progress(&self) -> Option<f64> {
        let now = percent(self.status.duration_processed, self.status.duration_total);
        now.map(|p| p.max(self.status.progress.unwrap_or(0.0))).or(self.status.progress)
    }

    async fn segment(&mut self, spoken: EngineSegment, speaker: Option<u16>) -> Result<(), AttemptError> {
        let segment = Segment {
            index: self.status.segments,
            start: spoken.start,
            end: spoken.end,
            unsure: unsure_words(&spoken.text, &spoken.words),
            text: spoken.text,
            confidence: spoken.confidence,
            words: spoken.words,
            speaker,
        };
        self.status.segments += 1;
        // A segment that comes sooner than the next status is published at once all the same; the next status counts
        // it.
        let due = self.is_due();
        if due {
            self.next_version();
        }
        let mut step = self.trace.part("store");
        step.number("hark.segment", segment.index.into());
        let event = retry_write!(self, |again| self.append(&segment, due, again))?.ok_or(AttemptError::LostClaim)?;
        step.end();
        let _step = self.trace.part("publish");
        if due {
            self.publish_saved(&event);
        } else {
            self.unpublished = true;
            self.sessions.bus.publish(&event);
        }
        Ok(())
    }

    /// With `again`, an earlier attempt may have added the segment, and only the answer was lost.
    async fn append(&self, segment: &Segment, due: bool, again: bool) -> Result<Option<Event>, sqlx::Error> {
        let store = &self.sessions.store;
        if again && !store.segments(self.claim.session.id, segment.index, 1).await?.is_empty() {
            return store.save(self.claim, &self.status).await;
        }
        store.append(self.claim, segment, &self.status, due).await
    }

    async fn stage(&mut self, stage: Stage, message: &str) -> Result<(), AttemptError> {
        self.status.stage = Some(stage);
        message.clone_into(&mut self.status.message);
        self.save().await
    }

    /// Adds a remark to the session.
    async fn remark(&mut self, remark: Remark) -> Result<(), AttemptError> {
        if remark.add_to(&mut self.status.remarks) { self.tick().await } else { Ok(()) }
    }

    fn is_due(&self) -> bool {
        self.published.elapsed() >= TICK
    }

    /// Publishes progress now, or at the next interval together with what follows.
    async fn tick(&mut self) -> Result<(), AttemptError> {
        self.unpublished = true;
        if self.is_due() { self.save().await } else { Ok(()) }
    }

    async fn save(&mut self) -> Result<(), AttemptError> {
        self.next_version();
        let saved = retry_write!(self, |_| self.sessions.store.save(self.claim, &self.status));
        let event = saved?.ok_or(AttemptError::LostClaim)?;
        self.publish_saved(&event);
        Ok(())
    }

    /// Seconds since this attempt began, on the monotonic clock.
    fn elapsed(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    fn lease_length(&self) -> Duration {
        Duration::from_secs(u64::from(self.config.lease_secs))
    }

    fn publish_saved(&mut self, event: &Event) {
        self.running.update(&self.status);
        self.published = time::Instant::now();
        self.unpublished = false;
        self.sessions.bus.publish(event);
    }

    fn next_version(&mut self) {
        self.status.version += 1;
        self.status.timestamp = Timestamp::now();
    }

    /// Stores the end of the attempt. With a `problem` of this node's the session goes back into the queue, and it counts
    /// no crash.
    async fn finish(
        &mut self,
        result: Result<(), AttemptError>,
        problem: Option<&str>,
    ) -> Result<Option<Event>, sqlx::Error> {
        self.next_version();
        let id = self.claim.session.id;
        let ending = match result {
            Ok(()) => {
                self.status.message = match self.status.lines() {
                    0 => "Finished; no speech was found".to_owned(),
                    _ => "Finished".to_owned(),
                };
                self.status.duration_processed = self.status.duration_total.unwrap_or(self.status.duration_processed);
                if let Some(speed) = self.status.processing_speed {
                    metrics::histogram!("hark_real_time_factor", "engine" => self.claim.session.engine.as_str())
                        .record(1.0 / speed);
                }
                let (audio_secs, work_secs) = self.meter.totals();
                self.sessions.hours.transcribed(audio_secs, work_secs);
                Ending::Completed
            }
            Err(AttemptError::LostClaim | AttemptError::Cancelled) => return Ok(None),
            Err(AttemptError::Shutdown) => Ending::HandedBack,
            // The wait for room on the database's disk ends only when the node stops.
            Err(AttemptError::Store(error)) if store::is_full(&error) => Ending::HandedBack,
            Err(_) if let Some(problem) = problem => {
                tracing::warn!(session_id = %id, "session {id} goes back to the queue: {problem}");
                Ending::HandedBack
            }
            Err(AttemptError::Audio(message, code)) => {
                // The engine was loading meanwhile, but that isn't what failed.
                if self.status.stage == Some(Stage::LoadingModel) {
                    self.status.stage = Some(Stage::Decoding);
                }
                Ending::Failed(Failure { code: code.to_owned(), message })
            }
            Err(AttemptError::Speech(error @ SpeechError::Engine { .. })) => {
                Ending::Failed(Failure { code: error.code().to_owned(), message: error.to_string() })
            }
            // After a crash, a stall or a failing disk the next attempt may succeed.
            Err(error) => {
                let tries = self.claim.crashes + 1;
                tracing::warn!(session_id = %id, %error, tries, "an attempt at session {id} failed");
                if tries < self.config.max_attempts {
                    let store = &self.sessions.store;
                    return retry_write!(self, |_| store.requeue_crashed(self.claim, Timestamp::now()));
                }
                let (code, message) = match &error {
                    AttemptError::Speech(speech) => (speech.code(), speech.to_string()),
                    AttemptError::Stalled { who, silence, left } => ("stalled", stalled_message(who, *silence, *left)),
                    AttemptError::Media(error) => ("recording_unavailable", unavailable_message(error).to_owned()),
                    _ => ("internal", "Something went wrong on the server; its log says more.".to_owned()),
                };
                let end = if message.trim_end().ends_with('.') { "" } else { "." };
                let message = format!(
                    "{}{end} Hark tried {}. What was transcribed is kept; Retry goes on from there.",
                    message.trim_end(),
                    count(tries as usize, "time")
                );
                Ending::Failed(Failure { code: code.to_owned(), message })
            }
        };
        let (disk, store) = (&self.sessions.disk, &self.sessions.store);
        let end = || store.end(self.claim, self.status.clone(), ending.clone());
        match retry_write!(self, |_| end()) {
            // A node that stops can't wait until there is room.
            Err(error) if store::is_full(&error) => disk.make_room(store, store::is_full, end).await,
            ended => ended,
        }
    }
}

/// A part of the recording's sound that an engine of its own transcribes.
#[derive(Clone, Copy)]
struct Part {
    channels: ChannelSelection,
    /// The number of its speaker, if it is one's own.
    speaker: Option<u16>,
    /// Where it begins: the engine counts from there.
    offset: f64,
}

/// The samples on their way to an engine.
struct Feed {
    input: speech::Input,
    samples: mpsc::Receiver<Result<Vec<i16>, AudioError>>,
    /// The number of the next sample in the recording.
    position: u64,
}

/// Passes the samples to the engines until they end. Always feeds the one that is furthest behind, so that engines which
/// hear a channel each stay together, and few lines of one wait for the other.
async fn feed_all(mut feeds: Vec<Feed>) -> Result<(), AttemptError> {
    let mut result = Ok(());
    while let Some(n) = (0..feeds.len()).min_by_key(|n| feeds[*n].position) {
        let feed = &mut feeds[n];
        let fed = match feed.samples.recv().await {
            Some(piece) => {
                let piece = piece.map_err(|error| decode_failure(&error))?;
                feed.position += piece.len() as u64;
                feed.input.write(&piece).await
            }
            None => {
                result = result.and(feeds.swap_remove(n).input.finish().await);
                continue;
            }
        };
        if fed.is_err() {
            // This engine is gone; the other still hears everything.
            feeds.swap_remove(n);
            result = result.and(fed);
        }
    }
    result.map_err(AttemptError::from)
}

/// The next event of any engine that isn't done, and the engine's number. May be dropped at any time, like
/// [`speech::Output::next`].
async fn next_event(outputs: &mut [Option<speech::Output>]) -> (usize, Result<Option<EngineEvent>, SpeechError>) {
    let running = outputs.iter_mut().enumerate().filter_map(|(n, output)| {
        let output = output.as_mut()?;
        Some(Box::pin(async move { (n, output.next().await) }))
    });
    select_all(running).await.0
}

/// A line of an engine that began at `offset`, with the times of the recording.
fn later(mut line: EngineSegment, offset: f64) -> EngineSegment {
    line.start += offset;
    line.end += offset;
    for word in &mut line.words {
        word.start += offset;
        word.end += offset;
    }
    line
}

/// The message for people about a silence of so many seconds, with the remaining seconds of audio.
fn stalled_message(who: &str, silence: f64, left: Option<f64>) -> String {
    let left = left.filter(|left| *left >= 1.0);
    let left = left.map(|left| format!(", with {} of the recording still to do", duration(left)));
    format!("The {who} said nothing for {}{}.", duration(silence), left.unwrap_or_default())
}

/// The message for people about a recording that could not be read.
fn unavailable_message(error: &MediaError) -> &'static str {
    match error {
        MediaError::Missing => "The recording isn't where the worker looked for it.",
        MediaError::Full { .. } => "The worker's disk has no room for the recording.",
        MediaError::Storage(_) | MediaError::Scratch { .. } => "The recording could not be fetched from its storage.",
    }
}

/// What a write of the store says of the claim that it named.
fn still_claimed(valid: bool) -> Result<(), AttemptError> {
    if valid { Ok(()) } else { Err(AttemptError::LostClaim) }
}

fn check_survey(decoding: &spool::Survey) -> Result<(), AttemptError> {
    match decoding.end.as_deref() {
        Some(Err(error)) => Err(decode_failure(error)),
        Some(Ok(_)) | None => Ok(()),
    }
}

/// Converts an error of the decoder: the recording is at fault, unless the storage failed.
fn decode_failure(error: &AudioError) -> AttemptError {
    match error {
        AudioError::Io(error) => AttemptError::Io(std::io::Error::new(error.kind(), error.to_string())),
        error => AttemptError::Audio(error.to_string(), error.code()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_is_reported_in_words() {
        assert_eq!(
            stalled_message("speech engine", 660.0, Some(3600.0)),
            "The speech engine said nothing for 11 min, with 1 h of the recording still to do."
        );
        assert_eq!(stalled_message("decoder", 300.0, None), "The decoder said nothing for 5 min.");
        assert_eq!(stalled_message("speech engine", 65.0, Some(0.2)), "The speech engine said nothing for 1 min 5 s.");
    }
}
