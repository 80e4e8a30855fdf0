//! Finds the base of a new run root: inside the tree around this process, if there is one.
//!
//! A supervisor's trees must end with the tree around it: its guard is in that tree and dies with
//! it, so nothing would end a run root elsewhere. A base outside is passed over if the environment
//! names it (the variable is inherited, and meant for the outermost supervisor), and refused if the
//! caller gives it.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::openat;
use nix::sys::stat::{Mode, fstat, stat};

use crate::cgroup::beneath::{DIRECTORY, open_dir};
use crate::cgroup::delegation::without_leaf;
use crate::cgroup::hierarchy::{self, Base, FIRST_NAMESPACE};
use crate::cgroup::names::{RECORD, owner};
use crate::cgroup::walk::children;
use crate::error::{Error, Result, Step};
use crate::sys;

/// The environment variable that names the base of the outermost supervisor.
const PARENT_VARIABLE: &str = "TIDY_PROCESS_PARENT";

/// Searches this many directories at the most where the own cgroup cannot be read.
const SEARCHED: usize = 20_000;

/// Goes up this many directories at the most from a base.
const DEEPEST: usize = 4096;

/// The tree around this process.
struct Around {
    /// The directory of the tree.
    tree: PathBuf,
    /// The cgroup that this process is in.
    own: PathBuf,
}

/// The base that the environment names.
fn variable() -> Option<PathBuf> {
    std::env::var_os(PARENT_VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Where a run root is to be made: the given directory, else the default.
///
/// Where the own cgroup can be neither read nor found by a search for this process (no `/proc`, and
/// a base in another part of the hierarchy than can be seen) the base is taken as it is given.
pub(crate) fn base(given: Option<&Path>) -> Result<Base> {
    let Some(path) = given else { return default_base() };
    let base = hierarchy::open(path)?;
    match around(Some(&base)) {
        Some(around) if !is_below(&base, &around.tree) => {
            let subject = format!("{:?} instead of {:?}", base.path, around.tree);
            let why = "it is outside of the tree that this process stands in";
            Err(Error::invalid(Step::Nest, subject, why))
        }
        _ => Ok(base),
    }
}

/// The base of a listing or a sweep: a given directory may be anywhere.
pub(crate) fn base_to_look(given: Option<&Path>) -> Result<Base> {
    given.map_or_else(default_base, hierarchy::open)
}

/// The base in the environment, unless it lies outside of the tree around us; else our own cgroup.
fn default_base() -> Result<Base> {
    let Some(path) = variable() else { return hierarchy::open(&without_leaf(hierarchy::own()?)) };
    let named = hierarchy::open(&path);
    let Some(around) = around(named.as_ref().ok()) else { return named };
    match named {
        Ok(base) if is_below(&base, &around.tree) => Ok(base),
        _ => hierarchy::open(&without_leaf(around.own)),
    }
}

/// The base that the environment names, if it holds here; for the command line.
#[cfg(feature = "cli")]
#[must_use]
pub fn named_base() -> Option<PathBuf> {
    let path = variable()?;
    let base = hierarchy::open(&path).ok();
    let outside = |around: Around| base.as_ref().is_none_or(|base| !is_below(base, &around.tree));
    if around(base.as_ref()).is_some_and(outside) { None } else { Some(path) }
}

/// The innermost tree that this process stands in. Searches for the own cgroup where it cannot be
/// read, or where a cgroup namespace hides its ancestors.
fn around(base: Option<&Base>) -> Option<Around> {
    let own = hierarchy::own().ok();
    let known = own.as_deref().and_then(around_path);
    let is_hidden = || {
        let namespace = fs::read_link("/proc/thread-self/ns/cgroup");
        own.is_none() || !namespace.is_ok_and(|namespace| namespace == Path::new(FIRST_NAMESPACE))
    };
    match (known, base) {
        (None, Some(base)) if is_hidden() => around_path(&found_below(&topmost(base)?)?),
        (known, _) => known,
    }
}

fn around_path(own: &Path) -> Option<Around> {
    let mut tree = own;
    for dir in own.ancestors() {
        if dir.file_name().is_some_and(|name| owner(name).is_some()) && is_run_root(dir) {
            return Some(Around { tree: tree.to_owned(), own: own.to_owned() });
        }
        tree = dir;
    }
    None
}

/// Whether a directory with a run root's name is one: it has an owner's record, or its lease is
/// held, or another user keeps us from looking.
fn is_run_root(dir: &Path) -> bool {
    let held = || match fs::File::open(dir).map(|dir| dir.try_lock_shared()) {
        Ok(Ok(())) => false,
        Ok(Err(_)) => true,
        Err(error) => error.raw_os_error() != Some(Errno::ENOENT as i32),
    };
    let signed = |fd: OwnedFd| sys::get_attribute(fd.as_fd(), RECORD, &mut [0; 256]).map(drop);
    match open_dir(dir).and_then(signed) {
        Ok(()) | Err(Errno::EACCES | Errno::EPERM | Errno::ERANGE) => true,
        Err(_) => held(),
    }
}

/// Whether the base is that directory, or below: by inodes, since there may be several mounts and
/// links. By its path where the kernel does not let us look.
fn is_below(base: &Base, tree: &Path) -> bool {
    let Ok(wanted) = stat(tree) else {
        let plain = !base.path.components().any(|part| part.as_os_str() == "..");
        return plain && base.path.starts_with(tree);
    };
    let mut above: Option<OwnedFd> = None;
    for _ in 0..DEEPEST {
        let here = above.as_ref().unwrap_or(&base.dir);
        match fstat(here) {
            Ok(stat) if stat.st_dev != wanted.st_dev => return false,
            Ok(stat) if stat.st_ino == wanted.st_ino => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
        match openat(here, "..", DIRECTORY, Mode::empty()) {
            Ok(next) => above = Some(next),
            Err(_) => return false,
        }
    }
    false
}

/// The top of the hierarchy, as far as it is mounted round the base.
fn topmost(base: &Base) -> Option<PathBuf> {
    let path = fs::canonicalize(&base.path).ok()?;
    let device = fstat(&base.dir).ok()?.st_dev;
    let same = |dir: &&Path| stat(*dir).is_ok_and(|stat| stat.st_dev == device);
    path.ancestors().take_while(same).last().map(Path::to_owned)
}

/// The cgroup that lists this process, in any run root below `top`.
fn found_below(top: &Path) -> Option<PathBuf> {
    let me = std::process::id().to_string();
    let mut todo = vec![(top.to_owned(), false)];
    for _ in 0..SEARCHED {
        let (dir, inside) = todo.pop()?;
        let inside = inside || dir.file_name().is_some_and(|name| owner(name).is_some());
        let lists_us = || {
            let pids = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            pids.lines().any(|pid| pid == me)
        };
        if inside && lists_us() {
            return Some(dir);
        }
        let below = open_dir(&dir).and_then(|dir| children(&dir)).unwrap_or_default();
        todo.extend(below.into_iter().map(|name| (dir.join(name), inside)));
    }
    None
}
