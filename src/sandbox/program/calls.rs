//! The system calls of the set-up program: raw, since it has no libc. They return what the kernel
//! returns: a negative value is an errno.
//!
//! # Safety
//! Each pointer that is handed to the kernel is valid for its one call; the kernel checks the rest.
#![expect(unsafe_code, reason = "system calls without libc")]

use crate::bare;
pub(crate) use crate::bare::numbers as nr;
pub(crate) use crate::bare::numbers::{O_CLOEXEC as CLOEXEC, O_PATH as PATH_ONLY};
pub(crate) use crate::bare::{at, exit, int as number, into};

pub(crate) const ENOENT: isize = -2;
pub(crate) const EIO: isize = -5;
pub(crate) const EACCES: isize = -13;
pub(crate) const ENAMETOOLONG: isize = -36;
pub(crate) const ENODEV: isize = -19;
pub(crate) const ENOTDIR: isize = -20;
pub(crate) const EINVAL: isize = -22;
pub(crate) const ETIMEDOUT: isize = -110;
pub(crate) const ESTALE: isize = -116;

pub(crate) const AT_CWD: usize = -100isize as usize;
pub(crate) const AT_EMPTY_PATH: usize = 0x1000;
pub(crate) const AT_RECURSIVE: usize = 0x8000;

/// Makes a call whose arguments are numbers, or addresses that are valid across it.
pub(crate) fn call<const N: usize>(number: usize, args: [usize; N]) -> isize {
    // SAFETY: each caller keeps the line above.
    unsafe { bare::call(number, args) }
}

pub(crate) fn close(fd: usize) {
    call(nr::CLOSE, [fd]);
}

pub(crate) fn prctl(option: usize, value: usize) -> isize {
    call(nr::PRCTL, [option, value])
}

/// Sets a signal to be ignored (1) or to the default (0).
pub(crate) fn dispose(signal: usize, handler: usize) -> isize {
    let new = [handler, 0, 0, 0, 0, 0, 0, 0];
    call(nr::RT_SIGACTION, [signal, at(&new), 0, 8])
}

/// Opens a path without symbolic links in it; below `dir`, unless that is [`AT_CWD`].
pub(crate) fn open_plain(dir: usize, path: usize, flags: usize) -> isize {
    const NO_MAGIC_LINKS: u64 = 2;
    const NO_SYMLINKS: u64 = 4;
    const BENEATH: u64 = 8;
    let beneath = if dir == AT_CWD { 0 } else { BENEATH };
    let how = [(flags | CLOEXEC) as u64, 0, NO_MAGIC_LINKS | NO_SYMLINKS | beneath];
    call(nr::OPENAT2, [dir, path, at(&how), size_of_val(&how)])
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
        match call(nr::STATX, [fd, empty, AT_EMPTY_PATH, WANTED, into(&mut all)]) {
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
