//! The body of a request, read from the wire as its handler asks for it.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;

use super::body_error::BodyError;
use super::wire::{Socket, Wire};
use crate::cache::{StoreError, Writer};
use crate::fair_memory::Held;
use crate::server::buffers::BUFFER_LEN;
use crate::server::codec::chunks::{Chunks, Next};
use crate::server::codec::fault::Fault;
use crate::server::codec::head::RequestHead;
use crate::server::codec::{CONTINUE, Framing};
use crate::server::presence::Presence;

/// Longest rest of a body that is read and dropped so that the connection can go on: less than a new
/// connection costs.
const DROPPED_LEN_MAX: u64 = 64 << 10;

/// The body of a request. What it has read last stays in the wire's buffer until the next call.
pub(in crate::server) struct RequestBody<'a, S> {
    wire: &'a mut Wire<S>,
    rest: Rest,
    /// Bytes in the buffer that were given out.
    given: usize,
    /// The client waits for leave to send.
    waits: bool,
    /// What the request keeps of a long head. It gives way with the request while the client is slow.
    kept: Option<Box<Held>>,
}

/// What has not been read.
enum Rest {
    /// So many bytes.
    Length(u64),
    Chunked(Chunks),
    /// Nobody knows: the body broke off, or the head said nothing of it.
    Broken,
    /// The connection failed.
    Lost(io::Error),
}

/// What becomes of the connection after the answer, as far as the body is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Remainder {
    /// The next request begins after so many bytes.
    Skip(u64),
    /// The connection ends: what follows may still be this body.
    Unknown,
}

impl<S: Socket> Presence for RequestBody<'_, S> {
    fn is_gone(&self) -> bool {
        self.wire.is_gone()
    }
}

