//! The samples and what they come to: the table, and whether every limit was kept.

use crate::{clients::Totals, server::Usage};
use std::time::Duration;

/// Samples of the first minutes don't count: caches fill, and after 20 minutes the first sessions end.
pub const WARM_UP: Duration = Duration::from_secs(25 * 60);
/// By how much the memory may grow after that, and by how much two samples may differ, in bytes.
const MEMORY_LIMIT: f64 = 1024.0 * 1024.0;
/// The least share of time with an open stream.
const UPTIME_LIMIT: f64 = 0.999;

/// What the server used at a time, and what the clients had counted by then.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Since the clients were started.
    pub at: Duration,
    pub usage: Usage,
    pub open: i64,
    pub opened: u64,
    pub delivered: u64,
}

impl Sample {
    /// The first line of the file of samples.
    pub const HEADER: &str =
        "seconds,memory_bytes,files_bytes,descriptors,sockets,threads,cpu_seconds,open_streams,opened_streams,delivered\n";

    pub fn line(&self) -> String {
        let Self { at, usage, open, opened, delivered } = self;
        let Usage { memory, files, descriptors, sockets, threads, cpu } = usage;
        format!(
            "{:.1},{memory},{files},{descriptors},{sockets},{threads},{cpu:.2},{open},{opened},{delivered}\n",
            at.as_secs_f64()
        )
    }
}

/// Everything that was measured.
pub struct Outcome<'a> {
    pub samples: &'a [Sample],
    /// Before the first stream was opened, and after the last one was closed.
    pub before: Usage,
    pub after: Usage,
    pub totals: &'a Totals,
    /// The changes and segments that the server has confirmed.
    pub reported: u64,
    /// The clients that didn't know everything in the end.
    pub behind: usize,
    /// Whether the server ended without an error when it was asked to.
    pub stopped: bool,
    /// The processor time that the clients used, in seconds.
    pub own_cpu: f64,
}

/// The growth over these samples by least squares, and the difference of the highest and the lowest, in bytes.
fn memory(samples: &[&Sample]) -> (f64, f64) {
    let points = samples.iter().map(|sample| (sample.at.as_secs_f64(), sample.usage.memory as f64));
    let count = samples.len().max(1) as f64;
    let (sum_x, sum_y) = points.clone().fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
    let (mean_x, mean_y) = (sum_x / count, sum_y / count);
    let covariance: f64 = points.clone().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    let variance: f64 = points.clone().map(|(x, _)| (x - mean_x).powi(2)).sum();
    let slope = if variance > 0.0 { covariance / variance } else { 0.0 };
    let length = samples.last().map_or(0.0, |last| (last.at - samples[0].at).as_secs_f64());
    let highest = points.clone().map(|(_, y)| y).fold(f64::MIN, f64::max);
    let lowest = points.map(|(_, y)| y).fold(f64::MAX, f64::min);
    (slope * length, (highest - lowest).max(0.0))
}

