//! The kernel's news of processes: the netlink [proc connector], which tells of each fork, exec and
//! exit on the machine. Minimum Linux version: 2.6.15; for ordinary users 6.6.
//!
//! # Safety
//! One of the few files of this crate with `unsafe` in it: a socket, its address and its filter.
//! The kernel copies what it is given before each call returns.
//!
//! [proc connector]: https://docs.kernel.org/driver-api/connector.html
#![expect(unsafe_code, reason = "netlink sockets, their addresses and filters")]
#![expect(clippy::cast_possible_truncation, reason = "sizes of structs, and numbers of C headers")]

use std::mem::size_of_val;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use nix::errno::Errno;
use nix::unistd::write;

use crate::sys::above_two;

/// `CN_IDX_PROC` and `CN_VAL_PROC`: the connector, and its multicast group.
const CONNECTOR: u32 = 1;
/// `PROC_CN_MCAST_LISTEN`
const LISTEN: u32 = 1;

/// `enum proc_cn_event`
const NONE: u32 = 0;
const FORK: u32 = 1;
const EXEC: u32 = 2;
const EXIT: u32 = 0x8000_0000;

/// Where a packet has what: `nlmsghdr` has 16 bytes, `cn_msg` 20, `proc_event` 16 before its data.
const WHAT: usize = 36;
const AT: usize = 44;
const DATA: usize = 52;

/// Bytes of events that the socket holds until they are read: some ten thousand.
const BACKLOG: i32 = 8 << 20;

/// What has happened to a process (not to a thread of it), at a time of the monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct News {
    pub(crate) at: u64,
    pub(crate) pid: i32,
    pub(crate) what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// It was started by this process.
    Forked(i32),
    Executed,
    /// With this status, as wait(2) has it.
    Exited(i32),
}

/// A socket that hears of every process of the machine.
#[derive(Debug)]
pub(crate) struct ProcEvents(OwnedFd);

impl ProcEvents {
    /// Starts to listen. Refused outside of the initial pid and user namespaces, in another network
    /// namespace, and to ordinary users before Linux 6.6.
    pub(crate) fn open() -> Result<Self, Errno> {
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: no memory is involved.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_CONNECTOR) };
        let fd = Errno::result(fd)?;
        // SAFETY: the kernel has just opened this fd for us.
        let socket = above_two(unsafe { OwnedFd::from_raw_fd(fd) })?;
        filter(socket.as_fd())?;
        // The first one needs a right, the second one is bounded by the administrator.
        let _ = set(socket.as_fd(), libc::SO_RCVBUFFORCE, &BACKLOG)
            .or_else(|_| set(socket.as_fd(), libc::SO_RCVBUF, &BACKLOG));
        bind(socket.as_fd())?;
        let this = Self(socket);
        write(&this.0, &request())?;
        this.confirmed()?;
        Ok(this)
    }

    /// The kernel answers while the request is written, or, in a namespace of its own, not at all.
    fn confirmed(&self) -> Result<(), Errno> {
        let mut buffer = [0; 256];
        // Events of others may come before the answer.
        for _ in 0..4096 {
            let packet = self.packet(&mut buffer)?;
            if u32_at(packet, WHAT) == Some(NONE) {
                let errno = u32_at(packet, DATA).unwrap_or(0).cast_signed();
                return if errno == 0 { Ok(()) } else { Err(Errno::from_raw(errno)) };
            }
        }
        Err(Errno::EAGAIN)
    }

    /// The next news; `EAGAIN` where there is none, `ENOBUFS` where some were lost.
    pub(crate) fn next(&self) -> Result<Option<News>, Errno> {
        let mut buffer = [0; 256];
        self.packet(&mut buffer).map(parse)
    }

    /// Takes one packet; an empty one for that of a process, which may send what looks like the
    /// kernel's.
    fn packet<'a>(&self, buffer: &'a mut [u8]) -> Result<&'a [u8], Errno> {
        // SAFETY: plain numbers, for which zero is valid.
        let mut sender: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        let mut len = size_of_val(&sender) as libc::socklen_t;
        let (into, size) = (buffer.as_mut_ptr().cast(), buffer.len());
        let (sender_at, len_at) = ((&raw mut sender).cast(), &raw mut len);
        // SAFETY: the buffer and the address are writable, and as long as is said.
        let count = unsafe { libc::recvfrom(self.0.as_raw_fd(), into, size, 0, sender_at, len_at) };
        let count = usize::try_from(Errno::result(count)?).unwrap_or(0);
        let is_kernels = sender.nl_pid == 0;
        Ok(buffer.get(..count).filter(|_| is_kernels).unwrap_or_default())
    }
}

