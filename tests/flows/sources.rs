//! Sources that stall, vanish, come back and end: the session goes on, and the receipt says where
//! something is missing.

use std::path::Path;

use shutterd::api::proto::SessionEvent;
use tonic::Code;

use crate::agent::{Agent, refusal, session, until, worker_state};
use crate::media::{check, finds_nothing_wrong};
use crate::site::{Site, camera, faulty_camera, faulty_microphone, microphone};

fn is(wanted: &'static str) -> impl Fn(&SessionEvent) -> bool {
    move |event| worker_state(event.session.as_ref()) == wanted
}

#[tokio::test]
async fn a_camera_that_stalls_degrades_the_session_until_it_is_back() {
    let stalls = r#"{ at_frame = 30, frames = 60, fault = "stall" }"#;
    let site = Site::new("", &[faulty_camera("cam", stalls), microphone("mic")]);
    let agent = Agent::serve(&site).await;
    agent.start(session("s", &["cam", "mic"])).await.expect("it starts");
    let mut events = agent.watch("s").await;
    let degraded = until(&mut events, is("degraded")).await;
    let progress = degraded.progress.expect("it captures");
    assert_eq!(progress.sources[0].state, "degraded");
    assert!(!progress.sources[0].reason.is_empty());
    assert_eq!(progress.sources[1].state, "working", "a stalled source holds up no other");
    until(&mut events, is("working")).await;
    agent.recorded("s", 40, 48_000).await;
    let receipt = agent.stop("s").await.expect("it stops").receipt.expect("its receipt");
    let camera = &receipt.sources[0];
    assert_eq!((camera.gaps.len(), camera.restarts), (1, 0), "{camera:?}");
    let gap = &camera.gaps[0];
    assert_eq!((gap.reason.as_str(), gap.missed, camera.missed), ("stalled", 60, 60));
    assert!((1.9..2.2).contains(&gap.duration_seconds), "{gap:?}");
    assert!((0.8..1.2).contains(&gap.start_seconds), "{gap:?}");
    assert!(receipt.sources[1].gaps.is_empty(), "{receipt:?}");
    check(&site, &receipt);
}

#[tokio::test]
async fn a_camera_that_vanishes_is_opened_anew_when_it_is_back() {
    let vanishes = r#"{ at_frame = 30, frames = 45, fault = "vanish" }"#;
    let site = Site::new("", &[faulty_camera("cam", vanishes), microphone("mic")]);
    let agent = Agent::serve(&site).await;
    agent.start(session("s", &["cam", "mic"])).await.expect("it starts");
    let mut events = agent.watch("s").await;
    until(&mut events, is("degraded")).await;
    until(&mut events, is("working")).await;
    agent.recorded("s", 40, 48_000).await;
    let receipt = agent.stop("s").await.expect("it stops").receipt.expect("its receipt");
    let camera = &receipt.sources[0];
    assert!(camera.restarts >= 1 && camera.gaps.len() == 1, "{camera:?}");
    assert_eq!(camera.gaps[0].reason, "lost");
    assert!((1.4..3.0).contains(&camera.gaps[0].duration_seconds), "{camera:?}");
    assert!(receipt.sources[1].gaps.is_empty(), "{receipt:?}");
    check(&site, &receipt);
}

#[tokio::test]
async fn a_microphone_that_stalls_leaves_counted_silence() {
    let stalls = r#"{ at_frame = 100, frames = 100, fault = "stall" }"#;
    let site = Site::new("", &[camera("cam"), faulty_microphone("mic", stalls)]);
    let agent = Agent::serve(&site).await;
    agent.start(session("s", &["cam", "mic"])).await.expect("it starts");
    agent.recorded("s", 60, 72_000).await;
    let receipt = agent.stop("s").await.expect("it stops").receipt.expect("its receipt");
    let sound = &receipt.sources[1];
    assert_eq!(sound.filled, 48_000, "a second of silence: {sound:?}");
    assert_eq!((sound.gaps.len(), sound.gaps[0].missed), (1, 48_000), "{sound:?}");
    assert_eq!((sound.lost, sound.dropped), (0, 0));
    check(&site, &receipt);
}

#[tokio::test]
async fn a_stop_while_a_camera_is_lost_is_a_stop_like_any_other() {
    let vanishes = r#"{ at_frame = 30, frames = 1000000, fault = "vanish" }"#;
    let site = Site::new("", &[faulty_camera("cam", vanishes), microphone("mic")]);
    let agent = Agent::serve(&site).await;
    agent.start(session("s", &["cam", "mic"])).await.expect("it starts");
    agent.until("s", is("degraded")).await;
    let receipt = agent.stop("s").await.expect("it stops").receipt.expect("its receipt");
    assert_eq!((receipt.end_reason.as_str(), receipt.forced), ("stop_requested", false));
    assert_eq!(receipt.sources[0].captured, 30);
    let gaps = &receipt.sources[0].gaps;
    assert_eq!(
        (gaps.len(), gaps[0].reason.as_str()),
        (1, "lost"),
        "what is missing at the end is told: {gaps:?}"
    );
    assert!(receipt.warnings.iter().any(|warning| warning.contains("Camera cam")), "{receipt:?}");
    check(&site, &receipt);
}

