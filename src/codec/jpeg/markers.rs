//! The marker structure of a JPEG (ITU-T T.81, annex B), walked without decoding:
//!
//! ```text
//! SOI  { marker, length, bytes }*  SOS, length, bytes, entropy-coded data  { more segments and scans }*  EOI
//! ```
//!
//! Takes any bytes; must never panic, nor trust a length that the data does not bear out.

const SOI: u8 = 0xD8;
const EOI: u8 = 0xD9;
const SOS: u8 = 0xDA;
const TEM: u8 = 0x01;
const RST0: u8 = 0xD0;
const RST7: u8 = 0xD7;
/// The largest segment that is neither a comment nor an application's: all four Huffman tables of both
/// kinds take 2186 bytes. A longer one means that the picture was cut off there.
const TABLE_BYTES_MAX: usize = 4096;

/// Length in bytes of the first JPEG, which starts at the start of `bytes` and ends with its EOI;
/// `None` when it is not complete or none.
pub fn length(bytes: &[u8]) -> Option<usize> {
    match Walk::default().advance(bytes) {
        Walked::Complete(length) => Some(length),
        Walked::More | Walked::Broken { .. } => None,
    }
}

/// Width and height in pixels, from the frame header (SOF) of the JPEG at the start of `bytes`.
pub fn dimensions(bytes: &[u8]) -> Option<(u32, u32)> {
    let mut at = 2;
    if *bytes.first_chunk::<2>()? != [0xFF, SOI] {
        return None;
    }
    loop {
        let (code, body) = marker_at(bytes, at)?;
        match code {
            TEM | RST0..=RST7 => at = body,
            EOI | SOS | SOI | 0x00 => return None,
            // SOF0 to SOF15 without DHT, JPG and DAC, which lie between them.
            0xC0..=0xCF if !matches!(code, 0xC4 | 0xC8 | 0xCC) => {
                let [_, _, _, h1, h0, w1, w0] = *bytes.get(body..)?.first_chunk::<7>()?;
                let (width, height) = (u16::from_be_bytes([w1, w0]), u16::from_be_bytes([h1, h0]));
                return (width > 0 && height > 0).then(|| (width.into(), height.into()));
            }
            _ => at = body + segment_length(bytes, body)?,
        }
    }
}

/// A walk over one JPEG that can be taken up again when more of it has come.
#[derive(Clone, Debug)]
pub struct Walk {
    place: Place,
    at: usize,
    /// Up to here nothing can belong to another picture.
    proven: usize,
}

/// How far a [`Walk`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walked {
    /// The data ends before the picture does.
    More,
    /// The picture has this many bytes.
    Complete(usize),
    /// This is no picture, or one that was cut off.
    Broken {
        /// Where the search for the next picture has to go on; never 0.
        resume: usize,
    },
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Start,
    Marker,
    Scan,
}

impl Default for Walk {
    fn default() -> Self {
        Self { place: Place::Start, at: 0, proven: 1 }
    }
}

impl Walk {
    /// Walks on. `bytes` starts where the picture starts and is what the last call got, or longer;
    /// nothing that was walked over is looked at again.
    pub fn advance(&mut self, bytes: &[u8]) -> Walked {
        loop {
            let walked = match self.place {
                Place::Start => self.start(bytes),
                Place::Marker => self.marker(bytes),
                Place::Scan => self.scan(bytes),
            };
            if let Some(walked) = walked {
                return walked;
            }
        }
    }

    /// Where the search for a picture has to go on if this one never gets complete; never 0.
    pub fn resume(&self) -> usize {
        self.proven
    }

    /// Bytes that were walked over, of `available`.
    pub fn walked(&self, available: usize) -> usize {
        self.at.min(available)
    }

    fn start(&mut self, bytes: &[u8]) -> Option<Walked> {
        match bytes {
            [] | [0xFF] => Some(Walked::More),
            [0xFF, SOI, ..] => {
                (self.place, self.at, self.proven) = (Place::Marker, 2, 2);
                None
            }
            _ => Some(Walked::Broken { resume: 1 }),
        }
    }

    fn marker(&mut self, bytes: &[u8]) -> Option<Walked> {
        let broken = Some(Walked::Broken { resume: self.proven });
        let code = match bytes.get(self.at..) {
            None | Some([] | [0xFF]) => return Some(Walked::More),
            Some([0xFF, code, ..]) => *code,
            Some(_) => return broken,
        };
        match code {
            0xFF => self.at += 1,
            EOI => return Some(Walked::Complete(self.at + 2)),
            TEM | RST0..=RST7 => self.at += 2,
            0x00 | SOI => return broken,
            _ => {
                let body = self.at + 2;
                if bytes.len() < body + 2 {
                    return Some(Walked::More);
                }
                let Some(length) = segment_length(bytes, body) else { return broken };
                let start_follows = bytes[body..].starts_with(&[0xFF, SOI, 0xFF]);
                if start_follows || (length > TABLE_BYTES_MAX && !is_application(code)) {
                    return broken;
                }
                (self.at, self.proven) = (body + length, body);
                if code == SOS {
                    self.place = Place::Scan;
                }
            }
        }
        None
    }

    fn scan(&mut self, bytes: &[u8]) -> Option<Walked> {
        let rest = bytes.get(self.at..).unwrap_or_default();
        let Some(found) = rest.iter().position(|byte| *byte == 0xFF) else {
            self.at = self.at.max(bytes.len());
            return Some(Walked::More);
        };
        self.at += found;
        match bytes.get(self.at + 1) {
            None => return Some(Walked::More),
            Some(0x00 | RST0..=RST7) => self.at += 2,
            Some(0xFF) => self.at += 1,
            Some(_) => (self.place, self.proven) = (Place::Marker, self.at),
        }
        None
    }
}

/// Code of the marker at `at` and where its length, if it has one, begins. Fill bytes are skipped.
fn marker_at(bytes: &[u8], mut at: usize) -> Option<(u8, usize)> {
    if *bytes.get(at)? != 0xFF {
        return None;
    }
    while *bytes.get(at)? == 0xFF {
        at += 1;
    }
    Some((bytes[at], at + 1))
}

/// Whether the segment may hold anything: APP0 to APP15, JPG0 to JPG13, COM.
fn is_application(code: u8) -> bool {
    (0xE0..=0xFE).contains(&code)
}

/// The length that the two bytes at `at` tell, themselves included.
fn segment_length(bytes: &[u8], at: usize) -> Option<usize> {
    let length = u16::from_be_bytes(*bytes.get(at..)?.first_chunk::<2>()?);
    (length >= 2).then(|| usize::from(length))
}
