//! The store, on SQLite and on a real PostgreSQL: the same suite on both.

#[path = "support/postgres.rs"]
#[allow(unreachable_pub, reason = "shared by test binaries")]
mod postgres;
mod support;

use hark::{
    model::{EngineId, Failure, Media, Segment, SessionId, Stage, State, Status, Timestamp, Title},
    server::{
        owner::Owner,
        store::{Claim, Ending, EnqueueError, NewSession, QueueFull, QueueLimits, STALLED_SECS, Store, Way},
    },
};
use postgres::Postgres;
use serde_json::Value;
use std::{
    path::Path,
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};
use support::{PATIENCE, Sse, TestApp, Visitor, slow_engine, wav};
use tokio::{sync::Barrier, time};
use uuid::Uuid;

/// A clock that goes on by a second with each look.
fn now() -> Timestamp {
    static NOW: AtomicI64 = AtomicI64::new(1_700_000_000_000);
    Timestamp(NOW.fetch_add(1_000, Relaxed))
}

fn owner(name: &str) -> Owner {
    Owner::from_store(name.to_owned())
}

fn new_session(whose: &str, title: &str, engine: EngineId) -> NewSession {
    NewSession {
        id: SessionId(Uuid::now_v7()),
        owner: owner(whose),
        title: Title::new(title).unwrap(),
        engine,
        language: None,
        media: Media { file_name: "a.wav".to_owned(), bytes: 5_000_000_000, ..Media::default() },
        duration_total: Some(60.0),
        lease_until: None,
    }
}

async fn add(store: &Store, whose: &str, title: &str, engine: EngineId) -> SessionId {
    store.insert(&new_session(whose, title, engine), now()).await.unwrap().0.id
}

async fn claim(store: &Store, lease_until: Timestamp) -> Option<Claim> {
    store.claim("worker", now(), lease_until, u64::MAX).await.unwrap().map(|(claim, _)| claim)
}

fn segment(index: u32) -> Segment {
    let start = f64::from(index);
    let text = format!("line {index}: \u{2028} \u{1f34e} '\"\\ %_");
    Segment { index, start, end: start + 1.0, text, confidence: Some(0.5), words: Vec::new() }
}

fn next(status: &Status) -> Status {
    Status { version: status.version + 1, timestamp: now(), ..status.clone() }
}

fn later() -> Timestamp {
    Timestamp(i64::MAX / 2)
}

async fn suite(store: &Store) {
    lists_belong_to_owners_and_are_searched(store).await;
    a_session_goes_its_way(store).await;
    what_was_lost_is_taken_back_and_fenced(store).await;
    who_runs_a_session_does_not_take_it_back(store).await;
    what_does_not_fit_waits_and_says_so(store).await;
    the_queue_has_an_order(store).await;
    workers_never_take_the_same(store).await;
    the_queue_has_bounds(store).await;
    of_many_that_race_for_the_last_place_one_gets_it(store).await;
    what_hangs_is_seen_and_taken_from_its_worker(store).await;
    outside_workers_report(store).await;
    links_open_once_and_recovery_keys_until_replaced(store).await;
}

async fn lists_belong_to_owners_and_are_searched(store: &Store) {
    let (me, other) = (owner("lists-me"), owner("lists-other"));
    let mut mine = Vec::new();
    for title in ["Interview with ÄNNE", "100% sure", "snake_case", "last"] {
        mine.push(add(store, "lists-me", title, EngineId::External).await);
    }
    let theirs = add(store, "lists-other", "100% mine", EngineId::External).await;
    let list = async |query: &str, before, limit| {
        let found = store.list(&me, query, before, limit).await.unwrap();
        found.into_iter().map(|s| s.id).collect::<Vec<_>>()
    };
    mine.reverse();
    assert_eq!(list("", None, 10).await, mine);
    assert_eq!(list("", Some(mine[1]), 1).await, [mine[2]]);
    // Wildcards are letters.
    assert_eq!(list("0% S", None, 10).await, [mine[2]]);
    assert_eq!(list("e_c", None, 10).await, [mine[1]]);
    assert_eq!(list("INTERVIEW", None, 10).await, [mine[3]]);
    assert_eq!(list("'; DROP TABLE sessions", None, 10).await, []);
    assert!(store.session(&other, mine[0]).await.unwrap().is_none());
    assert!(store.cancel(&other, mine[0], now()).await.unwrap().is_none());
    assert!(!store.delete(&other, mine[0]).await.unwrap());
    assert!(!store.rename(&other, mine[0], &Title::new("x").unwrap()).await.unwrap());
    assert!(store.rename(&me, mine[0], &Title::new("renamed").unwrap()).await.unwrap());
    let session = store.session(&me, mine[0]).await.unwrap().unwrap();
    assert_eq!((session.title.as_str(), session.media.bytes), ("renamed", 5_000_000_000));
    for id in mine {
        assert!(store.exists(id).await.unwrap() && store.delete(&me, id).await.unwrap());
        assert!(!store.exists(id).await.unwrap());
    }
    store.delete(&other, theirs).await.unwrap();
}

