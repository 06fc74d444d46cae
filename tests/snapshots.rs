//! What programs and operators read, compared with how it was written down: the description of the API, the body of each
//! error, docs/configuration.md and docs/metrics.md. After a change that is meant, `make snapshots` writes them anew. And that the
//! documents lead somewhere.

mod support;

use axum::response::IntoResponse;
use clap::{Arg, Command, CommandFactory};
use hark::{
    model::{EngineId, TitleError},
    server::{
        audio::{AudioError, Problem},
        cli::Cli,
        error::Error,
        speech::{SpeechError, models::ModelChangeError},
        store::{LimitScope, QueueFull, ReachedLimit},
    },
};
use std::{
    collections::BTreeSet,
    fmt::Write,
    fs, io,
    path::{Path, PathBuf},
};
use support::TestApp;

/// Compares text with `tests/snapshots/snapshots__NAME.snap`.
fn compare(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_description("Made by tests/snapshots.rs. If a change is meant, run: make snapshots");
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

#[tokio::test]
async fn the_description_of_the_api() {
    let app = TestApp::start().await;
    let document = app.visitor().json("/api/openapi.json").await;
    compare("openapi", &serde_json::to_string_pretty(&document).unwrap());
}

/// Examples of errors, at least one for each variant: the match doesn't compile without all of them.
macro_rules! examples {
    ($($variant:pat => [$($example:expr),+ $(,)?],)+) => {
        fn examples() -> Vec<Error> {
            vec![$($($example),+),+]
        }

        #[expect(dead_code, reason = "only its completeness matters")]
        fn all_variants_have_examples(error: &Error) {
            match error {
                $($variant => {})+
            }
        }
    };
}

fn queue_full(scope: LimitScope, limit: ReachedLimit, measured: bool) -> Error {
    Error::QueueFull(QueueFull { scope, limit, waiting: 20, waiting_secs: 7200.0, wait_secs: 1800.0, measured })
}

fn unreadable(problem: Problem, recognised: Option<&str>, ffmpeg: bool) -> Error {
    Error::Audio(AudioError::Unreadable { recognised: recognised.map(str::to_owned), problem, ffmpeg })
}

fn secret() -> String {
    "a secret that only the log may know".to_owned()
}

examples! {
    Error::NotFound => [Error::NotFound],
    Error::NoRoute => [Error::NoRoute],
    Error::BadRequest(_) => [Error::BadRequest("The cursor can't be read.".to_owned())],
    Error::InvalidTitle(_) => [Error::InvalidTitle(TitleError::Empty), Error::InvalidTitle(TitleError::TooLong(201))],
    Error::UnknownEngine(_) => [Error::UnknownEngine("gramophone".parse::<EngineId>().unwrap_err())],
    Error::UnknownLanguage(_) => [Error::UnknownLanguage(
        "PocketSphinx with its model 'en-us' knows only English, not German. Choose the engine Whisper.".to_owned(),
    )],
    Error::EngineUnavailable { .. } => [
        Error::EngineUnavailable { reason: "There is no model.".to_owned(), install: None },
        Error::EngineUnavailable {
            reason: "There is no model.".to_owned(),
            install: Some("hark model get base".to_owned()),
        },
    ],
    Error::TooLarge { .. } => [
        Error::TooLarge { size: Some(3_000_000_000), limit: 2_000_000_000 },
        Error::TooLarge { size: None, limit: 2_000_000_000 },
    ],
    Error::DiskFull { .. } => [Error::DiskFull { free: 400_000_000 }],
    Error::NothingSaved => [Error::NothingSaved],
    Error::QueueFull(_) => [
        queue_full(LimitScope::All, ReachedLimit::Sessions(1000), true),
        queue_full(LimitScope::Owner, ReachedLimit::Seconds(180_000.0), true),
        queue_full(LimitScope::Address, ReachedLimit::Sessions(20), false),
        queue_full(LimitScope::Newcomers, ReachedLimit::Sessions(500), true),
    ],
    Error::Quota { .. } => [Error::Quota { used: 900_000_000, limit: 1_000_000_000 }],
    Error::MessageTooLarge { .. } => [Error::MessageTooLarge { limit: 262_144 }],
    Error::TooManyLines { .. } => [Error::TooManyLines { limit: 1000 }],
    Error::RequestTooLarge { .. } => [Error::RequestTooLarge { limit: 65_536 }],
    Error::RequestTooSlow { .. } => [Error::RequestTooSlow { secs: 30 }],
    Error::UploadTooSlow { .. } => [Error::UploadTooSlow { rate: 4096 }],
    Error::UploadSilent { .. } => [Error::UploadSilent { secs: 30 }],
    Error::TooManyUploads { .. } => [Error::TooManyUploads { limit: 8, of: "your" }],
    Error::UploadsFull { .. } => [Error::UploadsFull { limit: 128 }],
    Error::NoUpload => [Error::NoUpload],
    Error::WrongTusVersion => [Error::WrongTusVersion],
    Error::NoPart => [Error::NoPart],
    Error::WrongOffset { .. } => [Error::WrongOffset { offset: 8_388_608 }],
    Error::PartTooLarge { .. } => [Error::PartTooLarge { limit: 8_388_608 }],
    Error::BeyondEnd { .. } => [Error::BeyondEnd { left: 1234 }],
    Error::ChecksumMismatch => [Error::ChecksumMismatch],
    Error::TooManyUnfinished { .. } => [Error::TooManyUnfinished { limit: 32, of: "Too many of your" }],
    Error::ConnectionsFull => [Error::ConnectionsFull],
    Error::TooManyConnections { .. } => [Error::TooManyConnections { limit: 512 }],
    Error::MethodNotAllowed => [Error::MethodNotAllowed],
    Error::UnknownHost => [Error::UnknownHost],
    Error::CrossSite { .. } => [
        Error::CrossSite { origin: "https://evil.example".to_owned(), host: None },
        Error::CrossSite { origin: "http://hark.example.org".to_owned(), host: Some("hark:3000".to_owned()) },
    ],
    Error::WorkersOff => [Error::WorkersOff],
    Error::CookiesBlocked => [Error::CookiesBlocked],
    Error::InvalidKey => [Error::InvalidKey],
    Error::NoSessions => [Error::NoSessions],
    Error::NotConfirmed => [Error::NotConfirmed],
    Error::Unauthorised => [Error::Unauthorised],
    Error::InvalidReport(_) => [Error::InvalidReport("The progress must lie between 0 and 100.".to_owned())],
    Error::AdminOff => [Error::AdminOff],
    Error::NotSignedIn => [Error::NotSignedIn],
    Error::NotAdministrator => [Error::NotAdministrator],
    Error::WrongPassword => [Error::WrongPassword],
    Error::TooManySignIns { .. } => [Error::TooManySignIns { retry_secs: 60 }],
    Error::TooManyReports => [Error::TooManyReports],
    Error::Conflict(..) => [Error::Conflict("ended", "The session has ended.".to_owned())],
    Error::BrokenUpload => [Error::BrokenUpload],
    Error::Audio(_) => [
        Error::Audio(AudioError::EmptyFile),
        unreadable(Problem::NotAudio, Some("a PNG image"), true),
        unreadable(Problem::NotAudio, None, false),
        unreadable(Problem::Unsupported, Some("an AMR recording"), false),
        unreadable(Problem::Damaged, Some("an MP3 recording"), true),
        unreadable(Problem::TooCostly, None, true),
        unreadable(Problem::Crashed, None, true),
        Error::Audio(AudioError::NoAudioTrack { format: "mp4".to_owned() }),
        Error::Audio(AudioError::Truncated),
        Error::Audio(AudioError::TooLong { duration: 20_000.0, at_least: false, limit: 14_400.0 }),
        Error::Audio(AudioError::TooLong { duration: 14_401.0, at_least: true, limit: 14_400.0 }),
        Error::Audio(AudioError::NoSamples { format: "wav".to_owned() }),
        Error::Audio(AudioError::Io(io::Error::other(secret()))),
        Error::Audio(AudioError::Ffmpeg),
    ],
    Error::DecodersBusy { .. } => [Error::DecodersBusy { retry_secs: 12 }],
    Error::RangeNotSatisfiable(_) => [Error::RangeNotSatisfiable(2_416_640)],
    Error::Model(_) => [
        Error::Model(ModelChangeError::Off),
        Error::Model(ModelChangeError::Unknown("huge".to_owned())),
        Error::Model(ModelChangeError::Busy("base".to_owned())),
        Error::Model(ModelChangeError::InUse("base".to_owned())),
        Error::Model(ModelChangeError::NotRemoved("the folder of models can't be written".to_owned())),
    ],
    Error::Speech(_) => [Error::Speech(SpeechError::Spawn(io::Error::other(secret())))],
    Error::DatabaseAway => [Error::DatabaseAway],
    Error::Store(_) => [Error::Store(sqlx::Error::Protocol(secret()))],
    Error::NoRecording => [Error::NoRecording],
    Error::NoCopy(_) => [Error::NoCopy(AudioError::Ffmpeg.to_string())],
    Error::CopyUnderWay => [Error::CopyUnderWay],
    Error::TooManyCopies { .. } => [Error::TooManyCopies { limit: 4, of: "your" }],
    Error::Storage(_) => [Error::Storage(secret())],
    Error::Internal(_) => [Error::Internal(secret())],
    Error::Panic => [Error::Panic],
}

#[tokio::test]
async fn the_body_of_each_error() {
    let mut text = String::new();
    for error in examples() {
        let debug = format!("{error:?}");
        let (head, body) = error.into_response().into_parts();
        writeln!(text, "{debug}\n  {}", head.status).unwrap();
        for (name, value) in &head.headers {
            writeln!(text, "  {name}: {}", value.to_str().unwrap()).unwrap();
        }
        let body = axum::body::to_bytes(body, 1 << 16).await.unwrap();
        let body = std::str::from_utf8(&body).unwrap();
        assert!(!body.contains(&secret()), "{debug} tells what only the log may know: {body}");
        writeln!(text, "  {body}\n").unwrap();
    }
    compare("errors", &text);
}

/// What stands around the made part of docs/configuration.md.
const BEGIN: &str = "<!-- From here on written by `make snapshots`: change the settings' doc comments instead. -->\n";

fn configuration() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md")
}

