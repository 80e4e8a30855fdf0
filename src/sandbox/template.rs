//! A template: the namespaces of a sandbox, made once and entered by later commands of it.
//!
//! It holds a user namespace, the mounts that are the same for each command, and empty networks.
//! The second command of a sandbox makes it; a sandbox that is used once does not pay for one. Each
//! command has a copy of the mounts, in which it puts its own `/proc`, `/tmp` and the like, and a
//! network that no other process is in. Process numbers, IPC, host name and cgroup are never
//! shared.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use nix::sys::stat::lstat;

use crate::sandbox::ids::Ids;
use crate::sandbox::layout::{news, number, op, stage};
use crate::sandbox::view::{Network, Piece};
use crate::sys::above_two;
use crate::sys::poll::lock;

/// The networks that lie ready, at the most: each is some 100 KiB of the kernel's.
const MOST_NETWORKS: usize = 8;

/// What is found at a path: the device and the inode, none where nothing is.
type Found = Option<(u64, u64)>;

#[derive(Debug)]
pub(crate) struct Template {
    ids: Ids,
    user: OwnedFd,
    mounts: OwnedFd,
    networks: Mutex<Vec<OwnedFd>>,
    /// What was at the paths of the host that it shows or hides.
    found: Vec<Found>,
}

/// The template of one sandbox, if it can have one.
#[derive(Debug)]
pub(crate) struct Templates {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    was_used: bool,
    /// There can be none.
    given_up: bool,
    made: Option<Arc<Template>>,
}

/// What one command is given of it.
#[derive(Debug)]
pub(crate) struct Lent {
    template: Option<Arc<Template>>,
    network: Option<OwnedFd>,
    /// What it hands out: the bits of [`number`].
    hands_out: usize,
    ids: Ids,
    found: Vec<Found>,
}

/// The namespaces that a command has handed out.
#[derive(Debug, Default)]
pub(crate) struct HandedOut {
    pub(crate) user: Option<OwnedFd>,
    pub(crate) mounts: Option<OwnedFd>,
    pub(crate) network: Option<OwnedFd>,
}

/// A network that goes back to its template once no process is in it.
#[derive(Debug)]
pub(crate) struct Rented {
    template: Arc<Template>,
    network: OwnedFd,
}

/// Notes for each piece when it is made. Returns whether there can be a template: an overlay has a
/// layer for each command.
fn arrange(pieces: &mut Vec<Piece>) -> bool {
    // What another one takes the place of is never seen, and could not be moved out of its way.
    let last = |place: usize, all: &[Piece]| {
        let path = all.get(place).map(Piece::path);
        !all.iter().skip(place + 1).any(|later| Some(later.path()) == path)
    };
    let all = std::mem::take(pieces);
    let kept = all.iter().enumerate().filter(|(place, _)| last(*place, &all));
    *pieces = kept.map(|(_, piece)| piece.clone()).collect();
    let (mut carried, mut paths) = (0, Vec::<(PathBuf, u32)>::new());
    for piece in &mut *pieces {
        let path = piece.path();
        let nearest = paths.iter().filter(|(above, _)| path.starts_with(above));
        let nearest = nearest.max_by_key(|(above, _)| above.as_os_str().len());
        let is_in_own = nearest.is_some_and(|(_, stage)| *stage == stage::OWN);
        piece.stage = match piece.kind {
            op::BIND if is_in_own => stage::CARRIED,
            op::DIRECTORY | op::LINK | op::BIND | op::HIDE if !is_in_own => stage::FIXED,
            _ => stage::OWN,
        };
        carried += usize::from(piece.stage == stage::CARRIED);
        paths.push((path, piece.stage));
    }
    carried <= stage::MOST_CARRIED && pieces.iter().all(|piece| piece.kind != op::OVERLAY)
}

impl Templates {
    /// Arranges the pieces for a template.
    pub(crate) fn of(pieces: &mut Vec<Piece>) -> Self {
        let given_up = !arrange(pieces);
        Self { state: Mutex::new(State { given_up, ..State::default() }) }
    }

    /// Looks at what there is for a command of this user.
    pub(crate) fn lend(&self, ids: Ids, pieces: &[Piece], network: Network) -> Lent {
        let mut state = lock(&self.state);
        let is_first = !std::mem::replace(&mut state.was_used, true);
        if is_first || state.given_up {
            return Lent::nothing(ids);
        }
        let found = pieces.iter().filter_map(found).collect();
        let lends = if network == Network::None { number::LENDS_NETWORK } else { 0 };
        let made = state.made.as_ref().filter(|made| made.ids == ids && made.found == found);
        let Some(made) = made.cloned() else {
            let hands_out = number::MAKES_TEMPLATE | lends;
            return Lent { hands_out, found, ..Lent::nothing(ids) };
        };
        let rented = if lends == 0 { None } else { lock(&made.networks).pop() };
        let hands_out = if rented.is_some() { 0 } else { lends };
        Lent { template: Some(made), network: rented, hands_out, ..Lent::nothing(ids) }
    }

    /// Drops the template, which is no longer as it was made: the next command makes one anew. Or,
    /// where the machine refuses templates, none does.
    pub(crate) fn drop_it(&self, ids: Ids, goes_on: bool) -> Lent {
        *lock(&self.state) = State { was_used: true, given_up: !goes_on, made: None };
        Lent::nothing(ids)
    }

