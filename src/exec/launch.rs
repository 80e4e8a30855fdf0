//! Starts the child: by clone3 in its cgroup or, where that is refused, by fork and a join.

use std::io::{PipeReader, Read, pipe};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::cgroup::Cgroup;
use crate::containment::Placement;
use crate::error::{Error, Result, Step, errno_of};
use crate::exec::child_side::{self, Closure, GuardImage, Orders, RUNNING, UNBORN};
use crate::exec::image::Image;
use crate::exec::overdue::{Answer, LATE_INTERVAL, Late, Overdue};
use crate::exec::program::Program;
use crate::exec::slots::{Kept, LOW, Taken};
use crate::exec::stdio::ChildStream;
use crate::sandbox::Confinement;
use crate::sys::bury::bury;
use crate::sys::clone::{AllBlocked, Birth};
use crate::sys::poll::{self, BackOff};
use crate::sys::{Newborn, above_two};

/// Whether clone3 was refused in this process (by a seccomp filter, an old kernel): then it is not
/// tried again.
static REFUSED: AtomicBool = AtomicBool::new(false);

/// Whether clone3 was refused in this process. If not, a child that was joined all the same had
/// been killed at its birth.
#[cfg(feature = "cli")]
pub fn clone_refused() -> bool {
    REFUSED.load(Ordering::Relaxed)
}

/// All that one launch needs.
pub(crate) struct Launch<'a> {
    pub(crate) program: &'a Program,
    pub(crate) closures: &'a mut [Closure],
    /// Fork and join, even where birth in the cgroup is possible.
    pub(crate) force_join: bool,
    /// The fds above 2 that the child is to have, and no others.
    pub(crate) fds: Option<Kept<'a>>,
    pub(crate) image: &'a mut Image,
    pub(crate) streams: &'a [ChildStream<'a>; 3],
    pub(crate) home: Home<'a>,
    pub(crate) confine: Option<Confinement<'a>>,
    /// By which the command gets a view of its own.
    pub(crate) entry: Option<&'a (dyn Enter + 'a)>,
    /// The end of the command's timeout.
    pub(crate) until: Option<Instant>,
}

/// Another way to a running command than to execute it in the child.
pub(crate) trait Enter {
    /// Starts what brings the command; on return that has executed.
    fn enter(&self, launch: &mut Launch<'_>) -> Result<(Newborn, Placement), Failed>;
}

/// Where a child is to live.
#[derive(Clone, Copy)]
pub(crate) enum Home<'a> {
    /// In `entry`; the supervisor owns it and all above it up to the run root.
    Cgroup { entry: &'a Cgroup, root: &'a Cgroup },
    /// In the caller's own cgroup: a guard.
    Guard(GuardImage<'a>),
    /// Below a keeper.
    Kept,
}

impl<'a> Home<'a> {
    fn cgroup(self) -> Option<&'a Cgroup> {
        self.cgroups().map(|(entry, _)| entry)
    }

    fn cgroups(self) -> Option<(&'a Cgroup, &'a Cgroup)> {
        match self {
            Self::Cgroup { entry, root } => Some((entry, root)),
            Self::Guard(_) | Self::Kept => None,
        }
    }
}

/// Why there is no running child.
pub(crate) enum Failed {
    At(Step, Errno),
    Known(Error),
}

impl From<(Step, Errno)> for Failed {
    fn from((step, errno): (Step, Errno)) -> Self {
        Self::At(step, errno)
    }
}

/// Why an attempt brought no running child.
enum Miss {
    /// The kernel refuses clone3.
    Refused,
    /// The child was killed before its first instruction: its cgroup, or the caller's, was killed
    /// once (a kernel bug up to 6.12.114). Nothing of the command has run.
    Unborn,
    Failed(Failed),
}

/// Tries again for half a second while exec fails with `ETXTBSY`: any fork that happened while a
/// script was written holds it open, until that fork's own exec.
pub(crate) fn while_text_is_busy<T>(
    mut attempt: impl FnMut() -> Result<T, Failed>,
) -> Result<T, Failed> {
    let mut back_off = BackOff::doubling(Duration::from_millis(1), Duration::from_millis(256));
    loop {
        match attempt() {
            Err(Failed::At(Step::Exec, Errno::ETXTBSY)) if back_off.sleep(None) => {}
            done => return done,
        }
    }
}

impl<'a> Launch<'a> {
    /// Starts the child; on return it has executed.
    pub(crate) fn launch(&mut self) -> Result<(Newborn, Placement)> {
        while_text_is_busy(|| self.attempt()).map_err(|failed| self.failure(failed))
    }

