//! Administrators: each way of becoming one, how strangers are refused, and that signing out, a new password and time end
//! sign-ins. What they see of the sessions of others and do to them.

#[path = "support/postgres.rs"]
#[allow(unreachable_pub, reason = "shared by test binaries")]
mod postgres;
#[path = "support/process.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by test binaries")]
mod process;
mod support;

use hark::{
    model::{EngineId, Timestamp},
    server::store::{ReadyEngine, Store},
};
use postgres::Postgres;
use process::Setup;
use reqwest::{RequestBuilder, Response, StatusCode, header, redirect};
use serde_json::{Value, json};
use std::{
    fs,
    io::{Read, Write},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};
use support::{Sse, TIMEOUT, TestApp, Visitor, wav};
use tempfile::TempDir;
use tokio::time;

const PASSWORD: &str = "correct horse battery";
const TOKEN: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
/// A page of administrators.
const PAGE: &str = "/admin";

/// `hark admin` with these words, beside a node on this folder or database.
async fn hark_admin(folder: &Path, url: Option<&str>, words: &[&str], input: &str) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hark"));
    command.arg("admin").args(words).env("HARK_DATA_DIR", folder);
    match url {
        Some(url) => command.env("DATABASE_URL", url),
        None => command.env_remove("DATABASE_URL"),
    };
    let input = input.to_owned();
    let output = tokio::task::spawn_blocking(move || {
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().unwrap();
        // Fails if the command ends without reading, which is fine.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    });
    let output = output.await.unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text)
}

async fn set_password(app: &TestApp, password: &str) -> String {
    let (done, text) =
        hark_admin(app.folder.path(), None, &["set-password", "--stdin"], &format!("{password}\n")).await;
    assert!(done, "{text}");
    text
}

/// Reads what a program says until it says this.
fn read_until(said: &mut impl Read, text: &str, all: &mut String) {
    let mut byte = [0];
    while !all.ends_with(text) {
        assert_eq!(said.read(&mut byte).unwrap(), 1, "it doesn't say '{text}': {all}");
        all.push(char::from(byte[0]));
    }
}

/// `hark admin set-password` at a terminal that is its standard input and not that of its session, as under
/// `systemd-run --pipe`: there is no /dev/tty.
#[test]
fn the_password_is_asked_for_at_a_terminal_that_was_handed_on() {
    let folder = TempDir::new().unwrap();
    let hark = env!("CARGO_BIN_EXE_hark");
    let of_folder = |program: &str| {
        let mut command = Command::new(program);
        command.env("HARK_DATA_DIR", folder.path()).env_remove("DATABASE_URL");
        command
    };
    assert!(of_folder(hark).arg("migrate").stdout(Stdio::null()).status().unwrap().success());
    let set = |again: &str| {
        let mut script = of_folder("script");
        script.args(["-qec", &format!("setsid -w '{hark}' admin set-password"), "/dev/null"]);
        let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (mut typed, mut said) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut all = String::new();
        for (prompt, answer) in [("New password: ", PASSWORD), ("The same again: ", again)] {
            read_until(&mut said, prompt, &mut all);
            writeln!(typed, "{answer}").unwrap();
        }
        said.read_to_string(&mut all).unwrap();
        let done = child.wait().unwrap().success();
        assert!(!all.contains(PASSWORD) && !all.contains(again), "it is shown: {all}");
        (done, all)
    };
    let (done, said) = set("correct horse batterz");
    assert!(!done && said.contains("the two differ; nothing was changed"), "{said}");
    let (done, said) = set(PASSWORD);
    assert!(done && said.contains("The password is set"), "{said}");
}

/// Somebody with a browser that follows no redirects.
struct Somebody {
    url: String,
    client: reqwest::Client,
}

impl Somebody {
    fn at(app: &TestApp) -> Self {
        let client = reqwest::Client::builder().redirect(redirect::Policy::none()).build().unwrap();
        Self { url: app.url.clone(), client }
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.url)).header(header::ACCEPT, "text/html")
    }

    fn post(&self, path: &str, fields: &[(&str, &str)]) -> RequestBuilder {
        let encoded = |text: &str| text.bytes().map(|b| format!("%{b:02X}")).collect::<String>();
        let body: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        let request = self.client.post(format!("{}{path}", self.url)).header(header::ACCEPT, "text/html");
        request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded").body(body.join("&"))
    }

    /// Signs in, and returns the cookie.
    async fn sign_in(&self, password: &str) -> String {
        let response = send(self.post("/admin/sign-in", &[("password", password)])).await;
        assert_eq!((response.status(), location(&response)), (StatusCode::SEE_OTHER, "/admin"));
        set_cookie(&response).split(';').next().unwrap().to_owned()
    }

    async fn status(&self, cookie: &str) -> StatusCode {
        send(self.get(PAGE).header(header::COOKIE, cookie)).await.status()
    }
}

async fn send(request: RequestBuilder) -> Response {
    time::timeout(TIMEOUT, request.send()).await.expect("an answer").unwrap()
}

fn location(response: &Response) -> &str {
    response.headers()[header::LOCATION].to_str().unwrap()
}

