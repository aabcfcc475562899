//! Answers to refused requests.

use http::StatusCode;

use super::body_error::BodyError;
use super::key::NoKey;
use crate::cache::StoreError;
use crate::server::codec::fault::Fault;

/// Why a request is refused: its status and a line for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) struct Refusal {
    pub(in crate::server) status: StatusCode,
    pub(in crate::server) text: &'static str,
}

const fn refusal(status: StatusCode, text: &'static str) -> Refusal {
    Refusal { status, text }
}

impl Refusal {
    pub(in crate::server) const NOT_FOUND: Refusal =
        refusal(StatusCode::NOT_FOUND, "the object is not in the cache\n");
    pub(super) const METHOD: Refusal = refusal(
        StatusCode::METHOD_NOT_ALLOWED,
        "objects take GET, HEAD, PUT, PATCH, DELETE and PURGE\n",
    );
    pub(in crate::server) const READ_ONLY: Refusal =
        refusal(StatusCode::FORBIDDEN, "this listener is read-only\n");
    pub(super) const PRECONDITION: Refusal =
        refusal(StatusCode::PRECONDITION_FAILED, "a precondition of the request does not hold\n");
    pub(super) const RANGE: Refusal = refusal(
        StatusCode::RANGE_NOT_SATISFIABLE,
        "no byte of the object is in the range asked for\n",
    );
    pub(super) const NOT_STORABLE: Refusal = refusal(
        StatusCode::UNPROCESSABLE_ENTITY,
        "Cache-Control forbids a shared cache to store this; X-Rawcached-TTL overrides it\n",
    );
    pub(super) const ENDS_AT_ONCE: Refusal = refusal(
        StatusCode::UNPROCESSABLE_ENTITY,
        "what ends at once has no parts; X-Rawcached-TTL or X-Rawcached-Grace keeps it\n",
    );
    pub(super) const WITHDRAWN: Refusal = refusal(
        StatusCode::UNPROCESSABLE_ENTITY,
        "the object must not be kept any more, and is removed\n",
    );
    pub(super) const VARIES_ALWAYS: Refusal =
        refusal(StatusCode::UNPROCESSABLE_ENTITY, "an object with Vary: * fits no request\n");
    pub(super) const REPEATED: Refusal =
        refusal(StatusCode::BAD_REQUEST, "a header that may be there once is there twice\n");
    pub(super) const BAD_LIFETIME: Refusal = refusal(
        StatusCode::BAD_REQUEST,
        "X-Rawcached-TTL and X-Rawcached-Grace take whole seconds, once\n",
    );
    pub(super) const BAD_ACK: Refusal =
        refusal(StatusCode::BAD_REQUEST, "X-Rawcached-Ack takes flushed or buffered\n");
    pub(super) const BAD_ETAG: Refusal =
        refusal(StatusCode::BAD_REQUEST, "an entity tag stands in double quotes\n");
    pub(super) const CONTENT_RANGE: Refusal = refusal(
        StatusCode::BAD_REQUEST,
        "Content-Range is bytes FIRST-LAST/LENGTH, and the body has just these bytes\n",
    );
    pub(super) const NO_VALIDATOR: Refusal = refusal(
        StatusCode::BAD_REQUEST,
        "a part has a strong ETag, or a Last-Modified that is a minute older than its Date\n",
    );
    pub(super) const VALIDATOR_STAYS: Refusal = refusal(
        StatusCode::CONFLICT,
        "the parts of an object share its ETag or Last-Modified: it stays\n",
    );
    pub(super) const NOT_NEWER: Refusal = refusal(
        StatusCode::CONFLICT,
        "there is a version that is not older, or the object has another length\n",
    );
    pub(super) const FRAGMENTED: Refusal = refusal(
        StatusCode::CONFLICT,
        "64 KiB of the object are in 16 pieces that do not touch each other\n",
    );
    pub(super) const PURGE: Refusal = refusal(
        StatusCode::BAD_REQUEST,
        "a purge is JSON: type is uri, uri-prefix, origin, group, tag or all; see docs/proxy.md\n",
    );
    pub(super) const PURGE_LEN: Refusal =
        refusal(StatusCode::PAYLOAD_TOO_LARGE, "a purge has at most 1000 selectors and 64 KiB\n");
    pub(super) const PATCH_BODY: Refusal =
        refusal(StatusCode::BAD_REQUEST, "PATCH changes headers and lifetime; it has no body\n");
    pub(super) const PATCH_NOTHING: Refusal =
        refusal(StatusCode::BAD_REQUEST, "PATCH names no header or lifetime to change\n");
    pub(in crate::server) const BODY_CUT: Refusal =
        refusal(StatusCode::BAD_REQUEST, "the body ended before its end\n");
    /// Nobody reads this.
    pub(in crate::server) const GONE: Refusal =
        refusal(StatusCode::BAD_REQUEST, "the client left\n");
    pub(in crate::server) const NO_LENGTH: Refusal = refusal(
        StatusCode::LENGTH_REQUIRED,
        "PUT has a Content-Length, or comes in chunks; 0 stores an empty object\n",
    );
    pub(super) const HEADERS_TOO_LARGE: Refusal = refusal(
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        "the headers to be kept are longer than 64 KiB\n",
    );
    pub(in crate::server) const TOO_LARGE: Refusal =
        refusal(StatusCode::PAYLOAD_TOO_LARGE, "the object is larger than half of the device\n");
    pub(super) const CONTENDED: Refusal =
        refusal(StatusCode::SERVICE_UNAVAILABLE, "too many clients change this object\n");

