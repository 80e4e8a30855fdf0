//! What keeps a child from its exec, what can be done about it, and when it is given up.
//!
//! A child may be born in a frozen cgroup, be stopped (a Ctrl-Z of that moment, a SIGSTOP from
//! another process), or hang in the kernel at a program or a directory on a file system that does
//! not answer. The supervisor's cgroups are thawed, a stopped child is continued, and any other has
//! ten seconds.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use crate::cgroup::Cgroup;
use crate::error::Error;
use crate::error::advice::Advice;
use crate::error::kind::NotExecuted;
use crate::proc::read;
use crate::sys;

/// How long a child may be kept from its exec, not counting the time in which it could run.
const KEPT_AT_MOST: Duration = Duration::from_secs(10);

/// [`KEPT_AT_MOST`] once the command's timeout is over: an exec that is just being done is no
/// timeout.
const LAST_CHANCE: Duration = Duration::from_secs(1);

/// How long an exec may take in all, with the time in which the child could run but for other
/// processes.
const LATE_AT_MOST: Duration = Duration::from_secs(60);

/// How often a forked child that takes long is checked.
pub(crate) const LATE_INTERVAL: Duration = Duration::from_millis(20);

/// The most that counts of the time between two checks: the supervisor itself may have been frozen
/// or stopped meanwhile.
const COUNTED_AT_MOST: Duration = Duration::from_millis(200);

/// `PF_FORKNOEXEC` in the flags of `/proc/PID/stat`: forked, and not executed since.
const NOT_EXECUTED: u32 = 0x40;

const FROZEN: &str = "thaw that cgroup (write 0 to its cgroup.freeze): nothing below it can run";
const BLOCKED: &str = "the program or its directory may be on a file system that does not \
                       answer, or a pre_exec closure waits for something";

/// What to do about a child that has not executed yet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Wait,
    /// The child has executed, though the end of its pipe has not come.
    Executed,
    GiveUp,
}

/// A child that is not reaped yet, and its parent.
pub(crate) struct Late<'a> {
    pub(crate) pid: i32,
    pub(crate) pidfd: BorrowedFd<'a>,
    pub(crate) parent: i32,
}

/// The wait for one child.
pub(crate) struct Overdue<'a> {
    program: &'a OsStr,
    /// The child's cgroup, and the last one above it that belongs to the supervisor.
    cgroups: Option<(&'a Cgroup, &'a Cgroup)>,
    /// The end of the command's timeout.
    until: Option<Instant>,
    start: Instant,
    looked: Instant,
    kept: Duration,
    in_all: Duration,
    given_up: Option<GivenUp>,
}

struct GivenUp {
    why: String,
    hint: Option<Advice>,
    timed_out: bool,
}

impl<'a> Overdue<'a> {
    pub(crate) fn new(
        program: &'a OsStr,
        cgroups: Option<(&'a Cgroup, &'a Cgroup)>,
        until: Option<Instant>,
    ) -> Self {
        let now = Instant::now();
        let (kept, in_all) = (Duration::ZERO, Duration::ZERO);
        Self { program, cgroups, until, start: now, looked: now, kept, in_all, given_up: None }
    }

    /// Helps the child on, if that can be done, and says whether to wait for it.
    pub(crate) fn help(&mut self, child: &Late<'_>) -> Answer {
        let (state, executed) = self.revive(child);
        if executed {
            return Answer::Executed;
        }
        self.go_on(child, state)
    }

    /// Continues a child that is stopped, and thaws the supervisor's cgroups; returns the state
    /// that the child was in, and whether it has executed.
    pub(crate) fn revive(&self, child: &Late<'_>) -> (Option<char>, bool) {
        let stat = read::stat_of(child.pid).filter(|stat| stat.ppid == child.parent);
        if stat.as_ref().is_some_and(|stat| stat.flags & NOT_EXECUTED == 0) {
            return (None, true);
        }
        let state = stat.map(|stat| stat.state);
        self.let_run(child, state);
        (state, false)
    }

