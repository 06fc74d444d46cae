//! The HTTP side of the `openai` engine: sends a piece to the server, asks for less where the server can't do what it is
//! asked, tries again while it is busy, and says what went wrong and whether it concerns the piece or the server. Used
//! by `openai`.

use super::answer::{self, StreamedAnswer, Transcription};
use crate::{
    model::bytes,
    server::{
        outgoing, print,
        speech::{
            pipe::{ChildError, say},
            protocol::Line,
        },
    },
};
use eventsource_stream::Eventsource;
use futures::StreamExt;
use reqwest::{
    Client, Response, StatusCode, Url,
    header::{CONTENT_TYPE, LOCATION, RETRY_AFTER},
    multipart::{Form, Part},
    redirect::Policy,
};
use serde_json::Value;
use std::time::Duration;
use tokio::time;

/// The longest answer to one piece, in bytes: ten times what ten minutes of speech with times of words take.
const MAX_ANSWER: usize = 4 * 1024 * 1024;
/// Bytes of an error response that are read, and characters of its message that are shown.
const MAX_REFUSAL: usize = 64 * 1024;
const MAX_MESSAGE: usize = 200;
/// The longest wait between tries, in seconds.
const MAX_WAIT: f64 = 60.0;
/// How many redirects are followed for one request.
const MAX_REDIRECTS: usize = 5;
/// The shortest recording that is sent, in samples: servers refuse less than 0.1 s, and whisper.cpp hears nothing in less
/// than a second. Silence is added to a shorter piece.
const MIN_SAMPLES: usize = crate::server::audio::SAMPLE_RATE as usize + 1600;

/// What an answer may contain. Not every server and model can do all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    /// Send the text as it is found.
    stream: bool,
    /// Times of words.
    words: bool,
    /// Mind the names and terms.
    prompt: bool,
    /// Times at all.
    times: bool,
}

impl Asked {
    const ALL: Self = Self { stream: true, words: true, prompt: true, times: true };

    /// Asks for less after a refusal: without the option that the server names, or without the next one if it names
    /// none. None if there is nothing left to go without.
    fn less(self, refusal: &str) -> Option<Self> {
        let refusal = refusal.to_lowercase();
        // A refusal of times together with a stream is met without the stream, because times are worth more.
        let (stream, words) = (Self { stream: false, ..self }, Self { words: false, ..self });
        let (prompt, times) = (Self { prompt: false, ..self }, Self { words: false, times: false, ..self });
        let named = [
            (self.stream && refusal.contains("stream"), stream),
            (self.words && refusal.contains("granularit"), words),
            (self.prompt && refusal.contains("prompt"), prompt),
            (
                self.times && ["response_format", "verbose_json", "granularit"].iter().any(|o| refusal.contains(o)),
                times,
            ),
        ];
        let unnamed = [(self.stream, stream), (self.words, words), (self.prompt, prompt), (self.times, times)];
        named.into_iter().chain(unnamed).find(|(applies, _)| *applies).map(|(_, less)| less)
    }
}

/// Why a piece has no transcription.
#[derive(Debug)]
pub(super) enum Failure {
    /// It concerns this piece, as far as one can see. Says what the server did, to go on after "the transcription server".
    Piece(String),
    /// It concerns the server, and so the other pieces too.
    Server(ChildError),
}

/// A failed try.
enum Tried {
    /// The next try may succeed, after so many seconds if the server says.
    Again(Option<f64>, Failure),
    Final(Failure),
}

/// What every request says.
pub(super) struct Wanted<'a> {
    pub(super) model: &'a str,
    /// The code of the language, as Whisper has it.
    pub(super) language: Option<String>,
    /// Names and terms that may be spoken.
    pub(super) vocabulary: Option<String>,
}

/// How the server is reached.
pub(super) struct Address<'a> {
    /// Up to and with `/v1`.
    pub(super) url: &'a str,
    pub(super) key: Option<String>,
    /// The timeout of an answer.
    pub(super) timeout: Duration,
    /// How often a piece is sent.
    pub(super) tries: u32,
}

