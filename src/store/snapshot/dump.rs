//! The dumps of a group of shards, one after another. Owns where each ends and which entries are in it;
//! the index decides whether they are sound.

use crate::store::index::index_entry::IndexEntry;

/// Bytes of the entry count at the start of a shard's dump.
pub const COUNT_LEN: usize = 4;
/// Bytes of an entry and its further hash bits.
pub const ENTRY_LEN: usize = 10;
/// Bytes of an entry alone.
const INDEX_ENTRY_LEN: usize = 8;

/// Splits off the dump of the first shard; `None` if it is cut off.
pub fn split(dumps: &[u8]) -> Option<(&[u8], &[u8])> {
    let (count, _) = dumps.split_first_chunk::<COUNT_LEN>()?;
    let index_entries = usize::try_from(u32::from_le_bytes(*count)).ok()?;
    dumps.split_at_checked(index_entries.checked_mul(ENTRY_LEN)?.checked_add(COUNT_LEN)?)
}

/// The entries in the dump of one shard.
pub fn index_entries(dump: &[u8]) -> impl Iterator<Item = IndexEntry> + use<'_> {
    let entries = dump.get(COUNT_LEN..).unwrap_or_default();
    let (index_entries, _) = entries.as_chunks::<INDEX_ENTRY_LEN>();
    let index_entries = &index_entries[..entries.len() / ENTRY_LEN];
    index_entries.iter().map(|index_entry| IndexEntry(u64::from_le_bytes(*index_entry)))
}
