//! Devices, threads and disks that are slow: what is late is kept, and what is not kept is told.

use std::path::Path;

use shutterd::api::proto::{Receipt, SourceReceipt, StopMode, WaitFor};
use shutterd::clock::WallTime;

use crate::agent::{Agent, drain, eventually, session};
use crate::media::{check, count, finds_nothing_wrong};
use crate::site::{Site, camera, faulty_microphone, microphone};
use crate::tracer::Tracer;

fn stamp(time: &str) -> f64 {
    time.parse::<WallTime>().expect("a time").nanos() as f64 / 1e9
}

/// Seconds before the stop at which the account of a source ends, with or without sound.
fn unaccounted(receipt: &Receipt, source: &SourceReceipt) -> f64 {
    let first = receipt.sources.iter().map(|source| stamp(&source.first_timestamp)).fold(f64::MAX, f64::min);
    let gap_ends = source.gaps.iter().map(|gap| first + gap.start_seconds + gap.duration_seconds);
    let end = gap_ends.fold(stamp(&source.last_timestamp), f64::max);
    stamp(&receipt.requested_at) - end
}

/// When each block of sound begins, in seconds from the beginning of the file, as ffprobe has it.
fn sound_times(path: &Path) -> Vec<f64> {
    let args =
        ["-v", "warning", "-select_streams", "a:0", "-show_entries", "packet=pts_time", "-of", "csv=p=0"];
    let output = finds_nothing_wrong("ffprobe", &args, path);
    let text = String::from_utf8(output).expect("ffprobe writes text");
    text.lines().map(|line| line.trim_end_matches(',').parse().expect("a time")).collect()
}

#[tokio::test]
async fn a_microphone_that_is_behind_at_the_stop_is_heard_out() {
    let slow = r#"{ at_frame = 100, frames = 1000000, fault = "slow" }"#;
    let site = Site::new("", &[camera("cam"), faulty_microphone("mic", slow)]);
    let agent = Agent::serve(&site).await;
    agent.start(session("s", &["cam", "mic"])).await.expect("it starts");
    agent.recorded("s", 90, 48_000).await;
    let receipt = agent.stop("s").await.expect("it stops").receipt.expect("its receipt");
    assert!(!receipt.forced, "{receipt:?}");
    assert!(receipt.warnings.iter().all(|warning| !warning.contains("did not close")), "{receipt:?}");
    for source in &receipt.sources {
        let missing = unaccounted(&receipt, source);
        // A receipt's times are to the millisecond.
        assert!((-0.002..0.3).contains(&missing), "{missing} s before the stop: {source:?}");
        assert_eq!((source.dropped, source.lost), (0, 0), "{source:?}");
    }
    check(&site, &receipt);
}

#[tokio::test]
async fn silence_that_is_filled_in_lies_where_the_sound_was_missing_also_at_a_new_file() {
    let stalls = r#"{ at_frame = 850, frames = 300, fault = "stall" }"#;
    let site = Site::new("media.segment_seconds = 10", &[camera("cam"), faulty_microphone("mic", stalls)]);
    let agent = Agent::serve(&site).await;
    agent.start(session("s", &["cam", "mic"])).await.expect("it starts");
    agent.recorded("s", 400, 48_000 * 10).await;
    let receipt = agent.stop("s").await.expect("it stops").receipt.expect("its receipt");
    assert_eq!(receipt.files.len(), 2, "{receipt:?}");
    let sound = &receipt.sources[1];
    assert_eq!((sound.filled, sound.lost, sound.dropped), (144_000, 0, 0), "{sound:?}");
    for file in &receipt.files {
        let times = sound_times(file.path.as_ref());
        let longest = times.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
        let shortest = times.windows(2).map(|pair| pair[1] - pair[0]).fold(1.0, f64::min);
        assert!(shortest > 0.01 && longest < 0.1, "blocks from {shortest} to {longest} s: {}", file.path);
    }
    check(&site, &receipt);
}

/// Has no sync of a worker return within a stop's deadline.
const SLOW_SYNCS: &str = "fdatasync,fsync:delay_enter=60000000";
/// Slows every write of a worker down.
const SLOW: &str = "writev:delay_enter=150000";

