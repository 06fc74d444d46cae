//! `hark backup` and `hark restore` with the real program: taken while it transcribes and receives, put back into another
//! folder, damaged, interrupted by a kill, and where they are refused.

#[path = "support/process.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by test binaries")]
mod process;
mod support;

use process::{Process, Setup};
use reqwest::StatusCode;
use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::{ConnectOptions, Connection, sqlite::SqliteConnectOptions};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use support::{TIMEOUT, Visitor, slow_engine, wav};
use tempfile::TempDir;
use tokio::{sync::mpsc, task::block_in_place};

/// A command of `hark` for this data folder.
fn hark(args: &[&str], data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hark"));
    command.args(args).env("HARK_DATA_DIR", data).env_remove("DATABASE_URL").env_remove("HARK_RECORDINGS_URL");
    command
}

/// What it said on both outputs, and whether it succeeded.
fn said(mut command: Command) -> (bool, String) {
    let out = command.output().unwrap();
    (out.status.success(), String::from_utf8(out.stdout).unwrap() + &String::from_utf8(out.stderr).unwrap())
}

fn refused(command: Command) -> String {
    let (done, text) = said(command);
    assert!(!done, "{text}");
    text
}

fn done(command: Command) -> String {
    let (done, text) = said(command);
    assert!(done, "{text}");
    text
}

fn path(file: &Path) -> &str {
    file.to_str().unwrap()
}

/// A folder with a program for an engine that takes so many seconds for each second of a recording, and flags for it.
struct World {
    folder: TempDir,
    engine: String,
}

impl World {
    fn new(pause: f64) -> Self {
        let folder = TempDir::new().unwrap();
        let engine = slow_engine(folder.path(), pause);
        Self { folder, engine }
    }

    fn data(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start(&self, name: &str) -> Process {
        let flags = ["--engine", "command", "--engine-command", &self.engine, "--min-free-bytes", "1"];
        block_in_place(|| Setup::new(&self.data(name), &flags).start())
    }

    /// A data folder whose Hark has one completed session and has stopped, with its visitor.
    async fn used(&self, name: &str) -> (Visitor, String) {
        let node = self.start(name);
        let me = node.visitor();
        me.cookie().await;
        let id = me.session("a.wav", wav(2.0, 1000.0), &[]).await;
        me.wait(&id, "completed").await;
        stop(node);
        (me, id)
    }
}

/// Stops it as an operator would.
fn stop(mut node: Process) {
    block_in_place(|| node.terminate());
}

/// What is in a data folder of what belongs to a database.
fn held(data: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(data) else { return Vec::new() };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name != "hark.lock" && name != "ballast").collect();
    names.sort();
    names
}

