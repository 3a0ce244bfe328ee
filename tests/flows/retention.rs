//! What a host keeps of finished sessions: by age, by bytes, by free space, and never more than that goes.

use std::fs;
use std::io::Read;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use shutterd::api::proto::Receipt;

use crate::agent::{Agent, eventually, session};
use crate::removal::{large_camera, read, removal_state, removed, removed_session};
use crate::site::{Site, camera, microphone};

fn bytes(receipt: &Receipt) -> u64 {
    receipt.files.iter().map(|file| file.bytes).sum()
}

/// Records a short session that keeps its media.
async fn recorded(agent: &Agent, id: &str) -> Receipt {
    agent.start(session(id, &["mic"])).await.expect("it starts");
    agent.recorded(id, 0, 20_000).await;
    agent.stop(id).await.expect("it stops").receipt.expect("its receipt")
}

fn setting(key: &str, value: u64) -> [(String, String); 1] {
    [(format!("SHUTTERD__RETENTION__{key}"), value.to_string())]
}

#[tokio::test]
async fn the_oldest_finish_goes_while_there_is_more_media_than_is_kept() {
    let site = Site::new("", &[microphone("mic"), camera("cam")]);
    let agent = Agent::serve(&site).await;
    let (one, two) = (recorded(&agent, "one").await, recorded(&agent, "two").await);
    agent.end().await;
    assert!(site.session_dir("one").exists() && site.session_dir("two").exists());
    let limit = setting("MAX_BYTES", bytes(&one) + bytes(&two) - 1);
    let agent = Agent::serve_with(&site, &limit).await;
    let told = removed(&agent, "one").await;
    assert_eq!(told.removal.expect("it is told").reason, "max_bytes");
    eventually("the directory is gone", || !site.session_dir("one").exists()).await;
    agent.start(session("runs", &["cam"])).await.expect("it starts");
    agent
        .until("runs", |event| event.progress.as_ref().is_some_and(|it| it.durable_bytes > bytes(&one)))
        .await;
    assert_eq!(removal_state(agent.get("two").await.expect("it is known").receipt.as_ref()), "");
    crate::media::check(&site, &two);
    let runs = agent.stop("runs").await.expect("it stops").receipt.expect("its receipt");
    assert!(
        bytes(&runs) + bytes(&two) > bytes(&one) + bytes(&two),
        "too much again, now that it is finished"
    );
    removed(&agent, "two").await;
}

#[tokio::test]
async fn media_goes_when_it_is_too_old() {
    host_is_settled().await;
    let site = Site::new("retention.max_age_hours = 1", &[microphone("mic")]);
    let agent = Agent::serve(&site).await;
    recorded(&agent, "old").await;
    let young = recorded(&agent, "young").await;
    agent.end().await;
    let journal = rusqlite::Connection::open(site.dir().join("state/journal.sqlite")).expect("the journal");
    let aged = journal.execute(
        "UPDATE session SET body = json_set(json_remove(body, '$.sum'), '$.receipt.finalizedAt', '2020-01-01T00:00:00.000Z') \
         WHERE id = 'old'",
        [],
    );
    assert_eq!(aged.expect("it can be changed"), 1);
    drop(journal);
    let agent = Agent::serve(&site).await;
    assert_eq!(removed(&agent, "old").await.removal.expect("it is told").reason, "max_age");
    eventually("the directory is gone", || !site.session_dir("old").exists()).await;
    assert_eq!(removal_state(agent.get("young").await.expect("it is known").receipt.as_ref()), "");
    crate::media::check(&site, &young);
}

/// Ages don't count until a host is five minutes old.
async fn host_is_settled() {
    let booted = rustix::time::clock_gettime(rustix::time::ClockId::Boottime).tv_sec;
    let left = u64::try_from(300 - booted).unwrap_or(0);
    if left > 0 {
        tokio::time::sleep(std::time::Duration::from_secs(left)).await;
    }
}

/// Leaves the disk at `dir` with one MiB less than `bytes` free.
fn fill(dir: &Path, bytes: u64) {
    let disk = rustix::fs::statvfs(dir).expect("it is there");
    let length = disk.f_bavail * disk.f_frsize - bytes + (1 << 20);
    let filler = fs::File::create(dir.join("filler")).expect("a file that fills the disk");
    std::io::copy(&mut std::io::repeat(0).take(length), &mut &filler).expect("there is room");
}

