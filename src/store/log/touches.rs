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
    /// It has another lifetime by now; look again.
    Changed,
}

/// A lifetime that takes the place of another one.
#[derive(Clone, Copy, Debug)]
pub struct Replaced {
    pub old: Lifetime,
    pub new: Lifetime,
}

/// What became of a lifetime in an encoded header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rewritten {
    Yes,
    /// It is not the one that was to be replaced: somebody else did.
    Changed,
    /// The header is not sound.
    Damaged,
}

/// Replaces the lifetime in an encoded header in place.
pub fn rewrite_lifetime(
    header: &mut [u8],
    seed: Seed,
    offset: u64,
    Replaced { old, new }: Replaced,
) -> Rewritten {
    let Ok(mut decoded) = EntryHeader::decode(header, seed, offset) else {
        return Rewritten::Damaged;
    };
    let EntryHeader { stored_at, age_secs, fresh_until, keep_until, .. } = decoded;
    if old != (Lifetime { stored_at, age_secs, fresh_until, keep_until }) {
        return Rewritten::Changed;
    }
    decoded.stored_at = new.stored_at;
    decoded.age_secs = new.age_secs;
    decoded.fresh_until = new.fresh_until;
    decoded.keep_until = new.keep_until;
    header[..ENTRY_HEADER_LEN].copy_from_slice(&decoded.encode(seed, offset));
    Rewritten::Yes
}

pub fn set_keep_until(footer: &mut Footer, offset: u64, keep_until: Timestamp) {
    if let Ok(n) = footer.records.binary_search_by_key(&offset, |record| record.offset) {
        footer.records[n].keep_until = keep_until;
    }
}

fn raise_keep_until(footer: &mut Footer, offset: u64, keep_until: Timestamp) {
    if let Ok(n) = footer.records.binary_search_by_key(&offset, |record| record.offset) {
        let end = &mut footer.records[n].keep_until;
        *end = keep_until.max(*end);
    }
}

impl Log {
    /// Gives the entry at `offset` of `region` a new lifetime, as far as slot and footer are in memory.
    pub fn touch(&mut self, region: u32, offset: u64, lifetime: Replaced) -> TouchPlace {
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
            Found::Written => {
                // Whether the header on the device changes is not known yet: the footer says the latest end.
                raise_keep_until(&mut open.footer, offset, lifetime.new.keep_until);
                return TouchPlace::Device { mark_region: false };
            }
            Found::Memory(header) => {
                if rewrite_lifetime(header, open.seed, offset, lifetime) == Rewritten::Changed {
                    return TouchPlace::Changed;
                }
                TouchPlace::Memory
            }
        };
        set_keep_until(&mut open.footer, offset, lifetime.new.keep_until);
        place
    }
}
