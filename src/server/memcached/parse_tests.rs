use proptest::prelude::*;

use super::*;

fn parse_all(mut input: &[u8]) -> Vec<String> {
    let mut seen = Vec::new();
    loop {
        match parse(input, &mut 0) {
            Parsed::Incomplete => return seen,
            Parsed::TooLong(reply) => {
                seen.push(reply.to_owned());
                return seen;
            }
            Parsed::Command { command, line_len } => {
                seen.push(format!("{command:?}"));
                input = &input[line_len..];
            }
            Parsed::Refused { reply, line_len, next } => {
                seen.push(format!("{reply:?}, {next:?}"));
                input = &input[line_len..];
            }
        }
    }
}

/// Parses as a connection does that gets `input` in pieces of the given lengths.
fn parse_in_pieces(input: &[u8], piece_lens: &[usize]) -> Vec<String> {
    let mut seen = Vec::new();
    let (mut start, mut end, mut searched) = (0, 0, 0);
    let mut lens = piece_lens.iter().copied().cycle();
    while end < input.len() {
        end = (end + lens.next().unwrap_or(1)).min(input.len());
        loop {
            match parse(&input[start..end], &mut searched) {
                Parsed::Incomplete => break,
                Parsed::TooLong(reply) => {
                    seen.push(reply.to_owned());
                    return seen;
                }
                Parsed::Command { command, line_len } => {
                    seen.push(format!("{command:?}"));
                    start += line_len;
                }
                Parsed::Refused { reply, line_len, next } => {
                    seen.push(format!("{reply:?}, {next:?}"));
                    start += line_len;
                }
            }
        }
    }
    seen
}

fn refusal(line: &str) -> Option<&'static str> {
    match parse(line.as_bytes(), &mut 0) {
        Parsed::Refused { reply, .. } => Some(reply.unwrap_or("")),
        _ => None,
    }
}

#[test]
fn a_storage_line_gives_its_fields() {
    let input = b" set  key 4294967295 -1 +12 noreply\r\nrest";
    let Parsed::Command { command: Command::Store(store), line_len } = parse(input, &mut 0) else {
        panic!("not a storage command");
    };
    assert_eq!(line_len, input.len() - 4);
    assert_eq!((&*store.key, store.flags), (b"key".as_slice(), u32::MAX));
    assert_eq!((store.verb, store.exptime, store.body_len), (Verb::Set, -1, 12));
    assert_eq!(store.reply, Reply::Words { noreply: true });
}

/// What is said to follow a line that is refused.
fn next(line: &str) -> Option<Next> {
    match parse(line.as_bytes(), &mut 0) {
        Parsed::Refused { next, .. } => Some(next),
        _ => None,
    }
}

#[test]
fn keys_end_at_250_bytes_and_hold_any_others_but_spaces() {
    assert_eq!(refusal(&format!("get {}\r\n", "k".repeat(250))), None);
    assert_eq!(refusal(&format!("get a {}\r\n", "k".repeat(251))), Some(BAD_FORMAT));
    assert_eq!(refusal(&format!("incr {} 1 noreply\r\n", "k".repeat(251))), Some(""));
    for key in ["a\0b", "a\tb", "a\rb", "\x7f", "\x01", "schl\u{fc}ssel"] {
        for line in [format!("get {key} x\r\n"), format!("set {key} 0 0 1\r\n")] {
            let Parsed::Command { command, .. } = parse(line.as_bytes(), &mut 0) else {
                panic!("{line:?}");
            };
            let found = match command {
                Command::Get(retrieval) => retrieval.keys.iter().next().unwrap(),
                Command::Store(store) => store.key,
                other => panic!("{other:?}"),
            };
            assert_eq!(&*found, key.as_bytes());
        }
    }
}

#[test]
fn flags_keep_their_lower_32_bits() {
    for (flags, kept) in [("4294967296", 0), ("4294967299", 3), ("18446744073709551615", u32::MAX)]
    {
        let line = format!("set k {flags} 0 1\r\n");
        let parsed = parse(line.as_bytes(), &mut 0);
        let Parsed::Command { command: Command::Store(store), .. } = parsed else {
            panic!("{parsed:?}");
        };
        assert_eq!(store.flags, kept, "{flags}");
    }
}

