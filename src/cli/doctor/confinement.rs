//! Tries the properties of fence and sandbox: a process inside attempts what each of them forbids.

use std::fs;
use std::io::ErrorKind;
use std::net::UdpSocket;

use nix::errno::Errno;
use nix::sys::prctl::get_no_new_privs;
use nix::sys::signal::kill;
use nix::unistd::getppid;
use tidy_process::{Containment, Sandbox, Stdio, Supervisor, cli_support};

use crate::doctor::attempt::{Attempt, attempting, boxed, broken, interfaces, level_of};
use crate::doctor::finding::Finding;
use crate::doctor::layers;
use crate::doctor::probe::own_program;
use crate::exit::Ended;
use crate::print::text;

/// Names of the rows, and what holds where they are ok.
const ROWS: [(&str, Attempt, &str); 9] = [
    ("fence-inside", Attempt::Inside, "a process could not leave its cgroup, nor write to one"),
    ("fence-apart", Attempt::Apart, "a process could not signal nor change its supervisor"),
    ("fence-unprivileged", Attempt::Unprivileged, "a process got no new privileges or namespace"),
    ("sandbox-writes", Attempt::Writes, "a process could write to its own /tmp alone"),
    ("sandbox-view", Attempt::View, "a process saw only what was named"),
    ("sandbox-network", Attempt::Network, "a process had no network"),
    ("sandbox-processes", Attempt::Processes, "a process saw none but its own, as process 2"),
    ("sandbox-overlay", Attempt::Overlay, "what a process wrote was held back until a commit"),
    ("sandbox-hosts", Attempt::Hosts, "a process reached a port that is served outside, alone"),
];

pub(crate) const NAMES: [&str; 10] = [
    "fence-inside",
    "fence-apart",
    "fence-unprivileged",
    "sandbox-writes",
    "sandbox-view",
    "sandbox-network",
    "sandbox-processes",
    "sandbox-overlay",
    "sandbox-hosts",
    EXPLAIN,
];

const EXPLAIN: &str = "explain";

/// Tries each property on a process of its own.
pub(crate) fn all(made: Option<&Supervisor>, tell: &dyn Fn(Finding)) {
    let keepers = || Supervisor::builder().containment(Containment::Keeper).build();
    let supervisor = made.cloned().map_or_else(keepers, Ok);
    for (name, attempt, holds) in ROWS {
        tell(match &supervisor {
            Ok(supervisor) => match attempt {
                Attempt::Overlay => layers::overlay(name, holds, supervisor),
                Attempt::Hosts => layers::hosts(name, holds, supervisor),
                _ => tried(name, attempt, holds, supervisor),
            },
            Err(_) => Finding::blank(name, "not tried: see create and keeper"),
        });
    }
    tell(supervisor.map_or_else(
        |_| Finding::blank(EXPLAIN, "not tried: see create and keeper"),
        |supervisor| explained(&supervisor),
    ));
}

/// Whether a refused call is told of.
fn explained(supervisor: &Supervisor) -> Finding {
    let mut command = own_program(supervisor);
    command.args(["attempt", "unprivileged"]).sandbox(&Sandbox::fence().explain());
    match command.stdin(Stdio::null()).output() {
        Ok(output) if output.report.denied_count > 0 => {
            let count = output.report.denied_count;
            Finding::ok(EXPLAIN, format!("for --explain: {count} refusals were told of"))
        }
        Ok(_) => Finding::no(EXPLAIN, "no refused call was told of")
            .remedy("leave --explain out, and report this"),
        Err(error) => Finding::error(EXPLAIN, &error),
    }
}

fn tried(name: &'static str, attempt: Attempt, holds: &str, supervisor: &Supervisor) -> Finding {
    let level = level_of(name);
    let (mut command, sandbox) = match level {
        "sandbox" => boxed(supervisor),
        _ => (own_program(supervisor), Sandbox::fence()),
    };
    match attempting(&mut command, attempt).sandbox(&sandbox).output() {
        Ok(output) if output.status.success() => {
            let how = output.report.sandbox.map_or(String::new(), |how| format!(": {how}"));
            Finding::ok(name, format!("for --{level}: {holds}{how}"))
        }
        Ok(output) => broken(name, &String::from_utf8_lossy(&output.stderr)),
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
        Attempt::Overlay => layers::write_there(),
        Attempt::Hosts => layers::connect(),
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
    let mut broken = interfaces();
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