#[tokio::test]
async fn what_a_slow_disk_leaves_no_room_for_is_dropped_counted_and_told() {
    let site = Site::new("media.queue_bytes_max = 1048576", &[camera("cam"), microphone("mic")]);
    let agent = Agent::serve(&site).await;
    agent.start(session("s", &["cam", "mic"])).await.expect("it starts");
    agent.recorded("s", 20, 30_000).await;
    let Some(tracer) = Tracer::hold(site.worker("s"), &[SLOW]) else { return };
    eventually("something is dropped", || site.log().contains("the disk is too slow")).await;
    drop(tracer);
    let receipt = agent.stop("s").await.expect("it stops").receipt.expect("its receipt");
    assert!(receipt.sources.iter().any(|source| source.dropped > 0), "{receipt:?}");
    assert!(receipt.warnings.iter().any(|warning| warning.contains("queue_bytes_max")), "{receipt:?}");
    assert_eq!(
        site.log().matches("the disk is too slow").count(),
        receipt.sources.iter().filter(|it| it.dropped > 0).count()
    );
    check(&site, &receipt);
}

#[tokio::test]
async fn an_abort_loses_what_was_in_memory_and_counts_it_as_lost() {
    let site = Site::new("", &[camera("cam"), microphone("mic")]);
    let agent = Agent::serve(&site).await;
    agent.start(session("s", &["cam", "mic"])).await.expect("it starts");
    agent.recorded("s", 20, 30_000).await;
    let Some(tracer) = Tracer::hold(site.worker("s"), &[SLOW]) else { return };
    let behind = |event: &shutterd::api::proto::SessionEvent| {
        event.progress.as_ref().is_some_and(|it| it.queued_packets > 40)
    };
    agent.until("s", behind).await;
    let mut abort = drain("s");
    abort.mode = StopMode::Abort.into();
    let receipt = agent.stop_with(abort).await.expect("it stops").receipt.expect("its receipt");
    drop(tracer);
    assert_eq!((receipt.end_reason.as_str(), receipt.forced), ("aborted", false), "{receipt:?}");
    let lost: u64 = receipt.sources.iter().map(|source| source.lost).sum();
    assert!(lost > 0, "{receipt:?}");
    assert!(receipt.sources.iter().all(|source| source.dropped == 0), "an abort drops nothing: {receipt:?}");
    eventually("the worker's end", || site.workers().is_empty()).await;
    assert_eq!(count(receipt.files[0].path.as_ref())[0].1, receipt.sources[0].written);
    check(&site, &receipt);
}

#[tokio::test]
async fn a_release_is_answered_before_the_files_are_final_for_a_drain_and_for_an_abort() {
    let agent = Agent::serve(&Site::new("", &[camera("cam"), microphone("mic")])).await;
    for (id, mode) in [("drained", StopMode::Drain), ("aborted", StopMode::Abort)] {
        agent.start(session(id, &["cam", "mic"])).await.expect("released means free");
        agent.recorded(id, 20, 30_000).await;
        let worker = agent.site.worker(id);
        let Some(tracer) = Tracer::hold(worker, &[SLOW_SYNCS]) else { return };
        let mut stop = drain(id);
        (stop.mode, stop.wait_for) = (mode.into(), WaitFor::Released.into());
        let answer = agent.stop_with(stop).await.expect("it is released");
        assert!(agent.site.workers().contains(&worker), "it is not done yet");
        assert_eq!(answer.session.expect("its session").state, "processing");
        let then = answer.receipt.expect("what is known so far");
        assert!(!then.released_at.is_empty() && then.finalized_at.is_empty(), "{then:?}");
        drop(tracer);
        let receipt = agent.finished(id).await.receipt.expect("its receipt");
        assert_eq!((&receipt.released_at, receipt.forced), (&then.released_at, false), "{receipt:?}");
        let order = [&receipt.requested_at, &receipt.released_at, &receipt.finalized_at];
        assert!(order.is_sorted(), "{receipt:?}");
        assert_eq!(agent.get(id).await.expect("it is there").receipt.as_ref(), Some(&receipt));
        check(&agent.site, &receipt);
    }
}
