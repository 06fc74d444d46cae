//! Divides a recording into windows for Whisper, which hears 30 s at once, whatever it is given. A window holds speech;
//! long silences are left out, and it ends at a pause. Pure. Called by `child`.

use std::{collections::VecDeque, ops::Range};

/// Samples in a frame: 32 ms, for which the voice detector gives a probability.
pub(super) const FRAME: usize = 512;
/// Frames in a second.
const RATE: f64 = 16_000.0 / FRAME as f64;

/// A frame from this probability on may belong to speech. Low, because a word that is left out is worse than a pause that
/// is heard; noise and music without voices stay below.
const MAYBE_SPEECH: f32 = 0.15;
/// A stretch of such frames is speech if so many of them, a tenth of a second, have this probability. Single frames of
/// music have it too.
const SPEECH: f32 = 0.5;
const SPEECH_FRAMES: usize = 3;
/// Frames below this probability may be a pause, in which a window can end.
const PAUSE: f32 = 0.35;
/// So may those below this share of the loudest frame in the window: the detector overlooks short pauses.
const QUIET_SHARE: f32 = 0.05;
/// Stretches of speech with at most so many frames between them are one stretch.
const JOINED: usize = 10;
/// Frames kept before and after speech, because the detector is late and Whisper needs to hear beginnings and endings.
const BEFORE: usize = 10;
const AFTER: usize = 12;
/// The longest silence within a window, besides what is kept around speech, in frames; longer ones are left out.
const LONGEST_SILENCE: usize = 20;
/// The shortest pause in which a window may end, in frames.
const SHORTEST_PAUSE: usize = 2;
/// Frames without speech that stay at the end of what was heard, because speech may just be beginning there.
const UNDECIDED: usize = 62;

/// The shortest speech without text at the end of a window that is worth another look, 2 s, and what must lie before it, 1 s,
/// so that there is an end to it. In frames.
const SHORTEST_REST: usize = 62;
const SHORTEST_HEARD: usize = 31;
/// The shortest window that is divided in two, 6 s, in frames.
const SHORTEST_DIVIDED: usize = 188;

/// How long windows are, in frames.
#[derive(Clone, Copy, Debug)]
struct Lengths {
    shortest: usize,
    longest: usize,
    /// A window ends at the first pause of this length.
    long_pause: usize,
}

/// The first window: 3 to 9 s, so that the first line is there soon.
const FIRST: Lengths = Lengths { shortest: 94, longest: 281, long_pause: 9 };
/// Those after it: 12 to 28.5 s, filled as far as they can be, because each costs Whisper the same.
const LATER: Lengths = Lengths { shortest: 375, longest: 890, long_pause: usize::MAX };
/// A remainder up to this length is divided in halves: Whisper makes more mistakes in a window of a word or two.
const DIVIDED: usize = 1_200;
/// How much the length of the pause counts beside the length of the window, when the place of a cut is chosen, and from
/// which length on pauses count the same, in frames.
const PAUSE_WEIGHT: f32 = 0.35;
const BEST_PAUSE: usize = 19;

/// A part of a window that is in one piece in the recording too, in samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    /// Where it is in the window.
    at: usize,
    /// Where it is in the recording.
    from: usize,
}

/// What Whisper hears at once.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) samples: Vec<i16>,
    /// Where the window ends in the recording, in samples.
    pub(super) end: usize,
    parts: Vec<Part>,
    /// The probability of speech for each frame.
    probabilities: Vec<f32>,
}

impl Window {
    /// Returns where the window begins in the recording, in samples.
    pub(super) fn start(&self) -> usize {
        self.parts.first().map_or(self.end, |part| part.from)
    }

    /// Converts a time in the window, in seconds, to the time in the recording. Times outside of the window are moved to
    /// its nearest end. Where a silence was left out, `is_end` chooses its beginning or its end.
    pub(super) fn time(&self, seconds: f64, is_end: bool) -> f64 {
        let at = ((seconds.max(0.0) * 16_000.0) as usize).min(self.samples.len());
        let part = self.parts.iter().rev().find(|part| part.at < at || (part.at == at && !is_end));
        let part = part.or(self.parts.first()).copied().unwrap_or(Part { at: 0, from: self.end });
        (part.from + (at - part.at)) as f64 / 16_000.0
    }

    /// Returns whether the detector has found speech between two times in the window, in seconds.
    pub(super) fn has_speech(&self, start: f64, end: f64) -> bool {
        // Whisper's times are not exact.
        self.speech_frames(frame(start - 0.3)..frame(end + 0.3)) > 0
    }

