//! Writes a snapshot after the last change. Owns the order that makes half a snapshot worthless: all
//! pieces are durable before the directories and headers that name them.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::device::{AlignedBuf, DeviceError, WriteSlice};
use crate::format::{
    GRANULE, LogKind, PURGE_RECORD_LEN, RegionHeader, RegionUse, SNAPSHOT_GROUPS,
    SNAPSHOT_PIECE_LEN_MAX, SNAPSHOT_PIECES_MAX, SNAPSHOT_ROW_LEN, Seed, Sequence,
    SnapshotDirectory, SnapshotPart, SnapshotPiece, SnapshotRow, round_up,
};
use crate::store::counters::count;
use crate::store::log::appender::Appender;
use crate::store::region::row::Region;
use crate::store::region::state::RegionState;
use crate::store::shared::Store;
use crate::store::snapshot::dump;

/// Bytes written at a time.
const BUFFER_LEN: usize = 1 << 20;

/// One region of the snapshot being written.
struct Part {
    region: u32,
    generation: Sequence,
    seed: Seed,
    pieces: Vec<SnapshotPiece>,
}

/// Lays out pieces one after another in free regions.
struct Writer<'a> {
    store: &'a Store,
    free: VecDeque<u32>,
    parts: Vec<Part>,
    buffer: AlignedBuf,
    /// Region offsets of the buffer and of the next piece.
    start: u64,
    at: u64,
}

impl Store {
    /// Writes a snapshot of the index if there is room and nothing is in doubt. The store takes no more
    /// changes, and all earlier ones are durable. A start needs no snapshot to be right.
    pub(in crate::store) async fn save_snapshot(&self) {
        let (free, needed) = match self.may_save() {
            Ok(room) => room,
            Err(why) => return self.skip_snapshot(why),
        };
        if needed > free.len() {
            return self.skip_snapshot("there are not enough free regions");
        }
        match self.write_snapshot(free).await {
            Ok(regions) => {
                count(&self.shared.counters.snapshots_written);
                tracing::info!(regions, "index snapshot written");
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "the index snapshot could not be written");
                self.skip_snapshot("the device failed");
            }
        }
    }

    fn skip_snapshot(&self, why: &str) {
        count(&self.shared.counters.snapshots_skipped);
        tracing::info!(why, "no index snapshot: the next start reads footers");
    }

    /// The free regions, and the number needed for a snapshot.
    fn may_save(&self) -> Result<(VecDeque<u32>, usize), &'static str> {
        let shared = &*self.shared;
        let log = shared.log.lock();
        if log.check_epoch(Appender::Reclaim).is_err() {
            return Err("the device does not take the next epoch");
        }
        if !shared.dead.unverified.is_empty() {
            // The index may have entries that a change killed unseen.
            return Err("keys that collide were changed");
        }
        if !log.is_indexed() || log.owes_purges() {
            // The index lacks entries that recovery would find: only footers have all.
            return Err("the device failed or entries were damaged since the start");
        }
        let settled = |row: &Region| {
            matches!(row.state(), RegionState::Free | RegionState::Sealed) && !row.in_memory()
        };
        if !shared.catalog.regions.iter().all(|(_, row)| settled(row)) {
            return Err("a region is not complete on the device");
        }
        let layout = &shared.layout;
        let shards = shared.catalog.index.shard_count() as u64;
        let groups = u64::from(SNAPSHOT_GROUPS);
        let bytes = shards * dump::COUNT_LEN as u64
            + groups * GRANULE
            + (shared.catalog.index.len() * dump::ENTRY_LEN) as u64
            + u64::from(layout.region_count) * SNAPSHOT_ROW_LEN as u64
            + GRANULE
            + shared.purges.counts().iter().sum::<usize>() as u64 * PURGE_RECORD_LEN as u64;
        let usable = layout.region_size - first_piece_offset(layout.alignment);
        // Each region but the last is full, of bytes or of pieces.
        let full = bytes / usable;
        let pieces = groups + 1 + bytes / u64::from(SNAPSHOT_PIECE_LEN_MAX) + full + 1;
        let needed = full + pieces / SNAPSHOT_PIECES_MAX as u64 + 1;
        Ok((log.free_regions().collect(), usize::try_from(needed).unwrap_or(usize::MAX)))
    }

    async fn write_snapshot(&self, free: VecDeque<u32>) -> Result<usize, DeviceError> {
        let mut writer = Writer {
            store: self,
            free,
            parts: Vec::new(),
            buffer: self.shared.device.geometry().zeroed_buffer(BUFFER_LEN),
            start: 0,
            at: self.shared.layout.region_size,
        };
        let mut bytes = Vec::new();
        let in_group = self.shared.catalog.index.shard_count() / SNAPSHOT_GROUPS as usize;
        for group in 0..SNAPSHOT_GROUPS {
            bytes.clear();
            for shard in group as usize * in_group..(group as usize + 1) * in_group {
                // Entries in RAM end with the process.
                self.shared.catalog.sweep_in_ram(shard);
                self.shared.catalog.index.dump_shard(shard, &mut bytes);
            }
            writer.put(SnapshotPart::Shards(group), &bytes).await?;
        }
        bytes.clear();
        for (_, row) in self.shared.catalog.regions.iter() {
            row_of(row).encode_into(&mut bytes);
        }
        writer.put(SnapshotPart::Regions, &bytes).await?;
        bytes.clear();
        for record in self.shared.purges.records() {
            record.encode_into(&mut bytes);
        }
        writer.put(SnapshotPart::PurgeRecords, &bytes).await?;
        writer.finish().await
    }
}

