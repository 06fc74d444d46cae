//! The answers of servers with the OpenAI transcription API, whole or streamed, as segments. Pure. Servers differ in what
//! they leave out, send as `null` or write in their own way, so anything but the text is optional here. Used by `remote`.

use crate::{
    model::Word,
    server::speech::{languages, protocol::EngineSegment},
};
use serde_json::Value;

/// Times above this, in seconds, are in nanoseconds, as LocalAI writes them: a piece is shorter than a minute.
const NANOSECONDS_FROM: f64 = 1e6;

/// A transcription as a server sent it, with times in seconds from the start of the piece.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Transcription {
    text: String,
    /// The language, as a tag of the table of languages.
    pub(super) language: Option<&'static str>,
    segments: Vec<AnsweredSegment>,
    words: Vec<AnsweredWord>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct AnsweredSegment {
    start: Option<f64>,
    end: Option<f64>,
    text: String,
    confidence: Option<f32>,
    words: Vec<AnsweredWord>,
}

#[derive(Clone, Debug, PartialEq)]
struct AnsweredWord {
    text: String,
    start: f64,
    end: f64,
    confidence: Option<f32>,
}

/// Parses a whole answer.
///
/// # Errors
/// If it isn't a transcription; the text says why, for people.
pub(super) fn parse(bytes: &[u8]) -> Result<Transcription, String> {
    let value: Value = serde_json::from_slice(bytes).map_err(|_| "its answer is not JSON".to_owned())?;
    transcription(&value)
}

/// Makes a transcription of plain text, which some servers send whatever they are asked for.
pub(super) fn from_text(text: String) -> Transcription {
    Transcription { text, ..Transcription::default() }
}

/// The parts of a streamed answer, one event after the other.
#[derive(Default)]
pub(super) struct StreamedAnswer {
    answer: Transcription,
    /// The text of all parts so far, to be shown until the whole is there.
    pub(super) partial: String,
    /// Whether an event has come at all.
    begun: bool,
    /// Whether the parts are of a kind that has an event for its end.
    has_end: bool,
    pub(super) done: bool,
}

impl StreamedAnswer {
    /// Adds the data of an event. Returns whether there is more text to show than before.
    ///
    /// # Errors
    /// If it isn't part of an answer, or reports a failure.
    pub(super) fn add(&mut self, data: &str) -> Result<bool, String> {
        if data.trim() == "[DONE]" {
            self.begun = true;
            self.done = true;
            return Ok(false);
        }
        let event: Value = serde_json::from_str(data).map_err(|_| "an event of its answer is not JSON".to_owned())?;
        check(&event)?;
        self.begun = true;
        let text = text(&event["text"]);
        if let Some(language) = language(&event) {
            self.answer.language = Some(language);
        }
        match event["type"].as_str().unwrap_or_default() {
            // OpenAI: deltas, then the whole text.
            "transcript.text.delta" => {
                self.has_end = true;
                self.partial.push_str(event["delta"].as_str().unwrap_or_default());
            }
            "transcript.text.done" => {
                self.answer.text = text;
                self.done = true;
                return Ok(false);
            }
            "" | "transcript.text.segment" => {
                if let Value::Array(choices) = &event["choices"] {
                    // vLLM: deltas as of a chat, then `[DONE]`.
                    self.has_end = true;
                    let delta = choices.first().and_then(|choice| choice["delta"]["content"].as_str());
                    self.add_text(delta.unwrap_or_default());
                } else if list(&event["segments"]).next().is_some() {
                    // Whole answers, each with a segment or all of them.
                    let part = transcription(&event)?;
                    self.partial.push_str(&part.text);
                    self.answer.segments.extend(part.segments);
                    self.answer.words.extend(part.words);
                } else if number(&event["start"]).is_some() {
                    self.partial.push_str(&text);
                    self.answer.segments.push(segment(&event));
                } else {
                    self.add_text(&text);
                }
            }
            _ => return Ok(false), // an event of later versions
        }
        Ok(true)
    }

