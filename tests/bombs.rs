//! Files that break decoders, sent to a real `hark serve`: the node refuses them in time, needs no memory for them, and
//! goes on. A file that breaks only its full decoding fails its session once and isn't retried. Also a few hundred
//! damaged files of every format.

#[path = "support/bombs.rs"]
#[allow(unreachable_pub, reason = "as the other files there")]
mod bombs;
#[path = "support/process.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by test binaries")]
mod process;
mod support;

use process::{Process, Setup};
use reqwest::StatusCode;
use serde_json::Value;
use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};
use support::{TIMEOUT, Visitor, slow_engine, wav, wav_of};
use tempfile::TempDir;

/// The time within which every upload is answered.
const IN_TIME: Duration = Duration::from_secs(10);
/// How much the peak memory of the node may grow, in KiB.
const MORE: u64 = 64 * 1024;

/// The peak memory of a process, in KiB.
fn most_memory(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Starts a node that may not use more than a gigabyte; nor may anything that it starts.
fn node(folder: &Path, flags: &[&str]) -> Process {
    let engine = slow_engine(folder, 0.0);
    let own = ["--engine", "command", "--engine-command", &engine, "--min-free-bytes", "1"];
    Setup::new(&folder.join("data"), &[&own[..], flags].concat()).by(&["prlimit", "--data=1073741824"]).start()
}

async fn transcribes(node: &Process) {
    let visitor = node.visitor();
    let id = visitor.session("good.wav", wav(2.0, 8_000.0), &[]).await;
    assert_eq!(visitor.wait(&id, "completed").await["segments"], 2);
}

/// Uploads a recording whose session fails, and returns its status.
async fn fails(visitor: &Visitor, name: &str, bytes: Vec<u8>) -> Value {
    let id = visitor.session(name, bytes, &[]).await;
    visitor.wait(&id, "failed").await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_upload_harms_the_node() {
    let folder = TempDir::new().unwrap();
    let node = node(folder.path(), &[]);
    transcribes(&node).await;
    let visitor = node.visitor();
    // The memory that an upload of this size takes anyway.
    let nothing = visitor.upload("nothing.bin", vec![1; 15_000_000], &[]).await;
    assert_eq!(nothing.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let before = most_memory(node.id());
    for (name, bytes) in bombs::all() {
        let size = bytes.len();
        let started = Instant::now();
        let response = visitor.upload(name, bytes, &[]).await;
        let (status, took) = (response.status(), started.elapsed());
        let body = response.text().await.unwrap();
        let more = most_memory(node.id()).saturating_sub(before);
        println!("{name}: {size} bytes, {took:?}, the node +{more} KiB: {status} {body}");
        assert!(status.is_client_error(), "{name}: {status} {body}");
        assert!(took < IN_TIME, "{name}: {took:?}");
        assert!(more < MORE, "{name}: {more} KiB");
    }
    transcribes(&node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_that_breaks_its_decoder_later_fails_without_retries() {
    let folder = TempDir::new().unwrap();
    let flags = ["--decode-memory-bytes", "67108864", "--decode-cpu-secs", "1", "--decode-cpu-factor", "0"];
    let node = node(folder.path(), &flags);
    let visitor = node.visitor();

    // The first stream is valid. Only decoding reaches the second.
    let tone = folder.path().join("tone.ogg");
    let source = "sine=frequency=440:duration=3:sample_rate=16000";
    let made = Command::new("ffmpeg")
        .args(["-hide_banner", "-loglevel", "error", "-f", "lavfi", "-i", source, "-c:a", "libvorbis"])
        .arg(&tone)
        .status();
    assert!(made.unwrap().success());
    let chain = [fs::read(&tone).unwrap(), bombs::ogg_comments()].concat();
    // Longer than what can be decoded with one second of processor time.
    let long = wav_of(std::iter::repeat_n(0, 16_000 * 900));
    for (name, bytes) in [("chain.ogg", chain), ("long.wav", long)] {
        let status = fails(&visitor, name, bytes).await;
        let error = &status["error"];
        assert_eq!(error["code"], "unreadable", "{name}: {status}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("takes more memory or time"), "{name}: {message}");
        assert_eq!(status["attempt"], 1, "{name}: {status}");
        assert_ne!(status["stage"], "loading_model", "{name}: {status}");
        let id = status["session_id"].as_str().unwrap();
        let refused = visitor.post(&format!("/api/v1/sessions/{id}/retry")).await;
        assert_eq!(refused.status(), StatusCode::CONFLICT, "{name}");
        assert_eq!(refused.json::<Value>().await.unwrap()["error"]["code"], "final_failure", "{name}");
    }
    transcribes(&node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_uploads_at_once_are_all_answered() {
    let folder = TempDir::new().unwrap();
    // The other limits of uploads are raised.
    let flags = ["--decoders", "1", "--probe-wait-secs", "2", "--max-uploads-per-address", "100"];
    let node = node(folder.path(), &flags);
    let bomb = bombs::all().into_iter().find(|(name, _)| name.starts_with("caf-frames")).unwrap().1;
    let visitors: Vec<_> = (0..40).map(|_| node.visitor()).collect();
    let uploads = visitors.iter().map(|visitor| visitor.upload("bomb.caf", bomb.clone(), &[]));
    for response in futures::future::join_all(uploads).await {
        match response.status() {
            StatusCode::UNPROCESSABLE_ENTITY => {}
            StatusCode::SERVICE_UNAVAILABLE => {
                assert!(response.headers().contains_key("retry-after"));
                assert_eq!(response.json::<Value>().await.unwrap()["error"]["code"], "decoders_busy");
            }
            other => panic!("{other}"),
        }
    }
    transcribes(&node).await;
}

/// What one stranger sends keeps nobody at another address from uploading, though each of its files uses up the whole time of
/// a probe.
#[tokio::test(flavor = "multi_thread")]
async fn one_stranger_cannot_take_all_decoders() {
    let folder = TempDir::new().unwrap();
    let node = node(folder.path(), &["--decoders", "2", "--probe-secs", "4"]);
    // Frames without samples, so that a decoder goes through all of them.
    let bomb = [0xff, 0xf1, 0x6c, 0x40, 0x01, 0x1f, 0xfc, 0x21].repeat(3_000_000);
    let is_over = AtomicBool::new(false);
    let attack = async || {
        let mut busy = 0;
        while !is_over.load(Relaxed) {
            let answer = Visitor::from("127.0.0.2", &node.url).upload("a.aac", bomb.clone(), &[]).await;
            busy += usize::from(answer.status() == StatusCode::SERVICE_UNAVAILABLE);
        }
        busy
    };
    let others = async {
        let me = node.visitor();
        for _ in 0..8 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            me.session("a.wav", wav(1.0, 1.0), &[]).await;
        }
        is_over.store(true, Relaxed);
    };
    let (busy, ()) = tokio::join!(futures::future::join_all((0..6).map(|_| attack())), others);
    assert!(busy.into_iter().sum::<usize>() > 0, "each of the stranger's uploads found a decoder");
}

/// A program that tries what no decoder may do, in place of ffmpeg.
const ESCAPE: &str = r#"#!/usr/bin/python3
import ctypes, os, resource, socket, sys, threading
def tried(name, what):
    try: what(); print("could", name)
    except (OSError, ValueError) as error: print("not", name, type(error).__name__)
def thread():
    started = threading.Thread(target=lambda: None); started.start(); started.join()
def ptrace():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(16, os.getppid(), 0, 0) != 0: raise OSError(ctypes.get_errno())
def fork():
    if os.fork() == 0: os._exit(0)
tried("read its input", lambda: open("/proc/self/fd/0").read(4))
tried("read another file", lambda: open(os.path.join(os.path.dirname(sys.argv[0]), "secret")))
tried("read the passwords", lambda: open("/etc/passwd"))
tried("list a folder", lambda: os.listdir("/proc"))
tried("write a file", lambda: open(os.path.join(os.path.dirname(sys.argv[0]), "written"), "w"))
tried("write to its input", lambda: open("/proc/self/fd/0", "a"))
tried("open a socket", lambda: socket.socket())
tried("open a local socket", lambda: socket.socket(socket.AF_UNIX))
tried("signal its parent", lambda: os.kill(os.getppid(), 0))
tried("trace its parent", ptrace)
tried("start a process", fork)
tried("start a thread", thread)
tried("leave its group", os.setsid)
tried("raise its limits", lambda: resource.setrlimit(resource.RLIMIT_DATA, (1 << 40, 1 << 40)))
print("environment", sorted(set(os.environ) - {"LC_CTYPE"}))
"#;

/// Tests each layer. This works only on a machine that has all of them; the check at the start says so.
#[test]
fn a_decoder_can_do_nothing_else() {
    let folder = TempDir::new().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let (input, program) = (file("input", "text"), file("program", ESCAPE));
    file("secret", "");
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let run = |task: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_hark"))
            .arg("decoder")
            .args(task)
            .env_clear()
            // Python isn't among the paths that ffmpeg may read.
            .env("LD_LIBRARY_PATH", "/usr/bin")
            .stdin(fs::File::open(&input).unwrap())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let missing = run(&["check"]);
    assert_eq!(missing, "", "this machine can't show all of it");
    // Also with limits below and above what allocators take at once.
    for memory in ["67108864", "2147483648"] {
        assert_eq!(run(&["check", "--memory", memory]), "");
    }
    let said = run(&["check-ffmpeg", program.to_str().unwrap()]);
    for line in said.lines() {
        let fine = ["could read its input", "could start a thread", "environment ['LD_LIBRARY_PATH']"].contains(&line);
        assert!(fine || line.starts_with("not "), "{said}");
    }
    assert_eq!(said.lines().filter(|line| line.starts_with("not ")).count(), 12, "{said}");
    assert!(!folder.path().join("written").exists());
}

/// Runs a decoder on a file as the server does. Returns its exit code, none if it died, and its output.
fn decoder(task: &str, file: &Path) -> (Option<i32>, String) {
    let child = Command::new(env!("CARGO_BIN_EXE_hark"))
        .args(["decoder", task, "--max-duration", "30", "--cpu-secs", "20"])
        .stdin(fs::File::open(file).unwrap())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .output()
        .unwrap();
    (child.status.code(), String::from_utf8_lossy(&child.stdout).into_owned())
}

/// Files of every format with changed bytes, repeated parts and cut ends, the same in each run. None may be reported as
/// a failure of the storage, and each gets an answer.
#[test]
fn decoders_blame_the_file_for_damage() {
    let folder = TempDir::new().unwrap();
    let seeds: Vec<Vec<u8>> = [
        ("a.wav", &["-c:a", "pcm_s16le"][..]),
        ("ima.wav", &["-c:a", "adpcm_ima_wav"]),
        ("rf64.wav", &["-c:a", "pcm_s16le", "-rf64", "always"]),
        ("a.aiff", &[]),
        ("a.flac", &[]),
        ("a.mp3", &["-c:a", "libmp3lame"]),
        ("a.aac", &["-c:a", "aac"]),
        ("a.m4a", &["-c:a", "aac"]),
        ("fragments.m4a", &["-c:a", "aac", "-movflags", "frag_keyframe+empty_moov"]),
        ("alac.m4a", &["-c:a", "alac"]),
        ("a.ogg", &["-c:a", "libvorbis"]),
        ("a.opus", &["-c:a", "libopus"]),
        ("a.webm", &["-c:a", "libopus"]),
        ("a.caf", &["-c:a", "pcm_s16be"]),
    ]
    .iter()
    .map(|(name, output)| {
        let path = folder.path().join(name);
        let source = "sine=frequency=440:duration=0.3:sample_rate=48000";
        let made = Command::new("ffmpeg")
            .args(["-hide_banner", "-loglevel", "error", "-f", "lavfi", "-i", source])
            .args(*output)
            .arg(&path)
            .status();
        assert!(made.unwrap().success(), "{name}");
        fs::read(path).unwrap()
    })
    .collect();
    let cases = std::env::var("DECODE_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(420);
    let mut random = 0x1234_5678_9abc_def1_u64;
    let mut next = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % below.max(1) as u64) as usize
    };
    let path = folder.path().join("mutated");
    for case in 0..cases {
        let mut bytes = seeds[case % seeds.len()].clone();
        for _ in 0..=next(6) {
            // Half of the changes are in the headers, where they have most effect.
            let range = if next(2) == 0 { bytes.len().min(400) } else { bytes.len() };
            let at = next(range);
            match next(5) {
                0 => bytes[at] = next(256) as u8,
                // Lengths and counts become extreme.
                1 => bytes.iter_mut().skip(at).take(4).for_each(|byte| *byte = 0xff),
                2 => bytes.iter_mut().skip(at).take(8).for_each(|byte| *byte = 0xff),
                3 => {
                    bytes.iter_mut().skip(at).take(8).for_each(|byte| *byte = 0);
                    bytes[at] = 0x7f;
                }
                _ => {
                    let part: Vec<u8> = bytes.iter().skip(next(range)).take(next(64)).copied().collect();
                    bytes.splice(at..at, part);
                }
            }
        }
        if next(5) == 0 {
            bytes.truncate(next(bytes.len()).max(1));
        }
        fs::File::create(&path).unwrap().write_all(&bytes).unwrap();
        let (code, said) = decoder("decode", &path);
        // If a decoder died of its limits, or of a stack overflow, the server reports that.
        assert!(!said.contains("\"storage\""), "case {case}: {said}");
        if code == Some(0) {
            let answer = ["ended", "not_here", "refused"].iter().any(|word| said.contains(word));
            assert!(answer, "case {case}: {said}");
        } else {
            println!("case {case}: the decoder died: {code:?}");
        }
    }
}
