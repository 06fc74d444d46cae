//! Progress and arrival time, from what has been measured and nothing else.
//! Progress is audio transcribed over audio in all; the arrival time follows from a smoothed speed, once it has settled.

use super::Timestamp;

/// The progress of `processed` out of `total` seconds of audio, in percent, to a tenth.
///
/// Null where `total` isn't known. Stays below 100, which only a completed session shows.
#[must_use]
pub fn percent(processed: f64, total: Option<f64>) -> Option<f64> {
    let total = total.filter(|t| *t > 0.0)?;
    let tenths = (processed / total * 1000.0).floor().clamp(0.0, 999.0);
    Some(tenths / 10.0)
}

/// When a queued session will be done: after `ahead` seconds of audio that wait before it and its own `total`, shared
/// among `workers`, at `speed` seconds of audio per second. Null where the speed or the length isn't known.
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

/// Whether a queued session's arrival time is another than the one that was told: by more than ten seconds and by more than
/// a twentieth of the wait. Less is not worth an update to everybody who waits.
#[must_use]
pub fn arrival_moved(told: Option<Timestamp>, arrival: Option<Timestamp>, now: Timestamp) -> bool {
    match (told, arrival) {
        (Some(told), Some(arrival)) => {
            arrival.seconds_since(told).abs() > (arrival.seconds_since(now) * 0.05).max(10.0)
        }
        (told, arrival) => told.is_some() != arrival.is_some(),
    }
}

/// How many seconds `ahead` seconds of audio take `workers` that each do `speed` seconds of audio per second. Where the
/// speed isn't known, as long as the recordings are: most engines are faster, so it is more likely too much than too
/// little.
#[must_use]
pub fn queue_wait(ahead: f64, speed: Option<f64>, workers: u32) -> f64 {
    ahead.max(0.0) / speed.filter(|s| *s > 0.0).unwrap_or(1.0) / f64::from(workers.max(1))
}

/// After how many seconds to try again what found no place in a queue, if there should be room in `wait` seconds.
/// `measured` tells whether that follows from what was measured.
#[must_use]
pub fn retry_after(wait: f64, measured: bool) -> u32 {
    /// Where nothing is known: people wait that long, and it is one request a minute from a program.
    const UNKNOWN: f64 = 60.0;
    /// Sooner, all who were refused would be back before anything has changed.
    const SOONEST: f64 = 10.0;
    /// A day. Later, sessions that were cancelled and workers that were added make more of a difference.
    const LATEST: f64 = 86_400.0;
    wait.ceil().clamp(if measured { SOONEST } else { UNKNOWN }, LATEST) as u32
}

/// How long an engine may say nothing, in seconds: `base`, and `factor` for each second of audio still to be done. Of a
/// recording whose length isn't known, that is as much as `longest`, the most that is accepted, allows.
///
/// Engines that answer once for a long piece, or for the whole recording, need the more time the longer it is.
#[must_use]
pub fn patience(base: f64, factor: f64, processed: f64, total: Option<f64>, longest: f64) -> f64 {
    /// A week. No setting makes a session wait for ever.
    const MOST: f64 = 7.0 * 86_400.0;
    let left = (total.unwrap_or(longest).min(longest) - processed).max(0.0);
    (base + factor * left).clamp(0.0, MOST)
}

/// Measures how fast audio is transcribed: an exponentially weighted average of audio seconds over seconds of work.
///
/// Time is what a monotonic clock says, in seconds since any fixed point, so that a wall clock that is put right makes no
/// difference. Both sums decay with the time that has passed, so each reading weighs by how long it took and not by how often
/// the engine reports.
#[derive(Clone, Debug)]
pub struct Meter {
    last: f64,
    processed: f64,
    /// Decayed sums of seconds of audio and of work.
    audio: f64,
    work: f64,
    /// Undecayed, to tell when enough has been seen.
    seen_audio: f64,
    seen_work: f64,
}

