//! The steps of a spawn and a teardown, by the names that errors call them.

use std::fmt;

macro_rules! steps {
    ($($step:ident: $name:literal,)*) => {
        /// The step that failed; its text opens the message.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum Step {
            $($step,)*
        }

        impl Step {
            /// In the order of their numbers.
            const ALL: &[Self] = &[$(Self::$step,)*];
        }

        impl Step {
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$step => $name,)*
                }
            }
        }
    };
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

steps! {
    FindCgroup2: "find cgroup2",
    Guard: "start guard",
    Keeper: "start keeper",
    OpenBase: "open cgroup base",
    Nest: "make run root in",
    Supervise: "use",
    Lease: "lease run root",
    MakeCgroup: "make cgroup",
    OpenCgroup: "open cgroup",
    Delegate: "delegate cgroup",
    Prepare: "prepare",
    Stdio: "set up stdio",
    Log: "open log",
    Record: "record",
    Fork: "fork",
    Clone: "clone into cgroup",
    Join: "join cgroup",
    Groups: "setgroups",
    Gid: "setgid",
    Uid: "setuid",
    Chdir: "chdir",
    Session: "setsid",
    ProcessGroup: "setpgid",
    Signals: "reset signals",
    PreExec: "pre_exec",
    InheritFds: "inherit fds",
    CoreLimit: "confine (core dumps, prlimit)",
    CloseFds: "confine (other fds, close_range)",
    Capabilities: "confine (capabilities, capset)",
    NoNewPrivs: "confine (no new privileges, prctl)",
    Landlock: "confine (processes and cgroups outside, landlock)",
    Seccomp: "confine (system calls, seccomp)",
    Listen: "explain (listener of the filter, seccomp)",
    SetUp: "confine (set-up program, execveat)",
    UserNamespace: "confine (user namespace, unshare)",
    IdMap: "confine (user of the namespace, /proc/self/uid_map)",
    Namespaces: "confine (mount, pid, ipc, uts and cgroup namespaces, unshare)",
    Network: "confine (network namespace)",
    Births: "confine (init and main, clone)",
    Template: "confine (namespaces of a template, setns)",
    Root: "confine (a root of its own, mount)",
    Mount: "confine (mount)",
    Overlay: "confine (overlay)",
    Forward: "confine (port of its network, listen)",
    Show: "show in the sandbox:",
    ChdirInside: "chdir in the sandbox to",
    Exec: "exec",
    Wait: "wait for",
    Ready: "wait until ready:",
    Read: "read output of",
    Signal: "signal",
    Add: "add to cgroup",
    Look: "list processes of",
    Freeze: "freeze cgroup",
    Kill: "kill cgroup",
    Teardown: "tear down cgroup",
    RemoveCgroup: "remove cgroup",
    Pidfd: "open pidfd (pidfd_open) of",
    Changes: "list changes:",
    Commit: "commit",
    DieWith: "die with",
}

impl Step {
    /// Whether a child takes it to confine itself.
    pub(crate) fn confines(self) -> bool {
        use Step::{
            Births, Capabilities, CloseFds, CoreLimit, Forward, IdMap, Landlock, Listen, Mount,
            Namespaces, Network, NoNewPrivs, Overlay, Root, Seccomp, SetUp, UserNamespace,
        };
        let rights = matches!(self, Capabilities | CoreLimit | NoNewPrivs);
        let fence = rights || matches!(self, CloseFds | Landlock | Listen | Seccomp);
        let namespaces = matches!(self, UserNamespace | IdMap | Namespaces | Network | Births);
        fence || namespaces || matches!(self, SetUp | Root | Mount | Overlay | Forward)
    }

    /// The step of this number, as a child sends it; exec for a number that is none.
    pub(crate) fn of(number: u32) -> Self {
        let place = usize::try_from(number).ok();
        place.and_then(|place| Self::ALL.get(place)).copied().unwrap_or(Self::Exec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_has_its_number() {
        for step in Step::ALL {
            assert_eq!(Step::of(*step as u32), *step);
        }
        assert_eq!(Step::of(255), Step::Exec);
    }
}
