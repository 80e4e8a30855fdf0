//! `tidy-process pool`: many commands, so many at a time.

pub(crate) mod args;
pub(crate) mod backlog;
mod bar;
mod clerk;
mod conduct;
mod emit;
pub(crate) mod engine;
pub(crate) mod desk;
pub(crate) mod gate;
pub(crate) mod input;
pub(crate) mod joblog;
mod open;
pub(crate) mod source;
pub(crate) mod spool;
mod table;
pub(crate) mod template;
pub(crate) mod values;

use std::io::{self, IsTerminal};
use std::sync::mpsc::channel;
use std::time::Instant;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tidy_process::Supervisor;

use crate::exit::{Ended, FAILED, Failure, LEAKED, Leaks};
use crate::place::scope;
use crate::pool::args::PoolArgs;
use crate::pool::clerk::Books;
use crate::pool::conduct::Conduct;
use crate::pool::desk::Desk;
use crate::pool::emit::asked::Asked;
use crate::pool::open::Opened;
use crate::pool::values::Jobs;
use crate::print::json::{VERSION, insert};
use crate::print::text::{self, failed, line};
use crate::wait::open::Opener;
use crate::wait::signals::Signals;

pub(crate) fn pool(args: &PoolArgs) -> Ended {
    let signals = match args.ground.signals(args.quiet) {
        Ok(signals) => signals,
        Err(failure) => return failed(&failure),
    };
    let result = match args.confine.plan {
        true => return open::say_plan(args, &signals),
        false => run(args, &signals),
    };
    result.unwrap_or_else(|failure| failed(&failure))
}

fn run(args: &PoolArgs, signals: &Signals) -> Result<Ended, Failure> {
    args.confine.refuse_for_many("pool")?;
    // What a script cannot have is refused before any file is emptied.
    let asked = args.emit.map(|engine| Asked::read(args, engine)).transpose()?;
    let opener = Opener { signals, deadline: None };
    let opened = open::open(args, &opener)?;
    if let Some(asked) = asked {
        return emit::emit(args, &asked, opened, signals)
            .map(|()| Ended { exit: 0, by_signal: None });
    }
    if args.dry_run {
        return list(opened, signals).map(|()| Ended { exit: 0, by_signal: None });
    }
    let start = Instant::now();
    let Opened { recipe, feed, spools, books } = opened;
    // No command has a file of the pool, or pays for one.
    let builder = Supervisor::builder().account(args.is_accounted()).close_fds(true);
    let (builder, proxy) = args.confine.all_of(args.ground.guard(builder))?;
    let wish = args.ground.wish(args.limits.need_controllers(), args.verbose)?;
    let (supervisor, _) = scope::supervisor(builder, &wish)?;
    if !args.quiet {
        text::mechanism(&supervisor);
        feed.gate.unknown().into_iter().for_each(line);
    }
    let (sender, events) = channel();
    let home = (supervisor.clone(), proxy);
    let desk = Desk::new(args, home, (recipe, feed), spools, sender)?;
    let number = at_a_time(args);
    let (books, by_signal) = Conduct::new(&desk, signals).run(number, (books, events))?;
    let closed = supervisor.close();
    let ended = end(args, &desk, (books, by_signal), start)?;
    closed?;
    Ok(ended)
}

fn at_a_time(args: &PoolArgs) -> usize {
    let (number, is_cut) = args.jobs.unwrap_or(Jobs::Percent(100.0)).number();
    if is_cut && !args.quiet {
        line(format_args!("no more than {number} at a time: the limit of open files (ulimit -n)"));
    }
    number
}

/// Prints the commands.
fn list(opened: Opened, signals: &Signals) -> Result<(), Failure> {
    opened.each(signals, |recipe, number, args| {
        let words = recipe.words(args, number, 1);
        let text = recipe.text(&words);
        text::print(&format!("{}\n", String::from_utf8_lossy(&text)))
    })
}

/// The last words, and how the tool is to end.
fn end(
    args: &PoolArgs,
    desk: &Desk<'_>,
    (books, by_signal): (Books, Option<Signal>),
    start: Instant,
) -> Result<Ended, Failure> {
    let took = start.elapsed();
    let mut tally = std::mem::take(&mut *desk.tally());
    tally.failed += desk.untried();
    let is_unread = desk.is_unread.load(std::sync::atomic::Ordering::SeqCst);
    let by_signal = by_signal.or(is_unread.then_some(Signal::SIGPIPE));
    let exit = match (&tally.failure, tally.halted) {
        (Some(failure), _) => failed(failure).exit,
        (None, Some(exit)) => exit,
        (None, None) if tally.failed > 0 => 1,
        (None, None) if args.ending.leaks == Leaks::Fail && tally.leaked > 0 => LEAKED,
        (None, None) => 0,
    };
    books.bar.finish_and_clear();
    let is_watched = io::stderr().is_terminal();
    if args.verbose || !args.quiet && (is_watched || !books.table.is_clean()) {
        books.table.say(took);
    }
    let (failed, succeeded) = (tally.failed, tally.succeeded);
    let mut value = json!({ "v": VERSION, "event": "over", "exit": exit });
    let counts: [(&str, Value); 4] = [
        ("failed", failed.into()),
        ("succeeded", succeeded.into()),
        ("leaking", tally.leaked.into()),
        ("wall_seconds", took.as_secs_f64().into()),
    ];
    counts.into_iter().for_each(|(key, entry)| insert(&mut value, key, entry));
    insert(&mut value, "exit", crate::exit::seen(exit, by_signal).into());
    let told = books.json.write(|| value).and(books.ci.close(took));
    match told {
        Ok(()) => Ok(Ended { exit, by_signal }),
        Err(failure) if tally.failure.is_some() && exit == FAILED => {
            // The first failure has been told.
            drop(failure);
            Ok(Ended { exit, by_signal })
        }
        Err(failure) => Err(failure),
    }
}
