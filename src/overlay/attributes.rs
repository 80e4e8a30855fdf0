//! Extended attributes that a commit takes over: those of the user's, which the kernel gives no
//! meaning, and an ordinary user's ACLs, which can name none but that user. All others are the
//! file system's, a security module's or the overlay's own.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::unistd::geteuid;

use crate::sys::raw::{attribute_names, attribute_value, remove_attribute, set_attribute};

/// The kernel has no longer value and no longer list of names.
const MOST: usize = 64 << 10;

const ACLS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];

/// Root's commands are another user, which is none outside: what an ACL says there means something
/// else here.
fn is_taken_over(name: &[u8], acls: bool) -> bool {
    let users = name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
    users || acls && ACLS.contains(&name)
}

/// The names, in order; none where the file system has no attributes.
fn names(file: BorrowedFd<'_>) -> Result<Vec<CString>, Errno> {
    let mut buffer = vec![0; MOST];
    let length = match attribute_names(file, &mut buffer) {
        Err(Errno::EOPNOTSUPP) => 0,
        length => length?,
    };
    let acls = !geteuid().is_root();
    let all = buffer.get(..length).unwrap_or_default().split(|byte| *byte == 0);
    let taken = all.filter(|name| is_taken_over(name, acls));
    let mut names: Vec<_> = taken.filter_map(|name| CString::new(name).ok()).collect();
    names.sort_unstable();
    Ok(names)
}

fn value(file: BorrowedFd<'_>, name: &CStr) -> Result<Option<Vec<u8>>, Errno> {
    let mut buffer = vec![0; MOST];
    match attribute_value(file, name, &mut buffer) {
        Ok(length) => {
            buffer.truncate(length);
            Ok(Some(buffer))
        }
        Err(Errno::ENODATA | Errno::EOPNOTSUPP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Whether both files have the same ones.
pub(super) fn are_same(one: impl AsFd, other: impl AsFd) -> Result<bool, Errno> {
    let (one, other) = (one.as_fd(), other.as_fd());
    let names = match (names(one)?, names(other)?) {
        (first, second) if first == second => first,
        _ => return Ok(false),
    };
    for name in names {
        if value(one, &name)? != value(other, &name)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Gives a file those of another one, and takes away what it has besides. One value at a time: the
/// command chose number and size.
pub(super) fn copy(from: impl AsFd, to: impl AsFd) -> Result<(), Errno> {
    let (from, to) = (from.as_fd(), to.as_fd());
    let wanted = names(from)?;
    for name in names(to)?.iter().filter(|name| wanted.binary_search(name).is_err()) {
        remove_attribute(to, name)?;
    }
    for name in &wanted {
        if let Some(wanted) = value(from, name)?
            && value(to, name)?.as_ref() != Some(&wanted)
        {
            set_attribute(to, name, &wanted)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_is_taken_over_that_means_something_to_the_kernel() {
        let names: [&[u8]; 8] = [
            b"user.mime_type",
            b"user.overlay.opaque",
            b"user.overlay.overlay.x",
            b"security.capability",
            b"trusted.overlay.opaque",
            b"system.posix_acl_access",
            b"system.nfs4_acl",
            b"users",
        ];
        for (acls, taken) in [(false, vec![0]), (true, vec![0, 5])] {
            let found = names.iter().enumerate().filter(|(_, name)| is_taken_over(name, acls));
            assert_eq!(found.map(|(at, _)| at).collect::<Vec<_>>(), taken);
        }
    }
}
