//! Threads of which one runs at a time, and a clock that moves only when all of them wait: which is next is drawn
//! from a seed, so that the same seed makes the same run.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use shutterd::clock::{Clock, MonoTime, SimulatedClock, WallTime};
use shutterd::recording::Task;

use crate::draw::Draw;

/// Of so many looks at the threads one lets another go on.
const SWITCH_ONE_IN: u64 = 6;

thread_local! {
    /// The number of this thread; the first one's is 0.
    static OWN: Cell<usize> = const { Cell::new(0) };
}

/// The threads of a run.
#[derive(Debug)]
pub struct Threads {
    clock: SimulatedClock,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    draw: Draw,
    running: usize,
    threads: Vec<Thread>,
}

#[derive(Debug)]
struct Thread {
    handle: std::thread::Thread,
    waits: Waits,
    woken: bool,
    panic: Option<Box<dyn std::any::Any + Send>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waits {
    /// For its turn.
    Turn,
    Until(MonoTime),
    /// For the end of another.
    End(usize),
    /// It has ended.
    Over,
}

/// A thread of a run, as who started it sees it.
#[derive(Debug)]
struct Started {
    threads: Arc<Threads>,
    number: usize,
}

impl Threads {
    /// A run whose first thread is this one.
    pub fn begin(seed: u64) -> Arc<Self> {
        let wall = WallTime::from_nanos(1_790_000_000_000_000_000);
        OWN.set(0);
        let first = Thread::new(std::thread::current());
        let state = State { draw: Draw::new(seed), running: 0, threads: vec![first] };
        Arc::new(Self { clock: SimulatedClock::at(wall), state: Mutex::new(state) })
    }

    /// The clock that moves while all wait.
    pub fn clock(&self) -> &dyn Clock {
        &self.clock
    }

    /// A place where another thread may go on.
    pub fn look(&self) {
        let mut state = self.lock();
        if state.threads.len() > 1 && state.draw.one_in(SWITCH_ONE_IN) {
            state.own().waits = Waits::Turn;
            self.hand_over(state);
        }
    }

    /// Waits that long, or until it is woken.
    pub fn park(&self, at_most: Duration) {
        let until = self.clock.now() + at_most;
        let mut state = self.lock();
        if !state.own().woken {
            state.own().waits = Waits::Until(until);
            self.hand_over(state);
            state = self.lock();
        }
        state.own().woken = false;
    }

    /// Lets that long pass.
    pub fn pass(&self, length: Duration) {
        let until = self.clock.now() + length;
        let woken = std::mem::take(&mut self.lock().own().woken);
        while self.clock.now() < until {
            self.park(until - self.clock.now());
        }
        self.lock().own().woken |= woken;
    }

    /// Starts a thread.
    pub fn spawn(self: &Arc<Self>, body: Box<dyn FnOnce() + Send>) -> std::io::Result<Box<dyn Task>> {
        let number = self.lock().threads.len();
        let threads = Arc::clone(self);
        let body = move || {
            OWN.set(number);
            threads.wait_for_turn();
            let panic = catch_unwind(AssertUnwindSafe(body)).err();
            let mut state = threads.lock();
            state.own().panic = panic;
            state.own().waits = Waits::Over;
            threads.choose(&mut state);
        };
        let thread = std::thread::Builder::new().name("modelled".to_owned()).spawn(body)?;
        self.lock().threads.push(Thread::new(thread.thread().clone()));
        self.look();
        Ok(Box::new(Started { threads: Arc::clone(self), number }))
    }

    /// Waits for the end of all others.
    pub fn end(&self) {
        let count = self.lock().threads.len();
        for number in 1..count {
            self.wait_for(number);
        }
    }

    fn wait_for(&self, number: usize) {
        let mut state = self.lock();
        state.own().waits = Waits::End(number);
        self.hand_over(state);
    }

    fn hand_over(&self, mut state: MutexGuard<'_, State>) {
        self.choose(&mut state);
        drop(state);
        self.wait_for_turn();
    }

    /// Says whose turn it is; the clock moves on if it has to.
    fn choose(&self, state: &mut State) {
        let ready = loop {
            let now = self.clock.now();
            let ready: Vec<usize> =
                (0..state.threads.len()).filter(|number| state.is_ready(*number, now)).collect();
            if !ready.is_empty() {
                break ready;
            }
            let next = state.threads.iter().filter_map(|thread| match thread.waits {
                Waits::Until(until) => Some(until),
                _ => None,
            });
            let next = next.min().expect("threads don't wait for each other in a circle");
            self.clock.advance(next - now);
        };
        let next = ready[state.draw.below(ready.len() as u64) as usize];
        state.running = next;
        state.threads[next].waits = Waits::Turn;
        state.threads[next].handle.unpark();
    }

    fn wait_for_turn(&self) {
        while !self.lock().is_running(OWN.get()) {
            std::thread::park();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock can panic")
    }
}

impl State {
    fn own(&mut self) -> &mut Thread {
        &mut self.threads[OWN.get()]
    }

    fn is_running(&self, number: usize) -> bool {
        self.running == number && number < self.threads.len()
    }

    fn is_ready(&self, number: usize, now: MonoTime) -> bool {
        match self.threads[number].waits {
            Waits::Turn => true,
            Waits::Until(until) => now >= until || self.threads[number].woken,
            Waits::End(other) => self.threads[other].waits == Waits::Over,
            Waits::Over => false,
        }
    }
}

impl Thread {
    fn new(handle: std::thread::Thread) -> Self {
        Self { handle, waits: Waits::Turn, woken: false, panic: None }
    }
}

impl Task for Started {
    fn wake(&self) {
        self.threads.lock().threads[self.number].woken = true;
    }

    fn is_finished(&self) -> bool {
        self.threads.lock().threads[self.number].waits == Waits::Over
    }

    fn join(self: Box<Self>) -> std::thread::Result<()> {
        self.threads.wait_for(self.number);
        self.threads.lock().threads[self.number].panic.take().map_or(Ok(()), Err)
    }
}
