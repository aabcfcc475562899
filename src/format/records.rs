//! Optional records of a slot: what only some entries have. Owns their types and their order; what they
//! mean, the store says.

use super::{Damage, Fields, Sequence};

/// Most tags of one entry.
pub const TAGS_MAX: usize = 1000;
/// Bytes of the records of a slice, which has one: the hash of its head's key.
pub const SLICE_RECORDS_LEN: usize = HEADING + 8;
/// Bytes of the records of a fragment of a slice, which has two: also where it begins.
pub const FRAGMENT_RECORDS_LEN: usize = SLICE_RECORDS_LEN + HEADING + 4;
/// Longest validator of an object of parts, in bytes.
pub const VALIDATOR_LEN_MAX: usize = 1025;

/// Bytes before the content of a record: its type and its length, 2 each.
const HEADING: usize = 4;
const TAGS: u16 = 1;
const VERSION: u16 = 3;
const STALE: u16 = 4;
const PARTS: u16 = 5;
const HEAD_KEY: u16 = 6;
const FRAGMENT: u16 = 7;

/// The optional records of one slot. Without any they take no bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// Keyed hashes of its tags, in rising order and without repetition; at most [`TAGS_MAX`].
    pub tags: Vec<u64>,
    /// Version of the object, where it is not the slot's sequence: it was written again since.
    pub version: Option<Sequence>,
    /// It is stale whatever its times say.
    pub is_stale: bool,
    /// Of a head whose slices may be there in part: the validator that all of them share, 1 to
    /// [`VALIDATOR_LEN_MAX`] bytes.
    pub validator: Option<Vec<u8>>,
    /// Of a slice: the hash of the key of its object's head.
    pub head_key: Option<u64>,
    /// Of a fragment of a slice: where it begins in the slice.
    pub fragment_start: Option<u32>,
}

impl Records {
    /// The encoded form.
    ///
    /// # Panics
    /// Panics if there are more than [`TAGS_MAX`] tags, they are not in rising order, or the validator is too
    /// long.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.tags.len() <= TAGS_MAX, "the caller counted the tags");
        assert!(is_rising(&self.tags), "the caller sorted the tags");
        let mut bytes = Vec::new();
        if !self.tags.is_empty() {
            push(&mut bytes, TAGS, self.tags.iter().flat_map(|tag| tag.to_le_bytes()));
        }
        if let Some(version) = self.version {
            push(&mut bytes, VERSION, version.0.to_le_bytes());
        }
        if self.is_stale {
            push(&mut bytes, STALE, []);
        }
        if let Some(validator) = &self.validator {
            assert!(is_validator(validator), "the caller checked the validator");
            push(&mut bytes, PARTS, validator.iter().copied());
        }
        if let Some(head_key) = self.head_key {
            push(&mut bytes, HEAD_KEY, head_key.to_le_bytes());
        }
        if let Some(start) = self.fragment_start {
            push(&mut bytes, FRAGMENT, start.to_le_bytes());
        }
        bytes
    }

    /// The tags in records that were verified, without the rest.
    pub fn tags_in(bytes: &[u8]) -> impl Iterator<Item = u64> + Clone + '_ {
        let tags = content_of(bytes, TAGS).unwrap_or_default();
        tags.chunks_exact(8).map(|tag| tag.u64_at(0))
    }

    /// The version in records that were verified.
    #[must_use]
    pub fn version_in(bytes: &[u8]) -> Option<Sequence> {
        let version = content_of(bytes, VERSION).filter(|version| version.len() == 8)?;
        Some(Sequence(version.u64_at(0)))
    }

    /// Whether records that were verified say that the entry is stale.
    #[must_use]
    pub fn is_stale_in(bytes: &[u8]) -> bool {
        content_of(bytes, STALE).is_some()
    }

    /// Whether records that were verified say that slices may be missing.
    #[must_use]
    pub fn is_partial_in(bytes: &[u8]) -> bool {
        content_of(bytes, PARTS).is_some()
    }

    /// Reads the encoded form.
    ///
    /// # Errors
    /// A record is unknown, too short or too long, or they are not in the order of their types.
    pub fn decode(mut bytes: &[u8]) -> Result<Records, Damage> {
        let (mut records, mut last) = (Records::default(), 0);
        while !bytes.is_empty() {
            let heading = bytes.get(..HEADING).ok_or(Damage::Short)?;
            let (kind, len) = (heading.u16_at(0), usize::from(heading.u16_at(2)));
            let content = bytes.get(HEADING..HEADING + len).ok_or(Damage::Short)?;
            if kind <= last {
                return Err(Damage::Field("order of records"));
            }
            match kind {
                TAGS => records.tags = decode_tags(content)?,
                VERSION => records.version = Some(Sequence(number(content)?)),
                STALE if len == 0 => records.is_stale = true,
                PARTS if is_validator(content) => records.validator = Some(content.to_vec()),
                HEAD_KEY => records.head_key = Some(number(content)?),
                FRAGMENT if len == 4 => records.fragment_start = Some(content.u32_at(0)),
                _ => return Err(Damage::Field("record")),
            }
            last = kind;
            bytes = &bytes[HEADING + len..];
        }
        Ok(records)
    }
}

fn is_validator(content: &[u8]) -> bool {
    (1..=VALIDATOR_LEN_MAX).contains(&content.len())
}

/// The content of the record of one type.
fn content_of(mut bytes: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let heading = bytes.get(..HEADING)?;
        let end = HEADING + usize::from(heading.u16_at(2));
        if heading.u16_at(0) == kind {
            return bytes.get(HEADING..end);
        }
        bytes = bytes.get(end..)?;
    }
}

