//! The adapters in a real browser, driven by wasm-bindgen-test: what they open they close, what they listen to they let
//! go, and what they are told reaches the feed. EventSource and fetch are stood in for, locks and channels are real.

use super::{
    Driver, Message,
    poll::{self, Answer},
    signals::Listener,
    stream::Stream,
    tabs::{Channel, News},
};
use crate::{
    feed::{Feed, Mode, reduce::View, tabs::Note},
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

/// Stands in for the browser's EventSource: `sources` has all that were made, with the listeners they have.
fn stand_in_for_event_source() {
    run("
        globalThis.sources = [];
        globalThis.EventSource = class extends EventTarget {
            constructor(url) { super(); this.url = url; this.closed = false; this.heard = 0; sources.push(this); }
            addEventListener(...a) { this.heard++; super.addEventListener(...a); }
            removeEventListener(...a) { this.heard--; super.removeEventListener(...a); }
            close() { this.closed = true; }
            say(name, data) { this.dispatchEvent(new MessageEvent(name, { data: JSON.stringify(data) })); }
        };");
}

/// Stands in for fetch: `asked` has the requests, `answers` what they get, in turn.
fn stand_in_for_fetch() {
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

/// A feed with a driver of its own, as a page has it.
fn feed_and_driver() -> (Owner, Feed, Rc<Driver>) {
    if run("return globalThis.asked === undefined").is_truthy() {
        // The server of the tests knows no sessions.
        stand_in_for_fetch();
    }
    // As mounting the app does; only the first call counts.
    let _ = any_spawner::Executor::init_wasm_bindgen();
    let owner = Owner::new();
    let (feed, driver) = owner.with(|| {
        let feed = Feed {
            views: StoredValue::default(),
            transcripts: StoredValue::default(),
            strays: StoredValue::default(),
            mode: RwSignal::new(Mode::Off),
            can_stream: RwSignal::new(true),
            last_message: RwSignal::new(None),
            unknown: RwSignal::new(0),
        };
        (feed, Driver::new(feed))
    });
    (owner, feed, driver)
}

/// Until something is so; fails if it never is.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..400 {
        if is_so() {
            return;
        }
        TimeoutFuture::new(10).await;
    }
    panic!("never: {what}");
}

#[wasm_bindgen_test]
fn a_listener_that_is_dropped_hears_nothing_more() {
    let target = EventTarget::new().expect("browsers make event targets");
    let heard = Rc::new(Cell::new(0));
    let listener = Listener::new(&target, "news", {
        let heard = heard.clone();
        move |_| heard.set(heard.get() + 1)
    });
    let tell = || target.dispatch_event(&Event::new("news").expect("a plain event")).expect("it is dispatched");
    tell();
    drop(listener);
    tell();
    assert_eq!(heard.get(), 1);
    assert_eq!(Rc::strong_count(&heard), 1, "the closure is let go");
}

#[wasm_bindgen_test]
async fn a_stream_feeds_what_is_watched_and_lets_everything_go() {
    stand_in_for_event_source();
    let (_owner, feed, driver) = feed_and_driver();
    let view = watched(feed, 1);
    driver.review();
    until("a stream is opened", || number("sources.length") > 0.0).await;
    assert_eq!(number("sources[0].heard"), 6.0);
    assert_eq!(feed.mode.get_untracked(), Mode::Connecting);
    run("sources[0].dispatchEvent(new Event('open'))");
    say(0, "status", &status(1, 5, State::Processing));
    assert_eq!(view.get_untracked().status.version, 5);
    assert_eq!(feed.mode.get_untracked(), Mode::Live);
    // What can't be read changes nothing and breaks nothing.
    run("sources[0].dispatchEvent(new MessageEvent('status', { data: '{' }))");
    say(0, "status", &status(1, 4, State::Queued));
    assert_eq!(view.get_untracked().status.version, 5);
    // With the last session's end nothing stays open.
    say(0, "status", &status(1, 6, State::Completed));
    until("it is closed", || run("return sources[0].closed").is_truthy()).await;
    assert_eq!((number("sources.length"), number("sources[0].heard")), (1.0, 0.0));
    assert_eq!(feed.mode.get_untracked(), Mode::Off);
    driver.leave();
}

#[wasm_bindgen_test]
async fn a_stream_that_fails_is_closed_and_tried_again() {
    stand_in_for_event_source();
    let (_owner, feed, driver) = feed_and_driver();
    watched(feed, 2);
    driver.review();
    until("a stream is opened", || number("sources.length") > 0.0).await;
    run("sources[0].dispatchEvent(new Event('error'))");
    assert!(run("return sources[0].closed").is_truthy() && number("sources[0].heard") == 0.0);
    until("another is opened", || number("sources.length") > 1.0).await;
    driver.leave();
    assert!(run("return sources[1].closed").is_truthy());
}

#[wasm_bindgen_test]
fn a_stream_that_was_dropped_tells_nothing() {
    stand_in_for_event_source();
    let (_owner, feed, driver) = feed_and_driver();
    let view = watched(feed, 3);
    drop(Stream::open(&Rc::downgrade(&driver), true));
    say(0, "status", &status(3, 9, State::Completed));
    assert_eq!(view.get_untracked().status.version, 1);
    driver.message(Message::Unreadable, "");
    driver.leave();
}

#[wasm_bindgen_test]
async fn polls_send_the_tag_they_know_and_give_up_when_told_to() {
    stand_in_for_fetch();
    run(
        "answers.push({ status: 200, headers: { etag: '\"7\"' }, body: { statuses: [] } }, { status: 304 }, { status: 500, body: {} })",
    );
    let (answer, tag) = poll::list(None, None).await;
    assert!(matches!(answer, Answer::Statuses(list, _) if list.statuses.is_empty()));
    assert_eq!(tag.as_deref(), Some("\"7\""));
    let (answer, tag) = poll::list(tag, None).await;
    assert!(matches!(answer, Answer::Unchanged));
    assert_eq!(run("return asked[1].known").as_string().as_deref(), Some("\"7\""));
    assert_eq!(tag.as_deref(), Some("\"7\""));
    assert!(matches!(poll::list(None, None).await.0, Answer::Failed));

    // The loop: stopped in the middle of a request, it takes the request back and asks no more.
    let (_owner, _, driver) = feed_and_driver();
    driver.poll.now();
    until("it asks", || number("asked.length") > 3.0).await;
    driver.poll.now();
    assert_eq!(number("asked.length"), 4.0, "one at a time");
    driver.poll.stop();
    assert!(run("return asked[3].signal.aborted").is_truthy());
    TimeoutFuture::new(50).await;
    assert_eq!(number("asked.length"), 4.0);
    driver.leave();
}

#[wasm_bindgen_test]
async fn the_lock_goes_to_the_next_in_line_and_news_to_all() {
    stand_in_for_event_source();
    assert!(Channel::supported());
    // Two pages of one browser, here in one.
    let (_one, first_feed, first) = feed_and_driver();
    until("the first leads", || first.tabs.borrow().leads()).await;
    let (_two, second_feed, second) = feed_and_driver();
    watched(first_feed, 4);
    let view = watched(second_feed, 4);
    first.review();
    second.review();
    until("a stream is opened", || number("sources.length") > 0.0).await;
    say(0, "status", &status(4, 7, State::Processing));
    until("the other hears of it", || view.get_untracked().status.version == 7).await;
    until("and how it came", || second_feed.mode.get_untracked() == Mode::Live).await;
    assert!(second.tabs.borrow().follows() && number("sources.length") == 1.0);
    first.leave();
    until("the second leads", || second.tabs.borrow().leads()).await;
    until("with a stream of its own", || number("sources.length") > 1.0).await;
    assert!(run("return sources[0].closed").is_truthy());
    second.leave();
}

#[wasm_bindgen_test]
fn what_tabs_tell_each_other_is_read() {
    let told = status(5, 3, State::Failed);
    let text = format!("status\n{}", serde_json::to_string(&told).expect("a status is JSON"));
    assert!(Note::read(&text).is_none());
    assert!(matches!(News::read(&text), Some(News::Status(read)) if *read == told));
    assert!(matches!(News::read("pulse\n"), Some(News::Pulse)));
    assert!(News::read("status\n{").is_none() && News::read("").is_none());
}

#[wasm_bindgen_test]
async fn timers_of_a_driver_that_is_gone_do_nothing() {
    stand_in_for_event_source();
    let (owner, feed, driver) = feed_and_driver();
    watched(feed, 6);
    driver.review();
    until("a stream is opened", || number("sources.length") > 0.0).await;
    driver.leave();
    let weak = Rc::downgrade(&driver);
    drop(driver);
    drop(owner);
    TimeoutFuture::new(50).await;
    assert!(weak.upgrade().is_none(), "nothing holds it");
    assert!(run("return sources.at(-1).closed").is_truthy());
}
