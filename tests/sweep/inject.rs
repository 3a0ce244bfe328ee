//! Runs a program with all its processes and threads, counts their system calls by class, and lets the Nth of
//! one class go wrong: by `ptrace(2)`, for calls that a filter of `seccomp(2)` stops. It runs as a process of
//! its own, and everything that it traces ends with it.
//!
//! What it is told on standard input: `kill`, or `cut`, which also cuts the disk back to what was synced. What it
//! tells on standard output: `daemon <process id>`, `injected <which call>`, `ended <how>` of the daemon, and when
//! everything has ended `count <role> <class> <fault> <calls>` and `over`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io::{self, BufRead, Write, stdin, stdout};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use libc::{pid_t, user_regs_struct};
use rustix::process::{Pid, Signal, kill_process};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use crate::calls::{Class, Fault, Role, STOPPING};
use crate::disk::Disk;
use crate::ptrace::{self, Stop, Until};
use crate::stopped::{class, described, fits, shorter};

/// Which call goes wrong, and how.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    pub role: Role,
    pub class: Class,
    pub fault: Fault,
    pub number: usize,
}

/// A process, as of its last `execve`.
struct Process {
    role: Option<Role>,
    /// Where the dynamic loader lies, whose calls don't count.
    loader: Range<u64>,
}

struct Injector {
    order: Option<Order>,
    disk: Disk,
    /// The daemon, which is the first process.
    first: pid_t,
    /// The program runs: the filter's own calls are over.
    begun: bool,
    threads: HashMap<pid_t, pid_t>,
    processes: HashMap<pid_t, Process>,
    /// How many calls of a class there were that this could happen to.
    counts: BTreeMap<(Role, Class, Fault), usize>,
    /// The processes that are still there, to be killed.
    alive: Arc<Mutex<HashSet<pid_t>>>,
    ending: Arc<AtomicU8>,
}

/// How long a sync takes in which the power fails: longer than a worker takes to tell what is durable.
const LONG_SYNC: Duration = Duration::from_millis(700);

const GOING_ON: u8 = 0;
const KILL: u8 = 1;
const CUT: u8 = 2;

/// Becomes `program`, whose calls stop it, once a line on standard input says that it is traced.
pub fn become_traced(program: &str, arguments: &[String]) -> io::Error {
    let mut line = String::new();
    stdin().lock().read_line(&mut line).expect("the tracer writes a line");
    let rules = STOPPING.iter().map(|(number, _)| (*number, Vec::new())).collect();
    let arch = std::env::consts::ARCH.try_into().expect("a known architecture");
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Trace(0), arch);
    let filter: BpfProgram = filter.and_then(TryInto::try_into).expect("the filter is right");
    seccompiler::apply_filter(&filter).expect("this kernel filters calls");
    Command::new(program).args(arguments).stdin(Stdio::null()).exec()
}

/// Runs `program` on a site until it has ended with all that it began, or is told to end.
pub fn run(site: &Path, order: Option<Order>, program: &[String]) {
    let disk = Disk::new(site).expect("the site can be read");
    let mut traced = Command::new(std::env::current_exe().expect("this program has a path"));
    traced.arg("--traced").args(program).stdin(Stdio::piped());
    let log = fs::OpenOptions::new().append(true).create(true).open(site.join("serve.log")).expect("a log");
    traced.stdout(log.try_clone().expect("a file can be cloned")).stderr(log).process_group(0);
    let mut child = traced.spawn().expect("this program can be run again");
    let first = pid_t::try_from(child.id()).expect("a process id");
    tell(&format!("daemon {first}"));
    ptrace::seize(first).expect("this process may trace another");
    child.stdin.take().expect("it is piped").write_all(b"go\n").expect("it reads");
    let alive = Arc::new(Mutex::new(HashSet::from([first])));
    let ending = Arc::new(AtomicU8::new(GOING_ON));
    let listener = std::thread::Builder::new().name("listener".to_owned()).spawn({
        let (alive, ending) = (Arc::clone(&alive), Arc::clone(&ending));
        move || listen(&alive, &ending)
    });
    let listener = listener.expect("a thread can be begun");
    let mut injector = Injector {
        order,
        disk,
        first,
        begun: false,
        threads: HashMap::new(),
        processes: HashMap::new(),
        counts: BTreeMap::new(),
        alive,
        ending,
    };
    injector.follow();
    for ((role, class, fault), count) in &injector.counts {
        tell(&format!("count {} {} {} {count}", role.word(), class.word(), fault.word()));
    }
    tell("over");
    if injector.ending.load(Ordering::SeqCst) == GOING_ON {
        listener.join().expect("it doesn't panic");
    }
    if injector.ending.load(Ordering::SeqCst) == CUT {
        injector.disk.cut().expect("the disk can be cut");
    }
}

/// Ends everything when it is told to, or when nobody is there to tell.
fn listen(alive: &Mutex<HashSet<pid_t>>, ending: &AtomicU8) {
    let mut line = String::new();
    stdin().lock().read_line(&mut line).expect("a line, or the end");
    end(alive, ending, if line.trim() == "cut" { CUT } else { KILL });
}

fn end(alive: &Mutex<HashSet<pid_t>>, ending: &AtomicU8, how: u8) {
    ending.fetch_max(how, Ordering::SeqCst);
    for pid in alive.lock().expect("no holder can panic").iter() {
        // One that has ended by now needs no signal.
        let _ = kill(*pid);
    }
}

fn kill(process: pid_t) -> io::Result<()> {
    let process = Pid::from_raw(process).expect("a process id");
    Ok(kill_process(process, Signal::KILL)?)
}

fn tell(line: &str) {
    let mut out = stdout().lock();
    // Nobody may be there to hear it.
    let _ = out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush());
}

