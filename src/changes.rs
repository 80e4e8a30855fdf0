//! What a command has written in an overlay: values, and the layer that they are in.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

/// What a command has written below a directory of
/// [`Sandbox::overlay`](crate::Sandbox::overlay): in a layer in memory, the host's directory is as
/// it was.
///
/// # Cleanup
/// The layer is at no path and on no disk. It is freed with the last clone of this value, however
/// that goes: a report that is dropped, a panic, the end of the process by SIGKILL. Until then it
/// is memory of the machine, and two fds of this process.
///
/// # Examples
/// ```
/// use tidy_process::{Command, Sandbox};
///
/// # let dir = std::env::temp_dir().join(format!("tidy-doc-{}", std::process::id()));
/// # std::fs::create_dir(&dir)?;
/// # let dir = dir.canonicalize()?;
/// let sandbox = Sandbox::new().system().overlay(&dir);
/// let mut command = Command::new("sh");
/// command.args(["-c", "echo 1 >made"]).current_dir(&dir).sandbox(&sandbox);
/// match command.run() {
///     Ok(report) => {
///         for changes in &report.changes {
///             for change in changes.list()?.changes {
///                 println!("{change}"); // added "made" (2 bytes)
///             }
///             changes.commit()?;
///         }
///     }
///     Err(error) => assert!(error.hint().is_some(), "{error}"),
/// }
/// # std::fs::remove_dir_all(&dir)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Changes {
    pub(crate) dir: PathBuf,
    pub(crate) layers: Arc<Layers>,
}

/// Both sides of an overlay, as open directories.
#[derive(Debug)]
pub(crate) struct Layers {
    /// What was written. The command chose names, depth, number and size.
    pub(crate) upper: OwnedFd,
    /// The host's directory.
    pub(crate) host: OwnedFd,
}

/// The differences between a layer and the host's directory, in order of their paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ChangeList {
    /// The first 10,000, or those whose paths have 4 MiB together.
    pub changes: Vec<Change>,
    /// How many there are.
    pub count: usize,
    /// How many of them no commit takes over: [`ChangeKind::Skipped`].
    pub skipped: usize,
}

/// One file or directory that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Change {
    /// Its path, from the overlay's directory on.
    #[cfg_attr(feature = "serde", serde(serialize_with = "lossy"))]
    pub path: PathBuf,
    /// What became of it.
    pub kind: ChangeKind,
    /// Whether it is a directory; of one that is removed nothing in it is listed.
    pub is_dir: bool,
    /// Bytes of a file: as it is now, or was when it is removed. Holes are counted.
    pub size: u64,
}

/// A path need not be text.
#[cfg(feature = "serde")]
fn lossy<S: serde::Serializer>(path: &std::path::Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

/// How a file or directory differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum ChangeKind {
    /// It is not in the host's directory.
    Added,
    /// Its contents, kind, permissions, extended attributes or, of a file, time of change are
    /// others.
    Changed,
    /// It is in the host's directory only.
    Removed,
    /// A FIFO, socket or device, or a directory more than 128 levels deep: no commit takes it over.
    Skipped,
}

/// `added`
impl fmt::Display for ChangeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Added => "added",
            Self::Changed => "changed",
            Self::Removed => "removed",
            Self::Skipped => "skipped",
        })
    }
}

/// `added "src/main.rs" (12 bytes)`
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.kind, self.path)?;
        if self.is_dir { f.write_str(" (directory)") } else { write!(f, " ({} bytes)", self.size) }
    }
}
