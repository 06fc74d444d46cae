//! The connection's state machine: which transport is open, when to try again, and which mode pages show.
//! Pure: events go in and actions come out, without I/O, a clock or randomness. `browser` performs the actions.
//!
//! ```text
//!            Watch                       first event
//!  ┌─────┐ ─────────► ┌───────────────┐ ────────────────► ┌────────────────┐
//!  │ Off │            │    Opening    │                   │      Live      │
//!  └─────┘            │ FirstEvent    │ ◄──── Restored ── │ Silence runs   │ ──┐ healthy for a
//!     ▲               │ runs          │                   │ Healthy runs   │ ◄─┘ minute: failures = 0
//!     │               └───────────────┘                   │                │
//!     │                 │           ▲                     └────────────────┘
//!     │     error, bye, │           │ Retry fires,               │ error, silence,
//!     │     4 s without │           │ Visible, Online,           │ bye
//!     │     an event    ▼           │ polls answer again         ▼
//!     │               ┌───────────────────────────────────────────────┐
//!     └─── Idle ───── │                    Waiting                    │
//!    (from any state) │ Retry runs, or Spacing with an attempt due    │
//!                     └───────────────────────────────────────────────┘
//! ```
//!
//! Polling runs independently of these states, beside further attempts: it starts with the first silence (a stream of which
//! nothing came in time, or that fell silent), after the third error in a row, after `bye` (limit), or at once in a browser
//! without EventSource (whose machine stays in Waiting, without timers), and stops at a stream's first event. It also starts at
//! once where an earlier page of the same tab has learnt that streams don't get through ([`Memory`]).
//! Once the browser reports no network, a poll probes beside a stream that delivers: if it fails, so has the stream.
//! So does a browser that the server has told to poll, by `bye` (polling) or otherwise ([`Event::Streams`]): it makes no
//! attempts until a poll's answer says that it may open streams again, and then makes one at once.
//! `Leaving` (the page is unloaded, or moved to the back/forward cache) closes everything until the page is back.
//!
//! Retry waits, after
//! - failure 1, 2: random × min(cap, base × 2^(failures - 1)): exponential backoff with full jitter
//! - failure 3 and later: 30 s ± 10%, with polling meanwhile
//! - `bye` (limit): 30 s ± 10%, with polling meanwhile
//! - `bye` (lifetime, idle, shutdown) of a stream that had delivered: 250 to 750 ms, and it doesn't count as a failure
//!
//! Streams are requested with compression. After a stream that failed before its first event, the next ones are requested
//! without, in case a proxy buffers or corrupts compressed streams; until a poll fails too, which shows that the network was
//! the cause.
//!
//! In any case, two attempts are at least `spacing` apart, and while a session is watched, a transport is open or a timer runs
//! that will open one.

#[cfg(test)]
mod tests;

/// How updates reach this page now. The badge shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Mode {
    /// Nothing to watch, or still rendering on the server.
    #[default]
    Off,
    /// A transport is being opened and hasn't delivered yet, or none delivers any more.
    Connecting,
    /// A stream delivers.
    Live,
    /// The page polls every 3 seconds and gets answers.
    Polling,
    /// The browser reports no network, and no transport delivers.
    Offline,
    /// Polls fail, and no stream delivers: the server is down, or something on the way to it.
    Unreachable,
    /// Something else answers in the server's place: a login that has run out, or the page of a network that wants one.
    SignIn,
}

impl Mode {
    const ALL: [Mode; 7] =
        [Self::Off, Self::Connecting, Self::Live, Self::Polling, Self::Offline, Self::Unreachable, Self::SignIn];

    /// Whether updates arrive, so that their absence means that nothing has changed.
    #[must_use]
    pub fn delivers(self) -> bool {
        matches!(self, Self::Live | Self::Polling)
    }

    /// Whether something is wrong that people should be told.
    #[must_use]
    pub fn is_trouble(self) -> bool {
        matches!(self, Self::Offline | Self::Unreachable | Self::SignIn)
    }

