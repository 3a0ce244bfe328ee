//! Raw pictures to baseline JPEG by libjpeg-turbo. YUYV and NV12 go in as planes, without a detour
//! through RGB; must never drop chroma that the camera gave.

use std::fmt;

use turbojpeg::{Compressor, Image, Subsamp, YuvImage};

use crate::codec::CodecError;
use crate::media::{Format, PixelFormat, VideoFormat};

/// Pixels a side of a JPEG (ITU-T T.81, B.2.2; libjpeg-turbo stops a little earlier).
const SIDE_PIXELS_MAX: u32 = 65_500;

/// Compresses pictures of one format.
pub struct Encoder {
    compressor: Compressor,
    format: VideoFormat,
    layout: Layout,
    /// Planes of Y, Cb and Cr, where the picture has to be taken apart.
    planes: Vec<u8>,
    /// Room for the largest JPEG of this size.
    jpeg: Vec<u8>,
}

/// How the bytes of a picture lie in a frame.
#[derive(Clone, Copy, Debug)]
struct Layout {
    width: usize,
    height: usize,
    stride: usize,
    /// Bytes of a row that are pixels.
    row_bytes: usize,
    /// Rows of `stride` bytes in a frame, all planes together.
    rows: usize,
    subsampling: Subsamp,
}

impl Encoder {
    /// An encoder for raw frames of `format` at `quality` 1 (worst) to 100. Chroma keeps the camera's
    /// resolution: 4:2:2 for YUYV, 4:2:0 for NV12, 4:4:4 for RGB.
    ///
    /// # Errors
    /// The format is JPEG already, its size or stride makes no picture, or the quality is none.
    pub fn new(format: VideoFormat, quality: u8) -> Result<Self, CodecError> {
        let layout = Layout::of(format)?;
        if !(1..=100).contains(&quality) {
            return Err(refused(format, "quality is 1 to 100"));
        }
        let mut compressor = Compressor::new().map_err(library)?;
        compressor.set_quality(i32::from(quality)).map_err(library)?;
        compressor.set_subsamp(layout.subsampling).map_err(library)?;
        let (width, height) = (layout.width, layout.height);
        let room = turbojpeg::compressed_buf_len(width, height, layout.subsampling);
        Ok(Self {
            compressor,
            format,
            layout,
            planes: vec![0; layout.planes_bytes().map_err(library)?],
            jpeg: vec![0; room.map_err(library)?],
        })
    }

    /// The picture as a JPEG. `frame` holds rows of the format's stride; the padding of the last row
    /// may be missing. YUYV and NV12 are taken as limited range (V4L2's default for Y'CbCr) and
    /// stretched to the full range that JFIF prescribes.
    ///
    /// # Errors
    /// A frame of the wrong length; the encoder stays usable.
    pub fn encode(&mut self, frame: &[u8]) -> Result<Vec<u8>, CodecError> {
        let wanted = self.layout.rows * self.layout.stride;
        let padding = self.layout.stride - self.layout.row_bytes;
        if !(wanted - padding..=wanted).contains(&frame.len()) {
            let found = frame.len();
            return Err(CodecError::Length { codec: "jpeg", found, wanted, unit: "bytes" });
        }
        let length = match self.format.pixel {
            PixelFormat::Yuyv | PixelFormat::Nv12 => self.compress_planes(frame),
            PixelFormat::Grey => self.compress_packed(frame, turbojpeg::PixelFormat::GRAY),
            PixelFormat::Rgb24 | PixelFormat::Mjpeg => {
                self.compress_packed(frame, turbojpeg::PixelFormat::RGB)
            }
        };
        Ok(self.jpeg[..length.map_err(library)?].to_vec())
    }

    fn compress_packed(&mut self, frame: &[u8], format: turbojpeg::PixelFormat) -> turbojpeg::Result<usize> {
        let Layout { width, height, stride, .. } = self.layout;
        let image = Image { pixels: frame, width, pitch: stride, height, format };
        self.compressor.compress_to_slice(image, &mut self.jpeg)
    }

    fn compress_planes(&mut self, frame: &[u8]) -> turbojpeg::Result<usize> {
        let Layout { width, height, subsampling, .. } = self.layout;
        if self.format.pixel == PixelFormat::Yuyv {
            self.layout.take_apart_yuyv(frame, &mut self.planes);
        } else {
            self.layout.take_apart_nv12(frame, &mut self.planes);
        }
        let pixels = self.planes.as_slice();
        let image = YuvImage { pixels, width, align: 1, height, subsamp: subsampling };
        self.compressor.compress_yuv_to_slice(image, &mut self.jpeg)
    }
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder").field("format", &self.format).finish_non_exhaustive()
    }
}

