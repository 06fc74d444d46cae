//! Finds speech: Silero's voice detector by whisper.cpp, which tells it from noise and music where loudness can't. Its
//! model is part of the program. Called by `child`.

use super::windows::FRAME;
use rustix::fs::{MemfdFlags, memfd_create};
use std::{fs::File, io::Write, os::fd::AsRawFd};
use whisper_rs::{WhisperVadContext, WhisperVadContextParams};

/// The model file, 885 kB.
const MODEL: &[u8] = include_bytes!("silero/ggml-silero-v6.2.0.bin");
/// Frames that are judged at once: 4 s. whisper.cpp forgets what it heard after each call.
const BLOCK: usize = 125;
/// Frames before a block that are heard with it, about a second, so that its first frames are judged as the others are.
const CONTEXT: usize = 32;

/// Judges a stream of samples frame by frame.
pub(super) struct Detector {
    context: WhisperVadContext,
    /// The last frames that were judged, and all samples that weren't.
    samples: Vec<f32>,
    /// How many of these samples were judged.
    judged: usize,
}

impl Detector {
    /// Loads the model.
    ///
    /// # Errors
    /// If there is no memory for it, or no `/proc` by which whisper.cpp can open it.
    pub(super) fn new() -> Result<Self, String> {
        // whisper.cpp reads the model from a file, so it gets one that exists in memory only.
        let file = memfd_create("silero", MemfdFlags::CLOEXEC).map_err(|e| e.to_string())?;
        let mut file = File::from(file);
        file.write_all(MODEL).map_err(|e| e.to_string())?;
        let mut params = WhisperVadContextParams::default();
        // More threads cost more than they save on so small a model.
        params.set_n_threads(1);
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let context = WhisperVadContext::new(&path, params).map_err(|e| e.to_string())?;
        Ok(Self { context, samples: Vec::new(), judged: 0 })
    }

    /// Adds samples and returns the probability of speech for each frame that was judged because of them.
    ///
    /// # Errors
    /// If whisper.cpp fails.
    pub(super) fn push(&mut self, samples: &[i16]) -> Result<Vec<f32>, String> {
        self.samples.extend(samples.iter().map(|s| f32::from(*s) / 32_768.0));
        let mut probabilities = Vec::new();
        while self.samples.len() - self.judged >= BLOCK * FRAME {
            self.judge(self.judged + BLOCK * FRAME, &mut probabilities)?;
        }
        Ok(probabilities)
    }

    /// Judges what is left at the end of the recording. The last frame may be shorter than the others.
    ///
    /// # Errors
    /// If whisper.cpp fails.
    pub(super) fn finish(&mut self) -> Result<Vec<f32>, String> {
        let mut probabilities = Vec::new();
        if self.samples.len() > self.judged {
            self.judge(self.samples.len(), &mut probabilities)?;
        }
        Ok(probabilities)
    }

    fn judge(&mut self, end: usize, probabilities: &mut Vec<f32>) -> Result<(), String> {
        self.context.detect_speech(&self.samples[..end]).map_err(|e| e.to_string())?;
        probabilities.extend(self.context.probabilities().iter().skip(self.judged / FRAME));
        let kept = end.saturating_sub(CONTEXT * FRAME);
        self.samples.drain(..kept);
        self.judged = end - kept;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_frame_is_judged_once_and_noise_is_no_speech() {
        let mut state = 1_u32;
        let noise: Vec<i16> = (0..16_000 * 11 + 77)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 20) as i16 - 2048
            })
            .collect();
        for chunk in [4000, 100_000] {
            let mut detector = Detector::new().unwrap();
            let mut all: Vec<f32> = noise.chunks(chunk).flat_map(|c| detector.push(c).unwrap()).collect();
            all.extend(detector.finish().unwrap());
            assert_eq!(all.len(), noise.len().div_ceil(FRAME));
            assert!(all.iter().all(|p| *p < 0.3), "{all:?}");
            assert_eq!(detector.finish().unwrap(), Vec::<f32>::new());
        }
    }
}