    fn add_text(&mut self, text: &str) {
        self.partial.push_str(text);
        if self.answer.segments.is_empty() {
            self.answer.text.push_str(text);
        } else {
            // Text without a time among segments would be lost otherwise.
            self.answer.segments.push(AnsweredSegment { text: text.to_owned(), ..AnsweredSegment::default() });
        }
    }

    /// Returns the complete answer; none if it broke off. Where the server sends no text of the whole, the text is that of
    /// the parts, so that what was shown is also kept.
    pub(super) fn whole(mut self) -> Option<Transcription> {
        let is_whole = self.done || (self.begun && !self.has_end);
        if self.answer.text.trim().is_empty() {
            self.answer.text = self.partial;
        }
        is_whole.then_some(self.answer)
    }
}

/// Fails if an answer with a good status reports a failure all the same.
fn check(value: &Value) -> Result<(), String> {
    let Value::Object(fields) = value else { return Err("its answer is not a transcription".to_owned()) };
    let is_error = fields.get("error").is_some_and(|error| !error.is_null())
        || ["object", "type"].iter().any(|key| fields.get(*key).is_some_and(|kind| kind == "error"));
    if is_error { Err(error_message(value).unwrap_or_else(|| "it reports an error".to_owned())) } else { Ok(()) }
}

/// Finds the sentence in an error response: OpenAI's `error.message`, FastAPI's `detail`, or what others have.
pub(super) fn error_message(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()).filter(|text| !text.trim().is_empty()),
        Value::Array(list) => list.iter().find_map(error_message),
        Value::Object(_) => ["error", "message", "detail", "msg"].iter().find_map(|key| error_message(&value[*key])),
        _ => None,
    }
}

fn transcription(value: &Value) -> Result<Transcription, String> {
    check(value)?;
    Ok(Transcription {
        text: text(&value["text"]),
        language: language(value),
        segments: list(&value["segments"]).map(segment).collect(),
        words: list(&value["words"]).filter_map(word).collect(),
    })
}

fn segment(value: &Value) -> AnsweredSegment {
    // vLLM sends -1 for both where it knows neither.
    let is_measured = number(&value["compression_ratio"]).is_none_or(|ratio| ratio >= 0.0);
    let confidence = number(&value["avg_logprob"]).filter(|_| is_measured).map(|p| p.exp() as f32);
    AnsweredSegment {
        start: number(&value["start"]),
        end: number(&value["end"]),
        text: text(&value["text"]),
        confidence,
        words: list(&value["words"]).filter_map(word).collect(),
    }
}

/// A word; none without a text or a time.
fn word(value: &Value) -> Option<AnsweredWord> {
    let spoken = Some(text(&value["word"])).filter(|word| !word.trim().is_empty());
    let text = spoken.unwrap_or_else(|| text(&value["text"])).trim().to_owned();
    let start = number(&value["start"])?;
    let end = number(&value["end"]).unwrap_or(start);
    let confidence = number(&value["probability"]).map(|p| p as f32);
    (!text.is_empty()).then_some(AnsweredWord { text, start, end, confidence })
}

fn language(value: &Value) -> Option<&'static str> {
    value["language"].as_str().and_then(languages::recognise)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A number, which may be written as a text.
fn number(value: &Value) -> Option<f64> {
    let number = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok())?;
    number.is_finite().then_some(number)
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten().filter(|item| item.is_object())
}

