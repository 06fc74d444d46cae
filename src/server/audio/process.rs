//! The server's side of decoders: starts a process for each recording, reads its output, and ends it when it is no
//! longer wanted, takes too long or violates the protocol. Whatever a recording does to a decoder, the server only
//! learns that it can't be used. Called by `sessions` (uploads), `jobs::spool` (transcription), `doctor` and `Node`.

mod copy;
mod mixer;

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{self, Instant};

use super::child::ALLOCATOR;
use super::crosstalk::Crosstalk;
use super::level::{Choice, Level, Meter, tracks_remark};
use super::timed;
use super::timeline::{Item, Timeline};
use super::waveform::Builder;
use super::wire::{self, Declares, Frame, MAX_SAMPLES, Message};
use super::{
    AudioError, AudioInfo, ChannelSelection, Decoded, Limits, Problem, SAMPLE_RATE, Selection, ffmpeg, remarks,
};
use crate::model::{Remark, Track};
use crate::server::config::DecodeConfig;
use crate::server::stderr_tail::StderrTail;
use crate::server::turns::{Caller, Turns};
pub use copy::{CopyError, Copying, wav_head};
use mixer::Mixer;

/// The variables that decoders get of the server's environment: where programs and libraries are.
const ENVIRONMENT: [&str; 2] = ["PATH", "LD_LIBRARY_PATH"];

/// The longest output of ffprobe, in bytes. It lists up to a hundred tracks.
const MAX_ANSWER: usize = 256 * 1024;

/// How long a decoder may take to exit after it has closed its output.
const EXIT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the check at the start may take on a busy machine.
const CHECK_TIMEOUT: Duration = Duration::from_secs(30);

/// Why an upload could not be probed.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("{0}")]
    Audio(#[from] AudioError),
    /// No decoder was free in time, or the machine was too busy to run it.
    #[error("the decoders are busy")]
    Busy {
        /// Seconds after which to try again.
        retry_secs: u32,
    },
}

impl From<io::Error> for ProbeError {
    fn from(error: io::Error) -> Self {
        Self::Audio(error.into())
    }
}

/// Starts decoders, only so many at once. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Decoders {
    program: PathBuf,
    config: DecodeConfig,
    /// Separate places for probing and decoding, so that workers and uploads don't wait for each other.
    probes: Arc<Turns>,
    decodes: Arc<Semaphore>,
}

impl Decoders {
    /// Runs decoders with this `hark` program, or the running one.
    #[must_use]
    pub fn new(config: &DecodeConfig, program: Option<&Path>) -> Self {
        let at_once = config.at_once();
        Self {
            // Not its path, where another version may be installed by now.
            program: program.map_or_else(|| PathBuf::from("/proc/self/exe"), Path::to_owned),
            config: config.clone(),
            probes: Turns::new(at_once),
            decodes: Arc::new(Semaphore::new(at_once)),
        }
    }

    /// Reads a recording's format within the time that the caller waits for it.
    ///
    /// # Errors
    /// Why the recording can't be used, as far as that shows this early, or that all decoders are busy.
    pub async fn probe(&self, recording: &Path, limits: Limits, caller: Caller) -> Result<AudioInfo, ProbeError> {
        let retry_secs = self.config.probe_secs.saturating_add(self.config.probe_wait_secs);
        let busy = || ProbeError::Busy { retry_secs };
        let wait = Duration::from_secs(u64::from(self.config.probe_wait_secs));
        let _place = time::timeout(wait, Turns::take(&self.probes, caller)).await.map_err(|_| busy())?;
        let file = open(recording).await?;
        let time_limit = TimeLimit::total(Duration::from_secs(u64::from(self.config.probe_secs)));
        let cpu_secs = u64::from(self.config.probe_secs);
        match self.identify(&file, recording, limits, Task::Probe, cpu_secs, time_limit).await {
            Ok(identified) => {
                let info = match identified {
                    Identified::BuiltIn(_, info) => info,
                    Identified::Ffmpeg { tracks, default, .. } => tracks[default].info.clone(),
                };
                check_duration(info.duration, limits)?;
                Ok(info)
            }
            Err(DecoderFailure::Audio(error)) => Err(error.into()),
            Err(DecoderFailure::Starved) => Err(busy()),
        }
    }

    /// Begins to decode what was selected of a recording at full speed, once a decoder is free.
    ///
    /// # Errors
    /// Every [`AudioError`] that shows before the first samples.
    pub async fn decode(&self, recording: &Path, limits: Limits, selection: Selection) -> Result<Decoding, AudioError> {
        let permit = Arc::clone(&self.decodes).acquire_owned().await.map_err(io::Error::other)?;
        let decoding = self.begin(recording, limits, selection).await?;
        Ok(Decoding { _permit: Some(permit), ..decoding })
    }

