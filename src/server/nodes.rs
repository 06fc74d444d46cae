//! `hark nodes`: lists the nodes of a database with what they can do and what is wrong with them. Called by `main`; `secret`
//! and `alerts` ask which nodes lack a key and which have gone.

use super::{
    manage::{self, StoreArgs},
    print,
    store::{NodeEngine, NodeRow},
};
use crate::model::{
    Timestamp, bytes,
    text::{count, lapse},
};
use clap::Args;
use serde_json::json;
use std::{collections::BTreeMap, process::ExitCode};

/// The exit code if a node has a problem or isn't heard of, for monitoring scripts.
const EXIT_PROBLEM: u8 = 3;
/// By how much the start of a node that was started again may seem to be before the last heartbeat of the one before it, because
/// clocks differ a little.
const START_SLACK_MS: i64 = 2_000;

/// `hark nodes`.
#[derive(Args)]
pub struct NodesArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

/// Lists the nodes.
pub async fn run(args: NodesArgs) -> ExitCode {
    match list(&args).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(EXIT_PROBLEM),
        Err(message) => {
            print::error(format_args!("hark: {message}"));
            ExitCode::FAILURE
        }
    }
}

/// True if all are well.
async fn list(args: &NodesArgs) -> Result<bool, String> {
    let store = args.store.open().await?;
    if !store.is_shared() {
        return Err("an SQLite database has one node; set DATABASE_URL for the nodes of a cluster".to_owned());
    }
    let broken = |e: sqlx::Error| format!("the database doesn't answer: {e}");
    let (nodes, now) = (store.nodes().await.map_err(broken)?, store.now().await.map_err(broken)?);
    store.close().await;
    if args.json {
        nodes.iter().for_each(|node| print::line(as_json(node, now)));
    } else if nodes.is_empty() {
        print::line("no node is running");
    } else {
        print::text(table(&nodes, now));
    }
    Ok(nodes.iter().all(|node| node.is_live(now) && node.shown_problem().is_none()))
}

fn as_json(node: &NodeRow, now: Timestamp) -> serde_json::Value {
    json!({
        "name": node.name,
        "role": node.role,
        "version": node.version,
        "workers": node.workers,
        "running": node.running,
        "engines": node.engines,
        "clock_ahead_ms": node.clock_ahead_ms,
        "problem": node.shown_problem(),
        "load": node.load,
        "started_at": node.started_at,
        "heartbeat_at": node.heartbeat_at,
        "is_live": node.is_live(now),
    })
}

/// The nodes that ended without a word, by name, with the seconds since they were last heard of. One that was started again
/// isn't among them, though what it said before is kept for a while.
#[must_use]
pub fn silent_nodes(nodes: &[NodeRow], now: Timestamp) -> BTreeMap<&str, f64> {
    // A node notes its start by its own clock, and its heartbeats by the database's.
    let started = |node: &NodeRow| node.started_at.0 - node.clock_ahead_ms.unwrap_or(0);
    let mut silent = BTreeMap::new();
    for gone in nodes.iter().filter(|node| !node.is_live(now)) {
        let is_back = |other: &NodeRow| {
            let is_same = other.name == gone.name && other.role == gone.role;
            is_same && other.id != gone.id && started(other) > gone.heartbeat_at.0 - START_SLACK_MS
        };
        if !nodes.iter().any(is_back) {
            let secs: f64 = now.seconds_since(gone.heartbeat_at);
            silent.entry(gone.name.as_str()).and_modify(|known: &mut f64| *known = known.min(secs)).or_insert(secs);
        }
    }
    silent
}

/// The nodes as a table.
fn table(nodes: &[NodeRow], now: Timestamp) -> String {
    let heads =
        ["NODE", "ROLE", "VERSION", "RUNNING", "STREAMS", "CPU", "MEMORY", "CLOCK", "HEARD", "ENGINES", "PROBLEM"];
    manage::columns(heads, nodes.iter().map(|node| row(node, now)))
}

fn row(node: &NodeRow, now: Timestamp) -> [String; 11] {
    let none = || "-".to_owned();
    let running = match node.workers {
        0 => none(),
        workers => format!("{} of {workers}", node.running),
    };
    let clock = node.clock_ahead_ms.map_or_else(none, |ms| format!("{:+.1} s", ms as f64 / 1000.0));
    // What a node that is gone did last tells nothing.
    let load = node.load.as_ref().filter(|_| node.is_live(now));
    let streams = load.filter(|_| node.role == "serve").map_or_else(none, |load| load.streams.to_string());
    let cpu = load.and_then(|load| load.cpu).map_or_else(none, |cpu| format!("{:.0}%", cpu * 100.0));
    let memory = load.and_then(|load| load.memory).map_or_else(none, bytes);
    let ready = node.engines.iter().filter(|engine| engine.is_ready());
    let engines: Vec<String> = ready.map(|NodeEngine { info, .. }| format!("{} ({})", info.id, info.model)).collect();
    let problem = match node.is_live(now) {
        false => "isn't heard of any more".to_owned(),
        true => node.shown_problem().unwrap_or_else(none),
    };
    [
        node.name.clone(),
        node.role.clone(),
        node.version.clone(),
        running,
        streams,
        cpu,
        memory,
        clock,
        format!("{} ago", lapse(now.seconds_since(node.heartbeat_at).max(0.0))),
        if engines.is_empty() || node.workers == 0 { none() } else { engines.join(", ") },
        problem,
    ]
}

