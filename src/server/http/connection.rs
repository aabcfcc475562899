//! One HTTP connection: requests one after the other, their answers, and how it ends.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use tokio::task::coop::consume_budget;
use tokio::time::Instant;

use super::body::AnswerBody;
use super::refusal::Refusal;
use super::request_body::{Remainder, RequestBody};
use super::running::Running;
use super::service::{Answer, Service, plain};
use super::wire::{Socket, Wire};
use crate::cache::TruncatedBody;
use crate::fair_memory::Held;
use crate::server::access::Access;
use crate::server::buffers::BUFFER_LEN;
use crate::server::codec::fault::Fault;
use crate::server::codec::head::RequestHead;
use crate::server::codec::head_reader::{Found, HeadReader};
use crate::server::codec::{AnswerHead, BodyEnd};
use crate::server::counters::Shard;
use crate::server::gate::Gate;

/// What a peer may still send behind its last answer, for how long, and how long it may be silent:
/// the answer reaches those only that can send all they have, and a close in between may destroy it.
const LINGER_LEN_MAX: u64 = 256 << 20;
const LINGER_TIMEOUT: Duration = Duration::from_secs(10);
const LINGER_SILENCE: Duration = Duration::from_secs(1);
/// Shorter bodies leave together with their head: to copy them costs less than another slice.
pub(in crate::server) const COPIED_LEN_MAX: usize = 8 << 10;

/// Counts one connection while it lives.
struct Opened(Arc<Shard>);

impl Opened {
    fn count(shard: &Arc<Shard>) -> Opened {
        shard.http.connections_opened.bump();
        Opened(shard.clone())
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.http.connections_closed.bump();
    }
}

/// Of the 128 units that tokio gives a task for one turn: a client may send many requests at once.
const REQUEST_COST: u32 = 4;

/// How a connection ends.
enum End {
    /// Nothing was asked for since the last answer.
    Quiet,
    /// The peer may still be sending.
    Linger,
}

/// A request, or why there is none.
#[expect(clippy::large_enum_variant, reason = "a box would be an allocation for each request")]
enum Asked {
    /// With the memory for a long one.
    Head(RequestHead, Option<Box<Held>>),
    Refused(Fault),
    Nothing,
}

/// What a listener gives for requests.
pub(in crate::server) trait Answering {
    /// Answers one request, the body of which is on `wire`. A closed `gate` makes this answer the last one.
    fn answer<S: Socket>(
        &self,
        wire: &mut Wire<S>,
        request: (RequestHead, Option<Box<Held>>),
        gate: &Gate,
    ) -> impl Future<Output = io::Result<Answered>> + Send;
}

/// What a connection knows after an answer.
pub(in crate::server) struct Answered {
    /// The client means to go on.
    pub(in crate::server) may_go_on: bool,
    /// The answer said so too.
    pub(in crate::server) keeps_alive: bool,
    /// What is left of the body of the request.
    pub(in crate::server) remainder: Remainder,
    /// The body of the answer did not break off.
    pub(in crate::server) is_whole: bool,
}

/// Serves one connection until either side ends it.
pub(in crate::server) async fn serve<S: Socket>(
    stream: S,
    service: Arc<Service>,
    gate: Arc<Gate>,
    answering: impl Answering,
) {
    let _opened = Opened::count(&service.shard);
    let mut wire = Wire::new(stream, service);
    let ended = match converse(&mut wire, &gate, &answering).await {
        Ok(End::Linger) => linger(&mut wire).await,
        Ok(End::Quiet) => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection ended early");
    }
    wire.release();
}

async fn converse<S: Socket>(
    wire: &mut Wire<S>,
    gate: &Gate,
    answering: &impl Answering,
) -> io::Result<End> {
    let mut heads = HeadReader::default();
    loop {
        let request = match next_head(wire, &mut heads, gate).await? {
            Asked::Head(head, kept) => (head, kept),
            Asked::Refused(fault) => {
                wire.service.shard.protocol_errors.bump();
                // Its client may take its time.
                wire.release();
                send_refusal(wire, fault).await?;
                return Ok(End::Linger);
            }
            Asked::Nothing => return Ok(End::Quiet),
        };
        for _ in 0..REQUEST_COST {
            consume_budget().await;
        }
        let Answered { may_go_on, keeps_alive, remainder, is_whole } =
            answering.answer(wire, request, gate).await?;
        if !is_whole {
            return Ok(End::Linger);
        }
        if !keeps_alive {
            let is_last = !may_go_on && remainder == Remainder::Skip(0);
            let is_quiet = is_last && wire.unread().is_empty();
            return Ok(if is_quiet { End::Quiet } else { End::Linger });
        }
        if let Remainder::Skip(len) = remainder
            && !skip(wire, len, gate).await?
        {
            return Ok(End::Linger);
        }
    }
}

/// Answers with objects of the cache.
pub(in crate::server) struct Objects(pub(in crate::server) Access);

