//! Disks that fail while something is recorded: it goes on in a new file with what was not durable.

use shutterd::api::proto::Receipt;

use crate::agent::{Agent, eventually, session, worker_state};
use crate::media::check;
use crate::site::{Site, camera, microphone};
use crate::tracer::Tracer;

use std::time::{Duration, Instant};

/// An agent that records a camera and a microphone.
async fn recording(settings: &str) -> Agent {
    let site = Site::new(settings, &[camera("cam"), microphone("mic")]);
    let agent = Agent::serve(&site).await;
    agent.start(session("s", &["cam", "mic"])).await.expect("it starts");
    agent.recorded("s", 20, 30_000).await;
    agent
}

fn lost(receipt: &Receipt) -> u64 {
    receipt.sources.iter().map(|source| source.lost + source.dropped).sum()
}

/// The session was stopped as usual, with every frame kept in `files` files.
async fn keeps_all(agent: &Agent, files: usize) -> Receipt {
    let stopped = agent.stop("s").await.expect("it stops");
    assert_eq!(worker_state(stopped.session.as_ref()), "stopped");
    let receipt = stopped.receipt.expect("its receipt");
    assert_eq!((receipt.end_reason.as_str(), receipt.forced), ("stop_requested", false), "{receipt:?}");
    assert_eq!((lost(&receipt), receipt.files.len()), (0, files), "{receipt:?}\n{}", agent.site.log());
    assert!(receipt.sources.iter().all(|source| source.gaps.is_empty()), "{receipt:?}");
    check(&agent.site, &receipt);
    receipt
}

/// More is recorded than there is now.
async fn records_on(agent: &Agent) {
    let told = agent.until("s", |event| event.progress.is_some()).await;
    let now = told.progress.expect("it was just seen").sources;
    // What was captured when that was told may be durable by now.
    let (frames, samples) = (now[0].captured + 20, now[1].captured + 30_000);
    agent.recorded("s", frames, samples).await;
}

#[tokio::test]
async fn a_failed_sync_loses_nothing_and_is_not_tried_again() {
    let agent = recording("").await;
    let worker = agent.site.worker("s");
    let Some(tracer) = Tracer::hold(worker, &["fdatasync:error=EIO:when=1"]) else { return };
    eventually("the next file is begun", || agent.site.log().contains("the recording goes on")).await;
    // Each thread's first sync fails, that of the next file's too.
    drop(tracer);
    records_on(&agent).await;
    let receipt = keeps_all(&agent, 2).await;
    let repaired: Vec<bool> = receipt.files.iter().map(|file| file.repaired).collect();
    assert_eq!(repaired, [true, false], "{receipt:?}");
    assert!(
        receipt.warnings.iter().any(|it| it.contains("sync") && it.contains("os error 5")),
        "{receipt:?}"
    );
}

#[tokio::test]
async fn a_write_that_fails_half_way_through_a_recording_loses_nothing() {
    let agent = recording("").await;
    let worker = agent.site.worker("s");
    let Some(tracer) = Tracer::hold(worker, &["writev:error=EIO:when=3"]) else { return };
    eventually("the next file is begun", || agent.site.log().contains("the recording goes on")).await;
    records_on(&agent).await;
    drop(tracer);
    keeps_all(&agent, 2).await;
}

#[tokio::test]
async fn what_a_disk_refuses_for_a_while_waits_in_memory() {
    let agent = recording("").await;
    let worker = agent.site.worker("s");
    let orders = ["writev,fdatasync,fsync,openat:error=EROFS"];
    let Some(tracer) = Tracer::hold(worker, &orders) else { return };
    let tries = || agent.site.log().matches("no file can be begun").count() >= 3;
    eventually("no file can be begun", tries).await;
    drop(tracer);
    eventually("the disk takes files again", || agent.site.log().contains("the recording goes on")).await;
    records_on(&agent).await;
    keeps_all(&agent, 2).await;
}

#[tokio::test]
async fn a_disk_that_takes_nothing_for_too_long_ends_the_session_and_the_loss_is_told() {
    let agent = recording("limits.source_lost_after_ms = 1000").await;
    let worker = agent.site.worker("s");
    let Some(_tracer) = Tracer::hold(worker, &["writev:error=EIO"]) else { return };
    let finished = agent.finished("s").await;
    let receipt = finished.receipt.expect("its receipt");
    assert_eq!((receipt.end_reason.as_str(), receipt.forced), ("worker_failed", false), "{receipt:?}");
    for source in &receipt.sources {
        assert!(source.lost > 0 && source.written > 0, "{source:?}");
        let gap = source.gaps.last().expect("the loss is a gap");
        assert_eq!(gap.reason, "disk");
        let rate = if source.r#type == "audio" { 48_000.0 } else { 30.0 };
        let told = gap.duration_seconds * rate;
        assert!((told - source.lost as f64).abs() <= rate * 0.05, "{source:?}");
    }
    check(&agent.site, &receipt);
}

