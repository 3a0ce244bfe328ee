//! Workers that die or hang in mid-session: a new one goes on in a new file, and the receipt tells the gap.

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;
use shutterd::api::proto::{Receipt, SourceReceipt, StopSessionRequest, WaitFor};

use crate::agent::{Agent, drain, eventually, send, session, worker_state};
use crate::media::check;
use crate::site::{Site, camera, faulty_camera, microphone};

/// The session has another worker than `before`, and it captures.
async fn replaced(agent: &Agent, id: &str, before: u32) -> u32 {
    let other = || agent.site.workers().into_iter().find(|pid| *pid != before);
    eventually("a new worker", || other().is_some() && !agent.site.workers().contains(&before)).await;
    agent
        .until(id, |event| {
            let sources = event.progress.as_ref().map_or(&[][..], |progress| &progress.sources);
            worker_state(event.session.as_ref()) == "working"
                && !sources.is_empty()
                && sources.iter().all(|it| it.state == "working")
        })
        .await;
    other().expect("it is there")
}

fn only_gap(source: &SourceReceipt) -> (f64, f64) {
    let [gap] = &source.gaps[..] else { panic!("one gap is told: {source:?}") };
    assert_eq!(gap.reason, "restart", "{source:?}");
    // A new worker can be there before the last frame of the dead one would have been over.
    assert!(gap.duration_seconds >= 0.0 && gap.duration_seconds < 20.0, "{source:?}");
    (gap.start_seconds, gap.duration_seconds)
}

fn check_restarted(site: &Site, receipt: &Receipt) {
    assert_eq!((receipt.end_reason.as_str(), receipt.forced), ("stop_requested", false), "{receipt:?}");
    let repaired: Vec<bool> = receipt.files.iter().map(|file| file.repaired).collect();
    assert_eq!(repaired, [true, false], "{receipt:?}");
    for source in &receipt.sources {
        let (begin, length) = only_gap(source);
        // What the dead worker recorded ends where the gap begins, whichever source ends the file.
        assert!(begin <= receipt.files[0].duration_seconds + 0.02, "{receipt:?}");
        assert!(begin >= receipt.files[0].duration_seconds - 0.6, "{receipt:?}");
        assert_eq!(source.restarts, 1);
        assert!(source.at_least, "{source:?}");
        // Captured time and gap make up all the time from the first frame to the last.
        let rate = if source.r#type == "audio" { 48_000.0 } else { 30.0 };
        let in_files = source.written as f64 / rate;
        let stamp =
            |time: &str| time.parse::<shutterd::clock::WallTime>().expect("a time").nanos() as f64 / 1e9;
        let span = stamp(&source.last_timestamp) - stamp(&source.first_timestamp);
        assert!((in_files + length - span).abs() < 0.2, "{in_files} and {length} of {span}: {source:?}");
    }
    check(site, receipt);
}

#[tokio::test]
async fn a_killed_worker_is_replaced_and_its_session_goes_on_in_a_new_file() {
    let site = Site::new("", &[camera("cam1"), microphone("mic1"), camera("cam2")]);
    let agent = Agent::serve(&site).await;
    agent.start(session("other", &["cam2"])).await.expect("it starts");
    agent.start(session("s", &["cam1", "mic1"])).await.expect("it starts");
    agent.recorded("s", 45, 72_000).await;
    let (worker, other) = (site.worker("s"), site.worker("other"));
    send(worker, Signal::KILL);
    agent.until("s", |event| worker_state(event.session.as_ref()) == "degraded").await;
    eventually("a new worker", || site.workers().iter().any(|pid| ![worker, other].contains(pid))).await;
    let event = agent.until("s", |event| worker_state(event.session.as_ref()) == "working").await;
    let before = event.progress.expect("its progress");
    agent.recorded("s", before.sources[0].written + 30, before.sources[1].written + 48_000).await;
    let refused = agent.start(session("thief", &["cam1"])).await.expect_err("its devices are held");
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    let receipt = agent.stop("s").await.expect("it stops").receipt.expect("its receipt");
    check_restarted(&site, &receipt);
    assert!(receipt.warnings.iter().any(|warning| warning.contains("worker died")), "{receipt:?}");

    let receipt = agent.stop("other").await.expect("it stops").receipt.expect("its receipt");
    assert!(receipt.sources.iter().all(|it| it.gaps.is_empty() && it.lost + it.dropped + it.missed == 0));
    check(&site, &receipt);
}

