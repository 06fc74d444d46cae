//! `hark decoder …`: a process for each recording, which denies itself everything but that one file and then decodes
//! it, or becomes ffmpeg. It reads the recording, or samples to be encoded, on standard input, and writes frames (`wire`) or
//! what ffmpeg writes to standard output.
//! Called by `main` before there is a second thread.

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
use super::level::Mix;
use super::wire::{self, Message};
use super::{AudioError, ChannelSelection, Limits, Selection, ffmpeg};
use crate::model::Track;
use crate::server::print;

/// The arguments of a decoder. Only Hark itself passes them.
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
        /// Find out whether there is a speaker on each of two channels.
        #[arg(long)]
        find_speakers: bool,
        /// Decode the audio track of this number, from 1.
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
        track: Option<u16>,
        /// Decode only this channel, from 0.
        #[arg(long)]
        channel: Option<u16>,
    },
    /// Become ffprobe, and tell what the recording is.
    Ffprobe {
        program: PathBuf,
        /// Let it open the decoders of pictures, too.
        #[arg(long)]
        pictures: bool,
    },
    /// Become ffmpeg, and decode it.
    Ffmpeg {
        program: PathBuf,
        /// The number of the track among all tracks, from 0.
        #[arg(long, default_value_t = 0)]
        stream: u32,
        /// Its number of channels.
        #[arg(long, default_value_t = 1)]
        channels: u16,
        /// Write all channels as floats instead of their mix.
        #[arg(long)]
        measure: bool,
        /// Write both of two channels instead of their mix.
        #[arg(long)]
        both: bool,
        /// The channels of the mix, from 0; all of them if left out.
        #[arg(long, value_delimiter = ',')]
        mix: Option<Vec<usize>>,
        /// The factor of the samples of the mix.
        #[arg(long, default_value_t = 1.0)]
        gain: f32,
    },
    /// Become ffmpeg, and encode the samples on standard input.
    Encode { program: PathBuf },
    /// Tell which limits this machine doesn't have, as lines.
    Check,
    /// Become ffmpeg within the limits, and tell its version.
    CheckFfmpeg { program: PathBuf },
}

/// Makes the allocator, which reads this variable when the process begins, take memory from the system only as it is
/// needed. By default it takes a gigabyte at once, before the limit is set: then the limit has no effect below a
/// gigabyte, and above it any allocation may fail.
pub(super) const ALLOCATOR: (&str, &str) = ("MIMALLOC_ARENA_EAGER_COMMIT", "0");

