//! Goes through a layer, and says or does what differs from the host's directory.
//!
//! What overlayfs leaves there: a file stands for itself; a whiteout for a name that is gone; a
//! directory adds to the host's of that name, or covers it where it is opaque. A directory is never
//! renamed by reference (`userxattr` turns redirects off): programs copy it.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, readlinkat};
use nix::sys::stat::{FileStat, Mode};

use crate::changes::{Change, ChangeKind, ChangeList, Layers};
use crate::overlay::attributes;
use crate::overlay::files::{
    Kind, Opened, PERMISSIONS, beneath, look, names, open_dir, same_contents,
};
use crate::overlay::write;

/// Levels of directories, at the most: each holds two fds and a part of the stack.
const MOST_DEPTH: usize = 128;
const MOST: usize = 10_000;
const MOST_BYTES: usize = 4 << 20;

/// What failed, and where.
pub(super) struct Fault {
    pub(super) path: PathBuf,
    pub(super) errno: Errno,
}

type Done<T = ()> = Result<T, Fault>;

pub(super) struct Walk<'a> {
    layers: &'a Layers,
    /// Does it, and does not only say it.
    writes: bool,
    pub(super) found: ChangeList,
    bytes: usize,
    /// The first path of each file that has several.
    links: HashMap<libc::ino_t, PathBuf>,
}

/// One directory, on both sides.
struct Level<'a> {
    upper: BorrowedFd<'a>,
    host: Option<BorrowedFd<'a>>,
    path: &'a Path,
    /// Nothing of the host's is seen here.
    opaque: bool,
    depth: usize,
}

/// A name in it.
struct Entry<'a> {
    level: &'a Level<'a>,
    name: &'a OsStr,
    path: PathBuf,
    now: FileStat,
    old: Option<FileStat>,
}

impl Entry<'_> {
    fn kind(&self) -> ChangeKind {
        if self.old.is_some() { ChangeKind::Changed } else { ChangeKind::Added }
    }

    fn fault(&self, errno: Errno) -> Fault {
        Fault { path: self.path.clone(), errno }
    }

    /// What the host has there, if it is of this kind.
    fn old(&self, kind: Kind) -> Option<&FileStat> {
        self.old.as_ref().filter(|old| Kind::of(old) == kind)
    }

    /// Where a commit writes.
    fn place(&self) -> Option<write::Place<'_>> {
        let host = self.level.host?;
        Some(write::Place { host, name: self.name, old: self.old.as_ref() })
    }

    fn has_same_permissions(&self, old: &FileStat) -> bool {
        (old.st_mode ^ self.now.st_mode) & PERMISSIONS == 0
    }
}

impl<'a> Walk<'a> {
    pub(super) fn new(layers: &'a Layers, writes: bool) -> Self {
        Self { layers, writes, found: ChangeList::default(), bytes: 0, links: HashMap::new() }
    }

    pub(super) fn all(&mut self) -> Done {
        let (upper, host) = (self.layers.upper.as_fd(), Some(self.layers.host.as_fd()));
        let root = Level { upper, host, path: Path::new(""), opaque: false, depth: 0 };
        self.level(&root)
    }

    fn level(&mut self, level: &Level<'_>) -> Done {
        let fault = |errno| Fault { path: level.path.to_owned(), errno };
        let upper = names(level.upper).map_err(fault)?;
        if let Some(host) = level.host.filter(|_| level.opaque) {
            for name in names(host).map_err(fault)? {
                if upper.binary_search(&name).is_err() {
                    self.removed(level, &name)?;
                }
            }
        }
        upper.iter().try_for_each(|name| self.entry(level, name))
    }

    fn entry(&mut self, level: &Level<'_>, name: &OsString) -> Done {
        let path = level.path.join(name);
        let both = look(level.upper, name).and_then(|now| {
            let old = level.host.map_or(Ok(None), |host| look(host, name))?;
            Ok((now.ok_or(Errno::ESTALE)?, old))
        });
        let (now, old) = match both {
            Ok(both) => both,
            Err(errno) => return Err(Fault { path, errno }),
        };
        let entry = Entry { level, name, path, now, old };
        match Kind::of(&now) {
            Kind::Whiteout if old.is_some() => self.removed(level, name),
            Kind::Whiteout => Ok(()),
            Kind::Dir if level.depth < MOST_DEPTH => self.dir(&entry),
            Kind::File => self.file(&entry),
            Kind::Link => self.link(&entry),
            Kind::Dir | Kind::Other => {
                self.note(&entry, ChangeKind::Skipped);
                Ok(())
            }
        }
    }

    fn removed(&mut self, level: &Level<'_>, name: &OsStr) -> Done {
        let path = level.path.join(name);
        let fault = |errno| Fault { path: path.clone(), errno };
        let Some(host) = level.host else { return Ok(()) };
        let Some(old) = look(host, name).map_err(fault)? else { return Ok(()) };
        if self.writes {
            write::clear(host, name).map_err(fault)?;
        }
        self.add(path, ChangeKind::Removed, &old);
        Ok(())
    }

