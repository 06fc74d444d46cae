//! Which tab of a browser holds the stream for all of them. Pure: events go in, actions come out; `browser` has the
//! lock and the channel.
//!
//! ```text
//!             ┌──────────┐  the lock is granted   ┌────────┐
//!  Wants ───► │ Follower │ ─────────────────────► │ Leader │ drives the link for all, and tells what comes
//!             └──────────┘                        └────────┘
//!               │      ▲
//!   no word from│      │ the leader speaks
//!   the leader  ▼      │
//!             ┌──────────┐
//!             │  Alone   │ drives the link for itself, and still waits for the lock
//!             └──────────┘
//! ```
//!
//! Browsers grant the lock to the next in line as soon as the tab that held it is gone, however it went. A leader that
//! is frozen keeps the lock and says nothing: then each tab looks after itself until it speaks again.

use super::link::{Mode, Timing};
use std::collections::HashMap;

/// A tab, by a random number it gave itself.
pub type TabId = u64;

/// What tabs tell each other besides the news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// From the leader: it lives, and gets its updates in this way. Every tab that wants updates answers a census.
    Lead { mode: Mode, census: bool },
    /// From a tab that follows: it wants updates, or no longer.
    Want { tab: TabId, on: bool },
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// This page has something to watch, or has nothing. May be repeated.
    Wants(bool),
    /// This tab was given the lock.
    Elected,
    /// The page is put aside; the lock was given back.
    Left,
    /// A note of another tab.
    Heard(Note),
    /// News of another tab: the leader lives.
    News,
    /// This tab's link gets its updates in another way.
    Mode(Mode),
    /// The timer that was set ran out.
    Timer,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Tell the other tabs.
    Post(Note),
    /// Run this tab's own link, or stop it.
    Drive(bool),
    /// Show that updates arrive in this way, by the leader.
    Adopt(Mode),
    /// Ask once for what may have changed since the page was rendered: following begins.
    CatchUp,
    /// Send [`Event::Timer`] in so many milliseconds; replaces the one before.
    SetTimer(u32),
    /// Take the timer back.
    ClearTimer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Leader,
    Follower,
    Alone,
}

/// The machine. See the module's diagram.
#[derive(Clone, Debug)]
pub struct Tabs {
    id: TabId,
    timing: Timing,
    role: Role,
    wants: bool,
    /// Whether the leader has spoken since this tab began to follow.
    heard: bool,
    driving: bool,
    mode: Mode,
    /// The tabs that want updates, and whether they have said so since the last census.
    others: HashMap<TabId, bool>,
    actions: Vec<Action>,
}

impl Tabs {
    /// A tab that waits for the lock; or, without `locks`, one that is alone for good.
    #[must_use]
    pub fn new(id: TabId, timing: Timing, locks: bool) -> Self {
        let role = if locks { Role::Follower } else { Role::Alone };
        let (others, actions) = (HashMap::default(), Vec::new());
        Self { id, timing, role, wants: false, heard: false, driving: false, mode: Mode::Off, others, actions }
    }

    /// Whether this tab tells the others what comes.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.role == Role::Leader
    }

    /// Whether this tab takes in what others tell.
    #[must_use]
    pub fn follows(&self) -> bool {
        self.role != Role::Leader
    }

    /// What to do about `event`, in order.
    #[must_use]
    pub fn on(&mut self, event: Event) -> Vec<Action> {
        match event {
            Event::Wants(on) => {
                let changed = std::mem::replace(&mut self.wants, on) != on;
                if changed && self.role != Role::Leader {
                    self.post(Note::Want { tab: self.id, on });
                    if on {
                        self.wait(self.timing.first)
                    } else {
                        self.push(Action::ClearTimer)
                    }
                    self.heard &= on;
                    if !on && self.role == Role::Follower {
                        self.push(Action::Adopt(Mode::Off));
                    }
                }
            }
            Event::Elected => {
                self.role = Role::Leader;
                // Everyone says anew whether they want anything: what the last leader knew is gone with it.
                self.lead(true);
                self.wait(self.timing.leader / 2);
            }
            Event::Left => {
                if self.role == Role::Leader {
                    self.role = Role::Follower;
                    self.others.clear();
                } else if self.wants {
                    self.post(Note::Want { tab: self.id, on: false });
                }
                // The page comes back as if it were new.
                (self.wants, self.heard) = (false, false);
                self.push(Action::ClearTimer);
            }
            Event::Heard(Note::Want { tab, on }) if self.role == Role::Leader => {
                let new = if on { self.others.insert(tab, true).is_none() } else { self.others.remove(&tab).is_none() };
                if on && new {
                    self.lead(false);
                }
            }
            Event::Heard(Note::Lead { mode, census }) if self.role != Role::Leader => {
                if census && self.wants {
                    self.post(Note::Want { tab: self.id, on: true });
                }
                self.leader_lives();
                if self.wants {
                    self.push(Action::Adopt(mode));
                }
            }
            Event::News if self.role != Role::Leader => self.leader_lives(),
            Event::Mode(mode) => {
                self.mode = mode;
                if self.role == Role::Leader {
                    self.lead(false);
                }
            }
            Event::Timer if self.role == Role::Leader => {
                // Who hasn't answered the last census is gone without a word.
                self.others.retain(|_, fresh| std::mem::take(fresh));
                self.lead(true);
                self.wait(self.timing.leader / 2);
            }
            Event::Timer if self.wants => {
                self.role = Role::Alone;
                self.heard = false;
            }
            Event::Heard(_) | Event::News | Event::Timer => {}
        }
        let drive = match self.role {
            Role::Leader => self.wants || !self.others.is_empty(),
            Role::Alone => self.wants,
            Role::Follower => false,
        };
        if std::mem::replace(&mut self.driving, drive) != drive {
            self.push(Action::Drive(drive));
        }
        std::mem::take(&mut self.actions)
    }

    fn leader_lives(&mut self) {
        self.role = Role::Follower;
        if !self.wants {
            return;
        }
        self.wait(self.timing.leader);
        if !std::mem::replace(&mut self.heard, true) {
            self.push(Action::CatchUp);
        }
    }

    fn lead(&mut self, census: bool) {
        self.post(Note::Lead { mode: self.mode, census });
    }

    fn post(&mut self, note: Note) {
        self.push(Action::Post(note));
    }

    fn wait(&mut self, ms: u32) {
        self.push(Action::SetTimer(ms));
    }

    fn push(&mut self, action: Action) {
        self.actions.push(action);
    }
}

