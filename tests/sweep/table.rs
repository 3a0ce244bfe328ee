//! The table of all runs.

use std::collections::BTreeMap;
use std::io::{Write, stdout};
use std::process::ExitCode;

use crate::run::{Found, Point};

/// The runs of one line of the table.
#[derive(Default)]
struct Line {
    reached: usize,
    not_reached: usize,
    untrue: usize,
    left_open: usize,
    unrecovered: usize,
}

/// Prints a line for each subject, class and fault, the sum, and how many runs passed.
pub fn print(all: &[(Point, Found)]) -> ExitCode {
    let mut lines: BTreeMap<_, Line> = BTreeMap::new();
    let (mut sum, mut failed) = (Line::default(), 0);
    for (point, found) in all {
        lines.entry((point.subject, point.class, point.fault)).or_default().add(found);
        sum.add(found);
        failed += usize::from(!found.is_well());
    }
    let mut text = format!("\nprocess  class   fault       {}\n", Line::HEAD);
    for ((subject, class, fault), line) in &lines {
        let (subject, class, fault) = (subject.word(), class.word(), fault.word());
        text += &format!("{subject:<8} {class:<7} {fault:<10} {}\n", line.shown());
    }
    text += &format!("{:<27} {}\n", "all", sum.shown());
    for (point, found) in all.iter().filter(|(_, found)| !found.is_well()) {
        let call = found.injected.as_deref().unwrap_or("no call");
        text += &format!("\n{}: {call}\n", point.name());
        for problem in [&found.untrue, &found.left_open, &found.unrecovered].into_iter().flatten() {
            text += &format!("  {problem}\n");
        }
        text += &format!("--- the log ---\n{}\n", found.log);
    }
    let passed = all.iter().filter(|(_, found)| found.is_well() && found.injected.is_some()).count();
    text += &format!("\n{passed} passed, {failed} failed\n");
    stdout().write_all(text.as_bytes()).expect("standard output takes the table");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Line {
    const HEAD: &str = "    N  not reached  untrue durable  left open  not recovered";

    fn add(&mut self, found: &Found) {
        self.reached += usize::from(found.injected.is_some());
        self.not_reached += usize::from(found.injected.is_none());
        self.untrue += usize::from(!found.untrue.is_empty());
        self.left_open += usize::from(!found.left_open.is_empty());
        self.unrecovered += usize::from(!found.unrecovered.is_empty());
    }

    fn shown(&self) -> String {
        let Self { reached, not_reached, untrue, left_open, unrecovered } = self;
        format!("{reached:>5} {not_reached:>12} {untrue:>15} {left_open:>10} {unrecovered:>14}")
    }
}
