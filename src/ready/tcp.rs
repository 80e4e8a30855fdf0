//! Finds a TCP port: which sockets listen on it, and whether a process of the tree holds one.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::child::Child;
use crate::proc::debugger;
use crate::proc::port::Protocol;
use crate::proc::sock_diag::Socket;
use crate::proc::sockets::{Space, holder, sockets_of};
use crate::proc::survey;
use crate::ready::condition::Found;
use crate::ready::url::Host;

/// The most listeners that one check considers.
const LISTENERS: usize = 16 * 1024;

/// The network namespaces of a tree, listed anew every 250 ms, and less often where that is dear (a
/// link is read for each process): a process may move to another one.
#[derive(Default)]
pub(crate) struct Spaces {
    known: Vec<Space>,
    due: Option<Instant>,
}

/// Time between two lists: 250 ms, and 300 times what the last one took.
fn list_interval(took: Duration) -> Duration {
    Duration::from_millis(250).max(took * 300)
}

impl Spaces {
    pub(crate) fn of(&mut self, child: &Child) -> &[Space] {
        let began = Instant::now();
        if self.due.is_none_or(|due| began >= due) {
            self.known = Space::of(&child.tree().pids());
            self.due = Some(Instant::now() + list_interval(began.elapsed()));
        }
        &self.known
    }
}

/// A TCP port. The table of listeners is cheap to read, the fds of processes are not: they are read
/// only when the port is in the table (or, for any port, when a new listener is).
#[derive(Default)]
pub(crate) struct Tcp {
    port: Option<u16>,
    at: Host,
    spaces: Spaces,
    /// Listeners that no process of the tree was seen to hold.
    others: BTreeSet<u64>,
    looks: u32,
    /// The port of a debugger, which is not any port.
    debugger: Option<SocketAddr>,
    strikes: u32,
}

impl Tcp {
    pub(crate) fn new(port: Option<u16>, at: Host) -> Self {
        Self { port, at, ..Self::default() }
    }

    /// What was seen that does not count, for the error.
    pub(crate) fn seen(&self) -> Option<String> {
        let is_one = "a debugger's, which does not count unless it is named";
        self.debugger.map(|debugger| format!("port {} is {is_one}", debugger.port()))
    }

    /// Finds the address at which a process of the tree is reached.
    pub(crate) fn look(&mut self, child: &Child, until: Instant) -> Result<SocketAddr, Found> {
        let (port, at) = (self.port, self.at);
        let mut there: Vec<Socket> = Vec::new();
        for space in self.spaces.of(child) {
            space.each_socket(Protocol::Tcp, until, &mut |socket| {
                let meant = port.is_none_or(|port| socket.address.port() == port);
                if there.len() < LISTENERS && meant && at.reach(&socket).is_some() {
                    there.push(socket);
                }
            });
        }
        // A listener that was there before may have been handed over since: every 25th check looks.
        self.looks = self.looks.wrapping_add(1);
        let all_known = there.iter().all(|socket| self.others.contains(&socket.inode));
        if there.is_empty() || (port.is_none() && all_known && !self.looks.is_multiple_of(25)) {
            return Err(Found::NotYet(None));
        }
        let inodes: BTreeSet<u64> = there.iter().map(|socket| socket.inode).collect();
        for pid in child.tree().pids().into_iter().take_while(|_| Instant::now() < until) {
            let held = sockets_of(pid, until);
            let own = there.iter().filter(|socket| held.contains(&socket.inode));
            if let Some(socket) = self.chosen(pid, own) {
                return at.reach(&socket).ok_or(Found::NotYet(None));
            }
        }
        self.others = inodes;
        if port.is_none() || Instant::now() >= until {
            return Err(Found::NotYet(None));
        }
        let inodes: Vec<u64> = self.others.iter().copied().collect();
        Err(taken(child, &inodes, until, &mut self.strikes))
    }

    /// The first of these sockets of one process; for any port a debugger's does not count.
    fn chosen<'s>(&mut self, pid: i32, own: impl Iterator<Item = &'s Socket>) -> Option<Socket> {
        let own: Vec<Socket> = own.copied().collect();
        if self.port.is_some() {
            return own.first().copied();
        }
        let held: Vec<_> = own.iter().map(|socket| (pid, socket.address)).collect();
        let debuggers = debugger::among(&held);
        self.debugger = debuggers.first().map(|(_, address)| *address).or(self.debugger);
        own.into_iter().find(|socket| !debuggers.contains(&(pid, socket.address)))
    }
}

/// Finds the process that holds one of these sockets, where none of the tree was seen to. A process
/// just born into the tree, or on its way into another network namespace, may be missed once: so a
/// process outside must be seen twice.
pub(crate) fn taken(child: &Child, inodes: &[u64], until: Instant, strikes: &mut u32) -> Found {
    let Some(holder) = holder(inodes, until) else {
        let unseen = "a process that cannot be seen from here has it";
        return Found::NotYet(Some(unseen.to_owned()));
    };
    if child.tree().pids().contains(&holder) {
        return Found::NotYet(None);
    }
    *strikes += 1;
    let known = || survey::of(&[holder]).named.pop();
    match (*strikes >= 2).then(known).flatten() {
        Some(holder) => Found::Taken(Box::new(holder)),
        None => Found::NotYet(None),
    }
}
