//! What the socket alone costs: a thread that answers any request with bytes that it has at hand.

use std::io::{IoSlice, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};
use nix::time::{ClockId, clock_gettime};

use super::server::Cores;

/// As many bodies in turns as the objects that a server is asked for, so that caches help no more.
const BODIES: usize = 32;
/// The send buffer that rawcached asks for.
const SEND_BUFFER_LEN: usize = 512 << 10;
/// Longest request.
const REQUEST_LEN_MAX: usize = 4096;

/// Listens at `socket` and answers so many connections with bodies of `len` bytes, on the server's
/// processor, until they are closed; gives the processor time and the number of answers.
pub fn serve(
    cores: &Cores,
    socket: &Path,
    (connections, len): (usize, usize),
) -> anyhow::Result<JoinHandle<anyhow::Result<(Duration, u64)>>> {
    let listener = UnixListener::bind(socket)?;
    let stay = cores.stay_on_servers();
    Ok(thread::spawn(move || {
        stay()?;
        let streams = (0..connections).map(|_| Ok(listener.accept()?.0));
        answer(streams.collect::<anyhow::Result<_>>()?, len)
    }))
}

fn answer(mut streams: Vec<UnixStream>, len: usize) -> anyhow::Result<(Duration, u64)> {
    for stream in &streams {
        setsockopt(stream, sockopt::SndBuf, &SEND_BUFFER_LEN)?;
    }
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n");
    let bodies: Vec<_> = (1..).take(BODIES).map(|seed| vec![seed; len]).collect();
    let (mut answers, mut request) = (0, [0; REQUEST_LEN_MAX]);
    while !streams.is_empty() {
        let mut polled: Vec<_> =
            streams.iter().map(|stream| PollFd::new(stream.as_fd(), PollFlags::POLLIN)).collect();
        poll(&mut polled, PollTimeout::NONE)?;
        let is_ready: Vec<_> = polled.iter().map(|poll| poll.any() == Some(true)).collect();
        let mut is_ready = is_ready.into_iter();
        let mut gone = Vec::new();
        for (number, stream) in streams.iter_mut().enumerate() {
            if is_ready.next() != Some(true) {
                continue;
            }
            let read = stream.read(&mut request)?;
            if read == 0 {
                gone.push(number);
                continue;
            }
            ensure!(request[..read].ends_with(b"\r\n\r\n"), "a request comes in pieces");
            let body = &bodies[usize::try_from(answers)? % BODIES];
            write_all(stream, head.as_bytes(), body).context("cannot answer")?;
            answers += 1;
        }
        for number in gone.into_iter().rev() {
            streams.remove(number);
        }
    }
    Ok((clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into(), answers))
}

fn write_all(stream: &mut UnixStream, head: &[u8], body: &[u8]) -> anyhow::Result<()> {
    let written = stream.write_vectored(&[IoSlice::new(head), IoSlice::new(body)])?;
    ensure!(written >= head.len(), "a head in pieces");
    Ok(stream.write_all(&body[written - head.len()..])?)
}
