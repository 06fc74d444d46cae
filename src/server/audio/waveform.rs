//! The waveform of a recording for the player: one peak per bin over the whole length. Built while decoding, in one
//! pass and without knowing the length: when the fine bins are full, neighbouring ones are merged.

use serde::{Deserialize, Serialize};

/// The maximal number of peaks in a [`Waveform`]: about the width of a page in pixels. Recordings longer than a few
/// seconds have exactly this many.
pub const MAX_PEAKS: usize = 1_000;

/// Fine bins while the length is unknown: four times the final number. After a merge there are still at least two for
/// each peak, so the peaks have nearly the same width.
const FINE: usize = 4 * MAX_PEAKS;

/// Samples in a fine bin at the start: 2.5 ms, so that a clip of 2.5 s already has all its peaks.
const FIRST_WIDTH: u32 = 40;

/// Peaks at equal distances over the recording.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Waveform {
    /// The loudest sample of each bin, from 0 (digital silence) to 255 (full scale), linear. At most [`MAX_PEAKS`].
    pub peaks: Vec<u8>,
}

/// Collects a [`Waveform`].
pub(super) struct Builder {
    fine: Vec<u16>,
    width: u32,
    filled: u32,
    peak: u16,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self { fine: Vec::with_capacity(FINE), width: FIRST_WIDTH, filled: 0, peak: 0 }
    }

    pub(super) fn push(&mut self, samples: &[i16]) {
        for sample in samples {
            self.peak = self.peak.max(sample.unsigned_abs());
            self.filled += 1;
            if self.filled == self.width {
                self.close();
            }
        }
    }

    pub(super) fn finish(mut self) -> Waveform {
        if self.filled > 0 {
            self.close();
        }
        let bins = self.fine.len().min(MAX_PEAKS);
        let peaks = (0..bins).map(|bin| {
            let range = bin * self.fine.len() / bins..(bin + 1) * self.fine.len() / bins;
            scale(self.fine[range].iter().copied().max().unwrap_or(0))
        });
        Waveform { peaks: peaks.collect() }
    }

    fn close(&mut self) {
        self.fine.push(self.peak);
        (self.filled, self.peak) = (0, 0);
        if self.fine.len() == FINE {
            for i in 0..FINE / 2 {
                self.fine[i] = self.fine[2 * i].max(self.fine[2 * i + 1]);
            }
            self.fine.truncate(FINE / 2);
            self.width = self.width.saturating_mul(2);
        }
    }
}

/// Scales 0..=32768 to 0..=255, rounded up, so that only silence becomes 0.
fn scale(peak: u16) -> u8 {
    u8::try_from((u32::from(peak) * 255).div_ceil(32_768)).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(samples: &[i16], chunk: usize) -> Waveform {
        let mut builder = Builder::new();
        samples.chunks(chunk).for_each(|chunk| builder.push(chunk));
        builder.finish()
    }

    #[test]
    fn recordings_of_any_length_have_the_right_number_of_peaks() {
        assert_eq!(of(&[], 1).peaks, Vec::<u8>::new());
        assert_eq!(of(&[0, -5], 1).peaks, [1]);
        assert_eq!(of(&vec![i16::MIN; 16_000], 999).peaks, vec![255; 400]);
        for seconds in [3, 10, 11, 60, 3600] {
            assert_eq!(of(&vec![0; 16_000 * seconds], 4096).peaks, vec![0; MAX_PEAKS], "{seconds} s");
        }
    }

    #[test]
    fn the_shape_is_kept_whatever_the_size_of_chunks() {
        // Rises linearly over 100 s.
        let samples: Vec<i16> =
            (0..1_600_000_i64).map(|i| i16::try_from(i * 32_767 / 1_600_000).expect("below full scale")).collect();
        let waveform = of(&samples, 16_000);
        assert_eq!(waveform, of(&samples, 7));
        for (i, &peak) in waveform.peaks.iter().enumerate() {
            let expected = 255.0 * (i + 1) as f64 / MAX_PEAKS as f64;
            assert!((f64::from(peak) - expected).abs() < 2.0, "{i}: {peak} {expected}");
        }
    }
}
