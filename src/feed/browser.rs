//! Adapters between the feed and the browser: EventSource, polling, visibility. Only these modules use `web_sys`.
//! The [`Driver`] performs the actions of the link and passes what the transports bring to the feed. Each page has one; it
//! starts after hydration.

mod beacon;
pub mod dom;
pub mod find;
pub mod list;
pub mod models;
pub mod player;
mod poll;
mod signals;
mod stream;
mod tabs;
#[cfg(test)]
mod tests;
pub mod upload;

use super::{
    Feed,
    link::{Action, Bye, Event, Link, Memory, Mode, Timer, Timing},
    measure::Updates,
    reduce::{Mentions, SegmentFetches},
    tabs::{Action as TabsAction, Event as TabsEvent, Tabs},
};
use crate::model::{Deleted, Renamed, SegmentEvent, SessionId, Status, StatusList, Timestamp};
use gloo_timers::callback::{Interval, Timeout};
use leptos::{prelude::*, task::spawn_local};
use poll::{Answer, Poll};
use signals::Signals;
use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::{HashMap, VecDeque},
    rc::{Rc, Weak},
};
use stream::Stream;
use tabs::{Channel, RelayedUpdate};

thread_local! {
    /// The driver of this page. It isn't part of [`Feed`], which must be `Send`, because its closures can't leave the thread.
    static DRIVER: OnceCell<Rc<Driver>> = const { OnceCell::new() };
}

/// For so many seconds the server keeps for those who come later that a session was renamed or deleted.
const NEWS_SECS: f64 = 60.0;

/// The key under which a tab keeps what its pages have learnt of the way to the server.
const MEMORY_KEY: &str = "hark-link";

/// Starts the feed. It opens no connection until a session is watched.
pub fn start(feed: Feed) {
    // Effects run once the page is hydrated.
    Effect::new(move || {
        DRIVER.with(|driver| {
            driver.get_or_init(|| Driver::new(feed)).schedule_review();
        });
    });
}

/// Tells the link that there may be something to watch, or nothing any more.
pub fn watching(_: Feed) {
    DRIVER.with(|driver| {
        if let Some(driver) = driver.get() {
            driver.schedule_review();
        }
    });
}

/// Tells the other tabs of this browser that a session was renamed here.
pub fn tell_renamed(session_id: SessionId, title: &str) {
    tell("renamed", &Renamed { session_id, title: title.to_owned() });
}

/// Tells the other tabs of this browser that a session was deleted here.
pub fn tell_deleted(session_id: SessionId) {
    tell("deleted", &Deleted { session_id });
}

fn tell(kind: &str, news: &impl serde::Serialize) {
    DRIVER.with(|driver| {
        if let (Some(driver), Ok(json)) = (driver.get(), serde_json::to_string(news)) {
            driver.channel.relay(kind, &json);
        }
    });
}

/// How updates came to this page since it was loaded. None while nothing came.
#[must_use]
pub fn updates() -> Option<Updates> {
    beacon::measure(|measure| measure.updates())
}

/// Sends a report every minute while somebody may see the page. What is counted otherwise is sent when it is seen again.
fn reports(driver: &Weak<Driver>) -> Interval {
    let driver = driver.clone();
    Interval::new(beacon::REPORT_INTERVAL_MS, move || {
        if driver.upgrade().is_some_and(|driver| driver.is_seen()) {
            beacon::send();
        }
    })
}

/// Looks what has changed while nothing runs, as long as somebody may see this page.
fn idle_looks(driver: &Weak<Driver>, interval_ms: u32) -> Interval {
    let driver = driver.clone();
    Interval::new(interval_ms, move || {
        if let Some(driver) = driver.upgrade().filter(|driver| driver.is_idle()) {
            driver.look_again();
        }
    })
}

/// The browser's clock.
fn now() -> Timestamp {
    Timestamp(js_sys::Date::now() as i64)
}

/// Owns the link and everything that the link opens.
struct Driver {
    /// This driver, for its closures.
    this: Weak<Driver>,
    feed: Feed,
    timing: Timing,
    link: RefCell<Link>,
    /// The events to handle, and whether one is being handled: an action may cause an event at once.
    events: RefCell<VecDeque<Event>>,
    handling: Cell<bool>,
    timers: RefCell<HashMap<Timer, Timeout>>,
    stream: RefCell<Option<Stream>>,
    poll: Rc<Poll>,
    segment_fetches: RefCell<SegmentFetches>,
    mentions: RefCell<Mentions>,
    /// Whether the statuses of unmentioned sessions are being fetched.
    fetching_statuses: Cell<bool>,
    review: RefCell<Option<Timeout>>,
    /// Whether the page may be old, and hasn't been loaded anew yet.
    stale: Cell<bool>,
    /// Decides which tab runs the link for all, and the channel between the tabs.
    tabs: RefCell<Tabs>,
    channel: Channel,
    /// Whether one tab of this browser can run the link for all.
    shared: bool,
    leader_timeout: RefCell<Option<Timeout>>,
    /// Until when the page listens although nothing runs any more.
    linger: RefCell<Option<Timeout>>,
    /// Kept because dropping them removes the listeners and stops the reports and the looks.
    _signals: Signals,
    _reports: Interval,
    _idle_looks: Interval,
}

