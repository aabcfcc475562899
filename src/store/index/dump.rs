//! The entries of a shard as bytes, for snapshots: their number (u32), the words (u64 each), then for
//! each the hash bits that the word does not hold (u16), all little-endian. Owns the encoding; neither
//! checksums nor writes it.

use crate::format::Damage;
use crate::store::index::Index;
use crate::store::index::bucket::Print;
use crate::store::index::word::Word;

const COUNT_LEN: usize = 4;
const WORD_LEN: usize = 8;
const REST_LEN: usize = 2;

impl Index {
    /// Appends the entries of one shard to `out`, without a checksum. The bytes do not depend on the
    /// capacity of the shard.
    ///
    /// # Panics
    /// Panics if a shard has 2^32 entries.
    pub fn dump_shard(&self, shard: usize, out: &mut Vec<u8>) {
        let locked = self.shards[shard].0.lock();
        let count = u32::try_from(locked.len()).expect("a shard has less than 2^32 words");
        out.reserve(COUNT_LEN + locked.len() * (WORD_LEN + REST_LEN));
        out.extend_from_slice(&count.to_le_bytes());
        for (_, word) in locked.iter() {
            out.extend_from_slice(&word.0.to_le_bytes());
        }
        for (print, _) in locked.iter() {
            out.extend_from_slice(&print.rest().to_le_bytes());
        }
    }

    /// Adds the entries that [`Index::dump_shard`] wrote for this shard; gives their number.
    ///
    /// # Errors
    /// Fails, and adds nothing, if the bytes cannot be a dump. Checks neither locations against a
    /// device nor hash bits against keys: the caller's checksum must hold.
    pub fn load_shard(&self, shard: usize, bytes: &[u8]) -> Result<usize, Damage> {
        let (head, body) = bytes.split_first_chunk::<COUNT_LEN>().ok_or(Damage::Short)?;
        let count = u32::from_le_bytes(*head) as usize;
        if body.len() != count * (WORD_LEN + REST_LEN) {
            return Err(Damage::Field("number of index words"));
        }
        let (words, rests) = body.split_at(count * WORD_LEN);
        let (words, _) = words.as_chunks::<WORD_LEN>();
        let (rests, _) = rests.as_chunks::<REST_LEN>();
        let words = words.iter().zip(rests).map(|(word, rest)| {
            let word = Word(u64::from_le_bytes(*word));
            let print = Print::of_word(word, u16::from_le_bytes(*rest));
            print.filter(|_| word.is_sound()).map(|print| (print, word))
        });
        if words.clone().any(|word| word.is_none()) {
            return Err(Damage::Field("index word"));
        }
        let mut locked = self.shards[shard].0.lock();
        for (n, (print, word)) in words.flatten().enumerate() {
            if n == 0 {
                locked.reserve(count, print);
            }
            locked.insert(print, word);
        }
        Ok(count)
    }
}
