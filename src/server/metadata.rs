//! What the metadata of an entry means: flags of the memcached protocol, or headers of an HTTP
//! object. Owns those bytes, so that each protocol can read what the other stored. Pure.
//!
//! Empty metadata is flags 0; four bytes are flags, little-endian. Anything longer begins with a
//! kind byte; `docs/http.md` and `docs/memcached.md` have the layouts. Kind 2 is reserved for whole responses.

use bytes::{BufMut, Bytes, BytesMut};

/// Kind byte of an HTTP object.
const KIND_OBJECT: u8 = 1;
/// In the byte after the kind of an HTTP object: its `Last-Modified` is weak.
const WEAK_DATE: u8 = 1;
/// Kind byte of an item of the memcached protocol of which there is more to say than its flags.
const KIND_ITEM: u8 = 3;
/// Bytes of such an item, without and with a CAS value of its own.
const ITEM_LENS: [usize; 2] = [8, 16];
/// In the byte after the kind of an item: it is stale.
const STALE: u8 = 1;
/// It has no value yet: the client that won it is to bring one.
const VACANT: u8 = 2;
/// Its key was written in base64.
const ENCODED_KEY: u8 = 4;
/// Bytes before the first field of an HTTP object.
const FIXED_LEN: usize = 12;
/// Bytes of a field besides name and value.
const FIELD_OVERHEAD: usize = 3;

/// Parsed metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Metadata {
    /// Stored by the memcached protocol, or by a user of the library who gave none.
    Flags(u32),
    /// Stored over HTTP.
    Object(ObjectMetadata),
    /// Stored by a user of the library, or by a later version.
    Foreign,
}

/// What is kept with an HTTP object besides its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ObjectMetadata {
    /// The made-up entity tag, used if `fields` have no ETag. Never the same for two bodies.
    pub(super) tag: u64,
    /// Another version may have the same `Last-Modified` (RFC 9110, section 8.8.2.2).
    pub(super) has_weak_date: bool,
    fields: Bytes,
}

/// What is kept with an entry of the memcached protocol besides its value. By default what most have: nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Item {
    /// The client's flags.
    pub(super) flags: u32,
    /// A client marked it as stale: it is given as such, and never as fresh.
    pub(super) is_stale: bool,
    /// It has no value yet.
    pub(super) is_vacant: bool,
    /// Its key was written in base64, and is shown so.
    pub(super) has_encoded_key: bool,
    /// How often it was marked as stale, modulo 256: each mark makes it another version.
    pub(super) marks: u8,
    /// The CAS value that clients see, if it is not the entry's own.
    pub(super) cas: Option<u64>,
}

impl Item {
    /// What metadata `bytes` say of an item; nothing if they are of another kind.
    pub(super) fn of(bytes: &[u8]) -> Item {
        match bytes {
            &[a, b, c, d] => Item { flags: u32::from_le_bytes([a, b, c, d]), ..Item::default() },
            [KIND_ITEM, bits, marks, 0, rest @ ..] if ITEM_LENS.contains(&bytes.len()) => {
                let (flags, cas) = rest.split_at(4);
                Item {
                    flags: <[u8; 4]>::try_from(flags).map_or(0, u32::from_le_bytes),
                    is_stale: bits & STALE != 0,
                    is_vacant: bits & VACANT != 0,
                    has_encoded_key: bits & ENCODED_KEY != 0,
                    marks: *marks,
                    cas: <[u8; 8]>::try_from(cas).ok().map(u64::from_le_bytes),
                }
            }
            _ => Item::default(),
        }
    }

    /// Whether `bytes` are of an item, or of an entry without metadata.
    pub(super) fn is_one(bytes: &[u8]) -> bool {
        bytes.is_empty() || Item::of(bytes) != Item::default() || bytes == [0; 4]
    }

    pub(super) fn encode(&self) -> Bytes {
        if (Item { flags: self.flags, ..Item::default() }) == *self {
            return Metadata::of_flags(self.flags);
        }
        let mut bytes = BytesMut::with_capacity(ITEM_LENS[1]);
        let bit = |is_set, bit| if is_set { bit } else { 0 };
        bytes.put_u8(KIND_ITEM);
        bytes.put_u8(
            bit(self.is_stale, STALE)
                | bit(self.is_vacant, VACANT)
                | bit(self.has_encoded_key, ENCODED_KEY),
        );
        bytes.put_u8(self.marks);
        bytes.put_u8(0);
        bytes.put_u32_le(self.flags);
        if let Some(cas) = self.cas {
            bytes.put_u64_le(cas);
        }
        bytes.freeze()
    }

