//! Goal: bad histories are rejected and good ones are not. Method: small histories by hand.

use super::*;

const LIFE: Life = Life { stored_at: 100, fresh_until: 200, keep_until: 300 };

fn version(id: u64) -> Version {
    Version {
        id,
        key: 1,
        len: 10,
        life: LIFE,
        body: id,
        replaced: id,
        ram_only: false,
        is_partial: false,
    }
}

fn stored(history: &mut History, id: u64, flushed: bool) {
    let change = history.begin_store(version(id), None);
    history.end_store(change, StoreEnd::Stored { sequence: id * 10, flushed });
}

fn purged(history: &mut History) {
    let purge = history.begin_purge(Some(1));
    history.end_purge(purge, PurgeEnd::Acknowledged);
}

fn lookup(history: &mut History) -> Lookup {
    Lookup { key: 1, stale_ok: false, began: history.tick(), now: 150 }
}

fn seen(id: u64) -> Seen {
    Seen { id, cas: id * 10, life: LIFE, len: 10 }
}

fn hit(history: &mut History, id: u64) -> usize {
    let lookup = lookup(history);
    history.check_hit(lookup, seen(id));
    history.violations().len()
}

#[test]
fn the_newest_version_is_right_and_an_older_one_is_not() {
    let mut history = History::default();
    stored(&mut history, 1, false);
    stored(&mut history, 2, false);
    assert_eq!(hit(&mut history, 2), 0);
    assert_eq!(hit(&mut history, 1), 1);
}

#[test]
fn a_purged_version_is_wrong_unless_the_lookup_overlaps_the_purge() {
    let mut history = History::default();
    stored(&mut history, 1, false);
    let before = lookup(&mut history);
    purged(&mut history);
    history.check_hit(before, seen(1));
    assert_eq!(history.violations().len(), 0);
    assert_eq!(hit(&mut history, 1), 1);
}

#[test]
fn concurrent_stores_are_ordered_by_their_sequences() {
    let mut history = History::default();
    let first = history.begin_store(version(1), None);
    let second = history.begin_store(version(2), None);
    history.end_store(second, StoreEnd::Stored { sequence: 20, flushed: false });
    history.end_store(first, StoreEnd::Stored { sequence: 10, flushed: false });
    assert_eq!(hit(&mut history, 2), 0);
    assert_eq!(hit(&mut history, 1), 1);
}

#[test]
fn a_power_cut_may_undo_what_was_not_flushed_and_nothing_else() {
    let mut history = History::default();
    stored(&mut history, 1, false);
    stored(&mut history, 2, false);
    history.crash(Crash::PowerCut, Duration::from_secs(1));
    assert_eq!(hit(&mut history, 1), 0, "the unflushed overwrite may be lost");
    let mut history = History::default();
    stored(&mut history, 1, false);
    stored(&mut history, 2, true);
    history.crash(Crash::PowerCut, Duration::from_secs(1));
    assert_eq!(hit(&mut history, 1), 1, "the flushed overwrite may not");
    let mut history = History::default();
    stored(&mut history, 1, false);
    purged(&mut history);
    history.crash(Crash::PowerCut, Duration::from_secs(1));
    assert_eq!(hit(&mut history, 1), 1, "nor may a purge");
}

#[test]
fn what_was_seen_after_a_crash_is_certain_again() {
    let mut history = History::default();
    stored(&mut history, 1, false);
    stored(&mut history, 2, false);
    history.crash(Crash::PowerCut, Duration::from_secs(1));
    assert_eq!(hit(&mut history, 2), 0);
    assert_eq!(hit(&mut history, 1), 1);
}

#[test]
fn the_age_of_a_change_makes_it_certain() {
    let mut history = History::default();
    stored(&mut history, 1, true);
    stored(&mut history, 2, false);
    history.now = Duration::from_secs(5);
    history.crash(Crash::Kill, Duration::from_millis(100));
    assert_eq!(hit(&mut history, 1), 1);
}

#[test]
fn expired_and_stale_entries_are_wrong() {
    let mut history = History::default();
    stored(&mut history, 1, false);
    let at = |now, stale_ok| Lookup { key: 1, stale_ok, began: 10, now };
    history.check_hit(at(199, false), seen(1));
    history.check_hit(at(299, true), seen(1));
    assert_eq!(history.violations().len(), 0);
    history.check_hit(at(200, false), seen(1));
    assert_eq!(history.violations().len(), 2, "by the cache's clock and by the true time");
    history.check_hit(at(300, true), seen(1));
    assert_eq!(history.violations().len(), 3);
}

