//! The figures of the dashboard: what was measured of the promises in an hour, a day, a week or 90 days, and in as long before
//! that. The server calculates them from the sums that it keeps for each hour (`server::hours`); pages and programs get them as
//! they are here. Pure.

use super::{
    stats::{Estimate, Histogram, Share},
    timestamp::Timestamp,
};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// How often a page that polls would ask, in milliseconds: what live updates are compared with.
pub const POLL_INTERVAL_MS: u64 = 3000;
/// Bytes of an answer's headers: what Hark sends over HTTP/1.1 with a poll that finds nothing new. A stream's have a little
/// more. Over HTTP/2 both have less.
pub const HEADER_BYTES: u64 = 450;
/// Bytes of the body of a poll as sent, where too few polls were measured to know better: one session with its status, of which
/// most polls find nothing new.
pub const POLL_BYTES: f64 = 150.0;
/// From so many polls on their measured size is used.
pub const MIN_POLLS: u64 = 100;
/// So many visits must each arm have before the two are compared. From about 30 on, the mean of independent values is close
/// enough to normally distributed for its interval to be right.
pub const MIN_VISITS: u64 = 30;
/// Days for which savings are given.
pub const MONTH_DAYS: f64 = 30.0;

/// The time that figures cover.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Range {
    Hour,
    #[default]
    Day,
    Week,
    /// 90 days.
    Quarter,
}

/// The error for a text that isn't a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("range must be hour, day, week or quarter")]
pub struct UnknownRange;

impl Range {
    pub const ALL: [Self; 4] = [Self::Hour, Self::Day, Self::Week, Self::Quarter];

    /// As in addresses and on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Quarter => "quarter",
        }
    }

    /// For people.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Hour => "Last hour",
            Self::Day => "Last 24 hours",
            Self::Week => "Last 7 days",
            Self::Quarter => "Last 90 days",
        }
    }

    /// Seconds that the range covers.
    #[must_use]
    pub fn seconds(self) -> i64 {
        match self {
            Self::Hour => 3600,
            Self::Day => 24 * 3600,
            Self::Week => 7 * 24 * 3600,
            Self::Quarter => 90 * 24 * 3600,
        }
    }

    /// Seconds from one point of its charts to the next: five minutes, an hour or a day.
    #[must_use]
    pub fn step(self) -> i64 {
        match self {
            Self::Hour => 300,
            Self::Day | Self::Week => 3600,
            Self::Quarter => 24 * 3600,
        }
    }

    /// Where the range begins that ends at `now`: at a full step, so that the step under way is the last of the range and
    /// only that one is incomplete.
    #[must_use]
    pub fn start(self, now: Timestamp) -> Timestamp {
        let step = self.step() * 1000;
        Timestamp(now.0.div_euclid(step) * step + step - self.seconds() * 1000)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Range {
    type Err = UnknownRange;

    fn from_str(text: &str) -> Result<Self, UnknownRange> {
        Self::ALL.into_iter().find(|range| range.as_str() == text).ok_or(UnknownRange)
    }
}

/// All figures of a range.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct Figures {
    pub range: Range,
    /// The range: from a full step on, until now.
    pub from: Timestamp,
    pub to: Timestamp,
    /// When what is known of the range begins; none if nothing was measured in it.
    pub measured_from: Option<Timestamp>,
    /// For how many days figures are kept. What is older is missing, also in `before`.
    pub kept_days: f64,
    /// What Hark promises, with what was measured of it.
    pub promises: Vec<Promise>,
    pub current: Period,
    /// As long a time before `from`.
    pub before: Period,
    pub comparison: Comparison,
    pub savings: Savings,
    /// The range in steps, oldest first, without holes.
    pub points: Vec<Point>,
}

/// What Hark promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum PromiseKind {
    /// An update arrives within so many milliseconds in 95 of 100 cases.
    Delay,
    /// The share of requests that live updates save against polling every 3 seconds.
    Requests,
    /// The same of bytes.
    Bytes,
    /// The share of the time in which a page was watching that its stream was open.
    Uptime,
    /// The number of sessions that failed because they made no progress.
    Stuck,
}

