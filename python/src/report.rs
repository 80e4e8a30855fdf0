//! Reports and processes as dictionaries, of which the package makes its dataclasses.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use tidy_process::{Cause, ListeningPort, Placement, ProcessInfo, Report, TreeReport, Usage};

use crate::home::mechanism_name;

pub(crate) fn report<'py>(py: Python<'py>, ended: &Report) -> PyResult<Bound<'py, PyDict>> {
    let told = PyDict::new(py);
    told.set_item("raw_status", ended.status.into_raw())?;
    told.set_item("cause", cause(ended.cause))?;
    told.set_item("wall", ended.wall.as_secs_f64())?;
    usage(&told, &ended.usage)?;
    told.set_item("leftovers", processes(py, &ended.leftovers)?)?;
    told.set_item("leftover_count", ended.leftover_count)?;
    told.set_item("interrupted", processes(py, &ended.interrupted)?)?;
    told.set_item("placement", placement(ended.placement))?;
    told.set_item("mechanism", mechanism_name(ended.mechanism))?;
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
    told.set_item("leftovers", processes(py, &ended.leftovers)?)?;
    told.set_item("leftover_count", ended.leftover_count)?;
    told.set_item("mechanism", mechanism_name(ended.mechanism))?;
    told.set_item("text", ended.to_string())?;
    Ok(told)
}

fn usage(told: &Bound<'_, PyDict>, used: &Usage) -> PyResult<()> {
    told.set_item("user", used.user.map(|time| time.as_secs_f64()))?;
    told.set_item("system", used.system.map(|time| time.as_secs_f64()))?;
    told.set_item("memory_peak", used.memory_peak)?;
    told.set_item("pids_peak", used.pids_peak)?;
    told.set_item("oom_kills", used.oom_kills)
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