impl Meter {
    /// A reading loses half its weight in this many seconds: long enough to smooth over a slow sentence.
    const HALF_LIFE: f64 = 20.0;
    /// The speed counts as settled after this many seconds of work and as many of audio. Engines answer in
    /// pieces of up to 15 s, so fewer would be the luck of the first piece.
    const SETTLED_WORK: f64 = 3.0;
    const SETTLED_AUDIO: f64 = 10.0;

    /// Starts at `processed` seconds of audio, which an earlier attempt may have done.
    #[must_use]
    pub fn new(now: f64, processed: f64) -> Self {
        Self { last: now, processed, audio: 0.0, work: 0.0, seen_audio: 0.0, seen_work: 0.0 }
    }

    /// Notes that `processed` seconds of audio are done at `now`. Going backwards in either is ignored.
    pub fn update(&mut self, now: f64, processed: f64) {
        let work = now - self.last;
        let audio = processed - self.processed;
        if work <= 0.0 || audio <= 0.0 {
            return; // Time without news is counted with the next news, or the speed would jump up and down.
        }
        let keep = 0.5_f64.powf(work / Self::HALF_LIFE);
        self.audio = self.audio * keep + audio;
        self.work = self.work * keep + work;
        self.seen_audio += audio;
        self.seen_work += work;
        self.last = now;
        self.processed = processed;
    }

    /// Seconds of audio per second, once settled.
    #[must_use]
    pub fn speed(&self) -> Option<f64> {
        let settled = self.seen_work >= Self::SETTLED_WORK && self.seen_audio >= Self::SETTLED_AUDIO;
        settled.then(|| self.audio / self.work)
    }

    /// The same as it is told, in hundredths: more digits would be noise that every watcher pays for. Never 0.
    #[must_use]
    pub fn told_speed(&self) -> Option<f64> {
        self.speed().map(|speed| (speed * 100.0).round().max(1.0) / 100.0)
    }

    /// In how many seconds `total` seconds of audio will be done, counted from the last news; null until settled or
    /// without `total`.
    #[must_use]
    pub fn remaining(&self, total: Option<f64>) -> Option<f64> {
        let rest = (total? - self.processed).max(0.0);
        Some(rest / self.speed()?)
    }
}

/// Between which times a session is expected to be done: how far the expectation wandered lately.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ArrivalRange {
    /// When each was told, and what was expected then.
    told: Vec<(Timestamp, Timestamp)>,
}

impl ArrivalRange {
    /// What was expected longer ago than this no longer counts, in seconds.
    const MEMORY: f64 = 30.0;
    /// The range is settled once it has been watched for this long, in seconds.
    const SETTLED: f64 = 10.0;

    /// Takes in what is expected as of `now`; nothing, if nothing is, which starts over.
    pub fn note(&mut self, now: Timestamp, expected: Option<Timestamp>) {
        let Some(expected) = expected else { return self.told.clear() };
        self.told.retain(|(at, _)| now.seconds_since(*at) <= Self::MEMORY);
        self.told.push((now, expected));
    }

