//! Whatever a stranger or a worker writes is shown as text. Each page is made twice, once of plain words and once of a
//! text that breaks out of every context where it isn't encoded; read by an HTML parser, the two must be the same
//! elements with the same attributes.

mod support;

use hark::model::Title;
use reqwest::{RequestBuilder, StatusCode};
use scraper::{Html, Node, Selector};
use serde_json::{Value, json};
use std::{collections::BTreeSet, path::Path};
use support::{Sse, TestApp, Visitor, wav};
use tempfile::TempDir;

const TOKEN: &str = "worker-token";
/// Ends every context that pages have, begins others, turns the direction of text, and holds every control character
/// but the null.
const TROUBLE: &str = "a</title></script></textarea></noscript></style><meta http-equiv=refresh><b onclick=x>\"'`<!--]]>&lt;&\\u003c%\
    \u{202e}\u{2066}\u{200f}\u{feff}\u{1}\u{2}\u{3}\u{4}\u{5}\u{6}\u{7}\u{8}\u{b}\u{c}\u{e}\u{f}\u{10}\u{11}\u{12}\
    \u{13}\u{14}\u{15}\u{16}\u{17}\u{18}\u{19}\u{1a}\u{1b}\u{1c}\u{1d}\u{1e}\u{1f}\u{7f}\u{80}\u{85}\u{9f}\u{2028}\
    \r\n\ndata: x\tz";
/// What it is held against.
const PLAIN: &str = "plain words";

/// A program that speaks the engine protocol: everything it can say is the text of the file beside it.
fn engine(folder: &Path, text: &str) -> String {
    std::fs::write(folder.join("text.json"), json!(text).to_string()).unwrap();
    let file = folder.join("engine.py");
    let program = r#"import json, pathlib, sys
text = json.loads(pathlib.Path(__file__).with_name("text.json").read_text())
def say(**line): print(json.dumps(line), flush=True)
say(type="ready", protocol=1, model=text)
sys.stdin.buffer.read()
say(type="segment", start=0, end=1, text=text)
say(type="done")
"#;
    std::fs::write(&file, program).unwrap();
    format!("python3 {}", file.display())
}

/// A node with a session of each kind, whose every text is `text`.
struct Shown {
    app: TestApp,
    me: Visitor,
    /// One that Hark's own worker has heard, and one of an outside worker that runs and one that failed.
    heard: String,
    running: String,
    failed: String,
    /// The forms in which the text may come back, longest first.
    forms: Vec<String>,
}

impl Shown {
    async fn make(text: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let command = engine(folder.path(), text);
        let flags = ["--worker-token", TOKEN, "--engine", "command", "--engine-command", &command];
        let app = TestApp::on(folder, &flags).await;
        let me = app.visitor();
        // Headers have no control characters.
        let visible: String = text.chars().filter(|c| !c.is_ascii_control()).collect();
        let quoted = visible.replace('\\', "\\\\").replace('"', "\\\"");
        let mut body = format!("--x\r\nContent-Disposition: form-data; name=\"title\"\r\n\r\n{text}\r\n").into_bytes();
        let file =
            format!("--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{quoted}\"\r\n\r\n").into_bytes();
        body.extend(file);
        body.extend(wav(1.0, 5000.0));
        body.extend(b"\r\n--x--\r\n");
        let upload = me.request("POST", "/api/v1/sessions").header("content-type", "multipart/form-data; boundary=x");
        let made = me.send(upload.body(body)).await;
        assert_eq!(made.status(), StatusCode::CREATED, "{}", made.text().await.unwrap());
        let heard: Value = made.json().await.unwrap();
        let heard = heard["id"].as_str().unwrap().to_owned();
        me.wait(&heard, "completed").await;

        let worker = |request: RequestBuilder, body: Value| me.send(request.bearer_auth(TOKEN).json(&body));
        let mut ids = Vec::new();
        for ends in [false, true] {
            let made =
                worker(me.request("POST", "/api/v1/sessions"), json!({"title": text, "duration_total": 9})).await;
            let session: Value = made.json().await.unwrap();
            let id = session["id"].as_str().unwrap().to_owned();
            let path = format!("/api/v1/sessions/{id}");
            let segment = json!({"index": 0, "start": 0, "end": 1, "text": text, "words": [{"text": text, "start": 0, "end": 1}]});
            let added = worker(me.request("POST", &format!("{path}/segments")), segment).await;
            assert_eq!(added.status(), StatusCode::OK);
            let status = if ends {
                json!({"status": "failed", "message": text, "error": {"code": text, "message": text}})
            } else {
                json!({"stage": "transcribing", "progress": 10, "message": text})
            };
            let told = worker(me.request("PUT", &format!("{path}/status")), status).await;
            assert_eq!(told.status(), StatusCode::OK, "{}", told.text().await.unwrap());
            ids.push(id);
        }
        let failed = ids.pop().unwrap();
        let running = ids.pop().unwrap();
        let session = me.json(&format!("/api/v1/sessions/{heard}")).await;
        let name = session["media"]["file_name"].as_str().unwrap().to_owned();
        assert!(name.starts_with(&text[..text.len().min(60)]), "{name}");
        assert_eq!(session["model"], text);
        let title = Title::new(text).unwrap().to_string();
        // Parsers make each end of line a single character (HTML, 13.2.3.5).
        let read = text.replace("\r\n", "\n");
        let mut forms = BTreeSet::from([text.to_owned(), read.clone(), title, name]);
        // A query is trimmed.
        forms.insert(read.trim().to_owned());
        // The list shows how texts begin, cut off where they are long.
        let list = me.get("/").await.text().await.unwrap();
        let beginning = Selector::parse("[data-testid=beginning]").unwrap();
        let beginnings: Vec<String> =
            Html::parse_document(&list).select(&beginning).map(|element| element.text().collect()).collect();
        assert!(!beginnings.is_empty(), "{list}");
        let head: String = text.chars().take(20).collect();
        for beginning in beginnings {
            assert!(beginning.starts_with(&head), "{beginning}");
            forms.insert(beginning);
        }
        let mut forms: Vec<String> = forms.into_iter().collect();
        forms.sort_by_key(|form| std::cmp::Reverse(form.len()));
        Self { app, me, heard, running, failed, forms }
    }

