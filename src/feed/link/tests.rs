//! Tests of every rule of the link on a simulated network with virtual time, and of random sequences of events.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// How the network treats a stream.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Net {
    /// The headers and an event come at once, then a heartbeat every 15 s.
    Works,
    /// The stream fails after 5 ms.
    Refused,
    /// Nothing ever comes.
    Hangs,
    /// The headers come, and a proxy buffers everything after them.
    Buffered,
    /// The stream works for 20 s, then fails.
    Disconnects,
    /// A proxy buffers compressed streams; uncompressed ones work.
    BuffersCompressed,
    /// A proxy corrupts compressed streams: an error follows the headers. Uncompressed ones work.
    CorruptsCompressed,
    /// The server sends `bye` as the first event.
    SaysBye(Bye),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Timer(Timer),
    Stream,
    Poll,
}

struct Sim {
    link: Link,
    now: u64,
    net: Net,
    polls_work: bool,
    /// Whether failing polls are answered by a login.
    signed_out: bool,
    random: f64,
    memory: Memory,
    /// Whether the browser has reported no network since polling began.
    probes: bool,
    timers: BTreeMap<Timer, u64>,
    /// When the stream was opened, and how many events it has sent.
    stream: Option<(u64, u32)>,
    /// When the next poll is answered.
    poll: Option<u64>,
    attempts: Vec<u64>,
    /// Whether each attempt asked for a compressed stream.
    compressed: Vec<bool>,
    polls: Vec<u64>,
    reports: Vec<(u64, Mode)>,
}

impl Sim {
    fn new(net: Net) -> Self {
        Self::of(Link::new(Timing::default(), true), net)
    }

    fn of(link: Link, net: Net) -> Self {
        Self {
            link,
            now: 0,
            net,
            polls_work: true,
            signed_out: false,
            random: 0.5,
            memory: Memory::default(),
            probes: false,
            timers: BTreeMap::new(),
            stream: None,
            poll: None,
            attempts: Vec::new(),
            compressed: Vec::new(),
            polls: Vec::new(),
            reports: Vec::new(),
        }
    }

    fn watching(net: Net) -> Self {
        let mut sim = Self::new(net);
        sim.on(Event::Watch);
        sim
    }

    fn on(&mut self, event: Event) -> Vec<Action> {
        let actions = self.link.on(event, self.random);
        self.probes |= event == Event::Offline;
        for action in &actions {
            match *action {
                Action::OpenStream { compressed } => {
                    assert!(self.stream.is_none(), "a second stream");
                    self.stream = Some((self.now, 0));
                    self.attempts.push(self.now);
                    self.compressed.push(compressed);
                }
                Action::CloseStream => assert!(self.stream.take().is_some(), "closed what isn't open"),
                Action::StartPolling => self.poll = Some(self.now + 10),
                Action::StopPolling => {
                    assert!(self.poll.take().is_some(), "stopped what doesn't run");
                    self.probes = false;
                }
                Action::Remember(memory) => {
                    assert_ne!(self.memory, memory, "remembered without a change");
                    self.memory = memory;
                }
                Action::SetTimer(timer, ms) => drop(self.timers.insert(timer, self.now + u64::from(ms))),
                Action::ClearTimer(timer) => drop(self.timers.remove(&timer)),
                Action::Report(mode) => {
                    assert_ne!(self.reports.last().map_or(Mode::Off, |r| r.1), mode, "reported without a change");
                    self.reports.push((self.now, mode));
                }
            }
        }
        self.check();
        actions
    }

    /// Checks what must be true after every event.
    fn check(&self) {
        if self.link.watched && !self.link.suspended {
            let timer = [Timer::FirstEvent, Timer::Silence, Timer::Retry].iter().any(|t| self.timers.contains_key(t))
                || (self.link.attempt_due && self.timers.contains_key(&Timer::Spacing));
            assert!(timer || self.poll.is_some(), "no transport is open and no timer will open one: {:?}", self.link);
            if self.stream.is_some() {
                let watchdog =
                    self.timers.contains_key(&Timer::FirstEvent) || self.timers.contains_key(&Timer::Silence);
                assert!(watchdog, "a stream without a timeout: {:?}", self.link);
            }
            if self.link.may_stream() && self.stream.is_none() {
                assert!(timer, "no further stream will be opened: {:?}", self.link);
            }
            let two = self.link.stream == Stream::Live && self.poll.is_some();
            assert!(!two || self.probes, "two live transports");
        } else {
            assert!(self.stream.is_none() && self.poll.is_none() && self.timers.is_empty(), "{:?}", self.link);
        }
    }

