//! Decimal numbers as the protocol writes them. Pure; accepts what `strtol` accepts of one token.

/// An unsigned number: digits with an optional plus sign, no more than 64 bits.
pub(super) fn parse_u64(token: &[u8]) -> Option<u64> {
    let digits = token.strip_prefix(b"+").unwrap_or(token);
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

/// A signed number of no more than 64 bits.
pub(super) fn parse_i64(token: &[u8]) -> Option<i64> {
    match token.strip_prefix(b"-") {
        Some(digits) if digits.first() != Some(&b'+') => {
            0_i64.checked_sub_unsigned(parse_u64(digits)?)
        }
        Some(_) => None,
        None => i64::try_from(parse_u64(token)?).ok(),
    }
}

/// As in memcached, which keeps the lower 32 bits of what fits 64.
pub(super) fn parse_flags(word: &[u8]) -> Option<u32> {
    parse_u64(word).and_then(|flags| u32::try_from(flags & u64::from(u32::MAX)).ok())
}

/// The length of a value: at most 2^63 - 1, so that adding the line end cannot overflow.
pub(super) fn parse_body_len(word: &[u8]) -> Option<u64> {
    parse_i64(word).and_then(|len| u64::try_from(len).ok())
}

/// The number a stored value begins with: leading white space is skipped, and white space
/// or the end must follow, so that a value padded by `decr` still counts.
pub(super) fn parse_value(value: &[u8]) -> Option<u64> {
    let value = value.trim_ascii_start();
    let end = value.iter().position(u8::is_ascii_whitespace).unwrap_or(value.len());
    parse_u64(&value[..end])
}

/// Appends `number` in decimal.
pub(super) fn push_decimal(output: &mut Vec<u8>, mut number: u64) {
    if number == 0 {
        // Most flags are 0.
        return output.push(b'0');
    }
    let mut digits = [0_u8; 20];
    let mut start = digits.len();
    while number > 0 {
        start -= 1;
        digits[start] = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
    }
    output.extend_from_slice(&digits[start..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsigned_numbers_end_at_64_bits() {
        assert_eq!(parse_u64(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(parse_u64(b"+7"), Some(7));
        for token in ["18446744073709551616", "", "+", "-1", "1x", " 1", "++1"] {
            assert_eq!(parse_u64(token.as_bytes()), None, "{token:?}");
        }
    }

    #[test]
    fn signed_numbers_end_at_64_bits() {
        assert_eq!(parse_i64(b"-9223372036854775808"), Some(i64::MIN));
        assert_eq!(parse_i64(b"-1"), Some(-1));
        for token in ["9223372036854775808", "-9223372036854775809", "-+1", "--1", "-"] {
            assert_eq!(parse_i64(token.as_bytes()), None, "{token:?}");
        }
    }

    #[test]
    fn values_may_be_padded_with_white_space() {
        assert_eq!(parse_value(b" 12"), Some(12));
        assert_eq!(parse_value(b"7  "), Some(7));
        assert_eq!(parse_value(b"1 2"), Some(1));
        for value in ["", " ", "-1", "12a", "18446744073709551616"] {
            assert_eq!(parse_value(value.as_bytes()), None, "{value:?}");
        }
    }

    #[test]
    fn decimals_print_as_the_standard_library_does() {
        for number in [0, 9, 10, 1234, u64::MAX] {
            let mut output = Vec::new();
            push_decimal(&mut output, number);
            assert_eq!(output, number.to_string().as_bytes());
        }
    }
}