async fn a_session_goes_its_way(store: &Store) {
    let id = add(store, "way", "way", EngineId::Pocketsphinx).await;
    let claimed = claim(store, later()).await.unwrap();
    assert_eq!(claimed.session.id, id);
    let mut status = claimed.session.status.clone();
    assert_eq!((status.state, status.stage, status.attempt), (State::Processing, Some(Stage::Decoding), 1));
    status = Status { stage: Some(Stage::Transcribing), progress: Some(12.5), ..next(&status) };
    assert!(store.save(&claimed, &status).await.unwrap().is_some());
    // A segment with a status of its own, and one that the next status counts.
    for (index, new) in [(0, true), (1, false)] {
        status = Status { segments: index + 1, ..if new { next(&status) } else { status } };
        let event = store.append(&claimed, &segment(index), &status, new).await.unwrap().unwrap();
        assert_eq!(event.new_status().is_some(), new);
    }
    // The same index twice is refused as a whole.
    let again = Status { segments: 9, ..next(&status) };
    assert!(store.append(&claimed, &segment(1), &again, true).await.is_err());
    assert_eq!(store.any(id).await.unwrap().unwrap().0.status.segments, 2);
    assert_eq!(store.segments(id, 1, 10).await.unwrap(), [segment(1)]);
    assert_eq!(store.segments(id, 0, 1).await.unwrap(), [segment(0)]);
    store.save_model(&claimed, "en-us").await.unwrap();
    store.save_waveform(id, &[0, 128, 255]).await.unwrap();
    store.save_waveform(id, &[1, 2]).await.unwrap();
    assert_eq!(store.waveform(id).await.unwrap(), Some(vec![1, 2]));
    // A version that falls changes nothing.
    let old = Status { version: status.version - 1, progress: Some(1.0), ..status.clone() };
    assert!(store.save(&claimed, &old).await.unwrap().is_none());

    let ended = store.end(&claimed, next(&status), Ending::Completed).await.unwrap().unwrap();
    let ended = ended.new_status().unwrap().clone();
    assert_eq!((ended.state, ended.progress, ended.segments), (State::Completed, Some(100.0), 2));
    let session = store.any(id).await.unwrap().unwrap().0;
    assert_eq!((session.model.as_deref(), session.finished_at), (Some("en-us"), Some(ended.timestamp)));
    assert!(store.save(&claimed, &next(&ended)).await.unwrap().is_none(), "what has ended stays as it is");
    // When it entered which stage, and that it left the last.
    let stages = store.stages(id).await.unwrap().0;
    let names: Vec<_> = stages.iter().map(|(_, stage)| *stage).collect();
    assert_eq!(names, [Some(Stage::Decoding), Some(Stage::Transcribing), None]);
    assert!(stages.is_sorted_by_key(|(at, _)| *at));
    let since = Timestamp(ended.timestamp.0);
    assert_eq!(store.statuses(&owner("way"), since).await.unwrap().len(), 1);
    assert_eq!(store.statuses(&owner("way"), Timestamp(since.0 + 1)).await.unwrap().len(), 0);
    store.delete(&owner("way"), id).await.unwrap();
    assert!(store.segments(id, 0, 10).await.unwrap().is_empty() && store.stages(id).await.unwrap().0.is_empty());
}

async fn what_was_lost_is_taken_back_and_fenced(store: &Store) {
    let id = add(store, "lost", "lost", EngineId::Pocketsphinx).await;
    let mut versions = Vec::new();
    for attempt in 1..=3 {
        let lease = now();
        let lost = claim(store, lease).await.unwrap();
        assert_eq!((lost.session.status.attempt, lost.crashes), (attempt, attempt - 1));
        versions.push(lost.session.status.version);
        assert!(store.reap(lease, false, &[], 3).await.unwrap().is_empty(), "not before it has run out");
        let events = store.reap(now(), false, &[], 3).await.unwrap();
        let status = events[0].new_status().unwrap();
        versions.push(status.version);
        let over = attempt == 3;
        assert_eq!(status.state, if over { State::Failed } else { State::Queued });
        assert_eq!(status.error.as_ref().map(|e| e.code.as_str()), over.then_some("worker_lost"));
        // The worker that wakes up too late can write nothing.
        assert!(!store.renew(&lost, later()).await.unwrap());
        let late = Status { segments: 1, ..next(&lost.session.status) };
        assert!(store.append(&lost, &segment(0), &late, true).await.unwrap().is_none());
        assert!(store.end(&lost, late, Ending::Completed).await.unwrap().is_none());
    }
    assert!(versions.is_sorted() && store.segments(id, 0, 10).await.unwrap().is_empty());

    let retried = store.retry(&owner("lost"), id, None, now()).await.unwrap().unwrap();
    assert_eq!(retried.new_status().unwrap().state, State::Queued);
    let kept = claim(store, later()).await.unwrap();
    assert_eq!((kept.session.status.attempt, kept.crashes), (4, 0));
    assert!(store.renew(&kept, later()).await.unwrap());
    let back = store.end(&kept, next(&kept.session.status), Ending::HandedBack).await.unwrap().unwrap();
    assert_eq!(back.new_status().unwrap().queue_position, Some(0));
    let crashed = claim(store, later()).await.unwrap();
    let back = store.requeue_crashed(&crashed, now()).await.unwrap().unwrap();
    assert_eq!(back.new_status().unwrap().state, State::Queued);
    let last = claim(store, later()).await.unwrap();
    assert_eq!(last.crashes, 1);
    let failure = Failure { code: "stalled".to_owned(), message: "It hung.".to_owned() };
    let failed = store.end(&last, next(&last.session.status), Ending::Failed(failure.clone())).await.unwrap().unwrap();
    assert_eq!(failed.new_status().unwrap().error, Some(failure));
    store.delete(&owner("lost"), id).await.unwrap();
}

