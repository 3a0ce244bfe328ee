//! What each role may do: one table, for gRPC and HTTP alike.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::supervisor::Scope;

/// What a caller may do; each role may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sees sessions, devices and the agent.
    Viewer,
    /// And reads media.
    Reader,
    /// And starts and stops sessions.
    Operator,
}

/// A call that somebody has to be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// `StartSession`
    StartSession,
    /// `StopSession`, `POST /v1/sessions/{id}/stop`
    StopSession,
    /// `GetSession`, `GET /v1/sessions/{id}`
    GetSession,
    /// `ListSessions`
    ListSessions,
    /// `WatchSession`
    WatchSession,
    /// `WatchAgent`
    WatchAgent,
    /// `ListDevices`
    ListDevices,
    /// `GetAgent`
    GetAgent,
    /// `ReadMedia`
    ReadMedia,
    /// `Drain`
    Drain,
    /// `Undrain`
    Undrain,
    /// `Handover`
    Handover,
    /// What the server tells of its own calls.
    Reflect,
}

/// Each call and the least role that may make it.
const TABLE: [(Call, &str, Role); 13] = [
    (Call::GetSession, "GetSession", Role::Viewer),
    (Call::ListSessions, "ListSessions", Role::Viewer),
    (Call::WatchSession, "WatchSession", Role::Viewer),
    (Call::WatchAgent, "WatchAgent", Role::Viewer),
    (Call::ListDevices, "ListDevices", Role::Viewer),
    (Call::GetAgent, "GetAgent", Role::Viewer),
    (Call::Reflect, "ServerReflectionInfo", Role::Viewer),
    (Call::ReadMedia, "ReadMedia", Role::Reader),
    (Call::StartSession, "StartSession", Role::Operator),
    (Call::StopSession, "StopSession", Role::Operator),
    (Call::Drain, "Drain", Role::Operator),
    (Call::Undrain, "Undrain", Role::Operator),
    (Call::Handover, "Handover", Role::Operator),
];

impl Call {
    /// The call that gRPC knows by this name.
    pub fn named(name: &str) -> Option<Self> {
        TABLE.iter().find(|(_, known, _)| *known == name).map(|(call, _, _)| *call)
    }

    /// Its name in gRPC.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// The least role that may make it.
    pub fn least_role(self) -> Role {
        self.row().2
    }

    fn row(self) -> &'static (Self, &'static str, Role) {
        TABLE.iter().find(|(call, _, _)| *call == self).expect("a test holds that every call is in the table")
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Viewer => "viewer",
            Self::Reader => "reader",
            Self::Operator => "operator",
        })
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "viewer" => Ok(Self::Viewer),
            "reader" => Ok(Self::Reader),
            "operator" => Ok(Self::Operator),
            _ => Err("use viewer, reader or operator".to_owned()),
        }
    }
}

/// Somebody who was let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The name of the token, or the uid of the peer.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// The one user whose sessions it may see and act on; everybody's if absent.
    pub user: Option<String>,
    /// What tells it from every other caller, and stays the same for as long as its token does.
    pub(super) identity: [u8; 32],
}

impl Caller {
    /// A process of this host on the Unix socket.
    pub fn of_peer(uid: u32) -> Self {
        let identity = *blake3::hash(&uid.to_be_bytes()).as_bytes();
        Self { name: Self::name_of(uid), role: Role::Operator, user: None, identity }
    }

    /// What a process of this user is called.
    pub(super) fn name_of(uid: u32) -> String {
        format!("uid {uid}")
    }

    /// Whether it may make this call at all. What holds for the whole host is for nobody who is held to
    /// one user.
    pub fn may(&self, call: Call) -> bool {
        let for_all = matches!(call, Call::Drain | Call::Undrain | Call::Handover);
        self.role >= call.least_role() && !(for_all && self.user.is_some())
    }

    /// Whose sessions it may see and act on.
    pub fn scope(&self) -> Scope {
        self.user.clone().map_or(Scope::Everybody, Scope::User)
    }

    /// What a stop of this caller is known by when it names it `key`: nobody else's, of a fixed size.
    pub fn stop_key(&self, key: &[u8]) -> String {
        blake3::keyed_hash(&self.identity, key).to_hex()[..32].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_is_in_the_table_once_and_found_by_its_name() {
        for (call, name, role) in TABLE {
            assert_eq!((Call::named(name), call.name(), call.least_role()), (Some(call), name, role));
            assert_eq!(TABLE.iter().filter(|(other, _, _)| *other == call).count(), 1);
        }
        assert_eq!(TABLE.len(), 13);
        assert_eq!(Call::named("stopsession"), None);
    }

    #[test]
    fn a_role_may_do_what_those_before_it_may() {
        let caller = |role| Caller { role, ..Caller::of_peer(0) };
        let may = |role, call| caller(role).may(call);
        for call in [Call::GetSession, Call::WatchAgent, Call::ListDevices, Call::Reflect] {
            assert!(may(Role::Viewer, call) && may(Role::Reader, call) && may(Role::Operator, call));
        }
        assert_eq!(
            [Role::Viewer, Role::Reader, Role::Operator].map(|role| may(role, Call::ReadMedia)),
            [false, true, true]
        );
        for call in [Call::StartSession, Call::StopSession, Call::Drain, Call::Undrain, Call::Handover] {
            let allowed = [Role::Viewer, Role::Reader, Role::Operator].map(|role| may(role, call));
            assert_eq!(allowed, [false, false, true]);
        }
        let held = Caller { user: Some("u".to_owned()), ..Caller::of_peer(0) };
        assert!(held.may(Call::StopSession) && !held.may(Call::Drain) && !held.may(Call::Handover));
    }

    #[test]
    fn a_key_is_its_callers_own() {
        let (one, other) = (Caller::of_peer(1), Caller::of_peer(2));
        assert_eq!(one.stop_key(b"k"), one.stop_key(b"k"));
        assert_ne!(one.stop_key(b"k"), other.stop_key(b"k"));
        assert_ne!(one.stop_key(b"k"), one.stop_key(b"l"));
        assert_eq!(one.stop_key(&[b'x'; 255]).len(), 32);
    }
}
