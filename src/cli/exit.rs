//! How a command ends: the exit codes, and the failure that carries one with a message and a remedy.

use std::process::ExitCode;

use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::api::convert::ConvertError;
use crate::config::ConfigError;

/// Something went wrong that no other code names.
pub const FAILURE: u8 = 1;
/// The command line, or the session that it hands over, is wrong. clap uses the same.
pub const USAGE: u8 = 2;
/// There is no such session.
pub const NOT_FOUND: u8 = 3;
/// The agent refused: the id exists, a device is busy or missing, there is no room.
pub const REFUSED: u8 = 4;
/// No agent can be reached, or it is ending.
pub const UNAVAILABLE: u8 = 5;
/// The caller may not do this.
pub const NOT_PERMITTED: u8 = 6;
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
   3  no such session
   4  refused: the id exists, a device is busy or missing, no room
   5  no agent can be reached, or it is ending
   6  not permitted
  78  the config is wrong
`health` answers as monitoring plugins do: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.";

/// Why a command failed, for a person, and the exit code for a script.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    message: String,
    hint: Option<String>,
}

impl Failure {
    /// A failure with the exit code `code`.
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None }
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

    /// What went wrong, in one line.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Tells it on standard error.
    pub fn report(&self) -> ExitCode {
        if !self.message.is_empty() {
            super::out::note(&format!("error: {}", self.message));
        }
        if let Some(hint) = &self.hint {
            super::out::note(&format!("hint: {hint}"));
        }
        ExitCode::from(self.code)
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
        let details = status.get_details_error_info();
        let reason = details.as_ref().map_or("", |info| info.reason.as_str());
        let about = |key: &str| details.as_ref().and_then(|info| info.metadata.get(key)).cloned();
        let message = match (status.message(), reason) {
            ("", "") => format!("the agent answered {:?}", status.code()),
            (message, "") => message.to_owned(),
            (message, reason) => format!("{message} ({reason})"),
        };
        let failure = Self::new(code_of(status.code()), message);
        match status.code() {
            Code::NotFound => failure.hint("`shutterd session list` shows the sessions that there are"),
            Code::FailedPrecondition => match about("holder") {
                Some(holder) => {
                    failure.hint(format!("`shutterd session show {holder}` tells who holds the device"))
                }
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
