//! What the clones of a handle share.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::deadlines::Deadlines;
use crate::device::adaptive::Adaptive;
use crate::device::block_lock::BlockLocks;
use crate::device::engine::Engine;
use crate::device::overdue::OverdueReads;
use crate::device::pace::Pace;
use crate::device::silence::Silence;
use crate::device::{DeviceInfo, DeviceStats, Geometry};

pub(super) struct Inner {
    pub(super) engine: Box<dyn Engine>,
    pub(super) geometry: Geometry,
    pub(super) info: DeviceInfo,
    pub(super) stats: DeviceStats,
    pub(super) locks: Arc<BlockLocks>,
    pub(super) adaptive: Option<Adaptive>,
    pub(super) deadlines: Arc<Deadlines>,
    /// How long reads may take that clients wait for; none on devices that tests make.
    pub(super) read_deadline: Option<Duration>,
    pub(super) overdue: OverdueReads,
    pub(super) pace: Pace,
    pub(super) silence: Silence,
    pub(super) opened: Instant,
}
