//! The URL of an HTTP server, and the addresses at which a server counts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::proc::sock_diag::Socket;

/// The port of a URL that names none.
const DEFAULT_PORT: u16 = 80;

pub(crate) const NO_HTTPS: &str =
    "https is not spoken: wait for its port (Ready::tcp), or for a line of its log (Ready::log)";
pub(crate) const NO_URL: &str = "give it as http://HOST:PORT/PATH";

/// The request to an HTTP server, and the status that it has to answer.
#[derive(Clone)]
pub(crate) struct Url {
    /// Where it has to listen.
    pub(crate) at: Host,
    /// What the `Host:` line says.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) path: String,
    pub(crate) status: Option<u16>,
}

/// Parses `http://HOST[:PORT]/PATH`; an error says what is wrong with it.
pub(crate) fn parse(url: &str) -> Result<Url, &'static str> {
    if url.starts_with("https://") {
        return Err(NO_HTTPS);
    }
    split(url).ok_or(NO_URL)
}

fn split(url: &str) -> Option<Url> {
    let rest = url.strip_prefix("http://")?;
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let bracket = authority.rfind(']');
    let colon = authority.rfind(':').filter(|&at| bracket.is_none_or(|bracket| at > bracket));
    let (name, port) = match colon {
        Some(colon) => {
            let port = authority.get(colon + 1..)?.parse().ok().filter(|&port| port != 0)?;
            (authority.get(..colon)?, port)
        }
        None => (authority, DEFAULT_PORT),
    };
    let plain = url.chars().all(|c| c.is_ascii_graphic());
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    (plain && !name.is_empty()).then(|| Url {
        at: Host::of(name),
        host: authority.to_owned(),
        port,
        path,
        status: None,
    })
}

/// The addresses at which a server counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Host {
    /// Whichever: none was named, or a name was, which is not looked up.
    #[default]
    Any,
    /// `localhost`, in either family.
    Loopback,
    Ip(IpAddr),
}

impl Host {
    /// Parses an address, in brackets or without, or a name.
    pub(crate) fn of(text: &str) -> Self {
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        match bare.parse::<IpAddr>() {
            Ok(ip) if ip.is_unspecified() => Self::Any,
            Ok(ip) => Self::Ip(ip),
            Err(_) if text.eq_ignore_ascii_case("localhost") => Self::Loopback,
            Err(_) => Self::Any,
        }
    }

    /// The address at which this host's client reaches a socket that listens, if it does.
    pub(crate) fn reach(self, socket: &Socket) -> Option<SocketAddr> {
        let own = socket.address.ip();
        let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let reached = match self {
            Self::Any => Some(match own {
                IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
                own => own,
            }),
            Self::Loopback => loopback.into_iter().find(|ip| is_at(socket, *ip)),
            Self::Ip(ip) => Some(ip).filter(|ip| is_at(socket, *ip)),
        };
        reached.map(|ip| SocketAddr::new(ip, socket.address.port()))
    }
}

/// Whether a socket listens on this address, by itself or on all of them.
fn is_at(socket: &Socket, ip: IpAddr) -> bool {
    match (socket.address.ip().to_canonical(), ip.to_canonical()) {
        (own, ip) if own == ip => true,
        (IpAddr::V6(own), IpAddr::V4(_)) => own.is_unspecified() && !socket.v6_only,
        (own, ip) => own.is_unspecified() && own.is_ipv4() == ip.is_ipv4(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::port::Protocol;

    #[test]
    fn urls_have_a_host_a_port_and_a_path() {
        let parts = |url| parse(url).map(|url| (url.host, url.port, url.path));
        let are = |host: &str, port, path: &str| Ok((host.to_owned(), port, path.to_owned()));
        assert_eq!(parts("http://localhost:8080/a?b"), are("localhost:8080", 8080, "/a?b"));
        assert_eq!(parts("http://localhost?b"), are("localhost", 80, "/?b"));
        assert_eq!(parts("http://localhost"), are("localhost", 80, "/"));
        assert_eq!(parts("http://[::1]:81"), are("[::1]:81", 81, "/"));
        assert_eq!(parts("http://[::1]/"), are("[::1]", 80, "/"));
        for odd in ["ftp://a/", "a:80", "http://", "http://:80/", "http://a:0/", "http://a:x/"] {
            assert_eq!(parts(odd), Err(NO_URL), "{odd}");
        }
        assert_eq!(parts("http://a/\r\nX: y"), Err(NO_URL));
        assert_eq!(parts("https://a/"), Err(NO_HTTPS));
    }

    /// Whether a server that listens here is reached by that host, and where.
    fn reached(host: &str, listens: &str, v6_only: bool) -> Option<String> {
        let address = listens.parse().ok()?;
        let socket = Socket { protocol: Protocol::Tcp, address, inode: 1, v6_only };
        Host::of(host).reach(&socket).map(|address| address.to_string())
    }

    #[test]
    fn a_host_reaches_what_listens_at_its_addresses() {
        let all = |listens| reached("localhost", listens, false);
        assert_eq!(all("127.0.0.1:1").as_deref(), Some("127.0.0.1:1"));
        assert_eq!(all("[::1]:1").as_deref(), Some("[::1]:1"));
        assert_eq!(all("0.0.0.0:1").as_deref(), Some("127.0.0.1:1"));
        assert_eq!(all("[::]:1").as_deref(), Some("127.0.0.1:1"));
        assert_eq!(reached("localhost", "[::]:1", true).as_deref(), Some("[::1]:1"));
        assert_eq!(all("192.0.2.1:1"), None);
        assert_eq!(reached("127.0.0.1", "[::1]:1", false), None);
        assert_eq!(reached("127.0.0.1", "[::]:1", true), None);
        assert_eq!(
            reached("127.0.0.1", "[::ffff:127.0.0.1]:1", false).as_deref(),
            Some("127.0.0.1:1")
        );
        assert_eq!(reached("[::1]", "127.0.0.1:1", false), None);
        assert_eq!(reached("[::1]", "0.0.0.0:1", false), None);
        assert_eq!(reached("::1", "[::]:1", true).as_deref(), Some("[::1]:1"));
        for any in ["0.0.0.0", "[::]", "api.example"] {
            assert_eq!(reached(any, "192.0.2.1:1", false).as_deref(), Some("192.0.2.1:1"), "{any}");
        }
    }
}
