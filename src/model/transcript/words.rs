//! The words of a segment with their times, for whoever cuts a transcript differently than the engine did. Pure; used by
//! `paragraphs` and `subtitles`.

use crate::model::Segment;

/// A word, or a character of a script that has no spaces, with the punctuation that belongs to it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Piece<'a> {
    pub(super) text: &'a str,
    /// Seconds from the start of the recording, within the segment; the starts of a segment's pieces never fall.
    pub(super) start: f64,
    pub(super) end: f64,
    /// Whether the engine isn't sure of it.
    pub(super) unsure: bool,
    /// Whether white space stands before it.
    pub(super) spaced: bool,
}

/// Divides a segment's text. The times are those of the engine's words if these are the words of the text; otherwise the
/// segment's time is shared out by characters.
pub(super) fn pieces(segment: &Segment) -> Vec<Piece<'_>> {
    let times = char_times(segment);
    let mut pieces = Vec::new();
    // The number of characters before, without white space.
    let mut at = 0;
    for (position, word) in segment.text.split_whitespace().enumerate() {
        let unsure = u16::try_from(position).is_ok_and(|position| segment.unsure.contains(&position));
        let mut spaced = position > 0;
        for text in unspaced_parts(word) {
            let length = text.chars().count();
            let start = times.get(at).map_or(segment.start, |(start, _)| *start);
            let end = times.get(at + length - 1).map_or(start, |(_, end)| *end);
            pieces.push(Piece { text, start, end: end.max(start), unsure, spaced });
            at += length;
            spaced = false;
        }
    }
    pieces
}

/// The start and the end of each character of the text but white space.
fn char_times(segment: &Segment) -> Vec<(f64, f64)> {
    let visible = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<Vec<char>>();
    let text = visible(&segment.text);
    let mut times = Vec::with_capacity(text.len());
    let mut spoken = Vec::with_capacity(text.len());
    for word in &segment.words {
        let chars = visible(&word.text);
        share_out(&mut times, word.start, word.end, chars.len());
        spoken.extend(chars);
    }
    if spoken != text {
        times.clear();
        share_out(&mut times, segment.start, segment.end, text.len());
    }
    let (first, last) = (segment.start, segment.end.max(segment.start));
    let mut latest = first;
    for (start, end) in &mut times {
        *start = start.clamp(first, last).max(latest);
        *end = end.clamp(first, last).max(*start);
        latest = *start;
    }
    times
}

fn share_out(times: &mut Vec<(f64, f64)>, start: f64, end: f64, count: usize) {
    let step = (end - start).max(0.0) / count.max(1) as f64;
    times.extend((0..count).map(|n| (start + step * n as f64, start + step * (n + 1) as f64)));
}

/// Divides a word between characters of scripts without spaces, except before closing and after opening punctuation.
fn unspaced_parts(word: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut begin = 0;
    let mut before: Option<char> = None;
    for (at, c) in word.char_indices() {
        if let Some(before) = before
            && (is_unspaced(before) || is_unspaced(c))
            && !never_first(c)
            && !OPENING.contains(before)
        {
            parts.push(&word[begin..at]);
            begin = at;
        }
        before = Some(c);
    }
    parts.push(&word[begin..]);
    parts
}

const OPENING: &str = "「『【〈《〔（［｛“‘([{«";
/// Small kana and signs that belong to the character before them.
const BOUND: &str = "ーゝゞヽヾ々〻ぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮヵヶ";

/// Whether no line may begin with this character.
fn never_first(c: char) -> bool {
    BOUND.contains(c)
        || "、。，．・：；？！」』】〉》〕）］｝”’…‥〜～".contains(c)
        || (c.is_ascii_punctuation() && !OPENING.contains(c))
        // Combining marks and selectors of variants.
        || matches!(c, '\u{300}'..='\u{36f}' | '\u{3099}'..='\u{309a}' | '\u{fe00}'..='\u{fe0f}' | '\u{200d}')
}

/// Whether a character belongs to Chinese or Japanese writing, where a line may end after any character.
fn is_unspaced(c: char) -> bool {
    matches!(c, '\u{2e80}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}'
        | '\u{f900}'..='\u{faff}' | '\u{ff01}'..='\u{ff60}' | '\u{20000}'..='\u{3ffff}')
}

/// What a piece ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ends {
    Sentence,
    Clause,
    Nothing,
}

/// Tells what ends with a piece, by its punctuation and the piece that follows.
pub(super) fn ends(piece: &Piece<'_>, next: Option<&Piece<'_>>) -> Ends {
    let text = piece.text.trim_end_matches(['"', '\'', '”', '’', '»', ')', ']', '」', '』', '）']);
    let Some(last) = text.chars().last() else { return Ends::Nothing };
    match last {
        '!' | '?' | '…' | '。' | '！' | '？' | '؟' | '۔' | '।' => Ends::Sentence,
        '.' => {
            let small =
                next.and_then(|next| next.text.chars().find(|c| c.is_alphanumeric())).is_some_and(char::is_lowercase);
            if small || is_abbreviation(text) { Ends::Nothing } else { Ends::Sentence }
        }
        ',' | ';' | ':' | '–' | '—' | '،' | '؛' | '、' | '，' | '；' | '：' => Ends::Clause,
        _ => Ends::Nothing,
    }
}