    /// A text with everything in it that may differ between two pages of the same kind left out.
    fn plain(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for id in [&self.heard, &self.running, &self.failed] {
            text = text.replace(id.as_str(), "ID");
        }
        for form in &self.forms {
            let encoded: String = form.bytes().map(escaped).collect();
            text = text.replace(&encoded, "TEXT").replace(form, "TEXT");
        }
        let mut out = String::new();
        for c in text.chars() {
            let c = if c.is_ascii_digit() || matches!(c, '.' | ':' | ',') { '0' } else { c };
            if c != '0' || !out.ends_with('0') {
                out.push(c);
            }
        }
        out
    }

    /// A page as a browser reads it: its nodes in order, and the title.
    fn read(&self, html: &str) -> (Vec<String>, String) {
        let document = Html::parse_document(html);
        let mut nodes = Vec::new();
        let mut title = String::new();
        for node in document.tree.root().descendants() {
            let depth = node.ancestors().count();
            let parent = node.parent().and_then(|p| p.value().as_element().map(|e| e.name().to_owned()));
            let told = match node.value() {
                Node::Element(element) => {
                    let is_token = element.attr("name") == Some("hark-page");
                    let mut attributes: Vec<String> = element
                        .attrs()
                        // Each answer has a nonce and a token of its own, and widths say how far something is.
                        .filter(|(name, _)| !["nonce", "crossorigin", "style"].contains(name))
                        .filter(|(name, _)| !(is_token && *name == "content"))
                        .map(|(name, value)| format!("{name}={}", self.plain(value)))
                        .collect();
                    attributes.sort();
                    format!("<{} {}>", element.name(), attributes.join(" "))
                }
                // What is loaded is written there as JSON: it must only not end the element.
                Node::Text(_) if parent.as_deref() == Some("script") => "(script)".to_owned(),
                Node::Text(text) => {
                    if parent.as_deref() == Some("title") {
                        title.push_str(text);
                    }
                    self.plain(text)
                }
                Node::Comment(comment) => format!("<!--{}-->", self.plain(comment)),
                other => format!("{other:?}"),
            };
            nodes.push(format!("{depth} {told}"));
        }
        (nodes, title)
    }

    async fn page(&self, path: &str) -> (Vec<String>, String) {
        let response = self.me.get(path).await;
        assert_eq!(response.headers()["content-type"], "text/html; charset=utf-8", "{path}");
        self.read(&response.text().await.unwrap())
    }
}

fn escaped(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
        char::from(byte).to_string()
    } else {
        format!("%{byte:02X}")
    }
}

