//! All that a command needs to be born into a view of its own, made once for all spawns of one
//! sandbox; and the user that it has there.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{getegid, geteuid};

use crate::confinement::Property;
use crate::error::advice::{Advice, advice};
use crate::error::{Error, Result, Step, errno_of};
use crate::sandbox::blueprint;
use crate::sandbox::layout::number::MOST_KEPT;
use crate::sandbox::layout::op;
use crate::sandbox::mount_news::MountNews;
use crate::sandbox::request::Request;
use crate::sandbox::ruleset::scopes;
use crate::sandbox::view::{Network, Piece};
use crate::sys::{above_two, pass};

/// The program that makes namespaces, init and main. Empty where it could not be linked.
const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/set-up"));

/// What is kept of the environment by default: where programs are, what the terminal can do, the
/// language and the time zone; `LC_*` too.
const KEPT: [&str; 6] = ["PATH", "TERM", "COLORTERM", "NO_COLOR", "LANG", "TZ"];

/// Owns what the set-up program is given.
#[derive(Debug)]
pub(crate) struct Enclosure {
    pub(crate) program: OwnedFd,
    pub(crate) plan: OwnedFd,
    /// Scopes of Landlock.
    pub(crate) ruleset: OwnedFd,
    pub(crate) pieces: Vec<Piece>,
    pub(crate) network: Network,
    mounts: MountNews,
    /// The step that is to fail, for tests; else 0.
    pub(crate) fail: usize,
    kept: BTreeSet<OsString>,
}

impl Enclosure {
    pub(crate) fn new(request: &Request, filter: &[libc::sock_filter]) -> Result<Self> {
        if request.fds.len() > MOST_KEPT {
            let why = "64 fds may be inherited at the most";
            return Err(Error::invalid(Step::Prepare, "sandbox", why));
        }
        let network = request.view.network;
        // Opened before the mounts are read: a change meanwhile is not missed.
        let mounts = MountNews::open().map_err(|errno| {
            Error::at(Step::FindCgroup2, Path::new("/proc/self/mountinfo"), errno)
        })?;
        let pieces = request.view.pieces()?;
        let failed = |errno| Error::os(Step::SetUp, "the set-up program", errno);
        Ok(Self {
            program: pass::sealed_program(c"tidy-set-up", PROGRAM).map_err(failed)?,
            plan: blueprint::sealed(&pieces, filter, network).map_err(failed)?,
            ruleset: scopes()?,
            pieces,
            network,
            mounts,
            fail: request.fail,
            kept: request.kept.clone(),
        })
    }

    /// The port that is forwarded.
    pub(crate) fn port(&self) -> Option<u16> {
        match self.network {
            Network::Forward(port) => Some(port),
            _ => None,
        }
    }

    /// Takes the listening socket that came over the line: one of the port, or none.
    pub(crate) fn listener(
        &self,
        socket: Option<OwnedFd>,
    ) -> std::result::Result<TcpListener, Errno> {
        let socket = above_two(socket.ok_or(Errno::EMFILE)?)?;
        let listener = TcpListener::from(socket);
        let address = listener.local_addr().map_err(|_| Errno::EPROTO)?;
        let own = self.port().map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        if Some(address) == own { Ok(listener) } else { Err(Errno::EPROTO) }
    }

    /// The directories that are overlays, in the order of their pieces.
    pub(crate) fn overlays(&self) -> impl Iterator<Item = PathBuf> {
        let all = self.pieces.iter().filter(|piece| piece.kind == op::OVERLAY);
        all.map(|piece| OsStr::from_bytes(piece.from.to_bytes()).into())
    }

    /// Whether a mount has come or gone since: a cgroup file system may be below what is named.
    pub(crate) fn is_stale(&self) -> bool {
        self.mounts.has_come()
    }

    /// Whether a variable of the caller's stays in the environment.
    pub(crate) fn keeps(&self, key: &OsStr) -> bool {
        KEPT.iter().any(|kept| key == *kept)
            || key.as_bytes().starts_with(b"LC_")
            || self.kept.contains(key)
    }

