//! `hark admin`: sets and removes the password of administrators. Works beside running nodes, which all read it from the
//! database. Called by `main`.

use super::password;
use crate::{
    model::Timestamp,
    server::{manage::StoreArgs, print, store::Store},
};
use clap::{Args, Subcommand};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::{
    io::{self, BufRead, IsTerminal, Read},
    process::ExitCode,
};

/// The most bytes read from standard input.
const MAX_INPUT_BYTES: u64 = 64 * 1024;

/// `hark admin`.
#[derive(Subcommand)]
pub enum AdminArgs {
    /// Set the password with which administrators sign in at /admin, on all nodes of the database, while they run. It is
    /// asked for twice and not shown. All who are signed in have to sign in again.
    SetPassword(SetPasswordArgs),
    /// Remove the password. All who are signed in with it are signed out.
    RemovePassword(RemovePasswordArgs),
}

/// `hark admin set-password`.
#[derive(Args)]
pub struct SetPasswordArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Read the password from the first line of standard input instead of asking for it.
    #[arg(long)]
    stdin: bool,
}

/// `hark admin remove-password`.
#[derive(Args)]
pub struct RemovePasswordArgs {
    #[command(flatten)]
    store: StoreArgs,
}

/// Runs a subcommand of `hark admin`.
pub async fn run(args: AdminArgs) -> ExitCode {
    let done = match args {
        AdminArgs::SetPassword(args) => set(&args).await,
        AdminArgs::RemovePassword(args) => remove(&args.store).await,
    };
    match done {
        Ok(message) => {
            print::line(message);
            ExitCode::SUCCESS
        }
        Err(message) => {
            print::error(format_args!("hark: {message}"));
            ExitCode::FAILURE
        }
    }
}

async fn set(args: &SetPasswordArgs) -> Result<String, String> {
    // Before anybody types a password for nothing.
    let store = args.store.open().await?;
    let password = if args.stdin { read_line()? } else { ask()? };
    let stored = password::new(&password)?;
    let existed = store.admin_password().await.map_err(broken)?.is_some();
    store.set_admin_password(Some(&stored), Timestamp::now()).await.map_err(broken)?;
    store.close().await;
    Ok(if existed {
        "The password is changed. Administrators sign in with it at /admin; all who were signed in are signed out."
            .to_owned()
    } else {
        "The password is set. Administrators sign in with it at /admin.".to_owned()
    })
}

async fn remove(args: &StoreArgs) -> Result<String, String> {
    let store: Store = args.open().await?;
    let existed = store.admin_password().await.map_err(broken)?.is_some();
    store.set_admin_password(None, Timestamp::now()).await.map_err(broken)?;
    store.close().await;
    Ok(if existed {
        "The password is removed, and all who were signed in with it are signed out.".to_owned()
    } else {
        "There is no password; nothing was changed.".to_owned()
    })
}

/// Asks for the password at the terminal, twice.
fn ask() -> Result<String, String> {
    if !io::stdin().is_terminal() {
        return Err(
            "there is no terminal to ask for the password at; send it to standard input with --stdin".to_owned()
        );
    }
    let _hidden = Hidden::new().map_err(|e| {
        format!("the terminal can't be told to hide the password: {e}; send it to standard input with --stdin")
    })?;
    let prompt = |text: &str| {
        print::error_text(text);
        read_line()
    };
    let password = prompt("New password: ")?;
    if prompt("The same again: ")? != password {
        return Err("the two differ; nothing was changed".to_owned());
    }
    Ok(password)
}

/// While this is there, the terminal doesn't show what is typed. It is the terminal of standard input, which need not be that of
/// this session: `systemd-run --pipe` hands on the one where somebody sits, and then there is no /dev/tty.
struct Hidden {
    /// The terminal's settings before.
    before: Termios,
}

impl Hidden {
    fn new() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        // The end of a line is shown.
        hidden.local_modes.insert(LocalModes::ECHONL);
        tcsetattr(io::stdin(), OptionalActions::Now, &hidden)?;
        Ok(Self { before })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// The first line of standard input.
fn read_line() -> Result<String, String> {
    let mut line = String::new();
    let read = io::stdin().lock().take(MAX_INPUT_BYTES).read_line(&mut line);
    read.map_err(|e| format!("the password can't be read from standard input: {e}"))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn broken(error: sqlx::Error) -> String {
    format!("the database doesn't answer: {error}")
}
