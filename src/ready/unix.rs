//! Finds a Unix socket that listens, and whether a process of the tree holds it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::child::Child;
use crate::proc::aside::Aside;
use crate::proc::sockets::{Space, owner_among};
use crate::ready::condition::Found;
use crate::ready::tcp::{Spaces, taken};

/// Bytes that are read of the table of all Unix sockets.
const TABLE: u64 = 64 << 20;

/// The most listeners of the right name that one check considers.
const LISTENERS: usize = 1024;

/// How long the look-up of a path may take before the check goes on without it.
pub(crate) const LOOKUP_WITHIN: Duration = Duration::from_millis(100);

/// A Unix socket that listens: found by its path in the table, then by inode among the tree's fds.
/// A thread of its own looks paths up: the child's directory may be on a file system that hangs.
pub(crate) struct Unix {
    path: PathBuf,
    strikes: u32,
    spaces: Spaces,
    exists: Aside<bool>,
    same: Aside<bool>,
}

impl Unix {
    pub(crate) fn new(path: PathBuf) -> Self {
        let (exists, same) = (Aside::new(), Aside::new());
        Self { path, strikes: 0, spaces: Spaces::default(), exists, same }
    }

    pub(crate) fn look(&mut self, child: &Child, until: Instant) -> Found {
        let path = self.path.clone();
        let is_abstract = path.as_os_str().as_encoded_bytes().starts_with(b"@");
        if !is_abstract {
            let asked = path.clone();
            match self.exists.ask(LOOKUP_WITHIN, move || asked.exists()) {
                Some(true) => {}
                Some(false) => return Found::NotYet(None),
                None => return Found::NotYet(Some("looking at the path blocks".to_owned())),
            }
        }
        let listeners = listeners(self.spaces.of(child), &path, until);
        if listeners.is_empty() {
            return Found::NotYet(None);
        }
        let pids = child.tree().pids();
        for (inode, name) in &listeners {
            if let Some(owner) = owner_among(&pids, &[*inode], until)
                && (*name == path || self.is_same(owner, name))
            {
                return Found::It;
            }
        }
        let here = listeners.iter().filter(|(_, name)| *name == path);
        let inodes: Vec<u64> = here.map(|(inode, _)| *inode).collect();
        if inodes.is_empty() || Instant::now() >= until {
            return Found::NotYet(None);
        }
        taken(child, &inodes, until, &mut self.strikes)
    }

    /// Whether a socket that this process has bound by a relative name is at this path.
    fn is_same(&mut self, owner: i32, name: &Path) -> bool {
        let (name, path) = (name.to_owned(), self.path.clone());
        let asked = move || same(format!("/proc/{owner}/cwd").as_ref(), &name, &path);
        self.same.ask(LOOKUP_WITHIN, asked).unwrap_or(false)
    }
}

/// Lists the sockets that accept connections and may be bound to this path.
fn listeners(spaces: &[Space], path: &Path, until: Instant) -> Vec<(u64, PathBuf)> {
    let mut found = Vec::new();
    for space in spaces {
        let table = File::open(format!("/proc/{}/net/unix", space.witness()));
        let lines = table.map(|table| BufReader::new(table.take(TABLE)).split(b'\n'));
        let lines = lines.into_iter().flatten().map_while(Result::ok);
        for line in lines.take_while(|_| Instant::now() < until) {
            let listener = unix_listener(&line).filter(|(_, name)| {
                name.file_name() == path.file_name() && (name.is_relative() || *name == path)
            });
            if let Some((inode, name)) = listener.filter(|_| found.len() < LISTENERS) {
                found.push((inode, name.to_owned()));
            }
        }
    }
    found
}

/// Parses `Num RefCount Protocol Flags Type St Inode Path` of a socket that accepts connections.
/// The inode is padded with spaces; the path may have some.
pub(crate) fn unix_listener(line: &[u8]) -> Option<(u64, &Path)> {
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

/// Whether a relative name that was bound in this directory is this path.
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
