//! Tests of the owner's handle, with run roots in a plain directory.

use std::fs::{self, File};
use std::path::PathBuf;

use super::*;

type Outcome = std::result::Result<(), Box<dyn std::error::Error>>;

/// A directory that goes with the test.
struct Base(PathBuf);

impl Drop for Base {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A base with a run root, its guard, and a line that a fork of the owner holds too.
struct Stage {
    base: Base,
    root: PathBuf,
    guard: Guard,
    fork: UnixStream,
}

impl Stage {
    fn set(name: &str) -> std::result::Result<Self, Box<dyn std::error::Error>> {
        let id = format!("{}-{name}", std::process::id());
        let base = Base(std::env::temp_dir().join(format!("tidy-base-{id}")));
        let root = base.0.join(format!("tidy-process-{id}"));
        fs::create_dir_all(&root)?;
        let guard = Guard::start(&File::open(&base.0)?.into(), &id)?;
        let fork = guard.line.try_clone()?;
        Ok(Self { base, root, guard, fork })
    }
}

/// Whether the directory goes, with time for a busy machine.
fn goes(path: &Path) -> bool {
    let until = Instant::now() + Duration::from_secs(10);
    while path.exists() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    !path.exists()
}

#[test]
#[cfg_attr(miri, ignore = "makes system calls that Miri lacks")]
fn a_guard_that_is_to_stay_acts_at_once_though_a_fork_holds_the_line() -> Outcome {
    let Stage { base, root, mut guard, fork } = Stage::set("stay")?;
    assert!(guard.is_alive() && guard.pid() != 0);
    guard.stay();
    let pidfd = guard.process.pidfd.try_clone()?;
    // Not killed by it.
    drop(guard);
    assert!(goes(&root), "the guard has not acted");
    assert!(poll::ended(pidfd.as_fd(), Some(Instant::now() + Duration::from_secs(10)))?);
    sys::reap(pidfd.as_fd())?;
    drop(fork);
    drop(base);
    Ok(())
}

#[test]
#[cfg_attr(miri, ignore = "makes system calls that Miri lacks")]
fn a_guard_that_is_let_go_waits_for_its_owner() -> Outcome {
    let Stage { base, root, mut guard, fork } = Stage::set("let-go")?;
    guard.let_go();
    let pidfd = guard.process.pidfd.try_clone()?;
    drop(guard);
    assert!(!poll::ended(pidfd.as_fd(), Some(Instant::now() + Duration::from_millis(50)))?);
    assert!(root.exists());
    drop(fork);
    assert!(goes(&root), "the guard has not acted");
    assert!(poll::ended(pidfd.as_fd(), Some(Instant::now() + Duration::from_secs(10)))?);
    sys::reap(pidfd.as_fd())?;
    drop(base);
    Ok(())
}

#[test]
#[cfg_attr(miri, ignore = "makes system calls that Miri lacks")]
fn a_guard_ends_with_its_handle_and_leaves_no_zombie() -> Outcome {
    let Stage { base, root, guard, fork } = Stage::set("drop")?;
    let process = PathBuf::from(format!("/proc/{}", guard.pid()));
    assert!(process.exists());
    drop(guard);
    assert!(!process.exists());
    assert!(root.exists(), "it was killed before the line's end");
    drop(fork);
    drop(base);
    Ok(())
}

#[test]
#[cfg_attr(miri, ignore = "makes system calls that Miri lacks")]
fn a_guard_that_was_killed_is_known_to_be_dead() -> Outcome {
    let Stage { base, guard, .. } = Stage::set("killed")?;
    let pidfd = guard.process.pidfd.as_fd();
    sys::pidfd_send_signal(pidfd, libc::SIGKILL)?;
    assert!(poll::ended(pidfd, Some(Instant::now() + Duration::from_secs(10)))?);
    assert!(!guard.is_alive());
    drop(base);
    Ok(())
}
