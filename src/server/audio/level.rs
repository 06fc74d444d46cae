//! The level of a recording and how its channels relate, measured on its first sound or, where that is unusual, on all
//! of it; and what follows: which channels are mixed, and how much louder or softer the mix is made. Both runs of a
//! decoder measure the same samples, so both decide the same. Used by `decode`, and by `process` for ffmpeg.

use crate::model::Remark;

/// Seconds in a block whose level is measured: about a syllable.
const BLOCK_SECS: f64 = 0.05;

/// Blocks of ordinary sound after which nothing else need be measured: ten seconds.
const ENOUGH_BLOCKS: u32 = 200;

/// Blocks that must reach a level for it to count as the recording's: half a second.
const LOUD_BLOCKS: u32 = 10;

/// The level in dB below which a recording is too quiet for engines, which take it for a pause.
const QUIET: f64 = -45.0;

/// The level in dB to which quiet and overdriven recordings are set: that of usual speech.
const TARGET: f64 = -20.0;

/// The level in dB that no recording is made louder than.
const MAX_GAIN: f64 = 100.0;

/// The level in dB of the two lowest bits of 16. Below it, what was recorded as integers or compressed is silence.
const SILENT: f64 = -84.0;

/// The level in dB below which a recording of floats is silence.
const SILENT_FLOAT: f64 = -130.0;

/// Below this level in dB, a track counts as silent if another one is louder.
const SILENT_TRACK: f64 = -60.0;

/// By how many dB that other one must be louder.
const LOUDER_TRACK: f64 = 20.0;

/// How many dB the loudest channel may be above the mix beyond what the number of channels explains.
const CANCELLED: f64 = 3.0;

/// Channels of a film. More come from a mixing desk.
const FILM_CHANNELS: usize = 8;

/// How many dB the loudest channel of a mixing desk is above the mix of all if most are silent.
const DILUTED: f64 = 12.0;

/// Channels within so many dB of the loudest one hold sound.
const SOUNDING: f64 = 30.0;

/// By how many dB one of two channels is louder in a block that it has to itself.
const ALONE: f64 = 10.0;

/// Blocks within so many dB of the loud ones are speech, and not the noise between.
const SPEECH_RANGE: f64 = 25.0;

/// Two channels have a speaker each if one block in so many, at least, is one channel's alone. In a recording of a room,
/// and in most music, hardly any is; where two people talk all the time at once, it is still two in five.
const APART: u32 = 4;

/// The share of the sound of two channels that is the same in both if they count as the same.
const SAME: f64 = 0.9;

/// Channels that are measured apart. Further ones are only mixed.
const MAX_CHANNELS: usize = 256;

/// The sample that is above full scale not only by the rounding of a lossy codec: 3 dB.
const OVER: f64 = 1.4;

/// The lowest level that is told apart, in dB, and the number of steps of one dB above it.
const LOWEST: f64 = -150.0;
const STEPS: usize = 220;

/// Which channels are heard, and by how much the result is amplified.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Mix {
    /// The channels that are averaged; none for all of them.
    pub(super) channels: Option<Vec<usize>>,
    /// The factor of the samples.
    pub(super) gain: f32,
}

impl Default for Mix {
    fn default() -> Self {
        Self { channels: None, gain: 1.0 }
    }
}

impl Mix {
    /// Appends the mix of interleaved samples to `out`.
    pub(super) fn apply(&self, interleaved: &[f32], channels: usize, out: &mut Vec<f32>) {
        // Values out of range in a float recording would spread over a whole block when it is resampled.
        let clean = |sample: f32| {
            if sample.is_finite() { sample.clamp(-1.0, 1.0) } else { 0.0 }
        };
        let chosen = self.channels.as_deref().filter(|chosen| chosen.iter().all(|channel| *channel < channels));
        let frames = interleaved.chunks_exact(channels.max(1));
        match chosen {
            Some(chosen) => {
                let share = self.gain / chosen.len() as f32;
                out.extend(
                    frames.map(|frame| clean(chosen.iter().map(|channel| frame[*channel]).sum::<f32>() * share)),
                );
            }
            None => {
                let share = self.gain / channels.max(1) as f32;
                out.extend(frames.map(|frame| clean(frame.iter().sum::<f32>() * share)));
            }
        }
    }
}

