//! Many commands at a time: the library's pool, and `tidy-process pool`.

mod library;
#[cfg(feature = "cli")]
mod emitted;
#[cfg(feature = "cli")]
mod ends;
#[cfg(feature = "cli")]
mod files;
#[cfg(feature = "cli")]
mod flags;
#[cfg(feature = "cli")]
mod gathered;
#[cfg(feature = "cli")]
mod inputs;
#[cfg(feature = "cli")]
mod joblog;
#[cfg(feature = "cli")]
mod killed;
#[cfg(feature = "cli")]
mod memory;
#[cfg(feature = "cli")]
mod output;
#[cfg(feature = "cli")]
mod places;
#[cfg(feature = "cli")]
mod scratch;
#[cfg(feature = "cli")]
mod servers_of_ci;
#[cfg(feature = "cli")]
mod signalled;

#[cfg(feature = "cli")]
use scratch::Scratch;

#[cfg(feature = "cli")]
mod run {
    use std::io::Write;
    use std::process::{Output, Stdio};

    use crate::support::Stage;

    /// `tidy-process pool`, with this on its standard input.
    pub(super) fn fed(stage: &Stage, args: &[&str], input: &[u8]) -> Output {
        let mut command = stage.tool(&["pool"]);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut tool = command.spawn().unwrap();
        let mut stdin = tool.stdin.take().unwrap();
        // A pool that does not read its input to the end is no fault of the test.
        let _ = stdin.write_all(input);
        drop(stdin);
        tool.wait_with_output().unwrap()
    }

    pub(super) fn pool(stage: &Stage, args: &[&str]) -> Output {
        fed(stage, args, b"")
    }

    pub(super) fn out(output: &Output) -> String {
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(super) fn said(output: &Output) -> String {
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// The lines of standard output, sorted.
    pub(super) fn lines(output: &Output) -> Vec<String> {
        let mut lines: Vec<_> = out(output).lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    /// It runs this, and exits so; its sorted lines.
    pub(super) fn exits(stage: &Stage, args: &[&str], status: i32) -> Vec<String> {
        let output = pool(stage, args);
        assert_eq!(output.status.code(), Some(status), "{args:?}: {}", said(&output));
        lines(&output)
    }
}
