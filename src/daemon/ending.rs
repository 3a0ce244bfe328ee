//! The end of the daemon: every session is drained, or, when a replacement was announced, every worker
//! is left recording for it.

use std::time::Duration;

use tokio::sync::mpsc::Receiver;
use tokio::task::AbortHandle;
use tokio::time::{Instant, interval, timeout};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::leaving::{Leaving, note};
use super::signals::EndSignal;
use super::{notify, set_health};
use crate::config::Settings;
use crate::session::machine::StopMode;
use crate::supervisor::Handle;

/// How often a shutdown says who is left.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// How often a handover looks whether sessions still start or end.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Waits for SIGTERM or SIGINT, then until the daemon may end.
pub(super) async fn wait_for_end(
    mut signals: Receiver<EndSignal>,
    handle: &Handle,
    (health, following): (&HealthReporter, AbortHandle),
    settings: &Settings,
) {
    let Some(signal) = signals.recv().await else { return };
    // From here on nothing makes it well again.
    following.abort();
    set_health(health, ServingStatus::NotServing).await;
    if handle.leave().await {
        tracing::info!(%signal, "replaced: the workers record on for the next daemon");
        note(&settings.runtime_dir, Leaving::Handover);
        notify::stopping("replaced: the workers record on");
        settle(signals, handle, settings).await;
    } else {
        tracing::info!(%signal, "draining every session; a second signal aborts");
        note(&settings.runtime_dir, Leaving::Stop);
        notify::stopping("draining every session");
        drain(signals, handle, settings).await;
    }
}

/// Waits until no session starts or ends any more: whoever waits for that gets an answer.
async fn settle(mut signals: Receiver<EndSignal>, handle: &Handle, settings: &Settings) {
    let wait = settings.limits.start + settings.limits.drain;
    let settled = async {
        let mut looks = interval(LOOK_EVERY);
        while handle.agent().await.is_ok_and(|agent| agent.unsettled > 0) {
            looks.tick().await;
            notify::still_stopping("replaced: waits for sessions that start or end");
        }
    };
    tokio::select! {
        waited = timeout(wait, settled) => if waited.is_err() {
            tracing::warn!("some sessions still start or end; the next daemon goes on with them");
        },
        Some(signal) = signals.recv() => tracing::warn!(%signal, "ending at once; the workers record on"),
    }
}

/// Drains every session. A second signal aborts.
async fn drain(mut signals: Receiver<EndSignal>, handle: &Handle, settings: &Settings) {
    handle.shut_down(StopMode::Drain).await;
    // The actor has taken the order once it answers a later call.
    let _ = handle.agent().await;
    let limits = &settings.limits;
    // Each phase has a deadline; beyond their sum something else hangs, and systemd is to end it.
    let longest = limits.drain + limits.term + limits.kill + limits.repair + limits.journal;
    let deadline = Instant::now() + longest;
    let mut live = handle.live();
    let mut tell = interval(TELL_EVERY);
    tell.tick().await;
    loop {
        if live.borrow_and_update().is_empty() {
            return;
        }
        tokio::select! {
            changed = live.changed() => if changed.is_err() { return },
            _ = tell.tick() => {
                let left = live.borrow().join(", ");
                if Instant::now() < deadline {
                    notify::still_stopping(&format!("draining: {left}"));
                }
                tracing::info!(left, "still draining");
            }
            Some(signal) = signals.recv() => {
                tracing::warn!(%signal, "aborting every session: what waits in memory is discarded");
                handle.shut_down(StopMode::Abort).await;
            }
        }
    }
}
