//! The synthetic device: exact content, a driver's pace and buffers, and faults on order.

use std::sync::mpsc;
use std::time::Duration;

use shutterd::clock::{Clock, SystemClock};
use shutterd::device::{DeviceError, Wake, open};
use shutterd::media::{Format, PixelFormat};
use shutterd::session::device::{Address, DeviceKey, DeviceSpec, Fault, FaultOrder, FormatWish, MediaType};

use super::{PATIENCE, Taken, aside, at_rate, ffmpeg, refused, soon, spec, started, take, taken, text};

fn synthetic(media: MediaType, wish: FormatWish) -> DeviceSpec {
    spec(media, Address::Synthetic { faults: vec![] }, wish)
}

/// A small device that misbehaves for `frames` frames from frame 5 on. It is slow enough that its
/// buffers hold out while a busy machine does something else.
fn faulty(media: MediaType, fault: Fault, frames: u64) -> DeviceSpec {
    let faults = vec![FaultOrder { at_frame: 5, frames, fault }];
    let wish = FormatWish { width: Some(32), height: Some(32), ..at_rate(25.0) };
    let spec = spec(media, Address::Synthetic { faults }, wish);
    // Devices of one key are one device, which goes on counting.
    DeviceSpec { key: DeviceKey(format!("{} {media} {frames}", spec.key)), ..spec }
}

/// The number that a JPEG says in its comment.
fn comment(frame: &Taken) -> Option<u32> {
    let said = b"shutterd frame ";
    let at = frame.bytes.windows(said.len()).position(|window| window == said)? + said.len();
    let digits = frame.bytes[at..].iter().take_while(|byte| byte.is_ascii_digit());
    String::from_utf8(digits.copied().collect()).ok()?.parse().ok()
}

/// Lets `length` pass by the frames of another device.
fn let_pass(length: Duration) {
    let mut clock = started(&synthetic(MediaType::Video, FormatWish { width: Some(16), ..at_rate(200.0) }));
    let first = taken(&mut *clock);
    while taken(&mut *clock).timestamp - first.timestamp < length {}
}

#[test]
fn pictures_are_numbered_timed_and_counted_by_an_independent_reader() {
    let mut device = started(&synthetic(MediaType::Video, at_rate(25.0)));
    assert_eq!(device.format().to_string(), "MJPG 640x360 at 25.00/s");
    let mut file = Vec::new();
    let first = taken(&mut *device);
    for number in 0..30u32 {
        let frame = if number == 0 { &first } else { &taken(&mut *device) };
        assert_eq!((frame.sequence, comment(frame)), (Some(number), Some(number)));
        assert_eq!(frame.timestamp - first.timestamp, Duration::from_millis(40) * number);
        assert!(frame.timestamp <= SystemClock.now(), "no frame comes before its time");
        file.extend_from_slice(&frame.bytes);
    }
    let dir = tempfile::tempdir().expect("a directory for the test");
    let (clip, raw) = (text(&dir.path().join("clip.mjpeg")), text(&dir.path().join("clip.raw")));
    std::fs::write(&clip, file).expect("the file can be written");
    ffmpeg(&["-i", &clip, "-f", "rawvideo", "-pix_fmt", "gray", &raw]);
    let decoded = std::fs::read(&raw).expect("ffmpeg wrote it");
    let pictures: Vec<_> = decoded.chunks(640 * 360).collect();
    assert!(pictures.len() == 30 && pictures.windows(2).all(|pair| pair[0] != pair[1]));
}

#[test]
fn a_camera_in_the_dark_gives_a_quarter_of_its_pictures_and_counts_no_other() {
    let mut device = started(&faulty(MediaType::Video, Fault::Dim, 15));
    let frames: Vec<Taken> = (0..11).map(|_| taken(&mut *device)).collect();
    let numbers: Vec<_> = frames.iter().filter_map(comment).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 8, 12, 16, 20, 21, 22]);
    let counted: Vec<_> = frames.iter().filter_map(|frame| frame.sequence).collect();
    assert_eq!(counted, (0..11).collect::<Vec<u32>>(), "nothing is missing");
    assert_eq!(frames[6].timestamp - frames[5].timestamp, Duration::from_millis(160));
    let mut tone = started(&faulty(MediaType::Audio, Fault::Dim, 15));
    assert!((0..8).all(|number| taken(&mut *tone).sequence == Some(number)), "sound needs no light");
}

