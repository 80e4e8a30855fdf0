//! The files that a run writes to. A file that is named twice is opened once: two positions in it
//! would overwrite each other.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{stderr, stdout};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tidy_process::{Command, Stdio};

use crate::exit::{Failure, open_failure};
use crate::run::args::RunArgs;

/// For reading, as a command's input.
const INPUT: OFlag = OFlag::O_RDONLY;

/// Writing, to a file that is made if it is missing.
const OUTPUT: OFlag = OFlag::O_WRONLY.union(OFlag::O_CREAT);

/// What is written to so far: our own streams, where they are files, and what was opened since.
pub(crate) struct Files {
    append: bool,
    open: Vec<File>,
}

impl Files {
    pub(crate) fn new(append: bool) -> Self {
        let ours = [stdout().as_fd().try_clone_to_owned(), stderr().as_fd().try_clone_to_owned()];
        let ours = ours.into_iter().flatten().filter(is_writable).map(File::from);
        let is_file = |file: &File| file.metadata().is_ok_and(|data| data.is_file());
        Self { append, open: ours.filter(is_file).collect() }
    }

    /// A file to be written from its beginning, or at its end; with the position of the one before
    /// if it is the same file, however it is named.
    pub(crate) fn writing(&mut self, path: &Path) -> Result<File, Failure> {
        let how = if self.append { OFlag::O_APPEND } else { OFlag::O_TRUNC };
        let file = open(path, OUTPUT.union(how))?;
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

    /// Connects the command's streams as was asked; `-` is our own stream.
    pub(crate) fn redirect(
        &mut self,
        args: &RunArgs,
        command: &mut Command,
    ) -> Result<(), Failure> {
        if let Some(path) = named(args.stdin.as_deref()) {
            command.stdin(open(path, INPUT)?);
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

fn open(path: &Path, how: OFlag) -> Result<File, Failure> {
    let mut options = OpenOptions::new();
    let reads = how & OFlag::O_ACCMODE == OFlag::O_RDONLY;
    options.read(reads).write(!reads).create(how.contains(OFlag::O_CREAT));
    options.truncate(how.contains(OFlag::O_TRUNC)).custom_flags((how & OFlag::O_APPEND).bits());
    options.open(path).map_err(|error| open_failure(path, error))
}
