//! `hark decoder …`: a process of its own for each recording, which denies itself all but that one file and then decodes
//! it, or becomes ffmpeg. The recording is standard input, and what it says is on standard output (`wire`). Called by
//! `main`, before there is a second thread.

use std::fs::File;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::{Args, Subcommand};

use super::confine::{Bounds, Role, confine};
use super::decode::{DecodeFailure, Recording};
use super::wire::{self, Message};
use super::{AudioError, Limits, ffmpeg};

/// What a decoder is told.
#[derive(Args, Debug)]
pub struct DecoderArgs {
    #[command(subcommand)]
    task: Task,
    /// The memory it may use, in bytes.
    #[arg(long, global = true, default_value_t = 256 << 20)]
    memory: u64,
    /// The processor time it may use, in seconds.
    #[arg(long, global = true, default_value_t = 60)]
    cpu_secs: u64,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Tell what the recording is.
    Probe {
        /// The longest recording allowed, in seconds.
        #[arg(long)]
        max_duration: f64,
    },
    /// Decode it with the built-in decoders.
    Decode {
        /// The longest recording allowed, in seconds.
        #[arg(long)]
        max_duration: f64,
    },
    /// Become ffprobe, and tell what the recording is.
    Ffprobe { program: PathBuf },
    /// Become ffmpeg, and decode it.
    Ffmpeg { program: PathBuf },
    /// Tell which limits this machine doesn't have, as lines.
    Check,
    /// Become ffmpeg within the limits, and tell its version.
    CheckFfmpeg { program: PathBuf },
}

/// Tells the allocator, which reads it when the process begins, to take memory from the system as it is needed. By default
/// it takes a gigabyte at once, before there is a limit: then up to there none holds, and beyond anything may fail.
pub(super) const ALLOCATOR: (&str, &str) = ("MIMALLOC_ARENA_EAGER_COMMIT", "0");

/// Runs a decoder. This process must have one thread.
pub fn run_child(args: DecoderArgs) -> ExitCode {
    if std::env::var_os(ALLOCATOR.0).is_none_or(|value| value != ALLOCATOR.1) {
        let error = Command::new("/proc/self/exe")
            .arg0("hark")
            .args(std::env::args_os().skip(1))
            .env(ALLOCATOR.0, ALLOCATOR.1)
            .exec();
        eprintln!("the decoder can't be started anew with a bounded allocator: {error}");
        return ExitCode::FAILURE;
    }
    let bounds = Bounds { memory: args.memory, cpu_secs: args.cpu_secs };
    let role = match &args.task {
        Task::Probe { .. } | Task::Decode { .. } | Task::Check => Role::BuiltIn,
        Task::Ffprobe { program } | Task::Ffmpeg { program } | Task::CheckFfmpeg { program } => Role::Program(program),
    };
    // The folder that Hark was started in is nobody's business.
    let _ = std::env::set_current_dir("/");
    let mut missing = confine(bounds, role);
    // One block may be half of all: what grows is copied from one into the next.
    let block = args.memory / 2;
    let done = match args.task {
        Task::Probe { max_duration } => built_in(&Limits { max_duration }, false),
        Task::Decode { max_duration } => built_in(&Limits { max_duration }, true),
        Task::Ffprobe { program } => Err(become_program(&program, ffmpeg::probe_arguments(block))),
        Task::Ffmpeg { program } => Err(become_program(&program, ffmpeg::decode_arguments(block))),
        Task::CheckFfmpeg { program } => Err(become_program(&program, ffmpeg::version_arguments())),
        Task::Check => {
            // The limit counts all, so there can't be room for as much once more.
            if Vec::<u8>::new().try_reserve_exact(usize::try_from(args.memory).unwrap_or(usize::MAX)).is_ok() {
                missing.push("a limit of memory that holds".to_owned());
            }
            tell(&missing)
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the decoder gives up: {error}");
            ExitCode::FAILURE
        }
    }
}

fn tell(lines: &[String]) -> io::Result<()> {
    lines.iter().try_for_each(|line| writeln!(io::stdout(), "{line}"))
}

/// Only returns if it can't.
fn become_program(program: &Path, arguments: Vec<std::ffi::OsString>) -> io::Error {
    Command::new(program).args(arguments).env_remove(ALLOCATOR.0).exec()
}

/// Fails only where nobody listens any more.
fn built_in(limits: &Limits, whole: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let end = match recognise(&mut out) {
        Ok(Some(recording)) if whole => decode(recording, limits, &mut out)?,
        Ok(Some(recording)) => recording.probe(limits).map_or_else(message, Message::Ended),
        Ok(None) => return Err(io::ErrorKind::BrokenPipe.into()),
        Err(error) => Message::Refused(error.into()),
    };
    wire::write_message(&mut out, &end)
}

/// None if nobody listens.
fn recognise(out: &mut impl Write) -> Result<Option<Recording>, AudioError> {
    let recording = Recording::recognise(File::from(io::stdin().as_fd().try_clone_to_owned()?))?;
    let told =
        recording.looks_like().map_or(Ok(()), |what| wire::write_message(out, &Message::Recognised(what.to_owned())));
    Ok(told.is_ok().then_some(recording))
}

fn decode(recording: Recording, limits: &Limits, out: &mut impl Write) -> io::Result<Message> {
    let out = std::cell::RefCell::new(out);
    // Whether it was the pipe that failed, and not the recording.
    let mut broken = None;
    let mut opened =
        |info: &super::AudioInfo| wire::write_message(&mut *out.borrow_mut(), &Message::Opened(info.clone()));
    let done = recording.decode(limits, &mut opened, &mut |samples| {
        Ok(match wire::write_samples(&mut *out.borrow_mut(), samples) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                broken = Some(error);
                ControlFlow::Break(())
            }
        })
    });
    broken.map_or_else(|| Ok(done.map_or_else(message, Message::Ended)), Err)
}

fn message(failure: DecodeFailure) -> Message {
    match failure {
        DecodeFailure::NotHere(problem) => Message::NotHere(problem),
        DecodeFailure::Final(error) => Message::Refused(error.into()),
    }
}