    /// Begins to decode what was selected of a recording for a reader who may take hours. This decoder mostly waits, so it takes no permit:
    /// otherwise a few slow readers would keep all other recordings from being decoded.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub async fn decode_slowly(
        &self,
        recording: &Path,
        limits: Limits,
        selection: Selection,
    ) -> Result<Decoding, AudioError> {
        self.begin(recording, limits, selection).await
    }

    async fn begin(&self, recording: &Path, limits: Limits, selection: Selection) -> Result<Decoding, AudioError> {
        let first = self.begin_track(recording, limits, selection).await?;
        if selection.track != Some(Track::Mix) || first.info.tracks < 2 {
            return Ok(first);
        }
        drop(first.source);
        let tracks = first.info.tracks;
        let mixed = tracks.min(self.config.max_mixed_tracks);
        let (mut mixer, mut failure, mut remarks) = (Mixer::default(), None, vec![mix_remark(tracks, mixed)]);
        for number in 1..=mixed {
            let selection = Selection { track: Some(Track::Number(number)), ..selection };
            match self.begin_track(recording, limits, selection).await {
                Ok(decoding) => mixer.add(number, decoding),
                Err(error @ AudioError::Io(_)) => return Err(error),
                Err(error) => {
                    remarks.push(Remark::new("tracks", &format!("Track {number} could not be heard.")));
                    failure.get_or_insert(error);
                }
            }
        }
        match failure {
            Some(error) if mixer.is_empty() => Err(error),
            _ => Ok(Decoding { info: first.info, remarks, ..Decoding::new(Source::Mixed(mixer), limits) }),
        }
    }

    /// Begins to decode one track.
    async fn begin_track(
        &self,
        recording: &Path,
        limits: Limits,
        selection: Selection,
    ) -> Result<Decoding, AudioError> {
        let file = open(recording).await?;
        let time_limit = TimeLimit::stall(Duration::from_secs(u64::from(self.config.decode_stall_secs)));
        let cpu_secs = self.config.cpu_secs(limits.max_duration);
        let task = Task::Decode(selection);
        let identified =
            self.identify(&file, recording, limits, task, cpu_secs, time_limit).await.map_err(into_audio_error)?;
        let decoding = match identified {
            Identified::BuiltIn(running, info) => Decoding { info, ..Decoding::new(Source::BuiltIn(running), limits) },
            Identified::Ffmpeg { program, tracks, default, declares } => {
                check_duration(tracks[default].info.duration, limits)?;
                let spawn = |task: &ffmpeg::Task| {
                    let task = ffmpeg_task(&program, task);
                    let task: Vec<&OsStr> = task.iter().map(OsString::as_os_str).collect();
                    self.spawn(&file, recording, &task, cpu_secs, time_limit)
                };
                let (track, level) = choose_track(&tracks, default, limits, selection, spawn).await?;
                let (info, is_exact) = (tracks[track].info.clone(), tracks[track].is_exact);
                let choice = match selection.track {
                    Some(Track::Number(_)) => Choice::Chosen,
                    _ if track != default => Choice::InsteadOf(default + 1),
                    _ => Choice::Default,
                };
                let mut remarks: Vec<Remark> = tracks_remark(tracks.len(), track + 1, &choice).into_iter().collect();
                remarks.extend(level.remarks);
                let (stream, channels) = (tracks[track].stream, info.channels);
                let (decode, speaker) = match selection.channels {
                    ChannelSelection::Only(channel) if channels == 2 => {
                        let both = ffmpeg::Task::DecodeBoth { stream, gain: level.mix.gain };
                        (both, Some(Crosstalk::new(channel, SAMPLE_RATE)))
                    }
                    _ => (ffmpeg::Task::Decode { stream, channels, mix: level.mix }, None),
                };
                let source = Source::Ffmpeg(Box::new(Timed::new(spawn(&decode)?, speaker)));
                Decoding {
                    info,
                    is_exact,
                    is_apart: level.is_apart,
                    declares,
                    remarks,
                    ..Decoding::new(source, limits)
                }
            }
        };
        Ok(decoding)
    }

    /// Checks that decoders can be started and confined here. Returns what is missing, in words for an operator.
    pub async fn check(&self) -> Vec<String> {
        let checking = async {
            let mut found = match self.check_one(&["check".as_ref()]).await {
                Ok(missing) if missing.is_empty() => Vec::new(),
                Ok(missing) => {
                    let layers: Vec<&str> = missing.lines().collect();
                    vec![format!("decoders run without {}", layers.join(", "))]
                }
                Err(reason) => vec![format!("decoders don't run within their limits: {reason}")],
            };
            if let Some(programs) = ffmpeg::find()
                && let Err(reason) = self.check_one(&["check-ffmpeg".as_ref(), programs.ffmpeg.as_os_str()]).await
            {
                found.push(format!("ffmpeg doesn't run within its limits: {reason}"));
            }
            found
        };
        time::timeout(CHECK_TIMEOUT, checking).await.unwrap_or_else(|_| vec!["the decoders didn't answer".to_owned()])
    }

    /// Returns the output of a task that needs no recording.
    async fn check_one(&self, task: &[&OsStr]) -> Result<String, String> {
        let nothing = File::open("/dev/null").map_err(|e| e.to_string())?;
        let cpu_secs = u64::from(self.config.probe_secs);
        let spawned = self.spawn(&nothing, Path::new("/dev/null"), task, cpu_secs, TimeLimit::total(CHECK_TIMEOUT));
        let mut running = spawned.map_err(|e| e.to_string())?;
        let said = running.read_to_end().await.map_err(|_| "its output is too long".to_owned())?;
        let (status, stderr_tail) = running.exit_status().await;
        match status {
            Some(status) if status.success() => Ok(String::from_utf8_lossy(&said).into_owned()),
            Some(status) => Err(format!("{status} {stderr_tail}").trim_end().to_owned()),
            None => Err("it doesn't end".to_owned()),
        }
    }

    /// Identifies a recording with the built-in decoders, then with ffprobe.
    async fn identify(
        &self,
        file: &File,
        recording: &Path,
        limits: Limits,
        task: Task,
        cpu_secs: u64,
        time_limit: TimeLimit,
    ) -> Result<Identified, DecoderFailure> {
        let longest = limits.max_duration.to_string();
        let mut arguments = vec![if task == Task::Probe { "probe" } else { "decode" }, "--max-duration", &longest];
        let (number, channel);
        if let Task::Decode(selection) = task {
            if let Some(Track::Number(track)) = selection.track {
                number = track.to_string();
                arguments.extend(["--track", &number]);
            }
            match selection.channels {
                ChannelSelection::Mix => {}
                ChannelSelection::FindSpeakers => arguments.push("--find-speakers"),
                ChannelSelection::Only(only) => {
                    channel = only.to_string();
                    arguments.extend(["--channel", &channel]);
                }
            }
        }
        let arguments: Vec<&OsStr> = arguments.into_iter().map(OsStr::new).collect();
        let mut running = self.spawn(file, recording, &arguments, cpu_secs, time_limit)?;
        let mut declares = Declares::default();
        let problem = loop {
            match running.frame().await? {
                Some(Frame::Message(Message::Recognised(what))) if running.recognised.is_none() => {
                    running.recognised = Some(what);
                }
                Some(Frame::Message(Message::Declares(head))) if declares == Declares::default() => declares = head,
                Some(Frame::Message(Message::Opened(info) | Message::Ended { info, .. })) => {
                    return Ok(Identified::BuiltIn(Box::new(running), info));
                }
                Some(Frame::Message(Message::TryFfmpeg(problem))) => break problem,
                Some(Frame::Message(Message::Refused(error))) => {
                    return Err(error.with(ffmpeg::available(), limits.max_duration).into());
                }
                _ => return Err(running.report_death().await.into()),
            }
        };
        let recognised = running.recognised.take();
        drop(running);
        let Some(programs) = ffmpeg::find() else {
            return Err(AudioError::Unreadable { recognised, problem, ffmpeg: false }.into());
        };
        let mut answer = None;
        for pictures in [None, Some("--pictures".as_ref())] {
            let task: Vec<&OsStr> =
                ["ffprobe".as_ref(), programs.ffprobe.as_os_str()].into_iter().chain(pictures).collect();
            let mut running = self.spawn(file, recording, &task, cpu_secs, time_limit)?;
            running.recognised.clone_from(&recognised);
            let output = running.read_to_end().await?;
            match running.exit_status().await {
                (Some(status), _) if status.success() => {
                    answer = Some(output);
                    break;
                }
                (Some(status), stderr_tail) if status.signal().is_none() => {
                    tracing::info!(recording = running.name, %status, ?stderr_tail, "ffprobe can't read a recording");
                }
                (status, stderr_tail) => return Err(running.death_error(status, &stderr_tail).into()),
            }
        }
        let Some(answer) = answer else {
            return Err(AudioError::Unreadable { recognised, problem, ffmpeg: true }.into());
        };
        match ffmpeg::parse_probe(&answer, &declares) {
            Ok((mut tracks, default)) => {
                for track in &mut tracks {
                    track.info = wire::sanitise_info(track.info.clone())?;
                }
                Ok(Identified::Ffmpeg { program: programs.ffmpeg, tracks, default, declares })
            }
            Err(ffmpeg::Refusal::Unknown) => Err(AudioError::Unreadable { recognised, problem, ffmpeg: true }.into()),
            Err(ffmpeg::Refusal::NoAudio(format)) => Err(AudioError::NoAudioTrack { format }.into()),
        }
    }

    fn spawn(
        &self,
        file: &File,
        recording: &Path,
        task: &[&OsStr],
        cpu_secs: u64,
        time_limit: TimeLimit,
    ) -> io::Result<Running> {
        self.spawn_on(Stdio::from(file.try_clone()?), recording, task, cpu_secs, time_limit)
    }

    fn spawn_on(
        &self,
        input: Stdio,
        recording: &Path,
        task: &[&OsStr],
        cpu_secs: u64,
        time_limit: TimeLimit,
    ) -> io::Result<Running> {
        let mut command = Command::new(&self.program);
        command.arg0("hark").arg("decoder").args(task);
        command.arg("--memory").arg(self.config.decode_memory_bytes.to_string());
        command.arg("--cpu-secs").arg(cpu_secs.to_string());
        // A decoder can't leak what it doesn't know.
        command.env_clear();
        command.envs(ENVIRONMENT.iter().filter_map(|name| Some((*name, std::env::var_os(name)?))));
        command.env(ALLOCATOR.0, ALLOCATOR.1);
        // A process group of its own, so that a kill also ends any process that the decoder might start.
        command.process_group(0).kill_on_drop(true);
        command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
        let started = |error: io::Error| io::Error::new(error.kind(), format!("a decoder can't be started: {error}"));
        let mut child = command.spawn().map_err(started)?;
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(io::Error::other("a decoder's pipes are missing"));
        };
        Ok(Running {
            child,
            out: BufReader::with_capacity(2 * MAX_SAMPLES, stdout),
            stderr: StderrTail::read(stderr, "a decoder"),
            time_limit,
            recognised: None,
            // The file's name is the session's id.
            name: recording.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        })
    }
}

