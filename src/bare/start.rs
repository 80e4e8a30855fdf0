//! Where a program without libc begins, and what the compiler wants of it.
//!
//! # Safety
//! Runs before anything has set up a runtime: the stack is as the kernel left it.
#![expect(unsafe_code, reason = "the entry of a program without libc")]

mod memory;

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
    begin = sym crate::begin,
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
    begin = sym crate::begin,
);

/// Required by the compiler; nothing here panics.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    crate::bare::exit(101)
}
