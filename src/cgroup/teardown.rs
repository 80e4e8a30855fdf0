//! Tears down a cgroup: kills all processes in it and removes it.
//!
//! `cgroup.kill` alone is not complete. A process whose main thread has exited survives it for
//! ever; a chain of processes that fork and exit at once outruns it now and then; and a write does
//! not tell when the dying are gone. So: write, re-read `populated` with a short back-off, write
//! again; if processes survive that, freeze (a frozen process cannot fork) and SIGKILL each listed
//! process through a pidfd, round after round. It returns when the directory is gone, or at its
//! deadline with an error that names the survivors.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::cgroup::Cgroup;
use crate::error::{Error, Result, Step};
use crate::proc::survey;
use crate::sys::{self, TO_ALL};

/// How long a teardown tries before it gives up and names the survivors.
pub(crate) const TEARDOWN_PATIENCE: Duration = Duration::from_secs(10);

/// The pause before a failure that may pass is tried again.
const RETRY_PAUSE: Duration = Duration::from_micros(200);

/// Pidfds held at a time: few, since fds may be scarce.
const PIDFD_BATCH: usize = 64;

/// How a teardown begins: with what tells most cheaply whether anything is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opening {
    /// With a look.
    Look,
    /// With the counters: it was seen to be empty just now.
    Empty,
    /// With the removal, which fails while a process is left: no counter is read from it.
    Removal,
}

/// Kills everything in the cgroup, and removes it with all that is below.
///
/// `EBUSY` from rmdir means that a process has come back, `EMFILE` that other threads hold all fds
/// right now: whatever may pass is tried again until the deadline.
pub(crate) fn teardown(cgroup: &Cgroup, patience: Duration) -> Result<()> {
    teardown_after(cgroup, patience, Opening::Removal, &|| (), || ())
}

