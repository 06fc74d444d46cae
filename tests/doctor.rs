//! `hark doctor URL`, which checks a deployment from outside: a real node behind a real nginx that is set up wrongly in each
//! of the ways that it knows. Each fault has its finding and no other, and what `deploy/` recommends has none.

#[path = "support/nginx.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by test binaries")]
mod nginx;
#[path = "support/process.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by test binaries")]
mod process;
#[path = "support/servers.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by test binaries")]
mod servers;
mod support;

use futures::{StreamExt, stream};
use nginx::Nginx;
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use support::{TIMEOUT, TestApp, Visitor};
use tempfile::TempDir;
use tokio::{process::Command, time};

/// How long each doctor watches, in seconds: longer than the shortest cut-off below, and than some heartbeats.
const WAIT: &str = "6";
/// How many doctors run at once.
const AT_ONCE: usize = 6;

/// What a doctor said.
struct Said {
    code: Option<i32>,
    findings: Vec<Value>,
    text: String,
}

impl Said {
    /// The checks that aren't well.
    fn faults(&self) -> Vec<&str> {
        let faults = self.findings.iter().filter(|finding| finding["verdict"] != "ok");
        faults.map(|finding| finding["check"].as_str().unwrap()).collect()
    }

    fn finding(&self, check: &str) -> &Value {
        let found = self.findings.iter().find(|finding| finding["check"] == check);
        found.unwrap_or_else(|| panic!("no {check} in {}", self.text))
    }

    /// The lines that one fault's changes have.
    fn lines(&self, check: &str) -> String {
        self.finding(check)["changes"].to_string()
    }
}

/// Runs `hark doctor URL`.
async fn run(url: &str, args: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hark"));
    command.args(["doctor", url, "--wait", WAIT]).args(args).kill_on_drop(true);
    let output = time::timeout(TIMEOUT, command.output()).await.expect("the doctor ends").unwrap();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr);
    let findings = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    Said { code: output.status.code(), findings, text }
}

/// A copy of the program, because the hashes of the pages' files stand beside it; and these files.
struct Program {
    folder: TempDir,
}

impl Program {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let (program, files) = (folder.path().join("hark"), folder.path().join("site/pkg"));
        fs::copy(env!("CARGO_BIN_EXE_hark"), program).unwrap();
        fs::write(folder.path().join("hash.txt"), "js: aB1\nwasm: aB1\ncss: aB1\n").unwrap();
        fs::create_dir_all(&files).unwrap();
        for name in ["hark.aB1.css", "hark.aB1.js", "hark.aB1.wasm"] {
            fs::write(files.join(name), "/* a file of the pages */\n".repeat(200)).unwrap();
        }
        Self { folder }
    }

    /// Starts a node that works on nothing.
    fn node(&self, name: &str, flags: &[&str]) -> process::Process {
        let own = ["--trusted-proxies", "127.0.0.1", "--workers", "0", "--max-streams-per-address", "1000"];
        let flags: Vec<&str> = own.into_iter().chain(flags.iter().copied()).collect();
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        let program = format!("shift; exec {} \"$@\"", path("hark"));
        let setup = process::Setup::new(Path::new(&path(name)), &flags).env(&[("LEPTOS_SITE_ROOT", path("site"))]);
        setup.by(&["sh", "-c", &program, "sh"]).start()
    }
}

fn address(node: &process::Process) -> [String; 2] {
    let address = node.url.strip_prefix("http://").unwrap().to_owned();
    [address.clone(), address]
}