/// How many blocks have which level.
#[derive(Clone)]
struct Levels(Vec<u32>);

impl Levels {
    fn new() -> Self {
        Self(vec![0; STEPS])
    }

    fn add(&mut self, mean_square: f64) {
        let step = (decibels(mean_square) - LOWEST).clamp(0.0, (STEPS - 1) as f64);
        self.0[step as usize] += 1;
    }

    fn blocks(&self) -> u32 {
        self.0.iter().sum()
    }

    fn above(&self, level: f64) -> u32 {
        self.0.iter().skip((level - LOWEST) as usize).sum()
    }

    /// The level that half a second of the sound reaches, or a twentieth of a short recording.
    fn loud(&self) -> f64 {
        let wanted = (self.blocks() / 20).clamp(1, LOUD_BLOCKS);
        let mut louder = 0;
        for (step, count) in self.0.iter().enumerate().rev() {
            louder += count;
            if louder >= wanted {
                return LOWEST + step as f64;
            }
        }
        LOWEST
    }
}

fn decibels(mean_square: f64) -> f64 {
    10.0 * mean_square.max(1e-15).log10()
}

/// Measures a recording.
pub(super) struct Meter {
    /// Whether samples may be far below full scale and still be sound.
    float: bool,
    channels: usize,
    /// Frames of a block, and those it has so far.
    length: usize,
    filled: usize,
    measured: u32,
    /// Sums of squares in the present block: of the mix, and of each channel.
    mix_power: f64,
    powers: Vec<f64>,
    mix: Levels,
    each: Vec<Levels>,
    /// Of two channels, by the level of the louder one: the blocks that each has to itself, and all blocks.
    alone: [Levels; 2],
    either: Levels,
    /// Sums over the whole recording for its first two channels: their squares and their product.
    correlation: [f64; 3],
    samples: u64,
    over: u64,
}

impl Meter {
    pub(super) fn new(codec: &str, rate: u32, channels: u16) -> Self {
        let channels = usize::from(channels).max(1);
        let apart = channels.min(MAX_CHANNELS);
        Self {
            float: codec.starts_with("pcm_f"),
            channels,
            length: ((f64::from(rate) * BLOCK_SECS) as usize).max(1),
            filled: 0,
            measured: 0,
            mix_power: 0.0,
            powers: vec![0.0; apart],
            mix: Levels::new(),
            each: vec![Levels::new(); apart],
            alone: [Levels::new(), Levels::new()],
            either: Levels::new(),
            correlation: [0.0; 3],
            samples: 0,
            over: 0,
        }
    }

    /// Adds interleaved samples. Of those with another number of channels, after a change within the recording, only the
    /// mix is measured.
    pub(super) fn add(&mut self, interleaved: &[f32], channels: usize) {
        let channels = channels.max(1);
        let is_known = channels == self.channels;
        let share = 1.0 / channels as f64;
        for frame in interleaved.chunks_exact(channels) {
            let mut sum = 0.0;
            for (channel, sample) in frame.iter().enumerate() {
                let sample = if sample.is_finite() { f64::from(*sample) } else { 0.0 };
                sum += sample;
                if let Some(power) = self.powers.get_mut(channel).filter(|_| is_known) {
                    *power += sample * sample;
                }
                self.over += u64::from(sample.abs() > OVER);
            }
            self.samples += channels as u64;
            self.mix_power += (sum * share).powi(2);
            if let [left, right] = *frame
                && left.is_finite()
                && right.is_finite()
            {
                let (left, right) = (f64::from(left), f64::from(right));
                self.correlation[0] += left * left;
                self.correlation[1] += right * right;
                self.correlation[2] += left * right;
            }
            self.filled += 1;
            if self.filled == self.length {
                self.close();
            }
        }
    }

