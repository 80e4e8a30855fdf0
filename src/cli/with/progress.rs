//! A line on the terminal that says what is awaited, rewritten every second and gone when done.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use tidy_process::cli_support::{quoted, shortened};

use crate::print::text::say;

/// The time between two lines. What is ready sooner is not worth one.
const INTERVAL: Duration = Duration::from_secs(1);

/// To the beginning of the line, and clear it.
const CLEAR: &str = "\r\x1b[K";

pub(crate) struct Progress {
    since: Instant,
    /// None where nothing is to be shown.
    due: Option<Instant>,
    shown: bool,
}

impl Progress {
    pub(crate) fn new(silent: bool) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|terminal| terminal == "dumb");
        let since = Instant::now();
        let due = (!silent && !dumb && stderr().is_terminal()).then(|| since + INTERVAL);
        Self { since, due, shown: false }
    }

    /// Shows the line if it is due; returns when the next one is.
    pub(crate) fn show(&mut self, awaited: impl Fn() -> String) -> Option<Instant> {
        let due = self.due?;
        let now = Instant::now();
        if now < due {
            return Some(due);
        }
        let time = (now - self.since).as_secs();
        let text = shortened(&quoted(&awaited()), 60);
        // A line that is too long for the terminal is cut there and not wrapped.
        say(&format!("{CLEAR}\x1b[?7lwaiting for {text}, {time} s\x1b[?7h"));
        self.shown = true;
        self.due = Some(now + INTERVAL);
        self.due
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            say(CLEAR);
        }
    }
}
