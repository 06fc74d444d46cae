//! One attempt at one session: from the claim to its last word.

use super::{NodeSpeed, Workers, lease, spool};
use crate::{
    model::{
        Failure, Meter, Segment, SessionId, Stage, Status, Timestamp, Word, clock, duration, percent, stall_timeout,
        text::count,
    },
    server::{
        audio::{AudioError, SAMPLE_RATE},
        bus::Signal,
        config::JobConfig,
        event::Event,
        media::{MediaError, Scratch},
        sessions::Sessions,
        space::Reservation,
        speech::{self, EngineEvent, EngineSegment, Request, SpeechError},
        store::{self, Claim, Ending},
    },
};
use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{sync::broadcast::error::RecvError, time};
use tokio_util::sync::CancellationToken;

/// Progress is stored and published at most this often. People see no more in a bar, and a status costs each watcher
/// half a kilobyte. Stages, ends and segments don't wait.
const TICK: Duration = Duration::from_secs(1);
/// Between tries to fetch a recording whose storage doesn't answer.
const FETCH_PAUSE: Duration = Duration::from_secs(2);

/// Pause before a write is tried again while the database is away.
const AGAIN: Duration = Duration::from_millis(250);

/// A write to the store, tried again while the database is away, until the lease must have run out: what has been heard
/// isn't given up because a database is restarted. While the database's disk is full it is tried until there is room or
/// the node stops. `$again`: whether an earlier try may have been carried out.
macro_rules! persist {
    ($job:expr, |$again:pat_param| $write:expr) => {{
        let mut patience = Patience::of($job);
        loop {
            let $again = patience.tried;
            match $write.await {
                Err(error) if patience.lasts(&error) => time::sleep(AGAIN).await,
                done => break done,
            }
            $job.held_up.store(true, Relaxed);
        }
    }};
}

/// How long a write is tried again.
struct Patience {
    id: SessionId,
    until: time::Instant,
    stop: CancellationToken,
    tried: bool,
}

impl Patience {
    fn of(job: &Job<'_>) -> Self {
        let until = time::Instant::now() + job.lease_length();
        Self { id: job.claim.session.id, until, stop: job.stop.clone(), tried: false }
    }

    fn lasts(&mut self, error: &sqlx::Error) -> bool {
        let lasts = if store::is_full(error) {
            !self.stop.is_cancelled()
        } else {
            store::is_passing(error) && time::Instant::now() < self.until
        };
        if !lasts {
            return false;
        }
        if !self.tried {
            tracing::warn!(session_id = %self.id, %error, "the store takes nothing; session {} waits for it", self.id);
        }
        self.tried = true;
        true
    }
}

/// Why an attempt ended before its end.
#[derive(Debug, thiserror::Error)]
enum Stop {
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
    #[error("the recording can't be had: {0}")]
    Media(#[from] MediaError),
    #[error("the scratch file failed: {0}")]
    Io(#[from] std::io::Error),
}

/// How a worker comes out of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Ready for the next.
    Ready,
    /// Its disk is full.
    NoRoom,
}

/// Works on a claimed session until it has ended, was taken away, or `shutdown`. `room` is promised for its recording,
/// if there was so much.
pub(super) async fn run(
    workers: Workers,
    claim: Claim,
    room: Option<Reservation>,
    shutdown: CancellationToken,
    speed: Arc<NodeSpeed>,
) -> Left {
    let id = claim.session.id;
    let attempt = claim.session.status.attempt;
    tracing::info!(session_id = %id, attempt, engine = %claim.session.engine, "session {id} is being transcribed");
    let started = time::Instant::now();
    let mut job = Job::new(&workers, &claim, &shutdown);
    let result = job.work(room, &shutdown, &speed).await;
    let left = if matches!(&result, Err(stop) if stop.is_full_disk()) { Left::NoRoom } else { Left::Ready };
    let ended = job.finish(result).await;
    match ended {
        Ok(Some(event)) => {
            if let Some(status) = event.new_status() {
                let seconds = started.elapsed().as_secs_f64();
                match &status.error {
                    Some(Failure { code, message }) => tracing::warn!(
                        session_id = %id, status = %status.state, segments = status.segments, seconds, code,
                        "session {id} has failed: {message}"
                    ),
                    None => tracing::info!(
                        session_id = %id, status = %status.state, segments = status.segments, seconds,
                        "session {id} is {}", status.state
                    ),
                }
            }
            workers.sessions.bus.publish(&event);
        }
        Ok(None) => tracing::info!(session_id = %id, attempt, "session {id} is no longer this worker's"),
        // The lease runs out and another attempt takes over.
        Err(error) => tracing::error!(session_id = %id, %error, "the end of session {id} could not be stored"),
    }
    left
}

impl Stop {
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
    config: &'a JobConfig,
    claim: &'a Claim,
    status: Status,
    meter: Meter,
    /// From where the meter's seconds count.
    started: time::Instant,
    /// Seconds of audio that earlier attempts have transcribed; the engine's times count from here.
    offset: f64,
    published: time::Instant,
    /// Whether there is progress that hasn't been published.
    pending: bool,
    /// Whether a write has waited for the store since this was last looked at. Nobody else is to blame for that time.
    held_up: AtomicBool,
    /// The node stops.
    stop: CancellationToken,
}

impl<'a> Job<'a> {
    fn new(workers: &'a Workers, claim: &'a Claim, stop: &CancellationToken) -> Self {
        let now = time::Instant::now();
        Self {
            sessions: &workers.sessions,
            config: &workers.config,
            claim,
            status: claim.session.status.clone(),
            meter: Meter::new(0.0, 0.0),
            started: now,
            offset: 0.0,
            published: now,
            pending: false,
            held_up: AtomicBool::default(),
            stop: stop.clone(),
        }
    }

