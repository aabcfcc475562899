//! Heads of requests: request line and header lines.

use std::mem::MaybeUninit;

use http::{HeaderMap, Method};
use httparse::{Error, Header, Request, Status};
use smallvec::SmallVec;

use super::Framing;
use super::fault::Fault;
use super::fields::{ConnectionFields, sort};
use super::host::is_host;
use super::target::Target;

/// Most header lines of a request.
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
        check_host(&fields, is_http_1_0)?;
        let framing = Framing::of(&fields, is_http_1_0)?;
        let keeps_alive = !fields.closes && (fields.keeps_alive || !is_http_1_0);
        // Nothing follows a CONNECT that is a request for certain.
        let keeps_alive = keeps_alive && method != Method::CONNECT;
        let waits = waits(&fields, is_http_1_0)?;
        Ok(RequestHead { method, target, headers, framing, is_http_1_0, keeps_alive, waits })
    }
}

/// Looks at the request line alone, which ends `bytes`: what is wrong with it is not put off until
/// the head is whole.
pub(super) fn check_request_line(bytes: &[u8]) -> Result<(), Fault> {
    let mut request = Request::new(&mut []);
    match request.parse(bytes) {
        // A header line may follow; that there is no room for one is no fault of the request line.
        Ok(_) | Err(Error::TooManyHeaders) => line_of(&request).map(drop),
        Err(Error::Version) if names_a_version(bytes) => Err(Fault::VERSION),
        Err(_) => Err(Fault::REQUEST_LINE),
    }
}

/// Looks at the beginning of a request line: what can only become wrong is not waited for.
pub(super) fn check_beginning(bytes: &[u8]) -> Result<(), Fault> {
    match Request::new(&mut []).parse(bytes) {
        Err(Error::Token) => Err(Fault::REQUEST_LINE),
        // The version may not be whole yet.
        _ => Ok(()),
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

fn fault_of(error: Error) -> Fault {
    match error {
        Error::TooManyHeaders => Fault::HEAD_LEN,
        _ => Fault::FIELD,
    }
}

/// Proxies could take requests with other hosts to be for different ones.
fn check_host(fields: &ConnectionFields<'_>, is_http_1_0: bool) -> Result<(), Fault> {
    match &fields.hosts[..] {
        [] if is_http_1_0 => Ok(()),
        [host] if is_host(host) => Ok(()),
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
