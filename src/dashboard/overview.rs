//! The overview: what happens now, whether the promises are kept, and charts of what was measured. Takes the figures as the
//! API gives them and turns them into sentences and charts.

use super::{
    charts::{Cell, ColumnChart, HealthStrip, KindTable, LineChart, Plot, Series},
    scale::{Axis, Scale, Unit, millis, short, trim},
};
use crate::model::{
    advice::Advice,
    figures::{
        Comparison, Difference, Figures, Health, Period, Point, Promise, PromiseKind, Range, Verdict, with_headers,
    },
    load::Overview as Now,
    stats::{Histogram, Share},
    text,
};
use leptos::prelude::*;

/// The page.
#[component]
pub fn Overview(
    figures: Figures,
    now: Now,
    advice: Vec<Advice>,
    /// Who looks at it.
    administrator: String,
) -> impl IntoView {
    let axis = axis(&figures);
    let measured = measured(&figures);
    let cards = figures.promises.iter().map(|promise| {
        view! { <PromiseCard promise=*promise figures=figures.clone()/> }
    });
    let cards = cards.collect_view();
    view! {
        <div class="page-head">
            <h1>"Overview"</h1>
            <Ranges current=figures.range path="/admin"/>
        </div>
        <h2 class="hidden">"Now"</h2>
        <LiveTiles now/>
        <h2>"What Hark promises"</h2>
        <p class="muted" id="measured" data-live="">{measured}</p>
        <div class="promises" id="promises" data-live="">{cards}</div>
        <h2>"What to change"</h2>
        <AdviceList advice/>
        <h2>"How it went"</h2>
        <div class="charts">
            <HealthStrip id="health" title="Health" cells=cells(&figures, &axis) axis=axis.clone()/>
            <LineChart plot=delays(&figures, &axis)/>
            <ColumnChart plot=histograms(&figures)/>
            <LineChart plot=streams(&figures, &axis)/>
            <LineChart plot=throughput(&figures, &axis)/>
            <ColumnChart plot=sessions(&figures, &axis)/>
            <LineChart plot=cpu(&figures, &axis)/>
            <LineChart plot=memory(&figures, &axis)/>
            <StreamFailures figures=figures.clone()/>
            <SessionFailures figures/>
        </div>
        <p class="muted signed-in" data-testid="signed-in-as">"Signed in as administrator: " <bdi>{administrator}</bdi></p>
    }
}

/// Links to the ranges, of which one is shown.
#[component]
pub(super) fn Ranges(current: Range, path: &'static str) -> impl IntoView {
    let links = Range::ALL.map(|range| {
        let here = (range == current).then_some("true");
        view! { <a href=format!("{path}?range={range}") aria-current=here>{range.label()}</a> }
    });
    view! { <nav class="ranges" aria-label="Range">{links.into_iter().collect_view()}</nav> }
}

/// What happens at this moment.
#[component]
fn LiveTiles(now: Now) -> impl IntoView {
    let age = now.oldest_queued_secs.map_or_else(|| "–".to_owned(), text::duration);
    let per_second = if now.events_per_sec > 0.0 { short(now.events_per_sec) } else { "0".to_owned() };
    let tiles = [
        ("streams-open", "streams open", now.streams.to_string(), false),
        ("deliveries", "events sent each second", per_second, false),
        ("queued", "sessions waiting", now.queued.to_string(), false),
        ("queue-age", "the longest wait", age, false),
        ("running", "sessions running", now.processing.to_string(), false),
        ("stalled", "stalled", now.stalled.to_string(), now.stalled > 0),
        ("failed", "failed today", now.failed_today.to_string(), now.failed_today > 0),
    ];
    let tiles = tiles.map(|(id, label, value, alarm)| {
        view! {
            <div class="tile" id=format!("live-{id}") data-live="" data-alarm=alarm.then_some("")>
                <dt>{label}</dt>
                <dd>{value}</dd>
            </div>
        }
    });
    view! { <dl class="tiles">{tiles.into_iter().collect_view()}</dl> }
}

