//! The keeper as a program of its own: a static ELF of a few KiB without libc, which `build.rs`
//! links and the library carries. Its arguments are the pids of its owner and its main process.
//!
//! # Safety
//! Runs before anything has set up a runtime: the stack is as the kernel left it.
#![no_std]
#![no_main]
// `bare/memory.rs` must not be compiled into calls of itself.
#![no_builtins]
#![expect(unsafe_code, reason = "the entry of a program without libc")]

#[path = "../../bare/mod.rs"]
mod bare;
#[path = "../../bare/start.rs"]
mod start;
#[path = "../../proc/parse.rs"]
mod parse;
#[path = "mod.rs"]
mod program;

use core::ffi::{CStr, c_char};

/// argc, then the arguments: argv[0] and two more, or a null behind the last one.
extern "C" fn begin(stack: *const *const c_char) -> ! {
    // SAFETY: the kernel puts argc, argv[0], argv[1] or the null behind the last one here.
    let owner = unsafe { *stack.add(2) };
    // SAFETY: a string of the kernel's, or null.
    let Some(owner) = (unsafe { pid(owner) }) else { program::exit(2) };
    // SAFETY: behind an argument there is another one, or the null.
    let main = unsafe { *stack.add(3) };
    // SAFETY: as above.
    let Some(main) = (unsafe { pid(main) }) else { program::exit(2) };
    program::keep(owner, main, &mut || ());
    program::exit(0)
}

/// Parses a number.
///
/// # Safety
/// A string that ends in NUL, or null.
unsafe fn pid(text: *const c_char) -> Option<i32> {
    // SAFETY: the caller's obligation.
    let text = (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) })?;
    let mut pid = None;
    parse::each_number(text.to_bytes_with_nul(), &mut None, &mut |number| pid = Some(number));
    pid
}
