//! The store, on SQLite and on a real PostgreSQL: the same suite on both.

#[path = "support/postgres.rs"]
#[allow(unreachable_pub, reason = "shared by test binaries")]
mod postgres;
mod support;

use hark::{
    model::{
        Arm, Browser, Channels, ConnectionReport, DELAY_BOUNDS_MS, DetectedLanguage, EngineId, Failure, Filter, Media,
        Order, Remark, Segment, SessionId, Stage, State, Status, Timestamp, Title, Track,
        figures::Range,
        load::{NodeLoad, WorkerLoad},
    },
    server::{
        config::FiguresConfig,
        hours::{Hours, Sample, StreamTotals},
        owner::Owner,
        store::{
            ANY_IDLE_SECS, AlertRow, Claim, Cursor, Ending, EnqueueError, LimitScope, NewSession, NodeRow,
            OUTSIDE_VERSION_GAP, OversightFilter, QueueFull, QueueLimits, ReachedLimit, ReadyEngine, Resolution,
            STALLED_SECS, SessionFilter, Share, Store, StoredPassword, StoredReport, TextQuery,
        },
    },
};
use postgres::Postgres;
use reqwest::StatusCode;
use serde_json::Value;
use sqlx::Connection;
use std::{
    path::Path,
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};
use support::{Sse, TIMEOUT, TestApp, Visitor, slow_engine, wav};
use tokio::{sync::Barrier, time};
use uuid::Uuid;

/// A clock that advances by a second with each call.
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
        vocabulary: None,
        channels: Channels::Mix,
        track: None,
        media: Media { file_name: "a.wav".to_owned(), bytes: 5_000_000_000, ..Media::default() },
        duration_total: Some(60.0),
        lease_until: None,
        address: None,
        recording_hash: None,
        upload: None,
    }
}

/// Limits the number of sessions in the queue in all and of one owner, and nothing else.
fn limits(all: u32, owner: u32) -> QueueLimits {
    let share = |sessions| Share { sessions, seconds: 1e9 };
    QueueLimits {
        all: share(all),
        owner: share(owner),
        address: share(1000),
        newcomers: share(1000),
        unknown_secs: 3600.0,
        bytes_per_owner: None,
    }
}

/// Queues a session as an upload does.
async fn enqueue(store: &Store, whose: &str, address: Option<&str>, seconds: Option<f64>) -> SessionId {
    let mut new = new_session(whose, whose, EngineId::Pocketsphinx);
    (new.duration_total, new.address) = (seconds, address.map(str::to_owned));
    store.enqueue(&new, &limits(10_000, 10_000), now()).await.unwrap().0.id
}

/// A filter for titles.
fn titled(query: &str) -> Filter {
    Filter { query: query.to_owned(), ..Filter::default() }
}

/// Claims the next session and completes it at once. Returns its owner.
async fn serve(store: &Store) -> Option<String> {
    let claimed = claim(store, later()).await?;
    store.end(&claimed, next(&claimed.session.status), Ending::Completed).await.unwrap().unwrap();
    Some(claimed.owner.as_str().to_owned())
}

/// Deletes all sessions of these owners.
async fn clear(store: &Store, owners: &[&str]) {
    for whose in owners {
        let whose = owner(whose);
        for session in store.list(&whose, &titled(""), None, 1000).await.unwrap() {
            store.delete(&whose, session.id).await.unwrap();
        }
    }
}

async fn add(store: &Store, whose: &str, title: &str, engine: EngineId) -> SessionId {
    store.insert(&new_session(whose, title, engine), now()).await.unwrap().0.id
}

async fn claim(store: &Store, lease_until: Timestamp) -> Option<Claim> {
    store.claim("worker", now(), lease_until, u64::MAX, &all_engines()).await.unwrap().map(|(claim, _)| claim)
}

/// Every engine, knowing every language.
fn all_engines() -> [ReadyEngine; 5] {
    EngineId::ALL.map(ReadyEngine::any)
}

fn segment(index: u32) -> Segment {
    let start = f64::from(index);
    let text = format!("line {index}: \u{2028} \u{1f34e} '\"\\ %_");
    Segment { confidence: Some(0.5), ..Segment::new(index, start, start + 1.0, &text) }
}

fn next(status: &Status) -> Status {
    Status { version: status.version + 1, timestamp: now(), ..status.clone() }
}

fn later() -> Timestamp {
    Timestamp(i64::MAX / 2)
}

async fn suite(store: &Store) {
    lists_belong_to_owners_and_are_searched(store).await;
    lists_are_filtered_and_paged_in_each_order(store).await;
    what_runs_comes_before_what_waits(store).await;
    texts_begin_with_their_first_words(store).await;
    titles_are_found_in_any_script(store).await;
    texts_are_found_as_soon_as_they_are_stored(store).await;
    a_search_goes_through_all_sessions(store).await;
    a_session_is_claimed_transcribed_and_completed(store).await;
    a_transcript_is_replaced_and_its_numbers_go_on(store).await;
    a_claim_that_is_over_writes_nothing(store).await;
    lost_sessions_are_requeued_and_fenced(store).await;
    a_node_does_not_requeue_the_sessions_it_runs(store).await;
    sessions_without_room_wait_and_say_so(store).await;
    sessions_without_their_model_wait_and_say_so(store).await;
    workers_claim_the_languages_that_their_engines_know(store).await;
    the_queue_has_an_order(store).await;
    workers_never_claim_the_same_session(store).await;
    the_queue_goes_round_by_owner(store).await;
    positions_match_the_order_of_claims(store).await;
    a_running_session_at_its_end_hides_no_arrival_time(store).await;
    queued_sessions_are_updated_only_when_something_changes(store).await;
    newcomers_share_the_limits_of_their_address(store).await;
    hours_of_audio_are_limited_and_the_wait_is_estimated(store).await;
    an_owner_stores_no_more_than_its_quota(store).await;
    owners_have_history_once_a_session_was_completed_long_enough_ago(store).await;
    sessions_that_ended_long_ago_are_listed(store).await;
    the_queue_is_limited(store).await;
    only_one_of_many_at_once_gets_the_last_place_in_the_queue(store).await;
    stuck_sessions_are_listed_and_taken_from_their_workers(store).await;
    administrators_see_and_take_the_sessions_of_all(store).await;
    outside_workers_report_progress_and_segments(store).await;
    several_statuses_are_written_together(store).await;
    links_work_once_and_recovery_keys_until_replaced(store).await;
    administrators_sign_in_until_it_ends(store).await;
    figures_outlast_a_restart_and_are_added_up_over_nodes(store).await;
    figures_are_kept_for_as_long_as_they_should(store).await;
    a_nodes_load_is_kept_with_its_heartbeat(store).await;
    alerts_begin_and_end_once(store).await;
}

async fn lists_belong_to_owners_and_are_searched(store: &Store) {
    let (me, other) = (owner("lists-me"), owner("lists-other"));
    let mut mine = Vec::new();
    for title in ["Interview with ÄNNE", "100% sure", "snake_case", "last"] {
        mine.push(add(store, "lists-me", title, EngineId::External).await);
    }
    let theirs = add(store, "lists-other", "100% mine", EngineId::External).await;
    let list = async |query: &str, before, limit| {
        let found = store.list(&me, &titled(query), before, limit).await.unwrap();
        found.into_iter().map(|s| s.id).collect::<Vec<_>>()
    };
    mine.reverse();
    assert_eq!(list("", None, 10).await, mine);
    let behind = Cursor::behind(&store.session(&me, mine[1]).await.unwrap().unwrap(), Order::Newest);
    assert_eq!(list("", Some(&behind), 1).await, [mine[2]]);
    // Wildcards are taken literally.
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

async fn lists_are_filtered_and_paged_in_each_order(store: &Store) {
    let me = owner("orders");
    // Two titles and two lengths are the same, and one length isn't known.
    let all = [
        ("b", Some(60.0), Some("de")),
        ("a", None, Some("de-AT")),
        ("É", Some(7.1), Some("en")),
        ("B", Some(60.0), Some("en-US")),
        ("10", Some(3600.5), None),
    ];
    let mut ids = Vec::new();
    for (n, (title, length, language)) in all.into_iter().enumerate() {
        let mut new = new_session("orders", title, EngineId::External);
        (new.duration_total, new.language) = (length, language.map(str::to_owned));
        let at = Timestamp(1_700_000_000_000 + n as i64 * 86_400_000);
        ids.push(store.insert(&new, at).await.unwrap().0.id);
    }
    store.cancel(&me, ids[1], now()).await.unwrap().unwrap();
    let numbers = |sessions: Vec<hark::model::Session>| -> Vec<usize> {
        sessions.iter().map(|s| ids.iter().position(|id| *id == s.id).unwrap()).collect()
    };
    for (order, expected) in [
        (Order::Newest, [4, 3, 2, 1, 0]),
        (Order::Oldest, [0, 1, 2, 3, 4]),
        (Order::Longest, [4, 3, 0, 2, 1]),
        (Order::Title, [4, 1, 0, 3, 2]),
    ] {
        let filter = Filter { order, ..Filter::default() };
        assert_eq!(numbers(store.list(&me, &filter, None, 10).await.unwrap()), expected, "{order:?}");
        // From behind each row on, as its cursor says.
        for (n, of) in expected.iter().enumerate() {
            let session = store.session(&me, ids[*of]).await.unwrap().unwrap();
            let place = Cursor::parse(&Cursor::behind(&session, order).to_string(), order).unwrap();
            let rest = store.list(&me, &filter, Some(&place), 2).await.unwrap();
            let expected: Vec<_> = expected[n + 1..].iter().take(2).copied().collect();
            assert_eq!(numbers(rest), expected, "{order:?} behind {of}");
        }
    }
    let day = |n: i64| Timestamp(1_700_000_000_000 + n * 86_400_000).to_string();
    for (changes, expected) in [
        (&[("state", "active")][..], &[4, 3, 2, 0][..]),
        (&[("state", "cancelled")], &[1]),
        (&[("state", "completed")], &[]),
        (&[("language", "de")], &[1, 0]),
        (&[("language", "EN-GB")], &[3, 2]),
        (&[("language", "fr")], &[]),
        (&[("since", &*day(3))], &[4, 3]),
        (&[("until", &*day(1))], &[1, 0]),
        (&[("since", "2023-11-15"), ("until", "2023-11-16")], &[2, 1]),
        (&[("q", "B"), ("language", "de"), ("state", "active")], &[0]),
    ] {
        let filter = changes.iter().fold(Filter::default(), |filter, (name, value)| filter.with(name, value));
        assert_eq!(numbers(store.list(&me, &filter, None, 10).await.unwrap()), expected, "{changes:?}");
        let mut fitting = store.fitting(&me, &filter, &ids).await.unwrap();
        fitting.sort_by_key(|id| std::cmp::Reverse(ids.iter().position(|known| known == id)));
        assert_eq!(fitting, expected.iter().map(|n| ids[*n]).collect::<Vec<_>>(), "{changes:?}");
    }
    assert_eq!(store.languages(&me).await.unwrap(), ["de", "en"]);
    assert!(store.fitting(&owner("orders-other"), &Filter::default(), &ids).await.unwrap().is_empty());
    assert!(store.languages(&owner("orders-other")).await.unwrap().is_empty());
    for id in ids {
        store.delete(&me, id).await.unwrap();
    }
}

async fn what_runs_comes_before_what_waits(store: &Store) {
    let me = owner("runs");
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(enqueue(store, "runs", None, Some(60.0)).await);
    }
    store.cancel(&me, ids[1], now()).await.unwrap().unwrap();
    let claimed = claim(store, later()).await.unwrap();
    assert_eq!(claimed.session.id, ids[0]);
    // It was added after the others and is no part of the queue.
    let waiting = enqueue(store, "runs", None, Some(60.0)).await;
    let active = async |filter: &Filter, limit| {
        store.active(&me, filter, limit).await.unwrap().iter().map(|s| s.id).collect::<Vec<_>>()
    };
    assert_eq!(active(&Filter::default(), 10).await, [ids[0], ids[2], waiting]);
    assert_eq!(active(&Filter::default(), 1).await, [ids[0]]);
    // A language that was found counts as one that was asked for.
    let found = DetectedLanguage { language: "nb-NO".to_owned(), name: None, probability: None };
    store.save_detected_language(&claimed, &found).await.unwrap();
    assert_eq!(store.languages(&me).await.unwrap(), ["no"]);
    assert_eq!(active(&Filter::default().with("language", "no"), 10).await, [ids[0]]);
    assert!(active(&titled("other"), 10).await.is_empty());
    assert!(store.active(&owner("runs-other"), &Filter::default(), 10).await.unwrap().is_empty());
    for id in [ids[0], ids[1], ids[2], waiting] {
        store.delete(&me, id).await.unwrap();
    }
}

async fn texts_begin_with_their_first_words(store: &Store) {
    let long = "a word and another one ".repeat(10);
    let said = [
        add_lines(store, "begins", &[" One line. ", "And another."]).await,
        add_lines(store, "begins", &[&long, "The end."]).await,
        add_lines(store, "begins", &[]).await,
    ];
    let mut sessions = Vec::new();
    for id in said {
        sessions.push(store.session(&owner("begins"), id).await.unwrap().unwrap());
    }
    let beginnings = store.beginnings(&sessions.iter().collect::<Vec<_>>()).await.unwrap();
    assert_eq!(beginnings.len(), 2);
    assert_eq!(beginnings[&said[0]], "One line. And another.");
    let long = &beginnings[&said[1]];
    assert!(long.starts_with("a word and another one a word") && long.ends_with(" …"), "{long}");
    assert!((100..=122).contains(&long.chars().count()), "{long}");
    // A page names a session that runs twice: among those that run, and in its order.
    let twice = [&sessions[0], &sessions[1], &sessions[0]];
    assert_eq!(store.beginnings(&twice).await.unwrap()[&said[0]], "One line. And another.");
    assert!(store.beginnings(&[]).await.unwrap().is_empty());
    for id in said {
        store.delete(&owner("begins"), id).await.unwrap();
    }
}

async fn titles_are_found_in_any_script(store: &Store) {
    let me = owner("scripts");
    // The accent of the second is a separate character.
    for title in ["Über uns", "E\u{301}cole", "Привет", "ΟΔΟΣ", "Große Straße"] {
        let id = add(store, "scripts", title, EngineId::External).await;
        for query in [title, &title.to_lowercase(), &title.to_uppercase()] {
            let found = store.list(&me, &titled(query), None, 10).await.unwrap();
            assert_eq!(found.iter().map(|s| s.id).collect::<Vec<_>>(), [id], "{query} in {title}");
        }
        assert!(store.list(&me, &titled("Uber"), None, 10).await.unwrap().is_empty(), "accents count");
        store.rename(&me, id, &Title::new("ČESKÁ TŘEBOVÁ").unwrap()).await.unwrap();
        assert!(store.list(&me, &titled(title), None, 10).await.unwrap().is_empty());
        assert_eq!(store.list(&me, &titled("česká"), None, 10).await.unwrap().len(), 1);
        store.delete(&me, id).await.unwrap();
    }
}

