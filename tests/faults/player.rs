//! Programs that write into a pipe, which is a camera or a microphone to shutterd.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use shutterd::codec::jpeg::Splitter;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::agent::send;
use crate::site::{SITE_VARIABLE, Site};

/// A site with these devices and one more, `id`, which reads a pipe.
pub fn piped(id: &str, media: &str, devices: &[String]) -> Arc<Site> {
    let site = Site::new("", devices);
    rustix::fs::mkfifoat(rustix::fs::CWD, pipe(&site), rustix::fs::Mode::RWXU).expect("a pipe");
    let config = site.dir().join("flow.toml");
    let text = std::fs::read_to_string(&config).expect("the config");
    let device = format!(
        "[[devices]]\nid = \"{id}\"\nname = \"Piped {id}\"\nkind = \"pipe\"\nmedia = \"{media}\"\npath = \"{}\"\n",
        pipe(&site).display()
    );
    std::fs::write(&config, text + &device).expect("the config can be changed");
    site
}

/// The pipe of such a site.
pub fn pipe(site: &Site) -> PathBuf {
    site.dir().join("pipe")
}

/// A program that plays into the pipe, at its own pace.
pub struct Player(Child);

impl Player {
    /// Pictures of 320x240, so many a second.
    pub fn pictures(site: &Site, rate: u32) -> Self {
        let input = format!("testsrc2=size=320x240:rate={rate}");
        Self::play(site, &input, &["-f", "mjpeg"])
    }

    /// Sound of one channel.
    pub fn sound(site: &Site, input: &str) -> Self {
        Self::play(site, input, &["-ac", "1", "-f", "s16le"])
    }

    fn play(site: &Site, input: &str, output: &[&str]) -> Self {
        let mut command = Command::new("ffmpeg");
        command.args(["-nostdin", "-v", "error", "-y", "-re", "-f", "lavfi", "-i", input]);
        command.args(output).args(["-flush_packets", "1"]).arg(pipe(site));
        command.env(SITE_VARIABLE, site.dir()).stdout(Stdio::null()).kill_on_drop(true);
        Self(command.spawn().expect("ffmpeg can be run"))
    }

    pub fn signal(&self, signal: Signal) {
        send(self.0.id().expect("it was not waited for"), signal);
    }

    /// Ends it.
    pub async fn end(mut self) {
        self.0.kill().await.expect("it can be killed");
    }
}

/// So many different pictures of 320x240.
pub fn pictures(count: u32) -> Vec<Vec<u8>> {
    let input = format!("testsrc2=size=320x240:rate=25:duration={}", f64::from(count) / 25.0);
    let output = std::process::Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-f", "lavfi", "-i", &input, "-f", "mjpeg", "-"])
        .output()
        .expect("ffmpeg can be run");
    let mut splitter = Splitter::new(1 << 20);
    let mut pictures = Vec::new();
    for piece in output.stdout.chunks(4096) {
        splitter.space()[..piece.len()].copy_from_slice(piece);
        splitter.filled(piece.len());
        while let Some(picture) = splitter.pop() {
            pictures.push(picture.to_vec());
        }
    }
    assert_eq!(pictures.len(), count as usize);
    pictures
}

/// Writes pieces into the pipe, each so long after the one before; the writer's end stays open.
pub fn feed(path: &Path, pieces: Vec<(Duration, Vec<u8>)>) -> JoinHandle<tokio::fs::File> {
    let path = path.to_owned();
    tokio::spawn(async move {
        // Opening it waits for its reader.
        let mut pipe = tokio::fs::OpenOptions::new().write(true).open(path).await.expect("the pipe is there");
        let mut due = Instant::now();
        for (after, piece) in pieces {
            due += after;
            sleep_until(due).await;
            pipe.write_all(&piece).await.expect("the pipe takes it");
            pipe.flush().await.expect("the pipe takes it");
        }
        pipe
    })
}