impl PromiseKind {
    pub const ALL: [Self; 5] = [Self::Delay, Self::Requests, Self::Bytes, Self::Uptime, Self::Stuck];

    /// The value that is promised.
    #[must_use]
    pub fn target(self) -> f64 {
        match self {
            Self::Delay => 100.0,
            Self::Requests => 0.95,
            Self::Bytes => 0.8,
            Self::Uptime => 0.995,
            Self::Stuck => 0.0,
        }
    }

    /// Whether a higher value is the better one.
    #[must_use]
    pub fn higher_is_better(self) -> bool {
        !matches!(self, Self::Delay | Self::Stuck)
    }

    /// Whether a value keeps the promise.
    #[must_use]
    pub fn is_met_by(self, value: f64) -> bool {
        if self.higher_is_better() { value >= self.target() } else { value <= self.target() }
    }

    /// Of a period: in the arm of streams, and in that of polling where the promise says something of it.
    #[must_use]
    pub fn of(self, period: &Period) -> (Option<f64>, Option<f64>) {
        let (stream, polling) = (&period.stream, &period.polling);
        match self {
            Self::Delay => (stream.delay.p95_ms, polling.delay.p95_ms),
            Self::Requests => (stream.requests_saved, polling.requests_saved),
            Self::Bytes => (stream.bytes_saved, polling.bytes_saved),
            Self::Uptime => (stream.uptime, None),
            Self::Stuck => ((period.server.minutes > 0).then_some(period.sessions.stuck as f64), None),
        }
    }
}

/// A promise with what was measured of it, in the arm of streams.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct Promise {
    pub kind: PromiseKind,
    pub target: f64,
    /// None if nothing was measured.
    pub value: Option<f64>,
    /// In the time before.
    pub before: Option<f64>,
    /// In the arm of polling, in the same time.
    pub polling: Option<f64>,
    /// Whether the value keeps the promise.
    pub met: Option<bool>,
}

/// What was measured in some time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct Period {
    /// Browsers that were given live updates, and fell back to polling only if those failed.
    pub stream: ArmFigures,
    /// Browsers that were told to poll, to compare.
    pub polling: ArmFigures,
    pub sessions: SessionFigures,
    pub server: ServerFigures,
}

/// What pages measured that are in one arm of the comparison.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct ArmFigures {
    /// Pages that were loaded and reported.
    pub visits: u64,
    /// Those of them that began to poll because a stream failed.
    pub fell_back: u64,
    /// The share of visits that didn't.
    pub never_fell_back: Option<Share>,
    /// From the making of a status to its arrival at the page: in all, on streams, by polling.
    pub delay: DelayFigures,
    pub delay_live: DelayFigures,
    pub delay_polling: DelayFigures,
    /// From opening a stream to its first event.
    pub first_event: DelayFigures,
    pub times: ModeTotals,
    /// The time with an open stream, divided by all time in which a page was visible and had something to watch, but for the
    /// time of opening: `live / (live + polling + reconnecting + offline)`.
    pub uptime: Option<f64>,
    /// The time of opening streams, divided by all that time:
    /// `connecting / (live + polling + connecting + reconnecting + offline)`.
    pub opening: Option<f64>,
    pub requests: RequestTotals,
    /// Bytes of the answers' bodies, as sent.
    pub bytes: u64,
    pub requests_per_visit: Option<f64>,
    pub bytes_per_visit: Option<f64>,
    /// For each minute that a page watched, with headers.
    pub requests_per_minute: Option<Estimate>,
    pub bytes_per_minute: Option<Estimate>,
    pub by_polling: PollingEstimate,
    /// The shares that were saved against [`PollingEstimate`]; negative if polling would have needed less.
    pub requests_saved: Option<f64>,
    pub bytes_saved: Option<f64>,
    /// Streams that pages opened.
    pub connects: u64,
    /// Streams that failed and were replaced before anybody could notice.
    pub mended: u64,
    /// Failures of streams that somebody could notice, by kind and family of browser, the most frequent first.
    pub failures: Vec<FailureCount>,
    /// The share of opened streams that failed.
    pub failure_share: Option<Share>,
    /// Streams that the server ended or refused on purpose, by its reason.
    pub byes: Vec<NamedCount>,
}

