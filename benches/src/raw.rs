//! The limit: the system calls that a command in a fresh cgroup cannot do without, and no more. No
//! look-up of the program, no error channel, no deadline, no second kill, no report.
//!
//! # Safety
//! The child runs two system calls in registers alone, on nobody's stack.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::thread;
use std::time::Duration;

use crate::Res;

const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// A directory in which cgroups may be made.
pub(crate) struct Raw {
    base: OwnedFd,
    environment: Vec<CString>,
}

/// A cgroup, and what its teardown needs.
pub(crate) struct RawCgroup<'a> {
    raw: &'a Raw,
    name: &'a CStr,
    dir: OwnedFd,
}

impl Raw {
    pub(crate) fn new(base: &Path) -> Res<Self> {
        let base = CString::new(base.as_os_str().as_bytes())?;
        let environment = std::env::vars_os()
            .map(|(key, value)| CString::new([key.as_bytes(), b"=", value.as_bytes()].concat()));
        Ok(Self {
            base: open(libc::AT_FDCWD, &base, libc::O_RDONLY | libc::O_DIRECTORY)?,
            environment: environment.collect::<Result<_, _>>()?,
        })
    }

    /// mkdir, clone3 + execve, waitid, cgroup.kill, rmdir.
    pub(crate) fn cycle(&self, name: &CStr, args: &[&CStr]) -> Res {
        let cgroup = self.make(name)?;
        let pid = cgroup.spawn(c"/bin/true", args)?;
        reap(pid)?;
        cgroup.teardown()
    }

    /// What tidy-process asks the kernel for in a cycle, in its order, and nothing of its own: what
    /// a report, a pidfd and a teardown that needs no fd but those it has cost. The child's three
    /// calls are left out, and vfork's wait stands for the one that has an end.
    pub(crate) fn cycle_with_all(&self, name: &CStr, stat: &CStr) -> Res {
        let cgroup = self.make(name)?;
        let kill = cgroup.kill_file()?;
        let events = open(cgroup.dir.as_raw_fd(), c"cgroup.events", libc::O_RDONLY)?;
        let old = block_signals()?;
        let (pid, pidfd) = cgroup.spawn_with_pidfd(c"/bin/true")?;
        set_signals(&old)?;
        drop(cgroup);
        reap(pid)?;
        read_some(&events)?;
        read_some(&open(self.base.as_raw_fd(), stat, libc::O_RDONLY)?)?;
        // SAFETY: a string that ends in NUL.
        let removed =
            unsafe { libc::unlinkat(self.base.as_raw_fd(), name.as_ptr(), libc::AT_REMOVEDIR) };
        check(removed)?;
        drop((pidfd, kill, events));
        Ok(())
    }

    pub(crate) fn make<'a>(&'a self, name: &'a CStr) -> Res<RawCgroup<'a>> {
        // SAFETY: a string that ends in NUL.
        check(unsafe { libc::mkdirat(self.base.as_raw_fd(), name.as_ptr(), 0o755) })?;
        let dir = open(self.base.as_raw_fd(), name, libc::O_RDONLY | libc::O_DIRECTORY)?;
        Ok(RawCgroup { raw: self, name, dir })
    }
}

