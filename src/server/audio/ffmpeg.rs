//! ffmpeg, the decoder for what the built-in ones can't open: its arguments, and the parsing of ffprobe's output. The
//! file comes from a stranger, so ffmpeg may open nothing else: demuxers and protocols are listed, and playlists are
//! not among them. `child` becomes these programs within its limits; `process` reads their output.

use std::ffi::OsString;
use std::path::PathBuf;

use serde::Deserialize;

use super::level::Mix;
use super::wire::Declares;
use super::{AudioInfo, SAMPLE_RATE};
use crate::server::programs;

/// The allowed demuxers: those of single recordings. None of them follows references to other files, as those of
/// playlists (hls, concat, dash, sdp) and image sequences do.
pub(super) const DEMUXERS: &str = "3gp,aa,aac,aax,ac3,act,aiff,amr,amrnb,amrwb,ape,asf,asf_o,ast,au,avi,caf,dsf,dss,dts,dtshd,\
    eac3,flac,flv,gsm,iff,ircam,iss,loas,m4a,matroska,mlp,mov,mp3,mp4,mpc,mpc8,mpeg,mpegts,mxf,nistsphere,nut,ogg,oma,\
    qcp,rm,rso,shn,smjpeg,sox,tak,truehd,tta,voc,w64,wav,webm,wsd,wtv,wv,xwma";

