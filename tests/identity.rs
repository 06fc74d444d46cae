//! Tests of identity: the owner's cookie with changed secrets, several Harks on one host, caches and renewal; opening
//! sessions on another device; leaving. And that errors of forms can't be forged.

mod support;

use hark::{
    api::{
        identity::{LeaveIdentity, MakeLink, MakeRecoveryKey, OpenIdentity, RevokeRecoveryKey},
        sessions::RenameSession,
        upload::TrySample,
    },
    model::Timestamp,
    server::keys::{CookieKeys, Https},
};
use leptos::server_fn::ServerFn;
use reqwest::{RequestBuilder, Response, StatusCode, multipart, redirect};
use scraper::{Html, Selector};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Mutex};
use support::{TestApp, wav};
use tempfile::TempDir;

/// A browser's handling of cookies (RFC 6265bis): one jar for all ports of the host, rules for names, removal. It
/// follows no redirects.
struct Browser {
    client: reqwest::Client,
    jar: Mutex<BTreeMap<String, String>>,
    https: bool,
    keeps_cookies: bool,
}

impl Browser {
    fn new() -> Self {
        let client = reqwest::Client::builder().redirect(redirect::Policy::none()).build().unwrap();
        Self { client, jar: Mutex::default(), https: false, keeps_cookies: true }
    }

    fn over_https() -> Self {
        Self { https: true, ..Self::new() }
    }

    fn cookies(&self) -> BTreeMap<String, String> {
        self.jar.lock().unwrap().clone()
    }

    /// The names of the cookies that identify the owner.
    fn owners(&self) -> Vec<String> {
        self.cookies().into_keys().filter(|name| name.contains("hark_owner")).collect()
    }

    fn set(&self, name: &str, value: &str) {
        self.jar.lock().unwrap().insert(name.to_owned(), value.to_owned());
    }

    async fn send(&self, mut request: RequestBuilder) -> Response {
        let jar: Vec<String> = self.cookies().iter().map(|(name, value)| format!("{name}={value}")).collect();
        if !jar.is_empty() {
            request = request.header("cookie", jar.join("; "));
        }
        if self.https {
            request = request.header("x-forwarded-proto", "https");
        }
        let response = request.send().await.unwrap();
        for set in response.headers().get_all("set-cookie") {
            let set = set.to_str().unwrap();
            let (pair, rules) = set.split_once(';').unwrap_or((set, ""));
            let (name, value) = pair.split_once('=').unwrap();
            let rules: Vec<&str> = rules.split(';').map(str::trim).collect();
            let secure = rules.contains(&"Secure");
            assert!(pair.len() < 4096 && rules.contains(&"HttpOnly") && rules.contains(&"SameSite=Lax"), "{set}");
            assert_eq!(secure, self.https, "{set}");
            assert_eq!(name.starts_with("__Host-"), secure, "{set}");
            assert!(rules.contains(&"Path=/") && !set.contains("Domain"), "{set}");
            if !self.keeps_cookies {
                continue;
            }
            let mut jar = self.jar.lock().unwrap();
            if rules.contains(&"Max-Age=0") {
                jar.remove(name);
            } else {
                jar.insert(name.to_owned(), value.to_owned());
            }
        }
        response
    }

    /// Opens a page, as by a click.
    async fn open(&self, url: &str) -> Response {
        self.send(self.client.get(url).header("accept", "text/html,*/*;q=0.8")).await
    }

    /// Sends a form of the page at `from`.
    async fn submit(&self, app: &TestApp, from: Option<&str>, path: &str, fields: &[(&str, &str)]) -> Response {
        let body: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        let mut request = self.client.post(format!("{}{path}", app.url)).header("accept", "text/html,*/*;q=0.8");
        if let Some(from) = from {
            request = request.header("referer", from);
        }
        self.send(request.header("content-type", "application/x-www-form-urlencoded").body(body.join("&"))).await
    }

    async fn json(&self, app: &TestApp, method: &str, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let mut request = self.client.request(method.parse().unwrap(), format!("{}{path}", app.url));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = self.send(request).await;
        (response.status(), response.json().await.unwrap_or_default())
    }

    async fn upload(&self, app: &TestApp, accept: &str) -> Response {
        let part = multipart::Part::bytes(wav(1.0, 1.0)).file_name("talk.wav");
        let request = self.client.post(format!("{}/api/v1/sessions", app.url)).header("accept", accept);
        self.send(request.multipart(multipart::Form::new().part("file", part))).await
    }

