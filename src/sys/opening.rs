//! Opens a file, which may take for ever (a FIFO, a terminal that hung up, a file system that does
//! not answer), in a process of its own, which can be killed and left behind.
//!
//! A thread does not suffice: one that hangs in the kernel keeps its process from ending.
//!
//! # Safety
//! One of the few files of this crate with `unsafe` in them. The child is a fork of a process that
//! may have threads: it makes raw calls, and ends.
#![expect(unsafe_code, reason = "a fork, and a message with an fd in it")]

use std::ffi::{CString, c_char, c_int, c_void};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};
use std::{mem, ptr};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use crate::sys::clone::AllBlocked;
use crate::sys::fork;
use crate::sys::{self, Newborn, above_two, poll};

/// How long the killed process is waited for.
const DIES_WITHIN: Duration = Duration::from_millis(200);

/// An open(2) in progress, in another process. Dropping it gives it up.
#[derive(Debug)]
pub struct Opening {
    process: Newborn,
    line: UnixStream,
}

/// What the child is told.
struct Order {
    path: *const c_char,
    flags: c_int,
    line: c_int,
    parent: libc::pid_t,
    /// Keep the fds open, for `/dev/stdin` and its like, which mean an fd of this process.
    keep_fds: bool,
}

impl Opening {
    /// Begins to open the file; `O_CLOEXEC` is added to the flags.
    ///
    /// # Errors
    /// A NUL in the path, or no fork or fd can be had.
    pub fn start(path: &Path, flags: i32, keep_fds: bool) -> io::Result<Self> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let (line, theirs) = UnixStream::pair()?;
        let theirs = above_two(theirs.into())?;
        let order = Order {
            path: path.as_ptr(),
            flags: flags | libc::O_CLOEXEC,
            line: theirs.as_raw_fd(),
            parent: std::process::id().cast_signed(),
            keep_fds,
        };
        let _blocked = AllBlocked::new()?;
        // SAFETY: `open` makes raw calls only, and `order` is what it expects.
        let process = unsafe { fork::fork(open, ptr::from_ref(&order).cast()) }?;
        Ok(Self { process, line })
    }

    /// Returns the file; call it once this is readable.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn finish(self) -> io::Result<OwnedFd> {
        let mut errno = [0; 4];
        let mut space = cmsg_space!(c_int);
        let mut parts = [IoSliceMut::new(&mut errno)];
        let line = self.line.as_raw_fd();
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(line, &mut parts, Some(&mut space), flags)?;
        let len = message.bytes;
        let sent = message.cmsgs()?.find_map(|part| match part {
            ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
            _ => None,
        });
        if let Some(fd) = sent {
            // SAFETY: the kernel has just opened this fd for us.
            return Ok(unsafe { OwnedFd::from_raw_fd(fd) });
        }
        match len {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Err(io::Error::from_raw_os_error(c_int::from_ne_bytes(errno))),
        }
    }
}

impl AsFd for Opening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.line.as_fd()
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        let pidfd = self.process.pidfd.as_fd();
        let _ = sys::pidfd_send_signal(pidfd, libc::SIGKILL);
        let _ = poll::ended(pidfd, Some(Instant::now() + DIES_WITHIN));
        let _ = sys::reap(pidfd);
    }
}

extern "C" fn open(order: *const c_void) -> ! {
    // SAFETY: `start` passes an Order, and this process has a copy of it for ever.
    let order: &Order = unsafe { &*order.cast() };
    // SAFETY: plain integers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    // SAFETY: no memory is involved.
    if unsafe { libc::getppid() } == order.parent {
        if !order.keep_fds {
            // SAFETY: nothing in this process uses them.
            unsafe { sys::close_all_but([order.line; 3]) };
        }
        // SAFETY: a string that ends in NUL.
        let fd = unsafe { libc::open(order.path, order.flags, 0o666) };
        tell(order.line, fd, if fd < 0 { Errno::last_raw() } else { 0 });
    }
    // SAFETY: ends this process without running anything of the parent's.
    unsafe { libc::_exit(0) }
}

/// Room for one fd, aligned as its header.
#[repr(C)]
struct Control {
    header: libc::cmsghdr,
    fd: c_int,
}

/// Sends the fd, if there is one, with the errno.
fn tell(line: c_int, fd: c_int, errno: c_int) {
    let mut part = libc::iovec {
        iov_base: ptr::from_ref(&errno).cast_mut().cast(),
        iov_len: size_of_val(&errno),
    };
    // SAFETY: a plain struct, for which zero means "not given".
    let mut control: Control = unsafe { mem::zeroed() };
    control.header.cmsg_level = libc::SOL_SOCKET;
    control.header.cmsg_type = libc::SCM_RIGHTS;
    control.header.cmsg_len = mem::offset_of!(Control, fd).wrapping_add(size_of::<c_int>()) as _;
    control.fd = fd;
    // SAFETY: as above.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if fd >= 0 {
        message.msg_control = (&raw mut control).cast();
        message.msg_controllen = size_of::<Control>() as _;
    }
    // SAFETY: all that the message points to lives across the call.
    unsafe { libc::sendmsg(line, &raw const message, libc::MSG_NOSIGNAL) };
}
