//! The queue of uploads as the upload page shows it: which wait, which are being sent, how each ended. Pure.
//! `feed/browser/upload.rs` does the sending, `app/uploads.rs` joins the two.

use crate::model::SessionId;

/// A file that was picked and not sent yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picked {
    /// Stands for the file itself, which the browser's side keeps.
    pub key: u32,
    pub name: String,
    pub bytes: u64,
}

/// What is sent along with a file. Empty texts mean the server's choice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UploadOptions {
    pub title: String,
    pub language: String,
    pub engine: String,
}

/// What the browser tells about an upload that was started.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// So many bytes of the request are sent, at this time in seconds.
    Sent { bytes: u64, at: f64 },
    /// The server answered with the new session.
    Done(SessionId),
    /// It failed, with a sentence for people.
    Failed(String),
}

/// How far an upload is.
#[derive(Clone, Debug, PartialEq)]
pub enum Phase {
    /// For its turn.
    Waiting,
    /// Since `began`; `bytes` are sent at `at`, both in seconds by the same clock.
    Sending {
        sent: u64,
        began: f64,
        at: f64,
    },
    Done(SessionId),
    Failed(String),
    /// By the person who started it.
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
    /// Larger than the server takes, so that sending it would be in vain.
    pub too_large: bool,
}

impl Upload {
    /// Shorter than this, a speed is the luck of the first packets.
    const SETTLED: f64 = 1.0;

    /// The bytes of the file that are sent. The request is a little longer than the file.
    #[must_use]
    pub fn sent(&self) -> u64 {
        match self.phase {
            Phase::Sending { sent, .. } => sent.min(self.bytes),
            Phase::Done(_) => self.bytes,
            _ => 0,
        }
    }

    /// The part that is sent, in percent.
    #[must_use]
    pub fn percent(&self) -> f64 {
        if self.bytes == 0 { 0.0 } else { self.sent() as f64 / self.bytes as f64 * 100.0 }
    }

    /// Bytes per second, once that can be said.
    #[must_use]
    pub fn speed(&self) -> Option<f64> {
        match self.phase {
            Phase::Sending { sent, began, at } if at - began >= Self::SETTLED && sent > 0 => {
                Some(sent as f64 / (at - began))
            }
            _ => None,
        }
    }

    /// Seconds until all is sent, once that can be said.
    #[must_use]
    pub fn seconds_left(&self) -> Option<f64> {
        Some((self.bytes - self.sent()) as f64 / self.speed()?)
    }

    /// Whether another try may end better.
    #[must_use]
    pub fn can_retry(&self) -> bool {
        matches!(self.phase, Phase::Failed(_) | Phase::Aborted) && !self.too_large
    }

    /// Whether it neither ended nor was ended.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Waiting | Phase::Sending { .. })
    }
}

/// All uploads of this visit, in the order in which they were picked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Queue {
    pub uploads: Vec<Upload>,
}

impl Queue {
    /// So many are sent at once: more would only make each slower, and HTTP/1.1 has six connections for everything.
    pub const AT_ONCE: usize = 2;

    /// Appends a file. One larger than `limit` bytes fails without being sent.
    pub fn add(&mut self, picked: Picked, options: UploadOptions, limit: u64) {
        let Picked { key, name, bytes } = picked;
        let problem = too_large(bytes, limit);
        let too_large = problem.is_some();
        let phase = problem.map_or(Phase::Waiting, Phase::Failed);
        self.uploads.push(Upload { key, name, bytes, options, phase, too_large });
    }

    /// The uploads that may start at `now`, which are thereby counted as started.
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

    /// Takes in what the browser told. News of an upload that has ended is ignored.
    pub fn on(&mut self, key: u32, event: Event) {
        let Some(upload) = self.get_mut(key) else { return };
        let Phase::Sending { sent, began, .. } = upload.phase else { return };
        upload.phase = match event {
            Event::Sent { bytes, at } => Phase::Sending { sent: bytes.max(sent), began, at },
            Event::Done(id) => Phase::Done(id),
            Event::Failed(message) => Phase::Failed(message),
        };
    }

    /// Ends an upload that is open.
    pub fn abort(&mut self, key: u32) {
        if let Some(upload) = self.get_mut(key).filter(|u| u.is_open()) {
            upload.phase = Phase::Aborted;
        }
    }

    /// Lets one that failed or was ended wait for another turn.
    pub fn retry(&mut self, key: u32) {
        if let Some(upload) = self.get_mut(key).filter(|u| u.can_retry()) {
            upload.phase = Phase::Waiting;
        }
    }

    /// Takes an upload out.
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

    /// How many neither ended nor were ended.
    #[must_use]
    pub fn open(&self) -> usize {
        self.uploads.iter().filter(|u| u.is_open()).count()
    }
}

/// Why a file of this size can't be sent, if it can't.
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
    fn two_at_once_in_order() {
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
    fn what_is_too_large_is_never_sent() {
        let mut queue = queue(&[1001, 1000]);
        assert_eq!(keys(&queue.start(0.0)), [1]);
        queue.retry(0);
        assert!(matches!(&queue.uploads[0].phase, Phase::Failed(text) if text.contains("1.0 kB")));
    }

    #[test]
    fn news_after_the_end_is_ignored_and_a_retry_starts_over() {
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
    fn speed_and_time_left_once_settled() {
        let mut queue = queue(&[1000]);
        let _ = queue.start(0.0);
        queue.on(0, Event::Sent { bytes: 100, at: 0.5 });
        assert_eq!((queue.uploads[0].percent(), queue.uploads[0].speed()), (10.0, None));
        queue.on(0, Event::Sent { bytes: 500, at: 2.0 });
        assert_eq!(queue.uploads[0].speed(), Some(250.0));
        assert_eq!(queue.uploads[0].seconds_left(), Some(2.0));
        // The last bytes belong to the form around the file.
        queue.on(0, Event::Sent { bytes: 1200, at: 3.0 });
        assert_eq!(queue.uploads[0].percent(), 100.0);
    }
}
