//! Tells processes that are at work from those that sleep, by the states that `/proc` shows.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::signal::kill;
use nix::sys::stat::Mode;
use nix::unistd::Pid;

use crate::proc::walk::{self, each_child_of_task, first_tasks, open_at, read, state_and_parent};

/// Threads that one look reads at the most: a thousand sleepers must not hold up their own end.
const MAX_THREADS: usize = 512;

/// Children that have left the list, zombies mostly, that one look reads at the most.
const MAX_CHILDREN: usize = 512;

/// Where the kernel keeps a writer whose reader is slow: it has something to say, and goes on as
/// soon as there is room.
const WRITERS: [&[u8]; 6] = [
    b"pipe_write",
    b"anon_pipe_write",
    b"sock_alloc_send_pskb",
    b"sk_stream_wait_memory",
    b"n_tty_write",
    b"pipe_wait_writable",
];

/// What some processes are doing right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activity {
    /// One of them runs, waits for a disk or for room to write, or has just ended.
    Works,
    /// Each of them waits for something, or is stopped.
    Sleeps,
    /// Each of them as far as can be seen; some are hidden, or may just not have a CPU.
    Unseen,
}

/// Looks at these processes, which were listed just now, in order. Never blocks: the kernel answers
/// from its own memory.
pub(crate) fn of(pids: &[i32]) -> Activity {
    let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let Ok(proc) = open("/proc", flags, Mode::empty()) else { return Activity::Unseen };
    let mut room = MAX_THREADS;
    let others = Others { proc: proc.as_fd(), pids, room: Cell::new(MAX_CHILDREN) };
    let mut all = if pids.is_empty() { Activity::Unseen } else { Activity::Sleeps };
    for &pid in pids {
        match of_one(pid, &others, &mut room) {
            Activity::Works => return Activity::Works,
            Activity::Unseen => all = Activity::Unseen,
            Activity::Sleeps => {}
        }
        if room == 0 {
            break;
        }
    }
    all
}

fn of_one(pid: i32, others: &Others<'_>, room: &mut usize) -> Activity {
    let Some(process) = walk::open(others.proc, pid) else { return missing(pid) };
    let (mut works, mut unsure, mut seen, mut dead) = (false, false, 0, 0);
    first_tasks(&process, room, &mut |task| {
        if works {
            return;
        }
        let Some((state, _)) = state_and_parent(&task) else { return };
        seen += 1;
        match state {
            b'S' => match waits(&task) {
                Some(what) => works = what == Waits::ToWrite || others.are_ending(&task),
                None => (works, unsure) = (others.are_ending(&task), true),
            },
            b'Z' => dead += 1,
            state => works = runs(state),
        }
    });
    match works {
        true => Activity::Works,
        // All of its threads have ended since it was listed.
        false if seen > 0 && seen == dead => Activity::Works,
        false if unsure => Activity::Unseen,
        false if seen > 0 || *room == 0 => Activity::Sleeps,
        false => missing(pid),
    }
}

/// One that is not shown has ended since it was listed, or is hidden.
fn missing(pid: i32) -> Activity {
    match pid > 0 && kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH) {
        true => Activity::Works,
        false => Activity::Unseen,
    }
}

/// Whether the state is none of those that last.
fn runs(state: u8) -> bool {
    !b"STtZIP".contains(&state)
}

/// Children of listed processes that are not listed themselves.
struct Others<'a> {
    proc: BorrowedFd<'a>,
    /// Those that are listed.
    pids: &'a [i32],
    /// How many are still read.
    room: Cell<usize>,
}

impl Others<'_> {
    /// Whether a child of this thread is about to end. Such a one leaves its cgroup, and so the
    /// list, a moment before its parent is woken to hear of it: on a busy machine it may be
    /// preempted there.
    fn are_ending(&self, task: &OwnedFd) -> bool {
        let mut ending = false;
        each_child_of_task(task, &mut |child| {
            let room = self.room.get();
            if ending || room == 0 || self.pids.binary_search(&child).is_ok() {
                return;
            }
            self.room.set(room - 1);
            let process = walk::open(self.proc, child);
            let state = process.as_ref().and_then(state_and_parent);
            ending = match state {
                Some((state, _)) => runs(state),
                None => missing(child) == Activity::Works,
            };
        });
        ending
    }
}

