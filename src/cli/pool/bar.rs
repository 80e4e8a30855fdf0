//! A bar on the terminal, gone when done.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::progress::lines;

/// Between two drawings, while nothing happens: the time goes on.
const TICK: Duration = Duration::from_millis(200);

/// A bar of so many steps, or of a number that is not known.
pub(crate) fn bar(shows: bool, length: Option<u64>) -> ProgressBar {
    if !shows {
        return ProgressBar::hidden();
    }
    let target = lines();
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