    /// How long somebody speaks between two times in the recording, in seconds.
    pub(super) fn spoken_secs(&self, start: f64, end: f64) -> f64 {
        let time = |frame: usize| self.time((frame as f64 + 0.5) / RATE, false);
        let frames = self.probabilities.iter().enumerate().filter(|(_, probability)| **probability >= SPEECH);
        frames.filter(|(frame, _)| (start..end).contains(&time(*frame))).count() as f64 / RATE
    }

    /// How long somebody speaks between two times in the window, in seconds.
    pub(super) fn speech_secs(&self, start: f64, end: f64) -> f64 {
        self.speech_frames(frame(start)..frame(end)) as f64 / RATE
    }

    /// In how many of these frames, of those that there are, somebody speaks.
    fn speech_frames(&self, frames: Range<usize>) -> usize {
        let frames = self.probabilities.iter().take(frames.end).skip(frames.start);
        frames.filter(|probability| **probability >= SPEECH).count()
    }

    /// Returns what follows a time in the window, in seconds, as a window of its own; none if hardly anybody speaks there.
    pub(super) fn rest(&self, seconds: f64) -> Option<Self> {
        let rest = frame(seconds).max(SHORTEST_HEARD)..self.probabilities.len();
        (self.speech_frames(rest.clone()) >= SHORTEST_REST).then(|| self.part(rest))
    }

    /// Divides the window in two, at the longest pause near its middle; none if it is too short for that.
    pub(super) fn halves(&self) -> Option<[Self; 2]> {
        let frames = self.probabilities.len();
        if frames < SHORTEST_DIVIDED {
            return None;
        }
        let silent = (frames / 4..frames * 3 / 4).filter(|at| self.probabilities[*at] < PAUSE);
        let longest = runs(silent).into_iter().max_by_key(Range::len);
        let at = longest.map_or(frames / 2, |pause| pause.start + pause.len() / 2);
        Some([self.part(0..at), self.part(at..frames)])
    }

    /// Some frames of the window as one of its own.
    fn part(&self, frames: Range<usize>) -> Self {
        let (from, to) = (frames.start * FRAME, (frames.end * FRAME).min(self.samples.len()));
        let first = self.parts.iter().rposition(|part| part.at <= from).unwrap_or_default();
        let inside = self.parts.iter().skip(first).take_while(|part| part.at < to);
        let parts: Vec<Part> = inside
            .map(|part| Part { at: part.at.saturating_sub(from), from: part.from + from.saturating_sub(part.at) })
            .collect();
        let end = if frames.end == self.probabilities.len() {
            self.end
        } else {
            parts.last().map_or(self.end, |part| part.from + (to - from - part.at))
        };
        Self {
            samples: self.samples[from..to].to_vec(),
            end,
            parts,
            probabilities: self.probabilities[frames].to_vec(),
        }
    }
}

/// Collects samples and returns windows.
#[derive(Debug)]
pub(super) struct Windows {
    samples: VecDeque<i16>,
    /// The probability of speech and the level for each frame in `samples` that was judged.
    frames: VecDeque<Frame>,
    /// Where `samples` begins in the recording.
    start: usize,
    lengths: Lengths,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    probability: f32,
    level: f32,
}

impl Windows {
    pub(super) fn new() -> Self {
        Self { samples: VecDeque::new(), frames: VecDeque::new(), start: 0, lengths: FIRST }
    }

    /// Adds samples, and the probability of speech for frames that were judged meanwhile.
    pub(super) fn push(&mut self, samples: &[i16], probabilities: &[f32]) {
        self.samples.extend(samples);
        for probability in probabilities {
            let from = self.frames.len() * FRAME;
            let to = (from + FRAME).min(self.samples.len());
            let sum: f64 = self.samples.range(from..to).map(|s| f64::from(*s) * f64::from(*s)).sum();
            let level = (sum / (to - from).max(1) as f64).sqrt() as f32;
            self.frames.push_back(Frame { probability: *probability, level });
        }
    }

    /// Returns the next window, once it is complete. At the end of the recording the remainder is complete.
    pub(super) fn next(&mut self, at_end: bool) -> Option<Window> {
        let speech = self.speech();
        let Some(first) = speech.first() else {
            let kept = if at_end { 0 } else { UNDECIDED };
            self.drop_frames(self.frames.len().saturating_sub(kept));
            return None;
        };
        let dropped = first.start;
        self.drop_frames(dropped);
        // The frames that are heard, in order.
        let heard: Vec<usize> = speech.into_iter().flatten().map(|frame| frame - dropped).collect();
        let length = self.length(&heard, at_end)?;
        Some(self.window(&heard[..length], heard.get(length).copied()))
    }

