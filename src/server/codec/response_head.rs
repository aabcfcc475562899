//! Heads of responses: status line and header lines.

use std::mem::MaybeUninit;

use http::header::HeaderName;
use http::{HeaderMap, Method, StatusCode};
use httparse::{Error, Header, ParserConfig, Response, Status};

use super::Framing;
use super::fault::Fault;
use super::fields::sort;
use super::head::{LINES_MAX, fault_of};
use super::head_search::StartLine;

/// The head of a response. Whoever has one may rely on it: how long the body is has one reading only.
#[derive(Debug)]
pub struct ResponseHead {
    /// What became of the request.
    pub status: StatusCode,
    /// The other header lines, without those that are for the connection: `Connection`,
    /// `Content-Length`, `Transfer-Encoding`, and `Host` and `Expect`, which only requests have.
    pub headers: HeaderMap,
    /// Fields that the sender means for this connection only (RFC 9110, section 7.6.1), whether they
    /// are there or not.
    pub nominated: Vec<HeaderName>,
    /// How long the body is.
    pub framing: ResponseFraming,
    /// `Content-Length`, also where no body follows: that of the body a GET would have had.
    pub announced_len: Option<u64>,
    /// Whether the sender means to go on after this response, and its end is certain.
    pub keeps_alive: bool,
    /// HTTP/1.0, not HTTP/1.1.
    pub is_http_1_0: bool,
}

/// How long the body of a response is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseFraming {
    /// The response ends with its head.
    None,
    /// So many bytes.
    Length(u64),
    /// As many as its chunks have.
    Chunked,
    /// As many as come before the connection ends.
    UntilClose,
}

impl ResponseHead {
    /// Reads a whole head: `bytes` end with its empty line. The request had this `method`, which is
    /// not CONNECT.
    pub(super) fn parse(bytes: &[u8], method: &Method) -> Result<ResponseHead, Fault> {
        let mut lines = [const { MaybeUninit::<Header<'_>>::uninit() }; LINES_MAX];
        let mut response = Response::new(&mut []);
        let parsed = ParserConfig::default().parse_response_with_uninit_headers(
            &mut response,
            bytes,
            &mut lines,
        );
        match parsed {
            Ok(Status::Complete(len)) if len == bytes.len() => {}
            Ok(_) => return Err(Fault::FIELD),
            Err(error) => return Err(fault_of(error)),
        }
        let (status, is_http_1_0) = line_of(&response)?;
        let (fields, headers) = sort(response.headers, bytes)?;
        let announced = Framing::of(&fields, is_http_1_0)?;
        let announced_len = match announced {
            Framing::Length(len) => Some(len),
            Framing::None | Framing::Chunked => None,
        };
        let framing = framing(status, method, announced);
        // Whoever announces a body where none can be may send it all the same.
        let is_doubtful = is_bodiless(status) && !matches!(announced_len, None | Some(0))
            || is_bodiless(status) && announced == Framing::Chunked;
        if is_doubtful && status.is_informational() {
            return Err(Fault::INTERIM_BODY);
        }
        let is_end_known = !is_doubtful && framing != ResponseFraming::UntilClose;
        let keeps_alive = fields.keeps_alive(is_http_1_0) && is_end_known;
        let nominated = fields.nominated();
        Ok(ResponseHead {
            status,
            headers,
            nominated,
            framing,
            announced_len,
            keeps_alive,
            is_http_1_0,
        })
    }
}

/// Statuses that never have a body. (304 has none either, but may announce that of a 200.)
fn is_bodiless(status: StatusCode) -> bool {
    status.is_informational() || status == StatusCode::NO_CONTENT
}

/// RFC 9112, section 6.3.
fn framing(status: StatusCode, method: &Method, announced: Framing) -> ResponseFraming {
    if method == Method::HEAD || status == StatusCode::NOT_MODIFIED || is_bodiless(status) {
        return ResponseFraming::None;
    }
    match announced {
        Framing::None => ResponseFraming::UntilClose,
        Framing::Length(len) => ResponseFraming::Length(len),
        Framing::Chunked => ResponseFraming::Chunked,
    }
}

/// What a response begins with.
#[derive(Debug, Default)]
pub(super) struct StatusLine;

impl StartLine for StatusLine {
    /// Room for a long reason, which nobody reads.
    const LEN_MAX: usize = 8 << 10;
    const TOO_LONG: Fault = Fault::STATUS_LINE;
    const MALFORMED: Fault = Fault::STATUS_LINE;

    fn check(line: &[u8]) -> Result<(), Fault> {
        let mut response = Response::new(&mut []);
        match response.parse(line) {
            // A header line may follow; that there is no room for one is no fault of the line.
            Ok(_) | Err(Error::TooManyHeaders) => line_of(&response).map(drop),
            Err(Error::Version) if names_a_version(line) => Err(Fault::VERSION),
            Err(_) => Err(Fault::STATUS_LINE),
        }
    }

    fn check_beginning(beginning: &[u8]) -> Result<(), Fault> {
        let name = b"HTTP/";
        let len = name.len().min(beginning.len());
        if beginning[..len] == name[..len] { Ok(()) } else { Err(Fault::STATUS_LINE) }
    }
}

fn line_of(response: &Response<'_, '_>) -> Result<(StatusCode, bool), Fault> {
    let (Some(code), Some(version)) = (response.code, response.version) else {
        return Err(Fault::STATUS_LINE);
    };
    let status = StatusCode::from_u16(code).map_err(|_| Fault::STATUS_LINE)?;
    Ok((status, version == 0))
}

/// Whether a status line begins with a version of HTTP, of whatever number.
fn names_a_version(line: &[u8]) -> bool {
    matches!(line, [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9', b' ', ..])
}
