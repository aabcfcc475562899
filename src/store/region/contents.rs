//! What a region holds, piece by piece: a region may have millions of entries, and a piece takes little
//! memory. Owns how long a piece is, and that every piece of a footer is one whose checksum was verified.

use std::io;
use std::ops::Range;

use tokio::sync::SemaphorePermit;

use crate::clock::Timestamp;
use crate::device::DeviceError;
use crate::format::{
    Damage, EncodedFooter, EntryHeader, FOOTER_RECORD_LEN, Footer, FooterRecord, GRANULE, Kind,
    PURGE_RECORD_LEN, PurgeRecord, Seed, Sequence, TOMBSTONE_LEN, Tombstone, Trailer, round_up,
};
use crate::store::index::index_entry::SLOT_LEN_MAX;
use crate::store::region::reader::{
    BLOCK_ATTEMPTS, Effort, Lost, RegionReader, SlotWalk, is_possible,
};
use crate::store::shared::Store;

/// Bytes of one piece of a footer: whole records, whole tombstones or whole purge records.
const PIECE_LEN: u64 = (FOOTER_RECORD_LEN * TOMBSTONE_LEN) as u64 * 512;
const _: () = assert!(PURGE_RECORD_LEN == FOOTER_RECORD_LEN);
/// Bytes of a region in memory while its slots are scanned: a few times the longest slot.
const SCAN_WINDOW: u64 = 4 << 20;
/// Bytes of memory that a scan takes, records of the smallest slots included.
pub(in crate::store) const SCAN_MEMORY: u64 = 2 * SCAN_WINDOW;

/// Gives the hash of the key of an entry.
type HashOf<'a> = Box<dyn Fn(Kind, &[u8]) -> u64 + Send + Sync + 'a>;

/// Reads what one generation of a region holds, from its footer or, if it has none, from its slots.
pub(crate) struct ContentsReader<'a> {
    source: Source<'a>,
    /// The last piece.
    piece: Option<Footer>,
    /// Pieces so far.
    count: usize,
    /// The only piece comes once more.
    is_again: bool,
    is_sealed: bool,
    stamp: Timestamp,
    /// Why some blocks that may tell of entries could not be read, if any.
    hole: Option<DeviceError>,
    /// Why reading was given up.
    error: Option<DeviceError>,
}

enum Source<'a> {
    /// There is no more than what was read.
    Nothing,
    Footer(FooterPieces<'a>),
    Slots(Box<Scan<'a>>),
}

impl<'a> ContentsReader<'a> {
    /// Of what a trailer belongs to, or of what has none.
    fn new(source: Source<'a>, trailer: Option<Trailer>) -> ContentsReader<'a> {
        ContentsReader {
            source,
            piece: None,
            count: 0,
            is_again: false,
            is_sealed: trailer.is_some(),
            stamp: trailer.map_or_else(Timestamp::default, |trailer| trailer.stamp),
            hole: None,
            error: None,
        }
    }

    /// Of a region of which nothing can be told.
    pub fn nothing() -> ContentsReader<'a> {
        ContentsReader::new(Source::Nothing, None)
    }

    /// Of a footer that was read whole.
    fn whole(trailer: Trailer, footer: Footer) -> ContentsReader<'a> {
        let new = ContentsReader::new(Source::Nothing, Some(trailer));
        ContentsReader { piece: Some(footer), count: 1, is_again: true, ..new }
    }

    /// Of a footer that is read piece by piece.
    pub fn of_pieces(pieces: FooterPieces<'a>) -> ContentsReader<'a> {
        let trailer = pieces.trailer;
        ContentsReader::new(Source::Footer(pieces), Some(trailer))
    }

    /// The next piece, with some records, tombstones or purge records; `None` at the end, and after an error.
    pub async fn next(&mut self) -> Option<&Footer> {
        if std::mem::take(&mut self.is_again) {
            return self.piece.as_ref();
        }
        let piece = match &mut self.source {
            Source::Nothing => None,
            Source::Footer(pieces) => pieces.next(&mut self.hole).await,
            Source::Slots(scan) => match scan.next(&mut self.stamp, &mut self.hole).await {
                Ok(piece) => piece,
                Err(error) => {
                    (self.source, self.error) = (Source::Nothing, Some(error));
                    None
                }
            },
        };
        let piece = piece?;
        self.count += 1;
        Some(self.piece.insert(piece))
    }

    /// Whether a sound footer says what it holds; else its slots do.
    pub fn is_sealed(&self) -> bool {
        self.is_sealed
    }

    /// Newest stamp seen so far.
    pub fn stamp(&self) -> Timestamp {
        self.stamp
    }

    /// Begins again with the first piece. The device is read again only if there were several.
    pub fn restart(&mut self) {
        self.is_again = self.count == 1;
        match &mut self.source {
            _ if self.count <= 1 => self.source = Source::Nothing,
            Source::Nothing => {}
            Source::Footer(pieces) => pieces.next = 0,
            Source::Slots(scan) => scan.restart(),
        }
    }

    /// Why some blocks that may tell of entries could not be read, if any. Call it after the last piece.
    ///
    /// # Errors
    /// The region could not be read.
    pub fn end(&mut self) -> Result<Option<DeviceError>, DeviceError> {
        self.error.take().map_or_else(|| Ok(self.hole.take()), Err)
    }
}

/// What a footer whose checksum is verified says, read from the device again piece by piece.
pub(crate) struct FooterPieces<'a> {
    reader: RegionReader<'a>,
    region: u32,
    trailer: Trailer,
    piece_len: u64,
    checksums: Vec<u32>,
    next: usize,
}

