//! How a command ends: the exit codes, and the failure that carries one with a message and a remedy.

use std::collections::BTreeMap;
use std::process::ExitCode;

use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::args::Global;
use crate::api::convert::ConvertError;
use crate::config::ConfigError;
use crate::session::SessionId;

/// Something went wrong that no other code names.
pub const FAILURE: u8 = 1;
/// The command line, or the session that it hands over, is wrong. clap uses the same.
pub const USAGE: u8 = 2;
/// There is no such session, or no such file.
pub const NOT_FOUND: u8 = 3;
/// The agent refused: the id exists, a device is busy or missing, there is no room. Or a file is being written.
pub const REFUSED: u8 = 4;
/// No agent can be reached, or it is ending.
pub const UNAVAILABLE: u8 = 5;
/// The caller may not do this.
pub const NOT_PERMITTED: u8 = 6;
/// `repair --check` or `fsck --check` has found what is to be repaired.
pub const NEEDS_REPAIR: u8 = 7;
/// The config can't be used (`EX_CONFIG` of sysexits.h).
pub const CONFIG: u8 = 78;

/// What monitoring plugins answer (Nagios plugin guidelines): something is missing.
pub const HEALTH_WARNING: u8 = 1;
/// What monitoring plugins answer: the service is not well.
pub const HEALTH_CRITICAL: u8 = 2;
/// What monitoring plugins answer: its state can't be told.
pub const HEALTH_UNKNOWN: u8 = 3;

/// The exit codes, for `--help`.
pub const HELP: &str = "\
Exit codes:
   0  done
   1  failed
   2  the command line, or the session handed over, is wrong
   3  no such session, or no such file
   4  refused: the id exists, a device is busy or missing, no room, a file is being written
   5  no agent can be reached, or it is ending
   6  not permitted
   7  `repair --check`, `fsck --check`: there is something to repair
  78  the config is wrong
`health` answers as monitoring plugins do: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.
With --json the last line of standard error tells a failure:
  {\"error\": {\"reason\", \"message\", \"hint\", \"exitCode\", \"about\"}}";

/// How a failure is told on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Lines for people.
    Text,
    /// One line with a JSON object for programs.
    Json,
}

/// Why a command failed, for a person, and the exit code for a script.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    /// The reason in capitals, if the agent told one.
    reason: Option<String>,
    message: String,
    hint: Option<String>,
    /// What it is about, as the agent told it: `session`, `source`, `device`, `holder`, `field`.
    about: BTreeMap<String, String>,
}

impl Failure {
    /// A failure with the exit code `code`.
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, reason: None, message: message.into(), hint: None, about: BTreeMap::new() }
    }

    /// A failure about which everything is said already.
    pub fn silent(code: u8) -> Self {
        Self::new(code, "")
    }

    /// Adds what to do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        self.code
    }

    /// What went wrong, in one line, with the reason that the agent told.
    pub fn message(&self) -> String {
        match &self.reason {
            Some(reason) => format!("{} ({reason})", self.message),
            None => self.message.clone(),
        }
    }

    /// Tells it on standard error.
    pub fn report(&self, form: Form) -> ExitCode {
        match form {
            _ if self.message.is_empty() => {}
            Form::Text => {
                super::out::note(&format!("error: {}", self.message()));
                if let Some(hint) = &self.hint {
                    super::out::note(&format!("hint: {hint}"));
                }
            }
            Form::Json => super::out::note(&self.json().to_string()),
        }
        ExitCode::from(self.code)
    }

    fn json(&self) -> Value {
        let reason = self.reason.as_deref().unwrap_or(reason_of(self.code));
        json!({ "error": {
            "reason": reason,
            "message": self.message,
            "hint": self.hint,
            "exitCode": self.code,
            "about": self.about,
        } })
    }
}

impl From<&Global> for Form {
    fn from(global: &Global) -> Self {
        if global.json { Self::Json } else { Self::Text }
    }
}

