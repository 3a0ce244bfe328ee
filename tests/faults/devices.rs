//! D: cameras that go, freeze, deliver garbage or are wanted twice. What needs a real driver runs in the
//! virtual machine.

use std::fs::OpenOptions;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::process::Signal;
use shutterd::api::proto::SessionEvent;
use tonic::Code;

use crate::agent::{Agent, refusal, session, until};
use crate::callers::{abort, are_free, race, racing};
use crate::media::finds_nothing_wrong;
use crate::player::{Player, feed, pictures, pipe, piped};
use crate::row::Case::{Here, VirtualMachine};
use crate::row::{Outcome, Row, Stopped};
use crate::scene::{degraded, told_of, warns, works};
use crate::site::{faulty_camera, microphone};

/// The rows of this file.
pub const ROWS: &[Row] = &[
    Row { id: "D1", fault: "cameras that vanish and come back", case: Here(|| Box::pin(d1())) },
    Row { id: "D2", fault: "ENODEV while draining", case: VirtualMachine },
    Row { id: "D3", fault: "a frozen camera", case: Here(|| Box::pin(d3())) },
    Row { id: "D4", fault: "STREAMON, REQBUFS, QBUF fail", case: VirtualMachine },
    Row { id: "D5", fault: "a fatal error of the driver's queue", case: VirtualMachine },
    Row { id: "D6", fault: "garbage and cut pictures", case: Here(|| Box::pin(d6())) },
    Row { id: "D7", fault: "a device that is in use", case: Here(|| Box::pin(d7())) },
    Row { id: "D8", fault: "1000 races for one device", case: Here(|| Box::pin(d8())) },
    Row { id: "D9", fault: "a camera under another /dev/videoN", case: VirtualMachine },
    Row { id: "D11", fault: "a format changed behind our back", case: VirtualMachine },
    Row { id: "D12", fault: "half the frame rate", case: Here(|| Box::pin(d12())) },
    Row { id: "D13", fault: "gaps in the driver's sequence", case: VirtualMachine },
    Row { id: "D14", fault: "sequence and timestamps wrap", case: VirtualMachine },
];

