//! What is made once and given to commands (logs and sandboxes), and what they have written in
//! overlays.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use tidy_process::{Change, ChangeList, Network};

use crate::error::raise;

/// Where a command's output goes: a file, or memory.
#[pyclass(frozen, module = "tidy_process")]
pub(crate) struct Log {
    pub(crate) log: tidy_process::Log,
}

#[pymethods]
impl Log {
    /// A log in this file, which is made or emptied; without one in memory without a bound.
    #[new]
    #[pyo3(signature = (path=None))]
    fn new(py: Python<'_>, path: Option<PathBuf>) -> PyResult<Self> {
        let made = match path {
            Some(path) => tidy_process::Log::create(path),
            None => tidy_process::Log::unnamed(),
        };
        made.map(|log| Self { log }).map_err(|error| raise(py, &error))
    }

    /// A log in memory of the first and the last bytes.
    #[staticmethod]
    fn bounded(head: usize, tail: usize) -> Self {
        Self { log: tidy_process::Log::bounded(head, tail) }
    }

    /// What was written so far.
    fn text(&self, py: Python<'_>) -> String {
        py.detach(|| self.log.text().to_string())
    }

    /// The last lines.
    fn tail(&self, py: Python<'_>, lines: usize) -> String {
        py.detach(|| self.log.tail(lines))
    }
}

/// What confines a command.
#[pyclass(frozen, module = "tidy_process")]
pub(crate) struct Sandbox {
    pub(crate) asked: tidy_process::Sandbox,
}

/// What `_asked.py` puts together. Paths are bytes, each with the name of what becomes of it.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Asked {
    fence: bool,
    paths: Vec<(String, Vec<u8>)>,
    network: String,
    keep_env: Vec<String>,
    allow: Vec<String>,
    deny: Vec<String>,
    explain: bool,
}

#[pymethods]
impl Sandbox {
    /// A view of its own: `/usr` and `/etc`, and what is named; or a fence.
    #[new]
    fn new(told: &Bound<'_, PyAny>, fds: Vec<i32>) -> PyResult<Self> {
        let told: Asked = told.extract()?;
        let mut asked = if told.fence { tidy_process::Sandbox::fence() } else { view(&told)? };
        asked = told.allow.into_iter().fold(asked, tidy_process::Sandbox::allow_syscall);
        asked = told.deny.into_iter().fold(asked, tidy_process::Sandbox::deny_syscall);
        if told.explain {
            asked = asked.explain();
        }
        Ok(Self { asked: asked.inherit_fds(fds) })
    }

    /// What it would do here, in lines.
    fn plan(&self, py: Python<'_>) -> PyResult<String> {
        let plan = py.detach(|| self.asked.plan()).map_err(|error| raise(py, &error))?;
        Ok(plan.to_string())
    }
}

fn view(told: &Asked) -> PyResult<tidy_process::Sandbox> {
    use tidy_process::Sandbox;
    let mut asked = Sandbox::new().system().network(network(&told.network)?);
    for (name, path) in &told.paths {
        let path = PathBuf::from(OsString::from_vec(path.clone()));
        asked = match name.as_str() {
            "read" => asked.read_only(path),
            "write" => asked.read_write(path),
            "hide" => asked.hide(path),
            "overlay" => asked.overlay(path),
            "private" => asked.private(path),
            other => return Err(PyValueError::new_err(format!("no path is to be {other:?}"))),
        };
    }
    Ok(asked.keep_env(&told.keep_env))
}

fn network(name: &str) -> PyResult<Network> {
    let forwarded = name.strip_prefix("forward:").and_then(|port| port.parse().ok());
    Ok(match (name, forwarded) {
        ("none", _) => Network::None,
        ("loopback", _) => Network::Loopback,
        ("host", _) => Network::Host,
        (_, Some(port)) => Network::Forward(port),
        _ => {
            let text = format!("network is none, loopback, host or forward:PORT, not {name:?}");
            return Err(PyValueError::new_err(text));
        }
    })
}

/// What a command has written in an overlay.
#[pyclass(frozen, module = "tidy_process._native")]
pub(crate) struct Changes {
    pub(crate) changes: tidy_process::Changes,
}

/// Path, kind, whether it is a directory, size and text of each; of all; of those skipped.
type Listed = (Vec<(Vec<u8>, String, bool, u64, String)>, usize, usize);

#[pymethods]
impl Changes {
    #[getter]
    fn dir(&self) -> Vec<u8> {
        self.changes.dir().as_os_str().as_bytes().to_vec()
    }

    fn list(&self, py: Python<'_>) -> PyResult<Listed> {
        py.detach(|| self.changes.list()).map(|all| listed(&all)).map_err(|e| raise(py, &e))
    }

    fn commit(&self, py: Python<'_>) -> PyResult<Listed> {
        py.detach(|| self.changes.commit()).map(|all| listed(&all)).map_err(|e| raise(py, &e))
    }
}

fn listed(all: &ChangeList) -> Listed {
    let told = |change: &Change| {
        let path = change.path.as_os_str().as_bytes().to_vec();
        (path, change.kind.to_string(), change.is_dir, change.size, change.to_string())
    };
    (all.changes.iter().map(told).collect(), all.count, all.skipped)
}
