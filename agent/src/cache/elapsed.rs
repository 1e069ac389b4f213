//! How much time passed since a file was written, across restarts of the machine.

use std::fs;
use std::time::Duration;

use postern_shared::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::clock::{boottime, wall_time};

/// When something was written, by every clock there is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Moment {
    /// Which run of the machine: the kernel makes a new one at every start.
    boot: Option<String>,
    /// Time since that start, suspended time included.
    boottime: Duration,
    wall: Timestamp,
}

/// Tells the time in a way that a later run of the machine can use.
#[derive(Debug, Clone)]
pub(crate) struct Witness {
    boot: Option<String>,
    /// Whether the wall clock was set from something that ran while the machine did not.
    is_wall_trusted: bool,
}

impl Witness {
    /// Asks this machine. Blocks on `/proc` and `/sys`, which is to say hardly.
    pub(crate) fn of_this_boot() -> Witness {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
        let was_set_at_boot = ["/sys/class/rtc/rtc0/hctosys", "/sys/class/rtc/rtc1/hctosys"]
            .into_iter()
            .any(|path| fs::read_to_string(path).is_ok_and(|text| text.trim() == "1"));
        let is_synchronized = fs::exists("/run/systemd/timesync/synchronized").unwrap_or(false);
        Witness {
            boot: boot.map(|boot| boot.trim().to_owned()),
            is_wall_trusted: was_set_at_boot || is_synchronized,
        }
    }

    /// A machine that was started anew and does not know what time it is.
    #[cfg(test)]
    pub(crate) fn of_another_boot() -> Witness {
        Witness { boot: Some("another".to_owned()), is_wall_trusted: false }
    }

    /// The moment that it is.
    pub(crate) fn now(&self) -> Moment {
        Moment { boot: self.boot.clone(), boottime: boottime(), wall: wall_time() }
    }

    /// The time since `written`; `None` where no clock knows it.
    pub(crate) fn since(&self, written: &Moment) -> Option<Duration> {
        self.between(written, &self.now())
    }

    fn between(&self, written: &Moment, now: &Moment) -> Option<Duration> {
        if written.boot.is_some() && written.boot == now.boot {
            return now.boottime.checked_sub(written.boottime);
        }
        // A clock that stands before the file was written tells nothing.
        let is_possible = written.wall <= now.wall;
        (self.is_wall_trusted && is_possible).then(|| now.wall.since(written.wall))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(boot: &str, boottime_secs: u64, wall_secs: u64) -> Moment {
        Moment {
            boot: Some(boot.to_owned()),
            boottime: Duration::from_secs(boottime_secs),
            wall: Timestamp::from_unix_ms(wall_secs * 1000).unwrap(),
        }
    }

    fn between(is_wall_trusted: bool, written: &Moment, now: &Moment) -> Option<u64> {
        let witness = Witness { boot: now.boot.clone(), is_wall_trusted };
        witness.between(written, now).map(|span| span.as_secs())
    }

    #[test]
    fn within_one_run_of_the_machine_the_wall_clock_plays_no_part() {
        let written = moment("a", 100, 5_000);

        assert_eq!(between(false, &written, &moment("a", 160, 1)), Some(60));
        assert_eq!(between(true, &written, &moment("a", 160, 9_000)), Some(60));
    }

    #[test]
    fn across_a_restart_only_a_trusted_wall_clock_counts() {
        let written = moment("a", 100, 5_000);

        assert_eq!(between(true, &written, &moment("b", 10, 5_090)), Some(90));
        assert_eq!(between(false, &written, &moment("b", 10, 5_090)), None);
        assert_eq!(between(true, &written, &moment("b", 10, 4_999)), None);
    }

    #[test]
    fn an_unknown_boot_is_never_the_same_boot() {
        let unknown = Moment { boot: None, ..moment("a", 100, 5_000) };
        let now = Moment { boot: None, ..moment("a", 160, 5_060) };

        assert_eq!(between(false, &unknown, &now), None);
    }
}