#[test]
fn a_lifetime_that_a_touch_replaced_is_wrong() {
    let mut history = History::default();
    stored(&mut history, 1, false);
    let touch = history.begin_touch(1, 900);
    history.end_touch(touch, Some(true));
    let life = Life { fresh_until: 900, keep_until: 900, ..LIFE };
    let now = lookup(&mut history);
    history.check_hit(now, Seen { life, ..seen(1) });
    assert_eq!(history.violations().len(), 0);
    assert_eq!(hit(&mut history, 1), 1, "the lifetime before the touch");
    let never = Life { fresh_until: 901, keep_until: 901, ..LIFE };
    history.check_hit(now, Seen { life: never, ..seen(1) });
    assert_eq!(history.violations().len(), 2, "a lifetime nobody gave");
}

#[test]
fn a_purge_during_a_streamed_store_prevails() {
    let mut history = History::default();
    let began = history.tick();
    purged(&mut history);
    let change = history.begin_store(version(1), Some(began));
    history.end_store(change, StoreEnd::Stored { sequence: 10, flushed: false });
    assert_eq!(history.violations().len(), 1);
}

#[test]
fn a_cas_value_belongs_to_one_version() {
    let mut history = History::default();
    stored(&mut history, 1, false);
    stored(&mut history, 2, false);
    let now = lookup(&mut history);
    history.check_hit(now, Seen { cas: 10, ..seen(2) });
    assert_eq!(history.violations().len(), 2, "nor has a version two of them");
}

#[test]
fn damage_excuses_an_older_version_but_not_another_keys() {
    let mut history = History { damaged: true, ..History::default() };
    stored(&mut history, 1, false);
    stored(&mut history, 2, true);
    assert_eq!(hit(&mut history, 1), 0);
    assert_eq!(history.excused, 1);
    let now = Lookup { key: 2, ..lookup(&mut history) };
    history.check_hit(now, seen(2));
    assert_eq!(history.violations().len(), 1);
}

#[test]
fn a_version_that_must_be_there_is_missed() {
    let mut history = History::default();
    stored(&mut history, 1, false);
    let now = lookup(&mut history);
    history.check_miss(now, true, 150);
    assert_eq!(history.violations().len(), 1);
    history.check_miss(now, true, 250);
    assert_eq!(history.violations().len(), 1, "it may have expired");
    purged(&mut history);
    let now = lookup(&mut history);
    history.check_miss(now, true, 150);
    assert_eq!(history.violations().len(), 1, "it was purged");
}

#[test]
fn a_version_that_was_missed_stays_missed_until_the_next_life() {
    let mut history = History::default();
    stored(&mut history, 1, true);
    let overlapping = lookup(&mut history);
    let now = lookup(&mut history);
    history.miss_is_final(now, 150);
    history.check_hit(overlapping, seen(1));
    assert_eq!(history.violations().len(), 0, "it began before the miss ended");
    assert_eq!(hit(&mut history, 1), 1);
    history.crash(Crash::Kill, Duration::ZERO);
    assert_eq!(hit(&mut history, 1), 1, "evicted, but not from the device");
    let mut history = History::default();
    stored(&mut history, 1, true);
    let now = lookup(&mut history);
    history.miss_is_final(now, 250);
    assert_eq!(hit(&mut history, 1), 0, "it was stale and may be asked for as such");
}

#[test]
fn what_an_unreadable_region_may_hide_counts_again_when_it_is_read() {
    let mut history = History::default();
    stored(&mut history, 1, true);
    stored(&mut history, 2, true);
    history.crash(Crash::Kill, Duration::ZERO);
    history.begin_hiding();
    assert_eq!(hit(&mut history, 1), 0, "the overwrite may be in the region");
    assert_eq!(history.doubtful, 1);
    history.end_hiding();
    assert_eq!(hit(&mut history, 1), 1, "all of it was read");
    history.crash(Crash::Kill, Duration::ZERO);
    assert_eq!(hit(&mut history, 1), 2, "another start");
}

