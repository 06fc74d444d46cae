//! The `openai` engine: any server with the OpenAI transcription API. It sends the recording in pieces cut at pauses,
//! as WAV, and shifts the times of each answer by the start of its piece. A server that streams its answer is read as
//! the answer comes. Source of the events: OpenAI's API reference, "Transcription streaming events".

use super::{
    Availability, Engine, Request, SpeechError, own_child, pass_on,
    pieces::{Cutter, Rules},
    pipe::{ChildError, read_samples, say, say_ready, say_segment, seconds},
    protocol::{EngineSegment, Line},
};
use crate::{
    model::{EngineId, Word, bytes},
    server::config,
};
use eventsource_stream::Eventsource;
use futures::StreamExt;
use reqwest::{
    Client, Response, StatusCode,
    header::{CONTENT_TYPE, LOCATION, RETRY_AFTER},
    multipart::{Form, Part},
    redirect::Policy,
};
use serde::Deserialize;
use std::{path::PathBuf, time::Duration};
use tokio::{process::Command, time};

/// The variable with the key. It is never an argument, because other users of the machine could read that.
const KEY: &str = "HARK_OPENAI_KEY";
/// The variable that names a file with the key.
const KEY_FILE: &str = "HARK_OPENAI_KEY_FILE";
/// The timeout of an answer.
const TIMEOUT: Duration = Duration::from_secs(300);
/// The longest answer to one piece, in bytes: ten times what ten minutes of speech with times of words take.
const MAX_ANSWER: usize = 4 * 1024 * 1024;
/// Bytes of an error response that are read.
const MAX_REFUSAL: usize = 64 * 1024;
/// How often a piece is sent while the server is busy or fails, and the longest wait in between, in seconds.
const MAX_TRIES: u32 = 5;
const MAX_WAIT: f64 = 60.0;

pub(super) struct Openai {
    program: Option<PathBuf>,
    url: Option<String>,
    model: String,
}

impl Openai {
    pub(super) fn new(program: Option<PathBuf>, url: Option<String>, model: String) -> Self {
        let url = url.map(|u| u.trim_end_matches('/').to_owned()).filter(|u| !u.is_empty());
        Self { program, url, model }
    }
}

impl Engine for Openai {
    fn id(&self) -> EngineId {
        EngineId::Openai
    }

    fn model(&self) -> String {
        self.model.clone()
    }

    fn availability(&self) -> Availability {
        match &self.url {
            None => Availability::Missing {
                reason: "No server is set.".to_owned(),
                install: format!("HARK_OPENAI_URL=https://host/v1 {KEY}=… hark serve"),
            },
            Some(url) if !url.starts_with("http://") && !url.starts_with("https://") => Availability::Missing {
                reason: "The server's address must begin with http:// or https://.".to_owned(),
                install: "HARK_OPENAI_URL=https://host/v1".to_owned(),
            },
            Some(_) => Availability::Ready,
        }
    }

    fn command(&self, request: &Request) -> Result<Command, SpeechError> {
        let url = self.url.as_deref().unwrap_or_default();
        let mut command = own_child(self.program.as_deref(), &["openai", "--url", url, "--model", &self.model])?;
        pass_on(&mut command, [KEY, KEY_FILE]);
        if let Some(language) = &request.language {
            command.args(["--language", language]);
        }
        Ok(command)
    }
}

#[derive(Default, Deserialize)]
struct Transcription {
    #[serde(default)]
    text: String,
    #[serde(default)]
    segments: Vec<TranscriptionSegment>,
    #[serde(default)]
    words: Vec<TranscriptionWord>,
}

#[derive(Deserialize)]
struct TranscriptionSegment {
    start: f64,
    end: f64,
    text: String,
    #[serde(default)]
    avg_logprob: Option<f64>,
}

#[derive(Deserialize)]
struct TranscriptionWord {
    word: String,
    start: f64,
    end: f64,
}

