//! Alerts: Prometheus' rules by promtool, that rules, dashboard and runbook name what there is, and the built-in alerts
//! against receivers: a webhook that fails first, a mail server that refuses first, restarts, and several nodes.

#[path = "support/nginx.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by test binaries")]
mod nginx;
#[path = "support/postgres.rs"]
#[allow(unreachable_pub, reason = "shared by test binaries")]
mod postgres;
#[path = "support/process.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by test binaries")]
mod process;
#[path = "support/servers.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by test binaries")]
mod servers;
mod support;

use axum::{Router, extract::State, http::HeaderMap, http::StatusCode, routing::post};
use hark::{
    model::Timestamp,
    server::{
        alerts::{figures, rules::RULES},
        certificate,
        telemetry::catalogue::{self, Kind},
    },
};
use hmac::{Hmac, Mac};
use nginx::Nginx;
use postgres::Postgres;
use process::Setup;
use serde_json::Value;
use sha2::Sha256;
use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Lines},
    path::Path,
    process::{Child, ChildStdout, Command, Output, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};
use support::{TIMEOUT, Visitor, wav};
use tempfile::TempDir;
use tokio::{net::TcpListener, time};

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Runs promtool where `scripts/setup` puts it, or from PATH.
fn promtool(args: &[&str], folder: &Path) {
    let home = std::env::var("CARGO_HOME").unwrap_or_else(|_| format!("{}/.cargo", std::env::var("HOME").unwrap()));
    let own = format!("{home}/hark/promtool/bin/promtool");
    let program = if Path::new(&own).exists() { own } else { "promtool".to_owned() };
    let done =
        Command::new(program).args(args).current_dir(folder).output().expect("promtool runs; scripts/setup test");
    let said = [done.stdout, done.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(done.status.success(), "{said}");
}

#[test]
fn promtool_accepts_the_rules_and_passes_their_tests() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus");
    promtool(&["check", "rules", "rules.yml"], &folder);
    promtool(&["test", "rules", "rules.test.yml"], &folder);
}

/// An alert of `deploy/prometheus/rules.yml`.
struct Alert {
    name: String,
    expr: String,
    hold_secs: f64,
    severity: String,
    runbook: String,
}

fn alerts() -> Vec<Alert> {
    let document: Value = serde_saphyr::from_str(&read("deploy/prometheus/rules.yml")).unwrap();
    let text = |value: &Value| value.as_str().map(str::to_owned).unwrap();
    let groups = document["groups"].as_array().unwrap();
    let rules = groups.iter().flat_map(|group| group["rules"].as_array().unwrap());
    let alerts = rules.map(|rule| Alert {
        name: text(&rule["alert"]),
        expr: text(&rule["expr"]),
        hold_secs: rule["for"].as_str().map_or(0.0, seconds),
        severity: text(&rule["labels"]["severity"]),
        runbook: text(&rule["annotations"]["runbook"]),
    });
    alerts.collect()
}

fn seconds(text: &str) -> f64 {
    let (n, unit) = text.split_at(text.len() - 1);
    let unit = ["s", "m", "h"].iter().position(|u| *u == unit).expect("a unit");
    n.parse::<f64>().unwrap() * 60f64.powi(i32::try_from(unit).unwrap())
}

#[test]
fn the_built_in_alerts_are_those_of_prometheus() {
    let ours = RULES.iter().map(|rule| (rule.name.to_owned(), rule.severity.as_str().to_owned(), rule.hold_secs));
    let theirs = alerts().into_iter().map(|alert| (alert.name, alert.severity, alert.hold_secs));
    assert_eq!(ours.collect::<Vec<_>>(), theirs.collect::<Vec<_>>());
}

#[test]
fn every_alert_has_its_part_of_the_runbook() {
    let document = read("docs/operations.md");
    for alert in alerts() {
        assert_eq!(alert.runbook, format!("docs/operations.md#{}", alert.name.to_lowercase()), "{}", alert.name);
        let (_, part) =
            document.split_once(&format!("\n### {}\n", alert.name)).unwrap_or_else(|| panic!("{}", alert.name));
        let part = part.split("\n#").next().unwrap();
        for word in ["**Means.** ", "**Look.** ", "**Do.** "] {
            assert!(part.contains(word), "the part about {} lacks {word}", alert.name);
        }
    }
    let own: BTreeSet<String> = alerts().into_iter().map(|alert| alert.name).collect();
    for heading in document.lines().filter_map(|line| line.strip_prefix("### Hark")) {
        assert!(own.contains(&format!("Hark{heading}")), "there is no alert Hark{heading}");
    }
}