    /// Becomes the command; returns only if that fails.
    pub(crate) fn exec(&mut self) -> Error {
        let child_side::Failure { step, errno } = child_side::exec(&self.orders(-1, -1));
        self.error(step, Errno::from_raw(errno))
    }

    fn attempt(&mut self) -> Result<(Newborn, Placement), Failed> {
        match self.entry {
            Some(entry) => entry.enter(self),
            None => self.start(),
        }
    }

    /// Starts what is to be executed, or what brings it.
    pub(crate) fn start(&mut self) -> Result<(Newborn, Placement), Failed> {
        if self.may_share() && !REFUSED.load(Ordering::Relaxed) {
            match self.clone_into() {
                Ok(newborn) => return Ok((newborn, Placement::Born)),
                Err(Miss::Failed(failed)) => return Err(failed),
                Err(Miss::Refused) => REFUSED.store(true, Ordering::Relaxed),
                Err(Miss::Unborn) => {}
            }
        }
        Ok((self.fork()?, Placement::Joined))
    }

    /// Whether the child may run in shared memory. One of another user may not: that user could get
    /// into this process through it.
    pub(crate) fn may_share(&self) -> bool {
        let other_user = self.program.uid.is_some() || self.program.gid.is_some();
        // A program that brings the command takes such steps in its own memory.
        let other_user = other_user && self.image.set_up.is_none();
        !(self.force_join || other_user || !self.closures.is_empty())
    }

    fn clone_into(&mut self) -> Result<Newborn, Miss> {
        let failed = |step, errno| Miss::Failed(Failed::At(step, errno));
        let dir = self.home.cgroup().map(Cgroup::dir).transpose();
        let dir = dir.map_err(|errno| failed(Step::Clone, errno))?;
        let mut overdue = self.overdue();
        let slots = self.slots();
        let mut orders = self.orders(-1, -1);
        // Until the child has its streams.
        let _taken = slots.map(|slots| orders.share_files(slots)).transpose();
        let _taken = _taken.map_err(|errno| failed(Step::Stdio, errno))?;
        let mut help = |child: &Newborn| overdue.help(&Late::ours(child)) != Answer::GiveUp;
        let birth = child_side::clone_into(dir.as_deref(), &orders, &mut help);
        let birth = birth.map_err(|errno| match errno {
            Errno::ENOSYS | Errno::EPERM => Miss::Refused,
            errno => failed(Step::Clone, errno),
        })?;
        let word = orders.word.load(Ordering::Relaxed);
        let (Birth::Over(newborn) | Birth::Stuck(newborn)) = birth;
        if let Some(error) = overdue.error() {
            bury(newborn.pidfd.as_fd());
            return Err(Miss::Failed(Failed::Known(error)));
        }
        match word {
            RUNNING => Ok(newborn),
            word => {
                bury(newborn.pidfd.as_fd());
                if word == UNBORN {
                    return Err(Miss::Unborn);
                }
                Err(Miss::Failed(read_word(word).into()))
            }
        }
    }