fn set_cookie(response: &Response) -> String {
    response.headers()[header::SET_COOKIE].to_str().unwrap().to_owned()
}

/// A cookie or token with its last character changed.
fn wrong_by_one(text: &str) -> String {
    let (start, last) = text.split_at(text.len() - 1);
    format!("{start}{}", if last == "0" { '1' } else { '0' })
}

#[tokio::test]
async fn nobody_is_administrator_until_a_way_is_set() {
    let app = TestApp::start().await;
    let somebody = Somebody::at(&app);
    for path in [PAGE, "/admin/sign-in"] {
        let response = send(somebody.get(path).bearer_auth(TOKEN)).await;
        assert_eq!(response.status(), StatusCode::FORBIDDEN, "{path}");
        let text = response.text().await.unwrap();
        assert!(text.contains("hark admin set-password") && !text.contains("password\" type="), "{path}: {text}");
    }
    let tried = send(somebody.post("/admin/sign-in", &[("password", PASSWORD)])).await;
    assert_eq!((tried.status(), tried.headers().get(header::SET_COOKIE)), (StatusCode::FORBIDDEN, None));

    // Each way takes effect while the node runs, or at its start.
    let text = set_password(&app, PASSWORD).await;
    assert!(text.contains("The password is set"), "{text}");
    let response = send(somebody.get(PAGE)).await;
    assert_eq!((response.status(), location(&response)), (StatusCode::SEE_OTHER, "/admin/sign-in?to=%2Fadmin"));
}

#[tokio::test]
async fn the_password_signs_in_and_signing_out_ends_that() {
    let app = TestApp::start().await;
    set_password(&app, PASSWORD).await;
    let somebody = Somebody::at(&app);
    let page = send(somebody.get("/admin/sign-in?to=%2Fadmin%3Frange%3Dweek")).await;
    assert_eq!((page.status(), &page.headers()[header::CACHE_CONTROL]), (StatusCode::OK, &"no-store".parse().unwrap()));
    let text = page.text().await.unwrap();
    assert!(text.contains("value=\"/admin?range=week\"") && text.contains("type=\"password\""), "{text}");

    for wrong in ["", "correct horse batterz", "correct horse battery ", "Correct horse battery"] {
        let response = send(somebody.post("/admin/sign-in", &[("password", wrong)])).await;
        assert_eq!(response.status(), StatusCode::FORBIDDEN, "{wrong}");
        assert_eq!(response.headers().get(header::SET_COOKIE), None);
        assert!(response.text().await.unwrap().contains("That isn't the administrators' password"));
    }

    let fields = [("password", PASSWORD), ("to", "/admin?range=week")];
    let response = send(somebody.post("/admin/sign-in", &fields)).await;
    assert_eq!((response.status(), location(&response)), (StatusCode::SEE_OTHER, "/admin?range=week"));
    let set = set_cookie(&response);
    for rule in ["HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=43200"] {
        assert!(set.contains(rule), "{set}");
    }
    assert!(set.starts_with("hark_admin_") && !set.contains("Secure"), "{set}");
    let cookie = set.split(';').next().unwrap();
    let response = send(somebody.get(PAGE).header(header::COOKIE, cookie)).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
    assert_eq!(response.headers().get(header::SET_COOKIE), None, "an administrator's page makes nobody an owner");
    assert!(response.text().await.unwrap().contains("sign-in "));

    // Whoever is signed in isn't asked again, and is led to no other site.
    let to = send(somebody.get("/admin/sign-in?to=%2F%2Fevil.example").header(header::COOKIE, cookie)).await;
    assert_eq!((to.status(), location(&to)), (StatusCode::SEE_OTHER, "/admin"));

    assert_eq!(somebody.status(&wrong_by_one(cookie)).await, StatusCode::SEE_OTHER);
    let (name, value) = cookie.split_once('=').unwrap();
    assert_eq!(somebody.status(&format!("{name}x={value}")).await, StatusCode::SEE_OTHER);
    // The owner's cookie is signed with the same key, and is no sign-in.
    let owner = app.visitor().cookie().await;
    let value = owner.split_once('=').unwrap().1;
    assert_eq!(somebody.status(&format!("{name}={value}")).await, StatusCode::SEE_OTHER);

    let second = somebody.sign_in(PASSWORD).await;
    let response = send(somebody.post("/admin/sign-out", &[]).header(header::COOKIE, cookie)).await;
    assert_eq!((response.status(), location(&response)), (StatusCode::SEE_OTHER, "/admin/sign-in"));
    assert!(set_cookie(&response).contains("Max-Age=0"));
    assert_eq!(somebody.status(cookie).await, StatusCode::SEE_OTHER, "the cookie is worth nothing any more");
    assert_eq!(somebody.status(&second).await, StatusCode::OK, "another browser stays signed in");
}

