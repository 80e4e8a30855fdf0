//! What the command-line tool takes from the library beyond its public API. No stability is
//! promised.

pub use crate::cgroup::nesting::named_base;
pub use crate::cgroup::own::{Place, place, top};
pub use crate::exec::launch::clone_refused;
pub use crate::supervisor::orphans::reap_all_but;
pub use crate::supervisor::sweep::sweep_briefly;
pub use crate::sys::{ignores, reset_sigchld};
