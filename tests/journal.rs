//! The journal: what was answered is durable, order is kept, and one bad row harms no other.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;
use shutterd::clock::{MonoTime, WallTime};
use shutterd::journal::{Answer, Journal, JournalError, Record, StopRecord, WorkerIdentity};
use shutterd::session::device::{
    Address, DeviceKey, DeviceSpec, Fault, FaultOrder, FormatWish, MediaType, TimestampSource,
};
use shutterd::session::{
    Account, EndReason, Gap, GapReason, MediaFile, Receipt, SessionId, SessionSpec, SourceAccount,
    SourceReceipt, SourceState, StartOptions,
};

#[path = "journal/damage.rs"]
mod damage;
#[path = "journal/kept.rs"]
mod kept;

/// Names the journal that a child of a test writes until it is killed.
const CHILD_JOURNAL: &str = "JOURNAL_TEST_CHILD_PATH";

fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("journal.sqlite");
    (dir, path)
}

fn open(path: &Path) -> Journal {
    Journal::open(path).expect("the journal opens")
}

fn answer<T>(answer: Answer<T>) -> Result<T, JournalError> {
    answer.blocking_recv().expect("every command is answered")
}

fn wall(seconds: i128) -> WallTime {
    WallTime::from_nanos((1_777_000_000 + seconds) * 1_000_000_000 + 123_000_000)
}

fn id(name: &str) -> SessionId {
    name.parse().expect("a valid id")
}

/// A record that has just been started.
fn started(name: &str, change: u64) -> Record {
    let spec = json!({
        "_id": name,
        "weight": 1.50,
        "large": 18_446_744_073_709_551_615_u64,
        "sources": [{ "id": "cam", "device": "local_camera", "name": "Integrated Webcam" }],
    });
    let spec = SessionSpec::from_json(spec).expect("a valid session");
    Record { change, ..Record::new(spec, StartOptions::default(), Vec::new(), wall(0)) }
}

/// A record with every member set.
fn finished(name: &str, change: u64) -> Record {
    let device = |address, wish| DeviceSpec {
        key: DeviceKey("camera:usb-1".to_owned()),
        label: "Front \"camera\"\n".to_owned(),
        media: MediaType::Video,
        address,
        wish,
    };
    let fault = FaultOrder { at_frame: 300, frames: u64::MAX, fault: Fault::Hang };
    let wish = FormatWish { width: Some(1280), frame_rate: Some(29.97), ..FormatWish::default() };
    let source = source(MediaType::Video);
    let file = MediaFile {
        path: "/m/s/a.mkv".to_owned(),
        bytes: 1 << 40,
        blake3: "0".repeat(64),
        duration_seconds: 12.345_678_9,
        repaired: true,
    };
    let account = SourceAccount {
        receipt: source.clone(),
        state: SourceState::Released,
        reason: String::new(),
        durable_at: Some(MonoTime::from_nanos(7)),
    };
    Record {
        options: StartOptions {
            max_duration: Some(Duration::from_millis(1500)),
            formats: vec![("cam".to_owned(), wish.clone())],
        },
        devices: vec![
            device(Address::Synthetic { faults: vec![fault] }, wish),
            device(Address::Replay { path: "/m/a.mkv".to_owned(), again: true }, FormatWish::default()),
        ],
        worker: Some(WorkerIdentity { pid: 4321, start_time: 987_654_321, boot_id: "b-1".to_owned() }),
        ends: None,
        stop: Some(StopRecord {
            reason: EndReason::StopRequested,
            abort: false,
            at: MonoTime::from_nanos(123_456_789_012_345),
            at_wall: wall(12),
        }),
        stop_keys: vec!["0123456789abcdef".repeat(2)],
        account: Some(Account {
            sources: vec![account],
            files: vec![file.clone()],
            captured_seconds: 0.1 + 0.2,
            warnings: vec!["a warning".to_owned()],
        }),
        receipt: Some(Receipt {
            session_id: id(name),
            end_reason: EndReason::StopRequested,
            forced: true,
            requested_at: Some(wall(12)),
            released_at: Some(wall(13)),
            finalized_at: None,
            sources: vec![source],
            files: vec![file],
            removal: None,
            warnings: Vec::new(),
        }),
        duration_seconds: Some(1.0 / 3.0),
        forced: true,
        health_check: Some(wall(11)),
        worker_state: "failed".to_owned(),
        ..started(name, change)
    }
}

