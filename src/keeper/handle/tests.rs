//! Tests of the owner's handle; the test plays the keeper.

use std::cell::Cell;
use std::io::{self, Write};
use std::process::{Child, Command};
use std::thread;

use super::*;

const SOON: Duration = Duration::from_secs(5);

/// A handle of a process that says nothing by itself, and the end of the line that is the keeper's.
struct Stage {
    kept: Kept,
    process: Child,
    line: UnixStream,
}

impl Stage {
    fn set() -> io::Result<Self> {
        let process = Command::new("sleep").arg("60").spawn()?;
        let (ours, line) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let ground = Arc::new(Ground::new()?);
        let keeper = sys::handle(process.id().cast_signed())?;
        Ok(Self { kept: Kept::new(keeper, &ground, ours.into()), process, line })
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn record(kind: u32, value: u32) -> [u8; 8] {
    ((u64::from(kind) << 32) | u64::from(value)).to_ne_bytes()
}

/// Help is asked for only while nothing is said.
#[test]
#[cfg_attr(miri, ignore = "makes system calls that Miri lacks")]
fn a_keeper_that_is_late_is_helped_until_it_is_given_up() -> io::Result<()> {
    let stage = Stage::set()?;
    // However this fails, the line ends.
    let end = stage.line.try_clone()?;
    let (done, over) = std::sync::mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            let _ = over.recv_timeout(SOON);
            let _ = end.shutdown(Shutdown::Both);
        });
        let helped = Cell::new(0);
        let help = || {
            helped.set(helped.get() + 1);
            if helped.get() % 2 == 0 { Answer::GiveUp } else { Answer::Wait }
        };
        assert_eq!(stage.kept.main_pid(help)?, None);
        assert!(stage.kept.main_pidfd(help)?.is_none());
        assert_eq!(helped.get(), 4);
        (&stage.line).write_all(&record(BORN, 7))?;
        assert_eq!(stage.kept.main_pid(help)?, Some(7));
        assert_eq!(helped.get(), 4);
        drop(done);
        Ok(())
    })
}

#[test]
#[cfg_attr(miri, ignore = "makes system calls that Miri lacks")]
fn a_main_process_that_lives_has_not_ended() -> io::Result<()> {
    let stage = Stage::set()?;
    let mut main = Command::new("sleep").arg("60").spawn()?;
    let handle = sys::handle(main.id().cast_signed())?;
    let ended = stage.kept.main_ended(handle.pidfd.as_fd(), None, Some(Instant::now()));
    main.kill()?;
    main.wait()?;
    assert!(!ended?);
    Ok(())
}

/// Another message than the main process's end: its pidfd says nothing here.
#[test]
#[cfg_attr(miri, ignore = "makes system calls that Miri lacks")]
fn a_status_that_comes_in_the_last_moment_is_no_timeout() -> io::Result<()> {
    let stage = Stage::set()?;
    let mut main = Command::new("sleep").arg("60").spawn()?;
    let handle = sys::handle(main.id().cast_signed())?;
    let deadline = Instant::now() + Duration::from_millis(300);
    let ended = thread::scope(|scope| {
        scope.spawn(|| {
            // Behind the look at what was said before the wait, and well before the deadline.
            thread::sleep(Duration::from_millis(50));
            (&stage.line).write_all(&record(ENDED, 0))
        });
        stage.kept.main_ended(handle.pidfd.as_fd(), None, Some(deadline))
    });
    main.kill()?;
    main.wait()?;
    assert!(ended?);
    Ok(())
}
