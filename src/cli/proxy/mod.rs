//! The way out of a sandbox's own network, to hosts that are named: a proxy for CONNECT (RFC
//! 9110), outside, on a listening socket from inside. There is no other way out, so a program that
//! does not use the proxy reaches nothing.

pub(crate) mod ranges;
pub(crate) mod rules;
mod serve;

use std::ffi::OsStr;
use std::net::TcpListener;
use std::sync::Arc;

use tidy_process::{Child, Command};

use crate::proxy::rules::{Host, Rules};

/// The port inside. The network is the sandbox's own, so nothing else has it.
pub(crate) const PORT: u16 = 3128;

/// Where programs look for it. An HTTP_PROXY would be told of other things than CONNECT.
const VARIABLES: [&str; 2] = ["HTTPS_PROXY", "https_proxy"];

#[derive(Debug, Clone)]
pub(crate) struct Proxy(Arc<Rules>);

impl Proxy {
    pub(crate) fn new(rules: Rules) -> Self {
        Self(Arc::new(rules))
    }

    /// The hosts that are allowed.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.0.hosts()
    }

    /// Tells the command of the proxy; what -E sets comes later, and counts.
    pub(crate) fn tell(&self, command: &mut Command) {
        let address = format!("http://127.0.0.1:{PORT}");
        command.envs(VARIABLES.map(|key| (OsStr::new(key), OsStr::new(&address).to_owned())));
    }

    /// Serves the command for as long as this process lives.
    pub(crate) fn serve(&self, child: &mut Child) {
        if let Some(listener) = child.forwarded.take() {
            self.accept(listener);
        }
    }

    fn accept(&self, listener: TcpListener) {
        let rules = Arc::clone(&self.0);
        std::thread::spawn(move || serve::accept(&listener, &rules, serve::LIMITS));
    }
}
