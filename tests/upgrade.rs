//! What earlier releases have stored, opened by this program with everything in it: for each release, a backup of a Hark with
//! SQLite and a dump of one with PostgreSQL, in `tests/upgrade/VERSION` by the version of its tables. Before a migration is
//! added, `HARK_NEW_FIXTURE=VERSION cargo test --features ssr --test upgrade` writes those of the present tables.

#[path = "support/postgres.rs"]
#[allow(unreachable_pub, reason = "shared by test binaries")]
mod postgres;
#[path = "support/process.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by test binaries")]
mod process;
mod support;

use postgres::Postgres;
use process::{Process, Setup};
use reqwest::{StatusCode, header};
use serde_json::{Value, json};
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};
use support::{TIMEOUT, Visitor, slow_engine, wav};
use tempfile::TempDir;
use tokio::{task::block_in_place, time};

const PASSWORD: &str = "a long password of administrators";
const TOKEN: &str = "token-of-outside-workers";

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/upgrade")
}

/// A command of `hark` that succeeds; what it said.
fn hark(args: &[&str], data: &Path, database: Option<&str>, input: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hark"));
    command.args(args).env("HARK_DATA_DIR", data).env_remove("DATABASE_URL");
    if let Some(url) = database {
        command.env("DATABASE_URL", url);
    }
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{args:?}: {said}");
    said
}

/// A place for a Hark: a data folder, and with PostgreSQL a folder for its recordings.
struct Place {
    folder: TempDir,
    database: Option<String>,
}

