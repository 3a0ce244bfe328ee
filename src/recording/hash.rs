//! The BLAKE3 hash of a file that is still being written and patched, so that a finished file need
//! not be read again. BLAKE3 is a tree: groups of 16 KiB whose bytes are final are hashed at once, a
//! group that awaits a patch is kept until then.
//!
//! ```text
//!                 root
//!             ┌────┴────┐
//!          ┌──┴──┐   ┌──┴──┐      subtrees of final groups are merged as they grow;
//!         g0*   g1   g2   g3      g0 holds the file's header (long ones take more) and is patched last
//! ```

use std::collections::{BTreeMap, HashMap};

use blake3::Hasher;
use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root,
};

/// Bytes of a group: a power of two of BLAKE3's chunks.
const GROUP_BYTES: u64 = 16 * 1024;

/// A hash over a growing file, some of whose bytes are written over later.
#[derive(Debug)]
pub struct FileHash {
    /// The file's length.
    length: u64,
    /// The length of its header, which is patched last.
    header_bytes: u64,
    /// Bytes of the last group, until it is full.
    tail: Vec<u8>,
    /// Patches that each group awaits.
    awaited: BTreeMap<u64, u32>,
    /// Full groups that await patches.
    kept: BTreeMap<u64, Vec<u8>>,
    /// Chaining values of final subtrees, by level (0 is a group) and index.
    subtrees: HashMap<(u32, u64), ChainingValue>,
}

impl FileHash {
    /// The hash of an empty file whose first `header_bytes`, one at least, may be patched to the last.
    pub fn new(header_bytes: u64) -> Self {
        let mut hash = Self {
            length: 0,
            header_bytes,
            tail: Vec::new(),
            awaited: BTreeMap::new(),
            kept: BTreeMap::new(),
            subtrees: HashMap::new(),
        };
        // Holding the header's groups back also keeps the root from being merged.
        hash.expect_patch(0, header_bytes);
        hash
    }

    /// Says that bytes at `offset` will be patched `length` bytes long; before they are appended.
    pub fn expect_patch(&mut self, offset: u64, length: u64) {
        for group in groups(offset, length) {
            *self.awaited.entry(group).or_default() += 1;
        }
    }

    /// Takes in bytes at the end of the file.
    pub fn append(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = GROUP_BYTES as usize - self.tail.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.tail.extend_from_slice(now);
            self.length += now.len() as u64;
            bytes = later;
            if self.tail.len() == GROUP_BYTES as usize {
                let group = self.length / GROUP_BYTES - 1;
                let full = std::mem::take(&mut self.tail);
                if self.awaited.contains_key(&group) {
                    self.kept.insert(group, full);
                } else {
                    self.settle(group, &full);
                    self.tail = full;
                    self.tail.clear();
                }
            }
        }
    }

    /// Writes over bytes that were announced by [`FileHash::expect_patch`], or over the header.
    pub fn patch(&mut self, offset: u64, bytes: &[u8]) {
        let tail_group = self.length / GROUP_BYTES;
        for (at, byte) in (offset..).zip(bytes) {
            let (group, within) = (at / GROUP_BYTES, (at % GROUP_BYTES) as usize);
            let held = if group == tail_group { Some(&mut self.tail) } else { self.kept.get_mut(&group) };
            held.expect("a group that awaits a patch is kept")[within] = *byte;
        }
        if offset < self.header_bytes {
            return;
        }
        for group in groups(offset, bytes.len() as u64) {
            let left = self.awaited.get_mut(&group).expect("an announced patch is awaited");
            *left -= 1;
            if *left == 0 {
                self.awaited.remove(&group);
                if let Some(full) = self.kept.remove(&group) {
                    self.settle(group, &full);
                }
            }
        }
    }

    /// The hash of the whole file.
    pub fn finish(mut self) -> blake3::Hash {
        if self.length <= GROUP_BYTES {
            return blake3::hash(self.kept.get(&0).unwrap_or(&self.tail));
        }
        let left = left_subtree_len(self.length);
        let (first, second) = (self.value(0, left), self.value(left, self.length - left));
        merge_subtrees_root(&first, &second, Mode::Hash)
    }

    fn settle(&mut self, group: u64, bytes: &[u8]) {
        let (mut level, mut index) = (0, group);
        let mut value = group_value(group, bytes);
        while let Some(sibling) = self.subtrees.remove(&(level, index ^ 1)) {
            let (left, right) = if index % 2 == 0 { (value, sibling) } else { (sibling, value) };
            value = merge_subtrees_non_root(&left, &right, Mode::Hash);
            (level, index) = (level + 1, index / 2);
        }
        self.subtrees.insert((level, index), value);
    }

    fn value(&mut self, offset: u64, length: u64) -> ChainingValue {
        if length.is_power_of_two() && length >= GROUP_BYTES {
            let level = (length / GROUP_BYTES).trailing_zeros();
            if let Some(value) = self.subtrees.remove(&(level, offset / length)) {
                return value;
            }
        }
        if length <= GROUP_BYTES {
            let group = offset / GROUP_BYTES;
            return group_value(group, self.kept.get(&group).unwrap_or(&self.tail));
        }
        let left = left_subtree_len(length);
        let (first, second) = (self.value(offset, left), self.value(offset + left, length - left));
        merge_subtrees_non_root(&first, &second, Mode::Hash)
    }
}

