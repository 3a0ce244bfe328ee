//! Recordings as other programs see them, and as they are after a crash at any byte.

#[path = "matroska/players.rs"]
mod players;
#[path = "matroska/rot.rs"]
mod rot;
#[path = "matroska/torn.rs"]
mod torn;

use flacenc::component::{BitRepr as _, StreamInfo};
use flacenc::error::Verify as _;
use flacenc::source::{Fill as _, FrameBuf};
use shutterd::matroska::{
    AudioFormat, Block, Codec, Error, Header, Next, Packet, Patch, Reader, RepairPlan, Tag, TagTarget,
    Timestamp, Track, TrackNumber, WallTime, Writer, damage, repair,
};
use std::io::Cursor;
use std::num::NonZeroU64;
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

const VIDEO: TrackNumber = TrackNumber::new(1).expect("1 to 126");
const SOUND: TrackNumber = TrackNumber::new(2).expect("1 to 126");
const RATE_HZ: u32 = 8000;
const FLAC_SAMPLES: usize = 1024;
const FRAME_NS: u64 = 200_000_000;
const MONO: AudioFormat = AudioFormat { rate_hz: RATE_HZ, channels: 1, bits: 16 };

/// A packet with its payload, as a source hands it over.
#[derive(Clone, Debug, PartialEq)]
struct Sample {
    track: TrackNumber,
    ns: i64,
    payload: Vec<u8>,
}

struct Media {
    header: Header,
    samples: Vec<Sample>,
}

/// Four seconds of real pictures (5 a second) and FLAC, in the order of their times.
static MEDIA: LazyLock<Media> = LazyLock::new(|| {
    let (stream_info, frames) = flac(4 * RATE_HZ as usize / FLAC_SAMPLES);
    let pictures = jpegs("testsrc2=size=64x48:rate=5:duration=4");
    assert_eq!(pictures.len(), 20);
    let picture_ns = |at: usize| i64::try_from(at as u64 * FRAME_NS).expect("short");
    let sound_ns = |at: usize| {
        i64::try_from((at * FLAC_SAMPLES) as u64 * 1_000_000_000 / u64::from(RATE_HZ)).expect("short")
    };
    let mut samples: Vec<Sample> = vec![];
    samples.extend(pictures.into_iter().enumerate().map(|(at, payload)| Sample {
        track: VIDEO,
        ns: picture_ns(at),
        payload,
    }));
    samples.extend(frames.into_iter().enumerate().map(|(at, payload)| Sample {
        track: SOUND,
        ns: sound_ns(at),
        payload,
    }));
    samples.sort_by_key(|sample| sample.ns);
    let video = Codec::Mjpeg { width: 64, height: 48, frame_ns: None };
    let tracks = vec![
        track(VIDEO, "Front Door", video),
        track(SOUND, "Micrófono", Codec::Flac { audio: MONO, stream_info }),
    ];
    Media { header: header(tracks), samples }
});

fn header(tracks: Vec<Track>) -> Header {
    Header {
        title: "Visit 7".to_owned(),
        writing_app: "shutterd test".to_owned(),
        wall_start: WallTime::from_unix_ns(1_760_000_000_123_456_789),
        segment_uuid: *b"0123456789abcdef",
        tracks,
        tags: vec![tag(TagTarget::Segment, "SESSION_ID", "s-1")],
    }
}

fn track(number: TrackNumber, name: &str, codec: Codec) -> Track {
    let uid = NonZeroU64::new(0x1234_5678_9ABC_DE00 + u64::from(number.get())).expect("not zero");
    Track { number, uid, name: name.to_owned(), source_id: format!("src-{number}"), codec }
}

fn tag(target: TagTarget, name: &str, value: &str) -> Tag {
    Tag { target, name: name.to_owned(), value: value.to_owned() }
}

fn end_tags() -> Vec<Tag> {
    vec![tag(TagTarget::Segment, "END_REASON", "stop_requested"), tag(TagTarget::Track(SOUND), "GAPS", "0")]
}

fn jpegs(source: &str) -> Vec<Vec<u8>> {
    let args = ["-v", "error", "-f", "lavfi", "-i", source, "-c:v", "mjpeg", "-q:v", "5", "-f", "mjpeg", "-"];
    let stream = run("ffmpeg", &args).stdout;
    let mut starts: Vec<usize> = vec![0];
    starts.extend(
        stream.windows(4).enumerate().filter(|(_, four)| four == b"\xFF\xD9\xFF\xD8").map(|(at, _)| at + 2),
    );
    starts.push(stream.len());
    starts.windows(2).map(|ends| stream[ends[0]..ends[1]].to_vec()).collect()
}

