//! The engines as the job runner uses them: real child processes, the real PocketSphinx on generated speech, programs
//! that misbehave, and a stand-in for the API that costs money.

#[path = "support/openai.rs"]
#[allow(unreachable_pub, reason = "as in the other files of support")]
mod openai_server;
mod support;
#[path = "support/whisper_model.rs"]
#[allow(unreachable_pub, reason = "as in the other files of support")]
mod whisper_model;

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use hark::{
    model::EngineId,
    server::config::{EngineConfig, OpenaiConfig},
    server::speech::{Engine, EngineEvent, EngineSegment, Engines, Output, Request, SpeechError, spawn},
};
use openai_server::{FakeServer, Received, dripping, endless, events, refused, typed};
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use support::{TIMEOUT, speech, tools, word_error_rate};
use tempfile::TempDir;
use tokio::{net::TcpListener, process::Command, time};

const TEXT: &str = "We left the old house early in the morning. The road went along the river and then up into the \
    hills. There was no one else on the road that day. By noon the sun was high and we stopped under a tall tree to \
    eat some bread. My mother likes to read the news, and my father likes stories about history.";

fn config() -> EngineConfig {
    EngineConfig { engine_program: Some(env!("CARGO_BIN_EXE_hark").into()), ..EngineConfig::default() }
}

fn engines(config: &EngineConfig) -> Engines {
    Engines::from_config(config, Path::new("/nonexistent"), 1)
}

/// The samples of speech that flite generates.
fn speech_samples(text: &str) -> Vec<i16> {
    let folder = TempDir::new().unwrap();
    speech(text, folder.path())[44..].chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]])).collect()
}

/// Noise that no engine takes for silence.
fn noise(seconds: f64) -> impl Iterator<Item = i16> {
    let mut state = 1u32;
    (0..(seconds * 16_000.0) as usize).map(move |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 19) as i16 - 4096
    })
}

async fn next(output: &mut Output) -> Result<Option<EngineEvent>, SpeechError> {
    time::timeout(TIMEOUT, output.next()).await.expect("the engine says something")
}

/// The events of an engine for a whole recording.
async fn transcribe(engine: &dyn Engine, samples: Vec<i16>) -> Result<Vec<EngineEvent>, SpeechError> {
    transcribe_as(engine, &Request::default(), samples).await
}

async fn transcribe_as(
    engine: &dyn Engine,
    request: &Request,
    samples: Vec<i16>,
) -> Result<Vec<EngineEvent>, SpeechError> {
    let (mut input, mut output) = spawn(engine, request)?;
    let feed = tokio::spawn(async move {
        for part in samples.chunks(4000) {
            if input.write(part).await.is_err() {
                return;
            }
        }
        let _ = input.finish().await;
    });
    let mut events = Vec::new();
    while let Some(event) = next(&mut output).await? {
        events.push(event);
    }
    feed.await.unwrap();
    Ok(events)
}

fn segments(events: &[EngineEvent]) -> Vec<&EngineSegment> {
    events.iter().filter_map(|e| if let EngineEvent::Segment(s) = e { Some(s) } else { None }).collect()
}

fn text(events: &[EngineEvent]) -> String {
    segments(events).iter().map(|s| s.text.as_str()).collect::<Vec<_>>().join(" ")
}

fn processed(events: &[EngineEvent]) -> f64 {
    events
        .iter()
        .filter_map(|e| if let EngineEvent::Progress { processed, .. } = e { Some(*processed) } else { None })
        .fold(0.0, f64::max)
}

/// The processes of a group that are alive.
fn group(leader: u32) -> Vec<u32> {
    let of_group = |entry: std::fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        // After the name in parentheses: state, parent, group.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        (fields[2] == leader.to_string() && fields[0] != "Z").then_some(pid)
    };
    std::fs::read_dir("/proc").unwrap().flatten().filter_map(of_group).collect()
}

async fn wait_until_gone(leader: u32) {
    let waiting = async {
        while !group(leader).is_empty() {
            time::sleep(Duration::from_millis(20)).await;
        }
    };
    time::timeout(Duration::from_secs(10), waiting).await.unwrap_or_else(|_| panic!("{:?} live on", group(leader)));
}

#[tokio::test]
async fn pocketsphinx_transcribes_speech_as_it_comes() {
    let samples = speech_samples(TEXT);
    let seconds = samples.len() as f64 / 16_000.0;
    let engines = engines(&config());
    let (mut input, mut output) = spawn(engines.get(EngineId::Pocketsphinx).unwrap(), &Request::default()).unwrap();
    let leader = output.pid().unwrap();
    let (say_more, mut more) = tokio::sync::oneshot::channel::<()>();
    let feed = tokio::spawn(async move {
        for part in samples.chunks(4000) {
            input.write(part).await.unwrap();
        }
        // The recording ends only after the first events.
        let early = time::timeout(TIMEOUT, &mut more).await.is_ok();
        input.finish().await.unwrap();
        early
    });
    let mut say_more = Some(say_more);
    let mut events = Vec::new();
    while let Some(event) = next(&mut output).await.unwrap() {
        if let (EngineEvent::Segment(_), Some(say)) =
            (&event, say_more.take_if(|_| matches!(event, EngineEvent::Segment(_))))
        {
            say.send(()).unwrap();
        }
        events.push(event);
    }
    assert!(feed.await.unwrap(), "a segment before the end of the input");
    assert!(matches!(&events[0], EngineEvent::Ready { model } if model == "en-us"), "{:?}", events[0]);
    let rate = word_error_rate(TEXT, &text(&events));
    assert!(rate <= 0.15, "{rate}: {}", text(&events));
    let segments = segments(&events);
    assert!(segments.len() >= 3 && segments.windows(2).all(|w| w[0].end <= w[1].start + 0.01), "{segments:?}");
    for segment in segments {
        assert!(segment.end - segment.start <= 15.5 && segment.end <= seconds, "{segment:?}");
        assert!(segment.words.windows(2).all(|w| w[0].start <= w[1].start), "{segment:?}");
    }
    wait_until_gone(leader).await; // by itself: it has said everything
}

#[tokio::test]
async fn quiet_speech_is_transcribed_and_silence_is_not() {
    let engines = engines(&config());
    let engine = engines.get(EngineId::Pocketsphinx).unwrap();
    let text_spoken =
        "The morning was cool and clear when we walked down to the river. She asked for a glass of water.";
    let quiet = speech_samples(text_spoken).into_iter().map(|s| s / 50).collect();
    let events = transcribe(engine, quiet).await.unwrap();
    let rate = word_error_rate(text_spoken, &text(&events));
    assert!(rate <= 0.4, "{rate}: {}", text(&events));
    for silence in [vec![0; 16_000 * 20], vec![], vec![0; 100]] {
        let long = silence.len() > 16_000;
        let events = transcribe(engine, silence).await.unwrap();
        assert_eq!(events.last(), Some(&EngineEvent::Done));
        assert_eq!(text(&events), "");
        assert!(!long || processed(&events) > 15.0, "{events:?}");
    }
}

