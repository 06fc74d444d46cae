//! Compares servers of status streams: many streams, changes at a fixed rate, and the resources that each server needs.
//! `run` builds everything and starts this; the README explains the figures.

mod client;
mod monitoring;
mod peer;
mod report;

use clap::Parser;
use client::{Load, Outcome};
use peer::{Kind, Server};
use std::time::Duration;

/// Compare Hark's status streams with those of other servers.
#[derive(Parser)]
struct Args {
    /// Servers to measure.
    #[arg(long, value_delimiter = ',', default_value = "hark,hark-batch,nchan,axum")]
    peers: Vec<Kind>,
    /// Scenarios: many, fast and hot.
    #[arg(long, value_delimiter = ',', default_value = "many,fast,hot")]
    scenarios: Vec<String>,
    /// Streams of the scenarios `many` and `fast`, on half as many sessions; `hot` has half as many streams.
    #[arg(long, default_value_t = 10_000)]
    streams: usize,
    /// Seconds of changes.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// How often everything is measured; the table shows the median of each figure.
    #[arg(long, default_value_t = 1)]
    repeat: usize,
    /// The programs of the servers.
    #[arg(long, default_value = "../../target/release/hark")]
    hark: std::path::PathBuf,
    #[arg(long, default_value = "target/release/peer-axum")]
    axum: std::path::PathBuf,
    /// Arguments added to `hark serve`, such as `--stream-path=hyper`.
    #[arg(long, allow_hyphen_values = true)]
    hark_arg: Vec<String>,
    /// Measure only what it costs that Hark measures itself: in pairs of runs, one with `HARK_MONITORING=false`.
    #[arg(long)]
    monitoring: bool,
    /// The processors the servers run on, as taskset takes them; the generator should be on another.
    #[arg(long, default_value = "0")]
    cpu: String,
}

/// A scenario.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub name: String,
    pub streams: usize,
    pub sessions: usize,
    /// Changes a second, over all sessions.
    pub rate: u64,
    pub duration: Duration,
}

impl Scenario {
    fn named(name: &str, args: &Args) -> Option<Self> {
        let half = (args.streams / 2).max(1);
        let (streams, sessions, rate) = match name {
            "many" => (args.streams, half, 1000),
            "fast" => (args.streams, half, 5000),
            "hot" => (half, 1, 5),
            _ => return None,
        };
        let duration = Duration::from_secs(args.seconds);
        Some(Self { name: name.to_owned(), streams, sessions, rate, duration })
    }
}

/// One server in one scenario.
#[derive(Clone, Debug)]
pub struct Measured {
    pub peer: Kind,
    pub scenario: Scenario,
    pub outcome: Outcome,
    /// Resident memory per stream, in bytes: when all are connected, and after the changes.
    pub connected: f64,
    pub after: f64,
    /// The server's processor time per million deliveries, in seconds.
    pub cpu: f64,
}

fn main() -> Result<(), String> {
    let args = Args::parse();
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).map_err(|e| e.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    if args.monitoring {
        print!("{}", runtime.block_on(monitoring::compare(&args))?);
        return Ok(());
    }
    let mut all = Vec::new();
    for _ in 0..args.repeat {
        for name in &args.scenarios {
            let scenario = Scenario::named(name, &args).ok_or_else(|| format!("there is no scenario '{name}'"))?;
            for peer in &args.peers {
                eprintln!("{name}: {peer:?} …");
                let measured = runtime.block_on(measure(*peer, scenario.clone(), &args))?;
                eprintln!("{measured:?}");
                all.push(measured);
            }
        }
    }
    print!("{}", report::tables(&all));
    Ok(())
}

async fn measure(peer: Kind, scenario: Scenario, args: &Args) -> Result<Measured, String> {
    let server = Server::start(peer, args, &[]).await?;
    let mut load = Load::prepare(&server, scenario.clone()).await?;
    let idle = server.memory();
    load.connect().await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let connected = server.memory();
    let before = server.cpu_seconds();
    let outcome = load.run().await?;
    let cpu = server.cpu_seconds() - before;
    let after = server.memory();
    let each = |now: f64| (now - idle) / scenario.streams as f64;
    let cpu = cpu / (outcome.delivered.max(1) as f64) * 1e6;
    Ok(Measured { peer, connected: each(connected), after: each(after), cpu, outcome, scenario })
}
