//! One port that a process listens on.

use std::fmt;
use std::net::SocketAddr;

use crate::proc::quote::quoted;

/// A transport protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Protocol {
    /// A TCP socket that listens.
    Tcp,
    /// A UDP socket that is bound and not connected.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// One port on which one process waits for peers; see
/// [`Tree::listening_ports`](crate::Tree::listening_ports).
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ListeningPort {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The local address and port; `0.0.0.0` and `[::]` are all addresses.
    pub address: SocketAddr,
    /// The process that holds the socket. A socket that several processes share (workers of one
    /// server) is listed once for each.
    pub pid: u32,
    /// The kernel's name (comm) of that process.
    pub name: String,
}

/// `tcp 127.0.0.1:8080 (4711 redis-server)`
impl fmt::Display for ListeningPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, address, pid, name } = self;
        write!(f, "{protocol} {address} ({pid} {})", quoted(name))
    }
}
