//! ffmpeg as the decoder of last resort, for what the built-in ones can't open: a child process, read as a stream.
//! The file comes from a stranger, so ffmpeg may open nothing but it: demuxers and protocols are listed, playlists are
//! not among them, and the environment stays behind. Used by `decode`.

use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader, Read};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::{AudioError, SAMPLE_RATE};

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

/// Longest wait for the next output. A child that says nothing for this long is stuck.
const STALL: Duration = Duration::from_secs(60);

/// Bytes read at once: half a second.
const READ: usize = SAMPLE_RATE as usize;

/// Takes output as it comes, and says whether it wants more.
type Sink<'a, T> = dyn FnMut(&[T]) -> Result<ControlFlow<()>, AudioError> + 'a;

/// What ffprobe found.
pub(super) struct Found {
    pub(super) format: String,
    pub(super) codec: String,
    pub(super) sample_rate: u32,
    pub(super) channels: u16,
    /// Seconds, only where the container declares them.
    pub(super) duration: Option<f64>,
}

/// Why there is no answer.
pub(super) enum Refusal {
    /// Not installed.
    Missing,
    /// Nothing it knows.
    Unknown,
    /// A container without sound; its name.
    NoAudio(String),
    Failed(AudioError),
}

/// Whether ffmpeg and ffprobe are installed.
#[must_use]
pub fn available() -> bool {
    let Some(paths) = std::env::var_os("PATH") else {
        return false;
    };
    ["ffmpeg", "ffprobe"].iter().all(|tool| std::env::split_paths(&paths).any(|path| path.join(tool).is_file()))
}

