//! One opaque error: which step failed, on what, with which errno, and what to do about it.

pub(crate) mod kind;
pub(crate) mod step;
pub(crate) mod hint;
pub(crate) mod advice;
pub(crate) mod place;
mod gone;
#[cfg(test)]
mod table;

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use nix::errno::Errno;

use crate::confinement::Property;
use crate::error::advice::{Advice, TAKEN};
use crate::error::kind::{Hint, Kind, NotExecuted, SCARCE};
pub(crate) use crate::error::step::Step;
use crate::limits::Setting;
use crate::proc::info::{ProcessInfo, Survey};
use crate::report::{Report, TreeReport};

/// `Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a command could not be started, waited for or torn down.
///
/// The text names the step, the path or value, and the errno:
/// `exec "flsk": No such file or directory (ENOENT)`. [`Error::hint`] says what to do about it.
/// So do `{:#}`, `{:?}` (which is printed when `main` returns the error), and
/// [`source`](StdError::source), for reports that print the whole chain of causes, as those of
/// anyhow and eyre do.
///
/// Converts into [`std::io::Error`] with the kind kept, whose text always has the hint.
///
/// # Examples
/// ```
/// let error = tidy_process::Command::new("flsk").spawn().unwrap_err();
/// assert!(error.to_string().ends_with("No such file or directory (ENOENT)"));
/// assert!(format!("{error:#}").contains("hint: is it installed"));
/// assert!(std::io::Error::from(error).to_string().contains("hint: is it installed"));
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: Kind,
    report: Option<Box<Report>>,
    tree_report: Option<Box<TreeReport>>,
    hint: Option<Hint>,
    /// The program or directory that the step was about.
    path: Option<PathBuf>,
    /// Whether the plain text has the hint too: the error is inside one of std's, which has no
    /// alternate form.
    outspoken: bool,
}

/// The text; in the alternate form (`{:#}`) also, on a line of its own, the hint.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, hint, outspoken, .. } = &*self.0;
        write!(f, "{kind}")?;
        match hint {
            Some(hint) if *outspoken || f.alternate() => write!(f, "\n{hint}"),
            _ => Ok(()),
        }
    }
}

/// As `{:#}`, for a `main` that returns it.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:#}")
    }
}

/// The source is the hint, if there is one that the text does not have.
impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        let hint = self.0.hint.as_ref().filter(|_| !self.0.outspoken);
        hint.map(|hint| hint as &(dyn StdError + 'static))
    }
}

impl From<Kind> for Error {
    fn from(kind: Kind) -> Self {
        let hint = kind.hint();
        let (report, tree_report, path) = (None, None, None);
        Self(Box::new(Inner { kind, report, tree_report, hint, path, outspoken: false }))
    }
}

/// How it is made, and what it carries.
impl Error {
    /// How the command ended, where that is known all the same: a teardown that fails loses no exit
    /// status.
    #[must_use]
    pub fn report(&self) -> Option<&Report> {
        self.0.report.as_deref()
    }

    /// How the tree ended, in an error of [`Tree::finish`](crate::Tree::finish).
    #[must_use]
    pub fn tree_report(&self) -> Option<&TreeReport> {
        self.0.tree_report.as_deref()
    }

    pub(crate) fn with_tree_report(mut self, report: TreeReport) -> Self {
        self.0.tree_report = Some(Box::new(report));
        self
    }

    pub(crate) fn into_report(self) -> Option<Report> {
        self.0.report.map(|report| *report)
    }

    pub(crate) fn with_report(mut self, report: Report) -> Self {
        self.0.report = Some(Box::new(report));
        self
    }

    pub(crate) fn os(step: Step, subject: impl Into<String>, errno: Errno) -> Self {
        Kind::Os { step, subject: subject.into(), errno }.into()
    }

    /// The same error as part of a larger step.
    pub(crate) fn of_step(mut self, larger: Step) -> Self {
        if let Kind::Os { step, .. } | Kind::Invalid { step, .. } = &mut self.0.kind {
            *step = larger;
        }
        Self::from(self.0.kind)
    }

    /// An errno for a path, which is quoted.
    pub(crate) fn at(step: Step, path: &Path, errno: Errno) -> Self {
        Self::os(step, format!("{path:?}"), errno)
    }

    pub(crate) fn invalid(step: Step, subject: impl Into<String>, why: &'static str) -> Self {
        Kind::Invalid { step, subject: subject.into(), why }.into()
    }

