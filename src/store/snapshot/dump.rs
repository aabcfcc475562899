//! The dumps of a group of shards, one after the other. Owns where one ends and which words are in
//! it; whether they are sound is for the index to say.

use crate::store::index::word::Word;

/// Bytes of the number of words, with which the dump of a shard begins.
pub const COUNT_LEN: usize = 4;
/// Bytes of a word with what stands beside it.
pub const ENTRY_LEN: usize = 10;
/// Bytes of a word alone.
const WORD_LEN: usize = 8;

/// The dump of one shard, and what follows it; `None` if it is cut off.
pub fn split(dumps: &[u8]) -> Option<(&[u8], &[u8])> {
    let (count, _) = dumps.split_first_chunk::<COUNT_LEN>()?;
    let words = usize::try_from(u32::from_le_bytes(*count)).ok()?;
    dumps.split_at_checked(words.checked_mul(ENTRY_LEN)?.checked_add(COUNT_LEN)?)
}

/// The words in the dump of one shard.
pub fn words(dump: &[u8]) -> impl Iterator<Item = Word> + use<'_> {
    let entries = dump.get(COUNT_LEN..).unwrap_or_default();
    let (words, _) = entries.as_chunks::<WORD_LEN>();
    let words = &words[..entries.len() / ENTRY_LEN];
    words.iter().map(|word| Word(u64::from_le_bytes(*word)))
}