impl Driver {
    fn new(feed: Feed) -> Rc<Self> {
        let timing = signals::timing();
        let memory = Memory::read(&dom::kept(MEMORY_KEY).unwrap_or_default());
        let driver = Rc::new_cyclic(|this: &Weak<Self>| Self {
            this: this.clone(),
            feed,
            timing,
            link: RefCell::new(Link::new(timing, stream::supported()).remembering(memory)),
            events: RefCell::default(),
            handling: Cell::new(false),
            timers: RefCell::default(),
            stream: RefCell::default(),
            poll: Poll::new(this.clone(), timing.poll),
            segment_fetches: RefCell::default(),
            mentions: RefCell::default(),
            fetching_statuses: Cell::new(false),
            review: RefCell::default(),
            stale: Cell::new(beacon::from_cache() == Some(true)),
            tabs: RefCell::new(Tabs::new(Channel::id(), timing, Channel::supported())),
            channel: Channel::new(this),
            shared: Channel::supported(),
            leader_timeout: RefCell::default(),
            linger: RefCell::default(),
            _signals: Signals::new(this),
            _reports: reports(this),
            _idle_looks: idle_looks(this, timing.idle),
        });
        feed.can_stream.set(stream::supported());
        // The page itself is the first word of the server, and news to whoever opens it.
        feed.last_word.set(Some(now()));
        feed.last_news.set(Some(now()));
        beacon::start();
        driver.channel.request_lock();
        if signals::offline() {
            driver.on(Event::Offline);
        }
        if signals::meta("streams").is_some() {
            driver.on(Event::Streams(false));
        }
        driver
    }

    /// Whether somebody may see this page, or one that it holds the stream for.
    fn is_seen(&self) -> bool {
        !signals::hidden() || self.tabs.borrow().has_followers()
    }

    /// Passes an event to the link, and performs the actions that it returns.
    fn on(&self, event: Event) {
        self.events.borrow_mut().push_back(event);
        if self.handling.replace(true) {
            return;
        }
        loop {
            let Some(event) = self.events.borrow_mut().pop_front() else { break };
            let actions = self.link.borrow_mut().on(event, js_sys::Math::random());
            beacon::handled(event, &actions, self.is_seen());
            self.show_whether_it_may_stream();
            actions.into_iter().for_each(|action| self.perform(action));
        }
        self.handling.set(false);
    }

    /// Lets pages and other tabs know whether polling is a fallback here or what was meant.
    fn show_whether_it_may_stream(&self) {
        let may = self.link.borrow().may_stream();
        if self.feed.can_stream.get_untracked() != may {
            self.feed.can_stream.set(may);
            self.relay("streams", if may { "on" } else { "off" });
        }
    }

    fn perform(&self, action: Action) {
        match action {
            Action::OpenStream { compressed } => {
                self.mentions.borrow_mut().restart();
                let stream = Stream::open(&self.this, compressed);
                if stream.is_none() {
                    self.on(Event::Failed);
                }
                *self.stream.borrow_mut() = stream;
            }
            Action::CloseStream => drop(self.stream.borrow_mut().take()),
            Action::StartPolling => self.poll.start(),
            Action::StopPolling => self.poll.stop(),
            Action::SetTimer(timer, ms) => {
                let this = self.this.clone();
                let fire = move || {
                    if let Some(driver) = this.upgrade() {
                        driver.on(Event::Timer(timer));
                    }
                };
                self.timers.borrow_mut().insert(timer, Timeout::new(ms, fire));
            }
            Action::ClearTimer(timer) => drop(self.timers.borrow_mut().remove(&timer)),
            Action::Report(mode) => {
                self.feed.mode.set(mode);
                self.on_tabs(TabsEvent::Mode(mode));
            }
            Action::Remember(memory) => dom::keep(MEMORY_KEY, memory.write()),
        }
    }

