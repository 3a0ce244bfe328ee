//! Whole flows of the real binary: what a caller, an operator and a crash do to it. Failing paths
//! first; what is in the files is counted by other programs.

mod activation;
mod agent;
mod deadlines;
mod death;
mod disk;
mod ends;
mod failing_disk;
mod files;
mod fsck;
mod handshake;
mod hotplug;
mod late_stop;
mod lost;
mod media;
mod peers;
mod removal;
mod restart;
mod retention;
mod search;
mod service;
mod shutdown;
mod silence;
mod site;
mod slow;
mod sources;
mod start;
mod stop;
mod stuck;
mod succession;
mod tracer;
mod versions;
