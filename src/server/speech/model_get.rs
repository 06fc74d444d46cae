//! `hark model get NAME`: downloads a Whisper model, resuming an earlier download that broke off, and checks it.

use crate::server::folders;
use clap::Subcommand;
use futures::StreamExt;
use reqwest::{Client, Response, StatusCode, header};
use sha2::{Digest, Sha256};
use std::{
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};
use tokio::{
    fs,
    io::{AsyncReadExt, AsyncWriteExt},
};

/// Where whisper.cpp's models are published.
const SOURCE: &str = "https://huggingface.co/ggerganov/whisper.cpp/resolve/main";

/// What can be done with models.
#[derive(Debug, Subcommand)]
pub enum ModelArgs {
    /// Fetch a Whisper model, such as base.en, small or large-v3-turbo.
    Get {
        /// Its name.
        name: String,
        /// The folder of files named ggml-NAME.bin.
        #[arg(long, env = "HARK_MODEL_URL", default_value = SOURCE)]
        url: String,
        /// The file's SHA-256. Without it, the one that the server publishes beside the file is used.
        #[arg(long)]
        sha256: Option<String>,
        /// The data folder; the model goes into `models` below it.
        #[arg(long, env = "HARK_DATA_DIR", default_value = "data")]
        data_dir: PathBuf,
    },
}

/// Runs `hark model …`.
pub async fn run_model(args: ModelArgs) -> ExitCode {
    let ModelArgs::Get { name, url, sha256, data_dir } = args;
    match get(&name, &url, sha256.as_deref(), &data_dir).await {
        Ok(path) => {
            println!("The model is at {}", path.display());
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("hark: {message}");
            ExitCode::FAILURE
        }
    }
}

async fn get(name: &str, url: &str, sha256: Option<&str>, data_dir: &Path) -> Result<PathBuf, String> {
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')) {
        return Err(format!("'{name}' isn't the name of a model; names are like base.en, small or large-v3-turbo"));
    }
    let folder = data_dir.join("models");
    folders::make_folder(&folder).map_err(|e| format!("{} can't be made: {e}", folder.display()))?;
    let path = folder.join(format!("ggml-{name}.bin"));
    if path.is_file() {
        return Ok(path);
    }
    let part = folder.join(format!("ggml-{name}.bin.part"));
    let url = format!("{}/ggml-{name}.bin", url.trim_end_matches('/'));
    // Redirects are followed here and not by the client, because the checksum is in the response that redirects.
    let client = Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(20))
        .read_timeout(Duration::from_secs(60))
        .build()
        .map_err(|e| e.to_string())?;
    let received = fs::metadata(&part).await.map_or(0, |m| m.len());
    let (response, published) = request(&client, &url, received).await?;
    let expected = sha256.map(str::to_lowercase).or(published);
    let received = match response.status() {
        StatusCode::PARTIAL_CONTENT => received,
        StatusCode::OK => 0,
        // The part is complete.
        StatusCode::RANGE_NOT_SATISFIABLE => return check(&part, &path, expected.as_deref()).await.map(|()| path),
        StatusCode::NOT_FOUND => return Err(format!("{url} does not exist; is there a model called '{name}'?")),
        status => return Err(format!("{url} answered {status}")),
    };
    receive(response, &part, received).await?;
    check(&part, &path, expected.as_deref()).await?;
    Ok(path)
}

