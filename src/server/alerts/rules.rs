//! The rules of the built-in alerts, the same as in `deploy/prometheus/rules.yml`, and the state machine that says when an
//! alert begins and ends. Pure: figures and times come in, changes come out. Called by `alerts`.

use super::figures::{
    CERTIFICATE, CONNECT, CONNECTS, CPU, CPUS, DATABASE_ERRORS, DATABASE_QUERY, DATABASE_UP, DELIVERY, DISK_FREE,
    DISK_SIZE, EVENTS, FAILURES, FALLBACKS, FIRST_EVENTS, History, LONG_RUNNING, MEMORY, MEMORY_LIMIT, QUEUE_OLDEST,
    REDIS_ERRORS, REDIS_PING, REDIS_UP, REFUSED, REQUESTS, SESSIONS, SILENT_NODES, STALLED, TIMED_OUT, VISITS, WAITING,
};
use crate::{
    model::{bytes, duration},
    server::config::AlertThresholds,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// How long an alert must have been over before it ends, in seconds, so that a value at the threshold doesn't send a
/// message every minute.
const CALM_SECS: f64 = 120.0;
/// A share is taken of at least so many, because one failure of two says nothing.
const LEAST_COUNT: f64 = 10.0;
/// The window of most rules, in seconds.
const WINDOW: f64 = 300.0;
/// For how long an event that shouldn't happen at all is told of, in seconds.
const EVENT_WINDOW: f64 = 900.0;
/// More errors than this of PostgreSQL or Redis within the window are too many.
const MOST_ERRORS: f64 = 5.0;
/// Requests and events a second beyond which a node isn't idle.
const IDLE_REQUESTS: f64 = 10.0;
const IDLE_EVENTS: f64 = 100.0;
/// Over how many hours memory must have grown.
const GROWTH_HOURS: u64 = 5;
/// How many streams there must be for queries to be counted by them, and how many queries a second.
const LEAST_STREAMS: f64 = 10.0;
const LEAST_QUERIES: f64 = 5.0;
/// By how much queries as a whole must have grown since the day before. If only the streams have become fewer, they haven't.
const QUERIES_GROWTH: f64 = 1.5;
const DAY_SECS: f64 = 86_400.0;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Warning,
    Critical,
}

impl Severity {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// Whose figures a rule looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those of all nodes together; one node looks at them for all.
    Cluster,
    /// Those of a node; each looks at its own.
    Node,
}

/// What a rule finds.
enum Found {
    /// There are no figures to tell from, so nothing changes.
    Unknown,
    /// What it looked at.
    Values(Vec<Value>),
}

/// A value that a rule looked at.
struct Value {
    /// Which of several: the error's code, the folder or the node; empty if there is only one.
    detail: String,
    value: f64,
    /// Whether it is beyond the threshold.
    beyond: bool,
}

impl Found {
    fn one(value: Option<f64>, beyond: impl FnOnce(f64) -> bool) -> Self {
        value.map_or(Self::Unknown, |value| {
            Self::Values(vec![Value { detail: String::new(), value, beyond: beyond(value) }])
        })
    }

    /// A value that is there only where something was counted; without it all is well.
    fn share(part: Option<f64>, whole: Option<f64>, beyond: impl FnOnce(f64) -> bool) -> Self {
        let (Some(part), Some(whole)) = (part, whole) else { return Self::Unknown };
        if whole < LEAST_COUNT {
            return Self::Values(Vec::new());
        }
        Self::one(Some(part / whole), beyond)
    }

    fn slow(quantile: Option<(f64, f64)>, least: f64, limit_ms: u32) -> Self {
        let Some((value, count)) = quantile else { return Self::Unknown };
        if count < least {
            return Self::Values(Vec::new());
        }
        Self::one(Some(value), |value| value > f64::from(limit_ms) / 1000.0)
    }
}

/// A rule.
pub struct Rule {
    /// Its name, also in `deploy/prometheus/rules.yml` and `docs/operations.md`.
    pub name: &'static str,
    pub severity: Severity,
    pub scope: Scope,
    /// How long the value must be beyond the threshold before the alert begins, in seconds.
    pub hold_secs: f64,
    look: fn(&History, &AlertThresholds) -> Found,
    /// What it says of a value and its detail.
    say: fn(f64, &str) -> String,
}

impl Rule {
    /// What people are told, without a full stop.
    #[must_use]
    pub fn summary(&self, value: f64, detail: &str) -> String {
        (self.say)(value, detail)
    }

