//! What this node and the others saw of pages: streams that they opened and polls that they made. A report counts only if it
//! fits to that, and for no more time than has passed since the page's last one. `http` notes what it sees; the bus tells
//! the other nodes. In memory only: after a restart, a page is known again with its next stream or poll.

use super::page_tokens::Page;
use crate::model::{Arm, ConnectionReport, Timestamp};
use serde::{Deserialize, Serialize};
use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

/// The most pages that are remembered, at some 30 bytes each. Reports of more aren't counted.
const MAX_PAGES: usize = 100_000;
/// How long a poll is remembered, in minutes: pages poll every 3 seconds and report every minute.
const POLL_MINUTES: u16 = 3;
/// How long a page may have tried to connect before this node saw anything of it, in seconds: that counts too.
const UNSEEN_SECS: u32 = 15;

/// A minute since 1970, of which only the lower 16 bits are kept, which tell minutes apart that lie less than 22 days apart.
/// Tokens are valid for 7 days.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Minute(u16);

impl Minute {
    fn of(time: Timestamp) -> Self {
        Self((time.0 / 60_000) as u16)
    }

    fn plus(self, minutes: u16) -> Self {
        Self(self.0.wrapping_add(minutes))
    }

    /// Whether this minute lies before another one.
    fn is_before(self, other: Self) -> bool {
        self != other && other.0.wrapping_sub(self.0) < u16::MAX / 2
    }

    fn later(self, other: Self) -> Self {
        if self.is_before(other) { other } else { self }
    }
}

/// What is known of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    /// The time up to which its reports were counted, in seconds since 1970.
    counted: u32,
    /// Until which minute its streams and its polls count as seen.
    stream: Minute,
    poll: Minute,
    /// Whether its visit was counted, and its fallback to polling.
    visit: bool,
    fallback: bool,
}

impl Seen {
    fn merge(&mut self, other: &Self) {
        self.counted = self.counted.max(other.counted);
        self.stream = self.stream.later(other.stream);
        self.poll = self.poll.later(other.poll);
        self.visit |= other.visit;
        self.fallback |= other.fallback;
    }

    fn is_current(&self, now: Minute) -> bool {
        !self.stream.is_before(now) || !self.poll.is_before(now)
    }
}

/// What a node tells the others of a page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    page: u32,
    #[serde(flatten)]
    seen: Seen,
}

/// A way in which a page was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contact {
    /// It opened a stream that lasts for so many seconds at most.
    Stream {
        secs: u32,
    },
    Poll,
}

/// Why a report isn't counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// No node has seen the page do what it reports on.
    Unbound,
    /// The figures can't be so.
    Impossible(String),
}

#[derive(Debug, Default)]
struct Pages {
    seen: HashMap<u32, Seen>,
    swept: Option<Minute>,
}

/// The pages that were seen lately, and the bytes that were sent to pages.
#[derive(Debug, Default)]
pub struct Sightings {
    pages: Mutex<Pages>,
    /// Bytes sent to pages of each arm since they were last taken; whether a report has taken some since the last full minute;
    /// and whether there were some then.
    bytes: [AtomicU64; 2],
    reported: [AtomicBool; 2],
    waiting: [AtomicBool; 2],
}

impl Sightings {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a page was seen. Returns what the other nodes must be told, if that is new: at once when a page is first
    /// seen, then once a minute at most.
    pub fn note(&self, page: &Page, contact: Contact, now: Timestamp) -> Option<Sighting> {
        let minute = Minute::of(now);
        let mut pages = self.pages();
        let seen = pages.entry(page.id, minute, || {
            let made = u32::try_from(page.made.0 / 1000).unwrap_or_default();
            let ago = u32::try_from(now.0 / 1000).unwrap_or_default().saturating_sub(UNSEEN_SECS);
            // Seen as nothing until now.
            let never = minute.plus(u16::MAX);
            Seen { counted: made.max(ago), stream: never, poll: never, visit: false, fallback: false }
        })?;
        let before = *seen;
        match contact {
            Contact::Stream { secs } => {
                let minutes = u16::try_from(secs.div_ceil(60) + 1).unwrap_or(u16::MAX / 4);
                seen.stream = seen.stream.later(minute.plus(minutes));
            }
            Contact::Poll => seen.poll = seen.poll.later(minute.plus(POLL_MINUTES)),
        }
        (*seen != before).then_some(Sighting { page: page.id, seen: *seen })
    }

    /// Takes in what another node saw.
    pub fn hear(&self, sighting: &Sighting, now: Timestamp) {
        let mut pages = self.pages();
        if let Some(seen) = pages.entry(sighting.page, Minute::of(now), || sighting.seen) {
            seen.merge(&sighting.seen);
        }
    }

