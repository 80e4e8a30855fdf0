//! From a program's name to a running main process: what is executed, its streams, the prepared
//! memory image, and the birth itself. The rooms `cgroup` and `keeper` decide where the process
//! lives.

pub(crate) mod program;
pub(crate) mod stdio;
pub(crate) mod image;
pub(crate) mod launch;
pub(crate) mod overdue;
#[cfg(feature = "sandbox")]
mod announced;
pub(crate) mod enrolled;
pub(crate) mod slots;
#[cfg_attr(not(feature = "sandbox"), path = "no_entry.rs")]
pub(crate) mod entry;
pub(crate) mod orders;
pub(crate) mod set_up;
pub(crate) mod child_side;
