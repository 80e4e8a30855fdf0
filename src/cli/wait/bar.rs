//! A bar of the time that a command has, for one that is silent.
//!
//! The command may write to the same terminal at any moment, and this process learns of that once
//! it has happened: by inotify(7), which tells of writes to a terminal as of those to a file (what
//! the terminal echoes is none). So the bar stands where no text of the command's can run into it:
//! in the last row, which is taken out of the region that scrolls (DECSTBM), with the cursor left
//! where it was above it. At the first write the bar goes, for good: a program that writes may as
//! well want the whole screen. One that has taken the terminal out of its line mode may have drawn
//! the last row already, before it was cleared here: it is made to draw anew, by the news that the
//! terminal has another size.

use std::fs::File;
use std::io::{self, stderr, stdout};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::{getpgrp, isatty, tcgetpgrp};
use tidy_process::cli_support::Shortened;

use crate::print::text::say;
use crate::progress::{self, ProgressArgs};

/// A command that takes less, or writes in this time, has no bar.
const AFTER: Duration = Duration::from_secs(2);

/// The time between two drawings.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long CMD is told that the terminal is shorter than it is: at once after the other news, both
/// would be one to it.
const SHORT: Duration = Duration::from_millis(100);

/// How often the mode of the terminal is looked at once CMD has written, each time after `SHORT`.
const DOUBTS: u32 = 10;

/// A smaller terminal has none.
const SMALLEST: (u16, u16) = (40, 5);

/// What makes room for the bar: the cursor goes down and up again, so that it is not in the last
/// row; then the region that scrolls ends above that (which moves the cursor: it is saved).
const SAVE: &str = "\x1b7";
const RESTORE: &str = "\x1b8";
const ROOM: &str = "\x1bD\x1bM";

pub(crate) struct Bar {
    since: Instant,
    timeout: Duration,
    due: Instant,
    /// Whether it was in the foreground when that was last looked at.
    foreground: bool,
    /// Whether the terminal was in line mode at first.
    by_lines: bool,
    /// None once CMD has written.
    writes: Option<Inotify>,
    /// Whether CMD has been made to draw anew, and for a moment what does that.
    redrawn: bool,
    /// Looks that are left at whether CMD, which has written, takes the whole screen.
    doubts: u32,
    shortened: Option<Shortened>,
    bar: ProgressBar,
    last_row: Arc<LastRow>,
}

impl Bar {
    /// A bar of this time, from now on; none where it is not to be shown, or could not be taken
    /// away in time.
    pub(crate) fn new(args: ProgressArgs, silent: bool, timeout: Option<Duration>) -> Option<Self> {
        let timeout = timeout.filter(|timeout| *timeout > AFTER && *timeout < NEVER)?;
        if !args.is_shown(silent) {
            return None;
        }
        let writes = watch().ok()?;
        let last_row = Arc::new(LastRow::default());
        let target = ProgressDrawTarget::term_like(Box::new(Pen(Arc::clone(&last_row))));
        let template = "{wide_bar} {msg} ";
        let style = ProgressStyle::with_template(template).ok()?.progress_chars("=> ");
        let length = u64::try_from(timeout.as_millis()).ok()?;
        let bar = ProgressBar::with_draw_target(Some(length), target).with_style(style);
        let since = Instant::now();
        let (due, foreground, by_lines) = (since + AFTER, is_in_foreground(), is_by_lines());
        Some(Self {
            since,
            timeout,
            due,
            foreground,
            by_lines,
            writes: Some(writes),
            redrawn: false,
            doubts: 0,
            shortened: None,
            bar,
            last_row,
        })
    }

    /// When there is something to do for it next.
    pub(crate) fn due(&self) -> Option<Instant> {
        let is_over = self.writes.is_none() && self.shortened.is_none() && self.doubts == 0;
        (!is_over).then_some(self.due)
    }