/// Opens a recording for a decoder, which gets only this open file.
async fn open(recording: &Path) -> io::Result<File> {
    let file = tokio::fs::File::open(recording).await?.into_std().await;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("not a regular file")) }
}

fn check_duration(declared: Option<f64>, limits: Limits) -> Result<(), AudioError> {
    match declared {
        Some(duration) if duration > limits.max_duration => {
            Err(AudioError::TooLong { duration, at_least: false, limit: limits.max_duration })
        }
        _ => Ok(()),
    }
}

/// What the built-in decoders are to do with a recording.
#[derive(Clone, Copy, PartialEq)]
enum Task {
    Probe,
    Decode(Selection),
}

/// Which decoder can read a recording.
enum Identified {
    /// The running decoder, which continues with the samples if it was asked to decode.
    BuiltIn(Box<Running>, AudioInfo),
    /// ffmpeg, which is here, can decode it. Its audio tracks, the number of the one that the file prefers, and what ffmpeg
    /// doesn't report.
    Ffmpeg { program: PathBuf, tracks: Vec<ffmpeg::Track>, default: usize, declares: Declares },
}

/// The arguments of a decoder that becomes ffmpeg.
fn ffmpeg_task(program: &Path, task: &ffmpeg::Task) -> Vec<OsString> {
    let (stream, channels) = match task {
        ffmpeg::Task::Measure { stream, channels } | ffmpeg::Task::Decode { stream, channels, .. } => {
            (stream, *channels)
        }
        ffmpeg::Task::DecodeBoth { stream, .. } => (stream, 2),
    };
    let mut arguments: Vec<OsString> = vec!["ffmpeg".into(), program.into()];
    let mut option = |name: &str, value: String| arguments.extend([name.into(), value.into()]);
    option("--stream", stream.to_string());
    option("--channels", channels.to_string());
    match task {
        ffmpeg::Task::Measure { .. } => arguments.push("--measure".into()),
        ffmpeg::Task::DecodeBoth { gain, .. } => {
            option("--gain", gain.to_string());
            arguments.push("--both".into());
        }
        ffmpeg::Task::Decode { mix, .. } => {
            option("--gain", mix.gain.to_string());
            if let Some(channels) = &mix.channels {
                let channels: Vec<String> = channels.iter().map(ToString::to_string).collect();
                option("--mix", channels.join(","));
            }
        }
    }
    arguments
}

