//! `tidy-process with`: servers up and ready, the command, servers down.

pub(crate) mod args;

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use nix::sys::signal::Signal;
use tidy_process::cli_support::{self, log_into, quoted_lines};
use tidy_process::{Cause, Child, Command, Log, Report, Stdio, Supervisor};

use crate::exit::{Broken, Ended, FAILED, Failure, Leaks, exit};
use crate::place::scope;
use crate::print::text::{self, Last, Voice, failed};
use crate::wait::open::{APPENDING, OUTPUT, Opener, end_of};
use crate::wait::signals::Signals;
use crate::wait::terminal::Modes;
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
            voice(args).report(&report);
            Ended { exit: exit(&report, Leaks::Kill), by_signal }
        }
        Ok((None, by_signal)) => Ended { exit: FAILED, by_signal },
        Err(Broken { failure, report }) => {
            let ended = failed(&failure);
            if let Some(report) = &report {
                voice(args).report_of_failed(report);
            }
            ended
        }
    }
}

fn voice(args: &WithArgs) -> Voice {
    Voice::new(args.quiet, args.verbose, Leaks::Kill)
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
        if let Some(signal) = up.start(server)? {
            up.down()?;
            return Ok((None, Some(signal)));
        }
    }
    let (report, asked) = up.main()?;
    match up.down() {
        Ok(()) => Ok((Some(report), asked)),
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
        Stop { signal: self.args.signal, kill_after: self.args.kill_after }
    }

    fn command(&self, program: &OsString) -> Command {
        let mut command = Command::new(program);
        command.supervisor(&self.supervisor);
        command.grace(self.args.kill_after).stop_signal(self.args.signal);
        command.envs(self.variables.iter().map(|(key, value)| (key, value)));
        command
    }

    /// Starts a server and waits until it is ready, or until a signal asks this process to end.
    fn start(&mut self, server: &'a ServerArgs) -> Result<Option<Signal>, Failure> {
        let failed = |error| Failure::Server { name: server.name().to_owned(), error };
        let log = self.log(server)?;
        let mut command = self.command(&"sh".into());
        command.arg("-c").arg(&server.command).name(server.name());
        // A daemon has no main process any more, and is stopped as any server is.
        command.settle(Duration::ZERO).stop_leftovers(true);
        let child = command.stdin(Stdio::null()).log(&log).spawn().map_err(failed)?;
        if let Some(what) = &server.ready {
            let (ready, asked) = self.until_ready(&child, what)?;
            if asked.is_some() {
                return Ok(asked);
            }
            ready.map_err(failed)?;
        }
        self.tell(server, &child)?;
        self.servers.push((server, child, log));
        Ok(None)
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

    /// Waits in a thread, which ends at once when the server is killed; this one answers signals.
    fn until_ready(
        &self,
        child: &Child,
        what: &ReadyArg,
    ) -> Result<(tidy_process::Result<()>, Option<Signal>), Failure> {
        let deadline = in_time(self.args.ready_timeout);
        let (over, waits) = std::io::pipe().map_err(Failure::Print)?;
        let mut watch = Watch::new(child, &self.signals, self.stop());
        thread::scope(|scope| {
            let waiting = scope.spawn(move || {
                let ready = what.ready().and_then(|ready| child.wait_ready(ready, deadline));
                drop(waits);
                ready
            });
            while !waiting.is_finished() {
                watch.sleep(over.as_fd(), PollFlags::POLLIN)?;
                if watch.asked.is_some() {
                    child.kill()?;
                }
            }
            match waiting.join() {
                Ok(ready) => Ok((ready, watch.asked)),
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

    fn main(&self) -> Result<(Report, Option<Signal>), Broken> {
        let mut words = self.args.command.iter();
        let program = words.next().cloned().unwrap_or_default();
        let mut command = self.command(&program);
        command.args(words).settle(self.args.settle);
        if let Some(timeout) = self.args.timeout.filter(|timeout| !timeout.is_zero()) {
            command.timeout(timeout);
        }
        let child = script::spawn(&mut command)
            .map_err(|error| words::explain(error, "with", &self.args.command))?;
        let servers: Vec<&Child> = self.servers.iter().map(|(_, child, _)| child).collect();
        let mut watch = Watch::new(&child, &self.signals, self.stop()).beside(&servers);
        let watched = watch.until_server_ended();
        let watched = match watched {
            Ok(None) => watch.until_settled().map(|()| None),
            other => other,
        };
        let asked = watch.asked;
        let killed = cli_support::was_killed_by_name(child.tree());
        let ended = watched.as_ref().ok().copied().flatten();
        let report = Broken::or_report(watched, child.finish())?;
        match ended.and_then(|number| self.servers.get(number)) {
            Some((server, child, log)) => Err(epitaph(server, child, log)?.into()),
            None => {
                let timeout = self.args.timeout;
                let last = Last { timeout, cpu_time: None, killed, by_signal: asked };
                voice(self.args).last_words(&report, last);
                Ok((report, asked))
            }
        }
    }

    /// Ends the servers, the last one first: it may need those before it.
    fn down(self) -> Result<(), Failure> {
        let ends = self.servers.into_iter().rev().map(|(_, child, _)| child.finish());
        // Each server is ended, even after an error; the first error is returned.
        let errors: Vec<_> = ends.filter_map(Result::err).collect();
        errors.into_iter().next().map_or(Ok(()), |error| Err(error.into()))
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