impl Place {
    fn new(database: Option<String>) -> Self {
        let folder = TempDir::new().unwrap();
        fs::create_dir(folder.path().join("shared")).unwrap();
        Self { folder, database }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn recordings(&self) -> PathBuf {
        self.folder.path().join("shared")
    }

    fn start(&self, workers: &str) -> Process {
        let engine = slow_engine(self.folder.path(), 0.2);
        let flags = ["--workers", workers, "--engine", "command", "--engine-command", &engine, "--min-free-bytes", "1"];
        let mut env = vec![("HARK_WORKER_TOKEN", TOKEN.to_owned()), ("HARK_NODE_NAME", "node".to_owned())];
        if let Some(url) = &self.database {
            env.push(("DATABASE_URL", url.clone()));
            env.push(("HARK_RECORDINGS_URL", format!("file://{}", self.recordings().display())));
        }
        block_in_place(|| Setup::new(&self.data(), &flags).env(&env).start())
    }

    fn hark(&self, args: &[&str], input: &str) -> String {
        block_in_place(|| hark(args, &self.data(), self.database.as_deref(), input))
    }
}

fn stop(mut node: Process) {
    block_in_place(|| node.terminate());
}

/// A tone that is different for each number, so short that the fixtures are small.
fn recording(number: u8) -> Vec<u8> {
    wav(0.25 + f64::from(number) * 0.01, 1000.0)
}

async fn sent(me: &Visitor, method: &str, path: &str, body: Value) -> Value {
    let request = me.request(method, path).bearer_auth(TOKEN).json(&body);
    let answer = me.send(request).await;
    assert!(answer.status().is_success(), "{method} {path}: {}", answer.status());
    answer.json().await.unwrap_or_default()
}

/// A session of a worker outside Hark, with a line and this status.
async fn of_others(me: &Visitor, title: &str, line: &str, status: Value) {
    let made = sent(me, "POST", "/api/v1/sessions", json!({"title": title, "duration_total": 100.0})).await;
    let path = format!("/api/v1/sessions/{}", made["id"].as_str().unwrap());
    sent(me, "PUT", &format!("{path}/status"), json!({"status": "processing", "progress": 10.0})).await;
    sent(me, "POST", &format!("{path}/segments"), json!({"index": 0, "start": 0, "end": 1, "text": line})).await;
    sent(me, "PUT", &format!("{path}/status"), status).await;
}

/// Does everything of which something is stored. Returns what is needed to find it again.
async fn live(place: &Place) -> Value {
    let node = place.start("1");
    let me = node.visitor();
    let cookie = me.cookie().await;
    let finished = me.session("talk.wav", wav(2.0, 1000.0), &[("vocabulary", "Ärger"), ("language", "de")]).await;
    me.wait(&finished, "completed").await;
    let path = format!("/api/v1/sessions/{finished}");
    sent(&me, "PATCH", &path, json!({"title": "Ärger im Büro"})).await;
    of_others(&me, "It failed", "the last words", json!({"status": "failed", "error": "it broke"})).await;
    of_others(&me, "By others", "from outside", json!({"status": "completed"})).await;
    let key = sent(&me, "PUT", "/api/v1/identity/recovery-key", Value::Null).await["key"].clone();
    let other = Visitor::new(&node.url);
    other.cookie().await;
    // Takes the worker until the end.
    let running = other.session("of somebody else.wav", wav(60.0, 1000.0), &[]).await;
    other.wait(&running, "processing").await;
    me.session("It waits.wav", recording(1), &[]).await;
    let unwanted = me.session("Nobody wanted it.wav", recording(2), &[]).await;
    me.post(&format!("/api/v1/sessions/{unwanted}/cancel")).await;
    let begun = async {
        while other.json(&format!("/api/v1/sessions/{running}/segments")).await["segments"]
            .as_array()
            .unwrap()
            .is_empty()
        {
            time::sleep(Duration::from_millis(50)).await;
        }
    };
    time::timeout(TIMEOUT, begun).await.unwrap();
    // Only its database matters.
    assert_eq!(other.send(other.request("DELETE", &format!("/api/v1/sessions/{running}"))).await.status(), 204);
    stop(node);
    place.hark(&["admin", "set-password", "--stdin"], PASSWORD);
    json!({"cookie": cookie, "recovery_key": key})
}

/// Looks for everything that [`live`] has left, with the present program.
async fn check(place: &Place, known: &Value, has_recordings: bool) {
    let node = place.start("0");
    let key = known["recovery_key"].as_str().unwrap();
    let opened = Visitor::new(&node.url);
    opened.cookie().await;
    let answer = opened.send(opened.request("POST", "/api/v1/identity/open").json(&json!({"key": key}))).await;
    assert_eq!(answer.status(), StatusCode::NO_CONTENT, "the recovery key opens them");
    let cookie = known["cookie"].as_str().unwrap();
    let get = async |path: &str| {
        let answer = reqwest::Client::new().get(format!("{}{path}", node.url)).header(header::COOKIE, cookie).send();
        let answer = time::timeout(TIMEOUT, answer).await.unwrap().unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        answer
    };
    let json = async |path: &str| get(path).await.json::<Value>().await.unwrap();
    let listed = json("/api/v1/sessions").await;
    assert_eq!(opened.json("/api/v1/sessions").await["sessions"], listed["sessions"]);
    let sessions = listed["sessions"].as_array().unwrap();
    let find = |title: &str| {
        let found = sessions.iter().find(|session| session["title"] == title);
        found.unwrap_or_else(|| panic!("no '{title}' in {listed}"))
    };
    assert_eq!(sessions.len(), 5, "{listed}");
    let texts = async |session: &Value| -> Vec<String> {
        let id = session["id"].as_str().unwrap();
        let list = json(&format!("/api/v1/sessions/{id}/segments")).await;
        list["segments"].as_array().unwrap().iter().map(|s| s["text"].as_str().unwrap().to_owned()).collect()
    };
    for (title, status, lines) in [
        ("Ärger im Büro", "completed", &["word at 0", "word at 1"][..]),
        ("It failed", "failed", &["the last words"]),
        ("By others", "completed", &["from outside"]),
        ("It waits.wav", "queued", &[]),
        ("Nobody wanted it.wav", "cancelled", &[]),
    ] {
        let session = find(title);
        assert_eq!(session["status"]["status"], status, "{title}");
        assert_eq!(texts(session).await, lines, "{title}");
    }
    let finished = find("Ärger im Büro");
    assert_eq!((&finished["language"], &finished["vocabulary"]), (&"de".into(), &"Ärger".into()), "{finished}");
    let path = format!("/api/v1/sessions/{}", finished["id"].as_str().unwrap());
    assert!(!get(&format!("{path}/waveform")).await.bytes().await.unwrap().is_empty());
    let stages = get(&format!("/sessions/{}", finished["id"].as_str().unwrap())).await.text().await.unwrap();
    assert!(stages.contains("word at 1"), "the page shows it");
    for (query, id) in [("%22at%201%22", &finished["id"]), ("outside", &find("By others")["id"])] {
        let found = json(&format!("/api/v1/search?q={query}")).await;
        assert!(found.to_string().contains(id.as_str().unwrap()), "{query}: {found}");
    }
    let titled = json("/api/v1/sessions?q=%C3%A4rger").await;
    assert_eq!(titled["sessions"].as_array().unwrap().len(), 1, "titles are found");
    if has_recordings {
        let played = get(&format!("{path}/audio")).await.bytes().await.unwrap();
        assert_eq!(&*played, wav(2.0, 1000.0));
    }
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let form = client
        .post(format!("{}/admin/sign-in", node.url))
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(format!("password={}", PASSWORD.replace(' ', "+")));
    assert_eq!(form.send().await.unwrap().status(), StatusCode::SEE_OTHER, "the administrators' password is known");
    // It goes on: what waited is transcribed, and something new is.
    stop(node);
    let node = place.start("1");
    let me = opened.at(&node.url);
    if has_recordings {
        me.wait(find("It waits.wav")["id"].as_str().unwrap(), "completed").await;
    }
    let new = me.session("new.wav", recording(3), &[]).await;
    if has_recordings {
        me.wait(&new, "completed").await;
    }
    stop(node);
}

/// The fixtures, oldest first, with the versions of their tables.
fn all() -> Vec<(u32, PathBuf)> {
    let entries = fs::read_dir(fixtures()).unwrap().map(|entry| entry.unwrap());
    let mut all: Vec<_> =
        entries.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path()))).collect();
    all.sort();
    assert!(!all.is_empty());
    all
}

