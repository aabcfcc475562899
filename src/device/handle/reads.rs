//! Reads that clients wait for: in time or not at all, and by the faster way. Owns neither the choice of
//! the way nor the reads that are late.

use std::time::Duration;

use super::Device;
use super::wait::Patience;
use crate::clock::Stopwatch;
use crate::device::way::Way;
use crate::device::{AlignedBuf, DeviceError};

impl Device {
    /// As [`Device::read`], for a client that waits: what lasts longer than the device's read deadline is
    /// an error. The memory is the device's until the read is over. While 128 such reads are not over,
    /// others are errors at once.
    ///
    /// The time is kept in the tokio runtime in which the device was opened, for as long as there is one,
    /// and otherwise in the one that reads; without any there is no deadline.
    ///
    /// # Errors
    /// As [`Device::read`], or it lasts too long.
    ///
    /// # Panics
    /// As [`Device::read`].
    pub async fn read_in_time(
        &self,
        offset: u64,
        buf: AlignedBuf,
    ) -> Result<AlignedBuf, DeviceError> {
        self.read_by(Way::Main, (offset, buf), self.for_client()).await
    }

    /// As [`Device::read`], but by the faster way if the device is opened adaptively. Then the bytes may
    /// be older than the last write: only for what proves by itself that it is not. On any doubt,
    /// tell by [`Device::distrust`] and read again by [`Device::read`].
    ///
    /// # Errors
    /// As [`Device::read`]; a read by the other way may do better.
    ///
    /// # Panics
    /// As [`Device::read`].
    pub async fn read_adaptive(
        &self,
        offset: u64,
        buf: AlignedBuf,
    ) -> Result<AlignedBuf, DeviceError> {
        self.read_faster((offset, buf), Patience::Endless).await
    }

    /// As [`Device::read_adaptive`], in time as [`Device::read_in_time`].
    ///
    /// # Errors
    /// As [`Device::read_in_time`]; a read by the other way may do better.
    ///
    /// # Panics
    /// As [`Device::read`].
    pub async fn read_adaptive_in_time(
        &self,
        offset: u64,
        buf: AlignedBuf,
    ) -> Result<AlignedBuf, DeviceError> {
        self.read_faster((offset, buf), self.for_client()).await
    }

    /// As [`Device::read_adaptive_in_time`], with a deadline of its own: for bodies, which have begun to
    /// be sent.
    ///
    /// # Errors
    /// As [`Device::read_adaptive_in_time`]; of kind [`std::io::ErrorKind::TimedOut`] when it lasts too long.
    ///
    /// # Panics
    /// As [`Device::read`].
    pub async fn read_adaptive_within(
        &self,
        deadline: Duration,
        offset: u64,
        buf: AlignedBuf,
    ) -> Result<AlignedBuf, DeviceError> {
        self.read_faster((offset, buf), Patience::Within(deadline)).await
    }

    fn for_client(&self) -> Patience {
        self.inner.read_deadline.map_or(Patience::Endless, Patience::Client)
    }

    async fn read_faster(
        &self,
        (offset, buf): (u64, AlignedBuf),
        patience: Patience,
    ) -> Result<AlignedBuf, DeviceError> {
        let Some(adaptive) = &self.inner.adaptive else {
            return self.read_by(Way::Main, (offset, buf), patience).await;
        };
        let len = buf.capacity();
        let way = adaptive.choose(offset, len);
        let watch = Stopwatch::start();
        let buf = self.read_by(way, (offset, buf), patience).await?;
        adaptive.record(way, len, watch.elapsed(), self.inner.opened.elapsed());
        Ok(buf)
    }

    /// Drops what the page cache has of a range that [`Device::read_adaptive`] gave and that is
    /// doubted, and counts it.
    pub fn distrust(&self, offset: u64, len: usize) {
        self.inner.stats.distrusted();
        self.inner.engine.forget_cached(offset, len);
    }
}
