//! What commands print. `println!` panics where its reader has gone, as in `hark model list | head`; here that ends nothing:
//! a command does the rest of its work, and its exit status tells how that went. Called by all commands.

use std::{
    fmt::Display,
    io::{self, ErrorKind, Write},
    process::ExitCode,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

/// Whether the reader of standard output has closed it.
static CLOSED: AtomicBool = AtomicBool::new(false);
/// Why something could not be printed, though somebody would read it.
static FAILED: OnceLock<String> = OnceLock::new();

/// Prints a line on standard output.
pub fn line(line: impl Display) {
    text(format_args!("{line}\n"));
}

/// Prints text on standard output, which brings its own line ends.
pub fn text(text: impl Display) {
    let mut out = io::stdout().lock();
    match write!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => CLOSED.store(true, Relaxed),
        Err(error) => drop(FAILED.set(error.to_string())),
    }
}

/// Prints a line on standard error. Where that can't be, there is nobody to tell.
pub fn error(line: impl Display) {
    error_text(format_args!("{line}\n"));
}

/// Prints text on standard error, which brings its own line ends.
pub fn error_text(text: impl Display) {
    // In one piece, because other processes may write there too.
    let _ = io::stderr().write_all(text.to_string().as_bytes());
}

/// Whether the reader of standard output has closed it, so that a long list can end.
#[must_use]
pub fn is_closed() -> bool {
    CLOSED.load(Relaxed)
}

/// The exit status of a command, which has failed if its output could not be written, as on a full disk.
#[must_use]
pub fn exit_code(code: ExitCode) -> ExitCode {
    let Some(why) = FAILED.get() else { return code };
    error(format_args!("hark: standard output can't be written to: {why}"));
    if code == ExitCode::SUCCESS { ExitCode::FAILURE } else { code }
}
