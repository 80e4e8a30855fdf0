//! Containment without a cgroup: one sub-reaper process for each command. It kills its descendants
//! on its owner's order, and when its owner dies.

pub(crate) mod ground;
pub(crate) mod program;
pub(crate) mod birth;
pub(crate) mod handle;
pub(crate) mod spawn;
pub(crate) mod backend;
pub(crate) mod idle_memory;

// The program finds it beside itself.
use crate::proc::parse;
