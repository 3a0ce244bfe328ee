//! Short-lived processes of ours: the probe and the repair. They may hang in a driver or a disk, so
//! they are waited for only so long, and end with the one who waits.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines, Take};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::Instant;

use super::processes::RepairOrder;
use super::refusal::{Refusal, RefusalKind};
use super::search::{Found, Search};
use crate::config::{LogFormat, Settings};
use crate::link::{LINK_VERSION, ProbeHead, ProbeLine, RepairReport};
use crate::session::SessionId;
use crate::telemetry;

/// Finished files that a repair is told of; an argument is at most 128 KiB long (`execve(2)`).
const KNOWN_FILES_MAX: usize = 300;
/// Between a repair that failed and the next: a short want of processes or descriptors is over by then.
const REPAIR_PAUSES: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(500), Duration::from_millis(2000)];
/// The longest report that is read.
const REPORT_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The program that workers, probes and repairs run.
#[derive(Clone)]
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

    /// As [`Program::command`], of a process that is for `session` alone.
    pub(super) fn command_for(&self, session: &SessionId, task: &str) -> Command {
        let mut command = self.command(task);
        command.env(telemetry::CHILD_SESSION, session.as_str());
        command
    }
}

/// The devices of the host. Those that were told count also when the probe hangs or crashes in another.
pub(super) async fn probe(program: Program, timeout: Duration) -> Result<Found, Refusal> {
    let (mut child, output) = spawn(program.command("probe"), "probe")?;
    let mut lines = BufReader::new(output).lines();
    let mut search = Search::default();
    let listening = async {
        listen(&mut lines, &mut search).await?;
        child.wait().await.map_err(|error| failed("probe", &format!("can't be waited for: {error}")))
    };
    let how = match tokio::time::timeout(timeout, listening).await {
        Ok(status) => format!("ended with {}", status?),
        Err(_) => format!("gave no answer within {} s", timeout.as_secs_f64()),
    };
    search.end(&how).ok_or_else(|| failed("probe", &format!("{how}; the log says why")))
}

/// Hears what a probe tells until it has told everything, or ends.
async fn listen(lines: &mut Lines<BufReader<Take<ChildStdout>>>, search: &mut Search) -> Result<(), Refusal> {
    let unread = |error| failed("probe", &format!("can't be read: {error}"));
    let Some(head) = lines.next_line().await.map_err(unread)? else { return Ok(()) };
    let version = understood::<ProbeHead>("probe", head.as_bytes())?.link_version;
    if version != LINK_VERSION {
        let message = format!(
            "the probe is of another version (link {version} instead of {LINK_VERSION}): check worker.path"
        );
        return Err(Refusal::new(RefusalKind::Internal, "PROBE_VERSION", message));
    }
    while let Some(line) = lines.next_line().await.map_err(unread)? {
        if !search.take(understood::<ProbeLine>("probe", line.as_bytes())?) {
            break;
        }
    }
    Ok(())
}

/// Repairs what a dead worker left. What keeps a repair from its work may pass: it is tried again within `timeout`.
pub(super) async fn repair(
    program: &Program,
    order: &RepairOrder,
    timeout: Duration,
) -> Result<RepairReport, Refusal> {
    let deadline = Instant::now() + timeout;
    let RepairOrder { session, dir, known, before } = order;
    let known = serde_json::to_string(&known[..known.len().min(KNOWN_FILES_MAX)]).unwrap_or_default();
    let mut pauses = REPAIR_PAUSES.iter();
    loop {
        let mut command = program.command_for(session, "repair");
        command.arg("--json").arg("--known").arg(&known);
        if let Some(before) = before {
            command.arg("--before").arg(before.to_string());
        }
        command.arg(dir);
        let left = deadline.saturating_duration_since(Instant::now());
        let report = run(command, "repair", left).await;
        let Some(pause) = pauses.next().filter(|pause| Instant::now() + **pause < deadline) else {
            return report;
        };
        let Err(refusal) = report else { return report };
        tracing::warn!(%session, error = refusal.message, "a repair failed, and is tried again");
        tokio::time::sleep(*pause).await;
    }
}

async fn run<T: DeserializeOwned>(command: Command, what: &str, timeout: Duration) -> Result<T, Refusal> {
    let (mut child, mut output) = spawn(command, what)?;
    let work = async {
        let mut json = Vec::new();
        output.read_to_end(&mut json).await?;
        Ok::<_, std::io::Error>((child.wait().await?, json))
    };
    let (status, json) = tokio::time::timeout(timeout, work)
        .await
        .map_err(|_| {
            let seconds = timeout.as_secs_f64();
            failed(what, &format!("gave no answer within {seconds} s: a device or disk hangs"))
        })?
        .map_err(|error| failed(what, &format!("can't be read: {error}")))?;
    if !status.success() {
        return Err(failed(what, &format!("ended with {status}; the log says why")));
    }
    understood(what, &json)
}

fn spawn(mut command: Command, what: &str) -> Result<(Child, Take<ChildStdout>), Refusal> {
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
    Ok((child, output.take(REPORT_BYTES_MAX)))
}

fn understood<T: DeserializeOwned>(what: &str, json: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(json).map_err(|error| failed(what, &format!("was not understood: {error}")))
}

fn failed(what: &str, problem: &str) -> Refusal {
    let reason = format!("{}_FAILED", what.to_uppercase());
    Refusal::new(RefusalKind::Internal, &reason, format!("the {what} process {problem}"))
}
