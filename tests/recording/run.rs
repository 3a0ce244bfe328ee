//! Lives through a history with the real recorder, and judges what is left.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use shutterd::clock::{Anchor, Clock, MonoTime};
use shutterd::media::Packet;
use shutterd::recording::{Ledger, RecordError, Recorder, RecorderSettings, TrackSettings, prepare};

use crate::disk::{Disk, Files, MEDIA_DIR};
use crate::found::{Feed, source_id};
use crate::history::{History, Step};
use crate::host::Model;
use crate::judge::{Finish, Judge};
use crate::media::Fed;
use crate::threads::Threads;

/// The longest time between two looks of a recording thread at its recorder.
const CHECK_EVERY: Duration = Duration::from_millis(250);
/// A finish waits so long by itself, beside what calls take.
const FINISH_MAX: Duration = Duration::from_secs(2);

/// Where the files of the model are.
pub fn session_dir() -> PathBuf {
    Path::new(MEDIA_DIR).join("s")
}

struct Life<'a> {
    history: &'a History,
    model: Model,
    ledger: Arc<Ledger>,
    feed: Feed,
    revisions: Vec<u32>,
    /// The recording thread has given up: what comes is lost.
    broken: bool,
    held_bytes_most: usize,
}

/// Lives through `history`; what is wrong is told.
pub fn live(history: &History) -> Result<(), String> {
    let threads = Threads::begin(history.chance);
    let mut disk = Disk::new(history.chance ^ 1, &Files::new());
    disk.can_reserve = history.can_reserve;
    let model = Model::new(threads, disk, history.end.survivors);
    let anchor = Anchor { mono: model.now(), wall: model.wall() };
    let sources = history.sources.iter().enumerate();
    let sources = sources.map(|(at, kind)| (source_id(at), kind.media(), format!("device {at}")));
    let ledger = Arc::new(Ledger::new(anchor, sources));
    model.cut().ledger = Some(Arc::clone(&ledger));
    let settings = settings(history, &model);
    prepare(&settings).map_err(|error| format!("can't begin: {error}"))?;
    let tracks = history.sources.iter().enumerate().map(|(source, kind)| TrackSettings {
        source,
        source_id: source_id(source),
        name: format!("source {source}"),
        codec: Some(kind.codec(0)),
    });
    let origin = model.now();
    let recorder = Recorder::begin(settings, tracks.collect(), Arc::clone(&ledger), origin)
        .map_err(|error| format!("can't begin: {error}"))?;
    ledger.begin(origin);
    let mut life = Life {
        history,
        ledger,
        feed: Feed { kinds: history.sources.clone(), anchor, fed: Vec::new(), stop: None },
        revisions: vec![0; history.sources.len()],
        model,
        broken: false,
        held_bytes_most: 0,
    };
    life.live(recorder)
}

fn settings(history: &History, model: &Model) -> RecorderSettings {
    RecorderSettings {
        host: Arc::new(model.clone()),
        session: "s".to_owned(),
        name: String::new(),
        dir: session_dir(),
        file_mode: 0o640,
        dir_mode: 0o750,
        group: None,
        segment: Duration::from_millis(history.segment_ms),
        sync_interval: Duration::from_millis(250),
        resumed: false,
        give_up_after: Duration::from_millis(history.give_up_ms),
        held_bytes_max: history.held_bytes_max,
        first_segment: 1,
    }
}

