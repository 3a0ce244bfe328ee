//! A microphone through the real cpal and ALSA, without a sound card: ALSA's `file` plugin reads its
//! samples from a FIFO that a thread of the test fills at the pace of a clock.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use tonic::Code;

use crate::agent::session;
use crate::clip::{decoded, only_file, times};
use crate::host::{Host, assert_refused};
use crate::site::Site;

/// What the agent asks a microphone for at a time: a read of the FIFO that falls short of it is made
/// up by the plugin.
const PERIOD: Duration = Duration::from_millis(100);
const PERIOD_SAMPLES: u16 = 4800;

/// A config of ALSA that knows the microphone `deskmic`.
fn alsa(dir: &Path) -> PathBuf {
    let (fifo, config) = (dir.join("microphone.fifo"), dir.join("alsa.conf"));
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO");
    let text = format!(
        "</usr/share/alsa/alsa.conf>\n\
         pcm.deskmic {{\n type file\n slave.pcm \"null\"\n file \"/dev/null\"\n infile \"{}\"\n format \"raw\"\n \
         hint {{ show on description \"Desk microphone\" }}\n}}\n",
        fifo.display()
    );
    std::fs::write(&config, text).expect("a config of ALSA");
    config
}

/// Plays a counting ramp into the FIFO in pieces of so many samples, as long as it is told to. Its
/// thread ends with this process: a write into a FIFO that is full can't be waited out otherwise.
struct Player {
    is_playing: Arc<AtomicBool>,
}

impl Player {
    fn new(dir: &Path, piece_samples: u16) -> Self {
        let path = dir.join("microphone.fifo");
        let fifo = OpenOptions::new().read(true).write(true).open(path).expect("the FIFO opens");
        let is_playing = Arc::new(AtomicBool::new(false));
        let playing = Arc::clone(&is_playing);
        let thread = std::thread::Builder::new().name("player".to_owned());
        thread.spawn(move || ramp(fifo, piece_samples, &playing)).expect("a thread");
        Self { is_playing }
    }

    fn play(&self) {
        self.is_playing.store(true, Ordering::Relaxed);
    }

    fn pause(&self) {
        self.is_playing.store(false, Ordering::Relaxed);
    }
}

fn ramp(mut fifo: File, piece_samples: u16, is_playing: &AtomicBool) {
    let (mut next, mut count) = (Instant::now(), 0u16);
    let interval = PERIOD * u32::from(piece_samples) / u32::from(PERIOD_SAMPLES);
    loop {
        if is_playing.load(Ordering::Relaxed) {
            let samples = (0..piece_samples).flat_map(|n| count.wrapping_add(n).to_ne_bytes());
            fifo.write_all(&samples.collect::<Vec<u8>>()).expect("the FIFO stays open");
            count = count.wrapping_add(piece_samples);
        }
        // This thread is the device's clock: pausing to points of time is what it is for.
        next += interval;
        std::thread::park_timeout(next.saturating_duration_since(Instant::now()));
    }
}

const DEVICE: &str = "[[devices]]\nid = \"mic-desk\"\nname = \"Desk\"\nkind = \"microphone\"\n\
                      match = { node = \"deskmic\" }\nsample_rate = 48000\nchannels = 1\n";

#[tokio::test]
async fn a_ramp_that_is_played_into_alsa_is_in_the_file_sample_by_sample() {
    let site = Site::new("", &[DEVICE.to_owned()]);
    let config = alsa(site.dir());
    let player = Player::new(site.dir(), PERIOD_SAMPLES);
    let host = Host::serve_with(&site, &[("ALSA_CONFIG_PATH", OsStr::new(&config))]).await;

    let listed = host.devices().await.into_iter().find(|device| device.id == "mic-desk");
    let listed = listed.expect("the microphone is listed under the name that the config gives it");
    assert_eq!(
        (listed.name.as_str(), listed.kind.as_str(), listed.node.as_str()),
        ("Desk", "microphone", "deskmic")
    );
    // By its id, by the name that the config gives it, and by the one that ALSA does.
    for (id, name, device_id) in [("s1", "", "mic-desk"), ("s2", "Desk", ""), ("s3", "Desk microphone", "")] {
        let mut wanted = session(id, &["mic-desk"]);
        (wanted.sources[0].name, wanted.sources[0].device_id) = (name.to_owned(), device_id.to_owned());
        player.play();
        host.start(wanted).await.expect("the session starts");
        let least = if id == "s1" { 96_000 } else { 9_600 };
        host.recorded(id, &[("mic-desk", least)]).await;
        let receipt = host.receipt(id).await;
        player.pause();
        let source = &receipt.sources[0];
        assert_eq!(source.format, "S16 48000 Hz, 1 channels");
        assert_eq!((source.filled, source.missed, source.gaps.len()), (0, 0, 0), "{source:?}");
        let heard = decoded(&only_file(&receipt));
        assert_eq!(heard.len() as u64, source.written);
        let breaks = heard.windows(2).filter(|pair| pair[1] != pair[0].wrapping_add(1)).count();
        assert_eq!(breaks, 0, "the ramp that was played is the ramp in the file");
    }
    let mut wanted = session("s4", &["mic-desk"]);
    wanted.sources[0].device_id = "mic-attic".to_owned();
    let status = host.start_soon(wanted, None).await.expect_err("there is no such microphone");
    assert_refused(
        "the attic",
        &status,
        Code::FailedPrecondition,
        "DEVICE_MISSING",
        &[("device", "mic-attic")],
    );
    host.end().await;
}

#[tokio::test]
async fn a_microphone_that_delivers_more_than_its_rate_never_turns_time_around() {
    let site = Site::new("", &[DEVICE.to_owned()]);
    let config = alsa(site.dir());
    // Each piece is a tenth of a period, and the plugin makes a whole one of it.
    let player = Player::new(site.dir(), PERIOD_SAMPLES / 10);
    let host = Host::serve_with(&site, &[("ALSA_CONFIG_PATH", OsStr::new(&config))]).await;
    player.play();
    host.start(session("s1", &["mic-desk"])).await.expect("the session starts");
    host.recorded("s1", &[("mic-desk", 144_000)]).await;
    let receipt = host.receipt("s1").await;
    let times = times(&only_file(&receipt));
    let turns = times.windows(2).filter(|pair| pair[1] <= pair[0]).count();
    assert_eq!(turns, 0, "of {} blocks", times.len());
    host.end().await;
}
