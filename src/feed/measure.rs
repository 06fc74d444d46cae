//! Measures the connection: the time in each mode, the failures, and the delays of statuses.
//! Pure: `browser` passes in events with their times, and gets a [`ConnectionReport`].
//!
//! Only what somebody could notice counts: times and delays while the page is seen, and of failures those that a person could
//! have noticed. Statuses come once a second at most, so a break of less than [`NOTICEABLE_MS`] looks like any pause between
//! two of them:
//!
//! - A stream that failed with an error counts once updates have been missing for that long, which is when no stream has
//!   delivered in the meantime and the page was seen. If one has, the break was mended before anybody could notice. What polls
//!   deliver mends nothing, because the page shows that it polls.
//! - A stream of which nothing came in time counts at once if the page is seen: its timeout is longer than that.
//! - Whoever leaves the page doesn't notice that its stream ends. Browsers report an error on streams that they close while they
//!   unload a page, just before the page learns that it is left.
//! - The end or the refusal that a `bye` announces is no failure; it is counted by its reason.
//! - A visit has fallen back to polling once it has shown for that long that it polls. Polls that only bridge the time until the
//!   next stream, or that probe beside a stream, are none. A visit that polls from its start because an earlier one in the same
//!   tab has learnt that streams don't get through is one, because it would have fallen back otherwise.
//!
//! The time in which a stream is opened is told apart from that in which one is missing: once a stream has failed, a page isn't
//! connecting but reconnecting, until another one delivers. A stream that fell silent was missing since its last event.
//!
//! Statuses carry the server's time, and a browser's clock may be wrong by hours. So the server's clock is estimated with
//! Cristian's algorithm: an answer with the server's time was made half a round trip before it arrived, and the error is at
//! most as much. The sample with the shortest round trip is used. While even its error is too large, no delays are counted.

use super::link::{Action, Bye, Event, Mode, Timer};
use crate::model::{ConnectionReport, Delays, StreamFailures, Timestamp, figures::POLL_INTERVAL_MS};

/// How long updates must be missing before somebody can notice it, in milliseconds.
const NOTICEABLE_MS: f64 = 2_000.0;
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

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    Poll,
    Segments,
}

/// How updates came to a page since it was loaded, for the person who looks at it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Updates {
    /// For how long they came by stream and by polling while the page was seen, in milliseconds.
    pub live_ms: u64,
    pub polling_ms: u64,
    /// For how long the page was seen, had something to watch, and a network: in that time it would have polled otherwise.
    pub online_ms: u64,
    /// The updates whose delay is known. Half of them, and then all, came within so many milliseconds.
    pub count: u64,
    pub half_within_ms: f64,
    pub all_within_ms: f64,
    /// Requests made, those for lines of a transcript included.
    pub requests: u64,
    pub segments: u64,
}

impl Updates {
    /// How many polls it would have been: one when the page is loaded, and then one every 3 seconds.
    #[must_use]
    pub fn polls(&self) -> u64 {
        1 + self.online_ms / POLL_INTERVAL_MS
    }

    /// Adds what a report has, except for the delays.
    fn add(&mut self, report: &ConnectionReport) {
        let (times, requests) = (report.mode_ms, report.requests);
        self.live_ms += u64::from(times.live);
        self.polling_ms += u64::from(times.polling);
        self.online_ms +=
            [times.live, times.polling, times.connecting, times.reconnecting].map(u64::from).iter().sum::<u64>();
        self.requests += [requests.stream, requests.poll, requests.segments].map(u64::from).iter().sum::<u64>();
        self.segments += u64::from(requests.segments);
    }
}