impl<'a> FooterPieces<'a> {
    /// Reads and verifies a footer.
    pub async fn verify(
        reader: RegionReader<'a>,
        region: u32,
        trailer: Trailer,
    ) -> Result<Result<FooterPieces<'a>, Damage>, DeviceError> {
        FooterPieces::verify_in(reader, (region, trailer), PIECE_LEN).await
    }

    async fn verify_in(
        reader: RegionReader<'a>,
        (region, trailer): (u32, Trailer),
        piece_len: u64,
    ) -> Result<Result<FooterPieces<'a>, Damage>, DeviceError> {
        let checksums = Vec::new();
        let mut pieces = FooterPieces { reader, region, trailer, piece_len, checksums, next: 0 };
        if trailer.footer_len(reader.layout.alignment) > reader.layout.region_size {
            return Ok(Err(Damage::Field("footer length")));
        }
        let mut all = crc32fast::Hasher::new();
        while let Some(range) = pieces.range(pieces.checksums.len()) {
            let bytes = pieces.read(&range).await?;
            all.update(&bytes);
            pieces.checksums.push(crc32fast::hash(&bytes));
            if let Err(damage) = pieces.decode(&range, &bytes) {
                return Ok(Err(damage));
            }
            tokio::task::yield_now().await;
        }
        Ok(trailer.check_payload(all.finalize()).map(|()| pieces))
    }

    /// Where records, tombstones and purge records are in the footer.
    fn sections(&self) -> [Range<u64>; 3] {
        let records = self.trailer.records_len();
        let tombstones = records + self.trailer.tombstones_len();
        [0..records, records..tombstones, tombstones..self.trailer.payload_len()]
    }

    /// Where a piece is in the footer.
    fn range(&self, number: usize) -> Option<Range<u64>> {
        let mut number = number as u64;
        for section in self.sections() {
            let pieces = (section.end - section.start).div_ceil(self.piece_len);
            if number < pieces {
                let start = section.start + number * self.piece_len;
                return Some(start..section.end.min(start + self.piece_len));
            }
            number -= pieces;
        }
        None
    }

    async fn read(&self, range: &Range<u64>) -> Result<Vec<u8>, DeviceError> {
        let layout = self.reader.layout;
        let alignment = u64::from(layout.alignment);
        let footer = layout.region_size - self.trailer.footer_len(layout.alignment);
        let start = range.start / alignment * alignment;
        let end = round_up(range.end, alignment);
        let bytes = self.reader.read(self.region, footer + start..footer + end).await?;
        Ok(bytes[index(range.start - start)..index(range.end - start)].to_vec())
    }

    fn decode(&self, range: &Range<u64>, bytes: &[u8]) -> Result<Footer, Damage> {
        let parts = self.sections().map(|section| {
            let is_of_it = section.start <= range.start && range.end <= section.end;
            if is_of_it { bytes } else { &[] }
        });
        let piece = EncodedFooter::of_piece(parts, &self.trailer).to_footer()?;
        let is_possible = |record| is_possible(self.reader.layout, record);
        if piece.records.iter().all(is_possible) { Ok(piece) } else { Err(Damage::Field("record")) }
    }

    /// The next piece, unless it cannot be read any more: then the hole is noted.
    async fn next(&mut self, hole: &mut Option<DeviceError>) -> Option<Footer> {
        let range = self.range(self.next)?;
        let mut failed = None;
        for _ in 0..BLOCK_ATTEMPTS {
            match self.read_verified(&range).await {
                Ok(piece) => {
                    self.next += 1;
                    return Some(piece);
                }
                Err(error) => failed = Some(error),
            }
        }
        *hole = failed;
        None
    }

    async fn read_verified(&self, range: &Range<u64>) -> Result<Footer, DeviceError> {
        let bytes = self.read(range).await?;
        if crc32fast::hash(&bytes) == self.checksums[self.next]
            && let Ok(piece) = self.decode(range, &bytes)
        {
            return Ok(piece);
        }
        let source = io::Error::new(io::ErrorKind::InvalidData, "two reads gave different bytes");
        let offset = self.reader.layout.region_offset(self.region);
        Err(DeviceError { operation: "read", offset, len: bytes.len(), source })
    }
}

