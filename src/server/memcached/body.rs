//! Receives the value of a storage command and hands it to the cache as it arrives. If a value does
//! not arrive whole, the old one stays.

use std::future::{pending, poll_fn};
use std::io;

use crate::cache::{StoreError, StoreOptions, Writer};
use crate::clock::Stopwatch;
use crate::fair_memory::Held;
use crate::server::buffers::BUFFER_LEN;
use crate::server::counters::Operation;
use crate::server::input::Input;

use super::answers::{Outcome, push_stored};
use super::command::Store;
use super::peer::{Peer, Socket};
use super::storage::{GONE, Plan};
use crate::server::presence::while_there;

const LINE_END: &[u8] = b"\r\n";
const BAD_CHUNK: &str = "CLIENT_ERROR bad data chunk";

/// Executes a storage command whose value is in `received` already, with its line end.
pub(super) async fn store_received<S: Socket>(
    peer: &Peer<S>,
    store: Store<'_>,
    received: &[u8],
) -> Outcome {
    let (body, end) = received.split_at(received.len() - LINE_END.len());
    if end == LINE_END { execute(peer, store, body).await } else { refuse_unended(peer) }
}

/// Executes a storage command whose value is not too large and of which a part is in `input`. `None` if it
/// is answered already.
pub(super) async fn store_arriving<S: Socket>(
    peer: &mut Peer<S>,
    input: &mut Input,
    store: Store<'_>,
) -> io::Result<Option<Outcome>> {
    let mut missing = store.body_len;
    let received = match begin(peer, &store).await {
        Ok(target) => receive(peer, input, target, &mut missing).await?,
        Err(error) => Err(error),
    };
    let target = match received {
        Ok(target) => target,
        Err(error) => {
            refuse(peer, store, error).await?;
            swallow(peer, input, missing).await?;
            return Ok(None);
        }
    };
    while input.unread().len() < LINE_END.len() {
        peer.read_more(input).await?;
    }
    let is_ended = input.unread().starts_with(LINE_END);
    input.consume(LINE_END.len());
    if !is_ended {
        return Ok(Some(refuse_unended(peer)));
    }
    let (writer, plan) = match target {
        Target::Memory(held) => {
            return Ok(Some(match held.take() {
                Ok(body) => execute(peer, store, &body).await,
                Err(short) => Outcome::Failed(peer.service.failure(&short.into())),
            }));
        }
        Target::Cache(writer, plan) => (*writer, plan),
        Target::Nowhere(outcome) => return Ok(Some(outcome)),
    };
    let watch = Stopwatch::start();
    let result = writer.finalize(plan.condition).await;
    peer.service.shard.record(Operation::Store, watch.elapsed());
    Ok(Some(peer.service.stored_by(&plan, &store, result)))
}

/// Executes a storage command. One that makes a new value of the old one stops with its client.
async fn execute<S: Socket>(peer: &Peer<S>, store: Store<'_>, body: &[u8]) -> Outcome {
    if !store.verb.extends() {
        return peer.service.store(store, body).await;
    }
    // Rare, and no reason for all connections to be larger.
    let mut extended = Box::pin(peer.service.store(store, body));
    while_there(&peer.stream, extended.as_mut()).await.unwrap_or(Outcome::Failed(GONE))
}

/// Reads and drops the value of a refused command.
pub(super) async fn swallow<S: Socket>(
    peer: &mut Peer<S>,
    input: &mut Input,
    body_len: u64,
) -> io::Result<()> {
    let mut missing = body_len + LINE_END.len() as u64;
    loop {
        let dropped = take_len(input, missing);
        input.consume(dropped);
        missing -= dropped as u64;
        if missing == 0 {
            return Ok(());
        }
        peer.read_more(input).await?;
    }
}

/// Where a value goes as it arrives.
enum Target {
    /// Into the cache, as planned.
    Cache(Box<Writer>, Box<Plan>),
    /// Nowhere: it is known what becomes of it.
    Nowhere(Outcome),
    /// Into memory: the old value is needed with it.
    Memory(Held),
}

