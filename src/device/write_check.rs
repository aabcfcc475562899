//! Tests by writing whether a device keeps what is written to it. Owns restoring the old bytes; for
//! formatting only.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::{AlignedBuf, Device, DeviceError, OperationKind, WriteSlice};

impl Device {
    /// Writes the block at `offset` (aligned) inverted, reads it back, and puts back what was
    /// there, flushing after each write.
    ///
    /// # Errors
    /// A transfer failed, or something other than what was written came back. Unless the device
    /// fails, the block holds its old bytes again.
    pub async fn check_write(&self, offset: u64) -> Result<(), DeviceError> {
        let len = self.geometry().alignment as usize;
        let block = offset..offset + len as u64;
        let old = self.read(offset, self.geometry().read_buffer(len)).await?;
        let mut inverted = self.geometry().zeroed_buffer(len);
        for (target, source) in inverted.iter_mut().zip(old.iter()) {
            *target = !source;
        }
        let (old, inverted) = (Arc::new(old), Arc::new(inverted));
        let tried = self.write_and_compare(&block, inverted).await;
        let restored = self.write_and_compare(&block, old).await;
        tried.and(restored)
    }

    async fn write_and_compare(
        &self,
        block: &Range<u64>,
        bytes: Arc<AlignedBuf>,
    ) -> Result<(), DeviceError> {
        self.write(block.start, vec![WriteSlice::whole(Arc::clone(&bytes))]).await?;
        self.flush().await?;
        let read = self.read(block.start, self.geometry().read_buffer(bytes.len())).await?;
        if read[..] == bytes[..] {
            return Ok(());
        }
        let reason = "the device did not give back what was written: it may be failing or fake";
        let source = io::Error::new(io::ErrorKind::InvalidData, reason);
        Err(DeviceError::new(OperationKind::Write, block.start, bytes.len(), source))
    }
}

#[cfg(test)]
mod tests {
    use crate::device::{Effect, Fault, OperationKind, SimDevice};

    #[tokio::test]
    async fn a_good_device_holds_its_old_bytes_again() {
        let sim = SimDevice::new(1 << 16, 4096);
        sim.overwrite(4096, &[0x5a; 4096]);
        sim.open().check_write(4096).await.unwrap();
        assert_eq!(sim.contents(4096..8192), [0x5a; 4096]);
        assert_eq!(sim.volatile_sectors(), 0);
    }

    #[tokio::test]
    async fn a_device_that_loses_or_alters_a_write_is_found_out_and_restored() {
        for effect in [Effect::Lost, Effect::Corrupt(17, 1), Effect::Fail(libc::EIO)] {
            let sim = SimDevice::new(1 << 16, 4096);
            sim.overwrite(0, &[0x5a; 4096]);
            let device = sim.open();
            sim.inject(Fault::new(effect).on(OperationKind::Write));
            assert!(device.check_write(0).await.is_err());
            assert_eq!(sim.contents(0..4096), [0x5a; 4096]);
        }
    }
}