async fn segments(me: &Visitor, id: &str) -> Value {
    me.json(&format!("/api/v1/sessions/{id}/segments")).await["segments"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_busy_hark_is_restored_with_everything() {
    let world = World::new(0.2);
    let node = world.start("data");
    let me = node.visitor();
    me.cookie().await;
    let (first, second) = (wav(2.0, 1000.0), wav(12.0, 1000.0));
    let finished = me.session("finished.wav", first.clone(), &[]).await;
    me.wait(&finished, "completed").await;
    let text = segments(&me, &finished).await;
    let running = me.session("running.wav", second.clone(), &[]).await;
    let waiting = me.session("waiting.wav", first.clone(), &[]).await;
    let some_text = async {
        while segments(&me, &running).await.as_array().unwrap().len() < 2 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, some_text).await.unwrap();
    // An upload that has begun, and goes on after the backup.
    let (send, receive) = mpsc::channel::<Vec<u8>>(8);
    let pieces = futures::stream::unfold(receive, |mut receive| async {
        let piece = receive.recv().await?;
        Some((Ok::<_, std::io::Error>(piece), receive))
    });
    let body = reqwest::Body::wrap_stream(pieces);
    let form = me
        .request("POST", "/api/v1/sessions")
        .header("content-type", "multipart/form-data; boundary=xyz")
        .header("cookie", me.cookie().await)
        .body(body);
    let upload = tokio::spawn(form.send());
    let head = "--xyz\r\ncontent-disposition: form-data; name=\"file\"; filename=\"late.wav\"\r\n\r\n";
    send.send([head.as_bytes(), &first[..1000]].concat()).await.unwrap();
    let incoming = node.data.join("incoming");
    let begun = async {
        while fs::read_dir(&incoming).unwrap().next().is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, begun).await.expect("the upload begins");

    let file = world.data("backup.tar");
    let told = block_in_place(|| done(hark(&["backup", path(&file)], &node.data)));
    assert!(told.starts_with("backed up: 3 sessions, 3 recordings, "), "{told}");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!world.data("backup.tar.partial").exists());
    assert_eq!(fs::read_dir(node.data.join("spool")).unwrap().count(), 0, "no copy of the database is left");
    send.send([&first[1000..], b"\r\n--xyz--\r\n"].concat()).await.unwrap();
    drop(send);
    let late = upload.await.unwrap().unwrap();
    assert_eq!(late.status(), StatusCode::CREATED, "the server went on meanwhile");
    stop(node);
    // Another tar reads it too.
    let listed = Command::new("tar").arg("-tf").arg(&file).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(
        listed.starts_with("hark.sqlite\nsecret.key\nrecordings/") && listed.ends_with("manifest.json\n"),
        "{listed}"
    );

    let told = block_in_place(|| done(hark(&["restore", path(&file)], &world.data("other"))));
    assert!(told.contains("3 sessions, 3 recordings, as they were on "), "{told}");
    let node = world.start("other");
    let me = me.at(&node.url);
    let all = me.json("/api/v1/sessions").await;
    let mut titles: Vec<&str> =
        all["sessions"].as_array().unwrap().iter().map(|session| session["title"].as_str().unwrap()).collect();
    titles.sort_unstable();
    assert_eq!(titles, ["finished.wav", "running.wav", "waiting.wav"]);
    assert_eq!(segments(&me, &finished).await, text);
    for (id, recording, seconds) in [(&finished, &first, 2), (&running, &second, 12), (&waiting, &first, 2)] {
        let played = me.get(&format!("/api/v1/sessions/{id}/audio")).await;
        assert_eq!((played.status(), &*played.bytes().await.unwrap()), (StatusCode::OK, &recording[..]));
        me.wait(id, "completed").await;
        assert_eq!(segments(&me, id).await.as_array().unwrap().len(), seconds, "{id}");
    }
    // The index of texts is there.
    let found = me.json("/api/v1/search?q=word").await;
    assert!(found.to_string().contains(&finished), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_can_be_a_pipe() {
    let world = World::new(0.01);
    let (me, id) = world.used("data").await;
    let mut from = hark(&["backup", "-"], &world.data("data"));
    let mut from = from.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut to = hark(&["restore", "-"], &world.data("other"));
    to.stdin(from.stdout.take().unwrap());
    let told = block_in_place(|| done(to));
    assert!(told.contains("1 session, 1 recording"), "{told}");
    let out = block_in_place(|| from.wait_with_output().unwrap());
    let told = String::from_utf8(out.stderr).unwrap();
    assert!(out.status.success() && told.starts_with("backed up: 1 session"), "{told}");
    let node = world.start("other");
    assert_eq!(segments(&me.at(&node.url), &id).await.as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_that_is_gone_is_counted_and_its_session_kept() {
    let world = World::new(0.01);
    let (me, id) = world.used("data").await;
    let data = world.data("data");
    fs::remove_file(data.join("recordings").join(&id)).unwrap();
    fs::remove_file(data.join("secret.key")).unwrap();
    let file = world.data("backup.tar");
    let told = block_in_place(|| done(hark(&["backup", path(&file)], &data)));
    assert!(told.contains("1 session, 0 recordings") && told.contains("1 session had no recording"), "{told}");
    assert!(
        told.contains("the data folder has no secret.key. If HARK_SECRET is set, keep it with the backup"),
        "{told}"
    );
    let told = block_in_place(|| done(hark(&["restore", path(&file)], &world.data("other"))));
    assert!(told.contains("start Hark with the HARK_SECRET that it had"), "{told}");
    let node = world.start("other");
    // With another key nobody is known.
    assert_eq!(me.at(&node.url).json("/api/v1/sessions").await["sessions"].as_array().unwrap().len(), 0);
    let listed = block_in_place(|| done(hark(&["sessions", "list"], &node.data)));
    assert!(listed.contains(&id), "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_over_and_nothing_is_taken_from_a_running_hark() {
    let world = World::new(0.01);
    let (me, id) = world.used("data").await;
    let (data, file) = (world.data("data"), world.data("backup.tar"));
    block_in_place(|| {
        done(hark(&["backup", path(&file)], &data));
        let told = refused(hark(&["backup", path(&file)], &data));
        assert!(told.contains("exists already"), "{told}");
        let told = refused(hark(&["backup", path(&world.data("none/b.tar"))], &data));
        assert!(told.contains("can't be written"), "{told}");
        let told = refused(hark(&["backup", path(&world.data("b.tar"))], &world.data("none")));
        assert!(told.contains("there is no database"), "{told}");
        assert!(!world.data("b.tar").exists() && !world.data("none").exists());
        let told = refused(hark(&["restore", path(&file)], &data));
        assert!(told.contains("isn't empty") && told.contains("--replace"), "{told}");
        // A folder that somebody uses for something else.
        fs::create_dir(world.data("home")).unwrap();
        fs::write(world.data("home").join("letter.txt"), "dear").unwrap();
        let told = refused(hark(&["restore", path(&file)], &world.data("home")));
        assert!(told.contains("it has 'letter.txt'"), "{told}");
        for args in [["backup", "x.tar"], ["restore", "x.tar"]] {
            let mut command = hark(&args, &data);
            command.env("DATABASE_URL", "postgres://hark@127.0.0.1:1/hark");
            let told = refused(command);
            assert!(told.contains("PostgreSQL") && told.contains("pg_"), "{told}");
        }
    });
    let node = world.start("data");
    let before = held(&data);
    for flags in [&["restore", path(&file)][..], &["restore", "--replace", path(&file)]] {
        let told = block_in_place(|| refused(hark(flags, &data)));
        assert!(told.contains("is in use by a running Hark"), "{told}");
    }
    assert_eq!(held(&data), before);
    let me = me.at(&node.url);
    let newer = me.session("newer.wav", wav(1.0, 1000.0), &[]).await;
    me.wait(&newer, "completed").await;
    stop(node);

    // In its place, and what was there is kept.
    let told = block_in_place(|| done(hark(&["restore", "--replace", path(&file)], &data)));
    assert!(told.contains("what was there before is in "), "{told}");
    let node = world.start("data");
    let me = me.at(&node.url);
    assert_eq!(me.get(&format!("/api/v1/sessions/{newer}")).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(segments(&me, &id).await.as_array().unwrap().len(), 2);
    stop(node);
    assert!(data.join("before-restore/recordings").join(&newer).exists());
    let told = block_in_place(|| refused(hark(&["restore", "--replace", path(&file)], &data)));
    assert!(told.contains("is there from an earlier restore"), "{told}");
    // What was moved away is a whole data folder.
    let was = world.data("was");
    fs::rename(data.join("before-restore"), &was).unwrap();
    let node = world.start("was");
    let me = me.at(&node.url);
    for id in [&newer, &id] {
        assert_eq!(me.get(&format!("/api/v1/sessions/{id}/audio")).await.status(), StatusCode::OK);
    }
}

/// The files of an archive.
fn files(archive: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(File::open(archive).unwrap());
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (entry.path().unwrap().display().to_string(), bytes)
    });
    entries.collect()
}

/// Writes an archive of these files, with the right hashes in its manifest.
fn archive(files: &BTreeMap<String, Vec<u8>>, to: &Path) {
    let mut manifest: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
    let mut builder = tar::Builder::new(File::create(to).unwrap());
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, name, bytes).unwrap();
    };
    for (name, bytes) in files.iter().filter(|(name, _)| *name != "manifest.json") {
        let sha256 = data_encoding::HEXLOWER.encode(&Sha256::digest(bytes));
        manifest["files"][name] = serde_json::json!({"bytes": bytes.len(), "sha256": sha256});
        add(name, bytes);
    }
    add("manifest.json", &serde_json::to_vec(&manifest).unwrap());
    builder.finish().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_or_newer_is_refused_and_leaves_nothing() {
    let world = World::new(0.01);
    let (_, id) = world.used("data").await;
    let file = world.data("backup.tar");
    block_in_place(|| done(hark(&["backup", path(&file)], &world.data("data"))));
    let whole = fs::read(&file).unwrap();
    let of = |bytes: &[u8], name: &str| {
        let file = world.data(name);
        fs::write(&file, bytes).unwrap();
        file
    };
    let recording = format!("recordings/{id}");
    let at = whole.windows(recording.len()).position(|bytes| bytes == recording.as_bytes()).unwrap();
    let mut changed = whole.clone();
    changed[at + 600] ^= 1;
    let newer = {
        let mut files = files(&file);
        let database = of(&files["hark.sqlite"], "newer.sqlite");
        let mut connection = SqliteConnectOptions::new().filename(&database).connect().await.unwrap();
        let later = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
            VALUES (9999, 'later', TRUE, 'x', 1)";
        sqlx::query(later).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        files.insert("hark.sqlite".to_owned(), fs::read(&database).unwrap());
        archive(&files, &world.data("newer.tar"));
        world.data("newer.tar")
    };
    let cases = [
        (of(&whole[..whole.len() / 2], "half.tar"), "is incomplete"),
        (of(&changed, "changed.tar"), "isn't what was backed up"),
        (of(&[7; 5000], "other.tar"), "isn't a backup of Hark"),
        (of(&[], "empty.tar"), "is incomplete"),
        (newer, "its tables have version 9999"),
        (world.data("none.tar"), "can't be read"),
    ];
    block_in_place(|| {
        for (file, expected) in &cases {
            for flags in [&["restore"][..], &["restore", "--replace"]] {
                let other = world.data("other");
                let told = refused(hark(&[flags, &[path(file)]].concat(), &other));
                assert!(told.contains(expected), "{}: {told}", file.display());
                assert_eq!(held(&other), Vec::<String>::new(), "{}", file.display());
            }
        }
        // In place of another one: that stays.
        let before = held(&world.data("data"));
        refused(hark(&["restore", "--replace", path(&cases[1].0)], &world.data("data")));
        assert_eq!(held(&world.data("data")), before);
        // After all of these, the whole one can be restored there.
        done(hark(&["restore", path(&file)], &world.data("other")));
    });
}

/// Waits until something is so.
fn until(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !is() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_backup_leaves_no_backup_and_the_next_one_works() {
    let world = World::new(0.01);
    let (_, id) = world.used("data").await;
    let (data, file) = (world.data("data"), world.data("backup.tar"));
    let recording = data.join("recordings").join(&id);
    let was = fs::read(&recording).unwrap();
    // So large that it isn't written before the kill; most of it takes no room on the disk.
    File::options().write(true).open(&recording).unwrap().set_len(8_000_000_000).unwrap();
    block_in_place(|| {
        let child = hark(&["backup", path(&file)], &data).stdout(Stdio::null()).spawn().unwrap();
        let partial = world.data("backup.tar.partial");
        until("some of it is written", || partial.metadata().is_ok_and(|meta| meta.len() > 2_000_000));
        let told = refused(hark(&["backup", path(&file)], &data));
        assert!(told.contains("is being written by another backup"), "{told}");
        kill(child);
        assert!(!file.exists());
        assert_eq!(fs::read_dir(data.join("spool")).unwrap().count(), 0);
        fs::write(&recording, was).unwrap();
        done(hark(&["backup", path(&file)], &data));
        assert!(!partial.exists());
        done(hark(&["restore", path(&file)], &world.data("other")));
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_restore_leaves_what_was_there() {
    let world = World::new(0.01);
    let (me, id) = world.used("data").await;
    let file = world.data("backup.tar");
    block_in_place(|| done(hark(&["backup", path(&file)], &world.data("data"))));
    let whole = fs::read(&file).unwrap();
    for (target, flags) in [("empty", &["restore", "-"][..]), ("data", &["restore", "--replace", "-"])] {
        let other = world.data(target);
        let before = held(&other);
        block_in_place(|| {
            let mut child = hark(flags, &other).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
            let mut stdin = child.stdin.take().unwrap();
            stdin.write_all(&whole[..whole.len() - 2048]).unwrap();
            let staged = other.join("restore-unpacked/recordings").join(&id);
            until("almost all is unpacked", || staged.exists());
            kill(child);
        });
        let node = world.start(target);
        let mine = me.at(&node.url).json("/api/v1/sessions").await["sessions"].as_array().unwrap().len();
        assert_eq!(mine, usize::from(target == "data"), "{target}");
        stop(node);
        let left: Vec<String> = held(&other).into_iter().filter(|name| name.starts_with("restore")).collect();
        assert_eq!(left, Vec::<String>::new());
        assert!(before.iter().all(|name| held(&other).contains(name)), "{before:?}");
        block_in_place(|| done(hark(&["restore", "--replace", path(&file)], &other)));
        let node = world.start(target);
        assert_eq!(segments(&me.at(&node.url), &id).await.as_array().unwrap().len(), 2);
        stop(node);
    }
}
