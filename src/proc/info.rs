//! The description of one process, so that a leftover has a name.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::proc::port::ListeningPort;
use crate::proc::quote::{LINE, enumerated, quoted, shortened};

/// One process of a tree, as `/proc` showed it ([proc(5)]).
///
/// The pid is a label to print: the process may have ended since. What could not be read, and what
/// was cut, is in [`gaps`](Self::gaps): a process of which only the pid is known has an entry too.
///
/// [proc(5)]: https://man7.org/linux/man-pages/man5/proc.5.html
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ProcessInfo {
    /// Process id, in the pid namespace of the caller; 0 for one that has none there.
    pub pid: u32,
    /// Its parent; 1 (or a sub-reaper's pid) for a daemon.
    pub ppid: u32,
    /// Its session id: differs from the main process's after `setsid`.
    pub session: u32,
    /// The kernel's name of it (comm), 15 bytes at the most.
    pub name: String,
    /// Its command line, 4 KiB and 64 words at the most; empty for a zombie, in state `D`, and
    /// where it could not be read.
    pub command: Vec<String>,
    /// The state letter of proc(5): `R`, `S`, `D`, `T`, `t`, `Z`, ...; `?` if it is not known.
    pub state: char,
    /// Where in the kernel it waits; for a process in state `D`, where the kernel says so.
    pub wchan: Option<String>,
    /// How long it has been running.
    pub running: Duration,
    /// Its working directory, where that may be seen.
    #[cfg_attr(feature = "serde", serde(serialize_with = "lossy"))]
    pub cwd: Option<PathBuf>,
    /// The ports it listens on, 64 at the most. Looked up for leftovers only, since that costs more
    /// than the rest.
    pub ports: Vec<ListeningPort>,
    /// What was cut or could not be read.
    pub gaps: Vec<Gap>,
}

/// What a [`ProcessInfo`] lacks, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Gap {
    /// The field of [`ProcessInfo`].
    pub field: &'static str,
    /// Why it is cut or empty.
    pub reason: String,
}

/// The fields that are empty where a process's directory in `/proc` cannot be read.
const STATED: [&str; 5] = ["ppid", "session", "name", "state", "running"];

impl ProcessInfo {
    /// Makes the entry of a process of which only the pid is known.
    pub(crate) fn unread(pid: i32, reason: &str) -> Self {
        let gap = |field| Gap { field, reason: reason.to_owned() };
        Self {
            pid: pid.cast_unsigned(),
            ppid: 0,
            session: 0,
            name: String::new(),
            command: Vec::new(),
            state: '?',
            wchan: None,
            running: Duration::ZERO,
            cwd: None,
            ports: Vec::new(),
            gaps: STATED.into_iter().chain(["command"]).map(gap).collect(),
        }
    }

    /// Notes why a field is cut or empty, in place of what was noted before.
    pub(crate) fn lacks(&mut self, field: &'static str, reason: impl Into<String>) {
        self.has(field);
        self.gaps.push(Gap { field, reason: reason.into() });
    }

    pub(crate) fn listens(&mut self, ports: Vec<ListeningPort>, cut: Option<String>) {
        self.ports = ports;
        cut.into_iter().for_each(|cut| self.lacks("ports", cut));
    }

    /// Removes the note on this field: it is whole now.
    pub(crate) fn has(&mut self, field: &str) {
        self.gaps.retain(|gap| gap.field != field);
    }

    fn gap(&self, field: &str) -> Option<&str> {
        self.gaps.iter().find(|gap| gap.field == field).map(|gap| &*gap.reason)
    }

    /// Describes a leftover, besides its name: `parent 1, session 4711, running 2.0 s, in "/srv",
    /// listening on tcp 127.0.0.1:8080`.
    #[must_use]
    pub fn particulars(&self) -> String {
        let Self { ppid, session, running, .. } = self;
        let age = running.as_secs_f64();
        let mut text = match self.gap("state") {
            Some(reason) => quoted(reason),
            None => format!("parent {ppid}, session {session}, running {age:.1} s"),
        };
        if let Some(cwd) = &self.cwd {
            text += &format!(", in {}", shortened(&quoted(&format!("{cwd:?}")), LINE / 2));
        }
        if !self.ports.is_empty() {
            let ports = self.ports.iter().map(|port| format!("{} {}", port.protocol, port.address));
            let ports: Vec<String> = ports.collect();
            text += &match ports.as_slice() {
                [first, second] => format!(", listening on {first} and {second}"),
                all => format!(", listening on {}", enumerated(all, all.len(), LINE / 2)),
            };
        }
        match self.gap("command").filter(|_| self.gap("state").is_none()) {
            Some(reason) => text + ", command line " + &quoted(reason),
            None => text,
        }
    }

    /// Describes the process on one bounded line, with its name.
    pub(crate) fn in_full(&self) -> String {
        shortened(&format!("{self:.100} ({})", self.particulars()), LINE)
    }

    /// Describes a process that outlived SIGKILL, with what the kernel says it waits for.
    pub(crate) fn stuck(&self) -> String {
        let wchan = quoted(self.wchan.as_deref().unwrap_or("?"));
        let Self { pid, name, state, .. } = self;
        let name = if name.is_empty() { "?" } else { name };
        format!("{pid} {} (state {state}, wchan {})", quoted(name), shortened(&wchan, 64))
    }
}

/// `4711 redis-server *:6379`, quoted, and 200 characters at the most; a precision (`{:.80}`) is
/// another bound.
impl fmt::Display for ProcessInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = match (self.command.is_empty(), self.name.is_empty()) {
            (false, _) => self.command.join(" "),
            (true, false) => format!("[{}]", self.name),
            (true, true) => "[?]".to_owned(),
        };
        let line = format!("{} {}", self.pid, quoted(said.trim_end()));
        f.write_str(&shortened(&line, f.precision().unwrap_or(LINE)))
    }
}

/// The first of some processes, described; all of them counted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Survey {
    pub(crate) named: Vec<ProcessInfo>,
    pub(crate) count: usize,
}

impl Survey {
    /// The most processes that are named; the rest is counted.
    pub(crate) const NAMED: usize = 100;

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn push(&mut self, process: ProcessInfo) {
        self.count += 1;
        if self.named.len() < Self::NAMED {
            self.named.push(process);
        }
    }

    /// Adds another survey's processes, as far as there is room for names.
    pub(crate) fn extend(&mut self, other: &Self) {
        let room = Self::NAMED.saturating_sub(self.named.len());
        self.named.extend(other.named.iter().take(room).cloned());
        self.count += other.count;
    }

    /// Removes the named processes for which this is false, from the count too.
    pub(crate) fn retain(&mut self, counts: impl Fn(&ProcessInfo) -> bool) {
        let before = self.named.len();
        self.named.retain(counts);
        self.count -= before - self.named.len();
    }
}

/// Serializes a path with bytes that are no UTF-8 replaced: a process chooses the name of its
/// directory, and an odd one must not cost the report.
#[cfg(feature = "serde")]
fn lossy<S: serde::Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    let text = path.as_ref().map(|path| path.to_string_lossy());
    serde::Serialize::serialize(&text, serializer)
}
