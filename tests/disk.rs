//! A full disk costs only time. A node runs on a small disk that is filled from outside while clients upload, rename
//! and delete. When there is room again, everything works at once, and nothing is lost or stuck.

#[path = "support/disk.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by test binaries")]
mod disk;
#[path = "support/process.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by test binaries")]
mod process;
#[path = "support/s3.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by test binaries")]
mod s3;
mod support;

use disk::Disk;
use hark::server::store::Store;
use process::Setup;
use reqwest::{Body, Response, multipart};
use s3::{BUCKET, S3};
use serde_json::{Value, json};
use sqlx::{ConnectOptions, Connection, sqlite::SqliteConnectOptions};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use support::{TIMEOUT, Visitor, slow_engine, wav};
use tempfile::TempDir;
use tokio::time;

/// The answer to a request that is refused because the disk is full.
const FULL: (u16, &str) = (507, "disk_full");
const MB: u64 = 1_000_000;

/// Sets up a node on the disk, with an engine that takes `pause` seconds for a second of audio. Returns its log as
/// well.
fn node(disk: &Disk, folder: &Path, pause: f64, flags: &[&str]) -> (Setup, PathBuf) {
    let engine = slow_engine(folder, pause);
    let log = folder.join("log");
    let own = ["--engine", "command", "--engine-command", &engine, "--max-uploads-per-owner", "100"];
    let many = [
        "--max-uploads-per-address",
        "100",
        "--max-queue-per-address",
        "1000",
        "--max-queue-hours-per-address",
        "1000",
        "--newcomer-percent",
        "100",
    ];
    let before = disk.enter();
    let before: Vec<&str> = before.iter().map(String::as_str).collect();
    (Setup::new(disk.path(), &[&own[..], &many, flags].concat()).by(&before).log_to(&log), log)
}

async fn error(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap_or_default();
    (status, body["error"]["code"].as_str().unwrap_or_default().to_owned())
}

async fn rename(me: &Visitor, id: &str, title: &str) -> Response {
    me.send(me.request("PATCH", &format!("/api/v1/sessions/{id}")).json(&json!({ "title": title }))).await
}

async fn delete(me: &Visitor, id: &str) -> Response {
    me.send(me.request("DELETE", &format!("/api/v1/sessions/{id}"))).await
}

async fn ready(me: &Visitor) -> (u16, String) {
    let answer = me.get("/readyz").await;
    (answer.status().as_u16(), answer.text().await.unwrap())
}

