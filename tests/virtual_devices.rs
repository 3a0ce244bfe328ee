//! The virtual devices: what is put in comes out, to the byte and to the sample, and they misbehave
//! as ordered.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;
use std::thread::JoinHandle;
use std::time::Duration;

use shutterd::clock::{Clock, MonoTime, SystemClock};
use shutterd::codec::{jpeg, pcm};
use shutterd::device::{Device, DeviceError, Wake, open};
use shutterd::media::{Body, Format, PixelFormat, SampleFormat};
use shutterd::session::device::{Address, DeviceKey, DeviceSpec, FormatWish, MediaType};

#[path = "virtual_devices/synthetic.rs"]
mod synthetic;

/// Longer than anything here can take.
const PATIENCE: Duration = Duration::from_secs(20);

fn ffmpeg(args: &[&str]) {
    let run = Command::new("ffmpeg").args(["-nostdin", "-v", "error", "-y"]).args(args).output();
    let run = run.expect("ffmpeg is installed (apt-get install ffmpeg)");
    assert!(run.status.success(), "ffmpeg {args:?}: {}", String::from_utf8_lossy(&run.stderr));
}

fn text(path: &Path) -> String {
    path.to_str().expect("a path of the test is UTF-8").to_owned()
}

fn spec(media: MediaType, address: Address, wish: FormatWish) -> DeviceSpec {
    let label = format!("{:?}", std::thread::current().name());
    DeviceSpec { key: DeviceKey(label.clone()), label, media, address, wish }
}

fn at_rate(frame_rate: f64) -> FormatWish {
    FormatWish { frame_rate: Some(frame_rate), ..FormatWish::default() }
}

fn started(spec: &DeviceSpec) -> Box<dyn Device> {
    let wake = Wake::new().expect("there are descriptors");
    let mut device = open(spec, &wake).expect("the device opens");
    device.start().expect("the device starts");
    device
}

fn refused(spec: &DeviceSpec) -> DeviceError {
    match open(spec, &Wake::new().expect("there are descriptors")) {
        Ok(_) => panic!("{spec:?} opened"),
        Err(error) => error,
    }
}

/// Does `work` on a thread of its own.
fn aside(work: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    std::thread::Builder::new().name("aside".into()).spawn(work).expect("there are threads")
}

fn soon() -> MonoTime {
    SystemClock.now() + PATIENCE
}

/// A frame as a test looks at it.
#[derive(Debug, PartialEq)]
struct Taken {
    timestamp: MonoTime,
    sequence: Option<u32>,
    bytes: Vec<u8>,
    samples: Vec<i32>,
}

fn take(device: &mut dyn Device, deadline: MonoTime) -> Result<Option<Taken>, DeviceError> {
    Ok(device.next(deadline)?.map(|frame| {
        let (bytes, samples) = match frame.body {
            Body::Picture { bytes, .. } => (bytes.to_vec(), Vec::new()),
            Body::Sound(samples) => (Vec::new(), samples.to_vec()),
        };
        Taken { timestamp: frame.timestamp, sequence: frame.sequence, bytes, samples }
    }))
}

fn taken(device: &mut dyn Device) -> Taken {
    take(device, soon()).expect("the device works").expect("a frame comes")
}

/// All frames until the device ends.
fn all(device: &mut dyn Device) -> Vec<Taken> {
    let mut frames = Vec::new();
    loop {
        match take(device, soon()) {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => panic!("a frame comes in time"),
            Err(DeviceError::Ended { .. }) => return frames,
            Err(error) => panic!("{error}"),
        }
    }
}

/// A real MJPEG clip, and its pictures.
fn clip(dir: &Path) -> (String, Vec<Vec<u8>>) {
    let path = text(&dir.join("clip.mjpeg"));
    let source = "testsrc2=size=320x240:rate=30";
    ffmpeg(&["-f", "lavfi", "-i", source, "-frames:v", "60", "-c:v", "mjpeg", "-f", "mjpeg", &path]);
    let bytes = std::fs::read(&path).expect("ffmpeg wrote it");
    let (mut pictures, mut rest) = (Vec::new(), &bytes[..]);
    while let Some(length) = jpeg::length(rest) {
        pictures.push(rest[..length].to_vec());
        rest = &rest[length..];
    }
    assert_eq!((pictures.len(), rest.len()), (60, 0));
    (path, pictures)
}

fn fifo(dir: &Path) -> String {
    let path = text(&dir.join("pipe"));
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .expect("a FIFO can be made");
    path
}