/// Whether a word with a full stop is a title or an initial, so that the sentence goes on.
fn is_abbreviation(word: &str) -> bool {
    const KNOWN: [&str; 13] = ["dr", "mr", "mrs", "ms", "prof", "st", "sr", "jr", "vs", "nr", "ca", "bzw", "hr"];
    let stem = word.trim_end_matches('.').trim_start_matches(|c: char| !c.is_alphanumeric());
    let mut chars = stem.chars();
    let is_initial = matches!((chars.next(), chars.next()), (Some(c), None) if c.is_uppercase());
    is_initial || KNOWN.contains(&stem.to_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Word;

    fn segment(text: &str, words: &[(&str, f64, f64)]) -> Segment {
        let word = |(text, start, end): &(&str, f64, f64)| Word {
            text: (*text).to_owned(),
            start: *start,
            end: *end,
            confidence: None,
        };
        Segment { words: words.iter().map(word).collect(), unsure: vec![1], ..Segment::new(0, 1.0, 5.0, text) }
    }

    fn timed(segment: &Segment) -> Vec<(&str, f64, f64)> {
        pieces(segment).into_iter().map(|p| (p.text, p.start, p.end)).collect()
    }

    #[test]
    fn words_have_the_times_of_the_engine() {
        let exact = segment("on my farm", &[("on", 1.0, 1.5), ("my", 1.5, 2.0), ("farm", 3.0, 4.5)]);
        assert_eq!(timed(&exact), [("on", 1.0, 1.5), ("my", 1.5, 2.0), ("farm", 3.0, 4.5)]);
        // An engine may divide words differently from the white space.
        let parts = segment("on my farm", &[("on", 1.0, 1.5), ("my", 1.5, 2.0), ("fa", 3.0, 3.5), ("rm", 4.0, 4.5)]);
        assert_eq!(timed(&parts), [("on", 1.0, 1.5), ("my", 1.5, 2.0), ("farm", 3.0, 4.5)]);
        // Times outside the segment, and those that go back, are cut.
        let wrong = segment("on my farm", &[("on", 0.0, 3.0), ("my", 2.0, 1.0), ("farm", 1.5, 99.0)]);
        assert_eq!(timed(&wrong), [("on", 1.0, 3.0), ("my", 2.0, 2.0), ("farm", 2.0, 5.0)]);
    }

    #[test]
    fn without_words_the_time_is_shared_out_by_characters() {
        let expected = [("ab", 1.0, 2.0), ("cdef", 2.0, 4.0), ("gh", 4.0, 5.0)];
        assert_eq!(timed(&segment("ab cdef gh", &[])), expected);
        // The words of the engine aren't those of the text.
        assert_eq!(timed(&segment("ab cdef gh", &[("x", 1.0, 1.5)])), expected);
        assert!(timed(&segment(" ", &[])).is_empty());
    }

    #[test]
    fn a_script_without_spaces_is_divided_by_characters() {
        let of = |text: &'static str| unspaced_parts(text);
        assert_eq!(of("今日は「晴れ」です。"), ["今", "日", "は", "「晴", "れ」", "で", "す。"]);
        assert_eq!(of("ラーメンを2杯"), ["ラー", "メ", "ン", "を", "2", "杯"]);
        assert_eq!(of("don't"), ["don't"]);
        assert_eq!(of("안녕하세요"), ["안녕하세요"]);
        let japanese = segment("今日は Rust です", &[]);
        let spaced: Vec<_> = pieces(&japanese).iter().map(|p| (p.text, p.spaced, p.unsure)).collect();
        assert_eq!(
            spaced[..4],
            [("今", false, false), ("日", false, false), ("は", false, false), ("Rust", true, true)]
        );
    }

    #[test]
    fn sentences_and_clauses_are_recognised() {
        let all = |text: &str| {
            let segment = segment(text, &[]);
            let pieces = pieces(&segment);
            (0..pieces.len()).map(|n| ends(&pieces[n], pieces.get(n + 1))).collect::<Vec<_>>()
        };
        use Ends::{Clause, Nothing, Sentence};
        assert_eq!(all("Well, he said. Yes"), [Clause, Nothing, Sentence, Nothing]);
        assert_eq!(all("Dr. Smith met J. Bach."), [Nothing, Nothing, Nothing, Nothing, Sentence]);
        assert_eq!(all("approx. three (really?) yes"), [Nothing, Nothing, Sentence, Nothing]);
        assert_eq!(all("はい。"), [Nothing, Sentence]);
    }
}
