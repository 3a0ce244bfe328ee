//! Workers that SIGKILL doesn't end, as when a driver or a disk holds them in the kernel: a stop says so, and
//! nothing that isn't known is said.

use shutterd::api::proto::{GetAgentRequest, StopMode, StopSessionRequest, WaitFor};
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;

use crate::agent::{Agent, drain, eventually, patient, refusal, session, state, until, worker_state};
use crate::media::check;
use crate::site::{Site, camera, faulty_camera, microphone};
use crate::tracer::Tracer;

/// As short as they can be: a worker that is held uses up all of them.
const LIMITS: &str =
    "limits.drain_timeout_ms = 300\nlimits.term_timeout_ms = 200\nlimits.kill_timeout_ms = 200";

#[tokio::test]
async fn a_worker_that_cannot_be_ended_keeps_its_devices_and_its_stop_says_so_until_it_ends() {
    let site = Site::new(LIMITS, &[camera("cam"), microphone("mic")]);
    let agent = Agent::serve(&site).await;
    agent.start(session("s", &["cam", "mic"])).await.expect("it starts");
    agent.recorded("s", 30, 48_000).await;
    let Some(tracer) = Tracer::hold(site.worker("s"), &[]) else { return };
    tracer.freeze();
    // The second is answered at once: the worker is stuck already.
    for _ in 0..2 {
        let refused = agent.stop("s").await.expect_err("its devices can't be released");
        let (code, reason, about) = refusal(&refused);
        assert_eq!((code, reason.as_str()), (Code::Internal, "DEVICE_NOT_RELEASED"), "{refused:?}");
        assert_eq!(about.get("session").map(String::as_str), Some("s"));
    }
    let found = agent.get("s").await.expect("it is there");
    assert_eq!(worker_state(found.session.as_ref()), "draining");
    assert_eq!(found.session.expect("its session").state, "active");
    assert_eq!(found.receipt, None, "nothing is said of a release");
    let refused = agent.start(session("next", &["cam"])).await.expect_err("the camera may be held");
    let (_, reason, about) = refusal(&refused);
    assert_eq!((reason.as_str(), about.get("holder").map(String::as_str)), ("DEVICE_BUSY", Some("s")));
    agent.is_healthy(ServingStatus::NotServing).await;
    let looked = agent.calls().get_agent(GetAgentRequest {}).await.expect("it answers");
    let health = looked.into_inner().health.expect("its health");
    let finding = health.findings.iter().find(|finding| finding.about == "s").expect("it is found");
    assert_eq!((finding.level.as_str(), finding.subject.as_str()), ("failed", "device"), "{finding:?}");

    drop(tracer);
    let finished = agent.finished("s").await;
    assert_eq!(worker_state(finished.session.as_ref()), "failed");
    let receipt = finished.receipt.expect("its receipt");
    assert_eq!((receipt.end_reason.as_str(), receipt.forced), ("stop_requested", true));
    assert!(!receipt.released_at.is_empty() && receipt.sources[0].written >= 30, "{receipt:?}");
    check(&site, &receipt);
    let again = agent.stop("s").await.expect("a stop finds it finished");
    assert_eq!((again.already_finished, again.receipt), (true, Some(receipt)));
    agent.is_healthy(ServingStatus::Serving).await;
    agent.start(session("next", &["cam", "mic"])).await.expect("the devices are free");
}

#[tokio::test]
async fn a_release_is_told_while_the_disk_holds_the_files_whatever_becomes_of_the_worker() {
    for mode in [StopMode::Drain, StopMode::Abort] {
        let site = Site::new(LIMITS, &[camera("cam"), microphone("mic")]);
        let agent = Agent::serve(&site).await;
        agent.start(session("s", &["cam", "mic"])).await.expect("it starts");
        agent.recorded("s", 30, 48_000).await;
        let never = ["fdatasync,fsync:delay_enter=600000000"];
        let Some(tracer) = Tracer::hold(site.worker("s"), &never) else { return };
        let stop = StopSessionRequest { mode: mode.into(), ..drain("s") };
        let mut events = agent.watch("s").await;
        let released = StopSessionRequest { wait_for: WaitFor::Released.into(), ..stop.clone() };
        let answer = agent.stop_with(released).await.expect("the devices are released");
        tracer.freeze();
        assert_eq!(answer.session.as_ref().map(|it| it.state.as_str()), Some("processing"), "{mode:?}");
        let then = answer.receipt.expect("what is known so far");
        assert!(!then.released_at.is_empty() && then.finalized_at.is_empty(), "{then:?}");
        assert!(then.released_at >= then.requested_at, "{then:?}");
        agent.start(session("next", &["cam", "mic"])).await.expect("released means free");
        let refused = agent.stop_with(stop).await.expect_err("the files can't be made final");
        let (code, reason, _) = refusal(&refused);
        assert_eq!((code, reason.as_str()), (Code::Internal, "WORKER_STUCK"), "{refused:?}");
        agent.is_healthy(ServingStatus::NotServing).await;

        drop(tracer);
        until(&mut events, |event| state(event) == "finished").await;
        let found = agent.get("s").await.expect("it is there").receipt.expect("its receipt");
        assert_eq!((&found.released_at, found.forced), (&then.released_at, true), "{found:?}");
        assert!(found.finalized_at > found.released_at, "{found:?}");
        assert!(found.sources[0].written >= 30 && found.sources[1].written >= 48_000, "{found:?}");
        check(&site, &found);
        agent.is_healthy(ServingStatus::Serving).await;
    }
}

#[tokio::test]
async fn a_start_whose_worker_cannot_be_ended_fails_and_frees_its_id_and_devices_once_it_ends() {
    let silent = faulty_camera("cam", r#"{ at_frame = 0, frames = 1000000, fault = "stall" }"#);
    let limits = "limits.start_timeout_ms = 5000\nlimits.term_timeout_ms = 200\nlimits.kill_timeout_ms = 200";
    let site = Site::new(limits, &[silent, microphone("mic")]);
    let agent = Agent::serve(&site).await;
    let (failed, tracer) = tokio::join!(agent.start(session("s", &["cam", "mic"])), async {
        eventually("the worker runs", || site.session_dir("s").exists()).await;
        let tracer = Tracer::hold(site.worker("s"), &[]);
        tracer.inspect(Tracer::freeze)
    });
    let Some(tracer) = tracer else { return };
    assert_eq!(refusal(&failed.expect_err("it never delivers")).1, "WORKER_TIMEOUT");
    let refused = agent.start(session("next", &["mic"])).await.expect_err("the microphone may be held");
    assert_eq!(refusal(&refused).1, "DEVICE_BUSY", "{refused:?}");
    agent.is_healthy(ServingStatus::NotServing).await;
    drop(tracer);
    agent.is_healthy(ServingStatus::Serving).await;
    let forgotten =
        async { while agent.get("s").await.map_or_else(|gone| gone.code() != Code::NotFound, |_| true) {} };
    patient("the end of what never was", forgotten).await;
    assert!(!site.session_dir("s").exists());
    agent.start(session("next", &["mic"])).await.expect("the microphone is free");
}