/// How docs/configuration.md should be: what was written by hand, and the settings.
fn right(text: &str) -> String {
    let (head, _) = text.split_once(BEGIN).expect("docs/configuration.md has the line where the made part begins");
    format!("{head}{BEGIN}\n{}", settings())
}

#[test]
fn the_settings_in_the_documentation() {
    let text = fs::read_to_string(configuration()).unwrap();
    let right = right(&text);
    if std::env::var("INSTA_UPDATE").is_ok_and(|value| value == "always") {
        fs::write(configuration(), right).unwrap();
        return;
    }
    let differs = text.lines().zip(right.lines()).find(|(is, should)| is != should);
    let (is, should) = differs.unwrap_or_default();
    assert!(
        text == right,
        "docs/configuration.md doesn't say what the settings are. To write it anew, run: make snapshots\n\
         it says:        {is}\nit should say:  {should}"
    );
}

/// Each variable that the program's text names is a setting that docs/configuration.md has.
#[test]
fn no_variable_is_left_out_of_the_documentation() {
    let text = right(&fs::read_to_string(configuration()).unwrap());
    let hidden: BTreeSet<String> = leaves(&cli(), "").iter().flat_map(|(_, leaf)| hidden(leaf)).collect();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut seen = BTreeSet::new();
    while let Some(path) = folders.pop() {
        if path.is_dir() {
            folders.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|e| e == "rs") {
            seen.extend(variables(&fs::read_to_string(&path).unwrap()));
        }
    }
    assert!(seen.contains("HARK_OPENAI_KEY") && seen.contains("AWS_REGION"), "{seen:?}");
    // Hark sets the first for engines, see docs/engine-protocol.md; the second is a name of Leptos' own.
    let others = ["HARK_LANGUAGE", "LEPTOS_ERROR"];
    let documented = |name: &String| others.contains(&name.as_str()) || text.contains(&format!("`{name}`"));
    let missing: Vec<_> = seen.iter().filter(|name| !hidden.contains(*name) && !documented(name)).collect();
    assert!(missing.is_empty(), "docs/configuration.md lacks {missing:?}");
}