#[test]
fn bad_lines_get_the_errors_of_memcached() {
    let cases = [
        ("\r\n", ERROR),
        ("GET k\r\n", ERROR),
        ("get\r\n", ERROR),
        ("gat\r\n", ERROR),
        ("gat x k\r\n", BAD_EXPTIME),
        ("set k 0 0\r\n", BAD_FORMAT),
        ("set k 0 0 1 2 3\r\n", BAD_FORMAT),
        ("set k -1 0 1\r\n", BAD_FORMAT),
        ("set k 0 0 -1\r\n", BAD_FORMAT),
        ("set k 18446744073709551616 0 1\r\n", BAD_FORMAT),
        ("set k 0 0 x noreply\r\n", ""),
        ("cas k 0 0 1\r\n", BAD_FORMAT),
        ("cas k 0 0 1 \r\n", BAD_FORMAT),
        ("cas k 0 0 1 x\r\n", BAD_FORMAT),
        ("cas k 0 0 1 noreply\r\n", ""),
        ("SET k 0 0 1\r\n", ERROR),
        ("MS k 1\r\n", ERROR),
        ("MG k v\r\n", ERROR),
        ("delete\r\n", ERROR),
        ("delete k 1\r\n", BAD_DELETE),
        ("delete k 1 noreply\r\n", ""),
        ("incr k -1\r\n", BAD_DELTA),
        ("decr k\r\n", ERROR),
        ("touch k x\r\n", BAD_EXPTIME),
        ("flush_all x\r\n", BAD_EXPTIME),
        ("flush_all 1 2 3\r\n", ERROR),
        ("verbosity\r\n", ERROR),
        ("verbosity x\r\n", BAD_FORMAT),
        ("slabs\r\n", ERROR),
        ("slabs automove\r\n", ERROR),
        ("slabs automove x\r\n", BAD_FORMAT),
        ("slabs automove 3\r\n", ERROR),
        ("slabs reassign 1 2\r\n", "CLIENT_ERROR slab reassignment disabled"),
        ("version\r\r\n", ERROR),
    ];
    for (line, reply) in cases {
        assert_eq!(refusal(line), Some(reply), "{line:?}");
    }
    assert_eq!(refusal("slabs automove 1\r\n"), None);
}

#[test]
fn the_value_behind_a_refused_line_is_known_or_the_connection_ends() {
    let long = "k".repeat(251);
    let values = [
        format!("set {long} 0 0 7\r\n"),
        format!("prepend {long} 0 0 7 noreply\r\n"),
        "set k -1 0 7\r\n".to_owned(),
        "add k 18446744073709551616 0 7\r\n".to_owned(),
        "replace k 0 0.5 7\r\n".to_owned(),
        "append k x 0 7 noreply\r\n".to_owned(),
        "cas k 0 0 7 \r\n".to_owned(),
        "cas k 0 0 7 x\r\n".to_owned(),
        "cas k 0 0 7 noreply\r\n".to_owned(),
        "cas k 0 0 7 -1 noreply\r\n".to_owned(),
        "SET k 0 0 7\r\n".to_owned(),
        "Cas k 0 0 7 1\r\n".to_owned(),
        "MS k 7\r\n".to_owned(),
        "Ms k 7 T0 q\r\n".to_owned(),
    ];
    for line in &values {
        assert_eq!(next(line), Some(Next::Value(7)), "{line:?}");
    }
    let unknown = [
        "set\r\n",
        "set k 0 0\r\n",
        "set k 0 0 -1\r\n",
        "set k 0 0 x\r\n",
        "set k 0 0 0x7\r\n",
        "set k 0 0 7\t\r\n",
        "set k 0 0 18446744073709551616\r\n",
        "set k 0 0 9223372036854775808\r\n",
        "set k 0 0 noreply\r\n",
        // A key with a space in it: the length is the last word.
        "set k k 0 0 7\r\n",
        "set k 0 0 60 7\r\n",
        "set k 0 0 60 7 noreply\r\n",
        "set k 0 0 0 60 7\r\n",
        "cas k k 0 0 7 1\r\n",
        "cas k 0 0 60 7 1\r\n",
        "SET k 0 0\r\n",
        "MS k S7\r\n",
        "MS k 0 7\r\n",
    ];
    for line in unknown {
        assert_eq!(next(line), Some(Next::Unknown), "{line:?}");
    }
    for line in ["get\r\n", "MG k v\r\n", "nonsense 1 2 3 4\r\n", "GET k\r\n", "touch k x\r\n"] {
        assert_eq!(next(line), Some(Next::Command), "{line:?}");
    }
}

