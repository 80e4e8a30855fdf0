//! What the machine knows: is the port free, which process has it, what is left of this run.
//!
//! Of processes that are not of this run only the names and the links in `/proc/PID/fd` are read:
//! a process may make a reader of its command line or environment wait for as long as it likes.

use std::fmt;
use std::fs;
use std::io::{ErrorKind, PipeReader, PipeWriter, Write, pipe};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};

use crate::Result;

/// One experiment at a time for each port: a name in the abstract namespace of Unix sockets, which
/// goes with this process however that ends.
pub(crate) fn claim(port: u16) -> Result<UnixListener> {
    let name = format!("tidy-process experiment on port {port}");
    let claimed = SocketAddr::from_abstract_name(&name).and_then(|at| UnixListener::bind_addr(&at));
    claimed.map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => format!(
            "another experiment is using port {port}: wait until it has ended, or give this one \
             another port with --port"
        )
        .into(),
        _ => format!("cannot bind the Unix socket @{name}: {error}").into(),
    })
}

/// What tells whether a process of this run is left: the write end of a pipe whose read end is the
/// server's standard input, and so that of every process that descends from it.
pub(crate) struct Line(PipeWriter);

/// The line, and the end that goes to the server.
pub(crate) fn line() -> Result<(Line, PipeReader)> {
    let (reader, writer) = pipe().map_err(|error| format!("cannot make a pipe: {error}"))?;
    Ok((Line(writer), reader))
}

impl Line {
    /// Whether a process has the other end open: if not, the kernel refuses a write (`EPIPE`).
    pub(crate) fn is_held(&mut self) -> Result<bool> {
        match self.0.write(b"\n") {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(format!("cannot write to the server's pipe: {error}").into()),
        }
    }

    /// The processes that have it open, this one excepted.
    pub(crate) fn holders(&self) -> Result<Vec<Process>> {
        let this = format!("/proc/self/fd/{}", self.0.as_raw_fd());
        let pipe = fs::read_link(&this).map_err(|error| format!("cannot read {this}: {error}"))?;
        let others = pids().filter(|pid| *pid != std::process::id() && holds(*pid, &[&pipe]));
        Ok(others.map(Process::of_ours).collect())
    }

    /// Ok if the port is free and no process of this run is alive.
    pub(crate) fn require_clean(&mut self, port: u16) -> Result<()> {
        require_free(port)?;
        if !self.is_held()? {
            return Ok(());
        }
        let left: Vec<String> = self.holders()?.iter().map(ToString::to_string).collect();
        Err(format!("left of the server: {}", left.join(", ")).into())
    }
}

pub(crate) struct Process {
    pub(crate) pid: u32,
    name: String,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.pid, self.name)
    }
}

impl Process {
    /// With its command line.
    fn of_ours(pid: u32) -> Self {
        Self { pid, name: read(pid, "cmdline") }
    }

    /// With the kernel's name of it alone.
    fn of_others(pid: u32) -> Self {
        Self { pid, name: format!("({})", read(pid, "comm")) }
    }

    /// Whether it has one of these sockets open.
    pub(crate) fn holds(&self, sockets: &[PathBuf]) -> bool {
        holds(self.pid, sockets)
    }
}

/// NUL separates the words, and nothing else that a terminal obeys may pass either.
fn read(pid: u32, file: &str) -> String {
    let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace(char::is_control, " ").trim_end().into()
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Whether the process has one of these open; false for one that is gone or not ours to look at.
fn holds(pid: u32, targets: &[impl AsRef<Path>]) -> bool {
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    fds.filter_map(|fd| fs::read_link(fd.path()).ok())
        .any(|link| targets.iter().any(|target| target.as_ref() == link))
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

/// Ok if the port can be bound right now, as a server would; otherwise an error that names the
/// process that has it.
pub(crate) fn require_free(port: u16) -> Result<()> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            let holder = holder(port);
            Err(format!(
                "port {port} is in use by {holder}: end it, or choose another port with --port"
            )
            .into())
        }
        Err(error) => Err(format!("port {port} cannot be bound: {error}").into()),
    }
}

fn holder(port: u16) -> String {
    let sockets = listening_sockets(port);
    match pids().find(|pid| holds(*pid, &sockets)) {
        Some(pid) => format!("process {}", Process::of_others(pid)),
        None => "a process that cannot be seen from here".into(),
    }
}
