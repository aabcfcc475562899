//! The objects of which parts are being asked for or read, so that all who want one share its requests.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::object::Parted;

/// Objects that nobody uses any more are forgotten when there are twice as many as were left the last time, and
/// not before there are so many.
const FORGET_MIN: usize = 64;

/// Objects by key and version of their entries.
#[derive(Debug, Default)]
pub(in crate::server::proxy) struct Objects(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    objects: HashMap<(Vec<u8>, u64), Weak<Parted>>,
    left: usize,
}

impl Objects {
    /// The object that others use.
    pub(in crate::server::proxy) fn get(&self, key: &[u8], cas: u64) -> Option<Arc<Parted>> {
        let known = self.0.lock();
        let found = known.objects.get(&(key.to_vec(), cas))?.upgrade()?;
        (!found.is_over()).then_some(found)
    }

    /// Adds an object; if others use this version meanwhile, theirs comes back.
    pub(in crate::server::proxy) fn add(&self, key: &[u8], object: Arc<Parted>) -> Arc<Parted> {
        let mut known = self.0.lock();
        let of = (key.to_vec(), object.cas());
        if let Some(found) = known.objects.get(&of).and_then(Weak::upgrade)
            && !found.is_over()
        {
            return found;
        }
        if known.objects.len() >= FORGET_MIN.max(2 * known.left) {
            known.objects.retain(|_, object| object.strong_count() > 0);
            known.left = known.objects.len();
        }
        known.objects.insert(of, Arc::downgrade(&object));
        object
    }
}
