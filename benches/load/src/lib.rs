//! Shared by the load generators: kept-alive connections, changes that contain the time when they were sent, and streams read
//! line by line. All over raw sockets, so that the generator takes little time itself.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// The number of connections that publish, each with one change under way at a time.
pub const PUBLISHERS: usize = 16;
/// The number of streams that are opened at the same time.
pub const CONCURRENT_OPENS: usize = 64;
/// The time to wait for late events after the last change.
pub const SETTLE_TIME: Duration = Duration::from_secs(3);
/// The servers' worker token.
pub const TOKEN: &str = "the-token-of-the-load-generator";
/// The prefix of a change's number and of the time when it was sent.
const CHANGE_PREFIX: &[u8] = b"\"message\":\"~";

/// A change of a session.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    pub id: &'a str,
    /// The number of the change within its session.
    pub number: i64,
    /// When the change was sent, in nanoseconds since an instant that the reader knows.
    pub sent: u128,
}

impl Change<'_> {
    /// The report that a worker sends over HTTP: without a version, which Hark counts itself.
    #[must_use]
    pub fn report(&self) -> String {
        let seconds = self.number as f64 / 10.0;
        format!("{{\"stage\":\"transcribing\",{},\"duration_processed\":{seconds}}}", self.message())
    }

    /// The status that Hark makes of the same report, for servers that only forward what they are sent.
    #[must_use]
    pub fn status(&self) -> String {
        format!(
            "{{\"session_id\":\"{}\",{},\"timestamp\":\"2026-01-01T00:00:00.000Z\",\"duration_processed\":130.4,\
             \"duration_total\":302.1,\"estimated_completion\":null,\"processing_speed\":2.3,\"segments\":0,\
             \"queue_position\":null,\"attempt\":1,\"error\":null}}",
            self.id,
            self.head()
        )
    }

    /// The request that reports the change to Hark.
    #[must_use]
    pub fn request(&self, addr: SocketAddr) -> String {
        let path = format!("/api/v1/sessions/{}/status", self.id);
        let headers = format!("Authorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n");
        request("PUT", addr, &path, &headers, &self.report())
    }

    /// The line that reports the change to Hark in a batch.
    #[must_use]
    pub fn line(&self) -> String {
        format!("{{\"session_id\":\"{}\",{}\n", self.id, &self.report()[1..])
    }

    fn head(&self) -> String {
        let progress = (self.number as f64 / 1000.0).min(99.0);
        format!(
            "\"version\":{},\"status\":\"processing\",\"stage\":\"transcribing\",\"progress\":{progress},{}",
            self.number + 10,
            self.message()
        )
    }

    /// What the reader finds again: the number and when it was sent.
    fn message(&self) -> String {
        format!("\"message\":\"~{} {}\"", self.number, self.sent)
    }
}

/// The request that reports several changes to Hark, given their lines.
#[must_use]
pub fn batch(addr: SocketAddr, lines: &str) -> String {
    let headers = format!("Authorization: Bearer {TOKEN}\r\nContent-Type: application/x-ndjson\r\n");
    request("POST", addr, "/api/v1/status/batch", &headers, lines)
}

/// Reads a change's number and the time when it was sent from a line of data.
#[must_use]
pub fn mark(line: &[u8]) -> Option<(i64, u64)> {
    let start = line.windows(CHANGE_PREFIX.len()).position(|w| w == CHANGE_PREFIX)? + CHANGE_PREFIX.len();
    let end = line[start..].iter().position(|b| *b == b'"')?;
    let (number, sent) = std::str::from_utf8(&line[start..start + end]).ok()?.split_once(' ')?;
    Some((number.parse().ok()?, sent.parse().ok()?))
}

