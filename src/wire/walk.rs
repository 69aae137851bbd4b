//! Checked access to an archive, and the walk that proves it canonical.
//!
//! rkyv's own check proves that every vector lies inside the body. The walk proves the rest: the
//! vectors lie back to back in the order of the fields, from the first byte of the body to the
//! root, which ends the body. So each value has exactly one body, with no byte in it that means
//! nothing.

#![forbid(unsafe_code)]

use rkyv::Portable;
use rkyv::api::low::{LowValidator, access};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Failure;
use rkyv::vec::ArchivedVec;

use super::Malformed;

/// Where the next vector of a body must begin.
pub(super) struct Walk {
    next: usize,
}

impl Walk {
    /// The archive that fills `body`, and a walk at its first byte.
    #[inline]
    pub fn open<T>(body: &[u8]) -> Result<(&T, Walk), Malformed>
    where
        T: Portable + for<'c> CheckBytes<LowValidator<'c, Failure>>,
    {
        match access::<T, Failure>(body) {
            Ok(root) => Ok((
                root,
                Walk {
                    next: body.as_ptr().addr(),
                },
            )),
            Err(Failure) => Err(Malformed::BadArchive),
        }
    }

    /// Passes over a vector of elements that themselves point nowhere, or that have been passed.
    #[inline]
    pub fn vec<'a, T>(&mut self, vec: &'a ArchivedVec<T>) -> Result<&'a [T], Malformed> {
        let slice = vec.as_slice();
        self.pass(slice.as_ptr().addr(), size_of_val(slice))?;
        Ok(slice)
    }

    /// Ends the walk at the root.
    #[inline]
    pub fn close<T>(mut self, root: &T) -> Result<(), Malformed> {
        self.pass(std::ptr::from_ref(root).addr(), size_of::<T>())
    }

    #[inline]
    fn pass(&mut self, address: usize, bytes: usize) -> Result<(), Malformed> {
        if address != self.next {
            return Err(Malformed::NotCanonical);
        }
        // Inside the body, so inside the address space.
        self.next += bytes;
        Ok(())
    }
}

/// A flag that must be 0 or 1.
#[inline]
pub(super) fn flag(byte: u8, field: &'static str) -> Result<bool, Malformed> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed::BadValue(field)),
    }
}

/// Option bits of which only those in `known` may be set.
#[inline]
pub(super) fn options(bits: u8, known: u8) -> Result<u8, Malformed> {
    match bits & !known {
        0 => Ok(bits),
        _ => Err(Malformed::BadValue("options")),
    }
}
