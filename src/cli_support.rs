//! What the command-line tool takes from the library beyond its public API. No stability is
//! promised.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};

use crate::cgroup::beneath::open_cgroup;
pub use crate::cgroup::hierarchy::{FIRST_NAMESPACE, Mount, mounts, own_path};
use crate::cgroup::names::KILLED;
use crate::cgroup::nesting;
pub use crate::cgroup::nesting::named_base;
pub use crate::cgroup::own::{Place, place, top};
use crate::child::Child;
use crate::child::settle::Rest;
use crate::command::Command;
use crate::containment::Containment;
use crate::error::advice;
use crate::error::{Error, Result};
pub use crate::exec::launch::clone_refused;
use crate::explain::Explainer;
pub use crate::explain::Needs;
pub use crate::limits::{CONTROLLERS, Controller, Example};
pub use crate::log::log_into;
pub use crate::pool::crew::{Crew, Next, Work};
use crate::proc::quote;
use crate::record::timeline::EventKind;
use crate::report::Report;
pub use crate::sandbox::fds::check_handed_over;
use crate::supervisor::environment;
pub use crate::supervisor::held::Held;
use crate::supervisor::list::TreeInfo;
pub use crate::supervisor::lookout::{CgroupId, Lookout, Pulse, SeenTree, is_plain};
pub use crate::supervisor::orphans::reap_all_but;
use crate::supervisor::partner;
pub use crate::supervisor::sweep::sweep_briefly;
use crate::sys;
pub use crate::sys::opening::Opening;
pub use crate::sys::standin::{SignalMask, StandIn, handles};
pub use crate::sys::terminal::{Shortened, terminal_size};
pub use crate::sys::{ignores, is_refused, reset_sigchld, signal_set};
use crate::tree::Tree;

/// Where a supervisor would make its run root. Makes nothing.
///
/// # Errors
/// No cgroup2 is mounted, no `/proc`, or the given directory is not there or no cgroup.
pub fn find_base(base: Option<&Path>) -> Result<PathBuf> {
    Ok(nesting::base(base)?.path)
}

/// What the environment says of what is to hold trees together.
///
/// # Errors
/// The value is none of those that there are.
pub fn containment_of_environment() -> Result<Containment> {
    environment::containment()
}

/// Whether this process is part of a job of Slurm.
#[must_use]
pub fn in_slurm_job() -> bool {
    advice::in_slurm_job()
}

/// The parent of this process, or one above that, with which the tool is to die. Readable, as an
/// fd, once the whole process has ended.
#[derive(Debug)]
pub struct Partner(partner::Partner);

impl Partner {
    /// `named` is the pid that it is expected to have.
    ///
    /// # Errors
    /// It has ended ([`Error::is_partner_gone`]), or is outside of this pid namespace. Process 1
    /// of another session is taken for what has adopted an orphan, unless it is named.
    pub fn parent(named: Option<u32>) -> Result<Self> {
        partner::Partner::parent(named).map(Self)
    }

    /// The parents up to the first that is outside of this process's session, the nearest first.
    ///
    /// # Errors
    /// As for [`parent`](Self::parent), for each.
    pub fn session() -> Result<Vec<Self>> {
        Ok(partner::Partner::session()?.into_iter().map(Self).collect())
    }

    /// A label to print.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.pid()
    }

    /// Whether the whole process has ended, not only one of its threads.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.0.has_ended()
    }
}