    /// The rule with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        RULES.iter().find(|rule| rule.name == name)
    }
}

fn share_of_percent(percent: f64) -> f64 {
    percent / 100.0
}

fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

fn delay(secs: f64) -> String {
    if secs < 10.0 { format!("{:.0} ms", secs * 1000.0) } else { duration(secs) }
}

/// All rules.
pub static RULES: [Rule; 24] = [
    Rule {
        name: "HarkStreamFailures",
        severity: Severity::Warning,
        scope: Scope::Cluster,
        hold_secs: 300.0,
        look: |h, t| {
            let limit = share_of_percent(t.alert_stream_failures_percent);
            Found::share(h.increase(FAILURES, WINDOW), h.increase(CONNECTS, WINDOW), |share| share > limit)
        },
        say: |value, _| format!("{} of the status streams failed", percent(value)),
    },
    Rule {
        name: "HarkDeliverySlow",
        severity: Severity::Warning,
        scope: Scope::Cluster,
        hold_secs: 180.0,
        look: |h, t| Found::slow(h.quantile(DELIVERY, 0.95, WINDOW), LEAST_COUNT, t.alert_delivery_ms),
        say: |value, _| format!("one update in twenty is later than {}", delay(value)),
    },
    Rule {
        name: "HarkConnectSlow",
        severity: Severity::Warning,
        scope: Scope::Cluster,
        hold_secs: 300.0,
        look: |h, t| Found::slow(h.quantile(CONNECT, 0.95, WINDOW), LEAST_COUNT, t.alert_connect_ms),
        say: |value, _| format!("one stream in twenty takes longer than {} to its first event", delay(value)),
    },
    Rule {
        name: "HarkConnectsFail",
        severity: Severity::Warning,
        scope: Scope::Cluster,
        hold_secs: 120.0,
        look: |h, t| connects(h, t.alert_success_percent),
        say: say_connects,
    },
    Rule {
        name: "HarkManyConnectsFail",
        severity: Severity::Critical,
        scope: Scope::Cluster,
        hold_secs: 300.0,
        look: |h, t| connects(h, t.alert_success_critical_percent),
        say: say_connects,
    },
    Rule {
        name: "HarkFallbacks",
        severity: Severity::Warning,
        scope: Scope::Cluster,
        hold_secs: 600.0,
        look: |h, t| {
            let limit = share_of_percent(t.alert_fallbacks_percent);
            Found::share(h.increase(FALLBACKS, 600.0), h.increase(VISITS, 600.0), |share| share > limit)
        },
        say: |value, _| format!("{} of the visits fell back to polling", percent(value)),
    },
    Rule {
        name: "HarkNewError",
        severity: Severity::Warning,
        scope: Scope::Cluster,
        hold_secs: 0.0,
        look: |h, _| {
            let new = h.new_errors(EVENT_WINDOW).into_iter();
            Found::Values(new.map(|code| Value { detail: code.to_owned(), value: 1.0, beyond: true }).collect())
        },
        say: |_, code| format!("a session failed with the error '{code}', which hadn't been seen before"),
    },
    Rule {
        name: "HarkSessionsStalled",
        severity: Severity::Warning,
        scope: Scope::Cluster,
        hold_secs: 300.0,
        look: |h, _| Found::one(h.value(STALLED), |n| n > 0.0),
        say: |n, _| format!("{n} sessions are stalled"),
    },
    Rule {
        name: "HarkSessionsLongRunning",
        severity: Severity::Warning,
        scope: Scope::Cluster,
        hold_secs: 300.0,
        look: |h, t| Found::one(h.value(LONG_RUNNING), |n| n > f64::from(t.alert_long_running)),
        say: |n, _| format!("{n} sessions take far longer than their recordings should"),
    },
    Rule {
        name: "HarkSessionsTimedOut",
        severity: Severity::Warning,
        scope: Scope::Cluster,
        hold_secs: 0.0,
        look: |h, _| Found::one(h.known_increase(TIMED_OUT, EVENT_WINDOW), |n| n > 0.0),
        say: |_, _| "sessions failed because of a time limit".to_owned(),
    },
    Rule {
        name: "HarkQueueOld",
        severity: Severity::Warning,
        scope: Scope::Cluster,
        hold_secs: 60.0,
        look: |h, t| Found::one(h.value(QUEUE_OLDEST), |age| age > f64::from(t.alert_queue_secs)),
        say: |age, _| format!("the oldest session has waited in the queue for {}", duration(age)),
    },
    Rule {
        name: "HarkNoWorker",
        severity: Severity::Warning,
        scope: Scope::Cluster,
        hold_secs: 300.0,
        look: |h, _| Found::one(h.value(WAITING), |n| n > 0.0),
        say: |n, _| format!("{n} sessions wait for which no worker is there, or none with their engine and language"),
    },
    Rule {
        name: "HarkEngineUnavailable",
        severity: Severity::Warning,
        scope: Scope::Cluster,
        hold_secs: 0.0,
        look: |h, _| Found::one(h.known_increase(REFUSED, WINDOW), |n| n > 0.0),
        say: |_, _| "recordings are refused because their engine isn't available".to_owned(),
    },
    Rule {
        name: "HarkNodeDown",
        severity: Severity::Critical,
        scope: Scope::Cluster,
        hold_secs: 120.0,
        look: |h, _| {
            let silent = h.values(SILENT_NODES).into_iter();
            Found::Values(
                silent.map(|(name, secs)| Value { detail: name.to_owned(), value: secs, beyond: true }).collect(),
            )
        },
        say: |_, node| format!("the node {node} doesn't answer any more"),
    },
    Rule {
        name: "HarkRedisFailing",
        severity: Severity::Warning,
        scope: Scope::Node,
        hold_secs: 60.0,
        look: |h, _| failing(h.value(REDIS_UP), h.increase(REDIS_ERRORS, WINDOW)),
        say: |_, _| "Redis doesn't answer, or answers with errors".to_owned(),
    },
    Rule {
        name: "HarkRedisSlow",
        severity: Severity::Warning,
        scope: Scope::Node,
        hold_secs: 300.0,
        look: |h, t| Found::slow(h.quantile(REDIS_PING, 0.95, WINDOW), 1.0, t.alert_redis_ms),
        say: |value, _| format!("one answer of Redis in twenty takes longer than {}", delay(value)),
    },
    Rule {
        name: DATABASE_FAILING,
        severity: Severity::Critical,
        scope: Scope::Node,
        hold_secs: 60.0,
        look: |h, _| failing(h.value(DATABASE_UP), h.increase(DATABASE_ERRORS, WINDOW)),
        say: |_, _| "the database doesn't answer, or answers with errors".to_owned(),
    },
    Rule {
        name: "HarkDatabaseSlow",
        severity: Severity::Warning,
        scope: Scope::Node,
        hold_secs: 300.0,
        look: |h, t| Found::slow(h.quantile(DATABASE_QUERY, 0.95, WINDOW), LEAST_COUNT, t.alert_database_ms),
        say: |value, _| format!("one query in twenty takes longer than {}", delay(value)),
    },
    Rule {
        name: "HarkQueriesPerStream",
        severity: Severity::Warning,
        scope: Scope::Cluster,
        hold_secs: 1800.0,
        look: queries_per_stream,
        say: |value, _| {
            format!("the database is asked {value:.2} times a second for each stream, twice as often as yesterday")
        },
    },
    Rule {
        name: "HarkMemoryHigh",
        severity: Severity::Critical,
        scope: Scope::Node,
        hold_secs: 300.0,
        look: |h, t| {
            let share = h.value(MEMORY_LIMIT).filter(|limit| *limit > 0.0).zip(h.value(MEMORY));
            let limit = share_of_percent(t.alert_memory_percent);
            Found::one(share.map(|(limit, used)| used / limit), |share| share > limit)
        },
        say: |value, _| format!("Hark uses {} of the memory it may have", percent(value)),
    },
    Rule {
        name: "HarkMemoryGrows",
        severity: Severity::Warning,
        scope: Scope::Node,
        hold_secs: 1800.0,
        look: |h, t| Found::one(h.memory_growth(GROWTH_HOURS), |growth| growth > t.alert_memory_growth_bytes as f64),
        say: |value, _| format!("the memory of Hark grows by {} an hour", bytes(value.max(0.0) as u64)),
    },
    Rule {
        name: "HarkCpuBusy",
        severity: Severity::Warning,
        scope: Scope::Node,
        hold_secs: 600.0,
        look: cpu_without_work,
        say: |value, _| format!("Hark has no work and uses {} of the processors", percent(value)),
    },
    Rule {
        name: "HarkDiskFull",
        severity: Severity::Critical,
        scope: Scope::Node,
        hold_secs: 300.0,
        look: |h, t| {
            let sizes: BTreeMap<&str, f64> = h.values(DISK_SIZE).into_iter().collect();
            let free = h.values(DISK_FREE).into_iter().filter_map(|(folder, free)| {
                let size = sizes.get(folder).copied().filter(|size| *size > 0.0)?;
                let (share, least) = (free / size, share_of_percent(t.alert_disk_percent));
                Some(Value { detail: folder.to_owned(), value: share, beyond: share < least })
            });
            Found::Values(free.collect())
        },
        say: |value, folder| format!("only {} of the disk of {folder} is free", percent(value)),
    },
    Rule {
        name: "HarkCertificateExpires",
        severity: Severity::Warning,
        scope: Scope::Cluster,
        hold_secs: 3600.0,
        look: |h, t| {
            let least = f64::from(t.alert_certificate_days) * DAY_SECS;
            Found::one(h.value(CERTIFICATE), |left| left < least)
        },
        say: |left, _| {
            if left > 0.0 {
                format!("the certificate of HARK_PUBLIC_URL expires in {:.1} days", left / DAY_SECS)
            } else {
                "the certificate of HARK_PUBLIC_URL has expired".to_owned()
            }
        },
    },
];

