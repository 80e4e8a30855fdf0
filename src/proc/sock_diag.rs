//! Lists the sockets of this network namespace by [sock_diag(7)].
//!
//! `/proc/net/tcp` says the same, but walks the table of *all* connections for it, whose size grows
//! with the machine's memory: it takes 1,900 us on a small virtual machine, sock_diag 20 us. So
//! `/proc` is read only for other namespaces and where netlink is refused.
//!
//! [sock_diag(7)]: https://man7.org/linux/man-pages/man7/sock_diag.7.html

use std::cell::Cell;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Instant;

use nix::errno::Errno;
use nix::unistd::{read, write};
use procfs_core::net::{TcpNetEntries, UdpNetEntries};
use procfs_core::{ExplicitSystemInfo, FromReadSI};

use crate::proc::port::Protocol;
use crate::sys;

/// One bound socket that waits for peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Socket {
    pub(crate) protocol: Protocol,
    pub(crate) address: SocketAddr,
    pub(crate) inode: u64,
    /// It is at `[::]` and takes no connections of IPv4. `/proc` does not say.
    pub(crate) v6_only: bool,
}

/// `AF_INET` and `AF_INET6`, in the width that netlink has for them.
const FAMILIES: [u8; 2] = [2, 10];
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST | NLM_F_DUMP`
const DUMP: u16 = 0x301;
const HEADER: usize = 16;

/// Bytes of a table in `/proc/net` that are read: some hundred thousand connections.
const TABLE: u64 = 64 << 20;

/// The states of TCP that `/proc/net/udp` has too: an unconnected UDP socket is "closed".
const CLOSE: u32 = 7;
const LISTEN: u32 = 10;

/// A netlink socket for requests; it belongs to the network namespace that it was made in.
#[derive(Debug)]
pub(crate) struct Diag {
    socket: OwnedFd,
    /// The rest of an abandoned answer is in the socket, and would be taken for the next one.
    spent: Cell<bool>,
}

impl Diag {
    /// Opens the socket; some seccomp filters, and kernels without `inet_diag`, refuse it.
    pub(crate) fn open() -> Result<Self, Errno> {
        sys::sock_diag().map(|socket| Self { socket, spent: Cell::new(false) })
    }

    /// Sees the sockets of this protocol that wait for peers, until then at the latest.
    pub(crate) fn each_socket(
        &self,
        protocol: Protocol,
        until: Instant,
        see: &mut dyn FnMut(Socket),
    ) -> Result<(), Errno> {
        if self.spent.replace(true) {
            return Err(Errno::EBUSY);
        }
        for family in FAMILIES {
            write(&self.socket, &request(family, protocol))?;
            while !self.answers(protocol, until, see)? {}
        }
        self.spent.set(false);
        Ok(())
    }

    /// Reads one packet of answers; true after the last.
    fn answers(
        &self,
        protocol: Protocol,
        until: Instant,
        see: &mut dyn FnMut(Socket),
    ) -> Result<bool, Errno> {
        let mut buffer = [0; 16 * 1024];
        let len = read(&self.socket, &mut buffer)?;
        let is_last = messages(buffer.get(..len).unwrap_or_default(), protocol, see)?;
        if !is_last && Instant::now() >= until { Err(Errno::ETIMEDOUT) } else { Ok(is_last) }
    }
}

/// Parses one packet of answers; true if the last one is in it.
pub(crate) fn messages(
    packet: &[u8],
    protocol: Protocol,
    see: &mut dyn FnMut(Socket),
) -> Result<bool, Errno> {
    let mut rest = packet;
    while let Some(length) = u32_at(rest, 0).filter(|&length| length as usize >= HEADER) {
        let message = rest.get(HEADER..length as usize).ok_or(Errno::EBADMSG)?;
        match i32::from(u16_at(rest, 4).unwrap_or(0)) {
            libc::NLMSG_DONE => return Ok(true),
            libc::NLMSG_ERROR => {
                let errno = u32_at(message, 0).unwrap_or(0).cast_signed();
                return Err(Errno::from_raw(errno.checked_neg().unwrap_or(0)));
            }
            _ => socket(message, protocol).into_iter().for_each(&mut *see),
        }
        rest = rest.get((length as usize).next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// `nlmsghdr` and `inet_diag_req_v2`: all sockets of this family in the wanted state.
fn request(family: u8, protocol: Protocol) -> Vec<u8> {
    // IPPROTO_TCP and IPPROTO_UDP, likewise.
    let (number, state) = match protocol {
        Protocol::Tcp => (6, LISTEN),
        Protocol::Udp => (17, CLOSE),
    };
    let mut bytes = Vec::with_capacity(72);
    bytes.extend_from_slice(&72u32.to_ne_bytes());
    bytes.extend_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend_from_slice(&DUMP.to_ne_bytes());
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(&[family, number, 0, 0]);
    bytes.extend_from_slice(&(1u32 << state).to_ne_bytes());
    bytes.extend_from_slice(&[0; 48]);
    bytes
}

/// `inet_diag_msg`: family, four addresses and ports in network order, the inode last.
fn socket(message: &[u8], protocol: Protocol) -> Option<Socket> {
    let port = u16::from_be(u16_at(message, 4)?);
    let address = message.get(8..24)?;
    let ip = if i32::from(*message.first()?) == libc::AF_INET {
        IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(address.get(..4)?).ok()?))
    } else {
        IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(address).ok()?))
    };
    let inode = u64::from(u32_at(message, 68)?);
    let v6_only = attribute(message.get(72..)?, SKV6ONLY) == Some(1);
    let address = SocketAddr::new(ip, port);
    (inode != 0).then_some(Socket { protocol, address, inode, v6_only })
}

/// `INET_DIAG_SKV6ONLY`
const SKV6ONLY: u16 = 11;

/// Finds an attribute of one byte (`nlattr`: length, kind, value).
fn attribute(mut bytes: &[u8], wanted: u16) -> Option<u8> {
    loop {
        let (length, kind) = (usize::from(u16_at(bytes, 0)?), u16_at(bytes, 2)?);
        if kind == wanted {
            return bytes.get(4..length)?.first().copied();
        }
        bytes = bytes.get(length.max(4).next_multiple_of(4)..)?;
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Sees the sockets of another process's network namespace, from `/proc/PID/net`; none if the
/// process is gone.
pub(crate) fn each_socket_seen_by(
    pid: i32,
    protocol: Protocol,
    until: Instant,
    see: &mut dyn FnMut(Socket),
) {
    let (tables, state) = match protocol {
        Protocol::Tcp => (["tcp", "tcp6"], "0A"),
        Protocol::Udp => (["udp", "udp6"], "07"),
    };
    for name in tables {
        let Ok(file) = File::open(format!("/proc/{pid}/net/{name}")) else { continue };
        let lines = BufReader::new(file.take(TABLE)).lines().map_while(Result::ok).skip(1);
        for line in lines.take_while(|_| Instant::now() < until) {
            // The table has all connections of the machine: few of them are worth parsing.
            if line.split_ascii_whitespace().nth(3) == Some(state) {
                entry(&line, protocol).into_iter().for_each(&mut *see);
            }
        }
    }
}

/// Parses one line of such a table.
pub(crate) fn entry(line: &str, protocol: Protocol) -> Option<Socket> {
    // Of these the order of bytes alone matters here.
    let machine = ExplicitSystemInfo {
        boot_time_secs: 0,
        ticks_per_second: 100,
        page_size: 4096,
        is_little_endian: cfg!(target_endian = "little"),
    };
    let table = format!("heading\n{line}\n");
    let (address, inode) = match protocol {
        Protocol::Tcp => {
            let table = TcpNetEntries::from_read(table.as_bytes(), &machine).ok()?;
            table.0.first().map(|entry| (entry.local_address, entry.inode))?
        }
        Protocol::Udp => {
            let table = UdpNetEntries::from_read(table.as_bytes(), &machine).ok()?;
            table.0.first().map(|entry| (entry.local_address, entry.inode))?
        }
    };
    (inode != 0).then_some(Socket { protocol, address, inode, v6_only: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_an_answer_of_the_kernel() {
        let mut message = [0; 72];
        message[0] = 2;
        message[4..6].copy_from_slice(&8080u16.to_be_bytes());
        message[8..12].copy_from_slice(&[127, 0, 0, 1]);
        message[68..].copy_from_slice(&77u32.to_ne_bytes());
        let found = socket(&message, Protocol::Tcp).map(|s| (s.address.to_string(), s.inode));
        assert_eq!(found, Some(("127.0.0.1:8080".to_owned(), 77)));
        assert_eq!(socket(&message[..71], Protocol::Tcp), None);
        assert_eq!(socket(&[], Protocol::Udp), None);
    }

    #[test]
    fn reads_whether_a_socket_is_for_ipv6_alone() {
        let mut message = vec![0; 72];
        message[0] = 10;
        message[68] = 1;
        let v6_only = |message: &[u8]| socket(message, Protocol::Tcp).map(|s| s.v6_only);
        assert_eq!(v6_only(&message), Some(false));
        message.extend_from_slice(&[5, 0, 8, 0, 7, 0, 0, 0, 5, 0, 11, 0, 1, 0, 0, 0]);
        assert_eq!(v6_only(&message), Some(true));
        message[84] = 0;
        assert_eq!(v6_only(&message), Some(false));
        for cut in 73..88 {
            assert!(v6_only(&message[..cut]).is_some());
        }
    }
}
