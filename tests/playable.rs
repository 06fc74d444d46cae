//! Copies of recordings that browsers can't play: made by a real ffmpeg of real files, once, in a folder and in a bucket, with
//! and without ffmpeg; and that nothing of them is left when their session is deleted.

#[path = "support/audio.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by test binaries")]
mod audio;
#[path = "support/process.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by test binaries")]
mod process;
#[path = "support/s3.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by test binaries")]
mod s3;
mod support;

use audio::{Files, LENGTH, LIMITS, decoders, rms, share};
use hark::server::audio::{AudioInfo, Selection};
use process::Setup;
use reqwest::{Response, StatusCode};
use s3::{BUCKET, S3};
use serde_json::{Value, json};
use std::{fs, path::Path, time::Duration};
use support::{TIMEOUT, TestApp, Visitor, until};
use tempfile::TempDir;
use tokio::time;

/// Nothing is transcribed.
const IDLE: [&str; 2] = ["--workers", "0"];

/// The files of this folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name != hark::server::media::MARKER);
    names.sort();
    names
}

/// What a file is, and its samples.
async fn heard(bytes: &[u8], folder: &Path) -> (AudioInfo, Vec<i16>) {
    let file = folder.join("copy");
    fs::write(&file, bytes).unwrap();
    let info = decoders().probe(&file, LIMITS, audio::anybody()).await.unwrap();
    let mut decoding = decoders().decode(&file, LIMITS, Selection::default()).await.unwrap();
    let mut samples = Vec::new();
    while let Some(piece) = decoding.next().await.unwrap() {
        samples.extend(piece);
    }
    (info, samples)
}

fn is_the_tone(samples: &[i16], what: &str) {
    let seconds = samples.len() as f64 / 16_000.0;
    assert!((seconds - LENGTH).abs() < 0.15, "{what}: {seconds} s");
    assert!((rms(samples) - audio::LEVEL).abs() < 0.05, "{what}: {}", rms(samples));
    assert!(share(samples, 440.0) > 0.95, "{what}: {}", share(samples, 440.0));
}

async fn error(response: Response) -> (u16, String, String) {
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    let text = |name: &str| body["error"][name].as_str().unwrap_or_default().to_owned();
    (status, text("code"), text("message"))
}

async fn delete(me: &Visitor, id: &str) {
    let deleted = me.send(me.request("DELETE", &format!("/api/v1/sessions/{id}"))).await;
    assert_eq!(deleted.status(), StatusCode::NO_CONTENT);
}

