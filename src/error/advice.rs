//! What to do about an error, in words for a program and for a command line.
//!
//! A program that uses the library cannot give the tool's options, and one that has the tool need
//! not know the library's names: where the remedy is one of ours it has two wordings.

use std::path::Path;

use crate::sys;

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Advice {
    /// In a program that uses the library.
    pub(crate) coded: &'static str,
    /// On a command line of the tool.
    pub(crate) typed: &'static str,
}

impl Advice {
    /// The same for both.
    pub(crate) const fn same(text: &'static str) -> Self {
        Self { coded: text, typed: text }
    }

    /// Chooses by whether systemd runs here, which could delegate a cgroup.
    pub(crate) fn here(with_systemd: Self, without: Self) -> Self {
        // As sd_booted(3) tells it.
        if Path::new("/run/systemd/system").is_dir() { with_systemd } else { without }
    }
}

impl From<&'static str> for Advice {
    fn from(text: &'static str) -> Self {
        Self::same(text)
    }
}

/// `coded` ends in the library's words, `typed` in the tool's; what both begin with is said once.
macro_rules! advice {
    ($both:literal, $coded:literal, $typed:literal) => {
        Advice { coded: concat!($both, $coded), typed: concat!($both, $typed) }
    };
}
pub(crate) use advice;

pub(crate) const CONFINED_OR_DELEGATED: Advice = advice!(
    "a confined command has no cgroups to subdivide: leave out ",
    "Command::delegate, or the sandbox",
    "--delegate, or --fence"
);
pub(crate) const NOT_OURS_TO_CONFINE: Advice =
    Advice::same("start it as a Command of the supervisor, or in one without a sandbox");

/// Where this process stands in a fence itself.
const IN_A_FENCE: Advice = advice!(
    "this process is confined (by a fence, or a sandbox like it) and makes no cgroups: start the \
     inner command without tidy-process, which changes nothing for what ends it, or without \
     limits and accounting: ",
    "Containment::BestEffort",
    "--containment best-effort"
);

pub(crate) const SURVIVORS: Advice = Advice::same(
    "they got SIGKILL and go as soon as the kernel lets them (state D waits for a device or file \
     system); the cgroup is removed once it is empty",
);

pub(crate) const MOUNTED: Advice = advice!(
    "the command mounted it, and it is not ours to remove: umount it (umount -R), then ",
    "sweep (tidy_process::sweep)",
    "run tidy-process sweep"
);

pub(crate) const KEPT_SURVIVORS: Advice = Advice::same(
    "their keeper goes on killing them: in state D they go as soon as the kernel lets them; a \
     process of another user (sudo, su) ends by itself, or root ends it",
);

pub(crate) const NO_CGROUP2: Advice = advice!(
    "mount the unified hierarchy: mount -t cgroup2 none /sys/fs/cgroup (systemd hosts do this; in \
     a container, run it with a writable cgroup namespace), or do without limits and accounting: ",
    "Containment::BestEffort (TIDY_PROCESS_CONTAINMENT=best-effort)",
    "--containment best-effort"
);
pub(crate) const NOT_CGROUP2: Advice =
    Advice::same("give a directory below the cgroup2 mount, for example /sys/fs/cgroup/my-group");

pub(crate) const NESTED: Advice = Advice {
    coded: "leave the base out: the run root is then made in the tree around this process; \
            Command::delegate of the outer command gives it a cgroup with controllers",
    typed: "leave the base out (--parent): the run root is then made in the tree around this \
            process; --delegate of the outer command gives it a cgroup with controllers",
};
pub(crate) const OTHER_SUPERVISOR: Advice = Advice::same(
    "make a supervisor of this process's own, after the fork or the close: Supervisor::builder, \
     or Supervisor::set_global",
);

/// The parent of a process that was put into a pid namespace by it.
pub(crate) const OUTSIDE: Advice = advice!(
    "what is to end with its parent has to be in the parent's pid namespace: ",
    "have the parent end the namespace's first process, which ends all in it",
    "put tidy-process before the command that makes the namespace (docker run, unshare), or leave \
     --die-with-parent out: the end of the namespace ends all in it"
);
/// Process 1 of another session is the parent.
pub(crate) const ADOPTED: Advice = advice!(
    "nothing was started; where process 1 itself starts this there is nothing to die with: with \
     it ",
    "all ends",
    "all ends; leave --die-with-parent out there, or name it: --die-with-parent=1"
);
pub(crate) const PARTNER_GONE: Advice =
    Advice::same("nothing was started: what would have been told of its end is gone");