/// The alert that can't be kept in the database.
pub(super) const DATABASE_FAILING: &str = "HarkDatabaseFailing";

fn connects(h: &History, least_percent: f64) -> Found {
    let least = share_of_percent(least_percent);
    Found::share(h.increase(FIRST_EVENTS, WINDOW), h.increase(CONNECTS, WINDOW), |share| share < least)
}

fn say_connects(value: f64, _: &str) -> String {
    format!("only {} of the streams that pages opened got a first event", percent(value))
}

/// Whether something doesn't answer, or with too many errors. Without Redis there is neither.
fn failing(up: Option<f64>, errors: Option<f64>) -> Found {
    if up.is_none() && errors.is_none() {
        return Found::Unknown;
    }
    let beyond = up == Some(0.0) || errors.is_some_and(|n| n > MOST_ERRORS);
    Found::one(Some(errors.unwrap_or(0.0)), |_| beyond)
}

fn queries_per_stream(h: &History, t: &AlertThresholds) -> Found {
    let (Some((now, streams)), Some((before, streams_before))) = (h.queries(0), h.queries(24)) else {
        return Found::Unknown;
    };
    if streams < LEAST_STREAMS || streams_before < LEAST_STREAMS {
        return Found::Values(Vec::new());
    }
    let more = now / streams > t.alert_queries_factor * before / streams_before;
    Found::one(Some(now / streams), |_| more && now > QUERIES_GROWTH * before && now > LEAST_QUERIES)
}

