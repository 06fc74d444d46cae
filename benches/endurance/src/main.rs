//! Runs a server with many status streams for hours, and finds out what grows, what gets lost and for how long a client is
//! without a stream. `run` builds everything and starts this; the README explains the figures.

mod clients;
mod events;
mod report;
mod server;
mod sessions;

use clap::Parser;
use clients::{Client, Subject, Totals, World};
use load::Connection;
use report::{Outcome, Sample, report};
use server::{Server, Usage, usage};
use sessions::{Pace, Slot, create, work};
use std::{
    cell::{Cell, RefCell},
    fs::{self, File},
    io::Write,
    path::PathBuf,
    process::ExitCode,
    rc::Rc,
    time::{Duration, Instant},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::{JoinSet, LocalSet},
    time::{MissedTickBehavior, interval, sleep},
};

/// The connections over which changes are reported.
const REPORTERS: usize = 8;
/// Every so many clients, one breaks its streams off again and again.
const BREAKS_OFF_EVERY: usize = 10;
/// How long a change may take in the end to get to everybody, also to those who are just coming back.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the server may take to close everything once the clients have gone.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(90);

/// Run a server with many status streams for hours, and check that nothing grows or gets lost.
#[derive(Parser)]
struct Args {
    /// How long.
    #[arg(long, default_value_t = 120.0)]
    minutes: f64,
    /// Streams: one of all sessions for each owner, the others of single sessions.
    #[arg(long, default_value_t = 500)]
    streams: usize,
    /// Sessions at the same time.
    #[arg(long, default_value_t = 250)]
    sessions: usize,
    /// Owners of the sessions.
    #[arg(long, default_value_t = 25)]
    owners: usize,
    /// Seconds between two changes of a session.
    #[arg(long, default_value_t = 2.0)]
    change_secs: f64,
    /// Minutes after which a session is completed and followed by another one, plus or minus a fifth.
    #[arg(long, default_value_t = 20.0)]
    session_minutes: f64,
    /// Seconds between two samples.
    #[arg(long, default_value_t = 60.0)]
    sample_secs: f64,
    /// The folder for the samples and the server's log.
    #[arg(long, default_value = "target/endurance")]
    out: PathBuf,
    /// The program of Hark.
    #[arg(long, default_value = "../../target/release/hark")]
    hark: PathBuf,
    /// Arguments added to `hark serve`, such as `--stream-lifetime-secs=30`.
    #[arg(long, allow_hyphen_values = true)]
    hark_arg: Vec<String>,
}

