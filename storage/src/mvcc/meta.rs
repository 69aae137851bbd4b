//! What the trees mean; travels with every published root, as the tree's user blob.

use super::{Error, Revision};
use crate::tree::{Interval, TreeId, TreeRead};
use rkyv::rancor::Failure;

/// The first bytes of the blob.
const MAGIC: [u8; 4] = *b"qnMV";
/// The version of all that this module writes.
const FORMAT: u32 = 2;
const HEADER: usize = 8;

/// The most bytes of [`Meta::conf_state`].
pub const CONF_STATE_MAX: usize = 512;
/// The most bytes of [`Meta::extra`].
pub const EXTRA_MAX: usize = 256;

/// Where the store stands.
///
/// The revision is kept explicitly: it must not fall when a compaction has removed the newest
/// events.
#[derive(Debug, Clone, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Meta {
    /// The newest revision. Invariant: never falls, at least 1.
    pub revision: i64,
    /// The oldest readable revision; -1 if there was no compaction yet.
    /// Invariant: `compacted <= revision`.
    pub compacted: i64,
    /// The first event that the purge for `compacted` has not seen yet; beyond `compacted` if
    /// there is nothing to purge.
    pub(super) purge: Revision,
    /// Keys and values of all events that still exist, and a fixed cost for each event and lease.
    pub live_bytes: u64,
    /// The last log entry whose effect the trees show.
    pub applied_index: u64,
    /// Its term.
    pub applied_term: u64,
    /// The voters at that entry, as consensus encodes them; at most [`CONF_STATE_MAX`] bytes.
    pub conf_state: Vec<u8>,
    /// Small cluster-wide state that must change together with the trees; at most [`EXTRA_MAX`]
    /// bytes.
    pub extra: Vec<u8>,
}

impl Default for Meta {
    /// The empty store.
    fn default() -> Meta {
        Meta {
            revision: 1,
            compacted: -1,
            purge: Revision::NONE,
            live_bytes: 0,
            applied_index: 0,
            applied_term: 0,
            conf_state: Vec::new(),
            extra: Vec::new(),
        }
    }
}

/// The part of [`Meta`] that reads need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Horizon {
    /// The newest revision.
    pub revision: i64,
    /// The oldest readable revision; -1 if there was no compaction yet.
    pub compacted: i64,
    /// From this revision on no change has been purged, except what a later change of the same
    /// transaction superseded. At most `compacted`; below it while a purge is pending.
    pub kept: i64,
}

impl Horizon {
    /// Reads it from a user blob; an empty one is the empty store's.
    pub fn decode(blob: &[u8]) -> Result<Horizon, Error> {
        if blob.is_empty() {
            return Ok(Meta::default().horizon());
        }
        let meta = access(blob)?;
        Ok(Horizon {
            revision: meta.revision.to_native(),
            compacted: meta.compacted.to_native(),
            kept: kept(meta.compacted.to_native(), Revision::from(&meta.purge)),
        })
    }
}

/// A purge that stands at `purge` has removed nothing behind it; a revision of which it has seen
/// a part may have lost its deletes.
fn kept(compacted: i64, purge: Revision) -> i64 {
    let whole = purge.main + i64::from(purge.sub > 0);
    whole.min(compacted)
}

impl Meta {
    /// Reads a user blob and holds it against the trees it came with. An empty blob is the
    /// empty store's.
    pub fn open(tree: &impl TreeRead, blob: &[u8]) -> Result<Meta, Error> {
        let meta = Meta::decode(blob)?;
        let all = Interval {
            start: b"",
            end: None,
        };
        let mut last = Ok(Revision::NONE);
        tree.scan_back(TreeId::Revision, all, &mut |key, _| {
            last = Revision::from_key(key);
            false
        })?;
        let last = last?;
        if last.main > meta.revision {
            return Err(Error::corrupt(
                TreeId::Revision,
                &last.to_key(),
                "an event of the future",
            ));
        }
        Ok(meta)
    }

    /// Reads a user blob; an empty one is the empty store's.
    pub fn decode(blob: &[u8]) -> Result<Meta, Error> {
        if blob.is_empty() {
            return Ok(Meta::default());
        }
        let archive = access(blob)?;
        let meta = Meta {
            revision: archive.revision.to_native(),
            compacted: archive.compacted.to_native(),
            purge: Revision::from(&archive.purge),
            live_bytes: archive.live_bytes.to_native(),
            applied_index: archive.applied_index.to_native(),
            applied_term: archive.applied_term.to_native(),
            conf_state: archive.conf_state.to_vec(),
            extra: archive.extra.to_vec(),
        };
        let fits = meta.revision >= 1
            && meta.compacted >= -1
            && meta.compacted <= meta.revision
            && meta.purge.main >= 0
            && meta.purge.main <= meta.compacted + 1
            && meta.conf_state.len() <= CONF_STATE_MAX
            && meta.extra.len() <= EXTRA_MAX;
        if !fits {
            return Err(corrupt("numbers that contradict each other"));
        }
        Ok(meta)
    }

