//! What tidy-process says to a person, on standard error.

use std::fmt::Display;
use std::io::{self, Write};
use std::time::Duration;

use nix::libc;
use nix::sys::signal::Signal;
use serde_json::Value;
use tidy_process::cli_support::{LINE, enumerated, quoted, quoted_lines, shortened};
use tidy_process::{Cause, Mechanism, ProcessInfo, Report, Supervisor};

use crate::exit::{Ended, Failure, Leaks};
use crate::print::json;
use crate::print::patient::{Patient, forgiving, write_finally};

/// What the last words are about, besides the report.
pub(crate) struct Last {
    pub(crate) timeout: Option<Duration>,
    pub(crate) cpu_time: Option<Duration>,
    /// By `tidy-process kill`.
    pub(crate) killed: bool,
    pub(crate) by_signal: Option<Signal>,
}

/// How much is said.
pub(crate) struct Voice {
    quiet: bool,
    verbose: bool,
    leaks: Leaks,
}

impl Voice {
    pub(crate) fn new(quiet: bool, verbose: bool, leaks: Leaks) -> Self {
        Self { quiet, verbose, leaks }
    }

    /// Says in one line what a status of 124 or 137 alone does not say.
    pub(crate) fn last_words(&self, report: &Report, last: Last) {
        let over = |what: &str, time: Option<Duration>| {
            let time = time.unwrap_or_default().as_secs_f64();
            still_running(&format!("{what} {time} s"), report);
        };
        let killed =
            |signal: i32, why: &str| line(format_args!("killed by signal {signal} ({why})"));
        match report.cause {
            _ if self.quiet => {}
            Cause::TimedOut => over("timed out after", last.timeout),
            Cause::CpuTimeExceeded => over("used up its CPU time of", last.cpu_time),
            Cause::OutOfMemory => killed(libc::SIGKILL, "its memory was used up"),
            Cause::Escaped => killed(libc::SIGKILL, "it had left its cgroup"),
            // A shell is silent at these two, too.
            Cause::Signaled(libc::SIGINT | libc::SIGPIPE) => {}
            Cause::Signaled(libc::SIGKILL) if last.killed => {
                killed(libc::SIGKILL, "by tidy-process kill");
            }
            Cause::Signaled(signal) if last.by_signal.is_none() => match Signal::try_from(signal) {
                Ok(named) => killed(signal, named.as_str()),
                Err(_) => line(format_args!("killed by signal {signal}")),
            },
            _ => {}
        }
    }

    pub(crate) fn report(&self, report: &Report) {
        if self.quiet {
            return;
        }
        // A timeout has named them already.
        let named =
            self.leaks != Leaks::Report && pids(&report.leftovers) == pids(&report.interrupted);
        if report.leftover_count > 0 && !named {
            self.leftovers(&report.leftovers, report.leftover_count);
        }
        denied("", report);
        if self.verbose {
            let wall = report.wall.as_secs_f64();
            line(format_args!("{} after {wall:.2} s: {}", ending(report), used(report)));
        }
    }

    /// The tool's own status says that it failed: CMD's is said here.
    pub(crate) fn report_of_failed(&self, report: &Report) {
        self.status_of_failed(report);
        self.report(report);
    }

    /// The same where the report could not be written.
    pub(crate) fn status_of_failed(&self, report: &Report) {
        line(format_args!("the command itself {}", ending(report)));
    }

    fn leftovers(&self, leftovers: &[ProcessInfo], count: usize) {
        let noun = if count == 1 { "process" } else { "processes" };
        let verb = if self.leaks == Leaks::Stop { "stopped" } else { "killed" };
        let text = format!("{verb} {count} leftover {noun}:");
        if self.leaks != Leaks::Report {
            let names: Vec<String> = leftovers.iter().map(ToString::to_string).collect();
            let room = LINE.saturating_sub(TOOL.len() + text.len() + 1);
            line(format_args!("{text} {}", enumerated(&names, count, room)));
            return;
        }
        line(text);
        for left in leftovers {
            let full = format!("  {left:.100} ({})", left.particulars());
            line(shortened(&full, LINE.saturating_sub(TOOL.len())));
        }
        if count > leftovers.len() {
            line(format_args!("  and {} more", count - leftovers.len()));
        }
    }
}

/// Lines about what was denied, at the most; JSON has more.
const DENIED: usize = 10;

/// What a command, or a server, was denied.
pub(crate) fn denied(whose: &str, report: &Report) {
    for each in report.denied.iter().take(DENIED) {
        line(format_args!("{whose}denied: {each}"));
    }
    if report.denied_count > DENIED {
        line(format_args!("{whose}denied: {} more (see --json)", report.denied_count - DENIED));
    }
}

fn still_running(what: &str, report: &Report) {
    if report.interrupted_count == 0 {
        return line(what);
    }
    let text = format!("{what}; still running:");
    let names: Vec<String> = report.interrupted.iter().map(ToString::to_string).collect();
    let room = LINE.saturating_sub(TOOL.len() + text.len() + 1);
    line(format_args!("{text} {}", enumerated(&names, report.interrupted_count, room)));
}