/// STREAMINFO and frames of a tone.
fn flac(frames: usize) -> ([u8; 34], Vec<Vec<u8>>) {
    let config = flacenc::config::Encoder::default().into_verified().expect("the default is valid");
    let mut info = StreamInfo::new(RATE_HZ as usize, 1, 16).expect("a valid format");
    info.set_block_sizes(FLAC_SAMPLES, FLAC_SAMPLES).expect("a valid size");
    let mut buffer = FrameBuf::with_size(1, FLAC_SAMPLES).expect("a valid size");
    let encode = |at: usize| {
        let tone = |n: usize| {
            ((n as f64 * 440.0 * std::f64::consts::TAU / f64::from(RATE_HZ)).sin() * 9000.0) as i32
        };
        let samples: Vec<i32> = (at * FLAC_SAMPLES..(at + 1) * FLAC_SAMPLES).map(tone).collect();
        buffer.fill_interleaved(&samples).expect("as long as the buffer");
        let frame = flacenc::encode_fixed_size_frame(&config, &buffer, at, &info).expect("encodes");
        let mut sink = flacenc::bitsink::ByteSink::new();
        frame.write(&mut sink).expect("memory");
        sink.as_slice().to_vec()
    };
    let frames = (0..frames).map(encode).collect();
    let mut sink = flacenc::bitsink::ByteSink::new();
    info.write(&mut sink).expect("memory");
    (sink.as_slice().try_into().expect("34 bytes"), frames)
}

/// A file as it grows, with the patches that came due.
struct File {
    writer: Writer,
    bytes: Vec<u8>,
}

impl File {
    fn new(header: &Header) -> Self {
        let (writer, bytes) = Writer::new(header).expect("a valid header");
        Self { writer, bytes }
    }

    fn add(&mut self, sample: &Sample) {
        let (track, timestamp) = (sample.track, Timestamp::from_ns(sample.ns));
        let (payload_bytes, payload_crc32) = (sample.payload.len() as u64, crc32fast::hash(&sample.payload));
        let prefix = self
            .writer
            .packet(Packet { track, timestamp, keyframe: true, payload_bytes, payload_crc32 })
            .expect("valid");
        self.bytes.extend_from_slice(&prefix.bytes);
        self.bytes.extend_from_slice(&sample.payload);
        assert_eq!(self.bytes.len() as u64, self.writer.file_bytes());
        apply(&mut self.bytes, prefix.closed.as_slice());
    }

    fn finish(mut self, tags: &[Tag]) -> Vec<u8> {
        let finish = self.writer.finish(Some(Duration::from_millis(4096)), tags).expect("valid tags");
        self.bytes.extend_from_slice(&finish.tail);
        assert_eq!(self.bytes.len() as u64, finish.file_bytes);
        apply(&mut self.bytes, &finish.patches);
        self.bytes
    }
}

/// As after a crash before any patch was applied.
fn unpatched() -> Vec<u8> {
    let mut bytes = growing();
    for at in cluster_starts(&bytes) {
        bytes[at + 4..at + 18]
            .copy_from_slice(&[1, 255, 255, 255, 255, 255, 255, 255, 0xEC, 0x84, 0, 0, 0, 0]);
    }
    bytes
}

fn growing() -> Vec<u8> {
    let mut file = File::new(&MEDIA.header);
    MEDIA.samples.iter().for_each(|sample| file.add(sample));
    file.bytes
}

fn finished() -> Vec<u8> {
    let mut file = File::new(&MEDIA.header);
    MEDIA.samples.iter().for_each(|sample| file.add(sample));
    file.finish(&end_tags())
}

fn apply(bytes: &mut [u8], patches: &[Patch]) {
    for patch in patches {
        let at = usize::try_from(patch.offset).expect("small");
        assert!(patch.after <= bytes.len() as u64, "a patch waits for bytes that never come");
        bytes[at..at + patch.bytes.len()].copy_from_slice(&patch.bytes);
    }
}

fn mended(bytes: &[u8], plan: &RepairPlan) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if let Some(length) = plan.truncate_to {
        assert!(length < bytes.len() as u64);
        bytes.truncate(usize::try_from(length).expect("small"));
    }
    bytes.extend_from_slice(&plan.tail);
    assert_eq!(bytes.len() as u64, plan.file_bytes);
    apply(&mut bytes, &plan.patches);
    bytes
}

fn plan(bytes: &[u8]) -> RepairPlan {
    repair(Cursor::new(bytes), &end_tags()).expect("repairable")
}

fn open(bytes: &[u8]) -> Reader<Cursor<&[u8]>> {
    Reader::open(Cursor::new(bytes)).expect("a whole header")
}