#[test]
fn every_pixel_format_shows_the_same_picture() {
    let dir = tempfile::tempdir().expect("a directory for the test");
    let path = text(&dir.path().join("frame.raw"));
    let out = text(&dir.path().join("frame.grey"));
    let mut shown = Vec::new();
    for pixel in PixelFormat::ALL {
        let wish = FormatWish {
            width: Some(322),
            height: Some(242),
            pixel_format: Some(pixel.fourcc().to_lowercase()),
            ..FormatWish::default()
        };
        let mut device = started(&synthetic(MediaType::Video, wish));
        let Format::Video(format) = device.format() else { panic!("it is video") };
        assert_eq!((format.pixel, format.width, format.height), (pixel, 322, 242));
        let frame = taken(&mut *device);
        std::fs::write(&path, &frame.bytes).expect("the file can be written");
        let (name, stride, rows) = match pixel {
            PixelFormat::Mjpeg => ("", 0, 0),
            PixelFormat::Yuyv => ("yuyv422", 644, 242),
            PixelFormat::Nv12 => ("nv12", 322, 363),
            PixelFormat::Rgb24 => ("rgb24", 966, 242),
            PixelFormat::Grey => ("gray", 322, 242),
        };
        assert_eq!(format.stride, stride);
        let raw = ["-f", "rawvideo", "-pix_fmt", name, "-s", "322x242"];
        let from = if pixel == PixelFormat::Mjpeg { &["-f", "mjpeg"][..] } else { &raw };
        if pixel != PixelFormat::Mjpeg {
            assert_eq!(frame.bytes.len(), stride as usize * rows);
        }
        let to = ["-i", &path, "-vf", "scale=out_range=full,format=gray", "-f", "rawvideo", &out];
        ffmpeg(&[from, &to].concat());
        shown.push(std::fs::read(&out).expect("ffmpeg wrote it"));
    }
    for (pixel, grey) in PixelFormat::ALL.into_iter().zip(&shown) {
        assert_eq!(grey.len(), 322 * 242);
        // The time of day differs; bars and number, above it, do not.
        let above = 322 * 190;
        let off: u64 = grey[..above].iter().zip(&shown[4]).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
        assert!(off < 4 * above as u64, "{pixel:?} is off by {} on average", off as f64 / above as f64);
    }
}

#[test]
fn sample_n_of_the_tone_depends_on_n_alone() {
    for (rate, channels) in [(48_000, 1), (44_100, 2)] {
        let wish = FormatWish { sample_rate: Some(rate), channels: Some(channels), ..FormatWish::default() };
        let mut device = started(&synthetic(MediaType::Audio, wish));
        let Format::Audio(format) = device.format() else { panic!("it is audio") };
        assert_eq!(
            (format.sample_rate, format.channels, format.period_samples),
            (rate, channels, rate / 100)
        );
        let mut count = 0;
        let first = taken(&mut *device).timestamp;
        for number in 1..20 {
            let frame = taken(&mut *device);
            assert_eq!(frame.timestamp - first, Duration::from_millis(10) * number);
            assert!(frame.timestamp + Duration::from_millis(10) <= SystemClock.now());
            count = number * format.period_samples;
            for (at, sample) in frame.samples.iter().enumerate() {
                let time = f64::from(count + at as u32 / u32::from(channels)) / f64::from(rate);
                let wanted = 0.25 * 32_767.0 * (440.0 * std::f64::consts::TAU * time).sin();
                assert!((f64::from(*sample) - wanted).abs() <= 0.51, "{sample} at {at} of {number}");
            }
            assert_eq!(frame.samples.len(), (format.period_samples * u32::from(channels)) as usize);
        }
        assert!(count > 0);
    }
}

#[test]
fn a_late_reader_gets_what_the_buffers_hold_and_then_a_jump() {
    let small = FormatWish { width: Some(32), height: Some(32), ..at_rate(50.0) };
    for (media, wish, held) in [(MediaType::Video, small, 8), (MediaType::Audio, FormatWish::default(), 50)] {
        let mut device = started(&synthetic(media, wish));
        assert_eq!(taken(&mut *device).sequence, Some(0));
        let_pass(Duration::from_millis(600));
        for number in 1..=held {
            assert_eq!(taken(&mut *device).sequence, Some(number));
        }
        let next = taken(&mut *device).sequence.expect("a driver counts");
        assert!(next > held + 1, "{media}: {next}");
    }
}

#[test]
fn a_wish_that_can_not_be_fulfilled_is_refused() {
    let wishes = [
        FormatWish { width: Some(0), ..FormatWish::default() },
        FormatWish { height: Some(100_000), ..FormatWish::default() },
        at_rate(0.0),
        at_rate(f64::NAN),
        FormatWish { pixel_format: Some("H264".into()), ..FormatWish::default() },
    ];
    for wish in wishes {
        assert!(matches!(refused(&synthetic(MediaType::Video, wish)), DeviceError::Format { .. }));
    }
    for (sample_rate, channels) in [(Some(1), None), (None, Some(0)), (None, Some(100))] {
        let wish = FormatWish { sample_rate, channels, ..FormatWish::default() };
        assert!(matches!(refused(&synthetic(MediaType::Audio, wish)), DeviceError::Format { .. }));
    }
}