    /// Checks a report by what was seen of its page, and cuts it down to what fits into the time since the last one. Returns
    /// what the other nodes must be told.
    ///
    /// # Errors
    /// If the page wasn't seen, or the figures are impossible.
    pub fn take(&self, page: &Page, report: &mut ConnectionReport, now: Timestamp) -> Result<Sighting, Mismatch> {
        let minute = Minute::of(now);
        let mut pages = self.pages();
        let Some(seen) = pages.seen.get_mut(&page.id).filter(|seen| seen.is_current(minute)) else {
            return Err(Mismatch::Unbound);
        };
        if report.mode_ms.live > 0 && seen.stream.is_before(minute) {
            return Err(Mismatch::Unbound);
        }
        if report.mode_ms.polling > 0 && seen.poll.is_before(minute) {
            return Err(Mismatch::Unbound);
        }
        let elapsed_ms = now.0.saturating_sub(i64::from(seen.counted) * 1000);
        report.fit(elapsed_ms.max(0).unsigned_abs()).map_err(Mismatch::Impossible)?;
        report.first &= !seen.visit;
        report.fell_back &= !seen.fallback;
        seen.visit |= report.first;
        seen.fallback |= report.fell_back;
        // Rounded, so that the parts of seconds cancel each other.
        seen.counted = u32::try_from((now.0 + 500) / 1000).unwrap_or_default();
        Ok(Sighting { page: page.id, seen: *seen })
    }

    /// Counts bytes that were sent to a page of this arm.
    pub fn add_bytes(&self, arm: Arm, bytes: usize) {
        self.bytes[arm as usize].fetch_add(bytes as u64, Relaxed);
    }

    /// The bytes sent to pages of this arm since they were last taken, for a report of one of these pages.
    #[must_use]
    pub fn take_bytes(&self, arm: Arm) -> u64 {
        self.reported[arm as usize].store(true, Relaxed);
        self.bytes[arm as usize].swap(0, Relaxed)
    }

    /// The bytes sent to pages of an arm that nobody here reports for, because the pages send their reports to another node, or
    /// were left without one: those that were there at the last call too, if no report has come since. Called at each full
    /// minute; a page reports as often.
    #[must_use]
    pub fn take_unreported(&self, arm: Arm) -> u64 {
        let bytes = &self.bytes[arm as usize];
        let reported = self.reported[arm as usize].swap(false, Relaxed);
        let waited = self.waiting[arm as usize].swap(false, Relaxed);
        if waited && !reported {
            return bytes.swap(0, Relaxed);
        }
        self.waiting[arm as usize].store(bytes.load(Relaxed) > 0, Relaxed);
        0
    }
}

