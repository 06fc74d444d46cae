//! Recommendations to operators: what the figures give reason to change, with the evidence and the exact setting. Pure. The
//! dashboard shows them.

use super::{
    figures::Figures,
    load::{NodeInfo, Overview},
    page::ModelsInfo,
    text::{count, decimal, duration, speed},
};
use serde::{Deserialize, Serialize};

/// Fewer failures than this may be chance.
const MIN_FAILURES: u64 = 5;
/// The share of streams that must fail in a way before it is taken for a fault of the deployment.
const FAILURE_SHARE: f64 = 0.05;
/// The share of files that may be open before connections are refused soon.
const FILES_SHARE: f64 = 0.8;
/// A queue in which somebody waits longer than this is too slow, in seconds.
const LONG_WAIT_SECS: f64 = 600.0;
/// So much audio must have been transcribed before its speed says something, in seconds.
const MIN_AUDIO_SECS: f64 = 600.0;
/// Redis is expected to fail less often than this in an hour.
const REDIS_ERRORS_PER_HOUR: f64 = 6.0;
/// A model with so many times the speed of another one is clearly faster.
const CLEARLY: f32 = 1.2;
/// The limit on open files that serves 20,000 streams and everything else.
const FILES: u64 = 65_536;

/// Something to change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct Advice {
    /// For programs: `buffering`, `cut_off`, `files`, `workers`, `slow_model`, `redis`.
    pub kind: String,
    pub title: String,
    /// What was measured.
    pub evidence: String,
    /// What to do about it.
    pub change: String,
    /// The setting, as it is written into a file or typed.
    pub setting: String,
}

impl Advice {
    fn new(kind: &str, title: &str, evidence: String, change: &str, setting: String) -> Self {
        let [kind, title, change] = [kind, title, change].map(str::to_owned);
        Self { kind, title, evidence, change, setting }
    }
}

/// What the figures of a range, the counts of this moment and the nodes give reason to change; the most urgent first.
/// `models`: those of the node that asks. `redis_errors_per_hour`: how often it had no answer from Redis, none without Redis.
#[must_use]
pub fn advice(
    figures: &Figures,
    now: &Overview,
    nodes: &[NodeInfo],
    models: &ModelsInfo,
    redis_errors_per_hour: Option<f64>,
) -> Vec<Advice> {
    let rules = [
        files(nodes),
        buffering(figures),
        cut_off(figures),
        redis(redis_errors_per_hour),
        workers(now, nodes),
        slow_model(figures, models),
    ];
    rules.into_iter().flatten().collect()
}

/// How many streams failed in one of these ways.
fn failed(figures: &Figures, kinds: &[&str]) -> u64 {
    let failures = figures.current.stream.failures.iter();
    failures.filter(|failure| kinds.contains(&failure.kind.as_str())).map(|failure| failure.count).sum()
}

/// Whether so many of the opened streams are more than chance and single bad networks explain.
fn is_common(failed: u64, figures: &Figures) -> bool {
    failed >= MIN_FAILURES && failed as f64 > FAILURE_SHARE * figures.current.stream.connects as f64
}

fn files(nodes: &[NodeInfo]) -> Option<Advice> {
    nodes.iter().filter(|node| node.is_live).find_map(|node| {
        let load = node.load.as_ref()?;
        let (open, max) = (load.files?, load.max_files?);
        (open as f64 > FILES_SHARE * max as f64).then(|| {
            Advice::new(
                "files",
                "Hark may open too few files",
                format!(
                    "{open} of {max} files are open on {}. Each connection is one; the next ones will be refused.",
                    node.name
                ),
                "Raise the limit where Hark is started: with systemd in the unit's section [Service], otherwise with ulimit.",
                format!("LimitNOFILE={0}\n# or, in the shell that starts Hark:\nulimit -n {0}", FILES.max(max * 2)),
            )
        })
    })
}

fn buffering(figures: &Figures) -> Option<Advice> {
    let stream = &figures.current.stream;
    let buffered = failed(figures, &["buffered"]);
    // Polling works, so it isn't the server or the network.
    (is_common(buffered, figures) && stream.times.polling > 0).then(|| {
        Advice::new(
            "buffering",
            "A proxy holds events back",
            format!(
                "Of {} nothing came within the first seconds, of {} opened; polling worked for the same pages.",
                count(buffered as usize, "stream"),
                stream.connects
            ),
            "Switch off buffering and compression of event streams in the proxy in front of Hark, then look from outside \
             whether events get through.",
            "proxy_buffering off;   # nginx, in the location of /api/v1/\nhark doctor https://your.address".to_owned(),
        )
    })
}

fn cut_off(figures: &Figures) -> Option<Advice> {
    let cut = failed(figures, &["error", "silent"]);
    is_common(cut, figures).then(|| {
        Advice::new(
            "cut_off",
            "Something cuts streams off",
            format!(
                "{} broke off or fell silent although the server hadn't ended them, of {} opened.",
                count(cut as usize, "stream"),
                figures.current.stream.connects
            ),
            "Hark sends a heartbeat every 15 seconds. Let the proxy wait longer than that for the next bytes, and for as long \
             as a stream lives.",
            "proxy_read_timeout 60s;   # nginx, in the location of /api/v1/\nhark doctor https://your.address".to_owned(),
        )
    })
}

