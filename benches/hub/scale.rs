//! Many streams on one hub: each is a task that takes its events as fast as they come. One process for each number of streams, so
//! that the memory of one measurement doesn't serve the next. Called by `main`.

use crate::{allocated, resident};
use hark::{
    model::{EventId, Segment, SessionId, Stage, State, Status, Timestamp},
    server::{
        event::Event,
        owner::Owner,
        shares::Standing,
        stream::{Hub, Kind, Source, SourceFuture, StatusStream, StreamLimits},
    },
};
use rustix::time::{ClockId, clock_gettime};
use std::{
    cell::RefCell,
    future::{self, Future},
    pin::{Pin, pin},
    process::{Command, Stdio},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::{
    task::{LocalSet, yield_now},
    time::{MissedTickBehavior, interval, sleep},
};
use uuid::Uuid;

/// Each owner has so many sessions, and so many streams, of which the first are of all sessions.
const SESSIONS_PER_OWNER: usize = 5;
const STREAMS_PER_OWNER: usize = 10;
const STREAMS_OF_ALL: usize = 2;
/// How often a node advances the hub's clock.
const TICK: Duration = Duration::from_millis(250);
/// Changes are published in batches, because timers are exact to a millisecond.
const BATCH: Duration = Duration::from_millis(1);
/// How long late events are waited for.
const SETTLE_TIME: Duration = Duration::from_secs(2);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Numbers of streams, on half as many sessions.
    #[arg(long, value_delimiter = ',', default_value = "10000,50000,100000,200000")]
    streams: Vec<usize>,
    /// Changes a second, over all sessions.
    #[arg(long, default_value_t = 5000)]
    rate: u32,
    /// Seconds of changes.
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// Print the figures of the one number of streams.
    #[arg(long, hide = true)]
    row: bool,
}

/// Prints a table with a row for each number of streams.
pub(crate) fn measure(args: &Args) -> Result<(), String> {
    if args.row {
        let streams = *args.streams.first().ok_or("name a number of streams")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
        let row = runtime.block_on(LocalSet::new().run_until(run(args, streams)))?;
        println!("{row}");
        return Ok(());
    }
    println!("{} changes/s for {} s\n", args.rate, args.seconds);
    println!(
        "| streams | sessions | bytes/stream allocated | resident | events/s | CPU µs/event | sweep: CPU ms | CPU ns/stream | \
         longest step ms | whole ms | delay p50 ms | p99 ms | highest ms | missed |"
    );
    println!("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for streams in &args.streams {
        eprintln!("{streams} streams …");
        let program = std::env::current_exe().map_err(|e| e.to_string())?;
        let (streams, rate, seconds) = (streams.to_string(), args.rate.to_string(), args.seconds.to_string());
        let done = Command::new(program)
            .args(["scale", "--row", "--streams", &streams, "--rate", &rate, "--seconds", &seconds])
            .stdin(Stdio::null())
            .stdout(Stdio::inherit())
            .status()
            .map_err(|e| e.to_string())?;
        if !done.success() {
            return Err(format!("the measurement with {streams} streams failed"));
        }
    }
    Ok(())
}

/// Makes up what streams read, so that it takes no memory: every session is queued and has its first version.
struct MadeUp;

impl Source for MadeUp {
    fn session(&self, id: SessionId) -> SourceFuture<Option<(Owner, Status)>> {
        let number = id.0.as_u128() as usize;
        Box::pin(future::ready(Ok(Some((owner(number / SESSIONS_PER_OWNER), status(number, 1, State::Queued))))))
    }

    fn segments(&self, _: SessionId, _: u32) -> SourceFuture<Vec<Segment>> {
        Box::pin(future::ready(Ok(Vec::new())))
    }

    fn statuses(&self, owner: &Owner) -> SourceFuture<Vec<Status>> {
        let number = owner.as_str().strip_prefix("owner-").and_then(|number| number.parse::<usize>().ok());
        let first = number.map_or(0, |number| number * SESSIONS_PER_OWNER);
        let theirs = (first..first + SESSIONS_PER_OWNER).map(|session| status(session, 1, State::Queued));
        Box::pin(future::ready(Ok(theirs.collect())))
    }
}

