//! What the machine knows: is the port free, who holds it, which processes belong to this run.

use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;

use crate::Result;

/// An environment variable that the server is started with, and that all its descendants inherit.
pub(crate) const MARKER: &str = "TIDY_EXPERIMENT_RUN";

/// The marker's value: this process's number.
pub(crate) fn run_name() -> String {
    std::process::id().to_string()
}

pub(crate) struct Process {
    pub(crate) pid: u32,
    command: String,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.pid, self.command)
    }
}

impl Process {
    fn dir(&self) -> PathBuf {
        format!("/proc/{}", self.pid).into()
    }

    fn is_marked(&self) -> bool {
        let mark = format!("{MARKER}={}", run_name());
        // A process that is gone, or not ours to look at, has none.
        let environ = fs::read(self.dir().join("environ")).unwrap_or_default();
        environ.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
    }

    /// Whether it has one of these sockets open.
    pub(crate) fn holds(&self, sockets: &[PathBuf]) -> bool {
        let fds = fs::read_dir(self.dir().join("fd")).into_iter().flatten().flatten();
        fds.filter_map(|fd| fs::read_link(fd.path()).ok()).any(|target| sockets.contains(&target))
    }
}

/// The live processes that were started by this run.
pub(crate) fn marked() -> Vec<Process> {
    processes().filter(Process::is_marked).collect()
}

fn processes() -> impl Iterator<Item = Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let words = fs::read(entry.path().join("cmdline")).ok()?;
        // NUL separates the words, and nothing else that a terminal obeys may pass either.
        let command = String::from_utf8_lossy(&words).replace(char::is_control, " ");
        Some(Process { pid, command: command.trim_end().into() })
    })
}

/// The sockets that listen on `port`, as the links in /proc/PID/fd name them.
pub(crate) fn listening_sockets(port: u16) -> Vec<PathBuf> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let table = read("/proc/net/tcp") + &read("/proc/net/tcp6");
    table.lines().filter_map(|line| listening_socket(line, port)).collect()
}

/// `sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode ...`, where an address
/// ends in `:PORT` in hex (proc(5)).
fn listening_socket(line: &str, port: u16) -> Option<PathBuf> {
    const LISTEN: &str = "0A";
    let fields: Vec<&str> = line.split_whitespace().collect();
    let here = fields.get(1)?.ends_with(&format!(":{port:04X}")) && *fields.get(3)? == LISTEN;
    here.then(|| format!("socket:[{}]", fields.get(9).unwrap_or(&"?")).into())
}

/// Ok if the port can be bound right now, as a server would; otherwise an error that says who has
/// it.
pub(crate) fn require_free(port: u16) -> Result<()> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            Err(format!("port {port} is in use by {}", holder(port)).into())
        }
        Err(error) => Err(format!("port {port} cannot be bound: {error}").into()),
    }
}

/// Ok if the port is free and no process of this run is alive.
pub(crate) fn require_clean(port: u16) -> Result<()> {
    require_free(port)?;
    match marked().first() {
        Some(process) => Err(format!("process {process} is left").into()),
        None => Ok(()),
    }
}

fn holder(port: u16) -> String {
    let sockets = listening_sockets(port);
    match processes().find(|process| process.holds(&sockets)) {
        Some(process) => format!("process {process}"),
        None => "a process that cannot be seen from here".into(),
    }
}
