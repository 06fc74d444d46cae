//! Reduces statuses and segments, in whatever order they come, to the view that a page shows. Pure; called by `browser`.
//! Old and duplicate versions are ignored; segments are kept in order, and missing ones can be asked for.
//! [`SegmentFetches`] and [`Mentions`] hold state for `browser`: which sessions' segments are being fetched, and which
//! sessions no transport has mentioned lately.

use crate::model::{Segment, SessionId, Status, Timestamp, Transcript};

/// What is known of one session.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// The newest status seen.
    pub status: Status,
    /// The segments from the transcript's first one on, without gaps.
    pub segments: Vec<Segment>,
    /// Segments that came before a segment of lower index, sorted by index.
    out_of_order: Vec<Segment>,
    /// Whether a page shows the segments, so that missing ones must be fetched.
    transcript: bool,
}

impl View {
    /// A view of a session whose segments aren't known, such as in a list.
    #[must_use]
    pub fn new(status: Status) -> Self {
        Self { status, segments: Vec::new(), out_of_order: Vec::new(), transcript: false }
    }

    /// A view of a session with its segments so far, for a page that shows them.
    #[must_use]
    pub fn of_transcript(status: Status, segments: Vec<Segment>) -> Self {
        let mut view = Self { transcript: true, ..Self::new(status) };
        segments.into_iter().for_each(|segment| view.segment(segment));
        view
    }

    /// Whether this view was made from a transcript, even if that has no segments yet.
    #[must_use]
    pub fn has_transcript(&self) -> bool {
        self.transcript
    }

    /// Whether a status is newer than the known one. One of the same version is if it counts more segments: some come without
    /// a status.
    #[must_use]
    pub fn is_newer(&self, status: &Status) -> bool {
        (status.version, status.segments) > (self.status.version, self.status.segments)
    }

    /// Whether a status says that the session was started again since the known one, which may have changed more of it: a newer
    /// status of a session that had ended, or that of another transcript.
    #[must_use]
    pub fn is_restarted(&self, status: &Status) -> bool {
        self.is_newer(status) && (self.status.state.is_terminal() || status.first_segment > self.first())
    }

    /// Takes in a status, unless it is old.
    pub fn status(&mut self, status: Status) {
        if self.is_newer(&status) {
            self.status = status;
            self.drop_replaced();
        }
    }

    /// The index of the transcript's first segment.
    #[must_use]
    pub fn first(&self) -> u32 {
        self.status.first_segment
    }

    /// Drops the segments of a transcript that was replaced.
    fn drop_replaced(&mut self) {
        let first = self.first();
        if self.segments.first().is_some_and(|segment| segment.index < first) {
            self.segments.retain(|segment| segment.index >= first);
        }
        self.out_of_order.retain(|segment| segment.index >= first);
        self.join();
    }

    /// Moves those segments out of order that are next.
    fn join(&mut self) {
        let next = self.first() + self.segments.len() as u32;
        let fits = self.out_of_order.iter().zip(next..).take_while(|(segment, next)| segment.index == *next).count();
        self.segments.extend(self.out_of_order.drain(..fits));
    }

    /// The position of segment `index` among the segments without gaps, if it belongs to this transcript.
    fn position(&self, index: u32) -> Option<usize> {
        index.checked_sub(self.first()).map(|position| position as usize)
    }

    fn known(&self, index: u32) -> Option<&Segment> {
        self.segments
            .get(self.position(index)?)
            .or_else(|| self.out_of_order.get(self.out_of_order_position(index).ok()?))
    }

    /// The position of segment `index` among the segments out of order, or the position at which to insert it.
    fn out_of_order_position(&self, index: u32) -> Result<usize, usize> {
        self.out_of_order.binary_search_by_key(&index, |segment| segment.index)
    }

    /// Whether segment `index` hasn't come yet.
    #[must_use]
    pub fn is_missing(&self, index: u32) -> bool {
        index >= self.first() && self.known(index).is_none()
    }

    /// Whether taking in a segment would change the view: the segment is missing, or is known only from its event, which has
    /// no words.
    #[must_use]
    pub fn wants(&self, segment: &Segment) -> bool {
        segment.index >= self.first() && self.known(segment.index).is_none_or(|known| detail(segment) > detail(known))
    }

    /// Takes in a segment, unless it is known.
    pub fn segment(&mut self, segment: Segment) {
        if !self.wants(&segment) {
            return;
        }
        let position = self.position(segment.index);
        if let Some(known) = position.and_then(|position| self.segments.get_mut(position)) {
            *known = segment;
            return;
        }
        match self.out_of_order_position(segment.index) {
            Ok(known) => self.out_of_order[known] = segment,
            Err(position) => self.out_of_order.insert(position, segment),
        }
        self.join();
    }