/// Since when there are figures of the range, as a sentence.
fn measured(figures: &Figures) -> String {
    match figures.measured_from {
        None => "Nothing was measured in this time yet. Pages report each minute while they are open.".to_owned(),
        Some(from) if from.0 - figures.from.0 > figures.range.step() * 1000 => {
            format!("Measured since {}.", text::date_time(from))
        }
        Some(_) => {
            let (streams, polling) = (figures.current.stream.visits, figures.current.polling.visits);
            let visits = text::count((streams + polling) as usize, "visit");
            let control = if polling == 0 {
                " No browser polls to compare with: HARK_CONTROL_PERCENT sets how many do."
            } else {
                ""
            };
            format!("Measured by {visits} of pages and by the server itself.{control}")
        }
    }
}

/// A share as a percentage, never rounded up to 100.
pub(super) fn percent(share: f64) -> String {
    let hundred = share * 100.0;
    if hundred > 99.0 && hundred < 100.0 {
        // Rounded down, with as many decimals as the promises have and one more.
        format!("{}%", trim(text::decimal((hundred * 100.0 + 1e-6).floor() / 100.0, 2)))
    } else if hundred < 0.0 {
        format!("−{}%", short(-hundred))
    } else {
        format!("{}%", short(hundred))
    }
}

/// What is promised, as a heading and in short.
fn promise_texts(kind: PromiseKind) -> (&'static str, &'static str) {
    match kind {
        PromiseKind::Delay => ("Updates arrive at once", "95 of 100 within 100 ms"),
        PromiseKind::Requests => ("Fewer requests", "95% fewer than polling every 3 seconds"),
        PromiseKind::Bytes => ("Fewer bytes", "80% fewer than polling every 3 seconds"),
        PromiseKind::Uptime => ("Streams are up", "99.5% of the time"),
        PromiseKind::Stuck => ("No session gets stuck", "none"),
    }
}

fn value_text(kind: PromiseKind, value: f64) -> String {
    match kind {
        PromiseKind::Delay => millis(value),
        PromiseKind::Requests | PromiseKind::Bytes | PromiseKind::Uptime => percent(value),
        PromiseKind::Stuck => short(value),
    }
}

/// How a value compares with that of the period before.
fn trend(promise: &Promise) -> String {
    let (Some(value), Some(before)) = (promise.value, promise.before) else {
        return "Nothing to compare with in the time before.".to_owned();
    };
    let gain = if promise.kind.higher_is_better() { value - before } else { before - value };
    let (amount, is_small) = match promise.kind {
        PromiseKind::Delay => (millis(gain.abs()), gain.abs() < 0.5),
        PromiseKind::Stuck => (short(gain.abs()), gain.abs() < 0.5),
        _ => (format!("{} points", short(gain.abs() * 100.0)), gain.abs() < 0.000_5),
    };
    match gain {
        _ if is_small => "→ As in the time before.".to_owned(),
        gain if gain > 0.0 => format!("↑ {amount} better than in the time before."),
        _ => format!("↓ {amount} worse than in the time before."),
    }
}

/// Why the two arms can't be compared, if so.
fn too_few(period: &Period, comparison: &Comparison) -> Option<String> {
    let (streams, polling) = (period.stream.visits, period.polling.visits);
    (streams.min(polling) < comparison.min_visits).then(|| {
        format!(
            "Too few to tell: {streams} visits with streams and {polling} that poll; each needs {}.",
            comparison.min_visits
        )
    })
}

