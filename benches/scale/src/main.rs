//! Measures how status changes get from a worker to browsers' streams: over the bus within one process, and through Redis to
//! several web nodes. `run` builds everything and starts this; the README explains the figures.

mod load;
mod servers;

use clap::Parser;
use load::{Load, Outcome, Pace, Source};
use servers::Servers;
use std::time::Duration;

/// Measure status changes from a worker to streams, with and without Redis in between.
#[derive(Parser)]
struct Args {
    /// Numbers of web nodes that hold streams, behind Redis.
    #[arg(long, value_delimiter = ',', default_value = "1,2,4")]
    nodes: Vec<usize>,
    /// Sessions watched, each by one stream; the first is used to compare numbers of nodes.
    #[arg(long, value_delimiter = ',', default_value = "1000,100,4000")]
    watched: Vec<usize>,
    /// Changes a second where the delay is measured.
    #[arg(long, default_value_t = 500)]
    rate: u64,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// The program of Hark.
    #[arg(long, default_value = "../../target/release/hark")]
    hark: std::path::PathBuf,
    /// The processor the servers run on; the generator should be on another.
    #[arg(long, default_value_t = 0)]
    cpu: usize,
}

/// One row of the table.
struct Row {
    bus: &'static str,
    nodes: usize,
    source: Source,
    watched: usize,
    /// At the highest rate.
    maximum: Outcome,
    /// At a fixed rate.
    fixed_rate: Outcome,
}

fn main() -> Result<(), String> {
    let args = Args::parse();
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).map_err(|e| e.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    let usual = *args.watched.first().ok_or("name a number of sessions")?;
    let mut rows = Vec::new();
    for (n, watched) in args.watched.iter().enumerate() {
        rows.push(runtime.block_on(measure(&args, None, Source::Reports, *watched))?);
        for nodes in &args.nodes {
            // Every number of nodes with the first number of sessions, and every number of sessions with the middle number of
            // nodes.
            if n > 0 && Some(nodes) != args.nodes.get(args.nodes.len() / 2) {
                continue;
            }
            for source in [Source::Reports, Source::Messages] {
                rows.push(runtime.block_on(measure(&args, Some(*nodes), source, *watched))?);
            }
        }
    }
    rows.sort_by_key(|row| row.watched != usual);
    print!("{}", table(&rows, &args));
    Ok(())
}

/// With `nodes`: streams are on this many nodes behind Redis, and reports go to another node. Without: everything is on one
/// node.
async fn measure(args: &Args, nodes: Option<usize>, source: Source, watched: usize) -> Result<Row, String> {
    let bus = if nodes.is_some() { "Redis" } else { "local" };
    eprintln!("{bus}, {} nodes, {source}, {watched} sessions …", nodes.unwrap_or(1));
    let servers = Servers::start(args, nodes).await?;
    let mut load = Load::prepare(&servers, source, watched).await?;
    load.connect().await?;
    let duration = Duration::from_secs(args.seconds);
    let fixed_rate = load.run(&servers, Pace::Fixed(args.rate), duration).await?;
    eprintln!("  at {}/s: {fixed_rate:?}", args.rate);
    let maximum = load.run(&servers, Pace::Maximum, duration).await?;
    eprintln!("  at the highest rate: {maximum:?}");
    Ok(Row { bus, nodes: nodes.unwrap_or(1), source, watched, maximum, fixed_rate })
}

fn table(rows: &[Row], args: &Args) -> String {
    let mut text = format!(
        "| bus | web nodes | changes come as | sessions watched | changes/s | p50 ms | p99 ms | \
         at {}/s: p50 ms | p99 ms | CPU s/million | skipped | lost |\n",
        args.rate
    );
    text += "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n";
    let ms = |ns: u64| ns as f64 / 1e6;
    for row in rows {
        let (maximum, fixed_rate) = (&row.maximum, &row.fixed_rate);
        text += &format!(
            "| {} | {} | {} | {} | {:.0} | {:.2} | {:.2} | {:.2} | {:.2} | {:.0} | {} | {} |\n",
            row.bus,
            row.nodes,
            row.source,
            row.watched,
            maximum.delivered as f64 / maximum.seconds,
            ms(maximum.latency[0]),
            ms(maximum.latency[1]),
            ms(fixed_rate.latency[0]),
            ms(fixed_rate.latency[1]),
            fixed_rate.cpu * 1e6 / fixed_rate.delivered.max(1) as f64,
            fixed_rate.published - fixed_rate.delivered,
            maximum.lost + fixed_rate.lost,
        );
    }
    text
}
