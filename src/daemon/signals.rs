//! The signals that end the daemon.

use std::fmt;

use futures_util::StreamExt;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook_tokio::Signals;
use tokio::sync::mpsc;

/// A signal that means the end.
#[derive(Clone, Copy, Debug)]
pub(super) struct EndSignal(i32);

impl fmt::Display for EndSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0 == SIGTERM { "SIGTERM" } else { "SIGINT" })
    }
}

/// Every SIGTERM and SIGINT from now on.
pub(super) fn watch() -> anyhow::Result<mpsc::Receiver<EndSignal>> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let (sender, receiver) = mpsc::channel(8);
    tokio::spawn(async move {
        while let Some(signal) = signals.next().await {
            if signal == SIGHUP {
                // A terminal that goes away must not end what people are recorded by.
                tracing::warn!("SIGHUP changes nothing: restart the agent to read its config anew");
                super::notify::not_reloaded();
                continue;
            }
            if sender.send(EndSignal(signal)).await.is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}