    /// The earliest and the latest time, once settled.
    #[must_use]
    pub fn range(&self) -> Option<(Timestamp, Timestamp)> {
        let ((first, _), (last, _)) = (self.told.first()?, self.told.last()?);
        let times = || self.told.iter().map(|(_, expected)| *expected);
        (last.seconds_since(*first) >= Self::SETTLED).then_some((times().min()?, times().max()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn progress_is_audio_over_audio_and_never_100() {
        assert_eq!(percent(130.4, Some(302.1)), Some(43.1));
        assert_eq!(percent(302.1, Some(302.1)), Some(99.9));
        assert_eq!(percent(400.0, Some(302.1)), Some(99.9));
        assert_eq!(percent(0.0, Some(302.1)), Some(0.0));
        assert_eq!(percent(1.0, None), None);
        assert_eq!(percent(1.0, Some(0.0)), None);
    }

    #[test]
    fn nothing_is_said_until_the_speed_has_settled() {
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
    fn the_speed_follows_a_change_by_half_in_a_half_life() {
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
    fn a_resumed_attempt_counts_only_its_own_work() {
        let mut meter = Meter::new(0.0, 500.0);
        meter.update(10.0, 520.0);
        assert_eq!(meter.speed(), Some(2.0));
    }

    #[test]
    fn the_range_is_how_far_the_expectation_wandered_lately() {
        let at = |s: i64| Timestamp(s * 1000);
        let mut range = ArrivalRange::default();
        range.note(at(0), Some(at(900)));
        range.note(at(9), Some(at(100)));
        assert_eq!(range.range(), None);
        range.note(at(20), Some(at(120)));
        assert_eq!(range.range(), Some((at(100), at(900))));
        // The first guess is forgotten.
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
    fn small_changes_of_an_arrival_time_are_not_told() {
        let (now, at) = (Timestamp(0), |seconds: i64| Some(Timestamp(seconds * 1000)));
        assert!(!arrival_moved(at(60), at(70), now));
        assert!(arrival_moved(at(60), at(71), now) && arrival_moved(at(71), at(60), now));
        assert!(!arrival_moved(at(3600), at(3700), now) && arrival_moved(at(3600), at(3800), now));
        assert!(arrival_moved(None, at(60), now) && arrival_moved(at(60), None, now));
        assert!(!arrival_moved(None, None, now));
    }

    #[test]
    fn a_refusal_says_when_there_should_be_room() {
        // 4,000 hours of audio, at five times their speed, by two workers: more than two weeks.
        let wait = queue_wait(4000.0 * 3600.0, Some(5.0), 2);
        assert_eq!(wait, 1_440_000.0);
        assert_eq!(retry_after(wait, true), 86_400);
        assert_eq!(retry_after(queue_wait(90.2, Some(1.0), 1), true), 91);
        assert_eq!(retry_after(queue_wait(90.2, None, 0), false), 91);
        // At once, as far as is known and as far as was measured.
        assert_eq!(retry_after(0.0, false), 60);
        assert_eq!(retry_after(0.0, true), 10);
        assert_eq!(retry_after(queue_wait(-5.0, Some(0.0), 1), true), 10);
        assert_eq!(retry_after(f64::INFINITY, true), 86_400);
    }

    #[test]
    fn patience_grows_with_what_is_left_and_has_an_end() {
        assert_eq!(patience(300.0, 0.1, 0.0, Some(3600.0), 14_400.0), 660.0);
        assert_eq!(patience(300.0, 0.1, 3000.0, Some(3600.0), 14_400.0), 360.0);
        assert_eq!(patience(300.0, 0.0, 0.0, Some(3600.0), 14_400.0), 300.0);
        // An unknown length, more done than was declared, more declared than is accepted.
        assert_eq!(patience(300.0, 0.1, 400.0, None, 14_400.0), 1700.0);
        assert_eq!(patience(300.0, 0.1, 70.0, Some(60.0), 14_400.0), 300.0);
        assert_eq!(patience(300.0, 0.1, 0.0, Some(1e300), 14_400.0), 1740.0);
        assert_eq!(patience(300.0, 100.0, 0.0, None, 1e300), 604_800.0);
    }

    proptest! {
        #[test]
        fn any_readings_give_a_sane_speed(steps in proptest::collection::vec((-5_000i64..60_000, -10.0f64..100.0), 0..50)) {
            let (mut now, mut done) = (0.0, 0.0);
            let mut meter = Meter::new(now, done);
            for (ms, audio) in steps {
                now += ms as f64 / 1000.0;
                done += audio;
                meter.update(now, done);
                if let (Some(speed), Some(told)) = (meter.speed(), meter.told_speed()) {
                    prop_assert!(speed.is_finite() && speed > 0.0);
                    prop_assert!(told > 0.0 && (told - speed).abs() < 0.01, "{speed} {told}");
                    prop_assert!((told * 100.0 - (told * 100.0).round()).abs() < 1e-6, "{told}");
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
