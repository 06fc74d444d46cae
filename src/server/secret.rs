//! `hark secret rotate`: changes the key that signs cookies and the messages between nodes, so that no node is left that
//! doesn't accept what another one signs. Called by `main`.

use super::{
    config::read_secret, folders, keys::CookieKeys, manage::StoreArgs, nodes::without_key, print, store::Store,
};
use clap::{Args, Subcommand};
use cookie::Key;
use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};
use uuid::Uuid;

/// The exit code if nodes have to be restarted before the new key may sign, for scripts.
const EXIT_UNFINISHED: u8 = 3;
/// The key of a node with its own database, in the data folder, and the one before, which is still accepted.
pub const KEY_FILE: &str = "secret.key";
pub const KEY_FILE_BEFORE: &str = "secret-before.key";

/// `hark secret`.
#[derive(Subcommand)]
pub enum SecretArgs {
    /// Change the key that signs cookies and the messages between nodes; the present one is still accepted. A key that
    /// Hark made is replaced by a new one. With HARK_SECRET, its first key becomes the one that signs. Nodes that don't
    /// know the new key yet are named: restart them and run this again. A key that hasn't signed yet isn't replaced: Hark
    /// has to be started with it first. Exits with 0 when the new key signs, with 3 if nodes have to be restarted first.
    Rotate(RotateArgs),
}

/// `hark secret rotate`.
#[derive(Args)]
pub struct RotateArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// The file with the keys, the new one first and the present one behind it. Or set HARK_SECRET.
    #[arg(long, env = "HARK_SECRET_FILE", value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// The present key is lost, so the new one replaces it. Nobody sees their sessions any more, but for those with a
    /// recovery key.
    #[arg(long)]
    without_old: bool,
}

/// Whether a rotation is complete, with what to tell the operator.
enum Rotated {
    Done(String),
    RestartFirst(String),
}

/// Runs a subcommand of `hark secret`.
pub async fn run(args: SecretArgs) -> ExitCode {
    let SecretArgs::Rotate(args) = args;
    match rotate(&args).await {
        Ok(Rotated::Done(message)) => {
            print::line(message);
            ExitCode::SUCCESS
        }
        Ok(Rotated::RestartFirst(message)) => {
            print::line(message);
            ExitCode::from(EXIT_UNFINISHED)
        }
        Err(message) => {
            print::error(format_args!("hark: {message}"));
            ExitCode::FAILURE
        }
    }
}

async fn rotate(args: &RotateArgs) -> Result<Rotated, String> {
    let secret = read_secret("HARK_SECRET", args.secret_file.as_deref())?;
    if args.store.database_url()?.is_none() {
        folders::check_user(args.store.data_dir(), "hark secret rotate")?;
    }
    let store = args.store.open().await?;
    let rotated = match (store.is_shared(), secret) {
        (true, Some(secret)) => {
            let keys = CookieKeys::parse(&secret).ok_or("HARK_SECRET must be at least 128 hexadecimal digits")?;
            rotate_configured(&store, &keys.fingerprints(), args.without_old).await
        }
        (true, None) => rotate_generated(&store, args.without_old).await,
        (false, Some(_)) => {
            Err("this Hark has a database of its own, so no other node has to know: set HARK_SECRET to \
             the new key and, behind it, the present one, and start it again"
                .to_owned())
        }
        (false, None) => rotate_own(&store, args.store.data_dir(), args.without_old).await,
    };
    store.close().await;
    rotated
}

fn broken(error: sqlx::Error) -> String {
    format!("the database doesn't answer: {error}")
}

/// The fingerprint of the key that signs now, and of the one before.
async fn present_key(store: &Store) -> Result<(String, Option<String>), String> {
    let cluster = store.cluster(&Uuid::new_v4().to_string()).await.map_err(broken)?;
    let present = cluster
        .cookie_key
        .ok_or_else(|| "no node has been started on this database yet, so there is no key to change".to_owned())?;
    Ok((present, cluster.cookie_key_before))
}

/// What is said of a key that can't be replaced yet. Only the key before it is still accepted, and that is the one with which
/// everybody's cookies are signed.
fn not_signed_yet(key: &str) -> Rotated {
    Rotated::RestartFirst(format!(
        "A new key (fingerprint {key}) is there already and signs from the next start. Start Hark again before the key is \
         changed once more: otherwise everybody would lose their sessions. Nothing was changed."
    ))
}

/// Lets the first of the keys in the settings sign.
async fn rotate_configured(store: &Store, keys: &[String], without_old: bool) -> Result<Rotated, String> {
    let (present, _) = present_key(store).await?;
    let Some(new) = keys.first() else { return Err("HARK_SECRET has no key".to_owned()) };
    if *new == present {
        return Err(format!(
            "the first key in HARK_SECRET (fingerprint {new}) signs already; put a new one before it, made with: openssl rand -hex 64"
        ));
    }
    if !keys.contains(&present) && !without_old {
        return Err(format!(
            "the present key (fingerprint {present}) isn't in HARK_SECRET, so people would lose their sessions; put it behind \
             the new one. If it is lost, --without-old goes on without it"
        ));
    }
    if let Some(lacking) = missing(store, new).await? {
        return Ok(Rotated::RestartFirst(format!(
            "{lacking} would not accept what the new key (fingerprint {new}) signs. Put it behind the present one in their \
             HARK_SECRET, restart them, and run this again."
        )));
    }
    change(store, &present, new).await?;
    Ok(Rotated::Done(format!(
        "The key with the fingerprint {new} signs now. Restart the nodes with it as the first in HARK_SECRET. Keep the old \
         one (fingerprint {present}) behind it until everybody has been back, for 400 days at most."
    )))
}

