//! What an origin answers: a response written down as it is, or made of parts, with places where it
//! waits, stops or breaks off.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::support::waiting::ANSWER_PATIENCE;

/// Closed until somebody opens it, for good.
#[derive(Clone, Default)]
pub struct Latch(Arc<(Mutex<bool>, Condvar)>);

impl Latch {
    pub fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    /// Waits until it is open; false if that does not happen.
    pub fn wait(&self) -> bool {
        let is_open = self.0.0.lock().unwrap();
        let waited = self.0.1.wait_timeout_while(is_open, ANSWER_PATIENCE, |is_open| !*is_open);
        *waited.unwrap().0
    }
}

/// What an origin does next.
#[derive(Clone)]
pub enum Step {
    /// Sends bytes.
    Send(Vec<u8>),
    /// Waits for a test.
    Wait(Latch),
    /// Waits for so long: for what only real time shows.
    Pause(Duration),
    /// Does nothing until the other side ends the connection.
    Hold,
    /// Sends back what comes, until the other side ends the connection.
    Echo,
    /// Ends the connection.
    Close,
    /// Ends it with a reset.
    Reset,
}

#[derive(Clone)]
enum Content {
    Length(Vec<u8>),
    Chunks(Vec<Vec<u8>>),
    UntilClose(Vec<u8>),
    None,
    Written(Vec<Step>),
}

/// One response.
#[derive(Clone)]
pub struct Reply {
    status: String,
    fields: Vec<(String, String)>,
    content: Content,
    /// Before its first byte.
    waits: Option<Latch>,
    /// Steps before the byte of the body, as it is sent, with this number.
    within: Option<(usize, Vec<Step>)>,
}

impl Reply {
    fn new(status: &str, content: Content) -> Reply {
        let status = status.to_owned();
        Reply { status, fields: Vec::new(), content, waits: None, within: None }
    }

    /// 200 with a length.
    pub fn ok(body: impl AsRef<[u8]>) -> Reply {
        Reply::of("200 OK", body)
    }

    /// With a length; `status` is a number and a word.
    pub fn of(status: &str, body: impl AsRef<[u8]>) -> Reply {
        Reply::new(status, Content::Length(body.as_ref().to_vec()))
    }

    /// 200 in chunks as given.
    pub fn chunked<P: AsRef<[u8]>>(parts: &[P]) -> Reply {
        let parts = parts.iter().map(|part| part.as_ref().to_vec());
        Reply::new("200 OK", Content::Chunks(parts.collect()))
    }

    /// 200 whose end is the end of the connection.
    pub fn until_close(body: impl AsRef<[u8]>) -> Reply {
        Reply::new("200 OK", Content::UntilClose(body.as_ref().to_vec()))
    }

    /// Neither a body nor a length.
    pub fn empty(status: &str) -> Reply {
        Reply::new(status, Content::None)
    }

    /// 304.
    pub fn not_modified() -> Reply {
        Reply::empty("304 Not Modified")
    }

    /// These bytes, whatever they are.
    pub fn raw(bytes: impl AsRef<[u8]>) -> Reply {
        Reply::steps(vec![Step::Send(bytes.as_ref().to_vec())])
    }

    /// These bytes, and then the end of the connection.
    pub fn raw_last(bytes: impl AsRef<[u8]>) -> Reply {
        Reply::steps(vec![Step::Send(bytes.as_ref().to_vec()), Step::Close])
    }

    /// What is written down.
    pub fn steps(steps: Vec<Step>) -> Reply {
        Reply::new("", Content::Written(steps))
    }

    /// No answer, and the end of the connection.
    pub fn close() -> Reply {
        Reply::steps(vec![Step::Close])
    }

    /// No answer, ever.
    pub fn hold() -> Reply {
        Reply::steps(vec![Step::Hold])
    }

    pub fn header(mut self, name: &str, value: &str) -> Reply {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// `Cache-Control`.
    pub fn control(self, value: &str) -> Reply {
        self.header("Cache-Control", value)
    }

    /// Does not begin before the latch is open.
    pub fn after(mut self, latch: &Latch) -> Reply {
        self.waits = Some(latch.clone());
        self
    }

    /// Sends `len` bytes of the body, then waits.
    pub fn waits_at(mut self, len: usize, latch: &Latch) -> Reply {
        self.within = Some((len, vec![Step::Wait(latch.clone())]));
        self
    }

    /// Sends `len` bytes of the body, then does this.
    pub fn ends_at(mut self, len: usize, steps: Vec<Step>) -> Reply {
        self.within = Some((len, steps));
        self
    }

    /// Whether the connection ends with it.
    pub fn is_last(&self) -> bool {
        let says_so = |(name, value): &(String, String)| {
            name.eq_ignore_ascii_case("connection") && value.eq_ignore_ascii_case("close")
        };
        matches!(self.content, Content::UntilClose(_)) || self.fields.iter().any(says_so)
    }

    /// What is done to answer a request of `method`.
    pub fn into_steps(self, method: &str) -> Vec<Step> {
        let mut steps: Vec<Step> = self.waits.map(Step::Wait).into_iter().collect();
        let (framing, body) = match self.content {
            Content::Written(written) => {
                steps.extend(written);
                return steps;
            }
            Content::None => (String::new(), Vec::new()),
            Content::UntilClose(body) => ("Connection: close\r\n".to_owned(), body),
            Content::Length(body) => (format!("Content-Length: {}\r\n", body.len()), body),
            Content::Chunks(parts) => {
                let chunk = |part: &Vec<u8>| {
                    [format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat()
                };
                let mut body: Vec<u8> = parts.iter().flat_map(chunk).collect();
                body.extend_from_slice(b"0\r\n\r\n");
                ("Transfer-Encoding: chunked\r\n".to_owned(), body)
            }
        };
        let fields = self.fields.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
        let fields: String = fields.collect();
        let head = format!("HTTP/1.1 {}\r\n{framing}{fields}\r\n", self.status);
        let body = if method == "HEAD" { Vec::new() } else { body };
        match self.within {
            Some((len, within)) if method != "HEAD" => {
                let (before, behind) = body.split_at(len);
                steps.push(Step::Send([head.as_bytes(), before].concat()));
                steps.extend(within);
                steps.push(Step::Send(behind.to_vec()));
            }
            _ => steps.push(Step::Send([head.as_bytes(), &body].concat())),
        }
        steps
    }
}
