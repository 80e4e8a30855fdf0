//! Tries the properties of a fence: a process inside attempts what each of them forbids.

use std::fs;
use std::io::ErrorKind;

use clap::ValueEnum;
use nix::errno::Errno;
use nix::sys::prctl::get_no_new_privs;
use nix::sys::signal::kill;
use nix::unistd::getppid;
use tidy_process::{Containment, Sandbox, Stdio, Supervisor, cli_support};

use crate::doctor::finding::Finding;
use crate::doctor::probe::own_program;
use crate::exit::Ended;
use crate::print::text;

/// The property that is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Attempt {
    Inside,
    Apart,
    Unprivileged,
}

/// Names of the rows, and what holds where they are ok.
const ROWS: [(&str, Attempt, &str); 3] = [
    ("fence-inside", Attempt::Inside, "a process could not leave its cgroup, nor write to one"),
    ("fence-apart", Attempt::Apart, "a process could not signal nor change its supervisor"),
    ("fence-unprivileged", Attempt::Unprivileged, "a process got no new privileges or namespace"),
];

pub(crate) const NAMES: [&str; 3] = ["fence-inside", "fence-apart", "fence-unprivileged"];

/// Tries each property on a process of its own.
pub(crate) fn all(made: Option<&Supervisor>, tell: &dyn Fn(Finding)) {
    let keepers = || Supervisor::builder().containment(Containment::Keeper).build();
    let supervisor = made.cloned().map_or_else(keepers, Ok);
    for (name, attempt, holds) in ROWS {
        tell(match &supervisor {
            Ok(supervisor) => tried(name, attempt, holds, supervisor),
            Err(_) => Finding::blank(name, "not tried: see create and keeper"),
        });
    }
}

fn tried(name: &'static str, attempt: Attempt, holds: &str, supervisor: &Supervisor) -> Finding {
    let word = attempt.to_possible_value().map(|value| value.get_name().to_owned());
    let mut command = own_program(supervisor);
    command.arg("attempt").arg(word.unwrap_or_default()).sandbox(&Sandbox::fence());
    match command.stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => {
            let how = output.report.sandbox.map_or(String::new(), |how| format!(": {how}"));
            Finding::ok(name, format!("for --fence: {holds}{how}"))
        }
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let found = format!("in a fence a process did what it must not: {}", said.trim());
            Finding::no(name, found).remedy("do not rely on --fence here, and report this")
        }
        Err(error) => Finding::error(name, &error),
    }
}

/// `tidy-process attempt`, hidden: whether all is refused that breaks the property; else says on
/// standard error what was not.
pub(crate) fn attempt(attempt: Attempt) -> Ended {
    let broken = match attempt {
        Attempt::Inside => inside(),
        Attempt::Apart => apart(),
        Attempt::Unprivileged => unprivileged(),
    };
    broken.iter().for_each(text::line);
    Ended { exit: u8::from(!broken.is_empty()), by_signal: None }
}

fn inside() -> Vec<String> {
    let mut broken = not_refused(&["clone3", "setns", "mount"]);
    if let Ok(own) = cli_support::find_base(None) {
        for path in [own.join("cgroup.procs"), own.join("..").join("cgroup.procs")] {
            let opened = fs::OpenOptions::new().write(true).open(&path);
            if !opened.is_err_and(|error| is_refusal(error.kind())) {
                broken.push(format!("{path:?} could be written to"));
            }
        }
    }
    broken
}

fn is_refusal(kind: ErrorKind) -> bool {
    // The root cgroup may be above.
    matches!(kind, ErrorKind::PermissionDenied | ErrorKind::NotFound)
}

fn apart() -> Vec<String> {
    let mut broken = not_refused(&["ptrace", "pidfd_getfd", "process_vm_writev"]);
    if kill(getppid(), None) != Err(Errno::EPERM) {
        broken.push("the supervisor could be signalled".to_owned());
    }
    let path = format!("/proc/{}/oom_score_adj", getppid());
    if fs::OpenOptions::new().write(true).open(&path).is_ok() {
        broken.push(format!("{path} could be written to"));
    }
    broken
}

fn unprivileged() -> Vec<String> {
    let mut broken = not_refused(&["unshare", "bpf", "keyctl", "io_uring_setup"]);
    if get_no_new_privs() != Ok(true) {
        broken.push("new privileges could be had".to_owned());
    }
    broken
}

fn not_refused(calls: &[&str]) -> Vec<String> {
    let made = calls.iter().filter(|call| !cli_support::is_refused(call));
    made.map(|call| format!("{call} was not refused")).collect()
}
