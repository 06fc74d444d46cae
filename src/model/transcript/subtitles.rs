//! Cues of subtitles: segments as they are, or cut so that each cue has few lines of limited length. Pure; used for SRT and
//! VTT.

use super::{
    LineLimits,
    words::{Ends, Piece, ends, pieces},
};
use crate::model::{Segment, speaker_label};
use unicode_width::UnicodeWidthStr;

/// The longest time for which a cue should be shown, and the shortest, in seconds, as guidelines for subtitles have it.
const LONG_CUE: f64 = 7.0;
const SHORT_CUE: f64 = 1.0;
/// Cues less than this apart, in seconds, follow each other without a gap, which would flicker.
const FLICKER: f64 = 0.25;
/// The longest silence within a cue, in seconds, unless cutting it would be worse.
const LONG_SILENCE: f64 = 1.0;
/// A silence after which a phrase ends, in seconds.
const PHRASE_PAUSE: f64 = 0.3;

/// A cue.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Cue {
    /// Seconds from the start of the recording.
    pub(super) start: f64,
    pub(super) end: f64,
    pub(super) speaker: Option<u16>,
    /// None of them is empty.
    pub(super) lines: Vec<String>,
}

/// A cue for each segment, in one line.
pub(super) fn uncut(segments: &[Segment], with_speaker: bool) -> Vec<Cue> {
    let mut cues = Vec::with_capacity(segments.len());
    for segment in segments {
        let words = named(segment, with_speaker).into_iter().chain(segment.text.split_whitespace().map(str::to_owned));
        let line = words.collect::<Vec<_>>().join(" ");
        if !segment.text.trim().is_empty() {
            cues.push(Cue { start: segment.start, end: segment.end, speaker: segment.speaker, lines: vec![line] });
        }
    }
    cues
}

/// Cues within these limits, in the order of their starts. Only a single word may be longer than a line.
pub(super) fn cut(segments: &[Segment], limits: LineLimits, with_speaker: bool) -> Vec<Cue> {
    let mut cues: Vec<Cue> = Vec::new();
    for segment in segments {
        cut_segment(segment, limits, named(segment, with_speaker), &mut cues);
    }
    // The lines of two speakers may overlap.
    cues.sort_by(|a, b| a.start.total_cmp(&b.start));
    cues
}

/// The name of the speaker, where the text itself has to say it.
fn named(segment: &Segment, with_speaker: bool) -> Option<String> {
    segment.speaker.filter(|_| with_speaker).map(|speaker| format!("{}:", speaker_label(speaker)))
}

fn cut_segment(segment: &Segment, limits: LineLimits, name: Option<String>, cues: &mut Vec<Cue>) {
    let mut all = pieces(segment);
    if all.is_empty() {
        return;
    }
    if let Some(name) = &name {
        all[0].spaced = true;
        let start = segment.start;
        all.insert(0, Piece { text: name, start, end: start, unsure: false, spaced: false });
    }
    let text = Text::new(&all, limits);
    let mut begin = 0;
    let first_cue = cues.len();
    for end in text.cues() {
        let (start, last) = (all[begin].start, all[end - 1].end);
        let start = if begin == 0 { segment.start } else { start };
        cues.push(Cue { start, end: last.max(start), speaker: segment.speaker, lines: text.lines(begin, end) });
        begin = end;
    }
    // The last one is shown as long as the segment, and none beyond the start of the next.
    let mut next = segment.end.max(segment.start);
    for (n, cue) in cues[first_cue..].iter_mut().rev().enumerate() {
        if n == 0 || next - cue.end < FLICKER {
            cue.end = next;
        }
        cue.end = cue.end.min(next).max(cue.start);
        next = cue.start;
    }
}

/// The pieces of a segment with what is needed to compare ways of cutting them.
struct Text<'a> {
    pieces: &'a [Piece<'a>],
    limits: LineLimits,
    /// The width of the pieces before each, with the spaces before them.
    before: Vec<usize>,
}