/// What ffprobe makes of a file.
pub(super) fn probe(path: &Path) -> Result<Found, Refusal> {
    #[derive(Deserialize)]
    struct Answer {
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
    if !available() {
        return Err(Refusal::Missing);
    }
    let mut command = tool("ffprobe", path).map_err(|error| Refusal::Failed(error.into()))?;
    command.args(["-of", "json", "-show_entries"]);
    command.arg("format=format_name,duration,probe_score:stream=codec_type,codec_name,sample_rate,channels,duration:stream_disposition=attached_pic");
    let mut answer = Vec::new();
    let end = run(command, path, &mut |bytes| {
        answer.extend_from_slice(bytes);
        Ok(ControlFlow::Continue(()))
    })
    .map_err(Refusal::Failed)?;
    if !end.status.success() {
        return Err(Refusal::Unknown);
    }
    let answer: Answer = serde_json::from_slice(&answer).map_err(|_| Refusal::Unknown)?;
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
    Ok(Found {
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

/// Decodes the first audio track to 16 kHz mono, given to `sink` as it comes.
pub(super) fn decode(path: &Path, sink: &mut Sink<'_, i16>) -> Result<(), AudioError> {
    let mut command = tool("ffmpeg", path)?;
    command.args(["-map", "0:a:0", "-vn", "-sn", "-dn", "-ac", "1", "-ar"]);
    command.arg(SAMPLE_RATE.to_string()).args(["-f", "s16le", "pipe:1"]);
    let mut samples = Vec::new();
    let mut odd = None;
    let end = run(command, path, &mut |bytes| {
        samples.clear();
        let mut bytes = odd.take().into_iter().chain(bytes.iter().copied());
        while let Some(low) = bytes.next() {
            match bytes.next() {
                Some(high) => samples.push(i16::from_le_bytes([low, high])),
                None => odd = Some(low),
            }
        }
        sink(&samples)
    })?;
    if end.stopped || end.status.success() {
        return Ok(());
    }
    Err(AudioError::Ffmpeg { line: end.line.unwrap_or_else(|| end.status.to_string()) })
}

/// A command up to and including its input. The name is absolute and behind a protocol, so that neither a leading `-`
/// nor a `:` in it means anything.
fn tool(name: &str, path: &Path) -> io::Result<Command> {
    let mut command = Command::new(name);
    command.env_clear();
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command.args(["-hide_banner", "-loglevel", "error", "-protocol_whitelist", "file,pipe"]);
    command.args(["-format_whitelist", DEMUXERS]);
    if name == "ffmpeg" {
        command.arg("-nostdin");
    }
    command.arg("-i").arg(url(path)?);
    Ok(command)
}

fn url(path: &Path) -> io::Result<OsString> {
    let mut url = OsString::from("file:");
    url.push(std::path::absolute(path)?);
    Ok(url)
}

struct End {
    status: ExitStatus,
    /// The last line on standard error.
    line: Option<String>,
    /// True when the sink asked to stop.
    stopped: bool,
}

/// Kills and reaps what is still running, on every way out.
struct Running(Mutex<Child>);

impl Running {
    fn kill(&self) {
        // Failing means that it has ended already.
        let _ = self.0.lock().unwrap_or_else(PoisonError::into_inner).kill();
    }

    fn wait(&self) -> io::Result<ExitStatus> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).wait()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
        let _ = self.wait();
    }
}

fn run(mut command: Command, path: &Path, sink: &mut Sink<'_, u8>) -> Result<End, AudioError> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut stdout = child.stdout.take().expect("asked for above");
    let stderr = child.stderr.take().expect("asked for above");
    let child = Running(Mutex::new(child));
    let started = Instant::now();
    let millis = || u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    // When the wait for output began; `u64::MAX` while it is the sink that takes its time.
    let waiting = AtomicU64::new(0);
    let (done, stalled) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let last = scope.spawn(|| last_line(stderr));
        let watchdog = scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                let since = waiting.load(Ordering::Acquire);
                if since != u64::MAX && millis().saturating_sub(since) > STALL.as_millis() as u64 {
                    stalled.store(true, Ordering::Release);
                    child.kill();
                    return;
                }
                thread::park_timeout(Duration::from_secs(1));
            }
        });
        let mut buffer = vec![0; READ];
        let outcome = loop {
            waiting.store(millis(), Ordering::Release);
            match stdout.read(&mut buffer) {
                Ok(0) => break Ok(false),
                Ok(read) => {
                    waiting.store(u64::MAX, Ordering::Release);
                    match sink(&buffer[..read]) {
                        Ok(ControlFlow::Continue(())) => {}
                        Ok(ControlFlow::Break(())) => break Ok(true),
                        Err(error) => break Err(error),
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error.into()),
            }
        };
        done.store(true, Ordering::Release);
        watchdog.thread().unpark();
        if !matches!(outcome, Ok(false)) {
            child.kill();
        }
        let status = child.wait();
        let line = last.join().ok().flatten().map(|line| without(&line, path));
        let stopped = outcome?;
        if stalled.load(Ordering::Acquire) {
            let line = format!("no output for {} seconds", STALL.as_secs());
            return Err(AudioError::Ffmpeg { line });
        }
        Ok(End { status: status?, line, stopped })
    })
}

/// The last line that says something, cut to a readable length.
fn last_line(stderr: impl Read) -> Option<String> {
    const LONGEST: u64 = 4_096;
    let mut reader = BufReader::new(stderr);
    let (mut line, mut last) = (Vec::new(), None);
    // Everything must be read, or the child blocks on a full pipe.
    while reader.by_ref().take(LONGEST).read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        let text = String::from_utf8_lossy(&line);
        let text = text.trim();
        if !text.is_empty() {
            last = Some(text.chars().take(300).collect());
        }
        line.clear();
    }
    last
}

/// Where the file lies is nobody's business but the operator's.
fn without(line: &str, path: &Path) -> String {
    let mut line = line.to_owned();
    for name in [url(path).ok(), Some(path.as_os_str().to_owned())].into_iter().flatten() {
        if let Some(name) = OsStr::to_str(&name) {
            line = line.replace(&format!("{name}: "), "").replace(name, "the file");
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_only_names() {
        let name = |path: &str| url(Path::new(path)).expect("absolute").into_string().expect("UTF-8");
        assert!(name("-version").starts_with("file:/"));
        assert_eq!(name("/a/concat:b|c"), "file:/a/concat:b|c");
    }

    #[test]
    fn lines_keep_no_paths() {
        let line = without("file:/data/x/y: Invalid data found", Path::new("/data/x/y"));
        assert_eq!(line, "Invalid data found");
        assert_eq!(last_line(&b"one\ntwo\n\n"[..]).as_deref(), Some("two"));
        assert_eq!(last_line(&b""[..]), None);
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
}
