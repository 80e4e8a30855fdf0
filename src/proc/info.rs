//! What can be said of one process: who it is, so that a leftover has a name.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::proc::port::{ListeningPort, printable};

/// One process of a tree, as `/proc` showed it ([proc(5)]).
///
/// The pid is a label to print: the process may have ended since.
///
/// [proc(5)]: https://man7.org/linux/man-pages/man5/proc.5.html
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ProcessInfo {
    /// Process id, in the pid namespace of the caller.
    pub pid: u32,
    /// Its parent; 1 (or a sub-reaper's pid) for a daemon.
    pub ppid: u32,
    /// Its session id: differs from the main process's after `setsid`.
    pub session: u32,
    /// The kernel's name of it (comm), 15 bytes at the most.
    pub name: String,
    /// Its command line; empty for a zombie, in state `D`, and where it may not be read.
    pub command: Vec<String>,
    /// The state letter of proc(5): `R`, `S`, `D`, `T`, `t`, `Z`, ...
    pub state: char,
    /// Where in the kernel it waits; for a process in state `D`, where the kernel says so.
    pub wchan: Option<String>,
    /// How long it has been running.
    pub running: Duration,
    /// Its working directory, where that may be seen.
    #[cfg_attr(feature = "serde", serde(serialize_with = "lossy"))]
    pub cwd: Option<PathBuf>,
    /// The ports it listens on. Looked up for leftovers only, since that costs more than the rest.
    pub ports: Vec<ListeningPort>,
}

impl ProcessInfo {
    /// What a person wants to know of a leftover besides its name: `parent 1, session 4711, running
    /// 2.0 s, in "/srv", listening on tcp 127.0.0.1:8080`.
    #[must_use]
    pub fn particulars(&self) -> String {
        let Self { ppid, session, running, .. } = self;
        let age = running.as_secs_f64();
        let mut text = format!("parent {ppid}, session {session}, running {age:.1} s");
        if let Some(cwd) = &self.cwd {
            text += &format!(", in {cwd:?}");
        }
        if !self.ports.is_empty() {
            let ports = self.ports.iter().map(|port| format!("{} {}", port.protocol, port.address));
            text += &format!(", listening on {}", ports.collect::<Vec<_>>().join(" and "));
        }
        text
    }

    /// For a process that outlived SIGKILL: what the kernel says it waits for.
    pub(crate) fn stuck(&self) -> String {
        let wchan = self.wchan.as_deref().unwrap_or("?");
        let Self { pid, name, state, .. } = self;
        format!("{pid} {} (state {state}, wchan {wchan})", printable(name))
    }
}

/// `4711 redis-server *:6379`
impl fmt::Display for ProcessInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = if self.command.is_empty() {
            format!("[{}]", self.name)
        } else {
            self.command.join(" ")
        };
        write!(f, "{} {}", self.pid, printable(said.trim_end()))
    }
}

/// A process chooses its directory, whose name need not be UTF-8: that must not cost the report.
#[cfg(feature = "serde")]
fn lossy<S: serde::Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    let text = path.as_ref().map(|path| path.to_string_lossy());
    serde::Serialize::serialize(&text, serializer)
}
