//! Waits until a child is ready: the conditions, the loop, and the errors when it is not.
//!
//! A condition must be met *by the tree*: a port counts when one of its processes listens on it, so
//! that a server that an earlier run has left is never taken for the child.

pub(crate) mod condition;
pub(crate) mod probe;
pub(crate) mod tcp;
pub(crate) mod unix;
pub(crate) mod http;
pub(crate) mod url;
pub(crate) mod interval;
pub(crate) mod steps;

use std::fmt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use crate::child::Child;
use crate::error::advice::{Advice, HELD_BACK};
use crate::error::{Error, Result, Step};
use crate::proc::info::Survey;
use crate::proc::quote::{enumerated, quoted_lines};
use crate::proc::sockets::{budget, listening};
use crate::proc::survey;
use crate::ready::condition::Found;
use crate::ready::interval::Pace;
use crate::ready::probe::{Change, Goal, Http, Line};
use crate::ready::tcp::Tcp;
use crate::ready::unix::Unix;
use crate::ready::url::Host;
use crate::record::timeline::EventKind;
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
        Self::new(Goal::Tcp(Tcp::new(Some(port), Host::Any)), format!("tcp port {port}"))
    }

    /// As [`tcp`](Self::tcp), where a client of this host reaches it: an address (`127.0.0.1`,
    /// `::1`), or `localhost` for the loopback address of either family. Other names are not looked
    /// up, and mean any address.
    #[must_use]
    pub fn tcp_at(host: &str, port: u16) -> Self {
        let what = format!("tcp port {port} at {host:?}");
        Self::new(Goal::Tcp(Tcp::new(Some(port), Host::of(host))), what)
    }

    /// A process of the tree listens on any TCP port: the first of
    /// [`Tree::listening_ports`](crate::Tree::listening_ports). A debugger's does not count
    /// (`node --inspect`, debugpy, delve, a JVM's jdwp, on the loopback address): the application
    /// comes later.
    #[must_use]
    pub fn any_tcp() -> Self {
        Self::new(Goal::Tcp(Tcp::new(None, Host::Any)), "any tcp port".to_owned())
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
    /// process of the tree; provisional answers (103) are passed over. HOST is as for
    /// [`tcp_at`](Self::tcp_at), and what the `Host:` line says: a server that listens on `::1`
    /// only is not ready for `http://127.0.0.1`. The request goes to this machine, where the tree
    /// listens.
    ///
    /// # Errors
    /// It is no such URL; `https` is not spoken.
    pub fn http(url: &str) -> Result<Self> {
        let parsed = url::parse(url)
            .map_err(|why| Error::invalid(Step::Prepare, format!("url {url:?}"), why))?;
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
                self.recorded.note(EventKind::Ready);
                return Ok(());
            }
            if !behind {
                pace.rest(self, deadline);
            }
        }
    }

    /// Why it is not ready, with the last lines of its log.
    fn with_last_lines(&self, mut why: String) -> String {
        if let Some(log) = &self.log.log {
            let lines = quoted_lines(&log.tail(10));
            let indented = lines.replace('\n', "\n  ");
            let none = "; it has written nothing".to_owned();
            why +=
                &if lines.is_empty() { none } else { format!("; its last lines:\n  {indented}") };
        }
        why
    }

    fn has_written_nothing(&self) -> bool {
        self.log.log.as_ref().is_some_and(|log| log.tail(1).is_empty())
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
            return Err(self.not_ready(why, None));
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
                let why = self.child.with_last_lines(why);
                return Err(Error::taken(self.what.clone(), why, other));
            }
            Found::NotYet(seen) => seen.or_else(|| self.goal.seen()),
            Found::Ask(_) | Found::Behind => None,
        };
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            let why = self.child.seen_instead(self.started.elapsed(), seen);
            let awaits_line = matches!(self.goal, Goal::Line(_));
            let held_back = awaits_line && self.child.has_written_nothing();
            return Err(self.not_ready(why, held_back.then_some(HELD_BACK)));
        }
        Ok(false)
    }

    fn not_ready(&self, why: String, hint: Option<Advice>) -> Error {
        Error::not_ready(self.what.clone(), self.child.with_last_lines(why), hint)
    }
}

/// Lists the first ten; `count` is the number of all.
fn few(all: &[impl fmt::Display], count: usize) -> String {
    let text: Vec<String> = all.iter().take(10).map(|one| format!("{one:.120}")).collect();
    if count == 0 { "none".to_owned() } else { enumerated(&text, count, 800) }
}
