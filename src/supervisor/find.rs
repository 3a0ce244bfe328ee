//! Sessions that the journal has lost: their media is looked for beside everything else, made whole where a
//! dead worker left it, and each gets its record. Must never touch what a worker still writes.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::actor::Actor;
use super::blocking::apart;
use super::command::{Notice, SessionView};
use super::processes::{Processes, RepairOrder};
use super::{compose, leftover, rebuild};
use crate::clock::Clock;
use crate::journal::{Journal, Past, Record};
use crate::library::Library;
use crate::link::RepairReport;
use crate::session::SessionId;
use crate::session::machine::Event;

/// When media that is still being written is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What became of a directory that the journal doesn't know.
pub(super) enum Found {
    /// A session, with its record.
    Session(Box<Record>),
    /// Nothing of ours.
    Nothing,
    /// It can't be told.
    Failed(String),
}

/// The sessions that are still looked at.
#[derive(Default)]
pub(super) struct Unknown {
    left: BTreeSet<SessionId>,
}

impl Unknown {
    /// Which sessions have a directory, and no record. None where the journal is whole.
    pub(super) async fn of(
        past: &Past,
        journal: &Journal,
        library: &Library,
        wait: Duration,
    ) -> anyhow::Result<Self> {
        if matches!(past, Past::Closed | Past::First) {
            return Ok(Self::default());
        }
        let known: HashSet<String> = journal.ids().await??.into_iter().collect();
        let library = library.clone();
        let listed = apart(move || library.session_ids());
        match tokio::time::timeout(wait, listed).await {
            Ok(Ok(Ok(ids))) => {
                Ok(Self { left: ids.into_iter().filter(|id| !known.contains(id.as_str())).collect() })
            }
            Ok(Ok(Err(error))) => {
                tracing::error!(%error, "media_dir can't be read: what the journal has lost is not looked for");
                Ok(Self::default())
            }
            Ok(Err(_)) | Err(_) => {
                tracing::error!("media_dir gives no answer: what the journal has lost is not looked for");
                Ok(Self::default())
            }
        }
    }

    pub(super) fn has(&self, id: &SessionId) -> bool {
        self.left.contains(id)
    }

    pub(super) fn count(&self) -> usize {
        self.left.len()
    }
}

/// Who looks.
struct Finder {
    library: Library,
    link: PathBuf,
    clock: Arc<dyn Clock>,
    processes: Arc<dyn Processes>,
    timeout: Duration,
}

impl Actor {
    /// Looks for what the journal has lost, beside everything else.
    pub(super) fn find_unknown(&self) {
        if self.unknown.left.is_empty() {
            return;
        }
        tracing::warn!(
            directories = self.unknown.count(),
            "the journal doesn't know these: they are looked at"
        );
        let finder = Finder {
            library: self.library.clone(),
            link: self.link_path.clone(),
            clock: Arc::clone(&self.clock),
            processes: Arc::clone(&self.processes),
            timeout: self.settings.limits.repair,
        };
        let (left, notices) = (self.unknown.left.clone(), self.notices.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                () = finder.look(left, notices.clone()) => {}
                // The rest is found at the next start.
                () = notices.closed() => {}
            }
        });
    }

    pub(super) fn on_looked_at(&mut self, id: &SessionId, found: Found) {
        self.unknown.left.remove(id);
        match found {
            Found::Nothing => tracing::info!(session = %id, "a directory that is no session's is left alone"),
            Found::Failed(problem) => self.problem(Some(id), problem),
            // Nobody can have started one of this id meanwhile: its directory is there.
            Found::Session(_) if self.live.contains_key(id) => {}
            Found::Session(mut record) => {
                tracing::warn!(session = %id, "a session that the journal had lost is found again");
                self.change += 1;
                record.change = self.change;
                self.unsaved.keep((*record).clone());
                let view = compose::view_of(&record);
                // Nobody may be watching.
                let _ = self.changes.send(Arc::new(SessionView { cursor: self.cursor(), ..view }));
                self.put(*record, vec![Event::FinishJournalled]);
            }
        }
    }
}

impl Finder {
    async fn look(self, mut left: BTreeSet<SessionId>, notices: mpsc::Sender<Notice>) {
        loop {
            let running = self.running().await;
            let mut busy = BTreeSet::new();
            for id in left {
                match self.look_at(&id, &running).await {
                    Some(found) => {
                        // An actor that has ended leaves the rest to the next daemon.
                        let _ = notices.send(Notice::Found { id, found }).await;
                    }
                    None => drop(busy.insert(id)),
                }
            }
            if busy.is_empty() {
                return;
            }
            left = busy;
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// The sessions that workers of this daemon's link still capture, or drain.
    async fn running(&self) -> HashSet<String> {
        let link = self.link.clone();
        apart(move || leftover::sessions(&link)).await.unwrap_or_default()
    }

    /// `None` while a worker has it.
    async fn look_at(&self, id: &SessionId, running: &HashSet<String>) -> Option<Found> {
        if running.contains(id.as_str()) {
            return None;
        }
        let (library, own, clock) = (self.library.clone(), id.clone(), Arc::clone(&self.clock));
        let looked = apart(move || {
            let receipt = library.receipt(&own);
            if let Ok(Some(receipt)) = receipt {
                return Ok(Seen::Receipt(Box::new(rebuild::of_receipt(receipt, clock.wall()))));
            }
            if let Err(error) = receipt {
                tracing::error!(session = %own, %error, "receipt.json can't be read: the media tells what it can");
            }
            if library.segments(&own)?.is_empty() {
                return Ok(Seen::Nothing);
            }
            if library.is_being_written(&own)? {
                return Ok(Seen::Busy);
            }
            Ok::<_, std::io::Error>(Seen::Media(library.last_account(&own).map(Box::new)))
        });
        let last = match looked.await {
            Ok(Ok(Seen::Receipt(record))) => return Some(Found::Session(record)),
            Ok(Ok(Seen::Nothing)) | Err(_) => return Some(Found::Nothing),
            Ok(Ok(Seen::Busy)) => return None,
            Ok(Ok(Seen::Media(last))) => last,
            Ok(Err(error)) => {
                let dir = self.library.session_dir(id);
                return Some(Found::Failed(format!("{} can't be read: {error}", dir.display())));
            }
        };
        let report = match &last {
            Some(_) => RepairReport::default(),
            None => match self.repair(id).await {
                Ok(report) => report,
                Err(problem) => return Some(Found::Failed(problem)),
            },
        };
        let same_boot = last.as_ref().is_some_and(|last| last.boot_id == self.processes.boot_id());
        let now = self.clock.wall();
        let wall_at = |at| if same_boot { self.clock.wall_at(at) } else { now };
        let record = rebuild::of_media(id, last.map(|last| *last), &report, now, wall_at);
        Some(record.map_or(Found::Nothing, |record| Found::Session(Box::new(record))))
    }

    async fn repair(&self, id: &SessionId) -> Result<RepairReport, String> {
        let dir = self.library.session_dir(id);
        tracing::warn!(session = %id, "a worker left no account: its files are being repaired");
        let order = RepairOrder { session: id.clone(), dir: dir.clone(), known: Vec::new(), before: None };
        let repaired = self.processes.repair(order, self.timeout).await;
        repaired.map_err(|refusal| {
            let dir = dir.display();
            format!("session {id}, which the journal has lost, can't be repaired: {}; run `shutterd repair {dir}`, then `shutterd fsck`", refusal.message)
        })
    }
}

/// What lies in a directory.
enum Seen {
    Receipt(Box<Record>),
    Media(Option<Box<crate::link::LastAccount>>),
    Busy,
    Nothing,
}
