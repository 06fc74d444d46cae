//! Folds statuses and segments, in whatever order they come, into what a page shows. Pure.
//! Old and duplicate versions are ignored; segments are kept in order, and a gap can be asked for.
//! [`Gaps`] and [`Heard`] keep the books for `browser`: which gaps are being fetched, which sessions went unmentioned.

use crate::model::{Segment, SessionId, Status, Transcript};

/// What is known of one session.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// The newest status seen.
    pub status: Status,
    /// Segments 0, 1, 2, … without holes.
    pub segments: Vec<Segment>,
    /// Segments that came before one of lower index, in order.
    early: Vec<Segment>,
    /// Whether somebody shows the segments, so that missing ones matter.
    transcript: bool,
}

impl View {
    /// A view of a session whose segments aren't known, such as in a list.
    #[must_use]
    pub fn new(status: Status) -> Self {
        Self { status, segments: Vec::new(), early: Vec::new(), transcript: false }
    }

    /// A view of a session with the segments there are so far, for a page that shows them.
    #[must_use]
    pub fn of_transcript(status: Status, segments: Vec<Segment>) -> Self {
        let mut view = Self { transcript: true, ..Self::new(status) };
        segments.into_iter().for_each(|segment| view.segment(segment));
        view
    }

    /// Whether this was made from a transcript, if only from one without segments yet.
    #[must_use]
    pub fn has_transcript(&self) -> bool {
        self.transcript
    }

    /// Whether a status is newer than the one known.
    #[must_use]
    pub fn is_news(&self, status: &Status) -> bool {
        status.version > self.status.version
    }

    /// Takes in a status, unless it is old.
    pub fn status(&mut self, status: Status) {
        if self.is_news(&status) {
            self.status = status;
        }
    }

    fn known(&self, index: u32) -> Option<&Segment> {
        self.segments.get(index as usize).or_else(|| self.early.get(self.early_position(index).ok()?))
    }

    /// Where segment `index` stands among the early ones, or would have to stand.
    fn early_position(&self, index: u32) -> Result<usize, usize> {
        self.early.binary_search_by_key(&index, |segment| segment.index)
    }

    /// Whether segment `index` is still missing.
    #[must_use]
    pub fn lacks(&self, index: u32) -> bool {
        self.known(index).is_none()
    }

    /// Whether taking in a segment would change anything: it is missing, or known only as an event announced it,
    /// without words.
    #[must_use]
    pub fn wants(&self, segment: &Segment) -> bool {
        self.known(segment.index).is_none_or(|known| richness(segment) > richness(known))
    }

    /// Takes in a segment, unless it is known.
    pub fn segment(&mut self, segment: Segment) {
        if !self.wants(&segment) {
            return;
        }
        if let Some(known) = self.segments.get_mut(segment.index as usize) {
            *known = segment;
            return;
        }
        match self.early_position(segment.index) {
            Ok(known) => self.early[known] = segment,
            Err(position) => self.early.insert(position, segment),
        }
        let next = self.segments.len() as u32;
        let fits = self.early.iter().zip(next..).take_while(|(segment, next)| segment.index == *next).count();
        self.segments.extend(self.early.drain(..fits));
    }

    /// The index of the first missing segment, if the status counts more than are here.
    #[must_use]
    pub fn gap(&self) -> Option<u32> {
        let have = self.segments.len() as u32;
        let announced = self.early.last().map_or(0, |last| last.index + 1).max(self.status.segments);
        (announced > have).then_some(have)
    }

    /// Whether [`View::merge`] with `other` would change anything.
    #[must_use]
    pub fn would_change(&self, other: &Self) -> bool {
        self.is_news(&other.status)
            || (other.transcript && !self.transcript)
            || other.segments.iter().chain(&other.early).any(|segment| self.wants(segment))
    }

    /// Takes in all that `other` knows and this doesn't.
    pub fn merge(&mut self, other: Self) {
        self.status(other.status);
        self.transcript |= other.transcript;
        for segment in other.segments.into_iter().chain(other.early) {
            self.segment(segment);
        }
    }
}

impl From<Transcript> for View {
    fn from(transcript: Transcript) -> Self {
        Self::of_transcript(transcript.session.status, transcript.segments)
    }
}

/// How much a segment tells besides its text: an event leaves out what a fetch brings.
fn richness(segment: &Segment) -> (bool, bool) {
    (!segment.words.is_empty(), segment.confidence.is_some())
}

/// The fetches of missing segments: one at a time for each session.
#[derive(Debug, Default)]
pub struct Gaps {
    fetching: Vec<SessionId>,
}

/// Which segments to ask for: those with an index above `after`, or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    pub after: Option<u32>,
}

impl Gaps {
    /// What to fetch for a session whose transcript is shown; none if nothing is missing or a fetch is under way.
    /// [`Gaps::done`] must follow.
    #[must_use]
    pub fn begin(&mut self, view: &View) -> Option<Gap> {
        let first = view.gap()?;
        let id = view.status.session_id;
        let idle = !self.fetching.contains(&id);
        idle.then(|| {
            self.fetching.push(id);
            Gap { after: first.checked_sub(1) }
        })
    }

    /// The fetch has been answered, or given up.
    pub fn done(&mut self, id: SessionId) {
        self.fetching.retain(|fetching| *fetching != id);
    }
}

/// Which sessions a transport has mentioned lately. One that runs but goes unmentioned may have been deleted elsewhere,
/// or have ended while the machine slept, too long ago for a snapshot: it must be asked about.
#[derive(Debug, Default)]
pub struct Heard {
    mentioned: Vec<SessionId>,
    beats: u32,
}

impl Heard {
    /// Sessions are asked about that haven't been mentioned for this many heartbeats: a minute.
    pub const BEATS_UNMENTIONED: u32 = 4;