#[tokio::test]
async fn a_disk_with_too_little_room_loses_the_oldest_media_that_nobody_reads() {
    let mut site = Site::unshared("", &[large_camera(), microphone("mic"), microphone("mic2")]);
    if !site.small_disk("media", "size=128m,mode=755") {
        return;
    }
    let site = std::sync::Arc::new(site);
    let agent = Agent::serve_with(&site, &setting("MIN_FREE_BYTES", 64 << 20)).await;
    agent.start(session("read", &["cam"])).await.expect("it starts");
    agent.until("read", |event| event.progress.as_ref().is_some_and(|it| it.durable_bytes > 4 << 20)).await;
    agent.stop("read").await.expect("it stops");
    let pieces = read(&agent, "read").await.expect("it can be read");
    recorded(&agent, "idle").await;
    agent.start(session("runs", &["mic2"])).await.expect("it starts");
    assert_eq!(removal_state(agent.get("idle").await.expect("it is known").receipt.as_ref()), "");
    fill(&site.media_dir(), 64 << 20);
    let told = removed(&agent, "idle").await;
    assert_eq!(told.removal.expect("it is told").reason, "min_free");
    assert_eq!(removal_state(agent.get("read").await.expect("it is known").receipt.as_ref()), "");
    drop(pieces);
    removed(&agent, "read").await;
    assert!(site.media_dir().join("filler").exists(), "what is no session's stays, whatever room it takes");
    agent.recorded("runs", 0, 20_000).await;
    let runs = agent.stop("runs").await.expect("it stops").receipt.expect("its receipt");
    assert_eq!((runs.end_reason.as_str(), runs.sources[0].lost), ("stop_requested", 0));
}

#[tokio::test]
async fn a_disk_that_gives_room_back_late_loses_no_more_than_it_has_to() {
    let mut site = Site::unshared("", &[large_camera(), microphone("mic")]);
    if !site.small_disk("media", "size=128m,mode=755") {
        return;
    }
    let site = std::sync::Arc::new(site);
    let agent = Agent::serve_with(&site, &setting("MIN_FREE_BYTES", 64 << 20)).await;
    let mut held = Vec::new();
    for id in ["one", "two"] {
        agent.start(session(id, &["cam"])).await.expect("it starts");
        agent.until(id, |event| event.progress.as_ref().is_some_and(|it| it.durable_bytes > 4 << 20)).await;
        let receipt = agent.stop(id).await.expect("it stops").receipt.expect("its receipt");
        // An open file takes up its room also when it has no name any more.
        held.push(fs::File::open(&receipt.files[0].path).expect("it is there"));
    }
    fill(&site.media_dir(), 64 << 20);
    removed(&agent, "one").await;
    recorded(&agent, "later").await;
    for id in ["two", "later"] {
        assert_eq!(removal_state(agent.get(id).await.expect("it is known").receipt.as_ref()), "", "{id}");
    }
}

#[tokio::test]
async fn a_full_disk_that_holds_the_journal_too_gets_room_again() {
    let mut site = Site::unshared("", &[large_camera()]);
    if !site.small_disk("disk", "size=64m,mode=755") {
        return;
    }
    let disk = site.dir().join("disk");
    let site = std::sync::Arc::new(site);
    let on_disk = |name: &str| (format!("SHUTTERD__{name}"), disk.join(name).display().to_string());
    let variables = [on_disk("STATE_DIR"), on_disk("MEDIA_DIR")];
    let limited = [&variables[..], &setting("MIN_FREE_BYTES", 2 << 20)].concat();
    let mut files = Vec::new();
    let agent = Agent::serve_with(&site, &variables).await;
    for id in ["one", "two"] {
        agent.start(session(id, &["cam"])).await.expect("it starts");
        agent.until(id, |event| event.progress.as_ref().is_some_and(|it| it.durable_bytes > 4 << 20)).await;
        files.extend(agent.stop(id).await.expect("it stops").receipt.expect("its receipt").files);
    }
    agent.end().await;
    for (id, file) in ["one", "two"].into_iter().zip(files) {
        let filler = fs::OpenOptions::new().append(true).create(true).open(disk.join("filler"));
        std::io::copy(&mut std::io::repeat(0), &mut &filler.expect("a file")).expect_err("the disk is full");
        let agent = Agent::serve_with(&site, &limited).await;
        assert_eq!(removed(&agent, id).await.removal.expect("it is told").reason, "min_free");
        assert!(!Path::new(&file.path).exists());
        agent.end().await;
    }
}

#[tokio::test]
async fn no_media_goes_for_room_that_all_of_it_could_not_give() {
    let site = Site::new("retention.min_free_bytes = 1152921504606846976", &[microphone("mic")]);
    let agent = Agent::serve(&site).await;
    let receipt = recorded(&agent, "s").await;
    eventually("it is told", || site.log().contains("free without any media")).await;
    let later = recorded(&agent, "later").await;
    for kept in [receipt, later] {
        crate::media::check(&site, &kept);
    }
}

