//! The access log of a read-through listener: a line of JSON for each answer. Whoever answers hands a line
//! over and never waits; a thread of its own writes.

mod counts;
mod entry;
mod output;
mod writer;

pub(in crate::server) use counts::AccessLogCounts;
pub use counts::AccessLogSnapshot;
pub(super) use entry::Entry;
pub(in crate::server) use writer::AccessLog;