#[tokio::test]
async fn a_session_all_of_whose_sources_are_lost_for_too_long_ends() {
    let vanishes = r#"{ at_frame = 30, frames = 1000000, fault = "vanish" }"#;
    let site = Site::new("limits.source_lost_after_ms = 1000", &[faulty_camera("cam", vanishes)]);
    let agent = Agent::serve(&site).await;
    agent.start(session("s", &["cam"])).await.expect("it starts");
    let receipt = agent.finished("s").await.receipt.expect("its receipt");
    assert_eq!((receipt.end_reason.as_str(), receipt.forced), ("source_lost", false));
    assert_eq!(receipt.sources[0].written, 30);
    check(&site, &receipt);
}

#[tokio::test]
async fn a_replay_gives_what_was_recorded_and_ends_with_it() {
    let site = Site::new("", &[camera("cam")]);
    let agent = Agent::serve(&site).await;
    agent.start(session("s", &["cam"])).await.expect("it starts");
    agent.recorded("s", 30, 0).await;
    let recorded = agent.stop("s").await.expect("it stops").receipt.expect("its receipt");
    let path = &recorded.files[0].path;
    let device =
        format!("[[devices]]\nid = \"again\"\nkind = \"replay\"\nmedia = \"video\"\npath = \"{path}\"\n");
    let site = Site::new("", &[device]);
    let again = Agent::serve(&site).await;
    again.start(session("s", &["again"])).await.expect("it starts");
    let receipt = again.finished("s").await.receipt.expect("its receipt");
    assert_eq!((receipt.end_reason.as_str(), receipt.forced), ("source_lost", false));
    assert_eq!(receipt.sources[0].written, recorded.sources[0].written);
    check(&site, &receipt);
}

#[tokio::test]
async fn what_a_program_writes_into_a_pipe_is_in_the_file_byte_for_byte() {
    let site = Site::unshared("", &[]);
    let fifo = site.dir().join("camera.mjpeg");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).expect("a pipe");
    let device = format!(
        "[[devices]]\nid = \"program\"\nkind = \"pipe\"\nmedia = \"video\"\npath = \"{}\"\n",
        fifo.display()
    );
    let config = site.dir().join("flow.toml");
    let text = std::fs::read_to_string(&config).expect("the config");
    std::fs::write(&config, text + &device).expect("the config can be changed");
    let site = std::sync::Arc::new(site);
    let fed = fed(&["-f", "lavfi", "-i", "testsrc2=size=320x240:rate=20:duration=2"], "mjpeg");
    let agent = Agent::serve(&site).await;
    let writer = {
        let fed = fed.clone();
        // Opening a pipe waits for its reader.
        tokio::task::spawn_blocking(move || std::fs::write(fifo, fed))
    };
    agent.start(session("s", &["program"])).await.expect("it starts");
    writer.await.expect("the writer ran").expect("the pipe takes everything");
    agent.recorded("s", 40, 0).await;
    let receipt = agent.stop("s").await.expect("it stops").receipt.expect("its receipt");
    assert_eq!((receipt.sources[0].captured, receipt.sources[0].timestamp_source.as_str()), (40, "arrival"));
    check(&site, &receipt);
    assert!(
        fed == self::fed(&["-i", &receipt.files[0].path], "copy"),
        "the pictures are those that were fed"
    );
}

/// The sizes of the pictures of a file, as ffprobe reads them from the pictures and not from the header.
fn sizes(path: &str) -> Vec<String> {
    let args =
        ["-v", "error", "-select_streams", "v:0", "-show_entries", "frame=width,height", "-of", "csv=p=0"];
    let output = finds_nothing_wrong("ffprobe", &args, Path::new(path));
    let mut sizes: Vec<String> = String::from_utf8_lossy(&output).lines().map(str::to_owned).collect();
    sizes.dedup();
    sizes
}

#[tokio::test]
async fn a_device_that_comes_back_in_another_format_goes_on_in_a_new_file() {
    let change = |at_frame: u64| format!("{{ at_frame = {at_frame}, frames = 5, fault = \"change\" }}");
    let devices = [faulty_camera("cam", &change(40)), faulty_microphone("mic", &change(250))];
    let agent = Agent::serve(&Site::new("", &devices)).await;
    agent.start(session("s", &["cam", "mic"])).await.expect("it starts");
    agent.recorded("s", 90, 48_000 * 3).await;
    let receipt = agent.stop("s").await.expect("it stops").receipt.expect("its receipt");
    assert_eq!(receipt.end_reason, "stop_requested");
    let found: Vec<_> = receipt.files.iter().map(|file| sizes(&file.path)).collect();
    assert_eq!(found, [["320,180"], ["160,90"], ["160,90"]], "{receipt:?}");
    for source in &receipt.sources {
        assert_eq!((source.lost, source.dropped, source.restarts), (0, 0, 1), "{source:?}");
        let reasons: Vec<_> = source.gaps.iter().map(|gap| gap.reason.as_str()).collect();
        assert_eq!(reasons, ["lost"], "{source:?}");
    }
    assert_eq!(receipt.sources[0].format, "MJPG 160x90 at 30.00/s");
    assert!(receipt.sources[1].format.contains("24000 Hz"), "{receipt:?}");
    check(&agent.site, &receipt);
}

