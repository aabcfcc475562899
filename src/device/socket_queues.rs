//! How much the kernel holds of a connection. It stands here because the kernel is asked through a
//! pointer.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use libc::c_int;

mod ioctl {
    nix::ioctl_read_bad!(outgoing, libc::TIOCOUTQ, libc::c_int);
    nix::ioctl_read_bad!(incoming, libc::FIONREAD, libc::c_int);
}

/// Memory of the bytes that were written to a stream socket and that its peer has not read (Unix
/// socket: with the kernel's bookkeeping) or not taken over (TCP: the bytes alone).
///
/// # Errors
/// It is not a socket.
pub fn unread_by_peer(socket: &impl AsFd) -> io::Result<u64> {
    let mut len: c_int = 0;
    // SAFETY: SIOCOUTQ, which is TIOCOUTQ, writes one int to the address given, which is one.
    unsafe { ioctl::outgoing(socket.as_fd().as_raw_fd(), &raw mut len) }?;
    // The kernel goes on telling what it had when a reset came.
    let is_lost = len > 0 && is_closed_tcp(socket);
    Ok(if is_lost { 0 } else { u64::try_from(len).unwrap_or(0) })
}

/// Whether this is a TCP socket whose connection is over: nothing reaches the peer any more (tcp(7), `TCP_INFO`).
fn is_closed_tcp(socket: &impl AsFd) -> bool {
    /// `TCP_CLOSE` of the kernel's `tcp_states.h`.
    const CLOSED: u8 = 7;
    let mut state = 0u8;
    let mut len: libc::socklen_t = 1;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel writes at most the `len` bytes that there are: `tcpi_state`, the first field.
    let failed = unsafe {
        libc::getsockopt(
            fd,
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut state).cast(),
            &raw mut len,
        )
    };
    failed == 0 && len == 1 && state == CLOSED
}

/// Whether the peer of a stream socket has sent bytes that were not read yet.
///
/// # Errors
/// It is not a socket.
pub fn has_unread(socket: &impl AsFd) -> io::Result<bool> {
    let mut len: c_int = 0;
    // SAFETY: FIONREAD writes one int to the address given, which is one.
    unsafe { ioctl::incoming(socket.as_fd().as_raw_fd(), &raw mut len) }?;
    Ok(len > 0)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn both_directions_are_seen_until_they_are_read() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        assert_eq!(unread_by_peer(&ours).unwrap(), 0);
        assert!(!has_unread(&theirs).unwrap());
        ours.write_all(&[1; 1000]).unwrap();
        assert!(unread_by_peer(&ours).unwrap() >= 1000);
        assert!(has_unread(&theirs).unwrap());
        assert!(!has_unread(&ours).unwrap());
        theirs.read_exact(&mut [0; 1000]).unwrap();
        assert_eq!(unread_by_peer(&ours).unwrap(), 0);
        ours.write_all(&[1; 1000]).unwrap();
        drop(theirs);
        assert_eq!(unread_by_peer(&ours).unwrap(), 0, "what nobody can read is gone");
    }

    #[test]
    fn what_was_sent_to_a_peer_that_is_gone_is_not_unread() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut ours, _) = listener.accept().unwrap();
        drop(theirs);
        // The end comes first, then what is sent is answered by a reset.
        assert_eq!(ours.read(&mut [0; 1]).unwrap(), 0);
        ours.write_all(&[1; 1000]).unwrap();
        while ours.take_error().unwrap().is_none() && ours.write(&[]).is_ok() {
            if is_closed_tcp(&ours) {
                break;
            }
            std::thread::yield_now();
        }
        assert_eq!(unread_by_peer(&ours).unwrap(), 0);
    }
}
