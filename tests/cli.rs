//! The command line against a real agent with synthetic devices: what it prints and how it ends.

#[path = "cli/agent.rs"]
mod agent;
#[path = "cli/json.rs"]
mod json;
#[path = "cli/repair.rs"]
mod repair;
#[path = "cli/stop_all.rs"]
mod stop_all;
#[path = "cli/terminal.rs"]
mod terminal;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};

use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use agent::{Agent, Ended, shutterd, signal};

const ID: &str = "65ea1530bb50af72b6e3dc1e";

/// A session with a camera and a microphone.
fn session(id: &str) -> Value {
    json!({
        "_id": id,
        "name": "Pitch",
        "type": "live_analysis",
        "state": "active",
        "timestamp": "2024-04-01T10:30:00.000Z",
        "duration": 120,
        "sources": [
            { "id": "v", "name": "Integrated Webcam", "type": "video", "device": "local_camera" },
            { "id": "a", "name": "Built-in Microphone", "type": "audio", "device": "local_microphone" },
        ],
        "meta": { "expires": "2099-01-01T00:00:00.000Z" },
        "lab": { "bench": 7.0 },
        "version": 3,
    })
}

/// A session with the camera alone, or the microphone alone.
fn single(id: &str, source: usize) -> Value {
    let mut session = session(id);
    session["sources"] = json!([session["sources"][source]]);
    session
}

/// Packets of each video stream, by a reader that isn't ours.
fn video_packets(path: &Path) -> u64 {
    let mut command = Command::new("ffprobe");
    command.args(["-v", "error", "-count_packets", "-select_streams", "v"]);
    command.args(["-show_entries", "stream=nb_read_packets", "-of", "csv=p=0"]).arg(path);
    let probed = Ended::of(&mut command);
    probed.out.trim().parse().unwrap_or_else(|error| panic!("{error}: {probed:?}"))
}

fn file_of(answer: &Value) -> PathBuf {
    PathBuf::from(answer["receipt"]["files"][0]["path"].as_str().expect("there is a file"))
}

/// The agreement of a finished session's receipt with its file.
fn assert_kept(answer: &Value) {
    assert_eq!(answer["session"]["state"], "finished", "{answer:#}");
    let receipt = &answer["receipt"];
    assert_eq!(receipt["forced"], false, "{receipt:#}");
    assert!(receipt["releasedAt"].is_string() && receipt["finalizedAt"].is_string(), "{receipt:#}");
    for source in receipt["sources"].as_array().expect("a list") {
        assert_eq!(source["captured"], source["written"], "{source:#}");
    }
    let video = receipt["sources"].as_array().and_then(|list| list.iter().find(|it| it["type"] == "video"));
    let written = video.and_then(|video| video["written"].as_u64()).expect("a count");
    assert!(written > 0);
    assert_eq!(video_packets(&file_of(answer)), written);
}

#[test]
fn a_session_is_started_shown_and_stopped_with_its_receipt() {
    let agent = Agent::start();
    let file = agent.file(&session(ID));
    let started = agent.run(&["--json", "session", "start", &file]);
    assert_eq!((started.code, started.err.as_str()), (0, ""), "{started:?}");
    assert_eq!(started.json()["meta"]["workerState"], "working");
    assert_eq!(started.json()["lab"], json!({ "bench": 7.0 }), "unknown members come back");

    let shown = agent.run(&["session", "show", ID]);
    assert!(shown.out.contains("state     active (working)"), "{shown:?}");
    let listed = agent.run(&["session", "list", "--state", "active"]);
    assert!(listed.out.contains(ID), "{listed:?}");
    let devices = agent.run(&["devices", "--json"]);
    assert!(
        devices.json().as_array().is_some_and(|list| list.iter().all(|it| it["heldBy"] == ID)),
        "{devices:?}"
    );

    let stopped = agent.run(&["session", "stop", ID, "--json"]);
    assert_eq!(stopped.code, 0, "{stopped:?}");
    let stopped = stopped.json();
    assert_kept(&stopped);
    assert_eq!(stopped["alreadyFinished"], false);
    let again = agent.run(&["session", "stop", ID, "--json"]).json();
    assert_eq!(again["alreadyFinished"], true);
    for part in ["session", "receipt"] {
        assert_eq!(again[part], stopped[part], "a second stop has the same answer");
    }
    let told = agent.run(&["session", "show", ID]);
    for part in ["ended by  stop_requested", "Integrated Webcam", "everything captured is in the files"] {
        assert!(told.out.contains(part), "{part}: {told:?}");
    }
}

