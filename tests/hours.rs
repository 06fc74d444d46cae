//! Hours of status streams, on a clock that is advanced by hand: that nothing is missed, and that memory doesn't grow, also that of
//! streams that are never all closed. The program has only one test, because others would allocate at the same time.
//! `benches/hub` does the same for longer and with more.

#[path = "support/hours.rs"]
mod hours;

use hark::server::stream::StreamLimits;
use hours::{Hours, Scale};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use std::{alloc::System, time::Duration};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const MINUTE: Duration = Duration::from_secs(60);

/// The bytes that are allocated and not freed.
fn allocated() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

/// The most that was allocated at the end of any of these minutes.
fn most_in(hours: &mut Hours, minutes: u32) -> usize {
    let at_the_end_of_one = |_| {
        hours.pass(MINUTE);
        allocated()
    };
    (0..minutes).map(at_the_end_of_one).max().unwrap_or_default()
}

#[test]
fn two_hours_of_streams_miss_nothing_and_leave_nothing() {
    let scale = Scale {
        owners: 4,
        sessions: 20,
        streams: 44,
        interval: Duration::from_secs(2),
        // Short, so that there are many.
        life: MINUTE,
    };
    let limits = StreamLimits { per_owner: 1000, ..StreamLimits::default() };
    let mut hours = Hours::new(scale, limits, 7);
    // Until sessions are forgotten as fast as others begin, and lifetimes of streams are spread.
    hours.pass(30 * MINUTE);
    let early = most_in(&mut hours, 30);
    let late = most_in(&mut hours, 60);
    // 1,200 sessions and more than 1,000 streams have ended meanwhile; what is left of a session is 400 bytes and more.
    assert!(late < early + 256 * 1024, "{early} bytes at most in the second half hour, {late} in the second hour");

    hours.settle();
    hours.pass(MINUTE);
    let counts = hours.counts.clone();
    assert_eq!(hours.behind(), 0, "{counts:?}");
    assert_eq!((counts.missed, counts.wrong, counts.broken), (0, 0, 0), "{counts:?}");
    for why in
        ["lifetime", "its session was completed", "left by the client", "cut off, because the client read nothing"]
    {
        assert!(counts.ends.get(why).is_some_and(|count| *count > 10), "{why}: {counts:?}");
    }
    assert!(counts.conflated > 100 && counts.heartbeats > 10 && counts.segments > 1000, "{counts:?}");

    assert_eq!(hours.hub.open(), hours.open());
    hours.close_streams();
    assert_eq!(hours.hub.open(), 0, "a permit is left");
    hours.pass(2 * MINUTE);
    assert_eq!(hours.held(), 0, "topics are left");
}