/// Containers, by ffprobe's names, that store their length. Of others ffprobe guesses it from the bit rate.
const WITH_DURATION: [&str; 10] =
    ["ape", "asf", "caf", "flac", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2", "tta", "w64", "wav", "wv"];

/// The minimal score of ffprobe's guess of the format. 25 is also ffprobe's own threshold, below which it reads more
/// and guesses again.
const MIN_SCORE: u32 = 25;

/// The recording, which is standard input, as a file that can be seeked: unlike a pipe, this opens the file again. It
/// tells neither the file's name nor its folder.
const INPUT: &str = "file:/proc/self/fd/0";

/// The largest picture in pixels, where ffprobe must open its decoder: that of a usual film. Otherwise pictures are not
/// decoded at all: one in an AVI file of 1 MB may take 800 MB.
const PICTURE_PIXELS: &str = "2100000";

/// Limits of what is read before there is sound. They are ffmpeg's own defaults, written down, except the number of
/// streams, of which it would accept 1,000.
const LIMIT_ARGUMENTS: [&str; 8] =
    ["-threads", "1", "-probesize", "5000000", "-analyzeduration", "5000000", "-max_streams", "100"];

/// By how many seconds the clock of an MPEG stream may go on without a sample. A longer jump is taken for another clock, as
/// where two recordings were joined; ffmpeg's default of 10 s would close the gaps of a bad reception.
const MAX_JUMP: &str = "3600";

/// The bit rate of copies for browsers: speech of this rate can't be told from the original.
const BIT_RATE: &str = "32k";

/// The paths of ffmpeg and ffprobe.
pub(super) struct Programs {
    pub(super) ffmpeg: PathBuf,
    pub(super) ffprobe: PathBuf,
}

/// Why ffprobe's output describes no recording.
#[derive(Debug, PartialEq)]
pub(super) enum Refusal {
    /// The format is unknown.
    Unknown,
    /// A container without an audio track; its name.
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

/// The arguments of ffprobe. No single allocation may be larger than `max_alloc` bytes. Without `pictures` it fails on
/// some films, because it opens the decoders of all tracks.
pub(super) fn probe_arguments(max_alloc: u64, pictures: bool) -> Vec<OsString> {
    const SHOW: &str = "format=format_name,start_time,duration,probe_score:\
        stream=index,codec_type,codec_name,sample_rate,channels,start_time,duration:\
        stream_disposition=attached_pic,default";
    let mut arguments = common(max_alloc, pictures);
    arguments.extend(["-of", "json", "-show_entries", SHOW, "-i", INPUT].map(OsString::from));
    arguments
}

/// What ffmpeg is to decode.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Task {
    /// All channels of a track at 16 kHz, as floats of 32 bits, to be measured.
    Measure { stream: u32, channels: u16 },
    /// The mix of a track at 16 kHz, mono, with the times of its samples (`timed`).
    Decode { stream: u32, channels: u16, mix: Mix },
    /// The same of a track's two channels apart, interleaved, with this factor of their samples.
    DecodeBoth { stream: u32, gain: f32 },
}

/// The arguments of ffmpeg, which writes to standard output.
pub(super) fn decode_arguments(max_alloc: u64, task: &Task) -> Vec<OsString> {
    let mut arguments = common(max_alloc, false);
    // Standard input is the recording, not a keyboard.
    arguments.extend(["-nostdin", "-filter_threads", "1", "-dts_delta_threshold", MAX_JUMP].map(OsString::from));
    arguments.extend(["-vn", "-sn", "-dn", "-i", INPUT].map(OsString::from));
    let (Task::Measure { stream, .. } | Task::Decode { stream, .. } | Task::DecodeBoth { stream, .. }) = task;
    arguments.extend(["-map".to_owned(), format!("0:{stream}")].map(OsString::from));
    arguments.extend(["-vn", "-sn", "-dn", "-threads", "1"].map(OsString::from));
    let filters = match task {
        Task::Measure { .. } => None,
        Task::Decode { channels, mix, .. } => Some(filters(*channels, mix)),
        Task::DecodeBoth { gain, .. } => Some(chain(&format!("pan=stereo|c0={gain:.9}*c0|c1={gain:.9}*c1"))),
    };
    let format = match filters {
        None => {
            arguments.extend(["-ar".to_owned(), SAMPLE_RATE.to_string()].map(OsString::from));
            "f32le"
        }
        Some(filters) => {
            arguments.extend(["-af".to_owned(), filters].map(OsString::from));
            // Without a cluster for each second, ffmpeg would keep more in memory.
            arguments.extend(["-c:a", "pcm_s16le", "-cluster_time_limit", "1000"].map(OsString::from));
            "matroska"
        }
    };
    arguments.extend(["-f", format, "pipe:1"].map(OsString::from));
    arguments
}

/// The filters that mix and resample.
fn filters(channels: u16, mix: &Mix) -> String {
    let all: Vec<usize> = (0..usize::from(channels.max(1))).collect();
    let heard = mix.channels.as_ref().unwrap_or(&all);
    let share = f64::from(mix.gain) / heard.len() as f64;
    // `pan` also mixes channels without a layout, which `-ac 1` refuses.
    let sum: Vec<String> = heard.iter().map(|channel| format!("{share:.9}*c{channel}")).collect();
    chain(&format!("pan=mono|c0={}", sum.join("+")))
}

/// The filters around the one that chooses channels. They don't fill gaps: a long one would take the memory of its samples,
/// and of one over an hour they give up in the middle.
fn chain(pan: &str) -> String {
    format!("aformat=sample_fmts=flt,{pan},aresample={SAMPLE_RATE},aformat=sample_fmts=s16")
}

/// The arguments of ffmpeg to encode samples at 16 kHz, mono, from standard input as Opus in Ogg, which can be written to a
/// pipe without losing anything that players need to seek. Bit-exact, so that nodes make the same file.
pub(super) fn encode_arguments(max_alloc: u64) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = ["-hide_banner", "-loglevel", "error", "-max_alloc"].map(Into::into).into();
    arguments.push(max_alloc.to_string().into());
    arguments.extend(["-nostdin", "-protocol_whitelist", "pipe", "-f", "s16le", "-ar"].map(OsString::from));
    arguments.push(SAMPLE_RATE.to_string().into());
    arguments.extend(["-ac", "1", "-threads", "1", "-i", "pipe:0", "-map_metadata", "-1"].map(OsString::from));
    arguments.extend(["-threads", "1", "-c:a", "libopus", "-b:a", BIT_RATE].map(OsString::from));
    arguments.extend(["-fflags", "+bitexact", "-flags:a", "+bitexact", "-f", "ogg", "pipe:1"].map(OsString::from));
    arguments
}

