//! Header lines. Owns which of them are for the connection, and are not given on.

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING,
};
use httparse::Header;
use smallvec::SmallVec;

use super::fault::Fault;

/// Values of one name.
type Values<'a> = SmallVec<[&'a [u8]; 2]>;

/// The fields that say what the connection does, and not what the request means.
#[derive(Debug, Default)]
pub(super) struct ConnectionFields<'a> {
    pub(super) hosts: Values<'a>,
    pub(super) lengths: Values<'a>,
    pub(super) codings: Values<'a>,
    pub(super) expectations: Values<'a>,
    pub(super) closes: bool,
    pub(super) keeps_alive: bool,
}

/// Sorts the header lines in `head`.
pub(super) fn sort<'a>(
    lines: &[Header<'a>],
    head: &[u8],
) -> Result<(ConnectionFields<'a>, HeaderMap), Fault> {
    let mut fields = ConnectionFields::default();
    let mut rest = HeaderMap::new();
    // One copy, shared by all values.
    let mut copy = None;
    for line in lines {
        let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| Fault::FIELD)?;
        let value = line.value.trim_ascii();
        match name {
            HOST => fields.hosts.push(value),
            CONTENT_LENGTH => fields.lengths.push(value),
            TRANSFER_ENCODING => fields.codings.push(value),
            EXPECT => fields.expectations.push(value),
            CONNECTION => fields.add_connection(value),
            name if value.is_empty() => {
                rest.append(name, HeaderValue::from_static(""));
            }
            name => {
                let copy = copy.get_or_insert_with(|| {
                    rest.reserve(lines.len());
                    Bytes::copy_from_slice(head)
                });
                let start = value.as_ptr().addr() - head.as_ptr().addr();
                let value = copy.slice(start..start + value.len());
                let value = HeaderValue::from_maybe_shared(value).map_err(|_| Fault::FIELD)?;
                rest.append(name, value);
            }
        }
    }
    Ok((fields, rest))
}

impl ConnectionFields<'_> {
    fn add_connection(&mut self, value: &[u8]) {
        for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            self.closes |= option.eq_ignore_ascii_case(b"close");
            self.keeps_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }
}

/// Whether `line`, without its end, is a header line: a token, a colon, and no control characters.
pub(super) fn is_field(line: &[u8]) -> bool {
    let Some(colon) = line.iter().position(|byte| *byte == b':') else { return false };
    let is_name = HeaderName::from_bytes(&line[..colon]).is_ok();
    is_name && line[colon + 1..].iter().all(|byte| is_text(*byte))
}

/// Characters of header values and of extensions of chunks.
pub(super) fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}