/// How late something was.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct DelayFigures {
    pub count: u64,
    pub p50_ms: Option<f64>,
    pub p95_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    pub mean_ms: Option<Estimate>,
    /// The share that came within 100 ms.
    pub within_100_ms: Option<Share>,
    pub histogram: Histogram,
}

impl From<Histogram> for DelayFigures {
    fn from(histogram: Histogram) -> Self {
        let count = histogram.count();
        Self {
            count,
            p50_ms: histogram.percentile(0.5),
            p95_ms: histogram.percentile(0.95),
            p99_ms: histogram.percentile(0.99),
            mean_ms: histogram.mean(),
            within_100_ms: Share::new(histogram.within(100), count),
            histogram,
        }
    }
}

/// How long updates came by which transport, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct ModeTotals {
    pub live: u64,
    pub polling: u64,
    /// A stream was being opened.
    pub connecting: u64,
    /// A stream had failed, and neither another one nor polling had taken its place.
    pub reconnecting: u64,
    pub offline: u64,
}

impl ModeTotals {
    /// All time in which pages were visible and had something to watch.
    #[must_use]
    pub fn visible(&self) -> u64 {
        self.live + self.polling + self.connecting + self.reconnecting + self.offline
    }

    /// That of it in which a page without streams would have polled.
    #[must_use]
    pub fn online(&self) -> u64 {
        self.visible() - self.offline
    }

    /// See [`ArmFigures::uptime`].
    #[must_use]
    pub fn uptime(&self) -> Option<f64> {
        ratio(self.live as f64, (self.visible() - self.connecting) as f64)
    }

    /// See [`ArmFigures::opening`].
    #[must_use]
    pub fn opening(&self) -> Option<f64> {
        ratio(self.connecting as f64, self.visible() as f64)
    }
}

/// Requests of pages by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct RequestTotals {
    pub stream: u64,
    pub poll: u64,
    pub segments: u64,
}

impl RequestTotals {
    #[must_use]
    pub fn all(&self) -> u64 {
        self.stream + self.poll + self.segments
    }
}

/// What polling every 3 seconds would have made in the same time:
///
/// - `requests = visits + online_ms / 3000 + segments`: one poll when the page is loaded, then one every 3 seconds while it had
///   something to watch and a network; and the requests for segments that the pages themselves made. Polling would make more of
///   those, one for each poll that finds new lines, so what is saved is understated.
/// - `bytes = (visits + online_ms / 3000) * bytes_per_poll + requests * HEADER_BYTES`. `bytes_per_poll` is the mean body of the
///   polls of the same time, as sent, or [`POLL_BYTES`] where there were fewer than [`MIN_POLLS`] polls. Lines of text are left
///   out, though polling would fetch them too, so this is understated as well.
///
/// What pages really made is compared with it in the same way: their requests, and their bytes with [`HEADER_BYTES`] for each
/// request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct PollingEstimate {
    pub requests: f64,
    pub bytes: f64,
    /// The body of a poll, and whether that was measured.
    pub bytes_per_poll: f64,
    pub is_measured: bool,
}

impl PollingEstimate {
    /// The estimate for pages with so many visits that were online for so long and requested segments so often.
    /// `polls`: how many polls the server answered in the same time, and with how many bytes.
    #[must_use]
    pub fn new(visits: u64, online_ms: u64, segments: u64, polls: (u64, u64)) -> Self {
        let (count, bytes) = polls;
        let is_measured = count >= MIN_POLLS;
        let bytes_per_poll = if is_measured { bytes as f64 / count as f64 } else { POLL_BYTES };
        let made = visits as f64 + online_ms as f64 / POLL_INTERVAL_MS as f64;
        let requests = made + segments as f64;
        let bytes = made * bytes_per_poll + requests * HEADER_BYTES as f64;
        Self { requests, bytes, bytes_per_poll, is_measured }
    }

    /// The share of requests that is saved if so many were made; none if nothing would have been requested.
    #[must_use]
    pub fn requests_saved(&self, made: u64) -> Option<f64> {
        ratio(self.requests - made as f64, self.requests)
    }

    /// The same of bytes, with headers.
    #[must_use]
    pub fn bytes_saved(&self, received: u64) -> Option<f64> {
        ratio(self.bytes - received as f64, self.bytes)
    }
}