    async fn work(
        &mut self,
        room: Option<Reservation>,
        shutdown: &CancellationToken,
        speed: &NodeSpeed,
    ) -> Result<(), Stop> {
        let id = self.claim.session.id;
        if let Some(done) = self.status.segments.checked_sub(1)
            && let Some(last) = self.sessions.store.segments(id, done, 1).await?.pop()
        {
            self.offset = last.end;
        }
        self.status.duration_processed = self.offset;
        let (recording, _fetched) = self.recording(room, shutdown).await?;
        let max_duration = self.sessions.limits.max_duration;
        let stop_survey = CancellationToken::new();
        let _stop_on_return = stop_survey.clone().drop_guard();
        let mut decoding = spool::survey(self.sessions.decoders.clone(), recording.clone(), max_duration, stop_survey);
        // A file that can't be decoded at all ends here, before an engine is started for it.
        let begun = async { decoding.wait_for(|d| d.begun || d.end.is_some()).await.map(|d| d.clone()) };
        // If its thread panicked, there will be nothing to hear either.
        let first = self.attend(begun, Some("decoder"), shutdown).await?.unwrap_or_default();
        check(&first)?;
        self.stage(Stage::LoadingModel, "Loading the speech model").await?;
        let Some(engine) = self.sessions.engines.get(self.claim.session.engine) else {
            let reason = format!("The engine {} is not part of this build.", self.claim.session.engine);
            return Err(SpeechError::Unavailable { reason, install: String::new() }.into());
        };
        let (mut input, mut output) =
            speech::spawn(engine, &Request { language: self.claim.session.language.clone() })?;
        let from = (self.offset * f64::from(SAMPLE_RATE)).round() as u64;
        let mut samples = spool::samples(self.sessions.decoders.clone(), recording, max_duration, from);
        // Feeding goes on beside listening: an engine that is busy talking doesn't read, and the other way round.
        let feed = async move {
            while let Some(piece) = samples.recv().await {
                input.write(&piece.map_err(|error| broken(&error))?).await?;
            }
            input.finish().await?;
            Ok::<(), Stop>(())
        };
        tokio::pin!(feed);
        let mut fed = false;
        let mut signals = self.sessions.bus.signals();
        let mut renewals = self.renewals();
        let mut heard = time::Instant::now();
        // Of a short recording the decoder may have told all before.
        decoding.mark_changed();
        let mut decoded = false;
        loop {
            if self.held_up.swap(false, Relaxed) {
                heard = time::Instant::now();
            }
            tokio::select! {
                event = output.next() => {
                    heard = time::Instant::now();
                    match event? {
                        Some(EngineEvent::Ready { model }) => {
                            persist!(self, |_| self.sessions.store.save_model(self.claim, &model))?;
                            self.meter = Meter::new(self.elapsed(), self.offset);
                            self.status.progress = self.progress();
                            self.stage(Stage::Transcribing, "Transcribing").await?;
                        }
                        Some(EngineEvent::Progress { processed }) => {
                            self.processed(self.offset + processed, speed);
                            self.tick().await?;
                        }
                        Some(EngineEvent::Partial { .. }) => {}
                        Some(EngineEvent::Segment(segment)) => self.segment(segment, speed).await?,
                        Some(EngineEvent::Done) => break,
                        None => return Err(SpeechError::Crashed { status: "without saying 'done'".to_owned(), stderr_tail: String::new() }.into()),
                    }
                }
                result = &mut feed, if !fed => {
                    fed = true;
                    // A broken pipe only says that the engine is gone; its output says why.
                    match result { Err(Stop::Speech(_)) | Ok(()) => {} Err(other) => return Err(other) }
                }
                Ok(()) = decoding.changed(), if !decoded => {
                    let now = decoding.borrow_and_update().clone();
                    decoded = self.decoded(&now).await?;
                }
                _ = renewals.tick() => self.renew().await?,
                signal = signals.recv() => self.heed(signal)?,
                () = shutdown.cancelled() => return Err(Stop::Shutdown),
                () = time::sleep_until(self.published + TICK), if self.pending => self.save().await?,
                () = time::sleep_until(heard + self.silence()) => return Err(self.stalled("speech engine")),
            }
        }
        output.kill().await;
        if !decoded {
            // The engine was faster than the news of the decoder, or didn't want to hear all.
            let ended = async { decoding.wait_for(|d| d.end.is_some()).await.map(|d| d.clone()) };
            let end = self.attend(ended, Some("decoder"), shutdown).await?.unwrap_or_default();
            self.decoded(&end).await?;
        }
        self.stage(Stage::Saving, "Saving the transcript").await
    }

