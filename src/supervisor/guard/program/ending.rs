//! Tears down the run root: writes `cgroup.kill`, re-reads `populated`, freezes and kills each
//! process by its pidfd, removes; again and again until it is gone.
//!
//! Gives up if it is empty and cannot be removed for 10 s (something is mounted in it), and leaves
//! it to a sweep. Never gives up while a process is in it.

use core::ffi::CStr;

use super::BASE;
use super::calls::{self, DIRECTORY, EACCES, ENODEV, ENOENT, READ, WRITE};
use super::listing::Pids;
use super::walk::{Visit, open, walk};

const MILLISECOND: u64 = 1_000_000;
const GUARD_PATIENCE: u64 = 10_000 * MILLISECOND;

/// Pidfds held at a time: fds may be scarce.
const PIDFD_BATCH: usize = 24;

/// Fds of the run root: its directory, `cgroup.kill`, `cgroup.events`. -1 for a missing one.
pub(super) struct RunRootFds {
    dir: i32,
    kill: i32,
    events: i32,
}

impl Default for RunRootFds {
    fn default() -> Self {
        Self { dir: -1, kill: -1, events: -1 }
    }
}

impl RunRootFds {
    /// Takes the fds that the owner has sent.
    pub(super) fn take(&mut self, [dir, kill, events]: [i32; 3]) {
        if self.dir < 0 {
            *self = Self { dir, kill, events };
        }
    }

    /// Opens missing fds; returns 0, or the errno of opening the directory.
    pub(super) fn open(&mut self, name: &CStr) -> isize {
        if self.dir < 0 {
            match open(BASE, name, DIRECTORY) {
                Ok(dir) => self.dir = dir,
                Err(errno) => return errno,
            }
        }
        if self.kill < 0 {
            self.kill = open(self.dir, c"cgroup.kill", WRITE).unwrap_or(-1);
        }
        if self.events < 0 {
            self.events = open(self.dir, c"cgroup.events", READ).unwrap_or(-1);
        }
        0
    }

    /// Whether `cgroup.events` has these words. False for a removed cgroup, and where it cannot be
    /// read.
    fn says(&self, words: &[u8]) -> bool {
        let mut text = [0; 128];
        calls::seek(self.events, 0);
        let text = calls::read(self.events, &mut text).unwrap_or_default();
        text.windows(words.len()).any(|each| each == words)
    }

    /// Re-reads `cgroup.events` with a back-off until it has these words (or has not, if not
    /// `said`); false after `time` nanoseconds.
    fn wait_until(&self, words: &[u8], said: bool, time: u64) -> bool {
        let start = calls::now();
        let mut pause = 20_000;
        while self.says(words) != said {
            let gone = calls::now().wrapping_sub(start);
            if gone >= time {
                return false;
            }
            calls::sleep(pause.min(time.wrapping_sub(gone)));
            pause = pause.wrapping_mul(2).min(MILLISECOND / 2);
        }
        true
    }
}

pub(super) struct Teardown<'a> {
    name: &'a CStr,
    held: RunRootFds,
}

impl<'a> Teardown<'a> {
    pub(super) fn new(name: &'a CStr, held: RunRootFds) -> Self {
        Self { name, held }
    }

    pub(super) fn bring_about(&mut self) {
        let start = calls::now();
        let mut pause = 2 * MILLISECOND;
        let mut stubborn = false;
        let mut emptied = None;
        loop {
            if matches!(self.held.open(self.name), ENOENT | ENODEV) {
                return;
            }
            calls::write(self.held.kill, b"1");
            if stubborn {
                self.freeze_and_kill();
            }
            if self.held.wait_until(b"populated 1", false, pause) {
                if self.remove() {
                    return;
                }
                let since = *emptied.get_or_insert_with(calls::now);
                let waited = calls::now().wrapping_sub(since);
                if waited > GUARD_PATIENCE {
                    return;
                }
                // A dying process is in the way for milliseconds, a mount for longer.
                calls::sleep(if waited < 20 * MILLISECOND { 200_000 } else { 50 * MILLISECOND });
                continue;
            }
            emptied = None;
            // An ordinary process dies in those 2 ms. After 10 s one is stuck.
            stubborn = true;
            let late = calls::now().wrapping_sub(start) > GUARD_PATIENCE;
            let longest = if late { 1000 * MILLISECOND } else { 50 * MILLISECOND };
            pause = if late { longest } else { pause.wrapping_mul(2).min(longest) };
        }
    }

