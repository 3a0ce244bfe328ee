//! Microphones through the real cpal and ALSA, without a sound card and without a server: ALSA's
//! `file` plugin reads its samples from a FIFO that a thread of the test fills at the pace of a clock.
//!
//! ALSA reads `ALSA_CONFIG_PATH` once a process, so each test runs itself again as a child that has it.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use shutterd::clock::{Clock, MonoTime, SystemClock};
use shutterd::device::{self, Device, DeviceError, Wake};
use shutterd::link::ProbeLine;
use shutterd::media::{AudioFormat, Body, Format, SampleFormat};
use shutterd::session::device::{Address, DeviceKey, DeviceSpec, FormatWish, MediaType};

/// Set in a child: the directory with the FIFO.
const CHILD_DIR: &str = "SHUTTERD_TEST_MICROPHONE_DIR";
const RATE: u32 = 48_000;
const PERIOD: Duration = Duration::from_millis(100);
const PERIOD_SAMPLES: u16 = 4800;

#[test]
fn samples_come_out_as_they_went_in() {
    in_child("samples_come_out_as_they_went_in", |dir| {
        let player = Player::start(dir);
        let mut microphone = open("testmic", mono()).expect("the microphone opens");
        let expected = AudioFormat {
            sample: SampleFormat::S16,
            sample_rate: RATE,
            channels: 1,
            period_samples: u32::from(PERIOD_SAMPLES),
        };
        assert_eq!(microphone.format(), Format::Audio(expected));
        player.play_for(microphone.as_mut());
        let heard = hear(microphone.as_mut(), 2 * RATE as usize + 1000);
        let breaks = heard
            .samples
            .windows(2)
            .filter(|pair| pair[1] as i16 != (pair[0] as i16).wrapping_add(1))
            .count();
        assert_eq!(breaks, 0, "the ramp that was played is the ramp that was heard");
        assert!(heard.samples.iter().all(|sample| i16::try_from(*sample).is_ok()));
        microphone.close().expect("the microphone closes");
    });
}

#[test]
fn timestamps_go_at_the_pace_of_the_samples() {
    in_child("timestamps_go_at_the_pace_of_the_samples", |dir| {
        let player = Player::start(dir);
        let mut microphone = open("testmic", mono()).expect("the microphone opens");
        let before = SystemClock.now();
        player.play_for(microphone.as_mut());
        let heard = hear(microphone.as_mut(), 2 * RATE as usize);
        let (first, last) = (heard.stamps[0], heard.stamps[heard.stamps.len() - 1]);
        assert!(heard.stamps.is_sorted_by(|a, b| a < b), "timestamps rise");
        assert!(
            before < first + Duration::from_secs(1) && last <= SystemClock.now(),
            "timestamps are those of the monotonic clock"
        );
        let by_count = PERIOD * u32::try_from(heard.stamps.len() - 1).expect("some hundred periods");
        let by_stamps = last - first;
        let off = by_count.abs_diff(by_stamps);
        assert!(off < by_count / 4, "{by_count:?} of samples, {by_stamps:?} of timestamps");
        microphone.close().expect("the microphone closes");
    });
}

#[test]
fn a_silent_device_gives_nothing_until_the_deadline() {
    in_child("a_silent_device_gives_nothing_until_the_deadline", |dir| {
        let player = Player::start(dir);
        let mut microphone = open("testmic", mono()).expect("the microphone opens");
        player.play_for(microphone.as_mut());
        hear(microphone.as_mut(), usize::from(PERIOD_SAMPLES));
        player.pause();
        let silent = loop {
            let deadline = SystemClock.now() + Duration::from_millis(300);
            match microphone.next(deadline) {
                Ok(Some(_)) => {}
                Ok(None) => break SystemClock.now() >= deadline,
                Err(error) => panic!("silence is no error: {error}"),
            }
        };
        assert!(silent, "without a bell the wait lasts until its deadline");
        player.play();
        hear(microphone.as_mut(), usize::from(PERIOD_SAMPLES));
        microphone.close().expect("the microphone closes");
    });
}

#[test]
fn a_bell_ends_the_wait() {
    in_child("a_bell_ends_the_wait", |dir| {
        let player = Player::start(dir);
        let wake = Wake::new().expect("an eventfd");
        let mut microphone = device::open(&spec("testmic", mono()), &wake).expect("the microphone opens");
        player.play_for(microphone.as_mut());
        player.pause();
        let deadline = SystemClock.now() + Duration::from_secs(60);
        while microphone.next(SystemClock.now() + Duration::from_millis(300)).expect("no error").is_some() {}
        wake.ring();
        assert!(microphone.next(deadline).expect("no error").is_none());
        assert!(SystemClock.now() < deadline);
        player.play();
    });
}