#[tokio::test]
async fn media_that_is_not_there_is_not_promised_to_go_when_it_comes_back() {
    let site = Site::new("", &[microphone("mic")]);
    let agent = Agent::serve(&site).await;
    let (one, two) = (recorded(&agent, "one").await, recorded(&agent, "two").await);
    agent.end().await;
    let elsewhere = site.dir().join("elsewhere");
    fs::rename(site.media_dir(), &elsewhere).expect("as if its disk weren't mounted");
    let agent = Agent::serve_with(&site, &setting("MAX_BYTES", 1)).await;
    eventually("both are missed", || {
        site.log().matches("media is not there, and is passed over").count() == 2
    })
    .await;
    agent.end().await;
    fs::remove_dir(site.media_dir()).expect("nothing was put there");
    fs::rename(&elsewhere, site.media_dir()).expect("it comes back");
    let agent = Agent::serve(&site).await;
    for kept in [&one, &two] {
        assert_eq!(agent.get(&kept.session_id).await.expect("it is known").receipt.as_ref(), Some(kept));
        crate::media::check(&site, kept);
    }
}

#[tokio::test]
async fn media_that_somebody_has_removed_keeps_none_from_its_turn() {
    let site = Site::new("retention.max_age_hours = 1", &[microphone("mic")]);
    let agent = Agent::serve(&site).await;
    recorded(&agent, "there").await;
    agent.end().await;
    let journal = rusqlite::Connection::open(site.dir().join("state/journal.sqlite")).expect("the journal");
    journal
        .execute_batch(
            "UPDATE session SET body = json_set(json_remove(body, '$.sum'), '$.receipt.finalizedAt', '2020-01-01T00:00:00.000Z');
             WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 300)
             INSERT INTO session (id, change, finished, body)
             SELECT 'there' || n, n - 1000, 1, replace(body, 'there', 'there' || n) FROM session, number",
        )
        .expect("it can be changed");
    drop(journal);
    let agent = Agent::serve(&site).await;
    assert_eq!(removed(&agent, "there").await.removal.expect("it is told").reason, "max_age");
    assert_eq!(site.log().matches("media is not there, and is passed over").count(), 300);
}

#[tokio::test]
async fn media_that_can_not_be_removed_takes_no_other_along() {
    let site = Site::new("", &[microphone("mic")]);
    let agent = Agent::serve(&site).await;
    let (one, two) = (recorded(&agent, "one").await, recorded(&agent, "two").await);
    agent.end().await;
    let file = fs::File::open(&one.files[0].path).expect("it is there");
    flock(&file, FlockOperation::LockShared).expect("it can be locked");
    let limit = setting("MAX_BYTES", bytes(&one) + bytes(&two) - 1);
    let agent = Agent::serve_with(&site, &limit).await;
    eventually("it is told", || site.log().contains("is being written by a worker or a repair")).await;
    // It takes longer than until the next look.
    agent.start(removed_session("other", &["mic"])).await.expect("it starts");
    agent.recorded("other", 0, 60_000).await;
    agent.stop("other").await.expect("it stops");
    removed(&agent, "other").await;
    let health = agent.calls().get_agent(shutterd::api::proto::GetAgentRequest {}).await;
    let health = health.expect("the agent answers").into_inner().health.expect("it tells how it is");
    let told = health.findings.iter().find(|finding| finding.about == "one");
    assert_eq!(told.map(|finding| finding.level.as_str()), Some("degraded"), "{health:?}");
    for kept in [&one, &two] {
        assert_eq!(agent.get(&kept.session_id).await.expect("it is known").receipt.as_ref(), Some(kept));
        crate::media::check(&site, kept);
    }
}

#[tokio::test]
async fn media_of_another_media_dir_neither_counts_nor_goes() {
    let site = Site::new("", &[microphone("mic")]);
    let agent = Agent::serve(&site).await;
    let (one, two) = (recorded(&agent, "one").await, recorded(&agent, "two").await);
    agent.end().await;
    let moved = [("SHUTTERD__MEDIA_DIR".to_owned(), site.dir().join("new").display().to_string())];
    let agent = Agent::serve_with(&site, &moved).await;
    let three = recorded(&agent, "three").await;
    let four = recorded(&agent, "four").await;
    agent.end().await;
    let limit = setting("MAX_BYTES", bytes(&three) + bytes(&four) - 1);
    let agent = Agent::serve_with(&site, &[&moved[..], &limit[..]].concat()).await;
    removed(&agent, "three").await;
    assert_eq!(removal_state(agent.get("four").await.expect("it is known").receipt.as_ref()), "");
    for kept in [&one, &two] {
        assert_eq!(agent.get(&kept.session_id).await.expect("it is known").receipt.as_ref(), Some(kept));
        crate::media::check(&site, kept);
    }
}
