//! The files that a run writes to. A file that is named twice is opened once: two positions in it
//! would overwrite each other.

use std::fs::{File, Metadata};
use std::io::{stderr, stdout};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tidy_process::{Command, Stdio};

use crate::exit::{Failure, open_failure};
use crate::run::args::RunArgs;
use crate::wait::open::{INPUT, OUTPUT, Opener};
use crate::wait::signals::Signals;

/// Adding to a file that is made if it is missing.
const ADDING: OFlag = OFlag::O_WRONLY.union(OFlag::O_CREAT).union(OFlag::O_APPEND);

/// What is written to so far: our own streams, where they are files, and what was opened since.
pub(crate) struct Files<'a> {
    opener: &'a Opener<'a>,
    append: bool,
    open: Vec<File>,
}

impl<'a> Files<'a> {
    pub(crate) fn new(opener: &'a Opener<'a>, append: bool) -> Self {
        let ours = [stdout().as_fd().try_clone_to_owned(), stderr().as_fd().try_clone_to_owned()];
        let ours = ours.into_iter().flatten().filter(is_writable).map(File::from);
        let is_file = |file: &File| file.metadata().is_ok_and(|data| data.is_file());
        Self { opener, append, open: ours.filter(is_file).collect() }
    }

    /// What reaches us meanwhile.
    pub(crate) fn signals(&self) -> &'a Signals {
        self.opener.signals
    }

    /// A file to be written from its beginning, or at its end; with the position of the one before
    /// if it is the same file, however it is named.
    pub(crate) fn writing(&mut self, path: &Path) -> Result<File, Failure> {
        let file = self.opener.open(path, if self.append { ADDING } else { OUTPUT })?;
        let failed = |error| open_failure(path, error);
        let data = file.metadata().map_err(failed)?;
        // A pipe or a terminal has no position.
        if !data.is_file() {
            return Ok(file);
        }
        let same = self.open.iter().find(|open| open.metadata().is_ok_and(|it| same(&it, &data)));
        let file = match same {
            Some(open) => open.try_clone().map_err(failed)?,
            None => file,
        };
        self.open.push(file.try_clone().map_err(failed)?);
        Ok(file)
    }

    /// Whether what is at this path is written to already.
    pub(crate) fn has(&self, path: &Path) -> bool {
        let Ok(data) = std::fs::metadata(path) else { return false };
        self.open.iter().any(|open| open.metadata().is_ok_and(|it| same(&it, &data)))
    }

    /// Connects the command's streams as was asked; `-` is our own stream.
    pub(crate) fn redirect(
        &mut self,
        args: &RunArgs,
        command: &mut Command,
    ) -> Result<(), Failure> {
        if let Some(path) = named(args.stdin.as_deref()) {
            command.stdin(self.opener.open(path, INPUT)?);
        }
        let stdout = args.stdout.as_deref().or(args.output.as_deref());
        let stderr = args.stderr.as_deref().or(args.output.as_deref());
        if let Some(path) = named(stdout) {
            command.stdout(self.writing(path)?);
        }
        if let Some(path) = named(stderr) {
            command.stderr(self.writing(path)?);
        } else if args.output.is_some() {
            command.stderr(ours_for_both()?);
        }
        Ok(())
    }
}

/// `--output -`: standard error goes where standard output goes.
fn ours_for_both() -> Result<Stdio, Failure> {
    let ours = stdout().as_fd().try_clone_to_owned();
    ours.map(Stdio::from).map_err(|error| open_failure(Path::new("standard output"), error))
}

fn named(path: Option<&Path>) -> Option<&Path> {
    path.filter(|path| path.as_os_str() != "-")
}

fn same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

fn is_writable(fd: &OwnedFd) -> bool {
    let how = fcntl(fd, FcntlArg::F_GETFL).map(OFlag::from_bits_retain);
    how.is_ok_and(|how| how & OFlag::O_ACCMODE != OFlag::O_RDONLY)
}
