//! A handle on an open device. Owns alignment checks, retries, the cutting of writes and
//! read-modify-write; leaves the transfer itself to its engine.

mod inner;
mod reads;
#[cfg(test)]
mod tests;
mod wait;

use std::fmt;
use std::io;
use std::ops::{Deref, Range};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::adaptive::Adaptive;
use super::block_lock::{BlockGuard, BlockLocks};
use super::engine::Engine;
use super::overdue::OverdueReads;
use super::pace::Pace;
use super::request::Completion;
use super::request::Operation;
use super::silence::Silence;
use super::way::Way;
use super::write_queue::WriteQueue;
use super::{
    AlignedBuf, DeviceError, DeviceInfo, DeviceStats, DeviceStatsSnapshot, Geometry, OperationKind,
    ThreadRing, WriteSlice,
};
use crate::deadlines::Deadlines;
use crate::planted::{self, Bug};
use inner::Inner;
use wait::Patience;

/// Longest write given to the engine at once, in bytes, so that a large write does not hold up
/// the reads behind it; but as long as a chunk of the log, so that a kill leaves no half of one. A
/// multiple of every alignment.
const WRITE_PIECE_LEN_MAX: usize = 1 << 20;

/// Longest range [`Device::modify`] takes, in bytes: it locks every block of it.
pub const MODIFY_LEN_MAX: u64 = 1 << 20;

/// Attempts to read back what was written.
const READ_BACK_ATTEMPTS: u32 = 3;

/// Attempts without a whole block of progress (interrupted, or shorter than a block) before a
/// transfer fails.
const STALLS_MAX: u32 = 64;

/// A handle on an open device. Clones share it; the device closes with the last one.
///
/// Dropping a future does not call back what was already handed to the engine: a cancelled
/// write may still reach the device.
#[derive(Clone)]
pub struct Device {
    inner: Arc<Inner>,
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("path", &self.inner.info.path).finish_non_exhaustive()
    }
}

/// The bytes of one range, wherever it starts and ends.
#[derive(Debug)]
pub struct ExactBytes {
    blocks: AlignedBuf,
    range: Range<usize>,
}

impl Deref for ExactBytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.blocks[self.range.clone()]
    }
}

impl AsRef<[u8]> for ExactBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Device {
    /// A device; with `adaptive`, whose engine reads through the page cache too.
    pub(super) fn new(
        engine: Box<dyn Engine>,
        geometry: Geometry,
        info: DeviceInfo,
        (adaptive, read_deadline): (Option<Adaptive>, Option<Duration>),
    ) -> Device {
        assert_eq!(info.adaptive, adaptive.is_some(), "it says what it does");
        let inner = Inner {
            engine,
            geometry,
            info,
            stats: DeviceStats::default(),
            locks: BlockLocks::new(),
            adaptive,
            deadlines: Deadlines::new(),
            read_deadline,
            overdue: OverdueReads::default(),
            pace: Pace::default(),
            silence: Silence::default(),
            opened: Instant::now(),
        };
        Device { inner: Arc::new(inner) }
    }

