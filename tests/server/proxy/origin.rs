//! An origin that answers as a test says and keeps all that it is asked. A client that waits is told to send its body,
//! but for `/silent`, and for `/unread`, of which no body is read. It reads strictly: a request
//! that is malformed, or that comes before the one before it is answered, is a fault that fails the test.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::Linger;

use super::reply::{Reply, Step};
use super::wire::{Body, Broken, Fields, NO_BODY, Wire, is_token, parse, values};
use crate::support::waiting::ANSWER_PATIENCE;

/// A request as it came.
#[derive(Clone)]
pub struct Seen {
    /// The head as it came, with its empty line.
    pub head: Vec<u8>,
    pub method: String,
    pub target: String,
    pub fields: Fields,
    pub body: Vec<u8>,
    /// Which connection of the origin it came on, from 0.
    pub connection: usize,
    /// How many whole requests came before it.
    pub order: usize,
}

impl Seen {
    /// The value of a field that is there once at most.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let values = values(&self.fields, name);
        assert!(values.len() < 2, "{name} is there {} times", values.len());
        values.first().copied()
    }
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} and {} bytes", self.head.escape_ascii(), self.body.len())
    }
}

/// Where an origin listens.
#[derive(Clone, Debug)]
pub enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// A running origin. Dropping it ends it with all of its connections.
pub struct Origin {
    pub place: Place,
    shared: Arc<Shared>,
}

type Handler = dyn Fn(&Seen) -> Result<Reply, String> + Send + Sync;

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    handler: Box<Handler>,
}

#[derive(Default)]
struct State {
    seen: Vec<Seen>,
    /// Requests that did not come to their end.
    cut: usize,
    faults: Vec<String>,
    opened: usize,
    open: HashMap<usize, UnixStream>,
    is_over: bool,
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Origin {
    /// Listens on a TCP port and answers each request with what `handler` gives.
    pub fn start(handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Origin {
        Origin::on_tcp(Box::new(move |seen| Ok(handler(seen))))
    }

    /// As [`Origin::start`], at an address where there was one before.
    pub fn start_at(
        address: SocketAddr,
        handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Origin {
        let socket = Socket::Tcp(TcpListener::bind(address).unwrap());
        Origin::on(socket, Place::Tcp(address), Box::new(move |seen| Ok(handler(seen))))
    }

    /// Answers with `replies` in turn, one a request. One request more is a fault.
    pub fn queue(replies: impl IntoIterator<Item = Reply>) -> Origin {
        let replies: Mutex<VecDeque<Reply>> = Mutex::new(replies.into_iter().collect());
        Origin::on_tcp(Box::new(move |seen| {
            let next = replies.lock().unwrap().pop_front();
            next.ok_or_else(|| format!("one request too many: {}", seen.head.escape_ascii()))
        }))
    }

    /// As [`Origin::start`], on a Unix socket in `directory`.
    pub fn on_unix(
        directory: &Path,
        handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Origin {
        let path = directory.join("origin.sock");
        let socket = Socket::Unix(UnixListener::bind(&path).unwrap());
        Origin::on(socket, Place::Unix(path), Box::new(move |seen| Ok(handler(seen))))
    }

    fn on_tcp(handler: Box<Handler>) -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let place = Place::Tcp(listener.local_addr().unwrap());
        Origin::on(Socket::Tcp(listener), place, handler)
    }

    fn on(socket: Socket, place: Place, handler: Box<Handler>) -> Origin {
        let (state, changed) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { state, changed, handler });
        let accepting = shared.clone();
        std::thread::spawn(move || accept(&socket, &accepting));
        Origin { place, shared }
    }

    /// A place where nobody listens.
    pub fn nowhere() -> Place {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Place::Tcp(listener.local_addr().unwrap())
    }

    /// All whole requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.state.lock().unwrap().seen.clone()
    }

    /// The only request so far.
    #[track_caller]
    pub fn only(&self) -> Seen {
        let mut seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen.remove(0)
    }

    /// The last request so far.
    #[track_caller]
    pub fn last(&self) -> Seen {
        self.seen().pop().unwrap()
    }

    /// How many whole requests came.
    pub fn count(&self) -> usize {
        self.shared.state.lock().unwrap().seen.len()
    }

    /// How many requests ended before they were whole.
    pub fn cut(&self) -> usize {
        self.shared.state.lock().unwrap().cut
    }

    /// How many connections were made.
    pub fn connections(&self) -> usize {
        self.shared.state.lock().unwrap().opened
    }

    /// Waits until so many whole requests have come.
    #[track_caller]
    pub fn wait_for(&self, count: usize) {
        self.wait_until(|state| state.seen.len() >= count);
    }

    /// Waits until all connections have ended.
    #[track_caller]
    pub fn wait_for_quiet(&self) {
        self.wait_until(|state| state.open.is_empty());
    }

    #[track_caller]
    fn wait_until(&self, condition: impl Fn(&State) -> bool) {
        let state = self.shared.state.lock().unwrap();
        let waited = self.shared.changed.wait_timeout_while(state, ANSWER_PATIENCE, |state| {
            !condition(state) && state.faults.is_empty()
        });
        let (state, result) = waited.unwrap();
        let faults = state.faults.clone();
        let (count, open) = (state.seen.len(), state.open.len());
        drop(state);
        assert!(faults.is_empty(), "{faults:?}");
        assert!(!result.timed_out(), "{count} requests came, {open} connections are open");
    }

    /// What was wrong with requests, taken: what is taken does not fail the test.
    pub fn take_faults(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.state.lock().unwrap().faults)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock().unwrap();
        state.is_over = true;
        for stream in state.open.values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        let faults = std::mem::take(&mut state.faults);
        drop(state);
        // The thread that accepts looks again.
        match &self.place {
            Place::Tcp(address) => drop(TcpStream::connect(address)),
            Place::Unix(path) => drop(UnixStream::connect(path)),
        }
        assert!(faults.is_empty() || std::thread::panicking(), "{faults:#?}");
    }
}

