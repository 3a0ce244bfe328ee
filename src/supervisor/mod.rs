//! The daemon's heart: one actor owns every session; RPCs, workers, the journal and the clock reach it
//! as messages. It carries out what `session::machine` decides and must never decide itself, nor
//! open a device, nor write media.

mod actor;
mod admission;
mod adopt;
mod answer;
mod blocking;
mod child;
mod command;
mod compose;
mod find;
mod handle;
mod host;
mod hotplug;
mod inbox;
mod launch;
mod leftover;
mod live;
#[cfg(test)]
mod model;
mod perform;
mod processes;
pub mod rebuild;
mod refusal;
mod removal;
mod restart;
mod scope;
mod search;
mod socket;
mod start;
mod stop;
mod unsaved;
mod vitals;
mod workers;

pub use actor::{Agent, SupervisorSettings, start};
pub use admission::HANDOVER_TIMEOUT;
pub use command::{
    AdmissionOrder, AgentView, DeviceView, Holder, ServingState, SessionView, StopRequest, Stopped, WaitFor,
};
pub use handle::Handle;
pub use host::HostLoad;
pub use leftover::{EndLimits, LeftOver, end_left_over};
pub use refusal::{Refusal, RefusalKind};
pub use removal::Reading;
pub use scope::Scope;
