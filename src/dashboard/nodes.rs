//! The nodes and what each does: the node itself, its engines, its workers, and what it depends on.

use super::{overview::percent, scale::millis};
use crate::model::{
    Timestamp,
    load::{NodeEngineInfo, NodeInfo, NodeLoad, WorkerLoad},
    text::{self, bytes, count, lapse},
};
use leptos::prelude::*;

/// The page. `now`: the time by the clock that the heartbeats are written by.
#[component]
pub fn Nodes(nodes: Vec<NodeInfo>, now: Timestamp) -> impl IntoView {
    let live = nodes.iter().filter(|node| node.is_live).count();
    let problems = nodes.iter().filter(|node| node.problem.is_some() || !node.is_live).count();
    let summary = match problems {
        0 => format!("{} running, all well.", count(live, "node")),
        n => format!("{} running, {n} with a problem.", count(live, "node")),
    };
    let cards = nodes.into_iter().map(|node| view! { <Node node now/> }).collect_view();
    view! {
        <div class="page-head"><h1>"Nodes and workers"</h1></div>
        <p class="muted" id="nodes-summary" data-live="">{summary}</p>
        <div class="nodes" id="nodes" data-live="">{cards}</div>
    }
}

/// A name and a value, in a list of them.
fn fact(name: &'static str, value: String) -> impl IntoView {
    view! { <div><dt>{name}</dt><dd>{value}</dd></div> }
}

fn unknown() -> String {
    "unknown".to_owned()
}

#[component]
fn Node(node: NodeInfo, now: Timestamp) -> impl IntoView {
    let (state, word) = match (node.is_live, &node.problem) {
        (false, _) => ("failed", "not heard of"),
        (true, Some(_)) => ("failed", "has a problem"),
        (true, None) => ("completed", "running"),
    };
    let (name, shown) = (node.name.clone(), node.name.clone());
    let role = if node.role == "serve" { "serves pages and streams" } else { "only transcribes" };
    let heard = format!("{} ago", lapse(now.seconds_since(node.heartbeat_at).max(0.0)));
    let clock = node.clock_ahead_ms.map_or_else(unknown, |ms| format!("{:+.1} s", ms as f64 / 1000.0));
    let busy = format!("{} of {}", node.running, node.workers);
    let load = node.load.clone().map(|load| view! { <Load load/> });
    let work = node.load.map(|load| load.work).unwrap_or_default();
    let engines = node.engines.into_iter().map(|engine| view! { <Engine engine/> }).collect_view();
    view! {
        <section class="card node" data-testid="node" data-name=name>
            <div class="node-head">
                <h2>{node.name}</h2>
                <span class="chip" data-state=state>{word}</span>
            </div>
            {node.problem.map(|problem| view! { <p class="problem">{problem}</p> })}
            <dl class="facts-list">
                {fact("Role", role.to_owned())}
                {fact("Version", node.version)}
                {fact("Last heartbeat", heard)}
                {fact("Since", text::date_time(node.started_at))}
                {fact("Workers busy", busy)}
                {fact("Clock ahead of the database", clock)}
                {load}
            </dl>
            <h3>"Engines"</h3>
            <ul class="engines">{engines}</ul>
            <Work work node=shown now/>
        </section>
    }
}

#[component]
fn Load(load: NodeLoad) -> impl IntoView {
    let of = |part: Option<u64>, all: Option<u64>, text: fn(u64) -> String| match (part, all) {
        (Some(part), Some(all)) => format!("{} of {}", text(part), text(all)),
        (Some(part), None) => text(part),
        (None, _) => unknown(),
    };
    let plain = |n: u64| n.to_string();
    let cpu =
        load.cpu.map_or_else(unknown, |cpu| format!("{} of {}", percent(cpu), count(load.cpus as usize, "processor")));
    let bus = match load.bus {
        Some(true) => "answers",
        Some(false) => "doesn't answer: changes of other nodes come up to a second late",
        None => "not used",
    };
    view! {
        {fact("Streams open", of(Some(load.streams), Some(load.max_streams), plain))}
        {fact("Events each second", super::scale::short(load.events_per_sec))}
        {fact("Processor, without engines", cpu)}
        {fact("Memory", of(load.memory, load.memory_limit, bytes))}
        {fact("Open files", of(load.files, load.max_files, plain))}
        {fact("Uploads under way", load.uploads.to_string())}
        {fact("Redis", bus.to_owned())}
        {fact("Database answers within", load.database_ms.map_or_else(unknown, millis))}
        {fact("Disk free", load.disk_free.map_or_else(unknown, bytes))}
    }
}

#[component]
fn Engine(engine: NodeEngineInfo) -> impl IntoView {
    let info = engine.info;
    let (state, why) = match (info.available, engine.waiting.or(info.reason)) {
        (true, None) => ("ready", None),
        (true, why) => ("not ready yet", why),
        (false, why) => ("can't be used", why),
    };
    view! {
        <li>
            <strong>{info.name}</strong>
            {if info.model.is_empty() { format!(": {state}") } else { format!(" ({}): {state}", info.model) }}
            {why.map(|why| view! { <span class="muted">" "{why}</span> })}
        </li>
    }
}

/// What the workers of a node do.
#[component]
fn Work(work: Vec<WorkerLoad>, node: String, now: Timestamp) -> impl IntoView {
    if work.is_empty() {
        return view! { <p class="muted">"No session is being transcribed here."</p> }.into_any();
    }
    let rows = work.into_iter().map(|work| {
        let stage = work.stage.map_or_else(|| "starting".to_owned(), |stage| stage.as_str().replace('_', " "));
        let progress = work.progress.map_or_else(|| "–".to_owned(), text::percentage);
        let speed = work.speed.map_or_else(|| "–".to_owned(), text::speed);
        view! {
            <tr>
                <th scope="row"><code>{work.session.to_string()}</code></th>
                <td>{work.engine.label()}</td>
                <td>{stage}</td>
                <td>{progress}</td>
                <td>{speed}</td>
                <td>{text::duration(now.seconds_since(work.since).max(0.0))}</td>
            </tr>
        }
    });
    let rows = rows.collect_view();
    view! {
        <h3>"Sessions being transcribed"</h3>
        <div class="scroll" tabindex="0" role="region" aria-label=format!("Sessions being transcribed on {node}")>
            <table class="numbers">
                <thead><tr>
                    <th scope="col">"Session"</th>
                    <th scope="col">"Engine"</th>
                    <th scope="col">"Stage"</th>
                    <th scope="col">"Progress"</th>
                    <th scope="col">"Speed"</th>
                    <th scope="col">"For"</th>
                </tr></thead>
                <tbody>{rows}</tbody>
            </table>
        </div>
    }
    .into_any()
}
