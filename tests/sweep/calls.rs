//! The classes of system calls that are swept, and what can go wrong with each.

/// Who makes a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Daemon,
    Worker,
    Repair,
}

/// What a call is about. Calls on `/proc` and the like count as those on files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// A file or directory is opened.
    Open,
    /// A file is read.
    Read,
    /// A file is written.
    Write,
    /// A file or directory is made durable.
    Sync,
    /// Room is reserved, or a file cut.
    Space,
    /// A name is made, changed or removed.
    Names,
    /// A socket or pipe is read.
    Receive,
    /// A socket or pipe is written.
    Send,
    /// A socket, pipe or event descriptor is made, connected or accepted.
    Connect,
    /// A thread or process is begun.
    Process,
    /// Something is waited for.
    Wait,
}

/// What happens to the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// It fails with this error, and does nothing.
    Error(&'static str, i32),
    /// It takes about half of what it was given.
    Short,
    /// The process gets SIGKILL instead; the others and the disk go on.
    Kill,
    /// Every process is killed instead, and of each file only what was synced is left.
    Cut,
}

const EIO: Fault = Fault::Error("EIO", libc::EIO);
const ENOSPC: Fault = Fault::Error("ENOSPC", libc::ENOSPC);
const EINTR: Fault = Fault::Error("EINTR", libc::EINTR);
const EAGAIN: Fault = Fault::Error("EAGAIN", libc::EAGAIN);
const EMFILE: Fault = Fault::Error("EMFILE", libc::EMFILE);
const ECONNRESET: Fault = Fault::Error("ECONNRESET", libc::ECONNRESET);

pub const ROLES: [Role; 3] = [Role::Daemon, Role::Worker, Role::Repair];

pub const CLASSES: [Class; 11] = [
    Class::Open,
    Class::Read,
    Class::Write,
    Class::Sync,
    Class::Space,
    Class::Names,
    Class::Receive,
    Class::Send,
    Class::Connect,
    Class::Process,
    Class::Wait,
];

impl Role {
    pub fn word(self) -> &'static str {
        match self {
            Self::Daemon => "daemon",
            Self::Worker => "worker",
            Self::Repair => "repair",
        }
    }

    /// Who runs with this command line; a probe, which writes nothing, is nobody here.
    pub fn of(words: &[&str]) -> Option<Self> {
        ROLES.into_iter().find(|role| {
            let task = if *role == Self::Daemon { "serve" } else { role.word() };
            words.iter().skip(1).any(|word| *word == task)
        })
    }
}

impl Class {
    pub fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Read => "read",
            Self::Write => "write",
            Self::Sync => "sync",
            Self::Space => "space",
            Self::Names => "names",
            Self::Receive => "receive",
            Self::Send => "send",
            Self::Connect => "connect",
            Self::Process => "process",
            Self::Wait => "wait",
        }
    }

    /// What can go wrong with such a call. Errors that the kernel never gives are left out: a sync or a rename
    /// is not interrupted, and a socket has no EIO. A process that only waits is killed at its next call.
    pub fn faults(self) -> &'static [Fault] {
        use Fault::{Cut, Kill, Short};
        match self {
            Self::Open => &[EIO, ENOSPC, EINTR, Kill, Cut],
            Self::Read => &[EIO, EINTR, Kill, Cut],
            Self::Write => &[EIO, ENOSPC, EINTR, Short, Kill, Cut],
            Self::Space => &[EIO, ENOSPC, EINTR, Kill, Cut],
            Self::Sync | Self::Names => &[EIO, ENOSPC, Kill, Cut],
            Self::Receive => &[ECONNRESET, EINTR, Kill, Cut],
            Self::Send => &[ECONNRESET, EINTR, Short, Kill, Cut],
            Self::Connect => &[EMFILE, Kill, Cut],
            Self::Process => &[EAGAIN, Kill, Cut],
            Self::Wait => &[EINTR],
        }
    }
}

impl Fault {
    pub fn word(self) -> &'static str {
        match self {
            Self::Error(name, _) => name,
            Self::Short => "short",
            Self::Kill => "kill",
            Self::Cut => "cut",
        }
    }
}

/// What a call's first argument is to tell before its class is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// It says all by itself.
    Nothing(Class),
    /// A descriptor that is read.
    Reading,
    /// A descriptor that is written.
    Writing,
}

/// The calls that stop their process.
pub const STOPPING: &[(i64, About)] = &[
    (libc::SYS_open, About::Nothing(Class::Open)),
    (libc::SYS_openat, About::Nothing(Class::Open)),
    (libc::SYS_openat2, About::Nothing(Class::Open)),
    (libc::SYS_read, About::Reading),
    (libc::SYS_pread64, About::Reading),
    (libc::SYS_readv, About::Reading),
    (libc::SYS_preadv, About::Reading),
    (libc::SYS_recvfrom, About::Reading),
    (libc::SYS_recvmsg, About::Reading),
    (libc::SYS_write, About::Writing),
    (libc::SYS_pwrite64, About::Writing),
    (libc::SYS_writev, About::Writing),
    (libc::SYS_pwritev, About::Writing),
    (libc::SYS_sendto, About::Writing),
    (libc::SYS_sendmsg, About::Writing),
    (libc::SYS_fsync, About::Nothing(Class::Sync)),
    (libc::SYS_fdatasync, About::Nothing(Class::Sync)),
    (libc::SYS_fallocate, About::Nothing(Class::Space)),
    (libc::SYS_ftruncate, About::Nothing(Class::Space)),
    (libc::SYS_rename, About::Nothing(Class::Names)),
    (libc::SYS_renameat, About::Nothing(Class::Names)),
    (libc::SYS_renameat2, About::Nothing(Class::Names)),
    (libc::SYS_unlink, About::Nothing(Class::Names)),
    (libc::SYS_unlinkat, About::Nothing(Class::Names)),
    (libc::SYS_mkdir, About::Nothing(Class::Names)),
    (libc::SYS_mkdirat, About::Nothing(Class::Names)),
    (libc::SYS_rmdir, About::Nothing(Class::Names)),
    (libc::SYS_link, About::Nothing(Class::Names)),
    (libc::SYS_linkat, About::Nothing(Class::Names)),
    (libc::SYS_socket, About::Nothing(Class::Connect)),
    (libc::SYS_socketpair, About::Nothing(Class::Connect)),
    (libc::SYS_connect, About::Nothing(Class::Connect)),
    (libc::SYS_accept4, About::Nothing(Class::Connect)),
    (libc::SYS_bind, About::Nothing(Class::Connect)),
    (libc::SYS_pipe2, About::Nothing(Class::Connect)),
    (libc::SYS_eventfd2, About::Nothing(Class::Connect)),
    (libc::SYS_epoll_create1, About::Nothing(Class::Connect)),
    (libc::SYS_clone, About::Nothing(Class::Process)),
    (libc::SYS_clone3, About::Nothing(Class::Process)),
    (libc::SYS_vfork, About::Nothing(Class::Process)),
    (libc::SYS_execve, About::Nothing(Class::Process)),
    (libc::SYS_pidfd_open, About::Nothing(Class::Process)),
    (libc::SYS_poll, About::Nothing(Class::Wait)),
    (libc::SYS_ppoll, About::Nothing(Class::Wait)),
    (libc::SYS_epoll_wait, About::Nothing(Class::Wait)),
    (libc::SYS_epoll_pwait, About::Nothing(Class::Wait)),
    (libc::SYS_wait4, About::Nothing(Class::Wait)),
    (libc::SYS_waitid, About::Nothing(Class::Wait)),
];
