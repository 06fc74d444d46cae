//! Measures the connection: the time in each mode, the failures, and the delays of statuses.
//! Pure: `browser` passes in events with their times, and gets a [`ConnectionReport`].
//!
//! Statuses carry the server's time, and a browser's clock may be wrong by hours. So the server's clock is estimated with
//! Cristian's algorithm: an answer with the server's time was made half a round trip before it arrived, and the error is at
//! most as much. The sample with the shortest round trip is used. While even its error is too large, no delays are counted.

use super::link::{Action, Bye, Event, Mode, Timer};
use crate::model::{ConnectionReport, Timestamp};

/// The largest error of the estimated clock, half a round trip, with which delays are counted, in milliseconds.
const MAX_UNCERTAINTY_MS: f64 = 50.0;
/// The longest time between two events that is counted, in milliseconds. A heartbeat comes every 15 s, so in a longer time the
/// machine slept.
const LONGEST_STEP_MS: f64 = 60_000.0;

/// An estimate of the server's clock, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Offset {
    /// Server time minus browser time.
    ms: f64,
    uncertainty: f64,
}

/// The counts since the last report. Times called `now` are milliseconds of a monotonic clock; the browser's wall clock is
/// a [`Timestamp`].
#[derive(Clone, Debug, Default)]
pub struct Measure {
    report: ConnectionReport,
    mode: Mode,
    counted: Option<f64>,
    /// When the stream was opened, until it delivers its first event.
    opening: Option<f64>,
    /// When the transport was started, by the browser's clock. Older statuses came with the snapshot.
    since: Option<Timestamp>,
    offset: Option<Offset>,
}

impl Measure {
    /// Takes in an event that the link has handled, and its actions.
    pub fn handled(&mut self, event: Event, actions: &[Action], now: f64, clock: Timestamp) {
        self.count(now);
        if event == Event::Message
            && let Some(opening) = self.opening.take()
        {
            self.report.first_event.note(now - opening);
        }
        for action in actions {
            match action {
                Action::OpenStream { .. } => {
                    self.report.connects += 1;
                    self.report.requests += 1;
                    self.opening = Some(now);
                    self.since = Some(clock);
                }
                Action::CloseStream => {
                    self.opening = None;
                    let failures = &mut self.report.failures;
                    match event {
                        Event::Failed => failures.error += 1,
                        Event::Timer(Timer::FirstEvent) => failures.buffered += 1,
                        Event::Timer(Timer::Silence) => failures.silent += 1,
                        Event::Bye(Bye::Limit) => failures.limit += 1,
                        _ => {}
                    }
                }
                Action::Report(mode) => {
                    if *mode == Mode::Polling {
                        self.since = Some(clock);
                    }
                    self.mode = *mode;
                }
                _ => {}
            }
        }
    }

    /// Adds the time since the last call to the current mode.
    fn count(&mut self, now: f64) {
        let before = self.counted.replace(now).unwrap_or(now);
        let step = (now - before).clamp(0.0, LONGEST_STEP_MS) as u32;
        let times = &mut self.report.mode_ms;
        match self.mode {
            Mode::Off => {}
            Mode::Live => times.live += step,
            Mode::Polling => times.polling += step,
            Mode::Connecting => times.connecting += step,
            Mode::Offline => times.offline += step,
        }
    }

    /// Counts a request for statuses or segments.
    pub fn requested(&mut self) {
        self.report.requests += 1;
    }

    /// Counts the bytes of an answer or an event.
    pub fn received(&mut self, bytes: usize) {
        self.report.bytes += bytes as u64;
    }

    /// Takes in the server's time from an answer. `sent` and `received`: by the browser's clock.
    pub fn server_time(&mut self, sent: Timestamp, received: Timestamp, server: Timestamp) {
        let uncertainty = (received.0 - sent.0) as f64 / 2.0;
        if uncertainty >= 0.0 && self.offset.is_none_or(|known| uncertainty < known.uncertainty) {
            let ms = server.0 as f64 - (sent.0 as f64 + uncertainty);
            self.offset = Some(Offset { ms, uncertainty });
        }
    }

    /// Converts a time of the browser's clock to the server's clock, if that has been estimated.
    #[must_use]
    pub fn to_server_time(&self, clock: Timestamp) -> Timestamp {
        self.offset.map_or(clock, |offset| Timestamp((clock.0 as f64 + offset.ms) as i64))
    }