#[tokio::test]
async fn a_new_worker_goes_on_without_a_source_that_is_gone_and_takes_it_up_when_it_is_back() {
    let sound = tempfile::NamedTempFile::new().expect("a file");
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: 8000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut wav = hound::WavWriter::create(sound.path(), spec).expect("a WAV file");
    (0..8000 * 120).for_each(|at: i32| wav.write_sample((at % 100) as i16).expect("it is written"));
    wav.finalize().expect("it is whole");
    let path = sound.path().display();
    let device =
        format!("[[devices]]\nid = \"mic\"\nkind = \"replay\"\nmedia = \"audio\"\npath = \"{path}\"\n");
    let site = Site::new("", &[camera("cam"), device]);
    let agent = Agent::serve(&site).await;
    for comes_back in [true, false] {
        let id = if comes_back { "back" } else { "gone" };
        agent.start(session(id, &["cam", "mic"])).await.expect("it starts");
        agent.recorded(id, 30, 8000).await;
        let away = sound.path().with_extension("away");
        std::fs::rename(sound.path(), &away).expect("it can be moved");
        let before = site.worker(id);
        send(before, Signal::KILL);
        let event = agent
            .until(id, |event| {
                let sources = event.progress.as_ref().map_or(&[][..], |progress| &progress.sources);
                let states: Vec<&str> = sources.iter().map(|source| source.state.as_str()).collect();
                states == ["working", "degraded"]
            })
            .await;
        let seen = event.progress.expect("its progress").sources;
        agent.recorded(id, seen[0].written + 30, 0).await;
        if comes_back {
            std::fs::rename(&away, sound.path()).expect("it can be moved");
            agent.recorded(id, seen[0].written + 60, seen[1].written + 8000).await;
        }
        let receipt = agent.stop(id).await.expect("it stops").receipt.expect("its receipt");
        assert_eq!((receipt.end_reason.as_str(), receipt.forced), ("stop_requested", false), "{receipt:?}");
        if !comes_back {
            std::fs::rename(&away, sound.path()).expect("it can be moved");
        }
        assert!(receipt.sources[1].written >= if comes_back { 16_000 } else { 8000 }, "{receipt:?}");
        assert!(!receipt.sources[1].gaps.is_empty(), "what is missing is told: {receipt:?}");
        assert!(
            receipt.warnings.iter().any(|it| it.contains("was not there when a new worker")),
            "{receipt:?}"
        );
        check(&site, &receipt);
    }
}

#[tokio::test]
async fn a_worker_that_hangs_is_ended_and_replaced() {
    let settings = "limits.worker_silent_ms = 3000\nlimits.term_timeout_ms = 300";
    let site = Site::new(settings, &[camera("cam"), microphone("mic")]);
    let agent = Agent::serve(&site).await;
    agent.start(session("s", &["cam", "mic"])).await.expect("it starts");
    agent.recorded("s", 45, 72_000).await;
    let worker = site.worker("s");
    send(worker, Signal::STOP);
    replaced(&agent, "s", worker).await;
    let receipt = agent.stop("s").await.expect("it stops").receipt.expect("its receipt");
    check_restarted(&site, &receipt);
    assert!(receipt.warnings.iter().any(|warning| warning.contains("said nothing")), "{receipt:?}");
}

#[tokio::test]
async fn a_restart_of_the_worker_outlives_a_crash_of_the_agent() {
    let site = Site::new("", &[camera("cam"), microphone("mic")]);
    let agent = Agent::serve(&site).await;
    agent.start(session("s", &["cam", "mic"])).await.expect("it starts");
    agent.recorded("s", 45, 72_000).await;
    let worker = site.worker("s");
    send(worker, Signal::KILL);
    let second = replaced(&agent, "s", worker).await;
    agent.crash().await;
    let agent = Agent::serve(&site).await;
    agent.recorded("s", 90, 144_000).await;
    assert_eq!(site.workers(), [second], "the same worker goes on");
    let receipt = agent.stop("s").await.expect("it stops").receipt.expect("its receipt");
    check_restarted(&site, &receipt);
}

