//! A real MJPEG clip and a real WAV file through `pipe` and `replay`: what comes out is what went in,
//! to the byte and to the sample.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use shutterd::api::proto::{Receipt, SourceFormat, StartOptions};
use tempfile::TempDir;
use tonic::Code;

use crate::agent::{session, state, until};
use crate::clip::{copied, decoded, only_file, packets, pictures, place_of, sound, text};
use crate::host::{Host, assert_refused};
use crate::site::Site;

/// Writes into a FIFO in real time, as a camera or a microphone would, until it is dropped.
struct Feeder {
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Feeder {
    /// Feeds each piece at its time, from the first again after the last.
    fn start(path: &Path, pieces: Vec<Vec<u8>>, interval: Duration) -> Self {
        mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO");
        // Open for both, so that the agent may come and go.
        let fifo = OpenOptions::new().read(true).write(true).open(path).expect("the FIFO opens");
        rustix::io::ioctl_fionbio(&fifo, true).expect("a FIFO needn't block");
        let ending = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&ending);
        let thread = std::thread::Builder::new().name("feeder".to_owned());
        let thread = thread.spawn(move || feed(fifo, &pieces, interval, &over)).expect("a thread");
        Self { ending, thread: Some(thread) }
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // What it panicked of was told by then.
            let _ = thread.join();
        }
    }
}

/// A piece goes whole or not at all: a FIFO that nobody empties must not be filled with halves.
fn feed(mut fifo: File, pieces: &[Vec<u8>], interval: Duration, over: &AtomicBool) {
    let (mut next, mut left) = (Instant::now(), Vec::new());
    for piece in pieces.iter().cycle() {
        if over.load(Ordering::Relaxed) {
            return;
        }
        if left.is_empty() {
            left.extend_from_slice(piece);
        }
        while let Ok(count @ 1..) = fifo.write(&left) {
            left.drain(..count);
        }
        // This thread is the device's clock: pausing to points of time is what it is for.
        next += interval;
        std::thread::park_timeout(next.saturating_duration_since(Instant::now()));
    }
}

fn device(id: &str, kind: &str, media: &str, path: &Path, more: &str) -> String {
    let path = text(path);
    format!("[[devices]]\nid = \"{id}\"\nkind = \"{kind}\"\nmedia = \"{media}\"\npath = \"{path}\"\n{more}\n")
}

fn place() -> TempDir {
    tempfile::Builder::new().prefix("clips").tempdir_in("/tmp").expect("a directory for the clips")
}

/// The recorded pictures, which our reader and ffmpeg find alike.
fn recorded_pictures(host: &Host, receipt: &Receipt) -> Vec<Vec<u8>> {
    crate::media::check(&host.site, receipt);
    let path = only_file(receipt);
    let pictures = packets(&path, "cam");
    assert!(
        pictures == copied(&path, &host.site.dir().join("copied")),
        "ffmpeg copies what our reader reads"
    );
    assert_eq!(pictures.len() as u64, receipt.sources[0].written);
    pictures
}

#[tokio::test]
async fn what_is_fed_into_pipes_is_recorded_to_the_byte_and_to_the_sample() {
    let dir = place();
    let (_, clip) = pictures(dir.path(), 12);
    let (_, samples) = sound(dir.path(), 12);
    let (camera, microphone) = (dir.path().join("camera.fifo"), dir.path().join("microphone.fifo"));
    let devices = [
        device("cam", "pipe", "video", &camera, "frame_rate = 30"),
        device("mic", "pipe", "audio", &microphone, ""),
    ];
    let host = Host::serve(&Site::new("", &devices)).await;
    let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    let periods = bytes.chunks(960).map(<[u8]>::to_vec).collect();
    let _camera = Feeder::start(&camera, clip.clone(), Duration::from_nanos(33_333_333));
    let _microphone = Feeder::start(&microphone, periods, Duration::from_millis(10));

    host.start(session("s1", &["cam", "mic"])).await.expect("the session starts");
    host.recorded("s1", &[("cam", 90), ("mic", 144_000)]).await;
    let receipt = host.receipt("s1").await;
    let recorded = recorded_pictures(&host, &receipt);
    let twice = [&clip[..], &clip[..]].concat();
    assert!(
        recorded.len() >= 90 && recorded.len() < 300,
        "{} pictures of some three seconds",
        recorded.len()
    );
    assert!(place_of(&recorded, &twice).is_some(), "a run of the clip, without a hole");
    let heard = decoded(&only_file(&receipt));
    let twice = [&samples[..], &samples[..]].concat();
    assert!(heard.len() >= 144_000, "{} samples", heard.len());
    assert_eq!(receipt.sources[1].filled, 0, "{receipt:?}");
    assert!(place_of(&heard, &twice).is_some(), "a run of the sound, without a hole");
    for source in &receipt.sources {
        assert_eq!((source.dropped, source.lost, source.missed, source.corrupt), (0, 0, 0, 0), "{source:?}");
        assert_eq!(source.timestamp_source, "arrival");
    }
    host.end().await;
}