    fn close(&mut self) {
        let frames = self.filled as f64;
        self.mix.add(self.mix_power / frames);
        if let [left, right] = self.powers[..] {
            let (left, right) = (left / frames, right / frames);
            self.either.add(left.max(right));
            let difference = decibels(left) - decibels(right);
            if difference.abs() >= ALONE {
                self.alone[usize::from(difference < 0.0)].add(left.max(right));
            }
        }
        for (levels, power) in self.each.iter_mut().zip(&mut self.powers) {
            levels.add(*power / frames);
            *power = 0.0;
        }
        (self.mix_power, self.filled, self.measured) = (0.0, 0, self.measured + 1);
    }

    /// Blocks measured so far.
    pub(super) fn blocks(&self) -> u32 {
        self.measured
    }

    /// Whether enough was heard to know that the recording is an ordinary one.
    pub(super) fn is_ordinary(&self) -> bool {
        self.mix.above(QUIET) >= ENOUGH_BLOCKS && !self.is_overdriven() && !self.cancels() && !self.is_diluted()
    }

    /// Whether enough was heard to decide. A recording in which two speakers are searched for is heard until they are
    /// found, because the second one may speak late.
    pub(super) fn is_enough(&self, find_speakers: bool) -> bool {
        self.is_ordinary() && (!find_speakers || self.channels != 2 || self.is_apart())
    }

    /// Whether each of two channels has a speaker of its own, so that often only one of them has sound. How alike their
    /// samples are tells nothing: two microphones in a room hear the same people, but not at the same moment.
    fn is_apart(&self) -> bool {
        let speech = self.loudest().1 - SPEECH_RANGE;
        let [left, right] = [0, 1].map(|channel| self.alone[channel].above(speech));
        self.channels == 2
            && left >= LOUD_BLOCKS
            && right >= LOUD_BLOCKS
            && (left + right) * APART >= self.either.above(speech)
    }

    /// Why there are no two speakers on two channels, for the reader of the transcript. `sounding` are the channels with
    /// sound.
    fn why_not_apart(&self, sounding: &[usize]) -> String {
        let [left, right, both] = self.correlation;
        match (self.channels, sounding) {
            (1, _) => "The recording has only one channel, so there were no two to transcribe apart.".to_owned(),
            (3.., _) => format!(
                "The recording has {} channels, and only two can be transcribed apart; they were mixed instead.",
                self.channels
            ),
            (_, [one]) => format!("Only channel {} of 2 has sound in it, so it alone was transcribed.", one + 1),
            _ if both.abs() > SAME * (left * right).sqrt() => {
                "Both channels hold the same sound, so they were transcribed as one.".to_owned()
            }
            _ => "The two channels don't have a speaker each, so they were transcribed as one.".to_owned(),
        }
    }

    /// Whether few of many channels have sound, which is lost among the others. Film sound has up to eight channels, of
    /// which the others are often silent.
    fn is_diluted(&self) -> bool {
        self.channels > FILM_CHANNELS && self.loudest().1 - self.mix.loud() > DILUTED
    }

    fn is_overdriven(&self) -> bool {
        self.over > self.samples / 1_000
    }

    fn loudest(&self) -> (usize, f64) {
        let levels = self.each.iter().map(Levels::loud).enumerate();
        levels.fold((0, LOWEST), |best, next| if next.1 > best.1 { next } else { best })
    }

    fn silence(&self) -> f64 {
        if self.float { SILENT_FLOAT } else { SILENT }
    }

    /// Whether the mix holds less than its channels do.
    fn cancels(&self) -> bool {
        let (_, loudest) = self.loudest();
        if self.channels < 2 || loudest <= self.silence() {
            return false;
        }
        // One channel of n that has all the sound is 1/n of the mix.
        let explained = 20.0 * (self.channels as f64).log10();
        let [left, right, both] = self.correlation;
        loudest - self.mix.loud() > explained + CANCELLED || both < -0.5 * (left * right).sqrt()
    }