    /// Takes what a command that runs has handed out. Returns the network that it is in, if that
    /// goes back to a template.
    pub(crate) fn take(&self, lent: &mut Lent, handed_out: HandedOut) -> Option<Rented> {
        let HandedOut { user, mounts, network } = handed_out;
        // The one that was lent was not empty, where there is another.
        let network = network.or(lent.network.take());
        let template = match (lent.template.take(), user, mounts) {
            (None, Some(user), Some(mounts)) => {
                let (ids, found) = (lent.ids, std::mem::take(&mut lent.found));
                let made = Template { ids, user, mounts, networks: Mutex::default(), found };
                Arc::clone(lock(&self.state).made.insert(Arc::new(made)))
            }
            (template, ..) => template?,
        };
        network.map(|network| Rented { template, network })
    }
}

impl HandedOut {
    /// Takes a namespace that came over the line. Without room for its fd there is no template.
    pub(crate) fn add(&mut self, which: u32, namespace: Option<OwnedFd>) {
        let namespace = namespace.and_then(|fd| above_two(fd).ok());
        match which {
            news::USER_NAMESPACE => self.user = namespace,
            news::MOUNTS_NAMESPACE => self.mounts = namespace,
            _ => self.network = namespace,
        }
    }
}

impl Lent {
    fn nothing(ids: Ids) -> Self {
        Self { template: None, network: None, hands_out: 0, ids, found: Vec::new() }
    }

    /// The numbers that the set-up program is told, from [`number::USER_NAMESPACE`] on.
    pub(crate) fn numbers(&self) -> [i64; 4] {
        let fd = |fd: Option<&OwnedFd>| i64::from(fd.map_or(-1, AsRawFd::as_raw_fd));
        let template = self.template.as_deref();
        let namespaces = [
            template.map(|template| &template.user),
            template.map(|template| &template.mounts),
            self.network.as_ref(),
        ];
        let [user, mounts, network] = namespaces.map(fd);
        [user, mounts, network, i64::try_from(self.hands_out).unwrap_or_default()]
    }

    /// The fds among those.
    pub(crate) fn fds(&self) -> impl Iterator<Item = RawFd> {
        let template = self.template.iter().flat_map(|made| [&made.user, &made.mounts]);
        template.chain(&self.network).map(AsRawFd::as_raw_fd)
    }
}

impl Rented {
    /// Puts it back; no process is in it any more.
    pub(crate) fn give_back(self) {
        let mut networks = lock(&self.template.networks);
        if networks.len() < MOST_NETWORKS {
            networks.push(self.network);
        }
    }
}

/// What is at the path of the host that a piece shows or hides; `None` if it does neither.
fn found(piece: &Piece) -> Option<Found> {
    let at = || lstat(&piece.path()).ok().map(|stat| (stat.st_dev, stat.st_ino));
    matches!(piece.kind, op::BIND | op::HIDE).then(at)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::sandbox::view::{Access, Wanted};

    /// The stage of each path that is named, and whether there can be a template.
    fn arranged(named: &[(&str, Access)]) -> (Vec<(String, u32)>, bool) {
        let paths = named.iter().map(|(path, access)| (PathBuf::from(path), *access)).collect();
        let mut pieces = Wanted { paths, ..Wanted::default() }.pieces().unwrap();
        let can = arrange(&mut pieces);
        let path = |piece: &Piece| piece.path().to_str().unwrap().to_owned();
        let all = pieces.iter().map(|piece| (path(piece), piece.stage));
        let wanted = |path: &str| path.starts_with("/tmp") || path.starts_with("/h");
        (all.filter(|(path, _)| wanted(path)).collect(), can)
    }

    #[test]
    fn what_is_the_same_for_each_command_is_fixed() {
        let (ro, rw, private) = (Access::ReadOnly, Access::ReadWrite, Access::Private);
        let (own, fixed, carried) = (stage::OWN, stage::FIXED, stage::CARRIED);
        for (named, expected) in [
            (&[("/h", ro)][..], &[("/tmp", own), ("/h", fixed)][..]),
            (&[("/h", private), ("/h/a", ro)], &[("/tmp", own), ("/h", own), ("/h/a", carried)]),
            // Its mount takes along what is mounted below it.
            (
                &[("/tmp/w", rw), ("/tmp/w/ro", ro), ("/tmp/w/c", private), ("/tmp/w/c/x", ro)],
                &[
                    ("/tmp", own),
                    ("/tmp/w", carried),
                    ("/tmp/w/c", own),
                    ("/tmp/w/c/x", carried),
                    ("/tmp/w/ro", fixed),
                ],
            ),
            (
                &[("/tmp/w", rw), ("/tmp/w/no", Access::Hidden)],
                &[("/tmp", own), ("/tmp/w", carried), ("/tmp/w/no", fixed)],
            ),
            // The last word on a path.
            (&[("/tmp", rw)], &[("/tmp", fixed)]),
            (&[("/tmp", private)], &[("/tmp", own)]),
        ] {
            let (all, can) = arranged(named);
            let all: Vec<_> = all.iter().map(|(path, stage)| (path.as_str(), *stage)).collect();
            assert!(can && all == expected, "{named:?}: {all:?}");
        }
    }

    #[test]
    fn an_overlay_and_too_many_paths_have_no_template() {
        assert!(!arranged(&[("/h", Access::Overlay)]).1);
        let paths: Vec<_> = (0..33).map(|number| format!("/tmp/{number}")).collect();
        let named: Vec<_> = paths.iter().map(|path| (path.as_str(), Access::ReadOnly)).collect();
        assert!(arranged(&named[..32]).1 && !arranged(&named).1);
    }
}
