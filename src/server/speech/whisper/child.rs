//! The child process of the `whisper` engine: whisper.cpp by `whisper-rs`. It gets windows of at most 28 s cut at pauses, so
//! that progress moves and each answer comes as soon as its window is done. Called by `child`.

use crate::{
    model::Word,
    server::{
        audio::SAMPLE_RATE,
        speech::{
            pieces::{Cutter, Rules},
            pipe::{ChildError, read_samples, say, say_ready, say_segment, seconds},
            protocol::{EngineSegment, Line},
        },
    },
};
use std::{path::Path, thread};
use whisper_rs::{
    FullParams, SamplingStrategy, WhisperContext, WhisperContextParameters, WhisperError, WhisperSegment, WhisperState,
};

/// A window without a sample at this level (of 32768) is skipped, because Whisper invents words for silence.
const MIN_LEVEL: u16 = 16;
/// The length in characters, about 15 s of speech, from which segments are divided at a word.
const MAX_SEGMENT_CHARS: i32 = 200;
/// The maximal number of threads: more make whisper.cpp slower.
const MAX_THREADS: usize = 8;
/// The minimal length of a window, in samples: whisper.cpp finds nothing in less than a second.
const MIN_SAMPLES: usize = SAMPLE_RATE as usize + 1600;

pub(in crate::server::speech) fn run(model: &Path, language: Option<&str>) -> Result<(), ChildError> {
    // Otherwise whisper.cpp logs at length to standard error.
    whisper_rs::install_logging_hooks();
    let unusable = |why: String| {
        let what = format!(
            "The Whisper model {} can't be used: {why}. Fetch it again with 'hark model get'.",
            model.display()
        );
        ChildError::new("bad_model", what)
    };
    let context = WhisperContext::new_with_params(model, WhisperContextParameters::default())
        .map_err(|e| unusable(e.to_string()))?;
    let language = language_code(language, context.is_multilingual())?;
    let mut state = context.create_state().map_err(|e| unusable(e.to_string()))?;
    let eot = context.token_eot();
    say_ready(&name(model))?;
    let mut cutter = Cutter::new(Rules::LONG);
    let mut done = 0;
    let mut at_end = false;
    while !at_end {
        let pieces = match read_samples()? {
            Some(samples) => cutter.push(&samples),
            None => {
                at_end = true;
                vec![cutter.finish()]
            }
        };
        for piece in pieces.iter().filter(|p| !p.is_empty()) {
            if piece.iter().any(|s| s.unsigned_abs() >= MIN_LEVEL) {
                transcribe(&mut state, piece, &language)
                    .map_err(|e| ChildError::new("whisper", format!("Whisper failed: {e}.")))?;
                for segment in state.as_iter() {
                    if let Some(segment) = to_segment(&segment, eot, seconds(done), seconds(piece.len())) {
                        say_segment(segment)?;
                    }
                }
            }
            done += piece.len();
            say(&Line::Progress { processed: seconds(done) })?;
        }
    }
    Ok(())
}

fn transcribe(state: &mut WhisperState, piece: &[i16], language: &str) -> Result<(), WhisperError> {
    let mut params = FullParams::new(SamplingStrategy::Greedy { best_of: 1 });
    let threads = thread::available_parallelism().map_or(1, |n| n.get().min(MAX_THREADS));
    params.set_n_threads(i32::try_from(threads).unwrap_or(1));
    params.set_language(Some(language));
    // The text of one window is no context for the next, because its mistakes would carry over.
    params.set_no_context(true);
    params.set_token_timestamps(true);
    params.set_max_len(MAX_SEGMENT_CHARS);
    params.set_split_on_word(true);
    params.set_print_special(false);
    params.set_print_progress(false);
    params.set_print_realtime(false);
    params.set_print_timestamps(false);
    let mut samples: Vec<f32> = piece.iter().map(|s| f32::from(*s) / 32_768.0).collect();
    samples.resize(samples.len().max(MIN_SAMPLES), 0.0);
    state.full(params, &samples)
}

/// Returns Whisper's code for a BCP 47 tag. With `auto` Whisper detects the language.
fn language_code(language: Option<&str>, multilingual: bool) -> Result<String, ChildError> {
    let code = language.map(|tag| tag.split(['-', '_']).next().unwrap_or_default().to_lowercase());
    let Some(code) = code.filter(|c| !c.is_empty()) else {
        return Ok(if multilingual { "auto" } else { "en" }.to_owned());
    };
    if !code.bytes().all(|b| b.is_ascii_alphabetic()) || whisper_rs::get_lang_id(&code).is_none() {
        return Err(ChildError::new("language", "Whisper does not know this language. Choose another, or none."));
    }
    if !multilingual && code != "en" {
        let what = "This Whisper model understands only English. Use one without '.en' in its name, such as 'base'.";
        return Err(ChildError::new("language", what));
    }
    Ok(code)
}

