//! The files: names, permissions, segments, and other programs' opinion of them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::agent::{Agent, session};
use crate::media::{check, count};
use crate::site::{Site, camera, microphone};

/// A group that this process may give files to: one that is not its own where it is root.
fn group() -> (String, u32) {
    let own = rustix::process::getegid().as_raw();
    let groups = fs::read_to_string("/etc/group").expect("there are groups");
    let groups = groups.lines().filter_map(|line| {
        let mut fields = line.split(':');
        Some((fields.next()?.to_owned(), fields.nth(1)?.parse::<u32>().ok()?))
    });
    let is_root = rustix::process::geteuid().is_root();
    groups.into_iter().find(|(_, id)| (*id != own) == is_root).expect("there is such a group")
}

#[tokio::test]
async fn files_have_the_names_permissions_and_group_of_the_config() {
    let (name, id) = group();
    let settings = format!("media.file_mode = \"0664\"\nmedia.dir_mode = \"2775\"\nmedia.group = \"{name}\"");
    let site = Site::new(&settings, &[camera("cam"), microphone("mic")]);
    let agent = Agent::serve(&site).await;
    agent.start(session("s-1_A", &["cam", "mic"])).await.expect("it starts");
    agent.recorded("s-1_A", 20, 30_000).await;
    let receipt = agent.stop("s-1_A").await.expect("it stops").receipt.expect("its receipt");
    let dir = site.session_dir("s-1_A");
    let media = dir.join("s-1_A-0001.mkv");
    assert_eq!(receipt.files.len(), 1);
    assert_eq!(receipt.files[0].path, media.display().to_string());
    for (path, mode) in [(dir.clone(), 0o2775), (media, 0o664), (dir.join("receipt.json"), 0o664)] {
        let metadata = fs::metadata(&path).expect("it is there");
        assert_eq!(metadata.permissions().mode() & 0o7777, mode, "{}", path.display());
        assert_eq!(metadata.gid(), id, "{}", path.display());
    }
    check(&site, &receipt);
    let duration = receipt.files[0].duration_seconds;
    assert!((0.6..30.0).contains(&duration), "{duration}");
}

#[tokio::test]
async fn sound_can_be_stored_as_it_comes() {
    let site = Site::new("media.sound = \"pcm\"", &[microphone("mic")]);
    let agent = Agent::serve(&site).await;
    agent.start(session("s", &["mic"])).await.expect("it starts");
    agent.recorded("s", 0, 30_000).await;
    let receipt = agent.stop("s").await.expect("it stops").receipt.expect("its receipt");
    check(&site, &receipt);
}

#[tokio::test]
async fn a_long_session_becomes_several_files_that_each_play() {
    let site = Site::new("media.segment_seconds = 10", &[camera("cam"), microphone("mic")]);
    let agent = Agent::serve(&site).await;
    agent.start(session("s", &["cam", "mic"])).await.expect("it starts");
    let event = agent
        .until("s", |event| event.progress.as_ref().is_some_and(|progress| !progress.closed_files.is_empty()))
        .await;
    let closed = event.progress.expect("it was just seen").closed_files;
    let receipt = agent.stop("s").await.expect("it stops").receipt.expect("its receipt");
    assert_eq!(receipt.files.len(), 2);
    assert_eq!(receipt.files[0], closed[0]);
    for (at, file) in receipt.files.iter().enumerate() {
        assert!(file.path.ends_with(&format!("/s/s-{:04}.mkv", at + 1)), "{}", file.path);
        let counted = count(file.path.as_ref());
        assert!(counted.len() == 2 && counted.iter().all(|(_, units)| *units > 0), "{counted:?}");
    }
    assert!((9.5..11.0).contains(&receipt.files[0].duration_seconds), "{receipt:?}");
    assert!(receipt.sources.iter().all(|source| source.lost == 0 && source.dropped == 0), "{receipt:?}");
    check(&site, &receipt);
}

#[tokio::test]
async fn a_file_is_locked_as_long_as_it_is_written() {
    let site = Site::new("", &[microphone("mic")]);
    let agent = Agent::serve(&site).await;
    agent.start(session("s", &["mic"])).await.expect("it starts");
    let file = fs::File::open(site.session_dir("s").join("s-0001.mkv")).expect("the file is there");
    let lock = || flock(&file, FlockOperation::NonBlockingLockExclusive);
    assert_eq!(lock(), Err(Errno::WOULDBLOCK));
    agent.stop("s").await.expect("it stops");
    assert_eq!(lock(), Ok(()));
}
