//! Configs and places that can't be used, through the binary: the exit code says what kind of mistake
//! it is, the message where it is and what to do.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::site::skip;

/// `EX_CONFIG` of sysexits.h.
const CONFIG: i32 = 78;

/// A directory with a config whose first three lines name places in it.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new(settings: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("in").tempdir_in("/tmp").expect("a directory");
        let path = dir.path().display();
        let text = format!(
            "state_dir = \"{path}/state\"\nruntime_dir = \"{path}/run\"\nmedia_dir = \"{path}/media\"\n{settings}"
        );
        fs::write(dir.path().join("shutterd.toml"), text).expect("a config");
        Self { dir }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Runs a command with the config until it ends; an agent that does serve is ended after a while.
    fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new("timeout");
        command.args(["--signal=TERM", "--kill-after=5", "10"]).arg(env!("CARGO_BIN_EXE_shutterd"));
        command.arg("--config").arg(self.path().join("shutterd.toml")).args(words).stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SHUTTERD_") {
                command.env_remove(name);
            }
        }
        command.output().expect("the binary runs")
    }

    /// `serve` ends at once with this code, and says all of this, on one line of standard error.
    fn assert_fails(&self, words: &[&str], code: i32, said: &[&str]) {
        let output = self.run(words);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{words:?}: {text}");
        let line = text.lines().find(|line| line.starts_with("error: "));
        let line = line.unwrap_or_else(|| panic!("{words:?} tells no error: {text}"));
        for part in said {
            assert!(line.contains(part), "{part:?} is missing in: {line}");
        }
        assert!(output.stdout.is_empty(), "nothing on standard output");
    }
}

#[test]
fn a_config_that_is_wrong_is_told_with_file_key_and_line() {
    let long = format!("runtime_dir = \"/tmp/{}\"", "r".repeat(90));
    let cases = [
        ("api.tpc = \"off\"", 4, "api.tpc"),
        ("recordings = \"/x\"", 4, "recordings"),
        ("[limits]\nsessions_max = \"many\"", 5, "limits.sessions_max"),
        ("[limits]\nsessions_max = 0", 5, "limits.sessions_max"),
        ("[limits]\ndrain_timeout_ms = 99999999", 5, "limits.drain_timeout_ms"),
        ("[media]\nsegment_seconds = 1.5", 5, "media.segment_seconds"),
        ("[media]\nfile_mode = \"0666\"", 5, "media.file_mode"),
        ("[media]\ngroup = \"no such group\"", 5, "media.group"),
        ("[api]\ntcp = \"0.0.0.0:7460\"", 5, "api.tcp"),
        ("[api]\ntcp = 7460", 5, "api.tcp"),
        ("[log]\nlevel = \"loud\"", 5, "log.level"),
        ("[worker]\npath = \"bin/shutterd\"", 5, "worker.path"),
        ("[[devices]]\nid = \"a\"\nkind = \"webcam\"", 6, "kind"),
        (
            "[[devices]]\nid = \"a\"\nkind = \"synthetic\"\nmedia = \"video\"\nsample_rate = 48000",
            8,
            "sample_rate",
        ),
        ("[[devices]]\nid = \"a\"\nkind = \"pipe\"\nmedia = \"video\"\npath = \"camera.fifo\"", 8, "path"),
        ("[[devices]]\nid = \"a\"\nkind = \"synthetic\"", 4, "media"),
        ("[api\n", 4, "TOML"),
        ("state_dir = \"/again\"", 4, "state_dir"),
    ];
    for (settings, line, key) in cases {
        let place = Place::new(settings);
        let at = format!("shutterd.toml:{line}");
        for words in [&["serve"], &["check-config"]] {
            place.assert_fails(words, CONFIG, &[&at, key]);
        }
        assert!(!place.path().join("state").exists(), "{settings}: nothing was made");
    }
    let place = Place::new("");
    let text = fs::read_to_string(place.path().join("shutterd.toml")).expect("the config");
    fs::write(
        place.path().join("shutterd.toml"),
        text.lines().next().into_iter().chain([long.as_str()]).collect::<Vec<_>>().join("\n"),
    )
    .expect("another config");
    place.assert_fails(&["serve"], CONFIG, &["shutterd.toml:2", "runtime_dir", "80 bytes"]);
}

