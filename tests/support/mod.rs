//! Shared by the integration tests: a real node on a real socket with a data folder of its own, clients that keep their
//! cookie, synthetic speech, and the word error rate.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

use clap::Parser;
use hark::server::{Node, config::ServeConfig, page_files::PageFiles, stream::Hub};
use leptos::config::{Env, LeptosOptions};
use reqwest::{RequestBuilder, Response, StatusCode, header, multipart};
use serde_json::Value;
use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle, time};
use tokio_util::sync::CancellationToken;

/// A timeout long enough for a loaded machine, so that what hangs fails.
pub const TIMEOUT: Duration = Duration::from_secs(90);

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    config: ServeConfig,
}

/// The folder of the tools and models that `scripts/setup` has fetched.
pub fn tools() -> PathBuf {
    std::env::var_os("HARK_TOOLS").map(PathBuf::from).unwrap_or_else(|| {
        let home = std::env::var("CARGO_HOME").unwrap_or_else(|_| format!("{}/.cargo", std::env::var("HOME").unwrap()));
        Path::new(&home).join("hark")
    })
}

/// Looks again and again until something is found; fails with what it was if that takes too long.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let waiting = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            time::sleep(Duration::from_millis(30)).await;
        }
    };
    time::timeout(TIMEOUT, waiting).await.unwrap_or_else(|_| panic!("never: {what}"))
}

/// The names of the files in a folder of recordings.
pub fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name != hark::server::media::MARKER).collect()
}

/// A node under test.
pub struct TestApp {
    pub url: String,
    pub folder: TempDir,
    hub: Arc<Hub>,
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

impl TestApp {
    /// A node with PocketSphinx.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// A node with these flags of `hark serve` added.
    pub async fn with(flags: &[&str]) -> Self {
        Self::on(TempDir::new().unwrap(), flags).await
    }

    /// A node on a folder that may have been used before.
    pub async fn on(folder: TempDir, flags: &[&str]) -> Self {
        let data = folder.path().to_str().unwrap();
        let own = ["hark", "--data-dir", data, "--engine-program", env!("CARGO_BIN_EXE_hark"), "--min-free-bytes", "1"];
        // No test reaches for a model that it doesn't serve itself.
        let sources: &[&str] = if flags.contains(&"--model-sources") { &[] } else { &["--model-fetch", "false"] };
        let (flags, secrets) = without_secrets(flags);
        // The engine that needs no download, unless a test is about another.
        let engine: &[&str] = if flags.contains(&"--engine") { &[] } else { &["--engine", "pocketsphinx"] };
        let mut config = Flags::parse_from(own.iter().chain(engine).chain(sources).chain(&flags)).config;
        for (name, value) in secrets {
            let value = Some(value.to_owned());
            match name {
                "--database-url" => config.data.database_url = value,
                "--secret" => config.data.secret = value,
                "--redis-url" => config.data.redis_url = value,
                "--admin-token" => config.admin.admin_token = value,
                _ => config.outside.worker_token = value,
            }
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let leptos = LeptosOptions::builder().output_name("hark").site_addr(addr).env(Env::PROD).build();
        let files = PageFiles::find(&leptos, true, Path::new(""));
        let node = Node::start(config, leptos, files).await.unwrap();
        let stop = CancellationToken::new();
        let hub = Arc::clone(&node.state.hub);
        let task = Some(tokio::spawn(node.serve(listener, stop.clone())));
        Self { url: format!("http://{addr}"), folder, hub, stop, task }
    }

    /// The node's hub.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Stops the node as SIGTERM would, and gives its folder back.
    pub async fn stop(mut self) -> TempDir {
        self.stop.cancel();
        time::timeout(TIMEOUT, self.task.take().unwrap()).await.expect("the node stops").unwrap();
        std::mem::replace(&mut self.folder, TempDir::new().unwrap())
    }

    /// A browser without a cookie.
    pub fn visitor(&self) -> Visitor {
        Visitor::new(&self.url)
    }
}

/// Separates the secret settings, which have no flags in the program because `ps` would show them. The program reads
/// them from variables or files, which nodes in one process would share.
fn without_secrets<'a>(flags: &[&'a str]) -> (Vec<&'a str>, Vec<(&'a str, &'a str)>) {
    let (mut rest, mut secrets) = (Vec::new(), Vec::new());
    let mut flags = flags.iter().copied();
    while let Some(flag) = flags.next() {
        if ["--database-url", "--redis-url", "--secret", "--worker-token", "--admin-token"].contains(&flag) {
            secrets.push((flag, flags.next().expect("a value")));
        } else {
            rest.push(flag);
        }
    }
    (rest, secrets)
}

