//! Decides which tab of a browser holds the stream for all of them. Pure: events go in and actions come out; `browser` has
//! the lock and the channel.
//!
//! ```text
//!                ┌──────────┐  the lock is granted   ┌────────┐
//!  Watching ───► │ Follower │ ─────────────────────► │ Leader │ runs the link for all tabs, and relays the updates
//!                └──────────┘                        └────────┘
//!                  │      ▲
//!    no message of │      │ a message of
//!    the leader    ▼      │ the leader
//!                ┌──────────┐
//!                │  Alone   │ runs the link for itself, and still waits for the lock
//!                └──────────┘
//! ```
//!
//! Browsers grant the lock to the next tab in line as soon as the tab that held it is closed or has crashed. A frozen leader
//! keeps the lock and sends nothing: then each tab runs its own link until the leader sends something again.

use super::link::{Mode, Timing};
use std::collections::HashMap;

/// The id of a tab: a random number that the tab chose.
pub type TabId = u64;

/// The messages between tabs, besides the updates that the leader relays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TabMessage {
    /// From the leader: it is alive and in this mode. If `census` is set, every tab that watches a session answers.
    Lead { mode: Mode, census: bool },
    /// From a follower: it watches a session, or no longer does.
    Want { tab: TabId, on: bool },
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// This page watches a session, or no longer watches any. May be repeated.
    Watching(bool),
    /// This tab was granted the lock.
    Elected,
    /// The page is unloaded or moved to the back/forward cache; the lock was released.
    Left,
    /// A message of another tab came.
    Received(TabMessage),
    /// The leader relayed an update, so it is alive.
    Update,
    /// This tab's link has a new mode.
    Mode(Mode),
    /// The timer expired.
    Timer,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send a message to the other tabs.
    Post(TabMessage),
    /// Run this tab's own link, or stop it.
    RunLink(bool),
    /// Show the leader's mode.
    ShowMode(Mode),
    /// Fetch once what may have changed since the page was rendered, because this tab begins to follow.
    CatchUp,
    /// Send [`Event::Timer`] after this many milliseconds; replaces the earlier timer.
    SetTimer(u32),
    /// Cancel the timer.
    ClearTimer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Leader,
    Follower,
    Alone,
}

/// The state machine. See the module's diagram.
#[derive(Clone, Debug)]
pub struct Tabs {
    id: TabId,
    timing: Timing,
    role: Role,
    watching: bool,
    /// Whether a message of the leader has come since this tab began to follow.
    leader_known: bool,
    runs_link: bool,
    mode: Mode,
    /// The followers that watch a session, and whether they have sent a message since the last census.
    followers: HashMap<TabId, bool>,
    actions: Vec<Action>,
}

impl Tabs {
    /// A tab that waits for the lock, or without `locks` a tab that stays alone.
    #[must_use]
    pub fn new(id: TabId, timing: Timing, locks: bool) -> Self {
        let role = if locks { Role::Follower } else { Role::Alone };
        let (followers, actions) = (HashMap::default(), Vec::new());
        Self {
            id,
            timing,
            role,
            watching: false,
            leader_known: false,
            runs_link: false,
            mode: Mode::Off,
            followers,
            actions,
        }
    }

