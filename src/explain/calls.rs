//! What each call is about: a path and what becomes of it, or an address.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use libc::{O_ACCMODE, O_CREAT, O_EXCL, O_NOFOLLOW, O_PATH, O_RDONLY, O_TMPFILE, O_TRUNC};

use crate::denied::Action;
use crate::explain::process::{Call, Process};
use crate::sandbox::filter::watch::Refusal;
use crate::sandbox::scope::Watch;

/// A call that was seen, to be judged.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) call: &'static str,
    /// The process's name and pid.
    pub(super) who: (String, u32),
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    Path(PathUse),
    Address(Action, SocketAddr),
    Refused(Refusal),
    /// The file that a process executes.
    Program(PathBuf),
}

/// A path, absolute and as it was given, and what is done with it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct PathUse {
    pub(super) path: PathBuf,
    pub(super) action: Action,
    pub(super) how: How,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct How {
    /// Whether a symbolic link at the end of the path is followed.
    pub(super) follows: bool,
    pub(super) there: There,
}

/// What has to be at a path: else the call fails, whatever is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum There {
    Something,
    Nothing,
    Either,
}

use There::{Either, Nothing, Something};

/// Where a call has a path: the argument with a directory, and that with the string.
type Place = (Option<u8>, u8);

const fn looks(follows: bool) -> (Action, How) {
    (Action::Read, How { follows, there: Something })
}

const fn changes(follows: bool, there: There) -> (Action, How) {
    (Action::Write, How { follows, there })
}

/// The paths of a call, where its arguments do not matter.
fn paths(name: &str) -> Vec<(Place, (Action, How))> {
    let made = changes(false, Nothing);
    let gone = changes(false, Something);
    let put = changes(false, Either);
    let changed = changes(true, Something);
    match name {
        "mkdir" | "mknod" => vec![((None, 0), made)],
        "mkdirat" | "mknodat" => vec![((Some(0), 1), made)],
        "symlink" => vec![((None, 1), made)],
        "symlinkat" => vec![((Some(1), 2), made)],
        "unlink" | "rmdir" => vec![((None, 0), gone)],
        "unlinkat" => vec![((Some(0), 1), gone)],
        "rename" => vec![((None, 0), gone), ((None, 1), put)],
        "renameat" | "renameat2" => vec![((Some(0), 1), gone), ((Some(2), 3), put)],
        "link" => vec![((None, 0), looks(false)), ((None, 1), made)],
        "linkat" => vec![((Some(0), 1), looks(false)), ((Some(2), 3), made)],
        "truncate" | "chmod" | "chown" | "utime" | "utimes" | "setxattr" | "removexattr" => {
            vec![((None, 0), changed)]
        }
        "fchmodat" | "fchmodat2" | "fchownat" | "utimensat" | "futimesat" | "setxattrat"
        | "removexattrat" => vec![((Some(0), 1), changed)],
        "lchown" | "lsetxattr" | "lremovexattr" => vec![((None, 0), gone)],
        "stat" | "access" | "chdir" | "statfs" | "getxattr" | "listxattr" => {
            vec![((None, 0), looks(true))]
        }
        "lstat" | "readlink" | "lgetxattr" | "llistxattr" => vec![((None, 0), looks(false))],
        "newfstatat" | "statx" | "faccessat" | "faccessat2" | "getxattrat" | "listxattrat" => {
            vec![((Some(0), 1), looks(true))]
        }
        "inotify_add_watch" => vec![((None, 1), looks(true))],
        "readlinkat" => vec![((Some(0), 1), looks(false))],
        _ => Vec::new(),
    }
}

