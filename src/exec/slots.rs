//! Low numbers for the streams of a child that leaves its parent's open files behind.
//!
//! A copy of the table of open files costs a child for each of them, when it is made and at its
//! exec: together 0.075 us, std's spawn as well, 1.4 ms at 19,000. A child that shares the table
//! (`CLONE_FILES`) and leaves it with what is below a number ([close_range(2)],
//! `CLOSE_RANGE_UNSHARE`) pays for that alone. So what it needs has to stand low: its streams are
//! put into places that are kept for them while it is born.
//!
//! [close_range(2)]: https://man7.org/linux/man-pages/man2/close_range.2.html

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, TryLockError};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use crate::sys::{above_two, dup_to};

/// What a child needs stands below this, or it gets a copy of the table.
pub(crate) const LOW: RawFd = 256;

/// The fds above 2 that a child is to have, and no others.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kept<'a> {
    pub(crate) list: &'a [RawFd],
    /// Those of its supervisor; none for a process that has a table of its own.
    pub(crate) slots: Option<&'a Slots>,
}

/// Three places, for one birth at a time. They cost four fds, from the first command on that is to
/// have no others than are listed: as long as low numbers are free.
#[derive(Debug, Default)]
pub(crate) struct Slots(Mutex<State>);

#[derive(Debug, Default)]
enum State {
    #[default]
    Unused,
    Made(Places),
    /// No low number was free.
    None,
}

#[derive(Debug)]
struct Places {
    /// `/dev/null`, which is in the places between two births.
    null: OwnedFd,
    places: [OwnedFd; 3],
}

impl Slots {
    /// Takes the places for one birth, and makes them first. None if another birth has them, which
    /// may take long, or if there are none.
    pub(crate) fn take(&self) -> Option<Taken<'_>> {
        let mut state = match self.0.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        if matches!(*state, State::Unused) {
            *state = Places::make().map_or(State::None, State::Made);
        }
        matches!(*state, State::Made(_)).then_some(Taken { state, used: [false; 3] })
    }
}

impl Places {
    fn make() -> Option<Self> {
        let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC;
        let null = above_two(open("/dev/null", flags, Mode::empty()).ok()?).ok()?;
        let place = || null.try_clone().ok().filter(|place| place.as_raw_fd() < LOW);
        let places = [place()?, place()?, place()?];
        Some(Self { null, places })
    }
}

/// The places, while a child is born. They hold nothing of it afterwards: the reader of a pipe sees
/// its end.
pub(crate) struct Taken<'a> {
    state: MutexGuard<'a, State>,
    used: [bool; 3],
}

impl Taken<'_> {
    /// Puts the streams that do not stand low into the places; returns where each stands.
    pub(crate) fn put(&mut self, streams: [RawFd; 3]) -> Result<[RawFd; 3], Errno> {
        let State::Made(Places { places, .. }) = &mut *self.state else { return Ok(streams) };
        let mut all = streams;
        let each = all.iter_mut().zip(places).zip(&mut self.used);
        for ((stream, place), used) in each.filter(|((stream, _), _)| **stream >= LOW) {
            *used = true;
            dup_to(*stream, place)?;
            *stream = place.as_raw_fd();
        }
        Ok(all)
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let State::Made(Places { null, places }) = &mut *self.state else { return };
        for (place, _) in places.iter_mut().zip(self.used).filter(|(_, used)| *used) {
            // It fails for no number that is open.
            let _ = dup_to(null.as_raw_fd(), place);
        }
    }
}
