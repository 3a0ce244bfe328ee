//! A stop that reaches the worker long after it was accepted, as after a crash of the daemon: what was captured
//! meanwhile is in no file. The daemon's end of the link is played by the test.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use shutterd::clock::{Clock, MonoTime, SystemClock};
use shutterd::link::message::{FromWorker, Heard, Stop, ToWorker, Welcome, from_worker, to_worker};
use shutterd::link::{Decoder, LINK_VERSION, Sound, SourceSettings, WorkerSettings, encode};
use shutterd::session::device::{Address, DeviceKey, DeviceSpec, FormatWish, MediaType};
use shutterd::session::{Account, SourceReceipt};

use crate::tracer::Tracer;

const PATIENCE: Duration = Duration::from_secs(30);
/// How long the order is under way.
const LATE: Duration = Duration::from_millis(1300);

struct Daemon {
    stream: UnixStream,
    decoder: Decoder,
    worker: Child,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // One that has ended needs no signal.
        let _ = self.worker.kill();
        let _ = self.worker.wait();
    }
}

fn source(id: &str, media: MediaType) -> SourceSettings {
    let device = DeviceSpec {
        key: DeviceKey(format!("virtual:{id}")),
        label: id.to_owned(),
        media,
        address: Address::Synthetic { faults: Vec::new() },
        wish: FormatWish { frame_rate: Some(30.0), ..FormatWish::default() },
    };
    SourceSettings { id: id.to_owned(), name: id.to_owned(), device }
}

fn settings(dir: &Path, sound: Sound, sync_interval: Duration) -> WorkerSettings {
    WorkerSettings {
        session: "late".parse().expect("an id"),
        name: "Late".to_owned(),
        sources: vec![source("cam", MediaType::Video), source("mic", MediaType::Audio)],
        session_dir: dir.join("late"),
        file_mode: 0o640,
        dir_mode: 0o750,
        group: None,
        segment: Duration::from_secs(600),
        sync_interval,
        jpeg_quality: 80,
        sound,
        queue_bytes_max: 64 << 20,
        start_timeout: PATIENCE,
        stall_after: Duration::from_millis(250),
        source_lost_after: Duration::from_secs(60),
        orphan_grace: PATIENCE,
        expires_at: None,
        anchor: None,
        resumed: false,
        origin: None,
    }
}

impl Daemon {
    fn begin(dir: &Path, sound: Sound) -> Self {
        Self::begin_syncing(dir, sound, Duration::from_millis(100))
    }

    fn begin_syncing(dir: &Path, sound: Sound, sync_interval: Duration) -> Self {
        let link = dir.join("link.sock");
        let listener = UnixListener::bind(&link).expect("a socket");
        let mut command = Command::new(env!("CARGO_BIN_EXE_shutterd"));
        command.arg("worker").arg("--link").arg(&link).args(["--session", "late"]);
        let worker = command.spawn().expect("a worker");
        let (stream, _) = listener.accept().expect("the worker dials");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut daemon = Self { stream, decoder: Decoder::default(), worker };
        assert!(matches!(daemon.hear(), from_worker::Body::Hello(_)));
        let settings = serde_json::to_vec(&settings(dir, sound, sync_interval)).expect("JSON");
        daemon.say(to_worker::Body::Welcome(Welcome { link_version: LINK_VERSION, settings }));
        daemon
    }

    fn say(&mut self, body: to_worker::Body) {
        self.stream.write_all(&encode(&ToWorker { body: Some(body) })).expect("the worker listens");
    }

    fn hear(&mut self) -> from_worker::Body {
        let mut buffer = [0; 4096];
        loop {
            if let Some(message) = self.decoder.next_message::<FromWorker>().expect("a message") {
                return message.body.expect("it says something");
            }
            let count = match self.stream.read(&mut buffer) {
                // The end of another test's process interrupts it.
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                count => count.expect("the worker speaks"),
            };
            assert!(count > 0, "the worker has gone");
            self.decoder.push(&buffer[..count]);
        }
    }

