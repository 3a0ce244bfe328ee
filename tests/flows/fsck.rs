//! `shutterd fsck`: what it finds in the journal and the media of an agent that has ended, and what it repairs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;
use shutterd::api::proto::Receipt;

use crate::agent::{Agent, eventually, send, session};
use crate::media::check;
use crate::site::{Site, camera, microphone};

/// How it ended, and what it said.
#[derive(Debug)]
struct Told {
    code: Option<i32>,
    out: String,
    err: String,
}

fn fsck(site: &Site, arguments: &[&str]) -> Told {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shutterd"));
    command.arg("--config").arg(site.dir().join("flow.toml")).arg("fsck").args(arguments);
    let output = command.output().expect("the binary runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Told { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// The code, and what was found: kind, outcome and session.
fn findings(site: &Site, arguments: &[&str]) -> (Option<i32>, Vec<(String, String, String)>) {
    let told = fsck(site, &[&["--json"], arguments].concat());
    let json: Value = serde_json::from_str(&told.out).unwrap_or_else(|error| panic!("{error}: {told:?}"));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let findings = json["findings"].as_array().expect("a list").iter();
    (told.code, findings.map(|it| (text(&it["kind"]), text(&it["outcome"]), text(&it["session"]))).collect())
}

fn all(found: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
    found.iter().map(|(kind, outcome, id)| ((*kind).into(), (*outcome).into(), (*id).into())).collect()
}

async fn recorded(agent: &Agent, id: &str, devices: &[&str]) -> Receipt {
    agent.start(session(id, devices)).await.expect("it starts");
    agent.recorded(id, 20, 40_000).await;
    agent.stop(id).await.expect("it stops").receipt.expect("its receipt")
}

fn journal(site: &Site) -> PathBuf {
    site.dir().join("state/journal.sqlite")
}

fn beside(site: &Site, id: &str) -> PathBuf {
    site.session_dir(id).join("receipt.json")
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("it is there");
    bytes[at] ^= 0x10;
    fs::write(path, bytes).expect("it can be written");
}

#[tokio::test]
async fn a_check_beside_an_agent_is_refused_by_its_name_and_finds_nothing_wrong_once_it_has_ended() {
    let site = Site::new("", &[camera("cam"), microphone("mic")]);
    let agent = Agent::serve(&site).await;
    recorded(&agent, "s", &["cam", "mic"]).await;
    for arguments in [&[][..], &["--check"]] {
        let refused = fsck(&site, arguments);
        assert_eq!(refused.code, Some(4), "{refused:?}");
        assert!(refused.err.contains(&format!("pid {}", agent.pid())), "{refused:?}");
    }
    agent.end().await;
    for arguments in [&["--check"][..], &[]] {
        let told = fsck(&site, arguments);
        assert_eq!((told.code, told.err.as_str()), (Some(0), ""), "{told:?}");
        assert!(
            told.out.starts_with("1 session, 1 file of ") && told.out.contains("nothing is wrong"),
            "{told:?}"
        );
    }
    assert_eq!(findings(&site, &[]), (Some(0), Vec::new()));
}

#[tokio::test]
async fn a_turned_bit_in_a_finished_file_is_found_and_its_place_is_told() {
    let site = Site::new("", &[microphone("mic")]);
    let agent = Agent::serve(&site).await;
    let receipt = recorded(&agent, "s", &["mic"]).await;
    agent.end().await;
    let path = PathBuf::from(&receipt.files[0].path);
    // In the middle lies sound, which has checksums of its own.
    let at = fs::metadata(&path).expect("it is there").len() / 2;
    flip(&path, usize::try_from(at).expect("a small file"));
    for arguments in [&["--json", "--check"][..], &["--json"]] {
        let told = fsck(&site, arguments);
        assert_eq!(told.code, Some(1), "{told:?}");
        let json: Value = serde_json::from_str(&told.out).expect("JSON");
        let finding = &json["findings"][0];
        assert_eq!(
            (&finding["kind"], &finding["path"]),
            (&"file_damaged".into(), &path.display().to_string().into())
        );
        let range = &finding["ranges"][0];
        let (from, to) = (range["from"].as_u64().expect("a number"), range["to"].as_u64().expect("a number"));
        assert!((from..to).contains(&at), "{at} is in {range}");
        assert!(to - from < fs::metadata(&path).expect("it is there").len() / 4, "{range} says where");
    }
    let people = fsck(&site, &["--check"]);
    assert!(
        people.out.contains(&format!("{}: its checksum is wrong; damaged are bytes", path.display())),
        "{people:?}"
    );
    fs::remove_file(&path).expect("it can be removed");
    assert_eq!(findings(&site, &[]), (Some(1), all(&[("file_missing", "failed", "s")])));
}

#[tokio::test]
async fn a_turned_bit_inside_a_picture_names_its_camera_and_second() {
    let site = Site::new("", &[camera("cam"), microphone("mic")]);
    let agent = Agent::serve(&site).await;
    agent.start(session("s", &["cam", "mic"])).await.expect("it starts");
    agent.recorded("s", 80, 0).await;
    let receipt = agent.stop("s").await.expect("it stops").receipt.expect("its receipt");
    agent.end().await;
    let path = PathBuf::from(&receipt.files[0].path);
    let bytes = fs::read(&path).expect("it is there");
    let images: Vec<usize> =
        (0..bytes.len()).filter(|at| bytes[*at..].starts_with(&[0xFF, 0xD8, 0xFF])).collect();
    let at = images[images.len() / 2] + 700;
    flip(&path, at);
    let told = fsck(&site, &["--json", "--check"]);
    let json: Value = serde_json::from_str(&told.out).expect("JSON");
    let ranges = json["findings"][0]["ranges"].as_array().expect("a list").clone();
    let [range] = &ranges[..] else { panic!("one place: {json:#}") };
    let place = |end: &str| usize::try_from(range[end].as_u64().expect("a number")).expect("small");
    assert!((place("from")..place("to")).contains(&at), "{json:#}");
    assert!(place("to") - place("from") < bytes.len() * 2 / 3, "no more than a second: {json:#}");
    let [media] = &range["media"].as_array().expect("a list")[..] else { panic!("one source: {json:#}") };
    assert_eq!(media["source"], receipt.sources[0].id, "the microphone's sound is right: {json:#}");
    let seconds =
        media["toSeconds"].as_f64().expect("a time") - media["fromSeconds"].as_f64().expect("a time");
    assert!((0.0..=1.1).contains(&seconds), "{json:#}");
    let mended =
        Command::new(env!("CARGO_BIN_EXE_shutterd")).arg("repair").arg(&path).output().expect("runs");
    let said = String::from_utf8_lossy(&mended.stdout);
    assert_eq!(mended.status.code(), Some(1), "{said}");
    assert!(said.contains("whole: ") && said.contains("; damaged are bytes"), "{said}");
    // Turned back, and another one turned in the header's padding.
    flip(&path, at);
    flip(&path, 4000);
    let told = fsck(&site, &["--check"]);
    assert!(told.out.contains("all is right by its own checksums but for bytes 0 to 4096, "), "{told:?}");
}

#[tokio::test]
async fn any_turned_bit_of_a_file_is_found() {
    let site = Site::new("", &[camera("cam"), microphone("mic")]);
    let agent = Agent::serve(&site).await;
    let receipt = recorded(&agent, "s", &["cam", "mic"]).await;
    agent.end().await;
    let path = PathBuf::from(&receipt.files[0].path);
    let length = fs::metadata(&path).expect("it is there").len();
    for part in 0..12 {
        let at = usize::try_from(length * part / 12 + part).expect("a small file");
        flip(&path, at);
        assert_eq!(
            findings(&site, &["--check"]),
            (Some(1), all(&[("file_damaged", "failed", "s")])),
            "byte {at}"
        );
        flip(&path, at);
    }
    assert_eq!(findings(&site, &[]), (Some(0), Vec::new()));
}

#[tokio::test]
async fn what_an_agent_would_repair_is_told_by_a_check_and_repaired_without() {
    let site = Site::new("", &[camera("cam"), microphone("mic")]);
    let agent = Agent::serve(&site).await;
    recorded(&agent, "lost", &["mic"]).await;
    let kept = recorded(&agent, "kept", &["cam"]).await;
    agent.start(session("torn", &["cam", "mic"])).await.expect("it starts");
    agent.recorded("torn", 20, 40_000).await;
    let worker = site.worker("torn");
    agent.crash().await;
    send(worker, Signal::KILL);
    eventually("the worker is gone", || site.workers().is_empty()).await;
    {
        let journal = rusqlite::Connection::open(journal(&site)).expect("the journal");
        let gone = journal.execute("DELETE FROM session WHERE id IN ('lost', 'torn')", []);
        assert_eq!(gone.expect("it can be changed"), 2);
    }
    fs::remove_file(beside(&site, "kept")).expect("it can be removed");
    let wanted = |outcome| {
        all(&[
            ("record_missing", outcome, "lost"),
            ("media_unaccounted", outcome, "torn"),
            ("receipt_missing", outcome, "kept"),
        ])
    };
    assert_eq!(findings(&site, &["--check"]), (Some(7), wanted("needs_repair")));
    assert!(!beside(&site, "torn").exists() && !beside(&site, "kept").exists(), "a check changes nothing");
    assert_eq!(findings(&site, &[]), (Some(0), wanted("repaired")));
    assert_eq!(findings(&site, &[]), (Some(0), Vec::new()));
    check(&site, &kept);
    let agent = Agent::serve(&site).await;
    for id in ["lost", "kept", "torn"] {
        let receipt = agent.get(id).await.expect("it is known").receipt.expect("its receipt");
        assert_eq!(receipt.end_reason == "worker_failed", id == "torn", "{receipt:?}");
        check(&site, &receipt);
    }
}

#[tokio::test]
async fn a_damaged_journal_is_replaced_and_what_cannot_be_read_is_told() {
    let site = Site::new("", &[microphone("mic")]);
    let agent = Agent::serve(&site).await;
    recorded(&agent, "one", &["mic"]).await;
    recorded(&agent, "two", &["mic"]).await;
    agent.end().await;
    let bytes = fs::read(journal(&site)).expect("the journal");
    let body = b"{\"spec\":{\"_id\":\"one\"";
    // SQLite leaves earlier states of a record in what is free.
    let places: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(body)).collect();
    for at in places {
        flip(&journal(&site), at + 3);
    }
    let damaged = fs::read(journal(&site)).expect("the journal");
    let wanted = |outcome| {
        all(&[
            ("journal_damaged", outcome, ""),
            ("record_unreadable", outcome, "one"),
            ("record_missing", outcome, "one"),
        ])
    };
    assert_eq!(findings(&site, &["--check"]), (Some(7), wanted("needs_repair")));
    assert_eq!(fs::read(journal(&site)).expect("it is there"), damaged, "a check changes nothing");
    assert_eq!(findings(&site, &[]), (Some(0), wanted("repaired")));
    assert_eq!(findings(&site, &[]), (Some(0), Vec::new()));
    flip(&journal(&site), 30);
    fs::remove_dir_all(site.session_dir("two")).expect("it can be removed");
    let told = fsck(&site, &[]);
    assert_eq!(told.code, Some(1), "{told:?}");
    assert!(
        told.out.contains("it is not there") && told.out.contains("2 records are carried over"),
        "{told:?}"
    );
}

#[tokio::test]
async fn a_terminal_is_shown_a_bar() {
    let site = Site::new("", &[microphone("mic")]);
    let agent = Agent::serve(&site).await;
    recorded(&agent, "s", &["mic"]).await;
    agent.end().await;
    let line = format!(
        "'{}' --config '{}' fsck",
        env!("CARGO_BIN_EXE_shutterd"),
        site.dir().join("flow.toml").display()
    );
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &line, "/dev/null"]).env("TERM", "xterm-256color");
    let shown = script.output().expect("script can be run");
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains('█') && shown.contains("nothing is wrong"), "{shown}");
}
