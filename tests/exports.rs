//! Transcripts as files that people hand on, read by programs that Hark has nothing to do with: python-docx, Python's csv and
//! zipfile, ffmpeg.

mod support;

use reqwest::StatusCode;
use serde_json::{Value, json};
use std::{
    io::Write,
    process::{Command, Stdio},
};
use support::{TestApp, Visitor, wav};
use tempfile::TempDir;

/// What the engine of these tests says: the start and the text of each line.
const LINES: [(f64, &str); 4] = [
    (0.0, "On a fine morning in May, she walked to the farm, where the old gate stood open. Nobody was there."),
    (8.0, "=1+1 & \"so\" <b>on</b>, naïve 😀 --> end"),
    (14.0, "After a pause it goes on. שלום"),
    (18.0, "The end."),
];

/// A node with an engine that says these lines, each word of which takes its share of six seconds at most; the first word of a
/// line has a low confidence.
async fn node(flags: &[&str]) -> TestApp {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("engine.py");
    let lines = json!(LINES);
    let script = format!(
        r#"import json, sys
def say(**line): print(json.dumps(line), flush=True)
sys.stdin.buffer.read()
say(type="ready", protocol=1, model="m")
for start, text in {lines}:
    parts = text.split()
    step = min(6.0, len(parts) * 0.5) / len(parts)
    words = [{{"text": word, "start": start + n * step, "end": start + (n + 1) * step, "confidence": 0.9 if n else 0.1}}
        for n, word in enumerate(parts)]
    say(type="segment", start=start, end=words[-1]["end"], text=text, words=words)
say(type="done")
"#
    );
    std::fs::write(&file, script).unwrap();
    let command = format!("python3 {}", file.display());
    let flags = [&["--engine", "command", "--engine-command", &command], flags].concat();
    TestApp::on(folder, &flags).await
}

/// A session with a transcript.
async fn session(me: &Visitor, title: &str) -> String {
    let id = me.session("talk.wav", wav(20.0, 5000.0), &[("title", title), ("language", "de")]).await;
    me.wait(&id, "completed").await;
    id
}

async fn file(me: &Visitor, path: &str) -> Vec<u8> {
    let answer = me.get(path).await;
    assert_eq!(answer.status(), StatusCode::OK, "{path}");
    answer.bytes().await.unwrap().to_vec()
}

async fn text(me: &Visitor, path: &str) -> String {
    String::from_utf8(file(me, path).await).unwrap()
}

async fn refused(me: &Visitor, path: &str) -> (StatusCode, String) {
    let answer = me.get(path).await;
    let status = answer.status();
    (status, answer.json::<Value>().await.unwrap()["error"]["message"].as_str().unwrap().to_owned())
}

/// Runs a program with this input, and returns its output.
fn run(program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{program}, which scripts/setup test installs: {e}"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{program} {arguments:?}: {errors}");
    output.stdout
}

/// Runs Debian's Python, which has Debian's python-docx.
fn python(script: &str, input: &[u8]) -> Value {
    let out = run("/usr/bin/python3", &["-c", script], input);
    serde_json::from_slice(&out).unwrap()
}

