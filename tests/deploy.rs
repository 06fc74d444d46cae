//! What operators are told: the commands and settings in `deploy/` are those that the program knows, and `hark doctor`
//! finds what is wrong with what nodes share.

#[path = "support/nginx.rs"]
#[allow(unreachable_pub, reason = "shared by test binaries")]
mod nginx;
#[path = "support/postgres.rs"]
#[allow(unreachable_pub, reason = "shared by test binaries")]
mod postgres;
#[path = "support/redis.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by test binaries")]
mod redis;
#[path = "support/servers.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by test binaries")]
mod servers;
mod support;

use nginx::Nginx;
use postgres::Postgres;
use redis::Redis;
use reqwest::{Client, StatusCode};
use std::{fs, net::IpAddr, process::Command};
use support::{Sse, TestApp};
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
fn nodes_trust_nginx_and_nobody_else() {
    let compose = read("compose.yaml");
    let value = |name: &str| {
        let found = compose.lines().find_map(|line| line.trim().trim_start_matches("- ").strip_prefix(name));
        found.unwrap_or_else(|| panic!("compose.yaml has no {name}")).trim().to_owned()
    };
    let nginx: IpAddr = value("ipv4_address:").parse().unwrap();
    assert_eq!(value("HARK_TRUSTED_PROXIES:"), nginx.to_string());
    let [subnet, others] = ["subnet:", "ip_range:"].map(|name| value(name).parse::<ipnet::IpNet>().unwrap());
    assert!(subnet.contains(&nginx) && subnet.contains(&others) && !others.contains(&nginx));
}

/// Two nodes behind the nginx that is recommended; what they listen on is trusted to name clients.
async fn behind_nginx(flags: &[&str]) -> ([TestApp; 2], Nginx) {
    let own = ["--trusted-proxies", "127.0.0.1", "--workers", "0"];
    let flags: Vec<&str> = own.into_iter().chain(flags.iter().copied()).collect();
    let nodes = [TestApp::with(&flags).await, TestApp::with(&flags).await];
    let addresses = nodes.each_ref().map(|node| node.url.strip_prefix("http://").unwrap().to_owned());
    let nginx = tokio::task::spawn_blocking(move || Nginx::start(&addresses)).await.unwrap();
    (nodes, nginx)
}

/// A client at another address of this machine.
fn client(address: &str) -> Client {
    Client::builder().local_address(address.parse::<IpAddr>().unwrap()).build().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_behind_nginx_see_where_a_client_comes_from() {
    let (nodes, nginx) = behind_nginx(&["--max-streams-per-address", "1"]).await;
    let url = format!("{}/api/v1/status/stream", nginx.url);
    let open = || nodes.iter().map(|node| node.hub().open()).sum::<usize>();
    let mut held = Vec::new();
    let mut from = async |address: &str, claims: &str| {
        let before = open();
        let sent = client(address).get(&url).header("x-forwarded-for", claims).header("forwarded", "for=192.0.2.9");
        held.push(Sse::new(sent.send().await.unwrap()));
        open() > before
    };
    // One at each node, whatever it claims.
    let first = [from("127.0.0.2", "192.0.2.1").await, from("127.0.0.2", "192.0.2.2").await];
    for n in 3..9 {
        assert!(!from("127.0.0.2", &format!("192.0.2.{n}")).await);
    }
    assert_eq!((first, open()), ([true, true], 2));
    assert!(from("127.0.0.3", "127.0.0.2").await, "another gets in");
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_stops_a_flood_from_one_address() {
    let (_nodes, nginx) = behind_nginx(&[]).await;
    let stranger = client("127.0.0.2");
    let statuses = async |requests: Vec<reqwest::RequestBuilder>| -> Vec<StatusCode> {
        let sent = requests.into_iter().map(async |request| request.send().await.unwrap().status());
        futures::future::join_all(sent).await
    };
    let count = |all: &[StatusCode], status| all.iter().filter(|s| **s == status).count();
    // Uploads: a hundred at once and two a second pass to Hark, which finds no form in them.
    let uploads = (0..140).map(|_| stranger.post(format!("{}/api/v1/sessions", nginx.url)));
    let mut all = Vec::new();
    // No more at once than may be.
    for upload in uploads {
        all.extend(statuses(vec![upload]).await);
    }
    assert!(count(&all, StatusCode::BAD_REQUEST) >= 100, "{all:?}");
    assert!(count(&all, StatusCode::TOO_MANY_REQUESTS) > 0, "{all:?}");
    // Everything else: five hundred at once and fifty a second.
    let mut all = Vec::new();
    for _ in 0..40 {
        let burst = (0..50).map(|_| stranger.get(format!("{}/api/v1/engines", nginx.url)));
        all.extend(statuses(burst.collect()).await);
        if count(&all, StatusCode::TOO_MANY_REQUESTS) > 0 {
            break;
        }
    }
    assert!(count(&all, StatusCode::OK) >= 300, "{all:?}");
    assert!(count(&all, StatusCode::TOO_MANY_REQUESTS) > 0, "2000 requests passed");
    // Others are served meanwhile.
    let other = client("127.0.0.3").get(format!("{}/api/v1/engines", nginx.url)).send().await.unwrap();
    assert_eq!(other.status(), StatusCode::OK);
    assert!(nginx.errors().contains("limiting requests"), "{}", nginx.errors());
    // What is refused is told as Hark tells it.
    let told = async {
        loop {
            let burst = (0..50).map(|_| stranger.get(format!("{}/api/v1/engines", nginx.url)).send());
            for answer in futures::future::join_all(burst).await {
                let answer = answer.unwrap();
                if answer.status() == StatusCode::TOO_MANY_REQUESTS {
                    return (
                        answer.headers()["retry-after"].clone(),
                        answer.json::<serde_json::Value>().await.unwrap(),
                    );
                }
            }
        }
    };
    let (retry, body) = tokio::time::timeout(support::TIMEOUT, told).await.unwrap();
    assert_eq!((retry.to_str().unwrap(), &body["error"]["code"]), ("10", &"too_many_requests".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_bounds_what_one_address_holds_open() {
    let (_nodes, nginx) = behind_nginx(&["--max-streams-per-address", "1000"]).await;
    let stranger = client("127.0.0.2");
    let url = format!("{}/api/v1/status/stream", nginx.url);
    let mut held = Vec::new();
    let mut refused = 0;
    // Slower than the limit of the rate, so that what is refused is refused for what is open.
    for n in 0..540 {
        let answer = stranger.get(&url).send().await.unwrap();
        match answer.status() {
            StatusCode::OK => held.push(answer),
            StatusCode::TOO_MANY_REQUESTS => refused += 1,
            other => panic!("{other}"),
        }
        if n >= 400 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        if refused > 0 {
            break;
        }
    }
    assert!(refused > 0 && nginx.errors().contains("limiting connections by zone"), "{}", nginx.errors());
    assert_eq!(held.len(), 512);
    let other = client("127.0.0.3").get(&url).send().await.unwrap();
    assert_eq!(other.status(), StatusCode::OK);
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
            // The default engine needs a model.
            .env("HARK_ENGINE", "pocketsphinx")
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