/// Chooses the track to be heard and measures its level: the one that was selected; otherwise the one that the file
/// prefers, unless it is silent and another one isn't.
async fn choose_track(
    tracks: &[ffmpeg::Track],
    default: usize,
    limits: Limits,
    selection: Selection,
    spawn: impl Fn(&ffmpeg::Task) -> io::Result<Running>,
) -> Result<(usize, Level), AudioError> {
    let measure = async |track: &ffmpeg::Track| {
        let (stream, channels) = (track.stream, track.info.channels);
        let mut running = spawn(&ffmpeg::Task::Measure { stream, channels })?;
        running.measure(&track.info, limits, selection.channels).await.map_err(into_audio_error)
    };
    if let Some(Track::Number(wanted)) = selection.track {
        let number = usize::from(wanted) - 1;
        let missing = AudioError::NoSuchTrack { wanted, tracks: tracks[default].info.tracks };
        let track = tracks.get(number).ok_or(missing)?;
        return Ok((number, measure(track).await?));
    }
    let mut chosen = (default, measure(&tracks[default]).await?);
    if chosen.1.is_silent() {
        for (number, track) in tracks.iter().enumerate().filter(|(number, _)| *number != default) {
            let level = measure(track).await?;
            if level.is_louder_than(&chosen.1) {
                chosen = (number, level);
            }
        }
    }
    Ok(chosen)
}