impl AsFd for Partner {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Notes that the child is being stopped, and sends nothing: every wait kills what is left after
/// `grace`.
pub fn note_stop(child: &Child, grace: Duration) {
    child.note_stop(Instant::now().checked_add(grace));
}

/// Whether something has asked the child to end: a timeout, or [`note_stop`].
#[must_use]
pub fn is_ending(child: &Child) -> bool {
    child.ending.cause().is_some()
}

/// Sends the stop signal, with the kill to follow after `grace`.
pub fn begin_stop(child: &Child, grace: Duration) {
    child.begin_stop(Instant::now().checked_add(grace));
}

/// Gives what the main process has left its time, as [`Child::finish`] does: to end by itself, or
/// in the rest of a grace. `wait` waits until the tree is empty or this moment; it may return
/// before.
///
/// # Errors
/// Those of `wait`.
pub fn wind_down<E>(
    child: &Child,
    mut wait: impl FnMut(Option<Instant>) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    while let Rest::Until(at) = child.after_main(false) {
        wait(at)?;
    }
    Ok(())
}

/// Kills a tree, and notes in its directory that it was killed by name.
///
/// # Errors
/// As for [`TreeInfo::kill`].
pub fn kill_by_name(tree: &TreeInfo) -> Result<()> {
    if let Ok(dir) = open_cgroup(&tree.path) {
        let _ = sys::set_attribute(dir.as_fd(), KILLED, b"1");
    }
    tree.kill()
}

/// Whether [`kill_by_name`] has killed the tree.
#[must_use]
pub fn was_killed_by_name(tree: &Tree) -> bool {
    tree.path().is_some_and(|path| sys::has_attribute(path, KILLED))
}

/// As [`Child::finish`], without the usage, unless it was asked for by a limit or
/// [`SupervisorBuilder::account`](crate::SupervisorBuilder::account): no line of `run` shows it.
///
/// # Errors
/// As for [`Child::finish`].
pub fn finish_uncounted(child: &Child) -> Result<Report> {
    child.finish_uncounted()
}

/// Sends a stop request on to those processes of the tree whose pid is meant, or to the main
/// process alone, and lets all that stand still go on, so that they can answer.
///
/// # Errors
/// The members cannot be listed.
pub fn forward(
    child: &Child,
    signal: i32,
    main_only: bool,
    is_meant: impl Fn(u32) -> bool,
) -> Result<()> {
    let tree = child.tree();
    let main = child.id();
    tree.container().note_stopping();
    child.recorded.note(EventKind::StopSignal(signal));
    let reached = match main_only {
        true => Ok(0),
        false => tree.signal_where(signal, &is_meant),
    };
    if is_meant(main) && (main_only || !tree.holds(main)) {
        // It may have ended.
        let _ = child.signal(signal);
    }
    let _ = tree.signal(libc::SIGCONT);
    tree.thaw_all();
    reached.map(drop)
}

/// Sends a signal on to the main process, with the value that came with it, if one did.
pub fn pass_on(child: &Child, signal: i32, value: Option<u64>) {
    // It may have ended.
    let _ = match value {
        Some(value) => sys::pidfd_queue(child.pidfd.as_fd(), signal, value),
        None => sys::pidfd_send_signal(child.pidfd.as_fd(), signal),
    };
}

/// What a profile has to name for what the child has done, once it is finished.
#[must_use]
pub fn needs(child: &Child) -> Needs {
    child.explainer.as_ref().map(Explainer::needs).unwrap_or_default()
}

/// The pids of the tree's processes, in order.
#[must_use]
pub fn pids(tree: &Tree) -> Vec<i32> {
    tree.pids()
}

/// Makes the whole tree stand still, by whatever means it has; `false` lets it run on.
///
/// # Errors
/// As for [`Tree::freeze`], or the members cannot be listed.
pub fn set_still(tree: &Tree, still: bool) -> Result<()> {
    tree.container().set_still(still)
}

/// What to poll for news of the tree's being empty.
#[must_use]
pub fn empty_news(tree: &Tree) -> (BorrowedFd<'_>, PollFlags) {
    tree.container().empty_news()
}

/// Sleeps until one of these has news, the child's next step is due (it is taken then), or the
/// deadline has come; now and then it returns before.
///
/// # Errors
/// poll(2) fails.
pub fn rest(
    child: &Child,
    fds: &mut [PollFd<'_>],
    deadline: Option<Instant>,
) -> std::result::Result<(), Errno> {
    child.rest(fds, deadline)
}

/// The value that comes with a signal for a whole tree.
pub const TO_ALL: i32 = sys::TO_ALL;

/// Characters that a line about processes may have.
pub const LINE: usize = quote::LINE;

/// Tries what a seccomp filter may refuse about pidfds; names the call that is.
///
/// # Errors
/// The errno of that call.
pub fn try_pidfds() -> std::result::Result<(), (&'static str, Errno)> {
    let me = sys::pidfd_open(std::process::id().cast_signed());
    let me = me.map_err(|errno| ("pidfd_open", errno))?;
    sys::pidfd_send_signal(me.as_fd(), 0).map_err(|errno| ("pidfd_send_signal", errno))
}

/// What to type about an error, where that is known.
#[must_use]
pub fn hint(error: &Error) -> Option<&'static str> {
    error.typed_hint()
}

/// Whether a process of the tree has this pid.
#[must_use]
pub fn has(tree: &Tree, pid: u32) -> bool {
    tree.pids().contains(&pid.cast_signed())
}

/// What others wrote, without what a terminal obeys.
#[must_use]
pub fn quoted(text: &str) -> String {
    quote::quoted(text)
}

/// The same for a text of several lines.
#[must_use]
pub fn quoted_lines(text: &str) -> String {
    quote::quoted_lines(text)
}

/// Whether a terminal obeys this character.
#[must_use]
pub fn steers(c: char) -> bool {
    quote::steers(c)
}

/// Its first characters, so many at the most.
#[must_use]
pub fn shortened(text: &str, most: usize) -> String {
    quote::shortened(text, most)
}

/// As many of these as fit into so many characters, and how many more of `count` there are.
#[must_use]
pub fn enumerated(all: &[String], count: usize, most: usize) -> String {
    quote::enumerated(all, count, most)
}

/// Makes sh run the program, as execvp(3) does with what the kernel does not execute.
pub fn run_by_shell(command: &mut Command, script: OsString) {
    let program = &mut command.program;
    program.args.insert(0, script);
    program.arg0 = None;
    program.program = "/bin/sh".into();
}
