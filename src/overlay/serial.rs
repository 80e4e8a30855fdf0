//! Changes as data: the directory, and what differs or why that is not known.

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use crate::changes::Changes;

/// `{"dir": "/work", "changes": [..], "count": 1, "skipped": 0}`, or `error`
/// instead of the last three.
impl Serialize for Changes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut value = serializer.serialize_struct("Changes", 4)?;
        value.serialize_field("dir", &self.dir.to_string_lossy())?;
        match self.list() {
            Ok(list) => {
                value.serialize_field("changes", &list.changes)?;
                value.serialize_field("count", &list.count)?;
                value.serialize_field("skipped", &list.skipped)?;
            }
            Err(error) => value.serialize_field("error", &error.to_string())?,
        }
        value.end()
    }
}
