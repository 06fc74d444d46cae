//! The `pocketsphinx` engine: Debian's `pocketsphinx_continuous`, fed through a pipe with pieces cut at pauses. After
//! each piece it hears a second of quiet, so that it ends its utterance and says what it heard.

use super::{
    Availability, Engine, Request, SpeechError, own_child,
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
/// Samples of quiet after each piece. Its voice detection ends an utterance after half a second.
const QUIET: usize = 16_000;
/// A piece whose loudest sample (of 32768) is below this holds no speech.
const SILENT: u16 = 8;
/// The pipe's size in bytes. What has been written but for this much has certainly been heard.
const PIPE: usize = 16 * 1024;
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

/// Which part of the program's input is which part of the recording.
#[derive(Debug, Default)]
struct Timeline {
    /// Start in the input, start in the recording, length; in samples.
    spans: Vec<(usize, usize, usize)>,
}

impl Timeline {
    /// Seconds of input as seconds of the recording. Quiet that was put in belongs to the end of its piece.
    fn recording(&self, input: f64) -> f64 {
        let at = (input.max(0.0) * 16_000.0) as usize;
        let n = self.spans.partition_point(|(start, ..)| *start <= at);
        let Some((start, recording, length)) = n.checked_sub(1).and_then(|n| self.spans.get(n)) else { return 0.0 };
        seconds(recording + (at - start).min(*length))
    }

    /// Where a word begins that begins there: one that seems to begin in quiet that was put in belongs to what follows.
    fn beginning(&self, input: f64) -> f64 {
        let at = (input.max(0.0) * 16_000.0) as usize;
        let next = self.spans.iter().find(|(start, _, length)| at < start + length);
        next.map_or_else(
            || self.recording(input),
            |(start, recording, _)| seconds(recording + at.saturating_sub(*start)),
        )
    }
}

/// The child: feeds the program on one thread and listens to it on another.
pub(super) fn child() -> Result<(), ChildError> {
    let missing = |e: io::Error| ChildError::new("engine_unavailable", format!("{PROGRAM} can't be started: {e}"));
    let mut program = StdCommand::new(PROGRAM)
        .args(["-infile", "/dev/stdin", "-time", "yes", "-logfn", "/dev/null"])
        .args(["-hmm", &format!("{MODEL}/en-us"), "-lm", &format!("{MODEL}/en-us.lm.bin")])
        .args(["-dict", &format!("{MODEL}/cmudict-en-us.dict")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(missing)?;
    let (Some(input), Some(output)) = (program.stdin.take(), program.stdout.take()) else {
        return Err(ChildError::new("io", "The pipes of the speech engine are missing."));
    };
    rustix::pipe::fcntl_setpipe_size(&input, PIPE).map_err(io::Error::from)?;
    let timeline = Arc::new(Mutex::new(Timeline::default()));
    let listener = {
        let timeline = Arc::clone(&timeline);
        thread::spawn(move || listen(BufReader::new(output), &timeline))
    };
    let fed = feed(input, &timeline);
    let heard = listener.join().map_err(|_| ChildError::new("crashed", "The listener panicked."))?;
    let status = program.wait()?;
    heard?;
    if !status.success() {
        return Err(ChildError::new("crashed", format!("{PROGRAM} ended with {status}.")));
    }
    fed
}

fn feed(mut input: ChildStdin, timeline: &Mutex<Timeline>) -> Result<(), ChildError> {
    let mut feeder = Feeder { written: 0, recording: 0, noise: 1, timeline };
    let mut cutter = Cutter::new(Rules::SHORT);
    // Its model is loaded once it takes more than its pipe holds; until then nothing is ready.
    feeder.quiet(&mut input, (PIPE + READ_AHEAD) / 2 + 1600)?;
    say_ready("en-us")?;
    while let Some(samples) = read_samples()? {
        for piece in cutter.push(&samples) {
            feeder.piece(&mut input, &piece)?;
        }
    }
    feeder.piece(&mut input, &cutter.finish())?;
    Ok(())
}

struct Feeder<'a> {
    /// Samples given to the program, and those of the recording among them.
    written: usize,
    recording: usize,
    /// State of a linear congruential generator (Numerical Recipes).
    noise: u32,
    timeline: &'a Mutex<Timeline>,
}

impl Feeder<'_> {
    fn piece(&mut self, input: &mut ChildStdin, whole: &[i16]) -> Result<(), ChildError> {
        // Digital silence would spoil its idea of the room for many seconds, and there is nothing to hear.
        let sounding = sounding(whole);
        let (start, end) = (self.recording + sounding.start, self.recording + whole.len());
        let piece = &whole[sounding];
        self.recording = end;
        if piece.is_empty() {
            say(&Line::Progress { processed: seconds(end) })?;
            return Ok(());
        }
        let span = (self.written, start, piece.len());
        self.timeline.lock().unwrap_or_else(PoisonError::into_inner).spans.push(span);
        for part in piece.chunks(4000) {
            self.write(input, part)?;
            let heard = self.written.saturating_sub((PIPE + READ_AHEAD) / 2);
            let processed = self.timeline.lock().unwrap_or_else(PoisonError::into_inner).recording(seconds(heard));
            say(&Line::Progress { processed })?;
        }
        self.quiet(input, QUIET)
    }

    fn quiet(&mut self, input: &mut ChildStdin, samples: usize) -> Result<(), ChildError> {
        // Not quite zero: its noise estimate would have nothing to hold on to. Nor a pattern, which it takes for a voice.
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

/// A piece without the digital silence at its ends.
fn sounding(piece: &[i16]) -> Range<usize> {
    let sounds = |s: &i16| s.unsigned_abs() >= SILENT;
    let Some(first) = piece.iter().position(sounds) else { return 0..0 };
    let last = piece.iter().rposition(sounds).unwrap_or(first);
    first..last + 1
}

/// Reads utterances: a line of text, then a line for each word with its start, end and confidence.
fn listen(output: impl BufRead, timeline: &Mutex<Timeline>) -> Result<(), ChildError> {
    let mut words = Vec::new();
    for line in output.lines() {
        let line = line?;
        let Some(word) = word(&line) else {
            utterance(&mut words, timeline)?;
            continue;
        };
        let last = word.text == "</s>";
        words.push(word);
        if last {
            utterance(&mut words, timeline)?;
        }
    }
    utterance(&mut words, timeline)
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

/// Says what was heard, at its place in the recording.
fn utterance(heard: &mut Vec<Word>, timeline: &Mutex<Timeline>) -> Result<(), ChildError> {
    let timeline = timeline.lock().unwrap_or_else(PoisonError::into_inner);
    let words: Vec<Word> = heard
        .drain(..)
        .filter_map(|word| {
            let text = spoken(&word.text)?.to_owned();
            let (start, end) = (timeline.beginning(word.start), timeline.recording(word.end));
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

/// A word without its pronunciation number; none for fillers such as `<sil>` and `[NOISE]`.
fn spoken(text: &str) -> Option<&str> {
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
    fn word_lines_and_others() {
        let heard = word("left 0.320 0.780 1.000100").unwrap();
        assert_eq!((heard.text.as_str(), heard.start, heard.end, heard.confidence), ("left", 0.32, 0.78, Some(1.0)));
        for line in ["", "we left the old", "left 0.3 0.2 0.5", "a b c d", "left 1 2 3 4"] {
            assert!(word(line).is_none(), "{line}");
        }
    }

    #[test]
    fn digital_silence_is_left_out_at_the_ends() {
        let silence = [3; 500];
        assert_eq!((sounding(&silence), sounding(&[])), (0..0, 0..0));
        assert_eq!(sounding(&[&silence[..], &[900; 700], &silence, &[-900; 10], &silence].concat()), 500..1710);
    }

    #[test]
    fn fillers_are_left_out_and_variants_are_bare() {
        assert_eq!(spoken("the(2)"), Some("the"));
        assert_eq!(spoken("o'clock"), Some("o'clock"));
        for filler in ["<s>", "</s>", "<sil>", "[NOISE]", "[SPEECH]", "++UM++"] {
            assert_eq!(spoken(filler), None);
        }
    }

    #[test]
    fn times_are_those_of_the_recording() {
        let timeline = Timeline { spans: vec![(16_000, 0, 48_000), (80_000, 48_000, 32_000)] };
        assert_eq!(timeline.recording(0.5), 0.0);
        assert_eq!(timeline.recording(2.0), 1.0);
        assert_eq!(timeline.recording(4.5), 3.0); // in the quiet between
        assert_eq!(timeline.recording(5.5), 3.5);
        assert_eq!(timeline.recording(99.0), 5.0);
        let trimmed = Timeline { spans: vec![(16_000, 8000, 48_000), (80_000, 64_000, 32_000)] };
        assert_eq!((trimmed.beginning(0.5), trimmed.beginning(2.0)), (0.5, 1.5));
        assert_eq!((trimmed.beginning(4.5), trimmed.recording(4.5)), (4.0, 3.5));
        assert_eq!(trimmed.beginning(99.0), 6.0);
    }
}
