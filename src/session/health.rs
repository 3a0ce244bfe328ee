//! How well the agent does what it promises: one evaluation, by which every probe answers.
//!
//! ```text
//! absent     nothing is expected of it: an idle host, a drained one, a source that has come to its end
//! degraded   something is missing, and comes back by itself or has time
//! failed     a promise isn't kept, or soon won't be: somebody has to see to it
//! ```

use std::time::Duration;

use super::{SessionId, SourceState};

/// Bytes without which no file can be begun or ended.
const DISK_BYTES_MIN: u64 = 64 << 20;

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// By design; nothing is wrong.
    Absent,
    /// Something is missing that comes back by itself, or has time.
    Degraded,
    /// A promise isn't kept.
    Failed,
}

/// What something was found of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// The agent as a whole.
    Agent,
    /// The media of a source.
    Source,
    /// A worker and the link to it.
    Worker,
    /// A device that should be free.
    Device,
    /// The daemon's memory.
    Journal,
    /// The disk of the media.
    Disk,
    /// The search for devices.
    Probe,
}

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// Of what.
    pub subject: Subject,
    /// Which one: a session, a device's label; empty where there is one only.
    pub about: String,
    /// The session that it concerns, if it is one alone.
    pub session: Option<SessionId>,
    /// What it is and what to do, a sentence.
    pub message: String,
}

/// What something was found of, if there is more than one of its kind.
#[derive(Clone, Copy)]
enum About<'a> {
    Host,
    Session(&'a SessionId),
    Device(&'a SessionId, &'a str),
}

/// The outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// What was found, the worst first.
    pub findings: Vec<Finding>,
    /// The agent is at its end.
    pub stopping: bool,
}

/// What is measured of the agent.
#[derive(Clone, Debug, Default)]
pub struct Vitals {
    /// It ends.
    pub stopping: bool,
    /// Why it takes no new session, if it doesn't.
    pub closed: Option<String>,
    /// Its unfinished sessions.
    pub sessions: Vec<SessionVitals>,
    /// Devices that can't be freed: the session and a sentence each.
    pub stuck: Vec<(SessionId, String)>,
    /// Sessions whose receipts the journal has not taken.
    pub unsaved: Vec<SessionId>,
    /// Sessions whose media is to be removed and can't be: a sentence each.
    pub unremoved: Vec<(SessionId, String)>,
    /// What the journal's last check met.
    pub journal: Option<String>,
    /// What was wrong with the journal when the agent began.
    pub past: Option<String>,
    /// The disk of the media, once it was looked at.
    pub disk: Option<Result<DiskVitals, String>>,
    /// Bytes a second that become durable.
    pub bytes_per_second: f64,
    /// How long ago devices were last found, or the agent began.
    pub probe_age: Duration,
    /// What the last search for devices met.
    pub probe: Option<String>,
}

/// What is measured of one session.
#[derive(Clone, Debug)]
pub struct SessionVitals {
    /// Which one.
    pub id: SessionId,
    /// How far it is.
    pub stage: CaptureStage,
    /// How long its worker has had no link.
    pub unlinked: Option<Duration>,
    /// Its sources.
    pub sources: Vec<SourceVitals>,
}

/// What is expected of a session's worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureStage {
    /// It starts, or ends: deadlines watch over that.
    Changing,
    /// It captures.
    Working,
    /// It has died, and a new one is on its way.
    Restarting,
}

/// What is measured of one source.
#[derive(Clone, Debug)]
pub struct SourceVitals {
    /// Its device.
    pub device: String,
    /// How it is.
    pub state: SourceState,
    /// Why it is degraded, or what else is wrong with it.
    pub reason: String,
    /// How long ago its last durable packet was captured, or its capture began.
    pub durable_age: Duration,
}

/// The disk of the media.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskVitals {
    /// Bytes that can be written.
    pub free_bytes: u64,
}

/// From when on something is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthLimits {
    /// A source nothing of which has become durable for longer has failed.
    pub durable_age: Duration,
    /// A worker may be without a link for this long.
    pub unlinked: Duration,
    /// A disk that is full sooner is degraded.
    pub low_space: Duration,
    /// Devices must have been found within this time.
    pub probe_age: Duration,
}

impl Level {
    /// The word of the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Degraded => "degraded",
            Self::Failed => "failed",
        }
    }
}

impl Subject {
    /// The word of the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Source => "source",
            Self::Worker => "worker",
            Self::Device => "device",
            Self::Journal => "journal",
            Self::Disk => "disk",
            Self::Probe => "probe",
        }
    }
}

impl Health {
    /// `ok`, `degraded` or `failed`.
    pub fn status(&self) -> &'static str {
        match self.findings.first().map(|finding| finding.level) {
            Some(Level::Failed) => "failed",
            Some(Level::Degraded) => "degraded",
            Some(Level::Absent) | None => "ok",
        }
    }

    /// Whether the agent does what it promises, if perhaps with something missing, and goes on.
    pub fn is_serving(&self) -> bool {
        !self.stopping && self.of(Level::Failed).next().is_none()
    }

    /// What was found of this level.
    pub fn of(&self, level: Level) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(move |finding| finding.level == level)
    }
}

impl DiskVitals {
    /// Seconds for which there is room, when so many bytes a second are written.
    pub fn seconds_left(&self, bytes_per_second: f64) -> f64 {
        self.free_bytes as f64 / bytes_per_second.max(1.0)
    }
}

