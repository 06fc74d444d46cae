//! The places where Hark runs: what passes the proxies of `deploy/`, what a proxy that changes `Host` is told, a sub-path, and
//! that the files for platforms name what there is.

#[path = "support/caddy.rs"]
#[allow(unreachable_pub, reason = "shared by test binaries")]
mod caddy;
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

use caddy::Caddy;
use clap::{CommandFactory, Parser};
use hark::server::cli::{Cli, Command};
use nginx::Nginx;
use process::Setup;
use reqwest::{Certificate, Client, Method, RequestBuilder, Response, StatusCode, header, multipart};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::Mutex,
    time::Duration,
};
use support::{Sse, TIMEOUT, TestApp, Visitor, wav};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::block_in_place,
    time,
};

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)).unwrap()
}

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

/// All variables that Hark reads, by its own description of its settings.
fn settings() -> BTreeSet<String> {
    fn collect(command: &clap::Command, into: &mut BTreeSet<String>) {
        let names = command.get_arguments().filter_map(|arg| arg.get_env()?.to_str());
        for name in names {
            into.insert(name.to_owned());
            // A secret is given by a variable, or by a file that another one names.
            into.extend(name.strip_suffix("_FILE").map(str::to_owned));
        }
        command.get_subcommands().for_each(|command| collect(command, into));
    }
    let mut all = BTreeSet::new();
    collect(&Cli::command(), &mut all);
    let others = ["AWS_ENDPOINT_URL", "AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ALLOW_HTTP"];
    all.extend(others.into_iter().chain(["HARK_OPENAI_KEY", "LEPTOS_SITE_ADDR", "PORT"]).map(str::to_owned));
    assert!(all.contains("DATABASE_URL") && all.contains("HARK_WORKERS"), "{all:?}");
    all
}

/// A browser at a proxy, that sends where its forms come from as browsers do without TLS.
struct Browser {
    url: String,
    client: Client,
    cookie: Mutex<Option<String>>,
}

