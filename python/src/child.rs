//! A child: its main process and tree.

use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tidy_process::{Child, Ready, Report};

use crate::error::raise;
use crate::report::{Ended, ports, processes};
use crate::request::duration;
use crate::wait::{apart, sleep};

/// The main process and the tree of one command; `_popen.py` knows it alone.
#[pyclass(frozen, name = "Child", module = "tidy_process._native")]
pub(crate) struct NativeChild {
    /// None once it is detached. Locked for a moment at a time, by threads that hold the GIL.
    child: Mutex<Option<Arc<Child>>>,
    pidfd: OwnedFd,
    #[pyo3(get)]
    pid: u32,
    /// The process that started it: a fork of that leaves it alone.
    owner: u32,
    /// Whether its tree was ended, so that a drop has nothing to wait for.
    is_over: AtomicBool,
    /// The listening socket of a port that is forwarded, until it is asked for.
    forwarded: Mutex<Option<TcpListener>>,
}

impl NativeChild {
    pub(crate) fn new(mut child: Child) -> PyResult<Self> {
        let (pid, pidfd) = (child.id(), child.as_fd().try_clone_to_owned()?);
        let forwarded = Mutex::new(child.forwarded.take());
        let child = Mutex::new(Some(Arc::new(child)));
        let (owner, is_over) = (std::process::id(), AtomicBool::new(false));
        Ok(Self { child, pidfd, pid, owner, is_over, forwarded })
    }

    fn held(&self) -> MutexGuard<'_, Option<Arc<Child>>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn child(&self) -> PyResult<Arc<Child>> {
        if self.owner != std::process::id() {
            let text =
                format!("process {} is a child of another process, {}", self.pid, self.owner);
            return Err(PyRuntimeError::new_err(text));
        }
        let detached = || PyRuntimeError::new_err(format!("process {} was detached", self.pid));
        self.held().clone().ok_or_else(detached)
    }

    /// Calls it without the GIL.
    fn with<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&Child) -> tidy_process::Result<T> + Send,
    ) -> PyResult<T> {
        let child = self.child()?;
        py.detach(|| work(&child)).map_err(|error| raise(py, &error))
    }
}

#[pymethods]
impl NativeChild {
    /// The pidfd: readable once the main process has ended.
    fn fileno(&self) -> i32 {
        self.pidfd.as_raw_fd()
    }

    /// The listening socket of the forwarded port, as a number that is the caller's from now on.
    fn take_forwarded(&self) -> Option<i32> {
        let mut forwarded = self.forwarded.lock().unwrap_or_else(PoisonError::into_inner);
        forwarded.take().map(IntoRawFd::into_raw_fd)
    }