impl Layout {
    fn of(format: VideoFormat) -> Result<Self, CodecError> {
        let side = 1..=SIDE_PIXELS_MAX;
        if !side.contains(&format.width) || !side.contains(&format.height) {
            return Err(refused(format, "a picture has 1 to 65500 pixels a side"));
        }
        let to_usize = |count: u32| usize::try_from(count).map_err(library);
        let (width, height) = (to_usize(format.width)?, to_usize(format.height)?);
        let stride = to_usize(format.stride)?;
        let (row_bytes, rows, subsampling) = match format.pixel {
            PixelFormat::Mjpeg => return Err(refused(format, "it is compressed already")),
            PixelFormat::Yuyv => (width.div_ceil(2) * 4, height, Subsamp::Sub2x1),
            PixelFormat::Nv12 => (width.next_multiple_of(2), height + height.div_ceil(2), Subsamp::Sub2x2),
            PixelFormat::Grey => (width, height, Subsamp::Gray),
            PixelFormat::Rgb24 => (width * 3, height, Subsamp::None),
        };
        if stride < row_bytes {
            return Err(refused(format, "its stride is less than a row"));
        }
        Ok(Self { width, height, stride, row_bytes, rows, subsampling })
    }

    /// Bytes of the planes of Y, Cb and Cr; 0 where none are needed.
    fn planes_bytes(&self) -> turbojpeg::Result<usize> {
        match self.subsampling {
            Subsamp::Sub2x1 | Subsamp::Sub2x2 => {
                turbojpeg::yuv_pixels_len(self.width, 1, self.height, self.subsampling)
            }
            _ => Ok(0),
        }
    }

    /// Width and height of one plane of chroma.
    fn chroma(&self) -> (usize, usize) {
        (self.width.div_ceil(2), self.height.div_ceil(self.subsampling.height()))
    }

    /// Splits `planes` into Y, Cb and Cr.
    fn split<'a>(&self, planes: &'a mut [u8]) -> (&'a mut [u8], &'a mut [u8], &'a mut [u8]) {
        let (width, height) = self.chroma();
        let (luma, chroma) = planes.split_at_mut(planes.len() - 2 * width * height);
        let (blue, red) = chroma.split_at_mut(width * height);
        (luma, blue, red)
    }

    fn take_apart_yuyv(&self, frame: &[u8], planes: &mut [u8]) {
        let pairs = self.chroma().0;
        let (luma, blue, red) = self.split(planes);
        let rows = frame.chunks(self.stride).take(self.height);
        let lumas = luma.chunks_exact_mut(2 * pairs);
        let chromas = blue.chunks_exact_mut(pairs).zip(red.chunks_exact_mut(pairs));
        for ((row, luma), (blue, red)) in rows.zip(lumas).zip(chromas) {
            // One loop a plane: the compiler makes vector code of it.
            let row = &row[..self.row_bytes];
            for ([from, _], to) in row.as_chunks::<2>().0.iter().zip(luma) {
                *to = full_luma(*from);
            }
            let quads = row.as_chunks::<4>().0;
            for ([_, from, _, _], to) in quads.iter().zip(blue) {
                *to = full_chroma(*from);
            }
            for ([_, _, _, from], to) in quads.iter().zip(red) {
                *to = full_chroma(*from);
            }
        }
    }

    fn take_apart_nv12(&self, frame: &[u8], planes: &mut [u8]) {
        let (pairs, chroma_rows) = self.chroma();
        let (luma, blue, red) = self.split(planes);
        let mut rows = frame.chunks(self.stride);
        for (row, luma) in rows.by_ref().take(self.height).zip(luma.chunks_exact_mut(2 * pairs)) {
            for (from, to) in row[..self.row_bytes].iter().zip(luma) {
                *to = full_luma(*from);
            }
        }
        if !self.height.is_multiple_of(2) {
            let last = (self.height - 1) * 2 * pairs;
            luma.copy_within(last..last + 2 * pairs, last + 2 * pairs);
        }
        let chromas = blue.chunks_exact_mut(pairs).zip(red.chunks_exact_mut(pairs));
        for (row, (blue, red)) in rows.take(chroma_rows).zip(chromas) {
            let pairs = row[..self.row_bytes].as_chunks::<2>().0;
            for ((from, blue), red) in pairs.iter().zip(blue).zip(red) {
                *blue = full_chroma(from[0]);
                *red = full_chroma(from[1]);
            }
        }
    }
}

/// Luma 16 to 235 stretched to 0 to 255 (ITU-R BT.601 to JFIF).
fn full_luma(limited: u8) -> u8 {
    let stretched = (u16::from(limited.max(16) - 16) * 149 + 64) >> 7;
    stretched.min(255) as u8
}

/// Chroma 16 to 240 stretched to 0 to 255 around 128.
fn full_chroma(limited: u8) -> u8 {
    let stretched = ((i16::from(limited) - 128) * 146 + 64) >> 7;
    (stretched + 128).clamp(0, 255) as u8
}

fn refused(format: VideoFormat, reason: &'static str) -> CodecError {
    CodecError::Format { codec: "jpeg", format: Format::Video(format).to_string(), reason }
}

fn library(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> CodecError {
    CodecError::Library { codec: "jpeg", source: error.into() }
}
