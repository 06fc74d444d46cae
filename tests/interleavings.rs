//! Tests that no order of publishing, connecting, reading and reconnecting loses or duplicates anything.

#[path = "support/world.rs"]
mod world;

use hark::{
    model::{EventId, State},
    server::{
        event::Event,
        stream::{Kind, StatusStream},
    },
};
use proptest::{prelude::*, test_runner::TestCaseResult};
use std::task::Poll;
use tokio::sync::mpsc;
use world::{World, id, poll};

/// One step of a test: something happens to the client or to the session.
#[derive(Clone, Debug)]
enum Step {
    Status,
    Segment,
    /// Polls the stream so many times.
    Read(u8),
    Disconnect,
    Connect,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Status),
        3 => Just(Step::Segment),
        5 => (0u8..6).prop_map(Step::Read),
        1 => Just(Step::Disconnect),
        2 => Just(Step::Connect),
    ]
}

/// A client that behaves like EventSource: it keeps the last event id and reconnects with it.
#[derive(Default)]
struct Client {
    stream: Option<StatusStream>,
    last: EventId,
    indexes: Vec<u32>,
    versions: Vec<u64>,
    ended: bool,
}

impl Client {
    fn read(&mut self) {
        let Some(stream) = &mut self.stream else { return };
        match poll(stream) {
            Poll::Pending => {}
            Poll::Ready(None) => {
                self.stream = None;
                self.ended = true;
            }
            Poll::Ready(Some(out)) => {
                let text = std::str::from_utf8(out.frame.text()).unwrap();
                let json = serde_json::from_slice::<serde_json::Value>(&out.frame.json());
                if let Some(line) = text.strip_prefix("id: ") {
                    self.last = line.split('\n').next().unwrap().parse().unwrap();
                }
                match out.frame.kind() {
                    Kind::Segment => self.indexes.push(json.unwrap()["index"].as_u64().unwrap() as u32),
                    Kind::Status => self.versions.push(json.unwrap()["version"].as_u64().unwrap()),
                    Kind::Retry
                    | Kind::Heartbeat
                    | Kind::Bye
                    | Kind::Models
                    | Kind::Overview
                    | Kind::Renamed
                    | Kind::Deleted => {}
                }
            }
        }
    }
}

