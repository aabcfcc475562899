//! The other end of a connection: its socket and the bytes still to be sent to it. Small pieces are
//! copied together, large ones are sent without a copy.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::server::buffers::BUFFER_LEN;
use crate::server::input::Input;
use crate::server::presence::Presence;

use super::service::Service;

/// Bodies at least this long are sent without being copied: below that, copying costs less than
/// another slice in the system call.
pub(super) const SHARED_LEN_MIN: usize = 8 << 10;
/// Pending bytes from which gathering waits until the peer has taken them. While much waits for peers
/// that do not read, one piece is enough.
const PENDING_LEN_MAX: usize = 256 << 10;
/// Slices per system call.
const SLICES_MAX: usize = 16;

/// A stream socket.
pub(in crate::server) trait Socket:
    AsyncRead + AsyncWrite + Presence + Unpin + Send
{
}
impl<S: AsyncRead + AsyncWrite + Presence + Unpin + Send> Socket for S {}

pub(super) struct Peer<S> {
    pub(super) stream: S,
    pub(super) service: Arc<Service>,
    copied: Vec<u8>,
    segments: Vec<Segment>,
    /// Start of the part of `copied` that no segment covers yet.
    copied_from: usize,
    shared_len: usize,
}

enum Segment {
    Copied(Range<usize>),
    Shared(Bytes),
}

impl<S: Socket> Peer<S> {
    pub(super) fn new(stream: S, service: Arc<Service>) -> Peer<S> {
        let (copied, segments) = (Vec::new(), Vec::new());
        Peer { stream, service, copied, segments, copied_from: 0, shared_len: 0 }
    }

    /// Gathers bytes to send.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.output().extend_from_slice(bytes);
    }

    /// Gathers an answer of one line.
    pub(super) fn push_line(&mut self, line: &str) {
        let output = self.output();
        output.extend_from_slice(line.as_bytes());
        output.extend_from_slice(b"\r\n");
    }

    /// Gathers a piece of a value.
    pub(super) fn push_body(&mut self, body: &Bytes) {
        if body.len() < SHARED_LEN_MIN {
            return self.push(body);
        }
        self.close_segment();
        self.segments.push(Segment::Shared(body.clone()));
        self.shared_len += body.len();
    }

    /// Sends if much is gathered, so that a slow reader costs bounded memory.
    pub(super) async fn relieve(&mut self) -> io::Result<()> {
        let much = self.copied.len() > BUFFER_LEN
            || self.shared_len > PENDING_LEN_MAX
            || (self.shared_len > 0 && self.service.is_unsent_much());
        if much { self.flush().await } else { Ok(()) }
    }

    /// Sends everything gathered.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        if self.copied.is_empty() && self.segments.is_empty() {
            return Ok(());
        }
        let sent = if self.segments.is_empty() {
            self.stream.write_all(&self.copied).await?;
            self.copied.len()
        } else {
            self.close_segment();
            self.write_segments().await?
        };
        self.service.shard.bytes_written.add(sent as u64);
        self.service.shard.memcached_bytes_written.add(sent as u64);
        self.segments.clear();
        self.service.buffers.give_output(std::mem::take(&mut self.copied));
        (self.copied_from, self.shared_len) = (0, 0);
        Ok(())
    }

    /// Reads more of a command into `input`. Sends the gathered bytes first: the peer may wait for them.
    ///
    /// # Errors
    /// As [`Input::poll_fill`]; `UnexpectedEof` if the peer ends.
    pub(super) async fn read_more(&mut self, input: &mut Input) -> io::Result<()> {
        self.flush().await?;
        let Peer { stream, service, .. } = self;
        let read = poll_fn(|cx| input.poll_fill(cx, stream, &service.buffers)).await?;
        self.count_read(read)
    }

    /// Counts what was read within a command.
    pub(super) fn count_read(&self, read: usize) -> io::Result<()> {
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.service.shard.bytes_read.add(read as u64);
        self.service.shard.memcached_bytes_read.add(read as u64);
        Ok(())
    }

    /// The buffer that gathers bytes to send.
    pub(super) fn output(&mut self) -> &mut Vec<u8> {
        if self.copied.capacity() == 0 {
            self.copied = self.service.buffers.take_output();
        }
        &mut self.copied
    }

    fn close_segment(&mut self) {
        let end = self.copied.len();
        if self.copied_from < end {
            self.segments.push(Segment::Copied(self.copied_from..end));
            self.copied_from = end;
        }
    }

    async fn write_segments(&mut self) -> io::Result<usize> {
        let mut sent = 0;
        for segments in self.segments.chunks(SLICES_MAX) {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            for (slice, segment) in slices.iter_mut().zip(segments) {
                *slice = IoSlice::new(match segment {
                    Segment::Copied(range) => &self.copied[range.clone()],
                    Segment::Shared(body) => body,
                });
            }
            let mut slices = &mut slices[..segments.len()];
            while !slices.is_empty() {
                let written = self.stream.write_vectored(slices).await?;
                if written == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                sent += written;
                IoSlice::advance_slices(&mut slices, written);
            }
        }
        Ok(sent)
    }
}
