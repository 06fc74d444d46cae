//! Hark as a process among others: what its engines get and what becomes of them, where secrets come from, what other
//! users of the machine can read, and where operators ask.

#[path = "support/process.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by test binaries")]
mod process;
mod support;

use process::Setup;
use reqwest::StatusCode;
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use support::{TIMEOUT, TestApp, Visitor, wav};
use tempfile::TempDir;
use tokio::time;

/// A script as the command of an engine.
fn engine(folder: &Path, script: &str) -> String {
    let file = folder.join("engine.sh");
    fs::write(&file, script).unwrap();
    format!("sh {} {}", file.display(), folder.display())
}

async fn until(what: &str, is: impl Fn() -> bool) {
    let waiting = async {
        while !is() {
            time::sleep(Duration::from_millis(20)).await;
        }
    };
    time::timeout(TIMEOUT, waiting).await.unwrap_or_else(|_| panic!("never came true: {what}"));
}

fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

#[tokio::test]
async fn engines_get_no_secrets() {
    let folder = TempDir::new().unwrap();
    let command = engine(
        folder.path(),
        r#"env >"$1/env.new"; mv "$1/env.new" "$1/env"; cat >/dev/null; echo '{"type":"ready"}'; echo '{"type":"done"}'"#,
    );
    let secrets = [
        ("HARK_SECRET", "a5".repeat(64)),
        ("HARK_WORKER_TOKEN", "t0ken-of-outside-workers".to_owned()),
        ("HARK_ADMIN_TOKEN", "t0ken-of-administrators-of-this-server".to_owned()),
        ("HARK_OPENAI_KEY", "sk-of-openai".to_owned()),
        ("HARK_ALERT_SECRET", "a1ert-secret-of-receivers".to_owned()),
        ("HARK_ALERT_WEBHOOK", "http://127.0.0.1:9/a-secret-address".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "aws-of-storage".to_owned()),
        ("UNHEARD_OF", "unheard-of".to_owned()),
        ("KEPT_FOR_IT", "kept for it".to_owned()),
    ];
    let data = folder.path().join("data");
    let flags = ["--engine", "command", "--engine-command", &command, "--engine-env", "KEPT_FOR_IT,NOT_SET"];
    let hark = Setup::new(&data, &flags).env(&secrets).env(&[("HARK_MIN_FREE_BYTES", "1".to_owned())]).start();
    let me = hark.visitor();
    let id = me.session("talk.wav", wav(1.0, 5000.0), &[("language", "en")]).await;
    me.wait(&id, "completed").await;
    let env = fs::read_to_string(folder.path().join("env")).unwrap();
    for (name, value) in &secrets[..8] {
        assert!(!env.contains(name) && !env.contains(value), "{env}");
    }
    for line in ["KEPT_FOR_IT=kept for it", "HARK_LANGUAGE=en", "PATH="] {
        assert!(env.lines().any(|l| l.starts_with(line)), "{line} in {env}");
    }
}

#[tokio::test]
async fn command_engines_die_with_hark() {
    let folder = TempDir::new().unwrap();
    // Neither of them looks at its standard input, which would tell as well.
    let command = engine(
        folder.path(),
        r#"sleep 600 & echo "$$ $!" >"$1/pids.new"; mv "$1/pids.new" "$1/pids"; echo '{"type":"ready"}'; wait"#,
    );
    let data = folder.path().join("data");
    let flags = ["--engine", "command", "--engine-command", &command, "--min-free-bytes", "1"];
    let mut hark = Setup::new(&data, &flags).start();
    hark.visitor().session("talk.wav", wav(1.0, 5000.0), &[]).await;
    let pids = folder.path().join("pids");
    until("the engine runs", || pids.exists()).await;
    let pids = fs::read_to_string(pids).unwrap();
    let pids: Vec<&str> = pids.split_whitespace().collect();
    assert!(pids.len() == 2 && pids.iter().all(|pid| is_alive(pid)), "{pids:?}");
    hark.kill();
    until("the engine and what it started are gone", || !pids.iter().any(|pid| is_alive(pid))).await;
}

