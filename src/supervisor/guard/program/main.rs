//! The guard as a program of its own: a static ELF of a few KiB without libc, which `build.rs`
//! links and the library carries. Its one argument is the run root's name without the prefix.
//!
//! # Safety
//! Runs before anything has set up a runtime: the stack is as the kernel left it.
#![no_std]
#![no_main]
// `bare/memory.rs` must not be compiled into calls of itself.
#![no_builtins]
#![expect(unsafe_code, reason = "the entry of a program without libc")]

#[path = "../../../bare/mod.rs"]
mod bare;
#[path = "../../../bare/start.rs"]
mod start;
#[path = "mod.rs"]
mod program;

use core::ffi::c_char;

/// argc, then the arguments, at least two of them: argv[0] and the name.
extern "C" fn begin(stack: *const *const c_char) -> ! {
    // SAFETY: the kernel puts argc, argv[0], argv[1] or the null behind the last one here.
    let id = unsafe { *stack.add(2) };
    // SAFETY: a string that ends in NUL, or null.
    unsafe { program::live(id) }
}