#[tokio::test]
async fn behind_https_no_other_host_can_set_the_cookie_of_administrators() {
    let app = TestApp::start().await;
    set_password(&app, PASSWORD).await;
    let somebody = Somebody::at(&app);
    let request = somebody.post("/admin/sign-in", &[("password", PASSWORD)]).header("x-forwarded-proto", "https");
    let set = set_cookie(&send(request).await);
    assert!(set.starts_with("__Host-hark_admin_") && set.contains("Secure"), "{set}");
}

#[tokio::test]
async fn forms_of_other_sites_sign_nobody_in_or_out() {
    let app = TestApp::start().await;
    set_password(&app, PASSWORD).await;
    let somebody = Somebody::at(&app);
    let cookie = somebody.sign_in(PASSWORD).await;
    for (name, value) in [("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")] {
        for path in ["/admin/sign-in", "/admin/sign-out"] {
            let form = somebody.post(path, &[("password", PASSWORD)]).header(header::COOKIE, &cookie);
            assert_eq!(send(form.header(name, value)).await.status(), StatusCode::FORBIDDEN, "{path}");
        }
    }
    assert_eq!(somebody.status(&cookie).await, StatusCode::OK);
}

/// On every node of a database, at once.
#[tokio::test]
async fn another_password_ends_all_sign_ins_on_all_nodes() {
    let server = Postgres::start();
    let url = server.database("admin");
    let shared = TempDir::new().unwrap();
    let recordings = format!("file://{}", shared.path().display());
    let flags = ["--database-url", &url, "--recordings-url", &recordings, "--workers", "0"];
    let (one, two) = (TestApp::with(&flags).await, TestApp::with(&flags).await);
    let command = async |words: &[&str], input: &str| {
        let (done, text) = hark_admin(one.folder.path(), Some(&url), words, input).await;
        assert!(done, "{text}");
        text
    };
    command(&["set-password", "--stdin"], &format!("{PASSWORD}\r\n")).await;
    let (here, there) = (Somebody::at(&one), Somebody::at(&two));
    let cookie = here.sign_in(PASSWORD).await;
    assert_eq!((here.status(&cookie).await, there.status(&cookie).await), (StatusCode::OK, StatusCode::OK));

    let request = there.get("/api/v1/admin/stream").header(header::COOKIE, &cookie);
    let mut watching = Sse::new(send(request).await);
    assert_eq!(watching.next().await.unwrap().event, "overview");

    let text = command(&["set-password", "--stdin"], "another long password").await;
    assert!(text.contains("signed out"), "{text}");
    // What is open ends too, before it shows anything more.
    let last = watching.rest().await.pop().unwrap();
    assert_eq!((last.event.as_str(), &last.json()["reason"]), ("bye", &"logout".into()));
    assert_eq!(there.status(&cookie).await, StatusCode::SEE_OTHER);
    assert_eq!(here.status(&cookie).await, StatusCode::SEE_OTHER);
    let old = send(there.post("/admin/sign-in", &[("password", PASSWORD)])).await;
    assert_eq!(old.status(), StatusCode::FORBIDDEN);
    let cookie = there.sign_in("another long password").await;
    assert_eq!(here.status(&cookie).await, StatusCode::OK);
    let watching = Sse::new(send(here.get("/api/v1/admin/stream").header(header::COOKIE, &cookie)).await);

    command(&["remove-password"], "").await;
    assert_eq!(watching.rest().await.pop().unwrap().event, "bye");
    assert_eq!(here.status(&cookie).await, StatusCode::FORBIDDEN, "nobody is administrator any more");
    assert!(command(&["remove-password"], "").await.contains("There is no password"));
}

