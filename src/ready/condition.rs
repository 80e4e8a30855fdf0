//! What a look at a child can find, and what is asked of an HTTP server.

use std::net::SocketAddr;

use crate::proc::info::ProcessInfo;

/// What is asked of an HTTP server.
#[derive(Clone)]
pub(crate) struct Url {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) path: String,
    pub(crate) status: Option<u16>,
}

/// What a look has found.
pub(crate) enum Found {
    /// What was waited for.
    It,
    /// Not yet; what was seen instead, where that is worth a word.
    NotYet(Option<String>),
    /// Not in what has been read of the log so far: there is more of it, to be read at once.
    Behind,
    /// A process that is not of the tree has what was waited for.
    Taken(Box<ProcessInfo>),
    /// An HTTP server of the tree listens: it is to be asked. That takes time.
    Ask(Question),
}

/// See [`Found::Ask`].
pub(crate) struct Question {
    pub(crate) address: SocketAddr,
    pub(crate) url: Url,
}