/// The server.
pub(super) struct Remote<'a> {
    client: Client,
    url: Url,
    key: Option<String>,
    tries: u32,
    wanted: Wanted<'a>,
    asked: Asked,
}

impl<'a> Remote<'a> {
    pub(super) fn new(address: Address<'_>, wanted: Wanted<'a>) -> Result<Self, ChildError> {
        // Redirects are followed here, because the key and the recording are only for the configured server.
        let client = outgoing::client().http1_only().timeout(address.timeout).redirect(Policy::none()).build();
        let client = client.map_err(|e| ChildError::new("internal", e.to_string()))?;
        let url = Url::parse(&format!("{}/audio/transcriptions", address.url))
            .map_err(|e| ChildError::new("address", format!("HARK_OPENAI_URL is not an address: {e}.")))?;
        let Address { key, tries, .. } = address;
        // Without a vocabulary there is nothing to leave out of it.
        let asked = Asked { prompt: wanted.vocabulary.is_some(), ..Asked::ALL };
        Ok(Self { client, url, key, tries, wanted, asked })
    }

    /// Transcribes a piece. `failed` is how many pieces before it failed in a row: the more, the fewer tries.
    pub(super) async fn transcribe(&mut self, piece: &[i16], failed: u32) -> Result<Transcription, Failure> {
        let tries = (self.tries >> failed.min(31)).max(1);
        let mut tried = 1;
        loop {
            let failure = match self.send(piece).await {
                Ok(answer) => return Ok(answer),
                Err(Tried::Final(failure)) => return Err(failure),
                Err(Tried::Again(_, failure)) if tried >= tries => return Err(failure),
                Err(Tried::Again(wait, failure)) => {
                    pause(tried, wait).await;
                    failure
                }
            };
            if let Failure::Piece(what) = failure {
                print::error(format_args!("a piece is sent again: the transcription server {what}"));
            }
            tried += 1;
            // Takes back text of an answer that broke off, and shows Hark that the engine isn't stalled.
            say(&Line::Partial { text: String::new() }).map_err(|e| Failure::Server(e.into()))?;
        }
    }