/// One event of a streamed answer. Servers other than OpenAI's send the segments of a whole answer one by one.
#[derive(Deserialize)]
struct StreamEvent {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    delta: String,
    #[serde(default)]
    text: String,
    start: Option<f64>,
    end: Option<f64>,
    #[serde(default)]
    avg_logprob: Option<f64>,
}

/// The part of a streamed answer that has been received.
#[derive(Default)]
struct StreamedAnswer {
    answer: Transcription,
    /// The text of all deltas, until the complete text comes.
    partial: String,
    done: bool,
}

impl StreamedAnswer {
    /// Adds an event. Returns whether there is more text to show than before.
    fn add(&mut self, data: &str) -> Result<bool, serde_json::Error> {
        if data.trim() == "[DONE]" {
            self.done = true;
            return Ok(false);
        }
        let event: StreamEvent = serde_json::from_str(data)?;
        match (event.kind.as_str(), event.start, event.end) {
            ("transcript.text.delta", ..) => self.partial.push_str(&event.delta),
            ("transcript.text.done", ..) => {
                self.answer.text = event.text;
                self.done = true;
                return Ok(false);
            }
            ("" | "transcript.text.segment", Some(start), Some(end)) => {
                self.partial.push_str(&event.text);
                let segment = TranscriptionSegment { start, end, text: event.text, avg_logprob: event.avg_logprob };
                self.answer.segments.push(segment);
            }
            ("", ..) => {
                self.partial.push_str(&event.text);
                self.answer.text.push_str(&event.text);
            }
            _ => return Ok(false), // an event of later versions
        }
        Ok(true)
    }

    /// Returns the complete answer; none if it broke off: deltas without the final event that OpenAI's servers always
    /// send.
    fn whole(self) -> Option<Transcription> {
        let is_complete = self.done || !self.answer.segments.is_empty() || !self.answer.text.is_empty();
        (is_complete || self.partial.is_empty()).then_some(self.answer)
    }
}

/// Runs the child, which sends a request for each piece.
pub(super) async fn child(url: &str, model: &str, language: Option<&str>) -> Result<(), ChildError> {
    // The key and the recording are only for the configured server, and not for another to which it redirects.
    let client = Client::builder().timeout(TIMEOUT).redirect(Policy::none()).build();
    let client = client.map_err(|e| ChildError::new("internal", e.to_string()))?;
    let key_file = std::env::var_os(KEY_FILE).map(PathBuf::from);
    let key = config::read_secret(KEY, key_file.as_deref()).map_err(|e| ChildError::new("internal", e))?;
    let mut remote = Remote {
        client,
        url: format!("{url}/audio/transcriptions"),
        model,
        language,
        key,
        verbose: true,
        stream: true,
    };
    say_ready(model)?;
    let mut cutter = Cutter::new(Rules::LONG);
    let mut done = 0;
    let mut at_end = false;
    while !at_end {
        let samples =
            tokio::task::spawn_blocking(read_samples).await.map_err(|e| ChildError::new("io", e.to_string()))??;
        at_end = samples.is_none();
        let pieces = match samples {
            Some(samples) => cutter.push(&samples),
            None => vec![cutter.finish()],
        };
        for piece in pieces.iter().filter(|p| !p.is_empty()) {
            for segment in remote.transcribe(piece, seconds(done)).await? {
                say_segment(segment)?;
            }
            done += piece.len();
            say(&Line::Progress { processed: seconds(done) })?;
        }
    }
    Ok(())
}

struct Remote<'a> {
    client: Client,
    url: String,
    model: &'a str,
    language: Option<&'a str>,
    key: Option<String>,
    /// Whether to ask for times and for a streamed answer. Not every server and model supports them.
    verbose: bool,
    stream: bool,
}