#[tokio::test]
async fn times_of_segments_match_the_speech() {
    let engines = engines(&config());
    let mut samples = vec![0; 16_000 * 8];
    samples.extend(speech_samples("The morning was cool and clear when we walked down to the river."));
    let events = transcribe(engines.get(EngineId::Pocketsphinx).unwrap(), samples).await.unwrap();
    let spoken = segments(&events);
    let (first, last) = (spoken.first().expect("it is heard"), spoken.last().expect("it is heard"));
    assert!((8.0..8.8).contains(&first.words[0].start) && (10.5..12.5).contains(&last.end), "{spoken:?}");
}

/// Two recordings that were joined. The second sentence begins just when PocketSphinx takes the first one for ended.
#[tokio::test]
async fn words_before_a_short_pause_keep_their_times() {
    let engines = engines(&config());
    let (first, second) = ("the weather was cold in the morning", "this is the second person");
    let say = |text: &str| {
        let wav = std::process::Command::new("flite").args(["-voice", "slt", "-t", text, "-o", "/dev/stdout"]).output();
        let wav = wav.expect("flite is installed by scripts/setup test").stdout;
        wav[44..].chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]])).collect::<Vec<i16>>()
    };
    let (first, second) = (say(first), say(second));
    let joined = first.len() as f64 / 16_000.0;
    let events = transcribe(engines.get(EngineId::Pocketsphinx).unwrap(), [first, second].concat()).await.unwrap();
    let spoken = segments(&events);
    let words: Vec<_> = spoken.iter().flat_map(|segment| &segment.words).collect();
    let start = |text: &str| words.iter().find(|word| word.text == text).expect("it is heard").start;
    assert!((0.0..0.8).contains(&start("weather")), "{words:?}");
    assert!((joined..joined + 1.5).contains(&start("second")), "{words:?}");
}

/// An engine that is a shell script.
fn shell(script: &str) -> Engines {
    let command = format!("sh -c {}", shlex::try_quote(script).unwrap());
    engines(&EngineConfig { engine_command: Some(command), ..config() })
}

fn start(engines: &Engines) -> Output {
    spawn(engines.get(EngineId::Command).unwrap(), &Request::default()).unwrap().1
}