pub(crate) const NEEDS_CGROUP: Advice = advice!(
    "run it where a cgroup can be made; ",
    "Containment::Cgroup is an error that says what is missing for that",
    "tidy-process run --containment cgroup says what is missing for that"
);
pub(crate) const KEEPER_LOST: Advice = Advice::same(
    "processes of the same user can kill a keeper: run the command as another user, or where a \
     cgroup can be made",
);

pub(crate) const TAKEN: Advice = Advice::same(
    "end that process, or choose another port; a server of an earlier run that was killed by its \
     pid alone may have left it behind",
);
pub(crate) const HELD_BACK: Advice = Advice::same(
    "its log is empty: a program that writes to a file or a pipe may hold its lines back until \
     there are some KiB of them; let it flush each (PYTHONUNBUFFERED=1, stdbuf -oL CMD), or wait \
     for its port",
);
pub(crate) const UNWATCHED: Advice =
    Advice::same("give it to the Command: every wait on its child watches it");
pub(crate) const TIMED_OUT: Advice = Advice::same(
    "give it more time (timeout, cpu_time), or use run() or output(), whose report says the cause \
     beside the status",
);

const READ_ONLY: Advice = advice!(
    "this container's cgroupfs is read-only: start the container with a writable one (docker run \
     --security-opt writable-cgroups=true, before Docker 28 --privileged --cgroupns=private; \
     podman run --security-opt unmask=/sys/fs/cgroup), or do without limits and accounting: ",
    "Containment::BestEffort (TIDY_PROCESS_CONTAINMENT=best-effort)",
    "--containment best-effort"
);

/// In a pod nobody can type an engine's options.
const READ_ONLY_IN_A_POD: Advice = advice!(
    "this pod's cgroupfs is read-only: have it mounted writable (containerd 2.1: cgroup_writable \
     = true in the runtime's section of the node's configuration; CRI-O: the annotation \
     io.kubernetes.cri-o.cgroup2-mount-hierarchy-rw: \"true\", which its allowed_annotations has \
     to list; else securityContext: {privileged: true}), or do without limits and accounting: ",
    "Containment::BestEffort (TIDY_PROCESS_CONTAINMENT=best-effort)",
    "--containment best-effort"
);

pub(crate) fn read_only() -> Advice {
    // The kubelet sets it in every container of a pod.
    let in_a_pod = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some_and(|host| !host.is_empty());
    if in_a_pod { READ_ONLY_IN_A_POD } else { READ_ONLY }
}

/// Whether this process is part of a job of Slurm, which has put it where it is and looks for it
/// there.
pub(crate) fn in_slurm_job() -> bool {
    std::env::var_os("SLURM_JOB_ID").is_some_and(|id| !id.is_empty())
}

const IN_A_JOB: Advice = advice!(
    "no delegated cgroup in this job of Slurm: do without limits and accounting: ",
    "Containment::BestEffort (TIDY_PROCESS_CONTAINMENT=best-effort)",
    "--containment best-effort; limits are the job's (srun --mem, --cpus-per-task)"
);

pub(crate) fn not_delegated() -> Advice {
    if sys::is_fenced() {
        return IN_A_FENCE;
    }
    if in_slurm_job() {
        return IN_A_JOB;
    }
    Advice::here(
        advice!(
            "no delegated cgroup: run it as systemd-run --user --scope -p Delegate=yes -- CMD, or \
             name a cgroup of yours ",
            "with SupervisorBuilder::base or TIDY_PROCESS_PARENT, or do without limits and \
             accounting: Containment::BestEffort (TIDY_PROCESS_CONTAINMENT=best-effort)",
            "with --parent or TIDY_PROCESS_PARENT, or do without limits and accounting: \
             --containment best-effort"
        ),
        advice!(
            "no delegated cgroup: let root make one, give it to you (chown of the directory and \
             its cgroup.procs) and put your shell in it (tidy-process doctor shows the commands), \
             or name a cgroup of yours ",
            "with SupervisorBuilder::base or TIDY_PROCESS_PARENT, or do without limits and \
             accounting: Containment::BestEffort (TIDY_PROCESS_CONTAINMENT=best-effort)",
            "with --parent or TIDY_PROCESS_PARENT, or do without limits and accounting: \
             --containment best-effort"
        ),
    )
}

pub(crate) const REMOVED: Advice =
    Advice::same("another process removed this cgroup meanwhile; start again");
