//! The child process of the `whisper` engine: whisper.cpp by `whisper-rs`. Finds speech, hears it window by window, and
//! writes what was said with the times of the recording. Called by `speech::child`.

use super::{
    detector::Detector,
    invented::{Lines, Verdict},
    languages,
    windows::{Window, Windows},
};
use crate::{
    model::{Word, clock},
    server::{
        audio::SAMPLE_RATE,
        speech::{
            models::model_name,
            pipe::{ChildError, read_samples, say, say_ready, say_segment, seconds},
            protocol::{EngineSegment, Line},
        },
    },
};
use std::{cell::Cell, path::Path, rc::Rc, time::Instant};
use whisper_rs::{
    FullParams, SamplingStrategy, WhisperContext, WhisperContextParameters, WhisperSegment, WhisperState,
};

/// The length in characters, about 15 s of speech, from which segments are divided at a word.
const MAX_SEGMENT_CHARS: i32 = 200;
/// The minimal length of a window, in samples: whisper.cpp finds nothing in less than a second.
const MIN_SAMPLES: usize = SAMPLE_RATE as usize + 1600;
/// Steps of the encoder in a second, those added to a window, and all that it has.
const ENCODER_RATE: usize = 50;
const ENCODER_MARGIN: usize = 400;
const ENCODER_LONGEST: usize = 1500;
/// How many alternatives are tried when the first text of a window is a loop or unlikely, and Whisper guesses anew.
const FALLBACK_CANDIDATES: i32 = 3;
/// Text with less entropy is a loop, and Whisper guesses anew at a higher temperature. Lower than whisper.cpp's 2.4,
/// because people repeat themselves too, and at high temperatures Whisper writes what nobody said.
const MIN_ENTROPY: f32 = 1.9;
/// From this probability on the language of a window is that of the recording. Below, the next window is asked too.
const SURE_OF_LANGUAGE: f32 = 0.6;
/// How many windows are asked at most. Each costs half as much as transcribing it.
const LANGUAGE_WINDOWS: usize = 4;
/// The maximal number of tokens in a prompt: Whisper has room for 224.
const MAX_PROMPT_TOKENS: usize = 200;
/// A segment is divided where nobody speaks for so many seconds: a silence that was left out of the window.
const MAX_GAP: f64 = 2.0;

/// A segment in which somebody speaks for so long, in seconds, has more text than so many bytes for each of them. People
/// say about 15 in English and in Chinese.
const MIN_JUDGED_SECS: f64 = 6.0;
const MIN_BYTES_PER_SECOND: f64 = 4.0;

/// What the child is told.
pub(in crate::server::speech) struct Task<'a> {
    pub(in crate::server::speech) model: &'a Path,
    /// The language spoken, as a BCP 47 tag; if none, Whisper finds it.
    pub(in crate::server::speech) language: Option<&'a str>,
    /// Names and terms that may be spoken, with commas between.
    pub(in crate::server::speech) vocabulary: Option<&'a str>,
    pub(in crate::server::speech) threads: u16,
    /// By how much the temperature rises when Whisper guesses anew, up to 1: with 0.4 it guesses three times at most.
    pub(in crate::server::speech) temperature_step: f32,
}