#[test]
fn a_device_that_is_stuck_is_given_up_with_a_name() {
    in_child("a_device_that_is_stuck_is_given_up_with_a_name", |dir| {
        let player = Player::start(dir);
        let mut microphone = open("testmic", mono()).expect("the microphone opens");
        player.play_for(microphone.as_mut());
        hear(microphone.as_mut(), usize::from(PERIOD_SAMPLES));
        player.pause();
        while microphone.next(SystemClock.now() + Duration::from_millis(300)).expect("no error").is_some() {}
        // cpal's thread hangs in the plugin's read of the FIFO now.
        let before = Instant::now();
        let error = microphone.close().expect_err("the plugin does not let go");
        assert!(before.elapsed() < Duration::from_secs(10));
        assert!(matches!(error, DeviceError::Failed { doing: "closing", .. }), "{error:?}");
        assert!(error.to_string().contains("testmic"), "{error}");
    });
}

#[test]
fn a_microphone_that_is_not_there_is_missing_by_name() {
    in_child("a_microphone_that_is_not_there_is_missing_by_name", |_| {
        for pcm in ["nosuchmic", "hw:CARD=NoSuchCard,DEV=0"] {
            let error = open(pcm, FormatWish::default()).err().expect("there is no such microphone");
            assert!(matches!(error, DeviceError::Missing { .. }), "{error:?}");
            assert!(error.to_string().contains(pcm), "{error}");
        }
    });
}

#[test]
fn a_format_that_the_device_lacks_is_an_error_that_names_both() {
    in_child("a_format_that_the_device_lacks_is_an_error_that_names_both", |_| {
        for (rate, channels, expected) in
            [(2_000_000, 1, "2000000 Hz, 1 channels"), (RATE, 2, "48000 Hz, 2 channels")]
        {
            let wish =
                FormatWish { sample_rate: Some(rate), channels: Some(channels), ..FormatWish::default() };
            let error = open("monomic", wish).err().expect("the device has no such format");
            let DeviceError::Format { device, wanted, offered } = &error else { panic!("{error:?}") };
            assert_eq!((device.as_str(), wanted.as_str()), ("Desk (monomic)", expected));
            assert_eq!(offered, "4000 to 768000 Hz, 1 channels");
        }
    });
}

#[test]
fn a_device_that_gives_floats_only_is_a_format_error() {
    in_child("a_device_that_gives_floats_only_is_a_format_error", |_| {
        let error = open("floatmic", FormatWish::default()).err().expect("floats are not taken");
        let DeviceError::Format { offered, .. } = &error else { panic!("{error:?}") };
        assert!(offered.contains("plughw"), "{offered}");
    });
}

#[test]
fn a_defined_microphone_is_found_and_the_plugins_of_alsa_are_not() {
    in_child("a_defined_microphone_is_found_and_the_plugins_of_alsa_are_not", |_| {
        let found = Mutex::new(Vec::new());
        let tell = |line| match line {
            ProbeLine::Answered { devices, .. } => found.lock().expect("no test panics here").extend(devices),
            ProbeLine::Asking { .. } | ProbeLine::Complete => {}
        };
        device::search(tell).expect("this host has a /dev");
        let found = found.into_inner().expect("no test panics here");
        let microphones: Vec<_> = found.iter().filter(|found| found.media == MediaType::Audio).collect();
        let own = microphones.iter().find(|found| found.node == "testmic").expect("the microphone is listed");
        assert_eq!((own.key.0.as_str(), own.name.as_str()), ("microphone:testmic", "Test microphone"));
        for junk in ["null", "default", "pulse", "hiddenmic"] {
            assert!(microphones.iter().all(|found| found.node != junk), "{junk} is listed");
        }
    });
}

struct Heard {
    samples: Vec<i32>,
    stamps: Vec<MonoTime>,
}

/// Reads until there are `count` samples.
fn hear(microphone: &mut dyn Device, count: usize) -> Heard {
    let mut heard = Heard { samples: Vec::new(), stamps: Vec::new() };
    while heard.samples.len() < count {
        let frame = microphone.next(SystemClock.now() + Duration::from_secs(30));
        let frame = frame.expect("no error").expect("sound within half a minute");
        assert_eq!(frame.sequence, None);
        let Body::Sound(samples) = frame.body else { panic!("a microphone makes sound") };
        heard.samples.extend_from_slice(samples);
        heard.stamps.push(frame.timestamp);
    }
    heard
}

