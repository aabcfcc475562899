//! Features that not every version of this program knows. Owns their names and bits, and what an older
//! version may do with a device that uses them.
//!
//! A bit announces a meaning for bytes that are zero without it. All features that the byte map in
//! `docs/disk-format.md` has room for are named here, so that a version without one can say which it
//! lacks.

use std::fmt;

/// What a version that does not know a feature may do with a device that uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// Nothing.
    Incompatible,
    /// Read it, but not change it.
    ReadOnlyCompatible,
    /// Everything: it ignores the feature, and its first write of the superblock drops it.
    Compatible,
}

use Class::{Compatible, Incompatible, ReadOnlyCompatible};

/// Every feature that the byte map has room for.
const NAMES: [(Class, u32, &str); 9] = [
    (Incompatible, 0, "members"),
    (Incompatible, 1, "two_logs"),
    (Incompatible, 2, "slot_records"),
    (Incompatible, 3, "purge_records"),
    (Incompatible, 4, "parts"),
    (Incompatible, 5, "age_base"),
    (ReadOnlyCompatible, 0, "journal"),
    (Compatible, 0, "bad_regions"),
    (Compatible, 1, "weight"),
];

/// The incompatible features of this program: a store that writes has all of them.
const KNOWN: u64 = 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5;

/// The feature masks of a superblock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// A version that does not know all of these bits must refuse the device.
    pub incompatible: u64,
    /// A version that does not know all of these bits may read the device but not write to it.
    pub read_only_compatible: u64,
    /// A version that does not know these bits ignores them.
    pub compatible: u64,
}

impl Features {
    /// The features for which this program must refuse the device, if any.
    #[must_use]
    pub fn refused(self) -> Option<FeatureNames> {
        FeatureNames::of(Incompatible, self.incompatible & !KNOWN)
    }

    /// These, and those that this program may use once it writes.
    #[must_use]
    pub fn with_known(self) -> Features {
        Features { incompatible: self.incompatible | KNOWN, ..self }
    }

    /// The features for which this program must not write to the device, if any.
    #[must_use]
    pub fn unwritable(self) -> Option<FeatureNames> {
        FeatureNames::of(ReadOnlyCompatible, self.read_only_compatible)
    }

    /// Whether a bit without a name here is set: it is unknown which bytes it announces.
    #[must_use]
    pub fn has_nameless(self) -> bool {
        [(ReadOnlyCompatible, self.read_only_compatible), (Compatible, self.compatible)]
            .into_iter()
            .any(|(class, mask)| mask & !named(class) != 0)
    }
}

/// The bits of a class that have names.
const fn named(class: Class) -> u64 {
    let (mut mask, mut n) = (0, 0);
    while n < NAMES.len() {
        if NAMES[n].0 as u8 == class as u8 {
            mask |= 1 << NAMES[n].1;
        }
        n += 1;
    }
    mask
}

/// The features of one class that a device uses, for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureNames {
    class: Class,
    mask: u64,
}

impl FeatureNames {
    fn of(class: Class, mask: u64) -> Option<FeatureNames> {
        (mask != 0).then_some(FeatureNames { class, mask })
    }
}

impl fmt::Display for FeatureNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for bit in (0..u64::BITS).filter(|bit| self.mask >> bit & 1 != 0) {
            f.write_str(separator)?;
            separator = ", ";
            match NAMES.iter().find(|(class, at, _)| (*class, *at) == (self.class, bit)) {
                Some((_, _, name)) => f.write_str(name)?,
                None => write!(f, "bit {bit}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_named_and_others_are_counted() {
        let features = Features {
            incompatible: 1 << 0 | 1 << 1 | 1 << 40,
            read_only_compatible: 1,
            compatible: 1,
        };
        assert_eq!(features.refused().unwrap().to_string(), "members, two_logs, bit 40");
        assert_eq!(features.unwritable().unwrap().to_string(), "journal");
        assert!(!features.has_nameless());
        assert!(Features { compatible: 1 << 63, ..features }.has_nameless());
        assert_eq!(Features::default().refused(), None);
        let known = Features::default().with_known();
        assert_eq!(known.refused(), None);
        let names = FeatureNames::of(Incompatible, known.incompatible).unwrap().to_string();
        assert_eq!(names, "slot_records, purge_records, parts, age_base");
        assert_eq!(Features::default().unwritable(), None);
    }

    #[test]
    fn no_two_features_share_a_bit() {
        for (n, a) in NAMES.iter().enumerate() {
            for b in &NAMES[n + 1..] {
                assert!((a.0, a.1) != (b.0, b.1) && a.2 != b.2, "{} and {}", a.2, b.2);
            }
        }
    }
}