/// Adds a session of an outside worker with these lines.
async fn add_lines(store: &Store, whose: &str, lines: &[&str]) -> SessionId {
    let id = add(store, whose, "said", EngineId::External).await;
    say(store, id, 0, lines).await;
    id
}

async fn say(store: &Store, id: SessionId, from: u32, lines: &[&str]) {
    let of = |(text, index): (&&str, u32)| Segment { text: (*text).to_owned(), ..segment(index) };
    let segments: Vec<Segment> = lines.iter().zip(from..).map(of).collect();
    assert!(store.report_segments(id, from, &segments, later()).await.unwrap());
}

/// What a search finds: of each session its id, the numbers of its lines, and whether there are more.
async fn search(store: &Store, whose: &str, query: &str) -> Vec<(SessionId, Vec<u32>, bool)> {
    let (found, more) = store.search(&owner(whose), &TextQuery::parse(query), None, 50).await.unwrap();
    assert!(!more);
    let of = |session: hark::model::FoundSession| {
        (session.session_id, session.hits.iter().map(|hit| hit.index).collect(), session.more)
    };
    found.into_iter().map(of).collect()
}

async fn texts_are_found_as_soon_as_they_are_stored(store: &Store) {
    let me = "finder";
    let id =
        add_lines(store, me, &["The old GATE stood open.", "Don't wait: über e-mail, at example.com", "今日は天気 😀"])
            .await;
    add_lines(store, "somebody-else", &["The old gate of somebody else"]).await;
    let only = |line: u32| vec![(id, vec![line], false)];
    for (query, line) in [
        ("gate", 0),
        ("OLD gate", 0),
        ("gate the", 0),
        ("\"old gate\"", 0),
        ("stoo", 0),
        ("don't", 1),
        ("ÜBER", 1),
        ("mail", 1),
        ("\"e mail\"", 1),
        ("example", 1),
        ("example.com", 1),
        ("天気", 2),
        ("😀", 2),
    ] {
        assert_eq!(search(store, me, query).await, only(line), "{query}");
    }
    for query in [
        "",
        " ",
        "gates",
        "\"gate old\"",
        "gate wait",
        "sto",
        "gate NOT open2",
        "ub",
        "uber",
        "否",
        "finder",
        "ownerfinder",
    ] {
        assert!(search(store, me, query).await.is_empty(), "{query}");
    }
    // No text is wrong.
    for query in [
        "\"",
        "\"\"\"",
        "*",
        "a*b",
        "(",
        "NEAR(a b)",
        "text:gate",
        "a AND",
        "OR OR",
        "-gate",
        "^gate",
        "gate'; DROP TABLE segments; --",
        "\\",
        "'",
        "''",
        "& | !",
        "a & b",
        "<->",
        ":*",
        "\u{0}",
        "\u{301}",
        "%",
        "_",
        "\u{202e}x",
        "＂gate＂",
        "1e5",
        "x".repeat(5000).as_str(),
        "a b c d e f g h i j k l m n o p q r s t u v w x y z",
    ] {
        let found = store.search(&owner(me), &TextQuery::parse(query), None, 50).await;
        assert!(found.is_ok(), "{query}: {found:?}");
    }

    say(store, id, 3, &["a gate was added"]).await;
    assert_eq!(search(store, me, "gate").await, [(id, vec![0, 3], false)]);
    let hits = store.search(&owner(me), &TextQuery::parse("gate"), None, 50).await.unwrap().0.remove(0).hits;
    assert_eq!(
        (hits[1].start, hits[1].before.as_str(), hits[1].found.as_str(), hits[1].after.as_str()),
        (3.0, "a ", "gate", " was added")
    );
    // What is deleted isn't found, and a session that comes later isn't mistaken for it.
    assert!(store.delete(&owner(me), id).await.unwrap());
    assert!(search(store, me, "gate").await.is_empty());
    let next = add_lines(store, me, &["nothing", "a gate again"]).await;
    assert_eq!(search(store, me, "gate").await, [(next, vec![1], false)]);
    clear(store, &[me, "somebody-else"]).await;
}

async fn a_search_goes_through_all_sessions(store: &Store) {
    let me = "seeker";
    let mut all = Vec::new();
    // More lines than are read at once.
    all.push(add_lines(store, me, &["one word"; 250]).await);
    for n in 0..12 {
        all.push(add_lines(store, me, &["one word", "another", "a word", "the word", "word"][..1 + n % 5]).await);
    }
    all.push(add_lines(store, me, &["one word"; 205]).await);
    all.reverse();
    let query = TextQuery::parse("word");
    let (whole, more) = store.search(&owner(me), &query, None, 50).await.unwrap();
    assert!(!more);
    assert_eq!(whole.iter().map(|found| found.session_id).collect::<Vec<_>>(), all);
    let lines = |n: usize| (whole[n].hits.iter().map(|hit| hit.index).collect::<Vec<_>>(), whole[n].more);
    assert_eq!([lines(0), lines(13)], [(vec![0, 1, 2], true), (vec![0, 1, 2], true)]);
    // Newest first: of the twelve, the last had two lines, and the one with five lines has four that fit.
    assert_eq!(lines(1), (vec![0], false));
    assert_eq!(lines(3), (vec![0, 2, 3], true));
    // The same in pages.
    let (mut pages, mut before) = (Vec::new(), None);
    loop {
        let (page, more) = store.search(&owner(me), &query, before, 4).await.unwrap();
        before = page.last().map(|found| found.session_id);
        pages.extend(page);
        if !more {
            break;
        }
    }
    assert_eq!(pages, whole);
    // A session that was the last of a page may be deleted before the next is asked for.
    let fourth = all[3];
    assert!(store.delete(&owner(me), fourth).await.unwrap());
    let (rest, _) = store.search(&owner(me), &query, Some(fourth), 50).await.unwrap();
    assert_eq!(rest.iter().map(|found| found.session_id).collect::<Vec<_>>(), all[4..]);
    clear(store, &[me]).await;
}

async fn a_transcript_is_replaced_and_its_numbers_go_on(store: &Store) {
    let me = owner("replace");
    let id = add(store, "replace", "replace", EngineId::Pocketsphinx).await;
    let choice = (Some(Track::Number(2)), Channels::Split);
    let replace =
        async |who: &Owner, limits: Option<&QueueLimits>| store.replace(who, id, choice, None, limits, now()).await;
    assert!(replace(&me, None).await.unwrap().is_none(), "it hasn't ended");
    let first = claim(store, later()).await.unwrap();
    let mut status = first.session.status.clone();
    for index in 0..2 {
        status = Status { segments: index + 1, duration_processed: 5.0, ..next(&status) };
        store.append(&first, &segment(index), &status, true).await.unwrap().unwrap();
    }
    status.remarks = vec![Remark::new("tracks", "The recording has 2 audio tracks. Track 1 was heard.")];
    assert!(store.save_waveform(&first, &[1, 2]).await.unwrap());
    let found = DetectedLanguage { language: "de".to_owned(), name: None, probability: None };
    assert!(store.save_detected_language(&first, &found).await.unwrap());
    store.end(&first, next(&status), Ending::Completed).await.unwrap().unwrap();
    let before = store.find(id).await.unwrap().unwrap().0;

    assert!(replace(&owner("other"), None).await.unwrap().is_none(), "it isn't theirs");
    let full = QueueLimits { all: Share { sessions: 0, seconds: 1e9 }, ..limits(1, 1) };
    assert!(matches!(replace(&me, Some(&full)).await, Err(EnqueueError::Full(_))));
    assert_eq!(store.segments(id, 0, 10).await.unwrap().len(), 2, "what couldn't be queued stays as it is");
    let event = replace(&me, None).await.unwrap().unwrap();
    let queued = event.new_status().unwrap();
    assert_eq!((queued.state, queued.first_segment, queued.segments, queued.lines()), (State::Queued, 2, 2, 0));
    assert!(queued.version > before.status.version && queued.remarks.is_empty() && queued.duration_processed == 0.0);
    let session = store.find(id).await.unwrap().unwrap().0;
    assert_eq!((session.track, session.channels, session.started_at), (choice.0, Channels::Split, None));
    assert_eq!((session.finished_at, session.detected_language), (None, None));
    assert!(store.segments(id, 0, 10).await.unwrap().is_empty() && store.waveform(id).await.unwrap().is_none());
    assert!(replace(&me, None).await.unwrap().is_none(), "it is queued");

    // A worker of the attempt before writes nothing any more, and the next one continues the numbers.
    assert!(store.append(&first, &segment(2), &status, true).await.unwrap().is_none());
    let second = claim(store, later()).await.unwrap();
    let status = Status { segments: 3, ..next(&second.session.status) };
    store.append(&second, &segment(2), &status, true).await.unwrap().unwrap();
    let ended = store.end(&second, next(&status), Ending::Completed).await.unwrap().unwrap();
    let ended = ended.new_status().unwrap();
    assert_eq!((ended.first_segment, ended.segments, ended.lines()), (2, 3, 1));
    assert_eq!(store.segments(id, 0, 10).await.unwrap(), [segment(2)]);
    store.delete(&me, id).await.unwrap();
}

