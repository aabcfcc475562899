//! Where the response to a request is, or would be stored.

use crate::http_cache::head::RequestHead;
use crate::http_cache::variants::Variants;

/// Where the response to a request is, or would be stored.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Host and port of the target: groups are of one origin.
    pub(super) origin: Box<str>,
    /// The key of the target.
    pub(super) target: Vec<u8>,
    /// The key of the response: that of the target, or of one of its variants.
    pub(super) key: Vec<u8>,
    /// The variants of the target, and the version of their entry, if it has any.
    pub(super) variants: Option<(Variants, u64)>,
}

impl Place {
    /// Under the key of the target, as long as it has no variants.
    pub(super) fn of(request: &RequestHead, target: Vec<u8>) -> Place {
        let origin = request.target().authority().into();
        Place { origin, key: target.clone(), target, variants: None }
    }
}
