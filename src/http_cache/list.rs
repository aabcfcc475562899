//! Lists in field values: members between commas, some of them with quoted text (RFC 9110, sections
//! 5.6.1 and 5.6.4).

/// The members of the list `line`, none of them empty. A comma between quotes is no end. A quote that
/// is not closed takes the rest.
pub fn members(line: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(line);
    let members = std::iter::from_fn(move || {
        let text = rest?;
        let end = member_end(text.as_bytes());
        rest = text.get(end + 1..);
        Some(text[..end].trim_matches([' ', '\t']))
    });
    members.filter(|member| !member.is_empty())
}

/// Where the first member of a list ends: at a comma outside of quotes.
fn member_end(text: &[u8]) -> usize {
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b',' => return at,
            b'"' => match closing_quote(text, at) {
                Some(end) => at = end + 1,
                None => return text.len(),
            },
            _ => at += 1,
        }
    }
    at
}

/// The quote that closes the one at `open` (RFC 9110, section 5.6.4).
#[must_use]
pub fn closing_quote(text: &[u8], open: usize) -> Option<usize> {
    let mut at = open + 1;
    while at < text.len() {
        match text[at] {
            b'"' => return Some(at),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    None
}

/// Whether `text` is a token (RFC 9110, section 5.6.2).
#[must_use]
pub fn is_token(text: &str) -> bool {
    !text.is_empty() && text.chars().all(is_token_char)
}

/// Whether tokens may have `c`.
#[must_use]
pub fn is_token_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> Vec<&str> {
        members(line).collect()
    }

    #[test]
    fn members_end_at_commas_outside_of_quotes() {
        assert_eq!(split(" a,b\t, ,c"), ["a", "b", "c"]);
        assert_eq!(split(r#"a="x, y", b"#), [r#"a="x, y""#, "b"]);
        assert_eq!(split(r#"a="\", b", c"#), [r#"a="\", b""#, "c"]);
        assert_eq!(split(r#"a, "b, c"#), ["a", r#""b, c"#]);
        assert!(split(" , ,").is_empty());
    }
}
