//! Regions: what is known of each, what it holds, and their order. Owns neither the log nor the index.

pub(super) mod changes;
pub(super) mod contents;
pub(super) mod ranking;
pub(super) mod reader;
pub(super) mod row;
pub(super) mod state;
pub(super) mod table;
