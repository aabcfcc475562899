//! Requests as they come from the socket, one behind the other: whatever a peer sends, and however
//! the network cuts it, heads and bodies are the same, and what passes has one reading only.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rawcached::server::codec::Framing;
use rawcached::server::codec::chunks::{Chunks, Next};
use rawcached::server::codec::head::{LINES_MAX, RequestHead};
use rawcached::server::codec::head_reader::{Found, HEAD_LEN_MAX, HeadReader};

fuzz_target!(|data: &[u8]| {
    let Some((cuts, stream)) = data.split_first() else { return };
    let (cuts, stream) = stream.split_at(usize::from(*cuts).min(stream.len()));
    let whole = requests(stream, std::iter::once(stream.len()));
    let lengths = cuts.iter().map(|len| usize::from(*len)).cycle();
    let cut = requests(stream, lengths.take(if cuts.is_empty() { 0 } else { stream.len() }));
    assert_eq!(whole, cut);
    assert_eq!(whole, requests(stream, std::iter::repeat_n(1, stream.len())));
});

/// What is read next.
enum Reading {
    Head(HeadReader),
    Length(u64),
    Chunks(Chunks),
}

/// What a connection makes of a stream that arrives in pieces of these lengths.
fn requests(stream: &[u8], pieces: impl Iterator<Item = usize>) -> Vec<String> {
    let (mut seen, mut body) = (Vec::new(), Vec::new());
    let (mut start, mut end) = (0, 0);
    let mut reading = Reading::Head(HeadReader::default());
    for piece in pieces.chain(std::iter::once(stream.len())) {
        end = (end + piece).min(stream.len());
        loop {
            let unread = &stream[start..end];
            reading = match reading {
                Reading::Head(mut heads) => match heads.find(unread) {
                    Ok(Found::Nothing(done)) => {
                        start += done;
                        assert!(end - start < HEAD_LEN_MAX);
                        reading = Reading::Head(heads);
                        break;
                    }
                    Ok(Found::Head(head, len)) => {
                        check(&head, &unread[..len]);
                        start += len;
                        seen.push(format!("{head:?}"));
                        match head.framing {
                            Framing::None => Reading::Length(0),
                            Framing::Length(len) => Reading::Length(len),
                            Framing::Chunked => Reading::Chunks(Chunks::default()),
                        }
                    }
                    Err(fault) => {
                        seen.push(format!("{fault:?}"));
                        return seen;
                    }
                },
                Reading::Length(len) => {
                    let given = unread.len().min(usize::try_from(len).unwrap_or(usize::MAX));
                    body.extend_from_slice(&unread[..given]);
                    start += given;
                    match len - given as u64 {
                        0 => {
                            seen.push(format!("{:?}", std::mem::take(&mut body)));
                            Reading::Head(HeadReader::default())
                        }
                        left => {
                            reading = Reading::Length(left);
                            break;
                        }
                    }
                }
                Reading::Chunks(mut chunks) => match chunks.read(unread) {
                    Ok((done, next)) => {
                        start += done;
                        match next {
                            Next::Data(len) => {
                                assert!(len > 0);
                                body.extend_from_slice(&stream[start..end][..len]);
                                start += len;
                                Reading::Chunks(chunks)
                            }
                            Next::Incomplete => {
                                reading = Reading::Chunks(chunks);
                                break;
                            }
                            Next::End => Reading::Length(0),
                        }
                    }
                    Err(fault) => {
                        seen.push(format!("{:?} {fault:?}", std::mem::take(&mut body)));
                        return seen;
                    }
                },
            };
        }
    }
    // What came of a body that has not ended.
    seen.push(format!("{body:?}"));
    seen
}

/// What a second reader, who goes by the lines alone, may rely on.
fn check(head: &RequestHead, bytes: &[u8]) {
    assert!(bytes.len() <= HEAD_LEN_MAX + 4 && bytes.ends_with(b"\r\n\r\n"));
    let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
    let text = text.strip_prefix("\r\n").unwrap_or(&text);
    let text = text.strip_prefix("\r\n").unwrap_or(text);
    let (lines, rest) = text.split_once("\r\n\r\n").unwrap();
    assert!(rest.is_empty());
    assert!(!lines.replace("\r\n", "").contains(['\r', '\n', '\0', '\x7f']));
    let (line, fields) = lines.split_once("\r\n").unwrap_or((lines, ""));
    let words: Vec<&str> = line.split(' ').collect();
    assert_eq!(words.len(), 3);
    assert_eq!(words[0], head.method.as_str());
    assert_eq!(words[2], if head.is_http_1_0 { "HTTP/1.0" } else { "HTTP/1.1" });
    assert!(words[1].bytes().all(|byte| matches!(byte, b'!'..=b'~') && byte != b'#'));
    let path = head.target.path();
    assert!(path.starts_with('/') || path == "*");
    assert!(words[0] == "CONNECT" || path == "/" || words[1].contains(path));
    assert!(!path.contains('?'));

    let fields = fields.split("\r\n").filter(|field| !field.is_empty());
    let fields: Vec<(&str, &str)> = fields.map(|field| field.split_once(':').unwrap()).collect();
    assert!(fields.len() <= LINES_MAX);
    assert!(fields.iter().all(|(name, _)| !name.is_empty() && !name.contains([' ', '\t'])));
    let values = |name: &str| -> Vec<&str> {
        let named = fields.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.trim_matches([' ', '\t'])).collect()
    };
    let hosts = values("host").len();
    assert!(hosts == 1 || (hosts == 0 && head.is_http_1_0));
    match (&values("content-length")[..], &values("transfer-encoding")[..]) {
        ([], []) => assert_eq!(head.framing, Framing::None),
        ([length], []) => assert_eq!(head.framing, Framing::Length(length.parse().unwrap())),
        ([], [coding]) => {
            assert!(coding.eq_ignore_ascii_case("chunked") && !head.is_http_1_0);
            assert_eq!(head.framing, Framing::Chunked);
        }
        both => panic!("{both:?}"),
    }
    let own = ["host", "connection", "content-length", "transfer-encoding", "expect"];
    let others =
        fields.iter().filter(|(name, _)| own.iter().all(|own| !own.eq_ignore_ascii_case(name)));
    assert_eq!(others.count(), head.headers.len());
}
