//! A: microphones that are silent, run wrong, or go.

use std::time::Duration;

use crate::agent::{Agent, session};
use crate::media::finds_nothing_wrong;
use crate::player::{Player, feed, pipe, piped};
use crate::row::Case::{Here, VirtualMachine};
use crate::row::{Outcome, Row, Stopped};
use crate::scene::{found, warns};
use crate::site::camera;

/// The rows of this file.
pub const ROWS: &[Row] = &[
    Row { id: "A1", fault: "the microphone overruns", case: VirtualMachine },
    Row { id: "A2", fault: "the microphone is unplugged", case: VirtualMachine },
    Row { id: "A3", fault: "the microphone delivers zeros", case: Here(|| Box::pin(a3())) },
    Row { id: "A4", fault: "the microphone's clock is 500 ppm fast", case: Here(|| Box::pin(a4())) },
    Row { id: "A5", fault: "a rate or channels that it doesn't have", case: VirtualMachine },
];

async fn a3() -> Outcome {
    let agent = Agent::serve(&piped("mic", "audio", &[camera("cam")])).await;
    let player = Player::sound(&agent.site, "anullsrc=r=48000:cl=mono");
    agent.start(session("s", &["cam", "mic"])).await.expect("it starts");
    agent.recorded("s", 90, 48_000 * 4).await;
    let findings = found(&agent, "source").await;
    let stopped = Stopped::of(&agent, "s").await;
    player.end().await;
    assert!(!findings.is_empty(), "health says nothing of a microphone that delivers 4 s of zeros");
    assert!(!findings.iter().any(|it| it.starts_with("failed")), "a warning, no error: {findings:?}");
    stopped.holds_whole(findings.join(", "))
}

/// Samples of each block of sound in a file.
const BLOCK_SAMPLES: usize = 1024;
/// What the clock of the microphone makes of 48 kHz, and its samples in an eighth of a second.
const RATE: f64 = 48_024.0;
const EIGHTH_SAMPLES: usize = 6003;
/// Eighths of a second that are played, and seconds until the arrival of samples has shown when they begin.
const EIGHTHS: usize = 8 * 22;
const SETTLED_SECONDS: f64 = 8.0;

async fn a4() -> Outcome {
    let agent = Agent::serve(&piped("mic", "audio", &[camera("cam")])).await;
    let eighth = |at: usize| {
        let saw = (at * EIGHTH_SAMPLES..).take(EIGHTH_SAMPLES).map(|sample| (sample % 200) as u16 * 50);
        (Duration::from_millis(125), saw.flat_map(u16::to_le_bytes).collect())
    };
    let fed = feed(&pipe(&agent.site), (0..EIGHTHS).map(eighth).collect());
    agent.start(session("s", &["cam", "mic"])).await.expect("it starts");
    let _writer = fed.await.expect("everything was written");
    let stopped = Stopped::of(&agent, "s").await;
    let times = sound_times(&stopped.receipt.files[0].path);
    let begin = times.iter().position(|time| *time > SETTLED_SECONDS).expect("it is longer");
    // The last block may be short, and the one before it ends where it begins.
    let samples = (times.len() - 1 - begin) * BLOCK_SAMPLES;
    let off_ms = ((times[times.len() - 1] - times[begin]) - samples as f64 / RATE) * 1000.0;
    let drift_ms = samples as f64 * (1.0 / 48_000.0 - 1.0 / RATE) * 1000.0;
    assert!(off_ms.abs() <= 2.0, "sound lies {off_ms:.1} ms off, where its clock gains {drift_ms:.1} ms");
    let warnings = &stopped.receipt.warnings;
    assert!(
        warns(&stopped.receipt, "ppm"),
        "sound lies {off_ms:.1} ms off, where its clock gains {drift_ms:.1} ms; but no drift is told: {warnings:?}"
    );
    stopped.holds_whole(format!("sound lies {off_ms:.1} ms off, where its clock gains {drift_ms:.1} ms"))
}

/// When each block of sound begins, in seconds from the beginning of the file, as ffprobe has it.
fn sound_times(path: &str) -> Vec<f64> {
    let args =
        ["-v", "warning", "-select_streams", "a:0", "-show_entries", "packet=pts_time", "-of", "csv=p=0"];
    let output = finds_nothing_wrong("ffprobe", &args, path.as_ref());
    let text = String::from_utf8(output).expect("ffprobe writes text");
    text.lines().map(|line| line.trim_end_matches(',').parse().expect("a time")).collect()
}