pub(in crate::server::speech) fn run(task: &Task<'_>) -> Result<(), ChildError> {
    if let Some(missing) = super::missing_instructions() {
        return Err(ChildError::new("processor", missing));
    }
    // Otherwise whisper.cpp logs at length to standard error.
    whisper_rs::install_logging_hooks();
    let unusable = |why: String| {
        let what = format!(
            "The Whisper model {} can't be used: {why}. Fetch it again with 'hark model get'.",
            task.model.display()
        );
        ChildError::new("bad_model", what)
    };
    let context = WhisperContext::new_with_params(task.model, WhisperContextParameters::default())
        .map_err(|e| unusable(e.to_string()))?;
    let language = language(task.language, &context)?;
    let state = context.create_state().map_err(|e| unusable(e.to_string()))?;
    let mut detector = Detector::new().map_err(|e| failed(&e))?;
    say_ready(&model_name(task.model))?;
    let mut transcriber = Transcriber {
        state,
        prompt: prompt(task, &context),
        eot: context.token_eot(),
        threads: i32::from(task.threads.max(1)),
        temperature_step: task.temperature_step.max(0.0),
        language,
        lines: Lines::default(),
        left_out: LeftOut::default(),
        last_start: 0.0,
        encoder_share: 0.7,
    };
    let mut windows = Windows::new();
    let mut at_end = false;
    while !at_end {
        match read_samples()? {
            Some(samples) => windows.push(&samples, &detector.push(&samples).map_err(|e| failed(&e))?),
            None => {
                at_end = true;
                windows.push(&[], &detector.finish().map_err(|e| failed(&e))?);
            }
        }
        let before = windows.position();
        while let Some(window) = windows.next(at_end) {
            transcriber.transcribe(&window)?;
        }
        if windows.position() > before {
            say(&Line::Progress { processed: seconds(windows.position()), settled: None })?;
        }
    }
    transcriber.left_out.say()?;
    Ok(())
}

fn failed(error: &impl std::fmt::Display) -> ChildError {
    ChildError::new("whisper", format!("Whisper failed: {error}."))
}

