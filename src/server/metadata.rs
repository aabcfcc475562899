//! What the metadata of an entry means: flags of the memcached protocol, or headers of an HTTP
//! object. Owns those bytes, so that each protocol can read what the other stored. Pure.
//!
//! Empty metadata is flags 0; four bytes are flags, little-endian. Anything longer begins with a
//! kind byte; `docs/http.md` has the layout. Kind 2 is reserved for whole responses.

use bytes::{BufMut, Bytes, BytesMut};

/// Kind byte of an HTTP object.
const KIND_OBJECT: u8 = 1;
/// In the byte after the kind of an HTTP object: its `Last-Modified` is weak.
const WEAK_DATE: u8 = 1;
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
            _ => Metadata::Foreign,
        }
    }

    /// The metadata that `flags` of the memcached protocol are kept as.
    pub(super) fn of_flags(flags: u32) -> Bytes {
        if flags == 0 { Bytes::new() } else { Bytes::copy_from_slice(&flags.to_le_bytes()) }
    }

    /// The flags that the memcached protocol shows for metadata `bytes`.
    pub(super) fn flags(bytes: &[u8]) -> u32 {
        <[u8; 4]>::try_from(bytes).map_or(0, u32::from_le_bytes)
    }

    /// The part of metadata `bytes` that stays true when the memcached protocol changes the body:
    /// the flags. Headers, above all the ETag, describe the old body.
    pub(super) fn kept_with_new_body(bytes: &[u8]) -> Bytes {
        Metadata::of_flags(Metadata::flags(bytes))
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
            assert_eq!(Metadata::kept_with_new_body(&bytes), bytes);
        }
        assert_eq!(Metadata::flags(&object().encode()), 0);
        assert!(Metadata::kept_with_new_body(&object().encode()).is_empty());
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
