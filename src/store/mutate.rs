//! Changing the store: put. Owns verification before a change and
//! its atomic publication; the append lock orders all changes, the bucket lock guards the words.

use std::pin::pin;
use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::Instant;

use super::counters::{add, count};
use super::entry::{Entry, SlotBytes};
use super::fills::Fill;
use super::index::Locked;
use super::log::{Appender, Log, NoRoom, Reservation, Ticket};
use super::place::Place;
use super::read::{Candidate, Extent, Loaded, Tier};
use super::request::{Condition, Lifetime, StoreError, Stored, Value};
use super::slot::Slot;
use super::sought::Sought;
use super::unverified::LOOKS_MAX;
use super::word::SizeClass;
use super::{ROOM_WAIT_MAX, Store};
use crate::clock::Timestamp;
use crate::format::{Kill, Kind, ObjectHead, Sequence, SliceKey};
use crate::planted::{self, Bug};

/// What the index has for a key, verified on the device where a fingerprint matched.
pub(super) struct Found {
    pub places: SmallVec<[Place; 2]>,
    pub matched: Option<Match>,
    /// Words that may be the key's but cannot be read: they must not survive a change.
    pub suspects: SmallVec<[Candidate; 1]>,
    /// Older versions of the key that a change killed without having seen them.
    pub dead: SmallVec<[Place; 1]>,
    /// There are more words than were looked at, and none of those was the key's: it may have an
    /// older version among the others, and the change must kill it unseen.
    is_partial: bool,
    /// A suspect was not read by the deadline.
    is_late: bool,
}

pub(super) struct Match {
    pub place: Place,
    pub tier: Tier,
    pub sequence: Sequence,
    pub lifetime: Lifetime,
    /// Neither purged nor past its end. Of a large object's slices that says nothing:
    /// [`Store::is_whole`] does, and takes the longer the more there are.
    pub live: bool,
    /// It is known how old it is: it may be fresh.
    pub age_known: bool,
    pub head: Option<ObjectHead>,
}

/// Nothing was heard of the device for [`ROOM_WAIT_MAX`].
pub(super) const NO_ANSWER: StoreError = StoreError::Busy("the device does not answer");

impl Found {
    /// Whether the key may have an entry that could not be read in time.
    pub fn is_unknown(&self) -> bool {
        self.is_late && self.matched.is_none()
    }

    fn may_supersede(&self, log: &Log, key_hash: u64) -> bool {
        self.matched.is_some()
            || !self.suspects.is_empty()
            || !self.dead.is_empty()
            || self.is_partial
            || log.may_hide_older(key_hash)
    }

    /// Places whose words go when the key changes.
    fn displaced(&self) -> impl Iterator<Item = Place> + '_ {
        let matched = self.matched.iter().map(|matched| matched.place);
        let suspects = self.suspects.iter().map(Candidate::place);
        matched.chain(suspects).chain(self.dead.iter().copied())
    }
}

/// How one attempt to publish ended.
enum Attempt {
    Published(Sequence, Ticket),
    /// The words changed since they were verified.
    Changed,
    NoRoom(NoRoom),
}

/// A change to be published.
struct Change<'a> {
    key_hash: u64,
    slot: &'a Slot<'a>,
    fill: Option<Fill>,
}

