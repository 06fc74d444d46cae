//! The output of a decoder: resamples mono samples of any rate to 16 kHz and passes them on in pieces of one size, up
//! to the longest recording that is accepted.

use super::super::{AudioError, Limits, SAMPLE_RATE, resample::Resampler};
use std::{io, ops::ControlFlow};

/// Samples in a piece: half a second.
const CHUNK: usize = SAMPLE_RATE as usize / 2;

/// Mono samples of one rate.
pub(super) struct Block {
    pub(super) rate: u32,
    pub(super) samples: Vec<f32>,
}

impl Block {
    pub(super) fn seconds(&self) -> f64 {
        self.samples.len() as f64 / f64::from(self.rate)
    }

    /// Cuts off seconds at the start, and keeps so many of the rest.
    pub(super) fn cut(&mut self, skip: f64, keep: f64) {
        let frames = |seconds: f64| (seconds * f64::from(self.rate)).round() as usize;
        let (skip, keep) = (frames(skip).min(self.samples.len()), frames(keep));
        self.samples.drain(..skip);
        self.samples.truncate(keep);
    }
}

/// Resamples and rounds mono samples and passes them to the sink in pieces of one size.
pub(super) struct Output<'a> {
    sink: &'a mut dyn FnMut(&[i16]) -> io::Result<ControlFlow<()>>,
    limit: f64,
    resampler: Option<Resampler>,
    resampled: Vec<f32>,
    pending: Vec<i16>,
    emitted_samples: u64,
    stopped: bool,
}

impl<'a> Output<'a> {
    pub(super) fn new(limits: &Limits, sink: &'a mut dyn FnMut(&[i16]) -> io::Result<ControlFlow<()>>) -> Self {
        Self {
            sink,
            limit: limits.max_duration,
            resampler: None,
            resampled: Vec::new(),
            pending: Vec::with_capacity(CHUNK),
            emitted_samples: 0,
            stopped: false,
        }
    }

    /// Adds decoded samples.
    pub(super) fn push(&mut self, block: &Block) -> Result<ControlFlow<()>, AudioError> {
        if self.resampler.as_ref().is_none_or(|resampler| resampler.rate() != block.rate) {
            // Recordings that were joined may differ in their rate.
            if self.flush()?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            self.resampler = Resampler::new(block.rate);
        }
        if let Some(resampler) = &mut self.resampler {
            resampler.push(&block.samples, &mut self.resampled);
        }
        self.convert()
    }

    /// Adds seconds of silence, in pieces, so that a long one takes no memory.
    pub(super) fn silence(&mut self, seconds: f64) -> Result<ControlFlow<()>, AudioError> {
        // A long one isn't resampled, because zeros are zeros at any rate.
        if seconds > 1.0 && self.flush()?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        let rate = self.resampler.as_ref().map_or(SAMPLE_RATE, Resampler::rate);
        let mut frames = (seconds * f64::from(rate)).round() as u64;
        while frames > 0 {
            let now = usize::try_from(frames).unwrap_or(CHUNK).min(CHUNK);
            let flow = match &mut self.resampler {
                Some(resampler) => {
                    resampler.push(&[0.0; CHUNK][..now], &mut self.resampled);
                    self.convert()?
                }
                None => self.push_samples(&[0; CHUNK][..now])?,
            };
            if flow.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            frames -= now as u64;
        }
        Ok(ControlFlow::Continue(()))
    }

    pub(super) fn flush(&mut self) -> Result<ControlFlow<()>, AudioError> {
        if let Some(mut resampler) = self.resampler.take() {
            resampler.finish(&mut self.resampled);
        }
        self.convert()
    }

    fn convert(&mut self) -> Result<ControlFlow<()>, AudioError> {
        let resampled = std::mem::take(&mut self.resampled);
        let mut flow = ControlFlow::Continue(());
        for part in resampled.chunks(CHUNK) {
            let mut samples = [0_i16; CHUNK];
            for (sample, value) in samples.iter_mut().zip(part) {
                *sample = (value * 32_767.0).round() as i16;
            }
            flow = self.push_samples(&samples[..part.len()])?;
            if flow.is_break() {
                break;
            }
        }
        self.resampled = resampled;
        self.resampled.clear();
        Ok(flow)
    }

    /// Adds samples that are in the final format.
    pub(super) fn push_samples(&mut self, mut samples: &[i16]) -> Result<ControlFlow<()>, AudioError> {
        if self.stopped {
            return Ok(ControlFlow::Break(()));
        }
        while !samples.is_empty() {
            let (now, later) = samples.split_at(samples.len().min(CHUNK - self.pending.len()));
            self.pending.extend_from_slice(now);
            samples = later;
            if self.pending.len() == CHUNK && self.emit()?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn emit(&mut self) -> Result<ControlFlow<()>, AudioError> {
        if self.pending.is_empty() {
            return Ok(ControlFlow::Continue(()));
        }
        self.emitted_samples += self.pending.len() as u64;
        let duration = self.duration();
        if duration > self.limit {
            return Err(AudioError::TooLong { duration, at_least: true, limit: self.limit });
        }
        let flow = (self.sink)(&self.pending)?;
        self.pending.clear();
        self.stopped = flow.is_break();
        Ok(flow)
    }

    /// Seconds passed on so far.
    pub(super) fn duration(&self) -> f64 {
        self.emitted_samples as f64 / f64::from(SAMPLE_RATE)
    }

    /// Passes on what remains. Returns the seconds passed on, and whether the sink has stopped.
    pub(super) fn finish(mut self) -> Result<(f64, bool), AudioError> {
        if !self.stopped && self.flush()?.is_continue() {
            // A break has no effect at the end.
            let _ = self.emit()?;
        }
        Ok((self.duration(), self.stopped))
    }
}
