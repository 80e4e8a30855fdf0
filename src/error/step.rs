//! The steps of a spawn and a teardown, by the names that errors call them.

use std::fmt;

/// The step that failed; its text opens the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Step {
    FindCgroup2,
    Guard,
    Keeper,
    OpenBase,
    Nest,
    Supervise,
    Lease,
    MakeCgroup,
    OpenCgroup,
    Delegate,
    Prepare,
    Stdio,
    Log,
    Fork,
    Clone,
    Join,
    Groups,
    Gid,
    Uid,
    Chdir,
    ProcessGroup,
    Signals,
    PreExec,
    Exec,
    Wait,
    Ready,
    Read,
    Signal,
    Add,
    Look,
    Freeze,
    Kill,
    Teardown,
    RemoveCgroup,
}

/// The steps the child itself performs, by the byte it sends when one of them fails.
pub(crate) const CHILD_STEPS: [Step; 13] = [
    Step::Join,
    Step::Stdio,
    Step::Groups,
    Step::Gid,
    Step::Uid,
    Step::Chdir,
    Step::ProcessGroup,
    Step::Signals,
    Step::PreExec,
    Step::Exec,
    Step::Guard,
    Step::Fork,
    Step::Keeper,
];

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FindCgroup2 => "find cgroup2",
            Self::Guard => "start guard",
            Self::Keeper => "start keeper",
            Self::OpenBase => "open cgroup base",
            Self::Nest => "make run root in",
            Self::Supervise => "use",
            Self::Lease => "lease run root",
            Self::MakeCgroup => "make cgroup",
            Self::OpenCgroup => "open cgroup",
            Self::Delegate => "delegate cgroup",
            Self::Prepare => "prepare",
            Self::Stdio => "set up stdio",
            Self::Log => "open log",
            Self::Fork => "fork",
            Self::Clone => "clone into cgroup",
            Self::Join => "join cgroup",
            Self::Groups => "setgroups",
            Self::Gid => "setgid",
            Self::Uid => "setuid",
            Self::Chdir => "chdir",
            Self::ProcessGroup => "setpgid",
            Self::Signals => "reset signals",
            Self::PreExec => "pre_exec",
            Self::Exec => "exec",
            Self::Wait => "wait for",
            Self::Ready => "wait until ready:",
            Self::Read => "read output of",
            Self::Signal => "signal",
            Self::Add => "add to cgroup",
            Self::Look => "list processes of",
            Self::Freeze => "freeze cgroup",
            Self::Kill => "kill cgroup",
            Self::Teardown => "tear down cgroup",
            Self::RemoveCgroup => "remove cgroup",
        })
    }
}
