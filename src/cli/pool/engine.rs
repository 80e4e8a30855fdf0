//! The engines with many machines that scripts are written for.

use std::fmt::{self, Display, Formatter};

use clap::ValueEnum;

/// For which a script is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Engine {
    /// A job array of Slurm's: sbatch SCRIPT
    Slurm,
    /// A program for Dask's distributed: python SCRIPT SCHEDULER
    Dask,
    /// A call of GNU parallel's: sh SCRIPT [--sshlogin HOSTS]
    Parallel,
}

impl Display for Engine {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Slurm => "slurm",
            Self::Dask => "dask",
            Self::Parallel => "parallel",
        })
    }
}
