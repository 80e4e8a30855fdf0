//! Hints: what to type when a step fails.

use nix::errno::Errno;

use crate::error::step::Step;

pub(crate) const SURVIVORS: &str = "they got SIGKILL and go as soon as the kernel lets them \
     (state D waits for a device or file system); the cgroup is removed once it is empty";

pub(crate) const MOUNTED: &str = "the command mounted it, and it is not ours to remove: umount it \
     (umount -R), then run tidy-process sweep";

pub(crate) const KEPT_SURVIVORS: &str = "their keeper goes on killing them: in state D they go as \
     soon as the kernel lets them; a process of another user (sudo, su) ends by itself, or root \
     ends it";

pub(crate) const NO_CGROUP2: &str = "mount the unified hierarchy: mount -t cgroup2 none \
     /sys/fs/cgroup (systemd hosts do this; \
     in a container, run it with a writable cgroup namespace), or do without limits and \
     accounting: --containment best-effort";
pub(crate) const NOT_CGROUP2: &str =
    "give a directory below the cgroup2 mount, for example /sys/fs/cgroup/my-group";

pub(crate) const NESTED: &str = "leave the base out (--parent): the run root is then made in the \
     tree around this process; --delegate of the outer command gives it a cgroup with controllers";
pub(crate) const OTHER_SUPERVISOR: &str = "make a supervisor of this process's own, after the fork \
     or the close: Supervisor::builder, or Supervisor::set_global";

pub(crate) const NEEDS_CGROUP: &str = "run it where a cgroup can be made; \
     tidy-process run --containment cgroup says what is missing for that";
pub(crate) const KEEPER_LOST: &str = "processes of the same user can kill a keeper: run the \
     command as another user, or where a cgroup can be made";

pub(crate) const TAKEN: &str = "end that process, or choose another port; a server of an earlier \
     run that was killed by its pid alone may have left it behind";
pub(crate) const HELD_BACK: &str = "its log is empty: a program that writes to a file or a pipe may \
     hold its lines back until there are some KiB of them; let it flush each \
     (PYTHONUNBUFFERED=1, stdbuf -oL CMD), or wait for its port";
pub(crate) const UNWATCHED: &str = "give it to the Command: every wait on its child watches it";
pub(crate) const TIMED_OUT: &str = "give it more time (timeout, cpu_time), or use run() or \
     output(), whose report says the cause beside the status";

/// Returns the hint for exactly this step and errno; none is better than a wrong one.
pub(crate) fn os_hint(step: Step, errno: Errno) -> Option<&'static str> {
    use Step::{Add, Clone, Fork, Guard, Join, Keeper, Lease, MakeCgroup, OpenBase, OpenCgroup};
    match step {
        Step::FindCgroup2 => find(errno),
        OpenBase | MakeCgroup | OpenCgroup | Lease => cgroup(step, errno),
        Clone | Join | Add => enter(errno),
        Step::Delegate if matches!(errno, Errno::EPERM | Errno::EINVAL) => {
            Some("only root gives a cgroup to another user")
        }
        Step::Delegate => cgroup(step, errno),
        Guard => guard(errno),
        Keeper if errno == Errno::ESRCH => Some(
            "this process makes its children in another pid namespace (unshare): start the command \
             from a process that does not",
        ),
        Fork | Step::Wait if errno == Errno::ECHILD => Some(
            "the exit status was taken: SIGCHLD is ignored in this process, or one of its threads \
             waits for every child",
        ),
        Step::RemoveCgroup if matches!(errno, Errno::EACCES | Errno::EPERM) => Some(
            "it is another user's, who has made it or was given it: root removes it, by \
             tidy-process sweep",
        ),
        Step::Stdio => stdio(errno),
        Step::Signal if errno == Errno::EINVAL => {
            Some("a signal is a number from 1 to 64; 0 sends nothing and only asks")
        }
        Step::Groups | Step::Gid | Step::Uid => identity(errno),
        Step::Chdir => directory(errno),
        Step::ProcessGroup => process_group(errno),
        Step::Exec => exec(errno),
        _ => None,
    }
    .or_else(|| scarce(step, errno))
}

