//! One look at what a child has done, for each thing that can be waited for.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use crate::child::Child;
use crate::error::{Error, Result, Step};
use crate::log::Watch;
use crate::log::excerpt::Lines;
use crate::proc::port::Protocol;
use crate::proc::sock_diag::Socket;
use crate::proc::sockets::{Space, holder, owner_among, sockets_of};
use crate::ready::condition::{Found, Kind, Question, Url};

/// A server that said no is not asked more often: it may write a line for each request.
const AGAIN: Duration = Duration::from_millis(20);

/// What is looked for, and what is remembered from one look to the next.
pub(crate) struct Look<'a> {
    child: &'a Child,
    goal: Goal<'a>,
}

enum Goal<'a> {
    Tcp(Tcp<'a>),
    Http { tcp: Tcp<'a>, url: Url, again: Option<Instant>, seen: Option<String> },
    Unix { path: PathBuf, strikes: u32, spaces: Spaces },
    File { path: PathBuf, spawned: SystemTime },
    Line { watch: Watch<'a>, lines: Lines, matches: Box<dyn FnMut(&str) -> bool + Send + 'a> },
    When(Box<dyn FnMut() -> bool + Send + 'a>),
}

impl<'a> Look<'a> {
    pub(crate) fn new(child: &'a Child, kind: Kind<'a>, what: &str) -> Result<Self> {
        let goal = match kind {
            Kind::Tcp(port) => Goal::Tcp(Tcp::new(child, port)),
            Kind::Http(url) => {
                let tcp = Tcp::new(child, Some(url.port));
                Goal::Http { tcp, url, again: None, seen: None }
            }
            Kind::Unix(path) => Goal::Unix { path, strikes: 0, spaces: Spaces::default() },
            Kind::File(path) => {
                // The kernel's clock for files ticks every 10 ms at the coarsest.
                let age = child.spawned().elapsed() + Duration::from_millis(10);
                let spawned = SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
                Goal::File { path, spawned }
            }
            Kind::Line(matches) => {
                let none = "the command was given no log to look at (Command::log)";
                let no_log = || Error::invalid(Step::Ready, what, none);
                let log = child.log.log.as_ref().ok_or_else(no_log)?;
                let (watch, lines) = (log.watch(child.log.start), Lines::default());
                Goal::Line { watch, lines, matches }
            }
            Kind::When(condition) => Goal::When(condition),
        };
        Ok(Self { child, goal })
    }

    pub(crate) fn look(&mut self) -> Found {
        match &mut self.goal {
            Goal::Tcp(tcp) => match tcp.look() {
                Ok(_) => Found::It,
                Err(found) => found,
            },
            Goal::Http { seen, again: Some(again), .. } if Instant::now() < *again => {
                Found::NotYet(seen.clone())
            }
            Goal::Http { tcp, url, again, .. } => match tcp.look() {
                Ok(address) => {
                    *again = Some(Instant::now() + AGAIN);
                    Found::Ask(Question { address: reachable(address), url: url.clone() })
                }
                Err(found) => found,
            },
            Goal::Unix { path, strikes, spaces } => {
                unix(self.child, path, spaces.of(self.child), strikes)
            }
            Goal::File { path, spawned } => {
                let change = fs::metadata(path).ok().and_then(|meta| changed(&meta));
                found(change.is_some_and(|change| change >= *spawned))
            }
            Goal::Line { watch, lines, matches } => {
                let mut hit = false;
                let mut each = |line: &str| hit = hit || matches(line);
                let fresh = watch.fresh();
                if !fresh.is_empty() {
                    lines.push(&fresh, &mut each);
                    if !lines.partial.is_empty() {
                        each(&String::from_utf8_lossy(&lines.partial));
                    }
                }
                found(hit)
            }
            Goal::When(condition) => found(condition()),
        }
    }

    /// Remembers what the server has answered, for the looks between two questions.
    pub(crate) fn heard(&mut self, answer: &Found) {
        if let (Goal::Http { seen, .. }, Found::NotYet(now @ Some(_))) = (&mut self.goal, answer) {
            seen.clone_from(now);
        }
    }
}

fn found(it: bool) -> Found {
    if it { Found::It } else { Found::NotYet(None) }
}

/// When a file's content, mode, name or links changed last.
fn changed(meta: &fs::Metadata) -> Option<SystemTime> {
    let seconds = Duration::from_secs(u64::try_from(meta.ctime()).ok()?);
    let nanos = Duration::from_nanos(u64::try_from(meta.ctime_nsec()).ok()?);
    SystemTime::UNIX_EPOCH.checked_add(seconds + nanos)
}

/// Where a client on this machine finds a server that listens on all addresses.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

/// The network namespaces of a tree, asked for now and then: a process may move to another one.
#[derive(Default)]
struct Spaces {
    known: Vec<Space>,
    asked: Option<Instant>,
}

impl Spaces {
    fn of(&mut self, child: &Child) -> &[Space] {
        if self.asked.is_none_or(|asked| asked.elapsed() >= Duration::from_millis(250)) {
            self.known = Space::of(&child.tree().pids());
            self.asked = Some(Instant::now());
        }
        &self.known
    }
}

/// A TCP port: the table of listeners is cheap to read, who holds one is not. So processes are
/// looked at only when the port is in the table (or, for any port, when a new listener is).
struct Tcp<'a> {
    child: &'a Child,
    port: Option<u16>,
    spaces: Spaces,
    /// Listeners that are not ours, as far as was looked.
    others: BTreeSet<u64>,
    looks: u32,
    strikes: u32,
}

impl<'a> Tcp<'a> {
    fn new(child: &'a Child, port: Option<u16>) -> Self {
        let (spaces, others) = (Spaces::default(), BTreeSet::new());
        Self { child, port, spaces, others, looks: 0, strikes: 0 }
    }

    /// The address that a process of the tree listens on.
    fn look(&mut self) -> Result<SocketAddr, Found> {
        let port = self.port;
        let wanted = |socket: &Socket| port.is_none_or(|port| socket.address.port() == port);
        let spaces = self.spaces.of(self.child).iter();
        let sockets = spaces.flat_map(|space| space.sockets(Protocol::Tcp));
        let there: Vec<Socket> = sockets.filter(wanted).collect();
        // A listener that was there before may have been handed over since: look again at times.
        self.looks += 1;
        let all_known = there.iter().all(|socket| self.others.contains(&socket.inode));
        if there.is_empty() || (port.is_none() && all_known && !self.looks.is_multiple_of(25)) {
            return Err(Found::NotYet(None));
        }
        let pids = self.child.tree().pids();
        let held: BTreeSet<u64> = pids.iter().flat_map(|&pid| sockets_of(pid)).collect();
        if let Some(socket) = there.iter().find(|socket| held.contains(&socket.inode)) {
            return Ok(socket.address);
        }
        self.others = there.iter().map(|socket| socket.inode).collect();
        if port.is_none() {
            return Err(Found::NotYet(None));
        }
        let inodes: Vec<u64> = self.others.iter().copied().collect();
        Err(taken(self.child, &inodes, &mut self.strikes))
    }
}

/// Nobody of the tree was seen to hold these sockets. Who does? A process that was just born into
/// the tree, or one that is on its way into another network namespace, is no stranger: so a
/// stranger must be seen twice.
fn taken(child: &Child, inodes: &[u64], strikes: &mut u32) -> Found {
    let Some(holder) = holder(inodes) else {
        let unseen = "a process that cannot be seen from here has it";
        return Found::NotYet(Some(unseen.to_owned()));
    };
    let pids = child.tree().pids();
    if pids.contains(&holder.pid.cast_signed()) {
        return Found::NotYet(None);
    }
    *strikes += 1;
    if *strikes < 2 { Found::NotYet(None) } else { Found::Taken(Box::new(holder)) }
}

/// A Unix socket that listens: found by its path in the table, then by inode among the tree's fds.
fn unix(child: &Child, path: &Path, spaces: &[Space], strikes: &mut u32) -> Found {
    let is_abstract = path.as_os_str().as_encoded_bytes().starts_with(b"@");
    if !is_abstract && !path.exists() {
        return Found::NotYet(None);
    }
    let table = |space: &Space| fs::read(format!("/proc/{}/net/unix", space.witness()));
    let tables: Vec<Vec<u8>> = spaces.iter().filter_map(|space| table(space).ok()).collect();
    let lines = tables.iter().flat_map(|table| table.split(|&byte| byte == b'\n'));
    let listeners = lines.filter_map(unix_listener).filter(|(_, name)| {
        name.file_name() == path.file_name() && (name.is_relative() || *name == path)
    });
    let listeners: Vec<(u64, &Path)> = listeners.collect();
    if listeners.is_empty() {
        return Found::NotYet(None);
    }
    let pids = child.tree().pids();
    for (inode, name) in &listeners {
        if let Some(owner) = owner_among(&pids, &[*inode])
            && (*name == path || same(format!("/proc/{owner}/cwd").as_ref(), name, path))
        {
            return Found::It;
        }
    }
    let here = listeners.iter().filter(|(_, name)| *name == path);
    let inodes: Vec<u64> = here.map(|(inode, _)| *inode).collect();
    if inodes.is_empty() { Found::NotYet(None) } else { taken(child, &inodes, strikes) }
}

/// `Num RefCount Protocol Flags Type St Inode Path`, for a socket that accepts connections. The
/// inode is padded with spaces; the path may have some.
fn unix_listener(line: &[u8]) -> Option<(u64, &Path)> {
    const ACCEPTS: u32 = 0x10000;
    let mut rest = line;
    let mut fields = [""; 7];
    for field in &mut fields {
        let start = rest.iter().position(|&byte| byte != b' ')?;
        rest = rest.get(start..)?;
        let end = rest.iter().position(|&byte| byte == b' ')?;
        *field = std::str::from_utf8(rest.get(..end)?).ok()?;
        rest = rest.get(end..)?;
    }
    let [_, _, _, flags, _, _, inode] = fields;
    let accepts = u32::from_str_radix(flags, 16).ok()? & ACCEPTS != 0;
    let path = rest.get(1..).filter(|path| !path.is_empty())?;
    Some((inode.parse().ok()?, Path::new(OsStr::from_bytes(path)))).filter(|_| accepts)
}

/// Whether a name that was bound in this directory is this path.
fn same(cwd: &Path, name: &Path, path: &Path) -> bool {
    let bound = cwd.join(name);
    let real = |path: &Path| fs::canonicalize(path.parent()?).ok();
    real(&bound).is_some_and(|dir| Some(dir) == real(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unix_sockets_that_accept_have_a_path() {
        let line = b"0000000000000000: 00000002 00000000 00010000 0001 01 20812 /run/a b.sock";
        assert_eq!(unix_listener(line), Some((20812, Path::new("/run/a b.sock"))));
        let short = b"0000000000000000: 00000002 00000000 00010000 0001 01    12 @x";
        assert_eq!(unix_listener(short), Some((12, Path::new("@x"))));
        for other in [
            &b"Num       RefCount Protocol Flags    Type St Inode Path"[..],
            b"0000000000000000: 00000002 00000000 00010000 0001 01 20812",
            b"0000000000000000: 00000003 00000000 00000000 0001 03 20812 /run/a",
            b"",
        ] {
            assert_eq!(unix_listener(other), None);
        }
    }
}
