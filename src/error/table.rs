//! The table of errors: each step and errno, a part of the text, and a part of the hint.

use std::path::Path;

use nix::errno::Errno;

use crate::error::Error;
use crate::error::advice::{Advice, not_delegated};
use crate::error::hint::os_hint;
use crate::error::step::Step;

/// Every errno of the set-up path, a part of its text, and a part of its hint. By the man pages
/// and the kernel's sources of the calls in each step.
const TABLE: &[(Step, Errno, &str, &str)] = &[
    // open and read of /proc/self/mountinfo and /proc/self/cgroup
    (Step::FindCgroup2, Errno::ENOENT, "find cgroup2", "mount -t proc"),
    (Step::FindCgroup2, Errno::EACCES, "find cgroup2", "TIDY_PROCESS_PARENT"),
    (Step::FindCgroup2, Errno::EPERM, "find cgroup2", "TIDY_PROCESS_PARENT"),
    (Step::FindCgroup2, Errno::EMFILE, "find cgroup2", "ulimit -n"),
    (Step::FindCgroup2, Errno::ENFILE, "find cgroup2", "file-max"),
    (Step::FindCgroup2, Errno::ENOMEM, "find cgroup2", "out of memory"),
    // open and fstatfs of the base
    (Step::OpenBase, Errno::ENOENT, "open cgroup base", "make it first"),
    (Step::OpenBase, Errno::ENODEV, "open cgroup base", "make it first"),
    (Step::OpenBase, Errno::ENOTDIR, "open cgroup base", "below the cgroup2 mount"),
    (Step::OpenBase, Errno::ELOOP, "open cgroup base", "below the cgroup2 mount"),
    (Step::OpenBase, Errno::EACCES, "Permission denied (EACCES)", "no delegated cgroup"),
    (Step::OpenBase, Errno::EPERM, "open cgroup base", "no delegated cgroup"),
    (Step::OpenBase, Errno::EMFILE, "open cgroup base", "ulimit -n"),
    (Step::OpenBase, Errno::ENFILE, "open cgroup base", "file-max"),
    (Step::OpenBase, Errno::ENOMEM, "open cgroup base", "out of memory"),
    // pipe2, clone3 or fork, setsid, prctl, close_range, execve of the guard
    (Step::Guard, Errno::EPERM, "start guard", "seccomp"),
    (Step::Guard, Errno::ENOSYS, "start guard", "seccomp"),
    (Step::Guard, Errno::EINVAL, "start guard", "Linux 5.14"),
    (Step::Guard, Errno::EAGAIN, "start guard", "ulimit -u"),
    (Step::Guard, Errno::ENOMEM, "start guard", "out of memory"),
    (Step::Guard, Errno::EMFILE, "start guard", "ulimit -n"),
    (Step::Guard, Errno::ENFILE, "start guard", "file-max"),
    // mkdirat
    (Step::MakeCgroup, Errno::EROFS, "make cgroup", "read-only"),
    (Step::MakeCgroup, Errno::EACCES, "make cgroup", "no delegated cgroup"),
    (Step::MakeCgroup, Errno::EPERM, "make cgroup", "no delegated cgroup"),
    (Step::MakeCgroup, Errno::EAGAIN, "make cgroup", "cgroup.max.descendants"),
    (Step::MakeCgroup, Errno::ENOENT, "make cgroup", "make it first"),
    (Step::MakeCgroup, Errno::ENODEV, "make cgroup", "make it first"),
    (Step::MakeCgroup, Errno::ENOSPC, "make cgroup", "nr_dying_descendants"),
    (Step::MakeCgroup, Errno::ENOMEM, "make cgroup", "out of memory"),
    // openat of the directory, cgroup.kill and cgroup.events; fcntl
    (Step::OpenCgroup, Errno::ENOENT, "open cgroup", "Linux 5.14"),
    (Step::OpenCgroup, Errno::ENODEV, "open cgroup", "start again"),
    (Step::OpenCgroup, Errno::EROFS, "open cgroup", "read-only"),
    (Step::OpenCgroup, Errno::EACCES, "open cgroup", "no delegated cgroup"),
    (Step::OpenCgroup, Errno::EPERM, "open cgroup", "no delegated cgroup"),
    (Step::OpenCgroup, Errno::EMFILE, "open cgroup", "ulimit -n"),
    (Step::OpenCgroup, Errno::ENFILE, "open cgroup", "file-max"),
    (Step::OpenCgroup, Errno::ENOMEM, "open cgroup", "out of memory"),
    // fcntl and flock
    (Step::Lease, Errno::EACCES, "lease run root", "no delegated cgroup"),
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
    (Step::Clone, Errno::EACCES, "clone into cgroup", "no delegated cgroup"),
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
    (Step::Join, Errno::EACCES, "join cgroup", "no delegated cgroup"),
    (Step::Join, Errno::EPERM, "join cgroup", "no delegated cgroup"),
    (Step::Join, Errno::EROFS, "join cgroup", "read-only"),
    (Step::Join, Errno::EOPNOTSUPP, "join cgroup", "threaded"),
    (Step::Join, Errno::ENOENT, "join cgroup", "start again"),
    (Step::Join, Errno::ENODEV, "join cgroup", "start again"),
    (Step::Join, Errno::EINVAL, "join cgroup", "real-time"),
    (Step::Join, Errno::EMFILE, "join cgroup", "ulimit -n"),
    (Step::Join, Errno::ENOMEM, "join cgroup", "out of memory"),
    (Step::Add, Errno::ESRCH, "add to cgroup", "has ended"),
    (Step::Add, Errno::EACCES, "add to cgroup", "no delegated cgroup"),
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
    // prlimit64, close_range, capget, capset, prctl, landlock_restrict_self, seccomp
    (Step::CoreLimit, Errno::EPERM, "confine (core dumps", "a seccomp filter"),
    (Step::CloseFds, Errno::EBADF, "confine (other fds", "not open"),
    (Step::CloseFds, Errno::ENOSYS, "confine (other fds", "a seccomp filter"),
    (Step::CloseFds, Errno::EMFILE, "confine (other fds", "ulimit -n"),
    (Step::CloseFds, Errno::ENOMEM, "confine (other fds", "out of memory"),
    (Step::Capabilities, Errno::EPERM, "confine (capabilities", "a seccomp filter"),
    (Step::NoNewPrivs, Errno::EPERM, "confine (no new privileges", "a seccomp filter"),
    (Step::Landlock, Errno::EPERM, "landlock", "a seccomp filter"),
    (Step::Landlock, Errno::ENOSYS, "landlock", "a seccomp filter"),
    (Step::Landlock, Errno::E2BIG, "landlock", "16 times"),
    (Step::Landlock, Errno::ENOMEM, "landlock", "out of memory"),
    (Step::Seccomp, Errno::EPERM, "confine (system calls", "a seccomp filter"),
    (Step::Seccomp, Errno::EINVAL, "confine (system calls", "a seccomp filter"),
    (Step::Seccomp, Errno::ENOMEM, "confine (system calls", "out of memory"),
    (Step::Listen, Errno::EBUSY, "explain (listener", "a listener already"),
    (Step::Listen, Errno::EMFILE, "explain (listener", "ulimit -n"),
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
    (Step::Pidfd, Errno::EPERM, "open pidfd (pidfd_open) of", "seccomp filter refuses"),
    (Step::Pidfd, Errno::ENOSYS, "open pidfd (pidfd_open) of", "seccomp filter refuses"),
    (Step::Signal, Errno::EINVAL, "signal", "1 to 64"),
];