/// A way to set nginx up.
struct Case {
    tls: bool,
    /// A node that sends heartbeats as seldom as usual.
    quiet: bool,
    changes: Vec<(&'static str, String)>,
    args: Vec<&'static str>,
    /// The only checks that find something.
    faults: Vec<&'static str>,
    /// A line that is to be written.
    line: &'static str,
}

fn case(faults: &[&'static str], line: &'static str, changes: &[(&'static str, &str)]) -> Case {
    let changes = changes.iter().map(|(from, to)| (*from, (*to).to_owned())).collect();
    Case { tls: false, quiet: false, changes, args: vec![], faults: faults.to_vec(), line }
}

fn tls(faults: &[&'static str], line: &'static str, changes: &[(&'static str, &str)]) -> Case {
    Case { tls: true, args: vec!["--ca"], ..case(faults, line, changes) }
}

/// The places in the settings where something can be added.
const IN_SERVER: &str = "client_max_body_size 2g;";
const BEFORE_LOCATIONS: &str = "location = /identity/open {";

fn cases(cache: &Path) -> Vec<Case> {
    let add = |lines: &str| format!("{IN_SERVER} {lines}");
    let location = |lines: &str| format!("{lines}\n{BEFORE_LOCATIONS}");
    let cached = location(
        "location = /api/v1/status { proxy_buffering on; proxy_cache api; proxy_cache_valid 200 1m; \
         proxy_ignore_headers Cache-Control Set-Cookie; proxy_pass http://hark; }",
    );
    let zone = format!("proxy_cache_path {} keys_zone=api:1m; server_tokens off;", cache.display());
    vec![
        // As it should be.
        case(&[], "", &[]),
        tls(&[], "", &[]),
        // Streams.
        // nginx holds events back where it compresses, or where it doesn't know by HTTP/1.1 how long a piece is.
        case(
            &["stream_start"],
            "proxy_buffering off;",
            &[
                ("proxy_buffering off;", "proxy_buffering on; proxy_ignore_headers X-Accel-Buffering;"),
                (IN_SERVER, &add("gzip on; gzip_proxied any; gzip_types text/event-stream;")),
            ],
        ),
        case(
            &["upstream_http", "stream_start"],
            "proxy_http_version 1.1;",
            &[
                ("proxy_buffering off;", "proxy_buffering on; proxy_ignore_headers X-Accel-Buffering;"),
                ("proxy_http_version 1.1;", "proxy_http_version 1.0;"),
            ],
        ),
        Case {
            quiet: true,
            ..case(
                &["stream_idle"],
                "proxy_read_timeout 60s;",
                &[("proxy_read_timeout 30s;", "proxy_read_timeout 2s;")],
            )
        },
        case(
            &["stream_compression"],
            "gzip off;",
            &[(IN_SERVER, &add("gzip on; gzip_proxied any; gzip_types text/event-stream;"))],
        ),
        // Uploads.
        case(&["upload_limit"], "client_max_body_size 1909m;", &[(IN_SERVER, "client_max_body_size 1m;")]),
        case(
            &["upload_buffering"],
            "proxy_request_buffering off;",
            &[("proxy_request_buffering off;", "proxy_request_buffering on;")],
        ),
        // What is compressed and what is kept.
        case(
            &["compression"],
            "proxy_set_header Accept-Encoding $http_accept_encoding;",
            &[(IN_SERVER, &add("proxy_set_header Accept-Encoding \"\";"))],
        ),
        case(&["api_caching"], "proxy_cache off;", &[("server_tokens off;", &zone), (BEFORE_LOCATIONS, &cached)]),
        case(
            &["api_caching"],
            "no lines 'expires'",
            &[(BEFORE_LOCATIONS, &location("location = /api/v1/status { expires 1h; proxy_pass http://hark; }"))],
        ),
        case(
            &["file_caching"],
            "proxy_pass_header Cache-Control;",
            &[(BEFORE_LOCATIONS, &location("location /pkg/ { expires -1; proxy_pass http://hark; }"))],
        ),
        // What Hark is told.
        case(&["upstream_http"], "proxy_http_version 1.1;", &[("proxy_http_version 1.1;", "proxy_http_version 1.0;")]),
        case(&["host"], "proxy_set_header Host $http_host;", &[("Host $http_host;", "Host $proxy_host;")]),
        case(
            &["client_address"],
            "proxy_set_header X-Forwarded-For",
            &[("X-Forwarded-For $proxy_add_x_forwarded_for;", "X-Forwarded-For \"\";")],
        ),
        tls(
            &["forwarded_proto"],
            "proxy_set_header X-Forwarded-Proto $scheme;",
            &[("X-Forwarded-Proto $forwarded_proto;", "X-Forwarded-Proto \"\";")],
        ),
        // What strangers get.
        case(
            &["operators"],
            "deny all;",
            &[("location ~ ^/(metrics|readyz|healthz|api/v1/health/) { deny all; }", "")],
        ),
        case(&["server_header"], "server_tokens off;", &[("server_tokens off;", "")]),
        case(&["headers"], "proxy_hide_header", &[(IN_SERVER, &add("proxy_hide_header Content-Security-Policy;"))]),
        case(&["cookies"], "proxy_cookie_flags", &[(IN_SERVER, &add("proxy_hide_header Set-Cookie;"))]),
        tls(&["http_version"], "http2 on;", &[("ssl http2 ", "ssl ")]),
        Case { args: vec![], ..tls(&["certificate"], "ssl_certificate ", &[]) },
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_of_nginx_has_its_finding_and_no_other() {
    let (program, cache) = (Program::new(), TempDir::new().unwrap());
    let (node, quiet) = tokio::task::block_in_place(|| {
        (program.node("often", &["--stream-heartbeat-secs", "1"]), program.node("seldom", &[]))
    });
    let (nodes, quiet_nodes) = (address(&node), address(&quiet));
    let checked = cases(cache.path()).into_iter().map(async |case| {
        let nodes = if case.quiet { quiet_nodes.clone() } else { nodes.clone() };
        let (tls, changes) = (case.tls, case.changes.clone());
        let started = tokio::task::spawn_blocking(move || {
            let changes: Vec<(&str, &str)> = changes.iter().map(|(from, to)| (*from, to.as_str())).collect();
            if tls { Nginx::start_tls_changed(&nodes, &changes).0 } else { Nginx::start_changed(&nodes, &changes) }
        });
        let nginx = started.await.unwrap();
        let authority: PathBuf = nginx.folder.path().join("ca.crt");
        let mut args = vec!["--json"];
        args.extend(case.args.iter().copied());
        if case.args.contains(&"--ca") {
            args.push(authority.to_str().unwrap());
        }
        let said = run(&nginx.url, &args).await;
        let wrong = said.faults() != case.faults
            || said.code != Some(if case.faults.is_empty() { 0 } else { 3 })
            || case.faults.iter().any(|fault| !said.lines(fault).contains(case.line));
        let changes = &case.changes;
        wrong.then(|| format!("{changes:?}: {:?}, {:?}\n{}\n{}", said.faults(), said.code, said.text, nginx.errors()))
    });
    let wrong: Vec<String> =
        stream::iter(checked).buffer_unordered(AT_ONCE).filter_map(async |wrong| wrong).collect().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    nothing_stays_behind(&node).await;
    nothing_stays_behind(&quiet).await;
}

/// No session, no scratch file and no stream is left of what doctors did.
async fn nothing_stays_behind(node: &process::Process) {
    let me: Visitor = node.visitor();
    let health = me.json("/api/v1/health/sessions").await;
    for status in ["queued", "processing", "completed", "failed", "cancelled"] {
        assert_eq!(health[status], 0, "{health}");
    }
    let gone = async {
        loop {
            let files = fs::read_dir(node.data.join("incoming")).map_or(0, Iterator::count);
            let metrics = me.get("/metrics").await.text().await.unwrap();
            let open: f64 = metrics
                .lines()
                .filter(|line| line.starts_with("hark_streams_open{") || line.starts_with("hark_streams_open "))
                .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
                .sum();
            if files == 0 && open == 0.0 {
                return;
            }
            time::sleep(Duration::from_millis(100)).await;
        }
    };
    time::timeout(TIMEOUT, gone).await.expect("uploads are thrown away and streams are closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn people_read_what_to_change_in_the_proxy_that_is_there() {
    let app =
        TestApp::with(&["--trusted-proxies", "127.0.0.1", "--workers", "0", "--stream-heartbeat-secs", "1"]).await;
    let node = app.url.strip_prefix("http://").unwrap().to_owned();
    let started = tokio::task::spawn_blocking(move || {
        Nginx::start_changed(&[node.clone(), node], &[(IN_SERVER, "client_max_body_size 1m;")])
    });
    let nginx = started.await.unwrap();
    let (behind, direct) = tokio::join!(run(&nginx.url, &[]), run(&app.url, &[]));
    let text = &behind.text;
    assert!(text.contains("by its answers, in front of it: nginx\n"), "{text}");
    assert!(text.contains("\nok       Hark ") || text.starts_with("ok       Hark "), "{text}");
    let refused = text.lines().find(|line| line.starts_with("wrong    something before Hark refuses uploads"));
    assert!(refused.is_some_and(|line| line.contains("with 413") && line.contains("2.0 GB")), "{text}");
    assert!(text.contains("\n             client_max_body_size 1909m;\n"), "{text}");
    assert!(!text.contains("request_body"), "lines of other proxies: {text}");
    assert_eq!(behind.code, Some(3));
    // Without a proxy, the lines of all of them are shown.
    let text = &direct.text;
    assert!(text.contains("no proxy shows itself"), "{text}");
    assert!(
        text.contains("HARK_MONITOR_ADDR") && text.contains("deny all;") && text.contains("respond @operators 403")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_isnt_hark_or_isnt_at_the_root_is_said() {
    let app = TestApp::with(&["--workers", "0"]).await;
    let other = TestApp::with(&["--workers", "0", "--hosts", "hark.example.org"]).await;
    let node = app.url.strip_prefix("http://").unwrap().to_owned();
    let started = tokio::task::spawn_blocking(move || {
        let below = "location / { return 404; } location /hark/ { rewrite ^/hark(/.*)$ $1 break;";
        Nginx::start_changed(&[node.clone(), node], &[("location / {", below)])
    });
    let nginx = started.await.unwrap();
    let below = format!("{}/hark/", nginx.url);
    let (below, not_hark, nobody, unknown) = tokio::join!(
        run(&below, &["--json"]),
        run(&nginx.url, &["--json"]),
        // Nobody listens at port 1.
        run("http://127.0.0.1:1", &["--json"]),
        run(&other.url, &["--json"]),
    );
    assert_eq!(below.faults(), ["sub_path"], "{}", below.text);
    assert!(below.lines("sub_path").contains("server_name"));
    assert_eq!(not_hark.faults(), ["reachable"], "{}", not_hark.text);
    assert!(not_hark.finding("reachable")["text"].as_str().unwrap().contains("isn't Hark"));
    assert_eq!(nobody.faults(), ["reachable"], "{}", nobody.text);
    assert!(nobody.finding("reachable")["text"].as_str().unwrap().contains("doesn't answer"));
    assert_eq!(unknown.faults(), ["host"], "{}", unknown.text);
    for said in [below, not_hark, nobody, unknown] {
        assert_eq!(said.code, Some(3));
    }
}

#[tokio::test]
async fn an_address_or_a_file_that_cant_be_used_is_refused() {
    let no_address = run("hark.example.org", &[]).await;
    assert!(no_address.code == Some(2) && no_address.text.contains("https://hark.example.org"), "{}", no_address.text);
    let no_file = run("https://127.0.0.1:1", &["--ca", "/dev/null"]).await;
    assert!(no_file.code == Some(1) && no_file.text.contains("/dev/null holds no certificate"), "{}", no_file.text);
}