async fn who_runs_a_session_does_not_take_it_back(store: &Store) {
    let mut ids = Vec::new();
    for title in ["mine", "another's"] {
        ids.push(add(store, "running", title, EngineId::Pocketsphinx).await);
        assert_eq!(claim(store, now()).await.unwrap().session.id, ids[ids.len() - 1]);
    }
    let taken = store.reap(now(), false, &ids[..1], 3).await.unwrap();
    let taken: Vec<_> = taken.iter().map(|event| event.new_status().unwrap().session_id).collect();
    assert_eq!(taken, ids[1..]);
    for id in ids {
        store.delete(&owner("running"), id).await.unwrap();
    }
}

async fn what_does_not_fit_waits_and_says_so(store: &Store) {
    let mut ids = Vec::new();
    for bytes in [3_000_000_000, 1_000_000, 2_000_000_000] {
        let mut new = new_session("room", "talk", EngineId::Pocketsphinx);
        new.media.bytes = bytes;
        ids.push(store.insert(&new, now()).await.unwrap().0.id);
    }
    let told = async |room| {
        let events = store.note_room(room, now()).await.unwrap();
        let told = events.iter().map(|e| e.new_status().unwrap().clone());
        let mut told: Vec<_> = told.map(|status| (status.session_id, status.version, status.message)).collect();
        told.sort();
        told
    };
    let waits = |needs| format!("Waiting for room on the server's disk: needs about {needs}");
    assert_eq!(told(1_999_999_999).await, [(ids[0], 2, waits("3.0 GB")), (ids[2], 2, waits("2.0 GB"))]);
    assert_eq!(told(1_999_999_998).await, [], "nothing new");
    assert_eq!(told(2_000_000_000).await, [(ids[2], 3, "Waiting for 2 sessions before it".to_owned())]);
    let room = async |room| store.claim("worker", now(), later(), room).await.unwrap().map(|(claim, _)| claim);
    assert!(room(999_999).await.is_none());
    for id in [ids[1], ids[2]] {
        assert_eq!(room(2_000_000_000).await.unwrap().session.id, id, "the oldest that fits");
    }
    assert!(room(2_000_000_000).await.is_none());
    let last = room(3_000_000_000).await.unwrap();
    // What it waited for is forgotten when it is taken up.
    let back = store.end(&last, next(&last.session.status), Ending::HandedBack).await.unwrap().unwrap();
    assert_eq!(back.new_status().unwrap().message, "Next in line");
    store.try_write(now()).await.unwrap();
    for id in ids {
        store.delete(&owner("room"), id).await.unwrap();
    }
}

async fn the_queue_has_an_order(store: &Store) {
    let mut ids = Vec::new();
    for title in ["one", "two", "three"] {
        ids.push(add(store, "queue", title, EngineId::Pocketsphinx).await);
    }
    let place = async |id| store.any(id).await.unwrap().unwrap().0.status.queue_position;
    assert_eq!([place(ids[0]).await, place(ids[2]).await], [Some(0), Some(2)]);
    let first = claim(store, later()).await.unwrap();
    assert_eq!(first.session.id, ids[0]);
    let events = store.refresh_queue(Timestamp(0), Some(2.0), 1).await.unwrap();
    let arrivals: Vec<_> = events.iter().map(|e| e.new_status().unwrap().estimated_completion).collect();
    // A minute each, at twice real time.
    assert_eq!(arrivals, [Some(Timestamp(60_000)), Some(Timestamp(90_000))]);
    store.cancel(&owner("queue"), ids[1], now()).await.unwrap().unwrap();
    assert_eq!(place(ids[2]).await, Some(0));
    let counts = store.counts().await.unwrap();
    assert!(counts.contains(&(State::Queued, 1)) && counts.contains(&(State::Processing, 1)), "{counts:?}");
    // At a start, all that is being processed is taken back, whatever its lease.
    assert_eq!(store.reap(now(), true, &[], 3).await.unwrap().len(), 1);
    for id in ids {
        store.delete(&owner("queue"), id).await.unwrap();
    }
}

