//! What a read-through listener does, by subject.

mod access_log;
mod answers;
mod failures;
mod fills;
mod forwarding;
mod framing;
mod hits;
mod invalidation;
mod keys;
mod not_stored;
mod purge;
mod purge_method;
mod ranges;
mod stale;
mod upstreams;
mod validation;
mod vary;
