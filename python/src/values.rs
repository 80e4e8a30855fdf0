//! What is made once and given to commands: logs and sandboxes.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

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

#[pymethods]
impl Sandbox {
    /// A view of its own: `/usr` and `/etc`, and what is named. Paths are bytes.
    #[new]
    #[pyo3(signature = (read, write, hide, overlay, private, network, keep_env, fds))]
    #[expect(clippy::too_many_arguments, reason = "named by the package's own class")]
    fn new(
        read: Vec<Vec<u8>>,
        write: Vec<Vec<u8>>,
        hide: Vec<Vec<u8>>,
        overlay: Vec<Vec<u8>>,
        private: Vec<Vec<u8>>,
        network: &str,
        keep_env: Vec<String>,
        fds: Vec<i32>,
    ) -> PyResult<Self> {
        use tidy_process::{Network, Sandbox};
        let network = match network {
            "none" => Network::None,
            "loopback" => Network::Loopback,
            "host" => Network::Host,
            other => {
                let text = format!("network is none, loopback or host, not {other:?}");
                return Err(PyValueError::new_err(text));
            }
        };
        let mut asked = Sandbox::new().system().network(network).keep_env(keep_env);
        asked = each(asked, read, Sandbox::read_only);
        asked = each(asked, write, Sandbox::read_write);
        asked = each(asked, hide, Sandbox::hide);
        asked = each(asked, overlay, Sandbox::overlay);
        asked = each(asked, private, Sandbox::private);
        Ok(Self { asked: asked.inherit_fds(fds) })
    }

    /// No way out of the cgroup, nor to other processes, nor to new privileges.
    #[staticmethod]
    fn fence(fds: Vec<i32>) -> Self {
        Self { asked: tidy_process::Sandbox::fence().inherit_fds(fds) }
    }
}

type Setter = fn(tidy_process::Sandbox, PathBuf) -> tidy_process::Sandbox;

fn each(to: tidy_process::Sandbox, paths: Vec<Vec<u8>>, set: Setter) -> tidy_process::Sandbox {
    paths.into_iter().map(|path| OsString::from_vec(path).into()).fold(to, set)
}