/// What a query asks of a series: its name, and the labels that it names in braces.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Clone)]
struct Selector {
    name: String,
    labels: Vec<String>,
}

/// The series that a query in PromQL names. Only for queries that promtool accepts: words before a parenthesis are
/// functions, and what stands in the parentheses after words such as `by` are labels.
fn selectors(query: &str) -> Vec<Selector> {
    const WORDS: [&str; 9] = ["and", "or", "unless", "offset", "bool", "inf", "nan", "start", "end"];
    const BEFORE_LABELS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
    let mut found: Vec<Selector> = Vec::new();
    let mut rest = query;
    while let Some(at) =
        rest.find(|c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '"' | '\'' | '[' | '{') || c.is_ascii_digit())
    {
        rest = &rest[at..];
        let first = rest.chars().next().unwrap();
        let skip = |end: char| rest[1..].find(end).map_or(rest.len(), |at| at + 2);
        match first {
            '"' | '\'' => rest = &rest[skip(first)..],
            '[' => rest = &rest[skip(']')..],
            '{' => rest = &rest[skip('}')..],
            _ => {
                let word_end = rest
                    .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '.')))
                    .unwrap_or(rest.len());
                let (word, after) = rest.split_at(word_end);
                let next = after.trim_start();
                rest = after;
                if first.is_ascii_digit() || WORDS.contains(&word) {
                    continue;
                }
                if BEFORE_LABELS.contains(&word) {
                    rest = next.split_once(')').map_or("", |(_, rest)| rest);
                } else if let Some(body) = next.strip_prefix('{') {
                    let (body, behind) = body.split_once('}').unwrap();
                    let labels = body
                        .split('"')
                        .step_by(2)
                        .map(|part| part.trim_matches(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).to_owned());
                    let labels = labels.filter(|label| !label.is_empty()).collect();
                    found.push(Selector { name: word.to_owned(), labels });
                    rest = behind;
                } else if !next.starts_with('(') && !next.starts_with("by ") && !next.starts_with("without ") {
                    found.push(Selector { name: word.to_owned(), labels: Vec::new() });
                }
            }
        }
    }
    found
}

#[test]
fn the_series_of_a_query_are_found() {
    let query = r#"sum by (le, x) (rate(a_bucket{mode="live", y=~"b{c}|d"}[5m] offset 1d)) / on (instance) group_left (job) (b > 1e3)
        unless c == 0.5 and time() - d_seconds{} < 14 * 86400"#;
    let selector = |name: &str, labels: &[&str]| Selector {
        name: name.to_owned(),
        labels: labels.iter().map(|label| (*label).to_owned()).collect(),
    };
    // Braces within a value would need a real parser; no query has them.
    let query = query.replace("b{c}|d", "b|d");
    let wanted =
        [selector("a_bucket", &["mode", "y"]), selector("b", &[]), selector("c", &[]), selector("d_seconds", &[])];
    assert_eq!(selectors(&query), wanted);
}

/// The queries of the dashboard, with what Grafana puts in their places.
fn dashboard() -> Vec<String> {
    fn collect(value: &Value, into: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                into.extend(fields.get("expr").and_then(Value::as_str).map(str::to_owned));
                fields.values().for_each(|value| collect(value, into));
            }
            Value::Array(values) => values.iter().for_each(|value| collect(value, into)),
            _ => {}
        }
    }
    let document: Value = serde_json::from_str(&read("deploy/grafana/hark.json")).unwrap();
    let mut queries = Vec::new();
    collect(&document, &mut queries);
    assert!(queries.len() > 60, "{}", queries.len());
    let put_in =
        |query: String| query.replace("$__rate_interval", "5m").replace("$__range", "6h").replace("$instance", ".*");
    queries.into_iter().map(put_in).collect()
}

#[test]
fn prometheus_understands_the_queries_of_the_dashboard() {
    let folder = TempDir::new().unwrap();
    let rules: Vec<Value> = dashboard()
        .into_iter()
        .enumerate()
        .map(|(n, expr)| serde_json::json!({ "record": format!("dashboard:{n}"), "expr": expr }))
        .collect();
    let file = serde_json::json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    // JSON is YAML.
    fs::write(folder.path().join("dashboard.yml"), file.to_string()).unwrap();
    promtool(&["check", "rules", "dashboard.yml"], folder.path());
}

