//! Erases the signatures by which other software recognises a device. Owns their places; writes zeros
//! there, and only where the bytes are not zero.

use std::ops::Range;
use std::sync::Arc;

use super::{Device, DeviceError, WriteSlice};

/// Bytes at the start that may hold signatures: the last copy of a LUKS2 header begins at 4 MiB and is
/// at most as long (cryptsetup, "LUKS2 On-Disk Format Specification", 2.1).
const HEAD_LEN: u64 = 8 << 20;
/// Bytes at the end: ZFS labels take 512 KiB, the farthest firmware RAID signature that libblkid looks
/// for is 3087 sectors from the end.
const TAIL_LEN: u64 = 4 << 20;
/// Where btrfs keeps its further superblocks ("On-disk Format", btrfs documentation).
const BTRFS_COPIES: [u64; 2] = [64 << 20, 256 << 30];
/// Bytes of one btrfs superblock, rounded up to the largest block.
const BTRFS_COPY_LEN: u64 = 64 << 10;
/// Bytes erased in one step.
const STEP: u64 = 1 << 20;

impl Device {
    /// Erases the signatures of file systems, partition tables, volume managers and RAIDs, with their
    /// copies further in and at the end, and flushes. This erases an old store of ours too.
    ///
    /// # Errors
    /// The device failed: a part may be erased.
    pub async fn erase_signatures(&self) -> Result<(), DeviceError> {
        let size = self.geometry().size;
        for range in places(size, u64::from(self.geometry().alignment)) {
            let mut at = range.start;
            while at < range.end {
                let end = (at + STEP).min(range.end);
                self.erase(at..end).await?;
                at = end;
            }
        }
        self.flush().await
    }

    /// Skips what is zero already, so that a sparse image stays sparse. Writes what cannot be read: a
    /// disk remaps a bad sector when it is written.
    async fn erase(&self, range: Range<u64>) -> Result<(), DeviceError> {
        let found = self.read_exact(range.clone()).await;
        if found.is_ok_and(|found| found.iter().all(|byte| *byte == 0)) {
            return Ok(());
        }
        let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let zeros = self.geometry().zeroed_buffer(len);
        self.write(range.start, vec![WriteSlice::whole(Arc::new(zeros))]).await
    }
}

/// Whole blocks of a device of `size` bytes in which signatures may stand. They may overlap.
fn places(size: u64, block: u64) -> Vec<Range<u64>> {
    let end = size / block * block;
    let mut places = vec![0..HEAD_LEN, size.saturating_sub(TAIL_LEN) / block * block..end];
    places.extend(BTRFS_COPIES.map(|at| at..at + BTRFS_COPY_LEN));
    places.retain_mut(|range| {
        range.end = range.end.min(end);
        range.start < range.end
    });
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Effect, Fault, OperationKind, SimDevice};

    #[test]
    fn the_end_is_covered_on_every_size_and_nothing_reaches_beyond_it() {
        for size in [512, 4096, 1 << 20, (5 << 20) + 512, 65 << 20, (1 << 40) + 4096] {
            for block in [512, 4096] {
                let end = size / block * block;
                let places = places(size, block);
                assert!(places.iter().all(|range| range.end <= end), "{size} {block}");
                assert!(end == 0 || places.iter().any(|range| range.end == end), "{size} {block}");
            }
        }
    }

    #[tokio::test]
    async fn what_stands_in_those_places_is_gone_and_what_is_between_them_stays() {
        let size = 96 << 20;
        let sim = SimDevice::new(size, 512);
        let device = sim.open();
        let marks = [0, 510, 4096, (4 << 20) + 1, 64 << 20, size - 4096, size - 512];
        for at in marks {
            sim.overwrite(at, b"mark");
        }
        sim.overwrite(32 << 20, b"mine");
        device.erase_signatures().await.unwrap();
        for at in marks {
            assert_eq!(sim.contents(at..at + 4), [0; 4], "at {at}");
        }
        assert_eq!(sim.contents(32 << 20..(32 << 20) + 4), *b"mine");
        let writes = sim.counts().writes;
        device.erase_signatures().await.unwrap();
        assert_eq!(sim.counts().writes, writes, "zeros are not written again");
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_written_all_the_same() {
        let sim = SimDevice::new(64 << 20, 512);
        sim.overwrite(4096, b"mark");
        let fault = Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Read);
        sim.inject(fault.within(0..8192).always());
        sim.open().erase_signatures().await.unwrap();
        sim.clear_faults();
        assert_eq!(sim.contents(4096..4100), [0; 4]);
    }
}