    /// Sends a piece once, or more often if the server can't do what it is asked.
    async fn send(&mut self, piece: &[i16]) -> Result<Transcription, Tried> {
        let mut asked = self.asked;
        loop {
            let response = self.post(piece, asked).await?;
            let status = response.status();
            if status.is_success() {
                let answer = read(response).await?;
                // Only now it is known that the refusal was about what was asked, and not about this piece.
                self.asked = asked;
                return Ok(answer);
            }
            let wait = retry_after(&response);
            let said = self.refusal_text(response).await;
            let answered = format!("answered {status}{}", said.sentence());
            let piece = Failure::Piece;
            match status {
                StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => match asked.less(&said.text) {
                    Some(less) => asked = less,
                    None => return Err(Tried::Final(piece(answered))),
                },
                StatusCode::UNAUTHORIZED => return Err(Tried::Final(server("unauthorised", WRONG_KEY))),
                StatusCode::FORBIDDEN if said.is_page => return Err(Tried::Final(server("forbidden", WEB_PAGE))),
                StatusCode::FORBIDDEN => {
                    let message = format!("The transcription server refuses access{}", said.sentence());
                    return Err(Tried::Final(server("forbidden", &message)));
                }
                StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
                    return Err(Tried::Final(server("not_found", NOT_FOUND)));
                }
                StatusCode::PAYMENT_REQUIRED => {
                    return Err(Tried::Final(server("refused", &format!("The transcription server {answered}"))));
                }
                // Waiting longer helps, so the piece isn't left out.
                StatusCode::TOO_MANY_REQUESTS => {
                    let message = format!("The transcription server has too many requests, and {answered}");
                    return Err(Tried::Again(wait, server("busy", &message)));
                }
                StatusCode::REQUEST_TIMEOUT | StatusCode::CONFLICT | StatusCode::TOO_EARLY => {
                    return Err(Tried::Again(wait, piece(answered)));
                }
                status if status.is_server_error() => return Err(Tried::Again(wait, piece(answered))),
                _ => return Err(Tried::Final(piece(answered))),
            }
        }
    }

    /// Posts a piece, and follows redirects on the same host.
    async fn post(&mut self, piece: &[i16], asked: Asked) -> Result<Response, Tried> {
        let recording = wav(piece);
        for _ in 0..=MAX_REDIRECTS {
            let form =
                self.form(recording.clone(), asked).map_err(|e| Tried::Final(server("internal", &e.to_string())))?;
            let mut request = self.client.post(self.url.clone()).multipart(form);
            if let Some(key) = &self.key {
                request = request.bearer_auth(key);
            }
            let response = request.send().await.map_err(|error| unanswered(&error))?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            let to = response.headers().get(LOCATION).map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
            let to = to.unwrap_or_default();
            match self.url.join(&to) {
                // The others ask for a page to be fetched.
                Ok(url) if keeps_method(response.status()) && is_same_host(&self.url, &url) => self.url = url,
                _ => {
                    print::error(format_args!(
                        "the transcription server answered {} and points to {to}",
                        response.status()
                    ));
                    return Err(Tried::Final(server("redirected", REDIRECTED)));
                }
            }
        }
        Err(Tried::Final(server("redirected", "The transcription server redirects requests in a circle.")))
    }

    fn form(&self, recording: Vec<u8>, asked: Asked) -> Result<Form, reqwest::Error> {
        let file = Part::bytes(recording).file_name("audio.wav").mime_str("audio/wav")?;
        let mut form = Form::new()
            .part("file", file)
            .text("model", self.wanted.model.to_owned())
            .text("response_format", if asked.times { "verbose_json" } else { "json" });
        if asked.words {
            form = form.text("timestamp_granularities[]", "segment").text("timestamp_granularities[]", "word");
        }
        if asked.stream {
            form = form.text("stream", "true");
        }
        if let Some(language) = &self.wanted.language {
            form = form.text("language", language.clone());
        }
        if let Some(vocabulary) = self.wanted.vocabulary.as_ref().filter(|_| asked.prompt) {
            form = form.text("prompt", vocabulary.clone());
        }
        Ok(form)
    }

    /// Reads an error response, up to the limit.
    async fn refusal_text(&self, response: Response) -> Refusal {
        let is_html = content_type(&response).starts_with("text/html");
        let read = read_bytes(response, MAX_REFUSAL).await;
        let text = read.map(|(bytes, _)| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let is_page = is_html || text.trim_start().starts_with('<');
        let message = if is_page {
            None
        } else {
            let json = serde_json::from_str::<Value>(&text).ok();
            json.map_or_else(|| Some(text.clone()), |json| answer::error_message(&json))
        };
        // Some servers repeat the key in their message.
        let message = message.map(|message| match &self.key {
            Some(key) if !key.is_empty() => message.replace(key.as_str(), "…"),
            _ => message,
        });
        Refusal { text, is_page, message }
    }
}

const WRONG_KEY: &str = "The transcription server refused the key. Check HARK_OPENAI_KEY.";
const NOT_FOUND: &str = "The transcription server knows no such model or address. Check HARK_OPENAI_URL (it ends in \
    /v1) and HARK_OPENAI_MODEL.";
const REDIRECTED: &str = "The transcription server sends requests on to another address, which Hark doesn't follow. Set \
    HARK_OPENAI_URL to the address itself; the server's log has it.";
const WEB_PAGE: &str = "A web page answers in place of the transcription server, such as a captcha, a login or a \
    firewall's notice. Check HARK_OPENAI_URL, and that programs may reach the server from here.";

