//! Heads of responses as they come from an upstream, one behind the other: whatever it sends, and
//! however the network cuts it, they are the same, and what passes has one reading only.
#![no_main]

use http::Method;
use libfuzzer_sys::fuzz_target;
use rawcached::server::codec::head::LINES_MAX;
use rawcached::server::codec::head_reader::HEAD_LEN_MAX;
use rawcached::server::codec::response_head::{ResponseFraming, ResponseHead};
use rawcached::server::codec::response_reader::ResponseReader;

fuzz_target!(|data: &[u8]| {
    let Some((cuts, stream)) = data.split_first() else { return };
    let (cuts, stream) = stream.split_at(usize::from(*cuts).min(stream.len()));
    for method in [Method::GET, Method::HEAD] {
        let whole = heads(stream, &method, std::iter::once(stream.len()));
        let lengths = cuts.iter().map(|len| usize::from(*len)).cycle();
        let lengths = lengths.take(if cuts.is_empty() { 0 } else { stream.len() });
        assert_eq!(whole, heads(stream, &method, lengths));
        assert_eq!(whole, heads(stream, &method, std::iter::repeat_n(1, stream.len())));
    }
});

/// What is made of a stream of heads that arrives in pieces of these lengths.
fn heads(stream: &[u8], method: &Method, pieces: impl Iterator<Item = usize>) -> Vec<String> {
    let mut seen = Vec::new();
    let (mut start, mut end) = (0, 0);
    let mut reader = ResponseReader::default();
    for piece in pieces.chain(std::iter::once(stream.len())) {
        end = (end + piece).min(stream.len());
        loop {
            let unread = &stream[start..end];
            match reader.find(unread, method) {
                Ok(None) => {
                    assert!(unread.len() < HEAD_LEN_MAX);
                    break;
                }
                Ok(Some((head, len))) => {
                    check(&head, &unread[..len], method);
                    start += len;
                    seen.push(format!("{head:?}"));
                }
                Err(fault) => {
                    seen.push(format!("{fault:?}"));
                    return seen;
                }
            }
        }
    }
    seen
}

/// What a second reader, who goes by the lines alone, may rely on.
fn check(head: &ResponseHead, bytes: &[u8], method: &Method) {
    assert!(bytes.len() <= HEAD_LEN_MAX && bytes.ends_with(b"\r\n\r\n"));
    let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
    let (lines, rest) = text.split_once("\r\n\r\n").unwrap();
    assert!(rest.is_empty());
    assert!(!lines.replace("\r\n", "").contains(['\r', '\n', '\0', '\x7f']));
    let (line, fields) = lines.split_once("\r\n").unwrap_or((lines, ""));
    let version = if head.is_http_1_0 { "HTTP/1.0 " } else { "HTTP/1.1 " };
    let rest = line.strip_prefix(version).unwrap();
    let rest = rest.strip_prefix(head.status.as_str()).unwrap();
    assert!(rest.is_empty() || rest.starts_with(' '));

    let fields = fields.split("\r\n").filter(|field| !field.is_empty());
    let fields: Vec<(&str, &str)> = fields.map(|field| field.split_once(':').unwrap()).collect();
    assert!(fields.len() <= LINES_MAX);
    assert!(fields.iter().all(|(name, _)| !name.is_empty() && !name.contains([' ', '\t'])));
    let values = |name: &str| -> Vec<&str> {
        let named = fields.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.trim_matches([' ', '\t'])).collect()
    };
    let (announced_len, framing) =
        match (&values("content-length")[..], &values("transfer-encoding")[..]) {
            ([], []) => (None, ResponseFraming::UntilClose),
            ([length], []) => {
                let length = length.parse().unwrap();
                (Some(length), ResponseFraming::Length(length))
            }
            ([], [coding]) => {
                assert!(coding.eq_ignore_ascii_case("chunked") && !head.is_http_1_0);
                (None, ResponseFraming::Chunked)
            }
            both => panic!("{both:?}"),
        };
    assert_eq!(head.announced_len, announced_len);
    let status = head.status.as_u16();
    let ends_with_head = method == Method::HEAD || matches!(status, 100..=199 | 204 | 304);
    assert_eq!(head.framing, if ends_with_head { ResponseFraming::None } else { framing });
    // Where the next response begins is certain, or there is none.
    let announces = !matches!(framing, ResponseFraming::UntilClose | ResponseFraming::Length(0));
    let is_doubtful = announces && matches!(status, 100..=199 | 204);
    assert!(!head.keeps_alive || !is_doubtful);
    assert!(!head.keeps_alive || head.framing != ResponseFraming::UntilClose);
    let options = values("connection").join(",").to_ascii_lowercase();
    let has_option = |wanted: &str| options.split(',').any(|option| option.trim() == wanted);
    assert!(!head.keeps_alive || !has_option("close"));
    assert!(!head.keeps_alive || !head.is_http_1_0 || has_option("keep-alive"));
    let own = ["host", "connection", "content-length", "transfer-encoding", "expect"];
    let others =
        fields.iter().filter(|(name, _)| own.iter().all(|own| !own.eq_ignore_ascii_case(name)));
    assert_eq!(others.count(), head.headers.len());
}
