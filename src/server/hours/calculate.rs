//! The figures of a range, calculated from what was counted in its hours. Pure; called by `hours`.

use super::counters::{ArmCounters, Counters, Named, ServerCounters, SessionCounters};
use crate::model::{
    Timestamp,
    figures::{
        ArmFigures, ArmPoint, Comparison, FailureCount, Figures, NamedCount, Period, Point, PollingEstimate, Prices,
        Promise, PromiseKind, Range, Savings, ServerFigures, SessionFigures, with_headers,
    },
    stats::{Histogram, Share},
};

/// The codes of sessions that failed because they made no progress: an engine or a decoder that said nothing for too long, a
/// worker that was gone, and what an operator failed as stuck.
const STUCK_CODES: [&str; 3] = ["stalled", "worker_lost", "stuck"];

/// The figures of a range that ends at `now`. `rows` are what was counted by time, from twice the range ago on: any number for
/// a time.
pub(super) fn figures<'a>(
    range: Range,
    now: Timestamp,
    rows: impl Iterator<Item = (Timestamp, &'a Counters)>,
    prices: Prices,
    kept_days: f64,
) -> Figures {
    let from = range.start(now);
    let step = range.step() * 1000;
    let steps = usize::try_from(range.seconds() / range.step()).unwrap_or_default();
    let mut current = vec![Counters::default(); steps];
    let mut before = Counters::default();
    let mut measured_from: Option<Timestamp> = None;
    for (at, counters) in rows {
        if at < from {
            if at.0 >= from.0 - range.seconds() * 1000 {
                before.merge(counters);
            }
        } else if let Some(sum) = usize::try_from((at.0 - from.0) / step).ok().and_then(|n| current.get_mut(n)) {
            sum.merge(counters);
            let since = counters.since.unwrap_or(at).max(at);
            measured_from = measured_from.into_iter().chain([since]).min();
        }
    }
    let mut all = Counters::default();
    current.iter().for_each(|counters| all.merge(counters));
    let (current_period, before) = (period(&all), period(&before));
    let measured_secs = measured_from.map_or(0.0, |since| now.seconds_since(since));
    let points = current.iter().enumerate().map(|(n, counters)| point(Timestamp(from.0 + n as i64 * step), counters));
    Figures {
        range,
        from,
        to: now,
        measured_from,
        kept_days,
        promises: PromiseKind::ALL.into_iter().map(|kind| promise(kind, &current_period, &before)).collect(),
        comparison: Comparison::new(&current_period.stream, &current_period.polling),
        savings: Savings::new(&current_period.stream, measured_secs, prices),
        points: points.collect(),
        current: current_period,
        before,
    }
}

fn promise(kind: PromiseKind, current: &Period, before: &Period) -> Promise {
    let (value, polling) = kind.of(current);
    let (before, _) = kind.of(before);
    Promise { kind, target: kind.target(), value, before, polling, met: value.map(|value| kind.is_met_by(value)) }
}

fn period(counters: &Counters) -> Period {
    let server = &counters.server;
    Period {
        stream: arm(&counters.stream, server),
        polling: arm(&counters.polling, server),
        sessions: sessions(&counters.sessions),
        server: server_figures(server),
    }
}

/// The delays on streams and by polling together.
fn all_delays(arm: &ArmCounters) -> Histogram {
    let mut all = arm.delivery_live.clone();
    all.merge(&arm.delivery_polling);
    all
}

