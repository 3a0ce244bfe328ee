//! Disks that fill up, go away or can't be written.

use shutterd::api::proto::{GetAgentRequest, StopSessionResponse};
use tonic_health::pb::health_check_response::ServingStatus;

use crate::agent::{Agent, eventually, refusal, session};
use crate::media::check;
use crate::site::{Site, camera, faulty_camera, microphone};

use std::sync::Arc;

#[tokio::test]
async fn a_disk_that_fills_up_ends_the_session_and_what_is_on_it_plays() {
    let flood = faulty_camera("cam", r#"{ at_frame = 30, frames = 1000000, fault = "flood" }"#);
    let mut site = Site::unshared("", &[flood, microphone("mic")]);
    if !site.small_disk("media", "size=8m,mode=755") {
        return;
    }
    let site = Arc::new(site);
    let agent = Agent::serve(&site).await;
    agent.start(session("s", &["cam", "mic"])).await.expect("it starts");
    let finished = agent.finished("s").await;
    let receipt = finished.receipt.expect("its receipt");
    assert_eq!(receipt.end_reason, "disk_full");
    assert!(!receipt.forced, "{receipt:?}");
    assert!(receipt.files[0].bytes > 1 << 20, "{receipt:?}");
    assert!(receipt.sources.iter().all(|source| source.written > 0), "{receipt:?}");
    assert!(!receipt.warnings.is_empty(), "an operator is told");
    check(&site, &receipt);
}

#[tokio::test]
async fn a_disk_that_is_low_at_the_measured_rate_is_told_to_each_session_and_the_log_once() {
    // No disk has room for so many seconds.
    let site = Site::new("health.low_space_seconds = 6000000", &[camera("cam"), camera("cam2")]);
    let agent = Agent::serve(&site).await;
    agent.start(session("s", &["cam"])).await.expect("it starts");
    let low = || site.log().matches("the disk is low").count();
    eventually("the disk is looked at", || low() > 0).await;
    let told = agent.calls().get_agent(GetAgentRequest {}).await.expect("it answers").into_inner();
    let findings = told.health.expect("its health").findings;
    assert!(
        findings.iter().any(|it| it.subject == "disk" && it.message.contains("6000000 s")),
        "{findings:?}"
    );
    agent.start(session("later", &["cam2"])).await.expect("it starts");
    // The disk is looked at every five seconds.
    agent.recorded("later", 330, 0).await;
    for id in ["s", "later"] {
        let receipt = agent.stop(id).await.expect("it stops").receipt.expect("its receipt");
        let warnings = receipt.warnings.iter().filter(|it| it.contains("is full in less than 6000000 s"));
        assert_eq!(warnings.count(), 1, "{:?}", receipt.warnings);
    }
    assert_eq!(low(), 1, "one line, though it was looked at again");
}

#[tokio::test]
async fn a_start_on_a_media_directory_that_has_vanished_is_refused_by_name() {
    let site = Site::new("", &[microphone("mic")]);
    let agent = Agent::serve(&site).await;
    std::fs::remove_dir_all(site.media_dir()).expect("the media directory can be removed");
    refused_by_name(&agent).await;
    std::fs::create_dir(site.media_dir()).expect("it comes back");
    agent.start(session("s", &["mic"])).await.expect("the id and the device are free");
}

#[tokio::test]
async fn a_start_on_a_disk_that_cannot_be_written_is_refused_by_name() {
    let mut site = Site::unshared("", &[microphone("mic")]);
    if !site.small_disk("media", "size=8m,mode=755") {
        return;
    }
    let site = Arc::new(site);
    let agent = Agent::serve(&site).await;
    let remount = |mode: &str| {
        let args = ["-o", &format!("remount,{mode}")];
        let status = std::process::Command::new("mount").args(args).arg(site.media_dir()).status();
        assert!(status.expect("mount can be run").success());
    };
    remount("ro");
    refused_by_name(&agent).await;
    remount("rw");
    agent.start(session("s", &["mic"])).await.expect("the id and the device are free");
}

#[tokio::test]
async fn a_start_on_a_disk_that_is_full_is_refused_by_name() {
    let mut site = Site::unshared("", &[microphone("mic")]);
    if !site.small_disk("media", "size=256k,mode=755") {
        return;
    }
    let site = Arc::new(site);
    let agent = Agent::serve(&site).await;
    let refused = agent.start(session("s", &["mic"])).await.expect_err("there is no room");
    let (code, reason, _) = refusal(&refused);
    assert_eq!((code, reason.as_str()), (tonic::Code::ResourceExhausted, "DISK_FULL"), "{refused:?}");
    assert!(!site.session_dir("s").exists());
}

#[tokio::test]
async fn a_full_disk_below_the_journal_keeps_no_stop_from_its_answer() {
    let mut site = Site::unshared("", &[microphone("mic"), faulty_camera("cam", "")]);
    if !site.small_disk("state", "size=1m,mode=755") {
        return;
    }
    let site = Arc::new(site);
    let agent = Agent::serve(&site).await;
    agent.start(session("s", &["mic"])).await.expect("it starts");
    agent.recorded("s", 0, 10_000).await;
    let filler = std::fs::File::create(site.dir().join("state/filler")).expect("a file that fills the disk");
    let full = std::io::copy(&mut std::io::repeat(0), &mut &filler).expect_err("a small disk fills up");
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    let refused = agent.start(session("next", &["cam"])).await.expect_err("it can't be journalled");
    assert_eq!(refusal(&refused).1, "JOURNAL_FAILED", "{refused:?}");
    assert!(!site.session_dir("next").exists());
    let stopped = agent.stop("s").await.expect("the stop is answered");
    let receipt = stopped.receipt.expect("its receipt");
    assert_eq!((receipt.end_reason.as_str(), receipt.forced), ("stop_requested", false));
    assert!(!receipt.released_at.is_empty());
    assert!(receipt.warnings.iter().any(|warning| warning.contains("journal")), "{receipt:?}");
    assert!(site.workers().is_empty());
    let told = agent.get("s").await.expect("it is known");
    assert_eq!(told.session.expect("a session").state, "finished", "what was said once stays said");
    assert_eq!(told.receipt.as_ref(), Some(&receipt));
    let again = agent.stop("s").await.expect("it can be stopped again");
    assert!(again.already_finished);
    assert_eq!(again.receipt.as_ref(), Some(&receipt));
    assert_eq!(
        agent.health().await,
        Some(ServingStatus::NotServing),
        "a receipt that is not durable is no good health"
    );
    drop(filler);
    std::fs::remove_file(site.dir().join("state/filler")).expect("it can be removed");
    agent.start(session("next", &["mic", "cam"])).await.expect("there is room again");
    agent.end().await;
    let found = Agent::serve(&site).await.finished("s").await;
    let receipt = found.receipt.expect("its receipt");
    assert_eq!((receipt.end_reason.as_str(), receipt.forced), ("stop_requested", false));
    check(&site, &receipt);
}

#[tokio::test]
async fn what_is_finished_stays_finished_however_long_the_journal_takes_for_its_receipt() {
    let site = Site::new("limits.journal_timeout_ms = 300", &[microphone("mic")]);
    let agent = Agent::serve(&site).await;
    agent.start(session("s", &["mic"])).await.expect("it starts");
    agent.recorded("s", 0, 10_000).await;
    let lock =
        rusqlite::Connection::open(site.dir().join("state/journal.sqlite")).expect("the journal opens");
    lock.execute_batch("BEGIN IMMEDIATE").expect("nobody writes now");
    let first = agent.stop("s").await.expect("the stop is answered by its deadline");
    let receipt = first.receipt.clone().expect("its receipt");
    assert!(!site.log().contains("the journal failed"), "the write is still under way");
    stays_finished(&agent, &first).await;
    agent.is_healthy(ServingStatus::NotServing).await;
    eventually("the journal refuses the receipt", || site.log().matches("the journal failed").count() >= 2)
        .await;
    stays_finished(&agent, &first).await;
    agent.is_healthy(ServingStatus::NotServing).await;
    lock.execute_batch("ROLLBACK").expect("others may write again");
    agent.is_healthy(ServingStatus::Serving).await;
    stays_finished(&agent, &first).await;
    agent.crash().await;
    let found = Agent::serve(&site).await.get("s").await.expect("the journal has it");
    assert_eq!((found.session, found.receipt.as_ref()), (first.session, Some(&receipt)));
    check(&site, &receipt);
}

/// Whoever looks, lists or stops again hears what the first stop heard.
async fn stays_finished(agent: &Agent, first: &StopSessionResponse) {
    let found = agent.get("s").await.expect("it is known");
    assert_eq!((&found.session, &found.receipt), (&first.session, &first.receipt));
    assert_eq!(agent.list().await, [found]);
    let again = agent.stop("s").await.expect("it can be stopped again");
    assert!(again.already_finished);
    assert_eq!((&again.session, &again.receipt), (&first.session, &first.receipt));
}

async fn refused_by_name(agent: &Agent) {
    let refused = agent.start_soon(session("s", &["mic"])).await.expect_err("nothing can be recorded");
    let (code, reason, about) = refusal(&refused);
    assert_eq!(code, tonic::Code::FailedPrecondition, "{refused:?}");
    assert!(!reason.is_empty() && about.contains_key("session"), "{refused:?}");
    let media_dir = agent.site.media_dir().display().to_string();
    assert!(refused.message().contains(&media_dir), "{refused:?}");
    assert!(agent.site.workers().is_empty());
}
