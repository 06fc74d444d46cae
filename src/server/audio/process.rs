//! The server's side of decoders: starts a process for each recording, reads what it says, and ends it when it is no longer
//! wanted, takes too long or breaks the protocol. So whatever a recording does to a decoder, the server only learns that
//! it can't be used. Called by `sessions` (uploads), `jobs::spool` (transcription), `doctor` and `Node`.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{self, Instant};

use super::child::ALLOCATOR;
use super::waveform::Builder;
use super::wire::{self, Frame, MAX_SAMPLES, Message};
use super::{AudioError, AudioInfo, Decoded, Limits, Problem, SAMPLE_RATE, ffmpeg, is_cut};
use crate::server::config::DecodeConfig;

/// What decoders keep of the server's environment: where programs and libraries are.
const ENVIRONMENT: [&str; 2] = ["PATH", "LD_LIBRARY_PATH"];

/// The longest answer of ffprobe, in bytes. It lists up to a hundred tracks.
const MAX_ANSWER: usize = 256 * 1024;

/// Lines of standard error kept for the log, and their length in characters. There may be one for each damaged packet.
const KEPT_LINES: usize = 5;
const KEPT_CHARS: usize = 300;

/// Bytes after which a line counts as one, wherever it ends.
const KEPT_BYTES: usize = 4 * KEPT_CHARS;

/// How long a decoder has to exit after its last word.
const EXIT: Duration = Duration::from_secs(5);

/// How long its last words on standard error are awaited.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How long the check at the start may take. The machine may be busy.
const CHECK: Duration = Duration::from_secs(30);

/// Why there is nothing to say about an upload.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("{0}")]
    Audio(#[from] AudioError),
    /// No decoder was free in time, or the machine was too busy for the one there was.
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

/// Starts decoders, so many at once. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Decoders {
    program: PathBuf,
    config: DecodeConfig,
    /// Uploads are not held up by workers, and the other way round.
    probes: Arc<Semaphore>,
    decodes: Arc<Semaphore>,
}

impl Decoders {
    /// Decoders by this `hark` program, or the running one.
    #[must_use]
    pub fn new(config: &DecodeConfig, program: Option<&Path>) -> Self {
        let at_once = config.at_once();
        Self {
            // Not by its name, under which another version may lie by now.
            program: program.map_or_else(|| PathBuf::from("/proc/self/exe"), Path::to_owned),
            config: config.clone(),
            probes: Arc::new(Semaphore::new(at_once)),
            decodes: Arc::new(Semaphore::new(at_once)),
        }
    }

    /// Tells what a recording is, within the time that somebody waits for it.
    ///
    /// # Errors
    /// Why it can't be used, as far as that shows so early, or that the decoders are busy.
    pub async fn probe(&self, recording: &Path, limits: Limits) -> Result<AudioInfo, ProbeError> {
        let retry_secs = self.config.probe_secs.saturating_add(self.config.probe_wait_secs);
        let busy = || ProbeError::Busy { retry_secs };
        let wait = Duration::from_secs(u64::from(self.config.probe_wait_secs));
        let _permit = match time::timeout(wait, Arc::clone(&self.probes).acquire_owned()).await {
            Ok(permit) => permit.map_err(|_| busy())?,
            Err(_) => return Err(busy()),
        };
        let file = open(recording).await?;
        let patience = Patience::until(Duration::from_secs(u64::from(self.config.probe_secs)));
        let cpu_secs = u64::from(self.config.probe_secs);
        match self.look(&file, recording, limits, "probe", cpu_secs, patience).await {
            Ok(Look::BuiltIn(_, info) | Look::Ffmpeg(_, info)) => {
                within(info.duration, limits)?;
                Ok(info)
            }
            Err(Trouble::Audio(error)) => Err(error.into()),
            Err(Trouble::Starved) => Err(busy()),
        }
    }

    /// Begins to decode a recording as fast as it goes, once a decoder is free.
    ///
    /// # Errors
    /// Every [`AudioError`] that can be told before the first samples.
    pub async fn decode(&self, recording: &Path, limits: Limits) -> Result<Decoding, AudioError> {
        let permit = Arc::clone(&self.decodes).acquire_owned().await.map_err(io::Error::other)?;
        self.begin(recording, limits, Some(permit)).await
    }

