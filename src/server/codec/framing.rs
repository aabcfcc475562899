//! How long the body of a message is (RFC 9112, section 6), by its fields alone.

use super::fault::Fault;
use super::fields::ConnectionFields;

/// How long the body of a message is, as its fields say. That of a request is so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Neither a length nor a coding: a request has no body then.
    None,
    /// So many bytes.
    Length(u64),
    /// As many as its chunks have.
    Chunked,
}

impl Framing {
    /// The framing that the fields of a head ask for.
    pub(super) fn of(fields: &ConnectionFields<'_>, is_http_1_0: bool) -> Result<Framing, Fault> {
        match (&fields.lengths[..], &fields.codings[..]) {
            ([], []) => Ok(Framing::None),
            ([length], []) => decimal(length).map(Framing::Length).ok_or(Fault::LENGTH),
            (_, []) => Err(Fault::LENGTH),
            ([], _) if is_http_1_0 => Err(Fault::CODING_OF_1_0),
            ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
            ([], _) => Err(Fault::CODING),
            (_, _) => Err(Fault::TWO_LENGTHS),
        }
    }
}

fn decimal(text: &[u8]) -> Option<u64> {
    // `parse` takes a plus sign.
    let is_decimal = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| is_decimal)?.parse().ok()
}