/// The arguments to check whether ffmpeg runs at all.
pub(super) fn version_arguments() -> Vec<OsString> {
    vec!["-version".into()]
}

fn common(max_alloc: u64, pictures: bool) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = ["-hide_banner", "-loglevel", "error", "-max_alloc"].map(Into::into).into();
    arguments.push(max_alloc.to_string().into());
    arguments.extend(["-protocol_whitelist", "file,pipe", "-format_whitelist", DEMUXERS].map(OsString::from));
    arguments.extend(LIMIT_ARGUMENTS.map(OsString::from));
    arguments.extend(["-max_pixels", if pictures { PICTURE_PIXELS } else { "1" }].map(OsString::from));
    arguments
}

/// An audio track, as ffprobe describes it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Track {
    /// Its number among all tracks, from 0.
    pub(super) stream: u32,
    pub(super) info: AudioInfo,
    /// Whether its length is counted and not estimated.
    pub(super) is_exact: bool,
    is_default: bool,
}

/// Reads the audio tracks from ffprobe's output, and which of them the file prefers. `declares` is what the file itself
/// declares, where that is known: of many formats, ffprobe tells a length by the size of the file.
pub(super) fn parse_probe(answer: &[u8], declares: &Declares) -> Result<(Vec<Track>, usize), Refusal> {
    #[derive(Deserialize)]
    struct ProbeOutput {
        #[serde(default)]
        streams: Vec<Stream>,
        format: Option<Format>,
    }
    #[derive(Deserialize)]
    struct Stream {
        #[serde(default)]
        index: u32,
        codec_type: Option<String>,
        codec_name: Option<String>,
        sample_rate: Option<String>,
        channels: Option<u16>,
        start_time: Option<String>,
        duration: Option<String>,
        #[serde(default)]
        disposition: Disposition,
    }
    #[derive(Default, Deserialize)]
    struct Disposition {
        #[serde(default)]
        attached_pic: u8,
        #[serde(default)]
        default: u8,
    }
    #[derive(Deserialize)]
    struct Format {
        format_name: String,
        start_time: Option<String>,
        duration: Option<String>,
        #[serde(default)]
        probe_score: u32,
    }
    let answer: ProbeOutput = serde_json::from_slice(answer).map_err(|_| Refusal::Unknown)?;
    let Some(format) = answer.format.filter(|format| format.probe_score >= MIN_SCORE) else {
        return Err(Refusal::Unknown);
    };
    let of_type = |stream: &&Stream, kind: &str| stream.codec_type.as_deref() == Some(kind);
    // Cover pictures are listed as video streams, too.
    let is_video = |stream: &Stream| of_type(&stream, "video") && stream.disposition.attached_pic == 0;
    let video = answer.streams.iter().any(is_video);
    let name = short(&format.format_name, video);
    let audio: Vec<&Stream> = answer.streams.iter().filter(|stream| of_type(stream, "audio")).collect();
    if audio.is_empty() {
        return Err(Refusal::NoAudio(name));
    }
    let number = |text: &Option<String>| text.as_deref()?.parse::<f64>().ok().filter(|seconds| seconds.is_finite());
    let seconds = |text: &Option<String>| number(text).filter(|seconds| *seconds > 0.0);
    let tracks = audio.into_iter().filter_map(|audio| {
        let late = number(&audio.start_time).unwrap_or(0.0) - number(&format.start_time).unwrap_or(0.0);
        let codec = audio.codec_name.clone().filter(|codec| codec != "unknown")?;
        let is_exact = match format.format_name.as_str() {
            // Programs round it. That something is missing is sure where the file has fewer bytes than it declares.
            "asf" | "flv" => declares.is_cut,
            // One length for all tracks.
            "matroska,webm" => answer.streams.len() == 1,
            // Of other codecs by the bit rate.
            "wav" => codec.starts_with("pcm_"),
            _ => true,
        };
        let duration = match format.format_name.as_str() {
            // One length for all tracks, of which the picture may be the longest.
            "asf" | "flv" if video => None,
            "asf" | "flv" | "w64" if declares.duration.is_some() => declares.duration,
            "wav" | "caf" if declares.is_cut || declares.is_joined => None,
            known if WITH_DURATION.contains(&known) => seconds(&audio.duration)
                .map(|duration| duration + late.max(0.0))
                .or_else(|| seconds(&format.duration).filter(|_| !video)),
            _ => None,
        };
        Some(Track {
            stream: audio.index,
            is_exact,
            is_default: audio.disposition.default == 1,
            info: AudioInfo {
                format: name.clone(),
                codec,
                sample_rate: audio.sample_rate.as_deref().and_then(|rate| rate.parse().ok()).unwrap_or(0),
                channels: audio.channels.unwrap_or(0),
                tracks: 0,
                duration,
            },
        })
    });
    let mut tracks: Vec<Track> = tracks.collect();
    let count = u16::try_from(tracks.len()).unwrap_or(u16::MAX);
    tracks.iter_mut().for_each(|track| track.info.tracks = count);
    let default = tracks.iter().position(|track| track.is_default).unwrap_or(0);
    if tracks.is_empty() { Err(Refusal::Unknown) } else { Ok((tracks, default)) }
}