/// A webhook that keeps what it is sent, and answers with an error as often as it is told to.
#[derive(Clone, Default)]
struct Webhook {
    posts: Arc<Mutex<Vec<(HeaderMap, String)>>>,
    failures: Arc<Mutex<u32>>,
}

impl Webhook {
    async fn start(failures: u32) -> (Self, String) {
        let webhook = Self::default();
        *webhook.failures.lock().unwrap() = failures;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/alerts", listener.local_addr().unwrap());
        let app = Router::new()
            .route("/alerts", post(Self::take))
            .route("/elsewhere", post(async || axum::response::Redirect::temporary("/alerts")))
            .with_state(webhook.clone());
        tokio::spawn(async { axum::serve(listener, app).await.unwrap() });
        (webhook, url)
    }

    async fn take(State(webhook): State<Self>, headers: HeaderMap, body: String) -> StatusCode {
        let mut failures = webhook.failures.lock().unwrap();
        if *failures > 0 {
            *failures -= 1;
            return StatusCode::SERVICE_UNAVAILABLE;
        }
        webhook.posts.lock().unwrap().push((headers, body));
        StatusCode::NO_CONTENT
    }

    fn messages(&self) -> Vec<Value> {
        self.posts.lock().unwrap().iter().map(|(_, body)| serde_json::from_str(body).unwrap()).collect()
    }

    /// The messages with this status about this alert.
    fn about(&self, alert: &str, status: &str) -> Vec<Value> {
        let mut all = self.messages();
        all.retain(|message| message["alert"] == alert && message["status"] == status);
        all
    }

    async fn wait(&self, what: &str, is_there: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !is_there(self) {
                time::sleep(Duration::from_millis(50)).await;
            }
        };
        assert!(time::timeout(TIMEOUT, waiting).await.is_ok(), "no {what}: {:?}", self.messages());
    }
}

const SECRET: &str = "a secret of the receiver";

/// Whether a post carries the signature that the documentation describes.
fn is_signed(headers: &HeaderMap, body: &str) -> bool {
    let header = |name: &str| headers.get(name).unwrap().to_str().unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(format!("{}.{body}", header("x-hark-timestamp")).as_bytes());
    let digits: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    header("x-hark-signature") == format!("v1={digits}")
}

/// Alerts in a time that goes sixty times faster, and of a session that waits for a second.
const FLAGS: [&str; 10] = [
    "--workers",
    "0",
    "--alert-pace",
    "60",
    "--alert-queue-secs",
    "1",
    "--alert-disk-percent",
    "0",
    "--min-free-bytes",
    "1",
];

