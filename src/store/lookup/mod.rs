//! Lookups: which entry a key has now. Owns which candidates are read and in which order; `load` reads
//! and verifies each.

pub(super) mod bodies;
pub(super) mod budget;
pub(super) mod load;
pub(super) mod sought;

use crate::store::entries::Candidate;
use crate::store::entries::Tier;
use crate::store::lookup::load::Extent;
use crate::store::lookup::load::Loaded;

use crate::format::SliceKey;
use crate::planted::{self, Bug};
use crate::store::counters::count;
use crate::store::entry::Entry;
use crate::store::index::unverified::LOOKS_MAX;
use crate::store::lookup::sought::{Sought, Stale};
use crate::store::purges::Verdict;
use crate::store::shared::Store;

/// Attempts of a lookup whose entries keep moving; then it is a miss.
const ATTEMPTS_MAX: usize = 16;

impl Store {
    /// Looks a key up. Never returns expired, purged or superseded entries; stale ones (past
    /// `fresh_until`) only if accepted.
    pub fn lookup(&self, key: &[u8], stale: Stale) -> impl Future<Output = Option<(Entry, Tier)>> {
        let sought = Sought::object(key, self.key_hash(key));
        self.search(sought, (stale, LOOKS_MAX), Extent::Answer)
    }

    /// A slice of an object, if it is there and the bytes read are sound. Ignores expiry and purges:
    /// the object was live when its reader began, and a body once begun is read to its end.
    pub(super) async fn slice(&self, key: SliceKey, extent: Extent) -> Option<(Entry, Tier)> {
        let key = key.encode();
        // No limit on collisions: nobody can choose slice keys.
        let sought = Sought::slice(&key, self.slice_hash(&key));
        self.search(sought, (Stale::Accept, usize::MAX), extent).await
    }

    async fn search(
        &self,
        sought: Sought<'_>,
        (stale, looks_max): (Stale, usize),
        extent: Extent,
    ) -> Option<(Entry, Tier)> {
        let key_hash = sought.hash();
        for _ in 0..ATTEMPTS_MAX {
            let mut moved = false;
            let unseen = self.dead_unseen(key_hash);
            let mut candidates = self.candidates(key_hash);
            if !self.is_recovered() {
                candidates.retain(|found| self.is_visible(found.place()));
            }
            self.keep_newest(&mut candidates, looks_max);
            for &candidate in &candidates {
                let touches = self.touches_at(candidate.place());
                let loaded = match self.in_ram(candidate) {
                    Some(entry) => Loaded::Entry(entry, Tier::Ram),
                    None => self.load_elsewhere(candidate, extent).await,
                };
                match loaded {
                    Loaded::Entry(entry, tier) if sought.is_of(&entry) => {
                        if unseen.covers(&entry) || self.is_dead_unseen(key_hash, &entry) {
                            continue;
                        }
                        let (verdict, asked) = self.checked_verdict(&entry);
                        if asked.is_some() && !self.is_present(entry.place()) {
                            // Records are forgotten once the regions of all they cover are free.
                            moved = true;
                            continue;
                        }
                        // In this order: once the age is known, so is the time learnt with it.
                        let age_known = self.knows_age(entry.sequence());
                        let now = self.shared.clock.now();
                        let ignores_end = sought.is_slice()
                            || (tier == Tier::Ram && planted::is(Bug::ServeExpired));
                        let is_purged = verdict == Verdict::Dead;
                        if (is_purged || !self.is_live_at(&entry, now)) && !ignores_end {
                            let place = entry.place();
                            if !is_purged
                                && self.touches_at(place) != touches
                                && !self.is_pinned(place)
                            {
                                // A touch may have extended it since it was read.
                                moved = true;
                                continue;
                            }
                            count(&self.shared.counters.expired);
                            if entry.sequence() < self.shared.purge_floor() {
                                count(&self.shared.counters.flushed);
                            }
                            if is_purged {
                                count(&self.shared.counters.purged_by_record);
                            }
                            // What a record covers is left for who stores the key again, which then supersedes
                            // it, and drops its slices.
                            if !is_purged || entry.sequence() < self.shared.purge_floor() {
                                self.forget_ended(key_hash, &entry, touches);
                            }
                            return None;
                        }
                        let is_stale = verdict == Verdict::Stale;
                        let is_fresh = age_known && !is_stale && entry.lifetime().fresh_until > now;
                        if stale == Stale::Refuse && !is_fresh && !ignores_end {
                            return None;
                        }
                        self.count_hit(key_hash, candidate);
                        if let (Verdict::Live, Some(number), Tier::Ram) = (verdict, asked, tier) {
                            self.note_checked(&entry, number, touches);
                        }
                        let entry = if is_stale { entry.stale_from(now) } else { entry };
                        return Some((entry, tier));
                    }
                    Loaded::Entry(..) => count(&self.shared.counters.false_positives),
                    Loaded::Moved => moved = true,
                    Loaded::Damaged => {
                        self.drop_damaged(key_hash, candidate);
                    }
                    Loaded::Unreadable | Loaded::Late => {}
                }
            }
            if !moved {
                return None;
            }
        }
        None
    }

    /// Notes at a copy in RAM that no purge up to `number` covers it.
    fn note_checked(&self, entry: &Entry, number: u64, touches: u32) {
        if !entry.note_checked(number) && !entry.place().is_in_ram() {
            // From here on its copies remember.
            self.keep_resident(entry.with_memory(number), touches);
        }
    }

    /// Notes that a candidate answered a lookup.
    fn count_hit(&self, key_hash: u64, candidate: Candidate) {
        if !candidate.is_hit {
            self.shared.catalog.lock(key_hash).mark_hit(candidate.location());
        }
        if self.shared.catalog.regions.unread_count() > 0
            && self.is_of_earlier_start(candidate.place())
            && !candidate.place().is_in_ram()
        {
            count(&self.shared.counters.doubtful_hits);
        }
    }
}
