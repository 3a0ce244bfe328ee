//! Short-lived processes of ours: the probe and the repair. They may hang in a driver or a disk, so
//! they are waited for only so long, and end with the one who waits.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use super::refusal::{Refusal, RefusalKind};
use crate::config::{LogFormat, Settings};
use crate::link::{LINK_VERSION, ProbeReport, RepairReport};
use crate::session::MediaFile;
use crate::session::device::FoundDevice;
use crate::telemetry;

/// Finished files that a repair is told of; an argument is at most 128 KiB long (`execve(2)`).
const KNOWN_FILES_MAX: usize = 300;
/// The longest report that is read.
const REPORT_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The program that workers, probes and repairs run.
pub(super) struct Program {
    path: PathBuf,
    child_log: String,
}

impl Program {
    /// The config's, else this one, also when its file was replaced.
    pub(super) fn new(settings: &Settings) -> Self {
        let path = settings.worker.path.clone().unwrap_or_else(|| PathBuf::from("/proc/self/exe"));
        let format = match settings.log.format {
            LogFormat::Auto => telemetry::Format::Auto,
            LogFormat::Human => telemetry::Format::Human,
            LogFormat::Json => telemetry::Format::Json,
            LogFormat::Journal => telemetry::Format::Journal,
        };
        Self { path, child_log: telemetry::child_log(format, &settings.log.level) }
    }

    /// A process that does `task`, with its log beside the daemon's.
    pub(super) fn command(&self, task: &str) -> Command {
        let mut command = Command::new(&self.path);
        // What `ps` shows of it.
        command.arg0("shutterd").arg(task).env(telemetry::CHILD_LOG, &self.child_log).stdin(Stdio::null());
        // What systemd is told is the daemon's to tell.
        for name in
            ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"]
        {
            command.env_remove(name);
        }
        command
    }
}

/// The devices of the host.
pub(super) async fn probe(program: Program, timeout: Duration) -> Result<Vec<FoundDevice>, Refusal> {
    let report: ProbeReport = run(program.command("probe"), "probe", timeout).await?;
    if report.link_version != LINK_VERSION {
        let message = format!(
            "the probe is of another version (link {} instead of {LINK_VERSION}): check worker.path",
            report.link_version
        );
        return Err(Refusal::new(RefusalKind::Internal, "PROBE_VERSION", message));
    }
    Ok(report.devices)
}

/// Repairs what a dead worker left in `dir`; the `known` files were finished, and a new worker writes
/// those from number `before` on.
pub(super) async fn repair(
    program: Program,
    dir: &Path,
    known: &[MediaFile],
    before: Option<u32>,
    timeout: Duration,
) -> Result<RepairReport, Refusal> {
    let mut command = program.command("repair");
    let known = serde_json::to_string(&known[..known.len().min(KNOWN_FILES_MAX)]).unwrap_or_default();
    command.arg("--json").arg("--known").arg(known);
    if let Some(before) = before {
        command.arg("--before").arg(before.to_string());
    }
    command.arg(dir);
    run(command, "repair", timeout).await
}

async fn run<T: DeserializeOwned>(mut command: Command, what: &str, timeout: Duration) -> Result<T, Refusal> {
    let failed = |problem: String| {
        let reason = format!("{}_FAILED", what.to_uppercase());
        Refusal::new(RefusalKind::Internal, &reason, format!("the {what} process {problem}"))
    };
    command.stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| {
        let reason = format!("{}_NOT_STARTED", what.to_uppercase());
        Refusal::new(
            RefusalKind::Internal,
            &reason,
            format!("the {what} process can't be started: {error}; check worker.path"),
        )
    })?;
    let output = child.stdout.take().expect("its output is piped");
    let work = async {
        let mut json = Vec::new();
        output.take(REPORT_BYTES_MAX).read_to_end(&mut json).await?;
        Ok::<_, std::io::Error>((child.wait().await?, json))
    };
    let (status, json) = tokio::time::timeout(timeout, work)
        .await
        .map_err(|_| {
            failed(format!("gave no answer within {} s: a device or disk hangs", timeout.as_secs_f64()))
        })?
        .map_err(|error| failed(format!("can't be read: {error}")))?;
    if !status.success() {
        return Err(failed(format!("ended with {status}; the log says why")));
    }
    serde_json::from_slice(&json).map_err(|error| failed(format!("was not understood: {error}")))
}