    /// What every transfer must respect.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.inner.geometry
    }

    /// What the device turned out to be when it was opened.
    #[must_use]
    pub fn info(&self) -> &DeviceInfo {
        &self.inner.info
    }

    /// The device's counters now.
    #[must_use]
    pub fn stats(&self) -> DeviceStatsSnapshot {
        let mut stats = self.inner.stats.snapshot(self.inner.info.direct);
        if let Some(adaptive) = &self.inner.adaptive {
            stats.adaptive = adaptive.snapshot();
        }
        stats.lost_rings = self.inner.engine.lost_rings();
        stats.overdue_now = self.inner.overdue.count() as u64;
        stats.degraded = self.is_degraded();
        stats
    }

    /// Whether the device is ten times slower than it was, or answers nothing at all, for half a minute
    /// now.
    #[must_use]
    pub fn is_degraded(&self) -> bool {
        let inner = &*self.inner;
        inner.pace.is_degraded(|| inner.opened.elapsed())
            || (inner.silence.lasts(|| inner.opened.elapsed()) && inner.has_requests())
    }

    /// Whether so many reads for clients are overdue that no other is made.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        self.inner.overdue.are_too_many()
    }

    /// A ring for the calling thread, through which the thread's own requests go from then on; `None`
    /// where the engine has no use for one. Worth it in threads that read much: it saves handing
    /// each request to another thread and back.
    ///
    /// # Errors
    /// The kernel gives no further ring.
    pub fn thread_ring(&self) -> io::Result<Option<ThreadRing>> {
        self.inner.engine.thread_ring()
    }

    /// Fills `buf` to its capacity from `offset` (both aligned) and gives it back.
    ///
    /// # Errors
    /// The device failed or ended before `buf` was full.
    ///
    /// # Panics
    /// If offset, length or address is not aligned.
    pub async fn read(&self, offset: u64, buf: AlignedBuf) -> Result<AlignedBuf, DeviceError> {
        self.read_by(Way::Main, (offset, buf), Patience::Endless).await
    }

    async fn read_by(
        &self,
        way: Way,
        (offset, buf): (u64, AlignedBuf),
        patience: Patience,
    ) -> Result<AlignedBuf, DeviceError> {
        let len = buf.capacity();
        self.inner.read(way, (offset, buf), patience).await.map_err(|source| {
            self.inner.stats.failed(OperationKind::Read);
            DeviceError::new(OperationKind::Read, offset, len, source)
        })
    }

    /// Reads exactly `range`, transferring no more than the blocks it touches.
    ///
    /// # Errors
    /// The range does not lie on the device, or the device failed.
    pub async fn read_exact(&self, range: Range<u64>) -> Result<ExactBytes, DeviceError> {
        if range.start >= range.end {
            return Ok(ExactBytes { blocks: AlignedBuf::zeroed(0, 1), range: 0..0 });
        }
        let (blocks, within) = self.blocks_around(OperationKind::Read, &range)?;
        let buf = self.geometry().read_buffer(length(&blocks));
        Ok(ExactBytes { blocks: self.read(blocks.start, buf).await?, range: within })
    }

    /// Writes `slices` one after another from `offset`. Not durable until [`Device::flush`].
    ///
    /// # Errors
    /// The device failed; any part may have been written.
    ///
    /// # Panics
    /// If the offset, or a slice's length or address, is not aligned.
    pub async fn write(&self, offset: u64, slices: Vec<WriteSlice>) -> Result<(), DeviceError> {
        self.write_holding(offset, slices, None).await
    }

    /// Makes every completed write durable.
    ///
    /// # Errors
    /// The device failed; nothing may be assumed about earlier writes.
    pub async fn flush(&self) -> Result<(), DeviceError> {
        self.inner.flush().await.map_err(|source| {
            self.inner.stats.failed(OperationKind::Flush);
            DeviceError::new(OperationKind::Flush, 0, 0, source)
        })
    }

    /// Writes `buf` at `offset` (both aligned), makes it durable and reads it back: for the few blocks
    /// on which all others depend. A transfer that goes wrong while reading back is tried again.
    ///
    /// # Errors
    /// The device failed, or did not keep what was written.
    pub async fn write_verified(&self, offset: u64, buf: AlignedBuf) -> Result<(), DeviceError> {
        let len = buf.len();
        let buf = Arc::new(buf);
        self.write(offset, vec![WriteSlice::whole(Arc::clone(&buf))]).await?;
        self.flush().await?;
        for _ in 0..READ_BACK_ATTEMPTS {
            let read = self.read(offset, self.geometry().read_buffer(len)).await;
            if read.is_ok_and(|read| read[..] == buf[..]) {
                return Ok(());
            }
        }
        self.inner.stats.failed(OperationKind::Write);
        let reason = io::Error::other("the device did not keep what was written");
        Err(DeviceError::new(OperationKind::Write, offset, len, reason))
    }

    /// Reads the blocks around `range`, lets `change` edit exactly the bytes of `range`, and writes
    /// the blocks back when it returns true. Blocks are locked from read to write, against other
    /// `modify` calls only: do not [`Device::write`] to them at the same time. Not durable until
    /// flush.
    ///
    /// Gives what `change` returned.
    ///
    /// # Errors
    /// The range does not lie on the device, or the device failed.
    ///
    /// # Panics
    /// If the range is longer than [`MODIFY_LEN_MAX`].
    pub async fn modify(
        &self,
        range: Range<u64>,
        change: impl FnOnce(&mut [u8]) -> bool + Send,
    ) -> Result<bool, DeviceError> {
        if range.start >= range.end {
            return Ok(change(&mut []));
        }
        assert!(range.end - range.start <= MODIFY_LEN_MAX, "{range:?} is too long to modify");
        let (blocks, within) = self.blocks_around(OperationKind::Read, &range)?;
        let block = u64::from(self.geometry().alignment);
        let mut locked = blocks.start / block..blocks.end / block;
        if planted::is(Bug::ModifyWithoutLock) {
            locked.end = locked.start;
        }
        let hold = self.inner.locks.lock(locked).await;
        let buf = self.geometry().read_buffer(length(&blocks));
        let mut buf = self.read(blocks.start, buf).await?;
        if !change(&mut buf[within]) {
            return Ok(false);
        }
        // The lock goes with the write, so it outlives this future if that is dropped.
        let slices = vec![WriteSlice::whole(Arc::new(buf))];
        self.write_holding(blocks.start, slices, Some(hold)).await?;
        self.inner.stats.modified();
        Ok(true)
    }

    async fn write_holding(
        &self,
        offset: u64,
        slices: Vec<WriteSlice>,
        hold: Option<BlockGuard>,
    ) -> Result<(), DeviceError> {
        let queue = WriteQueue::new(slices);
        let len = queue.len();
        self.inner.write(offset, queue, hold).await.map_err(|source| {
            self.inner.stats.failed(OperationKind::Write);
            DeviceError::new(OperationKind::Write, offset, len, source)
        })
    }

    /// The blocks `range` touches and where it lies within them.
    fn blocks_around(
        &self,
        kind: OperationKind,
        range: &Range<u64>,
    ) -> Result<(Range<u64>, Range<usize>), DeviceError> {
        let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        if !self.inner.geometry.holds(range.start, len) {
            self.inner.stats.failed(kind);
            return Err(DeviceError::new(kind, range.start, len, past_the_end()));
        }
        let blocks = self.inner.geometry.blocks_around(range);
        let start = length(&(blocks.start..range.start));
        Ok((blocks, start..start + len))
    }
}

