//! Where the server's output goes: one file in a directory that only this user may enter.

use std::path::{Path, PathBuf};

use nix::unistd::mkdtemp;

use crate::Result;

pub(crate) struct Logs {
    dir: PathBuf,
    keep: bool,
}

impl Logs {
    /// Makes a fresh directory with mode 0700. A fixed name in /tmp could be another user's
    /// symbolic link to a file of ours.
    pub(crate) fn make(parent: Option<&Path>) -> Result<Self> {
        let place = parent.map_or_else(std::env::temp_dir, PathBuf::from);
        let failed = |path: &Path, error: &dyn std::fmt::Display| {
            format!("cannot make directory {}: {error}", path.display())
        };
        if parent.is_some() {
            std::fs::create_dir_all(&place).map_err(|error| failed(&place, &error))?;
        }
        let template = place.join("tidy-experiment-XXXXXX");
        let dir = mkdtemp(&template).map_err(|errno| failed(&template, &errno))?;
        Ok(Self { dir, keep: parent.is_some() })
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.dir.join("server.log")
    }

    /// All went well: the log is of no use any more, unless its place was asked for.
    pub(crate) fn done(self) {
        if !self.keep {
            // Where it cannot be emptied it stays, as after a failure.
            let _ = std::fs::remove_file(self.file());
        }
    }
}

/// A directory with a log in it stays.
impl Drop for Logs {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.dir);
    }
}