/// Returns the hint for what runs out, in any step.
fn scarce(step: Step, errno: Errno) -> Option<&'static str> {
    use Step::{Clone, Exec, Fork, Guard, Keeper};
    Some(match errno {
        Errno::EMFILE => "too many open files in this process: raise ulimit -n",
        Errno::ENFILE => "too many open files on this machine: see /proc/sys/fs/file-max",
        Errno::ENOMEM if matches!(step, Clone | Fork | Guard | Keeper) => {
            "out of memory (see memory.max of the cgroups above, vm.overcommit_memory), or the \
             first process of this pid namespace has ended"
        }
        Errno::ENOMEM => {
            "the kernel is out of memory: see memory.max of the cgroups above, free -m"
        }
        Errno::EAGAIN if matches!(step, Clone | Fork | Guard | Keeper | Exec) => {
            "no more processes are allowed: see ulimit -u, pids.max of the cgroups above and \
             /proc/sys/kernel/pid_max"
        }
        _ => return None,
    })
}

/// The hints of reading `/proc/self/mountinfo` and `/proc/self/cgroup`.
fn find(errno: Errno) -> Option<&'static str> {
    Some(match errno {
        Errno::ENOENT => {
            "/proc is not mounted here: mount -t proc proc /proc; or name a cgroup of yours with \
             --parent or TIDY_PROCESS_PARENT"
        }
        Errno::EACCES | Errno::EPERM => {
            "/proc may not be read here (a container or a security module hides it): name a cgroup \
             of yours with --parent or TIDY_PROCESS_PARENT"
        }
        _ => return None,
    })
}

/// The hints of opening the base, making the run root or a tree in it, its files and its lease.
fn cgroup(step: Step, errno: Errno) -> Option<&'static str> {
    use Step::{Lease, MakeCgroup, OpenBase, OpenCgroup};
    Some(match errno {
        Errno::EROFS => READ_ONLY,
        Errno::EACCES | Errno::EPERM => NOT_DELEGATED,
        Errno::EAGAIN if step == MakeCgroup => {
            "the number or depth of cgroups is limited here: see cgroup.max.descendants and \
             cgroup.max.depth in this directory and above"
        }
        Errno::ENOSPC => {
            "the kernel has no number left for another cgroup (65535 with memory limits, removed \
             ones that still hold page cache included): see nr_dying_descendants in cgroup.stat"
        }
        Errno::ENOENT if step == OpenCgroup => {
            "this kernel has no cgroup.kill: Linux 5.14 or newer is needed"
        }
        Errno::ENOENT | Errno::ENODEV if matches!(step, OpenBase | MakeCgroup) => {
            "no such cgroup: make it first, or leave --parent out"
        }
        Errno::ENOENT | Errno::ENODEV => REMOVED,
        Errno::ENOTDIR | Errno::ELOOP if step == OpenBase => NOT_CGROUP2,
        Errno::EOPNOTSUPP | Errno::ENOLCK | Errno::ENOSYS if step == Lease => {
            "flock(2) does not work on this cgroupfs: it is not the kernel's own (gVisor?)"
        }
        _ => return None,
    })
}

const READ_ONLY: &str = "this container's cgroupfs is read-only: start the container with a \
     writable one (docker run --security-opt writable-cgroups=true, before Docker 28 \
     --privileged --cgroupns=private; podman run --security-opt unmask=/sys/fs/cgroup), or \
     do without limits and accounting: --containment best-effort";
const NOT_DELEGATED: &str = "no delegated cgroup: run it as \
     systemd-run --user --scope -p Delegate=yes -- CMD, \
     or name a cgroup of yours with --parent or TIDY_PROCESS_PARENT, or do without limits and \
     accounting: --containment best-effort";
const REMOVED: &str = "another process removed this cgroup meanwhile; start again";

/// The hints of putting a process into its cgroup: clone3, or a write to `cgroup.procs`.
fn enter(errno: Errno) -> Option<&'static str> {
    Some(match errno {
        Errno::EROFS => READ_ONLY,
        Errno::EACCES | Errno::EPERM => NOT_DELEGATED,
        Errno::EBUSY => {
            "this cgroup hands controllers to its children and may hold no process itself \
             (cgroup.subtree_control)"
        }
        Errno::EOPNOTSUPP => "this cgroup is threaded: name a domain cgroup with --parent",
        Errno::ENOENT | Errno::ENODEV => REMOVED,
        Errno::EINVAL => {
            "this kernel moves no real-time process while the cpu controller is on: make it an \
             ordinary one (chrt --other 0), or leave --cpus and --cpu-weight out"
        }
        Errno::ESRCH => "no such process: it has ended, or is in another pid namespace",
        _ => return None,
    })
}

fn guard(errno: Errno) -> Option<&'static str> {
    Some(match errno {
        Errno::EPERM | Errno::ENOSYS => {
            "a seccomp filter or a kernel before 5.14 refuses what the guard needs: do without by \
             Supervisor::builder().guard(false), --no-guard"
        }
        _ => return None,
    })
}