/// What the arm of polling measured of the same, with the interval of the difference.
fn beside(kind: PromiseKind, figures: &Figures) -> Option<String> {
    let comparison = &figures.comparison;
    let (difference, unit, less, more): (_, fn(f64) -> String, _, _) = match kind {
        PromiseKind::Delay => (comparison.delay_ms, millis, "earlier", "later"),
        PromiseKind::Requests => (comparison.requests_per_minute, requests_a_minute, "fewer", "more"),
        PromiseKind::Bytes => (comparison.bytes_per_minute, bytes_a_minute, "fewer", "more"),
        PromiseKind::Uptime | PromiseKind::Stuck => return None,
    };
    if figures.current.polling.visits == 0 {
        return None;
    }
    if let Some(few) = too_few(&figures.current, comparison) {
        return Some(few);
    }
    Some(difference.map_or_else(
        || "Nothing was measured in one of the arms.".to_owned(),
        |difference| difference_text(&difference, unit, less, more),
    ))
}

fn requests_a_minute(number: f64) -> String {
    format!("{} requests a minute", short(number))
}

fn bytes_a_minute(number: f64) -> String {
    format!("{} a minute", text::bytes(number.max(0.0) as u64))
}

fn difference_text(difference: &Difference, unit: fn(f64) -> String, less: &str, more: &str) -> String {
    let Difference { stream, polling, difference, verdict } = difference;
    let (low, high) =
        (difference.low.abs().min(difference.high.abs()), difference.low.abs().max(difference.high.abs()));
    let interval = format!("95% interval {} to {}", unit(low), unit(high));
    let means = format!("{} on average, by polling {}", unit(stream.value), unit(polling.value));
    match verdict {
        Verdict::StreamBetter => format!("{means}: {} {less} ({interval}).", unit(difference.value.abs())),
        Verdict::PollingBetter => format!("{means}: {} {more} ({interval}).", unit(difference.value.abs())),
        _ => format!("{means}. The difference may be chance."),
    }
}

/// One promise.
#[component]
fn PromiseCard(promise: Promise, figures: Figures) -> impl IntoView {
    let kind = promise.kind;
    let (title, target) = promise_texts(kind);
    let (verdict, words) = match promise.met {
        Some(true) => ("kept", "✓ Kept"),
        Some(false) => ("missed", "✗ Missed"),
        None => ("unknown", "Not measured yet"),
    };
    let value = promise.value.map_or_else(|| "–".to_owned(), |value| value_text(kind, value));
    let detail = detail(kind, &figures.current);
    let beside = beside(kind, &figures);
    let id = serde_json::to_value(kind).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default();
    view! {
        <section class="card promise" data-verdict=verdict data-testid=format!("promise-{id}")
            aria-labelledby=format!("promise-{id}-title")>
            <h3 id=format!("promise-{id}-title")>{title}</h3>
            <p class="value">{value}</p>
            <p class="verdict">{words}" "<span class="muted">"Promised: "{target}"."</span></p>
            {detail.map(|detail| view! { <p>{detail}</p> })}
            <p>{trend(&promise)}</p>
            {beside.map(|beside| view! { <p class="muted" data-testid="polling-arm">{beside}</p> })}
        </section>
    }
}

/// What the number stands for.
fn detail(kind: PromiseKind, period: &Period) -> Option<String> {
    let stream = &period.stream;
    match kind {
        PromiseKind::Delay => {
            let share = stream.delay.within_100_ms?;
            Some(format!("{} of {} updates came within 100 ms.", percent(share.value), share.of))
        }
        PromiseKind::Requests => {
            let visit = stream.requests_per_visit?;
            Some(format!(
                "Requests a visit: {}; polling would have needed {}.",
                short(visit),
                short(stream.by_polling.requests / stream.visits.max(1) as f64)
            ))
        }
        PromiseKind::Bytes => {
            // On both sides with headers, as the share that is saved is calculated.
            let received = with_headers(stream.bytes, stream.requests.all());
            let visits = (stream.visits > 0).then_some(stream.visits)?;
            let visit = text::bytes(received / visits);
            let polling = text::bytes((stream.by_polling.bytes / visits as f64) as u64);
            Some(format!("Bytes a visit, with headers: {visit}; polling would have needed {polling}."))
        }
        PromiseKind::Uptime => {
            let Share { value, low, high, of } = stream.never_fell_back?;
            Some(format!(
                "{} of {of} visits never fell back to polling (95% interval {} to {}).",
                percent(value),
                percent(low),
                percent(high)
            ))
        }
        PromiseKind::Stuck => {
            let success = period.sessions.success?;
            Some(format!("{} of {} sessions completed.", percent(success.value), success.of))
        }
    }
}

