//! Adapters between the feed and the browser: EventSource, polling, visibility. The only place with `web_sys`.
//! The [`Driver`] carries out what the link decides, and hands what the transports bring to the feed. There is one for
//! each page; it starts after hydration.

mod beacon;
pub mod dom;
mod poll;
mod signals;
mod stream;
mod tabs;
#[cfg(test)]
mod tests;
pub mod upload;

use super::{
    Feed,
    link::{Action, Bye, Event, Link, Timer, Timing},
    reduce::{Gaps, Heard},
    tabs::{Action as TabsAction, Event as TabsEvent, Tabs},
};
use crate::model::{SegmentEvent, SessionId, Status, StatusList, Timestamp};
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
use tabs::{Channel, News};

thread_local! {
    /// The driver of this page. Its closures can't leave the thread, so it isn't part of [`Feed`], which must be `Send`.
    static DRIVER: OnceCell<Rc<Driver>> = const { OnceCell::new() };
}

/// Starts the feed: nothing is opened until something is watched.
pub fn start(feed: Feed) {
    // Effects run once the page is hydrated.
    Effect::new(move || {
        DRIVER.with(|driver| {
            driver.get_or_init(|| Driver::new(feed)).review_soon();
        });
    });
}

/// Tells the link that there may be something to watch, or nothing any more.
pub fn watching(_: Feed) {
    DRIVER.with(|driver| {
        if let Some(driver) = driver.get() {
            driver.review_soon();
        }
    });
}

/// The browser's clock.
fn now() -> Timestamp {
    Timestamp(js_sys::Date::now() as i64)
}

/// Owns the link and all that it opens.
struct Driver {
    /// Itself, for the closures it hands out.
    this: Weak<Driver>,
    feed: Feed,
    timing: Timing,
    link: RefCell<Link>,
    /// Events to be handled, and whether that is being done: an action may cause an event at once.
    events: RefCell<VecDeque<Event>>,
    handling: Cell<bool>,
    timers: RefCell<HashMap<Timer, Timeout>>,
    stream: RefCell<Option<Stream>>,
    poll: Rc<Poll>,
    gaps: RefCell<Gaps>,
    heard: RefCell<Heard>,
    /// Whether sessions that went unmentioned are being asked about.
    asking: Cell<bool>,
    review: RefCell<Option<Timeout>>,
    /// Which tab drives the link for all, and how they talk.
    tabs: RefCell<Tabs>,
    channel: Channel,
    /// Whether one tab of this browser can drive the link for all.
    shared: bool,
    leader_timeout: RefCell<Option<Timeout>>,
    /// Held for their listeners.
    _signals: Signals,
    _reports: Interval,
}

impl Driver {
    fn new(feed: Feed) -> Rc<Self> {
        let timing = signals::timing();
        let driver = Rc::new_cyclic(|this: &Weak<Self>| Self {
            this: this.clone(),
            feed,
            timing,
            link: RefCell::new(Link::new(timing, stream::supported())),
            events: RefCell::default(),
            handling: Cell::new(false),
            timers: RefCell::default(),
            stream: RefCell::default(),
            poll: Poll::new(this.clone(), timing.poll),
            gaps: RefCell::default(),
            heard: RefCell::default(),
            asking: Cell::new(false),
            review: RefCell::default(),
            tabs: RefCell::new(Tabs::new(Channel::id(), timing, Channel::supported())),
            channel: Channel::new(this),
            shared: Channel::supported(),
            leader_timeout: RefCell::default(),
            _signals: Signals::new(this),
            _reports: beacon::start(),
        });
        feed.can_stream.set(stream::supported());
        driver.channel.queue();
        if signals::offline() {
            driver.on(Event::Offline);
        }
        driver
    }

    /// Lets the link handle an event, and does what it says.
    fn on(&self, event: Event) {
        self.events.borrow_mut().push_back(event);
        if self.handling.replace(true) {
            return;
        }
        loop {
            let Some(event) = self.events.borrow_mut().pop_front() else { break };
            let actions = self.link.borrow_mut().on(event, js_sys::Math::random());
            beacon::handled(event, &actions);
            actions.into_iter().for_each(|action| self.act(action));
        }
        self.handling.set(false);
    }