    /// Continues it if it is stopped, and thaws the supervisor's cgroups.
    fn let_run(&self, child: &Late<'_>, state: Option<char>) {
        let stopped = state.map_or_else(|| sys::is_stopped(child.pidfd), |state| state == 'T');
        if stopped {
            let _ = sys::pidfd_send_signal(child.pidfd, libc::SIGCONT);
        }
        if let Some((cgroup, top)) = self.cgroups {
            cgroup.thaw_up_to(top);
        }
    }

    /// As [`help`](Self::help), for a program that has executed and is to bring the child.
    #[cfg(feature = "sandbox")]
    pub(crate) fn help_program(&mut self, program: &Late<'_>) -> Answer {
        let stat = read::stat_of(program.pid).filter(|stat| stat.ppid == program.parent);
        let state = stat.map(|stat| stat.state);
        self.let_run(program, state);
        self.go_on(program, state)
    }

    fn go_on(&mut self, child: &Late<'_>, state: Option<char>) -> Answer {
        let now = Instant::now();
        let passed = now.saturating_duration_since(self.looked).min(COUNTED_AT_MOST);
        self.looked = now;
        self.in_all += passed;
        if state != Some('R') {
            self.kept += passed;
        }
        let timed_out = self.until.is_some_and(|until| now >= until);
        let patience = if timed_out { LAST_CHANCE } else { KEPT_AT_MOST };
        if self.kept < patience && self.in_all < LATE_AT_MOST {
            return Answer::Wait;
        }
        let (why, hint) = self.reason(child, state);
        self.given_up = Some(GivenUp { why, hint: hint.map(Advice::same), timed_out });
        Answer::GiveUp
    }

    fn reason(&self, child: &Late<'_>, state: Option<char>) -> (String, Option<&'static str>) {
        let frozen = self.cgroups.and_then(|(_, top)| top.frozen_above());
        match (frozen, state) {
            (Some(path), _) => (format!("{path:?} is frozen"), Some(FROZEN)),
            (_, Some('T')) => ("it is stopped again and again".to_owned(), None),
            _ => {
                let seen = read::facts(child.pid)
                    .map_or_else(|| "no more is known".to_owned(), |(process, _)| process.stuck());
                (seen, (state != Some('R')).then_some(BLOCKED))
            }
        }
    }

    pub(crate) fn gave_up(&self) -> bool {
        self.given_up.is_some()
    }

    /// Makes the error of a child that was given up; none of any other.
    pub(crate) fn error(&mut self) -> Option<Error> {
        let GivenUp { why, hint, timed_out } = self.given_up.take()?;
        let after = self.start.elapsed();
        let late =
            NotExecuted { program: format!("{:?}", self.program), after, why, hint, timed_out };
        Some(Error::not_executed(late))
    }
}

impl<'a> Late<'a> {
    /// A child of this process.
    pub(crate) fn ours(newborn: &'a sys::Newborn) -> Self {
        let (pid, pidfd) = (newborn.pid, newborn.pidfd.as_fd());
        Self { pid, pidfd, parent: std::process::id().cast_signed() }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::process::Command;

    use super::*;
    use crate::sys;

    #[test]
    #[cfg_attr(miri, ignore = "makes system calls that Miri lacks")]
    fn a_child_that_has_executed_is_known_by_its_flags() -> io::Result<()> {
        let mut child = Command::new("sleep").arg("60").spawn()?;
        let newborn = sys::handle(child.id().cast_signed())?;
        let overdue = Overdue::new("sleep".as_ref(), None, None);
        assert_eq!(overdue.revive(&Late::ours(&newborn)), (None, true));
        // Another's child says nothing.
        let late = Late { parent: 1, ..Late::ours(&newborn) };
        assert_eq!(overdue.revive(&late), (None, false));
        child.kill()?;
        child.wait().map(drop)
    }
}
