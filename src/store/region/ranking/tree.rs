//! Regions ordered by age, as trees whose nodes sum up what is below them: one descent finds the oldest
//! or newest region of which something holds. A treap (Seidel and Aragon, 1996); a region is in at most
//! one tree.

use crate::clock::Timestamp;
use crate::store::region::ranking::ages::Age;

/// Facts about one region, or the least of each fact over all regions below a node: whether some region
/// has less than a bound is seen at the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Least {
    /// When the last entry ends; never, if the region may not go out of turn.
    pub keep_until: Timestamp,
    /// Its age; the newest, if it may not go out of turn.
    pub cheap: Age,
    /// Bytes alive; the most, if it may not go out of turn.
    pub live: u64,
    /// Bytes that must be moved: tombstones, and slices of stores under way.
    pub to_move: u64,
    /// Bytes of slices of stores under way.
    pub under_way: u64,
    /// `under_way` if it is much, else 0.
    pub much_under_way: u64,
    /// Bytes of claimed slices.
    pub claimed: u64,
    /// Round in which the hand last spared it; the highest, if it has many claimed slices.
    pub spared: u64,
}

/// Which region is taken where several fit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Prefer {
    Oldest,
    Newest,
}

impl Prefer {
    pub fn one_of(self, regions: impl Iterator<Item = Age>) -> Option<Age> {
        match self {
            Prefer::Oldest => regions.min(),
            Prefer::Newest => regions.max(),
        }
    }
}

impl Least {
    fn of(self, other: Least) -> Least {
        Least {
            keep_until: self.keep_until.min(other.keep_until),
            cheap: self.cheap.min(other.cheap),
            live: self.live.min(other.live),
            to_move: self.to_move.min(other.to_move),
            under_way: self.under_way.min(other.under_way),
            much_under_way: self.much_under_way.min(other.much_under_way),
            claimed: self.claimed.min(other.claimed),
            spared: self.spared.min(other.spared),
        }
    }
}

/// A tree: its root, if it has any region.
pub(super) type Root = Option<u32>;

#[derive(Clone, Debug)]
struct Node {
    age: Age,
    own: Least,
    all: Least,
    older: Root,
    newer: Root,
}

/// The nodes of all trees, one for each region.
#[derive(Debug)]
pub(super) struct Trees {
    nodes: Vec<Option<Node>>,
    /// Nodes that were looked at.
    #[cfg(test)]
    pub steps: std::cell::Cell<u64>,
}

impl Trees {
    /// Nodes for `count` regions, none of them in a tree.
    pub fn new(count: u32) -> Trees {
        Trees {
            nodes: (0..count).map(|_| None).collect(),
            #[cfg(test)]
            steps: std::cell::Cell::new(0),
        }
    }

    /// Adds a region that is in no tree.
    pub fn insert(&mut self, root: &mut Root, age: Age, own: Least) {
        let (_, region) = age;
        self.nodes[region as usize] = Some(Node { age, own, all: own, older: None, newer: None });
        *root = Some(self.inserted(*root, region));
    }

    /// Takes a region out of the tree that it is in.
    pub fn remove(&mut self, root: &mut Root, age: Age) {
        *root = self.removed(*root, age);
        self.nodes[age.1 as usize] = None;
    }

    /// Changes the facts of a region in this tree.
    pub fn change(&mut self, root: Root, age: Age, own: Least) {
        self.node_mut(age.1).own = own;
        self.sum_up_to(root, age);
    }

    /// The oldest or newest region of which `holds` is true. It must be true of a node's summary
    /// exactly if it is true of a region below the node.
    pub fn find(&self, root: Root, prefer: Prefer, holds: impl Fn(&Least) -> bool) -> Option<Age> {
        let mut at = root.filter(|root| holds(&self.node(*root).all))?;
        loop {
            let node = self.node(at);
            let (first, last) = match prefer {
                Prefer::Oldest => (node.older, node.newer),
                Prefer::Newest => (node.newer, node.older),
            };
            match first.filter(|first| holds(&self.node(*first).all)) {
                Some(first) => at = first,
                None if holds(&node.own) => return Some(node.age),
                None => at = last?,
            }
        }
    }

