//! One connection: reads, executes complete commands in order, answers, rests.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::answers::push_stored;
use super::arithmetic::Changed;
use super::base64;
use super::body::{store_arriving, store_received, swallow};
use super::budget::{COMMAND_COST, spend};
use super::command::{Command, Key, Store};
use super::meta_get::meta_get;
use super::parse::{Next, Parsed, RETRIEVAL_LEN_MAX, parse};
use super::peer::{Peer, Socket};
use super::permitted::{Refused, refusal};
use super::refused::BAD_FORMAT;
use super::retrieval;
use super::service::Service;
use super::stats::VERSION;
use super::storage::GONE;
use super::timed::{Limits, Timed, Wait};
use crate::server::access::Access;
use crate::server::buffers::BUFFER_LEN;
use crate::server::gate::Gate;
use crate::server::input::Input;
use crate::server::memcached::closed::Closed;
use crate::server::presence::while_there;
use crate::server::turns::Turns;

/// Requests of the binary protocol begin with this byte.
const BINARY_MAGIC: u8 = 0x80;
/// TLS begins with this byte. A client's first message holds names that others choose, line ends and all.
const TLS_HANDSHAKE: u8 = 0x16;
const BINARY_REFUSED: &str =
    "CLIENT_ERROR the binary protocol is not supported, use the text protocol";

const NO_MEMORY_READING: &str = "SERVER_ERROR out of memory reading request";

/// How many bytes a refused peer may still send, and for how long, before its connection is cut:
/// time for the error to reach it.
const LINGER_LEN_MAX: usize = 1 << 20;
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// Reads granted to a connection that a drain finds busy: enough for a command that arrives in
/// a few pieces.
const LAST_READS: u8 = 16;

struct Connection<S> {
    peer: Peer<Turns<Timed<S>>>,
    access: Access,
    input: Input,
    /// How much of the first unread line was searched for its end.
    searched: usize,
    /// How many bytes there must be before there is anything to do.
    needed: usize,
    /// How often it may still read for commands once its gate is closed.
    last_reads: u8,
}

/// Serves one connection until either side ends it.
pub(in crate::server) async fn serve<S: Socket>(
    stream: S,
    service: Arc<Service>,
    gate: Arc<Gate>,
    access: Access,
) {
    let options = &service.options;
    let limits =
        Limits { idle: options.memcached_idle_timeout, stall: options.memcached_stall_timeout };
    let peer = Peer::new(Turns::new(Timed::new(stream, limits)), service);
    let input = Input::new(RETRIEVAL_LEN_MAX);
    let mut connection =
        Connection { peer, access, input, searched: 0, needed: 0, last_reads: LAST_READS };
    let Err(closed) = connection.run(&gate).await;
    match closed {
        Closed::Normally => {}
        Closed::Refused => connection.linger().await,
        Closed::Truncated => connection.peer.service.shard.values_truncated.bump(),
        Closed::Failed(error) => connection.count_lost(&error),
    }
    connection.input.release(&connection.peer.service.buffers);
}

impl<S: Socket> Connection<S> {
    async fn run(&mut self, gate: &Gate) -> Result<std::convert::Infallible, Closed> {
        self.fill(gate).await?;
        if let Some(first @ (&BINARY_MAGIC | &TLS_HANDSHAKE)) = self.input.unread().first() {
            let is_binary = *first == BINARY_MAGIC;
            self.peer.service.shard.protocol_errors.bump();
            if is_binary {
                self.peer.push_line(BINARY_REFUSED);
                self.peer.flush().await?;
            }
            return Err(Closed::Refused);
        }
        loop {
            let processed = self.process().await;
            if !matches!(processed, Err(Closed::Failed(_))) {
                self.peer.flush().await?;
            }
            processed?;
            self.fill(gate).await?;
        }
    }

    /// Waits for bytes. A closed gate ends an idle connection at once, and a busy one after
    /// [`LAST_READS`] more reads, so that it cannot hold up a drain.
    async fn fill(&mut self, gate: &Gate) -> Result<(), Closed> {
        let Connection { peer, input, last_reads, .. } = self;
        if gate.is_closed() {
            *last_reads = last_reads.checked_sub(1).ok_or(Closed::Normally)?;
        }
        let Peer { stream, service, .. } = peer;
        stream.get_mut().set_idle(input.is_empty());
        let read = poll_fn(|cx| match input.poll_fill(cx, stream, &service.buffers) {
            Poll::Pending if input.is_empty() => gate.poll_closed(cx).map(|()| Ok(0)),
            polled => polled,
        })
        .await;
        stream.get_mut().set_idle(false);
        let read = match read {
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory => {
                peer.push_line(NO_MEMORY_READING);
                peer.flush().await?;
                return Err(Closed::Refused);
            }
            read => read?,
        };
        service.shard.bytes_read.add(read as u64);
        service.shard.memcached_bytes_read.add(read as u64);
        if read == 0 { Err(Closed::Normally) } else { Ok(()) }
    }

