//! What operators are told: the commands and settings in `deploy/` are those that the program knows, and `hark doctor`
//! finds what is wrong with what nodes share.

#[path = "support/postgres.rs"]
#[allow(unreachable_pub, reason = "shared by test binaries")]
mod postgres;
#[path = "support/redis.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by test binaries")]
mod redis;
#[path = "support/servers.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by test binaries")]
mod servers;

use postgres::Postgres;
use redis::Redis;
use std::{fs, process::Command};
use tempfile::TempDir;

fn read(name: &str) -> String {
    fs::read_to_string(format!("{}/deploy/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn hark(args: &[String]) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hark"));
    // A data folder that can't be: a command that is understood ends at once all the same.
    command.args(args).env("HARK_DATA_DIR", "/dev/null/none").env_remove("DATABASE_URL").env_remove("REDIS_URL");
    command.output().unwrap()
}

/// The commands of the services that are Hark.
fn commands(compose: &str) -> Vec<Vec<String>> {
    let all = compose.lines().filter_map(|line| line.trim().strip_prefix("command: ["));
    let all = all.map(|list| serde_json::from_str::<Vec<String>>(&format!("[{list}")).unwrap());
    all.filter(|command| matches!(command[0].as_str(), "serve" | "worker")).collect()
}

#[test]
fn the_commands_are_understood() {
    let commands = commands(&read("compose.yaml"));
    assert_eq!(commands.len(), 2, "{commands:?}");
    for command in commands {
        let out = hark(&command);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        // 2 is what a command that isn't understood ends with.
        assert_eq!(out.status.code(), Some(1), "{command:?}: {said}");
        assert!(said.contains("data folder") || said.contains("DATABASE_URL"), "{said}");
    }
    let wrong = hark(&["worker".to_owned(), "--no-such-flag".to_owned()]);
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn the_settings_are_known() {
    let help = String::from_utf8(hark(&["worker".to_owned(), "--help".to_owned()]).stdout).unwrap();
    let compose = read("compose.yaml");
    let (_, hark) = compose.split_once("x-hark: &hark").unwrap();
    let (hark, _) = hark.split_once("\nservices:").unwrap();
    let names = hark.lines().filter_map(|line| line.trim().split_once(": ")).map(|(name, _)| name);
    let names: Vec<&str> =
        names.filter(|name| name.starts_with("HARK_") || name.ends_with("_URL") && !name.starts_with("AWS_")).collect();
    assert!(names.len() >= 4, "{names:?}");
    for name in names {
        // What the help says of the environment may be broken into lines anywhere.
        let known = help.split(|c: char| !c.is_ascii_uppercase() && c != '_').any(|word| word == name);
        assert!(known, "{name} is no setting of hark");
    }
}

#[test]
fn nginx_balances_what_compose_starts() {
    let (nginx, compose) = (read("nginx.conf"), read("compose.yaml"));
    let webs: Vec<&str> = nginx
        .lines()
        .filter_map(|line| line.trim().strip_prefix("server ")?.split(':').next())
        .filter(|name| name.starts_with("web"))
        .collect();
    assert_eq!(webs.len(), 2);
    for web in webs {
        assert!(compose.contains(&format!("\n  {web}: ")), "{web} is no service of compose.yaml");
    }
    assert!(read("Dockerfile").contains("LEPTOS_SITE_ADDR=0.0.0.0:3000") && nginx.contains("web1:3000"));
}

#[test]
fn the_doctor_asks_what_nodes_share() {
    let (postgres, redis) = (Postgres::start(), Redis::start());
    let [shared, own] = [(); 2].map(|()| TempDir::new().unwrap());
    let database = postgres.database("examined");
    let doctor = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hark"));
        command
            .arg("doctor")
            .env("HARK_DATA_DIR", own.path())
            .env("DATABASE_URL", &database)
            .env("REDIS_URL", format!("redis://127.0.0.1:{}/", redis.port))
            .env("HARK_RECORDINGS_URL", format!("file://{}", shared.path().display()));
        command
    };
    let said = |mut doctor: Command| {
        let out = doctor.output().unwrap();
        (out.status.success(), String::from_utf8(out.stdout).unwrap())
    };
    let (fine, all) = said(doctor());
    for line in ["ok       PostgreSQL\n", "ok       Redis\n", "ok       place of the recordings\n"] {
        assert!(all.contains(line), "{all}");
    }
    assert!(fine, "{all}");
    let tables = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'";
    assert_eq!(postgres.query("examined", tables), ["0"], "it changes nothing");

    // Nobody listens at port 1.
    let mut away = [doctor(), doctor(), doctor()];
    away[0].env("DATABASE_URL", "postgres://postgres@127.0.0.1:1/examined");
    away[1].env("REDIS_URL", "redis://127.0.0.1:1/");
    away[2].env("HARK_RECORDINGS_URL", "file:///dev/null/none");
    let names = [("PostgreSQL", "DATABASE_URL"), ("Redis", "REDIS_URL"), ("place", "HARK_RECORDINGS_URL")];
    for (command, (what, setting)) in away.into_iter().zip(names) {
        let (fine, all) = said(command);
        let wrong: Vec<&str> = all.lines().filter(|line| line.starts_with("wrong")).collect();
        assert!(matches!(wrong[..], [line] if line.contains(what) && line.contains(setting)), "{all}");
        assert!(!fine, "{all}");
    }
}
