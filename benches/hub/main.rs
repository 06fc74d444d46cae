//! Measures the hub of status streams in one process, without a network: `scale` with up to 200,000 streams, `hours` with a clock
//! that is advanced by hand. `run` builds and starts this; the README explains the figures.

#[path = "../../tests/support/hours.rs"]
mod hours;
mod scale;

use clap::{Parser, Subcommand};
use hark::server::stream::StreamLimits;
use hours::{Hours, Scale};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use std::{
    alloc::System,
    fs,
    process::ExitCode,
    time::{Duration, Instant},
};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// By how much the memory may differ after the warm-up, in bytes.
const MEMORY_LIMIT: u64 = 1024 * 1024;
/// How much of the hours doesn't count: until sessions are forgotten as fast as others begin.
const WARM_UP_MINUTES: u32 = 60;

/// Measure the hub of status streams in one process.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    what: What,
    /// Given by cargo.
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum What {
    /// Memory and processor time of a stream, and the longest pause, for several numbers of streams.
    Scale(scale::Args),
    /// Hours of streams on a clock that is advanced by hand.
    Hours {
        /// How many.
        #[arg(long, default_value_t = 10)]
        hours: u32,
        /// Streams, on half as many sessions.
        #[arg(long, default_value_t = 500)]
        streams: usize,
        /// What follows at random is the same for the same number, except what the hub decides.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

fn main() -> Result<ExitCode, String> {
    match Args::parse().what {
        What::Scale(args) => scale::measure(&args).map(|()| ExitCode::SUCCESS),
        What::Hours { hours, streams, seed } => simulate(hours, streams, seed),
    }
}

/// The bytes that are allocated and not freed.
pub(crate) fn allocated() -> u64 {
    let stats = ALLOCATOR.stats();
    (stats.bytes_allocated - stats.bytes_deallocated) as u64
}

/// The resident memory of this process in bytes, by proc(5).
pub(crate) fn resident() -> Result<u64, String> {
    let text = fs::read_to_string("/proc/self/statm").map_err(|e| e.to_string())?;
    let pages: u64 = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).ok_or("statm has no resident size")?;
    Ok(pages * rustix::param::page_size() as u64)
}

/// The least and the most, and their difference.
fn spread(values: impl Iterator<Item = u64> + Clone) -> [u64; 3] {
    let (least, most) = (values.clone().min().unwrap_or_default(), values.max().unwrap_or_default());
    [least, most, most - least]
}

/// Lets hours pass, prints what was measured, and returns whether every limit was kept.
fn simulate(length: u32, streams: usize, seed: u64) -> Result<ExitCode, String> {
    let minute = Duration::from_secs(60);
    let scale = Scale {
        owners: (streams / 20).max(1),
        sessions: (streams / 2).max(1),
        streams,
        interval: Duration::from_secs(2),
        life: 20 * minute,
    };
    let begun = Instant::now();
    let mut samples = Vec::with_capacity(length as usize * 60);
    let limits = StreamLimits { per_owner: 10_000, per_node: 1_000_000, ..StreamLimits::default() };
    let mut hours = Hours::new(scale, limits, seed);
    for n in 0..length * 60 {
        hours.pass(minute);
        samples.push((allocated(), resident()?));
        if n % 60 == 59 {
            eprintln!(
                "{} h after {:.0} s, {:.2} MB allocated",
                n / 60 + 1,
                begun.elapsed().as_secs_f64(),
                mb(allocated())
            );
        }
    }
    hours.settle();
    hours.pass(minute);
    let (behind, wanted, open) = (hours.behind(), hours.open(), hours.hub.open());
    hours.close_streams();
    let left_open = hours.hub.open();
    hours.pass(2 * minute);
    let held = hours.held();

    let warm_up = WARM_UP_MINUTES.min(length * 60 / 2) as usize;
    let [least, most, difference] = spread(samples[warm_up..].iter().map(|(allocated, _)| *allocated));
    let [rss_least, rss_most, rss_difference] = spread(samples[warm_up..].iter().map(|(_, resident)| *resident));
    let counts = &hours.counts;
    let mut is_kept = true;
    let mut check = |kept: bool| {
        is_kept &= kept;
        if kept { "kept" } else { "**not kept**" }
    };
    println!("| {length} hours, {streams} streams on {} sessions | measured | limit | |", scale.sessions);
    println!("| --- | --- | --- | --- |");
    println!(
        "| memory allocated after the first hour: least, most | {:.2}, {:.2} MB | 1 MB between | {} |",
        mb(least),
        mb(most),
        check(difference <= MEMORY_LIMIT)
    );
    println!(
        "| memory resident after the first hour: least, most | {:.2}, {:.2} MB | 1 MB between | {} |",
        mb(rss_least),
        mb(rss_most),
        check(rss_difference <= MEMORY_LIMIT)
    );
    let missed = counts.missed + behind as u64;
    println!("| changes and segments missed | {missed} | 0 | {} |", check(missed == 0));
    println!("| events that came twice, late or with a gap | {} | 0 | {} |", counts.wrong, check(counts.wrong == 0));
    println!(
        "| streams that were silent or ended without a reason | {} | 0 | {} |",
        counts.broken,
        check(counts.broken == 0)
    );
    let is_right = (open, left_open) == (wanted, 0);
    println!("| streams open before the end, after it | {open}, {left_open} | {wanted}, 0 | {} |", check(is_right));
    println!("| sessions and owners that the hub holds two minutes later | {held} | 0 | {} |", check(held == 0));
    println!("\n| | |\n| --- | --- |");
    println!("| changes published | {} |", counts.published);
    println!(
        "| changes delivered; replaced by a newer one in an open stream | {}; {} |",
        counts.delivered, counts.conflated
    );
    println!("| segments delivered, heartbeats | {}, {} |", counts.segments, counts.heartbeats);
    println!("| streams opened | {} |", counts.opened);
    let ends: Vec<String> = counts.ends.iter().map(|(why, count)| format!("{count} {why}")).collect();
    println!("| streams ended | {} |", ends.join(", "));
    println!("| time that it took | {:.0} s |", begun.elapsed().as_secs_f64());
    counts.troubles.iter().for_each(|trouble| println!("- {trouble}"));
    println!("\n{}", if is_kept { "Every limit was kept." } else { "A limit was **not kept**." });
    Ok(if is_kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn mb(bytes: u64) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}
