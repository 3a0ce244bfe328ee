//! The call at which a thread stands: what it is about, and what could happen to it.

use std::fs;
use std::os::unix::fs::FileExt;

use libc::{pid_t, user_regs_struct};

use crate::calls::{About, Class, Fault, STOPPING};

/// The class of a call: that of some depends on what they read or write, and some are in none.
pub fn class(thread: pid_t, call: &user_regs_struct) -> Option<Class> {
    let (_, about) = STOPPING.iter().find(|(number, _)| *number == call.orig_rax.cast_signed())?;
    let (of_files, of_streams) = match about {
        About::Nothing(class) => return Some(*class),
        About::Reading => (Class::Read, Class::Receive),
        About::Writing => (Class::Write, Class::Send),
    };
    let target = target(thread, call.rdi);
    if target.starts_with('/') {
        Some(of_files)
    } else {
        // An event's counter can't fail.
        (target.starts_with("socket:") || target.starts_with("pipe:")).then_some(of_streams)
    }
}

/// What a descriptor stands for.
fn target(thread: pid_t, descriptor: u64) -> String {
    let target = fs::read_link(format!("/proc/{thread}/fd/{descriptor}"));
    target.map(|path| path.display().to_string()).unwrap_or_default()
}

/// A call for people: its number, and what it is about.
pub fn described(thread: pid_t, call: &user_regs_struct) -> String {
    let number = call.orig_rax.cast_signed();
    let about = match number {
        libc::SYS_openat | libc::SYS_mkdirat | libc::SYS_unlinkat => text(thread, call.rsi),
        libc::SYS_open | libc::SYS_mkdir | libc::SYS_unlink | libc::SYS_rename | libc::SYS_execve => {
            text(thread, call.rdi)
        }
        _ => target(thread, call.rdi),
    };
    format!("call {number} of {about}")
}

/// A path in a thread's memory.
fn text(thread: pid_t, address: u64) -> String {
    // A page at most: what lies behind it may not be mapped.
    let mut bytes = vec![0; 4096 - usize::try_from(address % 4096).unwrap_or(0)];
    let length = read(thread, address, &mut bytes);
    let end = bytes[..length].iter().position(|byte| *byte == 0).unwrap_or(length);
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn read(thread: pid_t, address: u64, into: &mut [u8]) -> usize {
    let memory = fs::File::open(format!("/proc/{thread}/mem"));
    memory.and_then(|memory| memory.read_at(into, address)).unwrap_or(0)
}

/// Whether this could happen to the call on a real system.
pub fn fits(fault: Fault, thread: pid_t, call: &user_regs_struct) -> bool {
    let is_stream = |descriptor| !target(thread, descriptor).starts_with('/');
    match (call.orig_rax.cast_signed(), fault) {
        (_, Fault::Kill | Fault::Cut) => true,
        (_, Fault::Short) => shorter(thread, call).is_some(),
        // Only what makes a file needs room.
        (libc::SYS_open, Fault::Error("ENOSPC", _)) => is_making(call.rsi),
        (libc::SYS_openat, Fault::Error("ENOSPC", _)) => is_making(call.rdx),
        (libc::SYS_openat2, Fault::Error("ENOSPC", _)) => is_making(word(thread, call.rdx)),
        // What never sleeps is never interrupted, and what is woken by its own process is never reset.
        (libc::SYS_sendto | libc::SYS_recvfrom, _) if call.r10 & DONT_WAIT != 0 => false,
        (_, Fault::Error("ECONNRESET", _)) => target(thread, call.rdi).starts_with("socket:"),
        (number, Fault::Error("EINTR", _)) if is_of_descriptor(number) && is_stream(call.rdi) => {
            sleeps(thread, call.rdi)
        }
        _ => true,
    }
}

const DONT_WAIT: u64 = libc::MSG_DONTWAIT.unsigned_abs() as u64;

fn is_making(flags: u64) -> bool {
    flags & u64::from(libc::O_CREAT.unsigned_abs()) != 0
}

fn is_of_descriptor(number: i64) -> bool {
    STOPPING.iter().any(|(it, about)| *it == number && !matches!(about, About::Nothing(_)))
}

/// Whether a call on this descriptor may wait.
fn sleeps(thread: pid_t, descriptor: u64) -> bool {
    let told = fs::read_to_string(format!("/proc/{thread}/fdinfo/{descriptor}")).unwrap_or_default();
    let flags = told.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & libc::O_NONBLOCK == 0)
}

/// The call, with half of what it is given; `None` if it is given no more than one byte.
pub fn shorter(thread: pid_t, call: &user_regs_struct) -> Option<user_regs_struct> {
    let mut call = *call;
    let (one, several, count) = match call.orig_rax.cast_signed() {
        libc::SYS_write | libc::SYS_pwrite64 | libc::SYS_sendto => {
            call.rdx /= 2;
            return (call.rdx > 0).then_some(call);
        }
        libc::SYS_writev => (libc::SYS_write, call.rsi, call.rdx),
        libc::SYS_pwritev => (libc::SYS_pwrite64, call.rsi, call.rdx),
        // Its pieces are told in a message, behind the address and its length.
        libc::SYS_sendmsg => (libc::SYS_sendto, word(thread, call.rsi + 16), word(thread, call.rsi + 24)),
        _ => return None,
    };
    // The first piece that holds something, alone.
    let pieces = (0..count).map(|piece| several + 16 * piece);
    let mut lengths = pieces.map(|piece| (piece, word(thread, piece + 8)));
    let (piece, length) = lengths.find(|(_, length)| *length > 1)?;
    call.orig_rax = one.cast_unsigned();
    if one == libc::SYS_sendto {
        (call.r10, call.r8, call.r9) = (call.rdx, 0, 0);
    }
    // The offset of `pwritev` is where `pwrite64` has it, behind the count.
    (call.rsi, call.rdx) = (word(thread, piece), length / 2);
    Some(call)
}

/// A number in a thread's memory.
fn word(thread: pid_t, address: u64) -> u64 {
    let mut bytes = [0; 8];
    let length = read(thread, address, &mut bytes);
    if length == bytes.len() { u64::from_le_bytes(bytes) } else { 0 }
}
