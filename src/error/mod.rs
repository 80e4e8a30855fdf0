//! One opaque error: which step failed, on what, with which errno, and what to do about it.

pub(crate) mod step;
pub(crate) mod hint;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;

use crate::error::hint::{
    KEEPER_LOST, KEPT_SURVIVORS, MOUNTED, NEEDS_CGROUP, NO_CGROUP2, NOT_CGROUP2, SURVIVORS, os_hint,
};
pub(crate) use crate::error::step::{CHILD_STEPS, Step};
use crate::limits::Setting;
use crate::proc::info::ProcessInfo;
use crate::report::Report;

/// `Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a command could not be started, waited for or torn down.
///
/// The text names the step, the path or value, and the errno:
/// `exec "flsk": No such file or directory (ENOENT)`. [`Error::hint`] says what to do about it.
/// Converts into [`std::io::Error`] with the kind kept.
#[derive(thiserror::Error)]
#[error("{kind}")]
pub struct Error {
    kind: Box<Kind>,
    report: Option<Box<Report>>,
}

/// For a `main` that returns it: the text and, on a line of its own, the hint.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        self.hint().map_or(Ok(()), |hint| write!(f, "\nhint: {hint}"))
    }
}

#[derive(Debug, thiserror::Error)]
enum Kind {
    #[error("{step} {subject}: {} ({errno:?})", errno.desc())]
    Os { step: Step, subject: String, errno: Errno },
    #[error("{step} {subject}: {why}")]
    Invalid { step: Step, subject: String, why: &'static str },
    #[error("limit {controller}: write {:?} to {:?}: {why}", setting.1, setting.0)]
    Limit {
        controller: &'static str,
        /// File and value.
        setting: (String, String),
        why: String,
        remedy: &'static str,
    },
    #[error("tear down {what}: still populated after {after:.1?}: {}", list(survivors))]
    Survivors { what: String, after: Duration, survivors: Vec<ProcessInfo>, hint: &'static str },
    #[error("{} {path:?}: something is mounted on it", Step::RemoveCgroup)]
    Mounted { path: PathBuf },
    #[error("{what}: this needs a cgroup, and a keeper holds the tree")]
    Unsupported { what: String, limit: bool },
    #[error("keeper {0} was killed: what was left of its tree cannot be found any more")]
    KeeperLost(i32),
    #[error("{} {what}: {why}", Step::Ready)]
    NotReady { what: String, why: String, taken: bool },
}

fn list(survivors: &[ProcessInfo]) -> String {
    if survivors.is_empty() {
        return "no process that can be seen from here".to_owned();
    }
    let each: Vec<String> = survivors.iter().map(ProcessInfo::stuck).collect();
    each.join(", ")
}

impl Error {
    fn of(kind: Kind) -> Self {
        Self { kind: Box::new(kind), report: None }
    }

    /// How the command ended, where that is known although this went wrong: a teardown that fails
    /// loses no exit status.
    #[must_use]
    pub fn report(&self) -> Option<&Report> {
        self.report.as_deref()
    }

    pub(crate) fn into_report(self) -> Option<Report> {
        self.report.map(|report| *report)
    }

    pub(crate) fn with_report(mut self, report: Report) -> Self {
        self.report = Some(Box::new(report));
        self
    }

    pub(crate) fn os(step: Step, subject: impl Into<String>, errno: Errno) -> Self {
        Self::of(Kind::Os { step, subject: subject.into(), errno })
    }

    /// The same error as part of a larger step.
    pub(crate) fn of_step(mut self, larger: Step) -> Self {
        if let Kind::Os { step, .. } | Kind::Invalid { step, .. } = &mut *self.kind {
            *step = larger;
        }
        self
    }

    /// An errno met on a path; the path is quoted.
    pub(crate) fn at(step: Step, path: &Path, errno: Errno) -> Self {
        Self::os(step, format!("{path:?}"), errno)
    }

    pub(crate) fn invalid(step: Step, subject: impl Into<String>, why: &'static str) -> Self {
        Self::of(Kind::Invalid { step, subject: subject.into(), why })
    }

    pub(crate) fn limit(dir: &Path, setting: &Setting, why: String, remedy: &'static str) -> Self {
        let file = dir.join(setting.file).display().to_string();
        let setting_text = (file, setting.value.clone());
        Self::of(Kind::Limit { controller: setting.controller, setting: setting_text, why, remedy })
    }

    /// `what` was to be torn down.
    pub(crate) fn survivors(what: String, after: Duration, survivors: Vec<ProcessInfo>) -> Self {
        Self::of(Kind::Survivors { what, after, survivors, hint: SURVIVORS })
    }

    /// The same, where nobody but a keeper has tried.
    pub(crate) fn kept_survivors(what: String, after: Duration, who: Vec<ProcessInfo>) -> Self {
        Self::of(Kind::Survivors { what, after, survivors: who, hint: KEPT_SURVIVORS })
    }

    /// What was to be removed cannot be while something is mounted on it.
    pub(crate) fn mounted(path: &Path) -> Self {
        Self::of(Kind::Mounted { path: path.to_owned() })
    }

    /// What only a cgroup can do, asked of a tree that a keeper holds.
    pub(crate) fn unsupported(what: impl Into<String>, limit: bool) -> Self {
        Self::of(Kind::Unsupported { what: what.into(), limit })
    }

    pub(crate) fn keeper_lost(pid: i32) -> Self {
        Self::of(Kind::KeeperLost(pid))
    }

    /// Only a cgroup can do this, and a keeper holds the tree.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        matches!(*self.kind, Kind::Unsupported { .. })
    }

    /// Somebody killed the keeper of the tree. The main process died with it; what else was left is
    /// not found any more.
    #[must_use]
    pub fn is_keeper_lost(&self) -> bool {
        matches!(*self.kind, Kind::KeeperLost(_))
    }

    pub(crate) fn not_ready(what: String, why: String, taken: bool) -> Self {
        Self::of(Kind::NotReady { what, why, taken })
    }

    /// The child did not become ready: it ended, its port is taken, or the deadline passed.
    #[must_use]
    pub fn is_not_ready(&self) -> bool {
        matches!(*self.kind, Kind::NotReady { .. })
    }

    /// The child did not become ready, because a process that is not of its tree has its port or
    /// socket.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        matches!(*self.kind, Kind::NotReady { taken: true, .. })
    }

