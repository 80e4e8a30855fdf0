//! What a command needs: for a profile.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::confinement::Property;

/// What a profile has to name so that a command can do what it did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(not(feature = "cli"), expect(unreachable_pub, reason = "the tool alone learns"))]
pub struct Needs {
    /// Paths to be read.
    pub read: BTreeSet<PathBuf>,
    /// Directories that hold much else, and that it has looked at: a name on the way is there where
    /// something below it is named.
    pub looked: BTreeSet<PathBuf>,
    /// Directories to be written to.
    pub write: BTreeSet<PathBuf>,
    /// Whether it has used this machine's loopback.
    pub loopback: bool,
    /// Addresses elsewhere.
    pub addresses: BTreeSet<String>,
    /// System calls that were refused, and what rests on that.
    pub calls: BTreeMap<&'static str, Option<Property>>,
}