impl Drop for TestApp {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A caller that keeps its cookie.
pub struct Visitor {
    pub url: String,
    client: reqwest::Client,
    cookie: Mutex<Option<String>>,
}

impl Visitor {
    /// A visitor without a cookie.
    pub fn new(url: &str) -> Self {
        Self { url: url.to_owned(), client: reqwest::Client::new(), cookie: Mutex::default() }
    }

    /// A visitor without a cookie, at another address of this machine.
    pub fn from(address: &str, url: &str) -> Self {
        let client = reqwest::Client::builder().local_address(address.parse::<IpAddr>().unwrap()).build().unwrap();
        Self { client, ..Self::new(url) }
    }

    /// The same visitor at another node.
    pub fn at(&self, url: &str) -> Self {
        let cookie = Mutex::new(self.cookie.lock().unwrap().clone());
        Self { url: url.to_owned(), client: self.client.clone(), cookie }
    }

    /// The visitor's cookie, for programs that act for it; makes a request first if there is none yet.
    pub async fn cookie(&self) -> String {
        self.get("/api/v1/sessions").await;
        self.cookie.lock().unwrap().clone().expect("the first answer sets it")
    }

    pub async fn send(&self, request: RequestBuilder) -> Response {
        let cookie = self.cookie.lock().unwrap().clone();
        let request = match cookie {
            Some(cookie) => request.header(header::COOKIE, cookie),
            None => request,
        };
        let response = time::timeout(TIMEOUT, request.send()).await.expect("an answer").unwrap();
        for set in response.headers().get_all(header::SET_COOKIE) {
            let pair = set.to_str().unwrap().split(';').next().unwrap();
            if pair.starts_with("hark_owner_") {
                *self.cookie.lock().unwrap() = Some(pair.to_owned());
            }
        }
        response
    }

    pub fn request(&self, method: &str, path: &str) -> RequestBuilder {
        self.client.request(method.parse().unwrap(), format!("{}{path}", self.url))
    }

    pub async fn get(&self, path: &str) -> Response {
        self.send(self.request("GET", path)).await
    }

    pub async fn post(&self, path: &str) -> Response {
        self.send(self.request("POST", path)).await
    }

    /// Loads a page, and returns the token that its document has.
    pub async fn page(&self) -> String {
        let page = self.get("/").await.text().await.unwrap();
        let (_, rest) = page.split_once("name=\"hark-page\" content=\"").expect("a document has a token");
        rest.split('"').next().unwrap().to_owned()
    }

    /// Polls as a page does.
    pub async fn poll(&self, page: &str) -> Response {
        self.send(self.request("GET", "/api/v1/status").header("hark-page", page)).await
    }

    pub async fn json(&self, path: &str) -> Value {
        let response = self.get(path).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response.json().await.unwrap()
    }

    pub async fn upload(&self, name: &str, bytes: Vec<u8>, fields: &[(&str, &str)]) -> Response {
        let mut form = multipart::Form::new();
        for (name, value) in fields {
            form = form.text((*name).to_owned(), (*value).to_owned());
        }
        form = form.part("file", multipart::Part::bytes(bytes).file_name(name.to_owned()));
        self.send(self.request("POST", "/api/v1/sessions").multipart(form)).await
    }

    /// Uploads and expects a session; returns its id.
    pub async fn session(&self, name: &str, bytes: Vec<u8>, fields: &[(&str, &str)]) -> String {
        let response = self.upload(name, bytes, fields).await;
        let status = response.status();
        let body: Value = response.json().await.unwrap();
        assert_eq!(status, StatusCode::CREATED, "{body}");
        body["id"].as_str().unwrap().to_owned()
    }

