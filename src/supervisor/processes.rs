//! The processes that the actor has made, and how it learns what became of them. Behind a trait, so that a
//! test can play them against a clock of its own.

use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use rustix::process::Signal;

use super::child::{self, Program};
use super::launch::{self, Process};
use super::leftover;
use super::refusal::Refusal;
use super::search::Found;
use crate::config::Settings;
use crate::journal::WorkerIdentity;
use crate::link::RepairReport;
use crate::session::{MediaFile, SessionId};

/// What a process will have come to.
pub(super) type Outcome<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Makes processes, and finds those that an earlier daemon made.
pub(super) trait Processes: Send + Sync {
    /// Which boot of the host this is (`/proc/sys/kernel/random/boot_id`).
    fn boot_id(&self) -> String;

    /// Starts a worker for `session`; the outcome is how it ended, once it was reaped.
    fn launch(&self, session: &SessionId) -> std::io::Result<(Box<dyn Worker>, Outcome<String>)>;

    /// The worker of `session` that an earlier daemon started, if it still runs; the outcome comes with its
    /// end. It is the `known` one, or one that the daemon had no time to write down.
    fn adopt(
        &self,
        session: &SessionId,
        known: Option<&WorkerIdentity>,
    ) -> Option<(Box<dyn Worker>, Outcome<String>)>;

    /// Looks for the devices of the host.
    fn probe(&self, timeout: Duration) -> Outcome<Result<Found, Refusal>>;

    /// Repairs what a dead worker left.
    fn repair(&self, order: RepairOrder, timeout: Duration) -> Outcome<Result<RepairReport, Refusal>>;
}

/// A worker process.
pub(super) trait Worker: Send {
    /// Its process id.
    fn pid(&self) -> u32;

    /// What tells it from every other process of this host, ever.
    fn identity(&self) -> WorkerIdentity;

    /// Sends it a signal; one that is gone needs none. `session` is whose worker it is, for the log.
    fn signal(&self, session: &str, signal: Signal);
}

/// What is to be repaired.
pub(super) struct RepairOrder {
    /// Whose files.
    pub(super) session: SessionId,
    /// Where they are.
    pub(super) dir: PathBuf,
    /// Files that were finished.
    pub(super) known: Vec<MediaFile>,
    /// A new worker writes those from this number on.
    pub(super) before: Option<u32>,
}

/// This program, run again.
pub(super) struct OwnProgram {
    program: Program,
    link_path: PathBuf,
}

impl OwnProgram {
    /// The program that the config names; its workers dial `link_path`.
    pub(super) fn new(settings: &Settings, link_path: PathBuf) -> Self {
        Self { program: Program::new(settings), link_path }
    }
}

impl Processes for OwnProgram {
    fn boot_id(&self) -> String {
        launch::boot_id()
    }

    fn launch(&self, session: &SessionId) -> std::io::Result<(Box<dyn Worker>, Outcome<String>)> {
        let (process, reaped) = launch::launch(&self.program, &self.link_path, session)?;
        Ok((Box::new(process), Box::pin(reaped)))
    }

    fn adopt(
        &self,
        session: &SessionId,
        known: Option<&WorkerIdentity>,
    ) -> Option<(Box<dyn Worker>, Outcome<String>)> {
        let known = known.and_then(|identity| launch::adopt(identity).ok());
        let unknown = || launch::adopt(&leftover::identity(&self.link_path, session)?).ok();
        let (process, ended) = known.or_else(unknown)?;
        Some((Box::new(process), Box::pin(ended)))
    }

    fn probe(&self, timeout: Duration) -> Outcome<Result<Found, Refusal>> {
        Box::pin(child::probe(self.program.clone(), timeout))
    }

    fn repair(&self, order: RepairOrder, timeout: Duration) -> Outcome<Result<RepairReport, Refusal>> {
        let program = self.program.clone();
        Box::pin(async move { child::repair(&program, &order, timeout).await })
    }
}

impl Worker for Process {
    fn pid(&self) -> u32 {
        Process::pid(self)
    }

    fn identity(&self) -> WorkerIdentity {
        Process::identity(self)
    }

    fn signal(&self, session: &str, signal: Signal) {
        Process::signal(self, session, signal);
    }
}
