//! The queue of uploads that the upload page shows: which wait, which are being sent, and how each ended. Pure.
//! `feed/browser/upload.rs` sends them, each as `feed/transfer.rs` says, and `app/uploads.rs` connects the two.

use crate::model::{Status, text};

/// A file that was chosen and hasn't been sent yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picked {
    /// The key of the file, which `feed/browser/upload.rs` holds.
    pub key: u32,
    pub name: String,
    pub bytes: u64,
    /// Whether an earlier page has begun to send it, so that it goes on from there.
    pub begun: bool,
}

/// An upload that an earlier page has begun. It goes on when its file is chosen again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// Under which `feed/browser/upload.rs` remembers it.
    pub key: String,
    pub name: String,
    pub bytes: u64,
    /// How many bytes the server had when that page was left.
    pub sent: u64,
}

impl Unfinished {
    /// `62% of 4.8 MB sent`.
    #[must_use]
    pub fn words(&self) -> String {
        format!("{} of {} sent", text::percentage(percent(self.sent, self.bytes)), crate::model::bytes(self.bytes))
    }
}

fn percent(sent: u64, bytes: u64) -> f64 {
    if bytes == 0 { 0.0 } else { sent as f64 / bytes as f64 * 100.0 }
}

/// The options sent along with a file. An empty one leaves the choice to the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UploadOptions {
    pub title: String,
    pub language: String,
    pub engine: String,
    pub vocabulary: String,
    pub channels: String,
    pub track: String,
    /// Whether it is sent even if the same file was sent before.
    pub again: bool,
}

/// What happened to an upload that was started.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The server has so many bytes from before, at this time in seconds.
    Found { bytes: u64, at: f64 },
    /// The server has so many bytes at this time, in seconds.
    Sent { bytes: u64, at: f64 },
    /// The connection broke. It is tried again.
    Stalled,
    /// It has become a session, which has this status.
    Done(Box<Status>),
    /// The same file was sent before, and became a session that has this status.
    SentBefore(Box<Status>),
    /// It failed, with a message for people.
    Failed(String),
}

/// The state of an upload.
#[derive(Clone, Debug, PartialEq)]
pub enum Phase {
    /// Waiting for its turn.
    Waiting,
    /// Being sent since `began`, when the server had `found` bytes; at `at` it had `sent`. Both times are in seconds of the same
    /// clock.
    Sending {
        found: u64,
        sent: u64,
        began: f64,
        at: f64,
        /// Whether the connection is broken.
        stalled: bool,
    },
    /// Received, with the status that its session began with.
    Done(Box<Status>),
    /// Not sent, because it was sent before and became this session.
    SentBefore(Box<Status>),
    Failed(String),
    /// Cancelled by the person who started it.
    Aborted,
}

/// One upload.
#[derive(Clone, Debug, PartialEq)]
pub struct Upload {
    pub key: u32,
    pub name: String,
    pub bytes: u64,
    pub options: UploadOptions,
    pub phase: Phase,
    /// Whether the file is larger than the server accepts, so that it isn't sent.
    pub too_large: bool,
    /// The run of the queue that it belongs to.
    run: u32,
}

impl Upload {
    /// Seconds after which the speed has settled: before, it depends on the first packets.
    const SETTLED: f64 = 1.0;

    /// The bytes of the file that the server has.
    #[must_use]
    pub fn sent(&self) -> u64 {
        match self.phase {
            Phase::Sending { sent, .. } => sent.min(self.bytes),
            Phase::Done(_) => self.bytes,
            _ => 0,
        }
    }

    /// The part of the file sent so far, in percent.
    #[must_use]
    pub fn percent(&self) -> f64 {
        percent(self.sent(), self.bytes)
    }

    /// Bytes per second, once the speed has settled.
    #[must_use]
    pub fn speed(&self) -> Option<f64> {
        match self.phase {
            Phase::Sending { found, sent, began, at, stalled: false }
                if at - began >= Self::SETTLED && sent > found =>
            {
                Some((sent - found) as f64 / (at - began))
            }
            _ => None,
        }
    }