#[test]
fn what_was_purged_or_changed_since_no_region_hides() {
    let mut history = History::default();
    stored(&mut history, 1, true);
    purged(&mut history);
    history.crash(Crash::Kill, Duration::ZERO);
    history.begin_hiding();
    assert_eq!(hit(&mut history, 1), 1, "the purge is in two regions");
    stored(&mut history, 2, true);
    stored(&mut history, 3, true);
    assert_eq!(hit(&mut history, 2), 2, "the overwrite is of this life");
    let mut history = History::default();
    stored(&mut history, 1, true);
    let purge = history.begin_purge(Some(1));
    history.end_purge(purge, PurgeEnd::Absent);
    history.crash(Crash::Kill, Duration::ZERO);
    history.begin_hiding();
    assert_eq!(hit(&mut history, 1), 0, "where nothing was found nothing is written");
}

#[test]
fn a_large_object_is_whole_for_a_turn_unless_there_are_too_many() {
    let of = |bytes| turn::Stored { bytes, device: 1000, room: 500 };
    let large = |history: &mut History, id, key, len| {
        let began = history.tick();
        history.begin_large(id, began, len);
        let change = history.begin_store(Version { key, ..version(id) }, Some(began));
        history.end_store(change, StoreEnd::Stored { sequence: id * 10, flushed: true });
        history.end_large(id, Some(of(100)));
    };
    let mut history = History::default();
    large(&mut history, 1, 1, 400);
    let now = lookup(&mut history);
    history.check_turn(now, 150, of(850));
    assert_eq!(history.violations().len(), 0, "the turn is over");
    history.check_turn(now, 150, of(500));
    history.check_cut(1, 150, of(500));
    assert_eq!(history.violations().len(), 2);
    large(&mut history, 2, 2, 200);
    history.check_cut(1, 150, of(500));
    assert_eq!(history.violations().len(), 2, "both are more than half of the device");
    history.check_cut(2, 150, of(500));
    assert_eq!(history.violations().len(), 2, "whichever goes");
}

/// A purge of many by a tag that version 1 has, or has not.
fn purged_by_tag(history: &mut History, selects: bool, is_soft: bool) {
    let tag = if selects { 1 % Selector::ID_TAGS } else { 2 % Selector::ID_TAGS };
    let purge = history.begin_purge_of(Selector::IdTag(tag), is_soft);
    history.end_purge(purge, PurgeEnd::Acknowledged);
}

#[test]
fn a_purge_of_many_ends_what_it_selects_and_nothing_else() {
    for selects in [false, true] {
        let mut history = History::default();
        stored(&mut history, 1, true);
        purged_by_tag(&mut history, selects, false);
        history.crash(Crash::PowerCut, Duration::from_secs(1));
        assert_eq!(hit(&mut history, 1), usize::from(selects));
        let mut history = History::default();
        stored(&mut history, 1, true);
        purged_by_tag(&mut history, selects, false);
        let now = lookup(&mut history);
        history.check_miss(now, true, 150);
        assert_eq!(history.violations().len(), usize::from(!selects));
    }
}

#[test]
fn what_a_soft_purge_selects_is_stale_and_there() {
    let mut history = History::default();
    stored(&mut history, 1, true);
    purged_by_tag(&mut history, false, true);
    assert_eq!(hit(&mut history, 1), 0, "it has another tag");
    purged_by_tag(&mut history, true, true);
    history.crash(Crash::PowerCut, Duration::from_secs(1));
    let asked = Lookup { stale_ok: true, ..lookup(&mut history) };
    let life = Life { fresh_until: 150, ..LIFE };
    history.check_hit(asked, Seen { life, ..seen(1) });
    assert_eq!(history.violations().len(), 0);
    history.check_miss(Lookup { stale_ok: false, ..asked }, true, 150);
    assert_eq!(history.violations().len(), 0, "it is not fresh");
    history.check_miss(asked, true, 150);
    assert_eq!(history.violations().len(), 1, "but there");
    assert_eq!(hit(&mut history, 1), 2, "as fresh");
    let longer = Life { fresh_until: 201, ..LIFE };
    history.check_hit(asked, Seen { life: longer, ..seen(1) });
    assert_eq!(history.violations().len(), 3, "nothing gave it a longer life");
}

#[test]
fn a_soft_purge_during_a_streamed_store_makes_it_stale() {
    let mut history = History::default();
    let began = history.tick();
    purged_by_tag(&mut history, true, true);
    let change = history.begin_store(version(1), Some(began));
    history.end_store(change, StoreEnd::Stored { sequence: 10, flushed: false });
    assert_eq!(history.violations().len(), 0, "it may be stored");
    assert_eq!(hit(&mut history, 1), 1, "but not as fresh");
}