/// Commands whose reader has gone, as in `hark model list | head`, or has no room: they end as they do otherwise, or say why not.
#[test]
fn commands_end_well_whoever_reads_them() {
    let folder = TempDir::new().unwrap();
    let command = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hark"));
        command.args(args).env_remove("DATABASE_URL").env("HARK_DATA_DIR", folder.path());
        command.env("HARK_ENGINE", "pocketsphinx").env("HARK_MODEL_FETCH", "false").stdin(Stdio::null());
        command
    };
    let nobody = || std::io::pipe().unwrap().1;
    let manual = folder.path().join("man");
    for args in [
        &["migrate"][..],
        &["sessions", "list"],
        &["sessions", "list", "--json"],
        &["sessions", "stuck"],
        &["sessions", "delete", "01a21a4e-b04b-720f-820d-2db3b27a9de5"],
        &["nodes"],
        &["nodes", "--json"],
        &["model", "list"],
        &["model", "list", "--json"],
        &["model", "get", "none-of-this-name"],
        &["doctor"],
        &["admin", "remove-password"],
        &["secret", "rotate"],
        &["ready"],
        &["completions", "bash"],
        &["man", manual.to_str().unwrap()],
        &["--help"],
        &["doctor", "--help"],
        &["--version"],
        &["unheard-of"],
    ] {
        let read = command(args).output().unwrap();
        let unread = command(args).stdout(nobody()).output().unwrap();
        let said = String::from_utf8_lossy(&unread.stderr);
        assert_eq!(unread.status.code(), read.status.code(), "{args:?}: {said}");
        assert_eq!(said, String::from_utf8_lossy(&read.stderr), "{args:?}");
        let status = command(args).stdout(nobody()).stderr(nobody()).status().unwrap();
        assert_eq!(status.code(), read.status.code(), "{args:?} with both outputs closed");
    }
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = command(&["model", "list"]).stdout(full).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.starts_with("hark: standard output can't be written to: No space left on device"), "{said}");
}

#[test]
fn secrets_have_no_flags() {
    let hark = |args: &[&str]| Command::new(env!("CARGO_BIN_EXE_hark")).args(args).output().unwrap();
    for command in ["serve", "worker", "doctor"] {
        for flag in [
            "--secret",
            "--worker-token",
            "--admin-token",
            "--database-url",
            "--redis-url",
            "--openai-key",
            "--alert-secret",
            "--alert-webhook",
            "--alert-smtp-url",
        ] {
            let output = hark(&[command, flag, "x"]);
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(
                output.status.code() == Some(2) && said.contains("unexpected argument"),
                "{command} {flag}: {said}"
            );
        }
    }
}

#[tokio::test]
async fn secrets_come_from_files_too() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, "from-a-file\n").unwrap();
    let file = file.to_str().unwrap();
    let data = folder.path().join("data");
    let hark = Setup::new(&data, &["--worker-token-file", file]).start();
    let me = hark.visitor();
    for (token, status) in [("from-a-file", StatusCode::CREATED), ("from-a-fil", StatusCode::UNAUTHORIZED)] {
        let request = me.request("POST", "/api/v1/sessions").bearer_auth(token).json(&serde_json::json!({}));
        assert_eq!(me.send(request).await.status(), status, "{token}");
    }
    drop(hark);
    let said = |setup: Setup| String::from_utf8(setup.refused().stderr).unwrap();
    let both = Setup::new(&data, &["--worker-token-file", file]).env(&[("HARK_WORKER_TOKEN", "x".to_owned())]);
    let text = said(both);
    assert!(text.contains("HARK_WORKER_TOKEN and HARK_WORKER_TOKEN_FILE are both set"), "{text}");
    let text = said(Setup::new(&data, &["--admin-token-file", file]));
    assert!(text.contains("HARK_ADMIN_TOKEN has 11 characters and must have at least 32"), "{text}");
    let text = said(Setup::new(&data, &["--admin-header", "Remote-User", "--admin-users", "ann"]));
    assert!(text.contains("HARK_TRUSTED_PROXIES"), "{text}");
    let text = said(Setup::new(&data, &["--secret-file", "/no/such/file"]));
    assert!(text.contains("HARK_SECRET_FILE: /no/such/file can't be read"), "{text}");
    let text = said(Setup::new(&data, &[]).env(&[("DATABASE_URL", "mysql://host/name".to_owned())]));
    assert!(text.contains("DATABASE_URL must be a PostgreSQL address"), "{text}");
}