/// The counts since the last report. Times called `now` are milliseconds of a monotonic clock; the browser's wall clock is
/// a [`Timestamp`].
#[derive(Clone, Debug, Default)]
pub struct Measure {
    report: ConnectionReport,
    mode: Mode,
    counted: Option<f64>,
    /// Whether somebody may see this page, or another one that gets its updates from it.
    seen: bool,
    /// Whether a stream failed and none has delivered since.
    failed: bool,
    /// How long the stream has been open since its last event, as far as it was counted since the last report.
    quiet_ms: f64,
    /// What was reported since the page was loaded, the delays of all updates, and the longest of them.
    reported_updates: Updates,
    delays: Delays,
    longest_ms: f64,
    /// Failures that nobody could notice yet, and how long updates have been missing since, while the page was seen.
    broken: StreamFailures,
    missing_ms: f64,
    /// Whether polls were started because streams failed, and how long the page has shown so.
    failed_over: bool,
    fallback_ms: f64,
    /// Whether the fallback of this visit was counted, whether the page has held a connection, and whether that was reported.
    fell_back: bool,
    held: bool,
    reported: bool,
    /// When the stream was opened, until it delivers its first event.
    opening: Option<f64>,
    /// When the transport was started, by the browser's clock. Older statuses came with the snapshot.
    since: Option<Timestamp>,
    offset: Option<Offset>,
}

impl Measure {
    /// Takes in an event that the link has handled, and its actions. `seen`: whether somebody may see this page, or another
    /// one that gets its updates from it.
    pub fn handled(&mut self, event: Event, actions: &[Action], seen: bool, now: f64, clock: Timestamp) {
        self.count(now);
        self.seen = seen && event != Event::Leaving;
        if event == Event::Message {
            (self.failed, self.quiet_ms) = (false, 0.0);
            if let Some(opening) = self.opening.take() {
                self.report.first_event.note(now - opening);
            }
            let StreamFailures { error, buffered, silent } = std::mem::take(&mut self.broken);
            self.report.mended += error + buffered + silent;
        }
        for action in actions {
            match action {
                Action::OpenStream { .. } => {
                    self.report.connects += 1;
                    self.report.requests.stream += 1;
                    self.opening = Some(now);
                    self.since = Some(clock);
                    self.held = true;
                }
                Action::CloseStream => {
                    self.opening = None;
                    self.closed(event);
                }
                Action::StartPolling => {
                    self.held = true;
                    match event {
                        Event::Failed | Event::Timer(_) => self.failed_over = true,
                        Event::Bye(why) => self.failed_over = why != Bye::Polling,
                        Event::Streams(_) => self.failed_over = false,
                        // Beside an attempt: streams are meant to be used, and are known to fail.
                        _ if actions.iter().any(|action| matches!(action, Action::OpenStream { .. })) => {
                            self.failed_over = true;
                        }
                        _ => {}
                    }
                }
                Action::Report(mode) => {
                    if *mode == Mode::Polling {
                        self.since = Some(clock);
                        self.fallback_ms = 0.0;
                    }
                    self.mode = *mode;
                }
                _ => {}
            }
        }
        if matches!(event, Event::Leaving | Event::Idle | Event::Restored) {
            self.failed = false;
        }
        if event == Event::Leaving && self.broken != StreamFailures::default() {
            // A browser may end the stream of a page a moment before it tells the page that it is left.
            let times = &mut self.report.mode_ms;
            let moment = (self.missing_ms as u32).min(times.reconnecting);
            times.reconnecting -= moment;
            times.live += moment;
        }
        if matches!(event, Event::Leaving | Event::Idle) {
            self.broken = StreamFailures::default();
        }
    }