    /// What to hear of the recording, and what to say about it; also why there are no two speakers on two channels, if
    /// they were to be found.
    pub(super) fn decide(mut self, find_speakers: bool) -> Level {
        if self.filled > 0 {
            self.close();
        }
        let (loudest, level) = self.loudest();
        let level = level.max(self.mix.loud());
        if level <= self.silence() {
            return Level { level, mix: Mix::default(), is_apart: false, remarks: Vec::new() };
        }
        let mut remarks = Vec::new();
        let mut remark = |code: &str, message: String| remarks.push(Remark::new(code, &message));
        let mut heard = (None, self.mix.loud());
        let sounding: Vec<usize> =
            (0..self.each.len()).filter(|channel| self.each[*channel].loud() > level - SOUNDING).collect();
        let is_apart = find_speakers && self.is_apart();
        if find_speakers && !is_apart {
            remark("channels_together", self.why_not_apart(&sounding));
        }
        if self.cancels() {
            heard = (Some(vec![loudest]), self.each[loudest].loud());
            remark(
                "channels_cancel",
                format!(
                    "The recording's {} channels cancel each other when they are mixed, so channel {} alone was heard.",
                    self.channels,
                    loudest + 1
                ),
            );
        } else if find_speakers && self.channels == 2 && sounding.len() == 1 {
            heard = (Some(sounding), level);
        } else if self.channels > 2 && sounding.len() < self.channels && (heard.1 < QUIET || self.is_diluted()) {
            let power: f64 = sounding.iter().map(|channel| 10_f64.powf(self.each[*channel].loud() / 10.0)).sum();
            let level = decibels(power / (sounding.len() as f64).powi(2));
            let names: Vec<String> = sounding.iter().map(|channel| (channel + 1).to_string()).collect();
            let of = self.channels;
            remark(
                "channels",
                match &names[..] {
                    [one] => format!("Only channel {one} of {of} has sound in it, so it alone was heard."),
                    several if several.len() <= 8 => {
                        format!(
                            "Only the channels {} of {of} have sound in them, so they alone were mixed.",
                            names.join(", ")
                        )
                    }
                    several => {
                        format!("Only {} of {of} channels have sound in them, so they alone were mixed.", several.len())
                    }
                },
            );
            heard = (Some(sounding), level);
        }
        let (channels, level) = heard;
        let gain = if level < QUIET || self.is_overdriven() { (TARGET - level).min(MAX_GAIN) } else { 0.0 };
        if level < QUIET {
            // A mix of few channels of many is soft by itself.
            remark("quiet", format!("The recording is very quiet. It was made {gain:.0} dB louder to be heard."));
        } else if gain < 0.0 {
            let softer = -gain;
            remark(
                "overdriven",
                format!("The recording is louder than its format allows. It was made {softer:.0} dB softer."),
            );
        }
        // An overdriven recording whose sound isn't loud otherwise is left as it is.
        let gain = if level < QUIET { gain } else { gain.min(0.0) };
        Level { level, mix: Mix { channels, gain: 10_f32.powf(gain as f32 / 20.0) }, is_apart, remarks }
    }
}

/// What a meter has found.
#[derive(Clone, Debug)]
pub(super) struct Level {
    /// That of the loud parts, in dB below full scale.
    level: f64,
    pub(super) mix: Mix,
    /// Whether each of two channels has a speaker of its own.
    pub(super) is_apart: bool,
    pub(super) remarks: Vec<Remark>,
}

impl Level {
    /// Whether the track has so little sound that another one is worth measuring.
    pub(super) fn is_silent(&self) -> bool {
        self.level < SILENT_TRACK
    }

    /// Whether this track is to be heard instead of a silent one.
    pub(super) fn is_louder_than(&self, silent: &Self) -> bool {
        self.level > silent.level + LOUDER_TRACK
    }
}

/// Why a track was heard.
pub(super) enum Choice {
    /// The file prefers it.
    Default,
    /// The one that the file prefers, with this number, is silent.
    InsteadOf(usize),
    /// It was asked for.
    Chosen,
}

