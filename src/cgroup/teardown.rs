//! The end of a cgroup: one function, whoever asks for it.
//!
//! `cgroup.kill` alone is not complete. A process whose main thread has exited survives it for
//! ever; a chain of processes that fork and exit at once outruns it now and then; and a write says
//! nothing about when the dying are gone. So: write, re-read `populated` with a short back-off,
//! write again; where that does not do, freeze (nobody can fork any more) and SIGKILL each listed
//! process through a pidfd, round after round. It returns when the directory is gone, or at its
//! deadline with an error that names the survivors.

use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::cgroup::Cgroup;
use crate::error::{Error, Result, Step};
use crate::proc::survey;
use crate::sys;

/// How long a teardown may take before it gives up and says who is left.
pub(crate) const TEARDOWN_PATIENCE: Duration = Duration::from_secs(10);

/// Between two attempts at what may pass.
const RETRY_PAUSE: Duration = Duration::from_micros(200);

/// Pidfds held at a time by a sweep: few, since fds may be scarce.
const PIDFD_BATCH: usize = 64;

/// Kills everything in the cgroup, and removes it with all that is below.
///
/// `EBUSY` from rmdir means that a process has come back, `EMFILE` that other threads hold all fds
/// right now: whatever may pass is tried again until the deadline.
pub(crate) fn teardown(cgroup: &Cgroup, patience: Duration) -> Result<()> {
    teardown_after(cgroup, patience, || ())
}

/// The same, with the counters read at the one right moment: nobody is left to add to them, and the
/// directory is still there.
pub(crate) fn teardown_after<T>(
    cgroup: &Cgroup,
    patience: Duration,
    read: impl Fn() -> T,
) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let emptied = kill_until_empty(cgroup, left).map(|()| read());
        let removed = |counters| match cgroup.remove() {
            Ok(()) => Ok(counters),
            Err(stuck) => Err(cgroup.stuck(&stuck)),
        };
        match emptied.and_then(removed) {
            Err(error) if error.may_pass() && Instant::now() < deadline => {
                thread::sleep(RETRY_PAUSE)
            }
            done => return done,
        }
    }
}

/// Kills until it is empty; at the deadline the error names who is left.
pub(crate) fn kill_until_empty(cgroup: &Cgroup, patience: Duration) -> Result<()> {
    let start = Instant::now();
    if kill_in_rounds(cgroup, start + patience)? {
        return Ok(());
    }
    let survivors = survey::in_brief(&cgroup.pids().unwrap_or_default());
    let what = format!("cgroup {:?}", cgroup.path());
    Err(Error::populated(what, start.elapsed(), survivors))
}

fn kill_in_rounds(cgroup: &Cgroup, deadline: Instant) -> Result<bool> {
    let failed = |errno| cgroup.error(Step::Kill, errno);
    if !cgroup.populated().map_err(failed)? {
        return Ok(true);
    }
    // An ordinary process takes up to 2 ms to die; a thousand take longer, and get it in later
    // rounds.
    let mut pause = Duration::from_millis(2);
    let mut stubborn = false;
    loop {
        cgroup.write_kill().map_err(failed)?;
        if stubborn {
            freeze_and_kill(cgroup);
        }
        let until = deadline.min(Instant::now() + pause);
        if cgroup.wait_empty(Some(until)).map_err(failed)? {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        // The second write catches a chain that outran the first; whoever survives both is frozen
        // and swept.
        stubborn = pause > Duration::from_millis(2);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Freezes, then SIGKILLs each listed process through its pidfd. What fails here is tried again in
/// the next round, so errors are of no interest: the deadline is.
fn freeze_and_kill(cgroup: &Cgroup) {
    let _ = cgroup.freeze(Instant::now() + Duration::from_millis(5));
    let _ = signal_all(&|| cgroup.pids(), libc::SIGKILL, &|_| true);
}

/// Sends a signal to every process that is listed, each through a pidfd; says how many were
/// reached.
///
/// Between reading a pid and opening its pidfd the process may end and its number go to a stranger.
/// So the list is read again once the pidfds are open: a pid that is still listed then belongs to
/// the pidfd, because a pidfd's number is not given away while its process is not reaped.
pub(crate) fn signal_all(
    list: &dyn Fn() -> Result<Vec<i32>, Errno>,
    signal: i32,
    is_meant: &dyn Fn(i32) -> bool,
) -> Result<usize, Errno> {
    let mut reached = 0;
    let pids: Vec<i32> = list()?.into_iter().filter(|&pid| is_meant(pid)).collect();
    for batch in pids.chunks(PIDFD_BATCH) {
        let open = |&pid| match sys::pidfd_open(pid) {
            Ok(fd) => Some((pid, fd)),
            Err(_) => None,
        };
        let handles: Vec<(i32, OwnedFd)> = batch.iter().filter_map(open).collect();
        let members = list()?;
        for (pid, pidfd) in &handles {
            use std::os::fd::AsFd;
            let member = members.binary_search(pid).is_ok();
            if member && sys::pidfd_send_signal(pidfd.as_fd(), signal).is_ok() {
                reached += 1;
            }
        }
    }
    Ok(reached)
}
