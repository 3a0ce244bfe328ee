//! Which processes of this host may use the Unix socket.

use rustix::process::getuid;

/// The kernel tells the uid of whoever connects (`SO_PEERCRED` of `unix(7)`); root and the daemon's own
/// user are let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerRule {
    own_uid: u32,
}

impl PeerRule {
    /// The rule of a daemon that runs as `own_uid`.
    pub const fn for_uid(own_uid: u32) -> Self {
        Self { own_uid }
    }

    /// The rule of this process.
    pub fn of_this_process() -> Self {
        Self::for_uid(getuid().as_raw())
    }

    /// Whether a peer with this uid is let in.
    pub const fn admits(&self, uid: u32) -> bool {
        uid == 0 || uid == self.own_uid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_the_own_user_are_let_in_and_nobody_else() {
        let rule = PeerRule::for_uid(1000);
        assert_eq!(
            [0, 1000, 1001, 65_534, u32::MAX].map(|uid| rule.admits(uid)),
            [true, true, false, false, false]
        );
        let rule = PeerRule::for_uid(0);
        assert_eq!([0, 1000].map(|uid| rule.admits(uid)), [true, false]);
    }
}