async fn workers_never_take_the_same(store: &Store) {
    for n in 0..20 {
        add(store, "race", &format!("{n}"), EngineId::Pocketsphinx).await;
    }
    let workers = (0..8).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut taken = Vec::new();
            while let Some(claimed) = claim(&store, later()).await {
                taken.push(claimed.session.id);
            }
            taken
        })
    });
    let mut taken = Vec::new();
    for worker in workers.collect::<Vec<_>>() {
        taken.extend(worker.await.unwrap());
    }
    taken.sort_by_key(|id| id.0);
    let all = taken.len();
    taken.dedup();
    assert_eq!((all, taken.len()), (20, 20));
    for id in taken {
        store.delete(&owner("race"), id).await.unwrap();
    }
}

/// What a refusal by the full queue says.
fn full<T: std::fmt::Debug>(result: Result<T, EnqueueError>) -> QueueFull {
    match result {
        Err(EnqueueError::Full(full)) => full,
        other => panic!("the queue should be full: {other:?}"),
    }
}

async fn the_queue_has_bounds(store: &Store) {
    let limits = QueueLimits { total: 3, per_owner: 2 };
    let enqueue =
        async |whose: &str| store.enqueue(&new_session(whose, "a", EngineId::Pocketsphinx), limits, now()).await;
    // Those of outside workers are in no queue of Hark's.
    let mut others = Vec::new();
    for _ in 0..4 {
        others.push(add(store, "bound-me", "outside", EngineId::External).await);
    }
    let mine = [enqueue("bound-me").await.unwrap().0.id, enqueue("bound-me").await.unwrap().0.id];
    let (me, you) = (owner("bound-me"), owner("bound-you"));
    let refused = full(enqueue("bound-me").await);
    assert_eq!((refused.own, refused.limit, refused.free_at), (true, 2, None));
    assert_eq!(store.queue_full(&me, limits).await.unwrap(), Some(refused));
    assert_eq!(store.queue_full(&you, limits).await.unwrap(), None);
    let (theirs, event) = enqueue("bound-you").await.unwrap();
    assert_eq!((event.new_status().unwrap().queue_position, theirs.status.state), (Some(2), State::Queued));
    let refused = full(enqueue("bound-you").await);
    assert_eq!((refused.own, refused.limit), (false, 3));
    assert_eq!(store.list(&you, "", None, 10).await.unwrap().len(), 1, "what was refused is not there");

    // A place of everybody's is free when the first that runs is done, one of an owner's when those before are.
    let running = claim(store, later()).await.unwrap();
    let done = Timestamp(now().0 + 30_000);
    let status = Status { estimated_completion: Some(done), ..next(&running.session.status) };
    store.save(&running, &status).await.unwrap().unwrap();
    enqueue("bound-you").await.unwrap();
    assert_eq!(full(enqueue("bound-someone").await).free_at, Some(done));
    let events = store.refresh_queue(now(), Some(2.0), 1).await.unwrap();
    let arrivals: Vec<_> = events.iter().map(|e| e.new_status().unwrap().estimated_completion).collect();
    let refused = full(enqueue("bound-you").await);
    assert_eq!((refused.own, refused.free_at), (true, arrivals[0]));
    assert!(refused.free_at.is_some_and(|at| at > done));

    // One that comes back needs a place as well, unless it had one a moment ago. One that waits is left alone.
    store.cancel(&me, mine[0], now()).await.unwrap().unwrap();
    let before = store.any(mine[0]).await.unwrap().unwrap().0;
    let refused = full(store.retry(&me, mine[0], Some(limits), now()).await);
    assert_eq!((refused.own, refused.limit), (false, 3));
    assert_eq!(store.any(mine[0]).await.unwrap().unwrap().0, before, "a retry in vain changes nothing");
    assert!(store.retry(&me, mine[1], Some(limits), now()).await.unwrap().is_none());
    assert!(store.retry(&me, mine[0], None, now()).await.unwrap().is_some());
    for id in others.into_iter().chain(mine) {
        assert!(store.delete(&me, id).await.unwrap());
    }
    for session in store.list(&you, "", None, 10).await.unwrap() {
        store.delete(&you, session.id).await.unwrap();
    }
}