    /// Where everything before has been returned or left out, in samples of the recording.
    pub(super) fn position(&self) -> usize {
        self.start
    }

    /// Finds the stretches of frames with speech and what is kept around them.
    fn speech(&self) -> Vec<Range<usize>> {
        let mut found: Vec<(Range<usize>, usize)> = Vec::new();
        for (n, frame) in self.frames.iter().enumerate().filter(|(_, f)| f.probability >= MAYBE_SPEECH) {
            match found.last_mut() {
                Some((last, sure)) if n - last.end <= JOINED => {
                    last.end = n + 1;
                    *sure += usize::from(frame.probability >= SPEECH);
                }
                _ => found.push((n..n + 1, usize::from(frame.probability >= SPEECH))),
            }
        }
        let mut speech: Vec<Range<usize>> = Vec::new();
        for (stretch, _) in found.into_iter().filter(|(_, sure)| *sure >= SPEECH_FRAMES) {
            let stretch = stretch.start.saturating_sub(BEFORE)..(stretch.end + AFTER).min(self.frames.len());
            match speech.last_mut() {
                Some(last) if stretch.start <= last.end + LONGEST_SILENCE => last.end = stretch.end,
                _ => speech.push(stretch),
            }
        }
        speech
    }

    /// How many of the frames make a window; none if more are needed to know.
    fn length(&self, heard: &[usize], at_end: bool) -> Option<usize> {
        let Lengths { shortest, mut longest, long_pause } = self.lengths;
        let pauses = self.pauses(heard);
        let long = |pause: &&Range<usize>| pause.len() >= long_pause && middle(pause, heard) >= shortest;
        if let Some(pause) = pauses.iter().filter(|p| p.end < heard.len()).find(long) {
            return Some(middle(pause, heard));
        }
        if heard.len() <= longest {
            return at_end.then_some(heard.len());
        }
        if at_end && heard.len() < DIVIDED && longest == LATER.longest {
            longest = longest.min(heard.len() / 2 + 125);
        }
        let value = |pause: &Range<usize>| {
            middle(pause, heard) as f32 / longest as f32
                + PAUSE_WEIGHT * pause.len().min(BEST_PAUSE) as f32 / BEST_PAUSE as f32
        };
        let fits = |pause: &&Range<usize>| (shortest..=longest).contains(&middle(pause, heard));
        let best = pauses.iter().filter(fits).max_by(|a, b| value(a).total_cmp(&value(b)));
        // Without a pause, where it is quietest in the last third.
        let level = |n: usize| self.frames[heard[n - 1]].level + self.frames[heard[n]].level;
        let quietest = || (longest * 2 / 3..longest).min_by(|a, b| level(*a).total_cmp(&level(*b)));
        best.map(|pause| middle(pause, heard)).or_else(quietest)
    }

    /// Finds the pauses, as positions in `heard`. A silence that was left out is part of one.
    fn pauses(&self, heard: &[usize]) -> Vec<Range<usize>> {
        let loudest = heard.iter().take(LATER.longest).map(|n| self.frames[*n].level).fold(0.0, f32::max);
        let is_pause = |frame: Frame| frame.probability < PAUSE || frame.level < loudest * QUIET_SHARE;
        let mut pauses = runs((0..heard.len()).filter(|at| is_pause(self.frames[heard[*at]])));
        pauses.retain(|pause| pause.len() >= SHORTEST_PAUSE);
        pauses
    }

    /// Takes a window from the frames. The next one begins at the frame `next`, if there is one.
    fn window(&mut self, heard: &[usize], next: Option<usize>) -> Window {
        let mut window =
            Window { samples: Vec::new(), end: 0, parts: Vec::new(), probabilities: Vec::with_capacity(heard.len()) };
        let mut last = None;
        for n in heard {
            if last.is_none_or(|last| last + 1 != *n) {
                window.parts.push(Part { at: window.samples.len(), from: self.start + n * FRAME });
            }
            last = Some(*n);
            let to = ((n + 1) * FRAME).min(self.samples.len());
            window.samples.extend(self.samples.range(n * FRAME..to));
            window.probabilities.push(self.frames[*n].probability);
        }
        self.drop_frames(next.or(last.map(|last| last + 1)).unwrap_or_default());
        window.end = self.start;
        self.lengths = LATER;
        window
    }

