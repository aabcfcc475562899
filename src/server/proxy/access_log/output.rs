//! Where the lines of an access log end up. Owns what is done when a file was moved away, when it is full,
//! and when nobody reads a socket.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock::Stopwatch;
use crate::config::AccessLogTarget;

/// Permissions of a file that is made, less those that the umask takes.
const MODE: u32 = 0o640;
/// How often it is looked whether the path still names the open file.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Longest wait for a socket to take something, before somebody looks whether it is the end.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// A file or a socket that lines are written to.
pub(super) enum Output {
    File(Appended),
    Unix(Sent),
}

/// A file that lines are appended to.
pub(super) struct Appended {
    path: PathBuf,
    file: File,
    looked: Stopwatch,
    has_failed: bool,
}

/// A stream socket. Its reader may come and go.
pub(super) struct Sent {
    path: PathBuf,
    stream: Option<UnixStream>,
}

impl Output {
    pub(super) fn open(target: &AccessLogTarget) -> io::Result<Output> {
        Ok(match target {
            AccessLogTarget::File(path) => Output::File(Appended {
                path: path.clone(),
                file: open(path)?,
                looked: Stopwatch::start(),
                has_failed: false,
            }),
            AccessLogTarget::Unix(path) => Output::Unix(Sent { path: path.clone(), stream: None }),
        })
    }

    /// Writes some of `batch`, whole lines of which `written` bytes are written, and gives how many are now:
    /// fewer if a line that was begun has to be begun again elsewhere.
    pub(super) fn write(&mut self, batch: &[u8], written: usize) -> io::Result<usize> {
        let begun =
            || batch[..written].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let (len, from) = match self {
            Output::File(appended) => {
                let from = if appended.look()? { begun() } else { written };
                (appended.write(&batch[from..])?, from)
            }
            Output::Unix(sent) => {
                let from = if sent.connect()? { begun() } else { written };
                (sent.write(&batch[from..])?, from)
            }
        };
        match len {
            0 => Err(io::ErrorKind::WriteZero.into()),
            len => Ok(from + len),
        }
    }
}

impl Appended {
    /// Opens the file anew if the path names another one, or none; true if it did. After a failure at once.
    fn look(&mut self) -> io::Result<bool> {
        if !self.has_failed && self.looked.elapsed() < LOOK_EVERY {
            return Ok(false);
        }
        self.looked = Stopwatch::start();
        let open_file = self.file.metadata()?;
        let is_same =
            |named: &fs::Metadata| (named.dev(), named.ino()) == (open_file.dev(), open_file.ino());
        match fs::metadata(&self.path) {
            Ok(named) if is_same(&named) => return Ok(false),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.file = open(&self.path)?;
        Ok(true)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes);
        self.has_failed = written.is_err();
        written
    }
}

impl Sent {
    /// Connects if it is not connected; true if it did.
    fn connect(&mut self) -> io::Result<bool> {
        if self.stream.is_some() {
            return Ok(false);
        }
        let stream = UnixStream::connect(&self.path)?;
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        self.stream = Some(stream);
        Ok(true)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(stream) = &mut self.stream else { return Err(io::ErrorKind::NotConnected.into()) };
        let written = stream.write(bytes);
        match &written {
            Ok(_) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            Err(_) => self.stream = None,
        }
        written
    }
}

/// Opens a file to append to it. One that is a pipe does not hold anybody up.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(MODE).custom_flags(libc::O_NONBLOCK).open(path)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::net::UnixListener;

    use super::*;

    /// Writes all of `batch`.
    fn write(output: &mut Output, batch: &[u8]) {
        let mut written = 0;
        while written < batch.len() {
            written = output.write(batch, written).unwrap();
        }
    }

    #[test]
    fn a_file_that_was_moved_away_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let (path, old) = (directory.path().join("log"), directory.path().join("log.1"));
        let mut output = Output::open(&AccessLogTarget::File(path.clone())).unwrap();
        write(&mut output, b"one\n");
        fs::rename(&path, &old).unwrap();
        write(&mut output, b"two\n");
        std::thread::sleep(LOOK_EVERY);
        write(&mut output, b"three\n");
        assert_eq!(fs::read(&old).unwrap(), b"one\ntwo\n", "it is looked at once a second");
        assert_eq!(fs::read(&path).unwrap(), b"three\n");
        // What logrotate makes in its place is taken.
        fs::rename(&path, &old).unwrap();
        fs::write(&path, b"made\n").unwrap();
        std::thread::sleep(LOOK_EVERY);
        write(&mut output, b"four\n");
        assert_eq!(fs::read(&path).unwrap(), b"made\nfour\n");
    }

    #[test]
    fn a_line_that_was_begun_is_begun_again_in_another_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut output = Output::open(&AccessLogTarget::File(path.clone())).unwrap();
        fs::remove_file(&path).unwrap();
        let Output::File(appended) = &mut output else { panic!() };
        appended.has_failed = true;
        assert_eq!(output.write(b"one\ntwo\nthree\n", 10).unwrap(), 14);
        assert_eq!(fs::read(&path).unwrap(), b"three\n");
    }

    #[test]
    fn a_socket_may_go_and_come_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let mut output = Output::open(&AccessLogTarget::Unix(path.clone())).unwrap();
        assert!(output.write(b"one\n", 0).is_err(), "nobody is there yet");
        let read = |listener: &UnixListener, len| {
            let mut stream = listener.accept().unwrap().0;
            let mut bytes = vec![0; len];
            stream.read_exact(&mut bytes).unwrap();
            bytes
        };
        let listener = UnixListener::bind(&path).unwrap();
        write(&mut output, b"one\n");
        assert_eq!(read(&listener, 4), b"one\n");
        drop(listener);
        fs::remove_file(&path).unwrap();
        assert!((0..2).any(|_| output.write(b"two\n", 0).is_err()));
        let listener = UnixListener::bind(&path).unwrap();
        // The beginning of the second line went to who is gone.
        assert_eq!(output.write(b"one\ntwo\n", 6).unwrap(), 8);
        assert_eq!(read(&listener, 4), b"two\n");
    }
}
