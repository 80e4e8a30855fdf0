//! Writes the manual pages, one for each subcommand, from what the parser knows.

use std::fs;
use std::path::PathBuf;

use clap::{Args, Command};

use crate::exit::{Failure, open_failure};

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// The directory to write them to
    dir: PathBuf,
}

pub(crate) fn write_pages(command: Command, args: &ManArgs) -> Result<(), Failure> {
    let failed = |error| open_failure(&args.dir, error);
    fs::create_dir_all(&args.dir).map_err(failed)?;
    clap_mangen::generate_to(command, &args.dir).map_err(failed)
}
