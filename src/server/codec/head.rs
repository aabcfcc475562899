//! Heads of requests: request line and header lines.

use std::mem::MaybeUninit;

use http::header::HeaderName;
use http::{HeaderMap, Method};
use httparse::{Error, Header, Request, Status};
use smallvec::SmallVec;

use super::Framing;
use super::fault::Fault;
use super::fields::{ConnectionFields, sort};
use super::head_search::StartLine;
use super::host::is_host;
use super::target::{TARGET_LEN_MAX, Target};

/// Most header lines of a head.
pub const LINES_MAX: usize = 100;

/// The head of a request. Whoever has one may rely on it: the target is well-formed, a host is named
/// once, and how long the body is has one reading only.
#[derive(Debug)]
pub struct RequestHead {
    /// What to do.
    pub method: Method,
    /// With what.
    pub target: Target,
    /// The other header lines, without those that are for the connection: `Host`, `Connection`,
    /// `Content-Length`, `Transfer-Encoding` and `Expect`.
    pub headers: HeaderMap,
    /// `Host`; none in a request of HTTP/1.0 that has none.
    pub host: Option<Box<str>>,
    /// Fields that the sender means for this connection only (RFC 9110, section 7.6.1), whether they
    /// are there or not.
    pub nominated: Vec<HeaderName>,
    /// How long the body is.
    pub framing: Framing,
    /// HTTP/1.0, not HTTP/1.1.
    pub is_http_1_0: bool,
    /// Whether the client means to go on after the answer.
    pub keeps_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub waits: bool,
}

impl RequestHead {
    /// Reads a whole head: `bytes` end with its empty line.
    pub(super) fn parse(bytes: &[u8]) -> Result<RequestHead, Fault> {
        let mut lines = [const { MaybeUninit::<Header<'_>>::uninit() }; LINES_MAX];
        let mut request = Request::new(&mut []);
        let parsed = request.parse_with_uninit_headers(bytes, &mut lines);
        match parsed {
            Ok(Status::Complete(len)) if len == bytes.len() => {}
            Ok(_) => return Err(Fault::FIELD),
            Err(error) => return Err(fault_of(error)),
        }
        let (method, target, is_http_1_0) = line_of(&request)?;
        let (fields, headers) = sort(request.headers, bytes)?;
        let host = host(&fields, is_http_1_0)?;
        let framing = Framing::of(&fields, is_http_1_0)?;
        // Nothing follows a CONNECT that is a request for certain.
        let keeps_alive = fields.keeps_alive(is_http_1_0) && method != Method::CONNECT;
        let waits = waits(&fields, is_http_1_0)?;
        let nominated = fields.nominated();
        Ok(RequestHead {
            method,
            target,
            headers,
            host,
            nominated,
            framing,
            is_http_1_0,
            keeps_alive,
            waits,
        })
    }
}

/// What a request begins with.
#[derive(Debug, Default)]
pub(super) struct RequestLine;

impl StartLine for RequestLine {
    /// Room for the longest target, a method and a version.
    const LEN_MAX: usize = TARGET_LEN_MAX + 128;
    const TOO_LONG: Fault = Fault::TARGET_LEN;
    const MALFORMED: Fault = Fault::REQUEST_LINE;

    fn check(line: &[u8]) -> Result<(), Fault> {
        let mut request = Request::new(&mut []);
        match request.parse(line) {
            // A header line may follow; that there is no room for one is no fault of the line.
            Ok(_) | Err(Error::TooManyHeaders) => line_of(&request).map(drop),
            Err(Error::Version) if names_a_version(line) => Err(Fault::VERSION),
            Err(_) => Err(Fault::REQUEST_LINE),
        }
    }

    fn check_beginning(beginning: &[u8]) -> Result<(), Fault> {
        match Request::new(&mut []).parse(beginning) {
            Err(Error::Token) => Err(Fault::REQUEST_LINE),
            // The version may not be whole yet.
            _ => Ok(()),
        }
    }
}

fn line_of(request: &Request<'_, '_>) -> Result<(Method, Target, bool), Fault> {
    let (Some(method), Some(target), Some(version)) =
        (request.method, request.path, request.version)
    else {
        return Err(Fault::REQUEST_LINE);
    };
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| Fault::REQUEST_LINE)?;
    let target = match method {
        // Its target is a host (RFC 9112, section 3.2.3), and no path here.
        Method::CONNECT if is_host(target.as_bytes()) => Target::parse("*")?,
        _ => Target::parse(target)?,
    };
    Ok((method, target, version == 0))
}

/// Whether a request line ends with a version of HTTP, of whatever number.
fn names_a_version(line: &[u8]) -> bool {
    let words: SmallVec<[&[u8]; 4]> = line.trim_ascii_end().split(|byte| *byte == b' ').collect();
    matches!(words[..], [_, _, [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9']])
}

/// Why header lines cannot be read.
pub(super) fn fault_of(error: Error) -> Fault {
    match error {
        Error::TooManyHeaders => Fault::HEAD_LEN,
        _ => Fault::FIELD,
    }
}

/// Proxies could take requests with other hosts to be for different ones.
fn host(fields: &ConnectionFields<'_>, is_http_1_0: bool) -> Result<Option<Box<str>>, Fault> {
    match &fields.hosts[..] {
        [] if is_http_1_0 => Ok(None),
        [host] if is_host(host) => {
            std::str::from_utf8(host).map(|host| Some(host.into())).map_err(|_| Fault::HOST)
        }
        _ => Err(Fault::HOST),
    }
}

fn waits(fields: &ConnectionFields<'_>, is_http_1_0: bool) -> Result<bool, Fault> {
    // Clients of HTTP/1.0 do not know 100 (RFC 9110, section 10.1.1).
    if is_http_1_0 {
        return Ok(false);
    }
    let is_known = |value: &&[u8]| value.eq_ignore_ascii_case(b"100-continue");
    match fields.expectations.iter().all(is_known) {
        true => Ok(!fields.expectations.is_empty()),
        false => Err(Fault::EXPECTATION),
    }
}
