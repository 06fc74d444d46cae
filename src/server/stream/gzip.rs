//! A gzip encoder for a stream of events that holds no compressor. Deflate may refer to whatever its decoder has
//! already, so each write starts a compressor of the thread's afresh, with the last events before it as dictionary.
//! Formats: RFC 1952 (gzip), RFC 1951 (deflate). Held by a `StatusStream` whose client asked for it.

use bytes::Bytes;
use flate2::{Compress, Compression, Crc, FlushCompress};
use std::{cell::RefCell, collections::VecDeque};

/// How many of the last events a stream keeps to refer to, as clones: one status and one segment make the next of their
/// kind cheap, and the stream of all sessions has a few sessions in turn.
const EVENTS: usize = 8;
/// Bytes they have together at most: eight of the usual events. Half as much again would save a hundredth, and each
/// stream keeps them.
const BYTES: usize = 3 * 1024;
/// RFC 1952, 2.3: deflate, no flags, no time, no hint at the level, no system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
/// RFC 1951, 3.2.6: a last block, with fixed codes, that holds nothing.
const LAST_BLOCK: [u8; 2] = [3, 0];

thread_local! {
    static WORKSHOP: RefCell<Workshop> = RefCell::new(Workshop::new());
}

/// What compresses: 300 kB that all streams of a thread take turns in. At its best level, which costs a microsecond more
/// than the usual one with texts as short as these.
struct Workshop {
    deflate: Compress,
    plain: Vec<u8>,
    packed: Vec<u8>,
}

/// A gzip file that is written event by event. Each write can be read as soon as it has arrived.
#[derive(Debug, Default)]
pub(super) struct Gzip {
    /// The last events written, oldest first.
    recent: VecDeque<Bytes>,
    recent_bytes: usize,
    /// Of all that was written, with its length.
    sum: Crc,
    begun: bool,
    ended: bool,
}

impl Gzip {
    /// Packs some events as one write, and the end of the file if they are the `last`. Nothing comes after that.
    pub(super) fn write<'a>(&mut self, events: impl Iterator<Item = &'a Bytes> + Clone, last: bool) -> Bytes {
        if self.ended {
            return Bytes::new();
        }
        WORKSHOP.with_borrow_mut(|workshop| {
            workshop.packed.clear();
            if !self.begun {
                self.begun = true;
                workshop.packed.extend_from_slice(&HEADER);
            }
            workshop.pack(&self.recent, events.clone());
            for event in events {
                self.sum.update(event);
                self.keep(event);
            }
            if last {
                self.ended = true;
                workshop.packed.extend_from_slice(&LAST_BLOCK);
                workshop.packed.extend_from_slice(&self.sum.sum().to_le_bytes());
                workshop.packed.extend_from_slice(&self.sum.amount().to_le_bytes());
            }
            Bytes::copy_from_slice(&workshop.packed)
        })
    }

    fn keep(&mut self, event: &Bytes) {
        // A slice of a long one would keep all of it.
        let tail = event.len().checked_sub(BYTES).map(|from| Bytes::copy_from_slice(&event[from..]));
        let event = tail.unwrap_or_else(|| event.clone());
        self.recent_bytes += event.len();
        while self.recent.len() >= EVENTS || self.recent_bytes > BYTES {
            let Some(old) = self.recent.pop_front() else { break };
            self.recent_bytes -= old.len();
        }
        self.recent.push_back(event);
    }
}

impl Workshop {
    fn new() -> Self {
        Self { deflate: Compress::new(Compression::best(), false), plain: Vec::new(), packed: Vec::new() }
    }

    /// Compresses `events` after `recent`, up to a byte's end.
    fn pack<'a>(&mut self, recent: &VecDeque<Bytes>, events: impl Iterator<Item = &'a Bytes>) {
        self.plain.clear();
        recent.iter().for_each(|event| self.plain.extend_from_slice(event));
        let start = self.plain.len();
        events.for_each(|event| self.plain.extend_from_slice(event));
        let (dictionary, mut plain) = self.plain.split_at(start);
        if plain.is_empty() {
            return;
        }
        self.deflate.reset();
        // Without one it would only be longer.
        let _ = self.deflate.set_dictionary(dictionary);
        loop {
            // Usually enough for all of it. A buffer that is full afterwards may have left something behind.
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
