//! `tidy-process with`: servers up and ready, the command, servers down.

pub(crate) mod args;
pub(crate) mod file;
pub(crate) mod progress;
pub(crate) mod ready;
pub(crate) mod running;
pub(crate) mod servers;
pub(crate) mod start;
pub(crate) mod up;

use nix::sys::signal::Signal;
use serde_json::Value;
use tidy_process::{Cause, Child, Report, Supervisor, cli_support};

use crate::exit::{Broken, Ended, FAILED, Failure, Leaks, exit, seen};
use crate::ledger::Ledger;
use crate::options::LimitArgs;
use crate::place::scope;
use crate::print::ci::Ci;
use crate::print::json::{Sink, Subject};
use crate::print::text::{self, Last, Voice, failed};
use crate::run::files::Files;
use crate::timeline::Sheet;
use crate::wait::open::{Opener, end_of};
use crate::wait::request::Requests;
use crate::wait::terminal::{Modes, choose_group, stays};
use crate::wait::watch::Watch;
use crate::with::args::WithArgs;
use crate::with::running::{Running, epitaph};
use crate::with::servers::Servers;
use crate::with::up::{Up, Wait};
use crate::{script, words};

pub(crate) fn with(args: &WithArgs) -> Ended {
    let modes = Modes::save();
    let signals = match args.ground.signals(args.quiet) {
        Ok(signals) => signals,
        Err(failure) => return failed(&failure),
    };
    let opener = Opener { signals: &signals, deadline: end_of(args.ending.timeout) };
    let mut files = Files::new(&opener, false);
    let sink = match Sink::open(args.json.as_deref(), |path| files.writing(path)) {
        Ok(sink) => sink,
        Err(failure) => return failed(&failure),
    };
    let ledger = match Ledger::open(&args.confine, |path| files.writing(path)) {
        Ok(ledger) => ledger,
        Err(failure) => return failed(&failure),
    };
    let mut summary = Files::new(&opener, true);
    let ci = Ci::open(
        &args.ci,
        "tidy-process with",
        |path| files.writing(path),
        |path| summary.writing(path),
    );
    let ci = match ci {
        Ok(ci) => ci,
        Err(failure) => return failed(&failure),
    };
    if args.confine.plan {
        let subject = Subject { command: &args.command, name: None, servers: None, changes: None };
        return args.confine.say_plan(&sink, subject);
    }
    let sheet = match Sheet::open(&args.timeline, |path| files.has(path)) {
        Ok(sheet) => sheet,
        Err(failure) => return failed(&failure),
    };
    drop((files, summary));
    let mut outcome = Outcome::default();
    let ended = match supervise(args, &opener, (&ledger, &sheet), &mut outcome) {
        Err(failure) => outcome.fails(failure),
        Ok(()) => match &outcome.report {
            Some(report) => {
                let exit = exit(report, args.ending.leaks);
                Ended { exit, by_signal: outcome.by_signal }
            }
            None => Ended { exit: FAILED, by_signal: outcome.by_signal },
        },
    };
    if outcome.report.as_ref().is_none_or(|report| report.cause != Cause::Exited) {
        modes.put_back();
    }
    outcome.say(args, ended.exit);
    let exit = seen(ended.exit, ended.by_signal);
    let written = outcome.write(args, &sink, exit);
    let (report, failure) = (outcome.report.as_ref(), outcome.failure.as_ref());
    let told = ci.tell_one(&args.command, exit, report, failure);
    match written.and(told).and(sheet.write(&args.command, failure)) {
        Ok(()) => ended,
        Err(failure) => Ended { by_signal: ended.by_signal, ..failed(&failure) },
    }
}

/// What has happened.
#[derive(Default)]
struct Outcome {
    /// How CMD ended, if it was started.
    report: Option<Report>,
    failure: Option<Failure>,
    /// The signal that this process has to end by.
    by_signal: Option<Signal>,
    /// By `tidy-process kill`.
    killed: bool,
    scope: Option<String>,
    /// The last lines of each server, where CMD has failed.
    tails: Vec<(String, String)>,
    /// The servers, for the report.
    servers: Vec<Value>,
    /// What the command has changed in its overlays.
    changes: Option<Value>,
}

impl Outcome {
    fn fails(&mut self, failure: Failure) -> Ended {
        let ended = failed(&failure);
        self.failure = Some(failure);
        ended
    }

    fn say(&self, args: &WithArgs, exit: u8) {
        let voice = Voice::new(args.quiet, args.verbose, args.ending.leaks);
        match (&self.report, &self.failure) {
            (Some(report), None) => {
                let (killed, by_signal) = (self.killed, self.by_signal);
                let cpu_time = args.servers.common.limits.cpu_time;
                let last = Last { timeout: args.ending.timeout, cpu_time, killed, by_signal };
                voice.last_words(report, last);
                voice.report(report);
            }
            (Some(report), Some(_)) => voice.report_of_failed(report),
            (None, _) => {}
        }
        if exit != 0 && self.failure.is_none() && self.by_signal.is_none() {
            self.tails.iter().for_each(|(name, lines)| text::last_lines(name, lines));
        }
    }

    fn write(&mut self, args: &WithArgs, sink: &Sink, exit: u8) -> Result<(), Failure> {
        let (servers, changes) = (Some(&*self.servers), self.changes.as_ref());
        let subject = Subject { command: &args.command, name: None, servers, changes };
        if self.report.is_none() && self.failure.is_none() {
            self.failure = self.by_signal.map(Failure::StoppedBefore);
        }
        match (&self.failure, &self.report) {
            (Some(failure), report) => sink.failure(subject, exit, failure, report.as_ref()),
            (None, Some(report)) => sink.report(subject, exit, report, self.scope.take()),
            (None, None) => Ok(()),
        }
    }
}

