//! The answers of sock_diag(7), and directory entries.
#![no_main]

use std::net::{IpAddr, SocketAddr};

use libfuzzer_sys::arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use tidy_process::fuzzing::{entries, messages};

fuzz_target!(|data: &[u8]| {
    let (found, _) = messages(data);
    assert!(found.len() <= data.len() / 88, "{} in {}", found.len(), data.len());
    let [library, guard] = entries(data);
    assert_eq!(library, guard);
    assert!(library.len() <= data.len() / 20);
    if let Ok(sockets) = Vec::<(IpAddr, u16, u32)>::arbitrary(&mut Unstructured::new(data)) {
        come_back(&sockets);
    }
});

fn come_back(sockets: &[(IpAddr, u16, u32)]) {
    let mut packet = Vec::new();
    for (ip, port, inode) in sockets {
        packet.extend(header(16 + 72, 20));
        let (family, address) = match ip {
            IpAddr::V4(ip) => (2, [&ip.octets()[..], &[0; 12]].concat()),
            IpAddr::V6(ip) => (10, ip.octets().to_vec()),
        };
        packet.extend([family, 10, 0, 0]);
        packet.extend(port.to_be_bytes());
        packet.extend([0, 0]);
        packet.extend(address);
        packet.extend([0; 44]);
        packet.extend(inode.to_ne_bytes());
    }
    let wanted = sockets.iter().filter(|(.., inode)| *inode != 0);
    let wanted: Vec<_> =
        wanted.map(|(ip, port, inode)| (SocketAddr::new(*ip, *port), u64::from(*inode))).collect();
    assert_eq!(messages(&packet), (wanted.clone(), Ok(false)));
    packet.extend(header(16, 3));
    assert_eq!(messages(&packet), (wanted, Ok(true)));
}

fn header(length: u32, kind: u16) -> Vec<u8> {
    [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10]].concat()
}