    /// The user blob. Panics if `conf_state` or `extra` are over their limits.
    pub fn encode(&self) -> Vec<u8> {
        assert!(
            self.conf_state.len() <= CONF_STATE_MAX,
            "conf state over its limit"
        );
        assert!(self.extra.len() <= EXTRA_MAX, "extra state over its limit");
        let archive = rkyv::to_bytes::<Failure>(self).expect("memory is the only thing it needs");
        let mut blob = Vec::with_capacity(HEADER + archive.len());
        blob.extend_from_slice(&MAGIC);
        blob.extend_from_slice(&FORMAT.to_le_bytes());
        blob.extend_from_slice(&archive);
        blob
    }

    /// What reads need of it.
    pub fn horizon(&self) -> Horizon {
        Horizon {
            revision: self.revision,
            compacted: self.compacted,
            kept: kept(self.compacted, self.purge),
        }
    }

    /// The first event that the purge has not seen.
    pub fn purge_stands(&self) -> Revision {
        self.purge
    }

    /// An empty store that is about to get the history up to a revision from elsewhere, in order
    /// ([`super::restore_event`]).
    pub fn to_restore(compacted: i64) -> Meta {
        Meta {
            compacted,
            // What was purged there is not there, and what was not is purged with the next
            // compaction at the latest.
            purge: Revision::NONE,
            ..Meta::default()
        }
    }

    /// Whether events wait for [`super::compact_step`].
    pub fn purge_pending(&self) -> bool {
        self.purge.main <= self.compacted
    }
}

fn access(blob: &[u8]) -> Result<&ArchivedMeta, Error> {
    let (header, archive) = blob
        .split_at_checked(HEADER)
        .ok_or_else(|| corrupt("too short for a header"))?;
    let (magic, version) = header.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(corrupt("not quoin's"));
    }
    let version = u32::from_le_bytes(version.try_into().expect("four bytes are left"));
    if version != FORMAT {
        return Err(Error::UnknownFormat { version });
    }
    let meta = rkyv::access::<ArchivedMeta, Failure>(archive)
        .map_err(|_| corrupt("not the archive of a meta record"))?;
    let len = size_of::<ArchivedMeta>() + meta.conf_state.len() + meta.extra.len();
    if len != archive.len() {
        return Err(corrupt("bytes that belong to nothing"));
    }
    Ok(meta)
}

/// The blob is no tree's record; it is reported by a name in the place of a key.
fn corrupt(what: &'static str) -> Error {
    Error::corrupt(TreeId::State, b"(meta)", what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::TreeWrite;
    use crate::tree::model::ModelTree;

    fn example() -> Meta {
        Meta {
            revision: 0x0102,
            compacted: 0x0101,
            purge: Revision {
                main: 0x55,
                sub: 0x66,
            },
            live_bytes: 0x1000,
            applied_index: 0x2000,
            applied_term: 7,
            conf_state: b"conf".to_vec(),
            extra: b"x".to_vec(),
        }
    }

    #[test]
    fn golden_bytes() {
        let hex: String = example()
            .encode()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        let expected = [
            "716e4d56", // magic
            "02000000", // format
            "636f6e66", // conf state
            "78",       // extra
            "0201000000000000",
            "0101000000000000",
            "550000000000000066000000",
            "0010000000000000",
            "0020000000000000",
            "0700000000000000",
            "c7ffffff04000000", // 57 back, 4 long
            "c3ffffff01000000", // 61 back, 1 long
        ];
        assert_eq!(hex, expected.concat());
        assert!(Meta::default().encode().len() < 128);
    }

    #[test]
    fn what_was_encoded_is_read_back() {
        for meta in [example(), Meta::default()] {
            assert_eq!(Meta::decode(&meta.encode()).unwrap(), meta);
            assert_eq!(Horizon::decode(&meta.encode()).unwrap(), meta.horizon());
        }
        assert_eq!(Meta::decode(b"").unwrap(), Meta::default());
        let full = Meta {
            conf_state: vec![1; CONF_STATE_MAX],
            extra: vec![2; EXTRA_MAX],
            ..Meta::default()
        };
        assert!(full.encode().len() <= 1024, "the tree keeps at most 1 KiB");
    }

    #[test]
    fn another_format_is_refused_by_its_number() {
        let mut blob = example().encode();
        blob[4] = 1;
        assert!(matches!(
            Meta::decode(&blob),
            Err(Error::UnknownFormat { version: 1 })
        ));
        assert!(matches!(
            Horizon::decode(&blob),
            Err(Error::UnknownFormat { version: 1 })
        ));
    }

    #[test]
    fn damage_is_refused_or_harmless() {
        let blob = example().encode();
        for len in 1..blob.len() {
            assert!(Meta::decode(&blob[..len]).is_err());
        }
        for at in 0..blob.len() {
            for flip in 1..=255 {
                let mut bad = blob.clone();
                bad[at] ^= flip;
                let _ = Meta::decode(&bad);
            }
        }
    }

    #[test]
    fn an_event_beyond_the_revision_is_damage() {
        let mut tree = ModelTree::new();
        tree.insert(
            TreeId::Revision,
            &Revision::first(0x0103).to_key(),
            &[b"x"],
            true,
        )
        .unwrap();
        let blob = example().encode();
        assert!(matches!(
            Meta::open(&tree, &blob),
            Err(Error::Corrupt { .. })
        ));
    }
}
