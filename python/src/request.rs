//! One spawn: what Python asks for, as a command of the library's.
//!
//! # Safety
//! One of the two files with `unsafe` in them: fds are lent by number, and a fork that runs
//! `preexec_fn` is announced to the interpreter as `os.fork` announces its own.
#![expect(unsafe_code, reason = "fds by number, and the interpreter's fork hooks")]

use std::ffi::OsString;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use tidy_process::{Command, Stdio};

use crate::child::NativeChild;
use crate::error::raise;
use crate::home;
use crate::limits::Limited;
use crate::values::{Log, Sandbox};

/// What `_popen.py` puts together.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Request {
    argv: Vec<Vec<u8>>,
    executable: Option<Vec<u8>>,
    env: Option<Vec<(Vec<u8>, Vec<u8>)>>,
    cwd: Option<Vec<u8>>,
    streams: [i32; 3],
    fds: Option<Vec<i32>>,
    restore_signals: bool,
    session: bool,
    process_group: Option<i32>,
    umask: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    groups: Option<Vec<u32>>,
    preexec: Option<Py<PyAny>>,
}

/// What subprocess does not know.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Additions {
    deadline: Option<f64>,
    grace: Option<f64>,
    stop_signal: Option<i32>,
    stop_main_only: bool,
    limits: Option<Limited>,
    sandbox: Option<Py<Sandbox>>,
    log: Option<Py<Log>>,
    name: Option<Vec<u8>>,
    linger: bool,
    die_with: Option<u32>,
}

pub(crate) fn duration(seconds: f64) -> PyResult<Duration> {
    let time = Duration::try_from_secs_f64(seconds.max(0.0));
    time.map_err(|_| PyValueError::new_err(format!("{seconds} is no number of seconds")))
}

/// Starts a command. The GIL is released unless there is a `preexec_fn`.
#[pyfunction]
#[pyo3(signature = (request, additions))]
pub(crate) fn spawn(
    py: Python<'_>,
    request: &Bound<'_, PyAny>,
    additions: Option<&Bound<'_, PyAny>>,
) -> PyResult<NativeChild> {
    let request: Request = request.extract()?;
    let mut command = request.command()?;
    command.supervisor(&home::supervisor(py)?);
    if let Some(additions) = additions {
        additions.extract::<Additions>()?.apply(&mut command)?;
    }
    let Some(preexec) = request.preexec else {
        return match py.detach(|| command.spawn()) {
            Ok(child) => NativeChild::new(child),
            Err(error) => Err(raise(py, &error)),
        };
    };
    let call = move || in_fork(&preexec);
    // SAFETY: as subprocess has it, what the function does is its author's obligation.
    unsafe { command.pre_exec(call) };
    // SAFETY: the GIL is held.
    unsafe { pyo3::ffi::PyOS_BeforeFork() };
    let spawned = command.spawn();
    // SAFETY: as above, in the process that has forked.
    unsafe { pyo3::ffi::PyOS_AfterFork_Parent() };
    match spawned {
        Ok(child) => NativeChild::new(child),
        Err(error) => Err(raise(py, &error)),
    }
}

/// Runs `preexec_fn` in the fork, whose only thread holds the GIL.
fn in_fork(preexec: &Py<PyAny>) -> io::Result<()> {
    // SAFETY: this is the fork.
    unsafe { pyo3::ffi::PyOS_AfterFork_Child() };
    let called = Python::attach(|py| preexec.call0(py).is_ok());
    if called { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EINVAL)) }
}

impl Request {
    fn command(&self) -> PyResult<Command> {
        let os = |bytes: &Vec<u8>| OsString::from_vec(bytes.clone());
        let (first, rest) = match self.argv.split_first() {
            Some((first, rest)) => (os(first), rest),
            None => return Err(PyValueError::new_err("there is no program in the arguments")),
        };
        let mut command = match &self.executable {
            Some(executable) => {
                let mut command = Command::new(os(executable));
                command.arg0(first);
                command
            }
            None => Command::new(first),
        };
        command.args(rest.iter().map(os));
        match &self.env {
            Some(env) => {
                command.env_clear().envs(env.iter().map(|(key, value)| (os(key), os(value))));
            }
            // With the GIL (without one there is an `env`): `os.putenv` of another thread moves the
            // C library's table, which the spawn itself would read meanwhile.
            None => {
                command.inherit_env_now();
            }
        }
        if let Some(dir) = &self.cwd {
            command.current_dir(os(dir));
        }
        let [stdin, stdout, stderr] = self.streams;
        if let Some(stdio) = lent(stdin)? {
            command.stdin(stdio);
        }
        if let Some(stdio) = lent(stdout)? {
            command.stdout(stdio);
        }
        if let Some(stdio) = lent(stderr)? {
            command.stderr(stdio);
        }
        if let Some(fds) = &self.fds {
            command.inherit_fds(fds.iter().copied());
        }
        command.setsid(self.session);
        if let Some(group) = &self.process_group {
            command.process_group(*group);
        }
        if let Some(mask) = &self.umask {
            command.umask(*mask);
        }
        if let Some(id) = &self.uid {
            command.uid(*id);
        }
        if let Some(id) = &self.gid {
            command.gid(*id);
        }
        if let Some(groups) = &self.groups {
            command.groups(groups);
        }
        if !self.restore_signals {
            // SAFETY: two system calls on constants.
            unsafe { command.pre_exec(ignore_signals) };
        }
        Ok(command)
    }
}

/// As Python has them itself, for `restore_signals=False`.
fn ignore_signals() -> io::Result<()> {
    for signal in [libc::SIGPIPE, libc::SIGXFSZ] {
        // SAFETY: no handler runs.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    Ok(())
}

/// A copy of the caller's fd; none for -1, which means its own stream.
fn lent(fd: i32) -> PyResult<Option<Stdio>> {
    if fd < 0 {
        return Ok(None);
    }
    // SAFETY: not -1; if it is not open the copy fails.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    Ok(Some(fd.try_clone_to_owned()?.into()))
}

impl Additions {
    fn apply(&self, command: &mut Command) -> PyResult<()> {
        if let Some(deadline) = self.deadline {
            command.timeout(duration(deadline)?);
        }
        if let Some(grace) = self.grace {
            command.grace(duration(grace)?);
        }
        if let Some(signal) = &self.stop_signal {
            command.stop_signal(*signal);
        }
        command.stop_main_only(self.stop_main_only).linger(self.linger);
        if let Some(limits) = &self.limits {
            command.limits(limits.limits()?);
        }
        if let Some(sandbox) = &self.sandbox {
            command.sandbox(&sandbox.get().asked);
        }
        if let Some(log) = &self.log {
            command.log(&log.get().log);
        }
        if let Some(name) = &self.name {
            command.name(OsString::from_vec(name.clone()));
        }
        if let Some(pid) = self.die_with {
            command.die_with(pid);
        }
        Ok(())
    }
}
