//! The location of recordings: a folder or a bucket, opened and checked once at the start, so that a mistake in the
//! settings shows there and not at the first upload.

use crate::server::folders;
use futures::StreamExt;
use object_store::{
    BackoffConfig, ClientConfigKey, Error, ObjectStore, ObjectStoreExt, PutPayload, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    local::LocalFileSystem,
    path::Path as Key,
    prefix::PrefixStore,
};
use rustix::fs::{Access, access};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::time;
use uuid::Uuid;

/// How long the check of a bucket at the start may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(15);
/// A server that sends nothing for so long, within a request or before its answer, counts as gone. A part of an upload
/// has to be sent within this time, for which 200 kB/s are enough.
const READ_TIMEOUT: &str = "30s";
/// The timeout of a whole request is too long to matter, because recordings are large and players read slowly.
const REQUEST_TIMEOUT: &str = "1day";
/// A failed request is retried after 0.1 seconds at first and 3 seconds at most: for about 5 seconds in all where
/// nothing listens. Somebody waits for an upload; workers go on retrying by themselves.
const RETRIES: usize = 6;
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(3);
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a location can't be used, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the folder {}", folders::unusable(path.parent().unwrap_or(path), path, error))]
    OwnFolder { path: PathBuf, error: io::Error },
    #[error(
        "the folder '{}' of the recordings can't be used: {}. See that it is mounted and that Hark may write there, or \
         set HARK_RECORDINGS_URL to another", path.display(), folders::explain(path, error)
    )]
    SharedFolder { path: PathBuf, error: io::Error },
    #[error("the AWS_* variables are invalid: {0}")]
    Settings(Error),
    #[error(
        "AWS_ENDPOINT_URL is an http:// address, so anybody on the network path can read everything. If that is intended, set AWS_ALLOW_HTTP=true"
    )]
    PlainHttp,
    #[error("there is no bucket '{0}' on the S3 server. Make it, or name another in HARK_RECORDINGS_URL")]
    NoBucket(String),
    #[error(
        "the S3 server refuses the bucket '{bucket}': {error}. Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION"
    )]
    Refused { bucket: String, error: Error },
    #[error("the bucket '{bucket}' can't be reached: {error}. Check AWS_ENDPOINT_URL, AWS_REGION and the network")]
    Unreachable { bucket: String, error: Error },
    #[error(
        "the S3 server didn't answer about the bucket '{bucket}' within {secs} seconds. Check AWS_ENDPOINT_URL and the network, \
         and that AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are set"
    )]
    TimedOut { bucket: String, secs: u64 },
}

/// Creates a folder of this node's own if it doesn't exist.
pub(super) fn make_folder(path: &Path) -> Result<(), OpenError> {
    folders::make_folder(path).map_err(|error| OpenError::OwnFolder { path: path.to_owned(), error })
}

/// Checks that a folder of this node's own can be used.
pub(super) fn check_own_folder(path: &Path) -> Result<(), OpenError> {
    check_access(path).map_err(|error| OpenError::OwnFolder { path: path.to_owned(), error })
}

/// Checks that there is such a folder, and that files in it can be read, made and removed. Writes nothing, so that it can be
/// asked often, and on a full disk.
pub(super) fn check_access(path: &Path) -> io::Result<()> {
    // With the dot, because of a file the root user may do all of this.
    Ok(access(path.join("."), Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK)?)
}

/// Checks that a shared folder can be written. Doesn't create it: if it is missing, a network share isn't mounted.
pub(super) fn check_folder(path: &Path) -> Result<(), OpenError> {
    let probe = path.join(format!(".{}", Uuid::new_v4()));
    let written = File::create_new(&probe).and_then(|_| fs::remove_file(&probe));
    written.map_err(|error| OpenError::SharedFolder { path: path.to_owned(), error })
}

pub(super) fn folder(path: &Path) -> Result<Arc<dyn ObjectStore>, OpenError> {
    let opened = LocalFileSystem::new_with_prefix(path);
    let opened = opened.map_err(|e| OpenError::SharedFolder { path: path.to_owned(), error: io::Error::other(e) })?;
    Ok(Arc::new(opened))
}