fn redis(errors_per_hour: Option<f64>) -> Option<Advice> {
    let errors = errors_per_hour.filter(|errors| *errors >= REDIS_ERRORS_PER_HOUR)?;
    Some(Advice::new(
        "redis",
        "Redis comes and goes",
        format!("Redis failed to answer {} times an hour.", decimal(errors, 0)),
        "Changes of other nodes come up to a second late meanwhile. Look at Redis' own log and at the network between; \
         Hark stores nothing there, so it needs very little memory.",
        "redis-cli --latency-history\nredis-cli info clients".to_owned(),
    ))
}

fn workers(now: &Overview, nodes: &[NodeInfo]) -> Option<Advice> {
    let wait = now.oldest_queued_secs.filter(|wait| *wait > LONG_WAIT_SECS)?;
    // Those that wait for an engine or a model would wait with more workers too.
    if now.queued <= now.waiting_for_worker || now.processing < u64::from(now.workers) {
        return None;
    }
    let evidence = format!(
        "In the queue: {}, the first for {}. Busy workers: {} of {}.",
        count(now.queued as usize, "session"),
        duration(wait),
        now.processing,
        now.workers
    );
    let spare = nodes.iter().filter(|node| node.is_live && node.workers > 0);
    let spare =
        spare.filter_map(|node| Some((node, node.load.as_ref()?.cpus))).find(|(node, cpus)| *cpus > node.workers);
    Some(match spare {
        Some((node, cpus)) => Advice::new(
            "workers",
            "More sessions could run at once",
            format!("{evidence} {} has {cpus} processors and {}.", node.name, count(node.workers as usize, "worker")),
            "Let that machine transcribe more at once. Each worker needs the memory of one speech model.",
            format!("HARK_WORKERS={}", node.workers + 1),
        ),
        None => Advice::new(
            "workers",
            "More machines are needed",
            evidence,
            "Each processor has a worker. Let another machine transcribe for the same database.",
            "hark worker   # with the same DATABASE_URL and REDIS_URL".to_owned(),
        ),
    })
}

fn slow_model(figures: &Figures, models: &ModelsInfo) -> Option<Advice> {
    let sessions = &figures.current.sessions;
    let measured = sessions.speed.filter(|_| sessions.audio_secs >= MIN_AUDIO_SECS)?;
    (measured < 1.0).then(|| {
        let evidence = format!(
            "Transcribing {} took {}, which is {} of real time.",
            duration(sessions.audio_secs),
            duration(sessions.work_secs),
            if measured < 0.1 { decimal(measured, 2) + "x" } else { speed(measured) }
        );
        let (change, setting) = match faster_model(models) {
            Some(name) => (
                "Choose a smaller model; the page of speech models says how fast each is.",
                format!("hark model get {name}\nHARK_WHISPER_MODEL={name}"),
            ),
            None => (
                "Choose a smaller model if there is one; this lists those that Hark knows, with their speed. Otherwise let a \
                 faster machine transcribe for the same database.",
                "hark model list".to_owned(),
            ),
        };
        Advice::new("slow_model", "The speech model is too slow for this machine", evidence, change, setting)
    })
}

