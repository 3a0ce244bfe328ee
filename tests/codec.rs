//! The codecs against an independent one (`ffmpeg`), and against any bytes.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use proptest::prelude::*;
use shutterd::codec::jpeg::{self, Splitter};
use shutterd::codec::{CodecError, flac, pcm};
use shutterd::media::{AudioFormat, PixelFormat, SampleFormat, VideoFormat};

/// What `ffmpeg` writes to its standard output.
fn ffmpeg(args: &[&str]) -> Vec<u8> {
    let run = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error"])
        .args(args)
        .output()
        .expect("ffmpeg is installed (apt-get install ffmpeg)");
    assert!(run.status.success(), "ffmpeg {args:?}: {}", String::from_utf8_lossy(&run.stderr));
    assert!(run.stderr.is_empty(), "ffmpeg {args:?}: {}", String::from_utf8_lossy(&run.stderr));
    run.stdout
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of the test is UTF-8")
}

fn picture(pixel: PixelFormat, width: u32, height: u32, stride: u32) -> VideoFormat {
    VideoFormat { pixel, width, height, stride, interval_ns: 33_333_333 }
}

fn sound(sample: SampleFormat, channels: u16) -> AudioFormat {
    AudioFormat { sample, sample_rate: 48_000, channels, period_samples: 480 }
}

/// Bytes a row, and rows of such bytes, of a picture without padding.
fn rows_of(pixel: PixelFormat, width: usize, height: usize) -> (usize, usize) {
    match pixel {
        PixelFormat::Yuyv => (width.div_ceil(2) * 4, height),
        PixelFormat::Nv12 => (width.next_multiple_of(2), height + height.div_ceil(2)),
        PixelFormat::Grey => (width, height),
        PixelFormat::Rgb24 => (width * 3, height),
        PixelFormat::Mjpeg => unreachable!("it has no rows"),
    }
}

/// A flat picture in the colour that a camera calls Y 145, Cb 54, Cr 34 (limited range): pure green.
fn flat(pixel: PixelFormat, width: usize, height: usize, stride: usize) -> Vec<u8> {
    let (row_bytes, rows) = rows_of(pixel, width, height);
    let mut frame = vec![0xAA; stride * rows];
    for (number, row) in frame.chunks_mut(stride).enumerate() {
        for (at, byte) in row[..row_bytes].iter_mut().enumerate() {
            *byte = match pixel {
                PixelFormat::Yuyv => [145, 54, 145, 34][at % 4],
                PixelFormat::Nv12 if number < height => 145,
                PixelFormat::Nv12 => [54, 34][at % 2],
                PixelFormat::Grey => 90,
                PixelFormat::Rgb24 => [0, 255, 0][at % 3],
                PixelFormat::Mjpeg => unreachable!("it has no rows"),
            };
        }
    }
    frame
}

const RAW: [PixelFormat; 4] = [PixelFormat::Yuyv, PixelFormat::Nv12, PixelFormat::Grey, PixelFormat::Rgb24];