    fn drop_frames(&mut self, frames: usize) {
        let samples = (frames * FRAME).min(self.samples.len());
        self.samples.drain(..samples);
        self.frames.drain(..frames);
        self.start += samples;
    }
}

/// The frame that a time falls into, in seconds.
fn frame(seconds: f64) -> usize {
    (seconds.max(0.0) * RATE) as usize
}

/// Joins numbers that follow each other.
fn runs(numbers: impl Iterator<Item = usize>) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for n in numbers {
        match runs.last_mut() {
            Some(last) if last.end == n => last.end = n + 1,
            _ => runs.push(n..n + 1),
        }
    }
    runs
}

/// Where a window ends in a pause: where a silence was left out, otherwise in the middle.
fn middle(pause: &Range<usize>, heard: &[usize]) -> usize {
    let left_out = (pause.start + 1..pause.end).find(|at| heard[at - 1] + 1 != heard[*at]);
    left_out.unwrap_or(pause.start + pause.len() / 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Frames of speech, or of silence.
    fn frames(seconds: f64, is_speech: bool) -> Vec<(Vec<i16>, f32)> {
        let frame: Vec<i16> = (0..FRAME).map(|i| ((i as f32 * 0.3).sin() * 8000.0) as i16).collect();
        let one = if is_speech { (frame, 0.9) } else { (vec![0; FRAME], 0.01) };
        vec![one; (seconds * RATE).round() as usize]
    }

    fn windows(recording: &[(Vec<i16>, f32)]) -> Vec<Window> {
        let mut windows = Windows::new();
        let mut all = Vec::new();
        for (samples, probability) in recording {
            windows.push(samples, &[*probability]);
            all.extend(std::iter::from_fn(|| windows.next(false)));
        }
        all.extend(std::iter::from_fn(|| windows.next(true)));
        let samples: usize = recording.iter().map(|(samples, _)| samples.len()).sum();
        assert_eq!(windows.position(), samples);
        all
    }

    fn length(window: &Window) -> f64 {
        window.samples.len() as f64 / 16_000.0
    }

    /// Sentences of 4.5 s with pauses of half a second.
    fn sentences(count: usize) -> Vec<(Vec<i16>, f32)> {
        (0..count).flat_map(|_| [frames(4.5, true), frames(0.5, false)].concat()).collect()
    }

    #[test]
    fn the_first_window_is_short_and_the_others_are_as_long_as_they_can_be() {
        let all = windows(&sentences(20));
        assert!((4.5..5.0).contains(&length(&all[0])), "{}", length(&all[0]));
        for window in &all[1..all.len() - 2] {
            assert!((24.5..=25.5).contains(&length(window)), "{}", length(window));
        }
        // The last two share what is left.
        assert!(all.iter().all(|w| length(w) <= 28.5) && length(&all[all.len() - 1]) > 9.0);
    }

    #[test]
    fn nothing_is_heard_of_silence_and_noise() {
        assert!(windows(&frames(100.0, false)).is_empty());
        let noise: Vec<_> = frames(100.0, true).into_iter().map(|(samples, _)| (samples, 0.14)).collect();
        assert!(windows(&noise).is_empty());
        assert!(windows(&[]).is_empty());
    }

    #[test]
    fn long_silences_are_left_out_and_times_are_those_of_the_recording() {
        let recording = [frames(20.0, false), frames(2.0, true), frames(60.0, false), frames(0.5, true)].concat();
        let all = windows(&recording);
        assert_eq!(all.len(), 1, "{all:?}");
        let window = &all[0];
        assert!((length(window) - (0.32 + 2.0 + 0.384 + 0.32 + 0.5)).abs() < 0.1, "{}", length(window));
        assert!((window.time(0.32, false) - 20.0).abs() < 0.05);
        assert!((window.time(2.2, true) - 21.88).abs() < 0.1);
        let join = window.parts[1].at as f64 / 16_000.0;
        assert!(window.time(join, true) < 22.6 && window.time(join, false) > 81.5);
        assert_eq!(window.time(100.0, true), window.end as f64 / 16_000.0);
        assert_eq!(window.time(-1.0, false), window.start() as f64 / 16_000.0);
        assert!(window.has_speech(0.5, 1.0) && !window.has_speech(2.66, 2.68));
    }

    #[test]
    fn the_rest_of_a_window_is_a_window() {
        // The second window has a silence in it that was left out.
        let recording = [sentences(1), frames(6.0, true), frames(60.0, false), frames(6.0, true)].concat();
        let window = &windows(&recording)[1];
        assert_eq!(window.parts.len(), 2);
        for from in [1.5, 3.0, 5.0, 6.5, 7.5] {
            let Some(rest) = window.rest(from) else { panic!("nothing follows {from} s") };
            assert_eq!(rest.end, window.end);
            assert_eq!(rest.samples.len(), rest.probabilities.len() * FRAME);
            let cut = length(window) - length(&rest);
            assert!((cut - from).abs() <= 1.0 / RATE, "{cut}");
            for later in [0.1, 1.0, 2.0] {
                let (whole, part) = (window.time(cut + later, false), rest.time(later, false));
                assert!((whole - part).abs() < 1e-3, "{from} {later}: {whole} {part}");
            }
        }
        let Some([before, after]) = window.halves() else { panic!("it is long enough") };
        assert!(before.parts.len() + after.parts.len() >= 2 && after.end == window.end);
        assert_eq!(before.samples.len() + after.samples.len(), window.samples.len());
        assert_eq!((before.start(), before.end <= after.start()), (window.start(), true));
        let join = length(&before);
        for at in [0.5, 2.0, join - 0.5] {
            assert!((window.time(at, false) - before.time(at, false)).abs() < 1e-3, "{at}");
            assert!((window.time(join + at, false) - after.time(at, false)).abs() < 1e-3, "{at}");
        }
        assert!((window.speech_secs(0.0, 100.0) - 12.0).abs() < 0.2, "{}", window.speech_secs(0.0, 100.0));
        let (start, end) = (window.time(0.0, false), window.time(100.0, true));
        assert_eq!(window.spoken_secs(start, end), window.speech_secs(0.0, 100.0));
        let within = window.speech_secs(1.0, 2.0);
        assert!((window.spoken_secs(window.time(1.0, false), window.time(2.0, true)) - within).abs() < 0.1, "{within}");
        assert_eq!(window.spoken_secs(end, end + 100.0), 0.0);
        assert!(before.rest(join).is_none() && after.halves().and_then(|[half, _]| half.halves()).is_none());
        // Less than two seconds of speech are left, nothing at all, and no end in sight.
        assert!(window.rest(length(window) - 1.9).is_none());
        assert!(window.rest(100.0).is_none());
        assert!(window.rest(0.0).is_some_and(|rest| length(&rest) < length(window) - 0.9));
    }

    #[test]
    fn speech_without_a_pause_is_cut_where_it_is_quietest() {
        let mut recording = frames(60.0, true);
        for frame in [200, 201, 800] {
            recording[frame].0.iter_mut().for_each(|s| *s /= 8);
        }
        let all = windows(&recording);
        assert!((200..=202).contains(&(all[0].end / FRAME)), "{}", all[0].end / FRAME);
        assert!((800..=801).contains(&(all[1].end / FRAME)), "{}", all[1].end / FRAME);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn all_speech_is_in_exactly_one_window(
            parts in proptest::collection::vec((any::<bool>(), 0.1f64..40.0), 1..12),
            chunk in 1usize..3000,
        ) {
            let recording: Vec<_> = parts.iter().flat_map(|(is_speech, seconds)| frames(*seconds, *is_speech)).collect();
            let all = windows(&recording);
            let mut heard = vec![0; recording.len()];
            for window in &all {
                prop_assert!(window.samples.len() <= LATER.longest * FRAME);
                prop_assert_eq!(window.samples.len(), window.probabilities.len() * FRAME);
                for (n, part) in window.parts.iter().enumerate() {
                    let end = window.parts.get(n + 1).map_or(window.samples.len(), |next| next.at);
                    for frame in 0..(end - part.at) / FRAME {
                        heard[part.from / FRAME + frame] += 1;
                        prop_assert_eq!(&window.samples[part.at + frame * FRAME..][..FRAME], &recording[part.from / FRAME + frame].0[..]);
                    }
                }
            }
            for (frame, heard) in recording.iter().zip(&heard) {
                prop_assert!(*heard == 1 || (*heard == 0 && frame.1 < SPEECH));
            }
            // However the input is divided, once the detector has judged all of it.
            let mut other = Windows::new();
            let mut again = Vec::new();
            for frames in recording.chunks(chunk) {
                for (samples, probability) in frames {
                    other.push(samples, &[*probability]);
                }
                again.extend(std::iter::from_fn(|| other.next(false)));
            }
            again.extend(std::iter::from_fn(|| other.next(true)));
            let speech = |all: &[Window]| all.iter().map(|w| w.samples.iter().filter(|s| **s != 0).count()).sum::<usize>();
            prop_assert_eq!(speech(&all), speech(&again));
        }
    }
}
