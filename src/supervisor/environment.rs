//! Reads the environment variable `TIDY_PROCESS_CONTAINMENT`. `TIDY_PROCESS_PARENT` is read in
//! `cgroup/nesting.rs`.

use crate::containment::Containment;
use crate::error::{Error, Result, Step};

/// The environment variable that names the containment where the builder does not.
const CONTAINMENT_VARIABLE: &str = "TIDY_PROCESS_CONTAINMENT";

/// The containment that the environment names.
///
/// # Errors
/// The value is none of `cgroup`, `best-effort` and `keeper`.
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
