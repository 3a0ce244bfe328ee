//! The queue between capturing and recording, against a list: what is taken comes out once and in order, the
//! bounds hold, what is refused is given back, and nobody sleeps while there is something to take.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use shutterd::clock::MonoTime;
use shutterd::media::{Packet, Popped, Pushed, Queue, QueueLimits};

use super::seeds::{Chance, try_histories};

const RUNS: u64 = 3000;
/// Histories with threads.
const THREADED_RUNS: u64 = 300;
/// A consumer that is woken waits for no time at all; one whose wake-up is lost waits for all of this.
const PATIENCE: Duration = Duration::from_secs(20);

fn packet(number: u64, bytes: u64) -> Packet {
    let at = MonoTime::from_nanos(number);
    Packet { source: 0, timestamp: at, end: at, units: 1, revision: 0, payload: vec![0; bytes as usize] }
}

fn number(packet: &Packet) -> (u64, usize) {
    (packet.timestamp.nanos(), packet.payload.len())
}

/// What a queue should do.
struct Model {
    limits: QueueLimits,
    inside: VecDeque<(u64, usize)>,
    closed: bool,
}

impl Model {
    fn push(&mut self, packet: (u64, usize)) -> &'static str {
        let bytes: usize = self.inside.iter().map(|(_, bytes)| bytes).sum();
        if self.closed {
            return "closed";
        }
        if self.inside.len() == self.limits.packets_max || bytes + packet.1 > self.limits.bytes_max {
            return "full";
        }
        self.inside.push_back(packet);
        "taken"
    }

    fn pop(&mut self) -> (Popped, Vec<(u64, usize)>) {
        let popped = match (self.inside.is_empty(), self.closed) {
            (false, _) => Popped::Packets,
            (true, true) => Popped::End,
            (true, false) => Popped::Nothing,
        };
        (popped, self.inside.drain(..).collect())
    }
}

fn play(seed: u64) -> Result<(), String> {
    let mut chance = Chance::of(seed);
    let limits =
        QueueLimits { packets_max: chance.within(1..12) as usize, bytes_max: chance.within(1..400) as usize };
    let (queue, mut model) = (Queue::new(limits), Model { limits, inside: VecDeque::new(), closed: false });
    let mut told = vec![format!("{limits:?}")];
    let mut into = VecDeque::new();
    for step in 0..chance.within(20..120) {
        let (was, should) = match chance.within(0..20) {
            0 if chance.once_in(6) => {
                queue.close();
                model.closed = true;
                told.push("close".to_owned());
                continue;
            }
            1 if chance.once_in(6) => {
                queue.discard();
                model.inside.clear();
                model.closed = true;
                told.push("discard".to_owned());
                continue;
            }
            2..=6 => {
                let popped = queue.pop_all(&mut into, Duration::ZERO);
                let (should, out) = model.pop();
                told.push(format!("pop: {popped:?}"));
                (
                    format!("{popped:?} {:?}", into.drain(..).map(|it| number(&it)).collect::<Vec<_>>()),
                    format!("{should:?} {out:?}"),
                )
            }
            _ => {
                let pushed = packet(step, chance.within(0..90));
                let own = number(&pushed);
                told.push(format!("push {own:?}"));
                let was = match queue.push(pushed) {
                    Pushed::Taken => ("taken", own),
                    Pushed::Full(back) => ("full", number(&back)),
                    Pushed::Closed(back) => ("closed", number(&back)),
                };
                (format!("{was:?}"), format!("{:?}", (model.push(own), own)))
            }
        };
        if was != should || queue.len() != model.inside.len() {
            let (there, wanted) = (queue.len(), model.inside.len());
            return Err(format!(
                "{}\n{was} and not {should}; {there} inside and not {wanted}",
                told.join("\n")
            ));
        }
    }
    Ok(())
}

#[test]
fn a_queue_does_what_a_list_with_two_bounds_does() {
    try_histories(RUNS, play);
}

/// Producers and a consumer as the kernel schedules them: the seed decides what they do, not when.
fn play_with_threads(seed: u64) -> Result<(), String> {
    let mut chance = Chance::of(seed);
    let limits = QueueLimits { packets_max: chance.within(1..6) as usize, bytes_max: 200 };
    let (queue, producers) = (Queue::new(limits), chance.within(1..4));
    let each = chance.within(1..40);
    let (dropped, left) = (AtomicU64::new(0), AtomicU64::new(producers));
    let begun = Instant::now();
    let popped = std::thread::scope(|scope| {
        for producer in 0..producers {
            let mut chance = Chance::of(chance.any());
            let (queue, dropped, left) = (&queue, &dropped, &left);
            scope.spawn(move || {
                for count in 0..each {
                    if chance.once_in(3) {
                        std::thread::yield_now();
                    }
                    match queue.push(packet(producer * 1000 + count, chance.within(0..60))) {
                        Pushed::Taken => {}
                        Pushed::Full(_) | Pushed::Closed(_) => drop(dropped.fetch_add(1, Ordering::Relaxed)),
                    }
                }
                if left.fetch_sub(1, Ordering::AcqRel) == 1 {
                    queue.close();
                }
            });
        }
        let mut popped = VecDeque::new();
        while queue.pop_all(&mut popped, PATIENCE) == Popped::Packets {}
        popped
    });
    let (taken, dropped) = (popped.len() as u64, dropped.into_inner());
    let in_order = (0..producers).all(|producer| {
        let own = popped.iter().map(|it| it.timestamp.nanos()).filter(|number| number / 1000 == producer);
        own.is_sorted_by(|one, next| one < next)
    });
    if begun.elapsed() >= PATIENCE {
        return Err("a wake-up was lost".to_owned());
    }
    if taken + dropped != producers * each || !in_order {
        return Err(format!(
            "{producers} times {each} were pushed: {taken} came out, {dropped} were refused"
        ));
    }
    Ok(())
}

#[test]
fn no_wake_up_and_no_packet_is_lost_between_threads() {
    try_histories(THREADED_RUNS, play_with_threads);
}
