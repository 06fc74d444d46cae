//! Tests of the adapters in a real browser, by wasm-bindgen-test: they close what they open, remove their listeners, and pass
//! what they receive to the feed. EventSource and fetch are replaced by mocks; locks and channels are real.

use super::{
    Driver, Message,
    poll::{self, Answer, Fetched},
    signals::Listener,
    stream::Stream,
    tabs::{Channel, RelayedUpdate},
};
use crate::{
    feed::{Feed, Mode, reduce::View, tabs::TabMessage},
    model::{SessionId, State, Status, Timestamp},
};
use gloo_timers::future::TimeoutFuture;
use js_sys::Function;
use leptos::prelude::*;
use std::{cell::Cell, rc::Rc};
use uuid::Uuid;
use wasm_bindgen::JsValue;
use wasm_bindgen_test::{wasm_bindgen_test, wasm_bindgen_test_configure};
use web_sys::{Event, EventTarget};

wasm_bindgen_test_configure!(run_in_browser);

/// Runs JavaScript in the page.
fn run(code: &str) -> JsValue {
    Function::new_no_args(code).call0(&JsValue::UNDEFINED).expect("the code of a test runs")
}

fn number(code: &str) -> f64 {
    run(&format!("return {code}")).as_f64().expect("a number")
}

