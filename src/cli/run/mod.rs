//! `tidy-process run`: one command, from start to exit status.

pub(crate) mod args;
pub(crate) mod files;

use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::Value;
use tidy_process::{Cause, Command, Report, Supervisor, cli_support};

use crate::ending::EndingArgs;
use crate::exit::{Broken, Ended, Failure, Leaks, exit, seen};
use crate::ledger::Ledger;
use crate::options::command_of;
use crate::place::scope;
use crate::print::ci::Ci;
use crate::print::json::{Sink, Subject};
use crate::print::text::{self, Last, Voice, failed};
use crate::run::args::RunArgs;
use crate::run::files::Files;
use crate::timeline::Sheet;
use crate::wait::bar::Bar;
use crate::wait::open::{Opener, end_of};
use crate::wait::request::Requests;
use crate::wait::terminal::{Modes, choose_group, stays};
use crate::wait::watch::{Stop, Watch};
use crate::whole::WholeFile;
use crate::{script, words};

pub(crate) fn run(args: &RunArgs) -> Ended {
    let EndingArgs { timeout, leaks, .. } = args.ending;
    let voice = Voice::new(args.quiet, args.verbose, leaks);
    let modes = Modes::save();
    let signals = match args.ground.signals(args.quiet) {
        Ok(signals) => signals,
        Err(failure) => return failed(&failure),
    };
    let opener = Opener { signals: &signals, deadline: end_of(timeout) };
    let name = args.name.as_deref();
    let subject = Subject { command: &args.command, name, servers: None, changes: None };
    let mut files = Files::new(&opener, args.append);
    let (sink, ci) = match sinks(args, &mut files, &opener) {
        Ok(sinks) => sinks,
        Err(failure) => return failed(&failure),
    };
    if args.confine.plan {
        return args.confine.say_plan(&sink, subject);
    }
    let ledger = Ledger::open(&args.confine, |path| files.writing(path));
    let opened = ledger
        .and_then(|ledger| Ok((ledger, Sheet::open(&args.timeline, |path| files.has(path))?)));
    let (ledger, sheet) = match opened {
        Ok(opened) => opened,
        Err(failure) => return failed(&failure),
    };
    let (ended, written) = match supervise(args, files, &ledger, &sheet) {
        Ok(Run { report, scope, by_signal, killed, changes }) => {
            if report.cause != Cause::Exited {
                modes.put_back();
            }
            let cpu_time = args.limits.cpu_time;
            voice.last_words(&report, Last { timeout, cpu_time, killed, by_signal });
            voice.report(&report);
            let exit = exit(&report, leaks);
            let subject = Subject { changes: changes.as_ref(), ..subject };
            let written = sink.report(subject, seen(exit, by_signal), &report, scope);
            let told = ci.tell_one(&args.command, seen(exit, by_signal), Some(&report), None);
            let written = written.and(told).and(sheet.write(&args.command, None));
            if written.is_err() {
                voice.status_of_failed(&report);
            }
            (Ended { exit, by_signal }, written)
        }
        Err(Broken { failure, report }) => {
            let ended = failed(&failure);
            if let Some(report) = &report {
                modes.put_back();
                voice.report_of_failed(report);
            }
            let written = sink.failure(subject, ended.exit, &failure, report.as_deref());
            let drawn = sheet.write(&args.command, Some(&failure));
            let (report, failure) = (report.as_deref(), Some(&failure));
            let told = ci.tell_one(&args.command, ended.exit, report, failure);
            (ended, written.and(told).and(drawn))
        }
    };
    match written {
        Ok(()) => ended,
        Err(failure) => Ended { by_signal: ended.by_signal, ..failed(&failure) },
    }
}