/// The language of a recording.
enum Language {
    /// The uploader named it, or the model knows no other.
    Given(&'static str),
    /// What was found so far, and in how many windows it was searched for.
    Searched { best: Option<(&'static str, f32)>, windows: usize },
}

/// Returns Whisper's language for a BCP 47 tag.
fn language(tag: Option<&str>, context: &WhisperContext) -> Result<Language, ChildError> {
    let multilingual = context.is_multilingual();
    let Some(tag) = tag.filter(|tag| !tag.is_empty()) else {
        return Ok(if multilingual { Language::Searched { best: None, windows: 0 } } else { Language::Given("en") });
    };
    // Of a model's vocabulary everything is the same but the languages.
    let languages = context.model_n_vocab() - 51_766;
    let Some(code) = languages::code(tag, languages) else {
        return Err(ChildError::new("language", "Whisper does not know this language. Choose another, or none."));
    };
    if !multilingual && code != "en" {
        let what = "This Whisper model understands only English. Use one without '.en' in its name, such as 'base'.";
        return Err(ChildError::new("language", what));
    }
    Ok(Language::Given(code))
}

/// Returns the text that Whisper is told to have heard before each window: it goes on in the same script, and spells
/// names as they are spelled there.
fn prompt(task: &Task<'_>, context: &WhisperContext) -> Option<String> {
    let script = task.language.and_then(languages::script_prompt).unwrap_or_default();
    let vocabulary = task.vocabulary.unwrap_or_default().replace('\0', "");
    let mut prompt = String::from(script);
    // As many terms as there is room for.
    for term in vocabulary.split([',', '\n']).map(str::trim).filter(|term| !term.is_empty()) {
        let separator = if prompt.is_empty() || prompt == script { "" } else { ", " };
        let longer = format!("{prompt}{separator}{term}");
        if context.tokenize(&longer, MAX_PROMPT_TOKENS).is_err() {
            break;
        }
        prompt = longer;
    }
    if prompt != script {
        // Whisper ends its sentences, too, after a prompt that does.
        prompt.push('.');
    }
    (!prompt.is_empty()).then_some(prompt)
}

/// Transcribes one window after the other.
struct Transcriber {
    state: WhisperState,
    prompt: Option<String>,
    /// The token after the last one that is text.
    eot: i32,
    threads: i32,
    temperature_step: f32,
    language: Language,
    lines: Lines,
    left_out: LeftOut,
    /// Where the last segment begins: those after it must not begin earlier.
    last_start: f64,
    /// The share of the encoder in the time that a window takes, as it was in the last one.
    encoder_share: f64,
}

impl Transcriber {
    /// Transcribes a window, and again what Whisper passed over although the detector hears somebody speak there. After a
    /// pause or a change of speakers it sometimes takes the rest of a window for silence, or for part of a short line.
    fn transcribe(&mut self, window: &Window) -> Result<(), ChildError> {
        let end = match self.hear(window)? {
            Heard::Until(end) => end,
            Heard::TooLittle([before, after]) => {
                self.transcribe(&before)?;
                return self.transcribe(&after);
            }
        };
        end.and_then(|end| window.rest(end)).map_or(Ok(()), |rest| self.transcribe(&rest))
    }

    /// Says what is heard in a window.
    fn hear(&mut self, window: &Window) -> Result<Heard, ChildError> {
        let mut samples: Vec<f32> = window.samples.iter().map(|s| f32::from(*s) / 32_768.0).collect();
        samples.resize(samples.len().max(MIN_SAMPLES), 0.0);
        let language = self.find_language(&samples)?;
        let ticks = Ticks::new(window, self.encoder_share);
        let tick = ticks.clone();
        let mut params = self.params(language);
        // Called after each step of the calculation; whisper.cpp's callback for progress only after 30 s of audio. The
        // type is named because the crate's own is unsound for any other.
        let callback: Box<dyn FnMut() -> bool> = Box::new(move || tick.step().is_err());
        params.set_abort_callback_safe::<_, Box<dyn FnMut() -> bool>>(callback);
        params.set_audio_ctx(encoder_steps(samples.len()));
        self.state.full(params, &samples).map_err(|e| failed(&e))?;
        self.encoder_share = ticks.encoder_share();
        if self.state.as_iter().any(|segment| is_too_little(&segment, window))
            && let Some(halves) = window.halves()
        {
            return Ok(Heard::TooLittle(halves));
        }
        let segments: Vec<EngineSegment> =
            self.state.as_iter().flat_map(|segment| to_segments(&segment, self.eot, window)).collect();
        for mut segment in segments {
            let speech = window.spoken_secs(segment.start, segment.end);
            match self.lines.judge(&segment.text, segment.confidence, speech) {
                Verdict::Said => {
                    segment.start = segment.start.max(self.last_start);
                    segment.end = segment.end.max(segment.start);
                    self.last_start = segment.start;
                    say_segment(segment)?;
                }
                Verdict::Repeated => self.left_out.add(&segment),
                Verdict::NoWords => {}
            }
        }
        Ok(Heard::Until(self.state.as_iter().last().map(|segment| segment.end_timestamp() as f64 / 100.0)))
    }

    fn params<'a>(&self, language: &'a str) -> FullParams<'a, 'a> {
        let mut params = FullParams::new(SamplingStrategy::Greedy { best_of: FALLBACK_CANDIDATES });
        params.set_n_threads(self.threads);
        params.set_language(Some(language));
        if let Some(prompt) = &self.prompt {
            params.set_initial_prompt(prompt);
        }
        params.set_entropy_thold(MIN_ENTROPY);
        params.set_temperature_inc(self.temperature_step);
        // The text of one window is no context for the next, because its mistakes would carry over.
        params.set_no_context(true);
        // Descriptions of sounds and notes, which Whisper writes where nobody speaks.
        params.set_suppress_nst(true);
        params.set_token_timestamps(true);
        params.set_max_len(MAX_SEGMENT_CHARS);
        params.set_split_on_word(true);
        params.set_print_special(false);
        params.set_print_progress(false);
        params.set_print_realtime(false);
        params.set_print_timestamps(false);
        params
    }

    /// Returns the language of the recording, which is searched for in the first windows.
    fn find_language(&mut self, samples: &[f32]) -> Result<&'static str, ChildError> {
        let (mut best, windows) = match self.language {
            Language::Given(code) => return Ok(code),
            Language::Searched { best: Some((code, probability)), windows }
                if probability >= SURE_OF_LANGUAGE || windows >= LANGUAGE_WINDOWS =>
            {
                return Ok(code);
            }
            Language::Searched { best, windows } => (best, windows),
        };
        let threads = usize::try_from(self.threads).unwrap_or(1);
        let found = self.state.pcm_to_mel(samples, threads).and_then(|()| self.state.lang_detect(0, threads));
        let (id, probabilities) = found.map_err(|e| failed(&e))?;
        let probability = usize::try_from(id).ok().and_then(|id| probabilities.get(id)).copied().unwrap_or_default();
        let code = whisper_rs::get_lang_str(id).unwrap_or("en");
        if best.is_none_or(|(_, before)| probability > before) {
            best = Some((code, probability));
            let language = languages::tag(code).to_owned();
            say(&Line::Language { language, probability: Some(probability) })?;
        }
        self.language = Language::Searched { best, windows: windows + 1 };
        Ok(best.map_or(code, |(code, _)| code))
    }
}

/// The lines that Whisper seems to have invented, though somebody speaks there.
#[derive(Default)]
struct LeftOut {
    count: usize,
    /// Where the first of them begins and the last of them ends, in seconds.
    between: Option<(f64, f64)>,
}

impl LeftOut {
    fn add(&mut self, line: &EngineSegment) {
        self.count += 1;
        let (start, end) = self.between.unwrap_or((line.start, line.end));
        self.between = Some((start.min(line.start), end.max(line.end)));
    }

