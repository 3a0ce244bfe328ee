//! A journal that is damaged, gone or can't be replaced: the agent starts, and finds what it had by its media.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::process::Signal;
use shutterd::api::proto::{GetAgentRequest, GetSessionResponse, Receipt};
use tonic::Code;

use crate::agent::{Agent, eventually, launch, patient, refusal, send, session, worker_state};
use crate::media::check;
use crate::site::{Site, camera, microphone};

/// Damaged journals that an agent is started with.
const SPOILT: usize = 10;

fn journal(site: &Site) -> PathBuf {
    site.dir().join("state/journal.sqlite")
}

/// Puts `bytes` in the journal's place, without a log.
fn lay(site: &Site, bytes: &[u8]) {
    for suffix in ["-wal", "-shm"] {
        // There may be none.
        let _ = fs::remove_file(format!("{}{suffix}", journal(site).display()));
    }
    fs::write(journal(site), bytes).expect("the journal can be written");
}

fn kept(site: &Site) -> Vec<PathBuf> {
    let entries = fs::read_dir(site.dir().join("state")).expect("it can be read");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.filter(|path| path.display().to_string().contains("journal.damaged-")).collect()
}

async fn recorded(agent: &Agent, id: &str, device: &str) -> Receipt {
    agent.start(session(id, &[device])).await.expect("it starts");
    agent.recorded(id, 5, 5_000).await;
    agent.stop(id).await.expect("it stops").receipt.expect("its receipt")
}

/// The session, once the agent has found it.
async fn found(agent: &Agent, id: &str) -> GetSessionResponse {
    let deadline = tokio::time::Instant::now() + crate::agent::PATIENCE;
    loop {
        match agent.get(id).await {
            Ok(found) => return found,
            Err(status) => {
                assert_eq!(refusal(&status).1, "SESSION_BEING_FOUND", "{status:?}");
                assert!(tokio::time::Instant::now() < deadline, "{id} is not found again");
                tokio::task::yield_now().await;
            }
        }
    }
}

/// What the agent says of its journal.
async fn findings(agent: &Agent) -> Vec<(String, String)> {
    let told = agent.calls().get_agent(GetAgentRequest {}).await.expect("it answers").into_inner();
    let findings = told.health.expect("its health").findings.into_iter();
    findings.filter(|it| it.subject == "journal").map(|it| (it.level, it.message)).collect()
}

/// A number below `limit`, the next of a row that `seed` begins (Knuth's MMIX).
fn next(seed: &mut u64, limit: usize) -> usize {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    usize::try_from((*seed >> 33) % limit as u64).expect("it is below the limit")
}

#[tokio::test]
async fn an_agent_starts_with_a_journal_that_is_damaged_anywhere_and_knows_every_session_with_a_receipt() {
    let site = Site::new("", &[camera("cam"), microphone("mic")]);
    let agent = Agent::serve(&site).await;
    let receipts = [recorded(&agent, "one", "mic").await, recorded(&agent, "two", "cam").await];
    agent.end().await;
    let whole = fs::read(journal(&site)).expect("the journal");
    let mut random = [0; 8];
    getrandom::fill(&mut random).expect("the kernel has some");
    let mut seed = u64::from_le_bytes(random);
    for round in 0..SPOILT {
        let begun_with = seed;
        let mut bytes = whole.clone();
        let at = next(&mut seed, whole.len());
        match round % 3 {
            0 => bytes.truncate(at),
            // The version of the schema is not among these: it may be a newer program's.
            1 => bytes[at.max(64)..].iter_mut().take(4096).for_each(|byte| *byte ^= 0x5A),
            _ => bytes[at.max(64)] ^= 1 + u8::try_from(next(&mut seed, 255)).expect("a byte"),
        }
        lay(&site, &bytes);
        let agent = Agent::serve(&site).await;
        for receipt in &receipts {
            let known = found(&agent, &receipt.session_id).await;
            assert_eq!(known.receipt.as_ref(), Some(receipt), "seed {begun_with}, round {round}, byte {at}");
            check(&site, receipt);
        }
        agent.end().await;
    }
}

#[tokio::test]
async fn a_journal_of_garbage_is_kept_and_told_until_the_next_start() {
    let site = Site::new("", &[microphone("mic")]);
    let agent = Agent::serve(&site).await;
    let receipt = recorded(&agent, "s", "mic").await;
    agent.end().await;
    let garbage = vec![0xA5; 20_000];
    lay(&site, &garbage);
    let agent = Agent::serve(&site).await;
    let again = found(&agent, "s").await;
    assert_eq!(again.receipt.as_ref(), Some(&receipt));
    let shown = again.session.expect("its session");
    assert_eq!((shown.state.as_str(), shown.sources.len()), ("finished", 1), "{shown:?}");
    assert!(shown.meta.expect("its meta").extra_json.contains("receipt.json"), "it says what it is made of");
    let stopped = agent.stop("s").await.expect("it can be stopped again");
    assert!(stopped.already_finished);
    let kept = kept(&site);
    assert_eq!(fs::read(&kept[0]).expect("it is kept"), garbage);
    let told = findings(&agent).await;
    assert!(
        told.iter().any(|(level, message)| level == "degraded" && message.contains("is kept as")),
        "{told:?}"
    );
    agent.end().await;
    let agent = Agent::serve(&site).await;
    assert_eq!(findings(&agent).await, []);
    assert_eq!(agent.get("s").await.expect("the journal has it").receipt, Some(receipt));
}

