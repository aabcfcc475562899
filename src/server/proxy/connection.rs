//! One connection of a client: requests one after the other, their answers, and how it ends.

use std::io;
use std::sync::Arc;

use ::http::{Method, StatusCode};

use super::access_log::Entry;
use super::answer::Answer;
use super::body::{Body, Broken};
use super::service::Service;
use super::shelf::Shelf;
use super::tunnel::tunnel;
use crate::fair_memory::Held;
use crate::server::codec::head::RequestHead;
use crate::server::codec::{AnswerHead, BodyEnd};
use crate::server::gate::Gate;
use crate::server::http::connection::{self, Answered, Answering, COPIED_LEN_MAX};
use crate::server::http::request_body::{Remainder, RequestBody};
use crate::server::http::wire::{Socket, Wire};

/// Longest body of unknown length that a client of HTTP/1.0 gets, in bytes: what counts as waiting to be sent.
const OF_1_0_LEN_MAX: usize = 64 << 10;

/// Serves one connection until either side ends it.
pub(in crate::server) async fn serve<S: Socket>(stream: S, service: Arc<Service>, gate: Arc<Gate>) {
    connection::serve(stream, service.http.clone(), gate, ReadThrough(service)).await;
}

/// Answers from the shared cache and its upstream.
struct ReadThrough(Arc<Service>);

impl Answering for ReadThrough {
    async fn answer<S: Socket>(
        &self,
        wire: &mut Wire<S>,
        (mut head, kept): (RequestHead, Option<Box<Held>>),
        gate: &Gate,
    ) -> io::Result<Answered> {
        let ReadThrough(service) = self;
        let mut entry =
            service.shared.access_log.as_ref().map(|log| {
                Entry::begin(log, &service.options.name, &head, service.http.cache.clock())
            });
        let mut body = RequestBody::new(wire, &head, kept);
        let answer = service.answer(&mut head, &mut body).await;
        if answer.status == StatusCode::SWITCHING_PROTOCOLS {
            body.end()?;
            note(service, &answer, &mut entry);
            let idle = service.options.upstream.between_bytes_timeout;
            let ended = tunnel(wire, answer, idle, gate).await?;
            if let Some(entry) = &mut entry {
                entry.is_whole = ended.is_whole;
            }
            return Ok(ended);
        }
        let came = (&head.method, head.is_http_1_0, head.keeps_alive);
        let answer = fit(service, came, answer).await;
        note(service, &answer, &mut entry);
        let remainder = body.end()?;
        let (served, shard) = (answer.served, &service.http.shard);
        let sent = |len| {
            shard.proxy.sent(served, len);
            if let Some(entry) = &mut entry {
                entry.bytes += len;
            }
        };
        let ended = deliver(wire, came, (answer, remainder), gate, sent).await?;
        if let Some(entry) = &mut entry {
            entry.is_whole = ended.is_whole;
        }
        Ok(ended)
    }
}

/// Method of a request, whether it is of HTTP/1.0, and whether its client means to go on.
type Came<'a> = (&'a Method, bool, bool);

/// Sends an answer; `sent` is told of each piece of its body.
pub(super) async fn deliver<S: Socket>(
    wire: &mut Wire<S>,
    (method, is_http_1_0, may_go_on): Came<'_>,
    (answer, remainder): (Answer, Remainder),
    gate: &Gate,
    sent: impl FnMut(u64) + Send,
) -> io::Result<Answered> {
    let end = body_end(&answer, method);
    let keeps_alive = may_go_on && remainder != Remainder::Unknown && !gate.is_closed();
    let Answer { status, lines, headers, body, .. } = answer;
    let head = AnswerHead { status, headers: &headers, end, keeps_alive, is_http_1_0 };
    let mut output = wire.service.buffers.take_output();
    head.write_with(&lines, &mut output, wire.service.cache.clock());
    let body = if head.sends_body(method) { body } else { Body::absent(None) };
    let sent = send(wire, output, (body, end), sent).await?;
    if let Err(Broken(reason)) = &sent {
        tracing::debug!(reason, "an answer broke off");
        wire.service.shard.values_truncated.bump();
    }
    Ok(Answered { may_go_on, keeps_alive, remainder, is_whole: sent.is_ok() })
}

/// Counts an answer, and notes how it came about.
fn note(service: &Service, answer: &Answer, entry: &mut Option<Entry>) {
    service.http.shard.proxy.answered(answer.served);
    if let Some(entry) = entry {
        entry.status = Some(answer.status.as_u16());
        entry.result = Some(answer.served.word());
        entry.first_byte = answer.first_byte;
    }
}

/// An answer that its client can read. One of HTTP/1.0 knows no chunks: a body ends with the connection if its
/// length is not told, and one that was cut off would look whole.
pub(super) async fn fit(
    shelf: &Shelf,
    (method, is_http_1_0, _): Came<'_>,
    mut answer: Answer,
) -> Answer {
    if !is_http_1_0 || answer.body.len().is_some() || method == Method::HEAD {
        return answer;
    }
    match answer.body.collect(OF_1_0_LEN_MAX).await {
        Ok(Some(body)) => Answer { body: Body::memory(body), ..answer },
        Ok(None) => shelf.unfit("a long body of unknown length needs HTTP/1.1"),
        Err(Broken(reason)) => shelf.unfit(&reason),
    }
}

/// How the body of an answer ends.
fn body_end(answer: &Answer, method: &Method) -> BodyEnd {
    match answer.body.len() {
        Some(len) => BodyEnd::Length(len),
        None if method == Method::HEAD => BodyEnd::Unsaid,
        None => BodyEnd::Chunked,
    }
}

/// Sends head and body; the inner error is that of a body that broke off.
async fn send<S: Socket>(
    wire: &mut Wire<S>,
    mut output: Vec<u8>,
    (mut body, end): (Body, BodyEnd),
    mut sent: impl FnMut(u64) + Send,
) -> io::Result<Result<(), Broken>> {
    let is_chunked = end == BodyEnd::Chunked && body.comes();
    // The head leaves together with the first piece, if that is there.
    let mut waits = !output.is_empty();
    loop {
        let piece = {
            let mut next = std::pin::pin!(body.next());
            let ready = std::future::poll_fn(|cx| {
                std::task::Poll::Ready(match next.as_mut().poll(cx) {
                    std::task::Poll::Ready(piece) => Some(piece),
                    std::task::Poll::Pending => None,
                })
            })
            .await;
            match ready {
                Some(piece) => piece,
                None => {
                    if waits {
                        wire.write(&output, &[]).await?;
                        output.clear();
                        waits = false;
                    }
                    next.await
                }
            }
        };
        match piece {
            Err(broken) => {
                if waits {
                    wire.write(&output, &[]).await?;
                }
                return Ok(Err(broken));
            }
            Ok(None) => {
                if is_chunked {
                    output.extend_from_slice(b"0\r\n\r\n");
                }
                if !output.is_empty() {
                    wire.write(&output, &[]).await?;
                }
                output.clear();
                wire.service.buffers.give_output(output);
                return Ok(Ok(()));
            }
            Ok(Some(piece)) => {
                if is_chunked {
                    output.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                }
                if piece.len() <= COPIED_LEN_MAX {
                    output.extend_from_slice(&piece);
                    wire.write(&output, &[]).await?;
                } else {
                    wire.write(&output, &piece).await?;
                }
                sent(piece.len() as u64);
                output.clear();
                waits = false;
                if is_chunked {
                    // Leaves with what follows.
                    output.extend_from_slice(b"\r\n");
                }
            }
        }
    }
}
