//! The database as an operator meets it: what a node says and does while PostgreSQL is away, what it needs rights for, and
//! tables of an older or a newer Hark. With real servers.

#[path = "support/postgres.rs"]
#[allow(unreachable_pub, reason = "shared by test binaries")]
mod postgres;
#[path = "support/servers.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by test binaries")]
mod servers;
mod support;

use hark::{
    model::{Filter, SessionId, State},
    server::{
        owner::Owner,
        store::{Store, TextQuery},
    },
};
use postgres::Postgres;
use reqwest::StatusCode;
use servers::{Process, free_port};
use sqlx::{ConnectOptions, Connection, sqlite::SqliteConnectOptions};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use support::{Sse, TIMEOUT, Visitor, slow_engine, wav};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    time::{self, Instant},
};

/// A bound on what must take two seconds, for a loaded machine. Waiting for a connection of the pool takes ten.
const SOON: Duration = Duration::from_secs(6);

const ADMIN_TOKEN: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A command of `hark`, with a data folder and a database.
fn hark(args: &[&str], data: &Path, database: Option<&str>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hark"));
    command.args(args);
    set_up(command, data, database)
}

/// A command that runs `hark`, with a data folder and a database.
fn set_up(mut command: Command, data: &Path, database: Option<&str>) -> Command {
    command.env("HARK_DATA_DIR", data).env("HARK_ENGINE", "pocketsphinx").env("HARK_MODEL_FETCH", "false");
    match database {
        Some(url) => command.env("DATABASE_URL", url),
        None => command.env_remove("DATABASE_URL"),
    };
    command
}

/// What it wrote, on both outputs, and whether it succeeded.
fn said(mut command: Command) -> (bool, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.success(), String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap())
}

/// A node that serves, as a process with a log.
struct Node {
    url: String,
    log: PathBuf,
    _process: Process,
    _data: TempDir,
}

impl Node {
    async fn start(database: &str, flags: &[&str]) -> Self {
        let data = TempDir::new().unwrap();
        let (port, log) = (free_port(), data.path().join("log"));
        let mut command = hark(&["serve"], &data.path().join("data"), Some(database));
        command.args(flags).env("LEPTOS_SITE_ADDR", format!("127.0.0.1:{port}")).env("HARK_ADMIN_TOKEN", ADMIN_TOKEN);
        let mut process = Process::start("hark", &mut command, log.clone());
        let url = format!("http://127.0.0.1:{port}");
        let ready = async {
            while !reqwest::get(format!("{url}/readyz")).await.is_ok_and(|answer| answer.status().is_success()) {
                process.must_run();
                time::sleep(Duration::from_millis(50)).await;
            }
        };
        time::timeout(TIMEOUT, ready).await.expect("the node is ready");
        Self { url, log, _process: process, _data: data }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }
}

/// A way to PostgreSQL that can be shut: then it takes connections and what is sent, and nothing comes back.
struct Valve {
    port: u16,
    open: watch::Sender<bool>,
}

impl Valve {
    async fn before(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (open, state) = watch::channel(true);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let mut state = state.clone();
                tokio::spawn(async move {
                    let _ = state.wait_for(|open| *open).await;
                    let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
                    let (client, server) = (client.into_split(), server.into_split());
                    tokio::join!(carry(client.0, server.1, state.clone()), carry(server.0, client.1, state));
                });
            }
        });
        Self { port, open }
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut open: watch::Receiver<bool>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        if open.wait_for(|open| *open).await.is_err() || to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
}