    /// A runtime or a thread that broke down: no value is at fault.
    pub(crate) fn broken(step: Step, subject: impl Into<String>, why: &'static str) -> Self {
        Kind::Broken { step, subject: subject.into(), why }.into()
    }

    /// A limit of CPU time on a tree or supervisor, which no wait watches.
    pub(crate) fn unwatched(what: &'static str, time: Duration) -> Self {
        Kind::Unwatched { what, time }.into()
    }

    /// The command was ended because its time was up; its status may say anything.
    pub(crate) fn timed_out(program: String, why: String, status: ExitStatus) -> Self {
        Kind::TimedOut { program, why, status }.into()
    }

    pub(crate) fn limit(dir: &Path, setting: &Setting, why: String, remedy: Advice) -> Self {
        let file = dir.join(setting.file).display().to_string();
        let setting_text = (file, setting.value.clone());
        Kind::Limit { controller: setting.controller, setting: setting_text, why, remedy }.into()
    }

    /// A teardown of `what` that met its deadline.
    pub(crate) fn populated(what: String, after: Duration, survivors: Survey) -> Self {
        Kind::Survivors { what, after, survivors, kept: false }.into()
    }

    /// A teardown by a keeper alone that met its deadline.
    pub(crate) fn kept_survivors(what: String, after: Duration, survivors: Survey) -> Self {
        Kind::Survivors { what, after, survivors, kept: true }.into()
    }

    /// A cgroup that cannot be removed while something is mounted on it.
    pub(crate) fn mounted(path: &Path) -> Self {
        Kind::Mounted { path: path.to_owned() }.into()
    }

    pub(crate) fn unconfinable(property: Property, why: impl Into<String>, remedy: Advice) -> Self {
        Kind::Unconfinable { property, why: why.into(), remedy }.into()
    }

    /// A request that only a cgroup can meet, for a tree that a keeper holds.
    pub(crate) fn unsupported(what: impl Into<String>, limit: bool) -> Self {
        Kind::Unsupported { what: what.into(), limit }.into()
    }

    pub(crate) fn not_executed(child: NotExecuted) -> Self {
        Kind::NotExecuted(child).into()
    }

    pub(crate) fn keeper_lost(pid: i32) -> Self {
        Kind::KeeperLost(pid).into()
    }

    pub(crate) fn not_ready(what: String, why: String, hint: Option<Advice>) -> Self {
        Kind::NotReady { what, why, holder: None, hint }.into()
    }

    /// A port or socket that a process outside of the tree has.
    pub(crate) fn taken(what: String, why: String, holder: Box<ProcessInfo>) -> Self {
        Kind::NotReady { what, why, holder: Some(holder), hint: Some(TAKEN) }.into()
    }
}

