//! ffmpeg as the decoder of last resort, for what the built-in ones can't open: how it is called, and what ffprobe answers.
//! The file comes from a stranger, so ffmpeg may open nothing but it: demuxers and protocols are listed, playlists are
//! not among them. `child` becomes these programs within its limits, `process` reads what they say.

use std::ffi::OsString;
use std::path::PathBuf;

use serde::Deserialize;

use super::{AudioInfo, SAMPLE_RATE};
use crate::server::programs;

/// Demuxers of single recordings. None here follows references to other files, as playlists (hls, concat, dash, sdp)
/// and image sequences do.
const DEMUXERS: &str = "3gp,aa,aac,aax,ac3,act,aiff,amr,amrnb,amrwb,ape,asf,asf_o,ast,au,avi,caf,dsf,dts,dtshd,\
    eac3,flac,flv,gsm,ircam,iss,loas,m4a,matroska,mlp,mov,mp3,mp4,mpc,mpc8,mpeg,mpegts,nistsphere,nut,ogg,oma,qcp,rm,\
    rso,shn,smjpeg,sox,tak,truehd,tta,voc,w64,wav,webm,wsd,wtv,wv,xwma";

/// Containers, as ffprobe names them, whose length is written down, not guessed from the bit rate.
const DECLARING: [&str; 10] =
    ["ape", "asf", "caf", "flac", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2", "tta", "w64", "wav", "wv"];

/// Below this, ffprobe itself hardly believes in the format it names (25 is its own threshold for asking again).
const LEAST_SCORE: u32 = 25;

/// The recording, which is standard input, as something to seek in: unlike a pipe, this opens the file again. Neither
/// its name nor its folder is told.
const INPUT: &str = "file:/proc/self/fd/0";

/// Bounds on what is looked at before there is sound. Pictures are not decoded at all: one in an AVI file of 1 MB may take
/// 800 MB. The rest are ffmpeg's own defaults, written down, but for the streams, of which it would take 1,000.
const BOUNDS: [&str; 10] = [
    "-threads",
    "1",
    "-max_pixels",
    "1",
    "-probesize",
    "5000000",
    "-analyzeduration",
    "5000000",
    "-max_streams",
    "100",
];

/// Where ffmpeg and ffprobe are.
pub(super) struct Programs {
    pub(super) ffmpeg: PathBuf,
    pub(super) ffprobe: PathBuf,
}

/// Why there is no answer.
#[derive(Debug, PartialEq)]
pub(super) enum Refusal {
    /// Nothing it knows.
    Unknown,
    /// A container without sound; its name.
    NoAudio(String),
}

/// Finds ffmpeg and ffprobe on PATH.
pub(super) fn find() -> Option<Programs> {
    let find = |name: &str| std::path::absolute(programs::find(name)?).ok();
    Some(Programs { ffmpeg: find("ffmpeg")?, ffprobe: find("ffprobe")? })
}

/// Whether ffmpeg and ffprobe are installed.
#[must_use]
pub fn available() -> bool {
    find().is_some()
}

/// What ffprobe is told. No block of memory may be larger than `most` bytes.
pub(super) fn probe_arguments(most: u64) -> Vec<OsString> {
    const SHOW: &str = "format=format_name,duration,probe_score:\
        stream=codec_type,codec_name,sample_rate,channels,duration:stream_disposition=attached_pic";
    let mut arguments = common(most);
    arguments.extend(["-of", "json", "-show_entries", SHOW, "-i", INPUT].map(OsString::from));
    arguments
}

/// What ffmpeg is told: the first audio track as 16 kHz mono, to standard output.
pub(super) fn decode_arguments(most: u64) -> Vec<OsString> {
    let mut arguments = common(most);
    // Standard input is the recording, and no keyboard.
    arguments.extend(["-nostdin", "-filter_threads", "1", "-vn", "-sn", "-dn", "-i", INPUT].map(OsString::from));
    arguments.extend(["-map", "0:a:0", "-vn", "-sn", "-dn", "-threads", "1", "-ac", "1", "-ar"].map(OsString::from));
    arguments.push(SAMPLE_RATE.to_string().into());
    arguments.extend(["-f", "s16le", "pipe:1"].map(OsString::from));
    arguments
}

/// What ffmpeg is told to see whether it runs at all.
pub(super) fn version_arguments() -> Vec<OsString> {
    vec!["-version".into()]
}

fn common(most: u64) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = ["-hide_banner", "-loglevel", "error", "-max_alloc"].map(Into::into).into();
    arguments.push(most.to_string().into());
    arguments.extend(["-protocol_whitelist", "file,pipe", "-format_whitelist", DEMUXERS].map(OsString::from));
    arguments.extend(BOUNDS.map(OsString::from));
    arguments
}

