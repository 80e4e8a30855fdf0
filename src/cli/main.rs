//! `tidy-process`: run a command; when it ends, nothing it started is left.

// Each imports only what stands below it.
mod forgotten;
mod args;
mod help;
mod completions;
#[cfg(feature = "man")]
mod man;
mod run;
mod with;
mod pool;
mod report;
mod doctor;
mod named;
mod ps;
mod top;
mod version;
mod place;
mod systemd;
mod words;
mod confine;
mod options;
mod ending;
mod script;
mod wait;
mod progress;
mod timeline;
mod print;
mod proxy;
mod profile;
mod exit;
mod values;
mod late;
mod candidates;
mod learn;
mod whole;
mod ledger;
mod scratch;

use std::ffi::OsString;
use std::io::{IsTerminal, stderr, stdout};
use std::mem::ManuallyDrop;
use std::process::ExitCode;
use tidy_process::cli_support;

use clap::error::{ContextKind, Error, ErrorKind};
use clap::{CommandFactory, FromArgMatches};

use crate::args::{Cli, What};
use crate::exit::{Ended, FAILED, Failure};
use crate::late::Late;
use crate::print::text::{failed, say, write};
use crate::wait::signals;

fn main() -> ExitCode {
    cli_support::reset_sigchld();
    let argv: Vec<OsString> = std::env::args_os().collect();
    if let Some(completed) = completions::complete(&argv, Cli::command) {
        return ExitCode::from(ended(completed).exit);
    }
    if version::is_asked(&argv) {
        return ExitCode::from(ended(version::print_all()).exit);
    }
    let cli = match parse(&argv) {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(answer(&error, &argv)),
    };
    let ended = match cli.what {
        What::Completions(Late(args)) => ended(completions::print_script(&args, &argv)),
        What::Help(Late(args)) => match help::topic(&args.words) {
            Some(text) => ended(write(text)),
            None => return ExitCode::from(help_of(&args.words)),
        },
        #[cfg(feature = "man")]
        What::Man(Late(args)) => ended(man::write_pages(Cli::command(), &args)),
        What::Run(Late(args)) => run::run(&args),
        What::With(Late(args)) => with::with(&args),
        What::Pool(Late(args)) => pool::pool(&args),
        What::Report(Late(args)) => ended(report::report(&args)),
        What::Doctor(Late(args)) => doctor::doctor(&args),
        What::Idle => doctor::probe::be_idle(),
        What::Attempt { what } => doctor::confinement::attempt(what),
        What::Ps(Late(args)) => ended(ps::ps(&args)),
        What::Top(Late(args)) => top::top(&args),
        What::Sweep(Late(args)) => ended(ps::sweep(&args)),
        What::Stop(Late(args)) => ended(named::stop(&args)),
        What::Kill(Late(args)) => ended(named::kill(&args)),
        What::Freeze(Late(args)) => ended(named::freeze(&args)),
        What::Thaw(Late(args)) => ended(named::thaw(&args)),
    };
    if let Some(signal) = ended.by_signal {
        signals::end_by(signal);
    }
    ExitCode::from(exit::seen(ended.exit, ended.by_signal))
}

/// The parser is a tenth of a megabyte in thousands of pieces, which the end of this process frees
/// sooner.
fn parse(argv: &[OsString]) -> Result<Cli, Error> {
    let mut command = ManuallyDrop::new(Cli::command());
    let matches = command.try_get_matches_from_mut(argv)?;
    let mut matches = ManuallyDrop::new(matches);
    Cli::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

/// The help of the tool, or of a subcommand.
fn help_of(words: &[OsString]) -> u8 {
    let words = words.iter().cloned().chain(["--help".into()]);
    let argv: Vec<OsString> = ["tidy-process".into()].into_iter().chain(words).collect();
    match parse(&argv) {
        Err(error) => answer(&error, &argv),
        Ok(_) => FAILED,
    }
}

/// Help, or what is wrong with a command line.
fn answer(error: &Error, argv: &[OsString]) -> u8 {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return ended(write(&rendered(error, stdout().is_terminal()))).exit;
    }
    let unknown = matches!(error.kind(), ErrorKind::InvalidSubcommand | ErrorKind::UnknownArgument)
        && error.get(ContextKind::SuggestedSubcommand).is_none();
    match forgotten::forgotten_run(argv).filter(|_| unknown) {
        Some(line) => failed(&Failure::NoSubcommand { line }).exit,
        None => {
            say(&rendered(error, stderr().is_terminal()));
            FAILED
        }
    }
}

fn rendered(error: &Error, on_terminal: bool) -> String {
    let text = error.render();
    if on_terminal && print::has_colours() { text.ansi().to_string() } else { text.to_string() }
}

fn ended(result: Result<(), Failure>) -> Ended {
    result.map_or_else(|failure| failed(&failure), |()| Ended { exit: 0, by_signal: None })
}
