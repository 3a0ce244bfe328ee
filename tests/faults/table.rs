//! The table of all rows.

use std::collections::BTreeMap;
use std::io::{Write, stdout};
use std::process::ExitCode;
use std::time::Duration;

use crate::row::{Outcome, Row};

/// Columns of what was seen that the table shows; failures are shown whole below it.
const SEEN_MAX: usize = 90;

/// What the virtual machine has told: a line a row, `<id>\tholds\t<lost>\t<seconds of the stop>\t<seen>`, or
/// `<id>\tfails\t<why>`, or `<id>\tnot run\t<why>`.
pub fn told_elsewhere() -> BTreeMap<String, Outcome> {
    let Some(path) = std::env::var_os("SHUTTERD_FAULTS_TOLD") else { return BTreeMap::new() };
    let text = std::fs::read_to_string(&path).expect("the file that SHUTTERD_FAULTS_TOLD names is there");
    text.lines().map(|line| read(line).unwrap_or_else(|| panic!("no row of the table: {line:?}"))).collect()
}

fn read(line: &str) -> Option<(String, Outcome)> {
    let words: Vec<&str> = line.split('\t').collect();
    let outcome = match *words.get(1..)? {
        ["holds", lost, stop, seen] => Outcome::Holds {
            lost: lost.parse().ok()?,
            stop: if stop.is_empty() {
                None
            } else {
                Some(Duration::try_from_secs_f64(stop.parse().ok()?).ok()?)
            },
            seen: seen.to_owned(),
        },
        ["fails", why] => Outcome::Fails(why.to_owned()),
        ["not run", why] => Outcome::NotRun(why.to_owned()),
        _ => return None,
    };
    Some((words[0].to_owned(), outcome))
}

/// Prints the table, the failures, and how many rows hold.
pub fn print(rows: &[Row], outcomes: &BTreeMap<&str, Outcome>) -> ExitCode {
    let mut text = String::from("\nrow   lost  stop     verdict  fault: what was seen\n");
    for row in rows {
        let outcome = &outcomes[row.id];
        let (lost, stop, seen) = match outcome {
            Outcome::Holds { lost, stop, seen } => {
                let stop = stop.map_or_else(|| "-".to_owned(), |stop| format!("{} ms", stop.as_millis()));
                (lost.to_string(), stop, seen.as_str())
            }
            Outcome::Fails(why) | Outcome::NotRun(why) => ("-".to_owned(), "-".to_owned(), why.as_str()),
        };
        let seen: String = seen.lines().next().unwrap_or_default().chars().take(SEEN_MAX).collect();
        let verdict = outcome.verdict();
        text += &format!("{:<4} {lost:>5}  {stop:<8} {verdict:<8} {}: {seen}\n", row.id, row.fault);
    }
    for row in rows {
        if let Outcome::Fails(why) = &outcomes[row.id] {
            text += &format!("\n{} fails: {why}\n", row.id);
        }
    }
    let count = |verdict| outcomes.values().filter(|outcome| outcome.verdict() == verdict).count();
    text += &format!("\n{} of {} rows hold\n", count("holds"), rows.len());
    stdout().write_all(text.as_bytes()).expect("standard output takes the table");
    if count("FAILS") == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
