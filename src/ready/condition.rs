//! What a check of a child can find.

use std::net::SocketAddr;

use crate::proc::info::ProcessInfo;
use crate::ready::url::Url;

/// What a check has found.
pub(crate) enum Found {
    /// What was waited for.
    It,
    /// Not yet; what was seen instead, where an error should say it.
    NotYet(Option<String>),
    /// Not in what was read of the log so far, of which more is there to be read at once.
    Behind,
    /// A process that is not of the tree has what was waited for.
    Taken(Box<ProcessInfo>),
    /// An HTTP server of the tree listens. The caller has to ask it, which takes time.
    Ask(Question),
}

/// See [`Found::Ask`].
pub(crate) struct Question {
    pub(crate) address: SocketAddr,
    pub(crate) url: Url,
}
