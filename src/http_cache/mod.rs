//! The decisions of a shared HTTP cache (RFC 9111): which requests are answered from the store, which
//! responses are stored, how long they are fresh, and what becomes of them. Pure: takes heads and times,
//! gives values. Reads no clock, does no I/O, and keeps nothing.
//!
//! A request goes through these in turn:
//!
//! 1. [`request::classify`] says whether it is looked up, [`no_vary_search::Rule`] which targets are one with
//!    its own, [`variants::Variants::select`] which stored
//!    response it selects, and [`reuse::reuse`] whether that is used.
//! 2. [`answer::answer`] says how: whole, in parts, or as 304.
//! 3. Else [`request::fill_headers`] or [`validation::validation_headers`] are what the origin is asked.
//! 4. [`storing::store`] says what is stored of its answer, [`freshening::freshen`] what a 304 makes of
//!    what is stored, [`reuse::stands_in`] whether that stands in for an error.
//! 5. [`invalidation::invalidated`] says what an unsafe request makes of what is stored.

pub mod age;
pub mod answer;
pub mod cache_control;
pub mod cache_status;
pub mod condition;
pub mod conditional;
pub mod control_fields;
pub mod date;
pub mod encoding;
pub mod freshening;
pub mod freshness;
pub mod head;
pub mod hop_by_hop;
pub mod invalidation;
pub mod list;
pub mod no_vary_search;
pub mod range;
pub mod request;
pub mod reuse;
pub mod settings;
pub mod single;
pub mod storing;
pub mod tags;
pub mod target;
pub mod targeted;
#[cfg(test)]
mod testing;
pub mod validation;
pub mod variants;
pub mod vary;