async fn a_session_is_claimed_transcribed_and_completed(store: &Store) {
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
    // A second segment with the same index is refused together with its status.
    let again = Status { segments: 9, ..next(&status) };
    assert!(store.append(&claimed, &segment(1), &again, true).await.is_err());
    assert_eq!(store.find(id).await.unwrap().unwrap().0.status.segments, 2);
    assert_eq!(store.segments(id, 1, 10).await.unwrap(), [segment(1)]);
    assert_eq!(store.segments(id, 0, 1).await.unwrap(), [segment(0)]);
    assert!(store.save_model(&claimed, "en-us").await.unwrap());
    let found = DetectedLanguage { language: "de".to_owned(), name: Some("German".to_owned()), probability: Some(0.5) };
    assert!(store.save_detected_language(&claimed, &found).await.unwrap());
    let remarks = vec![Remark::new("ends_early", "The file says 0:48; it ends at 0:46.")];
    status = Status { remarks: remarks.clone(), ..next(&status) };
    assert!(store.save(&claimed, &status).await.unwrap().is_some());
    for peaks in [&[0, 128, 255][..], &[1, 2]] {
        assert!(store.save_waveform(&claimed, peaks).await.unwrap());
    }
    assert_eq!(store.waveform(id).await.unwrap(), Some(vec![1, 2]));
    // A version that falls changes nothing.
    let old = Status { version: status.version - 1, progress: Some(1.0), ..status.clone() };
    assert!(store.save(&claimed, &old).await.unwrap().is_none());

    let ended = store.end(&claimed, next(&status), Ending::Completed).await.unwrap().unwrap();
    let ended = ended.new_status().unwrap().clone();
    assert_eq!((ended.state, ended.progress, ended.segments), (State::Completed, Some(100.0), 2));
    let session = store.find(id).await.unwrap().unwrap().0;
    assert_eq!((session.model.as_deref(), session.finished_at), (Some("en-us"), Some(ended.timestamp)));
    assert_eq!((session.detected_language, session.status.remarks), (Some(found), remarks));
    assert!(store.save(&claimed, &next(&ended)).await.unwrap().is_none(), "what has ended stays as it is");
    // The log of stages has when each began, and when the last ended.
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

/// Whatever ends a claim, nothing that its worker writes later is stored, although the attempt grows only with the next one.
async fn a_claim_that_is_over_writes_nothing(store: &Store) {
    let me = owner("over");
    for end in ["cancelled", "replaced", "lost", "failed", "handed back", "claimed again"] {
        let id = add(store, "over", end, EngineId::Pocketsphinx).await;
        let over = claim(store, if end == "lost" { now() } else { later() }).await.unwrap();
        let after = next(&over.session.status);
        match end {
            "lost" => assert_eq!(store.reap(now(), false, &[], 3).await.unwrap().len(), 1),
            "failed" => {
                let failure = Failure { code: "stalled".to_owned(), message: "It hung.".to_owned() };
                store.end(&over, after, Ending::Failed(failure)).await.unwrap().unwrap();
            }
            "handed back" | "claimed again" => {
                store.end(&over, after, Ending::HandedBack).await.unwrap().unwrap();
            }
            _ => assert!(store.cancel(&me, id, now()).await.unwrap().is_some()),
        }
        if end == "replaced" {
            let choice = (Some(Track::Number(2)), Channels::Mix);
            store.replace(&me, id, choice, None, None, now()).await.unwrap().unwrap();
        }
        if end == "claimed again" {
            assert_eq!(claim(store, later()).await.unwrap().session.id, id);
        }
        let stored = async || {
            let (session, waveform) = (store.find(id).await.unwrap(), store.waveform(id).await.unwrap());
            (session, waveform, store.segments(id, 0, 10).await.unwrap())
        };
        let before = stored().await;
        let late = Status { version: over.session.status.version + 100_000, segments: 1, ..next(&over.session.status) };
        let found = DetectedLanguage { language: "de".to_owned(), name: None, probability: Some(0.5) };
        let written = [
            ("renew", store.renew(&over, later()).await.unwrap()),
            ("save", store.save(&over, &late).await.unwrap().is_some()),
            ("append", store.append(&over, &segment(0), &late, true).await.unwrap().is_some()),
            ("save_model", store.save_model(&over, "other").await.unwrap()),
            ("save_detected_language", store.save_detected_language(&over, &found).await.unwrap()),
            ("save_waveform", store.save_waveform(&over, &[1, 2]).await.unwrap()),
            ("end", store.end(&over, late.clone(), Ending::Completed).await.unwrap().is_some()),
            ("requeue_crashed", store.requeue_crashed(&over, now()).await.unwrap().is_some()),
        ];
        for (write, written) in written {
            assert!(!written, "{write}, though the session was {end}");
        }
        assert_eq!(stored().await, before, "{end}");
        store.delete(&me, id).await.unwrap();
    }
}

async fn lost_sessions_are_requeued_and_fenced(store: &Store) {
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
        let reason = status.error.as_ref().map(|e| e.message.as_str());
        assert_eq!(reason.is_some_and(|reason| reason.starts_with("The worker stopped 3 times")), over, "{reason:?}");
        assert!(!over || reason == Some(&*status.message));
        // A worker that goes on after its lease ran out can write nothing.
        assert!(!store.renew(&lost, later()).await.unwrap());
        let late = Status { segments: 1, ..next(&lost.session.status) };
        assert!(store.append(&lost, &segment(0), &late, true).await.unwrap().is_none());
        assert!(store.end(&lost, late, Ending::Completed).await.unwrap().is_none());
    }
    assert!(versions.is_sorted() && store.segments(id, 0, 10).await.unwrap().is_empty());

    let retried = store.retry(&owner("lost"), id, None, None, now()).await.unwrap().unwrap();
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

async fn a_node_does_not_requeue_the_sessions_it_runs(store: &Store) {
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

async fn sessions_without_their_model_wait_and_say_so(store: &Store) {
    let first = add(store, "model", "talk", EngineId::Whisper).await;
    let other = add(store, "model", "chat", EngineId::Pocketsphinx).await;
    let told = async |reason| {
        let any = [String::new()];
        let events = store.update_needs_model(EngineId::Whisper, &any, reason, now()).await.unwrap();
        let told = events.iter().map(|e| e.new_status().unwrap().clone());
        told.map(|status| (status.session_id, status.version, status.message)).collect::<Vec<_>>()
    };
    assert_eq!(told(None).await, []);
    assert_eq!(told(Some("Waiting: 1 of 3")).await, [(first, 2, "Waiting: 1 of 3".to_owned())]);
    assert_eq!(told(Some("Waiting: 1 of 3")).await, [], "nothing new");
    assert_eq!(told(Some("Waiting: 2 of 3")).await, [(first, 3, "Waiting: 2 of 3".to_owned())]);
    // The others don't wait for it.
    let claim = async |engines: &[EngineId]| {
        let engines: Vec<ReadyEngine> = engines.iter().copied().map(ReadyEngine::any).collect();
        store.claim("worker", now(), later(), u64::MAX, &engines).await.unwrap().map(|(c, _)| c)
    };
    let without = [EngineId::Pocketsphinx, EngineId::Openai];
    assert_eq!(claim(&without).await.unwrap().session.id, other);
    assert!(claim(&without).await.is_none() && claim(&[]).await.is_none());
    assert_eq!(told(None).await, [(first, 4, "Next in line".to_owned())]);
    assert_eq!(told(Some("Waiting: 3 of 3")).await.len(), 1);
    // What it waited for is cleared when it is claimed.
    let last = claim(&EngineId::ALL).await.unwrap();
    assert_eq!(last.session.id, first);
    let back = store.end(&last, next(&last.session.status), Ending::HandedBack).await.unwrap().unwrap();
    assert_eq!(back.new_status().unwrap().message, "Next in line");
    for id in [first, other] {
        store.delete(&owner("model"), id).await.unwrap();
    }
}

async fn workers_claim_the_languages_that_their_engines_know(store: &Store) {
    let mut ids = Vec::new();
    for language in ["de-AT", "en", "nb-NO", "", "yue", "DE"] {
        let mut new = new_session("tongues", "talk", EngineId::Whisper);
        new.language = Some(language.to_owned()).filter(|tag| !tag.is_empty());
        ids.push(store.insert(&new, now()).await.unwrap().0.id);
    }
    let [german, english, norwegian, unnamed, cantonese, capital] = ids[..] else { panic!("six were added") };
    let other = add(store, "tongues", "talk", EngineId::Openai).await;

    // What waits, and what the sessions of some languages are told.
    let queued = store.queued_languages().await.unwrap();
    let expected = ["", "DE", "de-AT", "en", "nb-NO", "yue"].map(|tag| (EngineId::Whisper, tag.to_owned()));
    let mut found: Vec<_> = queued.iter().filter(|(id, _)| *id == EngineId::Whisper).cloned().collect();
    found.sort_by(|(_, a), (_, b)| a.cmp(b));
    assert_eq!(found, expected);
    assert!(queued.contains(&(EngineId::Openai, String::new())) && queued.len() == 7, "{queued:?}");
    let told = async |tags: &[&str], reason| {
        let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
        let events = store.update_needs_model(EngineId::Whisper, &tags, reason, now()).await.unwrap();
        let mut told: Vec<_> = events.iter().map(|event| event.new_status().unwrap().session_id).collect();
        told.sort_by_key(|id| ids.iter().position(|own| own == id));
        told
    };
    assert_eq!(told(&["de-AT", "DE", "fr"], Some("Waiting for German")).await, [german, capital]);
    assert_eq!(told(&["", "en"], Some("Waiting")).await, [english, unnamed]);
    assert_eq!(told(&["", "DE", "de-AT", "en"], None).await, [german, english, unnamed, capital]);

    let claimed = async |engines: &[ReadyEngine]| {
        let claim = store.claim("worker", now(), later(), u64::MAX, engines).await.unwrap();
        claim.map(|(claim, _)| claim.session.id)
    };
    let whisper = |tags: &[&str]| {
        let languages = Some(tags.iter().map(|tag| (*tag).to_owned()).collect());
        ReadyEngine { id: EngineId::Whisper, languages }
    };
    // One for English only, beside another engine, leaves the others in the queue.
    let small = [whisper(&["en"]), ReadyEngine::any(EngineId::Pocketsphinx)];
    assert_eq!([claimed(&small).await, claimed(&small).await], [Some(english), Some(unnamed)]);
    assert_eq!(claimed(&small).await, None);
    let base = [whisper(&["de", "en", "no"])];
    let taken = [claimed(&base).await, claimed(&base).await, claimed(&base).await];
    assert_eq!(taken, [Some(german), Some(norwegian), Some(capital)]);
    assert_eq!(claimed(&base).await, None);
    // An engine that doesn't say may know it, and says nothing of another engine.
    assert_eq!(claimed(&[ReadyEngine::any(EngineId::Openai), whisper(&[])]).await, Some(other));
    assert_eq!(claimed(&[ReadyEngine::any(EngineId::Openai), whisper(&[])]).await, None);
    assert_eq!(claimed(&[ReadyEngine::any(EngineId::Whisper)]).await, Some(cantonese));
    clear(store, &["tongues"]).await;
}

async fn sessions_without_room_wait_and_say_so(store: &Store) {
    let mut ids = Vec::new();
    for bytes in [3_000_000_000, 1_000_000, 2_000_000_000] {
        let mut new = new_session("room", "talk", EngineId::Pocketsphinx);
        new.media.bytes = bytes;
        ids.push(store.insert(&new, now()).await.unwrap().0.id);
    }
    let told = async |room| {
        let events = store.update_needs_room(room, now()).await.unwrap();
        let told = events.iter().map(|e| e.new_status().unwrap().clone());
        let mut told: Vec<_> = told.map(|status| (status.session_id, status.version, status.message)).collect();
        told.sort();
        told
    };
    let waits = |needs| format!("Waiting for room on the server's disk: needs about {needs}");
    assert_eq!(told(1_999_999_999).await, [(ids[0], 2, waits("3.0 GB")), (ids[2], 2, waits("2.0 GB"))]);
    assert_eq!(told(1_999_999_998).await, [], "nothing new");
    assert_eq!(told(2_000_000_000).await, [(ids[2], 3, "Waiting for 2 sessions before it".to_owned())]);
    let room =
        async |room| store.claim("worker", now(), later(), room, &all_engines()).await.unwrap().map(|(claim, _)| claim);
    assert!(room(999_999).await.is_none());
    for id in [ids[1], ids[2]] {
        assert_eq!(room(2_000_000_000).await.unwrap().session.id, id, "the oldest that fits");
    }
    assert!(room(2_000_000_000).await.is_none());
    let last = room(3_000_000_000).await.unwrap();
    // The need for room is cleared when the session is claimed.
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
    let position = async |id| store.find(id).await.unwrap().unwrap().0.status.queue_position;
    assert_eq!([position(ids[0]).await, position(ids[2]).await], [Some(0), Some(2)]);
    let first = claim(store, later()).await.unwrap();
    assert_eq!(first.session.id, ids[0]);
    let events = store.refresh_queue(Timestamp(0), Some(2.0), 1).await.unwrap();
    let arrivals: Vec<_> = events.iter().map(|e| e.new_status().unwrap().estimated_completion).collect();
    // A minute each, at twice real time.
    assert_eq!(arrivals, [Some(Timestamp(60_000)), Some(Timestamp(90_000))]);
    store.cancel(&owner("queue"), ids[1], now()).await.unwrap().unwrap();
    assert_eq!(position(ids[2]).await, Some(0));
    let counts = store.counts().await.unwrap();
    assert!(counts.contains(&(State::Queued, 1)) && counts.contains(&(State::Processing, 1)), "{counts:?}");
    // At the start every session that is being processed is put back, whatever its lease.
    assert_eq!(store.reap(now(), true, &[], 3).await.unwrap().len(), 1);
    for id in ids {
        store.delete(&owner("queue"), id).await.unwrap();
    }
}

async fn workers_never_claim_the_same_session(store: &Store) {
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

async fn the_queue_goes_round_by_owner(store: &Store) {
    for _ in 0..4 {
        enqueue(store, "round-a", None, Some(60.0)).await;
    }
    enqueue(store, "round-b", None, Some(60.0)).await;
    enqueue(store, "round-b", None, Some(60.0)).await;
    assert_eq!(serve(store).await.unwrap(), "round-a");
    // An owner that comes later joins the turn that is being served.
    enqueue(store, "round-c", None, Some(60.0)).await;
    let mut order = Vec::new();
    while let Some(whose) = serve(store).await {
        order.push(whose);
        if order.len() == 2 {
            // This owner has just been served, and isn't served again before the others.
            enqueue(store, "round-c", None, Some(60.0)).await;
        }
    }
    let order: Vec<&str> = order.iter().map(|whose| whose.strip_prefix("round-").unwrap()).collect();
    assert_eq!(order, ["b", "c", "a", "b", "c", "a", "a"]);

    // Nor is one served again that deletes its session after or while it is served.
    enqueue(store, "round-a", None, Some(60.0)).await;
    enqueue(store, "round-a", None, Some(60.0)).await;
    for _ in 0..2 {
        let whose = owner("round-d");
        enqueue(store, "round-d", None, Some(60.0)).await;
        let running = claim(store, later()).await.unwrap();
        if running.owner == whose {
            store.cancel(&whose, running.session.id, now()).await.unwrap().unwrap();
        }
        store.delete(&running.owner, running.session.id).await.unwrap();
        clear(store, &["round-d"]).await;
    }
    assert_eq!(claim(store, later()).await.unwrap().owner.as_str(), "round-a");

    // When an owner cancels queued sessions, its others move up.
    clear(store, &["round-a", "round-b", "round-c"]).await;
    let mine = [enqueue(store, "round-a", None, None).await, enqueue(store, "round-a", None, None).await];
    let third = enqueue(store, "round-a", None, None).await;
    let theirs = [enqueue(store, "round-b", None, None).await, enqueue(store, "round-b", None, None).await];
    let position = async |id| store.find(id).await.unwrap().unwrap().0.status.queue_position.unwrap();
    assert_eq!([position(third).await, position(theirs[1]).await], [4, 2]);
    for id in mine {
        store.cancel(&owner("round-a"), id, now()).await.unwrap().unwrap();
    }
    assert_eq!([position(third).await, position(theirs[0]).await, position(theirs[1]).await], [1, 0, 2]);
    clear(store, &["round-a", "round-b"]).await;
}

/// Pseudorandom numbers that are the same in each run.
fn dice(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |sides| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % sides
    }
}

async fn positions_match_the_order_of_claims(store: &Store) {
    const OWNERS: [&str; 4] = ["order-a", "order-b", "order-c", "order-d"];
    for seed in 0..6 {
        let mut roll = dice(seed);
        let mut running: Vec<Claim> = Vec::new();
        // How often each other owner was served since an owner began to wait or was served last.
        let mut passed: std::collections::HashMap<&str, std::collections::HashMap<&str, u32>> = Default::default();
        for step in 0..60 {
            let whose = OWNERS[(roll(4) * roll(4) / 3) as usize];
            let waiting = async |whose: &str| {
                let all = store.list(&owner(whose), &titled(""), None, 100).await.unwrap();
                all.into_iter().filter(|s| s.status.state == State::Queued).collect::<Vec<_>>()
            };
            match roll(7) {
                0..=2 => drop(enqueue(store, whose, None, Some(60.0)).await),
                3 => {
                    for session in waiting(whose).await.into_iter().take(1) {
                        store.cancel(&owner(whose), session.id, now()).await.unwrap();
                    }
                }
                4 if !running.is_empty() => {
                    let ended = running.swap_remove(roll(running.len() as u64) as usize);
                    let how = if roll(4) == 0 { Ending::HandedBack } else { Ending::Completed };
                    store.end(&ended, next(&ended.session.status), how).await.unwrap();
                }
                _ => {
                    let mut first = None;
                    for whose in OWNERS {
                        first = first.or(waiting(whose).await.into_iter().find(|s| s.status.queue_position == Some(0)));
                    }
                    let taken = claim(store, later()).await;
                    assert_eq!(taken.as_ref().map(|t| t.session.id), first.map(|s| s.id), "seed {seed}, step {step}");
                    let Some(taken) = taken else { continue };
                    let served = *OWNERS.iter().find(|whose| **whose == taken.owner.as_str()).unwrap();
                    passed.remove(served);
                    for other in OWNERS.into_iter().filter(|other| *other != served) {
                        if waiting(other).await.is_empty() {
                            passed.remove(other);
                        } else if taken.session.status.attempt == 1 {
                            let times = passed.entry(other).or_default().entry(served).or_default();
                            *times += 1;
                            assert!(*times <= 2, "seed {seed}, step {step}: {served} goes before {other} again");
                        }
                    }
                    running.push(taken);
                }
            }
        }
        // Positions and arrival times have the same order, for all that wait.
        for ended in running {
            let ended = store.end(&ended, next(&ended.session.status), Ending::Completed).await.unwrap();
            assert!(ended.is_some());
        }
        enqueue(store, "order-e", None, Some(60.0)).await;
        let first = claim(store, later()).await.unwrap();
        let told = store.refresh_queue(now(), Some(1.0), 1).await.unwrap();
        let told: Vec<_> = told.iter().map(|event| event.new_status().unwrap().clone()).collect();
        assert!(told.iter().enumerate().all(|(n, status)| status.queue_position == Some(n as u32)));
        assert!(told.is_sorted_by_key(|status| status.estimated_completion.unwrap()));
        store.end(&first, next(&first.session.status), Ending::Completed).await.unwrap();
        for status in told {
            let taken = claim(store, later()).await.unwrap();
            assert_eq!(taken.session.id, status.session_id);
            store.end(&taken, next(&taken.session.status), Ending::Completed).await.unwrap();
        }
        clear(store, &OWNERS).await;
        clear(store, &["order-e"]).await;
    }
}

async fn a_running_session_at_its_end_hides_no_arrival_time(store: &Store) {
    let [running, _] = [enqueue(store, "end", None, Some(60.0)).await, enqueue(store, "end", None, Some(60.0)).await];
    let claimed = claim(store, later()).await.unwrap();
    assert_eq!(claimed.session.id, running);
    let status = Status { duration_processed: 60.0, ..next(&claimed.session.status) };
    store.save(&claimed, &status).await.unwrap().unwrap();
    let told = store.refresh_queue(Timestamp(0), Some(2.0), 1).await.unwrap();
    assert_eq!(told[0].new_status().unwrap().estimated_completion, Some(Timestamp(30_000)));
    clear(store, &["end"]).await;
}

async fn queued_sessions_are_updated_only_when_something_changes(store: &Store) {
    let refresh = async |at: i64, speed| {
        let events = store.refresh_queue(Timestamp(at), speed, 1).await.unwrap();
        events
            .into_iter()
            .map(|event| {
                let status = event.new_status().unwrap().clone();
                (event.owner.as_str().to_owned(), status.queue_position, status.estimated_completion)
            })
            .collect::<Vec<_>>()
    };
    let told = |whose: &str, position, arrival: Option<i64>| (whose.to_owned(), Some(position), arrival.map(Timestamp));
    enqueue(store, "news-run", None, Some(60.0)).await;
    let running = claim(store, later()).await.unwrap();
    for _ in 0..2 {
        enqueue(store, "news", None, Some(60.0)).await;
    }
    // As long as no speed is known, sessions have only a position, which is sent once.
    assert_eq!(refresh(0, None).await, [told("news", 0, None), told("news", 1, None)]);
    assert_eq!(refresh(1_000, None).await, []);
    let [first, second] = [(0, Some(60_000)), (1, Some(90_000))].map(|(n, at)| told("news", n, at));
    assert_eq!(refresh(0, Some(2.0)).await, [first, second]);
    // The clock advances, and the estimate changes a little with it.
    assert_eq!(refresh(5_000, Some(2.0)).await, []);
    // Sessions added behind mine don't concern me; those added in between move mine.
    for n in 0..3 {
        enqueue(store, "news-later", None, Some(60.0)).await;
        let news = refresh(5_000, Some(2.0)).await;
        let mine = news.iter().filter(|(whose, ..)| whose == "news").count();
        // Only the first is added before my second one, in whose turn its owner has none yet.
        assert_eq!(mine, usize::from(n == 0), "{news:?}");
    }
    assert_eq!(refresh(5_000, Some(1.0)).await.len(), 5, "a speed that has halved moves all");
    store.end(&running, next(&running.session.status), Ending::Completed).await.unwrap();
    clear(store, &["news-run", "news", "news-later"]).await;
}

async fn newcomers_share_the_limits_of_their_address(store: &Store) {
    let share = |sessions| Share { sessions, seconds: 1e9 };
    let limits = QueueLimits { all: share(12), address: share(3), newcomers: share(5), ..limits(12, 10) };
    let upload = async |whose: &str, address: Option<&str>| {
        let mut new = new_session(whose, whose, EngineId::Pocketsphinx);
        new.address = address.map(str::to_owned);
        store.enqueue(&new, &limits, now()).await.map(|(session, _)| session.id)
    };
    // Each has a new cookie.
    let strangers: Vec<String> = (0..20).map(|n| format!("stranger-{n}")).collect();
    for whose in &strangers[..3] {
        upload(whose, Some("@near")).await.unwrap();
    }
    for whose in &strangers[3..] {
        let refused = full(upload(whose, Some("@near")).await);
        assert_eq!(
            (refused.scope, refused.limit, refused.waiting),
            (LimitScope::Address, ReachedLimit::Sessions(3), 3)
        );
    }
    let known = store.queue_full(&owner("stranger-3"), Some("@near"), &limits, now()).await.unwrap();
    assert_eq!(known.unwrap().scope, LimitScope::Address);
    // Newcomers from another address are accepted, and owners with history from the same one.
    for n in 0..2 {
        upload(&format!("other-{n}"), Some("@far")).await.unwrap();
    }
    assert_eq!(full(upload("other-2", Some("@farther")).await).scope, LimitScope::Newcomers);
    for _ in 0..7 {
        upload("friend", None).await.unwrap();
    }
    assert_eq!(full(upload("friend", None).await).scope, LimitScope::All);
    // One address has one session in each turn, like one owner.
    let mut order = Vec::new();
    while let Some(whose) = serve(store).await {
        order.push(whose);
        if order.len() == 2 {
            // That newcomer's session waits no longer, so its address has room again, behind those that already have a
            // turn.
            upload("stranger-3", Some("@near")).await.unwrap();
        }
    }
    let names: Vec<&str> = order.iter().map(|whose| whose.split('-').next().unwrap()).collect();
    assert_eq!(&names[..6], ["stranger", "other", "friend", "stranger", "other", "friend"], "{order:?}");
    assert_eq!(&names[6..8], ["stranger", "friend"], "{order:?}");
    assert_eq!(&names[8..10], ["friend", "stranger"], "{order:?}");
    // A newcomer's retry counts like an upload.
    for whose in &strangers[4..7] {
        upload(whose, Some("@near")).await.unwrap();
    }
    let cancelled = store.list(&owner("stranger-4"), &titled(""), None, 10).await.unwrap()[0].id;
    store.cancel(&owner("stranger-4"), cancelled, now()).await.unwrap().unwrap();
    upload("stranger-7", Some("@near")).await.unwrap();
    let again = async |limits| store.retry(&owner("stranger-4"), cancelled, Some("@near"), limits, now()).await;
    assert_eq!(full(again(Some(&limits)).await).scope, LimitScope::Address);
    assert!(again(None).await.unwrap().is_some(), "it had its place just now");
    let whose: Vec<&str> = strangers.iter().map(String::as_str).chain(["other-0", "other-1", "friend"]).collect();
    clear(store, &whose).await;
}

async fn hours_of_audio_are_limited_and_the_wait_is_estimated(store: &Store) {
    let hour = 3600.0;
    let limits = QueueLimits {
        all: Share { sessions: 1000, seconds: 10.0 * hour },
        owner: Share { sessions: 1000, seconds: 6.0 * hour },
        unknown_secs: 4.0 * hour,
        ..limits(1000, 1000)
    };
    let upload = async |whose: &str, seconds: Option<f64>| {
        let mut new = new_session(whose, whose, EngineId::Pocketsphinx);
        new.duration_total = seconds;
        store.enqueue(&new, &limits, now()).await.map(|(session, _)| session.id)
    };
    // An hour of the running session remains, at five times real time.
    enqueue(store, "hours-run", None, Some(2.0 * hour)).await;
    let running = claim(store, later()).await.unwrap();
    let first = now().plus_seconds(720.0);
    let status = Status {
        duration_processed: hour,
        processing_speed: Some(5.0),
        estimated_completion: Some(first),
        ..next(&running.session.status)
    };
    store.save(&running, &status).await.unwrap().unwrap();

    let longest = upload("hours-a", Some(20.0 * hour)).await.unwrap();
    assert_eq!(
        full(upload("hours-a", Some(1.0)).await).limit,
        ReachedLimit::Seconds(6.0 * hour),
        "alone it may be longer"
    );
    store.delete(&owner("hours-a"), longest).await.unwrap();
    upload("hours-a", Some(3.0 * hour)).await.unwrap();
    upload("hours-a", Some(3.0 * hour)).await.unwrap();
    // There will be room when the first of them is claimed, after the running session.
    let refused = full(upload("hours-a", Some(2.0 * hour)).await);
    assert_eq!((refused.scope, refused.waiting, refused.waiting_secs), (LimitScope::Owner, 2, 6.0 * hour));
    assert!(refused.measured && refused.wait_secs <= 720.0 && refused.wait_secs > 600.0, "{refused:?}");
    assert_eq!(
        store.queue_full(&owner("hours-a"), None, &limits, now()).await.unwrap().unwrap().scope,
        LimitScope::Owner
    );
    // For a longer one there will be room when the second is claimed: the first has three hours of audio.
    let refused = full(upload("hours-a", Some(4.0 * hour)).await);
    assert!((refused.wait_secs - 4.0 * hour / 5.0).abs() < 1.0, "{refused:?}");
    // A recording of unknown length counts as the longest allowed, which just fits.
    upload("hours-b", None).await.unwrap();
    let refused = full(upload("hours-c", Some(60.0)).await);
    assert_eq!((refused.scope, refused.limit), (LimitScope::All, ReachedLimit::Seconds(10.0 * hour)));
    // The wait for four thousand hours isn't reported as a minute.
    for n in 0..1000 {
        let mut new = new_session(&format!("hours-{}", n % 5), "long", EngineId::Pocketsphinx);
        new.duration_total = Some(4.0 * hour);
        store.insert(&new, now()).await.unwrap();
    }
    let many = QueueLimits { all: Share { sessions: 2000, seconds: 4.0 * hour }, ..limits };
    let refused = store.queue_full(&owner("hours-c"), None, &many, now()).await.unwrap().unwrap();
    assert_eq!((refused.waiting, refused.waiting_secs), (1003, 4010.0 * hour));
    assert!((refused.wait_secs - 4003.0 * hour / 5.0).abs() < 5.0 * hour, "{refused:?}");

    // While nothing runs, the speed of the last completed sessions counts; if there is none, real time.
    clear(store, &["hours-a", "hours-b", "hours-0", "hours-1", "hours-2", "hours-3", "hours-4"]).await;
    let status = Status { processing_speed: Some(5.0), version: status.version + 1, ..status };
    store.end(&running, status, Ending::Completed).await.unwrap().unwrap();
    for _ in 0..2 {
        enqueue(store, "hours-a", None, Some(4.0 * hour)).await;
    }
    let one = QueueLimits { owner: Share { sessions: 9, seconds: 2.0 * hour }, ..limits };
    let mut more = new_session("hours-a", "more", EngineId::Pocketsphinx);
    more.duration_total = Some(hour);
    let refused = full(store.enqueue(&more, &one, now()).await);
    assert!(refused.measured && (refused.wait_secs - 4.0 * hour / 5.0).abs() < 1.0, "{refused:?}");
    clear(store, &["hours-run"]).await;
    let refused = full(store.enqueue(&more, &one, now()).await);
    assert!(!refused.measured && (refused.wait_secs - 4.0 * hour).abs() < 1.0, "{refused:?}");
    clear(store, &["hours-a"]).await;
}

async fn an_owner_stores_no_more_than_its_quota(store: &Store) {
    let limits = QueueLimits { bytes_per_owner: Some(11_000_000_000), ..limits(100, 100) };
    let upload = async |whose: &str| {
        store.enqueue(&new_session(whose, whose, EngineId::Pocketsphinx), &limits, now()).await.map(|(s, _)| s.id)
    };
    // Each has five gigabytes. Those that have ended count too.
    let first = upload("quota").await.unwrap();
    store.cancel(&owner("quota"), first, now()).await.unwrap().unwrap();
    upload("quota").await.unwrap();
    assert_eq!(store.kept_bytes(&owner("quota")).await.unwrap(), 10_000_000_000);
    match upload("quota").await {
        Err(EnqueueError::Quota { used: 10_000_000_000, limit: 11_000_000_000 }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(
        store.list(&owner("quota"), &titled(""), None, 10).await.unwrap().len(),
        2,
        "what was refused is not there"
    );
    upload("quota-other").await.unwrap();
    assert!(store.retry(&owner("quota"), first, None, Some(&limits), now()).await.unwrap().is_some());
    store.delete(&owner("quota"), first).await.unwrap();
    upload("quota").await.unwrap();
    clear(store, &["quota", "quota-other"]).await;
}

async fn owners_have_history_once_a_session_was_completed_long_enough_ago(store: &Store) {
    let me = owner("history");
    let known = async |before: Timestamp| store.has_history(&me, before).await.unwrap();
    let id = enqueue(store, "history", None, None).await;
    store.cancel(&me, id, now()).await.unwrap().unwrap();
    assert!(!known(later()).await, "anybody can cancel something");
    store.retry(&me, id, None, None, now()).await.unwrap().unwrap();
    assert_eq!(serve(store).await.as_deref(), Some("history"));
    let ended = store.find(id).await.unwrap().unwrap().0.finished_at.unwrap();
    assert!(known(ended).await && !known(Timestamp(ended.0 - 1)).await);
    assert!(!store.has_history(&owner("history-other"), later()).await.unwrap());
    clear(store, &["history"]).await;
    assert!(!known(later()).await);
    // Its worker has proved its token.
    let id = add(store, "history", "outside", EngineId::External).await;
    assert!(known(Timestamp(0)).await);
    store.delete(&me, id).await.unwrap();
}

async fn sessions_that_ended_long_ago_are_listed(store: &Store) {
    let me = owner("ended");
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(enqueue(store, "ended", None, None).await);
    }
    assert_eq!(serve(store).await.as_deref(), Some("ended"));
    store.cancel(&me, ids[2], now()).await.unwrap().unwrap();
    let between = now();
    let running = claim(store, later()).await.unwrap();
    assert_eq!(running.session.id, ids[1]);
    let status = next(&running.session.status);
    let failure = Failure { code: "x".to_owned(), message: "y".to_owned() };
    store.end(&running, status, Ending::Failed(failure)).await.unwrap().unwrap();
    let found = store.ended_before(between, None, 10).await.unwrap();
    assert_eq!(found.iter().map(|e| e.id).collect::<Vec<_>>(), [ids[0], ids[2]], "those first that ended first");
    assert!(found.iter().all(|e| e.owner == me && e.at < between && e.bytes == 5_000_000_000));
    assert_eq!(store.ended_before(between, Some(&found[0]), 10).await.unwrap(), found[1..]);
    assert_eq!(store.ended_before(between, None, 1).await.unwrap(), found[..1]);
    // Sessions that wait, also again, aren't listed.
    assert_eq!(store.ended_before(later(), None, 10).await.unwrap().len(), 3);
    store.retry(&me, ids[2], None, None, now()).await.unwrap().unwrap();
    let left: Vec<_> = store.ended_before(later(), None, 10).await.unwrap().into_iter().map(|e| e.id).collect();
    assert_eq!(left, [ids[0], ids[1]]);

    // The operator's list, of all owners and of one.
    add(store, "ended-other", "other", EngineId::External).await;
    let list = async |which: SessionFilter, before, limit| -> Vec<SessionId> {
        store.sessions_of_all(&which, before, limit).await.unwrap().into_iter().map(|(s, _)| s.id).collect()
    };
    assert_eq!(list(SessionFilter::default(), None, 100).await.len(), 5);
    let own = || SessionFilter { owner: Some(me.clone()), ..SessionFilter::default() };
    assert_eq!(list(own(), None, 2).await, [ids[3], ids[2]]);
    assert_eq!(list(own(), Some(ids[2]), 9).await, [ids[1], ids[0]]);
    assert_eq!(list(SessionFilter { state: Some(State::Queued), ..own() }, None, 9).await, [ids[3], ids[2]]);
    assert_eq!(
        list(SessionFilter { ended_before: Some(between), ..SessionFilter::default() }, None, 9).await,
        [ids[0]]
    );
    clear(store, &["ended", "ended-other"]).await;

    // One node at a time has a chore.
    let at = |seconds: f64| Timestamp(0).plus_seconds(seconds);
    let take =
        async |node: &str, now: f64, until: f64| store.take_chore("test", node, at(now), at(until)).await.unwrap();
    assert!(take("a", 0.0, 10.0).await);
    assert!(!take("b", 9.0, 20.0).await, "another has it");
    assert!(take("a", 9.0, 20.0).await, "who has it keeps it");
    assert!(take("b", 20.0, 30.0).await, "it was let go");
    assert!(!take("a", 29.0, 40.0).await);
    // A node that stops gives back what it has, and nothing else.
    let now = store.now().await.unwrap();
    assert!(store.take_chore("test", "b", now, now.plus_seconds(600.0)).await.unwrap());
    store.release_chore("test", "a").await.unwrap();
    assert!(!store.take_chore("test", "a", now, now.plus_seconds(600.0)).await.unwrap());
    store.release_chore("test", "b").await.unwrap();
    let later = now.plus_seconds(60.0);
    assert!(store.take_chore("test", "a", later, later.plus_seconds(1.0)).await.unwrap());
}

async fn alerts_begin_and_end_once(store: &Store) {
    let at = |seconds: f64| Timestamp(1_000_000).plus_seconds(seconds);
    let row = |node: &str, since: f64| AlertRow {
        name: "HarkDiskFull".to_owned(),
        node: node.to_owned(),
        detail: "data".to_owned(),
        since: at(since).0,
    };
    let messages = |text: &str| [("webhook", text.to_owned()), ("email", text.to_owned())];
    let disk = row("web1", 0.0);
    assert!(store.begin_alert(&disk, "a", &messages("begins"), at(0.0)).await.unwrap());
    assert!(!store.begin_alert(&row("web1", 1.0), "b", &messages("again"), at(1.0)).await.unwrap(), "it has begun");
    assert!(store.begin_alert(&row("web2", 1.0), "b", &[], at(1.0)).await.unwrap(), "on another node");

    // The next run of a node takes over what the one before hasn't looked after for a minute.
    let begun = async |owner: &str, now: f64| store.begun_alerts("web1", owner, at(now)).await.unwrap();
    assert_eq!(begun("a", 30.0).await, std::slice::from_ref(&disk));
    assert_eq!(begun("c", 80.0).await, []);
    assert_eq!(begun("c", 91.0).await, std::slice::from_ref(&disk));
    assert_eq!(begun("a", 92.0).await, []);
    assert_eq!(store.abandoned_alerts(at(601.0)).await.unwrap(), []);
    assert_eq!(store.abandoned_alerts(at(602.0)).await.unwrap(), [row("web2", 1.0)]);
    assert!(store.end_alert(&row("web2", 1.0), &[], at(602.0)).await.unwrap());
    // One of all nodes belongs to whoever has the chore.
    let all = row("", 0.0);
    assert!(store.begin_alert(&all, "a", &[], at(0.0)).await.unwrap());
    assert_eq!(store.begun_alerts("", "b", at(1.0)).await.unwrap(), std::slice::from_ref(&all));
    assert!(store.end_alert(&all, &[], at(2.0)).await.unwrap());

    assert!(!store.end_alert(&row("web1", 1.0), &messages("?"), at(3.0)).await.unwrap(), "it began at another time");
    assert!(store.end_alert(&disk, &messages("ends"), at(3.0)).await.unwrap());
    assert!(!store.end_alert(&disk, &messages("again"), at(4.0)).await.unwrap());
    // Messages come in order, each once, and each channel by itself.
    let first = store.next_alert_message("webhook").await.unwrap().unwrap();
    assert_eq!((&*first.body, first.failures, first.next_at), ("begins", 0, at(0.0).0));
    store.alert_message_failed(&first.id, at(10.0)).await.unwrap();
    let again = store.next_alert_message("webhook").await.unwrap().unwrap();
    assert_eq!((&again.id, again.failures, again.next_at), (&first.id, 1, at(10.0).0));
    for channel in ["webhook", "email"] {
        let mut sent = Vec::new();
        while let Some(row) = store.next_alert_message(channel).await.unwrap() {
            store.remove_alert_message(&row.id).await.unwrap();
            sent.push(row.body);
        }
        assert_eq!(sent, ["begins", "ends"], "{channel}");
    }

    // What nodes count is there as long as they say so.
    store.put_alert_figures("a", "1", at(0.0)).await.unwrap();
    store.put_alert_figures("b", "2", at(50.0)).await.unwrap();
    store.put_alert_figures("b", "3", at(55.0)).await.unwrap();
    let figures = async |now: f64| store.alert_figures(at(now)).await.unwrap();
    let said = |node: &str, text: &str| (node.to_owned(), text.to_owned());
    assert_eq!(figures(60.0).await, [said("a", "1"), said("b", "3")]);
    assert_eq!(figures(61.0).await, [said("b", "3")]);
    assert!(store.note_error_code("of-a-test", at(0.0)).await.unwrap());
    assert!(!store.note_error_code("of-a-test", at(1.0)).await.unwrap());
}

/// Returns why the queue is full.
fn full<T: std::fmt::Debug>(result: Result<T, EnqueueError>) -> QueueFull {
    match result {
        Err(EnqueueError::Full(full)) => full,
        other => panic!("the queue should be full: {other:?}"),
    }
}

async fn the_queue_is_limited(store: &Store) {
    let limits = limits(3, 2);
    let enqueue =
        async |whose: &str| store.enqueue(&new_session(whose, "a", EngineId::Pocketsphinx), &limits, now()).await;
    // Sessions of outside workers aren't in the queue.
    let mut others = Vec::new();
    for _ in 0..4 {
        others.push(add(store, "bound-me", "outside", EngineId::External).await);
    }
    let mine = [enqueue("bound-me").await.unwrap().0.id, enqueue("bound-me").await.unwrap().0.id];
    let (me, you) = (owner("bound-me"), owner("bound-you"));
    let refused = full(enqueue("bound-me").await);
    assert_eq!((refused.scope, refused.limit), (LimitScope::Owner, ReachedLimit::Sessions(2)));
    assert_eq!((refused.waiting, refused.waiting_secs, refused.measured), (2, 120.0, false));
    assert_eq!(store.queue_full(&me, None, &limits, now()).await.unwrap(), Some(refused));
    assert_eq!(store.queue_full(&you, None, &limits, now()).await.unwrap(), None);
    let (theirs, event) = enqueue("bound-you").await.unwrap();
    // It is in the first turn, before the second session of the other owner.
    assert_eq!((event.new_status().unwrap().queue_position, theirs.status.state), (Some(1), State::Queued));
    let refused = full(enqueue("bound-you").await);
    assert_eq!((refused.scope, refused.limit), (LimitScope::All, ReachedLimit::Sessions(3)));
    assert_eq!(store.list(&you, &titled(""), None, 10).await.unwrap().len(), 1, "what was refused is not there");

    // The whole queue has room when the first running session is done, an owner's part when its first is claimed.
    let running = claim(store, later()).await.unwrap();
    assert_eq!(running.session.id, mine[0]);
    let done = now().plus_seconds(60.0);
    let status =
        Status { estimated_completion: Some(done), processing_speed: Some(1.0), ..next(&running.session.status) };
    store.save(&running, &status).await.unwrap().unwrap();
    enqueue("bound-you").await.unwrap();
    let refused = full(enqueue("bound-someone").await);
    assert!(refused.measured && refused.wait_secs <= 60.0 && refused.wait_secs > 30.0, "{refused:?}");
    let mine_full =
        full(store.enqueue(&new_session("bound-me", "a", EngineId::Pocketsphinx), &self::limits(9, 1), now()).await);
    // Before it come the running session and the other owner's first: a minute each.
    assert!((mine_full.wait_secs - 120.0).abs() < 1e-6, "{mine_full:?}");

    // A retry needs room in the queue as well, except without limits. It doesn't change a session that is queued.
    store.cancel(&me, mine[0], now()).await.unwrap().unwrap();
    let before = store.find(mine[0]).await.unwrap().unwrap().0;
    let refused = full(store.retry(&me, mine[0], None, Some(&limits), now()).await);
    assert_eq!((refused.scope, refused.limit), (LimitScope::All, ReachedLimit::Sessions(3)));
    assert_eq!(store.find(mine[0]).await.unwrap().unwrap().0, before, "a retry in vain changes nothing");
    assert!(store.retry(&me, mine[1], None, Some(&limits), now()).await.unwrap().is_none());
    assert!(store.retry(&me, mine[0], None, None, now()).await.unwrap().is_some());
    for id in others.into_iter().chain(mine) {
        assert!(store.delete(&me, id).await.unwrap());
    }
    for session in store.list(&you, &titled(""), None, 10).await.unwrap() {
        store.delete(&you, session.id).await.unwrap();
    }
}

async fn only_one_of_many_at_once_gets_the_last_place_in_the_queue(store: &Store) {
    const RACERS: usize = 8;
    for limits in [limits(1, 9), limits(9, 1)] {
        for round in 0..10 {
            let start = Arc::new(Barrier::new(RACERS));
            let race = (0..RACERS).map(|n| {
                let (store, start) = (store.clone(), Arc::clone(&start));
                // Half of them are retries, half are new.
                tokio::spawn(async move {
                    let new = new_session("last", &format!("{n}"), EngineId::Pocketsphinx);
                    if n % 2 == 0 {
                        store.insert(&new, now()).await.unwrap();
                        store.cancel(&new.owner, new.id, now()).await.unwrap().unwrap();
                    }
                    start.wait().await;
                    let got = match n % 2 {
                        0 => {
                            let queued = store.retry(&new.owner, new.id, None, Some(&limits), now()).await;
                            queued.map(|event| event.is_some())
                        }
                        _ => store.enqueue(&new, &limits, now()).await.map(|_| true),
                    };
                    match got {
                        Ok(got) => got,
                        Err(EnqueueError::Full(_)) => false,
                        Err(error) => panic!("{error}"),
                    }
                })
            });
            let mut winners = 0;
            for racer in race.collect::<Vec<_>>() {
                winners += usize::from(racer.await.unwrap());
            }
            let mine = store.list(&owner("last"), &titled(""), None, 100).await.unwrap();
            let waiting = mine.iter().filter(|s| s.status.state == State::Queued).count();
            assert_eq!((winners, waiting), (1, 1), "round {round} with {limits:?}");
            for session in mine {
                store.delete(&owner("last"), session.id).await.unwrap();
            }
        }
    }
}

async fn stuck_sessions_are_listed_and_taken_from_their_workers(store: &Store) {
    let whose = owner("hang");
    let at = now();
    let after = |seconds: f64| at.plus_seconds(seconds);
    let id = add(store, "hang", "hang", EngineId::Pocketsphinx).await;
    let queued = store.health(after(100.0), STALLED_SECS).await.unwrap();
    assert!(queued.oldest_queued.is_some_and(|since| since > at), "{queued:?}");
    let (first, _) = store.claim("worker-1", at, later(), u64::MAX, &all_engines()).await.unwrap().unwrap();
    let told = store.health(after(60.0), STALLED_SECS).await.unwrap();
    assert_eq!((told.stalled, told.long_running, told.oldest_queued), (0, 0, None));
    assert!(store.stuck(after(60.0), STALLED_SECS).await.unwrap().is_empty());
    let told = store.health(after(60.1), STALLED_SECS).await.unwrap();
    assert_eq!((told.stalled, told.long_running), (1, 0));
    assert_eq!((told.hanging, told.longest_hanging_secs), (1, Some(60.1)));
    // It makes progress, but has run for more than ten minutes and three times its minute of audio.
    let mut status =
        Status { version: first.session.status.version + 1, timestamp: after(779.0), ..first.session.status.clone() };
    status.stage = Some(Stage::Transcribing);
    status.progress = Some(50.0);
    status.segments = 1;
    store.append(&first, &segment(0), &status, true).await.unwrap().unwrap();
    assert!(store.stuck(after(780.0), STALLED_SECS).await.unwrap().is_empty());
    let told = store.health(after(780.1), STALLED_SECS).await.unwrap();
    assert_eq!((told.stalled, told.long_running), (0, 1));
    // Its minute of audio should have taken 780 seconds at the most.
    assert_eq!((told.hanging, told.longest_hanging_secs), (1, Some(0.1)));
    let told = store.health(after(1680.0), STALLED_SECS).await.unwrap();
    assert_eq!((told.stalled, told.long_running, told.hanging, told.longest_hanging_secs), (1, 1, 1, Some(901.0)));
    // A lease that has run out makes it stalled.
    assert!(store.renew(&first, after(700.0)).await.unwrap());
    let stuck = store.stuck(after(750.0), STALLED_SECS).await.unwrap();
    let [stuck] = &stuck[..] else { panic!("{stuck:?}") };
    assert_eq!((stuck.id, stuck.attempt, stuck.stalled, stuck.long_running), (id, 1, true, false));
    assert_eq!(
        (stuck.worker.as_deref(), stuck.stage, stuck.progress),
        (Some("worker-1"), Some(Stage::Transcribing), Some(50.0))
    );
    assert_eq!((stuck.updated_at, stuck.lease_until), (after(779.0), Some(after(700.0))));
    // It has moved on meanwhile.
    assert!(store.renew(&first, later()).await.unwrap());
    assert!(store.release(stuck, &Resolution::Requeue, after(750.0), STALLED_SECS).await.unwrap().is_none());

    let event = store.release(stuck, &Resolution::Requeue, after(900.0), STALLED_SECS).await.unwrap().unwrap();
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
    // It has been waiting since it was put back, though it keeps its position.
    assert_eq!(store.health(after(905.0), STALLED_SECS).await.unwrap().oldest_queued, Some(after(900.0)));
    let (second, _) = store.claim("worker-2", after(910.0), later(), u64::MAX, &all_engines()).await.unwrap().unwrap();
    assert_eq!((second.session.status.attempt, second.crashes, second.session.status.segments), (2, 0, 1));
    fenced(&Status { version: late.version + 5_000, ..late.clone() }).await;
    assert!(
        store.release(stuck, &Resolution::Requeue, after(2000.0), STALLED_SECS).await.unwrap().is_none(),
        "another attempt"
    );
    // The time of the new attempt is counted from its own beginning.
    assert!(store.stuck(after(960.0), STALLED_SECS).await.unwrap().is_empty());

    let stuck = store.stuck(after(2000.0), STALLED_SECS).await.unwrap().remove(0);
    assert!(stuck.stalled && stuck.long_running);
    let reason = "An operator ended it.".to_owned();
    let event =
        store.release(&stuck, &Resolution::Fail(reason.clone()), after(2000.0), STALLED_SECS).await.unwrap().unwrap();
    let failed = event.new_status().unwrap();
    assert_eq!((failed.state, &failed.message), (State::Failed, &reason));
    assert_eq!(failed.error, Some(Failure { code: "stuck".to_owned(), message: reason }));
    let late = Status { version: failed.version + 5_000, ..second.session.status.clone() };
    assert!(store.end(&second, late.clone(), Ending::Completed).await.unwrap().is_none());
    assert!(store.end(&second, late, Ending::HandedBack).await.unwrap().is_none());
    let ended = store.find(id).await.unwrap().unwrap().0;
    assert_eq!((ended.status.state, ended.finished_at, ended.status.segments), (State::Failed, Some(after(2000.0)), 1));
    assert!(store.retry(&whose, id, None, None, now()).await.unwrap().is_some(), "its owner can try again");
    store.delete(&whose, id).await.unwrap();

    // Hark can't requeue the session of an outside worker, but only end it.
    let id = add(store, "hang", "outside", EngineId::External).await;
    let first = store.find(id).await.unwrap().unwrap().0.status;
    let running = Status { state: State::Processing, timestamp: at, ..next(&first) };
    assert!(report_status(store, &Status { timestamp: at, ..running.clone() }).await);
    let stuck = store.stuck(after(61.0), STALLED_SECS).await.unwrap().remove(0);
    assert_eq!((stuck.id, stuck.worker.as_deref()), (id, None));
    assert!(store.release(&stuck, &Resolution::Requeue, after(61.0), STALLED_SECS).await.unwrap().is_none());
    assert!(
        store.release(&stuck, &Resolution::Fail("x".to_owned()), after(61.0), STALLED_SECS).await.unwrap().is_some()
    );
    assert!(!report_status(store, &Status { version: running.version + 5_000, ..running }).await);
    store.delete(&whose, id).await.unwrap();
}

async fn administrators_see_and_take_the_sessions_of_all(store: &Store) {
    let at = now();
    let after = |seconds: f64| at.plus_seconds(seconds);
    let mut ids = Vec::new();
    for whose in ["seen-ann", "seen-bob", "seen-ann"] {
        ids.push(add(store, whose, whose, EngineId::Pocketsphinx).await);
    }
    let overseen = async |which: OversightFilter, now| {
        let found = store.overseen(&which, None, 100, now, STALLED_SECS).await.unwrap();
        let found = found.into_iter().map(|found| found.session.id);
        found.filter(|id| ids.contains(id)).collect::<Vec<_>>()
    };
    let states = |states: &[State]| OversightFilter { states: states.to_vec(), ..OversightFilter::default() };
    let nothing: [SessionId; 0] = [];
    let newest_first = [ids[2], ids[1], ids[0]];
    assert_eq!(overseen(states(&[State::Queued, State::Failed]), at).await, newest_first);
    assert_eq!(overseen(states(&[]), at).await, nothing);
    let page = store.overseen(&states(&[State::Queued]), Some(ids[2]), 1, at, STALLED_SECS).await.unwrap();
    assert_eq!((page[0].session.id, page[0].owner.as_str()), (ids[1], owner("seen-bob").as_str()));
    let before = OversightFilter { created_before: Some(after(-60.0)), ..states(&[State::Queued]) };
    assert_eq!(overseen(before, at).await, nothing);
    let since = OversightFilter { created_after: Some(after(-60.0)), ..states(&[State::Queued]) };
    assert_eq!(overseen(since, at).await, newest_first);

    let (claim, _) = store.claim("node-a-17", at, later(), u64::MAX, &all_engines()).await.unwrap().unwrap();
    let running = claim.session.id;
    let on =
        |node: &str| OversightFilter { node: Some(node.to_owned()), ..states(&[State::Queued, State::Processing]) };
    assert_eq!(overseen(on("node-a"), at).await, [running]);
    for other in ["node", "a", "node-a-17", "node-a-"] {
        assert_eq!(overseen(on(other), at).await, nothing, "{other}");
    }
    let stalled = OversightFilter { stalled: true, ..OversightFilter::default() };
    assert_eq!(overseen(stalled.clone(), after(59.0)).await, nothing);
    assert_eq!(overseen(stalled, after(61.0)).await, [running]);
    let long = OversightFilter { long_running: true, ..OversightFilter::default() };
    assert_eq!(overseen(long.clone(), after(61.0)).await, nothing);
    assert_eq!(overseen(long, after(1000.0)).await, [running]);

    // Whether or not it hangs, and whatever this node's clock says; but only in the attempt that was seen.
    let take = async |attempt, resolution: Resolution, now| {
        store.take_from_worker(running, attempt, &resolution, now, ANY_IDLE_SECS).await.unwrap()
    };
    assert!(take(2, Resolution::Requeue, at).await.is_none());
    let event = take(1, Resolution::Requeue, after(-30.0)).await.unwrap();
    assert_eq!(event.new_status().unwrap().state, State::Queued);
    assert!(!store.renew(&claim, later()).await.unwrap(), "its worker has lost it");
    assert!(take(1, Resolution::Fail("x".to_owned()), at).await.is_none(), "it waits");
    for (whose, id) in ["seen-ann", "seen-bob", "seen-ann"].into_iter().zip(&ids) {
        store.delete(&owner(whose), *id).await.unwrap();
    }
}

/// Whether a status that follows any before it is written.
async fn report_status(store: &Store, status: &Status) -> bool {
    !store.report_many(&[(status.version - 1, status.clone())], later()).await.unwrap().is_empty()
}

async fn outside_workers_report_progress_and_segments(store: &Store) {
    let id = add(store, "outside", "outside", EngineId::External).await;
    assert!(claim(store, later()).await.is_none(), "no worker of Hark's takes it");
    let first = store.find(id).await.unwrap().unwrap().0.status;
    let running = Status { state: State::Processing, stage: Some(Stage::Transcribing), ..next(&first) };
    assert!(report_status(store, &running).await);
    assert!(!report_status(store, &running).await, "the version must rise");
    let words = vec![hark::model::Word { text: "a".to_owned(), start: 0.0, end: 0.5, confidence: None }];
    let segments = [Segment { words, speaker: Some(2), ..segment(0) }, segment(1)];
    assert!(store.report_segments(id, 0, &segments, later()).await.unwrap());
    assert!(!store.report_segments(id, 0, &segments, later()).await.unwrap(), "they are there already");
    assert_eq!(store.segments(id, 0, 10).await.unwrap(), segments);
    assert_eq!(store.speaker_end(id, 2).await.unwrap(), Some(1.0));
    assert_eq!(store.speaker_end(id, 1).await.unwrap(), None);
    let step = Status { progress: Some(33.3), message: "It's “going”".to_owned(), segments: 2, ..next(&running) };
    let silent = now();
    let written = store.report_many(&[(running.version, step.clone())], silent).await.unwrap();
    assert_eq!(written, [(id, StoredReport { owner: owner("outside"), segments: 2 })].into());
    let stored = store.find(id).await.unwrap().unwrap().0.status;
    assert_eq!(stored, Status { queue_position: None, ..step });
    let events = store.reap_outside(now()).await.unwrap();
    let lost = events.iter().find_map(|e| e.new_status().filter(|s| s.session_id == id)).unwrap();
    assert_eq!((lost.state, lost.segments), (State::Failed, 2));
    assert_eq!(lost.version, stored.version + OUTSIDE_VERSION_GAP, "above what was announced and not stored");
    assert!(!store.open_outside().await.unwrap().contains_key(&id));
    // The same for other ends that don't come from its worker.
    let cancelled = add(store, "outside", "cancelled", EngineId::External).await;
    assert_eq!(store.open_outside().await.unwrap()[&cancelled], 1);
    let end = store.cancel(&owner("outside"), cancelled, now()).await.unwrap().unwrap();
    assert_eq!(end.new_status().unwrap().version, 1 + OUTSIDE_VERSION_GAP);
    let failed = add(store, "outside", "failed", EngineId::External).await;
    assert!(
        report_status(
            store,
            &Status { version: 7, state: State::Processing, ..store.find(failed).await.unwrap().unwrap().0.status }
        )
        .await
    );
    let resolution = Resolution::Fail("It hangs.".to_owned());
    let end = store.take_from_worker(failed, 0, &resolution, now(), ANY_IDLE_SECS).await.unwrap().unwrap();
    assert_eq!(end.new_status().unwrap().version, 7 + OUTSIDE_VERSION_GAP);
    for ended in [cancelled, failed] {
        store.delete(&owner("outside"), ended).await.unwrap();
    }
    store.delete(&owner("outside"), id).await.unwrap();
}

async fn several_statuses_are_written_together(store: &Store) {
    let mut ids = Vec::new();
    for n in 0..3 {
        ids.push(add(store, "many", &format!("many {n}"), EngineId::External).await);
    }
    let read = async |id| store.find(id).await.unwrap().unwrap().0;
    let at = now();
    for (state, stage) in [(State::Queued, None), (State::Processing, Some(Stage::Saving)), (State::Failed, None)] {
        let mut many = Vec::new();
        for id in &ids {
            let before = read(*id).await.status;
            let status = Status {
                state,
                stage,
                timestamp: at,
                attempt: 2,
                progress: Some(12.5),
                message: "It's “going”".to_owned(),
                duration_total: None,
                error: (state == State::Failed)
                    .then(|| Failure { code: "gpu".to_owned(), message: "It is gone.".to_owned() }),
                queue_position: None,
                ..next(&before)
            };
            // The last one is changed elsewhere meanwhile.
            many.push((before.version - u64::from(*id == ids[2]), status));
        }
        let (_, first) = &many[0];
        many.push((0, Status { session_id: SessionId(Uuid::from_u128(7)), ..first.clone() }));
        let written = store.report_many(&many, later()).await.unwrap();
        let stored = StoredReport { owner: owner("many"), segments: 0 };
        assert_eq!(written, [(ids[0], stored.clone()), (ids[1], stored)].into());
        for (_, status) in &many[..2] {
            let session = read(status.session_id).await;
            // The message of a queued one is made of its place.
            let told = if state == State::Queued { &status.message } else { &session.status.message };
            assert_eq!(Status { message: told.clone(), queue_position: None, ..session.status.clone() }, *status);
            let times = (session.started_at.is_some(), session.finished_at);
            assert_eq!(times, (state != State::Queued, (state == State::Failed).then_some(at)));
        }
        assert_eq!(read(ids[2]).await.status.version, 1);
    }
    let ended = read(ids[1]).await.status;
    assert!(!report_status(store, &next(&ended)).await, "it has ended");
    assert!(store.report_many(&[], later()).await.unwrap().is_empty());
    for id in ids {
        store.delete(&owner("many"), id).await.unwrap();
    }
}

/// What one page reported of a minute with these delays in milliseconds.
fn report(delays: &[f64], polling: bool) -> ConnectionReport {
    let mut report = ConnectionReport { first: true, ..ConnectionReport::default() };
    let counted = if polling {
        report.mode_ms.polling = 60_000;
        report.requests.poll = 20;
        &mut report.delivery_polling
    } else {
        report.mode_ms.live = 60_000;
        (report.connects, report.requests.stream, report.bytes) = (1, 1, 1000);
        report.failures.silent = 1;
        &mut report.delivery_live
    };
    delays.iter().for_each(|ms| counted.note(*ms));
    report
}

async fn figures_outlast_a_restart_and_are_added_up_over_nodes(store: &Store) {
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let ended = |state, code: Option<&str>| {
        let mut status = Status::new(SessionId(Uuid::now_v7()), state, None, now());
        status.error = code.map(|code| Failure { code: code.to_owned(), message: String::new() });
        status
    };
    let start = || Hours::new(FiguresConfig::default());
    let (first, other) = (start(), start());
    // Delays of which a tenth is above 100 ms: 0 to 5, up to 10, 100 and 250 ms.
    let delays = [vec![3.0; 50], vec![8.0; 30], vec![80.0; 10], vec![220.0; 10]].concat();
    first.reported(Arm::Stream, Browser::Chromium, &report(&delays, false));
    first.reported(Arm::Polling, Browser::Firefox, &report(&[1400.0], true));
    first.session_ended(&ended(State::Completed, None));
    first.transcribed(120.0, 30.0);
    first.sampled(&Sample { streams: 7, cpu: Some(0.5), memory: Some(1000), totals: totals(10, 100) });
    first.store(store, at("2026-11-27T03:20:00.000Z")).await.unwrap();
    // Stored again and again, each row holds everything that was counted in its time.
    first.session_ended(&ended(State::Failed, Some("stalled")));
    first.store(store, at("2026-11-27T03:24:00.000Z")).await.unwrap();
    first.store(store, at("2026-11-27T03:24:30.000Z")).await.unwrap();
    other.session_ended(&ended(State::Completed, None));
    other.sampled(&Sample { streams: 9, cpu: Some(0.1), memory: Some(3000), totals: totals(1, 10) });
    other.store(store, at("2026-11-27T03:24:00.000Z")).await.unwrap();
    // The node is restarted, and counts in the same hour as before.
    let restarted = start();
    restarted.reported(Arm::Stream, Browser::Chromium, &report(&[8.0], false));
    restarted.sampled(&Sample { totals: totals(5, 50), ..Sample::default() });
    restarted.store(store, at("2026-11-27T03:50:00.000Z")).await.unwrap();
    restarted.session_ended(&ended(State::Cancelled, None));
    restarted.store(store, at("2026-11-27T05:01:00.000Z")).await.unwrap();

    let figures = restarted.calculate(store, Range::Day, at("2026-11-27T05:01:30.000Z")).await.unwrap();
    let (stream, polling, server) = (&figures.current.stream, &figures.current.polling, &figures.current.server);
    assert_eq!((stream.delay.count, polling.delay.count), (101, 1));
    // 50.5 of 101 are within the bucket up to 10 ms, of which there are 50 before and 31 in it.
    assert!((stream.delay.p50_ms.unwrap() - (5.0 + 5.0 * 0.5 / 31.0)).abs() < 1e-9);
    let within = stream.delay.within_100_ms.unwrap();
    assert_eq!((within.of, (within.value * 101.0).round()), (101, 91.0));
    assert_eq!((stream.times.live, stream.uptime, polling.times.polling), (120_000, Some(1.0), 60_000));
    assert_eq!((stream.bytes, stream.connects), (2000, 2));
    let [failure] = &stream.failures[..] else { panic!("{:?}", stream.failures) };
    assert_eq!((&*failure.kind, &*failure.browser, failure.count), ("silent", "chromium", 2));
    let sessions = &figures.current.sessions;
    assert_eq!((sessions.completed, sessions.failed, sessions.cancelled, sessions.stuck), (2, 1, 1, 1));
    assert_eq!((sessions.speed, sessions.success.unwrap().of), (Some(4.0), 3));
    // A node that starts counts from 0.
    assert_eq!((server.streams_opened, server.events, server.minutes), (16, 160, 3));
    assert_eq!((server.most_streams, server.most_memory, server.cpu), (9, 3000, Some(0.3)));
    let by_hour: Vec<u64> = figures.points.iter().map(|point| point.minutes).collect();
    assert_eq!((by_hour[22], by_hour[21], by_hour[20]), (0, 3, 0), "at 3 o'clock");
    assert_eq!((figures.points[23].cancelled, figures.points[23].at), (1, at("2026-11-27T05:00:00.000Z")));

    // The same by five minutes.
    let hour = restarted.calculate(store, Range::Hour, at("2026-11-27T03:59:00.000Z")).await.unwrap();
    let minutes: Vec<(String, u64)> = hour
        .points
        .iter()
        .filter(|point| point.minutes > 0)
        .map(|point| (point.at.to_string()[11..16].to_owned(), point.minutes))
        .collect();
    assert_eq!(minutes, [("03:15".to_owned(), 1), ("03:20".to_owned(), 1), ("03:45".to_owned(), 1)]);
    assert_eq!((hour.current.sessions.completed, hour.current.sessions.cancelled), (2, 0));
    store.delete_figures(3600, Timestamp(i64::MAX)).await.unwrap();
    store.delete_figures(300, Timestamp(i64::MAX)).await.unwrap();
}

fn totals(opened: u64, events: u64) -> StreamTotals {
    StreamTotals { opened, events, ..StreamTotals::default() }
}

async fn figures_are_kept_for_as_long_as_they_should(store: &Store) {
    let hours = Hours::new(FiguresConfig { figures_days: 2.0, ..FiguresConfig::default() });
    let now: Timestamp = "2026-11-27T03:59:30.000Z".parse().unwrap();
    for hours_ago in [0.0, 1.0, 2.0, 4.0, 47.0, 49.0, 500.0] {
        hours.transcribed(1.0, 1.0);
        hours.store(store, now.plus_seconds(-hours_ago * 3600.0)).await.unwrap();
    }
    let kept = async |seconds| store.figures(seconds, Timestamp(0)).await.unwrap().len();
    assert_eq!((kept(3600).await, kept(300).await), (7, 7));
    hours.delete_old(store, now).await.unwrap();
    assert_eq!((kept(3600).await, kept(300).await), (5, 3));
    store.delete_figures(3600, Timestamp(i64::MAX)).await.unwrap();
    store.delete_figures(300, Timestamp(i64::MAX)).await.unwrap();
}

async fn a_nodes_load_is_kept_with_its_heartbeat(store: &Store) {
    let work = WorkerLoad {
        session: SessionId(Uuid::now_v7()),
        engine: EngineId::Whisper,
        since: now(),
        stage: Some(Stage::Decoding),
        progress: Some(3.5),
        speed: None,
    };
    let load = NodeLoad { streams: 12, cpu: Some(0.25), work: vec![work], ..NodeLoad::default() };
    let node = NodeRow {
        id: "node-with-load".to_owned(),
        name: "node".to_owned(),
        role: "serve".to_owned(),
        version: "1".to_owned(),
        workers: 1,
        running: 1,
        engines: Vec::new(),
        cookie_keys: Vec::new(),
        clock_ahead_ms: None,
        problem: None,
        load: Some(load.clone()),
        started_at: now(),
        heartbeat_at: now(),
    };
    let found = async || {
        let nodes = store.nodes().await.unwrap();
        nodes.into_iter().find(|found| found.id == node.id).unwrap().load
    };
    store.put_node(&node, now()).await.unwrap();
    assert_eq!(found().await, Some(load.clone()));
    let busier = NodeLoad { streams: 13, work: Vec::new(), ..load };
    store.put_node(&NodeRow { load: Some(busier.clone()), ..node.clone() }, now()).await.unwrap();
    assert_eq!(found().await, Some(busier));
    store.put_node(&NodeRow { load: None, ..node.clone() }, now()).await.unwrap();
    assert_eq!(found().await, None);
    store.remove_node(&node.id).await.unwrap();
}

async fn links_work_once_and_recovery_keys_until_replaced(store: &Store) {
    let (ann, bob) = (owner("link-ann"), owner("link-bob"));
    add(store, "link-ann", "Talk", EngineId::Command).await;
    assert_eq!((store.count(&ann).await.unwrap(), store.count(&bob).await.unwrap()), (1, 0));
    let at = now();
    let later = |secs: f64| at.plus_seconds(secs);
    store.replace_link(&ann, "a1", Some(later(600.0)), at).await.unwrap();
    store.replace_link(&bob, "b1", Some(later(600.0)), at).await.unwrap();
    // Reading a link doesn't use it up.
    for _ in 0..2 {
        assert_eq!(store.link("a1", at).await.unwrap(), Some((ann.clone(), Some(later(600.0)))));
    }
    assert_eq!(store.link("a1", later(600.0)).await.unwrap(), None);
    assert_eq!(store.take_link("a1", later(600.0)).await.unwrap(), None);
    let takers = (0..8).map(|_| store.take_link("a1", at));
    let got = futures::future::join_all(takers).await.into_iter().filter_map(Result::unwrap).count();
    assert_eq!(got, 1, "a link works once");
    // A new link replaces the previous one, and expired ones are deleted.
    store.replace_link(&bob, "b2", Some(later(1200.0)), at).await.unwrap();
    assert_eq!(store.take_link("b1", at).await.unwrap(), None);
    store.replace_link(&ann, "a2", Some(later(3000.0)), later(1300.0)).await.unwrap();
    assert_eq!(store.take_link("b2", at).await.unwrap(), None);
    // A recovery key exists beside a link, works any number of times, and ends when it is replaced or revoked.
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

async fn administrators_sign_in_until_it_ends(store: &Store) {
    let at = now();
    let later = |secs: f64| at.plus_seconds(secs);
    assert!(store.admin_password().await.unwrap().is_none());
    store.add_sign_in("s0", "p0", at, later(60.0)).await.unwrap();
    assert!(!store.is_signed_in("s0", at).await.unwrap(), "there is no password");
    let password = |id: &str| StoredPassword { id: id.to_owned(), hash: format!("hash of {id}") };
    store.set_admin_password(Some(&password("p1")), at).await.unwrap();
    assert!(store.admin_password().await.unwrap() == Some(password("p1")));
    for (hash, ends) in [("s1", later(60.0)), ("s2", later(120.0)), ("s3", later(120.0))] {
        store.add_sign_in(hash, "p1", at, ends).await.unwrap();
    }
    let signed_in = async |hash: &str, at| store.is_signed_in(hash, at).await.unwrap();
    assert!(signed_in("s1", later(59.9)).await && signed_in("s2", later(59.9)).await);
    assert!(!signed_in("s1", later(60.0)).await && signed_in("s2", later(60.0)).await);
    assert!(!signed_in("", at).await && !signed_in("s0", at).await);
    store.end_sign_in("s3").await.unwrap();
    assert!(!signed_in("s3", at).await && signed_in("s2", at).await);
    // Those that have expired are deleted with the next one.
    store.add_sign_in("s4", "p1", later(60.0), later(120.0)).await.unwrap();
    assert!(!signed_in("s1", at).await && signed_in("s4", at).await);
    // Another password ends all, also one that is added in the same moment by who has checked the old one.
    store.set_admin_password(Some(&password("p2")), later(1.0)).await.unwrap();
    store.add_sign_in("s5", "p1", at, later(120.0)).await.unwrap();
    assert!(!signed_in("s2", at).await && !signed_in("s5", at).await);
    store.add_sign_in("s6", "p2", at, later(120.0)).await.unwrap();
    assert!(signed_in("s6", at).await);
    store.set_admin_password(None, later(2.0)).await.unwrap();
    assert!(!signed_in("s6", at).await && store.admin_password().await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_works_on_sqlite() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("hark.sqlite");
    let store = Store::open(&path).await.unwrap();
    assert!(!store.is_shared());
    suite(&store).await;
    store.close().await;
    // The database can be opened again.
    let store = Store::open(&path).await.unwrap();
    store.try_write(now()).await.unwrap();
    let pool = sqlx::SqlitePool::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    for n in 0..1001 {
        add(&store, "before", &format!("ÉCOLE {n}"), EngineId::External).await;
    }
    sqlx::query("UPDATE sessions SET title_folded = ''").execute(&pool).await.unwrap();
    old_titles_are_found(store, || Store::open(&path)).await;
}

/// A statement that is prepared while another connection changes the tables may fail.
#[tokio::test(flavor = "multi_thread")]
async fn using_and_closing_an_sqlite_database_changes_no_table() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("hark.sqlite");
    let look = async |query: &'static str| {
        let mut connection = sqlx::SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap();
        let (found,): (i64,) = sqlx::query_as(query).fetch_one(&mut connection).await.unwrap();
        found
    };
    let tables = async || look("PRAGMA schema_version").await;
    let statistics = async || look("SELECT count(*) FROM sqlite_stat1 WHERE tbl = 'sessions'").await;
    let store = Store::open(&path).await.unwrap();
    let (before, empty) = (tables().await, statistics().await);
    for n in 0..100 {
        add(&store, "a", &format!("Session {n}"), EngineId::External).await;
    }
    store.close().await;
    assert_eq!((tables().await, empty), (before, 0));
    // What has grown since is counted at the next start.
    let store = Store::open(&path).await.unwrap();
    assert_eq!((tables().await, statistics().await > 0), (before, true));
    store.close().await;
}

/// Checks that titles are found that were stored by a version that didn't fold them.
async fn old_titles_are_found<F: Future<Output = Result<Store, E>>, E: std::fmt::Debug>(
    store: Store,
    open: impl Fn() -> F,
) {
    let found = async |store: &Store| store.list(&owner("before"), &titled("école"), None, 2000).await.unwrap().len();
    assert_eq!(found(&store).await, 0);
    store.close().await;
    let store = open().await.unwrap();
    assert_eq!(found(&store).await, 1001);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_works_on_postgresql() {
    let server = Postgres::start();
    let url = server.database("hark");
    // Several nodes may start at once.
    let stores = tokio::join!(Store::connect(&url), Store::connect(&url), Store::connect(&url));
    let store = stores.0.unwrap();
    assert!(store.is_shared() && stores.1.is_ok() && stores.2.is_ok());
    suite(&store).await;
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    for n in 0..1001 {
        add(&store, "before", &format!("ÉCOLE {n}"), EngineId::External).await;
    }
    sqlx::query("UPDATE sessions SET title_folded = ''").execute(&pool).await.unwrap();
    old_titles_are_found(store, || Store::connect(&url)).await;
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
    // After a restart everything is still there.
    let folder = app.stop().await;
    let app = TestApp::on(folder, &flags).await;
    let again = app.visitor().get(&format!("/api/v1/sessions/{id}")).await;
    assert_eq!(again.status(), 404, "somebody else's");
    drop(app);
}

/// An engine that writes a segment for each second of audio, but hangs after the second one if it can remove a file
/// `hang`.
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

/// Runs `hark sessions stuck` beside the node, as an operator would.
async fn hark_stuck(folder: &Path, url: Option<&str>, flags: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hark"));
    // Longer than the second for which a worker may delay storing progress.
    command.args(["sessions", "stuck", "--idle-secs", "2"]).args(flags).env("HARK_DATA_DIR", folder);
    match url {
        Some(url) => command.env("DATABASE_URL", url),
        None => command.env_remove("DATABASE_URL"),
    };
    let output: Output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code().unwrap(), text)
}

/// Waits until `wanted` is true of a session's status, and returns that.
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
    time::timeout(TIMEOUT, waiting).await.expect("the session gets there")
}

async fn operators_resolve_stuck_sessions(url: Option<&str>) {
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
        let listed = time::timeout(TIMEOUT, waiting).await.expect("it becomes stuck");
        let row = listed.lines().find(|line| line.starts_with(&id)).expect("it is listed");
        for part in ["processing", "transcribing", "  1  ", "left", "stalled"] {
            assert!(row.contains(part), "{part} is missing in: {row}");
        }
        let watching = Sse::new(me.get(&format!("/api/v1/sessions/{id}/status/stream")).await);
        let (code, text) = stuck(&[flag]).await;
        assert_eq!(code, 0, "{text}");
        if flag == "--requeue" {
            assert!(text.contains(&format!("{id} is back in the queue")), "{text}");
            // The old worker notices that it has lost the session, and is free for the next attempt.
            let done = session(&me, &id, |status| status["status"] == "completed").await;
            assert_eq!((&done["attempt"], &done["segments"]), (&2.into(), &5.into()));
            let segments = me.json(&format!("/api/v1/sessions/{id}/segments")).await;
            let starts: Vec<_> = segments["segments"].as_array().unwrap().iter().map(|s| s["start"].as_f64()).collect();
            assert_eq!(starts, (0..5).map(|n| Some(f64::from(n))).collect::<Vec<_>>());
        } else {
            assert!(text.contains(&format!("{id} has failed")), "{text}");
            let failed = session(&me, &id, |status| status["status"] == "failed").await;
            // Watchers of the node see what another process did.
            let last = watching.rest().await.pop().unwrap().json();
            assert_eq!((&last["status"], &last["version"]), (&failed["status"], &failed["version"]));
            assert_eq!((&failed["error"]["code"], &failed["segments"]), (&"stuck".into(), &2.into()));
            assert!(failed["message"].as_str().unwrap().starts_with("An operator ended this session"), "{failed}");
            // The worker is free for others, and nothing that it did meanwhile has changed the session.
            let other = me.session("talk.wav", wav(1.0, 5000.0), &[]).await;
            session(&me, &other, |status| status["status"] == "completed").await;
            assert_eq!(session(&me, &id, |_| true).await, failed);
        }
    }
    assert_eq!(stuck(&[]).await, (0, "no session is stuck\n".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_resolve_stuck_sessions_on_sqlite() {
    operators_resolve_stuck_sessions(None).await;
    // A folder that isn't Hark's stays as it is.
    let folder = tempfile::TempDir::new().unwrap();
    let (code, text) = hark_stuck(folder.path(), None, &[]).await;
    assert!(code == 1 && text.contains("there is no database"), "{code}: {text}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_resolve_stuck_sessions_on_postgresql() {
    let server = Postgres::start();
    operators_resolve_stuck_sessions(Some(&server.database("hark"))).await;
}

/// Runs `hark sessions` with these arguments beside the node: exit code, standard output, standard error.
async fn hark_sessions(folder: &Path, url: Option<&str>, args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hark"));
    command.arg("sessions").args(args).env("HARK_DATA_DIR", folder).env_remove("HARK_RECORDINGS_URL");
    match url {
        Some(url) => command.env("DATABASE_URL", url),
        None => command.env_remove("DATABASE_URL"),
    };
    let output: Output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn recordings(app: &TestApp) -> usize {
    let files = std::fs::read_dir(app.folder.path().join("recordings")).unwrap();
    files.filter(|file| file.as_ref().unwrap().file_name() != hark::server::media::MARKER).count()
}

async fn operators_list_and_delete_sessions(url: Option<&str>) {
    let folder = tempfile::TempDir::new().unwrap();
    let command = slow_engine(folder.path(), 0.5);
    let mut flags = vec!["--engine", "command", "--engine-command", &command, "--lease-secs", "3"];
    flags.extend(url.iter().flat_map(|url| ["--database-url", url]));
    let app = TestApp::on(folder, &flags).await;
    let (me, you, data) = (app.visitor(), app.visitor(), app.folder.path());
    let hark = async |args: &[&str]| hark_sessions(data, url, args).await;
    assert_eq!(hark(&["list"]).await, (0, "found: 0 sessions\n".to_owned(), String::new()));
    let done = me.session("a.wav", wav(1.0, 5000.0), &[("title", "Mine, done")]).await;
    me.wait(&done, "completed").await;
    let long = me.session("b.wav", wav(600.0, 5000.0), &[("title", "Mine, long")]).await;
    session(&me, &long, |status| status["segments"].as_u64() > Some(0)).await;
    let theirs = you.session("c.wav", wav(2.0, 5000.0), &[("title", "Theirs")]).await;

    let (code, json, _) = hark(&["list", "--json"]).await;
    let listed: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ids: Vec<&str> = listed.iter().map(|session| session["id"].as_str().unwrap()).collect();
    assert_eq!((code, ids), (0, vec![theirs.as_str(), &long, &done]), "newest first");
    let owner = listed[1]["owner"].as_str().unwrap().to_owned();
    assert!(listed[2]["owner"] == owner.as_str() && listed[0]["owner"] != owner.as_str());
    assert_eq!((&listed[2]["title"], &listed[2]["status"]["status"]), (&"Mine, done".into(), &"completed".into()));
    let (_, own, _) = hark(&["list", "--owner", &owner, "--status", "completed"]).await;
    assert!(own.contains(&done) && own.contains(&owner) && own.contains("Mine, done"), "{own}");
    assert!(!own.contains(&long) && own.ends_with("found: 1 session\n"), "{own}");
    assert_eq!(hark(&["list", "--status", "lost"]).await.0, 2);

    // Nothing is deleted without `--yes`.
    assert_eq!(hark(&["delete"]).await.0, 2);
    let (code, text, _) = hark(&["delete", "--owner", &owner]).await;
    assert!(
        code == 0 && text.contains(&done) && text.contains("to delete: 2 sessions, ") && text.contains("--yes"),
        "{text}"
    );
    assert_eq!(recordings(&app), 3);
    // Sessions that haven't ended have no age.
    let (_, text, _) = hark(&["delete", "--owner", &owner, "--older-than", "0"]).await;
    assert!(text.contains(&done) && !text.contains(&long), "{text}");
    let (_, text, _) = hark(&["delete", "--older-than", "1"]).await;
    assert!(text.starts_with("to delete: 0 sessions"), "{text}");

    // The running one is taken from its worker, which claims the next.
    let watching = Sse::new(me.get(&format!("/api/v1/sessions/{long}/status/stream")).await);
    let (code, text, _) = hark(&["delete", "--owner", &owner, "--yes"]).await;
    assert!(code == 0 && text.contains(&format!("{long} is deleted")), "{text}");
    assert!(text.contains("deleted: 2 sessions, "), "{text}");
    assert_eq!(recordings(&app), 1);
    watching.rest().await;
    for id in [&done, &long] {
        assert_eq!(me.get(&format!("/api/v1/sessions/{id}")).await.status(), 404);
    }
    session(&you, &theirs, |status| status["status"] == "completed").await;

    let (code, text, problems) = hark(&["delete", &theirs, &done, "--yes"]).await;
    assert_eq!((code, text.contains(&format!("{theirs} is deleted"))), (1, true), "{text}");
    assert!(problems.contains(&format!("there is no session {done}")), "{problems}");
    assert_eq!((hark(&["list"]).await.1.as_str(), recordings(&app)), ("found: 0 sessions\n", 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_list_and_delete_sessions_on_sqlite() {
    operators_list_and_delete_sessions(None).await;
    // A folder that isn't Hark's stays as it is.
    let folder = tempfile::TempDir::new().unwrap();
    let (code, _, problem) = hark_sessions(folder.path(), None, &["delete", "--older-than", "0", "--yes"]).await;
    assert!(code == 1 && problem.contains("there is no database"), "{problem}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_list_and_delete_sessions_on_postgresql() {
    let server = Postgres::start();
    operators_list_and_delete_sessions(Some(&server.database("hark"))).await;
}

async fn sessions_that_ended_long_ago_are_deleted(url: Option<&str>) {
    let folder = tempfile::TempDir::new().unwrap();
    let command = slow_engine(folder.path(), 0.0);
    let mut flags = vec!["--engine", "command", "--engine-command", &command];
    flags.extend(url.iter().flat_map(|url| ["--database-url", url]));
    let app = TestApp::on(folder, &flags).await;
    let me = app.visitor();
    let old = me.session("a.wav", wav(1.0, 5000.0), &[]).await;
    me.wait(&old, "completed").await;
    let cancelled = me.session("a.wav", wav(1.0, 5000.0), &[]).await;
    me.wait(&cancelled, "completed").await;
    let young = me.session("a.wav", wav(1.0, 5000.0), &[]).await;
    me.wait(&young, "completed").await;
    let folder = app.stop().await;
    // Ten and nine days ago, and just now.
    let made_older = async |id: &str, days: i64, status: &str| {
        let at = Timestamp::now().0 - days * 86_400_000;
        let change =
            format!("UPDATE sessions SET finished_at = {at}, updated_at = {at}, status = '{status}' WHERE id = '{id}'");
        match url {
            Some(url) => drop(
                sqlx::query(sqlx::AssertSqlSafe(change))
                    .execute(&sqlx::PgPool::connect(url).await.unwrap())
                    .await
                    .unwrap(),
            ),
            None => {
                let file = format!("sqlite:{}", folder.path().join("hark.sqlite").display());
                let pool = sqlx::SqlitePool::connect(&file).await.unwrap();
                sqlx::query(sqlx::AssertSqlSafe(change)).execute(&pool).await.unwrap();
                pool.close().await;
            }
        }
    };
    made_older(&old, 10, "completed").await;
    made_older(&cancelled, 9, "cancelled").await;

    // Nothing is deleted without `--keep-days`.
    let app = TestApp::on(folder, &[&flags[..], &["--workers", "0"]].concat()).await;
    let me = me.at(&app.url);
    assert_eq!(me.json("/api/v1/sessions").await["sessions"].as_array().unwrap().len(), 3);
    let waiting = me.session("a.wav", wav(1.0, 5000.0), &[]).await;
    let app = TestApp::on(app.stop().await, &[&flags[..], &["--workers", "0", "--keep-days", "9.5"]].concat()).await;
    let me = me.at(&app.url);
    let gone = async {
        while me.get(&format!("/api/v1/sessions/{old}")).await.status() != 404 {
            time::sleep(Duration::from_millis(50)).await;
        }
    };
    time::timeout(TIMEOUT, gone).await.expect("it is deleted");
    assert_eq!(recordings(&app), 3);
    let app = TestApp::on(app.stop().await, &[&flags[..], &["--workers", "0", "--keep-days", "8"]].concat()).await;
    let me = me.at(&app.url);
    // A session that is due can't be retried, even before it is deleted.
    assert_eq!(me.post(&format!("/api/v1/sessions/{cancelled}/retry")).await.status(), 404);
    let gone = async {
        while me.get(&format!("/api/v1/sessions/{cancelled}")).await.status() != 404 {
            time::sleep(Duration::from_millis(50)).await;
        }
    };
    time::timeout(TIMEOUT, gone).await.expect("it is deleted");
    let left = me.json("/api/v1/sessions").await;
    let left: Vec<_> = left["sessions"].as_array().unwrap().iter().map(|s| s["id"].as_str().unwrap()).collect();
    assert_eq!((left, recordings(&app)), (vec![waiting.as_str(), &young], 2));
    drop(app.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_ended_long_ago_are_deleted_on_sqlite() {
    sessions_that_ended_long_ago_are_deleted(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_ended_long_ago_are_deleted_on_postgresql() {
    let server = Postgres::start();
    sessions_that_ended_long_ago_are_deleted(Some(&server.database("hark"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_see_when_retention_deletes_a_session() {
    let folder = tempfile::TempDir::new().unwrap();
    let command = slow_engine(folder.path(), 0.0);
    // Three seconds.
    let flags = ["--engine", "command", "--engine-command", &command, "--keep-days", "0.0000347"];
    let app = TestApp::on(folder, &flags).await;
    let me = app.visitor();
    let id = me.session("a.wav", wav(1.0, 5000.0), &[]).await;
    me.wait(&id, "completed").await;
    assert_eq!(me.json("/api/v1/status").await["statuses"][0]["session_id"], id.as_str());
    let gone = async {
        while !me.json("/api/v1/status").await["statuses"].as_array().unwrap().is_empty() {
            time::sleep(Duration::from_millis(50)).await;
        }
    };
    time::timeout(TIMEOUT, gone).await.expect("those who watch are told");
    assert_eq!((me.get(&format!("/api/v1/sessions/{id}/status")).await.status().as_u16(), recordings(&app)), (404, 0));
}

const ADMIN_TOKEN: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// The JSON of a node that has completed so many sessions and has a stream open.
async fn administrators_read_the_figures(me: &Visitor, completed: u64) {
    for path in ["figures", "nodes", "overview"] {
        assert_eq!(me.get(&format!("/api/v1/admin/{path}")).await.status(), StatusCode::UNAUTHORIZED);
    }
    let ask = async |path: &str| {
        let request = me.request("GET", &format!("/api/v1/admin/{path}"));
        me.send(request.header("authorization", format!("Bearer {ADMIN_TOKEN}"))).await
    };
    let json = async |path: &str| -> Value { ask(path).await.json().await.unwrap() };
    assert_eq!(ask("figures?range=year").await.status(), StatusCode::BAD_REQUEST);
    let figures = json("figures?range=hour").await;
    assert_eq!((&figures["range"], figures["points"].as_array().unwrap().len()), (&"hour".into(), 12));
    assert_eq!(figures["current"]["sessions"]["completed"], completed);
    let stream = &figures["current"]["stream"];
    assert_eq!((&stream["visits"], &stream["connects"]), (&completed.into(), &(2 * completed).into()));
    assert_eq!((&stream["delay"]["count"], &stream["delay"]["p50_ms"]), (&(7 * completed).into(), &7.5.into()));
    assert_eq!(stream["failures"], serde_json::json!([{"kind": "silent", "browser": "other", "count": completed}]));
    assert_eq!(stream["requests"]["segments"], 3 * completed);
    assert_eq!(stream["never_fell_back"]["value"], if completed == 1 { 1.0 } else { 0.5 });
    assert_eq!(figures["savings"]["price_per_gb"], 2.0);
    assert_eq!(json("figures").await["range"], "day");
    let overview = json("overview").await;
    assert_eq!((&overview["completed_today"], &overview["nodes"]), (&completed.into(), &1.into()));
    // What the node told with its last heartbeat, which the stream may have come after.
    let beats = async {
        loop {
            let nodes = json("nodes").await;
            let [node] = &nodes["nodes"].as_array().unwrap()[..] else { panic!("{nodes}") };
            assert_eq!((&node["name"], &node["is_live"]), (&"the-node".into(), &true.into()));
            let load = &node["load"];
            assert!(load["memory"].as_u64().unwrap() > 1_000_000 && load["files"].as_u64().unwrap() > 5, "{load}");
            assert!(load["database_ms"].as_f64().unwrap() > 0.0 && load["bus"].is_null(), "{load}");
            if load["streams"] == 1 {
                break;
            }
            time::sleep(Duration::from_millis(200)).await;
        }
    };
    time::timeout(TIMEOUT, beats).await.expect("a heartbeat tells of the stream");
}

/// What a node counts is kept when it stops, and added to by the next run.
async fn a_nodes_figures_outlast_it(url: Option<&str>) {
    let mut folder = tempfile::TempDir::new().unwrap();
    let mut polled_bytes = 0;
    for runs in 1..=2 {
        let command = slow_engine(folder.path(), 0.0);
        let mut flags = vec!["--engine", "command", "--engine-command", &command, "--admin-token", ADMIN_TOKEN];
        flags.extend(["--node-name", "the-node", "--price-per-gb", "2"]);
        flags.extend(url.iter().flat_map(|url| ["--database-url", url]));
        let app = TestApp::on(folder, &flags).await;
        let me = app.visitor();
        let id = me.session("a.wav", wav(1.0, 5000.0), &[]).await;
        // Not by polling, which is counted.
        session(&me, &id, |status| status["status"] == "completed").await;
        let page = me.page().await;
        let mut stream = Sse::new(me.get(&format!("/api/v1/status/stream?page={page}")).await);
        assert_eq!(stream.next().await.unwrap().event, "status");
        let mut delays = [0; DELAY_BOUNDS_MS.len() + 1];
        delays[1] = 7;
        let report = serde_json::json!({
            "page": page, "first": true, "fell_back": runs == 2, "mode_ms": {"live": 1}, "connects": 2,
            "failures": {"silent": 1}, "delivery_live": delays, "requests": {"stream": 2, "poll": 1, "segments": 3},
        });
        let taken = me.send(me.request("POST", "/api/v1/reports").body(report.to_string())).await;
        assert_eq!(taken.status(), StatusCode::NO_CONTENT);
        let poll = me.get("/api/v1/status").await;
        let tag = poll.headers()["etag"].to_str().unwrap().to_owned();
        let unchanged = me.send(me.request("GET", "/api/v1/status").header("if-none-match", tag)).await;
        assert_eq!((poll.status(), unchanged.status()), (StatusCode::OK, StatusCode::NOT_MODIFIED));
        polled_bytes += poll.bytes().await.unwrap().len() as u64;
        administrators_read_the_figures(&me, runs).await;
        folder = app.stop().await;
        let store = match url {
            Some(url) => Store::connect(url).await.unwrap(),
            None => Store::open(&folder.path().join("hark.sqlite")).await.unwrap(),
        };
        let reader = Hours::new(FiguresConfig::default());
        let figures = reader.calculate(&store, Range::Hour, Timestamp::now()).await.unwrap();
        store.close().await;
        let (sessions, server) = (&figures.current.sessions, &figures.current.server);
        assert_eq!((sessions.completed, sessions.failed, server.streams_opened), (runs, 0, runs));
        assert_eq!((server.polls, server.polls_unchanged), (2 * runs, runs));
        assert_eq!(server.poll_bytes, polled_bytes, "as they came");
        assert!(server.events >= runs && server.stream_bytes > 100 * runs, "{server:?}");
        let closed: u64 = server.streams_closed.iter().map(|closed| closed.count).sum();
        assert_eq!(closed, runs, "{server:?}");
        assert!(figures.measured_from.is_some_and(|from| from >= figures.from && from < figures.to));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nodes_figures_outlast_it_on_sqlite() {
    a_nodes_figures_outlast_it(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nodes_figures_outlast_it_on_postgresql() {
    let server = Postgres::start();
    a_nodes_figures_outlast_it(Some(&server.database("hark"))).await;
}