/// Opens what the report is written to.
fn sinks(
    args: &RunArgs,
    files: &mut Files<'_>,
    opener: &Opener<'_>,
) -> Result<(Sink, Ci), Failure> {
    let sink = Sink::open(args.json.as_deref(), |path| files.writing(path))?;
    let mut summary = Files::new(opener, true);
    let add = |path: &Path| summary.writing(path);
    let ci = Ci::open(&args.ci, "tidy-process run", |path| files.writing(path), add)?;
    Ok((sink, ci))
}

/// What has happened.
struct Run {
    report: Report,
    /// Where: if we moved there.
    scope: Option<String>,
    by_signal: Option<Signal>,
    /// By `tidy-process kill`.
    killed: bool,
    /// In its overlays.
    changes: Option<Value>,
}

/// Everything that was made is gone when this returns.
fn supervise(
    args: &RunArgs,
    mut files: Files<'_>,
    ledger: &Ledger,
    sheet: &Sheet,
) -> Result<Run, Broken> {
    let signals = files.signals();
    // A report of how it ended says what it used.
    let account = args.verbose || args.json.is_some() || sheet.is_open();
    let builder = args.ground.guard(Supervisor::builder()).account(account);
    let learned = args.confine.learn.as_deref().map(WholeFile::open).transpose()?;
    let (builder, proxy) = args.confine.all_of(builder)?;
    let wish = args.ground.wish(args.needs_controllers(), args.verbose)?;
    let (supervisor, scope) = scope::supervisor(builder, &wish)?;
    if !args.quiet {
        text::mechanism(&supervisor);
    }
    let mut command = command(args, &supervisor);
    proxy.iter().for_each(|proxy| proxy.tell(&mut command));
    args.setting.apply(&mut command);
    sheet.record(&mut command);
    files.redirect(args, &mut command)?;
    sheet.stays_apart(|path| files.has(path))?;
    let leader = choose_group(&mut command, signals);
    if let Some(signal) = signals.answer_alone()? {
        return Err(Failure::NotStarted(signal).into());
    }
    let bar = Bar::new(args.progress, args.quiet || args.verbose, args.ending.timeout);
    let mut child =
        script::spawn(&mut command).map_err(|error| words::explain(error, "run", &args.command))?;
    proxy.iter().for_each(|proxy| proxy.serve(&mut child));
    // The files are the command's: the reader of a pipe is to see its end.
    drop((command, files));
    let leader = stays(leader, &child);
    let EndingArgs { signal, kill_after, leaks, .. } = args.ending;
    let stop = Stop { signal, kill_after, main_only: args.forward.main_only() };
    let mut requests = Requests::default();
    let watched = Watch::command(&child, signals, stop).and_then(|watch| {
        let mut watch = watch.with_bar(bar);
        let mut watched = watch.until_main_ended();
        if leaks == Leaks::Wait {
            watched = watched.and_then(|()| watch.until_empty());
        }
        let watched = watched.and_then(|()| watch.until_settled());
        requests = watch.requests();
        watched
    });
    let killed = cli_support::was_killed_by_name(child.tree());
    let report = Broken::or_report(watched, cli_support::finish_uncounted(&child))?;
    drop(leader);
    requests.note_late(signals)?;
    let by_signal = requests.by_signal(report.status);
    let learned = (learned.as_ref(), args.quiet);
    if let Err(failure) = args.confine.note_learned(&args.command, &child, &report, learned) {
        return Err(Broken { failure, report: Some(Box::new(report)) });
    }
    match ledger.settle(&report, seen(exit(&report, args.ending.leaks), by_signal)) {
        Ok(changes) => Ok(Run { report, scope, by_signal, killed, changes }),
        Err(failure) => Err(Broken { failure, report: Some(Box::new(report)) }),
    }
}

fn command(args: &RunArgs, supervisor: &Supervisor) -> Command {
    let mut command = command_of(&args.command, supervisor);
    args.ending.apply(&mut command);
    command.stop_main_only(args.forward.main_only());
    command.force_join(args.force_join).delegate(args.delegate);
    command.limits(args.limits.limits());
    if let Some(name) = &args.name {
        command.name(name);
    }
    command
}
