//! The lines that an engine writes, and their validation. Pure. Described in `docs/engine-protocol.md`. `process` reads
//! them, `child` writes them.

use super::{SpeechError, languages};
use crate::model::{DetectedLanguage, Remark, Word};
use serde::{Deserialize, Serialize};

/// Longest line accepted, in bytes.
pub(super) const MAX_LINE: usize = 1024 * 1024;
/// The longest recording that is possible, in seconds: a week. Times beyond are invalid.
const MAX_SECONDS: f64 = 7.0 * 24.0 * 3600.0;

/// A finished piece of text; times in seconds from the first sample that the engine was given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EngineSegment {
    pub start: f64,
    pub end: f64,
    pub text: String,
    /// 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<Word>,
}

/// An event from an engine.
#[derive(Clone, Debug, PartialEq)]
pub enum EngineEvent {
    /// The model is loaded.
    Ready {
        model: String,
    },
    /// Seconds of audio that are completely transcribed.
    Progress {
        processed: f64,
        /// No segment that begins earlier will follow.
        settled: f64,
    },
    /// Text that may still change.
    Partial {
        text: String,
    },
    Segment(EngineSegment),
    /// The language that is spoken.
    Language(DetectedLanguage),
    /// What a reader of the transcript should know.
    Remark {
        remark: Remark,
        /// Whether it stands in the place of the engine's last one with this code.
        replaces: bool,
    },
    /// Everything up to the end of the audio has been transcribed.
    Done,
}

/// A line of the protocol.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Line {
    Ready {
        #[serde(default)]
        protocol: Option<u32>,
        #[serde(default)]
        model: String,
    },
    Progress {
        processed: f64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        settled: Option<f64>,
    },
    Partial {
        text: String,
    },
    Segment(EngineSegment),
    Language {
        language: String,
        #[serde(default)]
        probability: Option<f32>,
    },
    Remark {
        code: String,
        message: String,
        #[serde(default)]
        replaces: bool,
    },
    Done,
    Error {
        code: String,
        message: String,
    },
}

/// Parses lines one after the other and checks each against the previous ones.
#[derive(Debug, Default)]
pub(super) struct Parser {
    processed: f64,
    settled: f64,
    last_start: f64,
}

impl Parser {
    /// Parses a line. Returns none for an empty line, or for progress by which nothing is more than before.
    ///
    /// # Errors
    /// If the line doesn't follow the protocol, or the engine reports an error.
    pub(super) fn line(&mut self, text: &str) -> Result<Option<EngineEvent>, SpeechError> {
        if text.trim().is_empty() {
            return Ok(None);
        }
        let broken = |reason: String| SpeechError::Protocol { line: text.chars().take(200).collect(), reason };
        let line: Line =
            serde_json::from_str(text).map_err(|e| broken(format!("a line is not as documented ({e})")))?;
        match line {
            Line::Ready { protocol: Some(n), .. } if n != 1 => {
                Err(broken(format!("it speaks version {n} of the protocol, and Hark version 1")))
            }
            Line::Ready { model, .. } => {
                Ok(Some(EngineEvent::Ready { model: without_nul(&model).chars().take(200).collect() }))
            }
            Line::Progress { processed, settled } => {
                check("progress", processed).map_err(broken)?;
                let settled = settled.unwrap_or(processed);
                check("the settled part", settled).map_err(broken)?;
                if processed <= self.processed && settled <= self.settled {
                    return Ok(None);
                }
                self.processed = self.processed.max(processed);
                self.settled = self.settled.max(settled);
                Ok(Some(EngineEvent::Progress { processed: self.processed, settled: self.settled }))
            }
            Line::Partial { text } => Ok(Some(EngineEvent::Partial { text })),
            Line::Segment(segment) => {
                self.segment(&segment).map_err(broken)?;
                Ok(Some(EngineEvent::Segment(sanitise(segment))))
            }
            Line::Language { language, probability } => {
                let language: String = without_nul(&language).chars().take(35).collect();
                Ok(Some(EngineEvent::Language(languages::detected(language, unit(probability)))))
            }
            Line::Remark { code, message, replaces } => {
                Ok(Some(EngineEvent::Remark { remark: Remark::new(&code, &message), replaces }))
            }
            Line::Done => Ok(Some(EngineEvent::Done)),
            Line::Error { code, message } => {
                Err(SpeechError::Engine { code: without_nul(&code), message: without_nul(&message) })
            }
        }
    }

    fn segment(&mut self, segment: &EngineSegment) -> Result<(), String> {
        check("the start of a segment", segment.start)?;
        check("the end of a segment", segment.end)?;
        if segment.end < segment.start {
            return Err(format!("a segment ends at {} before it starts at {}", segment.end, segment.start));
        }
        if segment.start < self.last_start {
            return Err(format!("a segment at {} comes after one at {}", segment.start, self.last_start));
        }
        for word in &segment.words {
            check("a word's start", word.start)?;
            check("a word's end", word.end)?;
            if word.end < word.start {
                return Err(format!("a word ends at {} before it starts at {}", word.end, word.start));
            }
        }
        self.last_start = segment.start;
        Ok(())
    }
}

fn check(what: &str, seconds: f64) -> Result<(), String> {
    if seconds.is_finite() && (0.0..=MAX_SECONDS).contains(&seconds) {
        Ok(())
    } else {
        Err(format!("{what} is {seconds}, which isn't a time in a recording"))
    }
}

/// Removes the character 0, which nobody can read and PostgreSQL can't store.
fn without_nul(text: &str) -> String {
    text.replace('\0', "")
}