    /// Waits until a session's status is `wanted`; fails if the session ends with another.
    pub async fn wait(&self, id: &str, wanted: &str) -> Value {
        let waiting = async {
            loop {
                let status = self.json(&format!("/api/v1/sessions/{id}/status")).await;
                let state = status["status"].as_str().unwrap().to_owned();
                if state == wanted {
                    return status;
                }
                assert!(!["completed", "failed", "cancelled"].contains(&state.as_str()), "ended otherwise: {status}");
                time::sleep(Duration::from_millis(50)).await;
            }
        };
        time::timeout(TIMEOUT, waiting).await.unwrap_or_else(|_| panic!("{id} never became {wanted}"))
    }
}

/// A server-sent event.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SseEvent {
    pub id: String,
    pub event: String,
    pub data: String,
}

impl SseEvent {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap()
    }
}

/// Parses a stream of server-sent events as the standard defines it.
pub struct Sse {
    response: Response,
    buffer: String,
}

impl Sse {
    pub fn new(response: Response) -> Self {
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, buffer: String::new() }
    }

    /// The next event with data; none at the end.
    pub async fn next(&mut self) -> Option<SseEvent> {
        loop {
            while let Some((block, rest)) = self.buffer.split_once("\n\n") {
                let mut event = SseEvent::default();
                for line in block.lines() {
                    match line.split_once(": ") {
                        Some(("id", value)) => event.id = value.to_owned(),
                        Some(("event", value)) => event.event = value.to_owned(),
                        Some(("data", value)) => event.data = value.to_owned(),
                        _ => {}
                    }
                }
                self.buffer = rest.to_owned();
                if !event.data.is_empty() {
                    return Some(event);
                }
            }
            let chunk = time::timeout(TIMEOUT, self.response.chunk()).await.expect("the stream goes on").unwrap()?;
            self.buffer.push_str(std::str::from_utf8(&chunk).expect("frames are whole"));
        }
    }

    /// Everything up to the end.
    pub async fn rest(mut self) -> Vec<SseEvent> {
        let mut all = Vec::new();
        while let Some(event) = self.next().await {
            all.push(event);
        }
        all
    }
}

/// A WAV file of silence or a tone: 16 kHz, mono, 16 bit.
pub fn wav(seconds: f64, amplitude: f32) -> Vec<u8> {
    wav_of((0..(seconds * 16_000.0) as usize).map(|i| ((i as f32 * 0.1).sin() * amplitude) as i16))
}

/// A WAV file of these samples: 16 kHz, mono, 16 bit.
pub fn wav_of(samples: impl IntoIterator<Item = i16>) -> Vec<u8> {
    let samples: Vec<i16> = samples.into_iter().collect();
    let bytes = samples.len() as u32 * 2;
    let mut file = b"RIFF".to_vec();
    file.extend((36 + bytes).to_le_bytes());
    file.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    file.extend(16_000u32.to_le_bytes());
    file.extend(32_000u32.to_le_bytes());
    file.extend(b"\x02\0\x10\0data");
    file.extend(bytes.to_le_bytes());
    file.extend(samples.iter().flat_map(|s| s.to_le_bytes()));
    file
}

/// A WAV file with these two channels: 16 kHz, 16 bit.
pub fn stereo_wav(left: impl IntoIterator<Item = i16>, right: impl IntoIterator<Item = i16>) -> Vec<u8> {
    let mut file = wav_of(left.into_iter().zip(right).flat_map(|(left, right)| [left, right]));
    file[22..24].copy_from_slice(&2_u16.to_le_bytes());
    file[28..32].copy_from_slice(&64_000_u32.to_le_bytes());
    file[32..34].copy_from_slice(&4_u16.to_le_bytes());
    file
}

