//! A raw picture that rectangles are drawn on, in any of the raw pixel formats.

use crate::media::PixelFormat;

/// A colour, as red, green and blue.
pub(super) type Colour = [u8; 3];

/// A picture in memory. Rectangles lie on even pixels, so that they fill whole pixels of chroma.
#[derive(Clone, Debug)]
pub(super) struct Canvas {
    pixel: PixelFormat,
    width: usize,
    height: usize,
    stride: usize,
    bytes: Vec<u8>,
}

impl Canvas {
    /// A black picture without padding. MJPEG has no raw picture: it is drawn as RGB.
    pub(super) fn new(pixel: PixelFormat, width: u32, height: u32) -> Self {
        let (width, height) = (width as usize, height as usize);
        let (stride, rows) = match pixel {
            PixelFormat::Yuyv => (width.div_ceil(2) * 4, height),
            PixelFormat::Nv12 => (width.next_multiple_of(2), height + height.div_ceil(2)),
            PixelFormat::Grey => (width, height),
            PixelFormat::Rgb24 | PixelFormat::Mjpeg => (width * 3, height),
        };
        let mut canvas = Self { pixel, width, height, stride, bytes: vec![0; stride * rows] };
        canvas.fill(0, 0, width as u32, height as u32, [0; 3]);
        canvas
    }

    /// Bytes a row of the first plane.
    pub(super) fn stride(&self) -> u32 {
        self.stride as u32
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Takes over what `other`, a picture of the same format, shows.
    pub(super) fn copy_from(&mut self, other: &Self) {
        self.bytes.copy_from_slice(&other.bytes);
    }

    /// Fills the part of a rectangle that lies within the picture.
    pub(super) fn fill(&mut self, x: u32, y: u32, width: u32, height: u32, colour: Colour) {
        let right = (x as usize + width as usize).min(self.width);
        let bottom = (y as usize + height as usize).min(self.height);
        let (left, top) = ((x as usize).min(right), (y as usize).min(bottom));
        match self.pixel {
            PixelFormat::Grey => self.fill_rows(top..bottom, left..right, &[luma_full(colour)]),
            PixelFormat::Rgb24 | PixelFormat::Mjpeg => self.fill_rows(top..bottom, left..right, &colour),
            PixelFormat::Yuyv => {
                let [luma, blue, red] = limited(colour);
                let pairs = left / 2..right.div_ceil(2);
                self.fill_rows(top..bottom, pairs, &[luma, blue, luma, red]);
            }
            PixelFormat::Nv12 => {
                let [luma, blue, red] = limited(colour);
                self.fill_rows(top..bottom, left..right, &[luma]);
                let chroma = self.height + top / 2..self.height + bottom.div_ceil(2);
                self.fill_rows(chroma, left / 2..right.div_ceil(2), &[blue, red]);
            }
        }
    }

    /// Fills the `units` of each of the `rows` with the bytes of one unit.
    fn fill_rows(&mut self, rows: std::ops::Range<usize>, units: std::ops::Range<usize>, unit: &[u8]) {
        for row in rows {
            let from = row * self.stride + units.start * unit.len();
            let line = &mut self.bytes[from..from + units.len() * unit.len()];
            if let [byte] = unit {
                line.fill(*byte);
            } else {
                for place in line.chunks_exact_mut(unit.len()) {
                    place.copy_from_slice(unit);
                }
            }
        }
    }
}

/// Luma in the full range, as grey cameras deliver it.
fn luma_full([red, green, blue]: Colour) -> u8 {
    ((77 * u32::from(red) + 150 * u32::from(green) + 29 * u32::from(blue) + 128) >> 8) as u8
}

/// Y, Cb and Cr in the limited range (ITU-R BT.601), as colour cameras deliver them.
fn limited([red, green, blue]: Colour) -> [u8; 3] {
    let [red, green, blue] = [red, green, blue].map(i32::from);
    let y = 16 + ((66 * red + 129 * green + 25 * blue + 128) >> 8);
    let cb = 128 + ((-38 * red - 74 * green + 112 * blue + 128) >> 8);
    let cr = 128 + ((112 * red - 94 * green - 18 * blue + 128) >> 8);
    [y, cb, cr].map(|part| part.clamp(0, 255) as u8)
}
