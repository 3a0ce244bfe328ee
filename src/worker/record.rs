//! The recording thread: from the queue to the files. And the repair process.

use std::collections::VecDeque;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use super::crash::or_crash;
use super::event::Event;
use super::stop::StopOrder;
use crate::link::RepairReport;
use crate::media::{Popped, Queue};
use crate::recording::{RecordError, Recorder, repair_dir};
use crate::session::MediaFile;
use crate::telemetry::chain;

/// The longest wait for a packet before the background sync is asked for errors.
const WAIT: Duration = Duration::from_millis(250);

/// Starts the thread that writes what the queue holds, until the queue is closed and empty; then it
/// finishes the file and says so.
pub(super) fn start(
    queue: Arc<Queue>,
    recorder: Recorder,
    stop: Arc<StopOrder>,
    events: SyncSender<Event>,
) -> std::io::Result<()> {
    std::thread::Builder::new().name("record".to_owned()).spawn(move || {
        let recorded = or_crash("record", || record(&queue, recorder, &stop, &events));
        queue.close();
        // Nobody listens any more when the worker is at its end.
        let _ = events.send(Event::Recorded(recorded));
    })?;
    Ok(())
}

fn record(
    queue: &Queue,
    mut recorder: Recorder,
    stop: &StopOrder,
    events: &SyncSender<Event>,
) -> Result<(), RecordError> {
    let mut packets = VecDeque::new();
    let mut broken = false;
    loop {
        let popped = queue.pop_all(&mut packets, WAIT);
        let stop_at = stop.get();
        let mut failure = None;
        for packet in packets.drain(..) {
            if stop_at.is_some_and(|stop| packet.timestamp > stop) {
                // It was captured before the order came, and after the instant that the order names.
                recorder.retract(&packet);
            } else if broken {
                recorder.lose(&packet);
            } else if let Err(error) = recorder.write(packet) {
                (broken, failure) = (true, Some(error));
            }
        }
        if !broken && let Err(error) = recorder.check() {
            (broken, failure) = (true, Some(error));
        }
        if let Some(error) = failure {
            tracing::error!(error = %chain(&error), "recording failed");
            // Nobody listens any more when the worker is at its end.
            let _ = events.send(Event::RecordFailed(error));
        }
        if popped == Popped::End {
            return recorder.finish(stop.get());
        }
    }
}

/// Repairs the recordings in `dir` and prints a [`RepairReport`] as JSON. `known` is JSON of the files that
/// were finished; the session goes on with file `before`.
pub fn repair(dir: &Path, known: &str, before: Option<u32>) -> ExitCode {
    super::probe::start_short_lived();
    // What can't be read isn't known: every file is looked at then.
    let known: Vec<MediaFile> = serde_json::from_str(known).unwrap_or_default();
    match repair_dir(dir, &known, before) {
        Ok((files, failures)) => {
            for file in &files {
                tracing::info!(
                    file = file.file.path,
                    repaired = file.file.repaired,
                    cut_bytes = file.cut_bytes,
                    "a file of the dead worker is kept"
                );
            }
            let failures: Vec<String> = failures.iter().map(|error| chain(error)).collect();
            for error in &failures {
                tracing::error!(error, "a file can't be repaired");
            }
            super::probe::print(&RepairReport { files, failures })
        }
        Err(error) => {
            tracing::error!(error = %chain(&error), "repair failed");
            ExitCode::FAILURE
        }
    }
}
