//! `/proc/PID/net/tcp`, `tcp6`, `udp`, `udp6` and `unix`.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use libfuzzer_sys::fuzz_target;
use procfs_core::FromBufRead;
use procfs_core::net::UnixNetEntries;
use tidy_process::Protocol;
use tidy_process::fuzzing::{table_line, unix_listener};

fuzz_target!(|data: &[u8]| {
    for line in data.split(|byte| *byte == b'\n') {
        local_names(line);
        let Ok(text) = std::str::from_utf8(line) else { continue };
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            if let Some(found) = table_line(text, protocol) {
                assert_eq!(Some(found), read(text), "{text:?}");
            }
        }
    }
});

/// The fields that matter, read by hand.
fn read(line: &str) -> Option<(SocketAddr, u64)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (address, inode) = (*fields.get(1)?, fields.get(9)?.parse().ok()?);
    let mut parts = address.split(':');
    let (ip, port) = (parts.next()?, u16::from_str_radix(parts.next()?, 16).ok()?);
    // Words of four bytes in the machine's order.
    let word = |at: usize| u32::from_str_radix(ip.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip = match ip.len() {
        8 => IpAddr::from(Ipv4Addr::from(word(0)?)),
        _ => {
            let all = [word(0)?, word(8)?, word(16)?, word(24)?].concat();
            IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(all).ok()?))
        }
    };
    Some((SocketAddr::new(ip, port), inode))
}

fn local_names(line: &[u8]) {
    let Some((inode, path)) = unix_listener(line) else { return };
    assert!(!path.as_os_str().is_empty());
    let table = [b"heading\n", line].concat();
    let Ok(theirs) = UnixNetEntries::from_buf_read(&*table) else { return };
    let [entry] = theirs.0.as_slice() else { return };
    let Some(text) = path.to_str() else { return };
    // procfs takes what stands before a space for the path, and other spaces for some.
    if !text.contains(char::is_whitespace)
        && line.is_ascii()
        && !line.iter().any(|b| (9..14).contains(b))
    {
        assert_eq!((inode, Some(path)), (entry.inode, entry.path.as_deref()), "{line:?}");
    }
}