#[tokio::test]
async fn a_session_whose_workers_go_on_dying_ends_once_its_restarts_are_used_up() {
    let settings = "worker.restarts_max = 2\nworker.restart_delay_ms = 10";
    let site = Site::new(settings, &[camera("cam"), microphone("mic")]);
    let agent = Agent::serve(&site).await;
    agent.start(session("s", &["cam", "mic"])).await.expect("it starts");
    agent.recorded("s", 20, 30_000).await;
    let mut worker = site.worker("s");
    for _ in 0..2 {
        send(worker, Signal::KILL);
        worker = replaced(&agent, "s", worker).await;
    }
    send(worker, Signal::KILL);
    let finished = agent.finished("s").await;
    assert_eq!(worker_state(finished.session.as_ref()), "failed");
    let receipt = finished.receipt.expect("its receipt");
    assert_eq!((receipt.end_reason.as_str(), receipt.forced), ("worker_failed", true));
    assert!(receipt.sources.iter().all(|source| source.restarts == 2), "{receipt:?}");
    check(&site, &receipt);
    agent.start(session("next", &["cam", "mic"])).await.expect("the devices are free");
}

#[tokio::test]
async fn a_stop_right_after_a_worker_has_died_keeps_what_it_recorded() {
    let site = Site::new("", &[camera("cam"), microphone("mic")]);
    let agent = Agent::serve(&site).await;
    agent.start(session("s", &["cam", "mic"])).await.expect("it starts");
    agent.recorded("s", 45, 72_000).await;
    let worker = site.worker("s");
    send(worker, Signal::KILL);
    agent.until("s", |event| worker_state(event.session.as_ref()) == "degraded").await;
    let receipt = agent.stop("s").await.expect("it stops").receipt.expect("its receipt");
    assert_eq!(receipt.end_reason, "stop_requested");
    assert!(receipt.sources[0].written >= 45 && receipt.sources[1].written >= 72_000, "{receipt:?}");
    check(&site, &receipt);
    assert!(site.workers().is_empty());
}

#[tokio::test]
async fn a_stop_that_comes_when_the_last_worker_has_died_was_requested_after_the_release() {
    // A repair waits for whoever opens the other end.
    let script = format!(
        "[ \"$1\" != repair ] || : < \"${{0%/*}}/repair\"; exec \"{}\" \"$@\"",
        env!("CARGO_BIN_EXE_shutterd")
    );
    let site = crate::versions::site("worker.restarts_max = 0", &script);
    let gate = site.dir().join("repair");
    mknodat(CWD, &gate, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO");
    let agent = Agent::serve(&site).await;
    for stopped in [true, false] {
        let id = if stopped { "stopped" } else { "left" };
        agent.start(session(id, &["mic"])).await.expect("it starts");
        agent.recorded(id, 0, 48_000).await;
        send(site.worker(id), Signal::KILL);
        agent.until(id, |event| worker_state(event.session.as_ref()) == "finalizing").await;
        if stopped {
            let released = StopSessionRequest { wait_for: WaitFor::Released.into(), ..drain(id) };
            let then =
                agent.stop_with(released).await.expect("nothing is held").receipt.expect("as far as it is");
            assert!(then.requested_at >= then.released_at && then.finalized_at.is_empty(), "{then:?}");
        }
        let gate = gate.clone();
        let opened = tokio::task::spawn_blocking(move || std::fs::OpenOptions::new().write(true).open(gate));
        opened.await.expect("it ran").expect("the repair waits for it");
        let receipt = agent.finished(id).await.receipt.expect("its receipt");
        assert_eq!((receipt.end_reason.as_str(), receipt.forced), ("worker_failed", true), "{receipt:?}");
        assert_eq!(
            !receipt.requested_at.is_empty(),
            stopped,
            "nobody has asked for it otherwise: {receipt:?}"
        );
        assert!(
            !receipt.released_at.is_empty() && receipt.released_at <= receipt.finalized_at,
            "{receipt:?}"
        );
        check(&site, &receipt);
    }
}

#[tokio::test]
async fn a_crash_loop_of_workers_starts_no_more_of_them_than_it_may() {
    let panics = r#"{ at_frame = 40, frames = 1000000, fault = "panic" }"#;
    let settings = "worker.restarts_max = 3\nworker.restart_delay_ms = 10";
    let site = Site::new(settings, &[faulty_camera("cam", panics)]);
    let agent = Agent::serve(&site).await;
    agent.start(session("s", &["cam"])).await.expect("it starts");
    let receipt = agent.finished("s").await.receipt.expect("its receipt");
    assert_eq!(receipt.end_reason, "worker_failed");
    assert_eq!(receipt.files.len(), 4, "{receipt:?}");
    check(&site, &receipt);
}