/// Every block up to the first that isn't whole, and how the file ends.
fn play(bytes: &[u8]) -> (Vec<Block>, Next) {
    let mut reader = open(bytes);
    let mut blocks = vec![];
    loop {
        match reader.next_block().expect("memory") {
            Next::Block(block) => blocks.push(block),
            end => return (blocks, end),
        }
    }
}

fn run(program: &str, args: &[&str]) -> std::process::Output {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|error| panic!("{program} must be installed for the tests: {error}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn on_disk<T>(bytes: &[u8], look: impl FnOnce(&str) -> T) -> T {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("recording.mkv");
    std::fs::write(&path, bytes).expect("a writable directory");
    look(path.to_str().expect("an ASCII path"))
}

/// Counts the clusters whose CRC-32 is what zlib makes of what follows it (RFC 8794 §11.3.1).
const SUMS: &str = r"
import re, sys, zlib
file = open(sys.argv[1], 'rb').read()
right = 0
for head in re.finditer(rb'\x1f\x43\xb6\x75\x01(.{7})\xbf\x84(.{4})', file, re.DOTALL):
    content = file[head.end():head.end() - 6 + int.from_bytes(head[1], 'big')]
    right += zlib.crc32(content) == int.from_bytes(head[2], 'little')
print(right)
";

/// What ffprobe says of a file's packets: for each its stream (from 0), time, offset and size. It must have
/// no warning.
fn probe_packets(path: &str) -> Vec<(u64, f64, u64)> {
    let args = ["-v", "warning", "-show_packets", "-of", "json", path];
    let output = run("ffprobe", &args);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "ffprobe warns");
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packet = |packet: &serde_json::Value| {
        let text = |name: &str| packet[name].as_str().unwrap_or("nan").to_owned();
        let stream = packet["stream_index"].as_u64().expect("a number");
        (stream, text("pts_time").parse().expect("a time"), text("size").parse().expect("a size"))
    };
    told["packets"].as_array().expect("a list").iter().map(packet).collect()
}

#[test]
fn what_was_written_is_read_back() {
    let bytes = finished();
    let mut reader = open(&bytes);
    let info = reader.info();
    assert_eq!(info.title, MEDIA.header.title);
    assert_eq!(info.writing_app, MEDIA.header.writing_app);
    assert_eq!(info.wall_start, Some(MEDIA.header.wall_start));
    assert_eq!(info.segment_uuid, Some(MEDIA.header.segment_uuid));
    assert_eq!(info.duration, Some(Duration::from_millis(4096)));
    assert_eq!(reader.tracks(), MEDIA.header.tracks);
    assert!(reader.is_finished());

    for sample in &MEDIA.samples {
        let Next::Block(block) = reader.next_block().expect("memory") else { panic!("the file ends early") };
        let mut payload = vec![];
        reader.payload(&block, &mut payload).expect("whole");
        let told = Sample { track: block.track, ns: block.timestamp.ns(), payload };
        assert_eq!(told, *sample);
        assert!(block.keyframe);
    }
    assert_eq!(reader.next_block().expect("memory"), Next::End { at: bytes.len() as u64 });
    let tags: Vec<&str> = reader.tags().iter().map(|tag| tag.name.as_str()).collect();
    assert_eq!(tags, ["SESSION_ID", "SOURCE_ID", "SOURCE_ID", "END_REASON", "GAPS"]);
    assert_eq!(reader.tags()[3..], end_tags());
}

#[test]
fn the_index_leads_to_every_cluster_without_reading_them() {
    let bytes = finished();
    let mut reader = open(&bytes);
    reader.load_index().expect("memory");
    reader.load_index().expect("memory");
    assert_eq!(reader.tags().len(), 5);
    let cues = reader.cues().to_vec();
    let times: Vec<i64> = cues.iter().map(|cue| cue.timestamp.ns() / 1_000_000).collect();
    assert_eq!(times, [0, 1000, 2000, 3000]);
    for cue in cues {
        assert_eq!(cue.track, VIDEO);
        reader.go_to(&cue);
        let Next::Block(block) = reader.next_block().expect("memory") else { panic!("no block at a cue") };
        assert!((block.timestamp.ns() - cue.timestamp.ns()).abs() < 200_000_000);
    }
    reader.rewind();
    assert_eq!(reader.next_block().expect("memory"), Next::Block(play(&bytes).0[0]));
}

fn cluster_starts(bytes: &[u8]) -> Vec<usize> {
    let starts = bytes.windows(4).enumerate().filter(|(_, four)| four == b"\x1F\x43\xB6\x75");
    starts.map(|(at, _)| at).filter(|at| bytes[at + 4] == 1).collect()
}
