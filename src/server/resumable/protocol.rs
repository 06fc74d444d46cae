//! What the tus protocol says, without I/O: the metadata and checksums of requests, and which bytes an upload takes next.
//! <https://tus.io/protocols/resumable-upload>, version 1.0.0.

use crate::server::{error::Error, sessions::UploadOptions};
use data_encoding::BASE64;
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// The extensions of the protocol that are served, for `Tus-Extension`.
pub const EXTENSIONS: &str = "creation,creation-with-upload,checksum,expiration,termination";
/// The algorithms of checksums, for `Tus-Checksum-Algorithm`.
pub const CHECKSUM_ALGORITHMS: &str = "sha1,sha256";
/// The longest value in the metadata, in bytes: as long as a field of the form.
const MAX_VALUE: usize = 4096;
/// How many values the metadata may have.
const MAX_VALUES: usize = 32;

/// What a client says of its file when it begins an upload.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    pub file_name: String,
    pub options: UploadOptions,
    /// The hash of the file, as `tree_hash` computes it.
    pub hash: Option<String>,
    /// Whether the file is sent even if its owner has sent it before.
    pub again: bool,
}

impl Metadata {
    /// Reads an `Upload-Metadata` header: names, each with a value in base64 or none, with commas between. Unknown names are
    /// ignored.
    ///
    /// # Errors
    /// [`Error::BadRequest`] if it isn't of that form, or a value is too long.
    pub fn parse(header: &str) -> Result<Self, Error> {
        let mut metadata = Self::default();
        let mut seen = Vec::new();
        for pair in header.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once(' ').unwrap_or((pair, ""));
            if seen.contains(&name) {
                return Err(Error::BadRequest(format!("Upload-Metadata has '{}' twice.", shown(name))));
            }
            seen.push(name);
            if seen.len() > MAX_VALUES {
                return Err(Error::BadRequest(format!("Upload-Metadata has more than {MAX_VALUES} values.")));
            }
            metadata.set(name, value)?;
        }
        if metadata.file_name.trim().is_empty() {
            metadata.file_name = "recording".to_owned();
        }
        Ok(metadata)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), Error> {
        let options = &mut self.options;
        let field = match name {
            // Clients disagree on the name.
            "filename" | "name" => {
                let text = text(name, value)?;
                if name == "filename" || self.file_name.is_empty() {
                    self.file_name = text;
                }
                return Ok(());
            }
            "hash" => {
                let hash = text(name, value)?;
                if hash.len() != 64 || !hash.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
                    return Err(Error::BadRequest(
                        "'hash' in Upload-Metadata must be 64 hexadecimal digits in lower case.".to_owned(),
                    ));
                }
                self.hash = Some(hash);
                return Ok(());
            }
            "again" => {
                self.again = true;
                return Ok(());
            }
            "title" => &mut options.title,
            "language" => &mut options.language,
            "engine" => &mut options.engine,
            "vocabulary" => &mut options.vocabulary,
            "channels" => &mut options.channels,
            "track" => &mut options.track,
            _ => return Ok(()),
        };
        *field = Some(text(name, value)?);
        Ok(())
    }
}

/// The value of a name in the metadata.
fn text(name: &str, value: &str) -> Result<String, Error> {
    let bytes = BASE64.decode(value.trim().as_bytes()).map_err(|_| {
        Error::BadRequest(format!("The value of '{}' in Upload-Metadata isn't base64 with padding.", shown(name)))
    })?;
    if bytes.len() > MAX_VALUE {
        return Err(Error::BadRequest(format!(
            "The value of '{}' in Upload-Metadata is longer than {MAX_VALUE} bytes; shorten it.",
            shown(name)
        )));
    }
    String::from_utf8(bytes)
        .map_err(|_| Error::BadRequest(format!("The value of '{}' in Upload-Metadata isn't UTF-8.", shown(name))))
}

/// A name that a client sent, short enough for a message.
fn shown(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_graphic()).take(40).collect()
}

/// The checksum that a part must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checksum {
    algorithm: Algorithm,
    digest: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Sha1,
    Sha256,
}

