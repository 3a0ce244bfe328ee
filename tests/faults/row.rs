//! A row of the table: a fault, how it is injected, and what became of it.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use rustix::process::Pid;
use shutterd::api::proto::Receipt;

use crate::agent::Agent;
use crate::media::check;

/// The work of a row.
pub type Work = Pin<Box<dyn Future<Output = Outcome>>>;

/// A fault that a capture host meets.
#[derive(Clone, Copy)]
pub struct Row {
    /// Its name in the table.
    pub id: &'static str,
    /// The fault, and how it is injected.
    pub fault: &'static str,
    /// How it is tried.
    pub case: Case,
}

/// How a row is tried.
#[derive(Clone, Copy)]
pub enum Case {
    /// By this, on this machine.
    Here(fn() -> Work),
    /// As `Here`, while no other row runs.
    Alone(fn() -> Work),
    /// In the virtual machine, which tells its outcome.
    VirtualMachine,
}

/// What became of a row.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Shutterd holds.
    Holds {
        /// Frames and samples that were captured and are not in the files.
        lost: u64,
        /// How long the stop took.
        stop: Option<Duration>,
        /// What was seen.
        seen: String,
    },
    /// It doesn't: what was expected and what was seen.
    Fails(String),
    /// It could not be tried here.
    NotRun(String),
}

impl Outcome {
    pub fn verdict(&self) -> &'static str {
        match self {
            Self::Holds { .. } => "holds",
            Self::Fails(_) => "FAILS",
            Self::NotRun(_) => "not run",
        }
    }

    /// A row without a session of its own.
    pub fn holds(seen: impl Into<String>) -> Self {
        Self::Holds { lost: 0, stop: None, seen: seen.into() }
    }

    /// A process may not be traced here.
    pub fn untraceable() -> Self {
        Self::NotRun("strace may not attach to a process here".to_owned())
    }
}

/// Frames and samples that were captured and are not in the files.
pub fn lost(receipt: &Receipt) -> u64 {
    receipt.sources.iter().map(|source| source.lost + source.dropped).sum()
}

/// A process, for the kernel.
pub fn pid_of(pid: u32) -> Pid {
    i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id")
}

/// A session that was stopped: its receipt, and how long the stop took.
pub struct Stopped {
    pub receipt: Receipt,
    pub took: Duration,
}

impl Stopped {
    /// Stops the session and checks every file of it against the receipt.
    pub async fn of(agent: &Agent, id: &str) -> Self {
        let asked_at = Instant::now();
        let stopped = agent.stop(id).await.expect("a stop is answered");
        let took = asked_at.elapsed();
        let receipt = stopped.receipt.expect("its receipt");
        check(&agent.site, &receipt);
        Self { receipt, took }
    }

    /// Frames and samples that were captured and are not in the files.
    pub fn lost(&self) -> u64 {
        lost(&self.receipt)
    }

    /// The row holds, with what was lost of this session.
    pub fn holds(&self, seen: impl Into<String>) -> Outcome {
        Outcome::Holds { lost: self.lost(), stop: Some(self.took), seen: seen.into() }
    }

    /// As [`Stopped::holds`]; nothing may be lost.
    pub fn holds_whole(&self, seen: impl Into<String>) -> Outcome {
        assert_eq!(self.lost(), 0, "nothing may be lost: {:?}", self.receipt);
        self.holds(seen)
    }
}
