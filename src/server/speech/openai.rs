//! The `openai` engine: any server with the OpenAI transcription API. The recording goes there in pieces cut at
//! pauses, as WAV; each answer is moved to its place in the recording. A server that streams its answer is listened to
//! as it speaks. Source of the events: OpenAI's API reference, "Transcription streaming events".

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

/// The key's variable: never an argument, which other users of the machine could read.
const KEY: &str = "HARK_OPENAI_KEY";
/// The variable that names a file with it.
const KEY_FILE: &str = "HARK_OPENAI_KEY_FILE";
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(300);
/// The longest answer to one piece, in bytes: ten times what ten minutes of speech with the times of its words take.
const MAX_ANSWER: usize = 4 * 1024 * 1024;
/// How much of a refusal is read, in bytes.
const MAX_REFUSAL: usize = 64 * 1024;
/// How often a piece is sent when the server is busy or broken, and the longest wait between.
const TRIES: u32 = 5;
const LONGEST_WAIT: f64 = 60.0;

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

/// One event of a streamed answer. Servers of others than OpenAI send the segments of a whole answer one by one.
#[derive(Deserialize)]
struct Streamed {
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

/// A streamed answer as far as it has come.
#[derive(Default)]
struct Coming {
    answer: Transcription,
    /// What was told in bits, until the whole is.
    bits: String,
    done: bool,
}

impl Coming {
    /// Takes in an event. True if there is more to show than before.
    fn take(&mut self, data: &str) -> Result<bool, serde_json::Error> {
        if data.trim() == "[DONE]" {
            self.done = true;
            return Ok(false);
        }
        let event: Streamed = serde_json::from_str(data)?;
        match (event.kind.as_str(), event.start, event.end) {
            ("transcript.text.delta", ..) => self.bits.push_str(&event.delta),
            ("transcript.text.done", ..) => {
                self.answer.text = event.text;
                self.done = true;
                return Ok(false);
            }
            ("" | "transcript.text.segment", Some(start), Some(end)) => {
                self.bits.push_str(&event.text);
                let segment = TranscriptionSegment { start, end, text: event.text, avg_logprob: event.avg_logprob };
                self.answer.segments.push(segment);
            }
            ("", ..) => {
                self.bits.push_str(&event.text);
                self.answer.text.push_str(&event.text);
            }
            _ => return Ok(false), // an event of later versions
        }
        Ok(true)
    }

    /// The whole answer; none if it broke off: bits without the end that OpenAI's servers always send.
    fn whole(self) -> Option<Transcription> {
        let told_whole = self.done || !self.answer.segments.is_empty() || !self.answer.text.is_empty();
        (told_whole || self.bits.is_empty()).then_some(self.answer)
    }
}

/// The child: a request for each piece.
pub(super) async fn child(url: &str, model: &str, language: Option<&str>) -> Result<(), ChildError> {
    // The key and the recording are for the server that was named, and for no other that it points to.
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
    let mut over = false;
    while !over {
        let samples =
            tokio::task::spawn_blocking(read_samples).await.map_err(|e| ChildError::new("io", e.to_string()))??;
        over = samples.is_none();
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
    /// Whether to ask for times, and for the answer bit by bit, which not every server and model knows.
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
                    None if tries == TRIES => {
                        let message = "The transcription server broke off in the middle of its answers.";
                        return Err(ChildError::new("broken_answer", message));
                    }
                    None => pause(tries, None).await,
                },
                Ok(response) if response.status() == StatusCode::BAD_REQUEST && (self.verbose || self.stream) => {
                    let said = said(response).await;
                    if !self.ask_for_less(&said) {
                        return Err(refusal(StatusCode::BAD_REQUEST, &said));
                    }
                    tries -= 1;
                }
                Ok(response) => {
                    let status = response.status();
                    let again = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
                    if !again || tries == TRIES {
                        return Err(refused(status, response).await);
                    }
                    pause(tries, asked_to_wait(&response)).await;
                }
                Err(error) if tries == TRIES => {
                    let why = if error.is_timeout() { "did not answer in time" } else { "can't be reached" };
                    return Err(ChildError::new(
                        "unreachable",
                        format!("The transcription server {why}. Check HARK_OPENAI_URL and the network."),
                    ));
                }
                Err(_) => pause(tries, None).await,
            }
        };
        Ok(placed(answer, seconds(piece.len()), offset))
    }

    /// Leaves out what the server says it doesn't know. False if it complains of something else.
    fn ask_for_less(&mut self, said: &str) -> bool {
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

/// Reads an answer, streamed or not; what is streamed is said as it comes. None if it broke off.
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
    let mut coming = Coming::default();
    let mut left = MAX_ANSWER;
    let mut over = false;
    let pieces = response.bytes_stream().take_while(|piece| {
        over |= piece.as_ref().is_ok_and(|piece| piece.len() > left);
        left = left.saturating_sub(piece.as_ref().map_or(0, |piece| piece.len()));
        std::future::ready(!over)
    });
    let mut events = pieces.eventsource();
    while let Some(event) = events.next().await {
        let Ok(event) = event else { return Ok(None) };
        if coming.take(&event.data).map_err(|e| unreadable(&e))? {
            say(&Line::Partial { text: coming.bits.trim().to_owned() })?;
        }
        if coming.done {
            break;
        }
    }
    drop(events);
    if over { Err(too_long()) } else { Ok(coming.whole()) }
}

