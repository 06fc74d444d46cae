//! What it costs that Hark measures itself: the same load on two servers in turn, of which one has `HARK_MONITORING=false`. The
//! other one is scraped, as Prometheus does it. Called by `main` with `--monitoring`.

use crate::{
    Args, Scenario,
    client::Load,
    peer::{Kind, Server},
};
use load::Connection;
use std::{convert::Infallible, net::SocketAddr, time::Duration};

/// How often Prometheus scrapes if nobody sets another interval.
const SCRAPE_INTERVAL: Duration = Duration::from_secs(15);
/// The time in which memory settles once all streams are connected, and in which closed ones are counted.
const PAUSE: Duration = Duration::from_secs(2);

/// One run.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// Processor seconds while the streams connect, while changes are published, and while the streams close.
    connect: f64,
    changes: f64,
    close: f64,
    /// Resident memory per stream, in bytes: when all are connected, and after the changes.
    connected: f64,
    after: f64,
    delivered: f64,
    /// The 99th percentile of the delay, in milliseconds.
    p99: f64,
}

impl Run {
    fn all(&self) -> f64 {
        self.connect + self.changes + self.close
    }
}

/// Runs each scenario in pairs, and returns a table for each.
pub async fn compare(args: &Args) -> Result<String, String> {
    let mut text = String::new();
    for name in &args.scenarios {
        let scenario = Scenario::named(name, args).ok_or_else(|| format!("there is no scenario '{name}'"))?;
        let mut pairs = Vec::new();
        for n in 0..args.repeat {
            // Each is the first as often as the other.
            let first = n % 2 == 0;
            let one = run(first, &scenario, args).await?;
            let other = run(!first, &scenario, args).await?;
            let pair = if first { (other, one) } else { (one, other) };
            eprintln!("{name} {}: off {:?}\n  on {:?}", n + 1, pair.0, pair.1);
            pairs.push(pair);
        }
        text += &table(&scenario, &pairs);
    }
    Ok(text)
}

async fn run(is_on: bool, scenario: &Scenario, args: &Args) -> Result<Run, String> {
    let value = if is_on { "true" } else { "false" };
    let server = Server::start(Kind::Hark, args, &["--monitoring", value]).await?;
    let mut load = Load::prepare(&server, scenario.clone()).await?;
    let (idle, before) = (server.memory(), server.exact_cpu_seconds());
    load.connect().await?;
    tokio::time::sleep(PAUSE).await;
    let (connected, cpu_connected) = (server.memory(), server.exact_cpu_seconds());
    let outcome = tokio::select! {
        outcome = load.run() => outcome?,
        Err(error) = scrape(server.addr), if is_on => return Err(error),
    };
    let (after, cpu_after) = (server.memory(), server.exact_cpu_seconds());
    drop(load);
    tokio::time::sleep(PAUSE).await;
    let each = |memory: f64| (memory - idle) / scenario.streams as f64;
    Ok(Run {
        connect: cpu_connected - before,
        changes: cpu_after - cpu_connected,
        close: server.exact_cpu_seconds() - cpu_after,
        connected: each(connected),
        after: each(after),
        delivered: outcome.delivered as f64,
        p99: outcome.latency[1] as f64 / 1e6,
    })
}

/// Asks for the metrics again and again, until that fails.
async fn scrape(addr: SocketAddr) -> Result<Infallible, String> {
    let mut connection = Connection::open(addr).await?;
    loop {
        connection.request(&format!("GET /metrics HTTP/1.1\r\nHost: {addr}\r\n\r\n")).await?;
        tokio::time::sleep(SCRAPE_INTERVAL).await;
    }
}

fn table(scenario: &Scenario, pairs: &[(Run, Run)]) -> String {
    let mut text = format!(
        "\n### {}: {} streams on {} sessions, {} changes/s for {} s, {} pairs of runs\n\n",
        scenario.name,
        scenario.streams,
        scenario.sessions,
        scenario.rate,
        scenario.duration.as_secs(),
        pairs.len()
    );
    text += "| | off | on | on compared with off: median of the pairs, least and most |\n| --- | ---: | ---: | --- |\n";
    type Figure = fn(&Run) -> f64;
    let ratios: [(&str, Figure, usize); 6] = [
        ("CPU s, streams connect", |run| run.connect, 3),
        ("CPU s, changes", |run| run.changes, 3),
        ("CPU s, streams close", |run| run.close, 3),
        ("CPU s, all", Run::all, 3),
        ("CPU s per million deliveries", |run| run.changes / run.delivered.max(1.0) * 1e6, 2),
        ("p99 of the delay, ms", |run| run.p99, 2),
    ];
    for (name, figure, digits) in ratios {
        let [least, median, most] = spread(pairs.iter().map(|(off, on)| (figure(on) / figure(off) - 1.0) * 100.0));
        let [off, on] = medians(pairs, figure);
        text += &format!("| {name} | {off:.digits$} | {on:.digits$} | {median:+.1}% ({least:+.1}% to {most:+.1}%) |\n");
    }
    let bytes: [(&str, Figure); 2] =
        [("bytes/stream, connected", |run| run.connected), ("bytes/stream, after the changes", |run| run.after)];
    for (name, figure) in bytes {
        let [least, median, most] = spread(pairs.iter().map(|(off, on)| figure(on) - figure(off)));
        let [off, on] = medians(pairs, figure);
        text += &format!("| {name} | {off:.0} | {on:.0} | {median:+.0} ({least:+.0} to {most:+.0}) |\n");
    }
    let seconds = scenario.duration.as_secs_f64();
    let [least, median, most] = spread(pairs.iter().map(|(off, on)| (on.changes - off.changes) / seconds * 100.0));
    text += &format!("\nOf a processor, while changes are published: {median:+.2}% ({least:+.2}% to {most:+.2}%).\n");
    text
}

/// The medians without and with monitoring.
fn medians(pairs: &[(Run, Run)], figure: fn(&Run) -> f64) -> [f64; 2] {
    let off = spread(pairs.iter().map(|(off, _)| figure(off)));
    let on = spread(pairs.iter().map(|(_, on)| figure(on)));
    [off[1], on[1]]
}

/// The least, the median and the most.
fn spread(values: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let median = if values.len() % 2 == 0 { (values[middle - 1] + values[middle]) / 2.0 } else { values[middle] };
    [values[0], median, values[values.len() - 1]]
}
