//! Intervals of keys, and which of them hold a key: a treap ordered by start, where each node
//! knows the last end below it. A key that no interval holds costs O(log n).

use super::groups::Group;
use super::interest::Interest;
use crate::chance::Chance;
use slab::Slab;
use std::cmp::Ordering;

const NONE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Node {
    group: u32,
    /// The group whose end is the last of this subtree.
    last: u32,
    left: u32,
    right: u32,
    /// A child's is not larger.
    priority: u32,
}

/// The groups whose interest is an interval. No two have the same interest.
#[derive(Debug)]
pub(super) struct Spans {
    nodes: Slab<Node>,
    root: u32,
    chance: Chance,
}

impl Spans {
    pub fn new(seed: u64) -> Spans {
        Spans {
            nodes: Slab::new(),
            root: NONE,
            chance: Chance::new(seed),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.root == NONE
    }

    /// The group with that interest.
    pub fn find(&self, interest: &Interest, groups: &Slab<Group>) -> Option<u32> {
        let mut at = self.root;
        while at != NONE {
            let node = self.node(at);
            at = match interest.order(&groups[node.group as usize].interest) {
                Ordering::Equal => return Some(node.group),
                Ordering::Less => node.left,
                Ordering::Greater => node.right,
            };
        }
        None
    }

    /// Adds a group that is not there.
    pub fn insert(&mut self, group: u32, groups: &Slab<Group>) {
        let node = Node {
            group,
            last: group,
            left: NONE,
            right: NONE,
            priority: self.chance.next_u64() as u32,
        };
        // Bounded by the number of watches.
        let new = self.nodes.insert(node) as u32;
        self.root = self.insert_at(self.root, new, groups);
    }

    /// Removes a group that is there.
    pub fn remove(&mut self, group: u32, groups: &Slab<Group>) {
        self.root = self.remove_at(self.root, group, groups);
    }

    /// Visits the groups whose interval holds a key, in the order of their starts.
    pub fn stab(&self, key: &[u8], groups: &Slab<Group>, visit: &mut impl FnMut(u32)) {
        self.stab_at(self.root, key, groups, visit);
    }

    fn stab_at(&self, at: u32, key: &[u8], groups: &Slab<Group>, visit: &mut impl FnMut(u32)) {
        if at == NONE {
            return;
        }
        let node = self.node(at);
        if !groups[node.last as usize].interest.ends_after(key) {
            return;
        }
        self.stab_at(node.left, key, groups, visit);
        let interest = &groups[node.group as usize].interest;
        if interest.start() > key {
            return;
        }
        if interest.ends_after(key) {
            visit(node.group);
        }
        self.stab_at(node.right, key, groups, visit);
    }

    /// Bytes of memory.
    pub fn memory(&self) -> usize {
        self.nodes.capacity() * size_of::<Node>()
    }

    fn node(&self, at: u32) -> &Node {
        &self.nodes[at as usize]
    }

    /// Sets what a node knows of its subtree.
    fn pull(&mut self, at: u32, groups: &Slab<Group>) {
        let node = *self.node(at);
        let mut last = node.group;
        for child in [node.left, node.right] {
            if child != NONE {
                let other = self.node(child).last;
                let (a, b) = (&groups[last as usize], &groups[other as usize]);
                if let Some(end) = a.interest.end()
                    && b.interest.end().is_none_or(|other| other > end)
                {
                    last = other;
                }
            }
        }
        self.nodes[at as usize].last = last;
    }

    fn order(&self, group: u32, at: u32, groups: &Slab<Group>) -> Ordering {
        let other = self.node(at).group;
        let interest = |group: u32| &groups[group as usize].interest;
        interest(group).order(interest(other))
    }

    fn insert_at(&mut self, at: u32, new: u32, groups: &Slab<Group>) -> u32 {
        if at == NONE {
            return new;
        }
        let group = self.node(new).group;
        if self.node(new).priority > self.node(at).priority {
            let (left, right) = self.split(at, group, groups);
            let node = &mut self.nodes[new as usize];
            (node.left, node.right) = (left, right);
            self.pull(new, groups);
            return new;
        }
        if self.order(group, at, groups) == Ordering::Less {
            let left = self.insert_at(self.node(at).left, new, groups);
            self.nodes[at as usize].left = left;
        } else {
            let right = self.insert_at(self.node(at).right, new, groups);
            self.nodes[at as usize].right = right;
        }
        self.pull(at, groups);
        at
    }

    /// Parts a subtree into what comes before a group and what comes after it.
    fn split(&mut self, at: u32, group: u32, groups: &Slab<Group>) -> (u32, u32) {
        if at == NONE {
            return (NONE, NONE);
        }
        let parts = if self.order(group, at, groups) == Ordering::Less {
            let (left, middle) = self.split(self.node(at).left, group, groups);
            self.nodes[at as usize].left = middle;
            (left, at)
        } else {
            let (middle, right) = self.split(self.node(at).right, group, groups);
            self.nodes[at as usize].right = middle;
            (at, right)
        };
        self.pull(at, groups);
        parts
    }

    fn remove_at(&mut self, at: u32, group: u32, groups: &Slab<Group>) -> u32 {
        assert!(at != NONE, "a group that is removed is in the tree");
        match self.order(group, at, groups) {
            Ordering::Equal => {
                let node = self.nodes.remove(at as usize);
                return self.merge(node.left, node.right, groups);
            }
            Ordering::Less => {
                let left = self.remove_at(self.node(at).left, group, groups);
                self.nodes[at as usize].left = left;
            }
            Ordering::Greater => {
                let right = self.remove_at(self.node(at).right, group, groups);
                self.nodes[at as usize].right = right;
            }
        }
        self.pull(at, groups);
        at
    }

    /// Joins two subtrees, all of the first before all of the second.
    fn merge(&mut self, left: u32, right: u32, groups: &Slab<Group>) -> u32 {
        if left == NONE || right == NONE {
            return if left == NONE { right } else { left };
        }
        let root = if self.node(left).priority >= self.node(right).priority {
            let merged = self.merge(self.node(left).right, right, groups);
            self.nodes[left as usize].right = merged;
            left
        } else {
            let merged = self.merge(left, self.node(right).left, groups);
            self.nodes[right as usize].left = merged;
            right
        };
        self.pull(root, groups);
        root
    }
}
