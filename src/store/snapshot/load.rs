//! Starts from a snapshot. Owns the check that it is whole, of this epoch and of these regions; writes
//! nothing, and leaves an empty index if the check fails.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::future::try_join_all;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::device::ExactBytes;
use crate::format::{
    PURGE_RECORD_LEN, PurgeRecord, SNAPSHOT_DIRECTORY_LEN, SNAPSHOT_GROUPS, SNAPSHOT_ROW_LEN, Seed,
    Sequence, SnapshotDirectory, SnapshotPart, SnapshotPiece, SnapshotRow,
};
use crate::store::counters::count;
use crate::store::purges::Floors;
use crate::store::purges::table::RECORDS_MAX;
use crate::store::recovery::parallel::on_thread;
use crate::store::region::state::RegionState;
use crate::store::shared::Store;
use crate::store::snapshot::write::first_piece_offset;
use crate::store::snapshot::{Doubt, dump};

/// Groups of shards read at the same time.
const PARALLEL: usize = 8;
/// Memory for groups being read and loaded, in KiB; a larger group takes all of it.
const SHARDS_KIB_MAX: u32 = 32 << 10;
/// A snapshot of at most this many bytes is loaded without extra threads: they would cost more.
const INLINE_BYTES_MAX: u64 = 1 << 20;

/// A piece, with the region and the seed of the generation it is in.
type Placed = (u32, Seed, SnapshotPiece);
/// Bytes that were read for a piece.
type Read = (Seed, SnapshotPiece, ExactBytes);

/// A snapshot whose directories are complete.
struct Snapshot {
    directory: SnapshotDirectory,
    pieces: BTreeMap<SnapshotPart, Vec<Placed>>,
}

/// What loaded shards are checked against, shared by all threads.
struct Loading {
    store: Store,
    rows: Vec<SnapshotRow>,
    /// Bytes alive by region, summed over the entries loaded so far.
    live: Mutex<Vec<u64>>,
}

impl Store {
    /// Fills the index from a complete snapshot of this epoch in `regions`, if there is one; gives the
    /// number of entries.
    pub(in crate::store) async fn load_snapshot(
        &self,
        regions: &[u32],
        threads: usize,
    ) -> Option<u64> {
        match self.try_load_snapshot(regions, threads).await {
            Ok(loaded) => {
                if loaded.is_some() {
                    count(&self.shared.counters.snapshots_loaded);
                }
                loaded
            }
            Err(doubt) => {
                for shard in 0..self.shared.catalog.index.shard_count() {
                    self.shared.catalog.index.sweep_shard(shard, |_| true);
                }
                if !matches!(doubt, Doubt::Stopped) {
                    count(&self.shared.counters.snapshots_refused);
                    let error = &doubt as &dyn std::error::Error;
                    tracing::warn!(error, "the index snapshot is not used: reading footers");
                }
                None
            }
        }
    }

    async fn try_load_snapshot(
        &self,
        regions: &[u32],
        threads: usize,
    ) -> Result<Option<u64>, Doubt> {
        let Some(snapshot) = self.find_snapshot(regions).await? else { return Ok(None) };
        let rows = self.load_rows(&snapshot).await?;
        let purges = self.load_purge_records(&snapshot).await?;
        let live = Mutex::new(vec![0; rows.len()]);
        let loading = Arc::new(Loading { store: self.clone(), rows, live });
        let index_entries = self.load_shards(&snapshot, &loading, threads).await?;
        let live = std::mem::take(&mut *loading.live.lock());
        if loading.rows.iter().map(|row| row.live_bytes).ne(live) {
            return Err(Doubt::Wrong("index and region table differ"));
        }
        self.shared.clock.anchor(snapshot.directory.stamp);
        for ((region, row), saved) in self.shared.catalog.regions.iter().zip(&loading.rows) {
            if saved.sealed {
                row.raise_keep_until(saved.keep_until);
                row.add_tombstones(usize::try_from(saved.tombstones).unwrap_or(usize::MAX));
                row.add_live(saved.live_bytes);
                row.set_state(RegionState::Sealed);
            } else if row.state() == RegionState::Unknown {
                self.found_blank(region);
            }
        }
        self.load_purges(purges, (Floors::default(), 0)).await;
        Ok(Some(index_entries))
    }

