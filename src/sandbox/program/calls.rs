//! The system calls of the set-up program: raw, since it has no libc. They return what the kernel
//! returns: a negative value is an errno.
//!
//! # Safety
//! Each pointer that is handed to the kernel is valid for its one call; the kernel checks the rest.
#![expect(unsafe_code, reason = "system calls without libc")]

pub(crate) const ENOENT: isize = -2;
pub(crate) const EIO: isize = -5;
pub(crate) const EACCES: isize = -13;
pub(crate) const ENAMETOOLONG: isize = -36;
pub(crate) const ENODEV: isize = -19;
pub(crate) const ENOTDIR: isize = -20;
pub(crate) const EINVAL: isize = -22;
pub(crate) const ETIMEDOUT: isize = -110;
pub(crate) const ESTALE: isize = -116;

#[cfg(target_arch = "x86_64")]
pub(crate) mod nr {
    pub(crate) const READ: usize = 0;
    pub(crate) const WRITE: usize = 1;
    pub(crate) const CLOSE: usize = 3;
    pub(crate) const MMAP: usize = 9;
    pub(crate) const RT_SIGACTION: usize = 13;
    pub(crate) const RT_SIGPROCMASK: usize = 14;
    pub(crate) const IOCTL: usize = 16;
    pub(crate) const SOCKET: usize = 41;
    pub(crate) const SENDMSG: usize = 46;
    pub(crate) const BIND: usize = 49;
    pub(crate) const LISTEN: usize = 50;
    pub(crate) const CLONE: usize = 56;
    pub(crate) const EXECVE: usize = 59;
    pub(crate) const WAIT4: usize = 61;
    pub(crate) const FCHMOD: usize = 91;
    pub(crate) const FCNTL: usize = 72;
    pub(crate) const CHDIR: usize = 80;
    pub(crate) const FCHDIR: usize = 81;
    pub(crate) const SETPGID: usize = 109;
    pub(crate) const SETSID: usize = 112;
    pub(crate) const SETGROUPS: usize = 116;
    pub(crate) const SETRESUID: usize = 117;
    pub(crate) const SETRESGID: usize = 119;
    pub(crate) const CAPSET: usize = 126;
    pub(crate) const PIVOT_ROOT: usize = 155;
    pub(crate) const PRCTL: usize = 157;
    pub(crate) const UMOUNT2: usize = 166;
    pub(crate) const EXIT_GROUP: usize = 231;
    pub(crate) const OPENAT: usize = 257;
    pub(crate) const MKDIRAT: usize = 258;
    pub(crate) const MKNODAT: usize = 259;
    pub(crate) const UNLINKAT: usize = 263;
    pub(crate) const SYMLINKAT: usize = 266;
    pub(crate) const FUTEX: usize = 202;
    pub(crate) const PPOLL: usize = 271;
    pub(crate) const UNSHARE: usize = 272;
    pub(crate) const PIPE2: usize = 293;
    pub(crate) const PRLIMIT64: usize = 302;
    pub(crate) const SETNS: usize = 308;
    pub(crate) const SECCOMP: usize = 317;
    pub(crate) const STATX: usize = 332;
    pub(crate) use super::new::*;
}