fn variables(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'));
    let ours = |word: &&str| {
        ["HARK_", "LEPTOS_", "AWS_"].iter().any(|start| word.len() > start.len() && word.starts_with(start))
    };
    words.filter(ours).map(str::to_owned).collect()
}

/// docs/metrics.md as the catalogue has it.
#[test]
fn the_list_of_metrics() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let made = hark::server::telemetry::catalogue::document();
    if std::env::var("INSTA_UPDATE").is_ok_and(|value| value == "always") {
        fs::write(&path, &made).unwrap();
    }
    let text = fs::read_to_string(&path).unwrap();
    assert!(text == made, "docs/metrics.md doesn't say what the catalogue says. To write it anew, run: make snapshots");
}

fn cli() -> Command {
    let mut cli = Cli::command();
    cli.build();
    cli
}

/// The subcommands that do something themselves and are for people, with their whole names.
fn leaves(command: &Command, above: &str) -> Vec<(String, Command)> {
    let name = format!("{above} {}", command.get_name()).trim_start().to_owned();
    let below: Vec<_> = command.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help").collect();
    if below.is_empty() {
        return vec![(name, command.clone())];
    }
    below.into_iter().flat_map(|c| leaves(c, &name)).collect()
}

fn is_shown(arg: &Arg) -> bool {
    !arg.is_hide_set() && !matches!(arg.get_id().as_str(), "help" | "version")
}

