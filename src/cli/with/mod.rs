//! `tidy-process with`: servers up and ready, the command, servers down.

pub(crate) mod args;

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use libc::SIGTERM;
use nix::poll::PollFlags;
use nix::sys::signal::Signal;
use tidy_process::cli_support::{log_into, quoted_lines};
use tidy_process::{Cause, Child, Command, Log, Report, Stdio, Supervisor};

use crate::exit::{Broken, Ended, FAILED, Failure, Forward, Leaks, exit};
use crate::place::scope;
use crate::print::text::{self, Voice, failed};
use crate::wait::open::{APPENDING, OUTPUT, Opener, end_of};
use crate::wait::request::Requests;
use crate::wait::signals::Signals;
use crate::wait::terminal::{Modes, choose_group, stand_apart};
use crate::wait::watch::{Stop, Watch};
use crate::with::args::{ReadyArg, ServerArgs, WithArgs};
use crate::{script, words};

/// Bytes of a server's output that are kept for its epitaph, where it has no log file.
const KEPT: usize = 64 * 1024;

/// A hundred years: a deadline that is never met.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

pub(crate) fn with(args: &WithArgs) -> Ended {
    let modes = Modes::save();
    let ended = supervise(args);
    if !matches!(&ended, Ok((Some(report), _)) if report.cause == Cause::Exited) {
        modes.put_back();
    }
    match ended {
        Ok((Some(report), by_signal)) => {
            Voice::new(args.quiet, args.verbose, Leaks::Kill).report(&report);
            Ended { exit: exit(&report, Leaks::Kill), by_signal }
        }
        Ok((None, by_signal)) => Ended { exit: FAILED, by_signal },
        Err(Broken { failure, report }) => {
            let ended = failed(&failure);
            if let Some(report) = &report {
                Voice::new(args.quiet, args.verbose, Leaks::Kill).report_of_failed(report);
            }
            ended
        }
    }
}

/// Runs the servers and the command. Returns the command's report, if it was started, and the
/// signal that this process has to end by. All that was made is gone on return.
fn supervise(args: &WithArgs) -> Result<(Option<Report>, Option<Signal>), Broken> {
    let signals = Signals::collect()?;
    let builder = args.ground.guard(Supervisor::builder()).account(args.verbose);
    let wish = args.ground.wish(false, args.verbose)?;
    let (supervisor, _) = scope::supervisor(builder, &wish)?;
    if !args.quiet {
        text::mechanism(&supervisor);
    }
    let deadline = end_of(args.timeout);
    let (servers, variables) = (Vec::new(), Vec::new());
    let mut up = Up { args, supervisor, signals, deadline, servers, variables };
    for server in &args.servers.0 {
        let mut requests = up.start(server)?;
        if requests.asked.is_some() {
            up.down(&mut requests)?;
            return Ok((None, requests.asked));
        }
    }
    let (report, mut requests) = up.main()?;
    match up.down(&mut requests) {
        Ok(()) => {
            let by_signal = requests.by_signal(report.status);
            Ok((Some(report), by_signal))
        }
        Err(failure) => Err(Broken { failure, report: Some(Box::new(report)) }),
    }
}

/// The servers that run, and the variables that tell the next one and the main command of them.
struct Up<'a> {
    args: &'a WithArgs,
    supervisor: Supervisor,
    signals: Signals,
    /// Bounds the opening of files; the timeout of CMD begins with CMD.
    deadline: Option<Instant>,
    servers: Vec<(&'a ServerArgs, Child, Log)>,
    variables: Vec<(String, String)>,
}

impl<'a> Up<'a> {
    fn stop(&self) -> Stop {
        let main_only = self.args.forward == Forward::Main;
        Stop { signal: self.args.signal, kill_after: self.args.kill_after, main_only }
    }

    /// Servers are stopped as ever, whichever signal is the reason.
    fn stop_of_server(&self) -> Stop {
        Stop { signal: Some(self.stop_signal()), ..self.stop() }
    }

    fn stop_signal(&self) -> i32 {
        self.args.signal.unwrap_or(SIGTERM)
    }

    fn command(&self, program: &OsString) -> Command {
        let mut command = Command::new(program);
        command.supervisor(&self.supervisor);
        command.grace(self.args.kill_after).stop_signal(self.stop_signal());
        command.stop_main_only(self.args.forward == Forward::Main);
        command.envs(self.variables.iter().map(|(key, value)| (key, value)));
        command
    }

    /// Starts a server and waits until it is ready, or until a signal asks this process to end.
    fn start(&mut self, server: &'a ServerArgs) -> Result<Requests, Failure> {
        let failed = |error| Failure::Server { name: server.name().to_owned(), error };
        let log = self.log(server)?;
        let mut command = self.command(&"sh".into());
        command.arg("-c").arg(&server.command).name(server.name());
        // In a terminal's background: Ctrl-C is for the command, which may need the servers to end.
        let leader = stand_apart(&mut command);
        let child = command.stdin(Stdio::null()).log(&log).spawn().map_err(failed)?;
        drop(leader);
        let (ready, requests) = self.until_ready(&child, server.ready.as_ref())?;
        if requests.asked.is_none() {
            ready.map_err(failed)?;
        }
        self.tell(server, &child)?;
        self.servers.push((server, child, log));
        Ok(requests)
    }

