//! Verifies the index snapshot of a device on which no store runs, by the rules of the next start. A
//! snapshot that a change has ended cannot be wrong.

use std::collections::{BTreeMap, BTreeSet};

use crate::clock::Timestamp;
use crate::device::ExactBytes;
use crate::format::{
    Layout, RegionHeader, RegionUse, SNAPSHOT_GROUPS, Seed, Sequence, SnapshotDirectory,
    SnapshotPart, SnapshotPiece, SnapshotRow,
};
use crate::inspect::finding::{Finding, with_cause};
use crate::inspect::inspection::Inspection;
use crate::inspect::sight::{Holds, Sight};
use crate::store::index::Index;
use crate::store::{dump, first_piece_offset};

/// State of a device's index snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SnapshotState {
    /// There is none.
    #[default]
    None,
    /// Whole and sound: the next start reads it instead of footers.
    Sound,
    /// A later change has ended it, or a program wrote it that divides the index in another way.
    Outdated,
    /// The stop that wrote it was cut off: parts are missing.
    Unfinished,
    /// Something in it is damaged.
    Damaged,
}

/// The part of an index snapshot in one region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotPartSurvey {
    /// Number of the part, from 0.
    pub part: u32,
    /// Number of parts of the snapshot.
    pub part_count: u32,
    /// Pieces in this part.
    pub pieces: usize,
    /// Bytes of these pieces.
    pub bytes: u64,
    /// When it was written.
    pub stamp: Timestamp,
}

/// One region's part, and the generation of its checksums.
struct Part {
    region: u32,
    seed: Seed,
    directory: SnapshotDirectory,
}

/// A piece, its region and its seed.
type Placed = (u32, Seed, SnapshotPiece);

/// State of a region's header.
enum Header {
    Sound(RegionHeader),
    /// The region was never used.
    Absent,
    /// Damaged or unreadable; reported with the region.
    Damaged,
}

/// Gathered over all regions to verify a snapshot.
#[derive(Default)]
pub(super) struct SnapshotSeen {
    /// By region.
    headers: Vec<Header>,
    parts: Vec<Part>,
    /// Parts whose directories are damaged.
    damaged: u32,
    /// Regions that hold parts of earlier snapshots.
    outdated: u32,
}

/// Result of verifying a snapshot.
#[derive(Default)]
pub(super) struct CheckedSnapshot {
    pub state: SnapshotState,
    /// Index entries in it.
    pub index_entries: u64,
    /// Bytes of its pieces that were read and verified.
    pub bytes: u64,
    pub findings: Vec<Finding>,
}

/// What shards are verified against, one group at a time.
struct Shards {
    /// `None` if the rows are damaged themselves.
    rows: Option<Vec<SnapshotRow>>,
    /// Bytes alive by region, summed over the entries seen so far.
    live: Vec<u64>,
    index_entries: u64,
    index: Index,
}

/// The message for damage in a snapshot, with what it costs.
pub(super) fn blame(what: &str) -> String {
    format!("index snapshot, {what}; nothing is lost, the next start reads footers and is slower")
}

impl SnapshotSeen {
    /// Adds what was seen of the next region.
    pub fn gather(&mut self, sight: &Sight) {
        self.headers.push(match sight.header {
            Some(header) => Header::Sound(header),
            None if sight.damage.is_empty() => Header::Absent,
            None => Header::Damaged,
        });
        match (&sight.directory, sight.holds) {
            (Some(directory), _) => self.parts.push(Part {
                region: sight.region,
                seed: sight.seed,
                directory: directory.clone(),
            }),
            (None, Holds::Snapshot) => self.damaged += 1,
            (None, Holds::OldSnapshot) => self.outdated += 1,
            (None, _) => {}
        }
    }

    /// Notes that the next region could not be read.
    pub fn gather_unreadable(&mut self) {
        self.headers.push(Header::Damaged);
    }

    /// The state, as far as it is known without reading pieces; `None` if all parts are there.
    fn verdict(&self) -> Option<SnapshotState> {
        if self.damaged > 0 {
            return Some(SnapshotState::Damaged);
        }
        let Some(first) = self.parts.first() else {
            let is_over = self.outdated > 0;
            return Some(if is_over { SnapshotState::Outdated } else { SnapshotState::None });
        };
        let numbers: BTreeSet<u32> = self.parts.iter().map(|part| part.directory.part).collect();
        if !numbers.into_iter().eq(0..first.directory.part_count) {
            // A damaged header was reported before.
            let is_damaged = self.headers.iter().any(|found| matches!(found, Header::Damaged));
            let cut_off = SnapshotState::Unfinished;
            return Some(if is_damaged { SnapshotState::Damaged } else { cut_off });
        }
        let has_other_shards = first.directory.shard_count as usize != Index::new().shard_count();
        has_other_shards.then_some(SnapshotState::Outdated)
    }

