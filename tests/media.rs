//! Recordings: uploads that arrive or break off, full disks, and storage in folders and buckets. Buckets are those of
//! s3s-fs, an S3-compatible server that is published as a crate, run as a process; shared databases those of a real
//! PostgreSQL.

#[path = "support/postgres.rs"]
#[allow(unreachable_pub, reason = "shared by test binaries")]
mod postgres;
#[path = "support/process.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by test binaries")]
mod process;
#[path = "support/s3.rs"]
#[allow(unreachable_pub, reason = "shared by test binaries")]
mod s3;
mod support;

use hark::model::SessionId;
use postgres::Postgres;
use process::{Process, Setup};
use reqwest::{Body, Response, StatusCode, multipart};
use s3::{BUCKET, S3};
use serde_json::Value;
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};
use support::{TIMEOUT, TestApp, Visitor, files, slow_engine, until, wav};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time,
};
use uuid::Uuid;

/// The prefix of the tests' objects in the bucket.
const PREFIX: &str = "node/recordings";
/// The length in seconds of a recording that is stored in three parts: 12 MB, a bit more than 6 minutes.
const LARGE: f64 = 375.0;

struct World {
    folder: TempDir,
    s3: S3,
}

impl World {
    fn new() -> Self {
        Self { folder: TempDir::new().unwrap(), s3: S3::start() }
    }

