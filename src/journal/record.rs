//! What the journal keeps of a session. Wall clock times are kept to the millisecond.

use serde::{Deserialize, Serialize};

use crate::clock::{Anchor, MonoTime, WallTime};
use crate::session::device::DeviceSpec;
use crate::session::{Account, DeadWorkers, EndReason, Receipt, SessionSpec, StartOptions, WorkerState};

/// When a session ends by itself, by the clocks of one boot of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndsRecord {
    /// The boot (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
    /// `CLOCK_BOOTTIME` in nanoseconds at which it expires.
    pub expires_at: Option<u64>,
    /// `CLOCK_MONOTONIC` at which it has lasted its longest.
    pub ends_at: Option<MonoTime>,
}

/// What the journal keeps of a session. A member that comes later gets a default, so that older records
/// stay readable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The session as it was handed in.
    pub spec: SessionSpec,
    /// How it is captured.
    pub options: StartOptions,
    /// What it captures with; these devices are leased while it is unfinished.
    pub devices: Vec<DeviceSpec>,
    /// When its start was accepted.
    pub created_at: WallTime,
    /// The process that captures it.
    pub worker: Option<WorkerIdentity>,
    /// When it ends by itself, by clocks that nobody sets.
    #[serde(default)]
    pub ends: Option<EndsRecord>,
    /// The stop that was accepted first.
    pub stop: Option<StopRecord>,
    /// Keys of the stops that ended it: a retry of one of them is answered as the first was.
    #[serde(default)]
    pub stop_keys: Vec<String>,
    /// How the session's times become wall time.
    #[serde(default)]
    pub anchor: Option<Anchor>,
    /// The beginning of its media, `CLOCK_MONOTONIC` of the boot of [`Record::worker`].
    #[serde(default)]
    pub origin: Option<MonoTime>,
    /// What earlier workers of the session left, which have died.
    #[serde(default)]
    pub dead: Option<DeadWorkers>,
    /// The session's last account.
    pub account: Option<Account>,
    /// Its receipt: it is finished.
    pub receipt: Option<Receipt>,
    /// Captured seconds.
    pub duration_seconds: Option<f64>,
    /// The worker had to be ended by force, or died.
    pub forced: bool,
    /// Time of the last durable packet.
    pub health_check: Option<WallTime>,
    /// `meta.workerState` of the API.
    pub worker_state: String,
    /// Cursor over changes of all sessions, from 1.
    pub change: u64,
}

/// A process, so that another one that got its pid is never taken for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerIdentity {
    /// Its pid.
    pub pid: u32,
    /// When it started, in clock ticks after boot (field 22 of `/proc/PID/stat`, proc(5)).
    pub start_time: u64,
    /// The boot that both belong to (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
}

/// A stop that was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopRecord {
    /// Why.
    pub reason: EndReason,
    /// What is in memory is discarded.
    pub abort: bool,
    /// Frames stamped later are cut. Of no meaning after a reboot.
    pub at: MonoTime,
    /// The same by the wall clock.
    pub at_wall: WallTime,
}

/// Records, and what could not be read among them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Records {
    /// By their change.
    pub records: Vec<Record>,
    /// Ids of the sessions whose records can't be read.
    pub skipped: Vec<String>,
}

impl Record {
    /// A session whose start was accepted at `created_at`, and of which nothing has come yet.
    pub fn new(
        spec: SessionSpec,
        options: StartOptions,
        devices: Vec<DeviceSpec>,
        created_at: WallTime,
    ) -> Self {
        Self {
            spec,
            options,
            devices,
            created_at,
            worker: None,
            ends: None,
            stop: None,
            stop_keys: Vec::new(),
            anchor: None,
            origin: None,
            dead: None,
            account: None,
            receipt: None,
            duration_seconds: None,
            forced: false,
            health_check: None,
            worker_state: WorkerState::Starting.as_str().to_owned(),
            change: 0,
        }
    }

    /// The session has its receipt.
    pub fn is_finished(&self) -> bool {
        self.receipt.is_some()
    }
}
