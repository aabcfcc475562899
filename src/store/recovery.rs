//! Learning what is on a device after a start: superblocks and region headers at open,
//! footers (and the slots of unsealed regions) after it. Owns which version of a key wins;
//! reads no bodies and writes nothing but superblock repair.

use std::collections::{HashMap, VecDeque};

use futures_util::future::join_all;

use super::Store;
use super::contents::Contents;
use super::counters::{add, count};
use super::flusher::write_superblock;
use super::ranges::ZeroRangeOption;
use super::regions::{RegionState, RegionTable};
use super::word::{Location, SizeClass};
use crate::clock::{Clock, Stopwatch, Timestamp};
use crate::device::{Device, DeviceError};
use crate::format::{
    Damage, Footer, FooterRecord, Kind, Layout, REGION_HEADER_LEN, RegionHeader, RegionUse,
    SUPERBLOCK_LEN, Sequence, Superblock, round_up,
};

/// Regions whose headers or footers are read at the same time.
const PARALLEL: usize = 32;
/// Versions are gathered in this many parts by key hash, each settled on its own.
const PARTS: usize = 256;
/// Attempts to read what recovery needs before a region is left alone.
const READ_ATTEMPTS: usize = 3;
/// Entries put into the index under one hold of the append lock.
const MERGE_BATCH: usize = 512;