impl AsFd for ProcEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Parses one packet; none for an event of a thread, or of another kind.
fn parse(packet: &[u8]) -> Option<News> {
    let field = |place: usize| u32_at(packet, DATA + place * 4).map(u32::cast_signed);
    let news = |place, what| Some(News { at: u64_at(packet, AT)?, pid: field(place)?, what });
    match u32_at(packet, WHAT)? {
        FORK if field(2) == field(3) => news(3, What::Forked(field(1)?)),
        EXEC => news(1, What::Executed),
        EXIT if field(0) == field(1) => news(1, What::Exited(field(2)?)),
        _ => None,
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// `nlmsghdr`, `cn_msg`, and the wish to listen.
fn request() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(40);
    bytes.extend_from_slice(&40u32.to_ne_bytes());
    bytes.extend_from_slice(&3u16.to_ne_bytes()); // NLMSG_DONE
    bytes.extend_from_slice(&[0; 10]);
    bytes.extend_from_slice(&CONNECTOR.to_ne_bytes());
    bytes.extend_from_slice(&CONNECTOR.to_ne_bytes());
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(&4u16.to_ne_bytes());
    bytes.extend_from_slice(&[0; 2]);
    bytes.extend_from_slice(&LISTEN.to_ne_bytes());
    bytes
}

/// Joins the connector's group.
fn bind(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: plain numbers, for which zero is valid.
    let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
    address.nl_groups = CONNECTOR;
    let len = size_of_val(&address) as libc::socklen_t;
    // SAFETY: an address of this length.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), ptr::from_ref(&address).cast(), len) };
    Errno::result(bound).map(drop)
}

fn set<T>(socket: BorrowedFd<'_>, option: i32, value: &T) -> Result<(), Errno> {
    let len = size_of_val(value) as libc::socklen_t;
    let (fd, value) = (socket.as_raw_fd(), ptr::from_ref(value).cast());
    // SAFETY: a value of this length, which the kernel copies.
    let done = unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, option, value, len) };
    Errno::result(done).map(drop)
}

/// Lets only the three kinds of event through, and the answer to the request; and of the threads
/// that come and go only those that are processes: the others would wake this process for nothing.
fn filter(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    let load = |at: usize| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, at as u32);
    // A load is in the order of the network.
    let is = |what: u32, yes, no| {
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, yes, no, what.to_be())
    };
    let keep = step(libc::BPF_MISC | libc::BPF_TAX, 0, 0, 0);
    let same = |yes, no| step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_X, yes, no, 0);
    let answer = |bytes| step(libc::BPF_RET | libc::BPF_K, 0, 0, bytes);
    let program = [
        load(WHAT),
        is(EXEC, 11, 0),
        is(NONE, 10, 0),
        is(FORK, 1, 0),
        is(EXIT, 4, 9),
        load(DATA + 8),
        keep,
        load(DATA + 12),
        same(4, 5),
        load(DATA),
        keep,
        load(DATA + 4),
        same(0, 1),
        answer(u32::MAX),
        answer(0),
    ];
    let filter = libc::sock_fprog {
        len: program.len() as libc::c_ushort,
        filter: program.as_ptr().cast_mut(),
    };
    set(socket, libc::SO_ATTACH_FILTER, &filter)
}

fn step(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(what: u32, data: &[u32]) -> Vec<u8> {
        let mut bytes = vec![0; WHAT];
        bytes.extend_from_slice(&what.to_ne_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&7u64.to_ne_bytes());
        data.iter().for_each(|field| bytes.extend_from_slice(&field.to_ne_bytes()));
        bytes
    }

    #[test]
    fn a_packet_is_about_a_process_or_about_nothing() {
        let news = |pid, what| Some(News { at: 7, pid, what });
        assert_eq!(parse(&packet(FORK, &[10, 11, 20, 20])), news(20, What::Forked(11)));
        assert_eq!(parse(&packet(FORK, &[10, 11, 21, 20])), None);
        assert_eq!(parse(&packet(EXEC, &[10, 11])), news(11, What::Executed));
        assert_eq!(parse(&packet(EXIT, &[10, 10, 9, 17])), news(10, What::Exited(9)));
        assert_eq!(parse(&packet(EXIT, &[10, 11, 9, 17])), None);
        assert_eq!(parse(&packet(NONE, &[0])), None);
        assert_eq!(parse(&packet(FORK, &[10])), None);
        assert_eq!(parse(b"short"), None);
    }
}
