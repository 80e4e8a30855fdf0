//! What may be asked of how a command ends: the same of `run`, `with` and `pool`.
//!
//! Where one of them has more to say of an option, it says so by `says`.

use std::time::Duration;

use clap::{Arg, Args};
use libc::SIGTERM;
use tidy_process::Command;

use crate::exit::{Forward, Leaks};
use crate::values::{duration, signal};

// No doc comments on the structs: those would become the help of the subcommand.

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct EndingArgs {
    /// End CMD after DUR (500ms, 30s, 1m30s, 2h; a plain number is seconds; 0 and inf are never)
    #[arg(short, long, value_name = "DUR", value_parser = duration, allow_hyphen_values = true)]
    pub(crate) timeout: Option<Duration>,

    /// Time between the stop signal and the kill, for CMD and all that it has started; 0 is at once
    #[arg(short, long, value_name = "DUR", value_parser = duration, default_value = "2s")]
    #[arg(allow_hyphen_values = true)]
    pub(crate) kill_after: Duration,

    /// Stop signal, by name or number [default: TERM]
    #[arg(short, long, value_name = "SIG", value_parser = signal, allow_hyphen_values = true)]
    pub(crate) signal: Option<i32>,

    /// What to do with processes that are left when CMD ends
    #[arg(long, value_name = "POLICY", value_enum, default_value_t = Leaks::Kill)]
    pub(crate) leaks: Leaks,

    /// How long what CMD has left may go on working by itself before it counts as left; what sleeps
    /// counts at once
    #[arg(long, value_name = "DUR", value_parser = duration, default_value = "100ms")]
    #[arg(allow_hyphen_values = true)]
    pub(crate) settle: Duration,
}

impl EndingArgs {
    /// The signal that is sent where none was received.
    pub(crate) fn stop_signal(&self) -> i32 {
        self.signal.unwrap_or(SIGTERM)
    }

    /// Says how it is stopped; of a server too.
    pub(crate) fn apply_stop(&self, command: &mut Command) {
        command.grace(self.kill_after).stop_signal(self.stop_signal());
    }

    pub(crate) fn apply(&self, command: &mut Command) {
        self.apply_stop(command);
        command.linger(self.leaks == Leaks::Wait);
        command.settle(self.settle).stop_leftovers(self.leaks == Leaks::Stop);
        if let Some(timeout) = self.timeout.filter(|timeout| !timeout.is_zero()) {
            command.timeout(timeout);
        }
    }
}

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct ForwardArgs {
    /// Which processes get the stop signal
    #[arg(long, value_name = "WHOM", value_enum, default_value_t = Forward::All)]
    pub(crate) forward: Forward,
}

impl ForwardArgs {
    pub(crate) fn main_only(self) -> bool {
        self.forward == Forward::Main
    }
}

/// Gives an option that is shared the help that is true of one subcommand.
pub(crate) fn says(help: &'static str) -> impl FnOnce(Arg) -> Arg {
    move |arg| arg.help(help)
}
