//! The value of `--ready`: what a server has done when it is ready.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use tidy_process::Ready;

const FORMS: &str = "give it as 8080, HOST:PORT, tcp (any port), http://HOST:PORT/PATH, \
    http:8080/PATH, http_status:CODE:URL, unix:PATH, log:TEXT or file:PATH";

const NO_PORT: &str = "a port is a number from 1 to 65535";

const NO_HTTPS: &str = "https is not spoken: wait for the server's port (tcp:PORT), or for a line \
    that it writes (log:TEXT)";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ReadyArg {
    AnyTcp,
    /// With the host, if one is named.
    Tcp(Option<String>, u16),
    /// With the status, if one is named.
    Http(String, Option<u16>),
    Unix(PathBuf),
    Log(String),
    File(PathBuf),
}

impl ReadyArg {
    pub(crate) fn ready(&self) -> tidy_process::Result<Ready<'static>> {
        Ok(match self {
            Self::AnyTcp => Ready::any_tcp(),
            Self::Tcp(None, port) => Ready::tcp(*port),
            Self::Tcp(Some(host), port) => Ready::tcp_at(host, *port),
            Self::Http(url, None) => return Ready::http(url),
            Self::Http(url, Some(status)) => return Ready::http_status(url, *status),
            Self::Unix(path) => Ready::unix(path),
            Self::Log(text) => Ready::log(text),
            Self::File(path) => Ready::file(path),
        })
    }

    /// The port that the value names.
    pub(crate) fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp(_, port) => Some(*port),
            Self::Http(url, _) => {
                let authority = url.strip_prefix("http://")?.split(['/', '?']).next()?;
                let port = authority.rsplit_once(':').map(|(_, port)| port.parse());
                Some(port.and_then(Result::ok).unwrap_or(80))
            }
            _ => None,
        }
    }

    /// What is awaited, in a word or two.
    pub(crate) fn said(&self) -> String {
        match self {
            Self::AnyTcp => "any port".to_owned(),
            Self::Tcp(None, port) => format!("port {port}"),
            Self::Tcp(Some(host), port) => format!("{host}:{port}"),
            Self::Http(url, None) => url.clone(),
            Self::Http(url, Some(status)) => format!("{status} from {url}"),
            Self::Unix(path) | Self::File(path) => format!("{path:?}"),
            Self::Log(text) => format!("log line {text:?}"),
        }
    }
}

/// Parses `--ready`; a path in it need not be UTF-8.
pub(crate) fn ready_word(word: &OsStr) -> Result<ReadyArg, String> {
    let path = |kind: &[u8]| {
        let path = word.as_bytes().strip_prefix(kind).filter(|path| !path.is_empty());
        path.map(|path| PathBuf::from(OsStr::from_bytes(path)))
    };
    match word.to_str() {
        Some(text) => ready_arg(text),
        None => path(b"file:")
            .map(ReadyArg::File)
            .or_else(|| path(b"unix:").map(ReadyArg::Unix))
            .ok_or_else(|| "only the path of file: and unix: may be other than UTF-8".to_owned()),
    }
}

fn ready_arg(text: &str) -> Result<ReadyArg, String> {
    match text.split_once(':') {
        None if text == "tcp" => Ok(ReadyArg::AnyTcp),
        Some(("https", _)) => Err(NO_HTTPS.to_owned()),
        Some(("http", rest)) if rest.starts_with("//") => http(text, None),
        Some(("http", rest)) => http(&url(rest), None),
        Some(("http_status", rest)) => {
            let (code, rest) = rest.split_once(':').ok_or(FORMS)?;
            let code = code.parse().ok().filter(|code| (200..=599).contains(code));
            let code = code.ok_or("a status is a number from 200 to 599")?;
            match rest.strip_prefix("http:").filter(|rest| !rest.starts_with("//")) {
                Some(rest) => http(&url(rest), Some(code)),
                None if rest.starts_with("https:") => Err(NO_HTTPS.to_owned()),
                None if rest.starts_with("http://") => http(rest, Some(code)),
                None => http(&url(rest), Some(code)),
            }
        }
        Some(("tcp", place)) => tcp(place),
        Some(("unix", path)) if !path.is_empty() => Ok(ReadyArg::Unix(path.into())),
        Some(("file", path)) if !path.is_empty() => Ok(ReadyArg::File(path.into())),
        Some(("log", line)) if !line.is_empty() => Ok(ReadyArg::Log(line.into())),
        Some(("unix" | "file" | "log", _)) => Err(FORMS.to_owned()),
        _ if is_place(text) && text.contains('/') => http(&url(text), None),
        _ if is_place(text) => tcp(text),
        _ => Err(FORMS.to_owned()),
    }
}

/// Whether it begins as `8080`, `:8080` or `HOST:8080` do.
fn is_place(text: &str) -> bool {
    let authority = text.split('/').next().unwrap_or_default();
    let port = authority.rsplit(':').next().unwrap_or_default();
    !port.is_empty() && port.chars().all(|c| c.is_ascii_digit())
}

