//! A status stream as an `EventSource` reads it: requests it, and gives its events one by one.

use serde::Deserialize;
use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

/// The longest line in bytes. Statuses and segments of this bench are much shorter.
const MAX_LINE: usize = 64 * 1024;

/// A connection with the answer to a request for a stream.
pub struct Events {
    lines: BufReader<TcpStream>,
    /// The HTTP status of the answer: 200 is a stream, 204 says that nothing more will come.
    pub code: u16,
    /// How long the server asks to wait before the stream is requested again, in milliseconds.
    pub retry_ms: Option<u64>,
}

/// An event.
#[derive(Debug, Default)]
pub struct Event {
    pub id: Option<String>,
    pub name: String,
    pub data: String,
}

/// The data of a `status`, as far as it is checked here.
#[derive(Debug, Deserialize)]
pub struct Status {
    pub session_id: String,
    pub version: u64,
    pub status: String,
    pub segments: u32,
}

/// The data of a `segment`, as far as it is checked here.
#[derive(Debug, Deserialize)]
pub struct Segment {
    pub session_id: String,
    pub index: u32,
}

impl Events {
    /// Requests a stream. `last` is the id of the last event that the client has seen.
    ///
    /// # Errors
    /// If the connection can't be made, or what comes isn't an HTTP response.
    pub async fn open(addr: SocketAddr, path: &str, cookie: &str, last: Option<&str>) -> io::Result<Self> {
        let mut socket = TcpStream::connect(addr).await?;
        let last = last.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\n{cookie}{last}Accept: text/event-stream\r\n\r\n");
        socket.write_all(request.as_bytes()).await?;
        let mut events = Self { lines: BufReader::with_capacity(2048, socket), code: 0, retry_ms: None };
        let first = events.line().await?.ok_or(ErrorKind::UnexpectedEof)?;
        events.code = first.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or(ErrorKind::InvalidData)?;
        while !events.line().await?.ok_or(ErrorKind::UnexpectedEof)?.is_empty() {}
        Ok(events)
    }

    /// The next event; none at the end of the response.
    ///
    /// # Errors
    /// If the response breaks off.
    pub async fn next(&mut self) -> io::Result<Option<Event>> {
        let mut event = Event::default();
        loop {
            let Some(line) = self.line().await? else { return Err(ErrorKind::UnexpectedEof.into()) };
            match line.split_once(": ") {
                Some(("id", id)) => event.id = Some(id.to_owned()),
                Some(("event", name)) => name.clone_into(&mut event.name),
                Some(("data", data)) => data.clone_into(&mut event.data),
                Some(("retry", ms)) => self.retry_ms = ms.parse().ok(),
                _ if line.is_empty() && !event.data.is_empty() => return Ok(Some(event)),
                // The last chunk.
                _ if line == "0" => return Ok(None),
                // Empty lines, and the sizes of chunks.
                _ => {}
            }
        }
    }

    /// Breaks the connection off, with a reset if `reset`: then the server is told by an error and not by an end.
    pub fn break_off(self, reset: bool) {
        if reset {
            // Where it fails, the connection ends as usual.
            let _ = self.lines.get_ref().set_zero_linger();
        }
    }

    async fn line(&mut self) -> io::Result<Option<String>> {
        let mut line = Vec::new();
        loop {
            let part = self.lines.fill_buf().await?;
            if part.is_empty() {
                return Ok(None);
            }
            let end = part.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(part.len(), |end| end + 1);
            line.extend_from_slice(&part[..taken]);
            self.lines.consume(taken);
            if end.is_some() {
                let text = String::from_utf8(line).map_err(|_| ErrorKind::InvalidData)?;
                return Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()));
            }
            if line.len() > MAX_LINE {
                return Err(ErrorKind::InvalidData.into());
            }
        }
    }
}