    /// Executes every command that is complete. Each counts against the budget that a task has
    /// before others get their turn.
    async fn process(&mut self) -> Result<(), Closed> {
        let Connection { peer, access, input, searched, needed, .. } = self;
        if input.unread().len() < *needed {
            return Ok(());
        }
        *needed = 0;
        loop {
            let decoded;
            let mut parsed = parse(input.unread(), searched);
            if let Parsed::Command { command, .. } = &mut parsed
                && let Some(key) = command.encoded_key()
            {
                // The parser has seen that it can be decoded.
                decoded = base64::decode(&key).unwrap_or_default();
                *command = command.with_decoded_key(Key::decoded(&decoded));
            }
            if let Parsed::Command { command, line_len } = &parsed
                && let Some(refused) = refusal(command, *access)
            {
                let line_len = *line_len;
                input.consume(line_len);
                refuse(peer, input, refused).await?;
                spend(COMMAND_COST, &peer.service.shard).await;
                continue;
            }
            match parsed {
                Parsed::Incomplete => return Ok(()),
                Parsed::TooLong(reply) => {
                    peer.service.shard.protocol_errors.bump();
                    peer.push_line(reply);
                    return Err(Closed::Refused);
                }
                Parsed::Refused { reply, line_len, next } => {
                    peer.service.shard.protocol_errors.bump();
                    if let Some(reply) = reply {
                        peer.push_line(reply);
                    }
                    input.consume(line_len);
                    match next {
                        Next::Command => {}
                        Next::Value(len) if !peer.service.is_malformed(len) => {
                            // Sends the refusal at once: the client may stop sending.
                            peer.flush().await?;
                            swallow(peer, input, len).await?;
                        }
                        Next::Value(_) | Next::Unknown => return Err(Closed::Refused),
                    }
                }
                Parsed::Command { command: Command::Store(store), .. }
                    if peer.service.is_malformed(store.body_len) =>
                {
                    peer.service.shard.protocol_errors.bump();
                    answer(peer, BAD_FORMAT, store.reply.noreply());
                    return Err(Closed::Refused);
                }
                Parsed::Command { command: Command::Store(store), line_len } => {
                    let whole_len = whole_len(&store, line_len);
                    if input.unread().len() < whole_len
                        && whole_len <= BUFFER_LEN
                        && !peer.service.is_too_large(&store)
                    {
                        *needed = whole_len;
                        return Ok(());
                    }
                    peer.service.shard.cmd_set.bump();
                    peer.service.shard.memcached_sets.bump();
                    count_meta(peer, &Command::Store(store));
                    let received = input.unread().get(line_len..whole_len);
                    if let Some(received) = received.filter(|_| !peer.service.is_too_large(&store))
                    {
                        let outcome = store_received(peer, store, received).await;
                        let len = line_len + received.len();
                        push_stored(peer.output(), &store, outcome);
                        input.consume(len);
                    } else {
                        // The line makes room for the rest of the value, so what is needed of it is copied.
                        let (key, flags) = (store.key.to_vec(), store.reply.flags().to_vec());
                        let reply = store.reply.with_flags(&flags);
                        let store = Store { key: Key::decoded(&key), reply, ..store };
                        input.consume(line_len);
                        store_later(peer, input, store).await?;
                    }
                }
                Parsed::Command { command, line_len } => {
                    count_meta(peer, &command);
                    execute(peer, command).await?;
                    input.consume(line_len);
                }
            }
            spend(COMMAND_COST, &peer.service.shard).await;
            peer.relieve().await?;
        }
    }

    fn count_lost(&self, error: &io::Error) {
        let shard = &self.peer.service.shard;
        match self.peer.stream.get_ref().ended() {
            Some(Wait::Idle) => shard.idle_timeouts.bump(),
            Some(Wait::Stalled) => shard.stall_timeouts.bump(),
            None => {}
        }
        tracing::debug!(%error, "connection lost");
    }