    /// The index of the first missing segment, if more segments were announced than have come.
    #[must_use]
    pub fn first_missing(&self) -> Option<u32> {
        let have = self.first() + self.segments.len() as u32;
        let announced = self.out_of_order.last().map_or(0, |last| last.index + 1).max(self.status.segments);
        (announced > have).then_some(have)
    }

    /// Whether [`View::merge`] with `other` would change anything.
    #[must_use]
    pub fn would_change(&self, other: &Self) -> bool {
        self.is_newer(&other.status)
            || (other.transcript && !self.transcript)
            || other.segments.iter().chain(&other.out_of_order).any(|segment| self.wants(segment))
    }

    /// Takes in everything in `other` that this view lacks.
    pub fn merge(&mut self, other: Self) {
        self.status(other.status);
        self.transcript |= other.transcript;
        for segment in other.segments.into_iter().chain(other.out_of_order) {
            self.segment(segment);
        }
    }
}

impl From<Transcript> for View {
    fn from(transcript: Transcript) -> Self {
        Self::of_transcript(transcript.session.status, transcript.segments)
    }
}

/// How much detail a segment has: events omit words and confidence, and fetched segments have them.
fn detail(segment: &Segment) -> (bool, bool) {
    (!segment.words.is_empty(), segment.confidence.is_some())
}

/// The fetches of missing segments that are under way: at most one for each session.
#[derive(Debug, Default)]
pub struct SegmentFetches {
    fetching: Vec<SessionId>,
}

/// The segments to fetch: those with an index above `after`, or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissingRange {
    pub after: Option<u32>,
}

impl SegmentFetches {
    /// Starts a fetch for a session whose transcript is shown. None if no segment is missing or a fetch is under way. The
    /// caller must call [`SegmentFetches::done`] afterwards.
    #[must_use]
    pub fn begin(&mut self, view: &View) -> Option<MissingRange> {
        let first = view.first_missing()?;
        let id = view.status.session_id;
        let idle = !self.fetching.contains(&id);
        idle.then(|| {
            self.fetching.push(id);
            MissingRange { after: first.checked_sub(1) }
        })
    }

    /// Ends a fetch that was answered or given up.
    pub fn done(&mut self, id: SessionId) {
        self.fetching.retain(|fetching| *fetching != id);
    }
}

/// The sessions that the transport has mentioned lately. A running session that isn't mentioned may have been deleted
/// elsewhere, or may have ended too long ago to be in a snapshot, while the machine slept. So its status must be fetched.
#[derive(Debug, Default)]
pub struct Mentions {
    mentioned: Vec<SessionId>,
    /// When the statuses of unmentioned sessions were last due.
    checked: Option<Timestamp>,
}

impl Mentions {
    /// The status of a session is fetched if it hasn't been mentioned for so many seconds.
    pub const UNMENTIONED_SECS: f64 = 60.0;

    /// Starts over, because a transport was opened and what is known may be old.
    pub fn restart(&mut self) {
        *self = Self::default();
    }

    /// Notes that a status of the session came.
    pub fn mention(&mut self, id: SessionId) {
        if !self.mentioned.contains(&id) {
            self.mentioned.push(id);
        }
    }

    /// Notes a heartbeat at the time `now` by the browser's clock. Returns those of `running` whose status must be fetched: at
    /// the first heartbeat after a transport was opened, which comes after the snapshot, and then once a minute.
    #[must_use]
    pub fn heartbeat(&mut self, running: &[SessionId], now: Timestamp) -> Vec<SessionId> {
        if self.checked.is_some_and(|checked| now.seconds_since(checked) < Self::UNMENTIONED_SECS) {
            return Vec::new();
        }
        self.checked = Some(now);
        let unmentioned = self.unmentioned(running);
        self.mentioned.clear();
        unmentioned
    }

