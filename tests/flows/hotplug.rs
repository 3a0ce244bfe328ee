//! Devices that go and come back while a session records them: that they are there again is noticed, not found
//! out by the next try.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::task::JoinHandle;

use crate::agent::{Agent, eventually, session, until, worker_state};
use crate::media::check;
use crate::site::{Site, camera, microphone};

/// Between two pictures of the program that writes into the pipe.
const EACH: Duration = Duration::from_millis(33);

fn fifo(site: &Site) -> PathBuf {
    site.dir().join("program.pipe")
}

fn make_fifo(site: &Site) {
    rustix::fs::mkfifoat(rustix::fs::CWD, fifo(site), rustix::fs::Mode::RWXU).expect("a pipe");
}

/// Pictures of a synthetic camera.
async fn pictures() -> Vec<u8> {
    let site = Site::new("", &[camera("cam")]);
    let agent = Agent::serve(&site).await;
    agent.start(session("s", &["cam"])).await.expect("it starts");
    agent.recorded("s", 10, 0).await;
    let receipt = agent.stop("s").await.expect("it stops").receipt.expect("its receipt");
    let args =
        ["-v", "error", "-i", &receipt.files[0].path, "-c", "copy", "-frames:v", "1", "-f", "mjpeg", "-"];
    let output = std::process::Command::new("ffmpeg").args(args).output().expect("ffmpeg can be run");
    assert!(output.stdout.len() > 100, "a picture");
    output.stdout
}

/// A program that writes a picture again and again into the pipe, until it is aborted.
fn program(site: &Arc<Site>, picture: Vec<u8>) -> JoinHandle<()> {
    let path = fifo(site);
    tokio::spawn(async move {
        let mut due = tokio::time::interval(EACH);
        let mut pipe = loop {
            // One without a reader is not opened, so that the task can be aborted.
            match fs::OpenOptions::new().write(true).custom_flags(nonblocking()).open(&path) {
                Ok(file) => break tokio::net::unix::pipe::Sender::from_file(file).expect("it is a pipe"),
                Err(_) => {
                    due.tick().await;
                }
            }
        };
        loop {
            pipe.write_all(&picture).await.expect("somebody reads");
            due.tick().await;
        }
    })
}

fn nonblocking() -> i32 {
    rustix::fs::OFlags::NONBLOCK.bits().cast_signed()
}

#[tokio::test]
async fn a_pipe_that_is_made_anew_is_noticed_tried_at_once_and_read_in_its_track() {
    let picture = pictures().await;
    let site = Site::new("log.level = \"debug\"", &[microphone("mic")]);
    let config = site.dir().join("flow.toml");
    let text = fs::read_to_string(&config).expect("the config");
    let path = fifo(&site).display().to_string();
    let device =
        format!("[[devices]]\nid = \"program\"\nkind = \"pipe\"\nmedia = \"video\"\npath = \"{path}\"\n");
    fs::write(&config, text + &device).expect("it can be changed");
    make_fifo(&site);
    let agent = Agent::serve(&site).await;
    let writing = program(&site, picture.clone());
    agent.start(session("s", &["program", "mic"])).await.expect("it starts");
    agent.recorded("s", 10, 10_000).await;
    writing.abort();
    // Something else in its place: the source is lost, and every try fails.
    fs::remove_file(fifo(&site)).expect("it is there");
    fs::write(fifo(&site), "no pipe").expect("a file");
    let mut events = agent.watch("s").await;
    until(&mut events, |event| worker_state(event.session.as_ref()) == "degraded").await;
    eventually("it is tried in vain", || site.log().contains("is no FIFO")).await;
    let tried = || site.log().matches("devices have changed: a lost one is tried at once").count();
    let before = tried();
    fs::remove_file(fifo(&site)).expect("it is there");
    make_fifo(&site);
    eventually("it is tried at once", || tried() > before).await;
    let writing = program(&site, picture);
    until(&mut events, |event| worker_state(event.session.as_ref()) == "working").await;
    agent.recorded("s", 20, 20_000).await;
    let receipt = agent.stop("s").await.expect("it stops").receipt.expect("its receipt");
    writing.abort();
    let source = &receipt.sources[0];
    assert_eq!((source.gaps.len(), source.restarts, receipt.files.len()), (1, 1, 1), "{receipt:?}");
    assert_eq!(source.gaps[0].reason, "lost", "{source:?}");
    assert!(receipt.sources[1].gaps.is_empty(), "sound goes on: {receipt:?}");
    check(&site, &receipt);
}