fn write_in_pieces(mut to: impl Write, bytes: &[u8], sizes: &[usize]) {
    let (mut rest, mut sizes) = (bytes, sizes.iter().cycle());
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.len().min(*sizes.next().expect("sizes go round")));
        to.write_all(piece).expect("the reader is there");
        rest = after;
    }
}

#[test]
fn mjpeg_comes_through_a_fifo_byte_for_byte_whatever_the_pieces_and_the_garbage() {
    let dir = tempfile::tempdir().expect("a directory for the test");
    let (_, pictures) = clip(dir.path());
    let mut stream = b"--boundary\r\n\r\n".to_vec();
    for picture in &pictures {
        stream.extend_from_slice(picture);
        stream.extend_from_slice(b"\r\n--boundary\r\nContent-Type: image/jpeg\r\n\r\n\xFF\xD8\x00");
    }
    let path = fifo(dir.path());
    for sizes in [&[1usize, 7, 4093][..], &[65_536], &[1 << 20]] {
        let spec = spec(MediaType::Video, Address::Pipe { path: path.clone() }, FormatWish::default());
        let writer = {
            let (path, stream) = (path.clone(), stream.clone());
            let sizes = sizes.to_vec();
            aside(move || write_in_pieces(File::create(path).expect("it is there"), &stream, &sizes))
        };
        let mut device = started(&spec);
        let Format::Video(format) = device.format() else { panic!("it is video") };
        assert_eq!((format.pixel, format.width, format.height), (PixelFormat::Mjpeg, 320, 240));
        let mut last = MonoTime::default();
        for picture in &pictures {
            let frame = taken(&mut *device);
            assert!(frame.bytes == *picture && frame.timestamp > last && frame.sequence.is_none());
            last = frame.timestamp;
        }
        writer.join().expect("the writer is done");
        let nothing = take(&mut *device, SystemClock.now()).expect("the device works");
        assert_eq!(nothing, None, "a FIFO does not end with its writer");
        device.close().expect("it closes");
    }
}

#[test]
fn an_inherited_pipe_ends_with_its_writer_after_all_that_lay_in_it() {
    let dir = tempfile::tempdir().expect("a directory for the test");
    let (_, pictures) = clip(dir.path());
    let (reader, writer) = std::io::pipe().expect("there are descriptors");
    let stream = pictures[..3].concat();
    write_in_pieces(writer, &[&stream[..], &pictures[3][..100]].concat(), &[1000]);
    let wish = FormatWish { width: Some(320), height: Some(240), ..at_rate(15.0) };
    let path = format!("fd:{}", reader.as_raw_fd());
    let spec = spec(MediaType::Video, Address::Pipe { path }, wish);
    let own = refused(&spec);
    assert!(
        own.to_string().contains("hand the descriptor"),
        "what this process has opened is its own: {own}"
    );
    rustix::io::fcntl_setfd(&reader, rustix::io::FdFlags::empty()).expect("it is open");
    let mut device = started(&spec);
    assert_eq!(device.format().interval(), Duration::from_nanos(66_666_667));
    let found: Vec<_> = all(&mut *device).into_iter().map(|frame| frame.bytes).collect();
    assert!(found == pictures[..3]);
}

#[test]
fn sound_comes_through_a_fifo_sample_for_sample_with_time_that_goes_forwards() {
    let dir = tempfile::tempdir().expect("a directory for the test");
    let path = fifo(dir.path());
    let samples: Vec<i32> = (0..96_000).map(|at| (at * 7919 % 65_536) - 32_768).collect();
    let wish = FormatWish { sample_rate: Some(44_100), channels: Some(2), ..FormatWish::default() };
    let mut device = started(&spec(MediaType::Audio, Address::Pipe { path: path.clone() }, wish));
    let Format::Audio(format) = device.format() else { panic!("it is audio") };
    assert_eq!((format.sample, format.sample_rate, format.channels), (SampleFormat::S16, 44_100, 2));
    let bytes = pcm::encode(format, &samples);
    let writer = aside(move || {
        write_in_pieces(File::create(path).expect("it is there"), &bytes, &[1, 3, 5000, 70_001]);
    });
    let (mut found, mut next) = (Vec::new(), MonoTime::default());
    while found.len() < samples.len() {
        let frame = taken(&mut *device);
        assert!(frame.samples.len().is_multiple_of(2) && frame.samples.len() <= 2 * 882);
        assert!(next.since(frame.timestamp) <= Duration::from_millis(1), "time goes backwards");
        next = frame.timestamp + format.length_of(frame.samples.len() as u64 / 2);
        found.extend(frame.samples);
    }
    writer.join().expect("the writer is done");
    assert!(found == samples);
}

