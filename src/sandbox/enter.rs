//! What a child does between its birth and its exec to confine itself. The rules of
//! `exec/child_side.rs` hold: raw calls on prepared data, no allocation, no panic.
//!
//! # Safety
//! One of the few files of this crate with `unsafe` in them.
#![expect(unsafe_code, reason = "the child between clone and exec makes raw calls")]

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr;

use crate::error::Step;
use crate::sys::raw::{call, errno, int};

/// What a child confines itself by: borrowed from a `Prepared`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Confinement<'a> {
    /// A Landlock ruleset.
    pub(crate) ruleset: BorrowedFd<'a>,
    pub(crate) filter: &'a [libc::sock_filter],
    /// The fds above 2 that the command is to have, in order.
    pub(crate) fds: &'a [RawFd],
    /// On which the listener of the filter goes to the supervisor, if it is to have one.
    pub(crate) line: Option<BorrowedFd<'a>>,
}

/// The step that failed, and its errno.
type Refused = (Step, c_int);

fn ok(step: Step, answer: isize) -> Result<(), Refused> {
    if answer < 0 { Err((step, errno(answer))) } else { Ok(()) }
}

impl Confinement<'_> {
    /// Confines this process, for good. The filter comes last: it refuses what the others need.
    pub(crate) fn enter(&self) -> Result<(), Refused> {
        dump_no_core()?;
        self.keep_fds()?;
        drop_capabilities()?;
        let no_new_privs = [int(libc::PR_SET_NO_NEW_PRIVS), 1, 0, 0, 0];
        // SAFETY: plain integers.
        ok(Step::NoNewPrivs, unsafe { call(libc::SYS_prctl, no_new_privs) })?;
        let ruleset = int(self.ruleset.as_raw_fd());
        // SAFETY: plain integers.
        let answer = unsafe { call(libc::SYS_landlock_restrict_self, [ruleset, 0, 0, 0, 0]) };
        ok(Step::Landlock, answer)?;
        self.filter_calls()
    }

    /// The fds above 2 that it needs until the exec, or behind it.
    pub(crate) fn needs(&self) -> impl Iterator<Item = RawFd> {
        let own = [Some(self.ruleset.as_raw_fd()), self.line.map(|line| line.as_raw_fd())];
        self.fds.iter().copied().chain(own.into_iter().flatten())
    }

    /// Marks every other fd to be closed by exec: the error pipe is needed until then.
    fn keep_fds(&self) -> Result<(), Refused> {
        let mut next = 3;
        for &fd in self.fds {
            if fd > next {
                mark(next, fd.wrapping_sub(1))?;
            }
            let clear = [int(fd), int(libc::F_SETFD), 0, 0, 0];
            // SAFETY: plain integers.
            ok(Step::CloseFds, unsafe { call(libc::SYS_fcntl, clear) })?;
            next = fd.wrapping_add(1);
        }
        mark(next, c_int::MAX)
    }

    fn filter_calls(&self) -> Result<(), Refused> {
        #[expect(clippy::cast_possible_truncation, reason = "the kernel takes 4096 at the most")]
        let program = libc::sock_fprog {
            len: self.filter.len() as u16,
            filter: self.filter.as_ptr().cast_mut(),
        };
        let place = (&raw const program).expose_provenance();
        let mode = libc::SECCOMP_SET_MODE_FILTER as usize;
        let Some(line) = self.line else {
            // SAFETY: the kernel reads the program, which lives across the call.
            let answer = unsafe { call(libc::SYS_seccomp, [mode, 0, place, 0, 0]) };
            return ok(Step::Seccomp, answer);
        };
        // SAFETY: as above.
        let listener = unsafe { call(libc::SYS_seccomp, [mode, LISTENS, place, 0, 0]) };
        ok(Step::Listen, listener)?;
        // Exec closes it here: no process that it is about has it.
        #[expect(clippy::cast_possible_truncation, reason = "an fd is an int")]
        hand_over(line, listener as c_int)
    }
}

/// Gives the filter a listener. A call that it has taken waits for its answer, and for nothing but
/// SIGKILL: a signal would make it start again, which a program that gets many never sees the end
/// of.
#[expect(clippy::cast_possible_truncation, reason = "flags of an int")]
const LISTENS: usize = (libc::SECCOMP_FILTER_FLAG_NEW_LISTENER
    | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV) as usize;

/// A message with one fd in it.
#[repr(C)]
struct Control {
    len: usize,
    level: c_int,
    kind: c_int,
    fd: c_int,
    unused: c_int,
}

