//! The `pocketsphinx` engine: Debian's `pocketsphinx_continuous`, which gets pieces cut at pauses through a pipe. After
//! each piece it gets a second of quiet noise, so that it ends the utterance and prints the result.

use super::{
    Availability, Engine, Request, SpeechError,
    languages::Languages,
    own_child,
    pieces::{Cutter, Rules},
    pipe::{ChildError, read_samples, say, say_ready, say_segment, seconds},
    protocol::{EngineSegment, Line},
};
use crate::{
    model::{EngineId, Word},
    server::programs,
};
use std::{
    io::{self, BufRead, BufReader, Write},
    ops::Range,
    path::{Path, PathBuf},
    process::{ChildStdin, Command as StdCommand, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
};
use tokio::process::Command;

const PROGRAM: &str = "pocketsphinx_continuous";
const MODEL: &str = "/usr/share/pocketsphinx/model/en-us";
/// Frames of 10 ms with speech with which an utterance begins; the default is 10. The program reads its input in blocks of
/// 12.8 frames, and only looks after each of them whether an utterance has ended. If the next one began within the same
/// block, the program would go on with the old one, and give its words the times of the new one.
const START_FRAMES: &str = "13";
/// Samples of quiet noise after each piece. The program's voice detection ends an utterance after half a second.
const QUIET_SAMPLES: usize = 16_000;
/// Samples below this level (of 32768) are digital silence.
const MIN_LEVEL: u16 = 8;
/// The size of the pipe in bytes. Everything written before the last so many bytes has been read by the program.
const PIPE_BYTES: usize = 16 * 1024;
/// The program reads this many bytes at a time.
const READ_AHEAD: usize = 4096;

pub(super) struct Pocketsphinx {
    program: Option<PathBuf>,
}

impl Pocketsphinx {
    pub(super) fn new(program: Option<PathBuf>) -> Self {
        Self { program }
    }
}

impl Engine for Pocketsphinx {
    fn id(&self) -> EngineId {
        EngineId::Pocketsphinx
    }

    fn model(&self) -> String {
        "en-us".to_owned()
    }

    fn languages(&self) -> Languages {
        Languages::english()
    }

    fn hears_narrow_band(&self) -> bool {
        false
    }

    fn availability(&self) -> Availability {
        let reason = if programs::find(PROGRAM).is_none() {
            format!("The program {PROGRAM} is not installed.")
        } else if !Path::new(MODEL).is_dir() {
            "Its English model is not installed.".to_owned()
        } else {
            return Availability::Ready;
        };
        Availability::Missing { reason, install: "apt-get install pocketsphinx pocketsphinx-en-us".to_owned() }
    }

    fn command(&self, _: &Request) -> Result<Command, SpeechError> {
        own_child(self.program.as_deref(), &["pocketsphinx"])
    }
}

/// Maps times in the program's input to times in the recording.
#[derive(Debug, Default)]
struct Timeline {
    /// Pieces as their start in the input, their start in the recording, and their length; in samples.
    spans: Vec<(usize, usize, usize)>,
}

impl Timeline {
    /// Converts seconds of input to seconds of the recording. Added quiet counts as the end of the piece before it.
    fn recording_time(&self, input: f64) -> f64 {
        let at = (input.max(0.0) * 16_000.0) as usize;
        let n = self.spans.partition_point(|(start, ..)| *start <= at);
        let Some((start, recording, length)) = n.checked_sub(1).and_then(|n| self.spans.get(n)) else { return 0.0 };
        seconds(recording + (at - start).min(*length))
    }

    /// Converts the start of a word. A word that seems to begin in added quiet begins with the next piece.
    fn word_start(&self, input: f64) -> f64 {
        let at = (input.max(0.0) * 16_000.0) as usize;
        let next = self.spans.iter().find(|(start, _, length)| at < start + length);
        next.map_or_else(
            || self.recording_time(input),
            |(start, recording, _)| seconds(recording + at.saturating_sub(*start)),
        )
    }
}

/// Runs the child: writes to the program on one thread and reads its output on another.
pub(super) fn child() -> Result<(), ChildError> {
    let missing = |e: io::Error| ChildError::new("engine_unavailable", format!("{PROGRAM} can't be started: {e}"));
    let mut program = StdCommand::new(PROGRAM)
        .args(["-infile", "/dev/stdin", "-time", "yes", "-logfn", "/dev/null", "-vad_startspeech", START_FRAMES])
        .args(["-hmm", &format!("{MODEL}/en-us"), "-lm", &format!("{MODEL}/en-us.lm.bin")])
        .args(["-dict", &format!("{MODEL}/cmudict-en-us.dict")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(missing)?;
    let (Some(input), Some(output)) = (program.stdin.take(), program.stdout.take()) else {
        return Err(ChildError::new("io", "The pipes of the speech engine are missing."));
    };
    rustix::pipe::fcntl_setpipe_size(&input, PIPE_BYTES).map_err(io::Error::from)?;
    let timeline = Arc::new(Mutex::new(Timeline::default()));
    let listener = {
        let timeline = Arc::clone(&timeline);
        thread::spawn(move || read_utterances(BufReader::new(output), &timeline))
    };
    let fed = feed(input, &timeline);
    let read = listener.join().map_err(|_| ChildError::new("crashed", "The listener panicked."))?;
    let status = program.wait()?;
    read?;
    if !status.success() {
        return Err(ChildError::new("crashed", format!("{PROGRAM} ended with {status}.")));
    }
    fed
}

fn feed(mut input: ChildStdin, timeline: &Mutex<Timeline>) -> Result<(), ChildError> {
    let mut feeder = Feeder { written: 0, recording: 0, noise: 1, timeline };
    let mut cutter = Cutter::new(Rules::SHORT);
    // The program has loaded its model once it reads more than its pipe holds.
    feeder.quiet(&mut input, (PIPE_BYTES + READ_AHEAD) / 2 + 1600)?;
    say_ready("en-us")?;
    while let Some(samples) = read_samples()? {
        for piece in cutter.push(&samples) {
            feeder.piece(&mut input, &piece)?;
        }
    }
    feeder.piece(&mut input, &cutter.finish())?;
    Ok(())
}

/// The longest time in seconds by which lines come later than their sound was given to the program: twice a piece.
const MAX_DELAY: f64 = 30.0;

/// Writes a `progress` line. The program may still have something to say of the last pieces.
fn say_progress(processed: f64) -> io::Result<()> {
    say(&Line::Progress { processed, settled: Some((processed - MAX_DELAY).max(0.0)) })
}

struct Feeder<'a> {
    /// Samples written to the program, and those of the recording among them.
    written: usize,
    recording: usize,
    /// State of a linear congruential generator (Numerical Recipes).
    noise: u32,
    timeline: &'a Mutex<Timeline>,
}

impl Feeder<'_> {
    fn piece(&mut self, input: &mut ChildStdin, whole: &[i16]) -> Result<(), ChildError> {
        // Digital silence would spoil the program's estimate of the background noise for many seconds, and holds no
        // speech.
        let range = without_silence(whole);
        let (start, end) = (self.recording + range.start, self.recording + whole.len());
        let piece = &whole[range];
        self.recording = end;
        if piece.is_empty() {
            say_progress(seconds(end))?;
            return Ok(());
        }
        let span = (self.written, start, piece.len());
        self.timeline.lock().unwrap_or_else(PoisonError::into_inner).spans.push(span);
        for part in piece.chunks(4000) {
            self.write(input, part)?;
            let consumed = self.written.saturating_sub((PIPE_BYTES + READ_AHEAD) / 2);
            let processed =
                self.timeline.lock().unwrap_or_else(PoisonError::into_inner).recording_time(seconds(consumed));
            say_progress(processed)?;
        }
        self.quiet(input, QUIET_SAMPLES)
    }

    fn quiet(&mut self, input: &mut ChildStdin, samples: usize) -> Result<(), ChildError> {
        // Noise and not zeros, from which the program can't estimate the background noise; and random, because it takes
        // a regular pattern for a voice.
        let noise: Vec<i16> = (0..samples)
            .map(|_| {
                self.noise = self.noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (self.noise >> 28) as i16 - 8
            })
            .collect();
        self.write(input, &noise)
    }

    fn write(&mut self, input: &mut ChildStdin, samples: &[i16]) -> Result<(), ChildError> {
        let bytes: Vec<u8> = samples.iter().flat_map(|s| s.to_le_bytes()).collect();
        input.write_all(&bytes)?;
        self.written += samples.len();
        Ok(())
    }
}

/// Returns the range of a piece without the digital silence at its ends.
fn without_silence(piece: &[i16]) -> Range<usize> {
    let sounds = |s: &i16| s.unsigned_abs() >= MIN_LEVEL;
    let Some(first) = piece.iter().position(sounds) else { return 0..0 };
    let last = piece.iter().rposition(sounds).unwrap_or(first);
    first..last + 1
}

/// Reads utterances: a line of text, then a line for each word with its start, end and confidence.
fn read_utterances(output: impl BufRead, timeline: &Mutex<Timeline>) -> Result<(), ChildError> {
    let mut words = Vec::new();
    for line in output.lines() {
        let line = line?;
        let Some(word) = word(&line) else {
            say_utterance(&mut words, timeline)?;
            continue;
        };
        let last = word.text == "</s>";
        words.push(word);
        if last {
            say_utterance(&mut words, timeline)?;
        }
    }
    say_utterance(&mut words, timeline)
}

/// A word as the program prints it: `left 0.320 0.780 0.780338`.
fn word(line: &str) -> Option<Word> {
    let mut fields = line.split_whitespace();
    let text = fields.next()?.to_owned();
    let mut number = || fields.next()?.parse::<f64>().ok().filter(|n| n.is_finite());
    let (start, end, confidence) = (number()?, number()?, number()?);
    if fields.next().is_some() || end < start {
        return None;
    }
    Some(Word { text, start, end, confidence: Some(confidence.clamp(0.0, 1.0) as f32) })
}

/// Writes the words of an utterance as a segment, with times in the recording.
fn say_utterance(utterance: &mut Vec<Word>, timeline: &Mutex<Timeline>) -> Result<(), ChildError> {
    let timeline = timeline.lock().unwrap_or_else(PoisonError::into_inner);
    let words: Vec<Word> = utterance
        .drain(..)
        .filter_map(|word| {
            let text = plain_word(&word.text)?.to_owned();
            let (start, end) = (timeline.word_start(word.start), timeline.recording_time(word.end));
            Some(Word { text, start, end: end.max(start), ..word })
        })
        .collect();
    let (Some(first), Some(last)) = (words.first(), words.last()) else { return Ok(()) };
    let sum: f32 = words.iter().filter_map(|w| w.confidence).sum();
    say_segment(EngineSegment {
        start: first.start,
        end: last.end,
        text: words.iter().map(|w| w.text.as_str()).collect::<Vec<_>>().join(" "),
        confidence: Some(sum / words.len() as f32),
        words,
    })?;
    Ok(())
}

/// Returns a word without the number of its pronunciation; none for fillers such as `<sil>` and `[NOISE]`.
fn plain_word(text: &str) -> Option<&str> {
    let filler = text.starts_with(['<', '[']) || text.starts_with("++");
    if filler {
        return None;
    }
    let bare = match text.split_once('(') {
        Some((bare, number)) if number.trim_end_matches(')').bytes().all(|b| b.is_ascii_digit()) => bare,
        _ => text,
    };
    (!bare.is_empty()).then_some(bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_words_are_told_from_other_lines() {
        let parsed = word("left 0.320 0.780 1.000100").unwrap();
        assert_eq!(
            (parsed.text.as_str(), parsed.start, parsed.end, parsed.confidence),
            ("left", 0.32, 0.78, Some(1.0))
        );
        for line in ["", "we left the old", "left 0.3 0.2 0.5", "a b c d", "left 1 2 3 4"] {
            assert!(word(line).is_none(), "{line}");
        }
    }

    #[test]
    fn digital_silence_is_cut_off_at_both_ends() {
        let silence = [3; 500];
        assert_eq!((without_silence(&silence), without_silence(&[])), (0..0, 0..0));
        assert_eq!(without_silence(&[&silence[..], &[900; 700], &silence, &[-900; 10], &silence].concat()), 500..1710);
    }

    #[test]
    fn fillers_are_dropped_and_pronunciation_numbers_removed() {
        assert_eq!(plain_word("the(2)"), Some("the"));
        assert_eq!(plain_word("o'clock"), Some("o'clock"));
        for filler in ["<s>", "</s>", "<sil>", "[NOISE]", "[SPEECH]", "++UM++"] {
            assert_eq!(plain_word(filler), None);
        }
    }

    #[test]
    fn times_are_converted_to_those_of_the_recording() {
        let timeline = Timeline { spans: vec![(16_000, 0, 48_000), (80_000, 48_000, 32_000)] };
        assert_eq!(timeline.recording_time(0.5), 0.0);
        assert_eq!(timeline.recording_time(2.0), 1.0);
        assert_eq!(timeline.recording_time(4.5), 3.0); // in the quiet between
        assert_eq!(timeline.recording_time(5.5), 3.5);
        assert_eq!(timeline.recording_time(99.0), 5.0);
        let trimmed = Timeline { spans: vec![(16_000, 8000, 48_000), (80_000, 64_000, 32_000)] };
        assert_eq!((trimmed.word_start(0.5), trimmed.word_start(2.0)), (0.5, 1.5));
        assert_eq!((trimmed.word_start(4.5), trimmed.recording_time(4.5)), (4.0, 3.5));
        assert_eq!(trimmed.word_start(99.0), 6.0);
    }
}