    /// Passes an event to the tabs' machine, and performs the actions that it returns.
    fn on_tabs(&self, event: TabsEvent) {
        let actions = self.tabs.borrow_mut().on(event);
        for action in actions {
            match action {
                TabsAction::Post(message) => self.channel.post(message),
                TabsAction::RunLink(on) => self.on(if on { Event::Watch } else { Event::Idle }),
                TabsAction::ShowMode(mode) => self.feed.mode.set(mode),
                TabsAction::CatchUp => self.fetch_statuses(self.feed.running()),
                TabsAction::SetTimer(ms) => {
                    let this = self.this.clone();
                    let fire = move || {
                        if let Some(driver) = this.upgrade() {
                            driver.on_tabs(TabsEvent::Timer);
                        }
                    };
                    *self.leader_timeout.borrow_mut() = Some(Timeout::new(ms, fire));
                }
                TabsAction::ClearTimer => drop(self.leader_timeout.borrow_mut().take()),
            }
        }
    }

    /// Handles an update that the leading tab relayed.
    fn on_update(&self, update: RelayedUpdate) {
        // These come from any tab, because that in which somebody acts knows first.
        let update = match update {
            RelayedUpdate::Renamed(Renamed { session_id, title }) => return self.feed.renamed(session_id, title),
            RelayedUpdate::Deleted(Deleted { session_id }) => return self.deleted(session_id),
            update => update,
        };
        if !self.tabs.borrow().takes_updates() {
            return;
        }
        self.on_tabs(TabsEvent::Update);
        if let RelayedUpdate::Streams(may) = update {
            return self.on(Event::Streams(may));
        }
        self.feed.last_word.set(Some(now()));
        match update {
            RelayedUpdate::Streams(_) | RelayedUpdate::Renamed(_) | RelayedUpdate::Deleted(_) => {}
            RelayedUpdate::Status(status) => {
                self.status(*status);
                self.update_watching();
            }
            RelayedUpdate::Segment(segment) => self.feed.segment(segment),
            RelayedUpdate::List(list) => self.take_statuses(list),
            RelayedUpdate::Pulse => {
                for id in self.feed.shown_transcripts() {
                    self.fetch_missing_segments(id);
                }
                let unmentioned = self.mentions.borrow_mut().heartbeat(&self.feed.running(), now());
                self.fetch_statuses(unmentioned);
            }
        }
    }

    /// Relays an update to the other tabs, if this tab leads: its kind, and its JSON as it came.
    fn relay(&self, kind: &str, json: &str) {
        if self.tabs.borrow().leads() {
            self.channel.relay(kind, json);
        }
    }

    /// Closes the stream and releases the lock: the page is unloaded or moved to the back/forward cache.
    fn leave(&self) {
        self.on(Event::Leaving);
        self.channel.release_lock();
        self.on_tabs(TabsEvent::Left);
        beacon::send();
    }

    /// Starts again: the page came back from the back/forward cache.
    fn restored_from_cache(&self) {
        self.channel.request_lock();
        self.on(Event::Restored);
        self.update_watching();
        self.look_again();
    }

    /// Handles that the page was hidden. If every tab has a stream of its own, only visible tabs may keep theirs.
    fn hidden(&self) {
        self.on(if self.shared { Event::Hidden } else { Event::Leaving });
        beacon::send();
    }

    /// Schedules [`Driver::review`] for the next turn of the event loop: pages call `watch` while they are rendered or
    /// hydrated, when no signal may change.
    fn schedule_review(&self) {
        // The page may now watch a session whose status was polled before and not kept.
        self.poll.forget_etag();
        let mut review = self.review.borrow_mut();
        if review.is_none() {
            let this = self.this.clone();
            *review = Some(Timeout::new(0, move || {
                if let Some(driver) = this.upgrade() {
                    driver.review.borrow_mut().take();
                    driver.review();
                }
            }));
        }
    }

    /// Fetches missing segments, and starts or stops the link.
    fn review(&self) {
        for id in self.feed.shown_transcripts() {
            self.fetch_missing_segments(id);
        }
        self.update_watching();
        if self.stale.get() {
            self.look_again();
        }
    }

    fn update_watching(&self) {
        let mut linger = self.linger.borrow_mut();
        if !self.feed.running().is_empty() {
            linger.take();
            drop(linger);
            self.on_tabs(TabsEvent::Watching(true));
        } else if linger.is_none() {
            let this = self.this.clone();
            *linger = Some(Timeout::new(self.timing.linger, move || {
                if let Some(driver) = this.upgrade() {
                    driver.linger.borrow_mut().take();
                    driver.on_tabs(TabsEvent::Watching(!driver.feed.running().is_empty()));
                }
            }));
        }
    }

