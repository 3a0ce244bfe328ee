//! How the daemon was told to end, for those who come after it: a file in the runtime directory tells
//! systemd's `ExecStopPost=` whether workers that still run are to be ended.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context;

use super::LINK_SOCKET;
use crate::config::Settings;
use crate::supervisor::{EndLimits, end_left_over};

const FILE: &str = "leaving";
const HANDOVER: &str = "handover\n";
const STOP: &str = "stop\n";

/// Why the daemon ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    /// Its workers stay, for the next daemon.
    Handover,
    /// Every session is drained.
    Stop,
}

/// Notes why the daemon ends. A note that can't be written is told; it never holds up the end.
pub(super) fn note(runtime_dir: &Path, leaving: Leaving) {
    let text = match leaving {
        Leaving::Handover => HANDOVER,
        Leaving::Stop => STOP,
    };
    if let Err(error) = std::fs::write(runtime_dir.join(FILE), text) {
        tracing::warn!(%error, "it can't be noted why the daemon ends");
    }
}

/// Removes the note of an earlier daemon.
///
/// # Errors
/// It can't be removed.
pub(super) fn forget(runtime_dir: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(runtime_dir.join(FILE)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).context("cannot use runtime_dir"),
        _ => Ok(()),
    }
}

/// After the daemon has ended: ends the workers that are left, if it was stopped. After a crash or a
/// handover they record on, for the next daemon. `service_result` is systemd's word for how the service
/// has ended (`$SERVICE_RESULT` of systemd.exec(5)).
///
/// # Errors
/// A worker can't be ended.
pub fn end_workers(settings: &Settings, service_result: Option<&str>) -> anyhow::Result<()> {
    super::start_log(settings)?;
    let noted = std::fs::read_to_string(settings.runtime_dir.join(FILE)).ok();
    if !are_to_end(noted.as_deref(), service_result) {
        tracing::debug!(noted, service_result, "workers record on");
        return Ok(());
    }
    let limits = &settings.limits;
    // One that wasn't told drains at SIGTERM, and one that was needs no more time than that either.
    let waits = EndLimits { told: limits.drain, term: limits.drain + limits.term, kill: limits.kill };
    let left = end_left_over(&settings.runtime_dir.join(LINK_SOCKET), waits);
    anyhow::ensure!(
        left.stuck == 0,
        "{} of {} workers can't be ended: they hang in the kernel",
        left.stuck,
        left.found
    );
    Ok(())
}

fn are_to_end(noted: Option<&str>, service_result: Option<&str>) -> bool {
    match noted {
        Some(HANDOVER) => false,
        Some(STOP) => true,
        _ => service_result == Some("success"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_end_after_a_stop_and_stay_after_a_crash_or_a_handover() {
        for crash in ["signal", "watchdog", "exit-code", "oom-kill", "timeout"] {
            assert!(!are_to_end(None, Some(crash)), "{crash}");
            assert!(are_to_end(Some(STOP), Some(crash)), "a stop that was cut short is a stop");
            assert!(!are_to_end(Some(HANDOVER), Some(crash)), "{crash}");
        }
        assert!(are_to_end(None, Some("success")));
        assert!(are_to_end(Some(STOP), Some("success")));
        assert!(!are_to_end(Some(HANDOVER), Some("success")));
        assert!(!are_to_end(None, None), "nobody says that it was stopped");
    }
}