    fn dir(&mut self, entry: &Entry<'_>) -> Done {
        let fault = |errno| entry.fault(errno);
        let was = entry.old(Kind::Dir);
        let mut differs = !was.is_some_and(|was| entry.has_same_permissions(was));
        let upper = Opened::upper(
            entry.level.upper,
            entry.name,
            &entry.now,
            OFlag::O_RDONLY | OFlag::O_DIRECTORY,
        );
        let upper = upper.map_err(fault)?;
        let host = self.host_dir(entry, was.is_some()).map_err(fault)?;
        if let Some(host) = host.as_ref().filter(|_| !differs) {
            // What cannot be read, there is too much of: a commit says so.
            differs = !attributes::are_same(&upper.fd, host).unwrap_or(false);
        }
        if let Some(host) = host.as_ref().filter(|_| self.writes && differs) {
            // Something may have to be made in it.
            write::permit(host, &entry.now, Mode::S_IRWXU).map_err(fault)?;
        }
        if differs {
            self.note(entry, entry.kind());
        }
        let opaque = entry.level.opaque || was.is_none() || upper.is_opaque();
        self.level(&Level {
            upper: upper.fd.as_fd(),
            host: host.as_ref().map(AsFd::as_fd),
            path: &entry.path,
            opaque,
            depth: entry.level.depth + 1,
        })?;
        match host.filter(|_| self.writes && differs) {
            // Last: it may be one that nothing can be made in.
            Some(host) => attributes::copy(&upper.fd, &host)
                .and_then(|()| write::permit(&host, &entry.now, Mode::empty()))
                .map_err(fault),
            None => Ok(()),
        }
    }

    /// The host's directory of that name; a commit makes it.
    fn host_dir(&self, entry: &Entry<'_>, is_there: bool) -> Result<Option<OwnedFd>, Errno> {
        match entry.place() {
            Some(place) if is_there => open_dir(place.host, place.name).map(Some),
            Some(place) if self.writes => write::dir(&place).map(Some),
            _ => Ok(None),
        }
    }

    fn file(&mut self, entry: &Entry<'_>) -> Done {
        let first = match entry.now.st_nlink > 1 {
            true => self.links.get(&entry.now.st_ino).cloned(),
            false => None,
        };
        if entry.now.st_nlink > 1 && first.is_none() {
            self.links.insert(entry.now.st_ino, entry.path.clone());
        }
        if is_same_file(entry) {
            return Ok(());
        }
        if let Some(place) = entry.place().filter(|_| self.writes) {
            let done = match first {
                Some(first) => place.link_to(self.layers.host.as_fd(), &first),
                None => Opened::upper(entry.level.upper, entry.name, &entry.now, OFlag::O_RDONLY)
                    .and_then(|from| place.write(from, &entry.now)),
            };
            done.map_err(|errno| entry.fault(errno))?;
        }
        self.note(entry, entry.kind());
        Ok(())
    }

    fn link(&mut self, entry: &Entry<'_>) -> Done {
        let fault = |errno| entry.fault(errno);
        let target = readlinkat(entry.level.upper, entry.name).map_err(fault)?;
        let old = entry.level.host.filter(|_| entry.old(Kind::Link).is_some());
        if old.and_then(|host| readlinkat(host, entry.name).ok()).is_some_and(|old| old == target) {
            return Ok(());
        }
        if let Some(place) = entry.place().filter(|_| self.writes) {
            place.symlink(&target).map_err(fault)?;
        }
        self.note(entry, entry.kind());
        Ok(())
    }

    fn note(&mut self, entry: &Entry<'_>, kind: ChangeKind) {
        self.add(entry.path.clone(), kind, &entry.now);
    }

    fn add(&mut self, path: PathBuf, kind: ChangeKind, stat: &FileStat) {
        self.found.count += 1;
        self.found.skipped += usize::from(kind == ChangeKind::Skipped);
        self.bytes = self.bytes.saturating_add(path.as_os_str().len());
        if self.found.changes.len() < MOST && self.bytes <= MOST_BYTES {
            let is_dir = Kind::of(stat) == Kind::Dir;
            let size = if is_dir { 0 } else { u64::try_from(stat.st_size).unwrap_or(0) };
            self.found.changes.push(Change { path, kind, is_dir, size });
        }
    }
}

/// Whether nothing differs: a file comes into the layer when it is opened to be written already.
fn is_same_file(entry: &Entry<'_>) -> bool {
    let (now, level) = (&entry.now, entry.level);
    let Some((old, host)) = entry.old(Kind::File).zip(level.host) else { return false };
    let time = |stat: &FileStat| (stat.st_mtime, stat.st_mtime_nsec, stat.st_size);
    if time(now) != time(old) || !entry.has_same_permissions(old) {
        return false;
    }
    let one = Opened::upper(level.upper, entry.name, now, OFlag::O_RDONLY);
    let other = beneath(host, entry.name, OFlag::O_RDONLY, Mode::empty());
    match (one, other) {
        (Ok(one), Ok(other)) => {
            attributes::are_same(&one.fd, &other).unwrap_or(false)
                && same_contents(&one.fd, &other, now.st_size).unwrap_or(false)
        }
        _ => false,
    }
}
