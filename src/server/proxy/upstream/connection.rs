//! A connection to an upstream with one request and its response.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::Method;
use http::header::UPGRADE;
use tokio::sync::OwnedSemaphorePermit;

use super::error::UpstreamError;
use super::idle::Idle;
use super::request::{Request, RequestSender};
use super::request_end::RequestEnd;
use super::response::{Response, ResponseReceiver};
use super::stream::Stream;
use crate::server::codec::RequestToUpstream;
use crate::server::codec::response_head::ResponseHead;
use crate::server::proxy::options::UpstreamOptions;

/// A connection to an upstream, for one request and its response. Dropped, it waits for the next
/// request if both are over and both sides mean to go on; else it is closed.
#[derive(Debug)]
pub(in crate::server) struct Connection {
    stream: Arc<Stream>,
    options: Arc<UpstreamOptions>,
    is_reused: bool,
    request: Request,
    end: RequestEnd,
    response: Response,
    idle: Arc<Idle>,
    /// Given back last.
    _leave: OwnedSemaphorePermit,
}

impl Connection {
    pub(super) fn new(
        stream: Arc<Stream>,
        is_reused: bool,
        options: &Arc<UpstreamOptions>,
        idle: &Arc<Idle>,
        leave: OwnedSemaphorePermit,
    ) -> Connection {
        Connection {
            stream,
            options: options.clone(),
            is_reused,
            request: Request::default(),
            end: RequestEnd::default(),
            response: Response::default(),
            idle: idle.clone(),
            _leave: leave,
        }
    }

    #[cfg(test)]
    /// Whether an earlier request was sent on it: it may be closed any moment.
    pub(in crate::server) fn is_reused(&self) -> bool {
        self.is_reused
    }

    /// Both halves, which go on at one time: the response may come before the request was sent whole.
    pub(in crate::server) fn split(&mut self) -> (RequestSender<'_>, ResponseReceiver<'_>) {
        let (stream, end) = (&*self.stream, &self.end);
        let limit = self.options.between_bytes_timeout;
        let sender = RequestSender { stream, request: &mut self.request, end, limit };
        let receiver = ResponseReceiver {
            stream,
            response: &mut self.response,
            end,
            is_reused: self.is_reused,
            first_byte_timeout: self.options.first_byte_timeout,
            between_bytes_timeout: limit,
        };
        (sender, receiver)
    }

    /// See [`RequestSender::send_head`].
    pub(in crate::server) async fn send_head(
        &mut self,
        head: &RequestToUpstream<'_>,
    ) -> Result<(), UpstreamError> {
        self.response.may_upgrade = head.headers.contains_key(UPGRADE);
        self.split().0.send_head(head).await
    }

    #[cfg(test)]
    /// See [`RequestSender::send_body`].
    pub(in crate::server) async fn send_body(&mut self, bytes: &[u8]) -> Result<(), UpstreamError> {
        self.split().0.send_body(bytes).await
    }

    #[cfg(test)]
    /// See [`RequestSender::end_body`].
    pub(in crate::server) async fn end_body(&mut self) -> Result<(), UpstreamError> {
        self.split().0.end_body().await
    }

    /// See [`ResponseReceiver::read_head`].
    pub(in crate::server) async fn read_head(
        &mut self,
        method: &Method,
    ) -> Result<ResponseHead, UpstreamError> {
        self.split().1.read_head(method).await
    }

    /// See [`ResponseReceiver::next_chunk`].
    pub(in crate::server) async fn next_chunk(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        self.split().1.next_chunk().await
    }

    /// Its bytes, once it no longer speaks HTTP.
    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// What came behind the last head.
    pub(super) fn take_input(&mut self) -> BytesMut {
        self.response.take_input()
    }

    /// Bytes of the response's body that are left, if they are known.
    pub(in crate::server) fn body_len(&self) -> Option<u64> {
        self.response.body_len()
    }

    #[cfg(test)]
    /// Lets others use it, if that can be.
    pub(in crate::server) fn give_back(self) {
        drop(self);
    }

    fn is_reusable(&self) -> bool {
        let is_unused = self.request.is_unsent() && self.response.is_unread();
        is_unused || (self.request.is_over() && self.response.is_over())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.is_reusable() {
            self.idle.give(self.stream.clone());
        }
    }
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
#[cfg(test)]
#[path = "timeout_tests.rs"]
mod timeout_tests;
