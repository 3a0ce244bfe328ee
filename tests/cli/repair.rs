//! `repair` by hand: torn files, whole ones, such as are being written, and what is no recording.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, mkfifoat};
use tempfile::TempDir;

use super::{ID, file_of, session, video_packets};
use crate::agent::{Agent, Ended, shutterd};

fn repair(arguments: &[&str], paths: &[&Path]) -> Ended {
    Ended::of(shutterd().arg("repair").args(arguments).args(paths))
}

/// What a recording holds when its worker is cut off now: all but its end.
fn torn(agent: &Agent, dir: &Path) -> PathBuf {
    let file = agent.session_dir(ID).join(format!("{ID}-0001.mkv"));
    let copy = dir.join("torn-0001.mkv");
    let bytes = loop {
        let bytes = fs::read(&file).expect("the recording can be read");
        if bytes.len() > 256 << 10 {
            break bytes;
        }
        std::thread::yield_now();
    };
    fs::write(&copy, &bytes[..bytes.len() - 100]).expect("it can be copied");
    copy
}

#[test]
fn a_torn_recording_is_looked_at_and_made_whole_and_then_left_alone() {
    let agent = Agent::start();
    agent.begin(&session(ID));
    let dir = TempDir::new().expect("a directory");
    let torn = torn(&agent, dir.path());
    let before = fs::read(&torn).expect("it is there");

    let checked = repair(&["--check"], &[&torn]);
    assert_eq!(checked.code, 7, "{checked:?}");
    assert!(checked.out.contains("needs repair: would keep"), "{checked:?}");
    let told = repair(&["--check", "--json"], &[dir.path()]);
    assert_eq!((told.code, &told.json()["files"][0]["outcome"]), (7, &"needs_repair".into()), "{told:?}");
    assert_eq!(fs::read(&torn).expect("it is there"), before, "a look changes nothing");

    let repaired = repair(&["--json"], &[&torn]).json()["files"][0].clone();
    assert_eq!(repaired["outcome"], "repaired", "{repaired:#}");
    assert_eq!(repaired["path"], torn.display().to_string());
    assert_eq!(repaired["packets"], told.json()["files"][0]["packets"], "as was told before");
    assert_eq!(repaired["cutBytes"], told.json()["files"][0]["cutBytes"]);
    assert!(repaired["cutBytes"].as_u64().is_some_and(|bytes| bytes > 0), "{repaired:#}");
    let after = fs::read(&torn).expect("it is there");
    assert_eq!(repaired["bytes"].as_u64(), Some(after.len() as u64));
    let video = video_packets(&torn);
    assert!(video > 0 && repaired["packets"].as_u64().is_some_and(|all| all > video), "{repaired:#}");

    for arguments in [&["--check"][..], &[]] {
        let again = repair(arguments, &[&torn]);
        assert_eq!(again.code, 0, "{again:?}");
        assert!(again.out.contains(": whole: "), "{again:?}");
    }
    assert_eq!(fs::read(&torn).expect("it is there"), after, "what is whole stays as it is");
}

#[test]
fn a_recording_that_a_worker_writes_is_refused_until_it_is_whole() {
    let agent = Agent::start();
    agent.begin(&session(ID));
    let dir = agent.session_dir(ID);
    for arguments in [&["--check"][..], &[]] {
        let refused = repair(arguments, &[&dir]);
        assert_eq!(refused.code, 4, "{refused:?}");
        assert!(refused.out.contains("is being written: stop its session first"), "{refused:?}");
    }
    let stopped = agent.run(&["session", "stop", ID, "--json"]).json();
    super::assert_kept(&stopped);
    let whole = repair(&["--json"], &[&file_of(&stopped)]);
    assert_eq!((whole.code, &whole.json()["files"][0]["outcome"]), (0, &"whole".into()), "{whole:?}");
    super::assert_kept(&stopped);
}

#[test]
fn what_holds_no_media_or_is_damaged_is_left_as_it_is() {
    let agent = Agent::start();
    agent.begin(&session(ID));
    let dir = TempDir::new().expect("a directory");
    let torn = torn(&agent, dir.path());
    let stopped = agent.run(&["session", "stop", ID, "--json"]).json();
    let mut spoilt = fs::read(file_of(&stopped)).expect("it is there");
    let middle = spoilt.len() / 2;
    spoilt[middle..].fill(0xA5);
    let outside = dir.path().join("outside");
    fs::write(&outside, b"precious").expect("a file");
    let cases: [(&str, Vec<u8>); 3] =
        [("a-0001.mkv", Vec::new()), ("b-0001.mkv", b"no recording".to_vec()), ("c-0001.mkv", spoilt)];
    for (name, bytes) in &cases {
        fs::write(dir.path().join(name), bytes).expect("a file");
    }
    symlink(&outside, dir.path().join("d-0001.mkv")).expect("a link");
    let repaired = repair(&["--json"], &[dir.path()]);
    assert_eq!(repaired.code, 1, "{repaired:?}");
    let files = repaired.json()["files"].as_array().expect("a list").clone();
    assert_eq!(files.len(), 4, "links are none: {files:#?}");
    for (name, bytes) in &cases {
        let path = dir.path().join(name);
        let told = files.iter().find(|file| file["path"] == path.display().to_string()).expect("it is told");
        assert_eq!(told["outcome"], "failed", "{told:#}");
        assert_eq!(fs::read(&path).expect("it is there"), *bytes, "{name} is as it was");
    }
    let own = files.iter().find(|file| file["path"] == torn.display().to_string()).expect("it is told");
    assert_eq!(own["outcome"], "repaired", "one bad file keeps none from its repair: {own:#}");
    assert_eq!(fs::read(&outside).expect("it is there"), b"precious");
    let (pipe, link) = (dir.path().join("pipe.mkv"), dir.path().join("link.mkv"));
    mkfifoat(CWD, &pipe, Mode::RWXU).expect("a pipe");
    symlink(&torn, &link).expect("a link");
    let header = dir.path().join("header-0001.mkv");
    fs::write(&header, &fs::read(&torn).expect("it is there")[..5000]).expect("a file");
    for (path, told) in
        [(&pipe, "is a link or no file"), (&link, "is a link or no file"), (&header, "before any media")]
    {
        for arguments in [&["--check"][..], &[]] {
            let refused = repair(arguments, &[path]);
            assert_eq!(refused.code, 1, "{refused:?}");
            assert!(refused.out.contains(told), "{refused:?}");
        }
    }
    assert_eq!(fs::metadata(&header).expect("it is there").len(), 5000);
    let missing = repair(&[], &[&dir.path().join("nothing.mkv")]);
    assert_eq!((missing.code, missing.out.as_str()), (3, ""), "{missing:?}");
}
