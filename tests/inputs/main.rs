//! What comes in from outside, against the real binary: requests and configs that are wrong, each with
//! a clear error and nothing left behind; the calls as a client sees them; and real pictures and sound
//! that must come out as they went in.

#[expect(dead_code, reason = "shared with the flows, which use more of it")]
#[path = "../flows/agent.rs"]
mod agent;
mod calls;
mod clip;
mod codec;
mod config;
mod contract;
mod host;
mod inherited;
#[path = "../flows/media.rs"]
mod media;
mod microphone;
mod reading;
mod real;
mod refused;
#[expect(dead_code, reason = "shared with the flows, which use more of it")]
#[path = "../flows/site.rs"]
mod site;
mod synthetic;
mod watching;
mod wire;
