//! The removal of media that a session asks for: when, what, and what never.

use std::fs;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::process::Signal;
use shutterd::api::proto::{
    ReadMediaRequest, ReadMediaResponse, Receipt, Session, SessionConfig, WatchAgentRequest,
};
use tonic::{Code, Status, Streaming};

use crate::agent::{Agent, eventually, refusal, send, session, until};
use crate::site::{Site, camera, microphone};

/// A session whose media is to be removed.
pub fn removed_session(id: &str, devices: &[&str]) -> Session {
    let config = SessionConfig { remove_media: Some(true), ..Default::default() };
    Session { config: Some(config), ..session(id, devices) }
}

pub async fn read(agent: &Agent, id: &str) -> Result<Streaming<ReadMediaResponse>, Status> {
    let request =
        ReadMediaRequest { session_id: id.to_owned(), file: String::new(), offset: 0, follow: true };
    Ok(agent.calls().read_media(request).await?.into_inner())
}

pub fn removal_state(receipt: Option<&Receipt>) -> &str {
    receipt.and_then(|it| it.removal.as_ref()).map_or("", |removal| removal.state.as_str())
}

/// The receipt as the agent's changes tell it, once the media was removed.
pub async fn removed(agent: &Agent, id: &str) -> Receipt {
    let events = agent.calls().watch_agent(WatchAgentRequest { since: 0 }).await.expect("it can be watched");
    let event = until(&mut events.into_inner(), |event| {
        let own = event.session.as_ref().is_some_and(|session| session.id == id);
        own && removal_state(event.receipt.as_ref()) == "removed"
    })
    .await;
    event.receipt.expect("it was just looked at")
}

/// Records `id` until its file is larger than what a reader who takes nothing is sent ahead, and stops it
/// while somebody reads it.
async fn stopped_while_read(agent: &Agent, id: &str) -> (Receipt, Streaming<ReadMediaResponse>) {
    agent.start(removed_session(id, &["cam", "mic"])).await.expect("it starts");
    let pieces = read(agent, id).await.expect("a running session can be followed");
    agent.until(id, |event| event.progress.as_ref().is_some_and(|it| it.durable_bytes > 4 << 20)).await;
    (agent.stop(id).await.expect("it stops").receipt.expect("its receipt"), pieces)
}

/// A camera whose pictures are large.
pub fn large_camera() -> String {
    camera("cam").replace("width = 320\nheight = 180", "width = 1920\nheight = 1080")
}

#[tokio::test]
async fn media_goes_once_nobody_reads_it_and_the_receipt_says_when() {
    let site = Site::new("", &[large_camera(), microphone("mic"), camera("cam2")]);
    let agent = Agent::serve(&site).await;
    agent.start(session("kept", &["cam2"])).await.expect("it starts");
    agent.recorded("kept", 5, 0).await;
    let kept = agent.stop("kept").await.expect("it stops").receipt.expect("its receipt");
    assert!(kept.removal.is_none());
    let (receipt, mut pieces) = stopped_while_read(&agent, "s").await;
    let removal = receipt.removal.as_ref().expect("it was asked for");
    assert_eq!((removal.state.as_str(), removal.reason.as_str()), ("pending", "requested"));
    let beside = fs::read(site.session_dir("s").join("receipt.json")).expect("the receipt lies there");
    let beside: shutterd::session::Receipt = serde_json::from_slice(&beside).expect("a receipt");
    assert_eq!(shutterd::api::convert::receipt_to_proto(&beside), receipt);
    assert_eq!(agent.get("s").await.expect("it is known").receipt.as_ref(), Some(&receipt));
    let refused = read(&agent, "s").await.expect_err("it is about to go");
    assert_eq!(refusal(&refused).1, "MEDIA_REMOVED");

    let mut bytes = 0;
    while let Some(piece) = pieces.message().await.expect("who reads it already reads it all") {
        bytes += piece.content.len() as u64;
    }
    assert_eq!(bytes, receipt.files[0].bytes);
    let told = removed(&agent, "s").await;
    eventually("the directory is gone", || !site.session_dir("s").exists()).await;
    let removal = told.removal.clone().expect("it is told");
    assert_eq!(removal.reason, "requested");
    assert!(removal.removed_at >= told.finalized_at, "{told:?}");
    assert_eq!((&told.files, &told.warnings), (&receipt.files, &receipt.warnings));
    let found = agent.get("s").await.expect("it is known");
    assert_eq!(found.receipt.as_ref(), Some(&told));
    let (code, reason, about) = refusal(&read(&agent, "s").await.expect_err("it is gone"));
    assert_eq!((code, reason.as_str()), (Code::NotFound, "MEDIA_REMOVED"));
    assert_eq!(about.get("session").map(String::as_str), Some("s"));
    let again = agent.start(removed_session("s", &["mic"])).await.expect_err("the id stays taken");
    assert_eq!(refusal(&again).0, Code::AlreadyExists);
    agent.end().await;
    let agent = Agent::serve(&site).await;
    assert_eq!(agent.get("s").await.expect("the journal knows it").receipt, Some(told));
    crate::media::check(&site, &kept);
}