#[cfg(target_arch = "aarch64")]
pub(crate) mod nr {
    pub(crate) const SETPGID: usize = 154;
    pub(crate) const BIND: usize = 200;
    pub(crate) const CAPSET: usize = 91;
    pub(crate) const CHDIR: usize = 49;
    pub(crate) const CLONE: usize = 220;
    pub(crate) const CLOSE: usize = 57;
    pub(crate) const EXECVE: usize = 221;
    pub(crate) const EXIT_GROUP: usize = 94;
    pub(crate) const FCHDIR: usize = 50;
    pub(crate) const FCHMOD: usize = 52;
    pub(crate) const FCNTL: usize = 25;
    pub(crate) const FUTEX: usize = 98;
    pub(crate) const IOCTL: usize = 29;
    pub(crate) const LISTEN: usize = 201;
    pub(crate) const MKDIRAT: usize = 34;
    pub(crate) const MKNODAT: usize = 33;
    pub(crate) const MMAP: usize = 222;
    pub(crate) const OPENAT: usize = 56;
    pub(crate) const PIPE2: usize = 59;
    pub(crate) const PIVOT_ROOT: usize = 41;
    pub(crate) const PPOLL: usize = 73;
    pub(crate) const PRCTL: usize = 167;
    pub(crate) const PRLIMIT64: usize = 261;
    pub(crate) const READ: usize = 63;
    pub(crate) const RT_SIGACTION: usize = 134;
    pub(crate) const RT_SIGPROCMASK: usize = 135;
    pub(crate) const SECCOMP: usize = 277;
    pub(crate) const SENDMSG: usize = 211;
    pub(crate) const SETGROUPS: usize = 159;
    pub(crate) const SETNS: usize = 268;
    pub(crate) const SETRESGID: usize = 149;
    pub(crate) const SETRESUID: usize = 147;
    pub(crate) const SETSID: usize = 157;
    pub(crate) const SOCKET: usize = 198;
    pub(crate) const STATX: usize = 291;
    pub(crate) const SYMLINKAT: usize = 36;
    pub(crate) const UMOUNT2: usize = 39;
    pub(crate) const UNLINKAT: usize = 35;
    pub(crate) const UNSHARE: usize = 97;
    pub(crate) const WAIT4: usize = 260;
    pub(crate) const WRITE: usize = 64;
    pub(crate) use super::new::*;
}

/// These have one number on all machines.
mod new {
    pub(crate) const OPEN_TREE: usize = 428;
    pub(crate) const MOVE_MOUNT: usize = 429;
    pub(crate) const FSOPEN: usize = 430;
    pub(crate) const FSCONFIG: usize = 431;
    pub(crate) const FSMOUNT: usize = 432;
    pub(crate) const PIDFD_OPEN: usize = 434;
    pub(crate) const CLOSE_RANGE: usize = 436;
    pub(crate) const OPENAT2: usize = 437;
    pub(crate) const MOUNT_SETATTR: usize = 442;
    pub(crate) const LANDLOCK_RESTRICT_SELF: usize = 446;
}

pub(crate) const PATH_ONLY: usize = 0o10_000_000;
pub(crate) const CLOEXEC: usize = 0o2_000_000;
pub(crate) const AT_CWD: usize = -100isize as usize;
pub(crate) const AT_EMPTY_PATH: usize = 0x1000;
pub(crate) const AT_RECURSIVE: usize = 0x8000;

/// Makes a call whose arguments are numbers, or addresses that are valid across it.
#[cfg(target_arch = "x86_64")]
pub(crate) fn call(number: usize, args: [usize; 6]) -> isize {
    let answer: isize;
    let [a, b, c, d, e, f] = args;
    // SAFETY: each caller keeps the line above; the call clobbers rax, rcx and r11 only.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") number => answer,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    answer
}

#[cfg(target_arch = "aarch64")]
pub(crate) fn call(number: usize, args: [usize; 6]) -> isize {
    let answer: isize;
    let [a, b, c, d, e, f] = args;
    // SAFETY: each caller keeps the line above; the call clobbers x0 only.
    unsafe {
        core::arch::asm!(
            "svc #0",
            in("x8") number,
            inlateout("x0") a as isize => answer,
            in("x1") b, in("x2") c, in("x3") d, in("x4") e, in("x5") f,
            options(nostack),
        );
    }
    answer
}

pub(crate) fn at<T: ?Sized>(place: &T) -> usize {
    core::ptr::from_ref(place).cast::<u8>().expose_provenance()
}

pub(crate) fn into<T: ?Sized>(place: &mut T) -> usize {
    core::ptr::from_mut(place).cast::<u8>().expose_provenance()
}

