//! What a key has before it changes. Owns which index entries are verified, and how long that may take;
//! changes nothing.

use std::pin::pin;
use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::Instant;

use crate::format::{Kind, ObjectHead, Sequence};
use crate::store::counters::count;
use crate::store::entries::{Candidate, Tier};
use crate::store::entry::Entry;
use crate::store::index::unverified::LOOKS_MAX;
use crate::store::log::core::Log;
use crate::store::lookup::load::{Extent, Loaded};
use crate::store::lookup::sought::Sought;
use crate::store::mutation::request::{Lifetime, StoreError};
use crate::store::place::Place;
use crate::store::purges::Verdict;
use crate::store::purges::table::{Since, Subject};
use crate::store::shared::Store;

/// The index entries of a key, verified on the device where a fingerprint matched.
pub(in crate::store) struct Found {
    pub places: SmallVec<[Place; 2]>,
    pub matched: Option<Match>,
    /// Index entries that may be the key's but cannot be read: a change must remove them.
    pub suspects: SmallVec<[Candidate; 1]>,
    /// Older versions of the key that a change killed without having seen them.
    pub dead: SmallVec<[Place; 1]>,
    /// Not all index entries were verified, and none of those that were is the key's: an older version
    /// may be among the others, and the change must kill it unseen.
    pub(in crate::store) is_partial: bool,
    /// A suspect was not read by the deadline.
    is_late: bool,
    /// What was purged before it was looked for.
    purged: Purged,
}

/// Which purges of many keys there were.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct Purged {
    floor: Sequence,
    record: u64,
}

impl Found {
    /// Whether the key may have an entry that could not be read in time.
    pub fn is_unknown(&self) -> bool {
        self.is_late && self.matched.is_none()
    }

    pub(in crate::store) fn may_supersede(&self, log: &Log, key_hash: u64) -> bool {
        self.matched.is_some()
            || !self.suspects.is_empty()
            || !self.dead.is_empty()
            || self.is_partial
            || log.may_hide_older(key_hash)
    }

    /// Places whose index entries go when the key changes.
    pub(in crate::store) fn displaced(&self) -> impl Iterator<Item = Place> + '_ {
        let matched = self.matched.iter().map(|matched| matched.place);
        let suspects = self.suspects.iter().map(Candidate::place);
        matched.chain(suspects).chain(self.dead.iter().copied())
    }
}

pub(in crate::store) struct Match {
    pub place: Place,
    pub tier: Tier,
    pub sequence: Sequence,
    /// The CAS value: it stays when reclaim writes the entry again.
    pub version: Sequence,
    pub lifetime: Lifetime,
    /// Neither purged nor past its end. Says nothing of a large object's slices: for those ask
    /// [`Store::is_whole`], which takes time for each slice.
    pub live: bool,
    /// A soft purge covers it: it is stale whatever its lifetime says.
    pub is_stale: bool,
    /// Its age is known: it may be fresh.
    pub age_known: bool,
    pub head: Option<ObjectHead>,
    /// Of the head of an object that is stored part by part.
    pub validator: Option<Vec<u8>>,
    /// Hashes of its tags.
    pub tags: Vec<u64>,
    /// Bytes of its slot, padded to the granule.
    pub slot_len: u64,
}

impl Match {
    /// Whether it is a head that names `object`.
    pub fn names(&self, object: Sequence) -> bool {
        self.head.is_some_and(|head| head.object == object)
    }
}

/// The device has not answered for 5 s.
pub(in crate::store) const NO_ANSWER: StoreError = StoreError::Busy("the device does not answer");

/// When a change stops verifying entries that may be its key's. The time begins with the first read:
/// most changes need none.
pub(in crate::store) struct Deadline {
    after: Duration,
    at: Option<Instant>,
}

impl Deadline {
    /// A deadline of `after` from the first read on.
    pub fn after(after: Duration) -> Deadline {
        Deadline { after, at: None }
    }

    fn begun(&mut self) -> Instant {
        *self.at.get_or_insert_with(|| Instant::now() + self.after)
    }
}

impl Store {
    /// Whether what was found of a key is purged since, with many others. Ask under the append lock: purges are
    /// made under it.
    pub(in crate::store) fn is_purged_since_found(&self, found: &Found, key: &[u8]) -> bool {
        let Some(matched) = &found.matched else { return false };
        if found.purged == self.purged_so_far() {
            return false;
        }
        let of = Subject { key, tags: matched.tags.iter().copied() };
        let verdict = self.shared.purges.verdict(Since::Number(found.purged.record), of).0;
        matched.sequence < self.shared.purge_floor() || verdict != Verdict::Live
    }

