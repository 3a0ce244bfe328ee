//! Takes a stream of concatenated JPEGs apart, whatever the size of the pieces it comes in and
//! whatever lies between them. Must never hold more than one picture of the largest size and a piece.

use std::ops::Range;

use super::markers::{Walk, Walked};

/// Bytes of space that are offered for one read.
const PIECE_BYTES: usize = 64 * 1024;
/// What every JPEG begins with: SOI and the first byte of another marker.
const START: [u8; 3] = [0xFF, 0xD8, 0xFF];

/// Splits MJPEG into its pictures; each byte is looked at once.
#[derive(Debug)]
pub struct Splitter {
    /// `buffer[start..end]` holds what came and was not taken yet.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    walk: Option<Walk>,
    picture: Range<usize>,
    picture_bytes_max: usize,
    ended: bool,
    discarded_bytes: u64,
}

impl Splitter {
    /// A splitter that takes anything longer than `picture_bytes_max` for garbage.
    pub fn new(picture_bytes_max: usize) -> Self {
        Self {
            buffer: Vec::new(),
            start: 0,
            end: 0,
            walk: None,
            picture: 0..0,
            picture_bytes_max,
            ended: false,
            discarded_bytes: 0,
        }
    }

    /// Space for the next piece of the stream; call [`Splitter::filled`] with how much of it was used.
    /// To be called when [`Splitter::pop`] has no more, else the buffer grows.
    pub fn space(&mut self) -> &mut [u8] {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        self.picture = 0..0;
        if self.buffer.len() < self.end + PIECE_BYTES {
            self.buffer.resize((self.end + PIECE_BYTES).next_power_of_two(), 0);
        }
        &mut self.buffer[self.end..]
    }

    /// Takes the first `count` bytes of the last [`Splitter::space`] as data.
    pub fn filled(&mut self, count: usize) {
        self.end = (self.end + count).min(self.buffer.len());
    }

    /// The next complete picture, byte for byte; `None` when more data is needed.
    pub fn pop(&mut self) -> Option<&[u8]> {
        if self.advance() { Some(self.picture()) } else { None }
    }

    /// Goes on to the next complete picture; false when more data is needed.
    pub fn advance(&mut self) -> bool {
        loop {
            if self.walk.is_none() && !self.seek_start() {
                return false;
            }
            let pending = &self.buffer[self.start..self.end];
            let walk = self.walk.get_or_insert_default();
            match walk.advance(pending) {
                Walked::Complete(length) if length <= self.picture_bytes_max => {
                    self.picture = self.start..self.start + length;
                    self.start += length;
                    self.walk = None;
                    return true;
                }
                Walked::Complete(length) => self.discard(length),
                Walked::Broken { resume } => self.discard(resume),
                Walked::More if pending.len() > self.picture_bytes_max => {
                    let walked = walk.walked(pending.len());
                    self.discard(walked.max(START.len()));
                }
                Walked::More if self.ended => {
                    let resume = walk.resume().min(pending.len());
                    self.discard(resume);
                }
                Walked::More => return false,
            }
        }
    }

    /// The picture that [`Splitter::advance`] went to last, until the next call of
    /// [`Splitter::space`].
    pub fn picture(&self) -> &[u8] {
        &self.buffer[self.picture.clone()]
    }

    /// Bytes that belonged to no complete picture, so far.
    pub fn discarded_bytes(&self) -> u64 {
        self.discarded_bytes
    }

    /// Bytes that came and are neither taken nor discarded: the begin of a picture.
    pub fn pending_bytes(&self) -> usize {
        self.end - self.start
    }

    /// No more data will come: [`Splitter::pop`] now looks for pictures behind one that was cut off.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Forgets what is pending, counting it as discarded, to begin another stream.
    pub fn restart(&mut self) {
        self.discard(self.pending_bytes());
        self.ended = false;
    }

    /// Discards up to the begin of a picture; false when there is no whole begin in what came.
    fn seek_start(&mut self) -> bool {
        let pending = &self.buffer[self.start..self.end];
        let found = pending.windows(START.len()).position(|window| window == START);
        // The last bytes may be the first of a begin.
        let kept = if self.ended { 0 } else { START.len() - 1 };
        let garbage = found.unwrap_or(pending.len().saturating_sub(kept));
        self.discard(garbage);
        found.is_some()
    }

    fn discard(&mut self, count: usize) {
        self.start += count;
        self.discarded_bytes += count as u64;
        self.walk = None;
    }
}
