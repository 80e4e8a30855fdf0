//! Waits until a child is ready: the conditions, the loop, and the errors when it is not.
//!
//! A condition must be met *by the tree*: a port counts when one of its processes listens on it, so
//! that a server that an earlier run has left is never taken for the child.

pub(crate) mod condition;
pub(crate) mod probe;
pub(crate) mod tcp;
pub(crate) mod unix;
pub(crate) mod http;
pub(crate) mod interval;

use std::fmt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use crate::child::Child;
use crate::error::{Error, Result, Step};
use crate::proc::info::Survey;
use crate::proc::quote::{enumerated, quoted_lines};
use crate::proc::sockets::{budget, listening};
use crate::proc::survey;
use crate::ready::condition::{Found, Url};
use crate::ready::interval::Pace;
use crate::ready::probe::{Change, Goal, Http, Line};
use crate::ready::tcp::Tcp;
use crate::ready::unix::Unix;
use crate::sys::poll::Deadline;

/// What a child has done when it is ready; for [`Child::wait_ready`].
///
/// The closures of [`line`](Self::line) and [`when`](Self::when) are for all other conditions, a
/// regular expression say.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use tidy_process::{Command, Log, Ready};
///
/// let log = Log::unnamed()?;
/// let server = Command::new("sh").args(["-c", "echo serving; sleep 60"]).log(&log).spawn()?;
/// server.wait_ready(Ready::log("serving"), Duration::from_secs(5))?;
/// # Ok::<(), tidy_process::Error>(())
/// ```
pub struct Ready<'a> {
    goal: Goal<'a>,
    what: String,
}

impl<'a> Ready<'a> {
    fn new(goal: Goal<'a>, what: String) -> Self {
        Self { goal, what }
    }

    /// A process of the tree listens on this TCP port, on whichever address. If a process that is
    /// not of the tree does, the wait fails at once and names it.
    #[must_use]
    pub fn tcp(port: u16) -> Self {
        Self::new(Goal::Tcp(Tcp::new(Some(port))), format!("tcp port {port}"))
    }

    /// A process of the tree listens on any TCP port;
    /// [`Tree::listening_ports`](crate::Tree::listening_ports) says on which one.
    #[must_use]
    pub fn any_tcp() -> Self {
        Self::new(Goal::Tcp(Tcp::new(None)), "any tcp port".to_owned())
    }

    /// A process of the tree listens on this Unix socket; `@name` is in the abstract namespace.
    #[must_use]
    pub fn unix(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref().to_owned();
        let what = format!("unix socket {path:?}");
        Self::new(Goal::Unix(Unix::new(path)), what)
    }

    /// This file was made or changed since the spawn: what an earlier run left does not count.
    #[must_use]
    pub fn file(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref().to_owned();
        let what = format!("file {path:?}");
        Self::new(Goal::File(Change::new(path)), what)
    }

    /// A GET of this `http://HOST[:PORT]/PATH` is answered, with a status from 200 to 399, by a
    /// process of the tree. The request goes to the address that the tree listens on, on this
    /// machine; HOST is what the `Host:` line says.
    ///
    /// # Errors
    /// It is no such URL.
    pub fn http(url: &str) -> Result<Self> {
        let parsed = parse(url).ok_or_else(|| {
            let why = "give it as http://HOST:PORT/PATH";
            Error::invalid(Step::Prepare, format!("url {url:?}"), why)
        })?;
        Ok(Self::new(Goal::Http(Http::new(parsed)), url.to_owned()))
    }

    /// As [`http`](Self::http), for exactly this status.
    ///
    /// # Errors
    /// It is no such URL.
    pub fn http_status(url: &str, status: u16) -> Result<Self> {
        let mut ready = Self::http(url)?;
        ready.what = format!("{url} with status {status}");
        if let Goal::Http(http) = &mut ready.goal {
            http.url.status = Some(status);
        }
        Ok(ready)
    }

    /// A line with this text in it, in what the child writes to its
    /// [`log`](crate::Command::log).
    #[must_use]
    pub fn log(text: impl Into<String>) -> Self {
        let text = text.into();
        let what = format!("log line {text:?}");
        let matches = move |line: &str| line.contains(&text);
        Self::new(Goal::Line(Line::new(matches)), what)
    }

    /// A line for which this is true, in what the child writes to its
    /// [`log`](crate::Command::log). A last line without newline is looked at too, and again when
    /// it has grown.
    #[must_use]
    pub fn line(matches: impl FnMut(&str) -> bool + Send + 'a) -> Self {
        Self::new(Goal::Line(Line::new(matches)), "log line".to_owned())
    }

    /// This closure returns true. Called every few milliseconds, less often if it takes much CPU
    /// time.
    #[must_use]
    pub fn when(condition: impl FnMut() -> bool + Send + 'a) -> Self {
        Self::new(Goal::When(Box::new(condition)), "condition".to_owned())
    }
}

impl fmt::Debug for Ready<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ready").field(&self.what).finish()
    }
}

pub(crate) fn parse(url: &str) -> Option<Url> {
    let rest = url.strip_prefix("http://")?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let bracket = authority.rfind(']').unwrap_or(0);
    let port = match authority.rfind(':').filter(|&colon| colon > bracket) {
        Some(colon) => authority.get(colon + 1..)?.parse().ok().filter(|&port| port != 0)?,
        None => 80,
    };
    let plain = url.chars().all(|c| c.is_ascii_graphic());
    let path = if path.is_empty() { "/".to_owned() } else { path.to_owned() };
    (plain && !authority.is_empty() && !authority.starts_with(':')).then(|| Url {
        host: authority.to_owned(),
        port,
        path,
        status: None,
    })
}

