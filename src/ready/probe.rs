//! Checks once whether a child is ready, for each condition.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use crate::child::Child;
use crate::error::{Error, Result, Step};
use crate::log::Follower;
use crate::log::excerpt::Lines;
use crate::proc::aside::Aside;
use crate::ready::condition::{Found, Question};
use crate::ready::tcp::Tcp;
use crate::ready::unix::{LOOKUP_WITHIN, Unix};
use crate::ready::url::Url;

/// The least time between two requests to one server: it may log a line for each.
const ASK_INTERVAL: Duration = Duration::from_millis(20);

/// How long a log is read without a pause for anything else.
const SLICE: Duration = Duration::from_millis(5);

/// One condition, and what is remembered from one check to the next.
pub(crate) enum Goal<'a> {
    Tcp(Tcp),
    Http(Http),
    Unix(Unix),
    File(Change),
    Line(Line<'a>),
    When(Box<dyn FnMut() -> bool + Send + 'a>),
}

impl Goal<'_> {
    /// Prepares the first check.
    pub(crate) fn begin(&mut self, child: &Child, what: &str) -> Result<()> {
        match self {
            Self::File(change) => change.begin(child),
            Self::Line(line) => line.begin(child, what)?,
            _ => {}
        }
        Ok(())
    }

    /// Checks once, until then at the longest.
    pub(crate) fn look(&mut self, child: &Child, until: Instant) -> Found {
        match self {
            Self::Tcp(tcp) => match tcp.look(child, until) {
                Ok(_) => Found::It,
                Err(found) => found,
            },
            Self::Http(http) => http.look(child, until),
            Self::Unix(unix) => unix.look(child, until),
            Self::File(change) => change.look(),
            Self::Line(line) => line.look(until),
            Self::When(condition) => found(condition()),
        }
    }

    /// What an earlier check saw, for the error.
    pub(crate) fn seen(&self) -> Option<String> {
        match self {
            Self::Http(http) => http.seen.clone(),
            Self::Tcp(tcp) => tcp.seen(),
            _ => None,
        }
    }

    /// Remembers what the server has answered, for the checks between two requests.
    pub(crate) fn heard(&mut self, answer: &Found) {
        if let (Self::Http(Http { seen, .. }), Found::NotYet(now @ Some(_))) = (self, answer) {
            seen.clone_from(now);
        }
    }
}

fn found(it: bool) -> Found {
    if it { Found::It } else { Found::NotYet(None) }
}

/// An answer from an HTTP server of the tree.
pub(crate) struct Http {
    tcp: Tcp,
    pub(crate) url: Url,
    /// When the next request may be sent, and what the last one was answered.
    again: Option<Instant>,
    seen: Option<String>,
}

impl Http {
    pub(crate) fn new(url: Url) -> Self {
        Self { tcp: Tcp::new(Some(url.port), url.at), url, again: None, seen: None }
    }

    fn look(&mut self, child: &Child, until: Instant) -> Found {
        if self.again.is_some_and(|again| Instant::now() < again) {
            return Found::NotYet(self.seen.clone());
        }
        match self.tcp.look(child, until) {
            Ok(address) => {
                self.again = Some(Instant::now() + ASK_INTERVAL);
                Found::Ask(Question { address, url: self.url.clone() })
            }
            Err(Found::NotYet(None)) => Found::NotYet(self.seen.clone()),
            Err(found) => found,
        }
    }
}

/// A file that is new, or has changed since the spawn. A thread of its own looks it up: it may be
/// on a file system that hangs.
pub(crate) struct Change {
    path: PathBuf,
    spawned: SystemTime,
    aside: Aside<Option<SystemTime>>,
}

impl Change {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, spawned: SystemTime::UNIX_EPOCH, aside: Aside::new() }
    }

    fn begin(&mut self, child: &Child) {
        // The kernel's clock for files ticks every 10 ms at the coarsest.
        let age = child.spawned().elapsed() + Duration::from_millis(10);
        self.spawned = SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
    }

    fn look(&mut self) -> Found {
        let path = self.path.clone();
        let asked = move || fs::metadata(path).ok().and_then(|meta| changed(&meta));
        match self.aside.ask(LOOKUP_WITHIN, asked) {
            Some(change) => found(change.is_some_and(|change| change >= self.spawned)),
            None => Found::NotYet(Some("looking at the file blocks".to_owned())),
        }
    }
}

/// The time at which a file's content, mode, name or links changed last.
fn changed(meta: &fs::Metadata) -> Option<SystemTime> {
    let seconds = Duration::from_secs(u64::try_from(meta.ctime()).ok()?);
    let nanos = Duration::from_nanos(u64::try_from(meta.ctime_nsec()).ok()?);
    SystemTime::UNIX_EPOCH.checked_add(seconds.checked_add(nanos)?)
}

/// A line of the log.
pub(crate) struct Line<'a> {
    matches: Box<dyn FnMut(&str) -> bool + Send + 'a>,
    lines: Lines,
    follower: Option<Follower>,
}

impl<'a> Line<'a> {
    pub(crate) fn new(matches: impl FnMut(&str) -> bool + Send + 'a) -> Self {
        Self { matches: Box::new(matches), lines: Lines::overlapping(), follower: None }
    }

    fn begin(&mut self, child: &Child, what: &str) -> Result<()> {
        let none = "the command was given no log to look at (Command::log)";
        let log = child.log.log.as_ref();
        let log = log.ok_or_else(|| Error::invalid(Step::Ready, what, none))?;
        self.follower = Some(log.follow(child.log.start));
        Ok(())
    }

    /// Reads on until nothing new is there, or `SLICE` is over: a tree that writes much must not
    /// hide the line.
    fn look(&mut self, until: Instant) -> Found {
        let Some(follower) = &mut self.follower else { return Found::NotYet(None) };
        let slice = until.min(Instant::now() + SLICE);
        let (matches, mut hit, mut grown) = (&mut self.matches, false, false);
        let mut each = |line: &str| hit = hit || matches(line);
        loop {
            let fresh = follower.fresh();
            if fresh.is_empty() {
                break;
            }
            grown = true;
            self.lines.push(&fresh, &mut each);
            if Instant::now() >= slice {
                return if hit { Found::It } else { Found::Behind };
            }
        }
        if grown && !self.lines.partial.is_empty() {
            each(&String::from_utf8_lossy(&self.lines.partial));
        }
        match (hit, follower.missed()) {
            (true, _) => Found::It,
            (false, 0) => Found::NotYet(None),
            (false, missed) => {
                Found::NotYet(Some(format!("{missed} bytes of its log came too fast to be read")))
            }
        }
    }
}