impl Life<'_> {
    fn live(&mut self, mut recorder: Recorder) -> Result<(), String> {
        for step in &self.history.steps {
            self.step(&mut recorder, step);
        }
        let end = &self.history.end;
        if end.calm {
            let mut disk = self.model.disk();
            disk.faults.clear();
            disk.free = None;
        }
        let stop = end.stop_late_ms.map(|ms| self.model.now() - Duration::from_millis(ms));
        self.feed.stop = stop.filter(|_| !end.killed);
        let finish = if end.killed {
            self.model.cut_off();
            drop(recorder);
            None
        } else {
            Some(self.finish(recorder, stop)?)
        };
        self.model.threads.end();
        self.model.disk().faults.clear();
        let violations = self.model.disk().violations.clone();
        if let Some(violation) = violations.first() {
            return Err(violation.clone());
        }
        if self.held_bytes_most > self.history.held_bytes_max + largest(&self.feed.fed) {
            return Err(format!("{} bytes were held in memory", self.held_bytes_most));
        }
        let judge = Judge { history: self.history, model: &self.model, feed: &self.feed };
        let is_off = self.model.disk().is_off;
        if let Some(finish) = finish.as_ref().filter(|_| !is_off) {
            judge.finished(finish, self.broken)?;
        }
        self.model.cut_off();
        judge.cut(finish.as_ref())
    }

    fn finish(&mut self, recorder: Recorder, stop: Option<MonoTime>) -> Result<Finish, String> {
        let (begun, slow) = (self.model.now(), self.model.disk().slow);
        let result = recorder.finish(stop);
        let was_off = self.model.disk().is_off;
        let passed = self.model.now().since(begun);
        let slow = self.model.disk().slow.saturating_sub(slow);
        // What was slow already when the finish began is waited for too.
        if passed > FINISH_MAX + slow + Duration::from_secs(10) {
            return Err(format!("the finish took {passed:?}, of which the disk took {slow:?}"));
        }
        Ok(Finish {
            result: result.map_err(|error| error.to_string()),
            account: self.ledger.account(),
            was_off,
        })
    }

    fn step(&mut self, recorder: &mut Recorder, step: &Step) {
        match step {
            Step::Packets { source, count, bytes, every_ms, late_ms } => {
                let source = source % self.history.sources.len();
                for _ in 0..*count {
                    self.deliver(recorder, source, *bytes, Duration::from_millis(*late_ms));
                    self.wait(recorder, Duration::from_millis(*every_ms));
                }
            }
            Step::Silence { ms } => self.wait(recorder, Duration::from_millis(*ms)),
            Step::Format { source } => {
                let source = source % self.history.sources.len();
                let revision = self.revisions[source] + 1;
                self.revisions[source] =
                    self.ledger.changed(source, self.history.sources[source].codec(revision));
            }
            Step::Fault(fault) => self.model.disk().faults.push(*fault),
            Step::Full { bytes } => self.model.disk().free = Some(*bytes),
            Step::TakeFile => {
                let newest = self.model.disk().files().into_keys().next_back();
                if let Some(newest) = newest {
                    self.model.disk().take(Path::new(&newest));
                }
            }
            Step::TakeDir => self.model.disk().take(&session_dir()),
            Step::Cut { after } => self.model.disk().cut_in = Some(*after),
        }
    }

    fn deliver(&mut self, recorder: &mut Recorder, source: usize, bytes: usize, late: Duration) {
        let own = self.feed.fed.iter().rfind(|fed| fed.source == source);
        let number = own.map_or(0, |fed| fed.number + 1);
        let kind = self.history.sources[source];
        let payload = kind.payload(source, number, bytes);
        let units = kind.units(payload.len());
        let begin = self.feed.anchor.mono;
        let earliest = own.map_or(begin, |fed| fed.timestamp + Duration::from_millis(1));
        let timestamp = earliest.max(self.model.now() - late);
        let end = timestamp + Duration::from_nanos(kind.length_ns(units));
        self.ledger.captured(source, timestamp, end, units);
        let packet = Packet {
            source,
            timestamp,
            end,
            units,
            revision: self.revisions[source],
            payload: payload.clone(),
        };
        self.feed.fed.push(Fed { source, number, timestamp, end, units, payload });
        if self.broken {
            recorder.lose(&packet);
        } else {
            let written = recorder.write(packet);
            self.note(recorder, written);
        }
    }

    fn wait(&mut self, recorder: &mut Recorder, mut length: Duration) {
        while !length.is_zero() {
            let piece = length.min(CHECK_EVERY);
            self.model.threads.pass(piece);
            length -= piece;
            if !self.broken {
                let checked = recorder.check();
                self.note(recorder, checked);
            }
        }
    }

    fn note(&mut self, recorder: &Recorder, done: Result<(), RecordError>) {
        self.broken |= done.is_err();
        self.held_bytes_most = self.held_bytes_most.max(recorder.held_bytes());
    }
}

fn largest(fed: &[Fed]) -> usize {
    fed.iter().map(|fed| fed.payload.len()).max().unwrap_or(0)
}
