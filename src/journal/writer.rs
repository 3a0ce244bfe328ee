//! The journal's thread: takes commands in their order, and commits writes that wait together at once.

use tokio::sync::mpsc::Receiver;
use tokio::sync::oneshot;

use super::store::Store;
use super::{JournalError, Record, Records};
use crate::session::{KeptMedia, SessionId};

/// Writes that share a commit.
const BATCH_WRITES_MAX: usize = 64;

/// Where an answer goes. Whoever asked may be gone; then it goes nowhere.
pub type Reply<T> = oneshot::Sender<Result<T, JournalError>>;

/// What the thread is asked to do.
#[derive(Debug)]
pub enum Command {
    /// Change the file.
    Write(Write, Reply<()>),
    /// Read one record.
    Get(SessionId, Reply<Option<Record>>),
    /// Read records by their change.
    List {
        /// Changes up to this one are known.
        since: u64,
        /// Records at most.
        limit: usize,
        /// Where the answer goes.
        reply: Reply<Records>,
    },
    /// Read the records that changed last.
    Latest {
        /// Records at most.
        limit: usize,
        /// Where the answer goes.
        reply: Reply<Records>,
    },
    /// Read what has no receipt.
    Unfinished(Reply<Records>),
    /// Read every id.
    Ids(Reply<Vec<String>>),
    /// Read which media is kept.
    Kept(Reply<Vec<KeptMedia>>),
    /// Read the highest change.
    LastChange(Reply<u64>),
    /// Write and read without changing anything.
    Check(Reply<()>),
}

/// A change of the file.
#[derive(Debug)]
pub enum Write {
    /// Insert a record, or replace the session's.
    Put(Box<Record>),
    /// Remove a session's record.
    Remove(SessionId),
}

impl Command {
    /// Answers with `error`, undone.
    pub fn refuse(self, error: JournalError) {
        match self {
            Self::Write(_, reply) | Self::Check(reply) => answer(reply, Err(error)),
            Self::Get(_, reply) => answer(reply, Err(error)),
            Self::List { reply, .. } | Self::Latest { reply, .. } | Self::Unfinished(reply) => {
                answer(reply, Err(error));
            }
            Self::Ids(reply) => answer(reply, Err(error)),
            Self::Kept(reply) => answer(reply, Err(error)),
            Self::LastChange(reply) => answer(reply, Err(error)),
        }
    }
}

/// Performs commands until every sender is gone and the queue is empty.
pub fn run(mut store: Store, mut queue: Receiver<Command>) {
    let mut next = None;
    while let Some(command) = next.take().or_else(|| queue.blocking_recv()) {
        next = perform(&mut store, command, &mut queue);
    }
    store.close();
}

/// Performs `command`, and with a write those that wait behind it; a command that was taken out of the queue
/// and comes next is returned.
pub fn perform(store: &mut Store, command: Command, queue: &mut Receiver<Command>) -> Option<Command> {
    match command {
        Command::Write(write, reply) => return write_batch(store, (write, reply), queue),
        Command::Get(id, reply) => answer(reply, store.get(&id)),
        Command::List { since, limit, reply } => answer(reply, store.list(since, limit)),
        Command::Latest { limit, reply } => answer(reply, store.latest(limit)),
        Command::Unfinished(reply) => answer(reply, store.unfinished()),
        Command::Ids(reply) => answer(reply, store.ids()),
        Command::Kept(reply) => answer(reply, store.kept()),
        Command::LastChange(reply) => answer(reply, store.last_change()),
        Command::Check(reply) => answer(reply, store.check()),
    }
    None
}

/// Commits `first` and the writes that wait behind it; the command that ended them is returned.
fn write_batch(
    store: &mut Store,
    first: (Write, Reply<()>),
    queue: &mut Receiver<Command>,
) -> Option<Command> {
    let (mut writes, mut replies) = (vec![first.0], vec![first.1]);
    let mut next = None;
    while writes.len() < BATCH_WRITES_MAX && next.is_none() {
        match queue.try_recv() {
            Ok(Command::Write(write, reply)) => {
                writes.push(write);
                replies.push(reply);
            }
            Ok(other) => next = Some(other),
            Err(_) => break,
        }
    }
    let results = store.write(&writes);
    replies.into_iter().zip(results).for_each(|(reply, result)| answer(reply, result));
    next
}

fn answer<T>(reply: Reply<T>, result: Result<T, JournalError>) {
    let _ = reply.send(result);
}