/// Why a decoder gave no result.
#[derive(Debug)]
enum DecoderFailure {
    Audio(AudioError),
    /// It had almost no processor time, or no data, so the recording isn't to blame.
    Starved,
}

impl From<AudioError> for DecoderFailure {
    fn from(error: AudioError) -> Self {
        Self::Audio(error)
    }
}

impl From<io::Error> for DecoderFailure {
    fn from(error: io::Error) -> Self {
        Self::Audio(error.into())
    }
}

fn into_audio_error(failure: DecoderFailure) -> AudioError {
    match failure {
        DecoderFailure::Audio(error) => error,
        DecoderFailure::Starved => {
            AudioError::Io(io::Error::new(io::ErrorKind::TimedOut, "a decoder had no processor time, or no data"))
        }
    }
}

/// How long to wait for a decoder.
#[derive(Clone, Copy, Debug)]
struct TimeLimit {
    /// For its next output.
    silence: Duration,
    /// For all of its output.
    deadline: Option<Instant>,
}

impl TimeLimit {
    fn total(limit: Duration) -> Self {
        Self { silence: limit, deadline: Some(Instant::now() + limit) }
    }

    fn stall(silence: Duration) -> Self {
        Self { silence, deadline: None }
    }

    fn remaining(self) -> Duration {
        self.deadline.map_or(self.silence, |deadline| deadline.saturating_duration_since(Instant::now()))
    }
}

/// A running decoder. Dropping it ends the process.
struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
    stderr: StderrTail,
    time_limit: TimeLimit,
    /// What the recording looks like, with an article.
    recognised: Option<String>,
    /// The recording's file name, for the log.
    name: String,
}

