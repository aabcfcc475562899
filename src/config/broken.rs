//! A rule that a configuration breaks. Owns its shape; the files that check have the rules.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use crate::units::ByteSize;

/// A rule that a configuration breaks.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken {
    /// The key to change, as in `server.admin` or `proxy[1].listen`.
    pub key: Cow<'static, str>,
    /// Why, and what to write.
    pub reason: String,
}

/// What a check ends with.
pub type Check = Result<(), Broken>;

/// Fails for `reason` unless `holds`.
pub fn require(holds: bool, key: impl Into<Cow<'static, str>>, reason: impl Into<String>) -> Check {
    if holds { Ok(()) } else { Err(Broken { key: key.into(), reason: reason.into() }) }
}

/// Fails if `size` is outside of `range`, in bytes.
pub fn size_in(
    size: ByteSize,
    range: &RangeInclusive<u64>,
    key: impl Into<Cow<'static, str>>,
) -> Check {
    let (low, high) = (ByteSize(*range.start()), ByteSize(*range.end()));
    require(range.contains(&size.0), key, format!("{size} is out of range: write {low} to {high}"))
}
