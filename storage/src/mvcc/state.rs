//! Small state beside the keys: leases, members, alarms. Each kind has a space of its own in the
//! state tree, and changes in the same transaction as everything else.

use super::Error;
use crate::tree::{Interval, TreeId, TreeRead, TreeWrite};

/// A kind of state; the first byte of its keys. The numbers are part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Space(pub u8);

impl Space {
    /// Leases by id: see [`super::lease`].
    pub const LEASE: Space = Space(1);
    /// The keys that hang on leases.
    pub const LEASE_KEY: Space = Space(2);

    /// Alarms by kind and member.
    pub const ALARM: Space = Space(3);

    pub(super) fn key(self, name: &[u8]) -> Vec<u8> {
        let mut key = Vec::with_capacity(1 + name.len());
        key.push(self.0);
        key.extend_from_slice(name);
        key
    }
}

/// The state of that name.
pub fn get<'a, T: TreeRead>(
    tree: &'a T,
    space: Space,
    name: &[u8],
) -> Result<Option<&'a [u8]>, Error> {
    Ok(tree.get(TreeId::State, &space.key(name))?)
}

/// Sets it.
pub fn put<T: TreeWrite>(
    tree: &mut T,
    space: Space,
    name: &[u8],
    value: &[u8],
) -> Result<(), Error> {
    Ok(tree.insert(TreeId::State, &space.key(name), &[value], true)?)
}

/// Removes it; says whether it was there.
pub fn remove<T: TreeWrite>(tree: &mut T, space: Space, name: &[u8]) -> Result<bool, Error> {
    Ok(tree.remove(TreeId::State, &space.key(name))?)
}

/// Visits (name, value) of all names with a prefix, ascending, until `visit` says `false`.
pub fn scan<T: TreeRead>(
    tree: &T,
    space: Space,
    prefix: &[u8],
    visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
) -> Result<(), Error> {
    scan_from(tree, space, prefix, prefix, visit)
}

/// As [`scan`], beginning with the name `from`, which lies among those with the prefix or behind
/// them.
pub fn scan_from<T: TreeRead>(
    tree: &T,
    space: Space,
    from: &[u8],
    prefix: &[u8],
    visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
) -> Result<(), Error> {
    let start = space.key(from);
    let end = prefix_end(&space.key(prefix));
    let interval = Interval {
        start: &start,
        end: end.as_deref(),
    };
    Ok(tree.scan(TreeId::State, interval, &mut |key, value| {
        visit(&key[1..], value)
    })?)
}

/// How many names have a prefix.
pub fn count<T: TreeRead>(tree: &T, space: Space, prefix: &[u8]) -> Result<u64, Error> {
    let start = space.key(prefix);
    let end = prefix_end(&start);
    let interval = Interval {
        start: &start,
        end: end.as_deref(),
    };
    Ok(tree.count(TreeId::State, interval)?)
}

/// The first key behind all keys that start with `prefix`; `None` if there is no such key.
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::model::ModelTree;

    #[test]
    fn spaces_and_prefixes_keep_apart() {
        let mut tree = ModelTree::new();
        let (a, b) = (Space(1), Space(255));
        put(&mut tree, a, b"x1", b"1").unwrap();
        put(&mut tree, a, b"x2", b"2").unwrap();
        put(&mut tree, a, b"y", b"3").unwrap();
        put(&mut tree, b, b"\xff", b"4").unwrap();
        assert_eq!(get(&tree, a, b"x1").unwrap(), Some(&b"1"[..]));
        assert_eq!(get(&tree, b, b"x1").unwrap(), None);
        let names = |space, prefix: &[u8]| {
            let mut names = Vec::new();
            scan(&tree, space, prefix, &mut |name, _| {
                names.push(name.to_vec());
                true
            })
            .unwrap();
            assert_eq!(count(&tree, space, prefix).unwrap(), names.len() as u64);
            names
        };
        assert_eq!(names(a, b"x"), [b"x1", b"x2"]);
        assert_eq!(names(a, b"").len(), 3);
        assert_eq!(names(b, b"\xff"), [b"\xff"]);
        assert!(remove(&mut tree, a, b"y").unwrap());
        assert!(!remove(&mut tree, a, b"y").unwrap());
    }

    #[test]
    fn the_end_of_a_prefix() {
        assert_eq!(prefix_end(b"a\xff"), Some(b"b".to_vec()));
        assert_eq!(prefix_end(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(prefix_end(b"\xff\xff"), None);
        assert_eq!(prefix_end(b""), None);
    }
}