    /// The pieces of each table, in order.
    fn pieces(&self) -> BTreeMap<SnapshotPart, Vec<Placed>> {
        let mut pieces: BTreeMap<_, Vec<Placed>> = BTreeMap::new();
        for Part { region, seed, directory } in &self.parts {
            for piece in &directory.pieces {
                pieces.entry(piece.of).or_default().push((*region, *seed, *piece));
            }
        }
        pieces
    }

    /// Whether a region is as its row says.
    fn is_as_saved(&self, region: usize, row: &SnapshotRow) -> bool {
        match self.headers.get(region) {
            Some(Header::Sound(header)) if header.region_use == RegionUse::Log => {
                (row.sealed, row.generation, row.touched)
                    == (true, header.generation, header.touched)
            }
            Some(Header::Sound(_)) => !row.sealed,
            Some(Header::Absent) => !row.sealed && row.generation == Sequence(0),
            Some(Header::Damaged) | None => true,
        }
    }
}

impl Inspection {
    /// Verifies the snapshot that the next start reads: every piece, and that it agrees with the
    /// regions.
    pub(super) async fn check_snapshot(&self, mut seen: SnapshotSeen) -> CheckedSnapshot {
        seen.parts.sort_by_key(|part| part.directory.part);
        let mut checked = CheckedSnapshot::default();
        if let Some(state) = seen.verdict() {
            checked.state = state;
            return checked;
        }
        self.compare_parts(&seen, &mut checked);
        let pieces = seen.pieces();
        let rows = self.check_rows(&seen, &pieces, &mut checked).await;
        self.check_shards(&seen, &pieces, rows, &mut checked).await;
        let is_sound = checked.findings.is_empty();
        checked.state = if is_sound { SnapshotState::Sound } else { SnapshotState::Damaged };
        checked
    }

    /// Whether the directories belong to one snapshot and to this superblock.
    fn compare_parts(&self, seen: &SnapshotSeen, checked: &mut CheckedSnapshot) {
        let first = &seen.parts[0].directory;
        let floor = self.superblocks.best.purge_floor;
        for (number, part) in (0..).zip(&seen.parts) {
            let own = &part.directory;
            let what = if own.part != number {
                "directory: another region is the same part"
            } else if (own.name, own.part_count) != (first.name, first.part_count) {
                "directory: it is of another snapshot than part 0"
            } else if own.purge_floor != floor {
                "directory: its purge floor is not the superblock's"
            } else {
                continue;
            };
            checked.add(self.directory_finding(part, what));
        }
    }

    /// The rows of all regions, if they are sound and agree with the headers.
    async fn check_rows(
        &self,
        seen: &SnapshotSeen,
        pieces: &BTreeMap<SnapshotPart, Vec<Placed>>,
        checked: &mut CheckedSnapshot,
    ) -> Option<Vec<SnapshotRow>> {
        let Some(pieces) = pieces.get(&SnapshotPart::Regions) else {
            checked.add(self.directory_finding(&seen.parts[0], "directory: no region table"));
            return None;
        };
        let bytes = self.read_table(pieces, checked).await?;
        let rows = match SnapshotRow::decode_all(&bytes, self.layout().region_count) {
            Ok(rows) => rows,
            Err(damage) => {
                let what = format!("region table: {damage}");
                checked.add(self.piece_finding(&pieces[0], &what));
                return None;
            }
        };
        let mut fit = true;
        for (region, row) in rows.iter().enumerate() {
            if !seen.is_as_saved(region, row) {
                let what = format!("region table: region {region} is not what it was");
                checked.add(self.piece_finding(&pieces[0], &what));
                fit = false;
            }
        }
        fit.then_some(rows)
    }

    /// Verifies the entries of all shards, against the rows if those are sound.
    async fn check_shards(
        &self,
        seen: &SnapshotSeen,
        pieces: &BTreeMap<SnapshotPart, Vec<Placed>>,
        rows: Option<Vec<SnapshotRow>>,
        checked: &mut CheckedSnapshot,
    ) {
        let live = vec![0; self.layout().region_count as usize];
        let mut shards = Shards { rows, live, index_entries: 0, index: Index::new() };
        let before = checked.findings.len();
        for group in 0..SNAPSHOT_GROUPS {
            let Some(pieces) = pieces.get(&SnapshotPart::Shards(group)) else {
                let what = format!("directory: no shards of group {group}");
                checked.add(self.directory_finding(&seen.parts[0], &what));
                continue;
            };
            let Some(bytes) = self.read_table(pieces, checked).await else { continue };
            if let Err(what) = shards.verify(group, &bytes, self.layout()) {
                let what = format!("shards of group {group}: {what}");
                checked.add(self.piece_finding(&pieces[0], &what));
            }
        }
        checked.index_entries = shards.index_entries;
        let Some(rows) = shards.rows.filter(|_| checked.findings.len() == before) else { return };
        if rows.iter().map(|row| row.live_bytes).ne(shards.live) {
            let what = "region table: it and the index differ in the bytes alive";
            checked.add(self.directory_finding(&seen.parts[0], what));
        }
    }

