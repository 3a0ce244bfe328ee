//! D, A, T and K rows that need real drivers, clocks that may be set, or limits of memory: `tests/vm/faults.sh`
//! tries them in the virtual machine.

use crate::row::{Case, Row};

/// The rows of this file.
pub const ROWS: &[Row] = &[
    row("D1", "camera unplugged and back, by its driver and by its node"),
    row("D2", "camera unplugged right after a stop"),
    row("D3", "frozen camera: 100 % of its buffers dropped"),
    row("D4", "REQBUFS, QBUF, STREAMON fail"),
    row("D5", "fatal streaming error"),
    row("D9", "camera back at another node, another one at its own"),
    row("D11", "format changed by another process"),
    row("D13", "10 % of the buffers dropped"),
    row("D14", "sequence and timestamps wrap"),
    row("A1", "sound not taken for 1 s"),
    row("A2", "sound card gone and back"),
    row("A5", "rate or channels that the microphone lacks"),
    row("T1", "wall clock set forward and back by 1 h"),
    row("T2", "clock slewed by 500 ppm"),
    row("K3", "power cut"),
    row("K7", "worker killed for want of memory"),
    row("K9", "daemon hangs, systemd's watchdog restarts it"),
];

const fn row(id: &'static str, fault: &'static str) -> Row {
    Row { id, fault, case: Case::VirtualMachine }
}
