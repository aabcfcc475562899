//! What of meta commands must survive a crash. Method: commands over a simulated device, whose power is cut as soon as
//! they are answered.

use std::sync::Arc;

use super::super::{Service, Shared, serve};
use crate::cache::{Cache, CacheOptions};
use crate::clock::{Clock, Timestamp};
use crate::device::SimDevice;
use crate::format::Uuid;
use crate::server::access::Access;
use crate::server::test_peer::TestPeer;
use crate::server::{Options, Server};
use crate::store::FormatOptions;

/// A device and what serves it, which ends with each power cut.
struct Rig {
    sim: SimDevice,
    clock: Clock,
    life: Option<(Cache, Arc<Service>)>,
}

impl Rig {
    async fn new() -> Rig {
        let (sim, clock) = (SimDevice::new(64 << 20, 512), Clock::manual(Timestamp(1000)));
        let options = FormatOptions { uuid: Uuid([1; 16]), ..FormatOptions::default() };
        Cache::format_device(&sim.open(), &options, &clock).await.unwrap();
        let mut rig = Rig { sim, clock, life: None };
        rig.open().await;
        rig
    }

    async fn open(&mut self) {
        let options = CacheOptions::default();
        let cache = Cache::open_device(self.sim.open(), options, self.clock.clone()).await.unwrap();
        cache.ready().await;
        let server = Server::new(Options::default(), cache.clone());
        let service = Service::new(&server, 0, &Shared::new());
        self.life = Some((cache, Arc::new(service)));
    }

    async fn crash(&mut self, seed: u64) {
        self.sim.power_cut(seed);
        self.life = None;
        self.open().await;
    }

    /// The answers to some lines.
    async fn ask(&self, lines: &str) -> String {
        let peer = TestPeer::saying(&[lines.as_bytes()]);
        let writes = peer.writes();
        let (_, service) = self.life.as_ref().unwrap();
        serve(peer, Arc::clone(service), Arc::default(), Access::default()).await;
        String::from_utf8(writes.lock().concat()).unwrap()
    }

    /// All that was stored up to now is on the device.
    async fn settle(&self) {
        assert_eq!(self.ask("ms last 1 T900\r\nx\r\nmd last I\r\n").await, "HD\r\nHD\r\n");
    }
}

/// Enough for each outcome of a power cut that is wrong to show.
const SEEDS: u64 = 20;

#[tokio::test]
async fn what_was_marked_as_stale_does_not_come_back_fresh() {
    let mut rig = Rig::new().await;
    for seed in 0..SEEDS {
        let large = format!("ms large 300000 T900\r\n{}\r\n", "x".repeat(300_000));
        assert_eq!(rig.ask("ms k 3 T900 F5\r\nold\r\nmg k v\r\n").await, "HD\r\nVA 3\r\nold\r\n");
        assert_eq!(rig.ask(&large).await, "HD\r\n");
        rig.settle().await;
        let marked = rig.ask("md k I\r\nmd large I\r\n").await;
        assert_eq!(marked, "HD\r\nHD\r\n");
        rig.crash(seed).await;
        assert_eq!(rig.ask("mg k v f\r\n").await, "VA 3 f5 X W\r\nold\r\n", "seed {seed}");
        assert_eq!(rig.ask("mg large s\r\n").await, "HD s300000 X W\r\n", "seed {seed}");
        // Nor by a touch, or by what is made of it.
        let changed = rig.ask("mg k T800\r\nappend k 0 0 1\r\n!\r\nmg k v\r\n").await;
        assert_eq!(changed, "HD Z X\r\nSTORED\r\nVA 4 Z X\r\nold!\r\n");
    }
}

#[tokio::test]
async fn what_was_emptied_or_deleted_does_not_come_back() {
    let mut rig = Rig::new().await;
    for seed in 0..SEEDS {
        assert_eq!(
            rig.ask("ms a 3 T900 E5\r\nold\r\nms b 3 T900 E6\r\nold\r\n").await,
            "HD\r\nHD\r\n"
        );
        rig.settle().await;
        assert_eq!(rig.ask("md a x T900\r\nmd b C6\r\n").await, "HD\r\nHD\r\n");
        rig.crash(seed).await;
        assert_eq!(rig.ask("mg a v c\r\nmg b v\r\n").await, "VA 0 c5\r\n\r\nEN\r\n", "seed {seed}");
    }
}

#[tokio::test]
async fn a_cas_value_that_was_given_survives() {
    let mut rig = Rig::new().await;
    for seed in 0..SEEDS {
        assert_eq!(rig.ask("ms a 1 T900 E5\r\n1\r\nms b 1 T900\r\n1\r\n").await, "HD\r\nHD\r\n");
        assert_eq!(rig.ask("ma b E7\r\n").await, "HD\r\n");
        rig.settle().await;
        assert_eq!(rig.ask("ms c 1 T900\r\n1\r\nmd c I E9\r\n").await, "HD\r\nHD\r\n");
        rig.crash(seed).await;
        let found = rig.ask("mg a c\r\nmg b c\r\nmg c c\r\nms a 1 C4\r\n2\r\n").await;
        assert_eq!(found, "HD c5\r\nHD c7\r\nHD c9 X W\r\nEX\r\n", "seed {seed}");
    }
}

/// Who won it may be gone with the crash.
#[tokio::test]
async fn an_entry_that_nobody_filled_is_won_anew() {
    let mut rig = Rig::new().await;
    for seed in 0..SEEDS {
        assert_eq!(rig.ask("md stub\r\nmg stub N900 v\r\n").await.lines().nth(1), Some("VA 0 W"));
        rig.settle().await;
        rig.crash(seed).await;
        assert_eq!(
            rig.ask("mg stub v\r\nmg stub\r\n").await,
            "VA 0 W\r\n\r\nHD Z\r\n",
            "seed {seed}"
        );
    }
}
