//! Overlays after their command has ended: what was written is listed, committed to the host's
//! directory, or dropped. How an overlay is made is the sandbox's.
//!
//! All that is in a layer was chosen by the command. Files are opened by the directory above them,
//! one name at a time; no symbolic link is followed and no mount crossed, on either side.

mod attributes;
mod files;
pub(crate) mod layers;
#[cfg(feature = "serde")]
mod serial;
mod walk;
mod write;

use std::path::Path;

use crate::changes::{ChangeList, Changes};
use crate::error::{Error, Result, Step};
use crate::overlay::walk::{Fault, Walk};

impl Changes {
    /// The directory, as it was named.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Lists the differences between the layer and the host's directory as that is now.
    ///
    /// # Errors
    /// A directory cannot be read, or memory or fds have run out.
    pub fn list(&self) -> Result<ChangeList> {
        self.walked(false, Step::Changes)
    }

    /// Makes the host's directory like what the command saw at its end, as the calling user.
    /// Returns what it has done.
    ///
    /// Each file gets its name when it is whole, so a reader sees the old one or the new one, and a
    /// kill leaves nothing half done: it is written without a name (`O_TMPFILE`). Where the file
    /// system has no such files, and for the moment in which an old one is replaced, it is called
    /// `.tidy-commit-PID-N`. Files that do not differ are left alone. Permissions (without set-id
    /// bits), times of files, symbolic links, hard links among new files, holes and extended
    /// attributes (`user.*`, and an ordinary user's ACLs) are kept. Files become the caller's own;
    /// root leaves one that is replaced with its owner. Where something of the host's has changed
    /// since, the command's word counts.
    ///
    /// # Errors
    /// The text names the first path that fails and how many changes are made by then: those stay,
    /// and a second commit goes on from there.
    pub fn commit(&self) -> Result<ChangeList> {
        self.walked(true, Step::Commit)
    }

    /// Drops the layer. So does every other end of this value; clones of it keep the layer.
    pub fn discard(self) {}

    fn walked(&self, writes: bool, step: Step) -> Result<ChangeList> {
        let mut walk = Walk::new(&self.layers, writes);
        match walk.all() {
            Ok(()) => Ok(walk.found),
            Err(Fault { path, errno }) => {
                let mut subject = format!("{path:?} in {:?}", self.dir);
                if writes {
                    subject += &format!(", {} changes are made", walk.found.count);
                }
                Err(Error::os(step, subject, errno))
            }
        }
    }
}