pub(crate) const fn number(fd: i32) -> usize {
    fd as isize as usize
}

pub(crate) fn exit(status: i32) -> ! {
    loop {
        call(nr::EXIT_GROUP, [number(status), 0, 0, 0, 0, 0]);
    }
}

pub(crate) fn close(fd: usize) {
    call(nr::CLOSE, [fd, 0, 0, 0, 0, 0]);
}

pub(crate) fn prctl(option: usize, value: usize) -> isize {
    call(nr::PRCTL, [option, value, 0, 0, 0, 0])
}

/// Sets a signal to be ignored (1) or to the default (0).
pub(crate) fn dispose(signal: usize, handler: usize) -> isize {
    let new = [handler, 0, 0, 0, 0, 0, 0, 0];
    call(nr::RT_SIGACTION, [signal, at(&new), 0, 8, 0, 0])
}

/// Opens a path without symbolic links in it; below `dir`, unless that is [`AT_CWD`].
pub(crate) fn open_plain(dir: usize, path: usize, flags: usize) -> isize {
    const NO_MAGIC_LINKS: u64 = 2;
    const NO_SYMLINKS: u64 = 4;
    const BENEATH: u64 = 8;
    let beneath = if dir == AT_CWD { 0 } else { BENEATH };
    let how = [(flags | CLOEXEC) as u64, 0, NO_MAGIC_LINKS | NO_SYMLINKS | beneath];
    call(nr::OPENAT2, [dir, path, at(&how), size_of_val(&how), 0, 0])
}

/// Facts from statx(2) about an open file.
pub(crate) struct Facts {
    pub(crate) is_dir: bool,
    /// Whether it is the root of a mount.
    pub(crate) is_mount: bool,
    pub(crate) device: u64,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Permissions.
    pub(crate) mode: usize,
}

impl Facts {
    pub(crate) fn of(fd: usize) -> Result<Self, isize> {
        const WANTED: usize = 0x1 | 0x2 | 0x8 | 0x10;
        const MOUNT_ROOT: u64 = 0x2000;
        // 256 bytes: attributes at 8, uid at 20, gid at 24, mode at 28, device at 136 (two words).
        let mut all = [0u64; 32];
        let empty = c"".as_ptr().expose_provenance();
        match call(nr::STATX, [fd, empty, AT_EMPTY_PATH, WANTED, into(&mut all), 0]) {
            0 => {}
            errno => return Err(errno),
        }
        let word = |place: usize| all.get(place).copied().unwrap_or(0);
        // The second number is the upper word, on little-endian machines; mode has half of it.
        let mode = (word(3) >> 32) as usize & 0o177_777;
        Ok(Self {
            is_dir: mode & 0o170_000 == 0o40_000,
            is_mount: word(1) & MOUNT_ROOT != 0,
            device: word(17),
            uid: (word(2) >> 32) as u32,
            gid: word(3) as u32,
            mode: mode & 0o1777,
        })
    }
}

/// The string at an address, which ends in NUL.
pub(crate) fn length(string: usize) -> usize {
    let mut len = 0;
    // SAFETY: addresses of strings come from the kernel or the plan, and their ends from there too.
    while unsafe { core::ptr::with_exposed_provenance::<u8>(string + len).read() } != 0 {
        len += 1;
    }
    len
}

/// The byte at an address within a string.
pub(crate) fn byte(place: usize) -> u8 {
    // SAFETY: as above.
    unsafe { core::ptr::with_exposed_provenance::<u8>(place).read() }
}

/// A value of the plan, or a pointer in a list of the kernel's.
///
/// # Safety
/// There is one at this address.
pub(crate) unsafe fn value<T: Copy>(place: usize) -> T {
    // SAFETY: the caller's obligation.
    unsafe { core::ptr::with_exposed_provenance::<T>(place).read() }
}