/// Runs the servers and the command. All that was made is gone on return.
fn supervise(
    args: &WithArgs,
    opener: &Opener<'_>,
    (ledger, sheet): (&Ledger, &Sheet),
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    let mut servers = args.servers.clone();
    if let Some(path) = &args.file {
        file::add(path, opener, &mut servers)?;
    }
    // A report of how it ended says what it used.
    let account = args.verbose || args.json.is_some() || sheet.is_open();
    let builder = args.ground.guard(Supervisor::builder()).account(account);
    args.confine.refuse_learning()?;
    let (builder, proxy) = args.confine.all_of(builder)?;
    let wish = args.ground.wish(servers.need_controllers(), args.verbose)?;
    let (supervisor, scope) = scope::supervisor(builder, &wish)?;
    outcome.scope = scope;
    if !args.quiet {
        text::mechanism(&supervisor);
        text::unawaited(&servers.unawaited());
    }
    let (running, waits, requests) = (Vec::new(), Vec::new(), Requests::default());
    let plan = &servers;
    let mut up = Up { args, plan, supervisor, proxy, opener, sheet, running, waits, requests };
    let ran = match up.bring_up() {
        Ok(true) => up.main(outcome, ledger),
        Ok(false) => Ok(()),
        Err(failure) => Err(failure),
    };
    let down = up.down();
    outcome.by_signal = match &outcome.report {
        Some(report) => up.requests.by_signal(report.status),
        None => up.requests.asked.filter(|_| ran.is_ok()),
    };
    outcome.servers = up.running.iter().map(Running::json).collect();
    for running in up.running.iter().filter(|_| !args.quiet) {
        let whose = format!("server {}: ", cli_support::quoted(running.name()));
        running.report.iter().for_each(|report| text::denied(&whose, report));
    }
    ran.and(down)
}

impl Servers {
    fn need_controllers(&self) -> bool {
        let each = self.all.iter().map(|server| &server.options.common.limits);
        each.chain([&self.common.limits]).any(LimitArgs::need_controllers)
    }

    /// The names of those that nothing is awaited of.
    fn unawaited(&self) -> Vec<&str> {
        let silent = self.all.iter().filter(|server| server.options.ready.is_none());
        silent.map(|server| &*server.name).collect()
    }
}

impl Up<'_> {
    fn main(&mut self, outcome: &mut Outcome, ledger: &Ledger) -> Result<(), Failure> {
        let known: Vec<&Running<'_>> = self.running.iter().collect();
        let mut command = self.command(&self.args.command, &known);
        let common = &self.plan.common;
        common.setting.apply(&mut command);
        command.limits(common.limits.limits());
        self.args.ending.apply(&mut command);
        let leader = choose_group(&mut command, self.opener.signals);
        let mut child = script::spawn(&mut command)
            .map_err(|error| words::explain(error, "with", &self.args.command))?;
        self.proxy.iter().for_each(|proxy| proxy.serve(&mut child));
        let leader = stays(leader, &child);
        let servers: Vec<&Child> = self.running.iter().map(|running| &*running.child).collect();
        let mut requests = Requests::default();
        let watched = Watch::command(&child, self.opener.signals, self.stop()).and_then(|watch| {
            let mut watch = watch.beside(&servers);
            let mut watched = watch.until_server_ended();
            if matches!(watched, Ok(None)) {
                let left = match self.args.ending.leaks {
                    Leaks::Wait => watch.until_empty(),
                    _ => Ok(()),
                };
                watched = left.and_then(|()| watch.until_settled()).map(|()| None);
            }
            requests = watch.requests();
            watched
        });
        self.requests = requests;
        outcome.killed = cli_support::was_killed_by_name(child.tree());
        let ended = watched.as_ref().ok().copied().flatten();
        outcome.tails = self.running.iter().map(|one| one.tail(self.args.tail())).collect();
        match Broken::or_report(watched, child.finish()) {
            Ok(report) => outcome.report = Some(report),
            Err(Broken { failure, report }) => {
                outcome.report = report.map(|report| *report);
                return Err(failure);
            }
        }
        drop(leader);
        match ended.and_then(|number| self.running.get(number)) {
            Some(server) => {
                // Its end is what counts, not how CMD took it.
                outcome.report = None;
                Err(epitaph(server, "CMD was running")?)
            }
            None => self.settle(outcome, ledger),
        }
    }

    /// The command's overlays; those of servers are dropped.
    fn settle(&self, outcome: &mut Outcome, ledger: &Ledger) -> Result<(), Failure> {
        let Some(report) = &outcome.report else { return Ok(()) };
        let exit =
            seen(exit(report, self.args.ending.leaks), self.requests.by_signal(report.status));
        outcome.changes = ledger.settle(report, exit)?;
        Ok(())
    }

    /// Ends the servers, the last one first: it may need those before it. A signal that comes
    /// meanwhile ends them all at once.
    fn down(&mut self) -> Result<(), Failure> {
        let stop = self.stop_of_server();
        // Each server is ended, even after an error; the first error is returned.
        let mut first = Ok(());
        for running in self.running.iter_mut().rev() {
            // One that ends with its input does so now.
            running.input = None;
            let watch = Watch::server(&running.child, self.opener.signals, stop);
            let mut watch = watch.after(self.requests);
            let put_down = watch.until_put_down();
            self.requests = watch.requests();
            first = first.and(put_down).and(running.finish().map_err(Failure::from));
        }
        self.waits.drain(..).for_each(Wait::join);
        first
    }
}
