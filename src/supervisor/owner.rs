//! Records the owner of a run root in an extended attribute of its directory, and tells from that
//! whether the owner is gone.
//!
//! A fork of the owner without exec holds the lease for as long as it lives, so the lease alone
//! does not show that the owner is gone. The record has its pid, and what makes that unambiguous:
//! the pid namespace and the start time. An owner that cannot be checked (in another pid namespace,
//! say) counts as alive for as long as the lease is held.

use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Instant;

use nix::errno::Errno;

use crate::cgroup::Cgroup;
use crate::cgroup::names::RECORD;
use crate::proc::read::{FILE_BYTES, understood};
use crate::sys::{self, poll};

/// Bytes of a buffer for the record: four numbers have 83 at the most.
const RECORD_LEN: usize = 128;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pid: i32,
    /// The inode of its pid namespace.
    namespace: u64,
    /// When it was started, in ticks since boot as its time namespace counts them.
    started: u64,
    /// The inode of its time namespace; 0 where the kernel has none.
    clock: u64,
}

/// Records this process as the owner. Writes nothing without `/proc`: the lease alone counts then.
pub(crate) fn sign(cgroup: &Cgroup) {
    if let (Some(owner), Ok(dir)) = (Owner::this(), cgroup.dir()) {
        let _ = sys::set_attribute(dir.as_fd(), RECORD, owner.text().as_bytes());
    }
}

/// Whether the owner is known to be gone, also while a fork of it holds the lease.
pub(crate) fn is_dead(cgroup: &Cgroup) -> bool {
    let Ok(dir) = cgroup.dir() else { return false };
    let mut buffer = [0; RECORD_LEN];
    let text = sys::get_attribute(dir.as_fd(), RECORD, &mut buffer).unwrap_or_default();
    Owner::parse(text).is_some_and(|owner| owner.is_dead())
}

impl Owner {
    fn this() -> Option<Self> {
        Some(Self {
            pid: std::process::id().cast_signed(),
            namespace: namespace("pid")?,
            started: started("self")?,
            clock: namespace("time").unwrap_or(0),
        })
    }

    pub(crate) fn text(&self) -> String {
        let Self { pid, namespace, started, clock } = self;
        format!("{pid} {namespace} {started} {clock}")
    }

    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let mut fields = std::str::from_utf8(text).ok()?.split(' ');
        let mut number = || fields.next()?.parse::<u64>().ok();
        let (pid, namespace, started, clock) = (number()?, number()?, number()?, number()?);
        let pid = i32::try_from(pid).ok().filter(|pid| *pid > 0)?;
        fields.next().is_none().then_some(Self { pid, namespace, started, clock })
    }

    /// Whether the recorded process has ended. A pid that was reused is recognised by its start
    /// time.
    fn is_dead(&self) -> bool {
        if namespace("pid") != Some(self.namespace) {
            return false;
        }
        let pidfd = match sys::pidfd_open(self.pid) {
            Ok(pidfd) => pidfd,
            Err(errno) => return errno == Errno::ESRCH,
        };
        if poll::ended(pidfd.as_fd(), Some(Instant::now())).unwrap_or(false) {
            return true;
        }
        let comparable = namespace("time").unwrap_or(0) == self.clock;
        comparable && started_behind(pidfd.as_fd()).is_some_and(|start| start != self.started)
    }
}

/// The inode of a namespace of this thread: the main thread may have ended, and has none then.
fn namespace(kind: &str) -> Option<u64> {
    let link = fs::read_link(format!("/proc/thread-self/ns/{kind}")).ok()?;
    inode(link.to_str()?, kind)
}

/// 4711 of `pid:[4711]`.
pub(crate) fn inode(link: &str, kind: &str) -> Option<u64> {
    link.strip_prefix(kind)?.strip_prefix(":[")?.strip_suffix(']')?.parse().ok()
}

/// The start of the process behind a pidfd. Its fdinfo has the pid that this `/proc` calls it by,
/// which may be of another namespace than ours.
fn started_behind(pidfd: BorrowedFd<'_>) -> Option<u64> {
    let info =
        fs::read_to_string(format!("/proc/thread-self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    started(&pid_in(&info)?.to_string())
}

/// The pid in the fdinfo of a pidfd; none for -1, an ended process, and 0, one of a namespace that
/// is not below ours.
pub(crate) fn pid_in(fdinfo: &str) -> Option<u32> {
    let pid = fdinfo.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim();
    pid.parse().ok().filter(|pid| *pid > 0)
}

fn started(process: &str) -> Option<u64> {
    let mut text = String::new();
    let file = fs::File::open(format!("/proc/{process}/stat")).ok()?;
    file.take(FILE_BYTES).read_to_string(&mut text).ok()?;
    understood(&text).map(|stat| stat.starttime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written_and_nothing_else_is() {
        let owner = Owner { pid: 7, namespace: u64::MAX, started: 0, clock: 1 };
        assert_eq!(Owner::parse(owner.text().as_bytes()), Some(owner));
        for odd in ["", " ", "1", "1 2 3", "1 2 3 4 5", "0 2 3 4", "-1 2 3 4", "1 2 3 x", "\u{0}"] {
            assert_eq!(Owner::parse(odd.as_bytes()), None, "{odd:?}");
        }
        assert_eq!(Owner::parse(b"99999999999 2 3 4"), None);
        assert_eq!(Owner::parse(b"\xff"), None);
    }

    #[test]
    #[cfg_attr(miri, ignore = "makes system calls that Miri lacks")]
    fn this_process_is_alive_and_an_earlier_one_of_its_pid_is_not() {
        let Some(me) = Owner::this() else { return };
        assert!(!me.is_dead());
        let started = me.started.wrapping_sub(1);
        assert!(Owner { started, ..Owner { ..me } }.is_dead());
    }

    #[test]
    #[cfg_attr(miri, ignore = "makes system calls that Miri lacks")]
    fn what_cannot_be_compared_is_alive() {
        let Some(Owner { pid, namespace, started, clock }) = Owner::this() else { return };
        let other = Owner { pid, namespace: namespace.wrapping_add(1), started: 1, clock };
        assert!(!other.is_dead());
        let other = Owner { pid, namespace, started: started.wrapping_sub(1), clock: clock + 1 };
        assert!(!other.is_dead());
    }

    /// Counted in ticks since boot: this process was not started at boot.
    #[test]
    #[cfg_attr(miri, ignore = "makes system calls that Miri lacks")]
    fn the_start_is_that_of_the_process() -> std::io::Result<()> {
        let text = fs::read_to_string("/proc/self/stat")?;
        let field = text.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(19));
        let ours = Owner::this().map(|owner| owner.started.to_string());
        assert_eq!(ours.as_deref(), field);
        Ok(())
    }
}
