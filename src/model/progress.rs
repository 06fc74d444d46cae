//! Progress and arrival time, computed only from measurements.
//! Progress is the audio transcribed divided by all audio; the arrival time follows from a smoothed speed, once it has
//! settled. Called by the workers, the queue and the pages.

use super::Timestamp;

/// The progress of `processed` out of `total` seconds of audio, in percent, to a tenth.
///
/// None if `total` isn't known. Stays below 100, which only a completed session shows.
#[must_use]
pub fn percent(processed: f64, total: Option<f64>) -> Option<f64> {
    let total = total.filter(|t| *t > 0.0)?;
    let tenths = (processed / total * 1000.0).floor().clamp(0.0, 999.0);
    Some(tenths / 10.0)
}

/// When a queued session will be done: after the `ahead` seconds of audio queued before it, shared among `workers`, and its
/// own `total`, at `speed` seconds of audio per second. None if the speed or the length isn't known.
#[must_use]
pub fn queue_arrival(
    now: Timestamp,
    ahead: f64,
    total: Option<f64>,
    speed: Option<f64>,
    workers: u32,
) -> Option<Timestamp> {
    let speed = speed.filter(|s| *s > 0.0)?;
    Some(now.plus_seconds((ahead / f64::from(workers.max(1)) + total?) / speed))
}

/// Whether a queued session's arrival time differs from the published one by more than ten seconds and by more than a
/// twentieth of the wait. A smaller difference isn't worth an update to every session in the queue.
#[must_use]
pub fn arrival_moved(published: Option<Timestamp>, arrival: Option<Timestamp>, now: Timestamp) -> bool {
    match (published, arrival) {
        (Some(published), Some(arrival)) => {
            arrival.seconds_since(published).abs() > (arrival.seconds_since(now) * 0.05).max(10.0)
        }
        (published, arrival) => published.is_some() != arrival.is_some(),
    }
}

/// How many seconds `workers` need for `ahead` seconds of audio, if each transcribes `speed` seconds of audio per second. An
/// unknown speed counts as real time: most engines are faster, so the estimate is rather too long than too short.
#[must_use]
pub fn queue_wait(ahead: f64, speed: Option<f64>, workers: u32) -> f64 {
    ahead.max(0.0) / speed.filter(|s| *s > 0.0).unwrap_or(1.0) / f64::from(workers.max(1))
}

/// After how many seconds a client should repeat a request that a full queue refused, if there should be room in `wait`
/// seconds. `measured`: whether `wait` follows from a measured speed.
#[must_use]
pub fn retry_after(wait: f64, measured: bool) -> u32 {
    /// The least if the speed isn't known: people wait that long, and a program sends one request a minute.
    const MIN_UNMEASURED: f64 = 60.0;
    /// The least: any sooner, all refused clients would be back before anything has changed.
    const MIN: f64 = 10.0;
    /// A day: over a longer time, cancelled sessions and added workers change the wait more than this estimate is worth.
    const MAX: f64 = 86_400.0;
    wait.ceil().clamp(if measured { MIN } else { MIN_UNMEASURED }, MAX) as u32
}

/// How long an engine may be silent, in seconds, before its attempt is ended: `base`, plus `factor` for each second of audio
/// not transcribed yet. A recording of unknown length counts as `longest`, the longest that is accepted.
///
/// Engines that answer once for a long piece, or once for the whole recording, need more time the longer that is.
#[must_use]
pub fn stall_timeout(base: f64, factor: f64, processed: f64, total: Option<f64>, longest: f64) -> f64 {
    /// A week, so that no setting makes a worker wait for ever.
    const MAX: f64 = 7.0 * 86_400.0;
    let remaining = (total.unwrap_or(longest).min(longest) - processed).max(0.0);
    (base + factor * remaining).clamp(0.0, MAX)
}

/// Measures how fast audio is transcribed: an exponentially weighted average of audio seconds over seconds of work.
///
/// Times come from a monotonic clock, in seconds since any fixed point, so that a correction of the wall clock makes no
/// difference. Both sums decay with the time that has passed, so a reading weighs by its duration and not by how often the
/// engine reports.
#[derive(Clone, Debug)]
pub struct Meter {
    last: f64,
    processed: f64,
    /// Decayed sums of seconds of audio and of work.
    audio: f64,
    work: f64,
    /// The same sums undecayed, which tell when the speed has settled.
    total_audio: f64,
    total_work: f64,
}

impl Meter {
    /// Seconds in which a reading loses half its weight: long enough to smooth over a slow sentence.
    const HALF_LIFE: f64 = 20.0;
    /// Seconds of work and of audio after which the speed has settled. Engines answer in pieces of up to 15 s, so a speed
    /// measured over less would depend on the first piece.
    const SETTLED_WORK: f64 = 3.0;
    const SETTLED_AUDIO: f64 = 10.0;

    /// A meter that starts at `processed` seconds of audio: an earlier attempt may have transcribed those.
    #[must_use]
    pub fn new(now: f64, processed: f64) -> Self {
        Self { last: now, processed, audio: 0.0, work: 0.0, total_audio: 0.0, total_work: 0.0 }
    }