/// What to change, with the evidence for it.
#[component]
fn AdviceList(advice: Vec<Advice>) -> impl IntoView {
    let none = advice.is_empty();
    let items = advice.into_iter().map(|advice| {
        view! {
            <li class="card advice" data-testid=format!("advice-{}", advice.kind)>
                <h3>{advice.title}</h3>
                <p>{advice.evidence}</p>
                <p>{advice.change}</p>
                <pre class="formula" tabindex="0">{advice.setting}</pre>
            </li>
        }
    });
    let items = items.collect_view();
    view! {
        <div id="advice" data-live="">
            {none.then(|| view! { <p class="muted">"Nothing: what was measured gives no reason to."</p> })}
            <ul class="advice-list">{items}</ul>
        </div>
    }
}

fn axis(figures: &Figures) -> Axis {
    let times: Vec<_> = figures.points.iter().map(|point| point.at).collect();
    Axis::times(&times, figures.range.step().unsigned_abs())
}

/// How each step went.
fn cells(figures: &Figures, axis: &Axis) -> Vec<Cell> {
    use super::charts::Health as Shown;
    let cells = figures.points.iter().zip(&axis.names).map(|(point, name)| Cell {
        name: name.clone(),
        health: match point.health() {
            Health::Unknown => Shown::Unknown,
            Health::Healthy => Shown::Good,
            Health::Warning => Shown::Missed,
            Health::Critical => Shown::Bad,
        },
        reason: reason(point),
    });
    cells.collect()
}

