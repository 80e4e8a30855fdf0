//! `tidy-process`: run a command; when it ends, nothing it started is left.

// Each imports only what stands below it.
mod args;
mod run;
mod with;
mod doctor;
mod ps;
mod place;
mod systemd;
mod wait;
mod print;
mod exit;
mod values;
mod late;

use std::process::ExitCode;
use tidy_process::cli_support;

use clap::Parser;
use clap::error::ErrorKind;

use crate::args::{Cli, What};
use crate::exit::{Ended, FAILED, Failure};
use crate::late::Late;
use crate::print::text::failed;
use crate::wait::signals;

fn main() -> ExitCode {
    cli_support::reset_sigchld();
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
        What::Idle => doctor::probe::be_idle(),
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
    result.map_or_else(|failure| failed(&failure), |()| Ended { exit: 0, by_signal: None })
}
