//! What a confined command was denied: values.

use std::fmt;

use crate::confinement::Property;

/// Something that a command has tried and that its level of confinement denies; see
/// [`Sandbox::explain`](crate::Sandbox::explain).
///
/// Names and paths are the command's own words: one line each, without what a terminal obeys.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Denied {
    /// What it has tried.
    pub action: Action,
    /// On what: a path, an address; for a refused system call, with which arguments, or nothing.
    pub target: String,
    /// The system call.
    pub call: &'static str,
    /// The name of the process, and its pid.
    pub name: String,
    /// The pid as this process sees it.
    pub pid: u32,
    /// The option of the tool that allows it: `--write /etc`. A setting of the sandbox is behind
    /// each: `read_only`, `read_write`, `network`, `allow_syscall`. None where nothing does.
    pub remedy: Option<String>,
    /// What stands in the way besides, or what is given up so.
    pub remark: Option<String>,
    /// How often the same remedy was missing.
    pub times: usize,
}

/// What was denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Action {
    /// To find or read what is at a path.
    Read,
    /// To make, change or remove what is at a path.
    Write,
    /// To reach an address.
    Connect,
    /// To be reached at an address.
    Bind,
    /// A system call with these arguments.
    Call,
}

/// `write`
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Connect => "connect to",
            Self::Bind => "bind",
            Self::Call => "call",
        })
    }
}

/// `write /etc/passwd (openat, python3 4711): allow it with --write /etc`
impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { action, target, call, name, pid, .. } = self;
        match (action, &**target) {
            (Action::Call, "") => write!(f, "{call} ({name} {pid})")?,
            (Action::Call, when) => write!(f, "{call}: {when} ({name} {pid})")?,
            _ => write!(f, "{action} {target} ({call}, {name} {pid})")?,
        }
        if self.times > 1 {
            write!(f, " and {} more", self.times - 1)?;
        }
        match (&self.remedy, &self.remark) {
            (Some(remedy), None) => write!(f, ": allow it with {remedy}"),
            (Some(remedy), Some(remark)) => write!(f, ": allow it with {remedy}; {remark}"),
            (None, Some(remark)) => write!(f, ": {remark}"),
            (None, None) => Ok(()),
        }
    }
}

/// What was denied, in the order in which it was tried first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Denials {
    pub(crate) all: Vec<Denied>,
    /// How many different ones there were.
    pub(crate) count: usize,
}

/// Says what a refused call would give up.
pub(crate) fn cost(property: Property) -> String {
    format!("that gives up the promise that it {property}")
}
