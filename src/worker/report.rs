//! What a worker tells the daemon about its session, and when.

use std::time::Duration;

use super::connection::Connection;
use crate::clock::{Clock, MonoTime, SystemClock};
use crate::link::message::{Report, from_worker};
use crate::media::Queue;
use crate::recording::Ledger;
use crate::session::Account;

/// How often an unchanged state is reported while the session captures.
const EVERY: Duration = Duration::from_millis(500);

/// The reports of one worker.
pub(super) struct Reports {
    sent_at: MonoTime,
}

impl Reports {
    pub(super) fn new() -> Self {
        Self { sent_at: MonoTime::default() }
    }

    /// Sends a report if one is due.
    pub(super) fn tick(&mut self, connection: &mut Connection, ledger: &Ledger, queue: &Queue) {
        if SystemClock.now().since(self.sent_at) >= EVERY {
            self.send(connection, ledger, queue);
        }
    }

    /// Sends a report now.
    pub(super) fn send(&mut self, connection: &mut Connection, ledger: &Ledger, queue: &Queue) {
        self.sent_at = SystemClock.now();
        let durable = ledger.durability();
        connection.tell(from_worker::Body::Report(Report {
            account: account_json(&ledger.account()),
            durable_at: durable.at.map_or(0, MonoTime::nanos),
            durable_bytes: durable.bytes,
            pending_bytes: durable.pending_bytes,
            queued_packets: queue.len() as u64,
        }));
    }
}

/// The account as it travels over the link.
pub(super) fn account_json(account: &Account) -> Vec<u8> {
    serde_json::to_vec(account).expect("an account has nothing that JSON can't say")
}