/// Sends the request and follows redirects. Returns the response, and the SHA-256 that the server publishes, if it does
/// (as an ETag of 64 digits).
async fn request(client: &Client, url: &str, received: u64) -> Result<(Response, Option<String>), String> {
    let mut url = reqwest::Url::parse(url).map_err(|e| format!("{url} isn't a valid address: {e}"))?;
    let mut published = None;
    for _ in 0..10 {
        let mut request = client.get(url.clone());
        if received > 0 {
            request = request.header(header::RANGE, format!("bytes={received}-"));
        }
        let response = request.send().await.map_err(|e| format!("{url} can't be reached: {e}"))?;
        for name in ["x-linked-etag", "etag"] {
            let digest =
                response.headers().get(name).and_then(|v| v.to_str().ok()).map(|v| v.trim_matches('"').to_lowercase());
            published = published.or(digest.filter(|d| d.len() == 64 && d.bytes().all(|b| b.is_ascii_hexdigit())));
        }
        if !response.status().is_redirection() {
            return Ok((response, published));
        }
        let to = response.headers().get(header::LOCATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
        url = url.join(to).map_err(|e| format!("{url} redirects to '{to}', which isn't a valid address: {e}"))?;
    }
    Err(format!("{url} redirects too often"))
}

async fn receive(response: Response, part: &Path, received: u64) -> Result<(), String> {
    let total = response.content_length().map(|rest| rest + received);
    let failed = |e: std::io::Error| format!("{} can't be written: {e}", part.display());
    let mut file = fs::OpenOptions::new().create(true).append(true).open(part).await.map_err(failed)?;
    file.set_len(received).await.map_err(failed)?;
    let mut bar = Bar { start: Instant::now(), shown: None, first: received, received, total };
    let mut pieces = response.bytes_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|e| format!("the download broke off: {e}. Run the command again to continue"))?;
        file.write_all(&piece).await.map_err(failed)?;
        bar.advance(piece.len() as u64);
    }
    file.sync_all().await.map_err(failed)?;
    bar.end();
    match total {
        Some(total) if bar.received != total => {
            Err("the download ended early. Run the command again to continue".to_owned())
        }
        _ => Ok(()),
    }
}

/// Checks the whole file and renames it to its final name.
async fn check(part: &Path, path: &Path, expected: Option<&str>) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("{} can't be read: {e}", part.display());
    let mut file = fs::File::open(part).await.map_err(failed)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut buffer).await.map_err(failed)?;
        if n == 0 {
            break;
        }
        hasher.update(&buffer[..n]);
    }
    let found: String = hasher.finalize().iter().map(|b| format!("{b:02x}")).collect();
    match expected {
        Some(expected) if expected != found => {
            let _ = fs::remove_file(part).await;
            return Err(format!(
                "the file is damaged and was removed: its SHA-256 is {found}, not {expected}. Run the command again"
            ));
        }
        Some(_) => {}
        None => eprintln!("The server publishes no checksum, so the file could not be checked. Its SHA-256 is {found}"),
    }
    fs::rename(part, path).await.map_err(|e| format!("{} can't be made: {e}", path.display()))
}

/// A progress bar on a terminal. Writes nothing elsewhere.
struct Bar {
    start: Instant,
    shown: Option<Instant>,
    first: u64,
    received: u64,
    total: Option<u64>,
}

impl Bar {
    fn advance(&mut self, bytes: u64) {
        self.received += bytes;
        let due = self.shown.is_none_or(|at| at.elapsed() > Duration::from_millis(200));
        if due && std::io::stderr().is_terminal() {
            self.shown = Some(Instant::now());
            self.draw();
        }
    }

    fn draw(&self) {
        use crate::model::{bytes, duration};
        let speed = (self.received - self.first) as f64 / self.start.elapsed().as_secs_f64().max(0.001);
        let rest = self.total.map(|total| {
            let share = self.received as f64 / total.max(1) as f64;
            let filled = (share * 30.0) as usize;
            let time_left = duration((total - self.received.min(total)) as f64 / speed.max(1.0));
            format!(
                " of {} [{}{}] {:.0}%, {time_left} left",
                bytes(total),
                "#".repeat(filled),
                ".".repeat(30 - filled.min(30)),
                share * 100.0
            )
        });
        eprint!("\r\x1b[K{}{} at {}/s", bytes(self.received), rest.unwrap_or_default(), bytes(speed as u64));
        let _ = std::io::stderr().flush();
    }

    fn end(&self) {
        if std::io::stderr().is_terminal() {
            self.draw();
            eprintln!();
        }
    }
}