    /// Counts why a stream was closed.
    fn closed(&mut self, event: Event) {
        let on_purpose =
            matches!(event, Event::Bye(_) | Event::Streams(_) | Event::Idle | Event::Leaving | Event::Restored);
        let quiet = std::mem::take(&mut self.quiet_ms);
        self.failed |= !on_purpose;
        // A browser tells of a broken connection at once; whatever else shows that a stream has failed comes late.
        if !on_purpose && event != Event::Failed {
            let times = &mut self.report.mode_ms;
            let missing = (quiet as u32).min(times.live);
            times.live -= missing;
            times.reconnecting += missing;
        }
        if self.broken == StreamFailures::default() {
            self.missing_ms = 0.0;
        }
        let byes = &mut self.report.byes;
        match event {
            Event::Failed => self.broken.error += 1,
            // A poll that probed beside it found out.
            Event::PollFailed | Event::PollRefused => self.broken.silent += 1,
            Event::Timer(timer) => {
                match timer {
                    Timer::Silence => self.broken.silent += 1,
                    _ => self.broken.buffered += 1,
                }
                if self.seen {
                    self.notice();
                }
            }
            Event::Bye(bye) => {
                *match bye {
                    Bye::Shutdown => &mut byes.shutdown,
                    Bye::Lifetime => &mut byes.lifetime,
                    Bye::Idle => &mut byes.idle,
                    Bye::Logout => &mut byes.logout,
                    Bye::Limit => &mut byes.limit,
                    Bye::Polling => &mut byes.polling,
                    Bye::Other => &mut byes.other,
                } += 1;
            }
            _ => {}
        }
    }

    /// Counts the failures that somebody could notice by now.
    fn notice(&mut self) {
        let StreamFailures { error, buffered, silent } = std::mem::take(&mut self.broken);
        let failures = &mut self.report.failures;
        failures.error += error;
        failures.buffered += buffered;
        failures.silent += silent;
    }

    /// Adds the time since the last call to the current mode, if the page was seen.
    fn count(&mut self, now: f64) {
        let before = self.counted.replace(now).unwrap_or(now);
        if !self.seen {
            return;
        }
        let step = (now - before).clamp(0.0, LONGEST_STEP_MS);
        self.missing_ms += step;
        if self.missing_ms > NOTICEABLE_MS {
            self.notice();
        }
        let times = &mut self.report.mode_ms;
        let time = match self.mode {
            Mode::Off => return,
            Mode::Live => {
                self.quiet_ms += step;
                &mut times.live
            }
            Mode::Polling => &mut times.polling,
            Mode::Offline => &mut times.offline,
            _ if self.failed => &mut times.reconnecting,
            _ => &mut times.connecting,
        };
        *time += step as u32;
        if self.mode == Mode::Polling && self.failed_over && !self.fell_back {
            self.fallback_ms += step;
            self.fell_back = self.fallback_ms > NOTICEABLE_MS;
            self.report.fell_back = self.fell_back;
        }
    }

    /// Counts a request for statuses or segments.
    pub fn requested(&mut self, what: Request) {
        let requests = &mut self.report.requests;
        match what {
            Request::Poll => requests.poll += 1,
            Request::Segments => requests.segments += 1,
        }
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
        if !self.seen {
            return;
        }
        let Some(offset) = self.offset.filter(|offset| offset.uncertainty <= MAX_UNCERTAINTY_MS) else { return };
        let to_server_time = |at: Timestamp| at.0 as f64 + offset.ms;
        if self.since.is_none_or(|since| (made.0 as f64) < to_server_time(since)) {
            return;
        }
        let delay = to_server_time(clock) - made.0 as f64;
        match self.mode {
            Mode::Live => self.report.delivery_live.note(delay),
            Mode::Polling => self.report.delivery_polling.note(delay),
            _ => return,
        }
        self.delays.note(delay);
        self.longest_ms = self.longest_ms.max(delay);
    }

    /// How updates came since the page was loaded. None while nothing came.
    #[must_use]
    pub fn updates(&self) -> Option<Updates> {
        let mut updates = self.reported_updates;
        updates.add(&self.report);
        (updates.count, updates.all_within_ms) = (self.delays.count(), self.longest_ms);
        let mut within = 0;
        let half = self.delays.buckets().find(|(_, count)| {
            within += u64::from(*count);
            2 * within >= updates.count
        });
        // The longest delay tells more than the bound of a bucket that it lies in.
        updates.half_within_ms = half.map_or(0.0, |(bound, _)| f64::from(bound)).min(self.longest_ms);
        (updates.live_ms + updates.polling_ms > 0).then_some(updates)
    }

