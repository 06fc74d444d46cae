//! Watches a status stream: when its head, its events and its end came. Called by `probe`.

use super::answer::{Answer, reason};
use flate2::write::GzDecoder;
use reqwest::{Client, Response};
use std::{io::Write, mem, time::Duration};
use tokio::time::{Instant, timeout_at};

/// No event of Hark's is longer, in bytes: what isn't a stream of events needn't be kept.
const MAX_EVENT: usize = 256 * 1024;

/// How a stream went.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    /// The answer without its body; none if none came.
    pub(super) head: Option<Answer>,
    pub(super) events: Vec<Event>,
    pub(super) end: End,
    /// How long it was watched, in seconds from the request.
    pub(super) secs: f64,
    /// When the last bytes came, in seconds from the request.
    pub(super) last_bytes_secs: f64,
}

/// An event of a stream.
#[derive(Clone, Debug)]
pub(super) struct Event {
    /// When it came, in seconds from the request.
    pub(super) secs: f64,
    /// `retry`, `heartbeat`, `status` or another name.
    pub(super) kind: String,
    pub(super) data: String,
}

/// How a stream ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum End {
    /// Not before this program stopped watching.
    #[default]
    Open,
    /// Hark said why.
    Bye(String),
    /// Something closed it without a word.
    Closed,
    /// It broke, with the error.
    Broken(String),
}

/// Until when a stream is watched.
#[derive(Clone, Copy)]
pub(super) enum Until {
    /// Its first event, or so long.
    FirstEvent(Duration),
    /// So long.
    For(Duration),
}

/// Opens a stream and watches it. `coding` is what the request says it accepts.
pub(super) async fn watch(client: &Client, url: String, coding: &str, until: Until) -> Watch {
    let begun = Instant::now();
    let mut watch = Watch::default();
    let (limit, first_only) = match until {
        Until::FirstEvent(limit) => (limit, true),
        Until::For(limit) => (limit, false),
    };
    let deadline = begun + limit;
    let request = client.get(url).header("accept", "text/event-stream").header("accept-encoding", coding);
    match timeout_at(deadline, request.send()).await {
        Err(_) => {}
        Ok(Err(error)) => watch.end = End::Broken(reason(&error)),
        Ok(Ok(response)) => {
            let head = Answer::new(response.status().as_u16(), response.version(), response.headers().clone(), &[]);
            let gzip = head.header("content-encoding") == Some("gzip");
            watch.head = Some(head);
            watch.read(response, Unpacker::new(gzip), begun, deadline, first_only).await;
        }
    }
    watch.secs = begun.elapsed().as_secs_f64();
    watch
}

impl Watch {
    async fn read(
        &mut self,
        mut response: Response,
        mut unpacker: Unpacker,
        begun: Instant,
        deadline: Instant,
        first_only: bool,
    ) {
        let mut pending = Vec::new();
        loop {
            let chunk = match timeout_at(deadline, response.chunk()).await {
                Err(_) => return,
                Ok(Err(error)) => return self.ended(End::Broken(reason(&error))),
                Ok(Ok(None)) => return self.ended(End::Closed),
                Ok(Ok(Some(chunk))) => chunk,
            };
            let secs = begun.elapsed().as_secs_f64();
            self.last_bytes_secs = secs;
            match unpacker.unpack(&chunk) {
                Ok(text) => pending.extend_from_slice(&text),
                Err(error) => return self.ended(End::Broken(format!("its gzip is damaged: {error}"))),
            }
            while let Some(end) = pending.windows(2).position(|two| two == b"\n\n") {
                let block: Vec<u8> = pending.drain(..end + 2).collect();
                self.events.extend(event(&String::from_utf8_lossy(&block), secs));
            }
            if pending.len() > MAX_EVENT {
                return self.ended(End::Broken("what comes is no stream of events".to_owned()));
            }
            if first_only && !self.events.is_empty() {
                return;
            }
        }
    }

    /// Notes the end, unless Hark has said why it comes.
    fn ended(&mut self, end: End) {
        let bye = self.events.iter().rev().find(|event| event.kind == "bye");
        self.end = match bye {
            Some(bye) => {
                let data: Option<serde_json::Value> = serde_json::from_str(&bye.data).ok();
                End::Bye(data.and_then(|data| Some(data["reason"].as_str()?.to_owned())).unwrap_or_default())
            }
            None => end,
        };
    }
}

/// Reads the lines of an event. None if it is a comment only.
fn event(block: &str, secs: f64) -> Option<Event> {
    let (mut kind, mut data) = (None, String::new());
    for line in block.lines() {
        match line.split_once(": ") {
            Some(("event", name)) => kind = Some(name.to_owned()),
            Some(("data", text)) => data.push_str(text),
            Some(("retry", _)) if kind.is_none() => kind = Some("retry".to_owned()),
            _ => {}
        }
    }
    kind.map(|kind| Event { secs, kind, data })
}

/// Unpacks a stream that comes as gzip, as far as it has come.
enum Unpacker {
    Plain,
    Gzip(Box<GzDecoder<Vec<u8>>>),
}

impl Unpacker {
    fn new(gzip: bool) -> Self {
        if gzip { Self::Gzip(Box::new(GzDecoder::new(Vec::new()))) } else { Self::Plain }
    }

    fn unpack(&mut self, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
        match self {
            Self::Plain => Ok(bytes.to_vec()),
            Self::Gzip(decoder) => {
                decoder.write_all(bytes)?;
                decoder.flush()?;
                Ok(mem::take(decoder.get_mut()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};

    #[test]
    fn events_are_read_by_their_lines() {
        let beat = event("event: heartbeat\ndata: {\"timestamp\":\"2026-01-01T00:00:00.000Z\"}\n\n", 1.5).unwrap();
        assert_eq!((beat.kind.as_str(), beat.secs), ("heartbeat", 1.5));
        assert_eq!(beat.data, "{\"timestamp\":\"2026-01-01T00:00:00.000Z\"}");
        assert_eq!(event("retry: 300\n\n", 0.0).unwrap().kind, "retry");
        assert_eq!(event("retry: 300\nevent: bye\ndata: {}\n\n", 0.0).unwrap().kind, "bye");
        assert!(event(": a comment\n\n", 0.0).is_none());
    }

    #[test]
    fn a_packed_stream_is_read_as_far_as_it_has_come() {
        let mut packer = GzEncoder::new(Vec::new(), Compression::default());
        let mut unpacker = Unpacker::new(true);
        for text in ["retry: 300\n\n", "event: heartbeat\ndata: {}\n\n"] {
            packer.write_all(text.as_bytes()).unwrap();
            packer.flush().unwrap();
            assert_eq!(unpacker.unpack(&mem::take(packer.get_mut())).unwrap(), text.as_bytes());
        }
    }

    #[test]
    fn an_end_that_hark_announced_is_known_by_its_reason() {
        let mut watch = Watch::default();
        watch.events.extend(event("event: bye\ndata: {\"reason\":\"lifetime\"}\n\n", 9.0));
        watch.ended(End::Closed);
        assert_eq!(watch.end, End::Bye("lifetime".to_owned()));
        let mut watch = Watch::default();
        watch.ended(End::Closed);
        assert_eq!(watch.end, End::Closed);
    }
}
