//! How far this machine's clock is from the database's. Nodes of a cluster have one database and a clock each: leases are
//! counted by the database's alone, and times that people see come from the machine's, corrected by what is measured
//! here. Run by `node`, asked by `http::health` and `doctor`.

use super::{
    clock::{correct, machine_time},
    store::Store,
};
use crate::model::text::lapse;
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time;
use tokio_util::sync::CancellationToken;

/// How often the clocks are compared.
const INTERVAL: Duration = Duration::from_secs(20);
/// How long the database may take for its answer, if the comparison is to be of use. The offset is known to half of it.
const ROUND_TRIP: Duration = Duration::from_secs(1);
/// Milliseconds that measuring may be wrong by. A smaller offset isn't corrected, so that times of a cluster whose clocks
/// are right don't jitter.
const NOISE_MS: i64 = 100;
/// Milliseconds from which an operator is warned.
const WARN_MS: i64 = 2_000;
/// Milliseconds from which a node isn't ready.
const WRONG_MS: i64 = 10_000;

/// By how much this machine's clock is ahead of the database's (negative: behind).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockOffset {
    /// In milliseconds.
    pub ahead_ms: i64,
}

/// What an offset means for a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Right,
    Off,
    Wrong,
}

impl ClockOffset {
    /// From this machine's time before and after the database was asked for its own, in milliseconds since the Unix
    /// epoch: the database read its clock somewhere between, so in the middle on average.
    #[must_use]
    pub fn between(before: i64, database: i64, after: i64) -> Self {
        Self { ahead_ms: before + (after - before) / 2 - database }
    }

    /// Compares the clocks. None if the database took too long for its answer to be of use.
    ///
    /// # Errors
    /// If it doesn't answer.
    pub async fn measure(store: &Store) -> Result<Option<Self>, sqlx::Error> {
        // The first answer may include the time for a new connection.
        let mut best: Option<(Duration, Self)> = None;
        for _ in 0..3 {
            let (started, before) = (time::Instant::now(), machine_time());
            let database = store.now().await?;
            let (took, after) = (started.elapsed(), machine_time());
            if took <= ROUND_TRIP && best.is_none_or(|(least, _)| took < least) {
                best = Some((took, Self::between(before, database.0, after)));
            }
        }
        Ok(best.map(|(_, offset)| offset))
    }

    fn level(self) -> Level {
        match self.ahead_ms.abs() {
            ..WARN_MS => Level::Right,
            WARN_MS..WRONG_MS => Level::Off,
            _ => Level::Wrong,
        }
    }

    /// The same for people: "40 s ahead of the database's".
    #[must_use]
    pub fn sentence(self) -> String {
        let seconds = lapse(self.ahead_ms.abs() as f64 / 1000.0);
        let direction = if self.ahead_ms > 0 { "ahead of" } else { "behind" };
        format!("this machine's clock is {seconds} {direction} the database's")
    }

    /// Whether an operator should be told.
    #[must_use]
    pub fn is_off(self) -> bool {
        self.level() != Level::Right
    }

    /// Whether the clock is so wrong that the node shouldn't serve.
    #[must_use]
    pub fn is_wrong(self) -> bool {
        self.level() == Level::Wrong
    }
}

/// Compares this machine's clock with the database's, now and then, and corrects the times of this process.
#[derive(Debug, Default)]
pub struct ClockWatch(Mutex<Option<ClockOffset>>);

impl ClockWatch {
    /// The offset that was measured last, if one was.
    #[must_use]
    pub fn offset(&self) -> Option<ClockOffset> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Measures the offset of a shared database; an SQLite file has this machine's clock. Says when it has become a
    /// problem, and when it no longer is one.
    pub async fn check(&self, store: &Store) {
        if !store.is_shared() {
            return;
        }
        let offset = match ClockOffset::measure(store).await {
            Ok(Some(offset)) => offset,
            Ok(None) => return,
            // Whoever needs the database says so.
            Err(error) => return tracing::debug!(%error, "the database's clock could not be read"),
        };
        metrics::gauge!("hark_clock_offset_seconds").set(offset.ahead_ms as f64 / 1000.0);
        let correction = if offset.ahead_ms.abs() < NOISE_MS { 0 } else { -offset.ahead_ms };
        correct(correction);
        let before = self.0.lock().unwrap_or_else(PoisonError::into_inner).replace(offset);
        let (now, before) = (offset.level(), before.map_or(Level::Right, ClockOffset::level));
        if now == before {
            return;
        }
        let (offset_ms, sentence) = (offset.ahead_ms, offset.sentence());
        match now {
            Level::Wrong => {
                tracing::error!(offset_ms, "{sentence}: this node is not ready; set its clock, for example with NTP")
            }
            Level::Off => tracing::warn!(offset_ms, "{sentence}; set its clock, for example with NTP"),
            Level::Right => tracing::info!(offset_ms, "this machine's clock agrees with the database's again"),
        }
    }

    /// Checks regularly until `stop`.
    pub async fn run(&self, store: &Store, stop: &CancellationToken) {
        let mut interval = time::interval(INTERVAL);
        interval.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(interval.tick()).await.is_some() {
            self.check(store).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_what_lies_between() {
        assert_eq!(ClockOffset::between(1000, 1050, 1100).ahead_ms, 0);
        assert_eq!(ClockOffset::between(41_000, 1_050, 41_100).ahead_ms, 40_000);
        assert_eq!(ClockOffset::between(1_000, 41_050, 1_100).ahead_ms, -40_000);
    }

    #[test]
    fn levels_of_an_offset() {
        let level = |ahead_ms| ClockOffset { ahead_ms }.level();
        for sign in [1, -1] {
            assert_eq!([0, 1999, 2000, 9999, 10_000].map(|ms| level(sign * ms)), {
                use Level::{Off, Right, Wrong};
                [Right, Right, Off, Off, Wrong]
            });
        }
        let sentence = |ahead_ms| ClockOffset { ahead_ms }.sentence();
        assert_eq!(sentence(40_000), "this machine's clock is 40 s ahead of the database's");
        assert_eq!(sentence(-2_500), "this machine's clock is 2.5 s behind the database's");
    }
}
