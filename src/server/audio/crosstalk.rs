//! One speaker's own sound of a recording with a speaker on each of two channels. A telephone line, or a microphone at the
//! other side of the table, carries a faint copy of the other speaker, which an engine would write down a second time: where
//! the other channel is far louder, the channel is made silent. Pure; used by `decode`, and by `process` for ffmpeg.

/// By how many times the other channel must have more power: 15 dB. Whoever interrupts is louder than that.
const LOUDER: f32 = 32.0;

/// Seconds over which the power is averaged.
const AVERAGED_SECS: f32 = 0.01;

/// Seconds in which the other channel's power counts for a tenth. Its copy may come so much later, as an echo.
const ECHO_SECS: f32 = 0.1;

/// Seconds in which the channel becomes silent or is heard again, so that it doesn't click.
const FADE_SECS: f32 = 0.005;

/// Takes one of two channels out of interleaved samples.
pub(super) struct Crosstalk {
    channel: usize,
    /// What a sample changes the averages by, what is left of the other's power after one, and the step of a fade.
    average: f32,
    echo: f32,
    fade: f32,
    own: f32,
    other: f32,
    /// The other's power, or what is left of an earlier one.
    peak: f32,
    gain: f32,
}

impl Crosstalk {
    /// For the channel of this number, from 0, at this rate.
    pub(super) fn new(channel: u16, rate: u32) -> Self {
        let rate = rate.max(1) as f32;
        Self {
            channel: channel.into(),
            average: 1.0 / (AVERAGED_SECS * rate).max(1.0),
            echo: 0.1_f32.powf(1.0 / (ECHO_SECS * rate)),
            fade: 1.0 / (FADE_SECS * rate).max(1.0),
            own: 0.0,
            other: 0.0,
            peak: 0.0,
            gain: 1.0,
        }
    }

    /// Returns the speaker's own samples. A part of the recording with one channel is the first speaker's, so that nobody
    /// is heard twice.
    pub(super) fn remove(&mut self, interleaved: &[f32], channels: usize) -> Vec<f32> {
        let frames = interleaved.chunks_exact(channels.max(1));
        frames.map(|frame| self.sample(frame)).collect()
    }

    fn sample(&mut self, frame: &[f32]) -> f32 {
        let finite = |sample: f32| if sample.is_finite() { sample } else { 0.0 };
        let own = frame.get(self.channel).copied().map_or(0.0, finite);
        let [left, right] = *frame else { return own };
        let other = finite(if self.channel == 0 { right } else { left });
        self.own += (own * own - self.own) * self.average;
        self.other += (other * other - self.other) * self.average;
        self.peak = self.other.max(self.peak * self.echo);
        let step = if self.own * LOUDER < self.peak { -self.fade } else { self.fade };
        self.gain = (self.gain + step).clamp(0.0, 1.0);
        own * self.gain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u32 = 8_000;

    /// Half a second of two tones with these amplitudes, as interleaved samples.
    fn tones(left: f32, right: f32) -> Vec<f32> {
        (0..RATE / 2).flat_map(|n| [left * (n as f32 * 0.3).sin(), right * (n as f32 * 0.5).sin()]).collect()
    }

    fn rms(samples: &[f32]) -> f32 {
        (samples.iter().map(|sample| sample * sample).sum::<f32>() / samples.len() as f32).sqrt()
    }

    /// The level of a channel in the middle of each half second.
    fn levels(channel: u16, parts: &[Vec<f32>]) -> Vec<f32> {
        let mut crosstalk = Crosstalk::new(channel, RATE);
        let parts = parts.iter().map(|part| crosstalk.remove(part, 2));
        parts.map(|own| rms(&own[1_500..3_000]) * 2_f32.sqrt()).collect()
    }

    #[test]
    fn a_faint_copy_of_the_other_speaker_is_removed() {
        let parts = [tones(0.5, 0.025), tones(0.025, 0.5), tones(0.5, 0.4), tones(0.5, 0.2), tones(0.0, 0.0)];
        let near = |found: Vec<f32>, expected: [f32; 5]| {
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 0.01), "{found:?}");
        };
        near(levels(0, &parts), [0.5, 0.0, 0.5, 0.5, 0.0]);
        // Who interrupts is heard.
        near(levels(1, &parts), [0.0, 0.5, 0.4, 0.2, 0.0]);
    }

    #[test]
    fn whoever_answers_is_heard_at_once_and_an_echo_is_not() {
        let mut crosstalk = Crosstalk::new(1, RATE);
        crosstalk.remove(&tones(0.5, 0.0), 2);
        // The first 30 ms of an answer in an ordinary voice.
        let answer = crosstalk.remove(&tones(0.0, 0.3), 2);
        assert!(rms(&answer[..240]) > 0.12, "{}", rms(&answer[..240]));
        let mut crosstalk = Crosstalk::new(1, RATE);
        crosstalk.remove(&tones(0.5, 0.0), 2);
        let echo = crosstalk.remove(&tones(0.0, 0.02), 2);
        assert!(rms(&echo[..240]) < 0.002, "{}", rms(&echo[..240]));
    }

    #[test]
    fn a_part_with_fewer_channels_is_the_first_speakers() {
        let samples = [0.1, 0.2, f32::NAN, 0.4];
        assert_eq!(Crosstalk::new(0, RATE).remove(&samples, 1), [0.1, 0.2, 0.0, 0.4]);
        assert_eq!(Crosstalk::new(1, RATE).remove(&samples, 1), [0.0; 4]);
        assert_eq!(Crosstalk::new(1, RATE).remove(&[0.3, 0.3, 0.3], 3), [0.3]);
    }
}