impl Answering for Objects {
    async fn answer<S: Socket>(
        &self,
        wire: &mut Wire<S>,
        (head, kept): (RequestHead, Option<Box<Held>>),
        gate: &Gate,
    ) -> io::Result<Answered> {
        let service = wire.service.clone();
        let _running = Running::begin(&service.shard);
        let mut body = RequestBody::new(wire, &head, kept);
        let answer = service.answer(&head, &mut body, self.0).await;
        let remainder = body.end()?;
        // A client that does not read its answer keeps nothing long of its request.
        let RequestHead { method, is_http_1_0, keeps_alive: may_go_on, headers, target, .. } = head;
        drop((headers, target));
        service.shard.http.count_request(&method, answer.status());
        let keeps_alive = may_go_on && remainder != Remainder::Unknown && !gate.is_closed();
        let is_whole = send(wire, (&method, is_http_1_0), answer, keeps_alive).await?;
        Ok(Answered { may_go_on, keeps_alive, remainder, is_whole })
    }
}

/// Bytes that a request keeps of a head of `len` bytes until it is answered: a copy, and as much of metadata.
/// Those of a short one are not counted.
fn kept_len(len: usize) -> usize {
    Some(2 * len).filter(|bytes| *bytes > BUFFER_LEN).unwrap_or(0)
}

async fn next_head<S: Socket>(
    wire: &mut Wire<S>,
    heads: &mut HeadReader,
    gate: &Gate,
) -> io::Result<Asked> {
    wire.begin_head();
    loop {
        match heads.find(wire.unread()) {
            Ok(Found::Head(head, len)) => {
                let bytes = kept_len(len);
                if bytes == 0 {
                    wire.consume(len);
                    return Ok(Asked::Head(head, None));
                }
                let mut memory = wire.take_out(len);
                if memory.charge(bytes).await.is_err() {
                    return Ok(Asked::Refused(Fault::MEMORY));
                }
                return Ok(Asked::Head(head, Some(Box::new(memory))));
            }
            Ok(Found::Nothing(done)) => wire.consume(done),
            Err(fault) => return Ok(Asked::Refused(fault)),
        }
        let is_begun = !wire.unread().is_empty();
        let read = match wire.read_head(gate, is_begun).await {
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory => {
                return Ok(Asked::Refused(Fault::MEMORY));
            }
            read => read?,
        };
        if read == 0 {
            return Ok(if is_begun { Asked::Refused(Fault::HEAD_CUT) } else { Asked::Nothing });
        }
    }
}

/// Reads and drops bytes of a body; false if they do not come before the end of the connection.
async fn skip<S: Socket>(wire: &mut Wire<S>, mut len: u64, gate: &Gate) -> io::Result<bool> {
    loop {
        let skipped = wire.unread().len().min(usize::try_from(len).unwrap_or(usize::MAX));
        wire.consume(skipped);
        len -= skipped as u64;
        if len == 0 {
            return Ok(true);
        }
        if wire.read_unneeded(gate).await? == 0 {
            return Ok(false);
        }
    }
}

/// Sends an answer; false if its body breaks off.
async fn send<S: Socket>(
    wire: &mut Wire<S>,
    (method, is_http_1_0): (&Method, bool),
    answer: Answer,
    keeps_alive: bool,
) -> io::Result<bool> {
    let (parts, body) = answer.into_parts();
    let head = AnswerHead {
        status: parts.status,
        headers: &parts.headers,
        end: BodyEnd::Length(body.len()),
        keeps_alive,
        is_http_1_0,
    };
    let body = if head.sends_body(method) { body } else { AnswerBody::empty() };
    send_parts(wire, &head, body).await
}

/// Sends the answer to what is no request. The connection ends with it.
async fn send_refusal<S: Socket>(wire: &mut Wire<S>, fault: Fault) -> io::Result<()> {
    let (parts, body) = plain(Refusal::from(fault)).into_parts();
    let head = AnswerHead {
        status: parts.status,
        headers: &parts.headers,
        end: BodyEnd::Length(body.len()),
        keeps_alive: false,
        is_http_1_0: false,
    };
    send_parts(wire, &head, body).await.map(drop)
}

async fn send_parts<S: Socket>(
    wire: &mut Wire<S>,
    head: &AnswerHead<'_>,
    mut body: AnswerBody,
) -> io::Result<bool> {
    // The head leaves together with the first piece.
    let mut piece = body.next().await;
    let first = piece.as_ref().ok().and_then(Option::as_deref).unwrap_or_default();
    let mut output = wire.service.buffers.take_output();
    head.write(&mut output, wire.service.cache.clock());
    if first.len() <= COPIED_LEN_MAX {
        output.extend_from_slice(first);
        wire.write(&output, &[]).await?;
    } else {
        wire.write(&output, first).await?;
    }
    wire.service.buffers.give_output(output);
    loop {
        match piece {
            Ok(Some(sent)) => drop(sent),
            Ok(None) => return Ok(true),
            Err(TruncatedBody) => {
                wire.service.shard.values_truncated.bump();
                return Ok(false);
            }
        }
        piece = body.next().await;
        if let Ok(Some(next)) = &piece {
            wire.write(next, &[]).await?;
        }
    }
}

/// Lets the peer read the last answer before the connection is closed.
async fn linger<S: Socket>(wire: &mut Wire<S>) -> io::Result<()> {
    wire.shut_down().await?;
    let end = Instant::now() + LINGER_TIMEOUT;
    let mut dropped = 0;
    while dropped < LINGER_LEN_MAX && Instant::now() < end {
        let unread = wire.unread().len();
        wire.consume(unread);
        match wire.read_within(LINGER_SILENCE).await? {
            0 => break,
            len => dropped += len as u64,
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
