//! Walks a tree of cgroups, each directory after those below it: without recursion, with two fds at
//! a time, on one mount. The workload chooses its depth and width.
//!
//! On the way up a listing goes on behind the entry where it was left: cgroupfs lists in the order
//! of a hash of the name, and an entry's place is that hash. The walk remembers that place, not the
//! entry, down to a depth of 1,024; below that it reads the listing again from its start. Many
//! names may share a hash: so it resumes one hash earlier, and recognises the entry by its inode.

use core::ffi::CStr;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::calls::{self, DIRECTORY, EACCES, EXDEV, Facts};
use super::listing::split_entry;

/// Places by depth; only the pages that the tree's depth needs take memory.
static PLACES: [AtomicU32; 1024] = [const { AtomicU32::new(0) }; 1024];

/// Handles each directory of a walk.
pub(super) trait Visit {
    /// Called before the directories below; true if they and it need no visit.
    fn spares(&mut self, above: i32, name: &CStr) -> bool;

    /// Called after all directories below.
    fn after_children(&mut self, above: i32, name: &CStr, dir: i32);

    /// Called for a directory that a mount hides.
    fn hidden(&mut self) {}
}

/// Opens a file in a directory; restores permissions that a workload of our own user took away.
pub(super) fn open(dir: i32, name: &CStr, access: usize) -> Result<i32, isize> {
    match calls::open_in(dir, name, access) {
        Err(EACCES) => {
            calls::chmod(dir, 0o700);
            if calls::is_here(dir, name) {
                calls::chmod_in(dir, name, if access == DIRECTORY { 0o700 } else { 0o600 });
            }
            calls::open_in(dir, name, access)
        }
        opened => opened,
    }
}

/// A directory whose children are done, while its entry in the parent is looked for.
struct Left {
    dir: i32,
    inode: u64,
    place: u32,
}

/// Visits everything below `top`, and not `top` itself.
pub(super) fn walk(top: i32, visit: &mut impl Visit) {
    let mut here = top;
    let mut depth: usize = 0;
    let mut left = None;
    loop {
        if let Some((dir, place)) = list(here, left.take(), visit) {
            if let Some(slot) = PLACES.get(depth) {
                slot.store(place, Relaxed);
            }
            close_unless(top, here);
            here = dir;
            depth = depth.wrapping_add(1);
            continue;
        }
        if depth == 0 {
            return close_unless(top, here);
        }
        depth = depth.wrapping_sub(1);
        let place = PLACES.get(depth).map_or(u32::MAX, |slot| slot.load(Relaxed));
        left = Some(Left { dir: here, inode: Facts::of(here).inode, place });
        match calls::open_above(here) {
            Ok(above) => here = above,
            Err(_) => return calls::close(here),
        }
    }
}

fn close_unless(top: i32, here: i32) {
    if here != top {
        calls::close(here);
    }
}

/// Continues the listing of `here`, from its start or behind `left`; returns the first directory
/// with directories below it, and its place.
fn list(here: i32, left: Option<Left>, visit: &mut impl Visit) -> Option<(i32, u32)> {
    let mut buffer = [0u64; 512];
    let mut place = match &left {
        Some(Left { place, .. }) if *place != u32::MAX => place.saturating_sub(1),
        _ => 0,
    };
    calls::seek(here, place);
    let mut left = left;
    while let Some(mut entries) = calls::getdents(here, calls::bytes(&mut buffer)) {
        while let Some((entry, others)) = split_entry(entries) {
            entries = others;
            let this = place;
            // Hashes have 31 bits.
            place = u32::try_from(entry.next).unwrap_or(u32::MAX);
            if !entry.is_dir || is_before(&entry, this, here, &mut left, visit) {
                continue;
            }
            if let Some(dir) = meet(here, entry.name, visit) {
                return Some((dir, this));
            }
        }
    }
    if let Some(Left { dir, .. }) = left {
        calls::close(dir);
    }
    None
}

