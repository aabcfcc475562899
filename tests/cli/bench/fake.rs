//! A memcached server in a few lines that does one thing wrong.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What goes wrong, at this answer to a `get`.
#[derive(Clone, Copy)]
pub enum Fault {
    /// The last byte of the value is another one.
    FlipByte { answer: usize },
    /// The whole server does nothing for a while.
    Stall { answer: usize, time: Duration },
}

struct State {
    values: HashMap<String, Vec<u8>>,
    gets: usize,
    fault: Fault,
}

/// Serves until the test ends.
pub struct Fake {
    socket: PathBuf,
    _directory: tempfile::TempDir,
}

impl Fake {
    pub fn start(fault: Fault) -> Fake {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("fake.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let state = Arc::new(Mutex::new(State { values: HashMap::new(), gets: 0, fault }));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, state) = (stream.unwrap(), Arc::clone(&state));
                thread::spawn(move || serve(stream, &state));
            }
        });
        Fake { socket, _directory: directory }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

/// Answers until the client goes.
fn serve(stream: UnixStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|len| len > 0) {
        let words: Vec<_> = line.split_whitespace().collect();
        let answer = match words[..] {
            ["get", key] => state.lock().unwrap().get(key),
            ["set", key, _, _, len] => {
                let mut body = vec![0; len.parse::<usize>().unwrap() + 2];
                reader.read_exact(&mut body).unwrap();
                body.truncate(body.len() - 2);
                state.lock().unwrap().values.insert(key.to_owned(), body);
                b"STORED\r\n".to_vec()
            }
            _ => b"ERROR\r\n".to_vec(),
        };
        if (&stream).write_all(&answer).is_err() {
            return;
        }
        line.clear();
    }
}

impl State {
    fn get(&mut self, key: &str) -> Vec<u8> {
        let Some(value) = self.values.get(key) else { return b"END\r\n".to_vec() };
        let mut value = value.clone();
        self.gets += 1;
        match self.fault {
            Fault::FlipByte { answer } if answer == self.gets => *value.last_mut().unwrap() ^= 1,
            // With the state locked, so that all connections wait.
            Fault::Stall { answer, time } if answer == self.gets => thread::sleep(time),
            _ => {}
        }
        let mut answer = format!("VALUE {key} 0 {}\r\n", value.len()).into_bytes();
        answer.append(&mut value);
        answer.extend_from_slice(b"\r\nEND\r\n");
        answer
    }
}