impl Transcription {
    /// Converts the answer to a piece of so many seconds into segments with times in the recording, of which `offset`
    /// is the start of the piece. An answer without segments becomes one.
    pub(super) fn segments(self, length: f64, offset: f64) -> Vec<EngineSegment> {
        let mut segments: Vec<AnsweredSegment> =
            self.segments.into_iter().filter(|segment| !segment.text.trim().is_empty()).collect();
        if segments.is_empty() {
            segments.push(AnsweredSegment { text: self.text, ..AnsweredSegment::default() });
        }
        let latest = segments.iter().filter_map(|segment| segment.end).chain(self.words.iter().map(|word| word.end));
        let unit = if latest.fold(0.0, f64::max) > NANOSECONDS_FROM { 1e-9 } else { 1.0 };
        let at = |time: f64| offset + (time * unit).clamp(0.0, length);
        let starts: Vec<Option<f64>> = segments.iter().map(|segment| segment.start.map(at)).collect();
        let mut words = self.words.into_iter().peekable();
        let mut converted: Vec<EngineSegment> = Vec::new();
        let count = segments.len();
        for (n, segment) in segments.into_iter().enumerate() {
            // A time that is missing is where the neighbour's is.
            let previous = converted.last().map_or(offset, |segment| segment.end);
            let start = starts[n].unwrap_or(previous).max(converted.last().map_or(0.0, |segment| segment.start));
            let next = starts[n + 1..].iter().flatten().next().copied();
            let end = segment.end.map(at).or(next).unwrap_or(offset + length).max(start);
            let mut own = segment.words;
            if own.is_empty() {
                while let Some(word) = words.next_if(|word| n + 1 == count || at(word.start) < end) {
                    own.push(word);
                }
            }
            let own = own.into_iter().map(|word| {
                let (start, end) = (at(word.start), at(word.end));
                Word { text: word.text, start, end: end.max(start), confidence: word.confidence }
            });
            converted.push(EngineSegment {
                start,
                end,
                text: segment.text,
                confidence: segment.confidence,
                words: own.collect(),
            });
        }
        converted.retain(|segment| !segment.text.trim().is_empty());
        converted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn segments(json: &str, length: f64, offset: f64) -> Vec<EngineSegment> {
        parse(json.as_bytes()).unwrap().segments(length, offset)
    }

    fn times(segments: &[EngineSegment]) -> Vec<(f64, f64, &str)> {
        segments.iter().map(|s| (s.start, s.end, s.text.trim())).collect()
    }

    #[test]
    fn an_answer_is_shifted_to_its_time_in_the_recording() {
        let converted = segments(
            r#"{"text":"a b c","segments":[{"start":0,"end":1.5,"text":" a b","avg_logprob":0},{"start":1.5,"end":9,"text":"c"}],
               "words":[{"word":"a","start":0.1,"end":0.5},{"word":"b","start":0.6,"end":1.2},{"word":"c","start":1.6,"end":2}]}"#,
            3.0,
            10.0,
        );
        assert_eq!(times(&converted), [(10.0, 11.5, "a b"), (11.5, 13.0, "c")]);
        assert_eq!((converted[0].confidence, converted[1].confidence), (Some(1.0), None));
        assert_eq!((converted[0].words.len(), converted[1].words.len()), (2, 1));
    }

    #[test]
    fn null_is_nothing() {
        // vLLM and mlx send their optional fields so.
        let one =
            segments(r#"{"text":"hello","language":null,"duration":"3.0","segments":null,"words":null}"#, 3.0, 1.0);
        assert_eq!(times(&one), [(1.0, 4.0, "hello")]);
        for nothing in [r#"{"text":null}"#, "{}", r#"{"text":" ","segments":[]}"#, r#"{"text":null,"segments":[null]}"#]
        {
            assert!(segments(nothing, 3.0, 1.0).is_empty(), "{nothing}");
        }
        let converted = segments(
            r#"{"text":"a b c","segments":[{"start":null,"end":null,"text":"a"},{"start":1,"end":null,"text":"b","words":null},
               {"start":2,"end":3,"text":null},{"start":2.5,"end":2.8,"text":"c","avg_logprob":null}],
               "words":[{"word":"a","start":null,"end":null},{"word":null,"start":1,"end":2},{"word":"b","start":1.2,"end":null}]}"#,
            3.0,
            0.0,
        );
        assert_eq!(times(&converted), [(0.0, 1.0, "a"), (1.0, 2.5, "b"), (2.5, 2.8, "c")]);
        assert_eq!(converted.iter().map(|s| s.words.len()).collect::<Vec<_>>(), [0, 1, 0]);
    }

