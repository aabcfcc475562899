//! The tables against a list of all purges that there were.

use proptest::prelude::*;

use super::*;
use crate::format::Selector;

fn hasher() -> SipHasher13 {
    SipHasher13::new_with_keys(1, 2)
}

fn prefix(bytes: &[u8]) -> Selector {
    let len = u16::try_from(bytes.len()).unwrap();
    Selector::Prefix { len, hash: hasher().hash(bytes) }
}

fn purge(purges: &Purges, sequence: u64, what: Selector, is_soft: bool) -> Option<Folded> {
    purges.add(&PurgeRecord { sequence: Sequence(sequence), what, is_soft })
}

fn of<'a>(key: &'a [u8], tags: &'a [u64]) -> Subject<'a, impl Iterator<Item = u64> + Clone> {
    Subject { key, tags: tags.iter().copied() }
}

fn verdict(purges: &Purges, sequence: u64, key: &[u8], tags: &[u64]) -> Verdict {
    let (verdict, _) = purges.verdict(Since::Sequence(Sequence(sequence)), of(key, tags));
    let may_cover = purges.may_cover(Sequence(sequence));
    assert!(may_cover || verdict == Verdict::Live, "asked or not, the answer is the same");
    verdict
}

#[test]
fn a_purge_covers_what_is_older_and_selected() {
    let purges = Purges::new(Floors::default(), 10, hasher());
    assert!(!purges.may_cover(Sequence(0)));
    purge(&purges, 10, Selector::Tag(7), false);
    purge(&purges, 20, prefix(b"/img/"), true);
    purge(&purges, 30, prefix(b"/i"), false);
    assert_eq!(verdict(&purges, 9, b"/a", &[3, 7]), Verdict::Dead);
    assert_eq!(verdict(&purges, 10, b"/a", &[3, 7]), Verdict::Live, "the same moment is later");
    assert_eq!(verdict(&purges, 9, b"/a", &[3]), Verdict::Live);
    assert_eq!(verdict(&purges, 9, b"/img/x", &[]), Verdict::Dead);
    assert_eq!(verdict(&purges, 29, b"/i", &[]), Verdict::Dead, "a prefix may be all of the key");
    assert_eq!(verdict(&purges, 29, b"/", &[]), Verdict::Live);
    purge(&purges, 40, prefix(b"/img/"), true);
    assert_eq!(verdict(&purges, 35, b"/img/x", &[]), Verdict::Stale);
    assert_eq!(verdict(&purges, 35, b"/img", &[]), Verdict::Live);
    purges.raise_floor(true, Sequence(50));
    assert_eq!(verdict(&purges, 49, b"/z", &[]), Verdict::Stale);
    assert_eq!(verdict(&purges, 50, b"/z", &[]), Verdict::Live);
}

#[test]
fn a_store_in_progress_is_told_of_what_came_since_it_began() {
    let purges = Purges::new(Floors::default(), 4, hasher());
    // As long as no epoch has begun all have the same sequence.
    purge(&purges, 10, Selector::Tag(1), false);
    let began = purges.last_number();
    let ask = |tags: &[u64]| purges.verdict(Since::Number(began), of(b"key", tags)).0;
    assert_eq!(ask(&[1, 2]), Verdict::Live);
    purge(&purges, 10, Selector::Tag(2), true);
    assert_eq!(ask(&[1, 2]), Verdict::Stale);
    purge(&purges, 10, Selector::Tag(1), false);
    assert_eq!(ask(&[1]), Verdict::Dead, "the same purge again");
    assert_eq!(ask(&[3]), Verdict::Live);
    purges.compact(Sequence(99), || began, Timestamp(0));
    assert_eq!(purges.counts(), [1, 1], "it did not see them");
    for n in 0..5 {
        purge(&purges, 20 + n, Selector::Tag(100 + n), false);
    }
    assert_eq!(ask(&[3]), Verdict::Dead, "what it did not see went into the floor");
    assert!(purges.counts() > [0, 0]);
    purges.compact(Sequence(99), || purges.last_number(), Timestamp(0));
    assert_eq!(purges.counts(), [0, 0]);
}

#[test]
fn the_oldest_half_goes_into_a_floor_of_its_own_kind() {
    let purges = Purges::new(Floors::default(), 8, hasher());
    for n in 0..8 {
        assert_eq!(purge(&purges, 10 + n, Selector::Tag(n), false), None);
        assert_eq!(purge(&purges, 10 + n, Selector::Tag(n), true), None);
    }
    assert_eq!(purge(&purges, 20, Selector::Tag(3), false), None, "it takes the place of another");
    let folded = purge(&purges, 21, prefix(b"x"), false);
    assert_eq!(folded, Some(Folded { floor: Sequence(15), count: 5 }));
    assert_eq!(purges.counts(), [4, 8]);
    assert_eq!(verdict(&purges, 14, b"k", &[]), Verdict::Dead);
    assert_eq!(verdict(&purges, 15, b"k", &[]), Verdict::Live);
    assert_eq!(verdict(&purges, 15, b"k", &[6]), Verdict::Dead);
    assert_eq!(verdict(&purges, 16, b"k", &[7]), Verdict::Dead);
    assert_eq!(verdict(&purges, 19, b"k", &[3]), Verdict::Dead);
}

