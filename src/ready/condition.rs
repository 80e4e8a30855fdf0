//! What can be waited for, and what a look for it can find.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::proc::info::ProcessInfo;

/// What is looked for.
pub(crate) enum Kind<'a> {
    Tcp(Option<u16>),
    Http(Url),
    Unix(PathBuf),
    File(PathBuf),
    Line(Box<dyn FnMut(&str) -> bool + Send + 'a>),
    When(Box<dyn FnMut() -> bool + Send + 'a>),
}

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
