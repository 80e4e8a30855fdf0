//! What overlays need: no mount below them, and overlayfs.

use std::ffi::CStr;
use std::path::Path;

use crate::cgroup::hierarchy::Mount;
use crate::confinement::Property;
use crate::error::advice::{Advice, advice};
use crate::error::{Error, Result, Step};
use crate::sandbox::layout::op::MOST_OVERLAYS;

/// Overlayfs takes one file system alone: what a mount covers would come to light.
pub(super) fn check<'a>(all: impl Iterator<Item = &'a Path>, mounts: &[Mount]) -> Result<()> {
    for (number, path) in all.enumerate() {
        let no = |more: String, why| {
            Err(Error::invalid(Step::Prepare, format!("overlay {path:?} in a sandbox{more}"), why))
        };
        if number == MOST_OVERLAYS {
            return no(String::new(), "16 overlays are possible at the most");
        }
        let is_below = |mount: &&Mount| mount.point != path && mount.point.starts_with(path);
        if let Some(mount) = mounts.iter().find(is_below) {
            let more = format!(" ({:?} is mounted below it)", mount.point);
            return no(more, "name a part of it without that mount");
        }
    }
    Ok(())
}

pub(super) fn lacking(dir: &CStr) -> Error {
    let why = format!("overlay {dir:?}: this kernel has no overlayfs (ENODEV)");
    Error::unconfinable(Property::Writes, why, NO_OVERLAYS)
}

const NO_OVERLAYS: Advice = advice!(
    "load it as root (modprobe overlay), or run a kernel that has it (Debian: linux-image-amd64, \
     not the one for clouds), or let it write to a copy of the directory: ",
    "Sandbox::read_write",
    "--write"
);

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn refused(paths: &[&str], points: &[&str]) -> String {
        let mount = |point: &&str| Mount {
            root: "/".into(),
            point: point.into(),
            kind: "ext4".to_owned(),
            options: String::new(),
        };
        let mounts: Vec<_> = points.iter().map(mount).collect();
        let error = check(paths.iter().map(Path::new), &mounts).err();
        error.map_or_else(String::new, |error| error.to_string())
    }

    #[test]
    fn nothing_is_mounted_below_an_overlay() {
        assert_eq!(refused(&["/a", "/b/c"], &["/", "/a", "/b", "/ab"]), "");
        let text = refused(&["/a", "/b/c"], &["/", "/b/c/d"]);
        assert!(text.contains("overlay \"/b/c\" in a sandbox (\"/b/c/d\" is mounted"), "{text}");
        assert_eq!(refused(&["/a"; 16], &[]), "");
        assert!(refused(&["/a"; 17], &[]).contains("16 overlays"));
    }

    #[test]
    fn a_kernel_without_overlayfs_is_named_with_what_to_type() {
        let error = lacking(c"/a");
        assert!(error.is_unconfinable() && error.hint().unwrap().contains("modprobe overlay"));
        let text = error.to_string();
        assert!(text.contains("writes only what is named") && text.contains("ENODEV"), "{text}");
    }
}