    /// Freezes, then SIGKILLs each listed process: a frozen one cannot fork, and `cgroup.kill`
    /// passes over processes without a main thread.
    fn freeze_and_kill(&self) {
        if let Ok(freeze) = open(self.held.dir, c"cgroup.freeze", WRITE) {
            calls::write(freeze, b"1");
            calls::close(freeze);
            self.held.wait_until(b"frozen 1", true, 5 * MILLISECOND);
        }
        kill_listed(self.held.dir);
        let mut killer = Killer { hidden: false };
        walk(self.held.dir, &mut killer);
        if killer.hidden
            && let Ok(bare) = calls::open_below_mounts(self.held.dir)
        {
            walk(bare, &mut killer);
            calls::close(bare);
        }
    }

    /// Removes the run root; true if it is gone.
    fn remove(&self) -> bool {
        let gone = || matches!(calls::rmdir(BASE, self.name), 0 | ENOENT | ENODEV);
        gone() || {
            walk(self.held.dir, &mut Remover);
            gone()
        }
    }
}

struct Killer {
    hidden: bool,
}

impl Visit for Killer {
    fn spares(&mut self, _: i32, _: &CStr) -> bool {
        false
    }

    fn after_children(&mut self, _: i32, _: &CStr, dir: i32) {
        kill_listed(dir);
    }

    fn hidden(&mut self) {
        self.hidden = true;
    }
}

struct Remover;

impl Visit for Remover {
    fn spares(&mut self, above: i32, name: &CStr) -> bool {
        match calls::rmdir(above, name) {
            0 | ENOENT | ENODEV => true,
            EACCES => {
                calls::chmod(above, 0o700);
                calls::rmdir(above, name) == 0
            }
            _ => false,
        }
    }

    fn after_children(&mut self, above: i32, name: &CStr, _: i32) {
        self.spares(above, name);
    }
}

/// SIGKILLs each process that `cgroup.procs` lists.
///
/// Between the reading of a pid and the opening of its pidfd the process may end and the number go
/// to a stranger. So the list is read again: a pid that is still in it belongs to the pidfd.
fn kill_listed(dir: i32) {
    let Ok(list) = open(dir, c"cgroup.procs", READ) else { return };
    let mut pids = Pids::of(list);
    let mut more = true;
    while more {
        let mut batch = [(0, -1, false); PIDFD_BATCH];
        for slot in &mut batch {
            more = match pids.next() {
                None => false,
                Some(0) => continue,
                Some(pid) => {
                    *slot = (pid, calls::pidfd(pid).unwrap_or(-1), false);
                    true
                }
            };
            if !more {
                break;
            }
        }
        confirm(dir, &mut batch);
        for (_, pidfd, listed) in batch {
            if listed && pidfd >= 0 {
                calls::send_kill(pidfd);
            }
            if pidfd >= 0 {
                calls::close(pidfd);
            }
        }
    }
    calls::close(list);
}

fn confirm(dir: i32, batch: &mut [(u32, i32, bool); PIDFD_BATCH]) {
    if batch.iter().all(|&(_, pidfd, _)| pidfd < 0) {
        return;
    }
    let Ok(list) = open(dir, c"cgroup.procs", READ) else { return };
    for pid in Pids::of(list) {
        for (_, _, listed) in batch.iter_mut().filter(|(known, _, _)| *known == pid) {
            *listed = true;
        }
    }
    calls::close(list);
}

#[cfg(test)]
mod tests;