/// Replaces the browser's EventSource: `sources` holds all instances, and `listeners` of each is the number of its listeners.
fn mock_event_source() {
    run("
        globalThis.sources = [];
        globalThis.EventSource = class extends EventTarget {
            constructor(url) { super(); this.url = url; this.closed = false; this.listeners = 0; sources.push(this); }
            addEventListener(...a) { this.listeners++; super.addEventListener(...a); }
            removeEventListener(...a) { this.listeners--; super.removeEventListener(...a); }
            close() { this.closed = true; }
            say(name, data) { this.dispatchEvent(new MessageEvent(name, { data: JSON.stringify(data) })); }
        };");
}

/// Replaces fetch: `asked` holds the requests, and `answers` the answers that they get, in this order.
fn mock_fetch() {
    run("
        globalThis.asked = [];
        globalThis.answers = [];
        globalThis.fetch = async request => {
            asked.push({ url: request.url, known: request.headers.get('if-none-match'), signal: request.signal });
            const answer = answers.shift();
            if (!answer) return new Promise((_, fail) => request.signal.addEventListener('abort', () => fail(new Error('aborted'))));
            return new Response(answer.status === 304 ? null : JSON.stringify(answer.body), { status: answer.status, headers: answer.headers });
        };");
}

fn status(id: u128, version: u64, state: State) -> Status {
    Status { version, ..Status::new(SessionId(Uuid::from_u128(id)), state, None, Timestamp(1)) }
}

fn say(source: u32, name: &str, status: &Status) {
    let data = serde_json::to_string(status).expect("a status is JSON");
    run(&format!("sources[{source}].say('{name}', {data})"));
}

fn watched(feed: Feed, id: u128) -> ArcRwSignal<View> {
    feed.watch(View::new(status(id, 1, State::Processing)))
}

/// A feed with its own driver, as a page has it.
fn feed_with_driver() -> (Owner, Feed, Rc<Driver>) {
    if run("return globalThis.asked === undefined").is_truthy() {
        // The test server has no sessions.
        mock_fetch();
    }
    // Mounting the app does this too; only the first call has an effect.
    let _ = any_spawner::Executor::init_wasm_bindgen();
    let owner = Owner::new();
    let (feed, driver) = owner.with(|| {
        let feed = Feed::new();
        (feed, Driver::new(feed))
    });
    (owner, feed, driver)
}

/// Waits until a condition holds; fails if it never does.
async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..1_000 {
        if condition() {
            return;
        }
        TimeoutFuture::new(10).await;
    }
    panic!("timed out: {what}");
}

#[wasm_bindgen_test]
fn a_dropped_listener_receives_nothing() {
    let target = EventTarget::new().expect("browsers make event targets");
    let received = Rc::new(Cell::new(0));
    let listener = Listener::new(&target, "test", {
        let received = received.clone();
        move |_| received.set(received.get() + 1)
    });
    let dispatch = || target.dispatch_event(&Event::new("test").expect("a plain event")).expect("it is dispatched");
    dispatch();
    drop(listener);
    dispatch();
    assert_eq!(received.get(), 1);
    assert_eq!(Rc::strong_count(&received), 1, "the closure is dropped");
}

#[wasm_bindgen_test]
async fn a_stream_updates_watched_sessions_and_is_closed_when_they_end() {
    mock_event_source();
    let (_owner, feed, driver) = feed_with_driver();
    let view = watched(feed, 1);
    driver.review();
    until("a stream is opened", || number("sources.length") > 0.0).await;
    assert_eq!(number("sources[0].listeners"), 8.0);
    assert_eq!(feed.mode.get_untracked(), Mode::Connecting);
    run("sources[0].dispatchEvent(new Event('open'))");
    say(0, "status", &status(1, 5, State::Processing));
    assert_eq!(view.get_untracked().status.version, 5);
    assert_eq!(feed.mode.get_untracked(), Mode::Live);
    // An unreadable event changes nothing and breaks nothing.
    run("sources[0].dispatchEvent(new MessageEvent('status', { data: '{' }))");
    say(0, "status", &status(1, 4, State::Queued));
    assert_eq!(view.get_untracked().status.version, 5);
    // When the last session has ended, the stream is closed.
    say(0, "status", &status(1, 6, State::Completed));
    until("it is closed", || run("return sources[0].closed").is_truthy()).await;
    assert_eq!((number("sources.length"), number("sources[0].listeners")), (1.0, 0.0));
    assert_eq!(feed.mode.get_untracked(), Mode::Off);
    driver.leave();
}

#[wasm_bindgen_test]
async fn a_stream_that_fails_is_closed_and_tried_again() {
    mock_event_source();
    let (_owner, feed, driver) = feed_with_driver();
    watched(feed, 2);
    driver.review();
    until("a stream is opened", || number("sources.length") > 0.0).await;
    run("sources[0].dispatchEvent(new Event('error'))");
    assert!(run("return sources[0].closed").is_truthy() && number("sources[0].listeners") == 0.0);
    until("another is opened", || number("sources.length") > 1.0).await;
    driver.leave();
    assert!(run("return sources[1].closed").is_truthy());
}

#[wasm_bindgen_test]
fn a_dropped_stream_reports_nothing() {
    mock_event_source();
    let (_owner, feed, driver) = feed_with_driver();
    let view = watched(feed, 3);
    drop(Stream::open(&Rc::downgrade(&driver), true));
    say(0, "status", &status(3, 9, State::Completed));
    assert_eq!(view.get_untracked().status.version, 1);
    driver.message(Message::Unreadable, "");
    driver.leave();
}

#[wasm_bindgen_test]
async fn polls_send_the_known_etag_and_are_aborted_by_a_stop() {
    mock_fetch();
    run(
        "const json = { 'content-type': 'application/json' };
        answers.push({ status: 200, headers: { etag: '\"7\"', ...json }, body: { statuses: [] } }, { status: 304, headers: { 'hark-streams': 'off' } }, { status: 500, body: {} },
            { status: 401, body: {} }, { status: 200, headers: { 'content-type': 'text/html' }, body: 'Sign in' })",
    );
    let Fetched { answer, etag: tag, .. } = poll::fetch_list(None, None).await;
    assert!(matches!(answer, Answer::Statuses(list, _) if list.statuses.is_empty()));
    assert_eq!(tag.as_deref(), Some("\"7\""));
    let Fetched { answer, etag: tag, streams } = poll::fetch_list(tag, None).await;
    assert_eq!(streams, Some(false));
    assert!(matches!(answer, Answer::Unchanged));
    assert_eq!(run("return asked[1].known").as_string().as_deref(), Some("\"7\""));
    assert_eq!(tag.as_deref(), Some("\"7\""));
    assert!(matches!(poll::fetch_list(None, None).await.answer, Answer::Failed));
    for _ in ["a refusal", "a page"] {
        assert!(matches!(poll::fetch_list(None, None).await.answer, Answer::SignIn));
    }

    // When the loop is stopped during a request, it aborts the request and sends no further one.
    let (_owner, _, driver) = feed_with_driver();
    driver.poll.start();
    until("it asks", || number("asked.length") > 5.0).await;
    driver.poll.start();
    assert_eq!(number("asked.length"), 6.0, "one at a time");
    driver.poll.stop();
    assert!(run("return asked[5].signal.aborted").is_truthy());
    TimeoutFuture::new(50).await;
    assert_eq!(number("asked.length"), 6.0);
    driver.leave();
}

#[wasm_bindgen_test]
async fn the_lock_goes_to_the_next_tab_and_updates_to_all_tabs() {
    mock_event_source();
    assert!(Channel::supported());
    // Two tabs of one browser, here within one page.
    let (_one, first_feed, first) = feed_with_driver();
    until("the first leads", || first.tabs.borrow().leads()).await;
    let (_two, second_feed, second) = feed_with_driver();
    watched(first_feed, 4);
    let view = watched(second_feed, 4);
    first.review();
    second.review();
    until("a stream is opened", || number("sources.length") > 0.0).await;
    say(0, "status", &status(4, 7, State::Processing));
    until("the other tab gets the update", || view.get_untracked().status.version == 7).await;
    until("the other tab shows the mode", || second_feed.mode.get_untracked() == Mode::Live).await;
    assert!(second.tabs.borrow().takes_updates() && number("sources.length") == 1.0);
    first.leave();
    until("the second leads", || second.tabs.borrow().leads()).await;
    until("with a stream of its own", || number("sources.length") > 1.0).await;
    assert!(run("return sources[0].closed").is_truthy());
    second.leave();
}

#[wasm_bindgen_test]
fn messages_between_tabs_are_read_back() {
    let sent = status(5, 3, State::Failed);
    let text = format!("status\n{}", serde_json::to_string(&sent).expect("a status is JSON"));
    assert!(TabMessage::read(&text).is_none());
    assert!(matches!(RelayedUpdate::read(&text), Some(RelayedUpdate::Status(read)) if *read == sent));
    assert!(matches!(RelayedUpdate::read("pulse\n"), Some(RelayedUpdate::Pulse)));
    assert!(RelayedUpdate::read("status\n{").is_none() && RelayedUpdate::read("").is_none());
}

#[wasm_bindgen_test]
async fn timers_of_a_dropped_driver_do_nothing() {
    mock_event_source();
    let (owner, feed, driver) = feed_with_driver();
    watched(feed, 6);
    driver.review();
    until("a stream is opened", || number("sources.length") > 0.0).await;
    driver.leave();
    let weak = Rc::downgrade(&driver);
    drop(driver);
    drop(owner);
    TimeoutFuture::new(50).await;
    assert!(weak.upgrade().is_none(), "nothing references the driver");
    assert!(run("return sources.at(-1).closed").is_truthy());
}
