//! A file of a modelled disk: what programs see of it, what is on the platter, and what lies between.
//!
//! ```text
//! written ──► cache, which reads see ──► versions of pages and lengths ──sync──► platter
//!                                                       └──────cut──► of each page some version
//! ```

use crate::draw::Draw;

/// What is written as one, or not at all.
pub const PAGE_BYTES: usize = 4096;

/// What of the unflushed is on the platter when the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survivors {
    All,
    None,
    /// Of each page, name and length any version, in no order.
    Some,
}

/// A file.
#[derive(Clone, Debug, Default)]
pub struct Inode {
    pub cache: Vec<u8>,
    pub platter: Vec<u8>,
    pending: Vec<Change>,
    /// Changes that were pending, and are not any more.
    settled: usize,
    /// Bytes that the disk has promised or given.
    pub room: u64,
    /// A stranger has taken its name away.
    pub is_taken: bool,
}

#[derive(Clone, Debug)]
enum Change {
    /// What a page holds from now on, as far as the file reaches.
    Page {
        number: usize,
        bytes: Vec<u8>,
    },
    Length(usize),
}

impl Inode {
    /// A file that a power cut has left.
    pub fn of(platter: Vec<u8>) -> Self {
        Self { cache: platter.clone(), room: platter.len() as u64, platter, ..Self::default() }
    }

    /// Writes into the cache.
    pub fn write(&mut self, at: usize, bytes: &[u8]) {
        let end = at + bytes.len();
        if end > self.cache.len() {
            self.cache.resize(end, 0);
            self.pending.push(Change::Length(end));
        }
        self.cache[at..end].copy_from_slice(bytes);
        for number in at / PAGE_BYTES..end.div_ceil(PAGE_BYTES) {
            self.dirty(number);
        }
    }

    /// Cuts or lengthens.
    pub fn set_length(&mut self, length: usize) {
        if length != self.cache.len() {
            let shorter = length < self.cache.len();
            self.cache.resize(length, 0);
            self.pending.push(Change::Length(length));
            if shorter && !length.is_multiple_of(PAGE_BYTES) {
                self.dirty(length / PAGE_BYTES);
            }
        }
        self.room = length as u64;
    }

    fn dirty(&mut self, number: usize) {
        let end = self.cache.len().min((number + 1) * PAGE_BYTES);
        let bytes = self.cache[number * PAGE_BYTES..end].to_vec();
        self.pending.push(Change::Page { number, bytes });
    }

    /// How many changes there were; a sync that begins now makes so many durable.
    pub fn changes(&self) -> usize {
        self.settled + self.pending.len()
    }

    /// A sync of the first `count` changes has come to its end.
    pub fn flush(&mut self, count: usize) {
        let durable = self.settle(count);
        for change in &durable {
            change.apply(&mut self.platter);
        }
    }

    fn settle(&mut self, count: usize) -> Vec<Change> {
        let settled: Vec<Change> = self.pending.drain(..count.saturating_sub(self.settled)).collect();
        self.settled += settled.len();
        settled
    }

    /// A sync of the first `count` changes has failed: the kernel takes their pages for clean, whether they are
    /// on the platter or not. Where memory is short, what isn't is gone from the cache too.
    pub fn fail(&mut self, count: usize, draw: &mut Draw) {
        let tried = self.settle(count);
        self.platter = some_of(&self.platter, &tried, draw);
        if draw.one_in(2) {
            let length = self.cache.len();
            let mut cache = self.platter.clone();
            // The length is the kernel's own knowledge.
            cache.resize(length, 0);
            for change in &self.pending {
                change.apply(&mut cache);
            }
            cache.resize(length, 0);
            self.cache = cache;
        }
    }

    /// What is on the platter when the power goes.
    pub fn cut(&self, survivors: Survivors, draw: &mut Draw) -> Vec<u8> {
        match survivors {
            Survivors::None => self.platter.clone(),
            Survivors::Some => some_of(&self.platter, &self.pending, draw),
            Survivors::All => {
                let mut platter = self.platter.clone();
                for change in &self.pending {
                    change.apply(&mut platter);
                }
                platter
            }
        }
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Length(length) => bytes.resize(*length, 0),
            Self::Page { number, bytes: page } => {
                let at = number * PAGE_BYTES;
                bytes.resize(bytes.len().max(at + page.len()), 0);
                bytes[at..at + page.len()].copy_from_slice(page);
            }
        }
    }
}

/// `platter` with some of `changes`: a length of any time, as a journal keeps the order of lengths, and of each
/// page any version that fits to it.
fn some_of(platter: &[u8], changes: &[Change], draw: &mut Draw) -> Vec<u8> {
    let lengths = changes.iter().filter(|change| matches!(change, Change::Length(_))).count();
    let mut lengths_left = draw.below(lengths as u64 + 1);
    let mut bytes = platter.to_vec();
    let (mut length, mut seen_length) = (platter.len(), platter.len());
    // What is written behind it lies in blocks that the platter doesn't count to the file yet.
    let mut kept_until = usize::MAX;
    for change in changes {
        match change {
            Change::Length(to) => {
                if lengths_left > 0 {
                    lengths_left -= 1;
                    bytes.truncate(*to);
                    length = *to;
                } else if *to < seen_length {
                    kept_until = kept_until.min(*to);
                } else {
                    // A call that writes several pages may be half done.
                    let pages = (*to - length.min(*to)) / PAGE_BYTES;
                    let more = draw.below(pages as u64 + 1) as usize * PAGE_BYTES;
                    if more > 0 && kept_until == usize::MAX {
                        length += more;
                    }
                }
                seen_length = *to;
            }
            Change::Page { number, .. } => {
                if number * PAGE_BYTES < kept_until && draw.one_in(2) {
                    change.apply(&mut bytes);
                }
            }
        }
    }
    bytes.resize(length, 0);
    bytes
}
