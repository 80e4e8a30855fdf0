//! Keeps a supervisor out of its trees: a workload of the same user may move it into one, and
//! freezing that tree would freeze the supervisor for ever.

use std::os::fd::AsFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::write;

use crate::cgroup::beneath::{self, open_cgroup};
use crate::cgroup::names::{ASIDE, owner};

/// Moves this process, if it is a member, back to where its run root is. A workload that moves it
/// in again and again could kill it as well, which its guard handles.
pub(crate) fn step_out(members: &[i32], path: &Path) {
    let inside = members.contains(&std::process::id().cast_signed());
    if let Some(base) = base(path).filter(|_| inside) {
        // A cgroup that hands down controllers holds no process: then we were in the leaf.
        let _ = enter(base).or_else(|_| enter(&base.join(ASIDE)));
    }
}

fn enter(dir: &Path) -> Result<(), Errno> {
    let dir = open_cgroup(dir)?;
    let procs = beneath::open(dir.as_fd(), Path::new("cgroup.procs"), OFlag::O_WRONLY)?;
    write(&procs, b"0").map(drop)
}

/// The directory above the innermost run root on the path.
fn base(path: &Path) -> Option<&Path> {
    let is_run_root = |path: &&Path| path.file_name().is_some_and(|name| owner(name).is_some());
    path.ancestors().find(is_run_root)?.parent()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_is_above_the_innermost_run_root() {
        let of = |path: &'static str| base(Path::new(path)).and_then(Path::to_str);
        assert_eq!(of("/cg/a/tidy-process-1-0123abcd/0"), Some("/cg/a"));
        assert_eq!(of("/cg/a/tidy-process-1-0123abcd"), Some("/cg/a"));
        let nested = "/cg/tidy-process-1-0123abcd/0/tidy-process-2-0123abcd/3-x/delegated";
        assert_eq!(of(nested), Some("/cg/tidy-process-1-0123abcd/0"));
        assert_eq!(of("/cg/a"), None);
    }
}