    /// Whether the client should try again soon.
    pub(in crate::server) fn is_temporary(self) -> bool {
        self.status == StatusCode::SERVICE_UNAVAILABLE
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Refusal {
        Refusal { status: fault.status, text: fault.text }
    }
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Refusal {
        match error {
            BodyError::Malformed(fault) => Refusal::from(fault),
            // Nobody gets the answer if the connection is lost.
            BodyError::Cut | BodyError::Lost => Refusal::BODY_CUT,
        }
    }
}

impl From<NoKey> for Refusal {
    fn from(reason: NoKey) -> Refusal {
        let (status, text) = match reason {
            NoKey::UnknownPath => (
                StatusCode::NOT_FOUND,
                "nothing is here: objects are under /v1/objects/, responses under /v1/responses/\n",
            ),
            NoKey::Empty => (StatusCode::BAD_REQUEST, "the key is empty\n"),
            NoKey::TooLong => (StatusCode::URI_TOO_LONG, "the key is longer than 4096 bytes\n"),
            NoKey::Encoding => (StatusCode::BAD_REQUEST, "a % without two hexadecimal digits\n"),
            NoKey::Reserved => (
                StatusCode::BAD_REQUEST,
                "keys that begin with a line feed are those of read-through listeners\n",
            ),
            NoKey::Query => {
                (StatusCode::BAD_REQUEST, "a query is no part of a key: write ? as %3F\n")
            }
        };
        Refusal { status, text }
    }
}

impl Refusal {
    /// Why a removal failed. Lookups do not find the object any more, even if the device failed.
    pub(in crate::server) fn of_removal(error: &StoreError) -> Refusal {
        match error {
            StoreError::Busy(_) => refusal(
                StatusCode::SERVICE_UNAVAILABLE,
                "removed, but not durable yet: the device cannot keep up\n",
            ),
            StoreError::Device(_) | StoreError::NotDurable => refusal(
                StatusCode::INTERNAL_SERVER_ERROR,
                "removed, but not durable: the device failed\n",
            ),
            error => Refusal::from(error),
        }
    }
}

impl From<&StoreError> for Refusal {
    fn from(error: &StoreError) -> Refusal {
        const BUSY: StatusCode = StatusCode::SERVICE_UNAVAILABLE;
        const FAILED: StatusCode = StatusCode::INTERNAL_SERVER_ERROR;
        match error {
            StoreError::TooLarge { .. } => Refusal::TOO_LARGE,
            StoreError::MetadataLen(_) | StoreError::TagLen(_) | StoreError::Tags { .. } => {
                Refusal::HEADERS_TOO_LARGE
            }
            StoreError::KeyLen(_) => Refusal::from(NoKey::TooLong),
            StoreError::Busy(_) => refusal(BUSY, "the device cannot keep up\n"),
            StoreError::Evicted | StoreError::Incomplete => {
                refusal(BUSY, "the object was evicted before it was whole\n")
            }
            StoreError::Gone => refusal(BUSY, "the object was replaced, evicted or has ended\n"),
            StoreError::Range { .. } => Refusal::CONTENT_RANGE,
            StoreError::Fragmented => Refusal::FRAGMENTED,
            StoreError::Crowded { .. } => {
                refusal(BUSY, "uploads in progress take half of the device\n")
            }
            StoreError::ShuttingDown => refusal(BUSY, "the daemon is shutting down\n"),
            StoreError::Purged => refusal(BUSY, "the object was purged meanwhile\n"),
            StoreError::Refused => refusal(
                BUSY,
                "stores are refused: the device fails, or is much slower than it was\n",
            ),
            StoreError::Device(_) | StoreError::NotDurable => {
                refusal(FAILED, "the device failed\n")
            }
        }
    }
}
