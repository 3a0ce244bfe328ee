//! What a disk or a driver does to one process alone, by `strace`: calls that fail or are slow, and a process
//! that can't end.

use std::path::Path;
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
        let mut command = Command::new("strace");
        // Only what is traced is answered.
        let ordered = orders.iter().filter_map(|order| order.split(':').next());
        let calls: Vec<&str> = ordered.chain(also.iter().copied()).collect();
        command.args(["-f", "-q", "-o"]).arg(trace);
        if !calls.is_empty() {
            command.args(["-e", &format!("trace={}", calls.join(","))]);
        }
        for order in orders {
            command.args(["-e", &format!("inject={order}")]);
        }
        let child = command.args(["-p", &pid.to_string()]).stderr(Stdio::null()).spawn();
        let mut tracer = Self(child.expect("strace can be run (apt-get install strace)"));
        let threads = format!("/proc/{pid}/task");
        loop {
            let mut threads = std::fs::read_dir(&threads).expect("the process is there");
            let is_held = threads.all(|thread| {
                let path = thread.expect("a thread").path().join("status");
                // A thread may end meanwhile.
                std::fs::read_to_string(path).map_or(true, |text| !text.contains("TracerPid:\t0\n"))
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