    /// Begins to decode a recording for somebody who takes hours over it. As its decoder does next to nothing but wait, it
    /// isn't counted with the others, or a few slow listeners would keep all from being looked at.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub async fn decode_slowly(&self, recording: &Path, limits: Limits) -> Result<Decoding, AudioError> {
        self.begin(recording, limits, None).await
    }

    async fn begin(
        &self,
        recording: &Path,
        limits: Limits,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<Decoding, AudioError> {
        let file = open(recording).await?;
        let patience = Patience::of_silence(Duration::from_secs(u64::from(self.config.decode_stall_secs)));
        let cpu_secs = self.config.cpu_secs(limits.max_duration);
        let look = self.look(&file, recording, limits, "decode", cpu_secs, patience).await.map_err(failed)?;
        let (source, info) = match look {
            Look::BuiltIn(running, info) => (Source::BuiltIn(*running), info),
            Look::Ffmpeg(program, info) => {
                within(info.duration, limits)?;
                let task = ["ffmpeg".as_ref(), program.as_os_str()];
                (Source::Ffmpeg(self.spawn(&file, recording, &task, cpu_secs, patience)?), info)
            }
        };
        Ok(Decoding { info, source: Some(source), given: 0, waveform: Builder::new(), limits, _permit: permit })
    }

    /// What is missing for decoders to be as confined here as they can be, in words for an operator.
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
        time::timeout(CHECK, checking).await.unwrap_or_else(|_| vec!["the decoders didn't answer".to_owned()])
    }

    /// What a decoder says to a task without a recording.
    async fn check_one(&self, task: &[&OsStr]) -> Result<String, String> {
        let nothing = File::open("/dev/null").map_err(|e| e.to_string())?;
        let cpu_secs = u64::from(self.config.probe_secs);
        let spawned = self.spawn(&nothing, Path::new("/dev/null"), task, cpu_secs, Patience::until(CHECK));
        let mut running = spawned.map_err(|e| e.to_string())?;
        let said = running.all().await.map_err(|_| "it says too much".to_owned())?;
        let (status, last_words) = running.ended().await;
        match status {
            Some(status) if status.success() => Ok(String::from_utf8_lossy(&said).into_owned()),
            Some(status) => Err(format!("{status} {last_words}").trim_end().to_owned()),
            None => Err("it doesn't end".to_owned()),
        }
    }

    /// Asks the built-in decoders, then ffprobe.
    async fn look(
        &self,
        file: &File,
        recording: &Path,
        limits: Limits,
        task: &str,
        cpu_secs: u64,
        patience: Patience,
    ) -> Result<Look, Trouble> {
        let longest = limits.max_duration.to_string();
        let task = [task, "--max-duration", &longest].map(OsStr::new);
        let mut running = self.spawn(file, recording, &task, cpu_secs, patience)?;
        let problem = loop {
            match running.frame().await? {
                Some(Frame::Message(Message::Recognised(what))) if running.recognised.is_none() => {
                    running.recognised = Some(what);
                }
                Some(Frame::Message(Message::Opened(info) | Message::Ended(info))) => {
                    return Ok(Look::BuiltIn(Box::new(running), info));
                }
                Some(Frame::Message(Message::NotHere(problem))) => break problem,
                Some(Frame::Message(Message::Refused(error))) => {
                    return Err(error.with(ffmpeg::available(), limits.max_duration).into());
                }
                _ => return Err(running.died().await.into()),
            }
        };
        let recognised = running.recognised.take();
        drop(running);
        let Some(programs) = ffmpeg::find() else {
            return Err(AudioError::Unreadable { recognised, problem, ffmpeg: false }.into());
        };
        let task = ["ffprobe".as_ref(), programs.ffprobe.as_os_str()];
        let mut running = self.spawn(file, recording, &task, cpu_secs, patience)?;
        running.recognised.clone_from(&recognised);
        let answer = running.all().await?;
        match running.ended().await {
            (Some(status), _) if status.success() => {}
            (Some(status), last_words) if status.signal().is_none() => {
                tracing::info!(recording = running.name, %status, ?last_words, "ffprobe can't read a recording");
                return Err(AudioError::Unreadable { recognised, problem, ffmpeg: true }.into());
            }
            (status, last_words) => return Err(running.fell(status, &last_words).into()),
        }
        match ffmpeg::understand(&answer) {
            Ok(info) => Ok(Look::Ffmpeg(programs.ffmpeg, wire::clean_info(info)?)),
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
        patience: Patience,
    ) -> io::Result<Running> {
        let mut command = Command::new(&self.program);
        command.arg0("hark").arg("decoder").args(task);
        command.arg("--memory").arg(self.config.decode_memory_bytes.to_string());
        command.arg("--cpu-secs").arg(cpu_secs.to_string());
        // What a decoder need not know, it can't leak.
        command.env_clear();
        command.envs(ENVIRONMENT.iter().filter_map(|name| Some((*name, std::env::var_os(name)?))));
        command.env(ALLOCATOR.0, ALLOCATOR.1);
        // A group of its own, so that a kill reaches all of it also where it could start something.
        command.process_group(0).kill_on_drop(true);
        command.stdin(Stdio::from(file.try_clone()?)).stdout(Stdio::piped()).stderr(Stdio::piped());
        let started = |error: io::Error| io::Error::new(error.kind(), format!("a decoder can't be started: {error}"));
        let mut child = command.spawn().map_err(started)?;
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(io::Error::other("a decoder's pipes are missing"));
        };
        let last_words = Arc::new(Mutex::new(VecDeque::new()));
        Ok(Running {
            child,
            out: BufReader::with_capacity(2 * MAX_SAMPLES, stdout),
            listener: Some(tokio::spawn(listen(stderr, Arc::clone(&last_words)))),
            last_words,
            patience,
            recognised: None,
            // Recordings are named after their sessions.
            name: recording.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        })
    }
}