#[test]
fn what_is_no_pipe_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("a directory for the test");
    let pipe =
        |path: &str| spec(MediaType::Video, Address::Pipe { path: path.into() }, FormatWish::default());
    for (path, remedy) in
        [(text(&dir.path().join("none")), "mkfifo"), ("fd:987654".into(), "hand the descriptor")]
    {
        let error = refused(&pipe(&path));
        assert_eq!(error.reason(), "DEVICE_MISSING");
        let told = error.to_string();
        assert!(told.contains(&path) && told.contains(remedy) && !told.contains("plugged in"), "{told}");
    }
    let file = text(&dir.path().join("file"));
    std::fs::write(&file, "no pipe").expect("the file can be written");
    for path in [&file, &text(dir.path()), "fd:", "fd:-1", "fd:x"] {
        let error = refused(&pipe(path));
        assert!(
            matches!(error, DeviceError::Malformed { .. }) && error.to_string().contains(path),
            "{error}"
        );
    }
    assert_eq!(std::fs::read(&file).expect("it is there"), b"no pipe");
    let raw = FormatWish { pixel_format: Some("YUYV".into()), ..FormatWish::default() };
    let error = refused(&spec(MediaType::Video, Address::Pipe { path: fifo(dir.path()) }, raw));
    assert!(matches!(error, DeviceError::Format { .. }), "{error}");
}

#[test]
fn a_bell_ends_the_wait_for_a_picture_and_for_the_first_one() {
    let dir = tempfile::tempdir().expect("a directory for the test");
    let path = fifo(dir.path());
    let wake = Wake::new().expect("there are descriptors");
    let unknown = spec(MediaType::Video, Address::Pipe { path: path.clone() }, FormatWish::default());
    wake.ring();
    let unwritten = open(&unknown, &wake).err().expect("nobody writes");
    assert_eq!(unwritten.reason(), "DEVICE_UNWRITTEN");
    assert!(unwritten.to_string().starts_with("nobody writes to "), "{unwritten}");
    let mut writer = File::options().read(true).write(true).open(&path).expect("the FIFO is there");
    writer.write_all(b"no JPEG").expect("there is room");
    wake.ring();
    assert!(matches!(open(&unknown, &wake).err(), Some(DeviceError::Malformed { .. })));

    let known = FormatWish { width: Some(64), height: Some(48), ..at_rate(0.1) };
    for address in [Address::Pipe { path }, Address::Synthetic { faults: vec![] }] {
        let known = spec(MediaType::Video, address, known.clone());
        let mut device = loop {
            match open(&known, &wake) {
                // A process that another test begins has the lock of the first try until it runs its program.
                Err(DeviceError::Busy { .. }) => std::thread::yield_now(),
                opened => break opened.expect("it opens"),
            }
        };
        device.start().expect("it starts");
        assert_eq!(device.format().to_string(), "MJPG 64x48 at 0.10/s");
        // The first frame of a synthetic device is due at once.
        take(&mut *device, SystemClock.now()).expect("it works");
        let bell = wake.clone();
        let ringer = aside(move || bell.ring());
        assert_eq!(take(&mut *device, soon()).expect("it works"), None);
        ringer.join().expect("it rang");
        assert!(!wake.take(), "a bell that was heard is taken back");
    }
}

#[test]
fn mjpeg_files_are_replayed_byte_for_byte_once_or_for_ever() {
    let dir = tempfile::tempdir().expect("a directory for the test");
    let (path, pictures) = clip(dir.path());
    let replay = |again| Address::Replay { path: path.clone(), again };
    let mut device = started(&spec(MediaType::Video, replay(false), at_rate(500.0)));
    let frames = all(&mut *device);
    assert_eq!(frames.len(), 60);
    for (number, (frame, picture)) in frames.iter().zip(&pictures).enumerate() {
        assert!(frame.bytes == *picture && frame.sequence == Some(number as u32));
        let due = frames[0].timestamp + Duration::from_millis(2) * number as u32;
        assert_eq!(frame.timestamp, due);
    }
    let mut device = started(&spec(MediaType::Video, replay(true), at_rate(500.0)));
    let first = taken(&mut *device);
    for number in 1..150 {
        let frame = taken(&mut *device);
        assert!(frame.bytes == pictures[number % 60] && frame.sequence == Some(number as u32));
        assert_eq!(frame.timestamp - first.timestamp, Duration::from_millis(2) * number as u32);
    }
}