    /// Seconds until the file is sent, once the speed has settled.
    #[must_use]
    pub fn seconds_remaining(&self) -> Option<f64> {
        Some((self.bytes - self.sent()) as f64 / self.speed()?)
    }

    /// Whether the upload can be tried again.
    #[must_use]
    pub fn can_retry(&self) -> bool {
        matches!(self.phase, Phase::Failed(_) | Phase::Aborted | Phase::SentBefore(_)) && !self.too_large
    }

    /// Whether the connection over which it is sent is broken.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        matches!(self.phase, Phase::Sending { stalled: true, .. })
    }

    /// Whether it is a session, made by it or before.
    #[must_use]
    pub fn is_session(&self) -> bool {
        matches!(self.phase, Phase::Done(_) | Phase::SentBefore(_))
    }

    /// Whether it waits or is being sent.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Waiting | Phase::Sending { .. })
    }
}

/// What was sent since the queue was last empty or at its end. A later run begins at 0 again.
#[derive(Clone, Debug, Default, PartialEq)]
struct Run {
    number: u32,
    /// When its first upload began, in seconds.
    began: Option<f64>,
    /// When something was last sent, in seconds.
    at: f64,
    /// All bytes sent, also those of uploads that failed.
    sent: u64,
}

/// All uploads of a run together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Total {
    /// How many files there are, without those that failed or were cancelled.
    pub files: usize,
    /// How many of them the server has received.
    pub done: usize,
    /// The part of all their bytes sent so far, in percent.
    pub percent: f64,
    /// Seconds until all are sent, once the speed has settled.
    pub seconds_remaining: Option<f64>,
}

impl Total {
    /// `3 of 7 sent, 41%, 2 min left`.
    #[must_use]
    pub fn words(&self) -> String {
        let mut words = format!("{} of {} sent, {}", self.done, self.files, text::percentage(self.percent));
        if let Some(left) = self.seconds_remaining {
            words += &format!(", {} left", text::remaining(left));
        }
        words
    }
}

/// All uploads of this visit, in the order in which the files were chosen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Queue {
    pub uploads: Vec<Upload>,
    run: Run,
}

impl Queue {
    /// The number of uploads sent at once. More would make each one slower, and a browser has only six connections to a host
    /// with HTTP/1.1.
    pub const AT_ONCE: usize = 2;

    /// Appends a file. A file larger than `limit` bytes fails without being sent.
    pub fn add(&mut self, picked: Picked, options: UploadOptions, limit: u64) {
        let Picked { key, name, bytes, .. } = picked;
        self.begin_run();
        let problem = too_large(bytes, limit);
        let too_large = problem.is_some();
        let phase = problem.map_or(Phase::Waiting, Phase::Failed);
        self.uploads.push(Upload { key, name, bytes, options, phase, too_large, run: self.run.number });
    }

    /// Begins another run if the one before has come to its end.
    fn begin_run(&mut self) {
        if self.open() == 0 {
            self.run = Run { number: self.run.number + 1, ..Run::default() };
        }
    }

    /// Marks as many waiting uploads as may start at `now` as being sent, and returns them.
    #[must_use]
    pub fn start(&mut self, now: f64) -> Vec<(u32, UploadOptions)> {
        let busy = self.uploads.iter().filter(|u| matches!(u.phase, Phase::Sending { .. })).count();
        let free = Self::AT_ONCE.saturating_sub(busy);
        let mut started = Vec::new();
        for upload in self.uploads.iter_mut().filter(|u| u.phase == Phase::Waiting).take(free) {
            upload.phase = Phase::Sending { found: 0, sent: 0, began: now, at: now, stalled: false };
            self.run.began.get_or_insert(now);
            started.push((upload.key, upload.options.clone()));
        }
        started
    }

