//! What code without libc stands on: the programs that the crate carries, and a child that shares
//! its parent's memory. Raw system calls, which touch no errno: a negative answer is one.
//!
//! # Safety
//! Two instructions, and calls whose memory is borrowed across them.
#![expect(unsafe_code, reason = "system calls without libc")]

#[cfg_attr(not(test), expect(dead_code, reason = "each program makes some of the calls"))]
pub(crate) mod numbers;

/// Makes a system call with up to six arguments; the rest are 0.
///
/// # Safety
/// That of the call itself.
#[inline(always)]
pub(crate) unsafe fn call<const N: usize>(number: usize, args: [usize; N]) -> isize {
    let arg = |place: usize| args.get(place).copied().unwrap_or(0);
    let all = [arg(0), arg(1), arg(2), arg(3), arg(4), arg(5)];
    // SAFETY: the caller's obligation.
    unsafe { instruction(number, all) }
}

#[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
#[inline(always)]
unsafe fn instruction(number: usize, [a, b, c, d, e, f]: [usize; 6]) -> isize {
    let answer: isize;
    // SAFETY: the caller's obligation; the call clobbers rax, rcx and r11 only.
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
#[inline(always)]
unsafe fn instruction(number: usize, [a, b, c, d, e, f]: [usize; 6]) -> isize {
    let answer: isize;
    // SAFETY: the caller's obligation; the call clobbers x0, and the upper parts of vectors.
    unsafe {
        core::arch::asm!(
            "svc #0",
            in("x8") number,
            inlateout("x0") a.cast_signed() => answer,
            in("x1") b, in("x2") c, in("x3") d, in("x4") e, in("x5") f,
            clobber_abi("C"),
            options(nostack),
        );
    }
    answer
}

/// Elsewhere no program is carried and no memory is shared: a fork of the owner has its libc, and
/// an errno of its own.
#[cfg(not(any(
    all(target_arch = "x86_64", target_pointer_width = "64"),
    target_arch = "aarch64"
)))]
unsafe fn instruction(number: usize, [a, b, c, d, e, f]: [usize; 6]) -> isize {
    // SAFETY: the caller's obligation.
    match unsafe { libc::syscall(number as libc::c_long, a, b, c, d, e, f) } {
        // SAFETY: no memory but this thread's own errno is read.
        -1 => -(unsafe { *libc::__errno_location() } as isize),
        answer => answer as isize,
    }
}

/// The address of memory that the kernel reads.
pub(crate) fn at<T: ?Sized>(place: &T) -> usize {
    core::ptr::from_ref(place).cast::<u8>().expose_provenance()
}

/// The address of memory that the kernel writes to: exposed, so that the compiler does not take it
/// for unchanged.
pub(crate) fn into<T: ?Sized>(place: &mut T) -> usize {
    core::ptr::from_mut(place).cast::<u8>().expose_provenance()
}

/// An integer argument of a call.
pub(crate) const fn int(value: i32) -> usize {
    value as isize as usize
}

pub(crate) fn exit(status: i32) -> ! {
    loop {
        // SAFETY: plain integers.
        unsafe { call(numbers::EXIT_GROUP, [int(status)]) };
    }
}

pub(crate) fn close(fd: i32) {
    // SAFETY: plain integers.
    unsafe { call(numbers::CLOSE, [int(fd)]) };
}

/// Reads into the buffer, as far as one read goes; None at the end and after an error.
pub(crate) fn read(fd: i32, buffer: &mut [u8]) -> Option<&[u8]> {
    // SAFETY: the kernel writes to the borrowed buffer only.
    let len = unsafe { call(numbers::READ, [int(fd), into(buffer), buffer.len()]) };
    filled(len, buffer)
}

/// Reads entries of a directory; None at the end and after an error.
pub(crate) fn getdents(dir: i32, buffer: &mut [u8]) -> Option<&[u8]> {
    // SAFETY: the kernel writes to the borrowed buffer only.
    let len = unsafe { call(numbers::GETDENTS64, [int(dir), into(buffer), buffer.len()]) };
    filled(len, buffer)
}

fn filled(len: isize, buffer: &[u8]) -> Option<&[u8]> {
    usize::try_from(len).ok().filter(|&len| len > 0).and_then(|len| buffer.get(..len))
}

/// The monotonic clock: seconds and nanoseconds; None without one.
pub(crate) fn now() -> Option<[isize; 2]> {
    const MONOTONIC: usize = 1;
    let mut time = [0; 2];
    // SAFETY: the kernel writes to the borrowed numbers only.
    let answer = unsafe { call(numbers::CLOCK_GETTIME, [MONOTONIC, into(&mut time)]) };
    (answer == 0).then_some(time)
}

/// Waits until one of these fds is readable, or for so long (seconds and nanoseconds; None is for
/// ever). Says which are.
pub(crate) fn poll<const N: usize>(fds: [i32; N], time: Option<[isize; 2]>) -> [bool; N] {
    #[repr(C)]
    struct Poll {
        fd: i32,
        events: i16,
        revents: i16,
    }
    const IN: i16 = 1;
    let mut all = fds.map(|fd| Poll { fd, events: IN, revents: 0 });
    let time = time.as_ref().map_or(0, at);
    // SAFETY: the kernel reads the time, and writes to the borrowed list only.
    let answer = unsafe { call(numbers::PPOLL, [into(&mut all), N, time, 0, 8]) };
    all.map(|each| answer > 0 && each.revents != 0)
}