/// The remark about a choice among so many audio tracks, by their numbers from 1.
pub(super) fn tracks_remark(count: usize, heard: usize, choice: &Choice) -> Option<Remark> {
    let message = match choice {
        _ if count < 2 => return None,
        Choice::Chosen => format!("The recording has {count} audio tracks. Track {heard} was heard, as chosen."),
        Choice::InsteadOf(silent) => format!(
            "The recording has {count} audio tracks. Track {heard} was heard, because track {silent} has no sound in it."
        ),
        Choice::Default => format!("The recording has {count} audio tracks. Track {heard} was heard."),
    };
    Some(Remark::new("tracks", &message))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds of noise at a level in dB, as interleaved samples of channels with these factors.
    fn noise(seconds: f64, level: f64, factors: &[f32]) -> Vec<f32> {
        let mut random = 7_u32;
        let scale = 10_f32.powf(level as f32 / 20.0) * 3_f32.sqrt();
        let frames = (seconds * 8_000.0) as usize;
        let mut samples = Vec::new();
        for _ in 0..frames {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let sample = (random as f32 / u32::MAX as f32 * 2.0 - 1.0) * scale;
            samples.extend(factors.iter().map(|factor| factor * sample));
        }
        samples
    }

    fn decide(codec: &str, samples: &[f32], channels: u16) -> Level {
        let mut meter = Meter::new(codec, 8_000, channels);
        meter.add(samples, channels.into());
        meter.decide(false)
    }

    fn level_after(level: &Level, samples: &[f32], channels: usize) -> f64 {
        let mut out = Vec::new();
        level.mix.apply(samples, channels, &mut out);
        decibels(out.iter().map(|sample| f64::from(*sample).powi(2)).sum::<f64>() / out.len() as f64)
    }

    #[test]
    fn ordinary_recordings_are_left_alone_and_known_early() {
        for factors in [&[1.0][..], &[1.0, 1.0], &[1.0, 0.0], &[0.3, 1.0, 1.0, 0.2, 0.0, 0.5]] {
            let samples = noise(11.0, -20.0, factors);
            let mut meter = Meter::new("aac", 8_000, factors.len() as u16);
            meter.add(&samples, factors.len());
            assert!(meter.is_ordinary(), "{factors:?}");
            let level = meter.decide(false);
            assert_eq!(level.mix, Mix::default(), "{factors:?}");
            assert!(level.remarks.is_empty() && !level.is_silent());
        }
    }

    #[test]
    fn silence_stays_silence() {
        for (codec, level) in [("pcm_s16le", -90.0), ("pcm_f32le", -140.0), ("opus", -100.0)] {
            let level = decide(codec, &noise(3.0, level, &[1.0, -1.0]), 2);
            assert_eq!(level.mix, Mix::default());
            assert!(level.is_silent() && level.remarks.is_empty());
        }
    }

    #[test]
    fn quiet_and_overdriven_recordings_are_set_to_the_level_of_speech() {
        for (codec, level) in [("pcm_f32le", -80.0), ("pcm_s16le", -60.0), ("pcm_f64le", -110.0), ("pcm_f32le", 20.0)] {
            let samples = noise(3.0, level, &[1.0, 1.0]);
            let decided = decide(codec, &samples, 2);
            let after = level_after(&decided, &samples, 2);
            assert!((after - TARGET).abs() < 2.0, "{codec} {level}: {after}");
            assert_eq!(decided.remarks.len(), 1, "{codec} {level}");
        }
    }

    #[test]
    fn channels_that_cancel_or_are_empty_are_left_out() {
        let samples = noise(3.0, -20.0, &[1.0, -0.9]);
        let opposite = decide("pcm_s16le", &samples, 2);
        assert_eq!(opposite.mix.channels, Some(vec![0]));
        assert!((level_after(&opposite, &samples, 2) + 20.0).abs() < 1.0);
        let mut factors = [0.0; 32];
        factors[6] = 1.0;
        let samples = noise(3.0, -20.0, &factors);
        let one = decide("pcm_s16le", &samples, 32);
        assert_eq!(one.mix, Mix { channels: Some(vec![6]), gain: 1.0 });
        assert!(one.remarks[0].message.contains("channel 7 of 32"), "{:?}", one.remarks);
    }

    /// Speech-like bursts of noise on two channels: which factors they have, one after the other.
    fn bursts(factors: &[[f32; 2]], times: usize) -> Vec<f32> {
        (0..times).flat_map(|_| factors).flat_map(|factors| noise(0.5, -20.0, factors)).collect()
    }

    fn found(samples: &[f32], channels: u16) -> Level {
        let mut meter = Meter::new("pcm_s16le", 8_000, channels);
        meter.add(samples, channels.into());
        meter.decide(true)
    }

    #[test]
    fn two_speakers_on_two_channels_are_found() {
        // In turns, with crosstalk, at unequal levels, also at the same time now and then; and when the second speaks late.
        for samples in [
            bursts(&[[1.0, 0.0], [0.0, 1.0]], 5),
            bursts(&[[1.0, 0.1], [0.0, 0.0], [0.03, 0.3]], 5),
            bursts(&[[1.0, 0.0], [0.9, 1.0], [0.0, 1.0]], 5),
            [bursts(&[[1.0, 0.0]], 60), bursts(&[[0.0, 1.0]], 3)].concat(),
        ] {
            let level = found(&samples, 2);
            assert!(level.is_apart && level.remarks.is_empty(), "{level:?}");
            assert!(!{
                let mut meter = Meter::new("pcm_s16le", 8_000, 2);
                meter.add(&samples, 2);
                meter.decide(false).is_apart
            });
        }
        // As long as the second hasn't spoken, the recording isn't decided.
        let mut meter = Meter::new("pcm_s16le", 8_000, 2);
        meter.add(&bursts(&[[1.0, 0.0]], 60), 2);
        assert!(meter.is_enough(false) && !meter.is_enough(true));
        meter.add(&bursts(&[[0.0, 1.0]], 3), 2);
        assert!(meter.is_enough(true));
    }

    #[test]
    fn channels_without_a_speaker_each_are_not_taken_apart() {
        let room: Vec<f32> = noise(10.0, -20.0, &[1.0]);
        // The second microphone hears the same later and softer, so that the samples aren't alike.
        let room: Vec<f32> = (40..room.len()).flat_map(|n| [room[n], 0.6 * room[n - 40]]).collect();
        for (samples, channels, says) in [
            (bursts(&[[1.0, 1.0], [0.0, 0.0]], 5), 2, "hold the same sound"),
            (bursts(&[[1.0, 0.5], [0.0, 0.0]], 5), 2, "hold the same sound"),
            (room, 2, "don't have a speaker each"),
            (bursts(&[[1.0, 0.0]], 10), 2, "Only channel 1 of 2 has sound"),
            (bursts(&[[0.001, 1.0]], 10), 2, "Only channel 2 of 2 has sound"),
            (noise(5.0, -20.0, &[1.0]), 1, "only one channel"),
            (noise(5.0, -20.0, &[1.0, 0.0, 1.0]), 3, "has 3 channels"),
        ] {
            let level = found(&samples, channels);
            assert!(!level.is_apart);
            let said: Vec<&str> = level.remarks.iter().map(|remark| remark.message.as_str()).collect();
            assert!(said.len() == 1 && said[0].contains(says), "{said:?}");
        }
        assert_eq!(found(&bursts(&[[0.0, 1.0]], 10), 2).mix.channels, Some(vec![1]));
        assert!(found(&[0.0; 8_000], 2).remarks.is_empty());
    }

    #[test]
    fn a_mix_for_other_channels_is_the_plain_one() {
        let mut out = Vec::new();
        Mix { channels: Some(vec![6]), gain: 1.0 }.apply(&[0.5, 0.25, f32::NAN, 0.0], 2, &mut out);
        assert_eq!(out, [0.375, 0.0]);
    }
}
