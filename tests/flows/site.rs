//! Where one test takes place: a directory with a config, and every process that was started there.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustix::process::{Pid, Signal, getuid, kill_process};
use tempfile::TempDir;

/// Marks every process of a site, so that none is left behind.
pub const SITE_VARIABLE: &str = "FLOWS_SITE";
/// How much of the log a failure shows.
const LOG_BYTES_SHOWN: usize = 24_000;

/// A directory with everything of one test.
pub struct Site {
    dir: TempDir,
    mounts: Vec<PathBuf>,
    user: u32,
}

/// A process of a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    pub words: Vec<String>,
}

impl Site {
    /// A site whose agents have `devices`, and `settings` as lines of TOML with dotted keys.
    pub fn new(settings: &str, devices: &[String]) -> Arc<Self> {
        Arc::new(Self::unshared(settings, devices))
    }

    /// As [`Site::new`], to be changed before it is shared.
    pub fn unshared(settings: &str, devices: &[String]) -> Self {
        // The path of a Unix socket is short, and TMPDIR may be long.
        let dir =
            tempfile::Builder::new().prefix("flow").tempdir_in("/tmp").expect("a directory for the test");
        let path = dir.path().display();
        let config = format!(
            "state_dir = \"{path}/state\"\nruntime_dir = \"{path}/run\"\nmedia_dir = \"{path}/media\"\n\
             api.tcp = \"127.0.0.1:0\"\nhttp.listen = \"127.0.0.1:0\"\nlog.format = \"human\"\n{settings}\n{}",
            devices.concat()
        );
        fs::write(dir.path().join("flow.toml"), config).expect("a config for the test");
        Self { dir, mounts: Vec::new(), user: getuid().as_raw() }
    }

    /// Has this user's agents here, with a copy of the binary that every user may run.
    pub fn belongs_to(&mut self, user: u32) {
        self.user = user;
        fs::copy(env!("CARGO_BIN_EXE_shutterd"), self.dir().join("shutterd")).expect("it can be copied");
        fs::set_permissions(self.dir(), fs::Permissions::from_mode(0o755)).expect("the directory is ours");
        chown(self.dir(), Some(user), Some(user)).expect("root may give it away");
    }

    /// The binary, run by `user`, out of reach of what this environment says about other agents.
    pub fn shutterd_as(&self, user: u32) -> Command {
        let copy = self.dir().join("shutterd");
        let mut command =
            Command::new(if copy.exists() { &copy } else { Path::new(env!("CARGO_BIN_EXE_shutterd")) });
        if user != getuid().as_raw() {
            command.uid(user).gid(user);
        }
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SHUTTERD_"))
        {
            command.env_remove(name);
        }
        command.env(SITE_VARIABLE, self.dir()).stdin(Stdio::null());
        command
    }

    /// The binary as the user of this site's agents.
    pub fn shutterd(&self) -> Command {
        self.shutterd_as(self.user)
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn media_dir(&self) -> PathBuf {
        self.dir().join("media")
    }

    /// The directory of a session's media.
    pub fn session_dir(&self, id: &str) -> PathBuf {
        self.media_dir().join(id)
    }

    /// The end of the log, for appending.
    pub fn log_file(&self) -> File {
        let path = self.dir().join("serve.log");
        OpenOptions::new().create(true).append(true).open(path).expect("a log for the test")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir().join("serve.log")).unwrap_or_default()
    }

    /// Puts a memory disk of this size at `name`; false, and the test is to be skipped, where this process
    /// may not mount.
    pub fn small_disk(&mut self, name: &str, options: &str) -> bool {
        let dir = self.dir().join(name);
        fs::create_dir_all(&dir).expect("a directory for the disk");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "shutterd-flows"])
            .arg(&dir)
            .output()
            .expect("mount can be run");
        if mounted.status.success() {
            self.mounts.push(dir);
        } else {
            let why = String::from_utf8_lossy(&mounted.stderr);
            skip(&format!("this needs a small disk, and none can be mounted: {}", why.trim()));
        }
        mounted.status.success()
    }

    /// The processes of this site that are still there; what was killed and not reaped is not.
    pub fn processes(&self) -> Vec<Process> {
        let mark = format!("{SITE_VARIABLE}={}", self.dir().display());
        let entries = fs::read_dir("/proc").expect("processes can be listed");
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
        pids.filter_map(|pid| {
            let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
            let own = environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes());
            let words =
                fs::read(format!("/proc/{pid}/cmdline")).ok().filter(|words| own && !words.is_empty())?;
            let words = words.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
            Some(Process { pid, words: words.collect() })
        })
        .collect()
    }

    /// The workers of this site, but for those that were killed.
    pub fn workers(&self) -> Vec<u32> {
        let workers =
            self.processes().into_iter().filter(|process| process.words.iter().any(|it| it == "--link"));
        workers.map(|process| process.pid).collect()
    }

    /// The worker of a session.
    pub fn worker(&self, id: &str) -> u32 {
        let own = |process: &&Process| process.words.windows(2).any(|pair| pair == ["--session", id]);
        self.processes().iter().find(own).expect("the session has a worker").pid
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let shown = log.floor_char_boundary(log.len().saturating_sub(LOG_BYTES_SHOWN));
            say(&format!("--- the agent's log in {} ---\n{}", self.dir().display(), &log[shown..]));
        }
        for process in self.processes() {
            if let Some(pid) = i32::try_from(process.pid).ok().and_then(Pid::from_raw) {
                // One that has ended by now needs no signal.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        for dir in &self.mounts {
            // A lazy one succeeds also while something that was killed still holds a file.
            let _ = Command::new("umount").arg("--lazy").arg(dir).status();
        }
    }
}

/// Tells that a test tries nothing here, and why, past the test's captured output. CI skips nothing.
///
/// # Panics
/// The variable `CI` is set.
pub fn skip(why: &str) {
    say(&format!("SKIPPED: {:?}: {why}", std::thread::current().name().unwrap_or_default()));
    assert!(std::env::var_os("CI").is_none_or(|value| value.is_empty()), "CI skips nothing: {why}");
}

fn say(text: &str) {
    writeln!(std::io::stderr(), "{text}").expect("standard error takes a line");
}

/// A synthetic camera, 30 frames a second.
pub fn camera(id: &str) -> String {
    faulty_camera(id, "")
}

/// A synthetic camera that obeys orders such as `{ at_frame = 30, frames = 60, fault = "stall" }`.
pub fn faulty_camera(id: &str, orders: &str) -> String {
    format!(
        "[[devices]]\nid = \"{id}\"\nname = \"Camera {id}\"\nkind = \"synthetic\"\nmedia = \"video\"\n\
         width = 320\nheight = 180\nframe_rate = 30\nfaults = [{orders}]\n"
    )
}

/// A synthetic microphone, 48 kHz mono.
pub fn microphone(id: &str) -> String {
    faulty_microphone(id, "")
}

/// A synthetic microphone that obeys orders.
pub fn faulty_microphone(id: &str, orders: &str) -> String {
    format!(
        "[[devices]]\nid = \"{id}\"\nname = \"Microphone {id}\"\nkind = \"synthetic\"\nmedia = \"audio\"\n\
         faults = [{orders}]\n"
    )
}
