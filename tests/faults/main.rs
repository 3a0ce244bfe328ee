//! What a capture host meets, one row after the other: each injects one fault into the real binary and says
//! whether shutterd holds. `make faults` prints the table; `cargo test --test faults -- E3 K1` runs some rows.
//!
//! A row holds when its case comes to its end: nothing captured was lost beyond what the row says, every file
//! plays and is what the receipt says of it, and the stop was answered. Rows that need real drivers run in the
//! virtual machine, which writes a line each to the file that `SHUTTERD_FAULTS_TOLD` names.

#[expect(dead_code, reason = "flows use more of it")]
#[path = "../flows/agent.rs"]
mod agent;
mod callers;
mod clocks;
#[path = "../inputs/codec.rs"]
mod codec;
mod crashes;
mod devices;
mod disk;
mod flood;
#[path = "../flows/media.rs"]
mod media;
mod player;
mod raw;
mod row;
mod scene;
#[expect(dead_code, reason = "flows use more of it")]
#[path = "../flows/site.rs"]
mod site;
mod sound;
mod table;
#[expect(dead_code, reason = "flows use more of it")]
#[path = "../flows/tracer.rs"]
mod tracer;

use std::collections::BTreeMap;
use std::io::{Write, stderr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use row::{Case, Outcome, Row};

/// Rows that run at once: they wait more than they work.
const ROWS_AT_ONCE: usize = 3;
/// One after the other, for rows that tell how much time the machine leaves to a capture.
const ALONE: usize = 1;

fn main() -> ExitCode {
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let all = [devices::ROWS, sound::ROWS, clocks::ROWS, disk::ROWS, crashes::ROWS, callers::ROWS].concat();
    let is_wanted = |row: &Row| wanted.is_empty() || wanted.iter().any(|id| id == row.id);
    let rows: Vec<Row> = all.into_iter().filter(is_wanted).collect();
    let outcomes = Mutex::new(BTreeMap::new());
    let (alone, others): (Vec<Row>, Vec<Row>) =
        rows.iter().partition(|row| matches!(row.case, Case::Alone(_)));
    run_all(&others, ROWS_AT_ONCE, &outcomes);
    run_all(&alone, ALONE, &outcomes);
    table::print(&rows, &outcomes.into_inner().expect("no holder can panic"))
}

/// Runs `rows`, so many at once.
fn run_all(rows: &[Row], at_once: usize, outcomes: &Mutex<BTreeMap<&'static str, Outcome>>) {
    let told = table::told_elsewhere();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let begun_at = Instant::now();
                    let told = told.get(row.id).filter(|outcome| is_told(row, outcome));
                    let outcome = told.cloned().unwrap_or_else(|| run(row));
                    let (verdict, seconds) = (outcome.verdict(), begun_at.elapsed().as_secs());
                    let line = format!("{:<4} {verdict} in {seconds} s ({})\n", row.id, row.fault);
                    // Progress, for who waits; the table comes at the end.
                    stderr().write_all(line.as_bytes()).expect("standard error takes a line");
                    outcomes.lock().expect("no holder can panic").insert(row.id, outcome);
                }
            });
        }
    });
}

/// Real drivers say more than what stands for them here, if they could be tried.
fn is_told(row: &Row, outcome: &Outcome) -> bool {
    matches!(row.case, Case::VirtualMachine) || !matches!(outcome, Outcome::NotRun(_))
}

fn run(row: &Row) -> Outcome {
    let case = match row.case {
        Case::Here(case) | Case::Alone(case) => case,
        Case::VirtualMachine => return Outcome::NotRun("needs the virtual machine".to_owned()),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime can be made");
    // A case says with a panic where shutterd doesn't hold.
    match catch_unwind(AssertUnwindSafe(|| runtime.block_on(case()))) {
        Ok(outcome) => outcome,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text =
                text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without text");
            Outcome::Fails(text.to_owned())
        }
    }
}