#[tokio::test]
async fn a_kill_reaches_everything_that_an_engine_started() {
    let engines = shell(r#"sleep 300 & sleep 300 & echo '{"type":"ready"}'; wait"#);
    for by_drop in [false, true] {
        let mut output = start(&engines);
        let leader = output.pid().unwrap();
        assert!(matches!(next(&mut output).await, Ok(Some(EngineEvent::Ready { .. }))));
        // Including Hark's own supervising process.
        assert_eq!(group(leader).len(), 4);
        if by_drop {
            drop(output)
        } else {
            output.kill().await
        }
        wait_until_gone(leader).await;
    }
    let own = self::engines(&config());
    let (input, mut output) = spawn(own.get(EngineId::Pocketsphinx).unwrap(), &Request::default()).unwrap();
    let leader = output.pid().unwrap();
    assert!(matches!(next(&mut output).await, Ok(Some(EngineEvent::Ready { .. }))));
    assert_eq!(group(leader).len(), 2);
    output.kill().await;
    wait_until_gone(leader).await;
    drop(input);
}

#[tokio::test]
async fn an_engine_leaves_processor_time_to_streams_and_pages() {
    let script = r#"cat >/dev/null; echo '{"type":"error","code":"nice","message":"'$(nice)'"}'"#;
    let engines = shell(script);
    let (input, mut output) = spawn(engines.get(EngineId::Command).unwrap(), &Request::default()).unwrap();
    input.finish().await.unwrap();
    let error = next(&mut output).await.unwrap_err();
    let own = rustix::process::getpriority_process(None).unwrap();
    assert_eq!(error.to_string(), (own + 10).min(19).to_string());
}

#[tokio::test]
async fn no_process_of_an_engine_survives_a_killed_parent() {
    let engines = engines(&config());
    let (input, mut output) = spawn(engines.get(EngineId::Pocketsphinx).unwrap(), &Request::default()).unwrap();
    let leader = output.pid().unwrap();
    assert!(matches!(next(&mut output).await, Ok(Some(EngineEvent::Ready { .. }))));
    // As if Hark had been killed: nothing signals the group, only the pipes close.
    drop(input);
    wait_until_gone(leader).await;
}

#[tokio::test]
async fn engine_failures_have_distinct_errors() {
    let failing = |script: &'static str| async move {
        let mut output = start(&shell(script));
        loop {
            match next(&mut output).await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("{script} ended well"),
                Err(error) => return error,
            }
        }
    };
    let error = failing("echo reason one >&2; echo reason two >&2; exit 3").await;
    let SpeechError::Crashed { status, stderr_tail } = &error else { panic!("{error:?}") };
    assert!(status.contains('3') && stderr_tail.contains("reason two"), "{error}");
    let error = failing("kill -SEGV $$").await;
    assert!(matches!(&error, SpeechError::Crashed { status, .. } if status.contains("signal")), "{error}");
    assert_eq!(failing(r#"echo '{"type":"ready"}'"#).await.code(), "engine_crashed");
    assert_eq!(failing("echo Loading the model...").await.code(), "engine_protocol");
    assert_eq!(failing(r"head -c 3000 /dev/urandom; echo").await.code(), "engine_protocol");
    assert_eq!(failing("head -c 1100000 /dev/zero | tr '\\0' x").await.code(), "engine_protocol");
    let error = failing(r#"echo '{"type":"error","code":"quota","message":"No quota is left."}'; sleep 300"#).await;
    assert_eq!((error.code(), error.to_string().as_str()), ("engine_error", "No quota is left."));
    let engines = self::engines(&EngineConfig { engine_command: Some("/no/such/program".to_owned()), ..config() });
    let error = spawn(engines.get(EngineId::Command).unwrap(), &Request::default()).err().unwrap();
    assert!(matches!(error, SpeechError::Spawn(_)), "{error}");
}

#[tokio::test]
async fn no_process_of_an_engine_survives_its_own_exit() {
    // The process that the engine started keeps its standard error open, but not its output.
    let mut output = start(&shell("sleep 300 >/dev/null & echo why >&2; exit 1"));
    let leader = output.pid().unwrap();
    // Waiting for its end may be interrupted and begun again.
    let error = loop {
        match time::timeout(Duration::from_millis(1), output.next()).await {
            Ok(Err(error)) => break error,
            Ok(other) => panic!("{other:?}"),
            Err(_) => {}
        }
    };
    assert!(matches!(&error, SpeechError::Crashed { stderr_tail, .. } if stderr_tail == "why"), "{error:?}");
    wait_until_gone(leader).await;
    assert!(matches!(next(&mut output).await, Ok(None)));
}

#[tokio::test]
async fn waiting_for_a_silent_engine_can_be_interrupted() {
    let engines =
        shell(r#"printf '{"type":'; sleep 0.5; echo '"ready","model":"m"}'; cat >/dev/null; echo '{"type":"done"}'"#);
    let (input, mut output) = spawn(engines.get(EngineId::Command).unwrap(), &Request::default()).unwrap();
    let started = Instant::now();
    let mut slices = 0;
    // Half a line must not be lost when the waiting is interrupted.
    let event = loop {
        match time::timeout(Duration::from_millis(20), output.next()).await {
            Ok(event) => break event.unwrap(),
            Err(_) => slices += 1,
        }
        assert!(started.elapsed() < TIMEOUT);
    };
    assert_eq!(event, Some(EngineEvent::Ready { model: "m".to_owned() }));
    assert!(slices > 5, "{slices}");
    input.finish().await.unwrap();
    assert_eq!(next(&mut output).await.unwrap(), Some(EngineEvent::Done));
    assert_eq!(next(&mut output).await.unwrap(), None);
}

/// The engine with a request and with the key of the fake server in its environment, as in production.
struct Keyed<'a> {
    engine: &'a dyn Engine,
    request: Request,
}

impl Engine for Keyed<'_> {
    fn id(&self) -> EngineId {
        self.engine.id()
    }
    fn model(&self) -> String {
        self.engine.model()
    }
    fn availability(&self) -> hark::server::speech::Availability {
        self.engine.availability()
    }
    fn command(&self, _: &Request) -> Result<Command, SpeechError> {
        let mut command = self.engine.command(&self.request)?;
        assert!(!format!("{command:?}").contains("secret"));
        command.env("HARK_OPENAI_KEY", "secret");
        Ok(command)
    }
}

/// Transcribes by a fake server, which is asked for each piece at most twice.
async fn by_server(server: &FakeServer, samples: Vec<i16>, request: Request) -> Result<Vec<EngineEvent>, SpeechError> {
    within(60, server, samples, request).await
}

/// The same, with a timeout in seconds for each answer.
async fn within(
    timeout: u32,
    server: &FakeServer,
    samples: Vec<i16>,
    request: Request,
) -> Result<Vec<EngineEvent>, SpeechError> {
    let openai = OpenaiConfig { openai_timeout_secs: timeout, openai_tries: 2 };
    let engines = engines(&EngineConfig { openai_url: Some(server.url.clone()), openai, ..config() });
    let engine = Keyed { engine: engines.get(EngineId::Openai).unwrap(), request };
    transcribe(&engine, samples).await
}

/// What a fake server's answer to one short piece leads to.
async fn one_piece(server: &FakeServer) -> Result<Vec<EngineEvent>, SpeechError> {
    by_server(server, noise(2.0).collect(), Request::default()).await
}

fn remarks(events: &[EngineEvent]) -> Vec<&str> {
    events
        .iter()
        .filter_map(|e| if let EngineEvent::Remark { remark, .. } = e { Some(remark.message.as_str()) } else { None })
        .collect()
}

fn partials(events: &[EngineEvent]) -> Vec<&str> {
    events
        .iter()
        .filter_map(|e| if let EngineEvent::Partial { text } = e { Some(text.as_str()) } else { None })
        .collect()
}

/// Noise with a pause after it, which make a piece of their own; the level tells pieces apart.
fn piece(level: i16) -> impl Iterator<Item = i16> {
    noise(14.0).map(move |sample| sample / level).chain(vec![0; 16_000])
}

#[tokio::test]
async fn a_remote_server_is_sent_piece_by_piece() {
    let server = FakeServer::start(|count, request| match count {
        0 => refused(StatusCode::TOO_MANY_REQUESTS, "slow down"),
        _ => {
            let end = request.seconds;
            openai_server::json(format!(
                r#"{{"task":"transcribe","language":"german","text":"one two",
                    "segments":[{{"id":0,"start":0.5,"end":{end},"text":" one two","avg_logprob":-0.1}}],
                    "words":[{{"word":"one","start":0.5,"end":0.9}},{{"word":"two","start":1.0,"end":1.4}}]}}"#
            ))
        }
    })
    .await;
    let request = Request {
        language: Some("nb-NO".to_owned()),
        vocabulary: Some("Ærøskøbing, Hark".to_owned()),
        ..Request::default()
    };
    let samples: Vec<i16> = noise(20.0).chain(vec![0; 16_000]).chain(noise(10.0)).collect();
    let events = by_server(&server, samples, request).await.unwrap();
    let requests = server.requests();
    assert_eq!(requests.len(), 3, "a refusal, two pieces");
    assert!(requests.iter().all(|a| a.authorisation.as_deref() == Some("Bearer secret")));
    for (field, value) in [
        ("model", "whisper-1"),
        ("response_format", "verbose_json"),
        ("language", "no"),
        ("prompt", "Ærøskøbing, Hark"),
        ("stream", "true"),
    ] {
        assert_eq!(requests[0].field(field), Some(value), "{field}");
    }
    assert!((requests[1].seconds + requests[2].seconds - 31.0).abs() < 0.01);
    let segments = segments(&events);
    assert_eq!(segments.len(), 2);
    let offset = requests[1].seconds;
    assert!(
        (segments[1].start - offset - 0.5).abs() < 0.01 && (segments[1].words[1].start - offset - 1.0).abs() < 0.01
    );
    assert!((processed(&events) - 31.0).abs() < 0.01);
    // The language was given, so what the server says of it is no news.
    assert!(!events.iter().any(|event| matches!(event, EngineEvent::Language(_))));
}