fn server(code: &'static str, message: &str) -> Failure {
    Failure::Server(ChildError::new(code, message))
}

/// What an error response says.
struct Refusal {
    text: String,
    /// Whether it is a page for people.
    is_page: bool,
    message: Option<String>,
}

impl Refusal {
    /// The message, to go on after a statement.
    fn sentence(&self) -> String {
        let message: String = self.message.as_deref().unwrap_or_default().chars().take(MAX_MESSAGE).collect();
        let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
        match message.as_str() {
            "" => ".".to_owned(),
            said if said.ends_with(['.', '!', '?']) => format!(": {said}"),
            said => format!(": {said}."),
        }
    }
}

/// Whether a redirect with this status is to be followed with the same request. Programs follow 301 and 302 with a
/// `GET`, which is of no use here; servers mean the same request all the same.
fn keeps_method(status: StatusCode) -> bool {
    [StatusCode::MOVED_PERMANENTLY, StatusCode::FOUND, StatusCode::TEMPORARY_REDIRECT, StatusCode::PERMANENT_REDIRECT]
        .contains(&status)
}

/// Whether an address is on the same server as another: the same host and port, or its encrypted side.
fn is_same_host(from: &Url, to: &Url) -> bool {
    let is_upgrade = from.scheme() == "http" && to.scheme() == "https" && to.port().is_none();
    from.host() == to.host()
        && (is_upgrade || (from.scheme() == to.scheme() && from.port_or_known_default() == to.port_or_known_default()))
}

/// Describes a request that got no answer.
fn unanswered(error: &reqwest::Error) -> Tried {
    if error.is_timeout() {
        Tried::Again(None, Failure::Piece("did not answer in time.".to_owned()))
    } else if error.is_connect() {
        let message = "The transcription server can't be reached. Check HARK_OPENAI_URL and the network.";
        Tried::Again(None, server("unreachable", message))
    } else {
        Tried::Again(None, Failure::Piece("closed the connection without an answer.".to_owned()))
    }
}

/// Reads an answer, streamed or not, and reports the text of a streamed one as it comes.
async fn read(response: Response) -> Result<Transcription, Tried> {
    let again = |what: String| Tried::Again(None, Failure::Piece(what));
    let unreadable = |why: String| again(format!("could not be understood: {why}."));
    let broke_off = || again("broke off in the middle of its answer.".to_owned());
    let kind = content_type(&response);
    if kind.starts_with("text/event-stream") {
        return read_stream(response).await;
    }
    let Some((bytes, whole)) = read_bytes(response, MAX_ANSWER).await else { return Err(broke_off()) };
    if !whole {
        return Err(too_long());
    }
    let text = String::from_utf8_lossy(&bytes);
    if kind.starts_with("text/html") || text.trim_start().starts_with('<') {
        return Err(Tried::Final(server("web_page", WEB_PAGE)));
    }
    if text.trim().is_empty() {
        // Servers that notice a failure only after they have begun to answer.
        return Err(again("sent an empty answer.".to_owned()));
    }
    if kind.contains("ndjson") || kind.contains("jsonl") {
        let mut streamed = StreamedAnswer::default();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            streamed.add(line).map_err(unreadable)?;
        }
        return streamed.whole().ok_or_else(broke_off);
    }
    match answer::parse(&bytes) {
        Err(_) if kind.starts_with("text/plain") => Ok(answer::from_text(text.into_owned())),
        parsed => parsed.map_err(unreadable),
    }
}

async fn read_stream(response: Response) -> Result<Transcription, Tried> {
    let again = |what: String| Tried::Again(None, Failure::Piece(what));
    let broke_off = || again("broke off in the middle of its answer.".to_owned());
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
        let event = event.map_err(|_| broke_off())?;
        if streamed.add(&event.data).map_err(|why| again(format!("could not be understood: {why}.")))? {
            let text = streamed.partial.trim().to_owned();
            say(&Line::Partial { text }).map_err(|e| Tried::Final(Failure::Server(e.into())))?;
        }
        if streamed.done {
            break;
        }
    }
    drop(events);
    if too_large { Err(too_long()) } else { streamed.whole().ok_or_else(broke_off) }
}

