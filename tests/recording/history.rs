//! Histories: what happens to a recording, drawn at random.

use proptest::prelude::*;

use crate::disk::{Call, Fault, Outcome};
use crate::inode::Survivors;
use crate::media::{Kind, PAYLOAD_BYTES_MIN};

/// A recording from its beginning to what is left of it.
#[derive(Clone, Debug)]
pub struct History {
    /// What each source delivers.
    pub sources: Vec<Kind>,
    pub segment_ms: u64,
    pub give_up_ms: u64,
    pub held_bytes_max: usize,
    pub can_reserve: bool,
    pub steps: Vec<Step>,
    pub end: End,
    /// What is left to chance: whose turn it is, which pages survive.
    pub chance: u64,
}

/// What happens next.
#[derive(Clone, Debug)]
pub enum Step {
    /// A source delivers so many packets, one each `every_ms`, each so late.
    Packets { source: usize, count: u32, bytes: usize, every_ms: u64, late_ms: u64 },
    /// Nobody delivers anything.
    Silence { ms: u64 },
    /// The packets of a source are encoded in another way from now on.
    Format { source: usize },
    /// Calls will fail.
    Fault(Fault),
    /// The disk has only so much room any more.
    Full { bytes: u64 },
    /// Somebody removes the newest file, or moves it away.
    TakeFile,
    /// Or the whole directory.
    TakeDir,
    /// The power goes after so many more calls.
    Cut { after: u32 },
}

/// How it ends.
#[derive(Clone, Debug)]
pub struct End {
    /// The worker is killed: nothing is finished.
    pub killed: bool,
    /// The stop was asked for so long ago.
    pub stop_late_ms: Option<u64>,
    /// All calls succeed again by then.
    pub calm: bool,
    /// What a power cut leaves of what was not flushed.
    pub survivors: Survivors,
    /// The power goes once more, after so many calls of the repair.
    pub cut_in_repair: Option<u32>,
    /// The repair knows what was finished.
    pub is_known: bool,
}

impl History {
    /// Nothing can be lost but by the histories' own doing.
    pub fn loses_nothing(&self) -> bool {
        let harmless = |step: &Step| match step {
            Step::Packets { late_ms, .. } => *late_ms < 400,
            Step::Full { .. } => false,
            Step::Fault(fault) => !matches!(fault.outcome, Outcome::Error(ENOSPC | EDQUOT)),
            _ => true,
        };
        self.held_bytes_max >= HELD_BYTES_MANY && self.end.calm && self.steps.iter().all(harmless)
    }
}

const EIO: i32 = 5;
const EMFILE: i32 = 24;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;
const EDQUOT: i32 = 122;
const HELD_BYTES_MANY: usize = 64 << 20;

/// Any history.
pub fn histories() -> impl Strategy<Value = History> {
    let kind = prop_oneof![2 => Just(Kind::Mjpeg), 2 => Just(Kind::Flac), 1 => Just(Kind::Pcm)];
    let held = prop_oneof![2 => Just(HELD_BYTES_MANY), 1 => 2_000_usize..40_000];
    (
        proptest::collection::vec(kind, 1..4),
        prop_oneof![Just(600_000_u64), 700_u64..8_000],
        prop_oneof![Just(60_000_u64), Just(3_000_u64)],
        held,
        proptest::bool::weighted(0.8),
        proptest::collection::vec(step(), 1..45),
        end(),
        any::<u64>(),
    )
        .prop_map(
            |(sources, segment_ms, give_up_ms, held_bytes_max, can_reserve, steps, end, chance)| History {
                sources,
                segment_ms,
                give_up_ms,
                held_bytes_max,
                can_reserve,
                steps,
                end,
                chance,
            },
        )
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = prop_oneof![
        6 => PAYLOAD_BYTES_MIN..600,
        3 => 600_usize..5_000,
        1 => 5_000_usize..14_000,
    ];
    let late = prop_oneof![6 => Just(0_u64), 3 => 1_u64..300, 1 => 300_u64..2_000];
    let packets = (0_usize..3, 1_u32..9, bytes, prop_oneof![1_u64..40, 40_u64..400], late).prop_map(
        |(source, count, bytes, every_ms, late_ms)| Step::Packets { source, count, bytes, every_ms, late_ms },
    );
    let silence = prop_oneof![6 => 1_u64..700, 2 => 700_u64..8_000, 1 => 8_000_u64..90_000];
    prop_oneof![
        60 => packets,
        14 => silence.prop_map(|ms| Step::Silence { ms }),
        4 => (0_usize..3).prop_map(|source| Step::Format { source }),
        14 => fault().prop_map(Step::Fault),
        1 => (0_u64..6_000_000).prop_map(|bytes| Step::Full { bytes }),
        1 => Just(Step::TakeFile),
        1 => Just(Step::TakeDir),
        3 => (0_u32..150).prop_map(|after| Step::Cut { after }),
    ]
}

fn fault() -> impl Strategy<Value = Fault> {
    let call = prop_oneof![
        4 => Just(Call::Write),
        6 => Just(Call::Sync),
        3 => Just(Call::Patch),
        2 => Just(Call::Create),
        2 => Just(Call::SyncDir),
        2 => Just(Call::Length),
        2 => Just(Call::Reserve),
        2 => Just(Call::Read),
        1 => Just(Call::Open),
        1 => Just(Call::MakeDir),
        1 => Just(Call::Remove),
        1 => Just(Call::Look),
        1 => Just(Call::Owner),
        1 => Just(Call::Spawn),
    ];
    let error = prop_oneof![6 => Just(EIO), 1 => Just(ENOSPC), 1 => Just(EMFILE), 1 => Just(EROFS), 1 => Just(EDQUOT)];
    let outcome = prop_oneof![
        6 => error.prop_map(Outcome::Error),
        3 => (1_u64..9_000).prop_map(Outcome::Slow),
        1 => Just(Outcome::Short),
    ];
    let times = prop_oneof![6 => Just(1_u32), 2 => 2_u32..6, 1 => Just(10_000_u32)];
    (call, prop_oneof![Just(0_u32), 1_u32..12], times, outcome).prop_map(|(call, after, times, outcome)| {
        // What always takes long takes for ever.
        let times = if matches!(outcome, Outcome::Slow(_)) { times.min(3) } else { times };
        Fault { call, after, times, outcome }
    })
}

fn end() -> impl Strategy<Value = End> {
    let survivors =
        prop_oneof![2 => Just(Survivors::Some), 1 => Just(Survivors::None), 1 => Just(Survivors::All)];
    (
        proptest::bool::weighted(0.3),
        proptest::option::of(prop_oneof![Just(0_u64), 1_u64..4_000]),
        any::<bool>(),
        survivors,
        proptest::option::weighted(0.3, 0_u32..40),
        any::<bool>(),
    )
        .prop_map(|(killed, stop_late_ms, calm, survivors, cut_in_repair, is_known)| End {
            killed,
            stop_late_ms,
            calm,
            survivors,
            cut_in_repair,
            is_known,
        })
}