impl Remote<'_> {
    async fn transcribe(&mut self, piece: &[i16], offset: f64) -> Result<Vec<EngineSegment>, ChildError> {
        let mut tries = 0;
        let answer: Transcription = loop {
            tries += 1;
            match self.send(piece).await {
                Ok(response) if response.status().is_success() => match read(response).await? {
                    Some(answer) => break answer,
                    None if tries == MAX_TRIES => {
                        let message = "The transcription server broke off in the middle of its answers.";
                        return Err(ChildError::new("broken_answer", message));
                    }
                    None => pause(tries, None).await,
                },
                Ok(response) if response.status() == StatusCode::BAD_REQUEST && (self.verbose || self.stream) => {
                    let said = refusal_text(response).await;
                    if !self.drop_unsupported_option(&said) {
                        return Err(refusal(StatusCode::BAD_REQUEST, &said));
                    }
                    tries -= 1;
                }
                Ok(response) => {
                    let status = response.status();
                    let again = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
                    if !again || tries == MAX_TRIES {
                        return Err(refused(status, response).await);
                    }
                    pause(tries, retry_after(&response)).await;
                }
                Err(error) if tries == MAX_TRIES => {
                    let why = if error.is_timeout() { "did not answer in time" } else { "can't be reached" };
                    return Err(ChildError::new(
                        "unreachable",
                        format!("The transcription server {why}. Check HARK_OPENAI_URL and the network."),
                    ));
                }
                Err(_) => pause(tries, None).await,
            }
        };
        Ok(to_segments(answer, seconds(piece.len()), offset))
    }

    /// Drops the option that the server says it doesn't support. Returns false if the server complains of something
    /// else.
    fn drop_unsupported_option(&mut self, said: &str) -> bool {
        if self.verbose && (said.contains("response_format") || said.contains("timestamp_granularities")) {
            self.verbose = false;
        } else if self.stream && said.contains("stream") {
            self.stream = false;
        } else {
            return false;
        }
        true
    }

    async fn send(&self, piece: &[i16]) -> Result<Response, reqwest::Error> {
        let file = Part::bytes(wav(piece)).file_name("audio.wav").mime_str("audio/wav")?;
        let mut form = Form::new()
            .part("file", file)
            .text("model", self.model.to_owned())
            .text("response_format", if self.verbose { "verbose_json" } else { "json" });
        if self.verbose {
            form = form.text("timestamp_granularities[]", "segment").text("timestamp_granularities[]", "word");
        }
        if self.stream {
            form = form.text("stream", "true");
        }
        if let Some(language) = self.language {
            form = form.text("language", language.to_owned());
        }
        let mut request = self.client.post(&self.url).multipart(form);
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        request.send().await
    }
}

/// Reads an answer, streamed or not, and reports the text of a streamed one as it comes. Returns none if it broke off.
async fn read(response: Response) -> Result<Option<Transcription>, ChildError> {
    let unreadable = |e: &dyn std::fmt::Display| {
        ChildError::new("bad_answer", format!("The transcription server's answer can't be read: {e}"))
    };
    let kind = response.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if !kind.starts_with("text/event-stream") {
        let Some((bytes, whole)) = read_bytes(response, MAX_ANSWER).await else { return Ok(None) };
        if !whole {
            return Err(too_long());
        }
        return serde_json::from_slice(&bytes).map(Some).map_err(|e| unreadable(&e));
    }
    let mut streamed = StreamedAnswer::default();
    let mut remaining = MAX_ANSWER;
    let mut too_large = false;
    let pieces = response.bytes_stream().take_while(|piece| {
        too_large |= piece.as_ref().is_ok_and(|piece| piece.len() > remaining);
        remaining = remaining.saturating_sub(piece.as_ref().map_or(0, |piece| piece.len()));
        std::future::ready(!too_large)
    });
    let mut events = pieces.eventsource();
    while let Some(event) = events.next().await {
        let Ok(event) = event else { return Ok(None) };
        if streamed.add(&event.data).map_err(|e| unreadable(&e))? {
            say(&Line::Partial { text: streamed.partial.trim().to_owned() })?;
        }
        if streamed.done {
            break;
        }
    }
    drop(events);
    if too_large { Err(too_long()) } else { Ok(streamed.whole()) }
}

