//! Stores for unit tests.

use std::sync::Arc;

use crate::clock::{Clock, Timestamp};
use crate::device::SimDevice;
use crate::store::formatting::FormatOptions;
use crate::store::large::parts::PartialObject;
use crate::store::mutation::declare::{Declaration, Declared};
use crate::store::mutation::request::{Condition, Lifetime, StoreError, Value};
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

/// A lifetime that goes on for long.
pub fn lifetime() -> Lifetime {
    let (stored_at, end) = (Timestamp(1000), Timestamp(50_000));
    Lifetime { stored_at, age_secs: 0, fresh_until: end, keep_until: end }
}

/// Stores so much, durably, that what was stored before is on the device only.
pub async fn push_out_of_memory(store: &Store) {
    for n in 0..10u8 {
        let (body, lifetime) = (&[n; 60_000], lifetime());
        let value = Value { metadata: b"", body, lifetime, tags: &[], ram_only: false };
        let (_, ticket) = store.put(&[n], &value, Condition::Always, None).await.unwrap();
        store.flush_through(ticket).await.unwrap();
    }
}

/// Declares an object of `len` bytes under `key`.
pub async fn declare(
    store: &Store,
    key: &[u8],
    len: u64,
) -> Result<Arc<PartialObject>, StoreError> {
    let declaration = Declaration {
        len,
        validator: b"v",
        metadata: b"",
        tags: &[],
        lifetime: lifetime(),
        condition: Condition::Always,
    };
    match store.declare(key, &declaration, store.begin_fill(key)).await? {
        Declared::Parts { object, .. } => Ok(object),
        Declared::Exists => panic!("another version is there"),
    }
}
