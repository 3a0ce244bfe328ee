//! What udev says once it is done with a device: its multicast group on netlink (systemd's `sd-device/device-monitor.c`).
//! Only root may send to it (`netlink(7)`), and the worst that a wrong message causes is a look too many.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

/// The group in which udev repeats the kernel's events, after its rules have named and permitted the node. In
/// group 1 the kernel speaks, too early for either.
const UDEV_GROUP: u32 = 2;
/// The longest message that udev sends (its `UEVENT_BUFFER_SIZE` and header).
const MESSAGE_BYTES_MAX: usize = 16 * 1024;
/// Messages of one read.
const MESSAGES_MAX: usize = 64;
/// How a message of udev begins, and the number that follows it, big endian.
const PREFIX: &[u8] = b"libudev\0";
const MAGIC: [u8; 4] = 0xfeed_cafe_u32.to_be_bytes();
/// What is of interest: the subsystems of V4L2 and ALSA.
const SUBSYSTEMS: [&[u8]; 2] = [b"SUBSYSTEM=video4linux", b"SUBSYSTEM=sound"];

/// A socket on which udev is heard, if there is one.
pub(super) fn listen() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(KOBJECT_UEVENT))?;
    bind(&socket, &SocketAddrNetlink::new(0, UDEV_GROUP))?;
    Ok(socket)
}

/// Reads what waits; whether it is about cameras or microphones.
pub(super) fn read(socket: &OwnedFd) -> bool {
    let mut message = vec![0; MESSAGE_BYTES_MAX];
    let mut is_news = false;
    for _ in 0..MESSAGES_MAX {
        match recv(socket, &mut message[..], RecvFlags::empty()) {
            Ok((length, _)) => is_news |= is_about_capture(&message[..length]),
            Err(Errno::INTR) => {}
            // There was more than the socket holds: any of it may have been.
            Err(Errno::NOBUFS) => is_news = true,
            Err(_) => break,
        }
    }
    is_news
}

/// Whether a message is about a camera or a microphone. After prefix and magic number it has the length of its
/// header, and place and length of its properties, which end with a NUL each; numbers are in the host's order.
fn is_about_capture(message: &[u8]) -> bool {
    if !message.starts_with(PREFIX) || message.get(8..12) != Some(&MAGIC) {
        return false;
    }
    let number = |at: usize| {
        let bytes = message.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_ne_bytes(bytes)).ok()
    };
    let properties =
        number(16).zip(number(20)).and_then(|(at, length)| message.get(at..at.checked_add(length)?));
    let mut properties = properties.unwrap_or_default().split(|byte| *byte == 0);
    properties.any(|property| SUBSYSTEMS.contains(&property))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(properties: &[u8]) -> Vec<u8> {
        let mut message = [PREFIX, &MAGIC].concat();
        for number in [40_u32, 40, u32::try_from(properties.len()).expect("it is short"), 0, 0, 0, 0] {
            message.extend(number.to_ne_bytes());
        }
        [&message, properties].concat()
    }

    #[test]
    fn udev_is_understood_when_it_speaks_of_cameras_and_sound() {
        let about = |properties: &[u8]| is_about_capture(&message(properties));
        assert!(about(b"ACTION=add\0SUBSYSTEM=video4linux\0DEVNAME=/dev/video0\0"));
        assert!(about(b"SUBSYSTEM=sound\0ACTION=remove\0"));
        assert!(!about(b"ACTION=add\0SUBSYSTEM=block\0ID_X=SUBSYSTEM=sound\0"));
        assert!(!is_about_capture(b"add@/devices/x\0ACTION=add\0SUBSYSTEM=sound\0"), "that is the kernel");
    }

    #[test]
    fn a_message_that_is_cut_or_lies_about_its_length_is_about_nothing() {
        let whole = message(b"SUBSYSTEM=sound\0");
        for length in 0..whole.len() {
            assert!(!is_about_capture(&whole[..length]), "cut after {length} bytes");
        }
        for at in [16, 20] {
            let mut wrong = whole.clone();
            wrong[at..at + 4].copy_from_slice(&u32::MAX.to_ne_bytes());
            assert!(!is_about_capture(&wrong));
        }
    }

    #[test]
    fn a_socket_that_nobody_has_spoken_on_has_no_news() {
        let socket = listen().expect("netlink is there");
        assert!(!read(&socket), "nor does it wait for any");
    }
}