    /// A transport was opened: what is known may be old.
    pub fn restart(&mut self) {
        *self = Self::default();
    }

    /// A status of the session came.
    pub fn mention(&mut self, id: SessionId) {
        if !self.mentioned.contains(&id) {
            self.mentioned.push(id);
        }
    }

    /// A heartbeat came. Returns those of `running` to ask about: at the first one after an opening, whose snapshot has
    /// come before it, and then every [`Heard::BEATS_UNMENTIONED`] beats.
    #[must_use]
    pub fn beat(&mut self, running: &[SessionId]) -> Vec<SessionId> {
        let due = self.beats.is_multiple_of(Self::BEATS_UNMENTIONED);
        self.beats = self.beats.wrapping_add(1);
        if !due {
            return Vec::new();
        }
        let silent = self.silent(running);
        self.mentioned.clear();
        silent
    }

    /// Those of `running` that have not been mentioned.
    #[must_use]
    pub fn silent(&self, running: &[SessionId]) -> Vec<SessionId> {
        running.iter().filter(|id| !self.mentioned.contains(id)).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{State, Timestamp, Word};
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
            index,
            start,
            end: start + 1.0,
            text: format!("text {index}"),
            confidence: None,
            words: if with_words { words } else { Vec::new() },
        }
    }

    fn indexes(view: &View) -> Vec<u32> {
        view.segments.iter().map(|s| s.index).collect()
    }

    #[test]
    fn old_and_equal_versions_are_ignored() {
        let mut view = View::new(status(5, 0));
        for version in [4, 5] {
            let mut other = status(version, 9);
            other.message = "old".to_owned();
            assert!(!view.is_news(&other));
            view.status(other);
        }
        assert_eq!(view.status, status(5, 0));
        view.status(status(6, 1));
        assert_eq!(view.status, status(6, 1));
    }

    #[test]
    fn segments_wait_for_those_before_them() {
        let mut view = View::new(status(1, 0));
        view.segment(segment(2, false));
        view.segment(segment(1, false));
        assert_eq!((indexes(&view), view.gap()), (vec![], Some(0)));
        assert!(view.lacks(0) && !view.lacks(1) && !view.lacks(2) && view.lacks(3));
        view.segment(segment(0, false));
        assert_eq!((indexes(&view), view.gap()), (vec![0, 1, 2], None));
    }

    #[test]
    fn words_replace_an_announcement_and_not_the_other_way_round() {
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
    fn a_gap_is_what_the_status_counts_and_the_view_lacks() {
        let mut view = View::new(status(1, 0));
        assert_eq!(view.gap(), None);
        view.segment(segment(0, false));
        assert_eq!(view.gap(), None);
        view.status(status(2, 3));
        assert_eq!(view.gap(), Some(1));
        view.segment(segment(2, false));
        assert_eq!(view.gap(), Some(1));
        view.segment(segment(1, false));
        assert_eq!(view.gap(), None);
    }

    #[test]
    fn a_gap_is_fetched_once_at_a_time() {
        let mut gaps = Gaps::default();
        let mut view = View::new(status(1, 2));
        assert_eq!(gaps.begin(&view), Some(Gap { after: None }));
        assert_eq!(gaps.begin(&view), None);
        view.segment(segment(0, false));
        assert_eq!(gaps.begin(&view), None);
        gaps.done(id(1));
        assert_eq!(gaps.begin(&view), Some(Gap { after: Some(0) }));
        gaps.done(id(1));
        view.segment(segment(1, false));
        assert_eq!(gaps.begin(&view), None);
    }

    #[test]
    fn a_merge_says_beforehand_whether_it_changes_anything() {
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
    fn sessions_that_went_unmentioned_are_asked_about_at_once_and_then_once_a_minute() {
        let (a, b) = (id(1), id(2));
        let mut heard = Heard::default();
        heard.mention(a);
        assert_eq!(heard.beat(&[a, b]), [b]);
        heard.mention(b);
        for _ in 1..Heard::BEATS_UNMENTIONED {
            assert_eq!(heard.beat(&[a, b]), []);
        }
        assert_eq!(heard.beat(&[a, b]), [a]);
        heard.restart();
        assert_eq!(heard.beat(&[a, b]), [a, b]);
        assert_eq!(heard.silent(&[b]), [b]);
    }

    #[derive(Clone, Debug)]
    enum Piece {
        Status(u64),
        Segment(u32, bool),
    }

    /// What the server sends up to version `n`: each status counts the segments sent before it.
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
        fn any_order_and_duplication_end_in_the_same_view(
            (one, other) in pieces().prop_flat_map(|pieces| {
                let twice: Vec<Piece> = pieces.iter().chain(&pieces).cloned().collect();
                (Just(pieces), Just(twice).prop_shuffle())
            }),
        ) {
            let (mut a, mut b) = (View::new(status(0, 0)), View::new(status(0, 0)));
            one.iter().for_each(|piece| take(&mut a, piece));
            other.iter().for_each(|piece| take(&mut b, piece));
            prop_assert_eq!(&a, &b);
            // And so does a merge of two views that each saw a part.
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
        fn versions_never_fall_segments_have_no_holes_and_gaps_are_right(pieces in pieces()) {
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
                prop_assert_eq!(view.gap(), (first_missing < announced).then_some(first_missing));
                prop_assert!((0..25).all(|i| view.lacks(i) != seen.contains(&i)));
            }
            // Fetching what is missing closes any gap at once.
            let mut gaps = Gaps::default();
            if let Some(gap) = gaps.begin(&view) {
                for index in gap.after.map_or(0, |n| n + 1)..25 {
                    view.segment(segment(index, true));
                }
                prop_assert_eq!(view.gap(), None);
            }
        }
    }
}