async fn of_many_that_race_for_the_last_place_one_gets_it(store: &Store) {
    const RACERS: usize = 8;
    for limits in [QueueLimits { total: 1, per_owner: 9 }, QueueLimits { total: 9, per_owner: 1 }] {
        for round in 0..10 {
            let start = Arc::new(Barrier::new(RACERS));
            let race = (0..RACERS).map(|n| {
                let (store, start) = (store.clone(), Arc::clone(&start));
                // Half of them come back, half are new.
                tokio::spawn(async move {
                    let new = new_session("last", &format!("{n}"), EngineId::Pocketsphinx);
                    if n % 2 == 0 {
                        store.insert(&new, now()).await.unwrap();
                        store.cancel(&new.owner, new.id, now()).await.unwrap().unwrap();
                    }
                    start.wait().await;
                    let got = match n % 2 {
                        0 => store.retry(&new.owner, new.id, Some(limits), now()).await.map(|event| event.is_some()),
                        _ => store.enqueue(&new, limits, now()).await.map(|_| true),
                    };
                    match got {
                        Ok(got) => got,
                        Err(EnqueueError::Full(_)) => false,
                        Err(EnqueueError::Store(error)) => panic!("{error}"),
                    }
                })
            });
            let mut winners = 0;
            for racer in race.collect::<Vec<_>>() {
                winners += usize::from(racer.await.unwrap());
            }
            let mine = store.list(&owner("last"), "", None, 100).await.unwrap();
            let waiting = mine.iter().filter(|s| s.status.state == State::Queued).count();
            assert_eq!((winners, waiting), (1, 1), "round {round} with {limits:?}");
            for session in mine {
                store.delete(&owner("last"), session.id).await.unwrap();
            }
        }
    }
}

async fn what_hangs_is_seen_and_taken_from_its_worker(store: &Store) {
    let whose = owner("hang");
    let at = now();
    let after = |seconds: f64| at.plus_seconds(seconds);
    let id = add(store, "hang", "hang", EngineId::Pocketsphinx).await;
    let queued = store.health(after(100.0), STALLED_SECS).await.unwrap();
    assert!(queued.oldest_queued.is_some_and(|since| since > at), "{queued:?}");
    let (first, _) = store.claim("worker-1", at, later(), u64::MAX).await.unwrap().unwrap();
    let told = store.health(after(60.0), STALLED_SECS).await.unwrap();
    assert_eq!((told.stalled, told.long_running, told.oldest_queued), (0, 0, None));
    assert!(store.stuck(after(60.0), STALLED_SECS).await.unwrap().is_empty());
    let told = store.health(after(60.1), STALLED_SECS).await.unwrap();
    assert_eq!((told.stalled, told.long_running), (1, 0));
    // Busy, but for longer than ten minutes and three times its minute of audio.
    let mut status =
        Status { version: first.session.status.version + 1, timestamp: after(779.0), ..first.session.status.clone() };
    status.stage = Some(Stage::Transcribing);
    status.progress = Some(50.0);
    status.segments = 1;
    store.append(&first, &segment(0), &status, true).await.unwrap().unwrap();
    assert!(store.stuck(after(780.0), STALLED_SECS).await.unwrap().is_empty());
    let told = store.health(after(780.1), STALLED_SECS).await.unwrap();
    assert_eq!((told.stalled, told.long_running), (0, 1));
    // A lease that ran out is enough.
    assert!(store.renew(&first, after(700.0)).await.unwrap());
    let stuck = store.stuck(after(750.0), STALLED_SECS).await.unwrap();
    let [stuck] = &stuck[..] else { panic!("{stuck:?}") };
    assert_eq!((stuck.id, stuck.attempt, stuck.stalled, stuck.long_running), (id, 1, true, false));
    assert_eq!(
        (stuck.worker.as_deref(), stuck.stage, stuck.progress),
        (Some("worker-1"), Some(Stage::Transcribing), Some(50.0))
    );
    assert_eq!((stuck.updated_at, stuck.lease_until), (after(779.0), Some(after(700.0))));
    // It moved on meanwhile.
    assert!(store.renew(&first, later()).await.unwrap());
    assert!(store.release(stuck, &Way::Requeue, after(750.0), STALLED_SECS).await.unwrap().is_none());

    let event = store.release(stuck, &Way::Requeue, after(900.0), STALLED_SECS).await.unwrap().unwrap();
    let back = event.new_status().unwrap();
    assert_eq!((back.state, back.queue_position, back.segments), (State::Queued, Some(0), 1));
    assert!(back.version > status.version + 500);
    let fenced = async |late: &Status| {
        assert!(!store.renew(&first, later()).await.unwrap());
        assert!(store.save(&first, late).await.unwrap().is_none());
        assert!(
            store.append(&first, &segment(1), &Status { segments: 2, ..late.clone() }, true).await.unwrap().is_none()
        );
        assert!(store.end(&first, late.clone(), Ending::Completed).await.unwrap().is_none());
        assert!(store.requeue_crashed(&first, late.timestamp).await.unwrap().is_none());
    };
    let late = Status { version: back.version + 5_000, timestamp: after(901.0), ..status.clone() };
    fenced(&late).await;
    // It waits since it came back, though it keeps its place.
    assert_eq!(store.health(after(905.0), STALLED_SECS).await.unwrap().oldest_queued, Some(after(900.0)));
    let (second, _) = store.claim("worker-2", after(910.0), later(), u64::MAX).await.unwrap().unwrap();
    assert_eq!((second.session.status.attempt, second.crashes, second.session.status.segments), (2, 0, 1));
    fenced(&Status { version: late.version + 5_000, ..late.clone() }).await;
    assert!(
        store.release(stuck, &Way::Requeue, after(2000.0), STALLED_SECS).await.unwrap().is_none(),
        "another attempt"
    );
    // The new attempt counts from its own beginning.
    assert!(store.stuck(after(960.0), STALLED_SECS).await.unwrap().is_empty());

    let stuck = store.stuck(after(2000.0), STALLED_SECS).await.unwrap().remove(0);
    assert!(stuck.stalled && stuck.long_running);
    let reason = "An operator ended it.".to_owned();
    let event = store.release(&stuck, &Way::Fail(reason.clone()), after(2000.0), STALLED_SECS).await.unwrap().unwrap();
    let failed = event.new_status().unwrap();
    assert_eq!((failed.state, &failed.message), (State::Failed, &reason));
    assert_eq!(failed.error, Some(Failure { code: "stuck".to_owned(), message: reason }));
    let late = Status { version: failed.version + 5_000, ..second.session.status.clone() };
    assert!(store.end(&second, late.clone(), Ending::Completed).await.unwrap().is_none());
    assert!(store.end(&second, late, Ending::HandedBack).await.unwrap().is_none());
    let ended = store.any(id).await.unwrap().unwrap().0;
    assert_eq!((ended.status.state, ended.finished_at, ended.status.segments), (State::Failed, Some(after(2000.0)), 1));
    assert!(store.retry(&whose, id, None, now()).await.unwrap().is_some(), "its owner can try again");
    store.delete(&whose, id).await.unwrap();

    // An outside worker has its own queue, if any: its session can only be ended.
    let id = add(store, "hang", "outside", EngineId::External).await;
    let first = store.any(id).await.unwrap().unwrap().0.status;
    let running = Status { state: State::Processing, timestamp: at, ..next(&first) };
    assert!(store.report(&Status { timestamp: at, ..running.clone() }, later()).await.unwrap());
    let stuck = store.stuck(after(61.0), STALLED_SECS).await.unwrap().remove(0);
    assert_eq!((stuck.id, stuck.worker.as_deref()), (id, None));
    assert!(store.release(&stuck, &Way::Requeue, after(61.0), STALLED_SECS).await.unwrap().is_none());
    assert!(store.release(&stuck, &Way::Fail("x".to_owned()), after(61.0), STALLED_SECS).await.unwrap().is_some());
    assert!(!store.report(&Status { version: running.version + 5_000, ..running }, later()).await.unwrap());
    store.delete(&whose, id).await.unwrap();
}

