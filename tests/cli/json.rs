//! What programs get: an object on standard output, and one on standard error where a command fails.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::agent::{Agent, Ended, shutterd};
use super::{ID, assert_kept, session, single};

/// The object that tells why a command failed, alone on standard error.
fn error_of(ended: &Ended) -> Value {
    assert_eq!(ended.err.lines().count(), 1, "{ended:?}");
    let mut told: Value =
        serde_json::from_str(&ended.err).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
    let error = told["error"].take();
    assert_eq!(error["exitCode"], ended.code, "{error:#}");
    let message = error["message"].as_str().unwrap_or_default();
    assert!(!message.is_empty() && !message.contains('\n'), "{error:#}");
    error
}

#[test]
fn sessions_are_listed_and_shown_as_json() {
    let agent = Agent::start();
    assert_eq!(agent.run(&["session", "list", "--json"]).json()["sessions"], json!([]));
    agent.begin(&session(ID));
    let listed = agent.run(&["session", "list", "--json"]);
    assert_eq!((listed.code, listed.err.as_str()), (0, ""), "{listed:?}");
    let listed = listed.json();
    assert_eq!(listed["sessions"].as_array().map(Vec::len), Some(1), "{listed:#}");
    let since = listed["nextSince"].to_string();
    let shown = agent.run(&["session", "show", ID, "--json"]).json();
    assert_eq!(listed["sessions"][0], shown);
    assert_eq!((&shown["session"]["_id"], &shown["receipt"]), (&json!(ID), &Value::Null));
    assert_eq!(agent.run(&["session", "stop", ID, "--json"]).code, 0);
    let shown = agent.run(&["session", "show", ID, "--json"]).json();
    assert_kept(&shown);
    let later = agent.run(&["session", "list", "--json", "--since", &since]).json();
    assert_eq!(later["sessions"], json!([shown]));
}

#[test]
fn devices_are_listed_as_json_with_their_holder() {
    let agent = Agent::start();
    agent.begin(&single(ID, 0));
    let devices = agent.run(&["devices", "--json"]).json();
    let holder = |kind: &str| {
        let own = |it: &&Value| it["kind"] == "synthetic" && it["type"] == kind;
        devices.as_array().and_then(|list| list.iter().find(own)).map(|it| it["heldBy"].clone())
    };
    assert_eq!((holder("video"), holder("audio")), (Some(json!(ID)), Some(json!(""))), "{devices:#}");
}

#[test]
fn health_is_told_as_json_with_the_same_exit_codes() {
    let agent = Agent::start();
    let well = agent.run(&["health", "--json"]);
    assert_eq!((well.code, &well.json()["status"]), (0, &json!("OK")), "{well:?}");
    let gone = agent.run(&["--server", "unix:/nowhere/api.sock", "health", "--json"]);
    assert_eq!((gone.code, &gone.json()["status"]), (3, &json!("UNKNOWN")), "{gone:?}");
    assert!(gone.json()["message"].as_str().is_some_and(|text| text.contains("/nowhere")), "{gone:?}");
}

#[test]
fn stop_all_tells_each_session_as_json() {
    let agent = Agent::start();
    let stop_all = || agent.run(&["stop-all", "--json"]);
    let idle = json!({ "nothingIsRecorded": true, "sessions": [], "stillActive": [] });
    assert_eq!(stop_all().json(), idle);
    agent.begin(&single(ID, 0));
    let stopped = stop_all();
    assert_eq!((stopped.code, stopped.err.as_str()), (0, ""), "{stopped:?}");
    let stopped = stopped.json();
    assert_eq!(stopped["nothingIsRecorded"], true, "{stopped:#}");
    let outcome = json!([{ "_id": ID, "name": "Pitch", "released": true, "error": null }]);
    assert_eq!(stopped["sessions"], outcome);
    let unsure = Ended::of(shutterd().args(["--server", "unix:/nowhere/api.sock", "stop-all", "--json"]));
    assert_eq!((unsure.code, unsure.out.as_str()), (5, ""), "{unsure:?}");
    let hint = error_of(&unsure)["hint"].take();
    assert!(hint.as_str().is_some_and(|hint| hint.contains("NOT known")), "{hint}");
}

#[test]
fn check_config_is_told_as_json() {
    let dir = TempDir::new().expect("a directory can be made");
    let path = dir.path().join("c.toml");
    let check = || Ended::of(shutterd().arg("--config").arg(&path).args(["check-config", "--json"]));
    fs::write(&path, "state_dir = \"/tmp\"\n").expect("it can be written");
    let good = check();
    assert_eq!(good.json(), json!({ "path": path, "isThere": true, "isGood": true }), "{good:?}");
    fs::write(&path, "state_dri = \"/tmp\"\n").expect("it can be written");
    let bad = check();
    assert_eq!((bad.code, bad.out.as_str()), (78, ""), "{bad:?}");
    let error = error_of(&bad);
    assert_eq!(error["reason"], "CONFIG");
    assert!(error["message"].as_str().is_some_and(|text| text.contains("state_dri")), "{error:#}");
}

#[test]
fn a_failure_is_an_object_with_its_reason() {
    let agent = Agent::start();
    agent.begin(&single(ID, 0));
    let failed = |arguments: &[&str], code: i32, reason: &str| {
        let ended = Ended::of(agent.command(arguments).arg("--json"));
        assert_eq!((ended.code, ended.out.as_str()), (code, ""), "{arguments:?}: {ended:?}");
        let error = error_of(&ended);
        assert_eq!(error["reason"], reason, "{arguments:?}: {error:#}");
        error
    };
    let unknown = failed(&["session", "show", "nobody"], 3, "SESSION_NOT_FOUND");
    assert_eq!(unknown["about"]["session"], "nobody", "{unknown:#}");
    assert_eq!(unknown["message"], "there is no session nobody on this host");
    let busy = failed(&["session", "start", &agent.file(&session("second"))], 4, "DEVICE_BUSY");
    assert_eq!((&busy["about"]["holder"], busy["hint"].is_string()), (&json!(ID), true), "{busy:#}");
    failed(&["session", "start", "/nowhere"], 2, "USAGE");
    failed(&["--server", "unix:/nowhere/api.sock", "session", "list"], 5, "UNAVAILABLE");
    let wrong = failed(&["session", "stop", ID, "--drain-timeout", "soon"], 2, "USAGE");
    assert!(wrong["message"].as_str().is_some_and(|text| text.contains("--drain-timeout")), "{wrong:#}");
    let missing = failed(&["session", "stop"], 2, "USAGE");
    assert!(missing["message"].as_str().is_some_and(|text| text.contains("<ID>")), "{missing:#}");
    failed(&["no-such-command"], 2, "USAGE");
}
