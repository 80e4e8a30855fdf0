//! All that a command needs to be born into a view of its own, made once for all spawns of one
//! sandbox.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::error::{Error, Result, Step};
use crate::sandbox::blueprint;
use crate::sandbox::ids::Ids;
use crate::sandbox::layout::number::MOST_KEPT;
use crate::sandbox::layout::op;
use crate::sandbox::mount_news::MountNews;
use crate::sandbox::request::Request;
use crate::sandbox::ruleset::scopes;
use crate::sandbox::template::{Lent, Templates};
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
    pub(crate) templates: Templates,
    pub(crate) network: Network,
    /// Whether the filter has a listener.
    pub(crate) listens: bool,
    mounts: MountNews,
    /// The step that is to fail, for tests, else 0; and whether only in a template.
    fail: (usize, bool),
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
        let mut pieces = request.view.pieces()?;
        let templates = Templates::of(&mut pieces);
        let failed = |errno| Error::os(Step::SetUp, "the set-up program", errno);
        // What is denied beyond the level may be what main does last.
        let when = [request.explain, !request.explain && request.denied.is_empty()];
        Ok(Self {
            program: pass::sealed_program(c"tidy-set-up", PROGRAM).map_err(failed)?,
            plan: blueprint::sealed(&pieces, filter, network, when).map_err(failed)?,
            ruleset: scopes()?,
            pieces,
            templates,
            network,
            listens: request.explain,
            mounts,
            fail: (request.fail, request.fails_in_template),
            kept: request.kept.clone(),
        })
    }

    /// What a command of this user is given of a template.
    pub(crate) fn lend(&self, ids: Ids) -> Lent {
        self.templates.lend(ids, &self.pieces, self.network)
    }

    /// The step that is to fail for a command that is given this; else 0.
    pub(crate) fn fail(&self, lent: &Lent) -> usize {
        match self.fail {
            (_, true) if !lent.is_of_template() => 0,
            (step, _) => step,
        }
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
