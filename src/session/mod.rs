//! The rules: what a session is, how it lives and ends, which device a source means.
//! Pure: no I/O, no clock, no thread, no log. Everything else performs what is decided here.

pub mod account;
mod age;
pub mod device;
pub mod health;
mod id;
mod leases;
pub mod limits;
pub mod machine;
mod reason;
mod receipt;
pub mod resolve;
mod retention;
mod spec;
mod succession;
mod view;

pub use account::{Account, SourceAccount, SourceState};
pub use age::AgeClock;
pub use id::{ParseIdError, SessionId};
pub use leases::{LeaseConflict, Leases};
pub use reason::EndReason;
pub use receipt::{Gap, GapReason, MediaFile, Receipt, Removal, RemovalReason, RemovalState, SourceReceipt};
pub use retention::{Hold, KeptMedia, RetentionLimits, Room, is_out_of_reach, next_removal};
pub use spec::{OptionsError, SessionSpec, SourceSpec, SpecError, StartOptions};
pub use succession::DeadWorkers;
pub use view::{PublicState, WorkerState, present};