    /// Handles an event of the stream. `text`: its data, for the other tabs.
    fn message(&self, message: Message, text: &str) {
        match message {
            Message::Opened => return self.on(Event::Opened),
            Message::Failed => return self.on(Event::Failed),
            Message::Bye(bye) => return self.on(Event::Bye(bye)),
            _ => {}
        }
        self.feed.last_word.set(Some(now()));
        self.on(Event::Message);
        match message {
            Message::Status(status) => {
                self.measure_delay(&status);
                self.relay("status", text);
                self.status(*status);
                self.update_watching();
            }
            Message::Segment(segment) => {
                self.relay("segment", text);
                self.feed.segment(segment);
            }
            Message::Renamed(Renamed { session_id, title }) => {
                self.relay("renamed", text);
                self.feed.renamed(session_id, title);
            }
            Message::Deleted(Deleted { session_id }) => {
                self.relay("deleted", text);
                self.deleted(session_id);
            }
            Message::Heartbeat(within_secs) => {
                if let Some(secs) = within_secs {
                    self.on(Event::Promise(secs));
                }
                self.relay("pulse", "");
                let unmentioned = self.mentions.borrow_mut().heartbeat(&self.feed.running(), now());
                self.fetch_statuses(unmentioned);
            }
            Message::Opened | Message::Failed | Message::Bye(_) | Message::Unreadable => {}
        }
    }

    /// Handles the outcome of a poll. `streams`: whether this browser may open streams, if the answer says so.
    fn polled(&self, answer: Answer, streams: Option<bool>) {
        // First, or a page that is told to poll would call it a fallback for a moment.
        if let Some(may) = streams {
            self.on(Event::Streams(may));
        }
        self.take_answer(answer);
    }

    fn take_answer(&self, answer: Answer) {
        match answer {
            Answer::Statuses(list, text) => {
                self.feed.last_word.set(Some(now()));
                self.on(Event::PollAnswered);
                list.statuses.iter().for_each(|status| self.measure_delay(status));
                self.relay("list", &text);
                self.take_statuses(list);
            }
            Answer::Unchanged => {
                self.relay("pulse", "");
                self.feed.last_word.set(Some(now()));
                self.on(Event::PollAnswered);
                for id in self.feed.shown_transcripts() {
                    self.fetch_missing_segments(id);
                }
            }
            Answer::Failed => self.on(Event::PollFailed),
            Answer::SignIn => self.on(Event::PollRefused),
        }
    }

    /// Measures the delay of a status, if it is new and its session is watched.
    fn measure_delay(&self, status: &Status) {
        let known = self.feed.view(status.session_id);
        if known.is_some_and(|view| view.with_untracked(|view| view.is_newer(status))) {
            beacon::measure(|measure| measure.delivered(status.timestamp, now()));
        }
    }

    /// Takes in a list of all running sessions. A session that it lacks has ended long ago, or was deleted.
    fn take_statuses(&self, list: StatusList) {
        self.mentions.borrow_mut().restart();
        for status in list.statuses {
            self.status(status);
        }
        for Renamed { session_id, title } in list.renamed {
            self.feed.renamed(session_id, title);
        }
        for Deleted { session_id } in list.deleted {
            self.deleted(session_id);
        }
        let unmentioned = self.mentions.borrow().unmentioned(&self.feed.running());
        self.fetch_statuses(unmentioned);
        self.update_watching();
    }

    fn status(&self, status: Status) {
        let id = status.session_id;
        let is_restarted =
            self.feed.view(id).is_some_and(|view| view.with_untracked(|view| view.is_restarted(&status)));
        self.take_status(status);
        // With another choice, maybe, made in another tab or on another device.
        if is_restarted && self.feed.shows_transcript(id) {
            self.load_session(id);
        }
    }

    fn take_status(&self, status: Status) {
        let id = status.session_id;
        if self.feed.status(status) {
            self.mentions.borrow_mut().mention(id);
            self.fetch_missing_segments(id);
        }
    }

    fn deleted(&self, id: SessionId) {
        self.feed.deleted(id);
        self.update_watching();
    }

