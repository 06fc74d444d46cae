//! Recordings of every format, rate and layout through the server's decoders, each in its confined process, and files
//! that are damaged in every way. The files are made by ffmpeg, sox and flite during the tests, so the repository has
//! no binary files.

#![expect(clippy::unwrap_used, reason = "a test that fails is the message")]

#[path = "support/audio.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by test binaries")]
mod audio;

use audio::*;
use clap::Parser;
use hark::server::audio::{
    AudioError, Decoders, Decoding, Limits, MAX_PEAKS, ProbeError, Problem, SAMPLE_RATE, Selection,
};
use proptest::prelude::*;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The lag in samples at which two recordings agree best, and how well: 1 is the same wave.
fn agreement(a: &[i16], b: &[i16], most: usize) -> (i64, f64) {
    let length = a.len().min(b.len()) - 2 * most;
    let middle: Vec<f64> = a[most..most + length].iter().map(|&s| f64::from(s)).collect();
    let power = middle.iter().map(|s| s * s).sum::<f64>();
    let mut best = (0, f64::MIN);
    for shift in 0..2 * most {
        let other = &b[shift..shift + length];
        let (mut product, mut other_power) = (0.0, 0.0);
        for (s, &o) in middle.iter().zip(other) {
            product += s * f64::from(o);
            other_power += f64::from(o) * f64::from(o);
        }
        let found = product / (power * other_power).sqrt();
        if found > best.1 {
            best = (shift as i64 - most as i64, found);
        }
    }
    best
}

/// Encodes, decodes and probes the usual tone. A line is: file name | ffmpeg's options | expected container and codec |
/// rates | layouts, all of them at the first rate | `lossy`, `open` for containers that declare no length.
fn check(table: &str) {
    let files = Files::new();
    for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let columns: Vec<Vec<&str>> = line.split('|').map(|column| column.split_whitespace().collect()).collect();
        let [name, output, expected, rates, layouts, flags] = &columns[..] else { panic!("six columns: {line}") };
        for (i, rate) in rates.iter().enumerate() {
            for layout in if i == 0 { &layouts[..] } else { &layouts[..1] } {
                let rate = rate.parse().unwrap();
                let path = files.tone(name[0], rate, layout, output);
                let what = format!("{rate} {layout} of {line}");
                check_one(&path, expected, rate, layout, flags, &what);
            }
        }
    }
}

fn check_one(path: &Path, expected: &[&str], rate: u32, layout: &str, flags: &[&str], what: &str) {
    let (decoded, samples) = decode(path).unwrap_or_else(|error| panic!("{what}: {error}"));
    let (lossy, open) = (flags.contains(&"lossy"), flags.contains(&"open"));
    let info = &decoded.info;
    let tolerance = match expected[1] {
        // Two frames of encoder delay, which raw AAC doesn't declare and MP4 only in edit lists.
        "aac" => 0.06 + 2_048.0 / f64::from(rate),
        _ if lossy => 0.1,
        _ => 0.05,
    };
    assert!((decoded.duration - LENGTH).abs() < tolerance, "{what}: {} s", decoded.duration);
    assert_eq!([&*info.format, &*info.codec], expected, "{what}");
    assert_eq!(info.channels, channels(layout), "{what}");
    if info.codec != "opus" {
        assert_eq!(info.sample_rate, rate, "{what}");
    }
    match info.duration {
        Some(declared) => {
            assert!((declared - LENGTH).abs() < tolerance + 0.05, "{what}: says {declared}");
        }
        None => assert!(open, "{what}: declares nothing"),
    }
    let level = match expected[1] {
        // The bass channel of a lossy recording holds no 440 Hz.
        _ if layout == "5.1" && lossy => 0.06,
        // LAME lowers the level by a twentieth.
        "mp3" => 0.025,
        _ => 0.015,
    };
    assert!((rms(&samples) - LEVEL).abs() < level, "{what}: level {}", rms(&samples));
    assert!(share(&samples, 440.0) > 0.95, "{what}: {} at 440 Hz", share(&samples, 440.0));
    assert_eq!(decoded.waveform.peaks.len(), MAX_PEAKS);
    let peak = |seconds: f64| {
        let bin = (seconds / decoded.duration * MAX_PEAKS as f64) as usize;
        f64::from(decoded.waveform.peaks[bin]) / 255.0
    };
    if level < 0.05 && tolerance <= 0.11 {
        // 0.4 (1 ± 0.5) of full scale.
        assert!((peak(0.25) - 0.6).abs() < 0.06, "{what}: {}", peak(0.25));
        assert!((peak(1.75) - 0.2).abs() < 0.06, "{what}: {}", peak(1.75));
    }
    let probed = probe(path, &LIMITS).unwrap_or_else(|error| panic!("probe {what}: {error}"));
    assert_eq!(probed, *info, "{what}");
}