impl Injector {
    fn follow(&mut self) {
        while let Some((thread, stop)) = ptrace::wait().expect("threads can be waited for") {
            // A thread that is killed while it is stopped takes no order, and tells of its end next.
            let _ = match stop {
                Stop::Call => self.on_call(thread),
                Stop::Return => {
                    let returned = ptrace::registers(thread).map_or(-1, |call| call.rax.cast_signed());
                    self.disk.end(thread, returned == 0);
                    ptrace::go_on(thread, Until::Stop, 0)
                }
                Stop::Exec => {
                    self.begun = true;
                    self.threads.insert(thread, thread);
                    self.processes.insert(thread, Process::look(thread));
                    ptrace::go_on(thread, Until::Stop, 0)
                }
                Stop::Other => {
                    self.process_of(thread);
                    ptrace::go_on(thread, Until::Stop, 0)
                }
                Stop::Signal(signal) => ptrace::go_on(thread, Until::Stop, signal),
                Stop::Gone(how) => {
                    self.on_gone(thread, how);
                    Ok(())
                }
            };
        }
    }

    fn on_gone(&mut self, thread: pid_t, how: Result<i32, i32>) {
        self.threads.remove(&thread);
        self.processes.remove(&thread);
        self.alive.lock().expect("no holder can panic").remove(&thread);
        if thread == self.first {
            let (what, number) = how.map_or_else(|signal| ("signal", signal), |code| ("exit code", code));
            tell(&format!("ended {what} {number}"));
        }
    }

    /// The process of a thread, which is new here or not.
    fn process_of(&mut self, thread: pid_t) -> pid_t {
        if let Some(process) = self.threads.get(&thread) {
            return *process;
        }
        let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
        let process = line.and_then(|text| text.trim().parse().ok()).unwrap_or(thread);
        self.threads.insert(thread, process);
        if !self.processes.contains_key(&process) {
            self.processes.insert(process, Process::look(process));
            self.alive.lock().expect("no holder can panic").insert(process);
            if self.ending.load(Ordering::SeqCst) != GOING_ON {
                // It was begun just before the end of all.
                let _ = kill(process);
            }
        }
        process
    }

    /// A thread is about to make a call that may count.
    fn on_call(&mut self, thread: pid_t) -> io::Result<()> {
        let process = self.process_of(thread);
        let mut call = ptrace::registers(thread)?;
        let who = &self.processes[&process];
        let role = who.role.filter(|_| self.begun && !who.loader.contains(&call.rip));
        if let Some((role, class)) = role.zip(class(thread, &call)) {
            let is_asked = |fault: &Fault| {
                self.order.is_none_or(|it| (it.role, it.class, it.fault) == (role, class, *fault))
            };
            let faults = class.faults().iter().copied().filter(is_asked);
            for fault in faults.filter(|fault| fits(*fault, thread, &call)).collect::<Vec<_>>() {
                let count = self.counts.entry((role, class, fault)).or_default();
                *count += 1;
                if self.order.is_some_and(|order| order.number == *count) {
                    if (class, fault) == (Class::Sync, Fault::Cut) {
                        return self.cut_later(thread, &call);
                    }
                    self.inject(fault, process, thread, &mut call)?;
                    return ptrace::go_on(thread, Until::Stop, 0);
                }
            }
        }
        if matches!(call.orig_rax.cast_signed(), libc::SYS_fsync | libc::SYS_fdatasync) {
            self.disk.begin(thread, call.rdi);
            return ptrace::go_on(thread, Until::Return, 0);
        }
        ptrace::go_on(thread, Until::Stop, 0)
    }

    /// A power cut comes in the middle of a long sync: its thread is held, and what the others tell meanwhile must
    /// not rely on it.
    fn cut_later(&self, thread: pid_t, call: &user_regs_struct) -> io::Result<()> {
        tell(&format!("injected {}", described(thread, call)));
        let (alive, ending) = (Arc::clone(&self.alive), Arc::clone(&self.ending));
        let cut = std::thread::Builder::new().name("cut".to_owned()).spawn(move || {
            std::thread::park_timeout(LONG_SYNC);
            end(&alive, &ending, CUT);
        });
        cut.map(drop)
    }

    fn inject(
        &self,
        fault: Fault,
        process: pid_t,
        thread: pid_t,
        call: &mut user_regs_struct,
    ) -> io::Result<()> {
        tell(&format!("injected {}", described(thread, call)));
        match fault {
            Fault::Error(_, error) => {
                // The call's number -1 is no call: what it returns is what stands here.
                call.orig_rax = u64::MAX;
                call.rax = i64::from(-error).cast_unsigned();
                ptrace::set_registers(thread, call)
            }
            Fault::Short => shorter(thread, call).map_or(Ok(()), |call| ptrace::set_registers(thread, &call)),
            Fault::Kill => kill(process),
            Fault::Cut => {
                end(&self.alive, &self.ending, CUT);
                Ok(())
            }
        }
    }
}

impl Process {
    fn look(process: pid_t) -> Self {
        let line = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        let words: Vec<&str> =
            line.split(|byte| *byte == 0).filter_map(|it| str::from_utf8(it).ok()).collect();
        let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap_or_default();
        let bounds = maps.lines().filter(|line| line.contains("/ld-linux")).filter_map(|line| {
            let (from, to) = line.split_whitespace().next()?.split_once('-')?;
            Some((u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?))
        });
        let loader = bounds.reduce(|whole, one| (whole.0.min(one.0), whole.1.max(one.1)));
        let loader = loader.map_or(0..0, |(from, to)| from..to);
        Self { role: Role::of(&words), loader }
    }
}
