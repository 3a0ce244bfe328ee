//! How far each source of a worker is.

use std::time::Duration;

use crate::clock::MonoTime;
use crate::link::SourceSettings;
use crate::matroska::Codec;
use crate::recording::TrackSettings;

/// The sources of one worker.
pub(super) struct Sources(Vec<Source>);

#[derive(Default)]
struct Source {
    codec: Option<Codec>,
    interval: Duration,
    first: Option<MonoTime>,
    /// It isn't waited for: its device is gone.
    missing: bool,
    closed: bool,
}

impl Sources {
    pub(super) fn new(count: usize) -> Self {
        Self((0..count).map(|_| Source::default()).collect())
    }

    /// A device is open; true when it was the last.
    pub(super) fn opened(&mut self, source: usize, codec: Codec, interval: Duration) -> bool {
        self.0[source].codec = Some(codec);
        self.0[source].interval = interval;
        self.0.iter().all(|source| source.codec.is_some())
    }

    /// A source has delivered its first frame; true when no other is waited for.
    pub(super) fn first_frame(&mut self, source: usize, timestamp: MonoTime) -> bool {
        self.0[source].first = Some(timestamp);
        self.all_deliver()
    }

    /// A source isn't waited for any more; true when none is, and one delivers.
    pub(super) fn missing(&mut self, source: usize) -> bool {
        self.0[source].missing = true;
        self.all_deliver()
    }

    fn all_deliver(&self) -> bool {
        self.0.iter().all(|source| source.missing || source.first.is_some()) && self.any_delivers()
    }

    /// Whether a source has delivered its first frame.
    pub(super) fn any_delivers(&self) -> bool {
        self.0.iter().any(|source| source.first.is_some())
    }

    /// A device is closed.
    pub(super) fn closed(&mut self, source: usize) {
        self.0[source].closed = true;
    }

    /// Whether no device is open any more.
    pub(super) fn all_closed(&self) -> bool {
        self.0.iter().all(|source| source.closed)
    }

    /// The sources whose devices aren't closed.
    pub(super) fn open(&self) -> Vec<usize> {
        (0..self.0.len()).filter(|source| !self.0[*source].closed).collect()
    }

    /// The time between frames of a source; zero until it is open.
    pub(super) fn interval(&self, source: usize) -> Duration {
        self.0[source].interval
    }

    /// When the first frame of all was captured.
    pub(super) fn origin(&self) -> Option<MonoTime> {
        self.0.iter().filter_map(|source| source.first).min()
    }

    /// The sources that have delivered nothing yet.
    pub(super) fn silent(&self) -> Vec<usize> {
        (0..self.0.len()).filter(|source| self.0[*source].first.is_none()).collect()
    }

    /// The sources, with a track for each that has delivered.
    pub(super) fn tracks(&self, settings: &[SourceSettings]) -> Vec<TrackSettings> {
        let track = |(source, (state, settings)): (usize, (&Source, &SourceSettings))| TrackSettings {
            source,
            source_id: settings.id.clone(),
            name: settings.name.clone(),
            codec: state.first.and(state.codec.clone()),
        };
        self.0.iter().zip(settings).enumerate().map(track).collect()
    }
}
