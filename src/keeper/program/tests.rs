//! Tests of a keeper's looks at other processes; the test plays the keeper.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};

use super::*;

/// A number may be a stranger's by now: its parent tells.
#[test]
#[cfg_attr(miri, ignore = "makes system calls that Miri lacks")]
fn only_children_of_their_parent_are_found_and_its_orphans() -> io::Result<()> {
    let mut command = Command::new("sh");
    command.args(["-c", "sleep 60 & echo $!; wait"]).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let mut line = String::new();
    child.stdout.take().map_or(Ok(0), |said| BufReader::new(said).read_line(&mut line))?;
    let below: i32 = line.trim().parse().map_err(io::Error::other)?;
    let proc = File::open("/proc")?;
    let keeper = Keeper::of(proc.as_raw_fd(), 0, 0);
    let (parent, me) = (child.id().cast_signed(), keeper.me);
    let found = |pid, parent| keeper.find(pid, parent).is_some();
    assert!(found(below, parent));
    // Not of this parent; the child itself is ours, whichever parent it had.
    assert!(!found(below, 1) && !found(below, me));
    assert!(found(parent, me) && found(parent, 1));
    let found = keeper.find(below, parent).ok_or(io::ErrorKind::NotFound)?;
    calls::signal(&found, SIGKILL);
    child.wait().map(drop)
}

/// At once after a death, after a millisecond without one, then ever more seldom.
#[test]
fn pauses_grow_where_nothing_dies() {
    let all = [0, 1, EAGER_ROUNDS, EAGER_ROUNDS + 50, u32::MAX].map(pause);
    assert_eq!(all, [0, 1, 1, 50, 100]);
}