    /// The time of the stream's next event, and the event.
    fn stream_event(&self) -> Option<(u64, Event)> {
        let (opened, sent) = self.stream?;
        let heartbeat = |n: u32| (opened + 30 + u64::from(n - 1) * 15_000, Event::Message);
        let net = match (self.net, self.compressed.last()) {
            (Net::BuffersCompressed, Some(true)) => Net::Buffered,
            (Net::BuffersCompressed | Net::CorruptsCompressed, Some(false)) => Net::Works,
            (net, _) => net,
        };
        match (net, sent) {
            (Net::Refused, 0) => Some((opened + 5, Event::Failed)),
            (Net::SaysBye(bye), 0) => Some((opened + 5, Event::Bye(bye))),
            (Net::Works | Net::Buffered | Net::Disconnects | Net::CorruptsCompressed, 0) => {
                Some((opened + 20, Event::Opened))
            }
            (Net::CorruptsCompressed, 1) => Some((opened + 30, Event::Failed)),
            (Net::Works, n) => Some(heartbeat(n)),
            (Net::Disconnects, n @ 1..=2) => Some(heartbeat(n)),
            (Net::Disconnects, 3) => Some((opened + 20_000, Event::Failed)),
            _ => None,
        }
    }

    /// Advances the clock and delivers all events on the way.
    fn run(&mut self, ms: u64) {
        let end = self.now + ms;
        for _ in 0..100_000 {
            let timers = self.timers.iter().map(|(timer, at)| (*at, Source::Timer(*timer)));
            let stream = self.stream_event().map(|(at, _)| (at, Source::Stream));
            let next = timers.chain(stream).chain(self.poll.map(|at| (at, Source::Poll))).min();
            let Some((at, source)) = next.filter(|(at, _)| *at <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(at);
            match source {
                Source::Timer(timer) => {
                    self.timers.remove(&timer);
                    self.on(Event::Timer(timer));
                }
                Source::Stream => {
                    let event = self.stream_event().expect("seen above").1;
                    if let Some((_, sent)) = &mut self.stream {
                        *sent += 1;
                    }
                    self.on(event);
                }
                Source::Poll => {
                    self.polls.push(self.now);
                    self.poll = Some(self.now + u64::from(Timing::default().poll));
                    self.on(match (self.polls_work, self.signed_out) {
                        (true, _) => Event::PollAnswered,
                        (false, true) => Event::PollRefused,
                        (false, false) => Event::PollFailed,
                    });
                }
            }
        }
        panic!("time doesn't advance: {:?}", self.link);
    }

    fn mode(&self) -> Mode {
        self.reports.last().map_or(Mode::Off, |r| r.1)
    }

    fn modes(&self) -> Vec<Mode> {
        self.reports.iter().map(|r| r.1).collect()
    }
}

fn opens(actions: &[Action]) -> bool {
    actions.iter().any(|action| matches!(action, Action::OpenStream { .. }))
}

#[test]
fn a_stream_that_delivers_is_live_and_is_neither_reopened_nor_polled() {
    let mut sim = Sim::watching(Net::Works);
    sim.run(3_600_000);
    assert_eq!(sim.modes(), [Mode::Connecting, Mode::Live]);
    assert_eq!(sim.attempts, [0]);
    assert!(sim.polls.is_empty());
}

#[test]
fn nothing_happens_before_something_is_watched() {
    let mut link = Link::new(Timing::default(), true);
    for event in
        [Event::Visible, Event::Online, Event::Offline, Event::Restored, Event::Leaving, Event::Message, Event::Idle]
    {
        assert_eq!(link.on(event, 0.5), []);
    }
}

#[test]
fn watching_another_session_opens_nothing() {
    let mut sim = Sim::watching(Net::Works);
    sim.run(1000);
    assert_eq!(sim.on(Event::Watch), []);
}

#[test]
fn four_seconds_without_an_event_count_as_blocked() {
    let mut sim = Sim::watching(Net::Hangs);
    sim.run(3_999);
    assert!(sim.stream.is_some());
    sim.run(1);
    assert!(sim.stream.is_none());
    assert_eq!(sim.link.failures, 1);
}

#[test]
fn the_headers_restart_the_four_seconds_once() {
    let mut sim = Sim::watching(Net::Buffered);
    sim.run(4_019);
    assert!(sim.stream.is_some());
    sim.run(1);
    assert_eq!(sim.link.failures, 1);
    sim.run(260); // The second attempt, without headers yet.
    assert_ne!(sim.on(Event::Opened), []);
    assert_eq!(sim.on(Event::Opened), []);
}

#[test]
fn a_stream_silent_for_forty_seconds_has_failed() {
    let mut sim = Sim::watching(Net::Works);
    sim.run(1000); // The first event came after 30 ms.
    sim.net = Net::Hangs;
    sim.run(39_029);
    assert_eq!(sim.mode(), Mode::Live);
    sim.run(1);
    assert_eq!((sim.mode(), sim.link.failures), (Mode::Connecting, 1));
}

#[test]
fn with_the_first_silence_it_polls_beside_further_attempts() {
    for net in [Net::Buffered, Net::Hangs] {
        let mut sim = Sim::watching(net);
        sim.run(4_100);
        assert_eq!(sim.modes(), [Mode::Connecting, Mode::Polling], "{net:?}");
        assert!(sim.polls[0] <= 4_050, "{:?}", sim.polls);
        sim.run(20_000);
        assert!(sim.attempts.len() >= 3 && sim.polls.len() >= 6);
        // The attempts that fail meanwhile aren't seen.
        assert_eq!(sim.mode(), Mode::Polling);
        sim.net = Net::Works;
        sim.run(40_000);
        assert_eq!((sim.mode(), sim.poll), (Mode::Live, None));
    }
}

#[test]
fn what_a_page_has_learnt_is_remembered_for_the_next_in_its_tab() {
    let mut sim = Sim::watching(Net::Buffered);
    sim.run(30_000);
    assert_eq!(sim.memory, Memory { blocked: true, uncompressed: false });
    let next = |memory: Memory, net| {
        let read = Memory::read(memory.write());
        assert_eq!(read, memory);
        let mut sim = Sim::of(Link::new(Timing::default(), true).remembering(read), net);
        sim.memory = read;
        sim.on(Event::Watch);
        sim
    };
    // The next page polls at once, probes a stream beside it, and then every 30 s.
    let mut sim = next(sim.memory, Net::Buffered);
    sim.run(20);
    assert_eq!((sim.mode(), &*sim.attempts, &*sim.polls), (Mode::Polling, &[0][..], &[10][..]));
    sim.run(100_000);
    assert!((3..=5).contains(&sim.attempts.len()), "{:?}", sim.attempts);
    // Streams get through again: it forgets.
    let mut sim = next(sim.memory, Net::Works);
    sim.run(100);
    assert_eq!((sim.mode(), sim.memory.blocked), (Mode::Live, false));
    // A proxy that only holds back compressed streams.
    let mut sim = next(Memory::default(), Net::BuffersCompressed);
    sim.run(10_000);
    assert_eq!((sim.mode(), sim.memory), (Mode::Live, Memory { blocked: false, uncompressed: true }));
    let mut sim = next(sim.memory, Net::BuffersCompressed);
    sim.run(100);
    assert_eq!((sim.mode(), &*sim.compressed, sim.polls.len()), (Mode::Live, &[false][..], 0));
}

#[test]
fn a_network_that_is_down_is_not_remembered_as_one_that_blocks_streams() {
    let mut sim = Sim::watching(Net::Hangs);
    sim.polls_work = false;
    sim.run(60_000);
    assert_eq!(sim.memory, Memory::default());
    // Nor is a browser that is told to poll.
    let mut sim = Sim::watching(Net::Hangs);
    sim.on(Event::Streams(false));
    sim.run(60_000);
    assert_eq!(sim.memory, Memory::default());
}

#[test]
fn a_stream_that_breaks_its_promise_has_failed_after_eight_seconds() {
    let mut sim = Sim::watching(Net::Works);
    sim.run(1_000);
    // As often as it is given, it begins anew only if it has changed.
    let set = |actions: &[Action]| actions.iter().any(|a| matches!(a, Action::SetTimer(Timer::Silence, 8_000)));
    assert!(set(&sim.on(Event::Promise(4))));
    assert!(!set(&sim.on(Event::Promise(4))));
    sim.net = Net::Hangs;
    sim.run(7_999);
    assert_eq!(sim.mode(), Mode::Live);
    sim.polls_work = false;
    sim.run(1);
    assert_eq!((sim.mode(), sim.poll.is_some()), (Mode::Connecting, true), "a poll probes at once");
    sim.run(20);
    assert_eq!(sim.mode(), Mode::Unreachable);
    // The next stream has promised nothing yet.
    (sim.net, sim.polls_work) = (Net::Works, true);
    sim.run(40_000);
    assert_eq!((sim.mode(), sim.link.silence), (Mode::Live, 40_000));
    // A promise of long ago, and of nothing at all.
    sim.on(Event::Promise(16));
    assert_eq!(sim.link.silence, 32_000);
    sim.on(Event::Promise(u32::MAX));
    assert_eq!(sim.link.silence, 40_000);
    sim.on(Event::Promise(0));
    assert_eq!(sim.link.silence, 8_000);
}

#[test]
fn a_server_that_cannot_be_reached_is_named_and_so_is_a_login() {
    let mut sim = Sim::watching(Net::Works);
    sim.run(1_000);
    (sim.net, sim.polls_work) = (Net::Refused, false);
    sim.on(Event::Failed);
    sim.run(20_000);
    assert_eq!(sim.mode(), Mode::Unreachable);
    sim.signed_out = true;
    sim.run(4_000);
    assert_eq!(sim.mode(), Mode::SignIn);
    // A browser that reports no network is told so, unless a login answers.
    sim.on(Event::Offline);
    assert_eq!(sim.mode(), Mode::SignIn);
    sim.signed_out = false;
    sim.run(4_000);
    assert_eq!(sim.mode(), Mode::Offline);
    sim.on(Event::Online);
    (sim.net, sim.polls_work) = (Net::Works, true);
    sim.run(4_000);
    assert_eq!(sim.mode(), Mode::Live);
    assert_eq!(sim.modes().iter().filter(|mode| **mode == Mode::Polling).count(), 1, "{:?}", sim.reports);
}

#[test]
fn without_a_network_a_poll_probes_beside_the_stream() {
    // The network is there: the stream goes on.
    let mut sim = Sim::watching(Net::Works);
    sim.run(1_000);
    assert_eq!(sim.on(Event::Offline), [Action::StartPolling]);
    sim.run(100);
    assert_eq!((sim.mode(), sim.poll, sim.attempts.len(), sim.polls.len()), (Mode::Live, None, 1, 1));
    // An event of the stream makes the probe needless.
    sim.on(Event::Offline);
    assert!(sim.on(Event::Message).contains(&Action::StopPolling));
    // It isn't.
    (sim.net, sim.polls_work) = (Net::Hangs, false);
    sim.on(Event::Offline);
    sim.run(20);
    assert_eq!((sim.mode(), sim.link.failures), (Mode::Offline, 1));
    assert!(sim.poll.is_some());
}

#[test]
fn after_three_failures_it_polls_and_tries_a_stream_every_30_s() {
    let mut sim = Sim::watching(Net::Refused);
    sim.run(2_000);
    assert_eq!(sim.attempts.len(), 3);
    assert_eq!(sim.modes(), [Mode::Connecting, Mode::Polling]);
    sim.run(300_000);
    let late: Vec<u64> = sim.attempts[3..].windows(2).map(|w| w[1] - w[0]).collect();
    assert!(late.len() >= 8 && late.iter().all(|ms| (30_000..30_100).contains(ms)), "{late:?}");
    assert!(sim.polls.windows(2).all(|w| w[1] - w[0] == 3_000));
    assert_eq!(sim.mode(), Mode::Polling);
}

#[test]
fn polling_goes_on_until_the_stream_has_delivered() {
    let mut sim = Sim::watching(Net::Refused);
    sim.run(2_000);
    sim.net = Net::Buffered;
    sim.run(31_000);
    assert!(sim.stream.is_some() && sim.poll.is_some());
    assert_eq!(sim.mode(), Mode::Polling);
    assert_eq!(
        sim.on(Event::Message),
        [
            Action::ClearTimer(Timer::FirstEvent),
            Action::StopPolling,
            Action::SetTimer(Timer::Silence, 40_000),
            Action::SetTimer(Timer::Healthy, 60_000),
            Action::Remember(Memory { blocked: false, uncompressed: true }),
            Action::Report(Mode::Live),
        ]
    );
}

#[test]
fn backoff_doubles_with_full_jitter_up_to_its_cap() {
    for (random, waits) in [(0.0, [0, 0, 0, 0]), (0.5, [250, 500, 1_000, 1_500]), (1.0, [500, 1_000, 2_000, 3_000])] {
        let timing = Timing { tries: 100, cap: 3_000, ..Timing::default() };
        let mut link = Link::new(timing, true);
        let _ = link.on(Event::Watch, random);
        for wait in waits {
            let actions = link.on(Event::Failed, random);
            assert!(actions.contains(&Action::SetTimer(Timer::Retry, wait)), "{random}: {actions:?}");
            let _ = link.on(Event::Timer(Timer::Spacing), random);
            let _ = link.on(Event::Timer(Timer::Retry), random);
        }
    }
}

#[test]
fn no_number_of_failures_overflows() {
    let mut link = Link::new(Timing { tries: u32::MAX, ..Timing::default() }, true);
    let _ = link.on(Event::Watch, 1.0);
    link.failures = u32::MAX - 2;
    for _ in 0..5 {
        let actions = link.on(Event::Failed, 1.0);
        assert!(actions.iter().any(|a| matches!(a, Action::SetTimer(Timer::Retry, 30_000..=33_000))), "{actions:?}");
        let _ = link.on(Event::Timer(Timer::Spacing), 1.0);
        let _ = link.on(Event::Timer(Timer::Retry), 1.0);
    }
}

#[test]
fn two_attempts_are_never_closer_than_the_spacing() {
    let mut sim = Sim::watching(Net::Refused);
    sim.random = 0.0;
    sim.run(20);
    assert_eq!(sim.attempts, [0]);
    for _ in 0..10 {
        sim.on(Event::Visible);
        sim.on(Event::Online);
        sim.on(Event::Restored);
    }
    assert_eq!(sim.attempts, [0]);
    sim.run(500);
    assert_eq!(sim.attempts, [0, 500]);
}

#[test]
fn a_healthy_minute_resets_the_failures() {
    let mut sim = Sim::watching(Net::Refused);
    sim.run(600);
    assert_eq!(sim.link.failures, 2);
    sim.net = Net::Works;
    sim.run(59_000);
    assert_eq!((sim.mode(), sim.link.failures), (Mode::Live, 2));
    sim.run(3_000);
    assert_eq!(sim.link.failures, 0);
}

#[test]
fn between_streams_that_disconnect_it_polls() {
    let mut sim = Sim::watching(Net::Disconnects);
    sim.run(120_000);
    assert!(sim.modes().starts_with(&[Mode::Connecting, Mode::Live, Mode::Connecting, Mode::Live]));
    assert!(sim.modes().contains(&Mode::Polling), "{:?}", sim.reports);
    assert!(sim.attempts.len() < 8);
}

#[test]
fn without_event_source_it_polls_from_the_start_and_opens_no_stream() {
    let mut sim = Sim::of(Link::new(Timing::default(), false), Net::Works);
    assert_eq!(sim.on(Event::Watch), [Action::StartPolling, Action::Report(Mode::Connecting)]);
    sim.run(20);
    assert_eq!(sim.mode(), Mode::Polling);
    sim.run(600_000);
    for event in [Event::Visible, Event::Online, Event::Restored, Event::Leaving, Event::Restored] {
        sim.on(event);
    }
    sim.polls_work = false;
    sim.run(60_000);
    assert_eq!(sim.mode(), Mode::Unreachable);
    sim.polls_work = true;
    sim.run(60_000);
    assert!(sim.attempts.is_empty());
    assert_eq!(sim.mode(), Mode::Polling);
}

#[test]
fn at_the_limit_of_streams_it_polls_at_once_and_tries_a_stream_after_30_s() {
    for sent in [0, 1] {
        let mut sim = Sim::watching(if sent == 0 { Net::Hangs } else { Net::Works });
        sim.run(1_000);
        sim.on(Event::Bye(Bye::Limit));
        sim.net = Net::Works;
        assert_eq!(sim.link.failures, 0);
        sim.run(29_000);
        assert_eq!((sim.mode(), sim.attempts.len()), (Mode::Polling, 1));
        sim.run(2_000);
        assert_eq!((sim.mode(), sim.attempts.len()), (Mode::Live, 2));
    }
}

#[test]
fn a_browser_that_is_told_to_poll_does_so_without_attempts_until_it_may_stream_again() {
    for delivered in [false, true] {
        let mut sim = Sim::watching(if delivered { Net::Works } else { Net::SaysBye(Bye::Polling) });
        sim.run(1_000);
        if delivered {
            sim.on(Event::Bye(Bye::Polling));
        }
        sim.run(600_000);
        assert_eq!((sim.mode(), sim.attempts.len(), sim.link.failures), (Mode::Polling, 1, 0));
        assert!(sim.timers.is_empty() && !sim.link.may_stream());
        for event in [Event::Visible, Event::Online, Event::Restored, Event::Streams(false)] {
            assert!(!opens(&sim.on(event)), "{event:?}");
        }
        sim.on(Event::Leaving);
        sim.on(Event::Restored);
        sim.run(1_000);
        assert_eq!((sim.mode(), sim.attempts.len()), (Mode::Polling, 1));
        sim.net = Net::Works;
        assert!(opens(&sim.on(Event::Streams(true))));
        // It polls until the stream has delivered.
        assert_eq!(sim.mode(), Mode::Polling);
        sim.run(100);
        assert_eq!((sim.mode(), sim.attempts.len()), (Mode::Live, 2));
        assert_eq!(sim.on(Event::Streams(true)), []);
    }
}

#[test]
fn a_page_that_is_told_before_it_watches_opens_no_stream() {
    let mut sim = Sim::new(Net::Works);
    assert_eq!(sim.on(Event::Streams(false)), []);
    assert_eq!(sim.on(Event::Watch), [Action::StartPolling, Action::Report(Mode::Connecting)]);
    sim.run(60_000);
    assert_eq!((sim.mode(), sim.attempts.len()), (Mode::Polling, 0));
    // Told while nothing is watched.
    sim.on(Event::Idle);
    assert_eq!(sim.on(Event::Streams(true)), []);
    assert!(opens(&sim.on(Event::Watch)));
}

#[test]
fn a_page_that_knocks_stops_when_it_is_told_to_poll() {
    let mut sim = Sim::watching(Net::Refused);
    sim.run(10_000);
    let attempts = sim.attempts.len();
    sim.on(Event::Streams(false));
    sim.run(600_000);
    assert_eq!((sim.mode(), sim.attempts.len()), (Mode::Polling, attempts));
    // The failures before are remembered: if the next stream fails too, it goes on polling.
    sim.on(Event::Streams(true));
    sim.run(1_000);
    assert_eq!((sim.mode(), sim.attempts.len()), (Mode::Polling, attempts + 1));
}

#[test]
fn an_announced_end_is_not_a_failure_and_the_next_stream_opens_soon() {
    for bye in [Bye::Shutdown, Bye::Lifetime, Bye::Idle, Bye::Logout] {
        for (random, wait) in [(0.0, 250), (1.0, 750)] {
            let mut sim = Sim::watching(Net::Works);
            sim.run(10_000);
            sim.random = random;
            let actions = sim.on(Event::Bye(bye));
            assert!(actions.contains(&Action::SetTimer(Timer::Retry, wait)), "{actions:?}");
            assert_eq!(sim.link.failures, 0);
            sim.run(u64::from(wait) + 50);
            assert_eq!(sim.mode(), Mode::Live);
        }
    }
}

#[test]
fn a_bye_as_first_event_or_for_an_unknown_reason_is_a_failure() {
    for bye in [Bye::Shutdown, Bye::Lifetime, Bye::Idle, Bye::Other] {
        let mut sim = Sim::watching(Net::SaysBye(bye));
        sim.run(10_000);
        assert_eq!((sim.mode(), sim.attempts.len()), (Mode::Polling, 3));
    }
    let mut sim = Sim::watching(Net::Works);
    sim.run(1_000);
    sim.on(Event::Bye(Bye::Other));
    assert_eq!(sim.link.failures, 1);
}

#[test]
fn a_page_visible_or_online_again_tries_at_once_unless_live() {
    for event in [Event::Visible, Event::Online] {
        let mut sim = Sim::watching(Net::Refused);
        sim.run(10_000);
        sim.net = Net::Works;
        let before = sim.attempts.len();
        let actions = sim.on(event);
        assert!(opens(&actions) && actions.contains(&Action::StartPolling), "{actions:?}");
        sim.run(100);
        assert_eq!((sim.mode(), sim.attempts.len()), (Mode::Live, before + 1));
        assert_eq!(sim.on(event), []);
    }
}

#[test]
fn a_restored_page_opens_a_new_stream_even_when_live() {
    let mut sim = Sim::watching(Net::Works);
    sim.run(10_000);
    let actions = sim.on(Event::Restored);
    assert!(actions.contains(&Action::CloseStream) && opens(&actions), "{actions:?}");
    assert_eq!(sim.link.failures, 0);
    sim.run(100);
    assert_eq!(sim.modes(), [Mode::Connecting, Mode::Live, Mode::Connecting, Mode::Live]);
}

#[test]
fn a_page_that_is_left_closes_everything_until_it_is_back() {
    for back in [Event::Restored, Event::Visible, Event::Online, Event::Watch] {
        for net in [Net::Works, Net::Refused] {
            let mut sim = Sim::watching(net);
            sim.run(10_000);
            let mode = sim.mode();
            sim.on(Event::Leaving);
            sim.run(600_000);
            assert_eq!(sim.mode(), mode);
            sim.net = Net::Works;
            assert!(opens(&sim.on(back)));
            sim.run(1_000);
            assert_eq!(sim.mode(), Mode::Live);
        }
    }
}

#[test]
fn offline_never_closes_a_transport_that_works() {
    let mut sim = Sim::watching(Net::Works);
    sim.run(1_000);
    sim.on(Event::Offline);
    sim.run(60_000);
    assert_eq!((sim.mode(), sim.attempts.len()), (Mode::Live, 1));

    let mut sim = Sim::watching(Net::Refused);
    sim.run(10_000);
    assert_eq!(sim.on(Event::Offline), [Action::StartPolling]);
    assert_eq!(sim.mode(), Mode::Polling);
    sim.polls_work = false;
    sim.run(3_100);
    assert_eq!(sim.mode(), Mode::Offline);
    sim.on(Event::Online);
    assert_eq!(sim.mode(), Mode::Unreachable);
}

#[test]
fn offline_before_the_start_is_reported_until_an_event_comes() {
    let mut sim = Sim::new(Net::Works);
    sim.on(Event::Offline);
    sim.on(Event::Watch);
    sim.run(100);
    assert_eq!(sim.modes(), [Mode::Offline, Mode::Live]);
}

#[test]
fn when_polls_are_answered_again_a_stream_is_tried_at_once() {
    let mut sim = Sim::watching(Net::Refused);
    sim.polls_work = false;
    sim.run(20_000);
    assert_eq!(sim.mode(), Mode::Unreachable);
    (sim.net, sim.polls_work) = (Net::Works, true);
    sim.run(3_100);
    assert_eq!(sim.mode(), Mode::Live);
}

#[test]
fn idle_closes_everything_and_watch_starts_again() {
    for net in [Net::Works, Net::Refused, Net::Hangs, Net::Buffered] {
        let mut sim = Sim::watching(net);
        sim.run(20_000);
        sim.on(Event::Idle);
        assert_eq!(sim.mode(), Mode::Off);
        sim.run(600_000);
        sim.net = Net::Works;
        sim.on(Event::Watch);
        assert_eq!(sim.attempts.last(), Some(&620_000));
        sim.run(100);
        assert_eq!(sim.mode(), Mode::Live);
    }
}

#[test]
fn failures_are_remembered_while_idle() {
    let mut sim = Sim::watching(Net::Hangs);
    sim.run(20_000);
    sim.on(Event::Idle);
    let actions = sim.on(Event::Watch);
    assert!(actions.contains(&Action::StartPolling) && opens(&actions), "{actions:?}");
}

#[test]
fn a_proxy_that_buffers_or_corrupts_compressed_streams_costs_one_attempt() {
    for (net, longest, polls) in [(Net::BuffersCompressed, 5_000, 1), (Net::CorruptsCompressed, 1_000, 0)] {
        let mut sim = Sim::watching(net);
        sim.run(longest);
        assert_eq!((sim.mode(), sim.polls.len(), sim.poll), (Mode::Live, polls, None));
        // It stays so however often the stream ends, and after a healthy minute.
        for _ in 0..3 {
            sim.run(100_000);
            sim.on(Event::Bye(Bye::Lifetime));
            sim.run(1_000);
            assert_eq!(sim.mode(), Mode::Live);
        }
        assert_eq!(sim.compressed, [true, false, false, false, false], "{net:?}");
    }
}

#[test]
fn after_a_stream_that_delivered_the_next_is_compressed_too() {
    let mut sim = Sim::watching(Net::Disconnects);
    sim.run(120_000);
    assert!(sim.compressed.len() > 3 && sim.compressed.iter().all(|compressed| *compressed), "{:?}", sim.compressed);
    let mut sim = Sim::watching(Net::Works);
    sim.run(1_000);
    sim.net = Net::Hangs;
    sim.timers.remove(&Timer::Silence);
    sim.on(Event::Timer(Timer::Silence));
    sim.run(1_000);
    assert_eq!(sim.compressed, [true, true]);
}

#[test]
fn after_an_outage_streams_are_compressed_again() {
    let mut sim = Sim::watching(Net::Works);
    sim.run(1_000);
    (sim.net, sim.polls_work) = (Net::Refused, false);
    sim.on(Event::Failed);
    sim.run(20_000);
    assert_eq!(sim.compressed, [true, true, false], "compression may be the cause, until polls fail too");
    (sim.net, sim.polls_work) = (Net::Works, true);
    sim.run(40_000);
    assert_eq!((sim.mode(), sim.compressed.last()), (Mode::Live, Some(&true)));
}

#[test]
fn events_that_come_too_late_change_nothing() {
    let mut sim = Sim::watching(Net::Refused);
    sim.run(10);
    for event in [
        Event::Failed,
        Event::Message,
        Event::Opened,
        Event::Bye(Bye::Limit),
        Event::PollAnswered,
        Event::PollFailed,
        Event::PollRefused,
        Event::Promise(4),
    ] {
        assert_eq!(sim.on(event), [], "{event:?}");
    }
    for timer in [Timer::FirstEvent, Timer::Silence, Timer::Healthy] {
        assert_eq!(sim.on(Event::Timer(timer)), [], "{timer:?}");
    }
}

#[test]
fn valid_overrides_are_used_and_others_ignored() {
    let d = Timing::default();
    assert_eq!(Timing::with_overrides(""), d);
    assert_eq!(
        Timing::with_overrides("first=400, silence = 2000,poll=300,retry=1500"),
        Timing { first: 400, silence: 2_000, poll: 300, retry: 1_500, ..d }
    );
    assert_eq!(
        Timing::with_overrides("base=20,cap=30,healthy=40,spacing=50,tries=1"),
        Timing { base: 20, cap: 30, healthy: 40, spacing: 50, tries: 1, ..d }
    );
    assert_eq!(Timing::with_overrides("beat=900"), Timing { beat: 900, ..d });
    assert_eq!(Timing::with_overrides("first=,poll=-1,retry=x,,=,a=b,first"), d);
    assert_eq!(Timing::with_overrides("poll=0,tries=0"), Timing { poll: Timing::SHORTEST, tries: 1, ..d });
}

fn timer() -> impl Strategy<Value = Timer> {
    prop::sample::select(vec![Timer::FirstEvent, Timer::Silence, Timer::Retry, Timer::Healthy, Timer::Spacing])
}

fn bye() -> impl Strategy<Value = Bye> {
    prop::sample::select(vec![Bye::Shutdown, Bye::Lifetime, Bye::Limit, Bye::Polling, Bye::Other])
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => Just(Event::Watch),
        1 => Just(Event::Idle),
        2 => Just(Event::Opened),
        3 => Just(Event::Message),
        2 => bye().prop_map(Event::Bye),
        4 => Just(Event::Failed),
        3 => timer().prop_map(Event::Timer),
        8 => prop::sample::select(vec![Event::Hidden, Event::Visible, Event::Online, Event::Offline, Event::Restored]),
        1 => Just(Event::Leaving),
        3 => prop::sample::select(vec![Event::PollAnswered, Event::PollFailed, Event::PollRefused]),
        2 => (0u32..40).prop_map(Event::Promise),
        2 => any::<bool>().prop_map(Event::Streams),
    ]
}

