//! The births of init and main: siblings of this process, in its memory.
//!
//! A copy of even a small program's memory costs a spawn some 100 us: page tables, the pages that
//! are written after it, and their end. Each of the two has a stack of its own; what main reads
//! while it sets itself up is in frames of this process that are never left (`namespaces.rs`).
//!
//! # Safety
//! No process writes what another one uses: each writes to its own stack alone, and there is no
//! other memory; but for one atomic word (`view_news.rs`).
#![expect(unsafe_code, reason = "starts processes on stacks of their own")]

use crate::calls::{call, into, nr};

/// A function that a process starts in and never returns from.
pub(crate) type Entry<T> = extern "C" fn(&T) -> !;

/// Many times what each needs: both have some buffers of 512 bytes.
const OF_EACH: usize = 64 << 10;

/// The upper ends of both stacks. What overflows that of main meets nothing that is mapped.
pub(crate) struct Stacks {
    pub(crate) init: usize,
    pub(crate) main: usize,
}

impl Stacks {
    /// Maps them; `Err` is the errno.
    pub(crate) fn map() -> Result<Self, isize> {
        const READ_WRITE: usize = 3;
        const PRIVATE_ANONYMOUS: usize = 0x22;
        let no_file = usize::MAX;
        let len = 2 * OF_EACH;
        match call(nr::MMAP, [0, len, READ_WRITE, PRIVATE_ANONYMOUS, no_file]) {
            errno if errno < 0 => Err(errno),
            base => {
                Ok(Self { init: base.cast_unsigned() + len, main: base.cast_unsigned() + OF_EACH })
            }
        }
    }
}

/// Starts a process in this memory, as a child of this process's own parent, with a pidfd. Returns
/// its number, or the errno.
///
/// # Safety
/// `stack` is the upper end of a stack that nothing else uses; `arg` is valid for as long as the
/// process uses this memory, and this process never writes to it but atomically.
pub(crate) unsafe fn born_beside<T>(
    stack: usize,
    entry: Entry<T>,
    arg: &T,
    pidfd: &mut i32,
) -> isize {
    const MEMORY: usize = 0x100;
    const PIDFD: usize = 0x1000;
    const PARENT: usize = 0x8000;
    const SIGCHLD: usize = 17;
    let flags = MEMORY | PARENT | PIDFD | SIGCHLD;
    // SAFETY: the caller's obligation.
    unsafe { start([flags, stack, into(pidfd)], entry as usize, crate::calls::at(arg)) }
}

/// Makes clone(2). The child has all registers but that of the answer, so it finds `entry` and
/// `arg` there; it is on the new stack, which is aligned.
///
/// # Safety
/// As for [`born_beside`].
#[cfg(target_arch = "x86_64")]
unsafe fn start([flags, stack, pidfd]: [usize; 3], entry: usize, arg: usize) -> isize {
    let answer: isize;
    // SAFETY: the caller's obligation; the call clobbers rax, rcx and r11 only, and the parent goes
    // on behind it.
    unsafe {
        core::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r9",
            "call r8",
            "ud2",
            "2:",
            inlateout("rax") nr::CLONE => answer,
            in("rdi") flags, in("rsi") stack, in("rdx") pidfd, in("r10") 0,
            in("r8") entry, in("r9") arg,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    answer
}

#[cfg(target_arch = "aarch64")]
unsafe fn start([flags, stack, pidfd]: [usize; 3], entry: usize, arg: usize) -> isize {
    let answer: isize;
    // SAFETY: the caller's obligation; the call clobbers x0 only, and the parent goes on behind it.
    unsafe {
        core::arch::asm!(
            "svc #0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x30, xzr",
            "mov x0, x6",
            "blr x5",
            "brk #1",
            "2:",
            in("x8") nr::CLONE,
            inlateout("x0") flags as isize => answer,
            in("x1") stack, in("x2") pidfd, in("x3") 0, in("x4") 0,
            in("x5") entry, in("x6") arg,
            // The child's call would write it.
            lateout("x30") _,
        );
    }
    answer
}
