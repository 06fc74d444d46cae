//! `hark doctor`: shows an operator what works on this machine and what is missing, or with an address, in `deployment`, what
//! is wrong with a deployment as seen from outside. Changes nothing, except that it writes and removes a file where
//! recordings are shared. Called by `main`.

mod deployment;

use super::{
    audio::{self, Decoders},
    bus::Bus,
    clock::machine_time,
    clock_watch::ClockOffset,
    cluster,
    config::{self, DataConfig, RecordingsUrl, ServeConfig},
    folders,
    keys::CookieKeys,
    media::Recordings,
    print, space,
    speech::Engines,
    store::{DATABASE_FILE, DatabaseOpenError, Schema, Store},
};
use crate::model::{bytes, duration, stall_timeout};
use clap::Args;
pub use deployment::DeploymentArgs;
use rustix::fs::Access;
use std::{fmt::Display, path::Path, process::ExitCode};

/// `hark doctor`.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct DoctorArgs {
    #[command(flatten)]
    deployment: DeploymentArgs,
    #[command(flatten)]
    config: ServeConfig,
}

/// Checks this machine, or the deployment that an address was given of, and prints the findings.
pub async fn run(args: DoctorArgs) -> ExitCode {
    let DoctorArgs { deployment, mut config } = args;
    if let Some(url) = &deployment.url {
        return deployment::run(url, &deployment, config.limits.max_upload_bytes).await;
    }
    match config.read_secrets() {
        Ok(()) if report(&config).await => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
        Err(message) => {
            print::error(format_args!("hark: {message}"));
            ExitCode::FAILURE
        }
    }
}

/// Prints the findings. True if a recording could be transcribed here.
async fn report(config: &ServeConfig) -> bool {
    for text in config::unknown_settings() {
        print::line(format_args!("odd      {text}"));
    }
    let engines = Engines::from_config(&config.engines, &config.data.data_dir, config.jobs.workers);
    let mut usable = false;
    for engine in engines.list() {
        let default = if engine.is_default { ", the default" } else { "" };
        if engine.available {
            usable |= engine.is_default;
            print::line(format_args!("ok       engine {} (model {}{default})", engine.id, engine.model));
        } else {
            print::line(format_args!("missing  engine {}{default}: {}", engine.id, engine.reason.unwrap_or_default()));
            if let Some(install) = engine.install {
                print::line(format_args!("         to make it available: {install}"));
            }
        }
    }
    if audio::ffmpeg_available() {
        print::line("ok       ffmpeg takes the formats that Hark can't read by itself");
    } else {
        print::line("missing  ffmpeg: only the common formats can be read. To add others: apt-get install ffmpeg");
    }
    let missing = Decoders::new(&config.decode, config.engines.engine_program.as_deref()).check().await;
    if missing.is_empty() {
        print::line("ok       decoders have limits of memory and time, and can reach nothing but their recording");
    }
    for layer in missing {
        print::line(format_args!("missing  {layer}"));
    }
    let (limits, jobs) = (&config.limits, &config.jobs);
    let (all, own) = (limits.max_queue, limits.max_queue_per_owner);
    if own > all {
        print::line(format_args!(
            "odd      one owner may queue {own} recordings, but all together only {all}: see --max-queue-per-owner"
        ));
    } else {
        print::line(format_args!("ok       {all} recordings may wait in the queue, {own} of one owner"));
    }
    let silent = |total| {
        let longest = limits.max_duration;
        duration(stall_timeout(f64::from(jobs.stall_secs), jobs.stall_factor, 0.0, Some(total), longest))
    };
    print::line(format_args!(
        "ok       an engine may be silent for {}, with the longest recording for {}",
        silent(0.0),
        silent(limits.max_duration)
    ));
    let folder = &config.data.data_dir;
    let shown = folder.display();
    // If the folder doesn't exist yet, the nearest existing parent is checked.
    let existing = folder.ancestors().find(|path| path.exists()).filter(|path| !path.as_os_str().is_empty());
    let existing = existing.unwrap_or(Path::new("."));
    let denied = rustix::fs::access(existing, Access::WRITE_OK | Access::EXEC_OK).err();
    if !existing.is_dir() {
        print::line(format_args!(
            "wrong    {} is not a folder; choose another data folder with HARK_DATA_DIR",
            existing.display()
        ));
    } else if let Some(error) = denied {
        print::line(format_args!("wrong    {}", folders::unusable(folder, existing, &error.into())));
    } else if existing == folder {
        print::line(format_args!("ok       data folder {shown}"));
    } else {
        print::line(format_args!("ok       data folder {shown} will be made at the first start"));
    }
    let receives = report_folders(config, existing);
    services(&config.data).await && usable && existing.is_dir() && denied.is_none() && receives
}