    /// The name used between tabs, in `data-mode` and in tests.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Connecting => "connecting",
            Self::Live => "live",
            Self::Polling => "polling",
            Self::Offline => "offline",
            Self::Unreachable => "unreachable",
            Self::SignIn => "sign-in",
        }
    }

    /// The mode with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A session is watched that hasn't ended. May be repeated.
    Watch,
    /// No session is left to watch. May be repeated.
    Idle,
    /// The stream's headers came.
    Opened,
    /// An event of the stream came, which may be a heartbeat.
    Message,
    /// The server announced that it closes the stream.
    Bye(Bye),
    /// The stream failed or ended.
    Failed,
    /// A timer expired.
    Timer(Timer),
    /// The page was hidden. The link goes on, because somebody may watch the progress in the page's title.
    Hidden,
    /// The page is visible again.
    Visible,
    /// The browser reports a network.
    Online,
    /// The browser reports no network. It is often wrong about servers on the same machine.
    Offline,
    /// The page is being unloaded, or moved to the back/forward cache.
    Leaving,
    /// The page came back from the back/forward cache, or the machine slept: open connections are dead, even if they look
    /// open.
    Restored,
    /// A poll was answered.
    PollAnswered,
    /// A poll failed.
    PollFailed,
    /// A poll was answered by something else than the server, which wants people to sign in.
    PollRefused,
    /// The server promises that the stream's next event comes within so many seconds. May be repeated.
    Promise(u32),
    /// The server says whether this browser may open streams. May be repeated.
    Streams(bool),
}

/// Why the server closes a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bye {
    /// The node is shutting down; another node, or the same one after its restart, will take over.
    Shutdown,
    /// The stream has reached its maximum lifetime.
    Lifetime,
    /// There was nothing to send for a while. The connection isn't at fault.
    Idle,
    /// The person left this browser.
    Logout,
    /// Too many streams are open.
    Limit,
    /// This browser must poll: it is assigned to the control group, or streams are switched off.
    Polling,
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
            "idle" => Self::Idle,
            "logout" => Self::Logout,
            "limit" => Self::Limit,
            "polling" => Self::Polling,
            _ => Self::Other,
        }
    }
}

/// What a page learns of the way to the server, for the next page in the same tab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Memory {
    /// Nothing came of a stream while polls were answered: something on the way holds streams back.
    pub blocked: bool,
    /// A stream delivers that was requested without compression, after others had failed.
    pub uncompressed: bool,
}

impl Memory {
    /// The text that the browser keeps.
    #[must_use]
    pub fn write(self) -> &'static str {
        match (self.blocked, self.uncompressed) {
            (true, _) => "blocked",
            (false, true) => "uncompressed",
            (false, false) => "",
        }
    }

    /// What [`Memory::write`] wrote.
    #[must_use]
    pub fn read(text: &str) -> Self {
        Self { blocked: text == "blocked", uncompressed: text == "uncompressed" }
    }
}

/// The timers. There is at most one of each kind; setting it again restarts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Timer {
    /// The time limit for the first event of a stream that is being opened.
    FirstEvent,
    /// The time limit for the next event of a stream that delivers.
    Silence,
    /// The wait before the next attempt.
    Retry,
    /// The minute after which a stream that delivers counts as healthy.
    Healthy,
    /// The shortest time between two attempts.
    Spacing,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Open a stream, with or without compression. No other is open.
    OpenStream { compressed: bool },
    /// Close the stream, and report none of its events any more.
    CloseStream,
    /// Poll now and at every interval. If polling already, poll now instead of at the next interval.
    StartPolling,
    /// Stop polling.
    StopPolling,
    /// Send [`Event::Timer`] after this many milliseconds; replaces a timer of the same kind.
    SetTimer(Timer, u32),
    /// Cancel a timer. It may have fired already.
    ClearTimer(Timer),
    /// Show the new mode.
    Report(Mode),
    /// Keep this for the next page in this tab.
    Remember(Memory),
}

/// The machine's timeouts and intervals in milliseconds, and the number of failures after which it polls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// The timeout for a stream's first event: 4 s. After it the stream counts as buffered or blocked on the way.
    pub first: u32,
    /// The timeout for a stream's next event: 40 s, which is two heartbeats (15 s each) and a margin; or twice what the server
    /// promises, if that is shorter.
    pub silence: u32,
    /// The shortest such timeout: 8 s, so that a busy machine isn't taken for a dead connection.
    pub beat: u32,
    /// The poll interval: 3 s. `browser` polls; the machine only starts and stops it.
    pub poll: u32,
    /// The interval between attempts to open a stream while polling: 30 s.
    pub retry: u32,
    /// The longest wait after the first failure: 500 ms. It doubles with each further failure.
    pub base: u32,
    /// The limit of that doubling: 30 s.
    pub cap: u32,
    /// The time after which a stream that delivers resets the count of failures: a minute.
    pub healthy: u32,
    /// The shortest time between two attempts, however often the network comes and goes: 500 ms.
    pub spacing: u32,
    /// How long the page goes on listening once nothing runs any more: 4 s, because a session that is deleted is cancelled
    /// first. Longer than the poll interval.
    pub linger: u32,
    /// How often a page that is seen looks what has changed while nothing runs: every minute. See `browser`.
    pub idle: u32,
    /// The timeout for a word from the leading tab: 40 s, as for a stream. See `tabs`.
    pub leader: u32,
    /// The number of failures in a row after which polling starts: 3.
    pub tries: u32,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            first: 4_000,
            silence: 40_000,
            beat: 8_000,
            poll: 3_000,
            retry: 30_000,
            base: 500,
            cap: 30_000,
            healthy: 60_000,
            spacing: 500,
            linger: 4_000,
            idle: 60_000,
            leader: 40_000,
            tries: 3,
        }
    }
}