/// The slots of one generation of a region, window by window.
struct Scan<'a> {
    reader: RegionReader<'a>,
    region: u32,
    seed: Seed,
    hash_of: HashOf<'a>,
    /// Region offset of the next slot.
    at: u64,
    /// No byte so far but zeros.
    blank: bool,
    lost: Lost,
    /// One scan at a time in a store.
    _turn: Option<SemaphorePermit<'a>>,
}

impl Scan<'_> {
    fn restart(&mut self) {
        (self.at, self.blank) = (u64::from(self.reader.layout.alignment), true);
        self.lost = Lost::default();
    }

    /// What the next window with any slots holds; `None` at the end.
    async fn next(
        &mut self,
        stamp: &mut Timestamp,
        hole: &mut Option<DeviceError>,
    ) -> Result<Option<Footer>, DeviceError> {
        let alignment = u64::from(self.reader.layout.alignment);
        // The last block is reserved for the footer, written or not: no slot reaches into it.
        let size = self.reader.layout.region_size - alignment;
        let mut bytes = Vec::new();
        while self.at < size {
            let start = self.at / alignment * alignment;
            let end = (start + SCAN_WINDOW).min(size);
            bytes.clear();
            bytes.reserve_exact(index(end - start));
            self.reader.read_readable(self.region, start..end, &mut bytes, &mut self.lost).await;
            if let Some(error) = self.lost.beyond(self.reader.lost_blocks_max) {
                return Err(error);
            }
            self.blank = self.blank && bytes.iter().all(|byte| *byte == 0);
            // A slot that may reach beyond this window is left to the next one.
            let until = if end == size { size } else { end - SLOT_LEN_MAX };
            let mut walk = SlotWalk::of_window(&bytes, start, self.at, self.seed);
            let mut piece = Footer::default();
            loop {
                walk.skip_blank();
                if walk.offset() >= until {
                    break;
                }
                let Some(found) = walk.next() else { break };
                self.take(found, (&bytes, start), &mut piece, stamp);
            }
            // At the end of the region the walk may stop short.
            self.at = if end == size { size } else { walk.offset() };
            if piece != Footer::default() {
                return Ok(Some(piece));
            }
        }
        match self.lost.last.take() {
            // A region that reads as nothing but lost blocks is not known to be empty.
            Some(error) if self.blank => Err(error),
            last => {
                *hole = last;
                Ok(None)
            }
        }
    }

    /// Takes a slot found at an offset of the region; `bytes` begin at `start`.
    fn take(
        &self,
        (offset, found): (u64, Result<EntryHeader, Damage>),
        (bytes, start): (&[u8], u64),
        piece: &mut Footer,
        stamp: &mut Timestamp,
    ) {
        let Ok(header) = found else { return };
        let slot = &bytes[index(offset - start)..];
        // The write of this body was cut off: the previous version still counts.
        if header.check_body(slot).is_err() {
            return;
        }
        *stamp = header.stored_at.max(*stamp);
        let metadata = &slot[header.metadata_range()];
        match header.kind {
            Kind::Tombstones => piece.tombstones.extend(Tombstone::decode_all(metadata)),
            Kind::PurgeRecords => {
                piece.purge_records.extend(PurgeRecord::decode_all(metadata).flatten());
            }
            Kind::Object | Kind::Head | Kind::Slice => piece.records.push(FooterRecord {
                key_hash: (self.hash_of)(header.kind, &slot[header.key_range()]),
                sequence: header.sequence,
                offset,
                slot_len: round_up(header.slot_len() as u64, GRANULE),
                kind: header.kind,
                supersedes: header.supersedes,
                keep_until: header.keep_until,
            }),
        }
    }
}