/// Whether the entry comes before `left` or is it, and so was visited. Finishes `left` when its
/// entry is found, and drops it when its place is passed: it is gone.
fn is_before(
    entry: &super::listing::Entry<'_>,
    place: u32,
    here: i32,
    left: &mut Option<Left>,
    visit: &mut impl Visit,
) -> bool {
    let Some(Left { dir, inode, place: last }) = left else { return false };
    let (dir, found, passed) = (*dir, entry.inode == *inode, place > *last);
    if found {
        visit.after_children(here, entry.name, dir);
    }
    if found || passed {
        calls::close(dir);
        *left = None;
    }
    !passed || found
}

/// Visits a directory without directories below it; returns one with some.
fn meet(here: i32, name: &CStr, visit: &mut impl Visit) -> Option<i32> {
    if visit.spares(here, name) {
        return None;
    }
    match open(here, name, DIRECTORY) {
        // Two links, and one for each directory below.
        Ok(dir) if Facts::of(dir).links > 2 => return Some(dir),
        Ok(dir) => {
            visit.after_children(here, name, dir);
            calls::close(dir);
        }
        Err(EXDEV) => visit.hidden(),
        Err(_) => {}
    }
    None
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, Permissions};
    use std::io;
    use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    use nix::fcntl::{OFlag, openat};
    use nix::sys::stat::{Mode, mkdirat};

    use super::super::listing::Entry;
    use super::super::tests::{Ground, as_ordinary, hand_over, mode};
    use super::*;
    use crate::cgroup::nesting;

    #[derive(Default)]
    struct Notes {
        after: Vec<String>,
    }

    impl Visit for Notes {
        fn spares(&mut self, _: i32, name: &CStr) -> bool {
            name == c"spared"
        }

        fn after_children(&mut self, _: i32, name: &CStr, dir: i32) {
            assert!(Facts::of(dir).inode != 0, "it is open");
            self.after.push(name.to_string_lossy().into_owned());
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "makes system calls that Miri lacks")]
    fn every_directory_is_met_once_behind_those_below_it() -> io::Result<()> {
        let ground = Ground::new("walk")?;
        for path in ["a/b/c", "a/b/d", "a/e", "f", "g/h", "spared/i"] {
            fs::create_dir_all(ground.path.join(path))?;
        }
        fs::write(ground.path.join("a/file"), "")?;
        let mut notes = Notes::default();
        walk(ground.fd(), &mut notes);
        let at = |name: &str| notes.after.iter().position(|met| met == name);
        assert!(at("c").max(at("d")) < at("b") && at("b").max(at("e")) < at("a"));
        assert!(at("h") < at("g"));
        notes.after.sort();
        assert_eq!(notes.after, ["a", "b", "c", "d", "e", "f", "g", "h"]);
        // The caller's fd is still the caller's, and no other is left open.
        assert_eq!(open_below(&ground.path)?, [ground.fd()]);
        Ok(())
    }

    /// This process's fds that lead there or below.
    fn open_below(path: &Path) -> io::Result<Vec<i32>> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc/self/fd")?.flatten() {
            if fs::read_link(entry.path()).is_ok_and(|to| to.starts_with(path)) {
                found.extend(entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
            }
        }
        Ok(found)
    }

    /// Deeper than places are remembered, where a cgroup can be made: its entries' places are small
    /// numbers, as a guard meets them.
    #[test]
    #[cfg_attr(miri, ignore = "makes system calls that Miri lacks")]
    fn the_deepest_are_met_too() -> io::Result<()> {
        let Ok(base) = nesting::base(None) else { return Ok(()) };
        let top = base.path.join(format!("tidy-deep-{}", std::process::id()));
        if fs::create_dir(&top).is_err() {
            return Ok(());
        }
        let dir = File::open(&top)?;
        let mut here = OwnedFd::from(dir.try_clone()?);
        for _ in 0..DEEP {
            mkdirat(&here, "d", Mode::S_IRWXU)?;
            here = openat(&here, "d", OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        }
        drop(here);
        let mut notes = Notes::default();
        walk(dir.as_raw_fd(), &mut notes);
        let open = open_below(&top)?;
        walk(dir.as_raw_fd(), &mut Taker);
        fs::remove_dir(&top)?;
        assert_eq!((notes.after.len(), open), (DEEP, vec![dir.as_raw_fd()]));
        Ok(())
    }

    const DEEP: usize = PLACES.len() + 6;

    /// Removes what it meets.
    struct Taker;

    impl Visit for Taker {
        fn spares(&mut self, _: i32, _: &CStr) -> bool {
            false
        }

        fn after_children(&mut self, above: i32, name: &CStr, _: i32) {
            calls::rmdir(above, name);
        }
    }

    /// What is left: its inode is 7, its place 40.
    fn left() -> io::Result<(i32, Option<Left>)> {
        let dir = File::open("/")?.into_raw_fd();
        Ok((dir, Some(Left { dir, inode: 7, place: 40 })))
    }

    fn is_open(fd: i32) -> bool {
        Facts::of(fd).inode != 0
    }

    /// An entry with this inode at this place: whether it was visited, is passed, is finished.
    fn meets(inode: u64, place: u32) -> io::Result<(bool, bool, bool)> {
        let (dir, mut left) = left()?;
        let entry = Entry { inode, next: 0, is_dir: true, name: c"x" };
        let mut notes = Notes::default();
        let before = is_before(&entry, place, -1, &mut left, &mut notes);
        let passed = left.is_none();
        assert!(passed || is_open(dir));
        if !passed {
            calls::close(dir);
        }
        Ok((before, passed, notes.after == ["x"]))
    }

    #[test]
    #[cfg_attr(miri, ignore = "makes system calls that Miri lacks")]
    fn a_listing_goes_on_behind_the_entry_where_it_was_left() -> io::Result<()> {
        // Before it, with its hash, it, and behind it: then it is gone.
        assert_eq!(meets(6, 39)?, (true, false, false));
        assert_eq!(meets(6, 40)?, (true, false, false));
        assert_eq!(meets(7, 40)?, (true, true, true));
        assert_eq!(meets(7, 41)?, (true, true, true));
        assert_eq!(meets(6, 41)?, (false, true, false));
        let entry = Entry { inode: 6, next: 0, is_dir: true, name: c"x" };
        assert!(!is_before(&entry, 0, -1, &mut None, &mut Notes::default()));
        Ok(())
    }

    #[test]
    #[cfg_attr(miri, ignore = "makes system calls that Miri lacks")]
    fn permissions_that_were_taken_are_given_back() -> io::Result<()> {
        let ground = Ground::new("taken")?;
        let below = ground.path.join("below");
        fs::create_dir(&below)?;
        fs::write(below.join("file"), "")?;
        for path in [&below.join("file"), &below, &ground.path] {
            hand_over(path)?;
            fs::set_permissions(path, Permissions::from_mode(0o0))?;
        }
        let opened = as_ordinary(|| {
            let dir = open(ground.fd(), c"below", DIRECTORY).unwrap_or(-1);
            let file = open(dir, c"file", calls::WRITE).map(calls::close);
            calls::close(dir);
            Ok((dir >= 0, file))
        })?;
        assert_eq!(opened, (true, Ok(())));
        assert_eq!((mode(&ground.path)?, mode(&below)?), (0o700, 0o700));
        assert_eq!(mode(&below.join("file"))?, 0o600);
        Ok(())
    }

    /// A link in a directory that was closed: what it leads to is a stranger's.
    #[test]
    #[cfg_attr(miri, ignore = "makes system calls that Miri lacks")]
    fn no_stranger_gets_a_mode() -> io::Result<()> {
        let ground = Ground::new("stranger")?;
        let (below, file) = (ground.path.join("below"), ground.path.join("stranger"));
        fs::create_dir(&below)?;
        fs::write(&file, "")?;
        symlink(&file, below.join("link"))?;
        for path in [&below, &file] {
            hand_over(path)?;
        }
        let dir = File::open(&below)?;
        fs::set_permissions(&file, Permissions::from_mode(0o444))?;
        fs::set_permissions(&below, Permissions::from_mode(0o0))?;
        let opened = as_ordinary(|| Ok(open(dir.as_raw_fd(), c"link", calls::READ)))?;
        assert!(opened.is_err());
        assert_eq!((mode(&below)?, mode(&file)?), (0o700, 0o444));
        Ok(())
    }
}