    /// The report since the last call. None if nothing was counted.
    pub fn take(&mut self, now: f64) -> Option<ConnectionReport> {
        self.count(now);
        let mut report = Some(std::mem::take(&mut self.report)).filter(|report| !report.is_empty())?;
        self.reported_updates.add(&report);
        self.quiet_ms = 0.0;
        report.first = self.held && !std::mem::replace(&mut self.reported, self.held);
        Some(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Byes;

    /// A page that is seen unless said otherwise, with a clock.
    #[derive(Default)]
    struct Page {
        measure: Measure,
        hidden: bool,
        now: f64,
    }

    impl Page {
        fn on(&mut self, event: Event, actions: &[Action]) {
            self.measure.handled(event, actions, !self.hidden, self.now, Timestamp(self.now as i64));
        }

        fn after(&mut self, ms: f64) -> &mut Self {
            self.now += ms;
            self
        }

        fn opens(&mut self, event: Event) {
            self.on(event, &[Action::OpenStream { compressed: true }, Action::Report(Mode::Connecting)]);
        }

        fn is_live(&mut self) {
            self.on(Event::Message, &[Action::Report(Mode::Live)]);
        }

        fn breaks(&mut self, event: Event) {
            self.on(event, &[Action::CloseStream, Action::Report(Mode::Connecting)]);
        }

        /// A page with a stream that has delivered.
        fn live() -> Self {
            let mut page = Self::default();
            page.opens(Event::Watch);
            page.after(40.0).is_live();
            page
        }

        fn report(&mut self) -> ConnectionReport {
            self.measure.take(self.now).unwrap_or_default()
        }

        /// Failures that were noticed, and those that were mended before.
        fn failures(&mut self) -> ([u32; 3], u32) {
            let report = self.report();
            (report.failures.by_kind().map(|(_, count)| count), report.mended)
        }
    }

    const RETRY: Event = Event::Timer(Timer::Retry);

    #[test]
    fn time_is_counted_by_mode_without_the_time_asleep() {
        let mut page = Page::live();
        page.after(15_000.0).is_live();
        // The machine slept for eight hours.
        page.after(28_800_000.0).is_live();
        page.after(1_000.0);
        let report = page.report();
        assert_eq!((report.mode_ms.connecting, report.mode_ms.live), (40, 15_000 + 60_000 + 1_000));
        assert_eq!((report.connects, report.requests.stream), (1, 1));
        assert_eq!(report.first_event.buckets().find(|(_, n)| *n > 0), Some((50, 1)));
        // Each count is reported once.
        assert_eq!(page.measure.take(page.now), None);
    }

    #[test]
    fn time_while_nobody_sees_the_page_is_not_counted() {
        let mut page = Page::live();
        page.hidden = true;
        page.after(10_000.0).on(Event::Hidden, &[]);
        page.after(30_000.0).is_live();
        page.hidden = false;
        page.after(5_000.0).on(Event::Visible, &[]);
        page.after(1_000.0);
        assert_eq!(page.report().mode_ms.live, 11_000);
        // Nor while it is in the back/forward cache.
        page.on(Event::Leaving, &[Action::CloseStream]);
        page.after(50_000.0).opens(Event::Restored);
        assert_eq!(page.report().mode_ms.live, 0);
    }

    #[test]
    fn opening_a_stream_is_told_apart_from_missing_one_that_failed() {
        let mut page = Page::live();
        page.after(5_000.0).breaks(Event::Failed);
        page.after(700.0).opens(RETRY);
        page.after(300.0).breaks(Event::Failed);
        page.after(1_000.0).opens(RETRY);
        page.after(200.0).is_live();
        page.after(3_000.0);
        let times = page.report().mode_ms;
        assert_eq!((times.connecting, times.reconnecting, times.live), (40, 2_200, 8_000));
        // What the server announced, and a page that comes back, only open a stream.
        for (event, after) in [(Event::Bye(Bye::Lifetime), RETRY), (Event::Leaving, Event::Restored)] {
            page.breaks(event);
            page.after(500.0).opens(after);
            page.after(100.0).is_live();
            assert_eq!(page.report().mode_ms.reconnecting, 0, "{event:?}");
        }
        // A browser may end the stream of a page that is left before it says so.
        page.after(1_000.0).breaks(Event::Failed);
        page.after(12.0).on(Event::Leaving, &[]);
        let times = page.report().mode_ms;
        assert_eq!((times.live, times.reconnecting), (1_012, 0));
        page.after(500.0).opens(Event::Restored);
        page.after(100.0).is_live();
        page.report();
        // A new visit to a session begins anew, whatever was before.
        page.breaks(Event::Failed);
        page.after(50.0).on(Event::Idle, &[Action::Report(Mode::Off)]);
        page.after(9_000.0).opens(Event::Watch);
        page.after(60.0).is_live();
        let times = page.report().mode_ms;
        assert_eq!((times.connecting, times.reconnecting), (60, 50));
    }

    #[test]
    fn a_stream_that_fell_silent_was_missing_since_its_last_event() {
        let mut page = Page::live();
        page.after(10_000.0).is_live();
        page.after(15_000.0).on(Event::Visible, &[]);
        page.after(25_000.0).breaks(Event::Timer(Timer::Silence));
        let times = page.report().mode_ms;
        assert_eq!((times.live, times.reconnecting), (10_000, 40_000));
        // What was reported meanwhile stays as it was.
        page.after(10.0).opens(RETRY);
        page.after(10.0).is_live();
        page.after(30_000.0);
        assert_eq!(page.report().mode_ms.live, 30_000);
        page.after(10_000.0).breaks(Event::Timer(Timer::Silence));
        let times = page.report().mode_ms;
        assert_eq!((times.live, times.reconnecting), (0, 10_000));
    }

    #[test]
    fn a_person_is_told_of_everything_since_the_page_was_loaded() {
        let mut page = Page::default();
        assert_eq!(page.measure.updates(), None);
        page.opens(Event::Watch);
        page.measure.requested(Request::Segments);
        page.measure.server_time(Timestamp(0), Timestamp(10), Timestamp(5));
        assert_eq!(page.measure.updates(), None, "nothing has come yet");
        page.after(100.0).is_live();
        page.after(59_900.0).is_live();
        for (made, arrived) in [(1_000, 1_004), (2_000, 2_030), (3_000, 3_320)] {
            page.measure.delivered(Timestamp(made), Timestamp(arrived));
        }
        let expected = Updates {
            live_ms: 59_900,
            polling_ms: 0,
            online_ms: 60_000,
            count: 3,
            half_within_ms: 50.0,
            all_within_ms: 320.0,
            requests: 2,
            segments: 1,
        };
        assert_eq!(page.measure.updates(), Some(expected));
        assert_eq!(expected.polls(), 21);
        // The reports that were sent meanwhile change nothing.
        page.report();
        assert_eq!(page.measure.updates(), Some(expected));
        page.on(Event::Streams(false), &[Action::CloseStream, Action::StartPolling, Action::Report(Mode::Polling)]);
        page.measure.requested(Request::Poll);
        page.measure.delivered(Timestamp(70_000), Timestamp(72_000));
        page.after(6_000.0).on(Event::PollAnswered, &[]);
        let updates = page.measure.updates().unwrap();
        assert_eq!((updates.polling_ms, updates.online_ms, updates.requests), (6_000, 66_000, 3));
        assert_eq!((updates.count, updates.half_within_ms, updates.all_within_ms), (4, 50.0, 2_000.0));
        // A bucket's bound is never told where all came earlier.
        let mut page = Page::live();
        page.measure.server_time(Timestamp(0), Timestamp(10), Timestamp(5));
        page.after(1_000.0).is_live();
        page.measure.delivered(Timestamp(1_000), Timestamp(1_060));
        let updates = page.measure.updates().unwrap();
        assert_eq!((updates.half_within_ms, updates.all_within_ms), (60.0, 60.0));
    }

    #[test]
    fn a_break_that_is_mended_before_anybody_notices_is_no_failure() {
        let mut page = Page::live();
        page.after(5_000.0).breaks(Event::Failed);
        page.after(300.0).opens(RETRY);
        page.after(200.0).breaks(Event::Failed);
        page.after(700.0).opens(RETRY);
        page.after(700.0).is_live();
        page.after(60_000.0);
        assert_eq!(page.failures(), ([0, 0, 0], 2));
        // One that lasts a little longer is one.
        page.breaks(Event::Failed);
        page.after(300.0).opens(RETRY);
        page.after(1_800.0).is_live();
        assert_eq!(page.failures(), ([1, 0, 0], 0));
        // The time before it doesn't count towards it.
        page.after(10_000.0).breaks(Event::Failed);
        page.after(1_000.0).opens(RETRY);
        page.after(10.0).is_live();
        assert_eq!(page.failures(), ([0, 0, 0], 1));
    }

    #[test]
    fn polls_do_not_mend_a_break() {
        let mut page = Page::live();
        page.breaks(Event::Failed);
        page.on(Event::PollAnswered, &[Action::Report(Mode::Polling)]);
        page.after(3_000.0).on(Event::PollAnswered, &[]);
        assert_eq!(page.failures(), ([1, 0, 0], 0));
    }

    #[test]
    fn leaving_a_page_is_no_failure() {
        for (event, close) in [(Event::Failed, true), (Event::Leaving, false)] {
            let mut page = Page::live();
            page.after(60_000.0);
            if close {
                // The browser reports an error while it unloads the page.
                page.breaks(event);
                page.after(100.0).on(Event::Leaving, &[Action::ClearTimer(Timer::Retry)]);
            } else {
                page.on(event, &[Action::CloseStream]);
            }
            page.after(60_000.0);
            assert_eq!(page.failures(), ([0, 0, 0], 0), "{event:?}");
        }
        // Whoever left because nothing came any more has noticed.
        let mut page = Page::live();
        page.breaks(Event::Failed);
        page.after(5_000.0).on(Event::Leaving, &[]);
        assert_eq!(page.failures(), ([1, 0, 0], 0));
    }

    #[test]
    fn a_break_while_nobody_sees_the_page_counts_if_it_is_still_there_when_somebody_does() {
        for (back, expected) in [(true, ([0, 0, 0], 1)), (false, ([0, 0, 1], 0))] {
            let mut page = Page::live();
            page.hidden = true;
            page.on(Event::Hidden, &[]);
            page.after(50_000.0).breaks(Event::Timer(Timer::Silence));
            page.after(50_000.0).opens(RETRY);
            if back {
                page.after(10.0).is_live();
            }
            page.hidden = false;
            page.on(Event::Visible, &[]);
            page.after(3_000.0);
            assert_eq!(page.failures(), expected);
        }
    }

    #[test]
    fn failures_are_counted_by_what_closed_the_stream_and_announced_ends_apart() {
        let mut page = Page::default();
        for event in [Event::Failed, Event::Timer(Timer::FirstEvent), Event::Timer(Timer::Silence)] {
            page.opens(Event::Watch);
            page.breaks(event);
            page.after(2_500.0);
        }
        for bye in [Bye::Shutdown, Bye::Lifetime, Bye::Idle, Bye::Logout, Bye::Limit, Bye::Limit, Bye::Polling] {
            page.opens(Event::Watch);
            page.breaks(Event::Bye(bye));
            page.after(2_500.0);
        }
        // An error of a stream that was closed already, and a close on purpose.
        page.on(Event::Failed, &[]);
        page.breaks(Event::Idle);
        page.after(2_500.0);
        let report = page.report();
        assert_eq!(report.failures, StreamFailures { error: 1, buffered: 1, silent: 1 });
        let byes = Byes { shutdown: 1, lifetime: 1, idle: 1, logout: 1, limit: 2, polling: 1, other: 0 };
        assert_eq!((report.byes, report.mended), (byes, 0));
    }

    #[test]
    fn a_visit_falls_back_once_and_only_because_streams_fail() {
        let polls = [Action::StartPolling, Action::Report(Mode::Polling)];
        for (event, falls_back) in [
            (Event::Failed, true),
            (Event::Timer(Timer::FirstEvent), true),
            (Event::Bye(Bye::Limit), true),
            (Event::Bye(Bye::Polling), false),
            (Event::Streams(false), false),
            // Without EventSource.
            (Event::Watch, false),
        ] {
            let mut page = Page::live();
            page.on(event, &polls);
            page.after(2_100.0);
            let report = page.report();
            assert_eq!((report.first, report.fell_back), (true, falls_back), "{event:?}");
            page.is_live();
            page.on(event, &polls);
            page.after(2_100.0);
            let report = page.report();
            assert!(!report.first && !report.fell_back, "{event:?}");
        }
    }

    #[test]
    fn polls_that_bridge_or_probe_are_no_fallback() {
        let silence = Event::Timer(Timer::Silence);
        let mut page = Page::live();
        // The next stream delivers within a second, twice.
        for _ in 0..2 {
            page.on(silence, &[Action::CloseStream, Action::StartPolling, Action::Report(Mode::Polling)]);
            page.after(1_500.0).is_live();
        }
        // A poll probes beside the stream, for long.
        page.on(Event::Offline, &[Action::StartPolling]);
        page.after(5_000.0).on(Event::PollAnswered, &[Action::StopPolling]);
        assert!(!page.report().fell_back);
        // One that fails shows that the stream has failed.
        page.on(Event::Offline, &[Action::StartPolling]);
        page.breaks(Event::PollFailed);
        page.after(3_000.0);
        assert_eq!(page.failures(), ([0, 0, 1], 0));
    }

    #[test]
    fn a_visit_that_polls_because_of_an_earlier_one_has_fallen_back_too() {
        let mut page = Page::default();
        let open = Action::OpenStream { compressed: false };
        page.on(Event::Watch, &[Action::StartPolling, open, Action::Report(Mode::Connecting)]);
        page.on(Event::PollAnswered, &[Action::Report(Mode::Polling)]);
        page.after(2_100.0);
        let report = page.report();
        assert!(report.first && report.fell_back);
        // The probe for a stream fails meanwhile, and is counted.
        page.breaks(Event::Timer(Timer::FirstEvent));
        assert_eq!(page.failures(), ([0, 1, 0], 0));
    }

    #[test]
    fn a_server_that_cannot_be_reached_delivers_nothing() {
        for mode in [Mode::Unreachable, Mode::SignIn] {
            let mut page = Page::live();
            page.on(Event::PollFailed, &[Action::Report(mode)]);
            page.after(4_000.0);
            assert_eq!(page.report().mode_ms.connecting, 4_040);
        }
    }

    #[test]
    fn a_page_that_only_follows_another_tab_is_no_visit() {
        let mut page = Page::default();
        page.measure.requested(Request::Poll);
        page.measure.requested(Request::Segments);
        let report = page.report();
        assert_eq!((report.first, report.requests.poll, report.requests.segments), (false, 1, 1));
        page.opens(Event::Watch);
        assert!(page.report().first);
    }

    #[test]
    fn delays_use_the_best_estimate_of_the_servers_clock() {
        let mut page = Page::default();
        let hour = 3_600_000;
        page.opens(Event::Watch);
        page.is_live();
        let measure = &mut page.measure;
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
        page.hidden = true;
        page.on(Event::Hidden, &[]);
        page.measure.delivered(Timestamp(hour + 6_000), Timestamp(9_000));
        let report = page.report();
        assert_eq!(report.delivery_live.buckets().filter(|(_, n)| *n > 0).collect::<Vec<_>>(), [(50, 1)]);
        assert_eq!(report.delivery_polling.count(), 0);
    }
}