#[test]
fn wav() {
    check(
        "
        a.wav | -c:a pcm_s16le | wav pcm_s16le | 44100 8000 11025 16000 22050 32000 48000 96000 192000 | mono stereo 5.1 |
        a.wav | -c:a pcm_u8    | wav pcm_u8    | 8000 44100  | mono stereo     |
        a.wav | -c:a pcm_s24le | wav pcm_s24le | 48000 96000 | mono stereo 5.1 |
        a.wav | -c:a pcm_s32le | wav pcm_s32le | 44100       | mono stereo     |
        a.wav | -c:a pcm_f32le | wav pcm_f32le | 48000 16000 | mono stereo 5.1 |
        a.wav | -c:a pcm_f64le | wav pcm_f64le | 48000       | mono            |
        ",
    );
}

#[test]
fn telephone_and_apple_formats() {
    check(
        "
        a.wav  | -c:a pcm_alaw      | wav pcm_alaw       | 8000 | mono stereo |
        a.wav  | -c:a pcm_mulaw     | wav pcm_mulaw      | 8000 | mono stereo |
        a.wav  | -c:a adpcm_ms      | wav adpcm_ms       | 8000 44100 | mono stereo | lossy
        a.wav  | -c:a adpcm_ima_wav | wav adpcm_ima_wav  | 8000 44100 | mono stereo | lossy
        a.aiff | -c:a pcm_s16be     | aiff pcm_s16be     | 44100 8000 16000 48000 96000 | mono stereo |
        a.aiff | -c:a pcm_s24be     | aiff pcm_s24be     | 48000 | mono stereo |
        a.caf  | -c:a pcm_s16be     | caf pcm_s16be      | 44100 | mono stereo |
        ",
    );
}

#[test]
fn mp3_and_flac() {
    check(
        "
        a.mp3  | -c:a libmp3lame -b:a 64k | mp3 mp3 | 44100 8000 16000 24000 32000 48000 | mono stereo | lossy
        a.mp3  | -c:a libmp3lame -q:a 4   | mp3 mp3 | 44100 48000 | mono stereo | lossy
        a.mp3  | -c:a libmp3lame -write_xing 0 -id3v2_version 0 | mp3 mp3 | 44100 16000 | mono stereo | lossy open
        a.mp2  | -c:a mp2  | mp2 mp2   | 48000 | stereo | lossy open
        a.flac | -c:a flac | flac flac | 44100 8000 16000 48000 96000 | mono stereo 5.1 |
        ",
    );
}

#[test]
fn mp4() {
    check(
        "
        a.m4a | -c:a aac                     | m4a aac  | 44100 8000 16000 48000 96000 | mono stereo 5.1 | lossy
        a.m4a | -c:a aac -movflags faststart | m4a aac  | 44100 | stereo | lossy
        a.m4a | -c:a aac -movflags frag_keyframe+empty_moov -frag_duration 500000 | m4a aac | 48000 | stereo | lossy open
        a.m4a | -c:a alac                    | m4a alac | 44100 8000 16000 48000 96000 | mono stereo |
        a.aac | -c:a aac                     | aac aac  | 44100 8000 16000 48000 | mono stereo | lossy open
        ",
    );
}

#[test]
fn ogg_and_webm() {
    check(
        "
        a.ogg  | -c:a libvorbis | ogg vorbis | 44100 8000 16000 48000 96000 | mono stereo | lossy
        a.opus | -c:a libopus   | ogg opus   | 48000 8000 16000 24000 | mono stereo | lossy
        a.opus | -c:a libopus -frame_duration 60 | ogg opus | 48000 | mono | lossy
        a.oga  | -c:a flac      | ogg flac   | 48000 | mono stereo |
        a.webm | -c:a libopus   | webm opus  | 48000 8000 16000 24000 | mono stereo | lossy
        a.webm | -c:a libvorbis | webm vorbis | 44100 | mono stereo | lossy
        a.mka  | -c:a aac       | mkv aac    | 44100 | mono stereo | lossy
        a.mka  | -c:a flac      | mkv flac   | 48000 | mono stereo |
        a.mka  | -c:a pcm_s16le | mkv pcm_s16le | 48000 | mono stereo |
        a.mka  | -c:a libmp3lame | mkv mp3   | 44100 | mono stereo | lossy
        ",
    );
}

#[test]
fn formats_that_only_ffmpeg_decodes() {
    check(
        "
        a.wma  | -c:a wmav2      | wma wmav2   | 44100 16000 | mono stereo | lossy
        a.ac3  | -c:a ac3        | ac3 ac3     | 48000 | mono stereo 5.1 | lossy open
        a.spx  | -c:a libspeex   | ogg speex   | 16000 | mono   | lossy open
        a.wv   | -c:a wavpack    | wv wavpack  | 44100 | stereo | lossy
        a.avi  | -c:a libmp3lame | avi mp3     | 44100 | stereo | lossy open
        a.ts   | -c:a aac        | ts aac      | 48000 | stereo | lossy open
        a.mp4  | -c:a ac3        | m4a ac3     | 48000 | stereo | lossy
        a.opus | -c:a libopus    | ogg opus    | 48000 | 5.1    | lossy open
        ",
    );
}

/// AMR is hardly encoded any more, but recordings of old telephones exist. 150 frames of 20 ms at 12.2 kbit/s.
#[test]
fn amr() {
    let files = Files::new();
    let mut bytes = b"#!AMR\n".to_vec();
    for i in 0..150_u8 {
        bytes.push(0x3c);
        bytes.extend((0..31).map(|j: u8| i.wrapping_mul(j)));
    }
    let (decoded, _) = decode(&files.write("a.amr", bytes)).unwrap();
    assert_eq!((&*decoded.info.format, &*decoded.info.codec), ("amr", "amr_nb"));
    assert!((decoded.duration - LENGTH).abs() < 0.05, "{}", decoded.duration);
}

