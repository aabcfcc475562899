//! Which responses come part by part, and which bytes a fill asks for.

use std::ops::Range;

use ::http::StatusCode;
use ::http::header::{ACCEPT_RANGES, RANGE};

use super::fetch::Fetched;
use super::options::ProxyOptions;
use super::parts::block_of;
use crate::cache::Validator;
use crate::http_cache::head::{RequestHead, StoredHead};
use crate::http_cache::range::{self, Part};
use crate::http_cache::storing::strong_validator;

/// What comes of an object that is stored part by part.
#[derive(Debug)]
pub(super) struct Coming {
    /// What its parts are joined by.
    pub(super) validator: Validator,
    /// Length of the whole.
    pub(super) len: u64,
    pub(super) range: Range<u64>,
    pub(super) is_of_whole: bool,
}

impl ProxyOptions {
    /// The bytes that a fill for `request` asks for, if not for all.
    pub(super) fn range_of_fill(&self, request: &RequestHead) -> Option<Range<u64>> {
        let header = request.headers().get(RANGE)?;
        let start = range::only_start(header.as_bytes())?;
        let range = block_of(start, self.fill_block, u64::MAX);
        (start >= self.range_fetch_min).then_some(range.start.max(aligned(start))..range.end)
    }

    /// A whole response, if it is better stored part by part: what came stays if the rest does not, and who
    /// wants bytes from far behind need not wait.
    pub(super) fn whole_in_parts(&self, fetched: &Fetched, head: &StoredHead) -> Option<Coming> {
        let len = fetched.connection.body_len()?;
        let is_large = len >= self.fill_block.max(self.range_fetch_min);
        let has_ranges = fetched.head.headers.get(ACCEPT_RANGES)?.as_bytes() == b"bytes";
        let validator = strong_validator(head)?;
        let is_fit = is_large && has_ranges && head.status == StatusCode::OK;
        is_fit.then_some(Coming { validator, len, range: 0..len, is_of_whole: true })
    }
}

impl Coming {
    /// The part that a fill asked for; `None` if something else came.
    pub(super) fn asked(
        asked: &Range<u64>,
        (part, validator): (Part, Option<Validator>),
        fetched: &Fetched,
    ) -> Option<Coming> {
        let Part { range, len } = part;
        let body_len = fetched.connection.body_len();
        let is_asked = range.start == asked.start
            && range.end <= asked.end
            && body_len.is_none_or(|announced| announced == range.end - range.start);
        let validator = validator.filter(|_| is_asked)?;
        Some(Coming { validator, len, range, is_of_whole: false })
    }
}

/// Where the granule begins that has the byte `at`.
fn aligned(at: u64) -> u64 {
    at / super::parts::GRANULE * super::parts::GRANULE
}
