//! Uploads that come in parts, by the tus protocol: what the protocol says, files that are cut and nodes that are killed in the
//! middle, several nodes that take turns, limits, and an independent client.

#[path = "support/postgres.rs"]
#[allow(unreachable_pub, reason = "shared by test binaries")]
mod postgres;
#[path = "support/process.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by test binaries")]
mod process;
#[path = "support/s3.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by test binaries")]
mod s3;
mod support;

use data_encoding::{BASE64, HEXLOWER};
use postgres::Postgres;
use process::{Process, Setup};
use reqwest::{Body, RequestBuilder, Response, StatusCode};
use s3::{BUCKET, S3};
use serde_json::Value;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::{fs, path::Path, process::Stdio};
use support::{TIMEOUT, TestApp, Visitor, files, slow_engine, until, wav, wav_of};
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt, net::TcpStream, time};
use uuid::Uuid;

const MIB: usize = 1024 * 1024;
const UPLOADS: &str = "/api/v1/uploads";

fn tus(me: &Visitor, method: &str, path: &str) -> RequestBuilder {
    me.request(method, path).header("Tus-Resumable", "1.0.0")
}

/// An `Upload-Metadata` header.
fn metadata(pairs: &[(&str, &str)]) -> String {
    pairs
        .iter()
        .map(|(name, value)| format!("{name} {}", BASE64.encode(value.as_bytes())))
        .collect::<Vec<_>>()
        .join(",")
}

async fn create(me: &Visitor, length: usize, pairs: &[(&str, &str)]) -> Response {
    let request = tus(me, "POST", UPLOADS).header("Upload-Length", length).header("Upload-Metadata", metadata(pairs));
    me.send(request).await
}

/// Begins an upload; returns its path.
async fn begin(me: &Visitor, length: usize, pairs: &[(&str, &str)]) -> String {
    let created = create(me, length, pairs).await;
    assert_eq!(created.status(), StatusCode::CREATED, "{:?}", created.text().await);
    created.headers()["location"].to_str().unwrap().to_owned()
}

fn part(me: &Visitor, path: &str, offset: usize, bytes: &[u8]) -> RequestBuilder {
    tus(me, "PATCH", path)
        .header("Upload-Offset", offset)
        .header("Content-Type", "application/offset+octet-stream")
        .body(bytes.to_vec())
}

async fn send_part(me: &Visitor, path: &str, offset: usize, bytes: &[u8]) -> Response {
    me.send(part(me, path, offset, bytes)).await
}

/// Sends a part that must be taken; returns the session that the upload has become.
async fn append(me: &Visitor, path: &str, offset: usize, bytes: &[u8]) -> Option<String> {
    let answer = send_part(me, path, offset, bytes).await;
    let (status, headers) = (answer.status(), answer.headers().clone());
    assert_eq!(status, StatusCode::NO_CONTENT, "{}", answer.text().await.unwrap());
    assert_eq!(headers["upload-offset"], (offset + bytes.len()).to_string());
    assert_eq!(headers["tus-resumable"], "1.0.0");
    headers.get("hark-session").map(|id| id.to_str().unwrap().to_owned())
}

/// How many bytes are here.
async fn offset(me: &Visitor, path: &str) -> usize {
    let answer = me.send(tus(me, "HEAD", path)).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["cache-control"], "no-store");
    answer.headers()["upload-offset"].to_str().unwrap().parse().unwrap()
}

/// Sends all of a file in parts of so many bytes; returns the session.
async fn send_all(me: &Visitor, path: &str, recording: &[u8], size: usize) -> String {
    let mut session = None;
    for (n, piece) in recording.chunks(size).enumerate() {
        assert_eq!(session, None);
        session = append(me, path, n * size, piece).await;
    }
    session.expect("a session with the last part")
}