fn open(pcm: &str, wish: FormatWish) -> Result<Box<dyn Device>, DeviceError> {
    device::open(&spec(pcm, wish), &Wake::new().expect("an eventfd"))
}

fn mono() -> FormatWish {
    FormatWish { channels: Some(1), ..FormatWish::default() }
}

fn spec(pcm: &str, wish: FormatWish) -> DeviceSpec {
    DeviceSpec {
        key: DeviceKey(format!("microphone:{pcm}")),
        label: "Desk".to_owned(),
        media: MediaType::Audio,
        address: Address::Microphone { pcm: pcm.to_owned() },
        wish,
    }
}

/// Runs `body` in a child process whose ALSA knows the microphone `testmic`.
fn in_child(test: &str, body: impl FnOnce(&Path)) {
    if let Some(dir) = std::env::var_os(CHILD_DIR) {
        return body(Path::new(&dir));
    }
    let dir = tempfile::tempdir().expect("a directory for the FIFO");
    let config = write_config(dir.path());
    let output = Command::new(std::env::current_exe().expect("the test has a path"))
        .args(["--exact", test, "--nocapture"])
        .env(CHILD_DIR, dir.path())
        .env("ALSA_CONFIG_PATH", config)
        .output()
        .expect("the test can run itself");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{}\n{stdout}\n{stderr}", output.status);
    assert!(stdout.contains("1 passed"), "the child ran another test than {test}:\n{stdout}");
}

fn write_config(dir: &Path) -> PathBuf {
    let fifo = dir.join("microphone.fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO");
    let config = dir.join("alsa.conf");
    let text = format!(
        r#"</usr/share/alsa/alsa.conf>
pcm.hiddenmic {{ type null }}
pcm.monomic {{
    type multi
    slaves.a {{ pcm "null" channels 1 }}
    bindings.0 {{ slave a channel 0 }}
    hint {{ show on description "Mono microphone" }}
}}
pcm.floatmic {{
    type lfloat
    slave {{ pcm "null" format S16_LE }}
    hint {{ show on description "Float microphone" }}
}}
pcm.testmic {{
    type file
    slave.pcm "null"
    file "/dev/null"
    infile "{}"
    format "raw"
    hint {{ show on description "Test microphone" }}
}}
"#,
        fifo.display()
    );
    std::fs::write(&config, text).expect("a place for the configuration");
    config
}

/// Plays a counting ramp into the FIFO: a period each 100 ms, none of them lost. Periods are
/// written whole: the plugin makes up what a read of the FIFO falls short of.
struct Player {
    is_playing: Arc<AtomicBool>,
}

impl Player {
    fn start(dir: &Path) -> Self {
        // Open for both, so that opening never waits for a reader and the reader never sees an end.
        let fifo = OpenOptions::new()
            .read(true)
            .write(true)
            .open(dir.join("microphone.fifo"))
            .expect("the FIFO opens");
        let is_playing = Arc::new(AtomicBool::new(false));
        let player = Self { is_playing: is_playing.clone() };
        // Ends with the child process: a write into a full FIFO can't be waited out otherwise.
        thread::Builder::new()
            .name("player".to_owned())
            .spawn(move || play(fifo, &is_playing))
            .expect("a thread");
        player
    }

    /// From the beginning, so that nothing waits in the FIFO that is older than the capture: cpal's start
    /// can already wait for sound.
    fn play_for(&self, microphone: &mut dyn Device) {
        self.play();
        microphone.start().expect("the microphone starts");
    }

    fn pause(&self) {
        self.is_playing.store(false, Ordering::Relaxed);
    }

    fn play(&self) {
        self.is_playing.store(true, Ordering::Relaxed);
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this thread is the device's clock: it sleeps to points of time"
)]
fn play(mut fifo: File, is_playing: &AtomicBool) {
    let (mut next, mut count) = (Instant::now(), 0u16);
    loop {
        if is_playing.load(Ordering::Relaxed) {
            let samples = (0..PERIOD_SAMPLES).flat_map(|n| count.wrapping_add(n).to_ne_bytes());
            fifo.write_all(&samples.collect::<Vec<u8>>()).expect("the FIFO stays open");
            count = count.wrapping_add(PERIOD_SAMPLES);
        }
        next += PERIOD;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}