    /// Seconds of audio since the first reading, and of the work on them.
    #[must_use]
    pub fn totals(&self) -> (f64, f64) {
        (self.total_audio, self.total_work)
    }

    /// Takes a reading: `processed` seconds of audio are done at `now`. A reading that goes backwards in either is ignored.
    pub fn update(&mut self, now: f64, processed: f64) {
        let work = now - self.last;
        let audio = processed - self.processed;
        if work <= 0.0 || audio <= 0.0 {
            return; // Time without progress counts with the next reading; otherwise the speed would jump up and down.
        }
        let decay = 0.5_f64.powf(work / Self::HALF_LIFE);
        self.audio = self.audio * decay + audio;
        self.work = self.work * decay + work;
        self.total_audio += audio;
        self.total_work += work;
        self.last = now;
        self.processed = processed;
    }

    /// Seconds of audio per second, once the speed has settled.
    #[must_use]
    pub fn speed(&self) -> Option<f64> {
        let settled = self.total_work >= Self::SETTLED_WORK && self.total_audio >= Self::SETTLED_AUDIO;
        settled.then(|| self.audio / self.work)
    }

    /// The speed as it is published.
    #[must_use]
    pub fn published_speed(&self) -> Option<f64> {
        self.speed().map(round_speed)
    }

    /// Seconds from the last reading until `total` seconds of audio are done. None until the speed has settled, and without
    /// `total`.
    #[must_use]
    pub fn remaining(&self, total: Option<f64>) -> Option<f64> {
        let remaining_audio = (total? - self.processed).max(0.0);
        Some(remaining_audio / self.speed()?)
    }
}

/// A speed as it is published, rounded to hundredths: more digits are noise that every stream would carry. Never 0.
#[must_use]
pub fn round_speed(speed: f64) -> f64 {
    (speed * 100.0).round().max(1.0) / 100.0
}

/// The range of times in which a session is expected to be done: the earliest and latest of its recent estimates.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ArrivalRange {
    /// When each estimate was made, and the arrival time that it gave.
    estimates: Vec<(Timestamp, Timestamp)>,
}

impl ArrivalRange {
    /// Seconds after which an estimate no longer counts.
    const MAX_AGE: f64 = 30.0;
    /// Seconds of estimates after which the range has settled.
    const SETTLED: f64 = 10.0;

    /// Takes in the arrival time estimated at `now`. None, when there is no estimate, starts over.
    pub fn note(&mut self, now: Timestamp, expected: Option<Timestamp>) {
        let Some(expected) = expected else { return self.estimates.clear() };
        self.estimates.retain(|(at, _)| now.seconds_since(*at) <= Self::MAX_AGE);
        self.estimates.push((now, expected));
    }

