//! Tries the properties of fence and sandbox: a process inside attempts what each of them forbids.

use std::fs;
use std::io::ErrorKind;
use std::net::UdpSocket;

use clap::ValueEnum;
use nix::errno::Errno;
use nix::sys::prctl::get_no_new_privs;
use nix::sys::signal::kill;
use nix::unistd::getppid;
use tidy_process::{Command, Containment, Sandbox, Stdio, Supervisor, cli_support};

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
    Writes,
    View,
    Network,
    Processes,
}

/// Names of the rows, and what holds where they are ok.
const ROWS: [(&str, Attempt, &str); 7] = [
    ("fence-inside", Attempt::Inside, "a process could not leave its cgroup, nor write to one"),
    ("fence-apart", Attempt::Apart, "a process could not signal nor change its supervisor"),
    ("fence-unprivileged", Attempt::Unprivileged, "a process got no new privileges or namespace"),
    ("sandbox-writes", Attempt::Writes, "a process could write to its own /tmp alone"),
    ("sandbox-view", Attempt::View, "a process saw only what was named"),
    ("sandbox-network", Attempt::Network, "a process had no network"),
    ("sandbox-processes", Attempt::Processes, "a process saw none but its own, as process 2"),
];

pub(crate) const NAMES: [&str; 7] = [
    "fence-inside",
    "fence-apart",
    "fence-unprivileged",
    "sandbox-writes",
    "sandbox-view",
    "sandbox-network",
    "sandbox-processes",
];

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
    let level = name.split('-').next().unwrap_or_default();
    let (mut command, sandbox) = match (level, std::env::current_exe()) {
        ("sandbox", Ok(own)) => {
            let mut command = Command::new(&own);
            command.supervisor(supervisor).current_dir("/");
            (command, Sandbox::new().system().read_only(own))
        }
        _ => (own_program(supervisor), Sandbox::fence()),
    };
    command.arg("attempt").arg(word.unwrap_or_default()).sandbox(&sandbox);
    match command.stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => {
            let how = output.report.sandbox.map_or(String::new(), |how| format!(": {how}"));
            Finding::ok(name, format!("for --{level}: {holds}{how}"))
        }
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let found = format!("in a {level} a process did what it must not: {}", said.trim());
            Finding::no(name, found)
                .remedy(format!("do not rely on --{level} here, and report this"))
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
        Attempt::Writes => writes(),
        Attempt::View => view(),
        Attempt::Network => network(),
        Attempt::Processes => processes(),
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

fn writes() -> Vec<String> {
    let places = ["/tidy", "/etc/tidy", "/usr/tidy", "/dev/tidy", "/proc/tidy"];
    let written = places.into_iter().filter(|place| fs::write(place, "").is_ok());
    let mut broken: Vec<String> = written.map(|place| format!("{place} was written")).collect();
    if fs::write("/tmp/tidy", "").is_err() {
        broken.push("its own /tmp could not be written to".to_owned());
    }
    broken
}

/// What is in the root, beside the way to this program.
fn view() -> Vec<String> {
    let named =
        ["bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr", "etc", "dev", "proc", "tmp"];
    let own = std::env::current_exe().unwrap_or_default();
    let own = own.iter().nth(1).unwrap_or_default().to_owned();
    let entries = fs::read_dir("/").into_iter().flatten().flatten().map(|entry| entry.file_name());
    let other = entries.filter(|name| *name != own && !named.iter().any(|known| *name == **known));
    let mut broken: Vec<String> =
        other.map(|name| format!("/{} was seen", name.display())).collect();
    if fs::read_dir("/tmp").is_ok_and(|all| all.count() > usize::from(own == *"tmp")) {
        broken.push("the host's /tmp was seen".to_owned());
    }
    broken
}

fn network() -> Vec<String> {
    let mut broken = Vec::new();
    let interfaces = fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    let names = interfaces.lines().filter_map(|line| Some(line.split_once(':')?.0.trim()));
    broken.extend(names.filter(|name| *name != "lo").map(|name| format!("{name} was there")));
    let socket = UdpSocket::bind("0.0.0.0:0");
    if socket.and_then(|socket| socket.connect("127.0.0.1:9")).is_ok() {
        broken.push("127.0.0.1 was reachable".to_owned());
    }
    broken
}

fn processes() -> Vec<String> {
    let own = std::process::id();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let other = pids.filter(|pid| ![1, own].contains(pid));
    let mut broken: Vec<String> = other.map(|pid| format!("process {pid} was seen")).collect();
    if own != 2 {
        broken.push(format!("it was process {own}"));
    }
    broken
}

fn not_refused(calls: &[&str]) -> Vec<String> {
    let made = calls.iter().filter(|call| !cli_support::is_refused(call));
    made.map(|call| format!("{call} was not refused")).collect()
}