fn too_long() -> ChildError {
    let limit = bytes(MAX_ANSWER as u64);
    ChildError::new("bad_answer", format!("The transcription server's answer to one piece is longer than {limit}."))
}

/// Reads at most `limit` bytes of an answer, and returns whether those are all; none if it broke off.
async fn read_bytes(mut response: Response, limit: usize) -> Option<(Vec<u8>, bool)> {
    let mut bytes = Vec::new();
    while let Some(piece) = response.chunk().await.ok()? {
        let room = limit - bytes.len();
        bytes.extend_from_slice(&piece[..piece.len().min(room)]);
        if piece.len() > room {
            return Some((bytes, false));
        }
    }
    Some((bytes, true))
}

/// Reads the text of an error response, up to the limit.
async fn refusal_text(response: Response) -> String {
    let read = read_bytes(response, MAX_REFUSAL).await;
    read.map(|(bytes, _)| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// Returns the seconds that a server asks to wait, by RFC 9110, 10.2.3. A date is ignored.
fn retry_after(response: &Response) -> Option<f64> {
    let asked = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    asked.parse().ok().filter(|seconds: &f64| seconds.is_finite())
}

async fn refused(status: StatusCode, response: Response) -> ChildError {
    if status.is_redirection() {
        let to = response.headers().get(LOCATION).map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
        eprintln!("the transcription server answered {status} and points to {}", to.unwrap_or_default());
        let message = "The transcription server sends requests on to another address, which Hark doesn't follow. \
                       Set HARK_OPENAI_URL to the address itself; the server's log has it.";
        return ChildError::new("redirected", message);
    }
    refusal(status, &refusal_text(response).await)
}

fn refusal(status: StatusCode, said: &str) -> ChildError {
    let said: String = said.chars().take(300).collect();
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            ChildError::new("unauthorised", format!("The transcription server refused the key. Check {KEY}."))
        }
        StatusCode::NOT_FOUND => ChildError::new(
            "not_found",
            "The transcription server knows no such model or address. Check HARK_OPENAI_URL (it ends in /v1) and HARK_OPENAI_MODEL.",
        ),
        _ => ChildError::new("refused", format!("The transcription server answered {status}: {said}")),
    }
}

/// Waits before the next attempt: as long as the server asks, or twice as long each time, with full jitter.
async fn pause(tries: u32, asked: Option<f64>) {
    let wait = asked.unwrap_or_else(|| 2.0_f64.powi(tries as i32) * rand::random::<f64>());
    time::sleep(Duration::from_secs_f64(wait.clamp(0.0, MAX_WAIT))).await;
}

/// Converts an answer into segments with times in the recording. An answer without segments becomes one.
fn to_segments(answer: Transcription, length: f64, offset: f64) -> Vec<EngineSegment> {
    let at = |t: f64| offset + if t.is_finite() { t.clamp(0.0, length) } else { 0.0 };
    let mut segments = answer.segments;
    if segments.is_empty() {
        segments.push(TranscriptionSegment { start: 0.0, end: length, text: answer.text, avg_logprob: None });
    }
    let mut words = answer.words.into_iter().peekable();
    let mut converted: Vec<EngineSegment> = Vec::new();
    for segment in segments.into_iter().filter(|s| !s.text.trim().is_empty()) {
        let mut own = Vec::new();
        while let Some(word) = words.next_if(|w| w.start < segment.end) {
            let (start, end) = (at(word.start), at(word.end));
            own.push(Word { text: word.word.trim().to_owned(), start, end: end.max(start), confidence: None });
        }
        let start = at(segment.start).max(converted.last().map_or(0.0, |s| s.start));
        converted.push(EngineSegment {
            start,
            end: at(segment.end).max(start),
            text: segment.text,
            confidence: segment.avg_logprob.map(|p| p.exp() as f32),
            words: own,
        });
    }
    converted
}

