//! The `hark` program: runs one subcommand.

use clap::Parser;
use hark::server::{
    Node, admin, alerts, audio, backup,
    cli::{self, Cli, Command},
    config, doctor, folders, manage, nodes,
    page_files::PageFiles,
    print, ready, secret, speech, stuck, telemetry,
};
use std::{process::ExitCode, time::Duration};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};

/// The allocator. Requests make many small allocations, for which it needs less memory than the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long threads that wait for the disk may go on after everything else has ended.
const BLOCKED_THREADS: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    folders::keep_files_private();
    // `cargo leptos watch` starts the program without arguments.
    let command = Cli::parse().command.unwrap_or_else(|| match Cli::parse_from(["hark", "serve"]).command {
        Some(command) => command,
        None => unreachable!("'serve' was given"),
    });
    // Runs before there is a second thread, because a decoder's sandbox applies to the calling thread.
    if let Command::Decoder(args) = command {
        return audio::run_child(args);
    }
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => {
            let code = print::exit_code(runtime.block_on(run(command)));
            // A thread that reads a folder whose server is gone may never end.
            runtime.shutdown_timeout(BLOCKED_THREADS);
            code
        }
        Err(error) => exit_code(Err(format!("the runtime's threads could not be started: {error}"))),
    }
}

async fn run(command: Command) -> ExitCode {
    match command {
        // On a worker thread of the runtime, because the main thread would have to be woken for each connection.
        Command::Serve(config) => match start_log(&config) {
            Ok(span) => {
                let served = tokio::spawn(serve(*config).instrument(span)).await;
                exit_code(served.unwrap_or_else(|e| Err(e.to_string())))
            }
            Err(message) => exit_code(Err(message)),
        },
        Command::Worker(config) => match start_log(&config) {
            Ok(span) => exit_code(work(*config).instrument(span).await),
            Err(message) => exit_code(Err(message)),
        },
        Command::Doctor(args) => doctor::run(*args).await,
        Command::Migrate(args) => exit_code(manage::migrate(&args).await),
        Command::Backup(args) => exit_code(backup::back_up(args).await),
        Command::Restore(args) => exit_code(backup::restore(args).await),
        Command::Sessions(args) => stuck::run(args).await,
        Command::Nodes(args) => nodes::run(args).await,
        Command::Admin(args) => admin::command::run(args).await,
        Command::Alerts(args) => alerts::run(args).await,
        Command::Secret(args) => secret::run(args).await,
        Command::Model(args) => speech::run_model(args).await,
        Command::Ready(args) => exit_code(ready::run(args).await.map(print::line)),
        Command::Completions { shell } => {
            cli::print_completions(shell);
            ExitCode::SUCCESS
        }
        Command::Man { folder } => exit_code(cli::write_manual(&folder)),
        Command::Engine(args) => speech::run_child(args).await,
        Command::Decoder(_) => unreachable!("'main' runs decoders before the runtime starts"),
    }
}

fn exit_code(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            print::error(format_args!("hark: {message}"));
            ExitCode::FAILURE
        }
    }
}

/// Starts the log, which begins with the settings that are misspelt, and the traces if they are wanted. The span's name of the
/// node stands in the log's lines, if the node has been given one.
fn start_log(config: &config::ServeConfig) -> Result<Span, String> {
    telemetry::log(&config.log)?;
    let span = config.node_name.as_ref().map_or_else(Span::none, |name| tracing::info_span!("node", name));
    span.in_scope(|| {
        config::unknown_settings().iter().for_each(|text| tracing::warn!("{text}"));
        telemetry::traces::start(&config.name())
    })?;
    Ok(span)
}

/// Sends what is left of traces.
async fn stop_traces() {
    let _ = tokio::task::spawn_blocking(telemetry::traces::stop).await;
}

async fn serve(mut config: config::ServeConfig) -> Result<(), String> {
    config.read_secrets()?;
    let leptos = config::leptos_options()?;
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let program = program.parent().unwrap_or(&program);
    let files = PageFiles::find(&leptos, std::env::var_os("LEPTOS_SITE_ROOT").is_some(), program);
    if let Some(problem) = files.problem(&leptos, program) {
        tracing::warn!("{problem}");
    }
    let addr = leptos.site_addr;
    let data = std::path::absolute(&config.data.data_dir).map_err(|e| format!("HARK_DATA_DIR: {e}"))?;
    let node = Node::start(config, leptos, files).await.map_err(|e| e.to_string())?;
    let listener = Node::listen(addr)
        .map_err(|e| format!("{addr} can't be listened on: {e}. Choose another address with LEPTOS_SITE_ADDR"))?;
    let addr = listener.local_addr().map_err(|e| e.to_string())?;
    let stop = stop_signal()?;
    print::line(format_args!("Hark is ready at http://{addr}"));
    print::line(format_args!("Its data are in {}", data.display()));
    tracing::info!(%addr, data = %data.display(), "ready");
    node.serve(listener, stop).await;
    stop_traces().await;
    tracing::info!("stopped");
    Ok(())
}

async fn work(mut config: config::ServeConfig) -> Result<(), String> {
    config.read_secrets()?;
    let workers = config.jobs.workers;
    let node = Node::start_worker(config).await.map_err(|e| e.to_string())?;
    let stop = stop_signal()?;
    tracing::info!(workers, "ready to work");
    node.work(stop).await;
    stop_traces().await;
    tracing::info!("stopped");
    Ok(())
}

/// Returns a token that is cancelled at SIGTERM or Ctrl-C.
fn stop_signal() -> Result<CancellationToken, String> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| e.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| e.to_string())?;
    tokio::spawn({
        let stop = stop.clone();
        async move {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            tracing::info!("stopping: running sessions go back to the queue");
            stop.cancel();
        }
    });
    Ok(stop)
}