/// Bytes of bodies with the headers of so many requests, as they are compared.
#[must_use]
pub fn with_headers(bytes: u64, requests: u64) -> u64 {
    bytes + requests * HEADER_BYTES
}

/// A quotient; none if the divisor isn't above 0.
fn ratio(part: f64, of: f64) -> Option<f64> {
    (of > 0.0).then(|| part / of)
}

/// How many streams failed in one way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct FailureCount {
    /// `error`, `buffered` or `silent`.
    pub kind: String,
    /// `chromium`, `firefox`, `safari` or `other`.
    pub browser: String,
    pub count: u64,
}

/// How often something with a name occurred.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct NamedCount {
    pub name: String,
    pub count: u64,
}

/// How sessions ended, and how fast they were transcribed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct SessionFigures {
    pub completed: u64,
    pub failed: u64,
    pub cancelled: u64,
    /// The share of completed sessions in those that completed or failed.
    pub success: Option<Share>,
    /// Failed sessions by the error's code, the most frequent first.
    pub failures: Vec<NamedCount>,
    /// Those of them that failed because they made no progress.
    pub stuck: u64,
    /// Seconds of audio of the sessions that this measures, and of the work on them.
    pub audio_secs: f64,
    pub work_secs: f64,
    /// Seconds of audio for each second of work.
    pub speed: Option<f64>,
}

/// What nodes counted themselves.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct ServerFigures {
    /// For how many minutes nodes were running, each node's minutes counted.
    pub minutes: u64,
    pub streams_opened: u64,
    pub streams_refused: u64,
    /// Closed streams by reason, the most frequent first.
    pub streams_closed: Vec<NamedCount>,
    /// Events written to streams, and their bytes as sent.
    pub events: u64,
    pub stream_bytes: u64,
    /// Polls answered, those of them without anything new, and the bytes of their bodies as sent.
    pub polls: u64,
    pub polls_unchanged: u64,
    pub poll_bytes: u64,
    /// The most streams that were open on one node at a full minute.
    pub most_streams: u64,
    /// The mean share of its processors that a node used, engines and decoders not included.
    pub cpu: Option<f64>,
    /// The most memory that one node used, in bytes.
    pub most_memory: u64,
}

/// Whether live updates are better than polling, as the pages of the two arms measured it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct Comparison {
    pub verdict: Verdict,
    /// How many visits each arm needs for a verdict.
    pub min_visits: u64,
    /// The mean delay of an update in milliseconds, and requests and bytes for each minute that a page watched: in the arm of
    /// streams less that in the arm of polling. A negative difference speaks for streams.
    pub delay_ms: Option<Difference>,
    pub requests_per_minute: Option<Difference>,
    pub bytes_per_minute: Option<Difference>,
}

/// The result of a comparison.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// At least one arm has fewer than [`MIN_VISITS`] visits, or nothing was measured in it.
    #[default]
    TooFew,
    /// The interval of the difference lies below 0: live updates are better.
    StreamBetter,
    /// It lies above 0.
    PollingBetter,
    /// It contains 0: what there is may be chance.
    NoDifference,
    /// One value speaks for streams and another for polling.
    Mixed,
}

/// How much two arms differ.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct Difference {
    pub stream: Estimate,
    pub polling: Estimate,
    /// `stream` less `polling`.
    pub difference: Estimate,
    pub verdict: Verdict,
}

impl Difference {
    fn new(stream: Option<Estimate>, polling: Option<Estimate>, enough: bool) -> Option<Self> {
        let (stream, polling) = (stream?, polling?);
        let difference = stream.minus(&polling);
        let verdict = match difference.sign() {
            _ if !enough => Verdict::TooFew,
            Some(true) => Verdict::PollingBetter,
            Some(false) => Verdict::StreamBetter,
            None => Verdict::NoDifference,
        };
        Some(Self { stream, polling, difference, verdict })
    }
}