fn row_of(row: &Region) -> SnapshotRow {
    SnapshotRow {
        generation: row.generation(),
        sealed: row.state() == RegionState::Sealed,
        touched: row.is_touched(),
        log: row.log(),
        keep_until: row.keep_until(),
        tombstones: row.tombstones(),
        live_bytes: row.live(),
    }
}

/// Region offset of the first piece.
pub(crate) fn first_piece_offset(alignment: u32) -> u64 {
    u64::from(alignment) + SnapshotDirectory::space(alignment)
}

impl Writer<'_> {
    async fn put(&mut self, of: SnapshotPart, mut bytes: &[u8]) -> Result<(), DeviceError> {
        let region_size = self.store.shared.layout.region_size;
        while !bytes.is_empty() {
            let is_full =
                self.parts.last().is_none_or(|part| part.pieces.len() == SNAPSHOT_PIECES_MAX);
            if self.at >= region_size || is_full {
                self.write_buffer().await?;
                self.begin_part();
            }
            let Some(part) = self.parts.last_mut() else { continue };
            let room = usize::try_from(region_size - self.at).unwrap_or(usize::MAX);
            let len = bytes.len().min(room).min(SNAPSHOT_PIECE_LEN_MAX as usize);
            let (now, later) = bytes.split_at(len);
            part.pieces.push(SnapshotPiece::new(of, part.seed, self.at, now));
            self.append(now).await?;
            while !self.at.is_multiple_of(GRANULE) {
                self.append(&[0]).await?;
            }
            bytes = later;
        }
        Ok(())
    }

    #[expect(clippy::expect_used, reason = "the space was reckoned before the first write")]
    fn begin_part(&mut self) {
        let region = self.free.pop_front().expect("enough free regions were counted");
        let generation = self.store.shared.log.lock().draw();
        let regions = &self.store.shared.catalog.regions;
        let seed = regions.seed_of(regions.generation_at(region, generation));
        self.parts.push(Part { region, generation, seed, pieces: Vec::new() });
        self.start = first_piece_offset(self.store.shared.layout.alignment);
        self.at = self.start;
    }

    async fn append(&mut self, mut bytes: &[u8]) -> Result<(), DeviceError> {
        while !bytes.is_empty() {
            let used = usize::try_from(self.at - self.start).unwrap_or(usize::MAX);
            if used == self.buffer.len() {
                self.write_buffer().await?;
                continue;
            }
            let len = bytes.len().min(self.buffer.len() - used);
            self.buffer[used..used + len].copy_from_slice(&bytes[..len]);
            self.at += len as u64;
            bytes = &bytes[len..];
        }
        Ok(())
    }

    /// Writes the buffer, padded to whole blocks.
    async fn write_buffer(&mut self) -> Result<(), DeviceError> {
        let Some(part) = self.parts.last().filter(|_| self.at > self.start) else { return Ok(()) };
        let shared = &*self.store.shared;
        let used = round_up(self.at - self.start, u64::from(shared.layout.alignment));
        let fresh = shared.device.geometry().zeroed_buffer(BUFFER_LEN);
        let full = std::mem::replace(&mut self.buffer, fresh);
        let range = 0..usize::try_from(used).unwrap_or(usize::MAX);
        let offset = shared.layout.region_offset(part.region) + self.start;
        let slice = WriteSlice { buf: Arc::new(full), range };
        self.start = self.at;
        shared.device.write(offset, vec![slice]).await
    }

    /// Writes the directories and headers once the pieces are durable; gives the number of regions.
    async fn finish(mut self) -> Result<usize, DeviceError> {
        self.write_buffer().await?;
        let shared = &*self.store.shared;
        shared.device.flush().await?;
        let (superblock, _) = shared.log.lock().superblock();
        let stamp = shared.clock.now();
        let part_count = u32::try_from(self.parts.len()).unwrap_or(u32::MAX);
        let shard_count = u32::try_from(shared.catalog.index.shard_count()).unwrap_or(u32::MAX);
        let name = self.parts.first().map(|part| part.generation).unwrap_or_default();
        for (number, part) in (0..).zip(self.parts) {
            let alignment = shared.layout.alignment;
            let len = usize::try_from(first_piece_offset(alignment)).unwrap_or(usize::MAX);
            let mut block = shared.device.geometry().zeroed_buffer(len);
            let generation = part.generation;
            let region_use = RegionUse::Snapshot;
            let log = LogKind::Data;
            let header = RegionHeader { generation, region_use, stamp, touched: false, log };
            let encoded = header.encode(shared.uuid, part.region);
            block[..encoded.len()].copy_from_slice(&encoded);
            let directory = SnapshotDirectory {
                name,
                epoch: superblock.epoch,
                part: number,
                part_count,
                purge_floor: superblock.purge_floor,
                stamp,
                shard_count,
                pieces: part.pieces,
            };
            let encoded = directory.encode(part.seed);
            let at = alignment as usize;
            block[at..at + encoded.len()].copy_from_slice(&encoded);
            let offset = shared.layout.region_offset(part.region);
            shared.device.write(offset, vec![WriteSlice::whole(Arc::new(block))]).await?;
        }
        shared.device.flush().await?;
        Ok(part_count as usize)
    }
}