impl<'a, S: Socket> RequestBody<'a, S> {
    /// The body that follows `head`, of which so much is `kept`.
    pub(in crate::server) fn new(
        wire: &'a mut Wire<S>,
        head: &RequestHead,
        kept: Option<Box<Held>>,
    ) -> RequestBody<'a, S> {
        let rest = match head.framing {
            Framing::None => Rest::Length(0),
            Framing::Length(len) => Rest::Length(len),
            Framing::Chunked => Rest::Chunked(Chunks::default()),
        };
        let waits = head.waits && !matches!(rest, Rest::Length(0));
        RequestBody { wire, rest, given: 0, waits, kept }
    }

    /// The next bytes; `None` at the end. The client is given leave to send, if it waits for it.
    pub(in crate::server) async fn next(&mut self) -> Result<Option<&[u8]>, BodyError> {
        self.wire.consume(std::mem::take(&mut self.given));
        let read = self.read().await;
        self.given = read.map_err(|failed| self.broken(failed))?;
        Ok(Some(&self.wire.unread()[..self.given]).filter(|bytes| !bytes.is_empty()))
    }

    /// Reads what comes next straight into `writer`, where much is left; false if it does not: then
    /// [`RequestBody::next`] has the next bytes.
    ///
    /// # Errors
    /// Those of this body, and inside of them those of `writer`.
    pub(in crate::server) async fn read_into(
        &mut self,
        writer: &mut Writer,
    ) -> Result<Result<bool, StoreError>, BodyError> {
        self.wire.consume(std::mem::take(&mut self.given));
        let left = match &self.rest {
            Rest::Length(left) => *left,
            Rest::Chunked(chunks) => chunks.data_left(),
            Rest::Broken | Rest::Lost(_) => 0,
        };
        // A short rest comes with what follows.
        if left < BUFFER_LEN as u64 || self.waits || !self.wire.is_empty() {
            return Ok(Ok(false));
        }
        let reading = self.wire.read_into(writer, left);
        let len_of = |read: &_| if let Ok(Some(len)) = read { *len } else { 0 };
        let len = match arriving(self.kept.as_deref(), reading, len_of).await {
            Ok(Ok(Some(0))) => return Err(self.broken(Failed::Cut)),
            Ok(Ok(Some(len))) => len as u64,
            Ok(Ok(None)) => return Ok(Ok(false)),
            Ok(Err(error)) => return Ok(Err(error)),
            Err(error) => return Err(self.broken(error.into())),
        };
        match &mut self.rest {
            Rest::Length(left) => *left -= len,
            Rest::Chunked(chunks) => chunks.skip(len),
            Rest::Broken | Rest::Lost(_) => {}
        }
        Ok(Ok(true))
    }

    /// Has the next bytes of the content at the beginning of the unread ones; 0 at the end.
    async fn read(&mut self) -> Result<usize, Failed> {
        if self.waits {
            self.wire.write(CONTINUE, &[]).await?;
            // Not before: a write that is given up may have sent a part of it.
            self.waits = false;
        }
        loop {
            let unread = self.wire.unread();
            match &mut self.rest {
                Rest::Length(0) => return Ok(0),
                Rest::Length(left) if !unread.is_empty() => {
                    let len = usize::try_from(*left).unwrap_or(usize::MAX).min(unread.len());
                    *left -= len as u64;
                    return Ok(len);
                }
                Rest::Length(_) => {}
                Rest::Chunked(chunks) => {
                    let (done, next) = chunks.read(unread)?;
                    self.wire.consume(done);
                    match next {
                        Next::Data(len) => return Ok(len),
                        Next::End => {
                            self.rest = Rest::Length(0);
                            return Ok(0);
                        }
                        Next::Incomplete => {}
                    }
                }
                Rest::Broken => return Err(Failed::Cut),
                Rest::Lost(error) => return Err(Failed::Lost(error.kind().into())),
            }
            if arriving(self.kept.as_deref(), self.wire.read(), |len| *len).await? == 0 {
                return Err(Failed::Cut);
            }
        }
    }

    fn broken(&mut self, failed: Failed) -> BodyError {
        self.rest = Rest::Broken;
        match failed {
            Failed::Cut => BodyError::Cut,
            Failed::Malformed(fault) => {
                self.wire.service.shard.protocol_errors.bump();
                BodyError::Malformed(fault)
            }
            Failed::Lost(error) => {
                self.rest = Rest::Lost(error);
                BodyError::Lost
            }
        }
    }

    /// Whether the head says that there is no content.
    pub(in crate::server) fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    /// Sends an interim answer (1xx), if the client has not been told to go on already.
    pub(in crate::server) async fn inform(&mut self, head: &[u8]) -> io::Result<()> {
        self.wire.write(head, &[]).await
    }

    /// Bytes left, if they are known.
    pub(in crate::server) fn len(&self) -> Option<u64> {
        match self.rest {
            Rest::Length(len) => Some(len),
            Rest::Chunked(_) | Rest::Broken | Rest::Lost(_) => None,
        }
    }

    /// What follows may be a body although the head says nothing of one.
    pub(in crate::server) fn doubt(&mut self) {
        self.rest = Rest::Broken;
    }

    /// What is left of the body, of which nobody asks for more.
    ///
    /// # Errors
    /// The connection failed on the way; no answer can be sent.
    pub(in crate::server) fn end(self) -> io::Result<Remainder> {
        self.wire.consume(self.given);
        Ok(match self.rest {
            Rest::Length(0) => Remainder::Skip(0),
            // The client may send it or not, now that it has an answer.
            Rest::Length(_) if self.waits => Remainder::Unknown,
            Rest::Length(left @ ..=DROPPED_LEN_MAX) => Remainder::Skip(left),
            Rest::Lost(error) => return Err(error),
            _ => Remainder::Unknown,
        })
    }
}

/// Waits until a read ends, or until the client is so slow that others get the memory of what is `kept`.
async fn arriving<T>(
    kept: Option<&Held>,
    reading: impl Future<Output = io::Result<T>>,
    len_of: impl FnOnce(&T) -> usize,
) -> io::Result<T> {
    let Some(kept) = kept else { return reading.await };
    let mut reading = pin!(reading);
    kept.await_sender();
    let read = poll_fn(|cx| match reading.as_mut().poll(cx) {
        Poll::Pending => kept.poll_lost(cx).map(|_| Err(io::ErrorKind::OutOfMemory.into())),
        read => read,
    })
    .await?;
    kept.sent(len_of(&read)).map_err(|_| io::ErrorKind::OutOfMemory)?;
    Ok(read)
}

/// Why reading failed.
enum Failed {
    Cut,
    Malformed(Fault),
    Lost(io::Error),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Failed {
        match error.kind() {
            io::ErrorKind::OutOfMemory => Failed::Malformed(Fault::MEMORY),
            _ => Failed::Lost(error),
        }
    }
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Failed {
        Failed::Malformed(fault)
    }
}
