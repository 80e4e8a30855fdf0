//! The error that the process to die with is gone.

use crate::error::Error;
use crate::error::kind::Kind;

impl Error {
    pub(crate) fn partner_gone(pid: u32) -> Self {
        Kind::PartnerGone(pid).into()
    }

    /// The parent of this process is what adopts orphans.
    pub(crate) fn adopted(pid: i32) -> Self {
        Kind::Adopted(pid).into()
    }

    /// Whether the process that a command was to die with
    /// ([`Command::die_with`](crate::Command::die_with)) had ended before.
    #[must_use]
    pub fn is_partner_gone(&self) -> bool {
        matches!(self.0.kind, Kind::PartnerGone(_) | Kind::Adopted(_))
    }
}
