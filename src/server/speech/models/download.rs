//! Downloads one file over HTTP: goes on where an earlier download stopped, follows redirects, is bounded in bytes, and
//! asks again if the connection breaks off. Called by `library`, which checks what has arrived.

use super::{Report, Step};
use crate::server::outgoing;
use futures::StreamExt;
use reqwest::{Client, Response, StatusCode, Url, header};
use std::{io, path::Path, time::Duration};
use tokio::{fs, io::AsyncWriteExt, time};

/// How long a server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How many redirects are followed.
const MAX_REDIRECTS: usize = 10;
/// How many times in a row a download is continued that broke off. Each must have brought something.
const MAX_CONTINUATIONS: u32 = 20;
/// The pause before a download that broke off is continued.
const PAUSE: Duration = Duration::from_millis(500);
/// The largest file that is downloaded if nothing says how large it should be, in bytes.
const MAX_BYTES: u64 = 16_000_000_000;

/// What is downloaded, and how.
pub(super) struct Download<'a> {
    pub url: &'a str,
    /// The file that receives it. What it contains already is the beginning.
    pub part: &'a Path,
    /// The size in bytes, if it is known.
    pub bytes: Option<u64>,
    /// How long nothing may arrive.
    pub silence: Duration,
    pub report: Report<'a>,
}

/// The end of one request.
enum Received {
    All,
    /// The connection broke off, with the reason.
    BrokeOff(String),
}

impl Download<'_> {
    /// Fetches the file. Returns the SHA-256 that the server publishes, if it does.
    pub(super) async fn run(&self) -> Result<Option<String>, String> {
        // Redirects are followed here and not by the client, because the digest is in the response that redirects.
        let client = outgoing::client()
            .redirect(reqwest::redirect::Policy::none())
            // One large file needs nothing of HTTP/2, whose windows would slow it down.
            .http1_only()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(self.silence)
            .build()
            .map_err(|e| reason(&e))?;
        let mut continuations = 0;
        loop {
            let before = self.have().await;
            if self.bytes == Some(before) {
                return Ok(None);
            }
            let (response, published) = self.request(&client, before).await?;
            if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
                if self.bytes.is_some() {
                    return Err("the file there is shorter than it should be".to_owned());
                }
                // The part is complete.
                return Ok(published);
            }
            match self.receive(response, before).await? {
                Received::All => return Ok(published),
                Received::BrokeOff(why) => {
                    continuations += 1;
                    if self.have().await == before || continuations > MAX_CONTINUATIONS {
                        return Err(why);
                    }
                    time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn have(&self) -> u64 {
        fs::metadata(self.part).await.map_or(0, |meta| meta.len())
    }

    /// Sends the request and follows redirects. Returns the response, and the SHA-256 that the server publishes, if it
    /// does (as an ETag of 64 digits).
    async fn request(&self, client: &Client, have: u64) -> Result<(Response, Option<String>), String> {
        let mut url = Url::parse(self.url).map_err(|e| format!("{} isn't a valid address: {e}", self.url))?;
        let mut published = None;
        for _ in 0..MAX_REDIRECTS {
            let mut request = client.get(url.clone());
            if have > 0 {
                request = request.header(header::RANGE, format!("bytes={have}-"));
            }
            let response = request.send().await.map_err(|e| format!("it can't be reached: {}", reason(&e)))?;
            for name in ["x-linked-etag", "etag"] {
                let tag = response.headers().get(name).and_then(|v| v.to_str().ok());
                let digest = tag.map(|tag| tag.trim_matches('"').to_lowercase());
                published = published.or(digest.filter(|d| d.len() == 64 && d.bytes().all(|b| b.is_ascii_hexdigit())));
            }
            let status = response.status();
            if status.is_redirection() {
                let to = response.headers().get(header::LOCATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
                let next =
                    url.join(to).map_err(|e| format!("it redirects to '{to}', which isn't a valid address: {e}"))?;
                if url.scheme() == "https" && next.scheme() != "https" {
                    return Err(format!(
                        "it redirects from https to {}, where anybody could change the file",
                        next.scheme()
                    ));
                }
                url = next;
                continue;
            }
            return match status {
                StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                    Ok((response, published))
                }
                StatusCode::NOT_FOUND => Err("it does not exist there (404)".to_owned()),
                status => Err(format!("the server answered {status}")),
            };
        }
        Err("it redirects too often".to_owned())
    }

    /// Writes the body of a response behind the first `have` bytes, or over them if the server sends everything.
    async fn receive(&self, response: Response, have: u64) -> Result<Received, String> {
        let mut received = match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let start =
                    response.headers().get(header::CONTENT_RANGE).and_then(|v| v.to_str().ok()).and_then(start_of);
                if start != Some(have) {
                    return Err("the server sent another part than it was asked for".to_owned());
                }
                have
            }
            _ => 0,
        };
        let total = response.content_length().map(|rest| rest + received);
        let limit = self.bytes.or(total).unwrap_or(MAX_BYTES).min(self.bytes.unwrap_or(MAX_BYTES));
        if let (Some(total), Some(bytes)) = (total, self.bytes)
            && total != bytes
        {
            return Err(format!("the file there has {total} bytes instead of {bytes}"));
        }
        let failed = |e: io::Error| format!("{} can't be written: {e}", self.part.display());
        let mut file = fs::OpenOptions::new().create(true).append(true).open(self.part).await.map_err(failed)?;
        file.set_len(received).await.map_err(failed)?;
        let mut pieces = response.bytes_stream();
        let end = loop {
            match pieces.next().await {
                None => break Received::All,
                Some(Err(error)) => break Received::BrokeOff(format!("the download broke off: {}", reason(&error))),
                Some(Ok(piece)) => {
                    received += piece.len() as u64;
                    if received > limit {
                        return Err(format!("the server sends more than {limit} bytes"));
                    }
                    file.write_all(&piece).await.map_err(failed)?;
                    (self.report)(Step::Received { bytes: received, total: self.bytes.or(total) });
                }
            }
        };
        file.sync_all().await.map_err(failed)?;
        match total.or(self.bytes) {
            Some(total) if received < total && matches!(end, Received::All) => {
                Ok(Received::BrokeOff(format!("the download ended after {received} of {total} bytes")))
            }
            _ => Ok(end),
        }
    }
}

/// Returns the first number of a `Content-Range: bytes 100-199/200`.
fn start_of(range: &str) -> Option<u64> {
    range.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

/// Returns the innermost reason of an error, which says what happened, without the address, which the caller names.
fn reason(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    if error.is_timeout() { "nothing arrived for too long".to_owned() } else { innermost.to_string() }
}