impl From<clap::Error> for Failure {
    fn from(error: clap::Error) -> Self {
        // What is wrong comes first, in a line and perhaps a list below it; then the usage.
        let text = error.to_string();
        let problem = text.split("\n\n").next().unwrap_or_default();
        let words: Vec<&str> = problem.trim_start_matches("error: ").split_whitespace().collect();
        Self::new(USAGE, words.join(" "))
            .hint("`shutterd --help` and `shutterd COMMAND --help` tell what there is")
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        // tonic's own words for a call whose time is up, in the client as in the server.
        if status.code() == Code::Cancelled && status.message() == "Timeout expired" {
            return Self::new(UNAVAILABLE, "the agent didn't answer in time")
                .hint("what was asked for may still happen; `shutterd health` tells how the agent is");
        }
        // What has a source happened here, not at the agent.
        if let Some(source) = std::error::Error::source(&status) {
            return Self::new(
                UNAVAILABLE,
                format!("the connection to the agent is lost: {}", innermost(source)),
            )
            .hint("is `shutterd serve` still running? what was asked for may have happened");
        }
        let message = match status.message() {
            "" => format!("the agent answered {:?}", status.code()),
            message => message.to_owned(),
        };
        let mut failure = Self::new(code_of(status.code()), message);
        if let Some(info) = status.get_details_error_info() {
            failure.reason = Some(info.reason).filter(|reason| !reason.is_empty());
            failure.about = info.metadata.into_iter().collect();
        }
        match status.code() {
            Code::NotFound => failure.hint("`shutterd session list` shows the sessions that there are"),
            // Who holds a device may be no session, or none that this caller may see.
            Code::FailedPrecondition => match failure.about.get("holder").map(|it| it.parse::<SessionId>()) {
                Some(Ok(holder)) => {
                    failure.hint(format!("`shutterd session show {holder}` tells who holds the device"))
                }
                Some(Err(_)) => failure,
                None => failure.hint("`shutterd devices` shows the devices of this host"),
            },
            Code::Unauthenticated | Code::PermissionDenied => failure
                .hint("name the file with the operator's token by --token-file, or ask as another user"),
            Code::DeadlineExceeded => failure.hint("`shutterd session list` shows how far it is"),
            _ => failure,
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(CONFIG, error.to_string())
    }
}

impl From<ConvertError> for Failure {
    fn from(error: ConvertError) -> Self {
        Self::new(FAILURE, format!("the agent's answer can't be read: {error}"))
    }
}

/// The innermost cause of an error, which says most.
pub fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// The reason of a failure that is none of the agent's.
fn reason_of(code: u8) -> &'static str {
    match code {
        USAGE => "USAGE",
        NOT_FOUND => "NOT_FOUND",
        REFUSED => "REFUSED",
        UNAVAILABLE => "UNAVAILABLE",
        NOT_PERMITTED => "NOT_PERMITTED",
        CONFIG => "CONFIG",
        _ => "FAILED",
    }
}

fn code_of(code: Code) -> u8 {
    match code {
        Code::NotFound => NOT_FOUND,
        Code::InvalidArgument => USAGE,
        Code::AlreadyExists | Code::FailedPrecondition | Code::ResourceExhausted | Code::Aborted => REFUSED,
        Code::Unavailable => UNAVAILABLE,
        Code::Unauthenticated | Code::PermissionDenied => NOT_PERMITTED,
        _ => FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

    use super::*;

    fn busy(holder: &str) -> Failure {
        let about = HashMap::from([("holder".to_owned(), holder.to_owned())]);
        let details = ErrorDetails::with_error_info("DEVICE_BUSY", "shutterd", about);
        Status::with_error_details(Code::FailedPrecondition, "it is busy", details).into()
    }

    #[test]
    fn a_holder_is_to_be_shown_only_if_it_is_a_session() {
        assert_eq!(busy("s1").hint.as_deref(), Some("`shutterd session show s1` tells who holds the device"));
        for nobody in ["another user", "another process", "(another user)"] {
            assert_eq!(busy(nobody).hint, None, "{nobody}");
        }
        assert_eq!(busy("another process").message(), "it is busy (DEVICE_BUSY)");
    }
}
