//! Whether the machine has room for another command: processes that run, memory, time since the
//! last start.

use std::fs;
use std::time::{Duration, Instant};

use crate::pool::values::Busy;

/// The time between two looks at the machine.
const LOOK: Duration = Duration::from_millis(50);

/// Processes waited for memory for more than this share of the last ten seconds: there is none to
/// spare, whatever is called free.
const SCARCE: f64 = 10.0;

#[derive(Debug, Default)]
pub(crate) struct Gate {
    load: Option<f64>,
    mem_free: Option<u64>,
    delay: Option<Duration>,
    last: Option<Instant>,
    looked: Option<(Instant, bool)>,
}

impl Gate {
    pub(crate) fn new(load: Option<Busy>, mem_free: Option<u64>, delay: Option<Duration>) -> Self {
        Self { load: load.map(|Busy(load)| load), mem_free, delay, ..Self::default() }
    }

    /// What was asked for and is not known here.
    pub(crate) fn unknown(&self) -> Vec<&'static str> {
        let load = self.load.is_some() && runnable().is_none();
        let memory = self.mem_free.is_some() && available().is_none();
        let pressure = self.mem_free.is_some() && pressure().is_none();
        let all = [
            (load, "--load: how many processes run is not known here, and not looked at"),
            (memory, "--mem-free: how much memory is free is not known here, and not looked at"),
            (
                pressure,
                "--mem-free: this kernel has no pressure stall information: only free \
                        memory is looked at",
            ),
        ];
        all.into_iter().filter(|(is_unknown, _)| *is_unknown).map(|(_, what)| what).collect()
    }

    /// When to ask again; none if a command may be started now.
    pub(crate) fn closed_until(&mut self, now: Instant) -> Option<Instant> {
        let rested = self.last.zip(self.delay).and_then(|(last, delay)| last.checked_add(delay));
        if let Some(at) = rested.filter(|at| *at > now) {
            return Some(at);
        }
        if self.load.is_none() && self.mem_free.is_none() {
            return None;
        }
        match self.looked {
            Some((at, false)) if now < at + LOOK => Some(at + LOOK),
            // What was just started does not show yet.
            Some((at, true)) if now < at + LOOK / 10 => Some(at + LOOK / 10),
            _ => {
                let is_free = self.is_free();
                self.looked = Some((now, is_free));
                (!is_free).then_some(now + LOOK)
            }
        }
    }

    pub(crate) fn note_start(&mut self, now: Instant) {
        self.last = Some(now);
    }

    fn is_free(&self) -> bool {
        let busy = |load: f64| runnable().is_some_and(|running| running >= load);
        let short = |least: u64| available().is_some_and(|free| free < least);
        let scarce = || pressure().is_some_and(|share| share > SCARCE);
        !self.load.is_some_and(busy) && !self.mem_free.is_some_and(|least| short(least) || scarce())
    }
}

/// Processes that run or could, this one excepted. Not the load average: that lags by minutes.
fn runnable() -> Option<f64> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    let running = text.split_whitespace().nth(3)?.split('/').next()?.parse::<f64>().ok()?;
    Some((running - 1.0).max(0.0))
}

/// Bytes of memory that a new process could have.
fn available() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
}

/// Percent of the last ten seconds in which some process waited for memory.
fn pressure() -> Option<f64> {
    let text = fs::read_to_string("/proc/pressure/memory").ok()?;
    let some = text.lines().find(|line| line.starts_with("some "))?;
    some.split_whitespace().find_map(|word| word.strip_prefix("avg10="))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_lies_between_two_starts() {
        let mut gate = Gate::new(None, None, Some(Duration::from_secs(5)));
        let now = Instant::now();
        assert_eq!(gate.closed_until(now), None);
        gate.note_start(now);
        assert_eq!(gate.closed_until(now), Some(now + Duration::from_secs(5)));
        assert_eq!(gate.closed_until(now + Duration::from_secs(5)), None);
    }

    #[test]
    fn no_machine_has_more_than_all_memory_free() {
        let now = Instant::now();
        assert!(Gate::new(None, Some(u64::MAX), None).closed_until(now).is_some());
        assert!(Gate::new(Some(Busy(0.0)), None, None).closed_until(now).is_some());
        assert!(Gate::new(Some(Busy(1e9)), None, None).closed_until(now).is_none());
    }
}