impl Running {
    /// Reads the next frame. Returns none at the end of the output, or if it isn't a valid frame.
    async fn frame(&mut self) -> Result<Option<Frame>, DecoderFailure> {
        let pid = self.pid();
        let read = wire::read(&mut self.out);
        match within_time_limit(self.time_limit, pid, read).await {
            Ok(Ok(frame)) => Ok(frame),
            Ok(Err(error)) if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) => {
                tracing::warn!(recording = self.name, %error, "a decoder's output broke off or is invalid");
                Ok(None)
            }
            Ok(Err(error)) => Err(error.into()),
            Err(cause) => Err(self.timed_out(cause)),
        }
    }

    /// Reads the next frame that isn't an empty one, by which a decoder that only measures shows that it is alive. Notes
    /// whether two speakers were found.
    async fn samples_or_end(&mut self, is_apart: &mut bool) -> Result<Option<Frame>, DecoderFailure> {
        loop {
            match self.frame().await? {
                Some(Frame::Message(Message::Apart)) => *is_apart = true,
                Some(Frame::Samples(samples)) if samples.is_empty() => {}
                other => return Ok(other),
            }
        }
    }

    /// Reads output until the buffer is full or the output ends.
    async fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, DecoderFailure> {
        let pid = self.pid();
        match within_time_limit(self.time_limit, pid, fill(&mut self.out, buffer)).await {
            Ok(filled) => Ok(filled?),
            Err(cause) => Err(self.timed_out(cause)),
        }
    }

    /// Reads the next samples of ffmpeg and when they begin; none at the end of the output, or where it breaks off.
    async fn block(&mut self, blocks: &mut timed::Blocks) -> Result<Option<(f64, Vec<i16>)>, DecoderFailure> {
        let pid = self.pid();
        match within_time_limit(self.time_limit, pid, blocks.next(&mut self.out)).await {
            Ok(Ok(block)) => Ok(block),
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                tracing::warn!(recording = self.name, %error, "ffmpeg's output is invalid");
                Err(self.unreadable(Problem::Crashed).into())
            }
            Ok(Err(error)) => Err(error.into()),
            Err(cause) => Err(self.timed_out(cause)),
        }
    }

    /// Measures the level of floats at 16 kHz in as much of the output as is needed.
    async fn measure(
        &mut self,
        info: &AudioInfo,
        limits: Limits,
        selected: ChannelSelection,
    ) -> Result<Level, DecoderFailure> {
        let channels = usize::from(info.channels.max(1));
        let find_speakers = selected == ChannelSelection::FindSpeakers;
        let measured = if let ChannelSelection::Only(_) = selected { 1 } else { info.channels.max(1) };
        let mut meter = Meter::new(&info.codec, SAMPLE_RATE, measured);
        let only = if let ChannelSelection::Only(channel) = selected { channel } else { 0 };
        let mut crosstalk = Crosstalk::new(only, SAMPLE_RATE);
        let mut bytes = vec![0; 4 * channels * MAX_SAMPLES];
        let (mut pieces, most) = (0.0, limits.max_duration * f64::from(SAMPLE_RATE) / MAX_SAMPLES as f64);
        while !meter.is_enough(find_speakers) && pieces <= most {
            let filled = self.fill(&mut bytes).await?;
            let samples =
                bytes[..filled].chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]]));
            let samples: Vec<f32> = samples.collect();
            match selected {
                ChannelSelection::Only(_) => meter.add(&crosstalk.remove(&samples, channels), 1),
                _ => meter.add(&samples, channels),
            }
            if filled < bytes.len() {
                break;
            }
            pieces += 1.0;
        }
        Ok(meter.decide(find_speakers))
    }

    /// Reads the whole output, if it isn't too long.
    async fn read_to_end(&mut self) -> Result<Vec<u8>, DecoderFailure> {
        let mut answer = vec![0; MAX_ANSWER + 1];
        let filled = self.fill(&mut answer).await?;
        if filled > MAX_ANSWER {
            self.kill();
            return Err(self.death_error(None, "its output is too long").into());
        }
        answer.truncate(filled);
        Ok(answer)
    }

    /// Ends a decoder that has taken too long.
    fn timed_out(&mut self, cause: TimeoutCause) -> DecoderFailure {
        self.kill();
        tracing::warn!(recording = self.name, ?cause, "a decoder took too long");
        match cause {
            TimeoutCause::Busy => self.unreadable(Problem::TooCostly).into(),
            TimeoutCause::Starved => DecoderFailure::Starved,
        }
    }

    /// Returns why its output ended early.
    async fn report_death(&mut self) -> AudioError {
        let (status, stderr_tail) = self.exit_status().await;
        self.death_error(status, &stderr_tail)
    }

    fn death_error(&self, status: Option<ExitStatus>, stderr_tail: &str) -> AudioError {
        let signal = status.and_then(|status| status.signal());
        let costly = [Signal::XCPU, Signal::KILL, Signal::ABORT].map(Signal::as_raw);
        let problem = if signal.is_some_and(|s| costly.contains(&s)) { Problem::TooCostly } else { Problem::Crashed };
        let status = status.map_or_else(|| "it was ended".to_owned(), |status| status.to_string());
        tracing::warn!(recording = self.name, status, ?stderr_tail, "a decoder died while decoding a recording");
        self.unreadable(problem)
    }

    fn unreadable(&self, problem: Problem) -> AudioError {
        AudioError::Unreadable { recognised: self.recognised.clone(), problem, ffmpeg: ffmpeg::available() }
    }

    /// Waits for its exit. Returns its status, or none if it had to be killed, and the last lines of its standard
    /// error.
    async fn exit_status(&mut self) -> (Option<ExitStatus>, String) {
        let status = time::timeout(EXIT_TIMEOUT, self.child.wait()).await.ok().and_then(Result::ok);
        if status.is_none() {
            self.kill();
        }
        (status, self.stderr.last_lines().await)
    }

    fn pid(&self) -> Option<Pid> {
        self.child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw)
    }

    fn kill(&self) {
        if let Some(pid) = self.pid() {
            let _ = kill_process_group(pid, Signal::KILL); // fails if it has ended by itself
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn fill(from: &mut (impl AsyncRead + Unpin), buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]).await? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

/// Why a decoder took too long.
#[derive(Clone, Copy, Debug)]
enum TimeoutCause {
    /// It used processor time.
    Busy,
    /// It had almost none.
    Starved,
}

/// Waits for `work` within the time limit. If the limit is reached, the processor time that the decoder used in the
/// second half tells whether it was busy or starved.
async fn within_time_limit<T>(
    time_limit: TimeLimit,
    pid: Option<Pid>,
    work: impl Future<Output = T>,
) -> Result<T, TimeoutCause> {
    /// The share of the time for which a decoder that is to blame has had a processor, even at its low priority.
    const BUSY_SHARE: f64 = 0.1;
    /// Seconds of processor time that are enough to identify any recording.
    const ENOUGH_CPU_SECS: f64 = 0.5;
    let half = time_limit.remaining() / 2;
    tokio::pin!(work);
    if let Ok(done) = time::timeout(half, &mut work).await {
        return Ok(done);
    }
    let (before, since) = (pid.and_then(cpu_secs), Instant::now());
    if let Ok(done) = time::timeout(half, &mut work).await {
        return Ok(done);
    }
    let (now, before) = pid.and_then(cpu_secs).zip(before).unwrap_or_default();
    let was_busy = now - before > since.elapsed().as_secs_f64() * BUSY_SHARE
        || (time_limit.deadline.is_some() && now > ENOUGH_CPU_SECS);
    Err(if was_busy { TimeoutCause::Busy } else { TimeoutCause::Starved })
}

/// Returns the processor time that a process has used, in seconds.
fn cpu_secs(pid: Pid) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The name, in parentheses, may contain anything. The fields from the third on follow it.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / rustix::param::clock_ticks_per_second() as f64)
}

