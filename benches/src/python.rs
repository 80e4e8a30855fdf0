//! A Python that stays, and measures in itself: Python's recipe (subprocess, and psutil to kill
//! what descends from it), or our package.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout};
use std::time::Duration;

use tidy_process::{Child, Command, Stdio, Supervisor};

use crate::Res;

/// <https://psutil.readthedocs.io/en/latest/#kill-process-tree>
const RECIPE: &str = include_str!("recipe.py");

/// Does what it is told by lines; it and all that it leaves behind end with it.
pub(crate) struct Python {
    tells: BufReader<ChildStdout>,
    asks: ChildStdin,
    _child: Child,
}

impl Python {
    /// `ballast`: bytes that it touches first.
    pub(crate) fn start(python: &Path, supervisor: &Supervisor, ballast: usize) -> Res<Self> {
        Self::play(python, RECIPE, supervisor, ballast)
    }

    /// The same, of another program.
    pub(crate) fn play(
        python: &Path,
        program: &str,
        supervisor: &Supervisor,
        ballast: usize,
    ) -> Res<Self> {
        let mut command = Command::new(python);
        command.args(["-c", program]).arg(ballast.to_string()).supervisor(supervisor);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let pipes = (child.stdin.take(), child.stdout.take());
        let (Some(asks), Some(tells)) = pipes else { return Err("no pipes".into()) };
        Ok(Self { tells: BufReader::new(tells), asks, _child: child })
    }

    /// Runs the command; says how long the part took that is measured.
    pub(crate) fn ask(&mut self, what: &str, command: &[&str]) -> Res<Duration> {
        writeln!(self.asks, "{what}\t{}", command.join("\t"))?;
        let mut answer = String::new();
        self.tells.read_line(&mut answer)?;
        let nanos = answer.trim().parse().map_err(|_| format!("python: {answer:?}"))?;
        Ok(Duration::from_nanos(nanos))
    }
}
