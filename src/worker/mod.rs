//! The worker: one process that captures one session, and the short-lived processes that look for
//! devices and repair files. Must never know the config or the journal; the link tells it all it needs.

mod capture;
mod connection;
mod control;
mod crash;
mod event;
mod probe;
mod record;
mod report;
mod sources;
mod stop;

pub use control::run;
pub use probe::probe;
pub use record::repair;