#[tokio::test]
async fn a_removal_is_finished_by_the_next_agent_wherever_the_last_one_has_died() {
    let site = Site::new("", &[large_camera(), microphone("mic")]);
    let agent = Agent::serve(&site).await;
    let (one, pieces) = stopped_while_read(&agent, "one").await;
    let (two, other_pieces) = stopped_while_read(&agent, "two").await;
    agent.crash().await;
    drop((pieces, other_pieces));
    assert!(Path::new(&one.files[0].path).exists(), "nothing goes while somebody reads");
    // As after a crash between the removal of the files and the journal.
    fs::remove_file(&two.files[0].path).expect("the file is there");
    fs::remove_file(site.session_dir("two").join("receipt.json")).expect("the receipt is there");
    let agent = Agent::serve(&site).await;
    for (id, before) in [("one", &one), ("two", &two)] {
        let told = removed(&agent, id).await;
        assert_eq!((&told.files, &told.warnings), (&before.files, &before.warnings));
        eventually("the directory is gone", || !site.session_dir(id).exists()).await;
    }
    agent.end().await;
    // As after a crash between the journal and the removal of the directory.
    fs::create_dir(site.session_dir("one")).expect("there is none");
    let agent = Agent::serve(&site).await;
    assert!(!site.session_dir("one").exists());
    assert_eq!(removal_state(agent.get("one").await.expect("it is known").receipt.as_ref()), "removed");
}

#[tokio::test]
async fn what_is_not_the_sessions_stays() {
    let site = Site::new("", &[large_camera(), microphone("mic")]);
    let agent = Agent::serve(&site).await;
    let (receipt, pieces) = stopped_while_read(&agent, "s").await;
    let (dir, outside) = (site.session_dir("s"), site.dir().join("outside"));
    fs::create_dir(&outside).expect("a directory");
    fs::write(outside.join("precious"), b"precious").expect("a file");
    fs::write(outside.join("other.mkv"), b"precious").expect("a file");
    symlink(outside.join("precious"), dir.join("s-0009.mkv")).expect("a link to a file");
    symlink(&outside, dir.join("s-0010.mkv")).expect("a link to a directory");
    fs::write(dir.join("notes.mkv"), b"precious").expect("a foreign file");
    fs::create_dir(dir.join("s-0011.mkv")).expect("a foreign directory");
    fs::write(dir.join("s-0011.mkv/s-0001.mkv"), b"precious").expect("a file in it");
    fs::hard_link(outside.join("other.mkv"), dir.join("s-0008.mkv")).expect("a second name");
    fs::hard_link(&receipt.files[0].path, outside.join("saved.mkv")).expect("a second name");
    drop(pieces);
    let told = removed(&agent, "s").await;
    assert!(!Path::new(&receipt.files[0].path).exists());
    let mut left: Vec<String> = fs::read_dir(&dir)
        .expect("it is there")
        .map(|entry| entry.expect("it can be read").file_name().to_string_lossy().into_owned())
        .collect();
    left.sort();
    assert_eq!(left, ["notes.mkv", "s-0009.mkv", "s-0010.mkv", "s-0011.mkv"]);
    for path in [outside.join("precious"), outside.join("other.mkv"), dir.join("s-0011.mkv/s-0001.mkv")] {
        assert_eq!(fs::read(&path).expect("it is there"), b"precious", "{}", path.display());
    }
    let saved = fs::metadata(outside.join("saved.mkv")).expect("the second name is there");
    assert_eq!(saved.len(), receipt.files[0].bytes);
    let all = told.warnings.join("\n");
    assert!(all.contains("notes.mkv") && all.contains("s-0001.mkv has another name"), "{all}");
    assert!(site.log().contains("notes.mkv"));
}

