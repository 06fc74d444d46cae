//! Tests of the queue of uploads.

use super::*;
use crate::model::{SessionId, State, Timestamp};
use proptest::prelude::*;

fn queue(sizes: &[u64]) -> Queue {
    let mut queue = Queue::default();
    for (key, bytes) in (0..).zip(sizes) {
        queue.add(
            Picked { key, name: format!("{key}.wav"), bytes: *bytes, begun: false },
            UploadOptions::default(),
            1000,
        );
    }
    queue
}

fn keys(started: &[(u32, UploadOptions)]) -> Vec<u32> {
    started.iter().map(|(key, _)| *key).collect()
}

fn done() -> Event {
    let id = SessionId(uuid::Uuid::nil());
    Event::Done(Box::new(Status::new(id, State::Queued, None, Timestamp(0))))
}

fn sent(bytes: u64, at: f64) -> Event {
    Event::Sent { bytes, at }
}

#[test]
fn two_uploads_are_sent_at_once_in_order() {
    let mut queue = queue(&[10, 10, 10, 10]);
    assert_eq!(keys(&queue.start(0.0)), [0, 1]);
    assert_eq!(keys(&queue.start(0.0)), [0; 0]);
    queue.on(1, done());
    assert_eq!(keys(&queue.start(1.0)), [2]);
    queue.abort(0);
    assert_eq!(keys(&queue.start(1.0)), [3]);
    assert_eq!(queue.open(), 2);
}

#[test]
fn the_neighbour_of_an_upload_is_the_next_one_or_the_one_before() {
    let mut queue = queue(&[10, 10, 10]);
    assert_eq!([0, 1, 2, 3].map(|key| queue.neighbour(key, false)), [Some(1), Some(2), Some(1), None]);
    let _ = queue.start(0.0);
    queue.on(1, done());
    assert_eq!([0, 1, 2].map(|key| queue.neighbour(key, true)), [Some(2), Some(2), Some(0)]);
    assert_eq!(queue.neighbour(2, false), Some(1));
    queue.remove(0);
    queue.remove(1);
    assert_eq!(queue.neighbour(2, false), None);
}

#[test]
fn the_queue_is_stalled_while_one_of_its_uploads_is() {
    let mut queue = queue(&[10, 10, 10]);
    let _ = queue.start(0.0);
    assert!(!queue.is_stalled());
    queue.on(0, Event::Stalled);
    queue.on(1, Event::Stalled);
    queue.on(0, sent(5, 1.0));
    assert!(queue.is_stalled());
    queue.on(1, Event::Found { bytes: 5, at: 1.0 });
    assert!(!queue.is_stalled());
    queue.on(1, Event::Stalled);
    queue.abort(1);
    assert!(!queue.is_stalled());
}

#[test]
fn a_file_that_is_too_large_is_never_sent() {
    let mut queue = queue(&[1001, 1000]);
    assert_eq!(keys(&queue.start(0.0)), [1]);
    queue.retry(0);
    assert!(matches!(&queue.uploads[0].phase, Phase::Failed(text) if text.contains("1.0 kB")));
}

#[test]
fn events_after_the_end_are_ignored_and_a_retry_starts_over() {
    let mut queue = queue(&[10]);
    let _ = queue.start(0.0);
    queue.on(0, Event::Failed("no".to_owned()));
    queue.on(0, done());
    assert_eq!(queue.uploads[0].phase, Phase::Failed("no".to_owned()));
    queue.retry(0);
    assert_eq!(keys(&queue.start(5.0)), [0]);
    queue.abort(0);
    queue.on(0, sent(3, 6.0));
    assert_eq!(queue.uploads[0].phase, Phase::Aborted);
    queue.remove(0);
    assert_eq!((queue.uploads.len(), queue.total()), (0, None));
}

#[test]
fn speed_and_remaining_time_are_known_once_the_speed_has_settled() {
    let mut queue = queue(&[1000]);
    let _ = queue.start(0.0);
    queue.on(0, sent(100, 0.5));
    assert_eq!((queue.uploads[0].percent(), queue.uploads[0].speed()), (10.0, None));
    queue.on(0, sent(500, 2.0));
    assert_eq!(queue.uploads[0].speed(), Some(250.0));
    assert_eq!(queue.uploads[0].seconds_remaining(), Some(2.0));
    queue.on(0, Event::Stalled);
    assert_eq!((queue.uploads[0].is_stalled(), queue.uploads[0].percent()), (true, 50.0));
    assert_eq!(queue.uploads[0].seconds_remaining(), None);
    queue.on(0, sent(600, 4.0));
    assert_eq!((queue.uploads[0].is_stalled(), queue.uploads[0].speed()), (false, Some(150.0)));
}