/// Takes the database away from a node and gives it back, and looks at what its clients and its operator see.
async fn is_away_and_comes_back(node: &Node, mut lose: impl AsyncFnMut(bool), cause: &str) {
    let me = Visitor::new(&node.url);
    me.cookie().await;
    let id = me.session("a.wav", wav(1.0, 1000.0), &[]).await;
    let session = format!("/api/v1/sessions/{id}");
    let mut streams = Vec::new();
    for path in [format!("{session}/status/stream"), "/api/v1/status/stream".to_owned()] {
        let mut stream = Sse::new(me.get(&path).await);
        assert_eq!(stream.next().await.unwrap().json()["status"], "queued");
        streams.push(stream);
    }
    // Somebody watches the dashboard all the while.
    let watch = me.request("GET", "/api/v1/admin/stream").header("authorization", format!("Bearer {ADMIN_TOKEN}"));
    let mut dashboard = Sse::new(me.send(watch).await);
    dashboard.next().await.expect("the dashboard is sent");
    lose(true).await;
    let health = reqwest::get(format!("{}/healthz", node.url)).await.unwrap();
    assert_eq!(health.status(), StatusCode::OK);
    let soon = async |what: &str, request: reqwest::RequestBuilder| {
        let asked = Instant::now();
        let answer = me.send(request).await;
        assert!(asked.elapsed() < SOON, "{what} took {:?}", asked.elapsed());
        answer
    };
    for round in 0..2 {
        for (method, path) in [
            ("GET", "/api/v1/sessions"),
            ("GET", &session),
            ("GET", &format!("{session}/segments")),
            ("GET", &format!("{session}/transcript.txt")),
            ("GET", "/api/v1/health/sessions"),
            ("POST", &format!("{session}/retry")),
        ] {
            let what = format!("{method} {path} in round {round}");
            let answer = soon(&what, me.request(method, path)).await;
            assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{what}");
            assert_eq!(answer.headers()["retry-after"], "5", "{what}");
            let body: serde_json::Value = answer.json().await.unwrap();
            assert_eq!(body["error"]["code"], "database_unavailable", "{what}");
        }
    }
    let page = me.request("GET", &format!("/sessions/{id}")).header("accept", "text/html");
    let page = soon("a page", page).await;
    assert_eq!(
        (page.status(), &page.headers()["retry-after"]),
        (StatusCode::SERVICE_UNAVAILABLE, &"5".parse().unwrap())
    );
    assert!(page.text().await.unwrap().contains("nothing can be read or saved"), "the page says so");
    let part = reqwest::multipart::Part::bytes(wav(1.0, 1000.0)).file_name("b.wav");
    let upload = me.request("POST", "/api/v1/sessions").multipart(reqwest::multipart::Form::new().part("file", part));
    assert_eq!(soon("an upload", upload).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    let ready = soon("/readyz", me.request("GET", "/readyz")).await;
    assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(ready.text().await.unwrap(), format!("the database is away: {cause}\n"));
    assert_eq!(soon("/metrics", me.request("GET", "/metrics")).await.status(), StatusCode::OK);
    // What the node holds itself, it still tells.
    assert_eq!(me.json(&format!("{session}/status")).await["status"], "queued");
    // Their heartbeats come after 15 s, which is longer than a node waits for a connection of its pool.
    for stream in &mut streams {
        while stream.next().await.expect("the stream stays open").event != "heartbeat" {}
    }
    lose(false).await;
    let back = async {
        while me.get("/readyz").await.status() != StatusCode::OK {
            time::sleep(Duration::from_millis(50)).await;
        }
    };
    time::timeout(TIMEOUT, back).await.expect("the node is ready again");
    assert_eq!(me.post(&format!("{session}/cancel")).await.status(), StatusCode::OK);
    for stream in &mut streams {
        while stream.next().await.expect("the stream goes on").json()["status"] != "cancelled" {}
    }
    // The node may work again a moment before it says so.
    let told = async {
        while !node.log().contains("the database is back after") {
            time::sleep(Duration::from_millis(50)).await;
        }
    };
    time::timeout(TIMEOUT, told).await.expect("the log says that it is back");
    let log = node.log();
    assert_eq!(log.matches(&format!("away: {cause}")).count(), 1, "{log}");
    assert_eq!(log.matches("the database is back after").count(), 1, "{log}");
    for noise in ["pool timed out", "no connection to the database was free", "ping on idle", "slow threshold"] {
        assert!(!log.contains(noise), "{noise} in {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_that_is_stopped_is_told_and_waited_for() {
    let mut postgres = tokio::task::block_in_place(|| Postgres::start_on(free_port()));
    let node = Node::start(&postgres.database("hark"), &["--workers", "0"]).await;
    let cause = format!("PostgreSQL at 127.0.0.1:{} refuses connections", postgres.port);
    let lose = async |away: bool| {
        tokio::task::block_in_place(|| if away { postgres.stop() } else { postgres.resume() });
    };
    is_away_and_comes_back(&node, lose, &cause).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_that_does_not_answer_is_told_and_waited_for() {
    let postgres = tokio::task::block_in_place(Postgres::start);
    let valve = Valve::before(postgres.port).await;
    let url = postgres.database("hark").replace(&postgres.port.to_string(), &valve.port.to_string());
    let node = Node::start(&url, &["--workers", "0"]).await;
    let cause = format!("PostgreSQL at 127.0.0.1:{} does not answer", valve.port);
    let lose = async |away: bool| {
        valve.open.send_replace(!away);
    };
    is_away_and_comes_back(&node, lose, &cause).await;
}

/// A server that refuses every password, as PostgreSQL does.
async fn refuses_passwords() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut request = [0; 1024];
            // It asks for TLS first, which this server doesn't have.
            let asked = client.read(&mut request).await.unwrap_or(0);
            if asked == 8 {
                let _ = client.write_all(b"N").await;
                let _ = client.read(&mut request).await;
            }
            let fields = b"SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed for user \"postgres\"\0\0";
            let mut error = vec![b'E'];
            error.extend((fields.len() as u32 + 4).to_be_bytes());
            error.extend(fields);
            let _ = client.write_all(&error).await;
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_reached_is_named_at_the_start_and_by_the_doctor() {
    let postgres = tokio::task::block_in_place(Postgres::start);
    let valve = Valve::before(postgres.port).await;
    valve.open.send_replace(false);
    let (port, password) = (postgres.port, refuses_passwords().await);
    let cases = [
        (1, "postgres", "none", "refuses connections".to_owned()),
        (valve.port, "postgres", "none", "does not answer".to_owned()),
        (port, "postgres", "none", "has no such database: 'none'".to_owned()),
        (port, "nobody", "postgres", "doesn't let the role 'nobody' in (role \"nobody\" does not exist)".to_owned()),
        (password, "postgres", "none", "refuses the password of the role 'postgres'".to_owned()),
    ];
    let tried = cases.into_iter().flat_map(|(port, role, name, cause)| {
        let (url, cause) =
            (format!("postgres://{role}:x@127.0.0.1:{port}/{name}"), format!("PostgreSQL at 127.0.0.1:{port} {cause}"));
        ["serve", "worker", "migrate", "doctor"].map(|command| {
            let (url, cause) = (url.clone(), cause.clone());
            tokio::task::spawn_blocking(move || {
                let data = TempDir::new().unwrap();
                let (done, text) = said(hark(&[command], data.path(), Some(&url)));
                let expected = match command {
                    "doctor" => format!("wrong    {cause}; see DATABASE_URL\n"),
                    "migrate" => format!("hark: the database can't be migrated: {cause}\n"),
                    _ => format!("hark: the database can't be opened: {cause}. See DATABASE_URL\n"),
                };
                assert!(!done && text.contains(&expected), "{command}: {text}");
                assert!(!text.contains("panic") && !text.contains("backtrace"), "{command}: {text}");
            })
        })
    });
    for one in tried.collect::<Vec<_>>() {
        one.await.unwrap();
    }
}

/// An SQLite file that another program has locked: requests that only read are answered, and others say so.
#[tokio::test(flavor = "multi_thread")]
async fn a_locked_sqlite_database_makes_a_node_unready() {
    let app = support::TestApp::with(&["--workers", "0"]).await;
    let me = app.visitor();
    me.cookie().await;
    let file = app.folder.path().join("hark.sqlite");
    let mut other = SqliteConnectOptions::new().filename(file).connect().await.unwrap();
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let asked = Instant::now();
    let answer = me.get("/readyz").await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(asked.elapsed() < SOON, "it took {:?}", asked.elapsed());
    assert!(answer.text().await.unwrap().contains("the database doesn't take a write"));
    assert_eq!(me.get("/api/v1/sessions").await.status(), StatusCode::OK);
    let refused = me.upload("a.wav", wav(0.5, 1000.0), &[]).await;
    assert_eq!(
        (refused.status(), &refused.headers()["retry-after"]),
        (StatusCode::SERVICE_UNAVAILABLE, &"5".parse().unwrap())
    );
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    me.session("a.wav", wav(0.5, 1000.0), &[]).await;
    assert_eq!(me.get("/readyz").await.status(), StatusCode::OK);
}

/// The blocks of code in a language below a heading of docs/operations.md.
fn documented(heading: &str, language: &str) -> Vec<&'static str> {
    let text = include_str!("../docs/operations.md");
    let section = text.split("\n## ").find(|section| section.starts_with(&format!("{heading}\n")));
    let blocks = section.expect("the heading").split("\n```").skip(1).step_by(2);
    let blocks: Vec<_> = blocks.filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n')).collect();
    assert!(!blocks.is_empty(), "no {language} below {heading}");
    blocks
}

/// The address of a database for another role than the superuser.
fn as_role(url: &str, role: &str) -> String {
    url.replace("postgres@", &format!("{role}@"))
}

/// The commands for a backup of PostgreSQL as docs/operations.md has them, from one server to another: with its two roles, and
/// with one that owns the database.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_postgres_is_restored_as_documented() {
    let roles = documented("Rights in PostgreSQL", "sql")[0];
    let [dump, restore] = documented("Backup of PostgreSQL", "sh")[..] else { panic!("two blocks of commands") };
    let (before, after) = tokio::task::block_in_place(|| (Postgres::start(), Postgres::start()));
    let make_roles: String = roles.lines().filter(|line| line.starts_with("CREATE ROLE")).collect();
    after.query("postgres", &make_roles);
    let program = Path::new(env!("CARGO_BIN_EXE_hark")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    for owner in ["hark_owner", "hark"] {
        let [folder, data, mounted] = std::array::from_fn(|_| TempDir::new().unwrap());
        let recordings = format!("file://{}", mounted.path().display());
        let flags = ["--workers", "0", "--recordings-url", &recordings];
        let run = |commands: &str, port: u16, url: &str| {
            let mut shell = Command::new("sh");
            shell.args(["-ec", commands]).current_dir(folder.path()).env("PATH", &path);
            shell.env("PGHOST", "127.0.0.1").env("PGPORT", port.to_string()).env("PGUSER", "postgres");
            shell.env("HARK_RECORDINGS_URL", &recordings);
            let (done, text) = said(set_up(shell, data.path(), Some(url)));
            assert!(done, "{commands}: {text}");
            text
        };
        let url = before.database("hark");
        before.query("hark", if owner == "hark" { "ALTER DATABASE hark OWNER TO hark" } else { roles });
        run("hark migrate", before.port, &as_role(&url, owner));
        let node = Node::start(&as_role(&url, "hark"), &flags).await;
        let me = Visitor::new(&node.url);
        let id = me.session("a.wav", wav(1.0, 1000.0), &[]).await;
        let cookie = me.cookie().await;
        run(dump, before.port, &as_role(&url, owner));
        let rights = folder.path().join("hark.dump").metadata().unwrap().permissions().mode();
        assert_eq!(rights & 0o077, 0, "the dump holds secrets");
        drop(node);

        let url = url.replace(&before.port.to_string(), &after.port.to_string());
        let restore = restore.replace("--owner=hark_owner ", &format!("--owner={owner} "));
        let text = run(&restore, after.port, &as_role(&url, owner));
        assert!(text.contains("found: 1 session"), "{text}");
        // The nodes' role has its rights again, and knows who has sent the session.
        let node = Node::start(&as_role(&url, "hark"), &flags).await;
        let me = Visitor::new(&node.url);
        let request = me.request("GET", &format!("/api/v1/sessions/{id}")).header("cookie", cookie);
        assert_eq!(me.send(request).await.status(), StatusCode::OK);
        me.session("b.wav", wav(1.0, 1000.0), &[]).await;
        drop(node);
        for server in [&before, &after] {
            server.query("postgres", "DROP DATABASE hark WITH (FORCE)");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_in_postgres_is_changed_once_between_two_starts() {
    let postgres = tokio::task::block_in_place(Postgres::start);
    let url = postgres.database("keys");
    let [data, mounted] = std::array::from_fn(|_| TempDir::new().unwrap());
    let recordings = format!("file://{}", mounted.path().display());
    let flags = ["--workers", "0", "--recordings-url", &recordings];
    let node = Node::start(&url, &flags).await;
    let me = Visitor::new(&node.url);
    let id = me.session("a.wav", wav(1.0, 1000.0), &[]).await;
    drop(node);
    // As if no node had run for long.
    postgres.query("keys", "DELETE FROM nodes");
    let rotate = || said(hark(&["secret", "rotate"], data.path(), Some(&url)));
    let (done, text) = rotate();
    assert!(done && text.contains("signs from each node's next start"), "{text}");
    let (done, text) = rotate();
    assert!(!done && text.contains("Nothing was changed"), "{text}");
    let node = Node::start(&url, &flags).await;
    assert_eq!(me.at(&node.url).json(&format!("/api/v1/sessions/{id}")).await["id"], *id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_without_the_right_to_make_tables_runs_a_migrated_database() {
    let postgres = tokio::task::block_in_place(Postgres::start);
    let url = postgres.database("rights");
    postgres.query("rights", documented("Rights in PostgreSQL", "sql")[0]);
    let [owner, role] = ["hark_owner", "hark"].map(|role| as_role(&url, role));
    let data = TempDir::new().unwrap();
    let run = |command: &str, url: &str| said(hark(&[command], data.path(), Some(url)));
    let refusal = "the role 'hark' may not change them. Run 'hark migrate' with the DATABASE_URL of a role that may";
    for command in ["serve", "worker", "migrate", "doctor"] {
        let (done, text) = run(command, &role);
        assert!(!done && text.contains("it has no tables, this program needs version "), "{command}: {text}");
        assert!(text.contains(refusal), "{command}: {text}");
    }
    let (done, text) = run("doctor", &owner);
    assert!(
        done && text.contains("ok       the database's tables will be made at the first start, in version "),
        "{text}"
    );
    let (done, text) = run("migrate", &owner);
    assert!(done && text.starts_with("the database's tables were made, in version "), "{text}");
    let (done, text) = run("migrate", &role);
    assert!(done && text.ends_with(" already; nothing was changed\n"), "{text}");
    let (done, text) = run("doctor", &role);
    assert!(done && text.contains("ok       the database's tables have version "), "{text}");

    let engine = slow_engine(data.path(), 0.01);
    let node = Node::start(&role, &["--engine", "command", "--engine-command", &engine]).await;
    let me = Visitor::new(&node.url);
    let id = me.session("a.wav", wav(2.0, 1000.0), &[]).await;
    me.wait(&id, "completed").await;
    for (method, path, status) in [
        ("GET", format!("/api/v1/sessions/{id}/transcript.txt"), StatusCode::OK),
        ("PUT", "/api/v1/identity/recovery-key".to_owned(), StatusCode::OK),
        ("GET", "/api/v1/health/sessions".to_owned(), StatusCode::OK),
        ("DELETE", format!("/api/v1/sessions/{id}"), StatusCode::NO_CONTENT),
    ] {
        assert_eq!(me.send(me.request(method, &path)).await.status(), status, "{method} {path}");
    }
    // A later version that needs more, and again may not.
    postgres
        .query("rights", "DELETE FROM _sqlx_migrations WHERE version = (SELECT MAX(version) FROM _sqlx_migrations)");
    let (done, text) = run("serve", &role);
    assert!(!done && text.contains("its tables have version ") && text.contains(refusal), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_program_on_newer_tables_says_so() {
    let postgres = tokio::task::block_in_place(Postgres::start);
    let url = postgres.database("newer");
    let data = TempDir::new().unwrap();
    for database in [Some(url.as_str()), None] {
        let (done, text) = said(hark(&["migrate"], data.path(), database));
        assert!(done, "{text}");
    }
    let later = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
        VALUES (9999, 'later', TRUE, 'x', 1)";
    postgres.query("newer", later);
    let file = SqliteConnectOptions::new().filename(data.path().join("hark.sqlite"));
    let mut connection = file.connect().await.unwrap();
    sqlx::query(later).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    for database in [Some(url.as_str()), None] {
        for command in [&["serve"][..], &["worker"], &["migrate"], &["sessions", "list"], &["doctor"]] {
            if database.is_none() && command == ["worker"] {
                continue;
            }
            let (done, text) = said(hark(command, data.path(), database));
            assert!(!done, "{command:?}: {text}");
            let newer = "its tables have version 9999, and this program knows versions up to ";
            assert!(text.contains(newer) && text.contains("made by a newer Hark"), "{command:?}: {text}");
        }
    }
}

/// The system's limit on open files bounds the streams, of which a worker has none.
#[tokio::test(flavor = "multi_thread")]
async fn only_a_node_with_streams_says_that_its_open_files_are_too_few() {
    let postgres = tokio::task::block_in_place(Postgres::start);
    let (url, folder) = (postgres.database("files"), TempDir::new().unwrap());
    for (role, started, says_so) in [("serve", "Hark is ready at", true), ("worker", "ready to work", false)] {
        let mut command = Command::new("prlimit");
        command.args(["--nofile=1024:1024", env!("CARGO_BIN_EXE_hark"), role]);
        let mut command = set_up(command, &folder.path().join("data"), Some(&url));
        let log = folder.path().join(role);
        let mut process = Process::start(role, command.env("LEPTOS_SITE_ADDR", "127.0.0.1:0"), log.clone());
        let read = || fs::read_to_string(&log).unwrap();
        let running = async {
            while !read().contains(started) {
                process.must_run();
                time::sleep(Duration::from_millis(50)).await;
            }
        };
        time::timeout(TIMEOUT, running).await.expect("the node starts");
        assert_eq!(read().contains("the limit of open files is too low"), says_so, "{role}: {}", read());
    }
}

/// What a database of the release with tables of version 10 held when `tests/upgrade/` was written.
async fn check_what_was_there(store: &Store) {
    let owner = store.sessions_of_all(&Default::default(), None, 100).await.unwrap();
    let owners: Vec<&Owner> = owner.iter().map(|(_, owner)| owner).collect();
    assert!(owners.windows(2).all(|pair| pair[0] == pair[1]), "{owners:?}");
    let mut all: Vec<_> = owner.iter().map(|(session, _)| session).collect();
    all.sort_by_key(|session| session.created_at);
    let seen: Vec<_> = all.iter().map(|session| (session.title.as_str(), session.status.state)).collect();
    let expected = [
        ("Ärger im Büro", State::Completed),
        ("It fails", State::Failed),
        ("By others", State::Processing),
        ("It waits", State::Queued),
        ("Nobody wanted it", State::Cancelled),
    ];
    assert_eq!(seen, expected);
    let texts = async |id: SessionId| -> Vec<String> {
        store.segments(id, 0, 100).await.unwrap().into_iter().map(|segment| segment.text).collect()
    };
    assert_eq!(texts(all[0].id).await, ["word at 0", "word at 1"]);
    assert_eq!(texts(all[1].id).await, ["word at 0", "word at 1", "word at 2"]);
    assert_eq!(texts(all[2].id).await, ["from outside"]);
    assert!(store.waveform(all[0].id).await.unwrap().is_some_and(|waveform| !waveform.is_empty()));
    assert_eq!(all[1].status.error.as_ref().map(|error| &*error.code), Some("engine_crashed"));
    let titled = Filter { query: "ärger im b".to_owned(), ..Filter::default() };
    let found = store.list(owners[0], &titled, None, 10).await.unwrap();
    assert_eq!(found.len(), 1, "titles are still found");
    let (found, _) = store.search(owners[0], &TextQuery::parse("outside"), None, 10).await.unwrap();
    assert_eq!(found.iter().map(|found| found.session_id).collect::<Vec<_>>(), [all[2].id], "texts are found");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_databases_of_an_earlier_release_are_upgraded_with_what_they_hold() {
    let postgres = tokio::task::block_in_place(Postgres::start);
    let (url, data) = (postgres.database("upgraded"), TempDir::new().unwrap());
    postgres.query("upgraded", include_str!("upgrade/postgres.sql"));
    let file = data.path().join("hark.sqlite");
    let mut connection = SqliteConnectOptions::new()
        .filename(&file)
        .create_if_missing(true)
        .foreign_keys(false)
        .connect()
        .await
        .unwrap();
    sqlx::raw_sql(include_str!("upgrade/sqlite.sql")).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    for database in [Some(url.as_str()), None] {
        let (done, text) = said(hark(&["migrate"], data.path(), database));
        let expected = ["brought from version 10 to ", "have version 10 already"];
        assert!(done && expected.iter().any(|words| text.contains(words)), "{text}");
        let store = match database {
            Some(url) => Store::connect(url).await.unwrap(),
            None => Store::open(&file).await.unwrap(),
        };
        check_what_was_there(&store).await;
        store.close().await;
    }
    let key = "SELECT length(value) FROM keys WHERE name = 'cookie'";
    assert_eq!(postgres.query("upgraded", key), ["64"], "cookies stay valid");
}

/// A statement of `tests/upgrade/life.sql` with its times moved to the present.
fn at_present(statement: &str) -> String {
    /// When the statements were written down.
    const THEN: i64 = 1_795_737_694_074;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    let mut text = String::new();
    let mut digits = String::new();
    for c in statement.chars().chain(['\n']) {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        match digits.parse::<i64>() {
            Ok(at) if digits.len() == 13 && (at - THEN).abs() < 7 * 86_400_000 => {
                text += &(at - THEN + now).to_string()
            }
            _ => text += &digits,
        }
        digits.clear();
        text.push(c);
    }
    text
}

/// Nodes of the release before may run while those of this one start, one after another: whatever they send to the
/// database still works, and neither disturbs the other. A migration that removes, renames or demands something fails here.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_of_the_release_before_work_beside_this_one() {
    let postgres = tokio::task::block_in_place(Postgres::start);
    let url = postgres.database("shared");
    // Reaps, too, but doesn't take up what it finds in the queue.
    let node = Node::start(&url, &["--workers", "0"]).await;
    let lines = |text: &'static str| text.lines().filter(|line| !line.starts_with("--"));
    let prepared: Vec<String> = lines(include_str!("upgrade/statements.sql"))
        .enumerate()
        .map(|(n, line)| match line.strip_prefix('(').and_then(|rest| rest.split_once(") ")) {
            Some((types, statement)) => format!("PREPARE s{n} ({types}) AS {statement};"),
            None => format!("PREPARE s{n} AS {line};"),
        })
        .collect();
    assert!(prepared.len() > 60);
    postgres.query("shared", &prepared.concat());

    let life: Vec<&str> = lines(include_str!("upgrade/life.sql")).collect();
    let half = life.iter().rposition(|line| line.starts_with("INSERT INTO segments ") && line.contains("word at 1"));
    let (first, rest) = life.split_at(half.unwrap() + 1);
    let send =
        |statements: &[&str]| statements.iter().for_each(|line| drop(postgres.query("shared", &at_present(line))));
    send(first);
    let store = Store::connect(&url).await.unwrap();
    let id: SessionId = "01a21a4e-b04b-720f-820d-2db3b27a9de5".parse().unwrap();
    // The new node checks the leases every 2 s meanwhile.
    time::sleep(Duration::from_secs(5)).await;
    let (session, _) = store.find(id).await.unwrap().unwrap();
    let status = &session.status;
    assert_eq!((status.state, status.attempt, status.segments), (State::Processing, 1, 2), "{status:?}");
    send(rest);
    let (session, _) = store.find(id).await.unwrap().unwrap();
    assert_eq!((session.status.state, session.status.segments), (State::Completed, 4), "{:?}", session.status);
    let texts: Vec<String> = store.segments(id, 0, 100).await.unwrap().into_iter().map(|s| s.text).collect();
    assert_eq!(texts, ["word at 0", "word at 1", "word at 2", "word at 3"]);
    let (_, owner) = store.find(id).await.unwrap().unwrap();
    let (found, _) = store.search(&owner, &TextQuery::parse("\"at 3\""), None, 10).await.unwrap();
    assert_eq!(
        found.iter().map(|found| found.hits[0].index).collect::<Vec<_>>(),
        [3],
        "the other node's lines are found"
    );

    // What the new node receives, a worker of the release before takes up, and who watches it at the new node sees that.
    let me = Visitor::new(&node.url);
    let id = me.session("a.wav", wav(1.0, 1000.0), &[]).await;
    let mut stream = Sse::new(me.get(&format!("/api/v1/sessions/{id}/status/stream")).await);
    let claim = life.iter().find(|line| line.starts_with("UPDATE sessions SET status = 'processing'")).unwrap();
    let claimed = postgres.query("shared", &at_present(claim));
    assert!(claimed.len() == 1 && claimed[0].starts_with(&id), "{claimed:?}");
    while stream.next().await.expect("the stream goes on").json()["status"] != "processing" {}
}
