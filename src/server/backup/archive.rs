//! The file of a backup: a tar archive of the database, the keys and the recordings, uncompressed because recordings are
//! compressed already, and behind them a manifest with the SHA-256 of each. Only names that a backup has are accepted, and
//! only plain files, so an archive can put nothing anywhere else. No decision is made here: `backup` writes one, `restore`
//! reads it.

use crate::{
    model::{SessionId, Timestamp, bytes},
    server::{
        media,
        secret::{KEY_FILE, KEY_FILE_BEFORE},
        space,
        store::DATABASE_FILE,
    },
};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};
use tar::{Archive, Builder, EntryType, Header};

/// The version of this format. One that reads a higher number refuses it.
const FORMAT: u32 = 1;
const MANIFEST: &str = "manifest.json";
/// The largest manifest that is read, in bytes: enough for two million recordings.
const MAX_MANIFEST: u64 = 512 * 1024 * 1024;
/// How much is read at once, in bytes.
const BUFFER: usize = 256 * 1024;

/// What a backup holds. The last file of the archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) format: u32,
    /// The version of the Hark that made it.
    pub(super) hark: String,
    pub(super) made_at: Timestamp,
    /// The version of the database's tables.
    pub(super) schema: i64,
    pub(super) sessions: u64,
    pub(super) recordings: u64,
    /// Sessions whose recording wasn't there.
    pub(super) without_recording: u64,
    /// Where the recordings are, if they aren't in the archive.
    pub(super) recordings_elsewhere: Option<String>,
    pub(super) files: BTreeMap<String, Content>,
}

/// What a file in the archive holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Content {
    pub(super) bytes: u64,
    /// In hexadecimal digits.
    pub(super) sha256: String,
}

impl Manifest {
    pub(super) fn new(schema: i64, sessions: u64) -> Self {
        Self {
            format: FORMAT,
            hark: env!("CARGO_PKG_VERSION").to_owned(),
            made_at: Timestamp::now(),
            schema,
            sessions,
            recordings: 0,
            without_recording: 0,
            recordings_elsewhere: None,
            files: BTreeMap::new(),
        }
    }

    /// The bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.files.values().map(|content| content.bytes).sum()
    }

    /// Whether the key that signs cookies is in it.
    pub(super) fn has_key(&self) -> bool {
        self.files.contains_key(KEY_FILE)
    }
}

/// The name of a recording in the archive.
pub(super) fn recording_name(id: SessionId) -> String {
    format!("{}/{id}", media::FOLDER)
}

/// Whether a file of this name may be in an archive.
fn is_expected(name: &str) -> bool {
    let recording = || {
        let id = name.strip_prefix(media::FOLDER)?.strip_prefix('/')?;
        // As the id itself is written: UUIDs can be written in several ways.
        Some(id.parse::<SessionId>().ok()?.to_string() == id)
    };
    [DATABASE_FILE, KEY_FILE, KEY_FILE_BEFORE].contains(&name) || recording() == Some(true)
}

/// Why an archive can't be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ArchiveError {
    #[error("it isn't a backup of Hark, or it is damaged: {0}")]
    Unreadable(io::Error),
    #[error("it is incomplete: it ends before its {MANIFEST}. Was it copied whole?")]
    Incomplete,
    #[error("it holds '{0}', which no backup of Hark has")]
    Unexpected(String),
    #[error("it holds '{0}' twice")]
    Twice(String),
    #[error("its {MANIFEST} can't be read: {0}")]
    Manifest(String),
    #[error(
        "it has format {0}, and this program knows formats up to {FORMAT}: it was made by a newer Hark. Restore it with that one"
    )]
    Newer(u32),
    #[error("it is damaged: '{0}' isn't what was backed up. Take another backup")]
    Damaged(String),
    #[error("it is damaged: '{0}' is missing. Take another backup")]
    Missing(String),
    #[error("there is too little room: '{name}' needs {}, and {} are free", bytes(*needed), bytes(*free))]
    Full { name: String, needed: u64, free: u64 },
    #[error("'{name}' can't be written: {error}")]
    Write { name: String, error: io::Error },
}

/// Writes an archive.
pub(super) struct Writer<W: Write> {
    archive: Builder<W>,
    pub(super) manifest: Manifest,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(out: W, manifest: Manifest) -> Self {
        Self { archive: Builder::new(out), manifest }
    }

    /// Appends a file, which doesn't change meanwhile.
    pub(super) fn append(&mut self, name: &str, file: &File) -> io::Result<()> {
        let size = file.metadata()?.len();
        let mut content = Hashed::new(file.take(size));
        self.archive.append(&header(name, size)?, &mut content)?;
        let (read, sha256) = content.end();
        if read != size {
            return Err(io::Error::other(format!("only {read} of its {size} bytes could be read")));
        }
        self.manifest.files.insert(name.to_owned(), Content { bytes: size, sha256 });
        Ok(())
    }