#[test]
fn a_stop_that_takes_long_tells_every_few_seconds_how_far_it_is() {
    let agent = Agent::start();
    agent.begin(&single(ID, 0));
    let worker = agent.worker(ID);
    kill_process(worker, Signal::STOP).expect("it is there");
    let mut command = agent.command(&["session", "stop", ID]);
    let mut stop = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    let mut told = BufReader::new(stop.stderr.take().expect("it is piped"));
    let mut line = String::new();
    told.read_line(&mut line).expect("text");
    assert!(line.starts_with(&format!("{ID}: active (draining), ")), "{line:?}");
    assert!(line.ends_with(" s after the stop\n"), "{line:?}");
    kill_process(worker, Signal::CONT).expect("it is there");
    let ended = stop.wait_with_output().expect("it ends");
    assert!(ended.status.success());
    let result = String::from_utf8(ended.stdout).expect("text");
    assert!(result.starts_with("session ") && !result.contains("draining"), "{result}");
}

#[test]
fn a_stop_that_is_quick_says_nothing_beside_its_result() {
    let agent = Agent::start();
    agent.begin(&single(ID, 0));
    let stopped = agent.run(&["session", "stop", ID]);
    assert_eq!((stopped.code, stopped.err.as_str()), (0, ""), "{stopped:?}");
    assert!(stopped.out.contains("everything captured is in the files"), "{stopped:?}");
}