    #[test]
    fn times_and_confidences_that_servers_write_in_their_own_way() {
        // LocalAI: nanoseconds.
        let converted = segments(
            r#"{"text":"a b","segments":[{"start":0,"end":1500000000,"text":"a"},{"start":1500000000,"end":2500000000,"text":"b"}]}"#,
            3.0,
            0.0,
        );
        assert_eq!(times(&converted), [(0.0, 1.5, "a"), (1.5, 2.5, "b")]);
        // vLLM: -1 where it knows neither, and numbers as text.
        let placeholder = segments(
            r#"{"segments":[{"start":"0.5","end":"1","text":"a","avg_logprob":-1.0,"compression_ratio":-1.0}]}"#,
            3.0,
            0.0,
        );
        assert_eq!((times(&placeholder), placeholder[0].confidence), (vec![(0.5, 1.0, "a")], None));
        // whisper.cpp: words within segments.
        let nested = segments(
            r#"{"segments":[{"start":0,"end":2,"text":" a b","words":[{"word":" a","start":0.1,"end":0.3,"probability":0.5},{"word":" b","start":1,"end":1.5,"probability":0.9}]}]}"#,
            3.0,
            0.0,
        );
        assert_eq!(
            nested[0].words.iter().map(|w| (w.text.as_str(), w.confidence)).collect::<Vec<_>>(),
            [("a", Some(0.5)), ("b", Some(0.9))]
        );
    }

