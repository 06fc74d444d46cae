//! That no order of publishing, connecting, reading and coming back loses or doubles anything.

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

/// What happens to one client while a session runs.
#[derive(Clone, Debug)]
enum Act {
    Status,
    Segment,
    /// Polls the stream this often.
    Read(u8),
    Disconnect,
    Connect,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => Just(Act::Status),
        3 => Just(Act::Segment),
        5 => (0u8..6).prop_map(Act::Read),
        1 => Just(Act::Disconnect),
        2 => Just(Act::Connect),
    ]
}

/// A client that does what EventSource does: keeps the last event id and comes back with it.
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
                    Kind::Retry | Kind::Heartbeat | Kind::Bye => {}
                }
            }
        }
    }
}

impl Client {
    /// Reads on: every segment has come once, versions have risen, and the last is that of the end.
    fn comes_to_the_end(mut self, world: &World, last: u64) -> TestCaseResult {
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
        acts in proptest::collection::vec(act(), 0..60),
        polls in 0u8..4,
    ) {
        let world = World::new(polls);
        let mut version = 1;
        world.publish_status(version, State::Processing);
        let mut client = Client::default();
        for act in acts {
            match act {
                Act::Status => { version += 1; world.publish_status(version, State::Processing); }
                Act::Segment => { version += 1; world.publish_segment(version); }
                Act::Read(times) => (0..times).for_each(|_| client.read()),
                Act::Disconnect => client.stream = None,
                Act::Connect if client.stream.is_none() => client.stream = Some(world.stream(client.last)),
                Act::Connect => {}
            }
        }
        world.publish_status(version + 1, State::Completed);
        if client.stream.is_none() {
            client.stream = Some(world.stream(client.last));
        }
        client.comes_to_the_end(&world, version + 1)?;
    }

    #[test]
    fn a_stream_of_all_sessions_ends_up_with_the_newest(
        acts in proptest::collection::vec(act(), 0..60),
        polls in 0u8..4,
    ) {
        let world = World::new(polls);
        let mut version = 1;
        world.publish_status(version, State::Processing);
        let mut client = Client { stream: Some(world.owner_stream()), ..Client::default() };
        let mut connected_at = 0;
        for act in acts {
            match act {
                Act::Status => { version += 1; world.publish_status(version, State::Processing); }
                Act::Segment => { version += 1; world.publish_segment(version); }
                Act::Read(times) => (0..times).for_each(|_| client.read()),
                Act::Disconnect => client.stream = None,
                Act::Connect if client.stream.is_none() => {
                    client = Client { stream: Some(world.owner_stream()), ..Client::default() };
                    connected_at = world.stored.state.lock().unwrap().1.len() as u32;
                }
                Act::Connect => {}
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
    fn a_bus_that_loses_doubles_and_delays_changes_nothing_in_the_end(
        acts in proptest::collection::vec((act(), fate(), fate()), 0..60),
        polls in 0u8..4,
        last in fate(),
    ) {
        let world = World::new(polls);
        let (wants, mut wanted) = mpsc::unbounded_channel();
        world.hub.subscribe_remote(wants);
        let mut version = 1;
        world.store_status(version, State::Processing);
        let mut client = Client { stream: Some(world.stream(EventId::default())), ..Client::default() };
        let mut bus = LossyBus::default();
        for (act, first, second) in acts {
            match act {
                Act::Status => {
                    version += 1;
                    bus.carry(&world, world.store_status(version, State::Processing), first);
                }
                Act::Segment => {
                    version += 1;
                    let (segment, status) = world.store_segment(version);
                    bus.carry(&world, Event::bare_segment(world.owner.clone(), id(), &segment), first);
                    bus.carry(&world, Event::status(world.owner.clone(), status), second);
                }
                Act::Read(0) => world.compare(),
                Act::Read(times) => (0..times).for_each(|_| client.read()),
                Act::Disconnect => client.stream = None,
                Act::Connect if client.stream.is_none() => client.stream = Some(world.stream(client.last)),
                Act::Connect => {}
            }
        }
        prop_assert_eq!(wanted.try_recv(), Ok(id()), "nobody would listen for the session");
        bus.carry(&world, world.store_status(version + 1, State::Completed), last);
        if client.stream.is_none() {
            client.stream = Some(world.stream(client.last));
        }
        world.compare();
        client.comes_to_the_end(&world, version + 1)?;
    }
}

/// What becomes of a message on its way between nodes.
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
fn what_nobody_asked_for_is_not_held_where_others_publish_too() {
    let world = World::new(0);
    let (wants, mut wanted) = mpsc::unbounded_channel();
    world.hub.subscribe_remote(wants);
    world.publish_status(1, State::Processing);
    world.publish_segment(2);
    assert!(world.hub.held().is_empty() && wanted.try_recv().is_err());
    // An owner's stream makes its sessions wanted, each segment comes once, and a session that is gone is let go.
    let mut client = Client { stream: Some(world.owner_stream()), ..Client::default() };
    (0..10).for_each(|_| client.read());
    assert_eq!(wanted.try_recv(), Ok(id()));
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