    fn act(&self, action: Action) {
        match action {
            Action::OpenStream { compressed } => {
                self.heard.borrow_mut().restart();
                let stream = Stream::open(&self.this, compressed);
                if stream.is_none() {
                    self.on(Event::Failed);
                }
                *self.stream.borrow_mut() = stream;
            }
            Action::CloseStream => drop(self.stream.borrow_mut().take()),
            Action::StartPolling => self.poll.now(),
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
                self.tabs(TabsEvent::Mode(mode));
            }
        }
    }

    /// Lets the tabs handle an event, and does what they say.
    fn tabs(&self, event: TabsEvent) {
        let actions = self.tabs.borrow_mut().on(event);
        for action in actions {
            match action {
                TabsAction::Post(note) => self.channel.post(note),
                TabsAction::Drive(on) => self.on(if on { Event::Watch } else { Event::Idle }),
                TabsAction::Adopt(mode) => self.feed.mode.set(mode),
                TabsAction::CatchUp => self.ask_about(self.feed.running()),
                TabsAction::SetTimer(ms) => {
                    let this = self.this.clone();
                    let fire = move || {
                        if let Some(driver) = this.upgrade() {
                            driver.tabs(TabsEvent::Timer);
                        }
                    };
                    *self.leader_timeout.borrow_mut() = Some(Timeout::new(ms, fire));
                }
                TabsAction::ClearTimer => drop(self.leader_timeout.borrow_mut().take()),
            }
        }
    }

    /// The leading tab passed something on.
    fn news(&self, news: News) {
        if !self.tabs.borrow().follows() {
            return;
        }
        self.tabs(TabsEvent::News);
        self.feed.last_message.set(Some(now()));
        match news {
            News::Status(status) => {
                self.status(*status);
                self.watch_or_idle();
            }
            News::Segment(segment) => self.feed.segment(segment),
            News::List(list) => self.take_list(list),
            News::Pulse => {
                for id in self.feed.shown_transcripts() {
                    self.fill_gap(id);
                }
                let silent = self.heard.borrow_mut().beat(&self.feed.running());
                self.ask_about(silent);
            }
        }
    }

    /// Passes something on to the other tabs, if this one leads: what it is and its JSON, as it came.
    fn pass_on(&self, kind: &str, json: &str) {
        if self.tabs.borrow().leads() {
            self.channel.tell(kind, json);
        }
    }

    /// The page is unloaded or put aside: neither a stream nor the lock may stay with it.
    fn leave(&self) {
        self.on(Event::Leaving);
        self.channel.leave();
        self.tabs(TabsEvent::Left);
        beacon::send();
    }

    /// The page that had been put aside is shown again.
    fn return_from_aside(&self) {
        self.channel.queue();
        self.on(Event::Restored);
        self.watch_or_idle();
    }

    /// The page can't be seen. Where every tab has a stream of its own, only those that are seen may keep it.
    fn hidden(&self) {
        self.on(if self.shared { Event::Hidden } else { Event::Leaving });
    }

    /// Looks, as soon as what runs now is done, whether there is something to watch and whether segments are missing.
    /// Later, because pages watch while they are being rendered or hydrated, when no signal may change.
    fn review_soon(&self) {
        // A page may be about to watch a session whose status was polled before and not kept.
        self.poll.forget_answer();
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

    fn review(&self) {
        for id in self.feed.shown_transcripts() {
            self.fill_gap(id);
        }
        self.watch_or_idle();
    }

    fn watch_or_idle(&self) {
        self.tabs(TabsEvent::Wants(!self.feed.running().is_empty()));
    }

    /// The stream brought an event. `text`: its data, for the other tabs.
    fn message(&self, message: Message, text: &str) {
        match message {
            Message::Opened => return self.on(Event::Opened),
            Message::Failed => return self.on(Event::Failed),
            Message::Bye(bye) => return self.on(Event::Bye(bye)),
            _ => {}
        }
        self.feed.last_message.set(Some(now()));
        self.on(Event::Message);
        match message {
            Message::Status(status) => {
                self.measure_delay(&status);
                self.pass_on("status", text);
                self.status(*status);
                self.watch_or_idle();
            }
            Message::Segment(segment) => {
                self.pass_on("segment", text);
                self.feed.segment(segment);
            }
            Message::Heartbeat => {
                self.pass_on("pulse", "");
                let silent = self.heard.borrow_mut().beat(&self.feed.running());
                self.ask_about(silent);
            }
            Message::Opened | Message::Failed | Message::Bye(_) | Message::Unreadable => {}
        }
    }

    /// A poll was answered, or not.
    fn polled(&self, answer: Answer) {
        match answer {
            Answer::Statuses(list, text) => {
                self.feed.last_message.set(Some(now()));
                self.on(Event::PollAnswered);
                list.statuses.iter().for_each(|status| self.measure_delay(status));
                self.pass_on("list", &text);
                self.take_list(list);
            }
            Answer::Unchanged => {
                self.pass_on("pulse", "");
                self.feed.last_message.set(Some(now()));
                self.on(Event::PollAnswered);
                for id in self.feed.shown_transcripts() {
                    self.fill_gap(id);
                }
            }
            Answer::Failed => self.on(Event::PollFailed),
        }
    }

    /// Notes how late a status came, if it is news of a session that is watched.
    fn measure_delay(&self, status: &Status) {
        let known = self.feed.view(status.session_id);
        if known.is_some_and(|view| view.with_untracked(|view| view.is_news(status))) {
            beacon::measure(|measure| measure.delivered(status.timestamp, now()));
        }
    }

    /// Takes in a list, which is whole: what it leaves out has ended long ago, or is gone.
    fn take_list(&self, list: StatusList) {
        self.heard.borrow_mut().restart();
        for status in list.statuses {
            self.status(status);
        }
        let silent = self.heard.borrow().silent(&self.feed.running());
        self.ask_about(silent);
        self.watch_or_idle();
    }

    fn status(&self, status: Status) {
        let id = status.session_id;
        if self.feed.status(status) {
            self.heard.borrow_mut().mention(id);
            self.fill_gap(id);
        }
    }

    /// Fetches missing segments of a session that is shown, until none are missing or it is shown no more. It goes on
    /// when the session has ended and the link is idle: no later status would bring them.
    fn fill_gap(&self, id: SessionId) {
        let begin = move |driver: &Self| {
            if !driver.feed.shows_transcript(id) {
                return None;
            }
            driver.feed.view(id)?.with_untracked(|view| driver.gaps.borrow_mut().begin(view))
        };
        let Some(mut gap) = begin(self) else { return };
        let this = self.this.clone();
        spawn_local(async move {
            let mut failures = 0;
            loop {
                let fetched = poll::segments(id, gap).await;
                let Some(driver) = this.upgrade() else { return };
                driver.gaps.borrow_mut().done(id);
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
                    Some(next) if answered && next != gap => gap = next,
                    Some(next) if !answered => {
                        gap = next;
                        let wait = driver.timing.poll.saturating_mul(1 << failures.min(4)) / 2; // 3 s, 6 s, 12 s, 24 s, 24 s, …
                        drop(driver);
                        gloo_timers::future::TimeoutFuture::new(wait).await;
                    }
                    // An answer without what is missing: it will have been stored by the next status.
                    Some(_) => return driver.gaps.borrow_mut().done(id),
                    None => return,
                }
            }
        });
    }

    /// Asks for the status of sessions that should have been mentioned: all in one request, and then one by one those
    /// that ended too long ago to be in the list.
    fn ask_about(&self, silent: Vec<SessionId>) {
        if silent.is_empty() || self.asking.replace(true) {
            return;
        }
        let this = self.this.clone();
        spawn_local(async move {
            let listed = poll::list(None, None).await.0;
            let mut left = silent;
            if let (Answer::Statuses(list, _), Some(driver)) = (listed, this.upgrade()) {
                left.retain(|id| list.statuses.iter().all(|status| status.session_id != *id));
                list.statuses.into_iter().for_each(|status| driver.status(status));
            }
            for id in left {
                let answer = poll::status(id).await;
                let Some(driver) = this.upgrade() else { return };
                match answer {
                    Ok(status) => driver.status(status),
                    Err(poll::Error::Gone) => {
                        driver.feed.forget(id);
                        driver.feed.unknown.update(|n| *n += 1);
                    }
                    Err(poll::Error::Failed) => {}
                }
            }
            if let Some(driver) = this.upgrade() {
                driver.asking.set(false);
                driver.watch_or_idle();
            }
        });
    }

    /// The page can be seen again, or the network is back. Timers stand still while a machine sleeps, so the clock
    /// tells what the link can't know: that its stream has been silent for too long.
    fn back(&self, event: Event) {
        let silence = f64::from(self.timing.silence) / 1000.0;
        let last = self.feed.last_message.get_untracked();
        let slept = self.stream.borrow().is_some() && last.is_some_and(|last| now().seconds_since(last) > silence);
        self.on(event);
        if slept {
            self.on(Event::Restored);
        }
    }
}

/// What a stream brings.
enum Message {
    Opened,
    Status(Box<Status>),
    Segment(SegmentEvent),
    Heartbeat,
    Bye(Bye),
    /// An event whose data this version can't read.
    Unreadable,
    Failed,
}
