//! Hints: what to type when a step fails.

use nix::errno::Errno;

use crate::error::advice::{Advice, NOT_CGROUP2, REMOVED, advice, not_delegated, read_only};
use crate::error::step::Step;

/// Returns the hint for exactly this step and errno; none is better than a wrong one.
pub(crate) fn os_hint(step: Step, errno: Errno) -> Option<Advice> {
    exact(step, errno).or_else(|| other(step, errno).map(Advice::same))
}

/// What has two wordings, or is the same in many steps.
fn exact(step: Step, errno: Errno) -> Option<Advice> {
    use Step::{Add, Clone, Guard, Join, Lease, MakeCgroup, OpenBase, OpenCgroup};
    match step {
        Step::FindCgroup2 => find(errno),
        OpenBase | MakeCgroup | OpenCgroup | Lease => cgroup(step, errno),
        Clone | Join | Add => enter(errno),
        Step::Delegate if matches!(errno, Errno::EPERM | Errno::EINVAL) => None,
        Step::Delegate => cgroup(step, errno),
        Guard | Step::Pidfd => refused(step, errno),
        Step::Show | Step::ChdirInside => view(step, errno),
        step if step.confines() => namespaces(step, errno).or_else(|| confine(step, errno)),
        Step::RemoveCgroup if matches!(errno, Errno::EACCES | Errno::EPERM) => Some(advice!(
            "it is another user's, who has made it or was given it: root removes it, by ",
            "tidy_process::sweep",
            "tidy-process sweep"
        )),
        _ => None,
    }
}