impl Browser {
    fn new(url: &str, authority: Option<&Path>) -> Self {
        let mut builder = Client::builder();
        if let Some(file) = authority {
            builder = builder.add_root_certificate(Certificate::from_pem(&fs::read(file).unwrap()).unwrap());
        }
        Self { url: url.to_owned(), client: builder.build().unwrap(), cookie: Mutex::default() }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    async fn send(&self, mut request: RequestBuilder) -> Response {
        if let Some(cookie) = &*self.cookie.lock().unwrap() {
            request = request.header(header::COOKIE, cookie);
        }
        let answer = time::timeout(TIMEOUT, request.send()).await.expect("an answer").unwrap();
        for set in answer.headers().get_all(header::SET_COOKIE) {
            let pair = set.to_str().unwrap().split(';').next().unwrap();
            if pair.contains("hark_owner_") {
                *self.cookie.lock().unwrap() = Some(pair.to_owned());
            }
        }
        answer
    }

    async fn get(&self, path: &str) -> Response {
        self.send(self.request(Method::GET, path)).await
    }

    async fn json(&self, path: &str) -> Value {
        self.get(path).await.json().await.unwrap()
    }

    async fn upload(&self, file: Vec<u8>) -> Response {
        let form = multipart::Form::new().part("file", multipart::Part::bytes(file).file_name("a.wav"));
        let request = self.request(Method::POST, "/api/v1/sessions").header(header::ORIGIN, &self.url);
        self.send(request.multipart(form)).await
    }
}

/// A node that trusts a proxy on this machine, and its address for both of those that the settings name.
async fn node() -> (TestApp, [String; 2]) {
    let node = TestApp::with(&["--trusted-proxies", "127.0.0.1,::1", "--workers", "0"]).await;
    let address = node.url.strip_prefix("http://").unwrap().to_owned();
    (node, [address.clone(), address])
}

/// What pages need of a proxy: a stream that isn't held back, an upload that is large, and polls that are answered briefly.
async fn carries_what_pages_need(browser: &Browser, https: bool) {
    assert_eq!(browser.get("/").await.status(), StatusCode::OK);
    let arrival = browser.json("/api/v1/request").await;
    let host = browser.url.split_once("://").unwrap().1;
    assert_eq!((&arrival["host"], &arrival["http"]), (&host.into(), &"HTTP/1.1".into()), "{arrival}");
    let scheme = if https { "https" } else { "http" };
    assert_eq!((&arrival["scheme"], &arrival["client"]), (&scheme.into(), &"forwarded".into()), "{arrival}");
    // It is open when the upload begins, and tells of it while it stays open.
    let mut stream = Sse::new(browser.get("/api/v1/status/stream").await);
    let recording = wav(1200.0, 1000.0);
    let size = recording.len();
    let made = browser.upload(recording).await;
    assert_eq!(made.status(), StatusCode::CREATED);
    let id = made.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned();
    loop {
        let event = stream.next().await.expect("the stream stays open");
        if event.event == "status" && event.json()["session_id"] == id.as_str() {
            break;
        }
    }
    let played = browser.get(&format!("/api/v1/sessions/{id}/audio")).await;
    assert_eq!(played.bytes().await.unwrap().len(), size);
    let polled = browser.get("/api/v1/status").await;
    let (status, tag) = (polled.status(), polled.headers()[header::ETAG].clone());
    assert_eq!(
        (status, polled.json::<Value>().await.unwrap()["statuses"].as_array().unwrap().len()),
        (StatusCode::OK, 1)
    );
    let again = browser.request(Method::GET, "/api/v1/status").header(header::IF_NONE_MATCH, tag);
    assert_eq!(browser.send(again).await.status(), StatusCode::NOT_MODIFIED);
    for path in ["/metrics", "/readyz", "/healthz", "/api/v1/health/sessions"] {
        assert_eq!(browser.get(path).await.status(), StatusCode::FORBIDDEN, "{path} is for operators");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_carries_what_pages_need() {
    let (_node, addresses) = node().await;
    let nginx = block_in_place(|| Nginx::start(&addresses));
    carries_what_pages_need(&Browser::new(&nginx.url, None), false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn caddy_carries_what_pages_need() {
    let (_node, addresses) = node().await;
    let caddy = block_in_place(|| Caddy::start(&addresses));
    let browser = Browser::new(&caddy.url, Some(&caddy.authority()));
    // It listens before it has its certificate, and refuses whoever comes until then.
    let certified = async {
        while browser.request(Method::GET, "/").send().await.is_err_and(|error| error.is_connect()) {
            time::sleep(Duration::from_millis(20)).await;
        }
    };
    time::timeout(TIMEOUT, certified).await.expect("a certificate");
    carries_what_pages_need(&browser, true).await;
}

/// A proxy that passes its own name on as `Host`. What is refused for that is told: to who sent it, and in the log, with the
/// line that mends it. However large the upload is and however the proxy passes it on, the answer arrives.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_changes_host_is_told_which_line_mends_it() {
    let folder = TempDir::new().unwrap();
    let log = folder.path().join("log");
    let flags = ["--workers", "0", "--trusted-proxies", "127.0.0.1"];
    let setup = Setup::new(&folder.path().join("data"), &flags).log_to(&log);
    let node = block_in_place(|| setup.start());
    let address = node.url.strip_prefix("http://").unwrap().to_owned();
    let host = (
        "proxy_set_header Host $http_host;",
        "proxy_set_header Host hark-inside; proxy_set_header X-Forwarded-Host $http_host;",
    );
    let buffered = ("proxy_request_buffering off;", "proxy_request_buffering on;");
    for changes in [&[host][..], &[host, buffered]] {
        let nginx = block_in_place(|| Nginx::start_changed(&[address.clone(), address.clone()], changes));
        let browser = Browser::new(&nginx.url, None);
        browser.get("/").await;
        for megabytes in [0, 1, 30, 200] {
            for _ in 0..3 {
                let answer = browser.upload(vec![7; megabytes * 1_000_000]).await;
                assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{megabytes} MB, {changes:?}: {}", nginx.errors());
                let error = &answer.json::<Value>().await.unwrap()["error"];
                let message = error["message"].as_str().unwrap();
                assert_eq!(error["code"], "cross_site");
                for part in [&nginx.url, "arrived for the host hark-inside", "proxy_set_header Host $http_host;"] {
                    assert!(message.contains(part), "{message}");
                }
            }
        }
        // As the browser's own word, where it gives it: no `Host` is needed then.
        let send = async |site: &str, origin: &str| {
            let request = browser.request(Method::POST, "/api/v1/sessions").header("sec-fetch-site", site);
            browser.send(request.header(header::ORIGIN, origin)).await
        };
        assert_eq!(send("same-origin", &nginx.url).await.status(), StatusCode::BAD_REQUEST);
        let answer = send("cross-site", "https://evil.example").await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);
        let message = answer.text().await.unwrap();
        assert!(message.contains("a page of another site sent this") && !message.contains("proxy"), "{message}");
    }
    let log = fs::read_to_string(&log).unwrap();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("seems to come from another site")).collect();
    // Once, however many were refused.
    let [told] = told[..] else { panic!("{log}") };
    for part in [
        "Host is 'hark-inside'",
        "Origin is 'http://127.0.0.1:",
        "X-Forwarded-Host is '127.0.0.1:",
        "The proxy in front of Hark changes Host;",
        "proxy_set_header Host $http_host;",
    ] {
        assert!(told.contains(part), "no '{part}' in {told}");
    }
}

/// Some proxies send all of a request before they read the answer. Whoever closes the connection meanwhile makes "502 Bad
/// Gateway" of what they would have said.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_refused_is_read_to_its_end() {
    let node = TestApp::with(&["--workers", "0", "--max-upload-bytes", "400000000"]).await;
    let piece = vec![7; 1_000_000];
    let send = async |megabytes: usize| {
        let mut socket = TcpStream::connect(node.url.strip_prefix("http://").unwrap()).await.unwrap();
        let head = format!(
            "POST /api/v1/sessions HTTP/1.1\r\nHost: hark-inside\r\nOrigin: http://hark.example.org\r\nContent-Type: \
             multipart/form-data; boundary=x\r\nContent-Length: {megabytes}000000\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        for _ in 0..megabytes {
            socket.write_all(&piece).await.map_err(|error| error.to_string())?;
        }
        let mut answer = String::new();
        time::timeout(TIMEOUT, socket.read_to_string(&mut answer))
            .await
            .expect("its end")
            .map_err(|e| e.to_string())?;
        Ok::<_, String>(answer)
    };
    for megabytes in [1, 100, 400] {
        let answer = send(megabytes).await.unwrap_or_else(|error| panic!("{megabytes} MB: {error}"));
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("cross_site"), "{megabytes} MB: {answer}");
    }
    // What is larger than any upload is cut off.
    assert!(send(600).await.is_err());
}

