//! Heads of the requests that an upstream gets.

use http::Method;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, TRANSFER_ENCODING, UPGRADE};

use super::Framing;
use super::host::is_host;
use super::target::Target;

/// The head of a request to an upstream.
#[derive(Clone, Copy, Debug)]
pub(in crate::server) struct RequestToUpstream<'a> {
    /// What to do; not CONNECT.
    pub(in crate::server) method: &'a Method,
    /// With what. It is sent in origin form, without an authority.
    pub(in crate::server) target: &'a Target,
    /// `Host`: a host, with or without a port.
    pub(in crate::server) host: &'a str,
    /// Without `Host`, `Connection`, `Content-Length` and `Transfer-Encoding`, which are written from
    /// the rest. With `Upgrade` the request asks for another protocol.
    pub(in crate::server) headers: &'a HeaderMap,
    /// How long the body is.
    pub(in crate::server) framing: Framing,
    /// Asks the upstream to end the connection after its response.
    pub(in crate::server) closes: bool,
}

impl RequestToUpstream<'_> {
    /// Appends the head with its empty line to `output`.
    ///
    /// # Panics
    /// Something of it could be read as another request: its types, and whoever made it, see to it
    /// that nothing is.
    pub(in crate::server) fn write(&self, output: &mut Vec<u8>) {
        assert!(*self.method != Method::CONNECT, "a tunnel is not asked for");
        assert!(is_host(self.host.as_bytes()), "the host is valid");
        for own in [HOST, CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING] {
            assert!(!self.headers.contains_key(&own), "{own} is not written twice");
        }
        let target = self.target.path_and_query();
        let words = [self.method.as_str(), " ", target, " HTTP/1.1\r\nhost: ", self.host, "\r\n"];
        for word in words {
            output.extend_from_slice(word.as_bytes());
        }
        for (name, value) in self.headers {
            output.extend_from_slice(name.as_str().as_bytes());
            output.extend_from_slice(b": ");
            output.extend_from_slice(value.as_bytes());
            output.extend_from_slice(b"\r\n");
        }
        match self.framing {
            Framing::None => {}
            Framing::Length(len) => {
                output.extend_from_slice(b"content-length: ");
                output.extend_from_slice(itoa::Buffer::new().format(len).as_bytes());
                output.extend_from_slice(b"\r\n");
            }
            Framing::Chunked => output.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        }
        if self.headers.contains_key(UPGRADE) {
            output.extend_from_slice(b"connection: upgrade\r\n");
        }
        if self.closes {
            output.extend_from_slice(b"connection: close\r\n");
        }
        output.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use http::header::{HeaderName, HeaderValue};

    use super::*;
    use crate::server::codec::head_reader::{Found, HeadReader};

    fn written(request: &RequestToUpstream<'_>) -> String {
        let mut output = Vec::new();
        request.write(&mut output);
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn a_head_is_written_as_it_is_read() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("x-a", "1"), ("x-b", ""), ("x-a", "two words")] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let target = Target::parse("http://other/a|b?c=d").unwrap();
        for (framing, line) in [
            (Framing::None, ""),
            (Framing::Length(u64::MAX), "content-length: 18446744073709551615\r\n"),
            (Framing::Chunked, "transfer-encoding: chunked\r\n"),
        ] {
            for (closes, end) in [(false, ""), (true, "connection: close\r\n")] {
                let method = &Method::POST;
                let (target, host, headers) = (&target, "x:80", &headers);
                let request = RequestToUpstream { method, target, host, headers, framing, closes };
                let text = written(&request);
                assert!(text.starts_with("POST /a|b?c=d HTTP/1.1\r\nhost: x:80\r\nx-a: 1\r\n"));
                assert!(text.ends_with(&format!("{line}{end}\r\n")), "{text}");
                let found = HeadReader::default().find(text.as_bytes()).unwrap();
                let Found::Head(read, len) = found else { panic!("{text}") };
                assert_eq!((len, read.framing, read.keeps_alive), (text.len(), framing, !closes));
                assert_eq!(read.headers, *headers);
                assert_eq!(read.target.path_and_query(), target.path_and_query());
            }
        }
    }

    #[test]
    fn what_could_be_read_as_another_request_is_not_written() {
        let target = Target::parse("/").unwrap();
        let write = |method: Method, host: &str, name: Option<HeaderName>| {
            let mut headers = HeaderMap::new();
            headers.extend(name.map(|name| (name, HeaderValue::from_static("1"))));
            let (target, framing, closes) = (&target, Framing::None, false);
            let (method, headers) = (&method, &headers);
            written(&RequestToUpstream { method, target, host, headers, framing, closes });
        };
        let panics = |host: &'static str, name: Option<HeaderName>| {
            std::panic::catch_unwind(|| write(Method::GET, host, name)).is_err()
        };
        assert!(!panics("x", None));
        for host in ["", "x\r\nY: z", "x y"] {
            assert!(panics(host, None), "{host:?}");
        }
        for name in [HOST, CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING] {
            assert!(panics("x", Some(name)));
        }
        assert!(std::panic::catch_unwind(|| write(Method::CONNECT, "x", None)).is_err());
    }
}
