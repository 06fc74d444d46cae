//! Whisper in a build with it: whisper.cpp by `whisper-rs`, fed windows of at most 28 s cut at pauses, so that
//! progress moves and each answer comes as soon as its window is done. Called by `child`.

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

pub(super) const LINKED: bool = true;

/// A window whose loudest sample (of 32768) is below this is not listened to: Whisper makes words up out of silence.
const SILENT: u16 = 16;
/// Longer segments are divided at a word, in characters: about 15 s of speech.
const LONGEST_TEXT: i32 = 200;
/// More threads than this make whisper.cpp slower, not faster.
const MOST_THREADS: usize = 8;
/// whisper.cpp hears nothing in less than a second, in samples.
const SHORTEST: usize = SAMPLE_RATE as usize + 1600;

pub(in crate::server::speech) fn child(model: &Path, language: Option<&str>) -> Result<(), ChildError> {
    // whisper.cpp reports to standard error otherwise, at length.
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
    let language = spoken(language, context.is_multilingual())?;
    let mut state = context.create_state().map_err(|e| unusable(e.to_string()))?;
    let eot = context.token_eot();
    say_ready(&name(model))?;
    let mut cutter = Cutter::new(Rules::LONG);
    let mut done = 0;
    let mut over = false;
    while !over {
        let pieces = match read_samples()? {
            Some(samples) => cutter.push(&samples),
            None => {
                over = true;
                vec![cutter.finish()]
            }
        };
        for piece in pieces.iter().filter(|p| !p.is_empty()) {
            if piece.iter().any(|s| s.unsigned_abs() >= SILENT) {
                listen(&mut state, piece, &language)
                    .map_err(|e| ChildError::new("whisper", format!("Whisper failed: {e}.")))?;
                for segment in state.as_iter() {
                    if let Some(segment) = heard(&segment, eot, seconds(done), seconds(piece.len())) {
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

fn listen(state: &mut WhisperState, piece: &[i16], language: &str) -> Result<(), WhisperError> {
    let mut params = FullParams::new(SamplingStrategy::Greedy { best_of: 1 });
    let threads = thread::available_parallelism().map_or(1, |n| n.get().min(MOST_THREADS));
    params.set_n_threads(i32::try_from(threads).unwrap_or(1));
    params.set_language(Some(language));
    // A window that was misheard must not lead the next one astray.
    params.set_no_context(true);
    params.set_token_timestamps(true);
    params.set_max_len(LONGEST_TEXT);
    params.set_split_on_word(true);
    params.set_print_special(false);
    params.set_print_progress(false);
    params.set_print_realtime(false);
    params.set_print_timestamps(false);
    let mut samples: Vec<f32> = piece.iter().map(|s| f32::from(*s) / 32_768.0).collect();
    samples.resize(samples.len().max(SHORTEST), 0.0);
    state.full(params, &samples)
}

/// Whisper's code for a BCP 47 tag; `auto` lets it find out.
fn spoken(language: Option<&str>, multilingual: bool) -> Result<String, ChildError> {
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

/// A model's name without what all model files share.
fn name(model: &Path) -> String {
    let stem = model.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    stem.strip_prefix("ggml-").map(str::to_owned).unwrap_or(stem)
}

/// A token of a segment: its bytes (characters may be divided among tokens), times in hundredths of a second from the
/// start of the window, probability.
struct Token {
    bytes: Vec<u8>,
    start: i64,
    end: i64,
    probability: f32,
}

/// A segment at its place in the recording; none if nothing was said.
fn heard(segment: &WhisperSegment<'_>, eot: i32, offset: f64, length: f64) -> Option<EngineSegment> {
    let tokens = (0..segment.n_tokens()).filter_map(|n| segment.get_token(n)).filter(|t| t.token_id() < eot);
    let tokens = tokens.filter_map(|token| {
        let data = token.token_data();
        Some(Token { bytes: token.to_bytes().ok()?.to_vec(), start: data.t0, end: data.t1, probability: data.p })
    });
    placed(tokens, (segment.start_timestamp(), segment.end_timestamp()), offset, length)
}

/// The words of tokens, and the segment they make. Times never leave the window: Whisper's own may.
fn placed(
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
    fn tokens_become_words_at_their_place() {
        let tokens = [token(b" hel", 10, 30), token(b"lo", 30, 50), token(b",", 50, 50), token(b" you", 60, 9000)];
        let segment = placed(tokens.into_iter(), (0, 9000), 100.0, 20.0).unwrap();
        assert_eq!((segment.text.as_str(), segment.start, segment.end), ("hello, you", 100.0, 120.0));
        assert_eq!((segment.words[0].start, segment.words[0].end), (100.1, 100.5));
        assert_eq!((segment.words[1].end, segment.confidence), (120.0, Some(0.5)));
    }

    #[test]
    fn a_character_divided_among_tokens_is_whole() {
        let tokens = [token(b" caf\xc3", 0, 10), token(b"\xa9", 10, 20)];
        assert_eq!(placed(tokens.into_iter(), (0, 20), 0.0, 1.0).unwrap().text, "café");
        assert!(placed([token(b" ", 0, 10)].into_iter(), (0, 10), 0.0, 1.0).is_none());
        assert!(placed(std::iter::empty(), (0, 10), 0.0, 1.0).is_none());
    }

    #[test]
    fn languages_by_tag() {
        assert_eq!(spoken(Some("en-GB"), false).unwrap(), "en");
        assert_eq!(spoken(Some("DE"), true).unwrap(), "de");
        assert_eq!((spoken(None, true).unwrap(), spoken(None, false).unwrap()), ("auto".into(), "en".into()));
        for (tag, multilingual) in [("de", false), ("tlh", true), ("\0", true)] {
            assert_eq!(spoken(Some(tag), multilingual).unwrap_err().code, "language");
        }
    }
}
