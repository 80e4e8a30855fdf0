//! Tells this process from its forked copies.
//!
//! The pid does not tell: in another pid namespace a copy may have its original's. The kernel
//! clears one page in every copy that fork(2) makes (`MADV_WIPEONFORK`, [madvise(2)], Linux 4.14):
//! a copy finds 0 there instead of its original's number. No lock is taken, since a fork may
//! come while another thread holds it.
//!
//! # Safety
//! One of the few files of this crate with `unsafe` in them: one page is mapped, never unmapped
//! once it is in use, and used by atomic operations alone.
//!
//! [madvise(2)]: https://man7.org/linux/man-pages/man2/madvise.2.html
#![expect(unsafe_code, reason = "a page of memory that fork clears")]

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// Bytes to map, which the kernel rounds up to a page.
const SIZE: usize = size_of::<AtomicU64>();

/// The page that fork clears.
static PAGE: AtomicPtr<AtomicU64> = AtomicPtr::new(ptr::null_mut());

/// The last number given. A copy inherits it, and so takes another number than its original.
static LAST: AtomicU64 = AtomicU64::new(0);

/// One process; its forked copies are others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pid: u32,
    /// 0 where there is no such page (a kernel before 4.14, a seccomp filter): the pid decides.
    number: u64,
}

impl Identity {
    pub(crate) fn of_this_process() -> Self {
        Self { pid: std::process::id(), number: page().map_or(0, number) }
    }

    pub(crate) fn is_this_process(self) -> bool {
        self == Self::of_this_process()
    }

    pub(crate) fn pid(self) -> u32 {
        self.pid
    }
}

fn number(page: &AtomicU64) -> u64 {
    let known = page.load(Ordering::Acquire);
    if known != 0 {
        return known;
    }
    let next = LAST.fetch_add(1, Ordering::AcqRel).wrapping_add(1);
    match page.compare_exchange(0, next, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => next,
        Err(known) => known,
    }
}

fn page() -> Option<&'static AtomicU64> {
    let known = PAGE.load(Ordering::Acquire);
    let page = if known.is_null() { map()? } else { known };
    // SAFETY: a mapping of this module that starts at a page's border, holds zeroes or numbers, and
    // stays.
    Some(unsafe { &*page })
}

/// Maps the page; if another thread is faster, its page counts.
fn map() -> Option<*mut AtomicU64> {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping wherever there is room touches nothing that is there.
    let start = unsafe { libc::mmap(ptr::null_mut(), SIZE, access, kind, -1, 0) };
    if start == libc::MAP_FAILED {
        return None;
    }
    let page = start.cast::<AtomicU64>();
    // SAFETY: the mapping was just made, and nothing else points to it yet.
    if unsafe { libc::madvise(start, SIZE, libc::MADV_WIPEONFORK) } != 0 {
        unmap(start);
        return None;
    }
    match PAGE.compare_exchange(ptr::null_mut(), page, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => Some(page),
        Err(faster) => {
            unmap(start);
            Some(faster)
        }
    }
}

fn unmap(start: *mut libc::c_void) {
    // SAFETY: a mapping that was just made, to which nothing else points.
    unsafe { libc::munmap(start, SIZE) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "makes system calls that Miri lacks")]
    fn all_threads_are_one_process() {
        let me = Identity::of_this_process();
        let threads: Vec<_> =
            (0..8).map(|_| std::thread::spawn(Identity::of_this_process)).collect();
        for thread in threads {
            assert_eq!(thread.join().ok(), Some(me));
        }
        assert!(me.is_this_process() && me.number != 0);
    }
}
