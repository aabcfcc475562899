//! Connections of a hostile client that are held: each that ends is opened anew.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::Arena;

/// How long a hostile client waits for anything before it does something else.
const IMPATIENCE: Duration = Duration::from_millis(300);

/// A connection that waits for nothing.
pub fn open(path: &Path) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(path)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// A connection that waits a moment.
pub fn open_impatient(path: &Path) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(IMPATIENCE))?;
    stream.set_write_timeout(Some(IMPATIENCE))?;
    Ok(stream)
}

/// Sends as much as the other side takes at once.
pub fn offer(mut stream: &UnixStream, mut bytes: &[u8]) {
    while let Ok(sent @ 1..) = stream.write(bytes) {
        bytes = &bytes[sent..];
    }
}

/// Whether nothing has come and the connection stands.
pub fn is_silent(mut stream: &UnixStream) -> bool {
    let read = stream.read(&mut [0; 512]);
    read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// Whether it still takes these bytes, or would later.
pub fn takes(mut stream: &UnixStream, bytes: &[u8]) -> bool {
    let refused = stream.write_all(bytes).err();
    refused.is_none_or(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// Holds `count` connections until the arena closes. Every `pause` each is asked whether it `goes_on`.
pub fn hold<T>(
    arena: &Arena,
    count: usize,
    pause: Duration,
    mut open: impl FnMut(usize) -> io::Result<T>,
    mut goes_on: impl FnMut(&T) -> bool,
) {
    let mut held: Vec<Option<T>> = (0..count).map(|_| None).collect();
    while !arena.is_closed() {
        for (n, place) in held.iter_mut().enumerate() {
            if !place.as_ref().is_some_and(&mut goes_on) {
                *place = open(n).ok();
            }
        }
        std::thread::sleep(pause);
    }
}