fn known(folder: &Path, database: &str) -> Value {
    let text = fs::read_to_string(folder.join("known.json")).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()[database].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_of_earlier_releases_are_restored_with_everything() {
    for (version, folder) in all() {
        let place = Place::new(None);
        let told = place.hark(&["restore", folder.join("backup.tar").to_str().unwrap()], "");
        assert!(told.contains("5 sessions, 3 recordings"), "{version}: {told}");
        check(&place, &known(&folder, "sqlite"), true).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_of_earlier_releases_on_postgres_are_opened_with_everything() {
    let postgres = block_in_place(Postgres::start);
    for (version, folder) in all() {
        let name = format!("of_{version}");
        let place = Place::new(Some(postgres.database(&name)));
        postgres.query(&name, &fs::read_to_string(folder.join("postgres.sql")).unwrap());
        // The recordings are those of another place; only its marker is needed.
        let id = postgres.query(&name, "SELECT id FROM public.cluster").concat();
        fs::write(place.recordings().join("hark-cluster.txt"), id).unwrap();
        check(&place, &known(&folder, "postgres"), false).await;
    }
}

/// What [`live`] leaves now is found, too; and written down as a fixture, if that is asked for.
#[tokio::test(flavor = "multi_thread")]
async fn what_this_program_stores_is_found_again() {
    let new = std::env::var("HARK_NEW_FIXTURE").ok().map(|version| fixtures().join(version));
    let postgres = block_in_place(Postgres::start);
    let own = Place::new(None);
    let shared = Place::new(Some(postgres.database("present")));
    let (of_sqlite, of_postgres) = (live(&own).await, live(&shared).await);
    if let Some(folder) = &new {
        fs::create_dir_all(folder).unwrap();
        let _ = fs::remove_file(folder.join("backup.tar"));
        own.hark(&["backup", folder.join("backup.tar").to_str().unwrap()], "");
        let dump = Command::new("pg_dump")
            .args(["--inserts", "--no-owner", "--no-privileges", "-d", shared.database.as_deref().unwrap()])
            .output()
            .unwrap();
        assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
        // Without the commands that only psql's own reader of files knows.
        let dump = String::from_utf8(dump.stdout).unwrap();
        let lines = dump.lines().filter(|line| !line.starts_with('\\') && !line.starts_with("--") && !line.is_empty());
        fs::write(folder.join("postgres.sql"), lines.map(|line| format!("{line}\n")).collect::<String>()).unwrap();
        let known = json!({"sqlite": of_sqlite, "postgres": of_postgres});
        fs::write(folder.join("known.json"), format!("{known:#}\n")).unwrap();
    }
    check(&own, &of_sqlite, true).await;
    check(&shared, &of_postgres, true).await;
}
