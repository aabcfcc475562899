//! Stores for unit tests.

use std::sync::Arc;

use crate::clock::Clock;
use crate::device::SimDevice;
use crate::store::formatting::FormatOptions;
use crate::store::options::Options;
use crate::store::ram_tier::NotResident;
use crate::store::shared::Store;

/// Bytes of a region.
pub const REGION: u64 = 256 << 10;

/// An empty store without a RAM tier, recovered.
pub async fn create(sim: &SimDevice, clock: &Clock) -> Store {
    let format = FormatOptions { region_size: Some(REGION), ..FormatOptions::default() };
    Store::format(&sim.open(), &format, clock).await.unwrap();
    let store = open(sim, clock).await;
    store.recovered().await;
    store
}

/// Opens a store again; it may not be recovered yet.
pub async fn open(sim: &SimDevice, clock: &Clock) -> Store {
    let tier = Arc::new(NotResident);
    Store::open(sim.open(), Options::default(), clock.clone(), tier).await.unwrap()
}
