//! Tests of the steps of a teardown, in directories and with files instead of a cgroup's.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use nix::sys::stat::{Mode, fstat};
use nix::unistd::{geteuid, mkfifo};

use super::super::tests::{Ground, as_ordinary, hand_over, with_a_mount_over};
use super::*;

/// Fds of a run root whose `cgroup.events` is this.
fn with_events(text: &str) -> io::Result<(RunRootFds, File)> {
    let flags = nix::sys::memfd::MFdFlags::MFD_CLOEXEC;
    let mut file = File::from(nix::sys::memfd::memfd_create(c"events", flags)?);
    file.write_all(text.as_bytes())?;
    Ok((RunRootFds { events: file.as_raw_fd(), ..RunRootFds::default() }, file))
}

#[test]
#[cfg_attr(miri, ignore = "makes system calls that Miri lacks")]
fn events_are_read_anew_and_waited_for_in_time() -> io::Result<()> {
    let (held, _file) = with_events("populated 1\nfrozen 0\n")?;
    for _ in 0..2 {
        assert!(held.says(b"populated 1") && held.says(b"frozen 0"));
        assert!(!held.says(b"populated 0") && !held.says(b"frozen 1"));
    }
    let start = calls::now();
    assert!(held.wait_until(b"populated 1", true, 10_000 * MILLISECOND));
    assert!(held.wait_until(b"frozen 1", false, 10_000 * MILLISECOND));
    assert!(calls::now() - start < 5_000 * MILLISECOND);
    let start = calls::now();
    assert!(!held.wait_until(b"populated 1", false, 20 * MILLISECOND));
    let took = calls::now() - start;
    assert!((20 * MILLISECOND..5_000 * MILLISECOND).contains(&took), "{took}");
    // What cannot be read says nothing.
    assert!(!RunRootFds::default().says(b"populated 0"));
    Ok(())
}

#[test]
fn what_the_owner_has_sent_first_is_kept() {
    let mut held = RunRootFds::default();
    held.take([-1, 7, 8]);
    held.take([4, 5, 6]);
    held.take([9, 10, 11]);
    assert_eq!((held.dir, held.kill, held.events), (4, 5, 6));
}

#[test]
#[cfg_attr(miri, ignore = "makes system calls that Miri lacks")]
fn what_the_owner_has_not_sent_is_opened() -> io::Result<()> {
    let ground = Ground::new("not-sent")?;
    let bare = || RunRootFds { dir: ground.fd(), ..RunRootFds::default() };
    // Neither is there: a later round tries again.
    let mut held = bare();
    assert_eq!((held.open(c"x"), held.kill, held.events), (0, -1, -1));
    fs::write(ground.path.join("cgroup.kill"), "")?;
    fs::write(ground.path.join("cgroup.events"), "populated 1\n")?;
    assert_eq!(held.open(c"x"), 0);
    assert!(held.says(b"populated 1"));
    assert_eq!(calls::write(held.kill, b"1"), 1);
    let first = (held.kill, held.events);
    assert_eq!((held.open(c"x"), (held.kill, held.events)), (0, first));
    [held.kill, held.events].into_iter().for_each(calls::close);
    // The base is no directory here.
    assert!(RunRootFds::default().open(c"x") < 0);
    Ok(())
}

fn sleeper() -> io::Result<std::process::Child> {
    Command::new("sleep").arg("60").spawn()
}

