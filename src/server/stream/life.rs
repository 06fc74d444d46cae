//! What is counted of one stream from its opening to its end, for the metrics and for its line in the log. Each stream holds it,
//! so it is small.

use super::{Kind, Outgoing, StreamPermit, hub::Hub, meters::Scope, slot::CloseReason};
use crate::{
    model::{SessionId, Timestamp, duration},
    server::telemetry::lines,
};
use std::time::{Duration, Instant};

/// What was counted of a stream so far.
#[derive(Debug)]
pub(super) struct Life {
    /// When it was opened, in microseconds of the hub's clock.
    opened: u64,
    /// Bytes of its events, as written, up to 4 GB.
    bytes: u32,
    progress: Progress,
}

/// How long a stream took to open, in microseconds, until its first event is written; then how many events it had. The highest
/// bit tells both apart.
#[derive(Debug)]
struct Progress(u32);

impl Progress {
    const DELIVERS: u32 = 1 << 31;

    fn opened_after(wait: Duration) -> Self {
        Self(u32::try_from(wait.as_micros()).unwrap_or(u32::MAX).min(Self::DELIVERS - 1))
    }

    fn events(&self) -> u32 {
        self.0.saturating_sub(Self::DELIVERS)
    }

    /// Counts an event. At the first, returns how long the stream took to open.
    fn count(&mut self) -> Option<Duration> {
        let opening = (self.0 < Self::DELIVERS).then(|| Duration::from_micros(self.0.into()));
        self.0 = (Self::DELIVERS + self.events()).saturating_add(1);
        opening
    }
}

/// Whose stream it is and of what.
pub(super) struct Subject<'a> {
    pub(super) scope: Scope,
    pub(super) session: Option<SessionId>,
    pub(super) permit: &'a StreamPermit,
}

impl Life {
    /// Begins with a stream of this hub; a refusal has none.
    pub(super) fn begin(hub: Option<&Hub>) -> Self {
        let opened = hub.map_or(0, |hub| hub.micros(Instant::now()));
        Self { opened, bytes: 0, progress: Progress::opened_after(Duration::ZERO) }
    }

    /// Notes how long before its opening the stream was asked for.
    pub(super) fn requested(&mut self, before: Duration) {
        self.progress = Progress::opened_after(before);
    }

    /// How long it has been open.
    fn age(&self, hub: &Hub) -> Duration {
        Duration::from_micros(hub.micros(Instant::now()).saturating_sub(self.opened))
    }

    /// Counts events that were written as so many bytes. Returns how many they were.
    pub(super) fn wrote<'a>(&mut self, hub: &Hub, events: impl IntoIterator<Item = &'a Outgoing>, bytes: usize) -> u64 {
        let meters = &hub.meters;
        let mut written = 0;
        self.bytes = self.bytes.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        for out in events {
            let kind = out.frame.kind();
            meters.sent(kind);
            if kind == Kind::Retry {
                continue;
            }
            written += 1;
            if let Some(opening) = self.progress.count() {
                meters.connect.record(opening + self.age(hub));
            }
            // What was published before is a snapshot, or what a client that was away catches up on.
            if let Some(published) = out.published.filter(|published| hub.micros(*published) >= self.opened) {
                meters.latency.record(published.elapsed());
                if let Some(delivery) = &out.delivery {
                    delivery.arrived();
                }
            }
        }
        written
    }

    /// Counts the whole life, and writes its line in the log.
    pub(super) fn end(&self, hub: &Hub, subject: &Subject<'_>, why: CloseReason) {
        let life = self.age(hub);
        hub.meters.lived(life);
        if !lines::STREAMS.admit() {
            return;
        }
        let (stream, reason, events, bytes) =
            (subject.scope.as_str(), why.as_str(), self.progress.events(), self.bytes);
        let (session_id, owner) = (subject.session.map(tracing::field::display), subject.permit.owner().pseudonym());
        let duration_ms = u64::try_from(life.as_millis()).unwrap_or(u64::MAX);
        let opened = Timestamp(Timestamp::now().0.saturating_sub_unsigned(duration_ms));
        hub.span.in_scope(|| {
            tracing::info!(
                stream, session_id, owner, %opened, duration_ms, events, bytes, reason,
                "a status stream closed after {} ({reason})",
                duration(life.as_secs_f64())
            );
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_small() {
        assert_eq!(size_of::<Life>(), 16);
    }

    #[test]
    fn the_first_event_says_how_long_the_opening_took() {
        let mut progress = Progress::opened_after(Duration::from_millis(70));
        assert_eq!(progress.events(), 0);
        assert_eq!(progress.count(), Some(Duration::from_millis(70)));
        assert_eq!((progress.count(), progress.count(), progress.events()), (None, None, 3));
        let mut late = Progress::opened_after(Duration::from_secs(1_000_000));
        assert_eq!(late.events(), 0);
        assert!(late.count().is_some());
        let mut most = Progress(u32::MAX);
        assert_eq!((most.count(), most.events()), (None, u32::MAX - Progress::DELIVERS));
    }
}