/// `HARK_HOSTS`, which a proxy that changes `Host` makes refuse everything; and for the address that people are told.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_not_allowed_is_told_where_the_proxy_changed_it() {
    let folder = TempDir::new().unwrap();
    let log = folder.path().join("log");
    let flags = ["--workers", "0", "--hosts", "hark.example.org", "--public-url", "https://other.example.org/"];
    let setup = Setup::new(&folder.path().join("data"), &flags).log_to(&log);
    let node = block_in_place(|| setup.start());
    let ask = async |forwarded: Option<&str>| {
        let mut request = Client::new().get(&node.url);
        if let Some(host) = forwarded {
            request = request.header("x-forwarded-host", host);
        }
        assert_eq!(request.send().await.unwrap().status(), StatusCode::MISDIRECTED_REQUEST);
        fs::read_to_string(&log).unwrap().matches("a request was refused because HARK_HOSTS").count()
    };
    assert!(
        fs::read_to_string(&log)
            .unwrap()
            .contains("HARK_HOSTS doesn't have 'other.example.org', the host of HARK_PUBLIC_URL")
    );
    // Strangers try names all the time; that is nothing to tell.
    assert_eq!(ask(None).await, 0);
    assert_eq!(ask(Some("evil.example")).await, 0);
    assert_eq!(ask(Some("hark.example.org")).await, 1);
    assert_eq!(ask(Some("hark.example.org")).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sub_path_is_refused_at_the_start_and_told_where_it_is_seen() {
    let folder = TempDir::new().unwrap();
    let (data, log) = (folder.path().join("data"), folder.path().join("log"));
    let setup =
        |path: &str| Setup::new(&data, &["--workers", "0"]).log_to(&log).env(&[("HARK_BASE_PATH", path.to_owned())]);
    let out = block_in_place(|| setup("/hark").refused());
    let told = String::from_utf8(out.stderr).unwrap();
    assert!(told.contains("HARK_BASE_PATH: '/hark' can't be used") && told.contains("docs/deploy.md"), "{told}");
    assert!(!data.exists(), "it does nothing before");
    let node = block_in_place(|| setup("/").start());
    let below = || fs::read_to_string(&log).unwrap().matches("a proxy serves Hark below '/hark'").count();
    assert_eq!(below(), 0);
    for _ in 0..2 {
        let answer = Client::new().get(&node.url).header("x-forwarded-prefix", "/hark").send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(below(), 1);
    }
}

/// What Render accepts of a service or database of each kind, as far as this file needs it:
/// https://render.com/docs/blueprint-spec
fn render_fields(kind: &str) -> &'static [&'static str] {
    match kind {
        "web" => &[
            "type",
            "name",
            "runtime",
            "dockerfilePath",
            "dockerContext",
            "dockerCommand",
            "plan",
            "region",
            "domains",
            "healthCheckPath",
            "maxShutdownDelaySeconds",
            "numInstances",
            "disk",
            "envVars",
        ],
        "worker" => &[
            "type",
            "name",
            "runtime",
            "dockerfilePath",
            "dockerContext",
            "dockerCommand",
            "plan",
            "region",
            "maxShutdownDelaySeconds",
            "numInstances",
            "disk",
            "envVars",
        ],
        "keyvalue" => &["type", "name", "plan", "region", "ipAllowList", "maxmemoryPolicy"],
        "database" => {
            &["name", "plan", "region", "ipAllowList", "postgresMajorVersion", "databaseName", "user", "diskSizeGB"]
        }
        _ => panic!("Render knows no service of the type '{kind}'"),
    }
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn name(value: &Value) -> &str {
    value["name"].as_str().unwrap()
}

#[test]
fn the_blueprint_for_render_names_what_there_is() {
    let blueprint = yaml(&read("render.yaml"));
    assert!(keys(&blueprint).iter().all(|key| ["services", "databases", "envVarGroups"].contains(key)));
    let services: BTreeMap<&str, &Value> =
        list(&blueprint["services"]).iter().map(|service| (name(service), service)).collect();
    assert_eq!(services.len(), list(&blueprint["services"]).len(), "names are unique");
    let databases: BTreeSet<&str> = list(&blueprint["databases"]).iter().map(name).collect();
    let groups: BTreeMap<&str, &Value> =
        list(&blueprint["envVarGroups"]).iter().map(|group| (name(group), &group["envVars"])).collect();
    for service in services.values() {
        let allowed = render_fields(service["type"].as_str().unwrap());
        assert!(keys(service).iter().all(|key| allowed.contains(key)), "{service}");
    }
    for database in list(&blueprint["databases"]) {
        assert!(keys(database).iter().all(|key| render_fields("database").contains(key)), "{database}");
        assert_eq!(database["ipAllowList"], Value::Array(Vec::new()), "nobody outside");
    }

    let known = settings();
    let check_values = |variables: &Value, within_group: bool| -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for variable in list(variables) {
            if let Some(group) = variable["fromGroup"].as_str() {
                names.extend(list(groups[group]).iter().map(|v| v["key"].as_str().unwrap().to_owned()));
                continue;
            }
            let key = variable["key"].as_str().unwrap();
            assert!(known.contains(key), "{key} is no setting of Hark");
            assert!(names.insert(key.to_owned()), "{key} is set twice");
            let [source] = keys(variable).into_iter().filter(|name| *name != "key").collect::<Vec<_>>()[..] else {
                panic!("{key} has not one source: {variable}")
            };
            let value = &variable[source];
            match source {
                "value" => assert!(value.is_string(), "{key} must be text"),
                "sync" => assert!(value == false && !within_group),
                "fromDatabase" => {
                    assert!(databases.contains(name(value)) && value["property"] == "connectionString", "{variable}");
                }
                "fromService" => {
                    let other = services[name(value)];
                    assert_eq!(other["type"], value["type"], "{variable}");
                    match value["envVarKey"].as_str() {
                        Some(theirs) => {
                            let has = list(&other["envVars"]).iter().any(|v| v["key"] == theirs);
                            assert!(has, "{} has no {theirs}", name(other));
                        }
                        None => assert!(value["property"] == "connectionString" && other["type"] == "keyvalue"),
                    }
                }
                _ => panic!("{variable}"),
            }
        }
        names
    };
    groups.values().for_each(|variables| drop(check_values(variables, true)));
    for (name, service) in &services {
        if service["type"] == "keyvalue" {
            assert_eq!(service["ipAllowList"], Value::Array(Vec::new()), "nobody outside");
            continue;
        }
        let names = check_values(&service["envVars"], false);
        for needed in ["DATABASE_URL", "REDIS_URL", "HARK_RECORDINGS_URL", "HARK_WORKERS"] {
            assert!(names.contains(needed), "{name} has no {needed}");
        }
        // Its generated values aren't hexadecimal; the database keeps the key.
        assert!(!names.contains("HARK_SECRET") && !names.contains("PORT"));
        assert_eq!((&service["runtime"], &service["dockerContext"]), (&"docker".into(), &".".into()));
        assert!(service["maxShutdownDelaySeconds"].as_u64().unwrap() <= 300);
        let file = service["dockerfilePath"].as_str().unwrap();
        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(file).exists(), "{file}");
        // The variables are those that this command reads.
        let command = service["dockerCommand"].as_str().unwrap_or("hark serve");
        let values = list(&service["envVars"]).iter().filter_map(|v| Some((v["key"].as_str()?, v["value"].as_str()?)));
        let flags: Vec<String> = values.map(|(key, value)| format!("--{}={value}", flag(key))).collect();
        let parsed =
            Cli::try_parse_from(command.split(' ').map(str::to_owned).chain(flags)).unwrap_or_else(|e| panic!("{e}"));
        let serves = matches!(parsed.command, Some(Command::Serve(_)));
        assert_eq!(serves, service["type"] == "web", "{command}");
    }
    let web = services["hark-web"];
    assert_eq!(web["healthCheckPath"], "/readyz");
    let monitor = list(&web["envVars"]).iter().find(|v| v["key"] == "HARK_MONITOR_ADDR").unwrap();
    assert!(monitor["value"].as_str().unwrap().starts_with("127.0.0.1:"), "/metrics isn't for everybody");
}

