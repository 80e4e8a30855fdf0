//! Tests of the guard's system calls, in directories of their own instead of cgroups.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::Mode;
use nix::unistd::{Uid, geteuid, mkfifo, setfsuid};

use super::calls::{self, DIRECTORY, READ, WRITE};
use super::*;
use crate::sys::pass;

/// A directory that goes with the test.
pub(super) struct Ground {
    pub(super) path: PathBuf,
    pub(super) dir: File,
}

impl Ground {
    pub(super) fn new(name: &str) -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("tidy-{name}-{}", std::process::id()));
        fs::create_dir(&path)?;
        let dir = File::open(&path)?;
        Ok(Self { path, dir })
    }

    pub(super) fn fd(&self) -> i32 {
        self.dir.as_raw_fd()
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Runs in a thread of its own, as an ordinary user to the file system: one whom modes stop.
pub(super) fn as_ordinary<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let ordinary = || {
        if geteuid().is_root() {
            setfsuid(Uid::from_raw(ORDINARY));
        }
        work()
    };
    let panicked = |_| io::Error::other("it has panicked");
    std::thread::scope(|scope| scope.spawn(ordinary).join().map_err(panicked))?
}

const ORDINARY: u32 = 65534;

/// Gives the path to the ordinary user.
pub(super) fn hand_over(path: &Path) -> io::Result<()> {
    match geteuid().is_root() {
        true => std::os::unix::fs::lchown(path, Some(ORDINARY), None),
        false => Ok(()),
    }
}

/// The mode of what the path names.
pub(super) fn mode(path: &Path) -> io::Result<u32> {
    Ok(fs::symlink_metadata(path)?.permissions().mode() & 0o777)
}

#[test]
fn a_run_root_is_named_by_its_id_and_stays_in_the_base() {
    let named = |id: &str| {
        let id = CString::new(id).unwrap_or_default();
        let mut buffer = [0; 64];
        name(&id, &mut buffer).map(|name| name.to_string_lossy().into_owned())
    };
    assert_eq!(named("12-0123abcd").as_deref(), Some("tidy-process-12-0123abcd"));
    assert_eq!(named(""), Some("tidy-process-".to_owned()));
    assert_eq!((named("../x"), named("a/b")), (None, None));
    let longest = 64 - PREFIX.len() - 1;
    assert!(named(&"x".repeat(longest)).is_some_and(|name| name.len() == 63));
    assert_eq!(named(&"x".repeat(longest + 1)), None);
}

/// A fd that is closed at once; the error is the kernel's.
fn opened(answer: Result<i32, isize>) -> Result<(), isize> {
    answer.map(calls::close)
}

/// As where a seccomp filter of old knows nothing of openat2.
#[test]
#[cfg_attr(miri, ignore = "makes system calls that Miri lacks")]
fn without_openat2_files_are_opened_and_links_mounts_and_fifos_are_not() -> io::Result<()> {
    let ground = Ground::new("old-filter")?;
    fs::write(ground.path.join("cgroup.procs"), "7\n")?;
    fs::create_dir(ground.path.join("below"))?;
    symlink("cgroup.procs", ground.path.join("link"))?;
    mkfifo(&ground.path.join("fifo"), Mode::S_IRWXU)?;
    for open in [calls::open_at, calls::open_in] {
        let file = open(ground.fd(), c"cgroup.procs", WRITE).unwrap_or(-1);
        assert_eq!(calls::write(file, b"8"), 1);
        calls::close(file);
        let file = open(ground.fd(), c"cgroup.procs", READ).unwrap_or(-1);
        assert_eq!(listing::Pids::of(file).next(), Some(8));
        calls::close(file);
        assert_eq!(opened(open(ground.fd(), c"below", DIRECTORY)), Ok(()));
        assert_eq!(opened(open(ground.fd(), c"cgroup.procs", DIRECTORY)), Err(-20));
        assert_eq!(opened(open(ground.fd(), c"link", READ)), Err(-40));
        assert_eq!(opened(open(ground.fd(), c"absent", READ)), Err(calls::ENOENT));
        let root = File::open("/")?;
        assert_eq!(opened(open(root.as_raw_fd(), c"proc", DIRECTORY)), Err(calls::EXDEV));
    }
    // Does not wait for the other end.
    assert_eq!(opened(calls::open_at(ground.fd(), c"fifo", READ)), Ok(()));
    Ok(())
}

