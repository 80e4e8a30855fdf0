//! What the environment says of supervisors. The base's variable is read in `cgroup/nesting.rs`.

use crate::containment::Containment;
use crate::error::{Error, Result, Step};

/// The environment variable that says what holds trees together, unless the builder did.
const CONTAINMENT_VARIABLE: &str = "TIDY_PROCESS_CONTAINMENT";

/// What the environment says of what is to hold trees together.
///
/// # Errors
/// The value is none of those that there are.
pub(crate) fn containment() -> Result<Containment> {
    let value = std::env::var_os(CONTAINMENT_VARIABLE).unwrap_or_default();
    Ok(match value.to_str() {
        Some("" | "cgroup") => Containment::Cgroup,
        Some("best-effort") => Containment::BestEffort,
        Some("keeper") => Containment::Keeper,
        _ => {
            let what = format!("{CONTAINMENT_VARIABLE}={value:?}");
            let why = "it is one of cgroup, best-effort and keeper";
            return Err(Error::invalid(Step::Prepare, what, why));
        }
    })
}