fn too_long() -> ChildError {
    let limit = bytes(MAX_ANSWER as u64);
    ChildError::new("bad_answer", format!("The transcription server's answer to one piece is longer than {limit}."))
}

/// The first `limit` bytes of an answer, and whether those are all; none if it broke off.
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

/// What a server says of its refusal, as far as anybody reads it.
async fn said(response: Response) -> String {
    let read = read_bytes(response, MAX_REFUSAL).await;
    read.map(|(bytes, _)| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// Seconds that a server asks to wait, as RFC 9110, 10.2.3 has it; a date isn't heeded.
fn asked_to_wait(response: &Response) -> Option<f64> {
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
    refusal(status, &said(response).await)
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

/// Waits before the next try: as long as the server asks, or twice as long each time, with full jitter.
async fn pause(tries: u32, asked: Option<f64>) {
    let wait = asked.unwrap_or_else(|| 2.0_f64.powi(tries as i32) * rand::random::<f64>());
    time::sleep(Duration::from_secs_f64(wait.clamp(0.0, LONGEST_WAIT))).await;
}

/// An answer at its place in the recording. A server that gives no segments gives one.
fn placed(answer: Transcription, length: f64, offset: f64) -> Vec<EngineSegment> {
    let at = |t: f64| offset + if t.is_finite() { t.clamp(0.0, length) } else { 0.0 };
    let mut segments = answer.segments;
    if segments.is_empty() {
        segments.push(TranscriptionSegment { start: 0.0, end: length, text: answer.text, avg_logprob: None });
    }
    let mut words = answer.words.into_iter().peekable();
    let mut placed: Vec<EngineSegment> = Vec::new();
    for segment in segments.into_iter().filter(|s| !s.text.trim().is_empty()) {
        let mut own = Vec::new();
        while let Some(word) = words.next_if(|w| w.start < segment.end) {
            let (start, end) = (at(word.start), at(word.end));
            own.push(Word { text: word.word.trim().to_owned(), start, end: end.max(start), confidence: None });
        }
        let start = at(segment.start).max(placed.last().map_or(0.0, |s| s.start));
        placed.push(EngineSegment {
            start,
            end: at(segment.end).max(start),
            text: segment.text,
            confidence: segment.avg_logprob.map(|p| p.exp() as f32),
            words: own,
        });
    }
    placed
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
    fn an_answer_is_moved_to_its_place() {
        let answer: Transcription = serde_json::from_str(
            r#"{"text":"a b c","segments":[{"start":0,"end":1.5,"text":" a b","avg_logprob":0},{"start":1.5,"end":9,"text":"c"}],
               "words":[{"word":"a","start":0.1,"end":0.5},{"word":"b","start":0.6,"end":1.2},{"word":"c","start":1.6,"end":2}]}"#,
        )
        .unwrap();
        let placed = placed(answer, 3.0, 10.0);
        assert_eq!((placed[0].start, placed[0].end, placed[0].confidence), (10.0, 11.5, Some(1.0)));
        assert_eq!((placed[1].start, placed[1].end), (11.5, 13.0));
        assert_eq!((placed[0].words.len(), placed[1].words.len()), (2, 1));
    }

    #[test]
    fn a_streamed_answer_is_whole_only_with_its_end() {
        let mut coming = Coming::default();
        assert!(coming.take(r#"{"type":"transcript.text.delta","delta":"Good "}"#).unwrap());
        assert!(coming.take(r#"{"type":"transcript.text.delta","delta":"day"}"#).unwrap());
        assert_eq!(coming.bits, "Good day");
        assert!(Coming { bits: coming.bits.clone(), ..Coming::default() }.whole().is_none());
        assert!(!coming.take(r#"{"type":"transcript.text.done","text":"Good day.","usage":{}}"#).unwrap());
        assert_eq!(coming.whole().unwrap().text, "Good day.");
        // Segments one by one, without an end but that of the answer.
        let mut coming = Coming::default();
        for data in [r#"{"id":0,"start":0.0,"end":1.0,"text":" a"}"#, r#"{"id":1,"start":1.0,"end":2.0,"text":" b"}"#] {
            assert!(coming.take(data).unwrap());
        }
        assert_eq!(coming.whole().unwrap().segments.len(), 2);
        assert!(Coming::default().take("no json").is_err());
    }

    #[test]
    fn a_bare_text_is_one_segment() {
        let answer: Transcription = serde_json::from_str(r#"{"text":"hello"}"#).unwrap();
        let placed = placed(answer, 3.0, 1.0);
        assert_eq!((placed.len(), placed[0].start, placed[0].end), (1, 1.0, 4.0));
        assert!(super::placed(serde_json::from_str(r#"{"text":" "}"#).unwrap(), 3.0, 1.0).is_empty());
    }
}