impl Comparison {
    /// Compares the two arms of a period. There is a verdict only if each arm has [`MIN_VISITS`] visits. It is
    /// [`Verdict::Mixed`] if one value speaks for streams and another for polling; otherwise what any of them says.
    #[must_use]
    pub fn new(stream: &ArmFigures, polling: &ArmFigures) -> Self {
        let enough = stream.visits.min(polling.visits) >= MIN_VISITS;
        let delay_ms = Difference::new(stream.delay.mean_ms, polling.delay.mean_ms, enough);
        let requests_per_minute = Difference::new(stream.requests_per_minute, polling.requests_per_minute, enough);
        let bytes_per_minute = Difference::new(stream.bytes_per_minute, polling.bytes_per_minute, enough);
        let verdicts: Vec<Verdict> =
            [delay_ms, requests_per_minute, bytes_per_minute].into_iter().flatten().map(|d| d.verdict).collect();
        let says = |verdict| verdicts.contains(&verdict);
        let verdict = match (says(Verdict::StreamBetter), says(Verdict::PollingBetter)) {
            (true, true) => Verdict::Mixed,
            (true, false) => Verdict::StreamBetter,
            (false, true) => Verdict::PollingBetter,
            (false, false) if says(Verdict::NoDifference) => Verdict::NoDifference,
            (false, false) => Verdict::TooFew,
        };
        Self { verdict, min_visits: MIN_VISITS, delay_ms, requests_per_minute, bytes_per_minute }
    }
}

/// What live updates save against polling every 3 seconds (see [`PollingEstimate`]), in a month of 30 days if it goes on as in
/// the range: `saved_in_range * 30 days / (to - measured_from)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct Savings {
    /// In the range.
    pub requests: f64,
    pub bytes: f64,
    /// In a month; none if nothing was measured.
    pub requests_per_month: Option<f64>,
    pub bytes_per_month: Option<f64>,
    /// What the operator pays for a million requests and for a GB (10^9 bytes), if that is set.
    pub price_per_million_requests: Option<f64>,
    pub price_per_gb: Option<f64>,
    /// `requests_per_month / 10^6 * price_per_million_requests + bytes_per_month / 10^9 * price_per_gb`, in the currency of the
    /// prices; none without a price.
    pub money_per_month: Option<f64>,
}

/// What an operator pays.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Prices {
    pub per_million_requests: Option<f64>,
    pub per_gb: Option<f64>,
}

impl Savings {
    /// The savings of the arm of streams in a range of which `measured_secs` seconds were measured.
    #[must_use]
    pub fn new(stream: &ArmFigures, measured_secs: f64, prices: Prices) -> Self {
        let made = stream.requests.all();
        let requests = stream.by_polling.requests - made as f64;
        let bytes = stream.by_polling.bytes - with_headers(stream.bytes, made) as f64;
        let per_month = |saved: f64| ratio(saved * MONTH_DAYS * 86_400.0, measured_secs);
        let (requests_per_month, bytes_per_month) = (per_month(requests), per_month(bytes));
        let cost = |amount: Option<f64>, unit: f64, price: Option<f64>| Some(amount? / unit * price?);
        let costs =
            [cost(requests_per_month, 1e6, prices.per_million_requests), cost(bytes_per_month, 1e9, prices.per_gb)];
        Self {
            requests,
            bytes,
            requests_per_month,
            bytes_per_month,
            price_per_million_requests: prices.per_million_requests,
            price_per_gb: prices.per_gb,
            money_per_month: costs.into_iter().flatten().reduce(|a, b| a + b),
        }
    }
}

/// What was measured from one time to the next.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct Point {
    /// Where it begins.
    pub at: Timestamp,
    /// For how many minutes nodes were running; 0 if nothing can be known.
    pub minutes: u64,
    pub stream: ArmPoint,
    pub polling: ArmPoint,
    pub completed: u64,
    pub failed: u64,
    pub cancelled: u64,
    /// Seconds of audio for each second of work.
    pub speed: Option<f64>,
    pub streams_opened: u64,
    pub most_streams: u64,
    pub events: u64,
    pub stream_bytes: u64,
    pub polls: u64,
    pub poll_bytes: u64,
    pub cpu: Option<f64>,
    pub most_memory: u64,
}