impl Client {
    /// Reads to the end, and checks that every segment came once, that versions rose, and that the last one is `last`.
    fn reads_to_the_end(mut self, world: &World, last: u64) -> TestCaseResult {
        for _ in 0..2000 {
            if self.ended {
                break;
            }
            self.read();
        }
        prop_assert!(self.ended, "the stream goes on after the end");
        let total = world.stored.state.lock().unwrap().1.len() as u32;
        prop_assert_eq!(self.indexes, (0..total).collect::<Vec<_>>());
        prop_assert!(self.versions.windows(2).all(|w| w[0] < w[1]), "{:?}", self.versions);
        prop_assert_eq!(self.versions.last(), Some(&last));
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_order_of_events_gives_every_segment_once_and_the_end(
        steps in proptest::collection::vec(step(), 0..60),
        polls in 0u8..4,
    ) {
        let world = World::new(polls);
        let mut version = 1;
        world.publish_status(version, State::Processing);
        let mut client = Client::default();
        for step in steps {
            match step {
                Step::Status => { version += 1; world.publish_status(version, State::Processing); }
                Step::Segment => { version += 1; world.publish_segment(version); }
                Step::Read(times) => (0..times).for_each(|_| client.read()),
                Step::Disconnect => client.stream = None,
                Step::Connect if client.stream.is_none() => client.stream = Some(world.stream(client.last)),
                Step::Connect => {}
            }
        }
        world.publish_status(version + 1, State::Completed);
        if client.stream.is_none() {
            client.stream = Some(world.stream(client.last));
        }
        client.reads_to_the_end(&world, version + 1)?;
    }

    #[test]
    fn a_stream_of_all_sessions_ends_up_with_the_newest(
        steps in proptest::collection::vec(step(), 0..60),
        polls in 0u8..4,
    ) {
        let world = World::new(polls);
        let mut version = 1;
        world.publish_status(version, State::Processing);
        let mut client = Client { stream: Some(world.owner_stream()), ..Client::default() };
        let mut connected_at = 0;
        for step in steps {
            match step {
                Step::Status => { version += 1; world.publish_status(version, State::Processing); }
                Step::Segment => { version += 1; world.publish_segment(version); }
                Step::Read(times) => (0..times).for_each(|_| client.read()),
                Step::Disconnect => client.stream = None,
                Step::Connect if client.stream.is_none() => {
                    client = Client { stream: Some(world.owner_stream()), ..Client::default() };
                    connected_at = world.stored.state.lock().unwrap().1.len() as u32;
                }
                Step::Connect => {}
            }
        }
        if client.stream.is_some() {
            (0..500).for_each(|_| client.read());
            let total = world.stored.state.lock().unwrap().1.len() as u32;
            prop_assert_eq!(client.versions.last(), Some(&version));
            prop_assert!(client.versions.windows(2).all(|w| w[0] < w[1]), "{:?}", client.versions);
            prop_assert_eq!(client.indexes, (connected_at..total).collect::<Vec<_>>());
        }
    }

    #[test]
    fn lost_duplicate_and_late_messages_do_not_change_the_result(
        steps in proptest::collection::vec((step(), fate(), fate()), 0..60),
        polls in 0u8..4,
        last in fate(),
    ) {
        let world = World::new(polls);
        let (subscribe, mut requested) = mpsc::unbounded_channel();
        world.hub.subscribe_remote(subscribe);
        let mut version = 1;
        world.store_status(version, State::Processing);
        let mut client = Client { stream: Some(world.stream(EventId::default())), ..Client::default() };
        let mut bus = LossyBus::default();
        for (step, first, second) in steps {
            match step {
                Step::Status => {
                    version += 1;
                    bus.carry(&world, world.store_status(version, State::Processing), first);
                }
                Step::Segment => {
                    version += 1;
                    let (segment, status) = world.store_segment(version);
                    bus.carry(&world, Event::bare_segment(world.owner.clone(), id(), &segment), first);
                    bus.carry(&world, Event::status(world.owner.clone(), status), second);
                }
                Step::Read(0) => world.compare(),
                Step::Read(times) => (0..times).for_each(|_| client.read()),
                Step::Disconnect => client.stream = None,
                Step::Connect if client.stream.is_none() => client.stream = Some(world.stream(client.last)),
                Step::Connect => {}
            }
        }
        prop_assert_eq!(requested.try_recv(), Ok(id()), "no subscription to the session was requested");
        bus.carry(&world, world.store_status(version + 1, State::Completed), last);
        if client.stream.is_none() {
            client.stream = Some(world.stream(client.last));
        }
        world.compare();
        client.reads_to_the_end(&world, version + 1)?;
    }
}

/// What happens to a message between nodes.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Arrives,
    ArrivesTwice,
    GetsLost,
    /// Arrives after the one that follows.
    IsLate,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        4 => Just(Fate::Arrives),
        1 => Just(Fate::ArrivesTwice),
        3 => Just(Fate::GetsLost),
        1 => Just(Fate::IsLate),
    ]
}

#[derive(Default)]
struct LossyBus {
    late: Option<Event>,
}

impl LossyBus {
    fn carry(&mut self, world: &World, event: Event, fate: Fate) {
        let late = self.late.take();
        match fate {
            Fate::Arrives => drop(world.hub.publish(&event)),
            Fate::ArrivesTwice => {
                world.hub.publish(&event);
                world.hub.publish(&event);
            }
            Fate::GetsLost => {}
            Fate::IsLate => self.late = Some(event),
        }
        if let Some(late) = late {
            world.hub.publish(&late);
        }
    }
}

#[test]
fn with_other_nodes_only_requested_sessions_are_held() {
    let world = World::new(0);
    let (subscribe, mut requested) = mpsc::unbounded_channel();
    world.hub.subscribe_remote(subscribe);
    world.publish_status(1, State::Processing);
    world.publish_segment(2);
    assert!(world.hub.held().is_empty() && requested.try_recv().is_err());
    // An owner's stream requests subscriptions to its sessions, each segment comes once, and a deleted session is
    // dropped.
    let mut client = Client { stream: Some(world.owner_stream()), ..Client::default() };
    (0..10).for_each(|_| client.read());
    assert_eq!(requested.try_recv(), Ok(id()));
    assert_eq!(world.hub.held().get(&id()), Some(&(2, 1)));
    let (segment, status) = world.store_segment(3);
    for _ in 0..2 {
        world.hub.publish(&Event::segment(world.owner.clone(), &segment, status.clone()));
    }
    (0..10).for_each(|_| client.read());
    assert_eq!((&client.indexes[..], &client.versions[..]), (&[1][..], &[2, 3][..]));
    world.hub.forget(id());
    assert!(world.hub.held().is_empty());
}
