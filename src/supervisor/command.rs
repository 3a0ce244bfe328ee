//! What the actor is told, and what it answers.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};

use super::refusal::Refusal;
use super::removal::{Reading, RemovalNotice};
use super::scope::Scope;
use super::search::Found;
use super::vitals::Look;
use crate::journal::{JournalError, Record, WorkerIdentity};
use crate::link::message::{Hello, ToWorker, from_worker};
use crate::link::{LastAccount, RepairReport};
use crate::session::device::MediaType;
use crate::session::health::Health;
use crate::session::machine::{Event, StopMode};
use crate::session::{Account, KeptMedia, Receipt, SessionId, SessionSpec, StartOptions};

/// A session as callers see it at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionView {
    /// Which session.
    pub id: SessionId,
    /// Count of its last change.
    pub change: u64,
    /// Whoever has seen this and asks for what changed after it is told of every later finish.
    pub cursor: u64,
    /// Its JSON.
    pub object: Map<String, Value>,
    /// Its receipt; complete once finished.
    pub receipt: Option<Receipt>,
    /// Whether it is over.
    pub finished: bool,
    /// What was captured so far.
    pub account: Account,
    /// Packets in the worker's memory.
    pub queued_packets: u64,
    /// Durable bytes.
    pub durable_bytes: u64,
    /// Written bytes that are not durable yet.
    pub pending_bytes: u64,
}

/// When a stop is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitFor {
    /// As soon as the devices are released.
    Released,
    /// When the session is finished.
    Finalized,
}

/// A stop, as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopRequest {
    /// What becomes of data in memory.
    pub mode: StopMode,
    /// How long the drain may take; the config's if absent.
    pub drain: Option<Duration>,
    /// When to answer.
    pub wait: WaitFor,
    /// What a retry of this stop is known by: it is answered as the first was, also once the session
    /// is finished.
    pub key: Option<String>,
}

/// The answer to a stop.
#[derive(Clone, Debug)]
pub struct Stopped {
    /// The session.
    pub view: Arc<SessionView>,
    /// It was finished before, and not by a stop with this key.
    pub already_finished: bool,
}

/// A device of the host, as callers see it.
#[derive(Clone, Debug)]
pub struct DeviceView {
    /// Stable id, for a source's `deviceId`.
    pub id: String,
    /// What a person calls it.
    pub name: String,
    /// What it delivers.
    pub media: MediaType,
    /// `camera`, `microphone`, `synthetic`, `replay`, `pipe`.
    pub kind: &'static str,
    /// Where it is now.
    pub node: String,
    /// Position on the bus.
    pub bus: String,
    /// Serial number.
    pub serial: String,
    /// Formats that it offers.
    pub formats: Vec<String>,
    /// Who holds it.
    pub held_by: Option<Holder>,
}

/// Who holds a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A session.
    Session(SessionId),
    /// A session that the caller may not see.
    Hidden,
}

/// What an operator orders of the agent as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdmissionOrder {
    /// Take no new session.
    Drain,
    /// Take new sessions again, and expect no replacement.
    Undrain,
    /// Expect a replacement: take no new session, and leave the workers to it when told to end.
    HandOver,
}

/// What the agent does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServingState {
    /// It takes sessions.
    Serving,
    /// Its operator drains it: it takes no new session, those there are go on.
    Draining,
    /// Its replacement was announced: it takes no new session, and its workers will outlive it.
    HandingOver,
    /// It was told to end, and drains.
    Stopping,
}

impl ServingState {
    /// The word of the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::HandingOver => "handing_over",
            Self::Stopping => "stopping",
        }
    }

    /// Why it takes no new session; empty if it does.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Serving => "",
            Self::Draining => "the operator drains this host",
            Self::HandingOver => "the agent is being replaced",
            Self::Stopping => "the agent is shutting down",
        }
    }
}

/// The agent, as callers see it.
#[derive(Clone, Debug)]
pub struct AgentView {
    /// What it does.
    pub state: ServingState,
    /// Sessions that are not finished.
    pub sessions: usize,
    /// At most this many.
    pub sessions_max: usize,
    /// Of the sessions, those that start or end just now.
    pub unsettled: usize,
    /// Of these, the ones whose files are being repaired.
    pub repairing: usize,
    /// Sources of the sessions.
    pub sources: usize,
    /// Of the sources, those that deliver nothing and should.
    pub degraded: usize,
    /// Bytes a second that the sessions make durable, each on its own average.
    pub bytes_per_second: f64,
    /// What went wrong since it began and an operator has to know, a sentence each.
    pub problems: Vec<String>,
    /// How it is now.
    pub health: Health,
}

pub(super) type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

/// A stop that waits for its turn: what was asked for, by whom, and the way back.
pub(super) struct StopAsked {
    pub(super) request: StopRequest,
    pub(super) scope: Scope,
    pub(super) reply: Reply<Stopped>,
}

/// A call of the API, or of the daemon itself.
pub(super) enum Command {
    Start { spec: Box<SessionSpec>, options: StartOptions, scope: Scope, reply: Reply<Arc<SessionView>> },
    Stop { id: SessionId, request: StopRequest, scope: Scope, reply: Reply<Stopped> },
    Get { id: SessionId, scope: Scope, reply: Reply<Arc<SessionView>> },
    Read { id: SessionId, scope: Scope, reply: Reply<(Arc<SessionView>, Reading)> },
    List { since: u64, count: usize, reply: Reply<Vec<Arc<SessionView>>> },
    Starting { scope: Scope, reply: Reply<Vec<Map<String, Value>>> },
    Devices { scope: Scope, reply: Reply<Vec<DeviceView>> },
    Agent { reply: Reply<AgentView> },
    Admission { order: AdmissionOrder, reply: Reply<AgentView> },
    Leave { reply: Reply<bool> },
    Report { problem: String },
    Shutdown { mode: StopMode },
}

/// What the world tells the actor.
pub(super) enum Notice {
    /// What a start needs to know of the host was found out.
    Prepared { id: SessionId, known: Result<Option<Record>, Refusal>, devices: Result<Found, Refusal> },
    /// Something has come up that an operator has to know.
    Troubled { problem: String },
    /// The journal has taken a record, or not; the machine's events that this means, the worker that the
    /// record named, and the media that it keeps.
    Journalled {
        id: SessionId,
        worker: Option<WorkerIdentity>,
        kept: Option<KeptMedia>,
        change: u64,
        events: Vec<Event>,
        outcome: Result<(), JournalError>,
    },
    /// A worker has dialled in.
    Dialled { hello: Hello, pid: u32, connection: u64, to_worker: mpsc::Sender<ToWorker> },
    /// A worker says something.
    Said { id: SessionId, connection: u64, body: from_worker::Body },
    /// A worker's connection is gone.
    LinkLost { id: SessionId, connection: u64 },
    /// A worker was reaped; what it left beside its media.
    Exited { id: SessionId, status: String, last: Option<Box<LastAccount>> },
    /// A repair has ended.
    Repaired { id: SessionId, report: Result<RepairReport, Refusal> },
    /// A directory that the journal doesn't know was looked at.
    Found { id: SessionId, found: super::find::Found },
    /// A removal of media has come further.
    Removal(RemovalNotice),
    /// What a failed start left behind is gone.
    Discarded { id: SessionId },
    /// Devices may have come or gone.
    DevicesChanged,
    /// The host was looked at.
    HostLooked(Look),
    /// The journal was asked for a session that isn't live.
    Looked { id: SessionId, asked: Box<StopAsked>, known: Result<Option<Record>, JournalError> },
}
