//! The memcached parser: whatever a peer sends, and however the network cuts it, the commands are
//! the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rawcached::server::memcached::command::{Command, KEY_LEN_MAX};
use rawcached::server::memcached::parse::{LINE_LEN_MAX, Next, Parsed, RETRIEVAL_LEN_MAX, parse};

fuzz_target!(|data: &[u8]| {
    let Some((cuts, stream)) = data.split_first() else { return };
    let (cuts, stream) = stream.split_at(usize::from(*cuts).min(stream.len()));
    let whole = commands(stream, std::iter::once(stream.len()));
    let lengths = cuts.iter().map(|len| usize::from(*len)).cycle();
    let cut = commands(stream, lengths.take(if cuts.is_empty() { 0 } else { stream.len() }));
    // What is cut short by the end of the input is not missed: the rest comes at once.
    assert_eq!(whole, cut);
});

/// What a connection makes of a stream that arrives in pieces of these lengths.
fn commands(stream: &[u8], pieces: impl Iterator<Item = usize>) -> Vec<String> {
    let mut seen = Vec::new();
    let (mut start, mut end, mut searched, mut skip) = (0, 0, 0, 0u64);
    for piece in pieces.chain(std::iter::once(stream.len())) {
        end = (end + piece).min(stream.len());
        loop {
            let skipped = skip.min((end - start) as u64);
            skip -= skipped;
            start += skipped as usize;
            if skip > 0 {
                break;
            }
            let unread = &stream[start..end];
            let line_len = match parse(unread, &mut searched) {
                Parsed::Incomplete => {
                    assert!(unread.len() <= RETRIEVAL_LEN_MAX);
                    break;
                }
                Parsed::Command { command, line_len } => {
                    check(&command);
                    if let Command::Store(store) = command {
                        // A value as long as the largest one, and its line end.
                        skip = store.body_len.saturating_add(2);
                    }
                    seen.push(format!("{command:?}"));
                    line_len
                }
                Parsed::Refused { reply, line_len, next } => {
                    seen.push(format!("refused: {reply:?}, {next:?}"));
                    match next {
                        Next::Command => {}
                        Next::Value(len) => skip = len.checked_add(2).unwrap(),
                        Next::Unknown => return seen,
                    }
                    line_len
                }
                Parsed::TooLong(reply) => {
                    assert!(unread.len() > LINE_LEN_MAX);
                    seen.push(format!("closed: {reply}"));
                    return seen;
                }
            };
            assert!(line_len > 0 && line_len <= unread.len());
            assert_eq!(unread[line_len - 1], b'\n');
            assert_eq!(searched, 0);
            start += line_len;
        }
    }
    seen
}

fn check(command: &Command<'_>) {
    let is_key = |key: &[u8]| {
        (1..=KEY_LEN_MAX).contains(&key.len())
            && !key.iter().any(|byte| matches!(byte, b' ' | b'\n'))
    };
    match command {
        Command::Get(retrieval) => assert!(retrieval.keys.iter().all(|key| is_key(&key))),
        Command::Store(store) => assert!(is_key(&store.key) && store.body_len < 1 << 63),
        Command::Arithmetic(change) => assert!(is_key(&change.key)),
        Command::MetaGet(get) => assert!(is_key(&get.key)),
        Command::MetaDelete(delete) => assert!(is_key(&delete.key)),
        Command::Delete { key, .. }
        | Command::MetaDebug { key, .. }
        | Command::Touch { key, .. } => assert!(is_key(key)),
        _ => {}
    }
}