#[expect(clippy::expect_used, reason = "a thousand tags are 8000 bytes, the other records less")]
fn push(bytes: &mut Vec<u8>, kind: u16, content: impl IntoIterator<Item = u8>) {
    let start = bytes.len();
    bytes.extend_from_slice(&kind.to_le_bytes());
    bytes.extend_from_slice(&[0; 2]);
    bytes.extend(content);
    let len = u16::try_from(bytes.len() - start - HEADING).expect("a record within its limit");
    bytes[start + 2..start + HEADING].copy_from_slice(&len.to_le_bytes());
}

fn number(content: &[u8]) -> Result<u64, Damage> {
    match content.len() {
        8 => Ok(content.u64_at(0)),
        _ => Err(Damage::Field("record length")),
    }
}

fn decode_tags(content: &[u8]) -> Result<Vec<u64>, Damage> {
    let is_possible =
        content.len().is_multiple_of(8) && (1..=TAGS_MAX).contains(&(content.len() / 8));
    if !is_possible {
        return Err(Damage::Field("number of tags"));
    }
    let tags: Vec<u64> = content.chunks_exact(8).map(|tag| tag.u64_at(0)).collect();
    if is_rising(&tags) { Ok(tags) } else { Err(Damage::Field("order of tags")) }
}

fn is_rising(tags: &[u64]) -> bool {
    tags.is_sorted_by(|a, b| a < b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Records {
        Records {
            tags: vec![0x0102_0304_0506_0708, u64::MAX],
            version: Some(Sequence(0x77)),
            is_stale: true,
            validator: Some(b"E\"a\"".to_vec()),
            head_key: Some(0x99),
            fragment_start: Some(0x1234),
        }
    }

    #[test]
    fn version_2_bytes_stay_as_they_are() {
        let expected =
            b"\x01\0\x10\0\x08\x07\x06\x05\x04\x03\x02\x01\xff\xff\xff\xff\xff\xff\xff\xff\
            \x03\0\x08\0\x77\0\0\0\0\0\0\0\x04\0\0\0\x05\0\x04\0E\"a\"\
            \x06\0\x08\0\x99\0\0\0\0\0\0\0\x07\0\x04\0\x34\x12\0\0";
        assert_eq!(sample().encode(), expected);
        assert_eq!(Records::decode(expected), Ok(sample()));
        assert!(Records::default().encode().is_empty());
        assert_eq!(Records::decode(&[]), Ok(Records::default()));
        let of_slice = Records { head_key: Some(1), ..Records::default() };
        assert_eq!(of_slice.encode().len(), SLICE_RECORDS_LEN);
        let of_fragment = Records { fragment_start: Some(2), ..of_slice };
        assert_eq!(of_fragment.encode().len(), FRAGMENT_RECORDS_LEN);
    }

    #[test]
    fn what_no_version_wrote_is_refused() {
        let field = |what| Err(Damage::Field(what));
        for (bytes, expected) in [
            (&b"\x01"[..], Err(Damage::Short)),
            (b"\x03\0\x08\0\x01", Err(Damage::Short)),
            (b"\0\0\0\0", field("order of records")),
            (b"\x04\0\0\0\x04\0\0\0", field("order of records")),
            (b"\x04\0\0\0\x03\0\x08\0\x01\0\0\0\0\0\0\0", field("order of records")),
            (b"\x02\0\x01\0\x01", field("record")),
            (b"\x04\0\x01\0\x01", field("record")),
            (b"\x05\0\0\0", field("record")),
            (b"\x07\0\0\0", field("record")),
            (b"\x08\0\0\0", field("record")),
            (b"\x03\0\x02\0\x01\0", field("record length")),
            (b"\x01\0\0\0", field("number of tags")),
            (b"\x01\0\x04\0\x01\0\0\0", field("number of tags")),
            (b"\x01\0\x10\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0", field("order of tags")),
        ] {
            assert_eq!(Records::decode(bytes), expected, "{bytes:?}");
        }
        let most = Records { tags: (0..1000).collect(), ..Records::default() };
        let mut bytes = most.encode();
        assert_eq!(Records::decode(&bytes), Ok(most));
        bytes.extend_from_slice(&u64::MAX.to_le_bytes());
        bytes[2..4].copy_from_slice(&8008u16.to_le_bytes());
        assert_eq!(Records::decode(&bytes), field("number of tags"));
    }

    proptest! {
        #[test]
        fn garbage_is_refused_or_comes_back(bytes in proptest::collection::vec(0u8..12, 0..64)) {
            let _ = (Records::tags_in(&bytes).count(), Records::is_stale_in(&bytes));
            if let Ok(records) = Records::decode(&bytes) {
                prop_assert_eq!(records.encode(), bytes);
            }
        }

        #[test]
        fn records_survive_encoding(
            tags in proptest::collection::btree_set(any::<u64>(), 0..20),
            version in proptest::option::of(any::<u64>()),
            is_stale in any::<bool>(),
            validator in proptest::option::of(proptest::collection::vec(any::<u8>(), 1..40)),
            head_key in proptest::option::of(any::<u64>()),
            fragment_start in proptest::option::of(any::<u32>()),
        ) {
            let (tags, version) = (tags.into_iter().collect(), version.map(Sequence));
            let records = Records { tags, version, is_stale, validator, head_key, fragment_start };
            let bytes = records.encode();
            prop_assert!(Records::tags_in(&bytes).eq(records.tags.iter().copied()));
            prop_assert_eq!(Records::is_stale_in(&bytes), is_stale);
            prop_assert_eq!(Records::decode(&bytes), Ok(records));
        }
    }
}
