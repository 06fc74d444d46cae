//! The connection state machine: which transport is open, when to try again, and what to tell people about it.
//! Pure: events go in, actions come out; no I/O, no clock, no randomness of its own. `browser` carries the actions out.
//!
//! ```text
//!            Watch                       first event
//!  ┌─────┐ ─────────► ┌───────────────┐ ────────────────► ┌────────────────┐
//!  │ Off │            │    Opening    │                   │      Live      │
//!  └─────┘            │ First runs    │ ◄──── Restored ── │ Silence runs   │ ──┐ minute of health:
//!     ▲               └───────────────┘                   │ Healthy runs   │ ◄─┘ failures = 0
//!     │                 │           ▲                     └────────────────┘
//!     │     error, bye, │           │ Retry fires,               │ error, silence,
//!     │     4 s without │           │ Visible, Online,           │ bye
//!     │     an event    ▼           │ polls answer again         ▼
//!     │               ┌───────────────────────────────────────────────┐
//!     └─── Idle ───── │                    Waiting                    │
//!       (from all)    │ Retry runs, or Spacing with an attempt due    │
//!                     └───────────────────────────────────────────────┘
//! ```
//!
//! Polling runs beside it: it starts with the third failure in a row, with `bye` (limit), or at once in a browser
//! without EventSource (which then stays in Waiting, without timers), and stops with a stream's first event.
//! `Leaving` (the page is unloaded, or put aside by the browser) closes everything until the page is back.
//!
//! Retry waits, after
//! - failure 1, 2: random × min(cap, base × 2^(failures - 1)): exponential backoff with full jitter
//! - failure 3 and on: 30 s ± 10%, with polling meanwhile
//! - `bye` (limit): 30 s ± 10%, with polling meanwhile
//! - `bye` (lifetime, idle, shutdown) of a stream that had delivered: 250 to 750 ms, and it isn't a failure
//!
//! Streams are asked for compressed. After one that failed before its first event, in case something on the way keeps
//! or spoils what is compressed, the next ones are plain; until polls fail too, which says that it was the network.
//!
//! Whatever happens, two attempts are at least `spacing` apart, and while something is watched there is a transport or
//! a timer that brings one.

#[cfg(test)]
mod tests;

/// How updates reach this page right now. The badge shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Mode {
    /// Nothing to watch, or still rendering on the server.
    #[default]
    Off,
    /// A transport is being opened; nothing has come yet, or nothing gets through any more.
    Connecting,
    /// A stream delivers.
    Live,
    /// Asked for every 3 seconds.
    Polling,
    /// The browser says that there is no network, and nothing gets through.
    Offline,
}

impl Mode {
    const ALL: [Mode; 5] = [Self::Off, Self::Connecting, Self::Live, Self::Polling, Self::Offline];

    /// The name that tabs and tests know it by.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Connecting => "connecting",
            Self::Live => "live",
            Self::Polling => "polling",
            Self::Offline => "offline",
        }
    }

    /// The mode of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Something is watched that hasn't ended. May be repeated.
    Watch,
    /// Nothing is left to watch. May be repeated.
    Idle,
    /// The stream's headers came.
    Opened,
    /// Any event of the stream, a heartbeat included.
    Message,
    /// The server announced that it closes the stream.
    Bye(Bye),
    /// The stream failed or ended.
    Failed,
    /// A timer that was set ran out.
    Timer(Timer),
    /// The page can't be seen. Nothing follows: somebody may still wait for its title to change.
    Hidden,
    /// The page can be seen again.
    Visible,
    /// The browser says that there is a network.
    Online,
    /// The browser says that there is no network. It is often wrong about servers on the same machine.
    Offline,
    /// The page is being unloaded, or put aside to be restored later.
    Leaving,
    /// The page was put aside or the machine slept: what was open is dead, whatever it looks like.
    Restored,
    /// A poll was answered.
    PollAnswered,
    /// A poll failed.
    PollFailed,
}

/// Why the server closes a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bye {
    /// The node is going down; another, or the same, will take over.
    Shutdown,
    /// The stream has lived as long as streams may.
    Lifetime,
    /// There was nothing to tell for a while, or the person logged out: no fault of the connection's.
    Idle,
    /// Too many streams are open.
    Limit,
    /// A reason that this version doesn't know.
    Other,
}

