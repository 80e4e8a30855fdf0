//! Progress on a terminal: whether it is shown, and how it gets there.
//!
//! indicatif lays lines and bars out; what it draws is written here, in one piece for each drawing,
//! so that it never mixes with a line of another process, and waits for a terminal that was made
//! non-blocking.

use std::io::{self, IsTerminal, stderr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use clap::{Args, ValueEnum};
use indicatif::{ProgressDrawTarget, TermLike};
use tidy_process::cli_support::terminal_size;

use crate::print::text::say;

/// Columns and rows of a terminal that does not say.
const SIZE: (u16, u16) = (80, 24);

/// When progress is shown; on a terminal and nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum When {
    /// On a terminal, unless -q or -v is given
    Auto,
    /// Never
    Never,
    /// On a terminal, with -q and -v too
    Always,
}

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct ProgressArgs {
    /// When to show progress, on standard error if that is a terminal
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = When::Auto)]
    pub(crate) progress: When,
}

impl ProgressArgs {
    /// Whether it is shown. `silent`: what else is asked for speaks against it.
    pub(crate) fn is_shown(self, silent: bool) -> bool {
        let wanted = match self.progress {
            When::Auto => !silent,
            When::Never => false,
            When::Always => true,
        };
        wanted && stderr().is_terminal() && !is_dumb()
    }
}

/// Whether the terminal obeys nothing.
fn is_dumb() -> bool {
    std::env::var_os("TERM").is_none_or(|terminal| terminal == "dumb")
}

/// Columns and rows of the terminal.
pub(crate) fn size() -> (u16, u16) {
    terminal_size(stderr()).unwrap_or(SIZE)
}

/// Lines where the cursor is, rewritten there.
pub(crate) fn lines() -> ProgressDrawTarget {
    ProgressDrawTarget::term_like(Box::new(Lines::default()))
}

/// What indicatif draws between two flushes.
#[derive(Debug, Default)]
struct Lines {
    drawn: Mutex<String>,
}

impl Lines {
    fn drawn(&self) -> MutexGuard<'_, String> {
        self.drawn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, text: &str) -> io::Result<()> {
        self.drawn().push_str(text);
        Ok(())
    }

    fn moves(&self, count: usize, letter: char) -> io::Result<()> {
        match count {
            0 => Ok(()),
            count => self.add(&format!("\x1b[{count}{letter}")),
        }
    }
}

impl TermLike for Lines {
    fn width(&self) -> u16 {
        size().0
    }

    fn height(&self) -> u16 {
        size().1
    }

    fn move_cursor_up(&self, count: usize) -> io::Result<()> {
        self.moves(count, 'A')
    }

    fn move_cursor_down(&self, count: usize) -> io::Result<()> {
        self.moves(count, 'B')
    }

    fn move_cursor_right(&self, count: usize) -> io::Result<()> {
        self.moves(count, 'C')
    }

    fn move_cursor_left(&self, count: usize) -> io::Result<()> {
        self.moves(count, 'D')
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.add(text)?;
        self.add("\r\n")
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.add(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.add("\r\x1b[2K")
    }

    fn flush(&self) -> io::Result<()> {
        let drawn = std::mem::take(&mut *self.drawn());
        if !drawn.is_empty() {
            say(&drawn);
        }
        Ok(())
    }
}
