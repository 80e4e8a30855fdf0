//! A bar on the terminal, gone when done.

use std::io::{IsTerminal, stderr};
use std::time::Duration;

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// When to show progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum When {
    /// If standard error is a terminal
    Auto,
    Never,
    Always,
}

impl When {
    pub(crate) fn shows(self, quiet: bool) -> bool {
        let dumb = || std::env::var_os("TERM").is_none_or(|terminal| terminal == "dumb");
        match self {
            Self::Auto => !quiet && stderr().is_terminal() && !dumb(),
            Self::Never => false,
            Self::Always => true,
        }
    }
}

/// Between two drawings, while nothing happens: the time goes on.
const TICK: Duration = Duration::from_millis(200);

/// A bar of so many steps, or of a number that is not known.
pub(crate) fn bar(shows: bool, length: Option<u64>) -> ProgressBar {
    if !shows {
        return ProgressBar::hidden();
    }
    let target = ProgressDrawTarget::stderr();
    let (bar, style) = match length {
        Some(length) => (
            ProgressBar::with_draw_target(Some(length), target),
            "{elapsed} {bar:30} {pos}/{len} {msg} eta {eta}",
        ),
        None => (ProgressBar::with_draw_target(None, target), "{elapsed} {spinner} {pos} {msg}"),
    };
    let style = ProgressStyle::with_template(style);
    let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(TICK);
    bar
}