/// What is said of a disk that has less than this left.
pub fn low_space(limit: Duration) -> String {
    let (seconds, remedy) = (limit.as_secs(), "remove media, or enlarge it");
    format!("the disk of media_dir is full in less than {seconds} s at the present rate: {remedy}")
}

/// Judges what was measured.
pub fn evaluate(vitals: &Vitals, limits: &HealthLimits) -> Health {
    let mut findings = Vec::new();
    let mut find = |level, subject, about: About<'_>, message: String| {
        let (session, about) = match about {
            About::Host => (None, ""),
            About::Session(id) => (Some(id.clone()), id.as_str()),
            About::Device(id, device) => (Some(id.clone()), device),
        };
        findings.push(Finding { level, subject, about: about.to_owned(), session, message });
    };
    if let Some(why) = &vitals.closed {
        find(Level::Absent, Subject::Agent, About::Host, why.clone());
    }
    if vitals.sessions.is_empty() && vitals.closed.is_none() {
        find(Level::Absent, Subject::Agent, About::Host, "no session: nothing is captured".to_owned());
    }
    for (session, message) in &vitals.stuck {
        find(Level::Failed, Subject::Device, About::Session(session), message.clone());
    }
    for session in &vitals.sessions {
        judge_session(session, limits, &mut find);
    }
    judge_host(vitals, limits, &mut find);
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    Health { findings, stopping: vitals.stopping }
}

fn judge_session(
    session: &SessionVitals,
    limits: &HealthLimits,
    find: &mut impl FnMut(Level, Subject, About<'_>, String),
) {
    match session.stage {
        CaptureStage::Changing => return,
        CaptureStage::Restarting => {
            let message = "its worker has died or hangs; a new one is on its way".to_owned();
            find(Level::Degraded, Subject::Worker, About::Session(&session.id), message);
        }
        CaptureStage::Working => {
            if session.unlinked.is_some_and(|unlinked| unlinked > limits.unlinked) {
                let message = "its worker has no link; it is waited for".to_owned();
                find(Level::Degraded, Subject::Worker, About::Session(&session.id), message);
            }
        }
    }
    for source in &session.sources {
        judge_source(&session.id, source, limits, find);
    }
}

fn judge_source(
    session: &SessionId,
    source: &SourceVitals,
    limits: &HealthLimits,
    find: &mut impl FnMut(Level, Subject, About<'_>, String),
) {
    let overdue = source.durable_age > limits.durable_age;
    let seconds = limits.durable_age.as_secs_f64();
    let (level, message) = match source.state {
        SourceState::Released => (Level::Absent, "has come to its end".to_owned()),
        SourceState::Degraded if overdue => {
            (Level::Failed, format!("has delivered nothing for more than {seconds} s: {}", source.reason))
        }
        SourceState::Degraded => (Level::Degraded, source.reason.clone()),
        SourceState::Starting | SourceState::Working if overdue => (
            Level::Failed,
            format!(
                "nothing of it has become durable for more than {seconds} s: check the disk of media_dir"
            ),
        ),
        SourceState::Working if !source.reason.is_empty() => (Level::Degraded, source.reason.clone()),
        SourceState::Starting | SourceState::Working => return,
    };
    find(level, Subject::Source, About::Device(session, &source.device), message);
}

fn judge_host(
    vitals: &Vitals,
    limits: &HealthLimits,
    find: &mut impl FnMut(Level, Subject, About<'_>, String),
) {
    for session in &vitals.unsaved {
        let message = format!(
            "the journal has not taken the receipt of session {session}: check the disk of state_dir"
        );
        find(Level::Failed, Subject::Journal, About::Session(session), message);
    }
    for (session, problem) in &vitals.unremoved {
        find(Level::Degraded, Subject::Disk, About::Session(session), problem.clone());
    }
    if let Some(problem) = &vitals.journal {
        find(Level::Failed, Subject::Journal, About::Host, problem.clone());
    }
    if let Some(problem) = &vitals.past {
        find(Level::Degraded, Subject::Journal, About::Host, problem.clone());
    }
    match &vitals.disk {
        Some(Err(problem)) => find(Level::Failed, Subject::Disk, About::Host, problem.clone()),
        Some(Ok(disk)) if disk.free_bytes < DISK_BYTES_MIN => {
            let message = "the disk of media_dir is full: remove media, or enlarge it".to_owned();
            find(Level::Failed, Subject::Disk, About::Host, message);
        }
        Some(Ok(disk)) if disk.seconds_left(vitals.bytes_per_second) < limits.low_space.as_secs_f64() => {
            find(Level::Degraded, Subject::Disk, About::Host, low_space(limits.low_space));
        }
        None | Some(Ok(_)) => {}
    }
    let failure = vitals.probe.as_deref();
    if vitals.sessions.is_empty() && vitals.probe_age > limits.probe_age {
        let minutes = limits.probe_age.as_secs() / 60;
        let why = failure.unwrap_or("no search has ended");
        let message = format!("no devices have been found for more than {minutes} min: {why}");
        find(Level::Failed, Subject::Probe, About::Host, message);
    } else if let Some(problem) = failure {
        find(Level::Degraded, Subject::Probe, About::Host, problem.to_owned());
    }
}