    /// Says of all of them at once that they were left out: a recording has few remarks.
    fn say(&self) -> Result<(), ChildError> {
        let Some((start, end)) = self.between else { return Ok(()) };
        let lines = if self.count == 1 { "A line was".to_owned() } else { format!("{} lines were", self.count) };
        let (start, end) = (clock(start), clock(end));
        let message = format!(
            "{lines} left out between {start} and {end}, because Whisper seemed to repeat itself. Listen to what is said there."
        );
        Ok(say(&Line::Remark { code: "repeated".to_owned(), message, replaces: false })?)
    }
}

/// What became of a window.
enum Heard {
    /// Its text was said. The last of it ends here, in seconds of the window; none if there is none.
    Until(Option<f64>),
    /// Nothing was said, because a line has far too little text. Its halves, which may do better.
    TooLittle([Window; 2]),
}

/// Whether a segment has far less text than somebody says in so long a time.
fn is_too_little(segment: &WhisperSegment<'_>, window: &Window) -> bool {
    let at = |hundredths: i64| hundredths.max(0) as f64 / 100.0;
    let speech = window.speech_secs(at(segment.start_timestamp()), at(segment.end_timestamp()));
    let bytes = segment.to_bytes().map_or(0, <[u8]>::len) as f64;
    speech >= MIN_JUDGED_SECS && bytes < speech * MIN_BYTES_PER_SECOND
}

/// Returns how much of the 30 s that Whisper's encoder can hear it calculates for a window of so many samples, in its steps
/// of 20 ms. What it was trained on ended in silence, so some seconds of that are added: with 4 s `tiny.en` heard a few
/// more words wrong.
fn encoder_steps(samples: usize) -> i32 {
    let window = samples / (SAMPLE_RATE as usize / ENCODER_RATE);
    (window + ENCODER_MARGIN).min(ENCODER_LONGEST) as i32
}

/// Reports progress within a window. It is an estimate: the encoder takes as long as in the last window, and speech has
/// about as many tokens as usual.
#[derive(Clone)]
struct Ticks(Rc<TickState>);

struct TickState {
    started: Instant,
    /// Where the window begins and ends in the recording, in seconds.
    start: f64,
    end: f64,
    encoder_share: f64,
    /// The number of tokens expected.
    tokens: f64,
    steps: Cell<u32>,
    /// How long the encoder took, in seconds.
    encoded: Cell<f64>,
    said: Cell<f64>,
}

/// Tokens in a second of speech, in a language for which Whisper needs many.
const TOKENS_PER_SECOND: f64 = 5.0;
/// The largest share of a window that is reported as done before it is.
const MAX_ESTIMATE: f64 = 0.95;
/// The smallest advance that is reported, in seconds of the recording.
const MIN_ADVANCE: f64 = 1.0;

impl Ticks {
    fn new(window: &Window, encoder_share: f64) -> Self {
        Self(Rc::new(TickState {
            started: Instant::now(),
            start: seconds(window.start()),
            end: seconds(window.end),
            encoder_share,
            tokens: seconds(window.samples.len()) * TOKENS_PER_SECOND,
            steps: Cell::new(0),
            encoded: Cell::new(0.0),
            said: Cell::new(seconds(window.start())),
        }))
    }