impl Store {
    /// Stores a value of at most one slice if `condition` holds of the present entry.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn put(
        &self,
        key: &[u8],
        value: &Value<'_>,
        condition: Condition,
        fill: Option<Fill>,
    ) -> Result<(Stored, Ticket), StoreError> {
        add(&self.shared.counters.body_bytes, value.body.len() as u64);
        let slot = Slot::new(Kind::Object, key, (value.metadata, value.body), value.lifetime);
        let ram_only = value.ram_only && self.shared.resident.is_on();
        self.publish_if(key, &slot, condition, (fill, ram_only)).await
    }

    /// Stores the head of an object whose slices are all appended, if `condition` holds.
    ///
    /// # Errors
    /// See [`StoreError`]; [`StoreError::Evicted`] if a slice is gone already.
    pub async fn put_head(
        &self,
        key: &[u8],
        (metadata, head): (&[u8], ObjectHead),
        lifetime: Lifetime,
        (condition, fill): (Condition, Fill),
    ) -> Result<(Stored, Ticket), StoreError> {
        // What was purged may have lost its slices: it is for the purge that it fails.
        self.check_open(Some(fill))?;
        if !self.has_slices(&head, 0..head.len).await {
            return Err(StoreError::Evicted);
        }
        let body = head.encode();
        let slot = Slot::new(Kind::Head, key, (metadata, &body), lifetime);
        self.publish_if(key, &slot, condition, (Some(fill), false)).await
    }

    async fn publish_if(
        &self,
        key: &[u8],
        slot: &Slot<'_>,
        condition: Condition,
        (fill, ram_only): (Option<Fill>, bool),
    ) -> Result<(Stored, Ticket), StoreError> {
        self.begin_store().await?;
        let change = Change { key_hash: self.key_hash(key), slot, fill };
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
            let attempt = if ram_only {
                self.publish_in_ram(key, &change, &found)?
            } else {
                self.publish(&change, &found)?
            };
            match attempt {
                Attempt::Published(sequence, ticket) => {
                    self.after_displacing(&found);
                    return Ok((Stored::Yes(sequence.0), ticket));
                }
                Attempt::Changed => {}
                Attempt::NoRoom(why) => self.wait_for_room(why, &mut patience).await?,
            }
        }
    }

    /// Verifies the words of an object's key. Reads the device only where a fingerprint matches.
    /// What is not read by the deadline counts as unreadable.
    pub(super) fn find_by(
        &self,
        key: &[u8],
        key_hash: u64,
        deadline: &mut Deadline,
    ) -> impl Future<Output = Found> {
        self.find_among(Sought::object(key, key_hash), LOOKS_MAX, deadline)
    }

    /// As [`Store::find_by`], for the key of a slice: all words are looked at, for nobody can choose the
    /// names of slices.
    pub(super) fn find_slice(
        &self,
        key: &[u8],
        key_hash: u64,
        deadline: &mut Deadline,
    ) -> impl Future<Output = Found> {
        self.find_among(Sought::slice(key, key_hash), usize::MAX, deadline)
    }

    async fn find_among(
        &self,
        sought: Sought<'_>,
        looks_max: usize,
        deadline: &mut Deadline,
    ) -> Found {
        let key_hash = sought.hash();
        'again: loop {
            let unseen = self.killed_unseen(key_hash);
            let mut candidates = self.candidates(key_hash);
            let mut found = Found {
                places: candidates.iter().map(Candidate::place).collect(),
                matched: None,
                suspects: SmallVec::new(),
                dead: SmallVec::new(),
                is_partial: false,
                is_late: false,
            };
            let oldest = || self.shared.regions.oldest_generation_but(u32::MAX);
            if candidates.len() > looks_max && self.shared.unverified.has_room(oldest) {
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
                        if unseen.kills(&entry) || self.was_killed_unseen(key_hash, &entry) {
                            found.dead.push(entry.place());
                            continue;
                        }
                        found.matched = Some(self.matched(&entry, tier));
                        // There is no more than one version that nothing killed.
                        found.is_partial = false;
                    }
                    Loaded::Entry(..) => count(&self.shared.counters.false_positives),
                    Loaded::Moved => continue 'again,
                    // The RAM tier put it out, and with it all there was of it.
                    Loaded::Damaged if self.is_in_ram_only(candidate.place()) => {
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

    /// Reads as much as a change needs of what the RAM tier does not have: the key, or the whole slot
    /// of an object's head. That the key is another one is only believed of a verified slot.
    async fn load_for_change(&self, candidate: Candidate, sought: Sought<'_>) -> Loaded {
        let extent = Extent::Key { key_len: sought.key().len() };
        match self.load_elsewhere(candidate, extent).await {
            Loaded::Entry(entry, Tier::Disk)
                if entry.kind() == Kind::Head || !sought.is_of(&entry) =>
            {
                self.load(candidate, Extent::Whole).await
            }
            loaded => loaded,
        }
    }

    fn matched(&self, entry: &Entry, tier: Tier) -> Match {
        Match {
            place: entry.place(),
            tier,
            sequence: entry.sequence(),
            lifetime: entry.lifetime(),
            age_known: self.knows_age(entry.sequence()),
            live: self.is_live(entry) && self.is_visible(entry.place()),
            head: entry.object_head(),
        }
    }

    /// Whether no slice of a large object was evicted; a lookup gives what is whole only.
    pub(super) async fn is_whole(&self, matched: &Match) -> bool {
        match &matched.head {
            Some(head) => self.has_slices(head, 0..head.len).await,
            None => true,
        }
    }

    /// What a store answers whose condition does not hold of what is there.
    async fn refusal(&self, condition: Condition, matched: Option<&Match>) -> Option<Stored> {
        if matches!(condition, Condition::Always) {
            return None;
        }
        let live = match matched {
            Some(matched) if matched.live && self.is_whole(matched).await => Some(matched),
            _ => None,
        };
        match (condition, live) {
            // What no lookup gives but one that asks for stale entries is not there.
            (Condition::Absent, Some(live)) if live.age_known => Some(Stored::Exists),
            (Condition::Present, Some(live)) if !live.age_known => Some(Stored::Missing),
            (Condition::Present | Condition::Unchanged(_), None) => Some(Stored::Missing),
            (Condition::Unchanged(cas), Some(matched)) if matched.sequence.0 != cas => {
                Some(Stored::Exists)
            }
            _ => None,
        }
    }

    /// Writes the slot to the log and points the index to it, unless the words changed.
    fn publish(&self, change: &Change<'_>, found: &Found) -> Result<Attempt, StoreError> {
        let shared = &*self.shared;
        let mut log = shared.log.lock();
        self.check_open(change.fill)?;
        let at = match log.reserve(change.slot, Appender::Client, shared.clock.now()) {
            Ok(at) => at,
            Err(why) => return Ok(Attempt::NoRoom(why)),
        };
        shared.changed.note(change.key_hash);
        let mut bucket = shared.index.lock(change.key_hash);
        if !self.is_unchanged(&bucket, &found.places) {
            return Ok(Attempt::Changed);
        }
        let sequence = log.draw();
        self.unlink(found, (change.key_hash, sequence), (&mut bucket, &mut log));
        let class = SizeClass::of(change.slot.len());
        let row = shared.regions.on_device(at.region);
        let touches = row.touches();
        row.add_live(class.len_max());
        bucket.insert(at.place.location(), class);
        drop(bucket);
        let supersedes = found.may_supersede(&log, change.key_hash);
        let (ticket, unfilled) =
            log.append(at, change.slot, change.key_hash, (sequence, supersedes));
        log.count_stored(change.slot.len());
        if let Some(head) = change.slot.object_head() {
            // Under the append lock: the head is where it was put.
            let at = (at.region, change.slot.len());
            shared.large.lock().finish((head.object, head.len), at, log.stored());
        }
        self.fill_and_release(log, change.slot, unfilled);
        if found.matched.as_ref().is_some_and(|matched| matched.tier == Tier::Ram) {
            self.keep_stored(change.slot, at.place, (sequence, supersedes), touches);
        }
        Ok(Attempt::Published(sequence, ticket))
    }

    /// Copies a value just stored to the RAM tier: the version it replaces was there, so it is hot.
    pub(super) fn keep_stored(
        &self,
        slot: &Slot<'_>,
        place: Place,
        (sequence, supersedes): (Sequence, bool),
        touches_before: u32,
    ) {
        let header = slot.header(sequence, supersedes);
        let len = usize::try_from(slot.len()).unwrap_or(usize::MAX);
        let bytes = SlotBytes::written(len, |target| slot.write_behind_header(target));
        self.keep_resident(Entry::new(header, bytes, place), touches_before);
    }

    /// Keeps the value in the RAM tier only; an older version on the device is killed in the log.
    fn publish_in_ram(
        &self,
        key: &[u8],
        change: &Change<'_>,
        found: &Found,
    ) -> Result<Attempt, StoreError> {
        let shared = &*self.shared;
        let len = usize::try_from(change.slot.len()).unwrap_or(usize::MAX);
        let bytes = SlotBytes::written(len, |target| change.slot.write_behind_header(target));
        let mut log = shared.log.lock();
        self.check_open(change.fill)?;
        let kill = found.may_supersede(&log, change.key_hash);
        let reserved = if kill {
            match log.reserve(&kill_placeholder(), Appender::Client, shared.clock.now()) {
                Ok(at) => Some(at),
                Err(why) => return Ok(Attempt::NoRoom(why)),
            }
        } else {
            if let Err(why) = log.check_epoch(Appender::Client) {
                return Ok(Attempt::NoRoom(why));
            }
            None
        };
        let sequence = log.draw();
        let header = change.slot.header(sequence, false);
        let place = shared.ram_place(log.next_ram_place());
        let entry = Entry::new(header, bytes, place);
        // The copy comes first: a word without it would be an entry that is lost.
        let lost = shared.resident.insert(entry);
        shared.changed.note(change.key_hash);
        let mut bucket = shared.index.lock(change.key_hash);
        if !self.is_unchanged(&bucket, &found.places) {
            drop(bucket);
            drop(log);
            shared.resident.remove(place);
            self.drop_lost(&lost);
            return Ok(Attempt::Changed);
        }
        self.unlink(found, (change.key_hash, sequence), (&mut bucket, &mut log));
        if lost.iter().all(|entry| entry.place() != place) {
            bucket.insert(place.location(), SizeClass::of(change.slot.len()));
        }
        drop(bucket);
        let mut ticket = 0;
        if let Some(at) = reserved {
            let record = Kill { key_hash: change.key_hash, sequence };
            ticket = self.fill_kills(&mut log, at, &[record]);
            log.removal_logged(record, ticket);
        }
        self.release(log);
        self.drop_lost(&lost);
        if shared.resident.get(place).is_none() {
            self.forget(self.key_hash(key), place);
        }
        Ok(Attempt::Published(sequence, ticket))
    }

    pub(super) fn fill_kills(&self, log: &mut Log, at: Reservation, kills: &[Kill]) -> Ticket {
        let encoded = Slot::encode_kills(kills);
        let slot = Slot::of_kills(&encoded, self.shared.clock.now());
        let (ticket, unfilled) = log.append(at, &slot, 0, (log_sequence(kills), false));
        assert!(unfilled.is_none(), "a slot of kill records is short");
        ticket
    }

    pub(super) fn check_open(&self, fill: Option<Fill>) -> Result<(), StoreError> {
        if self.shared.is_stopping() {
            return Err(StoreError::ShuttingDown);
        }
        let purged = fill.is_some_and(|fill| self.shared.fills.is_purged(fill));
        if purged && !planted::is(Bug::FillIgnoresPurge) {
            return Err(StoreError::Purged);
        }
        Ok(())
    }

    /// Takes the displaced words out of the index.
    pub(super) fn unlink(
        &self,
        found: &Found,
        (key_hash, sequence): (u64, Sequence),
        (bucket, log): (&mut Locked<'_>, &mut Log),
    ) {
        for place in found.displaced() {
            if let Some(word) = bucket.remove(place.location()) {
                self.shared.uncount(word);
            }
        }
        if found.is_partial {
            self.shared.unverified.note(key_hash, sequence);
        }
        for suspect in &found.suspects {
            // It may be another key's, which then has no kill record of its own.
            let (region, _) = suspect.location().split(&self.shared.layout);
            log.note_unindexed(region);
        }
    }

    /// Whether the words are the ones that were verified. The region's life counts: a location may
    /// have been freed and written again meanwhile.
    pub(super) fn is_unchanged(&self, bucket: &Locked<'_>, then: &[Place]) -> bool {
        let mut now: SmallVec<[Place; 2]> = SmallVec::new();
        bucket.each_candidate(|word| now.push(self.place_of(bucket, word)));
        // As a rule nothing has moved: many are compared in one go.
        now.len() == then.len()
            && (now[..] == *then || now.iter().all(|place| then.contains(place)))
    }

    pub(super) fn after_displacing(&self, found: &Found) {
        for place in found.displaced() {
            self.shared.resident.remove(place);
        }
        if let Some(head) = found.matched.as_ref().and_then(|matched| matched.head) {
            self.discard(head.object, head.slice_count());
        }
    }

    /// Appends one slice of an object whose head comes later. Its key is new, so nothing is verified.
    ///
    /// # Errors
    /// See [`StoreError`]; [`StoreError::Evicted`] if another slice of it is gone already.
    pub async fn append_slice(
        &self,
        key: SliceKey,
        body: &[u8],
        lifetime: Lifetime,
    ) -> Result<Ticket, StoreError> {
        self.begin_store().await?;
        add(&self.shared.counters.body_bytes, body.len() as u64);
        let encoded = key.encode();
        let slot = Slot::new(Kind::Slice, &encoded, (&[], body), lifetime);
        let key_hash = self.slice_hash(&encoded);
        let mut patience = Patience::default();
        loop {
            match self.append_new(key.object, key_hash, &slot)? {
                Attempt::NoRoom(why) => self.wait_for_room(why, &mut patience).await?,
                Attempt::Changed => {}
                Attempt::Published(_, ticket) => return Ok(ticket),
            }
        }
    }

    fn append_new(
        &self,
        object: Sequence,
        key_hash: u64,
        slot: &Slot<'_>,
    ) -> Result<Attempt, StoreError> {
        let shared = &*self.shared;
        let mut log = shared.log.lock();
        self.check_open(None)?;
        if shared.large.lock().claim(object).is_none() {
            return Err(StoreError::Evicted);
        }
        let at = match log.reserve(slot, Appender::Client, shared.clock.now()) {
            Ok(at) => at,
            Err(why) => return Ok(Attempt::NoRoom(why)),
        };
        let class = SizeClass::of(slot.len());
        let mut bucket = shared.index.lock(key_hash);
        let sequence = log.draw();
        shared.regions.on_device(at.region).add_live(class.len_max());
        bucket.insert(at.place.location(), class);
        drop(bucket);
        let (ticket, unfilled) = log.append(at, slot, key_hash, (sequence, false));
        log.count_stored(slot.len());
        shared.large.lock().add(object, at.region, slot.len());
        self.fill_and_release(log, slot, unfilled);
        Ok(Attempt::Published(sequence, ticket))
    }

    pub(super) async fn wait_for_room(
        &self,
        why: NoRoom,
        patience: &mut Patience,
    ) -> Result<(), StoreError> {
        let deadline = patience.deadline(&self.shared.counters);
        let changed = self.shared.changes.notified();
        match why {
            NoRoom::Regions | NoRoom::Purges => self.shared.wake_reclaimer.notify_one(),
            NoRoom::Backlog | NoRoom::Epoch => self.shared.wake_flusher.notify_one(),
        }
        if self.shared.log.lock().has_room(why) {
            return Ok(());
        }
        self.wait_until(deadline, changed).await
    }

    pub(super) async fn wait_until(
        &self,
        deadline: Instant,
        changed: impl Future<Output = ()>,
    ) -> Result<(), StoreError> {
        let is_over = Instant::now() >= deadline;
        if is_over || self.shared.deadlines.in_time(pin!(changed), deadline).await.is_none() {
            count(&self.shared.counters.refused);
            return Err(StoreError::Busy("the device does not keep up"));
        }
        Ok(())
    }
}

/// When a change reads no longer what may be its key's. The time begins with the first read: most
/// changes need none.
pub(super) struct Deadline {
    after: Duration,
    at: Option<Instant>,
}

impl Deadline {
    /// So long after the first read begins.
    pub fn after(after: Duration) -> Deadline {
        Deadline { after, at: None }
    }

    fn begun(&mut self) -> Instant {
        *self.at.get_or_insert_with(|| Instant::now() + self.after)
    }
}

/// How long one store waits for room, over all its waits.
#[derive(Default)]
pub(super) struct Patience {
    deadline: Option<Instant>,
}

impl Patience {
    pub fn deadline(&mut self, counters: &super::counters::Counters) -> Instant {
        *self.deadline.get_or_insert_with(|| {
            count(&counters.stalls);
            Instant::now() + ROOM_WAIT_MAX
        })
    }
}

/// A slot as long as one of a single kill record, to reserve its place before its sequence is drawn.
fn kill_placeholder() -> Slot<'static> {
    Slot::of_kills(&[0; crate::format::KILL_LEN], Timestamp(0))
}

fn log_sequence(kills: &[Kill]) -> Sequence {
    kills.iter().map(|kill| kill.sequence).max().unwrap_or_default()
}
