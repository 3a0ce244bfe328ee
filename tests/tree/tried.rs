//! The judge of the sources, tried: what it must find, and what it must leave alone.

use super::*;

#[test]
fn every_kind_of_violation_is_found() {
    for (file, code, why) in [
        ("session/id.rs", "use crate::media::Frame;", "isn't lower"),
        ("journal/mod.rs", "use crate::{clock::{self, MonoTime}, library::Library as Shelf};", "isn't lower"),
        ("clock/wall.rs", "fn f() -> super::super::session::EndReason { todo!() }", "isn't lower"),
        ("clock/mod.rs", "use super::session;", "isn't lower"),
        ("session/mod.rs", "use crate::\n    // comment\n    {clock, /* more */ media};", "isn't lower"),
        ("session/mod.rs", "pub use crate::{clock::*, media::{Frame}};", "isn't lower"),
        ("worker/control.rs", "fn f(c: &crate::config::Settings) {}", "two halves"),
        ("supervisor/actor.rs", "let x: Vec<crate::recording::Ledger>;", "two halves"),
        ("api/mod.rs", "impl From<crate::device::DeviceError> for u8 {}", "two halves"),
        ("clock/mod.rs", "use crate::recording::Ledger;", "knows neither"),
        ("session/limits.rs", "use crate::config::Settings;", "knows neither"),
        ("session/id.rs", "use crate::codec::pcm;", "knows neither"),
        ("media/queue.rs", "use crate::device::Wake;", "knows neither"),
        ("telemetry/mod.rs", "fn f(log: &crate::config::LogSettings) {}", "knows neither"),
        ("link/settings.rs", "use crate::{config, session};", "knows neither"),
        ("link/frame.rs", "use crate::supervisor::Handle;", "knows neither"),
        ("http/mod.rs", "use crate::api::proto::Session;", "generated types"),
        ("daemon/mod.rs", "use crate::api::{proto, service};", "generated types"),
        ("media/frame.rs", "use crate::link::message::Hello;", "generated types"),
        ("session/mod.rs", "use std::{collections::HashMap, fs};", "pure"),
        ("session/mod.rs", "fn f() { ::std::thread::yield_now(); }", "pure"),
        ("session/mod.rs", "use std::time::{Duration, Instant};", "pure"),
        ("session/mod.rs", "async fn f() {}", "pure"),
        ("session/machine/mod.rs", "use crate::clock::{Clock, SystemClock};", "pure"),
        ("session/leases.rs", "fn f() { crate::clock::SystemClock.now(); }", "pure"),
        ("session/leases.rs", "use super::*; fn f() { SystemClock.now(); }", "pure"),
        ("session/view.rs", "fn f() { tracing::info!(\"x\"); }", "pure"),
        ("worker/mod.rs", "use tokio::sync::mpsc;", "daemon half"),
        ("telemetry/mod.rs", "fn f() { tokio_util::sync::CancellationToken::new(); }", "daemon half"),
        ("utils/mod.rs", "", "no rank"),
        ("worker/mod.rs", "use crate::utils::x;", "no rank"),
        ("worker/mod.rs", "use crate::*;", "no rank"),
    ] {
        let found = violations(file, code);
        assert_eq!(found.len(), 1, "src/{file}: {code:?}: {found:?}");
        assert!(found[0].contains(why), "{why:?} is not said: {found:?}");
    }
    let long = "\n".repeat(LINES_MAX + 1);
    assert_eq!(violations("worker/mod.rs", &long).len(), 1);
    assert!(violations("worker/mod.rs", &"\n".repeat(LINES_MAX)).is_empty());
}

#[test]
fn what_is_allowed_commented_or_quoted_is_no_violation() {
    for (file, code) in [
        ("clock/mod.rs", "// use crate::session;\n/* crate::session /* nested */ crate::api */"),
        ("clock/mod.rs", "/// Like [`crate::session::Receipt`].\nfn f() {}"),
        (
            "clock/mod.rs",
            r##"const A: &str = "crate::session \" crate::api"; const B: &str = r#"crate::"api"#;"##,
        ),
        ("clock/mod.rs", r#"const A: &[u8] = b"crate::api"; const C: char = '"'; const D: u8 = b'"'; // "#),
        ("clock/mod.rs", "fn f<'a>(x: &'a str) -> &'a str { x } pub(crate) fn g() {}"),
        ("clock/mod.rs", "mod tests { use super::*; use super::wall; }"),
        ("session/mod.rs", "use crate::clock::{MonoTime, WallTime}; use self::device::x;"),
        ("session/machine/step.rs", "use super::super::limits; use crate::session::EndReason;"),
        ("session/mod.rs", "use std::{fmt, time::Duration}; fn f(x: X) { x.tokio.fs(); }"),
        ("api/convert/mod.rs", "use super::super::supervisor; use crate::api::proto;"),
        ("cli/mod.rs", "use crate::{api::proto, config, daemon, device, worker}; use tokio::net;"),
        (
            "supervisor/socket.rs",
            "use crate::link::message::{FromWorker, from_worker}; use tokio::net::UnixStream;",
        ),
        ("main.rs", "fn main() { shutterd::cli::main(); }"),
        ("lib.rs", "pub mod clock;\npub mod api;\n"),
    ] {
        assert_eq!(violations(file, code), Vec::<String>::new(), "src/{file}: {code}");
    }
}

#[test]
fn use_trees_are_spelt_out() {
    let code = "use a::{self, b::{c, d as e}, f::*}; use {g::h, i}; let x = <T as j::k>::l::<m::n>();";
    let found: Vec<String> = paths(&tokens(code)).iter().map(|path| path.join("::")).collect();
    for path in ["a::self", "a::b::c", "a::b::d", "a::f::*", "g::h", "i", "j::k", "m::n"] {
        assert!(found.iter().any(|found| found == path), "{path} is missing: {found:?}");
    }
}