/// Tears down, and reads the counters when the cgroup is empty and its directory is still there.
/// `reap` is called between two rounds of killing.
pub(crate) fn teardown_after<T>(
    cgroup: &Cgroup,
    patience: Duration,
    opening: Opening,
    reap: &dyn Fn(),
    read: impl Fn() -> T,
) -> Result<T> {
    match opening {
        Opening::Removal if cgroup.remove_alone().is_ok() => return Ok(read()),
        Opening::Empty => {
            let counters = read();
            // A process that has joined since makes it busy: all of it is done then.
            if cgroup.remove_alone().is_ok() {
                return Ok(counters);
            }
        }
        Opening::Look | Opening::Removal => {}
    }
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let emptied = kill_until_empty(cgroup, left, reap).map(|()| read());
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

/// Kills until it is empty; at the deadline the error names the survivors.
pub(crate) fn kill_until_empty(cgroup: &Cgroup, patience: Duration, reap: &dyn Fn()) -> Result<()> {
    let start = Instant::now();
    if kill_in_rounds(cgroup, start + patience, reap)? {
        return Ok(());
    }
    let survivors = survey::in_brief(&cgroup.pids().unwrap_or_default());
    let what = format!("cgroup {:?}", cgroup.path());
    Err(Error::populated(what, start.elapsed(), survivors))
}

fn kill_in_rounds(cgroup: &Cgroup, deadline: Instant, reap: &dyn Fn()) -> Result<bool> {
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
        reap();
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
        // The second write catches a chain that outran the first; what survives both is frozen and
        // killed by pidfd.
        stubborn = pause > Duration::from_millis(2);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Freezes, then SIGKILLs each listed process through its pidfd. Errors are ignored: the next round
/// tries again, until the deadline.
fn freeze_and_kill(cgroup: &Cgroup) {
    let _ = cgroup.freeze(Instant::now() + Duration::from_millis(5));
    let _ = signal_all(&|| cgroup.pids(), &[libc::SIGKILL], &|_| true);
}

/// Sends these signals to every process that is listed, each through a pidfd; says how many were
/// reached by the first.
///
/// Between reading a pid and opening its pidfd the process may end and its number go to a stranger.
/// So the list is read again once the pidfds are open: a pid that is still listed then belongs to
/// the pidfd, because a pidfd's number is not given away while its process is not reaped.
pub(crate) fn signal_all(
    list: &dyn Fn() -> Result<Vec<i32>, Errno>,
    signals: &[i32],
    is_meant: &dyn Fn(i32) -> bool,
) -> Result<usize, Errno> {
    let mut reached = 0;
    let pids: Vec<i32> = list()?.into_iter().filter(|&pid| is_meant(pid)).collect();
    for batch in pids.chunks(PIDFD_BATCH) {
        let open = |&pid| match sys::signal_fd(pid) {
            Ok(fd) => Some((pid, fd)),
            Err(_) => None,
        };
        let handles: Vec<(i32, OwnedFd)> = batch.iter().filter_map(open).collect();
        let members = list()?;
        for (pid, pidfd) in &handles {
            let member = members.binary_search(pid).is_ok();
            let send = |&signal: &i32| tell(pidfd.as_fd(), signal).is_ok();
            let mut sent = signals.iter().map(send);
            if member && sent.next() == Some(true) {
                // The rest is for what the first one reached.
                sent.for_each(drop);
                reached += 1;
            }
        }
    }
    Ok(reached)
}

/// Sends the signal, and says that all get it: a tidy-process among them does not send it on.
fn tell(pidfd: BorrowedFd<'_>, signal: i32) -> Result<(), Errno> {
    let plain = || sys::pidfd_send_signal(pidfd, signal);
    match signal {
        // No process answers these, and 0 only asks.
        0 | libc::SIGKILL | libc::SIGSTOP => plain(),
        // A full queue or an emulated kernel may refuse the value, which is no reason to be silent.
        _ => sys::pidfd_queue(pidfd, signal, TO_ALL.unsigned_abs().into()).or_else(|_| plain()),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io;
    use std::process::{Child, Command};
    use std::sync::Arc;

    use nix::sys::stat::Mode;

    use super::*;
    use crate::cgroup::nesting;

    fn sleeper() -> io::Result<Child> {
        Command::new("sleep").arg("60").spawn()
    }

    #[test]
    #[cfg_attr(miri, ignore = "makes system calls that Miri lacks")]
    fn a_pid_that_is_no_longer_listed_gets_no_signal() -> io::Result<()> {
        let (mut member, mut stranger) = (sleeper()?, sleeper()?);
        let [listed, gone] = [&member, &stranger].map(|child| child.id().cast_signed());
        let looks = Cell::new(0);
        let list = || {
            looks.set(looks.get() + 1);
            let mut pids = vec![listed];
            pids.extend((looks.get() == 1).then_some(gone));
            pids.sort_unstable();
            Ok(pids)
        };
        assert_eq!(signal_all(&list, &[libc::SIGTERM, libc::SIGKILL], &|_| true), Ok(1));
        member.wait()?;
        // Longer than a signal takes.
        thread::sleep(Duration::from_millis(50));
        assert_eq!(stranger.try_wait()?, None);
        // One that cannot be reached is not counted, and gets nothing more.
        let list = || Ok(vec![gone]);
        assert_eq!(signal_all(&list, &[-1, libc::SIGKILL], &|_| true), Ok(0));
        thread::sleep(Duration::from_millis(50));
        assert_eq!(stranger.try_wait()?, None);
        stranger.kill()?;
        stranger.wait().map(drop)
    }

    /// Where a cgroup can be made: a process comes back between the killing and the removal.
    #[test]
    #[cfg_attr(miri, ignore = "makes system calls that Miri lacks")]
    fn what_comes_back_is_killed_again() -> std::result::Result<(), Box<dyn std::error::Error>> {
        let Ok(base) = nesting::base(None) else { return Ok(()) };
        let name = format!("tidy-teardown-{}", std::process::id());
        let made = Cgroup::make(&Arc::new(base.dir), &base.path, name.as_ref(), Mode::S_IRWXU);
        let Ok(cgroup) = made else { return Ok(()) };
        let mut back = Some(sleeper()?);
        let comer = back.as_ref().map(Child::id);
        let left = Cell::new(comer);
        let come = || {
            if let Some(pid) = left.take() {
                let _ = std::fs::write(cgroup.path().join("cgroup.procs"), pid.to_string());
            }
        };
        let torn = teardown_after(&cgroup, Duration::from_secs(10), Opening::Look, &|| (), come);
        let there = cgroup.path().exists();
        if let Some(mut back) = back.take() {
            back.kill()?;
            back.wait()?;
        }
        let _ = std::fs::remove_dir(cgroup.path());
        assert!(!there && torn.is_ok(), "{torn:?}");
        Ok(())
    }
}
