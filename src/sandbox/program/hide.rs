//! Covers what is hidden.

use crate::calls::{CLOEXEC, EINVAL, Facts, PATH_ONLY, call, close, nr, open_plain};
use crate::view::{
    NO_DEVICES, NO_EXEC, NO_SET_ID, READ_ONLY, REGULAR_FILE, View, attach, empty, fd, new_tmpfs,
    set_attributes, text,
};

/// No attribute beside those that every tmpfs has.
const READ_ONLY_LATER: u32 = 0;

impl View {
    /// Covers a directory with an empty one, anything else with an empty file. What is not in the
    /// view needs no cover; what may come into it later cannot get one.
    pub(crate) fn hide(&self, to: usize) -> Result<(), isize> {
        let place = fd(open_plain(self.root, to, PATH_ONLY))?;
        let cover = fd(new_tmpfs(c"555".as_ptr().expose_provenance(), READ_ONLY_LATER))?;
        if Facts::of(place)?.is_dir {
            fd(set_attributes(cover, READ_ONLY, 0))?;
            return self.mount(cover, place);
        }
        let name = text(c"hidden");
        fd(call(nr::MKNODAT, [cover, name, REGULAR_FILE]))?;
        let file = match clone_below(cover, name) {
            EINVAL => self.clone_attached(cover, name),
            file => file,
        };
        let file = fd(file)?;
        close(cover);
        fd(set_attributes(file, READ_ONLY | NO_SET_ID | NO_DEVICES | NO_EXEC, 0))?;
        self.mount(file, place)
    }

    /// Before Linux 6.15 only what is in a mount that is somewhere can be cloned: for that moment
    /// it is over `/proc`.
    fn clone_attached(&self, mount: usize, name: usize) -> isize {
        const DETACH: usize = 2;
        let place = open_plain(self.root, text(c"proc"), PATH_ONLY);
        if place < 0 {
            return place;
        }
        let attached = attach(mount, place.cast_unsigned(), empty());
        close(place.cast_unsigned());
        if attached < 0 {
            return attached;
        }
        let file = clone_below(mount, name);
        // By the working directory it has a path.
        call(nr::FCHDIR, [mount]);
        let gone = call(nr::UMOUNT2, [text(c"."), DETACH]);
        call(nr::FCHDIR, [self.root]);
        if gone < 0 { gone } else { file }
    }
}

fn clone_below(mount: usize, name: usize) -> isize {
    const CLONE: usize = 1;
    call(nr::OPEN_TREE, [mount, name, CLONE | CLOEXEC])
}