#[test]
fn every_raw_format_becomes_a_jpeg_of_its_size_and_colour() {
    let dir = tempfile::tempdir().expect("a directory for the test");
    for (pixel, (width, height)) in RAW
        .into_iter()
        .flat_map(|pixel| [(64, 48), (50, 35), (33, 17), (1, 1)].into_iter().map(move |size| (pixel, size)))
    {
        let stride = rows_of(pixel, width, height).0 + 12;
        let format = picture(pixel, width as u32, height as u32, stride as u32);
        let mut encoder = jpeg::Encoder::new(format, 95).expect("the format is fine");
        let bytes = encoder.encode(&flat(pixel, width, height, stride)).expect("the frame is fine");
        assert_eq!(jpeg::length(&bytes), Some(bytes.len()), "{pixel:?}");
        assert_eq!(jpeg::dimensions(&bytes), Some((width as u32, height as u32)), "{pixel:?}");

        let path = dir.path().join("picture.jpg");
        std::fs::write(&path, &bytes).expect("the file can be written");
        let pixels = ffmpeg(&["-i", text(&path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]);
        assert_eq!(pixels.len(), width * height * 3, "{pixel:?} {width}x{height}");
        let wanted = if pixel == PixelFormat::Grey { [90, 90, 90] } else { [0, 255, 0] };
        for (at, found) in pixels.iter().enumerate() {
            let off = found.abs_diff(wanted[at % 3]);
            assert!(off <= 12, "{pixel:?} {width}x{height}: {:?} at {at}", &pixels[at / 3 * 3..][..3]);
        }
    }
}

#[test]
fn padding_of_rows_does_not_show_in_the_picture() {
    for pixel in RAW {
        let (row_bytes, _) = rows_of(pixel, 40, 30);
        let encoded = |stride: usize| {
            let format = picture(pixel, 40, 30, stride as u32);
            let mut encoder = jpeg::Encoder::new(format, 90).expect("the format is fine");
            let mut frame = flat(pixel, 40, 30, stride);
            // Another picture in between must not leave anything behind.
            encoder.encode(&vec![7; frame.len()]).expect("the frame is fine");
            frame.truncate(frame.len() - (stride - row_bytes));
            encoder.encode(&frame).expect("the last row's padding may be missing")
        };
        assert_eq!(encoded(row_bytes), encoded(row_bytes + 24), "{pixel:?}");
    }
}

#[test]
fn frames_of_a_wrong_length_and_impossible_formats_are_errors() {
    for pixel in RAW {
        let (row_bytes, rows) = rows_of(pixel, 40, 30);
        let format = picture(pixel, 40, 30, row_bytes as u32);
        let mut encoder = jpeg::Encoder::new(format, 90).expect("the format is fine");
        for length in [0, 1, row_bytes * rows - 1, row_bytes * rows + 1] {
            let refused = encoder.encode(&vec![0; length]).expect_err("the length is wrong");
            assert!(matches!(refused, CodecError::Length { found, .. } if found == length));
        }
        encoder.encode(&vec![0; row_bytes * rows]).expect("the encoder is still usable");
        for (width, height, stride) in [(0, 30, 200), (40, 0, 200), (65_501, 1, 400_000), (40, 30, 3)] {
            let format = picture(pixel, width, height, stride);
            let refused = jpeg::Encoder::new(format, 90).expect_err("there is no such picture");
            assert!(matches!(refused, CodecError::Format { .. }), "{refused}");
        }
        assert!(jpeg::Encoder::new(format, 0).is_err() && jpeg::Encoder::new(format, 101).is_err());
    }
    assert!(jpeg::Encoder::new(picture(PixelFormat::Mjpeg, 40, 30, 0), 90).is_err());
}

/// JPEGs as different encoders structure them.
fn jpegs() -> &'static [Vec<u8>] {
    static MADE: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    MADE.get_or_init(make_jpegs)
}

fn make_jpegs() -> Vec<Vec<u8>> {
    let dir = tempfile::tempdir().expect("a directory for the test");
    let path = dir.path().join("one.jpg");
    let source = "testsrc2=size=64x48:rate=1";
    let mut made = Vec::new();
    for huffman in ["default", "optimal"] {
        let from = ["-f", "lavfi", "-i", source, "-frames:v", "1", "-huffman", huffman, "-y"];
        ffmpeg(&[&from[..], &[text(&path)]].concat());
        made.push(std::fs::read(&path).expect("ffmpeg wrote it"));
    }
    let image = turbojpeg::Image::mandelbrot(70, 50, turbojpeg::PixelFormat::RGB);
    for progressive in [false, true] {
        let mut compressor = turbojpeg::Compressor::new().expect("there is memory");
        compressor.set_progressive(progressive).expect("it can");
        made.push(compressor.compress_to_vec(image.as_deref()).expect("it can"));
    }
    made
}

#[test]
fn the_length_of_a_jpeg_is_found_by_its_markers_and_by_nothing_less() {
    for bytes in jpegs() {
        assert_eq!(jpeg::length(bytes), Some(bytes.len()));
        for cut in 0..bytes.len() {
            assert_eq!(jpeg::length(&bytes[..cut]), None, "cut at {cut}");
            jpeg::dimensions(&bytes[..cut]);
        }
        let mut padded = bytes.clone();
        padded.extend_from_slice(&[0, 0, 0xFF, 0xD9, 0xFF, 0xD8, 0xFF]);
        assert_eq!(jpeg::length(&padded), Some(bytes.len()));
        assert_eq!(jpeg::length(&padded[1..]), None);
    }
}

