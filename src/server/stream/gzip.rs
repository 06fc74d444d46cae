//! A gzip encoder for a stream of events that holds no compressor. Deflate may refer to anything that its decoder
//! already has, so each write resets the thread's compressor and gives it the stream's last events as dictionary.
//! Formats: RFC 1952 (gzip), RFC 1951 (deflate). Used by a `StatusStream` whose client asked for compression.

use bytes::Bytes;
use flate2::{Compress, Compression, Crc, FlushCompress};
use std::{cell::RefCell, collections::VecDeque};

/// How many of its last events a stream keeps as dictionary, as clones: one status and one segment make the next of
/// their kind small, and a stream of all sessions carries a few sessions in turn.
const DICTIONARY_EVENTS: usize = 8;
/// The most bytes that these have together: eight events of the usual size. 50% more would save 1%, and every stream
/// keeps them.
const DICTIONARY_BYTES: usize = 3 * 1024;
/// RFC 1952, 2.3: deflate, no flags, no time, no hint at the level, no system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
/// RFC 1951, 3.2.6: a last block, with fixed codes, that is empty.
const LAST_BLOCK: [u8; 2] = [3, 0];

thread_local! {
    static COMPRESSOR: RefCell<Compressor> = RefCell::new(Compressor::new());
}

/// The compressor with its buffers: 300 kB that all streams of a thread share. It runs at the best level, which costs a
/// microsecond more than the default with texts as short as these.
struct Compressor {
    deflate: Compress,
    plain: Vec<u8>,
    packed: Vec<u8>,
}

/// A gzip file that is written event by event. Each write can be decoded as soon as it has arrived.
#[derive(Debug, Default)]
pub(super) struct Gzip {
    /// The last events written, oldest first.
    recent: VecDeque<Bytes>,
    recent_bytes: usize,
    /// Checksum and length of all that was written.
    checksum: Crc,
    started: bool,
    ended: bool,
}

impl Gzip {
    /// Compresses some events as one write, with the end of the file if they are the `last`. Later writes are empty.
    pub(super) fn write<'a>(&mut self, events: impl Iterator<Item = &'a Bytes> + Clone, last: bool) -> Bytes {
        if self.ended {
            return Bytes::new();
        }
        COMPRESSOR.with_borrow_mut(|compressor| {
            compressor.packed.clear();
            if !self.started {
                self.started = true;
                compressor.packed.extend_from_slice(&HEADER);
            }
            compressor.compress(&self.recent, events.clone());
            for event in events {
                self.checksum.update(event);
                self.remember(event);
            }
            if last {
                self.ended = true;
                compressor.packed.extend_from_slice(&LAST_BLOCK);
                compressor.packed.extend_from_slice(&self.checksum.sum().to_le_bytes());
                compressor.packed.extend_from_slice(&self.checksum.amount().to_le_bytes());
            }
            Bytes::copy_from_slice(&compressor.packed)
        })
    }

    fn remember(&mut self, event: &Bytes) {
        // Copied, because a slice of a long event would keep all of it in memory.
        let tail = event.len().checked_sub(DICTIONARY_BYTES).map(|from| Bytes::copy_from_slice(&event[from..]));
        let event = tail.unwrap_or_else(|| event.clone());
        self.recent_bytes += event.len();
        while self.recent.len() >= DICTIONARY_EVENTS || self.recent_bytes > DICTIONARY_BYTES {
            let Some(old) = self.recent.pop_front() else { break };
            self.recent_bytes -= old.len();
        }
        self.recent.push_back(event);
    }
}

impl Compressor {
    fn new() -> Self {
        Self { deflate: Compress::new(Compression::best(), false), plain: Vec::new(), packed: Vec::new() }
    }

    /// Compresses `events` with `recent` as dictionary, up to a byte boundary.
    fn compress<'a>(&mut self, recent: &VecDeque<Bytes>, events: impl Iterator<Item = &'a Bytes>) {
        self.plain.clear();
        recent.iter().for_each(|event| self.plain.extend_from_slice(event));
        let start = self.plain.len();
        events.for_each(|event| self.plain.extend_from_slice(event));
        let (dictionary, mut plain) = self.plain.split_at(start);
        if plain.is_empty() {
            return;
        }
        self.deflate.reset();
        // An error is ignored: without a dictionary the output is only longer.
        let _ = self.deflate.set_dictionary(dictionary);
        loop {
            // Usually enough for everything. If the buffer is full afterwards, there may be more output.
            self.packed.reserve(plain.len() + 64);
            let before = self.deflate.total_in();
            let packing = self.deflate.compress_vec(plain, &mut self.packed, FlushCompress::Sync);
            packing.expect("a compressor that was just reset takes any bytes");
            plain = &plain[(self.deflate.total_in() - before) as usize..];
            if self.packed.len() < self.packed.capacity() {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests;
