//! JUnit's XML. The head has counts that are known at the end alone, so the cases wait in a file
//! without a name.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use tidy_process::cli_support::quoted_lines;

use crate::exit::{Failure, open_failure};
use crate::print::case::{Case, Fault};
use crate::print::json::Sink;
use crate::scratch::{Scratch, each_piece};

/// Characters of a command line that name a case.
const NAME: usize = 500;

pub(crate) struct Junit {
    suite: &'static str,
    sink: Sink,
    cases: File,
    tests: u64,
    failures: u64,
    errors: u64,
}

impl Junit {
    pub(crate) fn open(
        path: &Path,
        suite: &'static str,
        open: impl FnOnce(&Path) -> Result<File, Failure>,
    ) -> Result<Self, Failure> {
        let (sink, cases) = (Sink::open(Some(path), open)?, Scratch::open()?.file()?);
        Ok(Self { suite, sink, cases, tests: 0, failures: 0, errors: 0 })
    }

    pub(crate) fn note(&mut self, case: &Case<'_>) -> Result<(), Failure> {
        let text = self.case(case);
        self.tests += 1;
        match case.fault() {
            Fault::None => {}
            Fault::Failure(_) => self.failures += 1,
            Fault::Error => self.errors += 1,
        }
        let written = self.cases.write_all(text.as_bytes());
        written.map_err(|error| open_failure("the cases of --junit".as_ref(), error))
    }

    fn case(&self, case: &Case<'_>) -> String {
        let number = case.number.map(|number| format!("{number}: ")).unwrap_or_default();
        let name = attribute(&format!("{number}{}", case.short_name(NAME)));
        let (suite, wall) = (self.suite, case.wall.as_secs_f64());
        let mut text =
            format!("    <testcase name=\"{name}\" classname=\"{suite}\" time=\"{wall:.3}\">");
        let message = || attribute(&case.message());
        // Writing to a string does not fail.
        let _ = match case.fault() {
            Fault::None => Ok(()),
            Fault::Failure(kind) => {
                write!(text, "<failure type=\"{kind}\" message=\"{}\"/>", message())
            }
            Fault::Error => write!(text, "<error type=\"error\" message=\"{}\"/>", message()),
        };
        if let Some(left) = case.left() {
            let _ = write!(text, "<system-err>{}</system-err>", escaped(&quoted_lines(&left)));
        }
        text + "</testcase>\n"
    }

    pub(crate) fn close(self, took: Duration) -> Result<(), Failure> {
        let Self { suite, sink, cases, tests, failures, errors } = self;
        let took = took.as_secs_f64();
        let counts = format!("tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\"");
        sink.text(&format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <testsuites {counts} time=\"{took:.3}\">\n  \
             <testsuite name=\"{suite}\" {counts} time=\"{took:.3}\">\n"
        ))?;
        let mut written = Ok(());
        let copied = each_piece(&cases, (0, u64::MAX), |piece| {
            if written.is_ok() {
                written = sink.bytes(piece);
            }
            Ok(())
        });
        written?;
        copied.map_err(|error| open_failure("the cases of --junit".as_ref(), error))?;
        sink.text("  </testsuite>\n</testsuites>\n")
    }
}

/// Text of XML. What no XML may have is U+FFFD.
pub(crate) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            '\n' | '\t' => escaped.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

/// The same for an attribute, where a line's end would become a blank.
fn attribute(text: &str) -> String {
    escaped(text).replace('\n', "&#10;").replace('\t', "&#9;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_is_markup() {
        assert_eq!(escaped("a<b>&\"'\u{1b}\u{ffff}"), "a&lt;b&gt;&amp;&quot;&#39;\u{fffd}\u{fffd}");
        assert_eq!(attribute("a\n\t"), "a&#10;&#9;");
    }
}
