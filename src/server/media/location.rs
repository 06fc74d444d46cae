//! Where recordings lie, as the operator says it: opened and looked at once, at the start, so that what is wrong shows
//! there and not at the first upload.

use crate::server::folders;
use futures::StreamExt;
use object_store::{
    BackoffConfig, ClientConfigKey, Error, ObjectStore, ObjectStoreExt, PutPayload, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    local::LocalFileSystem,
    path::Path as Key,
    prefix::PrefixStore,
};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::time;
use uuid::Uuid;

/// How long a bucket may take to answer at the start.
const CHECK: Duration = Duration::from_secs(15);
/// A server that says nothing for so long, in the middle of a request or before its answer, counts as gone. A part of
/// an upload has to be through by then, so that 200 kB/s are enough.
const SILENCE: &str = "30s";
/// Recordings are large and their players slow, so a whole request has no limit that matters.
const REQUEST: &str = "1day";
/// A request that fails is tried again, after 0.1 seconds at first and 3 at most: over some 5 seconds where nothing
/// listens. A person waits behind an upload; workers go on for longer by themselves.
const RETRIES: usize = 6;
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(3);
const RETRY_TIME: Duration = Duration::from_secs(60);

/// Why recordings can't be kept where they should, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the folder '{}' can't be used: {error}. Choose another with HARK_DATA_DIR", path.display())]
    Own { path: PathBuf, error: io::Error },
    #[error(
        "the folder '{}' of the recordings can't be used: {error}. See that it is mounted and that Hark may write there, or \
         set HARK_RECORDINGS_URL to another", path.display()
    )]
    Shared { path: PathBuf, error: io::Error },
    #[error("the AWS_* variables don't fit: {0}")]
    Settings(Error),
    #[error(
        "AWS_ENDPOINT_URL is an http:// address, which anybody on the way can read. If that is meant, set AWS_ALLOW_HTTP=true"
    )]
    Plain,
    #[error("there is no bucket '{0}' on the S3 server. Make it, or name another in HARK_RECORDINGS_URL")]
    NoBucket(String),
    #[error(
        "the S3 server refuses the bucket '{bucket}': {error}. Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION"
    )]
    Refused { bucket: String, error: Error },
    #[error("the bucket '{bucket}' can't be reached: {error}. Check AWS_ENDPOINT_URL, AWS_REGION and the network")]
    Unreachable { bucket: String, error: Error },
    #[error(
        "the S3 server said nothing about the bucket '{bucket}' for {secs} seconds. Check AWS_ENDPOINT_URL and the network, \
         and that AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are set"
    )]
    Silent { bucket: String, secs: u64 },
}

/// Makes a folder of this node's own, if it isn't there.
pub(super) fn make_folder(path: &Path) -> Result<(), OpenError> {
    folders::make_folder(path).map_err(|error| OpenError::Own { path: path.to_owned(), error })
}

/// Whether a shared folder can be written. It isn't made: where it is missing, a share isn't mounted.
pub(super) fn check_folder(path: &Path) -> Result<(), OpenError> {
    let probe = path.join(format!(".{}", Uuid::new_v4()));
    let written = File::create_new(&probe).and_then(|_| fs::remove_file(&probe));
    written.map_err(|error| OpenError::Shared { path: path.to_owned(), error })
}

pub(super) fn folder(path: &Path) -> Result<Arc<dyn ObjectStore>, OpenError> {
    let opened = LocalFileSystem::new_with_prefix(path);
    let opened = opened.map_err(|e| OpenError::Shared { path: path.to_owned(), error: io::Error::other(e) })?;
    Ok(Arc::new(opened))
}

/// Opens a bucket as the usual AWS_* variables say, looks whether it is there, and puts an empty object into it and
/// removes it.
pub(super) async fn bucket(name: &str, prefix: &Key) -> Result<Arc<dyn ObjectStore>, OpenError> {
    let backoff = BackoffConfig { init_backoff: FIRST_RETRY, max_backoff: LAST_RETRY, base: 2.0 };
    let builder = AmazonS3Builder::from_env()
        .with_bucket_name(name)
        .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::ReadTimeout), SILENCE)
        .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), REQUEST)
        .with_retry(RetryConfig { backoff, max_retries: RETRIES, retry_timeout: RETRY_TIME });
    let set = |key| builder.get_config_value(&key).unwrap_or_default();
    let may_be_plain = set(AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp)).eq_ignore_ascii_case("true");
    let plain = [AmazonS3ConfigKey::Endpoint, AmazonS3ConfigKey::S3Endpoint].map(|key| set(key).starts_with("http://"));
    if plain.contains(&true) && !may_be_plain {
        return Err(OpenError::Plain);
    }
    let store = PrefixStore::new(builder.build().map_err(OpenError::Settings)?, prefix.clone());
    let bucket = name.to_owned();
    let probe = Key::from(format!(".{}", Uuid::new_v4()));
    let written = async {
        // Some servers make the bucket for whoever writes into it; a mistyped name shall not come to be.
        if let Some(Err(error)) = store.list(None).next().await
            && error.to_string().contains("NoSuchBucket")
        {
            return Err(Error::NotFound { path: name.to_owned(), source: Box::new(error) });
        }
        store.put(&probe, PutPayload::new()).await?;
        store.delete(&probe).await
    };
    match time::timeout(CHECK, written).await {
        Ok(Ok(())) => Ok(Arc::new(store)),
        Ok(Err(error)) => Err(match error {
            Error::NotFound { .. } => OpenError::NoBucket(bucket),
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => OpenError::Refused { bucket, error },
            _ => OpenError::Unreachable { bucket, error },
        }),
        Err(_) => Err(OpenError::Silent { bucket, secs: CHECK.as_secs() }),
    }
}

/// Makes a scratch file appear as `to`, whole and on the disk for good, by a second name for the same bytes. False where
/// both aren't on one file system that can do so. The scratch file stays.
pub(super) fn link_into_folder(scratch: &Path, to: &Path) -> io::Result<bool> {
    File::open(scratch)?.sync_all()?;
    if fs::hard_link(scratch, to).is_err() {
        return Ok(false);
    }
    sync_folder(to)?;
    Ok(true)
}

/// The same by a copy.
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

/// What a recording is called while it is copied.
pub(super) fn part_file(to: &Path) -> PathBuf {
    to.with_extension("part")
}