/// Moves a number into the range 0 to 1.
fn unit(number: Option<f32>) -> Option<f32> {
    number.filter(|number| number.is_finite()).map(|number| number.clamp(0.0, 1.0))
}

fn sanitise(mut segment: EngineSegment) -> EngineSegment {
    segment.confidence = unit(segment.confidence);
    for word in &mut segment.words {
        word.confidence = unit(word.confidence);
    }
    segment.text = without_nul(segment.text.trim());
    segment
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(lines: &[&str]) -> Vec<Result<Option<EngineEvent>, SpeechError>> {
        let mut parser = Parser::default();
        lines.iter().map(|l| parser.line(l)).collect()
    }

    #[test]
    fn documented_lines_are_parsed() {
        let events = all(&[
            r#"{"type":"ready","protocol":1,"engine":"x","model":"m"}"#,
            r#"{"type":"progress","processed":1.5}"#,
            r#"{"type":"partial","text":"hel"}"#,
            r#"{"type":"segment","start":0.5,"end":1.5,"text":" hello ","confidence":2.0,"words":[{"text":"hello","start":0.5,"end":1.5}]}"#,
            "",
            r#"{"type":"language","language":"de","probability":1.5}"#,
            r#"{"type":"remark","code":"left_out","message":"0:30 to 0:45 could not be heard."}"#,
            r#"{"type":"done"}"#,
            r#"{"type":"remark","code":"left_out","message":"2 parts could not be heard.","replaces":true}"#,
        ]);
        let events: Vec<_> = events.into_iter().filter_map(|e| e.unwrap()).collect();
        assert_eq!(events.len(), 8);
        let EngineEvent::Segment(segment) = &events[3] else { panic!("{events:?}") };
        assert_eq!((segment.text.as_str(), segment.confidence), ("hello", Some(1.0)));
        let EngineEvent::Language(found) = &events[4] else { panic!("{events:?}") };
        assert_eq!((found.label().as_str(), found.language.as_str()), ("German (100%)", "de"));
        let EngineEvent::Remark { remark, replaces: false } = &events[5] else { panic!("{events:?}") };
        assert_eq!((remark.code.as_str(), remark.message.as_str()), ("left_out", "0:30 to 0:45 could not be heard."));
        assert_eq!(events[6], EngineEvent::Done);
        assert!(matches!(&events[7], EngineEvent::Remark { replaces: true, .. }), "{events:?}");
    }

    #[test]
    fn the_character_0_is_removed() {
        let events = all(&[
            r#"{"type":"ready","model":"m\u0000n"}"#,
            r#"{"type":"segment","start":0,"end":1,"text":"a\u0000b"}"#,
            r#"{"type":"error","code":"c\u0000","message":"\u0000d"}"#,
        ]);
        assert_eq!(events[0].as_ref().unwrap(), &Some(EngineEvent::Ready { model: "mn".to_owned() }));
        assert!(matches!(events[1].as_ref().unwrap(), Some(EngineEvent::Segment(segment)) if segment.text == "ab"));
        assert!(matches!(&events[2], Err(SpeechError::Engine { code, message }) if code == "c" && message == "d"));
    }

    #[test]
    fn invalid_lines_are_refused() {
        for line in [
            "hello",
            "{}",
            r#"{"type":"unheard"}"#,
            r#"{"type":"progress","processed":-1}"#,
            r#"{"type":"progress","processed":1e300}"#,
            r#"{"type":"segment","start":2,"end":1,"text":""}"#,
            r#"{"type":"ready","protocol":2}"#,
        ] {
            assert!(matches!(all(&[line])[0], Err(SpeechError::Protocol { .. })), "{line}");
        }
        let back = all(&[
            r#"{"type":"segment","start":2,"end":3,"text":"a"}"#,
            r#"{"type":"segment","start":1,"end":3,"text":"b"}"#,
        ]);
        assert!(back[0].is_ok() && back[1].is_err());
    }

    #[test]
    fn what_is_settled_is_what_is_done_unless_the_engine_says_less() {
        let events = all(&[
            r#"{"type":"progress","processed":5}"#,
            r#"{"type":"progress","processed":9,"settled":4}"#,
            r#"{"type":"progress","processed":8,"settled":7}"#,
            r#"{"type":"progress","processed":9,"settled":7}"#,
        ]);
        let events: Vec<_> = events.into_iter().filter_map(Result::unwrap).collect();
        let progress = |processed, settled| EngineEvent::Progress { processed, settled };
        assert_eq!(events, [progress(5.0, 5.0), progress(9.0, 5.0), progress(9.0, 7.0)]);
    }

    #[test]
    fn an_engine_may_report_its_own_error() {
        let error = all(&[r#"{"type":"error","code":"quota","message":"No quota left."}"#]).remove(0).unwrap_err();
        assert_eq!((error.code(), error.to_string().as_str()), ("engine_error", "No quota left."));
    }

    proptest! {
        #[test]
        fn any_line_is_an_event_or_an_error(line in "\\PC{0,80}") {
            let _ = Parser::default().line(&line);
        }

        #[test]
        fn progress_never_falls(steps in proptest::collection::vec(0.0f64..1000.0, 0..30)) {
            let mut parser = Parser::default();
            let mut last = -1.0;
            for step in steps {
                if let Some(EngineEvent::Progress { processed, .. }) = parser.line(&format!(r#"{{"type":"progress","processed":{step}}}"#)).unwrap() {
                    prop_assert!(processed > last);
                    last = processed;
                }
            }
        }
    }
}