#[test]
#[cfg_attr(miri, ignore = "makes system calls that Miri lacks")]
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

/// Options and commands of the tool, which a program does not have.
const TYPED: [&str; 10] = [
    "--fence",
    "--keep-fd",
    "--parent",
    "--containment",
    "--no-guard",
    "--delegate",
    "--cpu",
    "--memory",
    "--pids",
    "tidy-process sweep",
];

#[test]
#[cfg_attr(miri, ignore = "makes system calls that Miri lacks")]
fn a_program_is_told_of_no_option_and_a_command_line_of_no_method() {
    for &(step, errno, ..) in TABLE {
        let advice = os_hint(step, errno).unwrap_or(Advice::same(""));
        let typed = TYPED.iter().find(|option| advice.coded.contains(**option));
        assert_eq!(typed, None, "{step} {errno}: {}", advice.coded);
        assert!(!advice.typed.contains("::"), "{step} {errno}: {}", advice.typed);
    }
}

#[test]
#[cfg_attr(miri, ignore = "makes system calls that Miri lacks")]
fn systemd_run_is_named_where_systemd_runs() {
    let systemd = Path::new("/run/systemd/system").is_dir();
    let said = not_delegated();
    assert_eq!(said.coded.contains("systemd-run"), systemd, "{}", said.coded);
    assert_eq!(said.typed.contains("systemd-run"), systemd, "{}", said.typed);
}

#[test]
fn what_is_not_known_gets_no_hint() {
    let error = Error::at(Step::Read, Path::new("/x"), Errno::EIO);
    assert_eq!(error.hint(), None);
}
