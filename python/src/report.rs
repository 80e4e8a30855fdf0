//! Reports and processes as dictionaries, of which the package makes its dataclasses.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use tidy_process::{
    Action, Cause, Changes, Denied, Level, ListeningPort, Note, Placement, ProcessInfo, Report,
    TreeReport, Usage,
};

use crate::home::mechanism_name;
use crate::values;

/// The report of a command, told when it is asked for: making Python's objects costs more than
/// the report itself.
#[pyclass(frozen, module = "tidy_process._native")]
pub(crate) struct Ended {
    pub(crate) report: Report,
}

#[pymethods]
impl Ended {
    #[getter]
    fn raw_status(&self) -> i32 {
        self.report.status.into_raw()
    }

    fn told<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        report(py, &self.report)
    }
}

pub(crate) fn report<'py>(py: Python<'py>, ended: &Report) -> PyResult<Bound<'py, PyDict>> {
    let told = PyDict::new(py);
    told.set_item("returncode", ended.status.into_raw())?;
    told.set_item("cause", cause(ended.cause))?;
    told.set_item("wall", ended.wall.as_secs_f64())?;
    usage(&told, &ended.usage)?;
    told.set_item("notes", notes(&ended.notes))?;
    told.set_item("leftovers", processes(py, &ended.leftovers)?)?;
    told.set_item("leftover_count", ended.leftover_count)?;
    told.set_item("interrupted", processes(py, &ended.interrupted)?)?;
    told.set_item("interrupted_count", ended.interrupted_count)?;
    told.set_item("placement", placement(ended.placement))?;
    told.set_item("mechanism", mechanism_name(ended.mechanism))?;
    let confined = ended.sandbox.as_ref();
    told.set_item("sandbox", confined.map(|c| (level(c.level), &c.mechanisms, &c.excepted)))?;
    told.set_item("changes", changes(py, &ended.changes)?)?;
    told.set_item("denied", denied(py, &ended.denied)?)?;
    told.set_item("denied_count", ended.denied_count)?;
    told.set_item("text", ended.to_string())?;
    Ok(told)
}

pub(crate) fn tree_report<'py>(
    py: Python<'py>,
    ended: &TreeReport,
) -> PyResult<Bound<'py, PyDict>> {
    let told = PyDict::new(py);
    told.set_item("wall", ended.wall.as_secs_f64())?;
    usage(&told, &ended.usage)?;
    told.set_item("notes", notes(&ended.notes))?;
    told.set_item("leftovers", processes(py, &ended.leftovers)?)?;
    told.set_item("leftover_count", ended.leftover_count)?;
    told.set_item("mechanism", mechanism_name(ended.mechanism))?;
    told.set_item("text", ended.to_string())?;
    Ok(told)
}

fn usage(told: &Bound<'_, PyDict>, used: &Usage) -> PyResult<()> {
    let time = |time: Option<Duration>| time.map(seconds);
    told.set_item("user", time(used.user))?;
    told.set_item("system", time(used.system))?;
    told.set_item("memory_peak", used.memory_peak)?;
    told.set_item("pids_peak", used.pids_peak)?;
    told.set_item("io_read", used.io_read)?;
    told.set_item("io_written", used.io_written)?;
    told.set_item("cpu_pressure", time(used.cpu_pressure))?;
    told.set_item("memory_pressure", time(used.memory_pressure))?;
    told.set_item("io_pressure", time(used.io_pressure))?;
    told.set_item("oom_kills", used.oom_kills)?;
    told.set_item("pids_denied", used.pids_denied)?;
    let missing = used.missing.iter().map(|one| (one.field.to_string(), one.file, one.reason));
    told.set_item("missing", missing.collect::<Vec<_>>())
}

fn notes(all: &[Note]) -> Vec<(&'static str, u64)> {
    let told = |note: &Note| match note {
        Note::PidsExhausted(count) => ("pids_exhausted", *count),
        Note::OutOfMemory(count) => ("out_of_memory", *count),
        _ => ("other", 0),
    };
    all.iter().map(told).collect()
}

fn changes<'py>(py: Python<'py>, all: &[Changes]) -> PyResult<Vec<Bound<'py, values::Changes>>> {
    let told = |changes: &Changes| Bound::new(py, values::Changes { changes: changes.clone() });
    all.iter().map(told).collect()
}

/// In the order of the fields of the package's class.
fn denied<'py>(py: Python<'py>, all: &[Denied]) -> PyResult<Vec<Bound<'py, PyTuple>>> {
    let told = |one: &Denied| {
        let tried = (action(one.action), &one.target, one.call, &one.name, one.pid);
        let (action, target, call, name, pid) = tried;
        let (remedy, remark, text) = (&one.remedy, &one.remark, one.to_string());
        (action, target, call, name, pid, remedy, remark, one.times, text).into_pyobject(py)
    };
    all.iter().map(told).collect()
}

pub(crate) fn processes<'py>(
    py: Python<'py>,
    all: &[ProcessInfo],
) -> PyResult<Vec<Bound<'py, PyDict>>> {
    all.iter().map(|one| process(py, one)).collect()
}

pub(crate) fn process<'py>(py: Python<'py>, one: &ProcessInfo) -> PyResult<Bound<'py, PyDict>> {
    let told = PyDict::new(py);
    told.set_item("pid", one.pid)?;
    told.set_item("ppid", one.ppid)?;
    told.set_item("name", &one.name)?;
    told.set_item("command", &one.command)?;
    told.set_item("state", one.state)?;
    told.set_item("running", seconds(one.running))?;
    told.set_item("cwd", one.cwd.as_ref().map(|cwd| cwd.to_string_lossy().into_owned()))?;
    told.set_item("ports", ports(&one.ports))?;
    told.set_item("text", one.to_string())?;
    Ok(told)
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

/// Protocol, address, port, pid.
pub(crate) fn ports(all: &[ListeningPort]) -> Vec<(String, String, u16, u32)> {
    let told = |port: &ListeningPort| {
        let protocol = format!("{:?}", port.protocol).to_lowercase();
        (protocol, port.address.ip().to_string(), port.address.port(), port.pid)
    };
    all.iter().map(told).collect()
}

fn level(level: Level) -> &'static str {
    match level {
        Level::Fence => "fence",
        _ => "sandbox",
    }
}

fn action(action: Action) -> &'static str {
    match action {
        Action::Read => "read",
        Action::Write => "write",
        Action::Connect => "connect",
        Action::Bind => "bind",
        Action::Call => "call",
        _ => "other",
    }
}

fn cause(cause: Cause) -> &'static str {
    match cause {
        Cause::Exited => "exited",
        Cause::Signaled(_) => "signaled",
        Cause::TimedOut => "timed_out",
        Cause::CpuTimeExceeded => "cpu_time_exceeded",
        Cause::OutOfMemory => "out_of_memory",
        Cause::Stopped => "stopped",
        Cause::Escaped => "escaped",
        Cause::StatusTaken => "status_taken",
        _ => "other",
    }
}

fn placement(placement: Placement) -> &'static str {
    match placement {
        Placement::Born => "born",
        Placement::Joined => "joined",
        Placement::Kept => "kept",
        _ => "other",
    }
}
