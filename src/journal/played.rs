//! A journal for tests: its rows are in memory and outlive the daemon, and its commands are performed when
//! the test says so.

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::mpsc::{Receiver, channel};

use super::store::Store;
use super::writer::{Command, perform};
use super::{Journal, JournalError, QUEUE_COMMANDS_MAX, Record};
use crate::session::SessionId;

/// What is durable.
#[derive(Clone)]
pub(crate) struct Rows(Arc<Mutex<Store>>);

/// The commands of one daemon.
pub(crate) struct Waiting {
    rows: Rows,
    queue: Receiver<Command>,
    next: Option<Command>,
}

impl Rows {
    /// None.
    pub(crate) fn none() -> Self {
        Self(Arc::new(Mutex::new(Store::in_memory())))
    }

    /// A journal of these rows, and what waits for it.
    pub(crate) fn journal(&self) -> (Journal, Waiting) {
        let (commands, queue) = channel(QUEUE_COMMANDS_MAX);
        (
            Journal { commands: Some(commands), writer: None },
            Waiting { rows: self.clone(), queue, next: None },
        )
    }

    /// What would be found after a power cut.
    pub(crate) fn record(&self, id: &SessionId) -> Option<Record> {
        self.lock().get(id).expect("what was written can be read")
    }

    fn lock(&self) -> MutexGuard<'_, Store> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

impl Waiting {
    /// Waits for a command; false if none will come.
    pub(crate) async fn wait(&mut self) -> bool {
        if self.next.is_none() {
            self.next = self.queue.recv().await;
        }
        self.next.is_some()
    }

    /// Whether the next command writes.
    pub(crate) fn writes(&self) -> bool {
        matches!(self.next, Some(Command::Write(..) | Command::Check(_)))
    }

    /// Performs the next command, with those that share its commit.
    pub(crate) fn perform(&mut self) {
        if let Some(command) = self.next.take() {
            self.next = perform(&mut self.rows.lock(), command, &mut self.queue);
        }
    }

    /// Refuses the next command.
    pub(crate) fn refuse(&mut self) {
        if let Some(command) = self.next.take() {
            command.refuse(JournalError::Busy);
        }
    }
}