#[test]
fn a_picture_cut_off_in_mid_stream_costs_itself_and_one_cut_in_its_header_at_most_the_next() {
    for bytes in jpegs() {
        let scan = bytes.windows(2).rposition(|pair| pair == [0xFF, 0xDA]).expect("it has a scan") + 14;
        for cut in 2..bytes.len() {
            let mut splitter = Splitter::new(1 << 20);
            feed(&mut splitter, &[&bytes[..cut], &bytes[..], &bytes[..]].concat());
            splitter.end();
            let mut found = Vec::new();
            while let Some(picture) = splitter.pop() {
                found.push(picture.to_vec());
            }
            assert_eq!(found.last(), Some(bytes), "cut at {cut}");
            if cut >= scan {
                assert_eq!(found.len(), 2, "cut at {cut}");
                assert_eq!(found[0], *bytes, "cut at {cut}");
                assert_eq!(splitter.discarded_bytes(), cut as u64);
            }
        }
    }
}

fn feed(splitter: &mut Splitter, bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let space = splitter.space();
        let count = rest.len().min(space.len());
        space[..count].copy_from_slice(&rest[..count]);
        splitter.filled(count);
        rest = &rest[count..];
    }
}

proptest! {
    #[test]
    fn any_bytes_are_walked_without_panic(
        start in prop::sample::select(vec![vec![], vec![0xFF, 0xD8], vec![0xFF, 0xD8, 0xFF, 0xDA, 0, 2]]),
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(0xFF), Just(0xD8), Just(0)], 0..600),
    ) {
        let all = [start, bytes].concat();
        if let Some(length) = jpeg::length(&all) {
            prop_assert!(length <= all.len() && all[..length].ends_with(&[0xFF, 0xD9]));
        }
        jpeg::dimensions(&all);
    }

    #[test]
    fn the_splitter_holds_no_more_than_its_limit_whatever_comes(
        pieces in prop::collection::vec(
            prop::collection::vec(prop_oneof![any::<u8>(), Just(0xFF), Just(0xD8), Just(0)], 1..300), 1..12),
    ) {
        let mut splitter = Splitter::new(100);
        let (mut fed, mut taken) = (0, 0);
        for piece in pieces {
            feed(&mut splitter, &piece);
            fed += piece.len() as u64;
            while let Some(picture) = splitter.pop() {
                prop_assert!(picture.len() <= 100);
                taken += picture.len() as u64;
            }
            prop_assert!(splitter.pending_bytes() <= 100);
        }
        prop_assert_eq!(fed, taken + splitter.discarded_bytes() + splitter.pending_bytes() as u64);
    }

    #[test]
    fn pictures_come_out_byte_for_byte_from_pieces_of_any_size(
        sizes in prop::collection::vec(1usize..700, 1..40),
        garbage in prop::collection::vec(prop::collection::vec(0u8..0xFF, 0..300), 4),
    ) {
        let jpegs = jpegs();
        let stream: Vec<u8> = jpegs.iter().zip(&garbage).flat_map(|(one, junk)| [&junk[..], one].concat()).collect();
        let (mut splitter, mut found, mut rest) = (Splitter::new(1 << 20), Vec::new(), &stream[..]);
        for size in sizes.iter().cycle() {
            let (piece, after) = rest.split_at((*size).min(rest.len()));
            feed(&mut splitter, piece);
            while let Some(picture) = splitter.pop() {
                found.push(picture.to_vec());
            }
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(&found[..], jpegs);
        prop_assert_eq!(splitter.discarded_bytes(), garbage.iter().map(Vec::len).sum::<usize>() as u64);
    }
}

/// The samples that `ffmpeg` decodes from a FLAC stream, as PCM of the same depth.
fn decoded(format: AudioFormat, stream: &[u8]) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a directory for the test");
    let path = dir.path().join("sound.flac");
    std::fs::write(&path, stream).expect("the file can be written");
    let (kind, codec) =
        if format.sample == SampleFormat::S16 { ("s16le", "pcm_s16le") } else { ("s24le", "pcm_s24le") };
    ffmpeg(&["-err_detect", "explode", "-i", text(&path), "-f", kind, "-c:a", codec, "-"])
}

/// Encodes, decodes and compares; returns the bytes of the stream.
fn assert_exact(format: AudioFormat, block_samples: usize, samples: &[i32]) -> usize {
    let mut encoder = flac::Encoder::new(format, block_samples).expect("the format is fine");
    let mut stream = encoder.codec_private().to_vec();
    for block in samples.chunks(block_samples * usize::from(format.channels)) {
        stream.extend_from_slice(&encoder.encode(block).expect("the block is fine"));
    }
    let found = decoded(format, &stream);
    assert!(found == pcm::encode(format, samples), "{format:?}: {} samples differ", samples.len());
    stream.len()
}

const SIGNALS: [&str; 10] =
    ["noise", "silence", "top", "steps", "square", "click", "quiet", "tone", "alternating", "stopped"];

