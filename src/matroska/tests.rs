//! The format's rules on small files, files as large as they get, and bytes of any kind.

mod damage;

use super::*;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::num::NonZeroU64;
use std::time::Duration;

const MS: i64 = 1_000_000;
const PCM: Codec = Codec::Pcm { audio: AudioFormat { rate_hz: 8000, channels: 1, bits: 16 } };
const MJPEG: Codec = Codec::Mjpeg { width: 16, height: 16, frame_ns: None };

fn number(number: u8) -> TrackNumber {
    TrackNumber::new(number).expect("1 to 126")
}

/// A header with one track for each codec, numbered from 1.
fn header(codecs: &[Codec]) -> Header {
    let track = |(codec, at): (&Codec, u8)| Track {
        number: number(at),
        uid: NonZeroU64::new(1000 + u64::from(at)).expect("not zero"),
        name: format!("source {at}"),
        source_id: format!("s{at}"),
        codec: codec.clone(),
    };
    Header {
        title: "a session".to_owned(),
        writing_app: "test".to_owned(),
        wall_start: WallTime::from_unix_ns(1_700_000_000_000_000_000),
        segment_uuid: [7; 16],
        tracks: codecs.iter().zip(1..).map(track).collect(),
        tags: vec![],
    }
}

fn packet(track: u8, ns: i64, payload_bytes: u64) -> Packet {
    let timestamp = Timestamp::from_ns(ns);
    Packet { track: number(track), timestamp, keyframe: true, payload_bytes, payload_crc32: 0 }
}

/// A file in memory; payloads look like JPEGs and carry their track and time.
struct File {
    writer: Writer,
    bytes: Vec<u8>,
    clusters: usize,
    due: Vec<Patch>,
}

impl File {
    fn new(codecs: &[Codec]) -> Self {
        let (writer, bytes) = Writer::new(&header(codecs)).expect("a valid header");
        Self { writer, bytes, clusters: 0, due: vec![] }
    }

    fn add(&mut self, track: u8, ns: i64) {
        let payload = [&[0xFF, 0xD8, track][..], &ns.to_be_bytes()].concat();
        let payload_crc32 = crc32fast::hash(&payload);
        let packet = Packet { payload_crc32, ..packet(track, ns, payload.len() as u64) };
        let prefix = self.writer.packet(packet).expect("a valid packet");
        self.clusters += usize::from(prefix.opened.is_some());
        self.bytes.extend([prefix.bytes, payload].concat());
        self.due.extend(prefix.closed);
    }

    fn finish(mut self) -> Vec<u8> {
        let finish = self.writer.finish(None, &[end_tag()]).expect("a valid tag");
        self.bytes.extend(finish.tail);
        self.due.extend(finish.patches);
        apply(&mut self.bytes, &self.due);
        self.bytes
    }
}

fn end_tag() -> Tag {
    Tag { target: TagTarget::Track(number(1)), name: "LOST".to_owned(), value: "0".to_owned() }
}

fn apply(bytes: &mut [u8], patches: &[Patch]) {
    for patch in patches {
        let at = usize::try_from(patch.offset).expect("small");
        assert!(
            patch.after <= bytes.len() as u64 && patch.offset + (patch.bytes.len() as u64) <= patch.after
        );
        bytes[at..at + patch.bytes.len()].copy_from_slice(&patch.bytes);
    }
}

fn plan(bytes: &[u8]) -> Result<RepairPlan, Error> {
    repair(Cursor::new(bytes), &[end_tag()])
}

/// The first `steps` steps of a plan: the cut, each byte of the tail, each patch.
fn mend(bytes: &[u8], plan: &RepairPlan, steps: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.truncate(plan.truncate_to.map_or(usize::MAX, |length| usize::try_from(length).expect("small")));
    bytes.extend(plan.tail.iter().take(steps));
    let patches = steps.saturating_sub(plan.tail.len()).min(plan.patches.len());
    apply(&mut bytes, &plan.patches[..patches]);
    bytes
}

/// The blocks of a file as tracks and times, each checked against its payload; then how the file ends.
fn play<R: Read + Seek>(source: R) -> Result<(Vec<(u8, i64)>, Next), Error> {
    let mut reader = Reader::open(source)?;
    let (mut blocks, mut payload) = (vec![], vec![]);
    loop {
        match reader.next_block()? {
            Next::Block(block) => {
                reader.payload(&block, &mut payload)?;
                assert_eq!(payload.len() as u64, block.payload_bytes);
                blocks.push((block.track.get(), block.timestamp.ns()));
            }
            end => return Ok((blocks, end)),
        }
    }
}