async fn outside_workers_report(store: &Store) {
    let id = add(store, "outside", "outside", EngineId::External).await;
    assert!(claim(store, later()).await.is_none(), "no worker of Hark's takes it");
    let first = store.any(id).await.unwrap().unwrap().0.status;
    let running = Status { state: State::Processing, stage: Some(Stage::Transcribing), ..next(&first) };
    assert!(store.report(&running, later()).await.unwrap());
    assert!(!store.report(&running, later()).await.unwrap(), "the version must rise");
    let words = vec![hark::model::Word { text: "a".to_owned(), start: 0.0, end: 0.5, confidence: None }];
    let segments = [Segment { words, ..segment(0) }, segment(1)];
    assert!(store.report_segments(id, 0, &segments, later()).await.unwrap());
    assert!(!store.report_segments(id, 0, &segments, later()).await.unwrap(), "they are there already");
    assert_eq!(store.segments(id, 0, 10).await.unwrap(), segments);
    let step = Status { progress: Some(33.3), message: "It's “going”".to_owned(), segments: 2, ..next(&running) };
    let silent = now();
    store.report_steps(&[step.clone(), Status { version: 1, ..step.clone() }], silent).await.unwrap();
    let stored = store.any(id).await.unwrap().unwrap().0.status;
    assert_eq!(stored, Status { queue_position: None, ..step });
    let events = store.reap_outside(now()).await.unwrap();
    let lost = events.iter().find_map(|e| e.new_status().filter(|s| s.session_id == id)).unwrap();
    assert_eq!((lost.state, lost.segments), (State::Failed, 2));
    store.delete(&owner("outside"), id).await.unwrap();
}