async fn begin<S: Socket>(peer: &Peer<S>, store: &Store<'_>) -> Result<Target, StoreError> {
    if store.verb.extends() {
        let len = usize::try_from(store.body_len).unwrap_or(usize::MAX);
        return Ok(Target::Memory(peer.service.buffers.memory().hold(len)));
    }
    let plan = match peer.service.plan(store).await {
        Ok(plan) => Box::new(plan),
        Err(outcome) => return Ok(Target::Nowhere(outcome)),
    };
    let options = StoreOptions { len_hint: Some(store.body_len), ..plan.options.clone() };
    let writer = peer.service.cache.store(&store.key, options)?;
    Ok(Target::Cache(Box::new(writer), plan))
}

/// Gives the `missing` bytes to `target` as they arrive: memory is taken for nothing else.
async fn receive<S: Socket>(
    peer: &mut Peer<S>,
    input: &mut Input,
    mut target: Target,
    missing: &mut u64,
) -> io::Result<Result<Target, StoreError>> {
    loop {
        let len = take_len(input, *missing);
        if len > 0 {
            let staged = target.write(&input.unread()[..len]).await;
            input.consume(len);
            *missing -= len as u64;
            if let Err(error) = staged {
                return Ok(Err(error));
            }
        }
        if *missing == 0 {
            return Ok(Ok(target));
        }
        // From here on nothing is unread.
        input.release(&peer.service.buffers);
        peer.flush().await?;
        // A short rest comes with the line end and what follows.
        if *missing >= BUFFER_LEN as u64 {
            match target.read_from(&mut peer.stream, *missing).await? {
                Err(error) => return Ok(Err(error)),
                Ok(Some(len)) => {
                    peer.count_read(len)?;
                    *missing -= len as u64;
                    continue;
                }
                Ok(None) => {}
            }
        }
        tokio::select! {
            biased;
            read = peer.read_more(input) => read?,
            error = target.lost() => return Ok(Err(error)),
        }
    }
}

impl Target {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        match self {
            Target::Cache(writer, _) => writer.write_chunk(bytes).await,
            Target::Nowhere(_) => Ok(()),
            Target::Memory(held) => Ok(held.stage(bytes).await?),
        }
    }

    async fn read_from<S: Socket>(
        &mut self,
        stream: &mut S,
        len_max: u64,
    ) -> io::Result<Result<Option<usize>, StoreError>> {
        match self {
            Target::Cache(writer, _) => writer.read_from(stream, len_max).await,
            Target::Nowhere(_) => Ok(Ok(None)),
            Target::Memory(held) => {
                let len_max = usize::try_from(len_max).unwrap_or(usize::MAX);
                let read = poll_fn(|cx| held.poll_read(cx, stream, len_max)).await?;
                Ok(read.map_err(StoreError::from))
            }
        }
    }

    /// Waits until its memory is taken for others.
    async fn lost(&self) -> StoreError {
        match self {
            Target::Cache(writer, _) => writer.lost().await,
            Target::Nowhere(_) => pending().await,
            Target::Memory(held) => poll_fn(|cx| held.poll_lost(cx)).await.into(),
        }
    }
}

/// Answers a store that failed before its value was there. As in memcached, a `set` removes the old value.
async fn refuse<S: Socket>(
    peer: &mut Peer<S>,
    store: Store<'_>,
    error: StoreError,
) -> io::Result<()> {
    if store.drops_old() {
        let _ = peer.service.cache.remove(&store.key).await;
    }
    let outcome = peer.service.stored(&store, Err(error));
    push_stored(peer.output(), &store, outcome);
    // At once: the client may stop sending.
    peer.flush().await
}

/// How many of the `missing` bytes are unread.
fn take_len(input: &Input, missing: u64) -> usize {
    input.unread().len().min(usize::try_from(missing).unwrap_or(usize::MAX))
}

fn refuse_unended<S: Socket>(peer: &Peer<S>) -> Outcome {
    peer.service.shard.protocol_errors.bump();
    Outcome::Failed(BAD_CHUNK)
}