    /// The bytes of the pieces, one after another, if all are sound.
    async fn read_table(
        &self,
        pieces: &[Placed],
        checked: &mut CheckedSnapshot,
    ) -> Option<Vec<u8>> {
        let (mut bytes, mut sound) = (Vec::new(), true);
        for piece in pieces {
            match self.read_piece(piece).await {
                Ok(read) => bytes.extend_from_slice(&read),
                Err(finding) => {
                    checked.add(finding);
                    sound = false;
                }
            }
        }
        checked.bytes += bytes.len() as u64;
        sound.then_some(bytes)
    }

    /// Reads and verifies one piece.
    async fn read_piece(&self, placed: &Placed) -> Result<ExactBytes, Finding> {
        let (region, seed, piece) = placed;
        let end = piece.offset + u64::from(piece.len);
        let layout = self.layout();
        if piece.offset < first_piece_offset(layout.alignment) || end > layout.region_size {
            return Err(self.piece_finding(placed, "piece: it lies outside of its region"));
        }
        let start = layout.region_offset(*region);
        let read = self.device.read_exact(start + piece.offset..start + end).await;
        let bytes = read.map_err(|error| {
            self.piece_finding(placed, &format!("piece: {}", with_cause(&error)))
        })?;
        match piece.check(*seed, &bytes) {
            Ok(()) => Ok(bytes),
            Err(damage) => Err(self.piece_finding(placed, &format!("piece: {damage}"))),
        }
    }

    /// Verifies the pieces of one region's part; gives the damage.
    pub(super) async fn check_part(&self, sight: &Sight) -> Vec<Finding> {
        let mut findings = Vec::new();
        for piece in sight.directory.iter().flat_map(|directory| &directory.pieces) {
            findings.extend(self.read_piece(&(sight.region, sight.seed, *piece)).await.err());
        }
        findings
    }

    fn directory_finding(&self, part: &Part, what: &str) -> Finding {
        self.snapshot_finding(part.region, u64::from(self.layout().alignment), what)
    }

    fn piece_finding(&self, (region, _, piece): &Placed, what: &str) -> Finding {
        self.snapshot_finding(*region, piece.offset, what)
    }

    fn snapshot_finding(&self, region: u32, offset: u64, what: &str) -> Finding {
        let offset = self.layout().region_offset(region) + offset;
        Finding { region: Some(region), offset, what: blame(what) }
    }
}

impl CheckedSnapshot {
    fn add(&mut self, finding: Finding) {
        self.findings.push(finding);
    }
}

impl Shards {
    /// Verifies the dumps of one group of shards and adds up the live bytes of their entries.
    fn verify(&mut self, group: u32, mut dumps: &[u8], layout: &Layout) -> Result<(), String> {
        let in_group = self.index.shard_count() / SNAPSHOT_GROUPS as usize;
        for shard in group as usize * in_group..(group as usize + 1) * in_group {
            let dumped;
            (dumped, dumps) = dump::split(dumps).ok_or("a shard is cut off")?;
            let loaded = self.index.load_shard(shard, dumped);
            self.index.sweep_shard(shard, |_| true);
            self.index_entries += loaded.map_err(|damage| damage.to_string())? as u64;
            self.count_live(dumped, layout)?;
        }
        if dumps.is_empty() {
            Ok(())
        } else {
            Err("there are index entries beyond the last shard".into())
        }
    }

    fn count_live(&mut self, dumped: &[u8], layout: &Layout) -> Result<(), String> {
        let Some(rows) = &self.rows else { return Ok(()) };
        for index_entry in dump::index_entries(dumped) {
            let region = index_entry.location().split(layout).0 as usize;
            if rows.get(region).is_none_or(|row| !row.sealed) {
                return Err(format!(
                    "an index entry points into region {region}, which is not sealed"
                ));
            }
            self.live[region] += index_entry.class().len_max();
        }
        Ok(())
    }
}

impl From<&SnapshotDirectory> for SnapshotPartSurvey {
    fn from(directory: &SnapshotDirectory) -> SnapshotPartSurvey {
        SnapshotPartSurvey {
            part: directory.part,
            part_count: directory.part_count,
            pieces: directory.pieces.len(),
            bytes: directory.pieces.iter().map(|piece| u64::from(piece.len)).sum(),
            stamp: directory.stamp,
        }
    }
}