    /// Counts a step: the first is the encoder's, the others are a token each.
    fn step(&self) -> std::io::Result<()> {
        let state = &self.0;
        let steps = state.steps.get();
        state.steps.set(steps + 1);
        if steps == 0 {
            state.encoded.set(state.started.elapsed().as_secs_f64());
        }
        let decoded = (f64::from(steps) / state.tokens).min(1.0);
        let share = (state.encoder_share + (1.0 - state.encoder_share) * decoded).min(MAX_ESTIMATE);
        let processed = state.start + share * (state.end - state.start);
        if processed >= state.said.get() + MIN_ADVANCE {
            state.said.set(processed);
            // The lines of this window are still to come.
            say(&Line::Progress { processed, settled: Some(state.start) })?;
        }
        Ok(())
    }

    /// The share of the encoder in the time since the beginning.
    fn encoder_share(&self) -> f64 {
        (self.0.encoded.get() / self.0.started.elapsed().as_secs_f64().max(1e-6)).clamp(0.1, 0.9)
    }
}

/// A token of a segment: its bytes (a character may be divided among tokens), its times in hundredths of a second from
/// the start of the window, and its probability.
struct Token {
    bytes: Vec<u8>,
    start: i64,
    end: i64,
    probability: f32,
}

/// Converts a segment of Whisper's to segments with times in the recording. There are several if a silence was left out
/// between, and none if nobody speaks there.
fn to_segments(segment: &WhisperSegment<'_>, eot: i32, window: &Window) -> Vec<EngineSegment> {
    let at = |hundredths: i64| hundredths.max(0) as f64 / 100.0;
    if !window.has_speech(at(segment.start_timestamp()), at(segment.end_timestamp())) {
        return Vec::new();
    }
    let tokens = (0..segment.n_tokens()).filter_map(|n| segment.get_token(n)).filter(|t| t.token_id() < eot);
    let tokens = tokens.filter_map(|token| {
        let data = token.token_data();
        Some(Token { bytes: token.to_bytes().ok()?.to_vec(), start: data.t0, end: data.t1, probability: data.p })
    });
    let time = |hundredths: i64, is_end: bool| window.time(at(hundredths), is_end);
    join_tokens(tokens, (segment.start_timestamp(), segment.end_timestamp()), time)
}

/// Joins tokens into words and those into segments. `time` converts Whisper's times to those of the recording.
fn join_tokens(
    tokens: impl Iterator<Item = Token>,
    (start, end): (i64, i64),
    time: impl Fn(i64, bool) -> f64,
) -> Vec<EngineSegment> {
    let mut words: Vec<(Vec<u8>, f64, f64, Vec<f32>)> = Vec::new();
    for token in tokens {
        match words.last_mut() {
            // Only a space begins a new word: punctuation and word endings are tokens of their own.
            Some((bytes, _, end, confidence)) if !token.bytes.starts_with(b" ") => {
                bytes.extend(&token.bytes);
                *end = time(token.end, true).max(*end);
                confidence.push(token.probability);
            }
            _ => {
                let start = time(token.start, false);
                words.push((token.bytes, start, time(token.end, true).max(start), vec![token.probability]));
            }
        }
    }
    let mean = |all: &[f32]| (!all.is_empty()).then(|| all.iter().sum::<f32>() / all.len() as f32);
    let mut segments: Vec<(EngineSegment, Vec<f32>)> = Vec::new();
    for (bytes, start, end, confidence) in words {
        let text = String::from_utf8_lossy(&bytes).trim().to_owned();
        if text.is_empty() {
            continue;
        }
        let word = Word { text, start, end, confidence: mean(&confidence) };
        match segments.last_mut() {
            Some((segment, all)) if word.start - segment.end <= MAX_GAP => {
                segment.end = segment.end.max(word.end);
                segment.text = format!("{} {}", segment.text, word.text);
                segment.words.push(word);
                all.extend(confidence);
            }
            _ => {
                let segment =
                    EngineSegment { start, end, text: word.text.clone(), confidence: None, words: vec![word] };
                segments.push((segment, confidence));
            }
        }
    }
    let mut segments: Vec<EngineSegment> =
        segments.into_iter().map(|(segment, all)| EngineSegment { confidence: mean(&all), ..segment }).collect();
    // Whisper's own times for the segment are better than those of its first and last word.
    if let Some(first) = segments.first_mut() {
        let start = time(start, false);
        if first.start - start <= MAX_GAP {
            first.start = start.min(first.start);
        }
    }
    if let Some(last) = segments.last_mut() {
        let end = time(end, true);
        if end - last.end <= MAX_GAP {
            last.end = end.max(last.start);
        }
    }
    segments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &[u8], start: i64, end: i64) -> Token {
        Token { bytes: text.to_vec(), start, end, probability: 0.5 }
    }

