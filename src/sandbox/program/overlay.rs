//! An overlay: the host's directory to be read, below a layer in memory that takes what is written.
//!
//! The layer is at no path once the overlay is made: an fd of it is all that is left, which goes to
//! the supervisor. Overlayfs wants paths for a moment: those are in the root that is being built,
//! which no other process sees.

use crate::calls::{CLOEXEC, Facts, call, close, nr};
use crate::layout::Op;
use crate::lower::cloned;
use crate::orders::Plan;
use crate::view::{
    NO_DEVICES, NO_SET_ID, READ_ONLY, View, attach, fd, new, new_tmpfs, set_attributes, text,
};

const LOWER: &core::ffi::CStr = c".tidy-lower";
const UPPER: &core::ffi::CStr = c".tidy-upper";

impl View {
    /// Adds an overlay; the fd of its upper directory. `lower` is the mount of the host's
    /// directory, where that is made already.
    pub(crate) fn overlay(
        &self,
        plan: &Plan,
        op: Op,
        lower: Option<usize>,
    ) -> Result<usize, isize> {
        let place = self.place(plan.address(op.to), true)?;
        let lower = match lower {
            Some(lower) => lower,
            None => cloned(plan.address(op.from))?.0,
        };
        let mode = Facts::of(lower)?.mode;
        fd(set_attributes(lower, READ_ONLY | NO_SET_ID | NO_DEVICES, 0))?;
        let layers = fd(new_tmpfs(text(c"700"), 0))?;
        fd(call(nr::MKDIRAT, [layers, text(c"upper"), 0o700]))?;
        fd(call(nr::MKDIRAT, [layers, text(c"work"), 0o700]))?;
        const DIRECTORY: usize = if cfg!(target_arch = "aarch64") { 0o40_000 } else { 0o200_000 };
        let flags = DIRECTORY | CLOEXEC;
        let upper = fd(call(nr::OPENAT, [layers, text(c"upper"), flags]))?;
        // What the merged directory looks like.
        fd(call(nr::FCHMOD, [upper, mode]))?;
        self.lend(LOWER, lower)?;
        self.lend(UPPER, layers)?;
        fd(call(nr::FCHDIR, [self.root]))?;
        let options = [
            (c"lowerdir", text(c".tidy-lower")),
            (c"upperdir", text(c".tidy-upper/upper")),
            (c"workdir", text(c".tidy-upper/work")),
            (c"userxattr", 0),
        ];
        let overlay = fd(new(c"overlay", &options, NO_SET_ID | NO_DEVICES))?;
        self.take_back(LOWER)?;
        self.take_back(UPPER)?;
        self.mount(overlay, place)?;
        Ok(upper)
    }

    /// Puts a mount at a name in the root; closes its fd.
    fn lend(&self, name: &'static core::ffi::CStr, mount: usize) -> Result<(), isize> {
        fd(call(nr::MKDIRAT, [self.root, text(name), 0o700]))?;
        let answer = attach(mount, self.root, text(name));
        close(mount);
        fd(answer).map(drop)
    }

    /// The root is the working directory.
    fn take_back(&self, name: &'static core::ffi::CStr) -> Result<(), isize> {
        const DETACH: usize = 2;
        const DIRECTORY: usize = 0x200;
        fd(call(nr::UMOUNT2, [text(name), DETACH]))?;
        fd(call(nr::UNLINKAT, [self.root, text(name), DIRECTORY])).map(drop)
    }
}