/// Opens a recording for a decoder, which sees no more of it than this.
async fn open(recording: &Path) -> io::Result<File> {
    let file = tokio::fs::File::open(recording).await?.into_std().await;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("not a regular file")) }
}

fn within(declared: Option<f64>, limits: Limits) -> Result<(), AudioError> {
    match declared {
        Some(duration) if duration > limits.max_duration => {
            Err(AudioError::TooLong { duration, at_least: false, limit: limits.max_duration })
        }
        _ => Ok(()),
    }
}

/// What looking at a recording came to.
enum Look {
    /// The process that decodes it, if it was asked to.
    BuiltIn(Box<Running>, AudioInfo),
    /// Where ffmpeg is, which can decode it.
    Ffmpeg(PathBuf, AudioInfo),
}

/// Why there is no answer.
#[derive(Debug)]
enum Trouble {
    Audio(AudioError),
    /// There was next to no processor time for it, or no data: no fault of the recording.
    Starved,
}

impl From<AudioError> for Trouble {
    fn from(error: AudioError) -> Self {
        Self::Audio(error)
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Audio(error.into())
    }
}

fn failed(trouble: Trouble) -> AudioError {
    match trouble {
        Trouble::Audio(error) => error,
        Trouble::Starved => {
            AudioError::Io(io::Error::new(io::ErrorKind::TimedOut, "a decoder had no processor time, or no data"))
        }
    }
}

/// How long a decoder is waited for.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// For its next word.
    silence: Duration,
    /// In all.
    until: Option<Instant>,
}

impl Patience {
    fn until(whole: Duration) -> Self {
        Self { silence: whole, until: Some(Instant::now() + whole) }
    }

    fn of_silence(silence: Duration) -> Self {
        Self { silence, until: None }
    }

    fn left(self) -> Duration {
        self.until.map_or(self.silence, |until| until.saturating_duration_since(Instant::now()))
    }
}

/// A decoder at work. Dropping it ends it.
struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
    /// Ends when standard error does; none once that has been awaited.
    listener: Option<JoinHandle<()>>,
    last_words: Arc<Mutex<VecDeque<String>>>,
    patience: Patience,
    /// What the recording looks like.
    recognised: Option<String>,
    /// The recording's, for the log.
    name: String,
}

