//! What a check has found, and how it is told.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::cli::damage::place_json;
use crate::cli::text::plain;
use crate::matroska::Place;
use crate::session::SessionId;

/// What became of it. The worst one decides how the command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// The agent does it by itself.
    Left,
    /// It is repaired.
    Repaired,
    /// It would be repaired.
    NeedsRepair,
    /// A worker has it.
    BeingWritten,
    /// It can't be repaired.
    Failed,
}

impl Outcome {
    /// As `repair` tells it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Repaired => "repaired",
            Self::NeedsRepair => "needs_repair",
            Self::BeingWritten => "being_written",
            Self::Failed => "failed",
        }
    }
}

/// Something that is wrong.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What it is, a word for programs.
    pub kind: &'static str,
    /// What became of it.
    pub outcome: Outcome,
    /// Whose it is.
    pub session: Option<String>,
    /// The file.
    pub path: Option<PathBuf>,
    /// What is wrong, a sentence.
    pub message: String,
    /// Where in the file.
    pub places: Vec<Place>,
}

impl Finding {
    /// Something about the journal, or the host.
    pub fn new(kind: &'static str, outcome: Outcome, message: impl Into<String>) -> Self {
        Self { kind, outcome, session: None, path: None, message: message.into(), places: Vec::new() }
    }

    /// Whose it is.
    pub fn of(mut self, session: &SessionId) -> Self {
        self.session = Some(session.to_string());
        self
    }

    /// Which file it is.
    pub fn at(mut self, path: impl Into<PathBuf>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// For people, in one line.
    pub fn line(&self) -> String {
        let session = self.session.as_ref().map(|session| format!("session {session}: "));
        let path = self.path.as_ref().map(|path| format!("{}: ", path.display()));
        let about = path.or(session).unwrap_or_else(|| "journal: ".to_owned());
        let outcome = match self.outcome {
            Outcome::Left => "the agent sees to it at its start",
            Outcome::Repaired => "repaired",
            Outcome::NeedsRepair => "can be repaired",
            Outcome::BeingWritten => "left alone",
            Outcome::Failed => "can't be repaired",
        };
        plain(&format!("{about}{}: {outcome}", self.message))
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let ranges: Vec<Value> = self.places.iter().map(place_json).collect();
        json!({
            "kind": self.kind,
            "outcome": self.outcome.word(),
            "session": self.session,
            "path": self.path,
            "message": self.message,
            "ranges": ranges,
        })
    }
}
