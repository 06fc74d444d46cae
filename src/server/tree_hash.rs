//! The hash by which a recording is recognised: the SHA-256 of the SHA-256 of each block, so that a browser can compute it too,
//! which hashes only what it holds in memory. Used by `media` while a recording is written.

use crate::model::upload::HASH_BLOCK;
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

/// The hash of what was written so far.
#[derive(Clone, Debug, Default)]
pub(super) struct TreeHash {
    /// The hash of the current block, and how many bytes it has.
    block: Sha256,
    filled: u64,
    /// The hash of the hashes of the blocks before.
    blocks: Sha256,
}

impl TreeHash {
    /// Adds the next bytes.
    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = usize::try_from(HASH_BLOCK - self.filled).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.block.update(now);
            self.filled += now.len() as u64;
            bytes = later;
            if self.filled == HASH_BLOCK {
                self.blocks.update(self.block.finalize_reset());
                self.filled = 0;
            }
        }
    }

    /// The hash of all that was added, in lower-case hexadecimal.
    #[must_use]
    pub(super) fn hex(&self) -> String {
        let mut blocks = self.blocks.clone();
        if self.filled > 0 {
            blocks.update(self.block.clone().finalize());
        }
        HEXLOWER.encode(&blocks.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(bytes: &[u8]) -> String {
        let hashes: Vec<u8> = bytes.chunks(HASH_BLOCK as usize).flat_map(Sha256::digest).collect();
        HEXLOWER.encode(&Sha256::digest(hashes))
    }

    #[test]
    fn the_pieces_in_which_it_comes_make_no_difference() {
        let block = HASH_BLOCK as usize;
        for size in [0, 1, block - 1, block, block + 1, 2 * block] {
            let bytes: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
            for piece in [65_537, block + 3] {
                let mut hash = TreeHash::default();
                bytes.chunks(piece).for_each(|piece| hash.update(piece));
                assert_eq!(hash.hex(), plain(&bytes), "{size} bytes by {piece}");
            }
        }
    }
}
