//! Delegated cgroups: recognises them by their mark, and hands over new ones.
//!
//! systemd marks what it has delegated (`Delegate=yes`) with an extended attribute; so do we. See
//! "Delegation" in [cgroup-v2].
//!
//! [cgroup-v2]: https://docs.kernel.org/admin-guide/cgroup-v2.html

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::unistd::{Gid, Uid, fchown, fchownat, geteuid};

use crate::cgroup::Cgroup;
use crate::cgroup::names::{self, ASIDE};
use crate::sys;

/// Whether the cgroup is marked as delegated: its owner may subdivide it.
pub(crate) fn is_delegated(dir: &Path) -> bool {
    sys::has_attribute(dir, c"trusted.delegate") || sys::has_attribute(dir, c"user.delegate")
}

/// From the cgroup that this process is in to the one where run roots go.
///
/// Two kinds of leaves are there only to hold the process, so that the cgroup above them may hand
/// down controllers: the one that a supervisor stepped aside into, and systemd's
/// `DelegateSubgroup=`.
pub(crate) fn without_leaf(path: PathBuf) -> PathBuf {
    match path.parent() {
        Some(parent) if path.ends_with(ASIDE) || is_subgroup(&path, parent) => parent.to_owned(),
        _ => path,
    }
}

/// Whether this is a plain directory right below a delegated cgroup of ours. A name of a unit
/// belongs to a user's systemd, whose own cgroup was delegated to it; a run root is not left.
fn is_subgroup(path: &Path, parent: &Path) -> bool {
    let own = |name: &std::ffi::OsStr| names::owner(name).is_some() || names::is_unit(name);
    !path.file_name().is_none_or(own)
        && is_delegated(parent)
        && !is_delegated(path)
        && owned(parent)
}

/// Whether this user owns it; root owns all.
pub(crate) fn owned(dir: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    geteuid().is_root() || fs::metadata(dir).is_ok_and(|meta| meta.uid() == geteuid().as_raw())
}

/// Delegates a cgroup: sets the mark, and chowns the directory and the files of
/// `/sys/kernel/cgroup/delegate` where a user or a group is given.
pub(crate) fn hand_over(cgroup: &Cgroup, uid: Option<u32>, gid: Option<u32>) -> Result<(), Errno> {
    let dir = cgroup.dir()?;
    match sys::set_attribute(dir.as_fd(), c"user.delegate", b"1") {
        // Before Linux 5.7 cgroups have no user attributes; then only root misses the mark.
        Ok(()) | Err(Errno::EOPNOTSUPP) => {}
        Err(errno) => return Err(errno),
    }
    if uid.is_none() && gid.is_none() {
        return Ok(());
    }
    let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
    let listed = fs::read_to_string("/sys/kernel/cgroup/delegate").unwrap_or_default();
    for file in listed.lines() {
        match fchownat(&*dir, file, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW) {
            // The controller of this file is not enabled.
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    fchown(&*dir, uid, gid)
}