fn hidden(command: &Command) -> Vec<String> {
    let args = command.get_arguments().filter(|arg| arg.is_hide_set());
    args.filter_map(|arg| Some(arg.get_env()?.to_str()?.to_owned())).collect()
}

/// The title of each struct of settings, in the order of the document.
const GROUPS: [(&str, &str); 25] = [
    ("DataConfig", "Where things are kept"),
    ("NetworkConfig", "Proxies"),
    // What stands in none of the other structs.
    ("ServeConfig", "The node"),
    ("LogConfig", "Log"),
    ("EngineConfig", "Engines"),
    ("OpenaiConfig", "The server with the OpenAI API"),
    ("ModelConfig", "Where models come from"),
    ("JobConfig", "Workers"),
    ("OutsideConfig", "Workers outside Hark"),
    ("AdminConfig", "Administrators"),
    ("LimitConfig", "What is accepted"),
    ("ShareConfig", "Shares of the queue and of the streams"),
    ("KeepConfig", "How long and how much is kept"),
    ("DecodeConfig", "Decoders"),
    ("StreamConfig", "Status streams"),
    ("HttpConfig", "Connections and requests"),
    ("UploadConfig", "Uploads"),
    ("ResumableConfig", "Uploads in parts"),
    ("ExportConfig", "Exports"),
    ("HealthConfig", "Health of the sessions"),
    ("DatabaseConfig", "Connections to PostgreSQL"),
    ("FiguresConfig", "Figures of the dashboard"),
    ("RolloutConfig", "Streams or polling, and what pages report"),
    ("AlertConfig", "Alerts"),
    ("AlertThresholds", "Thresholds of alerts"),
];

