//! The set-up program of a sandbox: a static ELF of a few KiB without libc, which `build.rs` links
//! and the library carries. The supervisor's child executes it from memory, so that nothing of what
//! follows happens in the supervisor's memory or a copy of it:
//!
//! 1. *Set-up* (this process) makes the namespaces, then starts two siblings of its own, children
//!    of the supervisor that share its memory, sends their pidfds and ends.
//! 2. *Init* is process 1 of the new pid namespace: deaf, closed to its own descendants, it lets
//!    orphans be reaped and ends when nothing else is left.
//! 3. *Main* gives up all rights and executes the command. The view is built by main, or in the
//!    mounts of a template by init, while main does the rest.
//!
//! Its command line is: its name, numbers (`layout::number`), the directory, the paths to execute,
//! the command's arguments. Its environment is the command's. A step that fails goes out as a
//! message; the line's end without one means that the command was executed.
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
mod birth;
mod calls;
mod confine;
mod hide;
mod init;
#[expect(dead_code, reason = "the other side of it is the library's")]
#[path = "../layout.rs"]
mod layout;
mod lower;
mod namespaces;
mod orders;
mod overlay;
mod view;
mod view_news;

use calls::exit;
use orders::Orders;

extern "C" fn begin(stack: usize) -> ! {
    // SAFETY: the kernel puts argc, the arguments and the environment here.
    let Some(orders) = (unsafe { Orders::read(stack) }) else { exit(2) };
    let Err(fault) = namespaces::set_up(&orders);
    orders.tell(&fault);
    exit(127)
}
