//! Disks that fail or are slow for one process alone, by `strace`, which answers its system calls.

use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use crate::agent::send;
use crate::site::skip;

/// A hold on a process, for as long as it lives.
pub struct Tracer(Child);

impl Tracer {
    /// Answers the system calls of `pid` as `orders` say (strace's `inject=`); `None`, and a line on standard
    /// error, where this process may not trace another.
    pub fn hold(pid: u32, orders: &[&str]) -> Option<Self> {
        let mut command = Command::new("strace");
        // Only what is traced is answered.
        let calls: Vec<&str> = orders.iter().filter_map(|order| order.split(':').next()).collect();
        command.args(["-f", "-q", "-o", "/dev/null", "-e", &format!("trace={}", calls.join(","))]);
        for order in orders {
            command.args(["-e", &format!("inject={order}")]);
        }
        let child = command.args(["-p", &pid.to_string()]).stderr(Stdio::null()).spawn();
        let mut tracer = Self(child.expect("strace can be run"));
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
}

/// The process is let go.
impl Drop for Tracer {
    fn drop(&mut self) {
        send(self.0.id(), Signal::INT);
        let _ = self.0.wait();
    }
}
