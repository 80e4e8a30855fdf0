//! Orphans of a tree that became children of this process: it is the first process of its pid
//! namespace, or a sub-reaper ([prctl(2)]). Once dead they stay zombies until it waits for them.
//!
//! Those of a torn-down tree are reaped, and no others: a zombie still shows the cgroup that it was
//! in. The main process is its handle's to reap. A tree into which the caller may have put children
//! of its own (by [`enroll`](crate::Tree::enroll) or [`add`](crate::Tree::add)) is left alone,
//! since those cannot be told from orphans.
//!
//! [prctl(2)]: https://man7.org/linux/man-pages/man2/prctl.2.html

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::prctl::get_child_subreaper;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

use crate::proc::walk::each_child;
use crate::sys::poll::BackOff;

/// The dead need a moment to become zombies, and to hand on their own children.
const REAPING_TIME: Duration = Duration::from_millis(100);

/// Whether orphans become children of this process.
pub(crate) fn come_to_us() -> bool {
    std::process::id() == 1 || get_child_subreaper().unwrap_or(false)
}

/// Reaps what was in the tree, but for its main process.
///
/// What lives still has children that are not ours yet: so all of the tree that are our children
/// are waited for, the main process too.
pub(crate) fn reap_members(tree: &Path, main: i32) {
    let deadline = Instant::now() + REAPING_TIME;
    let mut back_off = BackOff::gentle(Duration::from_micros(50), Duration::from_millis(2));
    loop {
        // Before the list is made: what it leaves behind is on that.
        let mut dying = is_alive(main);
        let (mut reaped, children) = (false, our_children());
        for pid in children.into_iter().filter(|pid| *pid != main && was_in(*pid, tree)) {
            match waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
                Ok(WaitStatus::StillAlive) => dying = true,
                _ => reaped = true,
            }
        }
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

/// None where `/proc` is another pid namespace's: its numbers are not ours.
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
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix("0::")).is_some_and(|path| is_below(path, tree))
}

/// The kernel says " (deleted)" behind the path of a cgroup that is gone.
fn is_below(path: &str, tree: &Path) -> bool {
    let path = Path::new(path.strip_suffix(" (deleted)").unwrap_or(path));
    let (Some(root), Some(leaf)) = (tree.parent().and_then(Path::file_name), tree.file_name())
    else {
        return false;
    };
    let parts: Vec<_> = path.iter().collect();
    parts.windows(2).any(|pair| pair == [root, leaf])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zombies_cgroup_is_known_by_two_names() {
        let tree = Path::new("/sys/fs/cgroup/a/tidy-process-7-0123abcd/3-x y");
        for path in [
            "/a/tidy-process-7-0123abcd/3-x y",
            "/a/tidy-process-7-0123abcd/3-x y (deleted)",
            "/../tidy-process-7-0123abcd/3-x y/deeper (deleted)",
        ] {
            assert!(is_below(path, tree), "{path}");
        }
        for path in ["/", "/a/tidy-process-7-0123abcd", "/a/tidy-process-7-0123abcd/3-x", "/3-x y"]
        {
            assert!(!is_below(path, tree), "{path}");
        }
    }
}
