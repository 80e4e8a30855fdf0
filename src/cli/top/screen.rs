//! The terminal while the screen is shown, and that it is as before whatever happens: at the end,
//! at an error, at a panic, at a signal, while this process is stopped.

use std::io::{self, BufWriter, Stdout, stdout};
use std::os::fd::{AsFd, BorrowedFd};
use std::panic;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use crossterm::cursor::{Hide, Show};
use crossterm::execute;
use crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use nix::sys::signal::Signal;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use ratatui_core::layout::Rect;
use ratatui_core::terminal::{Terminal, TerminalOptions, Viewport};
use ratatui_crossterm::CrosstermBackend;
use tidy_process::cli_support::{self, terminal_size};

use crate::print::patient::Patient;

/// Signals that this process answers itself, unless it was started with them ignored.
const ANSWERED: [Signal; 7] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGTSTP,
    Signal::SIGCONT,
    Signal::SIGWINCH,
];

/// Columns and rows that are drawn on at the most.
const LARGEST: (u16, u16) = (1000, 500);

type Out = BufWriter<Patient<Stdout>>;

/// Whether the terminal obeys nothing.
pub(crate) fn is_dumb() -> bool {
    std::env::var_os("TERM").is_none_or(|terminal| terminal == "dumb")
}

/// Signals, collected from now on and never taken at another moment.
pub(crate) struct Heard(SignalFd);

impl Heard {
    /// Before any thread is started: each inherits what is blocked.
    pub(crate) fn collect() -> nix::Result<Self> {
        let numbers = ANSWERED.into_iter().map(|signal| signal as i32);
        let set = cli_support::signal_set(numbers.filter(|&number| !cli_support::ignores(number)));
        set.thread_block()?;
        SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map(Self)
    }

    /// Takes the next one that has come.
    pub(crate) fn next(&self) -> nix::Result<Option<Signal>> {
        let info = self.0.read_signal()?;
        Ok(info.and_then(|info| Signal::try_from(info.ssi_signo.cast_signed()).ok()))
    }

    /// Takes all that have come; whether one of them asks this process to end.
    pub(crate) fn asks_to_end(&self) -> bool {
        let mut asks = false;
        while let Ok(Some(signal)) = self.next() {
            asks |= !matches!(signal, Signal::SIGTSTP | Signal::SIGCONT | Signal::SIGWINCH);
        }
        asks
    }
}

impl AsFd for Heard {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The screen, shown. Dropping it restores the terminal.
pub(crate) struct Screen {
    pub(crate) terminal: Terminal<CrosstermBackend<Out>>,
}

impl Screen {
    pub(crate) fn show() -> io::Result<Self> {
        restore_at_panic();
        let half_done = Guard;
        enter()?;
        let terminal = blank()?;
        std::mem::forget(half_done);
        Ok(Self { terminal })
    }

    /// Shows it again, after this process was continued: the shell has used the terminal.
    pub(crate) fn show_again(&mut self) -> io::Result<()> {
        // The modes are what the shell has put: those of before go back first.
        let _ = disable_raw_mode();
        enter()?;
        self.afresh()
    }

    /// Begins with nothing on the screen, in its size now.
    pub(crate) fn afresh(&mut self) -> io::Result<()> {
        self.terminal = blank()?;
        Ok(())
    }

    pub(crate) fn hide(&mut self) {
        restore();
    }
}

/// An empty screen. Its size is fixed: one that follows the terminal's by itself asks where the
/// cursor is, and takes what is typed for the answer.
fn blank() -> io::Result<Terminal<CrosstermBackend<Out>>> {
    let (width, height) = terminal_size(out().0).unwrap_or((80, 24));
    // A terminal may say anything, and each cell takes memory.
    let (width, height) = (width.min(LARGEST.0), height.min(LARGEST.1));
    let viewport = Viewport::Fixed(Rect { x: 0, y: 0, width, height });
    execute!(out(), Clear(ClearType::All), Hide)?;
    let backend = CrosstermBackend::new(BufWriter::new(out()));
    Terminal::with_options(backend, TerminalOptions { viewport })
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// Restores what `enter` has half done.
struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        restore();
    }
}

fn out() -> Patient<Stdout> {
    Patient(stdout())
}

/// Whether there is anything to restore. Leaving the screen a second time would put the cursor back
/// onto what was written since.
static SHOWN: AtomicBool = AtomicBool::new(false);

fn enter() -> io::Result<()> {
    SHOWN.store(true, Ordering::Relaxed);
    enable_raw_mode()?;
    execute!(out(), EnterAlternateScreen)
}

/// Restores the terminal. Ignores failures: it may have gone.
fn restore() {
    if !SHOWN.swap(false, Ordering::Relaxed) {
        return;
    }
    let _ = execute!(out(), LeaveAlternateScreen, Show);
    let _ = disable_raw_mode();
}

/// What a panic says is to be read, and not to be lost with the screen.
fn restore_at_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            restore();
            before(info);
        }));
    });
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::process::Command;
    use std::time::{Duration, Instant};

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use nix::pty::openpty;
    use nix::sys::termios::tcgetattr;

    use super::*;

    const SAID: &str = "as the other test wants";

    #[test]
    #[ignore = "the other test plays it, in a terminal"]
    #[expect(clippy::panic, reason = "that is what is tested")]
    fn panics_while_the_screen_is_shown() {
        let _screen = Screen::show();
        panic!("{SAID}");
    }

    /// What is shown up to these words, or in twenty seconds.
    fn shown(master: &mut File, wanted: &str) -> io::Result<String> {
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut text = String::new();
        while !text.contains(wanted) {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            if poll(&mut [PollFd::new(master.as_fd(), PollFlags::POLLIN)], left)? == 0 {
                break;
            }
            let mut bytes = [0; 4096];
            let count = master.read(&mut bytes)?;
            text += &String::from_utf8_lossy(bytes.get(..count).unwrap_or_default());
        }
        Ok(text)
    }

    #[test]
    fn a_panic_is_read_on_a_terminal_that_is_as_before() -> io::Result<()> {
        let terminal = openpty(None, None)?;
        let before = tcgetattr(&terminal.slave)?;
        let mut command = Command::new(std::env::current_exe()?);
        let play = "top::screen::tests::panics_while_the_screen_is_shown";
        command.args(["--exact", play, "--ignored", "--nocapture"]).env("RUST_BACKTRACE", "0");
        command.stdin(terminal.slave.try_clone()?).stdout(terminal.slave.try_clone()?);
        let mut child = command.stderr(terminal.slave.try_clone()?).spawn()?;
        let mut master = File::from(terminal.master);
        let text = shown(&mut master, "test result: FAILED")?;
        child.wait()?;
        let (entered, left) = (text.find("\x1b[?1049h"), text.find("\x1b[?1049l"));
        let (cursor, said) = (text.rfind("\x1b[?25h"), text.find(SAID));
        assert!(entered.is_some() && entered < left && left < said, "{text:?}");
        assert!(cursor.is_some() && cursor < said, "{text:?}");
        // Leaving it twice would put the cursor back onto what was said.
        assert_eq!(text.matches("\x1b[?1049l").count(), 1, "{text:?}");
        assert_eq!(tcgetattr(&terminal.slave)?, before);
        Ok(())
    }
}