/// The common name of a container that ffmpeg names.
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
    fn probe_answers_are_parsed() {
        let stream =
            r#"{"codec_type":"audio","codec_name":"wmav2","sample_rate":"44100","channels":2,"duration":"3.5"}"#;
        let picture = r#"{"codec_type":"video","codec_name":"png","disposition":{"attached_pic":1}}"#;
        let answer = |streams: &str, score: u32| {
            let format = format!(r#"{{"format_name":"asf","duration":"3.6","probe_score":{score}}}"#);
            parse_probe(format!(r#"{{"streams":[{streams}],"format":{format}}}"#).as_bytes(), &Declares::default())
        };
        let (tracks, default) = answer(&format!("{picture},{stream}"), 100).unwrap();
        let info = &tracks[default].info;
        assert_eq!((&*info.format, &*info.codec, info.duration), ("wma", "wmav2", Some(3.5)));
        let other = r#"{"index":5,"codec_type":"audio","codec_name":"wmav2","disposition":{"default":1}}"#;
        let (tracks, default) = answer(&format!("{stream},{other}"), 100).unwrap();
        assert_eq!((tracks.len(), default, tracks[1].stream), (2, 1, 5));
        assert_eq!(answer(picture, 100), Err(Refusal::NoAudio("wma".to_owned())));
        assert_eq!(answer(stream, 24), Err(Refusal::Unknown));
        assert_eq!(parse_probe(b"", &Declares::default()), Err(Refusal::Unknown));
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
    fn limits_come_before_the_input() {
        let mix = Mix { channels: Some(vec![1, 3]), gain: 2.0 };
        let decode = Task::Decode { stream: 2, channels: 4, mix };
        let measure = Task::Measure { stream: 2, channels: 4 };
        let both = Task::DecodeBoth { stream: 2, gain: 1.0 };
        let decodes = [measure, decode, both].map(|task| decode_arguments(1, &task));
        for arguments in decodes.into_iter().chain([probe_arguments(1, true)]) {
            let at = |word: &str| arguments.iter().position(|argument| argument == word).unwrap();
            for bound in ["-threads", "-max_pixels", "-probesize", "-max_streams", "-max_alloc", "-format_whitelist"] {
                assert!(at(bound) < at("-i"), "{bound}");
            }
        }
        assert!(
            filters(4, &Mix { channels: Some(vec![1, 3]), gain: 2.0 }).contains("c0=1.000000000*c1+1.000000000*c3")
        );
    }
}