fn source(media: MediaType) -> SourceReceipt {
    SourceReceipt {
        id: "cam".to_owned(),
        media,
        device: "Front".to_owned(),
        format: "MJPG 1280x720".to_owned(),
        captured: 300,
        written: 298,
        dropped: 2,
        lost: 0,
        missed: 1,
        filled: 0,
        corrupt: 0,
        drift_ppm: None,
        at_least: false,
        first_timestamp: Some(wall(1)),
        last_timestamp: Some(wall(11)),
        timestamp_source: Some(TimestampSource::Driver),
        gaps: vec![Gap {
            start_seconds: 0.5,
            duration_seconds: 0.033_3,
            missed: 1,
            reason: GapReason::Sequence,
        }],
        restarts: 0,
    }
}

/// Runs SQL on the closed journal at `path`.
fn sql(path: &Path, sql: &str) {
    let connection = rusqlite::Connection::open(path).expect("the file opens");
    connection.execute_batch(sql).expect("the statement runs");
}

fn ids(records: &[Record]) -> Vec<&str> {
    records.iter().map(|record| record.spec.id().as_str()).collect()
}

#[test]
fn a_record_with_every_member_comes_back_equal_after_a_reopening() {
    let (_dir, path) = place();
    let journal = open(&path);
    answer(journal.put(finished("full", 2))).expect("it is written");
    answer(journal.put(started("bare", 3))).expect("it is written");
    journal.close();
    let journal = open(&path);
    assert_eq!(answer(journal.get(id("full"))).expect("it is read"), Some(finished("full", 2)));
    assert_eq!(answer(journal.get(id("bare"))).expect("it is read"), Some(started("bare", 3)));
    assert_eq!(answer(journal.get(id("none"))).expect("it is read"), None);
}

#[test]
fn number_literals_of_a_session_are_kept() {
    let (_dir, path) = place();
    let text = r#"{"_id":"n","a":1.50,"b":1e+400,"c":100000000000000000000000000000000000000001,"d":-0,"e":0.0000001}"#;
    let value = serde_json::from_str(text).expect("JSON");
    let record = Record { spec: SessionSpec::from_json(value).expect("a session"), ..started("n", 1) };
    let journal = open(&path);
    answer(journal.put(record)).expect("it is written");
    let read = answer(journal.get(id("n"))).expect("it is read").expect("it is there");
    assert_eq!(serde_json::to_string(read.spec.object()).expect("JSON"), text);
}

#[test]
fn a_put_replaces_the_record_of_its_session_and_moves_it_to_the_end() {
    let (_dir, path) = place();
    let journal = open(&path);
    for (name, change) in [("a", 1), ("b", 2), ("c", 3)] {
        answer(journal.put(started(name, change))).expect("it is written");
    }
    answer(journal.put(finished("a", 4))).expect("it is written");
    let all = answer(journal.list(0, 10)).expect("they are read");
    assert_eq!(ids(&all.records), ["b", "c", "a"]);
    assert_eq!(ids(&answer(journal.list(0, 2)).expect("they are read").records), ["b", "c"]);
    assert_eq!(ids(&answer(journal.list(3, 2)).expect("they are read").records), ["a"]);
    assert!(answer(journal.list(4, 10)).expect("they are read").records.is_empty());
    assert!(answer(journal.list(u64::MAX, 10)).expect("they are read").records.is_empty());
    assert_eq!(ids(&answer(journal.unfinished()).expect("they are read").records), ["b", "c"]);
    assert_eq!(answer(journal.last_change()).expect("it is read"), 4);
}