/// The name of a model's file without the prefix and extension that all have.
fn name(model: &Path) -> String {
    let stem = model.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    stem.strip_prefix("ggml-").map(str::to_owned).unwrap_or(stem)
}

/// A token of a segment: its bytes (a character may be divided among tokens), its times in hundredths of a second from
/// the start of the window, and its probability.
struct Token {
    bytes: Vec<u8>,
    start: i64,
    end: i64,
    probability: f32,
}

/// Converts a segment to times in the recording; none if it has no text.
fn to_segment(segment: &WhisperSegment<'_>, eot: i32, offset: f64, length: f64) -> Option<EngineSegment> {
    let tokens = (0..segment.n_tokens()).filter_map(|n| segment.get_token(n)).filter(|t| t.token_id() < eot);
    let tokens = tokens.filter_map(|token| {
        let data = token.token_data();
        Some(Token { bytes: token.to_bytes().ok()?.to_vec(), start: data.t0, end: data.t1, probability: data.p })
    });
    join_tokens(tokens, (segment.start_timestamp(), segment.end_timestamp()), offset, length)
}

/// Joins tokens into words and those into a segment. Times are clamped to the window, because Whisper's may lie
/// outside.
fn join_tokens(
    tokens: impl Iterator<Item = Token>,
    (start, end): (i64, i64),
    offset: f64,
    length: f64,
) -> Option<EngineSegment> {
    let at = |hundredths: i64| offset + (hundredths.max(0) as f64 / 100.0).min(length);
    let mut words: Vec<(Vec<u8>, f64, f64, Vec<f32>)> = Vec::new();
    for token in tokens {
        match words.last_mut() {
            // Only a space begins a new word: punctuation and word endings are tokens of their own.
            Some((bytes, _, end, confidence)) if !token.bytes.starts_with(b" ") => {
                bytes.extend(&token.bytes);
                *end = at(token.end).max(*end);
                confidence.push(token.probability);
            }
            _ => {
                let start = at(token.start);
                words.push((token.bytes, start, at(token.end).max(start), vec![token.probability]));
            }
        }
    }
    let mean = |all: &[f32]| (!all.is_empty()).then(|| all.iter().sum::<f32>() / all.len() as f32);
    let all: Vec<f32> = words.iter().flat_map(|w| w.3.iter().copied()).collect();
    let words: Vec<Word> = words
        .into_iter()
        .map(|(bytes, start, end, confidence)| Word {
            text: String::from_utf8_lossy(&bytes).trim().to_owned(),
            start,
            end,
            confidence: mean(&confidence),
        })
        .filter(|w| !w.text.is_empty())
        .collect();
    let text = words.iter().map(|w| w.text.as_str()).collect::<Vec<_>>().join(" ");
    let start = at(start);
    (!text.is_empty()).then(|| EngineSegment { start, end: at(end).max(start), text, confidence: mean(&all), words })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &[u8], start: i64, end: i64) -> Token {
        Token { bytes: text.to_vec(), start, end, probability: 0.5 }
    }

    #[test]
    fn tokens_become_words_with_times_in_the_recording() {
        let tokens = [token(b" hel", 10, 30), token(b"lo", 30, 50), token(b",", 50, 50), token(b" you", 60, 9000)];
        let segment = join_tokens(tokens.into_iter(), (0, 9000), 100.0, 20.0).unwrap();
        assert_eq!((segment.text.as_str(), segment.start, segment.end), ("hello, you", 100.0, 120.0));
        assert_eq!((segment.words[0].start, segment.words[0].end), (100.1, 100.5));
        assert_eq!((segment.words[1].end, segment.confidence), (120.0, Some(0.5)));
    }

    #[test]
    fn a_character_divided_among_tokens_is_joined() {
        let tokens = [token(b" caf\xc3", 0, 10), token(b"\xa9", 10, 20)];
        assert_eq!(join_tokens(tokens.into_iter(), (0, 20), 0.0, 1.0).unwrap().text, "café");
        assert!(join_tokens([token(b" ", 0, 10)].into_iter(), (0, 10), 0.0, 1.0).is_none());
        assert!(join_tokens(std::iter::empty(), (0, 10), 0.0, 1.0).is_none());
    }

    #[test]
    fn language_tags_become_whisper_codes() {
        assert_eq!(language_code(Some("en-GB"), false).unwrap(), "en");
        assert_eq!(language_code(Some("DE"), true).unwrap(), "de");
        assert_eq!(
            (language_code(None, true).unwrap(), language_code(None, false).unwrap()),
            ("auto".into(), "en".into())
        );
        for (tag, multilingual) in [("de", false), ("tlh", true), ("\0", true)] {
            assert_eq!(language_code(Some(tag), multilingual).unwrap_err().code, "language");
        }
    }
}