#[tokio::test]
async fn a_node_without_its_default_engine_says_so_and_serves() {
    let folder = TempDir::new().unwrap();
    let log = folder.path().join("log");
    let flags = ["--engine", "whisper", "--whisper-model", "/no/such/model.bin", "--min-free-bytes", "1"];
    let hark = Setup::new(&folder.path().join("data"), &flags).log_to(&log).start();
    let missing =
        "Whisper, the default engine, can't be used on this node. Its model file /no/such/model.bin does not exist.";
    until("the log says it", || fs::read_to_string(&log).unwrap().contains(&format!("WARN {missing}"))).await;
    let asked = || Command::new(env!("CARGO_BIN_EXE_hark")).args(["ready", &hark.url]).output().unwrap();
    until("its readiness says it, too", || {
        let output = asked();
        let said = String::from_utf8(output.stdout).unwrap();
        let command = "To make it available: hark model list\n";
        output.status.success() && said.contains(&format!(" is ready, but {missing}")) && said.ends_with(command)
    })
    .await;
    assert_eq!(hark.visitor().get("/readyz").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_misspelt_setting_is_named_at_the_start_and_by_the_doctor() {
    let folder = TempDir::new().unwrap();
    let (data, log) = (folder.path().join("data"), folder.path().join("log"));
    let (name, warning) =
        ("HARK_WORKER", "HARK_WORKER is set, which is no setting of Hark and changes nothing: is HARK_WORKERS meant?");
    drop(Setup::new(&data, &[]).env(&[(name, "2".to_owned())]).log_to(&log).start());
    let said = fs::read_to_string(&log).unwrap();
    assert_eq!(said.matches("no setting of Hark").count(), 1, "{said}");
    assert!(said.contains(&format!("WARN {warning}\n")), "{said}");
    let mut doctor = Command::new(env!("CARGO_BIN_EXE_hark"));
    let output = doctor.arg("doctor").env("HARK_DATA_DIR", &data).env(name, "2").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.starts_with(&format!("odd      {warning}\n")), "{said}");
}

#[tokio::test]
async fn other_users_can_read_nothing() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let engine = engine(folder.path(), r#"cat >/dev/null; echo '{"type":"ready"}'; echo '{"type":"done"}'"#);
    let flags = ["--engine", "command", "--engine-command", &engine, "--min-free-bytes", "1"];
    // As most systems have it; Hark itself closes what it makes.
    let hark = Setup::new(&data, &flags).by(&["sh", "-c", "umask 022; exec \"$0\" \"$@\""]).start();
    let me = hark.visitor();
    let id = me.session("talk.wav", wav(1.0, 5000.0), &[]).await;
    me.wait(&id, "completed").await;
    let mut folders = vec![data.clone()];
    let mut seen = 0;
    while let Some(path) = folders.pop() {
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o077, 0, "{}", path.display());
        seen += 1;
        if path.is_dir() {
            folders.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    assert!(seen > 6, "{seen} files and folders");
}

#[tokio::test]
async fn a_key_that_was_changed_twice_takes_nobodys_sessions() {
    let folder = TempDir::new().unwrap();
    let setup = Setup::new(folder.path(), &["--workers", "0", "--min-free-bytes", "1"]);
    let mut hark = setup.start();
    let mut me = hark.visitor();
    let id = me.session("talk.wav", wav(1.0, 5000.0), &[]).await;
    hark.terminate();
    let rotate = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hark"));
        command.args(["secret", "rotate"]).env("HARK_DATA_DIR", folder.path());
        for name in ["DATABASE_URL", "HARK_SECRET", "HARK_SECRET_FILE"] {
            command.env_remove(name);
        }
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    for _ in 0..2 {
        let (code, said) = rotate();
        assert!(code == Some(0) && said.contains("signs from the next start"), "{said}");
        let (code, said) = rotate();
        assert!(code == Some(3) && said.contains("Nothing was changed"), "{said}");
        let mut hark = setup.start();
        me = me.at(&hark.url);
        // Which renews the cookie, with the new key.
        assert_eq!(me.json(&format!("/api/v1/sessions/{id}")).await["id"], *id);
        hark.terminate();
    }
}

/// The user of tests that are run by root and need another.
const NOBODY: u32 = 65534;

/// Commands that would leave files of root's in the folder of another user refuse that, and name the user.
#[test]
fn root_writes_nothing_into_the_folder_of_another_user() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hark"));
        command.args(args).env_remove("DATABASE_URL").env("HARK_DATA_DIR", &data).stdin(Stdio::null());
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(run(&["migrate"]).0, Some(0));
    fs::write(data.join("secret.key"), [1; 64]).unwrap();
    fs::write(data.join("secret-before.key"), [2; 64]).unwrap();
    let names = || {
        let mut names: Vec<_> = fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        names
    };
    for path in names().into_iter().chain([data.clone()]) {
        std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let before = names();
    let backup = folder.path().join("hark.tar").display().to_string();
    for args in [
        &["secret", "rotate"][..],
        &["migrate"],
        &["model", "get", "tiny.en"],
        &["model", "import", "/no/such/file"],
        &["restore", "--replace", "/dev/null"],
        &["backup", &backup],
    ] {
        let (code, said) = run(args);
        assert_eq!(code, Some(1), "{args:?}: {said}");
        assert!(
            said.contains("belongs to the user nobody") && said.contains("sudo -u nobody env "),
            "{args:?}: {said}"
        );
    }
    assert_eq!(names(), before);
    assert_eq!(fs::read(data.join("secret.key")).unwrap(), [1; 64]);
}

#[test]
fn a_key_of_another_user_is_told_of_and_no_other_folder_is_proposed() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let migrate = |data: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hark"));
        command.arg("migrate").env_remove("DATABASE_URL").env("HARK_DATA_DIR", data).stdout(Stdio::null());
        assert!(command.status().unwrap().success());
    };
    migrate(&data);
    let key = data.join("secret.key");
    fs::write(&key, [1; 64]).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o000)).unwrap();
    let mut setup = Setup::new(&data, &[]);
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        // Which may read everything, so Hark runs as somebody else, of whom all is but the key.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let program = folder.path().join("hark");
        fs::copy(env!("CARGO_BIN_EXE_hark"), &program).unwrap();
        for path in [&data, &data.join("hark.sqlite")] {
            std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        setup = setup
            .by(&["setpriv", "--reuid=nobody", "--regid=65534", "--clear-groups"])
            .program(program.to_str().unwrap());
    }
    let output = setup.refused();
    let said = String::from_utf8(output.stderr).unwrap();
    let shown = key.display();
    let (owner, way) = if is_root {
        ("root".to_owned(), format!("Give it to nobody, as root: chown -R nobody: '{shown}'"))
    } else {
        (String::new(), format!("Change the rights: chmod -R u+rwX '{shown}'"))
    };
    assert!(said.contains(&format!("'{shown}' can't be used: Permission denied")), "{said}");
    assert!(said.contains(&format!("belongs to {owner}")) && said.contains("with the rights 0000"), "{said}");
    assert!(said.contains(&way) && !said.contains("HARK_DATA_DIR"), "{said}");
}

#[tokio::test]
async fn operators_ask_elsewhere_if_told_so() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let monitor = format!("127.0.0.1:{port}");
    let app = TestApp::with(&["--monitor-addr", &monitor]).await;
    let (strangers, operators) = (app.visitor(), Visitor::new(&format!("http://{monitor}")));
    for path in ["/metrics", "/api/v1/health/sessions"] {
        assert_eq!(strangers.get(path).await.status(), StatusCode::NOT_FOUND, "{path}");
        assert_eq!(operators.get(path).await.status(), StatusCode::OK, "{path}");
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!(strangers.get(path).await.status(), StatusCode::OK, "{path}");
        assert_eq!(operators.get(path).await.status(), StatusCode::OK, "{path}");
    }
    assert_eq!(operators.get("/api/v1/sessions").await.status(), StatusCode::NOT_FOUND);
    let api = strangers.json("/api/openapi.json").await;
    assert!(api["paths"].get("/api/v1/health/sessions").is_none());
    let stopped = Instant::now();
    app.stop().await;
    assert!(stopped.elapsed() < TIMEOUT);
}
