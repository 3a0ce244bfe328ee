//! Whatever bytes a decoder is given, it neither panics, nor runs for ever, nor takes memory for a length that
//! the bytes only claim: files after a crash, journals on bad disks, callers and cameras that send nonsense.

use std::io::Cursor;
use std::num::NonZeroU64;
use std::sync::Once;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;
use rustix::process::{Resource, Rlimit, setrlimit};
use shutterd::api::convert::{receipt_from_proto, session_from_proto};
use shutterd::api::proto;
use shutterd::codec::jpeg;
use shutterd::config::{self, Overrides};
use shutterd::journal::Record;
use shutterd::link::message::{FromWorker, ToWorker, Working, from_worker};
use shutterd::link::{Decoder, LastAccount, ProbeLine, RepairReport, WorkerSettings, encode};
use shutterd::matroska::{
    AudioFormat, Codec, Header, Next, Packet, Reader, Tag, TagTarget, Timestamp, Track, TrackNumber,
    WallTime, Writer, cut_after, repair,
};
use shutterd::session::{Receipt, SessionSpec};

/// Address space of this process: a length that is believed takes more, and ends it.
const MEMORY_BYTES_MAX: u64 = 4 << 30;

/// One way in which bytes are damaged. Places wrap at the end.
#[derive(Clone, Debug)]
enum Damage {
    Set(usize, u8),
    Flip(usize, u32),
    Cut(usize),
    Insert(usize, Vec<u8>),
    /// Repeats a piece of the bytes elsewhere.
    Repeat(usize, usize, usize),
    /// A number as large as its bytes allow, as lengths are written.
    Huge(usize, usize),
}

fn damage() -> impl Strategy<Value = Vec<Damage>> {
    let one = prop_oneof![
        (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        (any::<usize>(), 0..8_u32).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        any::<usize>().prop_map(Damage::Cut),
        (any::<usize>(), vec(any::<u8>(), 1..32)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        (any::<usize>(), any::<usize>(), 1..256_usize).prop_map(|(from, to, n)| Damage::Repeat(from, to, n)),
        (any::<usize>(), 1..9_usize).prop_map(|(at, count)| Damage::Huge(at, count)),
    ];
    vec(one, 0..6)
}

fn damaged(valid: &[u8], damages: &[Damage]) -> Vec<u8> {
    limit_memory();
    let mut bytes = valid.to_vec();
    for damage in damages {
        let length = bytes.len();
        if length == 0 {
            break;
        }
        match damage {
            Damage::Set(at, byte) => bytes[at % length] = *byte,
            Damage::Flip(at, bit) => bytes[at % length] ^= 1 << bit,
            Damage::Cut(at) => bytes.truncate(at % length),
            Damage::Insert(at, more) => drop(bytes.splice(at % length..at % length, more.iter().copied())),
            Damage::Repeat(from, to, count) => {
                let from = from % length;
                let piece = bytes[from..length.min(from + count)].to_vec();
                drop(bytes.splice(to % length..to % length, piece));
            }
            Damage::Huge(at, count) => {
                let at = at % length;
                bytes[at..length.min(at + count)].fill(0xFE);
            }
        }
    }
    bytes
}

fn limit_memory() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let limit = Rlimit { current: Some(MEMORY_BYTES_MAX), maximum: Some(MEMORY_BYTES_MAX) };
        setrlimit(Resource::As, limit).expect("a process may limit itself");
    });
}

fn recording() -> Vec<u8> {
    let (video, sound) = (TrackNumber::new(1).expect("1 to 126"), TrackNumber::new(2).expect("1 to 126"));
    let track = |number, codec| Track {
        number,
        uid: NonZeroU64::new(u64::from(number.get())).expect("not zero"),
        name: "Front".to_owned(),
        source_id: format!("source {number}"),
        codec,
    };
    let audio = AudioFormat { rate_hz: 8000, channels: 1, bits: 16 };
    let tag = |name: &str| Tag { target: TagTarget::Segment, name: name.to_owned(), value: "s".to_owned() };
    let header = Header {
        title: "A visit".to_owned(),
        writing_app: "a test".to_owned(),
        wall_start: WallTime::from_unix_ns(1_760_000_000_000_000_000),
        segment_uuid: [7; 16],
        tracks: vec![
            track(video, Codec::Mjpeg { width: 64, height: 48, frame_ns: None }),
            track(sound, Codec::Pcm { audio }),
        ],
        tags: vec![tag("SESSION_ID")],
    };
    let (mut writer, mut bytes) = Writer::new(&header).expect("a valid header");
    for at in 0..20_u8 {
        let (track, payload) = if at % 2 == 0 { (video, vec![at; 90]) } else { (sound, vec![at; 160]) };
        let timestamp = Timestamp::from_ns(i64::from(at) * 300_000_000);
        let payload_bytes = payload.len() as u64;
        let packet = Packet { track, timestamp, keyframe: true, payload_bytes, payload_crc32: 0 };
        bytes.extend(writer.packet(packet).expect("valid").bytes);
        bytes.extend(payload);
    }
    bytes.extend(writer.finish(Some(Duration::from_secs(6)), &[tag("END")]).expect("valid").tail);
    bytes
}

