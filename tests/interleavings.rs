//! That no order of publishing, connecting, reading and coming back loses or doubles anything.

#[path = "support/world.rs"]
mod world;

use hark::{
    model::{EventId, State},
    server::stream::{Kind, StatusStream},
};
use proptest::prelude::*;
use std::task::Poll;
use world::{World, poll};

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
        for _ in 0..2000 {
            if client.ended { break }
            client.read();
        }
        prop_assert!(client.ended, "the stream goes on after the end");
        let total = world.stored.state.lock().unwrap().1.len() as u32;
        prop_assert_eq!(client.indexes, (0..total).collect::<Vec<_>>());
        prop_assert!(client.versions.windows(2).all(|w| w[0] < w[1]), "{:?}", client.versions);
        prop_assert_eq!(client.versions.last(), Some(&(version + 1)));
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
}
