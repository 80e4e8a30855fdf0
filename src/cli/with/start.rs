//! Brings the servers up, and waits until they are ready: one after the other, or all at the same
//! time but for those that depend on others.
//!
//! A thread waits for each server and rings a bell; this one answers signals, and watches those
//! that are ready: the end of one is seen at once, and not taken for the fault of the next.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{PipeReader, PipeWriter, Read, pipe};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::TryRecvError;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use tidy_process::cli_support::{self, log_into};
use tidy_process::{Child, Error, Log, Stdio};

use crate::exit::Failure;
use crate::print::text;
use crate::wait::open::{APPENDING, INPUT, OUTPUT};
use crate::wait::terminal::{stand_apart, stays};
use crate::wait::watch::{Watch, is_over};
use crate::with::progress::Progress;
use crate::with::running::{Running, State, epitaph};
use crate::with::servers::{InputArg, Program, Server};
use crate::with::up::{Bell, Up, Wait};

/// Bytes of a server's output that are kept, where it has no log file.
const KEPT: usize = 64 * 1024;

/// A hundred years: a deadline that is never met.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

impl<'a> Up<'a> {
    /// Starts all servers, and returns when they are ready; or false, at a signal that asks this
    /// process to end.
    pub(crate) fn bring_up(&mut self) -> Result<bool, Failure> {
        let (mut bell, rings) = pipe().map_err(Failure::Print)?;
        let mut progress = Progress::new(self.args.progress, self.args.quiet || self.args.verbose);
        loop {
            while let Some((number, server)) = self.next() {
                self.start(number, server, &rings)?;
            }
            let due = progress.show(&self.awaits());
            self.look(&bell, due)?;
            if self.requests.asked.is_some() {
                return Ok(false);
            }
            if self.waits.is_empty() {
                return Ok(true);
            }
            self.hear(&mut bell)?;
        }
    }

    /// The next server to start: with `--parallel` the first whose dependencies are ready, else the
    /// first, once those before it are ready.
    fn next(&self) -> Option<(usize, &'a Server)> {
        let ready = |place: &usize| {
            self.running.iter().any(|running| running.number == *place && running.is_ready())
        };
        let is_new = |place: usize| self.running.iter().all(|running| running.number != place);
        let may_start = |server: &Server| match self.args.parallel {
            true => server.depends.iter().all(ready),
            false => self.waits.is_empty(),
        };
        let mut all = self.plan.all.iter().enumerate();
        all.find(|(place, server)| is_new(*place) && may_start(server))
    }

