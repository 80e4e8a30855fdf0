//! Reaps orphans of a tree that became children of this process: the first process of its pid
//! namespace, or a sub-reaper ([prctl(2)]). Otherwise they would stay zombies.
//!
//! Reaps only those of a torn-down tree: a zombie still shows the cgroup that it was in. The main
//! process is left to its handle. A tree into which the caller may have put children of its own (by
//! [`enroll`](crate::Tree::enroll) or [`add`](crate::Tree::add)) is left alone, since those cannot
//! be told from orphans.
//!
//! [prctl(2)]: https://man7.org/linux/man-pages/man2/prctl.2.html

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::prctl::get_child_subreaper;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

use crate::cgroup::hierarchy::own_cgroup;
use crate::proc::walk::each_child;
use crate::sys::poll::BackOff;

/// The time for killed processes to become zombies, and for their children to become ours.
const REAPING_TIME: Duration = Duration::from_millis(100);

/// Whether orphans become children of this process.
pub(crate) fn come_to_us() -> bool {
    std::process::id() == 1 || get_child_subreaper().unwrap_or(false)
}

/// Reaps the processes that were in the tree, but for its main process.
///
/// Waits for all members that are our children, the main process too: the children of a dying
/// member become ours only when it ends.
pub(crate) fn reap_members(tree: &Path, main: i32) {
    let deadline = Instant::now() + REAPING_TIME;
    in_rounds(deadline, || {
        // Checked before the children are listed: orphans of a dead main process are on the list.
        let mut dying = is_alive(main);
        let (mut reaped, children) = (false, our_children());
        for pid in children.into_iter().filter(|pid| *pid != main && was_in(*pid, tree)) {
            match waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
                Ok(WaitStatus::StillAlive) => dying = true,
                _ => reaped = true,
            }
        }
        (dying, reaped)
    });
}

/// Goes round until none is dying and none was reaped, or to the deadline.
fn in_rounds(deadline: Instant, mut round: impl FnMut() -> (bool, bool)) {
    let mut back_off = BackOff::gentle(Duration::from_micros(50), Duration::from_millis(2));
    loop {
        let (dying, reaped) = round();
        if !(dying || reaped) || Instant::now() >= deadline {
            return;
        }
        if !reaped {
            back_off.sleep(Some(deadline));
        }
    }
}

/// For the first process of a pid namespace: reaps every child that has ended but these.
#[cfg(feature = "cli")]
pub fn reap_all_but(spared: &[u32]) {
    for pid in our_children() {
        if !spared.contains(&pid.cast_unsigned()) {
            let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL));
        }
    }
}

fn is_alive(child: i32) -> bool {
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    matches!(waitid(Id::Pid(Pid::from_raw(child)), look), Ok(WaitStatus::StillAlive))
}

/// The children of this process; none where `/proc` is of another pid namespace, whose numbers
/// differ.
fn our_children() -> Vec<i32> {
    let mut children = Vec::new();
    let me = fs::read_link("/proc/self");
    if me.is_ok_and(|me| me == Path::new(&std::process::id().to_string()))
        && let Ok(process) = File::open("/proc/self")
    {
        each_child(&OwnedFd::from(process), &mut |pid| children.push(pid));
    }
    children
}

/// Whether a process was in the tree when it ended, by the names of the tree and of its run root.
fn was_in(pid: i32, tree: &Path) -> bool {
    let text = fs::read(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    own_cgroup(&text).is_some_and(|path| is_below(&path, tree))
}

/// Whether the path of a process's cgroup is in the tree. The kernel appends " (deleted)" to the
/// path of a removed cgroup.
pub(crate) fn is_below(path: &Path, tree: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    let path = Path::new(OsStr::from_bytes(bytes.strip_suffix(b" (deleted)").unwrap_or(bytes)));
    let (Some(root), Some(leaf)) = (tree.parent().and_then(Path::file_name), tree.file_name())
    else {
        return false;
    };
    let parts: Vec<_> = path.iter().collect();
    parts.windows(2).any(|pair| pair == [root, leaf])
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_zombies_cgroup_is_known_by_two_names() {
        let tree = Path::new("/sys/fs/cgroup/a/tidy-process-7-0123abcd/3-x y");
        for path in [
            "/a/tidy-process-7-0123abcd/3-x y",
            "/a/tidy-process-7-0123abcd/3-x y (deleted)",
            "/../tidy-process-7-0123abcd/3-x y/deeper (deleted)",
        ] {
            assert!(is_below(Path::new(path), tree), "{path}");
        }
        for path in ["/", "/a/tidy-process-7-0123abcd", "/a/tidy-process-7-0123abcd/3-x", "/3-x y"]
        {
            assert!(!is_below(Path::new(path), tree), "{path}");
        }
    }

    /// The numbers of rounds, if each finds this in turn, and then nothing more.
    fn rounds(deadline: Duration, found: &[(bool, bool)]) -> usize {
        let mut number = 0;
        in_rounds(Instant::now() + deadline, || {
            number += 1;
            found.get(number - 1).copied().unwrap_or_default()
        });
        number
    }

    #[test]
    fn reaping_goes_on_while_there_is_something_to_reap() {
        let long = Duration::from_secs(5);
        assert_eq!(rounds(long, &[]), 1);
        assert_eq!(rounds(long, &[(true, false)]), 2);
        assert_eq!(rounds(long, &[(false, true)]), 2);
        assert_eq!(rounds(long, &[(true, true), (true, false), (false, true)]), 4);
        assert_eq!(rounds(Duration::ZERO, &[(true, true); 9]), 1);
    }

    #[test]
    #[cfg_attr(miri, ignore = "makes system calls that Miri lacks")]
    fn a_zombie_is_not_alive_and_is_left_to_its_parent() -> io::Result<()> {
        let mut child = Command::new("sleep").arg("60").spawn()?;
        let pid = child.id().cast_signed();
        assert!(is_alive(pid));
        child.kill()?;
        waitid(Id::Pid(Pid::from_raw(pid)), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)?;
        assert!(!is_alive(pid));
        assert!(child.wait()?.code().is_none());
        Ok(())
    }
}