/// What it tells.
impl Error {
    /// Its kind as an [`std::io::Error`]: [`NotFound`](io::ErrorKind::NotFound) for a
    /// missing program, [`TimedOut`](io::ErrorKind::TimedOut) for a command that timed out, and so
    /// on.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        self.0.kind.io_kind()
    }

    /// Whether only a cgroup can do this, and a keeper holds the tree.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        matches!(self.0.kind, Kind::Unsupported { .. })
    }

    /// Whether another process killed the keeper of the tree. The main process died with it; the
    /// rest of the tree cannot be found any more.
    #[must_use]
    pub fn is_keeper_lost(&self) -> bool {
        matches!(self.0.kind, Kind::KeeperLost(_))
    }

    /// Whether the child did not become ready: it ended, its port is taken, or the deadline passed.
    #[must_use]
    pub fn is_not_ready(&self) -> bool {
        matches!(self.0.kind, Kind::NotReady { .. })
    }

    /// Whether the child did not become ready because a process that is not of its tree has its
    /// port or socket.
    #[must_use]
    pub fn is_address_in_use(&self) -> bool {
        self.holder().is_some()
    }

    /// The process that has the port or socket, where that is why the child did not become ready.
    #[must_use]
    pub fn holder(&self) -> Option<&ProcessInfo> {
        match &self.0.kind {
            Kind::NotReady { holder, .. } => holder.as_deref(),
            _ => None,
        }
    }

    /// Whether the command timed out, or used up its CPU time: what
    /// [`Command::status`](crate::Command::status) says instead of a status.
    #[must_use]
    pub fn is_timed_out(&self) -> bool {
        match &self.0.kind {
            Kind::TimedOut { .. } => true,
            Kind::NotExecuted(child) => child.timed_out,
            _ => false,
        }
    }

    /// Whether the command was not found: exec failed with `ENOENT`. Shells answer this with status
    /// 127.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.os_error() == Some((Step::Exec, Errno::ENOENT))
    }

    /// Whether the command exists but cannot be executed. Shells answer this with status 126.
    #[must_use]
    pub fn is_not_executable(&self) -> bool {
        matches!(self.os_error(), Some((Step::Exec, errno)) if errno != Errno::ENOENT)
    }

    /// Whether no cgroup can be made here, so that nothing was started. [`Error::hint`] says what
    /// to type. False where a resource has run out (fds, memory, the number of processes or
    /// cgroups), which passes.
    #[must_use]
    pub fn is_no_cgroup(&self) -> bool {
        let scarce = self.os_error().is_some_and(|(_, errno)| SCARCE.contains(&errno));
        self.concerns_cgroup() && !scarce
    }

    fn concerns_cgroup(&self) -> bool {
        let step = match self.0.kind {
            Kind::Os { step, .. } | Kind::Invalid { step, .. } => step,
            _ => return false,
        };
        matches!(
            step,
            Step::FindCgroup2
                | Step::OpenBase
                | Step::Nest
                | Step::Lease
                | Step::MakeCgroup
                | Step::OpenCgroup
                | Step::Clone
                | Step::Join
        )
    }

    /// Whether a limit cannot be enforced on this machine, or has a value that the kernel does not
    /// keep.
    #[must_use]
    pub fn is_limit(&self) -> bool {
        matches!(
            self.0.kind,
            Kind::Limit { .. } | Kind::Unwatched { .. } | Kind::Unsupported { limit: true, .. }
        )
    }

    /// Whether a value given by the caller cannot be used (a NUL byte, a bad name).
    #[must_use]
    pub fn is_invalid_input(&self) -> bool {
        matches!(self.0.kind, Kind::Invalid { step: Step::Prepare, .. })
    }

    /// Whether a property of its sandbox cannot be enforced here, so that the command was not run.
    #[must_use]
    pub fn is_unconfinable(&self) -> bool {
        self.0.kind.is_unconfinable()
    }

    /// Whether teardown met its deadline while processes were still there; see
    /// [`Error::survivors`].
    #[must_use]
    pub fn is_survivors(&self) -> bool {
        matches!(self.0.kind, Kind::Survivors { .. })
    }

    /// The processes that were still there when teardown gave up, the first 100; empty for every
    /// other error.
    #[must_use]
    pub fn survivors(&self) -> &[ProcessInfo] {
        match &self.0.kind {
            Kind::Survivors { survivors, .. } => &survivors.named,
            _ => &[],
        }
    }

    fn os_error(&self) -> Option<(Step, Errno)> {
        match self.0.kind {
            Kind::Os { step, errno, .. } => Some((step, errno)),
            _ => None,
        }
    }

    /// Whether no cgroup with its guard can be made here, and that will not change by itself: best
    /// effort takes a keeper then.
    pub(crate) fn calls_for_keeper(&self) -> bool {
        use Errno::{EMFILE, ENFILE, ENOMEM};
        match self.os_error() {
            Some((_, EMFILE | ENFILE | ENOMEM)) => false,
            Some((Step::Guard | Step::Pidfd, errno)) => {
                matches!(errno, Errno::ENOENT | Errno::EACCES | Errno::EPERM | Errno::ENOSYS)
            }
            _ => self.concerns_cgroup(),
        }
    }

    /// Whether the condition may pass by itself: another attempt is worth while.
    pub(crate) fn may_pass(&self) -> bool {
        use Errno::{EAGAIN, EBUSY, EINTR, EMFILE, ENFILE, ENOMEM, ENOTEMPTY};
        let passing = [EAGAIN, EBUSY, EINTR, EMFILE, ENFILE, ENOMEM, ENOTEMPTY];
        self.os_error().is_some_and(|(_, errno)| passing.contains(&errno))
    }

    /// What to change in the program or to type, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        self.0.hint.as_ref().map(|hint| hint.0.coded)
    }

    /// The same for a command line of the tool.
    #[cfg(feature = "cli")]
    pub(crate) fn typed_hint(&self) -> Option<&'static str> {
        self.0.hint.as_ref().map(|hint| hint.0.typed)
    }
}

/// The errno of an error of std's; 0 (no errno) for one that std made up.
pub(crate) fn errno_of(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}

/// Converts with the kind kept; the text has the hint.
impl From<Error> for io::Error {
    fn from(mut error: Error) -> Self {
        error.0.outspoken = true;
        Self::new(error.kind(), error)
    }
}