impl Pages {
    /// What is known of a page, `new` if nothing is. None if there is no room for it.
    fn entry(&mut self, page: u32, now: Minute, new: impl FnOnce() -> Seen) -> Option<&mut Seen> {
        if self.swept != Some(now) {
            self.swept = Some(now);
            self.seen.retain(|_, seen| seen.is_current(now));
        }
        let full = self.seen.len() >= MAX_PAGES;
        match self.seen.entry(page) {
            Entry::Occupied(known) => Some(known.into_mut()),
            Entry::Vacant(_) if full => None,
            Entry::Vacant(free) => Some(free.insert(new())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ModeTimes;

    const START: Timestamp = Timestamp(1_790_000_010_000);
    const STREAM: Contact = Contact::Stream { secs: 360 };

    fn page(id: u32) -> Page {
        Page { id, made: START }
    }

    fn after(secs: f64) -> Timestamp {
        START.plus_seconds(secs)
    }

    fn report(live: u32, polling: u32) -> ConnectionReport {
        ConnectionReport { mode_ms: ModeTimes { live, polling, ..Default::default() }, ..Default::default() }
    }

    fn taken(node: &Sightings, live: u32, polling: u32, secs: f64) -> Result<ModeTimes, Mismatch> {
        let mut report = report(live, polling);
        node.take(&page(1), &mut report, after(secs)).map(|_| report.mode_ms)
    }

    fn is_unbound(result: &Result<ModeTimes, Mismatch>) -> bool {
        matches!(result, Err(Mismatch::Unbound))
    }

    #[test]
    fn a_page_has_a_small_entry() {
        assert_eq!(size_of::<(u32, Seen)>(), 16);
    }

    #[test]
    fn a_report_needs_a_stream_or_polls_that_were_seen() {
        let node = Sightings::default();
        assert!(is_unbound(&taken(&node, 1_000, 0, 1.0)));
        assert!(node.note(&page(1), STREAM, after(0.0)).is_some());
        assert!(is_unbound(&taken(&node, 0, 1_000, 1.0)), "it didn't poll");
        assert_eq!(taken(&node, 1_000, 0, 1.0).unwrap().live, 1_000);
        assert!(node.note(&page(1), Contact::Poll, after(2.0)).is_some());
        assert_eq!(taken(&node, 0, 1_000, 3.0).unwrap().polling, 1_000);
        // Both are forgotten in time: polls first.
        assert!(is_unbound(&taken(&node, 0, 1_000, 300.0)));
        assert!(taken(&node, 1_000, 0, 400.0).is_ok());
        assert!(is_unbound(&taken(&node, 1_000, 0, 600.0)));
    }

    #[test]
    fn a_report_weighs_no_more_than_the_time_since_the_last_one() {
        let node = Sightings::default();
        node.note(&page(1), STREAM, after(0.0));
        assert!(matches!(taken(&node, 60_000, 0, 30.0), Err(Mismatch::Impossible(_))));
        assert_eq!(taken(&node, 31_000, 0, 30.0).unwrap().live, 30_000);
        assert_eq!(taken(&node, 10_000, 0, 30.0).unwrap().live, 0, "sent twice");
        assert!(matches!(taken(&node, 86_400_000, 0, 200.0), Err(Mismatch::Impossible(_))));
        // A page that was made long ago and is first seen now has no time before that.
        let old = Page { id: 2, made: after(-86_400.0) };
        node.note(&old, STREAM, after(0.0));
        assert!(node.take(&old, &mut report(60_000, 0), after(10.0)).is_err());
    }

    #[test]
    fn a_visit_and_its_fallback_count_once() {
        let node = Sightings::default();
        node.note(&page(1), STREAM, after(0.0));
        let flags = |secs| {
            let mut report = ConnectionReport { first: true, fell_back: true, ..report(1_000, 0) };
            node.take(&page(1), &mut report, after(secs)).unwrap();
            (report.first, report.fell_back)
        };
        assert_eq!([flags(20.0), flags(40.0)], [(true, true), (false, false)]);
    }

    #[test]
    fn nodes_know_what_others_saw_and_counted() {
        let (a, b) = (Sightings::default(), Sightings::default());
        let first = a.note(&page(1), STREAM, after(0.0)).unwrap();
        let wire = serde_json::to_string(&first).unwrap();
        b.hear(&serde_json::from_str(&wire).unwrap(), after(0.0));
        assert!(taken(&b, 10_000, 0, 10.0).is_ok());
        // A report that one node has counted counts for nothing at another.
        let told = b.take(&page(1), &mut report(10_000, 0), after(20.0)).unwrap();
        a.hear(&told, after(20.0));
        assert_eq!(taken(&a, 10_000, 0, 20.0).unwrap().live, 0);
        // What comes late takes nothing back.
        a.hear(&first, after(21.0));
        assert_eq!(taken(&a, 10_000, 0, 22.0).unwrap().live, 2_000);
    }

    #[test]
    fn other_nodes_are_told_at_once_and_then_once_a_minute() {
        let node = Sightings::default();
        let told: Vec<u32> =
            (0..300).filter(|secs| node.note(&page(1), Contact::Poll, after(f64::from(*secs))).is_some()).collect();
        // The first second lies in the middle of a minute.
        assert_eq!(told, [0, 30, 90, 150, 210, 270]);
    }

    #[test]
    fn the_number_of_pages_is_limited_and_old_ones_make_room() {
        let node = Sightings::default();
        for id in 0..MAX_PAGES as u32 + 10 {
            node.note(&page(id), Contact::Poll, START);
        }
        assert_eq!(node.pages().seen.len(), MAX_PAGES);
        assert!(node.note(&page(7), Contact::Poll, after(60.0)).is_some(), "a known one is still noted");
        node.note(&page(u32::MAX), Contact::Poll, after(240.0));
        assert_eq!(node.pages().seen.len(), 2);
    }

    #[test]
    fn minutes_are_compared_over_the_end_of_their_16_bits() {
        let last = Minute(u16::MAX);
        assert!(last.is_before(last.plus(1)) && !last.plus(1).is_before(last) && !last.is_before(last));
        assert_eq!(last.later(last.plus(3)), Minute(2));
    }

    #[test]
    fn bytes_are_handed_out_once() {
        let node = Sightings::default();
        node.add_bytes(Arm::Stream, 5);
        node.add_bytes(Arm::Stream, 7);
        node.add_bytes(Arm::Polling, 1);
        assert_eq!([Arm::Stream, Arm::Polling, Arm::Stream].map(|arm| node.take_bytes(arm)), [12, 1, 0]);
    }

    #[test]
    fn bytes_that_no_report_takes_are_counted_without_one() {
        let node = Sightings::default();
        node.add_bytes(Arm::Stream, 5);
        let minute = || [Arm::Stream, Arm::Polling].map(|arm| node.take_unreported(arm));
        assert_eq!([minute(), minute(), minute()], [[0, 0], [5, 0], [0, 0]], "a report would have come by now");
        node.add_bytes(Arm::Stream, 7);
        assert_eq!((minute(), node.take_bytes(Arm::Stream)), ([0, 0], 7));
        node.add_bytes(Arm::Stream, 9);
        // The first of these minutes is the one in which that report came.
        assert_eq!([minute(), minute()], [[0, 0], [9, 0]]);
    }
}
