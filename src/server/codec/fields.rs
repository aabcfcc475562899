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

/// The fields that say what the connection does, and not what the message means.
#[derive(Debug, Default)]
pub(super) struct ConnectionFields<'a> {
    pub(super) hosts: Values<'a>,
    pub(super) connections: Values<'a>,
    pub(super) lengths: Values<'a>,
    pub(super) codings: Values<'a>,
    pub(super) expectations: Values<'a>,
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
            CONNECTION => fields.connections.push(value),
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
    /// Whether the sender means to go on with the connection after this message.
    pub(super) fn keeps_alive(&self, is_http_1_0: bool) -> bool {
        !self.has_option(b"close") && (self.has_option(b"keep-alive") || !is_http_1_0)
    }

    /// The names of fields that are for this connection only (RFC 9110, section 7.6.1).
    pub(super) fn nominated(&self) -> Vec<HeaderName> {
        let known = [&b"close"[..], b"keep-alive"];
        let is_known =
            |option: &&[u8]| known.iter().any(|known| option.eq_ignore_ascii_case(known));
        let others = self.options().filter(|option| !is_known(option));
        others.filter_map(|option| HeaderName::from_bytes(option).ok()).collect()
    }

    fn options(&self) -> impl Iterator<Item = &[u8]> {
        let lines = self.connections.iter();
        lines.flat_map(|line| line.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
    }

    fn has_option(&self, wanted: &[u8]) -> bool {
        self.options().any(|option| option.eq_ignore_ascii_case(wanted))
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