    /// The earliest and the latest arrival time, once the range has settled.
    #[must_use]
    pub fn range(&self) -> Option<(Timestamp, Timestamp)> {
        let ((first, _), (last, _)) = (self.estimates.first()?, self.estimates.last()?);
        let times = || self.estimates.iter().map(|(_, expected)| *expected);
        (last.seconds_since(*first) >= Self::SETTLED).then_some((times().min()?, times().max()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn progress_is_transcribed_audio_over_all_audio_and_never_100() {
        assert_eq!(percent(130.4, Some(302.1)), Some(43.1));
        assert_eq!(percent(302.1, Some(302.1)), Some(99.9));
        assert_eq!(percent(400.0, Some(302.1)), Some(99.9));
        assert_eq!(percent(0.0, Some(302.1)), Some(0.0));
        assert_eq!(percent(1.0, None), None);
        assert_eq!(percent(1.0, Some(0.0)), None);
    }

    #[test]
    fn there_is_no_speed_and_no_arrival_time_until_the_speed_has_settled() {
        let mut meter = Meter::new(0.0, 0.0);
        assert_eq!(meter.speed(), None);
        meter.update(2.0, 8.0);
        assert_eq!(meter.remaining(Some(100.0)), None);
        meter.update(4.0, 16.0);
        assert_eq!(meter.speed(), Some(4.0));
        assert_eq!(meter.remaining(Some(100.0)), Some(21.0));
        assert_eq!(meter.remaining(None), None);
    }

    #[test]
    fn after_one_half_life_the_speed_has_followed_half_of_a_change() {
        let mut meter = Meter::new(0.0, 0.0);
        // An hour at 4x, then twenty seconds at 2x.
        for s in 1..=3600 {
            meter.update(f64::from(s), f64::from(s) * 4.0);
        }
        for s in 1..=20 {
            meter.update(f64::from(3600 + s), 14_400.0 + f64::from(s) * 2.0);
        }
        let speed = meter.speed().expect("settled");
        assert!((speed - 3.0).abs() < 0.02, "{speed}");
    }

    #[test]
    fn a_resumed_attempt_measures_only_its_own_work() {
        let mut meter = Meter::new(0.0, 500.0);
        meter.update(10.0, 520.0);
        assert_eq!(meter.speed(), Some(2.0));
    }

    #[test]
    fn the_range_spans_the_estimates_of_the_last_30_seconds() {
        let at = |s: i64| Timestamp(s * 1000);
        let mut range = ArrivalRange::default();
        range.note(at(0), Some(at(900)));
        range.note(at(9), Some(at(100)));
        assert_eq!(range.range(), None);
        range.note(at(20), Some(at(120)));
        assert_eq!(range.range(), Some((at(100), at(900))));
        // The first estimate is too old to count.
        range.note(at(31), Some(at(110)));
        assert_eq!(range.range(), Some((at(100), at(120))));
        range.note(at(32), None);
        assert_eq!(range.range(), None);
    }

    #[test]
    fn a_queued_session_waits_for_those_ahead() {
        let now = Timestamp(0);
        assert_eq!(queue_arrival(now, 100.0, Some(20.0), Some(4.0), 1), Some(Timestamp(30_000)));
        assert_eq!(queue_arrival(now, 100.0, Some(20.0), Some(4.0), 2), Some(Timestamp(17_500)));
        assert_eq!(queue_arrival(now, 100.0, None, Some(4.0), 1), None);
        assert_eq!(queue_arrival(now, 100.0, Some(20.0), None, 1), None);
    }

    #[test]
    fn small_changes_of_an_arrival_time_are_not_published() {
        let (now, at) = (Timestamp(0), |seconds: i64| Some(Timestamp(seconds * 1000)));
        assert!(!arrival_moved(at(60), at(70), now));
        assert!(arrival_moved(at(60), at(71), now) && arrival_moved(at(71), at(60), now));
        assert!(!arrival_moved(at(3600), at(3700), now) && arrival_moved(at(3600), at(3800), now));
        assert!(arrival_moved(None, at(60), now) && arrival_moved(at(60), None, now));
        assert!(!arrival_moved(None, None, now));
    }

    #[test]
    fn a_refused_client_is_told_when_there_should_be_room() {
        // 4,000 hours of audio, at five times real time, by two workers: more than two weeks.
        let wait = queue_wait(4000.0 * 3600.0, Some(5.0), 2);
        assert_eq!(wait, 1_440_000.0);
        assert_eq!(retry_after(wait, true), 86_400);
        assert_eq!(retry_after(queue_wait(90.2, Some(1.0), 1), true), 91);
        assert_eq!(retry_after(queue_wait(90.2, None, 0), false), 91);
        // No wait at all: the least without a measured speed, and with one.
        assert_eq!(retry_after(0.0, false), 60);
        assert_eq!(retry_after(0.0, true), 10);
        assert_eq!(retry_after(queue_wait(-5.0, Some(0.0), 1), true), 10);
        assert_eq!(retry_after(f64::INFINITY, true), 86_400);
    }

    #[test]
    fn the_stall_timeout_grows_with_the_remaining_audio_and_is_bounded() {
        assert_eq!(stall_timeout(300.0, 0.1, 0.0, Some(3600.0), 14_400.0), 660.0);
        assert_eq!(stall_timeout(300.0, 0.1, 3000.0, Some(3600.0), 14_400.0), 360.0);
        assert_eq!(stall_timeout(300.0, 0.0, 0.0, Some(3600.0), 14_400.0), 300.0);
        // An unknown length; more transcribed than was declared; a longer declared length than is accepted.
        assert_eq!(stall_timeout(300.0, 0.1, 400.0, None, 14_400.0), 1700.0);
        assert_eq!(stall_timeout(300.0, 0.1, 70.0, Some(60.0), 14_400.0), 300.0);
        assert_eq!(stall_timeout(300.0, 0.1, 0.0, Some(1e300), 14_400.0), 1740.0);
        assert_eq!(stall_timeout(300.0, 100.0, 0.0, None, 1e300), 604_800.0);
    }

    proptest! {
        #[test]
        fn any_readings_give_a_finite_positive_speed(steps in proptest::collection::vec((-5_000i64..60_000, -10.0f64..100.0), 0..50)) {
            let (mut now, mut done) = (0.0, 0.0);
            let mut meter = Meter::new(now, done);
            for (ms, audio) in steps {
                now += ms as f64 / 1000.0;
                done += audio;
                meter.update(now, done);
                if let (Some(speed), Some(published)) = (meter.speed(), meter.published_speed()) {
                    prop_assert!(speed.is_finite() && speed > 0.0);
                    prop_assert!(published > 0.0 && (published - speed).abs() < 0.01, "{speed} {published}");
                    prop_assert!((published * 100.0 - (published * 100.0).round()).abs() < 1e-6, "{published}");
                    prop_assert!(meter.remaining(Some(1000.0)).is_some());
                }
            }
        }

        #[test]
        fn percent_rises_with_the_work_and_stays_in_range(total in 0.001f64..1e6, a in 0.0f64..1e6, b in 0.0f64..1e6) {
            let (low, high) = (a.min(b), a.max(b));
            let (low, high) = (percent(low, Some(total)).unwrap(), percent(high, Some(total)).unwrap());
            prop_assert!((0.0..100.0).contains(&low) && low <= high && high < 100.0);
        }
    }
}