impl Checksum {
    /// Reads an `Upload-Checksum` header: the algorithm, and the digest in base64.
    ///
    /// # Errors
    /// [`Error::BadRequest`] if the algorithm isn't known or the digest isn't one of it.
    pub fn parse(header: &str) -> Result<Self, Error> {
        let (name, digest) = header.trim().split_once(' ').unwrap_or((header, ""));
        let (algorithm, length) = match name {
            "sha1" => (Algorithm::Sha1, 20),
            "sha256" => (Algorithm::Sha256, 32),
            _ => {
                return Err(Error::BadRequest(format!(
                    "The algorithm of Upload-Checksum isn't one of these: {CHECKSUM_ALGORITHMS}."
                )));
            }
        };
        let digest = BASE64.decode(digest.trim().as_bytes()).ok().filter(|digest| digest.len() == length);
        let digest = digest.ok_or_else(|| {
            Error::BadRequest(format!("Upload-Checksum has no {name} digest in base64 behind the name."))
        })?;
        Ok(Self { algorithm, digest })
    }

    /// What computes the checksum of a part.
    #[must_use]
    pub fn hasher(&self) -> Hasher {
        match self.algorithm {
            Algorithm::Sha1 => Hasher::Sha1(Sha1::new()),
            Algorithm::Sha256 => Hasher::Sha256(Sha256::new()),
        }
    }

    /// Whether the part that was hashed is the one that was meant.
    #[must_use]
    pub fn matches(&self, hasher: Hasher) -> bool {
        match hasher {
            Hasher::Sha1(hash) => hash.finalize().as_slice() == self.digest,
            Hasher::Sha256(hash) => hash.finalize().as_slice() == self.digest,
        }
    }
}

/// Computes the checksum of a part.
#[derive(Clone)]
pub enum Hasher {
    Sha1(Sha1),
    Sha256(Sha256),
}

impl Hasher {
    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha1(hash) => hash.update(bytes),
            Self::Sha256(hash) => hash.update(bytes),
        }
    }
}

/// How much of an upload is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Bytes of the whole file.
    pub length: u64,
    /// Bytes that are here, from the beginning.
    pub received: u64,
}

/// What an upload is after a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// As before: the part was empty.
    Unchanged,
    /// Longer, and not complete.
    More,
    /// All bytes are here.
    Last,
}

impl Extent {
    /// The most bytes that a part at `offset` may have, of at most `part_limit`. `declared`: how many the client says that it has.
    ///
    /// # Errors
    /// [`Error::WrongOffset`] if the part doesn't begin where the upload ends; [`Error::PartTooLarge`] or [`Error::BeyondEnd`] if
    /// it is known to be too large.
    pub fn room(&self, offset: u64, declared: Option<u64>, part_limit: u64) -> Result<u64, Error> {
        if declared.is_some_and(|bytes| bytes > part_limit) {
            return Err(Error::PartTooLarge { limit: part_limit });
        }
        if offset != self.received {
            return Err(Error::WrongOffset { offset: self.received });
        }
        if declared.is_some_and(|bytes| bytes > self.left()) {
            return Err(Error::BeyondEnd { left: self.left() });
        }
        Ok(part_limit.min(self.left()))
    }

    /// The error for a part that turns out to be too large as it comes.
    #[must_use]
    pub fn too_large(&self, part_limit: u64) -> Error {
        if self.left() < part_limit {
            Error::BeyondEnd { left: self.left() }
        } else {
            Error::PartTooLarge { limit: part_limit }
        }
    }

    /// What the upload is after a part of so many bytes.
    #[must_use]
    pub fn after(&self, bytes: u64) -> Arrival {
        match bytes {
            0 => Arrival::Unchanged,
            bytes if bytes >= self.left() => Arrival::Last,
            _ => Arrival::More,
        }
    }

