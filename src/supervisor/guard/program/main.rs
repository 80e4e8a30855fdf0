//! The guard as a program of its own: a static ELF of a few KiB without libc, which `build.rs`
//! links and the library carries. Its one argument is the run root's name without the prefix.
//!
//! # Safety
//! Runs before anything has set up a runtime: the stack is as the kernel left it.
#![no_std]
#![no_main]
// `memory.rs` must not be compiled into calls of itself.
#![no_builtins]
#![expect(unsafe_code, reason = "the entry of a program without libc")]

mod memory;
#[path = "mod.rs"]
mod program;

use core::ffi::c_char;

// The stack pointer is at argc; what is called needs it aligned, and never returns.
#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {begin}",
    "ud2",
    begin = sym begin,
);

#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(
    ".globl _start",
    "_start:",
    "mov x29, xzr",
    "mov x30, xzr",
    "mov x0, sp",
    "bl {begin}",
    "brk #1",
    begin = sym begin,
);

/// argc, then the arguments, at least two of them: argv[0] and the name.
extern "C" fn begin(stack: *const *const c_char) -> ! {
    // SAFETY: the kernel puts argc, argv[0], argv[1] or the null behind the last one here.
    let id = unsafe { *stack.add(2) };
    // SAFETY: a string that ends in NUL, or null.
    unsafe { program::live(id) }
}

/// Required by the compiler; nothing here panics.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    program::exit(101)
}
