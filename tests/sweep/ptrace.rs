//! The calls of `ptrace(2)` and `waitpid(2)` that the injector needs, which no crate of ours has.

use std::io;

use libc::{c_int, c_long, c_uint, c_void, pid_t, user_regs_struct};

/// What stops a thread, beside its signals: calls that the filter names, and the begin of threads and processes,
/// which are traced too. All of them end with their tracer.
const OPTIONS: c_int = libc::PTRACE_O_TRACESECCOMP
    | libc::PTRACE_O_TRACESYSGOOD
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACEEXEC
    | libc::PTRACE_O_EXITKILL;

/// What became of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It is about to make a call that the filter names.
    Call,
    /// The call that it was let make has returned.
    Return,
    /// It runs another program.
    Exec,
    /// It is new, or something else that only needs to go on.
    Other,
    /// It gets this signal when it goes on.
    Signal(c_int),
    /// It is gone: exit code, or the signal that killed it.
    Gone(Result<c_int, c_int>),
}

/// How far a thread goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// To its next stop.
    Stop,
    /// To the return of its call.
    Return,
}

/// Traces a process of ours.
pub fn seize(process: pid_t) -> io::Result<()> {
    request(libc::PTRACE_SEIZE, process, c_long::from(OPTIONS))
}

/// Lets a thread go on, with a signal or 0.
pub fn go_on(thread: pid_t, until: Until, signal: c_int) -> io::Result<()> {
    let how = match until {
        Until::Stop => libc::PTRACE_CONT,
        Until::Return => libc::PTRACE_SYSCALL,
    };
    request(how, thread, c_long::from(signal))
}

fn request(request: c_uint, thread: pid_t, number: c_long) -> io::Result<()> {
    #[expect(unsafe_code, reason = "ptrace has no safe interface here")]
    // SAFETY: these requests take a number, and touch no memory of this process.
    let outcome = unsafe { libc::ptrace(request, thread, std::ptr::null_mut::<c_void>(), number) };
    checked(outcome)
}

/// The registers of a thread that is stopped.
pub fn registers(thread: pid_t) -> io::Result<user_regs_struct> {
    let mut registers = std::mem::MaybeUninit::<user_regs_struct>::zeroed();
    #[expect(unsafe_code, reason = "ptrace has no safe interface here")]
    // SAFETY: the kernel writes one such structure, which is plain numbers, at this address.
    unsafe {
        let at = registers.as_mut_ptr();
        checked(libc::ptrace(libc::PTRACE_GETREGS, thread, std::ptr::null_mut::<c_void>(), at))?;
        Ok(registers.assume_init())
    }
}

/// Changes the registers of a thread that is stopped.
pub fn set_registers(thread: pid_t, registers: &user_regs_struct) -> io::Result<()> {
    #[expect(unsafe_code, reason = "ptrace has no safe interface here")]
    // SAFETY: the kernel reads one such structure at this address.
    let outcome = unsafe {
        let at = std::ptr::from_ref(registers);
        libc::ptrace(libc::PTRACE_SETREGS, thread, std::ptr::null_mut::<c_void>(), at)
    };
    checked(outcome)
}

/// Waits for the next stop of any thread; `None` when there is none left.
pub fn wait() -> io::Result<Option<(pid_t, Stop)>> {
    let mut status = 0;
    #[expect(unsafe_code, reason = "no crate of ours waits for threads")]
    // SAFETY: the kernel writes a number at this address.
    let thread = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL) };
    if thread < 0 {
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::ECHILD) { Ok(None) } else { Err(error) };
    }
    let stop = if libc::WIFEXITED(status) {
        Stop::Gone(Ok(libc::WEXITSTATUS(status)))
    } else if libc::WIFSIGNALED(status) {
        Stop::Gone(Err(libc::WTERMSIG(status)))
    } else {
        match (status >> 16, libc::WSTOPSIG(status)) {
            (libc::PTRACE_EVENT_SECCOMP, _) => Stop::Call,
            (libc::PTRACE_EVENT_EXEC, _) => Stop::Exec,
            (0, signal) if signal == libc::SIGTRAP | 0x80 => Stop::Return,
            (0, signal) => Stop::Signal(signal),
            _ => Stop::Other,
        }
    };
    Ok(Some((thread, stop)))
}

fn checked(outcome: c_long) -> io::Result<()> {
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