#[tokio::test]
async fn media_that_a_dead_worker_left_and_no_journal_knows_is_repaired_and_gets_a_receipt() {
    let site = Site::new("", &[camera("cam"), microphone("mic")]);
    let agent = Agent::recording(&site).await;
    let worker = site.worker("s");
    agent.crash().await;
    send(worker, Signal::KILL);
    eventually("the worker is gone", || site.workers().is_empty()).await;
    lay(&site, b"");
    fs::remove_file(journal(&site)).expect("the journal can be removed");
    let agent = Agent::serve(&site).await;
    let found = found(&agent, "s").await;
    assert_eq!(worker_state(found.session.as_ref()), "failed");
    let receipt = found.receipt.expect("its receipt");
    assert_eq!((receipt.end_reason.as_str(), receipt.forced), ("worker_failed", true), "{receipt:?}");
    let written: Vec<(&str, bool, bool)> =
        receipt.sources.iter().map(|it| (it.id.as_str(), it.at_least, it.written >= 30)).collect();
    assert_eq!(written, [("cam", true, true), ("mic", true, true)]);
    assert!(!receipt.warnings.is_empty(), "it says what it is made of");
    eventually("the receipt lies beside the media", || site.session_dir("s").join("receipt.json").exists())
        .await;
    check(&site, &receipt);
    assert!(findings(&agent).await.iter().any(|(level, _)| level == "degraded"));
}

#[tokio::test]
async fn a_worker_whose_session_no_journal_knows_drains_and_its_media_is_found() {
    let site = Site::new("", &[microphone("mic"), camera("cam")]);
    let agent = Agent::serve(&site).await;
    agent.start(session("s", &["mic", "cam"])).await.expect("it starts");
    agent.recorded("s", 10, 10_000).await;
    agent.crash().await;
    lay(&site, b"no journal");
    let agent = Agent::serve(&site).await;
    let receipt = found(&agent, "s").await.receipt.expect("its receipt");
    assert_eq!((receipt.end_reason.as_str(), receipt.forced), ("orphaned", false), "{receipt:?}");
    assert!(site.workers().is_empty());
    assert!(receipt.sources.iter().all(|it| it.written == it.captured && it.lost == 0), "{receipt:?}");
    eventually("its note is gone", || !site.session_dir("s").join(".account.json").exists()).await;
    eventually("the receipt lies beside the media", || site.session_dir("s").join("receipt.json").exists())
        .await;
    check(&site, &receipt);
    agent.start(session("next", &["mic", "cam"])).await.expect("the devices are free");
}

#[tokio::test]
async fn a_receipt_that_the_journal_has_lost_with_its_log_stays_what_was_answered() {
    let site = Site::new("", &[microphone("mic"), camera("cam")]);
    let agent = Agent::serve(&site).await;
    agent.start(session("s", &["mic"])).await.expect("it starts");
    agent.recorded("s", 0, 10_000).await;
    let before = fs::read(journal(&site)).expect("the journal");
    let log = fs::read(format!("{}-wal", journal(&site).display())).expect("its log");
    let receipt = agent.stop("s").await.expect("it stops").receipt.expect("its receipt");
    agent.crash().await;
    lay(&site, &before);
    fs::write(format!("{}-wal", journal(&site).display()), log).expect("the log can be written");
    let agent = Agent::serve(&site).await;
    let known = agent.get("s").await.expect("it is known");
    assert_eq!(known.receipt.as_ref(), Some(&receipt));
    assert_eq!(known.session.expect("its session").name, "Visit s", "the journal had its JSON");
    check(&site, &receipt);
}

#[tokio::test]
async fn a_full_disk_keeps_a_damaged_journal_from_being_replaced_and_loses_nothing() {
    let mut site = Site::unshared("", &[microphone("mic")]);
    if !site.small_disk("state", "size=2m,mode=755") {
        return;
    }
    let site = Arc::new(site);
    let agent = Agent::serve(&site).await;
    let receipt = recorded(&agent, "s", "mic").await;
    agent.end().await;
    let mut bytes = fs::read(journal(&site)).expect("the journal");
    let damaged = bytes.len() - 100;
    bytes[4096..damaged].fill(0xA5);
    lay(&site, &bytes);
    let filler = site.dir().join("state/filler");
    fill(&filler);
    let before = site.log().len();
    let status = patient("the agent", launch(&site).wait()).await.expect("it can be waited for");
    assert!(!status.success());
    let said = site.log()[before..].to_owned();
    assert!(said.contains("journal.sqlite") && said.contains("full"), "{said}");
    assert_eq!(fs::read(journal(&site)).expect("it is there"), bytes, "it is as it was");
    assert!(kept(&site).is_empty());
    fs::remove_file(&filler).expect("it can be removed");
    let agent = Agent::serve(&site).await;
    assert_eq!(found(&agent, "s").await.receipt, Some(receipt));
    assert_eq!(refusal(&agent.get("none").await.expect_err("there is none")).0, Code::NotFound);
    agent.end().await;
    // A whole journal on a full disk: the agent says so, too.
    fill(&filler);
    let before = site.log().len();
    let status = patient("the agent", launch(&site).wait()).await.expect("it can be waited for");
    assert!(!status.success());
    assert!(site.log()[before..].contains("full"), "{}", &site.log()[before..]);
}

fn fill(path: &Path) {
    let filler = fs::File::create(path).expect("a file that fills the disk");
    let full = std::io::copy(&mut std::io::repeat(0), &mut &filler).expect_err("a small disk fills up");
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
}