fn groups(offset: u64, length: u64) -> impl Iterator<Item = u64> {
    offset / GROUP_BYTES..=(offset + length.max(1) - 1) / GROUP_BYTES
}

fn group_value(group: u64, bytes: &[u8]) -> ChainingValue {
    let mut hasher = Hasher::new();
    hasher.set_input_offset(group * GROUP_BYTES);
    hasher.update(bytes);
    hasher.finalize_non_root()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at * 31 + at / 251) as u8).collect()
    }

    #[test]
    fn a_file_of_any_length_hashes_as_if_read_at_once() {
        let group = GROUP_BYTES as usize;
        for base in [0, 1, group, 2 * group, 3 * group, 4 * group, 7 * group, 8 * group, 33 * group] {
            for length in [base.saturating_sub(1), base, base + 1, base + 1024, base + 5000] {
                let bytes = pattern(length);
                let mut hash = FileHash::new(4096);
                bytes.chunks(7001).for_each(|piece| hash.append(piece));
                assert_eq!(hash.finish(), blake3::hash(&bytes), "{length} bytes");
            }
        }
    }

    proptest! {
        #[test]
        fn patches_are_hashed_as_if_they_had_always_been_there(
            length in 100_000usize..600_000,
            header in 1usize..40_000,
            patches in proptest::collection::vec((40_000usize..99_000, any::<[u8; 8]>(), 0usize..4), 0..8),
        ) {
            let mut bytes = pattern(length);
            let mut hash = FileHash::new(header as u64);
            for (offset, _, _) in &patches {
                hash.expect_patch(*offset as u64, 8);
            }
            hash.append(&bytes);
            for (offset, patch, _) in &patches {
                hash.patch(*offset as u64, patch);
                bytes[*offset..*offset + 8].copy_from_slice(patch);
            }
            for offset in [0, header / 2, header - 1] {
                hash.patch(offset as u64, b"H");
                bytes[offset] = b'H';
            }
            // Overlapping patches whose group was settled between them can't happen in a file of
            // clusters: each size field is patched once.
            let distinct = patches.iter().enumerate().all(|(at, (offset, _, _))| {
                patches[..at].iter().all(|(other, _, _)| offset.abs_diff(*other) >= 8)
            });
            prop_assume!(distinct);
            prop_assert_eq!(hash.finish(), blake3::hash(&bytes));
        }
    }
}