fn same(what: &str, plain: &[String], trouble: &[String]) {
    for (n, (plain, trouble)) in plain.iter().zip(trouble).enumerate() {
        assert_eq!(plain, trouble, "{what}: node {n} differs");
    }
    assert_eq!(plain.len(), trouble.len(), "{what}: nodes");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_text_holds_a_page_has_the_same_elements() {
    let (plain, trouble) = tokio::join!(Shown::make(PLAIN), Shown::make(TROUBLE));
    let query = |text: &str| -> String { text.bytes().map(escaped).collect() };
    let paths = |shown: &Shown, text: &str| {
        let none = query(&format!("{text} none"));
        let text = query(text);
        [
            ("the list", "/".to_owned()),
            ("a search", format!("/?q={none}")),
            ("a search with a cursor", format!("/?q={none}&cursor={}", shown.heard)),
            ("a session", format!("/sessions/{}", shown.heard)),
            ("a running session", format!("/sessions/{}?{text}={text}", shown.running)),
            ("a failed session", format!("/sessions/{}", shown.failed)),
            ("no session", format!("/sessions/{text}")),
            ("no page", format!("/{text}")),
            ("the upload form", format!("/upload?{text}")),
        ]
    };
    for ((what, path), (_, other)) in paths(&plain, PLAIN).into_iter().zip(paths(&trouble, TROUBLE)) {
        let (nodes, title) = plain.page(&path).await;
        let (others, title_of_other) = trouble.page(&other).await;
        same(what, &nodes, &others);
        assert_eq!(plain.plain(&title), trouble.plain(&title_of_other), "{what}: title");
        assert!(!title.is_empty(), "{what} has a title");
    }
    // In quotes, so that texts are found and titles aren't. What is found stands in parts, so only elements are compared, without
    // the words that a link has in its address.
    let found = async |shown: &Shown, text: &str| -> Vec<String> {
        let (nodes, _) = shown.page(&format!("/?q={}", query(&format!("\"{text}\"")))).await;
        let elements = nodes.into_iter().filter(|node| node.contains(" <") && !node.contains("<!--"));
        let address = |node: String| match node.split_once("&find=") {
            Some((start, rest)) => format!("{start}{}", rest.split_once('#').map_or("", |(_, end)| end)),
            None => node,
        };
        elements.map(address).collect()
    };
    let nodes = found(&plain, PLAIN).await;
    assert!(nodes.iter().any(|node| node.contains("<mark ")), "{nodes:?}");
    same("a search that finds", &nodes, &found(&trouble, TROUBLE).await);
    let (_, title) = trouble.page(&format!("/?q={}", query(TROUBLE))).await;
    assert_eq!(title, format!("Search: {} · Hark", TROUBLE.replace("\r\n", "\n")));
    let (_, title) = trouble.page(&format!("/sessions/{}", trouble.heard)).await;
    assert!(title.contains(Title::new(TROUBLE).unwrap().as_str()), "{title}");
}

#[tokio::test(flavor = "multi_thread")]
async fn file_names_headers_and_events_hold_any_text() {
    let shown = Shown::make(TROUBLE).await;
    let path = format!("/api/v1/sessions/{}", shown.heard);
    for (of, kind) in [("audio", "inline; "), ("transcript.txt", "attachment; "), ("transcript.json", "attachment; ")] {
        let response = shown.me.get(&format!("{path}/{of}")).await;
        assert_eq!(response.status(), StatusCode::OK);
        let names: Vec<&str> =
            response.headers().get_all("content-disposition").iter().map(|v| v.to_str().unwrap()).collect();
        assert_eq!(names.len(), 1);
        let (plain, encoded) = names[0].strip_prefix(kind).unwrap().split_once("; ").unwrap();
        let plain = plain.strip_prefix("filename=\"").unwrap().strip_suffix('"').unwrap();
        assert!(!plain.contains(['"', '\\', '/']), "{plain}");
        let encoded = encoded.strip_prefix("filename*=UTF-8''").unwrap();
        assert!(encoded.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%".contains(&b)), "{encoded}");
    }
    let stream = shown.me.get(&format!("/api/v1/sessions/{}/status/stream", shown.failed)).await;
    let events = Sse::new(stream).rest().await;
    let kinds: Vec<&str> = events.iter().map(|event| event.event.as_str()).collect();
    assert_eq!(kinds, ["segment", "status"]);
    assert_eq!(events[0].json()["text"], TROUBLE);
    assert_eq!(
        (&events[1].json()["message"], &events[1].json()["error"]["message"]),
        (&json!(TROUBLE), &json!(TROUBLE))
    );
    drop(shown.app);
}
