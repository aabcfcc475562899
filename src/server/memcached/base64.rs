//! Base64 (RFC 4648, section 4), in which meta commands write keys of any bytes. Pure.

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const PADDING: u8 = b'=';

/// What `text` stands for; `None` unless it is whole groups of four digits, the last one padded.
pub(super) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    if text.is_empty() || !text.len().is_multiple_of(4) {
        return None;
    }
    let padding = text.iter().rev().take_while(|byte| **byte == PADDING).count();
    let digits = text.get(..text.len() - padding).filter(|_| padding <= 2)?;
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for group in digits.chunks(4) {
        let mut bits = 0;
        for digit in group {
            bits = bits << 6 | value_of(*digit)?;
        }
        bits <<= 6 * (4 - group.len());
        let [_, decoded @ ..] = bits.to_be_bytes();
        // Two digits are one byte, three are two.
        bytes.extend_from_slice(&decoded[..group.len() - 1]);
    }
    Some(bytes)
}

/// Appends `bytes` as text.
pub(super) fn encode(output: &mut Vec<u8>, bytes: &[u8]) {
    for group in bytes.chunks(3) {
        let mut padded = [0; 4];
        padded[1..=group.len()].copy_from_slice(group);
        let bits = u32::from_be_bytes(padded);
        for n in 0..4 {
            // The lower 6 bits are below 64.
            let digit = DIGITS[(bits >> (18 - 6 * n) & 63) as usize];
            output.push(if n <= group.len() { digit } else { PADDING });
        }
    }
}

fn value_of(digit: u8) -> Option<u32> {
    let value = match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(u32::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 4648, section 10.
    #[test]
    fn the_test_vectors_hold() {
        let vectors = [
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (plain, text) in vectors {
            let mut encoded = Vec::new();
            encode(&mut encoded, plain.as_bytes());
            assert_eq!(encoded, text.as_bytes());
            assert_eq!(decode(text.as_bytes()).unwrap(), plain.as_bytes());
        }
        for text in ["", "Zg", "Zg=", "Z===", "====", "Zm9v=", "Zm 9", "Zm9v\n", "Z=g=", "Zm9v===="]
        {
            assert_eq!(decode(text.as_bytes()), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(bytes in proptest::collection::vec(any::<u8>(), 1..200)) {
            let mut text = Vec::new();
            encode(&mut text, &bytes);
            prop_assert_eq!(decode(&text), Some(bytes));
        }

        #[test]
        fn garbage_never_panics(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = decode(&text);
        }
    }
}
