//! The agent of a demo: a real `shutterd serve` of this binary, from its launch to its end.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;

use super::super::connection::{Connection, within};
use super::super::exit::{FAILURE, Failure, UNAVAILABLE};
use super::site::Site;

/// From the launch until it serves.
const SERVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two looks whether it serves.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// From SIGTERM until it has drained and ended.
const END_TIMEOUT: Duration = Duration::from_secs(30);
/// How much of its log is shown when it fails.
const LOG_BYTES_SHOWN: u64 = 4096;

/// A running `serve`.
pub struct Agent {
    child: Child,
    log_path: PathBuf,
}

impl Agent {
    /// Runs `serve` with the site's config, out of reach of this terminal's Ctrl-C.
    ///
    /// # Errors
    /// The log or the process can't be made.
    pub fn launch(site: &Site) -> Result<Self, Failure> {
        let failed = |error| Failure::new(FAILURE, format!("no agent can be launched: {error}"));
        let log = File::create(&site.log_path).map_err(failed)?;
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.arg("--config").arg(&site.config_path).arg("serve");
        command.stdin(Stdio::null()).stdout(log.try_clone().map_err(failed)?).stderr(log).process_group(0);
        // What is set for another agent, or by systemd for this process, is not meant for this one.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if ["SHUTTERD_", "NOTIFY_SOCKET", "WATCHDOG_", "LISTEN_"]
                .iter()
                .any(|start| text.starts_with(start))
            {
                command.env_remove(&name);
            }
        }
        Ok(Self { child: command.spawn().map_err(failed)?, log_path: site.log_path.clone() })
    }

    /// Waits until it serves, and connects to it.
    ///
    /// # Errors
    /// It ends, or doesn't serve in time; its log is shown.
    pub async fn serving(&mut self, socket_path: &Path) -> Result<Connection, Failure> {
        let deadline = Instant::now() + SERVE_TIMEOUT;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(self.failure(&format!("the agent ended before it served ({status})")));
            }
            if let Ok(connection) = Connection::open_unix(socket_path).await
                && serves(&connection).await
            {
                return Ok(connection);
            }
            if Instant::now() >= deadline {
                return Err(
                    self.failure(&format!("the agent doesn't serve after {} s", SERVE_TIMEOUT.as_secs()))
                );
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// Ends it by SIGTERM and waits for it.
    ///
    /// # Errors
    /// It has to be killed, or fails; its log is shown.
    pub async fn end(&mut self) -> Result<(), Failure> {
        // A process that was waited for has no id any more: it has ended, and that was told.
        let Some(pid) = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) else {
            return Ok(());
        };
        let ended = match kill_process(pid, Signal::TERM) {
            Ok(()) => timeout(END_TIMEOUT, self.child.wait()).await,
            Err(error) => Ok(Err(error.into())),
        };
        match ended {
            Ok(Ok(status)) if ExitStatus::success(&status) => Ok(()),
            Ok(Ok(status)) => Err(self.failure(&format!("the agent failed at its end ({status})"))),
            Ok(Err(error)) => Err(self.failure(&format!("the agent can't be ended: {error}"))),
            Err(_) => {
                let killed = self
                    .child
                    .kill()
                    .await
                    .map_or_else(|error| error.to_string(), |()| "killed it".to_owned());
                Err(self.failure(&format!(
                    "the agent didn't end within {} s of SIGTERM: {killed}",
                    END_TIMEOUT.as_secs()
                )))
            }
        }
    }

    /// `what`, with the end of the log.
    fn failure(&self, what: &str) -> Failure {
        let log = tail(&self.log_path).unwrap_or_else(|error| error.to_string());
        let shown: String = log.lines().map(|line| format!("\n  | {}", super::plain(line))).collect();
        Failure::new(UNAVAILABLE, format!("{what}; its log {} ends with:{shown}", self.log_path.display()))
    }
}

async fn serves(connection: &Connection) -> bool {
    let request = within(SERVE_TIMEOUT, HealthCheckRequest { service: String::new() });
    let answer = connection.health().check(request).await;
    answer.is_ok_and(|answer| answer.into_inner().status() == ServingStatus::Serving)
}

fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES_SHOWN)))?;
    let mut bytes = Vec::new();
    file.take(LOG_BYTES_SHOWN).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
