//! Why bytes are no message of HTTP that is taken.

use http::StatusCode;

/// Why a message is refused by its form alone. The connection ends with the answer to a request, since
/// nobody knows what comes next on it; with a response at once, and only the text counts then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The status of the answer.
    pub status: StatusCode,
    /// A line for people.
    pub text: &'static str,
}

const fn fault(status: StatusCode, text: &'static str) -> Fault {
    Fault { status, text }
}

const fn bad(text: &'static str) -> Fault {
    fault(StatusCode::BAD_REQUEST, text)
}

impl Fault {
    pub(super) const REQUEST_LINE: Fault = bad("the request line is malformed\n");
    pub(super) const STATUS_LINE: Fault = bad("the status line is malformed\n");
    pub(super) const INTERIM_BODY: Fault = bad("an interim response has no body\n");
    pub(super) const FRAGMENT: Fault = bad("a # is no part of a target: write it as %23\n");
    pub(super) const TARGET: Fault = bad("the target is malformed\n");
    pub(super) const LINE_END: Fault = bad("a line ends with CR LF\n");
    pub(super) const FIELD: Fault = bad("a header line is malformed\n");
    pub(super) const HOST: Fault =
        bad("a request has one valid Host header (RFC 9112, section 3.2)\n");
    pub(super) const LENGTH: Fault = bad("Content-Length is one decimal number\n");
    pub(super) const TWO_LENGTHS: Fault =
        bad("a message has Content-Length or Transfer-Encoding, not both\n");
    pub(super) const CODING_OF_1_0: Fault = bad("HTTP/1.0 has no Transfer-Encoding\n");
    pub(super) const CHUNK: Fault = bad("a chunk of the body is malformed\n");
    pub(super) const TRAILER: Fault = bad("a trailer of the body is malformed\n");
    /// The upstream speaks another protocol, for which nobody asked.
    pub(in crate::server) const UPGRADE: Fault = bad("nobody asked for another protocol\n");
    /// The final response does not come.
    pub(in crate::server) const INTERIMS: Fault = bad("there are too many interim responses\n");
    /// The connection ended within a head.
    pub const HEAD_CUT: Fault = bad("the request ended before its head was whole\n");
    /// Others have taken the memory for long heads.
    pub const MEMORY: Fault =
        fault(StatusCode::SERVICE_UNAVAILABLE, "memory for long requests is used up\n");
    pub(super) const TARGET_LEN: Fault =
        fault(StatusCode::URI_TOO_LONG, "the target is longer than 64 KiB\n");
    pub(super) const EXPECTATION: Fault =
        fault(StatusCode::EXPECTATION_FAILED, "Expect takes 100-continue only\n");
    pub(super) const HEAD_LEN: Fault = fault(
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        "the head has more than 128 KiB or 100 header lines\n",
    );
    pub(super) const CODING: Fault =
        fault(StatusCode::NOT_IMPLEMENTED, "the only transfer coding is chunked, once\n");
    pub(super) const VERSION: Fault = fault(
        StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        "the versions of HTTP here are 1.0 and 1.1\n",
    );
}