    fn purged_so_far(&self) -> Purged {
        let (floor, record) = (self.shared.purge_floor(), self.shared.purges.last_number());
        Purged { floor, record }
    }

    /// Verifies the index entries of an object's key. Reads the device only where a fingerprint
    /// matches. An entry not read by the deadline counts as unreadable.
    pub(in crate::store) fn find_by(
        &self,
        key: &[u8],
        key_hash: u64,
        deadline: &mut Deadline,
    ) -> impl Future<Output = Found> {
        self.find_among(Sought::object(key, key_hash), LOOKS_MAX, deadline)
    }

    pub(in crate::store) async fn find_among(
        &self,
        sought: Sought<'_>,
        looks_max: usize,
        deadline: &mut Deadline,
    ) -> Found {
        let key_hash = sought.hash();
        'again: loop {
            let purged = self.purged_so_far();
            let unseen = self.dead_unseen(key_hash);
            let mut candidates = self.candidates(key_hash);
            let mut found = Found {
                places: candidates.iter().map(Candidate::place).collect(),
                matched: None,
                suspects: SmallVec::new(),
                dead: SmallVec::new(),
                is_partial: false,
                is_late: false,
                purged,
            };
            let oldest = || self.shared.catalog.regions.oldest_generation_but(u32::MAX);
            if candidates.len() > looks_max && self.shared.dead.unverified.has_room(oldest) {
                found.is_partial = self.keep_newest(&mut candidates, looks_max);
            }
            for &candidate in &candidates {
                let loaded = match self.in_ram(candidate) {
                    Some(entry) => Loaded::Entry(entry, Tier::Ram),
                    None => {
                        let load = pin!(self.load_for_change(candidate, sought));
                        let loaded = self.shared.deadlines.in_time(load, deadline.begun()).await;
                        loaded.unwrap_or(Loaded::Late)
                    }
                };
                match loaded {
                    Loaded::Entry(entry, tier) if sought.is_of(&entry) => {
                        if unseen.covers(&entry) || self.is_dead_unseen(key_hash, &entry) {
                            found.dead.push(entry.place());
                            continue;
                        }
                        found.matched = Some(self.matched(&entry, tier));
                        // Nothing else can be left: a key has at most one version that no change
                        // killed.
                        found.is_partial = false;
                    }
                    Loaded::Entry(..) => count(&self.shared.counters.false_positives),
                    Loaded::Moved => continue 'again,
                    // The RAM tier evicted the only copy.
                    Loaded::Damaged if candidate.place().is_in_ram() => {
                        if self.forget(key_hash, candidate.place()) {
                            continue 'again;
                        }
                    }
                    Loaded::Damaged | Loaded::Unreadable => found.suspects.push(candidate),
                    Loaded::Late => {
                        found.is_late = true;
                        found.suspects.push(candidate);
                    }
                }
            }
            return found;
        }
    }

    /// Reads what a change needs of an entry that is not in the RAM tier: the key, or the whole slot of
    /// an object's head. Only a verified slot can prove that the key is another one. Where there are
    /// optional records they are read and verified too: they may tell the version.
    pub(in crate::store) async fn load_for_change(
        &self,
        candidate: Candidate,
        sought: Sought<'_>,
    ) -> Loaded {
        let extent = Extent::Key { key_len: sought.key().len() };
        match self.load_elsewhere(candidate, extent).await {
            Loaded::Entry(entry, Tier::Disk)
                if entry.kind() == Kind::Head || !sought.is_of(&entry) =>
            {
                self.load(candidate, Extent::Whole).await
            }
            Loaded::Entry(entry, Tier::Disk) if entry.has_records() => {
                self.load(candidate, Extent::Meta { len: entry.meta_len() }).await
            }
            loaded => loaded,
        }
    }

    pub(in crate::store) fn matched(&self, entry: &Entry, tier: Tier) -> Match {
        let verdict = self.verdict(entry);
        let is_live = verdict != Verdict::Dead && self.is_live_at(entry, self.shared.clock.now());
        Match {
            place: entry.place(),
            tier,
            sequence: entry.sequence(),
            version: entry.version(),
            lifetime: entry.lifetime(),
            age_known: self.knows_age(entry.sequence()),
            live: is_live && self.is_visible(entry.place()),
            is_stale: verdict == Verdict::Stale,
            head: entry.object_head(),
            validator: entry.validator(),
            tags: entry.tags().collect(),
            slot_len: entry.slot_len(),
        }
    }

    /// Whether all slices of a large object are there; if not, no lookup returns it.
    pub(in crate::store) async fn is_whole(&self, matched: &Match) -> bool {
        match &matched.head {
            Some(head) => self.has_slices(head, 0..head.len).await,
            None => true,
        }
    }
}