fn net() -> impl Strategy<Value = Net> {
    prop_oneof![
        prop::sample::select(vec![
            Net::Works,
            Net::Refused,
            Net::Hangs,
            Net::Buffered,
            Net::Disconnects,
            Net::BuffersCompressed,
            Net::CorruptsCompressed,
        ]),
        bye().prop_map(Net::SaysBye),
    ]
}

proptest! {
    /// Any order of events, even an impossible one: `Sim` checks that a transport is open or a timer will open one, and that
    /// the mode is reported only when it changes.
    #[test]
    fn any_order_of_events_keeps_the_invariants(
        can_stream: bool,
        steps in prop::collection::vec((event(), net(), any::<bool>(), 0.0..=1.0, prop_oneof![Just(0), 0u64..60_000]), 0..60),
    ) {
        let mut sim = Sim::of(Link::new(Timing::default(), can_stream), Net::Works);
        // After these events the next attempt may come at once: they stop the Spacing timer, or this test fires it early.
        let mut restarts = 0;
        for (event, net, polls_work, random, ms) in steps {
            (sim.net, sim.polls_work, sim.random) = (net, polls_work, random);
            // A timer that has fired no longer runs.
            if let Event::Timer(timer) = event {
                sim.timers.remove(&timer);
            }
            restarts += usize::from(matches!(event, Event::Idle | Event::Leaving | Event::Timer(Timer::Spacing)));
            sim.on(event);
            sim.run(ms);
        }
        // That is at most 120 attempts in any minute, not counting restarts.
        let too_soon = sim.attempts.windows(2).filter(|w| w[1] - w[0] < 500).count();
        prop_assert!(too_soon <= restarts, "{too_soon} attempts too soon, {restarts} restarts");
        prop_assert!(can_stream || sim.attempts.is_empty());

        // Once the network works, the link returns to a stream from any state.
        (sim.net, sim.polls_work) = (Net::Works, true);
        sim.on(Event::Watch);
        sim.on(Event::Streams(true));
        // A stream that has promised more than this network sends fails once.
        sim.run(50_000);
        prop_assert_eq!(sim.mode(), if can_stream { Mode::Live } else { Mode::Polling });
        prop_assert_eq!(sim.poll.is_some(), !can_stream);

        sim.on(Event::Idle);
        prop_assert_eq!(sim.mode(), Mode::Off);
        let attempts = sim.attempts.len();
        sim.run(600_000);
        prop_assert_eq!(sim.attempts.len(), attempts);
    }

    /// During ten minutes of one kind of failure there are few attempts, and polling delivers.
    #[test]
    fn a_network_that_keeps_failing_sees_few_attempts(
        net in net().prop_filter("fails", |n| !matches!(n, Net::Works | Net::BuffersCompressed | Net::CorruptsCompressed)),
        random in 0.0..=1.0,
    ) {
        let mut sim = Sim::watching(net);
        sim.random = random;
        sim.run(600_000);
        prop_assert!(sim.attempts.len() <= 3 + 600 / 27 + 1, "{}", sim.attempts.len());
        prop_assert!(sim.reports.iter().any(|r| r.1 == Mode::Polling));
    }
}