    /// The raw wait status; None when the time is over. A signal handler's exception ends it.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<i32>> {
        let until = timeout.map(duration).transpose()?;
        let until = until.and_then(|time| Instant::now().checked_add(time));
        let child = self.child()?;
        loop {
            let status = py.detach(|| child.try_wait()).map_err(|error| raise(py, &error))?;
            if let Some(status) = status {
                return Ok(Some(status.into_raw()));
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                return Ok(None);
            }
            let next = [until, child.next_deadline()].into_iter().flatten().min();
            sleep(py, [self.pidfd.as_fd()].into_iter().chain(child.partner_fd()), next)?;
        }
    }

    /// The pidfd of the process that it dies with, while that is waited for.
    fn partner_fileno(&self) -> PyResult<Option<i32>> {
        Ok(self.child()?.partner_fd().map(|fd| fd.as_raw_fd()))
    }

    /// Enforces the deadline and the end of the process that it dies with; seconds until it has to
    /// be called again, if it has.
    fn enforce(&self, py: Python<'_>) -> PyResult<Option<f64>> {
        let child = self.child()?;
        let next = py.detach(|| child.enforce());
        Ok(next.map(|at| at.saturating_duration_since(Instant::now()).as_secs_f64()))
    }

    /// Sends a signal to the main process.
    fn signal(&self, py: Python<'_>, signal: i32) -> PyResult<()> {
        self.with(py, |child| child.signal(signal))
    }

    /// Sends a signal to the whole tree.
    fn signal_tree(&self, py: Python<'_>, signal: i32) -> PyResult<()> {
        self.with(py, |child| child.signal_all(signal))
    }

    /// Kills the whole tree.
    fn kill_tree(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, Child::kill)
    }

    /// Asks the tree to end, and kills it when the grace is over.
    fn stop(&self, py: Python<'_>, grace: f64) -> PyResult<()> {
        let (child, grace) = (self.child()?, duration(grace)?);
        match apart(py, &child, move |child| child.stop(grace))? {
            Some(Err(error)) => Err(raise(py, &error)),
            _ => Ok(()),
        }
    }

    /// Ends the tree; `patient` where there may be a grace to wait for.
    fn finish(&self, py: Python<'_>, patient: bool) -> PyResult<Ended> {
        let child = self.child()?;
        let done: Option<tidy_process::Result<Report>> = match patient {
            true => apart(py, &child, Child::finish)?,
            false => Some(py.detach(|| child.finish())),
        };
        match done {
            Some(Ok(report)) => {
                self.is_over.store(true, Ordering::Relaxed);
                Ok(Ended { report })
            }
            Some(Err(error)) => Err(raise(py, &error)),
            None => Err(PyRuntimeError::new_err("the thread that ends the tree has panicked")),
        }
    }

    /// Waits until it is ready. `what` is port, http, line, file, unix or when.
    fn wait_ready(
        &self,
        py: Python<'_>,
        what: &str,
        value: &Bound<'_, PyAny>,
        timeout: f64,
    ) -> PyResult<()> {
        let child = self.child()?;
        let raised = Raised::default();
        let ready = condition(py, what, value, &raised)?;
        let mut readiness =
            child.readiness(ready, duration(timeout)?).map_err(|error| raise(py, &error))?;
        loop {
            let checked = py.detach(|| readiness.check());
            if let Some(error) = raised.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return Err(error);
            }
            let next = checked.map_err(|error| raise(py, &error))?;
            py.check_signals()?;
            let Some(next) = next else { return Ok(()) };
            let running = child.try_wait().is_ok_and(|status| status.is_none());
            sleep(py, running.then(|| self.pidfd.as_fd()), Some(next))?;
        }
    }

    fn processes<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let child = self.child()?;
        let all = py.detach(|| child.tree().processes());
        processes(py, &all)
    }

    fn ports(&self, py: Python<'_>) -> PyResult<Vec<(String, String, u16, u32)>> {
        self.with(py, |child| child.tree().listening_ports()).map(|all| ports(&all))
    }

    /// Lets the tree live on until this Python process ends.
    fn detach(&self) -> PyResult<()> {
        let mut held = self.held();
        let Some(child) = held.take() else { return Ok(()) };
        match Arc::try_unwrap(child) {
            Ok(child) => child.detach(),
            Err(child) => {
                *held = Some(child);
                return Err(PyRuntimeError::new_err("another thread waits for this child"));
            }
        }
        Ok(())
    }
}

/// The exception of a condition that is a function.
type Raised = Arc<Mutex<Option<PyErr>>>;

fn condition<'a>(
    py: Python<'_>,
    what: &str,
    value: &Bound<'_, PyAny>,
    raised: &Raised,
) -> PyResult<Ready<'a>> {
    Ok(match what {
        "port" if value.is_truthy()? => Ready::tcp(value.extract()?),
        "port" => Ready::any_tcp(),
        "http" => Ready::http(&value.extract::<String>()?).map_err(|error| raise(py, &error))?,
        "line" => Ready::log(value.extract::<String>()?),
        "file" => Ready::file(value.extract::<std::path::PathBuf>()?),
        "unix" => Ready::unix(value.extract::<std::path::PathBuf>()?),
        "when" => {
            let callable = value.clone().unbind();
            let raised = Arc::clone(raised);
            Ready::when(move || {
                let said = Python::attach(|py| callable.call0(py)?.is_truthy(py));
                said.unwrap_or_else(|error| {
                    *raised.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    true
                })
            })
        }
        other => return Err(PyValueError::new_err(format!("no condition is called {other:?}"))),
    })
}

/// Ends the tree of an object that is dropped: in a thread, so that no other Python thread waits
/// for that, nor a garbage collection. In a fork it is left alone.
impl Drop for NativeChild {
    fn drop(&mut self) {
        let child = self.held().take();
        let Some(child) = child.filter(|_| self.owner == std::process::id()) else { return };
        if self.is_over.load(Ordering::Relaxed) {
            return; // Fds are closed, which nothing waits for.
        }
        let held = Arc::new(Mutex::new(Some(child)));
        let theirs = Arc::clone(&held);
        let end = move || drop(theirs.lock().unwrap_or_else(PoisonError::into_inner).take());
        if thread::Builder::new().spawn(end).is_err() {
            drop(held);
        }
    }
}