#[test]
fn a_config_that_is_not_there_is_told_by_its_path() {
    let place = Place::new("");
    let path = place.path().join("shutterd.toml");
    fs::remove_file(&path).expect("the config was there");
    let shown = path.display().to_string();
    place.assert_fails(&["serve"], CONFIG, &[&shown, "--config"]);
    fs::create_dir(&path).expect("a directory in its place");
    place.assert_fails(&["serve"], CONFIG, &[&shown]);
    fs::remove_dir(&path).expect("the directory was there");
    fs::write(&path, [0xff, 0xfe, 0x00]).expect("bytes that are no text");
    place.assert_fails(&["serve"], CONFIG, &[&shown]);
    fs::write(&path, "#".repeat((1 << 20) + 1)).expect("a file that is too long");
    place.assert_fails(&["serve"], CONFIG, &[&shown, "longer"]);
}

#[test]
fn flags_that_are_wrong_are_told_by_their_name() {
    let place = Place::new("");
    place.assert_fails(&["serve", "--tcp", "192.0.2.1:7460"], CONFIG, &["--tcp", "loopback"]);
    place.assert_fails(&["serve", "--log-level", "loud"], CONFIG, &["--log-level"]);
    let long = format!("/tmp/{}", "r".repeat(90));
    place.assert_fails(&["serve", "--runtime-dir", &long], CONFIG, &["--runtime-dir", "80 bytes"]);
}

#[test]
fn places_that_cannot_be_used_are_told_by_their_key_and_path() {
    for (key, name) in [("media_dir", "media"), ("state_dir", "state"), ("runtime_dir", "run")] {
        let place = Place::new("api.tcp = \"off\"");
        let path = place.path().join(name);
        fs::write(&path, "a file").expect("a file in its place");
        place.assert_fails(&["serve"], 1, &[key, &path.display().to_string()]);
        assert_eq!(fs::read(&path).expect("it is still there"), b"a file");
    }
    let Some(mut command) = as_another_user() else {
        return skip("whether a directory may be written can't be tried as root without setpriv");
    };
    let place = Place::new("api.tcp = \"off\"");
    let media_dir = place.path().join("media");
    fs::create_dir(&media_dir).expect("a media directory");
    fs::set_permissions(&media_dir, Permissions::from_mode(0o555)).expect("a mode");
    fs::set_permissions(place.path(), Permissions::from_mode(0o777)).expect("a mode");
    // Where the binary was built may be out of another user's reach.
    let binary = place.path().join("binary");
    fs::copy(env!("CARGO_BIN_EXE_shutterd"), &binary).expect("room for a copy");
    command.arg(binary).arg("--config");
    let output = command.arg(place.path().join("shutterd.toml")).arg("serve").stdin(Stdio::null()).output();
    let output = output.expect("the binary runs");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    if text.contains("Permission denied") && text.contains("failed to execute") {
        return skip(&format!(
            "another user can't run a binary in {}: {}",
            place.path().display(),
            text.trim()
        ));
    }
    assert_eq!(output.status.code(), Some(1), "{text}");
    for part in ["media_dir", &media_dir.display().to_string(), "can't be written"] {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
}

/// What runs a command as a user to whom modes apply; this one, if it isn't root.
fn as_another_user() -> Option<Command> {
    if !rustix::process::getuid().is_root() {
        let mut command = Command::new("timeout");
        command.arg("10");
        return Some(command);
    }
    let found = Command::new("setpriv").arg("--version").output().is_ok_and(|output| output.status.success());
    found.then(|| {
        let mut command = Command::new("timeout");
        command.args(["10", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]);
        command
    })
}

#[test]
fn a_port_that_is_taken_is_told_with_the_key_that_changes_it() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let place = Place::new(&format!("api.tcp = \"{address}\""));
    place.assert_fails(&["serve"], 1, &[&address, "api.tcp"]);
    drop(taken);
}

#[test]
fn a_group_that_does_not_exist_is_an_error_of_the_config() {
    let place = Place::new("[media]\ngroup = \"shutterd-nobody\"");
    place.assert_fails(&["serve"], CONFIG, &["media.group", "shutterd-nobody", "groupadd"]);
}

#[test]
fn a_token_that_others_can_read_keeps_the_agent_from_serving() {
    let place = Place::new("api.tcp = \"off\"");
    let state_dir = place.path().join("state");
    fs::create_dir(&state_dir).expect("a state directory");
    let path = state_dir.join("operator.token");
    fs::write(&path, "ab".repeat(32)).expect("a token");
    fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("a mode");
    place.assert_fails(&["serve"], 1, &[&path.display().to_string(), "chmod 600"]);
}
