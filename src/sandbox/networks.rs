//! Networks that lie ready for the commands of a template: each is lent to one at a time, and comes
//! back when nothing is in it any more.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::sync::Mutex;

use crate::sys::poll::lock;

/// Those that lie ready, at the most: each is some 100 KiB of the kernel's.
const MOST: usize = 8;

/// A network namespace without any interface but `lo`, which is down.
#[derive(Debug)]
pub(crate) struct EmptyNetwork {
    namespace: OwnedFd,
    /// Its `/proc/net/sockstat`.
    sockets: File,
}

impl EmptyNetwork {
    pub(crate) fn new(namespace: OwnedFd, sockets: OwnedFd) -> Self {
        Self { namespace, sockets: sockets.into() }
    }

    /// Whether no socket is left in it: one may have been sent to a process outside before all that
    /// were in it ended.
    fn is_free(&self) -> bool {
        const FREE: &[u8; 16] = b"sockets: used 0\n";
        let mut start = [0; FREE.len()];
        self.sockets.read_exact_at(&mut start, 0).is_ok() && start == *FREE
    }
}

impl AsRawFd for EmptyNetwork {
    fn as_raw_fd(&self) -> RawFd {
        self.namespace.as_raw_fd()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Networks(Mutex<Vec<EmptyNetwork>>);

impl Networks {
    /// Takes one out, if one is free; those that are not are closed.
    pub(crate) fn take(&self) -> Option<EmptyNetwork> {
        let mut all = lock(&self.0);
        std::iter::from_fn(|| all.pop()).find(EmptyNetwork::is_free)
    }

    /// Puts one back; no process is in it any more.
    pub(crate) fn give_back(&self, network: EmptyNetwork) {
        let mut all = lock(&self.0);
        if all.len() < MOST {
            all.push(network);
        }
    }
}
