//! `--allow-host`: which hosts may be reached.

use std::fmt;
use std::net::IpAddr;

use crate::proxy::ranges::is_public;

/// What HTTPS uses.
const DEFAULT_PORT: u16 = 443;

/// A host and the port of it that is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    /// In lower case, without a dot at its end; an address as it is usually written.
    name: String,
    port: u16,
}

impl Host {
    /// Parses `NAME[:PORT]`, `1.2.3.4[:PORT]`, `[::1][:PORT]`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        const FORM: &str = "give NAME[:PORT], without scheme, path or wildcard";
        if text.contains('/') {
            return Err(FORM.to_owned());
        }
        let (name, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((name, "")) => (name, None),
            Some((name, rest)) => (name, Some(rest.strip_prefix(':').unwrap_or(""))),
            None if text.parse::<IpAddr>().is_ok() => (text, None),
            None => match text.rsplit_once(':') {
                Some((name, port)) => (name, Some(port)),
                None => (text, None),
            },
        };
        let port = port.map_or(Ok(DEFAULT_PORT), |port| {
            let all_digits = port.bytes().all(|byte| byte.is_ascii_digit());
            let number = port.parse().ok().filter(|&number| all_digits && number > 0);
            number.ok_or_else(|| "the port is a number from 1 to 65535".to_owned())
        })?;
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let name = name.parse::<IpAddr>().map_or(name, |address| address.to_string());
        let is_address = name.parse::<IpAddr>().is_ok();
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || name.len() > 253 || !(is_address || name.bytes().all(known)) {
            return Err(FORM.to_owned());
        }
        Ok(Self { name, port })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

/// `example.org:443`, `[::1]:443`
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, port } = self;
        if name.contains(':') { write!(f, "[{name}]:{port}") } else { write!(f, "{name}:{port}") }
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Rules {
    hosts: Vec<Host>,
}

impl Rules {
    pub(crate) fn new(hosts: Vec<Host>) -> Self {
        Self { hosts }
    }

    pub(crate) fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.hosts.iter()
    }

    pub(crate) fn allow(&self, host: &Host) -> bool {
        self.hosts.contains(host)
    }

    /// Whether an address that an allowed host has may be connected to: one of the internet, or one
    /// that is named by itself. A name does not open the host's own network, whatever it leads to.
    pub(crate) fn allow_address(&self, host: &Host, address: IpAddr) -> bool {
        let named = Host { name: address.to_canonical().to_string(), port: host.port };
        let own = host.name == "localhost" && address.is_loopback();
        is_public(address) || own || self.hosts.contains(&named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Host {
        Host::parse(text).unwrap_or(Host { name: format!("{text} is none"), port: 0 })
    }

    #[test]
    fn a_host_is_a_name_and_a_port() {
        let parsed = |text| (host(text).name, host(text).port);
        for (text, name, port) in [
            ("Example.COM.", "example.com", 443),
            ("a-b.c:8080", "a-b.c", 8080),
            ("10.1.2.3", "10.1.2.3", 443),
            ("10.1.2.3:80", "10.1.2.3", 80),
            ("[::1]:9", "::1", 9),
            ("[0:0::1]", "::1", 443),
            ("::1", "::1", 443),
        ] {
            assert_eq!(parsed(text), (name.to_owned(), port), "{text}");
        }
        for text in [
            "",
            ":1",
            "a:",
            "a:0",
            "a:+1",
            "a:65536",
            "https://a",
            "a/b",
            "*.a",
            "[a",
            "[::1]9",
            "a b",
        ] {
            assert!(Host::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_open_no_private_range() {
        let rules = Rules::new(["a.b", "10.0.0.1", "localhost:80"].map(host).to_vec());
        let may = |name: &str, address: &str| {
            rules.allow_address(&host(name), address.parse().unwrap_or(IpAddr::from([0; 4])))
        };
        assert!(rules.allow(&host("a.b:443")) && rules.allow(&host("A.B.")));
        assert!(!rules.allow(&host("a.b:80")) && !rules.allow(&host("x.a.b")));
        assert!(may("a.b", "1.1.1.1") && !may("a.b", "192.168.0.1") && !may("a.b", "127.0.0.1"));
        // It is named by itself, for this port.
        assert!(may("a.b", "10.0.0.1") && may("a.b", "::ffff:10.0.0.1"));
        assert!(!may("a.b:80", "10.0.0.1") && !may("a.b", "10.0.0.2"));
        assert!(may("localhost:80", "127.0.0.1") && !may("localhost:80", "10.9.9.9"));
    }
}
