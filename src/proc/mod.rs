//! What `/proc` and netlink say of processes and their sockets. Reads only; signals nothing.

pub(crate) mod survey;
pub(crate) mod info;
pub(crate) mod read;
pub(crate) mod walk;
pub(crate) mod port;
pub(crate) mod sockets;
pub(crate) mod sock_diag;
pub(crate) mod aside;
pub(crate) mod quote;