    fn data(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Sets up a node whose recordings are in the bucket, with an engine that takes `pause` seconds for a second of
    /// audio.
    fn node(&self, name: &str, pause: f64, flags: &[&str]) -> Setup {
        let url = format!("s3://{BUCKET}/{PREFIX}");
        let engine = slow_engine(self.folder.path(), pause);
        let own =
            ["--engine", "command", "--engine-command", &engine, "--min-free-bytes", "1", "--recordings-url", &url];
        Setup::new(&self.data(name), &[&own, flags].concat()).env(&self.s3.env())
    }
}

/// Waits until a node has no scratch files.
async fn no_scratch_files(data: &Path) {
    until("no scratch files", async || {
        (files(&data.join("incoming")).is_empty() && files(&data.join("spool")).is_empty()).then_some(())
    })
    .await;
}

async fn status(me: &Visitor, id: &str) -> Value {
    me.json(&format!("/api/v1/sessions/{id}/status")).await
}

async fn error(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    (status, body["error"]["code"].as_str().unwrap_or_default().to_owned())
}

async fn sessions(me: &Visitor) -> usize {
    me.json("/api/v1/sessions").await["sessions"].as_array().unwrap().len()
}

async fn check_playback(me: &Visitor, id: &str, recording: &[u8]) {
    let path = format!("/api/v1/sessions/{id}/audio");
    let whole = me.get(&path).await;
    assert_eq!(whole.status(), StatusCode::OK);
    assert!(whole.bytes().await.unwrap() == recording, "not what was sent");
    let range = |from: usize, to: usize| format!("bytes={from}-{to}");
    let (from, to) = (recording.len() / 2, recording.len() / 2 + 99_999);
    let part = me.send(me.request("GET", &path).header("range", range(from, to))).await;
    let to = to.min(recording.len() - 1);
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(part.headers()["content-range"], format!("bytes {from}-{to}/{}", recording.len()).as_str());
    assert!(part.bytes().await.unwrap() == recording[from..=to], "not the range that was asked for");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_in_a_bucket_is_stored_transcribed_played_and_deleted() {
    let world = World::new();
    let node = world.node("data", 0.0, &[]).start();
    let me = node.visitor();
    // One that is stored in parts, and one that isn't.
    for seconds in [LARGE, 2.0] {
        let recording = wav(seconds, 5000.0);
        let id = me.session("talk.wav", recording.clone(), &[]).await;
        assert_eq!(world.s3.objects(PREFIX), [(id.clone(), recording.len() as u64)]);
        let done = me.wait(&id, "completed").await;
        assert_eq!((&done["segments"], &done["attempt"]), (&Value::from(seconds as u64), &Value::from(1)));
        check_playback(&me, &id, &recording).await;
        no_scratch_files(&node.data).await;
        assert!(!node.data.join("recordings").exists());
        let path = format!("/api/v1/sessions/{id}");
        assert_eq!(me.send(me.request("DELETE", &path)).await.status(), StatusCode::NO_CONTENT);
        assert_eq!(world.s3.objects(PREFIX), []);
    }
    // A refused upload is never stored.
    assert_eq!(error(me.upload("a.wav", b"just text".to_vec(), &[]).await).await, (422, "unreadable".to_owned()));
    assert_eq!((world.s3.objects(PREFIX).len(), world.s3.parts()), (0, 0));
    no_scratch_files(&node.data).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_storage_a_node_says_so_and_stores_no_partial_recording() {
    let mut world = World::new();
    let node = world.node("data", 0.0, &[]).start();
    let me = node.visitor();
    let kept = me.session("a.wav", wav(1.0, 1.0), &[]).await;
    me.wait(&kept, "completed").await;
    world.s3.kill();
    for recording in [wav(LARGE, 1.0), wav(1.0, 1.0)] {
        let refused = me.upload("b.wav", recording, &[]).await;
        assert_eq!(error(refused).await, (503, "storage_unavailable".to_owned()));
    }
    let path = format!("/api/v1/sessions/{kept}");
    assert_eq!(error(me.get(&format!("{path}/audio")).await).await, (503, "storage_unavailable".to_owned()));
    // A session isn't deleted while its recording can't be.
    assert_eq!(error(me.send(me.request("DELETE", &path)).await).await.0, 503);
    assert_eq!(sessions(&me).await, 1);
    let incoming = node.data.join("incoming");
    for name in files(&incoming) {
        assert_eq!(fs::metadata(incoming.join(name)).map_or(0, |meta| meta.len()), 0, "the disk is given back");
    }
    world.s3.again();
    no_scratch_files(&node.data).await;
    assert_eq!((world.s3.objects(PREFIX).len(), world.s3.parts()), (1, 0));
    let again = me.session("b.wav", wav(LARGE, 1.0), &[]).await;
    me.wait(&again, "completed").await;
    assert_eq!(me.send(me.request("DELETE", &path)).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(world.s3.objects(PREFIX).len(), 1);
}

/// Queues a session behind one that keeps the only worker busy, stops the storage, and lets the worker claim the
/// session.
async fn start_without_storage(world: &mut World, me: &Visitor) -> String {
    let busy = me.session("busy.wav", wav(600.0, 1.0), &[]).await;
    me.wait(&busy, "processing").await;
    let id = me.session("next.wav", wav(2.0, 1.0), &[]).await;
    // Once it transcribes, the worker no longer needs the storage.
    until("a segment", async || (status(me, &busy).await["segments"] != 0).then_some(())).await;
    world.s3.kill();
    me.post(&format!("/api/v1/sessions/{busy}/cancel")).await;
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_waits_for_the_storage() {
    let mut world = World::new();
    let node = world.node("data", 0.02, &[]).start();
    let me = node.visitor();
    let id = start_without_storage(&mut world, &me).await;
    let waits = async |id: &str| {
        until("a worker that waits", async || {
            let now = status(&me, id).await;
            (now["message"].as_str()?.contains("can't be fetched")).then_some(now)
        })
        .await
    };
    let now = waits(&id).await;
    assert_eq!((&now["status"], &now["stage"]), (&"processing".into(), &"decoding".into()));
    // If the session is cancelled meanwhile, the worker stops at once and leaves nothing.
    me.post(&format!("/api/v1/sessions/{id}/cancel")).await;
    no_scratch_files(&node.data).await;
    me.post(&format!("/api/v1/sessions/{id}/retry")).await;
    waits(&id).await;
    world.s3.again();
    let done = me.wait(&id, "completed").await;
    // The outage cost no attempt and no text.
    assert_eq!((&done["attempt"], &done["segments"]), (&2.into(), &2.into()));
    no_scratch_files(&node.data).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_that_stays_unreachable_costs_no_attempt() {
    let mut world = World::new();
    let node = world.node("data", 0.02, &["--stall-secs", "5", "--max-attempts", "1"]).start();
    let me = node.visitor();
    let id = start_without_storage(&mut world, &me).await;
    let back = until("it goes back to the queue", async || {
        Some(status(&me, &id).await).filter(|status| status["status"] == "queued" && status["attempt"] == 1)
    })
    .await;
    assert!(back["error"].is_null(), "{back}");
    let ready = me.get("/readyz").await;
    assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);
    let said = ready.text().await.unwrap();
    assert!(said.starts_with(&format!("the bucket s3://{BUCKET}/{PREFIX} can't be read")), "{said}");
    no_scratch_files(&node.data).await;
    world.s3.again();
    me.wait(&id, "completed").await;
    assert_eq!(me.get("/readyz").await.status(), StatusCode::OK);
    // A missing recording isn't waited for.
    fs::remove_dir_all(world.s3.folder().join(BUCKET).join(PREFIX)).unwrap();
    assert_eq!(error(me.get(&format!("/api/v1/sessions/{id}/audio")).await).await, (404, "not_found".to_owned()));
    assert_eq!(me.send(me.request("DELETE", &format!("/api/v1/sessions/{id}"))).await.status(), StatusCode::NO_CONTENT);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_that_one_node_receives_is_transcribed_by_another() {
    let world = World::new();
    let server = Postgres::start();
    let shared = world.data("shared");
    fs::create_dir(&shared).unwrap();
    let locations = [format!("s3://{BUCKET}/{PREFIX}"), format!("file://{}", shared.display())];
    for (n, location) in locations.iter().enumerate() {
        let database = server.database(&format!("hark{n}"));
        let both = ["--recordings-url", location, "--workers"];
        let secrets = [("DATABASE_URL", database), ("HARK_SECRET", "0123456789abcdef".repeat(8))];
        let node = |name: &str, workers: &str| {
            let engine = slow_engine(world.folder.path(), 0.0);
            let engine = ["--engine", "command", "--engine-command", &engine, "--min-free-bytes", "1"];
            let flags = [&engine[..], &both, &[workers]].concat();
            Setup::new(&world.data(&format!("{name}{n}")), &flags).env(&world.s3.env()).env(&secrets).start()
        };
        let (web, worker) = (node("web", "0"), node("worker", "1"));
        let me = web.visitor();
        let recording = wav(5.0, 5000.0);
        let id = me.session("talk.wav", recording.clone(), &[]).await;
        let there = me.at(&worker.url);
        assert_eq!(there.wait(&id, "completed").await["segments"], 5);
        check_playback(&me, &id, &recording).await;
        check_playback(&there, &id, &recording).await;
        let delete = there.request("DELETE", &format!("/api/v1/sessions/{id}"));
        assert_eq!(there.send(delete).await.status(), StatusCode::NO_CONTENT);
        for node in [&web, &worker] {
            no_scratch_files(&node.data).await;
            assert!(!node.data.join("recordings").exists());
        }
        assert_eq!((files(&shared).len(), world.s3.objects(PREFIX).len()), (0, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_start_reports_what_is_wrong_with_the_location_of_recordings() {
    let mut world = World::new();
    let without = world.data("without");
    let said = |setup: Setup| String::from_utf8(setup.refused().stderr).unwrap();
    let location = |url: &str| Setup::new(&without, &["--recordings-url", url]);
    let replaced = |name: &'static str, value: &str| {
        location(&format!("s3://{BUCKET}")).env(&world.s3.env()).env(&[(name, value.to_owned())])
    };
    for (setup, words) in [
        (location("ftp://somewhere/else"), ["file:///folder or s3://bucket/prefix", "data folder"]),
        (location("file:///not/mounted"), ["/not/mounted", "mounted"]),
        (location("s3://not-there").env(&world.s3.env()), ["no bucket 'not-there'", "Make it"]),
        (replaced("AWS_SECRET_ACCESS_KEY", "wrong"), ["refuses the bucket", "Check AWS_ACCESS_KEY_ID"]),
        (replaced("AWS_ALLOW_HTTP", "false"), ["AWS_ENDPOINT_URL", "set AWS_ALLOW_HTTP=true"]),
        (replaced("AWS_ENDPOINT_URL", "http://127.0.0.1:9"), ["can't be reached", "Check AWS_ENDPOINT_URL"]),
    ] {
        let text = said(setup);
        assert!(words.iter().all(|word| text.contains(word)), "not {words:?}: {text}");
    }
    let file = world.data("file");
    fs::write(&file, "").unwrap();
    assert!(said(location(&format!("file://{}", file.display()))).contains("can't be used"));
    // A server that accepts connections and sends nothing.
    world.s3.kill();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = ("AWS_ENDPOINT_URL", format!("http://{}", silent.local_addr().unwrap()));
    let text = said(location(&format!("s3://{BUCKET}")).env(&world.s3.env()).env(&[address]));
    assert!(text.contains("didn't answer"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_of_a_killed_node_are_removed_at_its_next_start() {
    let world = World::new();
    let setup = world.node("data", 0.0, &[]);
    let mut node = setup.start();
    let me = node.visitor();
    let recording = wav(2.0, 5000.0);
    let id = me.session("a.wav", recording.clone(), &[]).await;
    me.wait(&id, "completed").await;
    no_scratch_files(&node.data).await;
    let mut sender = begin(&node.url, 50_000_000, &vec![0; 3_000_000]).await;
    let incoming = node.data.join("incoming");
    until("the upload comes in", async || files(&incoming).pop()).await;
    node.kill();
    let _ = sender.shutdown().await;
    assert_eq!(files(&incoming).len(), 1);
    // As if it had been killed between storing a recording and adding its session, and right after adding one.
    let lost = SessionId(Uuid::now_v7()).to_string();
    world.s3.put(&format!("{PREFIX}/{lost}"), b"stored");
    for name in [&lost, &id] {
        fs::write(incoming.join(name), b"received").unwrap();
    }
    // Another node's recording, of which this node knows nothing.
    world.s3.put(&format!("{PREFIX}/{}", SessionId(Uuid::now_v7())), b"theirs");
    fs::write(node.data.join("spool/left.pcm"), b"decoded").unwrap();
    let node = setup.start();
    no_scratch_files(&node.data).await;
    assert_eq!(world.s3.objects(PREFIX).len(), 2);
    check_playback(&me.at(&node.url), &id, &recording).await;
}

/// Begins an upload that declares `size` bytes, and sends only `bytes`.
async fn begin(url: &str, size: usize, bytes: &[u8]) -> TcpStream {
    let addr: SocketAddr = url.strip_prefix("http://").unwrap().parse().unwrap();
    let mut socket = TcpStream::connect(addr).await.unwrap();
    let head = format!(
        "POST /api/v1/sessions HTTP/1.1\r\nHost: hark\r\nContent-Type: multipart/form-data; boundary=B\r\n\
         Content-Length: {size}\r\n\r\n--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.write_all(bytes).await.unwrap();
    socket
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_upload_leaves_nothing() {
    let app = TestApp::start().await;
    let me = app.visitor();
    let data = app.folder.path();
    let recording = wav(200.0, 5000.0);
    for abruptly in [false, true] {
        let mut socket = begin(&app.url, recording.len(), &recording[..recording.len() / 2]).await;
        let name = until("the upload comes in", async || files(&data.join("incoming")).pop()).await;
        let arrived = || fs::metadata(data.join("incoming").join(&name)).map_or(0, |meta| meta.len());
        until("half of it is there", async || (arrived() > 2_000_000).then_some(())).await;
        if abruptly {
            socket.set_zero_linger().unwrap();
        } else {
            socket.shutdown().await.unwrap();
        }
        drop(socket);
        no_scratch_files(data).await;
        assert_eq!(files(&data.join("recordings")), Vec::<String>::new());
        assert_eq!(sessions(&me).await, 0);
        assert_eq!(me.json("/api/v1/health/sessions").await["queued"], 0);
    }
}

/// A node whose data folder is on a disk of its own, `size` bytes large.
fn on_small_disk(folder: &Path, size: u64, flags: &[&str]) -> Process {
    let data = folder.join(format!("disk{size}"));
    fs::create_dir(&data).unwrap();
    let engine = slow_engine(folder, 0.0);
    let own = ["--engine", "command", "--engine-command", &engine];
    // In a mount namespace of its own anybody may mount.
    let mount = format!("mount -t tmpfs -o size={size} none {} && exec \"$@\"", data.display());
    Setup::new(&data, &[&own, flags].concat()).by(&["unshare", "-rm", "sh", "-ec", &mount, "sh"]).start()
}

/// Uploads a recording without declaring its length.
async fn stream(me: &Visitor, recording: Vec<u8>) -> Response {
    let pieces: Vec<_> = recording.chunks(64 * 1024).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect();
    let part = multipart::Part::stream(Body::wrap_stream(futures::stream::iter(pieces))).file_name("long.wav");
    me.send(me.request("POST", "/api/v1/sessions").multipart(multipart::Form::new().part("file", part))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_refuses_uploads_while_its_disk_is_full_and_goes_on() {
    let folder = TempDir::new().unwrap();
    let large = wav(1500.0, 1.0); // 48 MB
    let full = (507, "disk_full".to_owned());
    // Once full to the last byte, and once as full as the operator allows.
    for (size, spare) in [(40_000_000, 1), (72_000_000, 40_000_000)] {
        let node = on_small_disk(folder.path(), size, &["--min-free-bytes", &spare.to_string()]);
        let me = node.visitor();
        // The folder as seen from outside the node's namespace.
        let data = PathBuf::from(format!("/proc/{}/root{}", node.id(), node.data.display()));
        assert_eq!(error(stream(&me, large.clone()).await).await, full);
        no_scratch_files(&data).await;
        assert_eq!((files(&data.join("recordings")).len(), sessions(&me).await), (0, 0));
        let id = me.session("short.wav", wav(10.0, 1.0), &[]).await;
        me.wait(&id, "completed").await;
        if spare == 1 {
            // An upload that declares its length is refused before it is received.
            let mut socket = begin(&node.url, large.len(), b"").await;
            let mut answer = [0; 12];
            time::timeout(TIMEOUT, socket.read_exact(&mut answer)).await.unwrap().unwrap();
            assert_eq!(&answer, b"HTTP/1.1 507");
        }
    }
}

/// Sets up a node of its own, with its recordings in the data folder.
fn alone(data: &Path, log: &Path) -> Setup {
    let engine = slow_engine(log.parent().unwrap(), 0.0);
    // One after the other is uploaded until something is seen.
    let many =
        ["--max-queue-per-address", "1000", "--max-queue-hours-per-address", "1000", "--newcomer-percent", "100"];
    let own = ["--engine", "command", "--engine-command", &engine, "--min-free-bytes", "1"];
    Setup::new(data, &[&own[..], &many].concat()).log_to(log)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_within_the_data_folder_that_cannot_be_used_is_named() {
    let root = TempDir::new().unwrap();
    let [data, log, away] = ["data", "log", "away"].map(|name| root.path().join(name));
    let read = || fs::read_to_string(&log).unwrap();
    let node = alone(&data, &log).start();
    let me = node.visitor();
    me.cookie().await;
    assert_eq!(me.get("/readyz").await.text().await.unwrap(), "ready\n");
    for name in ["incoming", "spool", "recordings"] {
        let folder = data.join(name);
        fs::rename(&folder, &away).unwrap();
        let problem = format!("'{}' can't be used: No such file or directory", folder.display());
        let refused = (503, "storage_unavailable".to_owned());
        until("uploads are refused", async || {
            let answer = me.upload("a.wav", wav(1.0, 1000.0), &[]).await;
            (answer.status() != StatusCode::CREATED).then_some(())
        })
        .await;
        assert_eq!(error(me.upload("a.wav", wav(1.0, 1000.0), &[]).await).await, refused, "{name}");
        until("it isn't ready", async || {
            let answer = me.get("/readyz").await;
            let unready = answer.status() == StatusCode::SERVICE_UNAVAILABLE;
            (unready && answer.text().await.unwrap().starts_with(&problem)).then_some(())
        })
        .await;
        assert!(read().contains(&problem), "{}", read());
        fs::rename(&away, &folder).unwrap();
        until("it is ready again", async || (me.get("/readyz").await.status() == StatusCode::OK).then_some(())).await;
    }
    let id = me.session("b.wav", wav(1.0, 1000.0), &[]).await;
    me.wait(&id, "completed").await;
    drop(node);

    // At the start, and by the doctor.
    let unwritable = "mount -t tmpfs -o ro tmpfs \"$HARK_DATA_DIR/recordings\" && exec \"$0\" \"$@\"";
    let enter = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", unwritable];
    let refused = tokio::task::block_in_place(|| Setup::new(&data, &[]).by(&enter).refused());
    let said = String::from_utf8(refused.stderr).unwrap();
    let problem = format!("'{}' can't be used: Read-only file system", data.join("recordings").display());
    assert!(said.contains(&problem), "{said}");
    let doctor = |spare: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_hark"));
        command.args(["doctor", "--engine", "pocketsphinx", "--min-free-bytes", spare]);
        let output = command.env("HARK_DATA_DIR", &data).output().unwrap();
        (String::from_utf8(output.stdout).unwrap(), output.status.success())
    };
    let (said, well) = doctor("1");
    assert!(well && said.contains("ok       the disk of the data folder has "), "{said}");
    let (said, well) = doctor("1000000000000000000");
    let full = " free, and 1000000.0 TB must stay free, so uploads are refused";
    assert!(!well && said.contains("wrong    the disk of the data folder has ") && said.contains(full), "{said}");
    fs::remove_dir_all(data.join("spool")).unwrap();
    fs::write(data.join("spool"), "").unwrap();
    let (said, well) = doctor("1");
    let problem = format!("wrong    {} can't be used: Not a directory", data.join("spool").display());
    assert!(!well && said.contains(&problem), "{said}");
}
