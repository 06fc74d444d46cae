//! Recordings as people send them: joined, cut, late, with gaps, with several tracks, with channels that cancel each
//! other, too quiet, in formats that only ffmpeg reads. Each is heard whole, at the right times, and what was unusual
//! about it is said. The files are made during the tests.

#![expect(clippy::unwrap_used, reason = "a test that fails is the message")]

#[path = "support/audio.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by test binaries")]
mod audio;

use audio::*;
use hark::model::Track;
use hark::server::audio::{ChannelSelection, Limits, SAMPLE_RATE, Selection};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A tone of two seconds at this frequency.
fn tone(files: &Files, name: &str, frequency: u32, rate: u32, layout: &str, output: &[&str]) -> PathBuf {
    files.wave(name, &format!("0.4*sin({}*PI*t)", 2 * frequency), 2.0, rate, layout, output)
}

/// The samples between two times in seconds.
fn between(samples: &[i16], from: f64, to: f64) -> &[i16] {
    let at = |seconds: f64| ((seconds * f64::from(SAMPLE_RATE)) as usize).min(samples.len());
    &samples[at(from)..at(to)]
}

/// Decodes a recording of which nothing is to be said.
fn decode_plain(path: &Path) -> (f64, Vec<i16>) {
    let (decoded, samples) = decode(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(messages(&decoded), "", "{}", path.display());
    (decoded.duration, samples)
}

fn assert_tone(samples: &[i16], frequency: f64, what: &str) {
    assert!(samples.len() > 8_000, "{what}: {} samples", samples.len());
    let found = share(samples, frequency);
    assert!(found > 0.9, "{what}: {found} at {frequency} Hz");
}

fn assert_silent(samples: &[i16], what: &str) {
    assert!(!samples.is_empty() && samples.iter().all(|sample| sample.unsigned_abs() < 40), "{what}: not silent");
}

#[test]
fn tags_and_covers_do_not_count_as_sound() {
    let files = Files::new();
    for name in ["a.mp3", "a.aac"] {
        let sound = fs::read(tone(&files, name, 440, 44_100, "mono", &["-b:a", "24k", "-id3v2_version", "0"])).unwrap();
        // A picture with the marks of frames in it.
        let picture: Vec<u8> =
            (0..110_000_u32).map(|i| if i % 97 == 0 { 0xff } else { (i.wrapping_mul(i) >> 5) as u8 }).collect();
        let size = [21, 14, 7, 0].map(|bits| (picture.len() >> bits) as u8 & 0x7f);
        let tag = [b"ID3\x03\0\0".to_vec(), size.to_vec(), picture].concat();
        let last = [b"TAG".to_vec(), vec![b' '; 125]].concat();
        let path = files.write(name, [tag, sound, last].concat());
        let (duration, samples) = decode_plain(&path);
        assert!((duration - 2.0).abs() < 0.1, "{name}: {duration}");
        assert_tone(&samples, 440.0, name);
    }
}

#[test]
fn joined_recordings_of_different_rates_and_channels_are_heard_to_the_end() {
    let files = Files::new();
    let bare = ["-write_xing", "0", "-id3v2_version", "0"];
    let fragments =
        ["-c:a", "aac", "-movflags", "frag_keyframe+empty_moov+default_base_moof", "-frag_duration", "200000"];
    for (extension, output) in [
        ("mp3", &[][..]),
        ("mp3", &bare),
        ("aac", &[]),
        ("flac", &[]),
        ("ogg", &["-c:a", "libvorbis"]),
        ("wav", &[]),
        ("aiff", &[]),
        ("caf", &["-c:a", "pcm_s16be"]),
        ("m4a", &["-c:a", "aac"]),
        ("m4a", &["-c:a", "aac", "-movflags", "faststart"]),
        ("mp4", &fragments),
    ] {
        for (rates, layouts) in [
            ([44_100, 44_100], ["mono", "stereo"]),
            ([48_000, 48_000], ["stereo", "mono"]),
            ([22_050, 44_100], ["mono", "mono"]),
        ] {
            let what = format!("{extension} {output:?} {rates:?} {layouts:?}");
            let first = tone(&files, &format!("a.{extension}"), 440, rates[0], layouts[0], output);
            let more = [output, if extension == "ogg" { &["-serial_offset", "7"] } else { &[][..] }].concat();
            let second = tone(&files, &format!("b.{extension}"), 1_000, rates[1], layouts[1], &more);
            let joined = [fs::read(first).unwrap(), fs::read(second).unwrap()].concat();
            let (duration, samples) = decode_plain(&files.write(&format!("joined.{extension}"), joined));
            assert!((duration - 4.0).abs() < 0.3, "{what}: {duration}");
            assert_tone(between(&samples, 0.2, 1.8), 440.0, &what);
            assert_tone(between(&samples, duration - 1.8, duration - 0.2), 1_000.0, &what);
        }
    }
}

#[test]
fn a_joined_file_that_cannot_be_heard_is_missed() {
    let files = Files::new();
    let says = "After 0:02 another recording follows in the file, which could not be heard.";
    // ffmpeg hears the first one only.
    for (name, rate, output) in [
        ("a.wma", 44_100, &["-c:a", "wmav2"][..]),
        ("a.wv", 44_100, &["-c:a", "wavpack"]),
        ("a.w64", 44_100, &["-c:a", "pcm_s16le"]),
        ("a.flv", 44_100, &["-c:a", "libmp3lame"]),
        ("ac3.m4a", 48_000, &["-c:a", "ac3"]),
        ("gsm.wav", 8_000, &["-c:a", "gsm_ms"]),
    ] {
        let whole = fs::read(tone(&files, name, 440, rate, "mono", output)).unwrap();
        let (decoded, _) = decode(&files.write(name, whole.repeat(2))).unwrap();
        assert!((decoded.duration - 2.0).abs() < 0.2, "{name}: {}", decoded.duration);
        assert!(messages(&decoded).contains(says), "{name}: {}", messages(&decoded));
    }
    // The second one has lost its index.
    let whole = fs::read(tone(&files, "a.m4a", 440, 44_100, "mono", &["-c:a", "aac"])).unwrap();
    let cut = &whole[..whole.len() / 2];
    let (decoded, samples) = decode(&files.write("cut.m4a", [&whole, cut].concat())).unwrap();
    assert!((decoded.duration - 2.0).abs() < 0.1, "{}", decoded.duration);
    assert_tone(&samples, 440.0, "the first");
    assert!(messages(&decoded).contains(says), "{}", messages(&decoded));
    // The second one lacks its end.
    let whole = fs::read(files.wave("a.wav", "0.4*sin(880*PI*t)", 4.0, 16_000, "mono", &[])).unwrap();
    let (decoded, _) = decode(&files.write("cut.wav", [&whole, &whole[..whole.len() / 2]].concat())).unwrap();
    assert!((decoded.duration - 6.0).abs() < 0.1, "{}", decoded.duration);
    assert!(messages(&decoded).contains("The file says 0:08; it ends at 0:06"), "{}", messages(&decoded));
}

#[test]
fn a_short_jingle_does_not_spoil_the_talk_after_it() {
    let files = Files::new();
    let bare = ["-write_xing", "0", "-id3v2_version", "0"];
    let jingle = files.wave("jingle.mp3", "0.4*sin(2000*PI*t)", 0.4, 44_100, "stereo", &bare);
    let talk = tone(&files, "talk.mp3", 440, 44_100, "mono", &bare);
    let joined = files.write("joined.mp3", [fs::read(jingle).unwrap(), fs::read(talk).unwrap()].concat());
    let (duration, samples) = decode_plain(&joined);
    assert!((duration - 2.4).abs() < 0.25, "{duration}");
    assert_tone(between(&samples, 0.7, duration - 0.1), 440.0, "the talk");
}

#[test]
fn an_old_count_of_frames_is_a_remark() {
    let files = Files::new();
    let path = tone(&files, "a.mp3", 440, 44_100, "mono", &["-c:a", "libmp3lame"]);
    let bare = ["-c:a", "libmp3lame", "-write_xing", "0", "-id3v2_version", "0"];
    let more = files.wave("b.mp3", "0.4*sin(880*PI*t)", 4.0, 44_100, "mono", &bare);
    let (decoded, samples) =
        decode(&files.write("c.mp3", [fs::read(path).unwrap(), fs::read(more).unwrap()].concat())).unwrap();
    assert!((decoded.duration - 6.0).abs() < 0.2, "{}", decoded.duration);
    assert!(messages(&decoded).contains("says 0:02; it ends at 0:06"), "{}", messages(&decoded));
    assert_tone(between(&samples, 4.0, 5.9), 440.0, "the rest");
}

#[test]
fn joined_webm_and_several_segments_are_heard_to_the_end() {
    let files = Files::new();
    for (name, output) in [("whole", &[][..]), ("live", &["-live", "1"])] {
        let output = [output, &["-c:a", "libopus", "-f", "webm"]].concat();
        let first = fs::read(tone(&files, "a.webm", 440, 48_000, "mono", &output)).unwrap();
        let second = fs::read(tone(&files, "b.webm", 1_000, 48_000, "stereo", &output)).unwrap();
        // The second segment, also without the head of its file.
        let head = 5 + usize::from(second[4] & 0x7f);
        let long_head = 12 + usize::from(second[11]);
        let head = if second[4] == 1 { long_head } else { head };
        for second in [&second[..], &second[head..]] {
            let joined = [&first[..], second].concat();
            let (decoded, samples) = decode(&files.write("joined.webm", joined)).unwrap();
            assert!((decoded.duration - 4.0).abs() < 0.2, "{name}: {}", decoded.duration);
            assert_tone(between(&samples, 0.2, 1.8), 440.0, name);
            assert_tone(between(&samples, 2.2, 3.8), 1_000.0, name);
        }
    }
}

/// Two seconds of a tone, of which the second begins so many seconds later.
fn with_gap(files: &Files, name: &str, gap: f64, output: &[&str]) -> PathBuf {
    let path = files.path(name);
    let source = format!("sine=frequency=440:duration=2:sample_rate=48000,asetpts='PTS+if(gt(T,1),{gap}/TB,0)'");
    ffmpeg(&[&["-f", "lavfi", "-i", &source], output, &[text(&path)]].concat());
    path
}

#[test]
fn gaps_of_any_length_are_silence() {
    let files = Files::new();
    let fragments =
        ["-c:a", "aac", "-movflags", "frag_keyframe+empty_moov+default_base_moof", "-frag_duration", "200000"];
    for (name, output) in [
        ("a.webm", &["-c:a", "libopus"][..]),
        ("a.mka", &["-c:a", "flac"]),
        ("a.mp4", &fragments),
        ("ac3.mka", &["-c:a", "ac3"]),
        ("a.wma", &["-c:a", "wmav2"]),
        ("a.ts", &["-c:a", "aac"]),
    ] {
        for gap in [0.7, 31.0, 300.0] {
            let (duration, samples) = decode_plain(&with_gap(&files, name, gap, output));
            assert!((duration - 2.0 - gap).abs() < 0.3, "{name}: {duration} with {gap}");
            assert_tone(between(&samples, 0.1, 0.9), 440.0, name);
            assert_silent(between(&samples, 1.2, 0.9 + gap), name);
            assert_tone(between(&samples, 1.2 + gap, 1.9 + gap), 440.0, name);
        }
    }
}

#[test]
fn a_long_gap_takes_no_memory_and_counts() {
    let files = Files::new();
    let path = with_gap(&files, "a.webm", 5_000.0, &["-c:a", "libopus"]);
    let child = Command::new(env!("CARGO_BIN_EXE_hark"))
        .args(["decoder", "decode", "--max-duration", "10000", "--memory", "50331648", "--cpu-secs", "600"])
        .stdin(fs::File::open(&path).unwrap())
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", child.status);
    let seconds = child.stdout.len() as f64 / 2.0 / f64::from(SAMPLE_RATE);
    assert!((seconds - 5_002.0).abs() < 2.0, "{seconds}");
    let error = decode_within(&path, &Limits { max_duration: 4_000.0 }).unwrap_err();
    assert_eq!(error.code(), "too_long", "{error}");
}

#[test]
fn a_gap_of_hours_is_silence_through_ffmpeg_too() {
    let files = Files::new();
    // Less memory than the samples of the gap would take.
    let few = decoders_with(&["--probe-secs", "60", "--probe-wait-secs", "60", "--decode-memory-bytes", "134217728"]);
    for (name, output) in [("a.mka", &["-c:a", "ac3"]), ("a.wma", &["-c:a", "wmav2"])] {
        let path = with_gap(&files, name, 4_500.0, output);
        let (duration, heard) = block_on(async {
            let mut decoding =
                few.decode(&path, Limits { max_duration: 10_000.0 }, Selection::default()).await.unwrap();
            let (mut at, mut heard) = (0, Vec::new());
            while let Some(piece) = decoding.next().await.unwrap() {
                heard.extend((at..).zip(&piece).filter(|(_, sample)| sample.unsigned_abs() > 1_000).map(|(at, _)| at));
                at += piece.len();
            }
            let decoded = decoding.finish();
            assert_eq!(messages(&decoded), "", "{name}");
            (decoded.duration, heard)
        });
        assert!((duration - 4_502.0).abs() < 0.3, "{name}: {duration}");
        let seconds: std::collections::BTreeSet<usize> = heard.iter().map(|at| at / SAMPLE_RATE as usize).collect();
        let expected = |second: &usize| matches!(second, 0 | 1 | 4_500..=4_502);
        assert!(heard.len() > 20_000 && seconds.iter().all(expected), "{name}: {seconds:?}");
        let error = decode_with(&few, &path, &Limits { max_duration: 4_000.0 }).unwrap_err();
        assert_eq!(error.code(), "too_long", "{name}: {error}");
    }
}

#[test]
fn a_gap_is_silence_in_a_single_channel_and_in_a_mix_of_tracks() {
    let files = Files::new();
    let gapped = |exprs: &str| format!("aevalsrc=exprs='{exprs}':s=48000:d=2,asetpts='PTS+if(gt(T,1),31/TB,0)'");
    for (name, output) in [("a.mka", &["-c:a", "flac"]), ("ac3.mka", &["-c:a", "ac3"])] {
        // Two speakers, of whom the second answers after the gap.
        let path = files.path(name);
        let source = gapped("if(lt(t,1),0.4*sin(880*PI*t))|if(gte(t,1),0.4*sin(2000*PI*t))");
        ffmpeg(&[&["-f", "lavfi", "-i", &source], &output[..], &[text(&path)]].concat());
        let [first, second] = [0, 1].map(|channel| {
            let only = select(ChannelSelection::Only(channel));
            let (decoded, samples, _) = decode_selected(&decoders(), &path, &LIMITS, only).unwrap();
            assert!((decoded.duration - 33.0).abs() < 0.3, "{name}: {}", decoded.duration);
            samples
        });
        assert_tone(between(&first, 0.1, 0.9), 440.0, name);
        assert_silent(between(&first, 1.2, 32.9), name);
        assert_silent(between(&second, 0.1, 0.9), name);
        assert_silent(between(&second, 1.2, 31.9), name);
        assert_tone(between(&second, 32.2, 32.9), 1_000.0, name);
        // A track with the gap, and one without.
        let path = files.path(&format!("tracks-{name}"));
        let sources = [gapped("0.4*sin(880*PI*t)"), "aevalsrc=exprs='0.4*sin(2000*PI*t)':s=48000:d=33".to_owned()];
        let inputs: Vec<&str> = sources.iter().flat_map(|source| ["-f", "lavfi", "-i", source]).collect();
        ffmpeg(&[&inputs[..], &["-map", "0", "-map", "1"], output, &[text(&path)]].concat());
        let selection = Selection { track: Some(Track::Mix), ..Selection::default() };
        let (decoded, samples, _) = decode_selected(&decoders(), &path, &LIMITS, selection).unwrap();
        assert!((decoded.duration - 33.0).abs() < 0.3, "{name}: {}", decoded.duration);
        assert_tone(between(&samples, 1.2, 31.9), 1_000.0, name);
        for both in [between(&samples, 0.1, 0.9), between(&samples, 32.2, 32.9)] {
            let shares = [share(both, 440.0), share(both, 1_000.0)];
            assert!(shares.iter().all(|share| (0.4..0.6).contains(share)), "{name}: {shares:?}");
        }
    }
}

#[test]
fn sound_that_begins_late_is_heard_when_the_film_plays_it() {
    let files = Files::new();
    let sound = tone(&files, "a.wav", 440, 48_000, "mono", &[]);
    let picture = "testsrc=size=64x48:rate=10:duration=9";
    for (name, codecs) in [
        ("a.mp4", &["-c:v", "mpeg4", "-c:a", "aac"][..]),
        ("a.mov", &["-c:v", "mpeg4", "-c:a", "pcm_s16le"]),
        ("a.webm", &["-c:v", "libvpx", "-c:a", "libopus"]),
        ("a.ts", &["-c:v", "mpeg2video", "-c:a", "aac"]),
        ("mulaw.mov", &["-c:v", "mpeg4", "-ar", "8000", "-c:a", "pcm_mulaw"]),
    ] {
        let path = files.path(name);
        let late = ["-f", "lavfi", "-i", picture, "-itsoffset", "6", "-i", text(&sound)];
        ffmpeg(&[&late[..], codecs, &[text(&path)]].concat());
        let (duration, samples) = decode_plain(&path);
        assert!((duration - 8.0).abs() < 0.1, "{name}: {duration}");
        assert_silent(between(&samples, 0.0, 5.9), name);
        assert_tone(between(&samples, 6.1, 7.9), 440.0, name);
    }
}

#[test]
fn clocks_that_begin_late_are_those_of_the_player() {
    let files = Files::new();
    let path = tone(&files, "hour.webm", 440, 48_000, "mono", &["-c:a", "libopus", "-output_ts_offset", "3600"]);
    let (decoded, samples) = decode_within(&path, &Limits { max_duration: 4_000.0 }).unwrap();
    assert!((decoded.duration - 3_602.0).abs() < 0.2, "{}", decoded.duration);
    assert_tone(between(&samples, 3_600.1, 3_601.9), 440.0, "an hour on");
    // Where a recording of that length isn't allowed, the clock isn't believed.
    let limits = Limits { max_duration: 100.0 };
    let (decoded, samples) = decode_within(&path, &limits).unwrap();
    assert!((decoded.duration - 2.0).abs() < 0.1, "{}", decoded.duration);
    assert!(
        messages(&decoded).contains("begins at 1:00:00") || messages(&decoded).contains("begins at 59:59"),
        "{}",
        messages(&decoded)
    );
    assert_tone(&samples, 440.0, "at once");
    assert!(probe(&path, &limits).unwrap().duration.is_none_or(|duration| duration < 10.0));
}

#[test]
fn edit_lists_are_followed() {
    let files = Files::new();
    // A second of 440 Hz, then 1,000 Hz. Cut without encoding, so that an edit list leaves out the start.
    let whole = files.wave("a.m4a", "0.4*sin(if(lt(t\\,1)\\,880\\,2000)*PI*t)", 3.0, 48_000, "mono", &["-c:a", "aac"]);
    let path = files.path("cut.m4a");
    ffmpeg(&["-ss", "1.01", "-i", text(&whole), "-c", "copy", text(&path)]);
    let theirs = ffmpeg(&["-i", text(&path), "-f", "s16le", "-ac", "1", "-ar", "16000", "-"]).len() as f64 / 32_000.0;
    let (duration, samples) = decode_plain(&path);
    assert!((duration - theirs).abs() < 0.03, "{duration} {theirs}");
    assert_tone(between(&samples, 0.05, 1.5), 1_000.0, "after the cut");
}

/// The boxes of an MP4 file's body, each with its name.
fn boxes(bytes: &[u8]) -> Vec<([u8; 4], Vec<u8>)> {
    let (mut rest, mut found) = (bytes, Vec::new());
    while let Some(head) = rest.get(..8) {
        let length = u32::from_be_bytes(head[..4].try_into().unwrap()) as usize;
        found.push((head[4..8].try_into().unwrap(), rest[8..length].to_vec()));
        rest = &rest[length..];
    }
    found
}

/// Replaces the edit list of the only track of an MP4 file, whose index comes last.
fn with_edits(bytes: &[u8], list: &[u8]) -> Vec<u8> {
    let replaced = boxes(bytes).into_iter().flat_map(|(name, body)| {
        let body = match &name {
            b"moov" | b"trak" | b"edts" => with_edits(&body, list),
            b"elst" => list.to_vec(),
            _ => body,
        };
        [&(body.len() as u32 + 8).to_be_bytes()[..], &name, &body].concat()
    });
    replaced.collect()
}

#[test]
fn edit_lists_of_many_entries_are_followed_to_their_end() {
    let files = Files::new();
    // The frequency changes after the time that a thousand entries take.
    let wave = "0.4*sin(if(lt(t\\,20)\\,880\\,2000)*PI*t)";
    let whole = fs::read(files.wave("a.m4a", wave, 60.0, 48_000, "mono", &["-c:a", "aac"])).unwrap();
    let edited = |entries: u32, milliseconds: u32, start: &dyn Fn(u32) -> u32| {
        let list = (0..entries).flat_map(|i| [milliseconds, 1_024 + start(i), 0x1_0000]);
        let list: Vec<u8> = [0, entries].into_iter().chain(list).flat_map(u32::to_be_bytes).collect();
        files.write("edited.m4a", with_edits(&whole, &list))
    };
    // Pieces that follow each other, and pieces of which each leaves something out.
    for step in [960, 1_920] {
        let (duration, samples) = decode_plain(&edited(1_200, 20, &|i| i * step));
        assert!((duration - 24.0).abs() < 0.2, "{step}: {duration}");
        // Each cut shifts the phase.
        let last = share(between(&samples, 20.2, 23.8), 1_000.0);
        assert!(last > 0.5, "{step}: {last}");
    }
}

#[test]
fn the_default_track_is_heard_unless_it_is_silent() {
    let files = Files::new();
    let inputs = |first: &str, second: &str| -> Vec<String> {
        let source = |wave: &str| format!("aevalsrc=exprs={wave}:s=48000:d=2");
        ["-f", "lavfi", "-i", &source(first), "-f", "lavfi", "-i", &source(second), "-map", "0", "-map", "1"]
            .map(str::to_owned)
            .into()
    };
    let (silence, low, high) = ("0", "0.4*sin(880*PI*t)", "0.4*sin(2000*PI*t)");
    let second_is_default = ["-disposition:a:0", "0", "-disposition:a:1", "default"];
    for (name, tracks, output, frequency, says) in [
        ("a.mp4", [silence, low], &["-c:a", "aac"][..], 440.0, "Track 2 was heard, because track 1 has no sound"),
        ("a.mka", [silence, low], &["-c:a", "libopus"], 440.0, "Track 2 was heard, because track 1 has no sound"),
        ("ac3.mka", [silence, low], &["-c:a", "ac3"], 440.0, "Track 2 was heard, because track 1 has no sound"),
        ("b.mp4", [low, high], &["-c:a", "aac"], 440.0, "has 2 audio tracks. Track 1 was heard."),
        ("b.mka", [low, high], &[&second_is_default[..], &["-c:a", "libopus"]].concat(), 1_000.0, "Track 2 was heard."),
        ("c.mka", [low, high], &[&second_is_default[..], &["-c:a", "ac3"]].concat(), 1_000.0, "Track 2 was heard."),
    ] {
        let path = files.path(name);
        let inputs = inputs(tracks[0], tracks[1]);
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        ffmpeg(&[&inputs[..], output, &[text(&path)]].concat());
        let (decoded, samples) = decode(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_tone(&samples, frequency, name);
        assert!(messages(&decoded).contains(says), "{name}: {}", messages(&decoded));
    }
}

#[test]
fn the_faint_copy_of_the_other_speaker_is_not_heard() {
    let files = Files::new();
    // Two speakers in turns of two seconds, each also on the other's channel, 26 dB softer.
    let side = |own: u32, other: u32, first: bool| {
        let (one, two) = if first { (own, other) } else { (other, own) };
        let loud = |mine: bool| if mine { 0.4 } else { 0.02 };
        format!("if(lt(t,2),{}*sin({}*PI*t),{}*sin({}*PI*t))", loud(first), 2 * one, loud(!first), 2 * two)
    };
    let source = format!("aevalsrc=exprs='{}|{}':s=8000:d=4:c=stereo", side(440, 1_000, true), side(1_000, 440, false));
    for (name, output) in [("a.wav", &[][..]), ("a.wv", &["-c:a", "wavpack"])] {
        let path = files.path(name);
        ffmpeg(&[&["-f", "lavfi", "-i", &source], output, &[text(&path)]].concat());
        let heard = |channels| decode_selected(&decoders(), &path, &LIMITS, select(channels)).unwrap();
        assert!(heard(ChannelSelection::FindSpeakers).2, "{name}");
        let (first, second) = (heard(ChannelSelection::Only(0)).1, heard(ChannelSelection::Only(1)).1);
        assert_tone(between(&first, 0.1, 1.9), 440.0, name);
        assert_silent(between(&first, 2.1, 3.9), name);
        assert_silent(between(&second, 0.1, 1.9), name);
        assert_tone(between(&second, 2.1, 3.9), 1_000.0, name);
    }
}

#[test]
fn a_track_can_be_chosen_and_all_can_be_mixed() {
    let files = Files::new();
    // Three tracks: 440 Hz, 1 kHz a second later, and silence.
    let tracks = ["0.4*sin(880*PI*t)", "if(gt(t,1),0.4*sin(2000*PI*t))", "0"];
    let sources = tracks.map(|wave| format!("aevalsrc=exprs='{wave}':s=48000:d=3"));
    let inputs: Vec<&str> = sources.iter().flat_map(|source| ["-f", "lavfi", "-i", source]).collect();
    let maps = ["-map", "0", "-map", "1", "-map", "2"];
    for (name, output) in
        [("a.mp4", &["-c:a", "aac"][..]), ("a.mka", &["-c:a", "libopus"]), ("ac3.mka", &["-c:a", "ac3"])]
    {
        let path = files.path(name);
        ffmpeg(&[&inputs[..], &maps, output, &[text(&path)]].concat());
        assert_eq!(probe(&path, &LIMITS).unwrap().tracks, 3, "{name}");
        let heard = |track| {
            let selection = Selection { track: Some(track), ..Selection::default() };
            decode_selected(&decoders(), &path, &LIMITS, selection).map(|(decoded, samples, _)| (decoded, samples))
        };
        let (decoded, samples) = heard(Track::Number(1)).unwrap();
        assert_tone(&samples, 440.0, name);
        assert!(messages(&decoded).contains("Track 1 was heard, as chosen"), "{name}: {}", messages(&decoded));
        let (decoded, samples) = heard(Track::Number(2)).unwrap();
        assert_tone(between(&samples, 1.1, 2.9), 1_000.0, name);
        assert!(messages(&decoded).contains("Track 2 was heard, as chosen"), "{name}: {}", messages(&decoded));
        // One that was chosen is heard though it is silent.
        let (decoded, samples) = heard(Track::Number(3)).unwrap();
        assert_silent(&samples, name);
        assert!(messages(&decoded).contains("Track 3 was heard, as chosen"), "{name}: {}", messages(&decoded));
        let (decoded, samples) = heard(Track::Mix).unwrap();
        assert!((decoded.duration - 3.0).abs() < 0.1, "{name}: {}", decoded.duration);
        assert_tone(between(&samples, 0.1, 0.9), 440.0, name);
        let both = between(&samples, 1.1, 2.9);
        let shares = [share(both, 440.0), share(both, 1_000.0)];
        assert!(shares.iter().all(|share| (0.4..0.6).contains(share)), "{name}: {shares:?}");
        assert!(messages(&decoded).contains("3 audio tracks, which were mixed"), "{name}: {}", messages(&decoded));
        let error = heard(Track::Number(4)).unwrap_err();
        assert_eq!(error.code(), "no_such_track", "{error}");
        assert!(error.to_string().contains("from 1 to 3"), "{error}");
        // Only so many are mixed.
        let selection = Selection { track: Some(Track::Mix), ..Selection::default() };
        let few = decoders_with(&["--probe-secs", "60", "--max-mixed-tracks", "2"]);
        let (decoded, ..) = decode_selected(&few, &path, &LIMITS, selection).unwrap();
        assert!(messages(&decoded).contains("The first 2 were mixed"), "{name}: {}", messages(&decoded));
    }
    let mono = tone(&files, "mono.wav", 440, 16_000, "mono", &[]);
    for track in [Track::Mix, Track::Number(1)] {
        let selection = Selection { track: Some(track), ..Selection::default() };
        let (decoded, samples, _) = decode_selected(&decoders(), &mono, &LIMITS, selection).unwrap();
        assert_tone(&samples, 440.0, "a single track");
        assert_eq!(messages(&decoded), "");
    }
}

#[test]
fn tracks_of_different_lengths_are_mixed_to_the_end_of_the_longest() {
    let files = Files::new();
    let path = files.path("a.mka");
    let source = |wave: &str, seconds: u32| format!("aevalsrc=exprs='{wave}':s=48000:d={seconds}");
    let (short, long) = (source("0.4*sin(880*PI*t)", 1), source("0.4*sin(2000*PI*t)", 4));
    let inputs = ["-f", "lavfi", "-i", &short, "-f", "lavfi", "-i", &long, "-map", "0", "-map", "1"];
    ffmpeg(&[&inputs[..], &["-c:a", "flac", text(&path)]].concat());
    let selection = Selection { track: Some(Track::Mix), ..Selection::default() };
    let (decoded, samples, _) = decode_selected(&decoders(), &path, &LIMITS, selection).unwrap();
    assert!((decoded.duration - 4.0).abs() < 0.1, "{}", decoded.duration);
    assert_tone(between(&samples, 1.1, 3.9), 1_000.0, "the longer track");
    assert_eq!(decode_selected(&decoders(), &path, &LIMITS, selection).unwrap().1, samples, "each run is the same");
}

#[test]
fn channels_are_mixed_so_that_they_can_be_heard() {
    let files = Files::new();
    let mono = files.wave("mono.wav", "0.4*sin(880*PI*t)", 3.0, 16_000, "mono", &[]);
    let opposite = files.path("opposite.wav");
    run("sox", &[text(&mono), text(&opposite), "remix", "1", "1i"]);
    let (decoded, samples) = decode(&opposite).unwrap();
    assert!((rms(&samples) - 0.28).abs() < 0.02, "{}", rms(&samples));
    assert!(messages(&decoded).contains("2 channels cancel each other"), "{}", messages(&decoded));
    assert!(decoded.waveform.peaks.iter().any(|peak| *peak > 80));

    let mut channels = vec!["0"; 32];
    channels[6] = "1";
    let desk = files.path("desk.wav");
    run("sox", &[&[text(&mono), text(&desk), "remix"], &channels[..]].concat());
    let (decoded, samples) = decode(&desk).unwrap();
    assert_eq!(decoded.info.channels, 32);
    assert!((rms(&samples) - 0.28).abs() < 0.02, "{}", rms(&samples));
    assert!(messages(&decoded).contains("channel 7 of 32"), "{}", messages(&decoded));
}

/// A file of two channels made of what two voices say, at 8 kHz as of a telephone.
fn telephone(files: &Files, name: &str, channels: [Option<(&str, &str)>; 2], output: &[&str]) -> PathBuf {
    let side = |n: usize| {
        let path = files.path(&format!("side{n}.wav"));
        match channels[n] {
            Some((voice, words)) => run("flite", &["-voice", voice, "-t", words, "-o", text(&path)]),
            None => run("sox", &["-n", "-r", "16000", "-c", "1", text(&path), "trim", "0", "4"]),
        };
        path
    };
    let (left, right, path) = (side(0), side(1), files.path(name));
    let joined = files.path("joined.wav");
    run("sox", &["-M", text(&left), text(&right), "-r", "8000", text(&joined)]);
    ffmpeg(&[&["-i", text(&joined)], output, &[text(&path)]].concat());
    path
}

fn select(channels: ChannelSelection) -> Selection {
    Selection { channels, ..Selection::default() }
}

#[test]
fn two_speakers_on_two_channels_are_heard_apart() {
    let files = Files::new();
    let one = Some(("rms", "Good morning, this is the library. How can I help you today? We are open until six."));
    let two = Some(("slt", "Hello, I would like to know whether the book that I have ordered is there."));
    for (name, output) in [
        ("a.wav", &[][..]),
        ("mulaw.wav", &["-c:a", "pcm_mulaw"]),
        ("a.mp3", &["-b:a", "32k"]),
        // By ffmpeg.
        ("a.wv", &["-c:a", "wavpack"]),
    ] {
        // Both talk all the time, which is the hardest case.
        let path = telephone(&files, name, [one, two], output);
        let (decoded, _, is_apart) =
            decode_selected(&decoders(), &path, &LIMITS, select(ChannelSelection::FindSpeakers)).unwrap();
        assert!(is_apart && messages(&decoded).is_empty(), "{name}: {}", messages(&decoded));
        let sides = [0, 1].map(|channel| {
            let only = select(ChannelSelection::Only(channel));
            let (side, samples, is_apart) = decode_selected(&decoders(), &path, &LIMITS, only).unwrap();
            assert!(!is_apart && (side.duration - decoded.duration).abs() < 0.01, "{name}: {}", side.duration);
            samples
        });
        // Each is what one channel holds, without the faint copy of the other that the line adds.
        for (n, side) in sides.iter().enumerate() {
            let alone = files.path("alone.wav");
            ffmpeg(&["-i", text(&path), "-af", &format!("pan=mono|c0=c{n}"), text(&alone)]);
            let (_, alone) = decode(&alone).unwrap();
            let product =
                |a: &[i16], b: &[i16]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
            let likeness = product(side, &alone) / (product(side, side) * product(&alone, &alone)).sqrt();
            assert!(likeness > 0.98, "{name}, channel {n}: {likeness}");
        }
        assert!(!decode_selected(&decoders(), &path, &LIMITS, Selection::default()).unwrap().2);
    }
    for (name, sides, says) in [
        ("same.wav", [one, one], "Both channels hold the same sound"),
        ("silent.wav", [one, None], "Only channel 1 of 2 has sound"),
        ("silent.wv", [None, two], "Only channel 2 of 2 has sound"),
    ] {
        let path = telephone(&files, name, sides, &[]);
        let (decoded, _, is_apart) =
            decode_selected(&decoders(), &path, &LIMITS, select(ChannelSelection::FindSpeakers)).unwrap();
        assert!(!is_apart && messages(&decoded).contains(says), "{name}: {}", messages(&decoded));
    }
    let mono = tone(&files, "mono.wav", 440, 16_000, "mono", &[]);
    let (decoded, _, is_apart) =
        decode_selected(&decoders(), &mono, &LIMITS, select(ChannelSelection::FindSpeakers)).unwrap();
    assert!(!is_apart && messages(&decoded).contains("only one channel"), "{}", messages(&decoded));
}

#[test]
fn levels_far_from_that_of_speech_are_set() {
    let files = Files::new();
    for (name, wave, output, says) in [
        ("soft.wav", "0.0001*sin(880*PI*t)", &["-c:a", "pcm_f32le"][..], "very quiet"),
        ("loud.wav", "10*sin(880*PI*t)", &["-c:a", "pcm_f32le"], "louder than its format allows"),
        ("soft.flac", "0.002*sin(880*PI*t)", &[], "very quiet"),
        ("soft.wv", "0.002*sin(880*PI*t)", &["-c:a", "wavpack"], "very quiet"),
    ] {
        let path = files.wave(name, wave, 3.0, 16_000, "mono", output);
        let (decoded, samples) = decode(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!((0.07..0.2).contains(&rms(&samples)), "{name}: {}", rms(&samples));
        assert_tone(&samples, 440.0, name);
        assert!(messages(&decoded).contains(says), "{name}: {}", messages(&decoded));
        // Both runs of the decoder for a session give the same samples.
        assert_eq!(decode(&path).unwrap().1, samples, "{name}");
    }
}

/// A Matroska file whose packets are compressed once more, by zlib without compression.
fn zlib_packed(samples: &[i16]) -> Vec<u8> {
    let element = |id: &[u8], body: &[u8]| {
        let size = (body.len() as u64 | 1 << 56).to_be_bytes();
        [id, &size[..], body].concat()
    };
    let entry = [
        element(b"\xd7", &[1]),
        element(b"\x73\xc5", &[1]),
        element(b"\x83", &[2]),
        element(b"\x86", b"A_PCM/INT/LIT"),
        element(
            b"\xe1",
            &[element(b"\xb5", &16_000_f32.to_be_bytes()), element(b"\x9f", &[1]), element(b"\x62\x64", &[16])]
                .concat(),
        ),
        element(b"\x6d\x80", &element(b"\x62\x40", &element(b"\x50\x34", &element(b"\x42\x54", &[0])))),
    ]
    .concat();
    let mut segment = [
        element(
            b"\x15\x49\xa9\x66",
            &[element(b"\x2a\xd7\xb1", &[0x0f, 0x42, 0x40]), element(b"\x4d\x80", b"x"), element(b"\x57\x41", b"x")]
                .concat(),
        ),
        element(b"\x16\x54\xae\x6b", &element(b"\xae", &entry)),
    ]
    .concat();
    for (number, piece) in samples.chunks(1_600).enumerate() {
        let raw: Vec<u8> = piece.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        let (mut a, mut b) = (1_u32, 0_u32);
        for byte in &raw {
            a = (a + u32::from(*byte)) % 65_521;
            b = (b + a) % 65_521;
        }
        let length = raw.len() as u16;
        let packed =
            [&b"\x78\x01\x01"[..], &length.to_le_bytes(), &(!length).to_le_bytes(), &raw, &(b << 16 | a).to_be_bytes()]
                .concat();
        let block = [&b"\x81\0\0\x80"[..], &packed].concat();
        let time = (number as u32 * 100).to_be_bytes();
        segment.extend(element(b"\x1f\x43\xb6\x75", &[element(b"\xe7", &time), element(b"\xa3", &block)].concat()));
    }
    let head = [
        element(b"\x42\x86", &[1]),
        element(b"\x42\xf7", &[1]),
        element(b"\x42\xf2", &[4]),
        element(b"\x42\xf3", &[8]),
        element(b"\x42\x82", b"matroska"),
        element(b"\x42\x87", &[4]),
        element(b"\x42\x85", &[2]),
    ];
    [element(b"\x1a\x45\xdf\xa3", &head.concat()), element(b"\x18\x53\x80\x67", &segment)].concat()
}

#[test]
fn what_the_built_in_decoders_cannot_read_goes_to_ffmpeg() {
    let files = Files::new();
    let wave = tone(&files, "a.wav", 440, 16_000, "mono", &[]);
    let (_, samples) = decode_plain(&wave);
    let packed = files.write("packed.mka", zlib_packed(&samples));
    let svx = files.path("a.8svx");
    run("sox", &[text(&wave), "-r", "8000", "-t", "8svx", text(&svx)]);
    let mulaw = tone(&files, "mulaw.mov", 440, 8_000, "mono", &["-c:a", "pcm_mulaw"]);
    let mut made = vec![packed, svx, mulaw];
    let picture = "testsrc=size=64x48:rate=25:duration=9";
    for (name, codecs) in [
        ("a.mxf", &["-c:v", "mpeg2video", "-ar", "48000", "-c:a", "pcm_s16le", "-shortest"][..]),
        ("long.wmv", &["-c:v", "wmv2", "-c:a", "wmav2"]),
    ] {
        let path = files.path(name);
        ffmpeg(&[&["-f", "lavfi", "-i", picture, "-i", text(&wave)], codecs, &[text(&path)]].concat());
        made.push(path);
    }
    for path in made {
        let (duration, samples) = decode_plain(&path);
        assert!((duration - 2.0).abs() < 0.15, "{}: {duration}", path.display());
        assert_tone(&samples[..30_000], 440.0, text(&path));
    }

    // A dictation of empty frames.
    let mut dictation = vec![0; 6 * 512];
    dictation[..4].copy_from_slice(b"\x02dss");
    dictation[0x26..0x3e].copy_from_slice(b"260101120000260101120003");
    dictation[0x2a4] = 2;
    (1_024..6 * 512).step_by(512).for_each(|block| dictation[block + 2] = 20);
    let (decoded, _) = decode(&files.write("a.dss", dictation)).unwrap();
    assert_eq!((&*decoded.info.format, &*decoded.info.codec), ("dss", "g723_1"));
    assert!(decoded.duration > 2.0, "{}", decoded.duration);
}

#[test]
fn what_nobody_can_read_is_refused_by_name() {
    let files = Files::new();
    let whole = fs::read(tone(&files, "a.m4a", 440, 44_100, "mono", &["-c:a", "aac"])).unwrap();
    for code in [b"enca", b"drms"] {
        let at = whole.windows(4).rposition(|bytes| bytes == b"mp4a").unwrap();
        let mut bytes = whole.clone();
        bytes[at..at + 4].copy_from_slice(code);
        let path = files.write("protected.m4a", bytes);
        for error in [probe(&path, &LIMITS).unwrap_err(), decode(&path).unwrap_err()] {
            assert_eq!(error.code(), "protected", "{error}");
        }
    }
    for head in [&b"\x03ds2"[..], b"\x03enc"] {
        let path = files.write("a.ds2", [head, &[0; 2_000]].concat());
        for error in [probe(&path, &LIMITS).unwrap_err(), decode(&path).unwrap_err()] {
            assert_eq!(error.code(), "closed_format", "{error}");
            assert!(error.to_string().contains("DS2"), "{error}");
        }
    }
}

/// The seconds that the built-in decoders get of a file, without ffmpeg.
fn built_in(path: &Path) -> f64 {
    let child = Command::new(env!("CARGO_BIN_EXE_hark"))
        .args(["decoder", "decode", "--max-duration", "1000"])
        .stdin(fs::File::open(path).unwrap())
        .output()
        .unwrap();
    assert!(child.status.success(), "{}: {}", path.display(), child.status);
    child.stdout.len() as f64 / 2.0 / f64::from(SAMPLE_RATE)
}

/// Twenty seconds of 440 Hz with a film, whose tracks are in this order.
fn film(files: &Files, name: &str, order: [&str; 2], output: &[&str]) -> PathBuf {
    let path = files.path(name);
    let sound = "aevalsrc=exprs=0.4*sin(880*PI*t):s=48000:d=20";
    let picture = "testsrc=size=64x48:rate=10:duration=20";
    let inputs = ["-f", "lavfi", "-i", sound, "-f", "lavfi", "-i", picture, "-map", order[0], "-map", order[1]];
    ffmpeg(&[&inputs[..], &["-c:v", "mpeg4", "-g", "10"], output, &[text(&path)]].concat());
    path
}

#[test]
fn mp4_files_that_are_cut_within_their_sound_give_what_comes_before() {
    let files = Files::new();
    let wave = "0.4*sin(880*PI*t)";
    let fragments =
        ["-c:a", "aac", "-movflags", "frag_keyframe+empty_moov+default_base_moof", "-frag_duration", "500000"];
    let first = ["-c:a", "aac", "-movflags", "faststart"];
    for (path, says) in [
        (files.wave("first.m4a", wave, 20.0, 48_000, "mono", &first), "The file says 0:20; it ends at 0:1"),
        (film(&files, "first.mp4", ["0", "1"], &first), "The file says 0:20; it ends at 0:1"),
        (files.wave("fragments.m4a", wave, 20.0, 48_000, "mono", &fragments), "The file breaks off at 0:1"),
        (film(&files, "fragments.mp4", ["1", "0"], &fragments), "The file breaks off at 0:1"),
    ] {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() * 6 / 10]).unwrap();
        probe(&path, &LIMITS).unwrap_or_else(|error| panic!("{name}: {error}"));
        let (decoded, samples) = decode(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!((decoded.duration - 12.0).abs() < 1.5, "{name}: {}", decoded.duration);
        assert_tone(&samples, 440.0, &name);
        assert!(messages(&decoded).contains(says), "{name}: {}", messages(&decoded));
        assert!((built_in(&path) - decoded.duration).abs() < 0.1, "{name}");
    }
}

#[test]
fn a_windows_media_film_that_is_cut_breaks_off() {
    let files = Files::new();
    let path = files.path("a.wmv");
    let sound = tone(&files, "a.wav", 440, 44_100, "mono", &[]);
    let picture = "testsrc=size=64x48:rate=10:duration=20";
    let long = ["-f", "lavfi", "-i", picture, "-stream_loop", "9", "-i", text(&sound), "-c:v", "wmv2", "-c:a", "wmav2"];
    ffmpeg(&[&long[..], &[text(&path)]].concat());
    let whole = fs::read(&path).unwrap();
    let (decoded, _) = decode(&path).unwrap();
    assert_eq!(decoded.remarks, []);
    fs::write(&path, &whole[..whole.len() * 6 / 10]).unwrap();
    let (decoded, samples) = decode(&path).unwrap();
    assert!((decoded.duration - 12.0).abs() < 1.5, "{}", decoded.duration);
    assert_tone(&samples, 440.0, "a.wmv");
    assert!(messages(&decoded).contains("breaks off at 0:1"), "{}", messages(&decoded));
}

#[test]
fn files_that_are_cut_say_so_in_every_container() {
    let files = Files::new();
    let wave = "0.4*sin(880*PI*t)";
    let sound = files.wave("sound.wav", wave, 21.9, 44_100, "mono", &[]);
    let film = |name: &str, codecs: &[&str]| {
        let path = files.path(name);
        let picture = "testsrc=size=64x48:rate=10:duration=21.9";
        ffmpeg(&[&["-f", "lavfi", "-i", picture, "-i", text(&sound)], codecs, &[text(&path)]].concat());
        path
    };
    let tone = |name: &str, rate: u32, output: &[&str]| files.wave(name, wave, 21.9, rate, "mono", output);
    for (path, says) in [
        (tone("a.caf", 44_100, &["-c:a", "pcm_s16be"]), "The file says 0:22; it ends at 0:13"),
        (tone("a.w64", 44_100, &["-c:a", "pcm_s16le"]), "The file says 0:22; it ends at 0:13"),
        (tone("a.flv", 44_100, &["-c:a", "libmp3lame"]), "The file says 0:22; it ends at 0:13"),
        (tone("aac.flv", 44_100, &["-c:a", "aac"]), "The file says 0:22; it ends at 0:13"),
        (film("film.flv", &["-c:v", "flv1", "-c:a", "aac"]), "The file breaks off at 0:1"),
        (tone("mp3.avi", 44_100, &["-c:a", "libmp3lame"]), "The file breaks off at 0:1"),
        (tone("pcm.avi", 44_100, &["-c:a", "pcm_s16le"]), "The file breaks off at 0:1"),
        (film("film.avi", &["-c:v", "mpeg4", "-c:a", "libmp3lame"]), "The file breaks off at 0:1"),
        (tone("a.spx", 16_000, &["-c:a", "libspeex"]), "The file breaks off at 0:13"),
        (tone("gsm.wav", 8_000, &["-c:a", "gsm_ms"]), "The file breaks off at 0:13"),
    ] {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let (duration, _) = decode_plain(&path);
        assert!((duration - 21.9).abs() < 0.2, "{name}, whole: {duration}");
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() * 6 / 10]).unwrap();
        probe(&path, &LIMITS).unwrap_or_else(|error| panic!("{name}: {error}"));
        let (decoded, samples) = decode(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!((decoded.duration - 13.1).abs() < 1.5, "{name}: {}", decoded.duration);
        assert_tone(&samples, 440.0, &name);
        assert!(messages(&decoded).contains(says), "{name}: {}", messages(&decoded));
    }
    // A recorder that writes to a pipe doesn't know the length, so it declares that of samples up to the end.
    let whole = fs::read(files.wave("a.caf", wave, 3.0, 16_000, "mono", &["-c:a", "pcm_s16be"])).unwrap();
    let at = whole.windows(4).rposition(|bytes| bytes == b"data").unwrap();
    let open = files.write("open.caf", [&whole[..at + 4], &[0xff; 8], &whole[at + 12..]].concat());
    let (duration, samples) = decode_plain(&open);
    assert!((duration - 3.0).abs() < 0.01, "{duration}");
    assert_tone(&samples, 440.0, "open.caf");
    assert!((built_in(&open) - 3.0).abs() < 0.01);
}

#[test]
fn an_mp4_index_that_is_cut_is_used_as_far_as_it_goes() {
    let files = Files::new();
    let wave = "0.4*sin(880*PI*t)";
    let aac = ["-c:a", "aac"];
    let m4a = fs::read(files.wave("a.m4a", wave, 20.0, 48_000, "mono", &aac)).unwrap();
    let alac = fs::read(files.wave("alac.m4a", wave, 20.0, 48_000, "mono", &["-c:a", "alac"])).unwrap();
    let sound_first = fs::read(film(&files, "a.mp4", ["0", "1"], &aac)).unwrap();
    let film_first = fs::read(film(&files, "b.mp4", ["1", "0"], &aac)).unwrap();
    // Cut at this share of the last box of this name.
    let cut = |whole: &[u8], name: &[u8; 4], share: f64| {
        let at = whole.windows(4).rposition(|bytes| bytes == name).unwrap() - 4;
        let length = u32::from_be_bytes(whole[at..at + 4].try_into().unwrap());
        whole[..at + (f64::from(length) * share) as usize].to_vec()
    };
    for (what, bytes, seconds) in [
        ("positions", cut(&m4a, b"stco", 0.5), 20.0),
        ("after the sizes", cut(&m4a, b"stsz", 1.0), 20.0),
        ("half of the sizes", cut(&m4a, b"stsz", 0.5), 10.0),
        ("half of the sizes, ALAC", cut(&alac, b"stsz", 0.5), 10.0),
        ("the film's track, which is of no use", cut(&sound_first, b"stsz", 0.5), 20.0),
        ("half of the positions of several chunks", cut(&film_first, b"stco", 0.5), 10.0),
        ("what comes after the tracks", cut(&film_first, b"udta", 0.5), 20.0),
    ] {
        let path = files.write("cut.mp4", bytes);
        probe(&path, &LIMITS).unwrap_or_else(|error| panic!("{what}: {error}"));
        let (decoded, samples) = decode(&path).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!((decoded.duration - seconds).abs() < 0.6, "{what}: {}", decoded.duration);
        assert_tone(&samples, 440.0, what);
        let expected = if seconds < 20.0 { "other_length: The file says 0:20; it ends at 0:10.\n" } else { "" };
        assert_eq!(messages(&decoded), expected, "{what}");
        assert!((built_in(&path) - decoded.duration).abs() < 0.1, "{what}");
    }
    // Without the sizes of the frames, or where the frames are among those of a film, they can't be found.
    for (what, bytes) in [
        ("codec", cut(&m4a, b"stsd", 0.5)),
        ("sizes", cut(&m4a, b"stsz", 0.0)),
        ("the sizes among a film's", cut(&film_first, b"stsz", 0.5)),
        ("the index", cut(&m4a, b"moov", 0.0)),
        ("the sound", cut(&m4a, b"mdat", 0.5)),
    ] {
        let path = files.write("cut.mp4", bytes);
        for error in [probe(&path, &LIMITS).unwrap_err(), decode(&path).unwrap_err()] {
            assert_eq!(error.code(), "truncated", "{what}: {error}");
            assert!(error.to_string().contains("index (moov) is missing"), "{what}: {error}");
        }
    }
}