/// What was wrong in a step.
fn reason(point: &Point) -> Option<String> {
    let stream = &point.stream;
    let parts = [
        (stream.failures > 0).then(|| format!("{} of {} streams failed", stream.failures, stream.connects)),
        stream.p95_ms.filter(|p95| *p95 > 500.0).map(|p95| format!("95% of updates within {}", millis(p95))),
        (point.failed > 0).then(|| format!("{} of {} sessions failed", point.failed, point.failed + point.completed)),
    ];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// One value of each point.
fn series(name: &'static str, figures: &Figures, value: impl Fn(&Point) -> Option<f64>) -> Series {
    Series { name, values: figures.points.iter().map(value).collect() }
}

fn largest(series: &[Series]) -> f64 {
    series.iter().flat_map(|series| series.values.iter().flatten()).copied().fold(0.0, f64::max)
}

fn smallest(series: &[Series]) -> f64 {
    series.iter().flat_map(|series| series.values.iter().flatten()).copied().fold(f64::INFINITY, f64::min)
}

/// A chart with a linear scale and no target.
fn linear(id: &'static str, title: &'static str, summary: String, axis: Axis, unit: Unit, series: Vec<Series>) -> Plot {
    Plot { id, title, summary, axis, unit, scale: Scale::linear(largest(&series)), series, target: None }
}

/// A value that exists only where a node was running.
fn known(point: &Point, value: f64) -> Option<f64> {
    (point.minutes > 0).then_some(value)
}

fn delays(figures: &Figures, axis: &Axis) -> Plot {
    let series = vec![
        series("half of all updates", figures, |point| point.stream.p50_ms),
        series("95%", figures, |point| point.stream.p95_ms),
        series("99%", figures, |point| point.stream.p99_ms),
        series("95% by polling", figures, |point| point.polling.p95_ms),
    ];
    let delay = &figures.current.stream.delay;
    let summary = match (delay.p50_ms, delay.p95_ms, delay.p99_ms) {
        (Some(p50), Some(p95), Some(p99)) => {
            let polling = figures.current.polling.delay.p95_ms;
            let polling = polling.map(|p95| format!("; by polling 95% within {}", millis(p95))).unwrap_or_default();
            let (p50, p95, p99) = (millis(p50), millis(p95), millis(p99));
            format!("Half of all updates arrived within {p50}, 95% within {p95} and 99% within {p99}{polling}.")
        }
        _ => "No update was measured.".to_owned(),
    };
    Plot {
        id: "delays",
        title: "How late updates arrive",
        summary,
        axis: axis.clone(),
        unit: Unit::Millis,
        scale: Scale::log(smallest(&series).clamp(1.0, 10.0), largest(&series).max(1000.0)),
        series,
        target: Some((PromiseKind::Delay.target(), "promised for 95%")),
    }
}

/// The delays of streams beside those of polling: the arm that polls, or without one the visits that fell back.
fn histograms(figures: &Figures) -> Plot {
    let Period { stream, polling, .. } = &figures.current;
    let (name, polling) = match polling.delay.count {
        0 => ("by polling, after a stream failed", &stream.delay_polling),
        _ => ("by polling, to compare", &polling.delay),
    };
    let mut bounds = Histogram::default();
    bounds.merge(&stream.delay_live.histogram);
    bounds.merge(&polling.histogram);
    let names = bounds.buckets().map(|bucket| match bucket.to_ms {
        Some(to) => format!("≤ {}", millis(f64::from(to))),
        None => format!("> {}", millis(f64::from(bucket.above_ms))),
    });
    let shares = |histogram: &Histogram| {
        let count = histogram.count();
        // With the bounds of both, so that columns stand beside their like.
        let mut same = Histogram { bounds_ms: bounds.bounds_ms.clone(), counts: vec![0; bounds.counts.len()] };
        same.merge(histogram);
        let share = |n: u64| (count > 0).then(|| n as f64 * 100.0 / count as f64);
        same.counts.iter().map(|n| share(*n)).collect::<Vec<_>>()
    };
    let series = vec![
        Series { name: "by stream", values: shares(&stream.delay_live.histogram) },
        Series { name, values: shares(&polling.histogram) },
    ];
    let within = |share: Option<Share>| share.map(|share| percent(share.value));
    let summary = match (within(stream.delay_live.within_100_ms), within(polling.within_100_ms)) {
        (Some(live), Some(polling)) => {
            format!("Within 100 ms came {live} of the updates by stream, and {polling} by polling.")
        }
        (Some(live), None) => format!("Within 100 ms came {live} of the updates by stream."),
        (None, Some(polling)) => format!("Within 100 ms came {polling} of the updates by polling."),
        (None, None) => "No update was measured.".to_owned(),
    };
    linear(
        "histogram",
        "Streams against polling",
        summary,
        Axis::buckets("Delay", names.collect()),
        Unit::Percent,
        series,
    )
}

fn streams(figures: &Figures, axis: &Axis) -> Plot {
    let series = vec![
        series("most open at once", figures, |point| known(point, point.most_streams as f64)),
        series("opened", figures, |point| known(point, point.streams_opened as f64)),
        series("failed", figures, |point| known(point, point.stream.failures as f64)),
        series("visits that fell back", figures, |point| known(point, point.stream.fell_back as f64)),
    ];
    let Period { stream, server, .. } = &figures.current;
    let summary = format!(
        "{} streams were opened, at most {} open at once on one node; {} failed, and {} of {} visits fell back to polling.",
        server.streams_opened,
        server.most_streams,
        stream.failures.iter().map(|failures| failures.count).sum::<u64>(),
        stream.fell_back,
        stream.visits
    );
    linear("streams", "Streams and fallbacks", summary, axis.clone(), Unit::Number, series)
}

fn throughput(figures: &Figures, axis: &Axis) -> Plot {
    let seconds = figures.range.step() as f64;
    let series = vec![
        series("updates by stream", figures, |point| known(point, point.events as f64 / seconds)),
        series("polls", figures, |point| known(point, point.polls as f64 / seconds)),
    ];
    let server = &figures.current.server;
    let summary = format!(
        "{} events were sent on streams, {} in all, and {} polls answered with {}.",
        short(server.events as f64),
        text::bytes(server.stream_bytes),
        short(server.polls as f64),
        text::bytes(server.poll_bytes)
    );
    linear("throughput", "Throughput", summary, axis.clone(), Unit::PerSecond, series)
}

fn sessions(figures: &Figures, axis: &Axis) -> Plot {
    let series = vec![
        series("completed", figures, |point| known(point, point.completed as f64)),
        series("failed", figures, |point| known(point, point.failed as f64)),
    ];
    let sessions = &figures.current.sessions;
    let speed = sessions.speed.map(|speed| format!(", at {} of real time", text::speed(speed))).unwrap_or_default();
    let summary = format!(
        "{} completed{speed}; {} failed.",
        text::count(sessions.completed as usize, "session"),
        sessions.failed
    );
    linear("sessions", "Sessions", summary, axis.clone(), Unit::Number, series)
}

fn cpu(figures: &Figures, axis: &Axis) -> Plot {
    let series = vec![series("of all processors", figures, |point| point.cpu.map(|share| share * 100.0))];
    let summary = figures.current.server.cpu.map_or_else(
        || "Not measured.".to_owned(),
        |share| format!("On average {} of the processors, speech engines and decoders not included.", percent(share)),
    );
    linear("cpu", "Processor", summary, axis.clone(), Unit::Percent, series)
}

fn memory(figures: &Figures, axis: &Axis) -> Plot {
    let used = |point: &Point| (point.most_memory > 0).then_some(point.most_memory as f64);
    let series = vec![series("at most, on one node", figures, used)];
    let most = figures.current.server.most_memory;
    let summary =
        if most == 0 { "Not measured.".to_owned() } else { format!("At most {} on one node.", text::bytes(most)) };
    linear("memory", "Memory", summary, axis.clone(), Unit::Bytes, series)
}

/// What pages noticed of a stream that failed, for people.
fn failure_name(kind: &str) -> String {
    match kind {
        "error" => "broke off",
        "buffered" => "nothing came in time",
        "silent" => "fell silent",
        "limit" => "refused: too many streams",
        other => other,
    }
    .to_owned()
}

#[component]
fn StreamFailures(figures: Figures) -> impl IntoView {
    let failures = &figures.current.stream.failures;
    let mut browsers: Vec<String> = failures.iter().map(|failure| failure.browser.clone()).collect();
    let mut kinds: Vec<String> = Vec::new();
    for failure in failures {
        if !kinds.contains(&failure.kind) {
            kinds.push(failure.kind.clone());
        }
    }
    browsers.sort_unstable();
    browsers.dedup();
    let count = |kind: &str, browser: &str| {
        failures.iter().filter(|f| f.kind == kind && f.browser == browser).map(|f| f.count).sum::<u64>()
    };
    let rows = kinds.iter().map(|kind| (failure_name(kind), browsers.iter().map(|b| count(kind, b)).collect()));
    let rows = rows.collect::<Vec<_>>();
    view! {
        <KindTable id="stream-failures" title="Streams that failed, by kind and browser" none="No stream failed." kind="What pages noticed"
            columns=browsers rows/>
    }
}

#[component]
fn SessionFailures(figures: Figures) -> impl IntoView {
    let failures = figures.current.sessions.failures.iter();
    let rows = failures.map(|failure| (failure.name.replace('_', " "), vec![failure.count])).collect::<Vec<_>>();
    view! {
        <KindTable id="session-failures" title="Sessions that failed, by reason" none="No session failed." kind="Reason"
            columns=vec!["Sessions".to_owned()] rows/>
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{figures::PollingEstimate, stats::Estimate};

    fn promise(kind: PromiseKind, value: f64, before: Option<f64>) -> Promise {
        Promise {
            kind,
            target: kind.target(),
            value: Some(value),
            before,
            polling: None,
            met: Some(kind.is_met_by(value)),
        }
    }

    #[test]
    fn shares_are_never_rounded_up_to_all() {
        let texts = [0.0, 0.42, 0.9949, 0.9996, 0.99999, 1.0, -0.25].map(percent);
        assert_eq!(texts, ["0%", "42%", "99.49%", "99.96%", "99.99%", "100%", "−25%"]);
    }

    #[test]
    fn a_trend_says_whether_it_became_better() {
        assert_eq!(trend(&promise(PromiseKind::Delay, 40.0, Some(52.0))), "↑ 12 ms better than in the time before.");
        assert_eq!(
            trend(&promise(PromiseKind::Uptime, 0.99, Some(0.995))),
            "↓ 0.5 points worse than in the time before."
        );
        assert_eq!(trend(&promise(PromiseKind::Stuck, 0.0, Some(0.0))), "→ As in the time before.");
        assert_eq!(trend(&promise(PromiseKind::Stuck, 2.0, Some(0.0))), "↓ 2 worse than in the time before.");
        assert_eq!(trend(&promise(PromiseKind::Delay, 1.0, None)), "Nothing to compare with in the time before.");
    }

    #[test]
    fn the_bytes_of_a_visit_are_told_as_the_share_is_calculated() {
        let mut period = Period::default();
        let stream = &mut period.stream;
        (stream.visits, stream.bytes, stream.requests.stream) = (10, 5_500, 10);
        stream.by_polling = PollingEstimate::new(10, 3_000_000, 0, (0, 0));
        // A visit has 1 stream, or would have 101 polls, each with 450 bytes of headers.
        let text = detail(PromiseKind::Bytes, &period).unwrap();
        assert_eq!(text, "Bytes a visit, with headers: 1.0 kB; polling would have needed 60.6 kB.");
        assert_eq!(detail(PromiseKind::Bytes, &Period::default()), None);
    }

    #[test]
    fn the_arms_are_compared_only_with_enough_visits() {
        let mut figures = Figures::default();
        figures.comparison.min_visits = 30;
        let text = |figures: &Figures| beside(PromiseKind::Delay, figures).unwrap();
        figures.measured_from = Some(figures.from);
        assert!(measured(&figures).contains("HARK_CONTROL_PERCENT"));
        assert_eq!(beside(PromiseKind::Delay, &figures), None);
        (figures.current.stream.visits, figures.current.polling.visits) = (400, 3);
        assert_eq!(text(&figures), "Too few to tell: 400 visits with streams and 3 that poll; each needs 30.");
        assert_eq!(measured(&figures), "Measured by 403 visits of pages and by the server itself.");
        figures.current.polling.visits = 40;
        let estimate = |value: f64, half: f64| Estimate { value, low: value - half, high: value + half };
        let (stream, polling) = (estimate(40.0, 2.0), estimate(1540.0, 50.0));
        let difference = stream.minus(&polling);
        figures.comparison.delay_ms = Some(Difference { stream, polling, difference, verdict: Verdict::StreamBetter });
        assert_eq!(text(&figures), "40 ms on average, by polling 1.5 s: 1.5 s earlier (95% interval 1.4 s to 1.6 s).");
        assert_eq!(beside(PromiseKind::Uptime, &figures), None);
    }

    #[test]
    fn columns_of_both_arms_have_the_same_bounds() {
        let mut figures = Figures::default();
        let histogram = Histogram { bounds_ms: vec![7, 100], counts: vec![3, 1, 0] };
        figures.current.stream.delay_live = histogram.into();
        let plot = histograms(&figures);
        let [live, polling] = &plot.series[..] else { unreachable!() };
        assert_eq!((live.values.len(), polling.values.len()), (plot.axis.names.len(), plot.axis.names.len()));
        let at = |name: &str| plot.axis.names.iter().position(|n| n == name).unwrap();
        assert_eq!((live.values[at("≤ 7 ms")], live.values[at("≤ 100 ms")]), (Some(75.0), Some(25.0)));
        assert_eq!(polling.values[0], None);
    }
}
