//! Lines on the terminal that say what each server is waited for, rewritten every second and gone
//! when done.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tidy_process::cli_support::{quoted, shortened};

use crate::progress::{self, ProgressArgs};

/// The time between two drawings. What is ready sooner is not worth one.
const INTERVAL: Duration = Duration::from_secs(1);

/// Lines at the most; a terminal may have few.
const LINES: usize = 8;

/// Columns that a line has beside what is awaited: `waiting for `, and the time.
const BESIDE: usize = 25;

pub(crate) struct Progress {
    /// None where nothing is to be shown.
    due: Option<Instant>,
    bars: MultiProgress,
    /// By the number of the server.
    lines: BTreeMap<usize, ProgressBar>,
}

impl Progress {
    pub(crate) fn new(args: ProgressArgs, silent: bool) -> Self {
        let due = args.is_shown(silent).then(|| Instant::now() + INTERVAL);
        let bars = MultiProgress::with_draw_target(progress::lines());
        Self { due, bars, lines: BTreeMap::new() }
    }

    /// Shows what is awaited now, if that is due; returns when it is next. Each has its number,
    /// what it is waited for, and since when.
    pub(crate) fn show(&mut self, awaited: &[(usize, String, Instant)]) -> Option<Instant> {
        let due = self.due?;
        let now = Instant::now();
        if now < due {
            return Some(due);
        }
        let shown = awaited.get(..LINES).unwrap_or(awaited);
        self.lines.retain(|number, line| {
            let stays = shown.iter().any(|(other, ..)| other == number);
            if !stays {
                line.finish_and_clear();
                self.bars.remove(line);
            }
            stays
        });
        let room = usize::from(progress::size().0).saturating_sub(BESIDE).clamp(10, 60);
        for (number, what, since) in shown {
            let line = self.lines.entry(*number).or_insert_with(|| self.bars.add(line()));
            let time = now.saturating_duration_since(*since).as_secs();
            let what = shortened(&quoted(what), room);
            line.set_message(format!("waiting for {what}, {time} s"));
        }
        self.due = Some(now + INTERVAL);
        self.due
    }
}

fn line() -> ProgressBar {
    let style = ProgressStyle::with_template("{msg}");
    ProgressBar::no_length().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}

impl Drop for Progress {
    fn drop(&mut self) {
        if !self.lines.is_empty() {
            self.lines.values().for_each(ProgressBar::finish_and_clear);
            let _ = self.bars.clear();
        }
    }
}