    /// Whether this tab relays its updates to the others.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.role == Role::Leader
    }

    /// Whether other tabs get their updates from this one.
    #[must_use]
    pub fn has_followers(&self) -> bool {
        !self.followers.is_empty()
    }

    /// Whether this tab takes in the updates that another tab relays.
    #[must_use]
    pub fn takes_updates(&self) -> bool {
        self.role != Role::Leader
    }

    /// Handles `event` and returns the actions to perform, in order.
    #[must_use]
    pub fn on(&mut self, event: Event) -> Vec<Action> {
        match event {
            Event::Watching(on) => {
                let changed = std::mem::replace(&mut self.watching, on) != on;
                if changed && self.role != Role::Leader {
                    self.post(TabMessage::Want { tab: self.id, on });
                    if on {
                        self.wait(self.timing.first)
                    } else {
                        self.push(Action::ClearTimer)
                    }
                    self.leader_known &= on;
                    if !on && self.role == Role::Follower {
                        self.push(Action::ShowMode(Mode::Off));
                    }
                }
            }
            Event::Elected => {
                self.role = Role::Leader;
                // A census, because what the last leader knew of its followers is lost.
                self.announce_leader(true);
                self.wait(self.timing.leader / 2);
            }
            Event::Left => {
                if self.role == Role::Leader {
                    self.role = Role::Follower;
                    self.followers.clear();
                } else if self.watching {
                    self.post(TabMessage::Want { tab: self.id, on: false });
                }
                // When the page comes back, it starts as if it were new.
                (self.watching, self.leader_known) = (false, false);
                self.push(Action::ClearTimer);
            }
            Event::Received(TabMessage::Want { tab, on }) if self.role == Role::Leader => {
                let new =
                    if on { self.followers.insert(tab, true).is_none() } else { self.followers.remove(&tab).is_none() };
                if on && new {
                    self.announce_leader(false);
                }
            }
            Event::Received(TabMessage::Lead { mode, census }) if self.role != Role::Leader => {
                if census && self.watching {
                    self.post(TabMessage::Want { tab: self.id, on: true });
                }
                self.leader_is_alive();
                if self.watching {
                    self.push(Action::ShowMode(mode));
                }
            }
            Event::Update if self.role != Role::Leader => self.leader_is_alive(),
            Event::Mode(mode) => {
                self.mode = mode;
                if self.role == Role::Leader {
                    self.announce_leader(false);
                }
            }
            Event::Timer if self.role == Role::Leader => {
                // A follower that hasn't answered the last census was closed or has crashed.
                self.followers.retain(|_, fresh| std::mem::take(fresh));
                self.announce_leader(true);
                self.wait(self.timing.leader / 2);
            }
            Event::Timer if self.watching => {
                self.role = Role::Alone;
                self.leader_known = false;
            }
            Event::Received(_) | Event::Update | Event::Timer => {}
        }
        let run_link = match self.role {
            Role::Leader => self.watching || !self.followers.is_empty(),
            Role::Alone => self.watching,
            Role::Follower => false,
        };
        if std::mem::replace(&mut self.runs_link, run_link) != run_link {
            self.push(Action::RunLink(run_link));
        }
        std::mem::take(&mut self.actions)
    }

    fn leader_is_alive(&mut self) {
        self.role = Role::Follower;
        if !self.watching {
            return;
        }
        self.wait(self.timing.leader);
        if !std::mem::replace(&mut self.leader_known, true) {
            self.push(Action::CatchUp);
        }
    }

    fn announce_leader(&mut self, census: bool) {
        self.post(TabMessage::Lead { mode: self.mode, census });
    }

    fn post(&mut self, message: TabMessage) {
        self.push(Action::Post(message));
    }

    fn wait(&mut self, ms: u32) {
        self.push(Action::SetTimer(ms));
    }

    fn push(&mut self, action: Action) {
        self.actions.push(action);
    }
}

impl TabMessage {
    /// The message as text, for the channel.
    #[must_use]
    pub fn write(self) -> String {
        match self {
            Self::Lead { mode, census } => format!("lead {} {}", mode.name(), u8::from(census)),
            Self::Want { tab, on } => format!("want {tab} {}", u8::from(on)),
        }
    }