    /// Has news when something is written to the terminal.
    pub(crate) fn news(&self) -> Option<BorrowedFd<'_>> {
        self.writes.as_ref().map(AsFd::as_fd)
    }

    /// Whether something was written since the last time.
    fn is_written(&self) -> bool {
        let events = self.writes.as_ref().map(Inotify::read_events);
        events.is_some_and(|events| events.is_ok_and(|events| !events.is_empty()))
    }

    /// Goes for good; has CMD draw anew what may have been cleared with it. True if that is to be
    /// waited for.
    fn leave(&mut self) -> bool {
        let was_shown = self.last_row.size().is_some();
        self.last_row.give_back();
        self.writes = None;
        // It may change the mode after its first words.
        self.doubts = if was_shown && self.by_lines { DOUBTS } else { 0 };
        self.judge();
        self.redrawn || self.doubts > 0
    }

    /// Has CMD draw anew once it has taken the terminal out of its line mode.
    fn judge(&mut self) {
        if self.doubts == 0 {
            return;
        }
        self.due = Instant::now() + SHORT;
        self.doubts -= 1;
        if !is_by_lines() {
            (self.doubts, self.redrawn) = (0, true);
            self.shortened = Shortened::say(stderr());
        }
    }

    /// Shows it if that is due; false if it is to be dropped, since something was written.
    pub(crate) fn show(&mut self) -> bool {
        let now = Instant::now();
        if self.writes.is_none() {
            if now >= self.due {
                self.shortened = None;
                self.judge();
            }
            return true;
        }
        let (before, foreground) = (self.foreground, is_in_foreground());
        self.foreground = foreground;
        // What is written while the bar is drawn is not told apart from that; a program that wants
        // the whole screen shows by the terminal's mode too.
        let is_taken = self.by_lines && !is_by_lines();
        // In the background it is others that write, and the shell that brings it back from there.
        if (self.is_written() || is_taken) && before && foreground {
            return self.leave();
        }
        if now < self.due {
            return true;
        }
        self.due = now + INTERVAL;
        let size = progress::size();
        if !foreground || size.0 < SMALLEST.0 || size.1 < SMALLEST.1 {
            self.hide();
            return true;
        }
        let spent = now.saturating_duration_since(self.since).min(self.timeout);
        self.last_row.take(size);
        let position = u64::try_from(spent.as_millis()).unwrap_or(u64::MAX);
        self.bar.set_message(format!("{} of {}", clock(spent), clock(self.timeout)));
        self.bar.set_position(position);
        self.bar.tick();
        // These writes are this process's own.
        self.is_written();
        true
    }

    /// Takes it away until it is due again: the terminal is as it was.
    pub(crate) fn hide(&mut self) {
        self.last_row.give_back();
        self.is_written();
    }

    /// The terminal has another size, and has moved its rows as it likes.
    pub(crate) fn is_resized(&mut self) {
        self.last_row.give_back_resized();
        if self.writes.is_some() {
            self.due = Instant::now() + INTERVAL;
            self.is_written();
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.last_row.give_back();
        // A program with a screen of its own has given back the one on which the bar was; one that
        // took it for a moment was not seen to have it.
        if (self.redrawn || self.doubts > 0) && is_in_foreground() {
            say("\x1b[J");
        }
        // It draws once more when it is dropped.
        self.bar.set_draw_target(ProgressDrawTarget::hidden());
    }
}

/// A hundred years stand for no timeout.
const NEVER: Duration = Duration::from_secs(50 * 365 * 86_400);

/// Watches the terminal by every name that the command may write to it by.
fn watch() -> nix::Result<Inotify> {
    let writes = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    writes.add_watch("/proc/self/fd/2", AddWatchFlags::IN_MODIFY)?;
    if isatty(stdout())? {
        writes.add_watch("/proc/self/fd/1", AddWatchFlags::IN_MODIFY)?;
    }
    // A device of its own. Where there is none nothing is written to it.
    if File::open("/dev/tty").is_ok() {
        writes.add_watch("/dev/tty", AddWatchFlags::IN_MODIFY)?;
    }
    Ok(writes)
}

/// Whether the terminal hands over whole lines. Programs that fill the screen want each key.
fn is_by_lines() -> bool {
    tcgetattr(stderr()).is_ok_and(|modes| modes.local_flags.contains(LocalFlags::ICANON))
}

fn is_in_foreground() -> bool {
    tcgetpgrp(stderr()).is_ok_and(|group| group == getpgrp())
}

/// `1:05`, `2:00:00`.
fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

/// The last row of the terminal, and the size that this had when the row was taken.
#[derive(Debug, Default)]
struct LastRow(Mutex<Option<(u16, u16)>>);

impl LastRow {
    fn size(&self) -> Option<(u16, u16)> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, size: Option<(u16, u16)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = size;
    }

    fn take(&self, size: (u16, u16)) {
        if self.size().is_none() {
            let above = size.1.saturating_sub(1);
            say(&format!("{ROOM}{SAVE}\x1b[1;{above}r{RESTORE}"));
            self.set(Some(size));
        }
    }

    /// In one write, so that nothing of the command's comes between.
    fn draw(&self, text: &str) {
        let Some((_, row)) = self.size() else { return };
        say(&format!("{SAVE}\x1b[{row};1H{}\x1b[K{RESTORE}", text.trim_end()));
    }

    fn give_back(&self) {
        if let Some((_, row)) = self.size() {
            self.set(None);
            say(&format!("{SAVE}\x1b[r\x1b[{row};1H\x1b[2K{RESTORE}"));
        }
    }

    /// Wherever the bar is now it is below the cursor, and nothing else is: the command has written
    /// nothing yet.
    fn give_back_resized(&self) {
        if self.size().is_some() {
            self.set(None);
            say(&format!("{SAVE}\x1b[r{RESTORE}\x1b[J"));
        }
    }
}

/// Draws there what indicatif lays out: one line.
#[derive(Debug)]
struct Pen(Arc<LastRow>);

impl TermLike for Pen {
    fn width(&self) -> u16 {
        self.0.size().map_or(SMALLEST.0, |(columns, _)| columns)
    }

    fn move_cursor_up(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_down(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_right(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_left(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.write_str(text)
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        if !text.trim().is_empty() {
            self.0.draw(text);
        }
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_a_clock_shows_them() {
        let said = |seconds| clock(Duration::from_secs(seconds));
        assert_eq!(
            (said(5), said(65), said(7205)),
            ("0:05".into(), "1:05".into(), "2:00:05".into())
        );
    }
}