fn cpu_without_work(h: &History, t: &AlertThresholds) -> Found {
    let per_second = |name| h.increase(name, WINDOW).map(|n| n / WINDOW);
    let (Some(used), Some(requests), Some(events)) = (per_second(CPU), per_second(REQUESTS), per_second(EVENTS)) else {
        return Found::Unknown;
    };
    let Some(cpus) = h.value(CPUS).filter(|cpus| *cpus > 0.0) else { return Found::Unknown };
    let idle = h.greatest(SESSIONS, WINDOW) == Some(0.0) && requests <= IDLE_REQUESTS && events <= IDLE_EVENTS;
    Found::one(Some(used / cpus), |share| idle && share > share_of_percent(t.alert_cpu_percent))
}

/// An alert that begins or ends.
pub struct Change {
    pub rule: &'static Rule,
    /// Which of several; see [`Value::detail`].
    pub detail: String,
    pub value: f64,
    /// Whether it begins.
    pub begins: bool,
}

/// An alert that is known.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// The value is beyond the threshold, not for long enough yet.
    Waiting { since: f64 },
    /// The alert has begun. `calm_since`: when the value came back, if it has.
    Begun { calm_since: Option<f64> },
}

/// The alerts of one scope.
#[derive(Debug)]
pub(super) struct Alerts {
    scope: Scope,
    states: BTreeMap<(&'static str, String), State>,
}

impl Alerts {
    pub(super) fn new(scope: Scope) -> Self {
        Self { scope, states: BTreeMap::new() }
    }