    /// Takes in what the decoder tells, and whether that was all. Fails if the recording is broken.
    async fn decoded(&mut self, decoding: &spool::Survey) -> Result<bool, Stop> {
        check(decoding)?;
        let Some(Ok(whole)) = decoding.end.as_deref() else { return Ok(false) };
        self.status.duration_total = Some(whole.duration);
        let (id, peaks) = (self.claim.session.id, &whole.waveform.peaks);
        persist!(self, |_| self.sessions.store.save_waveform(id, peaks))?;
        self.status.progress = self.progress();
        self.save().await?;
        Ok(true)
    }

    /// The recording as a file of this machine, and what removes it if it had to be fetched. While it can't be fetched,
    /// tries again for as long as an engine may be silent: that is no fault of the session.
    async fn recording(
        &mut self,
        room: Option<Reservation>,
        shutdown: &CancellationToken,
    ) -> Result<(PathBuf, Option<Scratch>), Stop> {
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
        self.stage(Stage::Decoding, "Fetching the recording").await?;
        let patience = self.silence();
        let (mut held, mut since) = (0, time::Instant::now());
        loop {
            let fetching = media.fetch(id, &copy, &mut room);
            let Err(error) = self.attend(fetching, None, shutdown).await? else {
                return Ok((copy.path().to_owned(), Some(copy)));
            };
            let now = copy.size()?;
            if now > held {
                (held, since) = (now, time::Instant::now());
            }
            if matches!(error, MediaError::Missing | MediaError::Full { .. }) || since.elapsed() > patience {
                return Err(error.into());
            }
            tracing::warn!(session_id = %id, %error, "the recording of session {id} can't be fetched; trying again");
            self.stage(Stage::Decoding, "The recording can't be fetched at the moment; trying again").await?;
            self.attend(time::sleep(FETCH_PAUSE), None, shutdown).await?;
        }
    }

    /// Waits for `work` and renews the lease meanwhile. Drops it when the session is taken away, at `shutdown`, or when
    /// `who` does it has been silent for too long.
    async fn attend<T>(
        &self,
        work: impl Future<Output = T>,
        who: Option<&'static str>,
        shutdown: &CancellationToken,
    ) -> Result<T, Stop> {
        tokio::pin!(work);
        let mut signals = self.sessions.bus.signals();
        let mut renewals = self.renewals();
        let mut deadline = time::Instant::now() + self.silence();
        loop {
            if self.held_up.swap(false, Relaxed) {
                deadline = time::Instant::now() + self.silence();
            }
            tokio::select! {
                done = &mut work => return Ok(done),
                _ = renewals.tick() => self.renew().await?,
                signal = signals.recv() => self.heed(signal)?,
                () = shutdown.cancelled() => return Err(Stop::Shutdown),
                () = time::sleep_until(deadline), if who.is_some() => {
                    return Err(self.stalled(who.unwrap_or_default()));
                }
            }
        }
    }