/// PostgreSQL's texts can't have the character NUL, and no parameter takes it there: an error of the database would count
/// as its fault.
#[tokio::test]
async fn no_parameter_takes_the_character_nul_to_the_database() {
    let server = Postgres::start();
    let url = server.database("nul");
    let app = TestApp::with(&["--database-url", &url, "--workers", "0", "--admin-token", TOKEN]).await;
    let me = app.visitor();
    let id = me.session("a.wav", wav(1.0, 5000.0), &[]).await;
    let api = me.json("/api/openapi.json").await;
    let mut asked = 0;
    for (path, route) in api["paths"].as_object().unwrap() {
        for parameter in route["get"]["parameters"].as_array().into_iter().flatten().filter(|p| p["in"] == "query") {
            let name = parameter["name"].as_str().unwrap();
            let path = path.replace("{id}", &id);
            for value in ["%00", "a%00b"] {
                let request = me.request("GET", &format!("{path}?{name}={value}"));
                let status = me.send(request.bearer_auth(TOKEN)).await.status();
                assert!(!status.is_server_error(), "{path}?{name}={value}: {status}");
                asked += 1;
            }
        }
    }
    assert!(asked > 30, "{asked}");
    assert_eq!(me.get("/?q=a%00b&state=%00&language=%00").await.status(), StatusCode::OK);
    assert_eq!(me.get("/sessions/%00").await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_password_is_asked_for_properly() {
    let app = TestApp::start().await;
    let folder = app.folder.path();
    let (done, text) = hark_admin(folder, None, &["set-password", "--stdin"], "too short\n").await;
    assert!(!done && text.contains("at least 12"), "{text}");
    let (done, text) = hark_admin(folder, None, &["set-password"], "correct horse battery\n").await;
    assert!(!done && text.contains("--stdin"), "{text}");
    let nowhere = TempDir::new().unwrap();
    let (done, text) = hark_admin(nowhere.path(), None, &["set-password", "--stdin"], "correct horse battery\n").await;
    assert!(!done && text.contains("HARK_DATA_DIR"), "{text}");
    assert_eq!(send(Somebody::at(&app).get(PAGE)).await.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_sign_in_expires() {
    // A second and a half.
    let app = TestApp::with(&["--admin-sign-in-hours", "0.0004"]).await;
    set_password(&app, PASSWORD).await;
    let somebody = Somebody::at(&app);
    let cookie = somebody.sign_in(PASSWORD).await;
    let expires = async {
        while somebody.status(&cookie).await == StatusCode::OK {
            time::sleep(Duration::from_millis(50)).await;
        }
    };
    time::timeout(TIMEOUT, expires).await.expect("it expires");
    assert_eq!(somebody.status(&cookie).await, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn programs_send_the_token() {
    let app = TestApp::with(&["--admin-token", TOKEN]).await;
    let somebody = Somebody::at(&app);
    let status = async |value: &str| send(somebody.get(PAGE).header(header::AUTHORIZATION, value)).await.status();
    assert_eq!(status(&format!("Bearer {TOKEN}")).await, StatusCode::OK);
    assert_eq!(status(&format!("bearer {TOKEN}")).await, StatusCode::OK);
    for wrong in [
        format!("Bearer {}", wrong_by_one(TOKEN)),
        format!("Bearer {}", &TOKEN[1..]),
        format!("Bearer {TOKEN}0"),
        format!("Basic {TOKEN}"),
        TOKEN.to_owned(),
        "Bearer ".to_owned(),
    ] {
        assert_eq!(status(&wrong).await, StatusCode::SEE_OTHER, "{wrong}");
    }
    // No password is set: the answer is the same as to a wrong one.
    let none = send(somebody.post("/admin/sign-in", &[("password", PASSWORD)])).await;
    let none = (none.status(), without_nonce(&none.text().await.unwrap()));
    set_password(&app, PASSWORD).await;
    let wrong = send(somebody.post("/admin/sign-in", &[("password", "another password")])).await;
    assert_eq!(none, (wrong.status(), without_nonce(&wrong.text().await.unwrap())));
}

fn without_nonce(page: &str) -> String {
    let mut parts = page.split("nonce=\"");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.split_once('"').map_or("", |(_, rest)| rest))
}

#[tokio::test]
async fn a_trusted_proxy_says_who_is_administrator() {
    let users = ["--admin-header", "Remote-User", "--admin-users", "ann,ben@example.org"];
    let groups = ["--admin-header", "Remote-Groups: hark-admins"];
    let status = async |app: &TestApp, lines: &[(&str, &str)]| {
        let mut request = Somebody::at(app).get(PAGE);
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        send(request).await.status()
    };
    let (ok, refused, stranger) = (StatusCode::OK, StatusCode::FORBIDDEN, StatusCode::SEE_OTHER);

    let trusted = TestApp::with(&[&users[..], &["--trusted-proxies", "127.0.0.1"]].concat()).await;
    let cases: [(&[(&str, &str)], StatusCode); 10] = [
        (&[("Remote-User", "ann")], ok),
        (&[("remote-user", "ben@example.org")], ok),
        (&[("Remote-User", "eve")], refused),
        (&[("Remote-User", "ann,ben@example.org")], refused),
        (&[("Remote-User", "Ann")], refused),
        (&[("Remote-User", "")], refused),
        // One of them may be the client's.
        (&[("Remote-User", "ann"), ("Remote-User", "eve")], refused),
        (&[("Remote-Groups", "ann")], stranger),
        (&[("Remote_User", "ann")], stranger),
        (&[], stranger),
    ];
    for (lines, expected) in cases {
        assert_eq!(status(&trusted, lines).await, expected, "{lines:?}");
    }
    let page = send(Somebody::at(&trusted).get(PAGE).header("Remote-User", "ann")).await.text().await.unwrap();
    assert!(page.contains("<bdi>ann<") && !page.contains("Sign out"), "the proxy signs out: {page}");

    // The same header from anybody else is worth nothing.
    let other = TestApp::with(&[&users[..], &["--trusted-proxies", "10.0.0.1"]].concat()).await;
    let forged = [("Remote-User", "ann"), ("X-Forwarded-For", "10.0.0.1")];
    assert_eq!(status(&other, &forged).await, stranger);

    let by_group = TestApp::with(&[&groups[..], &["--trusted-proxies", "127.0.0.1"]].concat()).await;
    for (value, expected) in [
        ("hark-admins", ok),
        ("people, hark-admins,others", ok),
        ("people|hark-admins|others", ok),
        ("hark-admins-not", refused),
        ("hark", refused),
    ] {
        assert_eq!(status(&by_group, &[("Remote-Groups", value)]).await, expected, "{value}");
    }
}

#[tokio::test]
async fn guessing_is_limited_by_address_and_in_all() {
    let flags = ["--trusted-proxies", "127.0.0.1", "--admin-tries-per-address", "3", "--admin-tries", "5"];
    let app = TestApp::with(&flags).await;
    set_password(&app, PASSWORD).await;
    let somebody = Somebody::at(&app);
    let guess = async |address: &str, password: &str| {
        let form = somebody.post("/admin/sign-in", &[("password", password)]).header("x-forwarded-for", address);
        send(form).await
    };
    for _ in 0..3 {
        assert_eq!(guess("192.0.2.1", "a wrong password").await.status(), StatusCode::FORBIDDEN);
    }
    // Not even the right one tells anything then.
    for _ in 0..5 {
        let refused = guess("192.0.2.1", PASSWORD).await;
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        let wait: u32 = refused.headers()[header::RETRY_AFTER].to_str().unwrap().parse().unwrap();
        assert!((1..=200).contains(&wait), "{wait}");
        assert!(refused.text().await.unwrap().contains("too many tries"));
    }
    // What one address was refused doesn't count against the others.
    assert_eq!(guess("192.0.2.2", PASSWORD).await.status(), StatusCode::SEE_OTHER);
    assert_eq!(guess("2001:db8::1", "a wrong password").await.status(), StatusCode::FORBIDDEN);
    assert_eq!(
        guess("2001:db8:1::1", PASSWORD).await.status(),
        StatusCode::TOO_MANY_REQUESTS,
        "all have a limit together"
    );
}

/// An engine that says one segment and then nothing more.
fn silent_engine(folder: &Path) -> String {
    let file = folder.join("silent.sh");
    let script =
        r#"echo '{"type":"ready"}'; echo '{"type":"segment","start":0,"end":0.5,"text":"one"}'; exec sleep 600"#;
    fs::write(&file, script).unwrap();
    format!("sh {}", file.display())
}

/// The JSON that an administrator's program gets.
async fn ask(app: &TestApp, path: &str) -> Value {
    let response = send(Somebody::at(app).get(path).bearer_auth(TOKEN)).await;
    assert_eq!(response.status(), StatusCode::OK, "{path}");
    assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
    response.json().await.unwrap()
}

fn ids(page: &Value) -> Vec<String> {
    page["sessions"].as_array().unwrap().iter().map(|s| s["id"].as_str().unwrap().to_owned()).collect()
}

/// Sends an action for sessions; returns for each whether it was done, or the error's code.
async fn act(app: &TestApp, action: &str, ids: &[&str]) -> Vec<String> {
    let request = Somebody::at(app).client.post(format!("{}/api/v1/admin/sessions/actions", app.url));
    let response = send(request.bearer_auth(TOKEN).json(&json!({ "action": action, "ids": ids }))).await;
    assert_eq!(response.status(), StatusCode::OK);
    let body: Value = response.json().await.unwrap();
    let outcomes = body["outcomes"].as_array().unwrap().iter().zip(ids);
    let code = |(outcome, id): (&Value, &&str)| {
        assert_eq!(outcome["id"], **id);
        assert_eq!(outcome["done"].as_bool().unwrap(), outcome["error"].is_null());
        outcome["error"]["code"].as_str().unwrap_or("done").to_owned()
    };
    outcomes.map(code).collect()
}

async fn runs(me: &Visitor, id: &str) {
    let running = async {
        while me.json(&format!("/api/v1/sessions/{id}/status")).await["segments"] != 1 {
            time::sleep(Duration::from_millis(20)).await;
        }
    };
    time::timeout(TIMEOUT, running).await.expect("it runs");
}

#[tokio::test]
async fn strangers_see_and_change_no_sessions_of_others() {
    let off = TestApp::with(&["--workers", "0"]).await;
    let on = TestApp::with(&["--workers", "0", "--admin-token", TOKEN]).await;
    for (app, status, code) in [(&off, 403, "admin_off"), (&on, 401, "not_signed_in")] {
        let me = app.visitor();
        let id = me.session("talk.wav", wav(1.0, 5000.0), &[]).await;
        let body = json!({ "action": "delete", "ids": [id] });
        for request in [
            me.request("GET", "/api/v1/admin/sessions"),
            me.request("GET", "/api/v1/admin/health/stuck"),
            me.request("POST", "/api/v1/admin/sessions/actions").json(&body),
            me.request("POST", "/api/v1/admin/sessions/actions").json(&body).bearer_auth(wrong_by_one(TOKEN)),
            me.request("POST", "/api/v1/admin/sessions/actions").json(&body).header("Remote-User", "ann"),
        ] {
            let response = me.send(request).await;
            assert_eq!(response.status().as_u16(), status);
            assert_eq!(response.headers().contains_key(header::WWW_AUTHENTICATE), status == 401);
            assert_eq!(response.json::<Value>().await.unwrap()["error"]["code"], code);
        }
        let somebody = Somebody::at(app);
        let form = send(somebody.post("/admin/sessions", &[("action", "delete"), ("id", id.as_str())])).await;
        assert_ne!(form.status(), StatusCode::OK);
        assert_eq!(me.get(&format!("/api/v1/sessions/{id}")).await.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn administrators_list_the_sessions_of_everybody() {
    let app = TestApp::with(&["--workers", "0", "--admin-token", TOKEN]).await;
    let (ann, bob) = (app.visitor(), app.visitor());
    let first = ann.session("a.wav", wav(1.0, 5000.0), &[("title", "Ann's <talk>")]).await;
    let second = bob.session("b.wav", wav(1.0, 5000.0), &[]).await;
    let third = bob.session("c.wav", wav(1.0, 5000.0), &[]).await;
    let page = ask(&app, "/api/v1/admin/sessions").await;
    assert_eq!(ids(&page), [third.clone(), second.clone(), first.clone()]);
    assert_eq!((&page["next_cursor"], &page["sessions"][2]["title"]), (&Value::Null, &"Ann's <talk>".into()));
    let owners: Vec<_> = page["sessions"].as_array().unwrap().iter().map(|s| s["owner"].as_str().unwrap()).collect();
    assert!(owners[0] == owners[1] && owners[1] != owners[2] && owners[0].len() == 12, "{owners:?}");
    assert_eq!(page["sessions"][0]["actions"], json!(["cancel", "delete"]));

    let page = ask(&app, "/api/v1/admin/sessions?limit=2").await;
    let cursor = page["next_cursor"].as_str().unwrap();
    assert_eq!(ids(&page), [third.clone(), second]);
    assert_eq!(
        ids(&ask(&app, &format!("/api/v1/admin/sessions?limit=2&cursor={cursor}")).await),
        std::slice::from_ref(&first)
    );

    assert_eq!(act(&app, "cancel", &[&first]).await, ["done"]);
    assert_eq!(ids(&ask(&app, "/api/v1/admin/sessions?state=cancelled,failed").await), std::slice::from_ref(&first));
    assert_eq!(ids(&ask(&app, "/api/v1/admin/sessions?max_age_secs=3600").await).len(), 2);
    for none in ["min_age_secs=3600", "node=elsewhere", "state=stalled,long_running", "state=processing"] {
        assert!(ids(&ask(&app, &format!("/api/v1/admin/sessions?{none}")).await).is_empty(), "{none}");
    }
    for wrong in ["state=stuck", "min_age_secs=x", "max_age_secs=-1", "cursor=x", "limit=x"] {
        for path in ["/api/v1/admin/sessions", "/admin/sessions"] {
            let response = send(Somebody::at(&app).get(&format!("{path}?{wrong}")).bearer_auth(TOKEN)).await;
            assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{path}?{wrong}");
        }
    }

    let html = send(Somebody::at(&app).get("/admin/sessions").bearer_auth(TOKEN)).await.text().await.unwrap();
    assert!(html.contains(&format!("value=\"{third}\"")) && !html.contains(&first), "{html}");
    let html = send(Somebody::at(&app).get("/admin/sessions?state=cancelled").bearer_auth(TOKEN)).await;
    assert!(html.text().await.unwrap().contains("Ann's &lt;talk&gt;"), "titles are text");
}

#[tokio::test]
async fn administrators_act_on_the_sessions_of_others() {
    let folder = TempDir::new().unwrap();
    let engine = silent_engine(folder.path());
    let flags = ["--engine", "command", "--engine-command", &engine, "--admin-token", TOKEN, "--node-name", "the-node"];
    let app = TestApp::on(folder, &flags).await;
    let me = app.visitor();
    let first = me.session("a.wav", wav(1.0, 5000.0), &[]).await;
    runs(&me, &first).await;
    let second = me.session("b.wav", wav(1.0, 5000.0), &[]).await;
    let page = ask(&app, "/api/v1/admin/sessions?node=the-node").await;
    assert_eq!((ids(&page), &page["sessions"][0]["node"]), (vec![first.clone()], &"the-node".into()));
    assert_eq!(page["sessions"][0]["actions"], json!(["requeue", "fail", "cancel", "delete"]));

    // A running one fails, and its owner sees why; the next one begins.
    assert_eq!(act(&app, "fail", &[&first, &second]).await, ["done", "state"]);
    let failed = me.wait(&first, "failed").await;
    assert_eq!((&failed["error"]["code"], &failed["segments"]), (&"stuck".into(), &1.into()));
    assert!(failed["error"]["message"].as_str().unwrap().contains("An administrator ended this session"));
    runs(&me, &second).await;

    // One that is put back continues after its last segment, with another worker.
    assert_eq!(act(&app, "requeue", &[&second, &first]).await, ["done", "state"]);
    let again = async {
        while me.json(&format!("/api/v1/sessions/{second}/status")).await["attempt"] != 2 {
            time::sleep(Duration::from_millis(20)).await;
        }
    };
    time::timeout(TIMEOUT, again).await.expect("it is tried again");

    // Each of several has its own outcome.
    let nobody = "00000000-0000-0000-0000-000000000000";
    assert_eq!(act(&app, "retry", &[&first, &second, nobody]).await, ["done", "state", "not_found"]);
    me.wait(&first, "queued").await;
    assert_eq!(act(&app, "cancel", &[&first, &first, &second]).await, ["done", "state", "done"]);
    me.wait(&second, "cancelled").await;
    assert_eq!(act(&app, "delete", &[&first, &second, &second]).await, ["done", "done", "not_found"]);
    assert_eq!(me.get(&format!("/api/v1/sessions/{first}")).await.status(), StatusCode::NOT_FOUND);

    let wrong = async |body: Value| {
        let request = Somebody::at(&app).client.post(format!("{}/api/v1/admin/sessions/actions", app.url));
        send(request.bearer_auth(TOKEN).json(&body)).await.status()
    };
    for body in [
        json!({ "action": "retry", "ids": [] }),
        json!({ "action": "retry", "ids": vec![nobody; 201] }),
        json!({ "action": "destroy", "ids": [nobody] }),
        json!({ "action": "retry", "ids": ["x"] }),
        json!({ "action": "retry" }),
    ] {
        assert_eq!(wrong(body.clone()).await, StatusCode::BAD_REQUEST, "{body}");
    }
}

#[tokio::test]
async fn the_form_of_the_page_does_the_same_and_says_what_became_of_it() {
    let app = TestApp::with(&["--workers", "0"]).await;
    set_password(&app, PASSWORD).await;
    let me = app.visitor();
    let first = me.session("a.wav", wav(1.0, 5000.0), &[]).await;
    let second = me.session("b.wav", wav(1.0, 5000.0), &[]).await;
    let somebody = Somebody::at(&app);
    let cookie = somebody.sign_in(PASSWORD).await;
    let page = "/admin/sessions?state=queued";
    let fields = [("to", page), ("id", first.as_str()), ("id", second.as_str()), ("action", "cancel")];
    let response = send(somebody.post("/admin/sessions", &fields).header(header::COOKIE, &cookie)).await;
    assert_eq!((response.status(), location(&response)), (StatusCode::SEE_OTHER, page));
    let told = set_cookie(&response).split(';').next().unwrap().to_owned();
    let response = send(somebody.get(page).header(header::COOKIE, format!("{cookie}; {told}"))).await;
    assert!(set_cookie(&response).contains("Max-Age=0"), "it is told once");
    assert!(response.text().await.unwrap().contains("2 sessions were cancelled."));
    me.get(&format!("/api/v1/sessions/{first}")).await;
    assert_eq!(me.json(&format!("/api/v1/sessions/{first}/status")).await["status"], "cancelled");

    // Nothing was ticked; and the form leads nowhere else.
    let fields = [("to", "https://evil.example/"), ("action", "delete")];
    let response = send(somebody.post("/admin/sessions", &fields).header(header::COOKIE, &cookie)).await;
    assert_eq!((response.status(), location(&response)), (StatusCode::SEE_OTHER, "/admin/sessions"));
    let told = set_cookie(&response).split(';').next().unwrap().to_owned();
    let response = send(somebody.get(page).header(header::COOKIE, format!("{cookie}; {told}"))).await;
    assert!(response.text().await.unwrap().contains("Choose at least one session."));
}

#[tokio::test]
async fn what_administrators_do_is_logged_with_their_name() {
    let folder = TempDir::new().unwrap();
    let log = folder.path().join("log");
    let flags = ["--workers", "0", "--min-free-bytes", "1", "--trusted-proxies", "127.0.0.1"];
    let flags = [&flags[..], &["--admin-header", "Remote-User", "--admin-users", "ann"]].concat();
    let into = format!("exec \"$0\" \"$@\" 2>{}", log.display());
    let hark = Setup::new(&folder.path().join("data"), &flags).by(&["sh", "-c", &into]).start();
    let me = hark.visitor();
    let id = me.session("a.wav", wav(1.0, 5000.0), &[]).await;
    for action in ["requeue", "cancel", "delete"] {
        let request = me.request("POST", "/api/v1/admin/sessions/actions").header("Remote-User", "ann");
        let body = json!({ "action": action, "ids": [id] });
        assert_eq!(me.send(request.json(&body)).await.status(), StatusCode::OK);
    }
    let log = fs::read_to_string(log).unwrap();
    for line in [
        format!("administrator ann: session {id} could not be put back into the queue"),
        format!("administrator ann: session {id} was cancelled"),
        format!("administrator ann: session {id} was deleted"),
    ] {
        assert!(log.contains(&line), "{line} in {log}");
    }
}

#[tokio::test]
async fn sessions_that_hang_are_told_and_listed() {
    let app = TestApp::with(&["--workers", "0", "--admin-token", TOKEN, "--health-critical-sessions", "2"]).await;
    let me = app.visitor();
    let health = async || {
        let health = me.json("/api/v1/health/sessions").await;
        let hanging = (health["hanging"].as_u64().unwrap(), health["longest_hanging_secs"].as_f64());
        (health["status"].as_str().unwrap().to_owned(), hanging.0, hanging.1)
    };
    assert_eq!(health().await, ("healthy".to_owned(), 0, None));
    // Workers that took sessions some time ago, and have said nothing since.
    let store = Store::open(&app.folder.path().join("hark.sqlite")).await.unwrap();
    let mut hanging = Vec::new();
    for (ago, worker, expected) in [(1000.0, "gone-1", "warning"), (100.0, "gone-2", "critical")] {
        hanging.push(me.session("a.wav", wav(1.0, 5000.0), &[]).await);
        let now = Timestamp::now();
        let (at, lease_until) = (now.plus_seconds(-ago), now.plus_seconds(3600.0));
        store
            .claim(worker, at, lease_until, u64::MAX, &EngineId::ALL.map(ReadyEngine::any))
            .await
            .unwrap()
            .expect("it waits");
        let (status, count, longest) = health().await;
        assert_eq!((status.as_str(), count), (expected, hanging.len() as u64));
        assert!((1000.0..1000.0 + TIMEOUT.as_secs_f64()).contains(&longest.unwrap()), "{longest:?}");
    }
    let stuck = ask(&app, "/api/v1/admin/health/stuck").await;
    assert_eq!((ids(&stuck), &stuck["status"]), (hanging.clone(), &"critical".into()));
    let first = &stuck["sessions"][0];
    assert_eq!((&first["worker"], &first["stalled"]), (&"gone-1".into(), &true.into()));
    assert!(first["unchanged_secs"].as_f64().unwrap() >= 1000.0 && first["lease_secs"].as_f64().unwrap() > 3000.0);
    hanging.reverse();
    assert_eq!(ids(&ask(&app, "/api/v1/admin/sessions?state=stalled").await), hanging);
    assert_eq!(act(&app, "requeue", &[&hanging[0]]).await, ["done"]);
    assert_eq!(health().await.0, "warning");
    store.close().await;
}

#[tokio::test]
async fn the_dashboard_is_shown_to_administrators_only() {
    let app = TestApp::with(&["--admin-token", TOKEN, "--workers", "0"]).await;
    let somebody = Somebody::at(&app);
    app.visitor().session("a.wav", wav(1.0, 5000.0), &[]).await;
    for (path, shown) in [
        ("/admin", "What Hark promises"),
        ("/admin?range=week", "range=quarter"),
        ("/admin/nodes", "data-testid=\"node\""),
        ("/admin/savings?range=hour", "requests = visits"),
    ] {
        let refused = send(somebody.get(path)).await;
        assert_eq!(refused.status(), StatusCode::SEE_OTHER, "{path}");
        let page = send(somebody.get(path).bearer_auth(TOKEN)).await;
        assert_eq!(
            (page.status(), &page.headers()[header::CACHE_CONTROL]),
            (StatusCode::OK, &"no-store".parse().unwrap())
        );
        let policy = page.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
        assert!(policy.contains("script-src 'nonce-") && !policy.contains("wasm"), "{policy}");
        let text = page.text().await.unwrap();
        assert!(text.contains(shown) && !text.contains(".wasm"), "{path}: {text}");
    }
    let page = send(somebody.get("/admin").bearer_auth(TOKEN)).await.text().await.unwrap();
    let queued = page.split("id=\"live-queued\"").nth(1).unwrap().split("<dd>").nth(1).unwrap();
    assert!(queued.starts_with('1'), "{queued}");
    let wrong = send(somebody.get("/admin?range=year").bearer_auth(TOKEN)).await;
    assert_eq!(wrong.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn the_dashboards_stream_tells_what_changes_until_signing_out() {
    let app = TestApp::with(&["--workers", "0"]).await;
    set_password(&app, PASSWORD).await;
    let somebody = Somebody::at(&app);
    let stream = "/api/v1/admin/stream?range=hour";
    let refused = send(somebody.get(stream)).await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert!(refused.text().await.unwrap().contains("not_signed_in"));
    let cookie = somebody.sign_in(PASSWORD).await;
    let wrong = send(somebody.get("/api/v1/admin/stream?range=year").header(header::COOKIE, &cookie)).await;
    assert_eq!(wrong.status(), StatusCode::BAD_REQUEST);

    let opened = send(somebody.get(stream).header(header::COOKIE, &cookie)).await;
    assert_eq!(opened.headers().get(header::SET_COOKIE), None);
    let mut events = Sse::new(opened);
    let first = events.next().await.unwrap();
    assert_eq!((first.event.as_str(), &first.json()["range"]), ("overview", &"hour".into()));
    assert_eq!(first.json()["now"]["queued"], 0);
    assert_eq!(first.json()["promises"].as_array().unwrap().len(), 5);
    app.visitor().session("a.wav", wav(1.0, 5000.0), &[]).await;
    let second = loop {
        let event = events.next().await.unwrap();
        if event.event == "overview" && event.json()["now"]["queued"] == 1 {
            break event;
        }
    };
    assert!(second.json()["now"]["at"].as_str() > first.json()["now"]["at"].as_str());

    send(somebody.post("/admin/sign-out", &[]).header(header::COOKIE, &cookie)).await;
    let last = events.rest().await.pop().unwrap();
    assert_eq!((last.event.as_str(), &last.json()["reason"]), ("bye", &"logout".into()));
}
