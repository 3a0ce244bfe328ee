//! One wait for a device's descriptor, its wake and a deadline.
//! Must never read the device.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::Wake;
use crate::clock::{Clock, MonoTime, SystemClock};

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// The descriptor can be read, or is in error.
    Ready,
    /// The wake rang; it has been taken back.
    Rung,
    /// The deadline came first.
    Expired,
}

/// Waits for `device`, `wake` or `deadline`; a past deadline looks once. When both can be had, the
/// device's data goes first, and the bell counts as heard: the caller comes back either way.
///
/// # Errors
/// `poll(2)` failed, which only a lack of memory explains.
pub fn wait(device: BorrowedFd<'_>, wake: &Wake, deadline: MonoTime) -> io::Result<Waited> {
    loop {
        let left = deadline.since(SystemClock.now()).min(Duration::from_hours(1));
        let timeout = Timespec::try_from(left).expect("an hour fits a timespec");
        let mut descriptors = [
            PollFd::from_borrowed_fd(device, PollFlags::IN),
            PollFd::from_borrowed_fd(wake.as_fd(), PollFlags::IN),
        ];
        match poll(&mut descriptors, Some(&timeout)) {
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
            Ok(_) => {}
        }
        let [ready, rung] = descriptors.map(|descriptor| !descriptor.revents().is_empty());
        if rung {
            wake.take();
        }
        if ready {
            return Ok(Waited::Ready);
        } else if rung {
            return Ok(Waited::Rung);
        } else if SystemClock.now() >= deadline {
            return Ok(Waited::Expired);
        }
    }
}
