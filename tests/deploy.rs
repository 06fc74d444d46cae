//! What operators are told: the commands and settings in `deploy/` are those that the program knows, and `hark doctor`
//! finds what is wrong with what nodes share.

#[path = "support/nginx.rs"]
#[allow(unreachable_pub, reason = "shared by test binaries")]
mod nginx;
#[path = "support/postgres.rs"]
#[allow(unreachable_pub, reason = "shared by test binaries")]
mod postgres;
#[path = "support/process.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by test binaries")]
mod process;
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
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use support::{Sse, TIMEOUT, TestApp, Visitor, wav};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
    time,
};

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
    all.filter(|command| command[0] == "hark").map(|command| command[1..].to_vec()).collect()
}

/// What of the Compose specification the files here use. A key that isn't here is a mistake, or belongs here.
#[allow(dead_code, unreachable_pub, reason = "read to see that it can be")]
mod compose {
    use serde::Deserialize;
    use std::collections::BTreeMap;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Project {
        pub name: String,
        #[serde(rename = "x-hark")]
        hark: Option<serde_json::Value>,
        pub services: BTreeMap<String, Service>,
        #[serde(default)]
        pub networks: BTreeMap<String, Network>,
        #[serde(default)]
        pub volumes: BTreeMap<String, Option<()>>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Service {
        pub image: String,
        pub build: Option<Build>,
        pub restart: String,
        stop_grace_period: Option<String>,
        #[serde(default)]
        environment: BTreeMap<String, String>,
        #[serde(default)]
        pub depends_on: Dependencies,
        #[serde(default)]
        pub ports: Vec<String>,
        #[serde(default)]
        pub volumes: Vec<String>,
        #[serde(default)]
        ulimits: BTreeMap<String, u32>,
        #[serde(default)]
        pub networks: BTreeMap<String, BTreeMap<String, String>>,
        #[serde(default)]
        command: Vec<String>,
        #[serde(default)]
        entrypoint: Vec<String>,
        healthcheck: Option<HealthCheck>,
        user: Option<String>,
        #[serde(default)]
        pub read_only: bool,
        #[serde(default)]
        cap_drop: Vec<String>,
        #[serde(default)]
        security_opt: Vec<String>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Build {
        pub context: String,
        pub dockerfile: String,
        pub target: String,
    }

    #[derive(Deserialize)]
    #[serde(untagged)]
    pub enum Dependencies {
        Names(Vec<String>),
        Conditions(BTreeMap<String, BTreeMap<String, String>>),
    }

    impl Default for Dependencies {
        fn default() -> Self {
            Self::Names(Vec::new())
        }
    }

    impl Dependencies {
        pub fn names(&self) -> Vec<&String> {
            match self {
                Self::Names(names) => names.iter().collect(),
                Self::Conditions(conditions) => conditions.keys().collect(),
            }
        }
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct HealthCheck {
        test: Vec<String>,
        interval: Option<String>,
        timeout: Option<String>,
        retries: Option<u32>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Network {
        ipam: Option<serde_json::Value>,
    }
}

#[test]
fn compose_files_fit_together() {
    let stages = read("Dockerfile");
    for name in ["compose.yaml", "compose.single.yaml"] {
        let project: compose::Project = serde_saphyr::from_str(&read(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(project.name.starts_with("hark"));
        for (service, settings) in &project.services {
            let place = format!("{service} of {name}");
            assert!(settings.image.contains(':'), "{place} names no version");
            assert_eq!(settings.restart, "unless-stopped", "{place}");
            for other in settings.depends_on.names() {
                assert!(project.services.contains_key(other), "{place} waits for {other}, which isn't there");
            }
            for volume in &settings.volumes {
                let (from, _) = volume.split_once(':').unwrap();
                let file = from.strip_prefix("./").is_some_and(|file| Path::new("deploy").join(file).is_file());
                assert!(file || project.volumes.contains_key(from), "{place} has no {from}");
            }
            for network in settings.networks.keys() {
                assert!(project.networks.contains_key(network), "{place}: {network}");
            }
            if let Some(build) = &settings.build {
                assert_eq!((&*build.context, &*build.dockerfile), ("..", "deploy/Dockerfile"), "{place}");
                assert!(
                    stages.contains(&format!(" AS {}\n", build.target)),
                    "{place} is made of no stage {}",
                    build.target
                );
            }
        }
    }
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
    assert!(read("Dockerfile").contains("ENV PORT=3000") && nginx.contains("web1:3000"));
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

/// What takes longer than an ordinary answer has a location that waits longer: all streams, and the copies for browsers.
#[tokio::test(flavor = "multi_thread")]
async fn nginx_waits_as_long_as_streams_and_copies_take() {
    let nodes = [TestApp::start().await, TestApp::start().await];
    let addresses = nodes.each_ref().map(|node| node.url.strip_prefix("http://").unwrap().to_owned());
    let settings = read("nginx.conf");
    // Each location says in its answers how long it waits.
    let waits: Vec<(String, String)> = settings
        .lines()
        .filter_map(|line| line.trim().strip_prefix("proxy_read_timeout "))
        .filter(|wait| settings.matches(&format!("proxy_read_timeout {wait}")).count() == 1)
        .map(|wait| {
            (format!("proxy_read_timeout {wait}"), format!("proxy_read_timeout {wait} add_header X-Wait {wait}"))
        })
        .map(|(line, marked)| (line, format!("{} always;", marked.trim_end_matches(';'))))
        .collect();
    let start = move || {
        let waits: Vec<(&str, &str)> = waits.iter().map(|(line, marked)| (&**line, &**marked)).collect();
        Nginx::start_changed(&addresses, &waits)
    };
    let nginx = tokio::task::spawn_blocking(start).await.unwrap();
    let me = Visitor::new(&nginx.url);
    let wait = async |path: &str| {
        let answer = me.get(&path.replace("{id}", "0199-none")).await;
        answer.headers().get("x-wait").map(|wait| wait.to_str().unwrap().to_owned())
    };
    assert_eq!(wait("/api/v1/engines").await.as_deref(), Some("10s"));
    assert_eq!(wait("/api/v1/sessions/{id}/playable").await.as_deref(), Some("60s"));

    let api = nodes[0].visitor().json("/api/openapi.json").await;
    let is_stream =
        |route: &serde_json::Value| !route["get"]["responses"]["200"]["content"]["text/event-stream"].is_null();
    let streams = api["paths"].as_object().unwrap().iter().filter(|(_, route)| is_stream(route));
    let streams: Vec<&str> = streams.map(|(path, _)| path.as_str()).collect();
    assert_eq!(streams.len(), 4, "{streams:?}");
    for path in streams {
        assert_eq!(wait(path).await.as_deref(), Some("30s"), "{path}");
    }
}

/// The two files of nginx's settings differ in nothing but what TLS needs.
#[test]
fn nginx_does_the_same_behind_tls() {
    let settings = |name: &str| -> Vec<String> {
        let text = read(name);
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.map(str::to_owned).collect()
    };
    let mut tls = settings("nginx-tls.conf").into_iter();
    for line in settings("nginx.conf").into_iter().filter(|line| !line.starts_with("listen ")) {
        assert!(tls.any(|other| other == line), "nginx-tls.conf has no '{line}' there");
    }
}

const STREAMS: usize = 3_000;
const REQUESTS: usize = 400;
/// The addresses that they come from, as many clients would.
const ADDRESSES: usize = 16;

/// The client's address of the request of this number.
fn address(number: usize) -> IpAddr {
    [127, 0, 1, (number % ADDRESSES + 1) as u8].into()
}

/// Sends a request from this address, with no more than a socket.
async fn ask(to: SocketAddr, from: IpAddr, path: &str, connection: &str) -> Result<TcpStream, String> {
    let socket = TcpSocket::new_v4().map_err(|e| e.to_string())?;
    socket.bind((from, 0).into()).map_err(|e| format!("bind: {e}"))?;
    let mut stream = socket.connect(to).await.map_err(|e| format!("connect: {e}"))?;
    let head = format!("GET {path} HTTP/1.1\r\nHost: {to}\r\nConnection: {connection}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.map_err(|e| format!("send: {e}"))?;
    Ok(stream)
}

/// Reads until `text` has come. What has been read begins with `seen`, and stays there from its last few bytes on.
async fn read_until(stream: &mut TcpStream, seen: &mut Vec<u8>, text: &str) -> Result<(), String> {
    let reading = async {
        loop {
            if seen.windows(text.len()).any(|bytes| bytes == text.as_bytes()) {
                return Ok(());
            }
            if seen.len() > 64 * 1024 {
                seen.drain(..32 * 1024);
            }
            match stream.read_buf(seen).await {
                Ok(0) => {
                    return Err(format!("ended after {:?}", String::from_utf8_lossy(&seen[..seen.len().min(200)])));
                }
                Ok(_) => {}
                Err(error) => return Err(format!("read: {error}")),
            }
        }
    };
    time::timeout(TIMEOUT, reading).await.unwrap_or_else(|_| Err(format!("no '{text}' came")))
}

/// An answer to its end; an error unless it is 200.
async fn whole_answer(to: SocketAddr, from: IpAddr, path: &str) -> Result<String, String> {
    let mut stream = ask(to, from, path, "close").await?;
    let mut answer = Vec::new();
    let read = time::timeout(TIMEOUT, stream.read_to_end(&mut answer)).await;
    read.map_err(|_| "no answer".to_owned())?.map_err(|e| format!("read: {e}"))?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    if answer.starts_with("HTTP/1.1 200 ") { Ok(answer) } else { Err(answer.chars().take(300).collect()) }
}

/// A status stream that has begun.
async fn open_stream(to: SocketAddr, from: IpAddr) -> Result<TcpStream, String> {
    let mut stream = ask(to, from, "/api/v1/status/stream", "keep-alive").await?;
    let mut seen = Vec::new();
    // The first line of the first event; there are no sessions to tell of.
    read_until(&mut stream, &mut seen, "retry: ").await?;
    if seen.starts_with(b"HTTP/1.1 200 ") { Ok(stream) } else { Err(String::from_utf8_lossy(&seen).into_owned()) }
}

/// Runs all of them at once; what succeeded, and how the others failed.
async fn at_once<T: Send + 'static>(
    tasks: impl IntoIterator<Item: Future<Output = Result<T, String>> + Send + 'static>,
) -> (Vec<T>, Vec<String>) {
    let mut running: JoinSet<_> = tasks.into_iter().collect();
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    while let Some(result) = running.join_next().await {
        match result.unwrap() {
            Ok(value) => done.push(value),
            Err(reason) => failed.push(reason),
        }
    }
    (done, failed)
}

/// Two nodes as processes of their own, with their data folders, behind the nginx that is recommended.
async fn processes_behind_nginx(flags: &[&str]) -> ([TempDir; 2], [process::Process; 2], Nginx) {
    let data = [(); 2].map(|()| TempDir::new().unwrap());
    let own = ["--trusted-proxies", "127.0.0.1", "--workers", "0"];
    let flags: Vec<&str> = own.into_iter().chain(flags.iter().copied()).collect();
    let nodes = tokio::task::block_in_place(|| {
        data.each_ref().map(|data| process::Setup::new(&data.path().join("data"), &flags).start())
    });
    let nginx = Nginx::start(&nodes.each_ref().map(|node| node.url.strip_prefix("http://").unwrap().to_owned()));
    (data, nodes, nginx)
}

/// How many streams a node has open.
async fn streams_open(node: &process::Process) -> usize {
    let metrics = node.visitor().get("/metrics").await.text().await.unwrap();
    let open =
        metrics.lines().filter(|line| line.starts_with("hark_streams_open{") || line.starts_with("hark_streams_open "));
    open.map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_carries_three_thousand_streams_and_four_hundred_requests_at_once() {
    let (_data, nodes, nginx) = processes_behind_nginx(&["--max-streams-per-address", "1000"]).await;
    allow_files(4096);
    let to: SocketAddr = nginx.url.strip_prefix("http://").unwrap().parse().unwrap();
    let (streams, failed) = at_once((0..STREAMS).map(|n| open_stream(to, address(n)))).await;
    let errors = || nginx.errors().lines().take(20).collect::<Vec<_>>().join("\n");
    assert!(failed.is_empty(), "{} streams failed, among them {:?}; {}", failed.len(), failed.first(), errors());
    let open = [streams_open(&nodes[0]).await, streams_open(&nodes[1]).await];
    assert_eq!(open[0] + open[1], STREAMS);
    assert!(open.iter().all(|n| *n > STREAMS / 3), "they spread over both nodes: {open:?}");
    let paths = ["/", "/api/v1/sessions", "/api/v1/status", "/api/v1/engines"];
    let requests = (0..REQUESTS).map(|n| whole_answer(to, address(n), paths[n % paths.len()]));
    let (answered, failed) = at_once(requests).await;
    assert!(failed.is_empty(), "{} requests failed, among them {:?}; {}", failed.len(), failed.first(), errors());
    assert_eq!(answered.len(), REQUESTS);
    // Nothing was closed for it: each stream goes on to its next heartbeat.
    let heartbeats = streams.into_iter().map(|mut stream| async move {
        read_until(&mut stream, &mut Vec::new(), "event: heartbeat").await.map(|()| stream)
    });
    let (streams, failed) = at_once(heartbeats).await;
    assert!(failed.is_empty(), "{} streams ended, among them {:?}; {}", failed.len(), failed.first(), errors());
    assert_eq!(streams.len(), STREAMS);
}

/// Lets this process have as many open files as the system allows; fails if those are fewer.
fn allow_files(needed: u64) {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    assert!(files >= needed, "this test needs {needed} open files; the system allows {files} (ulimit -Hn)");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_is_answered_while_a_node_hangs() {
    let (_data, nodes, nginx) = processes_behind_nginx(&[]).await;
    let to: SocketAddr = nginx.url.strip_prefix("http://").unwrap().parse().unwrap();
    // So that it has connections to both.
    let (_, failed) = at_once((0..8).map(|n| whole_answer(to, address(n), "/"))).await;
    assert!(failed.is_empty(), "{failed:?}");
    let hung = Pid::from_raw(nodes[0].id().try_into().unwrap()).unwrap();
    kill_process(hung, Signal::STOP).unwrap();
    let streams = at_once((0..8).map(|n| open_stream(to, address(n))));
    let paths = ["/", "/api/v1/sessions", "/api/v1/status", "/api/v1/engines"];
    let requests = at_once((0..40).map(|n| whole_answer(to, address(n), paths[n % paths.len()])));
    let ((_, no_streams), (_, unanswered)) = tokio::join!(streams, requests);
    kill_process(hung, Signal::CONT).unwrap();
    assert!(nginx.errors().contains("upstream timed out"), "none was sent to the node that hangs: {}", nginx.errors());
    assert!(no_streams.is_empty() && unanswered.is_empty(), "{no_streams:?} {unanswered:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_is_answered_once_while_a_node_is_down() {
    // Nobody listens at port 1.
    let (node, down) = (TestApp::with(&["--trusted-proxies", "127.0.0.1", "--workers", "0"]).await, "127.0.0.1:1");
    let up = node.url.strip_prefix("http://").unwrap().to_owned();
    let nginx = tokio::task::spawn_blocking(move || Nginx::start(&[down.to_owned(), up])).await.unwrap();
    let me = Visitor::new(&nginx.url);
    me.cookie().await;
    // Several seconds, so that nginx tries the other again and again.
    for round in 0..20 {
        for path in ["/", "/api/v1/status"] {
            assert_eq!(me.get(path).await.status(), StatusCode::OK, "{path} in round {round}");
        }
        me.session("a.wav", wav(0.5, 1000.0), &[]).await;
        time::sleep(Duration::from_millis(200)).await;
    }
    assert!(nginx.errors().contains("Connection refused"), "the node that is down was never asked");
    let stored = me.json("/api/v1/sessions").await;
    assert_eq!(stored["sessions"].as_array().unwrap().len(), 20);
}

/// A node that takes a request and goes away: nobody knows what it did, so only what may be done twice is sent again.
#[tokio::test(flavor = "multi_thread")]
async fn nginx_repeats_no_upload_that_a_node_has_got() {
    let node =
        TestApp::with(&["--trusted-proxies", "127.0.0.1", "--workers", "0", "--max-queue-per-address", "1000"]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (flaky, up) =
        (listener.local_addr().unwrap().to_string(), node.url.strip_prefix("http://").unwrap().to_owned());
    let taken: Arc<[AtomicUsize; 2]> = Arc::default();
    let counting = Arc::clone(&taken);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = [0; 4096];
            if let Ok(n @ 1..) = socket.read(&mut request).await {
                counting[usize::from(request[..n].starts_with(b"POST "))].fetch_add(1, Relaxed);
            }
        }
    });
    let [gets, posts] = &*taken;
    let nginx = tokio::task::spawn_blocking(move || Nginx::start(&[flaky, up])).await.unwrap();
    let me = Visitor::new(&nginx.url);
    me.cookie().await;
    let (mut stored, mut lost) = (0, 0);
    // Until the flaky one has got some of them; after each it is left out for 2 s.
    while lost < 2 {
        match me.upload("a.wav", wav(0.5, 1000.0), &[]).await.status() {
            StatusCode::CREATED => stored += 1,
            StatusCode::BAD_GATEWAY => lost += 1,
            other => panic!("{other} after {stored} that were stored, and {lost} that were lost"),
        }
        time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(posts.load(Relaxed), lost);
    assert_eq!(me.json("/api/v1/sessions").await["sessions"].as_array().unwrap().len(), stored.min(50));
    // What only reads is asked again.
    let before = gets.load(Relaxed);
    let asked = async {
        while gets.load(Relaxed) == before {
            assert_eq!(me.get("/api/v1/sessions").await.status(), StatusCode::OK);
            time::sleep(Duration::from_millis(50)).await;
        }
    };
    time::timeout(TIMEOUT, asked).await.expect("the flaky node is tried again");
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_serves_tls_and_http_2() {
    let own = ["--trusted-proxies", "127.0.0.1", "--workers", "0"];
    let nodes = [TestApp::with(&own).await, TestApp::with(&own).await];
    let addresses = nodes.each_ref().map(|node| node.url.strip_prefix("http://").unwrap().to_owned());
    let (nginx, plain) = tokio::task::spawn_blocking(move || Nginx::start_tls(&addresses)).await.unwrap();
    let curl = async |args: &[&str]| {
        let command =
            tokio::process::Command::new("curl").args(["-sS", "-i", "-k", "--max-time", "60"]).args(args).output();
        let out = command.await.unwrap();
        String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr)
    };
    let page = curl(&["--http2", &format!("{}/", nginx.url)]).await;
    assert!(page.starts_with("HTTP/2 200"), "{page}");
    assert!(page.contains("set-cookie: __Host-hark_owner_") && page.contains("strict-transport-security:"), "{page}");
    // The first lines of a stream come while it is open.
    let stream = curl(&["--http2", "-m", "3", &format!("{}/api/v1/status/stream", nginx.url)]).await;
    assert!(stream.starts_with("HTTP/2 200") && stream.contains("retry: "), "{stream}");
    let old = curl(&["--http1.1", &format!("{}/api/v1/engines", nginx.url)]).await;
    assert!(old.starts_with("HTTP/1.1 200"), "{old}");
    let sent_on = curl(&[&format!("http://127.0.0.1:{plain}/sessions?q=a")]).await;
    assert!(sent_on.starts_with("HTTP/1.1 308") && sent_on.contains("Location: https://127.0.0.1/sessions?q=a"));
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