    /// Those of `running` that haven't been mentioned.
    #[must_use]
    pub fn unmentioned(&self, running: &[SessionId]) -> Vec<SessionId> {
        running.iter().filter(|id| !self.mentioned.contains(id)).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{State, Word};
    use proptest::prelude::*;
    use uuid::Uuid;

    fn id(n: u128) -> SessionId {
        SessionId(Uuid::from_u128(n))
    }

    fn status(version: u64, segments: u32) -> Status {
        Status {
            version,
            message: format!("version {version}"),
            segments,
            ..Status::new(id(1), State::Processing, None, Timestamp(version as i64))
        }
    }

    fn segment(index: u32, with_words: bool) -> Segment {
        let start = f64::from(index);
        let words = vec![Word { text: format!("text {index}"), start, end: start + 1.0, confidence: None }];
        Segment {
            words: if with_words { words } else { Vec::new() },
            ..Segment::new(index, start, start + 1.0, &format!("text {index}"))
        }
    }

    fn indexes(view: &View) -> Vec<u32> {
        view.segments.iter().map(|s| s.index).collect()
    }

    #[test]
    fn old_and_equal_versions_are_ignored() {
        let mut view = View::new(status(5, 1));
        for (version, segments) in [(4, 9), (5, 0), (5, 1)] {
            let mut other = status(version, segments);
            other.message = "old".to_owned();
            assert!(!view.is_newer(&other));
            view.status(other);
        }
        assert_eq!(view.status, status(5, 1));
        // Counted again, after segments that came without a status.
        view.status(status(5, 3));
        assert_eq!((&view.status, view.first_missing()), (&status(5, 3), Some(0)));
        view.status(status(6, 1));
        assert_eq!(view.status, status(6, 1));
    }

    #[test]
    fn a_restart_is_seen_from_any_status_after_it() {
        let running = View::new(status(5, 2));
        let replaced = |version| Status { first_segment: 2, ..status(version, 2) };
        assert!(!running.is_restarted(&status(6, 3)) && !running.is_restarted(&replaced(4)));
        assert!(running.is_restarted(&replaced(6)));
        let mut ended = running.clone();
        ended.status(Status { state: State::Cancelled, ..status(6, 2) });
        assert!(!ended.is_restarted(&ended.status));
        assert!(ended.is_restarted(&Status { state: State::Queued, ..status(7, 2) }));
        // What came in between was missed.
        assert!(ended.is_restarted(&Status { state: State::Completed, ..status(9, 2) }));
    }

    #[test]
    fn segments_out_of_order_wait_for_those_before_them() {
        let mut view = View::new(status(1, 0));
        view.segment(segment(2, false));
        view.segment(segment(1, false));
        assert_eq!((indexes(&view), view.first_missing()), (vec![], Some(0)));
        assert!(view.is_missing(0) && !view.is_missing(1) && !view.is_missing(2) && view.is_missing(3));
        view.segment(segment(0, false));
        assert_eq!((indexes(&view), view.first_missing()), (vec![0, 1, 2], None));
    }

    #[test]
    fn a_segment_with_words_replaces_one_without_and_not_the_reverse() {
        let mut view = View::new(status(1, 0));
        for index in [0, 2] {
            view.segment(segment(index, false));
            view.segment(segment(index, true));
            assert!(!view.wants(&segment(index, false)));
            view.segment(segment(index, false));
        }
        view.segment(segment(1, false));
        assert_eq!(view.segments, [segment(0, true), segment(1, false), segment(2, true)]);
    }

    #[test]
    fn the_first_missing_segment_is_found_from_the_status_and_from_later_segments() {
        let mut view = View::new(status(1, 0));
        assert_eq!(view.first_missing(), None);
        view.segment(segment(0, false));
        assert_eq!(view.first_missing(), None);
        view.status(status(2, 3));
        assert_eq!(view.first_missing(), Some(1));
        view.segment(segment(2, false));
        assert_eq!(view.first_missing(), Some(1));
        view.segment(segment(1, false));
        assert_eq!(view.first_missing(), None);
    }

    #[test]
    fn missing_segments_are_fetched_by_one_request_at_a_time() {
        let mut fetches = SegmentFetches::default();
        let mut view = View::new(status(1, 2));
        assert_eq!(fetches.begin(&view), Some(MissingRange { after: None }));
        assert_eq!(fetches.begin(&view), None);
        view.segment(segment(0, false));
        assert_eq!(fetches.begin(&view), None);
        fetches.done(id(1));
        assert_eq!(fetches.begin(&view), Some(MissingRange { after: Some(0) }));
        fetches.done(id(1));
        view.segment(segment(1, false));
        assert_eq!(fetches.begin(&view), None);
    }

    #[test]
    fn a_replaced_transcript_is_dropped_whatever_comes_first() {
        let old = [0, 1, 2].map(|index| segment(index, true));
        let replaced = Status { first_segment: 3, ..status(5, 3) };
        let new = [segment(3, true), segment(4, true)];
        let mut view = View::of_transcript(status(4, 3), old.to_vec());
        view.status(replaced.clone());
        assert_eq!((view.segments.len(), view.first_missing()), (0, None));
        // What is left of the old one comes late.
        assert!(!view.wants(&old[1]) && !view.is_missing(1) && view.is_missing(3));
        view.segment(old[1].clone());
        view.segment(new[0].clone());
        assert_eq!(view.segments, new[..1]);
        view.status(Status { first_segment: 3, ..status(6, 5) });
        assert_eq!(view.first_missing(), Some(4));
        // The new one's first lines come before the status that says it is new.
        let mut early = View::of_transcript(status(4, 3), old.to_vec());
        new.iter().for_each(|segment| early.segment(segment.clone()));
        early.status(replaced);
        assert_eq!(early.segments, new);
        let mut late = View::of_transcript(status(4, 3), old.to_vec());
        assert!(late.would_change(&early));
        late.merge(early.clone());
        assert_eq!(late, early);
    }

    #[test]
    fn would_change_tells_what_a_merge_does() {
        let mut list = View::new(status(1, 1));
        let mut page = list.clone();
        page.transcript = true;
        assert!(list.would_change(&page) && !page.would_change(&list));
        page.segment(segment(0, false));
        list.merge(page.clone());
        assert_eq!(list, page);
        assert!(!list.would_change(&page));
        page.segment(segment(4, false));
        assert!(list.would_change(&page));
    }

    #[test]
    fn unmentioned_sessions_are_returned_at_the_first_heartbeat_and_then_once_a_minute() {
        let (a, b) = (id(1), id(2));
        let mut mentions = Mentions::default();
        let at = |secs: i64| Timestamp(secs * 1000);
        mentions.mention(a);
        assert_eq!(mentions.heartbeat(&[a, b], at(0)), [b]);
        mentions.mention(b);
        // However often the heartbeats come.
        for secs in [3, 15, 45, 59] {
            assert_eq!(mentions.heartbeat(&[a, b], at(secs)), []);
        }
        assert_eq!(mentions.heartbeat(&[a, b], at(60)), [a]);
        mentions.restart();
        assert_eq!(mentions.heartbeat(&[a, b], at(61)), [a, b]);
        assert_eq!(mentions.unmentioned(&[b]), [b]);
    }

    #[derive(Clone, Debug)]
    enum Piece {
        Status(u64),
        Segment(u32, bool),
    }

    /// The number of segments in the status of this version: each status counts the segments sent before it.
    fn count(version: u64) -> u32 {
        (version / 2) as u32
    }

    fn take(view: &mut View, piece: &Piece) {
        match *piece {
            Piece::Status(version) => view.status(status(version, count(version))),
            Piece::Segment(index, words) => view.segment(segment(index, words)),
        }
    }

    fn pieces() -> impl Strategy<Value = Vec<Piece>> {
        prop::collection::vec(
            prop_oneof![
                (1u64..40).prop_map(Piece::Status),
                (0u32..20, any::<bool>()).prop_map(|(index, words)| Piece::Segment(index, words)),
            ],
            0..60,
        )
    }

    proptest! {
        #[test]
        fn any_order_and_duplication_give_the_same_view(
            (one, other) in pieces().prop_flat_map(|pieces| {
                let twice: Vec<Piece> = pieces.iter().chain(&pieces).cloned().collect();
                (Just(pieces), Just(twice).prop_shuffle())
            }),
        ) {
            let (mut a, mut b) = (View::new(status(0, 0)), View::new(status(0, 0)));
            one.iter().for_each(|piece| take(&mut a, piece));
            other.iter().for_each(|piece| take(&mut b, piece));
            prop_assert_eq!(&a, &b);
            // A merge of two views that each saw a part gives the same view.
            let (half, rest) = one.split_at(one.len() / 2);
            let (mut c, mut d) = (View::new(status(0, 0)), View::new(status(0, 0)));
            half.iter().for_each(|piece| take(&mut c, piece));
            rest.iter().for_each(|piece| take(&mut d, piece));
            let changes = c.would_change(&d);
            let before = c.clone();
            c.merge(d);
            prop_assert_eq!(&a, &c);
            prop_assert_eq!(changes, before != c);
        }

        #[test]
        fn versions_never_fall_and_segments_have_no_gaps(pieces in pieces()) {
            let mut view = View::new(status(0, 0));
            let mut seen = std::collections::HashSet::new();
            for piece in &pieces {
                let before = view.status.version;
                take(&mut view, piece);
                if let Piece::Segment(index, _) = piece {
                    seen.insert(*index);
                }
                prop_assert!(view.status.version >= before);
                prop_assert!(view.segments.iter().enumerate().all(|(i, s)| s.index as usize == i));
                let first_missing = (0..).find(|i| !seen.contains(i)).unwrap();
                prop_assert_eq!(view.segments.len() as u32, first_missing);
                let announced = seen.iter().max().map_or(0, |i| i + 1).max(view.status.segments);
                prop_assert_eq!(view.first_missing(), (first_missing < announced).then_some(first_missing));
                prop_assert!((0..25).all(|i| view.is_missing(i) != seen.contains(&i)));
            }
            // One fetch brings everything that is missing.
            let mut fetches = SegmentFetches::default();
            if let Some(range) = fetches.begin(&view) {
                for index in range.after.map_or(0, |n| n + 1)..25 {
                    view.segment(segment(index, true));
                }
                prop_assert_eq!(view.first_missing(), None);
            }
        }
    }
}
