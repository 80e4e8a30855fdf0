//! What a sandbox would do: a value to look at. Nothing is run.

use std::fmt;

use crate::confinement::{Level, Property};

/// Each layer of a sandbox, with its paths and calls; see [`Sandbox::plan`](crate::Sandbox::plan).
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Plan {
    /// The level, whose properties all are enforced.
    pub level: Level,
    /// The layers, in the order in which a child takes them on.
    pub layers: Vec<Layer>,
}

/// One mechanism of the kernel, and what it is used for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Layer {
    /// Its name, as in [`Confined::mechanisms`](crate::Confined::mechanisms).
    pub mechanism: &'static str,
    /// The properties that rest on it.
    pub properties: Vec<Property>,
    /// Paths, calls and values, one each.
    pub details: Vec<String>,
}

/// A line for each layer, and one for each of its details.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.level)?;
        for layer in &self.layers {
            let properties: Vec<String> =
                layer.properties.iter().map(ToString::to_string).collect();
            write!(f, "\n{}: {}", layer.mechanism, properties.join(", "))?;
            layer.details.iter().try_for_each(|detail| write!(f, "\n  {detail}"))?;
        }
        Ok(())
    }
}
