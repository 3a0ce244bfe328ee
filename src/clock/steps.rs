//! Steps of the wall clock: somebody, or a time server, has set it. A slew, which runs it a little faster or
//! slower, is none.

use std::time::Duration;

use super::WallTime;

/// The least that counts as a step: time servers slew what is less (`ntpd(8)`, step threshold).
const STEP_MIN: Duration = Duration::from_millis(100);

/// What the clocks showed at the last look.
#[derive(Debug, Default)]
pub struct Steps {
    last: Option<(u64, WallTime)>,
}

/// A step of the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It was set forward by so much.
    Forward(Duration),
    /// It was set back by so much.
    Back(Duration),
}

impl Steps {
    /// By how much the wall clock was set since the last look. `boot_ns` are nanoseconds of `CLOCK_BOOTTIME`,
    /// which goes on while the host is suspended as the wall clock does; `wall` was read at the same moment.
    pub fn look(&mut self, boot_ns: u64, wall: WallTime) -> Option<Step> {
        let (last_ns, last_wall) = self.last.replace((boot_ns, wall))?;
        let due = last_wall + Duration::from_nanos(boot_ns.saturating_sub(last_ns));
        let forward = Duration::from_nanos(wall.nanos_since(due));
        let back = Duration::from_nanos(due.nanos_since(wall));
        match (forward >= STEP_MIN, back >= STEP_MIN) {
            (true, _) => Some(Step::Forward(forward)),
            (_, true) => Some(Step::Back(back)),
            (false, false) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    fn wall(seconds: i128) -> WallTime {
        WallTime::from_nanos((1_800_000_000 + seconds) * i128::from(SECOND_NS))
    }

    #[test]
    fn a_clock_that_is_set_steps_once_and_a_slewed_one_never() {
        let mut steps = Steps::default();
        assert_eq!(steps.look(SECOND_NS, wall(0)), None);
        assert_eq!(steps.look(2 * SECOND_NS, wall(1)), None);
        assert_eq!(steps.look(3 * SECOND_NS, wall(3602)), Some(Step::Forward(Duration::from_hours(1))));
        assert_eq!(steps.look(4 * SECOND_NS, wall(3603)), None);
        assert_eq!(steps.look(5 * SECOND_NS, wall(4)), Some(Step::Back(Duration::from_hours(1))));
        for tenth in 1..1000 {
            let passed = tenth * SECOND_NS / 10;
            let slewed = wall(4) + Duration::from_nanos(passed + passed / 2000);
            assert_eq!(steps.look(5 * SECOND_NS + passed, slewed), None);
        }
    }
}