/// What a thread sleeps for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waits {
    ToWrite,
    Else,
}

/// What this thread, whose state is `S`, sleeps for. None if it is not known to sleep: the state is
/// set before the last look at what is waited for, so one that was preempted there (in waitpid(2)
/// perhaps, which reaps in this state) shows it too, and goes on when it gets a CPU. The kernel
/// names no place for such a one; nor to a process that may not trace the thread.
fn waits(task: &OwnedFd) -> Option<Waits> {
    let mut buffer = [0; 64];
    let file = open_at(task, c"wchan", OFlag::empty())?;
    match read(file.as_fd(), &mut buffer)? {
        b"" | b"0" => None,
        place if WRITERS.contains(&place) => Some(Waits::ToWrite),
        _ => Some(Waits::Else),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio, id};
    use std::time::{Duration, Instant};

    use super::*;

    fn becomes(pid: u32, wanted: Activity) -> bool {
        let until = Instant::now() + Duration::from_secs(20);
        while of(&[pid.cast_signed()]) != wanted {
            if Instant::now() > until {
                return false;
            }
        }
        true
    }

    #[test]
    #[cfg_attr(miri, ignore = "makes system calls that Miri lacks")]
    fn a_process_works_sleeps_or_cannot_be_seen() -> std::io::Result<()> {
        assert_eq!(of(&[id().cast_signed()]), Activity::Works);
        assert_eq!(of(&[]), Activity::Unseen);
        let mut sleeper = Command::new("sleep").arg("20").spawn()?;
        let sleeps = becomes(sleeper.id(), Activity::Sleeps);
        sleeper.kill()?;
        sleeper.wait()?;
        assert!(sleeps);
        // It has ended since it was listed.
        assert_eq!(of(&[sleeper.id().cast_signed()]), Activity::Works);
        Ok(())
    }

    /// A parent that does not reap: what it has lost does not make it work, nor the look longer.
    #[test]
    #[cfg_attr(miri, ignore = "makes system calls that Miri lacks")]
    fn a_look_at_zombies_is_bounded() -> std::io::Result<()> {
        let script = "n=0; while [ $n -lt 700 ]; do n=$((n+1)); (read x <&3) & done 3<&0
            exec sleep 20";
        let mut parent = Command::new("sh").args(["-c", script]).stdin(Stdio::piped()).spawn()?;
        let pid = parent.id().cast_signed();
        let comm = || std::fs::read_to_string(format!("/proc/{pid}/comm"));
        let until = Instant::now() + Duration::from_secs(20);
        while comm()? != "sleep\n" && Instant::now() < until {}
        drop(parent.stdin.take());
        let sleeps = becomes(parent.id(), Activity::Sleeps);
        let proc = open("/proc", OFlag::O_DIRECTORY, Mode::empty())?;
        let others = Others { proc: proc.as_fd(), pids: &[pid], room: Cell::new(MAX_CHILDREN) };
        let sleeps_in_sight = of_one(pid, &others, &mut 1) == Activity::Sleeps;
        parent.kill()?;
        parent.wait()?;
        assert!(sleeps && sleeps_in_sight);
        assert_eq!(others.room.get(), 0);
        Ok(())
    }

    /// Its pipe is full, and the kernel says where it waits.
    #[test]
    #[cfg_attr(miri, ignore = "makes system calls that Miri lacks")]
    fn a_process_that_waits_for_its_reader_works() -> std::io::Result<()> {
        let mut writer = Command::new("yes").stdout(Stdio::piped()).spawn()?;
        let blocked = |pid: u32| {
            let path = format!("/proc/{pid}/wchan");
            std::fs::read_to_string(path).unwrap_or_default().contains("pipe_write")
        };
        let until = Instant::now() + Duration::from_secs(20);
        while !blocked(writer.id()) && Instant::now() < until {}
        let works = of(&[writer.id().cast_signed()]);
        let told = blocked(writer.id());
        writer.kill()?;
        writer.wait()?;
        assert!(!told || works == Activity::Works);
        Ok(())
    }
}
