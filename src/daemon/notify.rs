//! What systemd is told of the daemon (`sd_notify(3)`): that it is ready, how it is, that its actor
//! still answers, and how long a stop may go on. Without `NOTIFY_SOCKET` nobody is told anything.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::library::Library;
use crate::session::health::Level;
use crate::supervisor::{AgentView, Handle, ServingState};

/// How often the status is looked at anew.
const STATUS_EVERY: Duration = Duration::from_secs(5);
/// How long the actor may take to say how it is.
const STATUS_TIMEOUT: Duration = Duration::from_secs(5);
/// How much longer each message lets a stop go on; the next one comes well before.
const EXTENSION: Duration = Duration::from_secs(20);
/// How many times the actor is asked within one period of the watchdog.
const ASKED_PER_PERIOD: u32 = 4;

/// The daemon is ready for calls.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The config was to be read anew. It isn't, and whoever waits for that needn't wait on.
pub(super) fn not_reloaded() {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell(&[NotifyState::Reloading, now]);
    }
    tell(&[NotifyState::Ready]);
}

/// The daemon was told to end.
pub(super) fn stopping(status: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// The end takes its time.
pub(super) fn still_stopping(status: &str) {
    let usec = u32::try_from(EXTENSION.as_micros()).expect("a constant below an hour");
    tell(&[NotifyState::ExtendTimeoutUsec(usec), NotifyState::Status(status)]);
}

/// Tells the status, and feeds the watchdog, until it is dropped.
pub(super) struct Telling(JoinSet<()>);

impl Telling {
    /// Begins to tell.
    pub(super) fn start(handle: &Handle, library: &Library) -> Self {
        let mut tasks = JoinSet::new();
        if std::env::var_os("NOTIFY_SOCKET").is_some() {
            tasks.spawn(tell_status(handle.clone(), library.clone()));
            if let Some(period) = sd_notify::watchdog_enabled() {
                tasks.spawn(feed_watchdog(handle.clone(), period));
            }
        }
        Self(tasks)
    }

    /// Tells nothing more; what it knew of the actor is let go.
    pub(super) async fn end(mut self) {
        self.0.shutdown().await;
    }
}

async fn tell_status(handle: Handle, library: Library) {
    let mut ticks = interval(STATUS_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = String::new();
    loop {
        ticks.tick().await;
        let Ok(Ok(agent)) = timeout(STATUS_TIMEOUT, handle.agent()).await else { continue };
        // A stop tells its own.
        if agent.state == ServingState::Stopping {
            return;
        }
        let library = library.clone();
        let space = tokio::task::spawn_blocking(move || library.space()).await;
        let status = describe(&agent, space.ok().and_then(Result::ok).map(|(free, _)| free));
        if status != told {
            tell(&[NotifyState::Status(&status)]);
            told = status;
        }
    }
}

/// Feeds the watchdog for as long as the actor answers in time.
async fn feed_watchdog(handle: Handle, period: Duration) {
    let beat = period / ASKED_PER_PERIOD;
    let mut ticks = interval(beat);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match timeout(beat, handle.agent()).await {
            Ok(Ok(_)) => tell(&[NotifyState::Watchdog]),
            Ok(Err(_)) => return,
            Err(_) => tracing::warn!("the actor gives no answer: the watchdog is not fed"),
        }
    }
}

/// `2 sessions, 4 sources, 0 degraded, 41 h of disk left`.
fn describe(agent: &AgentView, free_bytes: Option<u64>) -> String {
    let count = |count: usize, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
    let mut parts = match agent.state {
        ServingState::Serving | ServingState::Stopping => Vec::new(),
        ServingState::Draining => vec!["takes no new session (drain)".to_owned()],
        ServingState::HandingOver => vec!["takes no new session (handover)".to_owned()],
    };
    parts.push(count(agent.sessions, "session"));
    if agent.sessions > 0 {
        parts.push(count(agent.sources, "source"));
        parts.push(format!("{} degraded", agent.degraded));
    }
    if agent.repairing > 0 {
        parts.push(format!("{} under repair", agent.repairing));
    }
    parts.push(
        free_bytes.map_or_else(|| "disk unknown".to_owned(), |free| disk_left(free, agent.bytes_per_second)),
    );
    let problems = agent.problems.len() + agent.health.of(Level::Failed).count();
    if problems > 0 {
        parts.push(format!("{}, see `shutterd health`", count(problems, "problem")));
    }
    parts.join(", ")
}

/// The time until the disk is full at this rate; its free bytes where nothing is recorded.
fn disk_left(free_bytes: u64, bytes_per_second: f64) -> String {
    let seconds = free_bytes as f64 / bytes_per_second;
    if bytes_per_second < 1.0 {
        format!("{:.1} GiB of disk free", free_bytes as f64 / f64::from(1 << 30))
    } else if seconds < 2.0 * 3600.0 {
        format!("{:.0} min of disk left", seconds / 60.0)
    } else {
        format!("{:.0} h of disk left", seconds / 3600.0)
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd can't be told how the daemon is");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::health::Health;

    fn agent(sessions: usize, sources: usize) -> AgentView {
        AgentView {
            state: ServingState::Serving,
            sessions,
            sessions_max: 16,
            unsettled: 0,
            repairing: 0,
            sources,
            degraded: 0,
            bytes_per_second: 0.0,
            problems: Vec::new(),
            health: Health::default(),
        }
    }

    #[test]
    fn the_status_is_what_a_person_asks_first() {
        let busy = AgentView { bytes_per_second: 1e6, ..agent(2, 4) };
        let free = Some(147_600_000_000);
        assert_eq!(describe(&busy, free), "2 sessions, 4 sources, 0 degraded, 41 h of disk left");
        let short = AgentView { bytes_per_second: 1e6, degraded: 1, ..agent(1, 1) };
        assert_eq!(
            describe(&short, Some(3_600_000_000)),
            "1 session, 1 source, 1 degraded, 60 min of disk left"
        );
        assert_eq!(describe(&agent(0, 0), Some(3 << 29)), "0 sessions, 1.5 GiB of disk free");
        let drained =
            AgentView { state: ServingState::Draining, problems: vec![String::new()], ..agent(0, 0) };
        let text = "takes no new session (drain), 0 sessions, disk unknown, 1 problem, see `shutterd health`";
        assert_eq!(describe(&drained, None), text);
    }
}