impl Inner {
    async fn read(
        &self,
        way: Way,
        (offset, mut buf): (u64, AlignedBuf),
        patience: Patience,
    ) -> io::Result<AlignedBuf> {
        let len = buf.capacity();
        self.check_alignment(offset, buf.spare(0).addr(), len);
        self.check_bounds(offset, len)?;
        if !patience.is_endless() && self.overdue.are_too_many() {
            self.stats.refused();
            return Err(io::Error::new(io::ErrorKind::TimedOut, "too many reads are overdue"));
        }
        let mut filled = 0;
        let mut stalls = 0;
        while filled < len {
            if way == Way::PageCache {
                self.stats.read_cached();
            }
            let request = Operation::Read { buf, filled, way };
            let completion = self.submit(offset + filled as u64, request, patience).await?;
            let Operation::Read { buf: same, .. } = completion.operation else {
                unreachable!("an engine gives back the operation it was given")
            };
            buf = same;
            let asked = len - filled;
            filled += self.progress(OperationKind::Read, asked, completion.result, &mut stalls)?;
        }
        assert_eq!(buf.len(), len, "an engine declares what it filled");
        Ok(buf)
    }

    async fn write(
        &self,
        mut offset: u64,
        mut queue: WriteQueue,
        mut hold: Option<BlockGuard>,
    ) -> io::Result<()> {
        self.check_bounds(offset, queue.len())?;
        if self.info.read_only {
            return Err(io::Error::from_raw_os_error(libc::EROFS));
        }
        let mut stalls = 0;
        while queue.len() > 0 {
            let before = queue.len();
            let slices = queue.take(WRITE_PIECE_LEN_MAX);
            let asked = before - queue.len();
            for slice in &slices {
                let bytes = slice.bytes();
                self.check_alignment(offset, bytes.as_ptr().addr(), bytes.len());
            }
            let Completion { operation, result } =
                self.submit(offset, Operation::Write { slices, hold }, Patience::Endless).await?;
            let Operation::Write { slices, hold: same } = operation else {
                unreachable!("an engine gives back the operation it was given")
            };
            hold = same;
            let written = self.progress(OperationKind::Write, asked, result, &mut stalls)?;
            queue.put_back(slices, written);
            offset += written as u64;
        }
        Ok(())
    }