/// Every subcommand with its settings, as Markdown. Those that take the same ones have one part together.
fn settings() -> String {
    let mut parts: Vec<(Vec<(String, String)>, String)> = Vec::new();
    let mut own_parts = Vec::new();
    for (name, command) in leaves(&cli(), "") {
        let about = sentence(&command.get_about().map(ToString::to_string).unwrap_or_default());
        let text = if takes_the_same(&command) {
            own_parts.extend(own_part(&name, &command));
            by_group(&command)
        } else {
            table(&command, command.get_arguments().filter(|arg| is_shown(arg)))
        };
        match parts.iter_mut().find(|(_, other)| *other == text) {
            Some((names, _)) => names.push((name, about)),
            None => parts.push((vec![(name, about)], text)),
        }
    }
    // Behind the settings that they take besides.
    let after = parts.iter().position(|(_, text)| text.starts_with("### ")).map_or(0, |at| at + 1);
    parts.splice(after..after, own_parts);
    let mut all = String::new();
    for (names, text) in parts {
        let title = names.iter().map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let abouts = match &*names {
            [(_, about)] => about.clone(),
            many => many.iter().map(|(name, about)| format!("- `{name}`: {about}")).collect::<Vec<_>>().join("\n"),
        };
        writeln!(all, "## {title}\n\n{abouts}\n\n{}\n", text.trim_end()).unwrap();
    }
    format!("{}\n", all.trim_end())
}

/// Whether a subcommand takes all that `hark serve` does.
fn takes_the_same(command: &Command) -> bool {
    command.get_groups().any(|group| group.get_id() == "ServeConfig")
}

/// The settings that a subcommand has besides those of `hark serve`: their struct, a name for the part, and what it is for.
const OWN: [(&str, &str, &str); 1] = [(
    "DeploymentArgs",
    "hark doctor URL",
    "Check a deployment from outside, and print what to change in the proxy in front.",
)];

fn own_part(name: &str, command: &Command) -> Option<(Vec<(String, String)>, String)> {
    let (id, title, about) = OWN.into_iter().find(|(_, title, _)| title.starts_with(name))?;
    let group = command.get_groups().find(|group| group.get_id() == id)?;
    let own = |arg: &&Arg| is_shown(arg) && group.get_args().any(|id| id == arg.get_id());
    let text = table(command, command.get_arguments().filter(own));
    Some((vec![(title.to_owned(), about.to_owned())], text))
}

fn by_group(command: &Command) -> String {
    for group in command.get_groups().filter(|group| OWN.iter().all(|(id, ..)| group.get_id() != id)) {
        let id = group.get_id();
        assert!(GROUPS.iter().any(|(name, _)| id == name), "{id} needs a title in GROUPS of tests/snapshots.rs");
    }
    let group_of = |arg: &Arg| {
        let own = command.get_groups().find(|group| group.get_args().any(|id| id == arg.get_id()));
        own.map_or("ServeConfig", |group| group.get_id().as_str())
    };
    let mut text = String::new();
    for (group, title) in GROUPS {
        let args = command.get_arguments().filter(|arg| is_shown(arg) && group_of(arg) == group);
        writeln!(text, "### {title}\n\n{}", table(command, args)).unwrap();
    }
    text
}

fn table<'a>(command: &Command, args: impl Iterator<Item = &'a Arg>) -> String {
    let mut text = "| variable | flag | default | values | |\n| --- | --- | --- | --- | --- |\n".to_owned();
    for arg in args {
        let mut help = sentence(&arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default());
        let env = arg.get_env().and_then(|env| env.to_str()).unwrap_or_default();
        let env = match env.strip_suffix("_FILE") {
            // A secret has a variable without a flag; its flag names a file. Here both are in one row.
            Some(secret) => {
                help = help.replacen("The file with the", "The", 1).replacen(&format!(" Or set {secret}."), "", 1);
                format!("`{secret}`, or `{env}`")
            }
            None if env.is_empty() => String::new(),
            None => format!("`{env}`"),
        };
        let takes = arg.get_action().takes_values();
        let name = arg.get_value_names().and_then(|names| names.first()).filter(|_| takes);
        let flag = arg.get_long().map(|long| format!("`--{long}`")).or(name.map(|name| format!("`{name}`")));
        let default: Vec<_> = arg.get_default_values().iter().map(|v| format!("`{}`", v.to_str().unwrap())).collect();
        let default = if takes { default.join(", ") } else { String::new() };
        let cells = [env, flag.unwrap_or_default(), default, values(command, arg), help];
        writeln!(text, "| {} |", cells.map(|cell| cell.replace('|', "\\|")).join(" | ")).unwrap();
    }
    text
}