#[tokio::test]
async fn a_program_that_writes_pictures_of_another_size_begins_a_new_file() {
    let site = Site::unshared("", &[]);
    let fifo = site.dir().join("camera.mjpeg");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).expect("a pipe");
    let path = fifo.display();
    let device =
        format!("[[devices]]\nid = \"program\"\nkind = \"pipe\"\nmedia = \"video\"\npath = \"{path}\"\n");
    let config = site.dir().join("flow.toml");
    let text = std::fs::read_to_string(&config).expect("the config");
    std::fs::write(&config, text + &device).expect("the config can be changed");
    let agent = Agent::serve(&std::sync::Arc::new(site)).await;
    let pictures = |size: &str| {
        fed(&["-f", "lavfi", "-i", &format!("testsrc2=size={size}:rate=20:duration=1")], "mjpeg")
    };
    let both = [pictures("320x240"), pictures("160x120")].concat();
    let writer = {
        let both = both.clone();
        tokio::task::spawn_blocking(move || std::fs::write(fifo, both))
    };
    agent.start(session("s", &["program"])).await.expect("it starts");
    writer.await.expect("the writer ran").expect("the pipe takes everything");
    agent.recorded("s", 40, 0).await;
    let receipt = agent.stop("s").await.expect("it stops").receipt.expect("its receipt");
    let found: Vec<_> = receipt.files.iter().map(|file| sizes(&file.path)).collect();
    assert_eq!(found, [["320,240"], ["160,120"]], "{receipt:?}");
    assert_eq!((receipt.sources[0].captured, receipt.sources[0].written), (40, 40));
    check(&agent.site, &receipt);
    let kept: Vec<u8> = receipt.files.iter().flat_map(|file| fed(&["-i", &file.path], "copy")).collect();
    assert!(kept == both, "the pictures are those that were fed");
}

#[tokio::test]
async fn a_pipe_has_one_reader_at_a_time_whatever_it_is_called() {
    let site = Site::unshared("", &[]);
    let (fifo, link) = (site.dir().join("samples"), site.dir().join("link"));
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).expect("a pipe");
    std::os::unix::fs::symlink(&fifo, &link).expect("another way to it");
    let config = site.dir().join("flow.toml");
    let mut text = std::fs::read_to_string(&config).expect("the config");
    for (id, path) in [("mic1", &fifo), ("mic2", &fifo), ("mic3", &link)] {
        let path = path.display();
        text +=
            &format!("[[devices]]\nid = \"{id}\"\nkind = \"pipe\"\nmedia = \"audio\"\npath = \"{path}\"\n");
    }
    std::fs::write(&config, text).expect("the config can be changed");
    let agent = Agent::serve(&std::sync::Arc::new(site)).await;
    // As much as a pipe takes at once; opening it waits for its reader.
    let write = |path: &Path| {
        let path = path.to_owned();
        tokio::task::spawn_blocking(move || std::fs::write(path, vec![1; 48_000]))
    };
    let written = write(&fifo);
    agent.start(session("s", &["mic1"])).await.expect("it starts");
    written.await.expect("the writer ran").expect("the pipe takes it");
    for (device, holder) in [("mic2", "s"), ("mic3", "another process")] {
        let refused = agent.start_soon(session("t", &[device])).await.expect_err("the pipe is being read");
        let (code, reason, about) = refusal(&refused);
        assert_eq!((code, reason.as_str()), (Code::FailedPrecondition, "DEVICE_BUSY"), "{refused:?}");
        assert_eq!(about.get("holder").map(String::as_str), Some(holder), "{refused:?}");
    }
    agent.recorded("s", 0, 20_000).await;
    let receipt = agent.stop("s").await.expect("it stops").receipt.expect("its receipt");
    assert_eq!(receipt.sources[0].captured, 24_000, "no sample went elsewhere");
    let written = write(&link);
    agent.start(session("next", &["mic3"])).await.expect("the pipe is free");
    written.await.expect("the writer ran").expect("the pipe takes it");
}

/// A stream of pictures by ffmpeg.
fn fed(input: &[&str], codec: &str) -> Vec<u8> {
    let output = std::process::Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error"])
        .args(input)
        .args(["-c:v", codec, "-f", "mjpeg", "-"])
        .output()
        .expect("ffmpeg can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