async fn d1() -> Outcome {
    let vanishes = faulty_camera("cam2", r#"{ at_frame = 30, frames = 60, fault = "vanish" }"#);
    let agent = Agent::serve(&piped("cam", "video", &[vanishes, microphone("mic")])).await;
    let player = Player::pictures(&agent.site, 20);
    agent.start(session("s", &["cam", "cam2", "mic"])).await.expect("it starts");
    degraded(&agent, "cam2").await;
    works(&agent, "cam2").await;
    agent.recorded("s", 40, 48_000).await;
    player.end().await;
    let (noticed, reason) = degraded(&agent, "cam").await;
    assert!(noticed < Duration::from_secs(1) && !reason.is_empty(), "{noticed:?}: {reason:?}");
    let player = Player::pictures(&agent.site, 20);
    works(&agent, "cam").await;
    let stopped = Stopped::of(&agent, "s").await;
    player.end().await;
    let [piped, other, sound] = &stopped.receipt.sources[..] else { panic!("{:?}", stopped.receipt) };
    assert_eq!((piped.gaps.len(), other.gaps.len()), (1, 1), "{:?}", stopped.receipt);
    assert!(other.restarts >= 1 && other.gaps[0].reason == "lost", "{other:?}");
    assert!(sound.gaps.is_empty() && sound.lost == 0, "sound goes on: {sound:?}");
    assert_eq!(stopped.receipt.files.len(), 1, "they go on in their tracks");
    stopped.holds_whole(format!("noticed after {} ms; both back in their tracks", noticed.as_millis()))
}

async fn d3() -> Outcome {
    let agent = Agent::serve(&piped("cam", "video", &[microphone("mic")])).await;
    let player = Player::pictures(&agent.site, 20);
    agent.start(session("s", &["cam", "mic"])).await.expect("it starts");
    agent.recorded("s", 30, 48_000).await;
    player.signal(Signal::STOP);
    let (noticed, reason) = degraded(&agent, "cam").await;
    assert!(noticed < Duration::from_secs(1) && !reason.is_empty(), "{noticed:?}: {reason:?}");
    let stopped = Stopped::of(&agent, "s").await;
    player.end().await;
    assert!(stopped.took < Duration::from_secs(1), "the stop took {:?}", stopped.took);
    assert!(warns(&stopped.receipt, "delivered nothing"), "{:?}", stopped.receipt);
    stopped.holds_whole(format!("reported after {} ms, the file is whole", noticed.as_millis()))
}

async fn d6() -> Outcome {
    let agent = Agent::serve(&piped("cam", "video", &[microphone("mic")])).await;
    let (pictures, each) = (pictures(90), Duration::from_millis(33));
    let garbage: Vec<u8> = (0..5000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut pieces = Vec::new();
    for (at, picture) in pictures.iter().enumerate() {
        match at % 20 {
            7 => pieces.push((each, garbage.clone())),
            15 => pieces.push((each, picture[..picture.len() / 2].to_vec())),
            _ => {}
        }
        pieces.push((each, picture.clone()));
    }
    let fed = feed(&pipe(&agent.site), pieces);
    agent.start(session("s", &["cam", "mic"])).await.expect("it starts");
    let _writer = fed.await.expect("everything was written");
    agent.recorded("s", 80, 48_000).await;
    let stopped = Stopped::of(&agent, "s").await;
    let camera = &stopped.receipt.sources[0];
    assert!(camera.captured >= 86 && camera.gaps.is_empty(), "the track goes on: {camera:?}");
    assert!(camera.corrupt >= 4, "9 broken pictures came, and {} are told: {camera:?}", camera.corrupt);
    stopped.holds_whole(format!("{} broken ones told, {} pictures kept", camera.corrupt, camera.written))
}

async fn d7() -> Outcome {
    let site = piped("cam", "video", &[microphone("mic")]);
    let agent = Agent::serve(&site).await;
    let busy = |refused: tonic::Status, device: &str, holder: &str| {
        let (code, reason, about) = refusal(&refused);
        assert_eq!((code, reason.as_str()), (Code::FailedPrecondition, "DEVICE_BUSY"), "{refused:?}");
        assert!(refused.message().contains(device), "{refused:?}");
        assert_eq!(about.get("holder").map(String::as_str), Some(holder), "{refused:?}");
    };
    let reader = OpenOptions::new().read(true).write(true).open(pipe(&site)).expect("the pipe opens");
    flock(&reader, FlockOperation::LockExclusive).expect("nobody else reads it");
    busy(agent.start(session("t", &["cam"])).await.expect_err("it is read"), "Piped cam", "another process");
    drop(reader);
    agent.start(session("s", &["mic"])).await.expect("it starts");
    let mut fastest = Duration::MAX;
    // How long it takes here depends on what else runs: the fastest says what it needs.
    for _ in 0..5 {
        let asked_at = Instant::now();
        let refused = agent.start(session("t", &["mic"])).await.expect_err("it is held");
        fastest = fastest.min(asked_at.elapsed());
        busy(refused, "Microphone mic", "s");
    }
    assert!(fastest < Duration::from_millis(100), "refused after {fastest:?}");
    let seen = format!("refused after {} ms, by name of device and holder", fastest.as_millis());
    Stopped::of(&agent, "s").await.holds_whole(seen)
}

async fn d8() -> Outcome {
    let agent = racing().await;
    race(|number, device| {
        let agent = &agent;
        async move {
            let ids = [format!("a{number}"), format!("b{number}")];
            let start = |at: usize| agent.start(session(&ids[at], &[&device]));
            let (winner, refused) = match tokio::join!(start(0), start(1)) {
                (Ok(_), Err(refused)) => (&ids[0], refused),
                (Err(refused), Ok(_)) => (&ids[1], refused),
                other => panic!("not exactly one of {ids:?}: {other:?}"),
            };
            let (code, reason, about) = refusal(&refused);
            assert_eq!((code, reason.as_str()), (Code::FailedPrecondition, "DEVICE_BUSY"), "{refused:?}");
            assert_eq!(about.get("holder"), Some(winner), "{refused:?}");
            agent.stop_with(abort(winner)).await.expect("it stops");
        }
    })
    .await;
    are_free(&agent).await;
    Outcome::holds("exactly one won each time, and the other was told who")
}

async fn d12() -> Outcome {
    let agent = Agent::serve(&piped("cam", "video", &[microphone("mic")])).await;
    let pieces = pictures(120).into_iter().enumerate().map(|(at, picture)| {
        let each = if at < 60 { Duration::from_millis(33) } else { Duration::from_millis(66) };
        (each, picture)
    });
    let fed = feed(&pipe(&agent.site), pieces.collect());
    agent.start(session("s", &["cam", "mic"])).await.expect("it starts");
    let false_alarm = std::cell::Cell::new(false);
    let all_written = |event: &SessionEvent| {
        false_alarm
            .set(false_alarm.get() || told_of(event, "cam").is_some_and(|(state, _)| state == "degraded"));
        event.progress.as_ref().is_some_and(|progress| progress.sources[0].captured >= 120)
    };
    until(&mut agent.watch("s").await, all_written).await;
    let _writer = fed.await.expect("everything was written");
    let stopped = Stopped::of(&agent, "s").await;
    assert!(!false_alarm.get(), "half the rate is no failure");
    assert_eq!(stopped.receipt.sources[0].captured, 120, "no picture is made up: {:?}", stopped.receipt);
    let times = picture_times(&stopped.receipt.files[0].path);
    let mean = |range: std::ops::Range<usize>| (times[range.end] - times[range.start]) / range.len() as f64;
    let (before, after) = (mean(10..50), mean(70..110));
    assert!((0.028..0.040).contains(&before) && (0.060..0.074).contains(&after), "{before} s, {after} s");
    assert!(!stopped.receipt.warnings.is_empty(), "half the rate is told: {:?}", stopped.receipt);
    stopped.holds_whole("real times, no alarm, a warning")
}

/// When each picture is shown, in seconds from the beginning of the file, as ffprobe has it.
fn picture_times(path: &str) -> Vec<f64> {
    let args =
        ["-v", "warning", "-select_streams", "v:0", "-show_entries", "packet=pts_time", "-of", "csv=p=0"];
    let output = finds_nothing_wrong("ffprobe", &args, path.as_ref());
    let text = String::from_utf8(output).expect("ffprobe writes text");
    text.lines().map(|line| line.trim_end_matches(',').parse().expect("a time")).collect()
}