    /// Reads a message. None if this version doesn't know it.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let (kind, what, on) = (words.next()?, words.next()?, words.next()? == "1");
        match kind {
            "lead" => Mode::from_name(what).map(|mode| Self::Lead { mode, census: on }),
            "want" => what.parse().ok().map(|tab| Self::Want { tab, on }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The tabs of one browser: the lock goes to the first in line, and messages reach all other tabs.
    struct Browser {
        tabs: Vec<Option<Tabs>>,
        holder: Option<usize>,
        /// A frozen tab keeps the lock and receives nothing.
        frozen: Vec<bool>,
        runs_link: Vec<bool>,
        modes: Vec<Mode>,
    }

    impl Browser {
        fn new(count: usize) -> Self {
            let tabs = (0..count).map(|n| Some(Tabs::new(n as u64, Timing::default(), true))).collect();
            let (frozen, runs_link, modes) = (vec![false; count], vec![false; count], vec![Mode::Off; count]);
            let mut browser = Self { tabs, holder: None, frozen, runs_link, modes };
            browser.elect();
            browser
        }

        fn elect(&mut self) {
            if self.holder.is_none()
                && let Some(next) = self.tabs.iter().position(Option::is_some)
            {
                self.holder = Some(next);
                self.on(next, Event::Elected);
            }
        }

        fn on(&mut self, tab: usize, event: Event) {
            if self.frozen[tab] {
                return;
            }
            let Some(machine) = &mut self.tabs[tab] else { return };
            for action in machine.on(event) {
                match action {
                    Action::Post(message) => {
                        assert_eq!(TabMessage::read(&message.write()), Some(message));
                        for other in (0..self.tabs.len()).filter(|other| *other != tab) {
                            self.on(other, Event::Received(message));
                        }
                    }
                    Action::RunLink(on) => {
                        assert_ne!(self.runs_link[tab], on, "repeated without a change");
                        self.runs_link[tab] = on;
                        self.on(tab, Event::Mode(if on { Mode::Live } else { Mode::Off }));
                    }
                    Action::ShowMode(mode) => self.modes[tab] = mode,
                    Action::CatchUp | Action::SetTimer(_) | Action::ClearTimer => {}
                }
            }
        }

        fn close(&mut self, tab: usize) {
            self.tabs[tab] = None;
            self.runs_link[tab] = false;
            if self.holder == Some(tab) {
                self.holder = None;
            }
            self.elect();
        }

        fn streams(&self) -> usize {
            self.runs_link.iter().filter(|on| **on).count()
        }

        fn anybody_watches(&self) -> bool {
            self.tabs.iter().flatten().any(|tab| tab.watching)
        }
    }

    #[test]
    fn ten_tabs_share_one_stream_and_another_tab_takes_over_when_the_leader_closes() {
        let mut browser = Browser::new(10);
        assert_eq!(browser.streams(), 0);
        for tab in 3..10 {
            browser.on(tab, Event::Watching(true));
        }
        // The leader watches nothing itself, and holds the stream for the followers.
        assert_eq!((browser.streams(), browser.runs_link[0]), (1, true));
        assert!(browser.modes[3..].iter().all(|mode| *mode == Mode::Live));
        browser.close(0);
        assert_eq!((browser.streams(), browser.runs_link[1]), (1, true));
        for tab in 3..10 {
            browser.on(tab, Event::Watching(false));
        }
        assert_eq!(browser.streams(), 0);
    }

    #[test]
    fn a_tab_with_a_frozen_leader_runs_its_own_link_until_the_leader_is_back() {
        let mut browser = Browser::new(2);
        browser.on(1, Event::Watching(true));
        browser.frozen[0] = true;
        browser.on(1, Event::Timer);
        assert!(browser.runs_link[1]);
        browser.frozen[0] = false;
        browser.on(0, Event::Timer);
        assert_eq!(browser.runs_link, [true, false]);
    }

    #[test]
    fn a_tab_that_crashed_is_forgotten_after_two_censuses() {
        let mut browser = Browser::new(2);
        browser.on(1, Event::Watching(true));
        browser.close(1);
        assert_eq!(browser.streams(), 1);
        browser.on(0, Event::Timer);
        browser.on(0, Event::Timer);
        assert_eq!(browser.streams(), 0);
    }

    #[test]
    fn without_locks_each_tab_runs_its_own_link() {
        let mut tab = Tabs::new(1, Timing::default(), false);
        assert!(tab.on(Event::Watching(true)).contains(&Action::RunLink(true)));
        assert!(tab.on(Event::Watching(false)).contains(&Action::RunLink(false)));
    }

    proptest! {
        #[test]
        fn there_is_always_one_stream_if_a_tab_watches_and_none_otherwise(
            steps in proptest::collection::vec((0usize..6, 0u8..4), 0..60),
        ) {
            let mut browser = Browser::new(6);
            for (tab, step) in steps {
                match step {
                    0 => browser.on(tab, Event::Watching(true)),
                    1 => browser.on(tab, Event::Watching(false)),
                    2 if browser.tabs.iter().flatten().count() > 1 && browser.tabs[tab].is_some() => browser.close(tab),
                    _ => browser.on(tab, Event::Update),
                }
                // A tab that closed without a message is counted until two censuses have passed.
                let leader = browser.holder.unwrap();
                browser.on(leader, Event::Timer);
                browser.on(leader, Event::Timer);
                prop_assert_eq!(browser.streams(), usize::from(browser.anybody_watches()));
            }
        }
    }
}