    /// Whether another protocol may give the value: it is one, and nobody said that it is stale.
    pub(super) fn is_fit(bytes: &[u8]) -> bool {
        let item = Item::of(bytes);
        !item.is_stale && !item.is_vacant
    }

    /// What stays true of it when its value changes: all but its CAS value, and that it had none.
    pub(super) fn with_new_value(self, cas: Option<u64>) -> Item {
        Item { is_vacant: false, cas, ..self }
    }
}

/// Gathers the fields of an object.
#[derive(Debug, Default)]
pub(super) struct Fields(BytesMut);

/// A header is longer than can be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FieldTooLong;

impl Fields {
    /// Adds a header; `name` in lower case.
    pub(super) fn push(&mut self, name: &[u8], value: &[u8]) -> Result<(), FieldTooLong> {
        let name_len = u8::try_from(name.len()).map_err(|_| FieldTooLong)?;
        let value_len = u16::try_from(value.len()).map_err(|_| FieldTooLong)?;
        self.0.put_u8(name_len);
        self.0.put_u16_le(value_len);
        self.0.put_slice(name);
        self.0.put_slice(value);
        Ok(())
    }

    /// Bytes that the metadata will have with these fields.
    pub(super) fn metadata_len(&self) -> usize {
        FIXED_LEN + self.0.len()
    }
}

impl ObjectMetadata {
    pub(super) fn new(tag: u64, has_weak_date: bool, fields: Fields) -> ObjectMetadata {
        ObjectMetadata { tag, has_weak_date, fields: fields.0.freeze() }
    }

    /// The headers, names in lower case; ends early at malformed bytes.
    pub(super) fn fields(&self) -> impl Iterator<Item = (Bytes, Bytes)> + use<> {
        let mut rest = self.fields.clone();
        std::iter::from_fn(move || {
            if rest.len() < FIELD_OVERHEAD {
                return None;
            }
            let head = rest.split_to(FIELD_OVERHEAD);
            let name_len = usize::from(head[0]);
            let value_len = usize::from(u16::from_le_bytes([head[1], head[2]]));
            if rest.len() < name_len + value_len {
                return None;
            }
            Some((rest.split_to(name_len), rest.split_to(value_len)))
        })
    }

    /// The value of the first header `name`, in lower case.
    pub(super) fn field(&self, name: &str) -> Option<Bytes> {
        self.fields().find(|(found, _)| *found == name.as_bytes()).map(|(_, value)| value)
    }

    pub(super) fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(FIXED_LEN + self.fields.len());
        bytes.put_u8(KIND_OBJECT);
        bytes.put_u8(if self.has_weak_date { WEAK_DATE } else { 0 });
        bytes.put_bytes(0, 2);
        bytes.put_u64_le(self.tag);
        bytes.put_slice(&self.fields);
        bytes.freeze()
    }
}

impl Metadata {
    pub(super) fn decode(bytes: &[u8]) -> Metadata {
        match bytes {
            [] => Metadata::Flags(0),
            &[a, b, c, d] => Metadata::Flags(u32::from_le_bytes([a, b, c, d])),
            [KIND_OBJECT, weak @ 0..=WEAK_DATE, 0, 0, rest @ ..] => {
                let Some((tag, fields)) = rest.split_first_chunk() else {
                    return Metadata::Foreign;
                };
                Metadata::Object(ObjectMetadata {
                    tag: u64::from_le_bytes(*tag),
                    has_weak_date: *weak == WEAK_DATE,
                    fields: Bytes::copy_from_slice(fields),
                })
            }
            _ if bytes.first() == Some(&KIND_ITEM) && Item::is_one(bytes) => {
                Metadata::Flags(Metadata::flags(bytes))
            }
            _ => Metadata::Foreign,
        }
    }

    /// The metadata that `flags` of the memcached protocol are kept as.
    pub(super) fn of_flags(flags: u32) -> Bytes {
        if flags == 0 { Bytes::new() } else { Bytes::copy_from_slice(&flags.to_le_bytes()) }
    }