/// A node that tells a webhook of its alerts.
fn node(data: &Path, webhook: &str) -> Setup {
    Setup::new(data, &FLAGS)
        .env(&[("HARK_ALERT_WEBHOOK", webhook.to_owned()), ("HARK_ALERT_SECRET", SECRET.to_owned())])
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_is_told_of_once_and_when_it_is_over_also_by_a_node_that_was_restarted() {
    let folder = TempDir::new().unwrap();
    let (webhook, url) = Webhook::start(3).await;
    let mut hark = node(folder.path(), &url).env(&[("HARK_PUBLIC_URL", "http://hark.example.org".to_owned())]).start();
    let me = hark.visitor();
    let id = me.session("talk.wav", wav(1.0, 5000.0), &[]).await;
    webhook.wait("alert", |webhook| !webhook.about("HarkQueueOld", "firing").is_empty()).await;
    assert_eq!(*webhook.failures.lock().unwrap(), 0, "it was sent again after each failure");
    let message = &webhook.about("HarkQueueOld", "firing")[0];
    assert_eq!(message["severity"], "warning");
    assert_eq!(message["runbook"], "docs/operations.md#harkqueueold");
    assert_eq!(message["url"], "http://hark.example.org/");
    assert!(
        message["summary"].as_str().unwrap().starts_with("the oldest session has waited in the queue for "),
        "{message}"
    );
    assert!(message["value"].as_f64().unwrap() > 1.0 && message["ended_at"].is_null(), "{message}");

    // A node that dies between the answer and its note of it sends the message again, with the same id.
    let store = hark::server::store::Store::open(&folder.path().join("hark.sqlite")).await.unwrap();
    let noted = async {
        while store.next_alert_message("webhook").await.unwrap().is_some() {
            time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(time::timeout(TIMEOUT, noted).await.is_ok(), "the message was not noted as sent");
    drop(store);
    hark.kill();
    let hark = node(folder.path(), &url).start();
    me.at(&hark.url).post(&format!("/api/v1/sessions/{id}/cancel")).await.error_for_status().unwrap();
    webhook.wait("end", |webhook| !webhook.about("HarkQueueOld", "resolved").is_empty()).await;
    let over = &webhook.about("HarkQueueOld", "resolved")[0];
    assert_eq!(over["started_at"], message["started_at"]);
    assert!(over["ended_at"].is_string() && over["id"] != message["id"], "{over}");
    assert_eq!(webhook.about("HarkQueueOld", "firing").len(), 1, "{:?}", webhook.messages());
    for (headers, body) in webhook.posts.lock().unwrap().iter() {
        assert!(is_signed(headers, body), "{headers:?} {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_tell_of_an_alert_once_and_each_of_a_database_that_it_has_lost() {
    let folder = TempDir::new().unwrap();
    let mut postgres = tokio::task::spawn_blocking(Postgres::start).await.unwrap();
    let database = postgres.database("hark");
    let (webhook, url) = Webhook::start(0).await;
    let recordings = format!("file://{}", folder.path().join("recordings").display());
    fs::create_dir(folder.path().join("recordings")).unwrap();
    let mut nodes = ["one", "two"].map(|name| {
        let env = [
            ("DATABASE_URL", database.clone()),
            ("HARK_RECORDINGS_URL", recordings.clone()),
            ("HARK_NODE_NAME", name.to_owned()),
        ];
        node(&folder.path().join(name), &url).env(&env).start()
    });
    let me = nodes[0].visitor();
    let id = me.session("talk.wav", wav(1.0, 5000.0), &[]).await;
    webhook.wait("alert", |webhook| !webhook.about("HarkQueueOld", "firing").is_empty()).await;

    tokio::task::block_in_place(|| postgres.stop());
    webhook.wait("two alerts", |webhook| webhook.about("HarkDatabaseFailing", "firing").len() == 2).await;
    tokio::task::block_in_place(|| postgres.resume());
    webhook.wait("two ends", |webhook| webhook.about("HarkDatabaseFailing", "resolved").len() == 2).await;
    let named: BTreeSet<String> = webhook
        .about("HarkDatabaseFailing", "resolved")
        .iter()
        .map(|m| m["node"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(named, ["one", "two"].map(str::to_owned).into());

    // Whichever looked after the alert, the other one goes on, and tells that the first is gone.
    nodes[0].kill();
    webhook.wait("the end of a node", |webhook| !webhook.about("HarkNodeDown", "firing").is_empty()).await;
    let gone = &webhook.about("HarkNodeDown", "firing")[0];
    assert_eq!((&gone["detail"], &gone["severity"]), (&"one".into(), &"critical".into()), "{gone}");
    me.at(&nodes[1].url).post(&format!("/api/v1/sessions/{id}/cancel")).await.error_for_status().unwrap();
    webhook.wait("end", |webhook| !webhook.about("HarkQueueOld", "resolved").is_empty()).await;
    assert_eq!(webhook.about("HarkQueueOld", "firing").len(), 1, "{:?}", webhook.messages());
    assert_eq!(webhook.about("HarkQueueOld", "resolved").len(), 1, "{:?}", webhook.messages());

    // Started again, it isn't missed any more.
    let name = ("HARK_NODE_NAME", "one".to_owned());
    let shared = [("DATABASE_URL", database.clone()), ("HARK_RECORDINGS_URL", recordings.clone()), name];
    let _again = node(&folder.path().join("one"), &url).env(&shared).start();
    webhook.wait("the node again", |webhook| !webhook.about("HarkNodeDown", "resolved").is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_of_the_public_address_is_looked_at() {
    // It isn't to be trusted, and what stands behind the proxy is down.
    let nobody = ["127.0.0.1:9", "127.0.0.1:9"].map(str::to_owned);
    let (nginx, plain) = tokio::task::spawn_blocking(move || Nginx::start_tls(&nobody)).await.unwrap();
    let expiry = certificate::expiry(nginx.url.parse().unwrap()).await.unwrap();
    let days = expiry.seconds_since(Timestamp::now()) / 86_400.0;
    assert!((89.9..90.1).contains(&days), "{days}");
    let without = certificate::expiry(format!("http://127.0.0.1:{plain}/").parse().unwrap()).await;
    assert!(without.unwrap_err().contains("no certificate"));
}

/// Runs `hark alerts test` with these settings and no others.
fn alerts_test(env: &[(&str, &str)]) -> Output {
    let kept = ["PATH", "HOME", "LANG"].into_iter().filter_map(|name| Some((name, std::env::var(name).ok()?)));
    let mut command = Command::new(env!("CARGO_BIN_EXE_hark"));
    command.args(["alerts", "test"]).env_clear().envs(kept).envs(env.iter().copied()).stdin(Stdio::null());
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_message_says_whether_it_arrived() {
    let (webhook, url) = Webhook::start(0).await;
    let run = |env: &[(&str, &str)]| tokio::task::block_in_place(|| alerts_test(env));
    let done = run(&[("HARK_ALERT_WEBHOOK", &url), ("HARK_ALERT_SECRET", SECRET)]);
    assert!(done.status.success() && said(&done).contains("webhook: sent"), "{}", said(&done));
    let (headers, body) = webhook.posts.lock().unwrap()[0].clone();
    assert!(is_signed(&headers, &body));
    assert_eq!(webhook.messages()[0]["status"], "test");

    let done = run(&[("HARK_ALERT_WEBHOOK", &url), ("HARK_ALERT_WEBHOOK_FORM", "slack")]);
    assert!(done.status.success(), "{}", said(&done));
    let message = webhook.messages().pop().unwrap();
    assert_eq!(message.as_object().unwrap().keys().collect::<Vec<_>>(), ["text"]);
    assert!(message["text"].as_str().unwrap().contains("*test: HarkTest*"), "{message}");

    // Neither what was posted nor its signature goes to another address than the one that was set.
    let done = run(&[("HARK_ALERT_WEBHOOK", &url.replace("/alerts", "/elsewhere"))]);
    assert!(!done.status.success() && said(&done).contains("redirects aren't followed"), "{}", said(&done));
    assert_eq!(webhook.messages().len(), 2);

    for (env, why) in [
        (&[][..], "nobody would be told"),
        (&[("HARK_ALERT_WEBHOOK", "hooks.example.org")][..], "must be an address that begins with http"),
        (&[("HARK_ALERT_WEBHOOK", &*url), ("HARK_ALERT_SECRET", "short")][..], "at least 16 characters"),
        (&[("HARK_ALERT_EMAIL_TO", "me@example.org")][..], "HARK_ALERT_EMAIL_TO needs"),
        (&[("HARK_ALERT_SMTP_URL", "smtp://me:secret@mail.example.org")][..], "without TLS"),
    ] {
        let done = run(env);
        assert!(!done.status.success() && said(&done).contains(why), "{why}: {}", said(&done));
    }
}

/// A real mail server, of the Python package aiosmtpd, with a certificate for localhost.
struct MailServer {
    port: String,
    certificate: String,
    lines: Lines<BufReader<ChildStdout>>,
    child: Child,
    _folder: TempDir,
}

impl MailServer {
    fn start(mode: &str, failures: u32) -> Self {
        let folder = TempDir::new().unwrap();
        let [certificate, key] = ["mail.crt", "mail.key"].map(|name| folder.path().join(name).display().to_string());
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
            .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .args(["-keyout", &key, "-out", &certificate])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        // Where scripts/setup puts it.
        let home = std::env::var("CARGO_HOME").unwrap_or_else(|_| format!("{}/.cargo", std::env::var("HOME").unwrap()));
        let mut child = Command::new(format!("{home}/hark/python-clients/bin/python"))
            .arg(format!("{}/tests/clients/smtp_receiver.py", env!("CARGO_MANIFEST_DIR")))
            .args([mode, &certificate, &key, "hark", "a password", &failures.to_string()])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines.next().expect("the mail server starts").unwrap();
        Self { port, certificate, lines, child, _folder: folder }
    }

    fn next(&mut self) -> Value {
        serde_json::from_str(&self.lines.next().unwrap().unwrap()).unwrap()
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn messages_go_by_e_mail_with_and_without_tls() {
    for (mode, scheme, query) in [("tls", "smtps", ""), ("starttls", "smtp", "?tls=required"), ("plain", "smtp", "")] {
        let mut server = MailServer::start(mode, 0);
        let user = if mode == "plain" { "" } else { "hark:a%20password@" };
        let url = format!("{scheme}://{user}localhost:{}{query}", server.port);
        let env = [
            ("HARK_ALERT_SMTP_URL", &*url),
            ("HARK_ALERT_EMAIL_FROM", "Hark <hark@example.org>"),
            ("HARK_ALERT_EMAIL_TO", "one@example.org,Two <two@example.org>"),
        ];
        let trusted = server.certificate.clone();
        let done = alerts_test(&[&env[..], &[("SSL_CERT_FILE", &*trusted)]].concat());
        assert!(done.status.success() && said(&done).contains("email: sent"), "{mode}: {}", said(&done));
        let email = server.next();
        assert_eq!(email["to"], serde_json::json!(["one@example.org", "two@example.org"]), "{mode}");
        assert_eq!(
            (&email["subject"], &email["from"]),
            (&"[Hark] test: HarkTest".into(), &"Hark <hark@example.org>".into())
        );
        assert!(
            email["text"].as_str().unwrap().contains("This is a test; messages about alerts come this way."),
            "{email}"
        );
        assert_eq!(email["user"], if mode == "plain" { Value::Null } else { "hark".into() }, "{mode}");
        if mode != "plain" {
            // A server that can't be trusted gets neither the message nor the password.
            let done = alerts_test(&env);
            assert!(!done.status.success() && said(&done).contains("email: not sent: "), "{mode}: {}", said(&done));
            let url = url.replacen("a%20password", "another", 1);
            let wrong = [("HARK_ALERT_SMTP_URL", &*url), env[1], env[2], ("SSL_CERT_FILE", &*trusted)];
            let done = alerts_test(&wrong);
            assert!(!done.status.success() && said(&done).contains("email: not sent: "), "{mode}: {}", said(&done));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_e_mail_that_is_refused_for_now_is_sent_again() {
    let folder = TempDir::new().unwrap();
    let mut server = tokio::task::spawn_blocking(|| MailServer::start("plain", 2)).await.unwrap();
    let url = format!("smtp://localhost:{}", server.port);
    let env = [
        ("HARK_ALERT_SMTP_URL", url),
        ("HARK_ALERT_EMAIL_FROM", "hark@example.org".to_owned()),
        ("HARK_ALERT_EMAIL_TO", "one@example.org".to_owned()),
    ];
    let hark = Setup::new(folder.path(), &FLAGS).env(&env).start();
    let id = hark.visitor();
    id.session("talk.wav", wav(1.0, 5000.0), &[]).await;
    let email = tokio::task::spawn_blocking(move || server.next());
    let email = time::timeout(TIMEOUT, email).await.expect("an e-mail").unwrap();
    assert_eq!(email["subject"], "[Hark] warning: HarkQueueOld");
    assert!(email["text"].as_str().unwrap().contains("What to do: docs/operations.md#harkqueueold"), "{email}");
}

/// Of a series as a query names it: the metric's labels, if there is such a metric.
fn labels_of(series: &str) -> Option<Vec<&'static str>> {
    catalogue::metrics().find_map(|metric| {
        let mut labels: Vec<_> = metric.labels.iter().map(|label| label.name).collect();
        let parts: &[&str] = if let Kind::Histogram(_) = metric.kind { &["_bucket", "_sum", "_count"] } else { &[""] };
        let part = series.strip_prefix(metric.name).filter(|part| parts.contains(part))?;
        if part == "_bucket" {
            labels.push("le");
        }
        Some(labels)
    })
}

#[test]
fn rules_and_dashboard_ask_for_series_that_exist() {
    let rules = alerts().into_iter().map(|alert| alert.expr);
    let mut seen = 0;
    for query in rules.chain(dashboard()) {
        for Selector { name, labels } in selectors(&query) {
            // Prometheus' own.
            if ["ALERTS", "up"].contains(&&*name) {
                continue;
            }
            let own = labels_of(&name).unwrap_or_else(|| panic!("there is no series {name}: {query}"));
            for label in labels {
                assert!(own.contains(&&*label) || label == "instance", "{name} has no label {label}: {query}");
            }
            seen += 1;
        }
    }
    assert!(seen > 100, "{seen}");
    for name in figures::names() {
        assert!(labels_of(name).is_some(), "there is no series {name}");
    }
}

#[test]
fn what_a_percentile_is_compared_with_is_a_bound() {
    // Between two bounds a percentile is only estimated.
    for (series, bound) in [
        ("hark_client_delivery_seconds", 0.5),
        ("hark_stream_connect_seconds", 0.5),
        ("hark_redis_ping_seconds", 0.1),
        ("hark_database_query_seconds", 0.2),
    ] {
        let kind = catalogue::metrics().find(|metric| metric.name == series).unwrap().kind;
        assert!(matches!(kind, Kind::Histogram(bounds) if bounds.contains(&bound)), "{series}: {kind:?}");
    }
}