    /// Finds the snapshot of the device's epoch; `None` if no region has a part of one.
    async fn find_snapshot(&self, regions: &[u32]) -> Result<Option<Snapshot>, Doubt> {
        let (superblock, _) = self.shared.log.lock().superblock();
        let mut parts = BTreeMap::new();
        for batch in regions.chunks(PARALLEL) {
            let directories = batch.iter().map(|region| self.read_directory(*region));
            for (region, directory) in batch.iter().zip(try_join_all(directories).await?) {
                // Earlier snapshots stay in their regions until those are reused.
                let Some(directory) = directory.filter(|found| found.epoch == superblock.epoch)
                else {
                    continue;
                };
                if parts.insert(directory.part, (*region, directory)).is_some() {
                    return Err(Doubt::Wrong("a part is there twice"));
                }
            }
        }
        let Some((_, first)) = parts.values().next().cloned() else { return Ok(None) };
        if first.purge_floor != superblock.purge_floor {
            return Err(Doubt::Wrong("it was written before a purge"));
        }
        let numbers = parts.keys().copied();
        let like_first = |found: &SnapshotDirectory| {
            (found.name, found.part_count, found.purge_floor)
                == (first.name, first.part_count, first.purge_floor)
        };
        if numbers.ne(0..first.part_count) || !parts.values().all(|(_, found)| like_first(found)) {
            return Err(Doubt::Wrong("it is not whole"));
        }
        let mut pieces: BTreeMap<_, Vec<Placed>> = BTreeMap::new();
        for (region, directory) in parts.into_values() {
            let seed = self
                .shared
                .catalog
                .regions
                .seed_of(self.shared.catalog.regions.generation_of(region));
            for piece in directory.pieces {
                pieces.entry(piece.of).or_default().push((region, seed, piece));
            }
        }
        Ok(Some(Snapshot { directory: first, pieces }))
    }

    async fn read_directory(&self, region: u32) -> Result<Option<SnapshotDirectory>, Doubt> {
        let layout = &self.shared.layout;
        let start = layout.region_offset(region) + u64::from(layout.alignment);
        let range = start..start + SNAPSHOT_DIRECTORY_LEN as u64;
        let bytes = self.shared.device.read_exact(range).await?;
        let seed =
            self.shared.catalog.regions.seed_of(self.shared.catalog.regions.generation_of(region));
        Ok(SnapshotDirectory::decode(&bytes, seed).ok())
    }

    /// The rows of all regions, if they agree with the headers on the device.
    async fn load_rows(&self, snapshot: &Snapshot) -> Result<Vec<SnapshotRow>, Doubt> {
        let pieces = snapshot.pieces.get(&SnapshotPart::Regions);
        let pieces = pieces.ok_or(Doubt::Wrong("the region table is missing"))?;
        let count = self.shared.layout.region_count;
        if length(pieces) != u64::from(count) * SNAPSHOT_ROW_LEN as u64 {
            return Err(Doubt::Wrong("the region table has the wrong length"));
        }
        let damaged = |damage| Doubt::Damaged("region table", damage);
        let bytes = joined(&self.read_pieces(pieces).await?).map_err(damaged)?;
        let rows = SnapshotRow::decode_all(&bytes, count).map_err(damaged)?;
        for ((_, row), saved) in self.shared.catalog.regions.iter().zip(&rows) {
            let same_generation = row.generation() == saved.generation;
            let is_as_saved = match row.state() {
                RegionState::Free => !saved.sealed,
                RegionState::Unknown if saved.sealed => {
                    same_generation && row.is_touched() == saved.touched
                }
                // Never used: has no header.
                RegionState::Unknown => same_generation && saved.generation == Sequence(0),
                _ => false,
            };
            if !is_as_saved {
                return Err(Doubt::Wrong("a region is not what it was"));
            }
        }
        Ok(rows)
    }

    /// The purge records; an older snapshot has none.
    async fn load_purge_records(&self, snapshot: &Snapshot) -> Result<Vec<PurgeRecord>, Doubt> {
        let Some(pieces) = snapshot.pieces.get(&SnapshotPart::PurgeRecords) else {
            return Ok(Vec::new());
        };
        let (len, of_each) = (length(pieces), PURGE_RECORD_LEN as u64);
        if len > 2 * RECORDS_MAX as u64 * of_each || !len.is_multiple_of(of_each) {
            return Err(Doubt::Wrong("the purge records have the wrong length"));
        }
        let damaged = |damage| Doubt::Damaged("table of purge records", damage);
        let bytes = joined(&self.read_pieces(pieces).await?).map_err(damaged)?;
        PurgeRecord::decode_all(&bytes).collect::<Result<_, _>>().map_err(damaged)
    }

    async fn load_shards(
        &self,
        snapshot: &Snapshot,
        loading: &Arc<Loading>,
        threads: usize,
    ) -> Result<u64, Doubt> {
        let groups = snapshot.pieces.keys().filter_map(|of| match of {
            SnapshotPart::Shards(group) => Some(*group),
            SnapshotPart::Regions | SnapshotPart::PurgeRecords => None,
        });
        if groups.ne(0..SNAPSHOT_GROUPS) {
            return Err(Doubt::Wrong("a part of the index is missing"));
        }
        let is_of_shards = |of: &SnapshotPart| matches!(of, SnapshotPart::Shards(_));
        let of_shards = snapshot.pieces.iter().filter(|(of, _)| is_of_shards(of));
        let entries =
            of_shards.map(|(_, pieces)| length(pieces)).sum::<u64>() / dump::ENTRY_LEN as u64;
        if entries > self.shared.catalog.limit.entries_loaded_max() {
            return Err(Doubt::Wrong("its index is larger than the index's part of memory"));
        }
        if snapshot.directory.shard_count as usize != self.shared.catalog.index.shard_count() {
            return Err(Doubt::Wrong("its index is divided in another way"));
        }
        let total: u64 = snapshot.pieces.values().map(|pieces| length(pieces)).sum();
        let limits = (
            Semaphore::new(SHARDS_KIB_MAX as usize),
            (total > INLINE_BYTES_MAX).then(|| Semaphore::new(threads)),
        );
        let progress = &self.shared.recovery.progress;
        progress.parts_total.store(u64::from(SNAPSHOT_GROUPS), Ordering::Relaxed);
        let mut waiting = 0..SNAPSHOT_GROUPS;
        let mut running = FuturesUnordered::new();
        let mut index_entries = 0;
        loop {
            while running.len() < PARALLEL
                && let Some(group) = waiting.next()
            {
                let pieces = &snapshot.pieces[&SnapshotPart::Shards(group)];
                running.push(self.load_group(group, pieces, loading, &limits));
            }
            let Some(loaded) = running.next().await else { return Ok(index_entries) };
            index_entries += loaded?;
            progress.parts_done.fetch_add(1, Ordering::Relaxed);
            progress.found.store(index_entries, Ordering::Relaxed);
            if self.shared.is_stopping() {
                return Err(Doubt::Stopped);
            }
        }
    }