    /// Makes the server's log as [`Log::create`] does, with signals and the timeout in force.
    fn log(&self, server: &ServerArgs) -> Result<Log, Failure> {
        let opener = Opener { signals: &self.signals, deadline: self.deadline };
        let log = match &server.log {
            Some(path) => {
                let _made = opener.open(path, OUTPUT)?;
                log_into(opener.open(path, APPENDING)?)
            }
            None => Log::bounded(0, KEPT),
        };
        let name = server.name().to_owned();
        let say = move |line: &str| text::server_line(&name, line);
        Ok(if self.args.verbose { log.on_line(say) } else { log })
    }

    /// Waits in a thread, which ends at once when the server does; this one answers signals.
    fn until_ready(
        &self,
        child: &Child,
        what: Option<&ReadyArg>,
    ) -> Result<(tidy_process::Result<()>, Requests), Failure> {
        let deadline = in_time(self.args.ready_timeout);
        let (over, waits) = std::io::pipe().map_err(Failure::Print)?;
        let mut watch = Watch::server(child, &self.signals, self.stop_of_server());
        watch.take_signals()?;
        let Some(what) = what else { return Ok((Ok(()), watch.requests())) };
        thread::scope(|scope| {
            let waiting = scope.spawn(move || {
                let ready = what.ready().and_then(|ready| child.wait_ready(ready, deadline));
                drop(waits);
                ready
            });
            while !waiting.is_finished() {
                watch.sleep(over.as_fd(), PollFlags::POLLIN, None)?;
            }
            match waiting.join() {
                Ok(ready) => Ok((ready, watch.requests())),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Sets `TIDY_SERVERS`, `TIDY_<NAME>_PID` and, if the server listens on a port,
    /// `TIDY_<NAME>_PORT`.
    fn tell(&mut self, server: &ServerArgs, child: &Child) -> Result<(), Failure> {
        let named = server.ready.as_ref().and_then(ReadyArg::port);
        let found = || {
            let ports = child.tree().listening_ports()?;
            Ok::<_, tidy_process::Error>(ports.first().map(|port| port.address.port()))
        };
        let variable = server.variable();
        if let Some(port) = named.map_or_else(found, |port| Ok(Some(port)))? {
            self.variables.push((format!("TIDY_{variable}_PORT"), port.to_string()));
        }
        self.variables.push((format!("TIDY_{variable}_PID"), child.id().to_string()));
        let names = self.servers.iter().map(|(server, ..)| server.name()).chain([server.name()]);
        let names = names.collect::<Vec<_>>().join(",");
        self.variables.push(("TIDY_SERVERS".to_owned(), names));
        Ok(())
    }

    fn main(&self) -> Result<(Report, Requests), Broken> {
        let mut words = self.args.command.iter();
        let program = words.next().cloned().unwrap_or_default();
        let mut command = self.command(&program);
        command.args(words);
        if let Some(timeout) = self.args.timeout.filter(|timeout| !timeout.is_zero()) {
            command.timeout(timeout);
        }
        let leader = choose_group(&mut command, &self.signals);
        let child = script::spawn(&mut command)
            .map_err(|error| words::explain(error, "with", &self.args.command))?;
        drop(leader);
        let servers: Vec<&Child> = self.servers.iter().map(|(_, child, _)| child).collect();
        let mut requests = Requests::default();
        let watched = Watch::command(&child, &self.signals, self.stop()).and_then(|watch| {
            let mut watch = watch.beside(&servers);
            let watched = match watch.until_server_ended() {
                Ok(None) => watch.until_stopped().map(|()| None),
                ended => ended,
            };
            requests = watch.requests();
            watched
        });
        let ended = watched.as_ref().ok().copied().flatten();
        let report = Broken::or_report(watched, child.finish())?;
        match ended.and_then(|number| self.servers.get(number)) {
            Some((server, child, log)) => Err(epitaph(server, child, log)?.into()),
            None => Ok((report, requests)),
        }
    }

    /// Ends the servers, the last one first: it may need those before it. A signal that comes
    /// meanwhile ends them all at once.
    fn down(self, requests: &mut Requests) -> Result<(), Failure> {
        let stop = self.stop_of_server();
        let end = |(_, child, _): (_, Child, _)| -> Result<(), Failure> {
            let mut watch = Watch::server(&child, &self.signals, stop).after(*requests);
            let put_down = watch.until_put_down();
            *requests = watch.requests();
            put_down.and(child.finish().map(drop).map_err(Failure::from))
        };
        // Each server is ended, even after an error; the first error is returned.
        let ends = self.servers.into_iter().rev().map(end);
        ends.fold(Ok(()), Result::and)
    }
}

/// Returns the instant this long from now; a hundred years if the clock does not reach that far.
fn in_time(time: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(time).or_else(|| now.checked_add(NEVER)).unwrap_or(now)
}

fn epitaph(server: &ServerArgs, child: &Child, log: &Log) -> Result<Failure, Failure> {
    let status = child.wait()?;
    let lines = quoted_lines(&log.tail(10));
    let tail = if lines.is_empty() {
        "; it has written nothing".to_owned()
    } else {
        format!("; its last lines:\n  {}", lines.replace('\n', "\n  "))
    };
    Ok(Failure::ServerEnded { name: server.name().to_owned(), status, tail })
}