    /// What the worker says, until `wanted` picks something.
    fn until<T>(&mut self, wanted: impl Fn(from_worker::Body) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let body = self.hear();
            if matches!(body, from_worker::Body::Report(_)) {
                // One that has ended meanwhile needs no answer.
                let heard = ToWorker { body: Some(to_worker::Body::Heard(Heard {})) };
                let _ = self.stream.write_all(&encode(&heard));
            }
            if let Some(picked) = wanted(body) {
                return picked;
            }
        }
        panic!("the worker did not say what was waited for");
    }

    /// The final account, when the stop was accepted at this time.
    fn stopped_at(&mut self, stop_at: u64) -> Account {
        self.say(to_worker::Body::Stop(Stop { stop_at, abort: false }));
        self.until(|body| match body {
            from_worker::Body::Finished(finished) => {
                Some(serde_json::from_slice(&finished.account).expect("an account"))
            }
            _ => None,
        })
    }

    fn recorded_for(&mut self, seconds: f64) {
        self.until(|body| {
            let from_worker::Body::Report(report) = body else { return None };
            let account: Account = serde_json::from_slice(&report.account).expect("an account");
            (account.captured_seconds > seconds).then_some(())
        });
    }
}

/// Frames, or samples, of each track, and the time at which the last packet begins, as ffprobe has them.
fn probed(path: &Path, track: usize) -> (u64, f64) {
    let output = Command::new("ffprobe")
        .args(["-v", "warning", "-select_streams", &track.to_string()])
        .args(["-show_entries", "packet=pts_time,duration_time", "-of", "csv=p=0"])
        .arg(path)
        .output()
        .expect("ffprobe can be run");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    let times: Vec<f64> = text
        .lines()
        .map(|line| line.split(',').next().and_then(|it| it.parse().ok()).expect("a time"))
        .collect();
    (times.len() as u64, *times.last().expect("packets"))
}

fn check(sound: Sound) {
    let dir = tempfile::Builder::new().prefix("late").tempdir_in("/tmp").expect("a directory");
    let mut daemon = Daemon::begin(dir.path(), sound);
    let origin = daemon.until(|body| match body {
        from_worker::Body::Working(working) => Some(MonoTime::from_nanos(working.origin)),
        _ => None,
    });
    daemon.recorded_for(3.0);
    let stop = SystemClock.now() - LATE;
    let account = daemon.stopped_at(stop.nanos());
    let [cam, mic] = &account.sources[..] else { panic!("two sources: {account:?}") };
    let whole: f64 = stop.since(origin).as_secs_f64();
    let file = Path::new(&account.files[0].path);
    assert_eq!(
        blake3::hash(&std::fs::read(file).expect("the file")).to_hex().as_str(),
        account.files[0].blake3
    );
    let (frames, last) = probed(file, 0);
    // Stamps are kept in ticks of 100 µs.
    assert!(last <= whole + 0.0002, "a frame of {last} s after the stop at {whole} s");
    assert!(last >= whole - 0.1, "frames before the stop stay: {last} of {whole}");
    assert_eq!(frames, cam.receipt.written);
    let (_, last) = probed(file, 1);
    assert!(last <= whole + 0.0002 && last >= whole - 0.2, "a block of {last} s, the stop was at {whole} s");
    let samples = whole * 48_000.0;
    let block = 0.05 * 48_000.0;
    assert!(
        (mic.receipt.written as f64 - samples).abs() < block,
        "{} of {samples}: {mic:?}",
        mic.receipt.written
    );
    assert!((account.files[0].duration_seconds - whole).abs() < 0.1, "{account:?}");
    for SourceReceipt { captured, written, dropped, lost, .. } in [&cam.receipt, &mic.receipt] {
        assert_eq!((*captured, *dropped, *lost), (*written, 0, 0), "{account:?}");
    }
    let info = Command::new("mkvinfo").args(["--ui-language", "en_US"]).arg(file).output().expect("mkvinfo");
    let said = String::from_utf8_lossy(&info.stdout);
    assert!(info.status.success() && !said.contains("Warning") && !said.contains("Error"), "{said}");
    let rot = shutterd::matroska::damage(std::fs::File::open(file).expect("the file")).expect("whole");
    assert_eq!(rot.places, [], "no checksum is of what was taken out");
    // What was taken out can't be read from the disk either: an image's marker appears once per frame.
    let bytes = std::fs::read(file).expect("the file");
    let images = bytes.windows(3).filter(|window| *window == [0xFF, 0xD8, 0xFF]).count();
    assert_eq!(images as u64, frames, "images in the file's bytes");
}