/// What ffprobe's answer says of the recording.
pub(super) fn understand(answer: &[u8]) -> Result<AudioInfo, Refusal> {
    #[derive(Deserialize)]
    struct ProbeOutput {
        #[serde(default)]
        streams: Vec<Stream>,
        format: Option<Format>,
    }
    #[derive(Deserialize)]
    struct Stream {
        codec_type: Option<String>,
        codec_name: Option<String>,
        sample_rate: Option<String>,
        channels: Option<u16>,
        duration: Option<String>,
        #[serde(default)]
        disposition: Disposition,
    }
    #[derive(Default, Deserialize)]
    struct Disposition {
        #[serde(default)]
        attached_pic: u8,
    }
    #[derive(Deserialize)]
    struct Format {
        format_name: String,
        duration: Option<String>,
        #[serde(default)]
        probe_score: u32,
    }
    let answer: ProbeOutput = serde_json::from_slice(answer).map_err(|_| Refusal::Unknown)?;
    let Some(format) = answer.format.filter(|format| format.probe_score >= LEAST_SCORE) else {
        return Err(Refusal::Unknown);
    };
    let of_type = |stream: &&Stream, kind: &str| stream.codec_type.as_deref() == Some(kind);
    // Cover pictures come as video, too.
    let is_video = |stream: &Stream| of_type(&stream, "video") && stream.disposition.attached_pic == 0;
    let video = answer.streams.iter().any(is_video);
    let name = short(&format.format_name, video);
    let Some(audio) = answer.streams.iter().find(|stream| of_type(stream, "audio")) else {
        return Err(Refusal::NoAudio(name));
    };
    let seconds = |text: &Option<String>| text.as_deref()?.parse::<f64>().ok().filter(|seconds| *seconds > 0.0);
    let duration = if DECLARING.contains(&format.format_name.as_str()) {
        // The whole lasts as long as its longest track, which need not be the sound.
        seconds(&audio.duration).or_else(|| seconds(&format.duration).filter(|_| !video))
    } else {
        None
    };
    let codec = audio.codec_name.clone().filter(|codec| codec != "unknown").ok_or(Refusal::Unknown)?;
    Ok(AudioInfo {
        format: name,
        codec,
        sample_rate: audio.sample_rate.as_deref().and_then(|rate| rate.parse().ok()).unwrap_or(0),
        channels: audio.channels.unwrap_or(0),
        duration,
    })
}

/// The name people use for one of ffmpeg's.
fn short(name: &str, video: bool) -> String {
    match name {
        "asf" => "wma",
        "mov,mp4,m4a,3gp,3g2,mj2" if video => "mp4",
        "mov,mp4,m4a,3gp,3g2,mj2" => "m4a",
        "matroska,webm" => "mkv",
        "mpegts" => "ts",
        other => other.split(',').next().unwrap_or(other),
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let stream =
            r#"{"codec_type":"audio","codec_name":"wmav2","sample_rate":"44100","channels":2,"duration":"3.5"}"#;
        let picture = r#"{"codec_type":"video","codec_name":"png","disposition":{"attached_pic":1}}"#;
        let answer = |streams: &str, score: u32| {
            let format = format!(r#"{{"format_name":"asf","duration":"3.6","probe_score":{score}}}"#);
            understand(format!(r#"{{"streams":[{streams}],"format":{format}}}"#).as_bytes())
        };
        let info = answer(&format!("{picture},{stream}"), 100).unwrap();
        assert_eq!((&*info.format, &*info.codec, info.duration), ("wma", "wmav2", Some(3.5)));
        assert_eq!(answer(picture, 100), Err(Refusal::NoAudio("wma".to_owned())));
        assert_eq!(answer(stream, 24), Err(Refusal::Unknown));
        assert_eq!(understand(b""), Err(Refusal::Unknown));
    }

    #[test]
    fn no_demuxer_follows_references() {
        for name in DEMUXERS.split(',') {
            assert!(
                !["hls", "concat", "dash", "sdp", "rtsp", "image2", "lavfi", "imf", "tty", "data"]
                    .contains(&name.trim())
            );
            assert_eq!(name, name.trim());
        }
    }

    #[test]
    fn bounds_stand_before_the_input() {
        for arguments in [probe_arguments(1), decode_arguments(1)] {
            let at = |word: &str| arguments.iter().position(|argument| argument == word).unwrap();
            for bound in ["-threads", "-max_pixels", "-probesize", "-max_streams", "-max_alloc", "-format_whitelist"] {
                assert!(at(bound) < at("-i"), "{bound}");
            }
        }
    }
}
