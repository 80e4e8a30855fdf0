//! The servers that run, and the threads that wait for them.

use std::ffi::OsStr;
use std::io::{PipeWriter, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use tidy_process::{Child, Command, Result, Supervisor};

use crate::ending::EndingArgs;
use crate::proxy::Proxy;
use crate::timeline::Sheet;
use crate::wait::open::Opener;
use crate::wait::request::Requests;
use crate::wait::watch::Stop;
use crate::with::args::WithArgs;
use crate::with::ready::ReadyArg;
use crate::with::running::Running;
use crate::with::servers::Servers;

/// The servers that run, in the order of their start.
pub(crate) struct Up<'a> {
    pub(crate) args: &'a WithArgs,
    pub(crate) plan: &'a Servers,
    pub(crate) supervisor: Supervisor,
    /// That serves each command's network.
    pub(crate) proxy: Option<Proxy>,
    /// Its deadline bounds the opening of files; the timeout of CMD begins with CMD.
    pub(crate) opener: &'a Opener<'a>,
    /// What records them, if that is asked for.
    pub(crate) sheet: &'a Sheet,
    pub(crate) running: Vec<Running<'a>>,
    /// What has asked this process to end.
    pub(crate) requests: Requests,
    /// Those that are awaited.
    pub(crate) waits: Vec<Wait>,
}

impl<'a> Up<'a> {
    pub(crate) fn stop(&self) -> Stop {
        let EndingArgs { signal, kill_after, .. } = self.args.ending;
        Stop { signal, kill_after, main_only: self.args.forward.main_only() }
    }

    /// Servers are stopped as ever, whichever signal is the reason.
    pub(crate) fn stop_of_server(&self) -> Stop {
        Stop { signal: Some(self.args.ending.stop_signal()), ..self.stop() }
    }

    /// Makes a command that knows of these servers.
    pub(crate) fn command(&self, words: &[impl AsRef<OsStr>], known: &[&Running<'_>]) -> Command {
        let program = words.first().map_or("".as_ref(), AsRef::as_ref);
        let mut command = Command::new(program);
        command.args(words.get(1..).unwrap_or_default()).supervisor(&self.supervisor);
        self.args.ending.apply_stop(&mut command);
        command.stop_main_only(self.args.forward.main_only());
        self.proxy.iter().for_each(|proxy| proxy.tell(&mut command));
        self.sheet.record(&mut command);
        command.envs(known.iter().flat_map(|running| running.variables()));
        if !known.is_empty() {
            let names: Vec<&str> = known.iter().map(|running| running.name()).collect();
            command.env("TIDY_SERVERS", names.join(","));
        }
        command
    }
}

/// A thread that waits until a server is ready.
pub(crate) struct Wait {
    /// Its place among the running.
    pub(crate) number: usize,
    pub(crate) since: Instant,
    pub(crate) thread: JoinHandle<()>,
    pub(crate) ready: Receiver<Result<()>>,
}

/// Rings when it is dropped, by a panic too.
pub(crate) struct Bell(pub(crate) PipeWriter);

impl Drop for Bell {
    fn drop(&mut self) {
        let _ = self.0.write_all(b"!");
    }
}

impl Wait {
    pub(crate) fn start(
        number: usize,
        child: Arc<Child>,
        what: ReadyArg,
        deadline: Instant,
        bell: Bell,
    ) -> Self {
        let (said, ready) = channel();
        let since = Instant::now();
        let thread = thread::spawn(move || {
            // Dropped last, it rings once the answer is there, or none will be.
            let _bell = bell;
            let said = said;
            let _ = said.send(what.ready().and_then(|ready| child.wait_ready(ready, deadline)));
        });
        Self { number, since, thread, ready }
    }

    /// Ends with its server.
    pub(crate) fn join(self) {
        let _ = self.thread.join();
    }
}