fn pids(processes: &[ProcessInfo]) -> Vec<u32> {
    processes.iter().map(|process| process.pid).collect()
}

/// What was wanted and could not be had, and whose the place is.
pub(crate) fn mechanism(supervisor: &Supervisor) {
    if let (Some(user), Some(root)) = (supervisor.foreign_owner(), supervisor.path()) {
        let base = root.parent().unwrap_or(root);
        let may = "who may kill, or take out of it, what runs there";
        line(format_args!("warning: cgroup {base:?} belongs to user {user}, {may}"));
    }
    if let Some(why) = supervisor.why_no_cgroup() {
        let lacks = "without limits and accounting, for want of a cgroup";
        line(format_args!("held by a keeper, {lacks}: {why}"));
    }
}

/// The servers of which nothing is awaited.
pub(crate) fn unawaited(names: &[&str]) {
    if !names.is_empty() {
        let names = names.join(", ");
        line(format_args!("warning: no --ready for {names}: CMD is started without waiting"));
    }
}

/// Which port a server is taken to have, of several.
pub(crate) fn several_ports(name: &str, port: u16, others: &[u16]) {
    let others: Vec<String> = others.iter().map(u16::to_string).collect();
    let others = enumerated(&others, others.len(), 60);
    line(format_args!("server {name} is ready on port {port}; it listens on {others} too"));
}

/// What a server wrote last.
pub(crate) fn last_lines(name: &str, lines: &str) {
    if !lines.is_empty() {
        line(format_args!("last lines of server {name}:"));
        say(&format!("  {}\n", lines.replace('\n', "\n  ")));
    }
}

/// Errors are said however quiet we are.
pub(crate) fn failure(failure: &Failure) {
    line(failure);
    if let Some(hint) = failure.hint() {
        line(format_args!("hint: {hint}"));
    }
}

fn ending(report: &Report) -> String {
    match report.cause {
        Cause::Exited => {
            report.status.code().map_or("ended".to_owned(), |code| format!("exited with {code}"))
        }
        cause => cause.to_string(),
    }
}

/// `0.82 s cpu, 143 MiB peak, 12 processes peak, 3 leftovers, held by a keeper, confined by a
/// fence`; what is not known
/// is left out.
fn used(report: &Report) -> String {
    let usage = &report.usage;
    let cpu = usage.user.zip(usage.system).map(|(user, system)| (user + system).as_secs_f64());
    let denied = usage.pids_denied.filter(|&denied| denied > 0);
    let kills = usage.oom_kills.filter(|&kills| kills > 0);
    let parts = [
        cpu.map(|cpu| format!("{cpu:.2} s cpu")),
        usage.memory_peak.map(|bytes| format!("{} peak", mebibytes(bytes))),
        usage.pids_peak.map(|peak| format!("{peak} processes peak")),
        denied.map(|denied| format!("{denied} forks refused")),
        kills.map(|kills| format!("{kills} killed for want of memory")),
        Some(match report.leftover_count {
            1 => "1 leftover".to_owned(),
            count => format!("{count} leftovers"),
        }),
        (report.mechanism != Mechanism::Cgroup).then(|| format!("held by a {}", report.mechanism)),
        report.sandbox.as_ref().map(|how| format!("confined by a {how}")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[expect(clippy::cast_precision_loss, reason = "a few digits of a mebibyte are printed")]
pub(crate) fn mebibytes(bytes: u64) -> String {
    let mebibytes = bytes as f64 / f64::from(1 << 20);
    if mebibytes < 10.0 { format!("{mebibytes:.1} MiB") } else { format!("{mebibytes:.0} MiB") }
}

/// What each line begins with.
const TOOL: &str = "tidy-process: ";

/// A standard error that is closed or full must not keep the work from being done. Whatever others
/// have a part in is quoted by the one that says it; this is for what was forgotten.
pub(crate) fn line(text: impl Display) {
    let text = quoted_lines(&text.to_string());
    say(&format!("{TOOL}{text}\n"));
}

/// A line that a server has written. It chose it, so nothing in it may reach the terminal but text.
pub(crate) fn server_line(name: &str, text: &str) {
    say(&format!("[{}] {}\n", quoted(name), quoted(text)));
}

/// In one piece, so that lines of several processes do not mix.
/// A standard error that is closed or full does not matter.
pub(crate) fn say(text: &str) {
    let _ = Patient(io::stderr()).write_all(text.as_bytes());
}

/// Says what failed; how tidy-process is to end then.
pub(crate) fn failed(failure: &Failure) -> Ended {
    self::failure(failure);
    Ended { exit: failure.exit(), by_signal: failure.by_signal() }
}

/// Text on standard output, without what a terminal obeys.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    write(&quoted_lines(text))
}

/// JSON on standard output: what a terminal obeys is there, escaped.
pub(crate) fn print_json(value: &Value) -> Result<(), Failure> {
    write(&(json::text(value) + "\n"))
}

/// All that is to be said on standard output, as it is.
pub(crate) fn write(text: &str) -> Result<(), Failure> {
    forgiving(write_finally(io::stdout(), text.as_bytes())).map_err(Failure::Print)
}