/// The report as Markdown, and whether every limit was kept.
pub fn report(outcome: &Outcome<'_>) -> (String, bool) {
    let Outcome { samples, before, after, totals, reported, behind, stopped, own_cpu } = outcome;
    let length = samples.last().map_or(Duration::ZERO, |last| last.at);
    let warm_up = WARM_UP.min(length / 3);
    let counted: Vec<&Sample> = samples.iter().filter(|sample| sample.at >= warm_up).collect();
    let (growth, spread) = memory(&counted);
    let mb = |bytes: f64| bytes / (1024.0 * 1024.0);
    let (live, opening, missing) =
        (totals.live.as_secs_f64(), totals.opening.as_secs_f64(), totals.missing.as_secs_f64());
    let uptime = live / (live + missing).max(f64::MIN_POSITIVE);
    let all = live / (live + opening + missing).max(f64::MIN_POSITIVE);
    let (first, last) = (counted.first(), counted.last());
    let seconds = length.as_secs_f64().max(f64::MIN_POSITIVE);
    let cpu = samples.last().map_or(0.0, |last| last.usage.cpu - before.cpu);
    let ms = |quantile: f64| totals.delay.value_at_quantile(quantile) as f64 / 1e6;
    let unwell = totals.holes + totals.doubled;
    let missed = totals.missed + *behind as u64;

    let mut is_kept = true;
    let mut check = |kept: bool| {
        is_kept &= kept;
        if kept { "kept" } else { "**not kept**" }
    };
    let mut text = String::from("| | measured | limit | |\n| --- | --- | --- | --- |\n");
    let minutes = |duration: Duration| duration.as_secs_f64() / 60.0;
    text += &format!(
        "| memory, growth after {:.0} minutes | {:+.2} MB | 1 MB | {} |\n",
        minutes(warm_up),
        mb(growth),
        check(growth <= MEMORY_LIMIT && counted.len() > 1)
    );
    text += &format!(
        "| memory, highest minus lowest | {:.2} MB | 1 MB | {} |\n",
        mb(spread),
        check(spread <= MEMORY_LIMIT && counted.len() > 1)
    );
    text += &format!(
        "| sockets before the first stream and after the last | {} and {} | no more than before | {} |\n",
        before.sockets,
        after.sockets,
        check(after.sockets <= before.sockets)
    );
    text += &format!("| changes and segments missed | {missed} | 0 | {} |\n", check(missed == 0));
    text += &format!("| segments left out, events that came twice | {unwell} | 0 | {} |\n", check(unwell == 0));
    text += &format!(
        "| time with an open stream | {:.3}% | 99.9% | {} |\n",
        uptime * 100.0,
        check(uptime >= UPTIME_LIMIT && live > 0.0)
    );
    text += &format!("| the server ended when it was asked to | {stopped} | true | {} |\n", check(*stopped));

    text += "\n| | |\n| --- | --- |\n";
    let row = |name: &str, value: String| format!("| {name} | {value} |\n");
    text += &row("length", format!("{:.1} minutes, {} samples", minutes(length), samples.len()));
    let times = [Some(before), first.map(|sample| &sample.usage), last.map(|sample| &sample.usage), Some(after)];
    let mut at_times = |name: &str, bytes: fn(&Usage) -> u64| {
        let values = times.map(|usage| format!("{:.1}", mb(usage.map_or(0, bytes) as f64)));
        let name = format!("{name}: before the first stream, after the warm-up, at the end, after the last stream");
        text += &row(&name, format!("{} MB", values.join(", ")));
    };
    at_times("memory", |usage| usage.memory);
    at_times("resident pages of files", |usage| usage.files);
    text += &row(
        "all descriptors: before the first stream, after the last",
        format!("{}, {}", before.descriptors, after.descriptors),
    );
    text += &row("threads: before, after", format!("{}, {}", before.threads, after.threads));
    text += &row(
        "processor: server, clients",
        format!("{:.1}%, {:.1}% of one", cpu / seconds * 100.0, own_cpu / seconds * 100.0),
    );
    text += &row("changes and segments reported", reported.to_string());
    text += &row(
        "changes delivered; replaced by a newer one in an open stream; passed while a client had no stream",
        format!("{}; {}; {}", totals.delivered, totals.conflated, totals.away),
    );
    text += &row(
        "segments delivered; fetched by clients of all sessions when they came back",
        format!("{}; {}", totals.segments, totals.fetched),
    );
    text += &row("heartbeats", totals.heartbeats.to_string());
    text += &row("delay of a change: p50, p99, highest", format!("{:.2}, {:.2}, {:.1} ms", ms(0.5), ms(0.99), ms(1.0)));
    text += &row("streams opened", totals.opened.to_string());
    let ends: Vec<String> = totals.ends.iter().map(|(why, count)| format!("{count} {why}")).collect();
    text += &row("streams ended", ends.join(", "));
    text += &row(
        "time with a stream; of opening one, announced pauses included; without one after it broke",
        format!("{:.2} h; {:.3} h; {:.3} h", live / 3600.0, opening / 3600.0, missing / 3600.0),
    );
    text += &row("time with a stream, if opening counts as time without", format!("{:.3}%", all * 100.0));
    for trouble in &totals.troubles {
        text += &format!("\n- {trouble}");
    }
    text += if is_kept { "\nEvery limit was kept.\n" } else { "\nA limit was **not kept**.\n" };
    (text, is_kept)
}