    fn left(&self) -> u64 {
        self.length.saturating_sub(self.received)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pair(name: &str, value: &str) -> String {
        format!("{name} {}", BASE64.encode(value.as_bytes()))
    }

    #[test]
    fn metadata_has_the_name_and_the_options() {
        let header =
            [pair("filename", "Größe.wav"), pair("filetype", "audio/wav"), pair("title", "A talk"), "again".to_owned()];
        let read = Metadata::parse(&header.join(",")).unwrap();
        assert_eq!((&*read.file_name, read.options.title.as_deref(), read.again), ("Größe.wav", Some("A talk"), true));
        assert_eq!((read.options.engine, read.hash), (None, None));
        assert_eq!(Metadata::parse("").unwrap().file_name, "recording");
        let both = Metadata::parse(&[pair("filename", "a.wav"), pair("name", "b.wav")].join(", ")).unwrap();
        assert_eq!(both.file_name, "a.wav");
        let hash = "0123456789abcdef".repeat(4);
        assert_eq!(Metadata::parse(&pair("hash", &hash)).unwrap().hash, Some(hash));
    }

    #[test]
    fn metadata_that_cannot_be_read_is_refused() {
        let long = pair("title", &"x".repeat(MAX_VALUE + 1));
        let many = (0..=MAX_VALUES).map(|n| format!("a{n}")).collect::<Vec<_>>().join(",");
        let upper = pair("hash", &"A".repeat(64));
        for header in
            ["title %%%", "title YQ", "title /w==", "title YQ==,title YQ==", "hash YQ==", &long, &many, &upper]
        {
            assert!(matches!(Metadata::parse(header), Err(Error::BadRequest(_))), "{header}");
        }
    }

    #[test]
    fn checksums_are_compared_by_their_algorithm() {
        for (header, right) in [
            ("sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=", "hello world"),
            ("sha256 uU0nuZNNPgilLlLX2n2r+sSE7+N6U4DukIj3rOLvzek=", "hello world"),
        ] {
            let checksum = Checksum::parse(header).unwrap();
            for (text, matches) in [(right, true), ("hello worlds", false)] {
                let mut hasher = checksum.hasher();
                text.as_bytes().chunks(4).for_each(|piece| hasher.update(piece));
                assert_eq!(checksum.matches(hasher), matches, "{header}");
            }
        }
        for header in
            ["", "md5 Kq5sNclPz7QV2+lfQIuc6R7oRu0=", "sha1", "sha1 Kq5s", "sha256 Kq5sNclPz7QV2+lfQIuc6R7oRu0="]
        {
            assert!(matches!(Checksum::parse(header), Err(Error::BadRequest(_))), "{header}");
        }
    }

    #[test]
    fn a_part_begins_where_the_upload_ends_and_stays_within_it() {
        let extent = Extent { length: 100, received: 60 };
        assert_eq!(extent.room(60, Some(10), 30).unwrap(), 30);
        assert_eq!(extent.room(60, None, 80).unwrap(), 40);
        assert!(matches!(extent.room(59, Some(10), 30), Err(Error::WrongOffset { offset: 60 })));
        assert!(matches!(extent.room(60, Some(31), 30), Err(Error::PartTooLarge { limit: 30 })));
        assert!(matches!(extent.room(60, Some(41), 80), Err(Error::BeyondEnd { left: 40 })));
        assert_eq!(
            [0, 1, 39, 40].map(|n| extent.after(n)),
            [Arrival::Unchanged, Arrival::More, Arrival::More, Arrival::Last]
        );
        let whole = Extent { length: 100, received: 100 };
        assert_eq!(whole.room(100, Some(0), 30).unwrap(), 0);
    }

    proptest! {
        /// Whatever sizes parts have, an upload takes each byte once and is complete exactly at its end.
        #[test]
        fn parts_add_up(length in 1u64..10_000, limit in 1u64..3000, sizes in proptest::collection::vec(0u64..4000, 0..50)) {
            let mut extent = Extent { length, received: 0 };
            for size in sizes {
                let Ok(room) = extent.room(extent.received, Some(size), limit) else {
                    prop_assert!(size > limit || extent.received + size > length);
                    continue;
                };
                prop_assert!(size <= room);
                let arrival = extent.after(size);
                extent.received += size;
                prop_assert!(extent.received <= length);
                prop_assert_eq!(arrival == Arrival::Last, size > 0 && extent.received == length);
            }
        }

        #[test]
        fn any_header_is_read_or_refused(header in any::<String>()) {
            let _ = Metadata::parse(&header);
            let _ = Checksum::parse(&header);
        }
    }
}
