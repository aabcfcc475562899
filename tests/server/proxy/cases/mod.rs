//! What a read-through listener does, by subject.

mod answers;
mod controls;
mod crowds;
mod encodings;
mod failures;
mod fills;
mod forwarding;
mod framing;
mod hits;
mod invalidation;
mod keys;
mod not_stored;
mod outages;
mod parts;
mod poisoning;
mod purge;
mod ranges;
mod rules;
mod stale;
mod tunnels;
mod turns;
mod upstreams;
mod uses;
mod validation;
mod vary;