#[test]
fn the_header_fills_whole_pages_and_keeps_room() {
    for tracks in [1, 2, 30, 126] {
        let (writer, bytes) = Writer::new(&header(&vec![MJPEG; tracks])).expect("a valid header");
        assert_eq!(bytes.len() as u64 % HEADER_ALIGN_BYTES, 0);
        assert_eq!(bytes.len() as u64, writer.file_bytes());
        let reader = Reader::open(Cursor::new(bytes)).expect("whole");
        assert_eq!(reader.tracks(), header(&vec![MJPEG; tracks]).tracks);
        assert_eq!(reader.info().duration, None);
    }
}

#[test]
fn a_header_that_says_nonsense_is_refused() {
    let refused = |change: fn(&mut Header)| {
        let mut header = header(&[MJPEG, PCM]);
        change(&mut header);
        Writer::new(&header).map(|_| ()).expect_err("nonsense")
    };
    assert!(matches!(refused(|header| header.tracks.clear()), Error::NoTracks));
    let invalid: [fn(&mut Header); 6] = [
        |header| header.tracks[1].number = header.tracks[0].number,
        |header| header.tracks[1].uid = header.tracks[0].uid,
        |header| header.tracks[1].name = "x".repeat(1025),
        |header| header.tracks[0].codec = Codec::Mjpeg { width: 0, height: 1, frame_ns: None },
        |header| header.tracks[0].codec = Codec::Other("V_VP8".to_owned()),
        |header| {
            let audio = AudioFormat { rate_hz: 48_000, channels: 1, bits: 16 };
            header.tracks[0].codec = Codec::Flac { audio, stream_info: [1; 34] };
        },
    ];
    for change in invalid {
        assert!(matches!(refused(change), Error::InvalidTrack { .. }));
    }
    let long = |header: &mut Header| header.tags.push(Tag { value: "x".repeat(2 << 20), ..end_tag() });
    assert!(matches!(refused(long), Error::TooLarge { .. }));
    let unknown =
        |header: &mut Header| header.tags.push(Tag { target: TagTarget::Track(number(9)), ..end_tag() });
    assert!(matches!(refused(unknown), Error::UnknownTrack { .. }));
}

#[test]
fn a_packet_that_cannot_be_told_is_refused_and_changes_nothing() {
    let (mut writer, _) = Writer::new(&header(&[MJPEG])).expect("a valid header");
    let before = writer.file_bytes();
    assert!(matches!(writer.packet(packet(2, 0, 1)), Err(Error::UnknownTrack { .. })));
    assert!(matches!(writer.packet(packet(1, -1, 1)), Err(Error::BeforeZero { .. })));
    assert!(matches!(writer.packet(packet(1, 0, 0)), Err(Error::PacketSize { .. })));
    assert!(matches!(writer.packet(packet(1, 0, PACKET_BYTES_MAX + 1)), Err(Error::PacketSize { .. })));
    assert_eq!(writer.file_bytes(), before);
    assert_eq!(writer.tallies()[0].blocks, 0);
}

#[test]
fn clusters_close_after_a_second_and_where_16_bits_of_ticks_end() {
    // (time of the first packet, of the second, clusters), in ticks of 100 µs
    let cases = [
        (0, 9_999, 1),
        (0, 10_000, 2),
        (5, 10_004, 1),
        (5, 10_005, 2),
        (40_000, 40_000 - 32_768, 1),
        (40_000, 40_000 - 32_769, 2),
        (40_000, 0, 2),
        (0, i64::MAX / 100_000 - 1, 2),
    ];
    for (first, second, clusters) in cases {
        let mut file = File::new(&[MJPEG, PCM]);
        file.add(1, first * 100_000);
        file.add(2, second * 100_000);
        assert_eq!(file.clusters, clusters, "{first} then {second}");
        let bytes = file.finish();
        let (blocks, end) = play(Cursor::new(&bytes)).expect("whole");
        assert_eq!(blocks, [(1, first * 100_000), (2, second * 100_000)]);
        assert_eq!(end, Next::End { at: bytes.len() as u64 });
        assert!(plan(&bytes).expect("whole").is_empty());
    }
}

#[test]
fn times_are_kept_to_the_nearest_tick() {
    let mut file = File::new(&[MJPEG]);
    for ns in [49_999, 50_000, 33_333_333, 33_366_667, 66_649_999] {
        file.add(1, ns);
    }
    let times: Vec<i64> =
        play(Cursor::new(file.bytes)).expect("whole").0.into_iter().map(|block| block.1).collect();
    assert_eq!(times, [0, 100_000, 33_300_000, 33_400_000, 66_600_000]);
}