/// Sends one byte and the fd, or fails at once.
fn hand_over(line: BorrowedFd<'_>, fd: c_int) -> Result<(), Refused> {
    let len = size_of::<usize>().wrapping_add(12);
    let (level, kind) = (libc::SOL_SOCKET, libc::SCM_RIGHTS);
    let mut control = Control { len, level, kind, fd, unused: 0 };
    let mut byte = 1u8;
    let mut piece = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    // SAFETY: a plain struct of integers and pointers, which may be null.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    (message.msg_iov, message.msg_iovlen) = (&raw mut piece, 1);
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of::<Control>() as _;
    let place = (&raw const message).expose_provenance();
    let flags = int(libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT);
    // SAFETY: all that the message points to lives across the call.
    let answer = unsafe { call(libc::SYS_sendmsg, [int(line.as_raw_fd()), place, flags, 0, 0]) };
    ok(Step::Listen, answer)
}

fn mark(first: c_int, last: c_int) -> Result<(), Refused> {
    let flags = libc::CLOSE_RANGE_CLOEXEC as usize;
    // SAFETY: plain integers.
    let answer = unsafe { call(libc::SYS_close_range, [int(first), int(last), flags, 0, 0]) };
    ok(Step::CloseFds, answer)
}

/// The rights of root by which a process is looked into, or the kernel is changed, whatever its
/// domain: on Linux 6.18 `CAP_PERFMON` and `CAP_SYS_ADMIN` read the memory of any process. The last
/// one raises the limit of core dumps.
const CAPABILITIES: [u32; 12] = [
    16, // SYS_MODULE
    17, // SYS_RAWIO
    19, // SYS_PTRACE
    21, // SYS_ADMIN
    22, // SYS_BOOT
    32, // MAC_OVERRIDE
    33, // MAC_ADMIN
    34, // SYSLOG
    38, // PERFMON
    39, // BPF
    40, // CHECKPOINT_RESTORE
    24, // SYS_RESOURCE
];

/// The mask of those, in words of 32 bits.
const DROPPED: [u32; 2] = {
    let mut words = [0; 2];
    let mut all: &[u32] = &CAPABILITIES;
    while let [capability, rest @ ..] = all {
        if *capability < 32 {
            words = [words[0] | 1 << *capability, words[1]];
        } else {
            words = [words[0], words[1] | 1 << (*capability - 32)];
        }
        all = rest;
    }
    words
};

/// `struct __user_cap_header_struct`, version 3.
#[repr(C)]
struct Header {
    version: u32,
    pid: c_int,
}

/// `struct __user_cap_data_struct`
#[repr(C)]
#[derive(Clone, Copy)]
struct Capabilities {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Gives them up for good: after no_new_privs not even root's exec gives more than are permitted.
fn drop_capabilities() -> Result<(), Refused> {
    let mut header = Header { version: 0x2008_0522, pid: 0 };
    let mut both = [Capabilities { effective: 0, permitted: 0, inheritable: 0 }; 2];
    let header = (&raw mut header).expose_provenance();
    let place = (&raw mut both).expose_provenance();
    // SAFETY: a header, and room for the two words of this version.
    let answer = unsafe { call(libc::SYS_capget, [header, place, 0, 0, 0]) };
    ok(Step::Capabilities, answer)?;
    for (word, dropped) in both.iter_mut().zip(DROPPED) {
        word.effective &= !dropped;
        word.permitted &= !dropped;
        word.inheritable &= !dropped;
    }
    let place = (&raw const both).expose_provenance();
    // SAFETY: as above; the kernel reads both.
    let answer = unsafe { call(libc::SYS_capset, [header, place, 0, 0, 0]) };
    ok(Step::Capabilities, answer)
}

/// Lets this process dump no core. A limit of 1 keeps the kernel from a handler behind a pipe too
/// (core(5)), which 0 does not; a hard limit of 0 stays.
fn dump_no_core() -> Result<(), Refused> {
    let mut now = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    limit_core(ptr::null(), &raw mut now)?;
    let least = now.rlim_max.min(1);
    let new = libc::rlimit64 { rlim_cur: least, rlim_max: least };
    limit_core(&raw const new, ptr::null_mut())
}

fn limit_core(new: *const libc::rlimit64, old: *mut libc::rlimit64) -> Result<(), Refused> {
    let (new, old) = (new.expose_provenance(), old.expose_provenance());
    let core = libc::RLIMIT_CORE as usize;
    // SAFETY: null, or a limit that lives across the call.
    let answer = unsafe { call(libc::SYS_prlimit64, [0, core, new, old, 0]) };
    ok(Step::CoreLimit, answer)
}