fn accept(socket: &Socket, shared: &Arc<Shared>) {
    loop {
        let stream = match socket {
            Socket::Tcp(listener) => listener.accept().map(|(stream, _)| {
                stream.set_nodelay(true).unwrap();
                UnixStream::from(OwnedFd::from(stream))
            }),
            Socket::Unix(listener) => listener.accept().map(|(stream, _)| stream),
        };
        let stream = stream.unwrap();
        let mut state = shared.state.lock().unwrap();
        if state.is_over {
            return;
        }
        let number = state.opened;
        state.opened += 1;
        state.open.insert(number, stream.try_clone().unwrap());
        drop(state);
        let shared = shared.clone();
        std::thread::spawn(move || {
            serve(Wire::new(stream), number, &shared);
            shared.state.lock().unwrap().open.remove(&number);
            shared.changed.notify_all();
        });
    }
}

fn serve(mut wire: Wire, connection: usize, shared: &Shared) {
    loop {
        match request(&mut wire, connection) {
            Ok(Some(seen)) => {
                let Some(reply) = shared.reply(seen.clone()) else { return };
                let is_last = reply.is_last();
                if !perform(&mut wire, reply.into_steps(&seen.method), shared) || is_last {
                    return;
                }
                if !wire.left().is_empty() {
                    let more = wire.left().escape_ascii().to_string();
                    return shared.fault(format!("it did not wait for the answer: {more}"));
                }
            }
            Ok(None) => return,
            Err(Broken::Ended) => {
                shared.state.lock().unwrap().cut += 1;
                return shared.changed.notify_all();
            }
            Err(Broken::Malformed(text)) => {
                let is_over = shared.state.lock().unwrap().is_over;
                let _ = wire.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
                if !is_over {
                    shared.fault(text);
                }
                return;
            }
        }
    }
}

/// Reads one request; `None` if there are no more.
fn request(wire: &mut Wire, connection: usize) -> Result<Option<Seen>, Broken> {
    let head = match wire.head() {
        Ok(Some(head)) => head,
        Ok(None) => return Ok(None),
        // One that is kept for reuse may rest for as long as it likes.
        Err(Broken::Malformed(_)) if wire.left().is_empty() => return Ok(None),
        Err(broken) => return Err(broken),
    };
    let fault = |text: String| Broken::Malformed(format!("{text}: {}", head.escape_ascii()));
    let (line, fields) = parse(&head).map_err(&fault)?;
    let words: Vec<&str> = line.split(' ').collect();
    let [method, target, "HTTP/1.1"] = words[..] else { return Err(fault(line)) };
    if method.is_empty() || !method.bytes().all(is_token) || target.is_empty() {
        return Err(fault(line.clone()));
    }
    if target.bytes().any(|byte| !matches!(byte, b'!'..=b'~') || byte == b'#') {
        return Err(fault(line.clone()));
    }
    if values(&fields, "host").len() != 1 {
        return Err(fault("one Host".to_owned()));
    }
    let waits = !values(&fields, "expect").is_empty();
    if waits && !["/unread", "/silent"].contains(&target) {
        let _ = wire.send(b"HTTP/1.1 100 Continue\r\n\r\n");
    }
    let framing = Body::of(&fields).map_err(&fault)?.unwrap_or(NO_BODY);
    // What waits to be asked for does not come.
    let mut framing = if waits && target == "/unread" { NO_BODY } else { framing };
    let body = framing.rest(wire)?;
    if !wire.left().is_empty() {
        return Err(fault(format!("{} follows at once", wire.left().escape_ascii())));
    }
    let (method, target) = (method.to_owned(), target.to_owned());
    Ok(Some(Seen { head, method, target, fields, body, connection, order: 0 }))
}

/// Does what is to be done; false when the connection ended.
fn perform(wire: &mut Wire, steps: Vec<Step>, shared: &Shared) -> bool {
    for step in steps {
        match step {
            Step::Send(bytes) => {
                if wire.send(&bytes).is_err() {
                    return false;
                }
            }
            Step::Wait(latch) => {
                if !latch.wait() {
                    shared.fault("nobody opened the latch".to_owned());
                    return false;
                }
            }
            Step::Pause(duration) => std::thread::sleep(duration),
            Step::Hold => {
                while let Ok(true) = wire.fill() {}
                return false;
            }
            Step::Echo => loop {
                let bytes = wire.take(wire.left().len());
                if wire.send(&bytes).is_err() || !matches!(wire.fill(), Ok(true)) {
                    return false;
                }
            },
            Step::Close => {
                let _ = wire.stream.shutdown(Shutdown::Both);
                return false;
            }
            Step::Reset => {
                // With a linger of zero, a close is a reset.
                let linger = libc::linger { l_onoff: 1, l_linger: 0 };
                setsockopt(&wire.stream, Linger, &linger).unwrap();
                return false;
            }
        }
    }
    true
}

impl Shared {
    /// Keeps a request and gives the answer to it.
    fn reply(&self, mut seen: Seen) -> Option<Reply> {
        let mut state = self.state.lock().unwrap();
        seen.order = state.seen.len();
        state.seen.push(seen.clone());
        drop(state);
        self.changed.notify_all();
        (self.handler)(&seen).map_err(|text| self.fault(text)).ok()
    }

    fn fault(&self, text: String) {
        self.state.lock().unwrap().faults.push(text);
        self.changed.notify_all();
    }
}