/// A recording that is being decoded. Dropping it ends the decoder.
pub struct Decoding {
    info: AudioInfo,
    /// Whether the length that ffmpeg tells is counted and not estimated.
    is_exact: bool,
    /// None after the end of the recording.
    source: Option<Source>,
    sample_count: u64,
    waveform: Builder,
    /// Whether two speakers on two channels were to be found, and were.
    is_apart: bool,
    /// What ffmpeg doesn't report.
    declares: Declares,
    remarks: Vec<Remark>,
    limits: Limits,
    _permit: Option<OwnedSemaphorePermit>,
}

enum Source {
    BuiltIn(Box<Running>),
    Ffmpeg(Box<Timed>),
    /// Several tracks, each with a decoder of its own.
    Mixed(Mixer),
}

/// The remark about a mix of the first of so many audio tracks.
fn mix_remark(tracks: u16, mixed: u16) -> Remark {
    let message = if mixed < tracks {
        format!("The recording has {tracks} audio tracks. The first {mixed} were mixed, which is the most that can be.")
    } else {
        format!("The recording has {tracks} audio tracks, which were mixed.")
    };
    Remark::new("tracks", &message)
}

/// A running ffmpeg, and what was read of its output and not passed on.
struct Timed {
    running: Running,
    /// Takes a speaker out of its two channels, if only one is to be heard. Otherwise it writes one.
    speaker: Option<Crosstalk>,
    blocks: timed::Blocks,
    timeline: Timeline<Vec<i16>>,
    items: VecDeque<Item<Vec<i16>>>,
    /// Samples of silence that follow.
    silence: u64,
    samples: VecDeque<i16>,
    at_end: bool,
}

impl Timed {
    fn new(running: Running, speaker: Option<Crosstalk>) -> Self {
        let mut timeline = Timeline::new();
        // ffmpeg's clock begins with the recording. What is before the first sample is silence.
        timeline.begin(0.0);
        Self {
            running,
            speaker,
            blocks: timed::Blocks::new(),
            timeline,
            items: VecDeque::new(),
            silence: 0,
            samples: VecDeque::new(),
            at_end: false,
        }
    }

    /// Returns the next samples, half a second unless it is the last; none at the end. Silence of any length takes no
    /// memory.
    async fn next(&mut self) -> Result<Vec<i16>, DecoderFailure> {
        while self.samples.len() < MAX_SAMPLES {
            if self.silence > 0 {
                let room = (MAX_SAMPLES - self.samples.len()) as u64;
                let now = self.silence.min(room);
                self.samples.resize(self.samples.len() + usize::try_from(now).unwrap_or(0), 0);
                self.silence -= now;
            } else if let Some(item) = self.items.pop_front() {
                match item {
                    Item::Block(samples) => self.samples.extend(samples),
                    Item::Silence(seconds) => self.silence = (seconds * f64::from(SAMPLE_RATE)).round() as u64,
                }
            } else if self.at_end {
                break;
            } else if let Some((at, samples)) = self.running.block(&mut self.blocks).await? {
                let samples = match &mut self.speaker {
                    Some(speaker) => {
                        let both: Vec<f32> = samples.into_iter().map(f32::from).collect();
                        speaker.remove(&both, 2).into_iter().map(|sample| sample.round() as i16).collect()
                    }
                    None => samples,
                };
                let length = samples.len() as f64 / f64::from(SAMPLE_RATE);
                self.items.extend(self.timeline.place(at, samples, length));
            } else {
                self.at_end = true;
                self.items.extend(self.timeline.end());
            }
        }
        let count = self.samples.len().min(MAX_SAMPLES);
        Ok(self.samples.drain(..count).collect())
    }
}

