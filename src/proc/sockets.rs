//! Finds the ports that a tree listens on, and the process that holds a port: sockets are matched
//! with processes by inode.
//!
//! A workload chooses how many sockets there are and how many processes share them: each read here
//! ends at a deadline, and at a number.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use nix::dir::Dir;
use nix::fcntl::{OFlag, readlinkat};
use nix::sys::stat::Mode;

use crate::proc::port::{ListeningPort, Protocol};
use crate::proc::sock_diag::{Diag, Socket, each_socket_seen_by};

/// The time for all that one query reads.
const BUDGET: Duration = Duration::from_secs(1);

/// The most fds of one process that are read.
const FDS: usize = 16 * 1024;

/// The most sockets that are remembered, of all processes.
const HELD: usize = 1 << 20;

/// The most ports that are listed of one process, and of a whole tree.
const PORTS: usize = 64;
const ALL_PORTS: usize = 16 * 1024;

/// Returns when a query that begins now has to end.
pub(crate) fn budget() -> Instant {
    Instant::now() + BUDGET
}

/// Lists the ports of these processes. No table is read where they hold no socket.
pub(crate) fn listening(pids: &[i32]) -> Vec<ListeningPort> {
    let until = budget();
    let Matched { held, known, .. } = matched(pids, until);
    let mut found = Vec::new();
    for (pid, inodes) in &held {
        let room = ALL_PORTS.saturating_sub(found.len());
        found.extend(entries(*pid, inodes, &known).take(room));
    }
    found.sort_by_key(|port| (port.protocol, port.address.port(), port.address, port.pid));
    found
}

/// Lists the ports of each of these processes, and says what was left out.
pub(crate) fn ports_of(pids: &[i32], until: Instant) -> Vec<(Vec<ListeningPort>, Option<String>)> {
    let Matched { held, known, over } = matched(pids, until);
    let each = |pid: &i32| {
        let none = BTreeSet::new();
        let inodes = held.get(pid).unwrap_or(&none);
        let mut ports: Vec<_> = entries(*pid, inodes, &known).collect();
        ports.sort_by_key(|port| (port.protocol, port.address.port(), port.address));
        let cut = match ports.len() {
            number if number > PORTS => Some(format!("cut after {PORTS} of {number}")),
            0 if over => Some("not all were looked for: the time for it was over".to_owned()),
            _ => None,
        };
        ports.truncate(PORTS);
        (ports, cut)
    };
    pids.iter().map(each).collect()
}

/// The sockets that each process holds, and those among them that wait for peers.
struct Matched {
    held: BTreeMap<i32, BTreeSet<u64>>,
    known: BTreeMap<u64, Socket>,
    /// Not all were looked at.
    over: bool,
}

fn matched(pids: &[i32], until: Instant) -> Matched {
    let (mut held, mut number) = (BTreeMap::new(), 0);
    let mut over = false;
    // Half of the time is for the tables: without them inodes say nothing.
    let half = until - until.saturating_duration_since(Instant::now()) / 2;
    for &pid in pids {
        let inodes = sockets_of(pid, half);
        number += inodes.len();
        over = number > HELD || Instant::now() >= half;
        if over {
            break;
        }
        if !inodes.is_empty() {
            held.insert(pid, inodes);
        }
    }
    let wanted: BTreeSet<u64> =
        held.values().flat_map(|inodes: &BTreeSet<u64>| inodes).copied().collect();
    let holders: Vec<i32> = held.keys().copied().collect();
    let mut known = BTreeMap::new();
    for space in Space::of(&holders) {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            space.each_socket(protocol, until, &mut |socket| {
                if wanted.contains(&socket.inode) {
                    known.insert(socket.inode, socket);
                }
            });
        }
    }
    Matched { held, known, over: over || Instant::now() >= until }
}

/// Lists the known sockets among these as ports. The process's name is read once, if there is one.
fn entries<'a>(
    pid: i32,
    inodes: &'a BTreeSet<u64>,
    known: &'a BTreeMap<u64, Socket>,
) -> impl Iterator<Item = ListeningPort> + 'a {
    let mut name = None;
    inodes.iter().filter_map(|inode| known.get(inode)).map(move |socket| ListeningPort {
        protocol: socket.protocol,
        address: socket.address,
        pid: pid.cast_unsigned(),
        name: name.get_or_insert_with(|| comm(pid)).clone(),
    })
}

fn comm(pid: i32) -> String {
    let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    String::from_utf8_lossy(&name).trim_end_matches('\n').to_owned()
}

