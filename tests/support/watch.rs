//! Watchers that follow status streams as a browser does: they come back with the id of the last event, for ever, and
//! note what they were told and whether any of it can't be.

use reqwest::{Response, StatusCode, header};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::{task::JoinHandle, time};

/// Pages take a stream for dead that is silent for so long.
const SILENCE: Duration = Duration::from_secs(40);
/// How often segments are asked for; the next status asks again.
const TRIES: u32 = 10;

/// What a watcher knows of a session.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The versions it was told, in order.
    pub versions: Vec<u64>,
    /// The newest status.
    pub status: String,
    /// The segments, by their number.
    pub segments: BTreeMap<u64, String>,
}

impl Known {
    pub fn has_ended(&self) -> bool {
        ["completed", "failed", "cancelled"].contains(&self.status.as_str())
    }
}

/// What a watcher has seen so far.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    pub sessions: BTreeMap<String, Known>,
    /// What must not be, in words.
    pub wrong: Vec<String>,
    /// Streams that were opened.
    pub opened: u32,
    /// Answers other than a stream, by their status.
    pub refused: Vec<u16>,
    /// Connections that failed.
    pub failed: u32,
    /// Statuses of all-sessions streams that were older than what an earlier stream had told; a page ignores them.
    pub older: u32,
    /// The server said that there is nothing more to come.
    pub over: bool,
}

/// A watcher at work, until dropped.
pub struct Watcher {
    pub name: String,
    notes: Arc<Mutex<Notes>>,
    task: JoinHandle<()>,
}

impl Watcher {
    /// Follows one session at `url`, with this cookie.
    pub fn of_session(name: &str, url: &str, cookie: &str, session: &str) -> Self {
        let path = format!("/api/v1/sessions/{session}/status/stream");
        Self::start(format!("{name} of {session}"), url, cookie, path, Some(session.to_owned()))
    }

    /// Follows all sessions of the cookie's owner.
    pub fn of_all(name: &str, url: &str, cookie: &str) -> Self {
        Self::start(format!("{name} of all"), url, cookie, "/api/v1/status/stream".to_owned(), None)
    }

    fn start(name: String, url: &str, cookie: &str, path: String, session: Option<String>) -> Self {
        let notes = Arc::new(Mutex::new(Notes::default()));
        let client = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
        let following = Following {
            client,
            url: url.to_owned(),
            path,
            cookie: cookie.to_owned(),
            session,
            notes: Arc::clone(&notes),
            last_id: String::new(),
            retry: Duration::from_millis(500),
        };
        Self { name, notes, task: tokio::spawn(following.run()) }
    }