impl<'a> RegionReader<'a> {
    /// Scans the slots of this `generation` of a region.
    pub fn scan(
        self,
        region: u32,
        generation: Sequence,
        hash_of: impl Fn(Kind, &[u8]) -> u64 + Send + Sync + 'a,
    ) -> ContentsReader<'a> {
        self.scan_in_turn((region, generation), Box::new(hash_of), None)
    }

    fn scan_in_turn(
        self,
        (region, generation): (u32, Sequence),
        hash_of: HashOf<'a>,
        turn: Option<SemaphorePermit<'a>>,
    ) -> ContentsReader<'a> {
        let scan = Scan {
            reader: self,
            region,
            seed: Seed::new(self.uuid, region, generation),
            hash_of,
            at: u64::from(self.layout.alignment),
            blank: true,
            lost: Lost::default(),
            _turn: turn,
        };
        ContentsReader::new(Source::Slots(Box::new(scan)), None)
    }

    /// What the footer of this `generation` of a region says, if there is a sound one. One that takes more
    /// than `memory_max` bytes of memory is read in pieces.
    async fn by_footer(
        self,
        (region, generation): (u32, Sequence),
        memory_max: u64,
    ) -> Result<Option<ContentsReader<'a>>, DeviceError> {
        let tail = self.read_tail(region).await?;
        let Ok(trailer) = tail.trailer else { return Ok(None) };
        if trailer.generation != generation {
            return Ok(None);
        }
        if trailer.footer_memory() > memory_max {
            let pieces = FooterPieces::verify(self, region, trailer).await?;
            return Ok(pieces.ok().map(ContentsReader::of_pieces));
        }
        let footer = self.read_rest(region, tail, &trailer).await?;
        Ok(footer.ok().map(|footer| ContentsReader::whole(trailer, footer)))
    }
}

impl Store {
    /// Reads the footer of this `generation` of a region, if there is a sound one that is not too long for
    /// what the store may keep in memory.
    pub(in crate::store) async fn read_footer(
        &self,
        region: u32,
        generation: Sequence,
    ) -> Result<Option<Footer>, DeviceError> {
        let tail = self.reader().read_tail(region).await?;
        let memory_max = self.shared.catalog.limit.footer;
        Ok(match tail.trailer {
            Ok(trailer)
                if trailer.generation == generation && trailer.footer_memory() <= memory_max =>
            {
                self.reader().read_rest(region, tail, &trailer).await?.ok()
            }
            _ => None,
        })
    }

    /// Reads what this `generation` of a region holds.
    pub(in crate::store) async fn read_contents(
        &self,
        region: u32,
        generation: Sequence,
        effort: Effort,
    ) -> Result<ContentsReader<'_>, DeviceError> {
        let reader = RegionReader { lost_blocks_max: effort.lost_blocks_max(), ..self.reader() };
        let memory_max = self.shared.catalog.limit.footer;
        let mut attempt = 1;
        loop {
            match reader.by_footer((region, generation), memory_max).await {
                Ok(Some(contents)) => return Ok(contents),
                Err(_) if attempt < BLOCK_ATTEMPTS => attempt += 1,
                // An unreadable footer is no loss: the slots say the same.
                Err(error) if effort != Effort::All => {
                    // If the first block fails too, it is more than one bad spot.
                    let block = u64::from(self.shared.layout.alignment);
                    reader.read_block(region, 0..block).await.map_err(|_| error)?;
                    break;
                }
                Ok(None) | Err(_) => break,
            }
        }
        // One at a time: each needs memory.
        let turn = self.shared.reading.scans.acquire().await.ok();
        let hash_of: HashOf<'_> = Box::new(|kind, key| self.hash_of(kind, key));
        Ok(reader.scan_in_turn((region, generation), hash_of, turn))
    }
}

fn index(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

#[cfg(test)]
#[path = "contents_tests.rs"]
mod tests;
