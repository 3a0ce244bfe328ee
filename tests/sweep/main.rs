//! `make sweep`: each system call of a daemon and its workers goes wrong once, from the start of a session to its
//! stop, and in the recovery of one that was killed: a run for each. After it a daemon to which nothing happens
//! must find everything that was called durable, and make the rest good.
//!
//! Words narrow it: a process, a class, a fault and a number, or the first of these. `SWEEP_EVERY=K` takes each Kth
//! call, `SWEEP_SAMPLE=N` so many runs in all, others for each `SWEEP_SEED`.

#[cfg(not(target_arch = "x86_64"))]
compile_error!("the sweep knows the system calls of x86_64 alone");

#[expect(dead_code, reason = "flows use more of it")]
#[path = "../flows/agent.rs"]
mod agent;
mod calls;
mod disk;
mod inject;
mod life;
#[path = "../flows/media.rs"]
mod media;
mod plan;
mod ptrace;
mod run;
#[expect(dead_code, reason = "flows use more of it")]
#[path = "../flows/site.rs"]
mod site;
mod stopped;
mod table;
mod traced;

use std::io::{Write, stderr};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use run::{Found, Point};

/// Runs at once: they wait more than they work.
const RUNS_AT_ONCE: usize = 8;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--traced", program, ..] => {
            let error = inject::become_traced(program, &arguments[2..]);
            tell(&format!("{program} can't be run: {error}"));
            ExitCode::FAILURE
        }
        ["--inject", site, order, ..] => {
            inject::run(site.as_ref(), plan::order(order), &arguments[3..]);
            ExitCode::SUCCESS
        }
        _ => sweep(arguments.into_iter().filter(|it| !it.starts_with('-')).collect()),
    }
}

fn sweep(wanted: Vec<String>) -> ExitCode {
    // What goes wrong in a run is told in its place.
    std::panic::set_hook(Box::new(|_| ()));
    let points = match plan::points(&wanted) {
        Ok(points) => points,
        Err(error) => {
            tell(&error);
            return ExitCode::FAILURE;
        }
    };
    let (next, all) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..RUNS_AT_ONCE {
            scope.spawn(|| {
                while let Some(point) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let found = run::run(*point);
                    let mut all = all.lock().expect("no holder can panic");
                    all.push((*point, found));
                    if let Some((point, found)) = all.last() {
                        progress(all.len(), points.len(), point, found);
                    }
                }
            });
        }
    });
    table::print(&all.into_inner().expect("no holder can panic"))
}

/// What is not well is told at once, the rest by and by.
fn progress(count: usize, of: usize, point: &Point, found: &Found) {
    if !found.is_well() {
        let call = found.injected.as_deref().unwrap_or("no call");
        let Found { untrue, left_open, unrecovered, .. } = found;
        tell(&format!("{}: {call}: {untrue:?} {left_open:?} {unrecovered:?}", point.name()));
    } else if count.is_multiple_of(100) {
        tell(&format!("{count} of {of} runs"));
    }
}

fn tell(line: &str) {
    stderr().write_all(format!("{line}\n").as_bytes()).expect("standard error takes a line");
}