    /// The places for its streams, where it is to share this process's open files: if it needs none
    /// but low ones beside them.
    fn slots(&self) -> Option<Taken<'a>> {
        let kept = self.fds.filter(|_| self.image.set_up.is_none())?;
        let places = kept.slots?.take()?;
        let confined = self.confine.iter().flat_map(Confinement::needs);
        let mut needs = kept.list.iter().copied().chain(confined);
        needs.all(|fd| fd < LOW).then_some(places)
    }

    /// Starts the child by fork. The pipe closes with exec: end of file without a word means that
    /// all went well.
    fn fork(&mut self) -> Result<Newborn, Failed> {
        let failed = |step| move |errno| Failed::At(step, errno);
        self.image.keep_environment().map_err(Failed::Known)?;
        let procs =
            self.home.cgroup().map(Cgroup::procs).transpose().map_err(failed(Step::Join))?;
        let join = procs.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        let (news, channel) = pipe().map_err(|error| Failed::At(Step::Fork, errno_of(&error)))?;
        let channel = above_two(channel.into()).map_err(failed(Step::Fork))?;
        let mut overdue = self.overdue();
        let orders = self.orders(channel.as_raw_fd(), join);
        let newborn = {
            let _blocked = AllBlocked::new().map_err(failed(Step::Fork))?;
            child_side::fork(&orders).map_err(|errno| match errno {
                // No fork fails so: it is the handle that is refused.
                Errno::EPERM | Errno::ENOSYS => Failed::At(Step::Pidfd, errno),
                errno => Failed::At(Step::Fork, errno),
            })?
        };
        drop(channel);
        let word = last_word(news, &mut overdue, &Late::ours(&newborn));
        let error = overdue.error().map(Failed::Known);
        match error.or(word.map(|word| read_word(word).into())) {
            None => Ok(newborn),
            Some(failed) => {
                bury(newborn.pidfd.as_fd());
                Err(failed)
            }
        }
    }

    pub(crate) fn overdue(&self) -> Overdue<'a> {
        Overdue::new(&self.program.program, self.home.cgroups(), self.until)
    }

    pub(crate) fn orders(&mut self, channel: i32, join: i32) -> Orders<'_> {
        let image = &mut *self.image;
        let [stdin, stdout, stderr] = self.streams;
        Orders {
            word: AtomicU32::new(UNBORN),
            channel,
            join,
            forked: channel >= 0,
            guard: match self.home {
                Home::Guard(guard) => Some(guard),
                Home::Cgroup { .. } | Home::Kept => None,
            },
            stdio: [stdin.child, stdout.child, stderr.child],
            groups: image.groups.as_deref(),
            gid: self.program.gid,
            uid: self.program.uid,
            cwd: image.cwd.as_ref().map_or(std::ptr::null(), |dir| dir.as_ptr()),
            process_group: self.program.process_group,
            session: self.program.session,
            umask: self.program.umask,
            leaves_at: None,
            // What confines it keeps a list of its own.
            fds: self.fds.filter(|_| self.confine.is_none()).map(|fds| fds.list),
            closures: &raw mut *self.closures,
            confine: self.confine,
            set_up: image.set_up.as_ref(),
            candidates: image.candidates.each(),
            argv: image.argv.as_ptr(),
            envp: image.envp(),
        }
    }

    pub(crate) fn failure(&self, failed: Failed) -> Error {
        match failed {
            Failed::At(step, errno) => self.error(step, errno),
            Failed::Known(error) => error,
        }
    }

    /// Makes the error of a failed step, which names the value that the step was about.
    fn error(&self, step: Step, errno: Errno) -> Error {
        let command = self.program;
        let subject = match step {
            Step::Chdir => format!("{:?}", command.cwd.as_deref().unwrap_or("".as_ref())),
            Step::Groups => format!("{:?}", self.image.groups.as_deref().unwrap_or_default()),
            Step::Gid => command.gid.unwrap_or_default().to_string(),
            Step::Uid => command.uid.unwrap_or_default().to_string(),
            Step::ProcessGroup => command.process_group.unwrap_or_default().to_string(),
            Step::Stdio => "of the child".to_owned(),
            Step::InheritFds => format!("{:?}", self.fds.map(|fds| fds.list).unwrap_or_default()),
            Step::Clone | Step::Join => match self.home.cgroup() {
                Some(cgroup) => return cgroup.error(step, errno),
                None => "beside us".to_owned(),
            },
            _ => format!("{:?}", command.program),
        };
        Error::os(step, subject, errno)
    }
}

pub(crate) fn read_word(word: u32) -> (Step, Errno) {
    (Step::of(word >> 24), Errno::from_raw((word & 0x00ff_ffff).cast_signed()))
}

/// Reads the word that a child writes before its end; none if it has executed or was given up. The
/// pipe's end alone does not tell: another process may hold it for longer.
pub(crate) fn last_word(
    mut news: PipeReader,
    overdue: &mut Overdue<'_>,
    child: &Late<'_>,
) -> Option<u32> {
    while !poll::readable(news.as_fd(), Some(Instant::now() + LATE_INTERVAL)).unwrap_or(true) {
        if overdue.help(child) != Answer::Wait {
            return None;
        }
    }
    let mut word = [0; 4];
    news.read_exact(&mut word).ok().map(|()| u32::from_ne_bytes(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_text_is_tried_again_and_not_for_ever() {
        let attempts = |busy: u32| {
            let mut number = 0;
            let done = while_text_is_busy(|| {
                number += 1;
                match number > busy {
                    true => Ok(()),
                    false => Err(Failed::At(Step::Exec, Errno::ETXTBSY)),
                }
            });
            (number, done.is_ok())
        };
        assert_eq!(attempts(0), (1, true));
        assert_eq!(attempts(3), (4, true));
        let (number, done) = attempts(1000);
        assert!(number < 1000 && !done, "{number}");
    }
}