#[test]
fn video_with_sound() {
    let files = Files::new();
    let tone = files.tone("a.wav", 48_000, "stereo", &[]);
    let picture = "testsrc=size=64x48:rate=10:duration=3";
    for (name, codecs, format) in [
        ("a.mp4", &["-c:v", "mpeg4", "-c:a", "aac"][..], "mp4"),
        ("a.mov", &["-c:v", "mpeg4", "-c:a", "pcm_s16le"], "mp4"),
        ("a.mkv", &["-c:v", "mpeg4", "-c:a", "libvorbis"], "mkv"),
        ("a.webm", &["-c:v", "libvpx", "-c:a", "libopus"], "webm"),
    ] {
        let path = files.path(name);
        ffmpeg(&[&["-f", "lavfi", "-i", picture, "-i", text(&tone)], codecs, &[text(&path)]].concat());
        let (decoded, samples) = decode(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(decoded.info.format, format, "{name}");
        assert!((decoded.duration - LENGTH).abs() < 0.1, "{name}: {}", decoded.duration);
        assert!(share(&samples, 440.0) > 0.95, "{name}");

        let silent = files.path(&format!("silent-{name}"));
        ffmpeg(&["-i", text(&path), "-an", "-c:v", "copy", text(&silent)]);
        for error in [probe(&silent, &LIMITS).unwrap_err(), decode(&silent).unwrap_err()] {
            assert_eq!(error.code(), "no_audio_track", "{name}: {error}");
        }
    }

    // A video track longer than the audio track doesn't mean that the audio was cut off.
    let long = files.path("long.mkv");
    let picture = "testsrc=size=64x48:rate=10:duration=9";
    ffmpeg(&["-f", "lavfi", "-i", picture, "-i", text(&tone), "-c:v", "mpeg4", "-c:a", "libopus", text(&long)]);
    let (decoded, _) = decode(&long).unwrap();
    assert!((decoded.duration - LENGTH).abs() < 0.1, "{}", decoded.duration);
}

#[test]
fn samples_are_those_that_ffmpeg_decodes() {
    let files = Files::new();
    for (name, output, lag) in [
        ("a.wav", &["-ar", "44100", "-ac", "2"][..], 2),
        ("b.wav", &["-ar", "96000"], 2),
        ("c.wav", &["-ar", "8000"], 2),
        ("a.flac", &["-ar", "48000"], 2),
        ("a.mp3", &["-ar", "44100"], 2),
        ("b.mp3", &["-ar", "16000", "-q:a", "5"], 2),
        ("bare.mp3", &["-ar", "44100", "-write_xing", "0", "-q:a", "5"], 1_200),
        ("a.ogg", &["-ar", "44100", "-c:a", "libvorbis"], 2),
        ("a.opus", &["-c:a", "libopus"], 2),
        ("a.webm", &["-c:a", "libopus"], 120),
        ("a.m4a", &["-ar", "44100"], 400),
        ("a.aac", &["-ar", "44100"], 400),
    ] {
        let path = files.speech(name, output);
        let (_, ours) = decode(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        let theirs = ffmpeg(&["-i", text(&path), "-ac", "1", "-ar", "16000", "-f", "s16le", "-"]);
        let theirs: Vec<i16> = theirs.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect();
        assert!(ours.len().abs_diff(theirs.len()) <= 1_600, "{name}: {} {}", ours.len(), theirs.len());
        let (found, agree) = agreement(&ours, &theirs, lag + 20);
        assert!(agree > 0.99, "{name}: {agree} at {found}");
        assert!(found.unsigned_abs() <= lag as u64, "{name}: shifted by {found}");
    }
}

#[test]
fn joined_and_variable_mp3_are_kept_whole() {
    let files = Files::new();
    let first = fs::read(files.tone("a.mp3", 44_100, "mono", &["-c:a", "libmp3lame"])).unwrap();
    let second = fs::read(files.tone("b.mp3", 44_100, "mono", &["-c:a", "libmp3lame", "-b:a", "128k"])).unwrap();
    let joined = files.write("joined.mp3", [first, second].concat());
    let (decoded, _) = decode(&joined).unwrap();
    assert!((decoded.duration - 2.0 * LENGTH).abs() < 0.2, "{}", decoded.duration);

    // Silence first: a length estimated from its small frames would be far too long, and one from loud frames far too
    // short.
    let wave = "lt(t\\,8)*(random(0)-0.5)";
    let output = ["-c:a", "libmp3lame", "-q:a", "2", "-write_xing", "0", "-id3v2_version", "0"];
    let variable = files.wave("v.mp3", wave, 16.0, 44_100, "mono", &output);
    let (decoded, _) = decode(&variable).unwrap();
    assert_eq!(decoded.info.duration, None);
    assert!((decoded.duration - 16.0).abs() < 0.1, "{}", decoded.duration);
}

#[test]
fn chained_ogg_is_read_to_its_end() {
    let files = Files::new();
    let first = fs::read(files.tone("a.ogg", 44_100, "mono", &["-c:a", "libvorbis"])).unwrap();
    let second =
        fs::read(files.tone("b.ogg", 48_000, "stereo", &["-c:a", "libvorbis", "-serial_offset", "7"])).unwrap();
    let (decoded, samples) = decode(&files.write("chain.ogg", [first, second].concat())).unwrap();
    assert!((decoded.duration - 2.0 * LENGTH).abs() < 0.1, "{}", decoded.duration);
    assert!(share(&samples, 440.0) > 0.95);
}

#[test]
fn frequencies_above_8_khz_are_removed() {
    let files = Files::new();
    let path = files.wave("high.wav", "0.5*sin(24000*PI*t)", 1.0, 44_100, "stereo", &[]);
    let (_, samples) = decode(&path).unwrap();
    assert!(rms(&samples[800..15_200]) < 0.001, "{}", rms(&samples[800..15_200]));
}

#[test]
fn silence_is_accepted() {
    let files = Files::new();
    let path = files.wave("silence.flac", "0", 2.0, 44_100, "stereo", &[]);
    let (decoded, samples) = decode(&path).unwrap();
    assert_eq!(samples.len(), 32_000);
    assert!(samples.iter().all(|&sample| sample == 0));
    assert!(decoded.waveform.peaks.iter().all(|&peak| peak == 0));
}

#[test]
fn file_names_and_other_files_do_not_matter() {
    let files = Files::new();
    let flac = files.tone("a.flac", 44_100, "mono", &[]);
    let wma = files.tone("a.wma", 44_100, "mono", &["-c:a", "wmav2"]);
    for (from, name, format) in [
        (&flac, "lie.mp3", "flac"),
        (&flac, "-i", "flac"),
        (&wma, "-version", "wma"),
        (&wma, "concat:a|b.m3u8", "wma"),
        (&wma, "%d.wav", "wma"),
        (&wma, "no extension, ümläuts & spaces", "wma"),
    ] {
        let path = files.path(name);
        fs::copy(from, &path).unwrap();
        let (decoded, _) = decode(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(decoded.info.format, format, "{name}");
    }
}

#[test]
fn files_that_are_no_recordings_are_refused() {
    let files = Files::new();
    let mut random = 1_u64;
    let mut noise = |length: usize| -> Vec<u8> {
        let step = |_| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as u8
        };
        (0..length).map(step).collect()
    };
    let png = files.path("a.png");
    ffmpeg(&["-f", "lavfi", "-i", "testsrc=size=64x48:duration=1", "-frames:v", "1", text(&png)]);
    let mut cases = vec![
        (files.write("empty.wav", ""), "empty_file", ""),
        (png, "unreadable", "PNG"),
        (files.write("a.txt", "Just some words.\n".repeat(100)), "unreadable", "text"),
        (files.write("lie.mp3", "Just some words."), "unreadable", "text"),
        (files.write("a.pdf", b"%PDF-1.7\n\x00\x01\x02"), "unreadable", "PDF"),
        (files.write("one", [0]), "unreadable", ""),
        (files.write("zeros", vec![0; 100_000]), "unreadable", ""),
        (files.write("riff", b"RIFF\x04\0\0\0WAVE"), "unreadable", "WAV"),
        (files.write("id3", b"ID3\x03\0\0\0\0\0\0"), "unreadable", "MP3"),
        (files.write("mark", b"OggS"), "unreadable", "Ogg"),
    ];
    for i in 0..8 {
        cases.push((files.write(&format!("noise{i}"), noise(20_000 << i)), "unreadable", ""));
    }
    let mut mp3 = b"\xff\xfb\x90\x64".to_vec();
    mp3.extend(noise(200_000));
    cases.push((files.write("noise.mp3", mp3), "unreadable", "MP3"));
    for (path, code, word) in cases {
        for error in [probe(&path, &LIMITS).unwrap_err(), decode(&path).unwrap_err()] {
            assert_eq!(error.code(), code, "{}: {error}", path.display());
            let message = error.to_string();
            assert!(message.contains(word), "{}: {message}", path.display());
            assert!(!message.contains(text(files.0.path())), "no server path: {message}");
        }
    }
    assert_eq!(probe(&files.path("missing"), &LIMITS).unwrap_err().code(), "io");
    assert_eq!(probe(files.0.path(), &LIMITS).unwrap_err().code(), "io");
}

/// Playlists that would make ffmpeg open another recording, as text and disguised.
#[test]
fn no_file_reads_another() {
    let files = Files::new();
    let secret = files.tone("secret.wav", 44_100, "mono", &[]);
    let secret = text(&secret);
    let hls = format!("#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:3.0,\nfile://{secret}\n#EXT-X-ENDLIST\n");
    let concat = format!("ffconcat version 1.0\nfile '{secret}'\n");
    let dash = format!(
        "<?xml version=\"1.0\"?><MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\" type=\"static\"><Period><AdaptationSet \
         mimeType=\"audio/wav\"><Representation id=\"0\" bandwidth=\"1\"><BaseURL>file://{secret}</BaseURL>\
         </Representation></AdaptationSet></Period></MPD>"
    );
    let sdp = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n".to_owned();
    for (name, playlist) in [("hls.m3u8", hls), ("list.ffconcat", concat), ("a.mpd", dash), ("a.sdp", sdp)] {
        // With a zero byte the file isn't recognised as text.
        for (name, bytes) in [(name.to_owned(), playlist.clone()), (format!("binary-{name}"), playlist + "#\0\0")] {
            let path = files.write(&name, bytes);
            for error in [probe(&path, &LIMITS).unwrap_err(), decode(&path).unwrap_err()] {
                assert_eq!(error.code(), "unreadable", "{name}: {error}");
            }
        }
    }
}

#[test]
fn what_a_cut_off_recording_holds_is_heard() {
    let files = Files::new();
    let wave = "0.4*(1+0.5*sin(2*PI*t))*sin(880*PI*t)";
    for (name, output, says) in [
        ("a.wav", &["-c:a", "pcm_s16le"][..], "says 0:20; it ends at 0:10"),
        ("ima.wav", &["-c:a", "adpcm_ima_wav"], "says 0:20; it ends at 0:10"),
        ("a.aiff", &[], "says 0:20; it ends at 0:10"),
        ("a.flac", &[], "says 0:20"),
        ("a.mp3", &["-c:a", "libmp3lame"], "says 0:20; it ends at 0:10"),
        ("fast.m4a", &["-c:a", "aac", "-movflags", "faststart"], "says 0:20"),
        ("a.mka", &["-c:a", "libopus", "-f", "matroska"], "says 0:20"),
        ("a.webm", &["-c:a", "libopus"], "says 0:20"),
        ("a.ogg", &["-c:a", "libvorbis"], "its end is missing"),
        ("a.opus", &["-c:a", "libopus"], "its end is missing"),
        ("a.wv", &["-c:a", "wavpack"], "says 0:20"),
        ("a.wma", &["-c:a", "wmav2"], "says 0:20; it ends at 0:10"),
    ] {
        let rate = if output.contains(&"libopus") { 48_000 } else { 44_100 };
        let path = files.wave(name, wave, 20.0, rate, "mono", output);
        let whole = fs::read(&path).unwrap();
        let (decoded, _) = decode(&path).unwrap_or_else(|error| panic!("{name}, whole: {error}"));
        assert_eq!(decoded.remarks, [], "{name}, whole");
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        probe(&path, &LIMITS).unwrap_or_else(|error| panic!("probe {name}: {error}"));
        let (decoded, samples) = decode(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!((decoded.duration - 10.0).abs() < 2.5, "{name}: {}", decoded.duration);
        assert!(share(&samples, 440.0) > 0.95, "{name}");
        let messages = messages(&decoded);
        assert!(messages.contains(says), "{name}: {messages}");

        // Players tolerate a few missing frames, and nobody need know.
        fs::write(&path, &whole[..whole.len() - whole.len() / 50]).unwrap();
        let (decoded, _) = decode(&path).unwrap_or_else(|error| panic!("{name}, nearly whole: {error}"));
        assert!((decoded.duration - 20.0).abs() < 1.05, "{name}: {}", decoded.duration);
        if !matches!(name, "a.ogg" | "a.opus") {
            assert_eq!(decoded.remarks, [], "{name}, nearly whole");
        }
    }

    // Without the index at its end, nothing of it can be heard.
    let path = files.wave("late.m4a", wave, 20.0, 44_100, "mono", &["-c:a", "aac"]);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    for error in [probe(&path, &LIMITS).unwrap_err(), decode(&path).unwrap_err()] {
        assert_eq!(error.code(), "truncated", "{error}");
        assert!(
            error.to_string().starts_with("The file's index (moov) is missing: the recording was cut off"),
            "{error}"
        );
    }
}

/// Of a long recording, a small part is many seconds.
#[test]
fn a_small_part_that_a_long_recording_lacks_is_missed() {
    let files = Files::new();
    for (name, output) in [
        ("a.wav", &["-c:a", "pcm_s16le"][..]),
        ("a.aiff", &[]),
        ("a.flac", &[]),
        ("a.mp3", &["-c:a", "libmp3lame", "-b:a", "32k"]),
        ("fast.m4a", &["-c:a", "alac", "-movflags", "faststart"]),
        ("a.mka", &["-c:a", "flac"]),
        ("a.wv", &["-c:a", "wavpack"]),
        ("a.tta", &["-c:a", "tta"]),
    ] {
        let path = files.wave(name, "0.4*sin(880*PI*t)", 600.0, 8_000, "mono", output);
        let whole = fs::read(&path).unwrap();
        let (decoded, _) = decode(&path).unwrap_or_else(|error| panic!("{name}, whole: {error}"));
        assert_eq!(decoded.remarks, [], "{name}, whole");
        // Seven seconds of ten minutes.
        fs::write(&path, &whole[..whole.len() - whole.len() * 7 / 600]).unwrap();
        let (decoded, _) = decode(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!((decoded.duration - 593.0).abs() < 2.0, "{name}: {}", decoded.duration);
        assert!(messages(&decoded).contains("says 10:00; it ends at 9:5"), "{name}: {}", messages(&decoded));
    }
}

#[test]
fn recordings_over_the_limit_are_refused() {
    let files = Files::new();
    let limits = Limits { max_duration: 2.0 };
    for (name, output, at_once) in [
        ("a.wav", &[][..], true),
        ("a.m4a", &["-c:a", "aac"], true),
        ("bare.mp3", &["-c:a", "libmp3lame", "-write_xing", "0"], false),
        ("a.wma", &["-c:a", "wmav2"], true),
        ("a.ac3", &["-c:a", "ac3"], false),
    ] {
        let path = files.tone(name, 48_000, "mono", output);
        assert_eq!(probe(&path, &limits).err().map(|error| error.code()), at_once.then_some("too_long"), "{name}");
        let error = decode_within(&path, &limits).unwrap_err();
        assert_eq!(error.code(), "too_long", "{name}: {error}");
        let message = error.to_string();
        assert!(message.contains("0:00:03") && message.contains("0:00:02"), "{name}: {message}");
    }
    let path = files.tone("exact.wav", 16_000, "mono", &[]);
    assert!(decode_within(&path, &Limits { max_duration: LENGTH }).is_ok());
}

#[test]
fn recordings_without_samples_are_refused() {
    let files = Files::new();
    let path = files.path("none.wav");
    run("sox", &["-n", "-r", "16000", "-c", "1", "-b", "16", text(&path), "trim", "0", "0"]);
    assert_eq!(fs::metadata(&path).unwrap().len(), 44);
    for error in [probe(&path, &LIMITS).unwrap_err(), decode(&path).unwrap_err()] {
        assert_eq!(error.code(), "no_samples", "{error}");
    }
}

#[test]
fn wav_with_placeholder_lengths_is_decoded() {
    let files = Files::new();
    let tone = files.tone("a.wav", 44_100, "stereo", &[]);
    let piped = files.write("ffmpeg.wav", ffmpeg(&["-i", text(&tone), "-f", "wav", "-"]));
    assert_eq!(&fs::read(&piped).unwrap()[4..8], [0xff; 4], "ffmpeg leaves the length open");
    let sox = files.write("sox.wav", run("sox", &[text(&tone), "-t", "wav", "-"]));
    let mut zero = fs::read(&sox).unwrap();
    zero[4..8].fill(0);
    zero[40..44].fill(0);
    let zero = files.write("zero.wav", zero);
    for path in [piped, sox, zero] {
        probe(&path, &LIMITS).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let (decoded, samples) = decode(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!((decoded.duration - LENGTH).abs() < 0.01, "{}: {}", path.display(), decoded.duration);
        assert!(share(&samples, 440.0) > 0.95, "{}", path.display());
    }

    // RF64, for files over 4 GiB or that may become so.
    let rf64 = files.path("rf64.wav");
    ffmpeg(&["-i", text(&tone), "-rf64", "always", text(&rf64)]);
    assert_eq!(&fs::read(&rf64).unwrap()[..4], b"RF64");
    let (decoded, _) = decode(&rf64).unwrap();
    assert!((decoded.duration - LENGTH).abs() < 0.01, "{}", decoded.duration);
}

#[test]
fn damage_in_the_middle_becomes_silence() {
    let files = Files::new();
    for (name, output) in [
        ("a.wav", &[][..]),
        ("a.flac", &[]),
        ("a.mp3", &["-c:a", "libmp3lame"]),
        ("a.aac", &["-c:a", "aac"]),
        ("a.m4a", &["-c:a", "aac", "-movflags", "faststart"]),
        ("a.ogg", &["-c:a", "libvorbis"]),
        ("a.opus", &["-c:a", "libopus"]),
        ("a.webm", &["-c:a", "libopus"]),
    ] {
        let path = files.wave(name, "0.4*sin(880*PI*t)", 20.0, 48_000, "mono", output);
        let mut bytes = fs::read(&path).unwrap();
        let (from, to) = (bytes.len() / 2, bytes.len() / 2 + bytes.len() / 50);
        for (i, byte) in bytes[from..to].iter_mut().enumerate() {
            *byte = (i * 151 + i / 7) as u8;
        }
        fs::write(&path, &bytes).unwrap();
        let (decoded, samples) = decode(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!((decoded.duration - 20.0).abs() < 1.05, "{name}: {}", decoded.duration);
        // What follows the damage has the right time and pitch.
        let after = &samples[samples.len() - 5 * 16_000..samples.len() - 16_000];
        assert!(share(after, 440.0) > 0.95, "{name}: {}", share(after, 440.0));
    }
}

#[test]
fn what_a_mostly_damaged_recording_holds_is_heard() {
    let files = Files::new();
    for (name, output) in [("a.flac", &[][..]), ("a.mp3", &["-c:a", "libmp3lame"]), ("a.ogg", &["-c:a", "libvorbis"])] {
        let path = files.wave(name, "0.4*sin(880*PI*t)", 20.0, 44_100, "mono", output);
        let mut bytes = fs::read(&path).unwrap();
        let from = bytes.len() / 5;
        for (i, byte) in bytes[from..].iter_mut().enumerate() {
            *byte = ((i * i) >> 3) as u8 & 0x7f;
        }
        fs::write(&path, &bytes).unwrap();
        let (decoded, samples) = decode(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!((2.0..21.0).contains(&decoded.duration), "{name}: {}", decoded.duration);
        assert!(share(&samples[..32_000], 440.0) > 0.95, "{name}");
        let messages = messages(&decoded);
        assert!(messages.contains("says 0:20") || messages.contains("missing"), "{name}: {messages}");
    }
}

/// Counts the processes that read `path`.
fn readers(path: &Path) -> usize {
    let reads = |entry: &fs::DirEntry| fs::read_link(entry.path().join("fd/0")).is_ok_and(|input| input == path);
    fs::read_dir("/proc").unwrap().filter(|entry| entry.as_ref().is_ok_and(reads)).count()
}

/// Waits until no process reads `path`.
fn wait_until_gone(path: &Path) -> bool {
    (0..600).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        readers(path) == 0
    })
}

#[test]
fn a_decoder_ends_when_it_is_no_longer_wanted() {
    let files = Files::new();
    for (name, output) in [("a.wav", &[][..]), ("a.wma", &["-c:a", "wmav2"])] {
        let path = files.wave(name, "0.4*sin(880*PI*t)", 60.0, 44_100, "mono", output);
        let begun = |decoders: &Decoders| -> Decoding {
            block_on(async {
                let mut decoding = decoders.decode(&path, LIMITS, Selection::default()).await.unwrap();
                for _ in 0..3 {
                    assert_eq!(decoding.next().await.unwrap().map(|piece| piece.len()), Some(8_000), "{name}");
                }
                decoding
            })
        };
        let one = decoders_with(&["--decoders", "1"]);
        let decoding = begun(&one);
        assert_eq!(readers(&path), 1, "{name}");
        drop(decoding);
        // The permit of the first one is free again.
        drop(begun(&one));
        assert!(wait_until_gone(&path), "{name}: a decoder goes on");
    }
}

#[test]
fn uploads_do_not_wait_for_ever() {
    let files = Files::new();
    let path = files.tone("a.wav", 16_000, "mono", &[]);
    let none = decoders_with(&["--decoders", "1", "--probe-wait-secs", "0", "--probe-secs", "60"]);
    let results =
        block_on(async { futures::future::join_all((0..8).map(|_| none.probe(&path, LIMITS, anybody()))).await });
    let busy = |result: &&Result<_, ProbeError>| matches!(result, Err(ProbeError::Busy { retry_secs: 60 }));
    assert!(results.iter().filter(busy).count() >= 1);
    assert!(results.iter().filter(|result| result.is_ok()).count() >= 1);
    assert!(block_on(none.probe(&path, LIMITS, anybody())).is_ok());
}

/// A recording may take over its decoder, which can then write anything and do anything.
#[test]
fn output_of_a_decoder_is_validated() {
    let files = Files::new();
    let path = files.tone("a.wav", 16_000, "mono", &[]);
    let frame = |tag: &str, body: &str| {
        let length: String = (body.len() as u32).to_le_bytes().iter().map(|byte| format!("\\{byte:03o}")).collect();
        format!("printf '{tag}{length}%s' '{body}'\n")
    };
    let info = r#"{"format":"wav","codec":"x","sample_rate":8000,"channels":1,"tracks":1,"duration":null}"#;
    let opened = frame("m", &format!(r#"{{"opened":{info}}}"#));
    let samples = "printf 's\\200\\076\\0\\0'; head -c 16000 /dev/zero\n";
    let refused = frame("m", r#"{"refused":{"no_audio_track":{"format":"<b>x</b>"}}}"#);
    let cases = [
        ("silent", "exec sleep 60\n".to_owned(), "busy", ""),
        ("spins", "while :; do :; done\n".to_owned(), "unreadable", "memory or time"),
        ("dies", "kill -SEGV $$\n".to_owned(), "unreadable", "broke down"),
        ("out of memory", "kill -KILL $$\n".to_owned(), "unreadable", "memory or time"),
        ("exits", "exit 3\n".to_owned(), "unreadable", "broke down"),
        ("nonsense", "exec head -c 100000 /dev/zero\n".to_owned(), "unreadable", "broke down"),
        (
            "a huge message",
            "printf 'm\\377\\377\\377\\177'; exec head -c 100000 /dev/zero\n".to_owned(),
            "unreadable",
            "broke",
        ),
        ("no JSON", frame("m", "{"), "unreadable", "broke down"),
        ("a name with markup", refused, "no_audio_track", "This bx/b file"),
        ("sounds for ever", format!("{opened}while :; do {samples}done\n"), "too_long", "at least"),
        ("no end", format!("{opened}{samples}exit 0\n"), "unreadable", "broke down"),
    ];
    let config = Flags::parse_from(["hark", "--probe-secs", "2", "--decode-stall-secs", "2"]).config;
    for (name, script, code, words) in cases {
        let program = files.write("decoder", format!("#!/bin/sh\n{script}"));
        fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let decoders = Decoders::new(&config, Some(&program));
        let heard = decode_with(&decoders, &path, &Limits { max_duration: 20.0 }).unwrap_err();
        let said = match block_on(decoders.probe(&path, LIMITS, anybody())) {
            Err(ProbeError::Busy { .. }) => "busy".to_owned(),
            Err(ProbeError::Audio(error)) => error.code().to_owned(),
            // The decoder reports the format before it does the rest.
            Ok(info) => info.format,
        };
        assert!(said == code || (said == "wav" && script.contains("opened")), "{name}: {said}");
        // A worker retries after a decoder that had no processor time.
        assert_eq!(heard.code(), if code == "busy" { "io" } else { code }, "{name}: {heard}");
        assert!(heard.to_string().contains(words), "{name}: {heard}");
        assert!(wait_until_gone(&path), "{name}: a decoder goes on");
    }
}

/// Runs only `child` of this binary, with an environment of its own.
fn run_child(path: &Path, search: &str) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture"]).env("RECORDING", path).env("PATH", search);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// Does nothing in a normal run: other tests start it as a process of its own, with a recording.
#[test]
fn child() {
    let Some(path) = std::env::var_os("RECORDING").map(PathBuf::from) else { return };
    match decode(&path) {
        Ok((decoded, _)) => println!("decoded {:.3} s", decoded.duration),
        Err(error) => println!("{}: {error}", error.code()),
    }
}

#[test]
fn memory_does_not_grow_with_length() {
    let files = Files::new();
    // Twenty minutes, 38 MB once decoded. The file is sparse.
    let path = files.path("long.wav");
    let frames = 1_200 * 8_000_u32;
    let mut header =
        b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data".to_vec();
    header.extend((frames * 2).to_le_bytes());
    fs::write(&path, &header).unwrap();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(44 + u64::from(frames) * 2).unwrap();
    let mp3 = files.path("long.mp3");
    ffmpeg(&["-f", "lavfi", "-i", "anullsrc=r=8000:cl=mono:d=1200", "-c:a", "libmp3lame", "-b:a", "8k", text(&mp3)]);
    for path in [path, mp3] {
        let child = Command::new(env!("CARGO_BIN_EXE_hark"))
            .args(["decoder", "decode", "--max-duration", "inf", "--memory", "33554432", "--cpu-secs", "600"])
            .stdin(fs::File::open(&path).unwrap())
            .output()
            .unwrap();
        assert!(child.status.success(), "{}: {}", path.display(), child.status);
        let seconds = child.stdout.len() as f64 / 2.0 / f64::from(SAMPLE_RATE);
        assert!((seconds - 1_200.0).abs() < 1.0, "{}: {seconds}", path.display());
    }
}

#[test]
fn without_ffmpeg_the_message_says_what_would_help() {
    let files = Files::new();
    let wma = files.tone("a.wma", 44_100, "mono", &["-c:a", "wmav2"]);
    let output = run_child(&wma, "/nonexistent");
    assert!(output.contains("unreadable: ") && output.contains("Windows Media"), "{output}");
    assert!(output.contains("installing ffmpeg"), "{output}");
    let flac = files.tone("a.flac", 44_100, "mono", &[]);
    assert!(run_child(&flac, "/nonexistent").contains("decoded 3.000 s"));
}

#[test]
fn errors_contain_the_facts() {
    let error = AudioError::Unreadable { recognised: None, problem: Problem::Unsupported, ffmpeg: true };
    assert_eq!(error.code(), "unreadable");
    assert!(!error.to_string().contains("installing ffmpeg"));
}

#[test]
fn random_bytes_cause_no_panic() {
    let files = Files::new();
    let seeds: Vec<Vec<u8>> = [
        ("a.wav", &["-c:a", "pcm_s16le"][..]),
        ("ima.wav", &["-c:a", "adpcm_ima_wav"]),
        ("a.aiff", &[]),
        ("a.flac", &[]),
        ("a.mp3", &["-c:a", "libmp3lame"]),
        ("a.aac", &["-c:a", "aac"]),
        ("a.m4a", &["-c:a", "aac"]),
        ("alac.m4a", &["-c:a", "alac"]),
        ("a.ogg", &["-c:a", "libvorbis"]),
        ("a.opus", &["-c:a", "libopus"]),
        ("a.webm", &["-c:a", "libopus"]),
        ("b.mka", &["-c:a", "libvorbis", "-f", "matroska"]),
        ("a.caf", &["-c:a", "pcm_s16be"]),
    ]
    .iter()
    .map(|(name, output)| fs::read(files.wave(name, "0.4*sin(880*PI*t)", 0.3, 48_000, "stereo", output)).unwrap())
    .collect();
    let path = files.path("mutated");
    let cases = std::env::var("DECODE_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(96);
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..24);
    let strategy = (0..seeds.len(), changes, prop::option::weighted(0.2, any::<prop::sample::Index>()));
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    runner
        .run(&strategy, |(seed, changes, cut)| {
            let mut bytes = seeds[seed].clone();
            for (at, value, early) in changes {
                // Half of the changes are in the headers, where they have most effect.
                let range = if early { bytes.len().min(256) } else { bytes.len() };
                let at = at.index(range);
                bytes[at] = value;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            fs::write(&path, &bytes).unwrap();
            let limits = Limits { max_duration: 30.0 };
            let _ = probe(&path, &limits);
            match decode_within(&path, &limits) {
                Ok((decoded, _)) => prop_assert!(decoded.duration <= 30.0),
                Err(error) => prop_assert!(!error.to_string().is_empty()),
            }
            Ok(())
        })
        .unwrap();
}
