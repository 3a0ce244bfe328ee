//! `stop-all` against sessions that record, start, and begin while it is under way.

use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, ChildStdout, Stdio};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;

use super::agent::{Agent, Ended, shutterd};
use super::{ID, single};

#[test]
fn stop_all_ends_every_recording_and_says_so() {
    let agent = Agent::start();
    agent.begin(&single("camera", 0));
    agent.begin(&single("microphone", 1));
    let stopped = agent.run(&["stop-all"]);
    assert_eq!(stopped.code, 0, "{stopped:?}");
    assert!(stopped.out.starts_with("2 sessions are recording"), "{stopped:?}");
    for id in ["camera", "microphone"] {
        assert!(stopped.out.contains(&format!("stopped      {id}: its devices are released")), "{stopped:?}");
    }
    assert!(stopped.out.ends_with("nothing is being recorded any more\n"), "{stopped:?}");
    assert_eq!(agent.run(&["session", "list", "--state", "active"]).out, "no sessions\n");
}

#[test]
fn stop_all_claims_nothing_when_it_cannot_ask() {
    let ended = Ended::of(shutterd().args(["--server", "unix:/nowhere/api.sock", "stop-all"]));
    assert_eq!((ended.code, ended.out.as_str()), (5, ""), "{ended:?}");
    assert!(ended.err.contains("it is NOT known whether anything is being recorded"), "{ended:?}");
}

/// A running `stop-all`, and the lines that it tells.
fn stop_all(agent: &Agent) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut command = agent.command(&["stop-all"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    let out = child.stdout.take().expect("it is piped");
    (child, BufReader::new(out).lines())
}

fn line(lines: &mut Lines<BufReader<ChildStdout>>) -> String {
    lines.next().expect("it goes on").expect("text")
}

fn assert_silent(child: Child, lines: Lines<BufReader<ChildStdout>>, agent: &Agent) {
    let told: Vec<String> = lines.map(|line| line.expect("text")).collect();
    let ended = child.wait_with_output().expect("it ends");
    assert!(ended.status.success(), "{told:?} {ended:?}");
    assert_eq!(told.last().map(String::as_str), Some("nothing is being recorded any more"), "{told:?}");
    assert_eq!(agent.run(&["session", "list", "--state", "active"]).out, "no sessions\n");
}

#[test]
fn stop_all_stops_a_session_that_is_still_looking_for_its_devices() {
    let dir = TempDir::new().expect("a directory can be made");
    let (gate, program) = (dir.path().join("gate"), dir.path().join("program"));
    // Once there is a gate, a search for devices waits until something was written into it.
    let script = format!(
        "#!/bin/sh\nif [ \"$1\" = probe ] && [ -p '{gate}' ]; then read -r open <'{gate}'; fi\nexec '{binary}' \"$@\"\n",
        gate = gate.display(),
        binary = env!("CARGO_BIN_EXE_shutterd"),
    );
    fs::write(&program, script).expect("the script can be written");
    fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("it can be made executable");
    let agent = Agent::start_in(dir, &format!("worker.path = \"{}\"", program.display()));
    mknodat(CWD, &gate, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO can be made");

    let mut start = agent.command(&["session", "start", &agent.file(&single(ID, 0))]);
    let start = start.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    // Opens once the search is there to read.
    let mut open = File::options().write(true).open(&gate).expect("it can be opened");
    let listed = agent.run(&["session", "list", "--json"]).json();
    assert_eq!((&listed["sessions"], &listed["starting"][0]["_id"]), (&json!([]), &json!(ID)), "{listed:#}");
    assert!(agent.run(&["session", "list"]).out.contains("active (starting)"));
    assert_eq!(agent.run(&["session", "list", "--state", "finished"]).out, "no sessions\n");

    let (child, mut lines) = stop_all(&agent);
    assert_eq!(line(&mut lines), "1 session is recording, stopping now:");
    open.write_all(b"open\n").expect("it is read");
    let refused = start.wait_with_output().expect("it ends");
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("STOPPED_BEFORE_START"), "{refused:?}");
    assert_silent(child, lines, &agent);
}

#[test]
fn stop_all_stops_what_begins_while_it_stops() {
    let agent = Agent::start();
    agent.begin(&single("camera", 0));
    let worker = agent.worker("camera");
    kill_process(worker, Signal::STOP).expect("it is there");
    let (child, mut lines) = stop_all(&agent);
    assert_eq!(line(&mut lines), "1 session is recording, stopping now:");
    assert!(line(&mut lines).contains("camera"));
    agent.begin(&single("microphone", 1));
    kill_process(worker, Signal::CONT).expect("it is there");
    assert!(line(&mut lines).contains("camera: its devices are released"));
    assert_eq!(line(&mut lines), "1 session is recording, stopping now:");
    assert!(line(&mut lines).contains("microphone"));
    assert_silent(child, lines, &agent);
}

#[test]
fn stop_all_claims_nothing_when_the_agent_goes_away_meanwhile() {
    let mut agent = Agent::start();
    agent.begin(&single("camera", 0));
    kill_process(agent.worker("camera"), Signal::STOP).expect("it is there");
    let (mut child, mut lines) = stop_all(&agent);
    assert_eq!(line(&mut lines), "1 session is recording, stopping now:");
    agent.kill("camera");
    let told: Vec<String> = lines.map(|line| line.expect("text")).collect();
    let mut error = String::new();
    child.stderr.take().expect("it is piped").read_to_string(&mut error).expect("text");
    assert_eq!(child.wait().expect("it ends").code(), Some(5), "{told:?} {error}");
    assert!(told.iter().any(|line| line.starts_with("NOT STOPPED  camera: ")), "{told:?}");
    assert!(!told.iter().any(|line| line.contains("nothing is being recorded")), "{told:?}");
    assert!(error.contains("it is NOT known whether anything is being recorded"), "{error}");
}