    /// Times of a window that begins after 100 s and is 20 s long.
    fn time(hundredths: i64, _: bool) -> f64 {
        100.0 + (hundredths as f64 / 100.0).clamp(0.0, 20.0)
    }

    #[test]
    fn tokens_become_words_with_times_in_the_recording() {
        let tokens = [token(b" hel", 10, 30), token(b"lo", 30, 50), token(b",", 50, 50), token(b" you", 60, 9000)];
        let segments = join_tokens(tokens.into_iter(), (0, 9000), time);
        let [segment] = &segments[..] else { panic!("{segments:?}") };
        assert_eq!((segment.text.as_str(), segment.start, segment.end), ("hello, you", 100.0, 120.0));
        assert_eq!((segment.words[0].start, segment.words[0].end), (100.1, 100.5));
        assert_eq!((segment.words[1].end, segment.confidence), (120.0, Some(0.5)));
    }

    #[test]
    fn a_character_divided_among_tokens_is_joined() {
        let tokens = [token(b" caf\xc3", 0, 10), token(b"\xa9", 10, 20)];
        assert_eq!(join_tokens(tokens.into_iter(), (0, 20), time)[0].text, "café");
        assert!(join_tokens([token(b" ", 0, 10)].into_iter(), (0, 10), time).is_empty());
        assert!(join_tokens(std::iter::empty(), (0, 10), time).is_empty());
    }

    #[test]
    fn a_segment_is_divided_where_a_silence_was_left_out() {
        // After 2 s of the window come 60 s that it doesn't hold.
        let time = |hundredths: i64, is_end: bool| {
            let left_out = hundredths > 200 || (hundredths == 200 && !is_end);
            hundredths as f64 / 100.0 + if left_out { 60.0 } else { 0.0 }
        };
        let tokens = [token(b" one", 50, 200), token(b" two", 200, 250), token(b" three", 250, 300)];
        let segments = join_tokens(tokens.into_iter(), (0, 350), time);
        let spans: Vec<_> = segments.iter().map(|s| (s.start, s.end, s.text.as_str())).collect();
        assert_eq!(spans, [(0.0, 2.0, "one"), (62.0, 63.5, "two three")]);
    }
}