/// Builds a request with a body. Each of `headers` ends with a line break.
#[must_use]
pub fn request(method: &str, addr: SocketAddr, path: &str, headers: &str, body: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: {addr}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// Waits for an instant, more exactly than the millisecond timer: it spends the remaining time yielding to other tasks.
pub async fn until(due: Instant) {
    if let Some(wait) = due.checked_duration_since(Instant::now() + Duration::from_millis(2)) {
        tokio::time::sleep(wait).await;
    }
    while Instant::now() < due {
        tokio::task::yield_now().await;
    }
}

/// An owner's sessions on a node of Hark.
#[derive(Debug)]
pub struct Sessions {
    /// The cookie header of the owner, with its line break.
    pub cookie: String,
    pub ids: Vec<String>,
}

impl Sessions {
    /// Creates the sessions.
    ///
    /// # Errors
    /// The node's answer, if it refused.
    pub async fn create(addr: SocketAddr, count: usize) -> Result<Self, String> {
        let mut connection = Connection::open(addr).await?;
        let (head, _) = connection.request(&format!("GET /api/v1/sessions HTTP/1.1\r\nHost: {addr}\r\n\r\n")).await?;
        let set = head.lines().find_map(|l| l.strip_prefix("set-cookie: ").filter(|l| l.starts_with("hark_owner_")));
        let pair = set.and_then(|v| v.split(';').next()).ok_or("no cookie")?;
        let cookie = format!("Cookie: {pair}\r\n");
        let mut ids = Vec::with_capacity(count);
        for n in 0..count {
            ids.push(announce(&mut connection, addr, &cookie, &format!("Session {n}")).await?);
        }
        Ok(Self { cookie, ids })
    }
}

/// Creates a session of an owner, who is named by the `cookie` header with its line break. Returns its id.
///
/// # Errors
/// The node's answer, if it refused.
pub async fn announce(
    connection: &mut Connection,
    addr: SocketAddr,
    cookie: &str,
    title: &str,
) -> Result<String, String> {
    let headers = format!("Authorization: Bearer {TOKEN}\r\n{cookie}Content-Type: application/json\r\n");
    let body = format!("{{\"title\":\"{title}\",\"duration_total\":600}}");
    let (_, answer) = connection.request(&request("POST", addr, "/api/v1/sessions", &headers, &body)).await?;
    let session: serde_json::Value = serde_json::from_str(&answer).map_err(|e| format!("{e}: {answer}"))?;
    Ok(session["id"].as_str().ok_or("no id")?.to_owned())
}

/// A kept-alive connection with one request under way at a time.
#[derive(Debug)]
pub struct Connection {
    socket: TcpStream,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// As text, like all errors here.
    pub async fn open(addr: SocketAddr) -> Result<Self, String> {
        let socket = TcpStream::connect(addr).await.map_err(|e| e.to_string())?;
        socket.set_nodelay(true).map_err(|e| e.to_string())?;
        Ok(Self { socket })
    }

    /// Sends a request and reads its answer: head and body.
    ///
    /// # Errors
    /// If the server's answer isn't a success.
    pub async fn request(&mut self, request: &str) -> Result<(String, String), String> {
        self.write(request).await?;
        let mut answer = Vec::with_capacity(2048);
        loop {
            self.read(&mut answer).await?;
            let text = String::from_utf8_lossy(&answer);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
            });
            if body.len() < length.unwrap_or(0) {
                continue;
            }
            if !head.starts_with("HTTP/1.1 2") {
                return Err(format!("{head}\n{body}"));
            }
            return Ok((head.to_owned(), body.to_owned()));
        }
    }

    /// Publishes to a channel of Redis and reads the number of subscribers that received it.
    ///
    /// # Errors
    /// If Redis returned an error.
    pub async fn publish(&mut self, channel: &str, body: &str) -> Result<(), String> {
        let argument = |text: &str| format!("${}\r\n{text}\r\n", text.len());
        let command = ["PUBLISH", channel, body].map(argument).concat();
        self.write(&format!("*3\r\n{command}")).await?;
        let mut answer = Vec::with_capacity(64);
        while !answer.ends_with(b"\r\n") {
            self.read(&mut answer).await?;
        }
        match answer.first() {
            Some(b':') => Ok(()),
            _ => Err(String::from_utf8_lossy(&answer).into_owned()),
        }
    }

    async fn write(&mut self, text: &str) -> Result<(), String> {
        self.socket.write_all(text.as_bytes()).await.map_err(|e| e.to_string())
    }

    async fn read(&mut self, answer: &mut Vec<u8>) -> Result<(), String> {
        match self.socket.read_buf(answer).await.map_err(|e| e.to_string())? {
            0 => Err("the server closed the connection".to_owned()),
            _ => Ok(()),
        }
    }
}

/// Requests a stream and passes on its lines, with their line breaks, until it ends.
///
/// # Errors
/// If the stream breaks off.
pub async fn lines(addr: SocketAddr, request: String, mut line: impl FnMut(&[u8])) -> io::Result<()> {
    let mut socket = TcpStream::connect(addr).await?;
    socket.set_nodelay(true)?;
    socket.write_all(request.as_bytes()).await?;
    drop(request);
    // The incomplete line received so far, which is nearly always empty.
    let mut rest: Vec<u8> = Vec::new();
    loop {
        socket.readable().await?;
        let mut chunk = [0; 4096];
        let read = match socket.try_read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        let mut text = &chunk[..read];
        let joined;
        if !rest.is_empty() {
            rest.extend_from_slice(text);
            joined = std::mem::take(&mut rest);
            text = &joined;
        }
        while let Some(end) = text.iter().position(|b| *b == b'\n') {
            let (whole, after) = text.split_at(end + 1);
            text = after;
            line(whole);
        }
        if !text.is_empty() {
            rest = text.to_vec();
        }
    }
}