impl Timing {
    /// The shortest wait, in milliseconds: shorter ones would only use processor time.
    const SHORTEST: u32 = 10;

    /// The defaults, except for the values in `text`, such as `first=4000,silence=40000,poll=3000`, in milliseconds (`tries`
    /// is a count). What can't be read is ignored: this is for tests and for debugging.
    #[must_use]
    pub fn with_overrides(text: &str) -> Self {
        let mut timing = Self::default();
        for (name, value) in text.split(',').filter_map(|part| part.split_once('=')) {
            let Ok(value) = value.trim().parse::<u32>() else { continue };
            let wait = match name.trim() {
                "first" => &mut timing.first,
                "silence" => &mut timing.silence,
                "beat" => &mut timing.beat,
                "poll" => &mut timing.poll,
                "retry" => &mut timing.retry,
                "base" => &mut timing.base,
                "cap" => &mut timing.cap,
                "healthy" => &mut timing.healthy,
                "spacing" => &mut timing.spacing,
                "linger" => &mut timing.linger,
                "idle" => &mut timing.idle,
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
    Requested,
    Answered,
    Failing,
    /// Answered by something else than the server.
    Refused,
}

/// The state machine. See the module's diagram.
#[derive(Clone, Debug)]
pub struct Link {
    timing: Timing,
    /// Whether the browser has EventSource.
    can_stream: bool,
    /// Whether the server has told this browser to poll.
    told_to_poll: bool,
    watched: bool,
    /// Whether the page was left ([`Event::Leaving`]) and isn't back yet.
    suspended: bool,
    /// Whether the browser reports no network. It affects only the reported mode.
    offline: bool,
    stream: Stream,
    polls: Polls,
    /// Failures in a row, without a healthy minute between them. Kept while idle, because a network that blocks streams goes
    /// on blocking them.
    failures: u32,
    /// Whether the next streams are requested without compression.
    uncompressed: bool,
    /// Whether nothing came of a stream in time, and none has delivered since.
    unheard: bool,
    /// Within how many milliseconds the open stream's next event must come.
    silence: u32,
    memory: Memory,
    /// Which timers run, so that one that fires late changes nothing.
    running: [bool; 5],
    /// Whether an attempt was wanted too soon after the last one. It is made when Spacing fires.
    attempt_due: bool,
    reported: Mode,
    actions: Vec<Action>,
}

impl Link {
    /// A machine that watches nothing. `can_stream`: whether the browser has EventSource.
    #[must_use]
    pub fn new(timing: Timing, can_stream: bool) -> Self {
        Self {
            timing,
            can_stream,
            told_to_poll: false,
            watched: false,
            suspended: false,
            offline: false,
            stream: Stream::Closed,
            polls: Polls::Stopped,
            failures: 0,
            uncompressed: false,
            unheard: false,
            silence: timing.silence,
            memory: Memory::default(),
            running: [false; 5],
            attempt_due: false,
            reported: Mode::Off,
            actions: Vec::new(),
        }
    }

    /// The same machine, on a page that follows one which has learnt this.
    #[must_use]
    pub fn remembering(mut self, memory: Memory) -> Self {
        self.memory = memory;
        self.uncompressed = memory.blocked || memory.uncompressed;
        if memory.blocked {
            self.failures = self.timing.tries;
        }
        self
    }

    /// Whether streams are meant to be used here, so that polling is a fallback.
    #[must_use]
    pub fn may_stream(&self) -> bool {
        self.can_stream && !self.told_to_poll
    }

    /// Handles `event` and returns the actions to perform, in order. `random`: a new number from 0 to 1 for each call.
    #[must_use]
    pub fn on(&mut self, event: Event, random: f64) -> Vec<Action> {
        let random = random.clamp(0.0, 1.0);
        match event {
            Event::Online => self.offline = false,
            Event::Offline => self.offline = true,
            Event::Streams(on) if self.watched && !self.suspended && self.told_to_poll == on => self.follow_switch(on),
            Event::Streams(on) => self.told_to_poll = !on,
            Event::Watch if !self.watched || self.suspended => {
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
            self.remember();
            self.report();
        } else {
            self.set_mode(Mode::Off);
        }
        std::mem::take(&mut self.actions)
    }

    fn while_watched(&mut self, event: Event, random: f64) {
        match event {
            Event::Leaving => {
                self.suspended = true;
                self.close_all();
            }
            Event::Restored => {
                self.close();
                self.stop_polling();
                self.resume();
            }
            Event::Visible | Event::Online if self.suspended => self.resume(),
            Event::Visible | Event::Online => {
                if self.polls != Polls::Stopped {
                    self.poll_now();
                }
                self.attempt();
            }

            Event::Opened => {
                if self.stream == (Stream::Opening { opened: false }) {
                    self.stream = Stream::Opening { opened: true };
                    self.set(Timer::FirstEvent, self.timing.first);
                }
            }
            Event::Message => match self.stream {
                Stream::Closed => {}
                Stream::Opening { .. } => {
                    self.stream = Stream::Live;
                    self.unheard = false;
                    self.clear(Timer::FirstEvent);
                    self.stop_polling();
                    self.set(Timer::Silence, self.silence);
                    self.set(Timer::Healthy, self.timing.healthy);
                }
                Stream::Live => {
                    // A poll that probes isn't needed any more.
                    self.stop_polling();
                    self.set(Timer::Silence, self.silence);
                }
            },
            Event::Promise(secs) => {
                let twice = secs.saturating_mul(2_000).max(self.timing.beat).min(self.timing.silence);
                if std::mem::replace(&mut self.silence, twice) != twice && self.stream == Stream::Live {
                    self.set(Timer::Silence, twice);
                }
            }
            // It is often wrong, so a poll finds out.
            Event::Offline if !self.suspended => self.poll_now(),
            Event::Bye(_) | Event::Failed if self.stream == Stream::Closed => {}
            Event::Bye(Bye::Limit) => {
                self.close();
                self.start_polling();
                self.set(Timer::Retry, self.retry_interval(random));
            }
            Event::Bye(Bye::Polling) => self.follow_switch(false),
            Event::Bye(Bye::Shutdown | Bye::Lifetime | Bye::Idle | Bye::Logout) if self.stream == Stream::Live => {
                self.close();
                self.set(Timer::Retry, 250 + (500.0 * random) as u32);
            }
            // A stream that ends with `bye` before any other event counts as a failure, so that the next attempt waits.
            Event::Bye(_) => self.fail(random, false),
            Event::Failed => self.stream_broke(random, false),

            Event::Timer(timer) => {
                if !std::mem::take(&mut self.running[timer as usize]) {
                    return;
                }
                match timer {
                    Timer::FirstEvent => {
                        self.unheard = true;
                        self.stream_broke(random, true);
                    }
                    Timer::Silence => self.stream_broke(random, true),
                    Timer::Retry => self.attempt(),
                    Timer::Healthy => self.failures = 0,
                    Timer::Spacing if self.attempt_due => self.attempt(),
                    Timer::Spacing => {}
                }
            }

            // The probe beside a stream that delivers has reached the server.
            Event::PollAnswered if self.stream == Stream::Live => self.stop_polling(),
            Event::PollAnswered if self.polls != Polls::Stopped => {
                let recovered = matches!(self.polls, Polls::Failing | Polls::Refused);
                self.polls = Polls::Answered;
                if recovered {
                    // Stream and polls probably failed for the same reason, which is gone now.
                    self.attempt();
                }
            }
            Event::PollFailed | Event::PollRefused if self.polls != Polls::Stopped => {
                self.polls = if event == Event::PollFailed { Polls::Failing } else { Polls::Refused };
                self.uncompressed = false;
                if self.stream == Stream::Live {
                    self.stream_broke(random, true);
                }
            }
            Event::PollAnswered | Event::PollFailed | Event::PollRefused => {}
            Event::Watch | Event::Idle | Event::Hidden | Event::Offline | Event::Streams(_) => {}
        }
    }

    /// Begins to poll because the server says so, or opens a stream because it may be opened again.
    fn follow_switch(&mut self, streams: bool) {
        self.told_to_poll = !streams;
        if streams {
            self.attempt();
        } else {
            self.close();
            self.clear(Timer::Retry);
            self.attempt_due = false;
            self.start_polling();
        }
    }

    /// Opens the transports again, when none is open.
    fn resume(&mut self) {
        self.suspended = false;
        if !self.may_stream() || self.failures >= self.timing.tries {
            self.start_polling();
        }
        self.attempt();
    }

    /// Opens a stream unless one is open: now, or as soon as the last attempt is `spacing` ago.
    fn attempt(&mut self) {
        if !self.may_stream() || self.stream != Stream::Closed {
            return;
        }
        self.attempt_due = self.runs(Timer::Spacing);
        if self.attempt_due {
            return;
        }
        self.clear(Timer::Retry);
        self.stream = Stream::Opening { opened: false };
        self.silence = self.timing.silence;
        self.push(Action::OpenStream { compressed: !self.uncompressed });
        self.set(Timer::FirstEvent, self.timing.first);
        self.set(Timer::Spacing, self.timing.spacing);
    }

    /// The stream ended without a `bye`. `silent`: without a word, so that it took seconds to notice.
    fn stream_broke(&mut self, random: f64, silent: bool) {
        self.uncompressed |= matches!(self.stream, Stream::Opening { .. });
        self.fail(random, silent);
    }

    fn fail(&mut self, random: f64, silent: bool) {
        self.close();
        self.failures = self.failures.saturating_add(1);
        let enough = self.failures >= self.timing.tries;
        if silent || enough {
            self.start_polling();
        }
        let wait = if enough {
            self.retry_interval(random)
        } else {
            let doublings = (self.failures - 1).min(31);
            let longest = f64::from(self.timing.base) * f64::from(1_u32 << doublings);
            (longest.min(f64::from(self.timing.cap)) * random) as u32
        };
        self.set(Timer::Retry, wait);
    }

    /// The wait between attempts while polling, with jitter, so that clients that failed together don't return together.
    fn retry_interval(&self, random: f64) -> u32 {
        (f64::from(self.timing.retry) * (0.9 + 0.2 * random)) as u32
    }

    fn start_polling(&mut self) {
        if self.polls == Polls::Stopped {
            self.polls = Polls::Requested;
            self.push(Action::StartPolling);
        }
    }

    /// Polls now, and goes on polling.
    fn poll_now(&mut self) {
        if self.polls == Polls::Stopped {
            self.polls = Polls::Requested;
        }
        self.push(Action::StartPolling);
    }

    fn stop_polling(&mut self) {
        if self.polls != Polls::Stopped {
            self.polls = Polls::Stopped;
            self.push(Action::StopPolling);
        }
    }

    /// Closes the stream, if one is open, and clears its timers.
    fn close(&mut self) {
        if self.stream != Stream::Closed {
            self.stream = Stream::Closed;
            self.push(Action::CloseStream);
        }
        for timer in [Timer::FirstEvent, Timer::Silence, Timer::Healthy] {
            self.clear(timer);
        }
    }

    fn close_all(&mut self) {
        self.close();
        self.stop_polling();
        self.attempt_due = false;
        self.clear(Timer::Retry);
        // Leaving and Idle stop every timer. The next attempt after Idle follows from what a person does, so it needs no
        // spacing.
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

    /// Notes what the page has learnt of the way to the server.
    fn remember(&mut self) {
        let memory = match (self.stream, self.polls) {
            (Stream::Live, _) => Memory { blocked: false, uncompressed: self.uncompressed },
            (_, Polls::Answered) if self.unheard && self.may_stream() => Memory { blocked: true, uncompressed: false },
            _ => return,
        };
        if std::mem::replace(&mut self.memory, memory) != memory {
            self.push(Action::Remember(memory));
        }
    }

    fn report(&mut self) {
        let mode = match (self.stream, self.polls) {
            _ if self.suspended => return, // Nobody sees the page, and the badge would flicker when it is back.
            (Stream::Live, _) => Mode::Live,
            (_, Polls::Answered) => Mode::Polling,
            (_, Polls::Refused) => Mode::SignIn,
            _ if self.offline => Mode::Offline,
            (_, Polls::Failing) => Mode::Unreachable,
            _ => Mode::Connecting,
        };
        self.set_mode(mode);
    }

    fn set_mode(&mut self, mode: Mode) {
        if self.reported != mode {
            self.reported = mode;
            self.push(Action::Report(mode));
        }
    }
}
