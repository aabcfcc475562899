//! The interface between [`super::Device`] and whatever moves the bytes. Owns what an engine
//! promises; never cuts, retries or continues a request.

use std::io;

use super::ThreadRing;
use super::request::Request;

/// Moves bytes between owned, aligned memory and a device.
///
/// `submit` never blocks on the device, and completes each request exactly once, from any
/// thread, in any order. An engine with per-thread rings picks the caller's ring in `submit`.
pub(crate) trait Engine: Send + Sync + 'static {
    /// A short name for logs and metrics.
    fn name(&self) -> &'static str;

    /// Takes `request` over.
    fn submit(&self, request: Request);

    /// Drops a range from the page cache that [`super::Way::PageCache`] reads go through.
    fn forget_cached(&self, _offset: u64, _len: usize) {}

    /// Rings that the kernel stopped serving; threads make their requests since.
    fn lost_rings(&self) -> u64 {
        0
    }

    /// The engine's ring for the calling thread, if it has per-thread rings.
    fn thread_ring(&self) -> io::Result<Option<ThreadRing>> {
        Ok(None)
    }
}