/// The flag of `hark serve` for a variable.
fn flag(variable: &str) -> String {
    let command = Cli::command();
    let serve = command.find_subcommand("serve").unwrap();
    let found = serve.get_arguments().find(|arg| arg.get_env().is_some_and(|env| env == variable));
    found.unwrap_or_else(|| panic!("hark serve reads no {variable}")).get_long().unwrap().to_owned()
}

#[test]
fn the_settings_for_traefik_are_yaml_that_leads_to_hark() {
    let settings = yaml(&read("traefik.yaml"));
    let http = &settings["http"];
    let router = &http["routers"]["hark"];
    let service = &http["services"][router["service"].as_str().unwrap()]["loadBalancer"];
    assert_eq!(service["passHostHeader"], true);
    assert!(http["serversTransports"].get(service["serversTransport"].as_str().unwrap()).is_some());
    assert!(router["rule"].as_str().unwrap().starts_with("Host(`") && router.get("middlewares").is_none());
    assert_eq!(list(&service["servers"]).len(), 2);
}

/// The chart is rendered by Helm, which isn't here: what can be read without it is looked at.
#[test]
fn the_chart_for_kubernetes_names_what_there_is() {
    let (chart, values) = (yaml(&read("helm/hark/Chart.yaml")), yaml(&read("helm/hark/values.yaml")));
    assert_eq!((&chart["apiVersion"], &chart["appVersion"]), (&"v2".into(), &env!("CARGO_PKG_VERSION").into()));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/helm/hark/templates");
    let templates: BTreeMap<String, String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|file| (file.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&file).unwrap()))
        .collect();
    let all: String = templates.values().cloned().collect();
    let quoted = |word: &str| -> BTreeSet<String> {
        let begin = format!("{word} \"");
        let found = all.split(&begin).skip(1).map(|rest| rest.split('"').next().unwrap().to_owned());
        found.collect()
    };
    assert_eq!(quoted("include"), quoted("define"), "what is included is defined, and the other way round");

    // Values that templates ask for are there.
    for path in all.split(".Values.").skip(1) {
        let path: String = path.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '.').collect();
        let found = path.trim_end_matches('.').split('.').try_fold(&values, |value, key| value.get(key));
        assert!(found.is_some(), "values.yaml has no {path}");
    }
    let known = settings();
    let is_setting = |name: &&str| name.chars().all(|c| c.is_ascii_uppercase() || c == '_');
    let in_templates = all.lines().filter_map(|line| line.trim().strip_prefix("- name: ")).filter(is_setting);
    let names: Vec<&str> = in_templates.chain(keys(&values["env"])).collect();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        assert!(known.contains(name), "{name} is no setting of Hark");
    }
    for (file, command) in [("web.yaml", "hark, serve"), ("worker.yaml", "hark, worker")] {
        let text = &templates[file];
        assert!(text.contains(&format!("command: [{command}]")), "{file}");
        Cli::try_parse_from(command.split(", ")).unwrap_or_else(|e| panic!("{e}"));
        for line in [
            "httpGet: { path: /healthz, port: monitor }",
            "httpGet: { path: /readyz, port: monitor }",
            "terminationGracePeriodSeconds: 30",
            "{ name: tmp, mountPath: /tmp }",
            "{ name: data, mountPath: /var/lib/hark }",
        ] {
            assert!(text.contains(line), "{file} has no '{line}'");
        }
    }
    for line in ["runAsNonRoot: true", "readOnlyRootFilesystem: true", "capabilities: { drop: [ALL] }"] {
        assert!(all.contains(line), "no '{line}'");
    }
}