    fn renewals(&self) -> time::Interval {
        // Two heartbeats may get lost before the lease runs out.
        let heartbeat = Duration::from_secs(u64::from(self.config.heartbeat_secs));
        let mut renewals = time::interval(heartbeat.min(self.lease_length() / 3));
        renewals.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        renewals
    }

    async fn renew(&self) -> Result<(), Stop> {
        let store = &self.sessions.store;
        let renewed = persist!(self, |_| store.renew(self.claim, lease(self.config, Timestamp::now())));
        if renewed? { Ok(()) } else { Err(Stop::LostClaim) }
    }

    fn heed(&self, signal: Result<Signal, RecvError>) -> Result<(), Stop> {
        match signal {
            Ok(Signal::Stop(id)) if id == self.claim.session.id => Err(Stop::Cancelled),
            Ok(_) | Err(RecvError::Lagged(_)) => Ok(()),
            Err(RecvError::Closed) => Err(Stop::Shutdown),
        }
    }

    /// How long there may be silence: longer, the more there is still to do.
    fn silence(&self) -> Duration {
        let (jobs, longest) = (self.config, self.sessions.limits.max_duration);
        let (done, total) = (self.status.duration_processed, self.status.duration_total);
        Duration::from_secs_f64(stall_timeout(f64::from(jobs.stall_secs), jobs.stall_factor, done, total, longest))
    }

    fn stalled(&self, who: &'static str) -> Stop {
        let left = self.status.duration_total.map(|total| (total - self.status.duration_processed).max(0.0));
        Stop::Stalled { who, silence: self.silence().as_secs_f64(), left }
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
            Some(total) => format!("Transcribing {} of {}", clock(seconds), clock(total)),
            None => format!("Transcribing, {} done", clock(seconds)),
        };
    }

    /// Never below what this attempt has shown before: a container may declare less than it holds.
    fn progress(&self) -> Option<f64> {
        let now = percent(self.status.duration_processed, self.status.duration_total);
        now.map(|p| p.max(self.status.progress.unwrap_or(0.0))).or(self.status.progress)
    }

    async fn segment(&mut self, heard: EngineSegment, speed: &NodeSpeed) -> Result<(), Stop> {
        let shift = |seconds: f64| seconds + self.offset;
        let segment = Segment {
            index: self.status.segments,
            start: shift(heard.start),
            end: shift(heard.end),
            text: heard.text,
            confidence: heard.confidence,
            words: heard
                .words
                .into_iter()
                .map(|w| Word { text: w.text, start: shift(w.start), end: shift(w.end), confidence: w.confidence })
                .collect(),
        };
        self.processed(segment.end, speed);
        self.status.segments += 1;
        // One that comes too soon is announced at once all the same, and counted by the next status.
        let due = self.is_due();
        if due {
            self.next_version();
        }
        let event = persist!(self, |again| self.append(&segment, due, again))?.ok_or(Stop::LostClaim)?;
        if due {
            self.wrote(&event);
        } else {
            self.pending = true;
            self.sessions.bus.publish(&event);
        }
        Ok(())
    }

    /// `again`: an earlier try may have added it, and only the answer was lost.
    async fn append(&self, segment: &Segment, due: bool, again: bool) -> Result<Option<Event>, sqlx::Error> {
        let store = &self.sessions.store;
        if again && !store.segments(self.claim.session.id, segment.index, 1).await?.is_empty() {
            return store.save(self.claim, &self.status).await;
        }
        store.append(self.claim, segment, &self.status, due).await
    }

    async fn stage(&mut self, stage: Stage, message: &str) -> Result<(), Stop> {
        self.status.stage = Some(stage);
        message.clone_into(&mut self.status.message);
        self.save().await
    }

    fn is_due(&self) -> bool {
        self.published.elapsed() >= TICK
    }

    /// A small step: told now, or soon together with those that follow.
    async fn tick(&mut self) -> Result<(), Stop> {
        self.pending = true;
        if self.is_due() { self.save().await } else { Ok(()) }
    }

    async fn save(&mut self) -> Result<(), Stop> {
        self.next_version();
        let saved = persist!(self, |_| self.sessions.store.save(self.claim, &self.status));
        let event = saved?.ok_or(Stop::LostClaim)?;
        self.wrote(&event);
        Ok(())
    }