/// What a setting may be, as far as its parser tells: the choices, or the bounds that a number beyond them is told.
fn values(command: &Command, arg: &Arg) -> String {
    if !arg.get_action().takes_values() {
        return String::new();
    }
    let choices: Vec<_> = arg.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
    if !choices.is_empty() {
        return choices.join(", ");
    }
    let Some(long) = arg.get_long() else { return String::new() };
    let said = |value: &str| {
        let given = [command.get_name().to_owned(), format!("--{long}={value}")];
        let error = command.clone().try_get_matches_from(given).err()?;
        let text = std::error::Error::source(&error)?.to_string();
        Some(text)
    };
    for value in ["-1", "0"] {
        let Some(text) = said(value) else { continue };
        if let Some((_, range)) = text.split_once(" is not in ") {
            return bounds(range);
        }
        if let Some(rule) = text.strip_prefix("must be a number ") {
            let rule = rule.split_once(';').map_or(rule, |(rule, _)| rule);
            return rule.strip_prefix("of ").unwrap_or(rule).to_owned();
        }
    }
    String::new()
}

fn bounds(range: &str) -> String {
    let (from, to) = range.split_once("..").expect("a range");
    let to = to.strip_prefix('=').unwrap_or(to);
    let unbounded = to.is_empty() || [u32::MAX.to_string(), u64::MAX.to_string()].contains(&to.to_owned());
    match (from, unbounded) {
        ("0", true) => String::new(),
        (from, true) => format!("{from} or more"),
        (from, false) => format!("{from} to {to}"),
    }
}

/// clap takes the full stop away from a help text of one paragraph.
fn sentence(text: &str) -> String {
    let text = text.trim().replace("\n\n", " ").replace('\n', " ");
    if text.is_empty() || text.ends_with(['.', ':']) { text } else { format!("{text}.") }
}

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The documents, by their paths from the root.
fn documents() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = ["", "docs/"].into_iter().flat_map(|folder| {
        let entries = fs::read_dir(root.join(folder)).unwrap();
        entries.map(move |entry| format!("{folder}{}", entry.unwrap().file_name().into_string().unwrap()))
    });
    files.filter(|name| name.ends_with(".md")).collect()
}

/// The addresses of a document's headings within it, as GitHub makes them.
fn anchors(text: &str) -> Vec<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |line: &str| -> String {
        let kept = line.trim_start_matches('#').trim().to_lowercase();
        kept.chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .collect::<String>()
            .replace(' ', "-")
    };
    headings.map(anchor).collect()
}

#[test]
fn the_documents_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut links = 0;
    for name in documents() {
        let text = read(&name);
        let folder = root.join(&name).parent().unwrap().to_owned();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
            if link.starts_with("http") || link.contains(char::is_whitespace) {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { root.join(&name) } else { folder.join(file) };
            assert!(target.exists(), "{name} leads to {link}, which isn't there");
            if !anchor.is_empty() {
                let headings = anchors(&fs::read_to_string(&target).unwrap());
                assert!(headings.iter().any(|h| h == anchor), "{name} leads to {link}: {headings:?}");
            }
            links += 1;
        }
    }
    assert!(links > 40, "{links}");
    for picture in ["docs/session-light.webp", "docs/session-dark.webp"] {
        assert!(read("README.md").contains(picture) && root.join(picture).exists(), "{picture}");
    }
}

#[test]
fn the_first_page_stays_one_and_the_guide_knows_every_test() {
    assert!(read("README.md").lines().count() <= 150, "README.md is for the first five minutes; docs/ has the rest");
    let guide = read("docs/testing.md");
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            !name.ends_with(".rs") || guide.contains(&format!("`tests/{name}`")),
            "docs/testing.md lacks tests/{name}"
        );
    }
}
