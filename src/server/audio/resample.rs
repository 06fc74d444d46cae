//! Resampling of one channel from any rate to 16 kHz, as a stream: by FFT with an anti-alias filter. The filter's delay
//! is cut off at the front and its tail flushed, so that the length is exact to the sample. Used by `decode`.

use std::ops::RangeInclusive;

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Indexing, Resampler as _};

use super::SAMPLE_RATE;

/// Sample rates in Hz that are accepted. A header with another one is damaged or malicious: the filter's size grows
/// with the rate.
pub(super) const RATES: RangeInclusive<u32> = 1_000..=384_000;

/// Blocks per second. A block of 50 ms is long enough for a steep filter and short enough to stay in the processor's
/// cache.
const BLOCKS_PER_SECOND: u32 = 20;

/// Resamples one channel to [`SAMPLE_RATE`].
pub(super) struct Resampler {
    rate: u32,
    /// None if the rate is 16 kHz already.
    fft: Option<Fft<f32>>,
    input: Vec<f32>,
    output: Vec<f32>,
    /// Frames of the filter's delay that are still to be dropped.
    delay: usize,
    samples_in: u64,
    samples_out: u64,
}

impl Resampler {
    /// None if the rate is outside [`RATES`].
    pub(super) fn new(rate: u32) -> Option<Self> {
        if !RATES.contains(&rate) {
            return None;
        }
        let fft = if rate == SAMPLE_RATE {
            None
        } else {
            // A whole, even number of steps that both rates share. The filter's delay is half a block, and only then is
            // it a whole number of samples at both rates.
            let step = rate / gcd(rate, SAMPLE_RATE);
            let block = (rate / BLOCKS_PER_SECOND / step).next_multiple_of(2).max(2) * step;
            Some(
                Fft::new_custom(
                    rate as usize,
                    SAMPLE_RATE as usize,
                    block as usize,
                    1,
                    1,
                    rubato::WindowFunction::BlackmanHarris2,
                    FixedSync::Input,
                )
                .ok()?,
            )
        };
        let delay = fft.as_ref().map_or(0, |fft| fft.output_delay());
        let output = vec![0.0; fft.as_ref().map_or(0, |fft| fft.output_frames_max())];
        Some(Self { rate, fft, input: Vec::new(), output, delay, samples_in: 0, samples_out: 0 })
    }

    pub(super) fn rate(&self) -> u32 {
        self.rate
    }

    /// Adds samples, and appends those that are ready to `out`.
    pub(super) fn push(&mut self, mut samples: &[f32], out: &mut Vec<f32>) {
        self.samples_in += samples.len() as u64;
        if self.fft.is_none() {
            self.samples_out += samples.len() as u64;
            out.extend_from_slice(samples);
            return;
        }
        while !samples.is_empty() {
            let needed = self.fft.as_ref().map_or(0, |fft| fft.input_frames_next());
            let (now, later) = samples.split_at(samples.len().min(needed.saturating_sub(self.input.len())));
            self.input.extend_from_slice(now);
            samples = later;
            if self.input.len() < needed {
                return;
            }
            self.run(u64::MAX, out);
        }
    }

    /// Appends the remaining samples to `out`. Nothing may be pushed afterwards.
    pub(super) fn finish(&mut self, out: &mut Vec<f32>) {
        let total = (u128::from(self.samples_in) * u128::from(SAMPLE_RATE)).div_ceil(u128::from(self.rate));
        let total = u64::try_from(total).unwrap_or(u64::MAX);
        while self.fft.is_some() && self.samples_out < total {
            self.run(total - self.samples_out, out);
        }
    }

    /// Resamples one block, padded with silence if the input is shorter.
    fn run(&mut self, limit: u64, out: &mut Vec<f32>) {
        let Some(fft) = &mut self.fft else { return };
        let partial = Indexing::new().partial_len(self.input.len());
        self.input.resize(fft.input_frames_next(), 0.0);
        let frames = self.output.len();
        let input = InterleavedSlice::new(&self.input, 1, self.input.len()).expect("one channel of that many frames");
        let mut output =
            InterleavedSlice::new_mut(&mut self.output, 1, frames).expect("one channel of that many frames");
        let (_, made) = fft
            .process_into_buffer(&input, &mut output, Some(&partial))
            .expect("both buffers hold what the resampler asked for");
        self.input.clear();
        let dropped = made.min(self.delay);
        self.delay -= dropped;
        let kept = &self.output[dropped..made];
        let kept = &kept[..usize::try_from(limit).unwrap_or(usize::MAX).min(kept.len())];
        self.samples_out += kept.len() as u64;
        out.extend_from_slice(kept);
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use super::*;

    fn tone(frequency: f64, rate: u32, seconds: f64) -> Vec<f32> {
        let frames = (seconds * f64::from(rate)).round() as usize;
        (0..frames).map(|i| (TAU * frequency * i as f64 / f64::from(rate)).sin() as f32 * 0.5).collect()
    }

    fn resample(samples: &[f32], rate: u32, chunk: usize) -> Vec<f32> {
        let mut resampler = Resampler::new(rate).expect("a real rate");
        let mut out = Vec::new();
        samples.chunks(chunk).for_each(|chunk| resampler.push(chunk, &mut out));
        resampler.finish(&mut out);
        out
    }

    fn rms(samples: &[f32]) -> f64 {
        (samples.iter().map(|&s| f64::from(s).powi(2)).sum::<f64>() / samples.len() as f64).sqrt()
    }

    #[test]
    fn length_phase_and_level_are_kept() {
        for rate in
            [8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 88_200, 96_000, 192_000, 44_101]
        {
            for seconds in [0.001, 0.02, 0.73, 2.0] {
                let out = resample(&tone(440.0, rate, seconds), rate, 1_152);
                let expected = tone(440.0, SAMPLE_RATE, seconds);
                assert!(out.len().abs_diff(expected.len()) <= 16, "{rate} {seconds}: {}", out.len());
                if seconds < 0.5 {
                    continue;
                }
                // The same wave at the same time, neither delayed nor distorted. The edges ring, so they are left out.
                let middle = 800..expected.len() - 800;
                let difference: Vec<f32> =
                    out[middle.clone()].iter().zip(&expected[middle]).map(|(a, b)| a - b).collect();
                assert!(rms(&difference) < 0.002, "{rate}: {}", rms(&difference));
            }
        }
    }

    #[test]
    fn frequencies_above_8_khz_are_removed() {
        for (frequency, rate) in [(12_000.0, 44_100), (8_800.0, 48_000), (9_000.0, 96_000), (60_000.0, 192_000)] {
            let out = resample(&tone(frequency, rate, 1.0), rate, 4_096);
            assert!(rms(&out[800..15_200]) < 0.0005, "{frequency} at {rate}: {}", rms(&out[800..15_200]));
        }
        let out = resample(&tone(7_000.0, 48_000, 1.0), 48_000, 4_096);
        assert!((rms(&out[800..15_200]) - 0.3536).abs() < 0.01, "speech's upper band stays");
    }

    #[test]
    fn the_size_of_chunks_does_not_matter_and_no_input_gives_no_output() {
        let samples = tone(700.0, 44_100, 0.3);
        assert_eq!(resample(&samples, 44_100, 1), resample(&samples, 44_100, 100_000));
        assert!(resample(&[], 44_100, 1).is_empty());
    }

    #[test]
    fn rates_out_of_range_are_refused() {
        for rate in [0, 1, 999, 384_001, u32::MAX] {
            assert!(Resampler::new(rate).is_none());
        }
    }
}
