//! The numbers of changes, and how they order in the revision tree.

use super::Error;
use crate::tree::TreeId;
use std::fmt;

/// The place of one change in history: the transaction's revision, and the change's place
/// inside the transaction.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    rkyv::Archive,
    rkyv::Serialize,
    rkyv::Deserialize,
)]
#[rkyv(derive(Debug))]
pub struct Revision {
    /// The transaction's revision.
    pub main: i64,
    /// The change's number inside the transaction, from 0.
    pub sub: u32,
}

/// Bytes of a revision as a key of the revision tree.
pub(super) const KEY_LEN: usize = 12;

impl Revision {
    /// Stands for "there is none"; no change ever has it, since the empty store is at revision 1.
    pub const NONE: Revision = Revision { main: 0, sub: 0 };

    /// The first change of a transaction.
    pub const fn first(main: i64) -> Revision {
        Revision { main, sub: 0 }
    }

    /// Whether it is [`Revision::NONE`].
    pub fn is_none(self) -> bool {
        self == Revision::NONE
    }

    /// The place right behind this one.
    pub(super) fn next(self) -> Revision {
        match self.sub.checked_add(1) {
            Some(sub) => Revision {
                main: self.main,
                sub,
            },
            None => Revision::first(self.main + 1),
        }
    }

    /// Big-endian, so that the tree's order is history's.
    pub(super) fn to_key(self) -> [u8; KEY_LEN] {
        debug_assert!(self.main >= 0);
        let mut key = [0; KEY_LEN];
        key[..8].copy_from_slice(&self.main.to_be_bytes());
        key[8..].copy_from_slice(&self.sub.to_be_bytes());
        key
    }

    pub(super) fn from_key(key: &[u8]) -> Result<Revision, Error> {
        let wrong = || Error::corrupt(TreeId::Revision, key, "not a revision");
        let (main, sub) = key.split_first_chunk::<8>().ok_or_else(wrong)?;
        let sub: [u8; 4] = sub.try_into().map_err(|_| wrong())?;
        let main = i64::from_be_bytes(*main);
        if main <= 0 {
            return Err(wrong());
        }
        Ok(Revision {
            main,
            sub: u32::from_be_bytes(sub),
        })
    }
}

impl From<&ArchivedRevision> for Revision {
    fn from(r: &ArchivedRevision) -> Revision {
        Revision {
            main: r.main.to_native(),
            sub: r.sub.to_native(),
        }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.main, self.sub)
    }
}
