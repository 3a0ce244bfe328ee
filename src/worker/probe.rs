//! The probe: a short-lived process that looks which devices the host has. It may hang or crash in a
//! driver; the daemon only waits so long for it.

use std::io::Write;
use std::process::ExitCode;

use rustix::process::Signal;
use serde::Serialize;

use crate::device;
use crate::link::{LINK_VERSION, ProbeHead};
use crate::telemetry::chain;

/// Looks for devices, and prints a [`ProbeHead`] and then a [`ProbeLine`](crate::link::ProbeLine) for each
/// thing that it does.
pub fn probe() -> ExitCode {
    start_short_lived();
    print(&ProbeHead { link_version: LINK_VERSION });
    // Nobody may read any more; then this process is ended.
    match device::search(|line| {
        print(&line);
    }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %chain(&error), "probe failed");
            ExitCode::FAILURE
        }
    }
}

/// A process that is worth nothing without the one who waits for its report ends with it.
pub(super) fn start_short_lived() {
    start_log();
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::KILL)) {
        tracing::debug!(%error, "this process may outlive its parent");
    }
}

/// Sets up the log. A process without one does its work all the same.
pub(super) fn start_log() {
    // The binary may have been run by way of /proc/self/exe, which would name the process "exe".
    let _ = rustix::thread::set_name(c"shutterd");
    if let Err(error) = crate::telemetry::init_child() {
        // Standard error is all there is to tell it on, and may be closed.
        let _ = writeln!(std::io::stderr(), "shutterd: {error}");
    }
}

/// Prints a line of JSON on standard output.
pub(super) fn print(report: &impl Serialize) -> ExitCode {
    let printed = serde_json::to_vec(report).map_err(std::io::Error::from).and_then(|mut json| {
        json.push(b'\n');
        std::io::stdout().write_all(&json)
    });
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "nobody reads the report");
            ExitCode::FAILURE
        }
    }
}