    /// Those of whom a server learns: all before it, or with `--parallel`, where that is by chance,
    /// those that it depends on.
    fn known_to(&self, server: &Server) -> Vec<&Running<'a>> {
        if !self.args.parallel {
            return self.running.iter().collect();
        }
        let mut known = BTreeSet::new();
        let mut todo = server.depends.clone();
        while let Some(place) = todo.pop() {
            if known.insert(place) {
                todo.extend(self.plan.all.get(place).iter().flat_map(|further| &further.depends));
            }
        }
        self.running.iter().filter(|running| known.contains(&running.number)).collect()
    }

    fn start(
        &mut self,
        number: usize,
        server: &'a Server,
        rings: &PipeWriter,
    ) -> Result<(), Failure> {
        let words: Vec<OsString> = match &server.command {
            Program::Line(line) => vec!["sh".into(), "-c".into(), line.clone()],
            Program::Words(words) => words.iter().map(OsString::from).collect(),
        };
        let log = self.log(server)?;
        let mut command = self.command(&words, &self.known_to(server));
        let options = &server.options;
        options.common.setting.apply(&mut command);
        command.limits(options.common.limits.limits()).name(&server.name).log(&log);
        // A daemon has no main process any more, and is stopped as any server is.
        command.settle(Duration::ZERO).stop_leftovers(true);
        command.stdin(match &options.stdin {
            None => Stdio::null(),
            Some(InputArg::Open) => Stdio::piped(),
            Some(InputArg::File(path)) => self.opener.open(path, INPUT)?.into(),
        });
        // In a terminal's background: Ctrl-C is for the command, which may need the servers to end.
        let leader = stand_apart(&mut command);
        let spawned = command.spawn();
        let mut child = spawned.map_err(|error| Failure::server(&server.name, error, None))?;
        let input = child.stdin.take();
        self.proxy.iter().for_each(|proxy| proxy.serve(&mut child));
        let leader = stays(leader, &child);
        let (child, state) = (Arc::new(child), State::Ready(None));
        let (port, report) = (None, None);
        let place = self.running.len();
        self.running.push(Running {
            number,
            server,
            child,
            leader,
            log,
            input,
            state,
            port,
            report,
        });
        let Some(what) = &options.ready else { return self.is_ready(place, None) };
        let bell = Bell(rings.try_clone().map_err(Failure::Print)?);
        let deadline = in_time(self.args.ready_timeout);
        if let Some(running) = self.running.get_mut(place) {
            running.state = State::Awaited;
            let child = Arc::clone(&running.child);
            self.waits.push(Wait::start(place, child, what.clone(), deadline, bell));
        }
        Ok(())
    }

    /// Makes the server's log as [`Log::create`] does, with signals and the timeout in force.
    fn log(&self, server: &Server) -> Result<Log, Failure> {
        let log = match &server.options.log {
            Some(path) => {
                let _made = self.opener.open(path, OUTPUT)?;
                log_into(self.opener.open(path, APPENDING)?)
            }
            None => Log::bounded(0, KEPT),
        };
        let name = server.name.clone();
        let say = move |line: &str| text::server_line(&name, line);
        Ok(if self.args.verbose { log.on_line(say) } else { log })
    }

    fn awaited(&self) -> String {
        let awaited = self.running.iter().filter(|running| !running.is_ready());
        let names: Vec<String> = awaited.map(|running| running.awaited()).collect();
        names.join(", ")
    }

    /// Each with its number, what it is waited for, and since when.
    fn awaits(&self) -> Vec<(usize, String, Instant)> {
        let each = self.waits.iter().filter_map(|wait| {
            let running = self.running.get(wait.number)?;
            Some((running.number, running.awaited(), wait.since))
        });
        each.collect()
    }

    /// Sleeps until the bell rings, a signal comes, or a server that is ready may have ended.
    fn look(&mut self, bell: &PipeReader, due: Option<Instant>) -> Result<(), Failure> {
        let mut children: Vec<&Child> = self.running.iter().map(|one| &*one.child).collect();
        let Some(last) = children.pop() else { return Ok(()) };
        let watch = Watch::server(last, self.opener.signals, self.stop_of_server());
        let mut watch = watch.beside(&children).after(self.requests);
        watch.take_signals()?;
        for running in &self.running {
            if running.is_ready() && is_over(&running.child)? && !watch.signal_comes()? {
                return Err(self.ended_early(running)?);
            }
        }
        if watch.requests().asked.is_none() && !self.waits.is_empty() {
            watch.sleep(bell.as_fd(), PollFlags::POLLIN, due)?;
        }
        self.requests = watch.requests();
        Ok(())
    }

    /// Takes the answers that are there.
    fn hear(&mut self, bell: &mut PipeReader) -> Result<(), Failure> {
        let mut place = 0;
        while let Some(wait) = self.waits.get(place) {
            let (number, since) = (wait.number, wait.since);
            match wait.ready.try_recv() {
                Err(TryRecvError::Empty) => {
                    place += 1;
                    continue;
                }
                Ok(Err(error)) => return Err(self.not_ready(number, error)?),
                Err(TryRecvError::Disconnected) | Ok(Ok(())) => {}
            }
            // It rang with its answer: that is heard now.
            let _ = bell.read(&mut [0]);
            let wait = self.waits.remove(place);
            if let Err(panic) = wait.thread.join() {
                std::panic::resume_unwind(panic);
            }
            self.is_ready(number, Some(since.elapsed()))?;
        }
        Ok(())
    }

    /// Notes that a server is ready, and says which port it is taken to have where it has several.
    fn is_ready(&mut self, place: usize, after: Option<Duration>) -> Result<(), Failure> {
        let Some(running) = self.running.get_mut(place) else { return Ok(()) };
        let others = running.note_ready(after)?;
        if let Some(port) = running.port.filter(|_| !others.is_empty() && !self.args.quiet) {
            text::several_ports(running.name(), port, &others);
        }
        Ok(())
    }

    /// Makes the failure of a server that was ready and has ended.
    fn ended_early(&self, running: &Running<'_>) -> Result<Failure, Failure> {
        match &*self.awaited() {
            "" => epitaph(running, "CMD was about to start"),
            awaited => epitaph(running, &format!("{awaited} was awaited")),
        }
    }

    /// Makes the failure of a server that did not become ready: of one that it may have needed, if
    /// that has ended; and it names the server that has its port.
    fn not_ready(&self, place: usize, error: Error) -> Result<Failure, Failure> {
        for running in &self.running {
            if running.is_ready() && is_over(&running.child)? {
                return self.ended_early(running);
            }
        }
        let holder = error.holder().map(|holder| holder.pid);
        let holds = |running: &&Running<'_>| {
            holder.is_some_and(|pid| cli_support::has(running.child.tree(), pid))
        };
        let sibling = self.running.iter().find(holds).map(|running| running.name().to_owned());
        let Some(running) = self.running.get(place) else { return Ok(error.into()) };
        let mut failure = Failure::server(running.name(), error, sibling);
        if let Failure::Server { hint, .. } = &mut failure {
            *hint = hint.take().or(running.input_hint().map(Into::into));
        }
        Ok(failure)
    }
}

/// Returns the instant this long from now; a hundred years if the clock does not reach that far.
fn in_time(time: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(time).or_else(|| now.checked_add(NEVER)).unwrap_or(now)
}