    /// Takes in an event. Events of an upload that has ended are ignored.
    pub fn on(&mut self, key: u32, event: Event) {
        let Some(upload) = self.get_mut(key) else { return };
        let Phase::Sending { found, sent, began, at: before, .. } = upload.phase else { return };
        match event {
            Event::Found { bytes, at } => {
                upload.phase = Phase::Sending { found: bytes, sent: bytes, began: at, at, stalled: false };
            }
            Event::Stalled => {
                upload.phase = Phase::Sending { found, sent, began, at: before, stalled: true };
            }
            Event::Sent { bytes, at } => {
                upload.phase = Phase::Sending { found, sent: bytes.max(sent), began, at, stalled: false };
                self.run.sent += bytes.saturating_sub(sent);
                self.run.at = at;
            }
            Event::Done(status) => upload.phase = Phase::Done(status),
            Event::SentBefore(status) => upload.phase = Phase::SentBefore(status),
            Event::Failed(message) => upload.phase = Phase::Failed(message),
        }
    }

    /// Cancels an upload that waits or is being sent.
    pub fn abort(&mut self, key: u32) {
        if let Some(upload) = self.get_mut(key).filter(|u| u.is_open()) {
            upload.phase = Phase::Aborted;
        }
    }

    /// Queues an upload again that failed, was cancelled or wasn't sent because it was before.
    pub fn retry(&mut self, key: u32) {
        if !self.get(key).is_some_and(Upload::can_retry) {
            return;
        }
        self.begin_run();
        let run = self.run.number;
        if let Some(upload) = self.get_mut(key) {
            upload.options.again |= matches!(upload.phase, Phase::SentBefore(_));
            (upload.phase, upload.run) = (Phase::Waiting, run);
        }
    }

    /// Removes an upload.
    pub fn remove(&mut self, key: u32) {
        self.uploads.retain(|u| u.key != key);
    }

    /// The upload with this key.
    #[must_use]
    pub fn get(&self, key: u32) -> Option<&Upload> {
        self.uploads.iter().find(|u| u.key == key)
    }

    /// The upload behind this one, or the one before it if it is the last: where somebody is when this one goes. `unfinished`: only
    /// of those that aren't sessions.
    #[must_use]
    pub fn neighbour(&self, key: u32, unfinished: bool) -> Option<u32> {
        let at = self.uploads.iter().position(|u| u.key == key)?;
        let (before, behind) = (&self.uploads[..at], &self.uploads[at + 1..]);
        let mut shown = behind.iter().chain(before.iter().rev()).filter(|u| !(unfinished && u.is_session()));
        shown.next().map(|u| u.key)
    }

    fn get_mut(&mut self, key: u32) -> Option<&mut Upload> {
        self.uploads.iter_mut().find(|u| u.key == key)
    }

    /// The number of uploads that wait or are being sent.
    #[must_use]
    pub fn open(&self) -> usize {
        self.uploads.iter().filter(|u| u.is_open()).count()
    }

    /// Whether the connection is broken over which an upload is sent.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        self.uploads.iter().any(Upload::is_stalled)
    }

    /// Whether an upload isn't a session: it waits, is being sent, has failed or was cancelled.
    #[must_use]
    pub fn has_unfinished(&self) -> bool {
        self.uploads.iter().any(|u| !u.is_session())
    }

    /// The uploads of this run together; none once all have ended.
    #[must_use]
    pub fn total(&self) -> Option<Total> {
        let counts = |u: &&Upload| u.run == self.run.number && (u.is_open() || matches!(u.phase, Phase::Done(_)));
        let of_run = || self.uploads.iter().filter(counts);
        let bytes: u64 = of_run().map(|u| u.bytes).sum();
        let sent: u64 = of_run().map(Upload::sent).sum();
        let time = self.run.began.map_or(0.0, |began| self.run.at - began);
        let settled = time >= Upload::SETTLED && self.run.sent > 0;
        (self.open() > 0).then(|| Total {
            files: of_run().count(),
            done: of_run().filter(|u| !u.is_open()).count(),
            percent: percent(sent, bytes),
            seconds_remaining: settled.then(|| (bytes - sent) as f64 * time / self.run.sent as f64),
        })
    }
}

/// The message for a file that is too large to be sent. None if it isn't.
#[must_use]
pub fn too_large(bytes: u64, limit: u64) -> Option<String> {
    let (size, most) = (crate::model::bytes(bytes), crate::model::bytes(limit));
    (bytes > limit)
        .then(|| format!("The file is too large: {size}, at most {most}. Send a shorter or more compressed one."))
}

#[cfg(test)]
mod tests;
