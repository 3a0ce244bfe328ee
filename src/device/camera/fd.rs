//! The descriptor of an open camera, for `poll(2)`: the one place of `unsafe` that `v4l` needs.
//! Must never read or close it.

use std::os::fd::BorrowedFd;

use v4l::Device;

/// The descriptor behind `device`.
#[expect(unsafe_code, reason = "v4l tells its descriptor as a bare number only")]
pub fn of(device: &Device) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open until the last clone of the device's handle is dropped; `device`
    // holds one, and the borrow does not outlive `device`.
    unsafe { BorrowedFd::borrow_raw(device.handle().fd()) }
}
