//! One connection of a client: requests one after the other, their answers, and how it ends.

use std::io;
use std::sync::Arc;

use ::http::Method;
use tokio::task::coop::consume_budget;

use super::answer::Answer;
use super::body::{Body, Broken, Origin};
use super::service::Service;
use crate::server::codec::head_reader::HeadReader;
use crate::server::codec::{AnswerHead, BodyEnd};
use crate::server::gate::Gate;
use crate::server::http::connection::{
    Asked, COPIED_LEN_MAX, Opened, REQUEST_COST, linger, next_head, send_refusal, skip,
};
use crate::server::http::request_body::{Remainder, RequestBody};
use crate::server::http::wire::{Socket, Wire};

/// Longest body of unknown length that a client of HTTP/1.0 gets, in bytes.
const OF_1_0_LEN_MAX: usize = 1 << 20;

/// How a connection ends.
enum End {
    /// Nothing was asked for since the last answer.
    Quiet,
    /// The peer may still be sending.
    Linger,
    /// An answer broke off: what came of it must not look whole.
    Cut,
}

/// Serves one connection until either side ends it.
pub(in crate::server) async fn serve<S: Socket>(stream: S, service: Arc<Service>, gate: Arc<Gate>) {
    let _opened = Opened::count(&service.http.shard);
    let mut wire = Wire::new(stream, service.http.clone());
    let ended = match converse(&mut wire, &service, &gate).await {
        Ok(End::Linger) => linger(&mut wire).await,
        Ok(End::Quiet | End::Cut) => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection of a read-through listener ended early");
    }
    wire.release();
}

async fn converse<S: Socket>(
    wire: &mut Wire<S>,
    service: &Arc<Service>,
    gate: &Gate,
) -> io::Result<End> {
    let mut heads = HeadReader::default();
    loop {
        let (mut head, kept) = match next_head(wire, &mut heads, gate).await? {
            Asked::Head(head, kept) => (head, kept),
            Asked::Refused(fault) => {
                service.http.shard.protocol_errors.bump();
                wire.release();
                send_refusal(wire, fault).await?;
                return Ok(End::Linger);
            }
            Asked::Nothing => return Ok(End::Quiet),
        };
        for _ in 0..REQUEST_COST {
            consume_budget().await;
        }
        let mut body = RequestBody::new(wire, &head, kept);
        let mut answer = service.answer(&mut head, &mut body).await;
        if head.is_http_1_0 && answer.body.len().is_none() && head.method != Method::HEAD {
            answer = with_length(service, answer).await;
        }
        let remainder = body.end()?;
        let (method, is_http_1_0) = (head.method, head.is_http_1_0);
        let body_end = body_end(&answer, &method);
        let may_go_on = head.keeps_alive;
        let keeps_alive = may_go_on && remainder != Remainder::Unknown && !gate.is_closed();
        let head = AnswerHead {
            status: answer.status,
            headers: &answer.headers,
            end: body_end,
            keeps_alive,
            is_http_1_0,
        };
        let mut output = wire.service.buffers.take_output();
        head.write(&mut output, wire.service.cache.clock());
        let sends_body = head.sends_body(&method);
        if let Err(error) = send(wire, output, answer, (sends_body, body_end)).await? {
            tracing::debug!(reason = error.0, "an answer broke off");
            wire.service.shard.values_truncated.bump();
            return Ok(End::Cut);
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

/// The answer to a client of HTTP/1.0, which knows no chunks: its body ends with the connection if its
/// length is not told, and one that was cut off would look whole.
async fn with_length(service: &Service, mut answer: Answer) -> Answer {
    match answer.body.collect(OF_1_0_LEN_MAX).await {
        Ok(Some(body)) => Answer { body: Body::memory(body), ..answer },
        Ok(None) => service.unfit("a long body of unknown length needs HTTP/1.1"),
        Err(Broken(reason)) => service.unfit(&reason),
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
    answer: Answer,
    (sends_body, end): (bool, BodyEnd),
) -> io::Result<Result<(), Broken>> {
    let mut body = answer.body;
    if !sends_body {
        wire.write(&output, &[]).await?;
        wire.service.buffers.give_output(output);
        return Ok(Ok(()));
    }
    let (is_chunked, origin) = (end == BodyEnd::Chunked, body.origin());
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
                match origin {
                    Origin::Store => wire.service.shard.proxy.sent_of_store(piece.len() as u64),
                    Origin::Upstream => {
                        wire.service.shard.proxy.read_of_upstream(piece.len() as u64);
                    }
                    Origin::Fill => {}
                }
                if is_chunked {
                    output.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                }
                if piece.len() <= COPIED_LEN_MAX {
                    output.extend_from_slice(&piece);
                    wire.write(&output, &[]).await?;
                } else {
                    wire.write(&output, &piece).await?;
                }
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
