//! Writes the superblock copies. Owns their order; `log` decides their contents.

use crate::device::{AlignedBuf, DeviceError, WriteSlice};
use crate::format::{SUPERBLOCK_LEN, Superblock};
use crate::planted::{self, Bug};

/// Attempts to read a superblock copy before it counts as bad.
pub(super) const SUPERBLOCK_READ_ATTEMPTS: u32 = 3;

/// Writes both superblock copies, each durable and read back before the next. A damaged copy comes
/// first: the other must stay whole if this is cut off.
pub(super) async fn write_superblock(
    device: &crate::device::Device,
    superblock: &Superblock,
) -> Result<(), DeviceError> {
    // The copy that is not being written must be durable: an earlier run may have ended before it
    // flushed that one.
    device.flush().await?;
    let [first, second] = superblock.layout.superblock_offsets();
    let order = match has_superblock(device, first).await {
        true => [second, first],
        false => [first, second],
    };
    let encoded = superblock.encode();
    let len = usize::try_from(superblock.block_len()).unwrap_or(usize::MAX);
    let align = device.geometry().memory_alignment.max(superblock.layout.alignment);
    for offset in order {
        let mut block = AlignedBuf::zeroed(len, align as usize);
        block[..encoded.len()].copy_from_slice(&encoded);
        if planted::is(Bug::SuperblocksAtOnce) {
            device.write(offset, vec![WriteSlice::whole(std::sync::Arc::new(block))]).await?;
        } else {
            device.write_verified(offset, block).await?;
        }
    }
    Ok(())
}

/// Whether a sound superblock copy is at `offset`.
pub(super) async fn has_superblock(device: &crate::device::Device, offset: u64) -> bool {
    for _ in 0..SUPERBLOCK_READ_ATTEMPTS {
        let bytes = device.read_exact(offset..offset + SUPERBLOCK_LEN as u64).await;
        if bytes.is_ok_and(|bytes| Superblock::decode(&bytes).is_ok()) {
            return true;
        }
    }
    false
}