    async fn load_group(
        &self,
        group: u32,
        pieces: &[Placed],
        loading: &Arc<Loading>,
        (memory, threads): &(Semaphore, Option<Semaphore>),
    ) -> Result<u64, Doubt> {
        // Twice its length: the dump and the pieces it is joined from.
        let kib = u32::try_from(length(pieces) >> 9).unwrap_or(u32::MAX).min(SHARDS_KIB_MAX);
        let _memory = memory.acquire_many(kib).await;
        let read = self.read_pieces(pieces).await?;
        match threads {
            None => loading.load(group, &read),
            Some(threads) => {
                let loading = Arc::clone(loading);
                let work = move || loading.load(group, &read);
                on_thread(threads, work).await.unwrap_or(Err(Doubt::Stopped))
            }
        }
    }

    async fn read_pieces(&self, pieces: &[Placed]) -> Result<Vec<Read>, Doubt> {
        let layout = &self.shared.layout;
        let first = first_piece_offset(layout.alignment);
        try_join_all(pieces.iter().map(async |(region, seed, piece)| {
            let end = piece.offset + u64::from(piece.len);
            if piece.offset < first || end > layout.region_size {
                return Err(Doubt::Wrong("a piece lies outside of its region"));
            }
            let start = layout.region_offset(*region);
            let bytes = self.shared.device.read_exact(start + piece.offset..start + end).await?;
            Ok((*seed, *piece, bytes))
        }))
        .await
    }
}

impl Loading {
    /// Puts the entries of one group of shards into the index, if all of them are sound.
    fn load(&self, group: u32, read: &[Read]) -> Result<u64, Doubt> {
        let damaged = |damage| Doubt::Damaged("index", damage);
        let joined;
        let mut dumps: &[u8] = match read {
            [(seed, piece, bytes)] => {
                piece.check(*seed, bytes).map_err(damaged)?;
                bytes
            }
            _ => {
                joined = self::joined(read).map_err(damaged)?;
                &joined
            }
        };
        let mut live = vec![0; self.rows.len()];
        let index = &self.store.shared.catalog.index;
        let in_group = index.shard_count() / SNAPSHOT_GROUPS as usize;
        let mut index_entries = 0;
        for shard in group as usize * in_group..(group as usize + 1) * in_group {
            let dumped;
            (dumped, dumps) = dump::split(dumps).ok_or(Doubt::Wrong("a shard is cut off"))?;
            self.count_live(dumped, &mut live)?;
            index_entries += index.load_shard(shard, dumped).map_err(damaged)? as u64;
        }
        if !dumps.is_empty() {
            return Err(Doubt::Wrong("there are index entries beyond the last shard"));
        }
        for (sum, live) in self.live.lock().iter_mut().zip(live) {
            *sum += live;
        }
        Ok(index_entries)
    }

    /// Adds up the live bytes of a shard's entries; fails unless all are in sealed regions.
    fn count_live(&self, dumped: &[u8], live: &mut [u64]) -> Result<(), Doubt> {
        let layout = &self.store.shared.layout;
        for index_entry in dump::index_entries(dumped) {
            let (region, _) = index_entry.location().split(layout);
            match self.rows.get(region as usize) {
                Some(row) if row.sealed => live[region as usize] += index_entry.class().len_max(),
                _ => return Err(Doubt::Wrong("an index entry points to nothing")),
            }
        }
        Ok(())
    }
}

fn length(pieces: &[Placed]) -> u64 {
    pieces.iter().map(|(_, _, piece)| u64::from(piece.len)).sum()
}

/// The bytes of pieces one after another, each verified.
fn joined(read: &[Read]) -> Result<Vec<u8>, crate::format::Damage> {
    let mut joined = Vec::with_capacity(read.iter().map(|(_, _, bytes)| bytes.len()).sum());
    for (seed, piece, bytes) in read {
        piece.check(*seed, bytes)?;
        joined.extend_from_slice(bytes);
    }
    Ok(joined)
}