/// `8080`, `:8080`, `HOST:8080`; an IPv6 address stands in brackets.
fn tcp(place: &str) -> Result<ReadyArg, String> {
    let (host, port) = place.rsplit_once(':').unwrap_or(("", place));
    let port = port.parse().ok().filter(|&port| port != 0).ok_or(NO_PORT)?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c) || bracketed;
    if host.chars().all(plain) {
        Ok(ReadyArg::Tcp(Some(host.to_owned()).filter(|host| !host.is_empty()), port))
    } else {
        Err("a host is a name, an IPv4 address, or an IPv6 address in brackets".to_owned())
    }
}

/// The URL of `8080/PATH`, `:8080` or `HOST:PORT/PATH`.
fn url(place: &str) -> String {
    let (authority, _) = place.split_at(place.find(['/', '?']).unwrap_or(place.len()));
    match authority.chars().all(|c| c.is_ascii_digit()) {
        true if authority.is_empty() => format!("http://localhost{place}"),
        true => format!("http://localhost:{place}"),
        false if authority.starts_with(':') => format!("http://localhost{place}"),
        false => format!("http://{place}"),
    }
}

fn http(url: &str, status: Option<u16>) -> Result<ReadyArg, String> {
    Ready::http(url)
        .map_err(|error| error.to_string())
        .map(|_| ReadyArg::Http(url.to_owned(), status))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Result<ReadyArg, String> {
        Ok(ReadyArg::Tcp(Some(host.to_owned()).filter(|host| !host.is_empty()), port))
    }

    fn http(url: &str, status: Option<u16>) -> Result<ReadyArg, String> {
        Ok(ReadyArg::Http(url.to_owned(), status))
    }

    #[test]
    fn a_port_may_be_written_in_many_ways() {
        assert_eq!(ready_arg("tcp"), Ok(ReadyArg::AnyTcp));
        for port in ["80", ":80", "tcp:80", "tcp::80"] {
            assert_eq!(ready_arg(port), tcp("", 80), "{port}");
        }
        for (place, host) in [
            ("localhost:80", "localhost"),
            ("tcp:localhost:80", "localhost"),
            ("127.0.0.1:80", "127.0.0.1"),
            ("tcp:[::1]:80", "[::1]"),
            ("[::1]:80", "[::1]"),
            ("a.example:80", "a.example"),
        ] {
            assert_eq!(ready_arg(place), tcp(host, 80), "{place}");
        }
    }

    #[test]
    fn a_url_may_be_short() {
        for (word, url) in [
            ("http:80", "http://localhost:80"),
            ("http::80", "http://localhost:80"),
            ("http:80/a?b=c:d", "http://localhost:80/a?b=c:d"),
            ("http:a:80/x", "http://a:80/x"),
            ("http:/x", "http://localhost/x"),
            ("80/x", "http://localhost:80/x"),
            (":80/x", "http://localhost:80/x"),
            ("localhost:80/x:1", "http://localhost:80/x:1"),
            ("http://[::1]:80", "http://[::1]:80"),
        ] {
            assert_eq!(ready_arg(word), http(url, None), "{word}");
        }
        let url = "http://localhost:80/x";
        for word in ["http_status:404:80/x", "http_status:404:http:80/x"] {
            assert_eq!(ready_arg(word), http(url, Some(404)), "{word}");
        }
        let word = "http_status:204:http://localhost:80/x";
        assert_eq!(ready_arg(word), http(url, Some(204)));
        assert_eq!(ready_arg(word).map(|it| it.port()), Ok(Some(80)));
        assert_eq!(ready_arg("http://a/").map(|it| it.port()), Ok(Some(80)));
        assert_eq!(ready_arg("http://a:81?x").map(|it| it.port()), Ok(Some(81)));
    }

    #[test]
    fn the_rest_is_a_path_or_a_text() {
        assert_eq!(ready_arg("log:a:b"), Ok(ReadyArg::Log("a:b".to_owned())));
        assert_eq!(ready_arg("unix:/run/x"), Ok(ReadyArg::Unix("/run/x".into())));
        assert_eq!(ready_arg("file:x"), Ok(ReadyArg::File("x".into())));
    }

    #[test]
    fn what_cannot_be_awaited_is_refused() {
        for odd in [
            "",
            "tcp:",
            "tcp:0",
            "tcp:x",
            "0",
            "65536",
            ":0",
            "unix:",
            "log:",
            "http://",
            "port",
            "::1:80",
            "a b:80",
            "http_status:80",
            "http_status:100:80",
            "log",
            "x:y",
        ] {
            assert!(ready_arg(odd).is_err(), "{odd:?} was taken as {:?}", ready_arg(odd));
        }
        for https in ["https://a/", "https:443", "http_status:200:https://a/"] {
            assert_eq!(ready_arg(https), Err(NO_HTTPS.to_owned()));
        }
    }

    #[test]
    fn a_path_to_wait_for_need_not_be_text() {
        let path = PathBuf::from(OsStr::from_bytes(b"/x\xff"));
        assert_eq!(ready_word(OsStr::from_bytes(b"file:/x\xff")), Ok(ReadyArg::File(path.clone())));
        assert_eq!(ready_word(OsStr::from_bytes(b"unix:/x\xff")), Ok(ReadyArg::Unix(path)));
        assert!(ready_word(OsStr::from_bytes(b"tcp:\xff")).is_err());
        assert!(ready_word(OsStr::from_bytes(b"file")).is_err());
    }
}