    /// Appends the manifest and ends the archive.
    pub(super) fn finish(mut self) -> io::Result<(W, Manifest)> {
        let manifest = serde_json::to_vec(&self.manifest)?;
        self.archive.append(&header(MANIFEST, manifest.len() as u64)?, &*manifest)?;
        Ok((self.archive.into_inner()?, self.manifest))
    }
}

fn header(name: &str, size: u64) -> io::Result<Header> {
    let mut header = Header::new_gnu();
    header.set_path(name)?;
    header.set_entry_type(EntryType::Regular);
    header.set_size(size);
    header.set_mode(0o600);
    header.set_mtime(Timestamp::now().0.unsigned_abs() / 1000);
    header.set_cksum();
    Ok(header)
}

/// Writes the files of an archive into `folder`, which is empty and on the disk that they will stay on, and compares them
/// with the manifest. What was written is removed by the caller if this fails.
///
/// # Errors
/// If the archive isn't whole and unchanged, or the disk is full.
pub(super) fn unpack(input: impl Read, folder: &Path) -> Result<Manifest, ArchiveError> {
    let recordings = folder.join(media::FOLDER);
    let made = DirBuilder::new().mode(0o700).create(&recordings);
    made.map_err(|error| ArchiveError::Write { name: media::FOLDER.to_owned(), error })?;
    let mut archive = Archive::new(input);
    let mut files = BTreeMap::new();
    let mut manifest = None;
    // Raw, so that entries which change the name or the size of the next one are seen as what they are.
    for entry in archive.entries().map_err(ArchiveError::Unreadable)?.raw(true) {
        let mut entry = entry.map_err(ArchiveError::Unreadable)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let plain = entry.header().entry_type() == EntryType::Regular;
        let size = entry.size();
        if manifest.is_some() || !plain || (name != MANIFEST && !is_expected(&name)) {
            return Err(ArchiveError::Unexpected(name));
        }
        if name == MANIFEST {
            manifest = Some(read_manifest(&mut entry, size)?);
            continue;
        }
        if files.contains_key(&name) {
            return Err(ArchiveError::Twice(name));
        }
        let content = unpack_file(&mut entry, &name, size, folder)?;
        files.insert(name, content);
    }
    let manifest = manifest.ok_or(ArchiveError::Incomplete)?;
    for (name, content) in &manifest.files {
        match files.get(name) {
            None => return Err(ArchiveError::Missing(name.clone())),
            Some(found) if found != content => return Err(ArchiveError::Damaged(name.clone())),
            Some(_) => {}
        }
    }
    if let Some(name) = files.keys().find(|name| !manifest.files.contains_key(*name)) {
        return Err(ArchiveError::Unexpected(name.clone()));
    }
    if !files.contains_key(DATABASE_FILE) {
        return Err(ArchiveError::Missing(DATABASE_FILE.to_owned()));
    }
    Ok(manifest)
}

fn read_manifest(entry: &mut impl Read, size: u64) -> Result<Manifest, ArchiveError> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    if size > MAX_MANIFEST {
        return Err(ArchiveError::Manifest(format!("it is larger than {}", bytes(MAX_MANIFEST))));
    }
    let mut text = Vec::new();
    entry.read_to_end(&mut text).map_err(ArchiveError::Unreadable)?;
    if text.len() as u64 != size {
        return Err(ArchiveError::Incomplete);
    }
    // A later format may have other fields.
    let invalid = |error: serde_json::Error| ArchiveError::Manifest(error.to_string());
    let Format { format } = serde_json::from_slice(&text).map_err(invalid)?;
    if format > FORMAT {
        return Err(ArchiveError::Newer(format));
    }
    serde_json::from_slice(&text).map_err(invalid)
}

fn unpack_file(entry: &mut impl Read, name: &str, size: u64, folder: &Path) -> Result<Content, ArchiveError> {
    let failed = |error| ArchiveError::Write { name: name.to_owned(), error };
    let free = space::free_bytes(folder).map_err(failed)?;
    if size > free {
        return Err(ArchiveError::Full { name: name.to_owned(), needed: size, free });
    }
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(folder.join(name)).map_err(failed)?;
    let mut content = Hashed::new(entry);
    let mut buffer = vec![0; BUFFER];
    loop {
        let n = content.read(&mut buffer).map_err(ArchiveError::Unreadable)?;
        if n == 0 {
            break;
        }
        file.write_all(&buffer[..n]).map_err(failed)?;
    }
    let (read, sha256) = content.end();
    if read == size { Ok(Content { bytes: size, sha256 }) } else { Err(ArchiveError::Incomplete) }
}

/// Counts and hashes what is read through it.
struct Hashed<R> {
    inner: R,
    bytes: u64,
    hash: Sha256,
}

impl<R> Hashed<R> {
    fn new(inner: R) -> Self {
        Self { inner, bytes: 0, hash: Sha256::new() }
    }