impl<'a> Text<'a> {
    fn new(pieces: &'a [Piece<'a>], limits: LineLimits) -> Self {
        let mut before = Vec::with_capacity(pieces.len() + 1);
        let mut width = 0;
        before.push(0);
        for piece in pieces {
            width += piece.text.width() + usize::from(piece.spaced);
            before.push(width);
        }
        Self { pieces, limits, before }
    }

    /// The width of these pieces in one line: wide characters, as of Chinese, count twice.
    fn width(&self, begin: usize, end: usize) -> usize {
        self.before[end] - self.before[begin] - usize::from(self.pieces[begin].spaced)
    }

    fn fits_line(&self, begin: usize, end: usize) -> bool {
        end == begin + 1 || self.width(begin, end) <= usize::from(self.limits.chars)
    }

    /// How bad it is to cut before this piece.
    fn badness(&self, at: usize) -> f64 {
        let (Some(next), Some(piece)) =
            (self.pieces.get(at), at.checked_sub(1).and_then(|before| self.pieces.get(before)))
        else {
            return 0.0;
        };
        match ends(piece, Some(next)) {
            Ends::Sentence => 0.0,
            Ends::Clause => 4.0,
            Ends::Nothing if next.start - piece.end >= PHRASE_PAUSE => 5.0,
            // Articles and prepositions belong to what follows.
            Ends::Nothing if piece.text.chars().count() <= 3 => 18.0,
            Ends::Nothing => 14.0,
        }
    }

    /// How bad it is that a line has these pieces, because it leaves room: lines of similar length look better.
    fn slack(&self, begin: usize, end: usize) -> f64 {
        let chars = f64::from(self.limits.chars);
        let free = (chars - self.width(begin, end) as f64).max(0.0) / chars;
        free * free * 8.0
    }

    /// The least cost of the lines of a cue that begins here, by how many pieces it has; infinite where they don't fit. The
    /// lines are as few as possible.
    fn layouts(&self, begin: usize) -> Vec<f64> {
        let most = self.pieces.len() - begin;
        let mut best: Vec<f64> = Vec::new();
        // The cost of what is before a line that begins after so many pieces.
        let mut starts: Vec<f64> = vec![0.0];
        for _ in 0..self.limits.lines {
            let mut ends: Vec<f64> = Vec::new();
            for (from, before) in starts.iter().enumerate().filter(|(_, cost)| cost.is_finite()) {
                let fits = |to: &usize| self.fits_line(begin + from, begin + to);
                for to in (from + 1..=most).take_while(fits) {
                    if ends.len() <= to {
                        ends.resize(to + 1, f64::INFINITY);
                    }
                    ends[to] = ends[to].min(before + self.slack(begin + from, begin + to));
                }
            }
            if best.len() < ends.len() {
                best.resize(ends.len(), f64::INFINITY);
            }
            for (best, cost) in best.iter_mut().zip(&ends) {
                if best.is_infinite() {
                    *best = *cost;
                }
            }
            starts = ends.iter().enumerate().map(|(to, cost)| cost + self.badness(begin + to)).collect();
        }
        best
    }

    /// Finds where the cues end: as few as possible, unless one more has better cuts.
    fn cues(&self) -> Vec<usize> {
        const EACH: f64 = 20.0;
        let n = self.pieces.len();
        // The silence before each piece, as far as it is longer than a cue should hold.
        let mut silence = vec![0.0; n];
        for at in 1..n {
            let gap = self.pieces[at].start - self.pieces[at - 1].end;
            silence[at] = silence[at - 1] + (gap - LONG_SILENCE).max(0.0);
        }
        // The least cost of the pieces from each on, and where the first cue ends for it.
        let mut best = vec![(f64::INFINITY, n); n + 1];
        best[n] = (0.0, n);
        for begin in (0..n).rev() {
            for (count, lines) in self.layouts(begin).into_iter().enumerate().filter(|(_, cost)| cost.is_finite()) {
                let end = begin + count;
                let time = self.pieces[end - 1].end - self.pieces[begin].start;
                let whole = begin == 0 && end == n;
                let long = (time - LONG_CUE).max(0.0) * 3.0;
                let short = if time < SHORT_CUE && !whole { 10.0 } else { 0.0 };
                let silent = (silence[end - 1] - silence[begin]) * 20.0;
                let cost = EACH + lines + self.badness(end) + long + short + silent + best[end].0;
                if cost < best[begin].0 {
                    best[begin] = (cost, end);
                }
            }
        }
        let mut cuts = Vec::new();
        let mut at = 0;
        while at < n {
            at = best[at].1;
            cuts.push(at);
        }
        cuts
    }

    /// The lines of a cue: as few as possible, of similar length, cut at phrases.
    fn lines(&self, begin: usize, end: usize) -> Vec<String> {
        let count = end - begin;
        // By the number of lines that are left: the least cost from each piece on, and where the first line ends for it.
        let mut best: Vec<Vec<(f64, usize)>> = vec![vec![(f64::INFINITY, end); count + 1]];
        best[0][count] = (0.0, end);
        for left in 1..=usize::from(self.limits.lines) {
            let mut row = vec![(f64::INFINITY, end); count + 1];
            for (from, found) in row.iter_mut().enumerate().take(count) {
                for (to, (rest, _)) in best[left - 1].iter().enumerate().skip(from + 1) {
                    if !self.fits_line(begin + from, begin + to) {
                        break;
                    }
                    let cut = if to < count { self.badness(begin + to) } else { 0.0 };
                    let cost = self.slack(begin + from, begin + to) + cut + rest;
                    if cost < found.0 {
                        *found = (cost, begin + to);
                    }
                }
            }
            best.push(row);
            if best[left][0].0.is_finite() {
                break;
            }
        }
        let mut lines = Vec::new();
        let mut at = begin;
        for row in best.iter().rev() {
            if at >= end {
                break;
            }
            let to = row[at - begin].1;
            lines.push(self.join(at, to));
            at = to;
        }
        lines
    }

    fn join(&self, begin: usize, end: usize) -> String {
        let mut line = String::new();
        for piece in &self.pieces[begin..end] {
            if piece.spaced && !line.is_empty() {
                line.push(' ');
            }
            line.push_str(piece.text);
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Word;
    use proptest::prelude::*;

    const LIMITS: LineLimits = LineLimits { lines: 2, chars: 42 };

    fn segment(start: f64, end: f64, text: &str) -> Segment {
        Segment::new(0, start, end, text)
    }

    fn lines(text: &str, limits: LineLimits) -> Vec<Vec<String>> {
        cut(&[segment(0.0, text.len() as f64 / 15.0, text)], limits, false).into_iter().map(|cue| cue.lines).collect()
    }

    #[test]
    fn short_segments_stay_as_they_are() {
        assert_eq!(lines("Hello  there.", LIMITS), [["Hello there."]]);
        assert_eq!(lines(" ", LIMITS), Vec::<Vec<String>>::new());
    }

    #[test]
    fn lines_end_with_phrases() {
        let text = "On a fine morning in May, she walked to the farm, where the old gate stood open. Nobody was there.";
        assert_eq!(
            lines(text, LIMITS),
            [
                vec!["On a fine morning in May,", "she walked to the farm,"],
                vec!["where the old gate stood open.", "Nobody was there."]
            ]
        );
        // No article stands at the end of a line.
        let text = "We planted a hundred trees along the road that leads to town";
        assert_eq!(lines(text, LIMITS), [vec!["We planted a hundred trees along", "the road that leads to town"]]);
    }

    #[test]
    fn wide_characters_count_twice() {
        let text = "今日はとても良い天気ですから、みんなで公園へ行って、お弁当を食べましょう。";
        for line in lines(text, LIMITS).concat() {
            assert!(line.width() <= 42, "{line}");
        }
        assert_eq!(lines(text, LIMITS).concat().concat(), text);
    }

    #[test]
    fn cues_have_the_times_of_their_words() {
        let words = [("one,", 0.0, 1.0), ("two,", 4.0, 5.0), ("three,", 5.0, 5.9), ("four", 6.0, 7.0)];
        let words = words.map(|(text, start, end)| Word { text: text.to_owned(), start, end, confidence: None });
        let one = Segment { words: words.to_vec(), ..segment(0.0, 8.0, "one, two, three, four") };
        let cues = cut(&[one], LineLimits { lines: 1, chars: 12 }, false);
        let found: Vec<_> = cues.iter().map(|cue| (cue.start, cue.end, cue.lines.join("|"))).collect();
        // A cue ends where the next begins if that is soon; the last ends with the segment.
        assert_eq!(
            found,
            [(0.0, 1.0, "one,".to_owned()), (4.0, 5.0, "two,".to_owned()), (5.0, 8.0, "three, four".to_owned())]
        );
    }

    #[test]
    fn the_name_of_a_speaker_is_part_of_the_first_line() {
        let one = Segment { speaker: Some(1), ..segment(0.0, 2.0, "hello there my friend") };
        let cues = cut(std::slice::from_ref(&one), LineLimits { lines: 1, chars: 20 }, true);
        assert_eq!(
            cues.iter().map(|cue| cue.lines.join("|")).collect::<Vec<_>>(),
            ["Speaker 1: hello", "there my friend"]
        );
        assert_eq!(cut(&[one], LIMITS, false)[0].lines, ["hello there my friend"]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_no_line_is_too_long(
            texts in proptest::collection::vec(("([a-zA-Z]{1,14}[,.!?]? ?|[今日は「」。]{1,9} ?| ){0,30}", 0.0..4.0f64, 0.0..30.0f64), 1..6),
            max_lines in 1u8..4, chars in 16u8..60, apart in any::<bool>(),
        ) {
            let limits = LineLimits { lines: max_lines, chars };
            // The lines of two speakers may overlap, but not those of one.
            let (mut at, mut ends) = (0.0, [0.0, 0.0]);
            let segments: Vec<Segment> = texts.iter().zip(0..).map(|((text, gap, length), n)| {
                let own = if apart { n % 2 } else { 0 };
                at = (at + gap).max(ends[own]);
                ends[own] = at + length;
                let speaker = apart.then_some(if own == 0 { 1 } else { 2 });
                Segment { speaker, ..segment(at, at + length, text) }
            }).collect();
            let cues = cut(&segments, limits, false);
            let visible = |text: &str| text.split_whitespace().collect::<String>();
            // Cues of segments that overlap are in the order of their starts, so each speaker is compared alone.
            for speaker in [None, Some(1), Some(2)] {
                let of = cues.iter().filter(|cue| cue.speaker == speaker).flat_map(|cue| &cue.lines);
                let written: String = of.map(|line| visible(line)).collect();
                let said: String = segments.iter().filter(|s| s.speaker == speaker).map(|s| visible(&s.text)).collect();
                prop_assert_eq!(written, said);
            }
            for cue in &cues {
                prop_assert!((1..=usize::from(max_lines)).contains(&cue.lines.len()), "{:?}", cue);
                prop_assert!(cue.start <= cue.end, "{:?}", cue);
                for line in &cue.lines {
                    prop_assert!(!line.trim().is_empty() && line.trim() == line);
                    let one_word = pieces(&segment(0.0, 1.0, line)).len() == 1;
                    prop_assert!(line.width() <= usize::from(chars) || one_word, "{}", line);
                }
            }
            prop_assert!(cues.is_sorted_by(|a, b| a.start <= b.start));
            // Cues of one segment don't overlap.
            for s in &segments {
                let own = cut(std::slice::from_ref(s), limits, true);
                prop_assert!(own.windows(2).all(|pair| pair[0].end <= pair[1].start), "{:?}", own);
            }
        }
    }
}
