//! The log: the order of all changes, under one lock, the append lock. The code under it does no I/O
//! but hands out what to write; only `flusher` writes.

pub(super) mod append;
pub(super) mod appender;
pub(super) mod by_ticket;
pub(super) mod chunks;
pub(super) mod core;
pub(super) mod epoch;
pub(super) mod floors;
pub(super) mod flusher;
pub(super) mod footers;
pub(super) mod health;
pub(super) mod hidden;
pub(super) mod limits;
pub(super) mod output;
pub(super) mod owed_records;
pub(super) mod placement;
pub(super) mod purge_records;
pub(super) mod purges;
pub(super) mod removals;
pub(super) mod room;
pub(super) mod sealing;
pub(super) mod sequences;
pub(super) mod slot;
#[cfg(test)]
mod tests;
mod tombstones;
pub(super) mod touches;
pub(super) mod write;