#[test]
fn what_was_there_before_is_progress_and_no_speed() {
    let mut queue = queue(&[1000]);
    let _ = queue.start(0.0);
    queue.on(0, Event::Found { bytes: 600, at: 1.0 });
    assert_eq!((queue.uploads[0].percent(), queue.uploads[0].speed()), (60.0, None));
    queue.on(0, sent(700, 3.0));
    assert_eq!((queue.uploads[0].speed(), queue.uploads[0].seconds_remaining()), (Some(50.0), Some(6.0)));
}

#[test]
fn a_file_that_was_sent_before_is_sent_only_if_it_is_wanted() {
    let mut queue = queue(&[1000]);
    let _ = queue.start(0.0);
    let Event::Done(status) = done() else { unreachable!() };
    queue.on(0, Event::SentBefore(status));
    assert_eq!((queue.open(), queue.has_unfinished(), queue.total()), (0, false, None));
    queue.retry(0);
    assert!(queue.start(1.0)[0].1.again);
}

#[test]
fn the_whole_run_has_a_percentage_and_a_remaining_time() {
    let mut queue = queue(&[100, 300, 600, 2000]);
    assert_eq!(queue.total().map(|t| (t.files, t.done, t.percent)), Some((3, 0, 0.0)));
    let _ = queue.start(10.0);
    queue.on(0, sent(100, 10.5));
    assert_eq!(queue.total().unwrap().words(), "0 of 3 sent, 10%");
    queue.on(0, done());
    let _ = queue.start(10.5);
    queue.on(1, sent(150, 11.0));
    queue.on(2, sent(150, 12.0));
    // 400 bytes in 2 seconds, 600 to go.
    assert_eq!(queue.total().unwrap().seconds_remaining, Some(3.0));
    queue.on(2, sent(400, 60.0));
    assert_eq!(queue.total().unwrap().words(), "1 of 3 sent, 65%, 25 s left");
    // What failed counts no longer, and what is tried again does.
    queue.on(2, Event::Failed("no".to_owned()));
    assert_eq!(queue.total().unwrap().words(), "1 of 2 sent, 62%, 10 s left");
    queue.retry(2);
    assert_eq!(queue.total().map(|t| (t.files, t.percent)), Some((3, 25.0)));
}

#[test]
fn another_run_begins_when_all_have_ended() {
    let mut queue = queue(&[10, 10]);
    let _ = queue.start(0.0);
    queue.on(0, done());
    queue.abort(1);
    assert_eq!(queue.total(), None);
    let more = |key| Picked { key, name: String::new(), bytes: 0, begun: false };
    queue.add(more(7), UploadOptions::default(), 1000);
    queue.add(more(8), UploadOptions::default(), 1000);
    let total = Total { files: 2, done: 0, percent: 0.0, seconds_remaining: None };
    assert_eq!(queue.total(), Some(total));
    queue.retry(1);
    assert_eq!(queue.total().unwrap().files, 3);
    queue.on(0, done());
    assert_eq!(queue.total().unwrap().done, 0);
}

proptest! {
    /// Whatever happens, the whole stays between nothing and all, and is there as long as something is under way.
    #[test]
    fn totals_are_within_their_bounds(steps in proptest::collection::vec((0u8..6, 0u32..5, 0u64..2000), 0..60)) {
        let mut queue = queue(&[10, 0, 500, 1000]);
        let mut now = 0.0;
        for (step, key, n) in steps {
            now += 0.4;
            match step {
                0 => drop(queue.start(now)),
                1 => queue.on(key, sent(n, now)),
                2 => queue.on(key, done()),
                3 => queue.abort(key),
                4 => queue.retry(key),
                _ => queue.on(key, Event::Failed(String::new())),
            }
            prop_assert_eq!(queue.total().is_some(), queue.open() > 0);
            if let Some(total) = queue.total() {
                prop_assert!(total.done < total.files && total.files <= 4);
                prop_assert!((0.0..=100.0).contains(&total.percent), "{total:?}");
                prop_assert!(total.seconds_remaining.is_none_or(|s| s.is_finite() && s >= 0.0));
            }
        }
    }
}
