//! Live status over real streams, with the real built-in engine, and what survives a kill of the real process.

mod support;

use reqwest::StatusCode;
use serde_json::Value;
use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};
use support::{Sse, SseEvent, TIMEOUT, TestApp, slow_engine, speech, wav, word_error_rate};

fn versions(events: &[SseEvent]) -> Vec<u64> {
    events.iter().filter(|e| e.event == "status").map(|e| e.json()["version"].as_u64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn real_speech_is_heard_live_and_told_in_order() {
    const TEXT: &str = "We left the old house early in the morning. The road went along the river and then up into the \
        hills. There was no one else on the road that day. By noon the sun was high and we stopped under a tall tree \
        to eat some bread.";
    let app = TestApp::start().await;
    let me = app.visitor();
    let id = me.session("a.wav", speech(TEXT, app.folder.path()), &[]).await;
    let events = Sse::new(me.get(&format!("/api/v1/sessions/{id}/status/stream")).await).rest().await;
    let versions = versions(&events);
    assert!(versions.windows(2).all(|w| w[0] < w[1]), "{versions:?}");
    let statuses: Vec<Value> = events.iter().filter(|e| e.event == "status").map(SseEvent::json).collect();
    let last = statuses.last().unwrap();
    assert_eq!((&last["status"], &last["progress"]), (&Value::from("completed"), &Value::from(100.0)), "{last}");
    let progress: Vec<f64> = statuses.iter().filter_map(|s| s["progress"].as_f64()).collect();
    assert!(progress.windows(2).all(|w| w[0] <= w[1]), "{progress:?}");
    assert!(progress[..progress.len() - 1].iter().all(|p| *p < 100.0));
    // How many steps there are is up to the machine's speed.
    let mut steps: Vec<f64> = progress.iter().copied().filter(|p| *p > 0.0 && *p < 100.0).collect();
    steps.dedup();
    assert!(steps.len() >= 2, "a bar with only {progress:?}");
    let heard: Vec<Value> = events.iter().filter(|e| e.event == "segment").map(SseEvent::json).collect();
    let indexes: Vec<u64> = heard.iter().map(|s| s["index"].as_u64().unwrap()).collect();
    assert_eq!(indexes, (0..heard.len() as u64).collect::<Vec<_>>());
    let first = events.iter().position(|e| e.event == "segment").unwrap();
    let goes_on = events[first..].iter().any(|e| e.event == "status" && e.json()["stage"] == "transcribing");
    assert!(goes_on, "the first segment came only at the end: {events:#?}");
    let text: Vec<&str> = heard.iter().map(|s| s["text"].as_str().unwrap()).collect();
    let errors = word_error_rate(TEXT, &text.join(" "));
    assert!(errors <= 0.15, "{errors}: {text:?}");
    let json = me.json(&format!("/api/v1/sessions/{id}/transcript.json")).await;
    let words = json["segments"][0]["words"].as_array().unwrap();
    assert!(words.len() > 3 && words[0]["confidence"].is_number());
    // The page shows none of that, and is spared it.
    let page = me.get(&format!("/sessions/{id}")).await.text().await.unwrap();
    let has_field = |name: &str| page.contains(&format!(r#"\"{name}\":"#));
    assert!(page.contains(text[0]) && has_field("segments") && !has_field("confidence"), "{page}");
    // A client that reconnects with the last id learns that the session is over; with an earlier id it gets what it lacks.
    let path = format!("/api/v1/sessions/{id}/status/stream");
    let over = me.send(me.request("GET", &path).header("last-event-id", &events.last().unwrap().id)).await;
    assert_eq!(over.status(), StatusCode::NO_CONTENT);
    let again = Sse::new(me.get(&format!("{path}?last_event_id={}", events[first].id)).await).rest().await;
    let kinds: Vec<&str> = again.iter().map(|e| e.event.as_str()).collect();
    assert_eq!(kinds, [vec!["segment"; heard.len() - 1], vec!["status"]].concat());
    assert_eq!(me.get(&format!("{path}?last_event_id=nonsense")).await.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_stream_tells_of_all_sessions_and_polling_says_the_same() {
    let folder = tempfile::TempDir::new().unwrap();
    let command = slow_engine(folder.path(), 0.1);
    let app = TestApp::on(folder, &["--engine", "command", "--engine-command", &command]).await;
    let me = app.visitor();
    me.get("/api/v1/sessions").await;
    let response = me.get("/api/v1/status/stream").await;
    assert_eq!(response.headers()["x-accel-buffering"], "no");
    assert_eq!(response.headers()["cache-control"], "no-cache, no-store, no-transform");
    assert!(response.headers().get("content-encoding").is_none());
    let mut stream = Sse::new(response);
    let first = me.session("a.wav", wav(3.0, 1.0), &[]).await;
    let second = me.session("b.wav", wav(2.0, 1.0), &[]).await;
    let mut waited = false;
    let mut done = Vec::new();
    while done.len() < 2 {
        let event = stream.next().await.expect("the stream stays open");
        let data = event.json();
        if event.event != "status" {
            continue;
        }
        waited |= data["session_id"] == second.as_str() && data["queue_position"] == 0;
        if data["status"] == "completed" {
            done.push(data["session_id"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(done, [first.clone(), second]);
    assert!(waited, "the second session was never told its place");
    let polled = me.get("/api/v1/status").await;
    let etag = polled.headers()["etag"].clone();
    assert_eq!(polled.json::<Value>().await.unwrap()["statuses"].as_array().unwrap().len(), 2);
    let unchanged = me.send(me.request("GET", "/api/v1/status").header("if-none-match", etag)).await;
    assert_eq!(unchanged.status(), StatusCode::NOT_MODIFIED);
    let one = me.get(&format!("/api/v1/sessions/{first}/status")).await;
    let etag = one.headers()["etag"].clone();
    let path = format!("/api/v1/sessions/{first}/status");
    let unchanged = me.send(me.request("GET", &path).header("if-none-match", etag)).await;
    assert_eq!(unchanged.status(), StatusCode::NOT_MODIFIED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_says_goodbye_and_hands_the_session_back() {
    let folder = tempfile::TempDir::new().unwrap();
    let command = slow_engine(folder.path(), 0.3);
    let flags = ["--engine", "command", "--engine-command", &command];
    let app = TestApp::on(folder, &flags).await;
    let me = app.visitor();
    let id = me.session("a.wav", wav(6.0, 1.0), &[]).await;
    let mut stream = Sse::new(me.get(&format!("/api/v1/sessions/{id}/status/stream")).await);
    while stream.next().await.unwrap().event != "segment" {}
    let reading = tokio::spawn(stream.rest());
    let folder = app.stop().await;
    let last = reading.await.unwrap().pop().unwrap();
    assert_eq!((last.event.as_str(), last.data.as_str()), ("bye", r#"{"reason":"shutdown"}"#));
    let app = TestApp::on(folder, &flags).await;
    let store = hark::server::store::Store::open(&app.folder.path().join("hark.sqlite")).await.unwrap();
    let waiting = async {
        loop {
            let (session, _) = store.find(id.parse().unwrap()).await.unwrap().unwrap();
            if session.status.state.is_terminal() {
                return session;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let session = tokio::time::timeout(TIMEOUT, waiting).await.unwrap();
    assert_eq!((session.status.state.as_str(), session.status.segments), ("completed", 6));
}

struct Process(Child);

impl Process {
    fn start(data: &std::path::Path, command: &str, port: u16) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_hark"))
            .args(["serve", "--engine", "command", "--engine-command", command, "--min-free-bytes", "1"])
            .env("HARK_DATA_DIR", data)
            .env("LEPTOS_SITE_ADDR", format!("127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn ready(url: &str) {
    let waiting = async {
        while reqwest::get(format!("{url}/readyz")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, waiting).await.expect("the server starts");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_goes_on_after_the_last_segment() {
    let scratch = tempfile::TempDir::new().unwrap();
    let data = scratch.path().join("data");
    let command = slow_engine(scratch.path(), 0.3);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}");
    let mut server = Process::start(&data, &command, port);
    ready(&url).await;
    // Borrowed only for its client: the node it would start isn't asked.
    let app = TestApp::start().await;
    let mut me = app.visitor();
    me.url.clone_from(&url);
    let id = me.session("a.wav", wav(10.0, 1.0), &[]).await;
    let path = format!("/api/v1/sessions/{id}");
    let before = loop {
        let status = me.json(&format!("{path}/status")).await;
        if status["segments"].as_u64().unwrap() >= 3 {
            break status;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let kept = me.json(&format!("{path}/segments")).await;
    server.kill();
    let mut server = Process::start(&data, &command, port);
    ready(&url).await;
    let done = me.wait(&id, "completed").await;
    assert!(done["version"].as_u64() > before["version"].as_u64());
    assert_eq!((&done["attempt"], &done["segments"]), (&Value::from(2), &Value::from(10)));
    let all = me.json(&format!("{path}/segments")).await;
    let (kept, all) = (kept["segments"].as_array().unwrap(), all["segments"].as_array().unwrap());
    assert_eq!(&all[..kept.len()], &kept[..]);
    for (n, segment) in all.iter().enumerate() {
        assert_eq!((&segment["index"], &segment["start"]), (&Value::from(n), &Value::from(n as f64)));
    }
    server.kill();
}
