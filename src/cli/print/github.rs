//! GitHub Actions: annotations, which the runner takes from what a step writes, and the summary of
//! the job, a file of Markdown that is added to.

use std::fmt::Write;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use tidy_process::cli_support::shortened;

use crate::exit::Failure;
use crate::print::case::{Case, Fault};
use crate::print::json::Sink;
use crate::print::text::{line, say};

/// GitHub shows no more of each kind for a step.
const ANNOTATIONS: usize = 10;

/// Rows of the summary: it may have 1 MiB.
const ROWS: usize = 100;

/// Characters of a command line in a row or a title.
const NAME: usize = 200;

/// Characters of what is said of it.
const WHAT: usize = 400;

const SUMMARY: &str = "GITHUB_STEP_SUMMARY";

pub(crate) struct GitHub {
    suite: &'static str,
    summary: Sink,
    commands: u64,
    failed: u64,
    leaking: u64,
    errors: usize,
    warnings: usize,
    rows: Vec<String>,
}

impl GitHub {
    pub(crate) fn open(
        suite: &'static str,
        open: impl FnOnce(&Path) -> Result<File, Failure>,
    ) -> Result<Self, Failure> {
        let path = std::env::var_os(SUMMARY).filter(|path| !path.is_empty());
        if path.is_none() {
            line(format_args!("--github: {SUMMARY} is not set, so there is no job summary"));
        }
        let summary = Sink::open(path.as_deref().map(Path::new), open)?;
        let (commands, failed, leaking, errors, warnings) = (0, 0, 0, 0, 0);
        let rows = Vec::new();
        Ok(Self { suite, summary, commands, failed, leaking, errors, warnings, rows })
    }

    /// Says what is wrong, in lines for the runner.
    pub(crate) fn note(&mut self, case: &Case<'_>) {
        self.commands += 1;
        let (title, left) = (case.short_name(NAME), case.left());
        if case.fault() != Fault::None {
            self.failed += 1;
            let message = case.message();
            annotate("error", &title, &message, &mut self.errors);
            self.row("failed", case, &message);
        }
        if let Some(left) = left {
            self.leaking += 1;
            annotate("warning", &title, &left, &mut self.warnings);
            self.row("leaked", case, &left);
        }
    }

    fn row(&mut self, kind: &str, case: &Case<'_>, what: &str) {
        if self.rows.len() < ROWS {
            let (name, what) = (inert(&case.short_name(NAME)), inert(&shortened(what, WHAT)));
            let wall = case.wall.as_secs_f64();
            self.rows.push(format!("| {kind} | <code>{name}</code> | {what} | {wall:.2} s |\n"));
        }
    }

    pub(crate) fn close(self, took: Duration) -> Result<(), Failure> {
        let Self { suite, commands, failed, leaking, rows, .. } = self;
        let took = took.as_secs_f64();
        let mut text = format!(
            "### {suite}\n\n{commands} commands in {took:.2} s: {failed} failed, {leaking} left \
             processes running\n\n"
        );
        if !rows.is_empty() {
            text += "| | command | what | time |\n|---|---|---|---:|\n";
            rows.iter().for_each(|row| text += row);
            let shown = u64::try_from(rows.len()).unwrap_or(u64::MAX);
            if let Some(more @ 1..) = (failed + leaking).checked_sub(shown) {
                // Writing to a string does not fail.
                let _ = write!(text, "\n{more} more\n");
            }
            text += "\n";
        }
        self.summary.text(&text)
    }
}

fn annotate(kind: &str, title: &str, message: &str, count: &mut usize) {
    if *count < ANNOTATIONS {
        *count += 1;
        say(&format!("::{kind} title={}::{}\n", property(title), data(message)));
    }
}

/// As the runner reads the text of a command.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// As it reads the value of a property.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

/// Text in which nothing is Markdown nor HTML.
fn inert(text: &str) -> String {
    let mut inert = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if c.is_alphanumeric() || c == ' ' => inert.push(c),
            c => inert += &format!("&#{};", u32::from(c)),
        }
    }
    inert
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_is_a_command_of_the_runner() {
        assert_eq!(data("50%\n::error::x\r"), "50%25%0A::error::x%0D");
        assert_eq!(property("a:b,c%"), "a%3Ab%2Cc%25");
    }

    #[test]
    fn no_text_is_markdown() {
        assert_eq!(inert("a|<b>*`"), "a&#124;&#60;b&#62;&#42;&#96;");
    }
}