    fn end(self) -> (u64, String) {
        (self.bytes, HEXLOWER.encode(&self.hash.finalize()))
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hash.update(&buffer[..n]);
        self.bytes += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use tempfile::TempDir;

    const ID: &str = "01a21a4e-b04b-720f-820d-2db3b27a9de5";

    /// An archive with a database, a key and a recording.
    fn archive() -> (Vec<u8>, Manifest) {
        let folder = TempDir::new().unwrap();
        let mut writer = Writer::new(Vec::new(), Manifest::new(16, 1));
        for (name, text) in
            [(DATABASE_FILE, "tables"), (KEY_FILE, "key"), (&recording_name(ID.parse().unwrap()), "sound")]
        {
            let path = folder.path().join("file");
            fs::write(&path, text).unwrap();
            writer.append(name, &File::open(path).unwrap()).unwrap();
        }
        writer.finish().unwrap()
    }

    fn unpacked(archive: &[u8]) -> Result<Manifest, String> {
        let folder = TempDir::new().unwrap();
        unpack(archive, folder.path()).map_err(|error| error.to_string())
    }

    /// An archive of entries with these names, of this kind, behind which the manifest `written` stands.
    fn made(entries: &[(&str, EntryType)], written: &str) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        let file = |name: &str, kind: EntryType, size: usize| {
            let mut header = Header::new_gnu();
            // By hand, because the builder refuses such names.
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(kind);
            header.set_size(size as u64);
            header.set_mode(0o600);
            header.set_cksum();
            header
        };
        for (name, kind) in entries {
            builder.append(&file(name, *kind, 6), &b"tables"[..]).unwrap();
        }
        builder.append(&file(MANIFEST, EntryType::Regular, written.len()), written.as_bytes()).unwrap();
        builder.into_inner().unwrap()
    }

    #[test]
    fn what_was_put_in_comes_out() {
        let (archive, manifest) = archive();
        let folder = TempDir::new().unwrap();
        assert_eq!(unpack(&*archive, folder.path()).unwrap(), manifest);
        assert_eq!(manifest.bytes(), 14);
        for (name, text) in [(DATABASE_FILE, "tables"), (KEY_FILE, "key"), (&format!("recordings/{ID}"), "sound")] {
            assert_eq!(fs::read_to_string(folder.path().join(name)).unwrap(), text);
        }
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_noticed() {
        let (archive, _) = archive();
        // Two blocks of zeros end an archive; a reader needs none of them.
        for length in 0..archive.len() - 1024 {
            assert!(unpacked(&archive[..length]).is_err(), "cut to {length}");
        }
        // The contents of the three files: each has a head of 512 bytes and is filled up to as many.
        for at in [512, 517, 1536, 2560, 2564] {
            let mut changed = archive.clone();
            changed[at] ^= 1;
            assert!(unpacked(&changed).unwrap_err().contains("isn't what was backed up"), "{at}");
        }
        for head in [0, 100, 1024, 2048, 3072] {
            let mut changed = archive.clone();
            changed[head] ^= 1;
            assert!(unpacked(&changed).is_err(), "{head}");
        }
    }

    #[test]
    fn nothing_but_the_files_of_a_backup_is_accepted() {
        let manifest = serde_json::to_string(&Manifest::new(16, 1)).unwrap();
        let name = |id: &str| format!("recordings/{id}");
        for bad in [
            "../escaped",
            "/etc/escaped",
            "recordings/../../escaped",
            "recordings/",
            "recordings",
            "models/base.bin",
            "hark.sqlite-wal",
            "hark.lock",
            &name(&ID.to_uppercase()),
            &name(&ID.replace('-', "")),
            &name(&format!("{ID}/x")),
            "",
        ] {
            let told = unpacked(&made(&[(bad, EntryType::Regular)], &manifest)).unwrap_err();
            assert!(told.contains("which no backup of Hark has"), "{bad}: {told}");
        }
        for kind in [
            EntryType::Symlink,
            EntryType::Link,
            EntryType::Directory,
            EntryType::Char,
            EntryType::Fifo,
            EntryType::GNUSparse,
            EntryType::GNULongName,
            EntryType::XHeader,
            EntryType::XGlobalHeader,
        ] {
            let told = unpacked(&made(&[(DATABASE_FILE, kind)], &manifest)).unwrap_err();
            assert!(told.contains("which no backup of Hark has"), "{kind:?}: {told}");
        }
        let twice = [(DATABASE_FILE, EntryType::Regular); 2];
        assert!(unpacked(&made(&twice, &manifest)).unwrap_err().contains("twice"));
        // What the manifest doesn't have, and the other way round.
        assert!(unpacked(&made(&twice[..1], &manifest)).unwrap_err().contains("which no backup of Hark has"));
        assert!(unpacked(&made(&[], &manifest)).unwrap_err().contains("'hark.sqlite' is missing"));
    }

    #[test]
    fn a_later_format_is_refused_in_words() {
        let told = unpacked(&made(&[], r#"{"format":2,"new":true}"#)).unwrap_err();
        assert!(told.contains("format 2") && told.contains("newer Hark"), "{told}");
        assert!(unpacked(&made(&[], "{")).unwrap_err().contains("manifest.json can't be read"));
        assert!(unpacked(b"no archive at all").is_err());
    }
}