#[test]
fn what_was_captured_after_a_stop_that_came_late_is_in_no_file() {
    check(Sound::Flac);
}

#[test]
fn pcm_after_a_stop_that_came_late_is_in_no_file() {
    check(Sound::Pcm);
}

#[test]
fn a_file_in_which_everything_was_captured_after_the_stop_is_none() {
    for seconds in [0.0, 1.0] {
        let dir = tempfile::Builder::new().prefix("late").tempdir_in("/tmp").expect("a directory");
        let mut daemon = Daemon::begin(dir.path(), Sound::Flac);
        let origin = daemon.until(|body| match body {
            from_worker::Body::Working(working) => Some(working.origin),
            _ => None,
        });
        daemon.recorded_for(seconds);
        // Stamps are kept in ticks of 100 µs.
        let account = daemon.stopped_at(origin - 1_000_000);
        assert!(account.files.is_empty(), "{account:?}");
        for source in &account.sources {
            let SourceReceipt { captured, written, dropped, lost, .. } = source.receipt;
            assert_eq!((captured, written, dropped, lost), (0, 0, 0, 0), "{account:?}");
        }
        let entries = std::fs::read_dir(dir.path().join("late")).expect("the session's directory");
        let names: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
        assert_eq!(names, [".account.json"]);
    }
}

/// The file can't be finished: what is durable of it is made whole, what isn't goes into the next file, and what
/// came after the stop into none.
fn check_when_it_cannot_be_finished(sync_interval: Duration, failing: &str) {
    let dir = tempfile::Builder::new().prefix("late").tempdir_in("/tmp").expect("a directory");
    let mut daemon = Daemon::begin_syncing(dir.path(), Sound::Flac, sync_interval);
    let origin = daemon.until(|body| match body {
        from_worker::Body::Working(working) => Some(MonoTime::from_nanos(working.origin)),
        _ => None,
    });
    daemon.recorded_for(3.7);
    let Some(_tracer) = Tracer::hold_thread(daemon.worker.id(), "record", &[failing]) else { return };
    let stop = SystemClock.now() - LATE;
    let account = daemon.stopped_at(stop.nanos());
    let whole = stop.since(origin).as_secs_f64();
    for (track, (source, rate)) in account.sources.iter().zip([30.0, 48_000.0]).enumerate() {
        let SourceReceipt { captured, written, dropped, lost, .. } = source.receipt;
        assert_eq!((captured, dropped, lost), (written, 0, 0), "{account:?}");
        // The frame that begins before the stop belongs to it, sound is cut to its block; a source may begin late.
        let late = written as f64 - whole * rate;
        assert!(late < rate * 0.05 + 1.0 && late > -0.3 * rate, "{written} in {whole} s: {account:?}");
        let mut kept = 0;
        for file in &account.files {
            let path = Path::new(&file.path);
            kept += probed(path, track).0;
            let bytes = std::fs::read(path).expect("the file");
            let rot = shutterd::matroska::damage(std::io::Cursor::new(&bytes)).expect("whole");
            assert!(rot.places.is_empty(), "{rot:?}");
            assert_eq!(blake3::hash(&bytes).to_hex().as_str(), file.blake3);
        }
        if rate < 100.0 {
            assert_eq!(kept, written, "frames in the files");
        }
    }
    let bytes: Vec<u8> =
        account.files.iter().flat_map(|file| std::fs::read(&file.path).expect("the file")).collect();
    let images = bytes.windows(3).filter(|window| *window == [0xFF, 0xD8, 0xFF]).count();
    assert_eq!(images as u64, account.sources[0].receipt.written, "images in the files' bytes");
}

#[test]
fn after_a_stop_that_came_late_a_failed_sync_loses_nothing_that_was_not_durable() {
    check_when_it_cannot_be_finished(Duration::from_secs(60), "fdatasync:error=EIO:when=1");
}

#[test]
fn after_a_stop_that_came_late_a_failed_sync_keeps_both_halves() {
    check_when_it_cannot_be_finished(Duration::from_secs(2), "fdatasync:error=EIO:when=1");
}

#[test]
fn what_came_after_a_late_stop_and_cannot_be_taken_out_at_first_is_taken_out_of_what_is_made_whole() {
    check_when_it_cannot_be_finished(Duration::from_millis(100), "pwrite64:error=EIO:when=1..3");
}