fn too_long() -> Tried {
    let limit = bytes(MAX_ANSWER as u64);
    Tried::Final(Failure::Piece(format!("sent an answer longer than {limit}.")))
}

fn content_type(response: &Response) -> String {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    kind.to_ascii_lowercase()
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

/// Returns the seconds that a server asks to wait, by RFC 9110, 10.2.3. A date is ignored.
fn retry_after(response: &Response) -> Option<f64> {
    let asked = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    asked.parse().ok().filter(|seconds: &f64| seconds.is_finite())
}

/// Waits before the next try: as long as the server asks, or twice as long each time, with full jitter.
async fn pause(tried: u32, asked: Option<f64>) {
    let wait = asked.unwrap_or_else(|| 2.0_f64.powi(tried as i32) * rand::random::<f64>());
    time::sleep(Duration::from_secs_f64(wait.clamp(0.0, MAX_WAIT))).await;
}

/// Samples as a WAV file: 16 kHz, mono, 16 bit.
fn wav(samples: &[i16]) -> Vec<u8> {
    let count = samples.len().max(MIN_SAMPLES);
    let bytes = count as u32 * 2;
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
    file.resize(44 + bytes as usize, 0);
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_leads_to_asking_for_less() {
        let steps = |refusals: &[&str]| {
            refusals.iter().map(|said| said.to_string()).try_fold(Asked::ALL, |asked, said| asked.less(&said))
        };
        let asked = |stream, words, prompt, times| Some(Asked { stream, words, prompt, times });
        // OpenAI, of models without times.
        assert_eq!(
            steps(&["response_format 'verbose_json' is not compatible with model"]),
            asked(true, false, true, false)
        );
        // vLLM: times and a stream exclude each other.
        assert_eq!(steps(&["verbose_json format doesn't support streaming case"]), asked(false, true, true, true));
        // FastAPI, of a field that it doesn't know.
        assert_eq!(
            steps(&[r#"{"detail":[{"loc":["body","timestamp_granularities[]"]}]}"#]),
            asked(true, false, true, true)
        );
        assert_eq!(steps(&["Unknown parameter: 'stream'"]), asked(false, true, true, true));
        assert_eq!(steps(&["prompt is not supported"]), asked(true, true, false, true));
        // A server that doesn't say which.
        assert_eq!(steps(&["invalid request"; 4]), asked(false, false, false, false));
        assert_eq!(steps(&["invalid request"; 5]), None);
    }

    #[test]
    fn only_the_same_server_is_followed_to() {
        let from = |url: &str| Url::parse(url).unwrap();
        let base = from("http://host:8000/v1/audio/transcriptions");
        for (to, same) in [
            ("/v1/audio/transcriptions/", true),
            ("http://host:8000/v2", true),
            ("https://host/v1", true),
            ("https://host:444/v1", false),
            ("http://host:8001/v1", false),
            ("http://other:8000/v1", false),
            ("//other:8000/v1", false),
            ("http://host.other:8000/v1", false),
            ("http://host@other:8000/v1", false),
        ] {
            assert_eq!(is_same_host(&base, &base.join(to).unwrap()), same, "{to}");
        }
        assert!(!is_same_host(&from("https://host/v1"), &from("http://host/v1")));
        assert!(is_same_host(&from("http://host/v1"), &from("http://host:80/v1/")));
    }

    #[test]
    fn a_short_piece_is_sent_with_silence_after_it() {
        assert_eq!(wav(&[1; 10]).len(), 44 + 2 * MIN_SAMPLES);
        assert_eq!(wav(&[1; 32_000]).len(), 44 + 64_000);
    }
}