    /// Takes over the alerts that have begun before, as the database has them: by name and detail. Those that this one
    /// takes for begun, and the database doesn't, are forgotten. Rules that this program doesn't know stay as they are.
    pub(super) fn take_over(&mut self, begun: &[(String, String)]) {
        let begun: BTreeSet<(&'static str, String)> = begun
            .iter()
            .filter_map(|(name, detail)| Some((Rule::named(name)?, detail)))
            .filter(|(rule, _)| rule.scope == self.scope)
            .map(|(rule, detail)| (rule.name, detail.clone()))
            .collect();
        self.states.retain(|key, state| {
            key.0 == DATABASE_FAILING || matches!(state, State::Waiting { .. }) || begun.contains(key)
        });
        for key in begun {
            let state = self.states.entry(key).or_insert(State::Begun { calm_since: None });
            if matches!(state, State::Waiting { .. }) {
                *state = State::Begun { calm_since: None };
            }
        }
    }

    /// Takes back a change that could not be stored, so that it comes again.
    pub(super) fn take_back(&mut self, change: &Change) {
        let key = (change.rule.name, change.detail.clone());
        if change.begins {
            self.states.remove(&key);
        } else {
            self.states.insert(key, State::Begun { calm_since: None });
        }
    }

    /// What begins and ends at `now`, by what the history says.
    pub(super) fn check(&mut self, now: f64, history: &History, thresholds: &AlertThresholds) -> Vec<Change> {
        let mut changes = Vec::new();
        for rule in RULES.iter().filter(|rule| rule.scope == self.scope) {
            let Found::Values(mut values) = (rule.look)(history, thresholds) else { continue };
            // An alert whose value is gone is over.
            let gone = self
                .states
                .keys()
                .filter(|(name, detail)| *name == rule.name && values.iter().all(|value| value.detail != *detail));
            let gone: Vec<_> = gone.map(|(_, d)| Value { detail: d.clone(), value: 0.0, beyond: false }).collect();
            values.extend(gone);
            for Value { detail, value, beyond } in values {
                let key = (rule.name, detail.clone());
                let before = self.states.get(&key).copied();
                let after = next(before, beyond, now, rule.hold_secs);
                let has_begun = |state| matches!(state, Some(State::Begun { .. }));
                match after {
                    Some(state) => drop(self.states.insert(key, state)),
                    None => drop(self.states.remove(&key)),
                }
                if has_begun(before) != has_begun(after) {
                    changes.push(Change { rule, detail, value, begins: has_begun(after) });
                }
            }
        }
        changes
    }
}

/// The state that follows.
fn next(before: Option<State>, beyond: bool, now: f64, hold: f64) -> Option<State> {
    match (before, beyond) {
        (None | Some(State::Waiting { .. }), false) => None,
        (None, true) if hold <= 0.0 => Some(State::Begun { calm_since: None }),
        (None, true) => Some(State::Waiting { since: now }),
        (Some(State::Waiting { since }), true) if now - since >= hold => Some(State::Begun { calm_since: None }),
        (Some(State::Waiting { since }), true) => Some(State::Waiting { since }),
        (Some(State::Begun { .. }), true) => Some(State::Begun { calm_since: None }),
        (Some(State::Begun { calm_since: None }), false) => Some(State::Begun { calm_since: Some(now) }),
        (Some(State::Begun { calm_since: Some(since) }), false) if now - since >= CALM_SECS => None,
        (begun, false) => begun,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::Timestamp,
        server::alerts::figures::{Figures, QUERIES, STREAMS},
    };

    /// A node whose metrics are set by a test, and what its alerts say at each quarter of a minute.
    struct World {
        now: f64,
        metrics: BTreeMap<String, f64>,
        history: History,
        alerts: Alerts,
        thresholds: AlertThresholds,
    }

    impl World {
        fn new(scope: Scope) -> Self {
            let (history, alerts) = (History::default(), Alerts::new(scope));
            Self { now: 0.0, metrics: BTreeMap::new(), history, alerts, thresholds: AlertThresholds::default() }
        }

        fn set(&mut self, series: &str, value: f64) -> &mut Self {
            self.metrics.insert(series.to_owned(), value);
            self
        }

        /// Lets so many minutes pass in which the series grow by so much a minute. Returns what began and ended.
        fn run(&mut self, minutes: u32, growth: &[(&str, f64)]) -> Vec<String> {
            let mut said = Vec::new();
            for _ in 0..minutes * 4 {
                self.now += 15.0;
                for (series, by) in growth {
                    *self.metrics.entry((*series).to_owned()).or_default() += by / 4.0;
                }
                let text: String = self.metrics.iter().map(|(series, value)| format!("{series} {value}\n")).collect();
                self.history.push(self.now, Figures::read(&text, Timestamp(0)));
                let changes = self.alerts.check(self.now, &self.history, &self.thresholds);
                said.extend(changes.into_iter().map(|change| {
                    let Change { rule, detail, begins, .. } = change;
                    let detail = if detail.is_empty() { detail } else { format!(" {detail}") };
                    format!("{}{}{detail}", if begins { "+" } else { "-" }, rule.name)
                }));
            }
            said
        }
    }

    const NOTHING: [&str; 0] = [];

    #[test]
    fn an_idle_server_is_quiet() {
        for scope in [Scope::Cluster, Scope::Node] {
            let mut world = World::new(scope);
            for name in super::super::figures::names() {
                world.set(name, 0.0);
            }
            for up in [REDIS_UP, DATABASE_UP, CPUS] {
                world.set(up, 1.0);
            }
            world.set(CERTIFICATE, 90.0 * DAY_SECS);
            assert_eq!(world.run(60, &[]), NOTHING);
        }
    }

    #[test]
    fn failed_streams_are_told_of_once_and_when_it_is_over() {
        let mut world = World::new(Scope::Cluster);
        let (connects, failures) = ("hark_client_connects_total", r#"hark_client_failures_total{kind="error"}"#);
        let first = ("hark_client_first_event_seconds_count", 100.0);
        assert_eq!(world.run(20, &[(connects, 100.0), first, (failures, 1.0)]), NOTHING);
        assert_eq!(world.run(4, &[(connects, 100.0), first, (failures, 3.0)]), NOTHING);
        assert_eq!(world.run(20, &[(connects, 100.0), first, (failures, 3.0)]), ["+HarkStreamFailures"]);
        assert_eq!(world.run(20, &[(connects, 100.0), first]), ["-HarkStreamFailures"]);
        // Too few to tell.
        assert_eq!(
            world.run(20, &[(connects, 1.0), ("hark_client_first_event_seconds_count", 1.0), (failures, 1.0)]),
            NOTHING
        );
    }

    #[test]
    fn late_updates_and_slow_connects() {
        let delivery = |mode: &str, le: &str| {
            format!(r#"hark_client_delivery_seconds_bucket{{arm="stream",mode="{mode}",le="{le}"}}"#)
        };
        let mut world = World::new(Scope::Cluster);
        let [half, one, all] = ["0.5", "1", "+Inf"].map(|le| delivery("live", le));
        let polling = [delivery("polling", "0.5"), delivery("polling", "+Inf")];
        let with = |in_time: f64| {
            vec![(&*half, in_time), (&*one, 100.0), (&*all, 100.0), (&*polling[0], 0.0), (&*polling[1], 100.0)]
        };
        assert_eq!(world.run(20, &with(96.0)), NOTHING);
        assert_eq!(world.run(20, &with(90.0)), ["+HarkDeliverySlow"]);
        assert_eq!(world.run(20, &with(100.0)), ["-HarkDeliverySlow"]);

        let mut world = World::new(Scope::Cluster);
        let connect = |le: &str| format!(r#"hark_stream_connect_seconds_bucket{{le="{le}"}}"#);
        let [half, all] = ["0.5", "+Inf"].map(connect);
        assert_eq!(world.run(20, &[(&half, 96.0), (&all, 100.0)]), NOTHING);
        assert_eq!(world.run(20, &[(&half, 90.0), (&all, 100.0)]), NOTHING, "beyond the last bound nothing is known");
        let mut world = World::new(Scope::Cluster);
        let [half, two, all] = ["0.5", "2", "+Inf"].map(connect);
        assert_eq!(world.run(20, &[(&half, 90.0), (&two, 100.0), (&all, 100.0)]), ["+HarkConnectSlow"]);
    }

    #[test]
    fn connects_that_fail_have_two_thresholds() {
        let mut world = World::new(Scope::Cluster);
        let with =
            |first: f64| [("hark_client_connects_total", 100.0), ("hark_client_first_event_seconds_count", first)];
        assert_eq!(world.run(20, &with(96.0)), NOTHING);
        assert_eq!(world.run(20, &with(93.0)), ["+HarkConnectsFail"]);
        assert_eq!(world.run(20, &with(80.0)), ["+HarkManyConnectsFail"]);
        assert_eq!(world.run(20, &with(100.0)), ["-HarkManyConnectsFail", "-HarkConnectsFail"]);
    }

    #[test]
    fn fallbacks_count_where_streams_are_tried() {
        let mut world = World::new(Scope::Cluster);
        let arm = |what: &str, arm: &str| format!(r#"hark_client_{what}_total{{arm="{arm}"}}"#);
        let (visits, control, fallbacks) =
            (arm("visits", "stream"), arm("visits", "polling"), arm("fallbacks", "stream"));
        let with = |n: f64| vec![(&*visits, 10.0), (&*control, 100.0), (&*fallbacks, n)];
        assert_eq!(world.run(30, &with(1.0)), NOTHING);
        assert_eq!(world.run(30, &with(3.0)), ["+HarkFallbacks"]);
    }

    #[test]
    fn sessions_and_the_queue() {
        let mut world = World::new(Scope::Cluster);
        world.set(STALLED, 1.0);
        assert_eq!(world.run(4, &[]), NOTHING);
        world.set(STALLED, 0.0);
        assert_eq!(world.run(4, &[]), NOTHING, "it lasted less than five minutes");
        world.set(STALLED, 2.0).set(LONG_RUNNING, 3.0).set(QUEUE_OLDEST, 900.0);
        assert_eq!(world.run(10, &[]), ["+HarkSessionsStalled"]);
        world.set(LONG_RUNNING, 4.0).set(QUEUE_OLDEST, 901.0);
        assert_eq!(world.run(10, &[]), ["+HarkQueueOld", "+HarkSessionsLongRunning"]);
        for name in [STALLED, LONG_RUNNING, QUEUE_OLDEST] {
            world.set(name, 0.0);
        }
        assert_eq!(world.run(1, &[]), NOTHING, "it has to stay well for two minutes");
        assert_eq!(world.run(5, &[]), ["-HarkSessionsStalled", "-HarkSessionsLongRunning", "-HarkQueueOld"]);
        world.run(15, &[(TIMED_OUT, 0.0)]);
        world.set(TIMED_OUT, 1.0);
        assert_eq!(world.run(1, &[]), ["+HarkSessionsTimedOut"]);
        assert_eq!(world.run(20, &[]), ["-HarkSessionsTimedOut"]);
        world.history.note_new_error("unreadable", world.now);
        assert_eq!(world.run(1, &[]), ["+HarkNewError unreadable"]);
        assert_eq!(world.run(20, &[]), ["-HarkNewError unreadable"]);
    }

    #[test]
    fn workers_engines_and_nodes_that_are_missing() {
        let mut world = World::new(Scope::Cluster);
        world.set(WAITING, 2.0);
        assert_eq!(world.run(4, &[]), NOTHING);
        assert_eq!(world.run(4, &[]), ["+HarkNoWorker"]);
        world.set(WAITING, 0.0);
        assert_eq!(world.run(4, &[]), ["-HarkNoWorker"]);

        let refused = |reason: &str| format!(r#"hark_uploads_refused_total{{reason="{reason}"}}"#);
        let (engine, size) = (refused("engine_unavailable"), refused("too_large"));
        assert_eq!(world.run(20, &[(&engine, 0.0), (&size, 5.0)]), NOTHING);
        world.set(&engine, 1.0);
        assert_eq!(world.run(1, &[]), ["+HarkEngineUnavailable"]);
        assert_eq!(world.run(10, &[]), ["-HarkEngineUnavailable"]);

        // The database says so, and not the metrics.
        let mut said = Vec::new();
        for minute in 0..20 {
            let mut figures = Figures::default();
            if (5..15).contains(&minute) {
                figures.note_silent_node("worker1", 60.0 * f64::from(minute));
            }
            world.now += 60.0;
            world.history.push(world.now, figures);
            let changes = world.alerts.check(world.now, &world.history, &world.thresholds).into_iter();
            said.extend(
                changes.map(|change| (minute, change.begins, change.rule.summary(change.value, &change.detail))),
            );
        }
        let text = "the node worker1 doesn't answer any more".to_owned();
        assert_eq!(said, [(7, true, text.clone()), (17, false, text)]);
    }

    #[test]
    fn what_nodes_depend_on() {
        let mut world = World::new(Scope::Node);
        world.set(DATABASE_UP, 1.0);
        assert_eq!(world.run(10, &[(DATABASE_ERRORS, 1.0)]), NOTHING);
        world.set(DATABASE_UP, 0.0).set(REDIS_UP, 0.0);
        assert_eq!(world.run(2, &[]), ["+HarkRedisFailing", "+HarkDatabaseFailing"]);
        world.set(DATABASE_UP, 1.0).set(REDIS_UP, 1.0);
        assert_eq!(world.run(10, &[]), ["-HarkRedisFailing", "-HarkDatabaseFailing"]);
        assert_eq!(world.run(10, &[(REDIS_ERRORS, 2.0)]), ["+HarkRedisFailing"]);
        let bucket = |name: &str, le: &str| format!(r#"{name}{{le="{le}"}}"#);
        let slow = [
            (bucket(DATABASE_QUERY, "0.2"), 90.0),
            (bucket(DATABASE_QUERY, "1"), 100.0),
            (bucket(REDIS_PING, "0.1"), 10.0),
            (bucket(REDIS_PING, "1"), 12.0),
        ];
        let slow: Vec<_> = slow.iter().map(|(series, n)| (&**series, *n)).collect();
        assert_eq!(world.run(20, &slow), ["-HarkRedisFailing", "+HarkRedisSlow", "+HarkDatabaseSlow"]);
    }

    #[test]
    fn memory_disks_and_processors() {
        let mut world = World::new(Scope::Node);
        let (free, size) = (r#"hark_disk_free_bytes{folder="data"}"#, r#"hark_disk_size_bytes{folder="data"}"#);
        world.set(MEMORY, 800.0).set(MEMORY_LIMIT, 1000.0).set(free, 100.0).set(size, 1000.0);
        assert_eq!(world.run(10, &[]), NOTHING);
        world.set(MEMORY, 801.0).set(free, 99.0);
        assert_eq!(world.run(10, &[]), ["+HarkMemoryHigh", "+HarkDiskFull data"]);
        world.metrics.remove(free);
        assert_eq!(world.run(10, &[]), ["-HarkDiskFull data"]);

        let mut world = World::new(Scope::Node);
        world.set(MEMORY, 100e6);
        assert_eq!(world.run(7 * 60, &[(MEMORY, 9e6 / 60.0)]), NOTHING);
        assert_eq!(world.run(8 * 60, &[(MEMORY, 12e6 / 60.0)]), ["+HarkMemoryGrows"]);

        let mut world = World::new(Scope::Node);
        let (working, quiet) = (r#"hark_sessions{status="processing"}"#, [(REQUESTS, 60.0), (EVENTS, 600.0)]);
        let with = |cpu: f64| [&quiet[..], &[(CPU, cpu)]].concat();
        world.set(CPUS, 2.0).set(working, 0.0);
        assert_eq!(world.run(20, &with(50.0)), NOTHING);
        assert_eq!(world.run(20, &with(70.0)), ["+HarkCpuBusy"]);
        world.set(working, 1.0);
        assert_eq!(world.run(20, &with(70.0)), ["-HarkCpuBusy"]);
    }

    #[test]
    fn queries_that_grow_faster_than_streams() {
        let mut world = World::new(Scope::Cluster);
        world.set(STREAMS, 100.0);
        assert_eq!(world.run(26 * 60, &[(QUERIES, 600.0)]), NOTHING);
        world.set(STREAMS, 30.0);
        assert_eq!(world.run(120, &[(QUERIES, 600.0)]), NOTHING, "only the streams are fewer");
        world.set(STREAMS, 100.0);
        assert_eq!(world.run(180, &[(QUERIES, 1500.0)]), ["+HarkQueriesPerStream"]);
    }

    #[test]
    fn an_alert_that_was_taken_over_begins_no_second_time_and_ends() {
        let mut world = World::new(Scope::Cluster);
        world
            .alerts
            .take_over(&[("HarkQueueOld".to_owned(), String::new()), ("HarkOfTomorrow".to_owned(), String::new())]);
        world.set(QUEUE_OLDEST, 1000.0);
        assert_eq!(world.run(10, &[]), NOTHING);
        world.set(QUEUE_OLDEST, 0.0);
        assert_eq!(world.run(10, &[]), ["-HarkQueueOld"]);
        // Nothing is known yet of shares: the alert neither ends nor begins again.
        let mut world = World::new(Scope::Cluster);
        world.alerts.take_over(&[("HarkStreamFailures".to_owned(), String::new())]);
        assert_eq!(world.run(3, &[]), NOTHING);
        assert_eq!(world.run(10, &[]), ["-HarkStreamFailures"]);
        // Another node has ended it.
        let mut world = World::new(Scope::Cluster);
        world.set(QUEUE_OLDEST, 1000.0);
        assert_eq!(world.run(5, &[]), ["+HarkQueueOld"]);
        world.alerts.take_over(&[]);
        assert_eq!(world.run(5, &[]), ["+HarkQueueOld"]);
    }
}
