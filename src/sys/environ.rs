//! The environment of this process, lent to an exec without a copy where that is safe.
//!
//! Another thread that sets a variable may free what is read here, and no lock that this crate can
//! take keeps it from that: std's is its own, libc's too. A process with a single thread has no
//! such other: from here to the exec that thread runs code of this crate alone (a fork, whose
//! handlers are the caller's, takes a copy first). glibc says whether
//! it is one (`__libc_single_threaded`, since 2.32); where it does not the environment is copied
//! under std's lock, which costs more than the rest of a spawn in this process.
//!
//! # Safety
//! One of the few files of this crate with `unsafe` in them: two variables of libc's are read.
#![expect(unsafe_code, reason = "environ, and glibc's word on threads")]

use std::ffi::c_char;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
use std::{sync::OnceLock, sync::atomic::AtomicU8, sync::atomic::Ordering};

/// The caller's own environment: what execve(2) takes. Good until the next change.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lent(*const *const c_char);

impl Lent {
    pub(crate) fn as_ptr(self) -> *const *const c_char {
        self.0
    }
}

unsafe extern "C" {
    static environ: *const *const c_char;
}

/// The environment of a process that has no thread but this one; None where it may have others.
/// No code of the caller's may run while it is in use.
pub(crate) fn lent() -> Option<Lent> {
    if !is_single_threaded() {
        return None;
    }
    // SAFETY: every libc has it, and no other thread writes it now.
    Some(Lent(unsafe { environ }))
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn is_single_threaded() -> bool {
    /// The address of glibc's word, which older ones lack.
    static WORD: OnceLock<Option<&'static AtomicU8>> = OnceLock::new();
    let word = WORD.get_or_init(|| {
        // SAFETY: a string that ends in NUL.
        let place = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__libc_single_threaded".as_ptr()) };
        // SAFETY: null, or a byte of libc's that is there for as long as this process.
        unsafe { place.cast::<AtomicU8>().as_ref() }
    });
    word.is_some_and(|word| word.load(Ordering::Relaxed) != 0)
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn is_single_threaded() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "looks up a symbol of libc's")]
    fn beside_another_thread_nothing_is_lent() {
        let lent = std::thread::spawn(|| lent().is_some()).join();
        assert!(matches!(lent, Ok(false)));
    }
}
