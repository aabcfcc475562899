//! Receives the value of a storage command and hands it to the cache: whole if it is small, in
//! pieces as they arrive if it is large. If a value does not arrive whole, the old one stays.

use std::io;

use bytes::BytesMut;

use crate::cache::{StoreError, StoreOptions, Writer};
use crate::clock::Stopwatch;
use crate::server::counters::Operation;

use super::command::{Store, Verb};
use super::input::Input;
use super::peer::{Peer, Socket};
use super::service::NO_MEMORY;
use super::storage::{GONE, WHOLE_LEN_MAX, condition};
use crate::server::presence::while_there;

const LINE_END: &[u8] = b"\r\n";
const BAD_CHUNK: &str = "CLIENT_ERROR bad data chunk";
/// Bytes handed to the cache at once while a value is streamed.
const PIECE_LEN: usize = 128 << 10;

/// Executes a storage command whose value is in `received` already, with its line end.
pub(super) async fn store_received<S: Socket>(
    peer: &Peer<S>,
    store: Store<'_>,
    received: &[u8],
) -> &'static str {
    let (body, end) = received.split_at(received.len() - LINE_END.len());
    if end == LINE_END { execute(peer, store, body).await } else { refuse_unended(peer) }
}

/// Executes a storage command whose value is not too large and begins in `input`.
pub(super) async fn store_arriving<S: Socket>(
    peer: &mut Peer<S>,
    input: &mut Input,
    store: Store<'_>,
) -> io::Result<&'static str> {
    let share = match store.body_len {
        0..=WHOLE_LEN_MAX => peer.service.input_budget.take(store.body_len),
        _ => None,
    };
    let Some(_share) = share else {
        if store.verb.extends() {
            peer.service.shard.store_no_memory.bump();
            swallow(peer, input, store.body_len).await?;
            return Ok(NO_MEMORY);
        }
        return stream(peer, input, store).await;
    };
    // At most WHOLE_LEN_MAX, so the conversion holds and the reservation is bounded.
    let len = usize::try_from(store.body_len).unwrap_or(usize::MAX).saturating_add(2);
    let mut received = BytesMut::with_capacity(len);
    take(input, &mut received, len);
    peer.read_into(&mut received, len).await?;
    if !received.ends_with(LINE_END) {
        return Ok(refuse_unended(peer));
    }
    received.truncate(len - LINE_END.len());
    Ok(execute(peer, store, &received).await)
}

/// Executes a storage command. One that makes a new value of the old one stops with its client.
async fn execute<S: Socket>(peer: &Peer<S>, store: Store<'_>, body: &[u8]) -> &'static str {
    if !store.verb.extends() {
        return peer.service.store(store, body).await;
    }
    // Rare, and no reason for all connections to be larger.
    let mut extended = Box::pin(peer.service.store(store, body));
    while_there(&peer.stream, extended.as_mut()).await.unwrap_or(GONE)
}

/// Reads and drops the value of a refused command.
pub(super) async fn swallow<S: Socket>(
    peer: &mut Peer<S>,
    input: &mut Input,
    body_len: u64,
) -> io::Result<()> {
    let mut missing = body_len + LINE_END.len() as u64;
    let mut piece = BytesMut::new();
    while missing > 0 {
        missing -= next_piece(peer, input, &mut piece, missing).await?;
    }
    Ok(())
}

async fn stream<S: Socket>(
    peer: &mut Peer<S>,
    input: &mut Input,
    store: Store<'_>,
) -> io::Result<&'static str> {
    let mut progress = begin(peer, store);
    let mut missing = store.body_len;
    let mut piece = BytesMut::new();
    while missing > 0 {
        missing -= next_piece(peer, input, &mut piece, missing).await?;
        progress = match progress {
            Ok(mut writer) => writer.write_chunk(&piece).await.map(|()| writer),
            failed => failed,
        };
    }
    let mut end = BytesMut::with_capacity(LINE_END.len());
    take(input, &mut end, LINE_END.len());
    peer.read_into(&mut end, LINE_END.len()).await?;
    if end != LINE_END {
        return Ok(refuse_unended(peer));
    }
    let watch = Stopwatch::start();
    let result = match progress {
        Ok(writer) => writer.finalize(condition(store.verb)).await,
        Err(error) => {
            // A refused set removes the old value, as memcached does.
            if store.verb == Verb::Set {
                let _ = peer.service.cache.remove(&store.key).await;
            }
            Err(error)
        }
    };
    peer.service.shard.record(Operation::Store, watch.elapsed());
    Ok(peer.service.stored(store.verb, result))
}

fn begin<S: Socket>(peer: &Peer<S>, store: Store<'_>) -> Result<Writer, StoreError> {
    let options = peer.service.store_options(store.flags, store.exptime);
    let options = StoreOptions { len_hint: Some(store.body_len), ..options };
    peer.service.cache.store(&store.key, options)
}

/// Fills `piece` with the next of the `missing` bytes of a value; returns their number.
async fn next_piece<S: Socket>(
    peer: &mut Peer<S>,
    input: &mut Input,
    piece: &mut BytesMut,
    missing: u64,
) -> io::Result<u64> {
    let len = usize::try_from(missing).unwrap_or(usize::MAX).min(PIECE_LEN);
    piece.clear();
    piece.reserve(len);
    take(input, piece, len);
    peer.read_into(piece, len).await?;
    Ok(len as u64)
}

/// Moves unread bytes to `target` until it holds `len` or none are left.
fn take(input: &mut Input, target: &mut BytesMut, len: usize) {
    let taken = input.unread().len().min(len - target.len());
    target.extend_from_slice(&input.unread()[..taken]);
    input.consume(taken);
}

fn refuse_unended<S: Socket>(peer: &Peer<S>) -> &'static str {
    peer.service.shard.protocol_errors.bump();
    BAD_CHUNK
}
