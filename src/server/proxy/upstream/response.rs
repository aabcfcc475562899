//! The response on a connection: reads its heads and its body, as far as they go and no further.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use http::{Method, StatusCode};
use tokio::time::{Sleep, sleep_until};

use super::error::{UpstreamError, is_end};
use super::request_end::RequestEnd;
use super::stream::Stream;
use crate::server::codec::chunks::{Chunks, Next};
use crate::server::codec::fault::Fault;
use crate::server::codec::head_reader::HEAD_LEN_MAX;
use crate::server::codec::response_head::{ResponseFraming, ResponseHead};
use crate::server::codec::response_reader::ResponseReader;
use crate::server::patience::Patience;

/// Bytes that are read at once of a head, and of a body. Pieces of a body are no longer.
const HEAD_READ_LEN: usize = 16 << 10;
const PIECE_LEN_MAX: usize = 64 << 10;
/// Shorter pieces are copied out of the buffer.
const COPIED_LEN_MAX: usize = 4 << 10;
/// Most interim responses before the final one.
const INTERIMS_MAX: usize = 16;

/// How much of a response was read.
#[derive(Debug, Default)]
pub(in crate::server::proxy) struct Response {
    at: At,
    keeps_alive: bool,
    /// Read and not given out.
    input: BytesMut,
    heads: ResponseReader,
    interims: usize,
    /// The request asks for another protocol.
    pub(super) may_upgrade: bool,
    /// For the head.
    timer: Option<Pin<Box<Sleep>>>,
    /// For the body.
    patience: Patience,
}

#[derive(Debug, Default)]
enum At {
    #[default]
    Head,
    /// So many bytes of the body are left, more than none.
    Length(u64),
    Chunks(Chunks),
    UntilClose,
    End,
    /// The response broke off.
    Broken,
}

impl Response {
    /// Whether nothing was read.
    pub(super) fn is_unread(&self) -> bool {
        matches!(self.at, At::Head) && self.interims == 0 && self.input.is_empty()
    }

    /// Whether another response may follow: this one was read whole, and nothing is behind it.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.at, At::End) && self.keeps_alive && self.input.is_empty()
    }

    /// Takes bytes in that come another way than on a connection to an upstream.
    pub(in crate::server::proxy) fn feed(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// Bytes of the body that have come and were not taken, if only the end of the connection ends it.
    pub(in crate::server::proxy) fn came_until_close(&self) -> Option<u64> {
        matches!(self.at, At::UntilClose).then_some(self.input.len() as u64)
    }

    /// How many of `len` bytes that come next are the body as it is, so that nobody needs to feed them: none if what
    /// came before is not used up, or in chunks.
    pub(in crate::server::proxy) fn pass(&mut self, len: usize) -> usize {
        if !self.input.is_empty() {
            return 0;
        }
        match &mut self.at {
            At::UntilClose => len,
            At::Length(left) => {
                let passed = usize::try_from(*left).unwrap_or(usize::MAX).min(len);
                *left -= passed as u64;
                if *left == 0 {
                    self.at = At::End;
                }
                passed
            }
            At::Head | At::Chunks(_) | At::End | At::Broken => 0,
        }
    }

    /// Whether something came behind the end of the response.
    pub(in crate::server::proxy) fn is_over_full(&self) -> bool {
        matches!(self.at, At::End) && !self.input.is_empty()
    }

    /// Whether the response is whole and nothing is behind it, if no more bytes come.
    pub(in crate::server::proxy) fn is_whole(&self) -> bool {
        self.input.is_empty() && matches!(self.at, At::End | At::UntilClose)
    }

    /// Bytes of the body that are left, if they are known.
    pub(in crate::server::proxy) fn body_len(&self) -> Option<u64> {
        match self.at {
            At::Length(left) => Some(left),
            At::End => Some(0),
            At::Head | At::Chunks(_) | At::UntilClose | At::Broken => None,
        }
    }

    /// What was read and not given out.
    pub(super) fn take_input(&mut self) -> BytesMut {
        std::mem::take(&mut self.input)
    }

    /// The next head, if it has come.
    pub(in crate::server::proxy) fn take_head(
        &mut self,
        method: &Method,
    ) -> Result<Option<ResponseHead>, Fault> {
        let Some((head, len)) = self.heads.find(&self.input, method)? else { return Ok(None) };
        self.input.advance(len);
        let is_upgrade = head.status == StatusCode::SWITCHING_PROTOCOLS;
        if is_upgrade && !self.may_upgrade {
            return Err(Fault::UPGRADE);
        }
        if head.status.is_informational() && !is_upgrade {
            self.interims += 1;
            return if self.interims > INTERIMS_MAX {
                Err(Fault::INTERIMS)
            } else {
                Ok(Some(head))
            };
        }
        self.timer = None;
        self.keeps_alive = head.keeps_alive && !is_upgrade;
        self.at = match head.framing {
            // What follows is no body: it ends with the connection.
            _ if is_upgrade => At::UntilClose,
            ResponseFraming::None | ResponseFraming::Length(0) => At::End,
            ResponseFraming::Length(len) => At::Length(len),
            ResponseFraming::Chunked => At::Chunks(Chunks::default()),
            ResponseFraming::UntilClose => At::UntilClose,
        };
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
        Ok(Some(head))
    }

    /// The next piece of the body, if it has come; an empty one at the end.
    ///
    /// # Panics
    /// The final head was not taken.
    pub(in crate::server::proxy) fn take_piece(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        let len = self.input.len().min(PIECE_LEN_MAX);
        let len = match &mut self.at {
            At::Length(left) if len > 0 => {
                let len = usize::try_from(*left).unwrap_or(usize::MAX).min(len);
                *left -= len as u64;
                if *left == 0 {
                    self.at = At::End;
                }
                len
            }
            At::UntilClose if len > 0 => len,
            At::Length(_) | At::UntilClose => return Ok(None),
            At::Chunks(chunks) => {
                let read = chunks.read(&self.input[..len]).map_err(UpstreamError::Malformed);
                let (done, next) = read?;
                self.input.advance(done);
                match next {
                    Next::Data(len) => len,
                    Next::Incomplete => return Ok(None),
                    Next::End => {
                        self.at = At::End;
                        0
                    }
                }
            }
            At::End => 0,
            At::Head => unreachable!("the head comes before the body"),
            At::Broken => return Err(UpstreamError::Cut),
        };
        let piece = self.input.split_to(len);
        // A long buffer would stay for as long as one short piece of it does.
        Ok(Some(if len > COPIED_LEN_MAX { piece.freeze() } else { Bytes::copy_from_slice(&piece) }))
    }

    /// Makes room for what is read next, and says for how much.
    fn make_room(&mut self) -> usize {
        let len = match self.at {
            At::Head => HEAD_READ_LEN.min(HEAD_LEN_MAX - self.input.len()),
            At::Length(left) => usize::try_from(left).unwrap_or(PIECE_LEN_MAX).min(PIECE_LEN_MAX),
            // A line that is not whole may stand before it.
            _ => PIECE_LEN_MAX.saturating_sub(self.input.len()).max(1),
        };
        self.input.reserve(len);
        len
    }

    fn poll_read(&mut self, stream: &Stream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let len = self.make_room();
        stream.poll_read(&mut self.input, len, cx)
    }

    /// Ready when the head is late, which it is `limit` after the request was sent.
    fn poll_late(&mut self, end: &RequestEnd, limit: Duration, cx: &mut Context<'_>) -> Poll<()> {
        let timer = match &mut self.timer {
            Some(timer) => timer,
            None => {
                let sent = ready!(end.poll(cx));
                self.timer.insert(Box::pin(sleep_until(sent + limit)))
            }
        };
        timer.as_mut().poll(cx)
    }
}

