//! Elements, sizes and numbers of EBML (RFC 8794 §4 to §7), to bytes and back.

/// Element ids (RFC 9559 §27.1 and RFC 8794 §11), with their length markers.
pub(super) mod id {
    pub const EBML: u32 = 0x1A45_DFA3;
    pub const EBML_VERSION: u32 = 0x4286;
    pub const EBML_READ_VERSION: u32 = 0x42F7;
    pub const EBML_MAX_ID_LENGTH: u32 = 0x42F2;
    pub const EBML_MAX_SIZE_LENGTH: u32 = 0x42F3;
    pub const DOC_TYPE: u32 = 0x4282;
    pub const DOC_TYPE_VERSION: u32 = 0x4287;
    pub const DOC_TYPE_READ_VERSION: u32 = 0x4285;
    pub const VOID: u32 = 0xEC;
    pub const CRC32: u32 = 0xBF;
    pub const SEGMENT: u32 = 0x1853_8067;
    pub const SEEK_HEAD: u32 = 0x114D_9B74;
    pub const SEEK: u32 = 0x4DBB;
    pub const SEEK_ID: u32 = 0x53AB;
    pub const SEEK_POSITION: u32 = 0x53AC;
    pub const INFO: u32 = 0x1549_A966;
    pub const SEGMENT_UUID: u32 = 0x73A4;
    pub const TIMESTAMP_SCALE: u32 = 0x2A_D7B1;
    pub const DURATION: u32 = 0x4489;
    pub const DATE_UTC: u32 = 0x4461;
    pub const TITLE: u32 = 0x7BA9;
    pub const MUXING_APP: u32 = 0x4D80;
    pub const WRITING_APP: u32 = 0x5741;
    pub const TRACKS: u32 = 0x1654_AE6B;
    pub const TRACK_ENTRY: u32 = 0xAE;
    pub const TRACK_NUMBER: u32 = 0xD7;
    pub const TRACK_UID: u32 = 0x73C5;
    pub const TRACK_TYPE: u32 = 0x83;
    pub const FLAG_LACING: u32 = 0x9C;
    pub const DEFAULT_DURATION: u32 = 0x23_E383;
    pub const NAME: u32 = 0x536E;
    pub const LANGUAGE: u32 = 0x22_B59C;
    pub const CODEC_ID: u32 = 0x86;
    pub const CODEC_PRIVATE: u32 = 0x63A2;
    pub const VIDEO: u32 = 0xE0;
    pub const FLAG_INTERLACED: u32 = 0x9A;
    pub const PIXEL_WIDTH: u32 = 0xB0;
    pub const PIXEL_HEIGHT: u32 = 0xBA;
    pub const COLOUR: u32 = 0x55B0;
    pub const MATRIX_COEFFICIENTS: u32 = 0x55B1;
    pub const RANGE: u32 = 0x55B9;
    pub const AUDIO: u32 = 0xE1;
    pub const SAMPLING_FREQUENCY: u32 = 0xB5;
    pub const CHANNELS: u32 = 0x9F;
    pub const BIT_DEPTH: u32 = 0x6264;
    pub const CLUSTER: u32 = 0x1F43_B675;
    pub const TIMESTAMP: u32 = 0xE7;
    pub const SILENT_TRACKS: u32 = 0x5854;
    pub const POSITION: u32 = 0xA7;
    pub const PREV_SIZE: u32 = 0xAB;
    pub const SIMPLE_BLOCK: u32 = 0xA3;
    pub const BLOCK_GROUP: u32 = 0xA0;
    pub const BLOCK: u32 = 0xA1;
    pub const REFERENCE_BLOCK: u32 = 0xFB;
    pub const CUES: u32 = 0x1C53_BB6B;
    pub const CUE_POINT: u32 = 0xBB;
    pub const CUE_TIME: u32 = 0xB3;
    pub const CUE_TRACK_POSITIONS: u32 = 0xB7;
    pub const CUE_TRACK: u32 = 0xF7;
    pub const CUE_CLUSTER_POSITION: u32 = 0xF1;
    pub const CUE_RELATIVE_POSITION: u32 = 0xF0;
    pub const CHAPTERS: u32 = 0x1043_A770;
    pub const ATTACHMENTS: u32 = 0x1941_A469;
    pub const TAGS: u32 = 0x1254_C367;
    pub const TAG: u32 = 0x7373;
    pub const TARGETS: u32 = 0x63C0;
    pub const TAG_TRACK_UID: u32 = 0x63C5;
    pub const SIMPLE_TAG: u32 = 0x67C8;
    pub const TAG_NAME: u32 = 0x45A3;
    pub const TAG_STRING: u32 = 0x4487;
}