/// Of the models that are clearly faster than the one in use and know as many languages, the best one, which is the slowest.
/// None if there is none, or the one in use is a file of the operator's own.
fn faster_model(models: &ModelsInfo) -> Option<&str> {
    let used = models.models.iter().find(|model| model.in_use)?;
    let (speed, languages) = (used.speed?, used.languages?);
    let faster = models.models.iter().filter(|model| model.languages.is_some_and(|known| known >= languages));
    let faster = faster.filter_map(|model| Some((model.speed?, model))).filter(|(other, _)| *other > CLEARLY * speed);
    faster.min_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, model)| model.name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ModelInfo, Timestamp, figures::FailureCount, load::NodeLoad};

    fn kinds(figures: &Figures, now: &Overview, nodes: &[NodeInfo]) -> Vec<String> {
        advice(figures, now, nodes, &ModelsInfo::default(), None).into_iter().map(|advice| advice.kind).collect()
    }

    fn failing(kind: &str, count: u64, connects: u64) -> Figures {
        let mut figures = Figures::default();
        figures.current.stream.connects = connects;
        figures.current.stream.times.polling = 60_000;
        let browser = "firefox".to_owned();
        figures.current.stream.failures = vec![FailureCount { kind: kind.to_owned(), browser, count }];
        figures
    }

    fn node(workers: u32, load: NodeLoad) -> NodeInfo {
        NodeInfo {
            name: "one".to_owned(),
            role: "serve".to_owned(),
            version: "1".to_owned(),
            is_live: true,
            workers,
            running: 0,
            engines: Vec::new(),
            clock_ahead_ms: None,
            problem: None,
            started_at: Timestamp(0),
            heartbeat_at: Timestamp(0),
            load: Some(load),
        }
    }

    #[test]
    fn nothing_measured_gives_no_reason_for_advice() {
        let nodes = [node(1, NodeLoad::default())];
        assert!(
            advice(&Figures::default(), &Overview::default(), &nodes, &ModelsInfo::default(), Some(0.0)).is_empty()
        );
    }

    #[test]
    fn failures_of_streams_point_to_the_proxy_if_they_are_common() {
        let kinds = |figures: &Figures| kinds(figures, &Overview::default(), &[]);
        assert_eq!(kinds(&failing("buffered", 5, 20)), ["buffering"]);
        assert_eq!(kinds(&failing("silent", 30, 100)), ["cut_off"]);
        assert_eq!(kinds(&failing("error", 30, 100)), ["cut_off"]);
        assert_eq!(kinds(&failing("buffered", 4, 4)), [""; 0], "few may be chance");
        assert_eq!(kinds(&failing("silent", 5, 100)), [""; 0], "one in twenty is a bad network");
        assert_eq!(kinds(&failing("limit", 50, 100)), [""; 0]);
        let mut unreachable = failing("buffered", 50, 100);
        unreachable.current.stream.times.polling = 0;
        assert_eq!(kinds(&unreachable), [""; 0], "polling didn't work either");
    }

    #[test]
    fn a_long_queue_asks_for_workers_where_there_are_processors() {
        let busy =
            Overview { queued: 7, oldest_queued_secs: Some(1200.0), processing: 2, workers: 2, ..Overview::default() };
        let of = |now: &Overview, cpus| {
            let nodes = [node(2, NodeLoad { cpus, ..NodeLoad::default() })];
            advice(&Figures::default(), now, &nodes, &ModelsInfo::default(), None).into_iter().next()
        };
        let setting = |now: &Overview, cpus| of(now, cpus).unwrap().setting;
        assert_eq!(setting(&busy, 4), "HARK_WORKERS=3");
        assert!(setting(&busy, 2).starts_with("hark worker"));
        assert_eq!(
            of(&busy, 2).unwrap().evidence,
            "In the queue: 7 sessions, the first for 20 min. Busy workers: 2 of 2."
        );
        assert_eq!(of(&Overview { oldest_queued_secs: Some(60.0), ..busy.clone() }, 4), None);
        assert_eq!(of(&Overview { processing: 1, ..busy.clone() }, 4), None, "a worker is free");
        assert_eq!(of(&Overview { waiting_for_worker: 7, ..busy }, 4), None, "they wait for a model");
    }

    #[test]
    fn limits_slow_models_and_redis_are_noticed() {
        let none = (Figures::default(), Overview::default());
        let files = |open| [node(1, NodeLoad { files: Some(open), max_files: Some(1024), ..NodeLoad::default() })];
        assert_eq!(kinds(&none.0, &none.1, &files(850)), ["files"]);
        assert_eq!(kinds(&none.0, &none.1, &files(500)), [""; 0]);
        let redis = |errors| advice(&none.0, &none.1, &[], &ModelsInfo::default(), Some(errors)).len();
        assert_eq!((redis(6.0), redis(5.5)), (1, 0));
        let mut slow = Figures::default();
        (slow.current.sessions.speed, slow.current.sessions.audio_secs) = (Some(0.4), 3600.0);
        assert_eq!(kinds(&slow, &none.1, &[]), ["slow_model"]);
        slow.current.sessions.audio_secs = 60.0;
        assert_eq!(kinds(&slow, &none.1, &[]), [""; 0]);
    }

    #[test]
    fn a_slow_model_is_replaced_by_the_best_of_the_faster_ones() {
        let model = |name: &str, languages, speed| ModelInfo {
            name: name.to_owned(),
            installed: true,
            in_use: false,
            bytes: None,
            memory_bytes: None,
            languages: Some(languages),
            speed: Some(speed),
            download: None,
        };
        let models = vec![
            model("tiny.en", 1, 5.0),
            model("tiny", 99, 4.8),
            model("base", 99, 3.0),
            model("small", 99, 1.0),
            model("small-q5", 99, 1.1),
        ];
        let mut info = ModelsInfo { models, ..ModelsInfo::default() };
        let mut slow = Figures::default();
        (slow.current.sessions.speed, slow.current.sessions.audio_secs) = (Some(0.4), 3600.0);
        let mut setting = |used: usize| {
            (0..).zip(&mut info.models).for_each(|(i, model)| model.in_use = i == used);
            advice(&slow, &Overview::default(), &[], &info, None)[0].setting.clone()
        };
        assert_eq!(setting(3), "hark model get base\nHARK_WHISPER_MODEL=base");
        assert_eq!(setting(2), "hark model get tiny\nHARK_WHISPER_MODEL=tiny", "not one for English alone");
        assert_eq!(setting(0), "hark model list", "nothing is faster");
        assert_eq!(setting(9), "hark model list", "a file of the operator's own");
    }
}