fn main() -> Result<ExitCode, String> {
    let args = Args::parse();
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).map_err(|e| e.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    let is_kept = runtime.block_on(LocalSet::new().run_until(measure(&args)))?;
    Ok(if is_kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Measures, prints the report, and returns whether every limit was kept.
async fn measure(args: &Args) -> Result<bool, String> {
    fs::create_dir_all(&args.out).map_err(|e| format!("{}: {e}", args.out.display()))?;
    let mut server = Server::start(&args.hark, &args.hark_arg, &args.out.join("server.log")).await?;
    let pace = Pace {
        interval: Duration::from_secs_f64(args.change_secs),
        life: Duration::from_secs_f64(args.session_minutes * 60.0),
    };
    let mut owners = Vec::new();
    for n in 0..args.owners {
        let count = args.sessions / args.owners + usize::from(n < args.sessions % args.owners);
        owners.push(create(server.addr, n, count.max(1), pace).await?);
    }
    let slots: Vec<(Rc<Slot>, String)> = owners
        .iter()
        .flat_map(|owner| owner.slots.iter().map(|slot| (Rc::clone(slot), owner.cookie.clone())))
        .collect();
    let subjects: Vec<(usize, Subject)> = (0..args.streams)
        .map(|n| match n.checked_sub(args.owners) {
            None => (n, Subject::Owner),
            Some(n) => {
                let slot = Rc::clone(&slots[n % slots.len()].0);
                (slot.current().owner, Subject::Slot(slot))
            }
        })
        .collect();
    let epoch = Instant::now();
    let world = Rc::new(World {
        addr: server.addr,
        epoch,
        owners,
        totals: RefCell::new(Totals::new()?),
        known: (0..args.streams).map(|_| RefCell::default()).collect(),
    });

    // The workers come first: their connections count as there before.
    let stopping = Rc::new(Cell::new(false));
    let mut workers = JoinSet::new();
    for n in 0..REPORTERS.min(slots.len()) {
        let mine = slots.iter().skip(n).step_by(REPORTERS).cloned().collect();
        workers.spawn_local(work(server.addr, mine, pace, epoch, Rc::clone(&stopping)));
    }
    sleep(pace.interval * 2).await;
    let before = server.usage()?;
    let mut clients = JoinSet::new();
    for (n, (owner, subject)) in subjects.iter().enumerate() {
        let breaks_off = n % BREAKS_OFF_EVERY == BREAKS_OFF_EVERY - 1;
        let client = Client { n, owner: *owner, subject: subject.clone(), breaks_off };
        clients.spawn_local(client.run(Rc::clone(&world)));
        // Not all at the same moment, as they wouldn't come in life.
        sleep(Duration::from_millis(5)).await;
    }
    let samples = sample(args, &server, &world, &mut workers).await?;

    eprintln!("the last changes are read …");
    stopping.set(true);
    // The workers' connections stay open, so that the sockets can be compared with those before.
    let (mut reported, mut connections) = (0, Vec::new());
    while let Some(done) = workers.join_next().await {
        let (count, connection) = done.map_err(|e| e.to_string())??;
        reported += count;
        connections.push(connection);
    }
    let begun = Instant::now();
    while world.behind(&subjects) > 0 && begun.elapsed() < SETTLE_TIMEOUT {
        sleep(Duration::from_millis(100)).await;
    }
    let behind = world.behind(&subjects);
    clients.shutdown().await;
    let begun = Instant::now();
    let mut after = server.usage()?;
    while after.sockets > before.sockets && begun.elapsed() < CLOSE_TIMEOUT {
        sleep(Duration::from_millis(500)).await;
        after = server.usage()?;
    }
    drop(connections);
    let own_cpu = usage(std::process::id()).map_err(|e| e.to_string())?.cpu;
    let stopped = server.stop();
    let totals = world.totals.borrow();
    let outcome = Outcome { samples: &samples, before, after, totals: &totals, reported, behind, stopped, own_cpu };
    let (text, is_kept) = report(&outcome);
    print!("{text}");
    Ok(is_kept)
}

/// Takes samples until the time is over or somebody asks to stop. A worker that fails ends it with an error.
async fn sample(
    args: &Args,
    server: &Server,
    world: &World,
    workers: &mut JoinSet<Result<(u64, Connection), String>>,
) -> Result<Vec<Sample>, String> {
    let path = args.out.join("samples.csv");
    let mut file = File::create(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    file.write_all(Sample::HEADER.as_bytes()).map_err(|e| e.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| e.to_string())?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| e.to_string())?;
    let begun = Instant::now();
    let mut ticks = interval(Duration::from_secs_f64(args.sample_secs));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = sleep(Duration::from_secs_f64(args.minutes * 60.0));
    tokio::pin!(end);
    let mut samples = Vec::new();
    let mut is_over = false;
    while !is_over {
        tokio::select! {
            _ = ticks.tick() => {}
            () = &mut end => is_over = true,
            _ = interrupt.recv() => is_over = true,
            _ = terminate.recv() => is_over = true,
            Some(failed) = workers.join_next() => {
                failed.map_err(|e| e.to_string())??;
                return Err("a worker ended before its time".to_owned());
            }
        }
        let usage: Usage = server.usage()?;
        let totals = world.totals.borrow();
        let sample = Sample {
            at: begun.elapsed(),
            usage,
            open: totals.is_open,
            opened: totals.opened,
            delivered: totals.delivered,
        };
        file.write_all(sample.line().as_bytes()).map_err(|e| e.to_string())?;
        eprintln!(
            "{:5.1} min: {:.1} MB and {:.1} of files, {} sockets, {} threads, {} of {} streams open, {} changes delivered",
            sample.at.as_secs_f64() / 60.0,
            usage.memory as f64 / (1024.0 * 1024.0),
            usage.files as f64 / (1024.0 * 1024.0),
            usage.sockets,
            usage.threads,
            sample.open,
            args.streams,
            sample.delivered
        );
        samples.push(sample);
    }
    Ok(samples)
}