    #[test]
    fn the_language_may_be_a_name_or_a_code() {
        for said in ["english", "English", "en", "en-US"] {
            let json = format!(r#"{{"text":"a","language":"{said}"}}"#);
            assert_eq!(parse(json.as_bytes()).unwrap().language, Some("en"), "{said}");
        }
        for said in [r#""klingon""#, "null", "7"] {
            let json = format!(r#"{{"text":"a","language":{said}}}"#);
            assert_eq!(parse(json.as_bytes()).unwrap().language, None, "{said}");
        }
    }

    #[test]
    fn an_error_with_a_good_status_is_an_error() {
        for (json, message) in [
            (r#"{"error":{"message":"out of memory"}}"#, "out of memory"),
            (r#"{"object":"error","message":"too long"}"#, "too long"),
            (r#"{"error":"no"}"#, "no"),
            ("[]", "its answer is not a transcription"),
            ("<html>", "its answer is not JSON"),
        ] {
            assert_eq!(parse(json.as_bytes()).unwrap_err(), message);
        }
        let detail: Value =
            serde_json::from_str(r#"{"detail":[{"loc":["body","stream"],"msg":"not permitted"}]}"#).unwrap();
        assert_eq!(error_message(&detail).as_deref(), Some("not permitted"));
    }

    fn streamed(events: &[&str]) -> StreamedAnswer {
        let mut streamed = StreamedAnswer::default();
        for data in events {
            streamed.add(data).unwrap();
        }
        streamed
    }

    fn streamed_text(events: &[&str]) -> Option<String> {
        let segments = streamed(events).whole()?.segments(3.0, 0.0);
        Some(segments.iter().map(|s| s.text.trim()).collect::<Vec<_>>().join("|"))
    }

    #[test]
    fn a_streamed_answer_is_complete_only_with_its_final_event() {
        let openai = [
            r#"{"type":"transcript.text.delta","delta":"Good "}"#,
            r#"{"type":"transcript.text.delta","delta":"day"}"#,
            r#"{"type":"transcript.text.done","text":"Good day.","usage":{}}"#,
        ];
        assert_eq!(streamed(&openai[..2]).partial, "Good day");
        assert_eq!(streamed_text(&openai[..2]), None);
        assert_eq!(streamed_text(&openai).as_deref(), Some("Good day."));
        // Without the text of the whole it is that of the parts.
        for end in ["[DONE]", r#"{"type":"transcript.text.done","text":null}"#, r#"{"type":"transcript.text.done"}"#] {
            assert_eq!(streamed_text(&[openai[0], openai[1], end]).as_deref(), Some("Good day"), "{end}");
        }
        let vllm = [
            r#"{"object":"transcription.chunk","choices":[{"delta":{"content":" Good"}}]}"#,
            r#"{"object":"transcription.chunk","choices":[{"delta":{"content":" day."},"finish_reason":"stop"}]}"#,
            r#"{"object":"transcription.chunk","choices":[],"usage":{}}"#,
            "[DONE]",
        ];
        assert_eq!(streamed_text(&vllm[..2]), None);
        assert_eq!(streamed_text(&vllm).as_deref(), Some("Good day."));
        // A stream without a single event is the end of a server that failed.
        assert_eq!(streamed_text(&[]), None);
    }

    #[test]
    fn a_streamed_answer_may_be_segments_or_whole_answers() {
        let segments =
            [r#"{"id":0,"start":0.0,"end":1.0,"text":" a"}"#, r#"{"id":1,"start":1.0,"end":2.0,"text":" b"}"#];
        assert_eq!(streamed_text(&segments).as_deref(), Some("a|b"));
        let answers = [
            r#"{"task":"transcribe","language":"en","text":" a","words":null,"segments":[{"start":0,"end":1,"text":" a"}]}"#,
            r#"{"task":"transcribe","language":"en","text":" b","words":null,"segments":[{"start":1,"end":2,"text":" b"}]}"#,
        ];
        assert_eq!(streamed_text(&answers).as_deref(), Some("a|b"));
        let parts = [r#"{"text":"a ","accumulated":"a "}"#, r#"{"text":"b","start":null,"accumulated":"a b"}"#];
        assert_eq!(streamed_text(&parts).as_deref(), Some("a b"));
        assert_eq!(streamed_text(&[segments[0], parts[1]]).as_deref(), Some("a|b"));
        let without_texts = [r#"{"text":"a b","segments":[{"start":0,"end":1,"text":null}]}"#];
        assert_eq!(streamed_text(&without_texts).as_deref(), Some("a b"));
        assert!(StreamedAnswer::default().add("no json").is_err());
        assert!(StreamedAnswer::default().add(r#"{"error":{"message":"out of memory"}}"#).is_err());
    }

    proptest! {
        #[test]
        fn segments_are_in_order_and_within_the_piece(
            items in proptest::collection::vec((proptest::option::of(-5.0f64..40.0), proptest::option::of(-5.0f64..40.0)), 0..8),
            words in proptest::collection::vec((-5.0f64..40.0, proptest::option::of(-5.0f64..40.0)), 0..8),
        ) {
            let segments: Vec<Value> = items.iter().map(|(start, end)| serde_json::json!({"start": start, "end": end, "text": "a"})).collect();
            let words: Vec<Value> = words.iter().map(|(start, end)| serde_json::json!({"start": start, "end": end, "word": "a"})).collect();
            let json = serde_json::json!({"text": "a", "segments": segments, "words": words}).to_string();
            let converted = parse(json.as_bytes()).unwrap().segments(28.0, 100.0);
            prop_assert_eq!(converted.len(), items.len().max(1));
            prop_assert!(converted.windows(2).all(|pair| pair[0].start <= pair[1].start));
            for segment in &converted {
                prop_assert!(segment.start <= segment.end && (100.0..=128.0).contains(&segment.start) && segment.end <= 128.0);
                prop_assert!(segment.words.iter().all(|w| w.start <= w.end && (100.0..=128.0).contains(&w.end)));
            }
            prop_assert_eq!(converted.iter().map(|s| s.words.len()).sum::<usize>(), words.len());
        }
    }
}