#[tokio::test]
async fn media_that_no_repair_can_count_goes_too() {
    let site = Site::new("worker.restarts_max = 0", &[microphone("mic")]);
    let agent = Agent::serve(&site).await;
    agent.start(removed_session("s", &["mic"])).await.expect("it starts");
    agent.recorded("s", 0, 30_000).await;
    let worker = site.worker("s");
    send(worker, Signal::STOP);
    let file = fs::OpenOptions::new().write(true).open(site.session_dir("s").join("s-0001.mkv"));
    file.and_then(|file| file.write_all_at(&[0xA5; 4096], 0)).expect("the file can be spoilt");
    send(worker, Signal::KILL);
    let told = removed(&agent, "s").await;
    assert!(told.forced && told.files.is_empty() && !told.warnings.is_empty(), "{told:?}");
    eventually("the directory is gone", || !site.session_dir("s").exists()).await;
}

#[tokio::test]
async fn what_others_put_beside_the_media_of_a_dead_worker_is_not_the_sessions() {
    let site = Site::new("worker.restarts_max = 0", &[microphone("mic"), microphone("mic2")]);
    let agent = Agent::serve(&site).await;
    agent.start(session("other", &["mic2"])).await.expect("it starts");
    agent.recorded("other", 0, 30_000).await;
    let other = agent.stop("other").await.expect("it stops").receipt.expect("its receipt");
    agent.start(removed_session("s", &["mic"])).await.expect("it starts");
    agent.recorded("s", 0, 30_000).await;
    let dir = site.session_dir("s");
    fs::copy(&other.files[0].path, dir.join("other-0001.mkv")).expect("it can be copied");
    fs::write(dir.join("s.mkv"), b"").expect("a file");
    send(site.worker("s"), Signal::KILL);
    let told = removed(&agent, "s").await;
    assert_eq!(told.files.len(), 1, "{told:?}");
    assert!(!Path::new(&told.files[0].path).exists());
    assert!(dir.join("s.mkv").exists());
    let copied = fs::read(dir.join("other-0001.mkv")).expect("it is there");
    assert_eq!(blake3::hash(&copied).to_hex().as_str(), other.files[0].blake3);
}

#[tokio::test]
async fn a_link_in_the_place_of_the_directory_keeps_everything_where_it_is() {
    let site = Site::new("", &[large_camera(), microphone("mic")]);
    let agent = Agent::serve(&site).await;
    let (receipt, pieces) = stopped_while_read(&agent, "s").await;
    let moved = site.dir().join("moved");
    fs::rename(site.session_dir("s"), &moved).expect("it can be moved");
    symlink(&moved, site.session_dir("s")).expect("a link in its place");
    drop(pieces);
    eventually("the problem is told", || site.log().contains("is a link, a mount or no directory")).await;
    assert_eq!(removal_state(agent.get("s").await.expect("it is known").receipt.as_ref()), "pending");
    assert!(moved.join("s-0001.mkv").exists() && moved.join("receipt.json").exists());
    let problems = agent.calls().get_agent(shutterd::api::proto::GetAgentRequest {}).await;
    let problems = problems.expect("the agent answers").into_inner().problems;
    assert!(problems.iter().any(|problem| problem.contains("session s")), "{problems:?}");
    agent.end().await;
    fs::remove_file(site.session_dir("s")).expect("the link can be removed");
    let agent = Agent::serve(&site).await;
    eventually("it is missed", || site.log().contains("is not there: mount its disk")).await;
    agent.end().await;
    fs::rename(&moved, site.session_dir("s")).expect("it comes back");
    let agent = Agent::serve(&site).await;
    assert_eq!(removed(&agent, "s").await.files, receipt.files);
    eventually("the directory is gone", || !site.session_dir("s").exists()).await;
}