impl Bye {
    /// The reason as a `bye` event gives it.
    #[must_use]
    pub fn from_reason(reason: &str) -> Self {
        match reason {
            "shutdown" => Self::Shutdown,
            "lifetime" => Self::Lifetime,
            "idle" | "logout" => Self::Idle,
            "limit" => Self::Limit,
            _ => Self::Other,
        }
    }
}

/// What the machine waits for. There is at most one timer of each kind; setting it again restarts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Timer {
    /// The first event of a stream being opened.
    First,
    /// The next event of a stream that delivers.
    Silence,
    /// The next attempt.
    Retry,
    /// A stream that has been healthy for a minute.
    Healthy,
    /// The shortest time between two attempts.
    Spacing,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Open a stream, and ask for it compressed or not. None is open.
    OpenStream { compressed: bool },
    /// Close the stream, and tell nothing of it any more.
    CloseStream,
    /// Poll now and go on polling. While polling already: poll now instead of later.
    StartPolling,
    /// Stop polling.
    StopPolling,
    /// Send [`Event::Timer`] in so many milliseconds; replaces a timer of the same kind.
    SetTimer(Timer, u32),
    /// Take a timer back. It may have fired meanwhile.
    ClearTimer(Timer),
    /// Show that updates arrive in another way.
    Report(Mode),
}

/// How long the machine waits, in milliseconds, and when it gives up on streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// A stream that has delivered nothing after this is buffered or blocked on the way: 4 s.
    pub first: u32,
    /// A stream silent for this long is dead: 40 s, two heartbeats (15 s each) and some more.
    pub silence: u32,
    /// Between polls: 3 s. `browser` polls; the machine only starts and stops it.
    pub poll: u32,
    /// Between attempts to stream while polling: 30 s.
    pub retry: u32,
    /// The longest wait after the first failure; it doubles with each further one: 500 ms.
    pub base: u32,
    /// What that doubling ends at: 30 s.
    pub cap: u32,
    /// A stream that delivers for this long makes earlier failures forgotten: a minute.
    pub healthy: u32,
    /// The shortest time between two attempts, however often the network comes and goes: 500 ms.
    pub spacing: u32,
    /// A leading tab that says nothing for this long is not waited for: 40 s, as for a stream. See `tabs`.
    pub leader: u32,
    /// Polling starts with this many failures in a row: 3.
    pub tries: u32,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            first: 4_000,
            silence: 40_000,
            poll: 3_000,
            retry: 30_000,
            base: 500,
            cap: 30_000,
            healthy: 60_000,
            spacing: 500,
            leader: 40_000,
            tries: 3,
        }
    }
}

impl Timing {
    /// Shorter than this, a wait would only heat the machine.
    const SHORTEST: u32 = 10;

