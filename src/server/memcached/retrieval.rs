//! Executes `get`, `gets`, `gat` and `gats`, and sends values, those of `mg` too.

use std::time::Duration;

use super::budget::{KEY_COST, spend};
use super::closed::Closed;
use super::command::{Key, Retrieval};
use super::number::push_decimal;
use super::peer::{Peer, SHARED_LEN_MIN, Socket};
use super::service::Service;
use crate::cache::{Ack, Hit, Tier};
use crate::clock::Stopwatch;
use crate::server::counters::Operation;
use crate::server::metadata::{Item, Metadata};

pub(super) async fn get<S: Socket>(
    peer: &mut Peer<S>,
    retrieval: Retrieval<'_>,
) -> Result<(), Closed> {
    for (n, key) in retrieval.keys.iter().enumerate() {
        if n > 0 {
            // The first one is paid for with the command.
            spend(KEY_COST, &peer.service.shard).await;
        }
        peer.relieve().await?;
        let watch = Stopwatch::start();
        let hit = match retrieval.touch {
            None => {
                peer.service.shard.cmd_get.bump();
                peer.service.cache.lookup(&key).await
            }
            Some(exptime) => find_and_touch(&peer.service, key, exptime).await,
        };
        let found_after = watch.elapsed();
        let tier = hit.as_ref().map(Hit::tier);
        let header = |output: &mut Vec<u8>, hit: &Hit| {
            push_header(output, key, hit, retrieval.with_cas);
        };
        let sent = match hit {
            Some(hit) => {
                peer.service.note_read(&hit);
                send(peer, hit, header).await?
            }
            None => false,
        };
        let tier = tier.filter(|_| sent);
        peer.service.count_lookup(tier, retrieval.touch.is_some(), found_after);
    }
    peer.push(b"END\r\n");
    Ok(())
}

impl Service {
    /// Notes that an entry was read.
    #[inline]
    pub(super) fn note_read(&self, hit: &Hit) {
        self.reads.note(hit.cas(), self.cache.clock().now());
    }

    /// Counts a lookup that found the value in `tier`, or nothing.
    pub(super) fn count_lookup(&self, tier: Option<Tier>, touches: bool, duration: Duration) {
        let shard = &self.shard;
        shard.record(tier.map_or(Operation::GetMiss, Operation::of_hit), duration);
        if let Some(tier) = tier {
            shard.count_hit(tier);
        }
        match (touches, tier.is_some()) {
            (false, true) => shard.get_hits.bump(),
            (false, false) => shard.get_misses.bump(),
            (true, true) => shard.touch_hits.bump(),
            (true, false) => shard.touch_misses.bump(),
        }
    }
}

/// Looks a key up and gives what is found a new expiry.
pub(super) async fn find_and_touch(service: &Service, key: Key<'_>, exptime: i64) -> Option<Hit> {
    service.shard.cmd_touch.bump();
    let (hit, life) = (service.cache.lookup(&key).await, service.life(exptime));
    if hit.is_none() && life.keep_until > service.cache.clock().now() {
        return None;
    }
    // A lifetime of zero ends the entry even if it could not be read. The value is sent even if its
    // new lifetime is over already, as memcached does; a lifetime that could not be changed makes
    // it a miss.
    match service.cache.touch_until(&key, None, (life, Some(Ack::Buffered))).await {
        Ok(touched) => touched.and(hit),
        Err(error) => {
            service.failure(&error);
            None
        }
    }
}

/// Sends a value behind what `header` writes; false if its first piece was gone, which makes it a miss.
pub(super) async fn send<S: Socket>(
    peer: &mut Peer<S>,
    mut hit: Hit,
    mut header: impl FnMut(&mut Vec<u8>, &Hit),
) -> Result<bool, Closed> {
    // A copy of a value that is short and in memory.
    if let Some(body) = hit.whole().filter(|body| body.len() < SHARED_LEN_MIN) {
        let output = peer.output();
        header(output, &hit);
        output.extend_from_slice(body);
        output.extend_from_slice(b"\r\n");
        return Ok(true);
    }
    let Ok(mut piece) = hit.next_chunk().await else {
        return Ok(false);
    };
    header(peer.output(), &hit);
    let mut missing = hit.len();
    while let Some(bytes) = piece {
        missing = missing.checked_sub(bytes.len() as u64).ok_or(Closed::Truncated)?;
        peer.push_body(&bytes);
        drop(bytes);
        if missing > 0 {
            // Sends before waiting for the next piece. The last one leaves with the answer's end.
            peer.relieve().await?;
        }
        piece = hit.next_chunk().await.map_err(|_| Closed::Truncated)?;
    }
    if missing > 0 {
        return Err(Closed::Truncated);
    }
    peer.push(b"\r\n");
    Ok(true)
}

