//! Reads processes from `/proc`, and their sockets by netlink. Signals nothing.

pub(crate) mod activity;
pub(crate) mod survey;
pub(crate) mod info;
pub(crate) mod read;
pub(crate) mod glance;
pub(crate) mod parse;
pub(crate) mod walk;
pub(crate) mod port;
pub(crate) mod sockets;
pub(crate) mod debugger;
pub(crate) mod sock_diag;
pub(crate) mod aside;
pub(crate) mod quote;
