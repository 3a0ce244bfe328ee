//! A bell that ends a device's wait: an eventfd that every read loop polls beside its device.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

/// Interrupts the wait of one device, from any thread; clones ring the same bell.
#[derive(Clone, Debug)]
pub struct Wake(Arc<OwnedFd>);

impl Wake {
    /// A bell that has not rung.
    ///
    /// # Errors
    /// The process is out of descriptors.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    /// Ends the present wait, or the next one if there is none.
    pub fn ring(&self) {
        // EAGAIN would mean a counter at its limit, which rings just as well.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }

    /// Waits for the bell, at most `length`, and takes it back; true when it rang.
    pub fn wait(&self, length: Duration) -> bool {
        let timeout = Timespec::try_from(length).ok();
        let mut fds = [PollFd::new(&*self.0, PollFlags::IN)];
        // An interrupted wait is a short wait; callers look at the clock anyway.
        let _ = poll(&mut fds, timeout.as_ref());
        self.take()
    }

    /// Takes the bell back; true when it had rung.
    pub fn take(&self) -> bool {
        rustix::io::read(&*self.0, &mut [0u8; 8]).is_ok()
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
