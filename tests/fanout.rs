//! Measures what a change costs for each additional stream, with a counting allocator. The program has only one test,
//! because others would allocate at the same time.

#[path = "support/world.rs"]
mod world;

use hark::{
    model::{EventId, State},
    server::{
        event::Event,
        stream::{Kind, StatusStream},
        telemetry::traces::{self, Delivery, Step},
    },
};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::{alloc::System, task::Poll, time::Instant};
use world::{World, drain, id, poll, status};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[test]
fn the_cost_of_a_stream() {
    a_frame_costs_no_allocation_for_one_more_stream();
    an_unread_stream_takes_no_memory_and_misses_nothing();
    a_step_that_is_not_traced_costs_nothing();
}

fn a_frame_costs_no_allocation_for_one_more_stream() {
    let allocations = |streams: usize, of_owner: bool| {
        let world = World::new(0);
        world.publish_status(1, State::Processing);
        let mut all: Vec<StatusStream> = (0..streams)
            .map(|_| if of_owner { world.owner_stream() } else { world.stream(EventId::default()) })
            .collect();
        for stream in &mut all {
            drain(stream);
            assert!(poll(stream).is_pending());
        }
        // The first changes may grow shared buffers.
        for version in 2..6 {
            world.publish_status(version, State::Processing);
            all.iter_mut().for_each(|stream| assert!(matches!(poll(stream), Poll::Ready(Some(_)))));
            all.iter_mut().for_each(|stream| assert!(poll(stream).is_pending()));
        }
        let event = Event::status(world.owner.clone(), status(7, 0, State::Processing));
        let region = Region::new(ALLOCATOR);
        world.hub.publish(&event);
        for stream in &mut all {
            assert!(matches!(poll(stream), Poll::Ready(Some(out)) if out.frame.kind() == Kind::Status));
            assert!(poll(stream).is_pending());
        }
        region.change().allocations
    };
    for of_owner in [false, true] {
        let (one, many) = (allocations(1, of_owner), allocations(1000, of_owner));
        assert_eq!(one, many, "for one stream and for a thousand");
        assert!(one > 0, "a frame is made of something");
    }
}

fn an_unread_stream_takes_no_memory_and_misses_nothing() {
    let world = World::new(0);
    world.publish_status(1, State::Processing);
    let mut stream = world.stream(EventId::default());
    drain(&mut stream);
    for version in 2..10_002 {
        if version % 100 == 0 {
            world.publish_segment(version)
        } else {
            world.publish_status(version, State::Processing)
        }
    }
    let region = Region::new(ALLOCATOR);
    world.publish_status(10_002, State::Completed);
    let kept = region.change();
    assert!(kept.bytes_allocated < 64 * 1024, "{kept:?}");
    let events: Vec<(Kind, String)> = drain(&mut stream)
        .into_iter()
        .map(|out| (out.frame.kind(), String::from_utf8(out.frame.text().to_vec()).unwrap()))
        .collect();
    assert_eq!(events.len(), 101);
    for (index, (kind, text)) in events[..100].iter().enumerate() {
        assert_eq!(*kind, Kind::Segment);
        assert!(text.contains(&format!("\"index\":{index},")), "{text}");
    }
    assert_eq!(events[100].0, Kind::Status);
    assert!(events[100].1.contains("\"version\":10002,"));
}

fn a_step_that_is_not_traced_costs_nothing() {
    assert!(!traces::are_on());
    let region = Region::new(ALLOCATOR);
    for _ in 0..1000 {
        let mut step = Step::begin(id(), "attempt");
        step.number("hark.attempt", 1);
        step.text("hark.engine", "whisper");
        step.part("store").end();
        step.fail("it failed");
        Step::first(id(), "upload", Instant::now()).end();
        assert!(Delivery::begin(id(), "segment", Instant::now()).is_none());
    }
    let spent = region.change();
    assert_eq!((spent.allocations, spent.reallocations), (0, 0), "{spent:?}");
}