fn arm(counted: &ArmCounters, server: &ServerCounters) -> ArmFigures {
    let ArmCounters { visits, fell_back, times, requests, bytes, connects, mended, .. } = *counted;
    let polls = (server.polls, server.poll_bytes);
    let by_polling = PollingEstimate::new(visits, times.online(), requests.segments, polls);
    let per_visit = |amount: u64| (visits > 0).then(|| amount as f64 / visits as f64);
    let mut failures: Vec<FailureCount> = counted
        .failures
        .iter()
        .flat_map(|(kind, by_browser)| {
            let count = |(browser, count): (&String, &u64)| FailureCount {
                kind: kind.clone(),
                browser: browser.clone(),
                count: *count,
            };
            by_browser.iter().map(count)
        })
        .collect();
    failures.sort_by_key(|failure| std::cmp::Reverse(failure.count));
    ArmFigures {
        visits,
        fell_back,
        never_fell_back: Share::new(visits.saturating_sub(fell_back), visits),
        delay: all_delays(counted).into(),
        delay_live: counted.delivery_live.clone().into(),
        delay_polling: counted.delivery_polling.clone().into(),
        first_event: counted.first_event.clone().into(),
        times,
        uptime: times.uptime(),
        opening: times.opening(),
        requests,
        bytes,
        requests_per_visit: per_visit(requests.all()),
        bytes_per_visit: per_visit(bytes),
        requests_per_minute: counted.requests_by_minutes.ratio(),
        bytes_per_minute: counted.bytes_by_minutes.ratio(),
        by_polling,
        requests_saved: by_polling.requests_saved(requests.all()),
        bytes_saved: by_polling.bytes_saved(with_headers(bytes, requests.all())),
        connects,
        mended,
        failure_share: Share::new(counted.failed(), connects),
        failures,
        byes: by_frequency(&counted.byes),
    }
}

fn sessions(counted: &SessionCounters) -> SessionFigures {
    let SessionCounters { completed, failed, cancelled, audio_secs, work_secs, .. } = *counted;
    SessionFigures {
        completed,
        failed,
        cancelled,
        success: Share::new(completed, completed + failed),
        failures: by_frequency(&counted.failures),
        stuck: STUCK_CODES.iter().filter_map(|code| counted.failures.get(*code)).sum(),
        audio_secs,
        work_secs,
        speed: speed(counted),
    }
}

fn speed(counted: &SessionCounters) -> Option<f64> {
    (counted.work_secs > 0.0).then(|| counted.audio_secs / counted.work_secs)
}

fn cpu(counted: &ServerCounters) -> Option<f64> {
    (counted.cpu_minutes > 0).then(|| counted.cpu / counted.cpu_minutes as f64)
}

fn server_figures(counted: &ServerCounters) -> ServerFigures {
    ServerFigures {
        minutes: counted.minutes,
        streams_opened: counted.streams_opened,
        streams_refused: counted.streams_refused,
        streams_closed: by_frequency(&counted.streams_closed),
        events: counted.events,
        stream_bytes: counted.stream_bytes,
        polls: counted.polls,
        polls_unchanged: counted.polls_unchanged,
        poll_bytes: counted.poll_bytes,
        most_streams: counted.most_streams,
        cpu: cpu(counted),
        most_memory: counted.most_memory,
    }
}

/// Counts by name, the most frequent first.
fn by_frequency(counts: &Named) -> Vec<NamedCount> {
    let mut list: Vec<NamedCount> =
        counts.iter().map(|(name, count)| NamedCount { name: name.clone(), count: *count }).collect();
    list.sort_by_key(|named| std::cmp::Reverse(named.count));
    list
}

fn point(at: Timestamp, counted: &Counters) -> Point {
    let (sessions, server) = (&counted.sessions, &counted.server);
    Point {
        at,
        minutes: server.minutes,
        stream: arm_point(&counted.stream),
        polling: arm_point(&counted.polling),
        completed: sessions.completed,
        failed: sessions.failed,
        cancelled: sessions.cancelled,
        speed: speed(sessions),
        streams_opened: server.streams_opened,
        most_streams: server.most_streams,
        events: server.events,
        stream_bytes: server.stream_bytes,
        polls: server.polls,
        poll_bytes: server.poll_bytes,
        cpu: cpu(server),
        most_memory: server.most_memory,
    }
}

