//! The kinds of errors: their texts, their hints, and the kind of std's that each has.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;

use crate::confinement::Property;
use crate::error::advice::{
    ADOPTED, Advice, KEEPER_LOST, KEPT_SURVIVORS, MOUNTED, NEEDS_CGROUP, NESTED, NO_CGROUP2,
    NOT_CGROUP2, OTHER_SUPERVISOR, OUTSIDE, PARTNER_GONE, SURVIVORS, TIMED_OUT, UNWATCHED,
};
use crate::error::hint::os_hint;
use crate::error::step::Step;
use crate::proc::info::{ProcessInfo, Survey};
use crate::proc::quote::enumerated;

/// What a call says that would work a moment later, or with more fds, memory or processes.
pub(crate) const SCARCE: [Errno; 5] =
    [Errno::EAGAIN, Errno::EINTR, Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM];

/// What is wrong with a string that no system call takes.
pub(crate) const HAS_NUL: &str = "it contains a NUL byte";

#[derive(Debug, thiserror::Error)]
pub(crate) enum Kind {
    #[error("{step} {subject}: {} ({errno:?})", errno.desc())]
    Os { step: Step, subject: String, errno: Errno },
    #[error("{step} {subject}: {why}")]
    Invalid { step: Step, subject: String, why: &'static str },
    /// A runtime or a thread broke down: no value is at fault.
    #[error("{step} {subject}: {why}")]
    Broken { step: Step, subject: String, why: &'static str },
    #[error("limit {controller}: write {:?} to {:?}: {why}", setting.1, setting.0)]
    Limit {
        controller: &'static str,
        /// File and value.
        setting: (String, String),
        why: String,
        remedy: Advice,
    },
    #[error("limit cpu time: {time:?} for {what}: nothing would watch it")]
    Unwatched { what: &'static str, time: Duration },
    #[error("run {program}: {why} ({status})")]
    TimedOut { program: String, why: String, status: std::process::ExitStatus },
    #[error("{} {}: not executed after {:.1?}: {}", Step::Exec, .0.program, .0.after, .0.why)]
    NotExecuted(NotExecuted),
    #[error("tear down {what}: still populated after {after:.1?}: {}", list(survivors))]
    Survivors { what: String, after: Duration, survivors: Survey, kept: bool },
    #[error("{} {path:?}: something is mounted on it", Step::RemoveCgroup)]
    Mounted { path: PathBuf },
    #[error("{what}: this needs a cgroup, and a keeper holds the tree")]
    Unsupported { what: String, limit: bool },
    #[error("confine: {property}: {why}")]
    Unconfinable { property: Property, why: String, remedy: Advice },
    #[error("keeper {0} was killed: what was left of its tree cannot be found any more")]
    KeeperLost(i32),
    #[error("die with process {0}: it has ended already")]
    PartnerGone(u32),
    #[error(
        "die with the parent of process {0}: it has ended already, or is process 1, which orphans \
         get for their parent"
    )]
    Adopted(i32),
    #[error("{} {what}: {why}", Step::Ready)]
    NotReady {
        what: String,
        why: String,
        /// The process that is not of the tree and has the port or socket.
        holder: Option<Box<ProcessInfo>>,
        hint: Option<Advice>,
    },
}

/// A child that was kept from its exec.
#[derive(Debug)]
pub(crate) struct NotExecuted {
    pub(crate) program: String,
    pub(crate) after: Duration,
    pub(crate) why: String,
    pub(crate) hint: Option<Advice>,
    /// Whether the command's own timeout was over.
    pub(crate) timed_out: bool,
}

fn list(survivors: &Survey) -> String {
    if survivors.is_empty() {
        return "no process that can be seen from here".to_owned();
    }
    let each: Vec<String> = survivors.named.iter().map(ProcessInfo::stuck).collect();
    enumerated(&each, survivors.count, SURVIVORS_SAID)
}

/// Characters of the list of survivors, at the most.
const SURVIVORS_SAID: usize = 400;

/// What to do about an error; it is the error's source, so that reports of whole chains print it.
#[derive(Debug)]
pub(crate) struct Hint(pub(crate) Advice);

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hint: {}", self.0.coded)
    }
}

impl std::error::Error for Hint {}

impl Kind {
    pub(crate) fn hint(&self) -> Option<Hint> {
        let text = match self {
            Self::Os { step, errno, .. } => os_hint(*step, *errno),
            Self::Invalid { step: Step::FindCgroup2, .. } => Some(NO_CGROUP2),
            Self::Invalid { step: Step::OpenBase, .. } => Some(NOT_CGROUP2),
            Self::Invalid { step: Step::Nest, .. } => Some(NESTED),
            Self::Invalid { step: Step::Supervise, .. } => Some(OTHER_SUPERVISOR),
            Self::Invalid { step: Step::DieWith, .. } => Some(OUTSIDE),
            Self::Invalid { .. } | Self::Broken { .. } => None,
            Self::Limit { remedy, .. } | Self::Unconfinable { remedy, .. } => Some(*remedy),
            Self::Unwatched { .. } => Some(UNWATCHED),
            Self::TimedOut { .. } => Some(TIMED_OUT),
            Self::NotExecuted(child) => child.hint,
            Self::Survivors { kept: false, .. } => Some(SURVIVORS),
            Self::Survivors { kept: true, .. } => Some(KEPT_SURVIVORS),
            Self::Mounted { .. } => Some(MOUNTED),
            Self::Unsupported { .. } => Some(NEEDS_CGROUP),
            Self::PartnerGone(_) => Some(PARTNER_GONE),
            Self::Adopted(_) => Some(ADOPTED),
            Self::KeeperLost(_) => Some(KEEPER_LOST),
            Self::NotReady { hint, .. } => *hint,
        };
        text.map(Hint)
    }

    pub(crate) fn is_unconfinable(&self) -> bool {
        match self {
            Self::Unconfinable { .. } => true,
            // What has run out is no property of the machine.
            Self::Os { step, errno, .. } => step.confines() && !SCARCE.contains(errno),
            _ => false,
        }
    }

    pub(crate) fn io_kind(&self) -> io::ErrorKind {
        match self {
            Self::Os { errno, .. } => io::Error::from_raw_os_error(*errno as i32).kind(),
            Self::Invalid { .. } => io::ErrorKind::InvalidInput,
            Self::Limit { .. }
            | Self::Unwatched { .. }
            | Self::Unsupported { .. }
            | Self::Unconfinable { .. } => io::ErrorKind::Unsupported,
            Self::Broken { .. } | Self::KeeperLost(_) => io::ErrorKind::Other,
            Self::PartnerGone(_) | Self::Adopted(_) => io::ErrorKind::NotFound,
            Self::Mounted { .. } => io::ErrorKind::ResourceBusy,
            Self::NotReady { holder: Some(_), .. } => io::ErrorKind::AddrInUse,
            Self::Survivors { .. }
            | Self::NotReady { .. }
            | Self::NotExecuted(_)
            | Self::TimedOut { .. } => io::ErrorKind::TimedOut,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn what_breaks_down_is_no_invalid_input() {
        let error = Error::broken(Step::Wait, "process 1", "a helper thread has panicked");
        assert_eq!(error.kind(), io::ErrorKind::Other);
        assert!(!error.is_invalid_input());
        assert_eq!(error.to_string(), "wait for process 1: a helper thread has panicked");
    }
}
