//! The entries of a shard as bytes, for snapshots: their number (u32), the entries (u64 each), then for
//! each the hash bits that the entry does not hold (u16), all little-endian. Owns the encoding; neither
//! checksums nor writes it.

use std::sync::atomic::Ordering;

use crate::format::Damage;
use crate::store::index::Index;
use crate::store::index::bucket::Print;
use crate::store::index::index_entry::IndexEntry;

const COUNT_LEN: usize = 4;
const INDEX_ENTRY_LEN: usize = 8;
const REST_LEN: usize = 2;

impl Index {
    /// Appends the entries of one shard to `out`, without a checksum. The bytes do not depend on the
    /// capacity of the shard.
    ///
    /// # Panics
    /// Panics if a shard has 2^32 entries.
    pub fn dump_shard(&self, shard: usize, out: &mut Vec<u8>) {
        let locked = self.shards[shard].0.lock();
        let count = u32::try_from(locked.len()).expect("a shard has less than 2^32 entries");
        out.reserve(COUNT_LEN + locked.len() * (INDEX_ENTRY_LEN + REST_LEN));
        out.extend_from_slice(&count.to_le_bytes());
        for (_, entry) in locked.iter() {
            out.extend_from_slice(&entry.0.to_le_bytes());
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
        if body.len() != count * (INDEX_ENTRY_LEN + REST_LEN) {
            return Err(Damage::Field("number of index entries"));
        }
        let (entries, rests) = body.split_at(count * INDEX_ENTRY_LEN);
        let (entries, _) = entries.as_chunks::<INDEX_ENTRY_LEN>();
        let (rests, _) = rests.as_chunks::<REST_LEN>();
        let entries = entries.iter().zip(rests).map(|(entry, rest)| {
            let entry = IndexEntry(u64::from_le_bytes(*entry));
            let print = Print::of_entry(entry, u16::from_le_bytes(*rest));
            print.filter(|_| entry.is_sound()).map(|print| (print, entry))
        });
        if entries.clone().any(|entry| entry.is_none()) {
            return Err(Damage::Field("index entry"));
        }
        let mut locked = self.shards[shard].0.lock();
        for (n, (print, entry)) in entries.flatten().enumerate() {
            if n == 0 {
                locked.reserve(count, print);
            }
            locked.insert(print, entry);
        }
        self.len.fetch_add(count, Ordering::Relaxed);
        Ok(count)
    }
}