#[tokio::test]
async fn the_language_that_a_server_finds_is_reported_once() {
    for (said, tag) in [("\"english\"", Some("en")), ("\"de\"", Some("de")), ("null", None), ("\"klingon\"", None)] {
        let answer = format!(r#"{{"text":"a","language":{said}}}"#);
        let server = FakeServer::start(move |_, _| openai_server::json(answer.clone())).await;
        let events = by_server(&server, piece(1).chain(piece(1)).collect(), Request::default()).await.unwrap();
        assert!(server.requests().len() == 2 && server.requests()[0].field("language").is_none());
        let found: Vec<&str> = events
            .iter()
            .filter_map(|event| if let EngineEvent::Language(l) = event { Some(l.language.as_str()) } else { None })
            .collect();
        assert_eq!(found, Vec::from_iter(tag), "{said}");
    }
}

#[tokio::test]
async fn what_a_server_leaves_out_or_sends_as_null_is_nothing() {
    for (answer, expected) in [
        // vLLM and mlx.
        (r#"{"text":"one two","language":null,"duration":"2.0","words":null,"segments":null}"#, "one two"),
        (
            r#"{"text":"one","segments":[{"start":null,"end":null,"text":"one","words":null,"avg_logprob":null}]}"#,
            "one",
        ),
        (r#"{"text":null,"segments":null,"words":null}"#, ""),
        (r#"{"segments":[{"start":0,"end":1,"text":null}]}"#, ""),
        ("{}", ""),
    ] {
        let server = FakeServer::start(move |_, _| openai_server::json(answer)).await;
        let events = one_piece(&server).await.unwrap();
        assert_eq!(
            (text(&events).as_str(), server.requests().len(), remarks(&events).len()),
            (expected, 1, 0),
            "{answer}"
        );
    }
    for (kind, answer, expected) in [
        ("text/plain; charset=utf-8", "one two\n", "one two"),
        // mlx-audio.
        (
            "application/x-ndjson",
            "{\"text\":\"one \",\"accumulated\":\"one \"}\n{\"text\":\"two\",\"start\":null}\n",
            "one two",
        ),
    ] {
        let server = FakeServer::start(move |_, _| typed(kind, answer)).await;
        assert_eq!(text(&one_piece(&server).await.unwrap()), expected);
    }
}

#[tokio::test]
async fn a_piece_that_a_server_cannot_transcribe_is_left_out_with_a_remark() {
    let server = FakeServer::start(|_, request| match request.peak {
        3000.. => openai_server::text("heard"),
        _ => refused(StatusCode::INTERNAL_SERVER_ERROR, "list index out of range"),
    })
    .await;
    // Two that fail are one remark.
    let samples: Vec<i16> = piece(1).chain(piece(2)).chain(piece(2)).chain(piece(1)).chain(piece(2)).collect();
    let request = Request { offset: 60.0, ..Request::default() };
    let events = by_server(&server, samples, request).await.unwrap();
    assert_eq!(text(&events), "heard heard");
    assert_eq!(
        remarks(&events),
        [
            "1:14 to 1:44 could not be transcribed: the transcription server answered 500 Internal Server Error: list index out of range.",
            "2 parts, 0:45 in all, could not be transcribed: 1:14 to 1:44, 1:59 to 2:14. In the end the transcription server answered 500 Internal Server Error: list index out of range."
        ]
    );
    assert!(events.iter().all(|event| !matches!(event, EngineEvent::Remark { replaces: false, .. })));
    assert_eq!(events.last(), Some(&EngineEvent::Done));
    assert!((processed(&events) - 75.0).abs() < 0.01);
    // Twice, then once: after a failure in a row there are fewer tries.
    let tries: Vec<bool> = server.requests().iter().map(|request| request.peak >= 3000).collect();
    assert_eq!(tries, [true, false, false, false, true, false, false]);
}

#[tokio::test]
async fn silence_is_not_sent() {
    let server = FakeServer::start(|_, _| openai_server::text("heard")).await;
    let samples: Vec<i16> = piece(1).chain(vec![3; 16_000 * 60]).chain(piece(1)).collect();
    let events = by_server(&server, samples, Request::default()).await.unwrap();
    assert_eq!((text(&events).as_str(), remarks(&events).len()), ("heard heard", 0));
    assert!((processed(&events) - 90.0).abs() < 0.01);
    let sent: f64 = server.requests().iter().map(|request| request.seconds).sum();
    assert!(server.requests().len() == 2 && sent < 60.0, "{sent}");
    // A recording of nothing but silence is transcribed without the server.
    let events = by_server(&server, vec![0; 16_000 * 30], Request::default()).await.unwrap();
    assert_eq!((server.requests().len(), events.last()), (2, Some(&EngineEvent::Done)));
}

#[tokio::test]
async fn a_server_that_answers_nothing_fails_the_session() {
    let out_of_order = || refused(StatusCode::BAD_GATEWAY, "no backend");
    let server = FakeServer::start(move |_, _| out_of_order()).await;
    let error = by_server(&server, piece(1).chain(piece(1)).collect(), Request::default()).await.unwrap_err();
    assert_eq!(error.to_string(), "The transcription server answered 502 Bad Gateway: no backend.");
    // One that stops to answer isn't sent the rest of the recording; what it has answered is kept.
    let server =
        FakeServer::start(move |count, _| if count == 0 { openai_server::text("a") } else { out_of_order() }).await;
    let error = by_server(&server, (0..20).flat_map(|_| piece(1)).collect(), Request::default()).await.unwrap_err();
    assert!(error.to_string().contains("502"), "{error}");
    assert_eq!(server.requests().len(), 1 + 2 + 7);
}

#[tokio::test]
async fn a_server_is_asked_for_less_until_it_can_do_it() {
    // FastAPI, of fields that it doesn't know.
    let server = FakeServer::start(|_, request| {
        let unknown = ["stream", "timestamp_granularities[]"].into_iter().find(|field| request.field(field).is_some());
        match unknown {
            Some(field) => {
                let body = format!(r#"{{"detail":[{{"type":"extra_forbidden","loc":["body","{field}"],"msg":"Extra inputs are not permitted"}}]}}"#);
                (StatusCode::UNPROCESSABLE_ENTITY, [("content-type", "application/json")], body).into_response()
            }
            None => openai_server::text("heard"),
        }
    })
    .await;
    let events = by_server(&server, piece(1).chain(piece(1)).collect(), Request::default()).await.unwrap();
    assert_eq!(text(&events), "heard heard");
    let requests = server.requests();
    // The second piece is asked for as the first one was answered.
    assert_eq!(requests.len(), 4);
    assert!(requests.iter().all(|request| request.field("response_format") == Some("verbose_json")));
    // A refusal of one piece doesn't change how the others are asked for.
    let server = FakeServer::start(|_, request| match request.peak {
        3000.. => openai_server::text("heard"),
        _ => refused(StatusCode::UNPROCESSABLE_ENTITY, "the audio is not speech"),
    })
    .await;
    let events = by_server(&server, piece(2).chain(piece(1)).collect(), Request::default()).await.unwrap();
    assert_eq!(text(&events), "heard");
    assert!(remarks(&events)[0].ends_with("answered 422 Unprocessable Entity: the audio is not speech."), "{events:?}");
    assert_eq!(server.requests().last().unwrap().field("stream"), Some("true"));
}

#[tokio::test]
async fn a_streaming_server_is_read_as_its_answer_comes() {
    // As OpenAI's newer models: without times, and it breaks off once.
    let delta = r#"{"type":"transcript.text.delta","delta":"We left "}"#;
    let another = r#"{"type":"transcript.text.delta","delta":"early"}"#;
    let done = r#"{"type":"transcript.text.done","text":"We left early."}"#;
    let server = FakeServer::start(move |count, request| {
        if request.field("response_format") == Some("verbose_json") {
            return refused(
                StatusCode::BAD_REQUEST,
                "response_format 'verbose_json' is not compatible with this model",
            );
        }
        if count < 2 { events(&[delta, another]) } else { events(&[delta, another, done]) }
    })
    .await;
    let events = one_piece(&server).await.unwrap();
    // Twice, because the first answer broke off and was requested again; in between its text is taken back.
    assert_eq!(partials(&events), ["We left", "We left early", "", "We left", "We left early"]);
    assert_eq!(text(&events), "We left early.");
    let requests = server.requests();
    assert_eq!(requests.len(), 4);
    assert!(requests.iter().all(|request| request.field("stream") == Some("true")));
    let last = &requests[3];
    assert!(last.field("response_format") == Some("json") && last.field("timestamp_granularities[]").is_none());

    // As vLLM: chunks as of a chat.
    let server = FakeServer::start(|_, request| {
        if request.field("response_format") == Some("verbose_json") && request.field("stream").is_some() {
            return refused(StatusCode::BAD_REQUEST, "verbose_json format doesn't support streaming case");
        }
        if request.field("response_format") == Some("verbose_json") {
            return refused(StatusCode::BAD_REQUEST, "Currently do not support verbose_json for this model");
        }
        openai_server::json(r#"{"text":"We left.","usage":{"type":"duration","seconds":2}}"#)
    })
    .await;
    assert_eq!(text(&one_piece(&server).await.unwrap()), "We left.");
    let chunk = r#"{"object":"transcription.chunk","choices":[{"delta":{"content":"We left."}}]}"#;
    let server = FakeServer::start(move |_, _| openai_server::events(&[chunk, "[DONE]"])).await;
    assert_eq!(text(&one_piece(&server).await.unwrap()), "We left.");

    // The parts are the text where the whole isn't sent once more.
    for end in ["[DONE]", r#"{"type":"transcript.text.done","text":null}"#] {
        let server = FakeServer::start(move |_, _| openai_server::events(&[delta, another, end])).await;
        assert_eq!(text(&one_piece(&server).await.unwrap()), "We left early", "{end}");
    }
}

#[tokio::test]
async fn a_refusal_of_a_remote_server_is_explained() {
    let captcha = "<!doctype html><title>Just a moment...</title><p>Verify you are human</p>";
    for (status, kind, body, word) in [
        (StatusCode::UNAUTHORIZED, "text/plain", "secret says no", "HARK_OPENAI_KEY"),
        (StatusCode::NOT_FOUND, "text/plain", "secret says no", "HARK_OPENAI_MODEL"),
        (StatusCode::FORBIDDEN, "text/html; charset=UTF-8", captcha, "captcha"),
        (StatusCode::OK, "text/html", captcha, "captcha"),
        (
            StatusCode::FORBIDDEN,
            "application/json",
            r#"{"error":{"message":"Country not supported for secret"}}"#,
            "Country not supported",
        ),
    ] {
        let server = FakeServer::start(move |_, _| (status, typed(kind, body)).into_response()).await;
        let error = one_piece(&server).await.unwrap_err();
        assert_eq!((error.code(), server.requests().len()), ("engine_error", 1));
        let said = error.to_string();
        assert!(said.contains(word) && !said.contains("secret") && !said.contains('<'), "{said}");
        assert_eq!(said.contains("HARK_OPENAI_KEY"), status == StatusCode::UNAUTHORIZED, "{said}");
    }
}

#[tokio::test]
async fn redirects_are_followed_on_the_same_server_only() {
    let server = FakeServer::start(|_, request| match request.path.strip_suffix('/') {
        Some(_) => openai_server::text("heard"),
        None => (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, format!("{}/", request.path))]).into_response(),
    })
    .await;
    let events = by_server(&server, piece(1).chain(piece(1)).collect(), Request::default()).await.unwrap();
    assert_eq!(text(&events), "heard heard");
    let requests = server.requests();
    // The whole request again, and the next piece there at once.
    assert_eq!(requests.len(), 3);
    assert!(requests.iter().all(|request| request.seconds > 14.0 && request.authorisation.is_some()));

    // To another server the key and the recording don't go.
    let elsewhere = FakeServer::start(|_, _| openai_server::text("taken")).await;
    for status in [StatusCode::TEMPORARY_REDIRECT, StatusCode::FOUND, StatusCode::PERMANENT_REDIRECT] {
        let to = format!("{}/taken", elsewhere.url);
        let server = FakeServer::start(move |_, _| (status, [(header::LOCATION, to.clone())]).into_response()).await;
        let error = one_piece(&server).await.unwrap_err().to_string();
        assert!(error.contains("HARK_OPENAI_URL"), "{error}");
    }
    assert_eq!(elsewhere.requests().len(), 0);
    let circle = |_: usize, request: &Received| {
        (StatusCode::PERMANENT_REDIRECT, [(header::LOCATION, request.path.clone())]).into_response()
    };
    let server = FakeServer::start(circle).await;
    assert!(one_piece(&server).await.unwrap_err().to_string().contains("circle"));
}

#[tokio::test]
async fn a_remote_server_that_misbehaves_fails_with_a_clear_message() {
    let json = |body| typed("application/json", body);
    for (answer, word, tries) in [
        (Box::new(move || json(endless())) as Box<dyn Fn() -> Response + Send + Sync>, "longer than", 1),
        (Box::new(|| typed("text/event-stream", endless())), "longer than", 1),
        (Box::new(|| (StatusCode::PAYMENT_REQUIRED, endless()).into_response()), "402", 1),
        (Box::new(|| typed("application/json", "")), "empty answer", 2),
        (Box::new(|| typed("application/json", "no json")), "not JSON", 2),
        (Box::new(|| events(&[r#"{"error":{"message":"out of memory"}}"#])), "out of memory", 2),
        (
            Box::new(|| (StatusCode::BAD_GATEWAY, [("content-type", "text/html")], "<h1>502</h1>").into_response()),
            "502 Bad Gateway.",
            2,
        ),
        // An invalid header counts as none.
        (
            Box::new(|| (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "nan")], "busy").into_response()),
            "503",
            2,
        ),
    ] {
        let server = FakeServer::start(move |_, _| answer()).await;
        let error = one_piece(&server).await.unwrap_err().to_string();
        assert!(error.contains(word) && !error.contains('<'), "{error}");
        assert_eq!(server.requests().len(), tries, "{error}");
    }
    // Neither body ends within the timeout.
    for kind in ["application/json", "text/event-stream"] {
        let server = FakeServer::start(move |_, _| typed(kind, dripping())).await;
        let error = within(1, &server, noise(2.0).collect(), Request::default()).await.unwrap_err().to_string();
        assert!(error.contains("broke off") && server.requests().len() == 2, "{error}");
    }
    // A server that never answers, and none at all.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    for (wanted, listener) in [("in time", Some(listener)), ("can't be reached", None)] {
        let openai = OpenaiConfig { openai_timeout_secs: 1, openai_tries: 1 };
        let engines = engines(&EngineConfig { openai_url: Some(url.clone()), openai, ..config() });
        let error = transcribe(engines.get(EngineId::Openai).unwrap(), noise(2.0).collect()).await.unwrap_err();
        assert!(error.to_string().contains(wanted), "{error}");
        drop(listener);
    }
}

#[tokio::test]
async fn whisper_answers_window_by_window() {
    let folder = TempDir::new().unwrap();
    let model = folder.path().join("ggml-canned.bin");
    whisper_model::write(&model).unwrap();
    let engines = engines(&EngineConfig { whisper_model: Some(model), ..config() });
    let engine = engines.get(EngineId::Whisper).unwrap();
    let samples: Vec<i16> = vec![0; 16_000 * 40].into_iter().chain(speech_samples(TEXT)).collect();
    let seconds = samples.len() as f64 / 16_000.0;
    let english = Request { language: Some("en".to_owned()), ..Request::default() };
    let events = transcribe_as(engine, &english, samples).await.unwrap();
    assert_eq!(events[0], EngineEvent::Ready { model: "canned".to_owned() });
    let segments = segments(&events);
    // The model says the same of each window. The silence before the first isn't heard, and counts for its times.
    assert_eq!((segments[0].text.as_str(), segments[1].text.as_str()), ("hello world", "second segment"));
    assert!((39.6..40.1).contains(&segments[0].start), "{segments:?}");
    assert!((segments[0].end - segments[0].start - 2.0).abs() < 0.01 && segments[1].start == segments[0].end);
    assert_eq!(segments[0].words.len(), 2);
    let within = segments[0].start..=segments[0].end;
    assert!(segments[0].words.iter().all(|w| within.contains(&w.start) && w.confidence.is_some()), "{segments:?}");
    let second = segments.iter().filter(|s| s.text == "hello world").nth(1).expect("the second window");
    assert!((43.0..50.0).contains(&second.start), "{second:?}");
    assert!((processed(&events) - seconds).abs() < 0.01);
}

/// A Whisper model of OpenAI's, which scripts/setup fetches.
fn whisper_model(name: &str) -> PathBuf {
    let file = tools().join("models").join(format!("ggml-{name}.bin"));
    assert!(file.is_file(), "{} is missing: scripts/setup test fetches it", file.display());
    file
}

fn whisper(model: &str) -> Engines {
    engines(&EngineConfig { whisper_model: Some(whisper_model(model)), ..config() })
}

/// What a person reads in Debian's pocketsphinx-testdata, with the pauses that are in the file, and the text.
fn reading() -> (Vec<i16>, &'static str) {
    let parts = ["0870", "0880", "0890", "0920", "0930"].map(|part| {
        let folder = "/usr/share/pocketsphinx/test/data/librivox";
        let file = format!("{folder}/sense_and_sensibility_01_austen_64kb-{part}.wav");
        let wav = std::fs::read(file).expect("pocketsphinx-testdata is installed by scripts/setup test");
        let samples = wav[44..].chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]]));
        samples.chain(vec![0; 5000]).collect::<Vec<i16>>()
    });
    let text = "And Mr. John Dashwood had then leisure to consider how much there might be prudently in his power to do \
        for them. He was not an ill-disposed young man, unless to be rather cold-hearted and rather selfish is to be \
        ill-disposed. Had he married a more amiable woman, he might have been made still more respectable than he was. \
        He might even have been made amiable himself.";
    (parts.concat(), text)
}

/// Both texts without differences that are none.
fn words(text: &str) -> String {
    text.replace(['-', '\n'], " ").replace("Mister", "Mr.")
}

#[tokio::test]
async fn whisper_writes_what_people_read_with_the_times_of_words() {
    let (samples, spoken) = reading();
    let seconds = samples.len() as f64 / 16_000.0;
    let engines = whisper("tiny.en");
    let events = transcribe(engines.get(EngineId::Whisper).unwrap(), samples).await.unwrap();
    let heard = text(&events);
    let rate = word_error_rate(&words(spoken), &words(&heard));
    assert!(rate <= 0.03, "{rate}: {heard}");
    assert!(heard.starts_with("And Mr. John Dashwood") && heard.matches('.').count() >= 5, "{heard}");
    assert_eq!(events[0], EngineEvent::Ready { model: "tiny.en".to_owned() });
    let all: Vec<_> = segments(&events).into_iter().flat_map(|s| &s.words).collect();
    assert_eq!(all.len(), heard.split_whitespace().count());
    assert!(all.windows(2).all(|w| w[0].start <= w[1].start), "{all:?}");
    assert!(all.iter().all(|w| w.end <= seconds && w.confidence.is_some_and(|c| c > 0.0)), "{all:?}");
    let dashwood = all.iter().find(|w| w.text.starts_with("Dashwood")).expect("he is heard");
    assert!((0.5..2.0).contains(&dashwood.start), "{dashwood:?}");
    // Progress moves within windows too: there are two of them.
    let steps = events.iter().filter(|e| matches!(e, EngineEvent::Progress { .. })).count();
    assert!(steps >= 5 && (processed(&events) - seconds).abs() < 0.01, "{steps}: {events:?}");
}

#[tokio::test]
async fn whisper_loses_and_doubles_no_word_at_the_edge_of_a_window() {
    let more = "The committee met on Tuesday to discuss the budget for the coming year. Several members wanted to spend \
        more on the library, while others thought that the roads should be repaired first. After a long talk they agreed \
        to put the question to the people of the town. The vote will be held in September. A small ship sailed from the \
        harbour before sunrise with a cargo of wool and timber. The captain had made the same journey every spring for \
        many years. This time the wind was against him, and it took nine days to reach the island. When he arrived, the \
        whole village came down to the shore to greet him.";
    let spoken = format!("{TEXT} {more}");
    // Without long pauses, so that windows end in short ones.
    let mut quiet = 0;
    let samples: Vec<i16> = speech_samples(&spoken)
        .into_iter()
        .filter(|s| {
            quiet = if s.unsigned_abs() < 200 { quiet + 1 } else { 0 };
            quiet < 2400
        })
        .collect();
    assert!(samples.len() > 16_000 * 42, "three windows: {} s", samples.len() / 16_000);
    let engines = whisper("tiny.en");
    let events = transcribe(engines.get(EngineId::Whisper).unwrap(), samples).await.unwrap();
    let heard = text(&events);
    let rate = word_error_rate(&spoken.replace("harbour", "harbor"), &heard.replace("harbour", "harbor"));
    assert!(rate <= 0.05, "{rate}: {heard}");
    let (said, found) = (spoken.split_whitespace().count(), heard.split_whitespace().count());
    assert!(said.abs_diff(found) <= 2, "{said} words were said, {found} were heard: {heard}");
}

/// Speech in which the same words come again and again isn't taken for a loop of Whisper's.
#[tokio::test]
async fn whisper_keeps_what_people_repeat() {
    let count = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
    let spoken: Vec<String> =
        ["twenty", "thirty"].iter().flat_map(|ten| count.map(|one| format!("The next page is {ten} {one}."))).collect();
    let engines = whisper("tiny.en");
    let samples = speech_samples(&spoken.join(" "));
    let heard = text(&transcribe(engines.get(EngineId::Whisper).unwrap(), samples).await.unwrap()).to_lowercase();
    let pages = heard.matches("page is").count();
    assert!((17..=18).contains(&pages) && heard.split_whitespace().count() <= 5 * 19, "{pages}: {heard}");
}

/// Nor are the same words with nothing between, as a line that is held says them, or a knock at the door.
#[tokio::test]
async fn whisper_keeps_every_line_that_is_said_again() {
    let engines = whisper("tiny.en");
    let engine = engines.get(EngineId::Whisper).unwrap();
    for (said, times, pause) in [("Please hold the line.", 20, 2.0), ("Please hold the line.", 20, 0.5)] {
        let once = speech_samples(said);
        let silence = vec![0; (pause * 16_000.0) as usize];
        let samples: Vec<i16> = (0..times).flat_map(|_| [&once[..], &silence].concat()).collect();
        let seconds = samples.len() as f64 / 16_000.0;
        let events = transcribe(engine, samples).await.unwrap();
        let heard = text(&events).to_lowercase().matches("hold the").count();
        assert!((times - 3..=times).contains(&heard), "{heard} of {times} with {pause} s between: {events:?}");
        // Nowhere is a gap.
        let segments = events.iter().filter_map(|event| match event {
            EngineEvent::Segment(segment) => Some((segment.start, segment.end)),
            _ => None,
        });
        let mut reached = 0.0;
        for (start, end) in segments.chain([(seconds, seconds)]) {
            assert!(start - reached < 6.0, "nothing from {reached} to {start} of {seconds}: {events:?}");
            reached = f64::max(reached, end);
        }
        assert!(!events.iter().any(|event| matches!(event, EngineEvent::Remark { .. })), "{events:?}");
    }
}

/// Lines and processor time of Whisper's child process.
fn whisper_child(samples: &[i16], arguments: &[&str]) -> (Vec<String>, f64) {
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_hark"))
        .args(["engine", "whisper", "--model"])
        .arg(whisper_model("tiny.en"))
        .args(arguments)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    let feed = std::thread::spawn(move || std::io::Write::write_all(&mut input, &bytes));
    let mut said = String::new();
    std::io::Read::read_to_string(&mut output, &mut said).unwrap();
    feed.join().unwrap().unwrap();
    let used = cpu_seconds(child.id());
    assert!(child.wait().unwrap().success(), "{said}");
    let lines = said.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    (
        lines.filter(|line| line["type"] == "segment").map(|line| line["text"].as_str().unwrap().to_owned()).collect(),
        used,
    )
}

/// Speech that is played backwards makes this model write the same words for ever, unless it guesses anew at a higher
/// temperature.
#[test]
fn whisper_guesses_anew_when_its_text_is_a_loop() {
    let (mut samples, _) = reading();
    samples.reverse();
    // How often the most frequent three words in a row are said.
    let repeated = |lines: &[String]| {
        let words: Vec<String> = lines.iter().flat_map(|line| line.split_whitespace()).map(str::to_lowercase).collect();
        let mut counts = std::collections::HashMap::new();
        words.windows(3).for_each(|three| *counts.entry(three.to_vec()).or_insert(0) += 1);
        counts.into_values().max().unwrap_or(0)
    };
    let (once, used_once) = whisper_child(&samples, &["--temperature-step", "0"]);
    let (again, used_again) = whisper_child(&samples, &[]);
    assert!(repeated(&once) >= 8, "not a loop: {once:?}");
    assert!(repeated(&again) < 5, "a loop: {again:?}");
    // Each of two more temperatures has three candidates, and each at most as many tokens as the first has.
    assert!(used_again > used_once && used_again < 9.0 * used_once, "{used_again} s after {used_once} s");
}

/// A melody with chords and a beat, without voices.
fn music(seconds: f64) -> Vec<i16> {
    let melody = [523.0, 587.0, 659.0, 784.0, 880.0, 784.0, 659.0, 587.0];
    let chords = [[261.6, 329.6, 392.0], [220.0, 261.6, 329.6], [174.6, 220.0, 261.6], [196.0, 246.9, 293.7]];
    let sine = |hertz: f64, t: f64| (std::f64::consts::TAU * hertz * t).sin();
    (0..(seconds * 16_000.0) as usize)
        .map(|i| {
            let t = i as f64 / 16_000.0;
            let chord: f64 = chords[(t / 2.0) as usize % 4].iter().map(|hertz| 0.12 * sine(*hertz, t)).sum();
            let note = melody[(t * 4.0) as usize % 8];
            let tone = 0.25 * (-(t * 4.0).fract() * 3.0).exp() * (sine(note, t) + 0.4 * sine(2.0 * note, t));
            let beat = 0.5 * (-(t * 2.0).fract() * 18.0).exp() * sine(60.0, (t * 2.0).fract());
            ((chord + tone + beat) * 18_000.0) as i16
        })
        .collect()
}

#[tokio::test]
async fn whisper_invents_nothing_where_nobody_speaks() {
    let engines = whisper("tiny.en");
    let engine = engines.get(EngineId::Whisper).unwrap();
    let quiet_noise = noise(30.0).map(|s| s / 100).collect();
    let hum = (0..16_000 * 30).map(|i| ((i as f64 * 0.0196).sin() * 9000.0) as i16).collect();
    for recording in [vec![0; 16_000 * 30], noise(30.0).collect(), quiet_noise, hum, music(30.0), vec![], vec![0; 100]]
    {
        let seconds = recording.len() as f64 / 16_000.0;
        let events = transcribe(engine, recording).await.unwrap();
        assert_eq!((text(&events).as_str(), events.last()), ("", Some(&EngineEvent::Done)), "{events:?}");
        assert!((processed(&events) - seconds).abs() < 0.01, "{events:?}");
    }
}

#[tokio::test]
async fn whisper_leaves_out_long_pauses_and_keeps_the_times() {
    let engines = whisper("tiny.en");
    let first = "The morning was cool and clear when we walked down to the river.";
    let second = "In the evening she asked for a glass of water.";
    let spoken = speech_samples(first);
    let begin = spoken.len() as f64 / 16_000.0 + 90.0;
    let samples: Vec<i16> = spoken
        .into_iter()
        .chain(vec![0; 16_000 * 30])
        .chain(noise(30.0).map(|s| s / 40))
        .chain(music(30.0).into_iter().map(|s| s / 4))
        .chain(speech_samples(second))
        .collect();
    let events = transcribe(engines.get(EngineId::Whisper).unwrap(), samples).await.unwrap();
    let rate = word_error_rate(&format!("{first} {second}"), &text(&events));
    assert!(rate <= 0.1, "{rate}: {}", text(&events));
    let later = segments(&events).into_iter().find(|s| s.text.contains("evening")).expect("the second sentence");
    assert!((begin - 0.5..begin + 1.0).contains(&later.words[0].start), "{later:?}");
    assert!(segments(&events).iter().all(|s| s.end - s.start < 10.0), "{events:?}");
}

#[tokio::test]
async fn whisper_writes_the_first_line_before_it_has_heard_half_a_minute() {
    let engines = whisper("tiny.en");
    let (samples, _) = reading();
    let (mut input, mut output) = spawn(engines.get(EngineId::Whisper).unwrap(), &Request::default()).unwrap();
    // Twelve seconds; the rest comes only after the first line.
    for part in samples[..16_000 * 12].chunks(4000) {
        input.write(part).await.unwrap();
    }
    let first = loop {
        match next(&mut output).await.unwrap() {
            Some(EngineEvent::Segment(segment)) => break segment,
            Some(_) => {}
            None => panic!("it ended"),
        }
    };
    assert!(first.end <= 9.5 && first.text.contains("Dashwood"), "{first:?}");
    input.finish().await.unwrap();
    while next(&mut output).await.unwrap().is_some() {}
}

#[tokio::test]
async fn whisper_finds_the_language() {
    let engines = whisper("base");
    let engine = engines.get(EngineId::Whisper).unwrap();
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("german.wav");
    let spoken = "Guten Morgen. Wir sind heute mit dem Hund an den Fluss gegangen. Die Sonne schien den ganzen Tag.";
    let done =
        std::process::Command::new("espeak-ng").args(["-v", "de", "-s", "140", "-w"]).arg(&file).arg(spoken).status();
    assert!(done.expect("espeak-ng is installed by scripts/setup test").success());
    // It speaks 22,050 samples a second.
    let wav = std::fs::read(&file).unwrap();
    let wav: Vec<i16> = wav[44..].chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]])).collect();
    let samples: Vec<i16> = (0..wav.len() * 160 / 221).map(|i| wav[i * 22_050 / 16_000]).collect();
    let found = |events: &[EngineEvent]| {
        events.iter().find_map(|e| if let EngineEvent::Language(found) = e { Some(found.clone()) } else { None })
    };
    let events = transcribe(engine, samples.clone()).await.unwrap();
    let language = found(&events).expect("a language");
    assert_eq!(language.language, "de", "{language:?}");
    assert!(language.probability.is_some_and(|p| p > 0.8), "{language:?}");
    assert!(text(&events).contains("Morgen") && text(&events).contains("Fluss"), "{}", text(&events));
    // A language that was named isn't searched for.
    let german = Request { language: Some("de-AT".to_owned()), ..Request::default() };
    let events = transcribe_as(engine, &german, samples).await.unwrap();
    assert!(found(&events).is_none() && text(&events).contains("Morgen"), "{events:?}");
}

