//! The memory functions that the compiler calls, for a program without libc, and a symbol that
//! `core`'s own objects name but nothing that aborts on panic uses.
//!
//! # Safety
//! As for the C functions of these names.
#![expect(unsafe_code, reason = "C functions of fixed names")]

core::arch::global_asm!(".globl rust_eh_personality", "rust_eh_personality:");

#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, len: usize) -> *mut u8 {
    for place in 0..len {
        // SAFETY: the caller's obligation.
        unsafe { to.add(place).write(byte as u8) };
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    for place in 0..len {
        // SAFETY: the caller's obligation.
        unsafe { to.add(place).write(from.add(place).read()) };
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    if to.cast_const() <= from {
        // SAFETY: forwards, each byte is read before it is written over.
        return unsafe { memcpy(to, from, len) };
    }
    for place in (0..len).rev() {
        // SAFETY: the caller's obligation.
        unsafe { to.add(place).write(from.add(place).read()) };
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(one: *const u8, other: *const u8, len: usize) -> i32 {
    for place in 0..len {
        // SAFETY: the caller's obligation.
        let (a, b) = unsafe { (one.add(place).read(), other.add(place).read()) };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
    }
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(one: *const u8, other: *const u8, len: usize) -> i32 {
    // SAFETY: the caller's obligation.
    unsafe { memcmp(one, other, len) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(string: *const u8) -> usize {
    let mut len = 0;
    // SAFETY: the caller's obligation.
    while unsafe { string.add(len).read() } != 0 {
        len += 1;
    }
    len
}