async fn error(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    let body: Value = serde_json::from_str(&text).unwrap_or_default();
    (status, body["error"]["code"].as_str().unwrap_or_default().to_owned())
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

/// Waits until the recordings are these, and no scratch files are left.
async fn stored(data: &Path, wanted: &[&str]) {
    until(&format!("{wanted:?} stored"), async || {
        let mut recordings = files(&data.join("recordings"));
        recordings.sort();
        (recordings == wanted && files(&data.join("incoming")).is_empty()).then_some(())
    })
    .await;
}

async fn sound(me: &Visitor, id: &str) -> Vec<u8> {
    me.get(&format!("/api/v1/sessions/{id}/audio")).await.bytes().await.unwrap().to_vec()
}

/// The hash by which a recording is recognised.
fn tree_hash(bytes: &[u8]) -> String {
    let blocks: Vec<u8> = bytes.chunks(8 * MIB).flat_map(Sha256::digest).collect();
    HEXLOWER.encode(&Sha256::digest(blocks))
}

/// A recording of so many bytes, none of which looks like another.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    wav_of((0..bytes / 2).map(|_| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as i16
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_in_parts_becomes_a_session_as_one_in_a_form() {
    let app = TestApp::with(&["--workers", "0"]).await;
    let me = app.visitor();
    let recording = wav(20.0, 5000.0);
    let described = me.send(me.request("OPTIONS", UPLOADS)).await;
    assert_eq!(described.status(), StatusCode::NO_CONTENT);
    for (name, value) in [
        ("tus-version", "1.0.0"),
        ("tus-extension", "creation,creation-with-upload,checksum,expiration,termination"),
        ("tus-checksum-algorithm", "sha1,sha256"),
        ("tus-max-size", "2000000000"),
    ] {
        assert_eq!(described.headers()[name], value);
    }
    let path =
        begin(&me, recording.len(), &[("filename", "täglich.wav"), ("title", "A talk"), ("language", "en")]).await;
    assert_eq!(offset(&me, &path).await, 0);
    append(&me, &path, 0, &recording[..100_000]).await;
    // The same part once more, as after an answer that got lost.
    let again = send_part(&me, &path, 0, &recording[..100_000]).await;
    assert_eq!(again.headers()["upload-offset"], "100000");
    assert_eq!(error(again).await, refused(409, "wrong_offset"));
    assert_eq!(append(&me, &path, 100_000, &[]).await, None);
    let half = me.json(&path).await;
    assert_eq!((&half["offset"], &half["length"]), (&Value::from(100_000), &Value::from(recording.len())));
    assert_eq!((&half["file_name"], &half["session"]), (&Value::from("täglich.wav"), &Value::Null));
    let head = me.send(tus(&me, "HEAD", &path)).await;
    assert!(head.headers()["upload-metadata"].to_str().unwrap().starts_with("filename dMOkZ2xpY2gud2F2,"));
    assert!(httpdate::parse_http_date(head.headers()["upload-expires"].to_str().unwrap()).is_ok());
    let id = append(&me, &path, 100_000, &recording[100_000..]).await.expect("a session");
    assert_eq!(offset(&me, &path).await, recording.len());
    // As a client that hasn't got that answer.
    assert_eq!(append(&me, &path, recording.len(), &[]).await.as_ref(), Some(&id));
    let done = me.json(&path).await;
    assert_eq!((&done["session"]["id"], &done["session"]["title"]), (&Value::from(&*id), &Value::from("A talk")));
    let session = me.json(&format!("/api/v1/sessions/{id}")).await;
    assert_eq!((&session["language"], &session["status"]["status"]), (&Value::from("en"), &Value::from("queued")));
    assert_eq!(session["media"]["file_name"], "täglich.wav");
    assert!(sound(&me, &id).await == recording);
    stored(app.folder.path(), &[&id]).await;
    // The upload goes with its session.
    assert_eq!(me.send(me.request("DELETE", &format!("/api/v1/sessions/{id}"))).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(me.get(&path).await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_part_may_come_along_and_methods_may_stand_in_a_header() {
    let app = TestApp::with(&["--workers", "0"]).await;
    let me = app.visitor();
    let recording = wav(2.0, 5000.0);
    let with_part = |bytes: &[u8]| {
        let request = tus(&me, "POST", UPLOADS).header("Upload-Length", recording.len());
        request.header("Content-Type", "application/offset+octet-stream").body(bytes.to_vec())
    };
    let created = me.send(with_part(&recording[..1000])).await;
    assert_eq!((created.status(), created.headers()["upload-offset"].as_bytes()), (StatusCode::CREATED, &b"1000"[..]));
    let path = created.headers()["location"].to_str().unwrap().to_owned();
    let by_post = |method: &str| tus(&me, "POST", &path).header("X-HTTP-Method-Override", method);
    assert_eq!(me.send(by_post("HEAD")).await.headers()["upload-offset"], "1000");
    let rest = by_post("PATCH").header("Upload-Offset", 1000).header("Content-Type", "application/offset+octet-stream");
    let done = me.send(rest.body(recording[1000..].to_vec())).await;
    assert_eq!(done.status(), StatusCode::NO_CONTENT);
    let id = done.headers()["hark-session"].to_str().unwrap().to_owned();
    assert!(sound(&me, &id).await == recording);
    assert_eq!(me.send(by_post("DELETE")).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(me.get(&path).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(me.get(&format!("/api/v1/sessions/{id}")).await.status(), StatusCode::OK);
    // All of it at once; and of one that isn't a recording, nothing is left.
    let whole = me.send(with_part(&recording)).await;
    assert_eq!(whole.status(), StatusCode::CREATED);
    let other = whole.headers()["hark-session"].to_str().unwrap().to_owned();
    let text = "just a text. ".repeat(1000);
    let request = tus(&me, "POST", UPLOADS).header("Upload-Length", text.len());
    let request = request.header("Content-Type", "application/offset+octet-stream").body(text);
    assert_eq!(error(me.send(request).await).await, refused(422, "unreadable"));
    let mut both = [&*id, &*other];
    both.sort_unstable();
    stored(app.folder.path(), &both).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_protocol_does_not_allow_is_refused() {
    let app = TestApp::with(&["--workers", "0", "--upload-part-mb", "1", "--max-upload-bytes", "3000000"]).await;
    let me = app.visitor();
    let recording = noise(2 * MIB - 1000);
    let path = begin(&me, recording.len(), &[]).await;
    let post = |more: &[(&'static str, &str)]| {
        more.iter().fold(tus(&me, "POST", UPLOADS), |request, (name, value)| request.header(*name, *value))
    };
    for (request, status, code) in [
        (me.request("POST", UPLOADS).header("Upload-Length", 5), 412, "wrong_tus_version"),
        (me.request("HEAD", &path).header("Tus-Resumable", "0.2.2"), 412, ""),
        (me.request("DELETE", &path), 412, "wrong_tus_version"),
        (post(&[]), 400, "bad_request"),
        (post(&[("Upload-Defer-Length", "1")]), 400, "bad_request"),
        (post(&[("Upload-Length", "-5")]), 400, "bad_request"),
        (post(&[("Upload-Length", "99999999999999999999")]), 400, "bad_request"),
        (post(&[("Upload-Length", "0")]), 422, "empty_file"),
        (post(&[("Upload-Length", "3000001")]), 413, "too_large"),
        (post(&[("Upload-Length", "5"), ("Upload-Metadata", "filename ???")]), 400, "bad_request"),
        (post(&[("Upload-Length", "5"), ("Upload-Metadata", "engine Z3JhbW9waG9uZQ==")]), 422, "unknown_engine"),
        (post(&[("Upload-Length", "5"), ("Upload-Metadata", "language dGxo")]), 422, "unknown_language"),
        (tus(&me, "PATCH", &path).header("Upload-Offset", 0).body("x"), 415, "unsupported_media_type"),
        (
            tus(&me, "PATCH", &path).header("Content-Type", "application/offset+octet-stream").body("x"),
            400,
            "bad_request",
        ),
        (part(&me, &path, 7, b"x"), 409, "wrong_offset"),
        (part(&me, &path, 0, &recording[..=MIB]), 413, "too_large"),
        (
            // Without a declared size.
            tus(&me, "PATCH", &path)
                .header("Upload-Offset", 0)
                .header("Content-Type", "application/offset+octet-stream")
                .body(Body::wrap_stream(futures::stream::iter(
                    recording.chunks(65_536).map(|c| Ok::<_, std::io::Error>(c.to_vec())).collect::<Vec<_>>(),
                ))),
            413,
            "too_large",
        ),
        (part(&me, &path, 0, b"x").header("Upload-Checksum", "md5 ZZZZ"), 400, "bad_request"),
        (part(&me, &format!("{UPLOADS}/{}", Uuid::now_v7()), 0, b"x"), 404, "not_found"),
        (part(&me, &format!("{UPLOADS}/nonsense"), 0, b"x"), 404, "not_found"),
        (tus(&me, "POST", &path), 405, "method_not_allowed"),
    ] {
        let what = format!("{request:?}");
        let answer = me.send(request).await;
        assert_eq!(answer.headers()["tus-resumable"], "1.0.0", "{what}");
        assert_eq!(error(answer).await, refused(status, code), "{what}");
    }
    assert_eq!(offset(&me, &path).await, 0);
    append(&me, &path, 0, &recording[..MIB]).await;
    append(&me, &path, MIB, &recording[MIB..recording.len() - 10]).await;
    assert_eq!(error(send_part(&me, &path, recording.len() - 10, &[0; 11]).await).await, refused(413, "too_large"));
    let id = append(&me, &path, recording.len() - 10, &recording[recording.len() - 10..]).await.unwrap();
    assert!(sound(&me, &id).await == recording);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_with_another_checksum_changes_nothing() {
    let app = TestApp::with(&["--workers", "0"]).await;
    let me = app.visitor();
    let recording = wav(2.0, 5000.0);
    let path = begin(&me, recording.len(), &[]).await;
    let (first, rest) = recording.split_at(30_000);
    let sha1 = |bytes: &[u8]| format!("sha1 {}", BASE64.encode(&Sha1::digest(bytes)));
    let sha256 = |bytes: &[u8]| format!("sha256 {}", BASE64.encode(&Sha256::digest(bytes)));
    for checksum in [sha1(rest), sha256(rest)] {
        let wrong = me.send(part(&me, &path, 0, first).header("Upload-Checksum", checksum)).await;
        assert_eq!(error(wrong).await, refused(460, "checksum_mismatch"));
        assert_eq!(offset(&me, &path).await, 0);
    }
    let right = me.send(part(&me, &path, 0, first).header("Upload-Checksum", sha1(first))).await;
    assert_eq!(right.status(), StatusCode::NO_CONTENT);
    let right = me.send(part(&me, &path, 30_000, rest).header("Upload-Checksum", sha256(rest))).await;
    assert_eq!(right.status(), StatusCode::NO_CONTENT);
    let id = right.headers()["hark-session"].to_str().unwrap();
    stored(app.folder.path(), &[id]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_belong_to_their_owner_and_can_be_removed() {
    let app = TestApp::with(&["--workers", "0"]).await;
    let (me, other) = (app.visitor(), app.visitor());
    let recording = wav(2.0, 5000.0);
    let path = begin(&me, recording.len(), &[]).await;
    append(&me, &path, 0, &recording[..10_000]).await;
    assert_eq!(files(&app.folder.path().join("recordings")).len(), 1);
    other.cookie().await;
    for request in
        [tus(&other, "DELETE", &path), other.request("GET", &path), part(&other, &path, 10_000, &recording[10_000..])]
    {
        assert_eq!(error(other.send(request).await).await, refused(404, "not_found"));
    }
    assert_eq!(other.send(tus(&other, "HEAD", &path)).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(offset(&me, &path).await, 10_000);
    assert_eq!(me.send(tus(&me, "DELETE", &path)).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(me.send(tus(&me, "HEAD", &path)).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(error(send_part(&me, &path, 10_000, &recording[10_000..]).await).await, refused(404, "not_found"));
    stored(app.folder.path(), &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_parts_that_come_at_once_one_is_taken() {
    let app = TestApp::with(&["--workers", "0"]).await;
    let me = app.visitor();
    let recording = noise(MIB);
    let path = begin(&me, recording.len(), &[]).await;
    let half = recording.len() / 2;
    // Both the first part and the last one, which makes the session.
    for (from, to) in [(0, half), (half, recording.len())] {
        let sends = (0..3).map(|_| send_part(&me, &path, from, &recording[from..to]));
        let mut answers: Vec<u16> =
            futures::future::join_all(sends).await.iter().map(|a| a.status().as_u16()).collect();
        answers.sort_unstable();
        assert_eq!(answers, [204, 409, 409]);
        assert_eq!(offset(&me, &path).await, to);
    }
    let list = me.json("/api/v1/sessions").await;
    let sessions = list["sessions"].as_array().unwrap();
    assert_eq!(sessions.len(), 1, "{list}");
    let id = sessions[0]["id"].as_str().unwrap();
    assert!(sound(&me, id).await == recording);
    stored(app.folder.path(), &[id]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_stays_unfinished_expires() {
    // Two seconds.
    let app = TestApp::with(&["--workers", "0", "--upload-keep-hours", "0.00056"]).await;
    let me = app.visitor();
    let recording = wav(2.0, 5000.0);
    let path = begin(&me, recording.len(), &[]).await;
    append(&me, &path, 0, &recording[..10_000]).await;
    until("it is gone", async || (me.get(&path).await.status() == StatusCode::NOT_FOUND).then_some(())).await;
    assert_eq!(error(send_part(&me, &path, 10_000, &recording[10_000..]).await).await, refused(404, "not_found"));
    stored(app.folder.path(), &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unfinished_uploads_are_limited_and_count_against_the_quota() {
    let recording = wav(2.0, 5000.0);
    let quota = (recording.len() * 5 / 2).to_string();
    let flags =
        ["--workers", "0", "--max-unfinished-uploads-per-owner", "2", "--max-unfinished-uploads-per-address", "3"];
    let app = TestApp::with(&[&flags[..], &["--max-bytes-per-owner", &quota]].concat()).await;
    let (me, other) = (app.visitor(), app.visitor());
    let first = begin(&me, recording.len(), &[]).await;
    let second = begin(&me, recording.len(), &[]).await;
    // What has begun counts as a whole, for forms too.
    assert_eq!(error(create(&me, recording.len(), &[]).await).await, refused(507, "quota_exceeded"));
    assert_eq!(error(me.upload("a.wav", recording.clone(), &[]).await).await, refused(507, "quota_exceeded"));
    assert_eq!(error(create(&me, 5000, &[]).await).await, refused(429, "too_many_unfinished"));
    // Newcomers at one address count together.
    begin(&other, 5000, &[]).await;
    assert_eq!(error(create(&other, 5000, &[]).await).await, refused(429, "too_many_unfinished"));
    // Its own bytes don't count twice when an upload becomes a session.
    let id = send_all(&me, &first, &recording, 10_000).await;
    assert!(sound(&me, &id).await == recording);
    assert_eq!(me.send(tus(&me, "DELETE", &second)).await.status(), StatusCode::NO_CONTENT);
    let third = begin(&me, recording.len(), &[]).await;
    send_all(&me, &third, &recording, 40_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_part_is_refused_while_the_queue_is_full_and_taken_later() {
    let app = TestApp::with(&["--workers", "0", "--max-queue", "1"]).await;
    let me = app.visitor();
    let recording = wav(3.0, 5000.0);
    let path = begin(&me, recording.len(), &[]).await;
    append(&me, &path, 0, &recording[..50_000]).await;
    let waiting = me.session("a.wav", wav(1.0, 5000.0), &[]).await;
    assert_eq!(error(create(&me, recording.len(), &[]).await).await, refused(429, "queue_full"));
    let full = send_part(&me, &path, 50_000, &recording[50_000..]).await;
    assert!(full.headers().contains_key("retry-after"));
    assert_eq!(error(full).await, refused(429, "queue_full"));
    assert_eq!(offset(&me, &path).await, 50_000);
    let delete = me.request("DELETE", &format!("/api/v1/sessions/{waiting}"));
    assert_eq!(me.send(delete).await.status(), StatusCode::NO_CONTENT);
    let id = append(&me, &path, 50_000, &recording[50_000..]).await.expect("a session");
    assert!(sound(&me, &id).await == recording);
    stored(app.folder.path(), &[&id]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_that_was_sent_before_is_recognised() {
    let app = TestApp::with(&["--workers", "0"]).await;
    let (me, other) = (app.visitor(), app.visitor());
    let recording = noise(9 * MIB);
    let hash = tree_hash(&recording);
    let hashed = [("filename", "a.wav"), ("hash", &*hash)];
    // It makes no difference how it was sent.
    let by_form = me.session("a.wav", recording.clone(), &[("title", "By form")]).await;
    let known = create(&me, recording.len(), &hashed).await;
    assert_eq!((known.status(), &*by_form), (StatusCode::OK, known.headers()["hark-session"].to_str().unwrap()));
    let known: Value = known.json().await.unwrap();
    assert_eq!(known["session"]["title"], "By form");
    let again = begin(&me, recording.len(), &[&hashed[..], &[("again", "")]].concat()).await;
    let id = send_all(&me, &again, &recording, 8 * MIB).await;
    let known = create(&me, recording.len(), &hashed).await;
    assert_eq!(known.headers()["hark-session"], &*id, "the newest one");
    // Not for others, and not once it is cancelled or deleted.
    let theirs = begin(&other, recording.len(), &hashed).await;
    assert_eq!(other.send(tus(&other, "DELETE", &theirs)).await.status(), StatusCode::NO_CONTENT);
    me.post(&format!("/api/v1/sessions/{id}/cancel")).await;
    me.send(me.request("DELETE", &format!("/api/v1/sessions/{by_form}"))).await;
    let path = begin(&me, recording.len(), &hashed).await;
    // A file that isn't the one that was hashed isn't taken.
    let mut changed = recording.clone();
    changed[5_000_000] ^= 1;
    append(&me, &path, 0, &changed[..8 * MIB]).await;
    let answer = send_part(&me, &path, 8 * MIB, &changed[8 * MIB..]).await;
    assert_eq!(error(answer).await, refused(460, "checksum_mismatch"));
    assert_eq!(me.get(&path).await.status(), StatusCode::NOT_FOUND);
    stored(app.folder.path(), &[&id]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_whose_part_was_lost_is_gone() {
    let app = TestApp::with(&["--workers", "0"]).await;
    let me = app.visitor();
    let recording = wav(2.0, 5000.0);
    let path = begin(&me, recording.len(), &[]).await;
    append(&me, &path, 0, &recording[..10_000]).await;
    let folder = app.folder.path().join("recordings");
    fs::remove_file(folder.join(files(&folder).pop().unwrap())).unwrap();
    assert_eq!(error(send_part(&me, &path, 10_000, &recording[10_000..]).await).await, refused(404, "not_found"));
    assert_eq!(me.get(&path).await.status(), StatusCode::NOT_FOUND);
    stored(app.folder.path(), &[]).await;
}

/// Sends the head of a part and only the beginning of its bytes.
async fn send_beginning(me: &Visitor, path: &str, offset: usize, bytes: &[u8], cut: usize) -> TcpStream {
    let mut socket = TcpStream::connect(me.url.strip_prefix("http://").unwrap()).await.unwrap();
    let head = format!(
        "PATCH {path} HTTP/1.1\r\nHost: hark\r\nCookie: {}\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: {offset}\r\n\
         Content-Type: application/offset+octet-stream\r\nContent-Length: {}\r\n\r\n",
        me.cookie().await,
        bytes.len()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.write_all(&bytes[..cut]).await.unwrap();
    socket
}

/// A node on a data folder, without workers.
fn node(data: &Path, engine: &str) -> Setup {
    let flags = ["--workers", "0", "--engine", "command", "--engine-command", engine, "--min-free-bytes", "1"];
    Setup::new(data, &flags)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_cut_five_times_arrives_whole() {
    const PART: usize = 8 * MIB;
    let folder = TempDir::new().unwrap();
    let setup = node(&folder.path().join("data"), &slow_engine(folder.path(), 0.0));
    let mut running = setup.start();
    let mut me = running.visitor();
    let recording = noise(64 * MIB);
    let path = begin(&me, recording.len(), &[("filename", "long.wav")]).await;
    let mut cuts: Vec<usize> = (0..5).map(|_| Uuid::new_v4().as_u128() as usize % recording.len()).collect();
    cuts.sort_unstable();
    println!("cut at {cuts:?}");
    let mut cuts = cuts.into_iter().enumerate().peekable();
    let (mut here, mut sent, mut session) = (0, 0, None);
    while here < recording.len() {
        let end = recording.len().min(here + PART);
        if let Some((n, cut)) = cuts.next_if(|(_, cut)| *cut < end) {
            // Several cuts may fall into the same part.
            let cut = cut - here;
            let mut socket = send_beginning(&me, &path, here, &recording[here..end], cut).await;
            sent += cut;
            if n % 2 == 0 {
                running.kill();
                running = setup.start();
                me = me.at(&running.url);
            } else {
                socket.shutdown().await.unwrap();
            }
            drop(socket);
            // Whole parts are still here.
            assert_eq!(offset(&me, &path).await, here);
            continue;
        }
        session = append(&me, &path, here, &recording[here..end]).await;
        sent += end - here;
        here = end;
    }
    assert!(sent <= recording.len() + 5 * PART, "{sent} bytes were sent");
    let id = session.expect("a session");
    assert!(Sha256::digest(sound(&me, &id).await) == Sha256::digest(&recording), "not what was sent");
    stored(&running.data, &[&id]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_take_turns_and_one_that_is_killed_is_not_missed() {
    let (folder, s3) = (TempDir::new().unwrap(), S3::start());
    let postgres = tokio::task::spawn_blocking(Postgres::start).await.unwrap();
    let database = postgres.database("hark");
    let engine = slow_engine(folder.path(), 0.0);
    let flags = |worker: &'static str| {
        let url = format!("s3://{BUCKET}/shared");
        vec![
            "--engine".to_owned(),
            "command".to_owned(),
            "--engine-command".to_owned(),
            engine.clone(),
            "--min-free-bytes".to_owned(),
            "1".to_owned(),
            "--recordings-url".to_owned(),
            url,
            "--workers".to_owned(),
            worker.to_owned(),
        ]
    };
    let start = |name: &str, workers: &'static str| -> Process {
        let flags = flags(workers);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let database = ("DATABASE_URL", database.clone());
        Setup::new(&folder.path().join(name), &flags).env(&s3.env()).env(&[database]).start()
    };
    let (mut one, two) = (start("one", "0"), start("two", "1"));
    let at_one = one.visitor();
    let recording = noise(5 * MIB + 12_345);
    let hash = tree_hash(&recording);
    let options = [("title", "By turns"), ("hash", &*hash)];
    let path = begin(&at_one, recording.len(), &options).await;
    at_one.cookie().await;
    let at_two = at_one.at(&two.url);
    append(&at_one, &path, 0, &recording[..MIB]).await;
    append(&at_two, &path, MIB, &recording[MIB..2 * MIB]).await;
    append(&at_one, &path, 2 * MIB, &recording[2 * MIB..3 * MIB]).await;
    let _cut = send_beginning(&at_one, &path, 3 * MIB, &recording[3 * MIB..4 * MIB], 500_000).await;
    until("the part comes in", async || files(&one.data.join("incoming")).pop()).await;
    one.kill();
    assert_eq!(offset(&at_two, &path).await, 3 * MIB);
    append(&at_two, &path, 3 * MIB, &recording[3 * MIB..4 * MIB]).await;
    let id = append(&at_two, &path, 4 * MIB, &recording[4 * MIB..]).await.expect("a session");
    at_two.wait(&id, "completed").await;
    assert!(sound(&at_two, &id).await == recording);
    let known = create(&at_two, recording.len(), &options).await;
    assert_eq!((known.status(), &*id), (StatusCode::OK, known.headers()["hark-session"].to_str().unwrap()));
    until("the parts are gone", async || {
        (s3.objects("shared") == [(id.clone(), recording.len() as u64)]).then_some(())
    })
    .await;
    // What was left of the part on the killed node goes when it starts again.
    let one = start("one", "0");
    until("no scratch files", async || files(&one.data.join("incoming")).is_empty().then_some(())).await;
    assert!(sound(&at_two.at(&one.url), &id).await == recording);
}

/// Runs tus-js-client on a file; returns what it has printed.
async fn tus_js_client(me: &Visitor, file: &Path, state: &Path, stop_after: usize) -> Vec<Value> {
    let script = format!("{}/tests/clients/tus.mjs", env!("CARGO_MANIFEST_DIR"));
    let child = tokio::process::Command::new("node")
        .args([&*script, &format!("{}{UPLOADS}", me.url), &me.cookie().await])
        .args([file, state])
        .arg(stop_after.to_string())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let done = time::timeout(TIMEOUT, child).await.expect("it ends").unwrap();
    let text = String::from_utf8(done.stdout).unwrap();
    assert!(done.status.success(), "{text}{}", String::from_utf8_lossy(&done.stderr));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_independent_client_sends_a_file_and_goes_on_with_it() {
    let app = TestApp::with(&["--workers", "0", "--upload-part-mb", "1"]).await;
    let me = app.visitor();
    let recording = noise(5 * MIB);
    let file = app.folder.path().join("talk.wav");
    fs::write(&file, &recording).unwrap();
    let state = app.folder.path().join("client.json");
    let before = tus_js_client(&me, &file, &state, 2).await;
    assert_eq!(before.last().unwrap()["offset"], 2 * MIB);
    let after = tus_js_client(&me, &file, &state, usize::MAX).await;
    // It doesn't begin anew.
    assert_eq!(after[0]["offset"], 3 * MIB, "{after:?}");
    let path = after.last().unwrap()["url"].as_str().unwrap().strip_prefix(&me.url).unwrap().to_owned();
    let session = me.json(&path).await["session"].clone();
    assert_eq!(
        (&session["title"], &session["media"]["file_name"]),
        (&Value::from("By a client"), &Value::from("talk.wav"))
    );
    assert!(sound(&me, session["id"].as_str().unwrap()).await == recording);
}