/// Reads a recording to its end, over every damage, as a repair does.
fn read_all(bytes: &[u8]) {
    let _ = shutterd::matroska::damage(Cursor::new(bytes));
    let Ok(mut reader) = Reader::open(Cursor::new(bytes)) else { return };
    let mut payload = Vec::new();
    for _ in 0..=bytes.len() {
        match reader.next_block() {
            Ok(Next::Block(block)) => {
                if reader.payload(&block, &mut payload).is_ok() {
                    assert!(payload.len() <= bytes.len(), "no more than there is");
                }
            }
            Ok(Next::Torn { .. }) => match reader.skip_damage() {
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return,
            },
            Ok(_) | Err(_) => return,
        }
    }
    panic!("it comes to no end");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_recording_can_be_read_repaired_and_cut(damages in damage(), last_ms in 0..10_000_i64) {
        let bytes = damaged(&recording(), &damages);
        read_all(&bytes);
        if let Ok(plan) = repair(Cursor::new(&bytes), &[]) {
            prop_assert!(plan.tail.len() <= bytes.len() + (1 << 20), "an index for what there is");
            prop_assert!(plan.truncate_to.is_none_or(|length| length <= bytes.len() as u64));
        }
        // Whether it can be cut is its own affair.
        let _ = cut_after(Cursor::new(&bytes), Timestamp::from_ns(last_ms * 1_000_000));
    }

    #[test]
    fn a_link_takes_any_stream(damages in damage(), pieces in vec(1..64_usize, 1..8)) {
        let working = Working { origin: 7, first_segment: 2 };
        let message = FromWorker { body: Some(from_worker::Body::Working(working)) };
        let bytes = damaged(&[encode(&message), encode(&message)].concat(), &damages);
        let (mut worker, mut daemon) = (Decoder::default(), Decoder::default());
        let (mut rest, mut pieces) = (&bytes[..], pieces.iter().cycle());
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(*pieces.next().expect("they go round")));
            rest = later;
            worker.push(now);
            daemon.push(now);
            while let Ok(Some(_)) = daemon.next_message::<FromWorker>() {}
            while let Ok(Some(_)) = worker.next_message::<ToWorker>() {}
        }
    }

    #[test]
    fn pictures_of_any_bytes_are_walked(damages in damage(), pieces in vec(1..200_usize, 1..8)) {
        let picture: Vec<u8> = [
            &b"\xFF\xD8\xFF\xE0\x00\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0"[..],
            b"\xFF\xC0\x00\x0B\x08\x00\x30\x00\x40\x01\x01\x11\x00",
            b"\xFF\xDA\x00\x08\x01\x01\x00\x00\x3F\x00scan\xFF\x00scan\xFF\xD9",
        ]
        .concat();
        let bytes = damaged(&picture.repeat(3), &damages);
        let _ = (jpeg::dimensions(&bytes), jpeg::length(&bytes));
        let mut splitter = jpeg::Splitter::new(1 << 16);
        let (mut rest, mut pieces) = (&bytes[..], pieces.iter().cycle());
        while !rest.is_empty() {
            let space = splitter.space();
            let count = rest.len().min(space.len()).min(*pieces.next().expect("they go round"));
            prop_assert!(count > 0, "there is always room");
            space[..count].copy_from_slice(&rest[..count]);
            rest = &rest[count..];
            splitter.filled(count);
            while splitter.advance() {
                prop_assert!(splitter.picture().len() <= bytes.len());
            }
        }
        splitter.end();
        while splitter.advance() {}
    }

    #[test]
    fn what_is_kept_as_json_is_read_or_refused(damages in damage()) {
        let texts = [include_str!("data/session.json"), RECORD, LINES];
        for text in texts {
            let bytes = damaged(text.as_bytes(), &damages);
            let _ = serde_json::from_slice::<Record>(&bytes);
            let _ = serde_json::from_slice::<Receipt>(&bytes);
            let _ = serde_json::from_slice::<LastAccount>(&bytes);
            let _ = serde_json::from_slice::<WorkerSettings>(&bytes);
            let _ = serde_json::from_slice::<ProbeLine>(&bytes);
            let _ = serde_json::from_slice::<RepairReport>(&bytes);
            if let Ok(value) = serde_json::from_slice(&bytes) {
                let _ = SessionSpec::from_json(value);
            }
        }
    }

    #[test]
    fn messages_of_any_bytes_become_sessions_and_receipts_or_are_refused(bytes in vec(any::<u8>(), 0..512)) {
        limit_memory();
        if let Ok(session) = proto::Session::decode(&bytes[..]) {
            let _ = session_from_proto(session);
        }
        if let Ok(receipt) = proto::Receipt::decode(&bytes[..]) {
            let _ = receipt_from_proto(receipt);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_config_of_any_text_is_taken_or_refused(damages in damage()) {
        let bytes = damaged(include_str!("../config/shutterd.toml").replace("\n#", "\n").as_bytes(), &damages);
        let dir = tempfile::tempdir().expect("a directory for the test");
        let path = dir.path().join("any.toml");
        std::fs::write(&path, &bytes).expect("a file for the test");
        if let Err(error) = config::load_with(Some(&path), [], &Overrides::default()) {
            prop_assert!(error.to_string().contains("any.toml"), "the file is named: {error}");
        }
    }
}

/// A record as the journal holds it, in its barest form.
const RECORD: &str = r#"{"spec":{"_id":"s","sources":[{"id":"cam","device":"local_camera","name":"Cam"}]},
    "options":{},"devices":[],"created_at":"2024-04-01T10:30:00.000Z","stop_keys":["k"],"forced":false,
    "worker_state":"starting","change":1,"gaps":[{"startSeconds":1.5,"durationSeconds":0.25}]}"#;
/// Words that the other texts have.
const LINES: &str = r#"{"sessionId":"s","endReason":"stop_requested","sources":[{"id":"a","type":"audio","device":"m",
    "captured":18446744073709551615,"written":1e400,"gaps":[]}],"files":[{"path":"/m","bytes":-1}]}"#;
