use super::super::parse::{Parsed, parse};
use super::*;

fn parsed(line: &str) -> Parsed<'_> {
    parse(line.as_bytes(), &mut 0)
}

fn refused(line: &str) -> (&'static str, Next) {
    match parsed(line) {
        Parsed::Refused { reply: Some(reply), next, .. } => (reply, next),
        other => panic!("{line:?}: {other:?}"),
    }
}

fn stored(line: &str) -> Store<'_> {
    match parsed(line) {
        Parsed::Command { command: Command::Store(store), .. } => store,
        other => panic!("{line:?}: {other:?}"),
    }
}

#[test]
fn what_a_get_asks_for_is_read() {
    let line = "mg a2V5 t v Oab C7 k T30 N-1 E9 R50 q u b s P1 Lx\n";
    let Parsed::Command { command: Command::MetaGet(get), line_len } = parsed(line) else {
        panic!("no mg")
    };
    assert_eq!((line_len, &*get.key), (line.len(), b"a2V5".as_slice()));
    assert!(get.value && get.unnoticed && get.reply.quiet && get.reply.encoded);
    assert_eq!((get.known, get.new_cas), (Some(7), Some(9)));
    assert_eq!((get.touch, get.vivify, get.recache), (Some(30), Some(-1), Some(50)));
    let letters: Vec<u8> = get.reply.flags.iter().map(|(letter, _)| letter).collect();
    assert_eq!(letters, b"tvOCkTNERqubsPL");
    assert_eq!(get.reply.flags.iter().nth(2), Some((b'O', b"Oab".as_slice())));
}

#[test]
fn what_a_set_asks_for_is_read() {
    let store = stored("ms k 3 T30 F7 C5 E6 I MR q\r\n");
    assert_eq!((store.verb, store.flags, store.exptime, store.body_len), (Verb::Replace, 7, 30, 3));
    let terms = Terms { compare: Some(5), stale_if_lower: true, new_cas: Some(6), vivify: None };
    assert_eq!(store.terms, terms);
    for (mode, verb) in [
        ("", Verb::Set),
        ("MS", Verb::Set),
        ("ME", Verb::Add),
        ("MA", Verb::Append),
        ("MP", Verb::Prepend),
        ("MR", Verb::Replace),
    ] {
        let line = format!("ms k 0 {mode} N9\r\n");
        let store = stored(&line);
        assert_eq!((store.verb, store.terms.vivify, store.flags), (verb, Some(9), 0));
    }
    assert_eq!(stored("ms k 1 ME C5\r\n").terms.compare, None, "it adds whatever the CAS value is");
}

#[test]
fn what_a_change_of_a_number_asks_for_is_read() {
    let change = |line| match parsed(line) {
        Parsed::Command { command: Command::Arithmetic(change), .. } => change,
        other => panic!("{other:?}"),
    };
    let plain = change("ma k\r\n");
    assert_eq!((plain.direction, plain.delta, plain.vivify), (Direction::Up, 1, None));
    let full = change("ma k MD D5 N30 J7 T8 C9 E10\r\n");
    assert_eq!((full.direction, full.delta, full.vivify), (Direction::Down, 5, Some((30, 7))));
    assert_eq!((full.touch, full.terms.compare, full.terms.new_cas), (Some(8), Some(9), Some(10)));
    assert_eq!(change("ma k M+\r\n").direction, Direction::Up);
    assert_eq!(change("ma k M-\r\n").direction, Direction::Down);
    assert_eq!(change("ma k C0\r\n").terms.compare, None);
}

#[test]
fn bad_lines_get_the_errors_of_memcached() {
    let long = "k".repeat(251);
    let opaque = "O".repeat(33);
    let many = "v ".repeat(19);
    let cases = [
        ("mg\r\n", BAD_FORMAT),
        ("mg \r\n", BAD_FORMAT),
        ("md\r\n", BAD_FORMAT),
        ("ma\r\n", BAD_FORMAT),
        ("me\r\n", BAD_FORMAT),
        ("me !! b\r\n", BAD_FORMAT),
        ("mg k v v\r\n", DUPLICATE),
        ("mg k T1 T2\r\n", DUPLICATE),
        ("md k q q\r\n", DUPLICATE),
        ("mg k \u{e4}\r\n", DUPLICATE),
        ("mg k !\r\n", INVALID),
        ("md k S1\r\n", INVALID),
        ("mg k Tx !\r\n", INVALID),
        ("mg k T\r\n", BAD_TOKEN),
        ("mg k Nx\r\n", BAD_TOKEN),
        ("mg k R1x\r\n", BAD_TOKEN),
        ("mg k C-1\r\n", BAD_TOKEN),
        ("md k E\r\n", BAD_TOKEN),
        ("mg k!! b\r\n", BAD_KEY),
        ("ma k Dx\r\n", BAD_DELTA),
        ("ma k Jx\r\n", BAD_INITIAL),
        ("ma k M\r\n", BAD_MODE_LEN),
        ("ma k MX\r\n", BAD_CHANGE_MODE),
        (&format!("mg {long}\r\n"), BAD_FORMAT),
        (&format!("mg k {opaque}\r\n"), OPAQUE_TOO_LONG),
        (&format!("mg k {many}\r\n"), TOO_MANY),
    ];
    for (line, expected) in cases {
        assert_eq!(refused(line), (expected, Next::Command), "{line:?}");
    }
    let most = "mg k t v k s c f h l q u P L O1 C1 E1 T1 N1 R1\r\n";
    assert!(matches!(parsed(most), Parsed::Command { .. }), "20 words");
    let opaque = &opaque[1..];
    assert!(matches!(parsed(&format!("mg k {opaque}\r\n")), Parsed::Command { .. }));
    let longest = "a".repeat(250);
    assert!(matches!(parsed(&format!("md {longest}\r\n")), Parsed::Command { .. }));
}

/// Else a value could be commands.
#[test]
fn the_value_behind_a_refused_set_is_skipped_if_its_length_is_known() {
    let long = "k".repeat(251);
    let many = "v ".repeat(18);
    let known = [
        ("ms k 7 !\r\n", INVALID),
        ("ms k 7 T1 T1\r\n", DUPLICATE),
        ("ms k 7 MX\r\n", BAD_STORE_MODE),
        ("ms k 7 MAA\r\n", BAD_MODE_LEN),
        ("ms k 7 Fx\r\n", BAD_FORMAT),
        ("ms k! 7 b\r\n", BAD_KEY),
        (&format!("ms {long} 7\r\n"), BAD_FORMAT),
        (&format!("ms k 7 {many}\r\n"), TOO_MANY),
        (&format!("ms k 7 {}\r\n", "O".repeat(33)), OPAQUE_TOO_LONG),
    ];
    for (line, expected) in known {
        assert_eq!(refused(line), (expected, Next::Value(7)), "{line:?}");
    }
    for line in ["ms\r\n", "ms k\r\n", "ms k abc\r\n", "ms k abc q\r\n"] {
        assert_eq!(refused(line), (BAD_FORMAT, Next::Command), "{line:?}: it has no length");
    }
    for line in ["ms k -1\r\n", "ms k S7\r\n", "ms a b 7\r\n", "ms k 9223372036854775808\r\n"] {
        assert_eq!(refused(line), (BAD_FORMAT, Next::Unknown), "{line:?}");
    }
    assert_eq!(refused("ms k 0 7\r\n"), (INVALID, Next::Unknown), "a key with a space in it");
}
