//! Worker processes: made, watched until they are reaped, and ended by signals. They are neither
//! killed on drop nor tied to this process's life.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::Stdio;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::sync::oneshot;

use super::child::Program;
use crate::journal::WorkerIdentity;
use crate::session::SessionId;

/// A worker process.
#[derive(Debug)]
pub(super) struct Process {
    pid: u32,
    pidfd: OwnedFd,
}

/// Starts a worker for `session`; the future ends when it was reaped, with how it ended.
pub(super) fn launch(
    program: &Program,
    link: &Path,
    session: &SessionId,
) -> std::io::Result<(Process, impl Future<Output = String> + Send + use<>)> {
    let mut child = program
        .command_for(session, "worker")
        .arg("--link")
        .arg(link)
        .arg("--session")
        .arg(session.as_str())
        .stdout(Stdio::null())
        .spawn()?;
    let pid = child.id().ok_or_else(|| std::io::Error::other("the worker has ended at once"))?;
    let pidfd = open(pid)?;
    let reaped = async move {
        match child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => format!("can't be waited for: {error}"),
        }
    };
    Ok((Process { pid, pidfd }, reaped))
}

/// A worker that an earlier daemon started, if it still runs; the future ends with it.
pub(super) fn adopt(
    identity: &WorkerIdentity,
) -> std::io::Result<(Process, impl Future<Output = String> + Send + use<>)> {
    let gone = || std::io::Error::from(std::io::ErrorKind::NotFound);
    if identity.boot_id != boot_id() || start_time(identity.pid) != Some(identity.start_time) {
        return Err(gone());
    }
    let pidfd = open(identity.pid)?;
    // The pid could have been reused between the look at it and the opening; and one that nobody has reaped
    // yet has ended all the same.
    if start_time(identity.pid) != Some(identity.start_time) || has_ended(&pidfd, Timespec::default()) {
        return Err(gone());
    }
    let watched = pidfd.try_clone()?;
    let (ended, end) = oneshot::channel();
    std::thread::Builder::new().name("adopted".to_owned()).spawn(move || watch(&watched, ended))?;
    let ended = async move {
        // The thread only ends without a word when nobody listens.
        let _ = end.await;
        "ended".to_owned()
    };
    Ok((Process { pid: identity.pid, pidfd }, ended))
}

impl Process {
    /// The process that has this id now.
    pub(super) fn open(pid: u32) -> std::io::Result<Self> {
        Ok(Self { pid, pidfd: open(pid)? })
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// What tells it from every other process of this host, ever.
    pub(super) fn identity(&self) -> WorkerIdentity {
        WorkerIdentity { pid: self.pid, start_time: start_time(self.pid).unwrap_or(0), boot_id: boot_id() }
    }

    /// Sends it a signal; one that is gone needs none. `session` is whose worker it is, for the log.
    pub(super) fn signal(&self, session: &str, signal: Signal) {
        if let Err(error) = pidfd_send_signal(self.pidfd.as_fd(), signal) {
            tracing::debug!(session, pid = self.pid, %error, "no signal sent");
        }
    }
}

/// What people call a signal that ends a worker.
pub(super) fn name_of(signal: Signal) -> &'static str {
    match signal {
        Signal::TERM => "SIGTERM",
        Signal::KILL => "SIGKILL",
        _ => "another signal",
    }
}

/// Readable once the process has ended (`pidfd_open(2)`).
impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// Waits until the process of `pidfd` has ended, or nobody wants to know any more.
fn watch(pidfd: &OwnedFd, ended: oneshot::Sender<()>) {
    while !ended.is_closed() {
        if has_ended(pidfd, Timespec { tv_sec: 1, tv_nsec: 0 }) {
            // Nobody may listen any more.
            let _ = ended.send(());
            return;
        }
    }
}

/// Whether the process of `pidfd` ends within `timeout`.
fn has_ended(pidfd: &OwnedFd, timeout: Timespec) -> bool {
    poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&timeout)).is_ok_and(|ready| ready > 0)
}

fn open(pid: u32) -> std::io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(std::io::ErrorKind::NotFound)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

pub(super) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Clock ticks after boot at which a process started (`proc_pid_stat(5)`, field 22).
fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in parentheses that may hold anything; the third follows its end.
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}