/// Opens a bucket with the settings in the usual AWS_* variables. Checks that it exists, and that it can be written, by
/// putting an empty object into it and removing that.
pub(super) async fn bucket(name: &str, prefix: &Key) -> Result<Arc<dyn ObjectStore>, OpenError> {
    let backoff = BackoffConfig { init_backoff: FIRST_BACKOFF, max_backoff: MAX_BACKOFF, base: 2.0 };
    let builder = AmazonS3Builder::from_env()
        .with_bucket_name(name)
        .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::ReadTimeout), READ_TIMEOUT)
        .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), REQUEST_TIMEOUT)
        .with_retry(RetryConfig { backoff, max_retries: RETRIES, retry_timeout: RETRY_TIMEOUT });
    let value = |key| builder.get_config_value(&key).unwrap_or_default();
    let http_allowed = value(AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp)).eq_ignore_ascii_case("true");
    let uses_http =
        [AmazonS3ConfigKey::Endpoint, AmazonS3ConfigKey::S3Endpoint].map(|key| value(key).starts_with("http://"));
    if uses_http.contains(&true) && !http_allowed {
        return Err(OpenError::PlainHttp);
    }
    let store = PrefixStore::new(builder.build().map_err(OpenError::Settings)?, prefix.clone());
    let bucket = name.to_owned();
    let probe = Key::from(format!(".{}", Uuid::new_v4()));
    let written = async {
        // Some servers create a bucket when it is written to. A mistyped name must not create one.
        if let Some(Err(error)) = store.list(None).next().await
            && error.to_string().contains("NoSuchBucket")
        {
            return Err(Error::NotFound { path: name.to_owned(), source: Box::new(error) });
        }
        store.put(&probe, PutPayload::new()).await?;
        store.delete(&probe).await
    };
    match time::timeout(CHECK_TIMEOUT, written).await {
        Ok(Ok(())) => Ok(Arc::new(store)),
        Ok(Err(error)) => Err(match error {
            Error::NotFound { .. } => OpenError::NoBucket(bucket),
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => OpenError::Refused { bucket, error },
            _ => OpenError::Unreachable { bucket, error },
        }),
        Err(_) => Err(OpenError::TimedOut { bucket, secs: CHECK_TIMEOUT.as_secs() }),
    }
}

/// Makes a scratch file appear as `to` by a hard link, whole and synced to the disk. Returns false where both aren't on
/// one file system that has hard links. The scratch file stays.
pub(super) fn link_into_folder(scratch: &Path, to: &Path) -> io::Result<bool> {
    File::open(scratch)?.sync_all()?;
    if fs::hard_link(scratch, to).is_err() {
        return Ok(false);
    }
    sync_folder(to)?;
    Ok(true)
}

/// Makes a scratch file appear as `to` by a copy, whole and synced to the disk.
pub(super) fn copy_into_folder(scratch: &Path, to: &Path) -> io::Result<()> {
    let part = part_file(to);
    let copied =
        fs::copy(scratch, &part).and_then(|_| File::open(&part)?.sync_all()).and_then(|()| fs::rename(&part, to));
    if let Err(error) = copied {
        let _ = fs::remove_file(&part);
        return Err(error);
    }
    sync_folder(to)
}

fn sync_folder(file: &Path) -> io::Result<()> {
    file.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// The name of a recording while it is copied.
pub(super) fn part_file(to: &Path) -> PathBuf {
    to.with_extension("part")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_folders_that_are_there_can_be_used() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        fs::write(&file, "").unwrap();
        let kind = |path: &Path| check_access(path).map_err(|error| error.kind());
        assert_eq!(kind(root.path()), Ok(()));
        assert_eq!(kind(&file), Err(io::ErrorKind::NotADirectory));
        assert_eq!(kind(&root.path().join("none")), Err(io::ErrorKind::NotFound));
    }
}