fn owner(number: usize) -> Owner {
    Owner::from_store(format!("owner-{number}"))
}

fn session_id(number: usize) -> SessionId {
    SessionId(Uuid::from_u128(number as u128))
}

fn status(number: usize, version: u64, state: State) -> Status {
    Status {
        version,
        message: format!("Transcribing part {version}"),
        ..Status::new(session_id(number), state, Some(Stage::Transcribing), Timestamp::now())
    }
}

/// What streams have received.
struct Received {
    events: u64,
    opened: usize,
    /// Microseconds from publishing a change until a stream took it. Reserved before memory is measured.
    delays: Vec<u32>,
    /// The newest version that each stream of a single session has had, by the number of the stream.
    versions: Vec<u64>,
}

/// Measures how long a future keeps the thread.
struct Timed<F> {
    inner: F,
    spent: Duration,
    longest: Duration,
}

impl<F: Future + Unpin> Future for Timed<F> {
    /// The time of all steps and of the longest.
    type Output = (Duration, Duration);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let begun = Instant::now();
        let polled = Pin::new(&mut self.inner).poll(cx);
        let step = begun.elapsed();
        self.spent += step;
        self.longest = self.longest.max(step);
        polled.map(|_| (self.spent, self.longest))
    }
}

/// What the sweeps took.
#[derive(Default)]
struct Sweeps {
    count: u32,
    spent: Duration,
    longest_step: Duration,
    longest: Duration,
}

/// Advances the hub's clock as a node does.
async fn tick(hub: Arc<Hub>, sweeps: Rc<RefCell<Sweeps>>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for n in 0_u64.. {
        ticks.tick().await;
        let begun = Instant::now();
        let ticking = pin!(hub.tick());
        let (spent, longest) = Timed { inner: ticking, spent: Duration::ZERO, longest: Duration::ZERO }.await;
        // One of four ticks sweeps.
        let mut sweeps = sweeps.borrow_mut();
        sweeps.count += u32::from(n % 4 == 0);
        sweeps.spent += spent;
        sweeps.longest_step = sweeps.longest_step.max(longest);
        sweeps.longest = sweeps.longest.max(begun.elapsed());
    }
}

