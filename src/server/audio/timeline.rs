//! Where blocks of samples belong in a recording, by the clock of its container: gaps become silence, a single timestamp
//! that is far off is ignored, and a clock that is set back begins anew. Pure. Used by `decode` for what the built-in
//! decoders read, and by `process` for what ffmpeg does.

/// Timestamps that are later by less than this many seconds are rounding, or frames of one block with one timestamp.
const MIN_GAP: f64 = 0.2;

/// A gap by which a single timestamp may be wrong, in seconds. Of a longer one, the next block must know too.
const MAX_SURE_GAP: f64 = 10.0;

/// The longest gap that is filled with silence, in seconds. Longer jumps are damaged clocks.
const MAX_GAP: f64 = 86_400.0;

/// Seconds by which a timestamp may be earlier than the samples before it. Otherwise the clock was set back.
const MAX_OVERLAP: f64 = 0.5;

/// What follows in a recording.
#[derive(Debug, PartialEq)]
pub(super) enum Item<T> {
    Block(T),
    /// Seconds of silence.
    Silence(f64),
}

/// A block after a long gap.
struct Held<T> {
    gap: f64,
    block: T,
    length: f64,
    /// When the next block must begin.
    next: f64,
}

/// Puts blocks where they belong.
pub(super) struct Timeline<T> {
    /// The time by the clock that corresponds to `origin_emitted`.
    origin: Option<f64>,
    origin_emitted: f64,
    /// Seconds of blocks and silence so far.
    emitted: f64,
    held: Option<Held<T>>,
}

impl<T> Timeline<T> {
    pub(super) fn new() -> Self {
        Self { origin: None, origin_emitted: 0.0, emitted: 0.0, held: None }
    }

    /// Seconds of blocks and silence so far.
    pub(super) fn emitted(&self) -> f64 {
        self.emitted
    }

    /// Converts a time by the clock to seconds of the recording; none before the first block.
    pub(super) fn position(&self, at: f64) -> Option<f64> {
        Some(at - self.origin? + self.origin_emitted)
    }

    /// Whether nothing has been placed since the clock began.
    pub(super) fn is_new(&self) -> bool {
        self.origin.is_none()
    }

    /// Lets the clock be at this time now.
    pub(super) fn begin(&mut self, at: f64) {
        (self.origin, self.origin_emitted) = (Some(at), self.emitted);
    }

    /// Ends the clock: another one follows. Returns the block that was held back.
    pub(super) fn end(&mut self) -> Option<Item<T>> {
        self.origin = None;
        let held = self.held.take()?;
        self.emitted += held.length;
        Some(Item::Block(held.block))
    }

    /// Adds something that takes seconds and has no time of its own.
    pub(super) fn add(&mut self, item: Item<T>, length: f64) -> Item<T> {
        self.emitted += length;
        item
    }

    /// Puts a block where the clock has it, and returns what follows in the recording.
    pub(super) fn place(&mut self, at: f64, block: T, length: f64) -> Vec<Item<T>> {
        let mut items = Vec::new();
        if let Some(held) = self.held.take() {
            if (at - held.next).abs() < MAX_SURE_GAP {
                items.push(Item::Silence(held.gap));
                self.emitted += held.gap;
            }
            self.emitted += held.length;
            items.push(Item::Block(held.block));
        }
        if self.origin.is_none() {
            self.begin(at);
        }
        let gap = self.position(at).unwrap_or(self.emitted) - self.emitted;
        if gap > MAX_SURE_GAP && gap <= MAX_GAP {
            self.held = Some(Held { gap, next: at + length, block, length });
            return items;
        }
        if (MIN_GAP..=MAX_SURE_GAP).contains(&gap) {
            items.push(Item::Silence(gap));
            self.emitted += gap;
        } else if !(-MAX_OVERLAP..=MAX_GAP).contains(&gap) {
            self.begin(at);
        }
        self.emitted += length;
        items.push(Item::Block(block));
        items
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks of a second at these times, as the times at which they are heard.
    fn heard(times: &[f64]) -> Vec<f64> {
        let (mut timeline, mut at, mut heard) = (Timeline::new(), 0.0, Vec::new());
        timeline.begin(0.0);
        let placed: Vec<Item<()>> = times.iter().flat_map(|time| timeline.place(*time, (), 1.0)).collect();
        for item in placed.into_iter().chain(timeline.end()) {
            match item {
                Item::Silence(seconds) => at += seconds,
                Item::Block(()) => {
                    heard.push(at);
                    at += 1.0;
                }
            }
        }
        assert_eq!(timeline.emitted(), at);
        heard
    }

    #[test]
    fn gaps_are_silence_and_wrong_times_are_ignored() {
        assert_eq!(heard(&[0.0, 1.05, 2.1, 3.0]), [0.0, 1.0, 2.0, 3.0]);
        assert_eq!(heard(&[3.0, 4.0, 10.0]), [3.0, 4.0, 10.0]);
        // Hours, known to two blocks.
        assert_eq!(heard(&[0.0, 10_000.0, 10_001.0]), [0.0, 10_000.0, 10_001.0]);
        // A single one, also at the end.
        assert_eq!(heard(&[0.0, 500.0, 2.0, 3.0]), [0.0, 1.0, 2.0, 3.0]);
        assert_eq!(heard(&[0.0, 500.0]), [0.0, 1.0]);
        // A clock that is set back, and one that jumps by more than a day.
        assert_eq!(heard(&[100.0, 101.0, 0.0, 1.0, 3.0]), [100.0, 101.0, 102.0, 103.0, 105.0]);
        assert_eq!(heard(&[0.0, 1e6, 1e6 + 2.0]), [0.0, 1.0, 3.0]);
    }
}
