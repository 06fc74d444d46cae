//! Reads of a file at positions that its own content may have named, so that none of them is an error of the storage.
//! Used by `sniff`, `declared`, `mp4`, `matroska` and `parts`.

use std::{fs::File, io, os::unix::fs::FileExt};

/// Bytes that are read at once.
pub(super) const WINDOW: usize = 256 * 1024;

/// A number of four bytes, the lowest first.
pub(super) fn le32(bytes: &[u8]) -> u32 {
    bytes.iter().take(4).rev().fold(0, |sum, byte| sum << 8 | u32::from(*byte))
}

/// A number of eight bytes, the lowest first.
pub(super) fn le64(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// A number of four bytes, the highest first.
pub(super) fn be32(bytes: &[u8]) -> u32 {
    bytes.iter().take(4).fold(0, |sum, byte| sum << 8 | u32::from(*byte))
}

/// A number of eight bytes, the highest first.
pub(super) fn be64(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// Fills `buffer` from a position; false where the file ends before.
pub(super) fn read_at(file: &File, at: u64, buffer: &mut [u8]) -> io::Result<bool> {
    // No file is that long, and the system would report an error.
    if i64::try_from(at).is_err() {
        return Ok(false);
    }
    match file.read_exact_at(buffer, at) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Up to `length` bytes from a position; fewer where the file ends before.
pub(super) fn read_up_to(file: &File, at: u64, length: usize) -> io::Result<Vec<u8>> {
    let size = file.metadata()?.len();
    let length = length.min(usize::try_from(size.saturating_sub(at)).unwrap_or(usize::MAX));
    let mut bytes = vec![0; length];
    Ok(if read_at(file, at, &mut bytes)? { bytes } else { Vec::new() })
}

/// A file that is read through a window.
pub(super) struct Window<'a> {
    file: &'a File,
    pub(super) size: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    pub(super) fn new(file: &'a File) -> io::Result<Self> {
        Ok(Self { file, size: file.metadata()?.len(), start: 0, bytes: Vec::new() })
    }

    /// The bytes at a position; fewer at the end of the file. `length` is far below [`WINDOW`].
    pub(super) fn get(&mut self, at: u64, length: usize) -> io::Result<&[u8]> {
        let inside = at >= self.start && at + length as u64 <= self.start + self.bytes.len() as u64;
        if !inside {
            self.bytes = read_up_to(self.file, at.min(self.size), WINDOW)?;
            self.start = at;
        }
        let from = usize::try_from(at - self.start).unwrap_or(usize::MAX).min(self.bytes.len());
        Ok(&self.bytes[from..self.bytes.len().min(from.saturating_add(length))])
    }

    /// The first position from `at` with the first byte of a mark, or the end of the file.
    pub(super) fn find(&mut self, mut at: u64, byte: u8) -> io::Result<u64> {
        while at < self.size {
            let bytes = self.get(at, 1)?;
            if bytes.is_empty() {
                break;
            }
            let from = usize::try_from(at - self.start).unwrap_or(usize::MAX);
            if let Some(found) = self.bytes[from..].iter().position(|found| *found == byte) {
                return Ok(at + found as u64);
            }
            at = self.start + self.bytes.len() as u64;
        }
        Ok(self.size)
    }
}
