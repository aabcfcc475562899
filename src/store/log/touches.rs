//! Changes lifetimes in slots that are still in memory. Owns that slot and footer agree.

use crate::clock::Timestamp;
use crate::format::{ENTRY_HEADER_LEN, EntryHeader, Footer, Seed};
use crate::store::log::chunks::Found;
use crate::store::log::core::Log;
use crate::store::mutation::request::Lifetime;

/// Where a touch found its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TouchPlace {
    /// Only in memory; it was changed there.
    Memory,
    /// On the device; the caller must change it there.
    Device {
        /// No footer with the new end will be written: the header of the region must tell of the touch.
        mark_region: bool,
    },
    /// On its way to the device; wait.
    InFlight,
    /// In memory, but being copied; look again.
    InUse,
}

/// Replaces the lifetime in an encoded header in place; false if the header is not sound.
pub fn rewrite_lifetime(header: &mut [u8], seed: Seed, offset: u64, lifetime: Lifetime) -> bool {
    let Ok(mut decoded) = EntryHeader::decode(header, seed, offset) else { return false };
    decoded.stored_at = lifetime.stored_at;
    decoded.age_secs = lifetime.age_secs;
    decoded.fresh_until = lifetime.fresh_until;
    decoded.keep_until = lifetime.keep_until;
    header[..ENTRY_HEADER_LEN].copy_from_slice(&decoded.encode(seed, offset));
    true
}

pub fn set_keep_until(footer: &mut Footer, offset: u64, keep_until: Timestamp) {
    if let Ok(n) = footer.records.binary_search_by_key(&offset, |record| record.offset) {
        footer.records[n].keep_until = keep_until;
    }
}

impl Log {
    /// Gives the entry at `offset` of `region` a new lifetime, as far as slot and footer are in memory.
    pub fn touch(&mut self, region: u32, offset: u64, lifetime: Lifetime) -> TouchPlace {
        let header = offset..offset + ENTRY_HEADER_LEN as u64;
        if self.chunks.is_frozen(region, offset) {
            return TouchPlace::InFlight;
        }
        let Some(open) = self.open.as_mut().filter(|open| open.region == region) else {
            let mark_region = !self.regions.on_device(region).is_touched();
            return TouchPlace::Device { mark_region };
        };
        let place = match self.chunks.find(header) {
            Found::InUse => return TouchPlace::InUse,
            Found::Written => TouchPlace::Device { mark_region: false },
            Found::Memory(header) => {
                rewrite_lifetime(header, open.seed, offset, lifetime);
                TouchPlace::Memory
            }
        };
        set_keep_until(&mut open.footer, offset, lifetime.keep_until);
        place
    }
}