/// A network namespace, and the way to list its sockets.
#[derive(Debug)]
pub(crate) enum Space {
    /// This process's.
    Own(Diag),
    /// Another one, or this process's where netlink is refused: through a process in it.
    Of(i32),
}

impl Space {
    /// Lists the namespaces that these processes are in. A process whose namespace may not be seen
    /// is taken to be in this process's.
    pub(crate) fn of(pids: &[i32]) -> Vec<Self> {
        if pids.is_empty() {
            return Vec::new();
        }
        let until = budget();
        let own = namespace("self");
        let mut inside = BTreeMap::new();
        for pid in pids.iter().take_while(|_| Instant::now() < until) {
            inside.entry(namespace(&pid.to_string()).or(own)).or_insert(*pid);
        }
        let space = |(id, pid)| match Diag::open() {
            Ok(diag) if id == own => Self::Own(diag),
            _ => Self::Of(pid),
        };
        inside.into_iter().map(space).collect()
    }

    /// The pid of a process in it, for paths below `/proc`.
    pub(crate) fn witness(&self) -> String {
        match self {
            Self::Own(_) => "self".to_owned(),
            Self::Of(pid) => pid.to_string(),
        }
    }

    /// Sees its sockets that wait for peers, as many as can be read until then.
    pub(crate) fn each_socket(
        &self,
        protocol: Protocol,
        until: Instant,
        see: &mut dyn FnMut(Socket),
    ) {
        match self {
            Self::Own(diag) => {
                if diag.each_socket(protocol, until, see).is_err() {
                    let me = std::process::id().cast_signed();
                    each_socket_seen_by(me, protocol, until, see);
                }
            }
            Self::Of(pid) => each_socket_seen_by(*pid, protocol, until, see),
        }
    }
}

fn namespace(pid: &str) -> Option<u64> {
    fs::metadata(format!("/proc/{pid}/ns/net")).ok().map(|meta| meta.ino())
}

/// Lists the inodes of the sockets that a process holds. A process whose main thread has exited
/// shows its fds through another thread only.
pub(crate) fn sockets_of(pid: i32, until: Instant) -> BTreeSet<u64> {
    let inodes = sockets_in(&format!("/proc/{pid}/fd"), until);
    if !inodes.is_empty() {
        return inodes;
    }
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let others = threads.filter_map(|thread| thread.file_name().to_str()?.parse::<i32>().ok());
    // All threads share one table of fds, but for those that have unshared theirs.
    let mut others = others.filter(|thread| *thread != pid).take(FDS);
    let mut paths = std::iter::from_fn(|| (Instant::now() < until).then(|| others.next())?);
    let found = paths.find_map(|thread| {
        let inodes = sockets_in(&format!("/proc/{pid}/task/{thread}/fd"), until);
        (!inodes.is_empty()).then_some(inodes)
    });
    found.unwrap_or_default()
}

/// Lists the inodes of links such as `socket:[4711]`.
fn sockets_in(path: &str, until: Instant) -> BTreeSet<u64> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let Ok(mut dir) = Dir::open(path, flags, Mode::empty()) else { return BTreeSet::new() };
    // `dir` reads the list of names, so the links are read through an fd of their own.
    let Ok(links) = File::open(path) else { return BTreeSet::new() };
    let fds = dir.iter().map_while(Result::ok).take(FDS);
    let fds = fds.take_while(|_| Instant::now() < until);
    let targets = fds.filter_map(|fd| readlinkat(&links, fd.file_name()).ok());
    targets.filter_map(|target| inode(target.as_bytes())).collect()
}

/// 4711 of `socket:[4711]`.
pub(crate) fn inode(target: &[u8]) -> Option<u64> {
    let number = target.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(number).ok()?.parse().ok()
}

/// Finds the first of these processes that holds one of these sockets.
pub(crate) fn owner_among(pids: &[i32], inodes: &[u64], until: Instant) -> Option<i32> {
    let holds = |pid: &i32| {
        let held = sockets_of(*pid, until);
        inodes.iter().any(|inode| held.contains(inode))
    };
    pids.iter().copied().take_while(|_| Instant::now() < until).find(holds)
}

/// Finds a process that holds one of these sockets, among all that this process can see.
pub(crate) fn holder(inodes: &[u64], until: Instant) -> Option<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let pids: Vec<i32> = pids.collect();
    owner_among(&pids, inodes, until)
}
