//! The product's HTTP calls, as its documentation has them, and the probes of monitoring, on a loopback
//! address. Each call is the message to the supervisor that gRPC sends; nothing is decided here.

mod answer;
mod calls;
mod health;
mod serve;

pub use serve::{Bound, Http, HttpError, bind};