    async fn flush(&self) -> io::Result<()> {
        let mut stalls = 0;
        loop {
            let completion = self.submit(0, Operation::Flush, Patience::Endless).await?;
            match completion.result {
                Ok(_) => return Ok(()),
                Err(error) => self.interrupted(error, &mut stalls)?,
            }
        }
    }

    /// Whole blocks transferred; an interruption or less than a block counts as a stall.
    fn progress(
        &self,
        kind: OperationKind,
        asked: usize,
        result: io::Result<usize>,
        stalls: &mut u32,
    ) -> io::Result<usize> {
        match result {
            Ok(0) => Err(match kind {
                OperationKind::Read => past_the_end(),
                _ => io::Error::new(io::ErrorKind::WriteZero, "the device took no bytes"),
            }),
            Ok(transferred) => {
                assert!(transferred <= asked, "{transferred} bytes of {asked} transferred");
                self.stats.transferred(kind, transferred);
                if transferred < asked {
                    self.stats.continued();
                }
                let whole = self.geometry.whole_blocks(transferred);
                if whole == 0 {
                    let reason = "the device transfers less than a block";
                    stall(io::Error::other(reason), stalls)?;
                }
                Ok(whole)
            }
            Err(error) => self.interrupted(error, stalls).map(|()| 0),
        }
    }

    /// Lets an interruption be retried; any other error stands.
    fn interrupted(&self, error: io::Error, stalls: &mut u32) -> io::Result<()> {
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
        self.stats.continued();
        stall(error, stalls)
    }

    fn check_bounds(&self, offset: u64, len: usize) -> io::Result<()> {
        if self.geometry.holds(offset, len) { Ok(()) } else { Err(past_the_end()) }
    }

    fn check_alignment(&self, offset: u64, address: usize, len: usize) {
        let geometry = self.geometry;
        assert!(geometry.is_block_multiple(offset), "offset {offset} is not aligned");
        assert!(geometry.is_block_multiple(len as u64), "length {len} is not aligned");
        let aligned = address.is_multiple_of(geometry.memory_alignment as usize);
        assert!(aligned || len == 0, "address {address:#x} is not aligned");
    }
}

/// Counts an attempt that brought nothing; the last one's `reason` becomes the error.
fn stall(reason: io::Error, stalls: &mut u32) -> io::Result<()> {
    *stalls += 1;
    if *stalls > STALLS_MAX { Err(reason) } else { Ok(()) }
}

fn past_the_end() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the device ends before the range does")
}

fn length(range: &Range<u64>) -> usize {
    usize::try_from(range.end - range.start).expect("a range in memory")
}
