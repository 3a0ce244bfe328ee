//! Sockets that systemd holds for the daemon (`sd_listen_fds(3)`): they listen while it is restarted, so that no
//! call is refused. Each is known by its address; one that the config doesn't name is an error.

use std::net::{SocketAddr, TcpListener};

use anyhow::{Context, bail};
use listenfd::ListenFd;
use rustix::io::{FdFlags, fcntl_setfd};

/// Sockets that this process was started with.
#[derive(Debug, Default)]
pub(super) struct Given(Vec<(SocketAddr, TcpListener)>);

impl Given {
    /// Takes them over; none without systemd. No process that the daemon starts inherits them.
    ///
    /// # Errors
    /// One of them is no TCP socket that listens.
    pub(super) fn take() -> anyhow::Result<Self> {
        let mut passed = ListenFd::from_env();
        let mut given = Vec::new();
        for at in 0..passed.len() {
            let taken = passed.take_tcp_listener(at);
            let listener = taken.with_context(|| {
                format!("socket {at} of the socket unit is none that this daemon takes: let it list api.tcp and http.listen")
            })?;
            let Some(listener) = listener else { continue };
            fcntl_setfd(&listener, FdFlags::CLOEXEC).context("cannot keep a socket from other programs")?;
            listener.set_nonblocking(true).context("cannot use a socket of the socket unit")?;
            let address = listener.local_addr().context("cannot use a socket of the socket unit")?;
            given.push((address, listener));
        }
        Ok(Self(given))
    }

    /// The socket at `address`, if it was given.
    pub(super) fn at(&mut self, address: Option<SocketAddr>) -> Option<TcpListener> {
        let at = self.0.iter().position(|(given, _)| Some(*given) == address)?;
        Some(self.0.swap_remove(at).1)
    }

    /// Every socket has its use.
    ///
    /// # Errors
    /// One has none: whoever connects to it would wait for ever.
    pub(super) fn check_used(self) -> anyhow::Result<()> {
        if let Some((address, _)) = self.0.first() {
            bail!(
                "the socket unit listens on {address}, which is neither api.tcp nor http.listen: make them the same"
            );
        }
        Ok(())
    }
}