/// Names the nodes among these that are running and don't know a key, by its fingerprint.
pub(super) fn without_key(nodes: &[NodeRow], key: &str, now: Timestamp) -> Option<String> {
    let lacking = nodes.iter().filter(|node| node.is_live(now) && !node.cookie_keys.iter().any(|known| known == key));
    let names: Vec<&str> = lacking.map(|node| &*node.name).collect();
    (!names.is_empty()).then(|| format!("{} ({})", count(names.len(), "node"), names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{EngineId, EngineInfo, load::NodeLoad};

    fn node(name: &str) -> NodeRow {
        let info = EngineInfo {
            id: EngineId::Whisper,
            name: "Whisper".to_owned(),
            model: "base".to_owned(),
            available: true,
            reason: None,
            install: None,
            is_default: true,
            languages: None,
        };
        NodeRow {
            id: name.to_owned(),
            name: name.to_owned(),
            role: "worker".to_owned(),
            version: "0.1.0".to_owned(),
            workers: 2,
            running: 1,
            engines: vec![NodeEngine { info, waiting: None, lost: false }],
            cookie_keys: vec!["aa".to_owned()],
            clock_ahead_ms: Some(-40),
            problem: None,
            load: Some(NodeLoad { streams: 12, cpu: Some(0.034), memory: Some(87_000_000), ..NodeLoad::default() }),
            started_at: Timestamp(0),
            heartbeat_at: Timestamp(100_000),
        }
    }

    #[test]
    fn the_table_is_aligned() {
        let web = NodeRow {
            role: "serve".to_owned(),
            load: None,
            workers: 0,
            clock_ahead_ms: None,
            heartbeat_at: Timestamp(60_000),
            ..node("web")
        };
        let serving = NodeRow { role: "serve".to_owned(), ..node("web-b") };
        let ill = NodeRow { problem: Some("this node's disk is full".to_owned()), ..node("worker-b") };
        let text = table(&[web, serving, node("worker-a"), ill], Timestamp(103_000));
        let lines = [
            "NODE      ROLE    VERSION  RUNNING  STREAMS  CPU  MEMORY   CLOCK   HEARD      ENGINES         PROBLEM",
            "web       serve   0.1.0    -        -        -    -        -       43 s ago   -               isn't heard of any more",
            "web-b     serve   0.1.0    1 of 2   12       3%   87.0 MB  -0.0 s  3.0 s ago  whisper (base)  -",
            "worker-a  worker  0.1.0    1 of 2   -        3%   87.0 MB  -0.0 s  3.0 s ago  whisper (base)  -",
            "worker-b  worker  0.1.0    1 of 2   -        3%   87.0 MB  -0.0 s  3.0 s ago  whisper (base)  this node's disk is full",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), lines);
    }

    #[test]
    fn a_node_that_was_started_again_is_not_silent() {
        let gone = || node("a");
        let later = |id: &str, started: i64| NodeRow {
            id: id.to_owned(),
            started_at: Timestamp(started),
            heartbeat_at: Timestamp(130_000),
            ..node("a")
        };
        let silent = |nodes: &[NodeRow]| {
            let found = silent_nodes(nodes, Timestamp(140_000));
            found.into_iter().map(|(name, secs)| (name.to_owned(), secs)).collect::<Vec<_>>()
        };
        let named = [("a".to_owned(), 40.0)];
        assert_eq!(silent(&[gone()]), named);
        assert_eq!(silent(&[NodeRow { heartbeat_at: Timestamp(130_000), ..gone() }]), []);
        assert_eq!(silent(&[gone(), later("again", 103_000)]), []);
        // Its clock is a minute behind the database's.
        let behind = NodeRow { clock_ahead_ms: Some(-60_000), ..later("again", 43_000) };
        assert_eq!(silent(&[gone(), behind]), []);
        // Another one of the same name ran beside it, or does something else.
        assert_eq!(silent(&[gone(), later("other", 50_000)]), named);
        assert_eq!(silent(&[gone(), NodeRow { role: "serve".to_owned(), ..later("web", 103_000) }]), named);
        // The one that was started again is gone as well.
        let again = NodeRow { heartbeat_at: Timestamp(115_000), ..later("again", 103_000) };
        assert_eq!(silent(&[gone(), again]), [("a".to_owned(), 25.0)]);
    }

    #[test]
    fn nodes_that_do_not_know_a_key_are_named() {
        let nodes = [node("a"), NodeRow { cookie_keys: vec!["bb".to_owned(), "aa".to_owned()], ..node("b") }];
        let now = Timestamp(101_000);
        assert_eq!(without_key(&nodes, "aa", now), None);
        assert_eq!(without_key(&nodes, "bb", now), Some("1 node (a)".to_owned()));
        // One that is gone needs to know nothing.
        assert_eq!(without_key(&nodes, "bb", Timestamp(200_000)), None);
    }
}