impl Running {
    /// The next frame; none at the end of its output, or where that is no frame.
    async fn frame(&mut self) -> Result<Option<Frame>, Trouble> {
        let pid = self.pid();
        let read = wire::read(&mut self.out);
        match in_time(self.patience, pid, read).await {
            Ok(Ok(frame)) => Ok(frame),
            Ok(Err(error)) if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) => {
                tracing::warn!(recording = self.name, %error, "a decoder broke off or said nonsense");
                Ok(None)
            }
            Ok(Err(error)) => Err(error.into()),
            Err(late) => Err(self.overdue(late)),
        }
    }

    /// Fills the buffer, as far as there is output.
    async fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Trouble> {
        let pid = self.pid();
        match in_time(self.patience, pid, fill(&mut self.out, buffer)).await {
            Ok(filled) => Ok(filled?),
            Err(late) => Err(self.overdue(late)),
        }
    }

    /// All of its output, if that isn't too much.
    async fn all(&mut self) -> Result<Vec<u8>, Trouble> {
        let mut answer = vec![0; MAX_ANSWER + 1];
        let filled = self.fill(&mut answer).await?;
        if filled > MAX_ANSWER {
            self.kill();
            return Err(self.fell(None, "its answer has no end").into());
        }
        answer.truncate(filled);
        Ok(answer)
    }

    /// Ends it for having taken too long.
    fn overdue(&mut self, late: Late) -> Trouble {
        self.kill();
        tracing::warn!(recording = self.name, ?late, "a decoder took too long");
        match late {
            Late::Busy => self.unreadable(Problem::TooCostly).into(),
            Late::Starved => Trouble::Starved,
        }
    }

    /// Why its output ended before its time.
    async fn died(&mut self) -> AudioError {
        let (status, last_words) = self.ended().await;
        self.fell(status, &last_words)
    }

    fn fell(&self, status: Option<ExitStatus>, last_words: &str) -> AudioError {
        let signal = status.and_then(|status| status.signal());
        let costly = [Signal::XCPU, Signal::KILL, Signal::ABORT].map(Signal::as_raw);
        let problem = if signal.is_some_and(|s| costly.contains(&s)) { Problem::TooCostly } else { Problem::Crashed };
        let status = status.map_or_else(|| "it was ended".to_owned(), |status| status.to_string());
        tracing::warn!(recording = self.name, status, ?last_words, "a decoder died of a recording");
        self.unreadable(problem)
    }

    fn unreadable(&self, problem: Problem) -> AudioError {
        AudioError::Unreadable { recognised: self.recognised.clone(), problem, ffmpeg: ffmpeg::available() }
    }

    /// How it ended, and its last words. None if it had to be ended.
    async fn ended(&mut self) -> (Option<ExitStatus>, String) {
        let status = time::timeout(EXIT, self.child.wait()).await.ok().and_then(Result::ok);
        if status.is_none() {
            self.kill();
        }
        if let Some(listener) = self.listener.take() {
            let _ = time::timeout(LAST_WORDS, listener).await;
        }
        let kept = self.last_words.lock().unwrap_or_else(PoisonError::into_inner);
        (status, Vec::from(kept.clone()).join(" / "))
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

/// Keeps the last lines of standard error. Reads all of it, or the decoder would wait on a full pipe.
async fn listen(mut stderr: ChildStderr, kept: Arc<Mutex<VecDeque<String>>>) {
    let (mut buffer, mut line) = (vec![0; 4_096], Vec::new());
    while let Ok(read @ 1..) = stderr.read(&mut buffer).await {
        for part in buffer[..read].split_inclusive(|byte| *byte == b'\n') {
            line.extend_from_slice(part);
            if !part.ends_with(b"\n") && line.len() < KEPT_BYTES {
                continue;
            }
            let text: String = String::from_utf8_lossy(&line).trim().chars().take(KEPT_CHARS).collect();
            line.clear();
            if text.is_empty() {
                continue;
            }
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() == KEPT_LINES {
                kept.pop_front();
            }
            kept.push_back(text);
        }
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

/// How a decoder was late.
#[derive(Clone, Copy, Debug)]
enum Late {
    /// It had processor time.
    Busy,
    /// It had next to none.
    Starved,
}

/// What `work` comes to, if it does in time. Whose fault it is otherwise shows in the second half of the wait.
async fn in_time<T>(patience: Patience, pid: Option<Pid>, work: impl Future<Output = T>) -> Result<T, Late> {
    /// The share of the time that a decoder which is to blame has had a processor for, even at its low priority.
    const BLAME: f64 = 0.1;
    /// Seconds of processor time that are enough to look at any recording.
    const ENOUGH: f64 = 0.5;
    let half = patience.left() / 2;
    tokio::pin!(work);
    if let Ok(done) = time::timeout(half, &mut work).await {
        return Ok(done);
    }
    let (before, since) = (pid.and_then(cpu_secs), Instant::now());
    if let Ok(done) = time::timeout(half, &mut work).await {
        return Ok(done);
    }
    let (now, before) = pid.and_then(cpu_secs).zip(before).unwrap_or_default();
    let blamed = now - before > since.elapsed().as_secs_f64() * BLAME || (patience.until.is_some() && now > ENOUGH);
    Err(if blamed { Late::Busy } else { Late::Starved })
}

/// The processor time a process has had, in seconds.
fn cpu_secs(pid: Pid) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The name, in brackets, may hold anything. Then come the fields from the third on.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / rustix::param::clock_ticks_per_second() as f64)
}

/// A recording that is being decoded. Dropping it ends the decoder.
pub struct Decoding {
    info: AudioInfo,
    /// None after the end.
    source: Option<Source>,
    given: u64,
    waveform: Builder,
    limits: Limits,
    _permit: Option<OwnedSemaphorePermit>,
}

enum Source {
    BuiltIn(Running),
    Ffmpeg(Running),
}

impl Decoding {
    /// The next samples: 16 kHz, mono, half a second or less; none at the end. Must not be dropped half way.
    ///
    /// # Errors
    /// Every [`AudioError`]. What was handed out until then is to be thrown away.
    pub async fn next(&mut self) -> Result<Option<Vec<i16>>, AudioError> {
        let samples = match &mut self.source {
            None => return Ok(None),
            Some(Source::BuiltIn(running)) => match running.frame().await.map_err(failed)? {
                Some(Frame::Samples(samples)) if !samples.is_empty() => samples,
                Some(Frame::Message(Message::Ended(info))) => {
                    self.info = info;
                    self.source = None;
                    return Ok(None);
                }
                Some(Frame::Message(Message::Refused(error))) => {
                    return Err(error.with(ffmpeg::available(), self.limits.max_duration));
                }
                _ => return Err(running.died().await),
            },
            Some(Source::Ffmpeg(running)) => {
                let mut bytes = vec![0; 2 * MAX_SAMPLES];
                let filled = running.fill(&mut bytes).await.map_err(failed)?;
                if filled < 2 {
                    self.check_ffmpeg().await?;
                    self.source = None;
                    return Ok(None);
                }
                wire::samples(&bytes[..filled])
            }
        };
        self.given += samples.len() as u64;
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

    /// What it came to, once there are no more samples.
    #[must_use]
    pub fn finish(self) -> Decoded {
        let duration = self.duration();
        Decoded { info: self.info, duration, waveform: self.waveform.finish() }
    }

    fn duration(&self) -> f64 {
        self.given as f64 / f64::from(SAMPLE_RATE)
    }

    /// Whether ffmpeg has decoded what the recording promised.
    async fn check_ffmpeg(&mut self) -> Result<(), AudioError> {
        let found = self.duration();
        let Some(Source::Ffmpeg(running)) = &mut self.source else { return Ok(()) };
        match running.ended().await {
            (Some(status), _) if status.success() => {}
            (Some(status), last_words) if status.signal().is_none() => {
                tracing::info!(recording = running.name, %status, ?last_words, "ffmpeg can't decode a recording");
                return Err(AudioError::Ffmpeg);
            }
            (status, last_words) => return Err(running.fell(status, &last_words)),
        }
        if found == 0.0 {
            return Err(AudioError::NoSamples { format: self.info.format.clone() });
        }
        match self.info.duration {
            Some(declared) if is_cut(declared, found) => {
                Err(AudioError::Truncated { declared: Some(declared), found: Some(found) })
            }
            _ => Ok(()),
        }
    }
}