/// Samples as a WAV file: 16 kHz, mono, 16 bit.
fn wav(samples: &[i16]) -> Vec<u8> {
    let bytes = samples.len() as u32 * 2;
    let rate = crate::server::audio::SAMPLE_RATE;
    let mut file = Vec::with_capacity(44 + bytes as usize);
    file.extend_from_slice(b"RIFF");
    file.extend_from_slice(&(36 + bytes).to_le_bytes());
    file.extend_from_slice(b"WAVEfmt ");
    file.extend_from_slice(&16u32.to_le_bytes());
    file.extend_from_slice(&1u16.to_le_bytes()); // PCM
    file.extend_from_slice(&1u16.to_le_bytes()); // mono
    file.extend_from_slice(&rate.to_le_bytes());
    file.extend_from_slice(&(rate * 2).to_le_bytes());
    file.extend_from_slice(&2u16.to_le_bytes());
    file.extend_from_slice(&16u16.to_le_bytes());
    file.extend_from_slice(b"data");
    file.extend_from_slice(&bytes.to_le_bytes());
    file.extend(samples.iter().flat_map(|s| s.to_le_bytes()));
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_shifted_to_its_time_in_the_recording() {
        let answer: Transcription = serde_json::from_str(
            r#"{"text":"a b c","segments":[{"start":0,"end":1.5,"text":" a b","avg_logprob":0},{"start":1.5,"end":9,"text":"c"}],
               "words":[{"word":"a","start":0.1,"end":0.5},{"word":"b","start":0.6,"end":1.2},{"word":"c","start":1.6,"end":2}]}"#,
        )
        .unwrap();
        let converted = to_segments(answer, 3.0, 10.0);
        assert_eq!((converted[0].start, converted[0].end, converted[0].confidence), (10.0, 11.5, Some(1.0)));
        assert_eq!((converted[1].start, converted[1].end), (11.5, 13.0));
        assert_eq!((converted[0].words.len(), converted[1].words.len()), (2, 1));
    }

    #[test]
    fn a_streamed_answer_is_complete_only_with_its_final_event() {
        let mut streamed = StreamedAnswer::default();
        assert!(streamed.add(r#"{"type":"transcript.text.delta","delta":"Good "}"#).unwrap());
        assert!(streamed.add(r#"{"type":"transcript.text.delta","delta":"day"}"#).unwrap());
        assert_eq!(streamed.partial, "Good day");
        assert!(StreamedAnswer { partial: streamed.partial.clone(), ..StreamedAnswer::default() }.whole().is_none());
        assert!(!streamed.add(r#"{"type":"transcript.text.done","text":"Good day.","usage":{}}"#).unwrap());
        assert_eq!(streamed.whole().unwrap().text, "Good day.");
        // Segments one by one, without a final event.
        let mut streamed = StreamedAnswer::default();
        for data in [r#"{"id":0,"start":0.0,"end":1.0,"text":" a"}"#, r#"{"id":1,"start":1.0,"end":2.0,"text":" b"}"#] {
            assert!(streamed.add(data).unwrap());
        }
        assert_eq!(streamed.whole().unwrap().segments.len(), 2);
        assert!(StreamedAnswer::default().add("no json").is_err());
    }

    #[test]
    fn an_answer_without_segments_becomes_one_segment() {
        let answer: Transcription = serde_json::from_str(r#"{"text":"hello"}"#).unwrap();
        let converted = to_segments(answer, 3.0, 1.0);
        assert_eq!((converted.len(), converted[0].start, converted[0].end), (1, 1.0, 4.0));
        assert!(super::to_segments(serde_json::from_str(r#"{"text":" "}"#).unwrap(), 3.0, 1.0).is_empty());
    }
}