    /// Fetches the missing segments of a session until none is missing or its transcript is no longer shown. It continues when
    /// the session has ended and the link is idle, because no later status would bring them.
    fn fetch_missing_segments(&self, id: SessionId) {
        let begin = move |driver: &Self| {
            if !driver.feed.shows_transcript(id) {
                return None;
            }
            driver.feed.view(id)?.with_untracked(|view| driver.segment_fetches.borrow_mut().begin(view))
        };
        let Some(mut range) = begin(self) else { return };
        let this = self.this.clone();
        spawn_local(async move {
            let mut failures = 0;
            loop {
                let fetched = poll::fetch_segments(id, range, None).await;
                let Some(driver) = this.upgrade() else { return };
                driver.segment_fetches.borrow_mut().done(id);
                let Some(view) = driver.feed.view(id) else { return };
                let answered = fetched.is_ok();
                match fetched {
                    Ok(segments) => {
                        failures = 0;
                        view.update(|view| segments.into_iter().for_each(|segment| view.segment(segment)));
                    }
                    Err(poll::Error::Gone) => return,
                    Err(poll::Error::Failed) => failures += 1,
                }
                match begin(&driver) {
                    Some(next) if answered && next != range => range = next,
                    Some(next) if !answered => {
                        range = next;
                        let wait = driver.timing.poll.saturating_mul(1 << failures.min(4)) / 2; // 3 s, 6 s, 12 s, 24 s, 24 s, …
                        drop(driver);
                        gloo_timers::future::TimeoutFuture::new(wait).await;
                    }
                    // The answer lacks the missing segments. They will be stored by the time of the next status.
                    Some(_) => return driver.segment_fetches.borrow_mut().done(id),
                    None => return,
                }
            }
        });
    }

    /// Fetches the statuses of sessions that haven't been mentioned: with one request for the list, and then one by one for
    /// those that ended too long ago to be in it.
    fn fetch_statuses(&self, unmentioned: Vec<SessionId>) {
        if unmentioned.is_empty() || self.fetching_statuses.replace(true) {
            return;
        }
        let this = self.this.clone();
        spawn_local(async move {
            let listed = poll::fetch_list(None, None).await.answer;
            let mut remaining = unmentioned;
            if let (Answer::Statuses(list, _), Some(driver)) = (listed, this.upgrade()) {
                remaining.retain(|id| list.statuses.iter().all(|status| status.session_id != *id));
                list.statuses.into_iter().for_each(|status| driver.status(status));
            }
            for id in remaining {
                let answer = poll::fetch_status(id).await;
                let Some(driver) = this.upgrade() else { return };
                match answer {
                    Ok(status) => driver.status(status),
                    Err(poll::Error::Gone) => {
                        driver.feed.deleted(id);
                        driver.feed.unknown.update(|n| *n += 1);
                    }
                    Err(poll::Error::Failed) => {}
                }
            }
            if let Some(driver) = this.upgrade() {
                driver.fetching_statuses.set(false);
                driver.update_watching();
            }
        });
    }

    /// Handles that the page is visible or the network is back. Timers stop while a machine sleeps, so the clock shows what the
    /// link can't know: that its stream has been silent for too long.
    fn visible_or_online(&self, event: Event) {
        let silence = f64::from(self.timing.silence) / 1000.0;
        let last = self.feed.last_word.get_untracked();
        let quiet = last.map_or(f64::INFINITY, |last| now().seconds_since(last));
        let slept = self.stream.borrow().is_some() && quiet > silence;
        let missed = self.is_idle() || quiet > NEWS_SECS || self.stale.get();
        self.on(event);
        if slept {
            self.on(Event::Restored);
        }
        if missed {
            self.look_again();
        }
    }

    /// Whether no transport runs, in any tab, because nothing runs that would be told of.
    fn is_idle(&self) -> bool {
        self.feed.mode.get_untracked() == Mode::Off
    }

    /// Loads anew what no transport has told of, if somebody sees this page: a list all of its first page, and the page of a
    /// session what may have changed, which doesn't include its lines.
    fn look_again(&self) {
        if signals::hidden() || signals::offline() {
            return;
        }
        self.stale.set(false);
        self.feed.unknown.update(|n| *n += 1);
        for id in self.feed.shown_transcripts() {
            self.load_session(id);
        }
    }

    /// Loads a session anew, without its lines.
    fn load_session(&self, id: SessionId) {
        let this = self.this.clone();
        spawn_local(async move {
            let answer = poll::fetch_session(id).await;
            let Some(driver) = this.upgrade() else { return };
            match answer {
                Ok(session) => {
                    driver.take_status(session.status.clone());
                    driver.feed.loaded(session);
                    driver.update_watching();
                }
                Err(poll::Error::Gone) => driver.deleted(id),
                // The next look is soon.
                Err(poll::Error::Failed) => {}
            }
        });
    }
}

/// An event of the stream.
enum Message {
    Opened,
    Status(Box<Status>),
    Segment(SegmentEvent),
    Renamed(Renamed),
    Deleted(Deleted),
    /// Within how many seconds the next event comes, if the server says so.
    Heartbeat(Option<u32>),
    Bye(Bye),
    /// An event with data that this version can't read.
    Unreadable,
    Failed,
}
