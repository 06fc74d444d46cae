//! Cuts a stream of samples into pieces at pauses, so that engines get whole phrases and answer soon after they are
//! spoken. Pure: the pieces are the same however the input is divided. Used by the engines' children.

use std::ops::Range;

/// Samples in a frame: 10 ms at 16 kHz.
const FRAME: usize = 160;

/// How pieces are cut, in frames of 10 ms.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// The minimal length of a piece, except the last.
    pub(super) shortest: usize,
    /// The maximal length of a piece.
    pub(super) longest: usize,
    /// The minimal length of a pause in a piece that has just reached the minimal length.
    pub(super) pause: usize,
}

/// The minimal length of a pause in any piece: the closure of a consonant is nearly as long.
const SHORTEST_PAUSE: usize = 8;

impl Rules {
    /// Pieces of 3 to 15 s.
    pub(super) const SHORT: Self = Self { shortest: 300, longest: 1500, pause: 20 };
    /// Pieces of 12 to 28 s, for engines that process half a minute at once.
    pub(super) const LONG: Self = Self { shortest: 1200, longest: 2800, pause: 20 };

    /// How long a pause must be to end a piece of `frames`. The longer the piece, the shorter the pause may be, because
    /// hurried speech would never be cut otherwise.
    fn pause_at(&self, frames: usize) -> usize {
        let share = frames.saturating_sub(self.shortest) as f32 / (self.longest - self.shortest) as f32;
        let less = (self.pause - SHORTEST_PAUSE) as f32 * (share * 2.0).min(1.0);
        self.pause - less as usize
    }
}

/// A frame is quiet below this share of the recent peak level, or below this absolute level (of 32768).
const QUIET_SHARE: f32 = 0.08;
const QUIET_LEVEL: f32 = 40.0;
/// The factor by which the peak level decays each frame: by half in about seven seconds.
const PEAK_DECAY: f32 = 0.999;

/// Collects samples and returns pieces.
#[derive(Debug)]
pub(super) struct Cutter {
    rules: Rules,
    samples: Vec<i16>,
    /// The root mean square of each complete frame in `samples`.
    levels: Vec<f32>,
    peak_level: f32,
    quiet: usize,
}

impl Cutter {
    pub(super) fn new(rules: Rules) -> Self {
        Self { rules, samples: Vec::new(), levels: Vec::new(), peak_level: 0.0, quiet: 0 }
    }

    /// Adds samples and returns the pieces that are complete with them.
    pub(super) fn push(&mut self, samples: &[i16]) -> Vec<Vec<i16>> {
        self.samples.extend_from_slice(samples);
        let mut pieces = Vec::new();
        while let Some(frame) = self.samples.get(self.levels.len() * FRAME..(self.levels.len() + 1) * FRAME) {
            let level = rms(frame);
            self.levels.push(level);
            self.peak_level = level.max(self.peak_level * PEAK_DECAY);
            let is_quiet = level < QUIET_LEVEL.max(self.peak_level * QUIET_SHARE);
            self.quiet = if is_quiet { self.quiet + 1 } else { 0 };
            let frames = self.levels.len();
            let pause = self.rules.pause_at(frames);
            if self.quiet >= pause && frames >= self.rules.shortest + pause {
                // Cuts in the middle of the pause, so that both pieces keep some quiet around their words.
                pieces.push(self.cut(frames - pause / 2));
            } else if frames >= self.rules.longest {
                let at = self.quietest(self.rules.shortest..frames);
                pieces.push(self.cut(at));
            }
        }
        pieces
    }

    /// Returns the remaining samples at the end of the recording.
    pub(super) fn finish(&mut self) -> Vec<i16> {
        self.levels.clear();
        std::mem::take(&mut self.samples)
    }

    fn cut(&mut self, frames: usize) -> Vec<i16> {
        let rest = self.samples.split_off(frames * FRAME);
        self.levels.drain(..frames);
        self.quiet = self.quiet.min(self.levels.len());
        std::mem::replace(&mut self.samples, rest)
    }

    /// Returns the frame in the middle of the quietest 50 ms.
    fn quietest(&self, range: Range<usize>) -> usize {
        let window = |at: usize| self.levels[at - 2..(at + 3).min(self.levels.len())].iter().sum::<f32>();
        let candidates = range.start.max(2)..range.end.saturating_sub(2);
        let end = range.end;
        candidates.min_by(|a, b| window(*a).total_cmp(&window(*b))).unwrap_or(end)
    }
}

fn rms(frame: &[i16]) -> f32 {
    let sum: f64 = frame.iter().map(|s| f64::from(*s) * f64::from(*s)).sum();
    (sum / frame.len() as f64).sqrt() as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tone(seconds: f64) -> Vec<i16> {
        (0..(seconds * 16_000.0) as usize).map(|i| ((i as f32 * 0.3).sin() * 8000.0) as i16).collect()
    }

    fn silence(seconds: f64) -> Vec<i16> {
        vec![0; (seconds * 16_000.0) as usize]
    }

    #[test]
    fn cuts_in_the_middle_of_a_pause() {
        let mut cutter = Cutter::new(Rules::SHORT);
        let pieces = cutter.push(&[tone(4.0), silence(0.5), tone(4.0)].concat());
        assert_eq!(pieces.len(), 1);
        let seconds = pieces[0].len() as f64 / 16_000.0;
        assert!((4.0..4.5).contains(&seconds), "{seconds}");
    }

    #[test]
    fn a_pause_soon_after_a_cut_does_not_cut_again() {
        let mut cutter = Cutter::new(Rules::SHORT);
        let pieces = cutter.push(&[tone(1.0), silence(0.5), tone(1.0), silence(0.5)].concat());
        assert!(pieces.is_empty());
    }

    #[test]
    fn speech_without_a_pause_is_cut_where_it_is_quietest() {
        let mut cutter = Cutter::new(Rules::SHORT);
        let soft: Vec<i16> = tone(0.1).iter().map(|s| s / 4).collect();
        let pieces = cutter.push(&[tone(8.0), soft, tone(12.0)].concat());
        let seconds = pieces[0].len() as f64 / 16_000.0;
        assert!((8.0..8.1).contains(&seconds), "{seconds}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn pieces_add_up_to_the_input_and_have_allowed_lengths(
            parts in proptest::collection::vec((0u8..3, 1usize..60_000), 1..20),
            chunk in 1usize..20_000,
        ) {
            let input: Vec<i16> = parts.iter().flat_map(|(kind, n)| match kind {
                0 => vec![0i16; *n],
                1 => (0..*n).map(|i| ((i as f32 * 0.3).sin() * 9000.0) as i16).collect(),
                _ => (0..*n).map(|i| ((i * 7919) % 200) as i16).collect(),
            }).collect();
            let mut whole = Cutter::new(Rules::SHORT);
            let mut expected = whole.push(&input);
            expected.push(whole.finish());
            let mut cutter = Cutter::new(Rules::SHORT);
            let mut pieces: Vec<Vec<i16>> = input.chunks(chunk).flat_map(|c| cutter.push(c)).collect();
            pieces.push(cutter.finish());
            prop_assert_eq!(&pieces, &expected);
            prop_assert_eq!(pieces.concat(), input);
            for piece in &pieces[..pieces.len() - 1] {
                prop_assert!((Rules::SHORT.shortest * FRAME..=Rules::SHORT.longest * FRAME).contains(&piece.len()));
            }
        }
    }
}
