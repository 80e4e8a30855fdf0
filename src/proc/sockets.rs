//! Which ports a tree listens on, and who holds a port: sockets matched with processes by inode.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use crate::proc::info::ProcessInfo;
use crate::proc::port::{ListeningPort, Protocol};
use crate::proc::read;
use crate::proc::sock_diag::{Diag, Socket, sockets_seen_by};

/// What these processes listen on. No table is read where they hold no socket.
pub(crate) fn listening(pids: &[i32]) -> Vec<ListeningPort> {
    let held = pids.iter().map(|&pid| (pid, sockets_of(pid))).filter(|(_, s)| !s.is_empty());
    let held: Vec<(i32, BTreeSet<u64>)> = held.collect();
    let holders: Vec<i32> = held.iter().map(|(pid, _)| *pid).collect();
    let mut found = Vec::new();
    for space in Space::of(&holders) {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for socket in space.sockets(protocol) {
                let owners = held.iter().filter(|(_, inodes)| inodes.contains(&socket.inode));
                found.extend(owners.map(|(pid, _)| entry(*pid, &socket)));
            }
        }
    }
    found.sort_by_key(|port| (port.protocol, port.address.port(), port.address, port.pid));
    found
}

fn entry(pid: i32, socket: &Socket) -> ListeningPort {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    ListeningPort {
        protocol: socket.protocol,
        address: socket.address,
        pid: pid.cast_unsigned(),
        name: name.trim_end().to_owned(),
    }
}

/// A network namespace: how to ask for its sockets.
#[derive(Debug)]
pub(crate) enum Space {
    /// Ours.
    Own(Diag),
    /// Another one, or ours where netlink is refused: through a process in it.
    Of(i32),
}

impl Space {
    /// The namespaces that these processes are in. Who does not let us see its namespace is taken
    /// to be in ours.
    pub(crate) fn of(pids: &[i32]) -> Vec<Self> {
        if pids.is_empty() {
            return Vec::new();
        }
        let own = namespace("self");
        let mut inside = BTreeMap::new();
        for pid in pids {
            inside.entry(namespace(&pid.to_string()).or(own)).or_insert(*pid);
        }
        let space = |(id, pid)| match Diag::open() {
            Ok(diag) if id == own => Self::Own(diag),
            _ => Self::Of(pid),
        };
        inside.into_iter().map(space).collect()
    }

    /// The number of a process in it, for paths below `/proc`.
    pub(crate) fn witness(&self) -> String {
        match self {
            Self::Own(_) => "self".to_owned(),
            Self::Of(pid) => pid.to_string(),
        }
    }

    pub(crate) fn sockets(&self, protocol: Protocol) -> Vec<Socket> {
        match self {
            Self::Own(diag) => {
                let me = || sockets_seen_by(std::process::id().cast_signed(), protocol);
                diag.sockets(protocol).unwrap_or_else(|_| me())
            }
            Self::Of(pid) => sockets_seen_by(*pid, protocol),
        }
    }
}

fn namespace(pid: &str) -> Option<u64> {
    fs::metadata(format!("/proc/{pid}/ns/net")).ok().map(|meta| meta.ino())
}

/// The inodes of the sockets that a process holds. One whose main thread has exited shows its fds
/// through another thread only.
pub(crate) fn sockets_of(pid: i32) -> BTreeSet<u64> {
    let inodes = sockets_in(&format!("/proc/{pid}/fd"));
    if !inodes.is_empty() {
        return inodes;
    }
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let others = threads.map(|thread| thread.file_name());
    let others = others.filter(|name| *name != *pid.to_string());
    let paths = others.map(|name| format!("/proc/{pid}/task/{}/fd", name.display()));
    paths.flat_map(|path| sockets_in(&path)).collect()
}

/// Links such as `socket:[4711]`.
fn sockets_in(dir: &str) -> BTreeSet<u64> {
    let fds = fs::read_dir(dir).into_iter().flatten().flatten();
    let inode = |target: &[u8]| {
        let number = target.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
        std::str::from_utf8(number).ok()?.parse().ok()
    };
    let targets = fds.filter_map(|fd| fs::read_link(fd.path()).ok());
    targets.filter_map(|target| inode(target.as_os_str().as_bytes())).collect()
}

/// The first of these processes that holds one of these sockets.
pub(crate) fn owner_among(pids: &[i32], inodes: &[u64]) -> Option<i32> {
    let holds = |pid: &i32| {
        let held = sockets_of(*pid);
        inodes.iter().any(|inode| held.contains(inode))
    };
    pids.iter().copied().find(holds)
}

/// Who holds one of these sockets, of all processes that can be seen from here.
pub(crate) fn holder(inodes: &[u64]) -> Option<ProcessInfo> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let pids: Vec<i32> = pids.collect();
    let owner = owner_among(&pids, inodes)?;
    read::read_all(&[owner], true).pop()
}

/// Adds the ports that they listen on.
pub(crate) fn find_ports(all: &mut [ProcessInfo]) {
    let pids: Vec<i32> = all.iter().map(|process| process.pid.cast_signed()).collect();
    for port in listening(&pids) {
        if let Some(holder) = all.iter_mut().find(|process| process.pid == port.pid) {
            holder.ports.push(port);
        }
    }
}