/// Whether it was killed: waits for it, but not for long.
fn is_killed(process: &mut std::process::Child) -> io::Result<bool> {
    for _ in 0..100 {
        if process.try_wait()?.is_some() {
            return Ok(true);
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    Ok(false)
}

/// A whole batch of pids that are all there, and processes one directory below.
#[test]
#[cfg_attr(miri, ignore = "makes system calls that Miri lacks")]
fn all_that_are_listed_are_frozen_and_killed() -> io::Result<()> {
    let ground = Ground::new("listed")?;
    let below = ground.path.join("below");
    fs::create_dir(&below)?;
    let mut members = [sleeper()?, sleeper()?];
    let [first, second] = members.each_ref().map(|member| format!("{}\n", member.id()));
    fs::write(ground.path.join("cgroup.procs"), first.repeat(PIDFD_BATCH))?;
    fs::write(below.join("cgroup.procs"), second)?;
    fs::write(ground.path.join("cgroup.freeze"), "0")?;
    let held = RunRootFds { dir: ground.fd(), ..RunRootFds::default() };
    Teardown::new(c"x", held).freeze_and_kill();
    for member in &mut members {
        assert!(is_killed(member)?, "{} lives", member.id());
    }
    assert_eq!(fs::read(ground.path.join("cgroup.freeze"))?, b"1");
    Ok(())
}

#[test]
#[cfg_attr(miri, ignore = "makes system calls that Miri lacks")]
fn what_a_mount_hides_is_killed_too() -> io::Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let ground = Ground::new("covered")?;
    let below = ground.path.join("below");
    fs::create_dir(&below)?;
    let mut member = sleeper()?;
    fs::write(ground.path.join("cgroup.procs"), "")?;
    fs::write(below.join("cgroup.procs"), format!("{}\n", member.id()))?;
    with_a_mount_over(&below, || {
        let dir = File::open(&ground.path)?;
        let held = RunRootFds { dir: dir.as_raw_fd(), ..RunRootFds::default() };
        Teardown::new(c"x", held).freeze_and_kill();
        assert!(is_killed(&mut member)?, "it lives");
        Ok(())
    })
}

/// The list says one pid first, and then another: the number may be a stranger's by now.
#[test]
#[cfg_attr(miri, ignore = "makes system calls that Miri lacks")]
fn a_pid_that_is_no_longer_listed_is_left_alone() -> io::Result<()> {
    let ground = Ground::new("relisted")?;
    let list = ground.path.join("cgroup.procs");
    mkfifo(&list, Mode::S_IRWXU)?;
    let mut stranger = sleeper()?;
    let pid = format!("{}\n", stranger.id());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            fs::write(&list, pid)?;
            while !done.load(Relaxed) {
                // Leaves the reader a moment without a writer: the end of the first list.
                std::thread::sleep(std::time::Duration::from_millis(1));
                let flags = nix::fcntl::OFlag::O_WRONLY | nix::fcntl::OFlag::O_NONBLOCK;
                if let Ok(fd) = nix::fcntl::open(&list, flags, Mode::empty()) {
                    let _ = nix::unistd::write(fd, b"0\n");
                }
            }
            io::Result::Ok(())
        });
        kill_listed(ground.fd());
        done.store(true, Relaxed);
        other.join().map_err(|_| io::Error::other("it has panicked"))?
    })?;
    assert!(!is_killed(&mut stranger)?, "a stranger was killed");
    stranger.kill()?;
    stranger.wait().map(drop)
}

/// No pidfd can be had for a pid that is gone; what comes instead is no fd of the guard's.
#[test]
#[cfg_attr(miri, ignore = "makes system calls that Miri lacks")]
fn a_pid_that_is_gone_costs_no_fd() -> io::Result<()> {
    let ground = Ground::new("gone")?;
    fs::write(ground.path.join("cgroup.procs"), "2147483647\n")?;
    let base = || fstat(io::stdout()).map(|stat| (stat.st_dev, stat.st_ino));
    let before = base()?;
    kill_listed(ground.fd());
    assert_eq!(base()?, before);
    Ok(())
}

/// Directories that an ordinary user's workload has closed to removal.
#[test]
#[cfg_attr(miri, ignore = "makes system calls that Miri lacks")]
fn closed_directories_are_removed() -> io::Result<()> {
    let ground = Ground::new("closed")?;
    let paths = ["a", "a/b", "a/b/c", "a/d"].map(|path| ground.path.join(path));
    for path in &paths {
        fs::create_dir(path)?;
        hand_over(path)?;
    }
    hand_over(&ground.path)?;
    for path in paths.iter().rev() {
        fs::set_permissions(path, Permissions::from_mode(0o500))?;
    }
    fs::set_permissions(&ground.path, Permissions::from_mode(0o500))?;
    as_ordinary(|| {
        walk(ground.fd(), &mut Remover);
        Ok(())
    })?;
    assert_eq!(fs::read_dir(&ground.path)?.count(), 0);
    Ok(())
}
