//! Opens the parsers of what others write to `tests/fuzz`; compiled with `--cfg fuzzing` alone.

use std::ffi::{CStr, OsStr};
use std::os::fd::BorrowedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use crate::cgroup::{controllers, hierarchy, names, usage, walk as cgroup_walk};
use crate::containment::{Mechanism, Placement};
use crate::error::Error;
use crate::keeper::idle_memory::{Map, MapsLine};
use crate::limits::Limits;
use crate::log::excerpt::{Excerpt, Lines, Memory};
use crate::proc::info::{ProcessInfo, Survey};
use crate::proc::port::{ListeningPort, Protocol};
use crate::proc::sock_diag::Socket;
use crate::proc::{parse, quote, read, sock_diag, sockets};
use crate::ready::{http, unix};
use crate::report::{Cause, Note, Report, Usage};
use crate::supervisor::guard::fuzzed;
use crate::supervisor::owner::{self, Owner};
use crate::supervisor::{list, orphans};
use crate::tree::add;

/// Root, mount point, type and options of each line.
pub fn mounts(mountinfo: &[u8]) -> Vec<(PathBuf, PathBuf, String, String)> {
    let all = hierarchy::parsed(mountinfo);
    all.map(|mount| (mount.root, mount.point, mount.kind, mount.options)).collect()
}

/// The path in `/proc/PID/cgroup`.
pub fn own_cgroup(cgroup: &[u8]) -> Option<PathBuf> {
    hierarchy::own_cgroup(cgroup)
}

/// The directories that may be that cgroup.
pub fn candidates(mountinfo: &[u8], own: &Path) -> Vec<PathBuf> {
    let mounts: Vec<_> = hierarchy::parsed(mountinfo).collect();
    hierarchy::candidates(&mounts, own).collect()
}

/// The pids of a `cgroup.procs` that is read in these pieces.
pub fn pids<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<i32> {
    let (mut all, mut number) = (Vec::new(), None);
    pieces.for_each(|piece| cgroup_walk::each_pid(piece, &mut number, &mut all));
    all
}

/// The pids as the guard reads them.
pub fn guards_pids(file: BorrowedFd<'_>) -> Vec<u32> {
    use std::os::fd::AsRawFd;
    fuzzed::pids(file.as_raw_fd()).collect()
}

/// The numbers of `/proc/PID/task/TID/children` that is read in these pieces.
pub fn numbers<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<i32> {
    let (mut all, mut begun) = (Vec::new(), None);
    pieces.for_each(|piece| parse::each_number(piece, &mut begun, &mut |pid| all.push(pid)));
    all
}

/// Whether `cgroup.events` has this line.
pub fn has_line(events: &[u8], line: &[u8]) -> bool {
    crate::cgroup::has_line(events, line)
}

/// The number behind a key of `cpu.stat` or `memory.events`.
pub fn value(text: &str, key: &str) -> Option<u64> {
    usage::value(text, key)
}

/// The sum over the devices of `io.stat`.
pub fn sum(text: &str, key: &str) -> u64 {
    usage::sum(text, key)
}

/// The time of a pressure file.
pub fn stalled(text: &str) -> Option<Duration> {
    usage::stalled(text)
}

/// Whether two lists of CPUs are the same set; none if one of them is no list.
pub fn same_cpus(one: &str, other: &str) -> Option<bool> {
    Some(controllers::cpus(one)? == controllers::cpus(other)?)
}

/// Whether `io.max` has what was written.
pub fn io_same(value: &str, back: &str) -> bool {
    controllers::io_same(value, back)
}

/// Whether `/proc/cgroups` has the controller in a hierarchy of v1.
pub fn is_numbered(cgroups: &str, controller: &str) -> bool {
    controllers::is_numbered(cgroups, controller)
}

/// What is written for limits: controller, file, value.
pub fn settings(limits: &Limits) -> Option<Vec<(&'static str, &'static str, String)>> {
    let all = limits.settings().ok()?.into_iter();
    Some(all.map(|setting| (setting.controller, setting.file, setting.value)).collect())
}

/// The owner's pid in a run root's name.
pub fn owner(name: &OsStr) -> Option<u32> {
    names::owner(name)
}

/// Whether it may be part of a directory's name.
pub fn is_name(name: &OsStr) -> bool {
    names::checked(name).is_ok()
}

/// The name and the number in the name of a tree's directory.
pub fn tree_name(path: &Path) -> (String, u64) {
    (list::name(path), list::number(path))
}

/// Whether the path of a process's cgroup is in the tree.
pub fn is_below(path: &Path, tree: &Path) -> bool {
    orphans::is_below(path, tree)
}

/// The text of the record that was understood of this one.
pub fn owner_record(text: &[u8]) -> Option<String> {
    Owner::parse(text).map(|owner| owner.text())
}

/// The inodes in links to a namespace and to a socket.
pub fn inodes(link: &[u8], kind: &str) -> (Option<u64>, Option<u64>) {
    let namespace = std::str::from_utf8(link).ok().and_then(|link| owner::inode(link, kind));
    (namespace, sockets::inode(link))
}

/// The pid in the fdinfo of a pidfd, and the tracer in a status.
pub fn status_pids(text: &str) -> (Option<u32>, Option<u32>) {
    (owner::pid_in(text), add::tracer_in(text))
}

/// State and parent in a `stat`, as a keeper reads them.
pub fn state_and_parent(stat: &[u8]) -> Option<(u8, i32)> {
    parse::stat(stat)
}

/// State, parent, session, name and start in a `stat`, as a survey reads them.
pub fn stat(text: &str) -> Option<(char, i32, i32, String, u64)> {
    let stat = read::understood(text)?;
    Some((stat.state, stat.ppid, stat.session, stat.comm, stat.starttime))
}

