//! The reading end: a FIFO, a pipe or a character device, read without blocking.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use crate::clock::{Clock, MonoTime, SystemClock};
use crate::device::wait::{Waited, wait};
use crate::device::{DeviceError, Wake};

/// Room that is asked for in the pipe, so that a writer isn't held up while the reader is late.
const PIPE_BYTES: usize = 1024 * 1024;
/// What the path of an inherited descriptor begins with.
const INHERITED: &str = "fd:";

/// An open reading end.
#[derive(Debug)]
pub(super) struct Inlet {
    /// Label and path, for errors.
    name: String,
    file: File,
    /// Where it was found, unless it was inherited.
    path: Option<PathBuf>,
    wake: Wake,
    /// Bytes that the pipe can hold.
    room: usize,
}

/// What a read came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrived {
    /// This many bytes, at this time.
    Bytes(usize, MonoTime),
    /// Nothing yet.
    Nothing,
    /// Every writer has gone, or the device ended.
    End,
}

impl Inlet {
    pub(super) fn open(label: &str, path: &str, wake: &Wake) -> Result<Self, DeviceError> {
        let name = format!("{label} ({path})");
        let inherited = path.strip_prefix(INHERITED);
        let real = match inherited {
            None => PathBuf::from(path),
            Some(number) => match number.parse::<u32>() {
                Ok(number) => handed_on(number).map_err(|error| refused(&name, path, error))?,
                Err(_) => return Err(malformed(&name, "the descriptor is no number: write fd:N")),
            },
        };
        let kind = kind_of(&real).map_err(|error| refused(&name, path, error))?;
        let Some(kind) = kind else {
            return Err(malformed(&name, "it is no FIFO, pipe or character device"));
        };
        // A FIFO that is open for writing too never ends, and opens before its writer does. What is
        // inherited ends with its last writer.
        let writable = kind == Kind::Pipe && inherited.is_none();
        let file = OpenOptions::new()
            .read(true)
            .write(writable)
            .custom_flags(OFlags::NONBLOCK.union(OFlags::NOCTTY).bits().cast_signed())
            .open(&real)
            .map_err(|error| refused(&name, path, error))?;
        take(&file, &name, path)?;
        // A smaller pipe does too: the host's limit for all pipes of a user may be used up.
        let _ = rustix::pipe::fcntl_setpipe_size(&file, PIPE_BYTES);
        let room = rustix::pipe::fcntl_getpipe_size(&file).unwrap_or(PIPE_BYTES);
        Ok(Self { name, file, path: inherited.is_none().then_some(real), wake: wake.clone(), room })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Bytes that the pipe can hold: who has read more than these has read all that lay in it.
    pub(super) fn room(&self) -> usize {
        self.room
    }

    /// Reads what is there.
    pub(super) fn read(&mut self, space: &mut [u8]) -> Result<Arrived, DeviceError> {
        loop {
            return match self.file.read(space) {
                Ok(0) => Ok(Arrived::End),
                Ok(count) => Ok(Arrived::Bytes(count, SystemClock.now())),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Arrived::Nothing),
                Err(error) => Err(self.failed("reading", error)),
            };
        }
    }

    /// Bytes that still lie in the pipe.
    pub(super) fn waiting_bytes(&self) -> u64 {
        rustix::io::ioctl_fionread(&self.file).unwrap_or(0)
    }

    /// Waits for data; false when `deadline` or the bell came first. A pipe that is silent while another one
    /// stands in its place is gone: whoever made that writes there.
    pub(super) fn wait(&self, deadline: MonoTime) -> Result<bool, DeviceError> {
        match wait(self.file.as_fd(), &self.wake, deadline) {
            Ok(Waited::Ready) => Ok(true),
            Ok(_) if self.is_replaced() => Err(DeviceError::Missing { device: self.name.clone() }),
            Ok(_) => Ok(false),
            Err(error) => Err(self.failed("waiting for data", error)),
        }
    }

    fn is_replaced(&self) -> bool {
        let there = self.path.as_ref().and_then(|path| std::fs::metadata(path).ok());
        let file = |known: std::fs::Metadata| (known.dev(), known.ino());
        there.zip(self.file.metadata().ok()).is_some_and(|(there, own)| file(there) != file(own))
    }

    pub(super) fn ended(&self) -> DeviceError {
        DeviceError::Ended { device: self.name.clone() }
    }

    pub(super) fn unwritten(&self) -> DeviceError {
        DeviceError::Unwritten { device: self.name.clone() }
    }

    pub(super) fn malformed(&self, problem: impl Into<String>) -> DeviceError {
        malformed(&self.name, problem)
    }

    pub(super) fn failed(&self, doing: &'static str, source: io::Error) -> DeviceError {
        DeviceError::Failed { device: self.name.clone(), doing, source }
    }
}

/// The path of a descriptor that this process was begun with. What it has opened itself since is marked
/// `O_CLOEXEC` (`proc_pid_fdinfo(5)`), which no descriptor is that has come through `execve(2)`.
fn handed_on(number: u32) -> io::Result<PathBuf> {
    let about = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}"))?;
    let flags =
        about.lines().find_map(|line| u32::from_str_radix(line.strip_prefix("flags:")?.trim(), 8).ok());
    if flags.is_none_or(|flags| OFlags::from_bits_retain(flags).contains(OFlags::CLOEXEC)) {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(PathBuf::from(format!("/proc/self/fd/{number}")))
}

/// Two readers of one pipe would each get a part of what is written. The lock is on the file itself, so
/// that it holds whatever path leads to it; only other readers of this program ask for it.
fn take(file: &File, name: &str, path: &str) -> Result<(), DeviceError> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Err(DeviceError::Busy { device: name.to_owned(), node: path.to_owned() }),
        // What can't be locked is read all the same.
        _ => Ok(()),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Pipe,
    Character,
}

fn kind_of(path: &Path) -> io::Result<Option<Kind>> {
    let kind = std::fs::metadata(path)?.file_type();
    Ok(if kind.is_fifo() {
        Some(Kind::Pipe)
    } else if kind.is_char_device() {
        Some(Kind::Character)
    } else {
        None
    })
}

fn malformed(name: &str, problem: impl Into<String>) -> DeviceError {
    DeviceError::Malformed { device: name.to_owned(), problem: problem.into() }
}

fn refused(name: &str, path: &str, source: io::Error) -> DeviceError {
    let device = name.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound if path.starts_with(INHERITED) => {
            let remedy = "hand the descriptor to the agent, or correct its number in the config";
            DeviceError::NotThere { device, remedy }
        }
        io::ErrorKind::NotFound => {
            let remedy = "make the FIFO with mkfifo, or correct its path in the config";
            DeviceError::NotThere { device, remedy }
        }
        io::ErrorKind::PermissionDenied => DeviceError::Unreadable { device },
        _ => DeviceError::Failed { device, doing: "opening", source },
    }
}