async fn until(what: &str, mut look: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !look().await {
            time::sleep(Duration::from_millis(30)).await;
        }
    };
    time::timeout(TIMEOUT, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// A client that is busy all the time, and the answers that it got.
struct Client {
    me: Arc<Visitor>,
    /// Sessions that were accepted and not deleted, oldest first.
    kept: Mutex<BTreeSet<String>>,
    /// Those whose deletion was refused.
    doomed: Mutex<BTreeSet<String>>,
    stop: AtomicBool,
    /// Which requests were refused, and how; each kind once.
    refused: Mutex<BTreeSet<(&'static str, u16, String)>>,
    done: AtomicU64,
}

impl Client {
    fn new(me: Arc<Visitor>) -> Arc<Self> {
        Arc::new(Self {
            me,
            kept: Mutex::default(),
            doomed: Mutex::default(),
            stop: AtomicBool::default(),
            refused: Mutex::default(),
            done: AtomicU64::default(),
        })
    }

    async fn note(&self, what: &'static str, answer: Response) -> Option<Value> {
        self.done.fetch_add(1, Relaxed);
        if answer.status().is_success() {
            return Some(answer.json().await.unwrap_or_default());
        }
        let (status, code) = error(answer).await;
        self.refused.lock().unwrap().insert((what, status, code));
        None
    }

    /// Uploads, renames and deletes until it is told to stop.
    async fn work(self: Arc<Self>) {
        for round in 0.. {
            if self.stop.load(Relaxed) {
                return;
            }
            if let Some(session) = self.note("upload", self.me.upload("a.wav", wav(3.0, 1000.0), &[]).await).await {
                self.kept.lock().unwrap().insert(session["id"].as_str().unwrap().to_owned());
            }
            let (first, kept) = {
                let kept = self.kept.lock().unwrap();
                (kept.first().cloned(), kept.len())
            };
            let Some(first) = first else { continue };
            self.note("rename", rename(&self.me, &first, &format!("round {round}")).await).await;
            if kept > 4 {
                let deleted = self.note("delete", delete(&self.me, &first).await).await.is_some();
                self.kept.lock().unwrap().remove(&first);
                if !deleted {
                    self.doomed.lock().unwrap().insert(first);
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_works_at_once_when_there_is_room_again() {
    let (disk, folder) = (Disk::new(40 * MB), TempDir::new().unwrap());
    let (setup, log) = node(&disk, folder.path(), 0.05, &["--min-free-bytes", "1", "--workers", "2"]);
    let node = setup.start();
    let me = Arc::new(node.visitor());
    // Meanwhile transcripts are being written all the time.
    let mut long = Vec::new();
    for _ in 0..2 {
        long.push(me.session("long.wav", wav(100.0, 1000.0), &[]).await);
    }
    let clients: Vec<_> = (0..6).map(|_| Client::new(Arc::clone(&me))).collect();
    let working: Vec<_> = clients.iter().map(|client| tokio::spawn(Arc::clone(client).work())).collect();
    // At first the files of the database are small, and every write needs room.
    time::sleep(Duration::from_millis(300)).await;
    const EPISODES: usize = 3;
    for _ in 0..EPISODES {
        let filler = disk.fill();
        time::sleep(Duration::from_secs(3)).await;
        drop(filler);
        time::sleep(Duration::from_millis(500)).await;
    }
    // Now there is room, and from the first request on none fails.
    for client in &clients {
        client.refused.lock().unwrap().retain(|(what, status, code)| {
            assert_eq!((*status, code.as_str()), FULL, "{what}");
            false
        });
    }
    let before: u64 = clients.iter().map(|client| client.done.load(Relaxed)).sum();
    until("many requests after that", async || {
        clients.iter().map(|client| client.done.load(Relaxed)).sum::<u64>() > before + 100
    })
    .await;
    clients.iter().for_each(|client| client.stop.store(true, Relaxed));
    for task in working {
        time::timeout(TIMEOUT, task).await.expect("no request hangs").unwrap();
    }
    for client in &clients {
        assert_eq!(*client.refused.lock().unwrap(), BTreeSet::new());
    }
    for id in clients.iter().flat_map(|client| client.doomed.lock().unwrap().clone()) {
        assert_eq!(delete(&me, &id).await.status(), 204);
    }
    assert_eq!(ready(&me).await, (200, "ready\n".to_owned()));
    // Nothing is lost or stuck: every accepted session exists, is transcribed, and took no additional attempt.
    for client in &clients {
        long.extend(client.kept.lock().unwrap().iter().cloned());
    }
    for id in &long {
        let status = me.wait(id, "completed").await;
        let seconds = if long[..2].contains(id) { 100 } else { 3 };
        assert_eq!((&status["segments"], &status["attempt"]), (&json!(seconds), &json!(1)), "{status}");
        assert_eq!(me.get(&format!("/api/v1/sessions/{id}/audio")).await.status(), 200);
    }
    let listed = me.json("/api/v1/sessions?limit=200").await;
    assert_eq!(listed["sessions"].as_array().unwrap().len(), long.len(), "nothing that was refused became a session");
    let inside = disk.seen_from_outside();
    until("no scratch files are left", async || {
        fs::read_dir(inside.join("incoming")).unwrap().count() == 0
            && fs::read_dir(inside.join("recordings")).unwrap().count() == long.len()
    })
    .await;
    until("the ballast is back", async || inside.join("ballast").exists()).await;
    // The log has an entry for each episode, not for each request.
    let log = fs::read_to_string(log).unwrap();
    let (errors, warnings) = (log.matches("ERROR").count(), log.matches(" WARN ").count());
    assert!(log.contains("the disk is full: 0 B are free") && log.contains("there is room on the disk again"), "{log}");
    assert!(errors <= EPISODES && warnings <= 20 * EPISODES, "{errors} errors and {warnings} warnings: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_uploads_at_once_leave_the_reserve_free() {
    let (disk, folder) = (Disk::new(64 * MB), TempDir::new().unwrap());
    let (setup, _) = node(&disk, folder.path(), 0.0, &["--min-free-bytes", "24000000"]);
    let node = setup.start();
    let me = Arc::new(node.visitor());
    me.cookie().await;
    until("there is a ballast", async || disk.seen_from_outside().join("ballast").exists()).await;
    // 120 MB are uploaded at once. Half of the uploads don't declare their length.
    let recording = wav(94.0, 1000.0);
    let uploads: Vec<_> = (0..40)
        .map(|n| {
            let (me, recording) = (Arc::clone(&me), recording.clone());
            tokio::spawn(async move {
                let pieces: Vec<_> = recording.chunks(32 * 1024).map(|p| Ok::<_, std::io::Error>(p.to_vec())).collect();
                let body = Body::wrap_stream(futures::stream::iter(pieces));
                let part = match n % 2 {
                    0 => multipart::Part::stream(body),
                    _ => multipart::Part::stream_with_length(body, recording.len() as u64),
                };
                let form = multipart::Form::new().part("file", part.file_name("a.wav"));
                me.send(me.request("POST", "/api/v1/sessions").multipart(form)).await
            })
        })
        .collect();
    let mut least = disk.free();
    while !uploads.iter().all(|upload| upload.is_finished()) {
        least = least.min(disk.free());
        time::sleep(Duration::from_millis(1)).await;
    }
    // The database writes little, and its writes aren't reserved beforehand.
    assert!(least >= 22 * MB, "only {least} bytes were free");
    let mut accepted = Vec::new();
    for upload in uploads {
        let answer = upload.await.unwrap();
        if answer.status() == 201 {
            let session: Value = answer.json().await.unwrap();
            let id = session["id"].as_str().unwrap().to_owned();
            let heard = me.wait(&id, "completed").await;
            assert_eq!(heard["segments"], 94);
            accepted.push(id);
        } else {
            let (status, code) = error(answer).await;
            assert_eq!((status, code.as_str()), FULL);
        }
    }
    assert!((5..=12).contains(&accepted.len()), "{} were accepted", accepted.len());
    // All reservations are released: there is as much room as the disk has.
    for id in &accepted[..2] {
        assert_eq!(delete(&me, id).await.status(), 204);
    }
    assert!(disk.free() >= 27 * MB, "{}", disk.free());
    me.session("after.wav", wav(60.0, 1000.0), &[]).await;
    let (status, text) = ready(&me).await;
    assert!(status == 200 && text.starts_with("ready"), "{status} {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_reading_and_deleting_work_and_the_rest_says_why_not() {
    let (disk, folder) = (Disk::new(40 * MB), TempDir::new().unwrap());
    let (setup, log) = node(&disk, folder.path(), 0.5, &["--min-free-bytes", "1"]);
    let mut node = setup.start();
    let me = node.visitor();
    // Their recordings are smaller than what the database writes to delete them.
    let mut ids = Vec::new();
    for _ in 0..12 {
        ids.push(me.session("short.wav", wav(0.1, 1000.0), &[]).await);
    }
    let running = me.session("running.wav", wav(600.0, 1000.0), &[]).await;
    let waiting = me.session("waiting.wav", wav(1.0, 1000.0), &[]).await;
    for id in &ids {
        me.wait(id, "completed").await;
    }
    me.wait(&running, "processing").await;
    until("there is a ballast", async || disk.seen_from_outside().join("ballast").exists()).await;
    let filler = disk.fill();
    // The write-ahead log has some room left from before, which renaming uses up.
    until("nothing can be written", async || !rename(&me, &ids[0], "x").await.status().is_success()).await;
    let refused = [
        rename(&me, &ids[0], "y").await,
        me.post(&format!("/api/v1/sessions/{waiting}/cancel")).await,
        me.upload("a.wav", wav(1.0, 1000.0), &[]).await,
    ];
    for answer in refused {
        let (status, code) = error(answer).await;
        assert_eq!((status, code.as_str()), FULL);
    }
    let (status, text) = ready(&me).await;
    assert!(status == 503 && text.contains("full") && text.contains(" B free"), "{status} {text}");
    assert_eq!(me.get(&format!("/api/v1/sessions/{running}/transcript.txt")).await.status(), 200);
    // Many deletions, also after the ballast has been removed, and one of a running session.
    for id in ids[1..].iter().chain([&running]) {
        let answer = delete(&me, id).await;
        assert_eq!(answer.status(), 204, "{:?}\n{}", error(answer).await, fs::read_to_string(&log).unwrap());
    }
    // A node that crashed can start on the full disk.
    node.kill();
    let mut node = setup.start();
    let me = me.at(&node.url);
    assert_eq!(me.json(&format!("/api/v1/sessions/{waiting}")).await["id"], waiting.as_str());
    drop(filler);
    // Everything works at once.
    assert_eq!(rename(&me, &ids[0], "There is room").await.status(), 200);
    me.wait(&waiting, "completed").await;
    assert_eq!(ready(&me).await.0, 200);
    let log = fs::read_to_string(log).unwrap();
    assert!(!log.contains("a request failed"), "{log}");

    // A node that was stopped properly starts on a disk that is full by then. The ballast makes the room that the start
    // needs.
    until("the ballast is back", async || disk.seen_from_outside().join("ballast").exists()).await;
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(node.id() as i32).unwrap(),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    until("it has stopped", async || {
        fs::read_dir(disk.seen_from_outside()).unwrap().flatten().all(|f| f.file_name() != "hark.sqlite-wal")
    })
    .await;
    node.kill();
    disk.leave(0);
    let node = setup.start();
    let me = me.at(&node.url);
    assert_eq!(delete(&me, &waiting).await.status(), 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_does_not_fit_waits_while_others_run() {
    let (disk, folder, s3) = (Disk::new(40 * MB), TempDir::new().unwrap(), S3::start());
    let url = format!("s3://{BUCKET}/waiting");
    let flags = ["--min-free-bytes", "1000000", "--workers", "1", "--recordings-url", &url];
    let (setup, _) = node(&disk, folder.path(), 0.02, &flags);
    let node = setup.env(&s3.env()).start();
    let me = node.visitor();
    let first = me.session("first.wav", wav(100.0, 1000.0), &[]).await;
    me.wait(&first, "processing").await;
    // 12 MB, of which a worker needs a copy, and two small ones.
    let large = me.session("large.wav", wav(375.0, 1000.0), &[]).await;
    let small =
        [me.session("small.wav", wav(1.0, 1000.0), &[]).await, me.session("small.wav", wav(1.0, 1000.0), &[]).await];
    until("there is a ballast", async || disk.seen_from_outside().join("ballast").exists()).await;
    let filler = disk.leave(8 * MB);
    for id in &small {
        let status = me.wait(id, "completed").await;
        assert_eq!(status["attempt"], 1);
    }
    let status = me.json(&format!("/api/v1/sessions/{large}/status")).await;
    assert_eq!((&status["status"], &status["attempt"]), (&json!("queued"), &json!(0)), "{status}");
    until("its page says what it waits for", async || {
        let status = me.json(&format!("/api/v1/sessions/{large}/status")).await;
        status["message"] == "Waiting for room on the server's disk: needs about 12.0 MB"
    })
    .await;
    let version = async || me.json(&format!("/api/v1/sessions/{large}/status")).await["version"].as_u64().unwrap();
    let before = version().await;
    time::sleep(Duration::from_secs(5)).await;
    assert_eq!(version().await, before, "it isn't tried again and again");
    fs::remove_file(filler).unwrap();
    let status = me.wait(&large, "completed").await;
    assert_eq!((&status["attempt"], &status["segments"]), (&json!(1), &json!(375)), "{status}");
}

/// What else keeps a database from being opened says so, and doesn't cost the ballast.
#[tokio::test(flavor = "multi_thread")]
async fn only_a_full_disk_costs_the_ballast_at_a_start() {
    let root = TempDir::new().unwrap();
    let data = root.path().join("data");
    for fault in ["damaged", "a folder", "newer"] {
        let _ = fs::remove_dir_all(&data);
        fs::create_dir(&data).unwrap();
        let (database, ballast) = (data.join("hark.sqlite"), data.join("ballast"));
        let said = match fault {
            "damaged" => {
                fs::write(&database, [b'x'; 8192]).unwrap();
                "file is not a database".to_owned()
            }
            "a folder" => {
                fs::create_dir(&database).unwrap();
                format!("'{}' can't be used: is a directory", database.display())
            }
            _ => {
                Store::migrate_file(&database).await.unwrap();
                let later = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                    VALUES (9999, 'later', TRUE, 'x', 1)";
                let file = SqliteConnectOptions::new().filename(&database);
                let mut connection = file.connect().await.unwrap();
                sqlx::query(later).execute(&mut connection).await.unwrap();
                connection.close().await.unwrap();
                "its tables have version 9999".to_owned()
            }
        };
        fs::write(&ballast, [0; 4096]).unwrap();
        let output = tokio::task::block_in_place(|| Setup::new(&data, &[]).refused());
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(log.contains("the database can't be opened: ") && log.contains(&said), "{fault}: {log}");
        assert!(ballast.exists() && !log.contains("the disk is full"), "{fault}: {log}");
    }
}