/// Reads the response of a connection. Each future of it can be dropped and asked for again: no byte
/// is lost.
#[derive(Debug)]
pub(in crate::server) struct ResponseReceiver<'a> {
    pub(super) stream: &'a Stream,
    pub(super) response: &'a mut Response,
    pub(super) end: &'a RequestEnd,
    pub(super) is_reused: bool,
    pub(super) first_byte_timeout: Duration,
    pub(super) between_bytes_timeout: Duration,
}

impl ResponseReceiver<'_> {
    /// The next head of the response to a `method`: interim ones first, then the final one. It may
    /// come before the request was sent whole; the timeout begins after that.
    ///
    /// # Errors
    /// See [`UpstreamError`]; asked again after one, the response broke off.
    ///
    /// # Panics
    /// The final head was given.
    pub(in crate::server) async fn read_head(
        &mut self,
        method: &Method,
    ) -> Result<ResponseHead, UpstreamError> {
        let read = self.try_read_head(method).await;
        if read.is_err() {
            self.response.at = At::Broken;
        }
        read
    }

    async fn try_read_head(&mut self, method: &Method) -> Result<ResponseHead, UpstreamError> {
        match self.response.at {
            At::Head => {}
            At::Broken => return Err(UpstreamError::Cut),
            _ => panic!("the final head was read"),
        }
        loop {
            let head = self.response.take_head(method).map_err(UpstreamError::Malformed)?;
            if let Some(head) = head {
                return Ok(head);
            }
            let (response, stream, end) = (&mut *self.response, self.stream, self.end);
            let limit = self.first_byte_timeout;
            let read = poll_fn(|cx| match response.poll_read(stream, cx) {
                Poll::Pending => response.poll_late(end, limit, cx).map(|()| None),
                read => read.map(Some),
            });
            match read.await.ok_or(UpstreamError::FirstByteTimeout)? {
                Ok(0) => return Err(self.ended()),
                Ok(_) => {}
                Err(error) if is_end(&error) => return Err(self.ended()),
                Err(error) => return Err(UpstreamError::Io(error)),
            }
        }
    }

    /// The connection ended before the final head.
    fn ended(&self) -> UpstreamError {
        match self.response.is_unread() {
            true => UpstreamError::Closed { is_reused: self.is_reused },
            false => UpstreamError::Cut,
        }
    }

    /// The next piece of the body, not longer than 64 KiB; `None` at its end.
    ///
    /// # Errors
    /// See [`UpstreamError`]; asked again after one, the response broke off. A body that is cut short
    /// never ends.
    ///
    /// # Panics
    /// The final head was not read.
    pub(in crate::server) async fn next_chunk(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        let read = self.try_next_chunk().await;
        if read.is_err() {
            self.response.at = At::Broken;
        }
        read
    }

    async fn try_next_chunk(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        loop {
            if let Some(piece) = self.response.take_piece()? {
                return Ok(Some(piece).filter(|piece| !piece.is_empty()));
            }
            let (response, stream) = (&mut *self.response, self.stream);
            let limit = self.between_bytes_timeout;
            let read = poll_fn(|cx| match response.poll_read(stream, cx) {
                Poll::Pending => response.patience.poll_end(limit, cx).map(|()| None),
                read => read.map(Some),
            });
            let read = read.await.ok_or(UpstreamError::BodyTimeout)?;
            self.response.patience.rest();
            match (read, &self.response.at) {
                (Ok(0), At::UntilClose) => self.response.at = At::End,
                (Ok(0), _) => return Err(UpstreamError::Cut),
                (Ok(_), _) => {}
                (Err(error), _) if is_end(&error) => return Err(UpstreamError::Cut),
                (Err(error), _) => return Err(UpstreamError::Io(error)),
            }
        }
    }
}
