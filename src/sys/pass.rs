//! Passes fds over a socket, and a program in memory, to a process that this crate starts.
//!
//! # Safety
//! As in `sys/mod.rs`: thin wrappers, and no pointer outlives its call.
#![expect(unsafe_code, reason = "raw system calls that no safe crate of our choice wraps")]

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

use crate::sys::above_two;

/// A message with fds in it.
#[repr(C)]
struct Control<const N: usize> {
    header: libc::cmsghdr,
    fds: [RawFd; N],
}

/// Sends one byte and some fds, which are then the receiver's too, or fails at once. Allocates
/// nothing.
pub(crate) fn send_fds<const N: usize>(
    socket: BorrowedFd<'_>,
    byte: u8,
    fds: [RawFd; N],
) -> Result<(), Errno> {
    // SAFETY: cmsghdr is a plain struct of integers.
    let mut header: libc::cmsghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    header.cmsg_len = (size_of::<libc::cmsghdr>() + size_of_val(&fds)) as _;
    (header.cmsg_level, header.cmsg_type) = (libc::SOL_SOCKET, libc::SCM_RIGHTS);
    let mut control = Control { header, fds };
    let base = (&raw const byte).cast_mut().cast();
    let mut piece = libc::iovec { iov_base: base, iov_len: 1 };
    // SAFETY: msghdr is a plain struct of integers and pointers, which may be null.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    (message.msg_iov, message.msg_iovlen) = (&raw mut piece, 1);
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of_val(&control) as _;
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: all that the message points to lives across the call.
    let answer = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, flags) };
    Errno::result(answer).map(drop)
}

/// Receives one byte and the fd that was sent with it; none at the end of the line. `EAGAIN` where
/// nothing is there and the socket does not block, `EMFILE` for a byte without its fd.
pub(crate) fn receive_fd(socket: BorrowedFd<'_>) -> Result<Option<OwnedFd>, Errno> {
    let mut byte = [0u8; 1];
    match receive(socket, &mut byte)? {
        (0, _) => Ok(None),
        (_, Some(fd)) => Ok(Some(fd)),
        // There was no room for it, here or on its way.
        _ => Err(Errno::EMFILE),
    }
}

/// A message, and the fd that came with it.
#[cfg(feature = "sandbox")]
pub(crate) type Numbers = ([u32; 3], Option<OwnedFd>);

/// Receives a message of three numbers, and the fd that may come with it; none at the end of the
/// line. `EPROTO` for any other message.
#[cfg(feature = "sandbox")]
pub(crate) fn receive_numbers(socket: BorrowedFd<'_>) -> Result<Option<Numbers>, Errno> {
    let mut bytes = [0u8; 12];
    let (len, fd) = receive(socket, &mut bytes)?;
    let [a, b, c, d, e, f, g, h, i, j, k, l] = bytes;
    let numbers = [[a, b, c, d], [e, f, g, h], [i, j, k, l]].map(u32::from_ne_bytes);
    match len {
        0 => Ok(None),
        12 => Ok(Some((numbers, fd))),
        _ => Err(Errno::EPROTO),
    }
}

/// Receives into the buffer, and one fd; returns the length.
fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<(usize, Option<OwnedFd>), Errno> {
    // SAFETY: cmsghdr is a plain struct of integers.
    let header: libc::cmsghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    let mut control = Control { header, fds: [-1; 1] };
    let mut piece = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: msghdr is a plain struct of integers and pointers, which may be null.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    (message.msg_iov, message.msg_iovlen) = (&raw mut piece, 1);
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of_val(&control) as _;
    let place = &raw mut message;
    // SAFETY: all that the message points to lives across the call, and is writable.
    let answer = unsafe { libc::recvmsg(socket.as_raw_fd(), place, libc::MSG_CMSG_CLOEXEC) };
    let len = Errno::result(answer)?;
    let [fd] = control.fds;
    // SAFETY: the kernel has just opened this fd for us.
    let fd = (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) });
    Ok((usize::try_from(len).unwrap_or_default(), fd))
}

/// Makes a file in memory that can be executed and never changed again.
///
/// Minimum Linux version: 3.17; `MFD_EXEC`, without which some machines allow no exec, is of 6.3.
pub(crate) fn sealed_program(name: &CStr, program: &[u8]) -> Result<OwnedFd, Errno> {
    if program.is_empty() {
        return Err(Errno::ENOEXEC);
    }
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    let made = match memfd(name, flags | libc::MFD_EXEC) {
        Err(Errno::EINVAL) => memfd(name, flags),
        made => made,
    };
    let file = above_two(made?)?;
    let mut rest = program;
    while !rest.is_empty() {
        let len = nix::unistd::write(&file, rest)?;
        rest = rest.get(len..).unwrap_or_default();
    }
    let seals = libc::F_SEAL_WRITE | libc::F_SEAL_GROW | libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL;
    // SAFETY: plain integers.
    Errno::result(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) })?;
    Ok(file)
}

fn memfd(name: &CStr, flags: libc::c_uint) -> Result<OwnedFd, Errno> {
    // SAFETY: a string that ends in NUL.
    let fd = Errno::result(unsafe { libc::memfd_create(name.as_ptr(), flags) })?;
    // SAFETY: the kernel has just opened this fd for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
