//! Names of hosts (RFC 3986, section 3.2.2), as `Host` and targets in absolute form have them.

use std::net::Ipv6Addr;

/// Whether `text` is a host, which is not empty, with or without a port.
pub(super) fn is_host(text: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(text) else { return false };
    let (is_name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let Some((address, port)) = rest.split_once(']') else { return false };
            (address.parse::<Ipv6Addr>().is_ok(), port)
        }
        None => {
            let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            (is_registered_name(name.as_bytes()), port)
        }
    };
    let port = port.strip_prefix(':').or_else(|| port.is_empty().then_some(""));
    is_name && port.is_some_and(is_port)
}

/// Digits, or nothing: that means the port of the scheme.
fn is_port(text: &str) -> bool {
    text.is_empty()
        || (text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok())
}

fn is_registered_name(name: &[u8]) -> bool {
    let is_hex = |at: usize| name.get(at).is_some_and(u8::is_ascii_hexdigit);
    let is_allowed = |(at, byte): (usize, &u8)| {
        OF_NAMES[usize::from(*byte)] && (*byte != b'%' || (is_hex(at + 1) && is_hex(at + 2)))
    };
    !name.is_empty() && name.iter().enumerate().all(is_allowed)
}

/// Bytes that may stand in a name.
const OF_NAMES: [bool; 256] = {
    let marks = b"-._~!$&'()*+,;=%";
    let mut of_names = [false; 256];
    let mut byte = 0u8;
    while byte < 128 {
        of_names[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let mut mark = 0;
    while mark < marks.len() {
        of_names[marks[mark] as usize] = true;
        mark += 1;
    }
    of_names
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_names_or_addresses_and_ports() {
        for host in
            ["x", "www.example.com", "a_b-c~d", "127.0.0.1:80", "x:", "[::1]", "[::1]:65535", "%41"]
        {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in [
            "",
            ":",
            ":80",
            "a/b@c:d e",
            "a/b",
            "a@b",
            "a b",
            "a:b",
            "a:1:2",
            "a:-1",
            "a:+1",
            "a:65536",
            "[]",
            "[::1",
            "::1",
            "[::1]x",
            "[::1]:x",
            "[1.2.3.4]",
            "a?b",
            "a#b",
            "a\\b",
            "%4",
            "%zz",
            "a\0",
            "\u{fc}",
            "a,\tb",
            "<a>",
            "\"a\"",
        ] {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
        assert!(!is_host(b"\xff"));
    }
}