/// Takes a stream's events.
async fn read(n: usize, mut stream: StatusStream, received: Rc<RefCell<Received>>) {
    let mut is_open = false;
    while let Some(out) = future::poll_fn(|cx| stream.poll_next(cx)).await {
        let mut received = received.borrow_mut();
        received.events += 1;
        if out.frame.kind() != Kind::Status {
            continue;
        }
        received.opened += usize::from(!std::mem::replace(&mut is_open, true));
        if let Some(published) = out.published {
            received.delays.push(u32::try_from(published.elapsed().as_micros()).unwrap_or(u32::MAX));
        }
        // An event begins with `id: <version>.<segments>`.
        let id = out.frame.text().get(4..).and_then(|text| text.split(|byte| *byte == b'.').next());
        let version = id.and_then(|id| std::str::from_utf8(id).ok()?.parse().ok());
        received.versions[n] = version.unwrap_or_default();
    }
}

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// Measures with one number of streams, and returns the table's row.
async fn run(args: &Args, streams: usize) -> Result<String, String> {
    let owners = (streams / STREAMS_PER_OWNER).max(1);
    let (streams, sessions) = (owners * STREAMS_PER_OWNER, owners * SESSIONS_PER_OWNER);
    let total = args.rate as usize * args.seconds as usize;
    let most_per_change = STREAMS_PER_OWNER;
    let limits = StreamLimits { per_owner: 100, per_node: u32::MAX, lifetime_secs: 86_400, ..StreamLimits::default() };
    let hub = Arc::new(Hub::new(limits));
    let source: Arc<dyn Source> = Arc::new(MadeUp);
    let received = Rc::new(RefCell::new(Received {
        events: 0,
        opened: 0,
        delays: Vec::with_capacity(total * most_per_change),
        versions: vec![0; streams],
    }));
    let owner_list: Vec<Owner> = (0..owners).map(owner).collect();
    let sweeps = Rc::new(RefCell::new(Sweeps::default()));
    tokio::task::spawn_local(tick(Arc::clone(&hub), Rc::clone(&sweeps)));
    yield_now().await;
    let (allocated_before, resident_before) = (allocated(), resident()?);
    for n in 0..streams {
        let (owner, k) = (&owner_list[n / STREAMS_PER_OWNER], n % STREAMS_PER_OWNER);
        let permit = hub.admit(owner, Standing::Known).map_err(|refusal| format!("{refusal:?}"))?;
        let source = Arc::clone(&source);
        let stream = match watched(n) {
            None => StatusStream::of_owner(&hub, source, permit, owner.clone(), None),
            Some(id) => StatusStream::of_session(&hub, source, permit, session_id(id), EventId::default(), None),
        };
        tokio::task::spawn_local(read(n, stream, Rc::clone(&received)));
        if k == 0 {
            yield_now().await;
        }
    }
    while received.borrow().opened < streams {
        sleep(Duration::from_millis(20)).await;
    }
    // The sweeps after the streams have opened settle what is reused.
    sleep(Duration::from_secs(2)).await;
    let bytes = (allocated() - allocated_before) as f64 / streams as f64;
    let rss = resident()?.saturating_sub(resident_before) as f64 / streams as f64;

    // Owners are made in advance, as a node has them from the request.
    *sweeps.borrow_mut() = Sweeps::default();
    received.borrow_mut().events = 0;
    received.borrow_mut().delays.clear();
    let (begun, cpu_before) = (Instant::now(), cpu());
    let mut batches = interval(BATCH);
    let mut published = 0;
    while published < total {
        batches.tick().await;
        let due = (begun.elapsed().as_secs_f64() * f64::from(args.rate)) as usize;
        for n in published..due.min(total) {
            let session = n % sessions;
            let version = (n / sessions) as u64 + 2;
            let event = Event::status(
                owner_list[session / SESSIONS_PER_OWNER].clone(),
                status(session, version, State::Processing),
            );
            hub.publish(&event);
        }
        published = due.min(total).max(published);
    }
    sleep(SETTLE_TIME).await;
    let (cpu, elapsed) = (cpu().saturating_sub(cpu_before), begun.elapsed());

    let mut received = received.borrow_mut();
    let sweeps = sweeps.borrow();
    let expected = |session: usize| (total + sessions - 1 - session) as u64 / sessions as u64 + 1;
    let missed =
        (0..streams).filter(|n| watched(*n).is_some_and(|session| received.versions[*n] != expected(session))).count();
    received.delays.sort_unstable();
    let delay = |share: f64| {
        let index = ((received.delays.len().max(1) - 1) as f64 * share) as usize;
        received.delays.get(index).map_or(f64::NAN, |micros| f64::from(*micros) / 1000.0)
    };
    let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
    let per_event = cpu.saturating_sub(sweeps.spent).as_secs_f64() * 1e6 / received.events.max(1) as f64;
    let sweep = sweeps.spent / sweeps.count.max(1);
    Ok(format!(
        "| {streams} | {sessions} | {bytes:.0} | {rss:.0} | {:.0} | {per_event:.2} | {:.2} | {:.0} | {:.2} | {:.1} | {:.2} | {:.2} | \
         {:.2} | {missed} |",
        received.events as f64 / elapsed.as_secs_f64(),
        ms(sweep),
        sweep.as_nanos() as f64 / streams as f64,
        ms(sweeps.longest_step),
        ms(sweeps.longest),
        delay(0.5),
        delay(0.99),
        delay(1.0),
    ))
}

/// The session that a stream watches; none if it watches all of its owner.
fn watched(stream: usize) -> Option<usize> {
    let (owner, k) = (stream / STREAMS_PER_OWNER, stream % STREAMS_PER_OWNER);
    let of_one = k.checked_sub(STREAMS_OF_ALL)?;
    Some(owner * SESSIONS_PER_OWNER + of_one % SESSIONS_PER_OWNER)
}
