//! The audit log: one line for each call that changes something or reads media, however it ends, with who
//! made it. Must never hold a token, nor anything of a call that was not checked before.

use std::sync::{Arc, OnceLock};

use super::{Call, Caller, Role};
use crate::session::SessionId;

/// The target of the lines, to filter the log by.
pub const AUDIT_TARGET: &str = "audit";

/// The way by which a call has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// gRPC over the Unix socket.
    Unix,
    /// gRPC over TCP.
    Tcp,
    /// HTTP.
    Http,
}

/// A call under way. Its line is written when it ends, or when its caller goes away before.
#[derive(Debug)]
pub struct Audit {
    call: Call,
    way: Way,
    caller: Option<Who>,
    session: AuditedSession,
    ended: bool,
}

/// Who calls, as far as that is known.
#[derive(Debug)]
enum Who {
    /// Somebody who was let in.
    Caller(Caller),
    /// Another user of this host, who was not.
    Stranger { uid: u32 },
}

/// The session that a call is about, to be told once it is known.
#[derive(Clone, Debug, Default)]
pub struct AuditedSession(Arc<OnceLock<SessionId>>);

impl AuditedSession {
    /// The call is about `session`.
    pub fn is(&self, session: &SessionId) {
        self.0.get_or_init(|| session.clone());
    }
}

impl Audit {
    /// Begins the line of `call`; `None` for one that only looks.
    pub fn begin(call: Call, way: Way) -> Option<Self> {
        let audited = call.least_role() > Role::Viewer;
        let session = AuditedSession::default();
        audited.then(|| Self { call, way, caller: None, session, ended: false })
    }

    /// It is known who calls.
    pub fn called_by(&mut self, caller: &Caller) {
        self.caller = Some(Who::Caller(caller.clone()));
    }

    /// It is known which user of this host calls, and not yet whether it may.
    pub fn called_from(&mut self, uid: u32) {
        self.caller = Some(Who::Stranger { uid });
    }

    /// Where to tell the session.
    pub fn session(&self) -> AuditedSession {
        self.session.clone()
    }

    /// Writes the line: how the call ended, in the words of its protocol, and why, as its error says.
    pub fn end(mut self, outcome: &str, reason: Option<&str>) {
        self.write(outcome, reason);
    }

    fn write(&mut self, outcome: &str, reason: Option<&str>) {
        self.ended = true;
        let (name, caller) = match &self.caller {
            Some(Who::Caller(caller)) => (Some(caller.name.clone()), Some(caller)),
            Some(Who::Stranger { uid }) => (Some(Caller::name_of(*uid)), None),
            None => (None, None),
        };
        let way = match self.way {
            Way::Unix => "unix",
            Way::Tcp => "tcp",
            Way::Http => "http",
        };
        tracing::info!(
            target: AUDIT_TARGET,
            session = self.session.0.get().map(tracing::field::display),
            caller = name,
            user = caller.and_then(|caller| caller.user.as_deref()),
            role = caller.map(|caller| tracing::field::display(caller.role)),
            call = self.call.name(),
            way,
            outcome,
            reason,
            "call"
        );
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        if !self.ended {
            // Its caller went away, or the agent ends; what was asked for may go on all the same.
            self.write("CANCELLED", Some("NO_ANSWER"));
        }
    }
}
