//! Workers that a daemon which was stopped left behind: found by their command line, asked to drain,
//! then ended by force. Must never touch a worker of another runtime directory.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use super::launch::{Process, name_of};
use crate::clock::{Clock, MonoTime, SystemClock};
use crate::journal::WorkerIdentity;
use crate::session::SessionId;

/// How long workers are waited for.
#[derive(Clone, Copy, Debug)]
pub struct EndLimits {
    /// Until they have ended by themselves: they were told to, and drain.
    pub told: Duration,
    /// From SIGTERM to SIGKILL.
    pub term: Duration,
    /// From SIGKILL until they count as stuck in the kernel.
    pub kill: Duration,
}

/// What became of the workers that were left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOver {
    /// Workers that ran when they were looked for.
    pub found: usize,
    /// Of these, the ones that can't be ended.
    pub stuck: usize,
}

/// Ends every worker that dials `link`. Blocks, at most for all of `limits`.
pub fn end_left_over(link: &Path, limits: EndLimits) -> LeftOver {
    let mut workers = find(link);
    let found = workers.len();
    wait(&mut workers, limits.told);
    for (signal, timeout) in [(Signal::TERM, limits.term), (Signal::KILL, limits.kill)] {
        for (worker, session) in &workers {
            let (pid, signal_name) = (worker.pid(), name_of(signal));
            tracing::warn!(session, pid, signal = signal_name, "a worker is left after the stop");
            worker.signal(session, signal);
        }
        wait(&mut workers, timeout);
    }
    LeftOver { found, stuck: workers.len() }
}

/// The sessions of the workers that dial `link`.
pub(super) fn sessions(link: &Path) -> HashSet<String> {
    find(link).into_iter().map(|(_, session)| session).collect()
}

/// The worker of `session` that dials `link`.
pub(super) fn identity(link: &Path, session: &SessionId) -> Option<WorkerIdentity> {
    let mut workers = find(link).into_iter();
    workers.find(|(_, of)| of == session.as_str()).map(|(process, _)| process.identity())
}

/// The workers that dial `link`, with their sessions, of those whose command line this process may read.
fn find(link: &Path) -> Vec<(Process, String)> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    // The pid could be reused between the look at it and the opening: so it is looked at again.
    pids.filter(|pid| session_of(*pid, link).is_some())
        .filter_map(|pid| Process::open(pid).ok())
        .filter_map(|process| session_of(process.pid(), link).map(|session| (process, session)))
        .collect()
}

/// The session of `pid`, if it was started as [`launch`](super::launch::launch) starts workers. One that
/// has ended and was not reaped has no command line.
fn session_of(pid: u32, link: &Path) -> Option<String> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut words = line.split(|byte| *byte == 0).skip(1);
    let expected = [OsStr::new("worker"), OsStr::new("--link"), link.as_os_str(), OsStr::new("--session")];
    let is_worker = expected.iter().all(|word| words.next() == Some(word.as_bytes()));
    words.next().filter(|_| is_worker).map(|session| String::from_utf8_lossy(session).into_owned())
}

/// Waits until all have ended, or for `timeout`; those that have ended are taken out.
fn wait(workers: &mut Vec<(Process, String)>, timeout: Duration) {
    let deadline = SystemClock.now() + timeout;
    while !workers.is_empty() {
        workers.retain(|(worker, _)| !has_ended_by(worker, deadline));
        if SystemClock.now() >= deadline {
            return;
        }
    }
}

fn has_ended_by(worker: &Process, deadline: MonoTime) -> bool {
    let left = Timespec::try_from(deadline.since(SystemClock.now())).ok();
    poll(&mut [PollFd::new(worker, PollFlags::IN)], left.as_ref()).is_ok_and(|ready| ready > 0)
}