/// Two people who talk in turns of two seconds, on a channel each: tones of different height.
pub fn conversation(seconds: usize) -> Vec<u8> {
    let side = |speaker: usize, pitch: f32| {
        (0..seconds * 16_000).map(move |n| {
            let speaks = n / 32_000 % 2 == speaker;
            if speaks { ((n as f32 * pitch).sin() * 6000.0) as i16 } else { 0 }
        })
    };
    stereo_wav(side(0, 0.1), side(1, 0.3))
}

/// A program that speaks the engine protocol: a segment for each time that somebody speaks, with a word for how high, and
/// a pause for each second of audio.
pub fn pitch_engine(folder: &Path, pause: f64) -> String {
    let file = folder.join("pitch.py");
    let script = r#"import array, json, sys, time
def say(**line): print(json.dumps(line), flush=True)
say(type="ready", protocol=1, model="pitch")
heard, start, crossings, total = 0, None, 0, 0
def end():
    global start
    if start is not None and total >= 1600:
        height = "high" if crossings > total * 0.06 else "low"
        say(type="segment", start=start, end=heard, text=height)
    start = None
while True:
    data = sys.stdin.buffer.read(3200)
    if not data: break
    samples = array.array("h", data)
    if max(map(abs, samples)) > 500:
        if start is None: start, crossings, total = heard, 0, 0
        crossings += sum(1 for a, b in zip(samples, samples[1:]) if (a < 0) != (b < 0))
        total += len(samples)
    else: end()
    heard += len(samples) / 16000
    time.sleep(PAUSE * len(samples) / 16000)
    if start is None: say(type="progress", processed=heard)
    else: say(type="progress", processed=heard, settled=start)
end()
say(type="done")
"#;
    std::fs::write(&file, script.replace("PAUSE", &pause.to_string())).unwrap();
    format!("python3 {}", file.display())
}

/// Synthetic speech by Debian's flite.
pub fn speech(text: &str, folder: &Path) -> Vec<u8> {
    let (read, file) = (folder.join("speech.txt"), folder.join("speech.wav"));
    std::fs::write(&read, text).unwrap();
    // Read from a file, because only then flite speaks sentence by sentence, with pauses between.
    let done = Command::new("flite").args(["-voice", "rms", "-f"]).arg(read).arg("-o").arg(&file).status();
    assert!(done.expect("flite is installed by scripts/setup test").success());
    std::fs::read(file).unwrap()
}

/// The number of wrong, missing and extra words, divided by the number of spoken words.
pub fn word_error_rate(spoken: &str, heard: &str) -> f64 {
    let words = |text: &str| -> Vec<String> {
        let plain: String =
            text.to_lowercase().chars().filter(|c| c.is_alphanumeric() || c.is_whitespace() || *c == '\'').collect();
        plain.split_whitespace().map(str::to_owned).collect()
    };
    let (spoken, heard) = (words(spoken), words(heard));
    let mut row: Vec<usize> = (0..=heard.len()).collect();
    for (i, word) in spoken.iter().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, other) in heard.iter().enumerate() {
            let change = corner + usize::from(word != other);
            corner = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(corner + 1);
        }
    }
    row[heard.len()] as f64 / spoken.len().max(1) as f64
}

#[test]
fn word_error_rates_by_hand() {
    assert_eq!(word_error_rate("The cat sat.", "the cat sat"), 0.0);
    assert_eq!(word_error_rate("a b c d", "a x c"), 0.5);
    assert_eq!(word_error_rate("a", "a b c"), 2.0);
}

/// A program that speaks the engine protocol: for each second of audio a segment `word N`, with a pause between.
pub fn slow_engine(folder: &Path, seconds_per_segment: f64) -> String {
    let file = folder.join("engine.py");
    std::fs::write(
        &file,
        format!(
            r#"import json, sys, time
def say(**line): print(json.dumps(line), flush=True)
say(type="ready", protocol=1, model="counting")
heard = 0
while True:
    data = sys.stdin.buffer.read(32000)
    if not data: break
    time.sleep({seconds_per_segment})
    start, heard = heard, heard + len(data) / 32000
    say(type="segment", start=start, end=heard, text="word at %g" % start)
    say(type="progress", processed=heard)
say(type="done")
"#
        ),
    )
    .unwrap();
    format!("python3 {}", file.display())
}
