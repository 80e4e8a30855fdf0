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
use crate::sandbox::mount_news::MountList;
use crate::sandbox::networks::{EmptyNetwork, Networks};
use crate::sandbox::view::{Network, Piece};
use crate::sys::above_two;
use crate::sys::poll::lock;

/// What is found at a path: the device and the inode, none where nothing is.
type Found = Option<(u64, u64)>;

#[derive(Debug)]
pub(crate) struct Template {
    ids: Ids,
    user: OwnedFd,
    mounts: OwnedFd,
    list: MountList,
    covers: Mutex<Covers>,
    networks: Networks,
    /// What was at the paths of the host that it shows or hides.
    found: Vec<Found>,
}

/// What is known of the mounts of a template. The kernel takes away what is mounted on a file that
/// is removed, or replaced by another one of its name.
#[derive(Debug, Default)]
struct Covers {
    /// How often they have changed.
    changes: u64,
    /// After how many of these a command has seen that all are there.
    seen: Option<u64>,
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
    network: Option<EmptyNetwork>,
    /// The bits of [`number::TASKS`].
    tasks: usize,
    /// The changes of the mounts after which it looks whether all are there.
    looks: Option<u64>,
    ids: Ids,
    found: Vec<Found>,
}

/// What a command has handed out of its namespaces.
#[derive(Debug, Default)]
pub(crate) struct HandedOut {
    user: Option<OwnedFd>,
    mounts: Option<OwnedFd>,
    list: Option<OwnedFd>,
    network: Option<OwnedFd>,
    sockets: Option<OwnedFd>,
}

/// A network that goes back to its template once no process is in it.
#[derive(Debug)]
pub(crate) struct Rented {
    template: Arc<Template>,
    network: EmptyNetwork,
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
        let lends = if network == Network::None { number::LENDS_NETWORK } else { 0 };
        let Some(made) = state.made.as_ref().filter(|made| made.ids == ids).cloned() else {
            let (tasks, found) = (number::MAKES_TEMPLATE | lends, found(pieces));
            return Lent { tasks, found, ..Lent::nothing(ids) };
        };
        let rented = if lends == 0 { None } else { made.networks.take() };
        let looks = made.is_to_be_looked_at();
        let mut tasks = if rented.is_some() { 0 } else { lends };
        if looks.is_some() {
            tasks |= number::LOOKS_AT_COVERS;
        }
        let template = Some(made);
        Lent { template, network: rented, tasks, looks, ..Lent::nothing(ids) }
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
        let HandedOut { user, mounts, list, network, sockets } = handed_out;
        let made = network.zip(sockets).map(|(network, of)| EmptyNetwork::new(network, of));
        let network = lent.network.take().or(made);
        let template = match (lent.template.take(), user, mounts, list) {
            (None, Some(user), Some(mounts), Some(list)) => {
                let (ids, found) = (lent.ids, std::mem::take(&mut lent.found));
                let list = MountList::new(list);
                let (covers, networks) = Default::default();
                let made = Template { ids, user, mounts, list, covers, networks, found };
                Arc::clone(lock(&self.state).made.insert(Arc::new(made)))
            }
            (template, ..) => template?,
        };
        template.was_looked_at(lent.looks);
        network.map(|network| Rented { template, network })
    }
}

impl Template {
    /// Whether a command has to look at the covers: after which of their changes.
    fn is_to_be_looked_at(&self) -> Option<u64> {
        let mut covers = lock(&self.covers);
        covers.changes += u64::from(self.list.has_changed());
        (covers.seen != Some(covers.changes)).then_some(covers.changes)
    }

    /// Notes that a command has, and that they were there: it runs.
    fn was_looked_at(&self, looked: Option<u64>) {
        if looked.is_some() {
            lock(&self.covers).seen = looked;
        }
    }
}

impl HandedOut {
    /// Takes what came over the line. Without room for its fd there is no template.
    pub(crate) fn add(&mut self, which: u32, fd: Option<OwnedFd>) {
        let fd = fd.and_then(|fd| above_two(fd).ok());
        match which {
            news::USER_NAMESPACE => self.user = fd,
            news::MOUNTS_NAMESPACE => self.mounts = fd,
            news::MOUNTS => self.list = fd,
            news::NETWORK_NAMESPACE => self.network = fd,
            _ => self.sockets = fd,
        }
    }
}

impl Lent {
    fn nothing(ids: Ids) -> Self {
        let (template, network, looks) = Default::default();
        Self { template, network, tasks: 0, looks, ids, found: Vec::new() }
    }

    /// Whether at the paths of the host is what was there when the template was made.
    pub(crate) fn fits(&self, pieces: &[Piece]) -> bool {
        self.template.as_ref().is_none_or(|template| template.found == found(pieces))
    }

    /// Whether there is a template, for which the command waits for a word about that.
    pub(crate) fn is_of_template(&self) -> bool {
        self.template.is_some()
    }

    /// The numbers that the set-up program is told, from [`number::USER_NAMESPACE`] on.
    pub(crate) fn numbers(&self) -> [i64; 4] {
        let fd = |fd: Option<RawFd>| i64::from(fd.unwrap_or(-1));
        let template = self.template.as_deref();
        let user = fd(template.map(|template| template.user.as_raw_fd()));
        let mounts = fd(template.map(|template| template.mounts.as_raw_fd()));
        let network = fd(self.network.as_ref().map(AsRawFd::as_raw_fd));
        [user, mounts, network, i64::try_from(self.tasks).unwrap_or_default()]
    }

    /// The fds among those.
    pub(crate) fn fds(&self) -> impl Iterator<Item = RawFd> {
        let template = self.template.iter().flat_map(|made| [&made.user, &made.mounts]);
        let network = self.network.iter().map(AsRawFd::as_raw_fd);
        template.map(AsRawFd::as_raw_fd).chain(network)
    }
}

impl Rented {
    /// Puts it back; no process is in it any more.
    pub(crate) fn give_back(self) {
        self.template.networks.give_back(self.network);
    }
}

/// What is at the paths of the host that the pieces show or hide.
fn found(pieces: &[Piece]) -> Vec<Found> {
    let paths = pieces.iter().filter(|piece| matches!(piece.kind, op::BIND | op::HIDE));
    let at = |piece: &Piece| lstat(&piece.path()).ok().map(|stat| (stat.st_dev, stat.st_ino));
    paths.map(at).collect()
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