    /// What it has seen so far.
    pub fn notes(&self) -> Notes {
        lock(&self.notes).clone()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[derive(Default)]
struct Event {
    id: Option<String>,
    name: String,
    data: String,
}

struct Following {
    client: reqwest::Client,
    url: String,
    path: String,
    cookie: String,
    /// None for all sessions.
    session: Option<String>,
    notes: Arc<Mutex<Notes>>,
    last_id: String,
    retry: Duration,
}

impl Following {
    async fn run(mut self) {
        loop {
            let mut request = self.get(&self.path);
            if !self.last_id.is_empty() {
                request = request.header("last-event-id", &self.last_id);
            }
            match time::timeout(SILENCE, request.send()).await {
                Ok(Ok(response)) if response.status() == StatusCode::OK => {
                    lock(&self.notes).opened += 1;
                    self.read(response).await;
                }
                Ok(Ok(response)) if response.status() == StatusCode::NO_CONTENT => {
                    lock(&self.notes).over = true;
                    return;
                }
                // An EventSource gives up here, and the page polls and tries again after a while.
                Ok(Ok(response)) if response.status().is_server_error() => {
                    lock(&self.notes).refused.push(response.status().as_u16());
                }
                Ok(Ok(response)) => {
                    let status = response.status();
                    self.wrong(format!("answered with {status}"));
                    return;
                }
                Ok(Err(_)) | Err(_) => lock(&self.notes).failed += 1,
            }
            time::sleep(self.retry).await;
        }
    }

    fn get(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.get(format!("{}{path}", self.url)).header(header::COOKIE, &self.cookie)
    }

    fn wrong(&self, what: String) {
        lock(&self.notes).wrong.push(what);
    }

    /// Reads a stream to its end.
    async fn read(&mut self, mut response: Response) {
        let mut buffer = Vec::new();
        // Of this stream: an all-sessions stream begins with what an earlier one may have told.
        let mut told = BTreeMap::new();
        while let Ok(Ok(Some(chunk))) = time::timeout(SILENCE, response.chunk()).await {
            buffer.extend_from_slice(&chunk);
            while let Some(end) = buffer.windows(2).position(|pair| pair == b"\n\n") {
                let block: Vec<u8> = buffer.drain(..end + 2).collect();
                let event = self.parse(&String::from_utf8_lossy(&block));
                if !event.data.is_empty() {
                    self.take(event, &mut told).await;
                }
            }
        }
    }

    fn parse(&mut self, block: &str) -> Event {
        let mut event = Event::default();
        for line in block.lines() {
            match line.split_once(": ") {
                Some(("id", value)) => event.id = Some(value.to_owned()),
                Some(("event", value)) => value.clone_into(&mut event.name),
                Some(("data", value)) => value.clone_into(&mut event.data),
                Some(("retry", value)) => {
                    // A refusal asks for half a minute; these tests want to know sooner.
                    self.retry = Duration::from_millis(value.parse().unwrap_or(500)).min(Duration::from_secs(1));
                }
                _ => {}
            }
        }
        event
    }

    async fn take(&mut self, event: Event, told: &mut BTreeMap<String, u64>) {
        let data: Value = match serde_json::from_str(&event.data) {
            Ok(data) => data,
            Err(error) => return self.wrong(format!("{error}: {}", event.data)),
        };
        if let Some(id) = &event.id {
            self.last_id.clone_from(id);
        }
        match event.name.as_str() {
            "status" => self.status(&data, event.id.as_deref().unwrap_or_default(), told).await,
            "segment" => self.segment(&data),
            "bye" if ["limit", "logout"].contains(&data["reason"].as_str().unwrap_or_default()) => {
                self.wrong(format!("sent away: {data}"));
            }
            _ => {}
        }
    }

    async fn status(&mut self, data: &Value, event_id: &str, told: &mut BTreeMap<String, u64>) {
        let id = data["session_id"].as_str().unwrap_or_default().to_owned();
        let (version, segments) =
            (data["version"].as_u64().unwrap_or_default(), data["segments"].as_u64().unwrap_or_default());
        // A stream of one session may have told more segments than this status counts.
        let told_already = lock(&self.notes).sessions.get(&id).map_or(0, |known| known.segments.len() as u64);
        let counted = if self.session.is_some() { segments.max(told_already) } else { segments };
        if event_id != format!("{version}.{counted}") {
            self.wrong(format!("the status {data} has the id {event_id}, after {told_already} segments"));
        }
        let before = told.insert(id.clone(), version);
        if before.is_some_and(|before| before >= version) {
            self.wrong(format!("version {version} of {id} after {before:?}"));
        }
        {
            let mut notes = lock(&self.notes);
            let mut wrong = None;
            let known = notes.sessions.entry(id.clone()).or_default();
            match known.versions.last() {
                Some(last) if *last >= version => {
                    let last = *last;
                    if self.session.is_some() {
                        wrong = Some(format!("version {version} after {last}, over streams"));
                    } else if last > version {
                        notes.older += 1;
                    }
                }
                _ => {
                    known.versions.push(version);
                    known.status = data["status"].as_str().unwrap_or_default().to_owned();
                    // Those before a status come first, or a client that comes back with its id would never get them.
                    if self.session.is_some() && (known.segments.len() as u64) < segments {
                        wrong = Some(format!("{segments} segments counted, {} sent", known.segments.len()));
                    }
                }
            }
            notes.wrong.extend(wrong);
        }
        if self.session.is_none() {
            self.fill(&id, segments).await;
        }
    }

    fn segment(&self, data: &Value) {
        let id = data["session_id"].as_str().unwrap_or_default().to_owned();
        let index = data["index"].as_u64().unwrap_or(u64::MAX);
        let mut notes = lock(&self.notes);
        let known = notes.sessions.entry(id.clone()).or_default();
        let next = known.segments.len() as u64;
        let text = data["text"].as_str().unwrap_or_default().to_owned();
        if self.session.is_some() {
            known.segments.insert(index, text);
            if index != next {
                notes.wrong.push(format!("segment {index} in place of {next}"));
            }
        } else if let Some(before) = known.segments.insert(index, text.clone())
            && before != text
        {
            // It may have been fetched already, but it never changes.
            notes.wrong.push(format!("segment {index} of {id} was '{before}' and now '{text}'"));
        }
    }

    /// Fetches the segments that a status counts and an all-sessions stream hasn't told.
    async fn fill(&self, id: &str, count: u64) {
        for _ in 0..TRIES {
            let missing = {
                let notes = lock(&self.notes);
                let known = &notes.sessions[id].segments;
                (0..count).find(|index| !known.contains_key(index))
            };
            let Some(first) = missing else { return };
            let after = first.checked_sub(1).map_or_else(String::new, |last| format!("?after={last}"));
            let request = self.get(&format!("/api/v1/sessions/{id}/segments{after}"));
            if let Ok(Ok(answer)) = time::timeout(SILENCE, request.send()).await
                && answer.status().is_success()
                && let Ok(body) = answer.json::<Value>().await
            {
                for segment in body["segments"].as_array().into_iter().flatten() {
                    let mut data = segment.clone();
                    data["session_id"] = id.into();
                    self.segment(&data);
                }
            } else {
                time::sleep(self.retry).await;
            }
        }
    }
}
