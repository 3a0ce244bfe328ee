//! Whose sessions a caller may see and act on. To a caller that is held to one user, the sessions of
//! others are sessions that there are not.

use serde_json::{Map, Value};

use super::command::SessionView;
use crate::session::SessionSpec;

/// Whose sessions a caller may see and act on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Everybody's.
    #[default]
    Everybody,
    /// Those whose JSON has this `user`.
    User(String),
}

impl Scope {
    /// Whether a session handed in like this is within.
    pub fn holds(&self, spec: &SessionSpec) -> bool {
        self.holds_object(spec.object())
    }

    /// Whether a session that looks like this is within.
    pub fn shows(&self, view: &SessionView) -> bool {
        self.holds_object(&view.object)
    }

    fn holds_object(&self, object: &Map<String, Value>) -> bool {
        match self {
            Self::Everybody => true,
            Self::User(user) => object.get("user").and_then(Value::as_str) == Some(user),
        }
    }
}
