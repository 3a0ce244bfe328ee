//! A session's files as the recorder and the repair leave them; ffprobe and BLAKE3 over the whole file judge.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use shutterd::clock::{Anchor, Clock, MonoTime, SystemClock};
use shutterd::link::RepairedFile;
use shutterd::matroska::Codec;
use shutterd::media::Packet;
use shutterd::recording::{
    HELD_BYTES_MAX, Ledger, Recorder, RecorderSettings, SystemHost, TrackSettings, prepare, repair_dir,
};
use shutterd::session::device::MediaType;
use shutterd::session::limits::{SOURCE_TEXT_CHARS_MAX, SOURCES_MAX};
use tempfile::TempDir;

const INTERVAL: Duration = Duration::from_millis(100);

/// As many sources as a session may have, with names and ids as long as they may be: a header of many pages.
struct Scene {
    dir: TempDir,
    ledger: Arc<Ledger>,
    origin: MonoTime,
    settings: RecorderSettings,
}

fn id(source: usize) -> String {
    format!("{source:0>SOURCE_TEXT_CHARS_MAX$}")
}

impl Scene {
    fn new() -> Self {
        let dir = TempDir::new().expect("a directory");
        let sources = (0..SOURCES_MAX).map(|source| (id(source), MediaType::Video, String::new()));
        let ledger = Arc::new(Ledger::new(Anchor::now(&SystemClock), sources));
        let mut settings = RecorderSettings {
            session: "s".to_owned(),
            name: String::new(),
            dir: dir.path().join("s"),
            file_mode: 0o640,
            dir_mode: 0o750,
            group: None,
            segment: Duration::from_mins(10),
            sync_interval: Duration::from_millis(250),
            resumed: false,
            give_up_after: Duration::from_secs(1),
            first_segment: 0,
            held_bytes_max: HELD_BYTES_MAX,
            host: Arc::new(SystemHost),
        };
        settings.first_segment = prepare(&settings).expect("an empty directory");
        Self { dir, ledger, origin: SystemClock.now(), settings }
    }

    fn recorder(&self) -> Recorder {
        let track = |source| TrackSettings {
            source,
            source_id: id(source),
            name: "é".repeat(SOURCE_TEXT_CHARS_MAX),
            codec: Some(Codec::Mjpeg { width: 32, height: 24, frame_ns: None }),
        };
        let tracks = (0..SOURCES_MAX).map(track).collect();
        Recorder::begin(self.settings.clone(), tracks, Arc::clone(&self.ledger), self.origin)
            .expect("the directory takes a file")
    }

    /// What ten pictures are packed into, one every 100 ms.
    fn packets(&self, source: usize, payload: &[u8]) -> Vec<Packet> {
        let packet = |at| {
            let timestamp = self.origin + INTERVAL * at;
            let payload = payload.to_vec();
            Packet { source, timestamp, end: timestamp + INTERVAL, units: 1, revision: 0, payload }
        };
        (0..10).map(packet).collect()
    }

    fn repair(&self) -> Vec<RepairedFile> {
        let (files, failures) = repair_dir(&self.settings.dir, &[], None).expect("it can be read");
        assert!(failures.is_empty(), "{failures:?}");
        files
    }

    fn path(&self) -> PathBuf {
        self.settings.dir.join("s-0001.mkv")
    }
}

/// One picture, as a camera sends it.
fn picture(dir: &Path) -> Vec<u8> {
    let path = dir.join("picture.jpg");
    let made = Command::new("ffmpeg")
        .args(["-v", "error", "-f", "lavfi", "-i", "testsrc2=size=32x24", "-frames:v", "1", "-c:v", "mjpeg"])
        .args(["-f", "mjpeg"])
        .arg(&path)
        .status();
    assert!(made.expect("ffmpeg can be run").success());
    fs::read(path).expect("just written")
}

/// Pictures in the file; ffprobe must have nothing to say but that.
fn packets_by_ffprobe(path: &Path) -> usize {
    let args = ["-v", "warning", "-show_entries", "packet=stream_index", "-of", "csv=p=0"];
    let told = Command::new("ffprobe").args(args).arg(path).output().expect("ffprobe can be run");
    assert_eq!(String::from_utf8_lossy(&told.stderr), "", "ffprobe warns");
    String::from_utf8(told.stdout).expect("text").lines().count()
}

#[test]
fn a_file_in_which_most_sources_stayed_silent_plays_and_has_the_hash_that_was_built() {
    let scene = Scene::new();
    let picture = picture(scene.dir.path());
    let mut recorder = scene.recorder();
    for source in [1, 11] {
        scene.packets(source, &picture).into_iter().for_each(|packet| {
            scene.ledger.captured(packet.source, packet.timestamp, packet.end, packet.units);
            recorder.write(packet).expect("it is written");
        });
    }
    recorder.finish(None).expect("it can be finished");
    let account = scene.ledger.account();
    let file = &account.files[0];
    assert_eq!(blake3::hash(&fs::read(scene.path()).expect("it is there")).to_hex().as_str(), file.blake3);
    assert_eq!(packets_by_ffprobe(&scene.path()), 20);
    let written: Vec<u64> = account.sources.iter().map(|source| source.receipt.written).collect();
    assert_eq!(written.len(), SOURCES_MAX, "a source that stayed silent is accounted for all the same");
    assert_eq!((written[0], written[1], written[11]), (0, 10, 10));
}

#[test]
fn a_repair_hides_silent_sources_from_players_and_still_tells_them() {
    let scene = Scene::new();
    let picture = picture(scene.dir.path());
    let mut recorder = scene.recorder();
    for packet in scene.packets(7, &picture) {
        recorder.write(packet).expect("it is written");
    }
    let torn = fs::read(scene.path()).expect("it is there");
    drop(recorder);
    fs::write(scene.path(), &torn[..torn.len() - 3]).expect("as a crash leaves it");
    for repaired in [scene.repair(), scene.repair()] {
        assert_eq!(packets_by_ffprobe(&scene.path()), 9);
        let mut told: Vec<(&str, bool)> =
            repaired[0].tracks.iter().map(|track| (track.source.as_str(), track.first.is_some())).collect();
        told.sort_unstable();
        let all: Vec<String> = (0..SOURCES_MAX).map(id).collect();
        let all: Vec<(&str, bool)> = all.iter().zip(0..).map(|(id, at)| (id.as_str(), at == 7)).collect();
        assert_eq!(told, all);
    }
}

#[test]
fn a_dead_workers_file_without_a_packet_is_removed() {
    let scene = Scene::new();
    drop(scene.recorder());
    assert!(scene.path().exists());
    assert_eq!(scene.repair(), []);
    assert!(!scene.path().exists());
}