/// The 8-byte data size that says "unknown" (RFC 8794 §6.2).
pub(super) const SIZE_UNKNOWN: [u8; 8] = [0x01, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF];
/// The longest head of an element: a 4-byte id and an 8-byte size.
pub(super) const HEAD_BYTES_MAX: usize = 12;

/// A data size in 8 bytes, which any size fits.
pub(super) fn size8(bytes: u64) -> [u8; 8] {
    debug_assert!(bytes < (1 << 56) - 1, "a data size has 56 bits");
    (bytes | 1 << 56).to_be_bytes()
}

/// Appends an id.
pub(super) fn put_id(out: &mut Vec<u8>, id: u32) {
    let skip = id.leading_zeros() as usize / 8;
    out.extend_from_slice(&id.to_be_bytes()[skip..]);
}

/// Appends a data size in as few bytes as hold it.
pub(super) fn put_size(out: &mut Vec<u8>, bytes: u64) {
    let mut length = 1_usize;
    // All ones is "unknown", so a length of n bytes holds up to 2^(7n) - 2.
    while length < 8 && bytes >= (1 << (7 * length)) - 1 {
        length += 1;
    }
    let marked = bytes | 1 << (7 * length);
    out.extend_from_slice(&marked.to_be_bytes()[8 - length..]);
}

/// Bytes of a CRC-32 element, or of the Void in its place.
pub(super) const SUM_BYTES: u64 = 6;

/// A CRC-32 element over what follows it in its parent (RFC 8794 §11.3.1), or a Void in its place.
pub(super) fn put_sum(out: &mut Vec<u8>, sum: Option<u32>) {
    match sum {
        Some(sum) => put(out, id::CRC32, &sum.to_le_bytes()),
        None => put_void(out, SUM_BYTES as usize),
    }
}

/// Appends an element with `body`.
pub(super) fn put(out: &mut Vec<u8>, id: u32, body: &[u8]) {
    put_id(out, id);
    put_size(out, body.len() as u64);
    out.extend_from_slice(body);
}

/// Appends an unsigned integer in as few bytes as hold it, at least one.
pub(super) fn put_uint(out: &mut Vec<u8>, id: u32, value: u64) {
    let skip = value.leading_zeros() as usize / 8;
    put(out, id, &value.to_be_bytes()[skip.min(7)..]);
}

/// Appends a 64-bit float.
pub(super) fn put_float(out: &mut Vec<u8>, id: u32, value: f64) {
    put(out, id, &value.to_be_bytes());
}

/// Appends a Void of exactly `total` bytes, head included; `total` is at least 2.
pub(super) fn put_void(out: &mut Vec<u8>, total: usize) {
    debug_assert!(total >= 2, "a Void has a head of 2 bytes");
    put_id(out, id::VOID);
    if total <= 128 {
        put_size(out, total as u64 - 2);
        out.resize(out.len() + total - 2, 0);
    } else {
        out.extend_from_slice(&size8(total as u64 - 9));
        out.resize(out.len() + total - 9, 0);
    }
}

/// The head of a Void in exactly `length` bytes, 2 to 9, in front of a body of `body_bytes`.
pub(super) fn void_head(length: u64, body_bytes: u64) -> Vec<u8> {
    debug_assert!((2..=9).contains(&length), "an id of one byte, and a size of up to 8");
    let mut head = vec![];
    put_id(&mut head, id::VOID);
    let marked = body_bytes | 1 << (7 * (length - 1));
    head.extend(marked.to_be_bytes().into_iter().skip(9 - length as usize));
    head
}

/// The id and data size in front of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub id: u32,
    /// Bytes of the id and the size together.
    pub length: u64,
    /// Bytes of the size alone.
    pub size_bytes: u64,
    /// Bytes of the element's data, `None` when unknown.
    pub size: Option<u64>,
}

/// Why there is no head to be had from some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoHead {
    /// They end within it.
    Short,
    /// They can't begin an element.
    Garbage,
}

/// Reads the head at the start of `bytes`.
pub(super) fn head(bytes: &[u8]) -> Result<Head, NoHead> {
    let first = *bytes.first().ok_or(NoHead::Short)?;
    let id_bytes = first.leading_zeros() as usize + 1;
    if id_bytes > 4 {
        return Err(NoHead::Garbage);
    }
    let id =
        bytes.get(..id_bytes).ok_or(NoHead::Short)?.iter().fold(0, |id, byte| id << 8 | u32::from(*byte));
    let (size, size_bytes) = vint(&bytes[id_bytes..])?;
    let unknown = size == (1 << (7 * size_bytes)) - 1;
    Ok(Head {
        id,
        length: (id_bytes + size_bytes) as u64,
        size_bytes: size_bytes as u64,
        size: (!unknown).then_some(size),
    })
}