fn stdio(errno: Errno) -> Option<&'static str> {
    Some(match errno {
        Errno::ENOENT | Errno::ENXIO => "there is no /dev/null: mount a /dev",
        Errno::EACCES | Errno::EPERM => "/dev/null may not be opened: see its mode and its mount",
        _ => return None,
    })
}

fn identity(errno: Errno) -> Option<&'static str> {
    Some(match errno {
        Errno::EPERM => "only root (CAP_SETUID, CAP_SETGID) changes users and groups",
        Errno::EINVAL => "no such id in this user namespace: see /proc/self/uid_map and gid_map",
        _ => return None,
    })
}

fn directory(errno: Errno) -> Option<&'static str> {
    Some(match errno {
        Errno::ENOENT | Errno::ENOTDIR => "name a directory that is there, as the child sees it",
        Errno::EACCES => "every directory on the way needs the x permission for the child's user",
        _ => return None,
    })
}

fn process_group(errno: Errno) -> Option<&'static str> {
    Some(match errno {
        Errno::EPERM | Errno::ESRCH => "give 0, or a process group of this session",
        Errno::EINVAL => "a process group is not negative",
        _ => return None,
    })
}

fn exec(errno: Errno) -> Option<&'static str> {
    Some(match errno {
        Errno::ENOENT => {
            "is it installed and on the child's PATH? if the file is there, the interpreter on its \
             first line or its ELF loader is not"
        }
        Errno::EACCES => "is it a file with the x permission?",
        Errno::ENOTDIR | Errno::ELOOP | Errno::ENAMETOOLONG => "is the path right?",
        Errno::ENOEXEC => {
            "it is neither a program for this machine nor a script with a first line such as \
             #!/bin/sh"
        }
        Errno::ELIBBAD => "it is neither a program for this machine nor a script",
        Errno::ETXTBSY => "a process holds the program open for writing: close it before the spawn",
        Errno::E2BIG => {
            "arguments and environment are too long: a quarter of ulimit -s in all, 128 KiB each"
        }
        Errno::EPERM => "a security module, or no_new_privs and file capabilities, forbid it",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::error::Error;

    /// Every errno of the set-up path, a part of its text, and a part of its hint. By the man pages
    /// and the kernel's sources of the calls in each step.
    const TABLE: &[(Step, Errno, &str, &str)] = &[
        // open and read of /proc/self/mountinfo and /proc/self/cgroup
        (Step::FindCgroup2, Errno::ENOENT, "find cgroup2", "mount -t proc"),
        (Step::FindCgroup2, Errno::EACCES, "find cgroup2", "--parent"),
        (Step::FindCgroup2, Errno::EPERM, "find cgroup2", "--parent"),
        (Step::FindCgroup2, Errno::EMFILE, "find cgroup2", "ulimit -n"),
        (Step::FindCgroup2, Errno::ENFILE, "find cgroup2", "file-max"),
        (Step::FindCgroup2, Errno::ENOMEM, "find cgroup2", "out of memory"),
        // open and fstatfs of the base
        (Step::OpenBase, Errno::ENOENT, "open cgroup base", "make it first"),
        (Step::OpenBase, Errno::ENODEV, "open cgroup base", "make it first"),
        (Step::OpenBase, Errno::ENOTDIR, "open cgroup base", "below the cgroup2 mount"),
        (Step::OpenBase, Errno::ELOOP, "open cgroup base", "below the cgroup2 mount"),
        (Step::OpenBase, Errno::EACCES, "Permission denied (EACCES)", "Delegate=yes"),
        (Step::OpenBase, Errno::EPERM, "open cgroup base", "Delegate=yes"),
        (Step::OpenBase, Errno::EMFILE, "open cgroup base", "ulimit -n"),
        (Step::OpenBase, Errno::ENFILE, "open cgroup base", "file-max"),
        (Step::OpenBase, Errno::ENOMEM, "open cgroup base", "out of memory"),
        // pipe2, clone3 or fork, setsid, prctl, close_range, execve of the guard
        (Step::Guard, Errno::EPERM, "start guard", "seccomp"),
        (Step::Guard, Errno::ENOSYS, "start guard", "seccomp"),
        (Step::Guard, Errno::EAGAIN, "start guard", "ulimit -u"),
        (Step::Guard, Errno::ENOMEM, "start guard", "out of memory"),
        (Step::Guard, Errno::EMFILE, "start guard", "ulimit -n"),
        (Step::Guard, Errno::ENFILE, "start guard", "file-max"),
        // mkdirat
        (Step::MakeCgroup, Errno::EROFS, "make cgroup", "read-only"),
        (Step::MakeCgroup, Errno::EACCES, "make cgroup", "systemd-run --user --scope"),
        (Step::MakeCgroup, Errno::EPERM, "make cgroup", "systemd-run --user --scope"),
        (Step::MakeCgroup, Errno::EAGAIN, "make cgroup", "cgroup.max.descendants"),
        (Step::MakeCgroup, Errno::ENOENT, "make cgroup", "make it first"),
        (Step::MakeCgroup, Errno::ENODEV, "make cgroup", "make it first"),
        (Step::MakeCgroup, Errno::ENOSPC, "make cgroup", "nr_dying_descendants"),
        (Step::MakeCgroup, Errno::ENOMEM, "make cgroup", "out of memory"),
        // openat of the directory, cgroup.kill and cgroup.events; fcntl
        (Step::OpenCgroup, Errno::ENOENT, "open cgroup", "Linux 5.14"),
        (Step::OpenCgroup, Errno::ENODEV, "open cgroup", "start again"),
        (Step::OpenCgroup, Errno::EROFS, "open cgroup", "read-only"),
        (Step::OpenCgroup, Errno::EACCES, "open cgroup", "Delegate=yes"),
        (Step::OpenCgroup, Errno::EPERM, "open cgroup", "Delegate=yes"),
        (Step::OpenCgroup, Errno::EMFILE, "open cgroup", "ulimit -n"),
        (Step::OpenCgroup, Errno::ENFILE, "open cgroup", "file-max"),
        (Step::OpenCgroup, Errno::ENOMEM, "open cgroup", "out of memory"),
        // fcntl and flock
        (Step::Lease, Errno::EACCES, "lease run root", "Delegate=yes"),
        (Step::Lease, Errno::ENOLCK, "lease run root", "flock"),
        (Step::Lease, Errno::EOPNOTSUPP, "lease run root", "flock"),
        (Step::Lease, Errno::ENOSYS, "lease run root", "flock"),
        (Step::Lease, Errno::EMFILE, "lease run root", "ulimit -n"),
        (Step::Lease, Errno::ENOMEM, "lease run root", "out of memory"),
        // openat, fchmod and fchown of what is the command's own
        (Step::Delegate, Errno::EPERM, "delegate cgroup", "only root"),
        (Step::Delegate, Errno::EINVAL, "delegate cgroup", "only root"),
        (Step::Delegate, Errno::EROFS, "delegate cgroup", "read-only"),
        (Step::Delegate, Errno::ENOENT, "delegate cgroup", "start again"),
        (Step::Delegate, Errno::EMFILE, "delegate cgroup", "ulimit -n"),
        // open of /dev/null, pipe2, dup2
        (Step::Stdio, Errno::ENOENT, "set up stdio", "/dev/null"),
        (Step::Stdio, Errno::ENXIO, "set up stdio", "/dev/null"),
        (Step::Stdio, Errno::EACCES, "set up stdio", "/dev/null"),
        (Step::Stdio, Errno::EPERM, "set up stdio", "/dev/null"),
        (Step::Stdio, Errno::EMFILE, "set up stdio", "ulimit -n"),
        (Step::Stdio, Errno::ENFILE, "set up stdio", "file-max"),
        // clone3; ENOSYS and EPERM go to fork
        (Step::Clone, Errno::EACCES, "clone into cgroup", "Delegate=yes"),
        (Step::Clone, Errno::EBUSY, "clone into cgroup", "subtree_control"),
        (Step::Clone, Errno::EOPNOTSUPP, "clone into cgroup", "threaded"),
        (Step::Clone, Errno::EAGAIN, "clone into cgroup", "pids.max"),
        (Step::Clone, Errno::ENOMEM, "clone into cgroup", "pid namespace"),
        (Step::Clone, Errno::ENOENT, "clone into cgroup", "start again"),
        (Step::Clone, Errno::ENODEV, "clone into cgroup", "start again"),
        (Step::Clone, Errno::EINVAL, "clone into cgroup", "real-time"),
        (Step::Clone, Errno::EMFILE, "clone into cgroup", "ulimit -n"),
        (Step::Clone, Errno::ENFILE, "clone into cgroup", "file-max"),
        // pipe2, fork, pidfd_open, waitid
        (Step::Fork, Errno::EAGAIN, "fork", "ulimit -u"),
        (Step::Fork, Errno::ENOMEM, "fork", "pid namespace"),
        (Step::Fork, Errno::ECHILD, "fork", "SIGCHLD"),
        (Step::Fork, Errno::EMFILE, "fork", "ulimit -n"),
        (Step::Fork, Errno::ENFILE, "fork", "file-max"),
        // pipe2, fork, pidfd_open of a keeper
        (Step::Keeper, Errno::EAGAIN, "start keeper", "ulimit -u"),
        (Step::Keeper, Errno::ENOMEM, "start keeper", "out of memory"),
        (Step::Keeper, Errno::ESRCH, "start keeper", "pid namespace"),
        (Step::Keeper, Errno::EMFILE, "start keeper", "ulimit -n"),
        (Step::Keeper, Errno::ENFILE, "start keeper", "file-max"),
        // openat and write of cgroup.procs
        (Step::Join, Errno::EBUSY, "join cgroup", "subtree_control"),
        (Step::Join, Errno::EACCES, "join cgroup", "Delegate=yes"),
        (Step::Join, Errno::EPERM, "join cgroup", "Delegate=yes"),
        (Step::Join, Errno::EROFS, "join cgroup", "read-only"),
        (Step::Join, Errno::EOPNOTSUPP, "join cgroup", "threaded"),
        (Step::Join, Errno::ENOENT, "join cgroup", "start again"),
        (Step::Join, Errno::ENODEV, "join cgroup", "start again"),
        (Step::Join, Errno::EINVAL, "join cgroup", "real-time"),
        (Step::Join, Errno::EMFILE, "join cgroup", "ulimit -n"),
        (Step::Join, Errno::ENOMEM, "join cgroup", "out of memory"),
        (Step::Add, Errno::ESRCH, "add to cgroup", "has ended"),
        (Step::Add, Errno::EACCES, "add to cgroup", "Delegate=yes"),
        // setgroups, setgid, setuid, chdir, setpgid
        (Step::Groups, Errno::EPERM, "setgroups", "only root"),
        (Step::Groups, Errno::EINVAL, "setgroups", "gid_map"),
        (Step::Groups, Errno::ENOMEM, "setgroups", "out of memory"),
        (Step::Gid, Errno::EPERM, "setgid", "only root"),
        (Step::Gid, Errno::EINVAL, "setgid", "gid_map"),
        (Step::Uid, Errno::EPERM, "setuid", "only root"),
        (Step::Uid, Errno::EINVAL, "setuid", "uid_map"),
        (Step::Chdir, Errno::ENOENT, "chdir", "as the child sees it"),
        (Step::Chdir, Errno::ENOTDIR, "chdir", "as the child sees it"),
        (Step::Chdir, Errno::EACCES, "chdir", "x permission"),
        (Step::ProcessGroup, Errno::EPERM, "setpgid", "of this session"),
        (Step::ProcessGroup, Errno::ESRCH, "setpgid", "of this session"),
        (Step::ProcessGroup, Errno::EINVAL, "setpgid", "negative"),
        // execve
        (Step::Exec, Errno::ENOENT, "exec", "PATH"),
        (Step::Exec, Errno::EACCES, "exec", "x permission"),
        (Step::Exec, Errno::ENOTDIR, "exec", "path right"),
        (Step::Exec, Errno::ELOOP, "exec", "path right"),
        (Step::Exec, Errno::ENAMETOOLONG, "exec", "path right"),
        (Step::Exec, Errno::ENOEXEC, "exec", "neither a program"),
        (Step::Exec, Errno::ELIBBAD, "exec", "neither a program"),
        (Step::Exec, Errno::ETXTBSY, "exec", "open for writing"),
        (Step::Exec, Errno::E2BIG, "exec", "ulimit -s"),
        (Step::Exec, Errno::EPERM, "exec", "no_new_privs"),
        (Step::Exec, Errno::EAGAIN, "exec", "ulimit -u"),
        (Step::Exec, Errno::ENOMEM, "exec", "out of memory"),
        (Step::Exec, Errno::EMFILE, "exec", "ulimit -n"),
        (Step::Exec, Errno::ENFILE, "exec", "file-max"),
        (Step::Wait, Errno::ECHILD, "wait for", "SIGCHLD"),
        (Step::Signal, Errno::EINVAL, "signal", "1 to 64"),
    ];

    #[test]
    fn every_errno_of_the_set_up_path_has_its_hint() {
        for &(step, errno, text, hint) in TABLE {
            let error = Error::at(step, Path::new("/some/where"), errno);
            let said = error.to_string();
            assert!(said.contains(text) && said.contains("\"/some/where\""), "{said}");
            assert!(said.ends_with(&format!("({errno:?})")), "{said}");
            let told = error.hint().unwrap_or("nothing");
            assert!(told.contains(hint), "{said}: {told}");
        }
    }

    #[test]
    fn what_is_not_known_gets_no_hint() {
        let error = Error::at(Step::Read, Path::new("/x"), Errno::EIO);
        assert_eq!(error.hint(), None);
    }
}
