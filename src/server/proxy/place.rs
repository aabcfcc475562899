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

/// The variant that a request selects, or would add.
pub(super) struct Selected {
    /// Its key.
    pub(super) key: Vec<u8>,
    /// All variants of the target, and the version of their entry.
    pub(super) among: (Variants, u64),
}

impl Place {
    /// Under the key of the `target`, unless that has variants.
    pub(super) fn of(request: &RequestHead, target: &[u8], selected: Option<Selected>) -> Place {
        let (target, origin) = (target.to_vec(), request.target().authority().into());
        match selected {
            Some(Selected { key, among }) => Place { origin, target, key, variants: Some(among) },
            None => Place { origin, key: target.clone(), target, variants: None },
        }
    }
}
