//! Hours of capture on a simulated clock: cameras and a microphone that are well, on a host that is busy, raise no
//! alarm; one that stalls raises it in time.

use std::time::Duration;

use super::Arrivals;
use crate::clock::{Clock, MonoTime, SimulatedClock, WallTime};
use crate::worker::capture::pace::Pace;

const STALL_AFTER: Duration = Duration::from_millis(250);
const HOUR: Duration = Duration::from_secs(3600);
/// Frames that a driver keeps for a reader that is late.
const BUFFERS: usize = 8;
/// The longest that this thread is kept from running.
const HICCUP_MAX_MS: f64 = 400.0;

/// A number from 0 up to 1, the next of a row (Knuth's MMIX).
struct Dice(u64);

impl Dice {
    fn throw(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn ms(&mut self, most: f64) -> Duration {
        Duration::from_secs_f64(self.throw() * most / 1e3)
    }
}

/// A source, and what happens to it.
struct Scene {
    nominal_ms: f64,
    /// Milliseconds between frames, by the seconds since the beginning.
    interval_ms: fn(f64) -> f64,
    /// When it delivers nothing, and for how long.
    stall: Option<(Duration, Duration)>,
}

/// What came of an hour.
#[derive(Debug, Default)]
struct Told {
    /// Of each alarm: when the last frame had come, when it was due at the latest, and when it came.
    alarms: Vec<(MonoTime, MonoTime, MonoTime)>,
    frames: usize,
    /// How often the rate was told to be low.
    slow: usize,
}

/// When each frame can be had: exposure and clock jitter by a twentieth, and now and then the bus is late.
fn ready(scene: &Scene, begin: MonoTime, dice: &mut Dice) -> Vec<MonoTime> {
    let (mut captured, mut ready) = (begin, Vec::new());
    let mut last = begin;
    while captured < begin + HOUR {
        let interval_ms = (scene.interval_ms)(captured.since(begin).as_secs_f64());
        captured = captured + Duration::from_secs_f64(interval_ms * (0.95 + dice.throw() / 10.0) / 1e3);
        if let Some((at, length)) = scene.stall
            && (begin + at..begin + at + length).contains(&captured)
        {
            captured = begin + at + length;
        }
        let late = if dice.throw() < 0.0005 { dice.ms(40.0) } else { dice.ms(4.0) };
        last = last.max(captured + late);
        ready.push(last);
    }
    ready
}

/// Captures for an hour as a capturing thread does.
fn capture(scene: &Scene, seed: u64) -> Told {
    let clock = SimulatedClock::at(WallTime::from_nanos(0));
    let mut dice = Dice(seed);
    let ready = ready(scene, clock.now(), &mut dice);
    let nominal = Duration::from_secs_f64(scene.nominal_ms / 1e3);
    let (mut arrivals, mut pace) = (Arrivals::new(nominal, STALL_AFTER), Pace::default());
    let (mut told, mut is_alarmed, mut next) = (Told::default(), false, 0);
    while next < ready.len() {
        let until = arrivals.wait_until(clock.now());
        if ready[next] > clock.now() {
            clock.advance(ready[next].min(until).since(clock.now()));
            // A thread wakes a little late, and sometimes the host has something else to do.
            let is_held_up = dice.throw() < 0.0002;
            clock.advance(dice.ms(if is_held_up { HICCUP_MAX_MS } else { 2.0 }));
        }
        let now = clock.now();
        if ready[next] <= now {
            arrivals.came(now);
            is_alarmed = false;
            told.frames += 1;
            told.slow +=
                usize::from(pace.frame(arrivals.observed_ns(), Some(scene.nominal_ms * 1e6), now).is_some());
            // What found no buffer is lost.
            let waiting = ready[next..].iter().take_while(|ready| **ready <= now).count();
            next += 1 + waiting.saturating_sub(BUFFERS);
            clock.advance(dice.ms(0.3));
        } else if arrivals.is_silent(now) && !is_alarmed {
            is_alarmed = true;
            let last = arrivals.last.expect("it has delivered");
            told.alarms.push((last, last + arrivals.patience(), now));
        }
    }
    told
}

fn well(nominal_ms: f64, interval_ms: fn(f64) -> f64) -> Scene {
    Scene { nominal_ms, interval_ms, stall: None }
}

/// 30 frames a second by day; in the dark 15, 10 and 7.5 in turn, a minute each.
fn low_light(seconds: f64) -> f64 {
    let steps = [1.0, 2.0, 3.0, 4.0, 2.0];
    1e3 / 30.0 * steps[(seconds / 60.0) as usize % steps.len()]
}

/// Each kind of capture that is well.
fn kinds() -> [(&'static str, Scene); 4] {
    [
        ("30 frames a second", well(1e3 / 30.0, |_| 1e3 / 30.0)),
        ("low light", well(1e3 / 30.0, low_light)),
        ("5 frames a second", well(200.0, |_| 200.0)),
        ("sound in periods of 100 ms", well(100.0, |_| 100.0)),
    ]
}

#[test]
fn an_hour_of_normal_low_light_and_slow_capture_on_a_busy_host_raises_no_alarm() {
    for seed in 1..=5 {
        for (kind, scene) in kinds() {
            let told = capture(&scene, seed);
            assert_eq!(told.alarms, [], "{kind}, seed {seed}: {} frames", told.frames);
            let least = HOUR.as_secs_f64() * 1e3 / scene.nominal_ms / 3.0;
            assert!(told.frames as f64 > least, "{kind}: {}", told.frames);
            assert_eq!(told.slow > 0, kind == "low light", "{kind}: told to be slow {} times", told.slow);
        }
    }
}

#[test]
fn a_stall_in_that_hour_raises_one_alarm_at_250_ms_or_three_observed_intervals() {
    for seed in 1..=5 {
        for (kind, mut scene) in kinds() {
            // In the darkest minute of low light.
            scene.stall = Some((Duration::from_secs(1000), Duration::from_secs(5)));
            let told = capture(&scene, seed);
            let [(last, due, at)] = told.alarms[..] else {
                panic!("{kind}, seed {seed}: {:?}", told.alarms);
            };
            let interval = Duration::from_secs_f64((scene.interval_ms)(999.0) / 1e3);
            let bound = STALL_AFTER.max(interval * 3).mul_f64(1.1);
            assert!(due.since(last) <= bound, "{kind}, seed {seed}: patient for {:?}", due.since(last));
            assert!(
                at >= due && at.since(due) <= Duration::from_millis(2),
                "{kind}, seed {seed}: {at:?}, {due:?}"
            );
        }
    }
}