#[test]
fn each_cluster_is_cued_by_its_videos_or_else_by_its_sound() {
    let mut file = File::new(&[PCM, MJPEG, MJPEG]);
    for (track, ms) in [(1, 0), (2, 10), (2, 20), (3, 30), (1, 2000), (1, 2100), (3, 4000), (1, 4100)] {
        file.add(track, ms * MS);
    }
    let mut reader = Reader::open(Cursor::new(file.finish())).expect("whole");
    reader.load_index().expect("memory");
    let cues: Vec<(u8, i64)> =
        reader.cues().iter().map(|cue| (cue.track.get(), cue.timestamp.ns() / MS)).collect();
    assert_eq!(cues, [(2, 10), (3, 30), (1, 2000), (3, 4000)]);
}

#[test]
fn without_a_duration_the_last_packet_ends_the_recording() {
    let duration = |codec: Codec, times: &[i64]| {
        let mut file = File::new(&[codec]);
        for ms in times {
            file.add(1, ms * MS);
        }
        Reader::open(Cursor::new(file.finish())).expect("whole").info().duration
    };
    let frame_ns = NonZeroU64::new(40_000_000);
    let constant = Codec::Mjpeg { width: 16, height: 16, frame_ns };
    assert_eq!(duration(constant, &[0]), Some(Duration::from_millis(40)));
    assert_eq!(duration(MJPEG, &[100, 200, 300]), Some(Duration::from_millis(400)));
    assert_eq!(duration(MJPEG, &[0]), None, "nothing tells how long one picture is");
    assert_eq!(
        duration(PCM, &[1000]),
        Some(Duration::from_nanos(1_000_687_500)),
        "11 bytes of 16000 a second"
    );
    assert_eq!(duration(PCM, &[]), None);
}

#[test]
fn a_track_without_a_packet_is_hidden_and_still_known() {
    let mut file = File::new(&[PCM, MJPEG, PCM]);
    file.add(2, 0);
    let growing = file.bytes.clone();
    let finished = file.finish();
    let mended = mend(&growing, &plan(&growing).expect("ours"), usize::MAX);
    for bytes in [finished, mended] {
        let reader = Reader::open(Cursor::new(&bytes)).expect("whole");
        let all = header(&[PCM, MJPEG, PCM]).tracks;
        assert_eq!(reader.tracks(), &all[1..2]);
        assert_eq!(reader.silent_tracks(), [all[0].clone(), all[2].clone()]);
        assert!(
            reader.tags().iter().all(|tag| tag.target == TagTarget::Track(number(2))),
            "{:?}",
            reader.tags()
        );
        assert!(plan(&bytes).expect("whole").is_empty());
    }
}

#[test]
fn a_track_whose_packets_were_all_cut_is_hidden() {
    let mut file = File::new(&[PCM, MJPEG]);
    file.add(2, 0);
    file.add(1, 300 * MS);
    let cut = cut_after(Cursor::new(&file.bytes), Timestamp::from_ns(200 * MS)).expect("ours");
    for patch in cut.patches {
        let at = usize::try_from(patch.offset).expect("small");
        file.bytes[at..at + patch.bytes.len()].copy_from_slice(&patch.bytes);
    }
    file.writer.cut(cut.kept);
    let bytes = file.finish();
    let reader = Reader::open(Cursor::new(&bytes)).expect("whole");
    let numbers = |tracks: &[Track]| tracks.iter().map(|track| track.number.get()).collect::<Vec<_>>();
    assert_eq!((numbers(reader.tracks()), numbers(reader.silent_tracks())), (vec![2], vec![1]));
}

#[test]
fn a_file_without_packets_can_be_finished() {
    let bytes = File::new(&[MJPEG]).finish();
    let (blocks, end) = play(Cursor::new(&bytes)).expect("whole");
    assert_eq!((blocks.len(), end), (0, Next::End { at: bytes.len() as u64 }));
    assert!(plan(&bytes).expect("whole").is_empty());
}

/// A file that is looked at while it grows.
struct Shared<'a>(&'a std::cell::RefCell<Cursor<Vec<u8>>>);

impl Read for Shared<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        self.0.borrow_mut().read(out)
    }
}

impl Seek for Shared<'_> {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.0.borrow_mut().seek(to)
    }
}

#[test]
fn a_reader_goes_on_when_the_file_has_grown() {
    let mut file = File::new(&[MJPEG]);
    file.add(1, 0);
    let whole = file.bytes.len();
    file.add(1, 2000 * MS);
    let growing = std::cell::RefCell::new(Cursor::new(file.bytes[..whole + 30].to_vec()));
    let mut reader = Reader::open(Shared(&growing)).expect("whole");
    assert!(matches!(reader.next_block().expect("memory"), Next::Block(_)));
    let torn = reader.next_block().expect("memory");
    assert!(matches!(torn, Next::Torn { at } if at > whole as u64), "{torn:?}");
    *growing.borrow_mut() = Cursor::new(file.bytes.clone());
    assert!(matches!(reader.next_block().expect("memory"), Next::Block(_)));
    assert_eq!(reader.next_block().expect("memory"), Next::End { at: file.bytes.len() as u64 });
}