impl RawCgroup<'_> {
    /// The child is born in the cgroup and executes at once; says its pid.
    pub(crate) fn spawn(&self, program: &CStr, args: &[&CStr]) -> Res<i32> {
        self.clone_into(program, args, None)
    }

    fn spawn_with_pidfd(&self, program: &CStr) -> Res<(i32, OwnedFd)> {
        let mut fd = -1;
        let pid = self.clone_into(program, &[], Some(&mut fd))?;
        // SAFETY: the kernel has just opened it for us.
        Ok((pid, unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    fn clone_into(&self, program: &CStr, args: &[&CStr], pidfd: Option<&mut i32>) -> Res<i32> {
        let argv: Vec<_> =
            [program].iter().chain(args).map(|arg| arg.as_ptr()).chain([ptr::null()]).collect();
        let environment = self.raw.environment.iter().map(|entry| entry.as_ptr());
        let envp: Vec<_> = environment.chain([ptr::null()]).collect();
        // SAFETY: integers, for which zero means "not given".
        let mut clone: libc::clone_args = unsafe { std::mem::zeroed() };
        let flags = (libc::CLONE_VM | libc::CLONE_VFORK).cast_unsigned();
        clone.flags = u64::from(flags) | CLONE_CLEAR_SIGHAND | CLONE_INTO_CGROUP;
        if let Some(pidfd) = pidfd {
            clone.flags |= u64::from(libc::CLONE_PIDFD.cast_unsigned());
            clone.pidfd = ptr::from_mut(pidfd) as u64;
        }
        clone.exit_signal = libc::SIGCHLD as u64;
        clone.cgroup = self.dir.as_raw_fd() as u64;
        // SAFETY: all of it lives until the child has executed (CLONE_VFORK).
        let pid = unsafe { clone_and_exec(&clone, program.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
        if pid < 0 {
            return Err(io::Error::from_raw_os_error(i32::try_from(-pid)?).into());
        }
        Ok(i32::try_from(pid)?)
    }

    /// Kills what is in it, and removes it as soon as the kernel lets it go.
    pub(crate) fn teardown(&self) -> Res {
        let kill = self.kill_file()?;
        loop {
            write_one(&kill)?;
            if self.remove_within(Duration::from_millis(50))? {
                return Ok(());
            }
        }
    }

    pub(crate) fn kill_file(&self) -> Res<OwnedFd> {
        open(self.dir.as_raw_fd(), c"cgroup.kill", libc::O_WRONLY)
    }

    pub(crate) fn procs_file(&self) -> Res<OwnedFd> {
        open(self.dir.as_raw_fd(), c"cgroup.procs", libc::O_WRONLY)
    }

    fn remove_within(&self, time: Duration) -> Res<bool> {
        let start = std::time::Instant::now();
        loop {
            let base = self.raw.base.as_raw_fd();
            // SAFETY: a string that ends in NUL.
            let answer = unsafe { libc::unlinkat(base, self.name.as_ptr(), libc::AT_REMOVEDIR) };
            match check(answer) {
                Ok(_) => return Ok(true),
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
                Err(error) => return Err(error.into()),
            }
            if start.elapsed() > time {
                return Ok(false);
            }
            thread::sleep(Duration::from_micros(20));
        }
    }
}

pub(crate) fn write_one(file: &OwnedFd) -> Res {
    // SAFETY: one byte of a constant.
    check(i32::try_from(unsafe { libc::write(file.as_raw_fd(), c"1".as_ptr().cast(), 1) })?)?;
    Ok(())
}

fn read_some(file: &OwnedFd) -> Res {
    let mut text = [0u8; 512];
    // SAFETY: so many bytes are ours.
    let read = unsafe { libc::pread(file.as_raw_fd(), text.as_mut_ptr().cast(), text.len(), 0) };
    check(i32::try_from(read)?)?;
    Ok(())
}

fn block_signals() -> Res<libc::sigset_t> {
    // SAFETY: zeroed is a valid set, and both are writable.
    unsafe {
        let (mut all, mut old) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigfillset(&raw mut all);
        check(libc::sigprocmask(libc::SIG_SETMASK, &raw const all, &raw mut old))?;
        Ok(old)
    }
}

fn set_signals(set: &libc::sigset_t) -> Res {
    // SAFETY: a set that the kernel has written.
    check(unsafe { libc::sigprocmask(libc::SIG_SETMASK, set, ptr::null_mut()) })?;
    Ok(())
}

/// Waits for the end of a child, and takes its status.
pub(crate) fn reap(pid: i32) -> Res {
    // SAFETY: zeroed is a valid siginfo, and writable.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    check(unsafe { libc::waitid(libc::P_PID, pid.cast_unsigned(), &raw mut info, libc::WEXITED) })?;
    Ok(())
}

fn open(dir: i32, name: &CStr, flags: i32) -> Res<OwnedFd> {
    // SAFETY: a string that ends in NUL.
    let fd = check(unsafe { libc::openat(dir, name.as_ptr(), flags | libc::O_CLOEXEC) })?;
    // SAFETY: the kernel has just opened it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn check(answer: i32) -> io::Result<i32> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

/// Raises the limit of open files; says what it is then.
pub(crate) fn raise_files(wanted: u64) -> u64 {
    let limit = libc::rlimit { rlim_cur: wanted, rlim_max: wanted };
    // SAFETY: the kernel reads two integers.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes two integers.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut now) };
    now.rlim_cur
}

/// Makes a command of std's join a cgroup before its exec.
pub(crate) fn join_before_exec(command: &mut std::process::Command, procs: OwnedFd) {
    use std::os::unix::process::CommandExt;
    // SAFETY: one write(2) of a constant.
    unsafe { command.pre_exec(move || join(&procs)) };
}

fn join(procs: &OwnedFd) -> io::Result<()> {
    // SAFETY: "0" means the writing process itself.
    let written = unsafe { libc::write(procs.as_raw_fd(), c"0".as_ptr().cast(), 1) };
    if written == 1 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// 0 in a child that goes on with a copy of this process.
pub(crate) fn fork() -> i32 {
    // SAFETY: the victims have one thread.
    unsafe { libc::fork() }
}

#[cfg(target_arch = "x86_64")]
unsafe fn clone_and_exec(
    clone: &libc::clone_args,
    program: *const libc::c_char,
    argv: *const *const libc::c_char,
    envp: *const *const libc::c_char,
) -> i64 {
    let answer: i64;
    // SAFETY: the child's branch ends in execve or exit, and uses registers alone.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "mov rdi, r8",
            "mov rsi, r9",
            "mov rdx, r10",
            "mov eax, {execve}",
            "syscall",
            "mov edi, 127",
            "mov eax, {exit}",
            "syscall",
            "2:",
            execve = const libc::SYS_execve,
            exit = const libc::SYS_exit,
            inlateout("rax") libc::SYS_clone3 => answer,
            in("rdi") ptr::from_ref(clone),
            in("rsi") size_of::<libc::clone_args>(),
            in("r8") program,
            in("r9") argv,
            in("r10") envp,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    answer
}

#[cfg(target_arch = "aarch64")]
unsafe fn clone_and_exec(
    clone: &libc::clone_args,
    program: *const libc::c_char,
    argv: *const *const libc::c_char,
    envp: *const *const libc::c_char,
) -> i64 {
    let answer: i64;
    // SAFETY: the child's branch ends in execve or exit, and uses registers alone.
    unsafe {
        std::arch::asm!(
            "svc #0",
            "cbnz x0, 2f",
            "mov x0, x9",
            "mov x1, x10",
            "mov x2, x11",
            "mov x8, {execve}",
            "svc #0",
            "mov x0, #127",
            "mov x8, {exit}",
            "svc #0",
            "2:",
            execve = const libc::SYS_execve,
            exit = const libc::SYS_exit,
            in("x8") libc::SYS_clone3,
            inlateout("x0") ptr::from_ref(clone) as i64 => answer,
            in("x1") size_of::<libc::clone_args>(),
            in("x9") program,
            in("x10") argv,
            in("x11") envp,
        );
    }
    answer
}
