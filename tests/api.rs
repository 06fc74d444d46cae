//! The JSON API over a real socket: uploads, errors, ownership, ranges, downloads, cancel, retry, delete.

#[path = "support/postgres.rs"]
#[allow(unreachable_pub, reason = "shared by test binaries")]
mod postgres;
mod support;

use hark::api::{
    sessions::{ActOnSessions, RestartSession, TranscribeAgain},
    upload::TrySample,
};
use leptos::server_fn::ServerFn;
use postgres::Postgres;
use reqwest::{Body, StatusCode, multipart};
use serde_json::Value;
use sqlx::Connection;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use support::{Sse, TIMEOUT, TestApp, Visitor, conversation, pitch_engine, slow_engine, speech, stereo_wav, wav};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
    time,
};

/// A node whose default engine answers a segment for each second of audio.
async fn counting(pause: f64) -> TestApp {
    let folder = tempfile::TempDir::new().unwrap();
    let command = slow_engine(folder.path(), pause);
    TestApp::on(folder, &["--engine", "command", "--engine-command", &command]).await
}

/// A node that transcribes nothing, so that whatever is queued stays there.
async fn idle(flags: &[&str]) -> TestApp {
    let folder = tempfile::TempDir::new().unwrap();
    let command = slow_engine(folder.path(), 0.0);
    let own = ["--workers", "0", "--engine", "command", "--engine-command", &command, "--worker-token", "secret"];
    let flags: Vec<&str> = own.into_iter().chain(flags.iter().copied()).collect();
    TestApp::on(folder, &flags).await
}

/// How many files lie where the recordings are, whole or in part.
fn recordings(app: &TestApp) -> usize {
    files(app, "recordings")
}

fn files(app: &TestApp, folder: &str) -> usize {
    std::fs::read_dir(app.folder.path().join(folder)).unwrap().count()
}

