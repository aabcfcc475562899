//! Changes by clients, from the condition to the acknowledgement. Owns what is retried and what is
//! refused; `find` looks up the present entry, `publish` makes the new one visible.

pub(super) mod declare;
pub(super) mod epoch;
pub(super) mod fills;
pub(super) mod find;
pub(super) mod publish;
pub(super) mod purge;
pub(super) mod remove;
pub(super) mod request;
pub(super) mod room;
pub(super) mod touch;
pub(super) mod update;

use crate::format::Kind;
use crate::store::counters::add;
use crate::store::entries::Tier;
use crate::store::log::slot::Slot;
use crate::store::log::write::Ticket;
use crate::store::mutation::fills::Fill;
use crate::store::mutation::find::{Deadline, Match, NO_ANSWER};
use crate::store::mutation::publish::{Attempt, Change};
use crate::store::mutation::request::{Condition, StoreError, Stored, Value};
use crate::store::purges::table::Since;
use crate::store::shared::{ROOM_WAIT_MAX, Store};

use crate::store::mutation::room::Patience;

impl Store {
    /// Begins a store of a key that takes a while; a later purge of the key makes its publication fail.
    #[must_use]
    pub fn begin_fill(&self, key: &[u8]) -> Fill {
        self.shared.fills.begin(self.key_hash(key), || self.shared.purges.last_number())
    }

    /// Begins a store of another key for which all purges since `first` began count.
    #[must_use]
    pub fn begin_fill_with(&self, key: &[u8], first: &Fill) -> Fill {
        self.shared.fills.begin_with(self.key_hash(key), first)
    }

    /// Has stores of a key that are in progress stored as stale, and no update in progress make it fresh.
    pub fn expire_fills(&self, key: &[u8]) {
        // Under the append lock: nothing is published meanwhile.
        let _log = self.shared.log.lock();
        self.shared.fills.expire(self.key_hash(key));
    }

    /// The keyed hash of a key. Two keys may share one.
    #[must_use]
    pub(crate) fn hash_of_key(&self, key: &[u8]) -> u64 {
        self.key_hash(key)
    }

    /// Stores a value of at most one slice if `condition` holds of the present entry.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn put(
        &self,
        key: &[u8],
        value: &Value<'_>,
        condition: Condition,
        fill: Option<&Fill>,
    ) -> Result<(Stored, Ticket), StoreError> {
        add(&self.shared.counters.body_bytes, value.body.len() as u64);
        let slot = Slot::new(Kind::Object, key, (value.metadata, value.body), value.lifetime);
        let slot = slot.tagged(value.tags);
        let ram_only = value.ram_only && self.shared.catalog.resident.is_on();
        let tier = if ram_only { Tier::Ram } else { Tier::Log };
        self.publish_if(key, &slot, condition, (fill, tier)).await
    }

    /// Publishes a slot, or keeps it in the RAM tier only. Waits for room, then checks `condition`
    /// against the present entry.
    pub(in crate::store) async fn publish_if(
        &self,
        key: &[u8],
        slot: &Slot<'_>,
        condition: Condition,
        (fill, tier): (Option<&Fill>, Tier),
    ) -> Result<(Stored, Ticket), StoreError> {
        let since = fill.map(|fill| Since::Number(fill.seen()));
        self.publish_since(key, slot, condition, (fill, since, tier)).await
    }

    /// As [`Store::publish_if`]; purges by tags and prefixes later than `since` cover the slot too: a hard one
    /// refuses it, a soft one has it stored as stale.
    pub(in crate::store) async fn publish_since(
        &self,
        key: &[u8],
        slot: &Slot<'_>,
        condition: Condition,
        (fill, since, tier): (Option<&Fill>, Option<Since>, Tier),
    ) -> Result<(Stored, Ticket), StoreError> {
        self.begin_store().await?;
        let key_hash = self.key_hash(key);
        let is_conditional = condition != Condition::Always;
        let change = Change { key_hash, slot, fill, since, replaced: None, is_conditional };
        let mut patience = Patience::default();
        loop {
            let mut deadline = Deadline::after(ROOM_WAIT_MAX);
            let found = self.find_by(key, change.key_hash, &mut deadline).await;
            if condition != Condition::Always && found.is_unknown() {
                return Err(NO_ANSWER);
            }
            if let Some(refused) = self.refusal(condition, found.matched.as_ref()).await {
                return Ok((refused, 0));
            }
            let attempt = if tier == Tier::Ram {
                self.publish_in_ram(&change, &found)?
            } else {
                self.publish(&change, &found)?
            };
            match attempt {
                Attempt::Published(sequence, ticket) => {
                    self.after_displacing(&found, slot.object_head());
                    return Ok((Stored::Yes(sequence.0), ticket));
                }
                Attempt::Changed => {}
                Attempt::NoRoom(why) => self.wait_for_room(why, &mut patience).await?,
            }
        }
    }

    /// The result of a store if its condition does not hold.
    async fn refusal(&self, condition: Condition, matched: Option<&Match>) -> Option<Stored> {
        if matches!(condition, Condition::Always) {
            return None;
        }
        let live = match matched {
            Some(matched) if matched.live && self.is_whole(matched).await => Some(matched),
            _ => None,
        };
        // An entry that only lookups for stale entries find counts as absent, unless its version is given.
        let counts = |live: &&Match| live.age_known || matches!(condition, Condition::Unchanged(_));
        let version = live.filter(counts).map(|live| live.version);
        let refused = if version.is_some() { Stored::Exists } else { Stored::Missing };
        (!condition.holds(version)).then_some(refused)
    }
}
