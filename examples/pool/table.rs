//! What has become of the runs.

use std::ffi::OsString;
use std::fmt::Write;
use std::time::Duration;

use tidy_process::{Cause, Error, Report};

/// Failures that are named; the rest is counted.
const NAMED: usize = 10;

#[derive(Default)]
pub(crate) struct Table {
    succeeded: usize,
    failed: usize,
    timed_out: usize,
    not_started: usize,
    leftovers: usize,
    walls: Vec<Duration>,
    named: Vec<String>,
}

impl Table {
    pub(crate) fn count(&mut self, words: &[OsString], report: &Report) {
        self.walls.push(report.wall);
        self.leftovers += report.leftovers.len();
        if let Some(left) = report.leftovers.first() {
            self.name(words, &format!("left {left} running"));
        }
        match report.cause {
            Cause::Exited if report.status.success() => self.succeeded += 1,
            Cause::TimedOut => self.timed_out += 1,
            _ => {
                self.failed += 1;
                self.name(words, &format!("{} ({:?})", report.status, report.cause));
            }
        }
    }

    pub(crate) fn count_error(&mut self, words: &[OsString], error: &Error) {
        self.not_started += 1;
        self.name(words, &error.to_string());
    }

    fn name(&mut self, words: &[OsString], what: &str) {
        if self.named.len() < NAMED {
            let words: Vec<_> = words.iter().map(|word| word.display().to_string()).collect();
            self.named.push(format!("{}: {what}", words.join(" ")));
        }
    }

    pub(crate) fn add(&mut self, part: Self) {
        self.succeeded += part.succeeded;
        self.failed += part.failed;
        self.timed_out += part.timed_out;
        self.not_started += part.not_started;
        self.leftovers += part.leftovers;
        self.walls.extend(part.walls);
        self.named.extend(part.named);
        self.named.truncate(NAMED);
    }

    pub(crate) fn all_well(&self) -> bool {
        self.failed + self.timed_out + self.not_started == 0
    }

    pub(crate) fn text(&mut self, took: Duration) -> String {
        self.walls.sort_unstable();
        let (runs, mut text) = (self.walls.len(), String::new());
        let mut row = |name: &str, value: String| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{name:<16}{value:>12}");
        };
        row("succeeded", self.succeeded.to_string());
        row("failed", self.failed.to_string());
        row("timed out", self.timed_out.to_string());
        row("not started", self.not_started.to_string());
        row("leftovers", self.leftovers.to_string());
        row("wall, median", format!("{:.2?}", self.quantile(50)));
        row("wall, p99", format!("{:.2?}", self.quantile(99)));
        row("all of it", format!("{took:.2?}"));
        let rate = f64::from(u32::try_from(runs).unwrap_or(u32::MAX)) / took.as_secs_f64();
        row("runs/s", format!("{rate:.0}"));
        for line in &self.named {
            let _ = writeln!(text, "  {line}");
        }
        text
    }

    fn quantile(&self, percent: usize) -> Duration {
        self.walls.get(self.walls.len() * percent / 100).copied().unwrap_or_default()
    }
}
