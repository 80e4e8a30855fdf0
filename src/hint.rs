//! What to type when a step fails.

use nix::errno::Errno;

use crate::step::Step;

pub(crate) const SURVIVORS: &str = "they got SIGKILL and go as soon as the kernel lets them \
     (state D waits for a device or file system); the cgroup is removed once it is empty";

pub(crate) const KEPT_SURVIVORS: &str = "their keeper goes on killing them: in state D they go as \
     soon as the kernel lets them; a process of another user (sudo, su) ends by itself, or root \
     ends it";

pub(crate) const NO_CGROUP2: &str = "mount the unified hierarchy: mount -t cgroup2 none \
     /sys/fs/cgroup (systemd hosts do this; \
     in a container, run it with a writable cgroup namespace), or do without limits and \
     accounting: --containment best-effort";
pub(crate) const NOT_CGROUP2: &str =
    "give a directory below the cgroup2 mount, for example /sys/fs/cgroup/my-group";

pub(crate) const NEEDS_CGROUP: &str = "run it where a cgroup can be made; \
     tidy-process run --containment cgroup says what is missing for that";
pub(crate) const KEEPER_LOST: &str = "processes of the same user can kill a keeper: run the \
     command as another user, or where a cgroup can be made";

/// By step and errno, exactly: a guess would send people the wrong way.
pub(crate) fn os_hint(step: Step, errno: Errno) -> Option<&'static str> {
    use Step::{Clone, Exec, Join, Lease, MakeCgroup, OpenBase, OpenCgroup};
    let cgroup = matches!(step, OpenBase | Lease | MakeCgroup | OpenCgroup | Clone | Join);
    match errno {
        Errno::EROFS if cgroup => Some(
            "this container's cgroupfs is read-only: start the container with a writable one \
             (docker run --privileged --cgroupns=private, or podman run \
             --security-opt unmask=/sys/fs/cgroup), or do without limits and accounting: \
             --containment best-effort",
        ),
        Errno::EACCES | Errno::EPERM if cgroup => Some(
            "no delegated cgroup: run it as systemd-run --user --scope -p Delegate=yes -- CMD, \
             or name a cgroup of yours with --parent or TIDY_PROCESS_PARENT, or do without limits \
             and accounting: --containment best-effort",
        ),
        Errno::EAGAIN if step == MakeCgroup => Some(
            "the number or depth of cgroups is limited here: see cgroup.max.descendants and \
             cgroup.max.depth in this directory and above",
        ),
        Errno::EAGAIN if matches!(step, Clone | Step::Fork | Step::Keeper) => Some(
            "no more processes are allowed: see ulimit -u, pids.max of the cgroups above and \
             /proc/sys/kernel/pid_max",
        ),
        Errno::EBUSY if matches!(step, Clone | Join) => Some(
            "this cgroup hands controllers to its children and may hold no process itself \
             (cgroup.subtree_control)",
        ),
        Errno::EOPNOTSUPP if matches!(step, Clone | Join) => {
            Some("this cgroup is threaded: name a domain cgroup with --parent")
        }
        Errno::ENOENT if step == OpenCgroup => {
            Some("this kernel has no cgroup.kill: Linux 5.14 or newer is needed")
        }
        Errno::ENOENT if matches!(step, OpenBase | MakeCgroup) => {
            Some("no such cgroup: make it first, or leave --parent out")
        }
        Errno::ENOENT | Errno::EACCES | Errno::ENOEXEC if step == Step::Guard => Some(
            "the guard, which ends everything should this process be killed, needs /bin/sh: \
             install one, or do without by Supervisor::builder().guard(false), --no-guard",
        ),
        Errno::ESRCH if step == Step::Keeper => Some(
            "this process makes its children in another pid namespace (unshare): start the command \
             from a process that does not",
        ),
        Errno::EMFILE => Some("too many open files in this process: raise ulimit -n"),
        Errno::ENFILE => Some("too many open files on this machine: see /proc/sys/fs/file-max"),
        Errno::ENOENT if step == Exec => Some(
            "is it installed and on the child's PATH? if the file is there, the interpreter on its \
             first line or its ELF loader is not",
        ),
        Errno::EACCES if step == Exec => Some("is it a file with the x permission?"),
        Errno::ENOEXEC if step == Exec => {
            Some("it is neither a program for this machine nor a script")
        }
        Errno::ETXTBSY if step == Exec => {
            Some("somebody holds the program open for writing; close it before the spawn")
        }
        Errno::ECHILD if step == Step::Wait => Some(
            "somebody else took the exit status: SIGCHLD is ignored in this process, or a thread \
             waits for every child",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::error::Error;

    /// Every errno of the set-up path, what is said of it, and what one is told to do.
    const TABLE: &[(Step, Errno, &str, &str)] = &[
        (Step::OpenBase, Errno::ENOENT, "open cgroup base", "make it first"),
        (Step::OpenBase, Errno::EACCES, "Permission denied (EACCES)", "Delegate=yes"),
        (Step::MakeCgroup, Errno::EROFS, "make cgroup", "read-only"),
        (Step::MakeCgroup, Errno::EACCES, "make cgroup", "systemd-run --user --scope"),
        (Step::MakeCgroup, Errno::EPERM, "make cgroup", "systemd-run --user --scope"),
        (Step::MakeCgroup, Errno::EAGAIN, "make cgroup", "cgroup.max.descendants"),
        (Step::MakeCgroup, Errno::ENOENT, "make cgroup", "make it first"),
        (Step::OpenCgroup, Errno::ENOENT, "open cgroup", "Linux 5.14"),
        (Step::OpenCgroup, Errno::EMFILE, "open cgroup", "ulimit -n"),
        (Step::OpenCgroup, Errno::ENFILE, "open cgroup", "file-max"),
        (Step::Lease, Errno::EACCES, "lease run root", "Delegate=yes"),
        (Step::Guard, Errno::ENOENT, "start guard", "--no-guard"),
        (Step::Guard, Errno::EACCES, "start guard", "--no-guard"),
        (Step::Clone, Errno::EACCES, "clone into cgroup", "Delegate=yes"),
        (Step::Clone, Errno::EBUSY, "clone into cgroup", "subtree_control"),
        (Step::Clone, Errno::EOPNOTSUPP, "clone into cgroup", "threaded"),
        (Step::Clone, Errno::EAGAIN, "clone into cgroup", "pids.max"),
        (Step::Join, Errno::EBUSY, "join cgroup", "subtree_control"),
        (Step::Join, Errno::EACCES, "join cgroup", "Delegate=yes"),
        (Step::Fork, Errno::EAGAIN, "fork", "ulimit -u"),
        (Step::Exec, Errno::ENOENT, "exec", "PATH"),
        (Step::Exec, Errno::EACCES, "exec", "x permission"),
        (Step::Exec, Errno::ENOEXEC, "exec", "neither a program"),
        (Step::Exec, Errno::ETXTBSY, "exec", "open for writing"),
        (Step::Wait, Errno::ECHILD, "wait for", "SIGCHLD"),
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
        let error = Error::at(Step::Chdir, Path::new("/x"), Errno::ENOENT);
        assert_eq!(error.hint(), None);
    }
}