/// open(2) with these flags.
fn opened(flags: i32) -> (Action, How) {
    let follows = flags & O_NOFOLLOW == 0;
    let reads = flags & O_ACCMODE == O_RDONLY && flags & (O_CREAT | O_TRUNC) == 0;
    match flags {
        _ if flags & O_PATH != 0 || reads => looks(follows),
        _ if flags & O_TMPFILE == O_TMPFILE => changes(follows, Something),
        _ if flags & O_CREAT == 0 => changes(follows, Something),
        _ if flags & O_EXCL != 0 => changes(false, Nothing),
        _ => changes(follows, Either),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the kernel takes the low half")]
fn int(argument: u64) -> i32 {
    argument as i32
}

/// What the call is about. Its memory is read as it is now: it may change until the call is made,
/// so a text is all that comes of it.
pub(super) fn seen(
    watch: &Watch,
    call: &Call,
    process: &Process,
    refusal: Option<Refusal>,
) -> Vec<Seen> {
    let name = watch.answers.name(call.number);
    let mut all = Vec::new();
    if let Some(refusal) = refusal {
        all.push(What::Refused(refusal));
    } else {
        about(name, call, process, &mut all);
        if watch.learns {
            all.extend(process.program().map(What::Program));
        }
        all.retain(|what| match what {
            What::Path(path) => !watch.scope.plainly_allows(&path.path, path.action),
            What::Program(path) => !watch.scope.plainly_allows(path, Action::Read),
            What::Address(..) | What::Refused(_) => true,
        });
    }
    // The name costs more than all before it.
    let mut who = None;
    let all = all.into_iter().map(|what| {
        let who = who.get_or_insert_with(|| process.name()).clone();
        Seen { call: name, who, what }
    });
    all.collect()
}

fn about(name: &str, call: &Call, process: &Process, all: &mut Vec<What>) {
    let argument = |at: u8| call.arguments.get(usize::from(at)).copied().unwrap_or(0);
    let places = match name {
        "open" => vec![((None, 0), opened(int(argument(1))))],
        "creat" => vec![((None, 0), changes(true, Either))],
        "openat" => vec![((Some(0), 1), opened(int(argument(2))))],
        "connect" => {
            return all.extend(address(process, Action::Connect, argument(1), argument(2)));
        }
        "bind" => return all.extend(address(process, Action::Bind, argument(1), argument(2))),
        "sendto" => return all.extend(address(process, Action::Connect, argument(4), argument(5))),
        name => paths(name),
    };
    const NO_FOLLOW: i32 = libc::AT_SYMLINK_NOFOLLOW;
    let flags = match name {
        "newfstatat" | "faccessat2" | "utimensat" => int(argument(3)),
        "statx" | "setxattrat" | "removexattrat" | "getxattrat" | "listxattrat" => int(argument(2)),
        _ => 0,
    };
    for ((dir, at), (action, how)) in places {
        let how = How { follows: how.follows && flags & NO_FOLLOW == 0, ..how };
        let Some(given) = process.text(argument(at)).filter(|text| !text.is_empty()) else {
            continue;
        };
        let given = Path::new(OsStr::from_bytes(&given));
        let from = || process.directory(dir.map_or(libc::AT_FDCWD, |dir| int(argument(dir))));
        let from = if given.is_absolute() { Some(PathBuf::new()) } else { from() };
        if let Some(from) = from {
            all.push(What::Path(PathUse { path: from.join(given), action, how }));
        }
    }
}

/// The address of a call; a path of a UNIX socket is one that is looked at, or made.
fn address(process: &Process, action: Action, at: u64, len: u64) -> Option<What> {
    let len = usize::try_from(len & 0xffff_ffff).ok()?.min(128);
    let bytes = process.bytes(at, len)?;
    let (family, rest) = bytes.split_first_chunk()?;
    match i32::from(u16::from_ne_bytes(*family)) {
        libc::AF_INET => {
            let (port, rest) = rest.split_first_chunk()?;
            let ip = Ipv4Addr::from(*rest.first_chunk::<4>()?);
            Some(What::Address(action, SocketAddr::new(ip.into(), u16::from_be_bytes(*port))))
        }
        libc::AF_INET6 => {
            let (port, rest) = rest.split_first_chunk()?;
            let ip = Ipv6Addr::from(*rest.get(4..)?.first_chunk::<16>()?);
            let ip = ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4);
            Some(What::Address(action, SocketAddr::new(ip, u16::from_be_bytes(*port))))
        }
        libc::AF_UNIX => {
            let end = rest.iter().position(|&byte| byte == 0).unwrap_or(rest.len());
            let path = Path::new(OsStr::from_bytes(rest.get(..end)?));
            let from = || process.directory(libc::AT_FDCWD);
            let path = match path.components().next()? {
                Component::RootDir => path.to_owned(),
                _ => from()?.join(path),
            };
            let (action, how) = match action {
                Action::Bind => changes(false, Nothing),
                _ => looks(true),
            };
            Some(What::Path(PathUse { path, action, how }))
        }
        _ => None,
    }
}
