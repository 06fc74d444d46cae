//! The store, on SQLite and on a real PostgreSQL: the same suite on both.

#[path = "support/postgres.rs"]
#[allow(unreachable_pub, reason = "shared by test binaries")]
mod postgres;
mod support;

use hark::{
    model::{EngineId, Failure, Media, Segment, SessionId, Stage, State, Status, Timestamp, Title},
    server::{
        owner::Owner,
        store::{Claim, Ending, NewSession, Store},
    },
};
use postgres::Postgres;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use support::{TestApp, slow_engine, wav};
use uuid::Uuid;

/// A clock that goes on by a second with each look.
fn now() -> Timestamp {
    static NOW: AtomicI64 = AtomicI64::new(1_700_000_000_000);
    Timestamp(NOW.fetch_add(1_000, Relaxed))
}

fn owner(name: &str) -> Owner {
    Owner::from_store(name.to_owned())
}

async fn add(store: &Store, whose: &str, title: &str, engine: EngineId) -> SessionId {
    let new = NewSession {
        id: SessionId(Uuid::now_v7()),
        owner: owner(whose),
        title: Title::new(title).unwrap(),
        engine,
        language: None,
        media: Media { file_name: "a.wav".to_owned(), bytes: 5_000_000_000, ..Media::default() },
        duration_total: Some(60.0),
        lease_until: None,
    };
    store.insert(&new, now()).await.unwrap().0.id
}

async fn claim(store: &Store, lease_until: Timestamp) -> Option<Claim> {
    store.claim("worker", now(), lease_until).await.unwrap().map(|(claim, _)| claim)
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
    the_queue_has_an_order(store).await;
    workers_never_take_the_same(store).await;
    outside_workers_report(store).await;
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
        assert!(store.reap(lease, false, 3).await.unwrap().is_empty(), "not before it has run out");
        let events = store.reap(now(), false, 3).await.unwrap();
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

    let retried = store.retry(&owner("lost"), id, now()).await.unwrap().unwrap();
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
    assert_eq!(store.reap(now(), true, 3).await.unwrap().len(), 1);
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
    store.ping().await.unwrap();
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