/// A point's part of one arm.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct ArmPoint {
    pub visits: u64,
    pub fell_back: u64,
    pub updates: u64,
    pub p50_ms: Option<f64>,
    pub p95_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    pub uptime: Option<f64>,
    pub requests: u64,
    pub bytes: u64,
    pub connects: u64,
    pub failures: u64,
}

/// How a point in time went, for a strip that shows it at a glance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// No node was running, or figures weren't kept yet.
    Unknown,
    Healthy,
    /// More than 1% of streams failed, 95% of the updates on streams took up to more than 500 ms, or more than 5% of sessions
    /// failed.
    Warning,
    /// More than 5% of streams failed, or more than 10% of sessions.
    Critical,
}

impl Point {
    /// How it went. A share counts from two failures on, so that one failure of a few doesn't look like an outage.
    #[must_use]
    pub fn health(&self) -> Health {
        let above = |failed: u64, of: u64, share: f64| failed >= 2 && failed as f64 > share * of as f64;
        let (streams, ended) = (&self.stream, self.completed + self.failed);
        let is_slow = streams.p95_ms.is_some_and(|p95| p95 > 500.0);
        if self.minutes == 0 {
            Health::Unknown
        } else if above(streams.failures, streams.connects, 0.05) || above(self.failed, ended, 0.1) {
            Health::Critical
        } else if above(streams.failures, streams.connects, 0.01) || above(self.failed, ended, 0.05) || is_slow {
            Health::Warning
        } else {
            Health::Healthy
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_ends_with_the_step_under_way() {
        let now: Timestamp = "2026-11-27T04:17:31.000Z".parse().unwrap();
        let starts = Range::ALL.map(|range| range.start(now).to_string());
        assert_eq!(
            starts,
            [
                "2026-11-27T03:20:00.000Z",
                "2026-11-26T05:00:00.000Z",
                "2026-11-20T05:00:00.000Z",
                "2026-08-30T00:00:00.000Z"
            ]
        );
        for range in Range::ALL {
            assert_eq!(range.seconds() % range.step(), 0);
            assert_eq!(range.as_str().parse(), Ok(range));
            let json = serde_json::to_string(&range).unwrap();
            assert_eq!(json, format!("\"{range}\""));
        }
        assert_eq!("year".parse::<Range>(), Err(UnknownRange));
    }

    #[test]
    fn polling_is_estimated_by_its_formula() {
        // Ten pages for five minutes each: 10 + 1000 polls, and 7 requests for segments.
        let few = PollingEstimate::new(10, 3_000_000, 7, (99, 1_000_000));
        assert_eq!((few.requests, few.is_measured, few.bytes_per_poll), (1017.0, false, POLL_BYTES));
        let known = PollingEstimate::new(10, 3_000_000, 7, (100, 20_000));
        assert_eq!((known.is_measured, known.bytes_per_poll), (true, 200.0));
        assert_eq!(known.bytes, 1010.0 * 200.0 + 1017.0 * HEADER_BYTES as f64);
        assert_eq!(known.requests_saved(0), Some(1.0));
        assert_eq!(known.requests_saved(2034), Some(-1.0));
        assert_eq!(PollingEstimate::default().requests_saved(0), None);
    }

    #[test]
    fn uptime_leaves_out_the_time_of_opening() {
        let times = ModeTotals { live: 900, polling: 30, connecting: 250, reconnecting: 20, offline: 50 };
        assert_eq!((times.uptime(), times.opening()), (Some(0.9), Some(0.2)));
        assert_eq!((ModeTotals::default().uptime(), times.online()), (None, 1200));
    }

    fn arm(visits: u64, delay: f64, requests: f64) -> ArmFigures {
        let estimate = |value: f64| Some(Estimate { value, low: value * 0.9, high: value * 1.1 });
        ArmFigures {
            visits,
            delay: DelayFigures { mean_ms: estimate(delay), ..DelayFigures::default() },
            requests_per_minute: estimate(requests),
            ..ArmFigures::default()
        }
    }

    #[test]
    fn there_is_a_verdict_only_with_enough_visits() {
        let verdict = |stream: &ArmFigures, polling: &ArmFigures| Comparison::new(stream, polling).verdict;
        assert_eq!(verdict(&arm(1000, 40.0, 1.0), &arm(29, 1500.0, 20.0)), Verdict::TooFew);
        assert_eq!(verdict(&arm(29, 40.0, 1.0), &arm(1000, 1500.0, 20.0)), Verdict::TooFew);
        assert_eq!(verdict(&arm(30, 40.0, 1.0), &arm(30, 1500.0, 20.0)), Verdict::StreamBetter);
        assert_eq!(verdict(&arm(30, 1500.0, 20.0), &arm(30, 40.0, 1.0)), Verdict::PollingBetter);
        assert_eq!(verdict(&arm(30, 40.0, 20.0), &arm(30, 1500.0, 1.0)), Verdict::Mixed);
        assert_eq!(verdict(&arm(30, 40.0, 1.0), &arm(30, 41.0, 1.0)), Verdict::NoDifference);
        assert_eq!(verdict(&ArmFigures { visits: 30, ..Default::default() }, &arm(30, 41.0, 1.0)), Verdict::TooFew);
        let few = Comparison::new(&arm(29, 40.0, 1.0), &arm(30, 1500.0, 20.0));
        assert!(few.delay_ms.is_some_and(|delay| delay.verdict == Verdict::TooFew && delay.difference.value < 0.0));
    }

    #[test]
    fn savings_are_extrapolated_from_what_was_measured() {
        let stream = ArmFigures {
            requests: RequestTotals { stream: 10, poll: 0, segments: 0 },
            bytes: 5000,
            by_polling: PollingEstimate { requests: 1010.0, bytes: 1_010_000.0, ..PollingEstimate::default() },
            ..ArmFigures::default()
        };
        let prices = Prices { per_million_requests: Some(0.5), per_gb: Some(0.1) };
        let savings = Savings::new(&stream, 86_400.0, prices);
        assert_eq!(savings.requests_per_month, Some(30_000.0));
        let bytes = 1_010_000.0 - 5000.0 - 10.0 * HEADER_BYTES as f64;
        assert_eq!((savings.bytes, savings.bytes_per_month), (bytes, Some(bytes * 30.0)));
        assert_eq!(savings.money_per_month, Some(0.03 * 0.5 + bytes * 30.0 / 1e9 * 0.1));
        assert_eq!(Savings::new(&stream, 86_400.0, Prices::default()).money_per_month, None);
        assert_eq!(Savings::new(&stream, 0.0, prices).money_per_month, None);
        let one = Savings::new(&stream, 86_400.0, Prices { per_gb: None, ..prices });
        assert_eq!(one.money_per_month, Some(0.03 * 0.5));
    }

    #[test]
    fn one_failure_is_no_outage() {
        let point = |connects, failures, completed, failed, p95_ms| Point {
            minutes: 60,
            stream: ArmPoint { connects, failures, p95_ms, ..ArmPoint::default() },
            completed,
            failed,
            ..Point::default()
        };
        assert_eq!(Point::default().health(), Health::Unknown);
        assert_eq!(point(3, 1, 2, 1, Some(500.0)).health(), Health::Healthy);
        assert_eq!(point(100, 2, 10, 0, None).health(), Health::Warning);
        assert_eq!(point(39, 2, 10, 0, None).health(), Health::Critical);
        assert_eq!(point(0, 0, 38, 2, None).health(), Health::Healthy);
        assert_eq!(point(0, 0, 37, 2, None).health(), Health::Warning);
        assert_eq!(point(0, 0, 17, 2, None).health(), Health::Critical);
        assert_eq!(point(10, 0, 10, 0, Some(501.0)).health(), Health::Warning);
    }

    #[test]
    fn promises_are_kept_or_not() {
        assert!(PromiseKind::Delay.is_met_by(99.0) && !PromiseKind::Delay.is_met_by(101.0));
        assert!(PromiseKind::Uptime.is_met_by(0.995) && !PromiseKind::Uptime.is_met_by(0.99));
        assert!(PromiseKind::Stuck.is_met_by(0.0) && !PromiseKind::Stuck.is_met_by(1.0));
        let mut period = Period::default();
        assert_eq!(PromiseKind::Stuck.of(&period), (None, None), "nobody was there to see it");
        period.server.minutes = 1;
        assert_eq!(PromiseKind::Stuck.of(&period), (Some(0.0), None));
    }
}
