//! Where a server is to be: its port, and a directory that no other user may write to.

use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::{geteuid, mkdtemp};

use crate::Any;

pub(crate) struct Place {
    pub(crate) port: u16,
    pub(crate) dir: PathBuf,
    /// It was made for this run alone.
    fresh: bool,
}

impl Place {
    pub(crate) fn make(port: u16, dir: Option<&str>) -> Result<Self, Any> {
        let (dir, fresh) = match dir {
            Some(dir) => own(dir.as_ref())?,
            None => fresh()?,
        };
        Ok(Self { port, dir, fresh })
    }

    /// Lets a server that runs as another user through to what is its own in here.
    pub(crate) fn let_others_pass(&self) -> Result<(), Any> {
        let failed = |error| format!("cannot change the mode of {}: {error}", self.dir.display());
        Ok(fs::set_permissions(&self.dir, Permissions::from_mode(0o711)).map_err(failed)?)
    }

    /// All went well.
    pub(crate) fn done(self) -> Result<(), Any> {
        if self.fresh {
            let failed = |error| format!("cannot remove {}: {error}", self.dir.display());
            fs::remove_dir_all(&self.dir).map_err(failed)?;
        }
        Ok(())
    }
}

/// A fixed name in /tmp could be another user's symbolic link to a file of ours.
fn fresh() -> Result<(PathBuf, bool), Any> {
    let template = std::env::temp_dir().join("tidy-recipe-XXXXXX");
    let failed = |errno| format!("cannot make directory {}: {errno}", template.display());
    Ok((mkdtemp(&template).map_err(failed)?, true))
}

/// The directory that was asked for: made, or one of ours that no other user may change.
fn own(dir: &Path) -> Result<(PathBuf, bool), Any> {
    let made = DirBuilder::new().mode(0o700).recursive(true).create(dir);
    made.map_err(|error| format!("cannot make directory {}: {error}", dir.display()))?;
    let meta = fs::symlink_metadata(dir)?;
    if !meta.is_dir() || meta.uid() != geteuid().as_raw() || meta.mode() & 0o022 != 0 {
        let why = "it is a symbolic link, another user's, or others may write to it";
        return Err(format!("cannot use directory {}: {why}", dir.display()).into());
    }
    Ok((dir.to_owned(), false))
}
