//! `tidy-process`: run a command; when it ends, nothing it started is left.

mod args;
mod ground;
mod doctor;
mod doctor_finding;
mod doctor_host;
mod doctor_limits;
mod doctor_probe;
mod json;
mod late;
mod manager;
mod ps;
mod run;
mod say;
mod scope;
mod servers;
mod signals;
mod terminal;
mod watch;
mod with;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use crate::args::{Cli, What};
use crate::late::Late;
use crate::run::{Ended, Failure};

/// tidy-process itself failed; never to be taken for success (as timeout(1) and env(1) have it).
const FAILED: u8 = 125;

fn main() -> ExitCode {
    tidy_process::reset_sigchld();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let fine = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            let printed = error.print();
            return ExitCode::from(if fine && printed.is_ok() { 0 } else { FAILED });
        }
    };
    let ended = match cli.what {
        What::Run(Late(args)) => run::run(&args),
        What::With(Late(args)) => with::with(&args),
        What::Doctor(Late(args)) => doctor::doctor(&args),
        What::Idle => doctor_probe::be_idle(),
        What::Ps(Late(args)) => ended(ps::ps(&args)),
        What::Sweep(Late(args)) => ended(ps::sweep(&args)),
        What::Kill(Late(args)) => ended(ps::kill(&args)),
    };
    if let Some(signal) = ended.by_signal {
        signals::end_by(signal);
    }
    ExitCode::from(ended.exit)
}

fn ended(result: Result<(), Failure>) -> Ended {
    let exit = result.map_or_else(
        |failure| {
            say::failure(&failure);
            failure.exit()
        },
        |()| 0,
    );
    Ended { exit, by_signal: None }
}