    /// How many sessions the browser sees.
    async fn sessions(&self, app: &TestApp) -> usize {
        self.json(app, "GET", "/api/v1/sessions", None).await.1["sessions"].as_array().unwrap().len()
    }
}

fn encoded(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

fn secret(byte: u8) -> String {
    format!("{byte:02x}").repeat(64)
}

/// A node without workers.
async fn node(secrets: &[u8]) -> TestApp {
    on(TempDir::new().unwrap(), secrets).await
}

async fn on(folder: TempDir, secrets: &[u8]) -> TestApp {
    let list: Vec<String> = secrets.iter().map(|byte| secret(*byte)).collect();
    TestApp::on(
        folder,
        &["--workers", "0", "--engine", "command", "--engine-command", "true", "--secret", &list.join(",")],
    )
    .await
}

/// The text of an element of a page; none if there is no such element.
fn text(html: &str, selector: &str) -> Option<String> {
    let element = Html::parse_document(html).select(&Selector::parse(selector).unwrap()).next()?.text().collect();
    Some(element)
}

fn attribute(html: &str, selector: &str, name: &str) -> Option<String> {
    let document = Html::parse_document(html);
    let element = document.select(&Selector::parse(selector).unwrap()).next()?;
    element.value().attr(name).map(str::to_owned)
}

fn location(response: &Response) -> String {
    response.headers()["location"].to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cookie_is_set_once_and_on_private_answers_only() {
    let app = node(&[1]).await;
    let stranger = Browser::new();
    // In tests, the node serves the project's own files.
    for path in ["/README.md", "/api/openapi.json", "/healthz", "/api/v1/nothing", "/no/such/page", "/sessions/none"] {
        let response = stranger.open(&format!("{}{path}", app.url)).await;
        assert!(!response.headers().contains_key("set-cookie"), "{path}: {:?}", response.headers());
    }
    let first = stranger.open(&app.url).await;
    assert_eq!(first.headers().get_all("set-cookie").iter().count(), 1);
    assert_eq!(first.headers()["cache-control"], "private, no-cache");
    let set = first.headers()["set-cookie"].to_str().unwrap();
    assert!(set.contains(&format!("Max-Age={}", 400 * 86_400)), "{set}");
    let cookies = stranger.cookies();
    assert_eq!(stranger.upload(&app, "*/*").await.status(), StatusCode::CREATED);
    for path in ["/", "/upload", "/api/v1/sessions", "/api/v1/status", "/identity", "/README.md", "/no/such/page"] {
        let response = stranger.open(&format!("{}{path}", app.url)).await;
        assert!(!response.headers().contains_key("set-cookie"), "{path}");
    }
    assert_eq!((stranger.cookies(), stranger.sessions(&app).await), (cookies, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_about_sessions_are_not_cached() {
    let app = node(&[1]).await;
    let me = Browser::new();
    let made: Value = me.upload(&app, "*/*").await.json().await.unwrap();
    let id = made["id"].as_str().unwrap();
    let mut paths = vec!["/api/v1/sessions".to_owned(), "/api/v1/status".to_owned(), "/api/v1/engines".to_owned()];
    paths.extend(
        ["", "/status", "/segments", "/waveform", "/transcript.json", "/nothing"]
            .map(|p| format!("/api/v1/sessions/{id}{p}")),
    );
    paths.push("/api/v1/health/sessions".to_owned());
    for path in paths {
        let response = me.open(&format!("{}{path}", app.url)).await;
        assert_eq!(response.headers()["cache-control"], "no-store", "{path}");
        assert!(response.headers()["content-type"].to_str().unwrap().starts_with("application/json"), "{path}");
    }
    // Conditional requests still work.
    let path = format!("{}/api/v1/sessions/{id}/status", app.url);
    let etag = me.open(&path).await.headers()["etag"].clone();
    let known = me.send(me.client.get(&path).header("if-none-match", etag)).await;
    assert_eq!(
        (known.status(), &known.headers()["cache-control"]),
        (StatusCode::NOT_MODIFIED, &"no-store".parse().unwrap())
    );
    let identity = me.open(&format!("{}/identity", app.url)).await;
    assert_eq!(identity.headers()["cache-control"], "no-store");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_harks_on_one_host_keep_separate_cookies() {
    let (one, two) = tokio::join!(node(&[1]), node(&[2]));
    let me = Browser::new();
    for app in [&one, &two, &one, &two] {
        me.open(&app.url).await;
        assert_eq!(me.upload(app, "*/*").await.status(), StatusCode::CREATED);
    }
    assert_eq!((me.sessions(&one).await, me.sessions(&two).await, me.owners().len()), (2, 2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_can_be_changed_and_changed_back() {
    let me = Browser::new();
    let app = node(&[1]).await;
    me.upload(&app, "*/*").await;
    let old = me.owners();
    // The new key signs and the old one is still accepted; a browser that comes meanwhile gets a cookie with the new
    // key.
    let app = on(app.stop().await, &[2, 1]).await;
    assert_eq!(me.sessions(&app).await, 1);
    assert_eq!(me.owners().len(), 2);
    let app = on(app.stop().await, &[2]).await;
    assert_eq!(me.sessions(&app).await, 1);
    // With the first key, as after a backup was restored, the browser is still known.
    let app = on(app.stop().await, &[1]).await;
    assert_eq!(me.sessions(&app).await, 1);
    // With an unknown key the browser is a new owner, but its old cookies stay.
    let app = on(app.stop().await, &[3]).await;
    assert_eq!(me.sessions(&app).await, 0);
    me.upload(&app, "*/*").await;
    let app = on(app.stop().await, &[1]).await;
    assert_eq!(me.sessions(&app).await, 1);
    assert!(me.owners().contains(&old[0]) && me.owners().len() == 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn cookies_are_renewed_after_a_month_and_old_forms_are_accepted() {
    let app = node(&[1]).await;
    let keys = CookieKeys::parse(&secret(1)).unwrap();
    let name = keys.name("hark_owner", Https(false));
    let other = CookieKeys::parse(&secret(9)).unwrap();
    let days_ago = |days: f64| Timestamp::now().plus_seconds(-days * 86_400.0).0 / 1000;
    let cases = [
        (name.as_str(), format!("ann.{}", days_ago(29.0)), false),
        (&name, format!("ann.{}", days_ago(31.0)), true),
        ("hark_owner", "ann".to_owned(), true),
    ];
    for (cookie, value, renewed) in cases {
        let me = Browser::new();
        me.set(cookie, &keys.sign(&value));
        assert_eq!(me.upload(&app, "*/*").await.status(), StatusCode::CREATED);
        let now = me.cookies().get(&name).cloned();
        assert_eq!(now != Some(keys.sign(&value)), renewed, "{value}");
        let signed = keys.verify(&now.unwrap()).unwrap();
        assert!(signed.starts_with("ann."), "{signed}");
    }
    // All three cookies named the same owner.
    let me = Browser::new();
    me.set(&name, &keys.sign(&format!("ann.{}", days_ago(0.0))));
    assert_eq!(me.sessions(&app).await, 3);
    // A cookie that was signed by another key stays, whatever its name.
    let me = Browser::new();
    me.set("hark_owner", &other.sign("ann"));
    me.open(&app.url).await;
    assert_eq!(me.sessions(&app).await, 0);
    assert_eq!(me.cookies()["hark_owner"], other.sign("ann"));
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_https_no_other_host_can_set_the_cookie() {
    let app = node(&[1]).await;
    let me = Browser::over_https();
    me.open(&app.url).await;
    assert!(me.owners()[0].starts_with("__Host-hark_owner_"), "{:?}", me.owners());
    me.upload(&app, "*/*").await;
    // Another host of the domain has set a cookie without the prefix.
    let keys = CookieKeys::parse(&secret(1)).unwrap();
    me.set(&keys.name("hark_owner", Https(false)), &keys.sign("mallory"));
    assert_eq!(me.sessions(&app).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_opens_sessions_once_on_another_device() {
    let app = node(&[1]).await;
    let (me, phone, other) = (Browser::new(), Browser::new(), Browser::new());
    let page = |path: &str| format!("{}{path}", app.url);
    me.open(&page("/")).await;
    // Without sessions there is nothing to open.
    let none = me.submit(&app, Some(&page("/identity")), MakeLink::PATH, &[]).await;
    assert_eq!(location(&none), "/identity");
    let html = me.open(&page("/identity")).await.text().await.unwrap();
    assert!(text(&html, "[data-testid=error-message]").unwrap().contains("no sessions"), "{html}");
    assert!(text(&html, "[data-testid=no-sessions]").is_some() && text(&html, "[data-testid=make-link]").is_none());

    me.upload(&app, "*/*").await;
    let made = me.submit(&app, Some(&page("/identity")), MakeLink::PATH, &[]).await;
    assert_eq!((made.status(), location(&made).as_str()), (StatusCode::FOUND, "/identity"));
    let mut urls = Vec::new();
    // The page shows the link until it is used.
    for _ in 0..2 {
        let html = me.open(&page("/identity")).await.text().await.unwrap();
        assert!(attribute(&html, "[data-testid=link-qr] path", "d").unwrap().starts_with("M0 0h1v1h-1z"));
        urls.push(attribute(&html, "[data-testid=link-url]", "value").unwrap());
    }
    assert_eq!(urls[0], urls[1]);
    let url = &urls[0];
    assert!(url.starts_with(&page("/identity/open?key=")), "{url}");

    // Opening the page changes nothing for either browser.
    phone.upload(&app, "*/*").await;
    let before = phone.cookies();
    for _ in 0..2 {
        let seen = phone.open(url).await;
        assert_eq!(
            (&seen.headers()["cache-control"], &seen.headers()["referrer-policy"]),
            (&"no-store".parse().unwrap(), &"strict-origin".parse().unwrap())
        );
        let html = seen.text().await.unwrap();
        assert!(text(&html, "[data-testid=open-confirm]").unwrap().contains("Open 1 session in this browser?"));
        assert!(text(&html, "[data-testid=open-left]").unwrap().contains("1 session of its own"));
    }
    assert_eq!(phone.cookies(), before);
    let html = me.open(url).await.text().await.unwrap();
    assert!(text(&html, "[data-testid=open-same]").is_some(), "{html}");

    let key = url.rsplit_once('=').unwrap().1;
    let opened = phone.submit(&app, Some(&page("/")), OpenIdentity::PATH, &[("key", key)]).await;
    assert_eq!((opened.status(), location(&opened).as_str()), (StatusCode::FOUND, "/"));
    let id = |sessions: Value| sessions["sessions"][0]["id"].clone();
    let (mine, there) = (
        me.json(&app, "GET", "/api/v1/sessions", None).await.1,
        phone.json(&app, "GET", "/api/v1/sessions", None).await.1,
    );
    assert_eq!(id(mine), id(there));
    assert_eq!(phone.owners().len(), 1);

    // A link works once.
    let again = other.submit(&app, None, OpenIdentity::PATH, &[("key", key)]).await;
    assert_eq!((again.status(), location(&again).as_str()), (StatusCode::SEE_OTHER, "/identity/open"));
    let html = other.open(&page("/identity/open")).await.text().await.unwrap();
    assert!(text(&html, "[data-testid=error-message]").unwrap().contains("opens nothing"), "{html}");
    let html = other.open(url).await.text().await.unwrap();
    assert!(text(&html, "[data-testid=error-message]").unwrap().contains("opens nothing"), "{html}");
    let html = me.open(&page("/identity")).await.text().await.unwrap();
    assert_eq!(text(&html, "[data-testid=link-url]"), None, "a used link is shown");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_key_opens_sessions_until_it_is_replaced() {
    let app = node(&[1]).await;
    let me = Browser::over_https();
    me.upload(&app, "*/*").await;
    let page = |path: &str| format!("{}{path}", app.url);
    let make = async || {
        me.submit(&app, Some(&page("/identity")), MakeRecoveryKey::PATH, &[]).await;
        let html = me.open(&page("/identity")).await.text().await.unwrap();
        let url = attribute(&html, "[data-testid=recovery-url]", "value").unwrap();
        assert!(url.starts_with("https://"), "{url}");
        // The page shows the key once.
        let html = me.open(&page("/identity")).await.text().await.unwrap();
        assert_eq!(text(&html, "[data-testid=recovery-url]"), None);
        assert!(text(&html, "[data-testid=recovery-made]").is_some());
        url
    };
    let first = make().await;
    // The whole link can be pasted, in any browser, any number of times.
    for _ in 0..2 {
        let browser = Browser::new();
        browser.submit(&app, None, OpenIdentity::PATH, &[("key", &format!(" {first} "))]).await;
        assert_eq!(browser.sessions(&app).await, 1);
    }
    let opens = async |key: &str| {
        let browser = Browser::new();
        let (status, answer) = browser.json(&app, "POST", "/api/v1/identity/open", Some(json!({"key": key}))).await;
        match status {
            StatusCode::NO_CONTENT => assert_eq!(browser.sessions(&app).await, 1),
            status => assert_eq!((status, &answer["error"]["code"]), (StatusCode::FORBIDDEN, &json!("invalid_key"))),
        }
        status == StatusCode::NO_CONTENT
    };
    let second = make().await;
    assert_eq!((opens(&first).await, opens(&second).await), (false, true));
    me.submit(&app, Some(&page("/identity")), RevokeRecoveryKey::PATH, &[]).await;
    assert!(!opens(&second).await);

    // The same over the API.
    let (status, link) = me.json(&app, "POST", "/api/v1/identity/link", None).await;
    assert_eq!(status, StatusCode::CREATED);
    assert!(link["expires_at"].is_string() && link["url"].as_str().unwrap().ends_with(link["key"].as_str().unwrap()));
    let key = link["key"].as_str().unwrap();
    assert_eq!((opens(key).await, opens(key).await), (true, false));
    let (_, recovery) = me.json(&app, "PUT", "/api/v1/identity/recovery-key", None).await;
    assert!(recovery["expires_at"].is_null() && opens(recovery["key"].as_str().unwrap()).await);
    assert_eq!(me.json(&app, "DELETE", "/api/v1/identity/recovery-key", None).await.0, StatusCode::NO_CONTENT);
    assert!(!opens(recovery["key"].as_str().unwrap()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_needs_a_confirmation_on_ones_own_page() {
    let app = node(&[1]).await;
    let (me, you) = (Browser::new(), Browser::new());
    me.upload(&app, "*/*").await;
    you.upload(&app, "*/*").await;
    let token = async |browser: &Browser| {
        let html = browser.open(&format!("{}/identity", app.url)).await.text().await.unwrap();
        attribute(&html, "input[name=token]", "value").unwrap()
    };
    let (mine, yours) = (token(&me).await, token(&you).await);
    // A button on another site, with the forms that it can send; then missing, foreign and invalid proofs.
    let logout = format!("{}/api/v1/logout", app.url);
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        let request = me.client.post(&logout).header("content-type", kind).header("accept", "text/html");
        assert_eq!(me.send(request.body("{\"confirm\":true}")).await.status(), StatusCode::BAD_REQUEST, "{kind}");
    }
    assert_eq!(me.send(me.client.post(&logout)).await.status(), StatusCode::BAD_REQUEST);
    assert_eq!(
        me.json(&app, "POST", "/api/v1/logout", Some(json!({"confirm": false}))).await.0,
        StatusCode::BAD_REQUEST
    );
    for fields in [
        &[("token", mine.as_str())][..],
        &[("token", &yours), ("sure", "yes")],
        &[("token", "x"), ("sure", "yes")],
        &[("sure", "yes")],
    ] {
        let sent = me.submit(&app, Some(&format!("{}/identity", app.url)), LeaveIdentity::PATH, fields).await;
        assert_eq!(location(&sent), "/identity", "{fields:?}");
        let html = me.open(&format!("{}/identity", app.url)).await.text().await.unwrap();
        assert!(text(&html, "[data-testid=error-message]").is_some(), "{fields:?}");
        assert_eq!(me.sessions(&app).await, 1, "{fields:?}");
    }
    // The proof isn't valid as a cookie.
    let mallory = Browser::new();
    let keys = CookieKeys::parse(&secret(1)).unwrap();
    mallory.set(&keys.name("hark_owner", Https(false)), &mine);
    assert_eq!(mallory.sessions(&app).await, 0);

    let left = me.submit(&app, None, LeaveIdentity::PATH, &[("token", &mine), ("sure", "yes")]).await;
    assert_eq!((location(&left).as_str(), me.owners().len()), ("/", 0));
    assert_eq!(me.sessions(&app).await, 0);
    assert_eq!(
        you.json(&app, "POST", "/api/v1/logout", Some(json!({"confirm": true}))).await.0,
        StatusCode::NO_CONTENT
    );
    assert_eq!(you.owners().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_cookies_the_upload_page_says_so_before_anything_is_sent() {
    let app = node(&[1]).await;
    let upload = format!("{}/upload", app.url);
    let blocked = Browser { keeps_cookies: false, ..Browser::new() };
    let probed = blocked.open(&upload).await;
    assert_eq!((probed.status(), location(&probed).as_str()), (StatusCode::SEE_OTHER, "/upload?cookies=set"));
    let html = blocked.open(&format!("{upload}?cookies=set")).await.text().await.unwrap();
    assert!(text(&html, "[data-testid=error-message]").unwrap().contains("blocks Hark's cookie"), "{html}");
    assert!(attribute(&html, "[data-testid=upload-submit]", "disabled").is_some());
    // A browser that sends a recording anyway is redirected to the error, and no session is created.
    let sent = blocked.upload(&app, "text/html").await;
    assert_eq!((sent.status(), location(&sent).as_str()), (StatusCode::SEE_OTHER, "/upload?cookies=set"));
    let sample = blocked.submit(&app, Some(&upload), TrySample::PATH, &[]).await;
    assert_eq!(location(&sample), "/upload?cookies=set");
    let health = blocked.json(&app, "GET", "/api/v1/health/sessions", None).await.1;
    assert_eq!(health["queued"], 0);

    let me = Browser::new();
    assert_eq!(location(&me.open(&upload).await), "/upload?cookies=set");
    assert_eq!(location(&me.open(&format!("{upload}?cookies=set")).await), "/upload");
    let html = me.open(&upload).await.text().await.unwrap();
    assert_eq!(text(&html, "[data-testid=error-message]").filter(|t| t.contains("cookie")), None);
    // A program needs no cookie.
    assert_eq!(Browser::new().upload(&app, "*/*").await.status(), StatusCode::CREATED);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_error_of_a_form_is_shown_once_and_cannot_be_forged() {
    let app = node(&[1]).await;
    let me = Browser::new();
    let made: Value = me.upload(&app, "*/*").await.json().await.unwrap();
    let id = made["id"].as_str().unwrap();
    let page = format!("{}/sessions/{id}", app.url);
    let shown_error = async |url: &str| {
        let html = me.open(url).await.text().await.unwrap();
        text(&html, "[data-testid=error-message]")
    };
    let query = format!("{page}?reload=off&__path=x&__err=y");
    let opened = format!("{page}?reload=off&rename=on");
    let cases = [
        (Some(query.as_str()), format!("/sessions/{id}?reload=off")),
        (Some(&page), format!("/sessions/{id}")),
        (Some(opened.as_str()), format!("/sessions/{id}?reload=off&rename=on")),
        (Some("https://evil.example/"), "/".to_owned()),
        (None, "/".to_owned()),
    ];
    for (from, to) in cases {
        let sent = me.submit(&app, from, RenameSession::PATH, &[("id", id), ("title", " ")]).await;
        assert_eq!((sent.status(), location(&sent)), (StatusCode::SEE_OTHER, to.clone()), "{from:?}");
        assert!(!sent.text().await.unwrap().contains("title is empty"));
        let cookies = format!("{:?}", me.cookies());
        assert!(!cookies.contains("title"), "{cookies}");
        let url = format!("{}{to}", app.url);
        assert_eq!(
            shown_error(&url).await.as_deref(),
            Some("the title is empty; give it at least one character"),
            "{to}"
        );
        assert_eq!(shown_error(&url).await, None, "shown twice");
    }
    // A form that succeeds redirects back, within the site only; and not to an address that opens it again.
    let cases = [
        (page.as_str(), format!("/sessions/{id}")),
        (opened.as_str(), format!("/sessions/{id}")),
        ("https://evil.example/x", "/".to_owned()),
    ];
    for (from, to) in cases {
        let sent = me.submit(&app, Some(from), RenameSession::PATH, &[("id", id), ("title", "New")]).await;
        assert_eq!((location(&sent), shown_error(&page).await), (to, None));
    }
    // A malformed form fails too, with a message that is shown as text.
    me.submit(&app, Some(&page), RenameSession::PATH, &[("id", "</title><h1>"), ("title", "x")]).await;
    let html = me.open(&page).await.text().await.unwrap();
    assert!(text(&html, "[data-testid=error-message]").unwrap().starts_with("The request was malformed"), "{html}");
    assert_eq!(Html::parse_document(&html).select(&Selector::parse("h1").unwrap()).count(), 1);

    // `{"code":"x","message":"Send money"}`
    let forged = format!("?__path={}&__err=eyJjb2RlIjoieCIsIm1lc3NhZ2UiOiJTZW5kIG1vbmV5In0=", RenameSession::PATH);
    for path in [format!("/sessions/{id}"), "/".to_owned(), "/upload".to_owned()] {
        let answer = me.open(&format!("{}{path}{forged}", app.url)).await;
        assert_eq!(location(&answer), path);
        assert!(!answer.text().await.unwrap().contains("Send money"));
        assert_eq!(shown_error(&format!("{}{path}", app.url)).await.filter(|text| text.contains("money")), None);
    }
}
