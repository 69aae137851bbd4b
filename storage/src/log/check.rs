//! Tells whether a log would be recovered, and changes nothing.

use super::recover::{Outcome, Repair, Report, recover};
use super::{LogError, LogOptions};
use crate::disk::Disk;

/// Judges a log as a start would: the report of what was found, or the refusal.
pub fn check(disk: &dyn Disk, options: &LogOptions) -> Result<Report, LogError> {
    match recover(disk, options, Repair::No)? {
        Outcome::Fresh(_) => Ok(Report {
            fresh: true,
            ..Report::default()
        }),
        Outcome::Recovered(recovery) => Ok(recovery.report),
    }
}
