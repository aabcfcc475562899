//! The request on a connection: sends its head and its body, and sees that they fit.

use std::future::poll_fn;
use std::io::{self, IoSlice, Write as _};
use std::task::Poll;
use std::time::Duration;

use super::error::{UpstreamError, is_end};
use super::request_end::RequestEnd;
use super::stream::Stream;
use crate::server::codec::{Framing, RequestToUpstream};
use crate::server::patience::Patience;

/// How much of a request was sent.
#[derive(Debug, Default)]
pub(super) struct Request {
    at: At,
    keeps_alive: bool,
    /// What is written besides the body.
    output: Vec<u8>,
    patience: Patience,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum At {
    #[default]
    Head,
    /// So many bytes of the body are left.
    Length(u64),
    Chunks,
    End,
    /// Nobody knows how much was sent.
    Broken,
}

impl Request {
    /// Whether nothing was sent.
    pub(super) fn is_unsent(&self) -> bool {
        self.at == At::Head
    }

    /// Whether another request may follow.
    pub(super) fn is_over(&self) -> bool {
        self.at == At::End && self.keeps_alive
    }
}

/// Sends the request of a connection. A future of it that is dropped before it is ready leaves
/// the request broken: nothing more can be sent, but the response can be read.
#[derive(Debug)]
pub(in crate::server) struct RequestSender<'a> {
    pub(super) stream: &'a Stream,
    pub(super) request: &'a mut Request,
    pub(super) end: &'a RequestEnd,
    /// How long the upstream may take nothing.
    pub(super) limit: Duration,
}

impl RequestSender<'_> {
    /// Sends the head. Without a body the request ends with it.
    ///
    /// # Errors
    /// See [`UpstreamError::may_have_answered`].
    ///
    /// # Panics
    /// The connection had its request.
    pub(in crate::server) async fn send_head(
        &mut self,
        head: &RequestToUpstream<'_>,
    ) -> Result<(), UpstreamError> {
        assert!(self.request.at == At::Head, "each connection sends one request at a time");
        self.request.keeps_alive = !head.closes;
        head.write(&mut self.request.output);
        let next = match head.framing {
            Framing::None | Framing::Length(0) => At::End,
            Framing::Length(len) => At::Length(len),
            Framing::Chunked => At::Chunks,
        };
        self.write(&[], &[], next).await
    }

    /// Sends bytes of the body. All of those that the head announced end the request.
    ///
    /// # Errors
    /// [`UpstreamError::BodyLength`] if these are more than announced; none of them is sent then. See
    /// also [`UpstreamError::may_have_answered`].
    pub(in crate::server) async fn send_body(&mut self, bytes: &[u8]) -> Result<(), UpstreamError> {
        let len = bytes.len() as u64;
        match self.request.at {
            _ if bytes.is_empty() => Ok(()),
            At::Length(left) if len == left => self.write(bytes, &[], At::End).await,
            At::Length(left) if len < left => self.write(bytes, &[], At::Length(left - len)).await,
            At::Chunks => {
                // Writing to memory does not fail.
                let _ = write!(self.request.output, "{len:x}\r\n");
                self.write(bytes, b"\r\n", At::Chunks).await
            }
            At::Head | At::Length(_) | At::End => {
                self.fail();
                Err(UpstreamError::BodyLength)
            }
            At::Broken => Err(UpstreamError::NotTaken(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// The body has no more bytes.
    ///
    /// # Errors
    /// [`UpstreamError::BodyLength`] if more were announced. See also
    /// [`UpstreamError::may_have_answered`].
    pub(in crate::server) async fn end_body(&mut self) -> Result<(), UpstreamError> {
        match self.request.at {
            At::End => Ok(()),
            At::Chunks => self.write(b"0\r\n\r\n", &[], At::End).await,
            At::Head | At::Length(_) => {
                self.fail();
                Err(UpstreamError::BodyLength)
            }
            At::Broken => Err(UpstreamError::NotTaken(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// Sends the output, `bytes` and `end`; then the request is at `next`.
    async fn write(&mut self, bytes: &[u8], end: &[u8], next: At) -> Result<(), UpstreamError> {
        let Request { at, output, patience, .. } = &mut *self.request;
        *at = At::Broken;
        let ends_with_this = EndsOnDrop(Some(self.end));
        let mut slices = [IoSlice::new(output), IoSlice::new(bytes), IoSlice::new(end)];
        let mut slices = &mut slices[..];
        // Skips what is empty.
        IoSlice::advance_slices(&mut slices, 0);
        while !slices.is_empty() {
            patience.rest();
            let written = poll_fn(|cx| match self.stream.poll_write(slices, cx) {
                Poll::Pending => patience.poll_end(self.limit, cx).map(|()| None),
                written => written.map(Some),
            });
            match written.await {
                Some(Ok(0)) => {
                    return Err(UpstreamError::NotTaken(io::ErrorKind::WriteZero.into()));
                }
                Some(Ok(len)) => IoSlice::advance_slices(&mut slices, len),
                Some(Err(error)) if is_end(&error) => return Err(UpstreamError::NotTaken(error)),
                Some(Err(error)) => return Err(UpstreamError::Io(error)),
                None => return Err(UpstreamError::SendTimeout),
            }
        }
        output.clear();
        if next != At::End {
            ends_with_this.disarm();
        }
        *at = next;
        Ok(())
    }

    fn fail(&mut self) {
        self.request.at = At::Broken;
        self.end.note();
    }
}

/// However a write is given up, nothing more is sent, and the wait for the response begins.
struct EndsOnDrop<'a>(Option<&'a RequestEnd>);

impl EndsOnDrop<'_> {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for EndsOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(end) = self.0 {
            end.note();
        }
    }
}