#[test]
fn what_entries_in_ram_may_need_is_kept() {
    let purges = Purges::new(Floors::default(), 8, hasher());
    purges.note_in_ram(Sequence(5), Timestamp(100));
    purge(&purges, 10, Selector::Tag(1), false);
    let left_at = |now| {
        purges.compact(Sequence(50), || u64::MAX, Timestamp(now));
        purges.counts()
    };
    assert_eq!(left_at(99), [1, 0]);
    assert_eq!(left_at(100), [0, 0]);
}

#[test]
fn what_nothing_needs_is_forgotten_in_steps() {
    let purges = Purges::new(Floors::default(), 64 << 10, hasher());
    for n in 0..1500 {
        purge(&purges, 10 + n, Selector::Tag(n), n % 2 == 1);
    }
    let compact = || purges.compact(Sequence(10 + 1400), || u64::MAX, Timestamp(0));
    assert!(compact(), "there is more");
    assert!(purges.counts().iter().sum::<usize>() >= 1500 - 1024);
    assert!(!compact());
    assert_eq!(purges.counts(), [49, 50]);
}

#[derive(Clone, Debug)]
enum Step {
    Purge { what: u8, is_soft: bool },
    All { is_soft: bool },
    Compact,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..24u8, any::<bool>()).prop_map(|(what, is_soft)| Step::Purge { what, is_soft }),
        1 => any::<bool>().prop_map(|is_soft| Step::All { is_soft }),
        1 => Just(Step::Compact),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..60)
}

/// Keys of which each selector selects some.
const KEYS: [&[u8]; 5] = [b"a", b"ab", b"abc", b"b", b"ba"];

fn selector(what: u8) -> Selector {
    match what {
        0..16 => Selector::Tag(u64::from(what)),
        _ => prefix(KEYS[usize::from(what) % KEYS.len()]),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// An entry is covered if a purge selects it, and beyond that only by the floor that was told.
    #[test]
    fn nothing_that_a_purge_selects_is_missed(steps in steps()) {
        let mut purges = Purges::new(Floors::default(), 8, hasher());
        let mut all: Vec<(u64, Option<Selector>, bool)> = Vec::new();
        let (mut floors, mut oldest) = (Floors::default(), 0);
        for (sequence, step) in (10..).step_by(10).zip(steps) {
            match step {
                Step::Purge { what, is_soft } => {
                    let what = selector(what);
                    all.push((sequence, Some(what), is_soft));
                    let folded = purge(&purges, sequence, what, is_soft);
                    if let Some(Folded { floor, .. }) = folded {
                        let of = if is_soft { &mut floors.soft } else { &mut floors.hard };
                        prop_assert!(floor > *of);
                        *of = floor;
                    }
                }
                Step::All { is_soft } => {
                    all.push((sequence, None, is_soft));
                    purges.raise_floor(is_soft, Sequence(sequence));
                    let of = if is_soft { &mut floors.soft } else { &mut floors.hard };
                    *of = Sequence(sequence);
                }
                Step::Compact => {
                    oldest = sequence / 2;
                    purges.compact(Sequence(oldest), || u64::MAX, Timestamp(0));
                }
                Step::Restart => {
                    let found = purges.records();
                    purges = Purges::new(floors, 8, hasher());
                    for record in found.iter().chain(found.iter().rev()) {
                        prop_assert_eq!(purges.add_found(record, true), None);
                    }
                }
            }
            prop_assert!(purges.counts().iter().all(|count| *count <= 8));
            for (key, entry) in KEYS.iter().zip((oldest + 1..sequence).step_by(7)) {
                let tags = [entry % 16, 77];
                let selects = |what: &Option<Selector>| match what {
                    None => true,
                    Some(Selector::Tag(tag)) => tags.contains(tag),
                    Some(Selector::Prefix { len, hash }) => {
                        key.get(..usize::from(*len)).is_some_and(|part| hasher().hash(part) == *hash)
                    }
                };
                let is_covered = |is_soft: bool, floor: Sequence| {
                    let mut of_kind = all.iter().filter(|(_, _, soft)| *soft == is_soft);
                    Sequence(entry) < floor
                        || of_kind.any(|(sequence, what, _)| entry < *sequence && selects(what))
                };
                let expected = match (is_covered(false, floors.hard), is_covered(true, floors.soft)) {
                    (true, _) => Verdict::Dead,
                    (false, true) => Verdict::Stale,
                    (false, false) => Verdict::Live,
                };
                prop_assert_eq!(verdict(&purges, entry, key, &tags), expected);
            }
        }
    }
}