/// Runs a decoder. The process must have only one thread.
pub fn run_child(args: DecoderArgs) -> ExitCode {
    if std::env::var_os(ALLOCATOR.0).is_none_or(|value| value != ALLOCATOR.1) {
        let error = Command::new("/proc/self/exe")
            .arg0("hark")
            .args(std::env::args_os().skip(1))
            .env(ALLOCATOR.0, ALLOCATOR.1)
            .exec();
        print::error(format_args!("the decoder can't be restarted with the allocator's limit: {error}"));
        return ExitCode::FAILURE;
    }
    let bounds = Bounds { memory: args.memory, cpu_secs: args.cpu_secs };
    let role = match &args.task {
        Task::Probe { .. } | Task::Decode { .. } | Task::Check => Role::BuiltIn,
        Task::Ffprobe { program, .. }
        | Task::Ffmpeg { program, .. }
        | Task::Encode { program }
        | Task::CheckFfmpeg { program } => Role::Program(program),
    };
    // The decoder need not know the folder in which Hark was started.
    let _ = std::env::set_current_dir("/");
    let mut missing = confine(bounds, role);
    // A single block may take half of the memory, because a growing one is copied into the next.
    let block = args.memory / 2;
    let done = match args.task {
        Task::Probe { max_duration } => built_in(&Limits { max_duration }, None),
        Task::Decode { max_duration, find_speakers, track, channel } => {
            let channels = match channel {
                Some(channel) => ChannelSelection::Only(channel),
                None if find_speakers => ChannelSelection::FindSpeakers,
                None => ChannelSelection::Mix,
            };
            built_in(&Limits { max_duration }, Some(Selection { track: track.map(Track::Number), channels }))
        }
        Task::Ffprobe { program, pictures } => Err(become_program(&program, ffmpeg::probe_arguments(block, pictures))),
        Task::Ffmpeg { program, stream, channels, measure, both, mix, gain } => {
            let task = if measure {
                ffmpeg::Task::Measure { stream, channels }
            } else if both {
                ffmpeg::Task::DecodeBoth { stream, gain }
            } else {
                ffmpeg::Task::Decode { stream, channels, mix: Mix { channels: mix, gain } }
            };
            Err(become_program(&program, ffmpeg::decode_arguments(block, &task)))
        }
        Task::Encode { program } => Err(become_program(&program, ffmpeg::encode_arguments(block))),
        Task::CheckFfmpeg { program } => Err(become_program(&program, ffmpeg::version_arguments())),
        Task::Check => {
            // The process already uses some of the memory, so a block as large as the whole limit must be refused.
            if Vec::<u8>::new().try_reserve_exact(usize::try_from(args.memory).unwrap_or(usize::MAX)).is_ok() {
                missing.push("an effective memory limit".to_owned());
            }
            print_lines(&missing)
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print::error(format_args!("the decoder failed: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn print_lines(lines: &[String]) -> io::Result<()> {
    lines.iter().try_for_each(|line| writeln!(io::stdout(), "{line}"))
}

/// Replaces this process by a program. Returns only if that fails.
fn become_program(program: &Path, arguments: Vec<std::ffi::OsString>) -> io::Error {
    Command::new(program).args(arguments).env_remove(ALLOCATOR.0).exec()
}

/// Probes the recording with the built-in decoders, or decodes what is `selected` of it. Fails only if the parent doesn't
/// read any more.
fn built_in(limits: &Limits, selected: Option<Selection>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let end = match recognise(&mut out) {
        Ok(Some(recording)) => {
            let end = match selected {
                Some(selection) => decode(&recording, limits, selection, &mut out)?,
                None => {
                    let ended = |info| Message::Ended { info, remarks: Vec::new() };
                    recording.probe(limits).map_or_else(message, ended)
                }
            };
            match end {
                Message::TryFfmpeg(_) => match recording.declares() {
                    Ok(declares) => {
                        wire::write_message(&mut out, &Message::Declares(declares))?;
                        end
                    }
                    Err(error) => Message::Refused(AudioError::from(error).into()),
                },
                _ => end,
            }
        }
        Ok(None) => return Err(io::ErrorKind::BrokenPipe.into()),
        Err(error) => Message::Refused(error.into()),
    };
    wire::write_message(&mut out, &end)
}

/// Recognises the recording and reports what it looks like. Returns none if the parent doesn't read any more.
fn recognise(out: &mut impl Write) -> Result<Option<Recording>, AudioError> {
    let recording = Recording::recognise(File::from(io::stdin().as_fd().try_clone_to_owned()?))?;
    let recognised = recording.looks_like().map(|what| Message::Recognised(what.to_owned()));
    let written = recognised.map_or(Ok(()), |message| wire::write_message(out, &message));
    Ok(written.is_ok().then_some(recording))
}

fn decode(recording: &Recording, limits: &Limits, selection: Selection, out: &mut impl Write) -> io::Result<Message> {
    let out = std::cell::RefCell::new(out);
    // The error of the pipe, to tell it from an error of the recording.
    let mut broken = None;
    let mut opened =
        |info: &super::AudioInfo| wire::write_message(&mut *out.borrow_mut(), &Message::Opened(info.clone()));
    let mut apart = || wire::write_message(&mut *out.borrow_mut(), &Message::Apart);
    let done = recording.decode(limits, selection, &mut opened, &mut apart, &mut |samples| {
        Ok(match wire::write_samples(&mut *out.borrow_mut(), samples) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                broken = Some(error);
                ControlFlow::Break(())
            }
        })
    });
    let ended = |(info, remarks)| Message::Ended { info, remarks };
    broken.map_or_else(|| Ok(done.map_or_else(message, ended)), Err)
}

fn message(failure: DecodeFailure) -> Message {
    match failure {
        DecodeFailure::TryFfmpeg(problem) => Message::TryFfmpeg(problem),
        DecodeFailure::Final(error) => Message::Refused(error.into()),
    }
}