    /// Lets the peer read the error before the connection is closed: closing while the peer still
    /// sends would reset it.
    async fn linger(&mut self) {
        let drop_what_comes = async {
            self.peer.stream.shutdown().await?;
            let mut dropped = 0;
            let mut scratch = vec![0; 4096];
            while dropped < LINGER_LEN_MAX {
                match self.peer.stream.read(&mut scratch).await? {
                    0 => break,
                    len => dropped += len,
                }
            }
            io::Result::Ok(())
        };
        // The connection is closed next in any case.
        let _ = tokio::time::timeout(LINGER_TIMEOUT, drop_what_comes).await;
    }
}

/// Answers a command that is not permitted here, and drops its value.
async fn refuse<S: Socket>(
    peer: &mut Peer<S>,
    input: &mut Input,
    refused: Refused,
) -> io::Result<()> {
    peer.service.shard.protocol_errors.bump();
    answer(peer, refused.reply, refused.noreply);
    let Some(body_len) = refused.body_len else { return peer.relieve().await };
    // Sends the refusal at once: the client may stop sending.
    peer.flush().await?;
    swallow(peer, input, body_len).await
}

/// Length of the line, the value and its line end.
fn whole_len(store: &Store<'_>, line_len: usize) -> usize {
    let value_len = usize::try_from(store.body_len).unwrap_or(usize::MAX);
    line_len.saturating_add(value_len).saturating_add(2)
}

/// Executes a storage command whose value has not arrived whole.
async fn store_later<S: Socket>(
    peer: &mut Peer<S>,
    input: &mut Input,
    store: Store<'_>,
) -> io::Result<()> {
    if !peer.service.is_too_large(&store) {
        if let Some(outcome) = store_arriving(peer, input, store).await? {
            push_stored(peer.output(), &store, outcome);
        }
        return Ok(());
    }
    let outcome = peer.service.refuse_large(store).await;
    push_stored(peer.output(), &store, outcome);
    // Sends the refusal at once: the client may stop sending.
    peer.flush().await?;
    swallow(peer, input, store.body_len).await
}

async fn execute<S: Socket>(peer: &mut Peer<S>, command: Command<'_>) -> Result<(), Closed> {
    match command {
        Command::Get(retrieval) => return retrieval::get(peer, retrieval).await,
        Command::Store(_) => unreachable!("storage commands are executed with their value"),
        Command::Delete { key, noreply } => {
            let reply = match peer.service.delete(key).await {
                Ok(true) => "DELETED",
                Ok(false) => "NOT_FOUND",
                Err(error) => error,
            };
            answer(peer, reply, noreply);
        }
        Command::Arithmetic(change) => {
            let changed = {
                let changing = pin!(peer.service.change(change));
                while_there(&peer.stream, changing).await
            };
            let changed = changed.unwrap_or(Changed::Not(GONE));
            let service = Arc::clone(&peer.service);
            changed.push(peer.output(), &change, |life| service.ttl_secs(life));
        }
        // Rare, and no reason for all connections to be larger.
        Command::MetaGet(get) => return Box::pin(meta_get(peer, get)).await,
        Command::MetaDelete(delete) => {
            let mut output = Vec::new();
            Box::pin(peer.service.meta_delete(&mut output, delete)).await;
            peer.push(&output);
        }
        Command::MetaDebug { key, .. } => {
            let mut output = Vec::new();
            Box::pin(peer.service.describe(&mut output, key)).await;
            peer.push(&output);
        }
        Command::MetaNoOp => peer.push_line("MN"),
        Command::Touch { key, exptime, noreply } => {
            let reply = peer.service.touch(key, exptime).await;
            answer(peer, reply, noreply);
        }
        Command::FlushAll { delay, noreply } => {
            let reply = peer.service.flush_all(delay).await;
            answer(peer, reply, noreply);
        }
        Command::Stats(words) => {
            let text = peer.service.stats(words);
            peer.push(text.as_bytes());
        }
        Command::Version => {
            peer.push(b"VERSION ");
            peer.push_line(VERSION);
        }
        Command::Accepted { noreply } => answer(peer, "OK", noreply),
        Command::Quit => return Err(Closed::Normally),
    }
    Ok(())
}

fn count_meta<S: Socket>(peer: &Peer<S>, command: &Command<'_>) {
    if command.is_meta() {
        peer.service.shard.cmd_meta.bump();
    }
}

fn answer<S: Socket>(peer: &mut Peer<S>, reply: &str, noreply: bool) {
    if !noreply {
        peer.push_line(reply);
    }
}