    /// The defaults, but for what `text` says: `first=4000,silence=40000,poll=3000`, in milliseconds (`tries` is a
    /// count). What isn't understood is ignored: this is for tests and for debugging.
    #[must_use]
    pub fn with_overrides(text: &str) -> Self {
        let mut timing = Self::default();
        for (name, value) in text.split(',').filter_map(|part| part.split_once('=')) {
            let Ok(value) = value.trim().parse::<u32>() else { continue };
            let wait = match name.trim() {
                "first" => &mut timing.first,
                "silence" => &mut timing.silence,
                "poll" => &mut timing.poll,
                "retry" => &mut timing.retry,
                "base" => &mut timing.base,
                "cap" => &mut timing.cap,
                "healthy" => &mut timing.healthy,
                "spacing" => &mut timing.spacing,
                "leader" => &mut timing.leader,
                "tries" => {
                    timing.tries = value.max(1);
                    continue;
                }
                _ => continue,
            };
            *wait = value.max(Self::SHORTEST);
        }
        timing
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    Closed,
    Opening { opened: bool },
    Live,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Polls {
    Stopped,
    /// Not answered yet.
    Asked,
    Answered,
    Failing,
}

/// The machine. See the module's diagram.
#[derive(Clone, Debug)]
pub struct Link {
    timing: Timing,
    /// Whether the browser has EventSource.
    can_stream: bool,
    watched: bool,
    /// Between [`Event::Leaving`] and the return.
    away: bool,
    /// What the browser says of the network; a hint for what is reported, no more.
    offline: bool,
    stream: Stream,
    polls: Polls,
    /// In a row, without a minute of health between. Kept while idle: a network that blocks streams still does.
    failures: u32,
    /// Whether the next streams are asked for uncompressed.
    plain: bool,
    /// Which timers run, so that one that fires late changes nothing.
    running: [bool; 5],
    /// An attempt was wanted too soon after the last one; made when Spacing fires.
    due: bool,
    reported: Mode,
    actions: Vec<Action>,
}

impl Link {
    /// A machine with nothing to watch. `can_stream`: whether the browser has EventSource.
    #[must_use]
    pub fn new(timing: Timing, can_stream: bool) -> Self {
        Self {
            timing,
            can_stream,
            watched: false,
            away: false,
            offline: false,
            stream: Stream::Closed,
            polls: Polls::Stopped,
            failures: 0,
            plain: false,
            running: [false; 5],
            due: false,
            reported: Mode::Off,
            actions: Vec::new(),
        }
    }

    /// What to do about `event`, in order. `random`: 0 to 1, a new one every time.
    #[must_use]
    pub fn on(&mut self, event: Event, random: f64) -> Vec<Action> {
        let random = random.clamp(0.0, 1.0);
        match event {
            Event::Online => self.offline = false,
            Event::Offline => self.offline = true,
            Event::Watch if !self.watched || self.away => {
                self.watched = true;
                self.resume();
            }
            Event::Idle => {
                self.watched = false;
                self.close_all();
            }
            _ => {}
        }
        if self.watched {
            self.while_watched(event, random);
            self.report();
        } else {
            self.tell(Mode::Off);
        }
        std::mem::take(&mut self.actions)
    }

    fn while_watched(&mut self, event: Event, random: f64) {
        match event {
            Event::Leaving => {
                self.away = true;
                self.close_all();
            }
            Event::Restored => {
                self.close();
                self.stop_polling();
                self.resume();
            }
            Event::Visible | Event::Online if self.away => self.resume(),
            Event::Visible | Event::Online => {
                if self.polls != Polls::Stopped {
                    self.push(Action::StartPolling);
                }
                self.attempt();
            }

            Event::Opened => {
                if self.stream == (Stream::Opening { opened: false }) {
                    self.stream = Stream::Opening { opened: true };
                    self.set(Timer::First, self.timing.first);
                }
            }
            Event::Message => match self.stream {
                Stream::Closed => {}
                Stream::Opening { .. } => {
                    self.stream = Stream::Live;
                    self.clear(Timer::First);
                    self.stop_polling();
                    self.set(Timer::Silence, self.timing.silence);
                    self.set(Timer::Healthy, self.timing.healthy);
                }
                Stream::Live => self.set(Timer::Silence, self.timing.silence),
            },
            Event::Bye(_) | Event::Failed if self.stream == Stream::Closed => {}
            Event::Bye(Bye::Limit) => {
                self.close();
                self.start_polling();
                self.set(Timer::Retry, self.seldom(random));
            }
            Event::Bye(Bye::Shutdown | Bye::Lifetime | Bye::Idle) if self.stream == Stream::Live => {
                self.close();
                self.set(Timer::Retry, 250 + (500.0 * random) as u32);
            }
            // One that says goodbye before it said anything else must not be met with eagerness.
            Event::Bye(_) => self.fail(random),
            Event::Failed => self.break_off(random),

            Event::Timer(timer) => {
                if !std::mem::take(&mut self.running[timer as usize]) {
                    return;
                }
                match timer {
                    Timer::First | Timer::Silence => self.break_off(random),
                    Timer::Retry => self.attempt(),
                    Timer::Healthy => self.failures = 0,
                    Timer::Spacing if self.due => self.attempt(),
                    Timer::Spacing => {}
                }
            }

            Event::PollAnswered if self.polls != Polls::Stopped => {
                let back = self.polls == Polls::Failing;
                self.polls = Polls::Answered;
                if back {
                    // What failed the stream was probably what failed the polls.
                    self.attempt();
                }
            }
            Event::PollFailed if self.polls != Polls::Stopped => {
                self.polls = Polls::Failing;
                self.plain = false;
            }
            Event::PollAnswered | Event::PollFailed => {}
            Event::Watch | Event::Idle | Event::Hidden | Event::Offline => {}
        }
    }

    /// Starts from nothing being open.
    fn resume(&mut self) {
        self.away = false;
        if !self.can_stream || self.failures >= self.timing.tries {
            self.start_polling();
        }
        self.attempt();
    }

    /// Opens a stream, now or as soon as the last attempt is long enough ago; unless there is one.
    fn attempt(&mut self) {
        if !self.can_stream || self.stream != Stream::Closed {
            return;
        }
        self.due = self.runs(Timer::Spacing);
        if self.due {
            return;
        }
        self.clear(Timer::Retry);
        self.stream = Stream::Opening { opened: false };
        self.push(Action::OpenStream { compressed: !self.plain });
        self.set(Timer::First, self.timing.first);
        self.set(Timer::Spacing, self.timing.spacing);
    }

    /// The stream went without a word.
    fn break_off(&mut self, random: f64) {
        self.plain |= matches!(self.stream, Stream::Opening { .. });
        self.fail(random);
    }

    fn fail(&mut self, random: f64) {
        self.close();
        self.failures = self.failures.saturating_add(1);
        let wait = if self.failures >= self.timing.tries {
            self.start_polling();
            self.seldom(random)
        } else {
            let doublings = (self.failures - 1).min(31);
            let longest = f64::from(self.timing.base) * f64::from(1_u32 << doublings);
            (longest.min(f64::from(self.timing.cap)) * random) as u32
        };
        self.set(Timer::Retry, wait);
    }

    /// The wait between attempts while polling. Spread, so that those who failed together don't come back together.
    fn seldom(&self, random: f64) -> u32 {
        (f64::from(self.timing.retry) * (0.9 + 0.2 * random)) as u32
    }

    fn start_polling(&mut self) {
        if self.polls == Polls::Stopped {
            self.polls = Polls::Asked;
            self.push(Action::StartPolling);
        }
    }

    fn stop_polling(&mut self) {
        if self.polls != Polls::Stopped {
            self.polls = Polls::Stopped;
            self.push(Action::StopPolling);
        }
    }

    /// Closes the stream, if there is one, with the timers that belong to it.
    fn close(&mut self) {
        if self.stream != Stream::Closed {
            self.stream = Stream::Closed;
            self.push(Action::CloseStream);
        }
        for timer in [Timer::First, Timer::Silence, Timer::Healthy] {
            self.clear(timer);
        }
    }

    fn close_all(&mut self) {
        self.close();
        self.stop_polling();
        self.due = false;
        self.clear(Timer::Retry);
        // Leaving and Idle stop every timer. After Idle the next attempt is a person's doing and may come at once.
        self.clear(Timer::Spacing);
    }

    fn runs(&self, timer: Timer) -> bool {
        self.running[timer as usize]
    }

    fn set(&mut self, timer: Timer, ms: u32) {
        self.running[timer as usize] = true;
        self.push(Action::SetTimer(timer, ms));
    }

    fn clear(&mut self, timer: Timer) {
        if std::mem::take(&mut self.running[timer as usize]) {
            self.push(Action::ClearTimer(timer));
        }
    }

    fn push(&mut self, action: Action) {
        self.actions.push(action);
    }

    fn report(&mut self) {
        let mode = match (self.stream, self.polls) {
            _ if self.away => return, // Nobody sees it, and it would flicker on return.
            (Stream::Live, _) => Mode::Live,
            (_, Polls::Answered) => Mode::Polling,
            _ if self.offline => Mode::Offline,
            _ => Mode::Connecting,
        };
        self.tell(mode);
    }

    fn tell(&mut self, mode: Mode) {
        if self.reported != mode {
            self.reported = mode;
            self.push(Action::Report(mode));
        }
    }
}