#[test]
#[cfg_attr(miri, ignore = "makes system calls that Miri lacks")]
fn a_message_brings_three_fds_or_none() -> io::Result<()> {
    let (line, owner) = UnixStream::pair()?;
    crate::sys::send(owner.as_fd(), b'm')?;
    assert_eq!(calls::receive(line.as_raw_fd()), (1, [-1; 3]));
    let files = [File::open("/")?, File::open("/dev/null")?, File::open("/proc/self/stat")?];
    pass::send_fds(owner.as_fd(), b'm', files.each_ref().map(AsRawFd::as_raw_fd))?;
    let (len, fds) = calls::receive(line.as_raw_fd());
    assert_eq!(len, 1);
    for (fd, file) in fds.into_iter().zip(&files) {
        let found = fs::metadata(format!("/proc/self/fd/{fd}"))?;
        assert_eq!((found.dev(), found.ino()), (file.metadata()?.dev(), file.metadata()?.ino()));
        calls::close(fd);
    }
    drop(owner);
    assert_eq!(calls::receive(line.as_raw_fd()), (0, [-1; 3]));
    Ok(())
}

/// What does not fit is not taken: it would stay open for ever.
#[test]
#[cfg_attr(miri, ignore = "makes system calls that Miri lacks")]
fn a_fourth_fd_is_not_taken() -> io::Result<()> {
    let (line, owner) = UnixStream::pair()?;
    let (mut reader, writer) = io::pipe()?;
    let [a, b, c] = [File::open("/")?, File::open("/")?, File::open("/")?];
    let four = [a.as_raw_fd(), b.as_raw_fd(), c.as_raw_fd(), writer.as_raw_fd()];
    pass::send_fds(owner.as_fd(), b'm', four)?;
    let (len, fds) = calls::receive(line.as_raw_fd());
    assert_eq!(len, 1);
    fds.into_iter().for_each(calls::close);
    drop(writer);
    crate::sys::poll::readable(reader.as_fd(), Some(std::time::Instant::now()))?;
    crate::exec::stdio::set_nonblocking(&reader.as_fd().try_clone_to_owned()?)?;
    assert_eq!(io::Read::read(&mut reader, &mut [0])?, 0);
    Ok(())
}

/// Fds are scarce in an owner with a low limit, and its guard has the same one.
#[test]
#[cfg_attr(miri, ignore = "makes system calls that Miri lacks")]
fn the_guard_takes_the_highest_limit_of_fds() -> io::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, soft.min(hard - 1), hard)?;
    let settled = std::thread::spawn(|| {
        calls::settle();
        fs::read_to_string("/proc/thread-self/comm")
    });
    let name = settled.join().map_err(|_| io::Error::other("it has panicked"))??;
    assert_eq!((getrlimit(Resource::RLIMIT_NOFILE)?, name.trim()), ((hard, hard), "tidy-guard"));
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?;
    Ok(())
}

#[test]
#[cfg_attr(miri, ignore = "makes system calls that Miri lacks")]
fn what_a_mount_hides_is_found_below_it() -> io::Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let ground = Ground::new("hidden")?;
    let below = ground.path.join("below");
    fs::create_dir_all(below.join("covered"))?;
    with_a_mount_over(&below, || {
        let dir = File::open(&ground.path)?;
        let hidden = calls::open_in(dir.as_raw_fd(), c"below", DIRECTORY);
        assert_eq!(hidden.map(calls::close), Err(calls::EXDEV));
        let bare = calls::open_below_mounts(dir.as_raw_fd()).unwrap_or(-1);
        let found = calls::open_in(bare, c"below", DIRECTORY).unwrap_or(-1);
        assert!(calls::is_here(found, c"covered") && !calls::is_here(found, c"absent"));
        [bare, found].into_iter().for_each(calls::close);
        Ok(())
    })
}

/// Acts where an empty file system hides the directory, which nothing else sees.
pub(super) fn with_a_mount_over(
    path: &Path,
    act: impl FnOnce() -> io::Result<()> + Send,
) -> io::Result<()> {
    let apart = || {
        unshare(CloneFlags::CLONE_NEWNS)?;
        assert!(Command::new("mount").args(["--make-rprivate", "/"]).status()?.success());
        let mounted = Command::new("mount").args(["-t", "tmpfs", "none"]).arg(path).status()?;
        assert!(mounted.success());
        act()
    };
    let panicked = |_| io::Error::other("it has panicked");
    std::thread::scope(|scope| scope.spawn(apart).join().map_err(panicked))?
}
