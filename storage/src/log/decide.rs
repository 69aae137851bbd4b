//! What recovery does with what it finds: the decision tables, as data.

use super::scan::Found;

/// What becomes of the place where reading the newest or an older segment stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The log ends here, and nothing has to be done.
    End,
    /// A batch that was never acknowledged lies here: the log ends, and the batch is wiped out.
    Cut,
    /// Something acknowledged is lost.
    Refuse(&'static str),
}

/// Found where reading stopped; does it lie below the highest watermark (of the batches before
/// and behind it, and of the header of the next segment); what to do.
pub(super) const AT_END: [(Found, bool, Verdict); 12] = [
    (Found::Full, false, Verdict::End),
    (
        Found::Full,
        true,
        Verdict::Refuse("the segment ends before its acknowledged records do"),
    ),
    (Found::Zeros, false, Verdict::End),
    (
        Found::Zeros,
        true,
        Verdict::Refuse("zeros in the place of acknowledged records"),
    ),
    (Found::Stale, false, Verdict::End),
    (
        Found::Stale,
        true,
        Verdict::Refuse("records of an earlier epoch in the place of acknowledged ones"),
    ),
    (Found::NoBatch, false, Verdict::Cut),
    (
        Found::NoBatch,
        true,
        Verdict::Refuse("the header of an acknowledged batch is damaged"),
    ),
    (Found::Misplaced, false, Verdict::Cut),
    (
        Found::Misplaced,
        true,
        Verdict::Refuse("a batch of another place lies over acknowledged records"),
    ),
    (Found::BadRecord, false, Verdict::Cut),
    (
        Found::BadRecord,
        true,
        Verdict::Refuse("an acknowledged record is damaged"),
    ),
];

/// Looks a case up.
pub(super) fn at_end(found: Found, below_watermark: bool) -> Verdict {
    let case = AT_END
        .iter()
        .find(|case| case.0 == found && case.1 == below_watermark);
    case.expect("the table has every case").2
}

/// What the two header copies of a file say together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Head {
    /// Both were never written.
    Zeros,
    /// Neither can be read.
    Damaged,
    /// Complete, of another version of the format.
    OtherVersion,
    /// Complete, of another log.
    Foreign,
    /// Complete, of a segment that the log needs.
    Live,
    /// Complete, of a segment that was cut off.
    Dead,
}

/// What becomes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// It is read.
    Live,
    /// It may be put to use again.
    Free,
    /// Refused: its records were acknowledged, its header is not readable.
    RefuseDamaged,
    /// Refused: of another version.
    RefuseVersion,
    /// Refused: of another log.
    RefuseForeign,
    /// Refused: a file that lacks a part, or lies under another name. Files get their name with
    /// their full length, so no crash leaves one.
    RefuseForm,
}

/// The header; is there a batch newer than every readable header (records are written only after
/// their header is durable); are name and length as the header says; what to do.
pub(super) const FILES: [(Head, bool, bool, Use); 24] = [
    (Head::Zeros, false, true, Use::Free),
    (Head::Zeros, false, false, Use::RefuseForm),
    (Head::Zeros, true, true, Use::RefuseDamaged),
    (Head::Zeros, true, false, Use::RefuseDamaged),
    (Head::Damaged, false, true, Use::Free),
    (Head::Damaged, false, false, Use::RefuseForm),
    (Head::Damaged, true, true, Use::RefuseDamaged),
    (Head::Damaged, true, false, Use::RefuseDamaged),
    (Head::OtherVersion, false, true, Use::RefuseVersion),
    (Head::OtherVersion, false, false, Use::RefuseVersion),
    (Head::OtherVersion, true, true, Use::RefuseVersion),
    (Head::OtherVersion, true, false, Use::RefuseVersion),
    (Head::Foreign, false, true, Use::RefuseForeign),
    (Head::Foreign, false, false, Use::RefuseForeign),
    (Head::Foreign, true, true, Use::RefuseForeign),
    (Head::Foreign, true, false, Use::RefuseForeign),
    (Head::Live, false, true, Use::Live),
    (Head::Live, false, false, Use::RefuseForm),
    // With a header that can be read, what is wrong with a batch is found where it is read.
    (Head::Live, true, true, Use::Live),
    (Head::Live, true, false, Use::RefuseForm),
    (Head::Dead, false, true, Use::Free),
    (Head::Dead, false, false, Use::Free),
    (Head::Dead, true, true, Use::Free),
    (Head::Dead, true, false, Use::Free),
];

/// Looks a file up.
pub(super) fn file_use(head: Head, newer_batch: bool, form: bool) -> Use {
    let case = FILES
        .iter()
        .find(|case| case.0 == head && case.1 == newer_batch && case.2 == form);
    case.expect("the table has every case").3
}