    /// The flags that the memcached protocol shows for metadata `bytes`.
    pub(super) fn flags(bytes: &[u8]) -> u32 {
        match bytes.len() {
            // Most have none.
            0 => 0,
            _ => Item::of(bytes).flags,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object() -> ObjectMetadata {
        let mut fields = Fields::default();
        fields.push(b"content-type", b"text/plain").unwrap();
        fields.push(b"x", b"").unwrap();
        ObjectMetadata::new(0x1122_3344_5566_7788, false, fields)
    }

    #[test]
    fn the_bytes_of_an_object_are_these() {
        let mut expected = vec![1, 0, 0, 0];
        expected.extend([0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]);
        expected.extend(b"\x0c\x0a\x00content-typetext/plain\x01\x00\x00x");
        assert_eq!(object().encode(), expected);
        assert_eq!(Metadata::decode(&expected), Metadata::Object(object()));
        let fields: Vec<_> = object().fields().collect();
        assert_eq!(fields.len(), 2);
        assert_eq!(object().field("content-type").unwrap(), "text/plain");
        expected[1] = 1;
        let weak = ObjectMetadata { has_weak_date: true, ..object() };
        assert_eq!(weak.encode(), expected);
        assert_eq!(Metadata::decode(&expected), Metadata::Object(weak));
        expected[1] = 2;
        assert_eq!(Metadata::decode(&expected), Metadata::Foreign);
    }

    #[test]
    fn flags_are_read_as_the_memcached_protocol_writes_them() {
        for flags in [0, 1, 256, u32::MAX] {
            let bytes = Metadata::of_flags(flags);
            assert_eq!(Metadata::decode(&bytes), Metadata::Flags(flags));
            assert_eq!(Metadata::flags(&bytes), flags);
            assert_eq!(Item::of(&bytes).encode(), bytes);
        }
        assert_eq!(Metadata::flags(&object().encode()), 0);
        // Headers, above all the ETag, describe the old body.
        assert!(Item::of(&object().encode()).with_new_value(None).encode().is_empty());
    }

    #[test]
    fn the_bytes_of_an_item_are_these() {
        let item = Item {
            flags: 0x0403_0201,
            is_stale: true,
            is_vacant: true,
            has_encoded_key: true,
            marks: 9,
            cas: None,
        };
        assert_eq!(item.encode(), [3, 7, 9, 0, 1, 2, 3, 4].as_slice());
        let with_cas = Item { cas: Some(5), ..item };
        let expected = [3, 7, 9, 0, 1, 2, 3, 4, 5, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(with_cas.encode(), expected.as_slice());
        for (bits, expected) in [
            (1, Item { is_stale: true, ..Item::default() }),
            (2, Item { is_vacant: true, ..Item::default() }),
            (4, Item { has_encoded_key: true, ..Item::default() }),
        ] {
            assert_eq!(Item::of(&[3, bits, 0, 0, 0, 0, 0, 0]), expected);
        }
        for item in [item, with_cas] {
            let bytes = item.encode();
            assert_eq!(Item::of(&bytes), item);
            assert_eq!(Metadata::decode(&bytes), Metadata::Flags(item.flags));
            assert!(Item::is_one(&bytes) && !Item::is_fit(&bytes));
        }
        for bytes in [vec![3; 7], vec![3; 8], vec![3; 12], object().encode().to_vec()] {
            assert!(!Item::is_one(&bytes), "{bytes:?}");
            assert_eq!(Item::of(&bytes), Item::default());
        }
        assert!(Item::is_one(&[]) && Item::is_one(&[0; 4]) && Item::is_one(&[1; 4]));
    }

    #[test]
    fn bytes_that_make_no_sense_are_nobodys() {
        let whole = object().encode();
        for len in [1, 2, 3, 5, 11] {
            assert_eq!(Metadata::decode(&whole[..len]), Metadata::Foreign, "{len}");
        }
        for len in FIXED_LEN..whole.len() {
            let Metadata::Object(cut) = Metadata::decode(&whole[..len]) else { panic!("{len}") };
            assert!(cut.fields().count() < 2, "{len}");
        }
        assert_eq!(Metadata::decode(&[2; 40]), Metadata::Foreign);
    }

    #[test]
    fn a_header_that_cannot_be_kept_is_refused() {
        let mut fields = Fields::default();
        assert_eq!(fields.push(&[b'x'; 256], b""), Err(FieldTooLong));
        assert_eq!(fields.push(b"x", &[0; 65_536]), Err(FieldTooLong));
        assert_eq!(fields.metadata_len(), FIXED_LEN);
    }
}