/// What a program and a command line are told alike.
fn other(step: Step, errno: Errno) -> Option<&'static str> {
    use Step::{Fork, Keeper};
    match step {
        Step::Delegate if matches!(errno, Errno::EPERM | Errno::EINVAL) => {
            Some("only root gives a cgroup to another user")
        }
        Keeper if errno == Errno::ESRCH => Some(
            "this process makes its children in another pid namespace (unshare): start the command \
             from a process that does not",
        ),
        Fork | Step::Wait if errno == Errno::ECHILD => Some(
            "the exit status was taken: SIGCHLD is ignored in this process, or one of its threads \
             waits for every child",
        ),
        Step::Stdio => stdio(errno),
        Step::Signal if errno == Errno::EINVAL => {
            Some("a signal is a number from 1 to 64; 0 sends nothing and only asks")
        }
        Step::Groups | Step::Gid | Step::Uid => identity(errno),
        Step::Chdir => directory(errno),
        Step::ProcessGroup => process_group(errno),
        Step::Exec => exec(errno),
        Step::Commit => commit(errno),
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
fn find(errno: Errno) -> Option<Advice> {
    Some(match errno {
        Errno::ENOENT => advice!(
            "/proc is not mounted here: mount -t proc proc /proc; or name a cgroup of yours with ",
            "SupervisorBuilder::base or TIDY_PROCESS_PARENT",
            "--parent or TIDY_PROCESS_PARENT"
        ),
        Errno::EACCES | Errno::EPERM => advice!(
            "/proc may not be read here (a container or a security module hides it): name a cgroup \
             of yours with ",
            "SupervisorBuilder::base or TIDY_PROCESS_PARENT",
            "--parent or TIDY_PROCESS_PARENT"
        ),
        _ => return None,
    })
}

/// The hints of opening the base, making the run root or a tree in it, its files and its lease.
fn cgroup(step: Step, errno: Errno) -> Option<Advice> {
    use Step::{Lease, MakeCgroup, OpenBase, OpenCgroup};
    Some(match errno {
        Errno::EROFS => read_only(),
        Errno::EACCES | Errno::EPERM => not_delegated(),
        Errno::EAGAIN if step == MakeCgroup => Advice::same(
            "the number or depth of cgroups is limited here: see cgroup.max.descendants and \
             cgroup.max.depth in this directory and above",
        ),
        Errno::ENOSPC => Advice::same(
            "the kernel has no number left for another cgroup (65535 with memory limits, removed \
             ones that still hold page cache included): see nr_dying_descendants in cgroup.stat",
        ),
        Errno::ENOENT if step == OpenCgroup => {
            Advice::same("this kernel has no cgroup.kill: Linux 5.14 or newer is needed")
        }
        Errno::ENOENT | Errno::ENODEV if matches!(step, OpenBase | MakeCgroup) => advice!(
            "no such cgroup: make it first, or leave ",
            "the base out (SupervisorBuilder::base, TIDY_PROCESS_PARENT)",
            "--parent out"
        ),
        Errno::ENOENT | Errno::ENODEV => REMOVED,
        Errno::ENOTDIR | Errno::ELOOP if step == OpenBase => NOT_CGROUP2,
        Errno::EOPNOTSUPP | Errno::ENOLCK | Errno::ENOSYS if step == Lease => Advice::same(
            "flock(2) does not work on this cgroupfs: it is not the kernel's own (gVisor?)",
        ),
        _ => return None,
    })
}

/// The hints of putting a process into its cgroup: clone3, or a write to `cgroup.procs`.
fn enter(errno: Errno) -> Option<Advice> {
    Some(match errno {
        Errno::EROFS => read_only(),
        Errno::EACCES | Errno::EPERM => not_delegated(),
        Errno::EBUSY => Advice::same(
            "this cgroup hands controllers to its children and may hold no process itself \
             (cgroup.subtree_control)",
        ),
        Errno::EOPNOTSUPP => advice!(
            "this cgroup is threaded: name a domain cgroup with ",
            "SupervisorBuilder::base",
            "--parent"
        ),
        Errno::ENOENT | Errno::ENODEV => REMOVED,
        Errno::EINVAL => advice!(
            "this kernel moves no real-time process while the cpu controller is on: make it an \
             ordinary one (chrt --other 0), or leave ",
            "Limits::cpus and cpu_weight out",
            "--cpus and --cpu-weight out"
        ),
        Errno::ESRCH => {
            Advice::same("no such process: it has ended, or is in another pid namespace")
        }
        _ => return None,
    })
}

/// The hints of what a seccomp filter or an old kernel refuses.
fn refused(step: Step, errno: Errno) -> Option<Advice> {
    Some(match (step, errno) {
        (Step::Guard, Errno::EINVAL) => advice!(
            "this kernel lacks a flag that the guard needs: Linux 5.14 or newer is needed; here a \
             command can be held without limits, accounting and guard: ",
            "Containment::BestEffort with Supervisor::builder().guard(false)",
            "--containment best-effort --no-guard"
        ),
        (_, errno) if !matches!(errno, Errno::EPERM | Errno::ENOSYS) => return None,
        (Step::Pidfd, _) => advice!(
            "a seccomp filter refuses pidfd_open (kernels before 5.3 lack it): allow pidfd_open \
             and pidfd_send_signal in the container's seccomp profile (that of Docker 20.10 or \
             newer does), or do without limits and accounting: ",
            "Containment::BestEffort (TIDY_PROCESS_CONTAINMENT=best-effort)",
            "--containment best-effort"
        ),
        _ => advice!(
            "a seccomp filter or a kernel before 5.14 refuses what the guard needs: do without by ",
            "Supervisor::builder().guard(false)",
            "--no-guard"
        ),
    })
}

/// The hints of what a sandbox with a view of its own is made of.
fn namespaces(step: Step, errno: Errno) -> Option<Advice> {
    use Step::{Births, IdMap, Mount, Namespaces, Network, Root, SetUp, UserNamespace};
    Some(match (step, errno) {
        (UserNamespace | IdMap | Namespaces | Network | Births, Errno::EPERM | Errno::EACCES) => {
            NAMESPACES_FORBIDDEN
        }
        (UserNamespace | Namespaces | Network, Errno::ENOSPC | Errno::EUSERS) => advice!(
            "the number of namespaces is limited: see /proc/sys/user/max_*_namespaces (sysctl -w \
             user.max_user_namespaces=10000); or choose the level that needs none: ",
            "Sandbox::fence",
            "--fence"
        ),
        (UserNamespace | Namespaces | Network, Errno::EINVAL | Errno::ENOSYS) => advice!(
            "the kernel lacks a namespace (CONFIG_USER_NS, CONFIG_PID_NS, CONFIG_NET_NS, \
             CONFIG_IPC_NS, CONFIG_UTS_NS); choose the level that needs none: ",
            "Sandbox::fence",
            "--fence"
        ),
        (IdMap, Errno::ENOENT) => {
            Advice::same("/proc is not mounted here: mount -t proc proc /proc")
        }
        (Mount | Root, Errno::EPERM | Errno::EACCES) => advice!(
            "this container masks parts of /proc, or forbids mounts: docker run --security-opt \
             systempaths=unconfined --security-opt seccomp=unconfined (podman: --security-opt \
             unmask=ALL); or choose the level that mounts nothing: ",
            "Sandbox::fence",
            "--fence"
        ),
        (Births, Errno::EAGAIN) => Advice::same(
            "no more processes are allowed, and a sandbox needs two beside the command for a \
             moment: see ulimit -u and pids.max of the cgroups above",
        ),
        (Births, Errno::ESRCH) => Advice::same(
            "another process killed it while it was set up, or its memory limit is below 1 MiB",
        ),
        (SetUp, Errno::EACCES | Errno::EPERM | Errno::ENOSYS) => advice!(
            "no program may be executed from memory here: sysctl -w vm.memfd_noexec=0; or choose \
             the level that needs none: ",
            "Sandbox::fence",
            "--fence"
        ),
        (SetUp, Errno::ENOEXEC) => advice!(
            "this library was built where no linker was found for the set-up program: build it \
             anew with one (rust-lld or cc); or choose the level that needs none: ",
            "Sandbox::fence",
            "--fence"
        ),
        _ => return None,
    })
}

const NAMESPACES_FORBIDDEN: Advice = advice!(
    "user namespaces are forbidden here: on Ubuntu sysctl -w \
     kernel.apparmor_restrict_unprivileged_userns=0, on Debian kernel.unprivileged_userns_clone=1, \
     in a container docker run --security-opt seccomp=unconfined; or choose the level that needs \
     none: ",
    "Sandbox::fence",
    "--fence"
);

/// The hints of what is named for a sandbox.
fn view(step: Step, errno: Errno) -> Option<Advice> {
    Some(match (step, errno) {
        (Step::ChdirInside, Errno::ENOENT | Errno::ENOTDIR) => advice!(
            "the sandbox does not show it: name it, or start in another directory: ",
            "Sandbox::read_only or read_write, Command::current_dir(\"/\")",
            "--read or --write, -C /"
        ),
        (_, Errno::ELOOP) => Advice::same(
            "the path leads through a symbolic link, which is not followed: name the path that it \
             leads to (realpath)",
        ),
        (_, Errno::ENOENT) => Advice::same(
            "it is not there; below a directory that is shown, the place has to be there too, \
             since nothing is made in a directory of the host's",
        ),
        (Step::Show, Errno::EINVAL) => Advice::same(
            "of an overlay: the file system knows no id-mapped mounts, which one of root's needs, \
             or may not lie below one: run it as an ordinary user, or on a copy",
        ),
        (_, Errno::ENOTDIR) => Advice::same("a directory covers a directory, a file a file"),
        (_, Errno::EACCES) => Advice::same(
            "every directory on the way needs the x permission for the user of the sandbox, which \
             for root is one that owns nothing",
        ),
        _ => return None,
    })
}

/// The hints of what a child confines itself by.
fn confine(step: Step, errno: Errno) -> Option<Advice> {
    Some(match (step, errno) {
        (Step::CloseFds, Errno::EBADF) => advice!(
            "an fd that it is to inherit is not open: leave it out of ",
            "Sandbox::inherit_fds",
            "--keep-fd"
        ),
        (Step::Overlay | Step::Forward, _) => return None,
        (_, Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM) => return None,
        (Step::Listen, Errno::EBUSY) => advice!(
            "a filter of this process has a listener already (a container's, or it is explained \
             itself), and the kernel allows one: ",
            "leave Sandbox::explain out",
            "leave --explain out"
        ),
        (Step::Landlock, Errno::E2BIG) => {
            Advice::same("it is confined by Landlock 16 times already: nest less deeply")
        }
        _ => advice!(
            "a seccomp filter (a container's profile) or the kernel refuses this call: allow \
             prctl, capset, seccomp, landlock_restrict_self, close_range and prlimit64 there, or \
             do without: ",
            "leave Command::sandbox out",
            "leave --fence out"
        ),
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

/// The hints of writing to the directory of an overlay.
fn commit(errno: Errno) -> Option<&'static str> {
    Some(match errno {
        Errno::EACCES | Errno::EPERM => {
            "the caller may not write there, which the command in its overlay may"
        }
        Errno::EXDEV | Errno::EBUSY => {
            "a file system is mounted there, which no commit writes to: unmount it"
        }
        Errno::ELOOP | Errno::ENOTDIR => {
            "something else has taken a directory's place there, and is not followed"
        }
        Errno::ENOSPC | Errno::EDQUOT => "make room, and commit again: it goes on from there",
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