/// Makes a key and keeps it in the database; lets it sign when all nodes know it.
async fn rotate_generated(store: &Store, without_old: bool) -> Result<Rotated, String> {
    let (present, before) = present_key(store).await?;
    let generated = store.generated_keys().await.map_err(broken)?;
    let is_generated =
        CookieKeys::several(&generated).is_some_and(|keys| keys.fingerprints().first() == Some(&present));
    if !is_generated {
        return Err(format!(
            "the key of this cluster (fingerprint {present}) comes from HARK_SECRET; set it for this command too, with the new \
             key first"
        ));
    }
    let has_signed = store.signing_key().await.map_err(broken)?.as_ref() == Some(&present);
    if before.is_some() && !has_signed && !without_old {
        return Ok(not_signed_yet(&present));
    }
    let next = store.next_generated_key(Key::generate().master()).await.map_err(broken)?;
    let new = CookieKeys::one(&next).map(|keys| keys.fingerprints().concat()).unwrap_or_default();
    if let Some(lacking) = missing(store, &new).await? {
        return Ok(Rotated::RestartFirst(format!(
            "A new key (fingerprint {new}) is in the database. Restart {lacking}, one after another, so that all accept what \
             it signs, and run this again."
        )));
    }
    // In this order, so that nodes may start in between.
    change(store, &present, &new).await?;
    store.promote_generated_key().await.map_err(broken)?;
    Ok(Rotated::Done(format!(
        "The key with the fingerprint {new} signs from each node's next start. The old one (fingerprint {present}) is accepted \
         until the key is changed again."
    )))
}

/// The running nodes that don't know a key.
async fn missing(store: &Store, key: &str) -> Result<Option<String>, String> {
    let (nodes, now) = (store.nodes().await.map_err(broken)?, store.now().await.map_err(broken)?);
    Ok(without_key(&nodes, key, now))
}

async fn change(store: &Store, present: &str, new: &str) -> Result<(), String> {
    match store.change_cookie_key(Some(present), new).await.map_err(broken)? {
        true => Ok(()),
        false => Err("somebody else changed the key at the same time; look at it again".to_owned()),
    }
}

/// Makes a new key for a node with a database of its own, unless the one that is there has never signed.
async fn rotate_own(store: &Store, folder: &Path, without_old: bool) -> Result<Rotated, String> {
    let signing = store.signing_key().await.map_err(broken)?;
    let (file, before) = (folder.join(KEY_FILE), folder.join(KEY_FILE_BEFORE));
    if !file.exists() {
        return Err(format!("there is no key {}; Hark makes one at its next start", file.display()));
    }
    let key = fingerprint(&file);
    match signing {
        _ if without_old => {}
        // Whether it has signed isn't known, for example because an older Hark ran last.
        None if before.exists() => return Ok(not_signed_yet(&key.unwrap_or_default())),
        None => {}
        Some(signing) if Some(&signing) == key.as_ref() => {}
        Some(signing) if fingerprint(&before).as_ref() == Some(&signing) => {
            return Ok(not_signed_yet(&key.unwrap_or_default()));
        }
        Some(signing) => {
            return Err(format!(
                "Hark signs with another key (fingerprint {signing}) than that in {}. If it comes from HARK_SECRET, set that to \
                 the new key and, behind it, the present one, and start Hark again; otherwise start Hark, and run this again",
                file.display()
            ));
        }
    }
    rotate_file(folder)
}

/// The fingerprint of the key in a file; none if there is no key.
fn fingerprint(file: &Path) -> Option<String> {
    CookieKeys::one(&fs::read(file).ok()?)?.fingerprints().pop()
}

/// Makes a new key in the data folder.
fn rotate_file(folder: &Path) -> Result<Rotated, String> {
    let [now, before, new] = [KEY_FILE, KEY_FILE_BEFORE, "secret-new.key"].map(|name| folder.join(name));
    let failed = |e: std::io::Error| format!("the key can't be changed: {}", folders::explain(&now, &e));
    let _ = fs::remove_file(&new);
    folders::write_private(&new, Key::generate().master()).map_err(failed)?;
    fs::rename(&now, &before).map_err(failed)?;
    fs::rename(&new, &now).map_err(failed)?;
    Ok(Rotated::Done(
        "A new key signs from the next start. The old one is accepted until the key is changed again.".to_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_is_replaced_only_after_it_has_signed() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("hark.sqlite")).await.unwrap();
        let [file, before] = [KEY_FILE, KEY_FILE_BEFORE].map(|name| folder.path().join(name));
        let rotate = async |without_old| match rotate_own(&store, folder.path(), without_old).await {
            Ok(Rotated::Done(_)) => "done".to_owned(),
            Ok(Rotated::RestartFirst(_)) => "restart first".to_owned(),
            Err(message) => message,
        };
        assert!(rotate(false).await.contains("there is no key"));
        fs::write(&file, [1; 64]).unwrap();
        let first = fingerprint(&file).unwrap();
        // A Hark that kept no note of it ran last.
        assert_eq!(rotate(false).await, "done");
        assert_eq!(rotate(false).await, "restart first");
        for _ in 0..2 {
            store.note_signing_key(&first).await.unwrap();
            assert_eq!(rotate(false).await, "restart first");
            assert_eq!(fingerprint(&before), Some(first.clone()), "people's cookies are signed with it");
        }
        let second = fingerprint(&file).unwrap();
        store.note_signing_key(&second).await.unwrap();
        assert_eq!(rotate(false).await, "done");
        assert_eq!(fingerprint(&before), Some(second));
        // Of HARK_SECRET.
        store.note_signing_key("another").await.unwrap();
        assert!(rotate(false).await.contains("(fingerprint another)"));
        assert_eq!(rotate(true).await, "done");
    }
}