    /// Takes in the delay of a new status, which was made at `made` by the server's clock.
    pub fn delivered(&mut self, made: Timestamp, clock: Timestamp) {
        let Some(offset) = self.offset.filter(|offset| offset.uncertainty <= MAX_UNCERTAINTY_MS) else { return };
        let to_server_time = |at: Timestamp| at.0 as f64 + offset.ms;
        if self.since.is_none_or(|since| (made.0 as f64) < to_server_time(since)) {
            return;
        }
        let delay = to_server_time(clock) - made.0 as f64;
        match self.mode {
            Mode::Live => self.report.delivery_live.note(delay),
            Mode::Polling => self.report.delivery_polling.note(delay),
            Mode::Off | Mode::Connecting | Mode::Offline => {}
        }
    }

    /// The report since the last call. None if nothing was counted.
    pub fn take(&mut self, now: f64) -> Option<ConnectionReport> {
        self.count(now);
        Some(std::mem::take(&mut self.report)).filter(|report| !report.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(measure: &mut Measure, at: f64) {
        measure.handled(
            Event::Watch,
            &[Action::OpenStream { compressed: true }, Action::Report(Mode::Connecting)],
            at,
            Timestamp(at as i64),
        );
    }

    #[test]
    fn time_is_counted_by_mode_without_the_time_asleep() {
        let mut measure = Measure::default();
        opened(&mut measure, 1_000.0);
        measure.handled(Event::Message, &[Action::Report(Mode::Live)], 1_040.0, Timestamp(1_040));
        measure.handled(Event::Message, &[], 16_040.0, Timestamp(16_040));
        // The machine slept for eight hours.
        measure.handled(Event::Message, &[], 28_816_040.0, Timestamp(28_816_040));
        let report = measure.take(28_817_040.0).unwrap();
        assert_eq!((report.mode_ms.connecting, report.mode_ms.live), (40, 15_000 + 60_000 + 1_000));
        assert_eq!((report.connects, report.requests), (1, 1));
        assert_eq!(report.first_event.buckets().find(|(_, n)| *n > 0), Some((50, 1)));
        // Each count is reported once.
        assert_eq!(measure.take(28_817_040.0), None);
    }

    #[test]
    fn failures_are_counted_by_what_closed_the_stream() {
        let mut measure = Measure::default();
        let ends =
            [Event::Failed, Event::Timer(Timer::FirstEvent), Event::Timer(Timer::Silence), Event::Bye(Bye::Limit)];
        for event in ends {
            opened(&mut measure, 0.0);
            measure.handled(event, &[Action::CloseStream], 10.0, Timestamp(10));
        }
        // An error of a stream that was closed already, and a close on purpose.
        measure.handled(Event::Failed, &[], 20.0, Timestamp(20));
        measure.handled(Event::Idle, &[Action::CloseStream], 20.0, Timestamp(20));
        let failures = measure.take(20.0).unwrap().failures;
        assert_eq!((failures.error, failures.buffered, failures.silent, failures.limit), (1, 1, 1, 1));
    }

    #[test]
    fn delays_use_the_best_estimate_of_the_servers_clock() {
        let mut measure = Measure::default();
        let hour = 3_600_000;
        opened(&mut measure, 0.0);
        measure.handled(Event::Message, &[Action::Report(Mode::Live)], 0.0, Timestamp(0));
        // Without an estimate, or with one of too large an error, no delay is counted.
        measure.delivered(Timestamp(hour), Timestamp(500));
        measure.server_time(Timestamp(0), Timestamp(102), Timestamp(hour));
        measure.delivered(Timestamp(hour), Timestamp(500));
        // The browser is an hour behind; the round trip took 20 ms.
        measure.server_time(Timestamp(1_000), Timestamp(1_020), Timestamp(hour + 1_010));
        measure.server_time(Timestamp(2_000), Timestamp(2_080), Timestamp(hour));
        measure.delivered(Timestamp(hour + 5_000), Timestamp(5_030));
        // Made before the stream was opened: it came with the snapshot.
        measure.delivered(Timestamp(hour - 1), Timestamp(5_030));
        assert_eq!(measure.to_server_time(Timestamp(5_030)), Timestamp(hour + 5_030));
        let report = measure.take(0.0).unwrap();
        assert_eq!(report.delivery_live.buckets().filter(|(_, n)| *n > 0).collect::<Vec<_>>(), [(50, 1)]);
        assert_eq!(report.delivery_polling.count(), 0);
    }
}