async fn error(response: reqwest::Response) -> (StatusCode, String, String) {
    let status = response.status();
    let body: Value = response.json().await.unwrap();
    (status, body["error"]["code"].as_str().unwrap().to_owned(), body["error"]["message"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn remarks_and_the_language_of_an_engine_reach_its_readers() {
    let folder = tempfile::TempDir::new().unwrap();
    let engine = folder.path().join("engine.py");
    let script = r#"import json, os, sys
def say(**line): print(json.dumps(line), flush=True)
sys.stdin.buffer.read()
say(type="ready", model="m")
say(type="language", language="de", probability=0.75)
say(type="remark", code="left_out", message="0:30 to 0:45 <b>could not</b> be heard.")
say(type="remark", code="left_out", message="0:30 to 0:45 <b>could not</b> be heard.")
for n in range(1, 20): say(type="remark", code="counted", message=f"{n} of them.", replaces=True)
say(type="segment", start=0, end=1, text=os.environ["HARK_VOCABULARY"])
say(type="done")
"#;
    std::fs::write(&engine, script).unwrap();
    let command = format!("python3 {}", engine.display());
    let flags = ["--engine", "command", "--engine-command", &command, "--vocabulary", "Grace Hopper"];
    let app = TestApp::on(folder, &flags).await;
    let me = app.visitor();
    let id = me.session("talk.wav", wav(2.0, 5000.0), &[("vocabulary", " Ada  Lovelace,\nBabbage,, ")]).await;
    me.wait(&id, "completed").await;
    let session = me.json(&format!("/api/v1/sessions/{id}")).await;
    assert_eq!(
        session["detected_language"],
        serde_json::json!({"language": "de", "name": "German", "probability": 0.75})
    );
    assert_eq!(session["vocabulary"], "Ada Lovelace, Babbage");
    // What comes again is there once, and what grows is there as it was last.
    let expected = serde_json::json!([
        {"code": "left_out", "message": "0:30 to 0:45 <b>could not</b> be heard."},
        {"code": "counted", "message": "19 of them."},
    ]);
    assert_eq!(session["status"]["remarks"], expected);
    let json = me.json(&format!("/api/v1/sessions/{id}/transcript.json")).await;
    assert_eq!(json["session"]["status"]["remarks"], expected);
    assert_eq!(json["segments"][0]["text"], "Ada Lovelace, Babbage");
    let page = me.get(&format!("/sessions/{id}")).await.text().await.unwrap();
    assert!(page.contains("0:30 to 0:45 &lt;b>could not&lt;/b> be heard.") && !page.contains("<b>could not"));
    assert!(page.contains("German (75%), found by the engine"));
    // The server's own terms are for uploads that bring none.
    let id = me.session("talk.wav", wav(2.0, 5000.0), &[]).await;
    assert_eq!(me.json(&format!("/api/v1/sessions/{id}")).await["vocabulary"], "Grace Hopper");
    let long = me.upload("talk.wav", wav(1.0, 1.0), &[("vocabulary", &"x".repeat(1001))]).await;
    assert_eq!(error(long).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_becomes_a_transcript_in_every_format() {
    let app = counting(0.0).await;
    let me = app.visitor();
    let response = me.upload("talk.wav", wav(3.0, 5000.0), &[("title", "My talk.wav")]).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let session: Value = response.json().await.unwrap();
    let id = session["id"].as_str().unwrap();
    assert_eq!(location, format!("/api/v1/sessions/{id}"));
    let status = me.wait(id, "completed").await;
    assert_eq!((&status["progress"], &status["segments"]), (&Value::from(100.0), &Value::from(3)));
    let session = me.json(&location).await;
    assert_eq!((&session["engine"], &session["model"]), (&Value::from("command"), &Value::from("counting")));
    let text = me.get(&format!("{location}/transcript.txt")).await;
    assert!(text.headers()["content-disposition"].to_str().unwrap().contains("filename=\"My talk.txt\""));
    assert_eq!(text.text().await.unwrap(), "word at 0\nword at 1\nword at 2\n");
    let srt = me.get(&format!("{location}/transcript.srt")).await.text().await.unwrap();
    assert!(srt.starts_with("1\n00:00:00,000 --> 00:00:01,000\nword at 0\n\n2\n"), "{srt}");
    let vtt = me.get(&format!("{location}/transcript.vtt")).await.text().await.unwrap();
    assert!(vtt.starts_with("WEBVTT\n\n00:00:00.000 --> 00:00:01.000\n"), "{vtt}");
    let json = me.json(&format!("{location}/transcript.json")).await;
    assert_eq!(json["segments"].as_array().unwrap().len(), 3);
    assert_eq!(me.get(&format!("{location}/transcript.pdf")).await.status(), StatusCode::NOT_FOUND);
    let after = me.json(&format!("{location}/segments?after=0")).await;
    assert_eq!(after["segments"][0]["index"], 1);
    for (query, wanted) in
        [("after=0&limit=1", &[1][..]), ("limit=2", &[0, 1]), ("limit=0", &[]), ("limit=9", &[0, 1, 2])]
    {
        let list = me.json(&format!("{location}/segments?{query}")).await;
        let found: Vec<_> = list["segments"].as_array().unwrap().iter().map(|s| s["index"].as_i64().unwrap()).collect();
        assert_eq!(found, wanted, "{query}");
    }
    let shape = me.json(&format!("{location}/waveform")).await;
    assert!(!shape["peaks"].as_array().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_decoder_finds_is_kept_although_the_engine_is_faster() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("engine.sh");
    std::fs::write(&file, "echo '{\"type\":\"ready\",\"protocol\":1}'\necho '{\"type\":\"done\"}'\n").unwrap();
    let command = format!("sh {}", file.display());
    let app = TestApp::on(folder, &["--engine", "command", "--engine-command", &command]).await;
    let me = app.visitor();
    let id = me.session("talk.wav", wav(300.0, 5000.0), &[]).await;
    let status = me.wait(&id, "completed").await;
    assert_eq!(status["duration_total"], Value::from(300.0));
    let shape = me.json(&format!("/api/v1/sessions/{id}/waveform")).await;
    assert!(!shape["peaks"].as_array().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_uploads_are_refused_with_a_reason_and_leave_nothing() {
    let app = TestApp::with(&["--max-upload-bytes", "200000", "--max-duration", "5"]).await;
    let me = app.visitor();
    type Case<'a> = (&'a str, Vec<u8>, &'a [(&'a str, &'a str)], StatusCode, &'a str);
    let cases: [Case; 9] = [
        ("empty.wav", vec![], &[], StatusCode::UNPROCESSABLE_ENTITY, "empty_file"),
        ("talk.mp3", b"just some text, no sound at all".to_vec(), &[], StatusCode::UNPROCESSABLE_ENTITY, "unreadable"),
        ("long.wav", wav(6.0, 1.0), &[], StatusCode::UNPROCESSABLE_ENTITY, "too_long"),
        ("large.wav", vec![1; 250_000], &[], StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
        ("a.ds2", b"\x03ds2\0\0\0\0".to_vec(), &[], StatusCode::UNPROCESSABLE_ENTITY, "closed_format"),
        ("a.wav", wav(1.0, 1.0), &[("engine", "nonsense")], StatusCode::UNPROCESSABLE_ENTITY, "unknown_engine"),
        ("a.wav", wav(1.0, 1.0), &[("engine", "command")], StatusCode::SERVICE_UNAVAILABLE, "engine_unavailable"),
        ("a.wav", wav(1.0, 1.0), &[("language", "../x")], StatusCode::BAD_REQUEST, "bad_request"),
        ("a.wav", wav(1.0, 1.0), &[("title", &"x".repeat(201))], StatusCode::UNPROCESSABLE_ENTITY, "invalid_title"),
    ];
    for (name, bytes, fields, status, code) in cases {
        let (got_status, got_code, message) = error(me.upload(name, bytes, fields).await).await;
        assert_eq!((got_status, got_code.as_str()), (status, code), "{name}: {message}");
    }
    let nothing = me.send(me.request("POST", "/api/v1/sessions").body("x")).await;
    assert_eq!(error(nothing).await.1, "bad_request");
    assert_eq!(me.json("/api/v1/sessions").await["sessions"].as_array().unwrap().len(), 0);
    let left = std::fs::read_dir(app.folder.path().join("recordings")).unwrap().count();
    assert_eq!(left, 0, "recordings that were refused are still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_language_that_the_engine_does_not_know_is_refused_before_the_recording() {
    let app =
        TestApp::with(&["--workers", "0", "--engine", "pocketsphinx", "--openai-url", "http://127.0.0.1:9/v1"]).await;
    let me = app.visitor();
    let engines = me.json("/api/v1/engines").await;
    let of = |id: &str| engines.as_array().unwrap().iter().find(|engine| engine["id"] == id).unwrap().clone();
    assert_eq!(
        (&of("pocketsphinx")["languages"], &of("openai")["languages"]),
        (&serde_json::json!(["en"]), &Value::Null)
    );
    let send = async |language: &str, engine: &str, bytes: Vec<u8>| {
        let fields = [("language", language), ("engine", engine)];
        me.upload("a.wav", bytes, &fields).await
    };
    // Not a recording, and refused before anybody looks at it.
    let (status, code, message) = error(send("de-AT", "pocketsphinx", b"no recording".to_vec()).await).await;
    assert_eq!((status, code.as_str()), (StatusCode::UNPROCESSABLE_ENTITY, "unknown_language"));
    assert_eq!(
        message,
        "PocketSphinx with its model 'en-us' knows only English, not German. Choose the engine OpenAI API."
    );
    let (_, code, message) = error(send("tlh", "pocketsphinx", wav(1.0, 1.0)).await).await;
    assert!(code == "unknown_language" && message.contains("'tlh'"), "{message}");
    // The default engine is meant if none is named.
    let (_, code, _) = error(me.upload("a.wav", wav(1.0, 1.0), &[("language", "de")]).await).await;
    assert_eq!(code, "unknown_language");
    for (language, engine) in [("en-US", "pocketsphinx"), ("", "pocketsphinx"), ("nb-NO", "openai"), ("tlh", "openai")]
    {
        assert_eq!(send(language, engine, wav(1.0, 1.0)).await.status(), StatusCode::CREATED, "{language} {engine}");
    }
    // An engine that is named after the recording counts too.
    let file = multipart::Part::bytes(wav(1.0, 1.0)).file_name("a.wav");
    let form = multipart::Form::new().text("language", "de").part("file", file).text("engine", "openai");
    let response = me.send(me.request("POST", "/api/v1/sessions").multipart(form)).await;
    assert_eq!(response.status(), StatusCode::CREATED);
}

/// A recording as of a telephone: 8 kHz.
fn narrow_band(seconds: f64) -> Vec<u8> {
    let mut bytes = wav(seconds / 2.0, 5000.0);
    bytes[24..28].copy_from_slice(&8000u32.to_le_bytes());
    bytes[28..32].copy_from_slice(&16_000u32.to_le_bytes());
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_telephone_recording_has_a_remark_with_pocketsphinx() {
    let app = TestApp::with(&["--engine", "pocketsphinx"]).await;
    let me = app.visitor();
    for (recording, remarks) in [(narrow_band(2.0), 1), (wav(1.0, 5000.0), 0)] {
        let id = me.session("call.wav", recording, &[]).await;
        me.wait(&id, "completed").await;
        let session = me.json(&format!("/api/v1/sessions/{id}")).await;
        let found = session["status"]["remarks"].as_array().cloned().unwrap_or_default();
        assert_eq!(found.len(), remarks, "{session}");
        assert!(found.iter().all(|remark| remark["code"] == "narrow_band"), "{found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_files_arrive_as_they_were_and_leave_so() {
    let app = idle(&[]).await;
    let me = app.visitor();
    let session_of = async |head: &[u8]| -> Value {
        let body = [
            b"--x\r\nContent-Disposition: form-data; name=\"file\"; ",
            head,
            b"\r\nContent-Type: audio/wav\r\n\r\n",
            &wav(1.0, 5000.0),
            b"\r\n--x--\r\n",
        ]
        .concat();
        let request = me.request("POST", "/api/v1/sessions");
        let response = me.send(request.header("content-type", "multipart/form-data; boundary=x").body(body)).await;
        assert_eq!(response.status(), StatusCode::CREATED, "{}", String::from_utf8_lossy(head));
        response.json().await.unwrap()
    };
    let heads: [(&[u8], &str); 9] = [
        // As browsers write them.
        (br#"filename="Interview %22Anna%22 & Bob.mp3""#, r#"Interview "Anna" & Bob.mp3"#),
        (br#"filename="two%0D%0Alines.mp3""#, "two lines.mp3"),
        (br#"filename="100%25 %41.mp3""#, "100%25 %41.mp3"),
        (br#"filename="AC\DC.mp3""#, r"AC\DC.mp3"),
        ("filename=\"naïve 日本語.mp3\"".as_bytes(), "naïve 日本語.mp3"),
        // As programs do.
        (br#"filename="Interview \"Anna\" & Bob.mp3""#, r#"Interview "Anna" & Bob.mp3"#),
        (b"filename=\"na\xefve.mp3\"", "naïve.mp3"),
        (b"filename*=UTF-8''na%C3%AFve%20%22%5C%25%22.mp3", r#"naïve "\%".mp3"#),
        (br#"filename="na_ve.mp3"; filename*=UTF-8''na%C3%AFve.mp3"#, "naïve.mp3"),
    ];
    for (head, name) in heads {
        let session = session_of(head).await;
        assert_eq!((&session["media"]["file_name"], &session["title"]), (&Value::from(name), &Value::from(name)));
        let path = format!("/api/v1/sessions/{}", session["id"].as_str().unwrap());
        let stem = name.strip_suffix(".mp3").unwrap();
        for (file, name) in [("audio", name.to_owned()), ("transcript.txt", format!("{stem}.txt"))] {
            let answer = me.get(&format!("{path}/{file}")).await;
            let disposition = answer.headers()["content-disposition"].to_str().unwrap();
            let encoded = disposition.split_once("filename*=UTF-8''").unwrap().1;
            assert_eq!(percent_encoding::percent_decode_str(encoded).decode_utf8().unwrap(), name, "{disposition}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_its_owners_on_every_route() {
    let app = counting(0.0).await;
    let (me, you) = (app.visitor(), app.visitor());
    let id = me.session("a.wav", wav(1.0, 1.0), &[]).await;
    me.wait(&id, "completed").await;
    assert_eq!(you.json("/api/v1/sessions").await["sessions"].as_array().unwrap().len(), 0);
    assert_eq!(you.json("/api/v1/status").await["statuses"].as_array().unwrap().len(), 0);
    let found = async |who: &Visitor| who.json("/api/v1/search?q=word").await["sessions"].as_array().unwrap().len();
    assert_eq!((found(&me).await, found(&you).await), (1, 0));
    for path in [
        "",
        "/status",
        "/status/stream",
        "/segments",
        "/waveform",
        "/audio",
        "/playable",
        "/transcript.txt",
        "/transcript.json",
        "/transcript.docx",
    ] {
        let path = format!("/api/v1/sessions/{id}{path}");
        assert_eq!(you.get(&path).await.status(), StatusCode::NOT_FOUND, "{path}");
        assert_eq!(me.get(&path).await.status(), StatusCode::OK, "{path}");
    }
    for action in ["cancel", "retry"] {
        let path = format!("/api/v1/sessions/{id}/{action}");
        assert_eq!(you.post(&path).await.status(), StatusCode::NOT_FOUND);
        assert_eq!(me.post(&path).await.status(), StatusCode::OK);
    }
    let path = format!("/api/v1/sessions/{id}");
    assert_eq!(you.send(you.request("DELETE", &path)).await.status(), StatusCode::NOT_FOUND);
    let rename = you.request("PATCH", &path).json(&serde_json::json!({"title": "mine"}));
    assert_eq!(you.send(rename).await.status(), StatusCode::NOT_FOUND);
    // A forged cookie is no one's.
    let cookie = me.cookie().await;
    let (name, value) = cookie.split_once('=').unwrap();
    let (signature, owner) = value.split_at(44);
    let flipped = if signature.starts_with('A') { "B" } else { "A" };
    for forged in ["hark_owner=abc".to_owned(), format!("{name}={owner}"), format!("{name}={flipped}{}", &value[1..])] {
        let request = reqwest::Client::new().get(format!("{}{path}", app.url)).header("cookie", &forged);
        assert_eq!(request.send().await.unwrap().status(), StatusCode::NOT_FOUND, "{forged}");
    }
    assert_eq!(me.send(me.request("DELETE", &path)).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(me.get(&path).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(std::fs::read_dir(app.folder.path().join("recordings")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_player_can_seek() {
    let app = counting(0.0).await;
    let me = app.visitor();
    let bytes = wav(1.0, 9000.0);
    let id = me.session("a.wav", bytes.clone(), &[]).await;
    let path = format!("/api/v1/sessions/{id}/audio");
    let whole = me.get(&path).await;
    assert_eq!(whole.headers()["accept-ranges"], "bytes");
    assert_eq!(whole.headers()["content-type"], "audio/wav");
    let etag = whole.headers()["etag"].clone();
    assert_eq!(whole.bytes().await.unwrap(), bytes);
    let part = me.send(me.request("GET", &path).header("range", "bytes=100-199")).await;
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(part.headers()["content-range"], format!("bytes 100-199/{}", bytes.len()).as_str());
    assert_eq!(part.bytes().await.unwrap(), &bytes[100..200]);
    let outside = me.send(me.request("GET", &path).header("range", "bytes=9999999-")).await;
    assert_eq!(outside.headers()["content-range"], format!("bytes */{}", bytes.len()).as_str());
    assert_eq!(outside.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    let known = me.send(me.request("GET", &path).header("if-none-match", etag)).await;
    assert_eq!(known.status(), StatusCode::NOT_MODIFIED);
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_stops_the_engine_and_retry_goes_on_after_the_last_segment() {
    let app = counting(0.25).await;
    let me = app.visitor();
    let id = me.session("a.wav", wav(12.0, 5000.0), &[]).await;
    let path = format!("/api/v1/sessions/{id}");
    loop {
        let status = me.json(&format!("{path}/status")).await;
        if status["segments"].as_u64().unwrap() >= 3 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let cancelled: Value = me.post(&format!("{path}/cancel")).await.json().await.unwrap();
    assert_eq!(cancelled["status"]["status"], "cancelled");
    let kept = cancelled["status"]["segments"].as_u64().unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(800)).await;
    let later = me.json(&format!("{path}/status")).await;
    assert_eq!((&later["status"], &later["segments"]), (&Value::from("cancelled"), &Value::from(kept)), "it went on");
    me.post(&format!("{path}/retry")).await;
    let done = me.wait(&id, "completed").await;
    assert_eq!(done["attempt"], 2);
    assert!(done["version"].as_u64() > later["version"].as_u64());
    let segments = me.json(&format!("{path}/segments")).await;
    let segments = segments["segments"].as_array().unwrap();
    assert_eq!(segments.len(), 12);
    for (n, segment) in segments.iter().enumerate() {
        assert_eq!((&segment["index"], &segment["start"]), (&Value::from(n), &Value::from(n as f64)));
    }
}

/// A choice of other channels is two changes, of which the second is made although the client has gone before the first.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_made_to_its_end_though_its_client_has_gone() {
    let app = counting(0.0).await;
    let me = app.visitor();
    let id = me.session("a.wav", wav(2.0, 5000.0), &[]).await;
    me.wait(&id, "completed").await;
    let url = format!("sqlite://{}", app.folder.path().join("hark.sqlite").display());
    let mut database = sqlx::SqliteConnection::connect(&url).await.unwrap();
    let (address, body) = (app.url.strip_prefix("http://").unwrap(), r#"{"channels":"split"}"#);
    let head = format!(
        "POST /api/v1/sessions/{id}/retry HTTP/1.1\r\nHost: {address}\r\nCookie: {}\r\nContent-Length: {}\r\n\r\n",
        me.cookie().await,
        body.len()
    );
    // Of a client that goes before its request was read nothing is done. How long that takes, nobody tells; so the client stays
    // longer each time.
    for stays_ms in [50, 200, 1000, 4000] {
        // Whoever writes waits.
        sqlx::query("BEGIN IMMEDIATE").execute(&mut database).await.unwrap();
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        time::sleep(Duration::from_millis(stays_ms)).await;
        client.shutdown().await.unwrap();
        // The server has seen that the client has gone when it closes the connection.
        let mut answer = Vec::new();
        let read = time::timeout(TIMEOUT, client.read_to_end(&mut answer)).await;
        let _ = read.expect("the server closes the connection");
        assert!(answer.is_empty(), "it was answered: {}", String::from_utf8_lossy(&answer));
        sqlx::query("ROLLBACK").execute(&mut database).await.unwrap();
        for _ in 0..50 {
            if me.json(&format!("/api/v1/sessions/{id}")).await["channels"] == "split" {
                me.wait(&id, "completed").await;
                return;
            }
            time::sleep(Duration::from_millis(20)).await;
        }
    }
    panic!("the session never has the other channels");
}

/// The lines of a session: where each begins, its speaker and its text.
async fn lines(me: &Visitor, id: &str) -> Vec<(f64, Option<u64>, String)> {
    let segments = me.json(&format!("/api/v1/sessions/{id}/segments")).await;
    let line = |segment: &Value| {
        let text = segment["text"].as_str().unwrap().to_owned();
        ((segment["start"].as_f64().unwrap() * 10.0).round() / 10.0, segment["speaker"].as_u64(), text)
    };
    segments["segments"].as_array().unwrap().iter().map(line).collect()
}

/// What [`pitch_engine`] hears of [`conversation`], each speaker apart.
fn conversation_lines(seconds: usize) -> Vec<(f64, Option<u64>, String)> {
    let line = |start: usize| {
        let (speaker, height) = if start.is_multiple_of(4) { (1, "low") } else { (2, "high") };
        (start as f64, Some(speaker), height.to_owned())
    };
    (0..seconds).step_by(2).map(line).collect()
}

async fn two_speakers_have_lines_of_their_own(url: Option<&str>) {
    let folder = tempfile::TempDir::new().unwrap();
    let command = pitch_engine(folder.path(), 0.02);
    let flags = ["--engine", "command", "--engine-command", &command];
    let flags: Vec<&str> = flags.into_iter().chain(url.iter().flat_map(|url| ["--database-url", url])).collect();
    let app = TestApp::on(folder, &flags).await;
    let me = app.visitor();
    let id = me.session("call.wav", conversation(14), &[("channels", "split")]).await;
    let path = format!("/api/v1/sessions/{id}");
    let events = Sse::new(me.get(&format!("{path}/status/stream")).await).rest().await;
    me.wait(&id, "completed").await;
    assert_eq!(lines(&me, &id).await, conversation_lines(14));
    assert_eq!(me.json(&path).await["channels"], "split");
    // The stream had the same lines in the same order, and progress that never fell.
    let streamed: Vec<Value> = events.iter().filter(|e| e.event == "segment").map(|e| e.json()).collect();
    let streamed: Vec<_> = streamed.iter().map(|s| (s["index"].as_u64(), s["speaker"].as_u64())).collect();
    let expected: Vec<_> = (0..7).map(|n| (Some(n), Some(n % 2 + 1))).collect();
    assert_eq!(streamed, expected);
    let done: Vec<f64> = events.iter().filter_map(|e| e.json()["duration_processed"].as_f64()).collect();
    assert!(done.is_sorted() && done.last() == Some(&14.0), "{done:?}");
    let text = |format: &str| {
        let path = format!("{path}/transcript.{format}");
        let me = &me;
        async move { me.get(&path).await.text().await.unwrap() }
    };
    assert!(text("txt").await.starts_with("Speaker 1: low\nSpeaker 2: high\nSpeaker 1: low\n"));
    assert!(text("srt").await.contains("\nSpeaker 2: high\n"));
    assert!(text("vtt").await.contains("\n<v Speaker 2>high\n"));
    let json: Value = serde_json::from_str(&text("json").await).unwrap();
    assert_eq!((&json["segments"][1]["speaker"], &json["session"]["channels"]), (&2.into(), &"split".into()));
    let page = me.get(&format!("/sessions/{id}")).await.text().await.unwrap();
    assert!(page.contains("Speaker 2") && page.contains("Two speakers, one on each channel"), "{page}");

    // The same recording without the option has the mix, without speakers.
    let mixed = me.session("call.wav", conversation(8), &[]).await;
    me.wait(&mixed, "completed").await;
    let lines = lines(&me, &mixed).await;
    assert!(!lines.is_empty() && lines.iter().all(|(_, speaker, _)| speaker.is_none()), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_speakers_have_lines_of_their_own_on_sqlite() {
    two_speakers_have_lines_of_their_own(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_speakers_have_lines_of_their_own_on_postgresql() {
    let server = Postgres::start();
    two_speakers_have_lines_of_their_own(Some(&server.database("hark"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_speakers_are_taken_up_where_each_was() {
    let folder = tempfile::TempDir::new().unwrap();
    let command = pitch_engine(folder.path(), 0.15);
    let flags = ["--engine", "command", "--engine-command", &command, "--channels", "split"];
    let app = TestApp::on(folder, &flags).await;
    let me = app.visitor();
    let id = me.session("call.wav", conversation(24), &[]).await;
    let path = format!("/api/v1/sessions/{id}");
    for stopped in [3, 7] {
        while me.json(&format!("{path}/status")).await["segments"].as_u64().unwrap() < stopped {
            time::sleep(Duration::from_millis(50)).await;
        }
        me.post(&format!("{path}/cancel")).await;
        me.post(&format!("{path}/retry")).await;
    }
    let done = me.wait(&id, "completed").await;
    assert!(done["attempt"].as_u64().unwrap() >= 3);
    assert_eq!(lines(&me, &id).await, conversation_lines(24));
}

#[tokio::test(flavor = "multi_thread")]
async fn channels_are_split_only_where_two_speak() {
    let folder = tempfile::TempDir::new().unwrap();
    let command = pitch_engine(folder.path(), 0.0);
    let flags = ["--engine", "command", "--engine-command", &command, "--channels", "split"];
    let app = TestApp::on(folder, &flags).await;
    let me = app.visitor();
    let beep = || (0..64_000).map(|n| if n / 16_000 % 2 == 0 { ((n as f32 * 0.1).sin() * 6000.0) as i16 } else { 0 });
    let silence = || std::iter::repeat_n(0, 64_000);
    for (recording, says) in [
        (stereo_wav(beep(), beep()), "Both channels hold the same sound"),
        (stereo_wav(silence(), beep()), "Only channel 2 of 2 has sound"),
        (wav(2.0, 5000.0), "only one channel"),
    ] {
        let id = me.session("a.wav", recording, &[]).await;
        let done = me.wait(&id, "completed").await;
        assert_eq!(done["remarks"][0]["code"], "channels_together", "{done}");
        assert!(done["remarks"][0]["message"].as_str().unwrap().contains(says), "{done}");
        let lines = lines(&me, &id).await;
        let expected = if says.contains("one channel") { 1 } else { 2 };
        assert!(lines.len() == expected && lines.iter().all(|(_, speaker, _)| speaker.is_none()), "{lines:?}");
    }
    // An upload may say otherwise than the server.
    let id = me.session("call.wav", conversation(4), &[("channels", "mix")]).await;
    assert!(me.wait(&id, "completed").await["remarks"].is_null());
    assert_eq!(me.json(&format!("/api/v1/sessions/{id}")).await["channels"], "mix");
    let (status, code, message) = error(me.upload("call.wav", conversation(4), &[("channels", "left")]).await).await;
    assert_eq!((status, &*code), (StatusCode::BAD_REQUEST, "bad_request"));
    assert!(message.contains("'left'") && message.contains("'split'"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_voices_on_two_channels_are_heard_apart() {
    let app = TestApp::with(&["--channels", "split"]).await;
    let me = app.visitor();
    let said = ["the weather will be cold and cloudy in the morning", "seven people are waiting for the train"];
    let samples = |words: &str| -> Vec<i16> {
        let file = speech(words, app.folder.path());
        file[44..].chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect()
    };
    let [first, second] = said.map(samples);
    // One after the other, as in a conversation.
    let pause = |samples: usize| std::iter::repeat_n(0_i16, samples);
    let left: Vec<i16> = first.iter().copied().chain(pause(second.len() + 8_000)).collect();
    let right: Vec<i16> = pause(first.len() + 8_000).chain(second.iter().copied()).collect();
    let id = me.session("call.wav", stereo_wav(left, right), &[]).await;
    me.wait(&id, "completed").await;
    let lines = lines(&me, &id).await;
    assert!(lines.is_sorted_by(|a, b| a.0 <= b.0), "{lines:?}");
    for (n, said) in said.iter().enumerate() {
        let own = lines.iter().filter(|(_, speaker, _)| *speaker == Some(n as u64 + 1));
        let heard = own.map(|(.., text)| text.as_str()).collect::<Vec<_>>().join(" ");
        let wrong = support::word_error_rate(said, &heard);
        assert!(wrong <= 0.3, "speaker {}: {heard:?}", n + 1);
    }
}

/// A Matroska file with two audio tracks: one has a low tone in its first second, the other a high one in its third.
fn two_tracks(folder: &std::path::Path) -> Vec<u8> {
    let (low, high) = ("if(lt(t,1),0.3*sin(500*PI*t))", "if(gt(t,2),0.3*sin(1500*PI*t))");
    let source = |wave: &str| format!("aevalsrc=exprs='{wave}':s=16000:d=3");
    let file = folder.join("tracks.mka");
    let made = std::process::Command::new("ffmpeg")
        .args(["-loglevel", "error", "-y", "-f", "lavfi", "-i", &source(low), "-f", "lavfi", "-i", &source(high)])
        .args(["-map", "0", "-map", "1", "-c:a", "flac"])
        .arg(&file)
        .status();
    assert!(made.expect("ffmpeg is installed by scripts/setup test").success());
    std::fs::read(file).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_track_is_chosen_with_the_upload_or_afterwards() {
    let folder = tempfile::TempDir::new().unwrap();
    let command = pitch_engine(folder.path(), 0.0);
    let recording = two_tracks(folder.path());
    let app = TestApp::on(folder, &["--engine", "command", "--engine-command", &command]).await;
    let me = app.visitor();
    let heard = async |id: &str| -> Vec<String> { lines(&me, id).await.into_iter().map(|(.., text)| text).collect() };
    for (track, expected) in [("1", &["low"][..]), ("2", &["high"]), ("mix", &["low", "high"])] {
        let id = me.session("film.mka", recording.clone(), &[("track", track)]).await;
        me.wait(&id, "completed").await;
        assert_eq!(heard(&id).await, expected, "{track}");
        assert_eq!(me.json(&format!("/api/v1/sessions/{id}")).await["track"], track);
    }
    let upload = async |fields: &[(&str, &str)]| error(me.upload("film.mka", recording.clone(), fields).await).await;
    for (track, code, says) in
        [("3", "no_such_track", "from 1 to 2"), ("0", "bad_request", "from 1"), ("all", "bad_request", "'mix'")]
    {
        let (status, found, message) = upload(&[("track", track)]).await;
        assert_eq!((status, &*found), (StatusCode::BAD_REQUEST, code), "{message}");
        assert!(message.contains(says), "{message}");
    }
    let (status, _, message) = upload(&[("track", "mix"), ("channels", "split")]).await;
    assert!(status == StatusCode::BAD_REQUEST && message.contains("mixed"), "{message}");

    // Left to Hark, it is the first track, and the page lets its owner choose another one.
    let id = me.session("film.mka", recording.clone(), &[]).await;
    let path = format!("/api/v1/sessions/{id}");
    let done = me.wait(&id, "completed").await;
    assert_eq!((heard(&id).await, &done["segments"]), (vec!["low".to_owned()], &1.into()));
    assert!(done["remarks"][0]["message"].as_str().unwrap().contains("2 audio tracks. Track 1 was heard"), "{done}");
    assert!(done["first_segment"].is_null(), "{done}");
    let session = me.json(&path).await;
    assert_eq!((&session["media"]["tracks"], &session["track"]), (&2.into(), &Value::Null));
    let page = me.get(&format!("/sessions/{id}")).await.text().await.unwrap();
    for words in ["Choose another track", "Track 2", "All tracks, mixed", "Replace the transcript", "gone for good"] {
        assert!(page.contains(words), "{words}");
    }
    let retry = async |body: &str| {
        let request = me.request("POST", &format!("{path}/retry")).header("content-type", "application/json");
        me.send(request.body(body.to_owned())).await
    };
    for (body, code) in [
        (r#"{"track":3}"#, "no_such_track"),
        (r#"{"track":"0"}"#, "bad_request"),
        (r#"{"track":"mix","channels":"split"}"#, "bad_request"),
        (r#"{"channels":"left"}"#, "bad_request"),
        ("track=2", "bad_request"),
    ] {
        let (status, found, message) = error(retry(body).await).await;
        assert_eq!((status, &*found), (StatusCode::BAD_REQUEST, code), "{body}: {message}");
    }
    // Nothing of that changed anything, and neither does a retry without another choice.
    for body in ["", "{}"] {
        let same: Value = retry(body).await.json().await.unwrap();
        assert_eq!((&same["status"]["status"], heard(&id).await), (&"completed".into(), vec!["low".to_owned()]));
    }
    let stranger = app.visitor();
    let theirs = stranger.request("POST", &format!("{path}/retry")).body(r#"{"track":2}"#);
    assert_eq!(stranger.send(theirs).await.status(), StatusCode::NOT_FOUND);

    let again: Value = retry(r#"{"track":2}"#).await.json().await.unwrap();
    assert_eq!((&again["track"], &again["status"]["first_segment"]), (&"2".into(), &1.into()));
    let done = me.wait(&id, "completed").await;
    assert_eq!((heard(&id).await, &done["segments"]), (vec!["high".to_owned()], &2.into()));
    assert!(done["remarks"][0]["message"].as_str().unwrap().contains("Track 2 was heard, as chosen"), "{done}");
    assert_eq!(me.get(&format!("{path}/transcript.txt")).await.text().await.unwrap(), "high\n");
    // A reader of the stream who has seen the old line gets the new one, and no other; and so does a new reader.
    for seen in ["?last_event_id=1.1", ""] {
        let events = Sse::new(me.get(&format!("{path}/status/stream{seen}")).await).rest().await;
        let segments: Vec<Value> = events.iter().filter(|e| e.event == "segment").map(|e| e.json()).collect();
        assert_eq!(segments.len(), 1, "{seen}: {events:?}");
        assert_eq!((&segments[0]["index"], &segments[0]["text"]), (&1.into(), &"high".into()));
    }
    let segments = me.json(&format!("{path}/segments?after=0")).await;
    assert_eq!(segments["segments"][0]["index"], 1);

    // The page's form does the same, also without JavaScript.
    let form = me.request("POST", TranscribeAgain::PATH).header("content-type", "application/x-www-form-urlencoded");
    let form = form.header("accept", "text/html").header("referer", format!("{}/sessions/{id}", app.url));
    let answer = me.send(form.body(format!("id={id}&track=mix"))).await;
    assert!(answer.status().is_success() || answer.status().is_redirection(), "{}", answer.status());
    me.wait(&id, "completed").await;
    assert_eq!(heard(&id).await, ["low", "high"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_paged_searched_and_renamed() {
    let app = counting(0.0).await;
    let me = app.visitor();
    for n in 0..5 {
        me.session("a.wav", wav(0.5, 1.0), &[("title", &format!("Part {n} 100%"))]).await;
    }
    let first = me.json("/api/v1/sessions?limit=2").await;
    assert_eq!(first["sessions"][0]["title"], "Part 4 100%");
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = me.json(&format!("/api/v1/sessions?limit=3&cursor={cursor}")).await;
    assert_eq!(second["sessions"].as_array().unwrap().len(), 3);
    assert!(second["next_cursor"].is_null());
    let found = me.json("/api/v1/sessions?q=pART%203").await;
    assert_eq!(found["sessions"].as_array().unwrap().len(), 1);
    assert_eq!(me.json("/api/v1/sessions?q=0%25").await["sessions"].as_array().unwrap().len(), 5);
    assert_eq!(me.json("/api/v1/sessions?q=_art").await["sessions"].as_array().unwrap().len(), 0);
    let id = found["sessions"][0]["id"].as_str().unwrap();
    let rename =
        me.request("PATCH", &format!("/api/v1/sessions/{id}")).json(&serde_json::json!({"title": " Renamed "}));
    let renamed: Value = me.send(rename).await.json().await.unwrap();
    assert_eq!(renamed["title"], "Renamed");
    assert_eq!(me.get("/api/v1/sessions?cursor=x").await.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_out_of_their_range_are_refused_with_it() {
    let app = idle(&[]).await;
    let me = app.visitor();
    for (address, range) in [
        ("/api/v1/sessions?limit=0", "limit: must be a whole number from 1 to 200."),
        ("/api/v1/sessions?limit=201", "limit: must be a whole number from 1 to 200."),
        ("/api/v1/sessions?limit=x", "limit: must be a whole number from 1 to 200."),
        ("/api/v1/search?q=a&limit=51", "limit: must be a whole number from 1 to 50."),
        ("/api/v1/search", "missing field `q`."),
    ] {
        let (status, code, message) = error(me.get(address).await).await;
        assert_eq!((status, code.as_str()), (StatusCode::BAD_REQUEST, "bad_request"), "{address}: {message}");
        assert_eq!(message, format!("The query can't be read: {range}"), "{address}");
    }
    assert_eq!(me.get("/api/v1/sessions?limit=200").await.status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_method_that_an_address_does_not_take_is_answered_with_those_that_it_takes() {
    let app = idle(&[]).await;
    let me = app.visitor();
    for (method, path, takes) in [
        ("DELETE", "/api/v1/sessions", "GET,HEAD,POST"),
        ("GET", "/api/v1/status/batch", "POST"),
        ("POST", "/healthz", "GET,HEAD"),
        // One that no address takes.
        ("PROPFIND", "/api/v1/sessions", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
    ] {
        let answer = me.send(me.request(method, path)).await;
        assert_eq!(answer.headers()["allow"], takes, "{method} {path}");
        assert_eq!(answer.headers()["cache-control"], "no-store", "{method} {path}");
        assert_eq!(error(answer).await.1, "method_not_allowed", "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_has_at_most_sixteen_fields() {
    let app = idle(&[]).await;
    let me = app.visitor();
    for (others, expected) in [(15, StatusCode::CREATED), (16, StatusCode::BAD_REQUEST)] {
        let file = multipart::Part::bytes(wav(0.1, 1.0)).file_name("a.wav");
        let form = (0..others).fold(multipart::Form::new(), |form, n| form.text(format!("later{n}"), "x"));
        let sent = me.request("POST", "/api/v1/sessions").multipart(form.part("file", file));
        assert_eq!(me.send(sent).await.status(), expected, "{others} fields and the file");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_filtered_and_ordered() {
    let app = counting(0.0).await;
    let me = app.visitor();
    let mut ids = Vec::new();
    for (title, seconds, language) in [("b", 2.0, "de"), ("C", 1.0, "en"), ("a", 3.0, "de")] {
        let id = me.session("a.wav", wav(seconds, 1.0), &[("title", title), ("language", language)]).await;
        me.wait(&id, "completed").await;
        ids.push(id);
    }
    let titles = async |query: &str| -> String {
        let list = me.json(&format!("/api/v1/sessions?{query}")).await;
        let titles = list["sessions"].as_array().unwrap().iter().map(|session| session["title"].as_str().unwrap());
        titles.collect::<Vec<_>>().join("")
    };
    for (query, expected) in [
        ("order=oldest", "bCa"),
        ("order=longest", "abC"),
        ("order=title", "abC"),
        ("state=completed&language=de", "ab"),
        ("state=active", ""),
        ("since=2020-01-01&q=c", "C"),
        ("until=2020-01-01", ""),
        ("order=&state=", "aCb"),
    ] {
        assert_eq!(titles(query).await, expected, "{query}");
    }
    let first = me.json("/api/v1/sessions?order=title&limit=2").await;
    let cursor = first["next_cursor"].as_str().unwrap();
    assert_eq!(titles(&format!("order=title&cursor={cursor}")).await, "C");
    for (query, part) in [
        (format!("cursor={cursor}"), "belongs to the order 'title', and the request asks for 'newest'"),
        ("order=title&cursor=title.x".to_owned(), "must be the next_cursor"),
        ("state=done".to_owned(), "'state' can't be 'done'; it must be active, completed, failed or cancelled."),
        ("order=best".to_owned(), "'order' can't be 'best'"),
        ("since=monday".to_owned(), "'since' can't be 'monday'"),
        ("language=%22".to_owned(), "'language' can't be"),
    ] {
        let (status, code, message) = error(me.get(&format!("/api/v1/sessions?{query}")).await).await;
        assert_eq!((status, &*code), (StatusCode::BAD_REQUEST, "bad_request"));
        assert!(message.contains(part), "{message}");
    }

    // The page ignores what it can't read, and shows how each text begins.
    let page = me.get("/?state=done&order=title&language=de").await.text().await.unwrap();
    let places: Vec<_> = ids.iter().map(|id| page.find(&format!("data-session=\"{id}\""))).collect();
    assert!(places[2].unwrap() < places[0].unwrap() && places[1].is_none(), "{places:?}");
    assert_eq!(page.matches("data-testid=\"beginning\"").count(), 2);
    assert!(page.contains(">word at 0 word at 1 word at 2</p>"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_session_has_the_first_words_of_its_text_once() {
    let app = counting(0.2).await;
    let me = app.visitor();
    let id = me.session("a.wav", wav(60.0, 1.0), &[]).await;
    support::until("its third line", async || {
        let status = me.json(&format!("/api/v1/sessions/{id}/status")).await;
        assert_ne!(status["status"], "completed", "it still runs");
        (status["segments"].as_u64() >= Some(3)).then_some(())
    })
    .await;
    let page = me.get("/").await.text().await.unwrap();
    assert!(page.contains(">word at 0 word at 1 word at 2"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_sessions_are_changed_by_one_form() {
    let app = idle(&[]).await;
    let (me, other) = (app.visitor(), app.visitor());
    let mine = [
        me.session("a.wav", wav(0.5, 1.0), &[("title", "one")]).await,
        me.session("a.wav", wav(0.5, 1.0), &[("title", "two")]).await,
    ];
    let theirs = other.session("a.wav", wav(0.5, 1.0), &[("title", "theirs")]).await;
    let act = async |action: &str, ids: &[&str], accept: &str| {
        let form: Vec<String> = ids.iter().map(|id| format!("ids%5B%5D={id}")).collect();
        let request =
            me.request("POST", ActOnSessions::PATH).header("content-type", "application/x-www-form-urlencoded");
        let request = request.header("accept", accept).header("referer", format!("{}/", app.url));
        me.send(request.body(format!("action={action}&{}", form.join("&")))).await
    };
    let json = "application/json";
    let answer: Value = act("cancel", &[&mine[0], &theirs, &mine[1]], json).await.json().await.unwrap();
    assert_eq!(answer[0]["session"]["status"]["status"], "cancelled");
    assert_eq!((&answer[1]["session"], &answer[1]["error"]["code"]), (&Value::Null, &Value::from("not_found")));
    assert_eq!(answer[2]["session"]["status"]["status"], "cancelled");
    assert_eq!(other.json(&format!("/api/v1/sessions/{theirs}")).await["status"]["status"], "queued");
    for id in &mine {
        assert_eq!(me.json(&format!("/api/v1/sessions/{id}")).await["status"]["status"], "cancelled");
    }

    let answer: Value = act("retry", &[&mine[0]], json).await.json().await.unwrap();
    assert_eq!(answer[0]["session"]["status"]["status"], "queued");
    for (action, ids) in [("cancel", &[][..]), ("stop", &[&*mine[0]]), ("cancel", &[&*mine[0]; 201])] {
        assert_eq!(act(action, ids, json).await.status(), StatusCode::BAD_REQUEST, "{action}");
    }

    // A plain form has one answer for all: the next page, by a cookie that the browser sends along.
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let owner = me.cookie().await;
    let form = client.post(format!("{}{}", app.url, ActOnSessions::PATH)).header("cookie", &owner);
    let form = form.header("accept", "text/html").header("content-type", "application/x-www-form-urlencoded");
    let form = form.body(format!("action=delete&ids%5B%5D={}&ids%5B%5D={theirs}", mine[0]));
    let answer = form.send().await.unwrap();
    assert_eq!((answer.status(), answer.headers()["location"].to_str().unwrap()), (StatusCode::SEE_OTHER, "/"));
    let notice = answer.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let page = client.get(&app.url).header("cookie", format!("{owner}; {notice}")).send().await.unwrap();
    let page = page.text().await.unwrap();
    assert!(page.contains("1 of 2 could not be deleted."), "{page}");
    assert!(!page.contains(&mine[0]) && page.contains(&mine[1]));
    assert_eq!(other.get(&format!("/api/v1/sessions/{theirs}")).await.status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_of_a_browser_are_answered_with_pages_and_other_sites_with_nothing() {
    let app = counting(0.0).await;
    let me = app.visitor();
    let cookie = app.visitor().cookie().await;
    let form = |accept: &str, bytes: Vec<u8>| {
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let part = reqwest::multipart::Part::bytes(bytes).file_name("a.wav");
        client
            .post(format!("{}/api/v1/sessions", app.url))
            .header("accept", accept.to_owned())
            .header("cookie", &cookie)
            .multipart(reqwest::multipart::Form::new().part("file", part))
    };
    let page = form("text/html,*/*", wav(0.5, 1.0)).send().await.unwrap();
    assert_eq!(page.status(), StatusCode::SEE_OTHER);
    assert!(page.headers()["location"].to_str().unwrap().starts_with("/sessions/"));
    let refused = form("text/html", b"no sound".to_vec()).send().await.unwrap();
    assert_eq!((refused.status(), refused.headers()["location"].to_str().unwrap()), (StatusCode::SEE_OTHER, "/upload"));
    let foreign = form("*/*", wav(0.5, 1.0)).header("origin", "https://evil.example").send().await.unwrap();
    assert_eq!(foreign.status(), StatusCode::FORBIDDEN);
    let cookie = me.get("/api/v1/sessions").await.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"), "{cookie}");
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_can_look_in() {
    let app = counting(0.0).await;
    let me = app.visitor();
    let id = me.session("a.wav", wav(0.5, 1.0), &[]).await;
    me.wait(&id, "completed").await;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(me.get(path).await.status(), StatusCode::OK);
    }
    let health = me.json("/api/v1/health/sessions").await;
    let expected = serde_json::json!({
        "status": "healthy", "hanging": 0, "longest_hanging_secs": null,
        "queued": 0, "processing": 0, "completed": 1, "failed": 0, "cancelled": 0,
        "long_running": 0, "stalled": 0, "waiting_for_worker": 0, "oldest_queued_secs": null,
    });
    assert_eq!(health, expected);
    let metrics = me.get("/metrics").await.text().await.unwrap();
    for name in [
        "hark_sessions_created_total",
        "hark_sessions{status=\"queued\"}",
        "hark_sessions_long_running",
        "hark_sessions_stalled",
        "hark_sessions_waiting_for_worker",
        "hark_queue_oldest_seconds",
    ] {
        assert!(metrics.contains(&format!("\n{name} ")), "{name} is missing in {metrics}");
    }
    let api = me.json("/api/openapi.json").await;
    for path in ["/api/v1/sessions", "/api/v1/status/stream", "/api/v1/sessions/{id}/transcript.{format}"] {
        assert!(api["paths"][path].is_object(), "{path} is not described");
    }
    let (status, code, _) = error(me.get("/api/v1/nothing").await).await;
    assert_eq!((status, code.as_str()), (StatusCode::NOT_FOUND, "not_found"));
}

async fn report_as(visitor: &Visitor, report: impl ToString) -> reqwest::Response {
    visitor.send(visitor.request("POST", "/api/v1/reports").body(report.to_string())).await
}

/// The same from another address, as a proxy tells it.
async fn report_from(visitor: &Visitor, address: &str) -> StatusCode {
    let request = visitor.request("POST", "/api/v1/reports").header("x-forwarded-for", address);
    visitor.send(request.body("{}")).await.status()
}

/// What pages have reported by now. The recorder belongs to the process, so no other test may use the same arm.
async fn client_series(visitor: &Visitor, arm: &str) -> BTreeMap<String, f64> {
    let metrics = visitor.get("/metrics").await.text().await.unwrap();
    let label = format!("arm=\"{arm}\"");
    let ours = metrics.lines().filter(|line| line.starts_with("hark_client_") && line.contains(&label));
    ours.filter_map(|line| line.rsplit_once(' '))
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

/// What a body has brought until nothing comes for a while.
async fn received(response: &mut reqwest::Response) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Ok(Ok(Some(chunk))) = tokio::time::timeout(Duration::from_secs(1), response.chunk()).await {
        bytes.extend_from_slice(&chunk);
    }
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn only_reports_of_pages_that_were_seen_count_and_for_the_time_since() {
    let app = TestApp::with(&["--max-reports-per-address", "60", "--trusted-proxies", "127.0.0.1"]).await;
    let (me, other) = (app.visitor(), app.visitor());
    let (page, unseen, of_other) = (me.page().await, me.page().await, other.page().await);
    let stream = |visitor: &Visitor, page: &str| {
        let path = format!("/api/v1/status/stream?page={page}&compress=gzip");
        visitor.request("GET", &path).header("accept-encoding", "gzip")
    };
    let mut open = me.send(stream(&me, &page)).await;
    let mut open_of_other = other.send(stream(&other, &of_other)).await;
    let delays = |count: u32| {
        let mut delays = vec![0; 15];
        delays[1] = count;
        delays
    };
    let report = |page: &str| {
        serde_json::json!({
            "page": page, "first": true, "fell_back": true,
            "mode_ms": {"live": 700, "polling": 0, "connecting": 300, "offline": 0},
            "connects": 2, "mended": 1, "failures": {"error": 1}, "byes": {"lifetime": 1},
            "first_event": delays(2), "delivery_live": delays(7), "delivery_polling": delays(0),
            "requests": {"stream": 2, "poll": 1, "segments": 3},
        })
    };
    // All bytes that the two pages get, packed as they are.
    let bytes = received(&mut open).await.len() + received(&mut open_of_other).await.len();
    let before = client_series(&me, "stream").await;

    // Whoever has nothing but the address of the server; no page; another's; one that was never seen.
    assert_eq!(report_as(&app.visitor(), report("")).await.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(report_as(&app.visitor(), report(&page)).await.status(), StatusCode::UNPROCESSABLE_ENTITY);
    // A page may be left before its stream has reached the server, so that isn't held against it.
    assert_eq!(report_as(&me, report(&unseen)).await.status(), StatusCode::NO_CONTENT);
    for token in ["", &of_other, &page.replace(|c: char| c != '0', "0")] {
        let (status, code, message) = error(report_as(&me, report(token)).await).await;
        assert_eq!((status, code.as_str()), (StatusCode::UNPROCESSABLE_ENTITY, "invalid_report"), "{token}");
        assert!(message.contains("isn't counted"), "{message}");
    }
    // What this page can't have seen: more time than there was, polls, what isn't a report.
    let mut forged = vec!["{".to_owned(), "x".repeat(9_000)];
    for (field, value) in [("live", 86_400_000), ("offline", 60_000)] {
        let mut report = report(&page);
        report["mode_ms"][field] = value.into();
        forged.push(report.to_string());
    }
    let mut polling = report(&page);
    polling["mode_ms"]["polling"] = 500.into();
    assert_eq!(report_as(&me, polling.to_string()).await.status(), StatusCode::NO_CONTENT);
    let mut absurd = report(&page);
    absurd["delivery_live"] = delays(1_000_000).into();
    forged.push(absurd.to_string());
    for report in forged {
        let (status, code, _) = error(report_as(&me, &report).await).await;
        assert_eq!((status, code.as_str()), (StatusCode::UNPROCESSABLE_ENTITY, "invalid_report"), "{report}");
    }
    assert_eq!(client_series(&me, "stream").await, before);

    // The page itself.
    assert_eq!(report_as(&me, report(&page)).await.status(), StatusCode::NO_CONTENT);
    let after = client_series(&me, "stream").await;
    let grown = |name: &str| after.get(name).unwrap_or(&0.0) - before.get(name).unwrap_or(&0.0);
    for (name, expected) in [
        ("hark_client_visits_total{arm=\"stream\"}", 1.0),
        ("hark_client_fallbacks_total{arm=\"stream\"}", 1.0),
        ("hark_client_mode_milliseconds_total{arm=\"stream\",mode=\"live\"}", 700.0),
        ("hark_client_mode_milliseconds_total{arm=\"stream\",mode=\"connecting\"}", 300.0),
        ("hark_client_connects_total{arm=\"stream\"}", 2.0),
        ("hark_client_failures_total{arm=\"stream\",kind=\"error\",browser=\"other\"}", 1.0),
        ("hark_client_mended_total{arm=\"stream\"}", 1.0),
        ("hark_client_byes_total{arm=\"stream\",reason=\"lifetime\"}", 1.0),
        ("hark_client_delivery_seconds_bucket{arm=\"stream\",mode=\"live\",le=\"0.005\"}", 0.0),
        ("hark_client_delivery_seconds_bucket{arm=\"stream\",mode=\"live\",le=\"0.01\"}", 7.0),
        ("hark_client_delivery_seconds_bucket{arm=\"stream\",mode=\"live\",le=\"0.2\"}", 7.0),
        ("hark_client_delivery_seconds_count{arm=\"stream\",mode=\"live\"}", 7.0),
        ("hark_client_requests_total{arm=\"stream\",kind=\"segments\"}", 3.0),
    ] {
        assert!((grown(name) - expected).abs() < 1e-9, "{name} grew by {} in\n{after:#?}", grown(name));
    }
    let counted = grown("hark_client_received_bytes_total{arm=\"stream\"}");
    assert!(bytes > 40 && (counted - bytes as f64).abs() < 1e-9, "{counted}, {bytes}");

    // The same again weighs nothing: the time is counted already, and so is the visit.
    let again = report_as(&me, report(&page)).await.status();
    assert_eq!(again, StatusCode::NO_CONTENT);
    let twice = client_series(&me, "stream").await;
    for name in ["hark_client_visits_total{arm=\"stream\"}", "hark_client_fallbacks_total{arm=\"stream\"}"] {
        assert_eq!(twice[name], after[name], "{name}");
    }
    let live = "hark_client_mode_milliseconds_total{arm=\"stream\",mode=\"live\"}";
    assert!(twice[live] - after[live] < 700.0, "{twice:#?}");
    let mut refused = StatusCode::NO_CONTENT;
    for _ in 0..10 {
        refused = report_as(&me, report(&page)).await.status();
    }
    assert_eq!(refused, StatusCode::TOO_MANY_REQUESTS, "one page reports without end");
    // What an address may send is limited, whatever the cookies. Somebody elsewhere still can.
    let mut refused = None;
    for _ in 0..100 {
        let answer = report_as(&app.visitor(), "{}").await;
        if answer.status() == StatusCode::TOO_MANY_REQUESTS {
            refused = Some(answer);
            break;
        }
    }
    assert_eq!(refused.expect("an address can't report without end").headers()["retry-after"], "10");
    assert_eq!(report_from(&app.visitor(), "192.0.2.1").await, StatusCode::UNPROCESSABLE_ENTITY);
}

/// The reason of a stream that is nothing but a `bye`, and how long its client should wait, in milliseconds; none if it lives.
async fn bye_of(visitor: &Visitor, query: &str) -> Option<(String, u32)> {
    let mut response = visitor.get(&format!("/api/v1/status/stream{query}")).await;
    assert_eq!(response.status(), StatusCode::OK);
    let text = String::from_utf8(received(&mut response).await).unwrap();
    let reason = text.split_once("event: bye\ndata: {\"reason\":\"")?.1.split('"').next().unwrap();
    let retry = text.rsplit_once("retry: ").unwrap().1.lines().next().unwrap();
    Some((reason.to_owned(), retry.parse().unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_are_assigned_to_polling_and_open_pages_follow_the_switch() {
    let app = TestApp::with(&["--control-percent", "100"]).await;
    let me = app.visitor();
    let page = me.page().await;
    assert!(me.get("/").await.text().await.unwrap().contains("<meta name=\"hark-streams\" content=\"off\""));
    let (reason, retry) = bye_of(&me, &format!("?page={page}")).await.expect("the control group has no streams");
    assert!(reason == "polling" && (20_000..=40_000).contains(&retry), "{reason} {retry}");
    assert_eq!(bye_of(&me, "").await, None, "a program is in no arm");
    let before = client_series(&me, "polling").await;
    let polled = me.poll(&page).await;
    assert_eq!(polled.headers()["hark-streams"], "off");
    let bytes = polled.bytes().await.unwrap().len();
    let program = me.get("/api/v1/status").await;
    assert!(!program.headers().contains_key("hark-streams"));

    // Its reports count for the arm. It has no stream, whatever it says.
    let report =
        |mode: &str| serde_json::json!({"page": page, "first": true, "mode_ms": {mode: 100}, "requests": {"poll": 1}});
    assert_eq!(report_as(&me, report("live")).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(client_series(&me, "polling").await, before);
    assert_eq!(report_as(&me, report("polling")).await.status(), StatusCode::NO_CONTENT);
    let after = client_series(&me, "polling").await;
    for (name, expected) in [
        ("hark_client_visits_total{arm=\"polling\"}", 1.0),
        ("hark_client_mode_milliseconds_total{arm=\"polling\",mode=\"polling\"}", 100.0),
        ("hark_client_requests_total{arm=\"polling\",kind=\"poll\"}", 1.0),
        ("hark_client_received_bytes_total{arm=\"polling\"}", bytes as f64),
    ] {
        assert!((after[name] - before.get(name).unwrap_or(&0.0) - expected).abs() < 1e-9, "{name}: {after:#?}");
    }

    // Switched off for all, and on again.
    let folder = app.stop().await;
    let off = TestApp::on(folder, &["--streams", "off"]).await;
    let me = me.at(&off.url);
    for query in [format!("?page={page}"), String::new()] {
        assert_eq!(bye_of(&me, &query).await.map(|bye| bye.0), Some("polling".to_owned()), "{query}");
    }
    assert_eq!(me.poll(&page).await.headers()["hark-streams"], "off");
    let folder = off.stop().await;
    let on = TestApp::on(folder, &["--streams", "on"]).await;
    let me = me.at(&on.url);
    assert_eq!(me.poll(&page).await.headers()["hark-streams"], "on");
    assert_eq!(bye_of(&me, &format!("?page={page}")).await, None);
    assert!(!me.get("/").await.text().await.unwrap().contains("hark-streams"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_knows_how_long_each_stage_took_and_can_restart_a_stuck_session() {
    let app = counting(0.3).await;
    let me = app.visitor();
    let id = &me.session("talk.wav", wav(6.0, 5000.0), &[]).await;
    while me.json(&format!("/api/v1/sessions/{id}/status")).await["segments"].as_u64() < Some(2) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let restart = me.request("POST", RestartSession::PATH).header("content-type", "application/x-www-form-urlencoded");
    let restarted = me.send(restart.body(format!("id={id}"))).await;
    assert!(restarted.status().is_success(), "{}", restarted.status());
    let status = me.wait(id, "completed").await;
    assert_eq!((&status["attempt"], &status["segments"]), (&Value::from(2), &Value::from(6)));
    let page = me.get(&format!("/sessions/{id}")).await.text().await.unwrap();
    let times = page.matches("data-testid=\"stage-time\"").count();
    // Decoding, loading the model, transcribing, saving.
    assert_eq!(times, 4, "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_asked_for_at_the_same_time_are_all_whole() {
    let app = counting(0.0).await;
    let me = app.visitor();
    let id = &me.session("talk.wav", wav(1.0, 5000.0), &[("title", "Talk")]).await;
    me.wait(id, "completed").await;
    let session = format!("/sessions/{id}");
    // The server writes the title when the page's signals may be gone, and rows of what other threads have just loaded.
    let pages = [
        ("/", ["<title>Sessions · Hark</title>", "data-testid=\"session-row\""]),
        (&session, ["<title>Talk", "word at 0"]),
        ("/upload", ["<title>New transcription · Hark</title>", "<form"]),
    ];
    let visits = (0..8).map(|_| async {
        for _ in 0..60 {
            for (path, parts) in &pages {
                // A file that is sent meanwhile has nothing of a page, and takes nothing away from it.
                let (response, file) = futures::future::join(me.get(path), me.get("/README.md")).await;
                assert_eq!((response.status(), file.status()), (StatusCode::OK, StatusCode::OK), "{path}");
                for (of_page, headers) in [(true, response.headers()), (false, file.headers())] {
                    assert_eq!(headers.contains_key("content-security-policy"), of_page, "{path}: {headers:?}");
                }
                let html = response.text().await.unwrap();
                for part in parts {
                    assert!(html.contains(part), "{path} lacks {part}:\n{html}");
                }
            }
        }
    });
    // Other nodes that start in the same process don't disturb it.
    let starts = async {
        for _ in 0..10 {
            drop(idle(&[]).await);
        }
    };
    futures::future::join(futures::future::join_all(visits), starts).await;
}

/// What a refused upload is told: after how many seconds to try again, the code, and the message.
async fn full(response: reqwest::Response) -> (u32, String, String) {
    let retry = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    let (status, code, message) = error(response).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "{message}");
    (retry, code, message)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_says_when_to_come_back_on_every_way_into_it() {
    let app = idle(&["--max-queue", "3", "--max-queue-per-owner", "2", "--newcomer-percent", "100"]).await;
    let (me, you) = (app.visitor(), app.visitor());
    let mut mine = Vec::new();
    for _ in 0..2 {
        mine.push(me.session("a.wav", wav(1.0, 1.0), &[]).await);
    }
    let (retry, code, message) = full(me.upload("a.wav", wav(1.0, 1.0), &[]).await).await;
    assert_eq!((code.as_str(), retry), ("owner_queue_full", 60));
    assert!(message.contains("2 recordings") && message.contains("1 min"), "{message}");
    you.session("a.wav", wav(1.0, 1.0), &[]).await;
    let (retry, code, message) = full(you.upload("a.wav", wav(1.0, 1.0), &[]).await).await;
    assert_eq!((code.as_str(), retry), ("queue_full", 60));
    assert!(message.contains("3 recordings") && message.contains("1 min"), "{message}");
    assert_eq!(recordings(&app), 3, "a recording was left behind");

    // The sample, as its button asks for it.
    let form = |path: &str| you.request("POST", path).header("content-type", "application/x-www-form-urlencoded");
    let sample = you.send(form(TrySample::PATH).header("accept", "application/json")).await;
    assert_eq!(
        (sample.status(), &sample.headers()["retry-after"]),
        (StatusCode::TOO_MANY_REQUESTS, &"60".parse().unwrap())
    );
    assert!(sample.text().await.unwrap().contains("The queue is full"));

    // A form without scripts comes back to its page, which says why, once.
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let part = multipart::Part::bytes(wav(1.0, 1.0)).file_name("a.wav");
    let known = app.visitor().cookie().await;
    let sent = client
        .post(format!("{}/api/v1/sessions", app.url))
        .header("accept", "text/html")
        .header("cookie", &known)
        .multipart(multipart::Form::new().part("file", part));
    let sent = sent.send().await.unwrap();
    assert_eq!((sent.status(), &sent.headers()["location"]), (StatusCode::SEE_OTHER, &"/upload".parse().unwrap()));
    let cookies: Vec<&str> =
        sent.headers().get_all("set-cookie").iter().map(|c| c.to_str().unwrap().split(';').next().unwrap()).collect();
    let cookies = [&[known.as_str()][..], &cookies].concat();
    let page = client.get(format!("{}/upload", app.url)).header("cookie", cookies.join("; ")).send().await.unwrap();
    let page = page.text().await.unwrap();
    assert!(page.contains("The queue is full: its limit is 3 recordings."), "{page}");

    // Coming back from the end needs a place; one that has its place keeps it.
    me.post(&format!("/api/v1/sessions/{}/cancel", mine[0])).await;
    you.session("a.wav", wav(1.0, 1.0), &[]).await;
    let (_, code, _) = full(me.post(&format!("/api/v1/sessions/{}/retry", mine[0])).await).await;
    assert_eq!(code, "queue_full");
    let session = me.json(&format!("/api/v1/sessions/{}", mine[0])).await;
    assert_eq!(session["status"]["status"], "cancelled");
    assert_eq!(me.post(&format!("/api/v1/sessions/{}/retry", mine[1])).await.status(), StatusCode::OK);
    let restart = async |id: &str| {
        let request =
            me.request("POST", RestartSession::PATH).header("content-type", "application/x-www-form-urlencoded");
        me.send(request.body(format!("id={id}"))).await.status()
    };
    assert_eq!(restart(&mine[0]).await, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(restart(&mine[1]).await, StatusCode::OK);
    let session = me.json(&format!("/api/v1/sessions/{}", mine[1])).await;
    // Of three that wait, all in their first turn by one address, it came last.
    assert_eq!((&session["status"]["status"], &session["status"]["queue_position"]), (&"queued".into(), &2.into()));

    // Outside workers have their own queue.
    let outside = me.request("POST", "/api/v1/sessions").bearer_auth("secret").json(&serde_json::json!({"title": "x"}));
    assert_eq!(me.send(outside).await.status(), StatusCode::CREATED);
    let metrics = me.get("/metrics").await.text().await.unwrap();
    for code in ["queue_full", "owner_queue_full"] {
        assert!(metrics.contains(&format!("hark_uploads_refused_total{{reason=\"{code}\"}}")), "{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_told_before_the_recording_is_sent() {
    let app = idle(&["--max-queue", "1"]).await;
    app.visitor().session("a.wav", wav(1.0, 1.0), &[]).await;
    let mut socket = TcpStream::connect(app.url.strip_prefix("http://").unwrap()).await.unwrap();
    // As curl asks before it sends a large file.
    let head = "POST /api/v1/sessions HTTP/1.1\r\nHost: hark\r\nContent-Type: multipart/form-data; boundary=x\r\n\
        Content-Length: 1000000\r\nExpect: 100-continue\r\n\r\n";
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // The connection ends as well: what would come on it is the recording.
    time::timeout(TIMEOUT, socket.read_to_end(&mut answer)).await.expect("an answer").unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    assert!(answer.contains("retry-after: 60") && answer.contains("queue_full"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_uploads_that_race_for_the_last_place_one_wins() {
    let app = idle(&["--max-queue", "1"]).await;
    let gate = Arc::new(Semaphore::new(0));
    let upload = |visitor: Visitor| {
        let gate = Arc::clone(&gate);
        // More than the megabyte that is held in memory at first; the rest comes when both have been let in.
        let mut first = wav(60.0, 1.0);
        let second = first.split_off(1_800_000);
        let pieces = futures::stream::iter([Some(first), None, Some(second)]);
        let pieces = futures::StreamExt::then(pieces, move |piece| {
            let gate = Arc::clone(&gate);
            async move {
                if piece.is_none() {
                    gate.acquire().await.unwrap().forget();
                }
                Ok::<_, std::io::Error>(piece.unwrap_or_default())
            }
        });
        let part = multipart::Part::stream(Body::wrap_stream(pieces)).file_name("a.wav");
        let form = multipart::Form::new().part("file", part);
        tokio::spawn(async move {
            let request = visitor.request("POST", "/api/v1/sessions").multipart(form);
            let response = visitor.send(request).await;
            let retry = response.headers().contains_key("retry-after");
            (response.status(), retry)
        })
    };
    let racers = [upload(app.visitor()), upload(app.visitor())];
    let both = async {
        while files(&app, "incoming") < 2 {
            time::sleep(Duration::from_millis(20)).await;
        }
    };
    time::timeout(TIMEOUT, both).await.expect("both are being received");
    gate.add_permits(2);
    let mut ended = Vec::new();
    for racer in racers {
        ended.push(racer.await.unwrap());
    }
    ended.sort();
    assert_eq!(ended, [(StatusCode::CREATED, false), (StatusCode::TOO_MANY_REQUESTS, true)]);
    // The loser's is taken away by a task of its own, which the answer doesn't wait for.
    let taken_away = async {
        while recordings(&app) + files(&app, "incoming") > 1 {
            time::sleep(Duration::from_millis(20)).await;
        }
    };
    time::timeout(TIMEOUT, taken_away).await.expect("the loser's recording is taken away");
    let health = app.visitor().json("/api/v1/health/sessions").await;
    assert_eq!(health["queued"], 1);
    assert!(health["oldest_queued_secs"].as_f64().is_some_and(|secs| secs >= 0.0), "{health}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_falls_silent_is_given_up_in_words() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("silent.py");
    let text = r#"import json, time
for line in [dict(type="ready", protocol=1, model="silent"), dict(type="segment", start=0, end=1, text="word")]:
    print(json.dumps(line), flush=True)
time.sleep(3600)
"#;
    std::fs::write(&file, text).unwrap();
    let command = format!("python3 {}", file.display());
    let engine = ["--engine", "command", "--engine-command", &command];
    let flags = [&engine[..], &["--max-attempts", "1", "--stall-secs", "5", "--stall-factor", "0.5"]].concat();
    let app = TestApp::on(folder, &flags).await;
    let me = app.visitor();
    let id = me.session("a.wav", wav(3.0, 5000.0), &[]).await;
    let status = me.wait(&id, "failed").await;
    assert_eq!((&status["error"]["code"], &status["segments"]), (&"stalled".into(), &1.into()));
    // Five seconds, and a half for each of the two that were left.
    let words = "The speech engine said nothing for 6 s, with 2 s of the recording still to do. Hark tried 1 time.";
    assert!(status["message"].as_str().unwrap().starts_with(words), "{status}");
}

/// A session of a visitor who comes from this address, as the proxy in front says.
async fn upload_from(visitor: &Visitor, address: &str) -> reqwest::Response {
    let part = multipart::Part::bytes(wav(1.0, 5000.0)).file_name("a.wav");
    let request = visitor.request("POST", "/api/v1/sessions").header("x-forwarded-for", address);
    visitor.send(request.multipart(multipart::Form::new().part("file", part))).await
}

async fn one_stranger_cannot_take_the_queue(url: Option<&str>) {
    let folder = tempfile::TempDir::new().unwrap();
    let command = slow_engine(folder.path(), 0.2);
    let mut flags = vec!["--engine", "command", "--engine-command", &command, "--trusted-proxies", "127.0.0.1"];
    flags.extend(["--max-queue", "20", "--max-queue-per-address", "5", "--newcomer-hours", "0"]);
    flags.extend(url.iter().flat_map(|url| ["--database-url", url]));
    let app = TestApp::on(folder, &flags).await;
    // What has been completed is history.
    let friend = app.visitor();
    let id = friend.session("a.wav", wav(1.0, 5000.0), &[]).await;
    friend.wait(&id, "completed").await;

    // Each with a new cookie, and claiming to be somewhere else.
    let mut taken = Vec::new();
    let mut refused = 0;
    for n in 0..30 {
        let stranger = app.visitor();
        let answer = upload_from(&stranger, &format!("198.51.100.{n}, 203.0.113.9")).await;
        if answer.status() == StatusCode::CREATED {
            let session: Value = answer.json().await.unwrap();
            taken.push((session["id"].as_str().unwrap().to_owned(), stranger));
        } else {
            let (_, code, message) = full(answer).await;
            assert_eq!(code, "address_queue_full", "{message}");
            assert!(
                message.contains("newcomers at your network address") && message.contains("5 recordings"),
                "{message}"
            );
            refused += 1;
        }
        assert!(taken.len() < 30, "the stranger takes all");
        if refused > 3 {
            break;
        }
    }
    assert!(refused > 0 && taken.len() >= 5);
    // Another newcomer gets in, and so does the friend, from the stranger's own address.
    let other = app.visitor();
    let answer = upload_from(&other, "192.0.2.1").await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    let others: Value = answer.json().await.unwrap();
    let answer = upload_from(&friend, "203.0.113.9").await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    let friends: Value = answer.json().await.unwrap();
    let done = async |visitor: &Visitor, id: &str| {
        visitor.wait(id, "completed").await;
        visitor.json(&format!("/api/v1/sessions/{id}")).await["started_at"].as_str().unwrap().to_owned()
    };
    let [others, friends] =
        [done(&other, others["id"].as_str().unwrap()).await, done(&friend, friends["id"].as_str().unwrap()).await];
    let mut strangers = Vec::new();
    for (id, stranger) in &taken {
        strangers.push(done(stranger, id).await);
    }
    // Both came after all of the stranger's, and waited for two of them at most: what ran, and what had its turn.
    let last = |n: usize| strangers[strangers.len() - n].clone();
    assert!(others < last(2) && friends < last(2), "{others} {friends} {strangers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_stranger_cannot_take_the_queue_on_sqlite() {
    one_stranger_cannot_take_the_queue(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_stranger_cannot_take_the_queue_on_postgresql() {
    let server = Postgres::start();
    one_stranger_cannot_take_the_queue(Some(&server.database("hark"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hours_of_audio_are_not_told_as_a_minute() {
    let app = idle(&["--max-queue-hours-per-owner", "0.01", "--max-queue-hours", "0.2"]).await;
    let (me, you) = (app.visitor(), app.visitor());
    you.session("a.wav", wav(240.0, 1.0), &[]).await;
    me.session("a.wav", wav(120.0, 1.0), &[]).await;
    // Alone it may be longer than its share. It has its turn after the other's, which takes four minutes as far as is
    // known: nothing has been measured.
    let (retry, code, message) = full(me.upload("b.wav", wav(1.0, 1.0), &[]).await).await;
    assert_eq!((code.as_str(), retry), ("owner_queue_full", 240));
    let told = "Your part of the queue is full: its limit is 36 s of audio. Try again in about 4 min, or cancel one that \
        waits. Waiting there: 1 recording, 2 min of audio.";
    assert_eq!(message, told);
    // Newcomers together may have half of the twelve minutes that all may.
    let (_, code, message) = full(app.visitor().upload("b.wav", wav(1.0, 1.0), &[]).await).await;
    assert_eq!(code, "newcomer_queue_full");
    assert!(
        message.contains("its limit is 6 min of audio") && message.ends_with("2 recordings, 6 min of audio."),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_is_told_before_the_recording_is_sent() {
    // Two recordings of twenty seconds each are 1,280,088 bytes.
    let app = idle(&["--max-bytes-per-owner", "1400000", "--keep-days", "30"]).await;
    let me = app.visitor();
    let first = me.session("a.wav", wav(20.0, 1.0), &[]).await;
    me.session("a.wav", wav(20.0, 1.0), &[]).await;
    let (status, code, message) = error(me.upload("a.wav", wav(20.0, 1.0), &[]).await).await;
    assert_eq!((status, code.as_str()), (StatusCode::INSUFFICIENT_STORAGE, "quota_exceeded"));
    assert!(message.contains("1.3 MB") && message.contains("1.4 MB") && message.contains("Delete"), "{message}");
    assert_eq!(recordings(&app), 2);
    // Somebody else has a quota of their own, and deleting makes room.
    app.visitor().session("a.wav", wav(20.0, 1.0), &[]).await;
    let gone = me.send(me.request("DELETE", &format!("/api/v1/sessions/{first}"))).await;
    assert_eq!(gone.status(), StatusCode::NO_CONTENT);
    me.session("a.wav", wav(20.0, 1.0), &[]).await;
    let page = me.get("/upload").await.text().await.unwrap();
    assert!(page.contains("deleted with their recordings 30 days after they have ended"), "{page}");
    assert!(page.contains("up to 1.4 MB"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_new_cookies_takes_no_memory() {
    let app = idle(&[]).await;
    let before = app.visitor().json("/api/v1/status").await;
    assert_eq!(before["statuses"].as_array().unwrap().len(), 0);
    let client = reqwest::Client::new();
    for _ in 0..200 {
        let answer = client.get(format!("{}/api/v1/status", app.url)).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
    }
    assert_eq!(app.hub().held_owners().len(), 0, "the hub holds what has no session");
    // What has one is held, and answered from memory.
    let me = app.visitor();
    me.session("a.wav", wav(1.0, 1.0), &[]).await;
    assert_eq!(me.json("/api/v1/status").await["statuses"].as_array().unwrap().len(), 1);
    assert_eq!(app.hub().held_owners().len(), 1);
}