    /// The summary of a tree.
    pub fn least(&self, root: Root) -> Option<Least> {
        root.map(|root| self.node(root).all)
    }

    fn inserted(&mut self, root: Root, region: u32) -> u32 {
        let Some(root) = root else { return region };
        let age = self.node(region).age;
        if weight(region) > weight(root) {
            let (older, newer) = self.split(Some(root), age);
            let node = self.node_mut(region);
            (node.older, node.newer) = (older, newer);
            self.sum_up(region);
            return region;
        }
        if age < self.node(root).age {
            let older = self.inserted(self.node(root).older, region);
            self.node_mut(root).older = Some(older);
        } else {
            let newer = self.inserted(self.node(root).newer, region);
            self.node_mut(root).newer = Some(newer);
        }
        self.sum_up(root);
        root
    }

    fn removed(&mut self, root: Root, age: Age) -> Root {
        let root = root.unwrap_or_else(|| panic!("region {} is in the tree", age.1));
        let node = self.node(root);
        let (own_life, older, newer) = (node.age, node.older, node.newer);
        if age == own_life {
            return self.joined(older, newer);
        }
        if age < own_life {
            self.node_mut(root).older = self.removed(older, age);
        } else {
            self.node_mut(root).newer = self.removed(newer, age);
        }
        self.sum_up(root);
        Some(root)
    }

    /// Splits a tree into the regions older than `generation`, and the rest.
    fn split(&mut self, root: Root, age: Age) -> (Root, Root) {
        let Some(root) = root else { return (None, None) };
        let node = self.node(root);
        let (own_life, older, newer) = (node.age, node.older, node.newer);
        let parts = if own_life < age {
            let (between, rest) = self.split(newer, age);
            self.node_mut(root).newer = between;
            (Some(root), rest)
        } else {
            let (rest, between) = self.split(older, age);
            self.node_mut(root).older = between;
            (rest, Some(root))
        };
        self.sum_up(root);
        parts
    }

    /// Joins two trees, of which one is all older than the other.
    fn joined(&mut self, older: Root, newer: Root) -> Root {
        let (Some(left), Some(right)) = (older, newer) else { return older.or(newer) };
        let root = if weight(left) > weight(right) {
            let inner = self.joined(self.node(left).newer, newer);
            self.node_mut(left).newer = inner;
            left
        } else {
            let inner = self.joined(older, self.node(right).older);
            self.node_mut(right).older = inner;
            right
        };
        self.sum_up(root);
        Some(root)
    }

    fn sum_up_to(&mut self, root: Root, age: Age) {
        let root = root.unwrap_or_else(|| panic!("region {} is in the tree", age.1));
        let node = self.node(root);
        if age != node.age {
            let below = if age < node.age { node.older } else { node.newer };
            self.sum_up_to(below, age);
        }
        self.sum_up(root);
    }

    fn sum_up(&mut self, region: u32) {
        let node = self.node(region);
        let below = [node.older, node.newer].into_iter().flatten();
        let all = below.fold(node.own, |all, below| all.of(self.node(below).all));
        self.node_mut(region).all = all;
    }

    fn node(&self, region: u32) -> &Node {
        #[cfg(test)]
        self.steps.set(self.steps.get() + 1);
        self.nodes[region as usize].as_ref().unwrap_or_else(|| panic!("region {region} has a node"))
    }

    fn node_mut(&mut self, region: u32) -> &mut Node {
        self.nodes[region as usize].as_mut().unwrap_or_else(|| panic!("region {region} has a node"))
    }
}

/// The heavier node is above. Mixed as SplitMix64 does, so that neighbours on the device get unrelated
/// weights.
fn weight(region: u32) -> u64 {
    let mut mixed = u64::from(region).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