impl Decoding {
    fn new(source: Source, limits: Limits) -> Self {
        let (format, codec) = (String::new(), String::new());
        Self {
            info: AudioInfo { format, codec, sample_rate: 0, channels: 0, tracks: 0, duration: None },
            is_exact: false,
            source: Some(source),
            sample_count: 0,
            waveform: Builder::new(),
            is_apart: false,
            declares: Declares::default(),
            remarks: Vec::new(),
            limits,
            _permit: None,
        }
    }

    /// Returns the next samples: 16 kHz, mono, half a second or less; none at the end. The future must not be dropped
    /// before it is done.
    ///
    /// # Errors
    /// Every [`AudioError`]. Samples returned before must be discarded.
    pub async fn next(&mut self) -> Result<Option<Vec<i16>>, AudioError> {
        let samples = match &mut self.source {
            None => return Ok(None),
            Some(Source::BuiltIn(running)) => {
                match running.samples_or_end(&mut self.is_apart).await.map_err(into_audio_error)? {
                    Some(Frame::Samples(samples)) => samples,
                    Some(Frame::Message(Message::Ended { info, remarks })) => {
                        (self.info, self.remarks) = (info, remarks);
                        self.source = None;
                        return Ok(None);
                    }
                    Some(Frame::Message(Message::Refused(error))) => {
                        return Err(error.with(ffmpeg::available(), self.limits.max_duration));
                    }
                    _ => return Err(running.report_death().await),
                }
            }
            Some(Source::Mixed(mixer)) => match mixer.next().await? {
                Some(samples) => samples,
                None => {
                    for remark in mixer.remarks() {
                        remark.add_to(&mut self.remarks);
                    }
                    self.source = None;
                    return Ok(None);
                }
            },
            Some(Source::Ffmpeg(timed)) => {
                let samples = timed.next().await.map_err(into_audio_error)?;
                if samples.is_empty() {
                    self.check_ffmpeg().await?;
                    self.source = None;
                    return Ok(None);
                }
                samples
            }
        };
        self.sample_count += samples.len() as u64;
        if self.duration() > self.limits.max_duration {
            return Err(AudioError::TooLong {
                duration: self.duration(),
                at_least: true,
                limit: self.limits.max_duration,
            });
        }
        self.waveform.push(&samples);
        Ok(Some(samples))
    }

    /// Whether two speakers on two channels were to be found, and were. Known with the first samples.
    #[must_use]
    pub fn is_apart(&self) -> bool {
        self.is_apart
    }

    /// Returns the result, once there are no more samples.
    #[must_use]
    pub fn finish(self) -> Decoded {
        let duration = self.duration();
        Decoded { info: self.info, duration, waveform: self.waveform.finish(), remarks: self.remarks }
    }

    fn duration(&self) -> f64 {
        self.sample_count as f64 / f64::from(SAMPLE_RATE)
    }

    /// Checks whether ffmpeg has decoded as much as the recording declares.
    async fn check_ffmpeg(&mut self) -> Result<(), AudioError> {
        let found = self.duration();
        let Some(Source::Ffmpeg(timed)) = &mut self.source else { return Ok(()) };
        self.remarks.extend(self.declares.is_joined.then(|| remarks::left_out(found)));
        let running = &mut timed.running;
        match running.exit_status().await {
            (Some(status), _) if status.success() => {}
            (Some(status), stderr_tail) if status.signal().is_none() => {
                tracing::info!(recording = running.name, %status, ?stderr_tail, "ffmpeg can't decode a recording");
                if found == 0.0 {
                    return Err(AudioError::Ffmpeg);
                }
                self.remarks.push(remarks::unfinished(found));
                return Ok(());
            }
            (status, stderr_tail) => return Err(running.death_error(status, &stderr_tail)),
        }
        if found == 0.0 {
            return Err(AudioError::NoSamples { format: self.info.format.clone() });
        }
        let other_length = |declared| remarks::other_length(declared, self.is_exact, found, found);
        let missing = self.info.duration.and_then(other_length);
        let breaks_off = self.declares.is_cut && self.info.duration.is_none();
        self.remarks.extend(missing.or_else(|| breaks_off.then(|| remarks::breaks_off(found))));
        Ok(())
    }
}