    /// The variables that it keeps by name, for the plan.
    pub(crate) fn kept(&self) -> impl Iterator<Item = String> {
        let named = self.kept.iter().map(|key| key.to_string_lossy().into_owned());
        KEPT.iter().map(ToString::to_string).chain(["LC_*".to_owned()]).chain(named)
    }
}

/// The user that a command is in a sandbox, the same inside and outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ids {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Whether it has to be changed to.
    pub(crate) changes: bool,
}

impl Ids {
    /// The caller's own; for root, or where one is asked for, another one. Root itself would leave
    /// set-uid files behind in a directory that the command may write to.
    pub(crate) fn of(uid: Option<u32>, gid: Option<u32>) -> Result<Self> {
        let (own_uid, own_gid) = (geteuid().as_raw(), getegid().as_raw());
        let changes = own_uid == 0 || uid.is_some() || gid.is_some();
        if !changes {
            return Ok(Self { uid: own_uid, gid: own_gid, changes });
        }
        let unused = || unused("/proc/self/uid_map");
        let uid = match uid {
            Some(uid) => uid,
            None if own_uid == 0 => unused()?,
            None => own_uid,
        };
        let gid = match gid {
            Some(gid) => gid,
            None if own_uid == 0 => uid,
            None => own_gid,
        };
        if uid == 0 || gid == 0 {
            let why = "a command in a sandbox is no root: it would leave set-uid files behind";
            return Err(Error::invalid(Step::Prepare, format!("user {uid}, group {gid}"), why));
        }
        Ok(Self { uid, gid, changes })
    }
}

/// Far from what distributions, containers and network logins use.
const UNUSED: u32 = 2_147_352_576;

/// An id that owns nothing: [`UNUSED`], or where that is not mapped the last but two that is.
fn unused(map: &str) -> Result<u32> {
    let text = fs::read_to_string(map)
        .map_err(|error| Error::at(Step::IdMap, Path::new(map), errno_of(&error)))?;
    let ranges = text.lines().filter_map(|line| {
        let mut fields = line.split_whitespace().filter_map(|field| field.parse::<u64>().ok());
        let (first, _, count) = (fields.next()?, fields.next()?, fields.next()?);
        Some((first, first + count))
    });
    let end = ranges.filter(|&(first, _)| first <= UNUSED.into()).map(|(_, end)| end).max();
    let last = end.map_or(0, |end| end.saturating_sub(3)).min(UNUSED.into());
    match u32::try_from(last) {
        Ok(id) if id > 1000 => Ok(id),
        _ => Err(Error::unconfinable(
            Property::Unprivileged,
            "root has no other user here: this user namespace has too few ids",
            NO_USER,
        )),
    }
}

const NO_USER: Advice = advice!(
    "run it as an ordinary user, or name a user with ",
    "Command::uid and Command::gid",
    "setpriv --reuid"
);

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_user_that_is_given_is_kept_and_root_never_is() {
        assert!(Ids::of(Some(0), Some(7)).unwrap_err().is_invalid_input());
        assert!(Ids::of(Some(7), Some(0)).unwrap_err().is_invalid_input());
        let ids = Ids::of(Some(4242), Some(4243)).unwrap();
        assert_eq!(ids, Ids { uid: 4242, gid: 4243, changes: true });
    }

    #[test]
    fn root_becomes_a_user_that_is_not_there() {
        let dir = std::env::temp_dir().join(format!("tidy-map-{}", std::process::id()));
        let of = |map: &str| {
            fs::write(&dir, map).unwrap();
            unused(dir.to_str().unwrap())
        };
        assert_eq!(of("0 0 4294967295\n").unwrap(), UNUSED);
        assert_eq!(of("0 100000 65536\n").unwrap(), 65_533);
        assert!(of("0 1000 1\n").unwrap_err().is_unconfinable());
        fs::remove_file(&dir).unwrap();
        let error = unused(dir.to_str().unwrap()).unwrap_err();
        assert!(error.to_string().ends_with("(ENOENT)"), "{error}");
    }
}
