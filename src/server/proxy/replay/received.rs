//! The response in the body of a PUT, read by the parser of what upstreams send.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use tokio::task::coop::consume_budget;

use ::http::{Method, StatusCode};

use crate::cache::{StoreError, Writer};
use crate::fair_memory::FairMemory;
use crate::server::codec::fault::Fault;
use crate::server::codec::head_reader::HEAD_LEN_MAX;
use crate::server::codec::response_head::ResponseHead;
use crate::server::http::refusal::Refusal;
use crate::server::http::request_body::RequestBody;
use crate::server::http::wire::Socket;
use crate::server::proxy::upstream::{Response, UpstreamError};

const NO_RESPONSE: Refusal = Refusal {
    status: StatusCode::BAD_REQUEST,
    text: "the body is no response: it begins with a status line and header lines\n",
};
const NOT_WHOLE: Refusal = Refusal {
    status: StatusCode::BAD_REQUEST,
    text: "the response is shorter or longer than its head says\n",
};

/// The response in the body of a request.
pub(super) struct Received<'a, 'b, S> {
    body: &'a mut RequestBody<'b, S>,
    response: Response,
}

impl<'a, 'b, S: Socket> Received<'a, 'b, S> {
    pub(super) fn new(body: &'a mut RequestBody<'b, S>) -> Received<'a, 'b, S> {
        Received { body, response: Response::default() }
    }

    /// The head, which comes first.
    pub(super) async fn head(&mut self, memory: &FairMemory) -> Result<ResponseHead, Refusal> {
        let (mut fed, mut charged) = (0, 0);
        let mut kept = memory.hold(0);
        loop {
            let head = self
                .response
                .take_head(&Method::GET)
                .map_err(|fault| Refusal { status: StatusCode::BAD_REQUEST, text: fault.text })?;
            match head {
                // The origin told its client that it is at work.
                Some(head) if head.status.is_informational() => continue,
                Some(head) => return Ok(head),
                None if fed >= HEAD_LEN_MAX => return Err(NO_RESPONSE),
                None => {}
            }
            // One that comes at once needs no memory of its own.
            if fed > 0 {
                kept.charge(fed - charged).await.map_err(|_| Refusal::from(Fault::MEMORY))?;
                charged = fed;
                kept.await_sender();
            }
            let next = {
                let mut next = pin!(self.body.next());
                let next = poll_fn(|cx| match next.as_mut().poll(cx) {
                    Poll::Pending => kept.poll_lost(cx).map(|_| Err(Fault::MEMORY.into())),
                    Poll::Ready(next) => Poll::Ready(next.map_err(Refusal::from)),
                });
                next.await?.ok_or(NO_RESPONSE)?
            };
            kept.sent(next.len()).map_err(|_| Refusal::from(Fault::MEMORY))?;
            fed += next.len();
            self.response.feed(next);
        }
    }

    /// Length of the body in bytes, if its head or that of the request says it.
    pub(super) fn body_len(&self) -> Option<u64> {
        let until_close = || Some(self.response.came_until_close()? + self.body.len()?);
        self.response.body_len().or_else(until_close)
    }

    /// Stores the body. The inner error is that of the store.
    pub(super) async fn store(
        &mut self,
        writer: &mut Writer,
    ) -> Result<Result<(), StoreError>, Refusal> {
        loop {
            consume_budget().await;
            if let Some(piece) = self.piece()? {
                if let Err(error) = writer.write_chunk(&piece).await {
                    return Ok(Err(error));
                }
                continue;
            }
            if self.response.is_over_full() {
                return Err(NOT_WHOLE);
            }
            let bytes = tokio::select! {
                biased;
                bytes = self.body.next() => bytes?,
                error = writer.lost() => return Ok(Err(error)),
            };
            match bytes {
                Some(bytes) => {
                    let (body, rest) = bytes.split_at(self.response.pass(bytes.len()));
                    if let Err(error) = writer.write_chunk(body).await {
                        return Ok(Err(error));
                    }
                    self.response.feed(rest);
                }
                None if self.response.is_whole() => return Ok(Ok(())),
                None => return Err(NOT_WHOLE),
            }
        }
    }

    /// What has come of the body; `None` if nothing has.
    fn piece(&mut self) -> Result<Option<Bytes>, Refusal> {
        let piece = self.response.take_piece().map_err(|error| match error {
            UpstreamError::Malformed(fault) => {
                Refusal { status: StatusCode::BAD_REQUEST, text: fault.text }
            }
            _ => NOT_WHOLE,
        })?;
        Ok(piece.filter(|piece| !piece.is_empty()))
    }
}