#[test]
fn a_stall_delivers_nothing_and_shows_as_a_jump_of_sequence_and_time() {
    for media in [MediaType::Video, MediaType::Audio] {
        let mut device = started(&faulty(media, Fault::Stall, 7));
        let frames: Vec<_> = (0..8).map(|_| taken(&mut *device)).collect();
        let sequences: Vec<_> = frames.iter().filter_map(|frame| frame.sequence).collect();
        assert_eq!(sequences, [0, 1, 2, 3, 4, 12, 13, 14]);
        let interval = device.format().interval();
        assert_eq!(frames[5].timestamp - frames[4].timestamp, interval * 8);
    }
    // While it lasts, a wait ends with its deadline.
    let mut device = started(&faulty(MediaType::Video, Fault::Stall, u64::MAX));
    (0..5).for_each(|_| drop(taken(&mut *device)));
    let deadline = SystemClock.now() + Duration::from_millis(20);
    assert_eq!(take(&mut *device, deadline).expect("it works"), None);
    assert!(SystemClock.now() >= deadline);
}

#[test]
fn a_failing_device_says_so_until_its_time_is_over() {
    let spec = faulty(MediaType::Video, Fault::Fail, 3);
    let mut device = started(&spec);
    (0..5).for_each(|_| drop(taken(&mut *device)));
    let error = take(&mut *device, soon()).expect_err("it fails");
    let DeviceError::Failed { source, .. } = error else { panic!("{error}") };
    assert_eq!(source.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
    device.close().expect("it closes");
    loop {
        match take(&mut *started(&spec), soon()) {
            Ok(frame) => break assert!(frame.expect("a frame comes").sequence >= Some(8)),
            Err(error) => assert!(matches!(error, DeviceError::Failed { .. }), "{error}"),
        }
    }
}

#[test]
fn a_device_that_vanished_is_missing_until_it_comes_back() {
    let spec = faulty(MediaType::Video, Fault::Vanish, 10);
    let mut device = started(&spec);
    let last = (0..5).map(|_| taken(&mut *device)).last().expect("five frames came");
    assert!(matches!(take(&mut *device, soon()), Err(DeviceError::Missing { .. })));
    device.close().expect("it closes");
    assert!(matches!(refused(&spec), DeviceError::Missing { .. }));
    let wake = Wake::new().expect("there are descriptors");
    let end = SystemClock.now() + PATIENCE;
    let mut device = loop {
        match open(&spec, &wake) {
            Ok(device) => break device,
            Err(error) => assert!(matches!(error, DeviceError::Missing { .. }), "{error}"),
        }
        assert!(SystemClock.now() < end, "it comes back");
        std::thread::yield_now();
    };
    device.start().expect("it starts");
    let frame = taken(&mut *device);
    assert!(frame.sequence >= Some(15) && frame.timestamp - last.timestamp >= Duration::from_millis(440));
}

#[test]
fn a_flood_comes_as_fast_as_it_is_taken_and_the_pace_goes_on_behind_it() {
    for media in [MediaType::Video, MediaType::Audio] {
        // At the device's pace this many frames would take an hour and more.
        let mut spec = faulty(media, Fault::Flood, 400);
        spec.wish.frame_rate = Some(0.1);
        let Address::Synthetic { faults } = &mut spec.address else { panic!("it is synthetic") };
        faults[0].at_frame = 1;
        let mut device = started(&spec);
        let frames: Vec<_> = (0..401).map(|_| taken(&mut *device)).collect();
        assert!(frames.windows(2).all(|pair| pair[0].timestamp < pair[1].timestamp));
        assert!(frames.iter().map(|frame| frame.sequence).eq((0..401).map(Some)));
        if media == MediaType::Video {
            let now = SystemClock.now();
            assert_eq!(take(&mut *device, now).expect("it works"), None, "the flood is over");
        } else {
            let distance = taken(&mut *device).timestamp - frames[400].timestamp;
            assert!(distance >= device.format().interval(), "{distance:?}");
        }
    }
}

#[test]
fn a_device_that_hangs_hears_neither_bell_nor_deadline() {
    let spec = faulty(MediaType::Video, Fault::Hang, 1);
    let wake = Wake::new().expect("there are descriptors");
    let mut device = open(&spec, &wake).expect("it opens");
    device.start().expect("it starts");
    let (done, came_back) = mpsc::sync_channel(100);
    // The thread ends with the process: there is no other way out of a hang.
    aside(move || {
        loop {
            let deadline = SystemClock.now() + Duration::from_millis(100);
            let frame = take(&mut *device, deadline).expect("it works");
            done.send(frame.and_then(|frame| frame.sequence)).expect("the test listens");
        }
    });
    let mut frames = Vec::new();
    while let Ok(frame) = came_back.recv_timeout(Duration::from_secs(1)) {
        frames.extend(frame);
    }
    assert_eq!(frames, [0, 1, 2, 3, 4]);
    wake.ring();
    assert_eq!(came_back.recv_timeout(Duration::from_millis(300)), Err(mpsc::RecvTimeoutError::Timeout));
}
