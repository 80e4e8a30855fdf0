//! Decides what a signal that asks this process to end leads to: the first one stops the command,
//! a second one kills. One request often comes as two signals, and Ctrl-C is the command's to
//! handle.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::wait::signals::{Asked, ORPHANED, Reached, Signals};

/// A second signal within this time is the same request: timeout(1) signals its child and then its
/// group, a terminal window's end is told by the shell and by the kernel, systemd sends SIGTERM and
/// SIGHUP.
const SAME_REQUEST: Duration = Duration::from_millis(200);

/// So many keys typed in so long a time are meant for this process.
const INSISTENT: Duration = Duration::from_secs(2);

/// The requests to end that have come.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Requests {
    /// The signal that this process has to end by.
    pub(crate) asked: Option<Signal>,
    /// When the first request came.
    since: Option<Instant>,
    /// The last signal that was left to the command, and when.
    interrupted: Option<(Signal, Instant)>,
    /// When the one before it was.
    before: Option<Instant>,
    /// Whether all is being stopped, for whatever reason: any request is a second one.
    closing: bool,
    /// Whether a second request has come.
    insisted: bool,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Nothing,
    Stop,
    Kill,
}

impl Requests {
    /// Answers a signal that comes now. `is_commands`: the terminal has told the command, which
    /// decides what comes of it.
    pub(crate) fn answer(&mut self, signal: Signal, is_commands: bool) -> Answer {
        self.answer_at(Instant::now(), signal, is_commands)
    }

    fn answer_at(&mut self, now: Instant, signal: Signal, is_commands: bool) -> Answer {
        let within = |at: Instant, time: Duration| now.saturating_duration_since(at) < time;
        if self.since.is_some_and(|since| within(since, SAME_REQUEST)) {
            return Answer::Nothing;
        }
        let is_second = self.since.is_some() || self.closing;
        let is_third = is_commands && self.before.is_some_and(|before| within(before, INSISTENT));
        if is_commands && !is_second && !is_third {
            self.before = self.interrupted.map(|(_, at)| at);
            self.interrupted = Some((signal, now));
            return Answer::Nothing;
        }
        self.asked = self.asked.or(Some(signal));
        self.since = self.since.or(Some(now));
        self.insisted |= is_second;
        if is_second || is_third { Answer::Kill } else { Answer::Stop }
    }

    /// Answers the end of the parent: as a first SIGTERM. It is no second request: what has asked
    /// this process to end may have ended the parent too, and the grace goes on.
    pub(crate) fn answer_orphaned(&mut self) -> Answer {
        if self.asked.is_some() || self.closing {
            self.asked = self.asked.or(Some(ORPHANED));
            return Answer::Nothing;
        }
        self.answer(ORPHANED, false)
    }

    /// Whether a second request has come: what is left is not asked any more.
    pub(crate) fn has_insisted(&self) -> bool {
        self.insisted
    }

    /// From now on all is being stopped.
    pub(crate) fn close(&mut self) {
        self.closing = true;
    }

    /// The last signal that was left to the command, and when it came.
    pub(crate) fn interrupted(&self) -> Option<(Signal, Instant)> {
        self.interrupted
    }

    /// Notes the signals that came while all was ending: a request is answered then too.
    pub(crate) fn note_late(&mut self, signals: &Signals) -> nix::Result<()> {
        for came in signals.take()? {
            match (came.asked, came.reached) {
                (Asked::Stop(signal), Reached::Terminal) => {
                    self.interrupted = self.interrupted.or(Some((signal, Instant::now())));
                }
                (Asked::Stop(signal), _) => self.asked = self.asked.or(Some(signal)),
                (Asked::Orphaned, _) => self.asked = self.asked.or(Some(ORPHANED)),
                _ => {}
            }
        }
        Ok(())
    }