/// Why a device cannot be opened as a store.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Neither superblock copy is sound.
    #[error("no superblock found ({0}): format the device first with `rawcached format`")]
    NotFormatted(Damage),
    /// Both copies carry our magic number but are damaged.
    #[error(
        "both superblock copies are damaged ({0}): the device is not touched; `rawcached format --force` starts over"
    )]
    Damaged(Damage),
    /// The device ends before the store does.
    #[error(
        "the device has {actual} bytes but was formatted with {expected}: it is truncated or another device"
    )]
    Truncated {
        /// Bytes of the device.
        actual: u64,
        /// Bytes it was formatted with.
        expected: u64,
    },
    /// The device needs a larger alignment than it was formatted for.
    #[error(
        "the device needs {needed}-byte alignment but was formatted with {formatted}: format it again"
    )]
    Alignment {
        /// What the device needs now.
        needed: u32,
        /// What it was formatted with.
        formatted: u32,
    },
    /// A setting makes no sense.
    #[error(transparent)]
    Range(#[from] ZeroRangeOption),
    /// The device failed.
    #[error("the device failed")]
    Device(#[from] DeviceError),
}

/// What the superblock copies said.
pub struct Superblocks {
    /// The one that counts.
    pub best: Superblock,
    /// Per copy, why it cannot be used, if so.
    pub damage: [Option<Damage>; 2],
    /// Whether a copy is damaged or older than the other.
    pub needs_repair: bool,
}

/// Reads both superblock copies.
///
/// # Errors
/// Neither is sound, or the device is not the one that was formatted.
pub async fn read_superblocks(device: &Device) -> Result<Superblocks, OpenError> {
    let size = device.geometry().size;
    let first = read_superblock(device, 0, true).await?;
    let second_at = match &first {
        Ok(superblock) => superblock.layout.superblock_offsets()[1],
        Err(_) => Layout::second_superblock_offset(size),
    };
    let second = if second_at + SUPERBLOCK_LEN as u64 <= size {
        read_superblock(device, second_at, first.is_ok()).await?
    } else {
        Err(Damage::Short)
    };
    let best = match (first, second) {
        (Ok(a), Ok(b)) if a.uuid == b.uuid && b.epoch > a.epoch => b,
        (Ok(a), _) => a,
        (Err(_), Ok(b)) => b,
        (Err(Damage::Magic | Damage::Short), Err(Damage::Magic | Damage::Short)) => {
            return Err(OpenError::NotFormatted(Damage::Magic));
        }
        (Err(Damage::Magic), Err(damage)) | (Err(damage), Err(_)) => {
            return Err(OpenError::Damaged(damage));
        }
    };
    if size < best.layout.device_size {
        return Err(OpenError::Truncated { actual: size, expected: best.layout.device_size });
    }
    let needed = device.geometry().alignment;
    if needed > best.layout.alignment {
        return Err(OpenError::Alignment { needed, formatted: best.layout.alignment });
    }
    let needs_repair = first.as_ref() != Ok(&best) || second.as_ref() != Ok(&best);
    Ok(Superblocks { best, damage: [first.err(), second.err()], needs_repair })
}

async fn read_superblock(
    device: &Device,
    offset: u64,
    is_spare: bool,
) -> Result<Result<Superblock, Damage>, DeviceError> {
    let alignment = u64::from(device.geometry().alignment);
    let len = round_up(SUPERBLOCK_LEN as u64, alignment);
    if offset + len > device.geometry().size {
        return Ok(Err(Damage::Short));
    }
    match device.read_exact(offset..offset + SUPERBLOCK_LEN as u64).await {
        Ok(bytes) => Ok(Superblock::decode(&bytes)),
        // One copy in a bad sector is what the other copy is for.
        Err(error) if is_spare => {
            tracing::warn!(error = &error as &dyn std::error::Error, "superblock copy unreadable");
            Ok(Err(Damage::Short))
        }
        Err(error) => Err(error),
    }
}

/// Reads superblocks, repairs a bad copy, and says so.
pub(super) async fn open_superblock(
    device: &Device,
    clock: &Clock,
) -> Result<(Superblock, bool), OpenError> {
    let found = read_superblocks(device).await?;
    clock.anchor(found.best.stamp);
    if found.needs_repair {
        tracing::warn!(
            first = ?found.damage[0], second = ?found.damage[1],
            "a superblock copy is damaged or older than the other: repairing it"
        );
        if let Err(error) = write_superblock(device, &found.best).await {
            tracing::error!(error = &error as &dyn std::error::Error, "the repair failed");
        }
    }
    Ok((found.best, found.needs_repair))
}

/// Fills the region table from the region headers; gives the free regions.
pub(super) async fn read_region_headers(
    device: &Device,
    superblock: &Superblock,
    regions: &RegionTable,
    clock: &Clock,
) -> VecDeque<u32> {
    let mut free = VecDeque::new();
    let all: Vec<u32> = (0..superblock.layout.region_count).collect();
    for batch in all.chunks(PARALLEL) {
        let headers = batch.iter().map(|region| read_region_header(device, superblock, *region));
        for (region, header) in batch.iter().zip(join_all(headers).await) {
            match header {
                Ok(header) => {
                    clock.anchor(header.stamp);
                    let state = match header.region_use {
                        RegionUse::Log => RegionState::Unknown,
                        RegionUse::Free => RegionState::Free,
                    };
                    regions.begin_life(*region, header.generation, state);
                    if header.touched {
                        regions.on_device(*region).set_touched();
                    }
                    if state == RegionState::Free {
                        free.push_back(*region);
                    }
                }
                // Blank, damaged or unreadable: the footer will tell.
                Err(()) => {
                    regions.begin_life(*region, Sequence(0), RegionState::Unknown);
                }
            }
        }
    }
    free
}

async fn read_region_header(
    device: &Device,
    superblock: &Superblock,
    region: u32,
) -> Result<RegionHeader, ()> {
    let start = superblock.layout.region_offset(region);
    let range = start..start + REGION_HEADER_LEN as u64;
    for _ in 0..READ_ATTEMPTS {
        if let Ok(bytes) = device.read_exact(range.clone()).await {
            let header = RegionHeader::decode(&bytes, superblock.uuid, region);
            return header.map_err(|_| ());
        }
    }
    Err(())
}

/// One version of a key, or a kill record (`target` of `None`).
#[derive(Clone, Copy)]
pub(super) struct Version {
    pub key_hash: u64,
    pub sequence: Sequence,
    pub target: Option<Target>,
}

/// Location and slot length in granules in eight bytes, so that a version takes 24.
#[derive(Clone, Copy)]
pub(super) struct Target(std::num::NonZeroU64);

const _: () = assert!(size_of::<Version>() == 24);
const TARGET_LOCATION_BITS: u32 = 40;

impl Target {
    pub fn new(location: Location, slot_len: u64) -> Option<Target> {
        let granules = slot_len.div_ceil(crate::format::GRANULE);
        std::num::NonZeroU64::new(location.0 | granules << TARGET_LOCATION_BITS).map(Target)
    }

    pub fn location(self) -> Location {
        Location(self.0.get() & ((1 << TARGET_LOCATION_BITS) - 1))
    }

    fn class(self) -> SizeClass {
        SizeClass::of((self.0.get() >> TARGET_LOCATION_BITS) * crate::format::GRANULE)
    }
}

/// Leaves the newest version of each key, a kill record included.
pub(super) fn settle(versions: &mut Vec<Version>) {
    versions.sort_unstable_by_key(|version| {
        (version.key_hash, std::cmp::Reverse(version.sequence), version.target.is_none())
    });
    versions.dedup_by_key(|version| version.key_hash);
}

/// What recovery gathered, by key hash.
struct Gathered {
    parts: Vec<Vec<Version>>,
    unsealed: HashMap<u32, Footer>,
}

impl Store {
    /// Finds out what the device holds and makes it visible.
    pub(super) async fn run_recovery(self) {
        let watch = Stopwatch::start();
        // What a killed process wrote may still be lost with the power, and what it hid come back.
        if self.shared.device.flush().await.is_err() {
            count(&self.shared.counters.write_errors);
            self.shared.log.lock().distrust();
        }
        let gathered = self.gather().await;
        if self.shared.is_stopping() {
            // Cut short: what was not looked at is as it was, for the next start.
            return;
        }
        let mut recovered = 0;
        for mut part in gathered.parts {
            recovered += self.merge(&mut part).await;
        }
        self.finish_recovery(gathered.unsealed);
        let took_us = u64::try_from(watch.elapsed().as_micros()).unwrap_or(u64::MAX);
        add(&self.shared.counters.recovered, recovered);
        add(&self.shared.counters.recovery_us, took_us);
        tracing::info!(entries = recovered, millis = took_us / 1000, "recovery complete");
    }

    async fn gather(&self) -> Gathered {
        let mut gathered = Gathered { parts: vec![Vec::new(); PARTS], unsealed: HashMap::new() };
        let unknown: Vec<u32> = self
            .shared
            .regions
            .iter()
            .filter(|(_, row)| row.state() == RegionState::Unknown)
            .map(|(region, _)| region)
            .collect();
        for batch in unknown.chunks(PARALLEL) {
            if self.shared.is_stopping() {
                break;
            }
            let contents = batch.iter().map(|region| self.identify(*region));
            for (region, contents) in batch.iter().zip(join_all(contents).await) {
                match contents {
                    Ok(Some(contents)) => self.gather_region(*region, contents, &mut gathered),
                    Ok(None) => self.found_blank(*region),
                    Err(error) => {
                        self.shared.regions.on_device(*region).set_state(RegionState::Unreadable);
                        count(&self.shared.counters.read_errors);
                        tracing::error!(
                            region,
                            error = &error as &dyn std::error::Error,
                            "region unreadable"
                        );
                    }
                }
            }
            tokio::task::yield_now().await;
        }
        gathered
    }

    /// The contents of a region by its header, or by its footer when the header is no use.
    async fn identify(&self, region: u32) -> Result<Option<Contents>, DeviceError> {
        for _ in 1..READ_ATTEMPTS {
            if let Ok(contents) = self.try_identify(region).await {
                return Ok(contents);
            }
        }
        self.try_identify(region).await
    }

    async fn try_identify(&self, region: u32) -> Result<Option<Contents>, DeviceError> {
        let row = self.shared.regions.on_device(region);
        let footer = self.read_footer(region).await;
        match footer {
            Ok(Some((trailer, footer))) if trailer.generation >= row.generation() => {
                if trailer.generation > row.generation() {
                    self.shared.regions.begin_life(
                        region,
                        trailer.generation,
                        RegionState::Unknown,
                    );
                }
                Ok(Some(Contents { footer, sealed: true, stamp: trailer.stamp }))
            }
            Err(error) if row.generation() == Sequence(0) => Err(error),
            _ if row.generation() == Sequence(0) => {
                // Only a header that was read and makes no sense may be taken for a blank one.
                let start = self.shared.layout.region_offset(region);
                self.shared.device.read_exact(start..start + REGION_HEADER_LEN as u64).await?;
                Ok(None)
            }
            _ => self.read_contents(region, row.generation()).await.map(Some),
        }
    }

    fn found_blank(&self, region: u32) {
        self.shared.regions.on_device(region).set_state(RegionState::Free);
        self.shared.log.lock().add_free(region);
        self.shared.changes.send_modify(|changes| *changes += 1);
    }

    fn gather_region(&self, region: u32, contents: Contents, gathered: &mut Gathered) {
        let shared = &*self.shared;
        shared.clock.anchor(contents.stamp);
        let row = shared.regions.on_device(region);
        row.raise_keep_until(if row.is_touched() {
            Timestamp::MAX
        } else {
            contents.footer.keep_until_max()
        });
        row.add_kills(contents.footer.all_kills().count());
        for record in &contents.footer.records {
            gathered.push(self.version(region, record, row.is_touched()));
        }
        for kill in &contents.footer.kills {
            let (key_hash, sequence) = (kill.key_hash, kill.sequence);
            gathered.push(Version { key_hash, sequence, target: None });
        }
        if contents.sealed {
            row.set_state(RegionState::Sealed);
        } else {
            row.set_state(RegionState::Open);
            gathered.unsealed.insert(region, contents.footer);
        }
    }

    /// An expired entry still hides older versions of its key.
    fn version(&self, region: u32, record: &FooterRecord, touched: bool) -> Version {
        let expired = record.keep_until <= self.shared.clock.now() && !touched;
        let indexed = !expired && record.kind != Kind::Kills;
        let location = Location::new(region, record.offset, self.shared.layout.region_size);
        Version {
            key_hash: record.key_hash,
            sequence: record.sequence,
            target: indexed.then(|| Target::new(location, record.slot_len)).flatten(),
        }
    }

    /// Puts the newest version of each key of one part into the index, unless the key was
    /// changed or purged since the device was opened.
    async fn merge(&self, part: &mut Vec<Version>) -> u64 {
        settle(part);
        let mut merged = 0;
        for batch in part.chunks(MERGE_BATCH) {
            merged += self.merge_batch(batch);
            tokio::task::yield_now().await;
        }
        *part = Vec::new();
        merged
    }

    fn merge_batch(&self, batch: &[Version]) -> u64 {
        let log = self.shared.log.lock();
        let floor = self.shared.purge_floor();
        let mut merged = 0;
        for version in batch {
            let Some(target) = version.target else { continue };
            if version.sequence < floor || log.is_changed(version.key_hash) {
                continue;
            }
            let (region, _) = target.location().split(self.shared.layout.region_size);
            let class = target.class();
            self.shared.regions.on_device(region).add_live(class.len_max());
            self.shared.index.lock(version.key_hash).insert(target.location(), class);
            merged += 1;
        }
        merged
    }

    fn finish_recovery(&self, unsealed: HashMap<u32, Footer>) {
        let mut log = self.shared.log.lock();
        if self.shared.regions.count(RegionState::Unreadable) > 0 {
            log.distrust();
        }
        log.recovered(unsealed, self.shared.clock.now());
        drop(log);
        self.shared.set_recovered();
        self.shared.wake_flusher.notify_one();
        self.shared.wake_reclaimer.notify_one();
        self.shared.changes.send_modify(|changes| *changes += 1);
    }
}

impl Gathered {
    fn push(&mut self, version: Version) {
        let part = usize::try_from(version.key_hash % PARTS as u64).unwrap_or(0);
        self.parts[part].push(version);
    }
}