/// Checks what the data folder holds already, which another user may have made, and the room on its disk. `existing` is the
/// folder, or where it will be made. True if recordings can be received.
fn report_folders(config: &ServeConfig, existing: &Path) -> bool {
    let recordings_url = config.data.recordings_url.as_ref();
    let unusable = Recordings::unusable_folder_at(&config.data.data_dir, recordings_url);
    if let Some((folder, error)) = &unusable {
        print::line(format_args!("wrong    {} can't be used: {error}", folder.display()));
    }
    let shared = recordings_url.and_then(RecordingsUrl::folder).map(|folder| ("of the recordings", folder));
    let spare = config.limits.min_free_bytes;
    let mut enough = true;
    for (whose, folder) in [("of the data folder", existing)].into_iter().chain(shared) {
        match space::free_bytes(folder) {
            Ok(free) if free < spare => {
                enough = false;
                print::line(format_args!(
                    "wrong    the disk {whose} has {} free, and {} must stay free, so uploads are refused; make room, or see \
                     HARK_MIN_FREE_BYTES",
                    bytes(free),
                    bytes(spare)
                ));
            }
            Ok(free) => print::line(format_args!("ok       the disk {whose} has {} free", bytes(free))),
            // What is wrong with the folder stands elsewhere.
            Err(_) => {}
        }
    }
    unusable.is_none() && enough
}

/// Checks the services that nodes share, if they are set. True if all of them can be used.
async fn services(data: &DataConfig) -> bool {
    let mut usable = true;
    let file = data.data_dir.join(DATABASE_FILE);
    match &data.database_url {
        Some(url) => {
            let fits = report_database(Store::examine(url).await, "DATABASE_URL");
            usable &= fits && report_cluster(url, data).await;
        }
        None if file.exists() => usable &= report_database(Store::examine_file(&file).await, "HARK_DATA_DIR"),
        None => {}
    }
    if let Some(url) = &data.redis_url {
        usable &= report_service("Redis", "REDIS_URL", Bus::probe(url).await);
    }
    if let Some(url) = &data.recordings_url {
        usable &= report_service("place of the recordings", "HARK_RECORDINGS_URL", Recordings::probe(url).await);
    }
    usable
}

/// The database, and the version of its tables.
fn report_database(found: Result<Schema, DatabaseOpenError>, setting: &str) -> bool {
    let what = if setting == "DATABASE_URL" { "PostgreSQL" } else { "SQLite" };
    match &found {
        Err(error @ DatabaseOpenError::Away(_)) => {
            print::line(format_args!("wrong    {error}; see {setting}"));
            return false;
        }
        Err(DatabaseOpenError::Newer { .. } | DatabaseOpenError::NoRight { .. } | DatabaseOpenError::Altered(_))
        | Ok(_) => {
            print::line(format_args!("ok       {what}"));
        }
        Err(error) => print::line(format_args!("wrong    {what}: {error}; see {setting}")),
    }
    match &found {
        Ok(Schema::Current(version)) => {
            print::line(format_args!("ok       the database's tables have version {version}, as needed"))
        }
        Ok(Schema::Behind { has: None, needs }) => {
            print::line(format_args!(
                "ok       the database's tables will be made at the first start, in version {needs}"
            ));
        }
        Ok(Schema::Behind { has: Some(has), needs }) => {
            print::line(format_args!(
                "ok       the database's tables will be brought from version {has} to {needs} at the next start"
            ));
        }
        Err(
            error @ (DatabaseOpenError::Newer { .. }
            | DatabaseOpenError::NoRight { .. }
            | DatabaseOpenError::Altered(_)),
        ) => {
            print::line(format_args!("wrong    the database can't be used: {error}"));
        }
        Err(_) => {}
    }
    found.is_ok()
}

/// Whether this node may join the others on the shared database.
async fn report_cluster(url: &str, data: &DataConfig) -> bool {
    let before = machine_time();
    let found = Store::probe(url).await;
    let after = machine_time();
    let (now, cluster) = match found {
        Ok(found) => found,
        Err(error) => {
            print::line(format_args!("wrong    PostgreSQL: {error}; see DATABASE_URL"));
            return false;
        }
    };
    let mut usable = true;
    let offset = ClockOffset::between(before, now.0, after);
    if offset.is_off() {
        usable &= !offset.is_wrong();
        print::line(format_args!("wrong    {}; set its clock, for example with NTP", offset.sentence()));
    }
    let Some(cluster) = cluster else { return usable };
    let keys = data.secret.as_deref().and_then(CookieKeys::parse);
    let differences = cluster::differences(&cluster, keys.as_ref(), data).await;
    if differences.is_empty() {
        print::line(format_args!("ok       this node fits the cluster {}", cluster.id));
    }
    for difference in differences {
        usable = false;
        print::line(format_args!("wrong    {difference}"));
    }
    usable
}

fn report_service(what: &str, setting: &str, found: Result<(), impl Display>) -> bool {
    match &found {
        Ok(()) => print::line(format_args!("ok       {what}")),
        Err(error) => print::line(format_args!("wrong    {what}: {error}; see {setting}")),
    }
    found.is_ok()
}