#[tokio::test(flavor = "multi_thread")]
async fn formats_that_browsers_cannot_play_are_copied_once() {
    let app = TestApp::with(&IDLE).await;
    let (me, you) = (app.visitor(), app.visitor());
    let files = Files::new();
    let recordings = app.folder.path().join("recordings");
    for (name, output) in [
        ("a.m4a", &["-c:a", "alac"][..]),
        ("a.wma", &["-c:a", "wmav2"]),
        ("a.ac3", &["-c:a", "ac3"]),
        ("a.mp4", &["-c:a", "eac3"]),
        ("a.caf", &["-c:a", "pcm_s16le"]),
        ("a.aiff", &[]),
    ] {
        let recording = fs::read(files.tone(name, 44_100, "stereo", output)).unwrap();
        let id = me.session(name, recording, &[]).await;
        assert_eq!(names(&recordings), std::slice::from_ref(&id));
        let path = format!("/api/v1/sessions/{id}/playable");
        assert_eq!(you.get(&path).await.status(), StatusCode::NOT_FOUND);

        let copy = me.get(&path).await;
        assert_eq!(copy.status(), StatusCode::OK, "{name}: {}", copy.text().await.unwrap());
        assert_eq!(copy.headers()["content-type"], "audio/ogg; codecs=opus");
        let tag = copy.headers()["etag"].clone();
        let copy = copy.bytes().await.unwrap();
        let (info, samples) = heard(&copy, files.0.path()).await;
        assert_eq!((&*info.format, &*info.codec, info.channels), ("ogg", "opus", 1), "{name}");
        is_the_tone(&samples, name);

        // The same one, whole or in part.
        let part = me.send(me.request("GET", &path).header("range", "bytes=100-199").header("if-range", &tag)).await;
        assert_eq!((part.status(), &part.headers()["etag"]), (StatusCode::PARTIAL_CONTENT, &tag));
        assert_eq!(part.bytes().await.unwrap(), copy[100..200]);
        let known = me.send(me.request("GET", &path).header("if-none-match", &tag)).await;
        assert_eq!(known.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(names(&recordings), [id.clone(), format!("{id}-playable-ogg")]);

        let wav = me.get(&format!("{path}?as=wav")).await;
        assert_eq!(wav.headers()["content-type"], "audio/wav");
        let (info, samples) = heard(&wav.bytes().await.unwrap(), files.0.path()).await;
        assert_eq!((&*info.format, &*info.codec, info.sample_rate), ("wav", "pcm_s16le", 16_000), "{name}");
        assert!(info.duration.is_some_and(|declared| (declared - LENGTH).abs() < 0.15), "{name}: {:?}", info.duration);
        is_the_tone(&samples, name);
        assert_eq!(error(me.get(&format!("{path}?as=mp3")).await).await.0, 400);

        delete(&me, &id).await;
        assert_eq!(names(&recordings), Vec::<String>::new(), "{name}");
        assert_eq!(me.get(&path).await.status(), StatusCode::NOT_FOUND);
    }
    assert_eq!(names(&app.folder.path().join("incoming")), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_has_the_track_that_is_transcribed() {
    let app = TestApp::with(&IDLE).await;
    let me = app.visitor();
    let files = Files::new();
    let film = files.path("film.mov");
    let tone = |frequency: u32| format!("sine=frequency={frequency}:duration=3:sample_rate=44100");
    let inputs = ["-f", "lavfi", "-i", &tone(300), "-f", "lavfi", "-i", &tone(900)];
    let output = ["-map", "0", "-map", "1", "-c:a", "alac", audio::text(&film)];
    audio::ffmpeg(&[&inputs[..], &output].concat());
    let id = me.session("film.mov", fs::read(&film).unwrap(), &[("track", "2")]).await;
    let copy = me.get(&format!("/api/v1/sessions/{id}/playable")).await.bytes().await.unwrap();
    let (_, samples) = heard(&copy, files.0.path()).await;
    assert!(share(&samples, 900.0) > 0.9, "{}", share(&samples, 900.0));
}

/// A film whose first track is a low tone of so many seconds, and whose second is a high one of three.
fn film(files: &Files, seconds: u32) -> Vec<u8> {
    let film = files.path("film.mov");
    let tone = |frequency: u32, seconds: u32| format!("sine=frequency={frequency}:duration={seconds}:sample_rate=8000");
    let inputs = ["-f", "lavfi", "-i", &tone(300, seconds), "-f", "lavfi", "-i", &tone(900, 3)];
    let output = ["-map", "0", "-map", "1", "-c:a", "alac", audio::text(&film)];
    audio::ffmpeg(&[&inputs[..], &output].concat());
    fs::read(&film).unwrap()
}

async fn choose_track(me: &Visitor, id: &str, track: u32) {
    let request = me.request("POST", &format!("/api/v1/sessions/{id}/retry")).json(&json!({"track": track}));
    let chosen = me.send(request).await;
    assert_eq!(chosen.status(), StatusCode::OK, "{}", chosen.text().await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_track_may_be_chosen_while_a_copy_is_made() {
    let app = TestApp::with(&IDLE).await;
    let me = app.visitor();
    let files = Files::new();
    let recordings = app.folder.path().join("recordings");
    // A quarter of an hour takes a while.
    let id = me.session("film.mov", film(&files, 900), &[("track", "1")]).await;
    let path = format!("/api/v1/sessions/{id}/playable");
    let first = {
        let (me, path) = (me.at(&app.url), path.clone());
        tokio::spawn(async move { me.get(&path).await.status() })
    };
    let incoming = app.folder.path().join("incoming");
    until("the copy of the first track is begun", async || names(&incoming).first().cloned()).await;
    choose_track(&me, &id, 2).await;
    assert!(!first.is_finished(), "the copy of the first track was done, or failed, before the other was chosen");

    let copy = me.get(&path).await;
    assert_eq!(copy.status(), StatusCode::OK);
    let (_, samples) = heard(&copy.bytes().await.unwrap(), files.0.path()).await;
    assert!(share(&samples, 900.0) > 0.9, "{}", share(&samples, 900.0));
    // Who has asked for the copy of the first track is to ask again.
    assert_eq!(time::timeout(TIMEOUT, first).await.unwrap().unwrap(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(names(&recordings), [id.clone(), format!("{id}-playable-ogg-2")]);
    let copy = me.get(&path).await.bytes().await.unwrap();
    assert!(share(&heard(&copy, files.0.path()).await.1, 900.0) > 0.9);

    // Nothing of any track is left.
    fs::write(recordings.join(format!("{id}-playable-wav-mix")), "left behind").unwrap();
    delete(&me, &id).await;
    assert_eq!(names(&recordings), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_track_is_chosen_even_if_the_old_copy_cannot_be_removed() {
    let app = TestApp::with(&IDLE).await;
    let me = app.visitor();
    let files = Files::new();
    let id = me.session("film.mov", film(&files, 3), &[("track", "1")]).await;
    // A folder that isn't empty can't be removed as a file.
    for form in ["ogg", "wav"] {
        for track in ["", "-1"] {
            let copy = app.folder.path().join(format!("recordings/{id}-playable-{form}{track}"));
            fs::create_dir_all(copy.join("full")).unwrap();
        }
    }
    choose_track(&me, &id, 2).await;
    let session = me.json(&format!("/api/v1/sessions/{id}")).await;
    assert_eq!((&session["track"], &session["status"]["status"]), (&json!("2"), &json!("queued")), "{session}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_ffmpeg_a_copy_is_a_wav_file_or_the_reason_is_told() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let files = Files::new();
    let with = Setup::new(&data, &IDLE).start();
    let me = with.visitor();
    let wma =
        me.session("a.wma", fs::read(files.tone("a.wma", 44_100, "mono", &["-c:a", "wmav2"])).unwrap(), &[]).await;
    drop(with);
    // An engine that is there without PATH.
    let flags = [&IDLE[..], &["--engine", "command", "--engine-command", "/bin/true"]].concat();
    let without = Setup::new(&data, &flags).env(&[("PATH", folder.path().display().to_string())]).start();
    let me = me.at(&without.url);
    let (status, code, message) = error(me.get(&format!("/api/v1/sessions/{wma}/playable")).await).await;
    assert_eq!((status, &*code), (422, "no_copy"), "{message}");
    assert!(message.contains("installing ffmpeg"), "{message}");

    let alac = fs::read(files.tone("a.m4a", 44_100, "mono", &["-c:a", "alac"])).unwrap();
    let id = me.session("a.m4a", alac, &[]).await;
    let copy = me.get(&format!("/api/v1/sessions/{id}/playable")).await;
    assert_eq!((copy.status(), &copy.headers()["content-type"]), (StatusCode::OK, &"audio/wav".parse().unwrap()));
    is_the_tone(&heard(&copy.bytes().await.unwrap(), files.0.path()).await.1, "without ffmpeg");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_kept_in_the_bucket_of_its_recording() {
    let (folder, s3, files) = (TempDir::new().unwrap(), S3::start(), Files::new());
    let url = format!("s3://{BUCKET}/recordings");
    let node = Setup::new(folder.path(), &[&IDLE[..], &["--recordings-url", &url]].concat()).env(&s3.env()).start();
    let me = node.visitor();
    let wma = fs::read(files.tone("a.wma", 44_100, "mono", &["-c:a", "wmav2"])).unwrap();
    let id = me.session("a.wma", wma, &[]).await;
    let path = format!("/api/v1/sessions/{id}/playable");
    let copy = me.get(&path).await.bytes().await.unwrap();
    is_the_tone(&heard(&copy, files.0.path()).await.1, "from a bucket");
    let stored: Vec<_> = s3.objects("recordings").into_iter().map(|(name, _)| name).collect();
    assert!(stored.contains(&format!("{id}-playable-ogg")), "{stored:?}");
    let part = me.send(me.request("GET", &path).header("range", "bytes=10-19")).await;
    assert_eq!(part.bytes().await.unwrap(), copy[10..20]);
    for scratch in ["incoming", "spool"] {
        assert_eq!(names(&folder.path().join(scratch)), Vec::<String>::new(), "{scratch}");
    }
    delete(&me, &id).await;
    assert_eq!(s3.objects("recordings"), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_are_limited_and_leave_nothing_when_the_session_is_deleted_meanwhile() {
    let app = TestApp::with(&[&IDLE[..], &["--max-copies-per-owner", "1", "--max-copies", "1"]].concat()).await;
    let (me, you) = (app.visitor(), Visitor::from("127.0.0.2", &app.url));
    let files = Files::new();
    // A quarter of an hour takes a while.
    let long = fs::read(files.wave("long.wma", "sin(880*PI*t)", 900.0, 8_000, "mono", &["-c:a", "wmav2"])).unwrap();
    let short = fs::read(files.tone("a.wma", 44_100, "mono", &["-c:a", "wmav2"])).unwrap();
    let long = me.session("long.wma", long, &[]).await;
    let second = me.session("b.wma", short.clone(), &[]).await;
    let yours = you.session("c.wma", short, &[]).await;
    let path = |id: &str| format!("/api/v1/sessions/{id}/playable");
    let url = format!("{}{}", app.url, path(&long));
    let making = reqwest::Client::new().get(url).header("cookie", me.cookie().await).send();
    let making = tokio::spawn(making);
    let incoming = app.folder.path().join("incoming");
    let begun = async {
        while !names(&incoming).contains(&format!("{long}-playable-ogg")) {
            assert!(!making.is_finished(), "the long one was done, or failed, before it was seen to begin");
            time::sleep(Duration::from_millis(5)).await;
        }
    };
    time::timeout(TIMEOUT, begun).await.unwrap();
    let (status, code, message) = error(me.get(&path(&second)).await).await;
    assert_eq!(status, 429);
    assert_eq!(code, "too_many_copies", "{message}");
    // Somebody else waits for a place, and gets one when the long one is done or can't go on.
    delete(&me, &long).await;
    assert_eq!(you.get(&path(&yours)).await.status(), StatusCode::OK);
    assert!(!making.await.unwrap().unwrap().status().is_success());
    let left = names(&app.folder.path().join("recordings"));
    assert!(left.iter().all(|name| !name.starts_with(&long)), "{left:?}");
}

/// However many cookies a stranger takes, the copies of somebody at another address don't wait for all of theirs.
#[tokio::test(flavor = "multi_thread")]
async fn one_stranger_cannot_take_all_places_for_copies() {
    let app = TestApp::with(&IDLE).await;
    let me = app.visitor();
    let files = Files::new();
    let long = fs::read(files.wave("long.wma", "sin(880*PI*t)", 300.0, 8_000, "mono", &["-c:a", "wmav2"])).unwrap();
    let short = fs::read(files.tone("a.wma", 44_100, "mono", &["-c:a", "wmav2"])).unwrap();
    let mine = me.session("a.wma", short, &[]).await;
    let path = |id: &str| format!("/api/v1/sessions/{id}/playable");
    let mut strangers = Vec::new();
    for _ in 0..5 {
        let stranger = Visitor::from("127.0.0.2", &app.url);
        let id = stranger.session("long.wma", long.clone(), &[]).await;
        strangers.push((stranger, path(&id)));
    }
    let asking = strangers.into_iter().map(|(stranger, path)| tokio::spawn(async move { stranger.get(&path).await }));
    // Four may be made or wait at an address.
    let (refused, _, copies) = time::timeout(TIMEOUT, futures::future::select_all(asking)).await.unwrap();
    let (_, code, message) = error(refused.unwrap()).await;
    assert_eq!(code, "too_many_copies", "{message}");
    assert!(message.contains("your network's recordings"), "{message}");
    assert_eq!(me.get(&path(&mine)).await.status(), StatusCode::OK);
    let done = copies.iter().filter(|copy| copy.is_finished()).count();
    assert!(done < 2, "{done} of the stranger's copies were made first");
    for copy in copies {
        assert_eq!(copy.await.unwrap().status(), StatusCode::OK);
    }
}

/// A minute of silence is small as FLAC, and two megabytes as WAV.
fn silence(files: &Files, name: &str, seconds: f64) -> Vec<u8> {
    fs::read(files.wave(name, "0", seconds, 16_000, "mono", &["-c:a", "flac"])).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_copies_of_an_owner_take_no_more_than_the_quota() {
    let app = TestApp::with(&[&IDLE[..], &["--max-bytes-per-owner", "3000000"]].concat()).await;
    let (me, you) = (app.visitor(), app.visitor());
    let (files, recordings) = (Files::new(), app.folder.path().join("recordings"));
    let minute = silence(&files, "minute.flac", 60.0);
    let path = |id: &str| format!("/api/v1/sessions/{id}/playable?as=wav");
    let (first, second) =
        (me.session("a.flac", minute.clone(), &[]).await, me.session("b.flac", minute.clone(), &[]).await);
    let yours = you.session("c.flac", minute, &[]).await;
    assert_eq!(you.get(&path(&yours)).await.status(), StatusCode::OK);
    for id in [&first, &second, &first] {
        assert_eq!(me.get(&path(id)).await.status(), StatusCode::OK);
        // The older one had to go, and is made again.
        let copies: Vec<_> = names(&recordings).into_iter().filter(|name| name.ends_with("-playable-wav")).collect();
        let mut expected = [format!("{id}-playable-wav"), format!("{yours}-playable-wav")];
        expected.sort();
        assert_eq!(copies, expected);
    }
    // One that is too large by itself.
    let long = me.session("long.flac", silence(&files, "long.flac", 120.0), &[]).await;
    let (status, code, message) = error(me.get(&path(&long)).await).await;
    assert_eq!((status, &*code), (422, "no_copy"), "{message}");
    assert!(message.contains("larger than 3.0 MB") && message.contains("Download"), "{message}");
    assert!(!names(&recordings).contains(&format!("{long}-playable-wav")));
    assert_eq!(names(&app.folder.path().join("incoming")), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn old_copies_are_removed_and_made_again() {
    // Four seconds.
    let app = TestApp::with(&[&IDLE[..], &["--keep-copies-days", "0.00005"]].concat()).await;
    let me = app.visitor();
    let (files, recordings) = (Files::new(), app.folder.path().join("recordings"));
    let id = me.session("a.flac", silence(&files, "a.flac", 1.0), &[]).await;
    for _ in 0..2 {
        assert_eq!(me.get(&format!("/api/v1/sessions/{id}/playable?as=wav")).await.status(), StatusCode::OK);
        let removed = async {
            while names(&recordings) != [id.as_str()] {
                time::sleep(Duration::from_millis(100)).await;
            }
        };
        time::timeout(TIMEOUT, removed).await.unwrap();
    }
}

/// A disk without room for copies: what must stay free is more than half of what is.
#[tokio::test(flavor = "multi_thread")]
async fn copies_leave_the_disk_to_uploads() {
    let probe = TempDir::new().unwrap();
    let free = hark::server::space::free_bytes(probe.path()).unwrap();
    let files = Files::new();
    let data = TempDir::new().unwrap();
    let plenty = Setup::new(data.path(), &[&IDLE[..], &["--min-free-bytes", "1"]].concat()).start();
    let me = plenty.visitor();
    let recording = silence(&files, "a.flac", 60.0);
    let id = me.session("a.flac", recording.clone(), &[]).await;
    let path = format!("/api/v1/sessions/{id}/playable?as=wav");
    assert_eq!(me.get(&path).await.status(), StatusCode::OK);
    let recordings = data.path().join("recordings");
    assert_eq!(names(&recordings).len(), 2);
    drop(plenty);
    let min_free = (free / 10 * 7).to_string();
    let full = Setup::new(data.path(), &[&IDLE[..], &["--min-free-bytes", &min_free]].concat()).start();
    let me = me.at(&full.url);
    // The one that was there is gone, and none is made, but uploads are taken.
    let removed = async {
        while names(&recordings) != [id.as_str()] {
            time::sleep(Duration::from_millis(100)).await;
        }
    };
    time::timeout(TIMEOUT, removed).await.unwrap();
    let (status, code, message) = error(me.get(&path).await).await;
    assert_eq!((status, &*code), (422, "no_copy"), "{message}");
    assert!(message.contains("disk"), "{message}");
    me.session("b.flac", recording, &[]).await;
}
