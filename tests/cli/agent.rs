//! An agent for a test, and the binary as a command.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// Longest wait for an agent to come up.
const READY_TIMEOUT: Duration = Duration::from_secs(20);
/// Lines of a log that may wait to be looked at.
const LOG_LINES_MAX: usize = 10_000;

/// The binary, out of reach of what this environment says about other agents.
pub fn shutterd() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shutterd"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SHUTTERD_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// How a command ended, and what it said.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ended {
    pub fn of(command: &mut Command) -> Self {
        let output = command.output().expect("the binary runs");
        Self {
            code: output.status.code().expect("no signal ended it"),
            out: String::from_utf8(output.stdout).expect("text"),
            err: String::from_utf8(output.stderr).expect("text"),
        }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A running agent; it is ended with the test.
pub struct Agent {
    dir: TempDir,
    child: Child,
    reader: Option<JoinHandle<()>>,
    is_killed: bool,
    /// The TCP address that it listens on.
    pub tcp: String,
}

impl Agent {
    pub fn start() -> Self {
        Self::start_in(TempDir::new().expect("a directory can be made"), "")
    }

    /// An agent in `dir`, with further `settings` as lines of TOML with dotted keys.
    pub fn start_in(dir: TempDir, settings: &str) -> Self {
        let device = |name: &str, media: &str| {
            format!(
                "[[devices]]\nid = \"{media}\"\nname = \"{name}\"\nkind = \"synthetic\"\nmedia = \"{media}\"\n"
            )
        };
        let config = format!(
            "state_dir = \"{0}/state\"\nruntime_dir = \"{0}/run\"\n{settings}\n[api]\ntcp = \"127.0.0.1:0\"\n[http]\nlisten = \"off\"\n\
             [log]\nformat = \"json\"\n{1}{2}",
            dir.path().display(),
            device("Integrated Webcam", "video"),
            device("Built-in Microphone", "audio"),
        );
        fs::write(dir.path().join("shutterd.toml"), config).expect("the config can be written");
        let mut child = shutterd()
            .arg("--config")
            .arg(dir.path().join("shutterd.toml"))
            .arg("serve")
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let log = child.stderr.take().expect("it is piped");
        let (sender, lines) = sync_channel(LOG_LINES_MAX);
        let read = move || {
            // Reads on when nobody listens, so that the agent never waits for its log.
            for line in BufReader::new(log).lines().map_while(Result::ok) {
                let _ = sender.try_send(line);
            }
        };
        let reader = Builder::new().name("log".to_owned()).spawn(read).expect("a thread can be made");
        let mut agent = Self { dir, child, reader: Some(reader), is_killed: false, tcp: String::new() };
        agent.tcp = ready(&lines);
        agent
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = shutterd();
        command.arg("--config").arg(self.dir.path().join("shutterd.toml")).args(arguments);
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ended {
        Ended::of(&mut self.command(arguments))
    }

    /// Where a session's media is.
    pub fn session_dir(&self, id: &str) -> PathBuf {
        self.dir.path().join("state/media").join(id)
    }

    /// Writes a session's file and answers its path.
    pub fn file(&self, session: &Value) -> String {
        let path = self.dir.path().join("session.json");
        fs::write(&path, session.to_string()).expect("the file can be written");
        path.to_str().expect("text").to_owned()
    }

    /// Ends it as a crash would, together with what captures this session.
    pub fn kill(&mut self, id: &str) {
        let worker = self.worker(id);
        self.is_killed = true;
        signal(&self.child, Signal::KILL);
        kill_process(worker, Signal::KILL).expect("it is there");
    }

    /// The process that captures the session.
    pub fn worker(&self, id: &str) -> Pid {
        let words = ["--link", &self.dir.path().join("run").display().to_string(), "--session", id];
        let is_worker = |pid: i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            words.iter().all(|word| line.contains(word))
        };
        let entries = fs::read_dir("/proc").expect("processes can be listed");
        let mut pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        pids.find(|pid| is_worker(*pid)).and_then(Pid::from_raw).expect("the session has a worker")
    }

    pub fn begin(&self, session: &Value) {
        let started = self.run(&["session", "start", &self.file(session)]);
        assert_eq!(started.code, 0, "{started:?}");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if !self.is_killed {
            signal(&self.child, Signal::TERM);
        }
        let ended = self.child.wait();
        let read = self.reader.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            assert!(ended.is_ok_and(|status| status.success() != self.is_killed), "the agent ends well");
            assert!(read.is_some_and(|read| read.is_ok()), "its log was read");
        }
    }
}

/// Waits for the line that says that the agent serves; its TCP address.
fn ready(lines: &Receiver<String>) -> String {
    let deadline = Instant::now() + READY_TIMEOUT;
    let mut seen = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let line = lines.recv_timeout(left).unwrap_or_else(|error| panic!("{error}; the log: {seen:#?}"));
        let entry: Value = serde_json::from_str(&line).unwrap_or_default();
        if entry["message"] == "ready" {
            return entry["tcp"].as_str().expect("it listens on TCP").to_owned();
        }
        seen.push(line);
    }
}

pub fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("it has a process id");
    kill_process(pid, signal).expect("it was not waited for yet");
}