#[test]
fn recordings_are_replayed_with_their_recorded_pace() {
    let dir = tempfile::tempdir().expect("a directory for the test");
    let (clip, pictures) = clip(dir.path());
    let path = text(&dir.path().join("recording.mkv"));
    let sine = "sine=frequency=300:sample_rate=48000:duration=0.5";
    for (codec, width) in [("flac", 2), ("pcm_s16le", 2), ("pcm_s24le", 3)] {
        let sound = text(&dir.path().join("sound.raw"));
        let format = if width == 2 { "s16le" } else { "s24le" };
        ffmpeg(&["-f", "lavfi", "-i", sine, "-c:a", &format!("pcm_{format}"), "-f", format, &sound]);
        let inputs = ["-f", "mjpeg", "-framerate", "240", "-i", &clip, "-f", "lavfi", "-i", sine];
        ffmpeg(&[&inputs[..], &["-c:v", "copy", "-c:a", codec, &path]].concat());

        let replay = Address::Replay { path: path.clone(), again: false };
        let mut device = started(&spec(MediaType::Video, replay.clone(), FormatWish::default()));
        let frames = all(&mut *device);
        assert!(frames.iter().map(|frame| &frame.bytes).eq(&pictures));
        let length = frames[59].timestamp - frames[0].timestamp;
        assert!(length.abs_diff(Duration::from_secs(59) / 240) <= Duration::from_millis(2), "{length:?}");

        let mut device = started(&spec(MediaType::Audio, replay, FormatWish::default()));
        let Format::Audio(audio) = device.format() else { panic!("it is audio") };
        assert_eq!((audio.sample_rate, audio.channels), (48_000, 1));
        let samples: Vec<i32> = all(&mut *device).into_iter().flat_map(|frame| frame.samples).collect();
        assert!(pcm::encode(audio, &samples) == std::fs::read(&sound).expect("ffmpeg wrote it"), "{codec}");
    }
}

#[test]
fn wav_files_are_replayed_sample_for_sample_even_when_they_are_cut_off() {
    let dir = tempfile::tempdir().expect("a directory for the test");
    for (codec, width) in [("pcm_s16le", 2), ("pcm_s24le", 3)] {
        let path = dir.path().join("sound.wav");
        let noise = "anoisesrc=sample_rate=44100:duration=0.31,aformat=channel_layouts=stereo";
        ffmpeg(&["-f", "lavfi", "-i", noise, "-c:a", codec, "-bitexact", &text(&path)]);
        let bytes = std::fs::read(&path).expect("ffmpeg wrote it");
        let data = bytes.windows(4).position(|four| four == b"data").expect("it has data") + 8;
        for cut in [0, 1, 2 * width + 1] {
            let kept = &bytes[..bytes.len() - cut];
            std::fs::write(&path, kept).expect("the file can be written");
            let replay = Address::Replay { path: text(&path), again: false };
            let mut device = started(&spec(MediaType::Audio, replay, FormatWish::default()));
            let Format::Audio(format) = device.format() else { panic!("it is audio") };
            assert_eq!((format.sample_rate, format.channels), (44_100, 2));
            let frames = all(&mut *device);
            let samples: Vec<i32> = frames.iter().flat_map(|frame| frame.samples.clone()).collect();
            let whole = (kept.len() - data) / (2 * width) * (2 * width);
            assert!(pcm::encode(format, &samples) == kept[data..data + whole], "{codec} cut by {cut}");
        }
    }
}

#[test]
fn files_that_can_not_be_replayed_are_refused_by_name() {
    let dir = tempfile::tempdir().expect("a directory for the test");
    let path = text(&dir.path().join("file"));
    let replay = |media, path: &str| {
        spec(media, Address::Replay { path: path.into(), again: true }, FormatWish::default())
    };
    let missing = refused(&replay(MediaType::Video, &path));
    assert_eq!(missing.reason(), "DEVICE_MISSING");
    let told = missing.to_string();
    assert!(told.contains("put the file at its path") && !told.contains("plugged in"), "{told}");
    for path in [text(dir.path()), fifo(dir.path())] {
        assert!(matches!(refused(&replay(MediaType::Video, &path)), DeviceError::Malformed { .. }));
    }
    let starts: [&[u8]; 6] =
        [b"", b"x", b"\xFF\xD8\xFF", b"RIFF", b"RIFF\0\0\0\0WAVEfmt ", b"\x1A\x45\xDF\xA3"];
    for start in starts {
        for tail in [0, 1, 5000] {
            std::fs::write(&path, [start, &vec![0x55; if start.is_empty() { 0 } else { tail }]].concat())
                .expect("the file can be written");
            for media in [MediaType::Video, MediaType::Audio] {
                let error = refused(&replay(media, &path));
                assert!(matches!(error, DeviceError::Malformed { .. }), "{start:?} {tail}: {error}");
                assert!(error.to_string().contains(&path), "{error}");
            }
        }
    }
}