/// Reads a variable-size integer without its marker (RFC 8794 §4): its value and its length in bytes, 1 to 8.
pub(super) fn vint(bytes: &[u8]) -> Result<(u64, usize), NoHead> {
    let first = *bytes.first().ok_or(NoHead::Short)?;
    let length = first.leading_zeros() as usize + 1;
    if length > 8 {
        return Err(NoHead::Garbage);
    }
    let raw =
        bytes.get(..length).ok_or(NoHead::Short)?.iter().fold(0, |raw, byte| raw << 8 | u64::from(*byte));
    Ok((raw & ((1 << (7 * length)) - 1), length))
}

/// The bytes are no sequence of whole elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// The elements in the body of another, each with its id and its body.
pub(super) struct Children<'a> {
    rest: &'a [u8],
    at: u64,
}

/// One of the elements in the body of another.
pub(super) struct Child<'a> {
    /// Where it starts in that body.
    pub at: u64,
    pub head: Head,
    pub body: &'a [u8],
}

/// Iterates over the elements in `body`; the first that isn't whole ends it with [`Malformed`].
pub(super) fn children(body: &[u8]) -> Children<'_> {
    Children { rest: body, at: 0 }
}

impl<'a> Children<'a> {
    /// The same elements with their heads and places.
    pub(super) fn places(mut self) -> impl Iterator<Item = Result<Child<'a>, Malformed>> {
        std::iter::from_fn(move || self.step())
    }

    fn step(&mut self) -> Option<Result<Child<'a>, Malformed>> {
        if self.rest.is_empty() {
            return None;
        }
        let rest = std::mem::take(&mut self.rest);
        let Ok(head @ Head { length, size: Some(size), .. }) = head(rest) else {
            return Some(Err(Malformed));
        };
        let from = usize::try_from(length).expect("at most 12");
        let body = usize::try_from(size).ok().and_then(|size| rest[from..].get(..size));
        let Some(body) = body else { return Some(Err(Malformed)) };
        let child = Child { at: self.at, head, body };
        self.rest = &rest[from + body.len()..];
        self.at += (from + body.len()) as u64;
        Some(Ok(child))
    }
}

impl<'a> Iterator for Children<'a> {
    type Item = Result<(u32, &'a [u8]), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().map(|child| child.map(|child| (child.head.id, child.body)))
    }
}

/// An unsigned integer of 0 to 8 bytes.
pub(super) fn uint(body: &[u8]) -> Result<u64, Malformed> {
    if body.len() > 8 {
        return Err(Malformed);
    }
    Ok(body.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

/// A float of 0, 4 or 8 bytes.
pub(super) fn float(body: &[u8]) -> Result<f64, Malformed> {
    match body.len() {
        0 => Ok(0.0),
        4 => Ok(f64::from(f32::from_be_bytes(body.try_into().expect("4 bytes")))),
        8 => Ok(f64::from_be_bytes(body.try_into().expect("8 bytes"))),
        _ => Err(Malformed),
    }
}

/// A string up to its first NUL (RFC 8794 §7.4); bytes that aren't UTF-8 are replaced.
pub(super) fn string(body: &[u8]) -> String {
    let end = body.iter().position(|byte| *byte == 0).unwrap_or(body.len());
    String::from_utf8_lossy(&body[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_as_few_bytes_as_hold_them_and_never_read_as_unknown() {
        for (size, length) in
            [(0, 1), (126, 1), (127, 2), (16_382, 2), (16_383, 3), (1 << 35, 6), ((1 << 56) - 2, 8)]
        {
            let mut bytes = vec![];
            put_id(&mut bytes, id::VOID);
            put_size(&mut bytes, size);
            assert_eq!(bytes.len(), 1 + length, "size {size}");
            assert_eq!(head(&bytes).expect("a head").size, Some(size));
        }
    }

    #[test]
    fn an_unknown_size_is_known_as_such_at_every_length() {
        for length in 1..=8_usize {
            let mut bytes = vec![0xEC];
            bytes.extend_from_slice(&((1_u64 << (7 * length + 1)) - 1).to_be_bytes()[8 - length..]);
            assert_eq!(head(&bytes).expect("a head").size, None, "length {length}");
        }
        assert_eq!(head(&[&[0xEC][..], &SIZE_UNKNOWN].concat()).expect("a head").size, None);
    }

    #[test]
    fn a_void_is_as_long_as_asked() {
        for total in [2, 3, 127, 128, 129, 130, 4096] {
            let mut bytes = vec![];
            put_void(&mut bytes, total);
            assert_eq!(bytes.len(), total);
            assert_eq!(children(&bytes).count(), 1);
            assert!(children(&bytes).all(|child| child.is_ok()));
        }
    }

    #[test]
    fn zeros_begin_no_element() {
        assert_eq!(head(&[0; 12]), Err(NoHead::Garbage));
        assert_eq!(head(&[]), Err(NoHead::Short));
        assert_eq!(head(&[0x1F, 0x43]), Err(NoHead::Short));
    }
}
