//! The command line of `hark`: its subcommands with their settings. In the library, so that `docs/configuration.md` can be
//! written from it. Called by `main` and by `tests/snapshots.rs`.

use super::{
    admin::command::AdminArgs,
    alerts::AlertsArgs,
    audio::DecoderArgs,
    backup::{BackupArgs, RestoreArgs},
    config,
    doctor::DoctorArgs,
    manage::StoreArgs,
    nodes::NodesArgs,
    print,
    ready::ReadyArgs,
    secret::SecretArgs,
    speech::{EngineArgs, ModelArgs},
    stuck::SessionsArgs,
};
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use std::path::{Path, PathBuf};

/// Transcription that shows its work, live.
#[derive(Parser)]
#[command(version, about)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What `hark` can be asked to do.
#[derive(Subcommand)]
pub enum Command {
    /// Run the web server with its workers. The address is LEPTOS_SITE_ADDR, 127.0.0.1:3000 by default.
    Serve(Box<config::ServeConfig>),
    /// Run a node that only works on sessions, of a database shared with the nodes that serve.
    Worker(Box<config::ServeConfig>),
    /// Show what works on this machine and what is missing; or check a deployment from outside.
    Doctor(Box<DoctorArgs>),
    /// Make the database's tables, or bring them up to what this version needs, and say what was done. 'hark serve' does the
    /// same at its start where the database's role may; this is for where it may not. Nodes of the version before may run
    /// meanwhile.
    Migrate(StoreArgs),
    /// Write the sessions, the recordings and the key of a data folder to one file, while Hark runs or not. For Hark with
    /// SQLite.
    Backup(BackupArgs),
    /// Put what a backup holds into a data folder, while Hark doesn't run.
    Restore(RestoreArgs),
    /// Manage sessions while Hark runs, with the same settings.
    #[command(subcommand)]
    Sessions(SessionsArgs),
    /// List the nodes of a database, with what they can do and what is wrong with them. Exits with 0 if all are well, with
    /// 3 otherwise.
    Nodes(NodesArgs),
    /// Set or remove the password of administrators, who see and change the sessions of everybody at /admin.
    #[command(subcommand)]
    Admin(AdminArgs),
    /// Try the messages of alerts.
    #[command(subcommand)]
    Alerts(AlertsArgs),
    /// Change the key that signs cookies and the messages between nodes.
    #[command(subcommand)]
    Secret(SecretArgs),
    /// Show, fetch, import and remove speech models.
    #[command(subcommand)]
    Model(ModelArgs),
    /// Ask the Hark of this machine whether it is ready. Exits with 0 if it is, with 1 otherwise: for health checks.
    Ready(ReadyArgs),
    /// Print what completes hark's commands and flags in a shell.
    Completions { shell: Shell },
    /// Write the manual pages, hark.1 and one for each subcommand.
    Man {
        /// The folder that they are written into, which must exist.
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
    /// Run a speech engine on standard input; Hark itself calls this.
    #[command(subcommand, hide = true)]
    Engine(EngineArgs),
    /// Decode a recording on standard input; Hark itself calls this.
    #[command(hide = true)]
    Decoder(DecoderArgs),
}

/// Prints the completions for a shell on standard output.
pub fn print_completions(shell: Shell) {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "hark", &mut script);
    print::text(String::from_utf8_lossy(&script));
}

/// Writes the manual pages.
///
/// # Errors
/// If the folder can't be written to.
pub fn write_manual(folder: &Path) -> Result<(), String> {
    clap_mangen::generate_to(Cli::command(), folder)
        .map_err(|e| format!("the manual can't be written into {}: {e}", folder.display()))
}
