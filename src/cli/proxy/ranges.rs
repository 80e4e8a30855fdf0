//! Which addresses are the internet's: not this machine's, not its network's, no detour to those.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Networks that are not reached by a name, each with the length of its prefix (RFC 6890).
const REFUSED: [([u8; 4], u32); 15] = [
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    ([192, 0, 0, 0], 24),
    ([192, 0, 2, 0], 24),
    ([192, 88, 99, 0], 24),
    ([192, 168, 0, 0], 16),
    ([198, 18, 0, 0], 15),
    ([198, 51, 100, 0], 24),
    ([203, 0, 113, 0], 24),
    ([224, 0, 0, 0], 4),
    ([240, 0, 0, 0], 4),
];

pub(crate) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_4(address),
        IpAddr::V6(address) => is_public_6(address),
    }
}

fn is_public_4(address: Ipv4Addr) -> bool {
    let within = |(network, length): &([u8; 4], u32)| {
        let other = address.to_bits() ^ Ipv4Addr::from(*network).to_bits();
        other.leading_zeros() >= *length
    };
    !REFUSED.iter().any(within)
}

/// Only what is given out (2000::/3), without documentation, and with a look at the address of
/// version 4 that is in some of them.
fn is_public_6(address: Ipv6Addr) -> bool {
    let [a, b, c, ..] = address.segments();
    let inner = |high: u16, low: u16| {
        let [[w, x], [y, z]] = [high, low].map(u16::to_be_bytes);
        is_public_4(Ipv4Addr::new(w, x, y, z))
    };
    let [.., high, low] = address.segments();
    match (a, b) {
        // NAT64: through the network's own translator.
        (0x64, 0xff9b) => address.segments().get(2..6) == Some(&[0; 4]) && inner(high, low),
        // 6to4.
        (0x2002, _) => inner(b, c),
        // Teredo, benchmarks, ORCHID: all of 2001::/23.
        (0x2001, 0..0x200) | (0x2001, 0xdb8) => false,
        (0x3fff, 0..0x1000) => false,
        (0, 0) => address.to_ipv4_mapped().is_some_and(is_public_4),
        _ => a & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_and_special_ranges_are_not_the_internet() {
        let public = |text: &str| text.parse().is_ok_and(is_public);
        for text in [
            "0.0.0.0",
            "10.255.255.255",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "198.19.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2002:c0a8:101::1",
            "2001:0:1::1",
            "2001:db8::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!public(text), "{text}");
        }
        for text in [
            "1.1.1.1",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.0.1",
            "172.32.0.1",
            "192.167.1.1",
            "11.0.0.1",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2002:808:808::1",
            "2606:4700::1111",
            "2a00:1450::1",
        ] {
            assert!(public(text), "{text}");
        }
    }
}
