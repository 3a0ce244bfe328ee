//! The shortest histories that once went wrong, each in many orders of its threads.

use crate::disk::{Call, Fault, Outcome};
use crate::history::{End, History, Step};
use crate::inode::Survivors;
use crate::media::Kind;
use crate::run::live;

/// Orders and power cuts that each is tried in.
const CHANCES: u64 = 40;
const EIO: Outcome = Outcome::Error(5);

fn packets(source: usize, count: u32, every_ms: u64) -> Step {
    Step::Packets { source, count, bytes: 16, every_ms, late_ms: 0 }
}

fn fault(call: Call, after: u32, times: u32, outcome: Outcome) -> Step {
    Step::Fault(Fault { call, after, times, outcome })
}

fn end() -> End {
    End {
        killed: false,
        stop_late_ms: None,
        calm: false,
        survivors: Survivors::Some,
        cut_in_repair: None,
        is_known: true,
    }
}

fn history(steps: &[Step], end: &End) -> History {
    History {
        sources: vec![Kind::Mjpeg, Kind::Mjpeg],
        segment_ms: 600_000,
        give_up_ms: 60_000,
        held_bytes_max: 64 << 20,
        can_reserve: false,
        steps: steps.to_vec(),
        end: end.clone(),
        chance: 0,
    }
}

fn holds(steps: &[Step], end: &End) {
    holds_by_chance(&history(steps, end));
}

fn holds_by_chance(history: &History) {
    for chance in 0..CHANCES {
        let history = History { chance, ..history.clone() };
        if let Err(fault) = live(&history) {
            panic!("{fault}\n{history:#?}");
        }
    }
}

#[test]
fn sizes_that_a_failed_sync_has_dropped_are_written_again() {
    let steps =
        [packets(0, 17, 1), Step::Silence { ms: 983 }, fault(Call::Sync, 1, 1, EIO), packets(0, 5, 15)];
    let sources = vec![Kind::Mjpeg];
    for chance in [5_902_272_821_854_133_129, 1, 2, 3] {
        let first = History { sources: sources.clone(), segment_ms: 1059, chance, ..history(&steps, &end()) };
        live(&first).expect("files keep the hash that was told");
    }
    for after in 0..8 {
        holds(&[fault(Call::Sync, after, 1, EIO), packets(0, 9, 300)], &end());
    }
}

#[test]
fn a_file_whose_patch_could_not_be_written_is_not_told_as_whole() {
    let steps = [
        packets(0, 1, 1),
        Step::Silence { ms: 249 },
        fault(Call::Patch, 6, 1, EIO),
        Step::Format { source: 0 },
        packets(0, 1, 1),
        fault(Call::Length, 0, 1, Outcome::Slow(110)),
        packets(0, 4, 98),
    ];
    holds_by_chance(&History { sources: vec![Kind::Mjpeg], ..history(&steps, &end()) });
}

#[test]
fn a_directory_that_was_taken_is_made_anew_durably() {
    for times in 1..3 {
        let taken = [packets(0, 2, 1), fault(Call::SyncDir, 0, times, EIO), Step::TakeDir];
        for killed in [false, true] {
            holds(&[&taken[..], &[packets(0, 12, 250)]].concat(), &End { killed, ..end() });
        }
    }
}

#[test]
fn a_file_that_was_taken_is_copied_again_when_its_repair_fails() {
    let steps = [Step::TakeFile, fault(Call::Read, 1, 1, EIO), packets(0, 4, 251)];
    holds(&steps, &End { calm: true, ..end() });
}

#[test]
fn the_last_try_of_a_finish_finishes_its_file() {
    for times in 1..6 {
        let steps = [
            Step::Format { source: 0 },
            fault(Call::Write, 0, times, EIO),
            packets(0, 1, 1),
            Step::Format { source: 0 },
        ];
        holds(&steps, &end());
    }
}

#[test]
fn a_late_packet_has_its_own_time_in_the_next_file() {
    for late_ms in [400, 600, 900, 1200] {
        let late = Step::Packets { source: 1, count: 2, bytes: 16, every_ms: 10, late_ms };
        let steps = [
            Step::Silence { ms: 3000 },
            packets(0, 2, 10),
            Step::Format { source: 0 },
            packets(0, 1, 10),
            late,
        ];
        holds(&steps, &end());
    }
}

#[test]
fn what_waited_while_a_disk_stalled_is_not_too_late_for_the_next_file() {
    let steps = [
        Step::Silence { ms: 431 },
        packets(0, 4, 352),
        packets(0, 5, 158),
        packets(0, 7, 27),
        packets(0, 7, 37),
        fault(Call::Write, 0, 1, Outcome::Slow(2448)),
        Step::TakeFile,
        packets(0, 5, 37),
        packets(0, 5, 91),
    ];
    let end = End { calm: true, ..end() };
    let sources = vec![Kind::Mjpeg];
    holds_by_chance(&History { sources, segment_ms: 3077, ..history(&steps, &end) });
}

#[test]
fn a_late_stop_warns_of_what_a_failed_file_holds() {
    for stop_late_ms in [200, 500, 900] {
        let steps = [packets(0, 5, 200), fault(Call::Sync, 0, 1, EIO), packets(0, 3, 200)];
        holds(&steps, &End { stop_late_ms: Some(stop_late_ms), ..end() });
    }
}

#[test]
fn a_file_of_which_a_power_cut_left_the_length_alone_is_removed() {
    holds(&[packets(0, 6, 1)], &End { killed: true, ..end() });
}
