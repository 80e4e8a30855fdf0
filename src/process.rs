//! What can be said of one process: who it is, so that a leftover has a name.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use procfs::Current;
use procfs::process::Process;

use crate::ports::{ListeningPort, listening};

/// One process of a tree, as `/proc` showed it ([proc(5)]).
///
/// The pid is a label to print: the process may have ended since.
///
/// [proc(5)]: https://man7.org/linux/man-pages/man5/proc.5.html
#[derive(Debug, Clone, PartialEq, Eq)]
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
    pub cwd: Option<PathBuf>,
    /// The ports it listens on. Looked up for leftovers only, since that costs more than the rest.
    pub ports: Vec<ListeningPort>,
}

impl ProcessInfo {
    /// Reads `/proc` for each pid; a process that is gone by now has nothing to say.
    ///
    /// Command lines only if asked for: reading one takes the process's memory lock, and hangs
    /// where that hangs in the kernel.
    pub(crate) fn read_all(pids: &[i32], with_command: bool) -> Vec<Self> {
        let now = procfs::Uptime::current().map(|up| Duration::from_secs_f64(up.uptime));
        let now = now.unwrap_or_default();
        pids.iter().filter_map(|&pid| Self::read(pid, now, with_command)).collect()
    }

    fn read(pid: i32, now: Duration, with_command: bool) -> Option<Self> {
        let process = Process::new(pid).ok()?;
        let stat = process.stat().ok()?;
        let started = ticks(stat.starttime);
        let with_command = with_command && stat.state != 'D';
        let command = with_command.then(|| process.cmdline().ok()).flatten();
        let wchan = (stat.state == 'D').then(|| process.wchan().ok()).flatten();
        Some(Self {
            pid: stat.pid.cast_unsigned(),
            ppid: stat.ppid.cast_unsigned(),
            session: stat.session.cast_unsigned(),
            name: stat.comm,
            command: command.unwrap_or_default(),
            state: stat.state,
            wchan: wchan.filter(|place| !place.is_empty() && place != "0"),
            running: now.saturating_sub(started),
            cwd: process.cwd().ok(),
            ports: Vec::new(),
        })
    }

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

    /// Adds the ports that they listen on.
    pub(crate) fn find_ports(all: &mut [Self]) {
        let pids: Vec<i32> = all.iter().map(|process| process.pid.cast_signed()).collect();
        for port in listening(&pids) {
            if let Some(holder) = all.iter_mut().find(|process| process.pid == port.pid) {
                holder.ports.push(port);
            }
        }
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

/// A process chooses its own name: control characters in it must not reach a terminal.
pub(crate) fn printable(text: &str) -> String {
    let plain = |c: char| if c.is_control() { '?' } else { c };
    text.chars().map(plain).collect()
}

fn ticks(ticks: u64) -> Duration {
    Duration::from_millis(ticks.saturating_mul(1000) / procfs::ticks_per_second().max(1))
}
