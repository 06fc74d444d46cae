//! The mix of several audio tracks, each of which a decoder of its own puts where the recording's clock has it. Used by
//! `process`.

use super::{super::AudioError, Decoding};
use crate::model::Remark;

/// Tracks that are mixed.
#[derive(Default)]
pub(super) struct Mixer {
    tracks: Vec<MixedTrack>,
}

struct MixedTrack {
    /// Its number, from 1.
    number: u16,
    /// None once it has ended.
    decoding: Option<Box<Decoding>>,
    /// Samples that wait for those of the other tracks.
    samples: Vec<i16>,
    remarks: Vec<Remark>,
}

impl Mixer {
    /// Adds a track by its number, from 1.
    pub(super) fn add(&mut self, number: u16, decoding: Decoding) {
        let decoding = Some(Box::new(decoding));
        self.tracks.push(MixedTrack { number, decoding, samples: Vec::new(), remarks: Vec::new() });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tracks.is_empty()
    }

    /// Returns the next samples of the mix; none once all tracks have ended. The future must not be dropped before it is
    /// done.
    ///
    /// # Errors
    /// If the storage fails, or no track can be decoded to its end. Of any other track, what came before is kept.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<i16>>, AudioError> {
        for track in &mut self.tracks {
            track.fill().await?;
        }
        let running = || self.tracks.iter().filter(|track| track.decoding.is_some());
        // What all tracks have that go on; in the end, the rest of the longest.
        let ready = match running().map(|track| track.samples.len()).min() {
            Some(ready) => ready,
            None => self.tracks.iter().map(|track| track.samples.len()).max().unwrap_or(0),
        };
        let share = 1.0 / (self.tracks.len() as f32).sqrt();
        let mut mixed = vec![0.0_f32; ready];
        for track in &mut self.tracks {
            let own = ready.min(track.samples.len());
            for (sum, sample) in mixed.iter_mut().zip(track.samples.drain(..own)) {
                *sum += f32::from(sample) * share;
            }
        }
        // `as` saturates, as a recording that is too loud does.
        Ok((ready > 0).then(|| mixed.into_iter().map(|sample| sample.round() as i16).collect()))
    }

    /// What is to be said of the tracks, once all have ended.
    pub(super) fn remarks(&mut self) -> Vec<Remark> {
        let tracks = self.tracks.iter_mut();
        tracks.flat_map(|track| std::mem::take(&mut track.remarks)).collect()
    }
}

impl MixedTrack {
    /// Waits until there are samples or the track has ended.
    async fn fill(&mut self) -> Result<(), AudioError> {
        let Some(decoding) = self.decoding.as_mut().filter(|_| self.samples.is_empty()) else { return Ok(()) };
        // Boxed, because a decoding may hold a mixer.
        match Box::pin(decoding.next()).await {
            Ok(Some(samples)) => self.samples = samples,
            Err(error @ (AudioError::Io(_) | AudioError::TooLong { .. })) => return Err(error),
            Err(_) => self.end(true),
            Ok(None) => self.end(false),
        }
        Ok(())
    }

    fn end(&mut self, failed: bool) {
        let Some(decoding) = self.decoding.take() else { return };
        let of_track = |message: &str| format!("Track {}: {message}", self.number);
        let remarks = decoding.finish().remarks.into_iter();
        // That there are several tracks, and which was heard, is said of the mix.
        let remarks = remarks.filter(|remark| remark.code != "tracks");
        self.remarks = remarks.map(|remark| Remark::new(&remark.code, &of_track(&remark.message))).collect();
        if failed {
            self.remarks.push(Remark::new("damaged", &of_track("it could not be heard to its end.")));
        }
    }
}