fn push_header(output: &mut Vec<u8>, key: Key<'_>, hit: &Hit, with_cas: bool) {
    output.extend_from_slice(b"VALUE ");
    output.extend_from_slice(&key);
    output.push(b' ');
    push_decimal(output, u64::from(Metadata::flags(hit.metadata())));
    output.push(b' ');
    push_decimal(output, hit.len());
    if with_cas {
        output.push(b' ');
        push_decimal(output, Item::of(hit.metadata()).cas.unwrap_or(hit.cas()));
    }
    output.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use std::future::{Future, poll_fn};
    use std::pin::pin;
    use std::sync::Arc;

    use super::super::{Service, Shared, serve};
    use crate::cache::{Cache, Condition, StoreOptions};
    use crate::clock::Clock;
    use crate::server::access::Access;
    use crate::server::test_peer::TestPeer;
    use crate::server::{Options, Server};

    #[tokio::test]
    async fn line_value_and_end_leave_in_one_write() {
        let server = Server::new(Options::default(), Cache::simulated(Clock::system()).await);
        let service = Arc::new(Service::new(&server, 0, &Shared::new()));
        for len in [0, 100, 4000, 8 << 10, 64 << 10, 200 << 10] {
            let options = StoreOptions::default();
            let body = vec![b'x'; len];
            let stored = server.cache.put(b"key", &body, Condition::Always, &options);
            stored.await.unwrap();
            let peer = TestPeer::saying(&[b"get key\r\n"]);
            let writes = peer.writes();
            serve(peer, Arc::clone(&service), Arc::default(), Access::default()).await;
            let mut expected = format!("VALUE key 0 {len}\r\n").into_bytes();
            expected.extend_from_slice(&body);
            expected.extend_from_slice(b"\r\nEND\r\n");
            assert!(*writes.lock() == [expected], "{} writes of {len} B", writes.lock().len());
        }
    }

    /// How often a connection that sends `what` gives way to others before it ends, and the most keys
    /// that it looks up without giving way.
    async fn turns_of_others(what: Vec<u8>) -> (usize, u64) {
        let server = Server::new(Options::default(), Cache::simulated(Clock::system()).await);
        let service = Arc::new(Service::new(&server, 0, &Shared::new()));
        let options = StoreOptions::default();
        let stored = server.cache.put(b"key", b"value", Condition::Always, &options);
        stored.await.unwrap();
        let peer = TestPeer::saying(&[&what]);
        let mut connection = pin!(serve(peer, service, Arc::default(), Access::default()));
        let (mut turns, mut keys_max) = (0, 0);
        poll_fn(|cx| {
            let keys = || server.counters.snapshot().counts.cmd_get;
            let before = keys();
            let polled = connection.as_mut().poll(cx);
            turns += usize::from(polled.is_pending());
            keys_max = keys_max.max(keys() - before);
            polled
        })
        .await;
        (turns, keys_max)
    }

    #[tokio::test]
    async fn many_keys_and_many_commands_give_way_to_others() {
        // A task's budget is 128 units.
        let keys = 5000;
        for key in ["key", "absent"] {
            let line = format!("get{}\r\n", format!(" {key}").repeat(keys));
            let (turns, keys_max) = turns_of_others(line.into_bytes()).await;
            assert!(turns >= keys / 64, "{turns} turns of others in a line of {keys} keys");
            assert!(keys_max <= 65, "{keys_max} keys in one turn");
            let commands = format!("get {key}\r\n").repeat(keys);
            let (turns, keys_max) = turns_of_others(commands.into_bytes()).await;
            assert!(turns >= keys / 128, "{turns} turns of others in {keys} commands");
            assert!(keys_max <= 129, "{keys_max} commands in one turn");
        }
        let silent = "delete absent noreply\r\n".repeat(keys);
        let (turns, _) = turns_of_others(silent.into_bytes()).await;
        assert!(turns >= keys / 128, "{turns} turns of others in {keys} commands without answers");
    }
}
