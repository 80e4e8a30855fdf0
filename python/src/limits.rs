//! Limits, as `_asked.py` has them.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use tidy_process::{IoLimit, Limits};

use crate::request::duration;

/// Numbers by their names, and of each device bytes and operations.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Limited {
    numbers: Vec<(String, f64)>,
    cpuset: Option<String>,
    io: Vec<(Vec<u8>, [Option<u64>; 4])>,
}

impl Limited {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "sizes, checked there"
    )]
    pub(crate) fn limits(&self) -> PyResult<Limits> {
        let mut limits = Limits::new();
        for (name, value) in &self.numbers {
            let whole = *value as u64;
            limits = match name.as_str() {
                "memory_max" => limits.memory_max(whole),
                "memory_high" => limits.memory_high(whole),
                "swap_max" => limits.swap_max(whole),
                "pids_max" => limits.pids_max(whole),
                "cpus" => limits.cpus(*value),
                "cpu_weight" => limits.cpu_weight(whole),
                "cpu_time" => limits.cpu_time(duration(*value)?),
                other => {
                    return Err(PyValueError::new_err(format!("no limit is called {other:?}")));
                }
            };
        }
        for (device, numbers) in &self.io {
            limits = limits.io(OsString::from_vec(device.clone()), io(*numbers));
        }
        Ok(match &self.cpuset {
            Some(list) => limits.cpuset(list),
            None => limits,
        })
    }
}

fn io([read, written, reads, writes]: [Option<u64>; 4]) -> IoLimit {
    let set = |limit: IoLimit, number: Option<u64>, set: fn(IoLimit, u64) -> IoLimit| match number {
        Some(number) => set(limit, number),
        None => limit,
    };
    let limit = set(IoLimit::new(), read, IoLimit::read_bytes);
    let limit = set(limit, written, IoLimit::write_bytes);
    let limit = set(limit, reads, IoLimit::read_ops);
    set(limit, writes, IoLimit::write_ops)
}