/// The words of a command line, and what was cut.
pub fn words(cmdline: &[u8]) -> (Vec<String>, Option<String>) {
    read::words(cmdline)
}

/// A pid in decimal.
pub fn decimal(pid: i32) -> Option<String> {
    parse::decimal(pid, &mut [0; 12])?.to_str().ok().map(str::to_owned)
}

/// The names that the library and the guard read from a directory.
pub fn entries(entries: &[u8]) -> [Vec<&CStr>; 2] {
    let (mut library, mut guard) = (Vec::new(), Vec::new());
    let mut rest = entries;
    while let Some((name, after)) = parse::first_entry(rest) {
        library.push(name);
        rest = after;
    }
    rest = entries;
    while let Some(((.., name), after)) = fuzzed::entry(rest) {
        guard.push(name);
        rest = after;
    }
    [library, guard]
}

/// Start, end, writable and has-a-file of each line of `maps`.
pub fn maps(text: &[u8]) -> Vec<(usize, usize, bool, bool)> {
    let mut line = MapsLine::new();
    let each = text.iter().filter_map(|byte| line.push(*byte));
    each.map(|Map { start, end, writable, has_file }| (start, end, writable, has_file)).collect()
}

/// The socket on a line of `/proc/net/tcp` or `udp`.
pub fn table_line(line: &str, protocol: Protocol) -> Option<(std::net::SocketAddr, u64)> {
    sock_diag::entry(line, protocol).map(|socket| (socket.address, socket.inode))
}

/// The listener on a line of `/proc/net/unix`.
pub fn unix_listener(line: &[u8]) -> Option<(u64, &Path)> {
    unix::unix_listener(line)
}

/// The sockets in a packet of sock_diag, and how it ends.
pub fn messages(packet: &[u8]) -> (Vec<(std::net::SocketAddr, u64)>, Result<bool, i32>) {
    let mut all = Vec::new();
    let mut see = |Socket { address, inode, .. }| all.push((address, inode));
    let end = sock_diag::messages(packet, Protocol::Tcp, &mut see);
    (all, end.map_err(|errno| errno as i32))
}

/// The status of an HTTP answer.
pub fn http_status(answer: &[u8]) -> Option<u16> {
    match http::status(answer) {
        http::Status::Final(status) => Some(status),
        http::Status::Unread | http::Status::None => None,
    }
}

/// Host, port and path of a URL.
pub fn url(text: &str) -> Option<(String, u16, String)> {
    crate::ready::url::parse(text).ok().map(|url| (url.host, url.port, url.path))
}

/// One line that describes each of these, and the error of a teardown that they outlived.
pub fn described(processes: &[ProcessInfo]) -> (Vec<String>, String) {
    let mut survey = Survey::default();
    processes.iter().for_each(|process| survey.push(process.clone()));
    let lines = processes.iter().flat_map(|process| [process.in_full(), process.stuck()]);
    (lines.collect(), Error::populated("it".to_owned(), Duration::ZERO, survey).to_string())
}

/// A process of which nothing is known, to be filled.
pub fn process(pid: i32, reason: &str) -> ProcessInfo {
    ProcessInfo::unread(pid, reason)
}

/// Notes that a field is cut.
pub fn lacks(process: &mut ProcessInfo, field: &'static str, reason: &str) {
    process.lacks(field, reason);
}

/// A port.
pub fn port(protocol: Protocol, address: std::net::SocketAddr, name: &str) -> ListeningPort {
    ListeningPort { protocol, address, pid: 1, name: name.to_owned() }
}

/// A report, to be filled.
pub fn report(status: i32, cause: Cause, leftovers: Vec<ProcessInfo>) -> Report {
    let mut report = Report {
        status: ExitStatus::from_raw(status),
        cause,
        usage: Usage::default(),
        notes: Vec::new(),
        wall: Duration::from_millis(820),
        leftover_count: leftovers.len(),
        leftovers,
        placement: Placement::Born,
        mechanism: Mechanism::Cgroup,
        interrupted: Vec::new(),
        interrupted_count: 0,
        sandbox: None,
    };
    report.usage.oom_kills = Some(status.unsigned_abs().into());
    report.notes = Note::of(&report.usage, Some(cause));
    report
}

/// The quoted text, on one line and on several, its beginning, and a list of its lines.
pub fn quoted(text: &str, most: usize) -> [String; 4] {
    let all: Vec<String> = text.split('\n').map(quote::quoted).collect();
    let listed = quote::enumerated(&all, all.len().saturating_add(most), most);
    [quote::quoted(text), quote::quoted_lines(text), quote::shortened(text, most), listed]
}

/// The lines of a text that is read in these pieces; overlapping ones are for a search.
pub fn lines<'a>(pieces: impl Iterator<Item = &'a [u8]>, overlapping: bool) -> Vec<String> {
    let mut lines = if overlapping { Lines::overlapping() } else { Lines::default() };
    let mut all = Vec::new();
    pieces.for_each(|piece| lines.push(piece, &mut |line| all.push(line.to_owned())));
    lines.finish(&mut |line| all.push(line.to_owned()));
    all
}

/// What is kept of a text that is written in these pieces, its last bytes, and what a reader has
/// that began at `start` after the first piece.
pub fn kept(
    pieces: &[&[u8]],
    (head, tail): (usize, usize),
    start: u64,
) -> (Excerpt, Vec<u8>, Vec<u8>, u64) {
    let mut memory = Memory::new(head, tail);
    let mut tap = 0;
    for (place, piece) in pieces.iter().enumerate() {
        memory.push(piece);
        if place == 0 {
            tap = memory.tap(start);
        }
    }
    (memory.excerpt(), memory.last(tail), memory.tapped(tap), memory.missed(tap))
}