#[tokio::test]
async fn whisper_spells_names_as_the_vocabulary_does() {
    let engines = whisper("tiny.en");
    let engine = engines.get(EngineId::Whisper).unwrap();
    let samples = speech_samples("Doctor Kaskelund said that the Brimvik needs no power. We thanked Doctor Kaskelund.");
    let told = Request { vocabulary: Some("Kaskelund, Brimvik".to_owned()), ..Request::default() };
    let without = text(&transcribe(engine, samples.clone()).await.unwrap());
    let with = text(&transcribe_as(engine, &told, samples).await.unwrap());
    assert!(!without.contains("Kaskelund"), "{without}");
    assert!(with.contains("Kaskelund") && with.contains("Brimvik") && with.contains("power"), "{with}");
}

/// The processor time of a child that may have exited but wasn't waited for, in seconds.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<f64> =
        stat.rsplit_once(')').unwrap().1.split_whitespace().skip(11).take(2).map(|f| f.parse().unwrap()).collect();
    fields.iter().sum::<f64>() / rustix::param::clock_ticks_per_second() as f64
}

#[tokio::test]
async fn whisper_threads_that_wait_use_no_processor_time() {
    // A busy machine: threads wait for others that aren't scheduled. The loops have the engine's priority.
    let mut loops: Vec<_> = (0..2)
        .map(|_| {
            std::process::Command::new("nice")
                .args(["-n", "10", "sh", "-c", "ulimit -t 60; while :; do :; done"])
                .spawn()
                .unwrap()
        })
        .collect();
    let samples = speech_samples(TEXT)[..16_000 * 8].to_vec();
    let mut used = Vec::new();
    for threads in [1, 2] {
        let config =
            EngineConfig { whisper_model: Some(whisper_model("tiny.en")), whisper_threads: Some(threads), ..config() };
        let engines = engines(&config);
        let (mut input, mut output) = spawn(engines.get(EngineId::Whisper).unwrap(), &Request::default()).unwrap();
        let pid = output.pid().unwrap();
        let samples = samples.clone();
        let feed = tokio::spawn(async move {
            for part in samples.chunks(4000) {
                input.write(part).await.unwrap();
            }
            input.finish().await.unwrap();
        });
        while next(&mut output).await.unwrap().is_some() {}
        feed.await.unwrap();
        used.push(cpu_seconds(pid));
    }
    for child in &mut loops {
        let _ = child.kill();
        let _ = child.wait();
    }
    assert!(used[0] > 0.3 && used[1] <= used[0] * 1.3, "{used:?}");
}

#[tokio::test]
async fn whisper_refuses_what_it_cannot_do() {
    let folder = TempDir::new().unwrap();
    let model = folder.path().join("ggml-canned.en.bin");
    std::fs::write(&model, b"not a model").unwrap();
    let config = EngineConfig { whisper_model: Some(model.clone()), ..config() };
    let engines = engines(&config);
    let error = transcribe(engines.get(EngineId::Whisper).unwrap(), noise(2.0).collect()).await.unwrap_err();
    assert!(error.code() == "engine_unavailable" && error.to_string().contains("whisper.cpp's format"), "{error}");
    whisper_model::write(&model).unwrap();
    let german = Request { language: Some("de".to_owned()), ..Request::default() };
    let (_input, mut output) = spawn(engines.get(EngineId::Whisper).unwrap(), &german).unwrap();
    let error = next(&mut output).await.unwrap_err();
    assert!(error.to_string().contains("only English"), "{error}");
}