    /// The signal that this process has to end by. It ends as the command if that was left a signal
    /// to handle, and died of it.
    pub(crate) fn by_signal(&self, status: ExitStatus) -> Option<Signal> {
        let interrupted = self.interrupted.map(|(signal, _)| signal);
        self.asked.or(interrupted.filter(|signal| status.signal() == Some(*signal as i32)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Answer::{Kill, Nothing, Stop};
    use Signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

    /// Signals, at milliseconds, left to the command or not, and their answers.
    fn check(rows: &[(u64, Signal, bool, Answer)], by: Option<Signal>) {
        let start = Instant::now();
        let mut requests = Requests::default();
        for (at, signal, is_commands, answer) in rows {
            let now = start + Duration::from_millis(*at);
            assert_eq!(requests.answer_at(now, *signal, *is_commands), *answer, "{at} of {rows:?}");
        }
        assert_eq!(requests.asked, by, "{rows:?}");
    }

    #[test]
    fn a_second_signal_in_a_fifth_of_a_second_is_the_same_request() {
        check(&[(0, SIGTERM, false, Stop), (199, SIGTERM, false, Nothing)], Some(SIGTERM));
        check(&[(0, SIGTERM, false, Stop), (1, SIGHUP, false, Nothing)], Some(SIGTERM));
        check(&[(0, SIGTERM, false, Stop), (200, SIGTERM, false, Kill)], Some(SIGTERM));
        let three =
            [(0, SIGINT, false, Stop), (150, SIGTERM, false, Nothing), (300, SIGHUP, false, Kill)];
        check(&three, Some(SIGINT));
    }

    #[test]
    fn the_third_key_within_two_seconds_kills() {
        let fast =
            [(0, SIGINT, true, Nothing), (900, SIGINT, true, Nothing), (1999, SIGQUIT, true, Kill)];
        check(&fast, Some(SIGQUIT));
        let slow = [
            (0, SIGINT, true, Nothing),
            (1000, SIGINT, true, Nothing),
            (2000, SIGINT, true, Nothing),
            (2900, SIGINT, true, Kill),
        ];
        check(&slow, Some(SIGINT));
        check(&[(0, SIGINT, true, Nothing), (1, SIGTERM, false, Stop)], Some(SIGTERM));
        check(&[(0, SIGTERM, false, Stop), (300, SIGINT, true, Kill)], Some(SIGTERM));
    }

    #[test]
    fn while_all_is_stopped_any_request_is_a_second_one() {
        let mut requests = Requests::default();
        requests.close();
        assert_eq!(requests.answer(SIGINT, false), Kill);
        assert_eq!(requests.asked, Some(SIGINT));
        let mut requests = Requests::default();
        assert_eq!(requests.answer(SIGTERM, false), Stop);
        requests.close();
        assert_eq!(requests.answer(SIGHUP, false), Nothing);
    }

    #[test]
    fn the_end_of_the_parent_is_a_first_request_and_never_a_second() {
        let mut requests = Requests::default();
        assert_eq!(requests.answer(SIGINT, true), Nothing);
        assert_eq!(requests.answer_orphaned(), Stop);
        assert_eq!(requests.asked, Some(SIGTERM));
        let mut requests = Requests::default();
        assert_eq!(requests.answer(SIGHUP, false), Stop);
        // As if the first request were long gone.
        requests.since = None;
        assert_eq!(requests.answer_orphaned(), Nothing);
        assert_eq!(requests.asked, Some(SIGHUP));
        assert!(!requests.has_insisted());
    }

    #[test]
    fn it_ends_as_the_command_that_a_key_ended() {
        let mut requests = Requests::default();
        assert_eq!(requests.answer(SIGINT, true), Nothing);
        assert_eq!(requests.by_signal(ExitStatus::from_raw(SIGINT as i32)), Some(SIGINT));
        assert_eq!(requests.by_signal(ExitStatus::from_raw(0)), None);
        assert_eq!(requests.by_signal(ExitStatus::from_raw(9)), None);
        requests.asked = Some(SIGTERM);
        assert_eq!(requests.by_signal(ExitStatus::from_raw(0)), Some(SIGTERM));
    }
}
