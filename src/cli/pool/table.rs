//! What became of the commands, in few lines, in constant memory.

use std::time::Duration;

use tidy_process::cli_support::{LINE, quoted, shortened};
use tidy_process::{Cause, ProcessInfo};

use crate::pool::desk::End;
use crate::print::text::{line, mebibytes};

/// So many of each kind are named; the rest is counted.
const NAMED: usize = 3;

/// Characters of a command in a line.
const WORDS: usize = 80;

#[derive(Default)]
pub(crate) struct Table {
    ended: u64,
    failed: u64,
    timed_out: u64,
    not_started: u64,
    leaking: u64,
    left: u64,
    slowest: Vec<(Duration, String)>,
    largest: Vec<(u64, String)>,
    failures: Vec<String>,
    leaks: Vec<String>,
}

impl Table {
    pub(crate) fn count(&mut self, end: &End, text: &str) {
        let what = || format!("{}: {}", end.job.number, shortened(&quoted(text), WORDS));
        self.ended += 1;
        match &end.result {
            Err(error) => {
                self.not_started += 1;
                self.fails(|| format!("{} ({})", what(), quoted(&error.to_string())));
            }
            Ok(report) => {
                keep_greatest(&mut self.slowest, end.wall, what);
                let peak = report.usage.memory_peak;
                peak.into_iter().for_each(|peak| keep_greatest(&mut self.largest, peak, what));
                if report.cause == Cause::TimedOut {
                    self.timed_out += 1;
                } else if end.exit != 0 {
                    self.failed += 1;
                }
                if end.exit != 0 {
                    let how = match report.cause {
                        Cause::Exited => format!("exited with {}", end.exit),
                        cause => cause.to_string(),
                    };
                    self.fails(|| format!("{} ({how})", what()));
                }
                self.leaks(report.leftover_count, report.leftovers.first(), what);
            }
        }
    }

    fn fails(&mut self, what: impl Fn() -> String) {
        if self.failures.len() < NAMED {
            self.failures.push(what());
        }
    }

    fn leaks(&mut self, count: usize, first: Option<&ProcessInfo>, what: impl Fn() -> String) {
        self.left += count as u64;
        self.leaking += u64::from(count > 0);
        if count > 0 && self.leaks.len() < NAMED {
            let first = first.map(ToString::to_string).unwrap_or_default();
            self.leaks.push(format!("{} left {first}", what()));
        }
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.failed + self.timed_out + self.not_started + self.leaking == 0
    }

    /// Says it on standard error.
    pub(crate) fn say(&self, took: Duration) {
        let Self { ended, failed, timed_out, not_started, leaking, left, .. } = self;
        let well = ended - failed - timed_out - not_started;
        let counts = [
            (*failed, "failed"),
            (*timed_out, "timed out"),
            (*not_started, "could not be started"),
        ];
        let counts = counts.into_iter().filter(|(count, _)| *count > 0);
        let counts: String = counts.map(|(count, what)| format!(", {count} {what}")).collect();
        let leaks = match leaking {
            0 => String::new(),
            1 => format!("; 1 left processes running ({left} killed)"),
            _ => format!("; {leaking} left processes running ({left} killed)"),
        };
        let took = took.as_secs_f64();
        let noun = if *ended == 1 { "command" } else { "commands" };
        line(format_args!("{ended} {noun} in {took:.2} s: {well} succeeded{counts}{leaks}"));
        let row = |kind: &str, what: &str| line(shortened(&format!("{kind} {what}"), LINE));
        let slowest = self.slowest.iter();
        slowest.for_each(|(wall, what)| {
            row("slowest", &format!("{:.3} s {what}", wall.as_secs_f64()))
        });
        let largest = self.largest.iter();
        largest.for_each(|(peak, what)| row("largest", &format!("{} {what}", mebibytes(*peak))));
        self.failures.iter().for_each(|what| row("failed ", what));
        self.leaks.iter().for_each(|what| row("leaked ", what));
    }
}

/// Keeps the greatest few.
fn keep_greatest<T: Ord + Copy>(all: &mut Vec<(T, String)>, value: T, what: impl Fn() -> String) {
    let place = all.iter().position(|(kept, _)| value > *kept).unwrap_or(all.len());
    if place < NAMED {
        all.insert(place, (value, what()));
        all.truncate(NAMED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_few_are_kept() {
        let mut all = Vec::new();
        for value in [3, 1, 4, 1, 5, 9, 2, 6] {
            keep_greatest(&mut all, value, || value.to_string());
        }
        let kept: Vec<_> = all.iter().map(|(value, _)| *value).collect();
        assert_eq!(kept, [9, 6, 5]);
    }
}