#[tokio::test]
async fn a_disk_that_takes_everything_and_keeps_nothing_ends_the_session() {
    let agent = recording("limits.source_lost_after_ms = 1000").await;
    let worker = agent.site.worker("s");
    let Some(_tracer) = Tracer::hold(worker, &["fdatasync:error=EIO"]) else { return };
    let receipt = agent.finished("s").await.receipt.expect("its receipt");
    assert_eq!(receipt.end_reason, "worker_failed", "{receipt:?}");
    // The daemon's repair, for which the disk works, keeps what the last file still holds.
    assert!(receipt.forced && receipt.sources.iter().all(|source| source.written > 0), "{receipt:?}");
    check(&agent.site, &receipt);
}

#[tokio::test]
async fn a_file_that_somebody_removes_while_it_is_recorded_is_there_again() {
    let agent = recording("").await;
    std::fs::remove_dir_all(agent.site.session_dir("s")).expect("the directory can be removed");
    eventually("it is noticed", || agent.site.log().contains("somebody has removed it")).await;
    records_on(&agent).await;
    let receipt = keeps_all(&agent, 2).await;
    assert!(receipt.warnings.iter().any(|it| it.contains("removed")), "{receipt:?}");
}

#[tokio::test]
async fn a_file_that_somebody_removes_just_before_the_stop_is_there_again() {
    let agent = recording("").await;
    std::fs::remove_dir_all(agent.site.session_dir("s")).expect("the directory can be removed");
    keeps_all(&agent, 1).await;
}

#[tokio::test]
async fn a_directory_that_somebody_moves_away_while_it_is_recorded_is_there_again() {
    let agent = recording("").await;
    let dir = agent.site.session_dir("s");
    std::fs::rename(&dir, dir.with_file_name("moved")).expect("the directory can be moved");
    eventually("it is noticed", || agent.site.log().contains("moved it away")).await;
    records_on(&agent).await;
    let receipt = keeps_all(&agent, 2).await;
    assert!(receipt.warnings.iter().any(|it| it.contains("moved")), "{receipt:?}");
}

/// Each thread's first sync fails: also that of the repair, which begins again.
#[tokio::test]
async fn syncs_that_fail_after_the_stop_lose_nothing() {
    let agent = recording("media.sync_ms = 3000").await;
    let worker = agent.site.worker("s");
    let Some(_tracer) = Tracer::hold(worker, &["fdatasync:error=EIO:when=1"]) else { return };
    let stopped = agent.stop("s").await.expect("it stops");
    let receipt = stopped.receipt.expect("its receipt");
    assert_eq!((receipt.end_reason.as_str(), lost(&receipt)), ("stop_requested", 0), "{receipt:?}");
    // All may have been durable just before, in one file.
    assert!(receipt.files.len() <= 2 && !receipt.forced, "{receipt:?}");
    check(&agent.site, &receipt);
}

#[tokio::test]
async fn a_file_that_cannot_be_followed_by_the_next_goes_on() {
    let agent = recording("media.segment_seconds = 10").await;
    let worker = agent.site.worker("s");
    let Some(tracer) = Tracer::hold(worker, &["openat:error=EMFILE"]) else { return };
    eventually("no new file can be begun", || agent.site.log().contains("the present one goes on")).await;
    drop(tracer);
    records_on(&agent).await;
    let receipt = keeps_all(&agent, 1).await;
    assert!(receipt.warnings.iter().any(|it| it.contains("os error 24")), "{receipt:?}");
}

#[tokio::test]
async fn a_disk_that_stalls_for_five_seconds_loses_nothing() {
    for call in ["fdatasync", "writev"] {
        let agent = recording("").await;
        let worker = agent.site.worker("s");
        let order = format!("{call}:delay_enter=5000000:when=1");
        let Some(tracer) = Tracer::hold(worker, &[&order]) else { return };
        let held_at = Instant::now();
        records_on(&agent).await;
        assert!(held_at.elapsed() >= Duration::from_secs(5), "nothing is durable before that");
        drop(tracer);
        keeps_all(&agent, 1).await;
    }
}
