//! The user that a command is in a sandbox.

use std::fs;
use std::path::Path;

use nix::unistd::{getegid, geteuid};

use crate::confinement::Property;
use crate::error::advice::{Advice, advice};
use crate::error::{Error, Result, Step, errno_of};

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