/// The signals that encoders get wrong: noise, silence, full scale, steps, a click in silence, noise
/// that falls silent in mid-block.
fn signal(name: &str, sample: SampleFormat, count: usize) -> Vec<i32> {
    let top = (1i32 << (sample.bits() - 1)) - 1;
    let mut seed = 0x2545_F491_4F6C_DD1Du64;
    (0..count)
        .map(|at| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let noise = ((seed >> 32) as u32).cast_signed() >> (32 - sample.bits());
            let swing = |high: bool| if high { top } else { -top - 1 };
            match name {
                "noise" => noise,
                "silence" => 0,
                "top" => top,
                "steps" => swing((at / 2) % 2 == 0),
                "square" => swing((at / 199) % 2 == 0),
                "alternating" => swing(at % 2 == 0),
                "stopped" => noise * i32::from(at % 4096 < 2944),
                "click" => swing(false) * i32::from(at % 5001 == 5000),
                "quiet" => noise >> (sample.bits() - 3),
                _ => (f64::from(top) * 0.9 * (at as f64 * 0.057).sin()) as i32,
            }
        })
        .collect()
}

#[test]
fn flac_is_bit_exact_for_every_depth_and_signal_and_a_last_block_of_one_sample() {
    for sample in [SampleFormat::S16, SampleFormat::S24] {
        for channels in [1, 2, 3] {
            for (name, last) in SIGNALS.into_iter().zip([1, 15, 16, 17, 4096].into_iter().cycle()) {
                let count = (3 * 4096 + last) * usize::from(channels);
                let samples = signal(name, sample, count);
                let bytes = assert_exact(sound(sample, channels), 4096, &samples);
                let uncompressed = samples.len() * usize::from(sample.bits()) / 8;
                assert!(bytes <= uncompressed + 4 * 32 + 42, "{name} {sample:?}: {bytes} bytes");
            }
        }
    }
}

#[test]
fn flac_keeps_the_period_of_a_microphone_as_its_block() {
    for block_samples in [32, 480, 4800, 32_767] {
        let samples = signal("tone", SampleFormat::S16, 2 * (2 * block_samples + 7));
        assert_exact(sound(SampleFormat::S16, 2), block_samples, &samples);
    }
}

#[test]
fn flac_refuses_what_it_could_not_hold_exactly() {
    let new = |format, block_samples| flac::Encoder::new(format, block_samples);
    assert!(new(sound(SampleFormat::S32, 1), 4096).is_err());
    assert!(new(sound(SampleFormat::S16, 0), 4096).is_err());
    assert!(new(sound(SampleFormat::S16, 9), 4096).is_err());
    assert!(new(sound(SampleFormat::S16, 1), 31).is_err());
    assert!(new(sound(SampleFormat::S16, 1), 32_768).is_err());
    assert!(new(AudioFormat { sample_rate: 192_000, ..sound(SampleFormat::S16, 1) }, 4096).is_err());
    assert!(new(AudioFormat { sample_rate: 0, ..sound(SampleFormat::S16, 1) }, 4096).is_err());

    let mut stereo = new(sound(SampleFormat::S16, 2), 64).expect("the format is fine");
    for count in [0, 3, 130] {
        let refused = stereo.encode(&vec![0; count]).expect_err("the length is wrong");
        assert!(matches!(refused, CodecError::Length { .. }));
    }
    let refused = stereo.encode(&[0, 32_768]).expect_err("it does not fit into 16 bits");
    assert!(matches!(refused, CodecError::Range { sample: 32_768, bits: 16, .. }));
    stereo.encode(&[0; 128]).expect("the stream is unharmed");
    stereo.encode(&[0; 126]).expect("a short block is fine at the end");
    assert!(matches!(stereo.encode(&[0; 128]), Err(CodecError::Ended { .. })));
}

#[test]
fn pcm_is_little_endian_at_the_width_of_the_format() {
    let samples = [0, 1, -2, 0x0102];
    let of = |sample| pcm::encode(sound(sample, 1), &samples);
    assert_eq!(of(SampleFormat::S16), [0, 0, 1, 0, 0xFE, 0xFF, 2, 1]);
    assert_eq!(of(SampleFormat::S24), [0, 0, 0, 1, 0, 0, 0xFE, 0xFF, 0xFF, 2, 1, 0]);
    assert_eq!(of(SampleFormat::S32), [0, 0, 0, 0, 1, 0, 0, 0, 0xFE, 0xFF, 0xFF, 0xFF, 2, 1, 0, 0]);
}
