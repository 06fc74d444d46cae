//! The queue of uploads that the upload page shows: which wait, which are being sent, and how each ended. Pure.
//! `feed/browser/upload.rs` sends them, and `app/uploads.rs` connects the two.

use crate::model::SessionId;

/// A file that was chosen and hasn't been sent yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picked {
    /// The key of the file, which `feed/browser/upload.rs` holds.
    pub key: u32,
    pub name: String,
    pub bytes: u64,
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
}

/// What happened to an upload that was started.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The number of bytes of the request sent at this time, in seconds.
    Sent { bytes: u64, at: f64 },
    /// The server answered with the new session.
    Done(SessionId),
    /// It failed, with a message for people.
    Failed(String),
}

/// The state of an upload.
#[derive(Clone, Debug, PartialEq)]
pub enum Phase {
    /// Waiting for its turn.
    Waiting,
    /// Being sent since `began`; `sent` bytes were sent at `at`. Both times are in seconds of the same clock.
    Sending {
        sent: u64,
        began: f64,
        at: f64,
    },
    Done(SessionId),
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
}

impl Upload {
    /// Seconds after which the speed has settled: before, it depends on the first packets.
    const SETTLED: f64 = 1.0;

    /// The bytes of the file sent so far. The request is a little longer than the file.
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
        if self.bytes == 0 { 0.0 } else { self.sent() as f64 / self.bytes as f64 * 100.0 }
    }

    /// Bytes per second, once the speed has settled.
    #[must_use]
    pub fn speed(&self) -> Option<f64> {
        match self.phase {
            Phase::Sending { sent, began, at } if at - began >= Self::SETTLED && sent > 0 => {
                Some(sent as f64 / (at - began))
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
        matches!(self.phase, Phase::Failed(_) | Phase::Aborted) && !self.too_large
    }

    /// Whether it waits or is being sent.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Waiting | Phase::Sending { .. })
    }
}

/// All uploads of this visit, in the order in which the files were chosen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Queue {
    pub uploads: Vec<Upload>,
}

impl Queue {
    /// The number of uploads sent at once. More would make each one slower, and a browser has only six connections to a host
    /// with HTTP/1.1.
    pub const AT_ONCE: usize = 2;

    /// Appends a file. A file larger than `limit` bytes fails without being sent.
    pub fn add(&mut self, picked: Picked, options: UploadOptions, limit: u64) {
        let Picked { key, name, bytes } = picked;
        let problem = too_large(bytes, limit);
        let too_large = problem.is_some();
        let phase = problem.map_or(Phase::Waiting, Phase::Failed);
        self.uploads.push(Upload { key, name, bytes, options, phase, too_large });
    }

    /// Marks as many waiting uploads as may start at `now` as being sent, and returns them.
    #[must_use]
    pub fn start(&mut self, now: f64) -> Vec<(u32, UploadOptions)> {
        let busy = self.uploads.iter().filter(|u| matches!(u.phase, Phase::Sending { .. })).count();
        let free = Self::AT_ONCE.saturating_sub(busy);
        let mut started = Vec::new();
        for upload in self.uploads.iter_mut().filter(|u| u.phase == Phase::Waiting).take(free) {
            upload.phase = Phase::Sending { sent: 0, began: now, at: now };
            started.push((upload.key, upload.options.clone()));
        }
        started
    }

    /// Takes in an event. Events of an upload that has ended are ignored.
    pub fn on(&mut self, key: u32, event: Event) {
        let Some(upload) = self.get_mut(key) else { return };
        let Phase::Sending { sent, began, .. } = upload.phase else { return };
        upload.phase = match event {
            Event::Sent { bytes, at } => Phase::Sending { sent: bytes.max(sent), began, at },
            Event::Done(id) => Phase::Done(id),
            Event::Failed(message) => Phase::Failed(message),
        };
    }

    /// Cancels an upload that waits or is being sent.
    pub fn abort(&mut self, key: u32) {
        if let Some(upload) = self.get_mut(key).filter(|u| u.is_open()) {
            upload.phase = Phase::Aborted;
        }
    }

    /// Queues an upload that failed or was cancelled again.
    pub fn retry(&mut self, key: u32) {
        if let Some(upload) = self.get_mut(key).filter(|u| u.can_retry()) {
            upload.phase = Phase::Waiting;
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

    fn get_mut(&mut self, key: u32) -> Option<&mut Upload> {
        self.uploads.iter_mut().find(|u| u.key == key)
    }

    /// The number of uploads that wait or are being sent.
    #[must_use]
    pub fn open(&self) -> usize {
        self.uploads.iter().filter(|u| u.is_open()).count()
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
mod tests {
    use super::*;

    fn queue(sizes: &[u64]) -> Queue {
        let mut queue = Queue::default();
        for (key, bytes) in (0..).zip(sizes) {
            queue.add(Picked { key, name: format!("{key}.wav"), bytes: *bytes }, UploadOptions::default(), 1000);
        }
        queue
    }

    fn keys(started: &[(u32, UploadOptions)]) -> Vec<u32> {
        started.iter().map(|(key, _)| *key).collect()
    }

    fn session() -> SessionId {
        SessionId(uuid::Uuid::nil())
    }

    #[test]
    fn two_uploads_are_sent_at_once_in_order() {
        let mut queue = queue(&[10, 10, 10, 10]);
        assert_eq!(keys(&queue.start(0.0)), [0, 1]);
        assert_eq!(keys(&queue.start(0.0)), [0; 0]);
        queue.on(1, Event::Done(session()));
        assert_eq!(keys(&queue.start(1.0)), [2]);
        queue.abort(0);
        assert_eq!(keys(&queue.start(1.0)), [3]);
        assert_eq!(queue.open(), 2);
    }

    #[test]
    fn a_file_that_is_too_large_is_never_sent() {
        let mut queue = queue(&[1001, 1000]);
        assert_eq!(keys(&queue.start(0.0)), [1]);
        queue.retry(0);
        assert!(matches!(&queue.uploads[0].phase, Phase::Failed(text) if text.contains("1.0 kB")));
    }

    #[test]
    fn events_after_the_end_are_ignored_and_a_retry_starts_over() {
        let mut queue = queue(&[10]);
        let _ = queue.start(0.0);
        queue.on(0, Event::Failed("no".to_owned()));
        queue.on(0, Event::Done(session()));
        assert_eq!(queue.uploads[0].phase, Phase::Failed("no".to_owned()));
        queue.retry(0);
        assert_eq!(keys(&queue.start(5.0)), [0]);
        queue.abort(0);
        queue.on(0, Event::Sent { bytes: 3, at: 6.0 });
        assert_eq!(queue.uploads[0].phase, Phase::Aborted);
        queue.remove(0);
        assert_eq!(queue, Queue::default());
    }

    #[test]
    fn speed_and_remaining_time_are_known_once_the_speed_has_settled() {
        let mut queue = queue(&[1000]);
        let _ = queue.start(0.0);
        queue.on(0, Event::Sent { bytes: 100, at: 0.5 });
        assert_eq!((queue.uploads[0].percent(), queue.uploads[0].speed()), (10.0, None));
        queue.on(0, Event::Sent { bytes: 500, at: 2.0 });
        assert_eq!(queue.uploads[0].speed(), Some(250.0));
        assert_eq!(queue.uploads[0].seconds_remaining(), Some(2.0));
        // The request has more bytes than the file, because of the form around it.
        queue.on(0, Event::Sent { bytes: 1200, at: 3.0 });
        assert_eq!(queue.uploads[0].percent(), 100.0);
    }
}
