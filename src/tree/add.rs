//! Moves a running process into a tree, unless this process depends on it.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::parent_id;
use std::path::PathBuf;
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::write;

use crate::cgroup::beneath::{self, open_cgroup};
use crate::cgroup::hierarchy;
use crate::error::{Error, Result, Step};
use crate::proc::survey;
use crate::sys::{self, poll};
use crate::tree::Tree;

/// Looks at this many generations at the most: `/proc` may show a circle.
const GENERATIONS: usize = 10_000;

impl Tree {
    /// Moves a running process (not its children) into this tree. Children that it forked before
    /// stay outside: prefer [`enroll`](Self::enroll).
    ///
    /// Refuses the processes that this one needs to end the tree: itself, its ancestors, its
    /// tracer, its guard. Refuses the number of a thread too: the kernel would move the whole
    /// process.
    ///
    /// # Errors
    /// No such process, no permission to move it, it is refused ([`Error::is_invalid_input`]), it
    /// ended meanwhile, a keeper holds the tree ([`Error::is_unsupported`]), or its supervisor
    /// confines what is in it ([`Error::is_unconfinable`]).
    pub fn add(&self, pid: u32) -> Result<()> {
        let refused = |why| Err(Error::invalid(Step::Prepare, format!("process {pid}"), why));
        let failed = |errno| Error::os(Step::Add, format!("process {pid}"), errno);
        self.check_unconfined()?;
        let procs = self.procs("add a process")?;
        if let Some(why) = self.needs(pid) {
            return refused(why);
        }
        let number = i32::try_from(pid).map_err(|_| failed(Errno::ESRCH))?;
        let process = match sys::pidfd_open(number) {
            Err(Errno::EINVAL | Errno::ENOENT) => {
                return refused("it is a thread, not a process");
            }
            process => process.map_err(failed)?,
        };
        // Needed only if a new thread of ours takes the number now.
        let home = hierarchy::own();
        write(&procs, pid.to_string().as_bytes()).map_err(failed)?;
        if has_ended(&process) {
            self.put_back(number, home.ok());
            return Err(failed(Errno::ESRCH));
        }
        Ok(())
    }

    /// Why this process depends on that one, if it does.
    fn needs(&self, pid: u32) -> Option<&'static str> {
        if pid == 0 || pid == std::process::id() {
            return Some("this process itself would end with the tree");
        }
        if is_ancestor(pid) {
            return Some("this process descends from it");
        }
        if tracer() == Some(pid) {
            return Some("it traces this process");
        }
        let guards = self.supervisor().is_ok_and(|supervisor| {
            supervisor.ground("add a process").is_ok_and(|root| root.is_guard(pid))
        });
        guards.then_some("it guards this tree")
    }

    /// Moves a wrong process out. The process has ended, so its number may have been reused before
    /// the write: by a stranger, which goes to its parent's cgroup, or by a thread of ours.
    fn put_back(&self, number: i32, home: Option<PathBuf>) {
        let us = std::process::id().cast_signed();
        let move_to = |pid: i32, dir: PathBuf| {
            let procs = open_cgroup(&dir).and_then(|dir| {
                beneath::look(dir.as_fd(), "cgroup.procs".as_ref(), OFlag::O_WRONLY)
            });
            procs.and_then(|procs| write(&procs, pid.to_string().as_bytes()).map(drop))
        };
        for pid in self.pids() {
            let place = match pid {
                _ if pid == us => home.clone(),
                _ if pid == number => parent_of(pid.cast_unsigned()).and_then(hierarchy::place_of),
                _ => None,
            };
            if let Some(place) = place {
                // It may have ended, too.
                let _ = move_to(pid, place);
            }
        }
    }
}

fn has_ended(process: &OwnedFd) -> bool {
    poll::ended(process.as_fd(), Some(Instant::now())).unwrap_or(true)
}

/// Whether it is an ancestor of this process. Without `/proc` only the parent and pid 1 are known.
fn is_ancestor(pid: u32) -> bool {
    let above = std::iter::successors(Some(parent_id()), |&child| parent_of(child));
    pid == 1 || above.take(GENERATIONS).any(|ancestor| ancestor == pid)
}

fn parent_of(pid: u32) -> Option<u32> {
    let known = survey::in_brief(&[pid.cast_signed()]).named.pop();
    known.map(|process| process.ppid).filter(|&parent| parent > 0)
}

fn tracer() -> Option<u32> {
    tracer_in(&fs::read_to_string("/proc/self/status").ok()?)
}

pub(crate) fn tracer_in(status: &str) -> Option<u32> {
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"))?;
    tracer.trim().parse().ok()
}