async fn links_open_once_and_recovery_keys_until_replaced(store: &Store) {
    let (ann, bob) = (owner("link-ann"), owner("link-bob"));
    add(store, "link-ann", "Talk", EngineId::Command).await;
    assert_eq!((store.count(&ann).await.unwrap(), store.count(&bob).await.unwrap()), (1, 0));
    let at = now();
    let later = |secs: f64| at.plus_seconds(secs);
    store.replace_link(&ann, "a1", Some(later(600.0)), at).await.unwrap();
    store.replace_link(&bob, "b1", Some(later(600.0)), at).await.unwrap();
    // Looking changes nothing.
    for _ in 0..2 {
        assert_eq!(store.link("a1", at).await.unwrap(), Some((ann.clone(), Some(later(600.0)))));
    }
    assert_eq!(store.link("a1", later(600.0)).await.unwrap(), None);
    assert_eq!(store.take_link("a1", later(600.0)).await.unwrap(), None);
    let takers = (0..8).map(|_| store.take_link("a1", at));
    let got = futures::future::join_all(takers).await.into_iter().filter_map(Result::unwrap).count();
    assert_eq!(got, 1, "a link works once");
    // A new one takes the place of the last, and takes away what has expired.
    store.replace_link(&bob, "b2", Some(later(1200.0)), at).await.unwrap();
    assert_eq!(store.take_link("b1", at).await.unwrap(), None);
    store.replace_link(&ann, "a2", Some(later(3000.0)), later(1300.0)).await.unwrap();
    assert_eq!(store.take_link("b2", at).await.unwrap(), None);
    // A recovery key is beside it, works again and again, and ends when it is replaced or revoked.
    assert_eq!(store.recovery_key(&ann).await.unwrap(), None);
    store.replace_link(&ann, "r1", None, at).await.unwrap();
    assert_eq!(store.recovery_key(&ann).await.unwrap(), Some(at));
    for _ in 0..2 {
        assert_eq!(store.take_link("r1", later(1e9)).await.unwrap(), Some(ann.clone()));
    }
    store.replace_link(&ann, "r2", None, later(1.0)).await.unwrap();
    assert_eq!(store.take_link("r1", at).await.unwrap(), None);
    assert_eq!(store.link("a2", at).await.unwrap().map(|(whose, _)| whose), Some(ann.clone()));
    store.revoke_recovery_key(&bob).await.unwrap();
    assert_eq!(store.take_link("r2", at).await.unwrap(), Some(ann.clone()));
    store.revoke_recovery_key(&ann).await.unwrap();
    assert_eq!((store.take_link("r2", at).await.unwrap(), store.recovery_key(&ann).await.unwrap()), (None, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("hark.sqlite");
    let store = Store::open(&path).await.unwrap();
    assert!(!store.is_shared());
    suite(&store).await;
    store.close().await;
    // Opened again, it is as it was.
    let store = Store::open(&path).await.unwrap();
    store.try_write(now()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgresql() {
    let server = Postgres::start();
    let url = server.database("hark");
    // Several nodes may start at once.
    let stores = tokio::join!(Store::connect(&url), Store::connect(&url), Store::connect(&url));
    let store = stores.0.unwrap();
    assert!(store.is_shared() && stores.1.is_ok() && stores.2.is_ok());
    suite(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_works_on_postgresql() {
    let server = Postgres::start();
    let url = server.database("hark");
    let folder = tempfile::TempDir::new().unwrap();
    let command = slow_engine(folder.path(), 0.0);
    let flags = ["--database-url", &url, "--engine", "command", "--engine-command", &command];
    let app = TestApp::on(folder, &flags).await;
    assert_eq!(app.visitor().get("/readyz").await.status(), 200);
    let me = app.visitor();
    let id = me.session("talk.wav", wav(4.0, 5000.0), &[]).await;
    let status = me.wait(&id, "completed").await;
    assert_eq!((&status["segments"], &status["progress"]), (&4.into(), &100.0.into()));
    let text = me.get(&format!("/api/v1/sessions/{id}/transcript.txt")).await.text().await.unwrap();
    assert_eq!(text, "word at 0\nword at 1\nword at 2\nword at 3\n");
    assert!(me.get(&format!("/sessions/{id}")).await.text().await.unwrap().contains("word at 3"));
    assert!(!app.folder.path().join("hark.sqlite").exists());
    // Stopped and started again, everything is there.
    let folder = app.stop().await;
    let app = TestApp::on(folder, &flags).await;
    let again = app.visitor().get(&format!("/api/v1/sessions/{id}")).await;
    assert_eq!(again.status(), 404, "somebody else's");
    drop(app);
}

/// An engine that answers a segment for each second of audio, but hangs after the second one if it can take a file
/// `hang` away.
fn hanging_engine(folder: &Path) -> String {
    let (file, hang) = (folder.join("hanging.py"), folder.join("hang"));
    let text = r#"import json, os, sys, time
def say(**line): print(json.dumps(line), flush=True)
say(type="ready", protocol=1, model="hanging")
try:
    os.remove(sys.argv[1])
    hangs = True
except FileNotFoundError:
    hangs = False
heard = 0
while True:
    data = sys.stdin.buffer.read(32000)
    if not data: break
    if hangs and heard == 2: time.sleep(3600)
    say(type="segment", start=heard, end=heard + 1, text="word")
    heard += 1
say(type="done")
"#;
    std::fs::write(&file, text).unwrap();
    format!("python3 {} {}", file.display(), hang.display())
}

/// Runs `hark sessions stuck` as an operator would, beside the node.
async fn hark_stuck(folder: &Path, url: Option<&str>, flags: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hark"));
    command.args(["sessions", "stuck", "--idle-secs", "1"]).args(flags).env("HARK_DATA_DIR", folder);
    match url {
        Some(url) => command.env("DATABASE_URL", url),
        None => command.env_remove("DATABASE_URL"),
    };
    let output: Output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code().unwrap(), text)
}

/// The session as the store has it, once `wanted` is true of it.
async fn session(me: &Visitor, id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let waiting = async {
        loop {
            let session = me.json(&format!("/api/v1/sessions/{id}")).await;
            if wanted(&session["status"]) {
                return session["status"].clone();
            }
            time::sleep(Duration::from_millis(50)).await;
        }
    };
    time::timeout(PATIENCE, waiting).await.expect("the session gets there")
}

async fn operators_free_what_is_stuck(url: Option<&str>) {
    let folder = tempfile::TempDir::new().unwrap();
    let command = hanging_engine(folder.path());
    let hang = folder.path().join("hang");
    let mut flags = vec!["--engine", "command", "--engine-command", &command, "--lease-secs", "3"];
    flags.extend(url.iter().flat_map(|url| ["--database-url", url]));
    let app = TestApp::on(folder, &flags).await;
    let (me, data) = (app.visitor(), app.folder.path());
    let stuck = async |flags: &[&str]| hark_stuck(data, url, flags).await;
    assert_eq!(stuck(&[]).await, (0, "no session is stuck\n".to_owned()));
    assert_eq!(stuck(&["--requeue"]).await, (0, "no session is stuck\n".to_owned()));
    assert_eq!(stuck(&["--requeue", "--fail"]).await.0, 2, "only one of them");

    for flag in ["--requeue", "--fail"] {
        std::fs::write(&hang, "").unwrap();
        let id = me.session("talk.wav", wav(5.0, 5000.0), &[]).await;
        session(&me, &id, |status| status["segments"] == 2).await;
        let waiting = async {
            loop {
                let (code, text) = stuck(&[]).await;
                if code == 3 {
                    return text;
                }
                assert_eq!((code, text.as_str()), (0, "no session is stuck\n"));
                time::sleep(Duration::from_millis(100)).await;
            }
        };
        let listed = time::timeout(PATIENCE, waiting).await.expect("it becomes stuck");
        let row = listed.lines().find(|line| line.starts_with(&id)).expect("it is listed");
        for part in ["processing", "transcribing", "  1  ", "left", "stalled"] {
            assert!(row.contains(part), "{part} is missing in: {row}");
        }
        let watching = Sse::new(me.get(&format!("/api/v1/sessions/{id}/status/stream")).await);
        let (code, text) = stuck(&[flag]).await;
        assert_eq!(code, 0, "{text}");
        if flag == "--requeue" {
            assert!(text.contains(&format!("{id} is back in the queue")), "{text}");
            // The old worker notices that it has lost the session, and its place is free for the next attempt.
            let done = session(&me, &id, |status| status["status"] == "completed").await;
            assert_eq!((&done["attempt"], &done["segments"]), (&2.into(), &5.into()));
            let segments = me.json(&format!("/api/v1/sessions/{id}/segments")).await;
            let starts: Vec<_> = segments["segments"].as_array().unwrap().iter().map(|s| s["start"].as_f64()).collect();
            assert_eq!(starts, (0..5).map(|n| Some(f64::from(n))).collect::<Vec<_>>());
        } else {
            assert!(text.contains(&format!("{id} has failed")), "{text}");
            let failed = session(&me, &id, |status| status["status"] == "failed").await;
            // Who watches the node sees what another process did.
            let last = watching.rest().await.pop().unwrap().json();
            assert_eq!((&last["status"], &last["version"]), (&failed["status"], &failed["version"]));
            assert_eq!((&failed["error"]["code"], &failed["segments"]), (&"stuck".into(), &2.into()));
            assert!(failed["message"].as_str().unwrap().starts_with("An operator ended this session"), "{failed}");
            // The worker is free for others, and whatever it did meanwhile has changed nothing.
            let other = me.session("talk.wav", wav(1.0, 5000.0), &[]).await;
            session(&me, &other, |status| status["status"] == "completed").await;
            assert_eq!(session(&me, &id, |_| true).await, failed);
        }
    }
    assert_eq!(stuck(&[]).await, (0, "no session is stuck\n".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_free_what_is_stuck_on_sqlite() {
    operators_free_what_is_stuck(None).await;
    // A folder that isn't Hark's stays as it is.
    let folder = tempfile::TempDir::new().unwrap();
    let (code, text) = hark_stuck(folder.path(), None, &[]).await;
    assert!(code == 1 && text.contains("there is no database"), "{code}: {text}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_free_what_is_stuck_on_postgresql() {
    let server = Postgres::start();
    operators_free_what_is_stuck(Some(&server.database("hark"))).await;
}
