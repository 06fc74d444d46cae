//! The location of recordings, as set with `HARK_RECORDINGS_URL`; `media` opens it.

use object_store::path::Path as Key;
use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

/// The location of recordings, if it isn't the data folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordingsUrl {
    /// An existing folder, which several nodes may share.
    Folder(PathBuf),
    /// A bucket of an S3-compatible server, under the prefix.
    Bucket { name: String, prefix: Key },
}

impl RecordingsUrl {
    /// The folder, unless it is a bucket.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Self::Folder(path) => Some(path),
            Self::Bucket { .. } => None,
        }
    }
}

impl fmt::Display for RecordingsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => write!(f, "file://{}", path.display()),
            Self::Bucket { name, prefix } => write!(f, "s3://{name}/{prefix}"),
        }
    }
}

impl FromStr for RecordingsUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const USAGE: &str = "must be file:///folder or s3://bucket/prefix; leave it out to use the data folder";
        let url = reqwest::Url::parse(text).map_err(|_| USAGE)?;
        let plain = url.username().is_empty() && url.port().is_none() && url.query().or(url.fragment()).is_none();
        match (url.scheme(), url.host_str()) {
            ("file", None) if plain && text.starts_with("file:///") => {
                url.to_file_path().ok().filter(|path| path.parent().is_some()).map(Self::Folder).ok_or(USAGE)
            }
            ("s3", Some(name)) if plain => {
                let prefix = Key::from_url_path(url.path()).map_err(|_| USAGE)?;
                Ok(Self::Bucket { name: name.to_owned(), prefix })
            }
            _ => Err(USAGE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let bucket =
            |name: &str, prefix: &str| RecordingsUrl::Bucket { name: name.to_owned(), prefix: Key::from(prefix) };
        for (text, wanted) in [
            ("file:///srv/hark", Some(RecordingsUrl::Folder("/srv/hark".into()))),
            ("file:///srv/my%20folder/", Some(RecordingsUrl::Folder("/srv/my folder/".into()))),
            ("s3://hark", Some(bucket("hark", ""))),
            ("s3://my.hark/", Some(bucket("my.hark", ""))),
            ("s3://hark/a/b", Some(bucket("hark", "a/b"))),
            ("", None),
            ("/srv/hark", None),
            ("file:", None),
            ("file:///", None),
            ("file://srv/hark", None),
            ("file:srv/hark", None),
            ("s3:", None),
            ("s3:///prefix", None),
            ("s3://key:secret@hark", None),
            ("s3://hark:9000/x", None),
            ("s3://hark?region=x", None),
            ("s3://hark/a//b", None),
            ("https://hark.example", None),
            ("gs://hark", None),
        ] {
            assert_eq!(text.parse().ok(), wanted, "{text}");
        }
    }
}