#[test]
fn a_session_is_read_from_standard_input_and_ends_at_its_limit() {
    let agent = Agent::start();
    let mut command = agent.command(&["session", "start", "-", "--max-duration", "300ms"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the binary runs");
    let mut input = child.stdin.take().expect("it is piped");
    input.write_all(session(ID).to_string().as_bytes()).expect("it reads");
    drop(input);
    let started = child.wait_with_output().expect("it ends");
    assert!(started.status.success());
    let watched = agent.run(&["session", "watch", ID]);
    assert_eq!(watched.code, 0, "{watched:?}");
    assert!(watched.out.contains("ended by  max_duration"), "{watched:?}");
}

#[test]
fn exit_codes_tell_what_kind_of_failure_it_was() {
    let agent = Agent::start();
    agent.begin(&single(ID, 0));
    let ended = |arguments: &[&str], code: i32, said: &str| {
        let ended = agent.run(arguments);
        assert_eq!(ended.code, code, "{arguments:?}: {ended:?}");
        assert!(ended.err.contains(said) && ended.err.starts_with("error: "), "{arguments:?}: {ended:?}");
        assert_eq!(ended.out, "", "{arguments:?}");
    };
    ended(&["session", "stop", "nobody"], 3, "(SESSION_NOT_FOUND)");
    ended(&["session", "watch", "nobody"], 3, "(SESSION_NOT_FOUND)");
    ended(&["session", "start", &agent.file(&session("second"))], 4, "(DEVICE_BUSY)");
    ended(&["session", "start", &agent.file(&single(ID, 1))], 4, "(SESSION_EXISTS)");
    let mut late = session("late");
    late["meta"]["expires"] = "2024-01-01T00:00:00.000Z".into();
    ended(&["session", "start", &agent.file(&late)], 2, "session.meta.expires");
    ended(&["session", "start", &agent.file(&json!([]))], 2, "is no session");
    ended(&["session", "start", "/nowhere"], 2, "/nowhere");
    let mut long = single("long", 0);
    long["name"] = "ü".repeat(1 << 20).into();
    ended(&["session", "start", &agent.file(&long)], 2, "is longer than 1.0 MiB");
    ended(
        &["--server", "unix:/nowhere/api.sock", "session", "list"],
        5,
        "hint: is `shutterd serve` running?",
    );
    ended(&["--server", "http://192.0.2.1:7460", "session", "list"], 2, "not encrypted");
    let tcp = format!("http://{}", agent.tcp);
    let wrong = agent.file(&json!("wrong"));
    ended(&["--server", &tcp, "--token-file", &wrong, "session", "list"], 6, "(UNAUTHENTICATED)");
    let usage = agent.run(&["session", "stop", ID, "--drain-timeout", "soon"]);
    assert_eq!(usage.code, 2, "{usage:?}");
}

#[test]
fn over_tcp_the_operators_token_is_found_by_the_config() {
    let agent = Agent::start();
    let server = format!("http://{}", agent.tcp);
    let listed = Ended::of(agent.command(&["session", "list"]).env("SHUTTERD_SERVER", &server));
    assert_eq!((listed.code, listed.out.as_str()), (0, "no sessions\n"), "{listed:?}");
}

#[test]
fn health_answers_as_monitoring_plugins_do() {
    let agent = Agent::start();
    let well = agent.run(&["health"]);
    assert_eq!(well.code, 0, "{well:?}");
    assert!(well.out.starts_with("OK: serving") && well.out.lines().count() == 1, "{well:?}");
    let gone = agent.run(&["--server", "unix:/nowhere/api.sock", "health"]);
    assert_eq!(gone.code, 3, "{gone:?}");
    assert!(gone.out.starts_with("UNKNOWN: ") && gone.out.lines().count() == 1, "{gone:?}");
}

#[test]
fn a_watch_tells_each_change_and_ends_with_the_session() {
    let agent = Agent::start();
    agent.begin(&session(ID));
    let mut watch =
        agent.command(&["session", "watch", ID, "--json"]).stdout(Stdio::piped()).spawn().expect("it runs");
    let mut lines = BufReader::new(watch.stdout.take().expect("it is piped")).lines();
    let mut next = || -> Option<Value> {
        let line = lines.next()?.expect("text");
        Some(serde_json::from_str(&line).expect("an object a line"))
    };
    let first = next().expect("the present state comes first");
    assert_eq!((&first["session"]["state"], &first["receipt"]), (&"active".into(), &Value::Null));
    assert_eq!(agent.run(&["session", "stop", ID]).code, 0);
    let last = std::iter::from_fn(next).last().expect("changes follow");
    assert_kept(&last);
    assert!(watch.wait().expect("it ends").success());
}

#[test]
fn a_reader_that_goes_away_ends_the_command_without_noise() {
    let agent = Agent::start();
    let mut command = agent.command(&["session", "list"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    drop(child.stdout.take());
    let ended = child.wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
}

#[test]
fn check_config_says_whether_the_config_is_good() {
    let dir = TempDir::new().expect("a directory can be made");
    let path = dir.path().join("c.toml");
    let check = || Ended::of(shutterd().arg("--config").arg(&path).arg("check-config"));
    fs::write(&path, "state_dir = \"/tmp\"\n").expect("it can be written");
    let good = check();
    assert_eq!((good.code, good.out), (0, format!("{} is good\n", path.display())));
    fs::write(&path, "state_dri = \"/tmp\"\n").expect("it can be written");
    let bad = check();
    assert_eq!(bad.code, 78, "{bad:?}");
    assert!(bad.err.contains("state_dri"), "{bad:?}");
}

#[test]
fn a_demo_records_keeps_its_file_and_leaves_nothing_running() {
    let dir = TempDir::new().expect("a directory can be made");
    // Too long for the path of a socket.
    let place = dir.path().join("long".repeat(30));
    let demo = Ended::of(shutterd().args(["demo", "--seconds", "1", "--json", "--dir"]).arg(&place));
    assert_eq!(demo.code, 0, "{demo:?}");
    let answer = demo.json();
    assert_kept(&answer);
    assert_eq!(answer["receipt"]["sources"].as_array().map(Vec::len), Some(2));
    assert!(file_of(&answer).starts_with(&place));
    assert_ended(&place);
}

#[test]
fn an_interrupted_demo_stops_its_session_and_its_agent() {
    let dir = TempDir::new().expect("a directory can be made");
    let mut command = shutterd();
    command.args(["demo", "--seconds", "3600", "--dir"]).arg(dir.path()).stdout(Stdio::piped());
    let mut demo = command.spawn().expect("the binary runs");
    let mut out = BufReader::new(demo.stdout.take().expect("it is piped"));
    read_until(&mut out, "recording session");
    signal(&demo, Signal::INT);
    let mut rest = String::new();
    out.read_to_string(&mut rest).expect("text");
    assert!(demo.wait().expect("it ends").success(), "{rest}");
    assert!(rest.contains("ended by  stop_requested") && rest.contains("ffprobe "), "{rest}");
    assert_ended(dir.path());
}

fn read_until(out: &mut BufReader<ChildStdout>, start: &str) {
    let mut line = String::new();
    while !line.starts_with(start) {
        line.clear();
        assert_ne!(out.read_line(&mut line).expect("text"), 0, "it ended before {start:?}");
    }
}

/// The demo's agent has told its own end.
fn assert_ended(dir: &Path) {
    let log = fs::read_to_string(dir.join("serve.log")).expect("there is a log");
    assert!(log.lines().last().is_some_and(|line| line.contains("ended")), "{log}");
}
