//! What a disk or a driver does to one process alone, by `strace`: calls that fail or are slow, and a process
//! that can't end.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use crate::agent::send;
use crate::site::skip;

/// A hold on every thread of a process, for as long as it lives.
pub struct Tracer(Child);

impl Tracer {
    /// Answers the system calls of `pid` as `orders` say (strace's `inject=`); `None`, and a line on standard
    /// error, where this process may not trace another.
    pub fn hold(pid: u32, orders: &[&str]) -> Option<Self> {
        Self::hold_and_tell(pid, orders, &[], Path::new("/dev/null"))
    }

    /// As [`Tracer::hold`], and writes these calls and the calls `also` down, a line each.
    pub fn hold_and_tell(pid: u32, orders: &[&str], also: &[&str], trace: &Path) -> Option<Self> {
        let mut command = strace(orders, also, trace);
        Self::attach(command.arg("-f"), pid, || threads(pid))
    }

    /// As [`Tracer::hold`], only the thread of this name, and none that it begins.
    pub fn hold_thread(pid: u32, name: &str, orders: &[&str]) -> Option<Self> {
        let is_meant = |thread: &PathBuf| {
            std::fs::read_to_string(thread.join("comm")).is_ok_and(|comm| comm.trim_end() == name)
        };
        let thread = threads(pid)
            .into_iter()
            .find(is_meant)
            .unwrap_or_else(|| panic!("no thread {name} in process {pid}"));
        let tid = thread.file_name().and_then(|tid| tid.to_str()?.parse().ok()).expect("a thread id");
        Self::attach(&mut strace(orders, &[], Path::new("/dev/null")), tid, || vec![thread.clone()])
    }

    fn attach(command: &mut Command, id: u32, held: impl Fn() -> Vec<PathBuf>) -> Option<Self> {
        let child = command.args(["-p", &id.to_string()]).stderr(Stdio::null()).spawn();
        let mut tracer = Self(child.expect("strace can be run (apt-get install strace)"));
        loop {
            let is_held = held().iter().all(|thread| {
                // A thread may end meanwhile.
                std::fs::read_to_string(thread.join("status"))
                    .map_or(true, |text| !text.contains("TracerPid:\t0\n"))
            });
            if is_held {
                return Some(tracer);
            }
            if tracer.0.try_wait().expect("strace can be asked").is_some() {
                skip("this needs to answer a process's system calls, and strace may not attach to one");
                return None;
            }
            std::thread::yield_now();
        }
    }

    /// Answers nothing from here on, so that the process waits for it in its next call, and at its end too:
    /// SIGKILL kills it, and yet it stays, with all that it has open, as a process does that its driver holds.
    pub fn freeze(&self) {
        send(self.0.id(), Signal::STOP);
    }
}

/// The process goes on, or ends.
impl Drop for Tracer {
    fn drop(&mut self) {
        // The kernel detaches the tracees of a tracer that dies.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn strace(orders: &[&str], also: &[&str], trace: &Path) -> Command {
    let mut command = Command::new("strace");
    // Only what is traced is answered.
    let ordered = orders.iter().filter_map(|order| order.split(':').next());
    let calls: Vec<&str> = ordered.chain(also.iter().copied()).collect();
    command.args(["-q", "-o"]).arg(trace);
    if !calls.is_empty() {
        command.args(["-e", &format!("trace={}", calls.join(","))]);
    }
    for order in orders {
        command.args(["-e", &format!("inject={order}")]);
    }
    command
}

fn threads(pid: u32) -> Vec<PathBuf> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process is there");
    threads.map(|thread| thread.expect("a thread").path()).collect()
}
