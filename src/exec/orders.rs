//! What a child is told before its birth: plain data, which it may only read.

use std::ffi::{c_char, c_int};
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::atomic::AtomicU32;

use nix::errno::Errno;

use crate::exec::set_up::SetUp;
use crate::exec::slots::{LOW, Taken};
use crate::sandbox::Confinement;

/// A `pre_exec` closure, as std has it.
pub(crate) type Closure = Box<dyn FnMut() -> io::Result<()> + Send + Sync>;

/// The child has not run its first instruction.
pub(crate) const UNBORN: u32 = 0;
/// The child runs, and nothing has failed. Once it has given the shared memory back this means that
/// exec has happened.
pub(crate) const RUNNING: u32 = u32::MAX;

/// What a guard executes, which shares nothing with the supervisor but its three streams.
#[derive(Clone, Copy)]
pub(crate) enum GuardImage<'a> {
    /// An open program.
    Program(BorrowedFd<'a>),
    /// A function that is given the first argument, in a fork.
    Fork(unsafe extern "C" fn(*const c_char) -> !),
}

/// All that the child is told, prepared; -1 and null mean "leave it as it is".
pub(crate) struct Orders<'a> {
    pub(crate) word: AtomicU32,
    /// Write end of the error pipe; used after a fork only.
    pub(crate) channel: c_int,
    /// `cgroup.procs` to join; used after a fork only.
    pub(crate) join: c_int,
    pub(crate) forked: bool,
    /// The child is a guard.
    pub(crate) guard: Option<GuardImage<'a>>,
    pub(crate) stdio: [c_int; 3],
    pub(crate) groups: Option<&'a [libc::gid_t]>,
    pub(crate) gid: Option<libc::gid_t>,
    pub(crate) uid: Option<libc::uid_t>,
    pub(crate) cwd: *const c_char,
    pub(crate) process_group: Option<libc::pid_t>,
    pub(crate) session: bool,
    pub(crate) umask: Option<libc::mode_t>,
    /// The child shares its parent's open files, and leaves with those below this number.
    pub(crate) leaves_at: Option<c_int>,
    /// All others above 2 are closed by exec, if there is a list.
    pub(crate) fds: Option<&'a [RawFd]>,
    pub(crate) closures: *mut [Closure],
    /// Comes last, right before exec.
    pub(crate) confine: Option<Confinement<'a>>,
    /// What is executed instead: it acts on the rest.
    pub(crate) set_up: Option<&'a SetUp>,
    /// Paths to try in turn; argv; envp.
    pub(crate) candidates: &'a [*const c_char],
    pub(crate) argv: *const *const c_char,
    pub(crate) envp: *const *const c_char,
}

impl Orders<'_> {
    /// Lets the child share its parent's open files until it leaves them, with its streams in the
    /// places, which are taken until it has executed.
    pub(crate) fn share_files<'a>(&mut self, mut places: Taken<'a>) -> Result<Taken<'a>, Errno> {
        self.stdio = places.put(self.stdio)?;
        self.leaves_at = Some(LOW);
        Ok(places)
    }
}