#[test]
fn a_request_of_http_ends_the_connection_without_an_answer() {
    let requests = [
        "GET / HTTP/1.0\r\n",
        "POST /set HTTP/1.1\n",
        "  POST   /a b   HTTP/1.1  \r\n",
        "DELETE HTTP/1.1\r\n",
        "PRI * HTTP/2.0\r\n",
        "M-SEARCH * HTTP/1.1\r\n",
        "GET /\r\n",
        "POST /x y\r\n",
        "OPTIONS *\r\n",
        "PUT http://a/\r\n",
    ];
    for line in requests {
        let parsed = parse(line.as_bytes(), &mut 0);
        let Parsed::Refused { reply: None, next: Next::Unknown, .. } = parsed else {
            panic!("{line:?}: {parsed:?}");
        };
    }
}

#[test]
fn delete_takes_a_hold_time_of_zero_only() {
    for line in ["delete k\r\n", "delete k 0\r\n", "delete k noreply\r\n", "delete k 0 noreply\n"] {
        assert_eq!(refusal(line), None, "{line:?}");
    }
}

#[test]
fn endless_lines_are_given_up() {
    let incomplete = |input: &[u8]| parse(input, &mut 0) == Parsed::Incomplete;
    assert!(incomplete(&[b'x'; LINE_LEN_MAX]));
    assert!(!incomplete(&[b'x'; LINE_LEN_MAX + 1]));
    assert!(!incomplete(&[b' '; LINE_LEN_MAX + 1]));
    let mut gets = b"gets".to_vec();
    gets.resize(RETRIEVAL_LEN_MAX, b' ');
    assert!(incomplete(&gets));
    gets.push(b' ');
    assert!(!incomplete(&gets));
    gets.push(b'\n');
    assert!(matches!(parse(&gets, &mut 0), Parsed::TooLong(_)));
}

fn any_word() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "get|gets|gat|set|add|cas|append|delete|incr|touch|flush_all|stats|quit|noreply",
        "[a-z]{1,3}",
        "-?[0-9]{1,21}",
        "k{249,252}",
    ]
    .prop_map(String::into_bytes)
    .boxed()
    .prop_union(proptest::collection::vec(any::<u8>(), 0..6).boxed())
}

fn any_line() -> impl Strategy<Value = Vec<u8>> {
    let end = prop_oneof![Just("\r\n"), Just("\n"), Just("\r\r\n")];
    (proptest::collection::vec(any_word(), 0..8), end).prop_map(|(words, end)| {
        let mut line = words.join(&b' ');
        line.extend_from_slice(end.as_bytes());
        line
    })
}

proptest! {
    #[test]
    fn commands_do_not_depend_on_how_the_bytes_arrive(
        lines in proptest::collection::vec(any_line(), 1..6),
        piece_lens in proptest::collection::vec(1_usize..40, 1..8),
    ) {
        let input = lines.concat();
        prop_assert_eq!(parse_all(&input), parse_in_pieces(&input, &piece_lens));
        prop_assert_eq!(parse_all(&input), parse_in_pieces(&input, &[1]));
    }

    #[test]
    fn garbage_never_panics_and_always_makes_progress(
        input in proptest::collection::vec(any::<u8>(), 0..2000),
    ) {
        let lines = input.iter().filter(|byte| **byte == b'\n').count();
        prop_assert_eq!(parse_all(&input).len(), lines);
    }
}
