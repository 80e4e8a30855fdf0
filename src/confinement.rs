//! The levels of confinement, and the properties that each of them promises.

use std::fmt;

/// A level of confinement beyond that of every command (all its processes die with it).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Level {
    /// It cannot leave its cgroup, touch what supervises it, or gain privileges.
    Fence,
    /// Besides, it sees and writes only what is named, and has processes, IPC and a network of its
    /// own.
    Sandbox,
}

impl Level {
    /// The properties that it promises.
    #[must_use]
    pub fn properties(self) -> &'static [Property] {
        match self {
            Self::Fence => &[Property::Inside, Property::Apart, Property::Unprivileged],
            Self::Sandbox => &[
                Property::Inside,
                Property::Apart,
                Property::Unprivileged,
                Property::Writes,
                Property::View,
                Property::Network,
                Property::Processes,
            ],
        }
    }
}

/// `fence`
impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fence => "fence",
            Self::Sandbox => "sandbox",
        })
    }
}

/// A property of a confined command. It is enforced, or the spawn fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Property {
    /// No process of it leaves its cgroup, makes or changes one.
    Inside,
    /// It cannot signal, trace, renice, limit or freeze a process outside: not the supervisor, not
    /// the guard, no sibling.
    Apart,
    /// No set-id program, user namespace, keyring, io_uring or BPF gives it more rights, and it can
    /// type nothing into its terminal.
    Unprivileged,
    /// It writes only to what is named, and to files of its own that end with it.
    Writes,
    /// It sees no file, variable or fd but what is named.
    View,
    /// It has no network, or one of its own, unless the host's is asked for.
    Network,
    /// It sees and reaches no process and no IPC but its own; its main process is not the first one
    /// there, and orphans are reaped.
    Processes,
}

impl Property {
    /// Its name: `inside`, `apart`, `unprivileged`, `writes`, `view`, `network`, `processes`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Inside => "inside",
            Self::Apart => "apart",
            Self::Unprivileged => "unprivileged",
            Self::Writes => "writes",
            Self::View => "view",
            Self::Network => "network",
            Self::Processes => "processes",
        }
    }
}

/// `cannot leave its cgroup`
impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inside => "cannot leave its cgroup",
            Self::Apart => "cannot touch processes outside",
            Self::Unprivileged => "gains no privileges",
            Self::Writes => "writes only what is named",
            Self::View => "sees only what is named",
            Self::Network => "has its own network or none",
            Self::Processes => "has its own processes and IPC",
        })
    }
}

/// How a command was confined.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Confined {
    /// The level, with all its properties.
    pub level: Level,
    /// The mechanisms of the kernel that enforce them.
    pub mechanisms: Vec<&'static str>,
    /// System calls that the caller allowed beside.
    pub excepted: Vec<String>,
}

/// `fence (no-new-privs, landlock, seccomp) except ptrace`
impl fmt::Display for Confined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.level, self.mechanisms.join(", "))?;
        if self.excepted.is_empty() {
            return Ok(());
        }
        write!(f, " except {}", self.excepted.join(", "))
    }
}
