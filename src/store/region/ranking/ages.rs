//! Regions by age, with the youngest few kept apart. Owns the balance between the two sets.

use std::collections::BTreeSet;

use crate::format::Sequence;

/// Sealed regions with few claimed slices: old ones and the newest.
#[derive(Debug, Default)]
pub(super) struct Ages {
    old: BTreeSet<Age>,
    pub(in crate::store) young: BTreeSet<Age>,
}

impl Ages {
    pub(in crate::store) fn insert(&mut self, age: Age) {
        let is_young = self.young.first().is_some_and(|first| age > *first);
        if is_young {
            self.young.insert(age)
        } else {
            self.old.insert(age)
        };
        self.balance();
    }

    pub(in crate::store) fn remove(&mut self, age: Age) {
        if self.old.remove(&age) || self.young.remove(&age) {
            self.balance();
        }
    }

    /// Restores the right number of newest regions.
    fn balance(&mut self) {
        let young = (self.old.len() + self.young.len()) / YOUNG;
        while self.young.len() > young {
            self.old.extend(self.young.pop_first());
        }
        while self.young.len() < young {
            self.young.extend(self.old.pop_last());
        }
    }
}

/// One region in this many is too new to have been hit: the hand skips it.
pub(super) const YOUNG: usize = 8;

/// A region by its present generation; older ones sort first.
pub type Age = (Sequence, u32);