    /// Seconds since this attempt began, on the monotonic clock.
    fn elapsed(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    fn lease_length(&self) -> Duration {
        Duration::from_secs(u64::from(self.config.lease_secs))
    }

    fn wrote(&mut self, event: &Event) {
        self.published = time::Instant::now();
        self.pending = false;
        self.sessions.bus.publish(event);
    }

    fn next_version(&mut self) {
        self.status.version += 1;
        self.status.timestamp = Timestamp::now();
    }

    /// Stores how the attempt ended.
    async fn finish(&mut self, result: Result<(), Stop>) -> Result<Option<Event>, sqlx::Error> {
        self.next_version();
        let id = self.claim.session.id;
        let ending = match result {
            Ok(()) => {
                self.status.message = match self.status.segments {
                    0 => "Finished; no speech was found".to_owned(),
                    _ => "Finished".to_owned(),
                };
                self.status.duration_processed = self.status.duration_total.unwrap_or(self.status.duration_processed);
                if let Some(speed) = self.status.processing_speed {
                    metrics::histogram!("hark_real_time_factor", "engine" => self.claim.session.engine.as_str())
                        .record(1.0 / speed);
                }
                Ending::Completed
            }
            Err(Stop::LostClaim | Stop::Cancelled) => return Ok(None),
            Err(Stop::Shutdown) => Ending::HandedBack,
            // Only a stop ends the wait for a full disk.
            Err(Stop::Store(error)) if store::is_full(&error) => Ending::HandedBack,
            // No fault of the session, and another worker may have room.
            Err(stop) if stop.is_full_disk() => {
                tracing::warn!(session_id = %id, "the disk is full, so session {id} goes back to the queue");
                Ending::HandedBack
            }
            Err(Stop::Audio(message, code)) => Ending::Failed(Failure { code: code.to_owned(), message }),
            Err(Stop::Speech(error @ (SpeechError::Unavailable { .. } | SpeechError::Engine { .. }))) => {
                Ending::Failed(Failure { code: error.code().to_owned(), message: error.to_string() })
            }
            // A crash, a stall or a failing disk may be gone at the next attempt.
            Err(error) => {
                let tries = self.claim.crashes + 1;
                tracing::warn!(session_id = %id, %error, tries, "the attempt at session {id} failed");
                if tries < self.config.max_attempts {
                    let store = &self.sessions.store;
                    return persist!(self, |_| store.requeue_crashed(self.claim, Timestamp::now()));
                }
                let (code, message) = match &error {
                    Stop::Speech(speech) => (speech.code(), speech.to_string()),
                    Stop::Stalled { who, silence, left } => ("stalled", silent(who, *silence, *left)),
                    Stop::Media(error) => ("recording_unavailable", unfetched(error).to_owned()),
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
        match persist!(self, |_| end()) {
            // A node that stops can't wait for room.
            Err(error) if store::is_full(&error) => disk.make_room(store, store::is_full, end).await,
            ended => ended,
        }
    }
}

/// Tells people of a silence, in seconds, and what was still to do, in seconds of audio.
fn silent(who: &str, silence: f64, left: Option<f64>) -> String {
    let left = left.filter(|left| *left >= 1.0);
    let left = left.map(|left| format!(", with {} of the recording still to do", duration(left)));
    format!("The {who} said nothing for {}{}.", duration(silence), left.unwrap_or_default())
}

/// Why there was nothing to hear, for people.
fn unfetched(error: &MediaError) -> &'static str {
    match error {
        MediaError::Missing => "The recording isn't where the worker looked for it.",
        MediaError::Full { .. } => "The worker's disk has no room for the recording.",
        MediaError::Storage(_) | MediaError::Scratch(_) => "The recording could not be fetched from its storage.",
    }
}

fn check(decoding: &spool::Survey) -> Result<(), Stop> {
    match decoding.end.as_deref() {
        Some(Err(error)) => Err(broken(error)),
        Some(Ok(_)) | None => Ok(()),
    }
}

/// What a recording that can't be decoded means for the attempt: an end, unless it was the storage.
fn broken(error: &AudioError) -> Stop {
    match error {
        AudioError::Io(error) => Stop::Io(std::io::Error::new(error.kind(), error.to_string())),
        error => Stop::Audio(error.to_string(), error.code()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_is_told_in_words() {
        assert_eq!(
            silent("speech engine", 660.0, Some(3600.0)),
            "The speech engine said nothing for 11 min, with 1 h of the recording still to do."
        );
        assert_eq!(silent("decoder", 300.0, None), "The decoder said nothing for 5 min.");
        assert_eq!(silent("speech engine", 65.0, Some(0.2)), "The speech engine said nothing for 1 min 5 s.");
    }
}