/// The cues of subtitles as ffmpeg reads them: start and end in seconds, and the lines.
fn cues(format: &str, subtitles: &str) -> Vec<(f64, f64, Vec<String>)> {
    let srt = run("ffmpeg", &["-v", "warning", "-f", format, "-i", "-", "-f", "srt", "-"], subtitles.as_bytes());
    let srt = String::from_utf8(srt).unwrap();
    let seconds = |time: &str| {
        let (time, ms) = time.split_once(',').unwrap();
        let parts: Vec<f64> = time.split(':').map(|part| part.parse().unwrap()).collect();
        parts[0] * 3600.0 + parts[1] * 60.0 + parts[2] + ms.parse::<f64>().unwrap() / 1000.0
    };
    let blocks = srt.trim().split("\n\n");
    let cue = |block: &str| {
        let mut lines = block.lines().skip(1);
        let (start, end) = lines.next().unwrap().split_once(" --> ").unwrap();
        (seconds(start), seconds(end), lines.map(str::to_owned).collect())
    };
    blocks.map(cue).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_word_document_is_read_by_python_docx() {
    let app = node(&[]).await;
    let me = app.visitor();
    let id = session(&me, "Über <uns> & \"Bienen\".wav").await;
    let docx = file(&me, &format!("/api/v1/sessions/{id}/transcript.docx?times=true")).await;
    let read = python(
        r#"
import docx, io, json, sys
document = docx.Document(io.BytesIO(sys.stdin.buffer.read()))
properties = document.core_properties
print(json.dumps({
    "title": properties.title, "year": properties.created.year,
    "paragraphs": [[p.style.name, p.text] for p in document.paragraphs],
    "unsure": [r.text for p in document.paragraphs for r in p.runs if r.style.name == "Unsure"],
}))"#,
        &docx,
    );
    assert_eq!(read["title"], "Über <uns> & \"Bienen\"");
    assert!(read["year"].as_i64() >= Some(2024), "{read}");
    let paragraphs = read["paragraphs"].as_array().unwrap();
    assert_eq!(paragraphs[0], json!(["Title", "Über <uns> & \"Bienen\""]));
    let facts = paragraphs[1][1].as_str().unwrap();
    assert!(paragraphs[1][0] == "Subtitle" && facts.ends_with(" UTC · 20 s · German"), "{facts}");
    let texts: Vec<&str> = paragraphs[3..].iter().map(|p| p[1].as_str().unwrap()).collect();
    assert_eq!(
        texts,
        [
            format!("[0:00] {}", LINES[0].1),
            format!("[0:08] {}", LINES[1].1),
            format!("[0:14] {} {}", LINES[2].1, LINES[3].1)
        ]
    );
    assert_eq!(read["unsure"], json!(["On", "=1+1", "After", "The"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn markdown_and_text_have_times_where_they_are_wanted() {
    let app = node(&[]).await;
    let me = app.visitor();
    let path = format!("/api/v1/sessions/{}/transcript", session(&me, "My talk.wav").await);
    let markdown = text(&me, &format!("{path}.md")).await;
    assert!(markdown.starts_with("# My talk\n\n") && markdown.contains(" · 20 s · German\n\nOn a fine"), "{markdown}");
    assert!(markdown.contains("\n\n\\=1+1 \\& \"so\" \\<b\\>on\\</b\\>, naïve 😀 --\\> end\n\n"), "{markdown}");
    assert!(text(&me, &format!("{path}.md?times=true")).await.contains("\n\n\\[0:14\\] After a pause it goes on. "));
    assert_eq!(text(&me, &format!("{path}.txt")).await, LINES.map(|(_, text)| format!("{text}\n")).concat());
    assert!(text(&me, &format!("{path}.txt?times=true")).await.ends_with("[0:18] The end.\n"));
    assert_eq!(refused(&me, &format!("{path}.txt?times=maybe")).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn subtitles_are_read_by_ffmpeg() {
    let app = node(&[]).await;
    let me = app.visitor();
    let path = format!("/api/v1/sessions/{}/transcript", session(&me, "talk").await);
    for format in ["srt", "vtt"] {
        let ffmpeg = if format == "vtt" { "webvtt" } else { format };
        // As programs know them: a cue is a segment in one line.
        let plain = text(&me, &format!("{path}.{format}")).await;
        let found = cues(ffmpeg, &plain);
        assert_eq!(found.len(), LINES.len(), "{plain}");
        assert_eq!((found[0].0, found[0].1, &found[0].2), (0.0, 6.0, &vec![LINES[0].1.to_owned()]));

        let cut = text(&me, &format!("{path}.{format}?lines=2&chars=42")).await;
        let found = cues(ffmpeg, &cut);
        let lines: Vec<&String> = found.iter().flat_map(|(_, _, lines)| lines).collect();
        assert!(lines.iter().all(|line| line.chars().count() <= 42), "{lines:?}");
        assert!(found.iter().all(|(_, _, lines)| (1..=2).contains(&lines.len())), "{cut}");
        assert!(found.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{cut}");
        assert_eq!(found[0].2, ["On a fine morning in May,", "she walked to the farm,"]);
        // The second cue begins when its first word is said: the twelfth of twenty in six seconds.
        assert!((found[1].0 - 11.0 * 6.0 / 20.0).abs() < 0.002, "{found:?}");
    }
    for query in ["lines=0", "lines=5", "chars=15", "chars=101", "chars=-1", "chars=x"] {
        assert_eq!(refused(&me, &format!("{path}.srt?{query}")).await.0, StatusCode::BAD_REQUEST, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_read_by_pythons_csv() {
    const READ: &str = r#"
import csv, io, json, sys
text = sys.stdin.buffer.read().decode("utf-8-sig")
assert text.count("\n") == text.count("\r\n"), "RFC 4180 has CRLF"
print(json.dumps(list(csv.DictReader(io.StringIO(text, newline=""), strict=True))))"#;
    let app = node(&[]).await;
    let me = app.visitor();
    let path = format!("/api/v1/sessions/{}/transcript.csv", session(&me, "talk").await);
    let rows = python(READ, &file(&me, &path).await);
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), LINES.len());
    assert_eq!(
        (&rows[0]["text"], &rows[0]["start"], &rows[0]["end"]),
        (&json!(LINES[0].1), &json!("0.000"), &json!("6.000"))
    );
    // A spreadsheet takes it for text.
    assert_eq!(rows[1]["text"], json!(format!("'{}", LINES[1].1)));
    let words = python(READ, &file(&me, &format!("{path}?rows=words")).await);
    let words = words.as_array().unwrap();
    let all: usize = LINES.iter().map(|(_, text)| text.split_whitespace().count()).sum();
    assert_eq!(words.len(), all);
    assert_eq!((&words[0]["word"], &words[0]["confidence"]), (&json!("On"), &json!("0.100")));
    assert_eq!(refused(&me, &format!("{path}?rows=pages")).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_sessions_are_one_file() {
    const READ: &str = r#"
import io, json, sys, zipfile
archive = zipfile.ZipFile(io.BytesIO(sys.stdin.buffer.read()))
assert archive.testzip() is None
print(json.dumps({info.filename: len(archive.read(info)) for info in archive.infolist()}))"#;
    let app = node(&["--max-export-sessions", "3"]).await;
    let (me, you) = (app.visitor(), app.visitor());
    let mut ids = Vec::new();
    for title in ["a/b: talk.wav", "A_b_ Talk", "naïve 日本"] {
        ids.push(session(&me, title).await);
    }
    let all = ids.join(",");
    let answer = me.get(&format!("/api/v1/transcripts.zip?ids={all}&format=txt,docx")).await;
    let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(
        (header("content-type"), header("cache-control")),
        ("application/zip".into(), "private, no-cache".into())
    );
    assert!(header("content-disposition").starts_with("attachment; filename=\"Transcripts.zip\""));
    let files = python(READ, &answer.bytes().await.unwrap());
    let names: Vec<&String> = files.as_object().unwrap().keys().collect();
    let expected = [
        "A_b_ Talk (2).docx",
        "A_b_ Talk (2).txt",
        "a_b_ talk.docx",
        "a_b_ talk.txt",
        "naïve 日本.docx",
        "naïve 日本.txt",
    ];
    assert_eq!(names, expected);
    let length = LINES.iter().map(|(_, text)| text.len() + 1).sum::<usize>();
    assert_eq!(files["naïve 日本.txt"], json!(length));
    // Options are those of single files, and ids may be repeated as a form does it.
    let times =
        file(&me, &format!("/api/v1/transcripts.zip?ids={}&ids={}&format=txt&times=true", ids[0], ids[1])).await;
    let files = python(READ, &times);
    assert_eq!(files["a_b_ talk.txt"], json!(length + LINES.len() * "[0:00] ".len()));

    assert_eq!(refused(&you, &format!("/api/v1/transcripts.zip?ids={}", ids[0])).await.0, StatusCode::NOT_FOUND);
    let fourth = session(&me, "fourth").await;
    let (status, message) = refused(&me, &format!("/api/v1/transcripts.zip?ids={all},{fourth}")).await;
    assert!(status == StatusCode::BAD_REQUEST && message.contains("At most 3 sessions"), "{message}");
    assert_eq!(refused(&me, "/api/v1/transcripts.zip").await.0, StatusCode::BAD_REQUEST);
    assert_eq!(refused(&me, &format!("/api/v1/transcripts.zip?ids={fourth}&lines=9")).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_has_a_limit_in_bytes() {
    let app = node(&["--max-export-bytes", "1000"]).await;
    let me = app.visitor();
    let id = session(&me, "talk").await;
    let (status, message) = refused(&me, &format!("/api/v1/transcripts.zip?ids={id}")).await;
    assert!(status == StatusCode::BAD_REQUEST && message.contains("1.0 kB can be exported at once"), "{message}");
}