impl Child {
    /// Waits until the child is ready. Checks every few milliseconds, seldom enough to cost less
    /// than a hundredth of a CPU.
    ///
    /// The main process need not live, since a server may become a daemon; a process of the tree
    /// must.
    ///
    /// # Errors
    /// All of these say the last lines of the [`log`](crate::Command::log), if there is one, and
    /// are [`Error::is_not_ready`]. Nothing of the tree is left: at once, with the exit status. A
    /// process that is not of the tree has the port or socket: at once, with its pid and command
    /// line; [`Error::is_address_in_use`]. The deadline has passed: with the processes of the tree
    /// and the ports that they listen on. And a log line cannot be waited for without a log.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use tidy_process::{Command, Ready};
    ///
    /// let child = Command::new("false").spawn()?;
    /// let error = child.wait_ready(Ready::tcp(8080), Duration::from_secs(5)).unwrap_err();
    /// assert!(error.is_not_ready()); // and it did not take 5 s
    /// # Ok::<(), tidy_process::Error>(())
    /// ```
    pub fn wait_ready(&self, ready: Ready<'_>, deadline: impl Into<Deadline>) -> Result<()> {
        let Deadline(deadline) = deadline.into();
        let mut search = Search::new(self, ready, deadline)?;
        let mut pace = Pace::new();
        loop {
            let status = self.try_wait()?;
            let found = match search.look(status)? {
                Found::Ask(question) => http::answer(&question, deadline),
                found => found,
            };
            let behind = matches!(found, Found::Behind);
            if search.judge(found)? {
                return Ok(());
            }
            if !behind {
                pace.rest(self, deadline);
            }
        }
    }

    fn not_ready(&self, what: &str, mut why: String, taken: bool) -> Error {
        if let Some(log) = &self.log.log {
            let lines = quoted_lines(&log.tail(10));
            let indented = lines.replace('\n', "\n  ");
            let none = "; it has written nothing".to_owned();
            why +=
                &if lines.is_empty() { none } else { format!("; its last lines:\n  {indented}") };
        }
        Error::not_ready(what.to_owned(), why, taken)
    }

    fn seen_instead(&self, after: Duration, seen: Option<String>) -> String {
        let pids = self.tree().pids();
        let Survey { named, count } = survey::of(&pids);
        let processes = few(&named, count);
        let ports = listening(&pids);
        let ports = few(&ports, ports.len());
        let seen = seen.map(|seen| format!("{seen}; ")).unwrap_or_default();
        format!("not yet after {after:.1?}; {seen}processes: {processes}; listening on: {ports}")
    }
}

/// A look may take this long, though the deadline comes before.
const AT_LEAST: Duration = Duration::from_millis(100);

/// One wait: what has to be said if it fails.
pub(crate) struct Search<'a> {
    child: &'a Child,
    what: String,
    goal: Goal<'a>,
    started: Instant,
    deadline: Option<Instant>,
}

impl<'a> Search<'a> {
    pub(crate) fn new(
        child: &'a Child,
        ready: Ready<'a>,
        deadline: Option<Instant>,
    ) -> Result<Self> {
        let Ready { mut goal, what } = ready;
        goal.begin(child, &what)?;
        Ok(Self { child, what, goal, started: Instant::now(), deadline })
    }

    /// Checks once; an error if nothing of the tree is left.
    pub(crate) fn look(&mut self, status: Option<ExitStatus>) -> Result<Found> {
        if let Some(status) = status
            && self.child.tree().is_empty()?
        {
            self.child.log.finish_reading();
            let why = format!("nothing of the tree is left, main process: {status}");
            return Err(self.child.not_ready(&self.what, why, false));
        }
        // One check is made however late it is.
        let latest = budget();
        let until = self.deadline.unwrap_or(latest).max(Instant::now() + AT_LEAST).min(latest);
        Ok(self.goal.look(self.child, until))
    }

    /// Whether the child is ready; an error if it is not and the deadline has passed.
    pub(crate) fn judge(&mut self, found: Found) -> Result<bool> {
        self.goal.heard(&found);
        let seen = match found {
            Found::It => return Ok(true),
            Found::Taken(other) => {
                let why = format!("process {other} has it, which is not of the tree");
                return Err(self.child.not_ready(&self.what, why, true));
            }
            Found::NotYet(seen) => seen.or_else(|| self.goal.seen()),
            Found::Ask(_) | Found::Behind => None,
        };
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            let why = self.child.seen_instead(self.started.elapsed(), seen);
            return Err(self.child.not_ready(&self.what, why, false));
        }
        Ok(false)
    }
}

/// Lists the first ten; `count` is the number of all.
fn few(all: &[impl fmt::Display], count: usize) -> String {
    let text: Vec<String> = all.iter().take(10).map(|one| format!("{one:.120}")).collect();
    if count == 0 { "none".to_owned() } else { enumerated(&text, count, 800) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_have_a_host_a_port_and_a_path() {
        let parts = |url| parse(url).map(|url| (url.host, url.port, url.path));
        let are = |host: &str, port, path: &str| Some((host.to_owned(), port, path.to_owned()));
        assert_eq!(parts("http://localhost:8080/a?b"), are("localhost:8080", 8080, "/a?b"));
        assert_eq!(parts("http://localhost"), are("localhost", 80, "/"));
        assert_eq!(parts("http://[::1]:81"), are("[::1]:81", 81, "/"));
        assert_eq!(parts("http://[::1]/"), are("[::1]", 80, "/"));
        for odd in ["https://a/", "a:80", "http://", "http://:80/", "http://a:0/", "http://a:x/"] {
            assert_eq!(parts(odd), None, "{odd}");
        }
        assert_eq!(parts("http://a/\r\nX: y"), None);
    }
}