fn arm_point(counted: &ArmCounters) -> ArmPoint {
    let delays = all_delays(counted);
    ArmPoint {
        visits: counted.visits,
        fell_back: counted.fell_back,
        updates: delays.count(),
        p50_ms: delays.percentile(0.5),
        p95_ms: delays.percentile(0.95),
        p99_ms: delays.percentile(0.99),
        uptime: counted.times.uptime(),
        requests: counted.requests.all(),
        bytes: counted.bytes,
        connects: counted.connects,
        failures: counted.failed(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Browser, ConnectionReport, Delays, ModeTimes, Requests, StreamFailures};

    fn counted(live_delay: f64, minutes: u64) -> Counters {
        let mut report = ConnectionReport {
            mode_ms: ModeTimes { live: 57_000, polling: 3000, ..ModeTimes::default() },
            first: true,
            connects: 2,
            requests: Requests { stream: 2, poll: 0, segments: 0 },
            failures: StreamFailures { error: 1, ..StreamFailures::default() },
            bytes: 1000,
            ..ConnectionReport::default()
        };
        let mut delays = Delays::default();
        delays.note(live_delay);
        report.delivery_live = delays;
        let mut counters = Counters::default();
        counters.stream.add(&report, Browser::Firefox);
        counters.server.minutes = minutes;
        counters
    }

    fn calculate(range: Range, now: Timestamp, rows: &[(Timestamp, Counters)]) -> Figures {
        figures(range, now, rows.iter().map(|(at, counted)| (*at, counted)), Prices::default(), 90.0)
    }

    #[test]
    fn rows_are_added_up_in_their_period_and_their_point() {
        let now: Timestamp = "2026-11-27T04:17:31.000Z".parse().unwrap();
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let rows = [
            (at("2026-11-25T04:00:00.000Z"), counted(9.0, 60)),
            (at("2026-11-25T05:00:00.000Z"), counted(9.0, 60)),
            (at("2026-11-26T04:00:00.000Z"), counted(9.0, 60)),
            (at("2026-11-26T05:00:00.000Z"), counted(40.0, 60)),
            // Two nodes in the same hour.
            (at("2026-11-27T04:00:00.000Z"), counted(60.0, 17)),
            (at("2026-11-27T04:00:00.000Z"), counted(60.0, 17)),
        ];
        let figures = calculate(Range::Day, now, &rows);
        assert_eq!(figures.from, rows[3].0);
        assert_eq!(figures.measured_from, Some(figures.from));
        assert_eq!((figures.before.stream.visits, figures.current.stream.visits), (2, 3));
        assert_eq!(figures.points.len(), 24);
        let minutes: Vec<u64> = figures.points.iter().map(|point| point.minutes).collect();
        assert_eq!((minutes[0], minutes[1..23].iter().sum::<u64>(), minutes[23]), (60, 0, 34));
        assert_eq!(figures.points[23].at, rows[4].0);
        let stream = &figures.current.stream;
        assert_eq!((stream.connects, stream.failure_share.unwrap().value), (6, 0.5));
        assert_eq!(stream.failures, [FailureCount { kind: "error".into(), browser: "firefox".into(), count: 3 }]);
        assert_eq!((stream.uptime, stream.times.live), (Some(0.95), 171_000));
        // One delay above 25 and up to 50 ms, two above 50 and up to 75.
        assert_eq!((stream.delay.count, stream.delay.p50_ms), (3, Some(56.25)));
        assert_eq!(figures.points[23].stream.p50_ms, Some(62.5));
        // Three visits of a minute each: 3 + 60 polls.
        assert_eq!(stream.by_polling.requests, 63.0);
        assert_eq!(stream.requests_saved, Some((63.0 - 6.0) / 63.0));
    }

    #[test]
    fn promises_have_a_value_only_where_something_was_measured() {
        let now: Timestamp = "2026-11-27T04:17:31.000Z".parse().unwrap();
        let nothing = calculate(Range::Week, now, &[]);
        assert!(nothing.promises.iter().all(|promise| promise.value.is_none() && promise.met.is_none()));
        assert_eq!((nothing.measured_from, nothing.savings.requests_per_month), (None, None));
        assert_eq!(nothing.points.len(), 168);
        let mut row = counted(40.0, 5);
        row.since = Some(Timestamp(now.0 - 300_000));
        row.sessions.failures =
            [("stalled".to_owned(), 2), ("bad_audio".to_owned(), 3), ("stuck".to_owned(), 1)].into();
        let some = calculate(Range::Week, now, &[("2026-11-27T04:00:00.000Z".parse().unwrap(), row)]);
        let value = |kind| some.promises.iter().find(|promise| promise.kind == kind).unwrap();
        assert_eq!((value(PromiseKind::Stuck).value, value(PromiseKind::Stuck).met), (Some(3.0), Some(false)));
        assert_eq!((value(PromiseKind::Uptime).value, value(PromiseKind::Uptime).before), (Some(0.95), None));
        assert!(value(PromiseKind::Delay).met.unwrap());
        // 21 polls less 2 requests in five minutes.
        assert_eq!(some.savings.requests_per_month, Some(19.0 * 30.0 * 288.0));
        assert_eq!(some.current.sessions.failures[0].name, "bad_audio");
    }
}