#[tokio::test]
async fn a_pipe_that_nobody_writes_to_is_refused_by_name() {
    let dir = place();
    let (fifo, file, nowhere) =
        (dir.path().join("silent.fifo"), dir.path().join("file"), dir.path().join("nowhere"));
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO");
    std::fs::write(&file, "no pipe").expect("a file");
    let devices = [
        device("cam-silent", "pipe", "video", &fifo, ""),
        device("mic-silent", "pipe", "audio", &fifo, ""),
        device("cam-file", "pipe", "video", &file, ""),
        device("cam-nowhere", "pipe", "video", &nowhere, ""),
        device("cam-text", "replay", "video", &file, ""),
        device("cam-gone", "replay", "video", &nowhere, ""),
        device("cam-fifo", "replay", "video", &fifo, ""),
    ];
    let host = Host::serve(&Site::new("limits.start_timeout_ms = 1000", &devices)).await;
    for (id, reason) in [
        ("cam-silent", "START_TIMEOUT"),
        ("mic-silent", "START_TIMEOUT"),
        ("cam-file", "DEVICE_MALFORMED"),
        ("cam-nowhere", "DEVICE_MISSING"),
        ("cam-text", "DEVICE_MALFORMED"),
        ("cam-gone", "DEVICE_MISSING"),
        ("cam-fifo", "DEVICE_MALFORMED"),
    ] {
        let status = host.start(session("s1", &[id])).await.expect_err(id);
        assert_refused(id, &status, Code::FailedPrecondition, reason, &[("session", "s1"), ("source", id)]);
        assert!(status.message().contains(id), "{}", status.message());
        host.assert_nothing_is_left(id).await;
    }
    host.end().await;
}

#[tokio::test]
async fn what_is_replayed_is_recorded_from_its_beginning_and_so_is_the_recording() {
    let dir = place();
    let (clip_path, clip) = pictures(dir.path(), 3);
    let (wav_path, samples) = sound(dir.path(), 3);
    let recording = dir.path().join("recording.mkv");
    let devices = [
        device("cam", "replay", "video", &clip_path, "frame_rate = 30"),
        device("mic", "replay", "audio", &wav_path, ""),
        device("cam-again", "replay", "video", &recording, ""),
        device("mic-again", "replay", "audio", &recording, ""),
    ];
    let host = Host::serve(&Site::new("", &devices)).await;
    let receipt = replayed(&host, "s1", &["cam", "mic"]).await;
    // Everything was played, and then the session came to its end by itself.
    assert!(recorded_pictures(&host, &receipt) == clip, "every picture of the clip");
    assert!(decoded(&only_file(&receipt)) == samples, "every sample of the sound");
    std::fs::copy(only_file(&receipt), &recording).expect("room for a copy");

    let again = replayed(&host, "s2", &["cam-again", "mic-again"]).await;
    crate::media::check(&host.site, &again);
    assert!(packets(&only_file(&again), "cam-again") == clip, "every picture of the recording");
    assert!(decoded(&only_file(&again)) == samples, "every sample of the recording");
    for (source, first) in again.sources.iter().zip(&receipt.sources) {
        assert_eq!((source.captured, source.written), (first.written, first.written), "{source:?}");
    }
    host.end().await;
}

/// Records a session until it ends by itself.
async fn replayed(host: &Host, id: &str, devices: &[&str]) -> Receipt {
    host.start(session(id, devices)).await.expect("the session starts");
    let last = until(&mut host.watch(id).await, |event| state(event) == "finished").await;
    let receipt = last.receipt.expect("a receipt");
    assert_eq!(receipt.end_reason, "source_lost");
    receipt
}

#[tokio::test]
async fn a_replay_that_cannot_be_what_is_asked_for_is_refused() {
    let dir = place();
    let (clip_path, _) = pictures(dir.path(), 1);
    let (wav_path, _) = sound(dir.path(), 1);
    let empty: PathBuf = dir.path().join("empty");
    File::create(&empty).and_then(|mut file| file.write_all(&[])).expect("an empty file");
    let devices = [
        device("cam", "replay", "video", &clip_path, ""),
        device("mic", "replay", "audio", &wav_path, ""),
        device("cam-empty", "replay", "video", &empty, ""),
        device("cam-wav", "replay", "video", &wav_path, ""),
        device("mic-clip", "replay", "audio", &clip_path, ""),
    ];
    let host = Host::serve(&Site::new("", &devices)).await;
    let format = |source: &str| SourceFormat { source_id: source.to_owned(), ..Default::default() };
    for format in [
        SourceFormat { width: Some(1920), height: Some(1080), ..format("cam") },
        SourceFormat { pixel_format: Some("YUYV".to_owned()), ..format("cam") },
        SourceFormat { frame_rate: Some(5000.0), ..format("cam") },
        SourceFormat { sample_rate: Some(44_100), ..format("mic") },
        SourceFormat { channels: Some(2), ..format("mic") },
    ] {
        let (what, source) = (format!("{format:?}"), format.source_id.clone());
        let options = StartOptions { max_duration: None, formats: vec![format] };
        let status = host.start_soon(session("s1", &[&source]), Some(options)).await.expect_err(&what);
        let reason = if what.contains("5000") { "DEVICE_MALFORMED" } else { "FORMAT_UNAVAILABLE" };
        assert_refused(&what, &status, Code::FailedPrecondition, reason, &[("source", &source)]);
    }
    for id in ["cam-empty", "cam-wav", "mic-clip"] {
        let status = host.start_soon(session("s1", &[id]), None).await.expect_err(id);
        assert_refused(id, &status, Code::FailedPrecondition, "DEVICE_MALFORMED", &[("source", id)]);
    }
    host.assert_nothing_is_left("all of these").await;
    host.end().await;
}