#[tokio::test]
async fn another_sessions_directory_in_the_place_of_the_sessions_own_is_not_touched() {
    let site = Site::new("", &[large_camera(), microphone("mic"), camera("cam2")]);
    let agent = Agent::serve(&site).await;
    agent.start(session("other", &["cam2"])).await.expect("it starts");
    agent.recorded("other", 5, 0).await;
    let other = agent.stop("other").await.expect("it stops").receipt.expect("its receipt");
    let (_, pieces) = stopped_while_read(&agent, "s").await;
    let (own, others, moved) = (site.session_dir("s"), site.session_dir("other"), site.dir().join("moved"));
    fs::rename(&own, &moved).expect("it can be moved");
    fs::rename(&others, &own).expect("it can be moved");
    drop(pieces);
    eventually("the problem is told", || site.log().contains("has the receipt of another session")).await;
    assert_eq!(removal_state(agent.get("s").await.expect("it is known").receipt.as_ref()), "pending");
    agent.end().await;
    fs::rename(&own, &others).expect("it comes back");
    fs::rename(&moved, &own).expect("it comes back");
    crate::media::check(&site, &other);
    let agent = Agent::serve(&site).await;
    removed(&agent, "s").await;
    crate::media::check(&site, &other);
}

#[tokio::test]
async fn a_link_in_the_place_of_a_file_of_the_receipt_is_not_called_removed() {
    let site = Site::new("", &[large_camera(), microphone("mic")]);
    let agent = Agent::serve(&site).await;
    let (receipt, pieces) = stopped_while_read(&agent, "s").await;
    let (file, moved) = (Path::new(&receipt.files[0].path), site.dir().join("moved.mkv"));
    fs::rename(file, &moved).expect("it can be moved");
    symlink(&moved, file).expect("a link in its place");
    drop(pieces);
    eventually("the problem is told", || site.log().contains("s-0001.mkv is a link or no file")).await;
    assert_eq!(removal_state(agent.get("s").await.expect("it is known").receipt.as_ref()), "pending");
    assert!(moved.exists() && file.is_symlink());
    agent.end().await;
    fs::rename(&moved, file).expect("it comes back");
    let agent = Agent::serve(&site).await;
    removed(&agent, "s").await;
    assert!(!file.exists());
}

#[tokio::test]
async fn a_file_that_somebody_writes_keeps_the_media_until_then() {
    let site = Site::new("", &[large_camera(), microphone("mic")]);
    let agent = Agent::serve(&site).await;
    let (receipt, pieces) = stopped_while_read(&agent, "s").await;
    // As a worker would that nobody knows of, or a repair that hangs.
    let uncounted = site.session_dir("s").join("s-0002.mkv");
    let file = fs::File::create(&uncounted).expect("a file");
    flock(&file, FlockOperation::LockExclusive).expect("it can be locked");
    drop(pieces);
    eventually("it is told", || site.log().contains("is being written by a worker or a repair")).await;
    assert!(Path::new(&receipt.files[0].path).exists() && uncounted.exists());
    assert_eq!(removal_state(agent.get("s").await.expect("it is known").receipt.as_ref()), "pending");
    agent.end().await;
    drop(file);
    let agent = Agent::serve(&site).await;
    removed(&agent, "s").await;
    eventually("the directory is gone", || !site.session_dir("s").exists()).await;
}
