//! Finds this process's place among systemd's units; the command line may move to a better one.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::cgroup::delegation::{is_delegated, owned};
use crate::cgroup::hierarchy;
use crate::cgroup::names;
use crate::cgroup::walk::pids_at;
use crate::error::Result;

/// The cgroup of this process.
#[derive(Debug)]
pub struct Place {
    /// Its directory.
    pub path: PathBuf,
    /// The unit that it is the cgroup of. None if it is no unit's, or a supervisor's: that one must
    /// not be left.
    pub unit: Option<String>,
    /// Whether it is marked as delegated, and this user's: a service of root's may run programs of
    /// others. A user's own systemd marks nothing.
    pub delegated: bool,
    /// Whether it is this user's, and no other process is in it: so there may be controllers below.
    pub alone: bool,
}

/// Looks where this process is now.
///
/// # Errors
/// There is no cgroup2, or no mount of it shows this process.
pub fn place() -> Result<Place> {
    let path = hierarchy::own()?;
    let delegated = is_delegated(&path) && owned(&path);
    Ok(Place { unit: unit(&path), delegated, alone: is_alone(&path), path })
}

fn is_alone(path: &Path) -> bool {
    owned(path) && pids_at(path) == [std::process::id().cast_signed()]
}

/// The topmost directory of the hierarchy that this process is in, as far as it is mounted here.
///
/// # Errors
/// As for [`place`].
pub fn top() -> Result<PathBuf> {
    hierarchy::top()
}

fn unit(path: &Path) -> Option<String> {
    let supervised = path.iter().any(|part| names::owner(part).is_some());
    let name: &OsStr = path.file_name().filter(|name| !supervised && names::is_unit(name))?;
    name.to_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_the_last_part_of_the_path_and_outside_of_any_run_root() {
        let of = |path: &str| unit(Path::new(path));
        assert_eq!(of("/cg/user.slice/session-1.scope"), Some("session-1.scope".to_owned()));
        assert_eq!(of("/cg/system.slice/a.service"), Some("a.service".to_owned()));
        for path in [
            "/cg",
            "/cg/system.slice/a.service/inner",
            "/cg/a.scope/tidy-process-1-0123abcd/0",
            "/cg/a.scope/tidy-process-1-0123abcd/0-x.scope",
        ] {
            assert_eq!(of(path), None, "{path}");
        }
    }
}