impl Note {
    /// The note as it goes over the channel.
    #[must_use]
    pub fn write(self) -> String {
        match self {
            Self::Lead { mode, census } => format!("lead {} {}", mode.name(), u8::from(census)),
            Self::Want { tab, on } => format!("want {tab} {}", u8::from(on)),
        }
    }

    /// Reads a note; none if it isn't one of this version's.
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

    /// Tabs of one browser: the lock goes to the first in line, notes reach all others.
    struct Browser {
        tabs: Vec<Option<Tabs>>,
        holder: Option<usize>,
        /// A frozen tab keeps the lock and hears nothing.
        frozen: Vec<bool>,
        driving: Vec<bool>,
        modes: Vec<Mode>,
    }

    impl Browser {
        fn new(count: usize) -> Self {
            let tabs = (0..count).map(|n| Some(Tabs::new(n as u64, Timing::default(), true))).collect();
            let (frozen, driving, modes) = (vec![false; count], vec![false; count], vec![Mode::Off; count]);
            let mut browser = Self { tabs, holder: None, frozen, driving, modes };
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
                    Action::Post(note) => {
                        assert_eq!(Note::read(&note.write()), Some(note));
                        for other in (0..self.tabs.len()).filter(|other| *other != tab) {
                            self.on(other, Event::Heard(note));
                        }
                    }
                    Action::Drive(on) => {
                        assert_ne!(self.driving[tab], on, "told once");
                        self.driving[tab] = on;
                        self.on(tab, Event::Mode(if on { Mode::Live } else { Mode::Off }));
                    }
                    Action::Adopt(mode) => self.modes[tab] = mode,
                    Action::CatchUp | Action::SetTimer(_) | Action::ClearTimer => {}
                }
            }
        }

        fn close(&mut self, tab: usize) {
            self.tabs[tab] = None;
            self.driving[tab] = false;
            if self.holder == Some(tab) {
                self.holder = None;
            }
            self.elect();
        }

        fn streams(&self) -> usize {
            self.driving.iter().filter(|on| **on).count()
        }

        fn anybody_wants(&self) -> bool {
            self.tabs.iter().flatten().any(|tab| tab.wants)
        }
    }

    #[test]
    fn ten_tabs_hold_one_stream_and_hand_it_over() {
        let mut browser = Browser::new(10);
        assert_eq!(browser.streams(), 0);
        for tab in 3..10 {
            browser.on(tab, Event::Wants(true));
        }
        // The leader itself has nothing to watch, and holds the stream for the others.
        assert_eq!((browser.streams(), browser.driving[0]), (1, true));
        assert!(browser.modes[3..].iter().all(|mode| *mode == Mode::Live));
        browser.close(0);
        assert_eq!((browser.streams(), browser.driving[1]), (1, true));
        for tab in 3..10 {
            browser.on(tab, Event::Wants(false));
        }
        assert_eq!(browser.streams(), 0);
    }

    #[test]
    fn a_tab_whose_leader_is_frozen_looks_after_itself_until_it_speaks_again() {
        let mut browser = Browser::new(2);
        browser.on(1, Event::Wants(true));
        browser.frozen[0] = true;
        browser.on(1, Event::Timer);
        assert!(browser.driving[1]);
        browser.frozen[0] = false;
        browser.on(0, Event::Timer);
        assert_eq!(browser.driving, [true, false]);
    }

    #[test]
    fn a_tab_that_crashed_is_no_longer_counted_after_two_censuses() {
        let mut browser = Browser::new(2);
        browser.on(1, Event::Wants(true));
        browser.close(1);
        assert_eq!(browser.streams(), 1);
        browser.on(0, Event::Timer);
        browser.on(0, Event::Timer);
        assert_eq!(browser.streams(), 0);
    }

    #[test]
    fn without_locks_each_tab_has_its_own() {
        let mut tab = Tabs::new(1, Timing::default(), false);
        assert!(tab.on(Event::Wants(true)).contains(&Action::Drive(true)));
        assert!(tab.on(Event::Wants(false)).contains(&Action::Drive(false)));
    }

    proptest! {
        #[test]
        fn whatever_happens_there_is_one_stream_if_anybody_wants_it(
            acts in proptest::collection::vec((0usize..6, 0u8..4), 0..60),
        ) {
            let mut browser = Browser::new(6);
            for (tab, act) in acts {
                match act {
                    0 => browser.on(tab, Event::Wants(true)),
                    1 => browser.on(tab, Event::Wants(false)),
                    2 if browser.tabs.iter().flatten().count() > 1 && browser.tabs[tab].is_some() => browser.close(tab),
                    _ => browser.on(tab, Event::News),
                }
                // What closed without a word is counted until two censuses have passed.
                let leader = browser.holder.unwrap();
                browser.on(leader, Event::Timer);
                browser.on(leader, Event::Timer);
                prop_assert_eq!(browser.streams(), usize::from(browser.anybody_wants()));
            }
        }
    }
}
