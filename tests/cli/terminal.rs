//! What a terminal is shown and what a file or a pipe gets: progress that moves, colours, and the help.

use std::io::Read;
use std::process::{Child, Command, Stdio};

use rustix::process::{Signal, kill_process};
use shutterd::clock::{Clock, SystemClock, WallTime};
use tempfile::TempDir;

use super::agent::{Agent, Ended, shutterd};
use super::{ID, single};

/// What the terminal's own commands begin with.
const ESCAPE: char = '\u{1b}';
/// A part of a progress bar that is full.
const BLOCK: char = '█';

/// The command with a terminal for its outputs, which script(1) makes and copies to its own.
fn at_terminal(command: &Command) -> Command {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words = words.map(|word| format!("'{}'", word.to_str().expect("text").replace('\'', r"'\''")));
    let line = words.collect::<Vec<_>>().join(" ");
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &line, "/dev/null"]).stdin(Stdio::null());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => script.env(name, value),
            None => script.env_remove(name),
        };
    }
    script.env("SHELL", "/bin/sh");
    script
}

/// The binary at a terminal with colours, where nothing forbids them or forces them.
fn colourful() -> Command {
    let mut command = shutterd();
    command.env("TERM", "xterm-256color");
    for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
        command.env_remove(name);
    }
    command
}

/// Whether the text sets a colour or a style (ECMA-48, SGR).
fn is_styled(text: &str) -> bool {
    text.split(ESCAPE).skip(1).any(|rest| {
        let sequence = rest.strip_prefix('[').unwrap_or_default();
        sequence.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';').starts_with('m')
    })
}

#[test]
fn the_help_is_styled_on_a_terminal_alone_and_not_where_that_is_unwanted() {
    let piped = Ended::of(colourful().arg("--help"));
    assert!(piped.code == 0 && !piped.out.contains(ESCAPE), "{piped:?}");
    let shown = Ended::of(&mut at_terminal(colourful().arg("--help")));
    assert!(shown.code == 0 && is_styled(&shown.out), "{shown:?}");
    let plain = Ended::of(&mut at_terminal(colourful().env("NO_COLOR", "1").arg("--help")));
    assert!(plain.code == 0 && !plain.out.contains(ESCAPE), "{plain:?}");
    assert_eq!(plain.out.replace("\r\n", "\n").trim_end(), piped.out.trim_end());
}

#[test]
fn the_help_names_what_people_run_and_nothing_that_the_agent_runs() {
    let help = Ended::of(shutterd().arg("--help"));
    let commands: Vec<&str> = help
        .out
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next())
        .collect();
    assert!(
        ["serve", "demo", "session", "stop-all", "repair"].iter().all(|it| commands.contains(it)),
        "{commands:?}"
    );
    for hidden in ["worker", "probe", "end-workers"] {
        assert!(!commands.contains(&hidden), "{commands:?}");
    }
}

#[test]
fn a_demo_shows_a_bar_on_a_terminal_and_only_there() {
    let (one, other, third) = (TempDir::new(), TempDir::new(), TempDir::new());
    let demo = |dir: &std::io::Result<TempDir>| {
        let mut command = colourful();
        let dir = dir.as_ref().expect("a directory can be made").path();
        command.args(["demo", "--seconds", "1", "--dir"]).arg(dir);
        command
    };
    let shown = Ended::of(&mut at_terminal(&demo(&one)));
    assert!(shown.code == 0 && shown.out.contains(BLOCK) && shown.out.contains("durable, "), "{shown:?}");
    let plain = Ended::of(&mut at_terminal(demo(&other).env("NO_COLOR", "1")));
    assert!(plain.code == 0 && plain.out.contains(BLOCK) && !is_styled(&plain.out), "{plain:?}");
    let piped = Ended::of(&mut demo(&third));
    assert_eq!((piped.code, piped.err.as_str()), (0, ""), "{piped:?}");
    assert!(!piped.out.contains(BLOCK) && !piped.out.contains(ESCAPE), "{piped:?}");
    for told in [shown, plain, piped] {
        assert!(told.out.contains("everything captured is in the files"), "{told:?}");
    }
}

#[test]
fn each_demo_has_a_session_of_its_own_that_would_end_by_itself() {
    let dirs = [TempDir::new(), TempDir::new()].map(|dir| dir.expect("a directory can be made"));
    let demos = dirs.each_ref().map(|dir| {
        let mut command = shutterd();
        command.args(["demo", "--seconds", "1", "--json", "--dir"]).arg(dir.path());
        command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the binary runs")
    });
    let begun_at = SystemClock.wall();
    let ids = demos.map(|demo| {
        let session = answer(demo)["session"].take();
        let expires = session["meta"]["expires"].as_str().expect("a time");
        let expires: WallTime = expires.parse().expect("times are RFC 3339");
        assert!(expires > begun_at, "{session:#}");
        session["_id"].as_str().expect("an id").to_owned()
    });
    assert_ne!(ids[0], ids[1]);
}

fn answer(demo: Child) -> serde_json::Value {
    let ended = demo.wait_with_output().expect("it ends");
    assert!(ended.status.success());
    serde_json::from_slice(&ended.stdout).expect("one object")
}

#[test]
fn a_stop_at_a_terminal_shows_its_drain_at_once_and_clears_it() {
    let agent = Agent::start();
    agent.begin(&single(ID, 0));
    let worker = agent.worker(ID);
    kill_process(worker, Signal::STOP).expect("it is there");
    let mut stop = at_terminal(colourful().args(agent.command(&["session", "stop", ID]).get_args()))
        .stdout(Stdio::piped())
        .spawn()
        .expect("script can be run");
    let mut screen = stop.stdout.take().expect("it is piped");
    let mut shown = String::new();
    let mut space = [0; 256];
    while !shown.contains("active (draining), ") {
        let count = screen.read(&mut space).expect("it can be read");
        assert_ne!(count, 0, "{shown}");
        shown.push_str(&String::from_utf8_lossy(&space[..count]));
    }
    assert!(!shown.contains("after the stop"), "the line moves, it is no log: {shown}");
    kill_process(worker, Signal::CONT).expect("it is there");
    let mut rest = String::new();
    screen.read_to_string(&mut rest).expect("text");
    assert!(stop.wait().expect("it ends").success(), "{rest}");
    assert!(rest.contains("\u{1b}[2K"), "the line is cleared: {rest:?}");
    assert!(rest.contains("everything captured is in the files"), "{rest}");
}