#[test]
fn a_change_is_never_given_back_by_a_removal() {
    let (_dir, path) = place();
    let journal = open(&path);
    assert_eq!(answer(journal.last_change()).expect("it is read"), 0);
    answer(journal.put(started("a", 7))).expect("it is written");
    answer(journal.remove(id("a"))).expect("it is removed");
    answer(journal.remove(id("a"))).expect("removing nothing is no error");
    journal.close();
    let journal = open(&path);
    assert_eq!(answer(journal.get(id("a"))).expect("it is read"), None);
    assert_eq!(answer(journal.last_change()).expect("it is read"), 7);
}

#[test]
fn one_refused_write_harms_none_that_shares_its_commit() {
    let (_dir, path) = place();
    let journal = open(&path);
    let queued: Vec<_> = [("a", 1), ("b", 1), ("c", u64::MAX), ("d", 2), ("a", 1)]
        .into_iter()
        .map(|(name, change)| journal.put(started(name, change)))
        .collect();
    let refused: Vec<bool> = queued.into_iter().map(|queued| answer(queued).is_err()).collect();
    assert_eq!(refused, [false, true, true, false, false]);
    assert_eq!(ids(&answer(journal.list(0, 10)).expect("they are read").records), ["a", "d"]);
}

#[test]
fn writes_that_wait_together_are_all_durable_when_the_journal_goes_out_of_scope() {
    let (_dir, path) = place();
    let journal = open(&path);
    let queued: Vec<_> =
        (1..=500).map(|change| journal.put(started(&format!("s{change}"), change))).collect();
    drop(journal);
    for queued in queued {
        answer(queued).expect("it is written");
    }
    let journal = open(&path);
    assert_eq!(answer(journal.last_change()).expect("it is read"), 500);
    assert_eq!(answer(journal.list(0, 1000)).expect("they are read").records.len(), 500);
}

#[test]
fn a_full_queue_is_answered_at_once() {
    let (_dir, path) = place();
    let journal = open(&path);
    let lock = rusqlite::Connection::open(&path).expect("the file opens");
    lock.execute_batch("BEGIN IMMEDIATE").expect("the lock is free");
    let queued: Vec<_> =
        (1..=2000).map(|change| journal.put(started(&format!("s{change}"), change))).collect();
    lock.execute_batch("COMMIT").expect("the lock is given back");
    let results: Vec<_> = queued.into_iter().map(answer).collect();
    assert!(results.iter().any(|result| matches!(result, Err(JournalError::Busy))));
    assert!(results.iter().any(Result::is_ok));
    assert!(answer(journal.put(started("later", 3000))).is_ok());
}

#[test]
fn what_was_answered_survives_a_kill_in_mid_write() {
    if let Some(path) = std::env::var_os(CHILD_JOURNAL) {
        write_until_killed(Path::new(&path));
    }
    let (_dir, path) = place();
    let mut told = 0;
    for round in 1..=3 {
        let mut child = Command::new(std::env::current_exe().expect("this test's binary"))
            .args(["--exact", "what_was_answered_survives_a_kill_in_mid_write", "--nocapture"])
            .env(CHILD_JOURNAL, &path)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the child starts");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let changes =
            lines.map_while(Result::ok).filter_map(|line| line.strip_prefix("durable ")?.parse().ok());
        told = changes.take(50).last().expect("the child writes");
        child.kill().expect("the child is there");
        child.wait().expect("the child is reaped");
        let journal = open(&path);
        let last = answer(journal.last_change()).expect("it is read");
        assert!(last >= told, "round {round}: {told} was answered, {last} is there");
        let found = answer(journal.list(0, 1000)).expect("they are read");
        let expected: Vec<String> = (1..=last).map(|change| format!("s{change}")).collect();
        assert_eq!(
            (ids(&found.records), found.skipped.len()),
            (expected.iter().map(String::as_str).collect(), 0)
        );
    }
    assert!(told >= 150);
}