    /// The command was not found: exec failed with `ENOENT`. Shells answer this with status 127.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.os_error() == Some((Step::Exec, Errno::ENOENT))
    }

    /// The command exists but cannot be executed. Shells answer this with status 126.
    #[must_use]
    pub fn is_not_executable(&self) -> bool {
        matches!(self.os_error(), Some((Step::Exec, errno)) if errno != Errno::ENOENT)
    }

    /// No cgroup could be made: nothing was started. [`Error::hint`] says what to type.
    #[must_use]
    pub fn is_no_cgroup(&self) -> bool {
        let step = match *self.kind {
            Kind::Os { step, .. } | Kind::Invalid { step, .. } => step,
            _ => return false,
        };
        matches!(
            step,
            Step::FindCgroup2
                | Step::OpenBase
                | Step::Lease
                | Step::MakeCgroup
                | Step::OpenCgroup
                | Step::Clone
                | Step::Join
        )
    }

    /// A limit cannot be enforced on this machine, or has a value that the kernel does not keep.
    #[must_use]
    pub fn is_limit(&self) -> bool {
        matches!(*self.kind, Kind::Limit { .. } | Kind::Unsupported { limit: true, .. })
    }

    /// A value given by the caller can not be used (a NUL byte, a bad name).
    #[must_use]
    pub fn is_invalid_input(&self) -> bool {
        matches!(*self.kind, Kind::Invalid { step: Step::Prepare, .. })
    }

    /// Teardown met its deadline while processes were still there; see [`Error::survivors_list`].
    #[must_use]
    pub fn is_survivors(&self) -> bool {
        matches!(*self.kind, Kind::Survivors { .. })
    }

    /// Who was still there when teardown gave up; empty for every other error.
    #[must_use]
    pub fn survivors_list(&self) -> &[ProcessInfo] {
        match &*self.kind {
            Kind::Survivors { survivors, .. } => survivors,
            _ => &[],
        }
    }

    /// The errno behind this error, where one system call is to blame.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        self.os_error().map(|(_, errno)| errno as i32)
    }

    fn os_error(&self) -> Option<(Step, Errno)> {
        match *self.kind {
            Kind::Os { step, errno, .. } => Some((step, errno)),
            _ => None,
        }
    }

    /// No cgroup can be made with its guard, and that will not change by itself: a keeper may do.
    pub(crate) fn calls_for_keeper(&self) -> bool {
        use Errno::{EMFILE, ENFILE, ENOMEM};
        match self.os_error() {
            Some((_, EMFILE | ENFILE | ENOMEM)) => false,
            Some((Step::Guard, errno)) => {
                matches!(errno, Errno::ENOENT | Errno::EACCES | Errno::EPERM | Errno::ENOSYS)
            }
            _ => self.is_no_cgroup(),
        }
    }

    /// A condition that others may end: worth another attempt.
    pub(crate) fn may_pass(&self) -> bool {
        use Errno::{EAGAIN, EBUSY, EINTR, EMFILE, ENFILE, ENOMEM, ENOTEMPTY};
        let passing = [EAGAIN, EBUSY, EINTR, EMFILE, ENFILE, ENOMEM, ENOTEMPTY];
        self.os_error().is_some_and(|(_, errno)| passing.contains(&errno))
    }

    /// What to do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match &*self.kind {
            Kind::Os { step, errno, .. } => os_hint(*step, *errno),
            Kind::Invalid { step, .. } if *step == Step::FindCgroup2 => Some(NO_CGROUP2),
            Kind::Invalid { step, .. } if *step == Step::OpenBase => Some(NOT_CGROUP2),
            Kind::NotReady { taken: true, .. } => Some(
                "end that process, or choose another port; a server of an earlier run that was \
                 killed by its pid alone may have left it behind",
            ),
            Kind::Limit { remedy, .. } => Some(remedy),
            Kind::Unsupported { .. } => Some(NEEDS_CGROUP),
            Kind::KeeperLost(_) => Some(KEEPER_LOST),
            Kind::Invalid { .. } | Kind::NotReady { .. } => None,
            Kind::Survivors { hint, .. } => Some(hint),
            Kind::Mounted { .. } => Some(MOUNTED),
        }
    }
}

/// The errno of an error of std's; 0 (no errno) for one that std made up.
pub(crate) fn errno_of(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &*error.kind {
            Kind::Os { errno, .. } => Self::from_raw_os_error(*errno as i32).kind(),
            Kind::Invalid { .. } => io::ErrorKind::InvalidInput,
            Kind::Limit { .. } | Kind::Unsupported { .. } => io::ErrorKind::Unsupported,
            Kind::KeeperLost(_) => io::ErrorKind::Other,
            Kind::Mounted { .. } => io::ErrorKind::ResourceBusy,
            Kind::NotReady { taken: true, .. } => io::ErrorKind::AddrInUse,
            Kind::Survivors { .. } | Kind::NotReady { .. } => io::ErrorKind::TimedOut,
        };
        Self::new(kind, error)
    }
}