/// Writes on from the journal's last change and tells each write that was answered.
fn write_until_killed(path: &Path) -> ! {
    let journal = open(path);
    let mut change = answer(journal.last_change()).expect("it is read");
    loop {
        let queued: Vec<_> = (0..5)
            .map(|_| {
                change += 1;
                journal.put(started(&format!("s{change}"), change))
            })
            .collect();
        for queued in queued {
            answer(queued).expect("it is written");
        }
        let mut out = std::io::stdout().lock();
        writeln!(out, "durable {change}").and_then(|()| out.flush()).expect("the parent reads");
        assert!(change < 1000, "the parent kills this process");
    }
}

#[test]
fn a_row_that_cannot_be_read_is_named_and_the_others_are_read() {
    let (_dir, path) = place();
    let journal = open(&path);
    for (name, change) in [("a", 1), ("b", 2), ("c", 3), ("d", 4), ("e", 5)] {
        answer(journal.put(started(name, change))).expect("it is written");
    }
    journal.close();
    sql(
        &path,
        "UPDATE session SET body = substr(body, 1, 40) WHERE id = 'b';
         UPDATE session SET body = '{}' WHERE id = 'c';
         UPDATE session SET body = CAST(x'ff' AS TEXT) WHERE id = 'd';",
    );
    let journal = open(&path);
    for found in [answer(journal.list(0, 2)), answer(journal.unfinished())] {
        let found = found.expect("the others are read");
        assert_eq!(
            (ids(&found.records), found.skipped),
            (vec!["a", "e"], vec!["b".into(), "c".into(), "d".into()])
        );
    }
    let error = answer(journal.get(id("b"))).expect_err("it can't be read");
    assert!(matches!(&error, JournalError::Unreadable { id, .. } if id == "b"), "{error}");
    answer(journal.put(finished("b", 6))).expect("it is written anew");
    assert_eq!(answer(journal.get(id("b"))).expect("it is read"), Some(finished("b", 6)));
}

#[test]
fn a_newer_schema_is_refused_and_left_alone() {
    let (_dir, path) = place();
    open(&path).close();
    sql(&path, "PRAGMA user_version = 7");
    let error = Journal::open(&path).expect_err("it is refused");
    assert!(matches!(error, JournalError::NewerSchema { found: 7, known: 1, .. }), "{error}");
    let connection = rusqlite::Connection::open(&path).expect("the file opens");
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).expect("it is read");
    assert_eq!(version, 7);
}

#[test]
fn a_file_that_is_no_journal_is_refused_and_left_alone() {
    let (dir, path) = place();
    let text = "this is no database, but it is long enough to be looked at as one. ".repeat(20);
    std::fs::write(&path, &text).expect("the file is written");
    let error = Journal::open(&path).expect_err("it is refused");
    assert!(matches!(error, JournalError::Damaged { .. }), "{error}");
    assert_eq!(std::fs::read_to_string(&path).expect("it is there"), text);
    let error = Journal::open(&dir.path().join("no/journal.sqlite")).expect_err("no such directory");
    assert!(matches!(error, JournalError::File { .. }), "{error}");
}

#[test]
fn the_file_and_its_log_are_private() {
    let (dir, path) = place();
    let journal = open(&path);
    answer(journal.put(started("a", 1))).expect("it is written");
    let files: Vec<_> =
        std::fs::read_dir(dir.path()).expect("a directory").map(|file| file.expect("a file")).collect();
    assert_eq!(files.len(), 4, "the journal, its two logs and its reserve");
    for file in files {
        let mode = file.metadata().expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{:?}", file.file_name());
    }
}
